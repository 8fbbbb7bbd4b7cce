"""What is installed: one wheel for every Python, dependencies of extras alone, and what a table takes."""

import re
import sysconfig
from importlib.metadata import distribution

import pytest

from keytally import Gate, Limiter

PACKAGE = distribution("keytally")


def test_one_wheel_does_for_every_python():
    tags = re.findall(r"^Tag: (.*)$", PACKAGE.read_text("WHEEL"), re.MULTILINE)
    assert tags
    # A Python without the global lock has no stable interface, and so a wheel of its own.
    expected = "cp39-abi3-" if not sysconfig.get_config_var("Py_GIL_DISABLED") else "cp3"
    assert all(tag.startswith(expected) for tag in tags)


def test_nothing_is_required_but_by_extras():
    extras = PACKAGE.metadata.get_all("Provides-Extra")
    assert sorted(extras) == ["django", "fastapi", "flask", "rest-framework"]
    named = {
        extra for text in PACKAGE.requires for extra in re.findall(r"extra == ['\"]([\w-]+)['\"]$", text)
    }
    assert named == set(extras)
    assert all("extra == " in text for text in PACKAGE.requires)


def test_it_tells_type_checkers_that_it_has_types():
    files = {str(file) for file in PACKAGE.files}
    assert {"keytally/py.typed", "keytally/_native.pyi"} <= files


@pytest.mark.parametrize("count", [1000, 100_000])
def test_a_key_and_a_subject_take_what_the_documentation_says(tmp_path, pepper, count):
    gate = Gate.create(tmp_path / "api.gate", pepper=pepper, keys=count)
    limiter = Limiter.create(tmp_path / "addresses.limiter", "5/minute", count)
    of_gate, of_limiter = (table.path.stat().st_size / count for table in (gate, limiter))
    # 4,096 bytes of each are the page that the file begins with.
    assert of_gate - 4096 / count < 68.1
    assert of_limiter - 4096 / count < 26
