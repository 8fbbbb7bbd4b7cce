"""The base class of the ASGI and the WSGI middleware."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Generic, TypeVar

from keytally import _exempt
from keytally._exempt import exemption

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping

    from keytally import _charges
    from keytally._rule import Rule, Store

AppT = TypeVar("AppT")
RequestT = TypeVar("RequestT")


class Middleware(Generic[AppT, RequestT]):
    """Middleware that applies a rule of a gate or a limiter to requests that are not exempt."""

    def __init__(
        self,
        app: AppT,
        rule: Rule[RequestT],
        *,
        exempt: Iterable[str],
        exempt_methods: Iterable[str],
        headers: bool,
        state: str,
    ) -> None:
        self.app = app
        self._rule = rule
        self._is_exempt: Callable[[str], bool] = exemption(exempt)
        self._exempt_methods = _exempt.exempt_methods(exempt_methods)
        self._headers = headers
        self._state = state

    def _store_in(self, values: MutableMapping[str, Any]) -> Store:
        """Return a function that stores the verdict in an ASGI state or a WSGI environ."""

        def store(record: _charges.Record, decision: _charges.Decision) -> None:
            record.store(values, self._state, decision)

        return store
