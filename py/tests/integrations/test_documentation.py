"""Every public name of the integrations has documentation with examples that run."""

import doctest
import importlib
import json
import re
import tempfile
from pathlib import Path

import contract
import django_app
import frameworks
import pytest

MODULES = ["asgi", "django", "fastapi", "flask", "rest_framework", "spectacular", "wsgi"]
# Names that only an application's settings contain, as text: no example has to use them.
OF_SETTINGS = {"KeytallyConfig"}


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run_and_are_complete(name, monkeypatch, tmp_path):
    assert django_app.settings.configured
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    module = importlib.import_module(f"keytally.{name}")
    failed, _ = doctest.testmod(module)
    assert failed == 0
    tests = doctest.DocTestFinder().find(module)
    code = "".join(example.source for test in tests for example in test.examples)
    for public in module.__all__:
        assert getattr(module, public).__doc__, public
        assert public in OF_SETTINGS or re.search(rf"\b{public}\b", code), (
            f"{public} has no example"
        )


def blocks():
    """Return the names of each code block of docs/INTEGRATIONS.md that needs no other code."""
    text = Path(__file__).parents[3].joinpath("docs/INTEGRATIONS.md").read_text()
    codes = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for code in codes:
        if "import" in code:
            names = {}
            exec(code, names)
            yield names


def test_options_of_the_integrations_page_work():
    grouped, settled, tokens, logins, sources, refusing, without_key = blocks()
    key = grouped["gate"].issue(42, scopes=["write"]).expose()
    headers = {"X-API-Key": key}
    assert frameworks.run_asgi(grouped["app"], "/contacts", headers, "POST").status == 200
    frameworks.run_asgi(grouped["application"], "/", headers, "PUT")
    frameworks.run_asgi(grouped["application"], "/", headers)
    peeked = grouped["gate"].peek(key, 0, groups="write")
    assert [tally.verdict.remaining for tally in peeked.tallies] == [97, 4997, 18]
    other = {"X-API-Key": grouped["gate"].issue(42).expose()}
    assert frameworks.run_asgi(grouped["app"], "/contacts", other, "POST").status == 403
    key = tokens["gate"].issue(42).expose()

    def respond(environ, start_response):
        start_response("200 OK", [("X-Tokens", "2310")])
        return [b""]

    tokens["application"].app = respond
    frameworks.run_wsgi(tokens["application"], "/", {"X-API-Key": key})
    peeked = tokens["gate"].peek(key, 0, groups="tokens")
    assert [tally.verdict.remaining for tally in peeked.tallies] == [99, 200_000 - 2310]
    key = {"X-API-Key": settled["gate"].issue(42).expose()}
    frameworks.run_asgi(settled["application"], "/", key)
    assert settled["gate"].peek(key["X-API-Key"], 0).remaining < 1000
    paths = [frameworks.run_wsgi(logins["app"], "/login", method="POST") for _ in range(6)]
    assert [answer.status for answer in paths] == [401] * 5 + [429]
    assert frameworks.run_wsgi(sources["application"], "/").status == 401
    refused = frameworks.run_wsgi(refusing["app"], "/contacts")
    contract.assert_missing(refused.status, refused.headers, refused.body)
    spent = refusing["gate"].issue(42).expose()
    refusing["gate"].check(spent, 100)
    refused = frameworks.run_wsgi(refusing["app"], "/contacts", {"X-API-Key": spent})
    assert json.loads(refused.body)["code"] == "slow_down"
    assert frameworks.run_wsgi(without_key["app"], "/contacts").body == b'{"account":null}\n'


@pytest.mark.parametrize("page", ["README.md", "py/README.md"])
def test_names_on_a_page_exist(page):
    text = Path(__file__).parents[3].joinpath(page).read_text()
    named = re.findall(rf"\bkeytally\.({'|'.join(MODULES)})\.(\w+)", text)
    assert named
    for module, name in named:
        assert name in importlib.import_module(f"keytally.{module}").__all__
