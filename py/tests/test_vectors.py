"""The vector files, which define the results for all languages."""

import json
import pickle
import shutil
from fractions import Fraction
from pathlib import Path

import pytest

from keytally import AddressPolicy, Charge, Gate, Limiter, Policy, PolicyError, Verdict
from tools import program

VECTORS = Path(__file__).parents[2] / "vectors"


def load(name):
    return json.loads((VECTORS / name).read_text())


def moment(ms):
    """Return milliseconds as exact seconds."""
    return Fraction(int(ms), 1000)


@pytest.mark.parametrize("case", load("policy.json")["valid"], ids=lambda case: case["text"])
def test_valid_policies_match_vectors(case):
    policy = Policy(case["text"])
    assert str(policy) == case["canonical"]
    assert policy.algorithm == case["algorithm"]
    assert [[quota.limit, quota.window] for quota in policy.quotas] == case["quotas"]
    assert (
        dict(Limiter.in_memory(policy, 1).check("a").headers)["RateLimit-Policy"] == case["header"]
    )


# A part of the message of each kind of error.
SENTENCES = {
    "empty": "at least one quota",
    "too_long": "is longer than",
    "syntax": "; a quota is LIMIT/UNIT",
    "limit": "; a limit is 1 to",
    "window": "; a window is 1 second to",
    "unit": "; the units are second",
    "too_many": "one quota too many",
    "duplicate": "the window of another quota",
    "sliding_month": "months differ in length",
    "too_many_bits": "the policy needs {} bits",
    "prefix": "does not limit addresses; up to 4 prefixes",
}


@pytest.mark.parametrize("case", load("policy.json")["invalid"], ids=lambda case: case["text"])
def test_invalid_policies_match_vectors(case):
    with pytest.raises(PolicyError) as caught:
        Policy(case["text"])
    assert SENTENCES[case["error"]].format(case.get("needed_bits")) in str(caught.value)


@pytest.mark.parametrize("case", load("charge.json")["valid"], ids=lambda case: case["bytes"][:32])
def test_charges_match_vectors(case):
    data, first = bytes.fromhex(case["bytes"]), case["tallies"][0]
    charge = Charge.from_bytes(data)
    assert charge.to_bytes() == data
    own = [tally["cost"] for tally in case["tallies"] if tally["unit"] == 0]
    assert (charge.cost, charge.at_ms) == ((own or [0])[0], int(first["at_ms"]))
    made = Charge(charge.cost, charge.at_ms)
    is_new = len(case["tallies"]) == 1 and (first["tally"], first["unit"]) == (0, 0)
    assert ((made == charge), made.to_bytes() == data) == (is_new, is_new)
    for protocol in range(6):
        assert pickle.loads(pickle.dumps(charge, protocol)) == charge


@pytest.mark.parametrize("case", load("charge.json")["invalid"], ids=lambda case: case["why"])
def test_invalid_charges_match_vectors(case):
    with pytest.raises(ValueError, match="pass the 128 bytes that to_bytes returned"):
        Charge.from_bytes(bytes.fromhex(case["bytes"]))


def sequences():
    """Return the sequences of operations that begin with an unused tally."""
    found, last = {}, None
    for step in load("decision.json")["sequences"]:
        if step["sequence"] != last:
            last = step["sequence"]
            found[last] = []
        found[last].append(step)
    return [steps for steps in found.values() if int(steps[0]["word"], 16) == 0]


@pytest.mark.parametrize("steps", sequences(), ids=lambda steps: steps[0]["sequence"])
def test_decisions_match_vectors(steps):
    limiter = Limiter.in_memory(steps[0]["policy"], 1)
    for step in steps:
        now = moment(step["now_ms"])
        op = step["op"]
        if op in ("check", "peek"):
            verdict = getattr(limiter, op)("a", step["cost"], now=now)
            assert verdict.outcome == step["outcome"], step
            assert [quota.remaining for quota in verdict.quotas] == step["remaining"], step
            assert [quota.reset_unix_s for quota in verdict.quotas] == [
                int(s) for s in step["reset_s"]
            ], step
            assert verdict.retry_after_s == step.get("retry_after_s"), step
        elif op == "reset":
            limiter.reset("a", now=now)
        else:
            charge = Charge(step["charged"], int(step["charged_at_ms"]))
            if op == "refund":
                limiter.refund("a", charge, now=now)
            else:
                verdict = limiter.settle("a", charge, step["actual"], now=now)
                assert verdict.uncharged == step["uncharged"], step


@pytest.fixture(scope="module")
def gates(tmp_path_factory):
    """Open the gates of verdict.json, which the vectors crate created."""
    made = program("gates")
    folder = tmp_path_factory.mktemp("gates")
    opened = {}
    for setup in load("verdict.json")["gates"]:
        name = setup["gate"]
        shutil.copy(made / name, folder / name)
        opened[name] = Gate.open(folder / name, pepper=setup["pepper"])
    return opened


def test_verdicts_match_vectors(gates):
    steps = load("verdict.json")["steps"]
    for step in steps:
        gate, now = gates[step["gate"]], moment(step["now_ms"])
        keys = step["api_keys"]
        if len(keys) > 1:
            verdict = Verdict.duplicate_header(now=now)
        else:
            verdict = getattr(gate, step["op"])(keys[0] if keys else None, step["cost"], now=now)
        assert verdict.outcome == step["outcome"], step
        assert verdict.reason == step.get("reason"), step
        assert verdict.http_status == step["status"], step
        quotas = [(q.limit, q.remaining, q.window, q.reset_unix_s) for q in verdict.quotas]
        expected = [
            (q["limit"], q["remaining"], q["window_s"], int(q["reset_s"])) for q in step["quotas"]
        ]
        assert quotas == expected, step
        if quotas:
            assert verdict.account == step["account"], step
            assert base62(verdict.key_id) == int(step["key_id"], 16), step
            within_a_day = [quota for quota in quotas if quota[2] <= 86_400]
            described = within_a_day[-1] if within_a_day else quotas[0]
            assert (verdict.limit, verdict.remaining, verdict.reset_unix_s) == (
                described[0],
                described[1],
                described[3],
            )
        assert verdict.retry_after_s == step.get("retry_after_s"), step
        assert verdict.clock_ahead_s == step.get("clock_ahead_s", 0), step
        lines = "".join(f"{name}: {value}\r\n" for name, value in verdict.headers)
        assert lines == step["headers"], step
        raw = b"".join(name + b": " + value + b"\r\n" for name, value in verdict.raw_headers)
        names_are_lower = [name == name.lower() for name, _ in verdict.raw_headers]
        assert (raw.lower(), all(names_are_lower)) == (lines.lower().encode(), True)
        assert verdict.body == step["body"].encode(), step
    assert {step["gate"] for step in steps} == set(gates)


def base62(text):
    """Return the number of a key id."""
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    number = 0
    for digit in text:
        number = number * 62 + digits.index(digit)
    return number


def test_valid_keys_match_vectors(pepper):
    for case in load("key.json")["valid"]:
        # A gate for each key, because some keys have the same key id.
        gate = Gate.in_memory(pepper=pepper, keys=8)
        assert gate.import_keys([case["text"]], 1) == [case["key_id_text"]]
        assert gate.check(case["text"]).admitted, case


def test_invalid_keys_match_vectors(pepper):
    gate = Gate.in_memory(pepper=pepper, keys=8)
    for case in load("key.json")["invalid"]:
        verdict = gate.check(case["text"])
        assert verdict.outcome == "invalid_key", case
        expected = {"form": {"malformed", "unknown"}, "checksum": {"checksum"}}[case["error"]]
        assert verdict.reason in expected, (case, verdict.reason)


@pytest.mark.parametrize("case", load("prefixes.json")["cases"], ids=lambda case: case["policy"])
def test_prefixes_match_vectors(case):
    limiter = Limiter.in_memory(case["policy"], capacity=64)
    assert str(limiter.policy) == case["canonical"]
    charges = []
    for step in case["steps"]:
        now = moment(step["now_ms"])
        if step["refunds"] is None:
            verdict = limiter.check(step["client"], step["cost"], now=now)
        else:
            verdict = limiter.refund(step["client"], charges[step["refunds"]], now=now)
        charges.append(verdict.charge)
        assert bool(verdict) == step["admitted"]
        assert step["tallies"] == [
            {
                "section": tally.section or "",
                "outcome": tally.verdict.outcome,
                "remaining": [quota.remaining for quota in tally.verdict.quotas],
                "reset_s": [quota.reset_unix_s for quota in tally.verdict.quotas],
            }
            for tally in verdict.tallies
        ]
        assert verdict.retry_after_s == step["retry_after_s"]


@pytest.mark.parametrize("case", load("prefixes.json")["invalid"], ids=lambda case: case["text"])
def test_invalid_policies_for_addresses_match_vectors(case):
    with pytest.raises(PolicyError) as caught:
        AddressPolicy(case["text"])
    # Another text is an error of this type's own.
    if case["text"].startswith("addresses:"):
        assert SENTENCES[case["error"]].split("{}")[0] in str(caught.value)


@pytest.mark.parametrize("case", load("sections.json")["cases"], ids=lambda case: case["plan"])
def test_sections_match_vectors(case):
    gate = Gate.in_memory(pepper="a" * 64, keys=64, plans={"default": case["plan"]}, teams=4)
    keys = [gate.issue(42 + key // 2, now=1).expose() for key in range(3)]
    for step in case["steps"]:
        costs = {
            group["name"]: group["cost"] for group in step["groups"] if group["cost"] is not None
        }
        verdict = gate.check(
            keys[step["key"]],
            step["cost"],
            groups=[group["name"] for group in step["groups"] if group["cost"] is None],
            costs=costs,
            now=moment(step["now_ms"]),
        )
        assert bool(verdict) == step["admitted"]
        # A key that its plan does not limit has a verdict without windows.
        counted = [tally for tally in verdict.tallies if tally.verdict.quotas]
        assert step["tallies"] == [
            {
                "section": tally.section,
                "outcome": tally.verdict.outcome,
                "remaining": [quota.remaining for quota in tally.verdict.quotas],
                "reset_s": [quota.reset_unix_s for quota in tally.verdict.quotas],
            }
            for tally in counted
        ]
        assert verdict.retry_after_s == step["retry_after_s"]
        assert step["crossed"] == [
            {
                "section": tally.section,
                "window": [it.name for it in tally.verdict.quotas].index(quota.name),
                "percent": percent,
            }
            for tally, quota, percent in verdict.crossed()
        ]
