"""Authentication and throttles for Django REST framework.

In ``settings.py``, in addition to ``KEYTALLY``, which `keytally.django` describes::

    MIDDLEWARE = [..., "keytally.django.VerdictMiddleware"]
    REST_FRAMEWORK = {
        "DEFAULT_AUTHENTICATION_CLASSES": ["keytally.rest_framework.KeyAuthentication"],
        "DEFAULT_THROTTLE_CLASSES": ["keytally.rest_framework.LimiterThrottle"],
    }

Authentication verifies the key and charges its quota. ``request.user`` is then a `KeyHolder`, and
``request.auth`` is the verdict. The middleware sets the header fields of responses, and replaces
the response to a refused request by that of the verdict. If a throttle refuses a request, the key
is not charged for it: see ``docs/INTEGRATIONS.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import APIException
from rest_framework.throttling import BaseThrottle

from keytally import _calls, django, wsgi
from keytally._charges import record_of
from keytally._refusal import Refusal, checked_function, text_of
from keytally._rule import GateRule, LimiterRule
from keytally._settle import Settlement

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from rest_framework.request import Request

    from keytally import Gate, Limiter, Verdict
    from keytally._charges import Decision
    from keytally._rule import Rule, Statuses

__all__ = ["KeyAuthentication", "KeyHolder", "LimiterThrottle", "Refused"]


class Refused(APIException):
    """A request was refused.

    Attributes:
        verdict: The verdict.
        refusal: The `Refusal`: the documented response, or that of the method ``refusal``.
        status_code: The status of the response.

    >>> from keytally import Limiter
    >>> Refused(Limiter.in_memory("5/minute").check("203.0.113.9", 6)).status_code
    429

    """

    def __init__(self, verdict: Verdict, refusal: Refusal | None = None) -> None:
        refusal = Refusal.of(verdict) if refusal is None else refusal
        self.status_code = refusal.status
        super().__init__({"error": text_of(refusal)})
        self.verdict = verdict
        self.refusal = refusal
        # The framework's exception handler reads these attributes.
        self.auth_header = dict(refusal.fields).get("WWW-Authenticate")
        self.wait = refusal.retry_after_s


class KeyHolder:
    """The user of a request with a valid key, ``request.user``.

    Attributes:
        account: The number of the account that the key belongs to.
        key_id: The id of the key, 11 base62 characters.
        pk: The same as ``key_id``. The throttles of the framework count requests by it.

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
    """Requires a valid ``X-API-Key`` with quota left, and charges it.

    ``"FAILURES"`` of the settings limits wrong keys, ``"KEY_FROM"`` names other headers, and
    ``"WITHOUT_KEY"`` admits requests without a key, which are anonymous. A request that
    `keytally.django.GateMiddleware` admitted is not charged again. In shadow mode, a request that
    would be refused is anonymous.

    Attributes:
        cost: The cost of a request in units, 0 to 4294967295.
        group: The groups of the gate's plans that are charged ``cost`` too: a name, several, or a
            method with the parameter ``request`` that returns them.
        costs: The groups that are charged a cost of their own, such as ``{"tokens": 2500}``, or a
            method with the parameter ``request`` that returns them.
        need: The scopes that the key must have: a name, several, or a method with the parameter
            ``request`` that returns them. Without one of them, the response has status 403.
        required: Whether a request without a key is refused. If it is not, other classes may
            authenticate it.
        settle: A method with the parameters ``request`` and ``sent``, what was `Sent`, that returns
            the actual cost after the response; ``None`` by default.
        refund: The statuses at which the charge is refunded after the response: a number, a class
            such as ``"5xx"``, or a list of them.
        refusal: A method with the parameters ``refused``, a `Refusal`, and ``request`` that returns
            the response to a refused request; ``None`` by default.

    >>> class ReportAuthentication(KeyAuthentication):
    ...     cost = 10
    >>> class WriteAuthentication(KeyAuthentication):
    ...     group = need = "write"

    """

    cost = 1
    group: Any = ()
    costs: Any = None
    need: Any = ()
    required = True
    settle: Callable[..., int] | None = None
    refund: Statuses = ()
    refusal: Callable[..., Refusal] | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if isinstance(cls.cost, int):
            _calls.checked_cost(cls.cost)
        _calls.refuse_async(
            gate=cls.gate,
            cost_of=cls.cost_of,
            group=cls.group,
            costs=cls.costs,
            need=cls.need,
            settle=cls.settle,
            refusal=cls.refusal,
        )
        checked_function(cls.refusal)
        Settlement.of(cls.settle, cls.refund, None)

    def gate(self) -> Gate:
        """Return the gate that checks keys, by default that of the settings."""
        return django.gate()

    def cost_of(self, request: Request) -> int:  # noqa: ARG002
        """Return the cost of a request in units, by default ``cost``."""
        return self.cost

    def authenticate(self, request: Request) -> tuple[KeyHolder, Verdict] | None:
        """Check the key of a request with the gate."""
        fields = django.fields(request._request)
        keys = django.keys()
        if not self.required and not keys["keys"].presented(wsgi.READ, fields):
            return None
        rule: GateRule[Request] = GateRule(
            self.gate(),
            wsgi.READ,
            django.guesses(),
            **keys,
            costs={
                "cost": self.cost_of,
                "group": self.group,
                "costs": self.costs,
                "need": self.need,
            },
            shadow=django.in_shadow_mode("GATE"),
            on_verdict=None,
            settle=self.settle,
            refund=self.refund,
            refusal=self.refusal,
            awaits=True,
        )
        _require_middleware(rule, fields)
        verdict = _verdict_of(rule.check(request, fields, django.storing(request._request)))
        # In shadow mode, the verdict may be one that would refuse the request. A request without a
        # key may have the verdict of the limiter of such requests.
        if verdict is None or verdict.key_id is None or not verdict.admitted:
            return None
        return KeyHolder(verdict), verdict

    def authenticate_header(self, request: Request) -> str:  # noqa: ARG002
        """Return the value of ``WWW-Authenticate``."""
        return dict(self.gate().check(None, 0).headers)["WWW-Authenticate"]


class LimiterThrottle(BaseThrottle):
    """Requires quota left for the request's subject, and charges it.

    Attributes:
        cost: The cost of a request in units, 0 to 4294967295.
        settle: A method with the parameters ``request`` and ``sent``, what was `Sent`, that returns
            the actual cost after the response; ``None`` by default.
        refund: The statuses at which the charge is refunded after the response: a number, a class
            such as ``"5xx"``, or a list of them.
        charge_on: The statuses at which a request is charged, after its response. Before, the
            limiter is only checked for room. ``None`` charges each request before its response.
        refusal: A method with the parameters ``refused``, a `Refusal`, and ``request`` that returns
            the response to a refused request; ``None`` by default.

    >>> class LoginThrottle(LimiterThrottle):
    ...     def key(self, request, view):
    ...         return request.data.get("name")

    """

    cost = 1
    settle: Callable[..., int] | None = None
    refund: Statuses = ()
    charge_on: Statuses | None = None
    refusal: Callable[..., Refusal] | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if isinstance(cls.cost, int):
            _calls.checked_cost(cls.cost)
        _calls.refuse_async(
            limiter=cls.limiter, key=cls.key, settle=cls.settle, refusal=cls.refusal
        )
        checked_function(cls.refusal)
        Settlement.of(cls.settle, cls.refund, cls.charge_on)

    def limiter(self) -> Limiter:
        """Return the limiter that checks subjects, by default that of the settings."""
        return django.limiter()

    def key(self, request: Request, view: object) -> str | bytes | None:  # noqa: ARG002
        """Return the subject to count, by default that of the client's address.

        If an override returns ``None``, the request is not counted.
        """
        return django.limited_address(request)

    def allow_request(self, request: Request, view: object) -> bool:
        """Check the subject of a request with the limiter. A refusal raises `Refused`."""
        fields = django.fields(request._request)
        rule: LimiterRule[Request] = LimiterRule(
            self.limiter(),
            lambda request: self.key(request, view),
            costs={"cost": lambda _: self.cost},
            shadow=django.in_shadow_mode("LIMITER"),
            on_verdict=None,
            settle=self.settle,
            refund=self.refund,
            charge_on=self.charge_on,
            refusal=self.refusal,
            awaits=True,
        )
        _require_middleware(rule, fields)
        _verdict_of(rule.check(request, fields, django.storing(request._request)))
        return True


def _require_middleware(rule: Rule[Request], fields: MutableMapping[str, Any]) -> None:
    """Raise a `RuntimeError` if the rule settles charges and no middleware sees the response."""
    if rule.settlement is not None and not record_of(fields).is_watched:
        raise RuntimeError(
            "settle, refund and charge_on act after the response, which these classes do not see: "
            "add keytally.django.VerdictMiddleware to MIDDLEWARE"
        )


def _verdict_of(decision: Decision | None) -> Verdict | None:
    """Return the verdict of a decision; raise `Refused` if it refuses the request."""
    if decision is None:
        return None
    if decision.refusal is not None:
        raise Refused(decision.verdict, decision.refusal)
    return decision.verdict
