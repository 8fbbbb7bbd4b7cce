"""The part that the ASGI and the WSGI middleware share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Generic, TypeVar

from keytally._exempt import exemption

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping

    from keytally import _record
    from keytally._rule import Rule, Store

AppT = TypeVar("AppT")
RequestT = TypeVar("RequestT")


class Middleware(Generic[AppT, RequestT]):
    """Middleware that applies a rule to each request whose path is not exempt."""

    def __init__(
        self,
        app: AppT,
        rule: Rule[RequestT],
        *,
        exempt: Iterable[str],
        headers: bool,
        state: str,
    ) -> None:
        self.app = app
        self._rule = rule
        self._is_exempt: Callable[[str], bool] = exemption(exempt)
        self._headers = headers
        self._state = state

    def _store_in(self, values: MutableMapping[str, Any]) -> Store:
        """Return a function that stores the verdict in a state or an environ."""

        def store(record: _record.Record, decision: _record.Decision) -> None:
            record.store(values, self._state, decision)

        return store
