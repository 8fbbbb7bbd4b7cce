"""Charges by outcome: refunded, settled or made after the response, in every framework."""

import asyncio
import contextlib
import logging
from wsgiref.util import setup_testing_defaults

import django_app
import frameworks
import pytest
from django.http import FileResponse, HttpResponse
from flask import Flask, request
from flask import Response as FlaskResponse
from frameworks import flask_view

from keytally import Sent, asgi, fastapi, flask, wsgi
from keytally.rest_framework import KeyAuthentication, LimiterThrottle

LIMIT = 9

# Django does not close the file of a request's body if sending the response raises an exception.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <function SpooledTemporary")


@pytest.fixture
def policy():
    return f"{LIMIT}/31d"


@pytest.mark.parametrize("make", frameworks.ALL)
@pytest.mark.parametrize(
    ("path", "leaves", "is_refunded"),
    [
        ("/200", False, False),
        ("/404", False, False),
        ("/503", False, True),
        ("/raise", False, True),
        ("/stream", False, False),
        ("/broken", False, True),
        ("/stream", True, False),
    ],
)
def test_refund_of_5xx_gives_failures_back(make, gate, headers, spent, path, leaves, is_refunded):
    fetch = make(gate, cost=3, refund="5xx")
    status, _, _ = fetch(path, headers, leaves=leaves)
    assert status == {"/raise": 500}.get(path, int(path[1:]) if path[1:].isdigit() else 200)
    assert spent() == (0 if is_refunded else 3)


@pytest.mark.parametrize("make", frameworks.ALL)
def test_refund_lists_statuses_and_classes(make, gate, headers, spent):
    fetch = make(gate, refund=[404, "5xx"])
    for path in ("/404", "/500", "/raise"):
        fetch(path, headers)
    assert spent() == 0
    fetch("/403", headers)
    assert spent() == 1


@pytest.mark.parametrize("make", frameworks.ALL)
def test_settle_replaces_the_estimate(make, gate, headers, spent):
    actual = []
    fetch = make(gate, cost=3, settle=lambda request, sent: actual.pop())
    for cost, charged in [(1, 1), (0, 1), (3, 4), (5, 9)]:
        actual.append(cost)
        assert fetch("/200", headers).status == 200
        assert spent() == charged


def seen(sent):
    return sent.status, sent.bytes, sent.is_complete, type(sent.exception), sent.cost


@pytest.mark.parametrize("make", frameworks.ALL)
@pytest.mark.parametrize(
    ("path", "leaves", "expected"),
    [
        ("/200", False, (200, 5, True, type(None), 2)),
        ("/404", False, (404, 5, True, type(None), 2)),
        ("/stream", False, (200, 6, True, type(None), 2)),
        ("/broken", False, (200, 3, False, LookupError, 2)),
        ("/stream", True, (200, 3, False, type(None), 2)),
    ],
)
def test_settle_gets_what_was_sent(make, gate, headers, path, leaves, expected):
    found = []
    fetch = make(gate, cost=2, settle=lambda request, sent: found.append(seen(sent)) or 1)
    fetch(path, headers, leaves=leaves)
    assert found == [expected]


@pytest.mark.parametrize("make", frameworks.ALL)
def test_settle_of_exception_gets_status_500(make, gate, headers, spent):
    found = []
    fetch = make(gate, cost=2, settle=lambda request, sent: found.append(sent.status) or 1)
    fetch("/raise", headers)
    assert (found, spent()) == ([500], 1)


@pytest.mark.parametrize("make", frameworks.ALL)
def test_settle_is_not_called_for_refusals(make, gate, headers):
    found = []
    fetch = make(gate, cost=LIMIT, settle=lambda request, sent: found.append(sent.status) or LIMIT)
    statuses = [fetch("/200", sent).status for sent in ({}, headers, headers)]
    assert (statuses, found) == ([401, 200, 429], [200])


@pytest.mark.parametrize("make", frameworks.ALL)
@pytest.mark.parametrize("actual", [-1, 2**32, 1.5, "1", None, LookupError])
def test_failing_settle_keeps_the_estimate(make, gate, headers, spent, caplog, actual):
    def settle(request, sent):
        if actual is LookupError:
            raise LookupError("of the application")
        return actual

    with caplog.at_level(logging.ERROR, "keytally"):
        assert make(gate, cost=3, settle=settle)("/200", headers).status == 200
    assert spent() == 3
    assert "settle raised an exception" in caplog.text
    assert headers["X-API-Key"] not in caplog.text


@pytest.mark.parametrize("make", frameworks.AWAITING)
@pytest.mark.parametrize("path", ["/200", "/stream", "/raise"])
def test_async_settle_is_awaited(make, gate, headers, spent, path):
    async def settle(request, sent):
        await asyncio.sleep(0)
        return 1

    make(gate, cost=3, settle=settle)(path, headers)
    assert spent() == 1


@pytest.mark.parametrize("make", frameworks.ALL)
def test_refund_takes_precedence_over_settle(make, gate, headers, spent):
    fetch = make(gate, cost=3, refund=[503], settle=lambda request, sent: 1)
    fetch("/503", headers)
    assert spent() == 0
    fetch("/200", headers)
    assert spent() == 1


@pytest.mark.parametrize("make", frameworks.ALL)
def test_refund_gives_the_charge_of_a_limiter_back(make, limiter):
    fetch = make(limiter, refund="5xx")
    assert [fetch("/503").status for _ in range(4)] == [503] * 4
    assert [fetch("/200").status for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize("make", frameworks.ALL)
def test_limiter_of_failures_counts_only_them(make, limiter):
    fetch = make(limiter, charge_on=[401, 403])
    paths = ["/200", "/401", "/200", "/404", "/403", "/200"]
    assert [fetch(path).status for path in paths] == [200, 401, 200, 404, 403, 429]
    assert fetch("/200", address="203.0.113.10").status == 200
    assert limiter.peek(frameworks.ADDRESS, 0).remaining == 0


@pytest.mark.parametrize("make", frameworks.ALL)
def test_limiter_of_failures_counts_exceptions_as_500(make, limiter):
    fetch = make(limiter, charge_on="5xx")
    assert [fetch(path).status for path in ("/raise", "/broken", "/200")] == [500, 200, 429]


def test_client_that_leaves_before_the_response_pays(gate, key, spent):
    """The server cancels the application, or the application finds the connection closed."""

    async def cancelled(scope, receive, send):
        raise asyncio.CancelledError

    async def disconnected(scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass
        raise LookupError("of the application")

    async def receive():
        return {"type": "http.disconnect"}

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [(b"x-api-key", key.expose().encode())],
    }
    found = []

    def settle(_, sent):
        found.append((sent.status, sent.exception))
        return 1

    for app in (cancelled, disconnected):
        made = asgi.GateMiddleware(app, gate, refund="5xx", settle=settle)
        with pytest.raises((asyncio.CancelledError, LookupError)):
            asyncio.run(made(scope, receive, None))
    assert (found, spent()) == ([(None, None)] * 2, 2)


@pytest.mark.parametrize("began", [False, True])
def test_response_to_a_client_that_left_does_not_count(gate, key, spent, began):
    """A framework sends a 500 if the client closes the connection while the body is read."""

    async def app(scope, receive, send):
        if began:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"one", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        if not began:
            await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"error"})

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        pass

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "headers": [(b"x-api-key", key.expose().encode())],
    }
    found = []

    def settle(_, sent):
        found.append((sent.status, sent.bytes, sent.is_complete))
        return 1

    made = asgi.GateMiddleware(app, gate, refund="5xx", settle=settle)
    asyncio.run(made(scope, receive, send))
    assert (found, spent()) == ([(200, 3, False) if began else (None, 0, False)], 1)


def test_client_that_leaves_does_not_avoid_a_charge_by_status(limiter):
    async def app(scope, receive, send):
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body"})

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        pass

    made = asgi.LimiterMiddleware(app, limiter, charge_on=401)
    client = (frameworks.ADDRESS, 40000)
    scope = {"type": "http", "method": "POST", "path": "/", "client": client, "headers": []}
    before = limiter.peek(frameworks.ADDRESS, 0).remaining
    asyncio.run(made(scope, receive, send))
    assert limiter.peek(frameworks.ADDRESS, 0).remaining == before - 1


class Unreadable:
    """The body of a request whose client closes the connection, or sends an invalid chunk."""

    def read(self, *size):
        raise OSError("the client closed the connection")

    readline = readlines = read


def run_unreadable(app, path, headers):
    environ = {
        "wsgi.input": Unreadable(),
        "CONTENT_LENGTH": "5",
        "PATH_INFO": path,
        "REQUEST_METHOD": "POST",
        "HTTP_X_API_KEY": headers["X-API-Key"],
    }
    setup_testing_defaults(environ)
    with contextlib.suppress(OSError):
        body = app(environ, lambda status, fields, exc_info=None: None)
        list(body)
        body.close()


def reading_in_wsgi(gate, **options):
    def app(environ, start_response):
        environ["wsgi.input"].read(5)

    return frameworks.runner(run_unreadable, wsgi.GateMiddleware(app, gate, **options))


def reading_in_flask(gate, **options):
    app = Flask("tests", static_folder=None)
    flask.GateExtension(gate, app, **options)
    app.add_url_rule("/<kind>", view_func=lambda kind: request.get_data(), methods=["POST"])
    return frameworks.runner(run_unreadable, app)


def reading_in_django(gate, **options):
    return frameworks.django_runner(
        run_unreadable,
        frameworks.get_wsgi_application,
        lambda request, kind: HttpResponse(request.body),
        frameworks.tables_of(gate, options),
        django_app.MIDDLEWARE,
    )


@pytest.mark.parametrize("make", [reading_in_wsgi, reading_in_flask, reading_in_django])
def test_client_whose_body_cannot_be_read_pays(make, gate, headers, spent):
    found = []

    def settle(_, sent):
        found.append((sent.status, sent.is_complete, sent.exception))
        return sent.cost

    make(gate, refund="5xx", settle=settle)("/200", headers)
    assert (found, spent()) == ([(None, False, None)], 1)


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
def test_client_that_leaves_a_stream_pays(gate, headers, spent, spec_version):
    """Starlette cancels the stream, or gets an exception of `send`."""
    fetch = frameworks.in_asgi(gate, refund="5xx")
    fetch("/stream", headers, leaves=True, spec_version=spec_version)
    assert spent() == 1


def test_response_of_the_outermost_integration_decides(gate, headers, spent):
    """Middleware between two integrations may replace the response."""

    async def hello(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    inner = asgi.GateMiddleware(hello, gate, refund="5xx")

    async def failing(scope, receive, send):
        async def fail(message):
            await send({**message, "status": 503} if "status" in message else message)

        await inner(scope, receive, fail)

    frameworks.run_asgi(asgi.VerdictMiddleware(failing), "/", headers)
    assert spent() == 0
    frameworks.run_asgi(failing, "/", headers)
    assert spent() == 1


def failing(response):
    raise LookupError("of the application")


def changing(response):
    response.status_code = 500
    return response


def replacing(response):
    return FlaskResponse("busy", 503)


@pytest.mark.parametrize("propagates", [False, True])
@pytest.mark.parametrize("after", [failing, changing, replacing])
@pytest.mark.parametrize("path", ["/200", "/stream"])
def test_flask_settles_by_the_response_that_is_sent(gate, headers, spent, propagates, after, path):
    """Functions of `after_request` may replace the response of a view."""
    found = []
    app = Flask("tests", static_folder=None)
    app.config["PROPAGATE_EXCEPTIONS"] = propagates
    app.after_request(after)

    def settle(request, sent):
        found.append(sent.status)
        return 1

    app.add_url_rule("/<kind>", view_func=flask.require_key(gate, settle=settle)(flask_view))
    status, fields, _ = frameworks.run_wsgi(app, path, headers)
    assert (found, spent()) == ([status], 1)
    assert status == (503 if after is replacing else 500)
    if not (propagates and after is failing):
        assert dict(fields)["X-RateLimit-Remaining"] == str(LIMIT - 1)


def test_flask_view_may_call_another_application(gate, headers, spent):
    def view(kind):
        inner = Flask("inner", static_folder=None)
        inner.add_url_rule("/<kind>", view_func=lambda kind: ("hello", 200))
        inner.wsgi_app(request.environ, lambda status, fields, exc_info=None: None)
        return "failed", 503

    app = Flask("tests", static_folder=None)
    app.add_url_rule("/<kind>", view_func=flask.require_key(gate, refund="5xx")(view))
    assert frameworks.run_wsgi(app, "/200", headers).status == 503
    assert spent() == 0


def test_wsgi_list_is_returned_unchanged(gate, headers):
    """A server sets Content-Length by the length of the list."""
    body = [b"hello"]

    def app(environ, start_response):
        start_response("200 OK", [])
        return body

    environ = {"HTTP_X_API_KEY": headers["X-API-Key"], "REQUEST_METHOD": "GET"}
    made = wsgi.GateMiddleware(app, gate, refund="5xx")
    assert made(environ, lambda status, fields: None) is body


def test_wsgi_write_is_counted(gate, headers):
    found = []

    def app(environ, start_response):
        start_response("200 OK", [])(b"hello")
        return iter([b"!"])

    environ = {"HTTP_X_API_KEY": headers["X-API-Key"], "REQUEST_METHOD": "GET"}
    made = wsgi.GateMiddleware(app, gate, settle=lambda _, sent: found.append(sent.bytes) or 1)
    assert list(made(environ, lambda status, fields: lambda part: None)) == [b"!"]
    assert found == [6]


def test_file_of_django_is_sent_by_the_server(gate, headers, tmp_path):
    """Without an option that needs the end of the body, the server gets the file itself."""
    path = tmp_path / "file"
    path.write_bytes(b"hello")
    found = []

    def view(request, kind):
        found.append(FileResponse(path.open("rb")))
        return found[-1]

    for options, is_file in [({}, True), ({"refund": "5xx"}, False)]:
        fetch = frameworks.django_runner(
            frameworks.run_wsgi,
            frameworks.get_wsgi_application,
            view,
            frameworks.tables_of(gate, options),
            django_app.MIDDLEWARE,
        )
        assert fetch("/file", headers).body == b"hello"
        assert (found[-1].file_to_stream is not None) == is_file


def test_websocket_keeps_its_charge(gate, key, spent):
    async def app(scope, receive, send):
        raise LookupError("of the application")

    scope = {
        "type": "websocket",
        "path": "/",
        "headers": [(b"x-api-key", key.expose().encode())],
    }
    made = asgi.GateMiddleware(app, gate, refund="5xx")
    with pytest.raises(LookupError):
        asyncio.run(made(scope, None, None))
    assert spent() == 1


def test_dependency_without_verdict_middleware_raises(gate, headers):
    from fastapi import Depends, FastAPI

    app = FastAPI()
    app.get("/", dependencies=[Depends(fastapi.require_key(gate, refund="5xx"))])(lambda: "hello")
    with pytest.raises(RuntimeError, match=r"add keytally\.asgi\.VerdictMiddleware"):
        frameworks.run_asgi(app, "/", headers)


def test_rest_framework_without_middleware_raises(gate, headers, monkeypatch):
    monkeypatch.setattr(frameworks.django_app, "REST_FRAMEWORK_MIDDLEWARE", [])
    fetch = frameworks.in_rest_framework(gate, refund="5xx")
    assert fetch("/200", headers).status == 500


def test_sent_has_the_header_fields():
    sent = Sent(status=200, headers=[("A", "b")], bytes=1, is_complete=True, exception=None, cost=2)
    assert sent.headers == [("A", "b")]


async def settle_async(request, sent):
    return 1


CONSTRUCTORS = [
    lambda gate, limiter, **options: asgi.GateMiddleware(None, gate, **options),
    lambda gate, limiter, **options: asgi.LimiterMiddleware(None, limiter, **options),
    lambda gate, limiter, **options: wsgi.GateMiddleware(None, gate, **options),
    lambda gate, limiter, **options: wsgi.LimiterMiddleware(None, limiter, **options),
    lambda gate, limiter, **options: flask.GateExtension(gate, **options),
    lambda gate, limiter, **options: flask.LimiterExtension(limiter, **options),
    lambda gate, limiter, **options: flask.require_key(gate, **options),
    lambda gate, limiter, **options: flask.limit(limiter, **options),
    lambda gate, limiter, **options: fastapi.require_key(gate, **options),
    lambda gate, limiter, **options: fastapi.limit(limiter, **options),
    lambda gate, limiter, **options: type("Authentication", (KeyAuthentication,), options),
    lambda gate, limiter, **options: type("Throttle", (LimiterThrottle,), options),
    lambda gate, limiter, **options: frameworks.in_django(gate, **options),
    lambda gate, limiter, **options: frameworks.in_django(limiter, **options),
]


@pytest.mark.parametrize("make", CONSTRUCTORS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"refund": "6xx"}, "'6xx' in refund is not a status from 100 to 599"),
        ({"refund": ["5XX"]}, "'5XX' in refund is not a status from 100 to 599"),
        ({"refund": 99}, "99 in refund is not a status from 100 to 599"),
        ({"refund": 5.5}, "refund must be a status such as 503"),
        ({"settle": 1}, "settle must be a function that returns the actual cost, not int"),
    ],
)
def test_invalid_outcome_option_is_rejected(make, gate, limiter, options, message):
    with pytest.raises(Exception, match=message):
        make(gate, limiter, **options)


@pytest.mark.parametrize("make", [CONSTRUCTORS[index] for index in (1, 3, 5, 7, 9, 11, 13)])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"charge_on": []}, "charge_on is empty"),
        ({"charge_on": "4xxx"}, "'4xxx' in charge_on is not a status"),
        ({"charge_on": 401, "refund": 500}, "pass only one of charge_on, settle and refund"),
        ({"charge_on": 401, "settle": print}, "pass only one of charge_on, settle and refund"),
    ],
)
def test_invalid_charge_on_is_rejected(make, gate, limiter, options, message):
    with pytest.raises(Exception, match=message):
        make(gate, limiter, **options)


@pytest.mark.parametrize("make", [CONSTRUCTORS[index] for index in (2, 3, 4, 5, 6, 7, 10, 11)])
def test_sync_integration_rejects_async_settle(make, gate, limiter):
    with pytest.raises(TypeError, match="^settle is async"):
        make(gate, limiter, settle=settle_async)
