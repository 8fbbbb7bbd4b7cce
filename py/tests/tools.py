"""The programs that tests need, which `cargo xtask test python` builds."""

import os
from pathlib import Path

FOLDER = "KEYTALLY_TEST_PROGRAMS"


def program(name):
    """Return the path of a program: `keytally`, the C `client`, or the folder of `gates` from the vectors."""
    folder = os.environ.get(FOLDER)
    if folder is None:
        raise AssertionError(f"{FOLDER} names no folder: run `cargo xtask test python`, which makes it")
    return Path(folder) / name
