"""FastAPI's dependencies through its own client."""

import functools

import contract
import fastapi_app
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from keytally.fastapi import Refused


@pytest.fixture
def client(gate, limiter):
    return TestClient(fastapi_app.make(gate, limiter))


def ask(client, path, key=None, **more):
    headers = dict(more.pop("headers", {}))
    if key is not None:
        headers["X-API-Key"] = key.expose()
    response = client.get(path, headers=headers, **more)
    return response.status_code, response.headers.multi_items(), response.content


def test_each_outcome_has_its_response(client, gate, key):
    contract.assert_each_outcome(
        lambda text: ask(client, "/", headers=contract.presenting(text)), gate, key, b'"account":42'
    )


def test_the_bodies_need_no_middleware(gate, limiter, key):
    client = TestClient(fastapi_app.make(gate, limiter, middleware=False))
    contract.assert_missing(*ask(client, "/"))
    contract.assert_admitted(*ask(client, "/", key)[:2], remaining=1)
    contract.assert_admitted(*ask(client, "/", key)[:2], remaining=0)
    contract.assert_exceeded(*ask(client, "/", key))


def test_a_dependency_that_is_named_twice_charges_once(client, key):
    status, headers, body = ask(client, "/once", key)
    contract.assert_admitted(status, headers, remaining=1)
    assert body == b'{"remaining":1}'


def test_a_routes_own_response_has_the_header_fields(client, key):
    status, headers, body = ask(client, "/own", key)
    contract.assert_admitted(status, headers, remaining=1)
    assert body == b"mine"


def test_an_error_has_the_header_fields(client, key):
    status, headers, body = ask(client, "/gone", key)
    assert (status, body) == (404, b'{"detail":"gone"}')
    assert contract.fields(headers)["x-ratelimit-remaining"] == "1"


def test_a_limiter_counts_what_key_returns(client):
    for remaining in (1, 0):
        contract.assert_admitted(*ask(client, "/limited")[:2], remaining=remaining)
    contract.assert_exceeded(*ask(client, "/limited"))


def test_a_limiter_counts_addresses(gate, limiter):
    app = fastapi_app.make(gate, limiter)
    first, second = (TestClient(app, client=(address, 40000)) for address in ("203.0.113.9", "203.0.113.10"))
    for remaining in (1, 0):
        contract.assert_admitted(*ask(first, "/by-address")[:2], remaining=remaining)
    contract.assert_exceeded(*ask(first, "/by-address"))
    contract.assert_admitted(*ask(second, "/by-address")[:2], remaining=1)


def guessing(app):
    def guess(text, address="203.0.113.9", forwarded_for=None):
        client = TestClient(app, client=(address, 40000))
        return ask(client, "/", headers=contract.presenting(text, forwarded_for))

    return guess


@pytest.mark.parametrize("middleware", [True, False])
def test_guesses_beyond_the_limit_are_refused(gate, limiter, middleware):
    make = functools.partial(fastapi_app.make, gate, limiter, middleware=middleware)
    contract.assert_guesses_are_limited(guessing(make(failures="2/31d")), gate)
    app = make(failures="2/30d", trusted_proxies=contract.PROXIES)
    contract.assert_trusted_proxies_are_believed(guessing(app))


def test_a_handler_of_refusals_knows_a_guess_too_many(gate, limiter):
    app = fastapi_app.make(gate, limiter, failures="1/31d")

    @app.exception_handler(Refused)
    async def answer(request, refused):
        text = f"{refused.verdict.outcome} {refused.detail}"
        return fastapi_app.PlainTextResponse(text, refused.status_code, refused.headers)

    guess = guessing(app)
    assert guess("nonsense")[0::2] == (401, b"invalid_key Invalid API key")
    status, headers, body = guess("nonsense")
    assert (status, body) == (429, b"invalid_key Rate limit exceeded. Please try again later.")
    assert int(contract.fields(headers)["retry-after"]) >= 1


def test_shadow_mode_refuses_nobody_and_tells(gate, limiter):
    told = []
    tell = lambda verdict, request: told.append((verdict.outcome, request.url.path))  # noqa: E731
    client = TestClient(fastapi_app.make(gate, limiter, shadow=True, on_verdict=tell))
    status, headers, _ = ask(client, "/")
    assert (status, contract.fields(headers)["x-keytally-shadow"]) == (200, "missing_key")
    assert told == [("missing_key", "/")]


def test_a_cost_may_depend_on_the_request(gate, limiter, key):
    client = TestClient(fastapi_app.make(gate, limiter, cost=lambda request: int(request.headers["cost"])))
    contract.assert_admitted(*ask(client, "/", key, headers={"cost": "2"})[:2], remaining=0)


def test_the_key_shows_in_openapi(client):
    described = client.get("/openapi.json").json()
    schemes = described["components"]["securitySchemes"]
    assert schemes == {"APIKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"}}
    assert described["paths"]["/"]["get"]["security"] == [{"APIKey": []}]
    assert described["paths"]["/once"]["get"]["security"] == [{"APIKey": []}]
    assert "security" not in described["paths"]["/limited"]["get"]


def test_refusals_carry_cors_headers(client, gate, key):
    origin = {"Origin": fastapi_app.ORIGIN}
    preflight = client.options(
        "/",
        headers={
            **origin,
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "X-API-Key",
        },
    )
    assert preflight.status_code == 200
    for presented, expected in [(None, 401), (key, 200), (key, 200), (key, 429)]:
        status, headers, _ = ask(client, "/", presented, headers=origin)
        assert status == expected
        assert contract.fields(headers)["access-control-allow-origin"] == fastapi_app.ORIGIN


def test_a_websocket_needs_a_key(client, key):
    with client.websocket_connect("/talk", headers={"X-API-Key": key.expose()}) as socket:
        assert socket.receive_json() == {"account": 42}
    with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("/talk"):
        pass
    assert (refused.value.status_code, refused.value.content) == (401, contract.MISSING)


def test_an_application_may_answer_refusals_itself(gate, limiter):
    app: FastAPI = fastapi_app.make(gate, limiter)

    @app.exception_handler(Refused)
    async def answer(request, refused):
        return fastapi_app.PlainTextResponse(refused.verdict.outcome, 418)

    assert ask(TestClient(app), "/")[0::2] == (418, b"missing_key")
