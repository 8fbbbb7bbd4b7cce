"""Checks that wait for credits of a fleet in an event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from keytally._native import attempt_all, credit_wait_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from keytally._native import Compound, Gate, Limiter, Part, Verdict

    Decided = TypeVar("Decided", Verdict, Compound)

# The pause before the second attempt, which is doubled up to the longest one, in seconds.
FIRST_PAUSE_S = 0.00025
LONGEST_PAUSE_S = 0.002


async def acheck(gate: Gate, *arguments: Any, **options: Any) -> Verdict:  # noqa: ANN401
    """Check a key, and pause while credits are requested: see ``Gate.acheck``."""
    return await _decided(
        lambda: gate.try_check(*arguments, **options),
        lambda: gate.check_without_wait(*arguments, **options),
        lambda: gate.credit_wait_s,
    )


async def acheck_all(*parts: Part, now: float | datetime | None = None) -> Compound:
    """Check as ``check_all`` does, and let the event loop run while credits are requested.

    The event loop is that of asyncio or of trio. A task can only be canceled in a pause, and an
    attempt before a pause has charged nothing. The arguments and the errors are those of
    ``check_all``.

    >>> import asyncio, keytally
    >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    >>> key = gate.issue(42).expose()
    >>> asyncio.run(keytally.acheck_all(gate.part(key, 3))).remaining
    997
    """
    return await _decided(
        lambda: attempt_all(*parts, is_last=False, now=now),
        lambda: attempt_all(*parts, is_last=True, now=now),
        lambda: credit_wait_all(*parts),
    )


async def check_subject(
    limiter: Limiter, subject: str | bytes, cost: int = 1, *, is_async: bool
) -> Verdict:
    """Check a subject. If ``is_async``, the event loop runs while credits are requested."""
    # Only a table in a fleet can wait.
    if is_async and limiter.is_in_fleet:
        return await limiter.acheck(subject, cost)
    return limiter.check(subject, cost)


async def _decided(
    attempt: Callable[[], Decided], decide: Callable[[], Decided], wait_s: Callable[[], float]
) -> Decided:
    """Attempt a check, pause while credits are requested, and decide after the last pause."""
    result = attempt()
    if result.unavailability != "waiting":
        return result
    for pause_s in pauses(wait_s()):
        await _sleep(pause_s)
        result = attempt()
        if result.unavailability != "waiting":
            return result
    return decide()


def pauses(wait_s: float) -> Iterator[float]:
    """Return the pauses of a wait, in seconds.

    >>> [round(pause_s, 5) for pause_s in pauses(0.006)]
    [0.00025, 0.0005, 0.001, 0.002, 0.002, 0.00025]
    """
    pause_s = FIRST_PAUSE_S
    while wait_s > 0:
        yield min(pause_s, wait_s)
        wait_s -= pause_s
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


async def _sleep(pause_s: float) -> None:
    """Pause in the event loop that runs: that of asyncio, or that of trio."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        import trio

        await trio.sleep(pause_s)
    else:
        await asyncio.sleep(pause_s)
