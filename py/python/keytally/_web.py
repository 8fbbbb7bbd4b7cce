"""The HTTP part that integrations share: header fields, and responses to refused requests."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, NamedTuple

from keytally._native import PROBLEM_MEDIA_TYPE, accepts_problem
from keytally._refusal import QUOTA_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keytally._refusal import Refusal

API_KEY_HEADER = "X-API-Key"

# In shadow mode, the outcome that would have refused the request, or "cost_out_of_range".
SHADOW_HEADER = "X-Keytally-Shadow"

# These fields replace those of the application, because a response must have each once.
REPLACED_NAMES = frozenset(name.lower() for name in (*QUOTA_NAMES, SHADOW_HEADER))
RAW_REPLACED_NAMES = frozenset(name.encode() for name in REPLACED_NAMES)


class Response(NamedTuple):
    """The response to a request that is not admitted."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes


def response(
    refusal: Refusal, fields: Iterable[tuple[str, str]], accept: str, method: str
) -> Response:
    """Return the response to a refused request.

    Args:
        refusal: The status, the bodies and the header fields of the refusal.
        fields: The rate-limit fields of the response.
        accept: The value of ``Accept`` in the request. If it names problem documents (RFC 9457),
            the body is one, unless the application replaced it.
        method: The method of the request. The response to ``HEAD`` has no body.

    """
    body, content_type = refusal.body, refusal.content_type
    if refusal.problem is not None and accepts_problem(accept.encode("latin-1", "replace")):
        body, content_type = refusal.problem, PROBLEM_MEDIA_TYPE
    headers = [
        ("Content-Type", content_type),
        ("Content-Length", str(len(body))),
        *fields,
        *refusal.fields,
    ]
    # WSGI needs a reason for every status.
    reason = http.client.responses.get(refusal.status, "Refused")
    return Response(refusal.status, reason, headers, b"" if method == "HEAD" else body)


def raw(fields: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Return header fields as bytes with lowercase names, as ASGI requires."""
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields]
