"""Requests of a gate in a fleet: while one waits for credits, the server does other work."""

import asyncio
import threading
import time

import frameworks
import pytest

from fleets import CLOSED, CUT, LEADING, OPEN, FleetFile, gate_in_fleet
from keytally import Limiter

# The integrations that check in the thread of a request.
IN_THREAD = [made for made in frameworks.ALL if made not in frameworks.AWAITING]


@pytest.fixture
def patient(tmp_path, pepper):
    """Return a gate whose requests wait until the agent's state changes."""
    gate, file, key = gate_in_fleet(tmp_path, pepper, credit_wait=30)
    frameworks.PEPPER[gate.path] = pepper
    file.set(LEADING, CLOSED)
    return gate, file, {"X-API-Key": key}


@pytest.fixture
def patient_limiter(tmp_path):
    """Return a limiter whose requests wait until the agent's state changes."""
    Limiter.create(tmp_path / "api.limiter", "10/31d", 8).set_fleet(True)
    file = FleetFile(tmp_path / "api.limiter.fleet")
    limiter = Limiter.open(tmp_path / "api.limiter", fleet=file.path, credit_wait=30)
    file.set(LEADING, CLOSED)
    return limiter, file, {}


@pytest.mark.parametrize("kind", ["patient", "patient_limiter"])
@pytest.mark.parametrize("integrate", frameworks.AWAITING)
def test_request_that_waits_lets_other_tasks_run(request, kind, integrate):
    table, file, headers = request.getfixturevalue(kind)
    tasks = []

    async def lead():
        while not file.is_rung:
            await asyncio.sleep(0)
        file.set(CUT, OPEN)

    async def cost(request):
        # The application calls this before the check, in the event loop of the request.
        tasks.append(asyncio.create_task(lead()))
        return 3

    status, _, body = integrate(table, cost=cost)("/200", headers)
    assert (status, body) == (200, b"hello")
    subject = headers.get("X-API-Key", frameworks.ADDRESS)
    assert table.check(subject).remaining == 6
    assert [task.done() for task in tasks] == [True]


@pytest.mark.parametrize("integrate", IN_THREAD)
def test_request_that_waits_lets_other_threads_run(patient, integrate):
    gate, file, headers = patient
    fetch = integrate(gate, cost=3)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(fetch("/200", headers).status))
    thread.start()
    while not file.is_rung:
        time.sleep(0.001)
    file.set(CUT, OPEN)
    thread.join()
    assert answers == [200]
    assert gate.check(headers["X-API-Key"]).remaining == 6


@pytest.mark.parametrize("integrate", frameworks.ALL)
def test_request_without_a_store_gets_503(patient, integrate):
    gate, file, headers = patient
    file.set(CUT, CLOSED)
    answer = integrate(gate)("/200", headers)
    fields = {_text(name).lower(): _text(value) for name, value in answer.headers}
    assert (answer.status, fields["retry-after"]) == (503, "1")


def _text(value):
    return value.decode() if isinstance(value, bytes) else value
