"""The fixture ``gate`` for pytest: a gate in memory with one key.

Enable it in ``conftest.py``::

    pytest_plugins = ["keytally.pytest_plugin"]

A test then fills a window of the key, and sets the time by `keytally.testing.at`. A fixture of the
same name in the test's own module or ``conftest.py`` takes precedence.
"""

from __future__ import annotations

import pytest

from keytally.testing import MemoryGate

__all__ = ["gate"]


@pytest.fixture
def gate() -> MemoryGate:
    """Return a gate in memory with one key and the plan ``100/minute, 1000/hour``."""
    return MemoryGate()
