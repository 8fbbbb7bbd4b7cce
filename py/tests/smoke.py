"""Runs every example of the documentation with the standard library alone: for Pythons without pytest."""

import doctest
import inspect
import sys

import keytally
from keytally import _native, exceptions


def documented():
    """Yield the name and the text of everything that has documentation."""
    yield "keytally", keytally.__doc__
    yield "keytally.exceptions", exceptions.__doc__
    for name, value in sorted(vars(_native).items()):
        if name.startswith("_") or not (inspect.isclass(value) or inspect.isbuiltin(value)):
            continue
        yield name, value.__doc__
        if inspect.isclass(value):
            for member, attribute in sorted(vars(value).items()):
                if not member.startswith("_"):
                    yield f"{name}.{member}", inspect.getdoc(attribute)


def failures():
    """Run the examples and return how many failed, and of how many."""
    runner = doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    for name, text in documented():
        if not text:
            raise AssertionError(f"{name} has no documentation")
        for test in [doctest.DocTestParser().get_doctest(text, {}, name, name, 0)]:
            runner.run(test)
    return runner.failures, runner.tries


if __name__ == "__main__":
    failed, tried = failures()
    sys.exit(f"{failed} of {tried} examples failed" if failed or not tried else 0)
