"""The limit of wrong keys: the client, and the requests that count."""

import ipaddress

import pytest

from keytally import Limiter
from keytally._calls import completed
from keytally._guesses import Guesses, TrustedProxies
from keytally.wsgi import GateMiddleware


def client_of(proxies, peer, forwarded_for=""):
    client = TrustedProxies(proxies).client(peer, forwarded_for)
    return None if client is None else str(client)


@pytest.mark.parametrize(
    ("peer", "is_trusted"),
    [
        ("10.255.0.1", True),
        ("::ffff:10.1.2.3", True),
        ("11.0.0.1", False),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("fdff::1", True),
        ("fdff::1%eth0", True),
        ("fe00::1", False),
        ("::1", True),
        ("127.0.0.1", False),
    ],
)
def test_trusted_proxies_match_only_their_networks(peer, is_trusted):
    proxies = ["10.0.0.0/8", "192.0.2.7", "fd00::/8", "::1"]
    assert (client_of(proxies, peer, "203.0.113.5") == "203.0.113.5") == is_trusted


@pytest.mark.parametrize(
    ("forwarded_for", "client"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("192.0.2.1, 203.0.113.5", "203.0.113.5"),
        ("192.0.2.1, 203.0.113.5, 10.0.0.9", "203.0.113.5"),
        ("192.0.2.1,203.0.113.5,10.0.0.9,10.0.0.8", "203.0.113.5"),
        ("nonsense, 203.0.113.5:4711", "203.0.113.5"),
        ("[2001:db8::5]:80", "2001:db8::5"),
        ("[2001:db8::5]", "2001:db8::5"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("10.0.0.9, 10.0.0.8", "10.0.0.9"),
        ("203.0.113.5, unknown", None),
        ("203.0.113.5, ", None),
        ("", None),
    ],
)
def test_client_is_rightmost_untrusted_address(forwarded_for, client):
    for peer in ("10.0.0.1", "", None, "localhost"):
        assert client_of(["10.0.0.0/8", "unix"], peer, forwarded_for) == client
    assert client_of(["10.0.0.0/8", "unix"], "198.51.100.1", forwarded_for) == "198.51.100.1"
    assert client_of([], "", forwarded_for) is None


@pytest.mark.parametrize(
    "wrong",
    ["", "10.0.0.0/33", "10.0.0", "Unix", "proxy.example.com", "::ffff:10.0.0.0/104", 10, None],
)
def test_invalid_proxy_is_named_by_its_index(wrong):
    with pytest.raises(ValueError, match=r"^trusted_proxies\[1\] must be an "):
        TrustedProxies(["::1", wrong])


@pytest.mark.parametrize("wrong", ["10.0.0.0/8", b"10.0.0.0/8"])
def test_proxies_as_one_text_are_rejected(wrong):
    with pytest.raises(TypeError, match="must be a list"):
        TrustedProxies(wrong)


def test_failures_of_other_type_are_rejected(gate):
    with pytest.raises(TypeError, match="failures must be a policy"):
        GateMiddleware(None, gate, failures=5)


def statuses(guesses, gate, peers):
    """Return the status of the refusal of a wrong key from each peer."""

    def refusal(peer):
        verdict = gate.check("nonsense")
        return completed(guesses.refusal(verdict, str(peer), "", is_async=False))

    return [refusal(peer).status for peer in peers]


def test_wrong_keys_are_limited_by_default(gate):
    def answer(environ, start_response):
        raise AssertionError("a refused request reached the application")

    def status(app):
        started = []
        environ = {
            "HTTP_X_API_KEY": "nonsense",
            "REMOTE_ADDR": "203.0.113.9",
            "REQUEST_METHOD": "GET",
        }
        app(environ, lambda status, _: started.append(status[:3]))
        return started[0]

    # A minute may end during the requests.
    first, second = GateMiddleware(answer, gate), GateMiddleware(answer, gate)
    assert "429" in [status(first) for _ in range(50)]
    # Integrations of one policy share their counts.
    assert status(second) == "429"
    unlimited = GateMiddleware(answer, gate, failures=None)
    assert {status(unlimited) for _ in range(50)} == {"401"}


def test_networks_without_a_slot_share_limits(gate):
    limiter = Limiter.in_memory("1/31d", capacity=100)
    peers = [ipaddress.IPv4Address(number) for number in range(4000)]
    # Each of the 2,400 slots and of the 300 overflow tallies admits at most one wrong key.
    assert 1600 <= statuses(Guesses(limiter, ()), gate, peers).count(401) <= 2700
    assert statuses(Guesses(limiter, ()), gate, peers).count(401) == 0


def test_full_limiter_that_refuses_limits_no_other_network(gate):
    guesses = Guesses(Limiter.in_memory("1/31d", capacity=100, on_full="refuse"), ())
    peers = [ipaddress.IPv4Address(number) for number in range(4000)]
    assert set(statuses(guesses, gate, peers)) == {401}
    refused = statuses(guesses, gate, peers).count(429)
    # A limiter with capacity 100 has the 2,400 slots of one for 1,600 subjects.
    assert 1600 <= refused <= 2400
