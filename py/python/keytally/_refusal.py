"""Refusals: the responses to requests that are not admitted."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any

from keytally import _calls
from keytally._native import FIELD_NAMES, redact

if TYPE_CHECKING:
    from collections.abc import Callable

    from keytally._native import Verdict

# Only refusals have these fields. On other responses, they belong to the application.
NAMES = frozenset(["Retry-After", "WWW-Authenticate"])
# The rate-limit fields of every response.
QUOTA_NAMES = [name for name in FIELD_NAMES if name not in NAMES]

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"

# The outcome of a request whose cost, as the application's function returns it, is out of range.
WRONG_COST = "cost_out_of_range"

# The statuses whose responses have no body (RFC 9110, section 15).
WITHOUT_BODY = {204, 205, 304}

# A media type with parameters (RFC 9110, section 8.3.1), in characters that a field value may have.
MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+( ?;[ -~]+)?")


@dataclasses.dataclass(frozen=True)
class Refusal:
    """The response to a refused request, for ``refusal``.

    The header fields of the verdict are added to it, whatever its status and its body are.

    Attributes:
        outcome: The outcome that refuses the request: that of the verdict, or
            ``"cost_out_of_range"``.
        verdict: The verdict. After too many wrong keys, it is that of the limit of wrong keys.
        status: The status of the response.
        body: The body of the response.
        content_type: The value of ``Content-Type``.
        retry_after_s: The value of ``Retry-After``; ``None`` if the response has none.
        problem: The body for a client that accepts problem documents (RFC 9457); ``None`` if all
            clients get ``body``.
        fields: The header fields that only a refusal has.

    >>> from keytally import Limiter, Refusal
    >>> refused = Refusal.of(Limiter.in_memory("5/minute").check("203.0.113.9", 6))
    >>> refused.outcome, refused.status, refused.content_type, refused.retry_after_s
    ('too_costly', 429, 'application/json', None)

    """

    outcome: str
    verdict: Verdict
    status: int
    body: bytes
    content_type: str
    retry_after_s: int | None
    problem: bytes | None
    fields: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, verdict: Verdict) -> Refusal:
        """Return the documented response to a request that a verdict refuses.

        >>> from keytally import Limiter, Refusal
        >>> Refusal.of(Limiter.in_memory("5/minute").check("203.0.113.9", 6)).body
        b'{"error": "Rate limit exceeded. Please try again later."}'

        """
        return cls(
            outcome=verdict.outcome,
            verdict=verdict,
            status=verdict.http_status,
            body=verdict.body,
            content_type=verdict.content_type,
            retry_after_s=verdict.retry_after_s,
            problem=verdict.problem,
            fields=tuple(field for field in verdict.headers if field[0] in NAMES),
        )

    def replace(
        self,
        *,
        status: int | None = None,
        body: bytes | str | dict[str, Any] | list[Any] | None = None,
        content_type: str | None = None,
    ) -> Refusal:
        """Return this refusal with another status, body or content type.

        A client that accepts problem documents then gets this body, too.

        Args:
            status: The status, 200 to 599, of a response that has a body. By default, it is kept.
            body: The body: bytes, a text, which is sent as UTF-8, or a dict or a list, which is
                sent as JSON. By default, it is kept.
            content_type: The value of ``Content-Type``. By default, it is ``application/json`` for
                a dict or a list, and ``text/plain; charset=utf-8`` for a text. Bytes need one.

        Raises:
            TypeError, ValueError: An argument has the wrong type or is out of range.

        >>> from keytally import Limiter, Refusal
        >>> refused = Refusal.of(Limiter.in_memory("5/minute").check("203.0.113.9", 6))
        >>> refused.replace(status=402, body={"code": refused.outcome}).body
        b'{"code": "too_costly"}'

        """
        status = self.status if status is None else _checked_status(status)
        found: bytes
        default: str | None
        if body is None:
            found, default = self.body, self.content_type
        else:
            found, default = _encoded(body)
        content_type = default if content_type is None else content_type
        if content_type is None:
            raise ValueError("a body of bytes needs a content_type, such as 'text/html'")
        if not isinstance(content_type, str) or not MEDIA_TYPE.fullmatch(content_type):
            shown = redact(repr(content_type))
            raise ValueError(f"content_type is {shown}, and must be one such as 'text/html'")
        return dataclasses.replace(
            self, status=status, body=found, content_type=content_type, problem=None
        )


def of_wrong_cost(verdict: Verdict) -> Refusal:
    """Return the response to an admitted request whose cost is out of range."""
    refusal = with_text(Refusal.of(verdict), 400, "Cost out of range")
    return dataclasses.replace(refusal, outcome=WRONG_COST, content_type=JSON)


def with_text(refusal: Refusal, status: int, text: str) -> Refusal:
    """Return a refusal with another status, and bodies of the documented forms."""
    problem = f'{{"type": "about:blank", "title": "{text}", "status": {status}}}'
    return dataclasses.replace(
        refusal,
        status=status,
        body=f'{{"error": "{text}"}}'.encode(),
        problem=problem.encode(),
    )


def text_of(refusal: Refusal) -> str:
    """Return the text of a body: its member ``error``, if it is such a JSON object."""
    try:
        found = json.loads(refusal.body)
    except ValueError:
        found = None
    error = found.get("error") if isinstance(found, dict) else None
    return error if isinstance(error, str) else refusal.body.decode(errors="replace")


def _checked_status(status: object) -> int:
    """Return a status after checking that its response may have a body."""
    if isinstance(status, int) and not isinstance(status, bool):
        if 200 <= status <= 599 and status not in WITHOUT_BODY:
            return int(status)
        raise ValueError(
            f"status is {status}, and must be that of a response with a body, from 200 to 599"
        )
    raise TypeError(f"status must be a number such as 429, not {type(status).__name__}")


def _encoded(body: object) -> tuple[bytes, str | None]:
    """Return the bytes of a body and its content type; ``None`` if that is unknown."""
    if isinstance(body, bytes):
        return body, None
    if isinstance(body, str):
        return body.encode(), TEXT
    if isinstance(body, (dict, list)):
        return json.dumps(body, allow_nan=False).encode(), JSON
    kind = type(body).__name__
    raise TypeError(f"body must be bytes, a text, a dict or a list, not {kind}")


def checked_function(refusal: object) -> Callable[[Refusal, Any], Any] | None:
    """Return the function of the option ``refusal``, or ``None``.

    Raises:
        TypeError: The value is neither.

    """
    if refusal is not None and not callable(refusal):
        kind = type(refusal).__name__
        raise TypeError(f"refusal must be a function that returns a Refusal, not {kind}")
    return refusal


def checked_result(result: object) -> Refusal:
    """Return the result of the application's function after checking its type.

    Raises:
        TypeError: The result is not a refusal.

    """
    if not isinstance(result, Refusal):
        kind = type(_calls.plain(result)).__name__
        raise TypeError(
            "refusal must return a Refusal: the one that it gets, or what its method replace "
            f"returns, not {kind}"
        )
    return result
