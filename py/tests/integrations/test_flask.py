"""Flask's extensions and decorators, by its test client."""

import contract
import flask_app
import pytest
from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from keytally.flask import LimiterExtension, limit, require_key


@pytest.fixture
def client(gate):
    return flask_app.make(gate).test_client()


def fetch(client, path, key=None, method="GET", **headers):
    if key is not None:
        headers["X-API-Key"] = key.expose()
    response = client.open(path, method=method, headers=headers)
    return response.status_code, response.headers.items(), response.data


def test_each_outcome_has_its_response(client, gate, key):
    contract.assert_each_outcome(
        lambda text: fetch(client, "/", **contract.presenting(text)), gate, key, b'"account":42'
    )


def test_exempt_paths_need_no_key(client):
    assert fetch(client, "/health")[0] == 200
    assert fetch(client, "/open")[0::2] == (200, b"open")
    assert fetch(client, "/nowhere")[0] == 401
    # Flask responds to a preflight request itself.
    assert fetch(client, "/", method="OPTIONS")[0] == 200
    assert fetch(client, "/nowhere", method="OPTIONS")[0] == 401


def test_every_response_has_header_fields(gate):
    app = flask_app.make(gate)
    for path, expected in [
        ("/own", 200),
        ("/gone", 404),
        ("/fail", 500),
        ("/stream", 200),
        ("/nowhere", 404),
    ]:
        status, headers, _ = fetch(app.test_client(), path, gate.issue(1))
        assert (status, contract.fields(headers)["x-ratelimit-remaining"]) == (expected, "1")


def sending_wrong_keys(app):
    def send_wrong_key(text, address="203.0.113.9", forwarded_for=None):
        response = app.test_client().get(
            "/",
            headers=contract.presenting(text, forwarded_for),
            environ_overrides={"REMOTE_ADDR": address},
        )
        return response.status_code, response.headers.items(), response.data

    return send_wrong_key


def decorated(gate, **options):
    app = Flask("tests")
    app.add_url_rule("/", view_func=require_key(gate, **options)(lambda: "hello"))
    return app


@pytest.mark.parametrize("make", [flask_app.make, decorated])
def test_wrong_keys_beyond_the_limit_are_refused(gate, make):
    contract.assert_wrong_keys_are_limited(sending_wrong_keys(make(gate, failures="2/31d")), gate)
    app = make(gate, failures="2/30d", trusted_proxies=contract.PROXIES)
    contract.assert_trusted_proxies_are_read(sending_wrong_keys(app))


def test_address_resolved_by_proxyfix_is_counted(gate):
    app = flask_app.make(gate, failures="1/31d")
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1)
    for client, status in [("198.51.100.1", 401), ("198.51.100.2", 401), ("198.51.100.1", 429)]:
        assert sending_wrong_keys(app)("nonsense", forwarded_for=client)[0] == status


def test_shadow_mode_admits_and_reports(gate):
    notified = []
    notify = lambda verdict, request: notified.append((verdict.outcome, request.path))  # noqa: E731
    client = flask_app.make(gate, shadow=True, on_verdict=notify).test_client()
    status, headers, _ = fetch(client, "/")
    assert (status, contract.fields(headers)["x-keytally-shadow"]) == (200, "missing_key")
    assert notified == [("missing_key", "/")]


def test_cost_function_gets_the_request(gate, key):
    client = flask_app.make(gate, cost=lambda request: int(request.headers["cost"])).test_client()
    contract.assert_admitted(*fetch(client, "/", key, cost="2")[:2], remaining=0)


def test_limiter_counts_client_addresses(limiter):
    app = Flask("tests")
    LimiterExtension(limiter, app)
    app.add_url_rule("/", view_func=lambda: "hello")
    for remaining in (1, 0):
        contract.assert_admitted(*fetch(app.test_client(), "/")[:2], remaining=remaining)
    contract.assert_exceeded(*fetch(app.test_client(), "/"))


def test_after_request_functions_process_refusals(gate, key):
    """Flask-CORS sets its header fields after requests."""
    app = flask_app.make(gate)
    app.after_request(
        lambda response: response.headers.set("Access-Control-Allow-Origin", "*") or response
    )
    for presented, expected in [(None, 401), (key, 200), (key, 200), (key, 429)]:
        status, headers, _ = fetch(app.test_client(), "/", presented)
        assert (status, contract.fields(headers)["access-control-allow-origin"]) == (expected, "*")


def test_decorators_check_single_views(gate, key, limiter):
    app = Flask("tests")

    @app.get("/contacts")
    @limit(limiter, key=lambda request: request.args.get("who"))
    @require_key(gate)
    def contacts():
        return "contacts"

    client = app.test_client()
    contract.assert_missing(*fetch(client, "/contacts"))
    contract.assert_admitted(*fetch(client, "/contacts", key)[:2], remaining=1)
    assert [fetch(client, "/contacts?who=a")[0] for _ in range(3)] == [401, 401, 429]
    assert fetch(client, "/")[0] == 404


def test_inner_refusal_lists_quotas_of_both(gate, key, limiter):
    """An inner decorator refuses a request that the outer one admitted."""
    app = Flask("tests")

    @app.get("/")
    @require_key(gate)
    @limit(limiter, key=lambda _: "all", cost=2)
    def home():
        return ""

    client = app.test_client()
    contract.assert_admitted(*fetch(client, "/", key)[:2], remaining=1)
    contract.assert_exceeded(*fetch(client, "/", key), remaining=1)
