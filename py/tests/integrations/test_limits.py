"""The storage for the package limits: its contract, errors, and processes that share it."""

import asyncio
import doctest
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import limits
import pytest
from limits.aio.strategies import FixedWindowRateLimiter as AsyncFixedWindow
from limits.errors import ConfigurationError, StorageError
from limits.storage import storage_from_string
from limits.strategies import (
    FixedWindowRateLimiter,
    MovingWindowRateLimiter,
    SlidingWindowCounterRateLimiter,
)

import keytally.limits
from keytally import FullError, Limiter, PolicyError, TableError
from keytally.testing import at

NOON = 1_800_014_400
WORKERS = 4
LIMIT = 200
STRATEGIES = [FixedWindowRateLimiter, SlidingWindowCounterRateLimiter]


@pytest.fixture(params=["folder", "memory"])
def uri(request, tmp_path):
    return f"keytally://{tmp_path}/app.limiter" if request.param == "folder" else "keytally://"


@pytest.fixture
def storage(uri):
    return storage_from_string(uri)


def test_documentation_examples_run():
    failed, tried = doctest.testmod(keytally.limits)
    assert (failed, tried > 10) == (0, True)


def test_fixed_window_is_aligned_and_counts_refused_requests(storage):
    strategy, ten = FixedWindowRateLimiter(storage), limits.parse("10/minute")
    with at(NOON + 59) as clock:
        assert not strategy.hit(ten, "a", cost=11)
        assert not strategy.test(ten, "a")
        assert strategy.hit(ten, "b", cost=10)
        assert strategy.get_window_stats(ten, "b") == (NOON + 60, 0)
        assert strategy.get_window_stats(ten, "c") == (NOON + 59, 10)
        clock.tick(1)
        assert strategy.hit(ten, "a")
        assert strategy.get_window_stats(ten, "a") == (NOON + 120, 9)
        strategy.clear(ten, "a")
        assert strategy.get_window_stats(ten, "a").remaining == 10


def test_sliding_window_weights_the_previous_one_rounded_up(storage):
    strategy, ten = SlidingWindowCounterRateLimiter(storage), limits.parse("10/minute")
    with at(NOON) as clock:
        assert not strategy.hit(ten, "a", cost=11)
        assert strategy.hit(ten, "a", cost=9)
        assert not strategy.hit(ten, "a", cost=2)
        assert strategy.get_window_stats(ten, "a").remaining == 1
        clock.tick(61)
        # 59 of 60 seconds of the previous window count: 8.85.
        assert strategy.get_window_stats(ten, "a").remaining == 1
        assert storage.get_sliding_window("a", 60)[2] == 0, "the key includes the limit"
        assert storage.get_sliding_window(ten.key_for("a"), 60) == (0, 0.0, 9, 119.0)
        assert not strategy.test(ten, "a", cost=2)
        assert strategy.hit(ten, "a")
        assert not strategy.test(ten, "a")
        assert not strategy.hit(ten, "a")
        strategy.clear(ten, "a")
        assert strategy.hit(ten, "a", cost=10)


def test_moving_window_is_refused_at_construction(storage):
    with pytest.raises(NotImplementedError):
        MovingWindowRateLimiter(storage)


def test_windows_and_limits_have_counts_of_their_own(storage):
    for strategy in (FixedWindowRateLimiter(storage), SlidingWindowCounterRateLimiter(storage)):
        for text in ("1/second", "1/minute", "2/minute", "1/hour", "1 per 30 day"):
            limit = limits.parse(text)
            with at(NOON):
                assert [strategy.hit(limit, "a") for _ in range(3)].count(True) == limit.amount


def test_key_of_two_windows_has_the_sum_and_the_later_end(storage):
    with at(NOON + 1):
        storage.incr("a", 60)
        storage.incr("a", 3600, amount=2)
        assert (storage.get("a"), storage.get_expiry("a")) == (3, NOON + 3600)
        storage.clear("a")
        assert storage.get("a") == 0


def test_reset_is_for_all_storages_of_the_folder(tmp_path):
    first, second = (storage_from_string(f"keytally://{tmp_path}/a") for _ in range(2))
    first.incr("a", 60)
    first.incr("b", 3600)
    assert first.acquire_sliding_window_entry("a", 2, 60)
    assert (second.get("a"), second.get("b")) == (1, 1)
    assert second.reset() == 3
    assert (first.get("a"), first.get("b"), first.get_sliding_window("a", 60)[2]) == (0, 0, 0)


def test_count_without_room_refuses_and_keeps_the_count(storage):
    most = 2**31 - 1
    with at(NOON):
        assert storage.incr("a", 1, amount=most) == most
        for amount in (1, most, 2**32 - 1, 2**70):
            assert storage.incr("a", 1, amount=amount) > 2**60
            assert storage.get("a") == most
        assert storage.incr("a", 1, amount=0) == most


def test_full_storage_raises(tmp_path):
    uri = f"keytally://{tmp_path}/a?capacity=1"
    storage, wrapping = (storage_from_string(uri, wrap_exceptions=wrap) for wrap in (False, True))

    def clients(charge, *arguments):
        for number in range(50):
            charge(str(number), *arguments)

    with pytest.raises(StorageError) as wrapped:
        clients(wrapping.incr, 3600)
    assert isinstance(wrapped.value.storage_error, FullError)
    with pytest.raises(FullError):
        clients(storage.acquire_sliding_window_entry, 5, 3600)


def test_capacity_is_an_option_and_a_query(tmp_path):
    storage_from_string(f"keytally://{tmp_path}/a", capacity=500).incr("a", 60)
    assert Limiter.open(tmp_path / "a/fixed-60s.limiter").capacity == 500
    other = storage_from_string(f"keytally://{tmp_path}/a?capacity=600")
    for call in (lambda: other.incr("a", 60), lambda: other.get("a"), other.reset):
        with pytest.raises(TableError, match="500"):
            call()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("keytally://run/app.limiter", "keytally:///run/app.limiter names the folder"),
        ("keytally:app.limiter", "is not the URI"),
        ("keytally:/run/app.limiter", "is not the URI"),
        ("keytally:///", "names the root of the file system"),
        ("keytally:////?capacity=5", "names the root of the file system"),
        ("keytally:///run/app#1", "is not the URI"),
        ("keytally:///run/app?size=5", "size is not an option"),
        ("keytally:///run/app?capacity=many", "capacity is many"),
        ("keytally:///run/app?capacity=", "must be a whole number"),
    ],
)
@pytest.mark.parametrize("scheme", ["", "async+"])
def test_invalid_uri_is_named(uri, message, scheme):
    with pytest.raises(ConfigurationError, match=message.replace("?", r"\?")):
        storage_from_string(scheme + uri)


def test_file_at_the_path_is_refused(tmp_path):
    Limiter.create(tmp_path / "a.limiter", "5/minute")
    with pytest.raises(ConfigurationError, match="a.limiter is a file"):
        storage_from_string(f"keytally://{tmp_path}/a.limiter")


def test_path_is_decoded_and_private(tmp_path):
    storage = storage_from_string(f"keytally://{tmp_path}/two%20words")
    storage.incr("a", 60)
    folder = tmp_path / "two words"
    assert (folder.stat().st_mode & 0o777, os.listdir(folder)) == (0o700, ["fixed-60s.limiter"])


def test_window_over_31_days_is_refused(storage):
    with pytest.raises(PolicyError, match="1 second to 31 days"):
        FixedWindowRateLimiter(storage).hit(limits.parse("5/year"), "a")


def test_number_of_files_is_bounded(storage):
    for limit in range(1, 65):
        assert storage.acquire_sliding_window_entry("a", limit, 60)
    with pytest.raises(ConfigurationError, match="has 64 files, and sliding 65/60s"):
        storage.acquire_sliding_window_entry("a", 65, 60)
    assert not storage.acquire_sliding_window_entry("a", 1, 60)


def test_check_fails_after_the_files_are_removed(tmp_path):
    storage = storage_from_string(f"keytally://{tmp_path}/a")
    assert storage.check()
    storage.incr("a", 60)
    assert storage.check()
    (tmp_path / "a/fixed-60s.limiter").unlink()
    assert not storage.check()


def test_async_storage_shares_the_folder(tmp_path):
    async def spend():
        strategy = AsyncFixedWindow(storage_from_string(f"async+keytally://{tmp_path}/a"))
        return [await strategy.hit(limits.parse("5/hour"), "a") for _ in range(4)]

    with at(NOON):
        assert all(asyncio.run(spend()))
        strategy = FixedWindowRateLimiter(storage_from_string(f"keytally://{tmp_path}/a"))
        assert [strategy.hit(limits.parse("5/hour"), "a") for _ in range(2)] == [True, False]


def test_folder_in_memory_is_removed_by_the_process_that_made_it():
    script = """
import os, sys, limits.storage, keytally.limits
storage = limits.storage.storage_from_string("keytally://")
storage.incr("a", 60)
if os.fork() == 0:
    storage.incr("a", 60)
    sys.exit()
os.wait()
print(storage._counts.folder, storage.get("a"))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, stdout=subprocess.PIPE, text=True
    )
    folder, count = done.stdout.split()
    assert (count, Path(folder).exists()) == ("2", False)


def whole_hour():
    """Wait until the hour does not end during a test."""
    while time.time() % 3600 > 3570:
        time.sleep(1)


def spend(strategy, limit):
    """Hit until ten requests are refused, and return the number of admitted requests."""
    admitted = refused = 0
    while refused < 10:
        if strategy.hit(limit, "a"):
            admitted += 1
        else:
            refused += 1
    return admitted


def spend_in_child(strategy, pipe):
    pipe.send(spend(strategy, limits.parse(f"{LIMIT}/hour")))


@pytest.mark.parametrize("kind", STRATEGIES)
def test_forked_children_admit_exactly_the_limit(uri, kind):
    """The children create the file, since no window is used before the fork."""
    whole_hour()
    strategy = kind(storage_from_string(uri))
    fork = multiprocessing.get_context("fork")
    pipes = []
    for _ in range(WORKERS):
        here, there = fork.Pipe()
        child = fork.Process(target=spend_in_child, args=(strategy, there))
        child.start()
        pipes.append((child, here))
    admitted = sum(here.recv() for _, here in pipes)
    for child, _ in pipes:
        child.join()
    assert admitted == LIMIT


@pytest.mark.parametrize("kind", STRATEGIES)
def test_threads_admit_exactly_the_limit(storage, kind):
    whole_hour()
    strategy, limit = kind(storage), limits.parse(f"{LIMIT}/hour")
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(spend(strategy, limit)))
        for _ in range(WORKERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(results) == LIMIT


APPLICATIONS = {
    "flask": """
from flask import Flask
from flask_limiter import Limiter
import keytally.limits

app = Flask("contacts")
limiter = Limiter(
    lambda: "a",
    app=app,
    default_limits=[f"{limit}/hour"],
    storage_uri=uri,
    strategy=strategy,
    headers_enabled=True,
)
app.get("/contacts")(lambda: [])
client = app.test_client()
""",
    "slowapi": """
import warnings
warnings.simplefilter("ignore")  # of slowapi and of the test client
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from slowapi import Limiter, _rate_limit_exceeded_handler
from slowapi.errors import RateLimitExceeded
import keytally.limits

limiter = Limiter(lambda: "a", storage_uri=uri, strategy=strategy)
app = FastAPI()
app.state.limiter = limiter
app.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)

@app.get("/contacts")
@limiter.limit(f"{limit}/hour")
def contacts(request: Request):
    return []

client = TestClient(app)
""",
}


@pytest.mark.parametrize("strategy", ["fixed-window", "sliding-window-counter"])
@pytest.mark.parametrize("package", APPLICATIONS)
def test_processes_of_an_application_admit_exactly_the_limit(tmp_path, package, strategy):
    whole_hour()
    limit = 40
    script = f"limit, strategy = {limit}, {strategy!r}\n"
    script += f"uri = 'keytally://{tmp_path}/app.limiter'\n{APPLICATIONS[package]}"
    script += f"statuses = [client.get('/contacts').status_code for _ in range({limit})]\n"
    script += "assert set(statuses) <= {200, 429}\nprint(statuses.count(200))\n"
    started = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        for _ in range(WORKERS)
    ]
    admitted = [int(process.communicate()[0]) for process in started]
    assert sum(admitted) == limit
    assert all(process.returncode == 0 for process in started)


def test_headers_of_flask_limiter_describe_the_aligned_window(tmp_path):
    values = {"limit": 40, "strategy": "fixed-window", "uri": f"keytally://{tmp_path}/a"}
    exec(APPLICATIONS["flask"], values)
    with at(NOON + 10):
        response = values["client"].get("/contacts")
    assert response.headers["X-RateLimit-Limit"] == "40"
    assert response.headers["X-RateLimit-Remaining"] == "39"
    assert int(response.headers["X-RateLimit-Reset"]) - NOON in (3600, 3601)
