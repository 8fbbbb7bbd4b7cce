//! The group `gate`: the check of a key, by number of keys, and by what is presented.

use core::hint::black_box;

use dashmap::DashMap;
use hmac::{Hmac, KeyInit as _, Mac as _};
use keytally_core::{Key, KeyId, Outcome};
use sha2::Sha256;

use crate::crypto::{PEPPER, two_compressions};
use crate::floors::Chase;
use crate::measure::{Admitted, Bench, Implementation, calls, checks, is_admitted};
use crate::peers::{Governors, roomy_quotas};
use crate::tables::{env, gate};
use crate::traffic::{Cycle, MINUTES_UNITS, Order, ROOMY, Random, START, Walk, index, thousands};

const SIZES: &[u32] = &[1, 1000, 100_000, 1_000_000];

pub(crate) fn measure(bench: &mut Bench) {
    let sizes = bench.sizes(SIZES, &[1, 1000, 1_000_000]);
    let others = bench.sizes(&SIZES[1..], &[1000]);
    let title = "A valid key, all equally often, by the number of keys";
    let about = "Read, HMAC, find, compare, charge both windows, verdict; all admitted. Rows below the second are parts of that, or what an application would combine.";
    let mut table = bench.table("gate/uniform", "ns", title, about);
    for size in sizes {
        table.column(thousands(*size), right(*size, Order::Uniform));
    }
    drop(table);
    let title = "A valid key, some much more often than others (Zipf's law), by the number of keys";
    let mut table = bench.table("gate/zipf", "ns", title, about);
    for size in others {
        let implementations = right(*size, Order::Zipf);
        table.column(thousands(*size), implementations.into_iter().take(2).collect());
    }
    drop(table);
    invalid_keys(bench);
}

fn right(size: u32, order: Order) -> Vec<Implementation<'static>> {
    let (gate, issued) = gate(ROOMY, size);
    let walk = Walk::new(size, order);
    // The texts lie in memory in the order of the requests, the same texts for all implementations.
    let texts: Vec<String> =
        walk.numbers.iter().map(|&number| issued[index(number)].0.clone()).collect();
    let texts: &'static [String] = texts.leak();
    let cycle = || Cycle::new(texts);

    let ready = Hmac::<Sha256>::new_from_slice(&PEPPER).expect("any length");
    let mac = {
        let ready = ready.clone();
        move |text: &String| -> [u8; 32] {
            ready.clone().chain_update(text).finalize().into_bytes().into()
        }
    };
    let (records, governors) = (DashMap::new(), Governors::new(roomy_quotas()));
    for (text, id) in &issued {
        records.insert(mac(text), *id);
        governors.check(id);
    }
    let tag = mac(&texts[0]);
    let ring = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &PEPPER);

    let (mut next, mut clock) = (cycle(), walk.clock());
    let keytally = checks("keytally", Admitted::All, move || {
        is_admitted(&gate.check(Some(next.next().as_bytes()), 1, clock.next()))
    });
    let mut next = cycle();
    let put_together = checks("hmac, a DashMap of MACs, two governors", Admitted::All, move || {
        let record: Option<KeyId> = records.get(&mac(next.next())).map(|id| *id);
        record.is_some_and(|id| governors.check(&id))
    });
    let mut next = cycle();
    let verify = calls("hmac: clone and verify_slice alone", move || {
        ready.clone().chain_update(next.next()).verify_slice(black_box(&tag))
    });
    let mut next = cycle();
    let ring = calls("ring: verify alone", move || {
        ring::hmac::verify(&ring, next.next().as_bytes(), black_box(&tag))
    });
    let mut state = [0; 8];
    let compressions = calls("two dependent compressions alone", move || {
        two_compressions(&mut state, black_box(&[[b'a'; 64]; 2]))
    });
    let mut chase = Chase::new(size);
    let load = calls("a dependent load of a line of as many", move || chase.next());
    let mut next = cycle();
    let read = calls("reading the key alone", move || {
        next.next().bytes().fold(0, |sum: u8, byte| sum ^ byte)
    });
    vec![keytally, put_together, verify, ring, compressions, load, read]
}

/// Measures other keys and texts that can be presented.
fn invalid_keys(bench: &mut Bench) {
    const SIZE: u32 = 1000;
    let title = "1,000 keys, by what is presented";
    let about = "The whole check. All well-formed invalid keys must take the same time.";
    let mut table = bench.table("gate/answers", "ns", title, about);
    let (gate, issued) = gate(ROOMY, SIZE);
    let (spent, spenders) = self::gate(ROOMY, SIZE);
    for (text, _) in &spenders {
        assert!(spent.check(Some(text.as_bytes()), MINUTES_UNITS, START).is_admitted());
    }
    let walk = Walk::new(SIZE, Order::Uniform);
    let mut random = Random(4);
    let mint = |id: u64, random: &mut Random| {
        let mut secret = [0; 16];
        secret[..8].copy_from_slice(&random.next().to_le_bytes());
        let id = KeyId::from_number(id).expect("not 0");
        Key::mint(gate.prefix(), env(), id, &secret).expect("short names").expose().to_owned()
    };
    let text = |number: &u32| issued[index(*number)].0.clone();
    let right: Vec<String> = walk.numbers.iter().map(text).collect();
    let denied: Vec<String> =
        walk.numbers.iter().map(|&number| spenders[index(number)].0.clone()).collect();
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
    for (name, gate, texts, outcome) in [
        ("admitted", &gate, &right, Outcome::Admitted),
        ("denied", &spent, &denied, Outcome::Denied),
        ("a wrong secret", &gate, &wrong, Outcome::InvalidKey),
        ("an unknown key id", &gate, &unknown, Outcome::InvalidKey),
        ("not a key's form", &gate, &malformed, Outcome::InvalidKey),
        ("too short", &gate, &short, Outcome::InvalidKey),
    ] {
        assert_eq!(gate.peek(Some(texts[0].as_bytes()), 1, START).outcome(), outcome, "{name}");
        let yes = if outcome == Outcome::Admitted { Admitted::All } else { Admitted::None };
        let (mut next, mut clock) = (Cycle::new(texts), walk.clock());
        implementations.push(checks(name, yes, move || {
            // The clock stays in the minute that is spent.
            let now = if outcome == Outcome::Denied { START } else { clock.next() };
            is_admitted(&gate.check(Some(next.next().as_bytes()), 1, now))
        }));
    }
    implementations.push(checks("no key", Admitted::None, || {
        is_admitted(&gate.check(black_box(None), 1, START))
    }));
    table.column("a check", implementations);
}
