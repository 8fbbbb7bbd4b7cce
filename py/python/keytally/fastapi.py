"""Dependencies for FastAPI, with the security scheme for OpenAPI.

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
>>> @app.post("/login", dependencies=[Depends(limit(Limiter.in_memory("5/minute")))])
... async def login() -> None: ...

The dependencies are async and do not wait for another thread or process, so they run in the event
loop. If several routers and routes have a dependency of the same gate, a request is charged once
and has one verdict. The same is true with ``Security`` and scopes: see ``docs/INTEGRATIONS.md``.
A dependency sets the header fields of the response that FastAPI creates. `VerdictMiddleware` also
sets those of responses that a route creates itself, and of errors.

FastAPI handles an unhandled exception outside of all added middleware. The response to it, with
status 500, has the header fields only if ``VerdictMiddleware`` wraps the whole application instead,
in the last line of the module that the server imports: ``app = VerdictMiddleware(app)``.
``docs/INTEGRATIONS.md`` describes how to add the CORS fields too.

`document_refusals` adds the responses 401, 403, 429 and 503 to the OpenAPI document. `REFUSALS` has
them for applications behind `keytally.asgi`: ``FastAPI(responses=REFUSALS)``.

If all routes of an application need a key, `keytally.asgi.GateMiddleware` is faster.
"""

# Do not import "annotations" from __future__. FastAPI evaluates the annotations of dependencies,
# and some versions cannot evaluate text in the annotations of an object's __call__.
import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Optional, Union

from fastapi import Depends, FastAPI, HTTPException, Request, Response, routing
from fastapi.openapi.models import APIKey, APIKeyIn, HTTPBearer
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from keytally import _web, asgi
from keytally._addresses import IPV6_PREFIX
from keytally._charges import Decision, Record, record_of
from keytally._guesses import DEFAULT
from keytally._keys import KeySources, Source
from keytally._native import Gate, Limiter, Verdict
from keytally._openapi import REFUSALS, refusal_object, scheme_name
from keytally._refusal import Refusal, text_of
from keytally._rule import GateRule, LimiterRule, Rule, Statuses
from keytally._settle import Sent

__all__ = [
    "REFUSALS",
    "Refused",
    "client_address",
    "document_refusals",
    "limit",
    "require_key",
]

Subject = Union[str, bytes, None]
Key = Callable[[HTTPConnection], Union[Subject, Awaitable[Subject]]]
Cost = Union[int, Callable[[HTTPConnection], Union[int, Awaitable[int]]]]
OnVerdict = Optional[Callable[[Verdict, HTTPConnection], object]]
Given = Union[str, Iterable[str], None]
Names = Union[Given, Callable[[HTTPConnection], Union[Given, Awaitable[Given]]]]
CostsOf = Union[Mapping[str, int], None]
GroupCosts = Union[CostsOf, Callable[[HTTPConnection], Union[CostsOf, Awaitable[CostsOf]]]]
Settle = Optional[Callable[[HTTPConnection, Sent], Union[int, Awaitable[int]]]]
RefusalOf = Optional[Callable[[Refusal, HTTPConnection], Union[Refusal, Awaitable[Refusal]]]]


class Refused(HTTPException):
    """A request was refused. The response has the verdict's body, unless a handler replaces it.

    Attributes:
        verdict: The verdict.
        refusal: The `Refusal`: the documented response, or that of the option ``refusal``.
        status_code: The status of the response.
        headers: The header fields of the response.

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
        refusal: Optional[Refusal] = None,
        fields: Optional[list[tuple[str, str]]] = None,
    ) -> None:
        self.verdict = verdict
        self.refusal = Refusal.of(verdict) if refusal is None else refusal
        self.fields = verdict.headers if fields is None else fields
        headers = dict([*self.fields, *self.refusal.fields])
        super().__init__(self.refusal.status, text_of(self.refusal), headers)


def client_address(request: HTTPConnection, *, ipv6_prefix: int = IPV6_PREFIX) -> str:
    """Return the subject by which a limiter counts the client: see ``docs/ADDRESSES.md``.

    It is the IPv4 address, or the IPv6 network, of the peer that the server reports. Behind a
    proxy, the peer is the proxy, unless the server is configured to trust the header of the proxy,
    as uvicorn is by ``--forwarded-allow-ips``.

    Args:
        request: The request.
        ipv6_prefix: The prefix length of the IPv6 networks that count as one client, 1 to 128.

    Raises:
        RuntimeError: The peer has no address, as on a Unix socket.

    >>> from starlette.requests import HTTPConnection
    >>> client_address(HTTPConnection({"type": "http", "client": ("203.0.113.9", 40000)}))
    '203.0.113.9'

    """
    return asgi.client_address(request.scope, ipv6_prefix=ipv6_prefix)


class _Dependency:
    """A dependency that applies a rule of a gate or a limiter to requests."""

    # The statuses of refusals.
    statuses: tuple[int, ...] = (429, 503)

    def __init__(self, rule: Rule[HTTPConnection]) -> None:
        self._rule = rule

    @property
    def replaces_refusals(self) -> bool:
        """Whether a function of the application returns the responses to refused requests."""
        return self._rule.replaces_refusals

    async def __call__(self, request: HTTPConnection, response: Response) -> Optional[Verdict]:
        scope = request.scope
        record = record_of(scope)
        state = record.own_state(scope)
        # Starlette caches ``request.state`` here. It creates it again from the scope's new state.
        request.__dict__.pop("_state", None)
        settles = self._rule.settlement is not None and scope["type"] == "http"
        if settles and not record.is_watched:
            raise RuntimeError(UNWATCHED)

        def store(record: Record, decision: Decision) -> None:  # noqa: ARG001
            state["verdict"] = record.verdict

        decision = await self._rule.check_async(request, scope, store)
        if decision is None:
            return None
        if decision.refusal is not None:
            # Without this handler, the body would be {"detail": …}.
            handlers: Any = scope.get("starlette.exception_handlers")
            if handlers is not None:
                handlers[0].setdefault(Refused, _answer)
            raise Refused(decision.verdict, decision.refusal, record.fields())
        for name, value in record.fields():
            response.headers[name] = value
        return decision.verdict


UNWATCHED = (
    "settle, refund and charge_on act after the response, which a dependency does not see: "
    "add keytally.asgi.VerdictMiddleware to the application"
)


class _Scheme(SecurityBase):
    """The security scheme of one header for OpenAPI."""

    def __init__(self, source: Source) -> None:
        self.scheme_name = scheme_name(source)
        if source.is_bearer:
            self.model = HTTPBearer()
        else:
            self.model = APIKey.model_validate({"in": APIKeyIn.header, "name": source.name})


class _Alternative(_Scheme):
    """The scheme of another header: a dependency that checks nothing."""

    async def __call__(self) -> None:
        """Do nothing."""


class _RequireKey(_Dependency, _Scheme):
    """A dependency that checks a key, with the security schemes for OpenAPI.

    A dependency has one scheme, so those of the other headers are dependencies of it.
    """

    statuses: tuple[int, ...] = (401, 429, 503)

    def __init__(
        self, rule: Rule[HTTPConnection], sources: list[Source], *, needs_scopes: bool
    ) -> None:
        _Dependency.__init__(self, rule)
        if needs_scopes:
            self.statuses = (401, 403, 429, 503)
        _Scheme.__init__(self, sources[0])
        kind = inspect.Parameter.KEYWORD_ONLY
        parameters = [
            inspect.Parameter("request", kind, annotation=HTTPConnection),
            inspect.Parameter("response", kind, annotation=Response),
        ]
        parameters += [
            inspect.Parameter(f"scheme_{index}", kind, default=Depends(_Alternative(source)))
            for index, source in enumerate(sources[1:])
        ]
        # FastAPI reads the dependencies from this attribute.
        self.__signature__ = inspect.Signature(parameters)

    async def __call__(
        self,
        request: HTTPConnection,
        response: Response,
        **schemes: None,  # noqa: ARG002
    ) -> Optional[Verdict]:
        return await super().__call__(request, response)


def require_key(
    gate: Gate,
    *,
    cost: Cost = 1,
    group: Names = (),
    costs: GroupCosts = None,
    need: Names = (),
    shadow: bool = False,
    on_verdict: OnVerdict = None,
    settle: Settle = None,
    refund: Statuses = (),
    refusal: RefusalOf = None,
    failures: Union[Limiter, str, None] = DEFAULT,
    trusted_proxies: Iterable[str] = (),
    ipv6_prefix: int = IPV6_PREFIX,
    key_from: Iterable[str] = (_web.API_KEY_HEADER,),
    without_key: Optional[Limiter] = None,
) -> Callable[..., Any]:
    """Return a dependency that requires a valid ``X-API-Key`` with quota left, and charges it.

    Its value is the `Verdict`, which is also ``request.state.verdict``.

    Args:
        gate: The gate. Every worker may open it, or inherit it from the process that forks it:
            quotas are exact.
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
            if the server is configured to trust them, as uvicorn by ``--forwarded-allow-ips``.
        ipv6_prefix: The prefix length of the IPv6 networks that ``failures`` and ``without_key``
            count, 1 to 128.
        key_from: The headers that may carry the key: names, and ``"Authorization: Bearer"``. A
            request with two different keys gets 401.
        without_key: The limiter of requests without a key, which it counts by client address;
            ``None`` to refuse them.

    Raises:
        TypeError, ValueError: An argument has the wrong type or is out of range, or the gate does
            not have a group or a scope.

    ``cost``, ``group``, ``costs``, ``need``, ``on_verdict``, ``settle`` and ``refusal`` may be
    async. `VerdictMiddleware` acts on ``settle`` and ``refund`` after the response. If there is
    such an option and the application lacks the middleware, each request raises a `RuntimeError`.

    A route that writes, for keys with the scope ``write``:

    >>> from fastapi import Depends, FastAPI
    >>> from keytally import Gate, generate_pepper
    >>> plans = {"default": "100/minute; group write: 20/minute"}
    >>> gate = Gate.in_memory(pepper=generate_pepper(), keys=9, plans=plans, scopes=["write"])
    >>> app = FastAPI()
    >>> write = require_key(gate, group="write", need="write")
    >>> @app.post("/contacts", dependencies=[Depends(write)])
    ... async def add() -> None: ...

    """
    rule = GateRule[HTTPConnection].with_failures(
        gate,
        asgi.READ,
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
        awaits=True,
    )
    return _RequireKey(rule, KeySources(key_from).sources, needs_scopes=bool(need))


def limit(
    limiter: Limiter,
    *,
    key: Optional[Key] = None,
    cost: Cost = 1,
    shadow: bool = False,
    on_verdict: OnVerdict = None,
    settle: Settle = None,
    refund: Statuses = (),
    charge_on: Optional[Statuses] = None,
    refusal: RefusalOf = None,
    ipv6_prefix: int = IPV6_PREFIX,
) -> Callable[..., Any]:
    """Return a dependency that requires quota left for the request's subject, and charges it.

    Its value is the `Verdict`, or ``None`` if ``key`` returns ``None``. The subject is the client's
    address, or the result of ``key``.

    Args:
        limiter: The limiter. ``Limiter.in_memory(policy)`` counts for one process and the children
            that it forks. ``Limiter.open_or_create(path, policy)`` counts for all workers, however
            they are started.
        key: A function of the request that returns the subject, or ``None`` to admit the request
            without a charge. By default, the subject is the client's address.
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
        TypeError, ValueError: An argument has the wrong type or is out of range.

    ``key``, ``cost``, ``on_verdict``, ``settle`` and ``refusal`` may be async. `VerdictMiddleware`
    acts on ``settle``, ``refund`` and ``charge_on`` after the response. If there is such an option
    and the application lacks the middleware, each request raises a `RuntimeError`.

    """
    rule = LimiterRule[HTTPConnection].with_default_key(
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
        awaits=True,
    )
    return _Dependency(rule)


async def _answer(request: Request, refused: Refused) -> Response:
    """Return the response to a refused request: the exception handler of `Refused`."""
    accept = ",".join(request.headers.getlist("accept"))
    method = request.scope.get("method", "GET")
    response = _web.response(refused.refusal, refused.fields, accept, method)
    return Response(response.body, response.status, dict(response.headers))


def document_refusals(app: FastAPI) -> None:
    """Add the refusals of `require_key` and `limit` to the OpenAPI document of an application.

    Each route gets those of its own dependencies. Responses that the route documents itself are
    kept. Those of a dependency with the option ``refusal`` have no content, which its function
    decides.

    >>> from fastapi import Depends, FastAPI
    >>> from keytally import Limiter
    >>> app = FastAPI(responses={401: REFUSALS[401]})
    >>> document_refusals(app)
    >>> @app.post("/login", dependencies=[Depends(limit(Limiter.in_memory("5/minute")))])
    ... async def login() -> None: ...
    >>> sorted(app.openapi()["paths"]["/login"]["post"]["responses"])
    ['200', '401', '429', '503']

    """
    generate = app.openapi
    # In newer versions of FastAPI, a router that was included is one of the routes.
    routes_of = getattr(routing, "iter_route_contexts", iter)

    def openapi() -> dict[str, Any]:
        document = generate()
        for route in routes_of(app.routes):
            found = {
                status: dependency.replaces_refusals
                for dependency in _dependencies_of(getattr(route, "dependant", None))
                for status in dependency.statuses
            }
            operations = document["paths"].get(getattr(route, "path_format", ""), {})
            for method in getattr(route, "methods", None) or ():
                responses = operations.get(method.lower(), {}).get("responses")
                if responses is not None:
                    for status, is_replaced in sorted(found.items()):
                        responses.setdefault(str(status), refusal_object(status, is_replaced))
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _dependencies_of(tree: Any) -> Iterator[_Dependency]:  # noqa: ANN401
    """Return the dependencies of this module that a route has, directly or not."""
    if tree is not None:
        if isinstance(tree.call, _Dependency):
            yield tree.call
        for inner in tree.dependencies:
            yield from _dependencies_of(inner)
