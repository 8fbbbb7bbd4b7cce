"""Charges by outcome with real servers: each charge is refunded or settled exactly once."""

import contextlib
import http.client
import json
import time
from pathlib import Path

import pytest
import servers
from servers import GTHREAD, HYPERCORN, UVICORN, WAITRESS

LIMIT = 1000
# Long enough for a machine under load.
WAIT_S = 60

SERVERS = {
    "uvicorn": (UVICORN, "in_asgi"),
    "uvicorn, FastAPI": (UVICORN, "in_fastapi"),
    "uvicorn, Django": (UVICORN, "in_django_async"),
    "hypercorn": (HYPERCORN, "in_asgi"),
    "gunicorn": (GTHREAD, "in_wsgi"),
    "gunicorn, Flask": (GTHREAD, "in_flask"),
    "gunicorn, Flask that propagates": (GTHREAD, "in_flask_that_propagates"),
    "gunicorn, Django": (GTHREAD, "in_django"),
    "gunicorn, Django REST framework": (GTHREAD, "in_rest_framework"),
    "waitress": (WAITRESS, "in_wsgi"),
    "waitress, Flask": (WAITRESS, "in_flask"),
}


@pytest.fixture
def policy():
    return f"{LIMIT}/31d"


def connect(address):
    return http.client.HTTPConnection(address.partition("//")[2], timeout=WAIT_S)


def fetch(address, path, headers):
    """Return the status of a response; `None` if it has no end."""
    with contextlib.closing(connect(address)) as connection:
        connection.request("GET", path, headers=headers)
        try:
            response = connection.getresponse()
            response.read()
        except (http.client.HTTPException, ConnectionError):
            return None
        return response.status


def responds(address):
    return fetch(address, "/200", {}) == 401


@pytest.fixture(params=SERVERS)
def address(request, gate, pepper):
    command, factory = SERVERS[request.param]
    app = f"outcomes_app:{factory}"
    with servers.server(
        command, app, gate=gate, pepper=pepper, workers=1, is_ready=responds
    ) as found:
        yield found


@pytest.fixture
def settled(gate):
    """Return a function that returns the settlements so far."""
    path = Path(f"{gate.path}.settled")
    return lambda: [json.loads(line) for line in path.read_text().splitlines()]


def wait_until(holds):
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, "the charge was not changed"
        time.sleep(0.02)


def test_each_charge_is_refunded_or_settled_once(address, gate, headers, spent, settled):
    ports = set()
    with contextlib.closing(connect(address)) as connection:
        for path in ("/200", "/503", "/stream", "/404", "/200"):
            connection.request("GET", path, headers=headers)
            ports.add(connection.sock.getsockname())
            connection.getresponse().read()
    # waitress closes the connection once.
    assert len(ports) <= 2, "the connection was not kept alive"
    # A stream is settled when the server took its end, which the client may see earlier.
    wait_until(lambda: spent() == 4)
    assert settled() == [[status, True, False, 3] for status in (200, 200, 404, 200)]

    # An exception before the response, and one in the middle of a stream.
    assert fetch(address, "/raise", headers) in (500, None)
    wait_until(lambda: spent() == 4)
    assert fetch(address, "/broken", headers) is None
    wait_until(lambda: spent() == 4)

    # A client that leaves a stream is charged.
    connection = connect(address)
    connection.request("GET", "/endless", headers=headers)
    assert connection.getresponse().read(3) == b"one"
    assert spent() == 7
    connection.close()
    wait_until(lambda: len(settled()) == 5)
    wait_until(lambda: spent() == 5)
    assert settled()[-1] == [200, False, False, 3]

    # Nothing follows: the next request is the only one that changes the count.
    assert fetch(address, "/200", headers) == 200
    wait_until(lambda: spent() == 6)
    assert len(settled()) == 6
