"""Exempt paths and methods: those of requests that are not checked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Callable
from urllib.parse import unquote

from keytally._native import redact

if TYPE_CHECKING:
    from collections.abc import Iterable

# Every path with a dot segment (RFC 3986: "." or ".."), percent-encoded or not, matches this.
SUSPECT = re.compile(r"[%\\]|/\.")

# The registered methods, and those of the same form.
METHOD = re.compile(r"[A-Z][A-Z-]*")

# The most times that the path of a request may be percent-encoded. The server decodes it once, and
# this module the other times. A path that is encoded more often is not exempt.
MAX_ENCODINGS = 4


def exemption(paths: Iterable[str]) -> Callable[[str], bool]:
    """Return a function that reports whether a path is exempt.

    Raises:
        TypeError, ValueError: A value is not a path, or a path can never match.

    """
    if isinstance(paths, (str, bytes)):
        raise TypeError(f"exempt is a list of paths, not one text: exempt=[{redact(repr(paths))}]")
    paths = list(paths)
    for path in paths:
        if not isinstance(path, str) or not path.startswith("/") or "*" in path[:-1]:
            shown = redact(repr(path))
            raise ValueError(
                f"{shown} cannot be exempt: pass a path such as '/health', "
                "or a prefix such as '/static/*'"
            )
        if has_dot_segment(path) or "//" in path or any(mark in path for mark in "%?#\\"):
            shown = redact(repr(path))
            raise ValueError(
                f"{shown} cannot be exempt, because no request's path is compared in that form: "
                "pass it decoded, without dot segments, repeated slashes and query"
            )
    exact = frozenset(path for path in paths if not path.endswith("*"))
    prefixes = tuple(path[:-1] for path in paths if path.endswith("*"))
    if not paths:
        return lambda _: False

    def is_exempt(path: str) -> bool:
        # Repeated slashes are not joined, because routers do not: //health may be another route.
        return path in exact or (path.startswith(prefixes) and not has_dot_segment(path))

    return is_exempt


def exempt_methods(methods: Iterable[str]) -> frozenset[str]:
    """Return the methods whose requests are not checked, such as ``OPTIONS``.

    Methods are case-sensitive (RFC 9110, section 9.1).

    Raises:
        TypeError, ValueError: The value is one text, or a value is not a method in capitals.

    """
    if isinstance(methods, (str, bytes)):
        raise TypeError(
            "exempt_methods is a list of methods, not one text: "
            f"exempt_methods=[{redact(repr(methods))}]"
        )
    methods = list(methods)
    for method in methods:
        if not isinstance(method, str) or not METHOD.fullmatch(method):
            shown = redact(repr(method))
            raise ValueError(
                f"{shown} in exempt_methods is not a method: pass one in capitals, "
                "such as 'OPTIONS'"
            )
    return frozenset(methods)


def has_dot_segment(path: str) -> bool:
    """Return whether a path has a dot segment, encoded or not, or is encoded too many times.

    The component that serves the path may decode it again, treat a backslash as a slash, or drop
    the text after a semicolon. A dot segment then leads out of an exempt folder.
    """
    if not SUSPECT.search(path):
        return False
    decoded = path
    for _ in range(MAX_ENCODINGS):
        before = decoded
        decoded = unquote(before)
        if decoded == before:
            break
    else:
        return True
    segments = decoded.replace("\\", "/").split("/")
    return any(segment.partition(";")[0] in (".", "..") for segment in segments)
