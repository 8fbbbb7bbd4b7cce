"""Extensions and decorators for Flask.

>>> from flask import Flask, g
>>> from keytally import Gate, Limiter, generate_pepper
>>> from keytally.flask import GateExtension, limit
>>> gate = Gate.in_memory(pepper=generate_pepper(), keys=100)
>>> app = Flask("contacts")
>>> api_keys = GateExtension(gate, app, exempt=["/health"])
>>> @app.get("/contacts")
... def contacts():
...     return {"account": g.verdict.account}
>>> @app.post("/login")
... @api_keys.exempt
... @limit(Limiter.in_memory("5/minute"))
... def login():
...     return ""

Each response to a checked request has the header fields of its verdict, even a 404 or 500. The
verdict is ``flask.g.verdict``.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, Union

from flask import (
    Flask,
    Request,
    Response,
    after_this_request,
    current_app,
    g,
    request,
    request_finished,
    request_tearing_down,
)

from keytally import _exempt, _web, wsgi
from keytally._addresses import IPV6_PREFIX
from keytally._charges import Decision, Record, record_of
from keytally._guesses import DEFAULT
from keytally._refusal import Refusal
from keytally._rule import GateRule, LimiterRule, Rule, Statuses
from keytally._settle import Sent
from keytally._watch import Body, Input, Watch

if TYPE_CHECKING:
    from keytally import Gate, Limiter, Verdict

__all__ = ["GateExtension", "LimiterExtension", "client_address", "limit", "require_key"]

Cost = Union[int, Callable[[Request], int]]
Given = Union[str, Iterable[str], None]
Names = Union[Given, Callable[[Request], Given]]
CostsOf = Union[Mapping[str, int], None]
GroupCosts = Union[CostsOf, Callable[[Request], CostsOf]]
Settle = Callable[[Request, Sent], int]
RefusalOf = Callable[[Refusal, Request], Refusal]
View = TypeVar("View", bound=Callable[..., Any])


def client_address(request: Request, *, ipv6_prefix: int = IPV6_PREFIX) -> str:
    """Return the subject by which a limiter counts the client: see ``docs/ADDRESSES.md``.

    It is the IPv4 address, or the IPv6 network, of the peer that the server reports. Behind a
    proxy, the peer is the proxy, unless Werkzeug's ``ProxyFix`` resolves the client's address from
    the header of the proxy.

    Args:
        request: The request.
        ipv6_prefix: The prefix length of the IPv6 networks that count as one client, 1 to 128.

    Raises:
        RuntimeError: The peer has no address, as on a Unix socket.

    >>> from flask import Request
    >>> client_address(Request({"REMOTE_ADDR": "203.0.113.9"}))
    '203.0.113.9'

    """
    return wsgi.client_address(request.environ, ipv6_prefix=ipv6_prefix)


def _refusal(rule: Rule[Request]) -> Response | None:
    """Check the current request, and return the response to it if it is refused."""
    current: Request = request._get_current_object()  # type: ignore[attr-defined]
    record = record_of(current.environ)
    if rule.settlement is not None and record.claim_watch():
        watch = Watch(record)
        setattr(current, WATCH, watch)
        if "wsgi.input" in current.environ:
            current.environ["wsgi.input"] = Input(current.environ["wsgi.input"], watch)
    decision = rule.check(current, current.environ, _store)
    if decision is None:
        return None
    if decision.refusal is not None:
        accept = current.headers.get("Accept", "")
        # Flask omits the body of the response to HEAD, and needs it for Content-Length.
        response = _web.response(decision.refusal, record.fields(), accept, "GET")
        return Response(response.body, response.status, response.headers)
    if record.claim_headers():
        setattr(current, RECORD, record)

        @after_this_request
        def set_headers(response: Response) -> Response:
            _set_fields(record, response)
            return response

    return None


# The attributes of a request, and the second also of its response: the watch until the charges are
# settled, and the record whose header fields the response has. An environ would not do: a view may
# call another application with it.
WATCH = "keytally_watch"
RECORD = "keytally_record"


def _set_fields(record: Record, response: Response) -> None:
    """Set the header fields of a response, once: a function of the application may remove them."""
    if not hasattr(response, RECORD):
        setattr(response, RECORD, record)
        for name, value in record.fields():
            response.headers[name] = value


def _finish(sender: Flask, response: Response, **_: object) -> None:  # noqa: ARG001
    """Set the header fields of the response that is sent, and settle the charges after it.

    It is called after the functions of ``after_request``, which may replace the response.
    """
    current: Request = request._get_current_object()  # type: ignore[attr-defined]
    record: Record | None = getattr(current, RECORD, None)
    if record is not None:
        _set_fields(record, response)
    watch: Watch | None = current.__dict__.pop(WATCH, None)
    if watch is None:
        return
    watch.start(response.status_code, lambda: list(response.headers))
    if response.is_streamed or response.direct_passthrough:
        # Not teardown, but the end of the body settles the charges.
        response.response = Body(response.response, watch)
    else:
        watch.size = len(response.get_data())
        watch.is_complete = True
        watch.finish()


def _tear_down(sender: Flask, exc: BaseException | None = None, **_: object) -> None:  # noqa: ARG001
    """Settle the charges of a request whose exception Flask passes to the server.

    Also settles those of a request for which no response passed all functions of ``after_request``.
    """
    current: Request = request._get_current_object()  # type: ignore[attr-defined]
    watch: Watch | None = current.__dict__.pop(WATCH, None)
    if watch is not None:
        watch.finish(exc)


request_finished.connect(_finish)
request_tearing_down.connect(_tear_down)


def _store(record: Record, decision: Decision) -> None:  # noqa: ARG001
    """Store the verdict of the current request for the view."""
    g.verdict = record.verdict


def _decorator(rule: Rule[Request]) -> Callable[[View], View]:
    """Return a decorator that applies the rule before each call of a view."""

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def guarded(*args: object, **kwargs: object) -> object:
            refusal = _refusal(rule)
            return current_app.ensure_sync(view)(*args, **kwargs) if refusal is None else refusal

        return guarded  # type: ignore[return-value]

    return decorate


class _Extension:
    """An extension that applies a rule before each request."""

    def __init__(
        self,
        rule: Rule[Request],
        app: Flask | None,
        exempt: Iterable[str],
        exempt_methods: Iterable[str],
    ) -> None:
        self._rule = rule
        self._exempt_path = _exempt.exemption(exempt)
        self._exempt_methods = _exempt.exempt_methods(exempt_methods)
        self._exempt_views: set[object] = set()
        # The applications that were examined: no decorator hides an exempt view.
        self._examined: set[Flask] = set()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Check each request of the application from now on."""
        app.before_request(self._before_request)

    def exempt(self, view: View) -> View:
        """Mark a view whose requests need no check: a decorator, to put directly below the route.

        A decorator between the route and this one must use `functools.wraps`. If it hides the view,
        each request to the application raises a `RuntimeError`.

        Raises:
            TypeError: The view is a method. Decorate its class instead.

        """
        name = getattr(view, "__qualname__", type(view).__name__)
        owner = name.rpartition(".")[0]
        in_class = isinstance(view, types.FunctionType) and owner and not owner.endswith("<locals>")
        if in_class or isinstance(view, (staticmethod, classmethod)):
            raise TypeError(
                f"{name} is a method, and only a class or a function can be exempt: "
                "make its class exempt, or list its path in exempt="
            )
        self._exempt_views.add(view)
        return view

    def _before_request(self) -> Response | None:
        if self._exempt_views:
            app = current_app._get_current_object()  # type: ignore[attr-defined]
            if app not in self._examined:
                self._refuse_hidden(app)
                self._examined.add(app)
        if (
            request.method in self._exempt_methods
            or self._exempt_path(request.path)
            or self._is_exempt()
        ):
            return None
        return _refusal(self._rule)

    def _is_exempt(self) -> bool:
        # Flask responds to a preflight request, which has no key, without a call of the view.
        if request.method == "OPTIONS" and getattr(
            request.url_rule, "provide_automatic_options", False
        ):
            return True
        if not self._exempt_views:
            return False
        view = current_app.view_functions.get(request.endpoint or "")
        return not self._exempt_views.isdisjoint(_unwrapped(view))

    def _refuse_hidden(self, app: Flask) -> None:
        """Raise a `RuntimeError` if a decorator hides an exempt view of the application."""
        found: set[object] = set()
        for view in app.view_functions.values():
            found.update(_unwrapped(view))
        for view in app.view_functions.values():
            for hidden in _closed_over(view):
                if hidden in self._exempt_views and hidden not in found:
                    name = getattr(hidden, "__qualname__", repr(hidden))
                    raise RuntimeError(
                        f"{name} is exempt, but a decorator above it hides that: "
                        "put exempt directly below the route, "
                        "or use functools.wraps in the decorator"
                    )


def _unwrapped(view: object) -> list[object]:
    """Return a view, its class if it has one, and the functions that its decorators wrap."""
    found: list[object] = []
    while view is not None and view not in found:
        found += [view, getattr(view, "view_class", None)]
        view = getattr(view, "__wrapped__", None)
    return found


def _closed_over(view: object) -> list[object]:
    """Return a view, and the functions and classes in the closures of its decorators."""
    found = [view]
    for one in found:
        cells = (one.__closure__ or ()) if isinstance(one, types.FunctionType) else ()
        for cell in cells:
            try:
                held = cell.cell_contents
            except ValueError:
                # The cell is empty.
                continue
            if isinstance(held, (types.FunctionType, type)) and held not in found:
                found.append(held)
    return found


class GateExtension(_Extension):
    """Admits and charges a request whose ``X-API-Key`` is valid and has quota left.

    Args:
        gate: The gate. Every worker may open it, or inherit it from the process that forks it:
            quotas are exact.
        app: The application, or ``None`` if ``init_app`` follows.
        exempt: Paths that need no key: ``"/health"``, or all paths with a prefix, ``"/static/*"``.
        exempt_methods: Methods that need no key, such as ``"OPTIONS"``.
        cost: The cost of a request in units, 0 to 4294967295, or a function of the request that
            returns it.
        group: The groups of the gate's plans that are charged ``cost`` too: a name, several, or a
            function of the request that returns them.
        costs: The groups that are charged a cost of their own, such as ``{"tokens": 2500}``, or a
            function of the request that returns them.
        need: The scopes that the key must have: a name, several, or a function of the request that
            returns them. Without one of them, the response has status 403.
        shadow: Whether to admit every request, and only report in ``X-Keytally-Shadow`` the outcome
            that would refuse it.
        on_verdict: A function that is called with each verdict and its request, for logs and
            metrics. An exception that it raises is logged.
        settle: A function of the request and of what was `Sent` that returns the actual cost
            after the response. The charge is an estimate until then.
            For groups with costs of their own, it returns a dict of costs, see
            ``docs/INTEGRATIONS.md``.
        refund: The statuses at which the charge is refunded after the response: a number, a class
            such as ``"5xx"``, or a list of them.
        refusal: A function of the `Refusal` and the request that returns the response to a refused
            request: another status, body or content type.
        failures: The limit of wrong keys for each client address. Beyond it, a wrong key gets 429.
            A valid key is never refused by it, and a missing key does not count. A policy counts
            for one process and the children that it forks. ``Limiter.open_or_create(path, policy)``
            counts for all workers. ``None`` sets no limit.
        trusted_proxies: The proxies whose ``X-Forwarded-For`` names the client: addresses, networks
            such as ``"10.0.0.0/8"``, or ``"unix"`` for all peers of Unix sockets. Leave it empty
            if Werkzeug's ``ProxyFix`` resolves the address already.
        ipv6_prefix: The prefix length of the IPv6 networks that ``failures`` and ``without_key``
            count, 1 to 128.
        key_from: The headers that may carry the key: names, and ``"Authorization: Bearer"``. A
            request with two different keys gets 401.
        without_key: The limiter of requests without a key, which it counts by client address;
            ``None`` to refuse them.

    Raises:
        TypeError, ValueError: An argument has the wrong type or is out of range, the gate does not
            have a group or a scope, a path of ``exempt`` can never match, or a function is async.

    """

    def __init__(
        self,
        gate: Gate,
        app: Flask | None = None,
        *,
        exempt: Iterable[str] = (),
        exempt_methods: Iterable[str] = (),
        cost: Cost = 1,
        group: Names = (),
        costs: GroupCosts = None,
        need: Names = (),
        shadow: bool = False,
        on_verdict: Callable[[Verdict, Request], object] | None = None,
        settle: Settle | None = None,
        refund: Statuses = (),
        refusal: RefusalOf | None = None,
        failures: Limiter | str | None = DEFAULT,
        trusted_proxies: Iterable[str] = (),
        ipv6_prefix: int = IPV6_PREFIX,
        key_from: Iterable[str] = (_web.API_KEY_HEADER,),
        without_key: Limiter | None = None,
    ) -> None:
        rule = GateRule[Request].with_failures(
            gate,
            wsgi.READ,
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
            on_verdict=on_verdict,
            settle=settle,
            refund=refund,
            refusal=refusal,
        )
        super().__init__(rule, app, exempt, exempt_methods)


class LimiterExtension(_Extension):
    """Admits and charges a request whose subject has quota left.

    The subject is the client's address, or the result of ``key``.

    Args:
        limiter: The limiter. ``Limiter.in_memory(policy)`` counts for one process and the children
            that it forks. ``Limiter.open_or_create(path, policy)`` counts for all workers, however
            they are started.
        app: The application, or ``None`` if ``init_app`` follows.
        key: A function of the request that returns the subject, or ``None`` to admit the request
            without a charge. By default, the subject is the client's address.
        exempt: Paths that are not counted: ``"/health"``, or all paths with a prefix,
            ``"/static/*"``.
        exempt_methods: Methods that are not counted, such as ``"OPTIONS"``.
        cost: The cost of a request in units, 0 to 4294967295, or a function of the request that
            returns it.
        shadow: Whether to admit every request, and only report in ``X-Keytally-Shadow`` the outcome
            that would refuse it.
        on_verdict: A function that is called with each verdict and its request, for logs and
            metrics. An exception that it raises is logged.
        settle: A function of the request and of what was `Sent` that returns the actual cost
            after the response. The charge is an estimate until then.
        refund: The statuses at which the charge is refunded after the response: a number, a class
            such as ``"5xx"``, or a list of them.
        charge_on: The statuses at which a request is charged, after its response. Before, the
            limiter is only checked for room. ``None`` charges each request before its response.
        refusal: A function of the `Refusal` and the request that returns the response to a refused
            request: another status, body or content type.
        ipv6_prefix: The prefix length of the IPv6 networks that count as one client, 1 to 128, if
            there is no ``key``. The policy of a limiter of addresses has prefixes of its own.

    Raises:
        TypeError, ValueError: An argument has the wrong type or is out of range, a path of
            ``exempt`` can never match, or a function is async.

    >>> from flask import Flask
    >>> from keytally import Limiter
    >>> app = Flask("contacts")
    >>> limit_all = LimiterExtension(Limiter.in_memory("1/31d"), app)
    >>> [app.test_client().get("/nowhere").status_code for _ in range(2)]
    [404, 429]

    """

    def __init__(
        self,
        limiter: Limiter,
        app: Flask | None = None,
        *,
        key: Callable[[Request], str | bytes | None] | None = None,
        exempt: Iterable[str] = (),
        exempt_methods: Iterable[str] = (),
        cost: Cost = 1,
        shadow: bool = False,
        on_verdict: Callable[[Verdict, Request], object] | None = None,
        settle: Settle | None = None,
        refund: Statuses = (),
        charge_on: Statuses | None = None,
        refusal: RefusalOf | None = None,
        ipv6_prefix: int = IPV6_PREFIX,
    ) -> None:
        rule = LimiterRule[Request].with_default_key(
            limiter,
            key,
            client_address,
            ipv6_prefix=ipv6_prefix,
            cost=cost,
            shadow=shadow,
            on_verdict=on_verdict,
            settle=settle,
            refund=refund,
            charge_on=charge_on,
            refusal=refusal,
        )
        super().__init__(rule, app, exempt, exempt_methods)


def require_key(
    gate: Gate,
    *,
    cost: Cost = 1,
    group: Names = (),
    costs: GroupCosts = None,
    need: Names = (),
    shadow: bool = False,
    on_verdict: Callable[[Verdict, Request], object] | None = None,
    settle: Settle | None = None,
    refund: Statuses = (),
    refusal: RefusalOf | None = None,
    failures: Limiter | str | None = DEFAULT,
    trusted_proxies: Iterable[str] = (),
    ipv6_prefix: int = IPV6_PREFIX,
    key_from: Iterable[str] = (_web.API_KEY_HEADER,),
    without_key: Limiter | None = None,
) -> Callable[[View], View]:
    """Return a decorator by which a view requires a valid key with quota left, and charges it.

    Put it below the route. The arguments are those of `GateExtension`.

    >>> from flask import Flask
    >>> from keytally import Gate, generate_pepper
    >>> gate = Gate.in_memory(pepper=generate_pepper(), keys=100)
    >>> app = Flask("contacts")
    >>> @app.get("/contacts")
    ... @require_key(gate)
    ... def contacts(): ...
    >>> app.test_client().get("/contacts").status_code
    401

    A view that writes, for keys with the scope ``write``:

    >>> plans = {"default": "100/minute; group write: 20/minute"}
    >>> gate = Gate.in_memory(pepper=generate_pepper(), keys=9, plans=plans, scopes=["write"])
    >>> app = Flask("contacts")
    >>> @app.post("/contacts")
    ... @require_key(gate, group="write", need="write")
    ... def add(): ...

    """
    rule = GateRule[Request].with_failures(
        gate,
        wsgi.READ,
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
        on_verdict=on_verdict,
        settle=settle,
        refund=refund,
        refusal=refusal,
    )
    return _decorator(rule)


def limit(
    limiter: Limiter,
    *,
    key: Callable[[Request], str | bytes | None] | None = None,
    cost: Cost = 1,
    shadow: bool = False,
    on_verdict: Callable[[Verdict, Request], object] | None = None,
    settle: Settle | None = None,
    refund: Statuses = (),
    charge_on: Statuses | None = None,
    refusal: RefusalOf | None = None,
    ipv6_prefix: int = IPV6_PREFIX,
) -> Callable[[View], View]:
    """Return a decorator by which a view requires quota left for the subject, and charges it.

    Put it below the route. The arguments are those of `LimiterExtension`.
    """
    rule = LimiterRule[Request].with_default_key(
        limiter,
        key,
        client_address,
        ipv6_prefix=ipv6_prefix,
        cost=cost,
        shadow=shadow,
        on_verdict=on_verdict,
        settle=settle,
        refund=refund,
        charge_on=charge_on,
        refusal=refusal,
    )
    return _decorator(rule)
