"""Real servers with real workers, and what asks them."""

import bisect
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).parent
WORKERS = 4
# On a machine that has much else to do, too.
START_S = 180
STOP_S = 5
CONNECTIONS = 100

UVICORN = ["uvicorn", "--factory", "--workers", "{workers}", "--host", "127.0.0.1", "--port", "{port}"]
# Else it ends workers that take more than five seconds to begin, and begins anew with others.
UVICORN += ["--timeout-worker-healthcheck", str(START_S)]
GUNICORN = ["gunicorn", "--workers", "{workers}", "--bind", "127.0.0.1:{port}", "--no-control-socket"]
HYPERCORN = ["hypercorn", "--workers", "{workers}", "--bind", "127.0.0.1:{port}"]
UVICORN_WORKERS = [*GUNICORN, "--worker-class", "uvicorn_worker.UvicornWorker"]


@contextlib.contextmanager
def server(command, app, *, gate=None, pepper="", workers=WORKERS):
    """Start a server for `module:factory` and yield its address; its whole group is gone afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # uvicorn has an option for what the others tell by a call.
    target = app if command is UVICORN else f"{app}()"
    words = [word.format(workers=workers, port=port) for word in command]
    environment = {
        **os.environ,
        "PYTHONPATH": str(HERE),
        "KEYTALLY_PEPPER": pepper,
        "KEYTALLY_TEST_GATE": str(gate.path if gate else ""),
    }
    address = f"http://127.0.0.1:{port}"
    # Not a pipe: a server whose log nobody reads would stop.
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
            wait_for(address, workers, started, log)
            yield address
        finally:
            started.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                started.wait(STOP_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
            started.wait()


def wait_for(address, workers, started, log):
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if started.poll() is not None:
            log.seek(0)
            raise AssertionError(f"the server ended:\n{log.read()}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            answers = flood(address, 20, path="/health", connections=20)
            if len({answer.pid for answer in answers} - {None}) >= min(workers, 2):
                return
        time.sleep(0.05)
    raise AssertionError(f"the workers didn't answer within {START_S} s")


class Answer:
    """What one request got, and when; `status` 0 is none."""

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
    """Send many requests at once, each over its own connection so that every worker has a chance at it.

    Returns the answers; `meanwhile` gets each as it comes.
    """
    answers = []
    begin = threading.Barrier(connections)
    numbers = iter(range(count))

    def ask(connection):
        began = time.monotonic()
        try:
            connection.request("GET", path, headers=headers or {})
            return Answer(began, connection.getresponse())
        except (http.client.HTTPException, OSError):
            return Answer(began)
        finally:
            connection.close()

    def ask_repeatedly():
        connection = http.client.HTTPConnection(address.partition("//")[2], timeout=60)
        begin.wait()
        for _ in numbers:
            answer = ask(connection)
            answers.append(answer)
            if meanwhile:
                meanwhile(answer)

    threads = [threading.Thread(target=ask_repeatedly) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == count
    return answers


def assert_exact(answers, limit):
    """What many answers of one window must be: so many admitted, each with its own number left, in order."""
    admitted = [answer for answer in answers if answer.status == 200]
    assert {answer.status for answer in answers} <= {200, 429}
    assert len(admitted) == limit
    assert sorted(answer.remaining for answer in admitted) == list(range(limit))
    assert_never_rises(answers)


def assert_never_rises(answers):
    """Who began after another had ended doesn't see more left."""
    answered = sorted((answer for answer in answers if answer.status), key=lambda answer: answer.ended)
    ends = [answer.ended for answer in answered]
    least = []
    for answer in answered:
        least.append(min(answer.remaining, least[-1] if least else answer.remaining))
    for answer in answered:
        before = bisect.bisect_left(ends, answer.began)
        assert before == 0 or answer.remaining <= least[before - 1]
