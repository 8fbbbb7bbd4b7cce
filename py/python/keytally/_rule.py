"""The rules that all integrations apply to a request: check a table, and act on the verdict."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Callable, Generic, TypeVar, Union

from keytally import _addresses, _calls, _charges, _fleet, _refusal
from keytally._costs import Costs
from keytally._guesses import Guesses
from keytally._keys import KeySources
from keytally._native import Limiter, Verdict
from keytally._refusal import Refusal
from keytally._settle import Settlement

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, MutableMapping, Sequence

    from keytally._keys import Reader
    from keytally._native import Gate
    from keytally._settle import Sent

# The argument of the application's functions.
RequestT = TypeVar("RequestT")

# The subject that a limiter counts; None for a gate, and for a request that is not counted.
Subject = Union[str, bytes, None]

Store = Callable[[_charges.Record, _charges.Decision], None]


# A status, a class of statuses such as "5xx", or a list of them.
Statuses = Union[str, int, "Iterable[str | int]"]


class Rule(Generic[RequestT]):
    """A check that an integration applies to requests: the base of `GateRule` and `LimiterRule`.

    Args:
        costs: The options that say what a request is charged, see ``Costs.of``: each a value, or a
            function that returns it.
        shadow: Whether to admit every request, and only record the outcome that would refuse it.
        on_verdict: A function that is called with each verdict and its request.
        headers: Whether the response lists the quotas of the table.
        settle: A function of the request and of `Sent` that returns the actual cost.
        refund: The statuses at which the charge is refunded.
        charge_on: The statuses at which the request is charged; ``None`` to charge it before.
        refusal: A function of a `Refusal` and its request that returns the response to it.
        awaits: Whether the integration can await functions of the application.

    Raises:
        TypeError, ValueError: The cost is not valid, or a function is async and not awaited.

    """

    def __init__(
        self,
        *,
        costs: dict[str, Any],
        shadow: bool,
        on_verdict: Callable[[Verdict, RequestT], object] | None,
        headers: bool = True,
        settle: Callable[[RequestT, Sent], Any] | None = None,
        refund: Statuses = (),
        charge_on: Statuses | None = None,
        refusal: Callable[[Refusal, RequestT], Any] | None = None,
        awaits: bool = False,
    ) -> None:
        self._refusal = _refusal.checked_function(refusal)
        _calls.checked_cost(costs["cost"])
        self._options = costs
        self._functions = {name: option for name, option in costs.items() if callable(option)}
        # The costs of every request; None if a function returns some of them.
        self._costs = None if self._functions else Costs.of(**costs)
        self._shadow = shadow
        self._on_verdict = on_verdict
        self._headers = headers
        if not awaits:
            _calls.refuse_async(on_verdict=on_verdict, settle=settle, refusal=refusal, **costs)
        # What happens after the response; None if nothing does.
        self.settlement = Settlement.of(settle, refund, charge_on)

    @property
    def replaces_refusals(self) -> bool:
        """Whether a function of the application returns the responses to refused requests."""
        return self._refusal is not None

    def check(
        self, request: RequestT, fields: MutableMapping[str, Any], store: Store
    ) -> _charges.Decision | None:
        """Check a request. If it is refused, the decision has a ``refusal``.

        Args:
            request: The argument of the application's functions.
            fields: The scope or the environ.
            store: A function that stores the verdict where the application reads it.

        Returns:
            The decision; ``None`` if the request is not counted.

        """
        costs = self._costs
        if costs is None:
            found = {name: _calls.plain(call(request)) for name, call in self._functions.items()}
            costs = Costs.of(**{**self._options, **found})
        subject = _calls.plain(self._subject(request, fields))
        decision = _calls.completed(
            self._decide(request, fields, subject, costs, store, is_async=False)
        )
        if decision is not None and self._must_notify(decision):
            _calls.notify(self._on_verdict, decision.verdict, request)  # type: ignore[arg-type]
        if decision is not None and decision.refusal is not None and self._refusal is not None:
            result = self._refusal(decision.refusal, request)
            _charges.record_of(fields).replace(decision, _refusal.checked_result(result))
        return decision

    async def check_async(
        self, request: RequestT, fields: MutableMapping[str, Any], store: Store
    ) -> _charges.Decision | None:
        """Check a request as ``check`` does, and await the application's async functions.

        If the gate is in a fleet, the check waits for credits in the event loop.
        """
        costs = self._costs
        if costs is None:
            functions = self._functions.items()
            found = {name: await _calls.awaited(call(request)) for name, call in functions}
            costs = Costs.of(**{**self._options, **found})
        subject = await _calls.awaited(self._subject(request, fields))
        decision = await self._decide(request, fields, subject, costs, store, is_async=True)
        if decision is not None and self._must_notify(decision):
            await _calls.notify_async(
                self._on_verdict,  # type: ignore[arg-type]
                decision.verdict,
                request,
            )
        if decision is not None and decision.refusal is not None and self._refusal is not None:
            result = await _calls.awaited(self._refusal(decision.refusal, request))
            _charges.record_of(fields).replace(decision, _refusal.checked_result(result))
        return decision

    async def _decide(
        self,
        request: RequestT,
        fields: MutableMapping[str, Any],
        subject: Subject,
        costs: Costs,
        store: Store,
        *,
        is_async: bool,
    ) -> _charges.Decision | None:
        """Charge the table, store the verdict, and refuse the request unless it is admitted."""
        record = _charges.record_of(fields)
        in_range = costs.is_in_range
        charged = costs if in_range else costs.without_units()
        decision = await self._charge(record, fields, subject, charged, is_async=is_async)
        if decision is None:
            return None
        decision.listed = decision.listed or self._headers
        store(record, decision)
        verdict = decision.verdict
        if verdict.admitted and in_range:
            # A websocket has no response whose status could settle the charge.
            if self.settlement is not None and fields.get("type") != "websocket":
                record.settle_later(decision, self.settlement, request)
            return decision
        if self._shadow:
            if record.shadow is None:
                record.shadow = verdict.outcome if not verdict.admitted else _refusal.WRONG_COST
        elif verdict.admitted:
            record.refuse(decision, _refusal.of_wrong_cost(verdict))
        else:
            refusal = await self._refusal_by(verdict, fields, is_async=is_async)
            record.refuse(decision, refusal)
        return decision

    def _subject(
        self,
        request: RequestT,  # noqa: ARG002
        fields: MutableMapping[str, Any],  # noqa: ARG002
    ) -> Any:  # noqa: ANN401
        """Return the subject that a limiter counts, or an awaitable of it; ``None`` for a gate."""
        return None

    async def _charge(
        self,
        record: _charges.Record,
        fields: MutableMapping[str, Any],
        subject: Subject,
        costs: Costs,
        *,
        is_async: bool,
    ) -> _charges.Decision | None:
        """Charge the table, and return its decision; ``None`` if the request is not counted.

        Unless ``is_async``, nothing may pause the coroutine.
        """
        raise NotImplementedError

    async def _refusal_by(
        self,
        verdict: Verdict,
        fields: MutableMapping[str, Any],  # noqa: ARG002
        *,
        is_async: bool,  # noqa: ARG002
    ) -> Refusal:
        """Return the documented response to a request that the verdict refuses.

        Unless ``is_async``, nothing may pause the coroutine.
        """
        return Refusal.of(verdict)

    def _must_notify(self, decision: _charges.Decision) -> bool:
        """Return whether to call ``on_verdict``: once for each verdict, but not on a wrong cost."""
        call = (self._on_verdict, decision.verdict)
        if self._on_verdict is None or call in decision.notified:
            return False
        if decision.refusal is not None and decision.refusal.outcome == _refusal.WRONG_COST:
            return False
        decision.notified.append(call)
        return True


class GateRule(Rule[RequestT]):
    """Requires a valid key with quota left."""

    def __init__(
        self,
        gate: Gate,
        read: Reader,
        guesses: Guesses,
        keys: KeySources,
        *,
        without_key: Limiter | None = None,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**options)
        fixed: dict[str, Any] = {
            name: None if callable(option) else option for name, option in self._options.items()
        }
        # Raises an error if the gate does not have a group or a scope.
        Costs.of(**{**fixed, "cost": 0}).part(gate)
        if without_key is not None and not isinstance(without_key, Limiter):
            kind = type(without_key).__name__
            raise TypeError(
                f"without_key must be the Limiter of requests without a key, or None, not {kind}"
            )
        self._gate = gate
        self._keys = keys
        self._without_key = without_key
        if without_key is not None:
            guesses.check_prefix_for(without_key)
            _charges.real_path(without_key.path)
        _charges.real_path(gate.path)
        self._read = read
        self._guesses = guesses

    @classmethod
    def with_failures(
        cls,
        gate: Gate,
        read: Reader,
        *,
        failures: Limiter | str | None,
        trusted_proxies: Iterable[str],
        ipv6_prefix: int,
        key_from: Iterable[str],
        cost: int | Callable[[RequestT], Any],
        group: Any,  # noqa: ANN401
        costs: Any,  # noqa: ANN401
        need: Any,  # noqa: ANN401
        **options: Any,  # noqa: ANN401
    ) -> GateRule[RequestT]:
        """Return the rule of a gate, with its limit of invalid keys by client address."""
        guesses = Guesses(failures, trusted_proxies, ipv6_prefix)
        options["costs"] = {"cost": cost, "group": group, "costs": costs, "need": need}
        return cls(gate, read, guesses, KeySources(key_from), **options)

    async def _charge(
        self,
        record: _charges.Record,
        fields: MutableMapping[str, Any],
        subject: Subject,  # noqa: ARG002
        costs: Costs,
        *,
        is_async: bool,
    ) -> _charges.Decision:
        keys = self._keys.presented(self._read, fields)
        # Without a key, a request has no scope.
        if self._without_key is not None and not keys and not costs.need:
            client = self._guesses.subject(
                self._read.peer(fields), self._read.forwarded_for(fields)
            )
            # A client whose address is unknown needs a key.
            if client is not None:
                return await check_subject(
                    record, self._without_key, client, Costs(costs.own), is_async=is_async
                )
        return await check_key(record, self._gate, keys, costs, is_async=is_async)

    async def _refusal_by(
        self, verdict: Verdict, fields: MutableMapping[str, Any], *, is_async: bool
    ) -> Refusal:
        peer, forwarded_for = self._read.peer(fields), self._read.forwarded_for(fields)
        refusal = await self._guesses.refusal(verdict, peer, forwarded_for, is_async=is_async)
        return self._keys.refusal(refusal)


class LimiterRule(Rule[RequestT]):
    """Requires quota left for the request's subject."""

    def __init__(
        self,
        limiter: Limiter,
        key: Callable[[RequestT], Any],
        *,
        awaits: bool = False,
        charge_on: Statuses | None = None,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(awaits=awaits, charge_on=charge_on, **options)
        self._peeks = charge_on is not None
        if not awaits:
            _calls.refuse_async(key=key)
        self._limiter = limiter
        _charges.real_path(limiter.path)
        self._key = key

    @classmethod
    def with_default_key(
        cls,
        limiter: Limiter,
        key: Callable[[RequestT], Any] | None,
        client_address: Callable[..., str],
        *,
        ipv6_prefix: int,
        cost: int | Callable[[RequestT], Any],
        **options: Any,  # noqa: ANN401
    ) -> LimiterRule[RequestT]:
        """Return the rule of a limiter that counts client addresses, unless there is a ``key``."""
        prefix = _addresses.prefix_for(limiter, ipv6_prefix)
        key = key or functools.partial(client_address, ipv6_prefix=prefix)
        return cls(limiter, key, costs={"cost": cost}, **options)

    def _subject(
        self,
        request: RequestT,
        fields: MutableMapping[str, Any],  # noqa: ARG002
    ) -> Any:  # noqa: ANN401
        return self._key(request)

    async def _charge(
        self,
        record: _charges.Record,
        fields: MutableMapping[str, Any],  # noqa: ARG002
        subject: Subject,
        costs: Costs,
        *,
        is_async: bool,
    ) -> _charges.Decision | None:
        if subject is None:
            return None
        return await check_subject(
            record, self._limiter, subject, costs, is_async=is_async, peeks=self._peeks
        )


def check_key(
    record: _charges.Record,
    gate: Gate,
    keys: Sequence[str | bytes],
    costs: Costs,
    *,
    is_async: bool,
) -> Coroutine[Any, Any, _charges.Decision]:
    """Check the key of a request with the gate, in the event loop if ``is_async``."""

    async def check(costs: Costs) -> Verdict:
        if len(keys) > 1:
            return Verdict.duplicate_header()
        key = keys[0] if keys else None
        # Only a table in a fleet can wait.
        if is_async and gate.is_in_fleet:
            return await costs.check(gate.acheck, key)
        return costs.check(gate.check, key)

    # WSGI and Django pass bytes as text.
    presented = [key.encode("latin-1", "replace") if isinstance(key, str) else key for key in keys]
    return record.charge(gate, presented, costs, check)


async def check_subject(
    record: _charges.Record,
    limiter: Limiter,
    subject: str | bytes,
    costs: Costs,
    *,
    is_async: bool,
    peeks: bool = False,
) -> _charges.Decision:
    """Check the subject of a request with the limiter, in the event loop if ``is_async``.

    If ``peeks``, nothing is charged before the response.
    """
    # A text and its bytes are one subject. The limiter raises its own error for other types.
    counted = subject.encode(errors="surrogatepass") if isinstance(subject, str) else subject
    if not peeks:

        async def check(costs: Costs) -> Verdict:
            return await _fleet.check_subject(limiter, subject, costs.own, is_async=is_async)

        return await record.charge(limiter, counted, costs, check)

    async def peek(costs: Costs) -> Verdict:
        return limiter.peek(subject, costs.own)

    # Another integration that charges the subject before the response has its own decision.
    decision = await record.charge(limiter, (counted,), costs, peek)

    async def charge_later(*, is_async: bool) -> None:
        cost = decision.costs.own
        try:
            await _fleet.check_subject(limiter, subject, cost, is_async=is_async)
        except BaseException as error:
            # If the task was canceled in a pause, nothing is charged yet.
            if not isinstance(error, Exception):
                limiter.check_without_wait(subject, cost)
            raise

    decision.charge_later = charge_later
    return decision
