"""The application's functions: async functions, exceptions, and costs out of range."""

import asyncio
import functools
import logging

import contract
import django_app
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import AsyncClient, Client, override_settings
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from flask import Flask
from rest_framework.test import APIClient
from werkzeug.test import Client as WsgiClient

from keytally import asgi, django, fastapi, flask, wsgi
from keytally.rest_framework import KeyAuthentication, LimiterThrottle

WRONG_COST = b'{"error": "Cost out of range"}'


@pytest.fixture
def policy():
    return "9/31d"


async def hello_asgi(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def hello_wsgi(environ, start_response):
    start_response("200 OK", [])
    return [b"hello"]


def fetch_asgi(gate, text, **options):
    response = TestClient(asgi.GateMiddleware(hello_asgi, gate, **options)).get(
        "/", headers=contract.presenting(text)
    )
    return response.status_code, response.headers.multi_items(), response.content


def fetch_wsgi(gate, text, **options):
    response = WsgiClient(wsgi.GateMiddleware(hello_wsgi, gate, **options)).get(
        "/", headers=contract.presenting(text)
    )
    return response.status_code, list(response.headers), response.data


def fetch_flask(gate, text, **options):
    app = Flask("tests")
    flask.GateExtension(gate, app, **options)
    app.add_url_rule("/", view_func=lambda: "hello")
    response = app.test_client().get("/", headers=contract.presenting(text))
    return response.status_code, list(response.headers), response.data


def fetch_fastapi(gate, text, **options):
    app = FastAPI()
    app.get("/", dependencies=[Depends(fastapi.require_key(gate, **options))])(lambda: "hello")
    response = TestClient(app).get("/", headers=contract.presenting(text))
    return response.status_code, response.headers.multi_items(), response.content


def with_settings(fetch):
    """Return `fetch`, which sends a request to Django, with the parameters of `fetch_asgi`."""

    def fetching(gate, text, **options):
        table = {"PATH": gate.path, "PEPPER": PEPPER[gate.path]}
        table.update({name.upper(): value for name, value in options.items()})
        with override_settings(KEYTALLY={"GATE": table}, MIDDLEWARE=django_app.MIDDLEWARE):
            return fetch(contract.presenting(text))

    return fetching


@with_settings
def fetch_django(headers):
    response = Client(raise_request_exception=False).get("/own", headers=headers)
    return response.status_code, list(response.items()), response.content


@with_settings
def fetch_django_async(headers):
    async def fetch():
        response = await AsyncClient(raise_request_exception=False).get("/own", headers=headers)
        return response.status_code, list(response.items()), response.content

    return asyncio.run(fetch())


# The pepper of each gate, by the path of the gate.
PEPPER = {}


@pytest.fixture(autouse=True)
def _pepper(gate, pepper):
    PEPPER[gate.path] = pepper


# The integrations that can await functions of the application.
AWAITING = [fetch_asgi, fetch_fastapi, fetch_django, fetch_django_async]
ALL = [*AWAITING, fetch_wsgi, fetch_flask]


@pytest.mark.parametrize("fetch", AWAITING)
def test_async_functions_are_awaited(gate, key, fetch):
    notified = []

    async def cost(_):
        await asyncio.sleep(0)
        return 3

    async def notify(verdict, _):
        await asyncio.sleep(0)
        notified.append(verdict.outcome)

    status, headers, _ = fetch(gate, key.expose(), cost=cost, on_verdict=notify)
    contract.assert_admitted(status, headers, remaining=6)
    assert notified == ["admitted"]


async def return_one(*_):
    return 1


class Callable:
    async def __call__(self, *_):
        return 1


ASYNC = [return_one, Callable(), functools.partial(return_one, None)]


@pytest.mark.parametrize("function", ASYNC)
def test_async_key_is_awaited(limiter, function):
    async def key(_):
        return str(await function())

    app = FastAPI()
    app.get("/", dependencies=[Depends(fastapi.limit(limiter, key=key))])(lambda: "hello")
    for wrapped in (app, asgi.LimiterMiddleware(hello_asgi, limiter, key=key)):
        assert TestClient(wrapped).get("/").status_code == 200
    assert limiter.peek("1", 0).remaining == 0


@pytest.mark.parametrize("function", ASYNC)
@pytest.mark.parametrize("name", ["cost", "on_verdict"])
def test_sync_integration_rejects_async_functions(gate, limiter, name, function):
    for make in (
        lambda **options: wsgi.GateMiddleware(hello_wsgi, gate, **options),
        lambda **options: wsgi.LimiterMiddleware(hello_wsgi, limiter, **options),
        lambda **options: flask.GateExtension(gate, **options),
        lambda **options: flask.LimiterExtension(limiter, **options),
        lambda **options: flask.require_key(gate, **options),
        lambda **options: flask.limit(limiter, **options),
    ):
        with pytest.raises(TypeError, match=f"^{name} is async"):
            make(**{name: function})


@pytest.mark.parametrize("function", ASYNC)
def test_sync_integration_rejects_async_key(limiter, function):
    for make in (wsgi.LimiterMiddleware, lambda _, *args, **options: flask.limit(*args, **options)):
        with pytest.raises(TypeError, match="^key is async"):
            make(hello_wsgi, limiter, key=function)


def test_rest_framework_rejects_async_methods():
    with pytest.raises(TypeError, match="^cost_of is async"):

        class Authentication(KeyAuthentication):
            async def cost_of(self, request):
                return 1

    with pytest.raises(TypeError, match="^key is async"):

        class Throttle(LimiterThrottle):
            async def key(self, request, view):
                return "a"


def test_awaitable_in_sync_integration_raises_type_error(gate, key):
    with pytest.raises(TypeError, match="returned an awaitable, and nothing can await it"):
        fetch_wsgi(gate, key.expose(), cost=lambda _: return_one())
    assert gate.peek(key.expose(), 0).remaining == 9


@pytest.mark.parametrize("fetch", ALL)
def test_exception_of_on_verdict_is_only_logged(gate, key, fetch, caplog):
    def notify(verdict, _):
        raise LookupError("of the application")

    with caplog.at_level(logging.ERROR, "keytally"):
        status, headers, _ = fetch(gate, key.expose(), on_verdict=notify)
        contract.assert_admitted(status, headers, remaining=8)
        contract.assert_missing(*fetch(gate, None, on_verdict=notify))
    records = [record for record in caplog.records if record.name == "keytally"]
    assert [record.exc_info[0] for record in records] == [LookupError] * 2
    assert key.expose() not in caplog.text


def test_exception_of_async_on_verdict_is_only_logged(gate, key, caplog):
    async def notify(verdict, _):
        raise LookupError("of the application")

    for fetch in AWAITING:
        assert fetch(gate, key.expose(), on_verdict=notify)[0] == 200
    # An awaitable result in a synchronous integration is logged too.
    assert fetch_wsgi(gate, key.expose(), on_verdict=lambda *_: return_one())[0] == 200
    assert (
        len([record for record in caplog.records if record.name == "keytally"]) == len(AWAITING) + 1
    )


@pytest.mark.parametrize("fetch", ALL)
@pytest.mark.parametrize("cost", [-1, 2**32, 10**30])
def test_cost_out_of_range_responds_400(gate, key, fetch, cost):
    notified = []
    options = {
        "cost": lambda _: cost,
        "on_verdict": lambda verdict, _: notified.append(verdict.outcome),
    }
    status, headers, body = fetch(gate, key.expose(), **options)
    assert (status, body) == (400, WRONG_COST)
    found = contract.fields(headers)
    contract.assert_json(found, WRONG_COST)
    assert found["x-ratelimit-remaining"] == "9"
    assert not {"retry-after", "www-authenticate"} & set(found)
    contract.assert_missing(*fetch(gate, None, **options))
    assert notified == ["missing_key"]
    assert gate.peek(key.expose(), 0).remaining == 9


@pytest.mark.parametrize("fetch", ALL)
def test_shadow_mode_reports_cost_out_of_range(gate, key, fetch):
    status, headers, _ = fetch(gate, key.expose(), cost=lambda _: -1, shadow=True)
    assert (status, contract.fields(headers)["x-keytally-shadow"]) == (200, "cost_out_of_range")


def test_cost_out_of_range_refunds_the_limiter(gate, key, limiter):
    inner = asgi.GateMiddleware(hello_asgi, gate, cost=lambda _: -1)
    app = asgi.LimiterMiddleware(inner, limiter, key=lambda _: "all")
    response = TestClient(app).get("/", headers=contract.presenting(key.expose()))
    assert response.status_code == 400
    assert limiter.peek("all", 0).remaining == 2


def test_problem_document_names_cost_out_of_range(gate, key):
    app = asgi.GateMiddleware(hello_asgi, gate, cost=lambda _: -1)
    headers = {**contract.presenting(key.expose()), "Accept": "application/problem+json"}
    response = TestClient(app).get("/", headers=headers)
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json() == {"type": "about:blank", "title": "Cost out of range", "status": 400}


def test_rest_framework_responds_400_to_cost_out_of_range(gate, key, pepper, monkeypatch):
    monkeypatch.setattr(KeyAuthentication, "cost_of", lambda self, request: -1)
    with override_settings(
        KEYTALLY={"GATE": {"PATH": gate.path, "PEPPER": pepper}},
        MIDDLEWARE=django_app.REST_FRAMEWORK_MIDDLEWARE,
    ):
        response = APIClient().get("/rest", headers=contract.presenting(key.expose()))
    assert (response.status_code, response.content) == (400, WRONG_COST)
    assert gate.peek(key.expose(), 0).remaining == 9


@pytest.mark.parametrize(
    ("cost", "error", "message"),
    [
        (-1, ValueError, "cost is -1, and must be 0 to 4294967295"),
        (2**32, ValueError, "cost is 4294967296, and must be 0 to 4294967295"),
        (1.5, TypeError, "cost must be a whole number or a function that returns one, not float"),
        ("1", TypeError, "cost must be a whole number or a function that returns one, not str"),
    ],
)
def test_invalid_fixed_cost_is_rejected_at_construction(gate, limiter, cost, error, message):
    for make in (
        lambda: asgi.GateMiddleware(hello_asgi, gate, cost=cost),
        lambda: asgi.LimiterMiddleware(hello_asgi, limiter, cost=cost),
        lambda: wsgi.GateMiddleware(hello_wsgi, gate, cost=cost),
        lambda: flask.GateExtension(gate, cost=cost),
        lambda: flask.limit(limiter, cost=cost),
        lambda: fastapi.require_key(gate, cost=cost),
        lambda: fastapi.limit(limiter, cost=cost),
    ):
        with pytest.raises(error, match=message):
            make()


def test_django_rejects_invalid_fixed_cost(gate, pepper):
    changed = override_settings(
        KEYTALLY={"GATE": {"PATH": gate.path, "PEPPER": pepper, "COST": -1}}
    )
    with changed, pytest.raises(ImproperlyConfigured, match="cost is -1"):
        django.GateMiddleware(lambda request: None)
    with pytest.raises(ValueError, match="cost is -1"):
        type("Authentication", (KeyAuthentication,), {"cost": -1})
    with pytest.raises(ValueError, match="cost is -1"):
        type("Throttle", (LimiterThrottle,), {"cost": -1})
