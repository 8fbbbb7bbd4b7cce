"""Requests of a gate in a fleet: while one waits for credits, the server does other work."""

import asyncio
import threading
import time

import frameworks
import pytest

from fleets import CLOSED, CUT, LEADING, OPEN, FleetFile, gate_in_fleet
from keytally import Gate, Limiter, asgi

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


def run_with_task(monkeypatch, fetch, file, headers):
    """Send a request while a task of its event loop sets the agent's state. Return the status."""
    run, tasks = asyncio.run, []

    async def lead():
        while not file.is_rung:
            await asyncio.sleep(0)
        file.set(CUT, OPEN)

    async def both(request):
        tasks.append(asyncio.create_task(lead()))
        await request

    monkeypatch.setattr(asyncio, "run", lambda request: run(both(request)))
    status = fetch("/200", headers).status
    assert [task.done() for task in tasks] == [True]
    return status


@pytest.mark.parametrize("integrate", frameworks.AWAITING)
def test_wrong_key_that_waits_lets_other_tasks_run(
    patient_limiter, integrate, tmp_path, pepper, monkeypatch
):
    limiter, file, _ = patient_limiter
    gate = Gate.create(tmp_path / "other.gate", pepper=pepper, keys=4)
    frameworks.PEPPER[gate.path] = pepper
    fetch = integrate(gate, failures=limiter)
    assert run_with_task(monkeypatch, fetch, file, {"X-API-Key": "nonsense"}) == 401
    assert limiter.check(frameworks.ADDRESS).remaining == 8


@pytest.mark.parametrize("integrate", frameworks.AWAITING)
def test_charge_after_response_lets_other_tasks_run(patient_limiter, integrate, monkeypatch):
    limiter, file, _ = patient_limiter
    fetch = integrate(limiter, charge_on=200, cost=3)
    assert run_with_task(monkeypatch, fetch, file, {}) == 200
    assert limiter.check(frameworks.ADDRESS).remaining == 6


def test_canceled_task_settles_all_charges(patient_limiter, pepper, monkeypatch):
    limiter, file, _ = patient_limiter
    file.set(LEADING, OPEN)
    gate = Gate.in_memory(pepper=pepper, keys=4)
    key = gate.issue(42).expose()
    left = gate.peek(key).remaining
    run = asyncio.run

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    async def cancel(request):
        task = asyncio.create_task(request)
        while not file.is_rung:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    monkeypatch.setattr(asyncio, "run", lambda request: run(cancel(request)))
    app = asgi.GateMiddleware(app, gate, refund=200)
    app = asgi.LimiterMiddleware(app, limiter, charge_on=200, cost=3)
    frameworks.run_asgi(app, "/", {"X-API-Key": key})
    file.set(CUT, OPEN)
    assert limiter.check(frameworks.ADDRESS).remaining == 6
    assert gate.peek(key).remaining == left


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
