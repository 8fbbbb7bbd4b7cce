"""The OpenAPI objects of refusals and of security schemes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from keytally import _web
from keytally._native import Gate, Limiter, Verdict, generate_pepper
from keytally._refusal import QUOTA_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keytally._keys import Source


def scheme_name(source: Source) -> str:
    """Return the name of the security scheme of a header."""
    if source.is_bearer:
        return "Bearer"
    return "APIKey" if source.name == _web.API_KEY_HEADER else source.name


def refusal_object(status: int, is_replaced: bool) -> dict[str, Any]:
    """Return the response object of a refusal, without content if a function replaces that."""
    found = REFUSALS[status]
    if not is_replaced:
        return found
    return {name: value for name, value in found.items() if name != "content"}


def _response(description: str, verdict: Verdict, names: Iterable[str]) -> dict[str, Any]:
    """Return the response object of a refusal, with the body of a verdict as its example."""
    error = {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "string"}},
    }
    return {
        "description": description,
        "headers": {name: {"schema": {"type": "string"}} for name in names},
        "content": {
            "application/json": {"schema": error, "example": json.loads(verdict.body)},
            "application/problem+json": {
                "schema": {"type": "object"},
                "example": json.loads(verdict.problem),
            },
        },
    }


def _refusals() -> dict[int | str, dict[str, Any]]:
    """Return the response objects of the refusals by status."""
    duplicate = Verdict.duplicate_header(now=0)
    gate = Gate.in_memory(pepper=generate_pepper(), keys=1, scopes=["write"])
    forbidden = gate.check(gate.issue(1, now=0).expose(), need="write", now=0)
    denied = Limiter.in_memory("1/minute", 1).check("", 2, now=0)
    unavailable = {
        "description": "The limiter has no room for another client, or the counts of the key are "
        "being moved to another file."
    }
    return {
        401: _response("The key is missing or invalid.", duplicate, ["WWW-Authenticate"]),
        403: _response("The key lacks a scope.", forbidden, []),
        429: _response("A limit is reached.", denied, ["Retry-After", *QUOTA_NAMES]),
        503: {**unavailable, "headers": {"Retry-After": {"schema": {"type": "string"}}}},
    }


REFUSALS = _refusals()
