"""The headers of the key, requests without a key, and exempt methods, in every framework."""

import json

import contract
import frameworks
import pytest

from keytally import asgi, fastapi, flask, wsgi

LIMIT = 9
BOTH = ["X-API-Key", "Authorization: Bearer", "X-Token"]
CHALLENGES = (
    'ApiKey realm="api", header="X-API-Key", Bearer realm="api", '
    'ApiKey realm="api", header="X-Token"'
)


@pytest.fixture
def policy():
    return f"{LIMIT}/31d"


@pytest.mark.parametrize("make", frameworks.ALL)
def test_key_comes_from_each_listed_header(make, gate, key):
    fetch, text, other = make(gate, key_from=BOTH), key.expose(), gate.issue(7).expose()
    for headers, expected in [
        ({"X-API-Key": text}, 200),
        ({"Authorization": f"Bearer {text}"}, 200),
        ({"Authorization": f"bearer  {text}"}, 200),
        ({"X-Token": text}, 200),
        ({"X-API-Key": text, "Authorization": f"Bearer {text}", "X-Token": text}, 200),
        ({"X-API-Key": text, "Authorization": "Basic eDp5"}, 200),
        ({}, 401),
        ({"Authorization": text}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": f"Bearers {text}"}, 401),
        ({"X-API-Key": text, "Authorization": f"Bearer {other}"}, 401),
        ({"X-API-Key": text, "X-Token": other}, 401),
        ({"X-API-Key": "", "X-Token": text}, 401),
    ]:
        assert fetch("/200", headers).status == expected, list(headers)
    assert gate.peek(text, 0).remaining == LIMIT - 6


@pytest.mark.parametrize("make", frameworks.ALL)
def test_key_comes_only_from_x_api_key_by_default(make, gate, key):
    fetch, text = make(gate), key.expose()
    assert fetch("/200", {"Authorization": f"Bearer {text}"}).status == 401
    found = {"Authorization": "Bearer other", "X-API-Key": text}
    assert fetch("/200", found).status == 200
    assert fetch(f"/200?api_key={text}", {}).status == 401


@pytest.mark.parametrize("make", frameworks.ALL)
def test_refusal_names_the_listed_headers(make, gate):
    fetch = make(gate, key_from=BOTH)
    status, headers, body = fetch("/200")
    found = contract.fields(headers)
    assert (status, body) == (401, b'{"error": "Missing API key"}')
    assert found["www-authenticate"] == CHALLENGES
    contract.assert_json(found, body)
    status, headers, body = fetch("/200", {"Authorization": "Bearer nonsense"})
    assert (status, body) == (401, contract.INVALID)
    assert contract.fields(headers)["www-authenticate"] == CHALLENGES
    _, headers, body = fetch("/200", {"Accept": "application/problem+json, */*"})
    assert contract.fields(headers)["content-type"] == "application/problem+json"
    assert json.loads(body) == {"type": "about:blank", "title": "Missing API key", "status": 401}


@pytest.mark.parametrize("make", frameworks.ALL)
def test_wrong_bearer_tokens_are_limited(make, gate):
    policies = {"in_rest_framework": "3/28d", "in_django": "3/27d", "in_django_async": "3/26d"}
    fetch = make(
        gate, key_from=["Authorization: Bearer"], failures=policies.get(make.__name__, "3/31d")
    )
    found = [fetch("/200", {"Authorization": f"Bearer {name}"}).status for name in "abcd"]
    assert found == [401, 401, 401, 429]


def status_in_asgi(gate, fields):
    app = frameworks.in_asgi(gate, key_from=BOTH)

    class Fields(dict):
        def items(self):
            return fields

    return app("/200", Fields(repeated=True)).status


def status_in_wsgi(gate, fields):
    joined = {}
    for name, value in fields:
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return frameworks.in_wsgi(gate, key_from=BOTH)("/200", joined).status


@pytest.mark.parametrize("status", [status_in_asgi, status_in_wsgi])
def test_repeated_header_is_refused(gate, key, status):
    text = key.expose()
    for fields, expected in [
        ([("X-Token", text)], 200),
        ([("X-Token", text), ("X-Token", text)], 401),
        ([("Authorization", f"Bearer {text}"), ("Authorization", f"Bearer {text}")], 401),
        ([("Authorization", "Basic eDp5"), ("Authorization", f"Bearer {text}")], 401),
        ([("Authorization", "Digest a=b, c=d"), ("X-Token", text)], 200),
    ]:
        assert status(gate, fields) == expected, fields[0][0]


def shared(headers):
    found = contract.fields(headers)
    return found["x-ratelimit-limit"], found["x-ratelimit-remaining"]


@pytest.mark.parametrize("make", frameworks.ALL)
def test_request_without_key_is_limited_by_address(make, gate, key, limiter):
    fetch = make(gate, without_key=limiter)
    for remaining in ("1", "0"):
        status, headers, _ = fetch("/200")
        assert (status, shared(headers)) == (200, ("2", remaining))
    status, headers, body = fetch("/200")
    assert (status, body) == (429, contract.EXCEEDED)
    assert int(contract.fields(headers)["retry-after"]) >= 1
    assert fetch("/200", address="203.0.113.10").status == 200
    status, headers, _ = fetch("/200", {"X-API-Key": key.expose()})
    assert (status, shared(headers)) == (200, (str(LIMIT), str(LIMIT - 1)))
    # An invalid key is not a missing one.
    for text in ("nonsense", ""):
        assert fetch("/200", {"X-API-Key": text}, address="203.0.113.11").status == 401


@pytest.mark.parametrize("make", frameworks.ALL)
def test_request_without_key_is_limited_behind_a_proxy(make, gate, limiter):
    fetch = make(gate, without_key=limiter, trusted_proxies=["10.0.0.0/8"])
    for client, status in [("192.0.2.1", 200), ("192.0.2.1", 200), ("192.0.2.1", 429)]:
        found = fetch("/200", {"X-Forwarded-For": client}, address="10.0.0.1")
        assert found.status == status
    assert fetch("/200", {"X-Forwarded-For": "192.0.2.2"}, address="10.0.0.1").status == 200
    # A client whose address is unknown needs a key.
    contract.assert_missing(*fetch("/200", address="10.0.0.1"))


@pytest.mark.parametrize("make", frameworks.ALL)
def test_charge_without_key_is_refunded(make, gate, limiter):
    fetch = make(gate, without_key=limiter, refund="5xx")
    assert [fetch("/503").status for _ in range(4)] == [503] * 4
    assert limiter.peek(frameworks.ADDRESS, 0).remaining == 2


@pytest.mark.parametrize("make", frameworks.WHOLE)
def test_exempt_method_needs_no_check(make, gate, limiter):
    fetch = make(gate, exempt_methods=["OPTIONS"])
    assert [fetch("/200", method=method).status for method in ("OPTIONS", "POST")] == [200, 401]
    fetch = make(limiter, exempt_methods=["OPTIONS"])
    assert [fetch("/200", method="OPTIONS").status for _ in range(4)] == [200] * 4
    assert [fetch("/200").status for _ in range(3)] == [200, 200, 429]


CONSTRUCTORS = [
    lambda gate, **options: asgi.GateMiddleware(None, gate, **options),
    lambda gate, **options: wsgi.GateMiddleware(None, gate, **options),
    lambda gate, **options: flask.GateExtension(gate, **options),
    lambda gate, **options: flask.require_key(gate, **options),
    lambda gate, **options: fastapi.require_key(gate, **options),
    frameworks.in_django,
    lambda gate, **options: frameworks.in_rest_framework(gate, **options)("/200"),
]


@pytest.mark.parametrize("make", CONSTRUCTORS[:-1])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key_from": "X-API-Key"}, "key_from is a list of header names, not one text"),
        ({"key_from": []}, "key_from is empty"),
        ({"key_from": ["X Token"]}, "'X Token' in key_from is not the name of a header"),
        ({"key_from": [""]}, "'' in key_from is not the name of a header"),
        ({"key_from": [None]}, "None in key_from is not the name of a header"),
        ({"key_from": ["Authorization"]}, "pass 'Authorization: Bearer'"),
        ({"key_from": [f"kt_live_{'0Gq5Xk2LmPz7Hc1nT9vYbR4s' * 2}"]}, "'kt_live_…' in key_from"),
        ({"key_from": ["5a" * 32]}, "in key_from looks like a key"),
        ({"key_from": ["cookie"]}, "cookie in key_from does not carry a key"),
        ({"key_from": ["X-Token", "x-token"]}, "key_from lists x-token twice"),
        ({"without_key": "5/minute"}, "without_key must be the Limiter"),
    ],
)
def test_invalid_key_option_is_rejected(make, gate, options, message):
    with pytest.raises(Exception, match=message):
        make(gate, **options)


@pytest.mark.parametrize("make", [CONSTRUCTORS[index] for index in (0, 1, 2, 5)])
@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ("OPTIONS", "exempt_methods is a list of methods, not one text"),
        (["options"], "'options' in exempt_methods is not a method"),
        ([1], "1 in exempt_methods is not a method"),
    ],
)
def test_invalid_exempt_method_is_rejected(make, gate, methods, message):
    with pytest.raises(Exception, match=message):
        make(gate, exempt_methods=methods)


def test_django_opens_the_limiter_without_key(gate, tmp_path):
    path = tmp_path / "new.limiter"
    fetch = frameworks.in_django(gate, without_key={"PATH": path, "POLICY": "1/31d"})
    assert [fetch("/200").status for _ in range(2)] == [200, 429]
    assert path.exists()
    with pytest.raises(Exception, match=r'\["WITHOUT_KEY"\] as a dict must have "PATH"'):
        frameworks.in_django(gate, without_key={"POLICY": "1/31d"})
