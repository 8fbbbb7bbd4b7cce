"""The counts of how each key is used."""

import os
import pickle

import pytest

import keytally
from keytally import Gate

PLAN = "5/minute; team: 9/minute; group write: 2/minute"


@pytest.fixture
def gate(tmp_path, pepper):
    return Gate.create(
        tmp_path / "api.gate", pepper=pepper, keys=8, plans={"default": PLAN}, scopes=["read"]
    )


def test_each_outcome_of_a_request_is_counted(gate, pepper, now):
    other = Gate.open(gate.path, pepper=pepper)
    key = gate.issue(42, now=now)
    gate.check(key.expose(), now=now)
    assert gate.key_usage(key.key_id) is None

    other.set_usage(True)
    assert os.path.getsize(f"{gate.path}.usage") == 64 * 9
    never = gate.key_usage(key.key_id)
    assert (never.admitted, never.units, never.last_used) == (0, 0, None)
    gate.check(key.expose(), 2, groups="write", now=now)
    gate.check(key.expose(), groups="write", now=now)
    gate.check(key.expose(), 3, now=now)
    gate.check(key.expose(), need="read", now=now)
    gate.check(key.expose()[:-1] + "!", now=now)
    new = gate.rotate(key.key_id, grace=60, now=now)
    gate.check(key.expose(), now=now)
    keytally.check_all(gate.part(new.expose()), now=now)
    gate.check(gate.issue(42, now=now).expose(), 4, now=now)
    gate.check(new.expose(), now=now + 60)
    gate.check(gate.issue(42, now=now).expose(), 5, now=now + 60)
    gate.check(new.expose(), 4, now=now + 60)
    gate.suspend(42)
    gate.check(new.expose(), now=now + 60)
    gate.resume(42)
    gate.revoke(key.key_id)
    gate.check(new.expose(), now=now + 60)

    usage = other.key_usage(key.key_id)
    assert (usage.admitted, usage.with_previous_secret, usage.units) == (4, 1, 5)
    assert (usage.denied_by_key, usage.denied_by_team, usage.denied_by_group) == (1, 1, 1)
    assert (usage.forbidden, usage.revoked, usage.expired, usage.suspended) == (1, 1, 0, 1)
    assert usage.last_used == now + 60
    assert usage == gate.key_usage(key.key_id) != never
    assert repr(usage) == "<KeyUsage: 4 admitted, 3 denied>"


def test_counts_remain_when_counting_ends(gate):
    gate.set_usage(True)
    key = gate.issue(42)
    verdict = gate.check(key.expose(), 3)
    gate.settle(verdict.key_id, verdict.charge, 1)
    gate.set_usage(False)
    gate.check(key.expose())
    assert gate.key_usage(key.key_id) is None
    gate.set_usage(True)
    assert (gate.key_usage(key.key_id).admitted, gate.key_usage(key.key_id).units) == (1, 1)


def test_invalid_arguments_of_counts_are_refused(gate):
    gate.set_usage(True)
    assert gate.key_usage("0000000000A") is None
    with pytest.raises(keytally.KeyIdError):
        gate.key_usage("x")
    with pytest.raises(TypeError):
        gate.set_usage(1)
    with pytest.raises(TypeError):
        pickle.dumps(gate.key_usage(gate.issue(42).key_id))
    with open(f"{gate.path}.usage", "r+b") as file:
        file.write(b"not a table")
    with pytest.raises(keytally.TableError):
        gate.set_usage(True)


def test_gate_in_memory_counts_nothing(pepper):
    gate = Gate.in_memory(pepper=pepper)
    with pytest.raises(OSError, match="cannot count uses in memory"):
        gate.set_usage(True)
    assert gate.key_usage(gate.issue(42).key_id) is None
