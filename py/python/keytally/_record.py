"""What one request was charged: each table once, however many integrations ask it, and all or nothing.

A request has one record. It is in the ASGI scope or the WSGI environ, so that all integrations share it.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any, Callable, Union

from keytally import _web
from keytally._native import Gate, Limiter, Verdict
from keytally.exceptions import KeytallyError

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping
    from pathlib import Path

# Where the record is in a scope or an environ.
NAME = "keytally.record"

# The outcomes of a limit. A request that one refuses is not charged by the others.
OF_LIMITS = frozenset(["denied", "too_costly", "full"])

# X-RateLimit-* describe no longer window of a limiter.
DAY_S = 86_400

Table = Union[Gate, Limiter]


class Asked:
    """A table that was asked about a request."""

    __slots__ = (
        "charged",
        "cost",
        "is_gate",
        "listed",
        "refusal",
        "subject",
        "table",
        "told",
        "verdict",
        "written",
    )

    def __init__(self, table: Table | None, subject: Any) -> None:  # noqa: ANN401
        # None for a verdict that the application got by itself.
        self.table = table
        # What the table was asked about: of a gate, the keys that the request presents.
        self.subject = subject
        self.is_gate = not isinstance(table, Limiter)
        # Whether the response lists its quotas.
        self.listed = False
        # What the request is refused with, if this table is why.
        self.refusal: _web.Answer | None = None
        self.told: list[object] = []

    def answer(self, verdict: Verdict, cost: int) -> None:
        self.cost = cost
        self.verdict = verdict
        # The verdict that charged it.
        self.charged = verdict
        # What header fields are written of: the verdict, or that of a later refund.
        self.written = verdict

    def give_back(self) -> None:
        """Refund the charge."""
        charge = self.charged.charge
        if charge is None or not self.cost:
            return
        try:
            if isinstance(self.table, Gate):
                self.written = self.table.refund(self.charged.key_id, charge)
            elif self.table is not None:
                self.written = self.table.refund(self.subject, charge)
        except KeytallyError:
            # The key was removed meanwhile, and its counts with it.
            pass
        self.cost = 0


class Record:
    """What was asked about one request."""

    __slots__ = ("_asked", "_state", "answer", "named", "sets_headers", "shadow")

    def __init__(self) -> None:
        self._asked: list[Asked] = []
        # The state of the ASGI scope, once that is this request's own.
        self._state: dict[str, Any] = {}
        # What the request is refused with.
        self.answer: _web.Answer | None = None
        # What in shadow mode it would have been refused for.
        self.shadow: str | None = None
        # The names under which integrations have left a verdict.
        self.named: set[str] = set()
        # Whether an integration further out puts the header fields into the response.
        self.sets_headers = False

    def ask(self, table: Table, subject: Any, cost: int, check: Callable[[int], Verdict]) -> Asked:  # noqa: ANN401
        """Charge a table by ``check``, unless it was charged for this request already.

        Then a higher cost replaces the one that was charged.
        """
        asked = next((a for a in self._asked if a.subject == subject and _same(a.table, table)), None)
        if asked is None:
            asked = Asked(table, subject)
            asked.answer(check(cost), cost)
            self._asked.append(asked)
        elif cost > asked.cost and asked.verdict.admitted:
            before = asked.cost
            asked.give_back()
            asked.answer(check(cost), cost)
            if not asked.verdict.admitted:
                # In shadow mode the request goes on, and what was charged before is still due.
                asked.charged = check(before)
        return asked

    def refuse(self, asked: Asked, answer: _web.Answer) -> None:
        """Note the answer to a request that is refused. What a limit refuses, the others give back."""
        self.answer = asked.refusal = answer
        asked.listed = True
        if answer is _web.WRONG_COST or asked.verdict.outcome in OF_LIMITS:
            for other in self._asked:
                other.give_back()

    def adopt(self, verdict: object) -> None:
        """Take a verdict that the application got by itself, if no integration asked.

        What is not a `Verdict` is another thing of the application under the same name.
        """
        if isinstance(verdict, Verdict) and not self._asked:
            asked = Asked(None, None)
            asked.answer(verdict, 0)
            asked.listed = True
            self._asked.append(asked)
            if not verdict.admitted:
                self.answer = verdict

    def own_state(self, scope: MutableMapping[str, Any]) -> dict[str, Any]:
        """Give an ASGI scope a state that no other request has, and return it.

        Servers may give all requests of a connection one state, as hypercorn does with HTTP/2.
        """
        if scope.get("state") is not self._state:
            self._state = dict(scope.get("state") or ())
            scope["state"] = self._state
        return self._state

    @property
    def verdict(self) -> Verdict | None:
        """The gate's verdict; without a gate, that of the first limiter."""
        chosen = self._chosen(self._asked)
        return None if chosen is None else chosen.verdict

    def leave(self, names: MutableMapping[str, Any], name: str, asked: Asked) -> None:
        """Leave a verdict under a name. A limiter's does not replace another one there."""
        if asked.is_gate or name not in self.named:
            names[name] = asked.verdict
            self.named.add(name)

    def fields(self) -> list[tuple[str, str]]:
        """Return the header fields of the response, those of refusals aside.

        X-RateLimit-* are the gate's; without a gate, those of the first limiter's longest window of at most
        a day. The others list all.
        """
        listed = [asked for asked in self._asked if asked.listed]
        chosen = self._chosen(listed)
        fields = [] if chosen is None else _x_ratelimit(chosen)
        if chosen is not None:
            listed.sort(key=lambda asked: asked is not chosen)
        written = [dict(asked.written.headers) for asked in listed]
        for name in ("RateLimit-Policy", "RateLimit"):
            values = [headers[name] for headers in written if name in headers]
            if values:
                fields.append((name, _list(values)))
        if self.shadow is not None:
            fields.append((_web.SHADOW_HEADER, self.shadow))
        return fields

    def raw_fields(self) -> list[tuple[bytes, bytes]]:
        """Return them as ASGI takes them."""
        if len(self._asked) == 1 and self.shadow is None:
            [only] = self._asked
            # The usual case, of which the verdict has them so.
            if only.is_gate and only.listed and only.verdict.admitted:
                return only.written.raw_headers
        return _web.raw(self.fields())

    @staticmethod
    def _chosen(asked: list[Asked]) -> Asked | None:
        gates = [one for one in asked if one.is_gate]
        return gates[-1] if gates else next(iter(asked), None)


def of(carrier: MutableMapping[str, Any]) -> Record:
    """Return the record of a request.

    An environ that has its ASGI scope, as a2wsgi's has, is of the same request.
    """
    record: Record | None = carrier.get(NAME)
    if record is None:
        scope = carrier.get("asgi.scope")
        record = of(scope) if isinstance(scope, dict) else Record()
        carrier[NAME] = record
    return record


@functools.lru_cache(maxsize=256)
def file_at(path: Path | None) -> str | None:
    """Return the one name of a file that has several, as by a symbolic link; ``None`` in memory.

    The name is looked up once. Ask at construction: a relative path depends on the working directory.
    """
    return None if path is None else os.path.realpath(path)


def _same(one: Table | None, other: Table) -> bool:
    if one is other:
        return True
    if one is None or one.path is None or other.path is None:
        return False
    return one.path == other.path or file_at(one.path) == file_at(other.path)


def _x_ratelimit(asked: Asked) -> list[tuple[str, str]]:
    verdict = asked.written
    quotas = verdict.quotas
    if not quotas or asked.is_gate or quotas[-1].window <= DAY_S:
        return [field for field in verdict.headers if field[0].startswith("X-")]
    quota = next((quota for quota in reversed(quotas) if quota.window <= DAY_S), quotas[0])
    return [
        ("X-RateLimit-Limit", str(quota.limit)),
        ("X-RateLimit-Remaining", str(quota.remaining)),
        ("X-RateLimit-Reset", str(quota.reset)),
    ]


def _list(values: Iterable[str]) -> str:
    """Return several lists of quotas as one. A name that came before gets a number: names are unique."""
    items: list[str] = []
    counts: dict[str, int] = {}
    for value in values:
        for item in value.split(", "):
            name, _, parameters = item.partition(";")
            counts[name] = counts.get(name, 0) + 1
            if counts[name] > 1:
                name = f'{name[:-1]}-{counts[name]}"'
            items.append(f"{name};{parameters}")
    return ", ".join(items)
