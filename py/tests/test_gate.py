"""The gate: every method, and the errors of invalid arguments."""

import datetime as dt
import os

import pytest

import keytally
from keytally import Gate


def test_check_of_valid_key_charges(gate, now):
    key = gate.issue(42, env="test", now=now)
    verdict = gate.check(key.expose(), now=now)
    assert verdict
    assert (verdict.outcome, verdict.reason, verdict.http_status) == ("admitted", None, 200)
    assert (verdict.account, verdict.key_id, verdict.env, verdict.plan) == (
        42,
        key.key_id,
        "test",
        "default",
    )
    assert (verdict.limit, verdict.remaining, verdict.retry_after_s) == (1000, 999, None)
    assert [(q.name, q.limit, q.remaining, q.window) for q in verdict.quotas] == [
        ("minute", 100, 99, 60),
        ("hour", 1000, 999, 3600),
    ]
    assert gate.check(key.expose().encode(), now=now).remaining == 998
    assert gate.peek(key.expose(), now=now).remaining == 998


def test_refusals_have_exact_bodies_and_headers(gate, now):
    key = gate.issue(42, now=now).expose()
    missing, invalid = gate.check(None, now=now), gate.check(key[:-1] + "!", now=now)
    denied = [gate.check(key, now=now) for _ in range(101)][-1]
    assert (missing.http_status, missing.body) == (401, b'{"error": "Missing X-API-Key header"}')
    assert (invalid.http_status, invalid.body) == (401, b'{"error": "Invalid API key"}')
    assert (denied.http_status, denied.body) == (
        429,
        b'{"error": "Rate limit exceeded. Please try again later."}',
    )
    assert dict(denied.headers) == {
        "X-RateLimit-Limit": "1000",
        "X-RateLimit-Remaining": "900",
        "X-RateLimit-Reset": "1700053200",
        "RateLimit-Policy": '"minute";q=100;w=60, "hour";q=1000;w=3600',
        "RateLimit": '"minute";r=0;t=40, "hour";r=900;t=3580',
        "Retry-After": "40",
    }
    assert denied.raw_headers == [(n.lower().encode(), v.encode()) for n, v in denied.headers]
    assert invalid.headers == [("WWW-Authenticate", 'ApiKey realm="api", header="X-API-Key"')]
    assert denied.content_type == "application/json"
    assert b"quota-exceeded" in denied.problem


@pytest.mark.parametrize(
    "text",
    ["", " ", "x", "\0", "é", "\udcff", "\ud800", "k" * 5000, b"", b"\xff\xfe", "kt_live_", None],
)
def test_check_of_any_text_raises_nothing(gate, text):
    assert gate.check(text).http_status == 401


def test_check_of_other_type_raises_type_error(gate):
    for bad, name in [(5, "int"), (bytearray(b"x"), "bytearray"), (["k"], "list")]:
        with pytest.raises(TypeError, match=f"api_key must be str or bytes, not {name}"):
            gate.check(bad)


def test_refund_settle_reset_change_counts(gate, now):
    key = gate.issue(42, now=now).expose()
    verdict = gate.check(key, 50, now=now)
    assert gate.settle(verdict.key_id, verdict.charge, 20, now=now).remaining == 980
    verdict = gate.check(key, 10, now=now)
    assert gate.refund(verdict.key_id, verdict.charge, now=now).remaining == 980
    assert gate.reset(verdict.key_id, now=now).remaining == 1000
    peeked = gate.peek(key, 10, now=now)
    assert (peeked.admitted, peeked.charge) == (True, None)
    assert gate.check("x", now=now).remaining is None
    denied = gate.check(key, 101, now=now)
    assert (denied.outcome, denied.charge, denied.http_status) == ("too_costly", None, 429)
    with pytest.raises(ValueError, match="only the verdict of an admitted check has one"):
        gate.refund(denied.key_id, denied.charge)
    with pytest.raises(ValueError, match="key_id is None"):
        gate.refund(gate.check("x").key_id, verdict.charge)
    with pytest.raises(keytally.NoSuchKeyError, match="has no key 00000000001"):
        gate.refund("00000000001", verdict.charge)
    with pytest.raises(keytally.KeyIdError, match="11 characters"):
        gate.reset("!")


def test_charge_rebuilt_from_its_numbers_is_refunded(gate, now):
    key = gate.issue(42, now=now).expose()
    charge = gate.check(key, 10, now=now).charge
    again = keytally.Charge(charge.cost, charge.at_ms)
    assert (again == charge, hash(again) == hash(charge), again != keytally.Charge(9, 0)) == (
        True,
        True,
        True,
    )
    assert gate.refund(gate.list()[0].key_id, again, now=now).remaining == 1000
    for bad in [b"", charge.to_bytes()[:-1], charge.to_bytes() + b"\0"]:
        with pytest.raises(ValueError, match="is not the bytes of a charge"):
            keytally.Charge.from_bytes(bad)
    with pytest.raises(TypeError, match="data must be bytes, not str"):
        keytally.Charge.from_bytes("1")


def test_rotated_secrets_share_quota_until_grace_ends(gate, now):
    old = gate.issue(42, now=now)
    new = gate.rotate(old.key_id, grace=dt.timedelta(hours=1), now=now)
    assert gate.check(old.expose(), now=now).remaining == 999
    assert gate.check(new.expose(), now=now).remaining == 998
    assert gate.key(old.key_id, now=now).grace_until == now + 3600
    assert gate.check(old.expose(), now=now + 3600).reason == "expired"
    with pytest.raises(keytally.AdminError, match=f"key {old.key_id} .* is valid until"):
        gate.rotate(old.key_id, grace=0, now=now)
    assert gate.check(old.expose(), 0, now=now).admitted
    newest = gate.rotate(old.key_id, grace=0, force=True, now=now)
    assert gate.check(old.expose(), now=now).http_status == 401
    assert gate.check(new.expose(), now=now).http_status == 401
    assert gate.check(newest.expose(), now=now).admitted
    for bad, shown in [(-1, "-1"), (1e20, r"1e\+20"), (dt.timedelta(-1), "-1 day, 0:00:00")]:
        range_of_grace = f"grace is {shown}, and must be a timedelta or seconds, 0 to {2**64 - 1}"
        with pytest.raises(ValueError, match=range_of_grace):
            gate.rotate(old.key_id, grace=bad)


def test_revocation_reaches_other_handles_at_once(tmp_path, pepper):
    path = tmp_path / "api.gate"
    gate = Gate.create(path, pepper=pepper, keys=64)
    other = Gate.open(str(path), pepper=pepper)
    key = gate.issue(42)
    assert other.check(key.expose()).admitted
    gate.revoke(key.key_id)
    assert other.check(key.expose()).reason == "revoked"
    with pytest.raises(keytally.RevokedError, match="was revoked"):
        other.rotate(key.key_id, grace=0)


def test_ended_key_has_no_grace(gate, now):
    revoked, brief = (
        gate.issue(1, now=now),
        gate.issue(2, expires=dt.timedelta(seconds=60), now=now),
    )
    for key in (revoked, brief):
        gate.rotate(key.key_id, grace=3600, now=now)
    gate.revoke(revoked.key_id)
    assert [gate.key(key.key_id, now=now).grace_until for key in (revoked, brief)] == [
        None,
        now + 60,
    ]
    assert gate.key(brief.key_id, now=now + 60).grace_until is None


def test_key_expires_at_its_time(gate, now):
    key = gate.issue(42, expires=dt.timedelta(minutes=1), now=now)
    assert gate.check(key.expose(), now=now + 59).admitted
    assert gate.check(key.expose(), now=now + 60).reason == "expired"
    [info] = gate.list(now=now + 60)
    assert (info.state, info.expires) == ("expired", now + 60)
    at = dt.datetime(2100, 1, 1, tzinfo=dt.timezone.utc)
    assert gate.key(gate.issue(1, expires=at).key_id).expires == int(at.timestamp())
    past = dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc)
    for value, sentence in [
        (dt.timedelta(0), "expires is 0:00:00, and must be a time after now"),
        (past, r"expires is 2020-01-01 00:00:00\+00:00, and must be a time after now"),
        (dt.timedelta(days=40_000), "expires is 40000 days, 0:00:00, and must be at most 2106"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            gate.issue(42, expires=value)
    with pytest.raises(ValueError, match="has no time zone"):
        gate.issue(42, expires=dt.datetime(2100, 1, 1))  # noqa: DTZ001
    with pytest.raises(TypeError, match="expires must be a datetime or a timedelta, not int"):
        gate.issue(42, expires=3600)


def test_foreign_keys_are_imported_once(gate):
    keys = [f"customer-key-{n:04}" for n in range(5)]
    key_ids = gate.import_keys(keys[:3], 7, env="test")
    assert gate.import_keys((key.encode() for key in keys), 7, env="test")[:3] == key_ids
    assert gate.check(keys[4]).account == 7
    with pytest.raises(keytally.AlreadyImportedError, match="key 1: .* in the gate already"):
        gate.import_keys(keys, 8)
    with pytest.raises(
        keytally.AdminError, match="key 2: .* this one has 5 bytes; the keys before it are imported"
    ):
        gate.import_keys(["customer-key-0005", "short"], 7)
    assert gate.check("customer-key-0005").admitted
    with pytest.raises(TypeError, match="a key to import must be str or bytes, not int"):
        gate.import_keys([5], 7)
    assert gate.import_keys([], 7) == []


def test_many_keys_are_imported_in_batches(pepper):
    gate = Gate.in_memory(pepper=pepper, keys=5000)
    keys = [f"customer-key-{n:06}" for n in range(2500)]
    assert len(set(gate.import_keys(keys, 7))) == 2500
    assert len(gate.list()) == 2500


def test_plan_changes_keep_counts(gate, now):
    key = gate.issue(42, now=now)
    assert gate.check(key.expose(), 10, now=now).remaining == 990
    gate.set_plan("pro", keytally.Policy("1000/minute, 20000/hour"))
    gate.assign(key.key_id, "pro")
    verdict = gate.check(key.expose(), now=now)
    assert (verdict.plan, verdict.limit, verdict.remaining) == ("pro", 20000, 19989)
    assert list(gate.plans) == ["default", "pro"]
    assert gate.check(gate.issue(1, plan="pro").expose()).limit == 20000
    for name in ("issue", "assign"):
        with pytest.raises(keytally.NoSuchPlanError):
            gate.issue(1, plan="gold") if name == "issue" else gate.assign(key.key_id, "gold")
    with pytest.raises(keytally.AdminError, match="windows"):
        gate.set_plan("odd", "1/second")
    with pytest.raises(keytally.CreateError, match='"Pro" is not a valid plan name'):
        gate.set_plan("Pro", "1/minute, 2/hour")


def test_key_info_has_no_secret(gate, now):
    key = gate.issue(42, env="test", now=now)
    gate.check(key.expose(), 3, now=now)
    [info] = gate.list(now=now)
    assert (info.key_id, info.account, info.env, info.plan) == (key.key_id, 42, "test", "default")
    assert (info.state, info.hint, info.expires, info.grace_until) == (
        "active",
        key.hint,
        None,
        None,
    )
    assert (info.last_used, info.pepper) == (now // 60 * 60, 0)
    assert [q.remaining for q in info.quotas] == [97, 997]
    assert gate.key("00000000001") is None
    for shown in (repr(info), repr(key), str(key), repr(gate), repr(gate.list())):
        assert key.expose() not in shown
        assert key.expose()[19:40] not in shown


def test_pepper_comes_from_argument_file_or_environment(tmp_path, pepper, monkeypatch):
    path = tmp_path / "api.gate"
    monkeypatch.delenv("KEYTALLY_PEPPER", raising=False)
    monkeypatch.delenv("KEYTALLY_PEPPER_FILE", raising=False)
    Gate.create(path, pepper=pepper, keys=8)
    with pytest.raises(keytally.PepperError, match="no pepper was given"):
        Gate.open(path)
    monkeypatch.setenv("KEYTALLY_PEPPER", pepper)
    Gate.open(path)
    monkeypatch.setenv("KEYTALLY_PEPPER", "")
    file = tmp_path / "pepper"
    file.write_text(pepper)
    file.chmod(0o660)
    with pytest.raises(keytally.PepperError, match="fix it with: chmod"):
        Gate.open(path, pepper_file=file)
    with pytest.raises(keytally.PepperError, match="is a directory"):
        Gate.open(path, pepper_file=tmp_path)
    with pytest.raises(FileNotFoundError):
        Gate.open(path, pepper_file=tmp_path / "nothing")
    file.chmod(0o600)
    Gate.open(path, pepper_file=str(file))
    monkeypatch.setenv("KEYTALLY_PEPPER_FILE", str(file))
    Gate.open(path)
    with pytest.raises(keytally.PepperError, match="both given"):
        Gate.open(path, pepper=pepper, pepper_file=file)
    with pytest.raises(keytally.PepperError, match="pepper 1 of 1 is neither hex nor base64"):
        Gate.open(path, pepper="letmein!")
    with pytest.raises(keytally.PepperError, match="pepper"):
        Gate.open(path, pepper=keytally.generate_pepper())


def test_errors_contain_no_secret(gate, pepper):
    key = gate.issue(42).expose()
    for call in (
        lambda: gate.revoke(key),
        lambda: gate.import_keys([key], 1),
        lambda: Gate.in_memory(pepper=f"{pepper},{pepper}"),
        lambda: Gate.in_memory(pepper=pepper[:30]),
    ):
        with pytest.raises(keytally.KeytallyError) as caught:
            call()
        assert key not in str(caught.value)
        assert pepper[:16] not in str(caught.value)


def test_gate_with_invalid_arguments_is_not_created(tmp_path, pepper):
    path = tmp_path / "api.gate"

    def create(**arguments):
        return Gate.create(path, pepper=pepper, **arguments)

    for arguments, message in [
        ({"keys": 0}, "keys is 0, and must be 1 to 67108864"),
        ({"keys": 67_108_865}, "keys is 67108865, and must be 1 to 67108864"),
        ({"plans": {}}, "0 plans .*; a gate has 1 to"),
        ({"plans": {"a": "1/minute", "b": "1/hour"}}, "share their sections"),
        ({"plans": {"A": "1/minute"}}, "is not a valid plan name"),
        ({"prefix": "KT"}, 'prefix is "KT", and must be'),
        ({"plans": {"default": "1/fortnight"}}, '"fortnight" is .*; the units are'),
        ({"plans": {"default": "1/minute;"}}, "nothing is after a semicolon"),
        ({"plans": {"default": "1/s; sliding team: 1/s"}}, '"team: sliding 5000/hour"'),
        ({"keys": -1}, "keys is -1, and must be 1 to 67108864"),
        ({"keys": 1 << 40}, "keys is 1099511627776, and must be 1 to 67108864"),
        ({"teams": -1}, "teams is -1, and must be 0 to 67108864"),
    ]:
        with pytest.raises(ValueError, match=message):
            create(**arguments)
    with pytest.raises(TypeError, match="policy must be a str, Sections or a Policy, not int"):
        create(plans={"default": 5})
    with pytest.raises(TypeError, match="keys must be a whole number, not str"):
        create(keys="8")
    assert not path.exists()
    create(keys=8)
    with pytest.raises(FileExistsError):
        create(keys=8)
    assert (path.stat().st_mode & 0o777) == 0o600


def test_file_that_is_not_a_gate_is_not_opened(tmp_path, pepper):
    path = tmp_path / "api.gate"
    with pytest.raises(FileNotFoundError) as caught:
        Gate.open(path, pepper=pepper)
    assert str(path) in str(caught.value)
    path.write_bytes(b"no gate")
    path.chmod(0o600)
    with pytest.raises(keytally.TableError, match="keytally table"):
        Gate.open(path, pepper=pepper)
    # The error does not repeat the content of the file, and the file does not change.
    for content in (pepper, "keytally" + pepper, "keytally\1\0\0\0" + pepper):
        for mode in (0o600, 0o644):
            path.write_text(content + pepper)
            path.chmod(mode)
            for open_it in (
                lambda: Gate.open(path, pepper=pepper),
                lambda: keytally.Limiter.open(path),
                lambda: keytally.Limiter.open_or_create(path, "5/minute", 8),
            ):
                with pytest.raises(keytally.TableError) as refused:
                    open_it()
                message = str(refused.value)
                assert message.startswith(f"{path}: this is ")
                assert message.endswith(" keytally table: it does not begin as one does")
    with pytest.raises(keytally.TableError, match="a directory"):
        Gate.open(tmp_path, pepper=pepper)
    keytally.Limiter.create(tmp_path / "limiter", "5/minute", 8)
    with pytest.raises(keytally.TableError, match="limiter"):
        Gate.open(tmp_path / "limiter", pepper=pepper)
    if os.getuid():
        path.chmod(0)
        with pytest.raises(PermissionError):
            Gate.open(path, pepper=pepper)


def test_full_gate_rejects_another_key(pepper):
    gate = Gate.in_memory(pepper=pepper, keys=1)
    gate.issue(1)
    with pytest.raises(keytally.GateFullError, match="the gate is full"):
        gate.issue(2)


def test_number_out_of_range_is_named(gate):
    for cost in (-1, 1 << 32):
        with pytest.raises(ValueError, match=f"cost is {cost}, and must be 0 to 4294967295"):
            gate.check(None, cost)
    with pytest.raises(TypeError, match="cost must be a whole number, not float"):
        gate.check(None, 1.5)
    with pytest.raises(ValueError, match="account is -1"):
        gate.issue(-1)
    with pytest.raises(ValueError, match='env is "Live"'):
        gate.issue(1, env="Live")


def test_verify_reports_damaged_record(tmp_path, pepper):
    path = tmp_path / "api.gate"
    gate = Gate.create(path, pepper=pepper, keys=8)
    key = gate.issue(42)
    assert gate.verify().flaws == ()
    # The plan number is the second byte of the last word of a record.
    raw = bytearray(path.read_bytes())
    record = next(at for at in range(4096, len(raw), 64) if any(raw[at : at + 8]))
    raw[record + 56 + 1] = 200
    path.write_bytes(raw)
    report = gate.verify()
    assert not report.completed
    found = [(flaw.key_id, flaw.kind) for flaw in report.flaws]
    assert found == [(key.key_id, "checksum"), (key.key_id, "no_plan")]
    assert "plan number 200" in str(report.flaws[1])
    assert "plan number 200" in repr(report)
    assert not gate.check(key.expose()).admitted


def test_raise_for_status_raises_exception_of_outcome(gate, now):
    key = gate.issue(42, now=now).expose()
    assert gate.check(key, now=now).raise_for_status() is None
    for verdict, kind in [
        (gate.check(None), keytally.MissingKeyError),
        (gate.check("x"), keytally.InvalidKeyError),
        (gate.check(key, 100, now=now), keytally.DeniedError),
        (gate.check(key, 101, now=now), keytally.TooCostlyError),
    ]:
        with pytest.raises(kind) as caught:
            verdict.raise_for_status()
        assert isinstance(caught.value, keytally.RefusedError)
        assert caught.value.verdict.outcome == verdict.outcome
        assert str(verdict.http_status) in str(caught.value)


def test_objects_are_immutable(gate):
    verdict = gate.check(None)
    for thing, name in [
        (gate, "path"),
        (verdict, "admitted"),
        (gate.issue(1), "key_id"),
        (gate.plans["default"], "quotas"),
    ]:
        with pytest.raises(AttributeError):
            setattr(thing, name, None)
        with pytest.raises(AttributeError):
            thing.anything = 1
