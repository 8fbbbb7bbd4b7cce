//! The target `open_bytes`: calls on tables with arbitrary content. A table is a valid one that is
//! then damaged, or the input itself.

use core::net::IpAddr;

use keytally_core::{
    Address, AddressLimiter, CacheLine, Charge, Compound, Entropy, Gate, GateConfig, Key, KeyId,
    Limiter, Name, NewKey, Peppers, Plan, Policy, Settlement, Timestamp, Verdict,
};
use keytally_vectors::model;

use crate::bytes::{Bytes, POLICIES};

const KEYS: u32 = 5;
const SUBJECTS: u32 = 12;
const PEPPER: [u8; 32] = [9; 32];

/// Opens a table with arbitrary content, and makes every call on it. All calls return, and a key
/// that was not issued is not admitted.
pub fn open_bytes(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let kind = bytes.byte();
    let now = Timestamp::from_unix_ms(1_767_225_600_000);
    let policy: Policy = bytes.pick(POLICIES).parse().unwrap();
    let (memory, keys) = match kind % 4 {
        0 if kind >= 128 => (address_limiter(now), Vec::new()),
        0 => (limiter(&policy, now), Vec::new()),
        1 | 2 => gate(&policy, &mut bytes, now),
        _ => (table_from(&mut bytes), Vec::new()),
    };
    damage(&memory, &mut bytes);
    if let Ok(limiter) = Limiter::attach(&memory[..]) {
        call_limiter(&limiter, &mut bytes);
    }
    if let Ok(limiter) = AddressLimiter::attach(&memory[..]) {
        call_addresses(&limiter, &mut bytes);
    }
    if let Ok(gate) = Gate::attach(&memory[..], Peppers::new(&[PEPPER]).unwrap()) {
        call_gate(&gate, &keys, &mut bytes);
    }
}

/// Returns empty memory.
fn lines(count: usize) -> Vec<CacheLine> {
    (0..count).map(|_| CacheLine::new()).collect()
}

/// Creates a limiter with some subjects.
fn limiter(policy: &Policy, now: Timestamp) -> Vec<CacheLine> {
    let memory = lines(Limiter::<&[CacheLine]>::lines(SUBJECTS));
    let limiter = Limiter::init(&memory[..], policy, SUBJECTS, [5; 16]).unwrap();
    for subject in 0..8 {
        limiter.check(&[subject], 1, now);
    }
    memory
}

/// Creates a limiter of addresses with some networks.
fn address_limiter(now: Timestamp) -> Vec<CacheLine> {
    let memory = lines(AddressLimiter::<&[CacheLine]>::lines(SUBJECTS));
    let policy = "addresses: /64 5/minute, 9/hour; /56 12/minute; /48 30/hour".parse().unwrap();
    let limiter = AddressLimiter::init(&memory[..], &policy, SUBJECTS, [5; 16]).unwrap();
    for client in 0..8 {
        limiter.check(address(client), 1, now);
    }
    memory
}

/// Returns the address of a client. Four clients each are in one /56.
fn address(client: u8) -> Address {
    let network = u16::from(client % 16) << 6;
    Address::from(IpAddr::from([0x2001, 0xdb8, u16::from(client / 16), network, 0, 0, 0, 1]))
}

/// Creates a gate with keys: a rotated one, a revoked one, an unchanged one and an imported one.
fn gate(
    policy: &Policy,
    bytes: &mut Bytes<'_>,
    now: Timestamp,
) -> (Vec<CacheLine>, Vec<(Key, KeyId)>) {
    let plans = [Plan::new("default", policy.clone().into()).unwrap()];
    let config = GateConfig::new(KEYS, Name::new("kt").unwrap(), &plans)
        .with_plan_slots(3)
        .with_hints(bytes.byte() & 1 == 1);
    let memory = lines(config.lines());
    let gate = Gate::init(&memory[..], &config, Peppers::new(&[PEPPER]).unwrap()).unwrap();
    let mut administrator = gate.administer().unwrap();
    let new = NewKey::new(1, Name::new("live").unwrap());
    let keys: Vec<(Key, KeyId)> = (1..4)
        .map(|seed| administrator.issue(&new, Entropy::new([seed * 60; 24]), now).unwrap())
        .collect();
    let _ = administrator.import(b"legacy-0123456789", &new, now);
    let rotated = administrator
        .rotate(
            keys[0].1,
            Some(Timestamp::from_unix_s(u32::MAX.into())),
            false,
            Entropy::new([7; 24]),
            now,
        )
        .unwrap();
    administrator.revoke(keys[1].1).unwrap();
    drop(administrator);
    gate.check(Some(rotated.expose().as_bytes()), 1, now);
    (memory, keys)
}

/// Returns the input as a table, perhaps with a valid magic number, version and size.
fn table_from(bytes: &mut Bytes<'_>) -> Vec<CacheLine> {
    let memory = lines(1 + bytes.below(64));
    if bytes.byte() & 1 == 1 {
        memory[0].store(0, u64::from_le_bytes(*b"keytally"));
        memory[0].store(1, u64::from(1 + bytes.byte() % 2) << 32 | 1);
        memory[0].store(2, (memory.len() * 64).try_into().unwrap());
    }
    for (line, word) in memory.iter().flat_map(|line| (0..8).map(move |word| (line, word))).skip(3)
    {
        if bytes.is_empty() {
            break;
        }
        line.store(word, bytes.word());
    }
    memory
}

/// Overwrites words or lines, up to 16 times.
fn damage(memory: &[CacheLine], bytes: &mut Bytes<'_>) {
    for _ in 0..bytes.below(17) {
        let (line, word) = (&memory[bytes.below(memory.len().min(256))], bytes.below(8));
        let present = line.load(word);
        let value = match bytes.below(6) {
            0 => present ^ 1 << bytes.below(64),
            1 => bytes.word(),
            2 => u64::from(bytes.byte()),
            3 => u64::MAX - u64::from(bytes.byte()),
            4 => present.wrapping_add(u64::from(bytes.byte())),
            _ => {
                // A copy of another line, such as another record's, or the redo record's.
                let from = &memory[bytes.below(memory.len().min(256))];
                (0..8).for_each(|word| line.store(word, from.load(word)));
                continue;
            }
        };
        line.store(word, value);
    }
}

/// Makes every call on a limiter.
fn call_limiter(limiter: &Limiter<&[CacheLine]>, bytes: &mut Bytes<'_>) {
    let _ = (limiter.policy(), limiter.capacity());
    for _ in 0..32 {
        let now = Timestamp::from_unix_ms(time(bytes));
        let subject = [bytes.byte() % 32];
        let cost = bytes.cost();
        check_verdict(&limiter.peek(&subject, cost, now));
        let verdict = limiter.check(&subject, cost, now);
        check_verdict(&verdict);
        let charge = verdict.charge().unwrap_or(Charge::new(cost, now));
        match bytes.below(4) {
            0 => check_verdict(&limiter.refund(&subject, charge, now)),
            1 => check_verdict(&limiter.settle(&subject, charge, bytes.cost(), now)),
            2 => check_verdict(&limiter.reset(&subject, now)),
            _ => assert!(limiter.live_subjects(now) <= limiter.slots_total()),
        }
        if bytes.is_empty() {
            break;
        }
    }
}

/// Makes every call on a limiter of addresses.
fn call_addresses(limiter: &AddressLimiter<&[CacheLine]>, bytes: &mut Bytes<'_>) {
    let check_compound = |compound: &Compound| {
        compound.verdicts().for_each(check_verdict);
        let _ = (compound.headers(), compound.problem(), compound.retry_after_s());
    };
    for _ in 0..64 {
        let (now, client, cost) =
            (Timestamp::from_unix_ms(time(bytes)), address(bytes.byte()), bytes.cost());
        check_compound(&limiter.peek(client, cost, now));
        let compound = limiter.check(client, cost, now);
        check_compound(&compound);
        let charge = compound.charge(0).unwrap_or(Charge::new(cost, now));
        let settlement = Settlement::new().with_cost(bytes.cost());
        match bytes.below(5) {
            0 => check_compound(&limiter.refund(client, charge, now)),
            1 => check_compound(&limiter.settle_all(client, charge, &settlement, now)),
            2 => {
                let overdraw = settlement.with_overdraw(true);
                check_compound(&limiter.settle_all(client, charge, &overdraw, now));
            }
            3 => check_compound(&limiter.reset(client, now)),
            _ => assert!(limiter.live_subjects(now) <= limiter.slots_total()),
        }
        let _ = (limiter.policy(), limiter.list(now).count());
        if bytes.is_empty() {
            break;
        }
    }
}

/// Makes every call on a gate. `keys` are the keys that were issued.
fn call_gate(gate: &Gate<&[CacheLine]>, keys: &[(Key, KeyId)], bytes: &mut Bytes<'_>) {
    let forged = |key_id: u64| {
        model::encode_key(&model::Key {
            prefix: "kt".to_owned(),
            env: "live".to_owned(),
            key_id: key_id.max(1),
            secret: 0x5eed_5eed_5eed_5eed,
        })
    };
    let deny = |text: &[u8], now: Timestamp| {
        let verdict = gate.check(Some(text), 1, now);
        assert!(!verdict.is_admitted(), "a key that was not issued was admitted");
        assert!(verdict.quotas().is_empty(), "a key that was not issued reached a tally");
        check_verdict(&verdict);
    };
    for _ in 0..16 {
        let now = Timestamp::from_unix_ms(time(bytes));
        deny(forged(bytes.word()).as_bytes(), now);
        deny(b"unknown-0123456789", now);
        for (key, key_id) in keys {
            deny(forged(key_id.number()).as_bytes(), now);
            let verdict = gate.check(Some(key.expose().as_bytes()), bytes.cost(), now);
            check_verdict(&verdict);
            let charge = verdict.charge().unwrap_or(Charge::new(1, now));
            check_verdict(&gate.peek(Some(key.expose().as_bytes()), 1, now));
            gate.refund(*key_id, charge, now).iter().for_each(check_verdict);
            gate.settle(*key_id, charge, bytes.cost(), now).iter().for_each(check_verdict);
        }
        check_verdict(&gate.check(Some(b"legacy-0123456789"), 1, now));
        for info in gate.list(now) {
            let _ = (gate.reset(info.key_id, now), gate.key(info.key_id, now));
        }
        gate.verify(now, |flaw| assert!(!flaw.to_string().is_empty()));
        let _ = gate.plans().count();
        if bytes.is_empty() {
            break;
        }
        administer(gate, bytes, now);
    }
}

/// Makes one change as an administrator.
fn administer(gate: &Gate<&[CacheLine]>, bytes: &mut Bytes<'_>, now: Timestamp) {
    // Fails if the table's content says that another administrator is active.
    drop(gate.administer());
    let mut administrator = gate.take_over();
    let _ = administrator.has_recovered();
    let new = NewKey::new(7, Name::new("dev").unwrap());
    let entropy = Entropy::new([bytes.byte(); 24]);
    let listed: Vec<KeyId> = gate.list(now).map(|info| info.key_id).collect();
    let key_id = listed.get(bytes.below(8)).or(listed.first()).copied();
    match (bytes.below(7), key_id) {
        (0, _) => {
            if let Ok((key, key_id)) = administrator.issue(&new, entropy, now) {
                drop(administrator);
                assert_eq!(gate.key(key_id, now).map(|info| info.key_id), Some(key_id));
                check_verdict(&gate.check(Some(key.expose().as_bytes()), 1, now));
            }
        }
        (1, _) => drop(administrator.import(b"another-legacy-key-01", &new, now)),
        (2, Some(key_id)) => {
            if let Ok(key) = administrator.rotate(key_id, None, true, entropy, now) {
                check_verdict(&gate.check(Some(key.expose().as_bytes()), 1, now));
            }
        }
        (3, Some(key_id)) => drop(administrator.revoke(key_id)),
        (4, Some(key_id)) => drop(administrator.assign(key_id, "default")),
        (5, _) => {
            let plan =
                gate.plan(0).unwrap_or_else(|| Plan::new("x", "1/day".parse().unwrap()).unwrap());
            let _ = administrator.set_plan(&plan);
        }
        _ => administrator.verify(now, |flaw| assert!(!flaw.to_string().is_empty())),
    }
}

/// Reads a time in Unix milliseconds, which is often plausible.
fn time(bytes: &mut Bytes<'_>) -> u64 {
    let base = 1_767_225_600_000u64;
    match bytes.byte() {
        0..=127 => base,
        byte @ 128..=199 => base + u64::from(byte - 127) * 60_000,
        byte @ 200..=229 => base - u64::from(byte - 199) * 600_000,
        230..=250 => bytes.word(),
        251..=253 => 0,
        _ => u64::MAX,
    }
}

/// Asserts that a verdict makes a valid response.
fn check_verdict(verdict: &Verdict) {
    for quota in verdict.quotas().iter() {
        assert!(quota.remaining <= quota.limit);
    }
    assert_eq!(verdict.is_admitted(), verdict.http_status() == 200);
    assert!(!verdict.headers().as_str().is_empty() || verdict.quotas().is_empty());
    let _ = (verdict.problem(), verdict.retry_after_s());
}
