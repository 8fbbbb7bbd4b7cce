//! Several processes and threads on one file: together they admit exactly the limit, the next check
//! anywhere sees a change, and a killed process affects no other.
//!
//! A worker is this test program again, in a process of its own: see `worker`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use core::time::Duration;
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Stdio};
use std::sync::Barrier;
use std::thread;

use keytally::{
    AdminError, Error, Gate, GateConfig, Key, KeyId, KeyState, Limiter, Outcome, Timestamp, Wait,
    entropy,
};
#[cfg(unix)]
use rustix::fs::{FlockOperation, flock};
#[cfg(target_os = "linux")]
use rustix::process::{PidfdFlags, PidfdGetfdFlags, Signal, kill_process, pidfd_getfd, pidfd_open};

use crate::support::worker::{Worker, folder, report, role, wait_for_kill};
use crate::support::{NOW, entries, may_be_left, new_key, peppers, plan};
#[cfg(target_os = "linux")]
use crate::support::{worker::copy_of_this_program, write_at};

const PROCESSES: usize = 4;
const THREADS: usize = 2;

fn config(keys: u32, policy: &str) -> GateConfig {
    GateConfig::default().with_keys(keys).with_plans(vec![plan("default", policy)])
}

/// Returns whether the gate admits a request with `key`.
fn check(gate: &Gate, key: &str) -> bool {
    gate.table().check(Some(key.as_bytes()), 1, NOW).is_admitted()
}

// What the workers do.

/// Performs the role of a worker. Does nothing unless this process is a worker.
#[test]
fn worker() {
    let Some(words) = role() else { return };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["check", path, keys] => check_all(path, keys),
        ["insert", path, subjects, step] => insert_all(path, subjects, step),
        ["serve", path] => serve(path),
        ["spend", path, key] => spend_until_denied(path, key),
        ["fill", path] => insert_until_killed(path),
        ["change", path] => change_until_full(path),
        ["create", folder] => create_until_killed(folder),
        ["hold", path] => hold(path),
        ["import", path] => import_for_long(path),
        ["wait", path] => wait_too_long(path),
        _ => panic!("no such role: {words:?}"),
    }
}

/// Waits for a line from the parent. Returns `None` at the end of the input.
fn next_line() -> Option<String> {
    let mut line = String::new();
    let len = std::io::stdin().read_line(&mut line).unwrap();
    (len > 0).then(|| line.trim().to_owned())
}

/// Adds the counts of the threads, and returns the sums as text.
fn sums(threads: Vec<Vec<u32>>) -> String {
    let mut sums = vec![0; threads[0].len()];
    for counts in threads {
        sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    sums.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// Charges all keys in turn until each is denied.
fn check_all(path: &str, keys: &str) {
    let gate = Gate::open(path, peppers()).unwrap();
    let keys: Vec<&str> = keys.split(',').collect();
    report("ready");
    next_line();
    let spend = || {
        let mut admitted = vec![0; keys.len()];
        loop {
            let mut all_denied = true;
            for (key, count) in keys.iter().zip(&mut admitted) {
                if check(&gate, key) {
                    *count += 1;
                    all_denied = false;
                }
            }
            if all_denied {
                return admitted;
            }
        }
    };
    let counts = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(spend)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    report(sums(counts));
}

/// Charges each subject until it is denied. The next subject is `step` further, modulo the number
/// of subjects.
fn insert_all(path: &str, subjects: &str, step: &str) {
    let limiter = Limiter::open(path).unwrap();
    let (subjects, step): (u32, u32) = (subjects.parse().unwrap(), step.parse().unwrap());
    report("ready");
    next_line();
    let spend = || {
        let mut admitted = vec![0; subjects as usize];
        for number in 0..subjects {
            let subject = u64::from(number) * u64::from(step) % u64::from(subjects);
            loop {
                let verdict = limiter.table().check(&subject.to_le_bytes(), 1, NOW);
                match verdict.outcome() {
                    Outcome::Admitted => admitted[usize::try_from(subject).unwrap()] += 1,
                    Outcome::Denied => break,
                    other => panic!("{other}"),
                }
            }
        }
        admitted
    };
    let counts = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(spend)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    report(sums(counts));
}

/// Executes the requests that the parent sends, a line each.
fn serve(path: &str) {
    let gate = Gate::open(path, peppers()).unwrap();
    while let Some(line) = next_line() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["check", key] => report(gate.table().check(Some(key.as_bytes()), 1, NOW).outcome()),
            ["revoke", id] => report(format!("{:?}", gate.revoke(id.parse().unwrap()))),
            ["rotate", id] => {
                // Each rotation ends the grace of the one before.
                report(
                    gate.rotate(id.parse().unwrap(), Duration::from_secs(60), true)
                        .unwrap()
                        .expose(),
                );
            }
            ["assign", id, plan] => report(format!("{:?}", gate.assign(id.parse().unwrap(), plan))),
            _ => panic!("{line}"),
        }
    }
}

/// Charges the key until it is denied, and reports every admitted request.
fn spend_until_denied(path: &str, key: &str) {
    let gate = Gate::open(path, peppers()).unwrap();
    while check(&gate, key) {
        report("admitted");
    }
}

/// Inserts subjects until it is killed, and reports each. The parent sends the number of the first
/// one.
fn insert_until_killed(path: &str) {
    let limiter = Limiter::open(path).unwrap();
    let first: u64 = next_line().unwrap().parse().unwrap();
    for subject in first.. {
        assert!(limiter.table().check(&subject.to_le_bytes(), 1, NOW).is_admitted());
        report(subject);
    }
}

/// Issues and rotates keys until the gate is full, and reports every key.
fn change_until_full(path: &str) {
    let gate = Gate::open(path, peppers()).unwrap();
    report("ready");
    loop {
        match gate.issue(&new_key()) {
            Ok((key, id)) => {
                report(format!("{} {id}", key.expose()));
                let rotated = gate.rotate(id, Duration::from_secs(3600), false).unwrap();
                report(format!("{} {id}", rotated.expose()));
            }
            Err(Error::Admin { source: AdminError::Full { .. }, .. }) => return report("full"),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Creates gates in a folder.
fn create_until_killed(folder: &str) {
    report("ready");
    for number in 0.. {
        let path = Path::new(folder).join(format!("{}-{number}", std::process::id()));
        Gate::create(path, peppers(), &config(100, "1/minute")).unwrap();
    }
}

/// Administers until it is killed.
fn hold(path: &str) {
    let gate = Gate::open(path, peppers()).unwrap();
    let _ = gate.administer(|_| -> Result<(), AdminError> {
        report("holding");
        wait_for_kill();
    });
}

/// Imports keys for longer than the test takes, in batches of a thousand under one lock each.
fn import_for_long(path: &str) {
    let gate = Gate::open(path, peppers()).unwrap();
    // The texts of the keys are made first, so that there is almost no time between two batches.
    let keys: Vec<String> =
        (0..100_000).map(|number| format!("customer-key-{number:012}")).collect();
    let mut reported = false;
    let _ = gate.administer_each(
        Wait::default(),
        keys.iter().cycle().take(5_000_000),
        |administrator, key| {
            // The import continues although a full gate refuses keys.
            let _ = administrator.import(key.as_bytes(), &new_key(), NOW);
            if !reported {
                report("importing");
                reported = true;
            }
            Ok(())
        },
    );
}

/// Waits for a lock that it does not get, and reports the error.
fn wait_too_long(path: &str) {
    let gate = Gate::open(path, peppers()).unwrap();
    gate.set_wait(Duration::from_millis(200));
    report(gate.administer(|_| Ok(())).unwrap_err());
}

// What the parent does.

/// A worker that the parent can also send lines to.
struct Peer {
    worker: Worker,
    stdin: ChildStdin,
}

impl Peer {
    /// Starts a worker in this role, with `path` and `rest` as its arguments.
    fn start(role: &str, path: &Path, rest: &[&str]) -> Self {
        let mut command = Worker::command(&[&[role, path.to_str().unwrap()], rest].concat());
        command.stdin(Stdio::piped());
        let mut worker = Worker::start(command);
        let stdin = worker.child.stdin.take().unwrap();
        Self { worker, stdin }
    }

    fn send(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").and_then(|()| self.stdin.flush()).unwrap();
    }

    fn next_report(&mut self) -> String {
        self.worker.next_report().expect("the worker has ended")
    }

    /// Sends a line, and returns the report that follows.
    fn request(&mut self, line: &str) -> String {
        self.send(line);
        self.next_report()
    }

    /// Kills the worker, and returns what it had reported and the parent had not yet read.
    fn kill(mut self) -> Vec<String> {
        self.worker.kill();
        core::iter::from_fn(|| self.worker.next_report()).collect()
    }

    #[cfg(target_os = "linux")]
    fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.worker.child)
    }

    /// Closes the worker's input, and waits until it has ended.
    fn end(mut self) {
        drop(self.stdin);
        assert!(self.worker.child.wait().unwrap().success());
    }
}

/// Lets all workers begin at the same time, and returns the sums of the counts that they report.
fn run_together(mut workers: Vec<Peer>) -> Vec<u32> {
    for worker in &mut workers {
        assert_eq!(worker.next_report(), "ready");
    }
    for worker in &mut workers {
        worker.send("go");
    }
    let counts: Vec<Vec<u32>> = workers
        .iter_mut()
        .map(|worker| worker.next_report().split(',').map(|count| count.parse().unwrap()).collect())
        .collect();
    workers.into_iter().for_each(Peer::end);
    (0..counts[0].len()).map(|index| counts.iter().map(|counts| counts[index]).sum()).collect()
}

fn issue(gate: &Gate) -> (Key, KeyId) {
    gate.administer(|administrator| administrator.issue(&new_key(), entropy().unwrap(), NOW))
        .unwrap()
}

#[test]
fn one_key_admits_its_limit_over_all_processes() {
    let folder = folder();
    let path = folder.path().join("api.gate");
    let gate = Gate::create(&path, peppers(), &config(10, "200000/minute, 250000/hour")).unwrap();
    let (key, _) = issue(&gate);
    let workers = (0..PROCESSES).map(|_| Peer::start("check", &path, &[key.expose()])).collect();
    assert_eq!(run_together(workers), [200_000]);
    // In the next minute, the rest of the hour's limit is left.
    let next = Timestamp::from_unix_s(NOW.unix_s() + 60);
    let verdict = gate.table().peek(Some(key.expose().as_bytes()), 1, next);
    assert_eq!(
        verdict.quotas().iter().map(|quota| quota.remaining).collect::<Vec<_>>(),
        [200_000, 50_000]
    );
}

#[test]
fn many_keys_each_admit_their_limit_over_all_processes() {
    let folder = folder();
    let path = folder.path().join("api.gate");
    let gate = Gate::create(&path, peppers(), &config(200, "sliding 500/minute")).unwrap();
    let keys: Vec<Key> = (0..200).map(|_| issue(&gate).0).collect();
    let list = keys.iter().map(Key::expose).collect::<Vec<_>>().join(",");
    let workers = (0..PROCESSES).map(|_| Peer::start("check", &path, &[&list])).collect();
    assert_eq!(run_together(workers), [500; 200]);
}

#[test]
fn one_subject_admits_its_limit_over_all_processes() {
    let folder = folder();
    let path = folder.path().join("limiter");
    Limiter::create(&path, &"200000/minute".parse().unwrap(), 10).unwrap();
    let workers = (0..PROCESSES).map(|_| Peer::start("insert", &path, &["1", "1"])).collect();
    assert_eq!(run_together(workers), [200_000]);
}

/// All workers insert the same subjects: first in one order, then in three different orders. No
/// subject may get two slots.
#[test]
fn new_subjects_of_many_inserters_get_one_slot_each() {
    const SUBJECTS: u32 = 15_000;
    // A step of 14999 of 15000 subjects is the opposite direction.
    for steps in [["1"; PROCESSES], ["1", "7", "14999", "1"]] {
        let folder = folder();
        let path = folder.path().join("limiter");
        let limiter = Limiter::create(&path, &"3/minute".parse().unwrap(), 20_000).unwrap();
        let subjects = SUBJECTS.to_string();
        let workers = steps.map(|step| Peer::start("insert", &path, &[&subjects, step])).into();
        assert_eq!(run_together(workers), [3; SUBJECTS as usize]);
        assert_eq!(limiter.table().live_subjects(NOW), u64::from(SUBJECTS));
    }
}

#[test]
fn change_is_seen_by_the_next_check_of_every_process() {
    let folder = folder();
    let path = folder.path().join("api.gate");
    let gate = Gate::create(&path, peppers(), &config(100, "1000/minute")).unwrap();
    let (mut one, mut other) = (Peer::start("serve", &path, &[]), Peer::start("serve", &path, &[]));
    for _ in 0..50 {
        let (key, id) = issue(&gate);
        assert_eq!(one.request(&format!("check {}", key.expose())), "admitted");
        assert_eq!(other.request(&format!("revoke {id}")), "Ok(())");
        assert_eq!(one.request(&format!("check {}", key.expose())), "invalid_key");
        assert!(!check(&gate, key.expose()));
    }
    one.end();
    other.end();
}

#[test]
fn rotation_in_another_process_keeps_one_quota() {
    let folder = folder();
    let path = folder.path().join("api.gate");
    let gate = Gate::create(&path, peppers(), &config(10, "100/hour")).unwrap();
    let (old, id) = issue(&gate);
    let mut worker = Peer::start("serve", &path, &[]);
    let spend = |key: &str| (0..60).filter(|_| check(&gate, key)).count();
    assert_eq!(spend(old.expose()), 60);
    let new = worker.request(&format!("rotate {id}"));
    assert_eq!(spend(&new), 40);
    assert_eq!(spend(old.expose()), 0);
    worker.end();
}

/// Threads spend while another process rotates the key repeatedly: all secrets share one tally.
#[test]
fn rotation_during_checks_loses_and_gains_no_count() {
    let folder = folder();
    let path = folder.path().join("api.gate");
    let gate = Gate::create(&path, peppers(), &config(10, "100000/hour")).unwrap();
    let (key, id) = issue(&gate);
    let mut worker = Peer::start("serve", &path, &[]);
    let spent = thread::scope(|scope| {
        let mut key = key.expose().to_owned();
        let mut spent = 0;
        for _ in 0..200 {
            // The secret in use stays valid during the rotation, and in the grace after it.
            let spender = scope.spawn({
                let (gate, key) = (&gate, key.clone());
                move || (0..300).filter(|_| check(gate, &key)).count()
            });
            key = worker.request(&format!("rotate {id}"));
            spent += spender.join().unwrap();
        }
        spent
    });
    assert_eq!(spent, 200 * 300);
    assert_eq!(
        gate.table().key(id, NOW).unwrap().quotas.longest().unwrap().remaining,
        100_000 - 200 * 300
    );
    worker.end();
}

#[test]
fn killed_process_loses_no_count() {
    let folder = folder();
    let path = folder.path().join("api.gate");
    let gate = Gate::create(&path, peppers(), &config(10, "50000000/hour")).unwrap();
    let (key, id) = issue(&gate);
    let mut acknowledged = 0;
    for kill in 1..=20 {
        let mut worker = Peer::start("spend", &path, &[key.expose()]);
        for _ in 0..kill * 50 {
            worker.next_report();
            acknowledged += 1;
        }
        acknowledged += worker.kill().len();
        let counted = 50_000_000
            - gate.table().key(id, NOW).unwrap().quotas.longest().unwrap().remaining as usize;
        assert!(
            (acknowledged..=acknowledged + kill).contains(&counted),
            "{acknowledged} {counted} {kill}"
        );
    }
    assert!(check(&gate, key.expose()));
}

#[test]
fn killed_inserter_loses_no_subject_and_blocks_no_bucket() {
    let folder = folder();
    let path = folder.path().join("limiter");
    let limiter = Limiter::create(&path, &"1/hour".parse().unwrap(), 1_000_000).unwrap();
    let mut first = 0;
    for kill in 0..20 {
        let mut worker = Peer::start("fill", &path, &[]);
        worker.send(&first.to_string());
        let mut reports: Vec<String> = (0..kill * 20).map(|_| worker.next_report()).collect();
        reports.extend(worker.kill());
        if let Some(last) = reports.last() {
            let last: u64 = last.parse().unwrap();
            for subject in first..=last {
                let verdict = limiter.table().peek(&subject.to_le_bytes(), 1, NOW);
                assert_eq!(verdict.outcome(), Outcome::Denied, "{subject}");
            }
            first = last + 1;
        }
        // One insertion may be in flight.
        let live = limiter.table().live_subjects(NOW);
        assert!((first..=first + 1).contains(&live), "{first} {live}");
        // Other inserters can use the bucket that the killed worker had locked.
        limiter.table().check(&first.to_le_bytes(), 1, NOW);
        first += 1;
        assert_eq!(limiter.table().live_subjects(NOW), first);
    }
}

#[test]
fn killed_administrator_leaves_keys_valid_and_the_lock_free() {
    let folder = folder();
    let path = folder.path().join("api.gate");
    let gate = Gate::create(&path, peppers(), &config(20_000, "10/minute")).unwrap();
    let mut current = HashMap::new();
    for kill in 0..30 {
        let mut worker = Peer::start("change", &path, &[]);
        assert_eq!(worker.next_report(), "ready");
        let mut reports: Vec<String> = (0..kill * 5).map(|_| worker.next_report()).collect();
        reports.extend(worker.kill());
        for report in reports {
            let (key, id) = report.split_once(' ').unwrap();
            current.insert(id.to_owned(), key.to_owned());
        }
        // A rotation in flight may have replaced the last reported secret. As the previous secret,
        // it is still valid.
        let assert_all_valid = |when| {
            for (id, key) in &current {
                let verdict = gate.peek(Some(key.as_bytes()), 1);
                assert!(
                    verdict.is_admitted(),
                    "{when} kill {kill}: key {id} is {:?}",
                    verdict.reason()
                );
            }
        };
        assert_all_valid("after");
        let mut flaws = Vec::new();
        gate.verify(|flaw| flaws.push(flaw)).unwrap();
        assert_eq!(flaws, []);
        assert_all_valid("verified after");
    }
    assert!(gate.list().iter().all(|key| key.state == KeyState::Active));
    assert!((current.len()..=current.len() + 30).contains(&gate.list().len()));
}

#[test]
fn killed_creator_leaves_only_files_that_open() {
    let folder = folder();
    let is_empty = || entries(folder.path()) == 0;
    // A slow machine may need more time than 30 ms to create the first file.
    for kill in 0..200 {
        if kill >= 10 && !is_empty() {
            break;
        }
        let mut worker = Peer::start("create", folder.path(), &[]);
        assert_eq!(worker.next_report(), "ready");
        thread::sleep(Duration::from_millis(3 * kill));
        worker.kill();
        for entry in folder.path().read_dir().unwrap() {
            let path = entry.unwrap().path();
            if !may_be_left(path.file_name().unwrap().to_str().unwrap()) {
                Gate::open(&path, peppers()).unwrap();
            }
        }
    }
    assert!(!is_empty());
}

#[test]
fn administrator_waits_until_the_holder_is_killed() {
    let folder = folder();
    let path = folder.path().join("api.gate");
    let gate = Gate::create(&path, peppers(), &config(10, "10/minute")).unwrap();
    let mut holder = Peer::start("hold", &path, &[]);
    assert_eq!(holder.next_report(), "holding");
    let begun = Barrier::new(2);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            begun.wait();
            issue(&gate).0
        });
        begun.wait();
        thread::sleep(Duration::from_millis(100));
        assert!(!waiting.is_finished(), "the lock is held");
        // A check does not wait for the lock.
        assert!(!check(&gate, "kt_live_unknown"));
        holder.kill();
        let key = waiting.join().unwrap();
        assert!(check(&gate, key.expose()));
    });
}

/// A bound that detects a hang. It is not a measurement.
const HANG_TIMEOUT: Duration = Duration::from_secs(5);

/// Returns a gate, a key of it, and a worker that administers the gate until it is killed.
fn held(folder: &Path) -> (Gate, KeyId, Peer) {
    let path = folder.join("api.gate");
    let gate = Gate::create(&path, peppers(), &config(10, "10/minute")).unwrap();
    let (_, id) = issue(&gate);
    let mut holder = Peer::start("hold", &path, &[]);
    assert_eq!(holder.next_report(), "holding");
    (gate, id, holder)
}

/// A forked child shares its parent's descriptors. This test copies the descriptors of the holder,
/// which has the same effect.
#[cfg(target_os = "linux")]
#[test]
fn killed_holder_with_a_live_child_delays_no_call() {
    let folder = folder();
    let (gate, id, holder) = held(folder.path());
    let handle = pidfd_open(holder.pid(), PidfdFlags::empty()).unwrap();
    let descriptors = format!("/proc/{}/fd", holder.pid());
    let inherited: Vec<_> = std::fs::read_dir(descriptors)
        .unwrap()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let is_gate = std::fs::read_link(entry.path()).ok()?.ends_with("api.gate");
            let number = entry.file_name().to_str()?.parse().ok()?;
            is_gate.then(|| pidfd_getfd(&handle, number, PidfdGetfdFlags::empty()).unwrap())
        })
        .collect();
    assert!(inherited.len() >= 2, "the gate and its lock");
    let gate_lock = std::fs::File::open(folder.path().join("api.gate")).unwrap();
    holder.kill();
    assert!(
        flock(&gate_lock, FlockOperation::NonBlockingLockExclusive).is_err(),
        "the child keeps it"
    );
    gate.set_wait(HANG_TIMEOUT);
    gate.revoke(id).unwrap();
    // The child delays no later call either.
    issue(&gate);
    assert!(matches!(gate.verify(|flaw| panic!("{flaw}")), Ok(false)));
    drop(inherited);
    issue(&gate);
}

#[cfg(target_os = "linux")]
#[test]
fn stopped_holder_is_named_when_the_wait_ends() {
    let folder = folder();
    let (gate, id, holder) = held(folder.path());
    gate.set_wait(Duration::from_millis(50));
    let pid = u32::try_from(holder.pid().as_raw_nonzero().get()).unwrap();
    let assert_named = |error: &Error, is_stopped: bool| match error {
        Error::Busy { holder, waited, .. } => {
            assert_eq!((holder.pid, holder.stopped), (Some(pid), is_stopped));
            // The holder runs the same program.
            let name = std::fs::read_to_string("/proc/self/comm").unwrap();
            assert_eq!(holder.program.as_deref(), Some(name.trim_end()));
            assert_eq!(*waited, Duration::from_millis(50));
        }
        other => panic!("{other}"),
    };
    assert_named(&gate.revoke(id).unwrap_err(), false);
    assert_eq!(gate.administrator().unwrap().pid, Some(pid));
    kill_process(holder.pid(), Signal::STOP).unwrap();
    let stopped = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") T ");
    while !stopped() {
        thread::yield_now();
    }
    let error = gate.revoke(id).unwrap_err();
    assert_named(&error, true);
    assert!(
        error.to_string().ends_with(&format!("it is stopped; continue it with: kill -CONT {pid}"))
    );
    assert_named(&gate.verify(drop).unwrap_err(), true);
    assert_eq!(gate.key(id).unwrap().state, KeyState::Active);
    holder.kill();
    gate.revoke(id).unwrap();
    assert_eq!(gate.administrator(), None);
}

#[test]
fn interrupted_wait_ends_immediately() {
    let folder = folder();
    let (gate, id, holder) = held(folder.path());
    let calls = core::cell::Cell::new(0);
    // True in its fourth call.
    let interrupted = || calls.replace(calls.get() + 1) == 3;
    let wait = Wait::at_most(Duration::from_secs(60)).unless(&interrupted);
    let error = gate.administer_within(wait, |administrator| administrator.revoke(id)).unwrap_err();
    assert!(matches!(error, Error::Interrupted { .. }), "{error}");
    assert_eq!(calls.get(), 4);
    holder.kill();
}

#[cfg(unix)]
#[test]
fn flock_of_another_program_delays_no_call() {
    let folder = folder();
    let path = folder.path().join("api.gate");
    let gate = Gate::create(&path, peppers(), &config(10, "10/minute")).unwrap();
    gate.set_wait(Duration::ZERO);
    for operation in [FlockOperation::LockExclusive, FlockOperation::LockShared] {
        let file = std::fs::File::open(&path).unwrap();
        flock(&file, operation).unwrap();
        let (key, id) = issue(&gate);
        gate.revoke(id).unwrap();
        assert!(!check(&gate, key.expose()));
        // There is still only one administrator at a time.
        let nested = gate.administer(|_| {
            thread::scope(|scope| scope.spawn(|| gate.revoke(id)).join().unwrap())
                .map_err(|error| assert!(matches!(error, Error::Busy { .. }), "{error}"))
                .unwrap_err();
            Ok(())
        });
        nested.unwrap();
    }
}

#[test]
fn nested_administration_in_one_thread_is_refused() {
    let folder = folder();
    let path = folder.path().join("api.gate");
    let file = Gate::create(path, peppers(), &config(10, "10/minute")).unwrap();
    for gate in [file, Gate::in_memory(peppers(), &config(10, "10/minute")).unwrap()] {
        let (_, id) = issue(&gate);
        gate.set_wait(Duration::MAX);
        gate.administer(|_| {
            let error = gate.revoke(id).unwrap_err();
            assert!(error.to_string().contains("already administers this gate"), "{error}");
            Ok(())
        })
        .unwrap();
        gate.revoke(id).unwrap();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn user_without_permission_to_signal_waits_for_the_holder() {
    const USER: u32 = 65_534;
    if !rustix::process::geteuid().is_root() {
        println!("not root: no process of another user can be started");
        return;
    }
    use std::os::unix::fs::{PermissionsExt as _, chown};
    use std::os::unix::process::CommandExt as _;
    let folder = folder();
    let at = folder.path();
    std::fs::set_permissions(at, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = at.join("api.gate");
    let gate = Gate::create(&path, peppers(), &config(10, "10/minute")).unwrap();
    chown(&path, Some(0), Some(USER)).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660)).unwrap();
    // The user may have no access to the folder of this program.
    let program = at.join("processes");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let output = gate.administer(|_| {
        let command = Worker::command(&["wait", path.to_str().unwrap()]);
        let mut waiter = copy_of_this_program(&program);
        waiter.args(Worker::OPTIONS).uid(USER).gid(USER).current_dir("/");
        waiter.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Ok(waiter.output().unwrap())
    });
    let output = String::from_utf8(output.unwrap().stdout).unwrap();
    let holder = format!("process {} (", std::process::id());
    assert!(
        output.contains(&holder) && output.contains("for longer than the wait of 200ms"),
        "{output}"
    );
}

/// If the import were one batch, or if it did not yield between batches, the revocations would wait
/// for all of it.
#[test]
fn revocation_takes_its_turn_during_an_import() {
    let folder = folder();
    let path = folder.path().join("api.gate");
    let gate = Gate::create(&path, peppers(), &config(100_000, "10/minute")).unwrap();
    let ids: Vec<KeyId> = (0..10).map(|_| issue(&gate).1).collect();
    let mut importer = Peer::start("import", &path, &[]);
    assert_eq!(importer.next_report(), "importing");
    gate.set_wait(HANG_TIMEOUT);
    for id in ids {
        gate.revoke(id).unwrap();
    }
    importer.kill();
    gate.verify(|flaw| panic!("{flaw}")).unwrap();
}

#[cfg(unix)]
#[test]
fn change_after_a_replacement_during_the_wait_is_refused() {
    let folder = folder();
    let (gate, id, holder) = held(folder.path());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| gate.revoke(id));
        thread::sleep(Duration::from_millis(50));
        let new = folder.path().join("new.gate");
        Gate::create(&new, peppers(), &config(10, "10/minute")).unwrap();
        std::fs::rename(new, folder.path().join("api.gate")).unwrap();
        holder.kill();
        assert!(matches!(waiting.join().unwrap(), Err(Error::Replaced { .. })));
    });
    assert_eq!(gate.key(id).unwrap().state, KeyState::Active);
}

/// Tries words that a hostile program may write in place of the holder's name.
#[cfg(target_os = "linux")]
#[test]
fn holder_name_of_no_live_thread_is_taken_over() {
    // The offset of the word that names the holder, and its bits; see host/src/lock.rs.
    const HOLDER: u64 = 64 + 7 * 8;
    const MARK: u64 = 1 << 22;
    const LAST_THREAD: u64 = MARK - 1;
    let folder = folder();
    let path = folder.path().join("api.gate");
    let gate = Gate::create(&path, peppers(), &config(10, "10/minute")).unwrap();
    gate.set_wait(Duration::from_millis(20));
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let write_name = |word: u64| write_at(&file, &word.to_le_bytes(), HOLDER);
    for word in [1, !MARK, MARK, LAST_THREAD, 1 << 40] {
        write_name(word);
        gate.administer(|_| Ok(())).unwrap();
    }
    // A marked name of another PID namespace is replaced only by `take_over`.
    write_name(u64::MAX);
    let error = gate.administer(|_| Ok(())).unwrap_err();
    assert!(matches!(&error, Error::Busy { holder, .. } if holder.pid.is_none()), "{error}");
    gate.take_over().unwrap();
    issue(&gate);
}

#[test]
fn threads_administer_one_after_the_other() {
    let gate = Gate::in_memory(peppers(), &config(400, "10/minute")).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    gate.administer(|administrator| {
                        assert!(!administrator.has_recovered());
                        administrator.issue(&new_key(), entropy().unwrap(), NOW)
                    })
                    .unwrap();
                }
            });
        }
    });
    assert_eq!(gate.list().len(), 400);
    gate.verify(|flaw| panic!("{flaw}")).unwrap();
}
