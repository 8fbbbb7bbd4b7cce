"""Middleware for every WSGI server and framework: Flask, Django, Pyramid, Bottle, Falcon.

>>> from keytally import Gate, generate_pepper
>>> from keytally.wsgi import GateMiddleware
>>> gate = Gate.in_memory(pepper=generate_pepper(), keys=100)
>>> def application(environ, start_response): ...
>>> application = GateMiddleware(application, gate, exempt=["/health", "/static/*"])

With Flask it is ``app.wsgi_app = GateMiddleware(app.wsgi_app, gate)``, or the extension in `keytally.flask`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Union

from keytally import _web
from keytally._guesses import DEFAULT, Guesses

if TYPE_CHECKING:
    from keytally import Gate, Limiter, Verdict
    from keytally._guesses import Answer

__all__ = ["GateMiddleware", "LimiterMiddleware", "client_address"]

Environ = dict[str, Any]
# What the server passes differs in its types from server to server, and so does what it takes.
StartResponse = Callable[..., Any]
App = Callable[[Any, Any], Iterable[bytes]]
Cost = Union[int, Callable[[Environ], int]]


def client_address(environ: Environ) -> str:
    """Return the address that the server tells; of an IPv6 address its /64, since a client has all of that.

    Behind a proxy that is the proxy's, unless something in front takes it from the proxy's header, as
    Werkzeug's ``ProxyFix`` does.

    Raises:
        RuntimeError: There is no address, as on a Unix socket.

    >>> client_address({"REMOTE_ADDR": "203.0.113.9"})
    '203.0.113.9'

    """
    return _web.subject_of(environ.get("REMOTE_ADDR"))


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
        on_verdict: Callable[[Verdict, Environ], object] | None,
    ) -> None:
        self.app = app
        self._exempt = _web.exemption(exempt)
        self._cost = cost
        self._shadow = shadow
        self._headers = headers
        self._state = state
        self._on_verdict = on_verdict

    def _check(self, environ: Environ, cost: int) -> Verdict | None:
        raise NotImplementedError

    def _answer_to(self, verdict: Verdict, environ: Environ) -> Answer:  # noqa: ARG002
        """Return what a request that isn't admitted gets."""
        return verdict

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if self._exempt(_path(environ)):
            return self.app(environ, start_response)
        cost = self._cost if isinstance(self._cost, int) else self._cost(environ)
        verdict = self._check(environ, cost)
        if verdict is None:
            return self.app(environ, start_response)
        environ[self._state] = verdict
        if self._on_verdict is not None:
            self._on_verdict(verdict, environ)
        if not verdict.admitted and not self._shadow:
            answer = self._answer_to(verdict, environ)
            refusal = _web.refusal(answer, environ.get("HTTP_ACCEPT", ""), environ["REQUEST_METHOD"])
            start_response(f"{refusal.status} {refusal.reason}", refusal.headers)
            return [refusal.body]
        if self._headers:
            start_response = _with(_web.headers_of_response(verdict), start_response)
        return self.app(environ, start_response)


class GateMiddleware(_Middleware):
    """Lets a request in when its ``X-API-Key`` is good and has quota left, and charges it.

    The verdict is in ``environ["keytally.verdict"]``. A refused request gets 401 or 429 with the verdict's
    body and header fields. A key that is sent twice is refused: servers join the two with a comma, and no key
    is that.

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
        on_verdict: A function that is called with each verdict and its environ, for logs and metrics.
        failures: How many wrong keys a client address may send. More get 429. A right key is never refused by
            it, and a missing key does not count. A policy counts for one process and the children that it
            forks. ``Limiter.open_or_create(path, policy)`` counts for all workers. ``None`` sets no limit.
        trusted_proxies: The proxies whose ``X-Forwarded-For`` names the client: addresses, networks such as
            ``"10.0.0.0/8"``, or ``"unix"`` for all peers of Unix sockets. Not needed
            where something in front takes the address from the header, as Werkzeug's ``ProxyFix`` does.

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
        state: str = "keytally.verdict",
        on_verdict: Callable[[Verdict, Environ], object] | None = None,
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

    def _check(self, environ: Environ, cost: int) -> Verdict:
        return self._gate.check(environ.get("HTTP_X_API_KEY"), cost)

    def _answer_to(self, verdict: Verdict, environ: Environ) -> Answer:
        return self._guesses.answer(
            verdict, environ.get("REMOTE_ADDR"), environ.get("HTTP_X_FORWARDED_FOR", "")
        )


class LimiterMiddleware(_Middleware):
    """Lets a request in when its subject has quota left, and charges it.

    The subject is the client's address, or what ``key`` returns.

    In front of a gate, only one of the two can fill the header fields: ``headers=False`` leaves that to the
    gate.

    Args:
        app: The application.
        limiter: The limiter. ``Limiter(policy)`` counts for one process and the children that it forks;
            ``Limiter.open_or_create(path, policy)`` counts for all workers, however they are started.
        key: A function of the environ that returns the subject, or ``None`` to let the request in uncounted.
        exempt: Paths that aren't counted: ``"/health"``, or all that begin alike, ``"/static/*"``.
        cost: Units that a request is charged, or a function of its environ that returns them.
        shadow: Whether to let everything in, and only say in ``X-Keytally-Shadow`` what would be refused.
        headers: Whether responses tell what is left of the quota.
        state: The name of the verdict in the environ.
        on_verdict: A function that is called with each verdict and its environ, for logs and metrics.

    >>> from keytally import Limiter
    >>> def application(environ, start_response): ...
    >>> application = LimiterMiddleware(application, Limiter("20/minute, 200/hour"), exempt=["/health"])

    """

    def __init__(
        self,
        app: App,
        limiter: Limiter,
        *,
        key: Callable[[Environ], str | bytes | None] = client_address,
        exempt: Iterable[str] = (),
        cost: Cost = 1,
        shadow: bool = False,
        headers: bool = True,
        state: str = "keytally.verdict",
        on_verdict: Callable[[Verdict, Environ], object] | None = None,
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

    def _check(self, environ: Environ, cost: int) -> Verdict | None:
        subject = self._key(environ)
        return None if subject is None else self._limiter.check(subject, cost)


def _path(environ: Environ) -> str:
    """Return the path within the application as text: WSGI has its bytes as characters."""
    path: str = environ.get("PATH_INFO", "")
    return path if path.isascii() else path.encode("latin-1").decode("utf-8", "replace")


def _with(fields: list[tuple[str, str]], start_response: StartResponse) -> StartResponse:
    """Return a start_response that sets these header fields."""

    def start_with_headers(status: str, headers: list[tuple[str, str]], *exc_info: object) -> object:
        kept = [field for field in headers if field[0].lower() not in _web.NAMES]
        return start_response(status, kept + fields, *exc_info)

    return start_with_headers
