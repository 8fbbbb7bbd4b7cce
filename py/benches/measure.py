"""Measures the module beside its peers: figures as JSON, a group of benches/results.json.

The contenders of a column take turns, so that what else the machine does meets all of them. Times are of the
processor, not of the clock on the wall, and include the call from Python and nothing else: `timeit` compiles
the statement into its loop.
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

ROUNDS = int(os.environ.get("KEYTALLY_BENCH_ROUNDS", "1"))
TURN_S = int(os.environ.get("KEYTALLY_BENCH_TURN_MS", "200")) / 1000

# Limits that no turn reaches: tallies hold no more, so these begin anew after each batch.
ROOMY = "200000/minute, 500000/hour"
BATCH = 100_000
# The same for those who have no bits to save.
ROOM = 1_000_000_000

MANY = 10_000


class Contender:
    """A statement that answers a question, and what keeps its answers the same."""

    def __init__(self, name, statement, names, between=lambda: None):
        self.name = name
        self.between = between
        self.timer = timeit.Timer(statement, timer=time.thread_time, globals=names)

    def turn(self):
        """Return the microseconds that one call took, on average over a turn."""
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
    """Measure columns, each a list of contenders or of names with functions that give a figure."""
    rows = {}
    for contenders in columns.values():
        for contender in contenders:
            rows.setdefault(contender.name, {})
    for column, contenders in columns.items():
        for _ in range(rounds):
            for contender in contenders:
                rows[contender.name].setdefault(column, []).append(contender.turn())
    return {
        "name": f"python/{name}",
        "unit": unit,
        "title": title,
        "about": about,
        "columns": list(columns),
        "rows": [
            {"name": row, "cells": [cells.get(column, []) for column in columns]}
            for row, cells in rows.items()
        ],
    }


def admitted(answer):
    """Make sure that a contender still does what it is measured for."""
    if not answer:
        raise AssertionError("a limit was reached that was not meant to be")


def windows(amount):
    return limits.RateLimitItemPerMinute(amount), limits.RateLimitItemPerHour(amount)


def keys():
    """The whole question: is the key good, and is there room? With all that the response's headers tell."""
    pepper = keytally.generate_pepper()
    secret = bytes.fromhex(pepper)

    def columns(count):
        gate = keytally.Gate.in_memory(pepper=pepper, keys=2 * count, plans={"default": ROOMY})
        issued = [gate.issue(account) for account in range(count)]
        texts = [key.expose() for key in issued]

        def reset():
            admitted(gate.check(texts[0]))
            for key in issued[: 1 if count == 1 else MANY]:
                gate.reset(key.key_id)

        storage = limits.storage.MemoryStorage()
        per_minute, per_hour = windows(ROOM)
        # As one writes it by hand: the MAC of each key by its id, and the two windows one after the other.
        names = {
            "gate": gate,
            "keys": itertools.cycle(texts),
            "macs": {text[8:19]: hmac.new(secret, text.encode(), hashlib.sha256).digest() for text in texts},
            "secret": secret,
            "sha256": hashlib.sha256,
            "hmac": hmac,
            "per_minute": per_minute,
            "per_hour": per_hour,
            "limiter": limits.strategies.FixedWindowRateLimiter(storage),
            "one_window": rust_py_rate_limit.RateLimiter(limit=ROOM, window_seconds=3600),
        }
        by_hand = "key = next(keys); id = key[8:19]\ngood = hmac.compare_digest({mac}, macs[id])\n{rest}"
        two_windows = (
            "limiter.hit(per_minute, id) and limiter.hit(per_hour, id)\n"
            "limiter.get_window_stats(per_minute, id); limiter.get_window_stats(per_hour, id)"
        )
        new, digest = (
            "hmac.new(secret, key.encode(), sha256).digest()",
            "hmac.digest(secret, key.encode(), 'sha256')",
        )
        return [
            Contender("keytally", "gate.check(next(keys))", names, reset),
            Contender(
                "hmac.new, compare_digest, limits: two hits and their window stats",
                by_hand.format(mac=new, rest=two_windows),
                names,
            ),
            Contender(
                "hmac.digest, compare_digest, rust-py-rate-limit: one window",
                by_hand.format(mac=digest, rest="one_window.check(id)"),
                names,
            ),
            Contender("hmac.digest, compare_digest: no limit", by_hand.format(mac=digest, rest=""), names),
        ]

    return table(
        "keys",
        "µs",
        "A key checked and charged in both its windows, by how many keys take turns",
        "From the text of the header to the verdict, with what is left and when it is reset. All admitted.",
        {"1 key": columns(1), f"{MANY:,} keys": columns(MANY)},
    )


def pyrate(amount):
    rates = [pyrate_limiter.Rate(amount, 60_000), pyrate_limiter.Rate(amount + 1, 3_600_000)]
    algorithm, store = pyrate_limiter.TokenBucket(), pyrate_limiter.InMemoryStateStore()
    return pyrate_limiter.Limiter(pyrate_limiter.StateBucket(rates, algorithm, store))


def fixed(limit):
    """Return one of throttled-py's limiters, with the counters in a store of its own."""
    per = throttled.per_min if limit[1] == "minute" else throttled.per_hour
    return throttled.Throttled(using="fixed_window", quota=per(limit[0]), store=throttled.MemoryStore())


def subjects():
    """The same without keys: both windows of an address."""

    def columns(count, policy, amount, expected):
        limiter = keytally.Limiter(policy, 2 * count)
        addresses = [f"203.0.{number // 256}.{number % 256}" for number in range(count)]

        def keep():
            if not expected:
                # Used up once, the windows stay so.
                limiter.check(addresses[0])
                admitted(not limiter.check(addresses[0]))
                return
            admitted(limiter.check(addresses[0]))
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
        contenders = [
            Contender("keytally", "limiter.check(next(addresses))", names, keep),
            Contender("rust-py-rate-limit, one window: check", "one_window.check(next(addresses))", names),
            Contender("rust-py-rate-limit, one window: allow", "one_window.allow(next(addresses))", names),
            Contender(
                "limits, fixed windows: two hits",
                "a = next(addresses)\nfixed.hit(per_minute, a) and fixed.hit(per_hour, a)",
                names,
            ),
            Contender(
                "limits, fixed windows: two hits and their window stats",
                "a = next(addresses)\nfixed.hit(per_minute, a) and fixed.hit(per_hour, a)\n"
                "fixed.get_window_stats(per_minute, a); fixed.get_window_stats(per_hour, a)",
                names,
            ),
            Contender(
                "throttled-py, fixed windows: two limits",
                "a = next(addresses)\nminute.limit(a).limited or hour.limit(a)",
                names,
            ),
        ]
        if count == 1:
            # Its bucket is for one subject.
            acquire = "pyrate.try_acquire(next(addresses), blocking=False)"
            contenders.append(Contender("pyrate-limiter, two token buckets", acquire, names))
        return contenders

    return table(
        "subjects",
        "µs",
        "An address charged in both its windows",
        "From the text to the answer. All but allow and hit also return what is left.",
        {
            "1 address": columns(1, ROOMY, ROOM, True),
            f"{MANY:,} addresses": columns(MANY, ROOMY, ROOM, True),
            "1 address, denied": columns(1, "1/minute, 1/hour", 1, False),
        },
    )


def reading():
    """What asking a verdict costs, on top of the check that gave it."""
    gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), keys=8)
    names = {"verdict": gate.check(gate.issue(42).expose())}
    asked = ["admitted", "status", "remaining", "account", "key_id", "plan", "headers", "raw_headers"]
    contenders = [Contender(f"verdict.{name}", f"verdict.{name}", names) for name in asked]
    title = "What a verdict holds, worked out when it is read"
    return table("verdict", "µs", title, "Of an admitted check with two windows.", {"each": contenders})


class Added:
    """What a middleware adds to a request, in process: the same requests with it and without."""

    def __init__(self, name, app, bare, headers=(), between=lambda: None):
        self.name = name
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
            "headers": [(b"host", b"127.0.0.1"), (b"user-agent", b"bench"), (b"accept", b"*/*"), *headers],
        }

    def turn(self):
        return asyncio.run(self.took(self.app)) - asyncio.run(self.took(self.bare))

    async def took(self, app):
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
        admitted(statuses == {200})
        return elapsed / calls * 1e6


def middleware():
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

    gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), keys=8, plans={"default": ROOMY})
    key = gate.issue(42)
    limiter = keytally.Limiter(ROOMY, 100)
    header = [(b"x-api-key", key.expose().encode())]
    bare = application()
    contenders = [
        Added(
            "keytally.asgi.GateMiddleware",
            application(GateMiddleware, gate=gate),
            bare,
            header,
            lambda: gate.reset(key.key_id),
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
    title = "What middleware adds to a bare Starlette route"
    about = "In process, without a server: two windows, the header fields of the response included."
    return table("middleware", "µs", title, about, {"added": contenders})


class Fresh:
    """A figure that a new interpreter prints."""

    def __init__(self, name, code, *arguments):
        self.name = name
        self.code = code
        self.arguments = arguments

    def turn(self):
        command = [sys.executable, "-c", self.code, *map(str, self.arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(f"{self.name}:\n{done.stderr}")
        return float(done.stdout)


def importing():
    code = "import time; began = time.perf_counter(); import {}; print((time.perf_counter() - began) * 1000)"
    modules = ["keytally", "rust_py_rate_limit", "limits", "throttled", "pyrate_limiter", "slowapi"]
    contenders = [Fresh(module.replace("_", "-"), code.format(module)) for module in modules]
    about = "From the statement to the next, in a new interpreter, the files in memory already."
    return table("import", "ms", "The import", about, {"ms": contenders})


def memory():
    grown = string.Template("""
import sys
subjects = [f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(int(sys.argv[1]))]
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
            "limiter = Limiter('100/minute, 1000/hour', len(subjects))",
            "limiter.check(subject)",
        ),
        "rust-py-rate-limit, one window": (
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
            "minute = throttled.Throttled(using='fixed_window', quota=throttled.per_min(100), store=store)\n"
            "hour = throttled.Throttled(using='fixed_window', quota=throttled.per_hour(1000), store=store)",
            "minute.limit(subject); hour.limit(subject)",
        ),
    }
    count = 200_000
    contenders = [
        Fresh(name, grown.substitute(imports=imports, make=make, call=call), count)
        for name, (imports, make, call) in ways.items()
    ]
    title = f"Memory of {count:,} addresses, each with two windows"
    about = "How much the process grew by, for each; the addresses themselves are there before."
    # Who else is at work makes no difference: once is enough.
    return table("memory", "bytes", title, about, {"each": contenders}, rounds=1)


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
