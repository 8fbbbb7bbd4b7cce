"""For tests: set the time of the process, and fill the windows of a gate in memory.

`at` sets the time that all gates, limiters and middleware of this process read, in all threads:

>>> import keytally
>>> from keytally.testing import at
>>> limiter = keytally.Limiter.in_memory("1/minute")
>>> with at("2027-01-31T23:59:59Z") as clock:
...     first, second = limiter.check("203.0.113.9"), limiter.check("203.0.113.9")
...     clock.tick(1)
...     third = limiter.check("203.0.113.9")
>>> first.admitted, second.admitted, third.admitted
(True, False, True)

A `MemoryGate` has one key, and fills a window of its quota:

>>> from keytally.testing import MemoryGate
>>> gate = MemoryGate()
>>> gate.fill("hour")
>>> gate.check().outcome
'denied'

``pytest_plugins = ["keytally.pytest_plugin"]`` in ``conftest.py`` provides it as the fixture
``gate``.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import os
from typing import TYPE_CHECKING, Any, Union

from keytally._native import Charge, Gate, clock_ms, generate_pepper, set_test_clock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from keytally._native import Policy, Sections, Verdict

__all__ = ["Clock", "MemoryGate", "at"]

# A time: Unix seconds, a datetime with a time zone, or its text in ISO 8601.
Time = Union[float, dt.datetime, str]

# pytest sets the first while a test runs.
VARIABLES = ("PYTEST_CURRENT_TEST", "KEYTALLY_TESTING")


class Clock:
    """The clock that `at` set. It stands still until the test moves it.

    >>> from keytally.testing import at
    >>> with at(1_800_000_000) as clock:
    ...     clock.tick(0.5)
    ...     clock.now
    datetime.datetime(2027, 1, 15, 8, 0, 0, 500000, tzinfo=datetime.timezone.utc)

    """

    def __init__(self) -> None:
        # Whether the block of `at` runs.
        self._is_set = False

    def tick(self, seconds: float | dt.timedelta = 1) -> None:
        """Move the clock forward by seconds or a timedelta, to a millisecond.

        Raises:
            RuntimeError: The block of `at` has ended.
            TypeError: The argument has another type.
            ValueError: The argument is negative, or the time would be after 9999.

        """
        self._require_block()
        if isinstance(seconds, dt.timedelta):
            seconds = seconds.total_seconds()
        if not isinstance(seconds, (int, float)):
            kind = type(seconds).__name__
            raise TypeError(f"the clock ticks by seconds or a timedelta, not {kind}")
        if not 0 <= seconds <= MAX_MS / 1000:
            raise ValueError(f"the clock cannot tick by {seconds} s; move_to sets it back")
        set_test_clock(_in_range(clock_ms() + round(seconds * 1000), f"{seconds} s later"))

    def move_to(self, time: Time) -> None:
        """Set the clock to a time, which may be earlier.

        Raises:
            RuntimeError: The block of `at` has ended.
            TypeError: The time has another type.
            ValueError: The time has no time zone, is before 1970 or after 9999.

        """
        self._require_block()
        set_test_clock(unix_ms(time))

    def _require_block(self) -> None:
        """Raise an error unless the block runs. Otherwise, the process would keep a set clock."""
        if not self._is_set:
            raise RuntimeError(
                "the clock can be moved only within the block of keytally.testing.at"
            )

    @property
    def now(self) -> dt.datetime:
        """The time of the clock, in UTC."""
        return EPOCH + dt.timedelta(milliseconds=clock_ms())


# The last millisecond that a datetime can represent.
MAX_MS = 253_402_300_799_999
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)


@contextlib.contextmanager
def at(time: Time) -> Iterator[Clock]:
    """Set the time that the gates, limiters and middleware of this process read.

    The time is that of all threads. A child that is forked keeps the time of the fork, and a
    program that is started reads the system clock. An argument ``now`` is not affected. At the end,
    the former setting is restored, so calls can be nested.

    The set time is a reading of the system clock. If a test sets it back by more than 60 s, tallies
    are corrected and keep their counts, so each test needs its own tables.

    Args:
        time: Unix seconds, a datetime with a time zone, or its text in ISO 8601.

    Raises:
        RuntimeError: No test is running: neither does pytest run one, nor is the environment
            variable ``KEYTALLY_TESTING`` set to 1.
        TypeError: The time has another type.
        ValueError: The time has no time zone, is before 1970 or after 9999.

    >>> from keytally import Limiter
    >>> from keytally.testing import at
    >>> with at("2027-01-31T23:59:59Z"):
    ...     Limiter.in_memory("5/day").check("203.0.113.9").reset_unix_s
    1801440000

    """
    require_test()
    before = set_test_clock(unix_ms(time))
    clock = Clock()
    clock._is_set = True
    try:
        yield clock
    finally:
        clock._is_set = False
        set_test_clock(before)


def require_test() -> None:
    """Raise an error unless a test is running. A server must not run with a set clock."""
    under_pytest, allowed = (os.environ.get(name) for name in VARIABLES)
    if not under_pytest and allowed != "1":
        raise RuntimeError(
            "keytally.testing.at sets the clock of the process, and no test is running: pytest is "
            "recognized, and other test programs set the environment variable KEYTALLY_TESTING=1"
        )


def unix_ms(time: Time) -> int:
    """Return a time in Unix milliseconds, rounded down.

    Raises:
        TypeError: The time has another type.
        ValueError: The time has no time zone, is before 1970 or after 9999.

    """
    if isinstance(time, str):
        # Before 3.11, Python does not read the Z.
        time = dt.datetime.fromisoformat(time[:-1] + "+00:00" if time.endswith("Z") else time)
    if isinstance(time, dt.datetime):
        if time.tzinfo is None:
            raise ValueError(f"{time} has no time zone; in UTC, it ends with Z")
        return _in_range((time - EPOCH) // dt.timedelta(milliseconds=1), time)
    if not isinstance(time, (int, float)):
        kind = type(time).__name__
        raise TypeError(
            "a time is Unix seconds, a datetime with a time zone, or its text in ISO 8601, "
            f"not {kind}"
        )
    return _in_range(int(time * 1000) if math.isfinite(time) else -1, time)


def _in_range(ms: int, time: object) -> int:
    """Return a time after checking that a datetime can represent it."""
    if not 0 <= ms <= MAX_MS:
        raise ValueError(f"{time} is before 1970 or after 9999")
    return ms


class MemoryGate:
    """A gate in memory with one key.

    Pass ``table`` to the application, and ``headers`` with a request.

    Args:
        plans: The plans by name; ``{"default": "100/minute, 1000/hour"}`` by default.
        scopes: The names of the scopes of the gate. The key has all of them.
        described: The window that ``X-RateLimit-*`` describe, as in `Gate.create`.

    Attributes:
        table: The `Gate`.
        api_key: The value of ``X-API-Key`` for the key. It has account 1 and the first plan.
        headers: The header field with the key.

    >>> from keytally.testing import MemoryGate
    >>> gate = MemoryGate({"default": "2/day"})
    >>> gate.check().remaining
    1
    >>> gate.table.check(gate.headers["X-API-Key"]).remaining
    0

    """

    def __init__(
        self,
        plans: Mapping[str, str | Policy | Sections] | None = None,
        scopes: Sequence[str] = (),
        described: str | None = None,
    ) -> None:
        self.table = Gate.in_memory(
            pepper=generate_pepper(), keys=100, plans=plans, scopes=scopes, described=described
        )
        self.api_key = self.table.issue(1, scopes=scopes).expose()

    @property
    def headers(self) -> dict[str, str]:
        """The header field with the key."""
        return {"X-API-Key": self.api_key}

    def check(self, cost: int = 1, **options: Any) -> Verdict:  # noqa: ANN401
        """Check the key, as a request with it does. The options are those of `Gate.check`."""
        return self.table.check(self.api_key, cost, **options)

    def fill(self, window: str, api_key: str | None = None) -> None:
        """Spend the rest of a window, so that the next check of the key is denied until its end.

        Shorter windows are charged too, beyond their limits: the check is denied by all windows
        that are full. If an hour is full, a check is denied until the hour ends. A full window of a
        group denies only the requests that name the group.

        Args:
            window: The name of the window as in ``RateLimit-Policy``: ``"minute"``, ``"hour"``,
                ``"day"``, ``"week"``, ``"month"``, or its seconds, such as ``"10s"``. For another
                section than that of the key, it begins with its name: ``"team-hour"``,
                ``"write-minute"``.
            api_key: Another key of the gate.

        Raises:
            ValueError: The key is invalid, has no such window, or a shorter window cannot count
                that many units.

        >>> from keytally.testing import MemoryGate, at
        >>> gate = MemoryGate()
        >>> with at("2027-01-31T12:00:00Z") as clock:
        ...     gate.fill("hour")
        ...     clock.tick(3599)
        ...     denied = gate.check()
        ...     clock.tick(1)
        ...     admitted = gate.check()
        >>> denied.retry_after_s, admitted.remaining
        (1, 999)

        """
        api_key = api_key or self.api_key
        groups = [name for name in self.table.sections if name not in ("key", "team")]
        verdict = self.table.check(api_key, 0, groups=groups)
        # By its name, each window's tally and remaining units.
        windows = {}
        for index, tally in enumerate(verdict.tallies):
            prefix = "" if tally.section == "key" else f"{tally.section}-"
            for quota in tally.verdict.quotas:
                windows[prefix + quota.name] = index, quota.remaining
        if verdict.charge is None or window not in windows:
            names = ", ".join(windows) or f"none, because the check is {verdict.outcome}"
            raise ValueError(f"the key has no window {window}; its windows: {names}")
        index, cost = windows[window]
        # The charge of this tally alone: see the bytes of a charge.
        entry = verdict.charge.to_bytes()[16 * index : 16 * (index + 1)]
        charge = Charge.from_bytes(entry.ljust(128, b"\0"))
        settled = self.table.settle(verdict.key_id, charge, cost, overdraw=True)
        if settled.uncharged:
            raise ValueError(f"cannot count {cost} units in the other windows of {window}")
