"""Charges by outcome: a charge is refunded, settled or made after the response."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Callable, Protocol

from keytally import _calls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

# The classes of statuses, such as "5xx".
CLASSES = {f"{first}xx": range(100 * first, 100 * first + 100) for first in range(1, 6)}


class Sent:
    """What was sent of a response, for ``settle``.

    Attributes:
        status: The status of the response. It is 500 if the application raised an exception before
            its response began, and ``None`` if the client closed the connection before that.
        headers: The header fields of the application's response.
        bytes: The bytes of the body that the server took.
        is_complete: Whether the body was sent to its end.
        exception: The exception of the application that ended the response; ``None`` if there is
            none, or if the client closed the connection.
        cost: The units that the request was charged.
        costs: The units that groups were charged as costs of their own, by name.

    >>> from keytally import Sent
    >>> sent = Sent(status=200, headers=[], bytes=5, is_complete=True, exception=None, cost=1)
    >>> sent.status, sent.headers, sent.bytes, sent.is_complete, sent.exception, sent.cost
    (200, [], 5, True, None, 1)
    >>> sent.costs
    {}

    """

    __slots__ = (
        "_unsent_status",
        "bytes",
        "cost",
        "costs",
        "exception",
        "headers",
        "is_complete",
        "status",
    )

    def __init__(
        self,
        *,
        status: int | None,
        headers: list[tuple[str, str]],
        bytes: int,  # noqa: A002
        is_complete: bool,
        exception: BaseException | None,
        cost: int,
        costs: Mapping[str, int] | None = None,
    ) -> None:
        self.status = status
        self.headers = headers
        self.bytes = bytes
        self.is_complete = is_complete
        self.exception = exception
        self.cost = cost
        self.costs = dict(costs or {})
        # The status of the response to a client that had left; None if there is none.
        self._unsent_status: int | None = None


class Decision(Protocol):
    """What a settlement uses of the decision of a table."""

    charge_later: Callable[..., Awaitable[object]]
    is_refunded: bool

    def refund(self) -> None:
        """Refund the charge, if there is one."""

    def settle(self, actual: int | None, costs: Mapping[str, int]) -> None:
        """Replace the charge by the actual costs, if there is a charge."""


class Settlement:
    """What a rule does after the response of an admitted request.

    Args:
        settle: A function of the request and of `Sent` that returns the actual cost.
        refund: The statuses at which the charge is refunded.
        charge_on: The statuses at which the request is charged; ``None`` if it was charged before.

    """

    def __init__(
        self,
        settle: Callable[[Any, Sent], Any] | None,
        refund: frozenset[int],
        charge_on: frozenset[int] | None,
    ) -> None:
        self._settle = settle
        self._refund = refund
        self._charge_on = charge_on

    @classmethod
    def of(
        cls,
        settle: Callable[[Any, Sent], Any] | None,
        refund: str | int | Iterable[str | int],
        charge_on: str | int | Iterable[str | int] | None,
    ) -> Settlement | None:
        """Return the settlement of the options of a rule; ``None`` if there are none.

        Raises:
            TypeError, ValueError: An option is not valid, or two of them exclude each other.

        """
        if settle is not None and not callable(settle):
            kind = type(settle).__name__
            raise TypeError(f"settle must be a function that returns the actual cost, not {kind}")
        refunded = statuses("refund", refund)
        if charge_on is None:
            return cls(settle, refunded, None) if settle is not None or refunded else None
        if settle is not None or refunded:
            raise ValueError(
                "charge_on charges after the response, so there is no charge to settle or refund: "
                "pass only one of charge_on, settle and refund"
            )
        charged = statuses("charge_on", charge_on)
        if not charged:
            raise ValueError("charge_on is empty: list the statuses that count, such as 401")
        return cls(None, refunded, charged)

    def finish(self, decision: Decision, request: object, sent: Sent) -> None:
        """Settle the charge of a decision. An exception is only logged."""
        _calls.completed(self._finish(decision, request, sent, is_async=False))

    async def finish_async(self, decision: Decision, request: object, sent: Sent) -> None:
        """Settle the charge of a decision as ``finish`` does, and await an async ``settle``.

        A charge waits for credits of a fleet in the event loop.
        """
        await self._finish(decision, request, sent, is_async=True)

    async def _finish(
        self, decision: Decision, request: object, sent: Sent, *, is_async: bool
    ) -> None:
        try:
            if await self._is_done(decision, sent, is_async=is_async) or self._settle is None:
                return
            found = self._settle(request, sent)
            found = await _calls.awaited(found) if is_async else _calls.plain(found)
            decision.settle(*_actual(found))
        except Exception:
            _calls.LOG.exception(FAILED)

    async def _is_done(self, decision: Decision, sent: Sent, *, is_async: bool) -> bool:
        """Charge or refund by the status. Return whether there is nothing left to settle."""
        # An exception in the middle of a response is a failure of the server too.
        status = sent.status if sent.exception is None else 500
        if self._charge_on is not None:
            # A client that leaves early must not avoid the charge.
            if (sent._unsent_status or status) in self._charge_on:
                await decision.charge_later(is_async=is_async)
            return True
        if status in self._refund:
            decision.refund()
        return decision.is_refunded


FAILED = "settle raised an exception; the charge of the request stays"


def _actual(found: object) -> tuple[int | None, dict[str, int]]:
    """Return the actual cost of the request, if it is known, and those of groups.

    Raises:
        ValueError: The result of the function has another type or is out of range.

    """
    costs: dict[str, Any] = dict(found) if isinstance(found, Mapping) else {OWN: found}
    for cost in costs.values():
        if not isinstance(cost, int) or not 0 <= cost <= _calls.MAX_COST:
            raise ValueError(
                f"settle must return a whole number from 0 to {_calls.MAX_COST}, or a dict from "
                "the names of groups to such numbers"
            )
    return costs.pop(OWN, None), costs


# The section whose cost is that of the request itself. No group can have this name.
OWN = "key"


def statuses(name: str, given: str | int | Iterable[str | int]) -> frozenset[int]:
    """Return the statuses that an option lists: numbers, and classes such as ``"5xx"``.

    Raises:
        TypeError, ValueError: A value is neither.

    """
    if isinstance(given, (str, int)):
        given = [given]
    try:
        values = list(given)
    except TypeError:
        kind = type(given).__name__
        raise TypeError(
            f'{name} must be a status such as 503, a class such as "5xx", or a list of them, '
            f"not {kind}"
        ) from None
    found: set[int] = set()
    for value in values:
        if isinstance(value, str) and value in CLASSES:
            found.update(CLASSES[value])
        elif isinstance(value, int) and 100 <= value <= 599:
            found.add(value)
        else:
            raise ValueError(
                f"{value!r} in {name} is not a status from 100 to 599, "
                'nor a class of them such as "5xx"'
            )
    return frozenset(found)
