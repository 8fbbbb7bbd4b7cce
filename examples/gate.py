"""One gate, one key, requests until one is denied.

    keytally create api.gate --plan "default=3/minute, 100/hour"
    python gate.py

Run it in the folder of api.gate, with the pepper of the gate in KEYTALLY_PEPPER.
"""

import keytally

gate = keytally.Gate.open("api.gate")

key = gate.issue(42, env="live", plan="default")
header = key.expose()  # the X-API-Key field of a request, or None

admitted = True
while admitted:
    verdict = gate.check(header)
    print(verdict.http_status, verdict.body.decode())
    for name, value in verdict.headers:
        print(f"{name}: {value}")
    admitted = verdict.admitted
