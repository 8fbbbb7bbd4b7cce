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
and only tell; ``"ON_VERDICT"``, which is called with each verdict and its request. A function may be named by
its import path.

``"FAILURES"`` of the gate is how many wrong keys a client address may send, by default
``"20/minute, 200/hour"`` in each process; more get 429. A right key is never refused by it.
``{"PATH": …, "POLICY": …}`` counts for all workers together, and ``None`` sets no limit. Behind a proxy,
``"TRUSTED_PROXIES": ["10.0.0.0/8"]`` names the addresses whose ``X-Forwarded-For`` names the client, and
``"unix"`` stands for all peers of Unix sockets.

The verdict is ``request.verdict``. Put the middleware below those that must see refusals too, such as that
for CORS.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Union

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.http import HttpRequest, HttpResponse
from django.utils.module_loading import import_string

from keytally import _web
from keytally._guesses import DEFAULT, Answer, Guesses
from keytally._native import Gate, Limiter, redact
from keytally.exceptions import KeytallyError

if TYPE_CHECKING:
    from keytally import Verdict

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

SHARED = {"EXEMPT", "COST", "SHADOW", "ON_VERDICT"}
KNOWN = {
    "GATE": SHARED | {"PATH", "PEPPER", "PEPPER_FILE", "FAILURES", "TRUSTED_PROXIES"},
    "LIMITER": SHARED | {"PATH", "POLICY", "CAPACITY", "KEY", "WORKERS"},
}


class KeytallyConfig(AppConfig):
    """The application to install for the checks of the settings."""

    name = "keytally.django"
    label = "keytally"
    verbose_name = "Keytally"


def client_address(request: HttpRequest) -> str:
    """Return the address that the server tells; of an IPv6 address its /64, since a client has all of that.

    Behind a proxy that is the proxy's: then ``"KEY"`` must name a function that reads what that proxy sets.

    Raises:
        RuntimeError: There is no address, as on a Unix socket.

    >>> from django.test import RequestFactory
    >>> client_address(RequestFactory().get("/", REMOTE_ADDR="203.0.113.9"))
    '203.0.113.9'

    """
    return _web.subject_of(request.META.get("REMOTE_ADDR"))


def in_shadow_mode(section: str) -> bool:
    """Return whether everything is let in: ``"SHADOW"`` of ``"GATE"`` or ``"LIMITER"``."""
    return bool(_settings(section).get("SHADOW", False))


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
        return Guesses(failures, found.get("TRUSTED_PROXIES", ()))
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
        if "PATH" in found:
            return Limiter.open_or_create(found["PATH"], found["POLICY"], capacity)
        count = _workers(found)
        if count is not None and count > 1:
            raise ImproperlyConfigured(PER_PROCESS.format(count=count))
        return Limiter(found["POLICY"], capacity)
    except (KeytallyError, OSError) as error:
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
        return self._finish(request, self.get_response(request)) if refusal is None else refusal

    async def _answer(self, request: HttpRequest) -> HttpResponse:
        refusal = self._refusal(request)
        return self._finish(request, await self.get_response(request)) if refusal is None else refusal

    def _refusal(self, request: HttpRequest) -> HttpResponse | None:  # noqa: ARG002
        return None

    def _finish(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        verdict: Verdict | None = getattr(request, "verdict", None)
        if verdict is None:
            return response
        answer: Answer = getattr(request, _web.ANSWER, verdict)
        if not verdict.admitted and response.status_code == answer.status:
            return _refusal(answer, request)
        return _with_headers(response, verdict)


class _Middleware(VerdictMiddleware):
    """What those do that ask themselves."""

    section = ""

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        super().__init__(get_response)
        found = _settings(self.section)
        self._exempt = _web.exemption(found.get("EXEMPT", ()))
        self._cost = _function(found.get("COST", 1))
        self._shadow = in_shadow_mode(self.section)
        self._on_verdict = _function(found.get("ON_VERDICT"))

    def _check(self, request: HttpRequest, cost: int) -> Verdict | None:
        raise NotImplementedError

    def _answer_to(self, verdict: Verdict, request: HttpRequest) -> Answer:  # noqa: ARG002
        """Return what a request that isn't admitted gets."""
        return verdict

    def _refusal(self, request: HttpRequest) -> HttpResponse | None:
        if self._exempt(request.path_info):
            return None
        verdict = self._check(request, self._cost(request) if callable(self._cost) else self._cost)
        if verdict is None:
            return None
        request.verdict = verdict
        if self._on_verdict is not None:
            self._on_verdict(verdict, request)
        if verdict.admitted or self._shadow:
            return None
        return _refusal(self._answer_to(verdict, request), request)

    def _finish(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        verdict: Verdict | None = getattr(request, "verdict", None)
        return response if verdict is None else _with_headers(response, verdict)


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

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        super().__init__(get_response)
        self._gate = gate()
        self._guesses = guesses()

    def _check(self, request: HttpRequest, cost: int) -> Verdict:
        return self._gate.check(request.META.get("HTTP_X_API_KEY"), cost)

    def _answer_to(self, verdict: Verdict, request: HttpRequest) -> Answer:
        return answer(self._guesses, verdict, request)


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

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        super().__init__(get_response)
        self._limiter = limiter()
        self._key = _function(_settings("LIMITER").get("KEY", client_address))

    def _check(self, request: HttpRequest, cost: int) -> Verdict | None:
        subject = self._key(request)
        return None if subject is None else self._limiter.check(subject, cost)


@checks.register("security")
def check_settings(**_: object) -> list[checks.CheckMessage]:
    """Refuse settings that can't work, such as a limiter in memory where several workers have one each."""
    found: list[checks.CheckMessage] = []
    configured = getattr(settings, "KEYTALLY", {})
    for section, tables, code in (("GATE", (gate, guesses), "E001"), ("LIMITER", (limiter,), "E002")):
        if section in configured:
            try:
                for opened in tables:
                    opened()
            except ImproperlyConfigured as error:
                found.append(checks.Error(str(error), id=f"keytally.{code}"))
    if "LIMITER" in configured and not found:
        section = configured["LIMITER"]
        if "PATH" not in section and _workers(section) is None and not settings.DEBUG:
            found.append(checks.Warning(UNKNOWN_WORKERS, id="keytally.W001"))
    return found


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
    except ImportError:
        shown = redact(named)
        if shown == named:
            raise
        # The import's own error repeats the name.
        raise ImproperlyConfigured(f"{shown} is no import path of a function") from None


def answer(guesses: Guesses, verdict: Verdict, request: HttpRequest) -> Answer:
    """Return what a request that isn't admitted gets."""
    forwarded_for = request.META.get("HTTP_X_FORWARDED_FOR", "")
    return guesses.answer(verdict, request.META.get("REMOTE_ADDR"), forwarded_for)


def _refusal(answer: Answer, request: HttpRequest) -> HttpResponse:
    refusal = _web.refusal(answer, request.META.get("HTTP_ACCEPT", ""), request.method)
    response = HttpResponse(refusal.body, status=refusal.status)
    for name, value in refusal.headers:
        response[name] = value
    return response


def _with_headers(response: HttpResponse, verdict: Verdict) -> HttpResponse:
    for name, value in _web.headers_of_response(verdict):
        response[name] = value
    return response


def _forget(*, setting: str, **_: object) -> None:
    """Open the tables anew when a test has changed the settings."""
    if setting == "KEYTALLY":
        gate.cache_clear()
        guesses.cache_clear()
        limiter.cache_clear()


setting_changed.connect(_forget)
