"""A Starlette application with streams, websockets, background tasks and CORS."""

import asyncio
import os

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute

from keytally import Gate
from keytally.asgi import GateMiddleware

ORIGIN = "https://example.com"

# The accounts of the requests that wait for each other.
waiting = []


async def together(waiting):
    """Wait until two requests are at the route."""
    for _ in range(1000):
        if len(waiting) >= 2:
            break
        await asyncio.sleep(0.01)


def make(gate, done=None):
    """Return the application; `done` is a list that the background task fills."""
    done = [] if done is None else done

    async def home(request):
        verdict = request.state.verdict
        return JSONResponse({"pid": os.getpid(), "account": verdict.account})

    async def health(request):
        return JSONResponse({"pid": os.getpid()})

    async def stream(request):
        async def parts():
            # The next part is sent after the client received this one.
            for part in range(3):
                yield f"part {part}\n"
                await asyncio.sleep(0.2)

        return StreamingResponse(parts(), media_type="text/plain")

    async def events(request):
        async def messages():
            for number in range(3):
                yield f"id: {number}\ndata: {request.state.verdict.remaining}\n\n"

        return StreamingResponse(messages(), media_type="text/event-stream")

    async def echo(request):
        return Response(b"".join([part async for part in request.stream()]))

    async def background(request):
        return PlainTextResponse(
            "later", background=BackgroundTask(done.append, request.state.verdict.account)
        )

    async def count(request):
        return PlainTextResponse(str(len(done)))

    async def pair(request):
        """Return the account of the verdict before and after another request arrived."""
        before = request.state.verdict.account
        waiting.append(before)
        await together(waiting)
        return JSONResponse([before, request.state.verdict.account])

    async def fail(request):
        raise LookupError("of the application")

    async def talk(websocket):
        await websocket.accept()
        await websocket.send_json({"account": websocket.state.verdict.account})
        async for text in websocket.iter_text():
            await websocket.send_text(text.upper())

    app = Starlette(
        routes=[
            Route("/", home),
            Route("/health", health),
            Route("/stream", stream),
            Route("/events", events),
            Route("/echo", echo, methods=["POST"]),
            Route("/background", background),
            Route("/done", count),
            Route("/pair", pair),
            Route("/fail", fail),
            WebSocketRoute("/talk", talk),
        ]
    )
    app.add_middleware(GateMiddleware, gate=gate, exempt=["/health", "/done"])
    app.add_middleware(
        CORSMiddleware,
        allow_origins=[ORIGIN],
        allow_headers=["X-API-Key"],
        expose_headers=["X-RateLimit-Remaining", "Retry-After"],
    )
    return app


def served():
    """Return the application of a worker."""
    return make(Gate.open(os.environ["KEYTALLY_TEST_GATE"]))
