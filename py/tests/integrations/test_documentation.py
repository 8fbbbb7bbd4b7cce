"""The integrations' names have documentation, and the examples in it are true."""

import doctest
import importlib

import django_app
import pytest

MODULES = ["asgi", "django", "fastapi", "flask", "rest_framework", "wsgi"]


@pytest.mark.parametrize("name", MODULES)
def test_the_documentation_is_true_and_whole(name):
    assert django_app.settings.configured
    module = importlib.import_module(f"keytally.{name}")
    failed, _ = doctest.testmod(module)
    assert failed == 0
    for public in module.__all__:
        assert getattr(module, public).__doc__, public
