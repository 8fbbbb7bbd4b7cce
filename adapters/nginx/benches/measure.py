"""Measures requests to nginx with and without the module.

It writes a group of benches/RESULTS.md.

`cargo xtask bench nginx` sets the paths that are needed. Each turn starts an nginx with one worker,
which has a processor to itself, and sends it requests by wrk for a second. wrk and the upstream
share another processor. The configurations of a page take turns, so that other load on the machine
affects all of them.
"""

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "tests"))

import build  # noqa: E402

MODULE = build.module()
KEYTALLY = os.environ["KEYTALLY_TEST_KEYTALLY"]
QUICK = "KEYTALLY_BENCH_QUICK" in os.environ
# A turn takes a second, the shortest time that wrk accepts.
ROUNDS = 2 if QUICK else 10
CONNECTIONS = 32
AUTOGROUP = Path("/proc/self/autogroup")

# Enough clients that none reaches its limit in a turn: the limits are of a usual size.
CLIENTS = 4096

LIMIT_REQ = ("limit_req_zone $http_x_client zone=other:10m rate=100r/m;", "limit_req zone=other burst=100 nodelay;")
LIMIT = ("keytally_limit_zone zone=ours:10m key=$http_x_client policy=100/minute;", "keytally_limit ours;")
KEY = ("keytally_gate api file=turn.gate pepper_file=pepper;", "keytally api;")
QUIET = "keytally_headers off;"
# Constant header fields, of the number and lengths that the module sets: limit_req sets none.
FIELDS = "".join(
    f"add_header {name} {value} always;"
    for name, value in {
        "X-RateLimit-Limit": "1000",
        "X-RateLimit-Remaining": "999",
        "X-RateLimit-Reset": "1700053200",
        "RateLimit-Policy": """'"minute";q=100;w=60, "hour";q=1000;w=3600'""",
        "RateLimit": """'"minute";r=99;t=40, "hour";r=999;t=3580'""",
    }.items()
)
# The work of each configuration besides the response, and its lines in `http` and in locations.
# Rows of the same work are compared.
CONFIGURATIONS = {
    "nginx alone": ("none", "", ""),
    "nginx alone, and five fields": ("fields", "", FIELDS),
    "limit_req": ("a limit", *LIMIT_REQ),
    "limit_req, and five fields": ("a limit, fields", LIMIT_REQ[0], LIMIT_REQ[1] + FIELDS),
    "keytally_limit": ("a limit, fields", *LIMIT),
    "keytally_limit, headers off": ("a limit", LIMIT[0], LIMIT[1] + QUIET),
    "keytally": ("a key, fields", *KEY),
    "keytally, headers off": ("a key", KEY[0], KEY[1] + QUIET),
}
if not QUICK:
    CONFIGURATIONS["keytally_limit and keytally"] = (
        "a limit, a key, fields",
        LIMIT[0] + KEY[0],
        LIMIT[1] + KEY[1],
    )
PAGES = {"empty_gif": "/gif", "a proxied answer": "/proxied"}

CONFIG = """%(module)s worker_processes 1; pid nginx.pid; error_log error.log; daemon off; %(user)s
events { worker_connections 256; }
http {
    access_log off; keepalive_requests 100000000; keepalive_timeout 1h;
    client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
    upstream app { server 127.0.0.1:%(app)s; keepalive 64; }
    %(http)s
    server {
        listen 127.0.0.1:%(port)s;
        location = /gif { %(location)s empty_gif; }
        location = /proxied { %(location)s proxy_http_version 1.1; proxy_set_header Connection ""; proxy_pass http://app/contacts; }
        location = /contacts { default_type application/json; return 200 '{"contacts": []}'; }
    }
}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def processors():
    """Returns the processor of the worker and that of all else, which may be the same one."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[-1]


def run_on(processor):
    """Returns a function for a new process, which binds it to the processor.

    Root also raises its priority.
    """

    def prepare():
        os.sched_setaffinity(0, {processor})
        os.setsid()  # Linux schedules by session: each has its own share and priority.
        if os.geteuid() == 0:
            os.nice(-20)
            if AUTOGROUP.exists():
                AUTOGROUP.write_text("-20")

    return prepare


class Nginx:
    """An nginx with one worker on this processor.

    Without the port `app` of an upstream, it is its own upstream.
    """

    def __init__(self, folder, app, configuration, processor):
        self.port = free_port()
        _, declared, used = CONFIGURATIONS[configuration]
        values = {
            "module": f"load_module {MODULE};" if "keytally" in configuration else "",
            "user": "user root;" if os.geteuid() == 0 else "",
            "app": app or self.port,
            "port": self.port,
            "http": declared,
            "location": used,
        }
        config = Path(folder, f"{self.port}.conf")
        config.write_text(CONFIG % values)
        self.command = ["nginx", "-p", folder, "-c", str(config), "-e", str(Path(folder, "error.log"))]
        self.processor = processor

    def __enter__(self):
        self.master = subprocess.Popen(self.command, preexec_fn=run_on(self.processor))
        for _ in range(500):
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port)
                connection.request("GET", "/contacts")
                connection.getresponse()  # The response shows that there is a worker.
                return self
            except OSError:
                time.sleep(0.01)
        raise RuntimeError("nginx does not start")

    def __exit__(self, *_):
        self.master.terminate()
        self.master.wait()

    def worker_s(self):
        """Returns the worker's processor time so far in seconds, user and system."""
        pid = Path(f"/proc/{self.master.pid}/task/{self.master.pid}/children").read_text().split()[0]
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def load(port, path, clients, processor):
    """Runs wrk for a second. Returns the number of requests and their rate per second."""
    url = f"http://127.0.0.1:{port}{path}"
    output = subprocess.run(
        ["wrk", "-t1", f"-c{CONNECTIONS}", "-d1s", "-s", Path(__file__).with_name("clients.lua"), url, "--", clients],
        preexec_fn=run_on(processor),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(output)
    return int(re.search(r"(\d+) requests in", output).group(1)), float(re.search(r"Requests/sec: +([\d.]+)", output).group(1))


def make_clients(folder):
    """Creates a gate with a key for each client, and the file of clients for wrk."""
    Path(folder, "pepper").write_text("5a" * 32)
    Path(folder, "pepper").chmod(0o600)

    gate = ["api.gate", "--pepper-file", "pepper"]
    keys = ["--keys", str(2 * CLIENTS), "--plan", "default=100/minute, 1000/hour"]
    subprocess.run([KEYTALLY, "create", *gate, *keys], cwd=folder, check=True)
    # One call for each key, by xargs, which starts processes faster than Python.
    issue = ["xargs", "-n1", KEYTALLY, "issue", *gate, "--account"]
    numbers = " ".join(map(str, range(CLIENTS)))
    prepare = run_on(processors()[1])
    issued = subprocess.run(issue, input=numbers, cwd=folder, check=True, stdout=subprocess.PIPE, text=True, preexec_fn=prepare)
    clients = Path(folder, "clients")
    with clients.open("w") as file:
        for number, key in enumerate(issued.stdout.split()):
            print(key, f"10.0.{number // 256}.{number % 256}", file=file)
    return clients


def measure(folder):
    """Returns the worker's time per request in microseconds, and thousands of requests per second.

    Both are lists by round, for each configuration and page.
    """
    worker, other = processors()
    clients = make_clients(folder)
    costs, rates = {}, {}
    with Nginx(folder, None, "nginx alone", other) as app:
        for page, path in PAGES.items():
            for _ in range(ROUNDS):
                for configuration in CONFIGURATIONS:
                    # A copy without counts.
                    shutil.copy(Path(folder, "api.gate"), Path(folder, "turn.gate"))
                    with Nginx(folder, app.port, configuration, worker) as nginx:
                        before = nginx.worker_s()
                        requests, rate = load(nginx.port, path, clients, other)
                        cost = nginx.worker_s() - before
                    costs.setdefault(configuration, {}).setdefault(page, []).append(cost / requests * 1e6)
                    rates.setdefault(configuration, {}).setdefault(page, []).append(rate / 1000)
    return costs, rates


def table(name, unit, title, about, rows):
    """Returns a table of the group."""
    return {
        "name": f"nginx/{name}",
        "unit": unit,
        "title": title,
        "about": about,
        "columns": list(PAGES),
        "rows": [
            {"name": row, "work": CONFIGURATIONS[row][0], "cells": [cells[page] for page in PAGES]}
            for row, cells in rows.items()
        ],
    }


def main():
    with tempfile.TemporaryDirectory() as folder:
        costs, rates = measure(folder)
    how = (
        f"One worker with a processor to itself. {CLIENTS:,} clients, each with a key and an address, use {CONNECTIONS} "
        f"connections of wrk, which shares the other processor with the upstream. {ROUNDS} turns of a second, each with its own "
        "nginx. Limits are of 100 requests a minute and, of keys, of 1,000 an hour."
    )
    tables = [
        table("cpu", "µs", "Cost of a request for nginx's worker", f"The worker's processor time, user and system. {how}", costs),
        table("rate", "thousands a second", "Requests per second through nginx", how, rates),
    ]
    Path(os.environ["KEYTALLY_BENCH_FOLDER"], "nginx.json").write_text(json.dumps({"group": "nginx", "tables": tables}))


if __name__ == "__main__":
    main()
