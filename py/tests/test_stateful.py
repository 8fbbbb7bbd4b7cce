"""Random histories of calls: each outcome and number of the module equals that of the model."""

import datetime as dt

import pytest
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, rule

from keytally import AdminError, Gate, Limiter, generate_pepper
from model import Tally

START_MS = 1_700_049_620_000
PEPPER = generate_pepper()

# The policy text, its quotas, and whether it is sliding.
POLICIES = [
    ("3/second", [(3, 1)], False),
    ("5/minute, 9/hour", [(5, 60), (9, 3600)], False),
    ("2/s, 3/10s, 5/m, 6/h", [(2, 1), (3, 10), (5, 60), (6, 3600)], False),
    ("sliding 7/10s", [(7, 10)], True),
    ("sliding 5/minute, 9/hour", [(5, 60), (9, 3600)], True),
]

costs = st.integers(0, 8)


def moment(ms):
    """Return Unix milliseconds as a datetime."""
    return dt.datetime.fromtimestamp(ms // 1000, dt.timezone.utc) + dt.timedelta(
        milliseconds=ms % 1000
    )


class Histories(RuleBasedStateMachine):
    """The part that both state machines share: the clock, and the comparison with the model."""

    charges = Bundle("charges")

    def begin(self, policy):
        """Begin a history with unused tallies."""
        self.text, self.quotas, self.sliding = policy
        self.now_ms = START_MS
        self.tallies = {}
        # The number of resets of each name.
        self.resets = dict.fromkeys("abc", 0)

    @rule(windows=st.integers(0, 3), thousandths=st.integers(0, 1000), back=st.integers(0, 999))
    def pass_time(self, windows, thousandths, back):
        """Move the clock forward. With fixed windows, it may go back by less than the longest."""
        lengths = [window_s * 1000 for _, window_s in self.quotas]
        self.now_ms += lengths[min(windows, len(lengths) - 1)] * thousandths // 1000
        if not self.sliding and thousandths == 0:
            latest = max((tally.latest_ms for tally in self.tallies.values()), default=self.now_ms)
            self.now_ms = max(self.now_ms, latest) - lengths[-1] * back // 1000

    def tally(self, name):
        """Return the model's tally of a name."""
        return self.tallies.setdefault(name, Tally(self.quotas, self.sliding))

    def compare(self, verdict, name, outcome, cost=0):
        """Assert that a verdict equals the model after the call."""
        tally = self.tally(name)
        assert verdict.outcome == outcome
        assert [quota.remaining for quota in verdict.quotas] == tally.remaining(self.now_ms)
        assert verdict.remaining <= verdict.limit
        expected = tally.retry_after(cost, self.now_ms) if outcome == "denied" else None
        assert verdict.retry_after_s == expected
        for (limit, window_s), quota in zip(self.quotas, verdict.quotas):
            assert (quota.limit, quota.window) == (limit, window_s)
            lacks = outcome == "denied" and cost > quota.remaining
            assert quota.lacking == lacks

    def compare_check(self, verdict, name, cost):
        """Check in the model too, compare, and return the charges of the module and the model."""
        outcome = self.tally(name).outcome(cost, self.now_ms)
        charged = self.tally(name).charge(cost, self.now_ms) if outcome == "admitted" else None
        self.compare(verdict, name, outcome, cost)
        assert (verdict.charge is None) == (charged is None)
        if charged is None:
            return None
        assert (verdict.charge.cost, verdict.charge.at_ms) == (charged.cost, charged.at_ms)
        return name, self.resets[name], verdict.charge, charged

    def refundable(self, charge):
        """Return the name and both charges, unless a reset has removed them from the counts."""
        assume(charge is not None)
        name, resets, given, charged = charge
        assume(self.resets[name] == resets)
        return name, given, charged


class LimiterHistories(Histories):
    @initialize(policy=st.sampled_from(POLICIES))
    def make(self, policy):
        self.begin(policy)
        self.limiter = Limiter.in_memory(self.text, 10)

    @rule(target=Histories.charges, name=st.sampled_from("abc"), cost=costs)
    def check(self, name, cost):
        verdict = self.limiter.check(name, cost, now=moment(self.now_ms))
        return self.compare_check(verdict, name, cost)

    @rule(name=st.sampled_from("abc"), cost=costs)
    def peek(self, name, cost):
        verdict = self.limiter.peek(name, cost, now=moment(self.now_ms))
        self.compare(verdict, name, self.tally(name).outcome(cost, self.now_ms), cost)

    @rule(charge=consumes(Histories.charges))
    def refund(self, charge):
        name, given, charged = self.refundable(charge)
        verdict = self.limiter.refund(name, given, now=moment(self.now_ms))
        self.tally(name).refund(charged, charged.cost, self.now_ms)
        self.compare(verdict, name, "admitted")

    @rule(charge=consumes(Histories.charges), actual=costs)
    def settle(self, charge, actual):
        name, given, charged = self.refundable(charge)
        verdict = self.limiter.settle(name, given, actual, now=moment(self.now_ms))
        uncharged = self.tally(name).settle(charged, actual, self.now_ms)
        assert verdict.uncharged == uncharged
        self.compare(verdict, name, "admitted")

    @rule(name=st.sampled_from("abc"))
    def reset(self, name):
        known = name in self.tallies and self.tallies[name].latest_ms
        verdict = self.limiter.reset(name, now=moment(self.now_ms))
        self.resets[name] += 1
        if known:
            self.tally(name).reset(self.now_ms)
        self.compare(verdict, name, "admitted")


class GateHistories(Histories):
    @initialize(policy=st.sampled_from(POLICIES))
    def make(self, policy):
        self.begin(policy)
        self.gate = Gate.in_memory(pepper=PEPPER, keys=64, plans={"default": self.text})
        # By name: the key id, the valid secrets, and whether the key was revoked. `invalid` has all
        # secrets that are not valid any more.
        self.key_ids, self.valid, self.invalid, self.revoked = {}, {}, [], set()
        for account, name in enumerate("abc"):
            key = self.gate.issue(account, now=moment(self.now_ms))
            self.key_ids[name], self.valid[name] = key.key_id, [key.expose()]

    @rule(
        target=Histories.charges, name=st.sampled_from("abc"), cost=costs, which=st.integers(0, 9)
    )
    def check(self, name, cost, which):
        secrets = self.valid[name]
        verdict = self.gate.check(secrets[which % len(secrets)], cost, now=moment(self.now_ms))
        if name in self.revoked:
            assert (verdict.outcome, verdict.reason, verdict.quotas) == (
                "invalid_key",
                "revoked",
                (),
            )
            return None
        assert (verdict.key_id, verdict.account) == (self.key_ids[name], "abc".index(name))
        return self.compare_check(verdict, name, cost)

    @rule(which=st.integers(0, 99), cost=costs)
    def check_invalid_secret(self, which, cost):
        assume(self.invalid)
        verdict = self.gate.check(
            self.invalid[which % len(self.invalid)], cost, now=moment(self.now_ms)
        )
        assert (verdict.outcome, verdict.quotas) == ("invalid_key", ())

    @rule(charge=consumes(Histories.charges))
    def refund(self, charge):
        name, given, charged = self.refundable(charge)
        verdict = self.gate.refund(self.key_ids[name], given, now=moment(self.now_ms))
        self.tally(name).refund(charged, charged.cost, self.now_ms)
        self.compare(verdict, name, "admitted")

    @rule(charge=consumes(Histories.charges), actual=costs)
    def settle(self, charge, actual):
        name, given, charged = self.refundable(charge)
        verdict = self.gate.settle(self.key_ids[name], given, actual, now=moment(self.now_ms))
        assert verdict.uncharged == self.tally(name).settle(charged, actual, self.now_ms)
        self.compare(verdict, name, "admitted")

    @rule(name=st.sampled_from("abc"))
    def reset(self, name):
        verdict = self.gate.reset(self.key_ids[name], now=moment(self.now_ms))
        self.resets[name] += 1
        self.tally(name).reset(self.now_ms)
        self.compare(verdict, name, "admitted")

    @rule(name=st.sampled_from("abc"), keep=st.booleans(), force=st.booleans())
    def rotate(self, name, keep, force):
        """Give a key a new secret. With grace, two secrets are valid; a third requires force."""
        assume(name not in self.revoked)
        arguments = {"grace": dt.timedelta(days=3650) if keep else 0, "now": moment(self.now_ms)}
        if len(self.valid[name]) == 2 and not force:
            with pytest.raises(AdminError):
                self.gate.rotate(self.key_ids[name], **arguments)
            return
        key = self.gate.rotate(self.key_ids[name], force=force, **arguments)
        secrets = [*self.valid[name], key.expose()]
        kept = 2 if keep else 1
        self.valid[name], over = secrets[-kept:], secrets[:-kept]
        self.invalid += over

    @rule(name=st.sampled_from("abc"))
    def revoke(self, name):
        self.gate.revoke(self.key_ids[name])
        self.revoked.add(name)


# Neither a time limit nor a random seed, so that runs do not differ.
REPRODUCIBLE = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)

TestLimiter = LimiterHistories.TestCase
TestLimiter.settings = REPRODUCIBLE
TestGate = GateHistories.TestCase
TestGate.settings = REPRODUCIBLE


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy[0])
def test_model_admits_exactly_the_limit(policy):
    _, quotas, sliding = policy
    tally = Tally(quotas, sliding)
    outcomes = []
    for _ in range(12):
        outcomes.append(tally.outcome(1, START_MS))
        if outcomes[-1] == "admitted":
            tally.charge(1, START_MS)
    assert outcomes.count("admitted") == quotas[0][0]
