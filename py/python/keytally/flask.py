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
... @limit(Limiter("5/minute"))
... def login():
...     return ""

Every response has the header fields, also one to an error. The verdict is ``flask.g.verdict``.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, Union

from flask import Flask, Request, Response, after_this_request, current_app, g, request

from keytally import _once, _rule, _web, wsgi
from keytally._addresses import IPV6_PREFIX, checked_prefix
from keytally._exempt import exemption
from keytally._guesses import DEFAULT, Guesses

if TYPE_CHECKING:
    from keytally import Gate, Limiter, Verdict

__all__ = ["GateExtension", "LimiterExtension", "client_address", "limit", "require_key"]

Cost = Union[int, Callable[[Request], int]]
View = TypeVar("View", bound=Callable[..., Any])


def client_address(request: Request, *, ipv6_prefix: int = IPV6_PREFIX) -> str:
    """Return what counts the client's address, as the server reports it, by ``docs/ADDRESSES.md``.

    Behind a proxy that is the proxy's, unless Werkzeug's ``ProxyFix`` takes it from the proxy's header.

    Args:
        request: The request.
        ipv6_prefix: How many bits of an IPv6 address count: a client has all of its /64.

    Raises:
        RuntimeError: There is no address, as on a Unix socket.

    >>> from flask import Request
    >>> client_address(Request({"REMOTE_ADDR": "203.0.113.9"}))
    '203.0.113.9'

    """
    return wsgi.client_address(request.environ, ipv6_prefix=ipv6_prefix)


def _refusal(rule: _rule.Rule[Request]) -> Response | None:
    """Return the response to the request if it isn't admitted."""
    asking: Request = request._get_current_object()  # type: ignore[attr-defined]
    asked = rule.ask(asking, asking.environ, _leave)
    if asked is None:
        return None
    record = _once.of(asking.environ)
    if asked.refusal is not None:
        accept = asking.headers.get("Accept", "")
        refusal = _web.refusal(asked.refusal, record.fields(), accept, asking.method)
        return Response(refusal.body, refusal.status, refusal.headers)
    if not record.sets_headers:
        record.sets_headers = True

        @after_this_request
        def set_headers(response: Response) -> Response:
            for name, value in record.fields():
                response.headers[name] = value
            return response

    return None


def _leave(record: _once.Record, asked: _once.Asked) -> None:  # noqa: ARG001
    g.verdict = record.verdict


def _decorator(rule: _rule.Rule[Request]) -> Callable[[View], View]:
    def decorate(view: View) -> View:
        @functools.wraps(view)
        def guarded(*args: object, **kwargs: object) -> object:
            refusal = _refusal(rule)
            return current_app.ensure_sync(view)(*args, **kwargs) if refusal is None else refusal

        return guarded  # type: ignore[return-value]

    return decorate


class _Extension:
    """What both do before each request."""

    def __init__(self, rule: _rule.Rule[Request], app: Flask | None, exempt: Iterable[str]) -> None:
        self._rule = rule
        self._exempt_path = exemption(exempt)
        self._exempt_views: set[object] = set()
        self._examined: set[Flask] = set()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Ask about each request of the application from now on."""
        app.before_request(self._before_request)

    def exempt(self, view: View) -> View:
        """Let a view's requests in unasked: a decorator, directly below that of the route.

        Decorators between the two are fine if they use `functools.wraps`. One that hides the view is an error
        at the application's first request.

        Raises:
            TypeError: The view is a method. The decorator belongs on its class.

        """
        name = getattr(view, "__qualname__", type(view).__name__)
        owner = name.rpartition(".")[0]
        in_class = isinstance(view, types.FunctionType) and owner and not owner.endswith("<locals>")
        if in_class or isinstance(view, (staticmethod, classmethod)):
            raise TypeError(
                f"{name} is a method, which can't be exempt alone: "
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
        if self._exempt_path(request.path) or self._is_exempt():
            return None
        return _refusal(self._rule)

    def _is_exempt(self) -> bool:
        # Flask answers a browser's preflight itself, which carries no key, and no view sees it.
        if request.method == "OPTIONS" and getattr(request.url_rule, "provide_automatic_options", False):
            return True
        if not self._exempt_views:
            return False
        view = current_app.view_functions.get(request.endpoint or "")
        return not self._exempt_views.isdisjoint(_unwrapped(view))

    def _refuse_hidden(self, app: Flask) -> None:
        """Refuse an application in which a decorator hides an exempt view."""
        found: set[object] = set()
        for view in app.view_functions.values():
            found.update(_unwrapped(view))
        for view in app.view_functions.values():
            for hidden in _closed_over(view):
                if hidden in self._exempt_views and hidden not in found:
                    name = getattr(hidden, "__qualname__", repr(hidden))
                    raise RuntimeError(
                        f"{name} is exempt, but a decorator above it hides that: "
                        "put exempt directly below the route, or use functools.wraps in the decorator"
                    )


def _unwrapped(view: object) -> list[object]:
    """Return a view, its class if it has one, and the functions that its decorators wrap."""
    found: list[object] = []
    while view is not None and view not in found:
        found += [view, getattr(view, "view_class", None)]
        view = getattr(view, "__wrapped__", None)
    return found


def _closed_over(view: object) -> list[object]:
    """Return the functions and classes that a view can call because a decorator gave them to it."""
    found = [view]
    for one in found:
        cells = (one.__closure__ or ()) if isinstance(one, types.FunctionType) else ()
        for cell in cells:
            try:
                held = cell.cell_contents
            except ValueError:
                # It is not filled yet.
                continue
            if isinstance(held, (types.FunctionType, type)) and held not in found:
                found.append(held)
    return found


class GateExtension(_Extension):
    """Lets a request in when its ``X-API-Key`` is good and has quota left, and charges it.

    Args:
        gate: The gate. Every worker may open it, or inherit it from the process that forks it: quotas are
            exact.
        app: The application, or ``None`` and ``init_app`` later.
        exempt: Paths that need no key: ``"/health"``, or all that begin alike, ``"/static/*"``.
        cost: Units that a request is charged, or a function of the request that returns them.
        shadow: Whether to let everything in, and only say in ``X-Keytally-Shadow`` what would be refused.
        on_verdict: A function that is called with each verdict and its request, for logs and metrics. What it
            raises is logged.
        failures: How many wrong keys a client address may send. More get 429. A right key is never refused by
            it, and a missing key does not count. A policy counts for one process and the children that it
            forks. ``Limiter.open_or_create(path, policy)`` counts for all workers. ``None`` sets no limit.
        trusted_proxies: The proxies whose ``X-Forwarded-For`` names the client: addresses, networks such as
            ``"10.0.0.0/8"``, or ``"unix"`` for all peers of Unix sockets. Not needed
            where Werkzeug's ``ProxyFix`` takes the address from the header.
        ipv6_prefix: How many bits of an IPv6 address count for ``failures``.

    """

    def __init__(
        self,
        gate: Gate,
        app: Flask | None = None,
        *,
        exempt: Iterable[str] = (),
        cost: Cost = 1,
        shadow: bool = False,
        on_verdict: Callable[[Verdict, Request], object] | None = None,
        failures: Limiter | str | None = DEFAULT,
        trusted_proxies: Iterable[str] = (),
        ipv6_prefix: int = IPV6_PREFIX,
    ) -> None:
        rule = _rule.GateRule[Request](
            gate,
            wsgi.READ,
            Guesses(failures, trusted_proxies, ipv6_prefix),
            cost=cost,
            shadow=shadow,
            on_verdict=on_verdict,
        )
        super().__init__(rule, app, exempt)


class LimiterExtension(_Extension):
    """Lets a request in when its subject has quota left, and charges it.

    Args:
        limiter: The limiter. ``Limiter(policy)`` counts for one process and the children that it forks;
            ``Limiter.open_or_create(path, policy)`` counts for all workers, however they are started.
        app: The application, or ``None`` and ``init_app`` later.
        key: A function of the request that returns the subject, or ``None`` to let it in uncounted; the
            client's address when left out.
        exempt: Paths that aren't counted: ``"/health"``, or all that begin alike, ``"/static/*"``.
        cost: Units that a request is charged, or a function of the request that returns them.
        shadow: Whether to let everything in, and only say in ``X-Keytally-Shadow`` what would be refused.
        on_verdict: A function that is called with each verdict and its request, for logs and metrics. What it
            raises is logged.
        ipv6_prefix: How many bits of an IPv6 address count, where ``key`` is left out.

    >>> from flask import Flask
    >>> from keytally import Limiter
    >>> app = Flask("contacts")
    >>> limit_all = LimiterExtension(Limiter("1/31d"), app)
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
        cost: Cost = 1,
        shadow: bool = False,
        on_verdict: Callable[[Verdict, Request], object] | None = None,
        ipv6_prefix: int = IPV6_PREFIX,
    ) -> None:
        super().__init__(_of_limiter(limiter, key, cost, shadow, on_verdict, ipv6_prefix), app, exempt)


def require_key(
    gate: Gate,
    *,
    cost: Cost = 1,
    shadow: bool = False,
    on_verdict: Callable[[Verdict, Request], object] | None = None,
    failures: Limiter | str | None = DEFAULT,
    trusted_proxies: Iterable[str] = (),
    ipv6_prefix: int = IPV6_PREFIX,
) -> Callable[[View], View]:
    """Return a decorator of one view, below that of the route, that does what `GateExtension` does.

    >>> from flask import Flask
    >>> from keytally import Gate, generate_pepper
    >>> gate = Gate.in_memory(pepper=generate_pepper(), keys=100)
    >>> app = Flask("contacts")
    >>> @app.get("/contacts")
    ... @require_key(gate)
    ... def contacts(): ...
    >>> app.test_client().get("/contacts").status_code
    401

    """
    rule = _rule.GateRule[Request](
        gate,
        wsgi.READ,
        Guesses(failures, trusted_proxies, ipv6_prefix),
        cost=cost,
        shadow=shadow,
        on_verdict=on_verdict,
    )
    return _decorator(rule)


def limit(
    limiter: Limiter,
    *,
    key: Callable[[Request], str | bytes | None] | None = None,
    cost: Cost = 1,
    shadow: bool = False,
    on_verdict: Callable[[Verdict, Request], object] | None = None,
    ipv6_prefix: int = IPV6_PREFIX,
) -> Callable[[View], View]:
    """Return a decorator of one view, below that of the route, that does what `LimiterExtension` does."""
    return _decorator(_of_limiter(limiter, key, cost, shadow, on_verdict, ipv6_prefix))


def _of_limiter(
    limiter: Limiter,
    key: Callable[[Request], str | bytes | None] | None,
    cost: Cost,
    shadow: bool,
    on_verdict: Callable[[Verdict, Request], object] | None,
    ipv6_prefix: int,
) -> _rule.LimiterRule[Request]:
    key = key or functools.partial(client_address, ipv6_prefix=checked_prefix(ipv6_prefix))
    return _rule.LimiterRule[Request](limiter, key, cost=cost, shadow=shadow, on_verdict=on_verdict)
