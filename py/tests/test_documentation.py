"""Every public name has documentation, and the examples in it are true."""

import re
from pathlib import Path

import pytest

import keytally
import smoke

ROOT = Path(__file__).parents[2]


def test_every_example_runs():
    failed, tried = smoke.failures()
    assert failed == 0
    assert tried > 50


def test_every_name_is_documented():
    for name in keytally.__all__:
        if name != "__version__":
            assert getattr(keytally, name).__doc__, name


@pytest.mark.parametrize("page", ["README.md", "py/README.md"])
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    codes = re.findall(r"^```python\n(.*?)^```$", ROOT.joinpath(page).read_text(), re.MULTILINE | re.DOTALL)
    assert codes
    for code in codes:
        exec(compile(code, page, "exec"), {})
    assert "X-RateLimit-Remaining: 999" in capsys.readouterr().out
