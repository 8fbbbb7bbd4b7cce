"""A Flask application behind a gate."""

import os

from flask import Flask, Response, abort, g

from keytally import Gate
from keytally.flask import GateExtension


def make(gate, **options):
    app = Flask("tests")
    extension = GateExtension(gate, exempt=["/health"], **options)
    extension.init_app(app)

    @app.get("/health")
    def health():
        return {"pid": os.getpid()}

    @app.get("/")
    def home():
        return {"pid": os.getpid(), "account": g.verdict.account}

    @app.get("/open")
    @extension.exempt
    def open_to_all():
        return "open"

    @app.get("/own")
    def own():
        return Response(
            "mine", headers=[("X-RateLimit-Remaining", "7"), ("x-ratelimit-remaining", "8")]
        )

    @app.get("/gone")
    def gone():
        abort(404)

    @app.get("/fail")
    def fail():
        raise LookupError("of the application")

    @app.get("/stream")
    def stream():
        return Response(f"part {part}\n" for part in range(3))

    return app


def served():
    """Return the application of a worker."""
    return make(Gate.open(os.environ["KEYTALLY_TEST_GATE"]))
