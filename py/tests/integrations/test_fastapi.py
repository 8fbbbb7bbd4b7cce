"""FastAPI's dependencies, by its test client."""

import functools

import contract
import fastapi_app
import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from keytally.fastapi import REFUSALS, Refused, document_refusals, limit, require_key


@pytest.fixture
def client(gate, limiter):
    return TestClient(fastapi_app.make(gate, limiter))


def fetch(client, path, key=None, **more):
    headers = dict(more.pop("headers", {}))
    if key is not None:
        headers["X-API-Key"] = key.expose()
    response = client.get(path, headers=headers, **more)
    return response.status_code, response.headers.multi_items(), response.content


def test_each_outcome_has_its_response(client, gate, key):
    contract.assert_each_outcome(
        lambda text: fetch(client, "/", headers=contract.presenting(text)),
        gate,
        key,
        b'"account":42',
    )


def test_refusals_have_bodies_without_middleware(gate, limiter, key):
    client = TestClient(fastapi_app.make(gate, limiter, middleware=False))
    contract.assert_missing(*fetch(client, "/"))
    contract.assert_admitted(*fetch(client, "/", key)[:2], remaining=1)
    contract.assert_admitted(*fetch(client, "/", key)[:2], remaining=0)
    contract.assert_exceeded(*fetch(client, "/", key))


def test_repeated_dependency_charges_once(client, key):
    status, headers, body = fetch(client, "/once", key)
    contract.assert_admitted(status, headers, remaining=1)
    assert body == b'{"remaining":1}'


def test_response_of_a_route_has_header_fields(client, key):
    status, headers, body = fetch(client, "/own", key)
    contract.assert_admitted(status, headers, remaining=1)
    assert body == b"mine"


def test_error_response_has_header_fields(client, key):
    status, headers, body = fetch(client, "/gone", key)
    assert (status, body) == (404, b'{"detail":"gone"}')
    assert contract.fields(headers)["x-ratelimit-remaining"] == "1"


def test_limiter_counts_results_of_key(client):
    for remaining in (1, 0):
        contract.assert_admitted(*fetch(client, "/limited")[:2], remaining=remaining)
    contract.assert_exceeded(*fetch(client, "/limited"))


def test_limiter_counts_client_addresses(gate, limiter):
    app = fastapi_app.make(gate, limiter)
    first, second = (
        TestClient(app, client=(address, 40000)) for address in ("203.0.113.9", "203.0.113.10")
    )
    for remaining in (1, 0):
        contract.assert_admitted(*fetch(first, "/by-address")[:2], remaining=remaining)
    contract.assert_exceeded(*fetch(first, "/by-address"))
    contract.assert_admitted(*fetch(second, "/by-address")[:2], remaining=1)


def sending_wrong_keys(app):
    def send_wrong_key(text, address="203.0.113.9", forwarded_for=None):
        client = TestClient(app, client=(address, 40000))
        return fetch(client, "/", headers=contract.presenting(text, forwarded_for))

    return send_wrong_key


@pytest.mark.parametrize("middleware", [True, False])
def test_wrong_keys_beyond_the_limit_are_refused(gate, limiter, middleware):
    make = functools.partial(fastapi_app.make, gate, limiter, middleware=middleware)
    contract.assert_wrong_keys_are_limited(sending_wrong_keys(make(failures="2/31d")), gate)
    app = make(failures="2/30d", trusted_proxies=contract.PROXIES)
    contract.assert_trusted_proxies_are_read(sending_wrong_keys(app))


def test_exception_handler_gets_wrong_key_limit(gate, limiter):
    app = fastapi_app.make(gate, limiter, failures="1/31d")

    @app.exception_handler(Refused)
    async def answer(request, refused):
        text = f"{refused.verdict.outcome} {refused.detail}"
        return fastapi_app.PlainTextResponse(text, refused.status_code, refused.headers)

    send_wrong_key = sending_wrong_keys(app)
    assert send_wrong_key("nonsense")[0::2] == (401, b"invalid_key Invalid API key")
    status, headers, body = send_wrong_key("nonsense")
    assert (status, body) == (429, b"invalid_key Rate limit exceeded. Please try again later.")
    assert int(contract.fields(headers)["retry-after"]) >= 1


def test_shadow_mode_admits_and_reports(gate, limiter):
    notified = []
    notify = lambda verdict, request: notified.append((verdict.outcome, request.url.path))  # noqa: E731
    client = TestClient(fastapi_app.make(gate, limiter, shadow=True, on_verdict=notify))
    status, headers, _ = fetch(client, "/")
    assert (status, contract.fields(headers)["x-keytally-shadow"]) == (200, "missing_key")
    assert notified == [("missing_key", "/")]


def test_cost_function_gets_the_request(gate, limiter, key):
    client = TestClient(
        fastapi_app.make(gate, limiter, cost=lambda request: int(request.headers["cost"]))
    )
    contract.assert_admitted(*fetch(client, "/", key, headers={"cost": "2"})[:2], remaining=0)


def test_openapi_has_the_key(client):
    described = client.get("/openapi.json").json()
    schemes = described["components"]["securitySchemes"]
    assert schemes == {"APIKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"}}
    assert described["paths"]["/"]["get"]["security"] == [{"APIKey": []}]
    assert described["paths"]["/once"]["get"]["security"] == [{"APIKey": []}]
    assert "security" not in described["paths"]["/limited"]["get"]


def test_refusals_have_cors_fields(client, gate, key):
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
        status, headers, _ = fetch(client, "/", presented, headers=origin)
        assert status == expected
        assert contract.fields(headers)["access-control-allow-origin"] == fastapi_app.ORIGIN


def test_websocket_needs_a_key(client, key):
    with client.websocket_connect("/talk", headers={"X-API-Key": key.expose()}) as socket:
        assert socket.receive_json() == {"account": 42}
    with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("/talk"):
        pass
    assert (refused.value.status_code, refused.value.content) == (401, contract.MISSING)


def test_exception_handler_replaces_refusal(gate, limiter):
    app: FastAPI = fastapi_app.make(gate, limiter)

    @app.exception_handler(Refused)
    async def answer(request, refused):
        return fastapi_app.PlainTextResponse(refused.verdict.outcome, 418)

    assert fetch(TestClient(app), "/")[0::2] == (418, b"missing_key")


def documented(gate, limiter, **options):
    app = FastAPI()
    document_refusals(app)
    router = APIRouter(prefix="/of", dependencies=[Depends(require_key(gate, **options))])
    router.get("/key", responses={429: {"description": "own"}})(lambda: "")
    app.include_router(router)
    app.get("/limited", dependencies=[Depends(limit(limiter))])(lambda: "")
    app.get("/open")(lambda: "")
    return app.openapi()


def test_refusals_are_in_the_openapi_document(gate, limiter):
    paths = documented(gate, limiter)["paths"]
    statuses = {path: sorted(found["get"]["responses"]) for path, found in paths.items()}
    assert statuses == {
        "/of/key": ["200", "401", "429", "503"],
        "/limited": ["200", "429", "503"],
        "/open": ["200"],
    }
    assert paths["/of/key"]["get"]["responses"]["429"] == {"description": "own"}
    refused = paths["/of/key"]["get"]["responses"]["401"]
    assert list(refused["headers"]) == ["WWW-Authenticate"]
    assert refused["content"]["application/json"]["example"] == {"error": "Invalid API key"}
    fields = REFUSALS[429]["headers"]
    assert {"Retry-After", "X-RateLimit-Remaining", "RateLimit"} <= set(fields)


def test_security_schemes_are_those_of_key_from(gate, limiter):
    names = ["X-API-Key", "Authorization: Bearer", "X-Token"]
    document = documented(gate, limiter, key_from=names)
    assert document["components"]["securitySchemes"] == {
        "APIKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "Bearer": {"type": "http", "scheme": "bearer"},
        "X-Token": {"type": "apiKey", "in": "header", "name": "X-Token"},
    }
    # Each scheme alone is enough.
    security = document["paths"]["/of/key"]["get"]["security"]
    assert sorted(map(list, security)) == [["APIKey"], ["Bearer"], ["X-Token"]]
    assert documented(gate, limiter)["paths"]["/of/key"]["get"]["security"] == [{"APIKey": []}]
