"""Every public name has documentation with examples that run."""

import inspect
import re
from pathlib import Path

import pytest

import keytally
import smoke

ROOT = Path(__file__).parents[2]


def test_documentation_examples_run():
    failed, tried = smoke.failures()
    assert failed == 0
    # The parser finds the examples of all classes, more than 150 statements.
    assert tried > 150


def test_every_public_name_has_an_example():
    """A callable has its own example. A property occurs in an example of its class."""
    documented = {name: (value, text) for name, value, text in smoke.documented()}

    def code(texts):
        return "".join(
            example.source for text in texts for example in smoke.examples("", text).examples
        )

    def has_example(name, value, text):
        owner, _, member = name.rpartition(".")
        if not inspect.isgetsetdescriptor(value):
            return code([text]) or inspect.ismodule(value)
        of_class = [
            text for other, (_, text) in documented.items() if other.partition(".")[0] == owner
        ]
        return re.search(rf"\.{member}\b", code(of_class))

    assert [name for name, found in documented.items() if not has_example(name, *found)] == []


@pytest.mark.parametrize("page", ["py/README.md", "examples/gate.py"])
def test_page_code_runs_twice(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEYTALLY_PEPPER", "5a" * 32)
    keytally.Gate.create("api.gate", keys=2, plans={"default": "100/minute, 1000/hour"})
    text = ROOT.joinpath(page).read_text()
    codes = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) or [text]
    for code in codes * 2:
        exec(compile(code, page, "exec"), {})
    assert "X-RateLimit-Remaining: 999" in capsys.readouterr().out
