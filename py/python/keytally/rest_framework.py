"""Authentication and throttles for Django REST framework.

In ``settings.py``, beside what `keytally.django` says of ``KEYTALLY``::

    MIDDLEWARE = [..., "keytally.django.VerdictMiddleware"]
    REST_FRAMEWORK = {
        "DEFAULT_AUTHENTICATION_CLASSES": ["keytally.rest_framework.KeyAuthentication"],
        "DEFAULT_THROTTLE_CLASSES": ["keytally.rest_framework.LimiterThrottle"],
    }

Authentication verifies the key and charges its quota in one step. ``request.user`` is then a `KeyHolder` and
``request.auth`` the verdict. The middleware gives responses the header fields, and refusals their exact
bodies.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import APIException
from rest_framework.throttling import BaseThrottle

from keytally import _web, django

if TYPE_CHECKING:
    from rest_framework.request import Request

    from keytally import Gate, Limiter, Verdict
    from keytally._guesses import Answer

__all__ = ["KeyAuthentication", "KeyHolder", "LimiterThrottle", "Refused"]


class Refused(APIException):
    """A request isn't admitted.

    Attributes:
        verdict: The verdict.
        status_code: The status of the answer: that of the verdict, or 429 after too many wrong keys.

    >>> from keytally import Limiter
    >>> Refused(Limiter("5/minute").check("203.0.113.9", 6)).status_code
    429

    """

    def __init__(self, verdict: Verdict, answer: Answer | None = None) -> None:
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

    def gate(self) -> Gate:
        """Return the gate to ask: that of the settings."""
        return django.gate()

    def cost_of(self, request: Request) -> int:  # noqa: ARG002
        """Return the units that a request is charged: ``cost``."""
        return self.cost

    def authenticate(self, request: Request) -> tuple[KeyHolder, Verdict] | None:
        """Ask the gate."""
        asked: Any = request._request
        header = asked.META.get("HTTP_X_API_KEY")
        if header is None and not self.required:
            return None
        verdict = getattr(asked, "verdict", None)
        if verdict is None or verdict.key_id is None:
            verdict = self.gate().check(header, self.cost_of(request))
            asked.verdict = verdict
        if not verdict.admitted:
            if django.in_shadow_mode("GATE"):
                return None
            answer = django.answer(django.guesses(), verdict, asked)
            setattr(asked, _web.ANSWER, answer)
            raise Refused(verdict, answer)
        return KeyHolder(verdict), verdict

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

    def limiter(self) -> Limiter:
        """Return the limiter to ask: that of the settings."""
        return django.limiter()

    def key(self, request: Request, view: object) -> str | bytes | None:  # noqa: ARG002
        """Return the request's subject: the client's address. ``None`` lets it in uncounted."""
        return django.client_address(request)

    def allow_request(self, request: Request, view: object) -> bool:
        """Ask the limiter."""
        subject = self.key(request, view)
        if subject is None:
            return True
        verdict = self.limiter().check(subject, self.cost)
        asked: Any = request._request
        if not verdict.admitted and not django.in_shadow_mode("LIMITER"):
            asked.verdict = verdict
            raise Refused(verdict)
        # What is left of a key's quota is told rather than of an address's.
        if getattr(asked, "verdict", None) is None:
            asked.verdict = verdict
        return True
