"""The command line ``python -m keytally``, with the commands of the program ``keytally``.

The program of the package keytally-server also has the command ``serve``.
"""

from __future__ import annotations

import signal
import sys

from keytally._native import run


def main() -> int:
    """Run the command line, and return its exit status.

    It is 0 for success, and 1 for a denied request, an invalid key or rejected lines of an import.
    It is 2 for wrong usage, and 3 for a failure or a gate with flaws.
    """
    # Python's own handler would run only after the command has ended.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return run(["keytally", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
