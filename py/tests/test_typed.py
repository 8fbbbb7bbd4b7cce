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


def test_runtime_types_of_sections_are_those_of_the_stubs() -> None:
    plans = {"default": keytally.Sections("5/minute warn 20%; team: 9/hour; group write: 5/minute")}
    gate = keytally.Gate.in_memory(
        pepper=keytally.generate_pepper(), keys=8, plans=plans, teams=2, scopes=["read"]
    )
    key = gate.issue(42, scopes=["read"]).expose()
    verdict = gate.check(key, groups="write", costs={"write": 2}, need=["read"])
    assert_type(verdict.tallies, "tuple[keytally.TallyVerdict, ...]")
    assert_type(verdict.tallies[0].section, "str | None")
    assert_type(verdict.crossed(), "list[tuple[keytally.TallyVerdict, keytally.QuotaState, int]]")
    for section in gate.plans["default"]:
        assert_type(section, "keytally.SectionQuotas")
        assert_type(section.warnings, "tuple[tuple[int, ...], ...]")
    settled = gate.settle(verdict.key_id, verdict.charge, costs={"write": 1}, overdraw=True)
    assert_type(settled.uncharged_costs, "dict[str, int]")
    assert_type(gate.account(42), "keytally.AccountInfo | None")
    assert_type(gate.key_usage(settled.key_id or ""), "keytally.KeyUsage | None")
    gate.limit_account(42, keytally.Policy("3/hour"))
    compound = keytally.check_all(gate.part(key, groups=["write"]))
    assert_type(compound.charge(0), "keytally.Charge | None")
    assert_type(keytally.peek_all(gate.part(key)), "keytally.Compound")
