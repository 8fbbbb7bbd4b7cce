"""The header fields of a 500, where an application raises an exception that nothing handles."""

import contract
import django_app
import flask_app
import pytest
from django.test import Client, override_settings
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.routing import Route
from werkzeug.test import Client as WsgiClient

from keytally import Gate, asgi, wsgi
from keytally.fastapi import require_key


@pytest.fixture
def gate(tmp_path, pepper):
    return Gate.create(tmp_path / "api.gate", pepper=pepper, keys=64, plans={"default": "9/31d"})


def assert_failed(status, headers):
    assert (status, contract.fields(headers)["x-ratelimit-remaining"]) == (500, "8")


def raising(*_):
    raise LookupError("of the application")


def of_starlette(gate):
    """Wrap it, as the documentation says in one line."""
    app = Starlette(routes=[Route("/fail", raising)])
    return asgi.GateMiddleware(app, gate)


def of_fastapi(gate):
    app = FastAPI()

    @app.get("/fail", dependencies=[Depends(require_key(gate))])
    def fail():
        raise LookupError("of the application")

    return asgi.VerdictMiddleware(app)


@pytest.mark.parametrize("make", [of_starlette, of_fastapi])
def test_a_wrapped_application_has_them(gate, key, make):
    client = TestClient(make(gate), raise_server_exceptions=False)
    response = client.get("/fail", headers=contract.presenting(key.expose()))
    assert_failed(response.status_code, response.headers.multi_items())


def test_flask_has_them(gate, key):
    response = flask_app.make(gate).test_client().get("/fail", headers=contract.presenting(key.expose()))
    assert_failed(response.status_code, list(response.headers))


@pytest.mark.parametrize("path", ["/fail", "/failing"])
def test_django_and_rest_framework_have_them(gate, key, pepper, path):
    middleware = {"/fail": django_app.MIDDLEWARE, "/failing": django_app.OF_REST_FRAMEWORK}[path]
    tables = {"GATE": {"PATH": gate.path, "PEPPER": pepper}}
    with override_settings(KEYTALLY=tables, MIDDLEWARE=middleware):
        client = Client(raise_request_exception=False)
        response = client.get(path, headers=contract.presenting(key.expose()))
    assert_failed(response.status_code, list(response.items()))


def test_a_wsgi_application_that_answers_its_errors_has_them(gate, key):
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
