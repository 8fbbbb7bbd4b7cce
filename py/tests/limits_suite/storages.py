"""A plugin of pytest that replaces the storages in the tests of limits by those of Keytally."""

import asyncio
import functools
import time

import pytest
from limits.storage.base import TimestampedSlidingWindow

from keytally.limits import AsyncKeytallyStorage, KeytallyStorage

# Why tests do not apply.
NO_MOVING_WINDOW = "moving windows need the time of each request, which a fixed-size tally lacks"
ONE_COUNT = "the weighted count is one number, rounded up, and its reset is the end of the window"
DO_NOT_APPLY = {
    "TestMovingWindow": NO_MOVING_WINDOW,
    "TestAsyncMovingWindow": NO_MOVING_WINDOW,
    "test_moving_window": NO_MOVING_WINDOW,
    "test_expiry_acquire_entry": NO_MOVING_WINDOW,
    "test_acquire_entry_custom_amount": NO_MOVING_WINDOW,
    "test_sliding_window_counter_previous_window": ONE_COUNT,
}


class Aligned(KeytallyStorage, TimestampedSlidingWindow):
    """The tests read from this base class that windows are aligned to the Unix epoch."""

    STORAGE_SCHEME = ["keytally-aligned"]  # noqa: RUF012


class AsyncAligned(AsyncKeytallyStorage, TimestampedSlidingWindow):
    STORAGE_SCHEME = ["async+keytally-aligned"]  # noqa: RUF012


def storages(names, values):
    """Return the values of a parametrization, with Keytally in place of the storages."""
    if not names.startswith("uri, args") or not names.endswith("fixture"):
        return values
    is_async = any("async+" in str(value.values[0]) for value in values)
    scheme, kind = (
        ("async+keytally-aligned", AsyncAligned) if is_async else ("keytally-aligned", Aligned)
    )
    extra = [kind] if "expected_instance" in names else []
    return [pytest.param(f"{scheme}://", {}, *extra, None, id="keytally")]


def pytest_configure():
    parametrize = pytest.mark.parametrize

    def replaced(names, values, *arguments, **options):
        return parametrize(names, storages(names, values), *arguments, **options)

    pytest.mark.parametrize = replaced
    # Some tests take a second, and a window of two seconds must not end in the middle of it.
    import tests.utils

    tests.utils.fixed_start = at_even_second
    tests.utils.async_fixed_start = at_even_second_async


def at_even_second(test):
    @functools.wraps(test)
    def run(*arguments, **options):
        time.sleep(2 - time.time() % 2)
        return test(*arguments, **options)

    return run


def at_even_second_async(test):
    @functools.wraps(test)
    async def run(*arguments, **options):
        await asyncio.sleep(2 - time.time() % 2)
        return await test(*arguments, **options)

    return run


def pytest_collection_modifyitems(items):
    for item in items:
        names = {item.originalname, item.cls.__name__ if item.cls else ""}
        for name in names & DO_NOT_APPLY.keys():
            item.add_marker(pytest.mark.skip(reason=DO_NOT_APPLY[name]))
