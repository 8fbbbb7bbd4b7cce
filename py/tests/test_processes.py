"""Threads, forks and processes on one table: together they admit exactly the limit."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time

import pytest

from keytally import Gate, Limiter

LIMIT = 4000
WORKERS = 4


def spend(check):
    """Check until one is denied, and return how many were admitted."""
    admitted = 0
    while check():
        admitted += 1
    return admitted


@pytest.fixture
def gate(tmp_path, pepper):
    return Gate.create(tmp_path / "api.gate", pepper=pepper, keys=64, plans={"default": f"{LIMIT}/31d"})


@contextlib.contextmanager
def threads(count, work):
    """Run `work` in threads that begin together, and yield where their results are once the block is left."""
    results = []
    barrier = threading.Barrier(count)

    def run():
        barrier.wait()
        results.append(work())

    started = [threading.Thread(target=run) for _ in range(count)]
    interval = sys.getswitchinterval()
    # As many changes of threads as there can be.
    sys.setswitchinterval(1e-6)
    try:
        for thread in started:
            thread.start()
        yield results
        for thread in started:
            thread.join()
    finally:
        sys.setswitchinterval(interval)


def test_threads_share_one_quota(gate, now):
    key = gate.issue(42).expose()
    with threads(8, lambda: spend(lambda: gate.check(key, now=now))) as admitted:
        pass
    assert (len(admitted), sum(admitted)) == (8, LIMIT)


def test_threads_that_meet_at_new_subjects_share_their_quotas(now):
    limiter = Limiter("7/31d", 10_000)
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
    """Fork children that begin together, and return what `work` returned in each."""
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
def test_children_share_the_gate_of_their_parent(gate, pepper, now, where):
    if where == "memory":
        gate = Gate.in_memory(pepper=pepper, keys=64, plans={"default": f"{LIMIT}/31d"})
    key = gate.issue(42, now=now)
    admitted = in_children(WORKERS, lambda: spend(lambda: gate.check(key.expose(), now=now)))
    assert sum(admitted) == LIMIT
    assert gate.peek(key.expose(), now=now).remaining == 0


def test_children_share_the_limiter_of_their_parent(now):
    limiter = Limiter(f"{LIMIT}/31d", 100)
    admitted = in_children(WORKERS, lambda: spend(lambda: limiter.check("203.0.113.9", now=now)))
    assert sum(admitted) == LIMIT


@pytest.mark.parametrize("where", ["file", "memory"])
def test_what_a_child_changes_its_parent_sees(gate, pepper, now, where):
    if where == "memory":
        gate = Gate.in_memory(pepper=pepper, keys=64)
    first = gate.issue(1, now=now)

    def administer():
        gate.revoke(first.key_id)
        return gate.issue(2, now=now).expose()

    [key] = in_children(1, administer)
    assert gate.check(first.expose(), now=now).reason == "revoked"
    assert gate.check(key, now=now).account == 2


def test_of_several_that_open_or_create_all_have_the_same(tmp_path, now):
    path = tmp_path / "addresses.limiter"

    def work():
        limiter = Limiter.open_or_create(path, "40/31d", 100)
        return spend(lambda: limiter.check("203.0.113.9", now=now))

    assert sum(in_children(8, work)) == 40


def spawned(path, pepper, key, now, results):
    gate = Gate.open(path, pepper=pepper)
    results.put(spend(lambda: gate.check(key, now=now)))


def test_processes_that_open_the_file_share_its_quotas(gate, pepper, now):
    key = gate.issue(42, now=now).expose()
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    arguments = (str(gate.path), pepper, key, now, results)
    processes = [context.Process(target=spawned, args=arguments) for _ in range(WORKERS)]
    for process in processes:
        process.start()
    assert sum(results.get() for _ in processes) == LIMIT
    for process in processes:
        process.join()


def test_a_killed_process_loses_no_count(gate, now):
    key = gate.issue(42, now=now).expose()
    told, tell = os.pipe()

    def work(until_it_is_killed):
        while until_it_is_killed or gate.peek(key, now=now):
            if gate.check(key, now=now):
                os.write(tell, b"1")

    context = multiprocessing.get_context("fork")
    children = [context.Process(target=work, args=(child == 0,)) for child in range(WORKERS)]
    for child in children:
        child.start()
    os.close(tell)
    admitted = len(os.read(told, 100))
    os.kill(children[0].pid, signal.SIGKILL)
    while more := len(os.read(told, 65536)):
        admitted += more
    for child in children:
        child.join()
    assert children[0].exitcode == -signal.SIGKILL
    # It may have been killed between the check and telling of it.
    assert admitted in (LIMIT - 1, LIMIT)
    assert gate.peek(key, now=now).remaining == 0
    assert gate.verify().flaws == ()


def test_other_threads_run_while_one_waits_for_the_lock(gate, now):
    """Another process holds the lock of the file: who waits for it must not hold up checks."""
    import fcntl

    key = gate.issue(42, now=now)
    with open(gate.path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting = threading.Thread(target=gate.revoke, args=(key.key_id,))
        waiting.start()
        deadline = time.monotonic() + 0.2
        while time.monotonic() < deadline:
            assert gate.check(key.expose(), 0, now=now).admitted
        fcntl.flock(file, fcntl.LOCK_UN)
    waiting.join()
    assert gate.check(key.expose(), now=now).reason == "revoked"
