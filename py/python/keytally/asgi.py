"""Middleware for every ASGI server and framework: Starlette, FastAPI, Litestar, Quart, Django.

It is plain ASGI: bodies are streamed as they come, websockets are the application's once they are let in. A
check takes about a microsecond and never waits, so nothing is handed to a thread.

>>> from keytally import Gate, generate_pepper
>>> from keytally.asgi import GateMiddleware
>>> gate = Gate.in_memory(pepper=generate_pepper(), keys=100)
>>> async def application(scope, receive, send): ...
>>> application = GateMiddleware(application, gate, exempt=["/health", "/static/*"])

With Starlette and FastAPI it is ``app.add_middleware(GateMiddleware, gate=gate)``. Add CORSMiddleware after
it: what is added last is outermost, so that it answers preflights, which carry no key, and a browser may read
refusals.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, Union

from keytally import _web
from keytally._guesses import DEFAULT, Answer, Guesses
from keytally._native import Verdict

if TYPE_CHECKING:
    from keytally import Gate, Limiter

__all__ = ["GateMiddleware", "LimiterMiddleware", "VerdictMiddleware", "client_address"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Cost = Union[int, Callable[[Scope], int]]


def client_address(scope: Scope) -> str:
    """Return the address that the server tells; of an IPv6 address its /64, since a client has all of that.

    Behind a proxy that is the proxy's, unless the server is told to trust its header: uvicorn's
    ``--forwarded-allow-ips`` and the like.

    Raises:
        RuntimeError: There is no address, as on a Unix socket.

    >>> client_address({"client": ("203.0.113.9", 40000)})
    '203.0.113.9'
    >>> client_address({"client": ("2001:db8::a:b:c:d", 40000)})
    '2001:db8::/64'

    """
    client = scope.get("client")
    return _web.subject_of(client[0] if client else None)


class _Middleware:
    """What both do with a verdict."""

    def __init__(
        self,
        app: App,
        *,
        exempt: Iterable[str],
        cost: Cost,
        shadow: bool,
        headers: bool,
        state: str,
        on_verdict: Callable[[Verdict, Scope], object] | None,
    ) -> None:
        self.app = app
        self._exempt = _web.exemption(exempt)
        self._cost = cost
        self._shadow = shadow
        self._headers = headers
        self._state = state
        self._on_verdict = on_verdict

    def _check(self, scope: Scope, cost: int) -> Verdict | None:
        raise NotImplementedError

    def _answer_to(self, verdict: Verdict, scope: Scope) -> Answer:  # noqa: ARG002
        """Return what a request that isn't admitted gets."""
        return verdict

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if (kind != "http" and kind != "websocket") or self._exempt(_path(scope)):
            return await self.app(scope, receive, send)
        cost = self._cost if isinstance(self._cost, int) else self._cost(scope)
        verdict = self._check(scope, cost)
        if verdict is None:
            return await self.app(scope, receive, send)
        scope.setdefault("state", {})[self._state] = verdict
        if self._on_verdict is not None:
            self._on_verdict(verdict, scope)
        if not verdict.admitted and not self._shadow:
            return await _refuse(self._answer_to(verdict, scope), scope, receive, send)
        if kind == "http" and self._headers:
            raw = verdict.raw_headers if verdict.admitted else _shadow_headers(verdict)
            return await self.app(scope, receive, _with(raw, send))
        return await self.app(scope, receive, send)


class GateMiddleware(_Middleware):
    """Lets a request in when its ``X-API-Key`` is good and has quota left, and charges it.

    The verdict is in ``scope["state"]["verdict"]``, which is ``request.state.verdict`` in Starlette and
    FastAPI. A refused request gets 401 or 429 with the verdict's body and header fields; a refused websocket
    is closed before it is accepted. A key that is sent twice is refused, since the next server in the chain
    might take the other one.

    Args:
        app: The application.
        gate: The gate. Every worker may open it, or inherit it from the process that forks it: quotas are
            exact.
        exempt: Paths that need no key: ``"/health"``, or all that begin alike, ``"/static/*"``.
        cost: Units that a request is charged, or a function of its scope that returns them.
        shadow: Whether to let everything in, and only say in ``X-Keytally-Shadow`` what would be refused.
        headers: Whether responses tell what is left of the quota, in place of what the application says of
            it.
        state: The name of the verdict in the state.
        on_verdict: A function that is called with each verdict and its scope, for logs and metrics.
        failures: How many wrong keys a client address may send. More get 429. A right key is never refused by
            it, and a missing key does not count. A policy counts for one process and the children that it
            forks. ``Limiter.open_or_create(path, policy)`` counts for all workers. ``None`` sets no limit.
        trusted_proxies: The proxies whose ``X-Forwarded-For`` names the client: addresses, networks such as
            ``"10.0.0.0/8"``, or ``"unix"`` for all peers of Unix sockets. Not needed
            where the server is told to trust them, as uvicorn by ``--forwarded-allow-ips``.

    Raises:
        TypeError, ValueError: Something in ``exempt`` is no path, or something in ``trusted_proxies`` no
            network.

    """

    def __init__(
        self,
        app: App,
        gate: Gate,
        *,
        exempt: Iterable[str] = (),
        cost: Cost = 1,
        shadow: bool = False,
        headers: bool = True,
        state: str = "verdict",
        on_verdict: Callable[[Verdict, Scope], object] | None = None,
        failures: Limiter | str | None = DEFAULT,
        trusted_proxies: Iterable[str] = (),
    ) -> None:
        super().__init__(
            app,
            exempt=exempt,
            cost=cost,
            shadow=shadow,
            headers=headers,
            state=state,
            on_verdict=on_verdict,
        )
        self._gate = gate
        self._guesses = Guesses(failures, trusted_proxies)

    def _check(self, scope: Scope, cost: int) -> Verdict:
        return check(self._gate, scope, cost)

    def _answer_to(self, verdict: Verdict, scope: Scope) -> Answer:
        return answer(self._guesses, verdict, scope)


class LimiterMiddleware(_Middleware):
    """Lets a request in when its subject has quota left, and charges it.

    The subject is the client's address, or what ``key`` returns.

    In front of a gate, only one of the two can fill the header fields: ``headers=False`` leaves that to the
    gate.

    Args:
        app: The application.
        limiter: The limiter. ``Limiter(policy)`` counts for one process and the children that it forks;
            ``Limiter.open_or_create(path, policy)`` counts for all workers, however they are started.
        key: A function of the scope that returns the subject, or ``None`` to let the request in uncounted.
        exempt: Paths that aren't counted: ``"/health"``, or all that begin alike, ``"/static/*"``.
        cost: Units that a request is charged, or a function of its scope that returns them.
        shadow: Whether to let everything in, and only say in ``X-Keytally-Shadow`` what would be refused.
        headers: Whether responses tell what is left of the quota.
        state: The name of the verdict in the state.
        on_verdict: A function that is called with each verdict and its scope, for logs and metrics.

    >>> from keytally import Limiter
    >>> async def application(scope, receive, send): ...
    >>> application = LimiterMiddleware(application, Limiter("20/minute, 200/hour"), exempt=["/health"])

    """

    def __init__(
        self,
        app: App,
        limiter: Limiter,
        *,
        key: Callable[[Scope], str | bytes | None] = client_address,
        exempt: Iterable[str] = (),
        cost: Cost = 1,
        shadow: bool = False,
        headers: bool = True,
        state: str = "verdict",
        on_verdict: Callable[[Verdict, Scope], object] | None = None,
    ) -> None:
        super().__init__(
            app,
            exempt=exempt,
            cost=cost,
            shadow=shadow,
            headers=headers,
            state=state,
            on_verdict=on_verdict,
        )
        self._limiter = limiter
        self._key = key

    def _check(self, scope: Scope, cost: int) -> Verdict | None:
        subject = self._key(scope)
        return None if subject is None else self._limiter.check(subject, cost)


class VerdictMiddleware:
    """Puts the header fields of a verdict, which something further in left in the state, into the response.

    For `keytally.fastapi`, whose dependencies don't see a response that a route makes itself.

    Args:
        app: The application.
        state: The name of the verdict in the state.

    >>> async def application(scope, receive, send): ...
    >>> application = VerdictMiddleware(application)

    """

    def __init__(self, app: App, *, state: str = "verdict") -> None:
        self.app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        state = scope.setdefault("state", {})

        def send_with_headers(message: Message) -> Awaitable[None]:
            verdict = state.get(self._state)
            if verdict is None or message["type"] != "http.response.start":
                return send(message)
            answer: Answer = state.get(_web.ANSWER, verdict)
            refused = not verdict.admitted and message["status"] == answer.status
            raw = _raw(answer.headers) if verdict.admitted or refused else _shadow_headers(verdict)
            return _with(raw, send)(message)

        return await self.app(scope, receive, send_with_headers)


def check(gate: Gate, scope: Scope, cost: int) -> Verdict:
    """Ask the gate about the key of a request."""
    keys = [value for name, value in scope["headers"] if name == _web.RAW_API_KEY_HEADER]
    if len(keys) > 1:
        return Verdict.duplicate_header()
    return gate.check(keys[0] if keys else None, cost)


def answer(guesses: Guesses, verdict: Verdict, scope: Scope) -> Answer:
    """Return what a request that isn't admitted gets."""
    client = scope.get("client")
    forwarded_for = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
    return guesses.answer(verdict, client[0] if client else None, forwarded_for.decode("latin-1"))


def _path(scope: Scope) -> str:
    """Return the path within the application, as its routes see it."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(root + "/") else path


def _with(raw: list[tuple[bytes, bytes]], send: Send) -> Send:
    """Return a send that sets these header fields. It awaits nothing itself, so it is no coroutine."""
    names = _web.RAW_NAMES.union(name for name, _ in raw)

    def send_with_headers(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            headers = [field for field in message.get("headers", ()) if field[0].lower() not in names]
            message = {**message, "headers": headers + raw}
        return send(message)

    return send_with_headers


def _shadow_headers(verdict: Verdict) -> list[tuple[bytes, bytes]]:
    return _raw(_web.headers_of_response(verdict))


def _raw(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


async def _refuse(answer: Answer, scope: Scope, receive: Receive, send: Send) -> None:
    accept = b",".join(value for name, value in scope["headers"] if name == b"accept").decode("latin-1")
    refusal = _web.refusal(answer, accept, scope.get("method", "GET"))
    prefix = "http.response"
    if scope["type"] == "websocket":
        # The server's "websocket.connect" comes first.
        await receive()
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            # All that there is before a server has that extension; it makes this a 403.
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": ""})
            return
        prefix = "websocket.http.response"
    await send({"type": f"{prefix}.start", "status": refusal.status, "headers": _raw(refusal.headers)})
    await send({"type": f"{prefix}.body", "body": refusal.body})


# Of the codes with which a websocket is closed (RFC 6455, 7.4.1).
POLICY_VIOLATION = 1008
