"""One application in each framework behind one integration, for options that all of them have.

Its paths are `/200` and other statuses, `/raise`, `/stream` with the parts `one` and `two`, and
`/broken`, whose stream raises after the first part. `/endless` sends parts until the client leaves.
"""

import asyncio
import contextlib
import time
from wsgiref.util import setup_testing_defaults

import django_app
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, StreamingHttpResponse
from django.test import override_settings
from django.urls import path as django_path
from fastapi import Depends, FastAPI
from flask import Flask
from flask import Response as FlaskResponse
from rest_framework.decorators import api_view, authentication_classes, throttle_classes
from starlette.applications import Starlette
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from keytally import Gate, asgi, fastapi, flask, wsgi
from keytally.rest_framework import KeyAuthentication, LimiterThrottle

ADDRESS = "203.0.113.9"
METHODS = ["GET", "POST", "OPTIONS"]


def parts_of(kind):
    """Return the parts of a response: `None` if it is not streamed."""
    if kind == "raise":
        raise LookupError("of the application")
    return parts(kind) if kind in ("stream", "broken", "endless") else None


def parts(kind):
    yield b"one"
    # They end, in case a server does not detect that the client left.
    for _ in range(3000 if kind == "endless" else 0):
        yield bytes(65536)
        time.sleep(0.01)
    if kind == "broken":
        raise LookupError("of the application")
    yield b"two"


class Answer:
    """What a server got from an application: `status` is 500 if it raised before the response."""

    def __init__(self):
        self.status, self.headers, self.body = 500, [], b""

    def __iter__(self):
        return iter((self.status, self.headers, self.body))


def run_wsgi(app, path, headers=None, method="GET", address=ADDRESS, leaves=False):
    """Send a request as a WSGI server does. A client that leaves reads one part of the body."""
    answer = Answer()
    environ = {"PATH_INFO": path, "REQUEST_METHOD": method, "REMOTE_ADDR": address}
    for name, value in (headers or {}).items():
        environ["HTTP_" + name.upper().replace("-", "_")] = value
    setup_testing_defaults(environ)

    def start_response(status, fields, exc_info=None):
        answer.status, answer.headers = int(status[:3]), fields

    with contextlib.suppress(LookupError):
        body = app(environ, start_response)
        try:
            for part in body:
                answer.body += part
                if leaves:
                    break
        finally:
            if hasattr(body, "close"):
                body.close()
    return answer


def run_asgi(
    app, path, headers=None, method="GET", address=ADDRESS, leaves=False, spec_version="2.3"
):
    """Send a request as an ASGI server does. A client that leaves reads one part of the body."""
    answer = Answer()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": spec_version},
        "http_version": "1.1",
        "scheme": "http",
        "server": ("testserver", 80),
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "client": (address, 40000),
        "headers": [
            (name.lower().encode(), value.encode()) for name, value in (headers or {}).items()
        ],
    }

    async def run():
        gone, messages = asyncio.Event(), [{"type": "http.request", "body": b""}]

        async def receive():
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            if gone.is_set():
                raise OSError("the client closed the connection")
            if message["type"] == "http.response.start":
                answer.status, answer.headers = message["status"], message["headers"]
            elif message.get("body"):
                answer.body += message["body"]
                if leaves:
                    gone.set()
                    await asyncio.sleep(0.01)

        # Starlette wraps this OSError in an exception of its own.
        with contextlib.suppress(LookupError, OSError, Exception if leaves else ()):
            await app(scope, receive, send)

    asyncio.run(run())
    return answer


def is_gate(table):
    return isinstance(table, Gate)


async def starlette_view(request):
    kind = request.path_params["kind"]
    streamed = parts_of(kind)
    return Response("hello", int(kind)) if streamed is None else StreamingResponse(streamed)


def in_asgi(table, **options):
    app = Starlette(routes=[Route("/{kind}", starlette_view, methods=METHODS)])
    made = asgi.GateMiddleware if is_gate(table) else asgi.LimiterMiddleware
    return runner(run_asgi, made(app, table, **options))


def in_fastapi(table, **options):
    made = fastapi.require_key if is_gate(table) else fastapi.limit
    app = FastAPI()

    @app.api_route("/{kind}", methods=METHODS, dependencies=[Depends(made(table, **options))])
    def view(kind: str):
        streamed = parts_of(kind)
        return Response("hello", int(kind)) if streamed is None else StreamingResponse(streamed)

    return runner(run_asgi, asgi.VerdictMiddleware(app))


def in_wsgi(table, **options):
    def app(environ, start_response):
        kind = environ["PATH_INFO"][1:]
        streamed = parts_of(kind)
        length = [] if streamed else [("Content-Length", "5")]
        start_response(f"{200 if streamed else kind} Reason", length)
        return [b"hello"] if streamed is None else streamed

    made = wsgi.GateMiddleware if is_gate(table) else wsgi.LimiterMiddleware
    return runner(run_wsgi, made(app, table, **options))


def flask_view(kind):
    streamed = parts_of(kind)
    return FlaskResponse("hello", int(kind)) if streamed is None else FlaskResponse(streamed)


def in_flask(table, **options):
    app = Flask("tests", static_folder=None)
    (flask.GateExtension if is_gate(table) else flask.LimiterExtension)(table, app, **options)
    app.add_url_rule(
        "/<kind>", view_func=flask_view, methods=METHODS, provide_automatic_options=False
    )
    return runner(run_wsgi, app)


def in_flask_that_propagates(table, **options):
    """The server gets the exception of a view, and Flask has no response."""
    app = Flask("tests", static_folder=None)
    app.config["PROPAGATE_EXCEPTIONS"] = True
    made = (flask.require_key if is_gate(table) else flask.limit)(table, **options)
    app.add_url_rule(
        "/<kind>", view_func=made(flask_view), methods=METHODS, provide_automatic_options=False
    )
    return runner(run_wsgi, app)


def in_flask_decorator(table, **options):
    app = Flask("tests", static_folder=None)
    made = (flask.require_key if is_gate(table) else flask.limit)(table, **options)
    app.add_url_rule(
        "/<kind>", view_func=made(flask_view), methods=METHODS, provide_automatic_options=False
    )
    return runner(run_wsgi, app)


# The pepper of each gate, by the path of the gate.
PEPPER = {}


def tables_of(table, options):
    """Return the settings of Django for a table."""
    found = {name.upper(): value for name, value in options.items()}
    if table.fleet is not None:
        found = {**found, "FLEET": table.fleet, "CREDIT_WAIT": table.credit_wait_s}
    if is_gate(table):
        return {"GATE": {"PATH": table.path, "PEPPER": PEPPER[table.path], **found}}
    policy = ", ".join(f"{quota.limit}/{quota.window}s" for quota in table.policy.quotas)
    return {"LIMITER": {"PATH": table.path, "POLICY": policy, "CAPACITY": table.capacity, **found}}


def django_view(request, kind):
    streamed = parts_of(kind)
    if streamed is None:
        return HttpResponse("hello", status=int(kind))
    return StreamingHttpResponse(streamed)


async def async_parts(kind):
    for part in parts(kind):
        yield part
        await asyncio.sleep(0)


async def async_django_view(request, kind):
    if parts_of(kind) is None:
        return HttpResponse("hello", status=int(kind))
    return StreamingHttpResponse(async_parts(kind))


def django_runner(run, application, view, tables, middleware):
    changes = {
        "KEYTALLY": tables,
        "MIDDLEWARE": middleware,
        "ROOT_URLCONF": (django_path("<kind>", view),),
    }

    def fetch(path, headers=None, **more):
        with override_settings(**changes):
            return run(application(), path, headers, **more)

    def serve():
        override_settings(**changes).enable()
        return application()

    with override_settings(**changes):
        # Invalid settings raise here.
        application()
    fetch.serve = serve
    return fetch


def middleware_of(table):
    name = "GateMiddleware" if is_gate(table) else "LimiterMiddleware"
    return [f"keytally.django.{name}"]


def in_django(table, **options):
    tables = tables_of(table, options)
    return django_runner(run_wsgi, get_wsgi_application, django_view, tables, middleware_of(table))


def in_django_async(table, **options):
    tables = tables_of(table, options)
    return django_runner(
        run_asgi, get_asgi_application, async_django_view, tables, middleware_of(table)
    )


# The options that are attributes of the classes for REST framework.
OF_CLASS = {"settle", "refund", "charge_on", "cost", "refusal", "group", "costs", "need"}


def in_rest_framework(table, **options):
    of_class = {
        name: staticmethod(value) if callable(value) else value
        for name, value in options.items()
        if name in OF_CLASS
    }
    of_settings = {name: value for name, value in options.items() if name not in of_class}
    if is_gate(table):
        made = type("Authentication", (KeyAuthentication,), of_class)
        uses = authentication_classes([made]), throttle_classes([])
    else:
        made = type("Throttle", (LimiterThrottle,), of_class)
        uses = authentication_classes([]), throttle_classes([made])
    view = django_view
    for decorate in uses:
        view = decorate(view)
    return django_runner(
        run_wsgi,
        get_wsgi_application,
        api_view(METHODS)(view),
        tables_of(table, of_settings),
        django_app.REST_FRAMEWORK_MIDDLEWARE,
    )


def runner(run, app):
    def fetch(path, headers=None, **more):
        return run(app, path, headers, **more)

    # Returns the application, for a server.
    fetch.serve = lambda: app
    return fetch


# The integrations that can await functions of the application.
AWAITING = [in_asgi, in_fastapi, in_django_async]
# The integrations with `exempt` and `exempt_methods`.
WHOLE = [in_asgi, in_wsgi, in_flask, in_django, in_django_async]
ALL = [*WHOLE, in_fastapi, in_flask_decorator, in_flask_that_propagates, in_rest_framework]
