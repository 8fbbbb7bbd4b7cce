"""The header fields that may carry the key of a request."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from keytally import _web
from keytally._native import redact
from keytally._refusal import with_text

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping, Sequence

    from keytally._refusal import Refusal

# The source that reads the token after ``Bearer`` in ``Authorization`` (RFC 6750, section 2.1).
BEARER = "Authorization: Bearer"

# The names of header fields (RFC 9110, section 5.1).
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

# The names of header fields whose whole value is never a key.
NOT_KEYS = {"authorization", "cookie"}

# The text of a response with status 401, if the default text would name the wrong field.
MISSING = "Missing API key"

ValueT = TypeVar("ValueT", str, bytes)


class Source(NamedTuple):
    """A header field that may carry the key, and its name in an ASGI scope and a WSGI environ."""

    name: str
    raw: bytes
    variable: str
    is_bearer: bool


class Reader(Protocol):
    """The functions that read the fields of a request from its ASGI scope or WSGI environ."""

    def values(self, fields: MutableMapping[str, Any], source: Source, /) -> Sequence[str | bytes]:
        """Return the values of all fields that have the name of the source."""

    def peer(self, fields: MutableMapping[str, Any], /) -> str | None:
        """Return the address of the other end of the connection, as the server reports it."""

    def forwarded_for(self, fields: MutableMapping[str, Any], /) -> str:
        """Return the values of all X-Forwarded-For fields as one text, separated by commas."""


class KeySources:
    """The header fields that may carry the key of a request.

    Args:
        key_from: Names of header fields, and ``"Authorization: Bearer"`` for tokens of that scheme.

    Raises:
        TypeError, ValueError: The list is one text or is empty, or a name is not valid.

    """

    def __init__(self, key_from: Iterable[str] = (_web.API_KEY_HEADER,)) -> None:
        if isinstance(key_from, (str, bytes)):
            raise TypeError(
                "key_from is a list of header names, not one text: "
                f"key_from=[{redact(repr(key_from))}]"
            )
        names = list(key_from)
        self.sources = [_source(name) for name in names]
        if not names:
            raise ValueError(f"key_from is empty: list header names, such as {_web.API_KEY_HEADER}")
        seen = [source.raw for source in self.sources]
        for index, source in enumerate(self.sources):
            if source.raw in seen[:index]:
                raise ValueError(f"key_from lists {source.name} twice")
        first = self.sources[0]
        self._only = first if len(names) == 1 and not first.is_bearer else None
        is_default = self._only is not None and first.name == _web.API_KEY_HEADER
        self._challenges = "" if is_default else ", ".join(map(_challenge, self.sources))

    def presented(self, read: Reader, fields: MutableMapping[str, Any]) -> Sequence[str | bytes]:
        """Return the keys that a request presents: more than one if they must be refused.

        They are refused if one field is there twice, or if two fields have different keys.
        """
        if self._only is not None:
            return read.values(fields, self._only)
        found: list[str | bytes] = []
        for source in self.sources:
            values = read.values(fields, source)
            if source.is_bearer:
                values = _tokens(values)
            if len(values) > 1:
                return values
            found += values
        return found if len(set(found)) > 1 else found[:1]

    def refusal(self, refusal: Refusal) -> Refusal:
        """Return a refusal with status 401 as it names these header fields, and others unchanged.

        That of the default list is the verdict's.
        """
        if not self._challenges or refusal.status != 401:
            return refusal
        if refusal.outcome == "missing_key":
            refusal = with_text(refusal, 401, MISSING)
        return dataclasses.replace(refusal, fields=(("WWW-Authenticate", self._challenges),))


def _source(name: object) -> Source:
    """Return the source that a name means."""
    if isinstance(name, str) and name.lower() == BEARER.lower():
        return Source(BEARER, b"authorization", "HTTP_AUTHORIZATION", is_bearer=True)
    if not isinstance(name, str) or not TOKEN.fullmatch(name):
        shown = redact(repr(name))
        raise ValueError(
            f"{shown} in key_from is not the name of a header: pass a name such as 'X-API-Key', "
            f"or {BEARER!r}"
        )
    # In a path, only parts that look like a secret are hidden. Names of headers may be long.
    if redact("/" + name) != "/" + name:
        raise ValueError(
            f"{redact(repr(name))} in key_from looks like a key, not like the name of a header: "
            "responses would show it"
        )
    if name.lower() in NOT_KEYS:
        raise ValueError(
            f"{name} in key_from does not carry a key as its whole value: pass {BEARER!r}, "
            "or the name of another header"
        )
    variable = "HTTP_" + name.upper().replace("-", "_")
    return Source(name, name.lower().encode(), variable, is_bearer=False)


def _challenge(source: Source) -> str:
    """Return the challenge of a source for ``WWW-Authenticate`` (RFC 9110, section 11.6.1)."""
    if source.is_bearer:
        return 'Bearer realm="api"'
    return f'ApiKey realm="api", header="{source.name}"'


def _tokens(values: Sequence[str | bytes]) -> Sequence[str | bytes]:
    """Return the tokens of Authorization fields; several values if they must be refused.

    Credentials of another scheme are not a key.
    """
    tokens = [
        token
        for token in (
            _token(value, b"bearer", b" ")
            if isinstance(value, bytes)
            else _token(value, "bearer", " ")
            for value in values
        )
        if token is not None
    ]
    return values if tokens and len(values) > 1 else tokens


def _token(value: ValueT, scheme: ValueT, space: ValueT) -> ValueT | None:
    """Return the token of credentials; ``None`` if they have another scheme."""
    found, _, rest = value.strip(space).partition(space)
    return rest.strip(space) if found.lower() == scheme else None
