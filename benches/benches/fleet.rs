//! Times the check of a gate in a fleet, with credits, and that of a gate outside of one.
//!
//! `cargo bench -p keytally-benches --bench fleet` checks one key (hot), and a million keys in
//! random order, by the system's clock.

use core::hint::black_box;
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use keytally::{
    FleetFile, Gate, GateConfig, Name, NewKey, Peppers, Plan, Wait, entropy, now, pepper,
};
use keytally_core::sync::Ordering;
use keytally_fleet_plan::holding::{add_credits, set_holding};

/// A policy that the benchmark does not exhaust, in one window of a day.
const POLICY: &str = "2000000000/day";

const KEYS: u32 = 1_000_000;

/// Creates a gate of `count` keys in a folder of memory, and returns the keys in a random order.
fn gate(folder: &Path, name: &str, count: u32) -> (Gate, Vec<String>) {
    let peppers: Peppers = pepper::parse(&"6b".repeat(32)).expect("a pepper");
    let plan = Plan::new("default", POLICY.parse().expect("a policy")).expect("a plan");
    // Issuing into a gate that is nearly full takes long.
    let config = GateConfig::default().with_keys(count * 2).with_plans(vec![plan]);
    let gate = Gate::create(folder.join(name), peppers, &config).expect("a gate");
    let new = NewKey::new(1, Name::new("live").expect("a name"));
    let mut keys = Vec::new();
    gate.administer_each(Wait::default(), 0..count, |administrator, _| {
        let (key, _) = administrator.issue(&new, entropy().expect("entropy"), now())?;
        keys.push(key.expose().to_owned());
        Ok(())
    })
    .expect("room");
    (gate, keys)
}

/// Puts a gate in a fleet, and gives every key credits.
fn lease(gate: &Gate, path: &Path) {
    let file = FleetFile::create(path, gate).expect("a fleet file");
    for tally in 0..file.tallies() {
        let Some(subject) = file.subject(tally) else { continue };
        let words = file.words(tally).expect("a tally of the file");
        file.owner(tally).expect("an owner").store(subject.owner, Ordering::Release);
        let (at_ms, units) = (now().unix_ms(), [1_900_000_000; 4]);
        set_holding(&subject.layout, &words, at_ms, at_ms, &units);
        add_credits(&subject.layout, &words, at_ms, at_ms, &units);
    }
    gate.set_fleet(true).expect("no other administrator");
    gate.join(path).expect("the fleet file");
}

fn fleet(criterion: &mut Criterion) {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let folder = folder.join(format!("keytally-fleet-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a new folder");
    for (count, about) in [(1, "hot"), (KEYS, "a million keys")] {
        let (gate, keys) = gate(&folder, &format!("{count}.gate"), count);
        let mut texts = keys.iter().cycle();
        let mut check = |is_leased: bool| {
            let verdict = gate.check(texts.next().map(|key| black_box(key.as_bytes())), 1);
            assert!(verdict.is_admitted() && verdict.is_leased() == is_leased);
        };
        criterion.bench_function(&format!("Gate::check, {about}, a plain tally"), |bencher| {
            bencher.iter(|| check(false));
        });
        lease(&gate, &folder.join(format!("{count}.fleet")));
        criterion.bench_function(&format!("Gate::check, {about}, with credits"), |bencher| {
            bencher.iter(|| check(true));
        });
    }
    std::fs::remove_dir_all(&folder).expect("the folder");
}

criterion_group!(benches, fleet);
criterion_main!(benches);
