"""Fixtures of several tests."""

import pytest

from keytally import Gate, generate_pepper

# A time 20 seconds after a full hour.
NOW = 1_700_049_620


@pytest.fixture
def pepper():
    return generate_pepper()


@pytest.fixture
def gate(pepper):
    return Gate.in_memory(pepper=pepper, keys=64)


@pytest.fixture
def now():
    return NOW
