//! A fleet in one process: machines with gates of their own, a store in memory, and an agent of
//! each machine in a thread.

use alloc::collections::BTreeMap;
use core::time::Duration;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use keytally::{FleetFile, Gate, GateConfig, KeyId, Name, NewKey, Peppers, Plan, now};
use keytally_core::sync::{AtomicU64, Ordering};
use keytally_fleet_plan::holding;
use keytally_fleet_plan::layout::{PageState, PageWord, Phase};
use keytally_fleet_plan::lease::Planner;
use keytally_fleet_plan::on_loss::OnLoss;
use keytally_fleet_plan::request::{LeaseRequest, Reply, WINDOW_REFUSED, WindowReply};
use keytally_fleet_plan::words::{TallyWords, Word, update};

/// A gate of a machine, and its fleet file.
pub(crate) struct Machine {
    pub(crate) gate: Gate,
    pub(crate) path: PathBuf,
    pub(crate) fleet: PathBuf,
}

pub(crate) fn peppers() -> Peppers {
    keytally::pepper::parse(&"6b".repeat(32)).unwrap()
}

pub(crate) fn opened(path: &Path) -> Gate {
    Gate::open(path, peppers()).unwrap()
}

/// Creates gates with equal keys, one for each machine, in a fleet that each has joined. Returns
/// the text and the id of each key.
pub(crate) fn machines(
    folder: &Path,
    count: usize,
    plan: &str,
    keys: u32,
) -> (Vec<Machine>, Vec<(String, KeyId)>) {
    wait_for_a_quiet_week();
    let plan = Plan::new("default", plan.parse().unwrap()).unwrap();
    let config = GateConfig::default().with_keys(keys.max(4)).with_plans(vec![plan]);
    let first = folder.join("0.gate");
    let gate = Gate::create(&first, peppers(), &config).unwrap();
    let new = NewKey::new(42, Name::new("live").unwrap());
    let mut texts = Vec::new();
    for _ in 0..keys {
        let (key, key_id) = gate.issue(&new).unwrap();
        texts.push((key.expose().to_owned(), key_id));
    }
    drop(gate);
    let machine = |number: usize| {
        let path = folder.join(format!("{number}.gate"));
        if number > 0 {
            fs::copy(&first, &path).unwrap();
        }
        let (gate, fleet) = (opened(&path), folder.join(format!("{number}.fleet")));
        gate.set_fleet(true).unwrap();
        FleetFile::create(&fleet, &gate).unwrap();
        gate.join(&fleet).unwrap();
        gate.set_credit_wait(Duration::from_secs(5));
        Machine { gate, path, fleet }
    };
    ((0..count).map(machine).collect(), texts)
}

/// The windows of the tests are weeks. Waits if one is about to end.
fn wait_for_a_quiet_week() {
    const WEEK_S: u64 = 7 * 86_400;
    // The epoch was a Thursday.
    let left_s = WEEK_S - (now().unix_s() + 3 * 86_400) % WEEK_S;
    if left_s < 60 {
        thread::sleep(Duration::from_secs(left_s + 1));
    }
}

/// The units that each machine holds of a window, and the limit.
type Window = BTreeMap<usize, u32>;

/// A store in memory, which always answers.
#[derive(Default)]
pub(crate) struct Store {
    windows: HashMap<(String, usize, u64), Window>,
    /// The machines and tallies from which idle units are recalled.
    recalled: Vec<(usize, String, usize)>,
    pub(crate) requests: usize,
}

impl Store {
    /// Applies a lease request, as the store's script does.
    fn lease(&mut self, machine: usize, name: &str, request: &LeaseRequest) -> Reply {
        self.requests += 1;
        let mut reply = Reply { store_ms: now().unix_ms(), ..Reply::default() };
        for (index, wish) in request.windows().iter().enumerate() {
            let window = self.windows.entry((name.into(), index, wish.begin_ms)).or_default();
            window.insert(machine, wish.hold);
            let out: u32 = window.values().sum();
            let left = wish.limit.saturating_sub(out);
            let given = (wish.want - wish.hold).min(left);
            window.insert(machine, wish.hold + given);
            if given < wish.want - wish.hold {
                let others = window.iter().filter(|(other, held)| **other != machine && **held > 0);
                let recalled = others.map(|(other, _)| (*other, name.to_owned(), index));
                self.recalled.extend(recalled);
            }
            let machines = i32::try_from(window.len()).unwrap_or(WINDOW_REFUSED);
            reply.windows[index] =
                WindowReply { held: wish.hold + given, left: left - given, machines };
        }
        reply
    }

    fn recalls(&mut self, machine: usize) -> Vec<(String, usize)> {
        let is_its = |recall: &mut (usize, String, usize)| recall.0 == machine;
        self.recalled.extract_if(.., is_its).map(|(_, name, index)| (name, index)).collect()
    }

    /// Returns the units that all machines hold of the first window of a tally.
    pub(crate) fn held(&self, name: &str) -> u32 {
        let its = self.windows.iter().filter(|((its, index, _), _)| its == name && *index == 0);
        its.flat_map(|(_, window)| window.values()).sum()
    }
}

/// Agents that run until this is dropped.
pub(crate) struct Fleet<'f> {
    pub(crate) store: Mutex<Store>,
    machines: &'f [Machine],
    stopped: AtomicU64,
}

/// The state that an agent writes into the page.
pub(crate) fn state(phase: Phase, on_loss: OnLoss, machines: u32) -> u64 {
    PageState { phase, on_loss: Some(on_loss), machines }.bits()
}

/// Runs `work` while each machine has an agent.
pub(crate) fn with_agents<T>(machines: &[Machine], work: impl FnOnce(&Fleet<'_>) -> T) -> T {
    /// Stops the agents, also if a test fails.
    struct Stop<'s>(&'s AtomicU64);

    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(1, Ordering::SeqCst);
        }
    }

    let fleet = Fleet { store: Mutex::default(), machines, stopped: AtomicU64::new(0) };
    thread::scope(|scope| {
        let fleet = &fleet;
        let _stop = Stop(&fleet.stopped);
        for number in 0..machines.len() {
            scope.spawn(move || fleet.run(number));
        }
        for Machine { gate, fleet, .. } in machines {
            let file = FleetFile::open(fleet, gate).unwrap();
            while file.page(PageWord::Heartbeat).load(Ordering::Acquire) == 0 {
                thread::sleep(Duration::from_millis(1));
            }
        }
        work(fleet)
    })
}

impl Fleet<'_> {
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The agent of a machine.
    fn run(&self, number: usize) {
        let Machine { gate, fleet, .. } = &self.machines[number];
        let file = FleetFile::create(fleet, gate).unwrap();
        assert!(file.try_lock().unwrap(), "another agent runs");
        let mut planners = HashMap::<u32, (Planner, String)>::new();
        file.page(PageWord::State)
            .store(state(Phase::Leading, OnLoss::Closed, 1), Ordering::Release);
        while self.stopped.load(Ordering::SeqCst) == 0 {
            let now_ms = now().unix_ms().saturating_add_signed(offset(&file));
            file.page(PageWord::Heartbeat).store(now_ms, Ordering::Release);
            file.wanted().take(|tally| {
                let seed = u64::from(tally) ^ (number as u64) << 32;
                let new = || (Planner::new(seed), String::new());
                planners.entry(tally).or_insert_with(new).0.wanted();
            });
            let recalls = self.store().recalls(number);
            for (planner, name) in planners.values_mut() {
                let its = recalls.iter().filter(|(recalled, _)| recalled == name);
                its.for_each(|(_, index)| planner.recalled(*index));
            }
            let mut is_changed = false;
            for (tally, (planner, name)) in &mut planners {
                let Some(subject) = file.subject(*tally) else { continue };
                let words = file.words(*tally).unwrap();
                let owner = file.owner(*tally).unwrap();
                if owner.load(Ordering::Acquire) != subject.owner {
                    holding::void(&words);
                    owner.store(subject.owner, Ordering::Release);
                }
                name.clone_from(&subject.name);
                let layout = &subject.layout;
                while let Some(request) = planner.next(layout, &words, now_ms) {
                    let reply = self.store().lease(number, name, &request);
                    planner.replied(layout, &words, now_ms, &request, &reply);
                    is_changed = true;
                }
            }
            if is_changed {
                file.wake();
            }
            file.sleep(Duration::from_millis(5));
        }
    }
}

pub(crate) fn offset(file: &FleetFile<'_>) -> i64 {
    file.page(PageWord::Offset).load(Ordering::Acquire).cast_signed()
}

/// Puts credits into a tally, as an agent that leased them.
pub(crate) fn grant(file: &FleetFile<'_>, tally: u32, units: u32) {
    grant_at(file, tally, units, now().unix_ms());
}

/// Puts credits of the windows of `now_ms` into a tally, as an agent that leased them.
pub(crate) fn grant_at(file: &FleetFile<'_>, tally: u32, units: u32, now_ms: u64) {
    let subject = file.subject(tally).unwrap();
    let words = file.words(tally).unwrap();
    file.owner(tally).unwrap().store(subject.owner, Ordering::Release);
    let units = [units; 4];
    let layout = &subject.layout;
    holding::set_holding(layout, &words, now_ms, now_ms, &units);
    holding::add_credits(layout, &words, now_ms, now_ms, &units);
}

/// Returns the credits of a tally's first window.
pub(crate) fn credits(file: &FleetFile<'_>, tally: u32) -> u32 {
    let subject = file.subject(tally).unwrap();
    let words: TallyWords<'_> = file.words(tally).unwrap();
    let (word, _) = update(&words, Word::Credits, Some).unwrap();
    subject.layout.current(word, now().unix_ms())[0]
}

/// Returns the only tally of a gate that has an owner.
pub(crate) fn only_tally(file: &FleetFile<'_>) -> u32 {
    let mut found = (0..file.tallies()).filter(|&tally| file.subject(tally).is_some());
    let only = found.next().unwrap();
    assert_eq!(found.next(), None);
    only
}
