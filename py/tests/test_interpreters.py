"""A second interpreter in one process: mod_wsgi creates one for each application."""

import importlib
import subprocess
import sys

import pytest

# Imports the module in the main interpreter ("main") and in new ones ("sub"), in the order of the
# arguments, and prints a line for each.
PROGRAM = """
import sys
try:
    import _interpreters as interpreters
    create = lambda: interpreters.create("legacy")
except ImportError:
    import _xxsubinterpreters as interpreters
    create = lambda: interpreters.create(isolated=False)
IMPORT = '''
try:
    import keytally
except ImportError as error:
    print("refused:", error, flush=True)
else:
    try:
        keytally.Policy("many")
    except keytally.PolicyError:
        print("caught", flush=True)
'''
for interpreter in sys.argv[1:]:
    if interpreter == "main":
        exec(IMPORT)
    else:
        failure = interpreters.run_string(create(), IMPORT)
        assert failure is None, failure
"""


def run(*interpreters):
    # In development mode, the modules for interpreters warn that they are private.
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, *interpreters]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def has_interpreters():
    for name in ("_interpreters", "_xxsubinterpreters"):
        try:
            importlib.import_module(name)
        except ImportError:
            continue
        return True
    return False


@pytest.mark.skipif(not has_interpreters(), reason="this Python has no module for interpreters")
@pytest.mark.parametrize(
    "order", [("main", "sub", "main"), ("sub", "main"), ("sub", "sub", "main")]
)
def test_import_in_second_interpreter_is_refused(order):
    ran = run(*order)
    lines = ran.stdout.splitlines()
    assert len(lines) == len(order), ran
    for interpreter, line in zip(order, lines):
        if interpreter == "main":
            assert line == "caught", ran
        else:
            assert line.startswith("refused: keytally works only in the main interpreter"), ran
            assert "WSGIApplicationGroup %{GLOBAL}" in line


def test_import_in_main_interpreter_can_be_repeated():
    forget = "[sys.modules.pop(name) for name in list(sys.modules) if name.startswith('keytally')]"
    code = f"import keytally, sys; {forget}; import keytally"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")
