"""Exempt paths: which requests need no key."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Callable
from urllib.parse import unquote

from keytally._native import redact

if TYPE_CHECKING:
    from collections.abc import Iterable

# What a path has in which there may be a dot segment.
SUSPECT = re.compile(r"[%\\]|/\.")

# How often a path may be encoded. One that is encoded more often is not exempt.
MAX_ENCODINGS = 4


def exemption(paths: Iterable[str]) -> Callable[[str], bool]:
    """Return a function that reports whether a path is exempt.

    Raises:
        TypeError, ValueError: The paths are not paths, or one can never match.

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
        if has_dot_segment(path) or "//" in path or any(mark in path for mark in "%?#\\"):
            shown = redact(repr(path))
            raise ValueError(
                f"{shown} can't be exempt, because no request's path is compared in that form: "
                "give it decoded, without dot segments, repeated slashes and query"
            )
    exact = frozenset(path for path in paths if not path.endswith("*"))
    prefixes = tuple(path[:-1] for path in paths if path.endswith("*"))
    if not paths:
        return lambda _: False

    def is_exempt(path: str) -> bool:
        # Repeated slashes are not joined, as routers do not join them: //health may be another route.
        return path in exact or (path.startswith(prefixes) and not has_dot_segment(path))

    return is_exempt


def has_dot_segment(path: str) -> bool:
    """Return whether a path has a dot segment, encoded or not, or is encoded too often to tell.

    What serves the path may decode it once more, take a backslash for a slash, or drop what follows a
    semicolon. Then a dot segment leads out of an exempt folder.
    """
    if not SUSPECT.search(path):
        return False
    decoded = path
    for _ in range(MAX_ENCODINGS):
        further = unquote(decoded)
        if further == decoded:
            break
        decoded = further
    else:
        return True
    segments = decoded.replace("\\", "/").split("/")
    return any(segment.partition(";")[0] in (".", "..") for segment in segments)
