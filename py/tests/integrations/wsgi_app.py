"""The least application that WSGI has."""

import json
import os

from keytally import Gate, Limiter
from keytally.wsgi import GateMiddleware, LimiterMiddleware


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"pid": os.getpid()}).encode()]


def served():
    """Return the application as a worker makes it."""
    return GateMiddleware(application, Gate.open(os.environ["KEYTALLY_TEST_GATE"]), exempt=["/health"])


def limited():
    """Return it behind a limiter in a file, which the first worker creates."""
    path = os.environ["KEYTALLY_TEST_GATE"] + ".limiter"
    limiter = Limiter.open_or_create(path, "100/31d", 100)
    return LimiterMiddleware(application, limiter, key=lambda _: "everybody", exempt=["/health"])


def in_memory():
    """Return it behind a limiter that the workers inherit, if they do."""
    limiter = Limiter("100/31d", capacity=100)
    return LimiterMiddleware(application, limiter, key=lambda _: "everybody", exempt=["/health"])
