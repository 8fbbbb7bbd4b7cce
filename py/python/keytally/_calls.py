"""Calls of the application's functions such as ``key`` and ``on_verdict``, plain or async."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any, Callable, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from keytally._native import Verdict

ResultT = TypeVar("ResultT")

LOG = logging.getLogger("keytally")

# The highest cost that a table accepts, in units.
MAX_COST = 2**32 - 1


def is_async(function: object) -> bool:
    """Return whether a function is declared async. Others may return an awaitable too."""
    call = getattr(function, "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def refuse_async(**functions: object) -> None:
    """Raise an error if one of the functions is async, for a synchronous integration.

    Raises:
        TypeError: A function is async. The message names its argument.

    """
    for name, function in functions.items():
        if is_async(function):
            raise TypeError(
                f"{name} is async, and nothing can await it here: pass a plain function"
            )


def checked_cost(cost: object) -> Any:  # noqa: ANN401
    """Return a cost: a number of units within range, or a function.

    Raises:
        TypeError, ValueError: The cost is neither.

    """
    if callable(cost):
        return cost
    if not isinstance(cost, int):
        kind = type(cost).__name__
        raise TypeError(f"cost must be a whole number or a function that returns one, not {kind}")
    if not 0 <= cost <= MAX_COST:
        raise ValueError(f"cost is {cost}, and must be 0 to {MAX_COST}")
    return cost


def plain(value: Any) -> Any:  # noqa: ANN401
    """Return a function's result, in an integration that cannot await it.

    Raises:
        TypeError: The result is an awaitable.

    """
    if hasattr(value, "__await__"):
        if hasattr(value, "close"):
            value.close()
        raise TypeError(
            "the function returned an awaitable, and nothing can await it here: "
            "pass a plain function"
        )
    return value


async def awaited(value: Any) -> Any:  # noqa: ANN401
    """Return a function's result, after awaiting it if it is an awaitable."""
    return await value if hasattr(value, "__await__") else value


def completed(coroutine: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Return the result of a coroutine that awaits nothing that could pause it."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: ResultT = end.value
        return result
    coroutine.close()
    raise RuntimeError("a check that must not pause did")


def notify(on_verdict: Callable[[Verdict, Any], object], verdict: Verdict, request: object) -> None:
    """Call ``on_verdict``. An exception is only logged, because the request was charged already."""
    try:
        plain(on_verdict(verdict, request))
    except Exception:
        LOG.exception(FAILED)


async def notify_async(
    on_verdict: Callable[[Verdict, Any], object], verdict: Verdict, request: object
) -> None:
    """Call ``on_verdict``, and await its result if it is async. An exception is only logged."""
    try:
        await awaited(on_verdict(verdict, request))
    except Exception:
        LOG.exception(FAILED)


FAILED = "on_verdict raised an exception; the response to the request is not affected"
