"""What an integration charges a request: its cost, and groups of the gate's plans."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Callable, NamedTuple, TypeVar

from keytally import _calls

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from keytally._native import Gate, Part, Verdict

Result = TypeVar("Result")


class Costs(NamedTuple):
    """The costs of a request, and the scopes that its key needs.

    Attributes:
        own: The cost of the request itself, in units.
        groups: The groups that are charged this cost.
        of_groups: The groups that are charged a cost of their own.
        need: The scopes.

    """

    own: int
    groups: frozenset[str] = frozenset()
    of_groups: Mapping[str, int] = MappingProxyType({})
    need: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        cost: int,
        group: str | Iterable[str] | None = None,
        costs: Mapping[str, int] | None = None,
        need: str | Iterable[str] | None = None,
    ) -> Costs:
        """Return the costs of the options of an integration."""
        return cls(cost, _names(group), dict(costs or {}), _names(need))

    @property
    def is_in_range(self) -> bool:
        """Whether a table accepts the costs."""
        return 0 <= self.own <= _calls.MAX_COST and (
            not self.of_groups
            or all(0 <= cost <= _calls.MAX_COST for cost in self.of_groups.values())
        )

    @property
    def is_nothing(self) -> bool:
        """Whether there is no unit to charge."""
        return not self.own and not any(self.of_groups.values())

    def without_units(self) -> Costs:
        """Return costs of 0 units, with the same scopes."""
        return Costs(0, need=self.need)

    def merged(self, other: Costs) -> Costs:
        """Return the costs of a request that two integrations check: the higher of each.

        A group that only one of them charges its own cost is charged the other's cost if higher.
        """
        of_groups = {
            name: max(self._of_group(name), other._of_group(name))
            for name in (*self.of_groups, *other.of_groups)
        }
        return Costs(
            max(self.own, other.own),
            (self.groups | other.groups) - of_groups.keys(),
            of_groups,
            self.need | other.need,
        )

    def _of_group(self, name: str) -> int:
        """Return the cost that a group is charged."""
        return self.of_groups.get(name, self.own if name in self.groups else 0)

    def check(self, check: Callable[..., Result], key: str | bytes | None) -> Result:
        """Charge the key with these costs, by a gate's method ``check`` or ``acheck``."""
        # Fast path: the arguments of groups take time.
        if not (self.groups or self.of_groups or self.need):
            return check(key, self.own)
        return check(key, self.own, groups=self.groups, costs=self.of_groups, need=self.need)

    def peek(self, gate: Gate, key: str | bytes | None) -> Verdict:
        """Return the counts of the tallies of these costs."""
        return gate.peek(key, 0, groups=[*self.groups, *self.of_groups])

    def part(self, gate: Gate) -> Part:
        """Return a part without a key, or raise an error if the gate lacks a group or a scope."""
        return gate.part(None, self.own, groups=self.groups, costs=self.of_groups, need=self.need)


NOTHING = Costs(0)


def _names(names: str | Iterable[str] | None) -> frozenset[str]:
    """Return the names of an option: one, several or none."""
    if isinstance(names, str):
        return frozenset([names])
    return frozenset(names or ())
