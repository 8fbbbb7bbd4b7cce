"""The features of a Starlette application behind a server that middleware must not affect."""

import time

import contract
import httpx2 as httpx
import pytest
import servers
import starlette_app
from starlette.testclient import TestClient
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from keytally import Gate, generate_pepper


@pytest.fixture(
    scope="module", params=[servers.UVICORN, servers.HYPERCORN], ids=["uvicorn", "hypercorn"]
)
def served(request, tmp_path_factory):
    pepper = generate_pepper()
    path = tmp_path_factory.mktemp("live") / "api.gate"
    gate = Gate.create(path, pepper=pepper, keys=64, plans={"default": "2/31d"})
    app = "starlette_app:served"
    with servers.server(request.param, app, gate=gate, pepper=pepper, workers=1) as address:
        yield address, gate


@pytest.fixture
def address(served):
    return served[0]


@pytest.fixture
def gate(served):
    return served[1]


def key_of(key):
    return {"X-API-Key": key.expose()}


def seen(response):
    """Return status, header fields and body of a response."""
    return response.status_code, response.headers.multi_items(), response.read()


def test_each_outcome_has_its_response(address, key):
    contract.assert_missing(*seen(httpx.get(address)))
    contract.assert_invalid(*seen(httpx.get(address, headers={"X-API-Key": "nonsense"})))
    twice = [("X-API-Key", key.expose())] * 2
    contract.assert_invalid(*seen(httpx.get(address, headers=twice)))
    for remaining in (1, 0):
        contract.assert_admitted(
            *seen(httpx.get(address, headers=key_of(key)))[:2], remaining=remaining
        )
    contract.assert_exceeded(*seen(httpx.get(address, headers=key_of(key))))
    status, headers, body = seen(httpx.head(address))
    assert (status, body) == (401, b"")
    assert contract.fields(headers)["content-length"] == str(len(contract.MISSING))


def test_error_of_the_application_responds_500(address, key):
    assert httpx.get(f"{address}/fail", headers=key_of(key)).status_code == 500


def test_streamed_body_arrives_in_parts(address, key):
    came = []
    with httpx.stream("GET", f"{address}/stream", headers=key_of(key)) as response:
        contract.assert_admitted(response.status_code, response.headers.multi_items(), remaining=1)
        came.extend((part, time.monotonic()) for part in response.iter_text() if part)
    assert [part for part, _ in came] == ["part 0\n", "part 1\n", "part 2\n"]
    # The application waits between the parts. Buffered parts would arrive together.
    assert came[0][1] < came[1][1] < came[2][1]


def test_server_sent_events_arrive(address, key):
    response = httpx.get(f"{address}/events", headers=key_of(key))
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text == "".join(f"id: {number}\ndata: 1\n\n" for number in range(3))


def test_request_body_reaches_the_application(address, key):
    sent = bytes(range(256)) * 4096
    assert httpx.post(f"{address}/echo", headers=key_of(key), content=sent).content == sent
    refused = httpx.post(f"{address}/echo", content=sent)
    assert (refused.status_code, refused.content) == (401, contract.MISSING)


def test_admitted_websocket_exchanges_messages(address, key):
    url = address.replace("http", "ws") + "/talk"
    with connect(url, additional_headers=key_of(key)) as socket:
        assert socket.recv() == '{"account":42}'
        for text in ("one", "two"):
            socket.send(text)
            assert socket.recv() == text.upper()


def test_refused_websocket_gets_the_body(address):
    with pytest.raises(InvalidStatus) as refused:
        connect(address.replace("http", "ws") + "/talk")
    response = refused.value.response
    assert (response.status_code, response.body) == (401, contract.MISSING)


def test_refusals_have_cors_fields(address, key):
    origin = {"Origin": starlette_app.ORIGIN}
    preflight = {
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "X-API-Key",
    }
    assert httpx.options(address, headers={**origin, **preflight}).status_code == 200
    for presented, expected in [
        ({}, 401),
        (key_of(key), 200),
        (key_of(key), 200),
        (key_of(key), 429),
    ]:
        response = httpx.get(address, headers={**origin, **presented})
        assert response.status_code == expected
        assert response.headers["access-control-allow-origin"] == starlette_app.ORIGIN
        assert "X-RateLimit-Remaining" in response.headers["access-control-expose-headers"]


def test_background_task_runs(address, key):
    before = int(httpx.get(f"{address}/done").text)
    assert httpx.get(f"{address}/background", headers=key_of(key)).text == "later"
    deadline = time.monotonic() + 10
    while int(httpx.get(f"{address}/done").text) == before:
        assert time.monotonic() < deadline


def test_starlette_test_client_gets_same_responses(gate, key):
    done = []
    client = TestClient(starlette_app.make(gate, done))
    contract.assert_missing(*seen(client.get("/")))
    contract.assert_admitted(*seen(client.get("/background", headers=key_of(key)))[:2], remaining=1)
    assert done == [42]
    with client.websocket_connect("/talk", headers=key_of(key)) as socket:
        assert socket.receive_json() == {"account": 42}
    contract.assert_exceeded(*seen(client.get("/", headers=key_of(key))))
