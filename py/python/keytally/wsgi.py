"""Middleware for every WSGI server and framework: Flask, Django, Pyramid, Bottle, Falcon.

>>> from keytally import Gate, generate_pepper
>>> from keytally.wsgi import GateMiddleware
>>> gate = Gate.in_memory(pepper=generate_pepper(), keys=100)
>>> def application(environ, start_response): ...
>>> application = GateMiddleware(application, gate, exempt=["/health", "/static/*"])

In Flask, use ``app.wsgi_app = GateMiddleware(app.wsgi_app, gate)``, or the extension in
`keytally.flask`.

If the application raises an exception, the response of the server has no rate-limit fields. The
response has them if the application handles its exceptions, as Flask and Django do, or if
middleware between this one and the application does: ``GateMiddleware(errors(app), gate)``.

If several integrations check a request, it is charged once and has one verdict: see
``docs/INTEGRATIONS.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Union

from keytally import _web
from keytally._addresses import IPV6_PREFIX, subject
from keytally._charges import Record, record_of
from keytally._guesses import DEFAULT
from keytally._middleware import Middleware
from keytally._refusal import Refusal
from keytally._rule import GateRule, LimiterRule, Statuses
from keytally._settle import Sent
from keytally._watch import Body, Input, Watch

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from keytally import Gate, Limiter, Verdict
    from keytally._keys import Source

__all__ = ["GateMiddleware", "LimiterMiddleware", "client_address"]

Environ = dict[str, Any]
# Servers differ in the types that they pass and accept.
StartResponse = Callable[..., Any]
App = Callable[[Any, Any], Iterable[bytes]]
Cost = Union[int, Callable[[Environ], int]]
Given = Union[str, Iterable[str], None]
Names = Union[Given, Callable[[Environ], Given]]
CostsOf = Union[Mapping[str, int], None]
GroupCosts = Union[CostsOf, Callable[[Environ], CostsOf]]
Settle = Callable[[Environ, Sent], int]
RefusalOf = Callable[[Refusal, Environ], Refusal]


def client_address(environ: Environ, *, ipv6_prefix: int = IPV6_PREFIX) -> str:
    """Return the subject by which a limiter counts the client: see ``docs/ADDRESSES.md``.

    It is the IPv4 address, or the IPv6 network, of the peer that the server reports. Behind a
    proxy, the peer is the proxy, unless another component resolves the client's address from the
    header of the proxy, as Werkzeug's ``ProxyFix`` does.

    Args:
        environ: The WSGI environ of the request.
        ipv6_prefix: The prefix length of the IPv6 networks that count as one client, 1 to 128.

    Raises:
        RuntimeError: The peer has no address, as on a Unix socket.

    >>> client_address({"REMOTE_ADDR": "203.0.113.9"})
    '203.0.113.9'

    """
    return subject(READ.peer(environ), ipv6_prefix)


class _Reader:
    """The functions that read the fields of a request from its environ.

    ``request.META`` of Django has the same names as an environ.
    """

    def values(self, environ: MutableMapping[str, Any], source: Source) -> list[str]:
        # Servers join the fields of one name with a comma.
        joined = environ.get(source.variable)
        return [] if joined is None else joined.split(",")

    def peer(self, environ: MutableMapping[str, Any]) -> str | None:
        return environ.get("REMOTE_ADDR")

    def forwarded_for(self, environ: MutableMapping[str, Any]) -> str:
        found: str = environ.get("HTTP_X_FORWARDED_FOR", "")
        return found


READ = _Reader()


class _Middleware(Middleware[App, Environ]):
    """Middleware that applies a rule of a gate or a limiter to WSGI requests."""

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("REQUEST_METHOD") in self._exempt_methods or self._is_exempt(_path(environ)):
            return self.app(environ, start_response)
        if self._rule.settlement is not None:
            record = record_of(environ)
            if record.claim_watch():
                return _watched(self._checked, record, environ, start_response)
        return self._checked(environ, start_response)

    def _checked(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Check a request, and pass it to the application if it is admitted."""
        decision = self._rule.check(environ, environ, self._store_in(environ))
        if decision is None:
            return self.app(environ, start_response)
        record = record_of(environ)
        if decision.refusal is not None:
            accept, method = environ.get("HTTP_ACCEPT", ""), environ["REQUEST_METHOD"]
            response = _web.response(decision.refusal, record.fields(), accept, method)
            start_response(f"{response.status} {response.reason}", response.headers)
            return [response.body]
        if self._headers and record.claim_headers():
            start_response = _with_headers(record, start_response)
        return self.app(environ, start_response)


class GateMiddleware(_Middleware):
    """Admits and charges a request whose ``X-API-Key`` is valid and has quota left.

    The verdict is ``environ["keytally.verdict"]``. A refused request gets 401 or 429 with the
    verdict's body and header fields, or 400 if its cost is out of range. A request with two keys is
    refused. Servers join the two with a comma, so an imported key that has a comma is refused too.

    Args:
        app: The application.
        gate: The gate. Every worker may open it, or inherit it from the process that forks it:
            quotas are exact.
        exempt: Paths that need no key: ``"/health"``, or all paths with a prefix, ``"/static/*"``.
        exempt_methods: Methods that need no key, such as ``"OPTIONS"``.
        cost: The cost of a request in units, 0 to 4294967295, or a function of its environ that
            returns it.
        group: The groups of the gate's plans that are charged ``cost`` too: a name, several, or a
            function of the environ that returns them.
        costs: The groups that are charged a cost of their own, such as ``{"tokens": 2500}``, or a
            function of the environ that returns them.
        need: The scopes that the key must have: a name, several, or a function of the environ that
            returns them. Without one of them, the response has status 403.
        shadow: Whether to admit every request, and only report in ``X-Keytally-Shadow`` the outcome
            that would refuse it.
        headers: Whether responses have the rate-limit fields. They replace those of the
            application.
        state: The name of the verdict in the environ.
        on_verdict: A function that is called with each verdict and its environ, for logs and
            metrics. An exception that it raises is logged.
        settle: A function of the environ and of what was `Sent` that returns the actual cost
            after the response. The charge is an estimate until then.
            For groups with costs of their own, it returns a dict of costs, see
            ``docs/INTEGRATIONS.md``.
        refund: The statuses at which the charge is refunded after the response: a number, a class
            such as ``"5xx"``, or a list of them.
        refusal: A function of the `Refusal` and the environ that returns the response to a refused
            request: another status, body or content type.
        failures: The limit of wrong keys for each client address. Beyond it, a wrong key gets 429.
            A valid key is never refused by it, and a missing key does not count. A policy counts
            for one process and the children that it forks. ``Limiter.open_or_create(path, policy)``
            counts for all workers. ``None`` sets no limit.
        trusted_proxies: The proxies whose ``X-Forwarded-For`` names the client: addresses, networks
            such as ``"10.0.0.0/8"``, or ``"unix"`` for all peers of Unix sockets. Leave it empty
            if another component resolves the address already, as Werkzeug's ``ProxyFix`` does.
        ipv6_prefix: The prefix length of the IPv6 networks that ``failures`` and ``without_key``
            count, 1 to 128.
        key_from: The headers that may carry the key: names, and ``"Authorization: Bearer"``. A
            request with two different keys gets 401.
        without_key: The limiter of requests without a key, which it counts by client address;
            ``None`` to refuse them.

    Raises:
        TypeError, ValueError: An argument has the wrong type or is out of range, the gate does not
            have a group or a scope, a path of ``exempt`` can never match, a text of
            ``trusted_proxies`` is not a network, or a function is async.

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
        state: str = "keytally.verdict",
        on_verdict: Callable[[Verdict, Environ], object] | None = None,
        settle: Settle | None = None,
        refund: Statuses = (),
        refusal: RefusalOf | None = None,
        failures: Limiter | str | None = DEFAULT,
        trusted_proxies: Iterable[str] = (),
        ipv6_prefix: int = IPV6_PREFIX,
        key_from: Iterable[str] = (_web.API_KEY_HEADER,),
        without_key: Limiter | None = None,
    ) -> None:
        rule = GateRule[Environ].with_failures(
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

    If the application has a gate too, the verdict in the environ and X-RateLimit-* are those of the
    gate.

    Args:
        app: The application.
        limiter: The limiter. ``Limiter.in_memory(policy)`` counts for one process and the children
            that it forks. ``Limiter.open_or_create(path, policy)`` counts for all workers, however
            they are started.
        key: A function of the environ that returns the subject, or ``None`` to admit the request
            without a charge. By default, the subject is the client's address.
        exempt: Paths that are not counted: ``"/health"``, or all paths with a prefix,
            ``"/static/*"``.
        exempt_methods: Methods that are not counted, such as ``"OPTIONS"``.
        cost: The cost of a request in units, 0 to 4294967295, or a function of its environ that
            returns it.
        shadow: Whether to admit every request, and only report in ``X-Keytally-Shadow`` the outcome
            that would refuse it.
        headers: Whether responses have the rate-limit fields.
        state: The name of the verdict in the environ.
        on_verdict: A function that is called with each verdict and its environ, for logs and
            metrics. An exception that it raises is logged.
        settle: A function of the environ and of what was `Sent` that returns the actual cost
            after the response. The charge is an estimate until then.
        refund: The statuses at which the charge is refunded after the response: a number, a class
            such as ``"5xx"``, or a list of them.
        charge_on: The statuses at which a request is charged, after its response. Before, the
            limiter is only checked for room. ``None`` charges each request before its response.
        refusal: A function of the `Refusal` and the environ that returns the response to a refused
            request: another status, body or content type.
        ipv6_prefix: The prefix length of the IPv6 networks that count as one client, 1 to 128, if
            there is no ``key``. The policy of a limiter of addresses has prefixes of its own.

    Raises:
        TypeError, ValueError: An argument has the wrong type or is out of range, a path of
            ``exempt`` can never match, or a function is async.

    >>> from keytally import Limiter
    >>> def application(environ, start_response): ...
    >>> limiter = Limiter.in_memory("20/minute, 200/hour")
    >>> application = LimiterMiddleware(application, limiter, exempt=["/health"])

    """

    def __init__(
        self,
        app: App,
        limiter: Limiter,
        *,
        key: Callable[[Environ], str | bytes | None] | None = None,
        exempt: Iterable[str] = (),
        exempt_methods: Iterable[str] = (),
        cost: Cost = 1,
        shadow: bool = False,
        headers: bool = True,
        state: str = "keytally.verdict",
        on_verdict: Callable[[Verdict, Environ], object] | None = None,
        settle: Settle | None = None,
        refund: Statuses = (),
        charge_on: Statuses | None = None,
        refusal: RefusalOf | None = None,
        ipv6_prefix: int = IPV6_PREFIX,
    ) -> None:
        rule = LimiterRule[Environ].with_default_key(
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
        )
        super().__init__(
            app,
            rule,
            exempt=exempt,
            exempt_methods=exempt_methods,
            headers=headers,
            state=state,
        )


def _path(environ: Environ) -> str:
    """Return the path within the application. Each character of ``PATH_INFO`` is one byte of it."""
    path: str = environ.get("PATH_INFO", "")
    return path if path.isascii() else path.encode("latin-1").decode("utf-8", "replace")


def _with_headers(record: Record, start_response: StartResponse) -> StartResponse:
    """Return a ``start_response`` that sets the header fields."""

    def start_with_headers(
        status: str, headers: list[tuple[str, str]], *exc_info: object
    ) -> object:
        kept = [field for field in headers if field[0].lower() not in _web.REPLACED_NAMES]
        return start_response(status, kept + record.fields(), *exc_info)

    return start_with_headers


def _watched(
    app: App, record: Record, environ: Environ, start_response: StartResponse
) -> Iterable[bytes]:
    """Call the application, and settle the charges of the request after the response."""
    watch = Watch(record)
    if "wsgi.input" in environ:
        environ["wsgi.input"] = Input(environ["wsgi.input"], watch)

    def start_watched(status: str, headers: list[tuple[str, str]], *exc_info: object) -> object:
        write = start_response(status, headers, *exc_info)
        watch.start(int(status[:3]), lambda: list(headers))

        def write_watched(part: bytes) -> object:
            watch.size += len(part)
            return write(part)

        return write_watched

    try:
        parts = app(environ, start_watched)
    except BaseException as error:
        watch.finish(error)
        raise
    if isinstance(parts, (list, tuple)) and watch.status is not None:
        # The length of a list lets the server set Content-Length.
        watch.size += sum(len(part) for part in parts)
        watch.is_complete = True
        watch.finish()
        return parts
    return Body(parts, watch)
