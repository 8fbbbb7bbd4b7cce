"""The time of a call: the system clock, or explicit Unix seconds or a datetime."""

import datetime as dt
import time
from decimal import Decimal
from fractions import Fraction

import pytest

from keytally import Gate, GateFullError, Limiter, Verdict

HOUR_S = 3600


def test_seconds_and_datetimes_are_equivalent(now):
    # A charge has the time of its call.
    def at_ms(moment):
        return Limiter.in_memory("5/second").check("a", now=moment).charge.at_ms

    utc = dt.datetime.fromtimestamp(now, dt.timezone.utc)
    for moment in (
        now,
        float(now),
        Fraction(now),
        Decimal(now),
        utc,
        utc.astimezone(dt.timezone(dt.timedelta(hours=-7))),
    ):
        assert at_ms(moment) == now * 1000
    for ms in (0, 1, 999, 1_700_000_000_001, 1_700_000_000_999, 4_000_000_000_123):
        assert at_ms(ms / 1000) == ms
    assert at_ms(utc + dt.timedelta(milliseconds=1)) == now * 1000 + 1


def test_call_without_now_reads_system_clock():
    before = time.time()
    at_ms = Limiter.in_memory("5/second").check("a").charge.at_ms
    assert int(before * 1000) <= at_ms <= time.time() * 1000


@pytest.mark.parametrize(
    "moment",
    [-1, -0.001, float("nan"), float("inf"), dt.datetime(1960, 1, 1, tzinfo=dt.timezone.utc)],
)
def test_time_out_of_range_is_named(moment):
    with pytest.raises(ValueError, match="now is .*, and must be seconds since 1970"):
        Limiter.in_memory("5/second").check("a", now=moment)


def test_datetime_without_time_zone_is_rejected():
    with pytest.raises(ValueError, match="has no time zone"):
        Limiter.in_memory("5/second").check("a", now=dt.datetime(2030, 1, 1))  # noqa: DTZ001


@pytest.mark.parametrize("moment", ["1700000000", [], dt.date(2030, 1, 1)])
def test_time_of_other_type_is_rejected(moment):
    with pytest.raises(TypeError, match="now must be Unix seconds or a datetime, not"):
        Limiter.in_memory("5/second").check("a", now=moment)


def test_time_dependent_methods_take_now(pepper, now):
    gate = Gate.in_memory(pepper=pepper, keys=8)
    key = gate.issue(1, now=now)
    verdict = gate.check(key.expose(), now=now)
    key_id, charge = verdict.key_id, verdict.charge
    gate.peek(key.expose(), now=now)
    gate.refund(key_id, charge, now=now)
    gate.settle(key_id, charge, 1, now=now)
    gate.reset(key_id, now=now)
    gate.rotate(key_id, grace=1, now=now)
    gate.import_keys(["customer-key-0001"], 1, now=now)
    gate.key(key_id, now=now)
    gate.list(now=now)
    gate.verify(now=now)
    gate.correct_clock(now=now)
    limiter = Limiter.in_memory("5/second")
    charge = limiter.check("a", now=now).charge
    limiter.peek("a", now=now)
    limiter.refund("a", charge, now=now)
    limiter.settle("a", charge, 1, now=now)
    limiter.reset("a", now=now)
    limiter.reset_all(now=now)
    limiter.correct_clock(now=now)
    Verdict.duplicate_header(now=now)


def charge_ahead(table, subject):
    """Charge the whole limit at an explicit time three hours ahead, and return that time."""
    ahead = time.time() + 3 * HOUR_S
    verdict = table.check(subject, 5, now=ahead)
    assert (verdict.outcome, verdict.clock_ahead_s) == ("admitted", 0)
    return ahead


@pytest.fixture(params=["limiter", "gate"])
def table(request, pepper):
    """Return a table of 5/hour, the argument of `check` and `peek`, and that of other methods."""
    if request.param == "limiter":
        return Limiter.in_memory("5/hour"), "a", "a"
    gate = Gate.in_memory(pepper=pepper, keys=8, plans={"default": "5/hour"})
    key = gate.issue(1)
    return gate, key.expose(), key.key_id


def test_explicit_time_is_never_corrected(table):
    table, subject, _ = table
    ahead = charge_ahead(table, subject)
    for late_s in (0, 24 * HOUR_S, 0):
        now = time.time() - late_s
        verdict = table.check(subject, now=now)
        assert verdict.outcome == "denied"
        assert now + verdict.retry_after_s > ahead
        assert 2 * HOUR_S < verdict.clock_ahead_s <= ahead - now + 1


def test_system_clock_corrects_and_keeps_counts(table):
    table, subject, _ = table
    charge_ahead(table, subject)
    verdict = table.check(subject)
    assert (verdict.outcome, verdict.clock_ahead_s) == ("denied", 0)
    assert verdict.retry_after_s <= HOUR_S
    # The tally itself is corrected and thus not ahead of an explicit time of the present.
    verdict = table.peek(subject, now=time.time())
    assert (verdict.outcome, verdict.clock_ahead_s) == ("denied", 0)


def test_every_call_by_system_clock_corrects(table):
    table, subject, name = table
    charge = table.check(subject).charge
    calls = [
        lambda: table.check(subject, 0),
        lambda: table.peek(subject),
        lambda: table.refund(name, charge),
        lambda: table.settle(name, charge, 1),
        lambda: table.reset(name),
    ]
    for call in calls:
        ahead = time.time() + 3 * HOUR_S
        table.reset(name, now=ahead)
        table.check(subject, now=ahead)
        assert table.peek(subject, now=time.time()).clock_ahead_s > 2 * HOUR_S
        assert call().clock_ahead_s == 0
        assert table.peek(subject, now=time.time()).clock_ahead_s <= 60


def test_late_explicit_time_admits_no_more(table):
    table, subject, _ = table
    now = time.time()
    times = [now - late_s for late_s in (0, HOUR_S, 24 * HOUR_S, 0, 50 * HOUR_S) * 5]
    assert sum(table.check(subject, now=moment).admitted for moment in times) == 5


def test_correct_clock_returns_number_of_corrections(table):
    table, subject, name = table
    for now in (time.time(), None):
        charge_ahead(table, subject)
        assert table.correct_clock(now=now) == 1
        assert table.correct_clock(now=now) == 0
        verdict = table.peek(subject, now=time.time())
        assert (verdict.outcome, verdict.clock_ahead_s) == ("denied", 0)
        table.reset(name)


def test_reading_a_gate_takes_either_time(pepper):
    gate = Gate.in_memory(pepper=pepper, keys=8, plans={"default": "5/hour"})
    key = gate.issue(1)
    ahead = charge_ahead(gate, key.expose())
    assert gate.key(key.key_id).clock_ahead_s > 2 * HOUR_S
    assert gate.key(key.key_id, now=ahead).clock_ahead_s == 0
    [info] = gate.list()
    assert info.clock_ahead_s > 2 * HOUR_S
    assert gate.verify(now=ahead).flaws == ()
    [flaw] = gate.verify().flaws
    assert "the key's next check by the system clock corrects it" in str(flaw)


def test_administration_takes_either_time(pepper):
    gate = Gate.in_memory(pepper=pepper, keys=4)
    for _ in range(4):
        gate.issue(1, expires=dt.timedelta(seconds=1), now=1000)
    with pytest.raises(GateFullError):
        gate.issue(1, now=1000)
    key = gate.issue(1, expires=dt.timedelta(hours=1))
    assert gate.check(key.expose()).admitted
    new = gate.rotate(key.key_id, grace=HOUR_S)
    assert gate.check(key.expose()).admitted
    assert not gate.check(key.expose(), now=time.time() + 2 * HOUR_S).admitted
    assert gate.check(new.expose()).admitted
    assert gate.import_keys(["customer-key-0001"], 1)
    before_ms = time.time() * 1000
    assert Verdict.duplicate_header().reason == "duplicate"
    # A check reads the kernel's coarse clock, which is late by up to a tick.
    assert gate.check(new.expose(), 2).charge.at_ms >= int(before_ms) - 11
