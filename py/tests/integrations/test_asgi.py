"""The ASGI middleware, by messages."""

import asyncio

import contract
import pytest

import migrations
from keytally import Limiter
from keytally.asgi import GateMiddleware, LimiterMiddleware, VerdictMiddleware, client_address


def fetch(app, path="/", headers=(), *, method="GET", kind="http", events=(), **more):
    """Send a request, and return the messages of the response."""
    scope = {
        "type": kind,
        "path": path,
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
        "client": ("203.0.113.9", 40000),
        **more,
    }
    if kind == "http":
        scope["method"] = method
    events = list(events) or [{"type": "http.request"}]
    sent = []

    async def receive():
        return events.pop(0)

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent


def answer(sent):
    """Return status, header fields and body of the messages of one response."""
    starts = [message for message in sent if message["type"].endswith("response.start")]
    assert starts == sent[:1]
    for name, value in starts[0]["headers"]:
        assert (type(name), type(value)) == (bytes, bytes)
        assert name == name.lower()
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return starts[0]["status"], starts[0]["headers"], body


def key_of(key):
    return [("X-API-Key", key.expose())]


async def hello(scope, receive, send):
    """Respond with rate-limit fields of the application."""
    fields = [
        (b"content-type", b"text/plain"),
        (b"x-ratelimit-remaining", b"7"),
        (b"ratelimit", b"none"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": b"hello"})


async def never(scope, receive, send):
    raise AssertionError("a refused request reached the application")


def test_each_outcome_has_its_response(gate, key):
    app = GateMiddleware(hello, gate)
    contract.assert_missing(*answer(fetch(GateMiddleware(never, gate))))
    contract.assert_invalid(
        *answer(fetch(GateMiddleware(never, gate), headers=[("X-API-Key", "kt_live_nonsense")]))
    )
    for remaining in (1, 0):
        status, headers, body = answer(fetch(app, headers=key_of(key)))
        contract.assert_admitted(status, headers, remaining=remaining)
        assert body == b"hello"
    contract.assert_exceeded(*answer(fetch(GateMiddleware(never, gate), headers=key_of(key))))
    gate.revoke(key.key_id)
    contract.assert_invalid(*answer(fetch(GateMiddleware(never, gate), headers=key_of(key))))


def test_requests_are_counted_for_their_key(gate, key):
    gate.set_usage(True)
    for _ in range(3):
        fetch(GateMiddleware(hello, gate), headers=[("X-API-Key", key.expose())])
    usage = gate.key_usage(key.key_id)
    assert (usage.admitted, usage.denied_by_key) == (2, 1)


def test_full_limiter_responds_503():
    limiter = Limiter.in_memory("2/31d", capacity=1, on_full="refuse")
    counter = iter(range(10_000))
    app = LimiterMiddleware(hello, limiter, key=lambda _: str(next(counter)))
    answers = (answer(fetch(app)) for _ in range(10_000))
    contract.assert_full(*next(found for found in answers if found[0] != 200))


def test_moving_counts_respond_503_and_refund_the_others(gate, key, pepper, limiter):
    left = migrations.left_behind(gate, pepper)
    app = LimiterMiddleware(GateMiddleware(never, left), limiter)
    contract.assert_unavailable(*answer(fetch(app, headers=key_of(key))))
    assert limiter.peek("203.0.113.9").remaining == 2


def test_limiter_counts_client_addresses(limiter):
    app = LimiterMiddleware(hello, limiter)
    for remaining in (1, 0):
        status, headers, _ = answer(fetch(app))
        contract.assert_admitted(status, headers, remaining=remaining)
    contract.assert_exceeded(*answer(fetch(app)))
    assert answer(fetch(app, client=("203.0.113.10", 40000)))[0] == 200


def test_limiter_counts_results_of_key(limiter):
    names = {"/a": "a", "/b": b"b", "/uncounted": None}
    app = LimiterMiddleware(hello, limiter, key=lambda scope: names[scope["path"]])
    assert [answer(fetch(app, "/a"))[0] for _ in range(3)] == [200, 200, 429]
    assert answer(fetch(app, "/b"))[0] == 200
    assert [answer(fetch(app, "/uncounted"))[0] for _ in range(3)] == [200, 200, 200]


def test_limiter_without_an_address_raises(limiter):
    with pytest.raises(RuntimeError, match="pass key="):
        fetch(LimiterMiddleware(never, limiter), client=None)


@pytest.mark.parametrize(
    ("address", "subject"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("un:known", "un:known"),
    ],
)
def test_client_address_returns_the_subject(address, subject):
    assert client_address({"client": (address, 1)}) == subject


def sending_wrong_keys(app):
    def send_wrong_key(text, address="203.0.113.9", forwarded_for=None):
        headers = contract.presenting(text, forwarded_for).items()
        return answer(fetch(app, headers=headers, client=(address, 40000)))

    return send_wrong_key


def test_wrong_keys_beyond_the_limit_are_refused(gate):
    contract.assert_wrong_keys_are_limited(
        sending_wrong_keys(GateMiddleware(hello, gate, failures="2/31d")), gate
    )
    app = GateMiddleware(hello, gate, failures="2/30d", trusted_proxies=contract.PROXIES)
    contract.assert_trusted_proxies_are_read(sending_wrong_keys(app))


def test_duplicate_keys_count_as_wrong_keys(gate, key):
    app = GateMiddleware(never, gate, failures="1/31d")
    contract.assert_invalid(*answer(fetch(app, headers=key_of(key) * 2)))
    contract.assert_too_many(*answer(fetch(app, headers=key_of(key) * 2)))


def test_repeated_forwarded_fields_are_one_list(gate):
    app = GateMiddleware(never, gate, failures="1/31d", trusted_proxies=["unix"])
    for last, status in [("198.51.100.1", 401), ("198.51.100.1", 429), ("198.51.100.2", 401)]:
        headers = [
            ("X-API-Key", "nonsense"),
            ("X-Forwarded-For", "192.0.2.1"),
            ("X-Forwarded-For", last),
        ]
        assert answer(fetch(app, headers=headers, client=None))[0] == status


def test_duplicate_key_is_refused_without_charge(gate, key):
    sent = fetch(GateMiddleware(never, gate), headers=key_of(key) * 2)
    contract.assert_invalid(*answer(sent))
    assert gate.peek(key.expose(), 0).remaining == 2


def test_verdict_is_in_the_state(gate, key):
    seen = []

    async def app(scope, receive, send):
        seen.append((scope["state"]["verdict"].account, scope["state"]["of_the_lifespan"]))
        await hello(scope, receive, send)

    fetch(GateMiddleware(app, gate), headers=key_of(key), state={"of_the_lifespan": 7})
    assert seen == [(42, 7)]
    seen.clear()

    async def named(scope, receive, send):
        seen.append(set(scope["state"]))

    fetch(GateMiddleware(named, gate, state="caller"), headers=key_of(key))
    assert seen == [{"caller"}]


def test_exempt_paths_need_no_key(gate):
    app = GateMiddleware(hello, gate, exempt=["/health", "/static/*"])
    assert {answer(fetch(app, path))[0] for path in ["/health", "/static/", "/static/a/b"]} == {200}
    refused = {
        path: answer(fetch(app, path))[0]
        for path in ["/", "/health/", "/healthy", "/static", "/x/health"]
    }
    assert set(refused.values()) == {401}
    assert answer(fetch(app, "/api/health", root_path="/api"))[0] == 200
    assert answer(fetch(app, "/apihealth", root_path="/api"))[0] == 401
    assert answer(fetch(app, "/health", root_path="/api"))[0] == 200


@pytest.mark.parametrize(
    ("exempt", "error"), [("/health", TypeError), (["health"], ValueError), (["/*/a"], ValueError)]
)
def test_invalid_exempt_path_is_rejected(gate, exempt, error):
    with pytest.raises(error, match="health|/a"):
        GateMiddleware(hello, gate, exempt=exempt)


def test_cost_function_gets_the_request(gate, key):
    app = GateMiddleware(hello, gate, cost=lambda scope: 2 if scope["path"] == "/report" else 0)
    contract.assert_admitted(*answer(fetch(app, "/", key_of(key)))[:2], remaining=2)
    contract.assert_admitted(*answer(fetch(app, "/report", key_of(key)))[:2], remaining=0)
    contract.assert_exceeded(*answer(fetch(app, "/report", key_of(key))))


def test_too_costly_request_has_no_retry_after(gate, key):
    status, headers, body = answer(fetch(GateMiddleware(never, gate, cost=3), headers=key_of(key)))
    assert (status, body) == (429, contract.EXCEEDED)
    assert "retry-after" not in contract.fields(headers)


def test_shadow_mode_admits_and_reports(gate, key):
    app = GateMiddleware(hello, gate, shadow=True)
    expected = [
        ((), "missing_key"),
        ([("X-API-Key", "nonsense")], "invalid_key"),
        (key_of(key), None),
        (key_of(key), None),
        (key_of(key), "denied"),
    ]
    for headers, outcome in expected:
        status, found, body = answer(fetch(app, headers=headers))
        assert (status, body) == (200, b"hello")
        assert contract.fields(found).get("x-keytally-shadow") == outcome
        assert not {"retry-after", "www-authenticate"} & set(contract.fields(found))


def test_on_verdict_gets_each_verdict(gate, key):
    notified = []
    app = GateMiddleware(
        hello,
        gate,
        on_verdict=lambda verdict, scope: notified.append((verdict.reason, scope["path"])),
    )
    fetch(app, "/a", key_of(key))
    fetch(app, "/b", key_of(key) * 2)
    assert notified == [(None, "/a"), ("duplicate", "/b")]


def test_headers_option_omits_header_fields(gate, key, limiter):
    states = []

    async def app(scope, receive, send):
        states.append(set(scope["state"]))
        await hello(scope, receive, send)

    limited = LimiterMiddleware(GateMiddleware(app, gate), limiter, headers=False, state="address")
    status, headers, _ = answer(fetch(limited, headers=key_of(key)))
    contract.assert_admitted(status, headers, remaining=1)
    assert contract.fields(headers)["ratelimit-policy"].count(";q=") == 1
    assert states == [{"address", "verdict"}]
    assert answer(fetch(GateMiddleware(hello, gate, headers=False), headers=key_of(key)))[1][
        1:
    ] == [
        (b"x-ratelimit-remaining", b"7"),
        (b"ratelimit", b"none"),
    ]


def test_message_of_the_application_is_not_modified(gate, key):
    start = {"type": "http.response.start", "status": 204}

    async def app(scope, receive, send):
        await send(start)
        await send({"type": "http.response.body"})

    status, headers, _ = answer(fetch(GateMiddleware(app, gate), headers=key_of(key)))
    contract.assert_admitted(status, headers, remaining=1)
    assert start == {"type": "http.response.start", "status": 204}


def test_mixed_case_header_fields_are_replaced(gate, key):
    async def app(scope, receive, send):
        fields = [(b"X-RateLimit-Reset", b"soon"), [b"RateLimit", b"none"]]
        await send({"type": "http.response.start", "status": 200, "headers": fields})

    status, headers, _ = answer(fetch(GateMiddleware(app, gate), headers=key_of(key)))
    contract.assert_admitted(status, headers, remaining=1)


def test_problem_document_is_sent_by_accept(gate):
    headers = [("Accept", "text/html, application/problem+json")]
    status, found, body = answer(fetch(GateMiddleware(never, gate), headers=headers))
    assert status == 401
    assert contract.fields(found)["content-type"] == "application/problem+json"
    assert body.startswith(b'{"type"')
    refused = [("Accept", "application/problem+json;q=0")]
    contract.assert_missing(*answer(fetch(GateMiddleware(never, gate), headers=refused)))


def test_refused_head_request_has_no_body(gate):
    status, headers, body = answer(fetch(GateMiddleware(never, gate), method="HEAD"))
    assert (status, body) == (401, b"")
    assert contract.fields(headers)["content-length"] == str(len(contract.MISSING))


def test_streamed_bodies_pass_unbuffered(gate, key):
    """A part is sent before the next is created, and the application reads the request body."""
    order = []

    async def app(scope, receive, send):
        while (message := await receive())["type"] == "http.request":
            order.append(message["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in (b"1", b"2", b"3"):
            order.append(part)
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    events = [
        {"type": "http.request", "body": b"a", "more_body": True},
        {"type": "http.request", "body": b"b"},
        {"type": "http.disconnect"},
    ]
    sent = fetch(GateMiddleware(app, gate), headers=key_of(key), events=events)
    assert order == [b"a", b"b", b"1", b"2", b"3"]
    assert [message.get("more_body") for message in sent[1:]] == [True, True, True, False]


def test_error_after_response_start_propagates(gate, key):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise LookupError("of the application")

    with pytest.raises(LookupError):
        fetch(GateMiddleware(app, gate), headers=key_of(key))


def test_lifespan_scope_passes(gate):
    kinds = []

    async def app(scope, receive, send):
        kinds.append(scope["type"])

    for middleware in (GateMiddleware(app, gate), VerdictMiddleware(app)):
        asyncio.run(middleware({"type": "lifespan"}, None, None))
    assert kinds == ["lifespan"] * 2


CONNECT = [{"type": "websocket.connect"}]


def test_admitted_websocket_passes_unchanged(gate, key):
    async def app(scope, receive, send):
        assert (await receive())["type"] == "websocket.connect"
        assert scope["state"]["verdict"].account == 42
        await send({"type": "websocket.accept"})

    sent = fetch(GateMiddleware(app, gate), headers=key_of(key), kind="websocket", events=CONNECT)
    assert sent == [{"type": "websocket.accept"}]


def test_refused_websocket_is_never_accepted(gate):
    events = list(CONNECT)
    sent = fetch(GateMiddleware(never, gate), kind="websocket", events=events)
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": ""}]
    extensions = {"websocket.http.response": {}}
    sent = fetch(
        GateMiddleware(never, gate), kind="websocket", events=CONNECT, extensions=extensions
    )
    contract.assert_missing(*answer(sent))
    assert [message["type"] for message in sent] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]


def test_verdict_middleware_sets_inner_verdicts_headers(gate, key):
    async def app(scope, receive, send):
        scope["state"]["verdict"] = gate.check(key.expose())
        await hello(scope, receive, send)

    status, headers, _ = answer(fetch(VerdictMiddleware(app)))
    contract.assert_admitted(status, headers, remaining=1)
    assert answer(fetch(VerdictMiddleware(hello)))[1][0] == (b"content-type", b"text/plain")
