"""Authentication and throttles for Django REST framework.

In ``settings.py``, beside what `keytally.django` says of ``KEYTALLY``::

    MIDDLEWARE = [..., "keytally.django.VerdictMiddleware"]
    REST_FRAMEWORK = {
        "DEFAULT_AUTHENTICATION_CLASSES": ["keytally.rest_framework.KeyAuthentication"],
        "DEFAULT_THROTTLE_CLASSES": ["keytally.rest_framework.LimiterThrottle"],
    }

Authentication verifies the key and charges its quota in one step. ``request.user`` is then a `KeyHolder` and
``request.auth`` the verdict. The middleware gives responses the header fields, and refusals their exact
bodies. What a throttle refuses, the key is not charged for: see ``docs/INTEGRATIONS.md``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import APIException
from rest_framework.throttling import BaseThrottle

from keytally import _calls, _rule, django, wsgi

if TYPE_CHECKING:
    from rest_framework.request import Request

    from keytally import Gate, Limiter, Verdict, _once, _web

__all__ = ["KeyAuthentication", "KeyHolder", "LimiterThrottle", "Refused"]


class Refused(APIException):
    """A request isn't admitted.

    Attributes:
        verdict: The verdict.
        status_code: The status of the answer: that of the verdict, 429 after too many wrong keys, or 400 to a
            cost that is out of range.

    >>> from keytally import Limiter
    >>> Refused(Limiter("5/minute").check("203.0.113.9", 6)).status_code
    429

    """

    def __init__(self, verdict: Verdict, answer: _web.Answer | None = None) -> None:
        answer = verdict if answer is None else answer
        self.status_code = answer.status
        super().__init__(json.loads(answer.body))
        self.verdict = verdict
        # What the framework's own handler looks for.
        headers = dict(answer.headers)
        self.auth_header = headers.get("WWW-Authenticate")
        self.wait = answer.retry_after


class KeyHolder:
    """Who presented a key: ``request.user``.

    Attributes:
        account: The number of the account that the key belongs to.
        key_id: The key's public name.
        pk: The same, by which the framework's own throttles count.

    >>> from keytally import Gate, generate_pepper
    >>> gate = Gate.in_memory(pepper=generate_pepper(), keys=100)
    >>> KeyHolder(gate.check(gate.issue(42).expose())).account
    42

    """

    is_active = True
    is_anonymous = False
    is_authenticated = True

    def __init__(self, verdict: Verdict) -> None:
        self.account = verdict.account
        self.key_id = verdict.key_id
        self.pk = verdict.key_id

    def __str__(self) -> str:
        return f"account {self.account}"


class KeyAuthentication(BaseAuthentication):
    """Needs a good ``X-API-Key`` with quota left, and charges it. The settings limit wrong keys.

    A request that `keytally.django.GateMiddleware` let in isn't charged again. In shadow mode whoever would
    be refused is anonymous.

    Attributes:
        cost: Units that a request is charged.
        required: Whether a request without the header is refused; if not, other classes may authenticate it.

    >>> class OfReports(KeyAuthentication):
    ...     cost = 10

    """

    cost = 1
    required = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if isinstance(cls.cost, int):
            _calls.checked_cost(cls.cost)
        _calls.refuse_async(gate=cls.gate, cost_of=cls.cost_of)

    def gate(self) -> Gate:
        """Return the gate to ask: that of the settings."""
        return django.gate()

    def cost_of(self, request: Request) -> int:  # noqa: ARG002
        """Return the units that a request is charged: ``cost``."""
        return self.cost

    def authenticate(self, request: Request) -> tuple[KeyHolder, Verdict] | None:
        """Ask the gate."""
        fields = django.fields(request._request)
        if not self.required and not wsgi.READ.keys(fields):
            return None
        rule: _rule.GateRule[Request] = _rule.GateRule(
            self.gate(),
            wsgi.READ,
            django.guesses(),
            cost=self.cost_of,
            shadow=django.in_shadow_mode("GATE"),
            on_verdict=None,
            awaits=True,
        )
        verdict = _verdict_of(rule.ask(request, fields, django.leaving(request._request)))
        # In shadow mode it may be one that would be refused.
        return (KeyHolder(verdict), verdict) if verdict is not None and verdict.admitted else None

    def authenticate_header(self, request: Request) -> str:  # noqa: ARG002
        """Return the scheme for ``WWW-Authenticate``."""
        return dict(self.gate().check(None, 0).headers)["WWW-Authenticate"]


class LimiterThrottle(BaseThrottle):
    """Needs quota left of the request's subject, and charges it.

    Attributes:
        cost: Units that a request is charged.

    >>> class OfLogins(LimiterThrottle):
    ...     def key(self, request, view):
    ...         return request.data.get("name")

    """

    cost = 1

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if isinstance(cls.cost, int):
            _calls.checked_cost(cls.cost)
        _calls.refuse_async(limiter=cls.limiter, key=cls.key)

    def limiter(self) -> Limiter:
        """Return the limiter to ask: that of the settings."""
        return django.limiter()

    def key(self, request: Request, view: object) -> str | bytes | None:  # noqa: ARG002
        """Return the request's subject: the client's address. ``None`` lets it in uncounted."""
        return django.limited_address(request)

    def allow_request(self, request: Request, view: object) -> bool:
        """Ask the limiter."""
        fields = django.fields(request._request)
        rule: _rule.LimiterRule[Request] = _rule.LimiterRule(
            self.limiter(),
            lambda request: self.key(request, view),
            cost=lambda _: self.cost,
            shadow=django.in_shadow_mode("LIMITER"),
            on_verdict=None,
            awaits=True,
        )
        _verdict_of(rule.ask(request, fields, django.leaving(request._request)))
        return True


def _verdict_of(asked: _once.Asked | None) -> Verdict | None:
    """Return the verdict; raise `Refused` if the request is refused for it."""
    if asked is None:
        return None
    if asked.refusal is not None:
        raise Refused(asked.verdict, asked.refusal)
    return asked.verdict
