"""Applications of Flask-Limiter and slowapi, whose workers share the storage of keytally.limits."""

import os

import flask
import flask_limiter
import slowapi
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from slowapi.errors import RateLimitExceeded

import keytally.limits  # noqa: F401

URI = os.environ["KEYTALLY_TEST_STORAGE"]
LIMIT = os.environ["KEYTALLY_TEST_LIMIT"]


def flask_app():
    """Return the application of a worker."""
    app = flask.Flask("tests")
    limiter = flask_limiter.Limiter(lambda: "a", app=app, default_limits=[LIMIT], storage_uri=URI)

    @app.get("/health")
    @limiter.exempt
    def health():
        return {"pid": os.getpid()}

    @app.get("/")
    def home():
        return {"pid": os.getpid()}

    @app.errorhandler(429)
    def exceeded(error):
        return {"pid": os.getpid()}, 429

    return app


def fastapi_app():
    """Return the application of a worker."""
    app = FastAPI()
    app.state.limiter = slowapi.Limiter(lambda: "a", storage_uri=URI)

    @app.get("/health")
    def health():
        return {"pid": os.getpid()}

    @app.get("/")
    @app.state.limiter.limit(LIMIT)
    def home(request: Request):
        return {"pid": os.getpid()}

    @app.exception_handler(RateLimitExceeded)
    def exceeded(request, error):
        return JSONResponse({"pid": os.getpid()}, 429)

    return app
