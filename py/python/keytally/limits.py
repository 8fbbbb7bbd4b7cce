"""A storage for the package limits, and so for Flask-Limiter and slowapi.

All processes that name one folder share its counts, and together admit exactly the limit. Import
this module before the application creates its limiter: the import registers the URI schemes
``keytally`` and ``async+keytally``.

| URI | counts are in |
|---|---|
| ``keytally:///run/app.limiter`` | ``/run/app.limiter``, for all processes that name this folder |
| ``keytally://`` | a temporary folder in memory, shared with the children that the process forks |
| ``async+keytally:///run/app.limiter`` | the same folder, for the strategies of ``limits.aio`` |

The option ``capacity`` is the most clients with counts at a time, for each window. It is
``storage_options={"capacity": 10_000}`` of Flask-Limiter and slowapi, or ``?capacity=10000`` at the
end of the URI. The page on the migration from limits describes what differs from other storages.

>>> import limits, keytally.limits
>>> storage = limits.storage.storage_from_string("keytally://")
>>> limiter = limits.strategies.FixedWindowRateLimiter(storage)
>>> five = limits.parse("5/hour")
>>> [limiter.hit(five, "203.0.113.9") for _ in range(6)]
[True, True, True, True, True, False]
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import urllib.parse
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import limits.aio.storage
import limits.storage
from limits.errors import ConfigurationError

from keytally._native import Limiter, clock_ms
from keytally.exceptions import KeytallyError

if TYPE_CHECKING:
    from keytally._native import QuotaState, Verdict

__all__ = ["AsyncKeytallyStorage", "KeytallyStorage"]

CAPACITY = 100_000

# The most files of a folder: windows of the strategy fixed-window, and limits of the strategy
# sliding-window-counter.
MAX_FILES = 64

# The largest count of a fixed window. Windows of all lengths have room for it.
MAX_COUNT = 2**31 - 1

# The largest cost that a limiter accepts.
MAX_COST = 2**32 - 1

# What `incr` returns if the count has no room for the amount. It is above every limit.
NO_ROOM = 2**63 - 1

# Where files take memory and no disk space, on Linux.
SHARED_MEMORY = "/dev/shm"  # noqa: S108

FIXED = "fixed"
SLIDING = "sliding"
FILE = re.compile(r"(?:(fixed)|(sliding)-([0-9]+))-([0-9]+)s\.limiter")


class Kind(NamedTuple):
    """What one file counts."""

    algorithm: str
    limit: int
    window_s: int

    @classmethod
    def of(cls, file: str) -> Kind | None:
        """Return the kind that a file name states; ``None`` for another file."""
        name = FILE.fullmatch(file)
        if name is None:
            return None
        return cls(name[1] or name[2], int(name[3] or MAX_COUNT), int(name[4]))

    @property
    def file(self) -> str:
        """The name of the file."""
        limit = "" if self.algorithm == FIXED else f"{self.limit}-"
        return f"{self.algorithm}-{limit}{self.window_s}s.limiter"

    @property
    def policy(self) -> str:
        """The policy of the limiter."""
        return f"{self.algorithm} {self.limit}/{self.window_s}s"


class Used(NamedTuple):
    """A count that is not 0."""

    units: int
    state: QuotaState


class Counts:
    """The limiters of a folder, and the operations of both storages on them.

    A limiter has one window. Those of the strategy fixed-window have a limit that no count reaches,
    since limits compares the count itself. Those of the strategy sliding-window-counter have the
    limit of the application.
    """

    def __init__(self, uri: str | None, capacity: int | str) -> None:
        folder, capacity = configuration(uri, capacity)
        self.capacity = capacity
        self._limiters: dict[Kind, Limiter] = {}
        if folder is None:
            in_memory = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None
            self.folder = Path(tempfile.mkdtemp(prefix="keytally-", dir=in_memory))
            weakref.finalize(self, remove, self.folder, os.getpid())
            return
        self.folder = folder
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            if not folder.is_dir():
                raise ConfigurationError(
                    f"{folder} is a file; the path of a storage is a folder, with one file for "
                    "each window"
                ) from None

    def _limiter(self, kind: Kind) -> Limiter:
        """Return the limiter of a kind. Create its file if necessary."""
        limiter = self._limiters.get(kind)
        if limiter is None:
            self._open_all()
            if kind not in self._limiters and len(self._limiters) >= MAX_FILES:
                raise ConfigurationError(
                    f"{self.folder} has {MAX_FILES} files, and {kind.policy} needs another one; "
                    "the limits of sliding windows must not depend on the request"
                )
            limiter = self._open(kind)
        return limiter

    def _open(self, kind: Kind) -> Limiter:
        path = self.folder / kind.file
        # A shared tally would be the count of several clients.
        limiter = Limiter.open_or_create(path, kind.policy, self.capacity, on_full="refuse")
        return self._limiters.setdefault(kind, limiter)

    def _open_all(self) -> None:
        """Open the limiters that other processes created."""
        for file in os.listdir(self.folder):
            kind = Kind.of(file)
            if kind is not None and kind not in self._limiters:
                self._open(kind)

    def _of(self, algorithm: str, window_s: int | None) -> list[Limiter]:
        """Return the open limiters of an algorithm and a window."""
        return [
            limiter
            for kind, limiter in list(self._limiters.items())
            if kind.algorithm == algorithm and window_s in (None, kind.window_s)
        ]

    def used(self, key: str, algorithm: str, window_s: int | None = None) -> list[Used]:
        """Return the counts of a key. The key of a limit has at most one."""

        def find() -> list[Used]:
            states = [limiter.peek(key, 0).quotas[0] for limiter in self._of(algorithm, window_s)]
            used = [Used(state.limit - state.remaining, state) for state in states]
            return [one for one in used if one.units > 0]

        found = find()
        if not found:
            self._open_all()
            found = find()
        return found

    def incr(self, key: str, expiry: int, amount: int) -> int:
        limiter = self._limiter(Kind(FIXED, MAX_COUNT, expiry))
        verdict = unless_full(limiter.check(key, min(amount, MAX_COST)))
        if not verdict.admitted:
            return NO_ROOM
        [state] = verdict.quotas
        return state.limit - state.remaining

    def get(self, key: str) -> int:
        return sum(used.units for used in self.used(key, FIXED))

    def get_expiry(self, key: str) -> float:
        ends = [used.state.reset_unix_s for used in self.used(key, FIXED)]
        return float(max(ends, default=clock_ms() / 1000))

    def acquire_sliding(self, key: str, limit: int, expiry: int, amount: int) -> bool:
        if amount > limit:
            return False
        limiter = self._limiter(Kind(SLIDING, limit, expiry))
        return unless_full(limiter.check(key, amount)).admitted

    def get_sliding(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Return the weighted count of both windows as the count of the current window."""
        now = clock_ms() / 1000
        used = self.used(key, SLIDING, expiry)
        if not used:
            return 0, 0.0, 0, float(expiry)
        left_s = max(one.state.reset_unix_s for one in used) - now
        # The state is reset when the next window ends, or the current one if it has no count. The
        # current count lasts until the next window ends.
        lasts_s = left_s if left_s > expiry else left_s + expiry
        return 0, 0.0, sum(one.units for one in used), lasts_s

    def clear(self, key: str, algorithm: str, window_s: int | None = None) -> None:
        self._open_all()
        for limiter in self._of(algorithm, window_s):
            limiter.reset(key)

    def check(self) -> bool:
        return self.folder.is_dir() and all(
            (self.folder / kind.file).exists() for kind in list(self._limiters)
        )

    def reset(self) -> int:
        self._open_all()
        return sum(limiter.reset_all() for limiter in list(self._limiters.values()))


def configuration(uri: str | None, capacity: int | str) -> tuple[Path | None, int]:
    """Return the folder that a URI names, ``None`` for a folder in memory, and the capacity.

    Raises:
        ConfigurationError: The URI is not valid.

    """
    parsed = urllib.parse.urlsplit(uri or "keytally://")
    if parsed.netloc or not uri_has_slashes(uri) or parsed.fragment:
        raise ConfigurationError(
            f"{uri} is not the URI of a storage: keytally:///run/app.limiter names the folder "
            "/run/app.limiter, and keytally:// a folder in memory"
        )
    query = urllib.parse.parse_qs(parsed.query, keep_blank_values=True)
    capacity = query.pop("capacity", [str(capacity)])[-1]
    if query:
        raise ConfigurationError(f"{next(iter(query))} is not an option; capacity is the only one")
    if not re.fullmatch("[0-9]{1,10}", capacity):
        raise ConfigurationError(f"the capacity is {capacity}, and must be a whole number")
    path = urllib.parse.unquote(parsed.path)
    if path and not path.strip("/"):
        raise ConfigurationError(
            f"{uri} names the root of the file system: keytally:///run/app.limiter names a folder, "
            "and keytally:// one in memory"
        )
    return (Path(path) if path else None), int(capacity)


def uri_has_slashes(uri: str | None) -> bool:
    """Return whether two slashes follow the scheme, so that a path begins with a slash."""
    return uri is None or "://" in uri


def remove(folder: Path, pid: int) -> None:
    """Remove a folder in memory, if this is the process that created it and not a child."""
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)


def unless_full(verdict: Verdict) -> Verdict:
    """Return the verdict, or raise `FullError` if the limiter has no slot for the key."""
    if verdict.outcome == "full":
        verdict.raise_for_status()
    return verdict


class Base:
    """The constructor and the exceptions of both storages."""

    def __init__(
        self,
        uri: str | None = None,
        wrap_exceptions: bool = False,
        capacity: int | str = CAPACITY,
    ) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions)  # type: ignore[call-arg]
        self._counts = Counts(uri, capacity)

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        """The exceptions of the methods."""
        return KeytallyError, OSError


class KeytallyStorage(Base, limits.storage.Storage, limits.storage.SlidingWindowCounterSupport):
    """The storage of the schemes ``keytally``.

    It supports the strategies ``fixed-window`` and ``sliding-window-counter``.

    Args:
        uri: The URI of the folder.
        wrap_exceptions: Whether exceptions are raised as ``limits.errors.StorageError``.
        capacity: The most clients with counts at a time, for each window.

    Raises:
        ConfigurationError: The URI is not valid, or names a file.
        OSError: The operating system reports an error.

    >>> import limits
    >>> from keytally.limits import KeytallyStorage
    >>> storage = KeytallyStorage("keytally://?capacity=1000")
    >>> storage.incr("203.0.113.9", 3600), storage.incr("203.0.113.9", 3600, amount=10)
    (1, 11)
    >>> storage.get("203.0.113.9")
    11

    """

    STORAGE_SCHEME = ["keytally"]  # noqa: RUF012

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count ``amount`` in the window of ``expiry`` seconds, and return the count.

        Raises:
            FullError: As many other clients have counts as the capacity allows.
            PolicyError: A window is longer than 31 days.

        """
        return self._counts.incr(key, expiry, amount)

    def get(self, key: str) -> int:
        """Return the count of the current window."""
        return self._counts.get(key)

    def get_expiry(self, key: str) -> float:
        """Return the end of the current window in Unix seconds; without a count, the time."""
        return self._counts.get_expiry(key)

    def check(self) -> bool:
        """Return whether the folder, and the files that are open, still exist."""
        return self._counts.check()

    def reset(self) -> int:
        """Set all counts to 0, for all processes. Return the number of keys that had counts."""
        return self._counts.reset()

    def clear(self, key: str) -> None:
        """Set the count of a key to 0."""
        self._counts.clear(key, FIXED)

    def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        """Count ``amount`` if the weighted count of both windows has room for it.

        Raises:
            FullError: As many other clients have counts as the capacity allows.
            PolicyError: The window is longer than 31 days, or its counts do not fit 64 bits.

        """
        return self._counts.acquire_sliding(key, limit, expiry, amount)

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Return (0, 0.0, the weighted count of both windows, the remaining time of the count)."""
        return self._counts.get_sliding(key, expiry)

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Set the counts of a key in the window of ``expiry`` seconds to 0."""
        self._counts.clear(key, SLIDING, expiry)


class AsyncKeytallyStorage(
    Base, limits.aio.storage.Storage, limits.aio.storage.SlidingWindowCounterSupport
):
    """The storage of the scheme ``async+keytally``, for the strategies of ``limits.aio``.

    A method does not wait: it returns the result of the method of `KeytallyStorage`. Only the first
    use of a window makes system calls, because it creates a file.

    >>> import asyncio, limits
    >>> from keytally.limits import AsyncKeytallyStorage
    >>> storage = AsyncKeytallyStorage("async+keytally://")
    >>> limiter = limits.aio.strategies.FixedWindowRateLimiter(storage)
    >>> asyncio.run(limiter.hit(limits.parse("5/hour"), "203.0.113.9"))
    True

    """

    STORAGE_SCHEME = ["async+keytally"]  # noqa: RUF012

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count ``amount`` in the window of ``expiry`` seconds, and return the count."""
        return self._counts.incr(key, expiry, amount)

    async def get(self, key: str) -> int:
        """Return the count of the current window."""
        return self._counts.get(key)

    async def get_expiry(self, key: str) -> float:
        """Return the end of the current window in Unix seconds; without a count, the time."""
        return self._counts.get_expiry(key)

    async def check(self) -> bool:
        """Return whether the folder, and the files that are open, still exist."""
        return self._counts.check()

    async def reset(self) -> int:
        """Set all counts to 0, for all processes. Return the number of keys that had counts."""
        return self._counts.reset()

    async def clear(self, key: str) -> None:
        """Set the count of a key to 0."""
        self._counts.clear(key, FIXED)

    async def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        """Count ``amount`` if the weighted count of both windows has room for it."""
        return self._counts.acquire_sliding(key, limit, expiry, amount)

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Return (0, 0.0, the weighted count of both windows, the remaining time of the count)."""
        return self._counts.get_sliding(key, expiry)

    async def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Set the counts of a key in the window of ``expiry`` seconds to 0."""
        self._counts.clear(key, SLIDING, expiry)
