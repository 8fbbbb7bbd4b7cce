"""Checks that wait for credits of a fleet in an event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keytally._native import Gate, Verdict

# The pause before the second attempt, which is doubled up to the longest one, in seconds.
FIRST_PAUSE_S = 0.00025
LONGEST_PAUSE_S = 0.002


async def acheck(gate: Gate, *arguments: Any, **options: Any) -> Verdict:  # noqa: ANN401
    """Check a key, and pause while credits are requested: see ``Gate.acheck``.

    A task can only be canceled in a pause, and an attempt before a pause has charged nothing.
    """
    verdict = gate.try_check(*arguments, **options)
    if verdict.unavailability != "waiting":
        return verdict
    for pause_s in pauses(gate.credit_wait_s):
        await _sleep(pause_s)
        verdict = gate.try_check(*arguments, **options)
        if verdict.unavailability != "waiting":
            return verdict
    return gate.check_without_wait(*arguments, **options)


def pauses(wait_s: float) -> Iterator[float]:
    """Return the pauses of a wait, in seconds.

    >>> list(pauses(0.006))
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
