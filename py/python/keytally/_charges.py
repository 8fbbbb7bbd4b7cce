"""The charges of one request: each table is charged at most once, and either all or none.

A request has one record, in its ASGI scope or WSGI environ. All integrations that check the request
share it.
"""

from __future__ import annotations

import functools
import os
import re
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Union

from keytally import _web
from keytally._costs import NOTHING, Costs
from keytally._native import Gate, Limiter, Verdict
from keytally._refusal import WRONG_COST, Refusal
from keytally.exceptions import KeytallyError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Mapping, MutableMapping
    from pathlib import Path

    from keytally._native import Charge
    from keytally._settle import Settlement

# The name of the record in a scope or an environ.
NAME = "keytally.record"

# The outcomes at which the charges of other tables are refunded: a limit refuses the request, the
# key is valid and lacks a scope, or its counts are moving to another file.
REFUNDING = frozenset(["denied", "too_costly", "full", "forbidden", "unavailable"])

# The number of a repeated name in a list of quotas, as in `"minute-2"`.
_NUMBER_OF_NAME = re.compile(r'-[0-9]+"$')

Table = Union[Gate, Limiter]


class Decision:
    """The decision of one table on a request."""

    __slots__ = (
        "charge_later",
        "charged",
        "costs",
        "is_gate",
        "is_refunded",
        "listed",
        "notified",
        "refusal",
        "reported",
        "subject",
        "table",
        "verdict",
    )

    def __init__(self, table: Table | None, subject: Any) -> None:  # noqa: ANN401
        # None if the application made the check itself.
        self.table = table
        # What the table checked: a limiter's subject, or the keys that the request presents.
        self.subject = subject
        self.is_gate = not isinstance(table, Limiter)
        # Whether the response lists the quotas of the table.
        self.listed = False
        # The response to the request, if this table refuses it.
        self.refusal: Refusal | None = None
        # Charges the request after its response, if the check was only a peek.
        self.charge_later: Callable[..., Awaitable[object]] = _charge_nothing
        # The functions that were called with a verdict, each with that verdict.
        self.notified: list[object] = []

    def set(self, verdict: Verdict, costs: Costs) -> None:
        """Set the verdict and the costs of the check that returned it."""
        self.costs = costs
        self.verdict = verdict
        # Whether the charge was refunded.
        self.is_refunded = False
        # The verdict whose charge a refund takes back.
        self.charged = verdict
        # The verdict that the header fields report: this one, or that of a later refund.
        self.reported = verdict

    def refund(self) -> None:
        """Refund the charge, if there is one."""
        charge = self.charged.charge
        self.is_refunded = True
        if charge is None or self.costs.is_nothing:
            return
        try:
            if isinstance(self.table, Gate):
                self.reported = self._refunded(self.table, charge)
            elif self.table is not None:
                self.reported = self.table.refund(self.subject, charge)
        except KeytallyError:
            # The gate no longer has the key, so there is no count to refund.
            pass
        self.costs = NOTHING

    def _refunded(self, gate: Gate, charge: Charge) -> Verdict:
        """Refund a charge of the gate, and return the verdict that the header fields report."""
        refunded = gate.refund(self.charged.key_id, charge)
        if len(self.charged.tallies) == 1:
            return refunded
        # That is the verdict on the first tally, and the header fields list all.
        peeked = self.costs.peek(gate, self.subject[0])
        return peeked if peeked.admitted else refunded

    def settle(self, actual: int | None, costs: Mapping[str, int]) -> None:
        """Replace the charge by the actual costs, if there is a charge.

        Args:
            actual: The cost of the request itself; ``None`` if the estimate was right.
            costs: The costs of groups that were charged a cost of their own.

        """
        charge = self.charged.charge
        if charge is None:
            return
        try:
            if isinstance(self.table, Gate):
                self.table.settle(self.charged.key_id, charge, actual, costs=costs)
            elif self.table is not None and actual is not None:
                self.table.settle(self.subject, charge, actual)
        except KeytallyError:
            # The gate no longer has the key, so there is no count to settle.
            pass


async def _charge_nothing(*, is_async: bool) -> None:
    """Charge nothing after the response."""


class Pending(NamedTuple):
    """A charge that is settled after the response."""

    decision: Decision
    settlement: Settlement
    request: object


class Record:
    """The decisions on one request."""

    __slots__ = (
        "_claimed",
        "_decisions",
        "_pending",
        "_state",
        "is_watched",
        "named",
        "refusal",
        "shadow",
    )

    def __init__(self) -> None:
        self._decisions: list[Decision] = []
        # The state of the ASGI scope, once `own_state` gave the request one of its own.
        self._state: dict[str, Any] = {}
        # Whether an integration sets the header fields of the response.
        self._claimed = False
        # Whether an integration settles the charges after the response.
        self.is_watched = False
        self._pending: list[Pending] = []
        # The response to the request, if it is refused.
        self.refusal: Refusal | None = None
        # The outcome that shadow mode did not enforce, or "cost_out_of_range".
        self.shadow: str | None = None
        # The names under which integrations stored a verdict.
        self.named: set[str] = set()

    async def charge(
        self,
        table: Table,
        subject: Any,  # noqa: ANN401
        costs: Costs,
        check: Callable[[Costs], Awaitable[Verdict]],
    ) -> Decision:
        """Charge a table by ``check``, unless this request was charged for the subject already.

        If it was already, and a cost is higher now or a group or scope is new, the costs of both
        replace the earlier ones.
        """
        decision = next(
            (d for d in self._decisions if d.subject == subject and _is_same(d.table, table)), None
        )
        if decision is None:
            decision = Decision(table, subject)
            decision.set(await check(costs), costs)
            self._decisions.append(decision)
            return decision
        before = decision.costs
        merged = before.merged(costs)
        if merged != before and decision.verdict.admitted:
            decision.refund()
            decision.set(await check(merged), merged)
            if not decision.verdict.admitted:
                # In shadow mode the request proceeds, so the earlier charge is due again.
                decision.charged = await check(before)
        return decision

    def refuse(self, decision: Decision, refusal: Refusal) -> None:
        """Refuse the request. If a limit or a missing scope refuses it, refund all charges."""
        self.refusal = decision.refusal = refusal
        decision.listed = True
        if refusal.outcome == WRONG_COST or decision.verdict.outcome in REFUNDING:
            for other in self._decisions:
                other.refund()

    def replace(self, decision: Decision, refusal: Refusal) -> None:
        """Replace the response to the request, which the decision refuses."""
        self.refusal = decision.refusal = refusal

    def adopt(self, verdict: object) -> None:
        """Take the verdict of a check that the application made itself, if there is no other.

        An object that is not a `Verdict` is a value of the application with the same name.
        """
        if isinstance(verdict, Verdict) and not self._decisions:
            decision = Decision(None, None)
            decision.set(verdict, NOTHING)
            decision.listed = True
            self._decisions.append(decision)
            if not verdict.admitted:
                self.refusal = Refusal.of(verdict)

    def own_state(self, scope: MutableMapping[str, Any]) -> dict[str, Any]:
        """Give an ASGI scope a state that no other request has, and return the state.

        A server may give all requests of a connection one state, as hypercorn does with HTTP/2.
        """
        if scope.get("state") is not self._state:
            self._state = dict(scope.get("state") or ())
            scope["state"] = self._state
        return self._state

    def claim_headers(self) -> bool:
        """Return whether the caller must set the header fields, which only the first caller must.

        Several integrations of a request may call this.
        """
        is_first = not self._claimed
        self._claimed = True
        return is_first

    def claim_watch(self) -> bool:
        """Return whether the caller must settle the charges, which only the first caller must."""
        is_first = not self.is_watched
        self.is_watched = True
        return is_first

    def settle_later(self, decision: Decision, settlement: Settlement, request: object) -> None:
        """Settle a charge after the response. The first integration of the charge decides how."""
        if not any(pending.decision is decision for pending in self._pending):
            self._pending.append(Pending(decision, settlement, request))

    @property
    def has_pending(self) -> bool:
        """Whether a charge is settled after the response."""
        return bool(self._pending)

    def take_pending(self) -> list[Pending]:
        """Return the charges to settle, once, after the response."""
        self.is_watched = False
        taken, self._pending = self._pending, []
        return taken

    @property
    def verdict(self) -> Verdict | None:
        """The verdict of the gate; without a gate, that of the first limiter."""
        chosen = self._chosen(self._decisions)
        return None if chosen is None else chosen.verdict

    def store(self, values: MutableMapping[str, Any], name: str, decision: Decision) -> None:
        """Store the verdict under a name. A limiter's verdict does not replace another verdict."""
        if decision.is_gate or name not in self.named:
            values[name] = decision.verdict
            self.named.add(name)

    def fields(self) -> list[tuple[str, str]]:
        """Return the header fields of the response, without those of a refusal.

        X-RateLimit-* describe the gate. Without a gate, they describe the first limiter. The other
        fields list the quotas of all tables.
        """
        listed = [decision for decision in self._decisions if decision.listed]
        chosen = self._chosen(listed)
        fields = [] if chosen is None else _x_ratelimit(chosen)
        if chosen is not None:
            listed.sort(key=lambda decision: decision is not chosen)
        reported = [dict(decision.reported.headers) for decision in listed]
        for name in ("RateLimit-Policy", "RateLimit"):
            values = [headers[name] for headers in reported if name in headers]
            if values:
                fields.append((name, _joined(values)))
        if self.shadow is not None:
            fields.append((_web.SHADOW_HEADER, self.shadow))
        return fields

    def raw_fields(self) -> list[tuple[bytes, bytes]]:
        """Return ``fields`` as bytes, as ASGI requires."""
        if len(self._decisions) == 1 and self.shadow is None:
            [only] = self._decisions
            # Fast path: one admitted gate, whose verdict has the fields as bytes.
            if only.is_gate and only.listed and only.verdict.admitted:
                return only.reported.raw_headers
        return _web.raw(self.fields())

    @staticmethod
    def _chosen(decisions: list[Decision]) -> Decision | None:
        """Return the decision of the last gate; without a gate, that of the first limiter."""
        gates = [decision for decision in decisions if decision.is_gate]
        return gates[-1] if gates else next(iter(decisions), None)


def record_of(carrier: MutableMapping[str, Any]) -> Record:
    """Return the record of a request, and create it if there is none.

    An environ that has an ASGI scope, as that of a2wsgi does, belongs to the request of the scope.
    """
    record: Record | None = carrier.get(NAME)
    if record is None:
        scope = carrier.get("asgi.scope")
        record = record_of(scope) if isinstance(scope, dict) else Record()
        carrier[NAME] = record
    return record


@functools.lru_cache(maxsize=256)
def real_path(path: Path | None) -> str | None:
    """Return the path of a file without symbolic links; ``None`` if there is no file.

    The result is cached. Integrations call this at construction, because a relative path depends
    on the working directory.
    """
    return None if path is None else os.path.realpath(path)


def _is_same(one: Table | None, other: Table) -> bool:
    """Return whether the tables are one object, or are in one file."""
    if one is other:
        return True
    if one is None or one.path is None or other.path is None:
        return False
    return one.path == other.path or real_path(one.path) == real_path(other.path)


def _x_ratelimit(decision: Decision) -> list[tuple[str, str]]:
    """Return the X-RateLimit-* fields of a decision."""
    return [field for field in decision.reported.headers if field[0].startswith("X-")]


def _joined(values: Iterable[str]) -> str:
    """Join lists of quotas. A list has each name once, so a repeated one gets a number."""
    items: list[str] = []
    counts: dict[str, int] = {}
    for value in values:
        for item in value.split(", "):
            numbered, _, parameters = item.partition(";")
            name = _NUMBER_OF_NAME.sub('"', numbered)
            counts[name] = counts.get(name, 0) + 1
            if counts[name] > 1:
                name = f'{name[:-1]}-{counts[name]}"'
            items.append(f"{name};{parameters}")
    return ", ".join(items)
