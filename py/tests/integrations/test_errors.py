"""The header fields of the response with status 500 to an unhandled exception."""

import re
from pathlib import Path

import contract
import django_app
import flask_app
import pytest
from django.test import Client, override_settings
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import Route
from werkzeug.test import Client as WsgiClient

from keytally import asgi, wsgi
from keytally.fastapi import require_key


@pytest.fixture
def policy():
    return "9/31d"


def assert_failed(status, headers):
    assert (status, contract.fields(headers)["x-ratelimit-remaining"]) == (500, "8")


def raising(*_):
    raise LookupError("of the application")


ORIGIN = "https://example.com"


def of_page(block, gate):
    """Return the application that a code block of docs/INTEGRATIONS.md creates."""
    text = Path(__file__).parents[3].joinpath("docs/INTEGRATIONS.md").read_text()
    code = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[block]
    names = {
        "app": Starlette(routes=[Route("/", lambda _: Response("hello")), Route("/fail", raising)]),
        "gate": gate,
        "GateMiddleware": asgi.GateMiddleware,
        "VerdictMiddleware": asgi.VerdictMiddleware,
        "CORSMiddleware": CORSMiddleware,
    }
    exec(code, names)
    return names["app"]


def of_starlette(gate):
    return of_page(0, gate)


def of_fastapi(gate):
    app = FastAPI()

    @app.get("/fail", dependencies=[Depends(require_key(gate))])
    def fail():
        raise LookupError("of the application")

    return asgi.VerdictMiddleware(app)


@pytest.mark.parametrize("make", [of_starlette, of_fastapi])
def test_500_of_wrapped_application_has_header_fields(gate, key, make):
    client = TestClient(make(gate), raise_server_exceptions=False)
    response = client.get("/fail", headers=contract.presenting(key.expose()))
    assert_failed(response.status_code, response.headers.multi_items())


@pytest.mark.parametrize(("block", "origin_of_500"), [(0, None), (1, ORIGIN)])
def test_wrapped_application_has_cors_fields(gate, key, block, origin_of_500):
    client = TestClient(
        of_page(block, gate), raise_server_exceptions=False, headers={"Origin": ORIGIN}
    )
    preflight = {
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "X-API-Key",
    }
    presented = contract.presenting(key.expose())
    for method, path, headers, status, left, origin in [
        ("OPTIONS", "/", preflight, 200, None, ORIGIN),
        ("GET", "/", {}, 401, None, ORIGIN),
        ("GET", "/", presented, 200, "8", ORIGIN),
        ("GET", "/fail", presented, 500, "7", origin_of_500),
    ]:
        response = client.request(method, path, headers=headers)
        found = response.headers.get("access-control-allow-origin")
        assert (response.status_code, found) == (status, origin)
        assert response.headers.get("x-ratelimit-remaining") == left


def test_500_of_flask_has_header_fields(gate, key):
    response = (
        flask_app.make(gate).test_client().get("/fail", headers=contract.presenting(key.expose()))
    )
    assert_failed(response.status_code, list(response.headers))


@pytest.mark.parametrize("path", ["/fail", "/failing"])
def test_500_of_django_has_header_fields(gate, key, pepper, path):
    middleware = {"/fail": django_app.MIDDLEWARE, "/failing": django_app.REST_FRAMEWORK_MIDDLEWARE}[
        path
    ]
    tables = {"GATE": {"PATH": gate.path, "PEPPER": pepper}}
    with override_settings(KEYTALLY=tables, MIDDLEWARE=middleware):
        client = Client(raise_request_exception=False)
        response = client.get(path, headers=contract.presenting(key.expose()))
    assert_failed(response.status_code, list(response.items()))


def test_500_of_wsgi_error_handler_has_header_fields(gate, key):
    def errors(app):
        def application(environ, start_response):
            try:
                return app(environ, start_response)
            except LookupError:
                start_response("500 Internal Server Error", [])
                return []

        return application

    client = WsgiClient(wsgi.GateMiddleware(errors(raising), gate))
    response = client.get("/", headers=contract.presenting(key.expose()))
    assert_failed(response.status_code, list(response.headers))
