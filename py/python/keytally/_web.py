"""The HTTP part that integrations share: header fields, and responses to refused requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Union

from keytally._native import FIELD_NAMES, PROBLEM_MEDIA_TYPE, Verdict, accepts_problem

if TYPE_CHECKING:
    from collections.abc import Iterable

API_KEY_HEADER = "X-API-Key"

# In shadow mode, the outcome that would have refused the request, or "cost_out_of_range".
SHADOW_HEADER = "X-Keytally-Shadow"

# Only refusals have these fields. On other responses, they belong to the application.
REFUSAL_NAMES = frozenset(["Retry-After", "WWW-Authenticate"])
# These fields replace those of the application, because a response must have each once.
REPLACED_NAMES = frozenset(
    name.lower() for name in (*FIELD_NAMES, SHADOW_HEADER) if name not in REFUSAL_NAMES
)
RAW_REPLACED_NAMES = frozenset(name.encode() for name in REPLACED_NAMES)

JSON = "application/json"


class OwnAnswer(NamedTuple):
    """An answer to a refused request in place of the verdict's. It has no rate-limit fields."""

    http_status: int
    body: bytes
    problem: bytes
    content_type: str
    headers: list[tuple[str, str]]
    retry_after_s: int | None


Answer = Union[Verdict, OwnAnswer]


def error_body(text: str) -> bytes:
    """Return the JSON body of a refusal."""
    return f'{{"error": "{text}"}}'.encode()


def problem_body(text: str, status: int) -> bytes:
    """Return the problem document (RFC 9457) of a refusal."""
    return f'{{"type": "about:blank", "title": "{text}", "status": {status}}}'.encode()


# The answer if the application's function returns a cost that is out of range.
WRONG_COST = OwnAnswer(
    400,
    error_body("Cost out of range"),
    problem_body("Cost out of range", 400),
    JSON,
    [],
    None,
)


class Refusal(NamedTuple):
    """The response to a request that is not admitted."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes


REASONS = {
    400: "Bad Request",
    401: "Unauthorized",
    429: "Too Many Requests",
    503: "Service Unavailable",
}


def refusal(answer: Answer, fields: Iterable[tuple[str, str]], accept: str, method: str) -> Refusal:
    """Return the response to a refused request.

    Args:
        answer: The answer that refuses the request.
        fields: The rate-limit fields of the response.
        accept: The value of ``Accept`` in the request. If it names problem documents (RFC 9457),
            the body is one.
        method: The method of the request. The response to ``HEAD`` has no body.

    """
    problem = accepts_problem(accept.encode("latin-1", "replace"))
    body = answer.problem if problem else answer.body
    headers = [
        ("Content-Type", PROBLEM_MEDIA_TYPE if problem else answer.content_type),
        ("Content-Length", str(len(body))),
        *fields,
        *refusal_fields(answer),
    ]
    return Refusal(
        answer.http_status, REASONS[answer.http_status], headers, b"" if method == "HEAD" else body
    )


def refusal_fields(answer: Answer) -> list[tuple[str, str]]:
    """Return the header fields that only a refusal has."""
    return [field for field in answer.headers if field[0] in REFUSAL_NAMES]


def raw(fields: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Return header fields as bytes with lowercase names, as ASGI requires."""
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields]
