"""Measures the module and alternatives to it: figures as JSON, a group of benches/RESULTS.md.

The implementations of a column are interleaved, so background load affects all alike. Times are
processor times, except for imports. They include only the call from Python: `timeit` compiles the
statement into its loop.
"""

import asyncio
import gc
import hashlib
import hmac
import itertools
import json
import os
import string
import subprocess
import sys
import time
import timeit
from pathlib import Path

import limits
import pyrate_limiter
import rust_py_rate_limit
import slowapi
import throttled

import keytally

# How often each implementation is measured, and how long each time.
ROUNDS = int(os.environ.get("KEYTALLY_BENCH_ROUNDS", "1"))
TURN_S = int(os.environ.get("KEYTALLY_BENCH_TURN_MS", "200")) / 1000

# Limits that no turn reaches. A tally cannot have higher limits and is therefore reset after each
# batch.
ROOMY = "200000/minute, 500000/hour"
BATCH = 100_000
# The limit of the alternatives, which no turn reaches.
ROOM = 1_000_000_000

MANY = 10_000

# The work of rows that do not do that of the table's description. Rows of the same work are
# compared with the first of them, and rows that do a part of the table's work with none.
PART = "a part"
ONE_WINDOW = "one window"
NO_STATE = "no remaining units"


class Implementation:
    """A statement to measure, and a function between batches that keeps its results the same."""

    def __init__(self, name, statement, names, between=lambda: None, work=""):
        self.name = name
        self.work = work
        self.between = between
        self.timer = timeit.Timer(statement, timer=time.thread_time, globals=names)

    def turn(self):
        """Return the average time of a call during one turn, in microseconds."""
        calls, took = 0, 0.0
        batch = 100
        while took < TURN_S:
            self.between()
            took += self.timer.timeit(batch)
            calls += batch
            batch = min(batch * 2, BATCH)
        self.between()
        return took / calls * 1e6


def table(name, unit, title, about, columns, rounds=ROUNDS):
    """Measure columns, each a list of implementations, and return the table of the figures."""
    rows, works = {}, {}
    for implementations in columns.values():
        for implementation in implementations:
            rows.setdefault(implementation.name, {})
            works[implementation.name] = implementation.work
    for column, implementations in columns.items():
        for _ in range(rounds):
            for implementation in implementations:
                rows[implementation.name].setdefault(column, []).append(implementation.turn())
    return {
        "name": f"python/{name}",
        "unit": unit,
        "title": title,
        "about": about,
        "columns": list(columns),
        "rows": [
            {
                "name": row,
                "work": works[row],
                "cells": [cells.get(column, []) for column in columns],
            }
            for row, cells in rows.items()
        ],
    }


def require_admitted(answer):
    """Fail if an implementation did not admit the request that it is measured for."""
    if not answer:
        raise AssertionError("a request was denied that must be admitted")


def windows(amount):
    """Return the two windows of the package limits, each with this limit."""
    return limits.RateLimitItemPerMinute(amount), limits.RateLimitItemPerHour(amount)


def keys():
    """Measure the check of a key with two windows, and the values of the header fields."""
    pepper = keytally.generate_pepper()
    secret = bytes.fromhex(pepper)

    def columns(count):
        gate = keytally.Gate.in_memory(pepper=pepper, keys=2 * count, plans={"default": ROOMY})
        issued = [gate.issue(account) for account in range(count)]
        texts = [key.expose() for key in issued]

        def reset():
            require_admitted(gate.check(texts[0]))
            for key in issued[: 1 if count == 1 else MANY]:
                gate.reset(key.key_id)

        storage = limits.storage.MemoryStorage()
        per_minute, per_hour = windows(ROOM)
        # The alternative to Keytally: the MACs of the keys in a dict by key id, and two windows.
        names = {
            "gate": gate,
            "keys": itertools.cycle(texts),
            "macs": {
                text[8:19]: hmac.new(secret, text.encode(), hashlib.sha256).digest()
                for text in texts
            },
            "secret": secret,
            "sha256": hashlib.sha256,
            "hmac": hmac,
            "per_minute": per_minute,
            "per_hour": per_hour,
            "limiter": limits.strategies.FixedWindowRateLimiter(storage),
            "one_window": rust_py_rate_limit.RateLimiter(limit=ROOM, window_seconds=3600),
        }
        by_hand = (
            "key = next(keys); id = key[8:19]\ngood = hmac.compare_digest({mac}, macs[id])\n{rest}"
        )
        two_windows = (
            "limiter.hit(per_minute, id) and limiter.hit(per_hour, id)\n"
            "limiter.get_window_stats(per_minute, id); limiter.get_window_stats(per_hour, id)"
        )
        new, digest = (
            "hmac.new(secret, key.encode(), sha256).digest()",
            "hmac.digest(secret, key.encode(), 'sha256')",
        )
        return [
            Implementation("keytally", "gate.check(next(keys))", names, reset),
            Implementation(
                "hmac.new, compare_digest, limits: two hits and their window stats",
                by_hand.format(mac=new, rest=two_windows),
                names,
            ),
            Implementation(
                "hmac.digest, compare_digest, rust-py-rate-limit: one window",
                by_hand.format(mac=digest, rest="one_window.check(id)"),
                names,
                work=ONE_WINDOW,
            ),
            Implementation(
                "hmac.digest, compare_digest: no limit",
                by_hand.format(mac=digest, rest=""),
                names,
                work="no limit",
            ),
        ]

    return table(
        "keys",
        "µs",
        "A key checked and charged in both its windows, by how many keys take turns",
        "From the header's value to the verdict, with remaining and reset. All are admitted.",
        {"1 key": columns(1), f"{MANY:,} keys": columns(MANY)},
    )


def pyrate(amount):
    """Return a limiter of pyrate-limiter with two token buckets."""
    rates = [pyrate_limiter.Rate(amount, 60_000), pyrate_limiter.Rate(amount + 1, 3_600_000)]
    algorithm, store = pyrate_limiter.TokenBucket(), pyrate_limiter.InMemoryStateStore()
    return pyrate_limiter.Limiter(pyrate_limiter.StateBucket(rates, algorithm, store))


def fixed(limit):
    """Return a limiter of throttled-py, with its own store of counters."""
    per = throttled.per_min if limit[1] == "minute" else throttled.per_hour
    return throttled.Throttled(
        using="fixed_window", quota=per(limit[0]), store=throttled.MemoryStore()
    )


def subjects():
    """Measure the check of an address with two windows."""

    def columns(count, policy, amount, expected):
        limiter = keytally.Limiter.in_memory(policy, 2 * count)
        addresses = [f"203.0.{number // 256}.{number % 256}" for number in range(count)]

        def keep():
            if not expected:
                # The windows are used up once.
                limiter.check(addresses[0])
                require_admitted(not limiter.check(addresses[0]))
                return
            require_admitted(limiter.check(addresses[0]))
            for address in addresses:
                limiter.reset(address)

        per_minute, per_hour = windows(amount)
        names = {
            "limiter": limiter,
            "addresses": itertools.cycle(addresses),
            "fixed": limits.strategies.FixedWindowRateLimiter(limits.storage.MemoryStorage()),
            "per_minute": per_minute,
            "per_hour": per_hour,
            "minute": fixed((amount, "minute")),
            "hour": fixed((amount, "hour")),
            "pyrate": pyrate(amount),
            "one_window": rust_py_rate_limit.RateLimiter(limit=amount, window_seconds=3600),
        }
        implementations = [
            Implementation("keytally", "limiter.check(next(addresses))", names, keep),
            Implementation(
                "rust-py-rate-limit, one window: check",
                "one_window.check(next(addresses))",
                names,
                work=ONE_WINDOW,
            ),
            Implementation(
                "rust-py-rate-limit, one window: allow",
                "one_window.allow(next(addresses))",
                names,
                work=f"{ONE_WINDOW}, {NO_STATE}",
            ),
            Implementation(
                "limits, fixed windows: two hits",
                "a = next(addresses)\nfixed.hit(per_minute, a) and fixed.hit(per_hour, a)",
                names,
                work=NO_STATE,
            ),
            Implementation(
                "limits, fixed windows: two hits and their window stats",
                "a = next(addresses)\nfixed.hit(per_minute, a) and fixed.hit(per_hour, a)\n"
                "fixed.get_window_stats(per_minute, a); fixed.get_window_stats(per_hour, a)",
                names,
            ),
            Implementation(
                "throttled-py, fixed windows: two limits",
                "a = next(addresses)\nminute.limit(a).limited or hour.limit(a)",
                names,
            ),
        ]
        if count == 1:
            # A bucket of pyrate-limiter counts one subject.
            acquire = "pyrate.try_acquire(next(addresses), blocking=False)"
            implementations.append(
                Implementation("pyrate-limiter, two token buckets", acquire, names, work=NO_STATE)
            )
        return implementations

    return table(
        "subjects",
        "µs",
        "An address charged in both its windows",
        "From the text to the result, with the remaining units.",
        {
            "1 address": columns(1, ROOMY, ROOM, True),
            f"{MANY:,} addresses": columns(MANY, ROOMY, ROOM, True),
            "1 address, denied": columns(1, "1/minute, 1/hour", 1, False),
        },
    )


def reading():
    """Measure the properties of a verdict."""
    gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), keys=8)
    names = {"verdict": gate.check(gate.issue(42).expose())}
    properties = [
        "admitted",
        "http_status",
        "remaining",
        "account",
        "key_id",
        "plan",
        "headers",
        "raw_headers",
    ]
    implementations = [
        Implementation(f"verdict.{name}", f"verdict.{name}", names, work=PART)
        for name in properties
    ]
    title = "The properties of a verdict, which are computed when they are read"
    return table(
        "verdict", "µs", title, "Of an admitted check with two windows.", {"each": implementations}
    )


class Added:
    """The time that middleware adds: the same requests with it and without, in process."""

    def __init__(self, name, app, bare, headers=(), between=lambda: None, work=""):
        self.name = name
        self.work = work
        self.app = app
        self.bare = bare
        self.between = between
        self.scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/",
            "root_path": "",
            "query_string": b"",
            "server": ("127.0.0.1", 8000),
            "client": ("203.0.113.9", 40000),
            "headers": [
                (b"host", b"127.0.0.1"),
                (b"user-agent", b"bench"),
                (b"accept", b"*/*"),
                *headers,
            ],
        }

    def turn(self):
        return asyncio.run(self.took(self.app)) - asyncio.run(self.took(self.bare))

    async def took(self, app):
        """Return the average time of a request, in microseconds."""
        statuses = set()

        async def receive():
            return {"type": "http.request", "body": b""}

        async def send(message):
            if message["type"] == "http.response.start":
                statuses.add(message["status"])

        self.between()
        calls, began = 0, time.thread_time()
        while (elapsed := time.thread_time() - began) < TURN_S:
            for _ in range(100):
                await app(dict(self.scope), receive, send)
            calls += 100
        require_admitted(statuses == {200})
        return elapsed / calls * 1e6


def middleware():
    """Measure the time that middleware adds to a request."""
    from slowapi.middleware import SlowAPIASGIMiddleware, SlowAPIMiddleware
    from slowapi.util import get_remote_address
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    from keytally.asgi import GateMiddleware, LimiterMiddleware

    async def home(_request):
        return PlainTextResponse("hello")

    def application(*classes, **options):
        app = Starlette(routes=[Route("/", home)])
        for added in classes:
            app.add_middleware(added, **options)
        return app

    def of_slowapi(added):
        app = application(added)
        limits_of_all = [f"{ROOM}/minute", f"{ROOM}/hour"]
        app.state.limiter = slowapi.Limiter(
            get_remote_address, default_limits=limits_of_all, headers_enabled=True
        )
        return app

    gate = keytally.Gate.in_memory(
        pepper=keytally.generate_pepper(), keys=8, plans={"default": ROOMY}
    )
    key = gate.issue(42)
    limiter = keytally.Limiter.in_memory(ROOMY, 100)
    header = [(b"x-api-key", key.expose().encode())]
    bare = application()
    implementations = [
        Added(
            "keytally.asgi.GateMiddleware",
            application(GateMiddleware, gate=gate),
            bare,
            header,
            lambda: gate.reset(key.key_id),
            work="with a key",
        ),
        Added(
            "keytally.asgi.LimiterMiddleware",
            application(LimiterMiddleware, limiter=limiter),
            bare,
            (),
            lambda: limiter.reset("203.0.113.9"),
        ),
        Added("slowapi's SlowAPIASGIMiddleware, no key", of_slowapi(SlowAPIASGIMiddleware), bare),
        Added("slowapi's SlowAPIMiddleware, no key", of_slowapi(SlowAPIMiddleware), bare),
    ]
    title = "The time that middleware adds to a Starlette route"
    about = "In process, without a server: two windows, the header fields of the response included."
    return table("middleware", "µs", title, about, {"added": implementations})


class Fresh:
    """A figure that a new interpreter process prints."""

    def __init__(self, name, code, *arguments, work=""):
        self.name = name
        self.work = work
        self.code = code
        self.arguments = arguments

    def turn(self):
        command = [sys.executable, "-c", self.code, *map(str, self.arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(f"{self.name}:\n{done.stderr}")
        return float(done.stdout)


def importing():
    """Measure the import of each package."""
    code = (
        "import time; began = time.perf_counter(); import {}; "
        "print((time.perf_counter() - began) * 1000)"
    )
    modules = ["keytally", "rust_py_rate_limit", "limits", "throttled", "pyrate_limiter", "slowapi"]
    implementations = [Fresh(module.replace("_", "-"), code.format(module)) for module in modules]
    about = "In a new interpreter, with the files in the page cache."
    return table("import", "ms", "The import", about, {"ms": implementations})


def memory():
    """Measure the memory of many addresses."""
    grown = string.Template("""
import sys
count = int(sys.argv[1])
subjects = [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(count)]
def resident():
    with open("/proc/self/smaps_rollup") as rollup:
        return next(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Rss"))
$imports
before = resident()
$make
for subject in subjects: $call
print((resident() - before) / len(subjects))
""")
    ways = {
        "keytally": (
            "from keytally import Limiter",
            "limiter = Limiter.in_memory('100/minute, 1000/hour', len(subjects))",
            "limiter.check(subject)",
        ),
        f"rust-py-rate-limit, {ONE_WINDOW}": (
            "from rust_py_rate_limit import RateLimiter",
            "limiter = RateLimiter(limit=1000, window_seconds=3600)",
            "limiter.check(subject)",
        ),
        "limits, fixed windows": (
            "import limits",
            "limiter = limits.strategies.FixedWindowRateLimiter(limits.storage.MemoryStorage())\n"
            "minute, hour = limits.RateLimitItemPerMinute(100), limits.RateLimitItemPerHour(1000)",
            "limiter.hit(minute, subject); limiter.hit(hour, subject)",
        ),
        "throttled-py, fixed windows": (
            "import throttled",
            "store = throttled.MemoryStore(options={'MAX_SIZE': 4 * len(subjects)})\n"
            "options = {'using': 'fixed_window', 'store': store}\n"
            "minute = throttled.Throttled(quota=throttled.per_min(100), **options)\n"
            "hour = throttled.Throttled(quota=throttled.per_hour(1000), **options)",
            "minute.limit(subject); hour.limit(subject)",
        ),
    }
    count = 200_000
    implementations = [
        Fresh(
            name,
            grown.substitute(imports=imports, make=make, call=call),
            count,
            work=ONE_WINDOW if name.endswith(ONE_WINDOW) else "",
        )
        for name, (imports, make, call) in ways.items()
    ]
    title = f"Memory of {count:,} addresses, each with two windows"
    about = "Growth of the process per address. The texts of the addresses are allocated before."
    # Background load does not affect the figure, so one round is enough.
    return table("memory", "bytes", title, about, {"each": implementations}, rounds=1)


def main():
    gc.freeze()
    tables = [measure() for measure in (keys, subjects, reading, middleware, importing, memory)]
    text = json.dumps({"group": "python", "tables": tables})
    if folder := os.environ.get("KEYTALLY_BENCH_FOLDER"):
        Path(folder, "python.json").write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
