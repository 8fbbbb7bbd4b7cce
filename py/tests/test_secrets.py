"""No exception shows a key or a pepper that was passed as the wrong argument."""

import asyncio
import functools
import inspect
import os
import signal
import threading
import traceback

import pytest

import keytally
from keytally import (
    Charge,
    Gate,
    Limiter,
    Policy,
    Sections,
    Verdict,
    _addresses,
    _calls,
    _exempt,
    exceptions,
)

SECRETS = [
    "kt_live_0Gq5Xk2LmPz7Hc1nT9vYbR4sWdEfUaJoQi83ZKM",
    "sk_live_51H8Tq3JxWm9Zc7Va2NbXrYp",
    "an-old-key-of-customer-42",
    "8a4fd2730c15be96e7a0c3512d48f96b7e0d5ad6b7c1f2a94c539d3e2b1ff0a5",
    "q/7Zk2Pz+Hc1nT9vYb/4sWdEfUaJoQi83ZKMx0Gq5Xk=",
]
PEPPER = "5f" * 32
PLANS = {"default": "5/minute"}
KEY_ID = "00000000001"


def wrapped(secret):
    """Yield a secret as a value of each type that an argument may have."""
    yield secret
    yield secret.encode()
    yield [secret]
    yield {secret: "1/s"}
    yield {"default": secret}
    yield {"default": f"1/{secret}"}
    yield f"1/{secret}"
    yield f"1/s, {secret}"
    yield f"1/s; group {secret}: 1/s"
    yield f"1/s; team: {secret}"
    yield f"1/s warn {secret}"
    yield {secret: 1}


def shown(error):
    """Return the traceback and the representation of an exception, with its causes."""
    return "".join(traceback.format_exception(type(error), error, error.__traceback__)) + repr(
        error
    )


def hides(error, secret):
    """Fail if an exception shows twelve characters of a secret."""
    text = shown(error)
    hidden = secret.replace("kt_live_", "").replace("sk_live_", "")
    parts = [hidden[at : at + 12] for at in range(len(hidden) - 11)]
    assert not [part for part in parts if part in text], text


def raises(function, arguments, secret):
    """Return whether a call raises an exception, which must hide the secret."""
    try:
        function(**arguments)
    except Exception as error:
        hides(error, secret)
        return True
    return False


def awaited(function):
    """Return an async function as a plain one."""

    @functools.wraps(function)
    def run(*args, **kwargs):
        return asyncio.run(function(*args, **kwargs))

    return run


def calls(gate, path):
    """Yield every function with valid arguments."""
    charge = Charge(1, 1)
    holder = {"account": 1, "env": "live", "plan": "default", "expires": None, "now": 1.0}
    holder["scopes"] = []
    table = {"pepper": PEPPER, "pepper_file": None, "keys": 8, "plans": PLANS, "prefix": "kt"}
    table = {**table, "teams": 1, "scopes": ["read"], "described": "minute"}
    limit = {"policy": "5/minute", "capacity": 8, "on_full": "share"}
    limiter = Limiter.in_memory("5/minute", 8)
    yield Gate.create, {"path": path / "new.gate", **table}
    opened = {"pepper": PEPPER, "pepper_file": None, "credit_wait": 1}
    yield Gate.open, {"path": path / "api.gate", **opened}
    yield Gate.in_memory, table
    request = {"api_key": "x", "cost": 1, "groups": (), "costs": {}, "need": ()}
    for check in (gate.check, awaited(gate.acheck), gate.try_check, gate.check_without_wait):
        yield check, {**request, "now": 1.0}
    yield gate.peek, {**request, "now": 1.0}
    yield gate.part, request
    yield gate.refund, {"key_id": KEY_ID, "charge": charge, "now": 1.0}
    actual = {"actual": 1, "costs": {}, "overdraw": False, "now": 1.0}
    yield gate.settle, {"key_id": KEY_ID, "estimate": charge, **actual}
    yield gate.reset, {"key_id": KEY_ID, "now": 1.0}
    yield gate.issue, holder
    yield gate.import_keys, {"keys": ["a-key-of-customer"], **holder}
    yield gate.rotate, {"key_id": KEY_ID, "grace": 1, "force": False, "now": 1.0}
    yield gate.revoke, {"key_id": KEY_ID, "wait": 1}
    yield gate.expire, {"key_id": KEY_ID, "expires": None, "now": 1.0, "wait": 1}
    yield gate.end_grace, {"key_id": KEY_ID, "wait": 1}
    yield gate.set_usage, {"is_counted": True, "wait": 1}
    yield gate.set_fleet, {"is_in_fleet": False, "wait": 1}
    yield gate.key_usage, {"key_id": KEY_ID}
    yield gate.assign, {"key_id": KEY_ID, "plan": "default"}
    yield gate.set_plan, {"name": "pro", "policy": "5/minute"}
    yield gate.set_scopes, {"key_id": KEY_ID, "scopes": ["read"], "wait": 1}
    yield gate.account, {"account": 1, "now": 1.0}
    yield gate.accounts, {"now": 1.0}
    yield gate.suspend, {"account": 1, "wait": 1}
    yield gate.resume, {"account": 1, "wait": 1}
    yield gate.assign_account, {"account": 1, "plan": "default"}
    yield gate.limit_account, {"account": 1, "limits": "5/minute"}
    yield gate.reset_account, {"account": 1, "now": 1.0}
    yield gate.list, {"now": 1.0}
    yield gate.key, {"key_id": KEY_ID, "now": 1.0}
    yield gate.verify, {"now": 1.0}
    yield gate.correct_clock, {"now": 1.0}
    yield gate.reopen, {}
    yield Gate, limit
    yield Limiter, limit
    yield Limiter.in_memory, limit
    yield Limiter.create, {"path": path / "new.limiter", **limit}
    yield Limiter.open, {"path": path / "limiter", "credit_wait": 1}
    yield Limiter.open_or_create, {"path": path / "limiter", **limit, "credit_wait": 1}
    checks = (limiter.check, limiter.try_check, limiter.check_without_wait)
    for check in (*checks, awaited(limiter.acheck)):
        yield check, {"subject": "x", "cost": 1, "now": 1.0}
    yield limiter.set_fleet, {"is_in_fleet": False}
    yield limiter.peek, {"subject": "x", "cost": 1, "now": 1.0}
    yield limiter.part, {"subject": "x", "cost": 1}
    yield limiter.refund, {"subject": "x", "charge": charge, "now": 1.0}
    settle = {"subject": "x", "estimate": charge, "actual": 1, "overdraw": False, "now": 1.0}
    yield limiter.settle, settle
    yield limiter.reset, {"subject": "x", "now": 1.0}
    yield limiter.reset_all, {"now": 1.0}
    yield limiter.correct_clock, {"now": 1.0}
    yield limiter.live_subjects, {"now": 1.0}
    yield limiter.set_on_full, {"on_full": "share"}
    yield Policy, {"text": "5/minute"}
    yield Sections, {"text": "5/minute; team: 9/hour"}
    yield Sections("5/minute").named, {"name": "team"}
    yield Charge, {"cost": 1, "at_ms": 1}
    yield Charge.from_bytes, {"data": charge.to_bytes()}
    yield Verdict.duplicate_header, {"now": 1.0}
    yield _exempt.exemption, {"paths": ["/health"]}
    yield _calls.checked_cost, {"cost": 1}
    yield _addresses.checked_prefix, {"ipv6_prefix": 64}
    yield exceptions.RefusedError, {"verdict": limiter.check("x")}


@pytest.mark.parametrize("secret", SECRETS)
def test_secret_argument_is_not_repeated(secret, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gate = Gate.create(tmp_path / "api.gate", pepper=PEPPER, keys=64, plans=PLANS)
    raised = 0
    for function, valid in calls(gate, tmp_path):
        for name in valid:
            # A path of common words is not redacted.
            values = [secret] if name in ("path", "pepper_file", "paths") else wrapped(secret)
            for value in values:
                raised += raises(function, {**valid, name: value}, secret)
    # Most wrong arguments raise an exception, so the exceptions of many were searched.
    assert raised > 250


def test_table_of_calls_is_complete(gate, tmp_path):
    listed = {
        getattr(function, "__qualname__", repr(function)) for function, _ in calls(gate, tmp_path)
    }
    public = {
        f"{kind.__name__}.{name}"
        for kind in (Gate, Limiter)
        for name, member in vars(kind).items()
        if not name.startswith("_")
        and callable(getattr(kind, name))
        and not inspect.isdatadescriptor(member)
    }
    assert public - listed == set()


def test_secret_in_environment_is_not_repeated(monkeypatch, tmp_path):
    for secret in SECRETS:
        for variable in ("KEYTALLY_PEPPER_FILE", "KEYTALLY_PEPPER"):
            with monkeypatch.context() as context:
                context.setenv(variable, secret)
                with pytest.raises((keytally.KeytallyError, OSError)) as raised:
                    Gate.open(tmp_path / "api.gate")
            hides(raised.value, secret)


def test_public_value_is_repeated():
    with pytest.raises(keytally.CreateError, match='env is "Live", and must be 1 to 8'):
        Gate.in_memory(pepper=PEPPER, keys=1).issue(1, env="Live")
    with pytest.raises(ValueError, match="cost is -1, and must be 0 to"):
        Limiter.in_memory("5/minute", 8).check("x", -1)
    with pytest.raises(ValueError, match="'health' cannot be exempt"):
        _exempt.exemption(["health"])


def test_pepper_file_can_be_a_pipe_of_another_thread(tmp_path):
    path = tmp_path / "pepper"
    os.mkfifo(path, 0o600)
    writer = threading.Thread(target=path.write_text, args=(PEPPER,), daemon=True)
    writer.start()
    Gate.in_memory(pepper_file=path, keys=1)
    writer.join()


def test_ctrl_c_ends_wait_for_pepper_pipe(tmp_path):
    path = tmp_path / "pepper"
    os.mkfifo(path, 0o600)
    # A shell ignores SIGINT in background jobs, so the handler is set explicitly.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            Gate.in_memory(pepper_file=path, keys=1)
    finally:
        signal.signal(signal.SIGINT, before)
    # Ends the reader thread, which still waits for the pipe.
    path.write_text(PEPPER)
