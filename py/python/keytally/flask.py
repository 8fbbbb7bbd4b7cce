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
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, Union

from flask import Flask, Request, Response, after_this_request, current_app, g, request

from keytally import _web
from keytally._guesses import DEFAULT, Guesses

if TYPE_CHECKING:
    from keytally import Gate, Limiter, Verdict
    from keytally._guesses import Answer

__all__ = ["GateExtension", "LimiterExtension", "client_address", "limit", "require_key"]

Cost = Union[int, Callable[[Request], int]]
View = TypeVar("View", bound=Callable[..., Any])


def client_address(request: Request) -> str:
    """Return the address that the server tells; of an IPv6 address its /64, since a client has all of that.

    Behind a proxy that is the proxy's, unless Werkzeug's ``ProxyFix`` takes it from the proxy's header.

    Raises:
        RuntimeError: There is no address, as on a Unix socket.

    >>> from flask import Request
    >>> client_address(Request({"REMOTE_ADDR": "203.0.113.9"}))
    '203.0.113.9'

    """
    return _web.subject_of(request.remote_addr)


class _Rule:
    """What is asked about a request, and what is done with the verdict."""

    def __init__(
        self,
        check: Callable[[Request, int], Verdict | None],
        cost: Cost,
        shadow: bool,
        on_verdict: Callable[[Verdict, Request], object] | None,
        answer: Callable[[Verdict, Request], Answer] = lambda verdict, _: verdict,
    ) -> None:
        self._check = check
        self._answer = answer
        self._cost = cost
        self._shadow = shadow
        self._on_verdict = on_verdict

    def refusal(self) -> Response | None:
        """Return the response to the request if it isn't admitted."""
        asked: Request = request._get_current_object()  # type: ignore[attr-defined]
        cost = self._cost if isinstance(self._cost, int) else self._cost(asked)
        verdict = self._check(asked, cost)
        if verdict is None:
            return None
        g.verdict = verdict
        if self._on_verdict is not None:
            self._on_verdict(verdict, asked)
        if not verdict.admitted and not self._shadow:
            answer = self._answer(verdict, asked)
            refusal = _web.refusal(answer, asked.headers.get("Accept", ""), asked.method)
            return Response(refusal.body, refusal.status, refusal.headers)

        @after_this_request
        def set_headers(response: Response) -> Response:
            # After a refusal by what was asked later, those of that one stay.
            if g.verdict is verdict:
                for name, value in _web.headers_of_response(verdict):
                    response.headers[name] = value
            return response

        return None

    def decorate(self, view: View) -> View:
        @functools.wraps(view)
        def guarded(*args: object, **kwargs: object) -> object:
            refusal = self.refusal()
            return current_app.ensure_sync(view)(*args, **kwargs) if refusal is None else refusal

        return guarded  # type: ignore[return-value]


class _Extension:
    """What both do before each request."""

    def __init__(self, rule: _Rule, app: Flask | None, exempt: Iterable[str]) -> None:
        self._rule = rule
        self._exempt_path = _web.exemption(exempt)
        self._exempt_views: set[Callable[..., Any]] = set()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Ask about each request of the application from now on."""
        app.before_request(self._before_request)

    def exempt(self, view: View) -> View:
        """Let a view's requests in unasked: a decorator, below that of the route."""
        self._exempt_views.add(view)
        return view

    def _before_request(self) -> Response | None:
        if self._exempt_path(request.path) or self._is_exempt():
            return None
        return self._rule.refusal()

    def _is_exempt(self) -> bool:
        # Flask answers a browser's preflight itself, which carries no key, and no view sees it.
        if request.method == "OPTIONS" and getattr(request.url_rule, "provide_automatic_options", False):
            return True
        return current_app.view_functions.get(request.endpoint or "") in self._exempt_views


class GateExtension(_Extension):
    """Lets a request in when its ``X-API-Key`` is good and has quota left, and charges it.

    Args:
        gate: The gate. Every worker may open it, or inherit it from the process that forks it: quotas are
            exact.
        app: The application, or ``None`` and ``init_app`` later.
        exempt: Paths that need no key: ``"/health"``, or all that begin alike, ``"/static/*"``.
        cost: Units that a request is charged, or a function of the request that returns them.
        shadow: Whether to let everything in, and only say in ``X-Keytally-Shadow`` what would be refused.
        on_verdict: A function that is called with each verdict and its request, for logs and metrics.
        failures: How many wrong keys a client address may send. More get 429. A right key is never refused by
            it, and a missing key does not count. A policy counts for one process and the children that it
            forks. ``Limiter.open_or_create(path, policy)`` counts for all workers. ``None`` sets no limit.
        trusted_proxies: The proxies whose ``X-Forwarded-For`` names the client: addresses, networks such as
            ``"10.0.0.0/8"``, or ``"unix"`` for all peers of Unix sockets. Not needed
            where Werkzeug's ``ProxyFix`` takes the address from the header.

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
    ) -> None:
        guesses = Guesses(failures, trusted_proxies)
        super().__init__(_Rule(_of_gate(gate), cost, shadow, on_verdict, _answer_of(guesses)), app, exempt)


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
        on_verdict: A function that is called with each verdict and its request, for logs and metrics.

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
        key: Callable[[Request], str | bytes | None] = client_address,
        exempt: Iterable[str] = (),
        cost: Cost = 1,
        shadow: bool = False,
        on_verdict: Callable[[Verdict, Request], object] | None = None,
    ) -> None:
        super().__init__(_Rule(_of_limiter(limiter, key), cost, shadow, on_verdict), app, exempt)


def require_key(
    gate: Gate,
    *,
    cost: Cost = 1,
    shadow: bool = False,
    on_verdict: Callable[[Verdict, Request], object] | None = None,
    failures: Limiter | str | None = DEFAULT,
    trusted_proxies: Iterable[str] = (),
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
    guesses = Guesses(failures, trusted_proxies)
    return _Rule(_of_gate(gate), cost, shadow, on_verdict, _answer_of(guesses)).decorate


def limit(
    limiter: Limiter,
    *,
    key: Callable[[Request], str | bytes | None] = client_address,
    cost: Cost = 1,
    shadow: bool = False,
    on_verdict: Callable[[Verdict, Request], object] | None = None,
) -> Callable[[View], View]:
    """Return a decorator of one view, below that of the route, that does what `LimiterExtension` does."""
    return _Rule(_of_limiter(limiter, key), cost, shadow, on_verdict).decorate


def _of_gate(gate: Gate) -> Callable[[Request, int], Verdict]:
    return lambda request, cost: gate.check(request.headers.get(_web.API_KEY_HEADER), cost)


def _answer_of(guesses: Guesses) -> Callable[[Verdict, Request], Answer]:
    def answer(verdict: Verdict, request: Request) -> Answer:
        forwarded_for = request.environ.get("HTTP_X_FORWARDED_FOR", "")
        return guesses.answer(verdict, request.remote_addr, forwarded_for)

    return answer


def _of_limiter(
    limiter: Limiter, key: Callable[[Request], str | bytes | None]
) -> Callable[[Request, int], Verdict | None]:
    def check(request: Request, cost: int) -> Verdict | None:
        subject = key(request)
        return None if subject is None else limiter.check(subject, cost)

    return check
