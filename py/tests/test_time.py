"""Time is an argument: Unix seconds, or a datetime that has a time zone."""

import datetime as dt
import time
from decimal import Decimal
from fractions import Fraction

import pytest

from keytally import Gate, Limiter


def test_seconds_and_datetimes_are_one_moment(now):
    # A charge tells the moment that it was made at.
    def at_ms(moment):
        return Limiter("5/second").check("a", now=moment).charge.at_ms

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


def test_without_it_the_clock_is_read():
    before = time.time()
    at_ms = Limiter("5/second").check("a").charge.at_ms
    assert int(before * 1000) <= at_ms <= time.time() * 1000


@pytest.mark.parametrize(
    "moment", [-1, -0.001, float("nan"), float("inf"), dt.datetime(1960, 1, 1, tzinfo=dt.timezone.utc)]
)
def test_a_moment_that_cannot_be_is_named(moment):
    with pytest.raises(ValueError, match="now is .*, and must be seconds since 1970"):
        Limiter("5/second").check("a", now=moment)


def test_a_datetime_names_its_time_zone():
    with pytest.raises(ValueError, match="names no time zone"):
        Limiter("5/second").check("a", now=dt.datetime(2030, 1, 1))  # noqa: DTZ001


@pytest.mark.parametrize("moment", ["1700000000", [], dt.date(2030, 1, 1)])
def test_other_types_are_refused(moment):
    with pytest.raises(TypeError, match="now must be Unix seconds or a datetime, not"):
        Limiter("5/second").check("a", now=moment)


def test_every_method_that_depends_on_the_time_takes_it(pepper, now):
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
    limiter = Limiter("5/second")
    charge = limiter.check("a", now=now).charge
    limiter.peek("a", now=now)
    limiter.refund("a", charge, now=now)
    limiter.settle("a", charge, 1, now=now)
    limiter.reset("a", now=now)
