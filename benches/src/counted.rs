//! The program whose instructions valgrind counts, for the suite `budgets`.
//!
//! `keytally-counted PATH TIMES` runs one path of the code a number of times. Without arguments,
//! the program lists the paths.
//!
//! The difference between two runs with different TIMES is the cost of the path alone, without the
//! preparation. The count is the same in each run, because no path depends on a clock, on entropy
//! or on an address.

use core::hint::black_box;
use core::net::IpAddr;
use std::process::ExitCode;

use keytally_core::{
    Address, AddressLimiter, CacheLine, Entropy, Gate, GateConfig, Key, Layout, Limiter, Limits,
    Name, NewKey, Peppers, Plan, Policy, Sections, Timestamp, decide,
};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (path, times) = (arguments.next(), arguments.next());
    let path = PATHS.iter().find(|(name, ..)| path.as_deref() == Some(name));
    match (path, times.and_then(|times| times.parse().ok())) {
        (Some((_, _, run)), Some(times)) => {
            run(times);
            ExitCode::SUCCESS
        }
        _ => {
            for (name, about, _) in PATHS {
                println!("{name}\t{about}");
            }
            ExitCode::SUCCESS
        }
    }
}

/// The name of a path, its description, and a function that runs it a number of times.
type Path = (&'static str, &'static str, fn(u32));

/// The paths. benches/budgets.txt has their counts.
///
/// The last ones count cache lines, as their descriptions say. Their tables are larger than the
/// caches that valgrind simulates. Each call uses another subject or key.
const PATHS: &[Path] = &[
    ("decide", "decide::check, two fixed windows, admitted", |times| run_decide(ROOMY, times)),
    ("decide-denied", "decide::check, two fixed windows, denied", |times| run_decide(TIGHT, times)),
    ("decide-sliding", "decide::check, two sliding windows, admitted", |times| {
        run_decide(SLIDING, times);
    }),
    ("subject", "Limiter::check_subject, admitted", |times| {
        let limiter = limiter(ROOMY);
        let subject = limiter.subject(SUBJECT);
        repeat(times, |now| limiter.check_subject(black_box(subject), 1, now));
    }),
    ("limiter", "Limiter::check, a subject of 40 bytes, admitted", |times| {
        let limiter = limiter(ROOMY);
        repeat(times, |now| limiter.check(black_box(SUBJECT), 1, now));
    }),
    ("limiter-denied", "Limiter::check, a subject of 40 bytes, denied", |times| {
        let limiter = limiter(TIGHT);
        repeat(times, |now| limiter.check(black_box(SUBJECT), 1, now));
    }),
    ("limiter-new", "Limiter::check, a new subject each time, admitted", |times| {
        let limiter = limiter(ROOMY);
        let mut number = 0_u64;
        repeat(times, |now| {
            number += 1;
            limiter.check(black_box(&number.to_le_bytes()), 1, now)
        });
    }),
    ("gate", "Gate::check, a valid key, admitted", |times| {
        let (gate, key) = gate(ROOMY);
        repeat(times, |now| gate.check(Some(black_box(key.expose().as_bytes())), 1, now));
    }),
    ("gate-denied", "Gate::check, a valid key, denied", |times| {
        let (gate, key) = gate(TIGHT);
        repeat(times, |now| gate.check(Some(black_box(key.expose().as_bytes())), 1, now));
    }),
    ("gate-wrong", "Gate::check, a key with a wrong secret", |times| {
        let (gate, key) = gate(ROOMY);
        let id = keytally_core::parse_key(key.expose().as_bytes()).expect("a key").key_id;
        let wrong = Key::mint(gate.prefix(), env(), id, &[9; 16]).expect("a key");
        repeat(times, |now| gate.check(Some(black_box(wrong.expose().as_bytes())), 1, now));
    }),
    ("part", "GatePart::check, a valid key, its team and a group, admitted", |times| {
        let (gate, key) = gate(SECTIONS);
        repeat(times, |now| {
            let part = gate.part(Some(black_box(key.expose().as_bytes())), 1);
            let part = part.with_group(black_box("write")).expect("a group of the gate");
            part.check(now).is_admitted()
        });
    }),
    ("address", "AddressLimiter::check, one prefix, admitted", |times| {
        let limiter = address_limiter("addresses: /64 16000000/minute");
        repeat(times, |now| limiter.check(black_box(address()), 1, now).is_admitted());
    }),
    ("addresses", "AddressLimiter::check, three prefixes, admitted", |times| {
        let limiter = address_limiter(
            "addresses: /64 16000000/minute; /56 16000000/minute; /48 16000000/minute",
        );
        repeat(times, |now| limiter.check(black_box(address()), 1, now).is_admitted());
    }),
    ("headers", "Verdict::headers, 100/minute and 1000/hour", |times| {
        let limiter = limiter(CONTRACT);
        let verdict = limiter.check(SUBJECT, 1, START);
        repeat(times, |_| black_box(&verdict).headers());
    }),
    ("write-headers", "Verdict::write_headers, 100/minute and 1000/hour", |times| {
        let limiter = limiter(CONTRACT);
        let verdict = limiter.check(SUBJECT, 1, START);
        let mut buffer = [0; keytally_core::MAX_HEADERS_LEN];
        repeat(times, |_| black_box(&verdict).write_headers(black_box(&mut buffer)));
    }),
    ("limiter-lines", "Limiter::check, one of many subjects: cache lines in 100 calls", |times| {
        let limiter = limiter_for(ROOMY, MANY);
        let check = |number: u32, now| limiter.check(&number.to_le_bytes(), 1, now);
        (0..MANY).for_each(|number| assert!(check(number, START).is_admitted()));
        let mut number = 0;
        repeat(times, |now| {
            number = (number + STRIDE) % MANY;
            check(number, now)
        });
    }),
    (
        "gate-lines",
        "Gate::check, one of many keys, and its text: cache lines in 100 calls",
        |times| {
            let (gate, texts) = gate_for(ROOMY, MANY);
            let mut text = texts.iter().cycle();
            repeat(times, |now| gate.check(text.next().map(|text| &text.0[..]), 1, now));
        },
    ),
];

/// The number of subjects or keys in these tables. That many keys take a mebibyte.
const MANY: u32 = 1 << 14;
/// The step from one subject to the next. It is odd, so that the steps visit every subject.
const STRIDE: u32 = 7919;

/// A policy whose limits no run reaches.
const ROOMY: &str = "100000/minute, 1000000/hour";
/// A plan with a month, a team and a group, whose limits no run reaches.
const SECTIONS: &str = "1000000/hour, 8000000/month; \
                        team: 2000000000/hour; group write: 2000000000/minute";
/// The policy of the integrations' examples.
const CONTRACT: &str = "100/minute, 1000/hour";
/// A policy whose minutely limit the first request reaches.
const TIGHT: &str = "1/minute, 1000/hour";
/// A policy with sliding windows.
const SLIDING: &str = "sliding 100/minute, 1000/hour";

/// The time of all calls, the start of an hour.
const START: Timestamp = Timestamp::from_unix_s(1_700_049_600);
/// A subject of 40 bytes.
const SUBJECT: &[u8] = b"customer-0123456789abcdef0123456789abcde";

/// Calls `call` a number of times, each time with the same time, because the first call in a window
/// costs slightly more than others.
fn repeat<R>(times: u32, mut call: impl FnMut(Timestamp) -> R) {
    for _ in 0..times {
        black_box(call(black_box(START)));
    }
}

/// Runs the decision on a tally that has spent one unit.
fn run_decide(policy: &str, times: u32) {
    let policy: Policy = policy.parse().expect("a policy");
    let (layout, limits): (&Layout, Limits) = (policy.layout(), policy.limits());
    // With one unit spent, the limit of `TIGHT` is reached.
    let word = decide::check(layout, &limits, 0, START, 1).next;
    repeat(times, |now| decide::check(black_box(layout), &limits, black_box(word), now, 1));
}

/// Returns a limiter that has charged [`SUBJECT`] once.
fn limiter(policy: &str) -> Limiter<Vec<CacheLine>> {
    let limiter = limiter_for(policy, 20_000);
    assert!(limiter.check(SUBJECT, 1, START).is_admitted());
    limiter
}

/// Returns a limiter without subjects.
fn limiter_for(policy: &str, capacity: u32) -> Limiter<Vec<CacheLine>> {
    let memory: Vec<CacheLine> =
        (0..Limiter::<Vec<CacheLine>>::lines(capacity)).map(|_| CacheLine::new()).collect();
    let policy: Policy = policy.parse().expect("a policy");
    Limiter::init(memory, &policy, capacity, [7; 16]).expect("a limiter")
}

/// Returns a limiter of addresses that has charged [`address`] once.
fn address_limiter(policy: &str) -> AddressLimiter<Vec<CacheLine>> {
    let lines = AddressLimiter::<Vec<CacheLine>>::lines(20_000);
    let memory = (0..lines).map(|_| CacheLine::new()).collect();
    let policy = policy.parse().expect("a policy");
    let limiter = AddressLimiter::init(memory, &policy, 20_000, [7; 16]).expect("a limiter");
    assert!(limiter.check(address(), 1, START).is_admitted());
    limiter
}

/// Returns an address of a client.
fn address() -> Address {
    Address::from(IpAddr::from([0x2001, 0xdb8, 1, 2, 3, 4, 5, 6]))
}

/// Returns a gate with one key, which has been charged once.
fn gate(policy: &str) -> (Gate<Vec<CacheLine>>, Key) {
    let gate = empty_gate(policy, 64);
    let key = issue(&gate, 7);
    assert!(gate.check(Some(key.expose().as_bytes()), 1, START).is_admitted());
    (gate, key)
}

/// Returns a gate with a number of keys, and their texts. Their order differs from that of their
/// records.
fn gate_for(policy: &str, keys: u32) -> (Gate<Vec<CacheLine>>, Vec<Text>) {
    // Half of the records stay free, so that each key gets a record close to its position.
    let gate = empty_gate(policy, 2 * keys);
    let text = |number: u32| {
        let position = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Text(issue(&gate, position).expose().as_bytes().try_into().expect("a key's length"))
    };
    let texts = (0..keys).map(text).collect();
    (gate, texts)
}

/// A key's text in a cache line of its own.
#[repr(align(64))]
struct Text([u8; 47]);

/// Returns a gate for a number of keys, without any.
fn empty_gate(policy: &str, keys: u32) -> Gate<Vec<CacheLine>> {
    let sections: Sections = policy.parse().expect("sections");
    let teams = if sections.named("team").is_some() { keys } else { 0 };
    let plans = [Plan::new("default", sections).expect("a plan")];
    let prefix = Name::new("kt").expect("a name");
    let config = GateConfig::new(keys, prefix, &plans).with_plan_slots(1).with_teams(teams);
    let memory: Vec<CacheLine> = (0..config.lines()).map(|_| CacheLine::new()).collect();
    Gate::init(memory, &config, Peppers::new(&[[5; 32]]).expect("a pepper")).expect("a gate")
}

/// Issues a key in the free record that is closest to `position`, a fraction of 2^64.
fn issue(gate: &Gate<Vec<CacheLine>>, position: u64) -> Key {
    let mut entropy = [7; 24];
    entropy[..8].copy_from_slice(&position.to_le_bytes());
    let new = NewKey::new(42, env());
    let issued = gate.administer().expect("no other administrator").issue(
        &new,
        Entropy::new(entropy),
        START,
    );
    issued.expect("room").0
}

/// Returns the environment of all keys.
fn env() -> Name {
    Name::new("live").expect("a name")
}
