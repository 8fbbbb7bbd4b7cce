"""Middleware for Django, synchronous and asynchronous, and the checks of its settings.

In ``settings.py``::

    INSTALLED_APPS = [..., "keytally.django.KeytallyConfig"]  # adds the checks
    MIDDLEWARE = [..., "keytally.django.GateMiddleware"]
    KEYTALLY = {
        "GATE": {"PATH": "/var/lib/contacts/api.gate", "EXEMPT": ["/health", "/static/*"]},
    }

The pepper is in ``KEYTALLY_PEPPER``, unless the gate has ``"PEPPER"`` or ``"PEPPER_FILE"``. With
``LimiterMiddleware`` it is ``"LIMITER": {"PATH": …, "POLICY": "20/minute, 200/hour"}``, and ``"KEY"`` is a
function of the request that returns what to count, in place of the client's address. Both take ``"EXEMPT"``,
a list of paths; ``"COST"``, a number or a function of the request; ``"SHADOW"``, whether to let everything in
and only tell; ``"ON_VERDICT"``, which is called with each verdict and its request; ``"IPV6_PREFIX"``, how
many bits of an IPv6 address count as one client, by default 64. A function may be named by its import path,
and may be async. Only the middleware reads ``"EXEMPT"``, ``"COST"``, ``"ON_VERDICT"`` and ``"KEY"``. The
classes of `keytally.rest_framework` have a cost and a key of their own, and a view that needs none of these
classes does not name them.

``"FAILURES"`` of the gate is how many wrong keys a client address may send, by default
``"20/minute, 200/hour"`` in each process; more get 429. A right key is never refused by it.
``{"PATH": …, "POLICY": …}`` counts for all workers together, and ``None`` sets no limit. Behind a proxy,
``"TRUSTED_PROXIES": ["10.0.0.0/8"]`` names the addresses whose ``X-Forwarded-For`` names the client, and
``"unix"`` stands for all peers of Unix sockets.

The verdict is ``request.verdict``. Put the middleware below those that must see refusals too, such as that
for CORS. A request has one verdict and is charged once, also with both middlewares and with
`keytally.rest_framework`: see ``docs/INTEGRATIONS.md``.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Union

from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction
from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.http import HttpRequest, HttpResponse
from django.utils.module_loading import import_string

from keytally import _calls, _once, _web, wsgi
from keytally._addresses import IPV6_PREFIX, checked_prefix, subject
from keytally._exempt import exemption
from keytally._guesses import DEFAULT, Guesses
from keytally._native import Gate, Limiter, redact
from keytally._rule import GateRule, LimiterRule, Rule
from keytally.exceptions import KeytallyError

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

SHARED = {"EXEMPT", "COST", "SHADOW", "ON_VERDICT", "IPV6_PREFIX"}
KNOWN = {
    "GATE": SHARED | {"PATH", "PEPPER", "PEPPER_FILE", "FAILURES", "TRUSTED_PROXIES"},
    "LIMITER": SHARED | {"PATH", "POLICY", "CAPACITY", "KEY", "WORKERS"},
}


class KeytallyConfig(AppConfig):
    """The application to install for the checks of the settings."""

    name = "keytally.django"
    label = "keytally"
    verbose_name = "Keytally"


def client_address(request: HttpRequest, *, ipv6_prefix: int = IPV6_PREFIX) -> str:
    """Return what counts the client's address, as the server reports it, by ``docs/ADDRESSES.md``.

    Behind a proxy that is the proxy's: then ``"KEY"`` must name a function that reads what that proxy sets.

    Args:
        request: The request.
        ipv6_prefix: How many bits of an IPv6 address count: a client has all of its /64.

    Raises:
        RuntimeError: There is no address, as on a Unix socket.

    >>> from django.test import RequestFactory
    >>> client_address(RequestFactory().get("/", REMOTE_ADDR="203.0.113.9"))
    '203.0.113.9'

    """
    return subject(wsgi.READ.peer(request.META), ipv6_prefix)


def limited_address(request: HttpRequest) -> str:
    """Return what counts the client's address by the settings of the limiter."""
    section = getattr(settings, "KEYTALLY", {}).get("LIMITER", {})
    return client_address(request, ipv6_prefix=section.get("IPV6_PREFIX", IPV6_PREFIX))


def fields(request: HttpRequest) -> MutableMapping[str, Any]:
    """Return the environ, with the record that the request has in its ASGI scope, if it has one."""
    environ: MutableMapping[str, Any] = request.META
    scope = getattr(request, "scope", None)
    if scope is not None and _once.NAME not in environ:
        environ[_once.NAME] = _once.of(scope)
    return environ


def in_shadow_mode(section: str) -> bool:
    """Return whether everything is let in: ``"SHADOW"`` of ``"GATE"`` or ``"LIMITER"``."""
    return section in getattr(settings, "KEYTALLY", {}) and bool(_settings(section).get("SHADOW", False))


@functools.cache
def gate() -> Gate:
    """Return the gate of the settings, which each process opens once.

    Raises:
        ImproperlyConfigured: The settings name no gate that can be opened.

    """
    found = _settings("GATE")
    if "PATH" not in found:
        raise ImproperlyConfigured('KEYTALLY["GATE"]["PATH"] is missing: it names the file of the gate')
    try:
        return Gate.open(found["PATH"], pepper=found.get("PEPPER"), pepper_file=found.get("PEPPER_FILE"))
    except (KeytallyError, OSError) as error:
        raise ImproperlyConfigured(f'KEYTALLY["GATE"]: {error}') from error


@functools.cache
def guesses() -> Guesses:
    """Return the limit of failed checks of the settings.

    Raises:
        ImproperlyConfigured: The settings name no limit, or no networks.

    """
    found = _settings("GATE")
    failures = found.get("FAILURES", DEFAULT)
    try:
        if isinstance(failures, Mapping):
            if not {"PATH", "POLICY"} <= set(failures) <= {"PATH", "POLICY", "CAPACITY"}:
                raise ImproperlyConfigured(FAILURES)
            capacity = failures.get("CAPACITY", 100_000)
            failures = Limiter.open_or_create(failures["PATH"], failures["POLICY"], capacity)
        return Guesses(failures, found.get("TRUSTED_PROXIES", ()), found.get("IPV6_PREFIX", IPV6_PREFIX))
    except (KeytallyError, OSError, TypeError, ValueError) as error:
        raise ImproperlyConfigured(f'KEYTALLY["GATE"]: {error}') from error


@functools.cache
def limiter() -> Limiter:
    """Return the limiter of the settings: that in the file, or one for this process.

    Raises:
        ImproperlyConfigured: The settings name no limiter that can be opened, or one for this process where
            there are several.

    """
    found = _settings("LIMITER")
    if "POLICY" not in found:
        raise ImproperlyConfigured('KEYTALLY["LIMITER"]["POLICY"] is missing: such as "20/minute, 200/hour"')
    capacity = found.get("CAPACITY", 100_000)
    try:
        checked_prefix(found.get("IPV6_PREFIX", IPV6_PREFIX))
        if "PATH" in found:
            return Limiter.open_or_create(found["PATH"], found["POLICY"], capacity)
        count = _workers(found)
        if count is not None and count > 1:
            raise ImproperlyConfigured(PER_PROCESS.format(count=count))
        return Limiter(found["POLICY"], capacity)
    except (KeytallyError, OSError, TypeError, ValueError) as error:
        raise ImproperlyConfigured(f'KEYTALLY["LIMITER"]: {error}') from error


class VerdictMiddleware:
    """Puts the header fields of ``request.verdict``, which something further in set, into the response.

    If that verdict is no, it is the whole response, with the exact body. For `keytally.rest_framework`, whose
    classes don't see the response.

    >>> from django.http import HttpResponse
    >>> from django.test import RequestFactory
    >>> from keytally import Limiter
    >>> def view(request):
    ...     request.verdict = Limiter("5/31d").check("203.0.113.9")
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
        """Answer a request."""
        if self._is_async:
            return self._answer(request)
        refusal = self._refusal(request)
        return self._finish(request, self.get_response(request) if refusal is None else refusal)

    async def _answer(self, request: HttpRequest) -> HttpResponse:
        refusal = await self._refusal_awaiting(request)
        return self._finish(request, await self.get_response(request) if refusal is None else refusal)

    def _refusal(self, request: HttpRequest) -> HttpResponse | None:  # noqa: ARG002
        return None

    async def _refusal_awaiting(self, request: HttpRequest) -> HttpResponse | None:  # noqa: ARG002
        return None

    def _finish(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        record = _once.of(fields(request))
        record.adopt(getattr(request, "verdict", None))
        answer = record.answer
        if answer is not None and response.status_code == answer.status and not hasattr(response, REFUSAL):
            return _refused(answer, request)
        for name, value in record.fields():
            response[name] = value
        return response


class _Middleware(VerdictMiddleware):
    """What those do that ask themselves."""

    section = ""

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        super().__init__(get_response)
        found = _settings(self.section)
        try:
            self._exempt = exemption(found.get("EXEMPT", ()))
            self._rule = self._rule_with(
                cost=self._function(found.get("COST", 1)),
                shadow=in_shadow_mode(self.section),
                on_verdict=self._function(found.get("ON_VERDICT")),
                awaits=self._is_async,
            )
        except (TypeError, ValueError) as error:
            raise ImproperlyConfigured(f'KEYTALLY["{self.section}"]: {error}') from error

    def _rule_with(self, **options: Any) -> Rule[HttpRequest]:  # noqa: ANN401
        raise NotImplementedError

    def _function(self, named: Any) -> Any:  # noqa: ANN401
        """Return what a setting names, which can be called here."""
        function = _function(named)
        return async_to_sync(function) if _calls.is_async(function) and not self._is_async else function

    def _refusal(self, request: HttpRequest) -> HttpResponse | None:
        if self._exempt(request.path_info):
            return None
        return _follow(request, self._rule.ask(request, fields(request), leaving(request)))

    async def _refusal_awaiting(self, request: HttpRequest) -> HttpResponse | None:
        if self._exempt(request.path_info):
            return None
        asked = await self._rule.ask_awaiting(request, fields(request), leaving(request))
        return _follow(request, asked)


class GateMiddleware(_Middleware):
    """Lets a request in when its ``X-API-Key`` is good and has quota left, and charges it.

    >>> import os, tempfile
    >>> from django.http import HttpResponse
    >>> from django.test import RequestFactory, override_settings
    >>> from keytally import Gate, generate_pepper
    >>> pepper, path = generate_pepper(), os.path.join(tempfile.mkdtemp(), "api.gate")
    >>> key = Gate.create(path, pepper=pepper, keys=100).issue(42)
    >>> with override_settings(KEYTALLY={"GATE": {"PATH": path, "PEPPER": pepper}}):
    ...     problems = check_settings()
    ...     capacity = gate().capacity
    ...     middleware = GateMiddleware(lambda request: HttpResponse(f"account {request.verdict.account}"))
    >>> problems, capacity
    ([], 100)
    >>> middleware(RequestFactory().get("/")).status_code
    401
    >>> middleware(RequestFactory().get("/", HTTP_X_API_KEY=key.expose())).content
    b'account 42'

    """

    section = "GATE"

    def _rule_with(self, **options: Any) -> Rule[HttpRequest]:  # noqa: ANN401
        return GateRule[HttpRequest](gate(), wsgi.READ, guesses(), **options)


class LimiterMiddleware(_Middleware):
    """Lets a request in when its subject has quota left, and charges it.

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
        key = self._function(_settings("LIMITER").get("KEY", limited_address))
        return LimiterRule[HttpRequest](limiter(), key, **options)


@checks.register("security")
def check_settings(**_: object) -> list[checks.CheckMessage]:
    """Refuse settings that can't work, such as a limiter in memory where several workers have one each."""
    found: list[checks.CheckMessage] = []
    configured = getattr(settings, "KEYTALLY", {})
    for middleware, code in ((GateMiddleware, "E001"), (LimiterMiddleware, "E002")):
        if middleware.section in configured:
            try:
                # It opens the tables, and reads all of the settings.
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
    """Report what only the middleware reads if the project has no such middleware."""
    section = middleware.section
    values = _settings(section)
    named = [name for name in OF_MIDDLEWARE if values.get(name) not in NO_VALUES]
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
    """Return whether an import path names the middleware, or a class of the project that is one."""
    try:
        named = import_string(path)
    except ImportError:
        # Django reports that itself.
        return False
    return isinstance(named, type) and issubclass(named, middleware)


# What keytally.rest_framework does not read: its classes say it.
OF_MIDDLEWARE = ("EXEMPT", "COST", "ON_VERDICT", "KEY")
# As if it were not there.
NO_VALUES: tuple[object, ...] = (None, 1, (), [])

PER_PROCESS = (
    'KEYTALLY["LIMITER"] is in memory, and {count} workers would each admit the whole limit: '
    'give it a "PATH", so that they share it'
)
FAILURES = 'KEYTALLY["GATE"]["FAILURES"] as a dict must have "PATH" and "POLICY", and may have "CAPACITY"'
UNKNOWN_WORKERS = (
    'KEYTALLY["LIMITER"] is in memory: with several workers each would admit the whole limit. '
    'Give it a "PATH", so that they share it, or say "WORKERS": 1'
)


def _workers(section: Mapping[str, Any]) -> int | None:
    """Return how many processes serve, by the settings or the server's own; ``None`` if neither tells."""
    if "WORKERS" in section:
        try:
            return int(section["WORKERS"])
        except (TypeError, ValueError):
            shown = redact(repr(section["WORKERS"]))
            raise ImproperlyConfigured(
                f'KEYTALLY["LIMITER"]["WORKERS"] is {shown}, and must be a number'
            ) from None
    told = [os.environ.get("WEB_CONCURRENCY", "")]
    # Of gunicorn, uvicorn, hypercorn and others; a worker has the arguments of the server that started it.
    words = " ".join([os.environ.get("GUNICORN_CMD_ARGS", ""), *sys.argv])
    told += re.findall(r"(?:^|\s)(?:--workers|-w|--processes)(?:\s+|=)?(\d+)", words)
    counts = [int(text) for text in told if text.isdigit()]
    return max(counts) if counts else None


def _settings(section: str) -> Mapping[str, Any]:
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
    """Return what a setting names by its import path, or holds itself."""
    if not isinstance(named, str):
        return named
    try:
        return import_string(named)
    except ImportError as error:
        shown = redact(named)
        if shown == named:
            raise ValueError(f"{shown} cannot be imported: {error}") from error
        # The import's own error repeats the name.
        raise ValueError(f"{shown} is not the import path of a function") from None


def leaving(request: HttpRequest) -> Callable[[_once.Record, _once.Asked], None]:
    """Return a function that leaves the verdict in a request."""

    def leave(record: _once.Record, asked: _once.Asked) -> None:  # noqa: ARG001
        request.verdict = record.verdict

    return leave


def _follow(request: HttpRequest, asked: _once.Asked | None) -> HttpResponse | None:
    return None if asked is None or asked.refusal is None else _refused(asked.refusal, request)


# The attribute of a response that says that it is a refusal in its exact form.
REFUSAL = "keytally_refusal"


def _refused(answer: _web.Answer, request: HttpRequest) -> HttpResponse:
    record = _once.of(fields(request))
    refusal = _web.refusal(answer, record.fields(), request.META.get("HTTP_ACCEPT", ""), request.method)
    response = HttpResponse(refusal.body, status=refusal.status)
    for name, value in refusal.headers:
        response[name] = value
    setattr(response, REFUSAL, True)
    return response


def _forget(*, setting: str, **_: object) -> None:
    """Open the tables anew when a test has changed the settings."""
    if setting == "KEYTALLY":
        gate.cache_clear()
        guesses.cache_clear()
        limiter.cache_clear()


setting_changed.connect(_forget)
