"""The programs that tests run. `cargo xtask test python` builds them."""

import os
from pathlib import Path

FOLDER = "KEYTALLY_TEST_PROGRAMS"


def program(name):
    """Return the path of the program `keytally`, or of the folder `gates`."""
    folder = os.environ.get(FOLDER)
    if folder is None:
        raise AssertionError(f"{FOLDER} is not set: run `cargo xtask test python`, which sets it")
    return Path(folder) / name
