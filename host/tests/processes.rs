//! Several processes and threads on one file: what is admitted in all is exactly the limit, a change is seen by the
//! next check anywhere, and nobody's death harms anybody.
//!
//! A worker is this test program again, told by an environment variable to be one: see `worker`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use core::time::Duration;
use std::collections::HashMap;
use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Barrier;
use std::thread;

use keytally::{AdminError, NewKey};
use keytally::{Error, Gate, GateConfig, Limiter, Wait, entropy};
use keytally::{Key, KeyId, KeyState, Name, Outcome, Peppers, Plan, Timestamp};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Signal, geteuid, kill_process, pidfd_getfd, pidfd_open,
};

/// The time of every check here, so that no window rolls while the work goes on.
const NOW: Timestamp = Timestamp::from_unix_s(1_700_000_000);

const PROCESSES: usize = 4;
const THREADS: usize = 2;

fn peppers() -> Peppers {
    Peppers::new(&[b"a pepper for tests, of 32 bytes."]).unwrap()
}

fn config(keys: u32, policy: &str) -> GateConfig {
    GateConfig {
        keys,
        plans: vec![Plan::new("default", policy.parse().unwrap()).unwrap()],
        ..GateConfig::default()
    }
}

fn new_key() -> NewKey<'static> {
    NewKey::new(42, Name::new("live").unwrap())
}

fn check(gate: &Gate, key: &str) -> bool {
    gate.table().check(Some(key.as_bytes()), 1, NOW).is_admitted()
}

// The other side: what a worker does.

/// What tells this program that it is a worker: its role, and what the role needs, a word each.
const ROLE: &str = "KEYTALLY_TEST_WORKER";

/// The worker; no test unless it is told to be one.
#[test]
fn worker() {
    let Ok(words) = env::var(ROLE) else { return };
    let words: Vec<&str> = words.split(' ').collect();
    match words[..] {
        ["check", path, keys] => check_all(path, keys),
        ["insert", path, subjects, step] => insert_all(path, subjects, step),
        ["serve", path] => serve(path),
        ["spend", path, key] => spend_for_ever(path, key),
        ["fill", path] => fill_for_ever(path),
        ["change", path] => change_for_ever(path),
        ["create", folder] => create_for_ever(folder),
        ["hold", path] => hold(path),
        ["import", path] => import_for_long(path),
        ["wait", path] => wait_in_vain(path),
        _ => panic!("no such role: {words:?}"),
    }
}

/// Tells the parent one thing. The test harness writes to the same pipe, so a mark says which lines are ours.
fn tell(answer: impl core::fmt::Display) {
    let mut out = std::io::stdout().lock();
    write!(out, "\n@{answer}\n").and_then(|()| out.flush()).unwrap();
}

/// Waits for a line from the parent; `None` when it has no more to say.
fn told() -> Option<String> {
    let mut line = String::new();
    let len = std::io::stdin().read_line(&mut line).unwrap();
    (len > 0).then(|| line.trim().to_owned())
}

fn sums(threads: Vec<Vec<u32>>) -> String {
    let mut sums = vec![0; threads[0].len()];
    for counts in threads {
        sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    sums.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// Spends every key in turn until all of them are denied.
fn check_all(path: &str, keys: &str) {
    let gate = Gate::open(path, peppers()).unwrap();
    let keys: Vec<&str> = keys.split(',').collect();
    tell("ready");
    told();
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
    tell(sums(counts));
}

/// Spends every subject until it is denied, one after the other, in an order that `step` gives.
fn insert_all(path: &str, subjects: &str, step: &str) {
    let limiter = Limiter::open(path).unwrap();
    let (subjects, step): (u32, u32) = (subjects.parse().unwrap(), step.parse().unwrap());
    tell("ready");
    told();
    let spend = || {
        let mut admitted = vec![0; subjects as usize];
        for place in 0..subjects {
            let subject = u64::from(place) * u64::from(step) % u64::from(subjects);
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
    tell(sums(counts));
}

/// Does what it is told, one line after the other.
fn serve(path: &str) {
    let gate = Gate::open(path, peppers()).unwrap();
    while let Some(line) = told() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["check", key] => tell(gate.table().check(Some(key.as_bytes()), 1, NOW).outcome()),
            ["revoke", id] => tell(format!("{:?}", gate.revoke(id.parse().unwrap()))),
            ["rotate", id] => {
                // Each rotation ends the grace of the one before.
                tell(gate.rotate(id.parse().unwrap(), Duration::from_secs(60), true).unwrap().expose());
            }
            ["assign", id, plan] => tell(format!("{:?}", gate.assign(id.parse().unwrap(), plan))),
            _ => panic!("{line}"),
        }
    }
}

/// Acknowledges every request that was admitted.
fn spend_for_ever(path: &str, key: &str) {
    let gate = Gate::open(path, peppers()).unwrap();
    while check(&gate, key) {
        tell("admitted");
    }
}

/// Acknowledges every subject that it inserted; they are numbered by what the parent says.
fn fill_for_ever(path: &str) {
    let limiter = Limiter::open(path).unwrap();
    let first: u64 = told().unwrap().parse().unwrap();
    for subject in first.. {
        assert!(limiter.table().check(&subject.to_le_bytes(), 1, NOW).is_admitted());
        tell(subject);
    }
}

/// Issues, rotates and revokes, and acknowledges every key that it issued.
fn change_for_ever(path: &str) {
    let gate = Gate::open(path, peppers()).unwrap();
    tell("ready");
    loop {
        match gate.issue(&new_key()) {
            Ok((key, id)) => {
                tell(format!("{} {id}", key.expose()));
                let again = gate.rotate(id, Duration::from_secs(3600), false).unwrap();
                tell(format!("{} {id}", again.expose()));
            }
            Err(Error::Admin { source: AdminError::Full { .. }, .. }) => return tell("full"),
            Err(error) => panic!("{error}"),
        }
    }
}

fn create_for_ever(folder: &str) {
    tell("ready");
    for number in 0.. {
        let path = Path::new(folder).join(format!("{}-{number}", std::process::id()));
        Gate::create(path, peppers(), &config(100, "1/minute")).unwrap();
    }
}

/// Administers, and never ends.
fn hold(path: &str) {
    let gate = Gate::open(path, peppers()).unwrap();
    let _ = gate.administer(|_| {
        tell("holding");
        told();
        Ok(())
    });
}

/// Imports keys in parts, for longer than the test takes.
fn import_for_long(path: &str) {
    let gate = Gate::open(path, peppers()).unwrap();
    // There is next to no time between the parts if the keys are drawn at once.
    let keys: Vec<String> = (0..100_000).map(|number| format!("customer-key-{number:012}")).collect();
    let mut told = false;
    let _ =
        gate.administer_each(Wait::default(), keys.iter().cycle().take(5_000_000), |administrator, key| {
            // A full gate refuses, and the work goes on all the same.
            let _ = administrator.import(key.as_bytes(), &new_key(), NOW);
            if !told {
                tell("importing");
                told = true;
            }
            Ok(())
        });
}

/// Waits for its turn, which does not come, and tells what it is told.
fn wait_in_vain(path: &str) {
    let gate = Gate::open(path, peppers()).unwrap();
    gate.set_wait(Duration::from_millis(200));
    tell(gate.administer(|_| Ok(())).unwrap_err());
}

// This side: the parent.

struct Worker {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    fn start(role: &str, path: &Path, rest: &[&str]) -> Self {
        let path = path.to_str().unwrap();
        let words = [&[role, path], rest].concat().join(" ");
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "worker", "--nocapture", "--test-threads=1"])
            .env(ROLE, words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, stdin, stdout: BufReader::new(stdout) }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").and_then(|()| self.stdin.flush()).unwrap();
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        while !line.starts_with('@') {
            line.clear();
            assert!(self.stdout.read_line(&mut line).unwrap() > 0, "the worker ended");
        }
        line.trim_start_matches('@').trim_end().to_owned()
    }

    fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.answer()
    }

    /// Kills it (-9), and gives all that it told before.
    fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        // Of an answer that was cut short nobody can say that it was given.
        let whole = rest.rfind('\n').map_or(0, |end| end + 1);
        rest[..whole].lines().filter_map(|line| line.strip_prefix('@')).map(str::to_owned).collect()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn end(mut self) {
        drop(self.stdin);
        assert!(self.child.wait().unwrap().success());
    }
}

/// Starts the workers, lets all of them begin at once, and adds up what they answer.
fn run_together(mut workers: Vec<Worker>) -> Vec<u32> {
    for worker in &mut workers {
        assert_eq!(worker.answer(), "ready");
    }
    for worker in &mut workers {
        worker.say("go");
    }
    let answers: Vec<Vec<u32>> = workers
        .iter_mut()
        .map(|worker| worker.answer().split(',').map(|count| count.parse().unwrap()).collect())
        .collect();
    workers.into_iter().for_each(Worker::end);
    (0..answers[0].len()).map(|place| answers.iter().map(|counts| counts[place]).sum()).collect()
}

fn issue(gate: &Gate) -> (Key, KeyId) {
    gate.administer(|administrator| administrator.issue(&new_key(), entropy().unwrap(), NOW)).unwrap()
}

#[test]
fn one_key_admits_its_limit_over_all_processes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.gate");
    let gate = Gate::create(&path, peppers(), &config(10, "200000/minute, 250000/hour")).unwrap();
    let (key, _) = issue(&gate);
    let workers = (0..PROCESSES).map(|_| Worker::start("check", &path, &[key.expose()])).collect();
    assert_eq!(run_together(workers), [200_000]);
    // The next minute has what the hour has left.
    let next = Timestamp::from_unix_s(NOW.unix_s() + 60);
    let verdict = gate.table().peek(Some(key.expose().as_bytes()), 1, next);
    assert_eq!(verdict.quotas().iter().map(|quota| quota.remaining).collect::<Vec<_>>(), [200_000, 50_000]);
}

#[test]
fn many_keys_each_admit_their_limit_over_all_processes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.gate");
    let gate = Gate::create(&path, peppers(), &config(200, "sliding 500/minute")).unwrap();
    let keys: Vec<Key> = (0..200).map(|_| issue(&gate).0).collect();
    let list = keys.iter().map(Key::expose).collect::<Vec<_>>().join(",");
    let workers = (0..PROCESSES).map(|_| Worker::start("check", &path, &[&list])).collect();
    assert_eq!(run_together(workers), [500; 200]);
}

#[test]
fn one_subject_admits_its_limit_over_all_processes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("limiter");
    Limiter::create(&path, &"200000/minute".parse().unwrap(), 10).unwrap();
    let workers = (0..PROCESSES).map(|_| Worker::start("insert", &path, &["1", "1"])).collect();
    assert_eq!(run_together(workers), [200_000]);
}

/// All come with the same new subjects, in the same order and in two opposite ones: nobody may find two slots.
#[test]
fn new_subjects_get_one_slot_each_whoever_inserts_them() {
    const SUBJECTS: u32 = 15_000;
    for steps in [["1"; PROCESSES], ["1", "7", "14999", "1"]] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("limiter");
        let limiter = Limiter::create(&path, &"3/minute".parse().unwrap(), 20_000).unwrap();
        let subjects = SUBJECTS.to_string();
        let workers = steps.map(|step| Worker::start("insert", &path, &[&subjects, step])).into();
        assert_eq!(run_together(workers), [3; SUBJECTS as usize]);
        assert_eq!(limiter.table().live_subjects(NOW), u64::from(SUBJECTS));
    }
}

#[test]
fn a_change_is_seen_by_the_next_check_of_every_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.gate");
    let gate = Gate::create(&path, peppers(), &config(100, "1000/minute")).unwrap();
    let (mut one, mut other) = (Worker::start("serve", &path, &[]), Worker::start("serve", &path, &[]));
    for _ in 0..50 {
        let (key, id) = issue(&gate);
        assert_eq!(one.ask(&format!("check {}", key.expose())), "admitted");
        assert_eq!(other.ask(&format!("revoke {id}")), "Ok(())");
        assert_eq!(one.ask(&format!("check {}", key.expose())), "invalid_key");
        assert!(!check(&gate, key.expose()));
    }
    one.end();
    other.end();
}

#[test]
fn rotation_in_another_process_does_not_double_the_quota() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.gate");
    let gate = Gate::create(&path, peppers(), &config(10, "100/hour")).unwrap();
    let (old, id) = issue(&gate);
    let mut worker = Worker::start("serve", &path, &[]);
    let spend = |key: &str| (0..60).filter(|_| check(&gate, key)).count();
    assert_eq!(spend(old.expose()), 60);
    let new = worker.ask(&format!("rotate {id}"));
    assert_eq!(spend(&new), 40);
    assert_eq!(spend(old.expose()), 0);
    worker.end();
}

/// Threads spend while another process rotates the same key over and over: all secrets share one tally.
#[test]
fn rotation_during_checks_loses_and_gains_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.gate");
    let gate = Gate::create(&path, peppers(), &config(10, "100000/hour")).unwrap();
    let (key, id) = issue(&gate);
    let mut worker = Worker::start("serve", &path, &[]);
    let spent = thread::scope(|scope| {
        let mut key = key.expose().to_owned();
        let mut spent = 0;
        for _ in 0..200 {
            // The secret in use stays good during the rotation, and in the grace after it.
            let spender = scope.spawn({
                let (gate, key) = (&gate, key.clone());
                move || (0..300).filter(|_| check(gate, &key)).count()
            });
            key = worker.ask(&format!("rotate {id}"));
            spent += spender.join().unwrap();
        }
        spent
    });
    assert_eq!(spent, 200 * 300);
    assert_eq!(gate.table().key(id, NOW).unwrap().quotas.longest().unwrap().remaining, 100_000 - 200 * 300);
    worker.end();
}

#[test]
fn a_killed_process_loses_no_count() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.gate");
    let gate = Gate::create(&path, peppers(), &config(10, "50000000/hour")).unwrap();
    let (key, id) = issue(&gate);
    let mut acknowledged = 0;
    for kill in 1..=20 {
        let mut worker = Worker::start("spend", &path, &[key.expose()]);
        for _ in 0..kill * 50 {
            worker.answer();
            acknowledged += 1;
        }
        acknowledged += worker.kill().len();
        let counted =
            50_000_000 - gate.table().key(id, NOW).unwrap().quotas.longest().unwrap().remaining as usize;
        assert!((acknowledged..=acknowledged + kill).contains(&counted), "{acknowledged} {counted} {kill}");
    }
    assert!(check(&gate, key.expose()));
}

#[test]
fn a_killed_inserter_loses_no_subject_and_leaves_no_claim() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("limiter");
    let limiter = Limiter::create(&path, &"1/hour".parse().unwrap(), 1_000_000).unwrap();
    let mut first = 0;
    for kill in 0..20 {
        let mut worker = Worker::start("fill", &path, &[]);
        worker.say(&first.to_string());
        let mut told: Vec<String> = (0..kill * 20).map(|_| worker.answer()).collect();
        told.extend(worker.kill());
        if let Some(last) = told.last() {
            let last: u64 = last.parse().unwrap();
            for subject in first..=last {
                let verdict = limiter.table().peek(&subject.to_le_bytes(), 1, NOW);
                assert_eq!(verdict.outcome(), Outcome::Denied, "{subject}");
            }
            first = last + 1;
        }
        // One may be in flight.
        let live = limiter.table().live_subjects(NOW);
        assert!((first..=first + 1).contains(&live), "{first} {live}");
        // Whichever bucket the dead one held, others get into it.
        limiter.table().check(&first.to_le_bytes(), 1, NOW);
        first += 1;
        assert_eq!(limiter.table().live_subjects(NOW), first);
    }
}

#[test]
fn a_killed_administrator_leaves_every_key_good_and_the_lock_free() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.gate");
    let gate = Gate::create(&path, peppers(), &config(20_000, "10/minute")).unwrap();
    let mut current = HashMap::new();
    for kill in 0..30 {
        let mut worker = Worker::start("change", &path, &[]);
        assert_eq!(worker.answer(), "ready");
        let mut told: Vec<String> = (0..kill * 5).map(|_| worker.answer()).collect();
        told.extend(worker.kill());
        for answer in told {
            let (key, id) = answer.split_once(' ').unwrap();
            current.insert(id.to_owned(), key.to_owned());
        }
        // A rotation in flight may have made the last one the previous secret: still good.
        let all_good = |when| {
            for (id, key) in &current {
                let verdict = gate.peek(Some(key.as_bytes()), 1);
                assert!(verdict.is_admitted(), "{when} kill {kill}: key {id} is {:?}", verdict.reason());
            }
        };
        all_good("after");
        let mut flaws = Vec::new();
        gate.verify(|flaw| flaws.push(flaw)).unwrap();
        assert_eq!(flaws, []);
        all_good("verified after");
    }
    assert!(gate.list().iter().all(|key| key.state == KeyState::Active));
    assert!((current.len()..=current.len() + 30).contains(&gate.list().len()));
}

#[test]
fn a_killed_creator_leaves_nothing_that_does_not_open() {
    let folder = tempfile::tempdir().unwrap();
    for kill in 0..10 {
        let mut worker = Worker::start("create", folder.path(), &[]);
        assert_eq!(worker.answer(), "ready");
        thread::sleep(Duration::from_millis(3 * kill));
        worker.kill();
        for entry in folder.path().read_dir().unwrap() {
            let path = entry.unwrap().path();
            Gate::open(&path, peppers()).unwrap();
        }
    }
    assert!(folder.path().read_dir().unwrap().count() > 0);
}

#[test]
fn an_administrator_waits_for_another_until_that_one_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.gate");
    let gate = Gate::create(&path, peppers(), &config(10, "10/minute")).unwrap();
    let mut holder = Worker::start("hold", &path, &[]);
    assert_eq!(holder.answer(), "holding");
    let begun = Barrier::new(2);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            begun.wait();
            issue(&gate).0
        });
        begun.wait();
        thread::sleep(Duration::from_millis(100));
        assert!(!waiting.is_finished(), "the lock is held");
        // A check doesn't wait for anybody.
        assert!(!check(&gate, "kt_live_nobody"));
        holder.kill();
        let key = waiting.join().unwrap();
        assert!(check(&gate, key.expose()));
    });
}

/// A bound against a hang, and no measurement.
const PROMPT: Duration = Duration::from_secs(5);

/// A gate, a key of it, and a worker that administers the gate until it is killed.
fn held(folder: &Path) -> (Gate, KeyId, Worker) {
    let path = folder.join("api.gate");
    let gate = Gate::create(&path, peppers(), &config(10, "10/minute")).unwrap();
    let (_, id) = issue(&gate);
    let mut holder = Worker::start("hold", &path, &[]);
    assert_eq!(holder.answer(), "holding");
    (gate, id, holder)
}

/// A forked child shares its parent's descriptors, and so does this test, which takes them over.
#[test]
fn a_killed_holder_delays_nobody_while_its_child_lives() {
    let folder = tempfile::tempdir().unwrap();
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
    assert!(flock(&gate_lock, FlockOperation::NonBlockingLockExclusive).is_err(), "the child keeps it");
    gate.set_wait(PROMPT);
    gate.revoke(id).unwrap();
    // The next ones need not fear the child either, nor the one before them.
    issue(&gate);
    assert!(matches!(gate.verify(|flaw| panic!("{flaw}")), Ok(false)));
    drop(inherited);
    issue(&gate);
}

#[test]
fn a_stopped_holder_is_named_when_the_wait_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (gate, id, holder) = held(folder.path());
    gate.set_wait(Duration::from_millis(50));
    let pid = u32::try_from(holder.pid().as_raw_nonzero().get()).unwrap();
    let named = |error: &Error, is_stopped: bool| match error {
        Error::Busy { holder, waited, .. } => {
            assert_eq!((holder.pid, holder.stopped), (Some(pid), is_stopped));
            assert!(holder.program.as_ref().is_some_and(|program| program.starts_with("processes")));
            assert_eq!(*waited, Duration::from_millis(50));
        }
        other => panic!("{other}"),
    };
    named(&gate.revoke(id).unwrap_err(), false);
    assert_eq!(gate.administrator().unwrap().pid, Some(pid));
    kill_process(holder.pid(), Signal::STOP).unwrap();
    let stopped = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") T ");
    while !stopped() {
        thread::yield_now();
    }
    let error = gate.revoke(id).unwrap_err();
    named(&error, true);
    assert!(error.to_string().ends_with(&format!("it is stopped; continue it with: kill -CONT {pid}")));
    named(&gate.verify(drop).unwrap_err(), true);
    assert_eq!(gate.key(id).unwrap().state, KeyState::Active);
    holder.kill();
    gate.revoke(id).unwrap();
    assert_eq!(gate.administrator(), None);
}

#[test]
fn an_interrupted_wait_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (gate, id, holder) = held(folder.path());
    let looked = core::cell::Cell::new(0);
    let interrupted = || looked.replace(looked.get() + 1) == 3;
    let wait = Wait::at_most(Duration::from_secs(60)).unless(&interrupted);
    let error = gate.administer_within(wait, |administrator| administrator.revoke(id)).unwrap_err();
    assert!(matches!(error, Error::Interrupted { .. }), "{error}");
    assert_eq!(looked.get(), 4);
    holder.kill();
}

#[test]
fn a_flock_of_another_program_delays_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.gate");
    let gate = Gate::create(&path, peppers(), &config(10, "10/minute")).unwrap();
    gate.set_wait(Duration::ZERO);
    for operation in [FlockOperation::LockExclusive, FlockOperation::LockShared] {
        let file = std::fs::File::open(&path).unwrap();
        flock(&file, operation).unwrap();
        let (key, id) = issue(&gate);
        gate.revoke(id).unwrap();
        assert!(!check(&gate, key.expose()));
        // Even so there is one administrator at a time.
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
fn a_thread_that_administers_already_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.gate");
    let file = Gate::create(path, peppers(), &config(10, "10/minute")).unwrap();
    for gate in [file, Gate::in_memory(peppers(), &config(10, "10/minute")).unwrap()] {
        let (_, id) = issue(&gate);
        gate.set_wait(Duration::MAX);
        gate.administer(|_| {
            let error = gate.revoke(id).unwrap_err();
            assert!(error.to_string().contains("administers this gate already"), "{error}");
            Ok(())
        })
        .unwrap();
        gate.revoke(id).unwrap();
    }
}

#[test]
fn a_user_who_may_not_signal_the_holder_waits_for_it() {
    const USER: u32 = 65_534;
    if !geteuid().is_root() {
        println!("not root: no other user can be had");
        return;
    }
    use std::os::unix::fs::{PermissionsExt as _, chown};
    use std::os::unix::process::CommandExt as _;
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::set_permissions(at, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = at.join("api.gate");
    let gate = Gate::create(&path, peppers(), &config(10, "10/minute")).unwrap();
    chown(&path, Some(0), Some(USER)).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660)).unwrap();
    // The program lies where only its builder may look.
    let program = at.join("processes");
    std::fs::copy(env::current_exe().unwrap(), &program).unwrap();
    let said = gate.administer(|_| {
        let mut waiter = Command::new(&program);
        waiter.args(["--exact", "worker", "--nocapture", "--test-threads=1"]).uid(USER).gid(USER);
        Ok(waiter.env(ROLE, format!("wait {}", path.display())).current_dir("/").output().unwrap())
    });
    let said = String::from_utf8(said.unwrap().stdout).unwrap();
    let holder = format!("process {} (", std::process::id());
    assert!(said.contains(&holder) && said.contains("for longer than the wait of 200ms"), "{said}");
}

/// Without parts, and without giving way between them, a revocation waits for the whole import.
#[test]
fn a_revocation_takes_its_turn_during_an_import() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.gate");
    let gate = Gate::create(&path, peppers(), &config(100_000, "10/minute")).unwrap();
    let ids: Vec<KeyId> = (0..10).map(|_| issue(&gate).1).collect();
    let mut importer = Worker::start("import", &path, &[]);
    assert_eq!(importer.answer(), "importing");
    gate.set_wait(PROMPT);
    for id in ids {
        gate.revoke(id).unwrap();
    }
    importer.kill();
    gate.verify(|flaw| panic!("{flaw}")).unwrap();
}

#[test]
fn a_change_after_a_replacement_during_the_wait_is_refused() {
    let folder = tempfile::tempdir().unwrap();
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

/// What a hostile or a foreign writer puts in place of the holder's name.
#[test]
fn a_name_that_means_nobody_here_is_taken_over() {
    use std::os::unix::fs::FileExt as _;
    const HOLDER: u64 = 64 + 7 * 8;
    const MARK: u64 = 1 << 22;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.gate");
    let gate = Gate::create(&path, peppers(), &config(10, "10/minute")).unwrap();
    gate.set_wait(Duration::from_millis(20));
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let name = |word: u64| file.write_all_at(&word.to_le_bytes(), HOLDER).unwrap();
    for word in [1, !MARK, MARK, 4_194_303, 1 << 40] {
        name(word);
        gate.administer(|_| Ok(())).unwrap();
    }
    // A marked name of another namespace is the one that nobody here may take over by itself.
    name(u64::MAX);
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
