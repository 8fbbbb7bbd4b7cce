"""One charge and one verdict per request with several integrations, also of several frameworks."""

import asyncio
import os

import a2wsgi
import contract
import django_app
import pytest
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.test import Client, RequestFactory, override_settings
from fastapi import APIRouter, Depends, FastAPI, Security
from fastapi.testclient import TestClient
from flask import Flask, g
from rest_framework.decorators import api_view, authentication_classes, throttle_classes
from rest_framework.response import Response
from starlette.requests import Request
from werkzeug.test import Client as WsgiClient

from keytally import Gate, Limiter, _charges, asgi, flask, wsgi
from keytally.django import GateMiddleware, VerdictMiddleware
from keytally.fastapi import limit, require_key
from keytally.rest_framework import KeyAuthentication

REQUESTS = 12
SUBJECT = "all"


@pytest.fixture
def policy():
    return "100/31d"


@pytest.fixture
def limiter():
    return Limiter.in_memory("2/31d", capacity=100)


def all_requests(_):
    return SUBJECT


def spent(gate, key):
    """Return the units that the gate has charged to the key."""
    return 100 - gate.peek(key.expose(), 0).remaining


def spent_by_all(limiter):
    """Return the units that the limiter has charged to the subject of all requests."""
    return 2 - limiter.peek(SUBJECT, 0).remaining


def asgi_stack(gate, limiter, order, **options):
    """Return a function that sends requests to an ASGI application behind both middlewares."""
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["state"]["verdict"].account)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    for name in reversed(order):
        if name == "gate":
            app = asgi.GateMiddleware(app, gate, **options)
        else:
            app = asgi.LimiterMiddleware(app, limiter, key=all_requests)

    def fetch(text):
        response = TestClient(app).get("/", headers=contract.presenting(text))
        return response.status_code, response.headers.multi_items(), seen[-1] if seen else None

    return fetch


def wsgi_stack(gate, limiter, order, **options):
    """Return a function that sends requests to a WSGI application behind both middlewares."""
    seen = []

    def app(environ, start_response):
        seen.append(environ["keytally.verdict"].account)
        start_response("200 OK", [])
        return []

    for name in reversed(order):
        if name == "gate":
            app = wsgi.GateMiddleware(app, gate, **options)
        else:
            app = wsgi.LimiterMiddleware(app, limiter, key=all_requests)

    def fetch(text):
        response = WsgiClient(app).get("/", headers=contract.presenting(text))
        return response.status_code, list(response.headers), seen[-1] if seen else None

    return fetch


def flask_extensions(gate, limiter, order, **options):
    """Return a function that sends requests to a Flask application with both extensions."""
    app = Flask("tests")
    seen = []
    for name in order:
        if name == "gate":
            flask.GateExtension(gate, app, **options)
        else:
            flask.LimiterExtension(limiter, app, key=all_requests)

    @app.get("/")
    def home():
        seen.append(g.verdict.account)
        return ""

    return flask_fetch(app, seen)


def flask_decorators(gate, limiter, order, **options):
    """Return a function that sends requests to a Flask view with both decorators."""
    app = Flask("tests")
    seen = []

    def home():
        seen.append(g.verdict.account)
        return ""

    for name in reversed(order):
        if name == "gate":
            home = flask.require_key(gate, **options)(home)
        else:
            home = flask.limit(limiter, key=all_requests)(home)
    app.add_url_rule("/", view_func=home)
    return flask_fetch(app, seen)


def flask_fetch(app, seen):
    """Return a function that sends a request, and returns its status, fields and account."""

    def fetch(text):
        response = app.test_client().get("/", headers=contract.presenting(text))
        return response.status_code, list(response.headers), seen[-1] if seen else None

    return fetch


def fastapi_dependencies(gate, limiter, order, **options):
    """Return a function that sends requests to a FastAPI route with both dependencies."""
    app = FastAPI()
    seen = []
    made = {
        "gate": Depends(require_key(gate, **options)),
        "limiter": Depends(limit(limiter, key=all_requests)),
    }

    @app.get("/", dependencies=[made[name] for name in order])
    def home(request: Request):
        seen.append(request.state.verdict.account)

    def fetch(text):
        response = TestClient(app).get("/", headers=contract.presenting(text))
        return response.status_code, response.headers.multi_items(), seen[-1] if seen else None

    return fetch


def flask_behind_wsgi(gate, limiter, order, **options):
    """The outer table is WSGI middleware, and the inner one is a decorator of Flask."""
    app = Flask("tests")
    seen = []

    def home():
        seen.append(g.verdict.account)
        return ""

    if order[0] == "gate":
        home = flask.limit(limiter, key=all_requests)(home)
        app.wsgi_app = wsgi.GateMiddleware(app.wsgi_app, gate, **options)
    else:
        home = flask.require_key(gate, **options)(home)
        app.wsgi_app = wsgi.LimiterMiddleware(app.wsgi_app, limiter, key=all_requests)
    app.add_url_rule("/", view_func=home)
    return flask_fetch(app, seen)


STACKS = [
    asgi_stack,
    wsgi_stack,
    flask_extensions,
    flask_decorators,
    fastapi_dependencies,
    flask_behind_wsgi,
]


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("order", [("gate", "limiter"), ("limiter", "gate")], ids=" in ".join)
def test_gate_and_limiter_charge_all_or_nothing(gate, key, limiter, stack, order):
    fetch = stack(gate, limiter, order)
    for left in (1, 0):
        status, headers, account = fetch(key.expose())
        assert (status, account) == (200, 42)
        assert_lists_both(headers, of_gate=98 + left, of_limiter=left)
    for _ in range(REQUESTS - 2):
        status, headers, _ = fetch(key.expose())
        assert status == 429
        assert int(contract.fields(headers)["retry-after"]) >= 1
    assert (spent(gate, key), spent_by_all(limiter)) == (2, 2)


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("order", [("gate", "limiter"), ("limiter", "gate")], ids=" in ".join)
def test_gate_denial_refunds_the_limiter(gate, limiter, pepper, stack, order):
    gate = Gate.in_memory(pepper=pepper, keys=8, plans={"default": "1/31d"})
    key = gate.issue(42)
    fetch = stack(gate, limiter, order)
    assert [fetch(key.expose())[0] for _ in range(4)] == [200, 429, 429, 429]
    assert spent_by_all(limiter) == 1


@pytest.mark.parametrize("stack", STACKS)
def test_outer_limiter_counts_wrong_keys(gate, limiter, stack):
    fetch = stack(gate, limiter, ("limiter", "gate"))
    assert [fetch("nonsense")[0] for _ in range(3)] == [401, 401, 429]
    assert spent_by_all(limiter) == 2


def assert_lists_both(headers, *, of_gate, of_limiter):
    found = contract.fields(headers)
    # 31 days are 2,678,400 s.
    assert (found["x-ratelimit-limit"], found["x-ratelimit-remaining"]) == ("100", str(of_gate))
    assert found["ratelimit-policy"] == '"2678400s";q=100;w=2678400, "2678400s-2";q=2;w=2678400'
    quotas = [item.split(";")[:2] for item in found["ratelimit"].split(", ")]
    assert quotas == [['"2678400s"', f"r={of_gate}"], ['"2678400s-2"', f"r={of_limiter}"]]


def test_joined_lists_number_each_repeated_name():
    lists = ['"minute";r=1;t=2, "team-hour";r=3;t=4', '"minute";r=5;t=6, "minute-2";r=7;t=8']
    assert _charges._joined(lists) == (
        '"minute";r=1;t=2, "team-hour";r=3;t=4, "minute-2";r=5;t=6, "minute-3";r=7;t=8'
    )


@pytest.mark.parametrize("stack", STACKS)
def test_limiter_refusal_shows_quota_of_the_gate(gate, key, stack):
    fetch = stack(gate, Limiter.in_memory("1/31d", capacity=10), ("gate", "limiter"))
    fetch(key.expose())
    status, headers, _ = fetch(key.expose())
    found = contract.fields(headers)
    assert (status, found["x-ratelimit-limit"], found["x-ratelimit-remaining"]) == (
        429,
        "100",
        "99",
    )
    assert '"2678400s-2";r=0' in found["ratelimit"]


@pytest.mark.parametrize("stack", STACKS)
def test_gate_in_two_integrations_is_charged_once(gate, key, stack):
    """The inner integration checks the same gate as the outer one."""
    opened = Gate.open(gate.path, pepper=PEPPER[gate.path])
    for second in (gate, opened):
        before = spent(gate, key)
        if stack is asgi_stack:
            inner = asgi.GateMiddleware(hello_asgi, second)
            status = status_of(asgi.GateMiddleware(inner, gate), key)
        elif stack is wsgi_stack:
            app = wsgi.GateMiddleware(wsgi.GateMiddleware(hello_wsgi, second), gate)
            status = WsgiClient(app).get("/", headers={"X-API-Key": key.expose()}).status_code
        else:
            app = Flask("tests")
            app.add_url_rule("/", view_func=flask.require_key(second)(lambda: ""))
            if stack is flask_behind_wsgi:
                app.wsgi_app = wsgi.GateMiddleware(app.wsgi_app, gate)
            else:
                flask.GateExtension(gate, app)
            status = app.test_client().get("/", headers={"X-API-Key": key.expose()}).status_code
        assert (status, spent(gate, key) - before) == (200, 1)


def spellings(path):
    """Return other paths of a file, for a process in its folder."""
    link = path.with_name("link")
    link.symlink_to(path)
    return [path.name, f"./{path.name}", f"{path.parent}/../{path.parent.name}/{path.name}", link]


def test_gate_by_another_path_is_charged_once(gate, key, monkeypatch):
    monkeypatch.chdir(gate.path.parent)
    for name in spellings(gate.path):
        before = spent(gate, key)
        other = Gate.open(name, pepper=PEPPER[gate.path])
        app = asgi.GateMiddleware(asgi.GateMiddleware(hello_asgi, other), gate)
        # A relative path still names the file that it named at construction.
        with monkeypatch.context() as elsewhere:
            elsewhere.chdir("/")
            assert (status_of(app, key), spent(gate, key) - before) == (200, 1)


def test_limiter_by_another_path_is_charged_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    limiter = Limiter.create(tmp_path / "all.limiter", "9/31d", capacity=10)
    for count, name in enumerate(spellings(limiter.path), 1):
        other = Limiter.open_or_create(name, "9/31d", capacity=10)
        inner = asgi.LimiterMiddleware(hello_asgi, other, key=all_requests)
        TestClient(asgi.LimiterMiddleware(inner, limiter, key=all_requests)).get("/")
        assert limiter.peek(SUBJECT, 0).remaining == 9 - count


def test_replaced_gate_opened_again_is_charged_once(gate, key, tmp_path, pepper):
    new = Gate.create(tmp_path / "new.gate", pepper=pepper, keys=8)
    key = new.issue(7)
    os.rename(new.path, gate.path)
    gate.reopen()
    app = asgi.GateMiddleware(
        asgi.GateMiddleware(hello_asgi, Gate.open(gate.path, pepper=pepper)), gate
    )
    before = gate.peek(key.expose(), 0).remaining
    assert status_of(app, key) == 200
    assert before - gate.peek(key.expose(), 0).remaining == 1


def test_subject_as_text_and_bytes_is_charged_once(limiter):
    inner = asgi.LimiterMiddleware(hello_asgi, limiter, key=lambda _: SUBJECT.encode())
    app = asgi.LimiterMiddleware(inner, limiter, key=all_requests)
    assert TestClient(app).get("/").status_code == 200
    assert spent_by_all(limiter) == 1


def test_own_verdict_attribute_of_application_is_kept(gate, key):
    """The state of the application may have another object with that name."""

    async def app(scope, receive, send):
        scope["state"]["verdict"] = "guilty"
        await hello_asgi(scope, receive, send)

    response = TestClient(asgi.VerdictMiddleware(app)).get("/")
    assert (response.status_code, "ratelimit" in response.headers) == (200, False)
    response = TestClient(asgi.VerdictMiddleware(asgi.GateMiddleware(app, gate))).get(
        "/", headers={"X-API-Key": key.expose()}
    )
    assert (response.status_code, response.headers["x-ratelimit-remaining"]) == (200, "99")


def test_own_verdict_attribute_of_django_view_is_kept():
    def view(request):
        request.verdict = "guilty"
        return HttpResponse("sentenced")

    response = VerdictMiddleware(view)(RequestFactory().get("/"))
    assert (response.status_code, response.content, "RateLimit" in response) == (
        200,
        b"sentenced",
        False,
    )


# The pepper of each gate, by the path of the gate.
PEPPER = {}


@pytest.fixture(autouse=True)
def _pepper(gate, pepper):
    PEPPER[gate.path] = pepper


async def hello_asgi(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def hello_wsgi(environ, start_response):
    start_response("200 OK", [])
    return []


def status_of(app, key):
    return TestClient(app).get("/", headers={"X-API-Key": key.expose()}).status_code


def test_highest_cost_is_charged(gate, key):
    app = asgi.GateMiddleware(asgi.GateMiddleware(hello_asgi, gate, cost=10), gate, cost=3)
    assert (status_of(app, key), spent(gate, key)) == (200, 10)
    app = asgi.GateMiddleware(asgi.GateMiddleware(hello_asgi, gate, cost=3), gate, cost=10)
    assert (status_of(app, key), spent(gate, key)) == (200, 20)
    app = asgi.GateMiddleware(asgi.GateMiddleware(hello_asgi, gate, cost=90), gate)
    assert (status_of(app, key), spent(gate, key)) == (429, 20)


def test_higher_cost_in_shadow_keeps_lower_charge(gate, key):
    inner = asgi.GateMiddleware(hello_asgi, gate, cost=100, shadow=True)
    client = TestClient(asgi.GateMiddleware(inner, gate, cost=3))
    gate.check(key.expose(), 10)
    answer = client.get("/", headers={"X-API-Key": key.expose()})
    assert (answer.status_code, answer.headers["x-keytally-shadow"]) == (200, "denied")
    assert spent(gate, key) == 13


def test_higher_cost_of_a_group_counts_in_either_order(pepper):
    plans = {"default": "100/31d; group write: 50/31d"}
    gate = Gate.in_memory(pepper=pepper, keys=8, plans=plans)
    orders = [{"group": "write", "cost": 5}, {"costs": {"write": 1}}]
    for outer, inner in (orders, orders[::-1]):
        key = gate.issue(42)
        app = asgi.GateMiddleware(asgi.GateMiddleware(hello_asgi, gate, **inner), gate, **outer)
        assert status_of(app, key) == 200
        tallies = gate.peek(key.expose(), 0, groups="write").tallies
        assert [tally.verdict.remaining for tally in tallies] == [95, 45]


def test_dispatched_copy_with_another_key_is_checked_again(gate, key):
    """An endpoint for batches dispatches copies of its own environ or scope."""
    other = gate.issue(7)
    seen = []

    def batch(environ, start_response):
        seen.append(environ["keytally.verdict"].account)
        if len(seen) == 1:
            return app({**environ, "HTTP_X_API_KEY": other.expose()}, start_response)
        return hello_wsgi(environ, start_response)

    app = wsgi.GateMiddleware(batch, gate)
    assert WsgiClient(app).get("/", headers={"X-API-Key": key.expose()}).status_code == 200
    assert seen == [42, 7]
    assert (spent(gate, key), spent(gate, other)) == (1, 1)


def test_asgi_gate_and_inner_flask_charge_once(gate, key):
    """The environ of a2wsgi has the ASGI scope."""
    app = Flask("tests")
    flask.GateExtension(gate, app, cost=3)
    seen = []

    @app.get("/")
    def home():
        seen.append(g.verdict.account)
        return ""

    client = TestClient(asgi.GateMiddleware(a2wsgi.WSGIMiddleware(app), gate))
    response = client.get("/", headers={"X-API-Key": key.expose()})
    assert (response.status_code, seen, spent(gate, key)) == (200, [42], 3)
    assert response.headers.get_list("x-ratelimit-remaining") == ["97"]
    assert client.get("/", headers={"X-API-Key": "nonsense"}).status_code == 401


def test_environ_without_a_valid_scope_has_own_record(gate, key):
    """A bridge may put any object under the name `asgi.scope`."""
    for scope in (None, "none", {}):
        environ = {"asgi.scope": scope, "HTTP_X_API_KEY": key.expose()}
        app = wsgi.GateMiddleware(wsgi.GateMiddleware(hello_wsgi, gate), gate)
        before = spent(gate, key)
        assert WsgiClient(app).get("/", environ_overrides=environ).status_code == 200
        assert spent(gate, key) - before == 1


def test_asgi_gate_and_inner_django_charge_once(gate, key, pepper):
    tables = {"GATE": {"PATH": gate.path, "PEPPER": pepper}}
    for middleware in (django_app.MIDDLEWARE, django_app.REST_FRAMEWORK_MIDDLEWARE):
        with override_settings(KEYTALLY=tables, MIDDLEWARE=middleware):
            app = asgi.GateMiddleware(get_asgi_application(), gate)
            response = TestClient(app).get("/rest", headers={"X-API-Key": key.expose()})
        assert (response.status_code, response.json()["account"]) == (200, 42)
    assert spent(gate, key) == 2


def test_limiter_is_charged_once_per_subject(limiter):
    inner = asgi.LimiterMiddleware(hello_asgi, limiter, key=all_requests)
    other = asgi.LimiterMiddleware(inner, limiter, key=lambda _: "other")
    app = asgi.LimiterMiddleware(other, limiter, key=all_requests)
    assert TestClient(app).get("/").status_code == 200
    assert spent_by_all(limiter) == 1
    assert limiter.peek("other", 0).remaining == 1


def secured(gate, limiter):
    """Return an application with one dependency in a router, and in a route with scopes."""
    api_key = require_key(gate)
    limited = limit(limiter, key=all_requests)
    router = APIRouter(dependencies=[Depends(api_key), Depends(limited)])

    @router.get("/")
    def home(
        verdict=Security(api_key, scopes=["read"]),  # noqa: B008
        _=Security(limited, scopes=["read"]),  # noqa: B008
    ):
        return {"account": verdict.account}

    app = FastAPI()
    app.include_router(router)
    return app


@pytest.mark.parametrize("wrap", [lambda app: app, asgi.VerdictMiddleware], ids=["bare", "wrapped"])
def test_fastapi_security_scopes_charge_once(gate, key, limiter, wrap):
    client = TestClient(wrap(secured(gate, limiter)))
    for left in (1, 0):
        response = client.get("/", headers={"X-API-Key": key.expose()})
        assert (response.status_code, response.json()) == (200, {"account": 42})
        assert_lists_both(response.headers.multi_items(), of_gate=98 + left, of_limiter=left)
    assert client.get("/", headers={"X-API-Key": key.expose()}).status_code == 429
    assert spent(gate, key) == 2


def test_500_lists_quotas_of_both(gate, key, limiter):
    app = FastAPI()
    dependencies = [Depends(require_key(gate)), Depends(limit(limiter, key=all_requests))]

    @app.get("/", dependencies=dependencies)
    def home():
        raise LookupError("of the application")

    client = TestClient(asgi.VerdictMiddleware(app), raise_server_exceptions=False)
    response = client.get("/", headers={"X-API-Key": key.expose()})
    assert response.status_code == 500
    assert_lists_both(response.headers.multi_items(), of_gate=99, of_limiter=1)


@pytest.fixture
def django(gate, pepper):
    """Return a function that sends requests to a Django project with settings."""

    def fetch(path, key, middleware, client=Client, **tables):
        limiter = {"POLICY": "2/31d", "CAPACITY": 100, "WORKERS": 1, "KEY": all_requests}
        found = {"GATE": {"PATH": gate.path, "PEPPER": pepper}, "LIMITER": limiter, **tables}
        with override_settings(KEYTALLY=found, MIDDLEWARE=middleware):
            for _ in range(REQUESTS):
                response = client().get(path, headers={"X-API-Key": key.expose()})
                yield response.status_code, list(response.items()), response.content

    return fetch


BOTH = [*django_app.MIDDLEWARE, "keytally.django.LimiterMiddleware"]


@pytest.mark.parametrize("middleware", [BOTH, BOTH[::-1]], ids=" in ".join)
@pytest.mark.parametrize("path", ["/", "/later", "/rest", "/throttled"])
def test_django_charges_all_or_nothing(django, gate, key, middleware, path):
    answers = list(django(path, key, middleware))
    assert [status for status, _, _ in answers] == [200] * 2 + [429] * (REQUESTS - 2)
    for left, (_, headers, body) in zip((1, 0), answers):
        assert b'"account":42' in body.replace(b" ", b"")
        if path != "/throttled":
            assert_lists_both(headers, of_gate=98 + left, of_limiter=left)
    assert spent(gate, key) == 2


def test_throttle_refusal_refunds_the_key(django, gate, key):
    answers = list(django("/throttled", key, django_app.REST_FRAMEWORK_MIDDLEWARE))
    assert [status for status, _, _ in answers] == [200] * 2 + [429] * (REQUESTS - 2)
    contract.assert_exceeded(*answers[-1], remaining=98)
    assert spent(gate, key) == 2


def test_rest_framework_gets_gate_verdict_behind_limiter(django, gate, key):
    """The verdict of a limiter has no key."""
    [first, *_] = django("/rest", key, BOTH)
    assert b'"account":42' in first[2]
    assert spent(gate, key) == 2


def test_rest_framework_charges_its_higher_cost(gate, key, pepper):
    class Costly(KeyAuthentication):
        cost = 10

    @api_view()
    @authentication_classes([Costly])
    @throttle_classes([])
    def view(request):
        return Response({"verdict": request.auth.key_id == request._request.verdict.key_id})

    with override_settings(KEYTALLY={"GATE": {"PATH": gate.path, "PEPPER": pepper}}):
        response = GateMiddleware(view)(RequestFactory().get("/", HTTP_X_API_KEY=key.expose()))
    assert (response.status_code, response.data) == (200, {"verdict": True})
    assert response["X-RateLimit-Remaining"] == "90"
    assert spent(gate, key) == 10


def test_throttle_and_middleware_share_a_limiter(django, gate, key):
    """Both use the limiter of the settings, and both count the client's address."""
    tables = {"LIMITER": {"POLICY": "2/31d", "CAPACITY": 100, "WORKERS": 1}}
    answers = list(django("/throttled", key, BOTH, **tables))
    assert [status for status, _, _ in answers[:3]] == [200, 200, 429]


@pytest.mark.parametrize(
    ("policy", "limit"),
    [
        ("20/minute, 200/hour", 200),
        ("20/minute, 200/7d", 20),
        ("3/2d, 5/4d", 3),
        ("9/day, 90/7d", 9),
    ],
)
def test_x_ratelimit_without_gate_is_first_limiters_day(policy, limit):
    inner = asgi.LimiterMiddleware(hello_asgi, Limiter.in_memory("1000/hour", 10), key=all_requests)
    app = asgi.LimiterMiddleware(inner, Limiter.in_memory(policy, 10), key=all_requests)
    found = contract.fields(TestClient(app).get("/").headers.multi_items())
    assert found["x-ratelimit-limit"] == str(limit)
    assert found["x-ratelimit-remaining"] == str(limit - 1)
    assert found["ratelimit-policy"].count(";q=") == policy.count("/") + 1
    assert "q=1000" in found["ratelimit-policy"]


def test_on_verdict_gets_each_verdict_once(gate, key):
    notified = []
    notify = lambda verdict, _: notified.append(verdict.outcome)  # noqa: E731
    inner = asgi.GateMiddleware(hello_asgi, gate, on_verdict=notify)
    assert status_of(asgi.GateMiddleware(inner, gate, on_verdict=notify), key) == 200
    assert notified == ["admitted"]
    other = []
    inner = asgi.GateMiddleware(hello_asgi, gate, on_verdict=lambda *_: other.append(1))
    assert status_of(asgi.GateMiddleware(inner, gate, on_verdict=notify), key) == 200
    assert (len(notified), len(other)) == (2, 1)


def test_shadow_limiter_reports_and_refunds_nothing(gate, key, limiter):
    inner = asgi.LimiterMiddleware(hello_asgi, limiter, key=all_requests, shadow=True)
    client = TestClient(asgi.GateMiddleware(inner, gate))
    answers = [client.get("/", headers={"X-API-Key": key.expose()}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert [answer.headers.get("x-keytally-shadow") for answer in answers] == [None, None, "denied"]
    assert spent(gate, key) == 3


def test_refund_of_removed_key_raises_nothing(gate, key, limiter, tmp_path, pepper):
    """Another file without the key replaces the gate's file between the charge and the refund."""

    async def replaced(scope):
        Gate.create(tmp_path / "other.gate", pepper=pepper, keys=8)
        os.rename(tmp_path / "other.gate", gate.path)
        gate.reopen()
        return SUBJECT

    limiter.check(SUBJECT, 2)
    app = asgi.GateMiddleware(asgi.LimiterMiddleware(hello_asgi, limiter, key=replaced), gate)
    assert status_of(app, key) == 429


def test_scope_and_state_of_the_server_are_not_modified(gate, key, limiter):
    state = {"of_the_lifespan": 7}
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": [(b"x-api-key", key.expose().encode())],
        "client": ("203.0.113.9", 1),
        "state": state,
    }
    app = FastAPI()
    seen = []

    @app.get("/", dependencies=[Depends(require_key(gate)), Depends(limit(limiter))])
    async def home(request: Request):
        seen.append((request.state.verdict.account, request.state.of_the_lifespan))

    async def receive():
        return {"type": "http.request"}

    async def send(message):
        pass

    stacks = [app, asgi.GateMiddleware(app, gate), asgi.VerdictMiddleware(app)]
    for stack in [*stacks, asgi.LimiterMiddleware(app, limiter)]:
        limiter.reset("203.0.113.9")
        asyncio.run(stack(dict(scope), receive, send))
    assert seen == [(42, 7)] * 4
    assert state == {"of_the_lifespan": 7}
