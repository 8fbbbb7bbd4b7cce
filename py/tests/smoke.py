"""Runs all documentation examples with the standard library, for Pythons without pytest."""

import doctest
import inspect
import sys
import tempfile
import traceback

import keytally
from keytally import exceptions


def documented():
    """Yield the name, the value and the docstring of each public name."""
    yield "keytally", keytally, keytally.__doc__
    yield "keytally.exceptions", exceptions, exceptions.__doc__
    for name in sorted(set(keytally.__all__) - {"__version__"}):
        value = getattr(keytally, name)
        yield name, value, value.__doc__
        if inspect.isclass(value) and not issubclass(value, Exception):
            for member in sorted(vars(value)):
                if not member.startswith("_"):
                    attribute = getattr(value, member)
                    # The docstring of a class in Python describes its attributes.
                    is_slot = inspect.ismemberdescriptor(attribute)
                    text = value.__doc__ if is_slot else inspect.getdoc(attribute)
                    yield f"{name}.{member}", attribute, text


def examples(name, text):
    """Return the examples of a text as a test."""
    return doctest.DocTestParser().get_doctest(text, {}, name, name, 0)


def without_argument_name(*arguments, **options):
    """Return the lines of an exception without the argument name that Python 3.11 and later add.

    doctest of Python 3.11.2 would compare that name instead of the exception.
    """
    lines = format_exception_only(*arguments, **options)
    return [line for line in lines if not line.startswith("while processing ")]


format_exception_only = traceback.format_exception_only


def failures():
    """Run the examples, and return the number of failures and the number of examples."""
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    # The files that examples create are removed with the folder.
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        traceback.format_exception_only = without_argument_name
        try:
            for name, _, text in documented():
                if not text:
                    raise AssertionError(f"{name} has no documentation")
                runner.run(examples(name, text))
        finally:
            tempfile.tempdir = None
            traceback.format_exception_only = format_exception_only
    return runner.failures, runner.tries


if __name__ == "__main__":
    failed, tried = failures()
    sys.exit(f"{failed} of {tried} examples failed" if failed or not tried else 0)
