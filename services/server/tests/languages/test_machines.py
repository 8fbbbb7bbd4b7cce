"""Two machines with agents share one limit: processes of Python spend it, and the store is lost."""

import asyncio
import multiprocessing
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from keytally import Gate, generate_pepper

# `cargo xtask test python` builds the program and sets the variable.
PROGRAM = Path(os.environ["KEYTALLY_TEST_PROGRAMS"]) / "keytally"
LIMIT = 600
# Units that another machine does not need return within a quarter of a second.
REFUSALS, PAUSE_S = 200, 0.005


class Store:
    """A Redis server of the test, which keeps nothing when it ends."""

    def __init__(self, folder):
        self.socket = folder / "store.sock"
        self.start()

    def start(self):
        options = ["--port", "0", "--unixsocket", self.socket, "--save", "", "--dir", "/"]
        self.process = subprocess.Popen(
            ["redis-server", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def kill(self):
        self.process.kill()
        self.process.wait()


class Machine:
    """A machine: its gate and its fleet file in a folder of its own, and its agent."""

    def __init__(self, folder, store, pepper):
        self.gate = folder / "api.gate"
        self.file = folder / "api.fleet"
        self.environment = {**os.environ, "KEYTALLY_PEPPER": pepper}
        self.pepper = pepper
        fleet = ["--fleet", "test", "--store", f"unix://{store.socket}", "--on-loss", "closed"]
        self.agent = subprocess.Popen(
            [PROGRAM, "agent", self.gate, *fleet, "--file", self.file],
            env=self.environment,
            stderr=subprocess.DEVNULL,
        )

    def wait_until(self, leads):
        """Wait until the agent leads and the store answers, or until that is not so."""
        command = [PROGRAM, "fleet", "status", self.gate, "--file", self.file]
        for _ in range(2000):
            ended = subprocess.run(command, env=self.environment, capture_output=True, check=False)
            if (ended.returncode == 0) == leads:
                return
            time.sleep(0.01)
        raise AssertionError(ended)

    def open(self):
        return Gate.open(self.gate, pepper=self.pepper, fleet=self.file)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path)
    yield store
    store.kill()


@pytest.fixture
def key(tmp_path):
    pepper = generate_pepper()
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    plans = {"default": f"{LIMIT}/31d"}
    gate = Gate.create(folders[0] / "api.gate", pepper=pepper, keys=4, plans=plans)
    key = gate.issue(42).expose()
    gate.set_fleet(True)
    shutil.copy(gate.path, folders[1])
    return key, pepper, folders


@pytest.fixture
def machines(store, key):
    _, pepper, folders = key
    machines = [Machine(folder, store, pepper) for folder in folders]
    for machine in machines:
        machine.wait_until(leads=True)
    yield machines
    for machine in machines:
        machine.agent.terminate()
        assert machine.agent.wait() == 0


def spend(gate, key):
    """Check until many requests in a row are refused.

    Return the number of requests that were admitted on shared units, and the last verdict.
    """
    admitted = refused = 0
    while refused < REFUSALS:
        verdict = gate.check(key)
        if verdict:
            admitted, refused = admitted + verdict.leased, 0
        else:
            refused += 1
            time.sleep(PAUSE_S)
    return admitted, verdict


async def spend_in_event_loop(gate, key):
    """Check as `spend` does, in eight tasks of one event loop."""

    async def task():
        admitted = refused = 0
        while refused < REFUSALS:
            verdict = await gate.acheck(key)
            if verdict:
                admitted, refused = admitted + verdict.leased, 0
            else:
                refused += 1
                await asyncio.sleep(PAUSE_S)
        return admitted, verdict

    found = await asyncio.gather(*(task() for _ in range(8)))
    return sum(admitted for admitted, _ in found), found[-1][1]


def worker(machine, key, is_async, results):
    gate = machine.open()
    found = asyncio.run(spend_in_event_loop(gate, key)) if is_async else spend(gate, key)
    results.put(found)


def test_processes_of_two_machines_admit_exactly_the_limit(machines, key):
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    workers = [
        context.Process(target=worker, args=(machine, key[0], is_async, results))
        for machine in machines
        for is_async in (False, True)
    ]
    for process in workers:
        process.start()
    found = [results.get() for _ in workers]
    for process in workers:
        process.join()
    assert sum(admitted for admitted, _ in found) == LIMIT
    for _, last in found:
        assert (last.outcome, last.remaining) == ("denied", 0)


def test_lost_store_refuses_and_a_new_one_admits_exactly_the_rest(store, machines, key):
    gates = [machine.open() for machine in machines]
    first = gates[0].check(key[0], 100)
    assert (first.admitted, first.remaining) == (True, LIMIT - 100)
    store.kill()
    for machine in machines:
        machine.wait_until(leads=False)
    alone = [spend(gate, key[0]) for gate in gates]
    for _, last in alone:
        assert (last.unavailability, last.http_status, last.retry_after_s) == ("lost", 503, 1)
    store.start()
    for machine in machines:
        machine.wait_until(leads=True)
    rest = [spend(gate, key[0]) for gate in gates]
    admitted = sum(admitted for admitted, _ in alone + rest)
    assert admitted == LIMIT - 100
    assert [last.outcome for _, last in rest] == ["denied", "denied"]
