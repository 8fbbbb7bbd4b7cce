"""The ASGI middleware, message by message."""

import asyncio

import contract
import pytest

from keytally import Limiter
from keytally.asgi import GateMiddleware, LimiterMiddleware, VerdictMiddleware, client_address


def ask(app, path="/", headers=(), *, method="GET", kind="http", events=(), **more):
    """Send a request and return the messages with which it is answered."""
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
    """Return status, header fields and body of messages that must be one response."""
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
    """Say hello, and something else about quotas than the gate does."""
    fields = [(b"content-type", b"text/plain"), (b"x-ratelimit-remaining", b"7"), (b"ratelimit", b"none")]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": b"hello"})


async def never(scope, receive, send):
    raise AssertionError("a refused request came through")


def test_each_outcome_has_its_response(gate, key):
    app = GateMiddleware(hello, gate)
    contract.assert_missing(*answer(ask(GateMiddleware(never, gate))))
    contract.assert_invalid(
        *answer(ask(GateMiddleware(never, gate), headers=[("X-API-Key", "kt_live_nonsense")]))
    )
    for remaining in (1, 0):
        status, headers, body = answer(ask(app, headers=key_of(key)))
        contract.assert_admitted(status, headers, remaining=remaining)
        assert body == b"hello"
    contract.assert_exceeded(*answer(ask(GateMiddleware(never, gate), headers=key_of(key))))
    gate.revoke(key.key_id)
    contract.assert_invalid(*answer(ask(GateMiddleware(never, gate), headers=key_of(key))))


def test_a_limiter_that_is_full_says_503():
    limiter = Limiter("2/31d", capacity=1)
    counter = iter(range(10_000))
    app = LimiterMiddleware(hello, limiter, key=lambda _: str(next(counter)))
    answers = (answer(ask(app)) for _ in range(10_000))
    contract.assert_full(*next(found for found in answers if found[0] != 200))


def test_a_limiter_counts_addresses(limiter):
    app = LimiterMiddleware(hello, limiter)
    for remaining in (1, 0):
        status, headers, _ = answer(ask(app))
        contract.assert_admitted(status, headers, remaining=remaining)
    contract.assert_exceeded(*answer(ask(app)))
    assert answer(ask(app, client=("203.0.113.10", 40000)))[0] == 200


def test_a_limiter_counts_what_key_returns(limiter):
    names = {"/a": "a", "/b": b"b", "/uncounted": None}
    app = LimiterMiddleware(hello, limiter, key=lambda scope: names[scope["path"]])
    assert [answer(ask(app, "/a"))[0] for _ in range(3)] == [200, 200, 429]
    assert answer(ask(app, "/b"))[0] == 200
    assert [answer(ask(app, "/uncounted"))[0] for _ in range(3)] == [200, 200, 200]


def test_a_limiter_needs_an_address(limiter):
    with pytest.raises(RuntimeError, match="pass key="):
        ask(LimiterMiddleware(never, limiter), client=None)


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
def test_an_address_is_counted_as_what_a_client_has(address, subject):
    assert client_address({"client": (address, 1)}) == subject


def guessing(app):
    def guess(text, address="203.0.113.9", forwarded_for=None):
        headers = contract.presenting(text, forwarded_for).items()
        return answer(ask(app, headers=headers, client=(address, 40000)))

    return guess


def test_guesses_beyond_the_limit_are_refused(gate):
    contract.assert_guesses_are_limited(guessing(GateMiddleware(hello, gate, failures="2/31d")), gate)
    app = GateMiddleware(hello, gate, failures="2/30d", trusted_proxies=contract.PROXIES)
    contract.assert_trusted_proxies_are_believed(guessing(app))


def test_duplicate_keys_count_as_guesses(gate, key):
    app = GateMiddleware(never, gate, failures="1/31d")
    contract.assert_invalid(*answer(ask(app, headers=key_of(key) * 2)))
    contract.assert_too_many(*answer(ask(app, headers=key_of(key) * 2)))


def test_repeated_forwarded_fields_are_one_list(gate):
    app = GateMiddleware(never, gate, failures="1/31d", trusted_proxies=["unix"])
    for last, status in [("198.51.100.1", 401), ("198.51.100.1", 429), ("198.51.100.2", 401)]:
        headers = [("X-API-Key", "nonsense"), ("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-For", last)]
        assert answer(ask(app, headers=headers, client=None))[0] == status


def test_a_key_that_comes_twice_is_refused_and_not_charged(gate, key):
    sent = ask(GateMiddleware(never, gate), headers=key_of(key) * 2)
    contract.assert_invalid(*answer(sent))
    assert gate.peek(key.expose(), 0).remaining == 2


def test_the_verdict_is_in_the_state(gate, key):
    seen = []

    async def app(scope, receive, send):
        seen.append((scope["state"]["verdict"].account, scope["state"]["of_the_lifespan"]))
        await hello(scope, receive, send)

    ask(GateMiddleware(app, gate), headers=key_of(key), state={"of_the_lifespan": 7})
    assert seen == [(42, 7)]
    seen.clear()

    async def named(scope, receive, send):
        seen.append(set(scope["state"]))

    ask(GateMiddleware(named, gate, state="caller"), headers=key_of(key))
    assert seen == [{"caller"}]


def test_exempt_paths_need_no_key(gate):
    app = GateMiddleware(hello, gate, exempt=["/health", "/static/*"])
    assert {answer(ask(app, path))[0] for path in ["/health", "/static/", "/static/a/b"]} == {200}
    refused = {
        path: answer(ask(app, path))[0] for path in ["/", "/health/", "/healthy", "/static", "/x/health"]
    }
    assert set(refused.values()) == {401}
    assert answer(ask(app, "/api/health", root_path="/api"))[0] == 200
    assert answer(ask(app, "/apihealth", root_path="/api"))[0] == 401
    assert answer(ask(app, "/health", root_path="/api"))[0] == 200


@pytest.mark.parametrize(
    ("exempt", "error"), [("/health", TypeError), (["health"], ValueError), (["/*/a"], ValueError)]
)
def test_what_is_no_path_cant_be_exempt(gate, exempt, error):
    with pytest.raises(error, match="health|/a"):
        GateMiddleware(hello, gate, exempt=exempt)


def test_a_cost_may_depend_on_the_request(gate, key):
    app = GateMiddleware(hello, gate, cost=lambda scope: 2 if scope["path"] == "/report" else 0)
    contract.assert_admitted(*answer(ask(app, "/", key_of(key)))[:2], remaining=2)
    contract.assert_admitted(*answer(ask(app, "/report", key_of(key)))[:2], remaining=0)
    contract.assert_exceeded(*answer(ask(app, "/report", key_of(key))))


def test_a_cost_that_can_never_fit_has_no_time_to_retry(gate, key):
    status, headers, body = answer(ask(GateMiddleware(never, gate, cost=3), headers=key_of(key)))
    assert (status, body) == (429, contract.EXCEEDED)
    assert "retry-after" not in contract.fields(headers)


def test_shadow_mode_refuses_nobody_and_tells(gate, key):
    app = GateMiddleware(hello, gate, shadow=True)
    expected = [
        ((), "missing_key"),
        ([("X-API-Key", "nonsense")], "invalid_key"),
        (key_of(key), None),
        (key_of(key), None),
        (key_of(key), "denied"),
    ]
    for headers, outcome in expected:
        status, found, body = answer(ask(app, headers=headers))
        assert (status, body) == (200, b"hello")
        assert contract.fields(found).get("x-keytally-shadow") == outcome
        assert not {"retry-after", "www-authenticate"} & set(contract.fields(found))


def test_each_verdict_is_told(gate, key):
    told = []
    app = GateMiddleware(
        hello, gate, on_verdict=lambda verdict, scope: told.append((verdict.reason, scope["path"]))
    )
    ask(app, "/a", key_of(key))
    ask(app, "/b", key_of(key) * 2)
    assert told == [(None, "/a"), ("duplicate", "/b")]


def test_header_fields_may_be_left_out(gate, key, limiter):
    states = []

    async def app(scope, receive, send):
        states.append(set(scope["state"]))
        await hello(scope, receive, send)

    limited = LimiterMiddleware(GateMiddleware(app, gate), limiter, headers=False, state="address")
    status, headers, _ = answer(ask(limited, headers=key_of(key)))
    contract.assert_admitted(status, headers, remaining=1)
    assert contract.fields(headers)["ratelimit-policy"].count(";q=") == 1
    assert states == [{"address", "verdict"}]
    assert answer(ask(GateMiddleware(hello, gate, headers=False), headers=key_of(key)))[1][1:] == [
        (b"x-ratelimit-remaining", b"7"),
        (b"ratelimit", b"none"),
    ]


def test_the_applications_message_is_left_as_it_was(gate, key):
    start = {"type": "http.response.start", "status": 204}

    async def app(scope, receive, send):
        await send(start)
        await send({"type": "http.response.body"})

    status, headers, _ = answer(ask(GateMiddleware(app, gate), headers=key_of(key)))
    contract.assert_admitted(status, headers, remaining=1)
    assert start == {"type": "http.response.start", "status": 204}


def test_names_that_arent_lowercase_are_replaced_too(gate, key):
    async def app(scope, receive, send):
        fields = [(b"X-RateLimit-Reset", b"soon"), [b"RateLimit", b"none"]]
        await send({"type": "http.response.start", "status": 200, "headers": fields})

    status, headers, _ = answer(ask(GateMiddleware(app, gate), headers=key_of(key)))
    contract.assert_admitted(status, headers, remaining=1)


def test_who_asks_for_problem_documents_gets_one(gate):
    headers = [("Accept", "text/html, application/problem+json")]
    status, found, body = answer(ask(GateMiddleware(never, gate), headers=headers))
    assert status == 401
    assert contract.fields(found)["content-type"] == "application/problem+json"
    assert body.startswith(b'{"type"')
    refused = [("Accept", "application/problem+json;q=0")]
    contract.assert_missing(*answer(ask(GateMiddleware(never, gate), headers=refused)))


def test_head_has_no_body(gate):
    status, headers, body = answer(ask(GateMiddleware(never, gate), method="HEAD"))
    assert (status, body) == (401, b"")
    assert contract.fields(headers)["content-length"] == str(len(contract.MISSING))


def test_bodies_stream_through(gate, key):
    """Each part leaves before the next is made, and what the client sends is the application's to read."""
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
    sent = ask(GateMiddleware(app, gate), headers=key_of(key), events=events)
    assert order == [b"a", b"b", b"1", b"2", b"3"]
    assert [message.get("more_body") for message in sent[1:]] == [True, True, True, False]


def test_an_application_that_fails_after_it_began_is_not_answered_for(gate, key):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise LookupError("of the application")

    with pytest.raises(LookupError):
        ask(GateMiddleware(app, gate), headers=key_of(key))


def test_other_scopes_pass(gate):
    kinds = []

    async def app(scope, receive, send):
        kinds.append(scope["type"])

    for middleware in (GateMiddleware(app, gate), VerdictMiddleware(app)):
        asyncio.run(middleware({"type": "lifespan"}, None, None))
    assert kinds == ["lifespan"] * 2


CONNECT = [{"type": "websocket.connect"}]


def test_a_websocket_is_let_in_and_left_alone(gate, key):
    async def app(scope, receive, send):
        assert (await receive())["type"] == "websocket.connect"
        assert scope["state"]["verdict"].account == 42
        await send({"type": "websocket.accept"})

    sent = ask(GateMiddleware(app, gate), headers=key_of(key), kind="websocket", events=CONNECT)
    assert sent == [{"type": "websocket.accept"}]


def test_a_refused_websocket_is_never_accepted(gate):
    events = list(CONNECT)
    sent = ask(GateMiddleware(never, gate), kind="websocket", events=events)
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": ""}]
    extensions = {"websocket.http.response": {}}
    sent = ask(GateMiddleware(never, gate), kind="websocket", events=CONNECT, extensions=extensions)
    contract.assert_missing(*answer(sent))
    assert [message["type"] for message in sent] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]


def test_a_verdict_from_further_in_gets_its_headers(gate, key):
    async def app(scope, receive, send):
        scope["state"]["verdict"] = gate.check(key.expose())
        await hello(scope, receive, send)

    status, headers, _ = answer(ask(VerdictMiddleware(app)))
    contract.assert_admitted(status, headers, remaining=1)
    assert answer(ask(VerdictMiddleware(hello)))[1][0] == (b"content-type", b"text/plain")
