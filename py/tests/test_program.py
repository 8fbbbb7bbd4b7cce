"""`python -m keytally` has the commands of the program `keytally`, without `serve`."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from keytally import Gate, __version__
from tools import program

MODULE = [sys.executable, "-m", "keytally"]


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
    "arguments",
    [["--version"], ["--help"], ["create", "--help"], ["serve"], ["nonsense"], ["list", "/none"]],
)
def test_module_prints_what_the_program_prints(arguments, pepper):
    expected, found = (
        run(command, *arguments, pepper=pepper) for command in ([program("keytally")], MODULE)
    )
    assert (found.returncode, found.stdout, found.stderr) == (
        expected.returncode,
        expected.stdout,
        expected.stderr,
    )


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--listen", "127.0.0.1:0"]])
def test_serve_ends_with_usage_and_names_its_package(arguments):
    ran = run(MODULE, "serve", *arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "does not have the command serve" in ran.stderr
    assert "keytally-server" in ran.stderr


def test_help_names_the_package_of_serve_in_a_line():
    ran = run(MODULE, "--help")
    commands = re.findall(r"^  ([a-z-]+) ", ran.stdout, re.MULTILINE)
    assert {"create", "issue", "list", "revoke", "check", "top"} <= set(commands)
    assert "serve" not in commands
    [line] = [line for line in ran.stdout.splitlines() if re.search(r"\bserve\b", line)]
    assert "keytally-server" in line


def test_version_is_that_of_the_package():
    assert run(MODULE, "--version").stdout.strip() == f"keytally {__version__}"


def test_gate_is_administered_by_the_module(tmp_path, pepper):
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


def test_ctrl_c_ends_a_command(tmp_path, pepper):
    environment = {**os.environ, "KEYTALLY_PEPPER": pepper}
    Gate.create(tmp_path / "api.gate", pepper=pepper, keys=8)
    # The command waits for keys on its standard input.
    command = [*MODULE, "import", tmp_path / "api.gate", "--account", "1"]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE) as process:
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        assert process.returncode == -signal.SIGINT
