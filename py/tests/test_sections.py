"""Plans with sections: teams, groups with costs of their own, scopes, warnings and accounts."""

import pickle

import pytest

import keytally
from keytally import Gate, Limiter, Policy, Sections, check_all, generate_pepper, peek_all

PLAN = "5/minute warn 60%; team: 8/hour; group write: 2/minute; group tokens: 900/minute"


@pytest.fixture
def gate(pepper):
    return Gate.in_memory(pepper=pepper, keys=64, plans={"default": PLAN}, scopes=["read", "write"])


def left(verdict):
    """Return the units left in the shortest window of each section."""
    return {tally.section: tally.verdict.quotas[0].remaining for tally in verdict.tallies}


@pytest.mark.parametrize("text", [PLAN, "unlimited; team: sliding 5/minute, 9/hour", "5/minute"])
def test_sections_are_equal_to_those_of_their_text(text):
    sections = Sections(text)
    assert str(sections) == text
    assert sections == Sections(str(sections)) == pickle.loads(pickle.dumps(sections))
    assert hash(sections) == hash(Sections(text))
    assert sections != Sections("1/minute")
    assert [section.name for section in sections] == [
        name for name in ("key", "team", "write", "tokens") if sections.named(name) is not None
    ]


def test_policy_is_sections_of_the_key():
    assert Sections(Policy("sliding 5/minute")) == Sections("sliding 5/minute")
    [key] = Sections(Policy("sliding 5/minute"))
    assert (key.name, key.algorithm, len(key.quotas)) == ("key", "sliding", 1)
    assert repr(key) == "<SectionQuotas key: 5/minute>"
    with pytest.raises(TypeError, match="must be a str, Sections or a Policy, not int"):
        Sections(5)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("5/minute; teams: 9/hour", "teams: 9/hour"),
        ("5/minute; group key: 9/hour", "group key"),
        ("5/minute; team: 9/fortnight", "fortnight"),
        ("5/minute warn 101%", "warn 101%"),
        ("; team: 5/minute", ""),
    ],
)
def test_wrong_sections_are_named(text, part):
    with pytest.raises(keytally.PolicyError) as error:
        Sections(text)
    assert part in str(error.value)


def test_plans_of_a_gate_are_sections(pepper):
    pro = PLAN.replace("5/minute", "50/minute")
    plans = {"default": PLAN, "pro": Sections(pro)}
    gate = Gate.in_memory(pepper=pepper, keys=8, plans=plans)
    assert gate.plans == {"default": Sections(PLAN), "pro": Sections(pro)}
    gate.set_plan("pro", PLAN)
    assert gate.plans["pro"] == Sections(PLAN)
    with pytest.raises(keytally.AdminError, match="sections, windows and algorithms"):
        gate.set_plan("other", "5/minute")
    assert gate.sections == ("key", "team", "write", "tokens")
    assert (gate.scopes, gate.team_capacity) == ((), 8)


def test_capacity_in_teams_is_that_of_keys_or_explicit(pepper):
    def capacity(plan, **options):
        plans = {"default": plan}
        gate = Gate.in_memory(pepper=pepper, keys=8, plans=plans, **options)
        return gate.team_capacity

    assert capacity("5/minute") == 0
    assert capacity("5/minute", teams=3) == 3
    assert capacity("5/minute; team: 9/hour") == 8
    assert capacity("5/minute; team: 9/hour", teams=2) == 2
    with pytest.raises(keytally.CreateError):
        capacity("5/minute; team: 9/hour", teams=0)
    for scopes in (["read", "read"], ["a b"], [""], [str(number) for number in range(65)]):
        with pytest.raises(keytally.CreateError, match="scope"):
            capacity("5/minute", scopes=scopes)


def test_request_charges_key_team_and_groups_or_none(gate, now):
    ann, bob = (gate.issue(42, now=now).expose() for _ in range(2))
    verdict = gate.check(ann, groups="write", costs={"tokens": 400}, now=now)
    assert left(verdict) == {"key": 4, "team": 7, "write": 1, "tokens": 500}
    assert (verdict.remaining, verdict.limit, verdict.account) == (4, 5, 42)
    assert [quota.name for quota in verdict.quotas] == ["minute"]
    denied = gate.check(ann, groups=["write"], costs={"tokens": 501}, now=now)
    assert (denied.outcome, denied.http_status, denied.retry_after_s) == ("denied", 429, 40)
    assert [tally.verdict.outcome for tally in denied.tallies] == [
        "admitted",
        "admitted",
        "admitted",
        "denied",
    ]
    assert denied.charge is None
    assert left(denied) == left(verdict)
    assert b'"violated-policies": ["tokens-minute"]' in denied.problem
    # The team is that of both keys, and the group is not.
    peeked = gate.peek(bob, groups="write", now=now)
    assert left(peeked) == {"key": 5, "team": 7, "write": 2}
    assert peeked.charge is None
    assert gate.check(bob, 6, now=now).outcome == "too_costly"


def test_response_lists_all_tallies(gate, now):
    key = gate.issue(42, now=now).expose()
    verdict = gate.check(key, groups=["write"], now=now)
    fields = dict(verdict.headers)
    assert fields["X-RateLimit-Limit"] == "5"
    assert fields["RateLimit-Policy"] == (
        '"minute";q=5;w=60, "team-hour";q=8;w=3600, "write-minute";q=2;w=60'
    )
    assert fields["RateLimit"] == (
        '"minute";r=4;t=40, "team-hour";r=7;t=3580, "write-minute";r=1;t=40'
    )
    assert verdict.raw_headers == [
        (name.lower().encode(), value.encode()) for name, value in verdict.headers
    ]


def test_plain_gate_has_one_tally(pepper, now):
    gate = Gate.in_memory(pepper=pepper, keys=8)
    verdict = gate.check(gate.issue(42).expose(), now=now)
    [tally] = verdict.tallies
    assert (tally.part, tally.section, tally.verdict) == (0, "key", verdict)
    assert verdict.crossed() == []
    assert [tally.section for tally in gate.check("wrong").tallies] == [None]
    assert [tally.section for tally in Limiter.in_memory("5/minute").check("x").tallies] == [None]
    assert gate.sections == ("key",)


def test_errors_name_unknown_plans_and_scopes(gate, pepper):
    key_id = gate.issue(42).key_id
    plans = 'no plan "nope"; its plans are: default'
    scopes = 'no scope "nope"; its scopes are: read, write'
    for call, error, message in (
        (lambda: gate.assign_account(42, "nope"), keytally.exceptions.NoSuchPlanError, plans),
        (lambda: gate.assign(key_id, "nope"), keytally.exceptions.NoSuchPlanError, plans),
        (lambda: gate.issue(42, plan="nope"), keytally.exceptions.NoSuchPlanError, plans),
        (
            lambda: gate.issue(42, scopes=["read", "nope"]),
            keytally.exceptions.NoSuchScopeError,
            scopes,
        ),
        (
            lambda: gate.set_scopes(key_id, ["nope"]),
            keytally.exceptions.NoSuchScopeError,
            scopes,
        ),
        (
            lambda: gate.import_keys(["customer-key-0001"], 42, scopes="nope"),
            keytally.exceptions.NoSuchScopeError,
            f"key 1: the gate has {scopes}; the keys",
        ),
    ):
        with pytest.raises(error, match=message):
            call()
    with pytest.raises(keytally.exceptions.NoSuchScopeError, match="created without scopes"):
        Gate.in_memory(pepper=pepper, keys=8).issue(42, scopes="nope")
    secret = generate_pepper()
    with pytest.raises(keytally.exceptions.NoSuchScopeError, match="no scope ") as raised:
        gate.set_scopes(key_id, [secret])
    assert secret not in str(raised.value)
    with pytest.raises(ValueError, match="teams is -1, and must be 0 to"):
        Gate.in_memory(pepper=pepper, teams=-1)


def test_unknown_groups_and_scopes_raise(gate, pepper):
    plain = Gate.in_memory(pepper=pepper, keys=8)
    charge = keytally.Charge(1, 1)
    for call in (gate.check, gate.peek, gate.part, plain.check):
        with pytest.raises(ValueError, match='have no group "delete"'):
            call("x", groups=["delete"])
        with pytest.raises(ValueError, match='have no group "team"'):
            call("x", costs={"team": 1})
        with pytest.raises(ValueError, match='has no scope "admin"'):
            call("x", need="admin")
        for argument in ("groups", "need"):
            for wrong in (5, ["write", 5]):
                with pytest.raises(TypeError, match=f"{argument} must be a str, or .*, not int"):
                    call("x", **{argument: wrong})
        with pytest.raises(TypeError, match="costs must be a dict"):
            call("x", costs=["write"])
        with pytest.raises(ValueError, match='the cost of the group "write" is -1, and must be'):
            call("x", costs={"write": -1})
    with pytest.raises(ValueError, match='have no group "delete"'):
        gate.settle("00000000001", charge, costs={"delete": 1})


def test_key_without_a_scope_is_forbidden(gate, now):
    key = gate.issue(42, scopes=["read"], now=now)
    assert gate.check(key.expose(), need="read", now=now).admitted
    for need in ("write", ["read", "write"]):
        verdict = gate.check(key.expose(), need=need, now=now)
        assert (verdict.outcome, verdict.http_status) == ("forbidden", 403)
        assert verdict.body == b'{"error": "Forbidden"}'
        assert (verdict.account, verdict.remaining) == (42, None)
        with pytest.raises(keytally.ForbiddenError, match=r"forbidden \(403\)"):
            verdict.raise_for_status()
    assert gate.peek(key.expose(), now=now).remaining == 4
    assert gate.key(key.key_id).scopes == ("read",)
    gate.set_scopes(key.key_id, ["write"])
    assert [info.scopes for info in gate.list()] == [("write",)]
    assert gate.check(key.expose(), need="read", now=now).outcome == "forbidden"
    assert gate.check(key.expose(), need="write", now=now).admitted
    [imported] = gate.import_keys(["a-key-of-a-customer"], 43, scopes="write", now=now)
    assert gate.check("a-key-of-a-customer", need="write", now=now).key_id == imported
    for wrong in (
        lambda: gate.issue(1, scopes=["admin"]),
        lambda: gate.set_scopes(key.key_id, ["admin"]),
    ):
        with pytest.raises(keytally.NoSuchScopeError):
            wrong()


def test_refund_returns_all_tallies(gate, now):
    key = gate.issue(42, now=now).expose()
    verdict = gate.check(key, 2, groups="write", costs={"tokens": 400}, now=now)
    restored = keytally.Charge.from_bytes(verdict.charge.to_bytes())
    gate.refund(verdict.key_id, restored, now=now)
    peeked = gate.peek(key, groups=["write", "tokens"], now=now)
    assert left(peeked) == {"key": 5, "team": 8, "write": 2, "tokens": 900}


def test_settlement_reports_what_found_no_room(gate, now):
    key = gate.issue(42, now=now).expose()

    def rest(verdict):
        return left(gate.peek(key, 0, groups=["write", "tokens"], now=now)), (
            verdict.uncharged,
            verdict.uncharged_costs,
        )

    verdict = gate.check(key, 1, groups="write", costs={"tokens": 400}, now=now)
    estimate = verdict.key_id, verdict.charge
    # The group has room for one more unit, so no tally of this cost is charged more.
    settled = gate.settle(*estimate, 4, costs={"tokens": 1000}, now=now)
    assert rest(settled) == (
        {"key": 3, "team": 6, "write": 0, "tokens": 0},
        (2, {"tokens": 100}),
    )
    settled = gate.settle(*estimate, costs={"tokens": 500}, overdraw=True, now=now)
    assert rest(settled) == ({"key": 3, "team": 6, "write": 0, "tokens": 0}, (0, {"tokens": 0}))
    # 1000 units are counted, of which the refund returns 400.
    gate.refund(*estimate, now=now)
    assert rest(settled)[0]["tokens"] == 300
    with pytest.raises(keytally.NoSuchKeyError):
        gate.settle("00000000001", verdict.charge, 1)


def test_one_request_reports_each_warning(gate, now):
    key = gate.issue(42, now=now).expose()

    def crossed(cost):
        return [
            (tally.section, quota.name, quota.remaining, percent)
            for tally, quota, percent in gate.check(key, cost, now=now).crossed()
        ]

    assert crossed(2) == []
    assert crossed(2) == [("key", "minute", 1, 60)]
    assert crossed(1) == []
    assert crossed(1) == []


def test_settlement_reports_the_warnings_that_it_reached(gate, now):
    key = gate.issue(42, now=now).expose()
    verdict = gate.check(key, 2, now=now)

    def settled(cost):
        result = gate.settle(verdict.key_id, verdict.charge, cost, now=now)
        return [
            (tally.section, quota.name, quota.remaining, percent)
            for tally, quota, percent in result.crossed()
        ]

    assert settled(1) == []
    assert gate.check(key, 1, now=now).crossed() == []
    assert settled(3) == [("key", "minute", 2, 60)]
    assert settled(3) == []


def test_suspended_account_is_refused(gate, now):
    ann, bob = gate.issue(42).expose(), gate.issue(43).expose()
    gate.suspend(42)
    verdict = gate.check(ann, now=now)
    assert (verdict.outcome, verdict.reason, verdict.http_status) == (
        "invalid_key",
        "suspended",
        401,
    )
    assert gate.account(42).is_suspended
    assert repr(gate.account(42)) == "<AccountInfo 42: plan default, suspended>"
    assert gate.check(bob, now=now).admitted
    gate.resume(42)
    assert gate.check(ann, now=now).admitted


def test_account_has_limits_of_its_plan_or_its_own(pepper, now):
    plans = {
        "default": "5/minute; team: 8/hour, 20/day",
        "pro": "9/minute; team: 80/hour, 200/day",
    }
    gate = Gate.in_memory(pepper=pepper, keys=8, plans=plans, teams=2)
    key = gate.issue(42, now=now)

    def limits():
        info = gate.account(42, now=now)
        return info.plan, info.has_own_limits, [quota.limit for quota in info.quotas]

    assert limits() == ("default", False, [8, 20])
    gate.assign(key.key_id, "pro")
    assert limits() == ("default", False, [8, 20])
    gate.assign_account(42, "pro")
    assert limits() == ("pro", False, [80, 200])
    gate.limit_account(42, "30/day, 3/hour")
    assert limits() == ("pro", True, [3, 30])
    assert gate.check(key.expose(), 4, now=now).outcome == "too_costly"
    assert gate.check(key.expose(), 3, now=now).admitted
    assert not gate.check(key.expose(), now=now)
    gate.reset_account(42, now=now)
    assert gate.check(key.expose(), now=now).remaining == 5
    gate.assign_account(42, "pro")
    assert limits() == ("pro", False, [80, 200])
    assert gate.issue(43)
    with pytest.raises(keytally.TeamsFullError, match="room for 2 teams"):
        gate.issue(44)


def test_wrong_changes_of_accounts_are_refused(gate):
    gate.issue(42)
    for limits in ("sliding 5/hour", "5/hour warn 80%", "5/hour; team: 5/hour"):
        with pytest.raises(keytally.PolicyError, match="has more than quotas"):
            gate.limit_account(42, limits)
    with pytest.raises(keytally.AdminError, match="windows"):
        gate.limit_account(42, "5/minute")
    with pytest.raises(keytally.NoSuchPlanError):
        gate.assign_account(42, "gold")
    for wrong in (
        lambda: gate.suspend(7),
        lambda: gate.resume(7),
        lambda: gate.assign_account(7, "default"),
        lambda: gate.limit_account(7, "5/hour"),
        lambda: gate.reset_account(7),
    ):
        with pytest.raises(keytally.NoSuchAccountError, match="no account 7"):
            wrong()
    assert gate.account(7) is None
    assert [info.account for info in gate.accounts()] == [42]


def test_parts_charge_all_their_tallies_or_none(gate, now):
    key = gate.issue(42, now=now)
    addresses = Limiter.in_memory("3/minute")

    def parts(cost):
        part = gate.part(key.expose(), cost, groups="write", costs={"tokens": 300})
        return part, addresses.part("203.0.113.9", cost)

    compound = check_all(*parts(1), now=now)
    assert compound.admitted
    assert [(tally.part, tally.section) for tally in compound.tallies] == [
        (0, "key"),
        (0, "team"),
        (0, "write"),
        (0, "tokens"),
        (1, None),
    ]
    assert (compound.account, compound.key_id, compound.remaining) == (42, key.key_id, 4)
    assert '"tokens-minute";r=600;t=40, "minute-2";r=2;t=40' in dict(compound.headers)["RateLimit"]
    gate.refund(key.key_id, compound.charge(0), now=now)
    addresses.refund("203.0.113.9", compound.charge(1), now=now)
    assert compound.charge(2) is None
    peeked = peek_all(*parts(1), now=now)
    assert [verdict.remaining for verdict in peeked.verdicts] == [5, 8, 2, 900, 3]
    assert peeked.charge(0) is None
    denied = check_all(*parts(3), now=now)
    assert (denied.outcome, denied.http_status, denied.retry_after_s) == ("too_costly", 429, None)
    assert denied.body == b'{"error": "Rate limit exceeded. Please try again later."}'
    refused = check_all(gate.part("wrong"), addresses.part("203.0.113.9"), now=now)
    assert (refused.reason, refused.http_status) == ("malformed", 401)
    assert ("WWW-Authenticate", 'ApiKey realm="api", header="X-API-Key"') in refused.headers
    with pytest.raises(ValueError, match="it has 1 to 8"):
        check_all(*parts(1), *parts(1), now=now)


def test_gate_in_a_file_keeps_sections(tmp_path):
    path, pepper = tmp_path / "api.gate", generate_pepper()
    gate = Gate.create(
        path, pepper=pepper, keys=8, plans={"default": PLAN}, teams=2, scopes=["read"]
    )
    key = gate.issue(42, scopes=["read"]).expose()
    other = Gate.open(path, pepper=pepper)
    assert other.check(key, groups="write", need="read").remaining == 4
    assert gate.peek(key).remaining == 4
    assert (other.sections, other.scopes, other.team_capacity) == (
        ("key", "team", "write", "tokens"),
        ("read",),
        2,
    )
    assert gate.verify().flaws == ()


@pytest.mark.parametrize(
    "plan",
    [
        "100/minute, 1000/hour, 30000/month@17",
        "100/minute, 1000/hour, 4294967295/day, 30000/month@17; team: 70000/month",
    ],
)
def test_gate_names_the_described_window(pepper, plan, now):
    for described, limit in (("month", 30000), ("minute", 100), (None, None)):
        gate = Gate.in_memory(pepper=pepper, keys=8, plans={"default": plan}, described=described)
        assert gate.described == described
        key = gate.issue(42, now=now).expose()
        verdict = gate.check(key, now=now)
        if described is None:
            assert verdict.limit not in (100, 30000)
            continue
        for same in (verdict, pickle.loads(pickle.dumps(verdict)), gate.peek(key, now=now)):
            assert (same.limit, same.remaining) == (limit, limit - 1)
            assert dict(same.headers)["X-RateLimit-Limit"] == str(limit)
        both = check_all(gate.part(key), gate.part(key), now=now)
        assert dict(both.headers)["X-RateLimit-Limit"] == str(limit)
    with pytest.raises(keytally.CreateError, match="the plans have none for week"):
        Gate.in_memory(pepper=pepper, plans={"default": plan}, described="week")
    with pytest.raises(keytally.PolicyError, match="is not a window"):
        Gate.in_memory(pepper=pepper, plans={"default": plan}, described="5/minute")
