"""A fleet file without an agent, whose page a test writes as an agent does."""

import mmap
import os
import struct

from keytally import Gate
from keytally._native import clock_ms

# The words of the page: see the layout of the fleet file.
OFFSET, STATE, HEARTBEAT, DOORBELL = 8, 9, 16, 24
ABSENT, LEADING, CUT = 0, 2, 3
CLOSED, SHARE, OPEN = 1, 2, 3

# The length of a file for four tallies.
LENGTH = 8192


class FleetFile:
    """The fleet file of a gate with four keys, whose plans have one section."""

    def __init__(self, path):
        self.path = path
        with open(path, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.truncate(LENGTH)
        with open(path, "r+b") as file:
            self._page = mmap.mmap(file.fileno(), LENGTH)

    def __getitem__(self, word):
        return struct.unpack_from("<q", self._page, 8 * word)[0]

    def __setitem__(self, word, value):
        struct.pack_into("<q", self._page, 8 * word, value)

    def set(self, phase, mode=CLOSED, machines=1):
        """Write the state of an agent, which is alive for the time of a test."""
        self[STATE] = phase | mode << 8 | machines << 32
        self[HEARTBEAT] = clock_ms() + self[OFFSET] + 3_600_000

    @property
    def is_rung(self):
        """Whether a request has reported that it lacks credits."""
        return self[DOORBELL] != 0


def gate_in_fleet(folder, pepper, plan="10/31d", **options):
    """Return a gate that has joined a fleet without an agent, its file, and a key."""
    path = folder / "api.gate"
    gate = Gate.create(path, pepper=pepper, keys=4, plans={"default": plan})
    key = gate.issue(42).expose()
    gate.set_fleet(True)
    file = FleetFile(folder / "api.gate.fleet")
    return Gate.open(path, pepper=pepper, fleet=file.path, **options), file, key
