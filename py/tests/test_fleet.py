"""Gates in a fleet, without an agent: who waits, what is charged, and what is decided."""

import asyncio
import datetime
import doctest
import os
import pickle
import threading
import time

import pytest
import trio

from fleets import CLOSED, CUT, LEADING, OFFSET, OPEN, SHARE, FleetFile, gate_in_fleet
from keytally import (
    Gate,
    Limiter,
    TableError,
    UnavailableError,
    _fleet,
    acheck_all,
    check_all,
    testing,
)
from keytally._fleet import pauses

# Longer than another thread or task needs to change the state. Only a failing test waits so long.
LONG_S = 30


@pytest.fixture
def joined(tmp_path, pepper):
    return gate_in_fleet(tmp_path, pepper)


@pytest.fixture
def patient(tmp_path, pepper):
    """Return a gate whose requests wait until the agent's state changes."""
    gate, file, key = gate_in_fleet(tmp_path, pepper, credit_wait=LONG_S)
    file.set(LEADING)
    return gate, file, key


def counted(gate, key):
    """Return the units that the tally of this machine counts."""
    gate.set_fleet(False)
    return 10 - gate.peek(key).remaining


def test_try_check_without_credits_is_waiting_and_charges_nothing(joined):
    gate, file, key = joined
    file.set(LEADING)
    verdict = gate.try_check(key, 3)
    assert (verdict.outcome, verdict.unavailability) == ("unavailable", "waiting")
    assert (verdict.http_status, verdict.leased, verdict.charge) == (503, False, None)
    assert file.is_rung
    assert gate.try_check("kt_live_wrong").outcome == "invalid_key"
    assert counted(gate, key) == 0


def test_check_after_a_wait_is_decided_as_the_operator_chose(joined):
    gate, file, key = joined
    file.set(LEADING, CLOSED)
    verdict = gate.check(key)
    assert (verdict.unavailability, verdict.retry_after_s) == ("lost", 1)
    with pytest.raises(UnavailableError):
        verdict.raise_for_status()
    assert gate.check_without_wait(key).unavailability == "lost"
    file.set(LEADING, SHARE, machines=2)
    assert [gate.check(key).admitted for _ in range(6)] == [True] * 5 + [False]
    file.set(CUT, OPEN)
    verdict = gate.check_without_wait(key, 5)
    assert (verdict.admitted, verdict.leased, verdict.unavailability) == (True, False, None)
    assert gate.check(key).outcome == "denied"
    assert counted(gate, key) == 10


def test_check_that_waits_lets_other_threads_run(patient):
    gate, file, key = patient
    verdicts = []
    thread = threading.Thread(target=lambda: verdicts.append(gate.check(key)))
    thread.start()
    while not file.is_rung:
        time.sleep(0.001)
    # Without the other thread, the wait would end as the state says now: closed.
    file.set(CUT, OPEN)
    thread.join()
    assert [verdict.admitted for verdict in verdicts] == [True]


def test_check_all_that_waits_lets_other_threads_run(patient):
    gate, file, key = patient
    addresses = Limiter.in_memory("5/31d")
    compounds = []

    def check():
        compounds.append(check_all(gate.part(key, 2), addresses.part("203.0.113.9")))

    thread = threading.Thread(target=check)
    thread.start()
    while not file.is_rung:
        time.sleep(0.001)
    file.set(CUT, OPEN)
    thread.join()
    assert [compound.remaining for compound in compounds] == [8]
    file.set(CUT, CLOSED)
    compound = check_all(gate.part(key), addresses.part("203.0.113.9"))
    assert (compound.outcome, compound.unavailability) == ("unavailable", "lost")
    assert compound.leased is False
    assert addresses.peek("203.0.113.9").remaining == 4, "a limiter is charged with the gate"
    assert counted(gate, key) == 2


def test_acheck_lets_other_tasks_run_while_it_waits(patient):
    gate, file, key = patient

    async def lead():
        while not file.is_rung:
            await asyncio.sleep(0)
        file.set(CUT, OPEN)

    async def both():
        verdict, _ = await asyncio.gather(gate.acheck(key, 3), lead())
        return verdict

    verdict = asyncio.run(both())
    assert (verdict.admitted, verdict.charge.cost) == (True, 3)


def test_acheck_all_lets_other_tasks_run_while_it_waits(patient):
    gate, file, key = patient
    addresses = Limiter.in_memory("5/31d")

    async def lead():
        while not file.is_rung:
            await asyncio.sleep(0)
        assert addresses.peek("a").remaining == 5, "an attempt that waits charges nothing"
        file.set(CUT, OPEN)

    async def both():
        waiting = acheck_all(addresses.part("a"), gate.part(key, 3))
        compound, _ = await asyncio.gather(waiting, lead())
        return compound

    compound = asyncio.run(both())
    assert (compound.admitted, compound.charge(1).cost) == (True, 3)
    assert addresses.peek("a").remaining == 4


@pytest.mark.parametrize("run", [asyncio.run, lambda task: trio.run(lambda: task)])
def test_acheck_all_after_its_wait_is_decided_as_the_operator_chose(joined, run):
    gate, file, key = joined
    file.set(LEADING, OPEN)
    assert run(acheck_all(gate.part(key, 4))).remaining == 6
    file.set(LEADING, CLOSED)
    assert run(acheck_all(gate.part(key))).unavailability == "lost"


def test_acheck_all_of_wrong_arguments_is_an_error():
    with pytest.raises(ValueError, match="of 0 parts"):
        acheck_all().send(None)
    with pytest.raises(TypeError):
        acheck_all("a").send(None)


def test_acheck_that_is_canceled_charges_nothing(patient):
    gate, file, key = patient

    async def cancel():
        task = asyncio.create_task(gate.acheck(key))
        while not file.is_rung:
            await asyncio.sleep(0)
        # From now on, an attempt would be admitted.
        file.set(CUT, OPEN)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert counted(gate, key) == 0


@pytest.mark.parametrize("run", [asyncio.run, lambda task: trio.run(lambda: task)])
def test_acheck_after_its_wait_is_decided_as_the_operator_chose(joined, run):
    gate, file, key = joined
    file.set(LEADING, OPEN)
    assert run(gate.acheck(key, cost=4)).remaining == 6
    file.set(LEADING, CLOSED)
    assert run(gate.acheck(key)).unavailability == "lost"


def test_acheck_of_a_gate_outside_a_fleet_does_not_pause(gate):
    key = gate.issue(42).expose()
    with pytest.raises(StopIteration) as end:
        gate.acheck(key, 3).send(None)
    assert end.value.value.remaining == 997
    with pytest.raises(TypeError, match="cost must be a whole number, not str"):
        gate.acheck(key, "3").send(None)


def test_pauses_are_as_long_as_the_wait():
    assert sum(pauses(0.02)) == pytest.approx(0.02)
    assert max(pauses(0.02)) == 0.002
    assert list(pauses(0)) == []


def test_process_that_opened_without_a_fleet_admits_nothing(joined, pepper):
    gate, _, key = joined
    other = Gate.open(gate.path, pepper=pepper)
    assert (gate.is_in_fleet, gate.fleet) == (True, gate.path.with_name("api.gate.fleet"))
    assert (other.is_in_fleet, other.fleet) == (True, None)
    assert other.check(key).unavailability == "not_reserving"
    assert other.try_check(key).unavailability == "not_reserving"
    gate.set_fleet(False)
    assert (other.is_in_fleet, other.check(key).admitted) == (False, True)


def test_forked_child_spends_in_the_same_fleet(joined):
    gate, file, key = joined
    file.set(CUT, OPEN)
    child = os.fork()
    if child == 0:
        os._exit(gate.check(key, 4).remaining)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 6
    assert gate.check(key, 6).remaining == 0


def test_gate_that_replaces_another_joins_its_fleet_file(joined, pepper, tmp_path):
    gate, file, key = joined
    new = Gate.create(tmp_path / "new.gate", pepper=pepper, keys=4, plans={"default": "9/31d"})
    new_key = new.issue(42).expose()
    new.set_fleet(True)
    os.rename(new.path, gate.path)
    with pytest.raises(TableError, match="belongs to another gate"):
        gate.reopen()
    assert gate.try_check(key).unavailability == "lost", "the old gate stays in force"
    os.remove(file.path)
    new_file = FleetFile(file.path)
    gate.reopen()
    new_file.set(CUT, OPEN)
    assert gate.check(new_key).remaining == 8


def test_time_of_a_gate_in_a_fleet_is_that_of_the_store(tmp_path, pepper, now):
    gate, file, key = gate_in_fleet(tmp_path, pepper, "10/hour")
    file[OFFSET] = -2 * 3_600_000
    file.set(CUT, OPEN)
    of_store = now - now % 3600 - 3600
    with testing.at(now):
        verdict = gate.check(key, 4)
        assert verdict.reset_unix_s == of_store
        assert gate.peek(key).reset_unix_s == of_store
        assert gate.settle(verdict.key_id, verdict.charge, 3).reset_unix_s == of_store
        compound = check_all(Limiter.in_memory("5/day").part("ann"), gate.part(key))
        assert compound.tallies[1].verdict.reset_unix_s == of_store
        assert [quota.remaining for quota in gate.key(verdict.key_id).quotas] == [6]
        assert [quota.remaining for quota in gate.list()[0].quotas] == [6]
        assert gate.correct_clock() == 0
        assert gate.refund(verdict.key_id, compound.charge(1)).reset_unix_s == of_store
        assert gate.reset(verdict.key_id).reset_unix_s == of_store


def test_verdict_keeps_its_unavailability_when_pickled(joined):
    gate, file, key = joined
    file.set(LEADING)
    verdict = pickle.loads(pickle.dumps(gate.try_check(key)))
    assert (verdict.outcome, verdict.unavailability, verdict.leased) == (
        "unavailable",
        "waiting",
        False,
    )


def test_fleet_file_that_is_missing_or_wrong_is_refused(joined, pepper, tmp_path):
    gate, _, _ = joined
    with pytest.raises(FileNotFoundError, match="missing.fleet"):
        Gate.open(gate.path, pepper=pepper, fleet=tmp_path / "missing.fleet")
    with pytest.raises(TableError, match="not a fleet file"):
        Gate.open(gate.path, pepper=pepper, fleet=gate.path)
    for wait, error in [("soon", TypeError), (-1, ValueError)]:
        with pytest.raises(error, match="credit_wait"):
            Gate.open(gate.path, pepper=pepper, credit_wait=wait)
    second = datetime.timedelta(seconds=1)
    assert Gate.open(gate.path, pepper=pepper, credit_wait=second).credit_wait_s == 1
    assert gate.credit_wait_s == 0.02
    sliding = Gate.in_memory(pepper=pepper, plans={"default": "sliding 10/minute"})
    with pytest.raises(TableError, match="sliding"):
        sliding.set_fleet(True)


def test_examples_of_waits():
    failed, tried = doctest.testmod(_fleet)
    assert (failed, tried > 0) == (0, True)


@pytest.fixture
def limiter(tmp_path):
    """Return a limiter that has joined a fleet without an agent, and the fleet file."""
    path = tmp_path / "api.limiter"
    limiter = Limiter.create(path, "10/31d", 8)
    limiter.set_fleet(True)
    assert (limiter.is_in_fleet, limiter.fleet) == (True, None)
    assert limiter.check("ann").unavailability == "not_reserving"
    file = FleetFile(tmp_path / "api.limiter.fleet")
    return Limiter.open(path, fleet=file.path, credit_wait=0.001), file


def test_limiter_without_credits_is_decided_as_the_operator_chose(limiter):
    limiter, file = limiter
    file.set(LEADING, CLOSED)
    assert limiter.fleet == file.path
    assert limiter.credit_wait_s == 0.001
    assert limiter.try_check("ann").unavailability == "waiting"
    assert limiter.check("ann").unavailability == "lost"
    assert limiter.check_without_wait("ann").unavailability == "lost"
    assert asyncio.run(limiter.acheck("ann")).unavailability == "lost"
    compound = check_all(limiter.part("ann"))
    assert (compound.outcome, compound.unavailability) == ("unavailable", "lost")
    assert limiter.peek("ann").remaining == 10, "nothing was charged"
    file.set(CUT, SHARE, machines=2)
    assert [limiter.check("ann").admitted for _ in range(6)] == [True] * 5 + [False]
    file.set(CUT, CLOSED)
    limiter.set_fleet(False)
    assert limiter.check("ann").remaining == 4


def test_limiter_that_waits_lets_other_threads_run(tmp_path):
    path = tmp_path / "api.limiter"
    Limiter.create(path, "10/31d", 8).set_fleet(True)
    file = FleetFile(tmp_path / "api.limiter.fleet")
    limiter = Limiter.open_or_create(path, "10/31d", 8, fleet=file.path, credit_wait=LONG_S)
    file.set(LEADING)
    verdicts = []
    thread = threading.Thread(target=lambda: verdicts.append(limiter.check("ann")))
    thread.start()
    while not file.is_rung:
        time.sleep(0.001)
    file.set(CUT, OPEN)
    thread.join()
    assert [verdict.admitted for verdict in verdicts] == [True]


def test_sliding_limiter_cannot_be_shared():
    with pytest.raises(TableError, match="fixed windows only"):
        Limiter.in_memory("sliding 5/minute").set_fleet(True)
