"""Tests of the module in a real nginx.

`cargo xtask test nginx` sets the paths that are needed.
"""

import contextlib
import ctypes
import email.utils
import http.client
import json
import mmap
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import unittest

import build

MODULE = build.module()
OBJECTS = build.objects()
SANITIZED, LIBASAN = build.sanitized()
KEYTALLY = os.environ["KEYTALLY_TEST_KEYTALLY"]
# The program of the service, which has the agent.
AGENT = os.environ["KEYTALLY_TEST_AGENT"]
MISSING = b'{"error": "Missing X-API-Key header"}'
INVALID = b'{"error": "Invalid API key"}'
WRONG_COST = b'{"error": "Cost out of range"}'
EXCEEDED = b'{"error": "Rate limit exceeded. Please try again later."}'
LIBRARY = ctypes.CDLL("libkeytally.so")
FIELDS = ("x-ratelimit", "ratelimit", "retry-after", "www-authenticate")

PAGE = """
<!--# include virtual="/fragment/file.txt" --><!--# include virtual="/fragment/index/deep.txt" -->
<!--# include virtual="/costly_fragment/file.txt?name=p" --><!--# include virtual="/costly_fragment/index/deep.txt?name=p" -->
<!--# include virtual="/two_limits/file.txt?name=q&narrow=q" --><!--# include virtual="/one_limit/file.txt?name=q" -->
"""

FRAGMENTS = """<!--# include virtual="/refunded/answer?status=503" --><!--# include virtual="/refunded/files/nothing" -->end
"""

HTTP = """
    keytally_gate api file=api.gate pepper_file=pepper;
    keytally_limit_zone zone=by_name:1m key=$arg_name policy="3/hour, 5/day";
    keytally_limit_zone zone=all:1m key=all "policy=100000/hour";
    keytally_limit_zone zone=narrow:1m key=$arg_narrow policy=2/hour;
    keytally_limit_zone zone=narrow_header:1m key=$http_narrow policy=2/hour;
    keytally_limit_zone zone=guesses:1m policy=2/hour;
    keytally_limit_zone zone=few_guesses:32k policy=1/hour on_full=refuse;
    keytally_limit_zone zone=few:32k key=$arg_name policy=1/hour on_full=share;
    limit_req_zone $arg_slow zone=slow:1m rate=20r/m;
    set_real_ip_from 127.0.0.9;
    real_ip_header X-Forwarded-For;
    server {
        listen 127.0.0.1:%(port)s;
        listen 127.0.0.1:%(h2_port)s http2;
        listen unix:%(folder)s/socket;
        root .;
        location = /upstream {
            add_header X-RateLimit-Limit upstream always;
            add_header Retry-After 7 always;
            add_header X-Seen "$http_account $http_outcome" always;
            return 503 busy;
        }
        location / { keytally api; }
        location /index/ { keytally api; index deep.txt; }
        location = /moved { keytally api; try_files /nothing /file.txt; }
        location = /gif { keytally api; empty_gif; }
        location = /proxied {
            keytally api;
            proxy_set_header Account $keytally_account;
            proxy_set_header Outcome $keytally_outcome;
            proxy_pass http://127.0.0.1:%(port)s/upstream;
        }
        location = /costly { keytally api cost=$arg_cost; empty_gif; }
        location = /costly_shadow { keytally_limit by_name cost=$arg_cost shadow; keytally api cost=$arg_cost shadow; empty_gif; }
        location = /limited_by_cost { keytally_limit by_name cost=$arg_cost; empty_gif; }
        location = /ten { keytally api cost=10; empty_gif; }
        location = /quiet { keytally api; keytally_headers off; empty_gif; }
        location = /shadow { keytally api shadow; empty_gif; }
        location = /forbidden { keytally api; deny all; }
        location = /limited { keytally_limit by_name; empty_gif; }
        location = /limited_both { keytally_limit by_name; keytally_limit narrow; empty_gif; }
        location = /limited_all { keytally_limit all; empty_gif; }
        location /guessed {
            keytally api;
            keytally_failures guesses;
            empty_gif;
            location = /guessed/inner { empty_gif; }
            location = /guessed/off { keytally_failures off; empty_gif; }
            location = /guessed/shadow { keytally api shadow; empty_gif; }
        }
        location = /guessed_by_few { keytally api; keytally_failures few_guesses; empty_gif; }
        location = /limited_few { keytally_limit few; empty_gif; }
        location = /limited_clients { keytally_limit guesses; empty_gif; }
        location = /returned { keytally api; return 204; }
        location = /limited_and_keyed { keytally_limit by_name; keytally api cost=$arg_cost; empty_gif; }
        location = /shadow_first { keytally api shadow; try_files /nothing /file.txt; }
        location = /page.html { ssi on; }
        location /fragment/ { keytally api; keytally_failures guesses; alias ./; }
        location /one_limit/ { keytally_limit by_name; alias ./; }
        location /two_limits/ { keytally_limit by_name; keytally_limit narrow cost=3; alias ./; }
        location /costly_fragment/ { keytally_limit by_name cost=4; alias ./; }
        location /authorized/ { auth_request /keys; error_page 401 403 = @refused; alias ./; }
        location /authorized/without_page/ { auth_request /keys; alias ./; }
        location /authorized/costly/ { auth_request /costly_keys; error_page 401 403 = @refused; alias ./; }
        location = /costly_keys { internal; keytally api cost=$http_cost; empty_gif; }
        location = /moved_to_limit { keytally api; try_files /nothing @narrow; }
        location @narrow { keytally_limit narrow; empty_gif; }
        location = /moved_to_shadow { keytally api; try_files /nothing @narrow_shadow; }
        location @narrow_shadow { keytally_limit narrow shadow; empty_gif; }
        location = /delayed { keytally api; try_files /nothing @delayed; }
        location @delayed { limit_req zone=slow burst=5; keytally_limit narrow; empty_gif; }
        location /limited_any/ { satisfy any; keytally_limit by_name; auth_request /keys; keytally api cost=0; alias ./; }
        location /authorized/limit/ { auth_request /keys_to_limit; alias ./; }
        location /authorized/limit/page/ { auth_request /keys_to_limit; error_page 401 403 = @refused; alias ./; }
        location = /keys_to_limit { internal; keytally api; try_files /nothing @narrow_header; }
        location @narrow_header { keytally_limit narrow_header; empty_gif; }
        location /authorized/moved/ { auth_request /keys; try_files /nothing @narrow_file; }
        location @narrow_file { keytally_limit narrow; rewrite ^ /file.txt break; }
        location /limited_authorized/ { keytally_limit by_name; auth_request /keys; alias ./; }
        location /limited_authorized/page/ { keytally_limit by_name; auth_request /keys; error_page 401 403 = @refused; alias ./; }
        location /authorized/denied/ { deny all; auth_request /keys; error_page 401 403 = @refused; alias ./; }
        location = /keys { internal; keytally api; keytally_failures guesses; empty_gif; }
        location @refused { keytally_refusal; }
        location /sso/ { keytally api; auth_request /sso_check; alias ./; }
        location = /sso_check { keytally api; proxy_pass http://127.0.0.1:%(port)s/sso_answer; }
        location = /sso_answer { if ($http_sso = refuses) { return 403; } return 204; }
        location /any/ { satisfy any; deny all; auth_request /keys; keytally api; alias ./; }
        location /any_inherited/ {
            keytally api;
            location /any_inherited/file/ { satisfy any; deny all; auth_request /any_inherited/keys; alias ./; }
            location = /any_inherited/keys { internal; empty_gif; }
        }
        location = /mirrored_first { mirror /mirror; error_page 404 = @mirrored_first; }
        location @mirrored_first { auth_request /keys; keytally api; empty_gif; }
        location = /mirrored { mirror /mirror; proxy_pass http://127.0.0.1:%(port)s/open/file.txt; }
        location = /mirror { keytally api; empty_gif; }
        location /writes/ { alias ./; limit_except GET { keytally api; } }
        location = /who { add_header X-Seen "$keytally_client_address" always; empty_gif; }
        location /open/ { keytally off; alias ./; }
        location = /answer {
            access_log off;
            if ($arg_status = 403) { return 403; }
            if ($arg_status = 404) { return 404; }
            if ($arg_status = 500) { return 500; }
            if ($arg_status = 503) { return 503; }
            return 200 fine;
        }
        location = /after_200 { return 200; }
        location = /after_500 { return 500; }
        location /refunded/ {
            keytally api;
            keytally_limit by_name;
            keytally_refund 5xx 404;
            proxy_read_timeout 1s;
            proxy_intercept_errors on;
            proxy_pass http://127.0.0.1:%(port)s/answer$is_args$args;
            location = /refunded/closed { proxy_pass http://unix:%(folder)s/closed; }
            location = /refunded/silent { proxy_pass http://unix:%(folder)s/silent; }
            location = /refunded/stream { proxy_buffering off; proxy_intercept_errors off; proxy_pass http://unix:%(folder)s/stream; }
            location = /refunded/page { error_page 503 /open/file.txt; proxy_pass http://127.0.0.1:%(port)s/answer$is_args$args; }
            location = /refunded/replaced { error_page 503 =200 /open/file.txt; proxy_pass http://127.0.0.1:%(port)s/answer$is_args$args; }
            location = /refunded/off { keytally_refund off; proxy_pass http://127.0.0.1:%(port)s/answer$is_args$args; }
            location = /refunded/any { keytally_refund 4xx 500; proxy_pass http://unix:%(folder)s/silent; }
            location = /refunded/after { post_action /after_500; proxy_pass http://127.0.0.1:%(port)s/answer$is_args$args; }
            location = /refunded/after_failure { post_action /after_200; proxy_pass http://127.0.0.1:%(port)s/answer?status=500; }
            location /refunded/files/ { index deep.txt; alias ./; }
            location = /refunded/page.html { ssi on; alias ./fragments.html; keytally off; }
        }
        location = /named { keytally api; keytally_key_from X-API-Key "Authorization: Bearer" X-Token; empty_gif; }
        location = /named/token { keytally api; keytally_key_from X-Token; empty_gif; }
        location /named/authorized/ { auth_request /named_keys; error_page 401 403 = @refused; alias ./; }
        location = /named_keys { internal; keytally api; keytally_key_from "authorization: BEARER"; empty_gif; }
        location /named/inner/ {
            keytally api;
            keytally_key_from X-Token;
            alias ./;
            location = /named/inner/default { keytally_key_from x-api-key; empty_gif; }
        }
        location /pages/ {
            keytally api cost=$arg_cost;
            keytally_error_page on;
            error_page 401 @unauthorized;
            error_page 429 =503 /pages/busy;
            alias ./;
            location = /pages/off { keytally_error_page off; empty_gif; }
            location = /pages/busy { keytally off; default_type text/plain; return 503 "busy"; }
            location = /pages/inherited { error_page 429 /pages/guarded?cost=1000; empty_gif; }
            location = /pages/guarded { empty_gif; }
        }
        location @unauthorized { default_type application/json; return 401 '{"code": "unauthorized"}'; }
        location = /keys_of_charge { internal; keytally api; keytally_refund off; empty_gif; }
        location = /kept_by_authorized { auth_request /keys_of_charge; keytally_refund 5xx; proxy_pass http://127.0.0.1:%(port)s/answer$is_args$args; }
        location = /refunded_by_authorized { auth_request /keys; keytally_refund 5xx; proxy_pass http://127.0.0.1:%(port)s/answer$is_args$args; }
    }
"""


def free_port():
    """Returns a free port below those that the system gives to outgoing connections, one of which could take it."""
    while True:
        with socket.socket() as probe:
            try:
                probe.bind(("", random.randrange(16_384, 32_768)))
            except OSError:
                continue
            return probe.getsockname()[1]


def avoid_end_of_hour():
    """Waits for the next hour if this one ends soon.

    A new window during a test would reset its counts.
    """
    left = 3600 - time.time() % 3600
    if left < 30:
        time.sleep(left + 1)


class Name(ctypes.Structure):
    """The struct `kt_name`."""

    _fields_ = [("text", ctypes.c_char_p), ("len", ctypes.c_size_t)]

    @classmethod
    def all(cls, names):
        """Returns an array of these names."""
        return (cls * len(names))(*(cls(name, len(name)) for name in names))


class Plan(ctypes.Structure):
    """The struct `kt_plan`."""

    _fields_ = [("name", ctypes.c_char_p), ("name_len", ctypes.c_size_t), ("sections", ctypes.c_char_p), ("sections_len", ctypes.c_size_t)]


class Config(ctypes.Structure):
    """The struct `kt_gate_config`."""

    _fields_ = [
        ("size", ctypes.c_uint32),
        ("keys", ctypes.c_uint32),
        ("plans", ctypes.POINTER(Plan)),
        ("plans_len", ctypes.c_size_t),
        ("prefix", ctypes.c_char_p),
        ("prefix_len", ctypes.c_size_t),
        ("teams", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("scopes", ctypes.POINTER(Name)),
        ("scopes_len", ctypes.c_size_t),
    ]


class Nginx:
    """An nginx with four workers and its own folder.

    If the command `under` is given, it runs nginx, and writes its reports to files `report.*` in the folder.
    """

    def __init__(self, http=HTTP, user=None, plans=("default=1000/hour", "wide=100000/hour"), module=MODULE, under=()):
        self.folder = tempfile.mkdtemp()
        self.under = [word.replace("FOLDER", self.folder) for word in under]
        os.chmod(self.folder, 0o755)
        self.port, self.h2_port = free_port(), free_port()
        for name, text in (("file.txt", "a file\n"), ("index/deep.txt", "deep\n"), ("page.html", PAGE), ("fragments.html", FRAGMENTS)):
            os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
            self.write(name, text)
        self.write("pepper", "5a" * 32, 0o600)
        self.plans = plans
        self.create("api.gate")
        users = f"user {user};" if user else "user root;" if os.geteuid() == 0 else ""
        head = f"""load_module {module}; {users} worker_processes 4; pid nginx.pid; error_log error.log info;
events {{ worker_connections 256; }}
http {{
    log_format keytally "$status $uri $keytally_account $keytally_key_id $keytally_env $keytally_plan $keytally_outcome $keytally_reason";
    access_log access.log keytally;
    client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
    keepalive_requests 1000000;"""
        self.config = head + http % vars(self) + "}\n"
        self.config = self.config.replace("root .;", f"root {self.folder};").replace("alias ./", f"alias {self.folder}/")
        self.write("nginx.conf", self.config)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text, mode=0o644):
        with open(self.path(name), "w") as file:
            file.write(text)
        os.chmod(self.path(name), mode)

    def read(self, name):
        with open(self.path(name)) as file:
            return file.read()

    def command(self, *arguments):
        return ["nginx", "-p", self.folder, "-c", self.path("nginx.conf"), "-e", self.path("error.log"), *arguments]

    def __enter__(self):
        self.master = subprocess.Popen([*self.under, *self.command("-g", "daemon off;")])
        for _ in range(10_000):
            # nginx writes its process id when it listens on every socket.
            if os.path.exists(self.path("nginx.pid")):
                socket.create_connection(("127.0.0.1", self.port)).close()
                return self
            time.sleep(0.02)
        raise AssertionError(self.read("error.log"))

    def __exit__(self, *_):
        self.master.terminate()
        self.master.wait()
        log = self.read("error.log")
        reports = [self.read(name) for name in os.listdir(self.folder) if name.startswith("report.")]
        shutil.rmtree(self.folder)
        # A report without the module's name is about nginx itself, so it does not fail the test.
        assert not [report for report in reports if "keytally" in report], "\n".join(reports)
        for trouble in ("[alert]", "[emerg]", "exited on signal 11", "exited on signal 6"):
            lines = [line for line in log.splitlines() if trouble in line and "signal 9" not in line]
            assert not lines, lines

    def workers(self):
        with open(f"/proc/{self.master.pid}/task/{self.master.pid}/children") as file:
            return [int(pid) for pid in file.read().split()]

    def reload(self):
        """Reloads the configuration, and waits until there are four new workers."""
        before = set(self.workers())
        self.master.send_signal(signal.SIGHUP)
        for _ in range(500):
            if len(set(self.workers()) - before) >= 4:
                return
            time.sleep(0.02)
        raise AssertionError("nginx did not reload: " + self.read("error.log"))

    def keytally(self, *arguments):
        """Runs the program `keytally` in the folder. Returns its output."""
        done = subprocess.run([KEYTALLY, *arguments, "--pepper-file", self.path("pepper")], cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def create(self, name):
        """Creates a gate with the plans of this nginx."""
        plans = [word for plan in self.plans for word in ("--plan", plan)]
        self.keytally("create", name, "--keys", "1000", *plans)

    def create_with_scopes(self, *scopes):
        """Replaces the gate by one with the first plan and these scopes."""
        name, _, text = self.plans[0].partition("=")
        plans = (Plan * 1)(Plan(name.encode(), len(name), text.encode(), len(text)))
        config = Config(ctypes.sizeof(Config), 100, plans, 1, b"kt", 2, 0, 0, Name.all(scopes), len(scopes))
        path, pepper, gate = self.path("api.gate"), b"5a" * 32, ctypes.c_void_p()
        os.remove(path)
        created = LIBRARY.kt_gate_create(path.encode(), pepper, ctypes.c_size_t(len(pepper)), ctypes.byref(config), ctypes.byref(gate))
        assert created == 0, created
        LIBRARY.kt_gate_close(gate)

    def call(self, function, *arguments):
        """Calls a function of the C library with the gate, as another program does."""
        gate = ctypes.c_void_p()
        paths = [self.path(name).encode() for name in ("api.gate", "pepper")]
        opened = LIBRARY.kt_gate_open_with_pepper_file(*paths, ctypes.byref(gate))
        assert opened == 0, opened
        status = function(gate, *arguments)
        LIBRARY.kt_gate_close(gate)
        assert status == 0, status

    def issue_with_scopes(self, *scopes):
        """Issues a key of account 42 with these scopes. Returns it as a field of a request."""
        key, key_id = self.issue()
        number = ctypes.c_uint64()
        assert LIBRARY.kt_key_id_parse(key_id.encode(), ctypes.c_size_t(len(key_id)), ctypes.byref(number)) == 0
        self.call(LIBRARY.kt_gate_set_scopes, number, Name.all(scopes), ctypes.c_size_t(len(scopes)))
        return "X-API-Key", key

    def issue(self, plan="default"):
        """Issues a key of account 42. Returns the key and its id."""
        issued = json.loads(self.keytally("issue", "api.gate", "--account", "42", "--plan", plan, "--json"))
        return issued["key"], issued["key_id"]

    def get(self, path, *headers, method="GET", source="127.0.0.1"):
        """Returns the status, the fields that the module may set, and the body.

        Checks that each field appears once.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30, source_address=(source, 0))
        connection.putrequest(method, path)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        body = response.read()
        fields = [(name, value) for name, value in response.getheaders() if name.lower().startswith((*FIELDS, "content-type", "x-seen"))]
        connection.close()
        assert len({name.lower() for name, _ in fields}) == len(fields), fields
        return response.status, dict(fields), body

    def get_logged(self, path, *headers, **options):
        """Returns what `get` returns, after the request was logged: its refunds are then done."""
        before = self.read("access.log").count("\n")
        answer = self.get(path, *headers, **options)
        self.wait_for_lines(before + 1)
        return answer

    def wait_for_lines(self, lines):
        """Waits until the access log has this many lines."""
        for _ in range(500):
            if self.read("access.log").count("\n") >= lines:
                return
            time.sleep(0.02)
        raise AssertionError(f"not {lines} lines: {self.read('access.log')}")

    def guess(self, path="/guessed", text="nonsense", source="127.0.0.1", forwarded_for=None):
        """Returns the status for an invalid key, with X-Forwarded-For if `forwarded_for` is set."""
        forwarded = () if forwarded_for is None else (("X-Forwarded-For", forwarded_for),)
        return self.get(path, ("X-API-Key", text), *forwarded, source=source)[0]

    def remaining(self, path, key, *headers):
        """Sends a request with the key. Returns X-RateLimit-Remaining of the response."""
        return int(self.get(path, ("X-API-Key", key), *headers)[1]["X-RateLimit-Remaining"])

    def load(self, path, key, seconds):
        """Starts wrk, which sends requests with the key by 32 connections for some seconds."""
        return subprocess.Popen(
            ["wrk", "-t2", "-c32", f"-d{seconds}s", "-H", f"X-API-Key: {key}", f"http://127.0.0.1:{self.port}{path}"],
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_for_log(self, name, pattern):
        """Waits until the log matches: a worker writes it after its response."""
        for _ in range(500):
            if re.search(pattern, self.read(name)):
                return
            time.sleep(0.02)
        raise AssertionError(f"no {pattern!r} in {self.read(name)}")

    def logged(self, status, path):
        """Returns how many requests to the path the access log has with this status."""
        return self.read("access.log").count(f"{status} {path} ")


def requests_of(wrk):
    """Waits for a process that `Nginx.load` started. Returns the number of its requests."""
    return int(re.search(r"(\d+) requests in", wrk.communicate()[0]).group(1))


class Contract(unittest.TestCase):
    """The responses and charges that README.md documents."""

    # The arguments of `Nginx`.
    NGINX = {}

    def setUp(self):
        avoid_end_of_hour()
        self.nginx = Nginx(**self.NGINX).__enter__()
        self.addCleanup(self.nginx.__exit__)

    def test_refusals_match_the_contract_byte_for_byte(self):
        nginx = self.nginx
        unauthorized = {"Content-Type": "application/json", "WWW-Authenticate": 'ApiKey realm="api", header="X-API-Key"'}
        key, key_id = nginx.issue()
        self.assertEqual(nginx.get("/file.txt"), (401, unauthorized, MISSING))
        for presented in ("nonsense", "", key[:-1], key[:-1] + ("0" if key[-1] != "0" else "1")):
            self.assertEqual(nginx.get("/file.txt", ("X-API-Key", presented)), (401, unauthorized, INVALID), presented)
        twice = (("X-API-Key", key), ("x-api-key", key))
        self.assertEqual(nginx.get("/file.txt", *twice), (401, unauthorized, INVALID))
        self.assertEqual(nginx.get("/file.txt", method="HEAD"), (401, unauthorized, b""))
        for reason in ("missing_key -", "invalid_key malformed", "invalid_key checksum", "invalid_key duplicate"):
            nginx.wait_for_log("access.log", f"401 /file.txt - - - - {reason}\n")

        self.assertEqual(nginx.remaining("/ten", key), 990)
        status, fields, body = nginx.get("/costly?cost=991", ("X-API-Key", key))
        self.assertEqual((status, body, fields["X-RateLimit-Remaining"]), (429, EXCEEDED, "990"))
        self.assertEqual(fields["Content-Type"], "application/json")
        self.assertGreaterEqual(int(fields["Retry-After"]), 1)
        status, fields, body = nginx.get("/costly?cost=1001", ("X-API-Key", key))
        self.assertEqual((status, body, "Retry-After" in fields), (429, EXCEEDED, False))
        self.assertEqual(nginx.remaining("/costly?cost=990", key), 0)
        self.assertEqual(nginx.get("/file.txt", ("X-API-Key", key))[0], 429)
        nginx.wait_for_log("access.log", f"429 /file.txt 42 {key_id} live default denied -\n")

    def test_response_to_admitted_request_has_all_fields(self):
        nginx = self.nginx
        key, _ = nginx.issue()
        mine = ("X-API-Key", key)
        names = {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "RateLimit", "RateLimit-Policy"}
        modified = ("If-Modified-Since", email.utils.formatdate(os.stat(nginx.path("file.txt")).st_mtime, usegmt=True))
        requests = [("/file.txt", 200, ()), ("/file.txt", 304, (modified,)), ("/nothing", 404, ()), ("/gif", 200, ()), ("/proxied", 503, ())]
        for count, (path, wanted, headers) in enumerate(requests, 1):
            status, fields, _ = nginx.get(path, mine, *headers)
            self.assertEqual(status, wanted, path)
            self.assertEqual({name for name in fields if name.lower().startswith(FIELDS[:2])}, names, path)
            self.assertEqual((fields["X-RateLimit-Limit"], fields["X-RateLimit-Remaining"]), ("1000", str(1000 - count)), path)
            self.assertEqual(fields["RateLimit-Policy"], '"hour";q=1000;w=3600')
        # The upstream gets the account and the outcome, and its own Retry-After stays.
        self.assertEqual((fields["X-Seen"], fields["Retry-After"]), ("42 admitted", "7"))
        self.assertEqual(nginx.get("/open/file.txt")[1].keys(), {"Content-Type"})
        # With headers off, a refusal has its fields.
        self.assertEqual(nginx.get("/quiet", mine)[:2], (200, {"Content-Type": "image/gif"}))
        self.assertEqual(nginx.remaining("/gif", key), 1000 - len(requests) - 2)
        self.assertIn("WWW-Authenticate", nginx.get("/quiet")[1])
        # `return` responds before any check, as README.md says.
        self.assertEqual(nginx.get("/returned"), (204, {}, b""))

    def test_http_1_and_http_2_get_the_same_responses(self):
        nginx = self.nginx
        key, _ = nginx.issue()
        answers = []
        for version, port in (("--http1.1", nginx.port), ("--http2-prior-knowledge", nginx.h2_port)):
            for headers, status in (([], 401), ([f"X-API-Key: {key}"] * 2, 401), ([f"X-API-Key: {key}"], 200)):
                words = [word for header in headers for word in ("-H", header)]
                url = f"http://127.0.0.1:{port}/file.txt"
                output = subprocess.run(["curl", "-si", version, *words, url], capture_output=True, text=True, check=True).stdout
                self.assertRegex(output, f"^HTTP/{'2' if '2' in version else '1.1'} {status} ")
                kept = [line for line in output.splitlines() if line.lower().startswith(FIELDS) or line.startswith(("{", "a file"))]
                answers.append([re.sub("(?i)(x-ratelimit-remaining|ratelimit): .*", "", line).lower() for line in kept])
        self.assertEqual(answers[:3], answers[3:])
        self.assertEqual([len(answer) for answer in answers[:3]], [2, 2, 6])

    def test_redirected_request_is_charged_once(self):
        nginx = self.nginx
        key, _ = nginx.issue()
        # An index and try_files are internal redirects. A request that deny refuses is not charged.
        for path, status in (("/index/", 200), ("/moved", 200), ("/forbidden", 403), ("/file.txt", 200)):
            self.assertEqual(nginx.get(path, ("X-API-Key", key))[0], status, path)
        self.assertEqual(nginx.remaining("/file.txt", key), 996)

    def test_cost_is_charged_and_shadow_admits(self):
        nginx = self.nginx
        key, _ = nginx.issue()
        self.assertEqual(nginx.remaining("/costly?cost=400", key), 600)
        self.assertEqual(nginx.remaining("/costly", key), 599)
        self.assertEqual(nginx.remaining("/costly?cost=0", key), 599)
        self.assertEqual(nginx.remaining("/shadow", key), 598)
        self.assertEqual(nginx.get("/shadow")[:2], (200, {"Content-Type": "image/gif"}))
        nginx.wait_for_log("access.log", "200 /shadow - - - - missing_key -\n")

    def test_cost_out_of_range_is_refused_without_charge(self):
        nginx = self.nginx
        key, _ = nginx.issue()
        mine = ("X-API-Key", key)
        for cost in ("-1", "abc", "4294967296"):
            for path in ("/costly", "/limited_by_cost", "/limited_and_keyed"):
                answer = nginx.get(f"{path}?name=o&cost={cost}", mine)
                self.assertEqual((answer[0], answer[1]["Content-Type"], answer[2]), (400, "application/json", WRONG_COST), path)
            self.assertEqual(nginx.get("/authorized/costly/file.txt", mine, ("Cost", cost))[::2], (400, WRONG_COST))
            # A missing or invalid key is refused first.
            self.assertEqual(nginx.get(f"/costly?cost={cost}")[::2], (401, MISSING))
            self.assertEqual(nginx.get(f"/costly?cost={cost}", ("X-API-Key", "nonsense"))[::2], (401, INVALID))
            # A shadow does not refuse the cost.
            self.assertEqual(nginx.get(f"/costly_shadow?name=o&cost={cost}", mine)[0], 200)
            # Without a subject, the cost does not matter.
            self.assertEqual(nginx.get(f"/limited_by_cost?cost={cost}")[0], 200)
        nginx.wait_for_log("error.log", "the cost is not a number .*cost=4294967296")
        self.assertEqual(nginx.get("/authorized/costly/file.txt", mine, ("Cost", "5"))[1]["X-RateLimit-Remaining"], "995")
        self.assertEqual(nginx.remaining("/gif", key), 994)
        self.assertEqual(nginx.get("/limited?name=o")[1]["X-RateLimit-Remaining"], "4")

    def test_limit_counts_by_a_variable_and_outlives_a_reload(self):
        nginx = self.nginx
        for left in (4, 3, 2):
            status, fields, _ = nginx.get("/limited?name=a")
            self.assertEqual((status, fields["X-RateLimit-Remaining"]), (200, str(left)))
        nginx.reload()
        status, fields, body = nginx.get("/limited?name=a")
        self.assertEqual((status, body, fields["X-RateLimit-Remaining"]), (429, EXCEEDED, "2"))
        self.assertEqual(nginx.get("/limited?name=b")[0], 200)
        self.assertEqual(nginx.get("/limited")[:2], (200, {"Content-Type": "image/gif"}))
        # If the second limit refuses, the first does not charge.
        for status in (200, 200, 429, 429):
            self.assertEqual(nginx.get("/limited_both?name=c&narrow=c")[0], status)
        self.assertEqual(nginx.get("/limited?name=c")[1]["X-RateLimit-Remaining"], "2")

    def test_invalid_keys_beyond_the_limit_get_429(self):
        nginx = self.nginx
        key, _ = nginx.issue()
        revoked, revoked_id = nginx.issue()
        nginx.keytally("revoke", "api.gate", revoked_id)
        for _ in range(3):
            self.assertEqual(nginx.get("/guessed")[::2], (401, MISSING))
        for text in (revoked, "nonsense"):
            self.assertEqual(nginx.get("/guessed", ("X-API-Key", text))[::2], (401, INVALID))
        twice = (("X-API-Key", key), ("X-API-Key", key))
        for headers in ([("X-API-Key", revoked)], [("X-API-Key", "nonsense")], twice):
            status, fields, body = nginx.get("/guessed", *headers)
            self.assertEqual((status, fields.keys(), body), (429, {"Content-Type", "Retry-After"}, EXCEEDED))
            self.assertIn(int(fields["Retry-After"]), range(1, 3601))
        # Logs show the gate's verdict.
        for logged in (f"42 {revoked_id} live default invalid_key revoked", "- - - - invalid_key malformed"):
            nginx.wait_for_log("access.log", f"429 /guessed {logged}\n")
        nginx.wait_for_log("error.log", 'keytally "guesses": denied')
        self.assertEqual(nginx.get("/guessed")[0], 401)
        for left in (999, 998):
            self.assertEqual(nginx.remaining("/guessed", key), left)
        self.assertEqual([nginx.guess(f"/guessed/{where}") for where in ("inner", "off")], [429, 401])
        self.assertEqual(nginx.guess(source="127.0.0.2"), 401)

    def test_invalid_keys_count_by_the_address_of_realip(self):
        nginx = self.nginx
        for client, status in (
            ("198.51.100.1", 401),
            ("198.51.100.1", 401),
            ("198.51.100.1", 429),
            ("198.51.100.2", 401),
            ("2001:db8::1", 401),
            ("2001:db8::2", 401),
            ("2001:db8::3", 429),
            ("2001:db8:0:1::1", 401),
        ):
            self.assertEqual(nginx.guess(source="127.0.0.9", forwarded_for=client), status, client)
        # Only the trusted proxy may name an address.
        statuses = [nginx.guess(forwarded_for=f"198.51.100.{host}") for host in (3, 4, 5)]
        self.assertEqual(statuses, [401, 401, 429])

    def test_client_on_a_unix_socket_is_not_counted(self):
        connection = http.client.HTTPConnection("localhost", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self.nginx.path("socket"))
        self.addCleanup(connection.close)
        for _ in range(3):
            connection.request("GET", "/guessed", headers={"X-API-Key": "nonsense"})
            response = connection.getresponse()
            self.assertEqual((response.status, response.read()), (401, INVALID))

    def test_shadow_does_not_count_invalid_keys(self):
        for status in (200, 200, 200):
            self.assertEqual(self.nginx.guess("/guessed/shadow"), status)
        self.assertEqual([self.nginx.guess() for _ in range(3)], [401, 401, 429])

    def test_zone_without_a_key_counts_clients(self):
        for host, status in ((1, 200), (2, 200), (3, 429)):
            client = ("X-Forwarded-For", f"2001:db8::{host}")
            self.assertEqual(self.nginx.get("/limited_clients", client, source="127.0.0.9")[0], status)

    def test_subrequest_without_a_key_is_refused(self):
        nginx = self.nginx
        # Each of the limited fragments costs more than the limit. A refusal does not admit the next
        # fragment.
        limited = b"\n" + EXCEEDED * 2 + b"\n" + EXCEEDED + b"a file\n\n"
        self.assertEqual(nginx.get("/page.html")[::2], (200, b"\n" + MISSING * 2 + limited))
        key, _ = nginx.issue()
        self.assertEqual(nginx.get("/page.html", ("X-API-Key", key))[::2], (200, b"\na file\ndeep\n" + limited))
        # Both fragments with a gate are one request, and their invalid keys count once. A fragment
        # that was refunded is charged when it is admitted.
        self.assertEqual(nginx.remaining("/gif", key), 998)
        self.assertEqual(nginx.get("/limited?name=p")[1]["X-RateLimit-Remaining"], "4")
        self.assertEqual(nginx.get("/limited?name=q")[1]["X-RateLimit-Remaining"], "2")
        self.assertEqual([nginx.guess("/page.html"), nginx.guess(), nginx.guess()], [200, 401, 429])

    def test_auth_request_with_refusal_page_matches_the_gate(self):
        nginx = self.nginx
        key, key_id = nginx.issue()
        path = "/authorized/file.txt"
        unauthorized = {"Content-Type": "application/json", "WWW-Authenticate": 'ApiKey realm="api", header="X-API-Key"'}
        self.assertEqual(nginx.get(path), (401, unauthorized, MISSING))
        for _ in range(2):
            self.assertEqual(nginx.get(path, ("X-API-Key", "nonsense")), (401, unauthorized, INVALID))
        status, fields, body = nginx.get(path, ("X-API-Key", "nonsense"))
        self.assertEqual((status, fields.keys(), body), (429, {"Content-Type", "Retry-After"}, EXCEEDED))
        status, fields, body = nginx.get(path, ("X-API-Key", key))
        self.assertEqual((status, fields["X-RateLimit-Remaining"], body), (200, "999", b"a file\n"))
        nginx.wait_for_log("access.log", f"200 {path} 42 {key_id} live default admitted -\n")
        self.assertEqual(nginx.remaining("/costly?cost=999", key), 0)
        status, fields, body = nginx.get(path, ("X-API-Key", key))
        self.assertEqual((status, fields["X-RateLimit-Remaining"], body), (429, "0", EXCEEDED))
        self.assertGreaterEqual(int(fields["Retry-After"]), 1)
        # Without error_page, nginx sends a page of its own, and never the file.
        path = "/authorized/without_page/file.txt"
        self.assertEqual(nginx.get(path)[0], 401)
        status, fields, body = nginx.get(path, ("X-API-Key", key))
        self.assertEqual((status, fields["X-RateLimit-Remaining"]), (403, "0"))
        self.assertNotIn(b"a file", body)

    def test_refusal_by_another_module_charges_no_key(self):
        nginx = self.nginx
        key, _ = nginx.issue()
        status, fields, _ = nginx.get("/authorized/denied/file.txt", ("X-API-Key", key))
        self.assertEqual((status, fields.keys() & {"X-RateLimit-Remaining"}), (403, set()))
        self.assertEqual(nginx.get("/sso/file.txt", ("X-API-Key", key), ("SSO", "refuses"))[0], 403)
        self.assertEqual(nginx.remaining("/gif", key), 999)

    def test_key_with_auth_request_is_checked_once_and_last(self):
        nginx = self.nginx
        key, _ = nginx.issue()
        self.assertEqual(nginx.get("/sso/file.txt")[::2], (401, MISSING))
        nginx.wait_for_log("access.log", "204 /sso_answer ")
        status, fields, body = nginx.get("/sso/file.txt", ("X-API-Key", key))
        self.assertEqual((status, fields["X-RateLimit-Remaining"], body), (200, "999", b"a file\n"))

    def test_satisfy_any_refuses_a_request_without_a_key(self):
        nginx = self.nginx
        key, _ = nginx.issue()
        for count, path in enumerate(("/any/file.txt", "/any_inherited/file/file.txt"), 1):
            self.assertEqual(nginx.get(path)[::2], (401, MISSING))
            self.assertEqual(nginx.get(path, ("X-API-Key", key[:-1]))[::2], (401, INVALID))
            status, fields, body = nginx.get(path, ("X-API-Key", key))
            self.assertEqual((status, fields["X-RateLimit-Remaining"], body), (200, str(1000 - count), b"a file\n"))

    def test_mirror_before_a_redirect_is_checked_once(self):
        self.assertEqual(self.nginx.get("/mirrored_first")[::2], (401, MISSING))
        self.nginx.wait_for_log("access.log", "401 /mirrored_first ")
        refusals = re.findall('keytally "api": missing_key.*subrequest: "/mirror"', self.nginx.read("error.log"))
        self.assertEqual(len(refusals), 1)

    def test_refused_mirror_does_not_change_the_response(self):
        status, fields, body = self.nginx.get("/mirrored")
        self.assertEqual((status, fields.keys(), body), (200, {"Content-Type"}, b"a file\n"))
        self.nginx.wait_for_log("error.log", 'keytally "api": missing_key')

    def test_shadow_before_a_redirect_does_not_admit(self):
        self.assertEqual(self.nginx.get("/shadow_first")[::2], (401, MISSING))

    def test_limit_except_requires_a_key(self):
        nginx = self.nginx
        key, _ = nginx.issue()
        self.assertEqual(nginx.get("/writes/file.txt")[::2], (200, b"a file\n"))
        self.assertEqual(nginx.get("/writes/file.txt", method="POST")[::2], (401, MISSING))
        status, fields, _ = nginx.get("/writes/file.txt", ("X-API-Key", key), method="POST")
        self.assertEqual((status, fields["X-RateLimit-Remaining"]), (405, "999"))

    def test_zone_is_refunded_if_the_gate_denies(self):
        nginx = self.nginx
        key, _ = nginx.issue()
        for _ in range(4):
            self.assertEqual(nginx.get("/limited_and_keyed?name=g&cost=1001", ("X-API-Key", key))[0], 429)
        self.assertEqual(nginx.get("/limited?name=g")[1]["X-RateLimit-Remaining"], "4")
        # A request without a valid key is charged: the zone limits those too.
        self.assertEqual(nginx.get("/limited_and_keyed?name=g")[0], 401)
        self.assertEqual(nginx.get("/limited?name=g")[1]["X-RateLimit-Remaining"], "2")

    def test_gate_is_refunded_if_a_limit_refuses(self):
        nginx = self.nginx
        key, _ = nginx.issue()
        for path, refused in (("/moved_to_limit", 429), ("/authorized/limit/file.txt", 403), ("/authorized/moved/file.txt", 429)):
            answers = [nginx.get(f"{path}?narrow={path}", ("X-API-Key", key), ("Narrow", path))[0] for _ in range(6)]
            self.assertEqual(answers, [200] * 2 + [refused] * 4, path)
        self.assertEqual(nginx.remaining("/gif", key), 993)
        # The fields describe the limit that refused.
        for path, status in (("/authorized/limit/file.txt", 403), ("/authorized/limit/page/file.txt", 429)):
            answer, fields, _ = nginx.get(path, ("X-API-Key", key), ("Narrow", "/authorized/limit/file.txt"))
            self.assertEqual((answer, fields["X-RateLimit-Limit"], "Retry-After" in fields), (status, "2", True))
        # In shadow, a limit refuses nothing.
        for left in (992, 991, 990, 989):
            self.assertEqual(nginx.remaining("/moved_to_shadow?narrow=s", key), left)
        # A refunded request is charged when it is sent again.
        self.assertEqual(nginx.get("/moved_to_limit?narrow=e", ("X-API-Key", key))[1]["X-RateLimit-Remaining"], "988")
        # Without a key, the gate refuses.
        self.assertEqual(nginx.get("/moved_to_limit?narrow=f")[0], 401)

    def test_zone_is_refunded_if_auth_request_denies(self):
        nginx = self.nginx
        key, _ = nginx.issue()
        self.assertEqual(nginx.remaining("/costly?cost=1000", key), 0)
        for path, status in (("/limited_authorized/", 403), ("/limited_authorized/page/", 429)):
            for _ in range(4):
                self.assertEqual(nginx.get(f"{path}file.txt?name=d", ("X-API-Key", key))[0], status)
        self.assertEqual(nginx.get("/limited?name=d")[1]["X-RateLimit-Remaining"], "4")
        # With `satisfy any`, another check may still admit the request.
        self.assertEqual(nginx.get("/limited_any/file.txt?name=t", ("X-API-Key", key))[0], 200)
        self.assertEqual(nginx.get("/limited?name=t")[1]["X-RateLimit-Remaining"], "3")
        # A request without a valid key is charged: the zone limits those too.
        self.assertEqual(nginx.get("/limited_authorized/file.txt?name=d")[0], 401)
        self.assertEqual(nginx.get("/limited_authorized/file.txt?name=d", ("X-API-Key", "nonsense"))[0], 401)
        self.assertEqual(nginx.get("/limited_authorized/file.txt?name=d", ("X-API-Key", "nonsense"))[0], 429)

    def left(self, key):
        """Returns the units that remain of the key, without a charge."""
        # All requests of a test that waits for lines of the log are waited for.
        fields = self.nginx.get_logged("/costly?cost=0", ("X-API-Key", key))[1]
        return int(fields["X-RateLimit-Remaining"])

    def test_charge_is_refunded_by_the_status(self):
        nginx = self.nginx
        key, _ = nginx.issue()
        mine = ("X-API-Key", key)
        left = 1000
        for path, status, cost in (
            ("/refunded/answer", 200, 1),
            ("/refunded/answer?status=403", 403, 1),
            ("/refunded/answer?status=404", 404, 0),
            ("/refunded/answer?status=500", 500, 0),
            ("/refunded/answer?status=503", 503, 0),
            ("/refunded/closed", 502, 0),
            ("/refunded/off?status=503", 503, 1),
            ("/refunded/files/nothing", 404, 0),
            ("/refunded/files/index/", 200, 1),
            # The page of another location keeps the status, and the rule of the location that made
            # the charge. A page with another status replaces the response.
            ("/refunded/page?status=503", 503, 0),
            ("/refunded/replaced?status=503", 200, 1),
            # The location of the client's request decides, because that of auth_request does not.
            ("/refunded_by_authorized?status=503", 503, 0),
            ("/refunded_by_authorized?status=404", 404, 1),
            ("/kept_by_authorized?status=503", 503, 1),
            # A post_action does not count.
            ("/refunded/after", 200, 1),
            ("/refunded/after_failure", 500, 0),
            # The fragments fail, but the page is a success.
            ("/refunded/page.html", 200, 1),
        ):
            # For HEAD, nginx includes no fragments.
            for method in ("GET",) if path == "/refunded/page.html" else ("GET", "HEAD"):
                answer, fields, _ = nginx.get_logged(path, mine, method=method)
                self.assertEqual(answer, status, path)
                if path != "/refunded/page.html":
                    # The fields are sent before the refund.
                    self.assertEqual(int(fields["X-RateLimit-Remaining"]), left - 1, path)
                left -= cost
                self.assertEqual(self.left(key), left, f"{method} {path}")

    def test_zone_is_refunded_by_the_status(self):
        nginx = self.nginx
        key, _ = nginx.issue()
        for _ in range(9):
            answer = nginx.get_logged("/refunded/answer?status=503&name=z", ("X-API-Key", key))
            self.assertEqual(answer[0], 503)
        self.assertEqual(nginx.get_logged("/limited?name=z")[1]["X-RateLimit-Remaining"], "4")
        # A refused request was refunded before, and is not refunded again.
        for _ in range(2):
            self.assertEqual(nginx.get_logged("/limited?name=z")[0], 200)
        for _ in range(3):
            self.assertEqual(nginx.get_logged("/refunded/answer?name=z", ("X-API-Key", key))[0], 429)
        self.assertEqual(self.left(key), 1000)

    def test_upstream_without_a_response_is_refunded(self):
        nginx = self.nginx
        key, _ = nginx.issue()
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(nginx.path("silent"))
            silent.listen()
            os.chmod(nginx.path("silent"), 0o777)
            self.assertEqual(nginx.get_logged("/refunded/silent", ("X-API-Key", key))[0], 504)
            self.assertEqual(self.left(key), 1000)
            # A client that closes its connection gets nothing back: 499 is in no class.
            request = f"GET /refunded/any HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n\r\n"
            with socket.create_connection(("127.0.0.1", nginx.port)) as client:
                client.sendall(request.encode())
                with silent.accept()[0] as upstream:
                    self.assertEqual(upstream.recv(4), b"GET ")
                    client.close()
                    nginx.wait_for_log("access.log", "499 /refunded/any ")
            self.assertEqual(self.left(key), 999)

    def test_stream_is_refunded_at_its_end(self):
        nginx = self.nginx
        key, _ = nginx.issue()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(nginx.path("stream"))
            listener.listen()
            os.chmod(nginx.path("stream"), 0o777)
            connection = http.client.HTTPConnection("127.0.0.1", nginx.port, timeout=30)
            self.addCleanup(connection.close)
            # All requests are sent on one connection.
            for status, left in ((503, 1000), (200, 999), (500, 999)):
                connection.request("GET", "/refunded/stream", headers={"X-API-Key": key})
                upstream = listener.accept()[0]
                with upstream:
                    while b"\r\n\r\n" not in upstream.recv(4096):
                        pass
                    upstream.sendall(b"HTTP/1.0 %d Any\r\n\r\nfirst" % status)
                    response = connection.getresponse()
                    self.assertEqual((response.status, response.read(5)), (status, b"first"))
                    lines = nginx.read("access.log").count("\n")
                    self.assertEqual(self.left(key), 999 if status == 503 else 999 - (status == 500))
                    upstream.sendall(b" last")
                self.assertEqual(response.read(), b" last")
                nginx.wait_for_lines(lines + 2)
                self.assertEqual(self.left(key), left)

    def test_pipelined_and_http_2_requests_are_refunded_once(self):
        nginx = self.nginx
        key, _ = nginx.issue()
        head = f"HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n"
        paths = ["/refunded/answer?status=503", "/refunded/answer", "/refunded/answer?status=404"]
        requests = "".join(f"GET {path} {head}\r\n" for path in paths[:2])
        with socket.create_connection(("127.0.0.1", nginx.port)) as client:
            client.sendall(f"{requests}GET {paths[2]} {head}Connection: close\r\n\r\n".encode())
            answers = b"".join(iter(lambda: client.recv(4096), b""))
        self.assertEqual(re.findall(rb"HTTP/1.1 (\d+)", answers), [b"503", b"200", b"404"])
        nginx.wait_for_lines(3)
        self.assertEqual(self.left(key), 999)
        url = f"http://127.0.0.1:{nginx.h2_port}{paths[0]}"
        before = nginx.read("access.log").count("\n")
        for _ in range(2):
            words = ["curl", "-s", "--http2-prior-knowledge", "-H", f"X-API-Key: {key}", url]
            subprocess.run(words, check=True, capture_output=True)
        nginx.wait_for_lines(before + 2)
        self.assertEqual(self.left(key), 999)

    def test_key_comes_from_named_fields(self):
        nginx = self.nginx
        key, _ = nginx.issue()
        other, _ = nginx.issue()
        api_key, bearer, token = ("X-API-Key", key), ("Authorization", f"Bearer {key}"), ("X-Token", key)
        basic = ("Authorization", "Basic dTpw")
        challenges = 'ApiKey realm="api", header="X-API-Key", Bearer realm="api", ApiKey realm="api", header="X-Token"'
        for headers in ([api_key], [bearer], [token], [("authorization", f"bEARER   {key}")], [api_key, bearer, token], [basic, token]):
            self.assertEqual(nginx.get("/named", *headers)[0], 200, headers)
        for headers, body in (
            ([], b'{"error": "Missing API key"}'),
            ([basic], b'{"error": "Missing API key"}'),
            ([("Authorization", f"Bearers {key}")], b'{"error": "Missing API key"}'),
            ([("Authorization", "Bearer")], INVALID),
            ([api_key, api_key], INVALID),
            ([token, token], INVALID),
            ([api_key, ("X-Token", other)], INVALID),
            ([bearer, ("X-Token", "")], INVALID),
        ):
            self.assertEqual(nginx.get("/named", *headers), (401, {"Content-Type": "application/json", "WWW-Authenticate": challenges}, body), headers)
        # nginx itself refuses a repeated Authorization.
        self.assertEqual(nginx.get("/named", basic, bearer)[0], 400)
        # The query is not read, nor are other fields.
        self.assertEqual(nginx.get(f"/named?api_key={key}&x-token={key}")[0], 401)
        status, fields, _ = nginx.get("/named/token", api_key)
        self.assertEqual((status, fields["WWW-Authenticate"]), (401, 'ApiKey realm="api", header="X-Token"'))
        self.assertEqual(nginx.get("/named/token", token, ("X-API-Key", "nonsense"))[0], 200)
        self.assertEqual(nginx.get("/named/inner/file.txt", token)[0], 200)
        self.assertEqual(nginx.get("/named/inner/default", token)[::2], (401, MISSING))
        self.assertEqual(nginx.get("/named/inner/default", api_key)[0], 200)
        for headers, answer in (([bearer], (200, b"a file\n")), ([api_key], (401, b'{"error": "Missing API key"}'))):
            self.assertEqual(nginx.get("/named/authorized/file.txt", *headers)[::2], answer)
        fields = nginx.get("/named/authorized/file.txt")[1]
        self.assertEqual(fields["WWW-Authenticate"], 'Bearer realm="api"')

    def test_error_page_replaces_a_refusal_if_it_is_on(self):
        nginx = self.nginx
        key, _ = nginx.issue()
        mine = ("X-API-Key", key)
        challenge = 'ApiKey realm="api", header="X-API-Key"'
        unauthorized = {"Content-Type": "application/json", "WWW-Authenticate": challenge}
        for path in ("/pages/file.txt", "/pages/nothing"):
            self.assertEqual(nginx.get(path), (401, unauthorized, b'{"code": "unauthorized"}'))
        self.assertEqual(nginx.get("/pages/off"), (401, unauthorized, MISSING))
        self.assertEqual(nginx.get("/pages/file.txt", mine)[::2], (200, b"a file\n"))
        status, fields, body = nginx.get("/pages/file.txt?cost=1000", mine)
        self.assertEqual((status, body, fields["Content-Type"]), (503, b"busy", "text/plain"))
        self.assertEqual((fields["X-RateLimit-Remaining"], int(fields["Retry-After"]) > 0), ("999", True))
        # A refusal without a page of its status keeps its body, and so does that of a page.
        self.assertEqual(nginx.get("/pages/file.txt?cost=x", mine)[::2], (400, WRONG_COST))
        self.assertEqual(nginx.get("/pages/inherited?cost=1000", mine)[::2], (429, EXCEEDED))
        self.assertEqual(self.left(key), 999)

    def client_address(self, text):
        """Returns `$keytally_client_address` for this address.

        A trusted proxy forwards the request for the address.
        """
        return self.nginx.get("/who", ("X-Forwarded-For", text), source="127.0.0.9")[1].get("X-Seen")

    def test_client_address_is_ipv4_or_an_ipv6_network(self):
        for text, address in (
            ("203.0.113.9", "203.0.113.9"),
            ("203.0.113.9:40001", "203.0.113.9"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("[2001:db8:1:2::6]:443", "2001:db8:1:2::/64"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            ("::ffff:0:203.0.113.9", "203.0.113.9"),
            ("::203.0.113.9", "203.0.113.9"),
            ("64:ff9b::203.0.113.9", "203.0.113.9"),
            ("64:ff9b:0:0:0:1:cb00:7109", "64:ff9b::/64"),
            ("64:ff9b:1::203.0.113.9", "64:ff9b:1::/64"),
            ("2002:cb00:7109:1::1", "203.0.113.9"),
            ("::1", "::/64"),
            ("::", "::/64"),
            ("::2", "0.0.0.2"),
        ):
            self.assertEqual(self.client_address(text), address, text)
        self.assertEqual(self.nginx.get("/who")[1]["X-Seen"], "127.0.0.1")


class Sources(unittest.TestCase):
    def test_source_files_call_only_files_above_them(self):
        with open(os.path.join(os.path.dirname(__file__), "../src/ngx_http_keytally.h")) as file:
            order = re.findall(r"^ \* (ngx_http_keytally_\w+)\.c ", file.read(), re.MULTILINE)
        defined, used = {}, {}
        for position, name in enumerate(order):
            path = os.path.join(OBJECTS, name + ".o")
            listed = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout
            symbols = [line.split()[-2:] for line in listed.splitlines()]
            defined |= {symbol: position for kind, symbol in symbols if kind == "T"}
            used[position] = [symbol for kind, symbol in symbols if kind == "U"]
        self.assertEqual(set(order), {name[:-2] for name in os.listdir(OBJECTS) if name.endswith(".o")})
        below = [
            f"{order[position]}.c calls {symbol} of {order[defined[symbol]]}.c"
            for position, symbols in used.items()
            for symbol in symbols
            if defined.get(symbol, -1) > position
        ]
        self.assertEqual(below, [])


class UnderValgrind(Contract):
    """The contract under valgrind, which reports invalid memory accesses and leaks."""

    NGINX = {"under": ["valgrind", "--quiet", "--leak-check=full", "--show-leak-kinds=definite", "--log-file=FOLDER/report.%p"]}


class Sanitized(Contract):
    """The contract with the module built with AddressSanitizer and UndefinedBehaviorSanitizer."""

    NGINX = {
        "module": SANITIZED,
        "under": ["env", f"LD_PRELOAD={LIBASAN}", "ASAN_OPTIONS=detect_leaks=0:log_path=FOLDER/report"],
    }


SECTIONS = """
    keytally_gate api file=api.gate pepper_file=pepper;
    keytally_limit_zone zone=by_name:1m key=$arg_name policy=3/hour;
    keytally_limit_zone zone=narrow:1m key=$arg_narrow policy=2/hour;
    keytally_limit_zone zone=addresses:32k key=$arg_address "policy=addresses: /64 3/hour; /56 4/hour";
    keytally_limit_zone zone=clients:1m "policy=addresses: 1/hour";
    keytally_limit_zone zone=address:1m policy=1000/hour;
    keytally_limit_zone zone=by_field:1m key=$http_name policy=3/hour;
    keytally_limit_zone zone=more:1m key=all policy=1000/hour;
    keytally_limit_zone zone=most:1m key=all policy=1000/hour;
    set_real_ip_from 127.0.0.9;
    real_ip_header X-Forwarded-For;
    server {
        listen %(port)s;
        location = /address { keytally_limit addresses; empty_gif; }
        location = /address_and_name { keytally_limit addresses; keytally_limit by_name; empty_gif; }
        location = /address_shadow { keytally_limit addresses shadow; empty_gif; }
        location = /address_and_key { keytally_limit addresses; keytally api; empty_gif; }
        location = /address_refunded {
            keytally_limit addresses;
            keytally_refund 500;
            proxy_pass http://127.0.0.1:%(port)s/answer$is_args$args;
        }
        location = /client { keytally_limit clients; empty_gif; }
        location = /guessed { keytally api; keytally_failures clients; empty_gif; }
        root .;
        location = /read { keytally api; empty_gif; }
        location = /write { keytally api group=write cost=$arg_cost; empty_gif; }
        location = /tokens { keytally api group=write group=tokens:$arg_tokens; empty_gif; }
        location = /shadow { keytally api group=write need=admin shadow; empty_gif; }
        location = /limited { keytally_limit by_name; keytally api group=write need=write; empty_gif; }
        location = /warned {
            keytally_limit by_name;
            keytally api group=write cost=$arg_cost;
            add_header X-Seen "$keytally_crossed" always;
            empty_gif;
        }
        location = /limited_by_both { keytally_limit by_name; keytally_limit narrow; keytally api; empty_gif; }
        location = /limited_and_denied { keytally_limit by_name; keytally api; deny all; empty_gif; }
        location = /limited_any { satisfy any; allow all; keytally_limit by_name; keytally api; empty_gif; }
        location = /limited_cost { keytally_limit by_name; keytally api cost=$arg_cost; empty_gif; }
        location = /limited_shadow { keytally_limit by_name shadow; keytally_limit narrow; keytally api cost=$arg_cost; empty_gif; }
        location = /limited_by_shadow { keytally_limit by_name; keytally api cost=$arg_cost shadow; empty_gif; }
        location = /many {
            keytally_limit by_name; keytally_limit narrow; keytally_limit address; keytally_limit more; keytally_limit most;
            keytally api group=write group=tokens:$arg_tokens;
            empty_gif;
        }
        location = /authorized_limits { auth_request /limited_keys; empty_gif; }
        location = /by_field { keytally_limit by_field; empty_gif; }
        location = /limited_keys { internal; keytally_limit by_field; keytally api group=write; empty_gif; }
        location = /authorized_groups { keytally_limit by_name; keytally api; auth_request /group_keys; empty_gif; }
        location = /group_keys { internal; keytally api group=write; empty_gif; }
        location = /limits { keytally_limit by_name; keytally_limit narrow; empty_gif; }
        location = /limits_of_shadow { keytally_limit narrow shadow; keytally_limit by_name; empty_gif; }
        location = /moved { keytally api; try_files /nothing @needs; }
        location @needs { keytally api need=write; empty_gif; }
        location = /authorized { keytally api; auth_request /keys; empty_gif; }
        location = /keys { internal; keytally api need=write; empty_gif; }
        location /inherited/ {
            keytally api group=write need=write;
            location = /inherited/inner { empty_gif; }
            location = /inherited/off { keytally api; empty_gif; }
        }
        location = /refunded {
            keytally api group=write;
            keytally_limit by_name;
            keytally_refund 500;
            proxy_pass http://127.0.0.1:%(port)s/answer$is_args$args;
        }
        location = /answer { access_log off; if ($arg_status = 500) { return 500; } return 200 fine; }
    }
"""


class Sections(unittest.TestCase):
    """Groups, scopes and teams, and limits that are charged together."""

    PLANS = ("default=100/hour warn 4%; team: 150/hour; group write: 5/hour warn 60% 80%; group tokens: 1000/hour",)
    NGINX = {}

    def setUp(self):
        avoid_end_of_hour()
        self.nginx = Nginx(http=SECTIONS, plans=self.PLANS, **self.NGINX)
        self.nginx.create_with_scopes(b"read", b"write", b"admin")
        self.nginx.__enter__()
        self.addCleanup(self.nginx.__exit__)

    def left(self, path, *headers, status=200):
        """Sends a request. Returns the units left in each window that the field RateLimit lists."""
        found, fields, _ = self.nginx.get_logged(path, *headers)
        self.assertEqual(found, status, fields)
        return re.findall(r'"([a-z0-9-]+)";r=(\d+)', fields["RateLimit"])

    def test_request_charges_key_team_and_groups_or_none(self):
        ann, bob = self.nginx.issue_with_scopes(), self.nginx.issue_with_scopes()
        self.assertEqual(self.left("/read", ann), [("hour", "99"), ("team-hour", "149")])
        self.assertEqual(self.left("/write?cost=3", ann), [("hour", "96"), ("team-hour", "146"), ("write-hour", "2")])
        denied = [("hour", "96"), ("team-hour", "146"), ("write-hour", "2")]
        self.assertEqual(self.left("/write?cost=3", ann, status=429), denied)
        self.assertEqual(self.left("/write?cost=3", bob), [("hour", "97"), ("team-hour", "143"), ("write-hour", "2")])
        tokens = [("hour", "95"), ("team-hour", "142"), ("write-hour", "1"), ("tokens-hour", "300")]
        self.assertEqual(self.left("/tokens?tokens=700", ann), tokens)
        self.assertEqual(self.left("/tokens?tokens=301", ann, status=429), tokens)
        self.assertEqual(self.nginx.get("/tokens?tokens=x", ann)[::2], (400, WRONG_COST))
        self.assertEqual(self.nginx.get("/tokens?tokens=x")[0], 401)
        self.assertEqual(self.left("/read", ann)[0], ("hour", "94"))
        policy = self.nginx.get("/write", ann)[1]["RateLimit-Policy"]
        self.assertEqual(policy, '"hour";q=100;w=3600, "team-hour";q=150;w=3600, "write-hour";q=5;w=3600')

    def test_empty_cost_of_a_group_is_1(self):
        key = self.nginx.issue_with_scopes()
        for path, left in (("/tokens", "999"), ("/tokens?tokens=", "998"), ("/tokens?tokens=0", "998")):
            self.assertEqual(self.left(path, key)[3], ("tokens-hour", left), path)

    def test_key_without_a_needed_scope_is_forbidden(self):
        reader, writer = self.nginx.issue_with_scopes(b"read"), self.nginx.issue_with_scopes(b"read", b"write")
        forbidden = (403, b'{"error": "Forbidden"}')
        for path in ("/limited?name=a", "/inherited/inner", "/moved", "/authorized"):
            status, _, body = self.nginx.get_logged(path, reader)
            # nginx itself responds to a refusal by auth_request.
            self.assertEqual(status if path == "/authorized" else (status, body), 403 if path == "/authorized" else forbidden, path)
            self.assertEqual(self.nginx.get_logged(path, writer)[0], 200, path)
        self.nginx.wait_for_log("access.log", r"403 /limited 42 \S+ live default forbidden -\n")
        self.assertEqual(self.nginx.get("/inherited/off", reader)[0], 200)
        self.assertEqual(self.nginx.get("/shadow", writer)[0], 200)
        # The zone was charged once: the refused request was returned to it.
        self.assertEqual(self.left("/limited?name=a", writer)[-1], ("hour-2", "1"))

    def test_key_whose_counts_are_moving_gets_503(self):
        key = self.nginx.issue_with_scopes(b"read", b"write")
        left = self.left("/limited?name=moving", key)
        # The module stays with the old file, whose counts moved to one at another path.
        os.link(self.nginx.path("api.gate"), self.nginx.path("other.gate"))
        self.nginx.keytally("migrate", "other.gate", "new.gate")
        status, fields, body = self.nginx.get_logged("/limited?name=moving", key)
        self.assertEqual((status, body), (503, b'{"error": "Service unavailable. Please try again later."}'))
        self.assertEqual(fields["Retry-After"], "1")
        self.assertNotIn("X-RateLimit-Limit", fields)
        self.nginx.wait_for_log("access.log", r"503 /limited 42 \S+ live default unavailable -\n")
        os.rename(self.nginx.path("other.gate"), self.nginx.path("api.gate"))
        # The new file is opened at once, and the zone got back what it was charged.
        after = self.left("/limited?name=moving", key)
        self.assertEqual([int(units) for _, units in after], [int(units) - 1 for _, units in left])

    def test_limit_and_gate_are_listed_and_returned_together(self):
        key = self.nginx.issue_with_scopes(b"write")
        first = [("hour", "99"), ("team-hour", "149"), ("write-hour", "4"), ("hour-2", "2")]
        self.assertEqual(self.left("/limited?name=b", key), first)
        fields = self.nginx.get("/limited?name=b", key)[1]
        self.assertEqual(fields["X-RateLimit-Remaining"], "98")
        # The gate has no room, so the zone has its unit again.
        for _ in range(3):
            self.left("/write", key)
        self.assertEqual(self.nginx.get("/limited?name=b", key)[0], 429)
        self.assertEqual(self.left("/limits?name=b&narrow=b"), [("hour", "0"), ("hour-2", "1")])
        self.assertEqual(self.nginx.get("/limited?name=b", key)[0], 429)

    def test_limit_is_not_charged_if_the_gate_denies(self):
        key = self.nginx.issue_with_scopes(b"write")
        self.left("/write?cost=5", key)
        denied = [("hour", "95"), ("team-hour", "145"), ("write-hour", "0"), ("hour-2", "3")]
        for _ in range(4):
            self.assertEqual(self.left("/limited?name=f", key, status=429), denied)
        self.assertEqual(self.left("/limits?name=f&narrow=f"), [("hour", "2"), ("hour-2", "1")])

    def test_warning_of_a_plan_is_reported_once(self):
        key, other = self.nginx.issue_with_scopes(), self.nginx.issue_with_scopes()
        crossed = [self.nginx.get(f"/warned?cost={cost}{more}", key)[1].get("X-Seen") for cost, more in ((2, ""), (1, "&name=o"), (1, ""), (9, ""))]
        self.assertEqual(crossed, [None, "write-hour=60", "hour=4,write-hour=80", None])
        self.assertEqual(self.nginx.get("/warned?cost=5", other)[1]["X-Seen"], "hour=4,write-hour=60,write-hour=80")
        self.nginx.wait_for_log("error.log", r'\[notice\] .*keytally "api": crossed quota=hour percent=4 key=[0-9A-Za-z]{11} account=42,')
        self.assertEqual(self.nginx.read("error.log").count(" crossed quota="), 6)
        self.assertNotIn(key[1][19:], self.nginx.read("error.log"))

    def test_full_limit_refuses_before_the_key_is_read(self):
        key = self.nginx.issue_with_scopes()
        both = "/limited_by_both?name=g&narrow=g"
        self.assertEqual([self.left(both, key)[-2:] for _ in range(2)], [[("hour-2", "2"), ("hour-3", "1")], [("hour-2", "1"), ("hour-3", "0")]])
        # A client beyond its limit gets the same response, whatever key it presents.
        answers = [self.nginx.get(both, *headers) for headers in ((key,), (("X-API-Key", "x"),), ())]
        for status, fields, body in answers:
            self.assertEqual((status, body, fields["X-RateLimit-Limit"]), (429, EXCEEDED, "3"))
            self.assertEqual(re.findall(r'";r=(\d+)', fields["RateLimit"]), ["1", "0"])
        self.nginx.wait_for_log("access.log", r"429 /limited_by_both - - - - denied -\n")
        self.assertEqual(self.left("/read", key)[0], ("hour", "97"))

    def test_request_without_a_valid_key_is_charged_to_limits(self):
        key = self.nginx.issue_with_scopes()
        both = "/limited_by_both?name=h&narrow=h"
        for headers, left in (((), ["2", "1"]), ((("X-API-Key", "x"),), ["1", "0"])):
            self.assertEqual([units for _, units in self.left(both, *headers, status=401)], left)
        self.assertEqual(self.nginx.get(both, ("X-API-Key", "x"))[::2], (429, EXCEEDED))
        # So is one whose key is there twice, and one whose cost is out of range.
        self.assertEqual(self.nginx.get("/limited_by_both?name=i", key, key)[0], 401)
        self.assertEqual(self.nginx.get("/limited_cost?name=i&cost=x")[0], 401)
        self.assertEqual(self.nginx.get("/limited_cost?name=i&cost=x", key)[::2], (400, WRONG_COST))
        self.assertEqual(self.left("/limits?name=i"), [("hour", "0")])
        self.assertEqual(self.left("/read", key)[0], ("hour", "99"))

    def test_limit_follows_the_gate_into_the_access_phase(self):
        key = self.nginx.issue_with_scopes()
        # A request that another module refuses is charged by neither. With `satisfy any`, the gate
        # may not be checked, so the limit charges for itself.
        for _ in range(4):
            self.assertEqual(self.nginx.get("/limited_and_denied?name=j", key)[0], 403)
        self.assertEqual([self.nginx.get("/limited_any?name=j")[0] for _ in range(4)], [200, 200, 200, 429])
        self.assertEqual(self.left("/read", key)[0], ("hour", "99"))

    def test_shadow_is_charged_for_itself(self):
        key = self.nginx.issue_with_scopes()
        # A gate in shadow refuses nothing, so the limit is charged, too.
        self.assertEqual(self.left("/limited_by_shadow?name=k&cost=100", key)[-1], ("hour-2", "2"))
        for _ in range(2):
            self.assertEqual(self.nginx.get("/limited_by_shadow?name=k&cost=100", key)[0], 200)
        self.assertEqual(self.left("/limited_by_shadow?name=k&cost=100", key, status=429), [("hour", "0")])
        # A limit in shadow is charged only if the request is admitted, and refuses nothing.
        self.assertEqual(self.nginx.get("/limited_shadow?name=l&narrow=l&cost=1", key)[0], 429)
        other = self.nginx.issue_with_scopes()
        self.assertEqual(self.left("/limited_shadow?name=l&narrow=l&cost=1", other)[2:], [("hour-2", "1"), ("hour-3", "2")])
        self.assertEqual(self.nginx.get("/limited_shadow?name=k&narrow=l&cost=1", other)[0], 200)
        self.assertEqual(self.nginx.get("/limited_shadow?name=l&narrow=l&cost=1", other)[0], 429)
        self.assertEqual(self.left("/limits?name=l"), [("hour", "1")])

    def test_tallies_beyond_eight_are_charged_one_after_another(self):
        key = self.nginx.issue_with_scopes()
        self.assertEqual(len(self.left("/many?name=m&narrow=m&tokens=600", key)), 4)
        # The group has no room, so the limits have their units again.
        self.assertEqual(self.left("/many?name=m&narrow=m&tokens=600", key, status=429)[3], ("tokens-hour", "400"))
        self.assertEqual(self.left("/limits?name=m&narrow=m"), [("hour", "1"), ("hour-2", "0")])
        self.assertEqual(self.left("/many?name=m&narrow=m", key, status=429)[1], ("hour-2", "0"))

    def test_subrequest_charges_limit_and_key_together(self):
        key, name = self.nginx.issue_with_scopes(), ("Name", "n")
        charged = [("hour", "99"), ("team-hour", "149"), ("write-hour", "4"), ("hour-2", "2")]
        self.assertEqual(self.left("/authorized_limits", key, name), charged)
        self.left("/write?cost=4", key)
        self.assertEqual(self.nginx.get("/authorized_limits", key, name)[0], 403)
        self.assertEqual(self.left("/by_field", name), [("hour", "1")])

    def test_gate_that_a_subrequest_charged_leaves_the_limit(self):
        key = self.nginx.issue_with_scopes()
        for left in ("4", "3", "2"):
            self.assertEqual(self.left("/authorized_groups?name=n", key)[2], ("write-hour", left))
        self.assertEqual(self.nginx.get("/authorized_groups?name=n", key)[0], 429)
        self.assertEqual(self.left("/write?cost=1", key)[2], ("write-hour", "1"))

    def test_refund_returns_every_tally(self):
        key = self.nginx.issue_with_scopes()
        charged = [("hour", "99"), ("team-hour", "149"), ("write-hour", "4"), ("hour-2", "2")]
        for _ in range(8):
            self.assertEqual(self.left("/refunded?status=500&name=c", key, status=500), charged)
        self.assertEqual(self.left("/refunded?status=200&name=c", key), charged)
        self.assertEqual(self.left("/refunded?status=200&name=c", key)[2:], [("write-hour", "3"), ("hour-2", "1")])

    def test_limits_of_a_location_are_charged_all_or_none(self):
        self.assertEqual(self.left("/limits?name=d&narrow=d"), [("hour", "2"), ("hour-2", "1")])
        self.assertEqual(self.left("/limits?name=d&narrow=d"), [("hour", "1"), ("hour-2", "0")])
        for _ in range(3):
            self.assertEqual(self.left("/limits?name=d&narrow=d", status=429), [("hour", "1"), ("hour-2", "0")])
        # The refused requests have charged nothing. A shadow refuses nothing.
        self.assertEqual(self.left("/limits?name=d"), [("hour", "0")])
        self.assertEqual(self.nginx.get("/limits_of_shadow?name=e&narrow=d")[0], 200)
        self.nginx.wait_for_log("access.log", r"200 /limits_of_shadow - - - - denied -\n")

    def test_address_is_charged_to_all_networks_or_to_none(self):
        def address(host, **options):
            path = options.pop("path", "/address")
            return [left for _, left in self.left(f"{path}?address=2001:db8:0:{host}", **options)]

        self.assertEqual(self.left("/address?address=2001:db8::1"), [("hour", "2"), ("prefix-56-hour", "3")])
        self.assertEqual(address("1::1"), ["2", "2"])
        self.assertEqual(address("1::2&status=500", path="/address_refunded", status=500), ["1", "1"])
        self.assertEqual(address("1::3&name=a", path="/address_and_name"), ["1", "1", "2"])
        key = self.nginx.issue_with_scopes()
        self.assertEqual(self.left("/address_and_key?address=[2001:db8:0:1::]:443", key)[-2:], [("hour-2", "0"), ("prefix-56-hour", "0")])
        # The /64 has no room, nor has the /56 for another of its networks.
        self.assertEqual(address("1::4", status=429), ["0", "0"])
        self.assertEqual(address("2::1", status=429), ["3", "0"])
        self.assertEqual(address("2::1&name=a", path="/address_and_name", status=429), ["3", "0", "2"])
        self.assertEqual(self.nginx.get("/address_shadow?address=2001:db8::")[0], 200)
        self.nginx.wait_for_log("access.log", r"200 /address_shadow - - - - denied -\n")
        self.assertEqual(address("100::1"), ["2", "3"])
        # An empty key is not counted, and a text that is not an address is an error.
        self.assertEqual(self.nginx.get("/address")[0], 200)
        self.assertEqual(self.nginx.get("/address?address=ann")[0], 500)
        self.nginx.wait_for_log("error.log", "the subject is not an address")

    def test_client_address_counts_by_the_prefixes_of_a_policy(self):
        statuses = {"2001:db8::1": 200, "2001:db8::2": 429, "2001:db8:0:1::1": 200, "203.0.113.9": 200, "203.0.113.8": 200}
        for client, status in statuses.items():
            forwarded = ("X-Forwarded-For", client)
            self.assertEqual(self.nginx.get("/client", forwarded, source="127.0.0.9")[0], status, client)
        guesses = [
            self.nginx.get("/guessed", ("X-Forwarded-For", f"2001:db8:1::{host}"), ("X-API-Key", "x"), source="127.0.0.9")[0]
            for host in range(3)
        ]
        self.assertEqual(guesses, [401, 429, 429])

    def test_team_is_shared_and_can_be_suspended(self):
        ann, bob = self.nginx.issue_with_scopes(), self.nginx.issue_with_scopes()
        self.assertEqual(self.left("/write?cost=5", ann)[1], ("team-hour", "145"))
        self.assertEqual(self.left("/read", bob)[1], ("team-hour", "144"))
        self.nginx.call(LIBRARY.kt_gate_set_suspended, ctypes.c_uint32(42), ctypes.c_uint8(1))
        self.assertEqual(self.nginx.get("/read", ann)[::2], (401, INVALID))
        self.nginx.wait_for_log("access.log", r"401 /read 42 \S+ live default invalid_key suspended\n")


class SectionsSanitized(Sections):
    """Groups, scopes and teams with AddressSanitizer and UndefinedBehaviorSanitizer."""

    NGINX = Sanitized.NGINX


class Sharing(unittest.TestCase):
    def test_four_workers_admit_exactly_the_limit(self):
        avoid_end_of_hour()
        with Nginx() as nginx:
            key, _ = nginx.issue()
            sent = 0
            while sent < 20_000:
                sent += requests_of(nginx.load("/gif", key, 1))
            self.assertEqual(nginx.logged(200, "/gif"), 1000)
            self.assertGreaterEqual(nginx.logged(429, "/gif"), 19_000)

    def test_limit_and_key_admit_exactly_the_same_requests(self):
        http = """
            keytally_gate api file=api.gate pepper_file=pepper;
            keytally_limit_zone zone=all:1m key=all policy=1000/hour;
            server {
                listen 127.0.0.1:%(port)s;
                location = /both { keytally_limit all; keytally api; empty_gif; }
                location = /key { keytally api; empty_gif; }
            }"""
        avoid_end_of_hour()
        with Nginx(http=http, plans=("default=100000/hour",)) as nginx:
            key, _ = nginx.issue()
            sent = 0
            while sent < 5_000:
                sent += requests_of(nginx.load("/both", key, 1))
            self.assertEqual(nginx.logged(200, "/both"), 1000)
            self.assertEqual(nginx.remaining("/key", key), 100_000 - 1000 - 1)

    def test_full_zone_does_not_refuse_further_clients(self):
        avoid_end_of_hour()
        with Nginx() as nginx:
            connection = http.client.HTTPConnection("127.0.0.1", nginx.port, timeout=30, source_address=("127.0.0.9", 0))
            found = set()
            for client in range(10_000):
                for _ in range(2):
                    forwarded = f"10.1.{client // 256}.{client % 256}"
                    connection.request("GET", "/guessed_by_few", headers={"X-API-Key": "x", "X-Forwarded-For": forwarded})
                    response = connection.getresponse()
                    response.read()
                found.add(response.status)
                if response.status != 429:
                    break
            connection.close()
            self.assertEqual(found, {429, 401})

    def test_new_clients_of_a_full_zone_share_limits(self):
        avoid_end_of_hour()
        with Nginx() as nginx:
            connection = http.client.HTTPConnection("127.0.0.1", nginx.port, timeout=30)
            found = []
            for client in range(4000):
                connection.request("GET", f"/limited_few?name={client}")
                response = connection.getresponse()
                response.read()
                found.append(response.status)
            connection.close()
            self.assertEqual(set(found), {200, 429})
            # Each bucket of eight slots has a tally of one unit for clients without a slot.
            last = found.index(429)
            self.assertIn(200, found[last:])
            self.assertLess(found.count(200), 2000)

    def check_reloads_and_kills(self, path, plan):
        """Sends requests during reloads and kills until one is denied.

        Checks the number of admitted requests.
        """
        avoid_end_of_hour()
        with Nginx() as nginx:
            key, _ = nginx.issue(plan)
            kills = 0
            while nginx.logged(429, path) == 0:
                self.assertLess(kills, 200, "the limit was not reached")
                wrk = nginx.load(path, key, 2)
                for _ in range(3):
                    time.sleep(0.3)
                    nginx.reload()
                    for worker in nginx.workers()[:2]:
                        os.kill(worker, signal.SIGKILL)
                        kills += 1
                wrk.communicate()
            admitted = nginx.logged(200, path)
            self.assertLessEqual(admitted, 100_000)
            # A killed worker leaves requests charged without a response: at most one per
            # connection.
            self.assertGreaterEqual(admitted, 100_000 - 32 * kills)
            self.assertEqual(nginx.get(path, ("X-API-Key", key))[0], 429)

    def test_reloads_and_kills_never_over_admit_a_key(self):
        self.check_reloads_and_kills("/gif", "wide")

    def test_reloads_and_kills_never_over_admit_in_a_zone(self):
        self.check_reloads_and_kills("/limited_all", "wide")

    def test_revoked_key_is_refused_in_the_next_request(self):
        with Nginx() as nginx:
            for _ in range(5):
                key, key_id = nginx.issue()
                self.assertEqual(nginx.get("/gif", ("X-API-Key", key))[0], 200)
                nginx.keytally("revoke", "api.gate", key_id)
                self.assertEqual(nginx.get("/gif", ("X-API-Key", key))[::2], (401, INVALID))

    def counts(self, nginx, key_id):
        """Returns how the key was used: the counts that `keytally usage show` prints."""
        keys = json.loads(nginx.keytally("usage", "show", "api.gate", "--json"))["keys"]
        return next(key for key in keys if key["key_id"] == key_id)

    def test_uses_are_counted_as_soon_as_that_is_switched_on(self):
        with Nginx() as nginx:
            key, key_id = nginx.issue()
            request = "/gif", ("X-API-Key", key)
            # Each worker has the gate open, and some have used it.
            self.assertEqual([nginx.get(*request)[0] for _ in range(8)], [200] * 8)
            nginx.keytally("usage", "on", "api.gate")
            self.assertEqual([nginx.get(*request)[0] for _ in range(8)], [200] * 8)
            nginx.keytally("revoke", "api.gate", key_id)
            self.assertEqual(nginx.get(*request)[0], 401)
            counts = self.counts(nginx, key_id)
            self.assertEqual([counts[name] for name in ("admitted", "units", "revoked")], [8, 8, 1])
            nginx.keytally("usage", "off", "api.gate")
            nginx.get(*request)
            nginx.keytally("usage", "on", "api.gate")
            self.assertEqual(self.counts(nginx, key_id)["revoked"], 1)

    def test_uses_of_a_killed_worker_are_counted(self):
        with Nginx() as nginx:
            key, key_id = nginx.issue("wide")
            nginx.keytally("usage", "on", "api.gate")
            load = nginx.load("/gif", key, 2)
            for _ in range(3):
                time.sleep(0.4)
                os.kill(nginx.workers()[0], signal.SIGKILL)
            load.communicate()
            left = nginx.remaining("/gif", key)
            # At most one request of each killed worker was charged and not counted yet.
            self.assertIn(100000 - left - self.counts(nginx, key_id)["admitted"], range(4))

    def test_replaced_gate_is_opened_by_worker_or_reload(self):
        for user in ("root", "www-data") if os.geteuid() == 0 else (None,):
            with self.subTest(user=user), Nginx(user=user) as nginx:
                old, _ = nginx.issue()
                self.assertEqual(nginx.get("/gif", ("X-API-Key", old))[0], 200)
                nginx.create("new.gate")
                os.rename(nginx.path("new.gate"), nginx.path("api.gate"))
                new, _ = nginx.issue()
                # The workers may not open the file, and log that, until the reload.
                if user == "www-data":
                    while "stays in use until the new one can be opened" not in nginx.read("error.log"):
                        time.sleep(0.1)
                    self.assertEqual(nginx.get("/gif", ("X-API-Key", old))[0], 200)
                    nginx.reload()
                while {nginx.get("/gif", ("X-API-Key", new))[0] for _ in range(40)} != {200}:
                    time.sleep(0.1)
                self.assertEqual(nginx.get("/gif", ("X-API-Key", old))[0], 401)

    def test_charge_is_not_refunded_to_another_file(self):
        avoid_end_of_hour()
        with Nginx() as nginx:
            key, _ = nginx.issue()
            for query in ("narrow=r", "narrow=r", "slow=s"):
                self.assertEqual(nginx.get(f"/delayed?{query}", ("X-API-Key", key))[0], 200)
            shutil.copy(nginx.path("api.gate"), nginx.path("new.gate"))
            answers = []
            # The gate charges this request at once, and the limit refuses it three seconds later.
            request = threading.Thread(target=lambda: answers.append(nginx.get("/delayed?narrow=r&slow=s", ("X-API-Key", key))[0]))
            request.start()
            time.sleep(0.2)
            os.rename(nginx.path("new.gate"), nginx.path("api.gate"))
            request.join()
            self.assertEqual(answers, [429])
            while nginx.read("error.log").count("the new file is in use") < 4:
                time.sleep(0.1)
            self.assertEqual(nginx.remaining("/gif", key), 996)

    def test_replacement_that_fails_to_open_is_tried_again(self):
        with Nginx() as nginx:
            old, _ = nginx.issue()
            nginx.create("new.gate")
            os.chmod(nginx.path("new.gate"), 0o606)
            os.rename(nginx.path("new.gate"), nginx.path("api.gate"))
            nginx.wait_for_log("error.log", "stays in use until the new one can be opened")
            time.sleep(2)
            self.assertEqual(nginx.get("/gif", ("X-API-Key", old))[0], 200)
            # Each worker logs it once.
            logged = nginx.read("error.log").count("stays in use until the new one can be opened")
            self.assertLessEqual(logged, len(nginx.workers()))
            os.chmod(nginx.path("api.gate"), 0o600)
            new, _ = nginx.issue()
            nginx.wait_for_log("error.log", "the new file is in use")
            time.sleep(2)  # Every worker has looked.
            self.assertEqual({nginx.get("/gif", ("X-API-Key", new))[0] for _ in range(40)}, {200})

    def test_pepper_in_a_pipe_does_not_block_a_worker(self):
        nginx = Nginx(http=HTTP.replace("pepper_file=pepper;", "pepper_file=pipe;"))
        os.mkfifo(nginx.path("pipe"), 0o600)
        writer = threading.Thread(target=nginx.write, args=("pipe", nginx.read("pepper"), 0o600), daemon=True)
        writer.start()
        with nginx:
            writer.join()
            key, _ = nginx.issue()
            nginx.create("new.gate")
            os.rename(nginx.path("new.gate"), nginx.path("api.gate"))
            nginx.wait_for_log("error.log", "stays in use until the new one can be opened: this is not a regular file")
            time.sleep(2)  # Every worker has looked.
            self.assertEqual({nginx.get("/gif", ("X-API-Key", key))[0] for _ in range(40)}, {200})


class Clock(unittest.TestCase):
    """The system clock, which corrects tallies that an explicit time moved hours ahead."""

    def setUp(self):
        avoid_end_of_hour()

    def spend_ahead(self, hours, check, handle, subject, cost):
        """Charges a subject by the function `check` of the C library.

        The time is hours ahead.
        """
        verdict = ctypes.create_string_buffer(b"?" * 1024)
        now_ms = ctypes.c_uint64(int((time.time() + hours * 3600) * 1000))
        self.assertEqual(check(handle, subject, ctypes.c_size_t(len(subject)), ctypes.c_uint32(cost), now_ms, verdict), 0)
        self.assertEqual(verdict.raw[0], 0, "admitted")

    def assert_is_now(self, fields, remaining):
        """Checks that the fields describe the current hour, with this number of remaining units."""
        self.assertEqual(int(fields["X-RateLimit-Remaining"]), remaining)
        self.assertLessEqual(int(fields["X-RateLimit-Reset"]), time.time() + 3600)

    def test_key_that_a_time_ahead_locked_is_corrected(self):
        with Nginx() as nginx:
            # The second turn checks a gate that was reopened.
            for _ in range(2):
                key, _ = nginx.issue()
                gate = ctypes.c_void_p()
                paths = [nginx.path(name).encode() for name in ("api.gate", "pepper")]
                self.assertEqual(LIBRARY.kt_gate_open_with_pepper_file(*paths, ctypes.byref(gate)), 0)
                self.spend_ahead(3, LIBRARY.kt_gate_check, gate, key.encode(), 999)
                LIBRARY.kt_gate_close(gate)
                status, fields, _ = nginx.get("/gif", ("X-API-Key", key))
                self.assertEqual(status, 200)
                self.assert_is_now(fields, 0)
                status, fields, _ = nginx.get("/gif", ("X-API-Key", key))
                self.assertEqual(status, 429)
                self.assert_is_now(fields, 0)
                self.assertLessEqual(int(fields["Retry-After"]), 3600)
                nginx.create("new.gate")
                os.rename(nginx.path("new.gate"), nginx.path("api.gate"))
                fresh, _ = nginx.issue()
                while {nginx.get("/gif", ("X-API-Key", fresh))[0] for _ in range(40)} != {200}:
                    time.sleep(0.1)

    def spend_ahead_in_zones(self, hours, worker, subject):
        """Charges a subject in copies of the tables in a worker's zones.

        Writes the copies back.
        """
        found = 0
        with open(f"/proc/{worker}/maps") as maps, open(f"/proc/{worker}/mem", "r+b", buffering=0) as memory:
            for line in maps:
                start, end = (int(address, 16) for address in line.split()[0].split("-"))
                if "/dev/zero" not in line:
                    continue
                memory.seek(start)
                content = memory.read(end - start)
                offsets = range(0, len(content), 64)
                offset = next((offset for offset in offsets if content.startswith(b"keytally", offset)), None)
                if offset is None:
                    continue
                table = content[offset:]
                room = ctypes.create_string_buffer(len(table) + 64)
                begin = (ctypes.addressof(room) + 63) // 64 * 64
                ctypes.memmove(begin, table, len(table))
                handle = ctypes.create_string_buffer(384)
                if LIBRARY.kt_limiter_attach(ctypes.c_void_p(begin), ctypes.c_size_t(len(table)), handle) != 0:
                    continue
                self.spend_ahead(hours, LIBRARY.kt_limiter_check, handle, subject, 1)
                LIBRARY.kt_limiter_close(handle)
                memory.seek(start + offset)
                memory.write(ctypes.string_at(begin, len(table)))
                found += 1
        return found

    def test_subject_that_a_time_ahead_locked_is_corrected(self):
        with Nginx() as nginx:
            # The second turn checks zones that were kept over a reload. Each turn begins new
            # windows in every zone.
            for hours in (3, 6):
                # After the response there are workers. The newest is the last.
                nginx.get("/open/file.txt")
                self.assertEqual(self.spend_ahead_in_zones(hours, nginx.workers()[-1], b"all"), 7)
                for request in (1, 2):
                    status, fields, _ = nginx.get("/limited_all")
                    self.assertEqual(status, 200)
                    self.assert_is_now(fields, 100_000 - 1 - request)
                nginx.reload()


class Readme(unittest.TestCase):
    """The examples of README.md."""

    SERVERS = """
    upstream app { server unix:%(folder)s/app; }
    server { listen unix:%(folder)s/app; location / { return 200 "account $http_x_account"; } }
    """

    def examples(self):
        """Returns the configurations in README.md."""
        with open(os.path.join(os.path.dirname(__file__), "../README.md")) as file:
            return re.findall("```nginx\n(.*?)```", file.read(), re.DOTALL)

    def test_first_example_requires_keys_and_limits_addresses(self):
        http = re.search(r"http \{\n(.*)\}\n", self.examples()[0], re.DOTALL)[1]
        for path, local in (("/var/lib/keytally/api.gate", "api.gate"), ("/etc/keytally/pepper", "pepper")):
            self.assertIn(path, http)
            http = http.replace(path, local)
        with Nginx(http=self.SERVERS + http.replace("server {", "server { listen 127.0.0.1:%(port)s;")) as nginx:
            key, _ = nginx.issue()
            self.assertEqual(nginx.get("/api/")[::2], (401, MISSING))
            self.assertEqual(nginx.get("/api/health")[::2], (200, b"account "))
            self.assertEqual(nginx.get("/api/", ("X-API-Key", key))[::2], (200, b"account 42"))
            answers = {nginx.get("/api/", ("X-API-Key", key))[0] for _ in range(100)}
            self.assertEqual(answers, {200, 429})

    def test_project_example_denies_a_key_over_its_limit(self):
        with open(os.path.join(os.path.dirname(__file__), "../../../examples/nginx.conf")) as file:
            http = re.search(r"http \{\n(.*)\}\n", file.read(), re.DOTALL)[1]
        http = http.replace("127.0.0.1:8080", "127.0.0.1:%(port)s")
        with Nginx(http=http, plans=("default=3/hour",)) as nginx:
            avoid_end_of_hour()
            key, _ = nginx.issue()
            self.assertEqual(nginx.get("/api/")[::2], (401, MISSING))
            statuses = [nginx.get("/api/", ("X-API-Key", key))[0] for _ in range(4)]
            self.assertEqual(statuses, [200, 200, 200, 429])

    def test_example_of_groups_charges_them_and_needs_scopes(self):
        http = self.SERVERS + "keytally_gate api file=api.gate pepper_file=pepper; server { listen 127.0.0.1:%(port)s;\n"
        nginx = Nginx(http=http + self.examples()[1] + "}", plans=("default=9/hour; group write: 2/hour; group tokens: 5000/hour",))
        nginx.create_with_scopes(b"read", b"write")
        with nginx:
            avoid_end_of_hour()
            key, reader = nginx.issue_with_scopes(b"read", b"write"), nginx.issue_with_scopes(b"read")
            self.assertEqual(nginx.get("/api/", reader)[0], 200)
            self.assertEqual(nginx.get("/api/write/", reader)[0], 403)
            self.assertEqual([nginx.get("/api/write/", key)[0] for _ in range(3)], [200, 200, 429])
            self.assertEqual([nginx.get("/api/chat/", key)[0] for _ in range(3)], [200, 200, 429])

    def test_further_examples_do_what_they_say(self):
        servers = self.SERVERS.replace("location / {", "location = /api/broken { return 503; } location / {")
        servers += "keytally_gate api file=api.gate pepper_file=pepper;"
        fields, refunds, pages = self.examples()[3:]
        for example in (fields, refunds, pages):
            http = servers + "server { listen 127.0.0.1:%(port)s;\n" + example + "}"
            with self.subTest(example), Nginx(http=http, plans=("default=2/hour",)) as nginx:
                avoid_end_of_hour()
                key, _ = nginx.issue()
                mine = ("Authorization", f"Bearer {key}") if example == fields else ("X-API-Key", key)
                body = {fields: b'{"error": "Missing API key"}', refunds: MISSING, pages: b'{"code": "unauthorized"}'}[example]
                self.assertEqual(nginx.get("/api/")[::2], (401, body))
                for _ in range(3):
                    status = nginx.get_logged("/api/broken", mine)[0]
                # The charges of three failures are more than the limit, unless they are returned.
                self.assertEqual(status, {fields: 429, refunds: 503, pages: 503}[example])
                self.assertEqual(nginx.get("/api/", mine)[0], {fields: 429, refunds: 200, pages: 503}[example])

    def test_auth_request_example_requires_keys(self):
        self.check_auth_request_example(self.examples()[2])

    def test_auth_request_example_works_in_a_server_block(self):
        example, lines = self.examples()[2], ""
        for line in ("    auth_request /keys;\n", "    error_page 401 403 = @refused;\n"):
            self.assertIn(line, example)
            example = example.replace(line, "")
            lines += line
        self.check_auth_request_example(lines + example)

    def book(self, page):
        """Returns the configurations on a page of the book."""
        with open(os.path.join(os.path.dirname(__file__), "../../../docs", page)) as file:
            return re.findall("```nginx\n(.*?)```", file.read(), re.DOTALL)

    def test_gate_of_the_book_requires_keys(self):
        """docs/how-to/nginx.md: its first configuration is that of the project's example."""
        complete, location = self.book("how-to/nginx.md")
        with open(os.path.join(os.path.dirname(__file__), "../../../examples/nginx.conf")) as file:
            self.assertTrue(file.read().endswith(complete))
        self.check_auth_request_example(location)

    def test_gate_with_a_fleet_file_of_the_book_is_opened(self):
        with open(os.path.join(os.path.dirname(__file__), "../../../docs/how-to/share-limits.md")) as file:
            gate = re.search(r"^\| nginx \| `(.*)` \|$", file.read(), re.MULTILINE)[1]
        self.assertIn("fleet=/dev/shm/api.gate.fleet;", gate)
        nginx = Nginx(http="\n" + gate.replace("/dev/shm/", "") + "\n")
        FleetFile(nginx, "api.gate.fleet")
        done = subprocess.run(nginx.command("-t"), capture_output=True, text=True)
        shutil.rmtree(nginx.folder)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_limits_of_the_book_deny_a_burst(self):
        """docs/how-to/addresses.md, and docs/migrate/limit-req.md before and after."""
        for page in ("how-to/addresses.md", "migrate/limit-req.md"):
            for http in self.book(page):
                http = self.SERVERS + http.replace("server {", "server { listen 127.0.0.1:%(port)s;")
                with self.subTest(http), Nginx(http=http) as nginx:
                    self.assertEqual({nginx.get("/api/")[0] for _ in range(100)}, {200, 429})

    def check_auth_request_example(self, example):
        """Checks the responses of a server with these lines to missing, invalid and denied keys."""
        gate = "keytally_gate api file=api.gate pepper_file=pepper;"
        server = "server { listen 127.0.0.1:%(port)s;\n" + example + "}"
        with Nginx(http=self.SERVERS + gate + server, plans=("default=2/hour",)) as nginx:
            avoid_end_of_hour()
            key, _ = nginx.issue()
            self.assertEqual(nginx.get("/api/")[::2], (401, MISSING))
            self.assertEqual(nginx.get("/api/", ("X-API-Key", "nonsense"))[::2], (401, INVALID))
            for _ in range(2):
                self.assertEqual(nginx.get("/api/", ("X-API-Key", key))[::2], (200, b"account 42"))
            self.assertEqual(nginx.get("/api/", ("X-API-Key", key))[::2], (429, EXCEEDED))


class FleetFile:
    """The fleet file of a gate with 1000 plain keys, which a test fills like an agent."""

    HEARTBEAT, STATE, BITS, TALLIES, LEN = 16 * 8, 9 * 8, 4160, 4288, 69_632
    LEADING, CUT = 2, 3
    CLOSED, OPEN = 1, 3

    def __init__(self, nginx, name="api.fleet"):
        """Creates the file. It gets its identity when it is opened for the first time."""
        path = nginx.path(name)
        with open(path, "wb") as file:
            file.truncate(self.LEN)
        os.chmod(path, 0o600)
        with open(path, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), self.LEN)

    def get(self, at):
        return struct.unpack_from("<Q", self.map, at)[0]

    def put(self, at, word):
        struct.pack_into("<Q", self.map, at, word)

    def say(self, phase, on_loss):
        """Writes what an agent says of the store, with a heartbeat that stays fresh."""
        self.put(self.HEARTBEAT, int(time.time() * 1000) + 3_600_000)
        self.put(self.STATE, 1 << 32 | on_loss << 8 | phase)

    def grant_once_wanted(self, credits, key_id):
        """Waits until a request wants credits, and grants these to its tally."""
        for word in range(16):
            bits = self.get(self.BITS + 8 * word)
            if bits != 0:
                self.put(self.BITS + 8 * word, 0)
                line = self.TALLIES + 64 * (64 * word + bits.bit_length() - 1)
                self.put(line + 32, key_id)
                self.put(line + 8, credits)
                self.put(line, credits)
                return line
        return None


class Fleet(unittest.TestCase):
    """Gates whose limits machines share."""

    HTTP = """
        keytally_gate api file=api.gate pepper_file=pepper fleet=api.fleet;
        keytally_limit_zone zone=all:1m key=all policy=1000/week;
        server {
            listen 127.0.0.1:%(port)s;
            root .;
            location = /key { keytally api; empty_gif; }
            location = /both { keytally_limit all; keytally api; empty_gif; }
            location = /zone { keytally_limit all; empty_gif; }
            location = /free { empty_gif; }
            location /subrequest/ { auth_request /keys; alias ./; }
            location = /keys { internal; keytally api; try_files /nothing /file.txt; }
            location /any/ { satisfy any; deny all; keytally api; alias ./; }
        }"""

    @contextlib.contextmanager
    def machine(self, workers=4, phase=FleetFile.LEADING, on_loss=FleetFile.CLOSED):
        """Starts an nginx with a gate in a fleet. Yields it, the fleet file, a key and its id."""
        nginx = Nginx(http=self.HTTP, plans=("default=100/week",))
        nginx.write("nginx.conf", nginx.config.replace("worker_processes 4", f"worker_processes {workers}"))
        key, key_id = nginx.issue()
        file = FleetFile(nginx)
        file.say(phase, on_loss)
        nginx.call(LIBRARY.kt_gate_set_fleet, ctypes.c_uint8(1))
        with nginx:
            yield nginx, file, key, key_id

    @staticmethod
    def credits(nginx, key, units):
        """Returns a credit word with as many units: the word of the gate that a charge changes."""
        def words():
            with open(nginx.path("api.gate"), "rb") as gate:
                content = gate.read()
            return struct.unpack(f"<{len(content) // 8}Q", content)
        nginx.call(LIBRARY.kt_gate_set_fleet, ctypes.c_uint8(0))
        before = words()
        verdict = (ctypes.c_uint8 * 256)()
        now = ctypes.c_uint64(2**64 - 1)
        nginx.call(LIBRARY.kt_gate_check, key.encode(), ctypes.c_size_t(len(key)), ctypes.c_uint32(units), now, verdict)
        # One word has the tally, and another one the request of an administrator.
        changed = [new for new, old in zip(words(), before) if new != old]
        nginx.call(LIBRARY.kt_gate_set_fleet, ctypes.c_uint8(1))
        assert len(changed) == 1, changed
        return changed[0]

    def test_request_waits_for_credits_and_blocks_no_worker(self):
        with self.machine(workers=1) as (nginx, file, key, key_id):
            number = ctypes.c_uint64()
            assert LIBRARY.kt_key_id_parse(key_id.encode(), ctypes.c_size_t(len(key_id)), ctypes.byref(number)) == 0
            credits = self.credits(nginx, key, 1)
            first = 0
            for _ in range(20):
                before = nginx.read("access.log").count("\n")
                with socket.create_connection(("127.0.0.1", nginx.port)) as waiting:
                    waiting.sendall(b"GET /key HTTP/1.0\r\nX-API-Key: " + key.encode() + b"\r\n\r\n")
                    self.assertEqual(nginx.get("/free")[0], 200)
                    self.assertIn(b" 503 ", waiting.recv(4096).split(b"\r\n")[0])
                nginx.wait_for_lines(before + 2)
                first += " /free " in nginx.read("access.log").splitlines()[before]
            self.assertGreaterEqual(first, 10, "another request was served during the wait")

            paths = ("/key", "/both", "/subrequest/file.txt", "/any/file.txt")
            for path in paths:
                statuses = []
                for _ in range(100):
                    stop = threading.Event()
                    lines = []

                    def grant():
                        while not stop.is_set() and not lines:
                            line = file.grant_once_wanted(credits, number.value)
                            lines.extend([] if line is None else [line])
                    agent = threading.Thread(target=grant)
                    agent.start()
                    statuses.append(nginx.get(path, ("X-API-Key", key))[0])
                    stop.set()
                    agent.join()
                    for line in lines:
                        file.put(line, 0)
                    if statuses[-1] == 200:
                        break
                # A busy machine may not grant within 20 ms.
                self.assertEqual(statuses[-1], 200, (path, statuses))

    def test_request_without_credits_gets_what_the_operator_chose(self):
        for phase in (FleetFile.LEADING, FleetFile.CUT):
            with self.machine(phase=phase) as (nginx, file, key, _):
                for path in ("/key", "/both"):
                    status, fields, body = nginx.get(path, ("X-API-Key", key))
                    self.assertEqual((status, fields["Retry-After"]), (503, "1"))
                    self.assertEqual(body, b'{"error": "Service unavailable. Please try again later."}')
                self.assertIn('keytally "api": unavailable, lost', nginx.read("error.log"))
                # The limit was not charged, since all are charged or none.
                self.assertEqual(nginx.get("/zone")[1]["X-RateLimit-Remaining"], "999")
                self.assertEqual(nginx.get("/key", ("X-API-Key", "nonsense"))[::2], (401, INVALID))
                self.assertEqual(nginx.get("/key")[::2], (401, MISSING))
                file.say(phase, FleetFile.OPEN)
                self.assertEqual(nginx.remaining("/key", key), 99)
                self.assertEqual(nginx.remaining("/both", key), 98)

    def test_gate_that_did_not_join_is_unavailable(self):
        with Nginx(http=self.HTTP.replace("fleet=api.fleet", "")) as nginx:
            key, _ = nginx.issue()
            nginx.call(LIBRARY.kt_gate_set_fleet, ctypes.c_uint8(1))
            self.assertEqual(nginx.get("/key", ("X-API-Key", key))[0], 503)
            self.assertIn('keytally "api": unavailable, not_reserving', nginx.read("error.log"))

    def test_replaced_fleet_file_is_opened(self):
        with self.machine(phase=FleetFile.CUT, on_loss=FleetFile.CLOSED) as (nginx, _, key, _):
            self.assertEqual(nginx.get("/key", ("X-API-Key", key))[0], 503)
            FleetFile(nginx, "new.fleet").say(FleetFile.CUT, FleetFile.OPEN)
            os.rename(nginx.path("new.fleet"), nginx.path("api.fleet"))
            for _ in range(500):
                if nginx.read("error.log").count("or its fleet file was replaced; the new file is in use") == 4:
                    break
                time.sleep(0.02)
            self.assertEqual({nginx.get("/key", ("X-API-Key", key))[0] for _ in range(20)}, {200})


class Machines(unittest.TestCase):
    """Two machines, each with an nginx and an agent, which share limits through a Redis."""

    # Units that the other machine does not need return within a quarter of a second.
    REFUSALS, PAUSE_S = 100, 0.01

    def setUp(self):
        self.first = Nginx(http=Fleet.HTTP, plans=("default=100/31d",))
        self.keys = [self.first.issue()[0] for _ in range(2)]
        self.first.call(LIBRARY.kt_gate_set_fleet, ctypes.c_uint8(1))
        self.start_store()
        self.addCleanup(lambda: self.stop_store())
        second = Nginx(http=Fleet.HTTP)
        shutil.copy(self.first.path("api.gate"), second.path("api.gate"))
        self.machines = (self.first, second)
        for nginx in self.machines:
            nginx.write("nginx.conf", nginx.config.replace("worker_processes 4", "worker_processes 2"))
            self.start_agent(nginx)
            # It opens the fleet file, which the agent creates.
            nginx.__enter__()
            self.addCleanup(nginx.__exit__)

    def start_store(self):
        self.store = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", self.first.path("store"), "--save", "", "--dir", self.first.folder],
            stdout=subprocess.DEVNULL,
        )

    def stop_store(self):
        self.store.kill()
        self.store.wait()

    def start_agent(self, nginx):
        fleet = ["--fleet", "test", "--store", f"unix://{self.first.path('store')}", "--on-loss", "closed"]
        files = ["--file", nginx.path("api.fleet"), "--pepper-file", nginx.path("pepper")]
        agent = subprocess.Popen([AGENT, "agent", nginx.path("api.gate"), *fleet, *files], stderr=subprocess.DEVNULL)
        self.addCleanup(agent.wait)
        self.addCleanup(agent.terminate)
        self.wait_until(nginx, leads=True)

    def wait_until(self, nginx, leads):
        """Waits until the agent of a machine leads and has the store, or until it has not."""
        files = ["--file", nginx.path("api.fleet"), "--pepper-file", nginx.path("pepper")]
        for _ in range(1000):
            done = subprocess.run([AGENT, "fleet", "status", nginx.path("api.gate"), *files], capture_output=True)
            if (done.returncode == 0) == leads:
                return
            time.sleep(0.02)
        raise AssertionError(done)

    def spend(self, key):
        """Sends requests to both machines in turn, until many in a row are refused.

        Returns how many were admitted by each, and the last response.
        """
        admitted, refused = [0, 0], 0
        while refused < self.REFUSALS:
            for number, nginx in enumerate(self.machines):
                response = nginx.get("/key", ("X-API-Key", key))
                if response[0] == 200:
                    admitted[number], refused = admitted[number] + 1, 0
                else:
                    refused += 1
                    time.sleep(self.PAUSE_S)
        return admitted, response

    def test_machines_share_a_limit_through_a_loss_of_the_store(self):
        first, other = self.keys
        self.assertEqual([len(nginx.workers()) for nginx in self.machines], [2, 2])
        admitted, (status, fields, _) = self.spend(first)
        self.assertEqual((sum(admitted), status, fields["X-RateLimit-Remaining"]), (100, 429, "0"))
        self.assertGreater(min(admitted), 10, "each machine admits requests")

        self.stop_store()
        for nginx in self.machines:
            self.wait_until(nginx, leads=False)
            status, fields, _ = nginx.get("/key", ("X-API-Key", other))
            self.assertEqual((status, fields["Retry-After"]), (503, "1"))
        self.start_store()
        for nginx in self.machines:
            self.wait_until(nginx, leads=True)
        admitted, (status, _, _) = self.spend(other)
        self.assertEqual((sum(admitted), status), (100, 429))


class Configuration(unittest.TestCase):
    def test_ipv6_prefix_sets_the_network_of_a_client(self):
        for prefix, network in ((56, "2001:db8:1:200::/56"), (128, "2001:db8:1:2ff::1/128"), (61, "2001:db8:1:2f8::/61"), (1, "::/1")):
            with self.subTest(prefix), Nginx(http=f"keytally_ipv6_prefix {prefix};" + HTTP) as nginx:
                client = ("X-Forwarded-For", "2001:db8:1:2ff::1")
                self.assertEqual(nginx.get("/who", client, source="127.0.0.9")[1]["X-Seen"], network)

    def test_short_ipv6_prefix_with_a_policy_of_prefixes_is_an_error(self):
        for prefix, key, code in ((56, "", 1), (56, "key=$remote_addr", 0), (65, "", 0)):
            zone = f"keytally_limit_zone zone=z:1m {key} 'policy=addresses: 1/s';"
            with self.subTest(prefix=prefix, key=key):
                nginx = Nginx(http=f"{zone} keytally_ipv6_prefix {prefix};")
                done = subprocess.run(nginx.command("-t"), capture_output=True, text=True)
                shutil.rmtree(nginx.folder)
                self.assertEqual(done.returncode, code, done.stderr)
                self.assertEqual("keytally_ipv6_prefix\" is below 64" in done.stderr, code == 1, done.stderr)

    def test_mistake_is_an_error_that_names_file_and_line(self):
        gate = "keytally_gate api file=api.gate pepper_file=pepper;"
        zone = "keytally_limit_zone zone=z:1m key=$uri policy=1/s;"
        mistakes = {
            "keytally_gate api file=nowhere pepper_file=pepper;": '/nowhere", the gate of "file=": there is no such file or folder',
            "keytally_gate api file=pepper pepper_file=pepper;": '/pepper", the gate of "file=": ',
            "keytally_gate api file=api.gate pepper_file=nowhere;": '/nowhere", the peppers of "pepper_file=": there is no such file or folder',
            "keytally_gate api file=api.gate pepper_file=file.txt;": '/file.txt", the peppers of "pepper_file=": ',
            "keytally_gate api file=nowhere pepper_file=nowhere;": '/nowhere", the gate of "file=": there is no such file or folder',
            "keytally_gate api file=api.gate;": "invalid number of arguments",
            "keytally_gate api file=api.gate peppers=pepper;": 'parameter 3 of "keytally_gate" is none of "file=", "pepper_file=" and "fleet="',
            "keytally_gate api file=api.gate pepper_file=pepper fleet=nowhere;": '/nowhere", the fleet file of "fleet=": there is no such file or folder',
            "keytally_gate api file=api.gate pepper_file=pepper fleet=/run/of.example/api.gate.fleet;": 'cannot open "/run/of.example/api.gate.fleet", the fleet file of "fleet=": ',
            "keytally_gate api file=api.gate pepper_file=pepper fleet=api.gate;": "this is not the fleet file of the gate",
            "keytally_gate api file=api.gate pepper_file=pepper fleet=;": "has an empty path",
            "keytally_gate api file= pepper_file=pepper;": "has an empty path",
            "keytally_gate off file=api.gate pepper_file=pepper;": "cannot be named",
            "keytally_ipv6_prefix 0;": "takes a number from 1 to 128",
            "keytally_ipv6_prefix 129;": "takes a number from 1 to 128",
            "keytally_ipv6_prefix x;": "takes a number from 1 to 128",
            "keytally_ipv6_prefix 64; keytally_ipv6_prefix 64;": "is duplicate",
            "server { location / { keytally_refusal; keytally_refusal; } }": "is duplicate",
            "".join(f"keytally_gate g{number} file=api.gate pepper_file=pepper; " for number in range(65)): "is one of more than 64",
            "keytally_headers none;": 'takes "on" or "off"',
            f"{gate} {gate}": "declares a name that is taken",
            "keytally api;": 'no "keytally_gate" above declares the name',
            f"{gate} keytally api; keytally api;": "is duplicate",
            f"{gate} keytally api cost=x;": "a cost is neither a number",
            f"{gate} keytally api group=write;": "the plans of the gate have no group",
            f"{gate} keytally api group=team;": "the plans of the gate have no group",
            f"{gate} keytally api group=key;": "the plans of the gate have no group",
            f"{gate} keytally api group=write:x;": "a cost is neither a number",
            f"{gate} keytally api {'group=a ' * 9};": "has more than 8 groups",
            f"{gate} keytally api need=write;": "the gate has no scope",
            f"{zone} keytally_limit z group=write;": 'parameter 2 of "keytally_limit" is neither "cost=" nor "shadow"',
            " ".join(f"keytally_limit_zone zone=z{number}:1m policy=1/s; keytally_limit z{number};" for number in range(9)): "is one of more than 8",
            f"{gate} keytally api cost=4294967296;": "is neither a number",
            f"{gate} keytally api shade;": 'parameter 2 of "keytally" is none of "cost=", "group=", "need=" and "shadow"',
            "keytally_refund 600;": 'parameter 1 of "keytally_refund" is neither a status from 100 to 599',
            "keytally_refund 5xx 99;": 'parameter 2 of "keytally_refund"',
            "keytally_refund 6xx;": "nor a class of them, such as 5xx",
            "keytally_refund 5xx off;": 'parameter 2 of "keytally_refund"',
            "keytally_refund 4xx 499;": "cannot have 499",
            "keytally_refund 5xx; keytally_refund 404;": "is duplicate",
            "keytally_refund;": "invalid number of arguments",
            "keytally_key_from;": "invalid number of arguments",
            "keytally_key_from Authorization;": 'parameter 1 of "keytally_key_from" is neither a header',
            "keytally_key_from X-Token Cookie;": 'parameter 2 of "keytally_key_from"',
            "keytally_key_from Authorization: Bearer;": '"Authorization: Bearer" in quotes',
            'keytally_key_from "";': 'parameter 1 of "keytally_key_from"',
            "keytally_key_from X-Token x-token;": 'parameter 2 of "keytally_key_from" repeats another',
            "keytally_key_from X-Token; keytally_key_from X-Token;": "is duplicate",
            "keytally_error_page 429;": 'takes "on" or "off"',
            "keytally_error_page on; keytally_error_page on;": "is duplicate",
            "keytally_limit z;": 'no "keytally_limit_zone" above declares the name',
            f"{zone} keytally_limit z; keytally_limit z;": "is duplicate",
            f"{zone} keytally_limit z; keytally_limit off;": "is both off and on",
            "keytally_failures z;": 'above declares the name in "keytally_failures"',
            f"{zone} keytally_failures z; keytally_failures z;": "is duplicate",
            f"{zone} {zone}": "declares a name that is taken",
            "keytally_limit_zone zone=z key=$uri policy=1/s;": 'is not "zone=NAME:SIZE"',
            "keytally_limit_zone zone=z:1k key=$uri policy=1/s;": "size of at least",
            "keytally_limit_zone zone=z:1m key=$uri policy=5/fortnight;": "fortnight",
            'keytally_limit_zone zone=z:1m key=$uri policy="1/s, 5/m;': "without its closing quote",
            'keytally_limit_zone zone=z:1m key=$uri policy="1/s, 1/s";': "1/s",
            "keytally_limit_zone zone=z:1m policy=1/s on_full=evict;": '"on_full=evict" is neither "on_full=share" nor "on_full=refuse"',
            "keytally_limit_zone zone=z:1m policy=1/s on_full=0123456789abcdef;": '"on_full=..." is neither "on_full=share" nor "on_full=refuse"',
            'keytally_limit_zone zone=z:1m "policy=addresses: /64 1/s;";': '"policy=": nothing is before or after a semicolon; leave the semicolon out',
            'keytally_limit_zone zone=z:1m "policy=addresses: /64 sliding 20/s";': '"policy=": "sliding 20/s" is not a quota; ',
            'keytally_limit_zone zone=z:1m policy="addresses: /64 1/s; /48 9/s";': 'begin with the quote: "policy=..."',
            "keytally_limit_zone zone=z:1m 'policy=addresses: /65 1/s';": '"/65 1/s"',
            " ".join(
                f"keytally_limit_zone zone=z{number}:1m 'policy=addresses: 1/s'; keytally_limit z{number};" for number in range(3)
            ): "more than 8 prefixes together",
            "keytally_limit_zone zone=z:1m key=$uri rate=1/s;": 'parameter 3 of "keytally_limit_zone" is none of "zone="',
            "keytally_limit_zone zone=z:1m key= policy=1/s;": 'has an empty "key="',
            "keytally_limit_zone zone=z:1m key=$uri;": 'needs "zone=" and "policy="',
        }
        for line, message in mistakes.items():
            with self.subTest(line):
                nginx = Nginx(http="\n" + line + "\n")
                number = next(number for number, text in enumerate(nginx.config.splitlines(), 1) if text == line)
                done = subprocess.run(nginx.command("-t"), capture_output=True, text=True)
                shutil.rmtree(nginx.folder)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn(message, done.stderr)
                self.assertRegex(done.stderr, rf"\[emerg\].*nginx\.conf:{number}\n")

    def test_secret_as_any_parameter_is_not_shown(self):
        gate = "keytally_gate api file=api.gate pepper_file=pepper;"
        zone = "keytally_limit_zone zone=z:1m key=$uri policy=1/s;"
        lines = [
            "keytally_gate {} file=api.gate pepper_file=pepper;",
            "keytally_gate api file={} pepper_file=pepper;",
            "keytally_gate api file=api.gate pepper_file={};",
            "keytally_gate api file=api.gate pepper_file=pepper fleet={};",
            "keytally_gate api {} pepper_file=pepper;",
            "keytally {};",
            "keytally_headers {};",
            "keytally_ipv6_prefix {};",
            "server {{ location / {{ keytally_refusal {}; }} }}",
            gate + " keytally api {};",
            gate + " keytally api cost={};",
            "keytally_limit {};",
            "keytally_refund {};",
            "keytally_key_from {};",
            "keytally_key_from \"{}:\";",
            "keytally_error_page {};",
            "keytally_failures {};",
            zone + " keytally_limit z {};",
            zone + " keytally_limit z cost={};",
            "keytally_limit_zone zone={}:1m key=$uri policy=1/s;",
            "keytally_limit_zone zone={} key=$uri policy=1/s;",
            "keytally_limit_zone zone=z:{} key=$uri policy=1/s;",
            "keytally_limit_zone zone=z:1m {} policy=1/s;",
            "keytally_limit_zone zone=z:1m key=$uri policy={};",
            "keytally_limit_zone zone=z:1m key=$uri policy=100/{};",
            "keytally_limit_zone zone=z:1m key=$uri policy=1/s {};",
        ]
        for line in lines:
            for secret in ("kt_live_0Gq5Xk2LmPz7Hc1nT9vYbR4sWdEfUaJoQi83ZKM", "5a" * 32):
                with self.subTest(line):
                    nginx = Nginx(http="\n" + line.format(secret) + "\n")
                    done = subprocess.run(nginx.command("-t"), capture_output=True, text=True)
                    shutil.rmtree(nginx.folder)
                    self.assertEqual(done.returncode, 1, done.stderr)
                    self.assertNotIn(secret[8:20], done.stderr + done.stdout)


if __name__ == "__main__":
    unittest.main()
