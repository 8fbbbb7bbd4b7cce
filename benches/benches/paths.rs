//! Times the hot paths with criterion, which reports the difference to its last run.
//!
//! `cargo bench -p keytally-benches --bench paths` shows the effect of a change. The benchmark
//! `speed` compares with alternatives.

use core::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use keytally::{
    Gate, GateConfig, Key, Limiter, Name, NewKey, Policy, Timestamp, decide, parse_key, pepper,
};

/// Subjects, and keys.
const COUNT: usize = 1000;

/// A policy that no benchmark exhausts within an hour.
const POLICY: &str = "4000000/minute, 200000000/hour";

const NOW: Timestamp = Timestamp::from_unix_s(1_700_000_000);

fn decision(criterion: &mut Criterion) {
    let policy: Policy = POLICY.parse().expect("a policy");
    let (layout, limits) = (policy.layout(), policy.limits());
    let word = decide::check(layout, &limits, 0, NOW, 1).next;
    criterion.bench_function("decide::check", |bencher| {
        bencher.iter(|| decide::check(layout, &limits, black_box(word), NOW, 1));
    });
}

fn limiter(criterion: &mut Criterion) {
    let policy = POLICY.parse().expect("a policy");
    let limiter = Limiter::in_memory(&policy, 1000).expect("a limiter");
    let texts: Vec<String> = (0..COUNT).map(|number| format!("{number:040}")).collect();
    let mut texts = texts.iter().cycle();
    let mut next = || texts.next().map_or(&b""[..], |text| text.as_bytes());
    criterion.bench_function("Limiter::check, system clock", |bencher| {
        bencher.iter(|| limiter.check(black_box(next()), 1));
    });
    criterion.bench_function("Limiter::check, explicit time", |bencher| {
        bencher.iter(|| limiter.table().check(black_box(next()), 1, NOW));
    });
}

fn gate(criterion: &mut Criterion) {
    let peppers = pepper::parse(&pepper::generate().expect("entropy")).expect("a pepper");
    let config = GateConfig::default().with_keys(1000);
    let gate = Gate::in_memory(peppers, &config).expect("a gate");
    let new = NewKey::new(42, Name::new("live").expect("a name"));
    let issue = |_| gate.issue(&new).expect("room").0.expose().to_owned();
    let keys: Vec<String> = (0..COUNT).map(issue).collect();
    let key_id = parse_key(keys[0].as_bytes()).expect("a key").key_id;
    let wrong = Key::mint(gate.table().prefix(), new.env, key_id, &[9; 16]).expect("a key");
    let mut keys = keys.iter().cycle();
    criterion.bench_function("Gate::check", |bencher| {
        bencher
            .iter(|| gate.table().check(keys.next().map(|key| black_box(key.as_bytes())), 0, NOW));
    });
    criterion.bench_function("Gate::check, a wrong secret", |bencher| {
        bencher.iter(|| gate.table().check(Some(black_box(wrong.expose().as_bytes())), 1, NOW));
    });
}

criterion_group!(paths, decision, limiter, gate);
criterion_main!(paths);
