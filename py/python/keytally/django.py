"""Middleware for Django, synchronous and asynchronous, and checks of the settings.

In ``settings.py``::

    INSTALLED_APPS = [..., "keytally.django.KeytallyConfig"]  # adds the checks
    MIDDLEWARE = [..., "keytally.django.GateMiddleware"]
    KEYTALLY = {
        "GATE": {"PATH": "/var/lib/contacts/api.gate", "EXEMPT": ["/health", "/static/*"]},
    }

The pepper, the server's HMAC secret, is that of the environment, as for `Gate.open`, unless
``"GATE"`` has ``"PEPPER"`` or ``"PEPPER_FILE"``. ``LimiterMiddleware`` reads
``"LIMITER": {"PATH": …, "POLICY": "20/minute, 200/hour"}``. Its ``"CAPACITY"`` is the most subjects
with counts at a time, 100,000 by default. Without ``"PATH"``, the limiter is in the memory of one
process, and several worker processes are an error. ``"WORKERS"`` is their number, by default that
of the server's options or of ``WEB_CONCURRENCY``.

Settings in both ``"GATE"`` and ``"LIMITER"``:

- ``"EXEMPT"``: a list of paths that are not checked.
- ``"COST"``: the cost of a request in units, a number or a function of the request.
- ``"SHADOW"``: whether to admit every request, and only report the outcome that would refuse it.
- ``"ON_VERDICT"``: a function that is called with each verdict and its request.
- ``"EXEMPT_METHODS"``: a list of methods that are not checked, such as ``"OPTIONS"``.
- ``"SETTLE"``: a function of the request and of what was `Sent` that returns the actual cost after
  the response.
- ``"REFUND"``: the statuses at which the charge is refunded after the response: a number, a class
  such as ``"5xx"``, or a list of them.
- ``"REFUSAL"``: a function of the `Refusal` and the request that returns the response to a refused
  request: another status, body or content type.
- ``"IPV6_PREFIX"``: the prefix length of the IPv6 networks that count as one client, 64 by default.

``"KEY"`` of the limiter is a function of the request that returns the subject to count, instead of
the client's address. ``"CHARGE_ON"`` lists the statuses at which a request is charged, after its
response, if not every request counts. A setting may be a function or its import path, and the
function may be async.
Only the middleware reads ``"EXEMPT"``, ``"EXEMPT_METHODS"``, ``"COST"``, ``"GROUP"``,
``"COSTS"``, ``"NEED"``, ``"ON_VERDICT"``, ``"KEY"``, ``"SETTLE"``, ``"REFUND"``, ``"CHARGE_ON"``
and ``"REFUSAL"``. The classes of
`keytally.rest_framework` have attributes instead. A view that they must not check leaves them out
of its classes.

``"FAILURES"`` of ``"GATE"`` is the limit of wrong keys for each client address, by default
``"20/minute, 200/hour"`` in each process. Beyond it, a wrong key gets 429. A valid key is never
refused by it. ``{"PATH": …, "POLICY": …}`` counts for all workers together, and ``None`` sets no
limit. Behind a proxy, ``"TRUSTED_PROXIES": ["10.0.0.0/8"]`` lists the proxies whose
``X-Forwarded-For`` names the client. ``"unix"`` means all peers of Unix sockets.

``"GROUP"`` of ``"GATE"`` names the groups of the gate's plans that a request is charged for, and
``"COSTS"`` those with a cost of their own, such as ``{"tokens": 2500}``. ``"NEED"`` names the
scopes that the key must have. Without one of them, the response has status 403. Each may be a
function of the request too. In ``"GROUP"`` and ``"NEED"``, a text with a dot is an import path, and
a list has only names.

``"KEY_FROM"`` of ``"GATE"`` lists the headers that may carry the key, by default ``["X-API-Key"]``.
``"Authorization: Bearer"`` names the tokens of that scheme. ``"WITHOUT_KEY": {"PATH": …,
"POLICY": …}`` is the limiter of requests without a key, which it counts by client address.

If the gate or a limiter shares its limits with other machines, its ``"FLEET"`` is the fleet file
of this machine, and ``"CREDIT_WAIT"`` how long a request waits for credits: see `Gate.open`.

The verdict is ``request.verdict``. In ``MIDDLEWARE``, put the classes of this module below
middleware that must see refusals too, such as that for CORS. If both middlewares and
`keytally.rest_framework` check a request, it is charged once and has one verdict: see
``docs/INTEGRATIONS.md``.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    MutableMapping,
)
from typing import TYPE_CHECKING, Any, Union

from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction
from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.http import HttpRequest, HttpResponse
from django.utils.module_loading import import_string

from keytally import _calls, _charges, _web, wsgi
from keytally._addresses import IPV6_PREFIX, checked_prefix, prefix_for, subject
from keytally._exempt import exempt_methods, exemption
from keytally._guesses import DEFAULT, Guesses
from keytally._keys import KeySources
from keytally._native import Gate, Limiter, redact
from keytally._rule import GateRule, LimiterRule, Rule, Store
from keytally._watch import Input, Watch
from keytally.exceptions import KeytallyError

if TYPE_CHECKING:
    from keytally._keys import Source
    from keytally._refusal import Refusal

__all__ = [
    "GateMiddleware",
    "KeytallyConfig",
    "LimiterMiddleware",
    "VerdictMiddleware",
    "check_settings",
    "client_address",
    "gate",
    "limiter",
]

Response = Union[HttpResponse, Awaitable[HttpResponse]]

# The names of the settings in both sections, and in each section.
SHARED = {
    "COST",
    "CREDIT_WAIT",
    "EXEMPT",
    "EXEMPT_METHODS",
    "FLEET",
    "IPV6_PREFIX",
    "ON_VERDICT",
    "PATH",
    "REFUND",
    "REFUSAL",
    "SETTLE",
    "SHADOW",
}
KNOWN = {
    "GATE": SHARED
    | {
        "COSTS",
        "FAILURES",
        "GROUP",
        "KEY_FROM",
        "NEED",
        "PEPPER",
        "PEPPER_FILE",
        "TRUSTED_PROXIES",
        "WITHOUT_KEY",
    },
    "LIMITER": SHARED | {"CAPACITY", "CHARGE_ON", "KEY", "POLICY", "WORKERS"},
}
# The settings by which a limiter's file is opened, in addition to its path and policy.
OPENING = ("CAPACITY", "FLEET", "CREDIT_WAIT")


class KeytallyConfig(AppConfig):
    """The Django application that registers the checks of the settings."""

    name = "keytally.django"
    label = "keytally"
    verbose_name = "Keytally"


def client_address(request: HttpRequest, *, ipv6_prefix: int = IPV6_PREFIX) -> str:
    """Return the subject by which a limiter counts the client: see ``docs/ADDRESSES.md``.

    It is the IPv4 address, or the IPv6 network, of the peer that the server reports. Behind a
    proxy, the peer is the proxy. Then ``"KEY"`` must be a function that reads the header of the
    proxy.

    Args:
        request: The request.
        ipv6_prefix: The prefix length of the IPv6 networks that count as one client, 1 to 128.

    Raises:
        RuntimeError: The peer has no address, as on a Unix socket.

    >>> from django.test import RequestFactory
    >>> client_address(RequestFactory().get("/", REMOTE_ADDR="203.0.113.9"))
    '203.0.113.9'

    """
    return subject(wsgi.READ.peer(request.META), ipv6_prefix)


def limited_address(request: HttpRequest) -> str:
    """Return the subject of the client's address by the settings of the limiter."""
    section = getattr(settings, "KEYTALLY", {}).get("LIMITER", {})
    return client_address(request, ipv6_prefix=section.get("IPV6_PREFIX", IPV6_PREFIX))


def fields(request: HttpRequest) -> MutableMapping[str, Any]:
    """Return the environ of a request. If the request has an ASGI scope, both share one record."""
    environ: MutableMapping[str, Any] = request.META
    scope = getattr(request, "scope", None)
    if scope is not None and _charges.NAME not in environ:
        environ[_charges.NAME] = _charges.record_of(scope)
    return environ


def in_shadow_mode(section: str) -> bool:
    """Return whether ``"GATE"`` or ``"LIMITER"`` of the settings is in shadow mode.

    In shadow mode, every request is admitted.
    """
    return section in getattr(settings, "KEYTALLY", {}) and bool(
        _settings(section).get("SHADOW", False)
    )


@functools.cache
def gate() -> Gate:
    """Return the gate of the settings, which each process opens once.

    Raises:
        ImproperlyConfigured: The settings do not name a gate, or it cannot be opened.

    """
    found = _settings("GATE")
    if "PATH" not in found:
        raise ImproperlyConfigured(
            'KEYTALLY["GATE"]["PATH"] is missing: it names the file of the gate'
        )
    names = ("PEPPER", "PEPPER_FILE", "FLEET", "CREDIT_WAIT")
    options = {name.lower(): found[name] for name in names if name in found}
    try:
        return Gate.open(found["PATH"], **options)
    except (KeytallyError, OSError, TypeError, ValueError) as error:
        raise ImproperlyConfigured(f'KEYTALLY["GATE"]: {error}') from error


@functools.cache
def guesses() -> Guesses:
    """Return the limit of invalid keys of the settings.

    Raises:
        ImproperlyConfigured: The limit or the proxies of the settings are not valid.

    """
    found = _settings("GATE")
    failures = found.get("FAILURES", DEFAULT)
    try:
        failures = _opened("FAILURES", failures)
        return Guesses(
            failures, found.get("TRUSTED_PROXIES", ()), found.get("IPV6_PREFIX", IPV6_PREFIX)
        )
    except (KeytallyError, OSError, TypeError, ValueError) as error:
        raise ImproperlyConfigured(f'KEYTALLY["GATE"]: {error}') from error


@functools.cache
def keys() -> dict[str, Any]:
    """Return the key sources and the limiter of requests without a key of the settings.

    Raises:
        ImproperlyConfigured: The settings are not valid.

    """
    found = _settings("GATE")
    try:
        return {
            "keys": KeySources(found.get("KEY_FROM", (_web.API_KEY_HEADER,))),
            "without_key": _opened("WITHOUT_KEY", found.get("WITHOUT_KEY")),
        }
    except (KeytallyError, OSError, TypeError, ValueError) as error:
        raise ImproperlyConfigured(f'KEYTALLY["GATE"]: {error}') from error


def key_sources() -> list[Source]:
    """Return the headers of the key by the settings. It opens no table."""
    section = getattr(settings, "KEYTALLY", {}).get("GATE", {})
    return KeySources(section.get("KEY_FROM", (_web.API_KEY_HEADER,))).sources


def limits_requests_without_key() -> bool:
    """Return whether the settings admit requests without a key. It opens no table."""
    section = getattr(settings, "KEYTALLY", {}).get("GATE", {})
    return section.get("WITHOUT_KEY") is not None


def _opened(name: str, value: Any) -> Any:  # noqa: ANN401
    """Return the limiter that a setting of ``"GATE"`` describes, or the value itself."""
    if not isinstance(value, Mapping):
        return value
    if not {"PATH", "POLICY"} <= set(value) <= {"PATH", "POLICY", *OPENING}:
        raise ImproperlyConfigured(OPENED.format(name=name))
    return Limiter.open_or_create(value["PATH"], value["POLICY"], **_opening(value))


def _opening(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments by which a limiter's file is opened."""
    return {name.lower(): found[name] for name in OPENING if name in found}


@functools.cache
def limiter() -> Limiter:
    """Return the limiter of the settings: that of the file, or one in memory for this process.

    Raises:
        ImproperlyConfigured: The settings do not name a limiter, it cannot be opened, or it is in
            memory although there are several worker processes.

    """
    found = _settings("LIMITER")
    if "POLICY" not in found:
        raise ImproperlyConfigured(
            'KEYTALLY["LIMITER"]["POLICY"] is missing: such as "20/minute, 200/hour"'
        )
    try:
        checked_prefix(found.get("IPV6_PREFIX", IPV6_PREFIX))
        if "PATH" in found:
            table = Limiter.open_or_create(found["PATH"], found["POLICY"], **_opening(found))
            return _with_prefix(table, found)
        if "FLEET" in found or "CREDIT_WAIT" in found:
            raise ImproperlyConfigured(FLEET_IN_MEMORY)
        count = _workers(found)
        if count is not None and count > 1:
            raise ImproperlyConfigured(PER_PROCESS.format(count=count))
        capacity = found.get("CAPACITY", 100_000)
        return _with_prefix(Limiter.in_memory(found["POLICY"], capacity), found)
    except (KeytallyError, OSError, TypeError, ValueError) as error:
        raise ImproperlyConfigured(f'KEYTALLY["LIMITER"]: {error}') from error


def _with_prefix(table: Limiter, found: Mapping[str, Any]) -> Limiter:
    """Return the limiter after checking that the settings have no prefix if its policy has some."""
    prefix_for(table, found.get("IPV6_PREFIX", IPV6_PREFIX))
    return table


class VerdictMiddleware:
    """Sets the header fields of ``request.verdict``, and settles charges after the response.

    If the verdict refuses the request and the response has its status, the middleware replaces the
    response by that of the verdict. It is for `keytally.rest_framework`, whose classes do not see
    the response.

    >>> from django.http import HttpResponse
    >>> from django.test import RequestFactory
    >>> from keytally import Limiter
    >>> def view(request):
    ...     request.verdict = Limiter.in_memory("5/31d").check("203.0.113.9")
    ...     return HttpResponse("hello")
    >>> VerdictMiddleware(view)(RequestFactory().get("/"))["X-RateLimit-Remaining"]
    '4'

    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Response:
        """Return the response to a request."""
        if self._is_async:
            return self._respond_async(request)
        record = _charges.record_of(fields(request))
        watch = Watch(record) if record.claim_watch() else None
        if watch is not None and hasattr(request, "_stream"):
            # The request got it from its environ before any middleware was called.
            request._stream = Input(request._stream, watch)
        try:
            response = self._respond(request)
        except BaseException as error:
            if watch is not None:
                watch.finish(error)
            raise
        if watch is not None and not self._is_streamed(watch, response):
            watch.finish()
        return response

    def _respond(self, request: HttpRequest) -> HttpResponse:
        refusal = self._refusal(request)
        return self._finish(request, self.get_response(request) if refusal is None else refusal)

    async def _respond_async(self, request: HttpRequest) -> HttpResponse:
        record = _charges.record_of(fields(request))
        watch = Watch(record) if record.claim_watch() else None
        try:
            refusal = await self._refusal_async(request)
            response = self._finish(
                request, await self.get_response(request) if refusal is None else refusal
            )
        except BaseException as error:
            if watch is not None:
                await watch.finish_async(error)
            raise
        if watch is not None and not self._is_streamed(watch, response):
            await watch.finish_async()
        return response

    def _is_streamed(self, watch: Watch, response: Any) -> bool:  # noqa: ANN401
        """Record a response. Return whether the end of its body settles the charges."""
        watch.start(response.status_code, lambda: list(response.items()))

        def finish(exception: BaseException | None = None) -> None:
            # Django calls it in a thread without an event loop.
            (async_to_sync(watch.finish_async) if self._is_async else watch.finish)(exception)

        def rendered(response: Any) -> None:  # noqa: ANN401
            watch.size = len(response.content)
            watch.is_complete = True
            finish()

        if not getattr(response, "is_rendered", True):
            # A view that is called directly may return a template that is rendered later.
            response.add_post_render_callback(rendered)
            return True
        if not response.streaming:
            watch.size = len(response.content)
            watch.is_complete = True
            return False
        if not watch.is_pending:
            # The server can send a file by itself.
            return False
        stream = _AsyncStream if response.is_async else _SyncStream
        response.streaming_content = stream(response.streaming_content, watch, finish)
        return True

    def _refusal(self, request: HttpRequest) -> HttpResponse | None:  # noqa: ARG002
        """Check a request, and return the response to it if it is refused."""
        return None

    async def _refusal_async(self, request: HttpRequest) -> HttpResponse | None:  # noqa: ARG002
        return None

    def _finish(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        """Return the response with the header fields, or that of the verdict in place of it."""
        record = _charges.record_of(fields(request))
        record.adopt(getattr(request, "verdict", None))
        refusal = record.refusal
        if (
            refusal is not None
            and response.status_code == refusal.status
            and not hasattr(response, REFUSAL)
        ):
            return _refused(refusal, request)
        for name, value in record.fields():
            response[name] = value
        return response


class _Middleware(VerdictMiddleware):
    """Middleware that applies a rule to each request whose path is not exempt."""

    section = ""

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        super().__init__(get_response)
        found = _settings(self.section)
        try:
            self._exempt = exemption(found.get("EXEMPT", ()))
            self._exempt_methods = exempt_methods(found.get("EXEMPT_METHODS", ()))
            self._rule = self._rule_with(
                costs=self._costs(found),
                shadow=in_shadow_mode(self.section),
                on_verdict=self._function(found.get("ON_VERDICT")),
                settle=self._function(found.get("SETTLE")),
                refund=found.get("REFUND", ()),
                refusal=self._function(found.get("REFUSAL")),
                awaits=self._is_async,
            )
        except (TypeError, ValueError) as error:
            raise ImproperlyConfigured(f'KEYTALLY["{self.section}"]: {error}') from error

    def _rule_with(self, **options: Any) -> Rule[HttpRequest]:  # noqa: ANN401
        raise NotImplementedError

    def _costs(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of ``Costs.of``."""
        return {"cost": self._function(found.get("COST", 1))}

    def _function(self, named: Any) -> Any:  # noqa: ANN401
        """Return the function that a setting names, in a form that this middleware can call."""
        function = _function(named)
        return (
            async_to_sync(function)
            if _calls.is_async(function) and not self._is_async
            else function
        )

    def _refusal(self, request: HttpRequest) -> HttpResponse | None:
        if self._is_exempt(request):
            return None
        return _refusal_of(request, self._rule.check(request, fields(request), storing(request)))

    async def _refusal_async(self, request: HttpRequest) -> HttpResponse | None:
        if self._is_exempt(request):
            return None
        decision = await self._rule.check_async(request, fields(request), storing(request))
        return _refusal_of(request, decision)

    def _is_exempt(self, request: HttpRequest) -> bool:
        return request.method in self._exempt_methods or self._exempt(request.path_info)


class GateMiddleware(_Middleware):
    """Admits and charges a request whose ``X-API-Key`` is valid and has quota left.

    >>> import os, tempfile
    >>> from django.http import HttpResponse
    >>> from django.test import RequestFactory, override_settings
    >>> from keytally import Gate, generate_pepper
    >>> pepper, path = generate_pepper(), os.path.join(tempfile.mkdtemp(), "api.gate")
    >>> key = Gate.create(path, pepper=pepper, keys=100).issue(42)
    >>> with override_settings(KEYTALLY={"GATE": {"PATH": path, "PEPPER": pepper}}):
    ...     problems = check_settings()
    ...     capacity = gate().capacity
    ...     middleware = GateMiddleware(lambda request: HttpResponse(request.verdict.account))
    >>> problems, capacity
    ([], 100)
    >>> middleware(RequestFactory().get("/")).status_code
    401
    >>> middleware(RequestFactory().get("/", HTTP_X_API_KEY=key.expose())).content
    b'42'

    """

    section = "GATE"

    def _costs(self, found: Mapping[str, Any]) -> dict[str, Any]:
        costs = {**super()._costs(found), "costs": self._function(found.get("COSTS"))}
        for option in ("group", "need"):
            named = found.get(option.upper())
            is_name = isinstance(named, str) and "." not in named
            costs[option] = named if is_name else self._function(named)
        return costs

    def _rule_with(self, **options: Any) -> Rule[HttpRequest]:  # noqa: ANN401
        return GateRule[HttpRequest](gate(), wsgi.READ, guesses(), **keys(), **options)


class LimiterMiddleware(_Middleware):
    """Admits and charges a request whose subject has quota left.

    >>> from django.http import HttpResponse
    >>> from django.test import RequestFactory, override_settings
    >>> with override_settings(KEYTALLY={"LIMITER": {"POLICY": "1/31d", "WORKERS": 1}}):
    ...     policy = limiter().policy
    ...     middleware = LimiterMiddleware(lambda request: HttpResponse("hello"))
    >>> policy
    Policy('1/31d')
    >>> [middleware(RequestFactory().get("/")).status_code for _ in range(2)]
    [200, 429]

    """

    section = "LIMITER"

    def _rule_with(self, **options: Any) -> Rule[HttpRequest]:  # noqa: ANN401
        found = _settings("LIMITER")
        key = self._function(found.get("KEY", limited_address))
        return LimiterRule[HttpRequest](limiter(), key, charge_on=found.get("CHARGE_ON"), **options)


@checks.register("security")
def check_settings(**_: object) -> list[checks.CheckMessage]:
    """Return the errors of the settings, such as a limiter in memory with several workers."""
    found: list[checks.CheckMessage] = []
    configured = getattr(settings, "KEYTALLY", {})
    for middleware, code in ((GateMiddleware, "E001"), (LimiterMiddleware, "E002")):
        if middleware.section in configured:
            try:
                # The constructor opens the tables, and reads all of the settings.
                middleware(HttpResponse)
            except ImproperlyConfigured as error:
                found.append(checks.Error(str(error), id=f"keytally.{code}"))
            else:
                found += _without_effect(middleware)
    if "LIMITER" in configured and not any(message.level >= checks.ERROR for message in found):
        section = configured["LIMITER"]
        if "PATH" not in section and _workers(section) is None and not settings.DEBUG:
            found.append(checks.Warning(UNKNOWN_WORKERS, id="keytally.W001"))
    return found


def _without_effect(middleware: type[_Middleware]) -> list[checks.CheckMessage]:
    """Return a warning for each setting that has no effect without the middleware.

    There are none if the middleware is installed.
    """
    section = middleware.section
    values = _settings(section)
    named = [name for name in MIDDLEWARE_ONLY if values.get(name) not in NO_VALUES]
    if not named or any(_is_a(path, middleware) for path in settings.MIDDLEWARE):
        return []
    name = middleware.__name__
    return [
        checks.Warning(
            f'KEYTALLY["{section}"]["{one}"] has no effect: only keytally.django.{name} reads it, '
            "and MIDDLEWARE does not have that",
            id="keytally.W002",
        )
        for one in named
    ]


def _is_a(path: str, middleware: type[_Middleware]) -> bool:
    """Return whether an import path leads to the middleware, or to a subclass of it."""
    try:
        named = import_string(path)
    except ImportError:
        # Django reports this error.
        return False
    return isinstance(named, type) and issubclass(named, middleware)


# The settings that the classes of keytally.rest_framework do not read: they have attributes
# instead.
MIDDLEWARE_ONLY = (
    "EXEMPT",
    "EXEMPT_METHODS",
    "COST",
    "COSTS",
    "GROUP",
    "NEED",
    "ON_VERDICT",
    "KEY",
    "SETTLE",
    "REFUND",
    "CHARGE_ON",
    "REFUSAL",
)
# The values that have the same effect as no value.
NO_VALUES: tuple[object, ...] = (None, 1, (), [])

PER_PROCESS = (
    'KEYTALLY["LIMITER"] is in memory, and {count} workers would each admit the whole limit: '
    'give it a "PATH", so that they share it'
)
OPENED = (
    'KEYTALLY["GATE"]["{name}"] as a dict must have "PATH" and "POLICY", and may have "CAPACITY", '
    '"FLEET" and "CREDIT_WAIT"'
)
FLEET_IN_MEMORY = (
    'KEYTALLY["LIMITER"] is in memory, and only a limiter in a file can share its limits: give it '
    'a "PATH", or remove "FLEET" and "CREDIT_WAIT"'
)
UNKNOWN_WORKERS = (
    'KEYTALLY["LIMITER"] is in memory: with several workers each would admit the whole limit. '
    'Give it a "PATH", so that they share it, or set "WORKERS": 1'
)


def _workers(section: Mapping[str, Any]) -> int | None:
    """Return the number of worker processes, by the settings or the server; ``None`` if unknown."""
    if "WORKERS" in section:
        try:
            return int(section["WORKERS"])
        except (TypeError, ValueError):
            shown = redact(repr(section["WORKERS"]))
            raise ImproperlyConfigured(
                f'KEYTALLY["LIMITER"]["WORKERS"] is {shown}, and must be a number'
            ) from None
    found = [os.environ.get("WEB_CONCURRENCY", "")]
    # The options of gunicorn, uvicorn and hypercorn. A worker has the arguments of its server.
    words = " ".join([os.environ.get("GUNICORN_CMD_ARGS", ""), *sys.argv])
    found += re.findall(r"(?:^|\s)(?:--workers|-w|--processes)(?:\s+|=)?(\d+)", words)
    counts = [int(text) for text in found if text.isdigit()]
    return max(counts) if counts else None


def _settings(section: str) -> Mapping[str, Any]:
    """Return the section ``"GATE"`` or ``"LIMITER"`` of the settings.

    Raises:
        ImproperlyConfigured: The section is missing, or has a name that is not known.

    """
    found = getattr(settings, "KEYTALLY", {}).get(section)
    if not isinstance(found, Mapping):
        raise ImproperlyConfigured(f'KEYTALLY["{section}"] is missing in the settings')
    unknown = sorted(set(found) - KNOWN[section], key=str)
    if unknown:
        known = ", ".join(sorted(KNOWN[section]))
        raise ImproperlyConfigured(
            f'KEYTALLY["{section}"] has no {redact(repr(unknown[0]))}; it may have {known}'
        )
    return found


def _function(named: Any) -> Any:  # noqa: ANN401
    """Return the object that a setting names by its import path, or the value itself."""
    if not isinstance(named, str):
        return named
    try:
        return import_string(named)
    except ImportError as error:
        shown = redact(named)
        if shown == named:
            raise ValueError(f"{shown} cannot be imported: {error}") from error
        # The error of the import repeats the name.
        raise ValueError(f"{shown} is not the import path of a function") from None


class _Stream:
    """The body of a streaming response that settles the charges at its end."""

    def __init__(self, parts: Any, watch: Watch, finish: Callable[..., None]) -> None:  # noqa: ANN401
        self._parts = parts
        self._watch = watch
        self._finish = finish

    def close(self) -> None:
        """Settle the charges if the body was not sent to its end."""
        if not self._watch.is_finished:
            self._watch.disconnected = True
            self._finish()


class _SyncStream(_Stream):
    def __iter__(self) -> Iterator[bytes]:
        try:
            for part in self._parts:
                self._watch.size += len(part)
                yield part
        except Exception as error:
            self._finish(error)
            raise
        self._watch.is_complete = True
        self._finish()


class _AsyncStream(_Stream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._parts:
                self._watch.size += len(part)
                yield part
        except Exception as error:
            await self._watch.finish_async(error)
            raise
        self._watch.is_complete = True
        await self._watch.finish_async()


def storing(request: HttpRequest) -> Store:
    """Return a function that stores the verdict in a request."""

    def store(record: _charges.Record, decision: _charges.Decision) -> None:  # noqa: ARG001
        request.verdict = record.verdict

    return store


def _refusal_of(request: HttpRequest, decision: _charges.Decision | None) -> HttpResponse | None:
    """Return the response to the request if the decision refuses it."""
    if decision is None or decision.refusal is None:
        return None
    return _refused(decision.refusal, request)


# The attribute that marks a response as that of a refusal, so that it is not replaced.
REFUSAL = "keytally_refusal"


def _refused(refusal: Refusal, request: HttpRequest) -> HttpResponse:
    """Return the response to a refused request."""
    record = _charges.record_of(fields(request))
    found = _web.response(
        refusal, record.fields(), request.META.get("HTTP_ACCEPT", ""), request.method
    )
    response = HttpResponse(found.body, status=found.status)
    for name, value in found.headers:
        response[name] = value
    setattr(response, REFUSAL, True)
    return response


def _forget(*, setting: str, **_: object) -> None:
    """Close the tables if a test changes the settings. They are opened again when they are used."""
    if setting == "KEYTALLY":
        gate.cache_clear()
        guesses.cache_clear()
        keys.cache_clear()
        limiter.cache_clear()


setting_changed.connect(_forget)
