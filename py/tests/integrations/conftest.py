"""What the tests of several integrations need."""

import pytest

from keytally import Gate, Limiter, _guesses


@pytest.fixture(autouse=True)
def _forget_guesses():
    """Count the guesses of each test alone."""
    _guesses.in_memory.cache_clear()


@pytest.fixture
def gate(pepper):
    return Gate.in_memory(pepper=pepper, keys=64, plans={"default": "2/31d"})


@pytest.fixture
def key(gate):
    return gate.issue(42)


@pytest.fixture
def limiter():
    return Limiter("2/31d", capacity=100)
