//! Times the hot paths with criterion, which reports the difference to its last run.
//!
//! `cargo bench -p keytally-benches --bench paths` shows the effect of a change. The benchmark
//! `speed` compares with alternatives.

use core::hint::black_box;
use core::net::IpAddr;

use criterion::{Criterion, criterion_group, criterion_main};
use keytally::{
    Address, AddressLimiter, AddressPolicy, Administrator, Gate, GateConfig, Key, Limiter, Mapping,
    Name, NewKey, Plan, Policy, Timestamp, Wait, decide, entropy, parse_key, pepper,
};

/// Subjects, and keys.
const COUNT: usize = 1000;

/// A policy that the benchmark does not exhaust.
const POLICY: &str = "200000/minute, 500000/hour";

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

/// A gate of `count` keys in memory, whose plan has these sections, and its keys in a random order.
/// Twenty keys each are of one team.
fn sectioned(sections: &str, count: u32) -> (Gate, Vec<String>) {
    let peppers = pepper::parse(&pepper::generate().expect("entropy")).expect("a pepper");
    let plan = Plan::new("default", sections.parse().expect("sections")).expect("a plan");
    // Issuing into a gate that is nearly full takes long.
    let config = GateConfig::default().with_keys(count * 2).with_plans(vec![plan]);
    let gate = Gate::in_memory(peppers, &config).expect("a gate");
    let mut keys = Vec::new();
    let issue = |administrator: &mut Administrator<'_, Mapping>, number: u32| {
        let new = NewKey::new(number / 20, Name::new("live").expect("a name"));
        let entropy = entropy().expect("entropy");
        let (key, _) = administrator.issue(&new, entropy, NOW)?;
        keys.push(key.expose().to_owned());
        Ok(())
    };
    gate.administer_each(Wait::default(), 0..count, issue).expect("room");
    // A fixed stride that shares no factor with the number visits all keys.
    let len = keys.len();
    let shuffled = (0..len).map(|at| keys[at * 7919 % len].clone()).collect();
    (gate, shuffled)
}

/// The checks of a gate with a team, a month and a group, and of a plain one.
fn sections(criterion: &mut Criterion) {
    const PLAIN: &str = "1000000/hour, 8000000/day";
    const SECTIONS: &str = "1000000/hour, 8000000/month; \
                            team: 2000000000/hour; group write: 2000000000/minute";
    for count in [1000, 1_000_000] {
        let mut group = criterion.benchmark_group(format!("{count} keys"));
        let (gate, keys) = sectioned(PLAIN, count);
        let mut next = keys.iter().cycle().map(|key| black_box(key.as_bytes()));
        group.bench_function("plain", |bencher| {
            bencher.iter(|| gate.table().check(next.next(), 1, NOW).is_admitted());
        });
        drop(gate);
        let (gate, keys) = sectioned(SECTIONS, count);
        let mut next = keys.iter().cycle().map(|key| black_box(key.as_bytes()));
        group.bench_function("team, month and group", |bencher| {
            bencher.iter(|| {
                let part = gate.part(next.next(), 1).with_group("write").expect("a group");
                part.check(NOW).is_admitted()
            });
        });
    }
}

/// The checks of addresses with one prefix and with three. Four clients each are in one /48.
fn addresses(criterion: &mut Criterion) {
    const ONE: &str = "addresses: /64 16000000/minute";
    const THREE: &str = "addresses: /64 16000000/minute; /56 16000000/minute; /48 16000000/minute";
    for count in [1000, 1_000_000_u32] {
        let mut group = criterion.benchmark_group(format!("{count} clients"));
        // Each has room for twice its networks: with three prefixes, 1.75 for each client.
        let limiters = [(ONE, count * 2), (THREE, count / 2 * 7)].map(|(text, capacity)| {
            let policy: AddressPolicy = text.parse().expect("a policy");
            AddressLimiter::in_memory(&policy, capacity).expect("a limiter")
        });
        let client = |number: u32| {
            let [a, b, c, d] = (number / 4).to_be_bytes().map(u16::from);
            let site = [
                0x2001,
                0xdb8 ^ a << 8 ^ b,
                c << 8 | d,
                if number.is_multiple_of(2) { 0 } else { 1 << 7 },
            ];
            Address::from(IpAddr::from([site[0], site[1], site[2], site[3], 0, 0, 0, 1]))
        };
        // A fixed stride that shares no factor with the number visits all clients.
        let clients: Vec<_> = (0..count).map(|at| client(at.wrapping_mul(7919) % count)).collect();
        for (name, limiter) in ["one prefix", "three prefixes"].into_iter().zip(&limiters) {
            let mut next = clients.iter().cycle();
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    let client = *next.next().expect("a cycle");
                    limiter.table().check(black_box(client), 1, NOW).is_admitted()
                });
            });
        }
        // A limiter whose tallies are ahead of the clock would correct each.
        for (name, text) in
            [("one prefix, system clock", ONE), ("three prefixes, system clock", THREE)]
        {
            let policy: AddressPolicy = text.parse().expect("a policy");
            let limiter = AddressLimiter::in_memory(&policy, count / 2 * 7).expect("a limiter");
            let mut next = clients.iter().cycle();
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    let client = *next.next().expect("a cycle");
                    limiter.check(black_box(client), 1).is_admitted()
                });
            });
        }
    }
}

criterion_group!(paths, decision, limiter, gate, sections, addresses);
criterion_main!(paths);
