"""The contract of the API: what each response looks like, whatever made it."""

MISSING = b'{"error": "Missing X-API-Key header"}'
INVALID = b'{"error": "Invalid API key"}'
EXCEEDED = b'{"error": "Rate limit exceeded. Please try again later."}'
FULL = b'{"error": "Too many clients at once. Please try again later."}'

QUOTA = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit-policy", "ratelimit"]
REFUSAL = ["retry-after", "www-authenticate"]


def fields(headers):
    """Return the fields of a response as a dict of lowercase names; no field of ours may be there twice."""
    found = {}
    for name, value in headers:
        name, value = (part.decode("latin-1") if isinstance(part, bytes) else part for part in (name, value))
        name = name.lower()
        assert name not in found or name not in QUOTA + REFUSAL, f"{name} came twice"
        found[name] = value
    return found


def assert_admitted(status, headers, *, remaining):
    found = fields(headers)
    assert 200 <= status < 300, status
    assert [name for name in QUOTA if name not in found] == []
    assert [name for name in REFUSAL if name in found] == []
    assert found["x-ratelimit-remaining"] == str(remaining)


def presenting(text):
    """Return the header fields of a request that presents a text as its key, if any."""
    return {} if text is None else {"X-API-Key": text}


def assert_each_outcome(ask, gate, key, body):
    """Spend a key of two requests, then revoke it. `ask` sends what is given as X-API-Key, if anything."""
    assert_missing(*ask(None))
    assert_invalid(*ask("nonsense"))
    for remaining in (1, 0):
        status, headers, found = ask(key.expose())
        assert_admitted(status, headers, remaining=remaining)
        assert body in found
    assert_exceeded(*ask(key.expose()))
    gate.revoke(key.key_id)
    assert_invalid(*ask(key.expose()))


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


def assert_exceeded(status, headers, body):
    found = fields(headers)
    assert (status, body) == (429, EXCEEDED)
    assert [name for name in QUOTA if name not in found] == []
    assert found["x-ratelimit-remaining"] == "0"
    assert int(found["retry-after"]) >= 1
    assert_json(found, EXCEEDED)


def assert_full(status, headers, body):
    found = fields(headers)
    assert (status, body) == (503, FULL)
    assert int(found["retry-after"]) >= 1
    assert_json(found, FULL)


def assert_json(found, body):
    assert found["content-type"] == "application/json"
    assert found["content-length"] == str(len(body))
