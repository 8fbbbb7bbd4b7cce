"""What the tests of packages share."""

import socket
import subprocess


def run(command, **options):
    """Runs a command, and returns its output, which is part of the error if it fails."""
    merged = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options}
    done = subprocess.run(command, **merged)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout.strip()


def free_port():
    """Returns a port that no program listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
