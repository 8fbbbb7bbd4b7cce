"""Measures the parts of a call from Python: figures as JSON, a group of benches/RESULTS.md.

The implementations take turns, so background load affects all alike. Each does what the one before
it does, and one part more. The difference is the time of the part. `cargo xtask bench call` builds
the module `keytally_parts` and starts this script with its path as the argument.
"""

import importlib.machinery
import importlib.util
import json
import os
import sys
import time
import timeit
from pathlib import Path

import keytally

ROUNDS = int(os.environ.get("KEYTALLY_BENCH_ROUNDS", "1"))
TURN_S = int(os.environ.get("KEYTALLY_BENCH_TURN_MS", "200")) / 1000

# Limits that no batch reaches. The counts are reset after each batch.
POLICY = "200000/minute, 500000/hour"
BATCH = 20_000
SUBJECT = "203.0.113.9"


def load(path):
    """Return the module at the path of a shared library."""
    loader = importlib.machinery.ExtensionFileLoader("keytally_parts", path)
    specification = importlib.util.spec_from_loader("keytally_parts", loader)
    module = importlib.util.module_from_spec(specification)
    loader.exec_module(module)
    return module


def turn(call, reset):
    """Return the average time of a call during one turn, in nanoseconds."""
    timer = timeit.Timer("call(subject)", timer=time.thread_time, globals={"call": call, "subject": SUBJECT})
    calls, took = 0, 0.0
    while took < TURN_S:
        took += timer.timeit(BATCH)
        calls += BATCH
        reset(SUBJECT)
    return took / calls * 1e9


def main():
    parts = load(sys.argv[1]).Parts(POLICY, 1000)
    limiter = keytally.Limiter.in_memory(POLICY, 1000)
    steps = {
        "the call of a native method": parts.call,
        "copying the subject": parts.copy,
        "reading the clock and checking": parts.core,
        "the verdict as a Python object": limiter.check,
    }
    alone, until = {name: [] for name in steps}, {name: [] for name in steps}
    for _ in range(ROUNDS):
        before = 0.0
        for name, call in steps.items():
            figure = turn(call, limiter.reset if call == limiter.check else parts.reset)
            alone[name].append(figure - before)
            until[name].append(figure)
            before = figure
    table = {
        "name": "call/parts",
        "unit": "ns",
        "title": "keytally.Limiter.check from Python, by its parts",
        "about": "One subject of 11 characters, two windows, all admitted. Each row is one part more, and the last "
        "sum is the whole call.",
        "columns": ["alone", "with those above"],
        "rows": [{"name": name, "work": "a part", "cells": [alone[name], until[name]]} for name in steps],
    }
    group = {"group": "call", "tables": [table]}
    Path(os.environ["KEYTALLY_BENCH_FOLDER"], "call.json").write_text(json.dumps(group))


if __name__ == "__main__":
    main()
