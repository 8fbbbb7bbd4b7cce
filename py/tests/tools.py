"""What tests run: programs, which `cargo xtask test python` builds, and servers at free ports."""

import contextlib
import os
import socket
from pathlib import Path

FOLDER = "KEYTALLY_TEST_PROGRAMS"


def program(name):
    """Return the path of the program `keytally`, or of the folder `gates`."""
    folder = os.environ.get(FOLDER)
    if folder is None:
        raise AssertionError(f"{FOLDER} is not set: run `cargo xtask test python`, which sets it")
    return Path(folder) / name


def free_port():
    """Return a free port that the kernel gives to no client.

    A client that waits for a server could otherwise get the server's port as its own, and connect
    to itself.
    """
    for port in range(20_000 + os.getpid() % 10_000, 32_768):
        with socket.socket() as server, contextlib.suppress(OSError):
            server.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")
