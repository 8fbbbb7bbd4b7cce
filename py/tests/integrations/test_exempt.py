"""Exempt paths: none leads out of an exempt folder, and none is named in vain."""

import asyncio
import functools

import django_app
import flask_app
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse
from django.test import RequestFactory, override_settings
from flask import Flask
from flask.views import MethodView

from keytally import Gate, asgi, django, flask, wsgi

EXEMPT = ["/health", "/static/*", "/grün"]

# The path as the framework routes it, decoded once; whether it is exempt.
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
]


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


def exempt_in_django(gate, path):
    middleware = django.GateMiddleware(lambda request: HttpResponse())
    request = RequestFactory().get("/")
    request.path_info = path
    return middleware(request).status_code == 200


def exempt_in_flask(gate, path):
    app = Flask("tests", static_folder=None)
    flask.GateExtension(gate, app, exempt=EXEMPT)
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
@pytest.mark.parametrize("is_exempt", [exempt_in_asgi, exempt_in_wsgi, exempt_in_django, exempt_in_flask])
def test_no_path_leads_out_of_an_exempt_folder(gate, is_exempt, path, expected):
    assert is_exempt(gate, path) == expected


@pytest.mark.parametrize(
    "path", ["/a/../b", "/./a", "/a/..", "//a", "/a//b", "/a%20b", "/health?x=1", "/a#b", "/a\\b", "/a/../*"]
)
def test_a_path_that_never_matches_is_refused_at_start(gate, pepper, path):
    for make in (
        lambda: asgi.GateMiddleware(None, gate, exempt=[path]),
        lambda: wsgi.GateMiddleware(None, gate, exempt=[path]),
        lambda: flask.GateExtension(gate, exempt=[path]),
    ):
        with pytest.raises(ValueError, match="can't be exempt"):
            make()
    changed = override_settings(KEYTALLY={"GATE": {"PATH": gate.path, "PEPPER": pepper, "EXEMPT": [path]}})
    with changed, pytest.raises(ImproperlyConfigured, match="can't be exempt"):
        django.GateMiddleware(lambda request: None)


def test_an_exempt_view_may_be_wrapped(gate):
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


def test_an_exempt_view_that_a_decorator_hides_is_an_error(gate):
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
        with pytest.raises(RuntimeError, match=r"home is exempt, but a decorator above it hides that"):
            app.test_client().get(path)


def test_an_exempt_method_is_an_error(gate):
    extension = flask.GateExtension(gate)
    with pytest.raises(TypeError, match=r"View\.get is a method"):

        class View(MethodView):
            @extension.exempt
            def get(self):
                return ""


def test_a_class_of_views_can_be_exempt(gate):
    app = Flask("tests")
    extension = flask.GateExtension(gate, app)

    @extension.exempt
    class View(MethodView):
        def get(self):
            return "open"

    app.add_url_rule("/", view_func=View.as_view("view"))
    assert app.test_client().get("/").data == b"open"


def test_a_view_of_another_application_is_no_error(gate):
    extension = flask.GateExtension(gate)
    apps = [Flask("one"), Flask("two")]
    for number, app in enumerate(apps):
        extension.init_app(app)
        app.add_url_rule("/", view_func=extension.exempt(lambda number=number: str(number)))
    assert [app.test_client().get("/").data for app in apps] == [b"0", b"1"]


def test_a_view_that_calls_an_exempt_one_is_no_error(gate):
    app = flask_app.make(gate)
    assert app.test_client().get("/open").status_code == 200
