"""Exempt paths: none leads out of an exempt folder, and each can match."""

import asyncio
import functools
from urllib.parse import unquote

import django_app
import flask_app
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse
from django.test import Client, RequestFactory, override_settings
from django.urls import path as django_path
from fastapi import FastAPI
from fastapi.testclient import TestClient
from flask import Flask
from flask.views import MethodView

from keytally import Gate, asgi, django, flask, wsgi

EXEMPT = ["/health", "/static/*", "/grün"]

# The path that the framework routes, decoded once, and whether it is exempt.
PATHS = [
    ("/health", True),
    ("/static/", True),
    ("/static/a/b.css", True),
    ("/static/.hidden", True),
    ("/static/a..b", True),
    ("/static/100%", True),
    ("/static//a.css", True),
    ("/grün", True),
    ("/", False),
    ("/health/", False),
    ("/healthy", False),
    ("/static", False),
    ("/static/../secret", False),
    ("/static/./secret", False),
    ("/static//../secret", False),
    ("/static/..", False),
    ("/static/a/../../secret", False),
    ("/static/%2e%2e/secret", False),
    ("/static/%2E./secret", False),
    ("/static/%252e%252e/secret", False),
    ("/static/..%2fsecret", False),
    ("/static/..\\secret", False),
    ("/static/..%5csecret", False),
    ("/static/..;/secret", False),
    ("/static/..;a=b/secret", False),
    ("/static/%252525252525252e", False),
    ("/%2fhealth", False),
    ("/%2f%2fstatic/x", False),
    ("/%73tatic/x", False),
    ("/health%2f", False),
]

# Flask joins leading slashes, so its extension compares the joined path. Other routers do not.
LEADING_SLASHES = ["//health", "///health", "//static/x", "///static/a.css"]


def exempt_in_asgi(gate, path):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": path, "headers": [], "method": "GET"}
    asyncio.run(asgi.GateMiddleware(app, gate, exempt=EXEMPT)(scope, None, send))
    return sent[0]["status"] == 200


def exempt_in_wsgi(gate, path):
    def app(environ, start_response):
        start_response("200 OK", [])
        return []

    started = []
    environ = {"PATH_INFO": path.encode().decode("latin-1"), "REQUEST_METHOD": "GET"}
    wsgi.GateMiddleware(app, gate, exempt=EXEMPT)(environ, lambda status, _: started.append(status))
    return started[0].startswith("200")


def exempt_in_flask_behind_wsgi(gate, path):
    app = Flask("tests", static_folder=None)
    app.wsgi_app = wsgi.GateMiddleware(app.wsgi_app, gate, exempt=EXEMPT)
    return is_open_in_flask(app, path)


def exempt_in_django(gate, path):
    middleware = django.GateMiddleware(lambda request: HttpResponse())
    request = RequestFactory().get("/")
    request.path_info = path
    return middleware(request).status_code == 200


def exempt_in_flask(gate, path):
    app = Flask("tests", static_folder=None)
    flask.GateExtension(gate, app, exempt=EXEMPT)
    return is_open_in_flask(app, path)


def is_open_in_flask(app, path):
    app.add_url_rule("/<path:_>", view_func=lambda _: "any")
    environ = {"PATH_INFO": path.encode().decode("latin-1")}
    return app.test_client().get("/", environ_overrides=environ).status_code in (200, 308)


@pytest.fixture
def gate(tmp_path, pepper):
    gate = Gate.create(tmp_path / "api.gate", pepper=pepper, keys=64)
    tables = {"GATE": {"PATH": gate.path, "PEPPER": pepper, "EXEMPT": EXEMPT}}
    with override_settings(KEYTALLY=tables, MIDDLEWARE=django_app.MIDDLEWARE):
        yield gate


@pytest.mark.parametrize(("path", "expected"), PATHS)
@pytest.mark.parametrize(
    "is_exempt", [exempt_in_asgi, exempt_in_wsgi, exempt_in_django, exempt_in_flask]
)
def test_dot_segments_are_never_exempt(gate, is_exempt, path, expected):
    assert is_exempt(gate, path) == expected


@pytest.mark.parametrize("path", LEADING_SLASHES)
@pytest.mark.parametrize(
    "is_exempt", [exempt_in_asgi, exempt_in_wsgi, exempt_in_django, exempt_in_flask_behind_wsgi]
)
def test_leading_slashes_are_not_joined(gate, is_exempt, path):
    assert not is_exempt(gate, path)


@pytest.mark.parametrize("path", ["//health", "//static/x", "/%2fhealth", "/%2F%2Fstatic/x"])
def test_catch_all_route_is_not_exempt(gate, path):
    """The server decodes the path once. FastAPI and Django route the result."""
    api = FastAPI()
    api.add_api_route("/health", lambda: "open")
    api.add_api_route("/{path:path}", lambda path: f"protected {path}")
    api.add_middleware(asgi.GateMiddleware, gate=gate, exempt=EXEMPT)
    client = TestClient(api)
    assert client.get("/health").status_code == 200
    assert client.get(f"http://testserver{path}").status_code == 401
    with override_settings(
        ROOT_URLCONF=(django_path("<path:_>", lambda request, _: HttpResponse("secret")),)
    ):
        assert Client().get("/health").status_code == 200
        assert Client().get("/", PATH_INFO=unquote(path)).status_code == 401


def test_flask_routes_leading_slashes_as_one(gate):
    app = Flask("tests", static_folder=None)
    flask.GateExtension(gate, app, exempt=EXEMPT)
    app.add_url_rule("/health", "open", lambda: "open")
    app.add_url_rule("/<path:_>", "protected", lambda _: "protected")
    client = app.test_client()
    for path, expected in [("//health", (200, "open")), ("///health", (200, "open"))]:
        response = client.get("/", environ_overrides={"PATH_INFO": path})
        assert (response.status_code, response.text) == expected
    assert client.get("/", environ_overrides={"PATH_INFO": "//secret"}).status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "/a/../b",
        "/./a",
        "/a/..",
        "//a",
        "/a//b",
        "/a%20b",
        "/health?x=1",
        "/a#b",
        "/a\\b",
        "/a/../*",
    ],
)
def test_unmatchable_exempt_path_is_rejected(gate, pepper, path):
    for make in (
        lambda: asgi.GateMiddleware(None, gate, exempt=[path]),
        lambda: wsgi.GateMiddleware(None, gate, exempt=[path]),
        lambda: flask.GateExtension(gate, exempt=[path]),
    ):
        with pytest.raises(ValueError, match="cannot be exempt"):
            make()
    changed = override_settings(
        KEYTALLY={"GATE": {"PATH": gate.path, "PEPPER": pepper, "EXEMPT": [path]}}
    )
    with changed, pytest.raises(ImproperlyConfigured, match="cannot be exempt"):
        django.GateMiddleware(lambda request: None)


def test_wrapped_exempt_view_is_exempt(gate):
    app = Flask("tests")
    extension = flask.GateExtension(gate, app)

    def shouting(view):
        @functools.wraps(view)
        def wrapper():
            return view().upper()

        return wrapper

    @app.get("/")
    @shouting
    @extension.exempt
    def home():
        return "home"

    assert app.test_client().get("/").data == b"HOME"


def test_hidden_exempt_view_raises(gate):
    app = Flask("tests")
    app.testing = True
    extension = flask.GateExtension(gate, app)

    def hiding(view):
        return lambda: view()

    @extension.exempt
    def home():
        return "home"

    app.add_url_rule("/", "home", hiding(home))
    app.add_url_rule("/other", view_func=lambda: "other")
    for path in ("/", "/other"):
        with pytest.raises(
            RuntimeError, match=r"home is exempt, but a decorator above it hides that"
        ):
            app.test_client().get(path)


def test_exempt_method_raises_type_error(gate):
    extension = flask.GateExtension(gate)
    with pytest.raises(TypeError, match=r"View\.get is a method"):

        class View(MethodView):
            @extension.exempt
            def get(self):
                return ""


def test_exempt_view_class_is_exempt(gate):
    app = Flask("tests")
    extension = flask.GateExtension(gate, app)

    @extension.exempt
    class View(MethodView):
        def get(self):
            return "open"

    app.add_url_rule("/", view_func=View.as_view("view"))
    assert app.test_client().get("/").data == b"open"


def test_exempt_views_of_two_applications_are_exempt(gate):
    extension = flask.GateExtension(gate)
    apps = [Flask("one"), Flask("two")]
    for number, app in enumerate(apps):
        extension.init_app(app)
        app.add_url_rule("/", view_func=extension.exempt(lambda number=number: str(number)))
    assert [app.test_client().get("/").data for app in apps] == [b"0", b"1"]


def test_caller_of_exempt_view_raises_nothing(gate):
    app = flask_app.make(gate)
    assert app.test_client().get("/open").status_code == 200
