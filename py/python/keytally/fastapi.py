"""Dependencies for FastAPI, which show in OpenAPI.

>>> from fastapi import Depends, FastAPI
>>> from keytally import Gate, Limiter, Verdict, generate_pepper
>>> from keytally.asgi import VerdictMiddleware
>>> from keytally.fastapi import limit, require_key
>>> gate = Gate.in_memory(pepper=generate_pepper(), keys=100)
>>> api_key = require_key(gate)
>>> app = FastAPI()
>>> app.add_middleware(VerdictMiddleware)
>>> @app.get("/contacts")
... async def contacts(verdict: Verdict = Depends(api_key)) -> dict:
...     return {"account": verdict.account}
>>> @app.post("/login", dependencies=[Depends(limit(Limiter("5/minute")))])
... async def login() -> None: ...

Each is async and never waits, so it costs no thread. Make one and use it everywhere: FastAPI asks a
dependency once a request, however many routers and routes name it, and so the request is charged once.
`VerdictMiddleware` puts the header fields also on responses that a route makes itself and on those to its
errors.

Where a whole application is behind a gate, `keytally.asgi.GateMiddleware` is quicker.
"""

# No annotations as text: FastAPI reads those of dependencies, and some versions can't in an object.
import json
from collections.abc import Callable, Iterable
from typing import Any, Optional, Union

from fastapi import HTTPException, Request, Response
from fastapi.openapi.models import APIKey, APIKeyIn
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from keytally import _web, asgi
from keytally._guesses import DEFAULT, Answer, Guesses
from keytally._native import Gate, Limiter, Verdict

__all__ = ["Refused", "client_address", "limit", "require_key"]

Cost = Union[int, Callable[[HTTPConnection], int]]
OnVerdict = Optional[Callable[[Verdict, HTTPConnection], object]]


class Refused(HTTPException):
    """A request isn't admitted. The answer is the verdict's own body, unless the application handles this.

    Attributes:
        verdict: The verdict.
        status_code: The status of the answer: that of the verdict, or 429 after too many wrong keys.
        headers: The header fields of the answer.

    >>> from fastapi import FastAPI
    >>> from fastapi.responses import PlainTextResponse
    >>> app = FastAPI()
    >>> @app.exception_handler(Refused)
    ... async def answer(request, refused):
    ...     return PlainTextResponse(refused.verdict.outcome, refused.status_code, refused.headers)

    """

    def __init__(self, verdict: Verdict, answer: Optional[Answer] = None) -> None:
        self.verdict = verdict
        self.answer = verdict if answer is None else answer
        error = json.loads(self.answer.body)["error"]
        super().__init__(self.answer.status, error, dict(self.answer.headers))


def client_address(request: HTTPConnection) -> str:
    """Return the address that the server tells, as `keytally.asgi.client_address` does.

    >>> from starlette.requests import HTTPConnection
    >>> client_address(HTTPConnection({"type": "http", "client": ("203.0.113.9", 40000)}))
    '203.0.113.9'

    """
    return asgi.client_address(request.scope)


class _Dependency:
    """What both do with a verdict."""

    def __init__(self, cost: Cost, shadow: bool, on_verdict: OnVerdict) -> None:
        self._cost = cost
        self._shadow = shadow
        self._on_verdict = on_verdict

    def _check(self, request: HTTPConnection, cost: int) -> Optional[Verdict]:
        raise NotImplementedError

    def _answer_to(self, verdict: Verdict, request: HTTPConnection) -> Answer:  # noqa: ARG002
        return verdict

    def _ask(self, request: HTTPConnection, response: Response) -> Optional[Verdict]:
        cost = self._cost if isinstance(self._cost, int) else self._cost(request)
        verdict = self._check(request, cost)
        if verdict is None:
            return None
        request.state.verdict = verdict
        if self._on_verdict is not None:
            self._on_verdict(verdict, request)
        if not verdict.admitted and not self._shadow:
            # Without this the body would be {"detail": …}.
            handlers: Any = request.scope.get("starlette.exception_handlers")
            if handlers is not None:
                handlers[0].setdefault(Refused, _answer)
            answer = self._answer_to(verdict, request)
            setattr(request.state, _web.ANSWER, answer)
            raise Refused(verdict, answer)
        for name, value in _web.headers_of_response(verdict):
            response.headers[name] = value
        return verdict


class _RequireKey(_Dependency, SecurityBase):
    def __init__(self, gate: Gate, cost: Cost, shadow: bool, on_verdict: OnVerdict, guesses: Guesses) -> None:
        super().__init__(cost, shadow, on_verdict)
        self.model = APIKey.model_validate({"in": APIKeyIn.header, "name": _web.API_KEY_HEADER})
        self.scheme_name = "APIKey"
        self._gate = gate
        self._guesses = guesses

    def _check(self, request: HTTPConnection, cost: int) -> Verdict:
        return asgi.check(self._gate, request.scope, cost)

    def _answer_to(self, verdict: Verdict, request: HTTPConnection) -> Answer:
        return asgi.answer(self._guesses, verdict, request.scope)

    async def __call__(self, request: HTTPConnection, response: Response) -> Optional[Verdict]:
        return self._ask(request, response)


class _Limit(_Dependency):
    def __init__(
        self,
        limiter: Limiter,
        key: Callable[[HTTPConnection], Union[str, bytes, None]],
        cost: Cost,
        shadow: bool,
        on_verdict: OnVerdict,
    ) -> None:
        super().__init__(cost, shadow, on_verdict)
        self._limiter = limiter
        self._key = key

    def _check(self, request: HTTPConnection, cost: int) -> Optional[Verdict]:
        subject = self._key(request)
        return None if subject is None else self._limiter.check(subject, cost)

    async def __call__(self, request: HTTPConnection, response: Response) -> Optional[Verdict]:
        return self._ask(request, response)


def require_key(
    gate: Gate,
    *,
    cost: Cost = 1,
    shadow: bool = False,
    on_verdict: OnVerdict = None,
    failures: Union[Limiter, str, None] = DEFAULT,
    trusted_proxies: Iterable[str] = (),
) -> Callable[..., Any]:
    """Return a dependency that needs a good ``X-API-Key`` with quota left, charges it, gives the `Verdict`.

    The verdict is also ``request.state.verdict``. Of several dependencies the last asked fills the header
    fields.

    Args:
        gate: The gate.
        cost: Units that a request is charged, or a function of the request that returns them.
        shadow: Whether to let everything in, and only say in ``X-Keytally-Shadow`` what would be refused.
        on_verdict: A function that is called with each verdict and its request, for logs and metrics.
        failures: How many wrong keys a client address may send. More get 429. A right key is never refused by
            it, and a missing key does not count. A policy counts for one process and the children that it
            forks. ``Limiter.open_or_create(path, policy)`` counts for all workers. ``None`` sets no limit.
        trusted_proxies: The proxies whose ``X-Forwarded-For`` names the client: addresses, networks such as
            ``"10.0.0.0/8"``, or ``"unix"`` for all peers of Unix sockets. Not needed
            where the server is told to trust them, as uvicorn by ``--forwarded-allow-ips``.

    """
    return _RequireKey(gate, cost, shadow, on_verdict, Guesses(failures, trusted_proxies))


def limit(
    limiter: Limiter,
    *,
    key: Callable[[HTTPConnection], Union[str, bytes, None]] = client_address,
    cost: Cost = 1,
    shadow: bool = False,
    on_verdict: OnVerdict = None,
) -> Callable[..., Any]:
    """Return a dependency that needs quota left of the request's subject, charges it, gives the `Verdict`.

    Args:
        limiter: The limiter. ``Limiter(policy)`` counts for one process and the children that it forks;
            ``Limiter.open_or_create(path, policy)`` counts for all workers, however they are started.
        key: A function of the request that returns the subject, or ``None`` to let it in uncounted; the
            client's address when left out.
        cost: Units that a request is charged, or a function of the request that returns them.
        shadow: Whether to let everything in, and only say in ``X-Keytally-Shadow`` what would be refused.
        on_verdict: A function that is called with each verdict and its request, for logs and metrics.

    """
    return _Limit(limiter, key, cost, shadow, on_verdict)


async def _answer(request: Request, refused: Refused) -> Response:
    accept = ",".join(request.headers.getlist("accept"))
    refusal = _web.refusal(refused.answer, accept, request.scope.get("method", "GET"))
    return Response(refusal.body, refusal.status, dict(refusal.headers))
