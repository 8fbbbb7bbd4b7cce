"""Client addresses: each row of docs/ADDRESSES.md in each integration."""

import re
from pathlib import Path

import contract
import django_app
import pytest
from django.test import Client, RequestFactory, override_settings
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from flask import Flask, Request
from rest_framework.decorators import api_view, authentication_classes, throttle_classes
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory
from starlette.requests import HTTPConnection
from werkzeug.middleware.proxy_fix import ProxyFix

from keytally import Gate, Limiter, _addresses, asgi, django, fastapi, flask, wsgi
from keytally.rest_framework import LimiterThrottle

# Addresses as servers report them, and the subjects by which limiters count them.
RULES = [
    ("203.0.113.9", "203.0.113.9"),
    ("203.0.113.9:40001", "203.0.113.9"),
    ("203.0.113.9:0", "203.0.113.9"),
    ("[2001:db8::1]:443", "2001:db8::/64"),
    ("[2001:db8::1]", "2001:db8::/64"),
    ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
    ("fe80::1%eth0", "fe80::/64"),
    ("[fe80::1%eth0]:80", "fe80::/64"),
    ("::ffff:203.0.113.9", "203.0.113.9"),
    ("[::ffff:203.0.113.9]:40001", "203.0.113.9"),
    ("::ffff:0:203.0.113.9", "203.0.113.9"),
    ("64:ff9b::203.0.113.9", "203.0.113.9"),
    ("64:ff9b::cb00:7109", "203.0.113.9"),
    ("64:ff9b:1::203.0.113.9", "64:ff9b:1::/64"),
    ("::203.0.113.9", "203.0.113.9"),
    ("::2", "0.0.0.2"),
    ("::", "::/64"),
    ("::1", "::/64"),
    ("::fffe:203.0.113.9", "::/64"),
    ("2002:cb00:7109::1", "203.0.113.9"),
    ("2002:cb00:7109:ffff::1", "203.0.113.9"),
    ("2001:0:cb00:7109::1", "2001:0:cb00:7109::/64"),
    ("un:known", "un:known"),
    ("unix:", "unix:"),
    ("203.0.113.9:port", "203.0.113.9:port"),
]

READERS = {
    "asgi": lambda address, **more: asgi.client_address({"client": (address, 1)}, **more),
    "wsgi": lambda address, **more: wsgi.client_address({"REMOTE_ADDR": address}, **more),
    "flask": lambda address, **more: flask.client_address(
        Request({"REMOTE_ADDR": address}), **more
    ),
    "fastapi": lambda address, **more: fastapi.client_address(
        HTTPConnection({"type": "http", "client": (address, 1)}), **more
    ),
    "django": lambda address, **more: django.client_address(
        RequestFactory().get("/", REMOTE_ADDR=address), **more
    ),
}


@pytest.mark.parametrize(("address", "counted"), RULES)
@pytest.mark.parametrize("reader", READERS)
def test_address_counts_by_the_rules(reader, address, counted):
    assert READERS[reader](address) == counted


def test_page_has_the_results_of_the_rules():
    page = Path(__file__).parents[3].joinpath("docs/ADDRESSES.md").read_text()
    stated = re.findall(r"`([0-9a-f:.%\[\]]+(?:eth0)?(?:\]:443)?)` is `([0-9a-f:./]+)`", page)
    assert len(stated) >= 8
    for address, counted in stated:
        assert _addresses.subject(address) == _addresses.subject(counted.partition("/")[0]), address


@pytest.mark.parametrize("reader", READERS)
def test_ipv6_prefix_selects_the_network(reader):
    read = READERS[reader]
    assert read("2001:db8:1:2ff::1", ipv6_prefix=56) == "2001:db8:1:200::/56"
    assert read("2001:db8::1", ipv6_prefix=128) == "2001:db8::1/128"
    assert read("64:ff9b::203.0.113.9", ipv6_prefix=56) == "203.0.113.9"


def hello(environ, start_response):
    start_response("200 OK", [])
    return []


# Each function creates an integration that has the option.
TAKING = {
    "asgi gate": lambda gate, limiter, **more: asgi.GateMiddleware(None, gate, **more),
    "asgi limiter": lambda gate, limiter, **more: asgi.LimiterMiddleware(None, limiter, **more),
    "wsgi gate": lambda gate, limiter, **more: wsgi.GateMiddleware(None, gate, **more),
    "wsgi limiter": lambda gate, limiter, **more: wsgi.LimiterMiddleware(None, limiter, **more),
    "flask gate": lambda gate, limiter, **more: flask.GateExtension(gate, **more),
    "flask key": lambda gate, limiter, **more: flask.require_key(gate, **more),
    "flask limiter": lambda gate, limiter, **more: flask.LimiterExtension(limiter, **more),
    "flask limit": lambda gate, limiter, **more: flask.limit(limiter, **more),
    "fastapi key": lambda gate, limiter, **more: fastapi.require_key(gate, **more),
    "fastapi limit": lambda gate, limiter, **more: fastapi.limit(limiter, **more),
}


@pytest.mark.parametrize("make", TAKING.values(), ids=TAKING)
@pytest.mark.parametrize(
    ("prefix", "error"), [(0, ValueError), (129, ValueError), ("64", TypeError)]
)
def test_invalid_ipv6_prefix_is_rejected_at_construction(gate, limiter, make, prefix, error):
    with pytest.raises(error, match="ipv6_prefix .*1 to 128"):
        make(gate, limiter, ipv6_prefix=prefix)


def test_django_check_reports_invalid_ipv6_prefix(tmp_path, pepper):
    gate = Gate.create(tmp_path / "api.gate", pepper=pepper, keys=8)
    tables = {
        "GATE": {"PATH": gate.path, "PEPPER": pepper},
        "LIMITER": {"POLICY": "2/31d", "WORKERS": 1},
    }
    for table in tables.values():
        table["IPV6_PREFIX"] = 129
    with override_settings(KEYTALLY=tables):
        messages = [error.msg for error in django.check_settings()]
    assert messages == [
        f'KEYTALLY["{name}"]: ipv6_prefix is 129, and must be 1 to 128' for name in tables
    ]


def counting(limiter, ipv6_prefix):
    """Return functions that send a request from an address, and return its status."""
    options = {"ipv6_prefix": ipv6_prefix}

    async def of_asgi(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    asgi_app = asgi.LimiterMiddleware(of_asgi, limiter, **options)
    wsgi_app = wsgi.LimiterMiddleware(hello, limiter, **options)
    flask_app = Flask("tests")
    flask_app.add_url_rule("/", view_func=flask.limit(limiter, **options)(lambda: "hello"))
    fastapi_app = FastAPI()
    fastapi_app.get("/", dependencies=[Depends(fastapi.limit(limiter, **options))])(lambda: "hello")

    def fetch_wsgi(address):
        started = []
        wsgi_app(
            {"REMOTE_ADDR": address, "REQUEST_METHOD": "GET"},
            lambda status, _: started.append(status),
        )
        return int(started[0][:3])

    def fetch_flask(address):
        return (
            flask_app.test_client().get("/", environ_overrides={"REMOTE_ADDR": address}).status_code
        )

    return {
        "asgi": lambda address: TestClient(asgi_app, client=(address, 1)).get("/").status_code,
        "wsgi": fetch_wsgi,
        "flask": fetch_flask,
        "fastapi": lambda address: (
            TestClient(fastapi_app, client=(address, 1)).get("/").status_code
        ),
    }


# Forms of one client's address.
FORMS = [
    "203.0.113.9",
    "203.0.113.9:1",
    "::ffff:203.0.113.9",
    "64:ff9b::203.0.113.9",
    "2002:cb00:7109::1",
]


@pytest.mark.parametrize("name", ["asgi", "wsgi", "flask", "fastapi"])
def test_address_forms_of_a_client_share_one_count(name):
    fetch = counting(Limiter.in_memory("4/31d", capacity=100), 64)[name]
    assert [fetch(address) for address in FORMS] == [200] * 4 + [429]


@pytest.mark.parametrize("name", ["asgi", "wsgi", "flask", "fastapi"])
def test_limiter_counts_networks_of_its_prefix(name):
    fetch = counting(Limiter.in_memory("1/31d", capacity=100), 56)[name]
    assert [fetch("2001:db8:1:200::1"), fetch("2001:db8:1:2ff::1"), fetch("2001:db8:1:300::1")] == [
        200,
        429,
        200,
    ]


def test_django_address_forms_of_a_client_share_one_count():
    table = {"POLICY": "4/31d", "CAPACITY": 100, "WORKERS": 1, "IPV6_PREFIX": 56}
    middleware = ["keytally.django.LimiterMiddleware"]
    with override_settings(KEYTALLY={"LIMITER": table}, MIDDLEWARE=middleware):
        fetch = lambda address: Client(REMOTE_ADDR=address).get("/own").status_code  # noqa: E731
        assert [fetch(address) for address in FORMS] == [200] * 4 + [429]
        networks = ["2001:db8:1:200::1"] * 2 + ["2001:db8:1:2ff::1"] * 3
        assert [fetch(address) for address in networks] == [200] * 4 + [429]
    assert django_app.settings.configured


# Two clients of one /56, a third one that it has no room for, and one of another /56.
LATTICE = "addresses: /64 2/31d; /56 3/31d"
CLIENTS = {
    "2001:db8:1:200::1": 200,
    "2001:db8:1:200::2": 200,
    "2001:db8:1:200::3": 429,
    "2001:db8:1:2ff::1": 200,
    "2001:db8:1:2fe::1": 429,
    "2001:db8:1:300::1": 200,
    "203.0.113.9:1": 200,
    "::ffff:203.0.113.9": 200,
    "203.0.113.10": 200,
    "203.0.113.11": 429,
}


@pytest.mark.parametrize("name", ["asgi", "wsgi", "flask", "fastapi"])
def test_limiter_of_addresses_counts_the_networks_of_its_policy(name):
    fetch = counting(Limiter.in_memory(LATTICE, capacity=100), 64)[name]
    assert {address: fetch(address) for address in CLIENTS} == CLIENTS


def test_django_limiter_of_addresses_counts_the_networks_of_its_policy():
    table = {"POLICY": LATTICE, "CAPACITY": 100, "WORKERS": 1}
    middleware = ["keytally.django.LimiterMiddleware"]
    with override_settings(KEYTALLY={"LIMITER": table}, MIDDLEWARE=middleware):
        found = {
            address: Client(REMOTE_ADDR=address).get("/own").status_code for address in CLIENTS
        }
    assert found == CLIENTS


def test_rest_framework_throttle_of_addresses_counts_networks():
    limiter = Limiter.in_memory(LATTICE, capacity=100)
    made = type("Throttle", (LimiterThrottle,), {"limiter": lambda self: limiter})

    @api_view(["GET"])
    @authentication_classes([])
    @throttle_classes([made])
    def view(request):
        return Response("hello")

    factory = APIRequestFactory()
    with override_settings(KEYTALLY={}):
        found = {
            address: view(factory.get("/", REMOTE_ADDR=address)).status_code for address in CLIENTS
        }
    assert found == CLIENTS


@pytest.mark.parametrize("name", [name for name in TAKING if "limit" in name])
def test_ipv6_prefix_with_a_policy_of_prefixes_is_rejected(gate, name):
    with pytest.raises(ValueError, match="ipv6_prefix is 56, .* leave ipv6_prefix out"):
        TAKING[name](gate, Limiter.in_memory(LATTICE), ipv6_prefix=56)


@pytest.mark.parametrize("option", ["failures", "without_key"])
def test_ipv6_prefix_of_a_gate_with_a_policy_of_prefixes_is_rejected(gate, option):
    with pytest.raises(ValueError, match="ipv6_prefix is 56, .* leave ipv6_prefix out"):
        wsgi.GateMiddleware(hello, gate, ipv6_prefix=56, **{option: Limiter.in_memory(LATTICE)})


def test_django_check_reports_ipv6_prefix_with_prefixes():
    table = {"POLICY": LATTICE, "WORKERS": 1, "IPV6_PREFIX": 56}
    with override_settings(KEYTALLY={"LIMITER": table}):
        [message] = django.check_settings()
    assert "leave ipv6_prefix out" in message.msg


def test_key_of_a_limiter_of_addresses_returns_an_address():
    limiter = Limiter.in_memory(LATTICE)
    app = wsgi.LimiterMiddleware(hello, limiter, key=lambda environ: environ["REMOTE_ADDR"])
    headers = []
    app(
        {"REMOTE_ADDR": "2001:db8::1", "REQUEST_METHOD": "GET"},
        lambda _, fields: headers.extend(fields),
    )
    policy = dict(headers)["RateLimit-Policy"]
    assert policy == '"2678400s";q=2;w=2678400, "prefix-56-2678400s";q=3;w=2678400'
    user = wsgi.LimiterMiddleware(hello, limiter, key=lambda _: "ann")
    with pytest.raises(ValueError, match="not an address"):
        user({"REQUEST_METHOD": "GET"}, None)


def test_charge_of_addresses_is_refunded_in_all_networks():
    limiter = Limiter.in_memory(LATTICE, capacity=100)
    app = wsgi.LimiterMiddleware(hello, limiter, refund="2xx")
    for _ in range(5):
        list(app({"REMOTE_ADDR": "2001:db8::1", "REQUEST_METHOD": "GET"}, lambda *_: None))
    assert [tally.verdict.remaining for tally in limiter.peek("2001:db8::1").tallies] == [2, 3]


@pytest.mark.parametrize("peer", ["2001:db8:1:2{:02x}::1", "203.0.113.{}"])
def test_wrong_keys_count_by_the_prefixes_of_a_policy(gate, peer):
    app = wsgi.GateMiddleware(hello, gate, failures=LATTICE)
    statuses = []
    for number in range(5):
        environ = {
            "REMOTE_ADDR": peer.format(number),
            "REQUEST_METHOD": "GET",
            "HTTP_X_API_KEY": "kt_live_wrong",
        }
        app(environ, lambda status, _: statuses.append(status[:3]))
    assert statuses == ["401"] * 3 + ["429"] * 2


def test_port_behind_proxyfix_evades_no_limit(limiter):
    """The proxies of some clouds forward addresses with ports."""
    app = Flask("tests")
    flask.LimiterExtension(limiter, app)
    app.add_url_rule("/", view_func=lambda: "hello")
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1)
    client = app.test_client()
    statuses = [
        client.get("/", headers={"X-Forwarded-For": f"203.0.113.9:{port}"}).status_code
        for port in range(40001, 40004)
    ]
    assert statuses == [200, 200, 429]


@pytest.mark.parametrize(
    "peer", ["10.0.0.1", "10.0.0.1:5000", "::ffff:10.0.0.1", "[::ffff:10.0.0.1]:5000"]
)
def test_wrong_keys_count_by_client_in_all_forms(gate, peer):
    app = wsgi.GateMiddleware(hello, gate, failures="4/31d", trusted_proxies=contract.PROXIES)

    def fetch(address):
        started = []
        environ = {
            "REMOTE_ADDR": peer,
            "REQUEST_METHOD": "GET",
            "HTTP_X_API_KEY": "nonsense",
            "HTTP_X_FORWARDED_FOR": address,
        }
        app(environ, lambda status, _: started.append(status))
        return int(started[0][:3])

    assert [fetch(address) for address in FORMS] == [401] * 4 + [429]


def test_address_that_contains_a_proxy_address_is_not_trusted(gate):
    app = wsgi.GateMiddleware(hello, gate, failures="1/31d", trusted_proxies=contract.PROXIES)
    statuses = []
    for client in ("198.51.100.1", "198.51.100.2"):
        environ = {
            "REMOTE_ADDR": "2002:a00:1::1",
            "REQUEST_METHOD": "GET",
            "HTTP_X_API_KEY": "nonsense",
            "HTTP_X_FORWARDED_FOR": client,
        }
        app(environ, lambda status, _: statuses.append(int(status[:3])))
    assert statuses == [401, 429]


def test_wrong_keys_count_by_network_of_the_prefix(gate):
    app = wsgi.GateMiddleware(hello, gate, failures="1/31d", ipv6_prefix=56)
    statuses = []
    for address in ("2001:db8:1:200::1", "2001:db8:1:2ff::1", "2001:db8:1:300::1"):
        environ = {"REMOTE_ADDR": address, "REQUEST_METHOD": "GET", "HTTP_X_API_KEY": "nonsense"}
        app(environ, lambda status, _: statuses.append(int(status[:3])))
    assert statuses == [401, 429, 401]
