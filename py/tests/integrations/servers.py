"""Servers with worker processes, and their clients."""

import bisect
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from tools import free_port

HERE = Path(__file__).parent
WORKERS = 4
# Long enough for a machine under load.
START_S = 180
STOP_S = 5
CONNECTIONS = 100

UVICORN = [
    "uvicorn",
    "--factory",
    "--workers",
    "{workers}",
    "--host",
    "127.0.0.1",
    "--port",
    "{port}",
]
# By default, uvicorn replaces workers that take more than five seconds to start.
UVICORN += ["--timeout-worker-healthcheck", str(START_S)]
GUNICORN = [
    "gunicorn",
    "--workers",
    "{workers}",
    "--bind",
    "127.0.0.1:{port}",
    "--no-control-socket",
]
HYPERCORN = ["hypercorn", "--workers", "{workers}", "--bind", "127.0.0.1:{port}"]
# One process with several threads.
GTHREAD = [*GUNICORN, "--worker-class", "gthread", "--threads", "8"]
WAITRESS = ["waitress", "--listen=127.0.0.1:{port}", "--call"]
UVICORN_WORKERS = [*GUNICORN, "--worker-class", "uvicorn_worker.UvicornWorker"]


@contextlib.contextmanager
def server(command, app, *, gate=None, pepper="", workers=WORKERS, is_ready=None):
    """Start a server for `module:factory`, and yield its address. End its process group.

    `is_ready` returns whether the server at an address responds. By default, two workers must.
    """
    port = free_port()
    # uvicorn and waitress have an option for factories. The other servers take a call.
    target = app if command in (UVICORN, WAITRESS) else f"{app}()"
    words = [word.format(workers=workers, port=port) for word in command]
    environment = {
        **os.environ,
        "PYTHONPATH": str(HERE),
        "KEYTALLY_PEPPER": pepper,
        "KEYTALLY_TEST_GATE": str(gate.path if gate else ""),
    }
    address = f"http://127.0.0.1:{port}"
    # Not a pipe: a full pipe would block the server.
    with tempfile.TemporaryFile("w+") as log:
        started = subprocess.Popen(
            [sys.executable, "-m", *words, target],
            env=environment,
            cwd=HERE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            wait_for(is_ready or (lambda at: workers_respond(at, workers)), address, started, log)
            yield address
        finally:
            started.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                started.wait(STOP_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
            started.wait()


def workers_respond(address, workers):
    answers = flood(address, 20, path="/health", connections=20)
    return len({answer.pid for answer in answers} - {None}) >= min(workers, 2)


def wait_for(is_ready, address, started, log):
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if started.poll() is not None:
            log.seek(0)
            raise AssertionError(f"the server ended:\n{log.read()}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            if is_ready(address):
                return
        time.sleep(0.05)
    raise AssertionError(f"the server did not respond within {START_S} s")


class Answer:
    """The response to one request, and its times. `status` is 0 without a response."""

    def __init__(self, began, response=None):
        self.began = began
        self.status, self.remaining, self.pid = 0, None, None
        if response is not None:
            body = response.read()
            self.status = response.status
            self.remaining = int(response.headers.get("X-RateLimit-Remaining", 0))
            self.pid = json.loads(body).get("pid")
        self.ended = time.monotonic()


def flood(address, count, *, path="/", headers=None, meanwhile=None, connections=CONNECTIONS):
    """Send many requests at once, each by its own connection, so that all workers get some.

    Return the answers. `meanwhile` is called with each answer.
    """
    answers = []
    begin = threading.Barrier(connections)
    numbers = iter(range(count))

    def fetch(connection):
        began = time.monotonic()
        try:
            connection.request("GET", path, headers=headers or {})
            return Answer(began, connection.getresponse())
        except (http.client.HTTPException, OSError):
            return Answer(began)
        finally:
            connection.close()

    def fetch_repeatedly():
        connection = http.client.HTTPConnection(address.partition("//")[2], timeout=60)
        begin.wait()
        for _ in numbers:
            answer = fetch(connection)
            answers.append(answer)
            if meanwhile:
                meanwhile(answer)

    threads = [threading.Thread(target=fetch_repeatedly) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == count
    return answers


def assert_exact(answers, limit):
    """Assert that `limit` answers are admitted, each with its own remaining number, in order."""
    admitted = [answer for answer in answers if answer.status == 200]
    assert {answer.status for answer in answers} <= {200, 429}
    assert len(admitted) == limit
    assert sorted(answer.remaining for answer in admitted) == list(range(limit))
    assert_never_rises(answers)


def assert_never_rises(answers):
    """Assert that a request that began after another had ended has no higher remaining number."""
    answered = sorted(
        (answer for answer in answers if answer.status), key=lambda answer: answer.ended
    )
    ends = [answer.ended for answer in answered]
    least = []
    for answer in answered:
        least.append(min(answer.remaining, least[-1] if least else answer.remaining))
    for answer in answered:
        before = bisect.bisect_left(ends, answer.began)
        assert before == 0 or answer.remaining <= least[before - 1]
