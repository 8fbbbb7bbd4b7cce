"""A FastAPI application. Each route requires a key in another way."""

import os

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import PlainTextResponse
from starlette.middleware.cors import CORSMiddleware
from starlette_app import together

from keytally import Gate, Limiter, Verdict
from keytally.asgi import VerdictMiddleware
from keytally.fastapi import limit, require_key

ORIGIN = "https://example.com"
# The accounts of the requests that wait for each other.
waiting = []


def make(gate, limiter, *, middleware=True, **options):
    app = FastAPI()
    api_key = require_key(gate, **options)
    router = APIRouter(dependencies=[Depends(api_key)])

    @app.get("/health")
    async def health():
        return {"pid": os.getpid()}

    @app.get("/")
    async def home(verdict: Verdict = Depends(api_key)):  # noqa: B008
        return {"pid": os.getpid(), "account": verdict.account}

    @router.get("/once")
    def once(verdict: Verdict = Depends(api_key)):  # noqa: B008
        return {"remaining": verdict.remaining}

    @router.get("/pair")
    async def pair(request: Request):
        before = request.state.verdict.account
        waiting.append(before)
        await together(waiting)
        return [before, request.state.verdict.account]

    @router.get("/own")
    async def own():
        return PlainTextResponse("mine", headers={"X-RateLimit-Remaining": "7"})

    @router.get("/gone")
    async def gone():
        raise HTTPException(404, "gone")

    @app.websocket("/talk")
    async def talk(websocket: WebSocket, verdict: Verdict = Depends(api_key)):  # noqa: B008
        await websocket.accept()
        await websocket.send_json({"account": verdict.account})
        await websocket.close()

    @app.get("/limited", dependencies=[Depends(limit(limiter, key=lambda _: "all"))])
    async def limited():
        return {}

    @app.get("/by-address", dependencies=[Depends(limit(limiter))])
    async def by_address():
        return {}

    app.include_router(router)
    if middleware:
        app.add_middleware(VerdictMiddleware)
    app.add_middleware(CORSMiddleware, allow_origins=[ORIGIN], allow_headers=["X-API-Key"])
    return app


def served():
    """Return the application of a worker."""
    return make(
        Gate.open(os.environ["KEYTALLY_TEST_GATE"]), Limiter.in_memory("5/minute", capacity=100)
    )


def bare():
    """Return the application of a worker without VerdictMiddleware."""
    gate = Gate.open(os.environ["KEYTALLY_TEST_GATE"])
    return make(gate, Limiter.in_memory("5/minute", capacity=100), middleware=False)
