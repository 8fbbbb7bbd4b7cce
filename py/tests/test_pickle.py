"""Pickling and copying of values, verdicts and exceptions."""

import copy
import pickle

import pytest

from keytally import BusyError, Charge, DeniedError, Gate, Limiter, Policy, Verdict

ATTRIBUTES = [
    name for name in dir(Verdict) if not name.startswith("_") and name not in ("duplicate_header",)
]


def copies(value):
    """Return eight copies: by `copy`, by `deepcopy`, and by each of the six pickle protocols."""
    made = [copy.copy(value), copy.deepcopy(value)]
    return made + [pickle.loads(pickle.dumps(value, protocol)) for protocol in range(6)]


@pytest.mark.parametrize(
    "value",
    [Policy("100/minute, 1000/hour"), Policy("sliding 5/10s"), Charge(3, 1_700_000_000_000)],
)
def test_copied_value_is_equal(value):
    assert copies(value) == [value] * 8


@pytest.mark.parametrize("text", ["100/minute, 1000/hour", "3/week, 30000/month@17"])
def test_copied_quota_is_equal(text):
    quotas = Policy(text).quotas
    for copied in copies(quotas) + copies(list(quotas)):
        assert tuple(copied) == quotas
    for quota in quotas:
        assert copies(quota) == [quota] * 8


def test_copied_quota_state_has_same_values(now):
    limiter = Limiter.in_memory("1/minute, 5/31d, 9/month@17")
    limiter.check("a", now=now)
    for quota in limiter.check("a", now=now).quotas:
        for copied in copies(quota):
            assert window(copied) == window(quota)


def test_invalid_pickled_quota_state_is_rejected(now):
    restore, ((limit, remaining, _, *others),) = (
        Limiter.in_memory("1/minute").check("a", now=now).quotas[0].__reduce__()
    )
    with pytest.raises(ValueError, match="not a quota's"):
        restore((limit, remaining, 0, *others))


def window(quota):
    """Return all values of a quota state."""
    return (
        quota.name,
        quota.limit,
        quota.remaining,
        quota.window,
        quota.reset_unix_s,
        quota.lacking,
        repr(quota),
    )


def verdicts(pepper, now):
    """Yield verdicts with each outcome and each attribute."""
    gate = Gate.in_memory(pepper=pepper, keys=8, plans={"default": "2/minute, 5/hour"})
    key = gate.issue(42, env="test", now=now)
    limiter = Limiter.in_memory("sliding 2/minute, 5/hour", capacity=1, on_full="refuse")
    for _ in range(3):
        yield gate.check(key.expose(), now=now)
    yield gate.check(key.expose(), 9, now=now)
    yield gate.check(None, now=now)
    yield gate.check("nonsense", now=now)
    gate.revoke(key.key_id)
    yield gate.check(key.expose(), now=now)
    yield limiter.check("a", 2, now=now)
    yield limiter.check("a", now=now + 70)
    yield limiter.check("a", now=now - 500)
    yield next(
        found
        for found in (limiter.check(str(n), now=now) for n in range(1000))
        if found.outcome == "full"
    )
    yield limiter.settle("a", limiter.check("a", 0, now=now).charge, 9, now=now)
    yield Verdict.duplicate_header(now=now)
    plans = {"default": "9/minute warn 50%; team: 12/hour; group write: 5/minute"}
    gate = Gate.in_memory(pepper=pepper, keys=8, plans=plans, scopes=["read"])
    key = gate.issue(42, now=now).expose()
    yield gate.check(key, 5, groups="write", now=now)
    yield gate.check(key, 1, groups="write", now=now)
    yield gate.check(key, need="read", now=now)
    verdict = gate.check(key, 0, costs={"write": 0}, now=now)
    costs = {"write": 9}
    yield gate.settle(verdict.key_id, verdict.charge, 9, costs=costs, now=now)


def read(verdict):
    """Return all values of a verdict."""
    values = {name: getattr(verdict, name) for name in ATTRIBUTES if name != "raise_for_status"}
    values["quotas"] = [window(quota) for quota in verdict.quotas]
    values["tallies"] = [
        (tally.part, tally.section, tally.verdict.headers) for tally in verdict.tallies
    ]
    values["crossed"] = [
        (repr(tally), window(quota), percent) for tally, quota, percent in verdict.crossed()
    ]
    try:
        verdict.raise_for_status()
    except Exception as error:
        values["raised"] = repr(error)
    return repr(verdict), bool(verdict), values


def test_copied_verdict_has_same_values(pepper, now):
    found = list(verdicts(pepper, now))
    assert {verdict.outcome for verdict in found} == {
        "admitted",
        "denied",
        "missing_key",
        "invalid_key",
        "too_costly",
        "full",
        "forbidden",
    }
    assert any(verdict.uncharged for verdict in found)
    assert any(verdict.uncharged_costs for verdict in found)
    assert any(verdict.crossed() for verdict in found)
    assert any(len(verdict.tallies) > 2 for verdict in found)
    assert any(verdict.clock_ahead_s for verdict in found)
    for verdict in found:
        for copied in copies(verdict):
            assert read(copied) == read(verdict)
            # The copy of a copy.
            assert read(pickle.loads(pickle.dumps(copied))) == read(verdict)


def test_charge_of_copied_verdict_is_refunded(now):
    limiter = Limiter.in_memory("5/minute")
    verdict = pickle.loads(pickle.dumps(limiter.check("a", 3, now=now)))
    assert limiter.refund("a", verdict.charge, now=now).remaining == 5


def test_copied_exception_has_same_values(now):
    limiter = Limiter.in_memory("1/minute")
    limiter.check("a", now=now)
    with pytest.raises(DeniedError) as refused:
        limiter.check("a", now=now).raise_for_status()
    for error in copies(refused.value):
        assert (str(error), error.verdict.retry_after_s) == (
            str(refused.value),
            refused.value.verdict.retry_after_s,
        )
    for error in copies(BusyError("busy", 7)):
        assert (str(error), error.pid) == ("busy", 7)


def test_invalid_pickled_verdict_is_rejected(now):
    restore, ((state, *others),) = Limiter.in_memory("1/minute").check("a", now=now).__reduce__()
    quota = state[2][0]
    outcome, reason, unavailability, leased = state[0]
    for index, value in [
        (0, ("perhaps", reason, unavailability, leased)),
        (0, (outcome, "because", unavailability, leased)),
        (0, (outcome, reason, "soon", leased)),
        (2, [quota] * 5),
        (4, bytes(128)),
        (2, [(1, 1, 0, 0, False, False, False)]),
    ]:
        with pytest.raises(ValueError, match="not a verdict's"):
            restore(((*state[:index], value, *state[index + 1 :]), *others))
    too_many = (*state[:2], [quota] * 5, *state[3:])
    for tallies, crossed in [
        ([(0, state)] * 9, []),
        ([(0, too_many)], []),
        ([(0, state)], [(1, 0, 80)]),
        ([(0, state)], [(0, 1, 80)]),
    ]:
        with pytest.raises(ValueError, match="not a verdict's"):
            restore((state, tallies, crossed, []))
