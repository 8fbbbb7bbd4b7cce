"""Migrations of a gate, as its administrator makes them with the program."""

import os
import subprocess
import sys

from keytally import Gate


def migrate(path, pepper, *arguments):
    """Migrate the gate at a path by `python -m keytally migrate`."""
    command = [sys.executable, "-m", "keytally", "migrate", path, f"{path}.new", *arguments]
    environment = {**os.environ, "KEYTALLY_PEPPER": pepper}
    subprocess.run(list(map(str, command)), env=environment, check=True, capture_output=True)


def left_behind(gate, pepper):
    """Migrate a gate, and return one that stays with the old file, whose counts have moved.

    Its file is at a second path, at which no new one appears.
    """
    other = f"{gate.path}.other"
    os.link(gate.path, other)
    left = Gate.open(other, pepper=pepper)
    migrate(gate.path, pepper)
    return left
