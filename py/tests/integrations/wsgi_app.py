"""A minimal WSGI application."""

import json
import os

from keytally import Gate, Limiter
from keytally.wsgi import GateMiddleware, LimiterMiddleware


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"pid": os.getpid()}).encode()]


def served():
    """Return the application of a worker."""
    return GateMiddleware(
        application, Gate.open(os.environ["KEYTALLY_TEST_GATE"]), exempt=["/health"]
    )


def limited():
    """Return the application of a worker behind a limiter in a file."""
    path = os.environ["KEYTALLY_TEST_GATE"] + ".limiter"
    limiter = Limiter.open_or_create(path, "100/31d", 100)
    return LimiterMiddleware(application, limiter, key=lambda _: "all", exempt=["/health"])


def in_memory():
    """Return the application behind a limiter in memory, which forked workers inherit."""
    limiter = Limiter.in_memory("100/31d", capacity=100)
    return LimiterMiddleware(application, limiter, key=lambda _: "all", exempt=["/health"])
