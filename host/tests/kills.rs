//! Thousands of processes killed with -9 at random instants, several at a time on the same files, while they check,
//! refund, settle, insert, reuse what has expired, issue, import, rotate, revoke, assign, change plans and create files.
//!
//! Each worker writes beside the files what it is about to do and what it has done. So after a kill the parent knows
//! what was acknowledged and what was in flight, and counts: acknowledged ≤ counted ≤ acknowledged + in flight. Every
//! batch lives some hours after the one before, so that all slots and the records of revoked keys are reused.
//!
//! There are a thousand kills; ten thousand where `KEYTALLY_FULL` is set.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

#[path = "support/prompt.rs"]
mod prompt;
#[path = "support/random.rs"]
mod random;
mod support;

use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;

use keytally::{AdminError, NewKey};
use keytally::{Administrator, Charge, KeyId, KeyState, Name, Outcome, Peppers, Plan, Reason, Timestamp};
use keytally::{Error, Gate, GateConfig, Limiter, Mapping, entropy, now};

use crate::prompt::promptly;
use crate::random::Random;
use crate::support::{Worker, folder, role, tell, wait_for_death};

/// Kills in the short form, and in the long one.
const KILLS: [u64; 2] = [1000, 10_000];

/// Those that live, and die, together.
const ROLES: [&str; 8] =
    ["spend", "insert", "administer", "insert", "spend", "create", "insert", "administer"];

/// They die within this time of having begun, one after the other.
const LIFE_MS: u64 = 8;

/// From one batch to the next: what was counted in one is forgotten everywhere in the next.
const BATCH_S: u64 = 3 * 3600;

/// Keys that are only spent and moved between plans, and keys that are rotated too, so many for each administrator.
const SPENT: usize = 4;
const VETERANS: usize = 3;

/// Changes of one kind that an administrator sometimes makes under one lock: they are so quick that few would die in the
/// middle of one otherwise. A revocation is the quickest.
const MANY: u32 = 10;
const MANY_REVOCATIONS: u32 = 5000;

/// The plan `pro` has so many different limits.
const EXTRAS: u64 = 50_000;

/// A worker spends no more than this of one key, so that all of them together stay below its limit.
const MAX_SPENT: i64 = 20_000;

const SUBJECTS: u64 = 1024;

fn when(batch: u64) -> Timestamp {
    Timestamp::from_unix_s(1_700_000_000 + batch * BATCH_S)
}

fn peppers() -> Peppers {
    Peppers::new(&[b"a pepper for tests, of 32 bytes."]).unwrap()
}

fn plan(name: &str, extra: u64) -> Plan {
    let policy = format!("{}/minute, {}/hour", 100_000 + extra, 200_000 + extra);
    Plan::new(name, policy.parse().unwrap()).unwrap()
}

fn open_gate(at: &Path) -> Gate {
    Gate::open(at.join("gate"), peppers()).unwrap()
}

fn open_limiter(at: &Path) -> Limiter {
    Limiter::open(at.join("limiter")).unwrap()
}

// The workers.

/// What a worker is told: where the files are, and which of all workers it is.
struct Job {
    at: PathBuf,
    batch: u64,
    number: u64,
}

impl Job {
    /// The worker's own account of what it does.
    fn account(&self) -> PathBuf {
        self.at.join(format!("account-{}", self.number))
    }

    /// Which of the administrators it is.
    fn administrator(&self) -> usize {
        let before = &ROLES[..usize::try_from(self.number).unwrap() % ROLES.len()];
        before.iter().filter(|role| **role == "administer").count()
    }
}

/// Works until it is killed; no test unless it is told to be a worker.
#[test]
fn worker() {
    let Some(words) = role() else { return };
    let [role, at, batch, number] = &words[..] else { panic!("{words:?}") };
    let job = Job { at: at.into(), batch: batch.parse().unwrap(), number: number.parse().unwrap() };
    match role.as_str() {
        "spend" => spend(&job),
        "insert" => insert(&job),
        "administer" => administer(&job),
        "create" => create(&job),
        _ => panic!("no such role: {role}"),
    }
}

/// An account of numbers, written whole in one call.
struct Numbers<const LEN: usize>(File);

impl<const LEN: usize> Numbers<LEN> {
    fn new(job: &Job) -> Self {
        Self(File::create_new(job.account()).unwrap())
    }

    fn write(&self, numbers: [i64; LEN]) {
        self.0.write_all_at(numbers.map(i64::to_le_bytes).as_flattened(), 0).unwrap();
    }

    fn read(job: &Job) -> [i64; LEN] {
        let bytes = fs::read(job.account()).unwrap();
        let mut words = bytes.as_chunks::<8>().0.iter().map(|word| i64::from_le_bytes(*word));
        core::array::from_fn(|_| words.next().unwrap())
    }
}

/// An account of lines: `? …` for what is begun, `! …` for what is done, `+` when a change of another worker that died was
/// completed.
struct Lines(File);

impl Lines {
    fn new(job: &Job) -> Self {
        Self(OpenOptions::new().create_new(true).append(true).open(job.account()).unwrap())
    }

    fn begin(&mut self, what: &str) {
        self.0.write_all(format!("? {what}\n").as_bytes()).unwrap();
    }

    fn done(&mut self, what: &str) {
        self.0.write_all(format!("! {what}\n").as_bytes()).unwrap();
    }

    fn completed_anothers(&mut self) {
        self.0.write_all(b"+ \n").unwrap();
    }

    fn read(job: &Job) -> Account {
        let mut account = Account::default();
        let text = fs::read_to_string(job.account()).unwrap();
        // Where a line runs over the end of a page, death may cut it short.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        for line in text[..whole].lines() {
            match line.split_at(2) {
                ("? ", what) => account.in_flight = Some(what.to_owned()),
                ("! ", what) => {
                    account.done.push(what.to_owned());
                    account.in_flight = None;
                }
                ("+ ", "") => account.completed += 1,
                _ => panic!("{line}"),
            }
        }
        account
    }
}

/// What lines tell.
#[derive(Default)]
struct Account {
    done: Vec<String>,
    in_flight: Option<String>,
    completed: usize,
}

/// Spent of each key, then the key in question and what may be spent of it less and more, in flight.
type Spent = Numbers<{ SPENT + 3 }>;

/// Checks, refunds and settles.
fn spend(job: &Job) {
    let (gate, now) = (open_gate(&job.at), when(job.batch));
    let keys = read_keys(&job.at);
    let mut random = Random(job.number);
    let account = Spent::new(job);
    let mut numbers = [0; SPENT + 3];
    account.write(numbers);
    tell("ready");
    loop {
        let place = usize::try_from(random.below(SPENT as u64)).unwrap();
        let (id, key) = (keys[place].0, keys[place].1.as_bytes());
        let mut step = |least: i64, most: i64, work: &dyn Fn() -> i64| {
            numbers[SPENT..].copy_from_slice(&[i64::try_from(place).unwrap(), least, most]);
            account.write(numbers);
            let spent = work();
            assert!((least..=most).contains(&spent), "{least} {spent} {most}");
            numbers[place] += spent;
            numbers[SPENT..].copy_from_slice(&[0; 3]);
            account.write(numbers);
            numbers[place]
        };
        let check = |cost: u32| {
            let verdict = gate.table().check(Some(key), cost, now);
            assert_eq!(verdict.outcome(), Outcome::Admitted, "{:?}", verdict.reason());
            verdict.charge().unwrap()
        };
        let burst = |times: u32| (0..times).map(|_| i64::from(check(1).cost)).sum();
        let spent = step(0, 16, &|| burst(16));
        let estimate = Charge { cost: u32::try_from(random.below(20)).unwrap() + 1, at: now };
        step(0, estimate.cost.into(), &|| i64::from(check(estimate.cost).cost));
        let actual = u32::try_from(random.below(40)).unwrap();
        let change = i64::from(actual) - i64::from(estimate.cost);
        match random.below(2) {
            0 => step(-i64::from(estimate.cost), 0, &|| {
                gate.table().refund(id, estimate, now).unwrap();
                -i64::from(estimate.cost)
            }),
            _ => step(change.min(0), change.max(0), &|| {
                assert_eq!(gate.table().settle(id, estimate, actual, now).unwrap().uncharged(), 0);
                change
            }),
        };
        if spent > MAX_SPENT {
            wait_for_death();
        }
    }
}

/// The subject that a worker inserts or finds in its `op`th operation. Two go the same way: the one behind finds what the
/// one ahead inserts, is quicker for it, and catches up, so that both come to new subjects at once. One goes the other way.
fn subject(number: u64, op: u64) -> u64 {
    let roles = ROLES.len() as u64;
    let step = if number % roles == 1 { SUBJECTS - 1 } else { 1 };
    (number / roles * 37 + op * step) % SUBJECTS
}

/// Inserts subjects into a table in which all slots are expired, or finds them there.
fn insert(job: &Job) {
    let (limiter, now) = (open_limiter(&job.at), when(job.batch));
    let account = Numbers::<1>::new(job);
    account.write([0]);
    tell("ready");
    for op in 0.. {
        let verdict = limiter.table().check(&subject(job.number, op).to_le_bytes(), 1, now);
        assert!(verdict.is_admitted(), "{}", verdict.outcome());
        account.write([i64::try_from(op).unwrap() + 1]);
    }
}

fn new_key() -> NewKey<'static> {
    NewKey::new(42, Name::new("live").unwrap())
}

fn grace_until(batch: u64) -> Option<Timestamp> {
    Some(when(batch + 4))
}

/// Issues, imports, rotates, revokes, assigns and changes a plan.
fn administer(job: &Job) {
    let (gate, now) = (open_gate(&job.at), when(job.batch));
    let keys = read_keys(&job.at);
    let veterans = SPENT + job.administrator() * VETERANS;
    let veterans: Vec<KeyId> = keys[veterans..veterans + VETERANS].iter().map(|(id, _)| *id).collect();
    let mut own = Vec::new();
    let mut random = Random(job.number);
    let mut account = Lines::new(job);
    tell("ready");
    loop {
        let rotated = [veterans.clone(), own.clone()].concat();
        let one_of = |keys: &[KeyId], random: &mut Random| {
            keys[usize::try_from(random.below(keys.len() as u64)).unwrap()]
        };
        match random.below(9) {
            0 => {
                account.begin("issue");
                let entropy = entropy().unwrap();
                let issue = change(&gate, &mut account, |administrator| {
                    administrator.issue(&new_key(), entropy, now)
                });
                match issue {
                    Ok((key, id)) => {
                        account.done(&format!("new {id} {}", key.expose()));
                        own.push(id);
                    }
                    Err(Error::Admin { source: AdminError::Full { .. }, .. }) => {
                        account.done("nothing");
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            1 => {
                let text = format!("foreign-key-{}-{}", job.number, random.below(1 << 40));
                account.begin(&format!("import {text}"));
                let import = change(&gate, &mut account, |administrator| {
                    administrator.import(text.as_bytes(), &new_key(), now)
                });
                match import {
                    Ok(id) => {
                        account.done(&format!("new {id} {text}"));
                        own.push(id);
                    }
                    Err(Error::Admin { source: AdminError::NoRoomToImport, .. }) => {
                        account.done("nothing");
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            2 | 3 => {
                let id = one_of(&rotated, &mut random);
                account.begin(&format!("rotate {id}"));
                let key = change(&gate, &mut account, |administrator| {
                    administrator.rotate(id, grace_until(job.batch), true, entropy().unwrap(), now)
                });
                account.done(&format!("rotate {id} {}", key.unwrap().expose()));
            }
            4 if !own.is_empty() => {
                let id = one_of(&own, &mut random);
                own.retain(|other| *other != id);
                account.begin(&format!("revoke {id}"));
                change(&gate, &mut account, |administrator| {
                    (0..MANY_REVOCATIONS).try_for_each(|_| administrator.revoke(id))
                })
                .unwrap();
                account.done(&format!("revoke {id}"));
            }
            5 => {
                let number = random.below(SPENT as u64);
                let id = keys[usize::try_from(number).unwrap()].0;
                let plan = ["default", "pro"][usize::try_from(random.below(2)).unwrap()];
                account.begin("assign");
                change(&gate, &mut account, |administrator| administrator.assign(id, plan)).unwrap();
                account.done("assign");
            }
            6 => {
                let extra = random.below(EXTRAS);
                account.begin(&format!("plan {extra} {extra}"));
                change(&gate, &mut account, |administrator| administrator.set_plan(&plan("pro", extra)))
                    .unwrap();
                account.done(&format!("plan {extra} {extra}"));
            }
            7 => {
                let id = one_of(&rotated, &mut random);
                account.begin("assign");
                change(&gate, &mut account, |administrator| {
                    (0..MANY).try_for_each(|_| {
                        administrator.assign(id, "default")?;
                        administrator.assign(id, "pro")
                    })
                })
                .unwrap();
                account.done("assign");
            }
            _ => {
                let [one, other] = [(); 2].map(|()| random.below(EXTRAS));
                let plans = [plan("pro", one), plan("pro", other)];
                account.begin(&format!("plan {one} {other}"));
                change(&gate, &mut account, |administrator| {
                    (0..MANY).try_for_each(|_| plans.iter().try_for_each(|plan| administrator.set_plan(plan)))
                })
                .unwrap();
                account.done(&format!("plan {other} {other}"));
            }
        }
    }
}

/// One administration, with a note in the account when it first completed what another one that died had begun.
fn change<T>(
    gate: &Gate,
    account: &mut Lines,
    work: impl FnOnce(&mut Administrator<'_, Mapping>) -> Result<T, AdminError>,
) -> Result<T, Error> {
    gate.administer(|administrator| {
        if administrator.has_recovered() {
            account.completed_anothers();
        }
        work(administrator)
    })
}

fn new_folder(at: &Path) -> PathBuf {
    at.join("new")
}

/// So many of the files that a worker created last are there; it removes those before.
const FILES: usize = 8;

/// Creates gates and limiters.
fn create(job: &Job) {
    let mut account = Lines::new(job);
    tell("ready");
    for count in 0.. {
        let name = |count: usize| format!("{}-{count}-{}", job.number, ["gate", "limiter"][count % 2]);
        let path = |count| new_folder(&job.at).join(name(count));
        if count > FILES {
            fs::remove_file(path(count - FILES - 1)).unwrap();
        }
        let (name, path) = (name(count), path(count));
        account.begin(&name);
        if count % 2 == 0 {
            let plans = vec![plan("default", 0)];
            Gate::create(&path, peppers(), &GateConfig { keys: 8, plans, ..GateConfig::default() }).unwrap();
        } else {
            Limiter::create(&path, &"1/hour".parse().unwrap(), 8).unwrap();
        }
        account.done(&name);
    }
}

// The parent.

/// The keys that stay, with their present texts: first those that are spent, then the veterans.
fn read_keys(at: &Path) -> Vec<(KeyId, String)> {
    let text = fs::read_to_string(at.join("keys")).unwrap();
    let keys = text.lines().map(|line| line.split_once(' ').unwrap());
    keys.map(|(id, key)| (id.parse().unwrap(), key.to_owned())).collect()
}

fn write_keys(at: &Path, keys: &[(KeyId, String)]) {
    let lines: String = keys.iter().map(|(id, key)| format!("{id} {key}\n")).collect();
    fs::write(at.join("keys"), lines).unwrap();
}

fn range(counted: i64, least: i64, most: i64, what: &str) {
    assert!((least..=most).contains(&counted), "{what}: {counted} are counted, and not {least} to {most}");
}

#[test]
fn a_process_killed_at_a_random_instant_harms_nobody() {
    let kills = KILLS[usize::from(std::env::var_os("KEYTALLY_FULL").is_some())];
    let folder = folder();
    let at = folder.path();
    let config = GateConfig {
        keys: 1024,
        plans: vec![plan("default", 0), plan("pro", 50_000)],
        ..GateConfig::default()
    };
    let gate = Gate::create(at.join("gate"), peppers(), &config).unwrap();
    let limiter = Limiter::create(
        at.join("limiter"),
        &"100000/hour".parse().unwrap(),
        u32::try_from(SUBJECTS).unwrap(),
    )
    .unwrap();
    let administrators = ROLES.iter().filter(|role| **role == "administer").count();
    let keys = (0..SPENT + administrators * VETERANS).map(|_| {
        let (key, id) = gate
            .administer(|administrator| administrator.issue(&new_key(), entropy().unwrap(), when(0)))
            .unwrap();
        (id, key.expose().to_owned())
    });
    write_keys(at, &keys.collect::<Vec<_>>());

    let mut random = Random(now().unix_ms());
    let mut tally = Tally::default();
    let mut batch = 0;
    while batch * (ROLES.len() as u64) < kills {
        batch += 1;
        kill_one_batch(at, batch, &mut random, &gate, &limiter, &mut tally);
    }
    println!("{kills} kills; {tally:?}");
    assert!(tally.all_happened(), "{tally:?}");
    // The middle of a change is so short that in a thousand kills it may be missed.
    let completed = tally.changes_completed_by_workers + tally.changes_completed_by_verify;
    assert!(completed > 0 || kills == KILLS[0], "{tally:?}");
}

/// What happened in all, so that nobody takes a test for one that tested nothing.
#[derive(Debug, Default)]
struct Tally {
    units_spent: i64,
    subjects_counted: i64,
    changes: usize,
    changes_in_flight: usize,
    changes_completed_by_workers: usize,
    changes_completed_by_verify: usize,
    files_created: usize,
    creations_in_flight: usize,
}

impl Tally {
    fn all_happened(&self) -> bool {
        self.units_spent > 0
            && self.subjects_counted > 0
            && self.changes > 0
            && self.changes_in_flight > 0
            && self.files_created > 0
            && self.creations_in_flight > 0
    }
}

fn kill_one_batch(
    at: &Path,
    batch: u64,
    random: &mut Random,
    gate: &Gate,
    limiter: &Limiter,
    tally: &mut Tally,
) {
    fs::create_dir(new_folder(at)).unwrap();
    let jobs = (0..).zip(ROLES).map(|(place, role)| {
        let number = batch * ROLES.len() as u64 + place;
        (role, Job { at: at.into(), batch, number })
    });
    let jobs: Vec<(&str, Job)> = jobs.collect();
    let mut workers: Vec<Worker> = jobs
        .iter()
        .map(|(role, job)| {
            let (batch, number) = (job.batch.to_string(), job.number.to_string());
            Worker::start(Worker::command(&[role, at.to_str().unwrap(), &batch, &number]))
        })
        .collect();
    for worker in &mut workers {
        assert_eq!(worker.answer().as_deref(), Some("ready"));
    }
    let mut deaths: Vec<u64> = workers.iter().map(|_| random.below(LIFE_MS * 1000)).collect();
    let mut passed = 0;
    while !workers.is_empty() {
        let (next, &death) = deaths.iter().enumerate().min_by_key(|(_, death)| **death).unwrap();
        thread::sleep(Duration::from_micros(death - passed));
        passed = death;
        workers.remove(next).kill();
        deaths.remove(next);
    }
    let of = |wanted: &str| -> Vec<&Job> {
        jobs.iter().filter(|(role, _)| *role == wanted).map(|(_, job)| job).collect()
    };
    counts_are_right(at, gate, &of("spend"), tally);
    subjects_are_right(limiter, &of("insert"), tally);
    changes_are_right(at, gate, &of("administer"), tally);
    files_are_right(at, &of("create"), tally);
    for (_, job) in &jobs {
        fs::remove_file(job.account()).unwrap();
    }
    fs::remove_dir_all(new_folder(at)).unwrap();
}

fn counts_are_right(at: &Path, gate: &Gate, jobs: &[&Job], tally: &mut Tally) {
    let now = when(jobs[0].batch);
    let (mut least, mut most) = ([0; SPENT], [0; SPENT]);
    for job in jobs {
        let numbers = Spent::read(job);
        for place in 0..SPENT {
            least[place] += numbers[place];
            most[place] += numbers[place];
        }
        let place = usize::try_from(numbers[SPENT]).unwrap();
        least[place] += numbers[SPENT + 1];
        most[place] += numbers[SPENT + 2];
    }
    for (place, (id, key)) in read_keys(at)[..SPENT].iter().enumerate() {
        let verdict = gate.table().peek(Some(key.as_bytes()), 1, now);
        assert!(verdict.is_admitted(), "key {id}: {:?}", verdict.reason());
        for quota in verdict.quotas().iter() {
            let counted = i64::from(quota.limit) - i64::from(quota.remaining);
            range(counted, least[place], most[place], &format!("key {id}, {:?}", quota.window));
            tally.units_spent += counted;
        }
    }
}

fn subjects_are_right(limiter: &Limiter, jobs: &[&Job], tally: &mut Tally) {
    let (now, batch) = (when(jobs[0].batch), jobs[0].batch);
    let mut least = vec![0; usize::try_from(SUBJECTS).unwrap()];
    let mut flying = least.clone();
    for job in jobs {
        let [done] = Numbers::<1>::read(job);
        let done = u64::try_from(done).unwrap();
        for op in 0..done {
            least[usize::try_from(subject(job.number, op)).unwrap()] += 1;
        }
        flying[usize::try_from(subject(job.number, done)).unwrap()] += 1;
    }
    let mut live = 0;
    for (number, (&least, &flying)) in (0_u64..).zip(least.iter().zip(&flying)) {
        let quota = limiter.table().peek(&number.to_le_bytes(), 1, now).quotas().longest().unwrap();
        let counted = i64::from(quota.limit) - i64::from(quota.remaining);
        range(counted, least, least + flying, &format!("subject {number}"));
        live += u64::from(counted > 0);
        tally.subjects_counted += counted;
    }
    assert_eq!(limiter.table().live_subjects(now), live, "a slot for each subject");
    // Whichever buckets the dead held, others get into them.
    promptly("inserting", || {
        for number in 0..SUBJECTS {
            assert!(limiter.table().check(&number.to_le_bytes(), 1, now).is_admitted(), "subject {number}");
        }
        assert_eq!(limiter.table().live_subjects(now), SUBJECTS);
        // Every slot can be used: now and then all are.
        let slots = limiter.table().slots_total();
        let mut other = SUBJECTS;
        while batch.is_multiple_of(16) && limiter.table().live_subjects(now) < slots {
            for _ in 0..1000 {
                limiter.table().check(&other.to_le_bytes(), 1, now);
                other += 1;
            }
        }
    });
}

/// What is known of a key.
#[derive(Debug, Default)]
struct Known {
    /// Its secrets, the present one last. All but the last two are no good any more.
    texts: Vec<String>,
    rotating: bool,
    revoking: bool,
    revoked: bool,
}

fn changes_are_right(at: &Path, gate: &Gate, jobs: &[&Job], tally: &mut Tally) {
    let (now, batch) = (when(jobs[0].batch), jobs[0].batch);
    let mut keys = read_keys(at);
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    for (id, key) in &keys {
        known.entry(id.to_string()).or_default().texts.push(key.clone());
    }
    // Keys and texts that may be there or not, and what the plan may be.
    let (mut unknown, mut imports, mut extras) = (0, Vec::new(), BTreeSet::<u64>::new());
    let mut in_flight = 0;
    for job in jobs {
        let Account { done, in_flight: begun, completed } = Lines::read(job);
        tally.changes += done.len();
        tally.changes_completed_by_workers += completed;
        for line in &done {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["new" | "rotate", id, key] => {
                    known.entry(id.to_owned()).or_default().texts.push(key.to_owned());
                }
                ["revoke", id] => known.get_mut(id).unwrap().revoked = true,
                ["assign" | "nothing"] => {}
                ["plan", one, other] => {
                    extras.extend([one, other].map(|extra| extra.parse::<u64>().unwrap()));
                }
                _ => panic!("{line}"),
            }
        }
        let Some(begun) = begun else { continue };
        in_flight += 1;
        match begun.split(' ').collect::<Vec<_>>()[..] {
            ["issue"] => unknown += 1,
            ["import", text] => {
                unknown += 1;
                imports.push(text.to_owned());
            }
            ["rotate", id] => known.get_mut(id).unwrap().rotating = true,
            ["revoke", id] => known.get_mut(id).unwrap().revoking = true,
            ["assign"] => {}
            ["plan", one, other] => extras.extend([one, other].map(|extra| extra.parse::<u64>().unwrap())),
            _ => panic!("{begun}"),
        }
    }
    tally.changes_in_flight += in_flight;

    let answers_are_right = |when: &str| {
        for (id, key) in &known {
            for (age, text) in key.texts.iter().rev().enumerate() {
                let verdict = gate.table().peek(Some(text.as_bytes()), 1, now);
                let what = format!("{when}, key {id}, secret {age} back: {:?} {key:?}", verdict.reason());
                if key.revoked || age > 1 {
                    assert_eq!(verdict.outcome(), Outcome::InvalidKey, "{what}");
                } else if verdict.reason() == Some(Reason::Revoked) {
                    assert!(key.revoking, "{what}");
                } else {
                    // The secret before the present one is in its grace, unless a rotation has begun.
                    assert!(verdict.is_admitted() || age == 1 && key.rotating, "{what}");
                }
            }
        }
    };
    answers_are_right("killed");
    let mut flaws = Vec::new();
    let completed = promptly("verifying", || gate.verify(|flaw| flaws.push(flaw)).unwrap());
    assert!(flaws.is_empty(), "{flaws:?}");
    assert!(!completed || in_flight > 0);
    tally.changes_completed_by_verify += usize::from(completed);
    assert!(!gate.verify(|flaw| panic!("{flaw}")).unwrap(), "one intent is completed once");
    answers_are_right("verified");

    // Every key that is there is one that is known, or one of those in flight.
    let mut left = Vec::new();
    for info in gate.table().list(now).filter(|info| info.state == KeyState::Active) {
        match known.get(&info.key_id.to_string()) {
            Some(key) => assert!(!key.revoked, "{info:?}"),
            None => unknown -= 1,
        }
        if keys.iter().all(|(id, _)| *id != info.key_id) {
            left.push(info.key_id);
        }
    }
    assert!(unknown >= 0, "more keys than were begun");
    let pro = gate.table().plans().find(|(_, plan)| plan.name == "pro").unwrap().1;
    // Both limits of the plan are those of one change.
    let limits = |plan: &Plan| plan.policy.quotas().iter().map(|quota| quota.limit).collect::<Vec<_>>();
    let extra = u64::from(limits(&pro)[0] - 100_000);
    assert_eq!(limits(&pro), limits(&plan("pro", extra)));
    assert!(extras.is_empty() || extras.contains(&extra), "{pro:?}");

    // The next administration succeeds, and makes room for the next batch.
    promptly("administering", || {
        gate.administer(|administrator| {
            for id in left {
                administrator.revoke(id)?;
            }
            for (id, text) in &mut keys {
                let key = &known[&id.to_string()];
                text.clone_from(key.texts.last().unwrap());
                if key.rotating {
                    let key = administrator.rotate(*id, grace_until(batch), true, entropy().unwrap(), now)?;
                    *text = key.expose().to_owned();
                }
            }
            Ok(())
        })
        .unwrap();
    });
    for text in imports {
        let verdict = gate.table().peek(Some(text.as_bytes()), 1, now);
        assert_eq!(verdict.outcome(), Outcome::InvalidKey);
    }
    write_keys(at, &keys);
}

fn files_are_right(at: &Path, jobs: &[&Job], tally: &mut Tally) {
    let mut names = BTreeSet::new();
    let mut begun = BTreeSet::new();
    for job in jobs {
        let Account { mut done, in_flight, .. } = Lines::read(job);
        tally.files_created += done.len();
        tally.creations_in_flight += usize::from(in_flight.is_some());
        // One more may still be there: it was about to be removed.
        if let Some(removed) = done.len().checked_sub(FILES) {
            begun.extend(done.drain(..removed).next_back());
        }
        names.extend(done);
        begun.extend(in_flight);
    }
    for entry in new_folder(at).read_dir().unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.ends_with("gate") {
            let gate = Gate::open(&path, peppers()).unwrap();
            assert!(!gate.verify(|flaw| panic!("{flaw}")).unwrap());
            assert_eq!(gate.list().len(), 0);
        } else {
            assert_eq!(Limiter::open(&path).unwrap().table().live_subjects(when(0)), 0);
        }
        assert!(names.remove(name) || begun.remove(name), "{name}: nobody made this");
    }
    assert!(names.is_empty(), "these are gone: {names:?}");
}
