"""The program ``keytally``: ``python -m keytally --help`` explains every command."""

from __future__ import annotations

import signal
import sys

from keytally._native import run


def main() -> int:
    """Run the command line and return its exit status: 0 fine, 1 denied or invalid, 2 usage, 3 failure."""
    # Python would only make a note of Ctrl-C, and look at it when the command has ended.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return run(["keytally", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
