"""OpenAPI for Django REST framework by drf-spectacular: security schemes, and refusals.

In ``settings.py``, in addition to the settings of `keytally.rest_framework`::

    INSTALLED_APPS = [..., "drf_spectacular"]
    REST_FRAMEWORK = {..., "DEFAULT_SCHEMA_CLASS": "keytally.spectacular.AutoSchema"}

The OpenAPI document then has a security scheme for each header of ``"KEY_FROM"``, and each
operation has the responses 401, 403, 429 and 503 of its authentication and its throttles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drf_spectacular import openapi
from drf_spectacular.extensions import OpenApiAuthenticationExtension

from keytally import django
from keytally._openapi import refusal_object, scheme_name
from keytally.rest_framework import KeyAuthentication, LimiterThrottle

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["AutoSchema", "KeyScheme"]


class KeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """The security schemes of `keytally.rest_framework.KeyAuthentication` and its subclasses.

    Each scheme alone is enough. If requests without a key are admitted, an operation has an empty
    requirement too.

    >>> from keytally.rest_framework import KeyAuthentication
    >>> KeyScheme(KeyAuthentication()).get_security_definition(None)
    [{'type': 'apiKey', 'in': 'header', 'name': 'X-API-Key'}]

    """

    target_class = "keytally.rest_framework.KeyAuthentication"
    match_subclasses = True

    @property
    def name(self) -> list[str]:  # type: ignore[override]
        """The names of the schemes."""
        return [scheme_name(source) for source in django.key_sources()]

    def get_security_requirement(self, auto_schema: Any) -> list[dict[str, list[Any]]]:  # noqa: ANN401, ARG002
        """Return the requirements, of which a request must meet one."""
        found: list[dict[str, list[Any]]] = [{name: []} for name in self.name]
        return found if _needs_key(self.target) else [*found, {}]

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, Any]]:  # noqa: ANN401, ARG002
        """Return the definitions of the schemes."""
        return [
            {"type": "http", "scheme": "bearer"}
            if source.is_bearer
            else {"type": "apiKey", "in": "header", "name": source.name}
            for source in django.key_sources()
        ]


class AutoSchema(openapi.AutoSchema):
    """The schema class that adds the refusals of a view's authentication and throttles.

    Responses that the view documents itself are kept. Those of a class with a method ``refusal``
    have no content, which the method decides.

    >>> from rest_framework.decorators import api_view, throttle_classes
    >>> from keytally.rest_framework import LimiterThrottle
    >>> @api_view()
    ... @throttle_classes([LimiterThrottle])
    ... def contacts(request): ...
    >>> contacts.cls.schema = AutoSchema()

    """

    def get_operation(self, *arguments: Any) -> dict[str, Any] | None:  # noqa: ANN401
        """Return the operation object of a view."""
        operation: dict[str, Any] | None = super().get_operation(*arguments)
        if operation is not None:
            for status, is_replaced in sorted(self._refusals()):
                operation["responses"].setdefault(str(status), refusal_object(status, is_replaced))
        return operation

    def _refusals(self) -> Iterator[tuple[int, bool]]:
        """Yield the statuses of refusals, and whether a method replaces their content."""
        for used in [*self.view.get_authenticators(), *self.view.get_throttles()]:
            if isinstance(used, (KeyAuthentication, LimiterThrottle)):
                for status in _statuses_of(used):
                    yield status, used.refusal is not None


def _statuses_of(used: KeyAuthentication | LimiterThrottle) -> list[int]:
    """Return the statuses of the refusals of a class."""
    if isinstance(used, LimiterThrottle):
        return [429, 503]
    forbidden = [403] if used.need else []
    return [401, *forbidden, 429, 503]


def _needs_key(authentication: KeyAuthentication) -> bool:
    """Return whether a request without a key is refused."""
    return authentication.required and not django.limits_requests_without_key()
