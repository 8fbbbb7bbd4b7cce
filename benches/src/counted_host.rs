//! The program whose instructions valgrind counts, as `counted.rs`, for paths of the crate
//! `keytally`. A program of its own leaves the code of the core's paths as it is.

use core::hint::black_box;
use std::path::PathBuf;
use std::process::ExitCode;

use keytally::{FleetFile, Gate, GateConfig, Key, Name, NewKey, Peppers, Plan, Timestamp};
use keytally_core::Entropy;
use keytally_core::sync::Ordering;
use keytally_fleet_plan::holding::{add_credits, set_holding};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (path, times) = (arguments.next(), arguments.next());
    let path = PATHS.iter().find(|(name, ..)| path.as_deref() == Some(name));
    match (path, times.and_then(|times| times.parse().ok())) {
        (Some((_, _, run)), Some(times)) => run(times),
        _ => PATHS.iter().for_each(|(name, about, _)| println!("{name}\t{about}")),
    }
    ExitCode::SUCCESS
}

/// The name of a path, its description, and a function that runs it a number of times.
type Path = (&'static str, &'static str, fn(u32));

/// The paths. benches/budgets.txt has their counts.
const PATHS: &[Path] =
    &[("gate-leased", "Gate::check in a fleet, a valid key with credits, admitted", |times| {
        let fleet = Fleet::new();
        let text = fleet.key.expose().as_bytes();
        for _ in 0..times {
            let checked = fleet.gate.counted().check(Some(black_box(text)), 1, black_box(START));
            black_box(checked);
        }
    })];

/// A policy whose limits no run reaches.
const ROOMY: &str = "100000/minute, 1000000/hour";

/// The time of all calls, the start of an hour.
const START: Timestamp = Timestamp::from_unix_s(1_700_049_600);

/// A gate in a fleet with one key, which has credits. Its files are removed when it is dropped.
struct Fleet {
    gate: Gate,
    key: Key,
    folder: PathBuf,
}

impl Fleet {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("keytally-counted-{}", std::process::id()));
        std::fs::create_dir(&folder).expect("a new folder");
        let plan = Plan::new("default", ROOMY.parse().expect("sections")).expect("a plan");
        let config = GateConfig::default().with_keys(64).with_plans(vec![plan]);
        let peppers = Peppers::new(&[[5; 32]]).expect("a pepper");
        let gate = Gate::create(folder.join("gate"), peppers, &config).expect("a gate");
        let new = NewKey::new(42, Name::new("live").expect("a name"));
        let issued = gate
            .administer(|administrator| administrator.issue(&new, Entropy::new([7; 24]), START));
        let (key, key_id) = issued.expect("room");
        let file = FleetFile::create(folder.join("fleet"), &gate).expect("a fleet file");
        gate.set_fleet(true).expect("no other administrator");
        gate.join(folder.join("fleet")).expect("the fleet file");
        let number = gate.table().tally_number(key_id, 0).expect("the key's tally");
        let number = u32::try_from(number).expect("64 tallies");
        let (words, subject) = (file.words(number), file.subject(number));
        let (words, subject) = (words.expect("words"), subject.expect("the key"));
        let owner = file.owner(number).expect("an owner");
        owner.store(subject.owner, Ordering::Release);
        let at_ms = START.unix_ms();
        set_holding(&subject.layout, &words, at_ms, at_ms, &[90_000; 4]);
        add_credits(&subject.layout, &words, at_ms, at_ms, &[90_000; 4]);
        let first = gate.counted().check(Some(key.expose().as_bytes()), 1, START);
        assert!(first.is_leased() && first.is_admitted());
        Self { gate, key, folder }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
