"""Policies: parsing, equality and hashing."""

import pytest

from keytally import Limiter, Policy, PolicyError, Quota


def test_policies_compare_by_value():
    policy = Policy("1000/hour, 100/minute")
    assert str(policy) == "100/minute, 1000/hour"
    assert repr(policy) == "Policy('100/minute, 1000/hour')"
    assert policy == Policy("fixed 100/m,1000/h") == Policy(policy)
    assert hash(policy) == hash(Policy("fixed 100/m,1000/h"))
    assert policy != Policy("sliding 100/m,1000/h")
    assert policy != "100/minute, 1000/hour"
    assert len({Policy("5/s"), Policy("5/second"), Policy("6/s")}) == 2


def test_quotas_compare_by_value():
    [quota] = Policy("5/10s").quotas
    assert (quota.limit, quota.window) == (5, 10)
    assert quota == Policy("sliding 5/10s").quotas[0]
    assert len({quota, *Policy("5/10s").quotas}) == 1
    with pytest.raises(TypeError):
        Quota(5, 10)


def test_policy_text_accepts_long_form():
    policy = Policy("100/minute, 1000/hour")
    assert policy == Policy("100 per minute, 1000 per hour") == Policy("100/min,1000/h")
    assert Policy("10/sec") == Policy("10/second")


def test_month_and_week_are_written_as_they_were_read():
    policy = Policy("30000/month @ 17, 5/5h, 100/w")
    assert str(policy) == "5/5h, 100/week, 30000/month@17"
    assert [str(quota) for quota in policy.quotas] == ["5/5h", "100/week", "30000/month@17"]
    assert [quota.window for quota in policy.quotas] == [18_000, 604_800, 2_678_400]
    assert policy.quotas[2] != Policy("30000/31d").quotas[0]


def test_month_ends_on_its_day():
    limiter = Limiter.in_memory("3/week, 5/month@17")
    friday = 1_800_000_000  # 15 January 2027
    week, month = limiter.check("a", now=friday).quotas
    assert (week.name, week.reset_unix_s) == ("week", 1_800_230_400)
    assert (month.name, month.reset_unix_s) == ("month", 1_800_144_000)


def test_never_binding_pairs_quota_with_its_reason():
    minute, hour = Policy("100/minute, 50/hour").quotas
    assert Policy("100/minute, 50/hour").never_binding == ((minute, hour),)
    minute, hour = Policy("sliding 10/minute, 600/hour").quotas
    assert Policy("sliding 10/minute, 600/hour").never_binding == ((hour, minute),)
    assert Policy("10/minute, 599/hour").never_binding == ()


@pytest.mark.parametrize(
    "text",
    [
        "100",
        "5/fortnight",
        "",
        "0/s",
        "1/2w",
        "1/month@32",
        "sliding 1/month",
        "1" * 200,
        "é/s",
        "\0/s",
    ],
)
def test_invalid_policy_text_is_rejected(text):
    with pytest.raises(PolicyError) as caught:
        Policy(text)
    assert str(caught.value)
    assert isinstance(caught.value, ValueError)
