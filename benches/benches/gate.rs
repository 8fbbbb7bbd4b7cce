//! The group `gate`: the check of an API key, by number of keys, and by the validity of the
//! presented text.

use core::hint::black_box;
use core::num::NonZeroU16;

use dashmap::DashMap;
use governor::clock::Clock;
use hmac::{Hmac, KeyInit as _, Mac as _};
use keytally::SystemClock;
use keytally_core::{CacheLine, Gate, Key, KeyId, Outcome, UsageCounts};
use sha2::Sha256;

use crate::crypto::{PEPPER, two_compressions};
use crate::floors::{PointerChase, count_up};
use crate::measure::{Admitted, Bench, Implementation, PART, calls, checks, is_admitted};
use crate::peers::{Governors, roomy_quotas};
use crate::tables::{env, gate};
use crate::traffic::{Cycle, MINUTE_LIMIT, Order, ROOMY, Random, START, Walk, index};

/// The numbers of keys.
const SIZES: &[u32] = &[1, 1000, 100_000, 1_000_000];

/// Measures the group.
pub(crate) fn measure(bench: &mut Bench) {
    let sizes = bench.sizes(SIZES, &[1, 1000, 1_000_000]);
    let others = bench.sizes(&SIZES[1..], &[1000]);
    // Fewer keys would reach their limits in the real minute of the measurement. More need a second
    // gate, and filling it takes long.
    let sizes_with_clock = others;
    let title = "Valid keys, all equally often, by their number";
    let about = "Keytally reads the key, computes its HMAC, finds its record, compares, charges both windows and returns a verdict. All checks are admitted. The combination of crates does the same work.";
    let mut table = bench.table("gate/uniform", "ns", title, about);
    for size in sizes {
        let with_clock = sizes_with_clock.contains(size);
        table.column_of(*size, valid_keys(*size, Order::Uniform, with_clock));
    }
    drop(table);
    let title = "Valid keys, some much more often than others (Zipf's law), by their number";
    let mut table = bench.table("gate/zipf", "ns", title, about);
    for size in others {
        let mut implementations = valid_keys(*size, Order::Zipf, false);
        implementations.truncate(2);
        table.column_of(*size, implementations);
    }
    drop(table);
    let title = "Valid keys of a gate with sections, all equally often, by their number";
    let about = "The plan with sections limits each key by the hour and the month, each account of 20 keys by the hour, and a group by the minute. All tallies are charged or none. The last row charges a tally that is in pages of its own, so that the pages of the records could be mapped read-only.";
    let mut table = bench.table("gate/sections", "ns", title, about);
    for size in [1000, 1_000_000] {
        table.column_of(size, sections(size));
    }
    drop(table);
    let title = "Valid keys whose uses are counted, all equally often, by their number";
    let about = "The check of the first table, in a gate that counts the uses of its keys and in one that does not. A counted check also adds to the line of its key, in memory of its own.";
    let sizes = bench.sizes(&[1000, 1_000_000], &[1000]);
    let mut table = bench.table("gate/usage", "ns", title, about);
    for size in sizes {
        table.column_of(*size, vec![counted_keys(*size, false), counted_keys(*size, true)]);
    }
    drop(table);
    invalid_keys(bench);
}

/// Returns implementations that check one of `size` valid keys of gates without sections and with
/// them.
fn sections(size: u32) -> Vec<Implementation<'static>> {
    const SECTIONS: &str = "1000000/hour, 8000000/month; \
                            team: 2000000000/hour; group write: 2000000000/minute";
    let walk = Walk::new(size, Order::Uniform);
    let (plain, plain_texts) = walked_gate(ROOMY, &walk, size);
    let (apart, apart_texts) = walked_gate(ROOMY, &walk, size);
    let (sectioned, texts) = walked_gate(SECTIONS, &walk, size);
    let (mut next, mut clock) = (Cycle::new(plain_texts), walk.clock());
    let without = checks("one section", Admitted::All, move || {
        is_admitted(&plain.check(Some(next.next().as_bytes()), 1, clock.next()))
    });
    let (mut next, mut clock) = (Cycle::new(texts), walk.clock());
    let with = checks("month, team and group", Admitted::All, move || {
        let part = sectioned.part(Some(next.next().as_bytes()), 1);
        part.with_group("write").expect("a group").check(clock.next()).is_admitted()
    });
    // A line holds the tallies of eight keys, as the array of further tallies in a gate does.
    let tallies: Vec<CacheLine> = (0..size.div_ceil(8)).map(|_| CacheLine::new()).collect();
    let (mut next, mut clock) = (Cycle::new(apart_texts), walk.clock());
    let mut number = Cycle::new(walk.numbers.leak());
    let apart = checks("one section, tally apart", Admitted::All, move || {
        let tally = index(*number.next());
        // The peek reads the record and decides. The exchange is the charge.
        is_admitted(&apart.peek(Some(next.next().as_bytes()), 1, clock.next()))
            && count_up(&tallies[tally / 8], tally % 8)
    });
    let mut chase = PointerChase::new(size);
    let load = calls("a dependent load from as many cache lines", move || chase.next());
    vec![without, with.with_work("several tallies"), apart.with_work(PART), load.with_work(PART)]
}

/// Returns a gate of `size` keys with these sections, and the texts of the walk's requests, in
/// memory in their order.
fn walked_gate(
    sections: &str,
    walk: &Walk,
    size: u32,
) -> (Gate<Vec<CacheLine>>, &'static [String]) {
    let (gate, issued) = gate(sections, size);
    let texts = walk.numbers.iter().map(|&number| issued[index(number)].0.clone());
    (gate, texts.collect::<Vec<_>>().leak())
}

/// Returns an implementation that checks one of `size` valid keys, and counts its use on request.
fn counted_keys(size: u32, is_counted: bool) -> Implementation<'static> {
    let walk = Walk::new(size, Order::Uniform);
    let (gate, texts) = walked_gate(ROOMY, &walk, size);
    let lines = UsageCounts::<Vec<CacheLine>>::lines(size);
    let memory: Vec<CacheLine> = (0..lines).map(|_| CacheLine::new()).collect();
    let counts = gate.init_usage(memory, NonZeroU16::MIN).expect("the lines of this gate");
    if is_counted {
        gate.administer().expect("no other administrator").begin_usage(&counts);
    }
    let (mut next, mut clock) = (Cycle::new(texts), walk.clock());
    let name = if is_counted { "keytally, uses counted" } else { "keytally" };
    checks(name, Admitted::All, move || {
        let usage = (gate.usage_generation() != 0).then(|| counts.view());
        is_admitted(&gate.counted(usage).check(Some(next.next().as_bytes()), 1, clock.next()))
    })
}

/// Returns implementations that check one of `size` valid keys. Those that read the clock are
/// included on request.
fn valid_keys(size: u32, order: Order, with_clock: bool) -> Vec<Implementation<'static>> {
    let (gate, issued) = gate(ROOMY, size);
    let walk = Walk::new(size, order);
    // The texts lie in memory in the order of the requests, the same texts for all implementations.
    let texts: Vec<String> =
        walk.numbers.iter().map(|&number| issued[index(number)].0.clone()).collect();
    let texts: &'static [String] = texts.leak();
    let cycle = || Cycle::new(texts);

    let prepared = Hmac::<Sha256>::new_from_slice(&PEPPER).expect("any length");
    let tag = prepared.clone().chain_update(&texts[0]).finalize().into_bytes();
    let ring = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &PEPPER);

    let (mut next, mut clock) = (cycle(), walk.clock());
    let keytally = checks("keytally", Admitted::All, move || {
        is_admitted(&gate.check(Some(next.next().as_bytes()), 1, clock.next()))
    });
    let governors = Governors::standing_still(roomy_quotas());
    let combination =
        combination("hmac, DashMap, two governors, no clock read", governors, &issued, texts);
    let mut next = cycle();
    let verify = calls("hmac: clone and verify_slice alone", move || {
        prepared.clone().chain_update(next.next()).verify_slice(black_box(&tag))
    });
    let mut next = cycle();
    let ring = calls("ring: verify alone", move || {
        ring::hmac::verify(&ring, next.next().as_bytes(), black_box(&tag))
    });
    let mut state = [0; 8];
    let compressions = calls("two dependent compressions alone", move || {
        two_compressions(&mut state, black_box(&[[b'a'; 64]; 2]))
    });
    let mut chase = PointerChase::new(size);
    let load = calls("a dependent load from as many cache lines", move || chase.next());
    let mut next = cycle();
    let read = calls("reading the key alone", move || {
        next.next().bytes().fold(0, |sum: u8, byte| sum ^ byte)
    });
    let mut implementations = vec![keytally, combination];
    if with_clock {
        // The same keys as above, in a table of its own: the clock of the other is not the
        // system's.
        let (gate, _) = self::gate(ROOMY, size);
        let mut next = cycle();
        let keytally = checks("keytally, system clock", Admitted::All, move || {
            // As in the library: the coarse clock.
            let now = SystemClock::read_for(gate.layout());
            is_admitted(&gate.check(Some(next.next().as_bytes()), 1, now))
        });
        let governors = Governors::new(roomy_quotas());
        let name = "hmac, DashMap, two governors";
        let combination = self::combination(name, governors, &issued, texts);
        implementations.extend([keytally.with_clock(), combination.with_clock()]);
    }
    let parts = [verify, ring, compressions, load, read];
    implementations.extend(parts.map(|part| part.with_work(PART)));
    implementations
}

/// Returns a combination of crates that does the work of a gate.
fn combination<C: Clock + Send + Sync + 'static>(
    name: &'static str,
    governors: Governors<KeyId, C>,
    issued: &[(String, KeyId)],
    texts: &'static [String],
) -> Implementation<'static> {
    let prepared = Hmac::<Sha256>::new_from_slice(&PEPPER).expect("any length");
    let mac = move |text: &String| -> [u8; 32] {
        prepared.clone().chain_update(text).finalize().into_bytes().into()
    };
    let records = DashMap::new();
    for (text, id) in issued {
        records.insert(mac(text), *id);
        governors.check(id);
    }
    let mut next = Cycle::new(texts);
    checks(name, Admitted::All, move || {
        let record: Option<KeyId> = records.get(&mac(next.next())).map(|id| *id);
        record.is_some_and(|id| governors.check(&id))
    })
}

/// Measures checks of keys that are spent, unknown or wrong, and of texts that are not keys.
fn invalid_keys(bench: &mut Bench) {
    const SIZE: u32 = 1000;
    let title = "1,000 keys, by the presented text and the outcome";
    let about = "The whole check. Keys with a wrong secret and keys with an unknown id must take the same time.";
    let mut table = bench.table("gate/answers", "ns", title, about);
    let (gate, issued) = gate(ROOMY, SIZE);
    let (spent_gate, spent_keys) = self::gate(ROOMY, SIZE);
    for (text, _) in &spent_keys {
        assert!(spent_gate.check(Some(text.as_bytes()), MINUTE_LIMIT, START).is_admitted());
    }
    let walk = Walk::new(SIZE, Order::Uniform);
    let mut random = Random(4);
    // Returns the text of a key with this id and a random secret.
    let mint = |id: u64, random: &mut Random| {
        let mut secret = [0; 16];
        secret[..8].copy_from_slice(&random.next().to_le_bytes());
        let id = KeyId::from_number(id).expect("not 0");
        Key::mint(gate.prefix(), env(), id, &secret).expect("short names").expose().to_owned()
    };
    let valid_text = |number: &u32| issued[index(*number)].0.clone();
    let valid: Vec<String> = walk.numbers.iter().map(valid_text).collect();
    let denied: Vec<String> =
        walk.numbers.iter().map(|&number| spent_keys[index(number)].0.clone()).collect();
    let wrong: Vec<String> = walk
        .numbers
        .iter()
        .map(|&number| mint(issued[index(number)].1.number(), &mut random))
        .collect();
    let unknown: Vec<String> =
        walk.numbers.iter().map(|_| mint(random.next() | 1, &mut random)).collect();
    let malformed: Vec<String> = unknown.iter().map(|text| text.replace('_', "-")).collect();
    let short: Vec<String> = unknown.iter().map(|text| text[..12].to_owned()).collect();

    let mut implementations: Vec<Implementation<'_>> = Vec::new();
    let (valid_key, invalid_key, not_a_key) = ("a valid key", "an invalid key", "not a key");
    for (name, gate, texts, outcome, work) in [
        ("admitted", &gate, &valid, Outcome::Admitted, valid_key),
        ("denied", &spent_gate, &denied, Outcome::Denied, valid_key),
        ("a wrong secret", &gate, &wrong, Outcome::InvalidKey, invalid_key),
        ("an unknown key id", &gate, &unknown, Outcome::InvalidKey, invalid_key),
        ("not a key's form", &gate, &malformed, Outcome::InvalidKey, not_a_key),
        ("too short", &gate, &short, Outcome::InvalidKey, not_a_key),
    ] {
        assert_eq!(gate.peek(Some(texts[0].as_bytes()), 1, START).outcome(), outcome, "{name}");
        let expected = if outcome == Outcome::Admitted { Admitted::All } else { Admitted::None };
        let (mut next, mut clock) = (Cycle::new(texts), walk.clock());
        let check = checks(name, expected, move || {
            // The clock stays in the minute that is spent.
            let now = if outcome == Outcome::Denied { START } else { clock.next() };
            is_admitted(&gate.check(Some(next.next().as_bytes()), 1, now))
        });
        implementations.push(check.with_work(work));
    }
    let no_key =
        checks("no key", Admitted::None, || is_admitted(&gate.check(black_box(None), 1, START)));
    implementations.push(no_key.with_work("no text"));
    table.column("a check", implementations);
}
