"""The WSGI middleware, called directly instead of by a server."""

from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import contract
import pytest

from keytally import Limiter
from keytally.wsgi import GateMiddleware, LimiterMiddleware, client_address


def fetch(app, path="/", key=None, **more):
    """Send a request through wsgiref's validator; return status, header fields and body."""
    environ = {
        "PATH_INFO": path,
        "REMOTE_ADDR": "203.0.113.9",
        "QUERY_STRING": "",
        "SCRIPT_NAME": "",
        **more,
    }
    setup_testing_defaults(environ)
    if key is not None:
        environ["HTTP_X_API_KEY"] = key
    started = []

    def start_response(status, headers, exc_info=None):
        started.append((status, headers))
        return lambda _: None

    parts = validator(app)(environ, start_response)
    body = b"".join(parts)
    parts.close()
    assert len(started) == 1
    status, headers = started[0]
    return int(status[:3]), headers, body


def hello(environ, start_response):
    fields = [("Content-Type", "text/plain"), ("X-RateLimit-Remaining", "7"), ("ratelimit", "none")]
    start_response("200 OK", fields)
    return [b"hello"]


def never(environ, start_response):
    raise AssertionError("a refused request reached the application")


def test_each_outcome_has_its_response(gate, key):
    contract.assert_missing(*fetch(GateMiddleware(never, gate)))
    contract.assert_invalid(*fetch(GateMiddleware(never, gate), key="kt_live_nonsense"))
    for remaining in (1, 0):
        status, headers, body = fetch(GateMiddleware(hello, gate), key=key.expose())
        contract.assert_admitted(status, headers, remaining=remaining)
        assert body == b"hello"
    contract.assert_exceeded(*fetch(GateMiddleware(never, gate), key=key.expose()))


def test_requests_are_counted_for_their_key(gate, key):
    gate.set_usage(True)
    for _ in range(3):
        fetch(GateMiddleware(hello, gate), key=key.expose())
    usage = gate.key_usage(key.key_id)
    assert (usage.admitted, usage.denied_by_key) == (2, 1)


def test_full_limiter_responds_503():
    counter = iter(range(10_000))
    limiter = Limiter.in_memory("2/31d", capacity=1, on_full="refuse")
    app = LimiterMiddleware(hello, limiter, key=lambda _: str(next(counter)))
    contract.assert_full(
        *next(found for found in (fetch(app) for _ in range(10_000)) if found[0] != 200)
    )


def test_limiter_counts_addresses_or_results_of_key(limiter):
    app = LimiterMiddleware(hello, limiter)
    assert [fetch(app)[0] for _ in range(3)] == [200, 200, 429]
    contract.assert_exceeded(*fetch(app))
    assert fetch(app, REMOTE_ADDR="203.0.113.10")[0] == 200
    app = LimiterMiddleware(
        hello, limiter, key=lambda environ: {"/a": "a"}.get(environ["PATH_INFO"])
    )
    assert [fetch(app, "/a")[0] for _ in range(3)] == [200, 200, 429]
    assert [fetch(app, "/")[0] for _ in range(3)] == [200, 200, 200]
    with pytest.raises(RuntimeError, match="pass key="):
        client_address({"REMOTE_ADDR": ""})


def test_duplicate_key_is_refused_without_charge(gate, key):
    """Servers join two fields of one name."""
    for separator in (",", ", "):
        contract.assert_invalid(
            *fetch(GateMiddleware(never, gate), key=key.expose() + separator + key.expose())
        )
    assert gate.peek(key.expose(), 0).remaining == 2


@pytest.mark.parametrize("text", ["", " ", "schl\xfcssel", "\xff" * 300, "x" * 70_000])
def test_any_text_as_key_gets_401(gate, text):
    assert fetch(GateMiddleware(never, gate), key=text)[0] == 401


def test_verdict_is_in_the_environ(gate, key):
    seen = []

    def app(environ, start_response):
        seen.append(environ["keytally.verdict"].account)
        return hello(environ, start_response)

    fetch(GateMiddleware(app, gate), key=key.expose())
    assert seen == [42]


def test_exempt_paths_need_no_key(gate):
    app = GateMiddleware(hello, gate, exempt=["/health", "/static/*", "/grün"])
    latin = "/grün".encode().decode("latin-1")
    assert {fetch(app, path)[0] for path in ["/health", "/static/", "/static/a", latin]} == {200}
    assert {fetch(app, path)[0] for path in ["/", "/health/", "/static", "/gr\xfcn"]} == {401}


def test_cost_shadow_and_headers_options_apply(gate, key, limiter):
    app = GateMiddleware(
        hello, gate, cost=lambda environ: 2 if environ["PATH_INFO"] == "/report" else 0
    )
    contract.assert_admitted(*fetch(app, "/", key.expose())[:2], remaining=2)
    contract.assert_admitted(*fetch(app, "/report", key.expose())[:2], remaining=0)
    contract.assert_exceeded(*fetch(app, "/report", key.expose()))
    shadow = GateMiddleware(hello, gate, shadow=True)
    for presented, outcome in [
        (None, "missing_key"),
        ("nonsense", "invalid_key"),
        (key.expose(), "denied"),
    ]:
        status, headers, _ = fetch(shadow, key=presented)
        assert (status, contract.fields(headers)["x-keytally-shadow"]) == (200, outcome)
        assert not {"retry-after", "www-authenticate"} & set(contract.fields(headers))
    status, headers, _ = fetch(LimiterMiddleware(hello, limiter, headers=False))
    assert (status, headers[1:]) == (200, [("X-RateLimit-Remaining", "7"), ("ratelimit", "none")])


def sending_wrong_keys(app):
    def send_wrong_key(text, address="203.0.113.9", forwarded_for=None):
        more = {"REMOTE_ADDR": address}
        if forwarded_for is not None:
            more["HTTP_X_FORWARDED_FOR"] = forwarded_for
        return fetch(app, key=text, **more)

    return send_wrong_key


def test_wrong_keys_beyond_the_limit_are_refused(gate):
    contract.assert_wrong_keys_are_limited(
        sending_wrong_keys(GateMiddleware(hello, gate, failures="2/31d")), gate
    )
    app = GateMiddleware(hello, gate, failures="2/30d", trusted_proxies=contract.PROXIES)
    contract.assert_trusted_proxies_are_read(sending_wrong_keys(app))


def test_workers_with_one_file_share_wrong_key_limit(gate, tmp_path):
    path = tmp_path / "guesses"
    workers = [
        GateMiddleware(hello, gate, failures=Limiter.open_or_create(path, "2/31d", 100))
        for _ in range(2)
    ]
    assert [fetch(app, key="nonsense")[0] for app in workers * 2] == [401, 401, 429, 429]


def test_wrong_key_limit_keeps_verdict_of_the_gate(gate):
    notified = []

    def notify(verdict, environ):
        notified.append((verdict.outcome, environ["keytally.verdict"].reason))

    app = GateMiddleware(never, gate, failures="1/31d", on_verdict=notify)
    assert [fetch(app, key="nonsense")[0] for _ in range(2)] == [401, 429]
    assert notified == [("invalid_key", "malformed")] * 2


def test_shadow_mode_counts_no_wrong_keys(gate, limiter):
    app = GateMiddleware(hello, gate, failures=limiter, shadow=True)
    assert {fetch(app, key="nonsense")[0] for _ in range(3)} == {200}
    assert limiter.peek("203.0.113.9", 0).remaining == 2


def test_on_verdict_gets_each_verdict(gate, key, limiter):
    notified = []
    notify = lambda verdict, environ: notified.append((verdict.outcome, environ["PATH_INFO"]))  # noqa: E731
    fetch(GateMiddleware(hello, gate, on_verdict=notify), "/a", key.expose())
    fetch(GateMiddleware(never, gate, on_verdict=notify), "/b")
    fetch(LimiterMiddleware(hello, limiter, exempt=["/health"], on_verdict=notify), "/c")
    fetch(LimiterMiddleware(hello, limiter, exempt=["/health"], on_verdict=notify), "/health")
    assert notified == [("admitted", "/a"), ("missing_key", "/b"), ("admitted", "/c")]


def test_refused_head_request_has_no_body(gate):
    status, headers, body = fetch(GateMiddleware(never, gate), REQUEST_METHOD="HEAD")
    assert (status, body) == (401, b"")
    assert contract.fields(headers)["content-length"] == str(len(contract.MISSING))


def test_problem_document_is_sent_by_accept(gate):
    status, headers, body = fetch(
        GateMiddleware(never, gate), HTTP_ACCEPT="application/problem+json"
    )
    assert (status, contract.fields(headers)["content-type"]) == (401, "application/problem+json")
    assert body.startswith(b'{"type"')


def test_streamed_bodies_pass_unbuffered(gate, key):
    """The server gets the application's own iterable. The middleware does not close it."""
    closed = []

    class Parts:
        def __iter__(self):
            return iter([b"1", b"2"])

        def close(self):
            closed.append(True)

    parts = Parts()

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return parts

    found = GateMiddleware(app, gate)(
        {"PATH_INFO": "/", "HTTP_X_API_KEY": key.expose()}, lambda status, headers: None
    )
    assert found is parts
    assert not closed


def test_error_after_response_start_keeps_exc_info(gate, key):
    calls = []

    def app(environ, start_response):
        start_response("200 OK", [])
        start_response("500 Failed", [], (LookupError, LookupError(), None))
        return [b""]

    app = GateMiddleware(app, gate)
    app(
        {"PATH_INFO": "/", "HTTP_X_API_KEY": key.expose()},
        lambda *arguments: calls.append(arguments),
    )
    assert [len(arguments) for arguments in calls] == [2, 3]
    assert all("X-RateLimit-Remaining" in dict(arguments[1]) for arguments in calls)
