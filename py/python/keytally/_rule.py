"""What an integration asks about a request, and what follows from the verdict. It is the same everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Generic, Protocol, TypeVar, Union

from keytally import _calls, _once, _web
from keytally._native import Verdict

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

    from keytally import Gate, Limiter
    from keytally._guesses import Guesses

# What the application's functions get.
RequestT = TypeVar("RequestT")

# What a limiter counts; None for a gate, and for a request that is not counted.
Subject = Union[str, bytes, None]

Leave = Callable[[_once.Record, _once.Asked], None]


class Reader(Protocol):
    """How a scope or an environ is read."""

    def keys(self, fields: MutableMapping[str, Any], /) -> Sequence[str | bytes]:
        """Return the values of all X-API-Key fields."""

    def peer(self, fields: MutableMapping[str, Any], /) -> str | None:
        """Return the address of the other end of the connection, as the server reports it."""

    def forwarded_for(self, fields: MutableMapping[str, Any], /) -> str:
        """Return the values of all X-Forwarded-For fields as one list."""


class Rule(Generic[RequestT]):
    """What both rules do with a verdict."""

    def __init__(
        self,
        *,
        cost: int | Callable[[RequestT], Any],
        shadow: bool,
        on_verdict: Callable[[Verdict, RequestT], object] | None,
        headers: bool = True,
        awaits: bool = False,
    ) -> None:
        self._cost = _calls.checked_cost(cost)
        self._shadow = shadow
        self._on_verdict = on_verdict
        self._headers = headers
        if not awaits:
            _calls.refuse_async(cost=cost, on_verdict=on_verdict)

    def ask(self, request: RequestT, fields: MutableMapping[str, Any], leave: Leave) -> _once.Asked | None:
        """Ask about a request. What it is refused with, if it is, is the ``refusal``.

        Args:
            request: What the application's functions get.
            fields: The scope or the environ.
            leave: Leaves the verdict where the application's functions find it.

        Returns:
            What was asked; ``None`` if the request is not counted.

        """
        cost = _calls.plain(self._cost(request)) if callable(self._cost) else self._cost
        asked = self._decide(fields, _calls.plain(self._subject(request, fields)), cost, leave)
        if asked is not None and self._is_to_be_told(asked):
            _calls.tell(self._on_verdict, asked.verdict, request)  # type: ignore[arg-type]
        return asked

    async def ask_awaiting(
        self, request: RequestT, fields: MutableMapping[str, Any], leave: Leave
    ) -> _once.Asked | None:
        """Ask about a request as ``ask`` does, and await the functions of the application that are async."""
        cost = await _calls.awaited(self._cost(request)) if callable(self._cost) else self._cost
        asked = self._decide(fields, await _calls.awaited(self._subject(request, fields)), cost, leave)
        if asked is not None and self._is_to_be_told(asked):
            await _calls.tell_awaited(self._on_verdict, asked.verdict, request)  # type: ignore[arg-type]
        return asked

    def _decide(
        self,
        fields: MutableMapping[str, Any],
        subject: Subject,
        cost: int,
        leave: Leave,
    ) -> _once.Asked | None:
        record = _once.of(fields)
        in_range = 0 <= cost <= _calls.MAX_COST
        asked = self._check(record, fields, subject, cost if in_range else 0)
        if asked is None:
            return None
        asked.listed = asked.listed or self._headers
        leave(record, asked)
        verdict = asked.verdict
        if verdict.admitted and in_range:
            return asked
        if self._shadow:
            if record.shadow is None:
                record.shadow = verdict.outcome if not verdict.admitted else "cost_out_of_range"
        elif verdict.admitted:
            record.refuse(asked, _web.WRONG_COST)
        else:
            record.refuse(asked, self._answer_to(verdict, fields))
        return asked

    def _subject(self, request: RequestT, fields: MutableMapping[str, Any]) -> Any:  # noqa: ANN401, ARG002
        return None

    def _check(
        self,
        record: _once.Record,
        fields: MutableMapping[str, Any],
        subject: Subject,
        cost: int,
    ) -> _once.Asked | None:
        raise NotImplementedError

    def _answer_to(self, verdict: Verdict, fields: MutableMapping[str, Any]) -> _web.Answer:  # noqa: ARG002
        return verdict

    def _is_to_be_told(self, asked: _once.Asked) -> bool:
        """Return whether the function is to be called: once for each verdict on the request's own cost."""
        told = (self._on_verdict, asked.verdict)
        if self._on_verdict is None or told in asked.told or asked.refusal is _web.WRONG_COST:
            return False
        asked.told.append(told)
        return True


class GateRule(Rule[RequestT]):
    """Needs a good key with quota left."""

    def __init__(
        self,
        gate: Gate,
        read: Reader,
        guesses: Guesses,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**options)
        self._gate = gate
        _once.file_at(gate.path)
        self._read = read
        self._guesses = guesses

    def _check(
        self,
        record: _once.Record,
        fields: MutableMapping[str, Any],
        subject: Subject,  # noqa: ARG002
        cost: int,
    ) -> _once.Asked:
        return check_key(record, self._gate, self._read.keys(fields), cost)

    def _answer_to(self, verdict: Verdict, fields: MutableMapping[str, Any]) -> _web.Answer:
        return self._guesses.answer(verdict, self._read.peer(fields), self._read.forwarded_for(fields))


class LimiterRule(Rule[RequestT]):
    """Needs quota left of the request's subject."""

    def __init__(
        self,
        limiter: Limiter,
        key: Callable[[RequestT], Any],
        *,
        awaits: bool = False,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(awaits=awaits, **options)
        if not awaits:
            _calls.refuse_async(key=key)
        self._limiter = limiter
        _once.file_at(limiter.path)
        self._key = key

    def _subject(self, request: RequestT, fields: MutableMapping[str, Any]) -> Any:  # noqa: ANN401, ARG002
        return self._key(request)

    def _check(
        self,
        record: _once.Record,
        fields: MutableMapping[str, Any],  # noqa: ARG002
        subject: Subject,
        cost: int,
    ) -> _once.Asked | None:
        return None if subject is None else check_subject(record, self._limiter, subject, cost)


def check_key(record: _once.Record, gate: Gate, keys: Sequence[str | bytes], cost: int) -> _once.Asked:
    """Ask the gate about the key of a request."""

    def check(cost: int) -> Verdict:
        if len(keys) > 1:
            return Verdict.duplicate_header()
        return gate.check(keys[0] if keys else None, cost)

    # WSGI and Django have bytes as text.
    presented = [key.encode("latin-1", "replace") if isinstance(key, str) else key for key in keys]
    return record.ask(gate, presented, cost, check)


def check_subject(record: _once.Record, limiter: Limiter, subject: str | bytes, cost: int) -> _once.Asked:
    """Ask the limiter about the subject of a request."""
    # Text and its bytes are one subject. A limiter has its own error for text that has no bytes.
    counted = subject.encode(errors="surrogatepass") if isinstance(subject, str) else subject
    return record.ask(limiter, counted, cost, lambda cost: limiter.check(subject, cost))
