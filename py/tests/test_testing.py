"""The clock and the gate for tests of applications."""

import datetime as dt
import doctest
import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import keytally.testing
from keytally import Gate, Limiter, Sections
from keytally.testing import MemoryGate, at

UTC = dt.timezone.utc


def test_documentation_examples_run():
    failed, tried = doctest.testmod(keytally.testing)
    assert (failed, tried > 15) == (0, True)


def test_set_time_reaches_all_calls_in_all_threads(pepper):
    gate = Gate.in_memory(pepper=pepper, keys=8, plans={"default": "1/second"})
    limiter = Limiter.in_memory("1/second")
    with at("2027-01-31T23:59:59Z") as clock:
        key = gate.issue(1, expires=dt.timedelta(seconds=2))
        found = []

        def check():
            found.append((limiter.check("a").admitted, gate.check(key.expose()).admitted))

        thread = threading.Thread(target=check)
        thread.start()
        thread.join()
        check()
        clock.tick(1)
        check()
        assert found == [(True, True), (False, False), (True, True)]
        assert gate.key(key.key_id).last_used == 1_801_440_000
        clock.tick(dt.timedelta(seconds=1))
        assert gate.check(key.expose()).reason == "expired"
        # An explicit time is not affected.
        assert limiter.peek("a", now=0.5).charge is None
        assert limiter.check("b", now=5).charge.at_ms == 5000


@pytest.mark.parametrize(
    "time",
    [
        "2027-01-15T08:00:00Z",
        "2027-01-15T09:00:00+01:00",
        1_800_000_000,
        1_800_000_000.0001,
        dt.datetime(2027, 1, 15, 8, tzinfo=UTC),
    ],
)
def test_times_of_all_types_are_equivalent(time):
    with at(time) as clock:
        assert clock.now == dt.datetime(2027, 1, 15, 8, tzinfo=UTC)
        assert Limiter.in_memory("5/second").check("a").charge.at_ms == 1_800_000_000_000
        clock.move_to("2026-01-01T00:00:00Z")
        assert clock.now.year == 2026


def test_calls_nest_and_restore_after_an_exception():
    with at(1_800_000_000) as outer:
        with pytest.raises(ZeroDivisionError), at(1_900_000_000):
            raise ZeroDivisionError
        assert outer.now.timestamp() == 1_800_000_000
    charge = Limiter.in_memory("5/second").check("a").charge
    assert abs(charge.at_ms / 1000 - time.time()) < 60


def test_clock_cannot_be_moved_after_its_block():
    with at(1_800_000_000) as ended:
        pass
    for clock in (ended, keytally.testing.Clock()):
        for move in (clock.tick, clock.move_to):
            with pytest.raises(RuntimeError, match="only within the block"):
                move(1)
    charge = Limiter.in_memory("5/second").check("a").charge
    assert abs(charge.at_ms / 1000 - time.time()) < 60


@pytest.mark.parametrize("wrong", [None, "1", [1]])
def test_tick_of_another_type_is_refused(wrong):
    with at(1_800_000_000) as clock:
        with pytest.raises(
            TypeError, match=f"by seconds or a timedelta, not {type(wrong).__name__}"
        ):
            clock.tick(wrong)
        assert clock.now.timestamp() == 1_800_000_000


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("2027-01-15T08:00:00", "no time zone"),
        (dt.datetime(2027, 1, 15), "no time zone"),  # noqa: DTZ001
        (-1, "before 1970"),
        (float("nan"), "nan is before 1970 or after 9999"),
        (float("inf"), "inf is before 1970 or after 9999"),
        (10**30, "after 9999"),
        (253_402_300_800, "after 9999"),
        ("noon", "noon"),
    ],
)
def test_invalid_time_is_refused_and_sets_nothing(wrong, message):
    with pytest.raises(ValueError, match=message), at(wrong):
        pass
    with at(1_800_000_000) as clock:
        with pytest.raises(ValueError, match=message):
            clock.move_to(wrong)
        with pytest.raises(ValueError, match="cannot tick by -1"):
            clock.tick(-1)
        assert clock.now.timestamp() == 1_800_000_000


@pytest.mark.parametrize("wrong", [None, dt.date(2027, 1, 15), [1_800_000_000], b"2027"])
def test_time_of_another_type_is_refused(wrong):
    with (
        pytest.raises(TypeError, match=f"a time is Unix .*, not {type(wrong).__name__}"),
        at(wrong),
    ):
        pass


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 10**20, dt.timedelta.max])
def test_clock_cannot_tick_after_9999(seconds):
    with at(1_800_000_000) as clock:
        with pytest.raises(ValueError, match="cannot tick by|after 9999"):
            clock.tick(seconds)
        assert clock.now.timestamp() == 1_800_000_000
        clock.move_to(253_402_300_799)
        assert clock.now.year == 9999


def run(script, **variables):
    environment = {name: value for name, value in os.environ.items() if name[:6] != "PYTEST"}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_clock_is_set_in_tests_only():
    script = "from keytally.testing import at\nwith at(0): pass"
    done = run(script)
    assert "no test is running" in done.stderr
    assert run(script, KEYTALLY_TESTING="0").returncode == 1
    assert run(script, KEYTALLY_TESTING="1").returncode == 0


def test_import_does_not_change_the_clock():
    done = run("import keytally.testing, keytally as k; print(k._native.clock_ms())")
    assert abs(int(done.stdout) / 1000 - time.time()) < 60


def test_set_clock_leaves_no_tally_ahead():
    limiter = Limiter.in_memory("2/minute")
    with at("2100-01-01T00:00:00Z"):
        limiter.check("a")
    assert limiter.check("a").remaining == 0
    assert limiter.check("a").retry_after_s <= 60


@pytest.mark.parametrize(
    ("policy", "window"),
    [
        ("3/second, 10/minute, 40/hour", "second"),
        ("3/second, 10/minute, 40/hour", "minute"),
        ("3/second, 10/minute, 40/hour", "hour"),
        ("sliding 10/minute, 40/hour", "minute"),
        ("sliding 10/minute, 40/hour", "hour"),
        ("3/week, 9/month@17", "month"),
    ],
)
def test_filled_window_denies_until_it_ends(policy, window):
    gate = MemoryGate({"default": policy})
    with at("2027-01-31T12:00:00Z") as clock:
        assert gate.check().admitted
        gate.fill(window)
        denied = gate.check()
        assert denied.outcome == "denied"
        assert {q.name: q.remaining for q in denied.quotas}[window] == 0
        assert gate.table.plans == {"default": Sections(policy)}
        clock.tick(denied.retry_after_s)
        assert gate.check().admitted


def test_filled_window_of_another_key_leaves_the_first():
    gate = MemoryGate()
    other = gate.table.issue(2).expose()
    gate.fill("hour", other)
    gate.fill("hour", other)
    assert not gate.table.check(other)
    assert gate.check().remaining == 999


def test_window_that_cannot_be_filled_is_named():
    with pytest.raises(ValueError, match="no window day; its windows: minute, hour"):
        MemoryGate().fill("day")
    with pytest.raises(ValueError, match="none, because the check is invalid_key"):
        MemoryGate().fill("hour", "wrong")
    gate = MemoryGate({"default": "1/second, 1000000/day"})
    with pytest.raises(ValueError, match="cannot count 1000000 units in the other windows"):
        gate.fill("day")
    assert gate.table.plans == {"default": Sections("1/second, 1000000/day")}


def test_filled_window_of_a_section_leaves_the_others():
    plan = "5/second, 9/minute; team: 100000/hour; group read-only: 2/minute"
    with at("2027-01-31T12:00:00Z"):
        gate = MemoryGate({"default": plan}, scopes=["read"])
        gate.fill("read-only-minute")
        assert not gate.check(groups="read-only")
        assert gate.check(need="read").remaining == 8
        gate.fill("team-hour")
        denied = gate.check()
        outcomes = {tally.section: tally.verdict.outcome for tally in denied.tallies}
        assert outcomes == {"key": "admitted", "team": "denied"}
        assert denied.remaining == 8
        with pytest.raises(ValueError, match="second, minute, team-hour, read-only-minute"):
            gate.fill("team-day")


def test_gate_in_memory_names_the_described_window():
    gate = MemoryGate({"default": "5/minute, 100/month"}, described="month")
    assert (gate.check().limit, gate.table.described) == (100, "month")


def test_plugin_provides_the_gate(tmp_path):
    tmp_path.joinpath("conftest.py").write_text('pytest_plugins = ["keytally.pytest_plugin"]\n')
    tmp_path.joinpath("test_application.py").write_text(
        textwrap.dedent("""
            from keytally.testing import at

            def test_hour(gate):
                with at("2027-01-31T12:30:00Z") as clock:
                    gate.fill("hour")
                    assert gate.table.check(gate.headers["X-API-Key"]).http_status == 429
                    clock.tick(30 * 60)
                    assert gate.check().remaining == 999
        """)
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout
