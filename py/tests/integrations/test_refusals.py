"""Refusals by a function of the application, in every framework."""

import asyncio
import json

import contract
import frameworks
import pytest
from django.core.exceptions import ImproperlyConfigured
from fastapi import Depends, FastAPI, Response
from fastapi.testclient import TestClient

from keytally import Refusal, asgi, fastapi, flask, wsgi
from keytally.rest_framework import KeyAuthentication, LimiterThrottle

PROBLEM = "application/problem+json, */*"


def own(refused, request):
    body = {"code": refused.outcome, "retry": refused.retry_after_s}
    return refused.replace(status=402, body=body)


@pytest.mark.parametrize("make", frameworks.ALL)
def test_function_replaces_status_body_and_type(make, gate, headers):
    fetch = make(gate, refusal=own)
    for _ in range(2):
        assert fetch("/200", headers).status == 200
    status, found, body = fetch("/200", headers)
    found = contract.fields(found)
    assert (status, json.loads(body)["code"]) == (402, "denied")
    assert found["content-type"] == "application/json"
    assert found["content-length"] == str(len(body))
    assert found["retry-after"] == str(json.loads(body)["retry"])
    assert [name for name in contract.QUOTA if name not in found] == []
    for sent, outcome in [({}, "missing_key"), ({"X-API-Key": "nonsense"}, "invalid_key")]:
        status, found, body = fetch("/200", sent)
        found = contract.fields(found)
        assert (status, json.loads(body)) == (402, {"code": outcome, "retry": None})
        assert "www-authenticate" in found
        assert [name for name in contract.QUOTA if name in found] == []
    assert gate.peek(headers["X-API-Key"], 0).remaining == 0


@pytest.mark.parametrize("make", frameworks.ALL)
def test_function_replaces_the_refusal_of_a_limiter(make, limiter):
    fetch = make(
        limiter, refusal=lambda refused, _: refused.replace(body=b"<p>", content_type="text/html")
    )
    assert [fetch("/200").status for _ in range(2)] == [200, 200]
    status, found, body = fetch("/200", {"Accept": PROBLEM})
    found = contract.fields(found)
    assert (status, body, found["content-type"]) == (429, b"<p>", "text/html")
    assert int(found["retry-after"]) >= 1
    assert found["x-ratelimit-remaining"] == "0"


@pytest.mark.parametrize("make", frameworks.ALL)
def test_function_that_returns_its_argument_changes_nothing(make, gate, headers):
    fetch = make(gate, refusal=lambda refused, _: refused)
    contract.assert_missing(*fetch("/200"))
    _, found, body = fetch("/200", {"Accept": PROBLEM})
    assert contract.fields(found)["content-type"] == "application/problem+json"
    assert json.loads(body)["title"] == "Missing X-API-Key header"
    assert [fetch("/200", headers).status for _ in range(2)] == [200, 200]
    contract.assert_exceeded(*fetch("/200", headers))


@pytest.mark.parametrize("make", frameworks.ALL)
def test_function_gets_the_request_of_its_framework(make, gate):
    seen = []

    def refusal(refused, request):
        seen.append(type(request).__name__)
        return refused

    make(gate, refusal=refusal)("/200")
    kinds = {
        frameworks.in_asgi: "dict",
        frameworks.in_wsgi: "dict",
        frameworks.in_django: "WSGIRequest",
        frameworks.in_django_async: "ASGIRequest",
    }
    assert seen == [kinds.get(make, "Request")]


@pytest.mark.parametrize("make", frameworks.WHOLE)
def test_head_request_gets_the_length_of_the_body(make, gate):
    for options, length in [
        ({}, len(contract.MISSING)),
        ({"refusal": lambda refused, _: refused.replace(body="hello")}, 5),
    ]:
        status, found, body = make(gate, **options)("/200", method="HEAD")
        found = contract.fields(found)
        assert (status, body, found["content-length"]) == (401, b"", str(length))
        assert "content-type" in found


@pytest.mark.parametrize("make", frameworks.ALL)
def test_function_sees_the_limit_of_wrong_keys_and_costs(make, gate, headers):
    seen = []

    def refusal(refused, request):
        seen.append((refused.outcome, refused.status, refused.verdict.admitted))
        return refused

    # Integrations of one process share the count of a policy.
    policy = f"1/{20 + frameworks.ALL.index(make)}d"
    fetch = make(gate, refusal=refusal, failures=policy)
    for text in ("nonsense", "nonsense"):
        fetch("/200", {"X-API-Key": text})
    assert seen == [("invalid_key", 401, False), ("denied", 429, False)]
    if make is not frameworks.in_rest_framework:
        status, _, _ = make(gate, refusal=refusal, cost=lambda _: -1)("/200", headers)
        assert (status, seen[-1]) == (400, ("cost_out_of_range", 400, True))


def status_of(fetch, headers):
    """Return the status of a response: 500 if the server got the exception of the middleware."""
    try:
        return fetch("/200", headers).status
    except (TypeError, ValueError) as error:
        if not str(error).startswith(("refusal must", "status is", "body must", "content_type is")):
            raise
        return 500


def failing(refused, request):
    raise LookupError("of the application")


WRONG = {
    "raises": failing,
    "returns nothing": lambda refused, request: None,
    "returns a tuple": lambda refused, request: (402, b"body"),
    "wrong status": lambda refused, request: refused.replace(status=204),
    "wrong body": lambda refused, request: refused.replace(body=1),
    "wrong type": lambda refused, request: refused.replace(content_type="a\r\nb: c"),
}


@pytest.mark.parametrize("make", frameworks.ALL)
@pytest.mark.parametrize("wrong", WRONG)
def test_failing_function_is_an_error_that_charges_nothing(make, gate, headers, wrong):
    calls = []

    def refusal(refused, request):
        calls.append(refused.outcome)
        return WRONG[wrong](refused, request)

    fetch = make(gate, cost=2, refusal=refusal)
    assert fetch("/200", headers).status == 200
    before = gate.peek(headers["X-API-Key"], 0).remaining
    for sent in (headers, {}):
        assert status_of(fetch, sent) == 500
    assert calls == ["denied", "missing_key"]
    assert gate.peek(headers["X-API-Key"], 0).remaining == before == 0


@pytest.mark.parametrize("make", frameworks.AWAITING)
def test_async_function_is_awaited(make, gate):
    async def refusal(refused, request):
        await asyncio.sleep(0)
        return refused.replace(status=402, body="pay")

    status, _, body = make(gate, refusal=refusal)("/200")
    assert (status, body) == (402, b"pay")


@pytest.mark.parametrize("refund", [(), "5xx"])
def test_charge_before_a_failing_function_is_refunded_once(gate, limiter, headers, refund):
    """The limiter refuses within the gate, and its function raises."""
    gate.check(headers["X-API-Key"])
    inner = asgi.LimiterMiddleware(None, limiter, key=lambda _: "all", cost=3, refusal=failing)
    app = asgi.GateMiddleware(inner, gate, refund=refund)
    for _ in range(3):
        frameworks.run_asgi(app, "/", headers)
    assert gate.peek(headers["X-API-Key"], 0).remaining == 1
    assert limiter.peek("all", 0).remaining == 2


def test_each_integration_has_its_own_function(gate, limiter, headers):
    gate_app = asgi.GateMiddleware(
        None, gate, refusal=lambda refused, _: refused.replace(body="gate")
    )
    app = asgi.LimiterMiddleware(
        gate_app, limiter, refusal=lambda refused, _: refused.replace(body="limiter")
    )
    bodies = [frameworks.run_asgi(app, "/").body for _ in range(3)]
    assert bodies == [b"gate", b"gate", b"limiter"]


def test_websocket_gets_the_replaced_response(gate):
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": "/",
        "headers": [],
        "extensions": {"websocket.http.response": {}},
    }
    asyncio.run(asgi.GateMiddleware(None, gate, refusal=own)(scope, receive, send))
    assert sent[0]["status"] == 402
    assert json.loads(sent[1]["body"])["code"] == "missing_key"


def test_unknown_status_has_a_reason_in_wsgi(gate):
    found = []
    app = wsgi.GateMiddleware(
        None, gate, refusal=lambda refused, _: refused.replace(status=499, body="")
    )
    environ = {"REQUEST_METHOD": "GET"}
    assert app(environ, lambda status, headers: found.append(status)) == [b""]
    assert found == ["499 Refused"]


def test_handler_of_fastapi_sees_the_refusal(gate):
    app = FastAPI()
    app.get("/", dependencies=[Depends(fastapi.require_key(gate, refusal=own))])(lambda: "hello")
    response = TestClient(app).get("/")
    assert (response.status_code, response.json()["code"]) == (402, "missing_key")

    @app.exception_handler(fastapi.Refused)
    async def answer(request, refused):
        return Response(refused.detail, refused.status_code, refused.headers)

    response = TestClient(app).get("/")
    assert (response.status_code, json.loads(response.text)["code"]) == (402, "missing_key")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"status": 204}, ValueError, "status is 204, and must be that of a response with a body"),
        ({"status": 600}, ValueError, "status is 600"),
        ({"status": "429"}, TypeError, "status must be a number such as 429, not str"),
        ({"status": True}, TypeError, "status must be a number such as 429, not bool"),
        ({"body": 1}, TypeError, "body must be bytes, a text, a dict or a list, not int"),
        ({"body": b"x"}, ValueError, "a body of bytes needs a content_type"),
        ({"body": {"a": {1}}}, TypeError, "not JSON serializable"),
        ({"body": [float("nan")]}, ValueError, "not JSON compliant"),
        ({"content_type": "html"}, ValueError, "content_type is 'html'"),
        ({"content_type": "text/html\n"}, ValueError, "content_type is"),
        ({"content_type": 1}, ValueError, "content_type is 1"),
    ],
)
def test_invalid_replacement_is_an_error(gate, changes, error, message):
    with pytest.raises(error, match=message):
        Refusal.of(gate.check(None)).replace(**changes)


def test_replacement_keeps_what_is_not_named(gate):
    refused = Refusal.of(gate.check(None))
    assert refused.replace(status=403).body == contract.MISSING
    assert refused.replace(status=403).content_type == "application/json"
    typed = refused.replace(body={"a": "é"}, content_type="application/problem+json; charset=utf-8")
    assert typed.body == b'{"a": "\\u00e9"}'
    assert (typed.status, typed.content_type) == (401, "application/problem+json; charset=utf-8")
    assert refused.replace(body="é").body == "é".encode()


async def refuse_async(refused, request):
    return refused


CONSTRUCTORS = [
    lambda gate, limiter, **options: asgi.GateMiddleware(None, gate, **options),
    lambda gate, limiter, **options: asgi.LimiterMiddleware(None, limiter, **options),
    lambda gate, limiter, **options: fastapi.require_key(gate, **options),
    lambda gate, limiter, **options: fastapi.limit(limiter, **options),
    lambda gate, limiter, **options: frameworks.in_django(gate, **options),
    lambda gate, limiter, **options: frameworks.in_django(limiter, **options),
    lambda gate, limiter, **options: wsgi.GateMiddleware(None, gate, **options),
    lambda gate, limiter, **options: wsgi.LimiterMiddleware(None, limiter, **options),
    lambda gate, limiter, **options: flask.GateExtension(gate, **options),
    lambda gate, limiter, **options: flask.LimiterExtension(limiter, **options),
    lambda gate, limiter, **options: flask.require_key(gate, **options),
    lambda gate, limiter, **options: flask.limit(limiter, **options),
    lambda gate, limiter, **options: type("Authentication", (KeyAuthentication,), options),
    lambda gate, limiter, **options: type("Throttle", (LimiterThrottle,), options),
]


@pytest.mark.parametrize("make", CONSTRUCTORS)
def test_refusal_of_another_type_is_rejected(make, gate, limiter):
    with pytest.raises(
        (TypeError, ImproperlyConfigured),
        match="refusal must be a function that returns a Refusal, not",
    ):
        make(gate, limiter, refusal=1)


@pytest.mark.parametrize("make", CONSTRUCTORS[6:])
def test_sync_integration_rejects_async_refusal(make, gate, limiter):
    with pytest.raises(TypeError, match="^refusal is async"):
        make(gate, limiter, refusal=refuse_async)
