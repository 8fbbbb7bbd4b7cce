"""Fixtures of the tests of several integrations."""

import frameworks
import pytest

from keytally import Gate, Limiter, _guesses


@pytest.fixture(autouse=True)
def _reset_wrong_key_counts():
    """Give each test its own counts of wrong keys."""
    _guesses.in_memory.cache_clear()


@pytest.fixture
def policy():
    """Return the policy of the gate. A module with another limit has its own."""
    return "2/31d"


@pytest.fixture
def gate(tmp_path, pepper, policy):
    gate = Gate.create(tmp_path / "api.gate", pepper=pepper, keys=64, plans={"default": policy})
    frameworks.PEPPER[gate.path] = pepper
    return gate


@pytest.fixture
def key(gate):
    return gate.issue(42)


@pytest.fixture
def headers(key):
    return {"X-API-Key": key.expose()}


@pytest.fixture
def spent(gate, key, policy):
    """Return a function that returns the units that the key was charged."""
    limit = int(policy.partition("/")[0])
    return lambda: limit - gate.peek(key.expose(), 0).remaining


@pytest.fixture
def limiter(tmp_path):
    return Limiter.create(tmp_path / "all.limiter", "2/31d", capacity=100)
