"""Functions of the application: ``key``, ``cost`` and ``on_verdict``, plain or async."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from keytally._native import Verdict

LOG = logging.getLogger("keytally")

# The highest cost that a table takes.
MAX_COST = 2**32 - 1


def is_async(function: object) -> bool:
    """Return whether a call of it returns an awaitable, as far as that can be known without a call."""
    call = getattr(function, "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def refuse_async(**functions: object) -> None:
    """Refuse async functions, for an integration that is synchronous.

    Raises:
        TypeError: One is async. The message names its argument.

    """
    for name, function in functions.items():
        if is_async(function):
            raise TypeError(
                f"{name} is async, and is called where nothing can await it: pass a plain function"
            )


def checked_cost(cost: object) -> Any:  # noqa: ANN401
    """Return a cost: a number within range, or a function.

    Raises:
        TypeError, ValueError: It is neither.

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
    """Return what a function returned.

    Raises:
        TypeError: It is an awaitable.

    """
    if hasattr(value, "__await__"):
        if hasattr(value, "close"):
            value.close()
        raise TypeError(
            "the function returned an awaitable where nothing can await it: pass a plain function"
        )
    return value


async def awaited(value: Any) -> Any:  # noqa: ANN401
    """Return what a function returned, or what its awaitable gives."""
    return await value if hasattr(value, "__await__") else value


def tell(on_verdict: Callable[[Verdict, Any], object], verdict: Verdict, request: object) -> None:
    """Call the function. If it raises, that is logged: the request was charged, and is answered."""
    try:
        plain(on_verdict(verdict, request))
    except Exception:
        LOG.exception(FAILED)


async def tell_awaited(
    on_verdict: Callable[[Verdict, Any], object], verdict: Verdict, request: object
) -> None:
    """Call the function and await it if it is async. If it raises, that is logged."""
    try:
        await awaited(on_verdict(verdict, request))
    except Exception:
        LOG.exception(FAILED)


FAILED = "on_verdict raised an exception; the request is answered as if it had not"
