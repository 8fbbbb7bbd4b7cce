"""Every public name has documentation, and the examples in it are true."""

import keytally
import smoke


def test_every_example_runs():
    failed, tried = smoke.failures()
    assert failed == 0
    assert tried > 50


def test_every_name_is_documented():
    for name in keytally.__all__:
        if name != "__version__":
            assert getattr(keytally, name).__doc__, name
