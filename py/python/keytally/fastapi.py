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

Each is async and never waits, so it costs no thread. A request is charged once and has one verdict, however
many routers and routes name a dependency of the same gate, also by ``Security`` with scopes: see
``docs/INTEGRATIONS.md``. `VerdictMiddleware` puts the header fields also on responses that a route makes
itself and on those to its errors.

FastAPI answers an unhandled exception outside of all added middleware. Its 500 has the header fields if the
whole application is wrapped instead, in the last line of the module that the server imports:
``app = VerdictMiddleware(app)``. For CORS fields on it too, see ``docs/INTEGRATIONS.md``.

Where a whole application is behind a gate, `keytally.asgi.GateMiddleware` is quicker.
"""

# No annotations as text: FastAPI reads those of dependencies, and some versions can't in an object.
import functools
import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Optional, Union

from fastapi import HTTPException, Request, Response
from fastapi.openapi.models import APIKey, APIKeyIn
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from keytally import _once, _web, asgi
from keytally._addresses import IPV6_PREFIX, checked_prefix
from keytally._guesses import DEFAULT, Guesses
from keytally._native import Gate, Limiter, Verdict
from keytally._rule import GateRule, LimiterRule, Rule

__all__ = ["Refused", "client_address", "limit", "require_key"]

Subject = Union[str, bytes, None]
Key = Callable[[HTTPConnection], Union[Subject, Awaitable[Subject]]]
Cost = Union[int, Callable[[HTTPConnection], Union[int, Awaitable[int]]]]
OnVerdict = Optional[Callable[[Verdict, HTTPConnection], object]]


class Refused(HTTPException):
    """A request isn't admitted. The answer is the verdict's own body, unless the application handles this.

    Attributes:
        verdict: The verdict.
        status_code: The status of the answer: that of the verdict, 429 after too many wrong keys, or 400 to a
            cost that is out of range.
        headers: The header fields of the answer.

    >>> from fastapi import FastAPI
    >>> from fastapi.responses import PlainTextResponse
    >>> app = FastAPI()
    >>> @app.exception_handler(Refused)
    ... async def answer(request, refused):
    ...     return PlainTextResponse(refused.verdict.outcome, refused.status_code, refused.headers)

    """

    def __init__(
        self,
        verdict: Verdict,
        answer: Optional[_web.Answer] = None,
        fields: Optional[list[tuple[str, str]]] = None,
    ) -> None:
        self.verdict = verdict
        self.answer = verdict if answer is None else answer
        self.fields = self.answer.headers if fields is None else fields
        error = json.loads(self.answer.body)["error"]
        headers = dict([*self.fields, *_web.refusal_fields(self.answer)])
        super().__init__(self.answer.status, error, headers)


def client_address(request: HTTPConnection, *, ipv6_prefix: int = IPV6_PREFIX) -> str:
    """Return what counts the client's address, as `keytally.asgi.client_address` does.

    >>> from starlette.requests import HTTPConnection
    >>> client_address(HTTPConnection({"type": "http", "client": ("203.0.113.9", 40000)}))
    '203.0.113.9'

    """
    return asgi.client_address(request.scope, ipv6_prefix=ipv6_prefix)


class _Dependency:
    """What both do with a verdict."""

    def __init__(self, rule: Rule[HTTPConnection]) -> None:
        self._rule = rule

    async def __call__(self, request: HTTPConnection, response: Response) -> Optional[Verdict]:
        scope = request.scope
        record = _once.of(scope)
        state = record.own_state(scope)
        # Starlette makes it again, of the state that is now in the scope.
        request.__dict__.pop("_state", None)

        def leave(record: _once.Record, asked: _once.Asked) -> None:  # noqa: ARG001
            state["verdict"] = record.verdict

        asked = await self._rule.ask_awaiting(request, scope, leave)
        if asked is None:
            return None
        if asked.refusal is not None:
            # Without this the body would be {"detail": …}.
            handlers: Any = scope.get("starlette.exception_handlers")
            if handlers is not None:
                handlers[0].setdefault(Refused, _answer)
            raise Refused(asked.verdict, asked.refusal, record.fields())
        for name, value in record.fields():
            response.headers[name] = value
        return asked.verdict


class _RequireKey(_Dependency, SecurityBase):
    def __init__(self, rule: Rule[HTTPConnection]) -> None:
        super().__init__(rule)
        self.model = APIKey.model_validate({"in": APIKeyIn.header, "name": _web.API_KEY_HEADER})
        self.scheme_name = "APIKey"


def require_key(
    gate: Gate,
    *,
    cost: Cost = 1,
    shadow: bool = False,
    on_verdict: OnVerdict = None,
    failures: Union[Limiter, str, None] = DEFAULT,
    trusted_proxies: Iterable[str] = (),
    ipv6_prefix: int = IPV6_PREFIX,
) -> Callable[..., Any]:
    """Return a dependency that needs a good ``X-API-Key`` with quota left, charges it, gives the `Verdict`.

    The verdict is also ``request.state.verdict``.

    Args:
        gate: The gate.
        cost: Units that a request is charged, or a function of the request that returns them.
        shadow: Whether to let everything in, and only say in ``X-Keytally-Shadow`` what would be refused.
        on_verdict: A function that is called with each verdict and its request, for logs and metrics. What it
            raises is logged.
        failures: How many wrong keys a client address may send. More get 429. A right key is never refused by
            it, and a missing key does not count. A policy counts for one process and the children that it
            forks. ``Limiter.open_or_create(path, policy)`` counts for all workers. ``None`` sets no limit.
        trusted_proxies: The proxies whose ``X-Forwarded-For`` names the client: addresses, networks such as
            ``"10.0.0.0/8"``, or ``"unix"`` for all peers of Unix sockets. Not needed
            where the server is told to trust them, as uvicorn by ``--forwarded-allow-ips``.
        ipv6_prefix: How many bits of an IPv6 address count for ``failures``.

    ``cost`` and ``on_verdict`` may be async.

    """
    rule = GateRule[HTTPConnection](
        gate,
        asgi.READ,
        Guesses(failures, trusted_proxies, ipv6_prefix),
        cost=cost,
        shadow=shadow,
        on_verdict=on_verdict,
        awaits=True,
    )
    return _RequireKey(rule)


def limit(
    limiter: Limiter,
    *,
    key: Optional[Key] = None,
    cost: Cost = 1,
    shadow: bool = False,
    on_verdict: OnVerdict = None,
    ipv6_prefix: int = IPV6_PREFIX,
) -> Callable[..., Any]:
    """Return a dependency that needs quota left of the request's subject, charges it, gives the `Verdict`.

    Args:
        limiter: The limiter. ``Limiter(policy)`` counts for one process and the children that it forks;
            ``Limiter.open_or_create(path, policy)`` counts for all workers, however they are started.
        key: A function of the request that returns the subject, or ``None`` to let it in uncounted; the
            client's address when left out.
        cost: Units that a request is charged, or a function of the request that returns them.
        shadow: Whether to let everything in, and only say in ``X-Keytally-Shadow`` what would be refused.
        on_verdict: A function that is called with each verdict and its request, for logs and metrics. What it
            raises is logged.
        ipv6_prefix: How many bits of an IPv6 address count, where ``key`` is left out.

    ``key``, ``cost`` and ``on_verdict`` may be async.

    """
    rule = LimiterRule[HTTPConnection](
        limiter,
        key or functools.partial(client_address, ipv6_prefix=checked_prefix(ipv6_prefix)),
        cost=cost,
        shadow=shadow,
        on_verdict=on_verdict,
        awaits=True,
    )
    return _Dependency(rule)


async def _answer(request: Request, refused: Refused) -> Response:
    accept = ",".join(request.headers.getlist("accept"))
    method = request.scope.get("method", "GET")
    refusal = _web.refusal(refused.answer, refused.fields, accept, method)
    return Response(refusal.body, refusal.status, dict(refusal.headers))
