"""Policies: parsing, equality and hashing."""

import pytest

from keytally import Policy, PolicyError, Quota


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


def test_never_binding_pairs_quota_with_its_reason():
    minute, hour = Policy("100/minute, 50/hour").quotas
    assert Policy("100/minute, 50/hour").never_binding == ((minute, hour),)
    minute, hour = Policy("sliding 10/minute, 600/hour").quotas
    assert Policy("sliding 10/minute, 600/hour").never_binding == ((hour, minute),)
    assert Policy("10/minute, 599/hour").never_binding == ()


@pytest.mark.parametrize(
    "text", ["100", "5/fortnight", "", "0/s", "1/90s, 2/2m", "1" * 200, "é/s", "\0/s"]
)
def test_invalid_policy_text_is_rejected(text):
    with pytest.raises(PolicyError) as caught:
        Policy(text)
    assert str(caught.value)
    assert isinstance(caught.value, ValueError)
