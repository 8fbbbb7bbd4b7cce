"""A process that spends the units of a fleet, with the arguments and the output of `spend.c`."""

import os
import sys
import time
from collections import Counter

from keytally import Gate

path, fleet, window_s, end, *keys = sys.argv[1:]
gate = Gate.open(path, pepper=os.environ["KEYTALLY_PEPPER"], fleet=fleet)
counts = Counter()
print("ready", flush=True)
while not os.path.exists(end):
    for number, key in enumerate(keys):
        verdict = gate.check(key)
        if verdict.outcome == "unavailable":
            continue
        window = verdict.reset_unix_s // int(window_s) - 1
        late = int(time.time() + 0.01) // int(window_s) - window
        if verdict.outcome == "denied":
            late = -1
        else:
            assert (verdict.admitted, verdict.leased) == (True, True), verdict
        counts[number, window, late] += 1
    time.sleep(0.005)
for counted, count in counts.items():
    print(*counted, count)
