"""A second interpreter in one process: mod_wsgi creates one for each application."""

import importlib
import subprocess
import sys

import pytest

# Runs code in the main interpreter and in new ones, in the order of the arguments.
PROGRAM = """
import sys
try:
    import _interpreters as interpreters
    create = lambda: interpreters.create("legacy")
except ImportError:
    import _xxsubinterpreters as interpreters
    create = lambda: interpreters.create(isolated=False)
SAY = '''
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
for where in sys.argv[1:]:
    if where == "main":
        exec(SAY)
    else:
        ran = interpreters.run_string(create(), SAY)
        assert ran is None, ran
"""


def run(*where):
    # In development mode, these modules warn that they are private.
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, *where]
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
    said = ran.stdout.splitlines()
    assert len(said) == len(order), ran
    for where, line in zip(order, said):
        if where == "main":
            assert line == "caught", ran
        else:
            assert line.startswith("refused: keytally works only in the main interpreter"), ran
            assert "WSGIApplicationGroup %{GLOBAL}" in line


def test_import_in_main_interpreter_can_be_repeated():
    forget = "[sys.modules.pop(name) for name in list(sys.modules) if name.startswith('keytally')]"
    code = f"import keytally, sys; {forget}; import keytally"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")
