"""Middleware for every ASGI server and framework: Starlette, FastAPI, Litestar, Quart, Django.

It does not buffer bodies. An admitted websocket is passed to the application unchanged. A check
does not wait for another thread or process, so it runs in the event loop. If the gate is in a
fleet, a check that needs credits of another process pauses, and other requests continue.

>>> from keytally import Gate, generate_pepper
>>> from keytally.asgi import GateMiddleware
>>> gate = Gate.in_memory(pepper=generate_pepper(), keys=100)
>>> async def application(scope, receive, send): ...
>>> application = GateMiddleware(application, gate, exempt=["/health", "/static/*"])

In Starlette and FastAPI, use ``app.add_middleware(GateMiddleware, gate=gate)``. Add CORSMiddleware
after it. The middleware that is added last is outermost: it then answers preflight requests, which
have no key, and browsers can read refusals.

Starlette handles an unhandled exception outside of all added middleware, so the response with
status 500 has no rate-limit fields. To add them, wrap the whole application in the last line of the
module that the server imports: ``app = VerdictMiddleware(app)``. That response has no CORS fields
either, unless CORSMiddleware wraps the application instead of being added:
``app = CORSMiddleware(GateMiddleware(app, gate), allow_origins=...)``.

If several integrations check a request, it is charged once and has one verdict: see
``docs/INTEGRATIONS.md``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Union

from keytally import _web
from keytally._addresses import IPV6_PREFIX, subject
from keytally._charges import Record, record_of
from keytally._guesses import DEFAULT
from keytally._middleware import Middleware
from keytally._refusal import Refusal
from keytally._rule import GateRule, LimiterRule, Statuses
from keytally._settle import Sent
from keytally._watch import Watch

if TYPE_CHECKING:
    from keytally import Gate, Limiter, Verdict
    from keytally._keys import Source

__all__ = ["GateMiddleware", "LimiterMiddleware", "VerdictMiddleware", "client_address"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Subject = Union[str, bytes, None]
Key = Callable[[Scope], Union[Subject, Awaitable[Subject]]]
Cost = Union[int, Callable[[Scope], Union[int, Awaitable[int]]]]
Given = Union[str, Iterable[str], None]
Names = Union[Given, Callable[[Scope], Union[Given, Awaitable[Given]]]]
CostsOf = Union[Mapping[str, int], None]
GroupCosts = Union[CostsOf, Callable[[Scope], Union[CostsOf, Awaitable[CostsOf]]]]
Settle = Callable[[Scope, Sent], Union[int, Awaitable[int]]]
RefusalOf = Callable[[Refusal, Scope], Union[Refusal, Awaitable[Refusal]]]


def client_address(scope: Scope, *, ipv6_prefix: int = IPV6_PREFIX) -> str:
    """Return the subject by which a limiter counts the client: see ``docs/ADDRESSES.md``.

    It is the IPv4 address, or the IPv6 network, of the peer that the server reports. Behind a
    proxy, the peer is the proxy, unless the server is configured to trust the header of the proxy,
    as uvicorn is by ``--forwarded-allow-ips``.

    Args:
        scope: The ASGI scope of the request.
        ipv6_prefix: The prefix length of the IPv6 networks that count as one client, 1 to 128.

    Raises:
        RuntimeError: The peer has no address, as on a Unix socket.

    >>> client_address({"client": ("203.0.113.9", 40000)})
    '203.0.113.9'
    >>> client_address({"client": ("2001:db8::a:b:c:d", 40000)})
    '2001:db8::/64'
    >>> client_address({"client": ("2001:db8::a:b:c:d", 40000)}, ipv6_prefix=56)
    '2001:db8::/56'

    """
    return subject(READ.peer(scope), ipv6_prefix)


class _Reader:
    """The functions that read the fields of a request from its scope."""

    def values(self, scope: Scope, source: Source) -> list[bytes]:
        wanted = source.raw
        return [value for name, value in scope["headers"] if name == wanted]

    def peer(self, scope: Scope) -> str | None:
        client = scope.get("client")
        return client[0] if client else None

    def forwarded_for(self, scope: Scope) -> str:
        values = (value for name, value in scope["headers"] if name == b"x-forwarded-for")
        return b",".join(values).decode("latin-1")


READ = _Reader()


class _Middleware(Middleware[App, Scope]):
    """Middleware that applies a rule to HTTP requests and websockets."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if (
            (kind != "http" and kind != "websocket")
            or scope.get("method") in self._exempt_methods
            or self._is_exempt(_path(scope))
        ):
            return await self.app(scope, receive, send)
        # Other requests may share the server's scope and its state, so both are copied.
        scope = {**scope}
        record = record_of(scope)
        if kind == "http" and self._rule.settlement is not None and record.claim_watch():
            return await _watched(self._checked, record, scope, receive, send)
        return await self._checked(scope, receive, send)

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, and pass it to the application if it is admitted."""
        record = record_of(scope)
        store = self._store_in(record.own_state(scope))
        decision = await self._rule.check_async(scope, scope, store)
        if decision is None:
            return await self.app(scope, receive, send)
        if decision.refusal is not None:
            return await _refuse(decision.refusal, record, scope, receive, send)
        if scope["type"] == "http" and self._headers and record.claim_headers():
            send = _with_headers(record, send)
        return await self.app(scope, receive, send)


class GateMiddleware(_Middleware):
    """Admits and charges a request whose ``X-API-Key`` is valid and has quota left.

    The verdict is ``scope["state"]["verdict"]``, which is ``request.state.verdict`` in Starlette
    and FastAPI. A refused request gets 401 or 429 with the verdict's body and header fields, or 400
    if its cost is out of range. A refused websocket is closed before it is accepted. A request with
    two keys is refused, because the next server in the chain may use the other key.

    Args:
        app: The application.
        gate: The gate. Every worker may open it, or inherit it from the process that forks it:
            quotas are exact.
        exempt: Paths that need no key: ``"/health"``, or all paths with a prefix, ``"/static/*"``.
        exempt_methods: Methods that need no key, such as ``"OPTIONS"``.
        cost: The cost of a request in units, 0 to 4294967295, or a function of its scope that
            returns it.
        group: The groups of the gate's plans that are charged ``cost`` too: a name, several, or a
            function of the scope that returns them.
        costs: The groups that are charged a cost of their own, such as ``{"tokens": 2500}``, or a
            function of the scope that returns them.
        need: The scopes that the key must have: a name, several, or a function of the scope that
            returns them. Without one of them, the response has status 403.
        shadow: Whether to admit every request, and only report in ``X-Keytally-Shadow`` the outcome
            that would refuse it.
        headers: Whether responses have the rate-limit fields. They replace those of the
            application.
        state: The name of the verdict in the state.
        on_verdict: A function that is called with each verdict and its scope, for logs and
            metrics. An exception that it raises is logged.
        settle: A function of the scope and of what was `Sent` that returns the actual cost
            after the response. The charge is an estimate until then.
            For groups with costs of their own, it returns a dict of costs, see
            ``docs/INTEGRATIONS.md``.
        refund: The statuses at which the charge is refunded after the response: a number, a class
            such as ``"5xx"``, or a list of them.
        refusal: A function of the `Refusal` and the scope that returns the response to a refused
            request: another status, body or content type.
        failures: The limit of wrong keys for each client address. Beyond it, a wrong key gets 429.
            A valid key is never refused by it, and a missing key does not count. A policy counts
            for one process and the children that it forks. ``Limiter.open_or_create(path, policy)``
            counts for all workers. ``None`` sets no limit.
        trusted_proxies: The proxies whose ``X-Forwarded-For`` names the client: addresses, networks
            such as ``"10.0.0.0/8"``, or ``"unix"`` for all peers of Unix sockets. Leave it empty
            if the server is configured to trust them, as uvicorn by ``--forwarded-allow-ips``.
        ipv6_prefix: The prefix length of the IPv6 networks that ``failures`` and ``without_key``
            count, 1 to 128.
        key_from: The headers that may carry the key: names, and ``"Authorization: Bearer"``. A
            request with two different keys gets 401.
        without_key: The limiter of requests without a key, which it counts by client address;
            ``None`` to refuse them.

    ``cost``, ``group``, ``costs``, ``need``, ``on_verdict``, ``settle`` and ``refusal`` may be
    async.

    Raises:
        TypeError, ValueError: An argument has the wrong type or is out of range, the gate does not
            have a group or a scope, a path of ``exempt`` can never match, or a text of
            ``trusted_proxies`` is not a network.

    """

    def __init__(
        self,
        app: App,
        gate: Gate,
        *,
        exempt: Iterable[str] = (),
        exempt_methods: Iterable[str] = (),
        cost: Cost = 1,
        group: Names = (),
        costs: GroupCosts = None,
        need: Names = (),
        shadow: bool = False,
        headers: bool = True,
        state: str = "verdict",
        on_verdict: Callable[[Verdict, Scope], object] | None = None,
        settle: Settle | None = None,
        refund: Statuses = (),
        refusal: RefusalOf | None = None,
        failures: Limiter | str | None = DEFAULT,
        trusted_proxies: Iterable[str] = (),
        ipv6_prefix: int = IPV6_PREFIX,
        key_from: Iterable[str] = (_web.API_KEY_HEADER,),
        without_key: Limiter | None = None,
    ) -> None:
        rule = GateRule[Scope].with_failures(
            gate,
            READ,
            failures=failures,
            trusted_proxies=trusted_proxies,
            ipv6_prefix=ipv6_prefix,
            key_from=key_from,
            without_key=without_key,
            cost=cost,
            group=group,
            costs=costs,
            need=need,
            shadow=shadow,
            headers=headers,
            on_verdict=on_verdict,
            settle=settle,
            refund=refund,
            refusal=refusal,
            awaits=True,
        )
        super().__init__(
            app,
            rule,
            exempt=exempt,
            exempt_methods=exempt_methods,
            headers=headers,
            state=state,
        )


class LimiterMiddleware(_Middleware):
    """Admits and charges a request whose subject has quota left.

    The subject is the client's address, or the result of ``key``.

    If the application has a gate too, the verdict in the state and X-RateLimit-* are those of the
    gate.

    Args:
        app: The application.
        limiter: The limiter. ``Limiter.in_memory(policy)`` counts for one process and the children
            that it forks. ``Limiter.open_or_create(path, policy)`` counts for all workers, however
            they are started.
        key: A function of the scope that returns the subject, or ``None`` to admit the request
            without a charge. By default, the subject is the client's address.
        exempt: Paths that are not counted: ``"/health"``, or all paths with a prefix,
            ``"/static/*"``.
        exempt_methods: Methods that are not counted, such as ``"OPTIONS"``.
        cost: The cost of a request in units, 0 to 4294967295, or a function of its scope that
            returns it.
        shadow: Whether to admit every request, and only report in ``X-Keytally-Shadow`` the outcome
            that would refuse it.
        headers: Whether responses have the rate-limit fields.
        state: The name of the verdict in the state.
        on_verdict: A function that is called with each verdict and its scope, for logs and
            metrics. An exception that it raises is logged.
        settle: A function of the scope and of what was `Sent` that returns the actual cost
            after the response. The charge is an estimate until then.
        refund: The statuses at which the charge is refunded after the response: a number, a class
            such as ``"5xx"``, or a list of them.
        charge_on: The statuses at which a request is charged, after its response. Before, the
            limiter is only checked for room. ``None`` charges each request before its response.
        refusal: A function of the `Refusal` and the scope that returns the response to a refused
            request: another status, body or content type.
        ipv6_prefix: The prefix length of the IPv6 networks that count as one client, 1 to 128, if
            there is no ``key``. The policy of a limiter of addresses has prefixes of its own.

    ``key``, ``cost``, ``on_verdict``, ``settle`` and ``refusal`` may be async.

    Raises:
        TypeError, ValueError: An argument has the wrong type or is out of range, or a path of
            ``exempt`` can never match.

    >>> from keytally import Limiter
    >>> async def application(scope, receive, send): ...
    >>> limiter = Limiter.in_memory("20/minute, 200/hour")
    >>> application = LimiterMiddleware(application, limiter, exempt=["/health"])

    """

    def __init__(
        self,
        app: App,
        limiter: Limiter,
        *,
        key: Key | None = None,
        exempt: Iterable[str] = (),
        exempt_methods: Iterable[str] = (),
        cost: Cost = 1,
        shadow: bool = False,
        headers: bool = True,
        state: str = "verdict",
        on_verdict: Callable[[Verdict, Scope], object] | None = None,
        settle: Settle | None = None,
        refund: Statuses = (),
        charge_on: Statuses | None = None,
        refusal: RefusalOf | None = None,
        ipv6_prefix: int = IPV6_PREFIX,
    ) -> None:
        rule = LimiterRule[Scope].with_default_key(
            limiter,
            key,
            client_address,
            ipv6_prefix=ipv6_prefix,
            cost=cost,
            shadow=shadow,
            headers=headers,
            on_verdict=on_verdict,
            settle=settle,
            refund=refund,
            charge_on=charge_on,
            refusal=refusal,
            awaits=True,
        )
        super().__init__(
            app,
            rule,
            exempt=exempt,
            exempt_methods=exempt_methods,
            headers=headers,
            state=state,
        )


class VerdictMiddleware:
    """Sets the header fields of the verdict that the application stored in the state.

    It also settles the charges of the request after the response. It is for `keytally.fastapi`,
    whose dependencies do not see a response that a route creates itself. Around the whole
    application, ``app = VerdictMiddleware(app)``, it also sets the fields of the response to an
    unhandled exception. `GateMiddleware` around the whole application would refuse preflight
    requests, but this middleware passes them to the CORSMiddleware inside.

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
        """Pass the request to the application."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        scope = {**scope}
        record = record_of(scope)
        state = record.own_state(scope)
        if record.claim_headers():
            send = _with_headers(record, send, lambda: state.get(self._state))
        if record.claim_watch():
            return await _watched(self.app, record, scope, receive, send)
        return await self.app(scope, receive, send)


def _path(scope: Scope) -> str:
    """Return the path within the application, as its routes match it."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(root + "/") else path


def _with_headers(record: Record, send: Send, verdict: Callable[[], object] = lambda: None) -> Send:
    """Return a ``send`` that sets the header fields.

    Args:
        record: The record of the request, which has the header fields.
        send: The ``send`` of the server.
        verdict: A function that returns the verdict of a check that the application made itself.

    """

    # Not async: returning the awaitable of ``send`` saves a second coroutine per message.
    def send_with_headers(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            record.adopt(verdict())
            fields = record.raw_fields()
            if fields:
                kept = [
                    field
                    for field in message.get("headers", ())
                    if field[0].lower() not in _web.RAW_REPLACED_NAMES
                ]
                message = {**message, "headers": kept + fields}
        return send(message)

    return send_with_headers


async def _watched(app: App, record: Record, scope: Scope, receive: Receive, send: Send) -> None:
    """Call the application, and settle the charges of the request after the response."""
    watch = Watch(record)

    async def receive_watched() -> Message:
        message = await receive()
        if message["type"] == "http.disconnect":
            watch.disconnected = True
        return message

    async def send_watched(message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            watch.start(message["status"], lambda: _decoded(message.get("headers", ())))
        if watch.disconnected:
            # Servers drop what is sent after the client has left, as the 500 of a framework.
            await send(message)
            return
        size = len(message.get("body", b""))
        # The server may cancel the application here, after it took the part.
        watch.size += size
        try:
            await send(message)
        except Exception:
            watch.size -= size
            watch.disconnected = True
            raise
        if kind in BODIES and not message.get("more_body", False):
            watch.is_complete = True
            await watch.finish_async()

    try:
        await app(scope, receive_watched, send_watched)
    except BaseException as error:
        await watch.finish_async(error)
        raise
    # The application may return without the end of the body if the client is gone.
    await watch.finish_async()


def _decoded(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """Return the header fields of a message as text."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


async def _refuse(
    refusal: Refusal, record: Record, scope: Scope, receive: Receive, send: Send
) -> None:
    """Send the response to a refused request or websocket."""
    accept = b",".join(value for name, value in scope["headers"] if name == b"accept").decode(
        "latin-1"
    )
    response = _web.response(refusal, record.fields(), accept, scope.get("method", "GET"))
    prefix = "http.response"
    if scope["type"] == "websocket":
        # The first event is "websocket.connect".
        await receive()
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            # Without the extension, closing is the only refusal. The server answers 403.
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": ""})
            return
        prefix = "websocket.http.response"
    await send(
        {
            "type": f"{prefix}.start",
            "status": response.status,
            "headers": _web.raw(response.headers),
        }
    )
    await send({"type": f"{prefix}.body", "body": response.body})


# The messages that send the body. The last two are those of extensions, by which the server sends a
# file.
BODIES = {"http.response.body", "http.response.pathsend", "http.response.zerocopysend"}

# The close code of a websocket for a policy violation (RFC 6455, section 7.4.1).
POLICY_VIOLATION = 1008
