"""Fixtures of the tests of several integrations."""

import pytest

from keytally import Gate, Limiter, _guesses


@pytest.fixture(autouse=True)
def _reset_wrong_key_counts():
    """Give each test its own counts of wrong keys."""
    _guesses.in_memory.cache_clear()


@pytest.fixture
def gate(pepper):
    return Gate.in_memory(pepper=pepper, keys=64, plans={"default": "2/31d"})


@pytest.fixture
def key(gate):
    return gate.issue(42)


@pytest.fixture
def limiter():
    return Limiter.in_memory("2/31d", capacity=100)
