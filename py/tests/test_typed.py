"""A program for mypy --strict: the types of the stubs are those at run time."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import keytally

if TYPE_CHECKING:
    if sys.version_info >= (3, 11):
        from typing import assert_type
    else:
        from typing_extensions import assert_type
else:

    def assert_type(value: object, expected: object) -> None:
        kind = str(expected).split("[", maxsplit=1)[0]
        names = [name.strip().rpartition(".")[2] for name in kind.split("|")]
        found = "None" if value is None else type(value).__name__
        assert found in names, f"{value!r} is not of type {expected}"


def test_runtime_types_are_those_of_the_stubs(tmp_path: Path) -> None:
    pepper = keytally.generate_pepper()
    assert_type(pepper, "str")
    now = datetime.now(timezone.utc)
    gate = keytally.Gate.create(
        tmp_path / "api.gate", pepper=pepper, keys=8, plans={"default": "5/minute"}
    )
    assert_type(gate, "keytally.Gate")
    key = gate.issue(42, expires=timedelta(days=1))
    assert_type(key.expose(), "str")
    verdict = gate.check(key.expose(), now=now)
    verdict.raise_for_status()
    assert_type(verdict.account, "int | None")
    assert_type(verdict.key_id, "str | None")
    assert_type(verdict.headers, "list[tuple[str, str]]")
    assert_type(verdict.raw_headers, "list[tuple[bytes, bytes]]")
