"""Measures what a request and a connection cost the service, for docs/how-to/sizing.md.

Usage: cost.py PROGRAM, the path of a release build of `keytally`. It needs wrk. The times are those
that the service's process spends on a processor, so other load changes them only a little.
"""

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAM = Path(sys.argv[1]).resolve()
CONNECTIONS = 1000
SECONDS = 10
POLICY = "default=100000000/hour"


def spent_s(process):
    """Returns the processor time of a process, user and system."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(process):
    """Returns the bytes of memory of a process that no file backs."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) * 1024


def wait_for(process, address):
    while process.poll() is None:
        try:
            return socket.create_connection(address).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
    raise SystemExit(f"{PROGRAM} serve ended: a program with this command is needed")


def requests(process, url, *options):
    """Sends requests for some seconds. Returns the microseconds of processor time of each."""
    before = spent_s(process)
    wrk = ["wrk", "--threads=1", "--connections=64", f"--duration={SECONDS}s", *options, url]
    output = subprocess.run(wrk, check=True, text=True, capture_output=True).stdout
    refused = "Non-2xx" in output
    assert refused == (not options), output
    return (spent_s(process) - before) / int(re.search(r"(\d+) requests in", output)[1]) * 1e6


def main(folder):
    gate, pepper = folder / "api.gate", folder / "pepper"
    pepper.write_text("5a" * 32)
    pepper.chmod(0o600)
    given = ["--pepper-file", pepper]
    keytally = lambda *words: subprocess.run(
        [PROGRAM, *words, *given], check=True, text=True, capture_output=True
    ).stdout.strip()
    keytally("create", gate, "--plan", POLICY)
    key = keytally("issue", gate, "--account", "42")
    address = ("127.0.0.1", 8089)
    listen = ["--listen", f"{address[0]}:{address[1]}", "--trusted-proxy", address[0]]
    log = (folder / "log").open("w")
    serve = subprocess.Popen([PROGRAM, "serve", "--data", folder, *listen, *given], stderr=log, stdout=log)
    try:
        wait_for(serve, address)
        url = f"http://{address[0]}:{address[1]}"
        with_key = ["--header", f"X-API-Key: {key}"]
        print(f"admitted at /auth: {requests(serve, f'{url}/auth', *with_key):.1f} µs")
        print(f"admitted, example API: {requests(serve, f'{url}/api/v1/contacts', *with_key):.1f} µs")
        print(f"refused, without a key: {requests(serve, f'{url}/auth'):.1f} µs")
        before = memory(serve)
        open_ones = [socket.create_connection(address) for _ in range(CONNECTIONS)]
        for connection in open_ones:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            connection.recv(4096)
        each = (memory(serve) - before) / CONNECTIONS
        print(f"an idle connection: {each / 1024:.1f} KiB; without one: {before / 2**20:.1f} MiB")
    finally:
        serve.kill()
        serve.wait()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
