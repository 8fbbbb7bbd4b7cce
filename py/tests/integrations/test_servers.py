"""Servers with four workers admit exactly the limit, also if a worker is killed."""

import os
import signal

import pytest
import servers
from servers import GUNICORN, HYPERCORN, UVICORN, UVICORN_WORKERS

LIMIT = 100
REQUESTS = 1000


@pytest.fixture
def policy():
    return f"{LIMIT}/31d"


SERVERS = {
    "uvicorn": (UVICORN, "starlette_app:served"),
    "gunicorn": (GUNICORN, "wsgi_app:served"),
    "gunicorn, preload": ([*GUNICORN, "--preload"], "wsgi_app:served"),
    "gunicorn, a limiter": (GUNICORN, "wsgi_app:limited"),
    "gunicorn of uvicorn": (UVICORN_WORKERS, "starlette_app:served"),
    "gunicorn of uvicorn, preload": ([*UVICORN_WORKERS, "--preload"], "starlette_app:served"),
    "hypercorn": (HYPERCORN, "starlette_app:served"),
    "FastAPI": (UVICORN, "fastapi_app:served"),
    "FastAPI, preload": ([*UVICORN_WORKERS, "--preload"], "fastapi_app:served"),
    "Flask": (GUNICORN, "flask_app:served"),
    "Flask, preload": ([*GUNICORN, "--preload"], "flask_app:served"),
    "Django": (GUNICORN, "django_app:served"),
    "Django, asynchronous": (UVICORN, "django_app:served_async"),
    "Django REST framework": ([*GUNICORN, "--preload"], "django_app:served_rest"),
}


@pytest.mark.parametrize("name", SERVERS)
def test_workers_admit_exactly_the_limit(name, gate, pepper, key):
    command, app = SERVERS[name]
    with servers.server(command, app, gate=gate, pepper=pepper) as address:
        answers = servers.flood(address, REQUESTS, headers={"X-API-Key": key.expose()})
    servers.assert_exact(answers, LIMIT)
    assert len({answer.pid for answer in answers} - {None}) > 1, "one worker did it all"


def test_preloaded_workers_share_a_limiter_in_memory():
    with servers.server([*GUNICORN, "--preload"], "wsgi_app:in_memory") as address:
        answers = servers.flood(address, REQUESTS)
    servers.assert_exact(answers, LIMIT)
    assert len({answer.pid for answer in answers} - {None}) > 1, "one worker did it all"


@pytest.mark.parametrize(
    ("command", "app"),
    [
        (GUNICORN, "flask_app"),
        ([*GUNICORN, "--preload"], "flask_app"),
        (UVICORN_WORKERS, "fastapi_app"),
    ],
    ids=["Flask-Limiter", "Flask-Limiter, preload", "slowapi"],
)
def test_workers_with_a_limits_storage_admit_the_limit(command, app, tmp_path, monkeypatch):
    monkeypatch.setenv("KEYTALLY_TEST_STORAGE", f"keytally://{tmp_path}/app.limiter")
    monkeypatch.setenv("KEYTALLY_TEST_LIMIT", f"{LIMIT} per 31 day")
    with servers.server(command, f"limits_app:{app}") as address:
        answers = servers.flood(address, REQUESTS)
    statuses = [answer.status for answer in answers]
    assert (statuses.count(200), statuses.count(429)) == (LIMIT, REQUESTS - LIMIT)
    assert len({answer.pid for answer in answers}) > 1, "one worker did it all"


@pytest.mark.parametrize(
    "name", ["uvicorn", "gunicorn", "gunicorn of uvicorn, preload", "hypercorn"]
)
def test_killed_worker_loses_no_count(name, gate, pepper, key):
    command, app = SERVERS[name]
    killed = []

    def kill(answer):
        if answer.remaining == LIMIT // 2 and answer.pid:
            killed.append(answer.pid)
            os.kill(answer.pid, signal.SIGKILL)

    headers = {"X-API-Key": key.expose()}
    with servers.server(command, app, gate=gate, pepper=pepper) as address:
        answers = servers.flood(address, REQUESTS, headers=headers, meanwhile=kill)
        answers += servers.flood(address, LIMIT, headers=headers)
    assert len(killed) == 1
    lost = sum(answer.status == 0 for answer in answers)
    admitted = [answer.remaining for answer in answers if answer.status == 200]
    assert len(set(admitted)) == len(admitted)
    # Requests that got no response may have been charged.
    charged = LIMIT - gate.peek(key.expose()).remaining
    assert len(admitted) <= charged <= len(admitted) + lost
    # If a worker of hypercorn is killed, hypercorn ends the other workers.
    assert charged == LIMIT or name == "hypercorn"
    servers.assert_never_rises(answers)
    assert gate.verify().flaws == ()
