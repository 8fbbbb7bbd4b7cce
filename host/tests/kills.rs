//! Kills thousands of processes with SIGKILL at random instants, several at a time on the same
//! files. Meanwhile they check, refund, settle, insert, reuse expired slots, issue, import, rotate,
//! revoke, assign, change plans and create files. Some of their requests charge the tallies of a
//! key, of its groups and of its team, or of an address and its larger networks.
//!
//! Each worker writes to a journal (a file of its own) what it is about to do and what it has done.
//! After a kill the parent therefore knows what was acknowledged and what was in flight, and
//! asserts: acknowledged ≤ counted ≤ acknowledged + in flight. Of a request in flight that charges
//! several tallies, the first ones in their order are charged, and the others are not.
//!
//! Workers run in batches. Each batch uses a time some hours after the batch before, so that all
//! slots and the records of revoked keys are reused.
//!
//! The suite makes a thousand kills, ten thousand if `KEYTALLY_FULL` is set, and two hundred if
//! `KEYTALLY_QUICK` is set: an emulator starts a process slowly.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;

use keytally::{
    Address, AddressLimiter, AdminError, Administrator, Charge, Error, Gate, GateConfig, KeyId,
    KeyState, Limiter, Mapping, Outcome, Plan, Reason, Settlement, Timestamp, entropy, now,
};

use crate::support::prompt::promptly;
use crate::support::random::Random;
use crate::support::worker::{Worker, folder, report, role, wait_for_kill};
use crate::support::{
    is_full, is_quick, may_be_left, new_key, open_limiter, peppers, read_keys, write_at, write_keys,
};

/// Returns the number of kills.
fn kills() -> u64 {
    if is_full() {
        10_000
    } else if is_quick() {
        200
    } else {
        1000
    }
}

/// The roles of one batch of workers, which run at the same time.
const ROLES: [&str; 12] = [
    "spend",
    "insert",
    "administer",
    "insert",
    "spend",
    "create",
    "insert",
    "administer",
    "request",
    "request",
    "address",
    "address",
];

/// Each worker is killed within this time after all workers of its batch are ready.
const LIFE_MS: u64 = 8;

/// The time between two batches. After it, everything that the batch before counted has expired.
const BATCH_S: u64 = 3 * 3600;

/// The number of permanent keys that are only charged and moved between plans.
const SPENT: usize = 4;

/// The number of permanent keys of each administrator, which only it rotates.
const ROTATED: usize = 3;

/// How often an administrator repeats a change under one lock. A single change is so short that a
/// kill would rarely hit it. A revocation is the shortest.
const MANY: u32 = 10;
const MANY_REVOCATIONS: u32 = 5000;

/// The number of different limits that the plan `pro` may get. An *extra* is what is added to the
/// least limits.
const EXTRAS: u64 = 50_000;

/// The most that one worker spends of one key. All workers together stay below the limit of a key.
const MAX_SPENT: i64 = 20_000;

const SUBJECTS: u64 = 1024;

/// Returns the time of a batch.
fn when(batch: u64) -> Timestamp {
    Timestamp::from_unix_s(1_700_000_000 + batch * BATCH_S)
}

/// Returns a plan whose limits are `extra` above the least ones.
fn plan(name: &str, extra: u64) -> Plan {
    let policy = format!("{}/minute, {}/hour", 100_000 + extra, 200_000 + extra);
    Plan::new(name, policy.parse().unwrap()).unwrap()
}

/// Issues keys at the time of the first batch.
fn issue_keys(gate: &Gate, count: usize) -> Vec<(KeyId, String)> {
    let issue = |_| {
        let issue = gate.administer(|administrator| {
            administrator.issue(&new_key(), entropy().unwrap(), when(0))
        });
        let (key, id) = issue.unwrap();
        (id, key.expose().to_owned())
    };
    (0..count).map(issue).collect()
}

fn open_gate(at: &Path) -> Gate {
    Gate::open(at.join("gate"), peppers()).unwrap()
}

// What the workers do.

/// The arguments of a worker: the folder, and which worker it is.
struct Job {
    at: PathBuf,
    batch: u64,
    number: u64,
}

impl Job {
    /// Returns the path of the worker's journal.
    fn journal(&self) -> PathBuf {
        self.at.join(format!("journal-{}", self.number))
    }

    /// Returns the index of this worker among the administrators of its batch.
    fn administrator(&self) -> usize {
        let before = &ROLES[..usize::try_from(self.number).unwrap() % ROLES.len()];
        before.iter().filter(|role| **role == "administer").count()
    }
}

/// Works until it is killed. Does nothing unless this process is a worker.
#[test]
fn worker() {
    let Some(words) = role() else { return };
    let [role, at, batch, number] = &words[..] else { panic!("{words:?}") };
    let job = Job { at: at.into(), batch: batch.parse().unwrap(), number: number.parse().unwrap() };
    match role.as_str() {
        "spend" => spend(&job),
        "request" => make_requests(&job),
        "address" => charge_addresses(&job),
        "insert" => insert(&job),
        "administer" => administer(&job),
        "create" => create(&job),
        _ => panic!("no such role: {role}"),
    }
}

/// A journal of numbers, written atomically by one call.
struct Numbers<const LEN: usize>(File);

impl<const LEN: usize> Numbers<LEN> {
    fn new(job: &Job) -> Self {
        Self(File::create_new(job.journal()).unwrap())
    }

    fn write(&self, numbers: [i64; LEN]) {
        write_at(&self.0, numbers.map(i64::to_le_bytes).as_flattened(), 0);
    }

    fn read(job: &Job) -> [i64; LEN] {
        let bytes = fs::read(job.journal()).unwrap();
        let mut words = bytes.as_chunks::<8>().0.iter().map(|word| i64::from_le_bytes(*word));
        core::array::from_fn(|_| words.next().unwrap())
    }
}

/// A journal of lines: `? …` for a change that begins, `! …` for one that is done, and `+` if the
/// unfinished change of a killed worker was completed.
struct Lines(File);

impl Lines {
    fn new(job: &Job) -> Self {
        Self(OpenOptions::new().create_new(true).append(true).open(job.journal()).unwrap())
    }

    fn begin(&mut self, what: &str) {
        self.0.write_all(format!("? {what}\n").as_bytes()).unwrap();
    }

    fn done(&mut self, what: &str) {
        self.0.write_all(format!("! {what}\n").as_bytes()).unwrap();
    }

    fn completed_unfinished(&mut self) {
        self.0.write_all(b"+ \n").unwrap();
    }

    fn read(job: &Job) -> Entries {
        let mut entries = Entries::default();
        let text = fs::read_to_string(job.journal()).unwrap();
        // A kill may truncate a line that crosses a page boundary.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        for line in text[..whole].lines() {
            match line.split_at(2) {
                ("? ", what) => entries.in_flight = Some(what.to_owned()),
                ("! ", what) => {
                    entries.done.push(what.to_owned());
                    entries.in_flight = None;
                }
                ("+ ", "") => entries.completed += 1,
                _ => panic!("{line}"),
            }
        }
        entries
    }
}

/// The contents of a journal of lines.
#[derive(Default)]
struct Entries {
    done: Vec<String>,
    in_flight: Option<String>,
    completed: usize,
}

/// The journal of a worker that spends: the cost charged to each key. Then, for the step in flight,
/// the index of its key, and the least and the most that it charges.
type Spent = Numbers<{ SPENT + 3 }>;

/// Checks, refunds and settles.
fn spend(job: &Job) {
    let (gate, now) = (open_gate(&job.at), when(job.batch));
    let keys = read_keys(&job.at);
    let mut random = Random(job.number);
    let journal = Spent::new(job);
    let mut numbers = [0; SPENT + 3];
    journal.write(numbers);
    report("ready");
    loop {
        let index = usize::try_from(random.below(SPENT as u64)).unwrap();
        let (id, key) = (keys[index].0, keys[index].1.as_bytes());
        let mut step = |least: i64, most: i64, work: &dyn Fn() -> i64| {
            numbers[SPENT..].copy_from_slice(&[i64::try_from(index).unwrap(), least, most]);
            journal.write(numbers);
            let spent = work();
            assert!((least..=most).contains(&spent), "{least} {spent} {most}");
            numbers[index] += spent;
            numbers[SPENT..].copy_from_slice(&[0; 3]);
            journal.write(numbers);
            numbers[index]
        };
        let check = |cost: u32| {
            let verdict = gate.table().check(Some(key), cost, now);
            assert_eq!(verdict.outcome(), Outcome::Admitted, "{:?}", verdict.reason());
            verdict.charge().unwrap()
        };
        let burst = |times: u32| (0..times).map(|_| i64::from(check(1).cost())).sum();
        let spent = step(0, 16, &|| burst(16));
        let estimate = Charge::new(u32::try_from(random.below(20)).unwrap() + 1, now);
        step(0, estimate.cost().into(), &|| i64::from(check(estimate.cost()).cost()));
        let actual = u32::try_from(random.below(40)).unwrap();
        let change = i64::from(actual) - i64::from(estimate.cost());
        match random.below(2) {
            0 => step(-i64::from(estimate.cost()), 0, &|| {
                gate.table().refund(id, estimate, now).unwrap();
                -i64::from(estimate.cost())
            }),
            _ => step(change.min(0), change.max(0), &|| {
                assert_eq!(gate.table().settle(id, estimate, actual, now).unwrap().uncharged(), 0);
                change
            }),
        };
        if spent > MAX_SPENT {
            wait_for_kill();
        }
    }
}

/// The number of keys of one team to which workers make requests.
const REQUESTED: usize = 2;

/// The number of tallies that these requests charge: three of each key, and that of the team.
const TALLIES: usize = 3 * REQUESTED + 1;

/// The most tallies of one request: those of its key and its groups, and that of the team.
const STEPS: usize = 4;

/// The journal of a worker that makes requests: the units charged to each tally. Then, for the
/// request in flight, the tallies that it changes in their order, and by how many units.
type Requests = Numbers<{ TALLIES + 2 * STEPS }>;

/// Creates the gate with keys of one team, and the file `keys` of its folder.
fn create_team(at: &Path) -> Gate {
    const PLAN: &str = "1000000/hour; team: 4000000/hour; \
         group write: 1000000/minute; group tokens: 100000000/hour";
    fs::create_dir(at).unwrap();
    let plans = vec![Plan::new("default", PLAN.parse().unwrap()).unwrap()];
    let config = GateConfig::default().with_keys(8).with_plans(plans);
    let gate = Gate::create(at.join("gate"), peppers(), &config).unwrap();
    write_keys(at, &issue_keys(&gate, REQUESTED));
    gate
}

/// Returns the folder of the gate with keys of one team.
fn team_folder(at: &Path) -> PathBuf {
    at.join("team")
}

/// Makes requests that charge a key, its groups and its team, and then refunds or settles them.
fn make_requests(job: &Job) {
    let at = team_folder(&job.at);
    let (gate, now, keys) = (open_gate(&at), when(job.batch), read_keys(&at));
    let mut random = Random(job.number);
    let mut below = |bound: u64| u32::try_from(random.below(bound)).unwrap();
    let journal = Requests::new(job);
    let mut numbers = [0; TALLIES + 2 * STEPS];
    journal.write(numbers);
    report("ready");
    loop {
        let index = usize::try_from(below(REQUESTED as u64)).unwrap();
        let (id, text) = &keys[index];
        let [key, write, tokens, team] = [3 * index, 3 * index + 1, 3 * index + 2, TALLIES - 1];
        let mut step = |changes: [(usize, i64); STEPS], work: &dyn Fn() -> Option<Charge>| {
            for (at, (tally, units)) in changes.into_iter().enumerate() {
                numbers[TALLIES + 2 * at] = i64::try_from(tally).unwrap();
                numbers[TALLIES + 2 * at + 1] = units;
            }
            journal.write(numbers);
            let charge = work();
            for (tally, units) in changes {
                numbers[tally] += units;
            }
            numbers[TALLIES..].fill(0);
            journal.write(numbers);
            assert!(numbers[team] < 2_000_000, "the team has room");
            charge
        };
        let [cost, most_tokens, actual, actual_tokens] =
            [20, 200, 40, 400].map(|most| below(most) + 1);
        let [units, of_tokens] = [cost, most_tokens].map(i64::from);
        let changes = [(key, units), (write, units), (tokens, of_tokens), (team, units)];
        let charge = step(changes, &|| {
            let part = gate.table().part(Some(text.as_bytes()), cost).with_group("write").unwrap();
            let all = part.with_group_cost("tokens", most_tokens).unwrap().check(now);
            assert!(all.is_admitted(), "{all:?}");
            all.charge(0)
        });
        let charge = charge.unwrap();
        if below(2) == 0 {
            // A refund takes the tallies in the order of the sections.
            let changes = [(key, -units), (team, -units), (write, -units), (tokens, -of_tokens)];
            step(changes, &|| {
                gate.table().refund(*id, charge, now).unwrap();
                None
            });
        } else {
            let [own, of_tokens] =
                [i64::from(actual) - units, i64::from(actual_tokens) - of_tokens];
            let changes = [(key, own), (write, own), (team, own), (tokens, of_tokens)];
            let settlement =
                Settlement::new().with_cost(actual).with_group("tokens", actual_tokens);
            step(changes, &|| {
                let settled = gate.table().settle_all(*id, charge, &settlement, now).unwrap();
                assert_eq!((settled.verdict.uncharged(), settled.uncharged()), (0, &[0][..]));
                None
            });
        }
    }
}

/// The clients of a limiter of addresses. Each has the indexes of the tallies of its networks, the
/// largest network first.
const CLIENTS: [(&str, [usize; 3]); 3] = [
    ("2001:db8:1:100::1", [0, 1, 2]),
    ("2001:db8:1:101::1", [0, 1, 3]),
    ("2001:db8:1:200::1", [0, 4, 5]),
];

/// The number of networks of all clients.
const NETWORKS: usize = 6;

/// The journal of a worker that charges addresses: the units charged to each network. Then, for the
/// request in flight, the networks that it changes in their order, and by how many units.
type Networks = Numbers<{ NETWORKS + 2 * 3 }>;

fn addresses_path(at: &Path) -> PathBuf {
    at.join("addresses")
}

fn client(text: &str) -> Address {
    Address::parse(text).unwrap()
}

/// Charges addresses, and refunds some of the charges.
fn charge_addresses(job: &Job) {
    let limiter = AddressLimiter::open(addresses_path(&job.at)).unwrap();
    let (now, mut random) = (when(job.batch), Random(job.number));
    let journal = Networks::new(job);
    let mut numbers = [0; NETWORKS + 2 * 3];
    journal.write(numbers);
    report("ready");
    loop {
        let (text, networks) = CLIENTS[usize::try_from(random.below(3)).unwrap()];
        let mut step = |changes: [(usize, i64); 3], work: &dyn Fn() -> Option<Charge>| {
            for (at, (network, units)) in changes.into_iter().enumerate() {
                numbers[NETWORKS + 2 * at] = i64::try_from(network).unwrap();
                numbers[NETWORKS + 2 * at + 1] = units;
            }
            journal.write(numbers);
            let charge = work();
            for (network, units) in changes {
                numbers[network] += units;
            }
            numbers[NETWORKS..].fill(0);
            journal.write(numbers);
            charge
        };
        let cost = u32::try_from(random.below(20)).unwrap() + 1;
        let units = i64::from(cost);
        let charge = step(networks.map(|network| (network, units)), &|| {
            let all = limiter.table().check(client(text), cost, now);
            assert!(all.is_admitted(), "{all:?}");
            all.charge(0)
        });
        if random.below(2) == 0 {
            // A refund begins with the client's own network.
            let [largest, larger, own] = networks.map(|network| (network, -units));
            step([own, larger, largest], &|| {
                limiter.table().refund(client(text), charge.unwrap(), now);
                None
            });
        }
    }
}

/// The subject that a worker checks in its `op`th operation. Two workers run in the same direction.
/// The second one finds what the first one inserts, which is faster, so it catches up, and both
/// then insert the same subjects at the same time. The remaining worker runs in the opposite
/// direction.
fn subject(number: u64, op: u64) -> u64 {
    let roles = ROLES.len() as u64;
    let step = if number % roles == 1 { SUBJECTS - 1 } else { 1 };
    (number / roles * 37 + op * step) % SUBJECTS
}

/// Inserts subjects into a table whose slots are all expired, or finds them there.
fn insert(job: &Job) {
    let (limiter, now) = (open_limiter(&job.at), when(job.batch));
    let journal = Numbers::<1>::new(job);
    journal.write([0]);
    report("ready");
    for op in 0.. {
        let verdict = limiter.table().check(&subject(job.number, op).to_le_bytes(), 1, now);
        assert!(verdict.is_admitted(), "{}", verdict.outcome());
        journal.write([i64::try_from(op).unwrap() + 1]);
    }
}

/// Returns the end of the grace period of a rotation in a batch: the time of the fourth batch after
/// it.
fn grace_until(batch: u64) -> Option<Timestamp> {
    Some(when(batch + 4))
}

/// Issues, imports, rotates, revokes, assigns and changes a plan.
fn administer(job: &Job) {
    let keys = read_keys(&job.at);
    let first_rotated = SPENT + job.administrator() * ROTATED;
    let mut changes = Changes {
        job,
        gate: open_gate(&job.at),
        now: when(job.batch),
        spent: keys[..SPENT].iter().map(|(id, _)| *id).collect(),
        rotated: keys[first_rotated..first_rotated + ROTATED].iter().map(|(id, _)| *id).collect(),
        own: Vec::new(),
        random: Random(job.number),
        journal: Lines::new(job),
    };
    report("ready");
    loop {
        match changes.random.below(9) {
            0 => changes.issue(),
            1 => changes.import(),
            2 | 3 => changes.rotate(),
            4 if !changes.own.is_empty() => changes.revoke(),
            5 => changes.assign(),
            6 => changes.set_plan(),
            7 => changes.assign_repeatedly(),
            _ => changes.set_plan_repeatedly(),
        }
    }
}

/// The changes of one administrator, each with its lines in the journal.
struct Changes<'a> {
    job: &'a Job,
    gate: Gate,
    now: Timestamp,
    /// Permanent keys that are only charged and moved between plans.
    spent: Vec<KeyId>,
    /// Permanent keys that only this administrator rotates.
    rotated: Vec<KeyId>,
    /// Keys that this administrator issued or imported and has not revoked.
    own: Vec<KeyId>,
    random: Random,
    journal: Lines,
}

impl Changes<'_> {
    fn issue(&mut self) {
        self.journal.begin("issue");
        let (entropy, now) = (entropy().unwrap(), self.now);
        match self.change(|administrator| administrator.issue(&new_key(), entropy, now)) {
            Ok((key, id)) => {
                self.journal.done(&format!("new {id} {}", key.expose()));
                self.own.push(id);
            }
            Err(Error::Admin { source: AdminError::Full { .. }, .. }) => {
                self.journal.done("nothing");
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn import(&mut self) {
        let text = format!("foreign-key-{}-{}", self.job.number, self.random.below(1 << 40));
        self.journal.begin(&format!("import {text}"));
        let now = self.now;
        match self.change(|administrator| administrator.import(text.as_bytes(), &new_key(), now)) {
            Ok(id) => {
                self.journal.done(&format!("new {id} {text}"));
                self.own.push(id);
            }
            Err(Error::Admin { source: AdminError::NoRoomToImport, .. }) => {
                self.journal.done("nothing");
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn rotate(&mut self) {
        let id = self.random_rotated();
        self.journal.begin(&format!("rotate {id}"));
        let (until, now) = (grace_until(self.job.batch), self.now);
        let key = self
            .change(|administrator| administrator.rotate(id, until, true, entropy().unwrap(), now));
        self.journal.done(&format!("rotate {id} {}", key.unwrap().expose()));
    }

    fn revoke(&mut self) {
        let index = self.index_below(self.own.len());
        let id = self.own.remove(index);
        self.journal.begin(&format!("revoke {id}"));
        self.change(|administrator| {
            (0..MANY_REVOCATIONS).try_for_each(|_| administrator.revoke(id))
        })
        .unwrap();
        self.journal.done(&format!("revoke {id}"));
    }

    fn assign(&mut self) {
        let index = self.index_below(SPENT);
        let id = self.spent[index];
        let plan = ["default", "pro"][self.index_below(2)];
        self.journal.begin("assign");
        self.change(|administrator| administrator.assign(id, plan)).unwrap();
        self.journal.done("assign");
    }

    fn set_plan(&mut self) {
        let extra = self.random.below(EXTRAS);
        self.journal.begin(&format!("plan {extra} {extra}"));
        self.change(|administrator| administrator.set_plan(&plan("pro", extra))).unwrap();
        self.journal.done(&format!("plan {extra} {extra}"));
    }

    fn assign_repeatedly(&mut self) {
        let id = self.random_rotated();
        self.journal.begin("assign");
        self.change(|administrator| {
            (0..MANY).try_for_each(|_| {
                administrator.assign(id, "default")?;
                administrator.assign(id, "pro")
            })
        })
        .unwrap();
        self.journal.done("assign");
    }

    fn set_plan_repeatedly(&mut self) {
        let [one, other] = [(); 2].map(|()| self.random.below(EXTRAS));
        let plans = [plan("pro", one), plan("pro", other)];
        self.journal.begin(&format!("plan {one} {other}"));
        self.change(|administrator| {
            (0..MANY)
                .try_for_each(|_| plans.iter().try_for_each(|plan| administrator.set_plan(plan)))
        })
        .unwrap();
        self.journal.done(&format!("plan {other} {other}"));
    }

    /// Returns a random key that only this administrator changes.
    fn random_rotated(&mut self) -> KeyId {
        let index = self.index_below(self.rotated.len() + self.own.len());
        *self.rotated.iter().chain(&self.own).nth(index).unwrap()
    }

    /// Returns a random index below `len`.
    fn index_below(&mut self, len: usize) -> usize {
        usize::try_from(self.random.below(len as u64)).unwrap()
    }

    /// Makes one change. If this first completed the change of a killed administrator, writes that
    /// to the journal.
    fn change<T>(
        &mut self,
        work: impl FnOnce(&mut Administrator<'_, Mapping>) -> Result<T, AdminError>,
    ) -> Result<T, Error> {
        self.gate.administer(|administrator| {
            if administrator.has_recovered() {
                self.journal.completed_unfinished();
            }
            work(administrator)
        })
    }
}

/// Returns the folder in which workers create files.
fn new_folder(at: &Path) -> PathBuf {
    at.join("new")
}

/// The number of its own files that a worker keeps. It removes older ones.
const FILES: usize = 8;

/// Creates gates and limiters.
fn create(job: &Job) {
    let mut journal = Lines::new(job);
    report("ready");
    for count in 0.. {
        let name =
            |count: usize| format!("{}-{count}-{}", job.number, ["gate", "limiter"][count % 2]);
        let path = |count| new_folder(&job.at).join(name(count));
        if count > FILES {
            fs::remove_file(path(count - FILES - 1)).unwrap();
        }
        let (name, path) = (name(count), path(count));
        journal.begin(&name);
        if count % 2 == 0 {
            let plans = vec![plan("default", 0)];
            Gate::create(&path, peppers(), &GateConfig::default().with_keys(8).with_plans(plans))
                .unwrap();
        } else {
            Limiter::create(&path, &"1/hour".parse().unwrap(), 8).unwrap();
        }
        journal.done(&name);
    }
}

// What the parent does. The file `keys` holds the permanent keys with their present texts: first
// those that are only charged, then those that are rotated.

fn assert_between(counted: i64, least: i64, most: i64, what: &str) {
    assert!(
        (least..=most).contains(&counted),
        "{what}: {counted} are counted, and not {least} to {most}"
    );
}

#[test]
fn kill_at_a_random_instant_loses_nothing() {
    let kills = kills();
    let folder = folder();
    let at = folder.path();
    let config = GateConfig::default()
        .with_keys(1024)
        .with_plans(vec![plan("default", 0), plan("pro", 50_000)]);
    let gate = Gate::create(at.join("gate"), peppers(), &config).unwrap();
    let limiter = Limiter::create(
        at.join("limiter"),
        &"100000/hour".parse().unwrap(),
        u32::try_from(SUBJECTS).unwrap(),
    )
    .unwrap();
    let administrators = ROLES.iter().filter(|role| **role == "administer").count();
    write_keys(at, &issue_keys(&gate, SPENT + administrators * ROTATED));

    let team = create_team(&team_folder(at));
    let policy = "addresses: /64 100000000/hour; /56 200000000/hour; /48 400000000/hour";
    let addresses =
        AddressLimiter::create(addresses_path(at), &policy.parse().unwrap(), 8).unwrap();

    let mut random = Random(now().unix_ms());
    let mut totals = Totals::default();
    let mut batch = 0;
    while batch * (ROLES.len() as u64) < kills {
        batch += 1;
        kill_one_batch(at, batch, &mut random, (&gate, &team, &limiter, &addresses), &mut totals);
    }
    println!("{kills} kills; {totals:?}");
    assert!(totals.all_happened(), "{totals:?}");
    // Few kills may hit no request between two of its charges.
    assert!(totals.requests_in_part > 0 || is_quick(), "{totals:?}");
    // A change is so short that a thousand kills may miss all of them.
    let completed = totals.changes_completed_by_workers + totals.changes_completed_by_verify;
    assert!(completed > 0 || !is_full(), "{totals:?}");
}

/// Totals over all batches, which show that the test had an effect.
#[derive(Debug, Default)]
struct Totals {
    units_spent: i64,
    requests_in_flight: usize,
    /// Requests of which some tallies were changed, and others not.
    requests_in_part: usize,
    addresses_in_flight: usize,
    addresses_in_part: usize,
    subjects_counted: i64,
    changes: usize,
    changes_in_flight: usize,
    changes_completed_by_workers: usize,
    changes_completed_by_verify: usize,
    files_created: usize,
    creations_in_flight: usize,
}

impl Totals {
    fn all_happened(&self) -> bool {
        self.units_spent > 0
            && self.requests_in_flight > 0
            && self.addresses_in_flight > 0
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
    (gate, team, limiter, addresses): (&Gate, &Gate, &Limiter, &AddressLimiter),
    totals: &mut Totals,
) {
    fs::create_dir(new_folder(at)).unwrap();
    let jobs = (0..).zip(ROLES).map(|(index, role)| {
        let number = batch * ROLES.len() as u64 + index;
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
        assert_eq!(worker.next_report().as_deref(), Some("ready"));
    }
    let mut times: Vec<u64> = workers.iter().map(|_| random.below(LIFE_MS * 1000)).collect();
    let mut passed = 0;
    while !workers.is_empty() {
        let (next, &time) = times.iter().enumerate().min_by_key(|(_, time)| **time).unwrap();
        thread::sleep(Duration::from_micros(time - passed));
        passed = time;
        workers.remove(next).kill();
        times.remove(next);
    }
    let jobs_of = |wanted: &str| -> Vec<&Job> {
        jobs.iter().filter(|(role, _)| *role == wanted).map(|(_, job)| job).collect()
    };
    assert_counts(at, gate, &jobs_of("spend"), totals);
    assert_requests(at, team, &jobs_of("request"), totals);
    assert_networks(addresses, &jobs_of("address"), totals);
    assert_subjects(limiter, &jobs_of("insert"), totals);
    assert_changes(at, gate, &jobs_of("administer"), totals);
    assert_files(at, &jobs_of("create"), totals);
    for (_, job) in &jobs {
        fs::remove_file(job.journal()).unwrap();
    }
    fs::remove_dir_all(new_folder(at)).unwrap();
}

/// Asserts that each key counts what the journals say.
fn assert_counts(at: &Path, gate: &Gate, jobs: &[&Job], totals: &mut Totals) {
    let now = when(jobs[0].batch);
    let (mut least, mut most) = ([0; SPENT], [0; SPENT]);
    for job in jobs {
        let numbers = Spent::read(job);
        for index in 0..SPENT {
            least[index] += numbers[index];
            most[index] += numbers[index];
        }
        let index = usize::try_from(numbers[SPENT]).unwrap();
        least[index] += numbers[SPENT + 1];
        most[index] += numbers[SPENT + 2];
    }
    for (index, (id, key)) in read_keys(at)[..SPENT].iter().enumerate() {
        let verdict = gate.table().peek(Some(key.as_bytes()), 1, now);
        assert!(verdict.is_admitted(), "key {id}: {:?}", verdict.reason());
        for quota in verdict.quotas().iter() {
            let counted = i64::from(quota.limit) - i64::from(quota.remaining);
            assert_between(
                counted,
                least[index],
                most[index],
                &format!("key {id}, {:?}", quota.window),
            );
            totals.units_spent += counted;
        }
    }
}

/// Asserts that each tally counts what the journals say. Of each request in flight, the first
/// changes were made, in their order, and the others not.
fn assert_requests(at: &Path, gate: &Gate, jobs: &[&Job], totals: &mut Totals) {
    let now = when(jobs[0].batch);
    let keys = read_keys(&team_folder(at));
    let counted = || {
        let mut counts = Vec::new();
        let mut team = 0;
        for (_, text) in &keys {
            let part = gate.table().part(Some(text.as_bytes()), 0).with_group("write").unwrap();
            let all = part.with_group("tokens").unwrap().peek(now);
            assert!(all.is_admitted(), "{all:?}");
            let [key, of_team, write, tokens] = [0, 1, 2, 3].map(|tally| {
                let quotas = all.tallies()[tally].verdict().quotas();
                i64::from(quotas.iter().next().unwrap().used())
            });
            counts.extend([key, write, tokens]);
            team = of_team;
        }
        counts.push(team);
        counts
    };
    let journals: Vec<_> = jobs.iter().map(|job| Requests::read(job)).collect();
    let counts = counted();
    let in_part = assert_in_order(&counts, &journals, &mut totals.requests_in_flight);
    totals.requests_in_part += usize::from(in_part);
    // The next request is charged to all tallies.
    for (_, text) in &keys {
        let part = gate.table().part(Some(text.as_bytes()), 1).with_group("write").unwrap();
        assert!(
            promptly("requesting", || part.with_group("tokens").unwrap().check(now)).is_admitted()
        );
    }
    let more = [1, 1, 1, 1, 1, 1, 2];
    assert_eq!(
        counted(),
        counts.iter().zip(more).map(|(count, more)| count + more).collect::<Vec<_>>()
    );
}

/// Asserts that each network counts what the journals say, as [`assert_requests`] does.
fn assert_networks(addresses: &AddressLimiter, jobs: &[&Job], totals: &mut Totals) {
    let now = when(jobs[0].batch);
    let counted = || {
        let mut counts = [0; NETWORKS];
        for (text, networks) in CLIENTS {
            let all = addresses.table().peek(client(text), 0, now);
            // The verdicts begin with the client's own network.
            for (network, verdict) in networks.into_iter().rev().zip(all.verdicts()) {
                counts[network] = i64::from(verdict.quotas().iter().next().unwrap().used());
            }
        }
        counts
    };
    let (mut counts, journals) =
        (counted(), jobs.iter().map(|job| Networks::read(job)).collect::<Vec<_>>());
    let in_part = assert_in_order(&counts, &journals, &mut totals.addresses_in_flight);
    totals.addresses_in_part += usize::from(in_part);
    // The next request of each client is charged to all of its networks.
    for (text, networks) in CLIENTS {
        let next = promptly("charging", || addresses.table().check(client(text), 1, now));
        assert!(next.is_admitted(), "{next:?}");
        networks.into_iter().for_each(|network| counts[network] += 1);
    }
    assert_eq!(counted(), counts);
    assert_eq!(addresses.table().live_subjects(now), NETWORKS as u64);
}

/// Asserts that tallies count what the journals say. Of each request in flight, the first changes
/// were made, in their order, and the others not. Returns whether one was surely made in part.
fn assert_in_order<const LEN: usize>(
    counts: &[i64],
    journals: &[[i64; LEN]],
    requests_in_flight: &mut usize,
) -> bool {
    let tallies = counts.len();
    let mut acknowledged = vec![0; tallies];
    let mut in_flight = Vec::new();
    for numbers in journals {
        acknowledged.iter_mut().zip(numbers).for_each(|(sum, units)| *sum += units);
        let changes = numbers[tallies..].as_chunks().0.iter().copied();
        let changes: Vec<[i64; 2]> = changes.filter(|[_, units]| *units != 0).collect();
        *requests_in_flight += usize::from(!changes.is_empty());
        in_flight.push(changes);
    }
    // The counts after each number of changes of each request, and whether one is made in part.
    let mut possible = vec![(acknowledged, false)];
    for changes in &in_flight {
        let after = |(counts, in_part): &(Vec<i64>, bool), made: usize| {
            let mut counts = counts.clone();
            for [tally, units] in &changes[..made] {
                counts[usize::try_from(*tally).unwrap()] += units;
            }
            (counts, *in_part || (1..changes.len()).contains(&made))
        };
        let before = possible;
        let all = |made| before.iter().map(move |counts| after(counts, made));
        possible = (0..=changes.len()).flat_map(all).collect();
    }
    let found: Vec<bool> =
        possible.iter().filter(|(sum, _)| sum == counts).map(|(_, in_part)| *in_part).collect();
    assert!(!found.is_empty(), "{counts:?} are counted: {possible:?}, {in_flight:?}");
    !found.contains(&false)
}

/// Asserts that each subject counts what the journals say. In every sixteenth batch, also asserts
/// that every slot can be used.
fn assert_subjects(limiter: &Limiter, jobs: &[&Job], totals: &mut Totals) {
    let (now, batch) = (when(jobs[0].batch), jobs[0].batch);
    let mut least = vec![0; usize::try_from(SUBJECTS).unwrap()];
    let mut in_flight = least.clone();
    for job in jobs {
        let [done] = Numbers::<1>::read(job);
        let done = u64::try_from(done).unwrap();
        for op in 0..done {
            least[usize::try_from(subject(job.number, op)).unwrap()] += 1;
        }
        in_flight[usize::try_from(subject(job.number, done)).unwrap()] += 1;
    }
    let mut live = 0;
    for (number, (&least, &in_flight)) in (0_u64..).zip(least.iter().zip(&in_flight)) {
        let quota = limiter.table().peek(&number.to_le_bytes(), 1, now).quotas().longest().unwrap();
        let counted = i64::from(quota.limit) - i64::from(quota.remaining);
        assert_between(counted, least, least + in_flight, &format!("subject {number}"));
        live += u64::from(counted > 0);
        totals.subjects_counted += counted;
    }
    assert_eq!(limiter.table().live_subjects(now), live, "a slot for each subject");
    // Other inserters can use the buckets that killed workers had locked.
    promptly("inserting", || {
        for number in 0..SUBJECTS {
            assert!(
                limiter.table().check(&number.to_le_bytes(), 1, now).is_admitted(),
                "subject {number}"
            );
        }
        assert_eq!(limiter.table().live_subjects(now), SUBJECTS);
        // In every sixteenth batch, subjects are inserted until all slots are in use.
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

/// The state of a key by the journals.
#[derive(Debug, Default)]
struct Known {
    /// Its secrets, the present one last. All but the last two are invalid.
    texts: Vec<String>,
    /// Whether a rotation was in flight.
    rotating: bool,
    /// Whether a revocation was in flight.
    revoking: bool,
    revoked: bool,
}

/// The state that the journals of all administrators of a batch lead to.
#[derive(Default)]
struct Expected {
    known: BTreeMap<String, Known>,
    /// The number of new keys that were in flight. They may exist or not.
    keys_in_flight: usize,
    /// The texts of imports that were in flight.
    imports: Vec<String>,
    /// The extras that the plan `pro` may have.
    extras: BTreeSet<u64>,
    /// Whether a change of that plan was done. Otherwise the plan may also be what it was before.
    is_plan_changed: bool,
    in_flight: usize,
    done: usize,
    completed: usize,
}

impl Expected {
    fn read(keys: &[(KeyId, String)], jobs: &[&Job]) -> Self {
        let mut expected = Self::default();
        for (id, key) in keys {
            expected.known.entry(id.to_string()).or_default().texts.push(key.clone());
        }
        for job in jobs {
            let Entries { done, in_flight, completed } = Lines::read(job);
            expected.done += done.len();
            expected.completed += completed;
            for line in &done {
                expected.add_done(line);
            }
            if let Some(line) = in_flight {
                expected.in_flight += 1;
                expected.add_in_flight(&line);
            }
        }
        expected
    }

    fn add_done(&mut self, line: &str) {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["new" | "rotate", id, key] => {
                self.known.entry(id.to_owned()).or_default().texts.push(key.to_owned());
            }
            ["revoke", id] => self.known.get_mut(id).unwrap().revoked = true,
            ["assign" | "nothing"] => {}
            ["plan", one, other] => {
                self.is_plan_changed = true;
                self.add_extras([one, other]);
            }
            _ => panic!("{line}"),
        }
    }

    fn add_in_flight(&mut self, line: &str) {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["issue"] => self.keys_in_flight += 1,
            ["import", text] => {
                self.keys_in_flight += 1;
                self.imports.push(text.to_owned());
            }
            ["rotate", id] => self.known.get_mut(id).unwrap().rotating = true,
            ["revoke", id] => self.known.get_mut(id).unwrap().revoking = true,
            ["assign"] => {}
            ["plan", one, other] => self.add_extras([one, other]),
            _ => panic!("{line}"),
        }
    }

    fn add_extras(&mut self, extras: [&str; 2]) {
        self.extras.extend(extras.map(|extra| extra.parse::<u64>().unwrap()));
    }

    /// Asserts that every secret is valid or invalid as the journals say.
    fn assert_checks(&self, gate: &Gate, now: Timestamp, when: &str) {
        for (id, key) in &self.known {
            for (age, text) in key.texts.iter().rev().enumerate() {
                let verdict = gate.table().peek(Some(text.as_bytes()), 1, now);
                let what = format!(
                    "{when}, key {id}, secret {age} before the present one: {:?} {key:?}",
                    verdict.reason()
                );
                if key.revoked || age > 1 {
                    assert_eq!(verdict.outcome(), Outcome::InvalidKey, "{what}");
                } else if verdict.reason() == Some(Reason::Revoked) {
                    assert!(key.revoking, "{what}");
                } else {
                    // The secret before the present one is in its grace, unless a rotation has
                    // begun.
                    assert!(verdict.is_admitted() || age == 1 && key.rotating, "{what}");
                }
            }
        }
    }

    /// Asserts that every key in the gate is known, or was in flight. Returns the keys that the
    /// batch has added.
    fn assert_list(&self, gate: &Gate, now: Timestamp, keys: &[(KeyId, String)]) -> Vec<KeyId> {
        let mut unknown = 0;
        let mut added = Vec::new();
        for info in gate.table().list(now).filter(|info| info.state == KeyState::Active) {
            match self.known.get(&info.key_id.to_string()) {
                Some(key) => assert!(!key.revoked, "{info:?}"),
                None => unknown += 1,
            }
            if keys.iter().all(|(id, _)| *id != info.key_id) {
                added.push(info.key_id);
            }
        }
        let in_flight = self.keys_in_flight;
        assert!(unknown <= in_flight, "{unknown} unknown keys, and {in_flight} in flight");
        added
    }

    /// Asserts that both limits of the plan `pro` are those of one change.
    fn assert_plan(&self, gate: &Gate) {
        let pro = gate.table().plans().find(|(_, plan)| plan.name == "pro").unwrap().1;
        let limits = |plan: &Plan| {
            plan.sections
                .iter()
                .next()
                .unwrap()
                .quotas()
                .iter()
                .map(|quota| quota.limit)
                .collect::<Vec<_>>()
        };
        let extra = u64::from(limits(&pro)[0] - 100_000);
        assert_eq!(limits(&pro), limits(&plan("pro", extra)));
        assert!(!self.is_plan_changed || self.extras.contains(&extra), "{pro:?}");
    }
}

/// Asserts that keys and plans are as the journals say, before and after `verify`.
fn assert_changes(at: &Path, gate: &Gate, jobs: &[&Job], totals: &mut Totals) {
    let (now, batch) = (when(jobs[0].batch), jobs[0].batch);
    let mut keys = read_keys(at);
    let expected = Expected::read(&keys, jobs);
    totals.changes += expected.done;
    totals.changes_in_flight += expected.in_flight;
    totals.changes_completed_by_workers += expected.completed;

    expected.assert_checks(gate, now, "killed");
    let mut flaws = Vec::new();
    let completed = promptly("verifying", || gate.verify(|flaw| flaws.push(flaw)).unwrap());
    assert!(flaws.is_empty(), "{flaws:?}");
    assert!(!completed || expected.in_flight > 0);
    totals.changes_completed_by_verify += usize::from(completed);
    assert!(
        !gate.verify(|flaw| panic!("{flaw}")).unwrap(),
        "an unfinished change is completed only once"
    );
    expected.assert_checks(gate, now, "verified");
    let added = expected.assert_list(gate, now, &keys);
    expected.assert_plan(gate);

    promptly("administering", || make_room(gate, added, &mut keys, &expected, batch));
    for text in &expected.imports {
        let verdict = gate.table().peek(Some(text.as_bytes()), 1, now);
        assert_eq!(verdict.outcome(), Outcome::InvalidKey);
    }
    write_keys(at, &keys);
}

/// Makes room for the next batch: revokes the keys that this one added, and ends the rotations that
/// were in flight.
fn make_room(
    gate: &Gate,
    added: Vec<KeyId>,
    keys: &mut [(KeyId, String)],
    expected: &Expected,
    batch: u64,
) {
    gate.administer(|administrator| {
        for id in added {
            administrator.revoke(id)?;
        }
        for (id, text) in keys {
            let key = &expected.known[&id.to_string()];
            text.clone_from(key.texts.last().unwrap());
            if key.rotating {
                let until = grace_until(batch);
                let key =
                    administrator.rotate(*id, until, true, entropy().unwrap(), when(batch))?;
                *text = key.expose().to_owned();
            }
        }
        Ok(())
    })
    .unwrap();
}

/// Asserts that the files are those of the journals, and that all of them open.
fn assert_files(at: &Path, jobs: &[&Job], totals: &mut Totals) {
    let mut names = BTreeSet::new();
    let mut begun = BTreeSet::new();
    for job in jobs {
        let Entries { mut done, in_flight, .. } = Lines::read(job);
        totals.files_created += done.len();
        totals.creations_in_flight += usize::from(in_flight.is_some());
        // One more file may still exist, which the worker was about to remove.
        if let Some(removed) = done.len().checked_sub(FILES) {
            begun.extend(done.drain(..removed).next_back());
        }
        names.extend(done);
        begun.extend(in_flight);
    }
    for entry in new_folder(at).read_dir().unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if may_be_left(name) {
            continue;
        }
        if name.ends_with("gate") {
            let gate = Gate::open(&path, peppers()).unwrap();
            assert!(!gate.verify(|flaw| panic!("{flaw}")).unwrap());
            assert_eq!(gate.list().len(), 0);
        } else {
            assert_eq!(Limiter::open(&path).unwrap().table().live_subjects(when(0)), 0);
        }
        assert!(names.remove(name) || begun.remove(name), "{name}: no worker created this");
    }
    assert!(names.is_empty(), "these are missing: {names:?}");
}
