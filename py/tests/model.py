"""The model of a limiter: it stores every charge, and adds all of them up at each call.

It shares no code with the module. Times are in milliseconds.
"""

from dataclasses import dataclass, field


@dataclass
class Charged:
    """A charge of the model: its cost in units, and its time."""

    cost: int
    at_ms: int


@dataclass
class Tally:
    """The charges of one subject or key.

    Quotas are pairs of a limit and a window in seconds, shortest window first.
    """

    quotas: list
    sliding: bool = False
    charges: list = field(default_factory=list)
    latest_ms: int = 0

    def time(self, now_ms):
        """Return the decision time: not before the shortest window of the latest change."""
        unit_ms = self.quotas[0][1] * 1000
        return max(now_ms, self.latest_ms // unit_ms * unit_ms)

    def used(self, window_s, at_ms):
        """Return the units that count at the time `at_ms` in a window of this length."""
        length = window_s * 1000
        index, elapsed = divmod(at_ms, length)

        def total(wanted):
            return sum(charge.cost for charge in self.charges if charge.at_ms // length == wanted)

        used = total(index)
        if self.sliding:
            # Rounded up, so that a fraction of a unit never admits more.
            used += -(-total(index - 1) * (length - elapsed) // length)
        return used

    def remaining(self, now_ms):
        """Return the remaining units of each quota."""
        at_ms = self.time(now_ms)
        return [max(0, limit - self.used(window_s, at_ms)) for limit, window_s in self.quotas]

    def outcome(self, cost, now_ms):
        """Return the outcome of a check, which charges nothing here."""
        if any(cost > limit for limit, _ in self.quotas):
            return "too_costly"
        return "admitted" if all(cost <= left for left in self.remaining(now_ms)) else "denied"

    def charge(self, cost, now_ms):
        """Store a charge, and return it."""
        charged = Charged(cost, self.time(now_ms))
        if cost:
            self.charges.append(charged)
            self.latest_ms = max(self.latest_ms, charged.at_ms)
        return charged

    def refund(self, charged, cost, now_ms):
        """Subtract units from a charge. A charge whose windows have passed does not count."""
        length = self.quotas[-1][1] * 1000
        passed = self.time(now_ms) // length - charged.at_ms // length
        # A refund moves the time only if a window counts the charge. A sliding window also counts
        # the previous window.
        if cost and passed <= int(self.sliding):
            self.latest_ms = max(self.latest_ms, self.time(now_ms))
        charged.cost -= cost

    def settle(self, charged, actual, now_ms):
        """Replace a charge by the actual cost, and return the units for which there is no room."""
        if actual <= charged.cost:
            self.refund(charged, charged.cost - actual, now_ms)
            return 0
        extra = actual - charged.cost
        fits = min(extra, *self.remaining(now_ms))
        self.charge(fits, now_ms)
        return extra - fits

    def reset(self, now_ms):
        """Forget all charges."""
        self.latest_ms = max(self.latest_ms, self.time(now_ms))
        self.charges.clear()

    def retry_after(self, cost, now_ms):
        """Return the whole seconds until the cost fits, by trying later times in turn."""
        unit_ms = 1 if self.sliding else self.quotas[0][1] * 1000
        at_ms = self.time(now_ms)
        while self.outcome(cost, at_ms) != "admitted":
            at_ms = (at_ms // unit_ms + 1) * unit_ms
        return max(1, -(-(at_ms - now_ms) // 1000))
