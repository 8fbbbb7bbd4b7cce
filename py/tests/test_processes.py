"""Threads, forks and processes on one table: together they admit exactly the limit."""

import contextlib
import datetime
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

import migrations
from keytally import BusyError, Gate, Limiter, TableError, UnavailableError, check_all

LIMIT = 4000
WORKERS = 4


def spend(check):
    """Check until a request is denied, and return the number of admitted requests."""
    admitted = 0
    while check():
        admitted += 1
    return admitted


@pytest.fixture
def gate(tmp_path, pepper):
    return Gate.create(
        tmp_path / "api.gate", pepper=pepper, keys=64, plans={"default": f"{LIMIT}/31d"}
    )


@contextlib.contextmanager
def threads(count, work):
    """Run `work` in threads that start together, and yield the list of their results."""
    results = []
    barrier = threading.Barrier(count)

    def run():
        barrier.wait()
        results.append(work())

    started = [threading.Thread(target=run) for _ in range(count)]
    interval = sys.getswitchinterval()
    # Switch threads as often as possible.
    sys.setswitchinterval(1e-6)
    try:
        for thread in started:
            thread.start()
        yield results
        for thread in started:
            thread.join()
    finally:
        sys.setswitchinterval(interval)


def test_threads_admit_exactly_the_limit(gate, now):
    key = gate.issue(42).expose()
    with threads(8, lambda: spend(lambda: gate.check(key, now=now))) as admitted:
        pass
    assert (len(admitted), sum(admitted)) == (8, LIMIT)


def test_threads_at_new_subjects_admit_exactly_the_limit(now):
    limiter = Limiter.in_memory("7/31d", 10_000)
    subjects = [str(number) for number in range(300)]
    check_all = lambda: sum(limiter.check(subject, now=now).admitted for subject in subjects * 4)  # noqa: E731
    with threads(8, check_all) as admitted:
        pass
    assert sum(admitted) == 7 * len(subjects)


def test_threads_administer_while_others_check(gate, now):
    keys = []

    def administer():
        for account in range(8):
            old = gate.issue(account, now=now)
            keys.append((old.key_id, gate.rotate(old.key_id, grace=0, now=now).expose()))
        return True

    known = gate.issue(42, now=now).expose()
    with threads(4, administer) as done:
        while len(done) < 4:
            assert gate.check(known, 0, now=now).admitted
    assert done == [True] * 4
    assert len({key_id for key_id, _ in keys}) == 32
    assert all(gate.check(key, now=now).key_id == key_id for key_id, key in keys)
    assert gate.verify().flaws == ()


def in_children(count, work):
    """Fork children that start together, and return the results of `work`."""
    context = multiprocessing.get_context("fork")
    begin, results = context.Event(), context.SimpleQueue()

    def run():
        begin.wait()
        results.put(work())

    children = [context.Process(target=run) for _ in range(count)]
    for child in children:
        child.start()
    begin.set()
    found = [results.get() for _ in children]
    for child in children:
        child.join()
        assert child.exitcode == 0
    return found


@pytest.mark.parametrize("where", ["file", "memory"])
def test_forked_children_share_the_gate(gate, pepper, now, where):
    if where == "memory":
        gate = Gate.in_memory(pepper=pepper, keys=64, plans={"default": f"{LIMIT}/31d"})
    key = gate.issue(42, now=now)
    admitted = in_children(WORKERS, lambda: spend(lambda: gate.check(key.expose(), now=now)))
    assert sum(admitted) == LIMIT
    assert gate.peek(key.expose(), now=now).remaining == 0


def test_forked_children_share_the_limiter(now):
    limiter = Limiter.in_memory(f"{LIMIT}/31d", 100)
    admitted = in_children(WORKERS, lambda: spend(lambda: limiter.check("203.0.113.9", now=now)))
    assert sum(admitted) == LIMIT


@pytest.mark.parametrize("where", ["file", "memory"])
def test_change_by_forked_child_reaches_parent(gate, pepper, now, where):
    if where == "memory":
        gate = Gate.in_memory(pepper=pepper, keys=64)
    first = gate.issue(1, now=now)

    def administer():
        gate.revoke(first.key_id)
        return gate.issue(2, now=now).expose()

    [key] = in_children(1, administer)
    assert gate.check(first.expose(), now=now).reason == "revoked"
    assert gate.check(key, now=now).account == 2


def test_concurrent_open_or_create_shares_one_limiter(tmp_path, now):
    path = tmp_path / "addresses.limiter"

    def work():
        limiter = Limiter.open_or_create(path, "40/31d", 100)
        return spend(lambda: limiter.check("203.0.113.9", now=now))

    assert sum(in_children(8, work)) == 40


def open_and_spend(path, pepper, key, now, results):
    """Open the gate in a new process, and spend the key."""
    gate = Gate.open(path, pepper=pepper)
    results.put(spend(lambda: gate.check(key, now=now)))


def test_spawned_processes_admit_exactly_the_limit(gate, pepper, now):
    key = gate.issue(42, now=now).expose()
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    arguments = (str(gate.path), pepper, key, now, results)
    processes = [context.Process(target=open_and_spend, args=arguments) for _ in range(WORKERS)]
    for process in processes:
        process.start()
    assert sum(results.get() for _ in processes) == LIMIT
    for process in processes:
        process.join()


def test_killed_process_loses_no_count(gate, now):
    key = gate.issue(42, now=now).expose()
    reports, reporter = os.pipe()

    def work(until_it_is_killed):
        while until_it_is_killed or gate.peek(key, now=now):
            if gate.check(key, now=now):
                os.write(reporter, b"1")

    context = multiprocessing.get_context("fork")
    children = [context.Process(target=work, args=(child == 0,)) for child in range(WORKERS)]
    for child in children:
        child.start()
    os.close(reporter)
    admitted = len(os.read(reports, 100))
    os.kill(children[0].pid, signal.SIGKILL)
    while more := len(os.read(reports, 65536)):
        admitted += more
    for child in children:
        child.join()
    assert children[0].exitcode == -signal.SIGKILL
    # It may have been killed between a check and the report of it.
    assert admitted in (LIMIT - 1, LIMIT)
    assert gate.peek(key, now=now).remaining == 0
    assert gate.verify().flaws == ()


IMPORTS = """
import itertools, os, sys, threading, time, warnings
from keytally import Gate
gate = Gate.open(sys.argv[1], pepper=sys.argv[2])
keys = [f"customer-key-{number:06d}" for number in range(2000)]
importing = lambda: [gate.import_keys(keys, 7) for _ in range(100_000)]
"""


@contextlib.contextmanager
def program(gate, pepper, code):
    """Run IMPORTS and `code` in a child process, which is killed at the end of the block."""
    command = [sys.executable, "-W", "ignore", "-c", IMPORTS + code, str(gate.path), pepper]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def stop_while_it_administers(process, gate):
    """Stop the process by SIGSTOP while it holds the administrators' lock of the gate."""
    while True:
        process.send_signal(signal.SIGSTOP)
        while ") T " not in pathlib.Path(f"/proc/{process.pid}/stat").read_text():
            time.sleep(0.001)
        try:
            gate.verify(wait=0)
        except BusyError as busy:
            holder = busy.pid
            break
        process.send_signal(signal.SIGCONT)
        time.sleep(0.01)
    assert holder == process.pid


def big(tmp_path, pepper):
    """Create a gate that has room for the imported keys."""
    return Gate.create(tmp_path / "big.gate", pepper=pepper, keys=10_000)


def test_stopped_importer_is_named_and_delays_no_check(tmp_path, pepper):
    gate = big(tmp_path, pepper)
    key = gate.issue(42)
    with program(gate, pepper, "importing()") as importer:
        stop_while_it_administers(importer, gate)
        calls = [
            lambda: gate.issue(1, wait=0.02),
            lambda: gate.import_keys(
                ["customer-key-000001"], 7, wait=datetime.timedelta(milliseconds=20)
            ),
            lambda: gate.rotate(key.key_id, grace=0, wait=0.02),
            lambda: gate.revoke(key.key_id, wait=0.02),
            lambda: gate.assign(key.key_id, "default", wait=0.02),
            lambda: gate.set_plan("default", "1/minute, 2/hour", wait=0.02),
            lambda: gate.verify(wait=0.02),
        ]
        for call in calls:
            with pytest.raises(
                BusyError, match=rf"process {importer.pid} \(.*kill -CONT"
            ) as raised:
                call()
            assert raised.value.pid == importer.pid
            assert isinstance(raised.value, TimeoutError)
        with pytest.raises(TypeError, match="wait must be a timedelta or seconds, not str"):
            gate.revoke(key.key_id, wait="soon")
        for wrong in (-1, float("nan")):
            with pytest.raises(ValueError, match=f"wait is {wrong}, and must be a timedelta or"):
                gate.revoke(key.key_id, wait=wrong)
        # Other threads check while one waits. The wait ends when the importer continues.
        waiting = threading.Thread(target=gate.revoke, args=(key.key_id,))
        waiting.start()
        deadline = time.monotonic() + 0.2
        while time.monotonic() < deadline:
            assert gate.check(key.expose(), 0).admitted
        importer.send_signal(signal.SIGCONT)
        waiting.join()
        assert gate.check(key.expose()).reason == "revoked"


def test_revocation_during_import_succeeds(tmp_path, pepper):
    gate = big(tmp_path, pepper)
    key_ids = [gate.issue(42).key_id for _ in range(5)]
    with program(gate, pepper, "importing()"):
        for key_id in key_ids:
            gate.revoke(key_id, wait=5)


def test_killed_administrator_with_children_delays_no_call(tmp_path, pepper):
    gate = big(tmp_path, pepper)
    code = """
threading.Thread(target=importing, daemon=True).start()
for _ in range(30):
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
    time.sleep(0.003)
print("forked", flush=True)
time.sleep(60)
"""
    children = []
    with program(gate, pepper, code) as parent:
        while (line := parent.stdout.readline().strip()) != "forked":
            children.append(int(line))
        try:
            stop_while_it_administers(parent, gate)
            parent.kill()
            parent.wait()
            gate.issue(1, wait=5)
            assert gate.verify(wait=5).flaws == ()
        finally:
            for child in children:
                os.kill(child, signal.SIGKILL)


def test_ctrl_c_ends_wait_for_administrator(tmp_path, pepper):
    gate = big(tmp_path, pepper)
    # A shell ignores SIGINT in background jobs, so the handler is set explicitly.
    code = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
print("waiting", flush=True)
try:
    gate.issue(1, wait=3600)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    with program(gate, pepper, "importing()") as importer:
        stop_while_it_administers(importer, gate)
        with program(gate, pepper, code) as waiting:
            assert waiting.stdout.readline() == "waiting\n"
            time.sleep(0.1)
            waiting.send_signal(signal.SIGINT)
            assert waiting.communicate(timeout=10)[0] == "interrupted\n"


def test_replaced_file_is_opened_within_a_second_of_checks(tmp_path, pepper):
    gate = big(tmp_path, pepper)
    old = gate.issue(1)
    verdict = gate.check(old.expose())
    new_path = tmp_path / "new.gate"
    plans = {"other": "100/minute, 1000/hour"}
    new = Gate.create(new_path, pepper=pepper, keys=64, plans=plans).issue(2)
    new_path.rename(gate.path)
    deadline = time.monotonic() + 10
    while not gate.check(new.expose()).admitted and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (gate.check(new.expose()).account, gate.check(new.expose()).plan, gate.capacity) == (
        2,
        "other",
        64,
    )
    assert gate.check(old.expose()).reason in ("unknown", "wrong_secret")
    # A verdict has the names of the gate that returned it.
    assert verdict.plan == "default"
    assert (gate.reopened, gate.reopen_problem) == (1, None)


def test_migrated_gate_is_followed_at_once(tmp_path, pepper):
    plans = {"default": "100/31d; team: 500/31d"}
    gate = Gate.create(tmp_path / "api.gate", pepper=pepper, keys=64, plans=plans)
    key = gate.issue(42)
    part = gate.part(key.expose(), 2)
    addresses = Limiter.in_memory("9/31d")
    assert check_all(addresses.part("a"), part).admitted
    charge = gate.check(key.expose(), 5).charge
    plan = "default=100/31d, 90/second; team: 500/31d; group write: 5/second"
    migrations.migrate(gate.path, pepper, "--keys", 100, "--plan", plan)
    # The part was made with the old file.
    assert check_all(addresses.part("a"), part).admitted
    assert (gate.capacity, gate.reopened) == (128, 1)
    assert gate.check(key.expose(), groups=["write"]).admitted
    # The charge is from before other windows, so it is not refunded.
    gate.refund(key.key_id, charge)
    left = {quota.window: quota.remaining for quota in gate.key(key.key_id).quotas}
    assert left[31 * 86400] == 100 - 2 - 5 - 2 - 1
    gate.reset_account(42)
    assert gate.account(42).quotas[0].remaining == 500
    assert addresses.peek("a").remaining == 7


def test_checks_of_threads_follow_migrations(gate, pepper):
    key = gate.issue(1).expose()

    def check():
        verdict = gate.check(key)
        while verdict.outcome == "unavailable":
            verdict = gate.check(key)
        return verdict.admitted

    with threads(WORKERS, lambda: spend(check)) as admitted:
        for _ in range(3):
            migrations.migrate(gate.path, pepper)
    assert sum(admitted) == LIMIT


def test_key_whose_counts_have_moved_is_unavailable(gate, pepper):
    key = gate.issue(1)
    charge = gate.check(key.expose(), 3).charge
    left = migrations.left_behind(gate, pepper)
    begun = time.monotonic()
    verdict = left.check(key.expose())
    assert time.monotonic() - begun >= 0.05
    assert (verdict.outcome, verdict.http_status, verdict.retry_after_s) == ("unavailable", 503, 1)
    assert verdict.body == b'{"error": "Service unavailable. Please try again later."}'
    assert (verdict.account, verdict.key_id, verdict.charge) == (1, key.key_id, None)
    with pytest.raises(UnavailableError, match=r"unavailable \(503\); try again in 1 s"):
        verdict.raise_for_status()
    compound = check_all(left.part(key.expose()), Limiter.in_memory("5/minute").part("a"))
    assert (compound.outcome, compound.retry_after_s) == ("unavailable", 1)
    assert left.peek(key.expose()).outcome == "unavailable"
    assert left.reset(key.key_id).outcome == "unavailable"
    assert left.refund(key.key_id, charge).outcome == "unavailable"
    assert gate.peek(key.expose()).remaining == LIMIT - 3


def test_account_whose_counts_have_moved_is_not_reset(tmp_path, pepper):
    plans = {"default": "100/31d; team: 500/31d"}
    gate = Gate.create(tmp_path / "api.gate", pepper=pepper, keys=64, plans=plans)
    gate.check(gate.issue(42).expose(), 3)
    left = migrations.left_behind(gate, pepper)
    with pytest.raises(BusyError, match="are being moved; try again"):
        left.reset_account(42)
    assert gate.account(42).quotas[0].remaining == 497


def test_invalid_replacement_keeps_the_old_gate(tmp_path, pepper):
    gate = big(tmp_path, pepper)
    key = gate.issue(1)
    (tmp_path / "junk").write_text("no gate")
    (tmp_path / "junk").chmod(0o600)
    (tmp_path / "junk").rename(gate.path)
    with pytest.raises(TableError, match="not a keytally table"):
        gate.reopen()
    with pytest.raises(TableError, match="not a keytally table"):
        gate.revoke(key.key_id)
    assert gate.check(key.expose()).admitted
    assert (gate.reopened, "not a keytally table" in gate.reopen_problem) == (0, True)
