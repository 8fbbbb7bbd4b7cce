"""Three languages on one file: Python workers, a C program and the Rust service spend one key."""

import http.client
import multiprocessing
import os
import re
import subprocess
import threading
import time
from pathlib import Path

import pytest

from keytally import Gate

# `cargo xtask test python` builds the programs and sets the variable.
PROGRAMS = Path(os.environ["KEYTALLY_TEST_PROGRAMS"])
LIMIT = 3000
# The values of KT_ADMITTED and KT_INVALID_KEY, which the C program prints.
ADMITTED, INVALID_KEY = 0, 3


class Service:
    """The Rust service on the gate of a data folder."""

    def __init__(self, folder):
        self.process = subprocess.Popen(
            [
                PROGRAMS / "keytally",
                "serve",
                "--data",
                folder,
                "--listen",
                "127.0.0.1:0",
                "--plan",
                f"default={LIMIT}/31d",
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        for line in self.process.stdout:
            if found := re.match(r"Listening on http://(\S+)", line):
                self.address = found[1]
                return
        raise AssertionError("the service does not start")

    def check(self, key):
        client = http.client.HTTPConnection(self.address)
        status = self.fetch(client, key)
        client.close()
        return status

    @staticmethod
    def fetch(client, key):
        client.request("GET", "/api/v1/contacts", headers={"X-API-Key": key})
        response = client.getresponse()
        response.read()
        return response.status

    def spend(self, key, begin):
        """Send requests until one is denied, and return the number of admitted requests.

        The first is sent at once, and the others after the event.
        """
        client = http.client.HTTPConnection(self.address)
        assert self.fetch(client, key) == 200
        admitted = 1
        begin.wait()
        while (status := self.fetch(client, key)) == 200:
            admitted += 1
        client.close()
        assert status == 429
        return admitted


class CProgram:
    """The C program on a gate."""

    def __init__(self, folder):
        command = [PROGRAMS / "client", folder / "api.gate", folder / "pepper"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1)

    def command(self, command, word):
        self.process.stdin.write(f"{command} {word}\n")
        return int(self.process.stdout.readline())


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def service(folder):
    service = Service(folder)
    yield service
    service.process.terminate()
    service.process.wait()
    service.process.stdout.close()


@pytest.fixture
def c_program(folder, service):  # noqa: ARG001
    c_program = CProgram(folder)
    yield c_program
    c_program.process.stdin.close()
    assert c_program.process.wait() == 0
    c_program.process.stdout.close()


def worker(folder, key, begin, results):
    """Check until a request is denied, as `Service.spend` does, in a process of Python."""
    gate = Gate.open(folder / "api.gate", pepper_file=folder / "pepper")
    assert gate.check(key)
    admitted = 1
    begin.wait()
    while gate.check(key):
        admitted += 1
        time.sleep(20e-6)
    results.put(admitted)


def test_three_languages_admit_exactly_the_limit(folder, service, c_program):
    gate = Gate.open(folder / "api.gate", pepper_file=folder / "pepper")
    key = gate.issue(42).expose()
    context = multiprocessing.get_context("fork")
    begin, results = context.Event(), context.SimpleQueue()
    workers = [context.Process(target=worker, args=(folder, key, begin, results)) for _ in range(2)]
    for process in workers:
        process.start()
    of_rust, of_c = [], [c_program.command("check", key) == ADMITTED]
    others = [
        threading.Thread(target=lambda: of_rust.append(service.spend(key, begin))) for _ in range(2)
    ]
    others.append(threading.Thread(target=lambda: of_c.append(c_program.command("spend", key))))
    for thread in others[:2]:
        thread.start()
    # Each program has admitted at least one request by then.
    while gate.peek(key).remaining > LIMIT - 5:
        time.sleep(0.001)
    others[2].start()
    begin.set()
    of_python = [results.get() for _ in workers]
    for waited in (*others, *workers):
        waited.join()
    assert sum(of_python) + sum(of_rust) + sum(of_c) == LIMIT
    assert gate.peek(key).remaining == 0


def test_revocation_reaches_other_languages_at_once(folder, service, c_program):
    gate = Gate.open(folder / "api.gate", pepper_file=folder / "pepper")

    def revoke_by_the_program(key_id):
        command = [PROGRAMS / "keytally", "revoke", folder / "api.gate", key_id]
        environment = {**os.environ, "KEYTALLY_PEPPER_FILE": str(folder / "pepper")}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)

    def revoke_in_c(key_id):
        assert c_program.command("revoke", key_id) == 0

    def answers(key):
        return gate.check(key).http_status, service.check(key), c_program.command("check", key)

    for revoke in (gate.revoke, revoke_by_the_program, revoke_in_c):
        key = gate.issue(42)
        assert answers(key.expose()) == (200, 200, ADMITTED)
        revoke(key.key_id)
        assert answers(key.expose()) == (401, 401, INVALID_KEY)
