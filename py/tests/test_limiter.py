"""The limiter: every method, and the errors of invalid arguments."""

import pickle

import pytest

import keytally
from keytally import AddressPolicy, Charge, Limiter, Policy


def test_each_subject_has_its_own_limit(now):
    limiter = Limiter.in_memory("2/minute, 3/hour", 100)
    assert [bool(limiter.check("a", now=now)) for _ in range(3)] == [True, True, False]
    assert limiter.check("b", now=now).admitted
    assert limiter.check("a", now=now + 40).admitted
    denied = limiter.check("a", now=now + 40)
    assert (denied.retry_after_s, denied.http_status, denied.account, denied.plan, denied.env) == (
        3540,
        429,
        None,
        None,
        None,
    )
    assert [q.lacking for q in denied.quotas] == [False, True]
    assert (limiter.capacity, limiter.policy, limiter.path) == (
        100,
        Policy("2/minute, 3/hour"),
        None,
    )


def test_text_and_its_bytes_are_one_subject(now):
    limiter = Limiter.in_memory("5/minute")
    assert limiter.check("é", now=now).remaining == 4
    assert limiter.check("é".encode(), now=now).remaining == 3
    assert limiter.check("\ud800", now=now).remaining == 4
    assert limiter.check(b"", now=now).remaining == 4
    with pytest.raises(TypeError, match="subject must be str or bytes, not int"):
        limiter.check(5)


def test_refund_settle_reset_change_counts(now):
    limiter = Limiter.in_memory("10/minute")
    estimate = limiter.check("a", 5, now=now).charge
    assert limiter.settle("a", estimate, 12, now=now).uncharged == 2
    # With overdraw, a refund of the estimate leaves the window full.
    limiter.reset("a", now=now)
    estimate = limiter.check("a", 4, now=now).charge
    settled = limiter.settle("a", estimate, 15, overdraw=True, now=now)
    assert (settled.remaining, settled.uncharged) == (0, 0)
    assert limiter.refund("a", estimate, now=now).remaining == 0
    assert limiter.peek("a", now=now).outcome == "denied"
    assert limiter.reset("a", now=now).remaining == 10
    charge = limiter.check("a", 4, now=now).charge
    assert limiter.peek("a", 4, now=now).charge is None
    assert limiter.refund("a", charge, now=now).remaining == 10


def test_verdict_shows_that_its_tally_is_shared(now):
    # Both tables have eight slots.
    limiter = Limiter.in_memory("2/minute", 1)
    verdicts = [limiter.check(str(number), now=now) for number in range(11)]
    shared = [verdict.is_shared for verdict in verdicts]
    assert shared == [False] * 8 + [True] * 3
    assert verdicts[10].outcome == "denied"
    assert pickle.loads(pickle.dumps(verdicts[9])).is_shared
    assert not limiter.peek("10", now=now).is_shared

    addresses = Limiter.in_memory("addresses: /64 2/minute; /56 9/minute", 1)
    verdicts = [addresses.check(f"2001:db8:0:{number}::1", now=now) for number in range(8)]
    assert [verdict.is_shared for verdict in verdicts] == [False] * 7 + [True]
    assert [tally.verdict.is_shared for tally in verdicts[7].tallies] == [True, False]


def test_reset_of_all_returns_the_subjects_that_had_counts(now):
    limiter = Limiter.in_memory("2/minute", 100)
    for subject in ("a", "b", "b"):
        limiter.check(subject, now=now)
    assert limiter.reset_all(now=now) == 2
    assert limiter.reset_all(now=now) == 0
    assert limiter.check("b", 2, now=now).admitted


def test_full_limiter_returns_a_verdict(now):
    limiter = Limiter.in_memory("1/hour", 1, on_full="refuse")
    verdicts = [limiter.check(str(n), now=now) for n in range(50)]
    full = next(verdict for verdict in verdicts if verdict.outcome == "full")
    assert full.http_status == 503
    assert full.retry_after_s >= 1
    with pytest.raises(keytally.FullError):
        full.raise_for_status()


def test_changed_limit_is_put_in_force_for_all_handles(tmp_path, now):
    path = tmp_path / "addresses.limiter"
    first = Limiter.open_or_create(path, "3/minute", 100)
    assert first.check("a", 2, now=now).remaining == 1
    second = Limiter.open_or_create(path, "5/minute", 100)
    assert [limiter.peek("a", now=now).remaining for limiter in (first, second)] == [3, 3]
    assert first.policy == Policy("5/minute")


def test_subjects_without_a_slot_share_one_limit(now):
    limiter = Limiter.in_memory("3/hour", 1)
    for slot in range(8):
        limiter.check(f"slot {slot}", now=now)
    verdicts = [limiter.check(str(n), now=now) for n in range(5)]
    assert [verdict.remaining for verdict in verdicts] == [2, 1, 0, 0, 0]
    assert [verdict.outcome for verdict in verdicts[3:]] == ["denied", "denied"]
    assert (limiter.live_subjects(now=now), limiter.refusals) == (8, 5)
    assert limiter.slots_total == 8
    charge = Charge.from_bytes(verdicts[0].charge.to_bytes())
    assert limiter.refund("0", charge, now=now).remaining == 1
    # A charge of two numbers is one of the subject's own tally, which it does not have.
    limiter.refund("0", Charge(charge.cost, charge.at_ms), now=now)
    assert limiter.peek("0", now=now).remaining == 1


def test_on_full_is_stored_in_the_table(tmp_path):
    path = tmp_path / "addresses.limiter"
    limiter = Limiter.create(path, "3/minute", 100)
    assert limiter.on_full == "share"
    assert Limiter.open_or_create(path, "3/minute", 100, on_full="refuse").on_full == "refuse"
    assert limiter.on_full == "refuse"
    assert Limiter.open_or_create(path, "3/minute", 100).on_full == "refuse"
    limiter.set_on_full("share")
    assert Limiter.open(path).on_full == "share"
    with pytest.raises(ValueError, match="on_full is \"evict\", and must be 'share' or 'refuse'"):
        limiter.set_on_full("evict")
    with pytest.raises(TypeError, match="on_full"):
        Limiter.in_memory("3/minute", on_full=True)


def test_limiter_file_is_shared_by_its_handles(tmp_path, now):
    path = tmp_path / "addresses.limiter"
    created = Limiter.create(path, "3/minute", 100)
    opened = Limiter.open(path)
    same = Limiter.open_or_create(path, Policy("3/minute"), 100)
    assert [limiter.check("a", now=now).remaining for limiter in (created, opened, same)] == [
        2,
        1,
        0,
    ]
    assert opened.path == path
    assert repr(opened) == f"<Limiter '3/minute' in {path}>"
    with pytest.raises(FileExistsError):
        Limiter.create(path, "3/minute", 100)
    with pytest.raises(keytally.TableError, match='"3/minute" and cannot change to "4/hour"'):
        Limiter.open_or_create(path, "4/hour", 100)
    with pytest.raises(keytally.TableError, match="is for 100 subjects, and 99 were requested"):
        Limiter.open_or_create(path, "3/minute", 99)
    with pytest.raises(FileNotFoundError):
        Limiter.open(tmp_path / "none")


def test_limiter_with_invalid_arguments_is_not_created():
    with pytest.raises(keytally.PolicyError, match='"100" is .*; a quota is LIMIT/UNIT'):
        Limiter.in_memory("100")
    for capacity in (0, -1, 1_073_741_825, 1 << 40):
        message = f"^capacity is {capacity}, and must be 1 to 1073741824"
        with pytest.raises(keytally.CreateError, match=message):
            Limiter.in_memory("1/minute", capacity)
    with pytest.raises(keytally.PolicyError, match="nothing is before or after a semicolon"):
        Limiter.in_memory("addresses: /64 1/minute;")
    with pytest.raises(keytally.PolicyError, match='"addresses: sliding /64 5/hour"'):
        Limiter.in_memory("addresses: /64 sliding 1/minute")
    with pytest.raises(
        TypeError, match="must be a str, a Policy or an AddressPolicy, not NoneType"
    ):
        Limiter.in_memory(None)


@pytest.mark.parametrize("kind", [keytally.Gate, Limiter])
@pytest.mark.parametrize("arguments", [{}, {"policy": "5/minute"}])
def test_constructor_of_a_table_names_in_memory_and_create(kind, arguments):
    name = kind.__name__
    with pytest.raises(
        TypeError, match=rf"{name} has no constructor; call {name}\.in_memory, {name}\.create"
    ):
        kind(**arguments)


LATTICE = "addresses: /64 2/minute, 5/hour; /56 4/minute; /48 6/hour"


def rooms(verdict):
    return [[quota.remaining for quota in tally.verdict.quotas] for tally in verdict.tallies]


def test_address_is_charged_to_all_networks_or_to_none(now):
    limiter = Limiter.in_memory(LATTICE, 100)
    first = limiter.check("2001:db8:1:100::1", 2, now=now)
    assert rooms(first) == [[0, 3], [2], [4]]
    assert [tally.section for tally in first.tallies] == [None, "prefix-56", "prefix-48"]
    assert [quota.limit for quota in first.quotas] == [2, 5]
    assert all(tally.verdict.charge is None for tally in first.tallies)
    denied = limiter.check(b"[2001:db8:1:100::2]:443", now=now)
    assert (denied.outcome, denied.charge, rooms(denied)) == ("denied", None, rooms(first))
    policy = dict(denied.headers)["RateLimit-Policy"]
    assert policy == (
        '"minute";q=2;w=60, "hour";q=5;w=3600, "prefix-56-minute";q=4;w=60, '
        '"prefix-48-hour";q=6;w=3600'
    )
    assert dict(denied.headers)["X-RateLimit-Limit"] == "5"


def test_charge_of_an_address_is_refunded_settled_and_reset(now):
    limiter = Limiter.in_memory(LATTICE, 100)
    address = "2001:db8::1"
    verdict = limiter.check(address, 2, now=now)
    restored = pickle.loads(pickle.dumps(verdict))
    assert restored.headers == verdict.headers
    assert rooms(restored) == rooms(verdict)
    charge = keytally.Charge.from_bytes(restored.charge.to_bytes())
    assert rooms(limiter.refund(address, charge, now=now)) == [[2, 5], [4], [6]]
    estimate = limiter.check(address, 1, now=now).charge
    settled = limiter.settle(address, estimate, 4, now=now)
    assert (rooms(settled), settled.uncharged) == ([[0, 3], [2], [4]], 2)
    assert pickle.loads(pickle.dumps(settled)).uncharged == 2
    assert rooms(limiter.reset(address, now=now)) == [[2, 5], [2], [4]]
    assert (limiter.reset_all(now=now), limiter.correct_clock(now=now)) == (2, 0)
    estimate = limiter.check(address, 1, now=now).charge
    limiter.settle(address, estimate, 9, overdraw=True, now=now)
    assert rooms(limiter.peek(address, now=now)) == [[0, 0], [0], [0]]


def test_address_is_a_part_of_a_compound_charge(now):
    addresses, users = Limiter.in_memory(LATTICE, 100), Limiter.in_memory("1/minute", 100)
    request = lambda: keytally.check_all(  # noqa: E731
        users.part("ann"), addresses.part("2001:db8::1"), now=now
    )
    admitted, denied = request(), request()
    assert [tally.part for tally in admitted.tallies] == [0, 1, 1, 1]
    assert (admitted.admitted, denied.outcome) == (True, "denied")
    assert repr(addresses.part("2001:db8::1")) == "<Part of a limiter, cost 1>"
    assert rooms(addresses.peek("2001:db8::1", now=now)) == [[1, 4], [3], [5]]
    addresses.refund("2001:db8::1", admitted.charge(1), now=now)
    assert rooms(addresses.peek("2001:db8::1", now=now)) == [[2, 5], [4], [6]]


@pytest.mark.parametrize("subject", ["ann", "", "2001:db8::/63", b"\xff", "\ud800"])
def test_text_that_is_not_an_address_is_named_as_wrong(subject):
    limiter = Limiter.in_memory(LATTICE, 100)
    for call in (limiter.check, limiter.peek, limiter.part, limiter.reset):
        with pytest.raises(ValueError, match=r"the subject is not an address, such as 203\.0\.113"):
            call(subject)
    with pytest.raises(TypeError, match="subject must be str or bytes, not int"):
        limiter.check(5)


def test_limiter_of_addresses_in_a_file_changes_its_limits(tmp_path, now):
    path = tmp_path / "addresses.limiter"
    first = Limiter.create(path, LATTICE, 100)
    first.check("2001:db8::1", 2, now=now)
    changed = AddressPolicy(LATTICE.replace("4/minute", "9/minute"))
    second = Limiter.open_or_create(path, changed, 100)
    assert rooms(first.peek("2001:db8::1", now=now)) == [[0, 3], [7], [4]]
    opened = Limiter.open(path)
    assert (opened.policy, opened.capacity, opened.path) == (changed, 100, path)
    assert second.policy == first.policy
    assert repr(opened) == f"<Limiter '{changed}' in {path}>"
    with pytest.raises(keytally.TableError, match="prefixes must be those of the limiter"):
        Limiter.open_or_create(path, "addresses: /64 5/hour", 100)
    with pytest.raises(keytally.TableError, match="not a limiter"):
        Limiter.open_or_create(path, "5/hour", 100)


def test_address_policy_has_its_prefixes_and_round_trips():
    policy = AddressPolicy("addresses: sliding /48 9/hour; /64 3/hour")
    assert str(policy) == "addresses: sliding /64 3/hour; /48 9/hour"
    assert policy.algorithm == "sliding"
    assert [(prefix, [quota.limit for quota in quotas]) for prefix, quotas in policy.prefixes] == [
        (64, [3]),
        (48, [9]),
    ]
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert AddressPolicy(policy) == policy
    assert len({policy, AddressPolicy(str(policy))}) == 1
    for text in ("5/minute", "addresses: /32 5/minute", "addresses: /64 5/fortnight"):
        with pytest.raises(keytally.PolicyError):
            AddressPolicy(text)
    with pytest.raises(keytally.PolicyError, match=r'"/65 5/minute"'):
        Limiter.in_memory("addresses: /65 5/minute")
    with pytest.raises(TypeError, match="policy must be a str, a Policy or an AddressPolicy"):
        Limiter.in_memory(5)
