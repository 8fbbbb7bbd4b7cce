"""What the integrations have in common: header fields, exempt paths, addresses, refusals."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Callable, NamedTuple

from keytally._native import redact

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keytally import Verdict
    from keytally._guesses import Answer

API_KEY_HEADER = "X-API-Key"
RAW_API_KEY_HEADER = b"x-api-key"

# In shadow mode, says what a request that was let through would have been.
SHADOW_HEADER = "X-Keytally-Shadow"
RAW_SHADOW_HEADER = b"x-keytally-shadow"

# What an application's response has of these is replaced: there must be one of each.
RAW_NAMES = frozenset(
    [
        b"x-ratelimit-limit",
        b"x-ratelimit-remaining",
        b"x-ratelimit-reset",
        b"ratelimit",
        b"ratelimit-policy",
        RAW_SHADOW_HEADER,
    ]
)
NAMES = frozenset(name.decode() for name in RAW_NAMES)
# These belong to refusals alone; on another response they are the application's.
RAW_REFUSAL_NAMES = frozenset([b"retry-after", b"www-authenticate"])
REFUSAL_NAMES = frozenset(name.decode() for name in RAW_REFUSAL_NAMES)

PROBLEM = "application/problem+json"

# Where a request has its answer when that is not its verdict, as for one wrong key too many.
ANSWER = "keytally_answer"


class Refusal(NamedTuple):
    """The response to a request that isn't admitted."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes


REASONS = {401: "Unauthorized", 429: "Too Many Requests", 503: "Service Unavailable"}


def refusal(answer: Answer, accept: str = "", method: str = "GET") -> Refusal:
    """Return the response; its body is a problem document for who names that in ``Accept``."""
    problem = wants_problem(accept)
    body = answer.problem if problem else answer.body
    headers = [
        ("Content-Type", PROBLEM if problem else answer.content_type),
        ("Content-Length", str(len(body))),
        *answer.headers,
    ]
    return Refusal(answer.status, REASONS[answer.status], headers, b"" if method == "HEAD" else body)


def wants_problem(accept: str) -> bool:
    """Return whether an ``Accept`` names problem documents."""
    for kind in accept.lower().split(","):
        name, *parameters = (part.strip() for part in kind.split(";"))
        if name == PROBLEM:
            return not any(part.startswith("q=") and not part[2:].strip("0.") for part in parameters)
    return False


def headers_of_response(verdict: Verdict) -> list[tuple[str, str]]:
    """Return what the application's own response gets: in shadow mode also when the verdict is no."""
    if verdict.admitted:
        return verdict.headers
    headers = [(name, value) for name, value in verdict.headers if name.lower() not in REFUSAL_NAMES]
    return [*headers, (SHADOW_HEADER, verdict.outcome)]


def exemption(paths: Iterable[str]) -> Callable[[str], bool]:
    """Return what tells whether a path is exempt.

    Raises:
        TypeError, ValueError: The paths are no paths.

    """
    if isinstance(paths, (str, bytes)):
        raise TypeError(f"exempt is a list of paths, not one text: exempt=[{redact(repr(paths))}]")
    paths = list(paths)
    for path in paths:
        if not isinstance(path, str) or not path.startswith("/") or "*" in path[:-1]:
            shown = redact(repr(path))
            raise ValueError(
                f"{shown} can't be exempt: give a path as '/health', or all that begin alike as '/static/*'"
            )
    exact = frozenset(path for path in paths if not path.endswith("*"))
    prefixes = tuple(path[:-1] for path in paths if path.endswith("*"))
    if not paths:
        return lambda _: False
    if not prefixes:
        return exact.__contains__
    return lambda path: path in exact or path.startswith(prefixes)


def subject_of(address: str | None) -> str:
    """Return what counts an address: itself, or of an IPv6 address its /64, of which a client has them all.

    Raises:
        RuntimeError: The server tells no address.

    """
    if not address:
        raise RuntimeError(
            "the server doesn't tell the client's address, as on a Unix socket: "
            "pass key= with a function that returns what to count"
        )
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return f"{ipaddress.IPv6Address(int(parsed) >> 64 << 64)}/64"
