"""Middleware for every WSGI server and framework: Flask, Django, Pyramid, Bottle, Falcon.

>>> from keytally import Gate, generate_pepper
>>> from keytally.wsgi import GateMiddleware
>>> gate = Gate.in_memory(pepper=generate_pepper(), keys=100)
>>> def application(environ, start_response): ...
>>> application = GateMiddleware(application, gate, exempt=["/health", "/static/*"])

With Flask it is ``app.wsgi_app = GateMiddleware(app.wsgi_app, gate)``, or the extension in `keytally.flask`.

If the application itself raises an exception, the server makes the response, which then has no rate-limit
fields. They are there if the application answers its own exceptions, as Flask and Django do, or if what
answers them is inside: ``GateMiddleware(errors(app), gate)``.

A request has one verdict and is charged once, however many of these integrations ask about it: see
``docs/INTEGRATIONS.md``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Union

from keytally import _once, _web
from keytally._addresses import IPV6_PREFIX, checked_prefix, subject
from keytally._exempt import exemption
from keytally._guesses import DEFAULT, Guesses
from keytally._rule import GateRule, LimiterRule, Rule

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from keytally import Gate, Limiter, Verdict

__all__ = ["GateMiddleware", "LimiterMiddleware", "client_address"]

Environ = dict[str, Any]
# What the server passes differs in its types from server to server, and so does what it takes.
StartResponse = Callable[..., Any]
App = Callable[[Any, Any], Iterable[bytes]]
Cost = Union[int, Callable[[Environ], int]]


def client_address(environ: Environ, *, ipv6_prefix: int = IPV6_PREFIX) -> str:
    """Return what counts the client's address, as the server reports it, by ``docs/ADDRESSES.md``.

    Behind a proxy that is the proxy's, unless something in front takes it from the proxy's header, as
    Werkzeug's ``ProxyFix`` does.

    Args:
        environ: The request.
        ipv6_prefix: How many bits of an IPv6 address count: a client has all of its /64.

    Raises:
        RuntimeError: There is no address, as on a Unix socket.

    >>> client_address({"REMOTE_ADDR": "203.0.113.9"})
    '203.0.113.9'

    """
    return subject(READ.peer(environ), ipv6_prefix)


class _Reader:
    """How an environ is read; Django has one too, with the same names."""

    def keys(self, environ: MutableMapping[str, Any]) -> list[str]:
        # Servers join fields of one name with a comma.
        joined = environ.get("HTTP_X_API_KEY")
        return [] if joined is None else joined.split(",")

    def peer(self, environ: MutableMapping[str, Any]) -> str | None:
        return environ.get("REMOTE_ADDR")

    def forwarded_for(self, environ: MutableMapping[str, Any]) -> str:
        found: str = environ.get("HTTP_X_FORWARDED_FOR", "")
        return found


READ = _Reader()


class _Middleware:
    """What both do with a verdict."""

    def __init__(
        self, app: App, rule: Rule[Environ], *, exempt: Iterable[str], headers: bool, state: str
    ) -> None:
        self.app = app
        self._rule = rule
        self._exempt = exemption(exempt)
        self._headers = headers
        self._state = state

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if self._exempt(_path(environ)):
            return self.app(environ, start_response)

        def leave(record: _once.Record, asked: _once.Asked) -> None:
            record.leave(environ, self._state, asked)

        asked = self._rule.ask(environ, environ, leave)
        if asked is None:
            return self.app(environ, start_response)
        record = _once.of(environ)
        if asked.refusal is not None:
            accept, method = environ.get("HTTP_ACCEPT", ""), environ["REQUEST_METHOD"]
            refusal = _web.refusal(asked.refusal, record.fields(), accept, method)
            start_response(f"{refusal.status} {refusal.reason}", refusal.headers)
            return [refusal.body]
        if self._headers and not record.sets_headers:
            record.sets_headers = True
            start_response = _with(record, start_response)
        return self.app(environ, start_response)


class GateMiddleware(_Middleware):
    """Lets a request in when its ``X-API-Key`` is good and has quota left, and charges it.

    The verdict is in ``environ["keytally.verdict"]``. A refused request gets 401 or 429 with the verdict's
    body and header fields. A key that is sent twice is refused. Servers join the two with a comma, so an
    imported key that has a comma is refused too.

    Args:
        app: The application.
        gate: The gate. Every worker may open it, or inherit it from the process that forks it: quotas are
            exact.
        exempt: Paths that need no key: ``"/health"``, or all that begin alike, ``"/static/*"``.
        cost: Units that a request is charged, or a function of its environ that returns them.
        shadow: Whether to let everything in, and only say in ``X-Keytally-Shadow`` what would be refused.
        headers: Whether responses tell what is left of the quota, in place of what the application says of
            it.
        state: The name of the verdict in the environ.
        on_verdict: A function that is called with each verdict and its environ, for logs and metrics. What it
            raises is logged.
        failures: How many wrong keys a client address may send. More get 429. A right key is never refused by
            it, and a missing key does not count. A policy counts for one process and the children that it
            forks. ``Limiter.open_or_create(path, policy)`` counts for all workers. ``None`` sets no limit.
        trusted_proxies: The proxies whose ``X-Forwarded-For`` names the client: addresses, networks such as
            ``"10.0.0.0/8"``, or ``"unix"`` for all peers of Unix sockets. Not needed
            where something in front takes the address from the header, as Werkzeug's ``ProxyFix`` does.
        ipv6_prefix: How many bits of an IPv6 address count for ``failures``.

    Raises:
        TypeError, ValueError: An argument is of another type, or out of bounds; something in ``exempt`` can
            never match, or something in ``trusted_proxies`` is not a network; a function is async.

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
        state: str = "keytally.verdict",
        on_verdict: Callable[[Verdict, Environ], object] | None = None,
        failures: Limiter | str | None = DEFAULT,
        trusted_proxies: Iterable[str] = (),
        ipv6_prefix: int = IPV6_PREFIX,
    ) -> None:
        rule = GateRule[Environ](
            gate,
            READ,
            Guesses(failures, trusted_proxies, ipv6_prefix),
            cost=cost,
            shadow=shadow,
            headers=headers,
            on_verdict=on_verdict,
        )
        super().__init__(app, rule, exempt=exempt, headers=headers, state=state)


class LimiterMiddleware(_Middleware):
    """Lets a request in when its subject has quota left, and charges it.

    The subject is the client's address, or what ``key`` returns.

    With a gate in the same application, the verdict in the environ and X-RateLimit-* are the gate's.

    Args:
        app: The application.
        limiter: The limiter. ``Limiter(policy)`` counts for one process and the children that it forks;
            ``Limiter.open_or_create(path, policy)`` counts for all workers, however they are started.
        key: A function of the environ that returns the subject, or ``None`` to let the request in uncounted;
            the client's address when left out.
        exempt: Paths that aren't counted: ``"/health"``, or all that begin alike, ``"/static/*"``.
        cost: Units that a request is charged, or a function of its environ that returns them.
        shadow: Whether to let everything in, and only say in ``X-Keytally-Shadow`` what would be refused.
        headers: Whether responses tell what is left of the quota.
        state: The name of the verdict in the environ.
        on_verdict: A function that is called with each verdict and its environ, for logs and metrics. What it
            raises is logged.
        ipv6_prefix: How many bits of an IPv6 address count, where ``key`` is left out.

    >>> from keytally import Limiter
    >>> def application(environ, start_response): ...
    >>> application = LimiterMiddleware(application, Limiter("20/minute, 200/hour"), exempt=["/health"])

    """

    def __init__(
        self,
        app: App,
        limiter: Limiter,
        *,
        key: Callable[[Environ], str | bytes | None] | None = None,
        exempt: Iterable[str] = (),
        cost: Cost = 1,
        shadow: bool = False,
        headers: bool = True,
        state: str = "keytally.verdict",
        on_verdict: Callable[[Verdict, Environ], object] | None = None,
        ipv6_prefix: int = IPV6_PREFIX,
    ) -> None:
        rule = LimiterRule[Environ](
            limiter,
            key or functools.partial(client_address, ipv6_prefix=checked_prefix(ipv6_prefix)),
            cost=cost,
            shadow=shadow,
            headers=headers,
            on_verdict=on_verdict,
        )
        super().__init__(app, rule, exempt=exempt, headers=headers, state=state)


def _path(environ: Environ) -> str:
    """Return the path within the application as text: WSGI has its bytes as characters."""
    path: str = environ.get("PATH_INFO", "")
    return path if path.isascii() else path.encode("latin-1").decode("utf-8", "replace")


def _with(record: _once.Record, start_response: StartResponse) -> StartResponse:
    """Return a start_response that sets the header fields."""

    def start_with_headers(status: str, headers: list[tuple[str, str]], *exc_info: object) -> object:
        kept = [field for field in headers if field[0].lower() not in _web.NAMES]
        return start_response(status, kept + record.fields(), *exc_info)

    return start_with_headers
