"""What the tests of several integrations need."""

import pytest

from keytally import Gate, Limiter


@pytest.fixture
def gate(pepper):
    return Gate.in_memory(pepper=pepper, keys=64, plans={"default": "2/31d"})


@pytest.fixture
def key(gate):
    return gate.issue(42)


@pytest.fixture
def limiter():
    return Limiter("2/31d", capacity=100)
