"""`python -m keytally` is the program `keytally`: the same command line, from the same Rust code."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from keytally import Gate, __version__
from tools import program

MODULE = [sys.executable, "-m", "keytally"]
SCRIPT = [str(Path(sysconfig.get_path("scripts")) / "keytally")]


def run(command, *arguments, pepper="", text=None):
    environment = {**os.environ, "KEYTALLY_PEPPER": pepper, "COLUMNS": "100"}
    return subprocess.run(
        [*command, *map(str, arguments)],
        env=environment,
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["create", "--help"], [], ["nonsense"], ["list", "/none"]]
)
def test_it_prints_what_the_program_prints(arguments, pepper):
    expected, *found = (
        run(command, *arguments, pepper=pepper) for command in ([program("keytally")], MODULE, SCRIPT)
    )
    for one in found:
        assert (one.returncode, one.stdout, one.stderr) == (
            expected.returncode,
            expected.stdout,
            expected.stderr,
        )


def test_the_version_is_the_packages():
    assert run(MODULE, "--version").stdout.strip() == f"keytally {__version__}"


def test_a_gate_from_creation_to_revocation(tmp_path, pepper):
    path = tmp_path / "api.gate"
    assert run(MODULE, "create", path, "--keys", 8, pepper=pepper).returncode == 0
    issued = run(MODULE, "issue", path, "--account", 42, pepper=pepper)
    key = issued.stdout.strip()
    gate = Gate.open(path, pepper=pepper)
    assert gate.check(key).account == 42
    assert run(MODULE, "check", path, "--key", "-", pepper=pepper, text=key).returncode == 0
    [listed] = json.loads(run(MODULE, "list", path, "--json", pepper=pepper).stdout)["keys"]
    assert run(MODULE, "revoke", path, listed["key_id"], pepper=pepper).returncode == 0
    assert gate.check(key).reason == "revoked"
    assert run(MODULE, "check", path, "--key", "-", pepper=pepper, text=key).returncode == 1
    assert run(MODULE, "create", path, pepper=pepper).returncode == 3


def test_control_c_ends_it(tmp_path, pepper):
    environment = {**os.environ, "KEYTALLY_PEPPER": pepper}
    Gate.create(tmp_path / "api.gate", pepper=pepper, keys=8)
    # It waits for keys on its standard input.
    command = [*MODULE, "import", tmp_path / "api.gate", "--account", "1"]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE) as process:
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        assert process.returncode == -signal.SIGINT
