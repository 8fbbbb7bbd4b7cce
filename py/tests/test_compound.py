"""Compound charges: several keys and subjects of one request, charged all or none."""

import pytest

from keytally import Gate, Limiter, Part, check_all, generate_pepper


@pytest.fixture
def gate():
    return Gate.in_memory(plans={"default": "3/minute"}, pepper=generate_pepper())


def test_all_parts_are_charged_or_none(gate, now):
    key = gate.issue(42)
    addresses = Limiter.in_memory("2/minute")

    def request(cost):
        parts = addresses.part("203.0.113.9", cost), gate.part(key.expose())
        return check_all(*parts, now=now)

    admitted = request(1)
    assert admitted
    assert admitted.admitted
    assert [verdict.charge.cost for verdict in admitted.verdicts] == [1, 1]
    assert admitted.verdicts[1].account == 42
    denied = request(2)
    assert not denied
    assert [verdict.outcome for verdict in denied.verdicts] == ["denied", "admitted"]
    assert [verdict.charge for verdict in denied.verdicts] == [None, None]
    assert (denied.decisive.http_status, denied.decisive.retry_after_s) == (429, 40)
    assert gate.peek(key.expose(), now=now).remaining == 2
    assert request(3).decisive.outcome == "too_costly"


def test_invalid_key_charges_no_subject(gate):
    addresses = Limiter.in_memory("2/minute")
    for api_key, outcome in [(None, "missing_key"), ("nonsense", "invalid_key")]:
        refused = check_all(addresses.part("a"), gate.part(api_key))
        assert (refused.decisive.outcome, refused.decisive.http_status) == (outcome, 401)
    assert addresses.peek("a").remaining == 2


def test_charge_of_a_part_can_be_refunded(now):
    users, teams = Limiter.in_memory("5/minute"), Limiter.in_memory("9/minute")
    user, team = check_all(users.part("ann", 2), teams.part("42", 3), now=now).verdicts
    users.refund("ann", user.charge, now=now)
    teams.refund("42", team.charge, now=now)
    assert users.peek("ann", now=now).remaining == 5
    assert teams.peek("42", now=now).remaining == 9


def test_wrong_parts_are_named():
    limiter = Limiter.in_memory("5/minute")
    with pytest.raises(ValueError, match="0 parts is not possible; it has 1 to 8"):
        check_all()
    with pytest.raises(ValueError, match="9 parts"):
        check_all(*[limiter.part(str(number)) for number in range(9)])
    with pytest.raises(TypeError):
        check_all("a")
    with pytest.raises(TypeError, match="subject must be"):
        limiter.part(5)
    assert limiter.peek("0").remaining == 5


def test_part_shows_no_key(gate):
    key = gate.issue(42).expose()
    part = gate.part(key, cost=2)
    assert repr(part) == "<Part of a gate, cost 2>"
    assert part.cost == 2
    assert key not in repr(check_all(part))
    with pytest.raises(TypeError):
        Part()
