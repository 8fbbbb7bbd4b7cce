"""Every public name has documentation with examples that run."""

import inspect
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import keytally
import smoke
from tools import free_port

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
        if not inspect.isdatadescriptor(value):
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


BOOK = ROOT / "docs"
# Pages whose code is a part of an application. `integrations/test_errors.py` and the test of the
# tutorial run it.
PARTS = {"INTEGRATIONS.md", "tutorial/python.md"}


def pages_with(block):
    """Return the paths of the book's pages with a code block that begins in this way."""
    pages = {page.relative_to(BOOK).as_posix(): page.read_text() for page in BOOK.rglob("*.md")}
    return sorted(path for path, text in pages.items() if f"```{block}\n" in text)


@pytest.mark.parametrize("page", [page for page in pages_with("python") if page not in PARTS])
@pytest.mark.filterwarnings("ignore")  # of the packages from which a page migrates
def test_code_of_the_book_runs(page, tmp_path, monkeypatch):
    """The blocks of a page are one program. It finds a gate."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEYTALLY_PEPPER", "5a" * 32)
    keytally.Gate.create("api.gate", keys=100)
    text = BOOK.joinpath(page).read_text()
    if "flask" in text:
        pytest.importorskip("flask_limiter")
    code = "".join(re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    exec(compile(code, page, "exec"), {"__name__": "page"})


# The blocks of a page: the last line of text before it, the language, the code.
BLOCK = re.compile(r"([^\n]*)\n\n```(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = "\n@@\n"


def test_commands_of_the_tutorial_print_what_it_shows(tmp_path):
    """The blocks of the page are one script, by the rules that CONTRIBUTING.md states."""
    assert [page for page in pages_with("sh,background") if "python" in page] == [
        "tutorial/python.md"
    ]
    while time.time() % 3600 > 3570:  # otherwise, the counts of the hour may be reset
        time.sleep(1)
    port = str(free_port())
    script = "exec 2>&1\ntrap 'code=$?; trap \"\" TERM; kill 0; exit $code' EXIT\n"
    shown = []
    for before, language, block in BLOCK.findall(BOOK.joinpath("tutorial/python.md").read_text()):
        code = block.replace("8000", port)
        if language == "sh":
            script += f"{code}printf '{MARK}'\n"
            shown.append("")
        elif language == "sh,background":
            script += f"( {code} ) > log 2>&1 &\n"
            script += "for _ in {1..400}; do "
            script += f"curl -s -o /dev/null 127.0.0.1:{port} && break; sleep 0.05; done\n"
        elif language == "text":
            shown[-1] = code
        elif before.endswith("`:"):
            script += f"cat > {before[1:-2]} <<'@@@'\n{code}@@@\n"
    environment = {name: value for name, value in os.environ.items() if "PEPPER" not in name}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        [shutil.which("bash"), "-ec", script],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        start_new_session=True,
    )
    assert done.returncode == 0, done.stdout + tmp_path.joinpath("log").read_text()
    outputs = done.stdout.replace("\r", "").split(MARK)
    for expected, output in zip(shown, outputs):
        pattern = re.escape(expected.strip()).replace("…", ".*")
        assert not expected or re.fullmatch(pattern, output.strip()), output
    assert len(outputs) > len(shown) > 5
