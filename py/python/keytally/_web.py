"""What integrations have in common: header fields, answers of their own, responses to refused requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Union

from keytally._native import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

API_KEY_HEADER = "X-API-Key"
RAW_API_KEY_HEADER = b"x-api-key"

# In shadow mode, says what a request that was let through would have been.
SHADOW_HEADER = "X-Keytally-Shadow"

# What an application's response has of these is replaced: there must be one of each.
NAMES = frozenset(
    [
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "ratelimit",
        "ratelimit-policy",
        SHADOW_HEADER.lower(),
    ]
)
RAW_NAMES = frozenset(name.encode() for name in NAMES)
# These belong to refusals alone; on another response they are the application's.
REFUSAL_NAMES = frozenset(["Retry-After", "WWW-Authenticate"])

JSON = "application/json"
PROBLEM = "application/problem+json"


class OwnAnswer(NamedTuple):
    """The answer to a refused request when that is not the verdict's.

    It has no rate-limit fields of its own.
    """

    status: int
    body: bytes
    problem: bytes
    content_type: str
    headers: list[tuple[str, str]]
    retry_after: int | None


Answer = Union[Verdict, OwnAnswer]

# To a cost that the application took from a request, and that no table takes.
WRONG_COST = OwnAnswer(
    400,
    b'{"error": "Cost out of range"}',
    b'{"type": "about:blank", "title": "Cost out of range", "status": 400}',
    JSON,
    [],
    None,
)


class Refusal(NamedTuple):
    """The response to a request that isn't admitted."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes


REASONS = {400: "Bad Request", 401: "Unauthorized", 429: "Too Many Requests", 503: "Service Unavailable"}


def refusal(answer: Answer, fields: Iterable[tuple[str, str]], accept: str, method: str) -> Refusal:
    """Return the response, with the request's rate-limit fields.

    Its body is a problem document if the request's ``Accept`` names that.
    """
    problem = wants_problem(accept)
    body = answer.problem if problem else answer.body
    headers = [
        ("Content-Type", PROBLEM if problem else answer.content_type),
        ("Content-Length", str(len(body))),
        *fields,
        *refusal_fields(answer),
    ]
    return Refusal(answer.status, REASONS[answer.status], headers, b"" if method == "HEAD" else body)


def wants_problem(accept: str) -> bool:
    """Return whether an ``Accept`` names problem documents."""
    for kind in accept.lower().split(","):
        name, *parameters = (part.strip() for part in kind.split(";"))
        if name == PROBLEM:
            return not any(part.startswith("q=") and not part[2:].strip("0.") for part in parameters)
    return False


def refusal_fields(answer: Answer) -> list[tuple[str, str]]:
    """Return the header fields that only a refusal has."""
    return [field for field in answer.headers if field[0] in REFUSAL_NAMES]


def raw(fields: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Return header fields as ASGI takes them."""
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields]
