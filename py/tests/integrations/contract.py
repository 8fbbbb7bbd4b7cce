"""The contract of the API: the status, the header fields and the body of each response."""

MISSING = b'{"error": "Missing X-API-Key header"}'
INVALID = b'{"error": "Invalid API key"}'
EXCEEDED = b'{"error": "Rate limit exceeded. Please try again later."}'
UNAVAILABLE = b'{"error": "Service unavailable. Please try again later."}'
FULL = b'{"error": "Too many clients at once. Please try again later."}'

QUOTA = [
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "ratelimit-policy",
    "ratelimit",
]
REFUSAL = ["retry-after", "www-authenticate"]


def fields(headers):
    """Return header fields by lowercase name, and assert that none of Keytally occurs twice."""
    found = {}
    for name, value in headers:
        name, value = (
            part.decode("latin-1") if isinstance(part, bytes) else part for part in (name, value)
        )
        name = name.lower()
        assert name not in found or name not in QUOTA + REFUSAL, f"{name} occurs twice"
        found[name] = value
    return found


def assert_admitted(status, headers, *, remaining):
    found = fields(headers)
    assert 200 <= status < 300, status
    assert [name for name in QUOTA if name not in found] == []
    assert [name for name in REFUSAL if name in found] == []
    assert found["x-ratelimit-remaining"] == str(remaining)


def presenting(text, forwarded_for=None):
    """Return the header fields of a request with a text as its key, and with X-Forwarded-For."""
    presented = {"X-API-Key": text, "X-Forwarded-For": forwarded_for}
    return {name: value for name, value in presented.items() if value is not None}


def assert_each_outcome(fetch, gate, key, body):
    """Spend a key of two requests, then revoke it. `fetch` sends a text as X-API-Key, or no key."""
    assert_missing(*fetch(None))
    assert_invalid(*fetch("nonsense"))
    for remaining in (1, 0):
        status, headers, found = fetch(key.expose())
        assert_admitted(status, headers, remaining=remaining)
        assert body in found
    assert_exceeded(*fetch(key.expose()))
    gate.revoke(key.key_id)
    assert_invalid(*fetch(key.expose()))


def assert_missing(status, headers, body):
    assert_unauthorized(status, headers, body, MISSING)


def assert_invalid(status, headers, body):
    assert_unauthorized(status, headers, body, INVALID)


def assert_unauthorized(status, headers, body, expected):
    found = fields(headers)
    assert (status, body) == (401, expected)
    assert "www-authenticate" in found
    assert [name for name in [*QUOTA, "retry-after"] if name in found] == []
    assert_json(found, expected)


def assert_exceeded(status, headers, body, *, remaining=0):
    """Assert that a limit refused. The remaining units are those of the gate."""
    found = fields(headers)
    assert (status, body) == (429, EXCEEDED)
    assert [name for name in QUOTA if name not in found] == []
    assert found["x-ratelimit-remaining"] == str(remaining)
    assert int(found["retry-after"]) >= 1
    assert_json(found, EXCEEDED)


def assert_too_many(status, headers, body):
    """Assert that the limit of wrong keys refused. Such a response has no quota."""
    found = fields(headers)
    assert (status, body) == (429, EXCEEDED)
    assert int(found["retry-after"]) >= 1
    assert [
        name for name in [*QUOTA, "www-authenticate", "x-keytally-shadow"] if name in found
    ] == []
    assert_json(found, EXCEEDED)


def assert_wrong_keys_are_limited(fetch, gate):
    """Send wrong keys beyond a limit of two. `fetch` sends a key from an address, or by a proxy."""
    for _ in range(3):
        assert_missing(*fetch(None))
    revoked = gate.issue(7)
    gate.revoke(revoked.key_id)
    assert_invalid(*fetch("nonsense"))
    assert_invalid(*fetch(revoked.expose()))
    for text in ("nonsense", revoked.expose()):
        assert_too_many(*fetch(text))
    assert_too_many(*fetch("nonsense", forwarded_for="198.51.100.1"))
    assert_missing(*fetch(None))
    key = gate.issue(42)
    for remaining in (1, 0):
        assert_admitted(*fetch(key.expose())[:2], remaining=remaining)
    assert_exceeded(*fetch(key.expose()))
    for address, status in [
        ("203.0.113.10", 401),
        ("2001:db8::1", 401),
        ("2001:db8::2", 401),
        ("2001:db8::3", 429),
        ("2001:db8:0:1::1", 401),
    ]:
        assert fetch("nonsense", address=address)[0] == status, address


# The trusted proxies of `assert_trusted_proxies_are_read`.
PROXIES = ["10.0.0.0/8"]


def assert_trusted_proxies_are_read(fetch):
    """Send wrong keys by a proxy of `PROXIES` beyond a limit of two."""
    for forwarded_for, statuses in [
        ("192.0.2.1, 198.51.100.1", [401, 401, 429]),
        ("192.0.2.2, 198.51.100.1, 10.0.0.2", [429]),
        ("198.51.100.2", [401]),
        (None, [401, 401, 401]),
    ]:
        found = [
            fetch("nonsense", address="10.0.0.1", forwarded_for=forwarded_for)[0] for _ in statuses
        ]
        assert found == statuses, forwarded_for
    found = [
        fetch("nonsense", address="11.0.0.1", forwarded_for=f"198.51.100.{host}")[0]
        for host in (3, 4, 5)
    ]
    assert found == [401, 401, 429]


def assert_unavailable(status, headers, body):
    found = fields(headers)
    assert (status, body) == (503, UNAVAILABLE)
    assert found["retry-after"] == "1"
    assert "x-ratelimit-limit" not in found
    assert_json(found, UNAVAILABLE)


def assert_full(status, headers, body):
    found = fields(headers)
    assert (status, body) == (503, FULL)
    assert int(found["retry-after"]) >= 1
    assert_json(found, FULL)


def assert_json(found, body):
    assert found["content-type"] == "application/json"
    assert found["content-length"] == str(len(body))
