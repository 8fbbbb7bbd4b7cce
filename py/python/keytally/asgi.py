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

Starlette answers an unhandled exception outside of all added middleware, so that its 500 has no rate-limit
fields. They are there if the whole application is wrapped as well, in the last line of the module that the
server imports: ``app = VerdictMiddleware(app)``. That 500 has no CORS fields either, unless CORSMiddleware
wraps all, and is not added: ``app = CORSMiddleware(GateMiddleware(app, gate), allow_origins=...)``.

A request has one verdict and is charged once, however many of these integrations ask about it: see
``docs/INTEGRATIONS.md``.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, Union

from keytally import _once, _web
from keytally._addresses import IPV6_PREFIX, checked_prefix, subject
from keytally._exempt import exemption
from keytally._guesses import DEFAULT, Guesses
from keytally._rule import GateRule, LimiterRule, Rule

if TYPE_CHECKING:
    from keytally import Gate, Limiter, Verdict

__all__ = ["GateMiddleware", "LimiterMiddleware", "VerdictMiddleware", "client_address"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Subject = Union[str, bytes, None]
Key = Callable[[Scope], Union[Subject, Awaitable[Subject]]]
Cost = Union[int, Callable[[Scope], Union[int, Awaitable[int]]]]


def client_address(scope: Scope, *, ipv6_prefix: int = IPV6_PREFIX) -> str:
    """Return what counts the client's address, as the server reports it, by ``docs/ADDRESSES.md``.

    Behind a proxy that is the proxy's, unless the server is told to trust its header: uvicorn's
    ``--forwarded-allow-ips`` and the like.

    Args:
        scope: The request.
        ipv6_prefix: How many bits of an IPv6 address count: a client has all of its /64.

    Raises:
        RuntimeError: There is no address, as on a Unix socket.

    >>> client_address({"client": ("203.0.113.9", 40000)})
    '203.0.113.9'
    >>> client_address({"client": ("2001:db8::a:b:c:d", 40000)})
    '2001:db8::/64'
    >>> client_address({"client": ("2001:db8::a:b:c:d", 40000)}, ipv6_prefix=56)
    '2001:db8::/56'

    """
    return subject(READ.peer(scope), ipv6_prefix)


class _Reader:
    """How a scope is read."""

    def keys(self, scope: Scope) -> list[bytes]:
        return [value for name, value in scope["headers"] if name == _web.RAW_API_KEY_HEADER]

    def peer(self, scope: Scope) -> str | None:
        client = scope.get("client")
        return client[0] if client else None

    def forwarded_for(self, scope: Scope) -> str:
        values = (value for name, value in scope["headers"] if name == b"x-forwarded-for")
        return b",".join(values).decode("latin-1")


READ = _Reader()


class _Middleware:
    """What both do with a verdict."""

    def __init__(
        self, app: App, rule: Rule[Scope], *, exempt: Iterable[str], headers: bool, state: str
    ) -> None:
        self.app = app
        self._rule = rule
        self._exempt = exemption(exempt)
        self._headers = headers
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if (kind != "http" and kind != "websocket") or self._exempt(_path(scope)):
            return await self.app(scope, receive, send)
        # The server's own scope stays as it is, and so does its state, which requests may share.
        scope = {**scope}
        record = _once.of(scope)
        state = record.own_state(scope)

        def leave(record: _once.Record, asked: _once.Asked) -> None:
            record.leave(state, self._state, asked)

        asked = await self._rule.ask_awaiting(scope, scope, leave)
        if asked is None:
            return await self.app(scope, receive, send)
        if asked.refusal is not None:
            return await _refuse(asked.refusal, record, scope, receive, send)
        if kind == "http" and self._headers and not record.sets_headers:
            record.sets_headers = True
            send = _with(record, send)
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
        on_verdict: A function that is called with each verdict and its scope, for logs and metrics. What it
            raises is logged.
        failures: How many wrong keys a client address may send. More get 429. A right key is never refused by
            it, and a missing key does not count. A policy counts for one process and the children that it
            forks. ``Limiter.open_or_create(path, policy)`` counts for all workers. ``None`` sets no limit.
        trusted_proxies: The proxies whose ``X-Forwarded-For`` names the client: addresses, networks such as
            ``"10.0.0.0/8"``, or ``"unix"`` for all peers of Unix sockets. Not needed
            where the server is told to trust them, as uvicorn by ``--forwarded-allow-ips``.
        ipv6_prefix: How many bits of an IPv6 address count for ``failures``.

    ``cost`` and ``on_verdict`` may be async.

    Raises:
        TypeError, ValueError: An argument is of another type, or out of bounds; something in ``exempt`` can
            never match, or something in ``trusted_proxies`` is not a network.

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
        ipv6_prefix: int = IPV6_PREFIX,
    ) -> None:
        rule = GateRule[Scope](
            gate,
            READ,
            Guesses(failures, trusted_proxies, ipv6_prefix),
            cost=cost,
            shadow=shadow,
            headers=headers,
            on_verdict=on_verdict,
            awaits=True,
        )
        super().__init__(app, rule, exempt=exempt, headers=headers, state=state)


class LimiterMiddleware(_Middleware):
    """Lets a request in when its subject has quota left, and charges it.

    The subject is the client's address, or what ``key`` returns.

    With a gate in the same application, the verdict in the state and X-RateLimit-* are the gate's.

    Args:
        app: The application.
        limiter: The limiter. ``Limiter(policy)`` counts for one process and the children that it forks;
            ``Limiter.open_or_create(path, policy)`` counts for all workers, however they are started.
        key: A function of the scope that returns the subject, or ``None`` to let the request in uncounted;
            the client's address when left out.
        exempt: Paths that aren't counted: ``"/health"``, or all that begin alike, ``"/static/*"``.
        cost: Units that a request is charged, or a function of its scope that returns them.
        shadow: Whether to let everything in, and only say in ``X-Keytally-Shadow`` what would be refused.
        headers: Whether responses tell what is left of the quota.
        state: The name of the verdict in the state.
        on_verdict: A function that is called with each verdict and its scope, for logs and metrics. What it
            raises is logged.
        ipv6_prefix: How many bits of an IPv6 address count, where ``key`` is left out.

    ``key``, ``cost`` and ``on_verdict`` may be async.

    >>> from keytally import Limiter
    >>> async def application(scope, receive, send): ...
    >>> application = LimiterMiddleware(application, Limiter("20/minute, 200/hour"), exempt=["/health"])

    """

    def __init__(
        self,
        app: App,
        limiter: Limiter,
        *,
        key: Key | None = None,
        exempt: Iterable[str] = (),
        cost: Cost = 1,
        shadow: bool = False,
        headers: bool = True,
        state: str = "verdict",
        on_verdict: Callable[[Verdict, Scope], object] | None = None,
        ipv6_prefix: int = IPV6_PREFIX,
    ) -> None:
        rule = LimiterRule[Scope](
            limiter,
            key or functools.partial(client_address, ipv6_prefix=checked_prefix(ipv6_prefix)),
            cost=cost,
            shadow=shadow,
            headers=headers,
            on_verdict=on_verdict,
            awaits=True,
        )
        super().__init__(app, rule, exempt=exempt, headers=headers, state=state)


class VerdictMiddleware:
    """Puts the header fields of a verdict, which something further in left in the state, into the response.

    For `keytally.fastapi`, whose dependencies don't see a response that a route makes itself. Around the
    whole application, ``app = VerdictMiddleware(app)``, it also reaches the 500 of an unhandled exception,
    and leaves preflights to the CORSMiddleware inside, which `GateMiddleware` there would refuse.

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
        scope = {**scope}
        record = _once.of(scope)
        state = record.own_state(scope)
        if not record.sets_headers:
            record.sets_headers = True
            send = _with(record, send, lambda: state.get(self._state))
        return await self.app(scope, receive, send)


def _path(scope: Scope) -> str:
    """Return the path within the application, as its routes see it."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(root + "/") else path


def _with(record: _once.Record, send: Send, verdict: Callable[[], object] = lambda: None) -> Send:
    """Return a send that sets the header fields. It awaits nothing itself, so it is no coroutine."""

    def send_with_headers(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            record.adopt(verdict())
            fields = record.raw_fields()
            if fields:
                kept = [
                    field for field in message.get("headers", ()) if field[0].lower() not in _web.RAW_NAMES
                ]
                message = {**message, "headers": kept + fields}
        return send(message)

    return send_with_headers


async def _refuse(
    answer: _web.Answer, record: _once.Record, scope: Scope, receive: Receive, send: Send
) -> None:
    accept = b",".join(value for name, value in scope["headers"] if name == b"accept").decode("latin-1")
    refusal = _web.refusal(answer, record.fields(), accept, scope.get("method", "GET"))
    prefix = "http.response"
    if scope["type"] == "websocket":
        # The server's "websocket.connect" comes first.
        await receive()
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            # All that there is before a server has that extension; it makes this a 403.
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": ""})
            return
        prefix = "websocket.http.response"
    await send({"type": f"{prefix}.start", "status": refusal.status, "headers": _web.raw(refusal.headers)})
    await send({"type": f"{prefix}.body", "body": refusal.body})


# Of the codes with which a websocket is closed (RFC 6455, 7.4.1).
POLICY_VIOLATION = 1008
