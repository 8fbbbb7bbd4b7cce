//! Theorems about gates and limiters. They are not marked for Kani: each call computes hashes.

use core::cell::{Cell, RefCell};
use std::collections::HashMap;

use bolero::{TypeGenerator, check};
use keytally_core::{
    AdminError, CacheLine, Entropy, Gate, GateConfig, Key, KeyId, Limiter, Name, NewKey, OnFull,
    Outcome, Peppers, Plan, Policy, SECRET_LEN, Verdict, decide,
};
use keytally_theorems::{AnyCost, AnyPolicy, AnyTime, START_MS, Tally, at};

/// The number of random inputs of each harness under `cargo test`. A hash takes most of the time.
const INPUTS: usize = 300;
/// The number of calls in a history.
const CALLS: usize = 24;

/// The number of records of a gate.
const RECORDS: u32 = 8;

fn memory(lines: usize) -> Vec<CacheLine> {
    (0..lines).map(|_| CacheLine::new()).collect()
}

/// Returns all words of a table.
fn image(lines: &[CacheLine]) -> Vec<u64> {
    lines.iter().flat_map(|line| (0..8).map(|word| line.load(word))).collect()
}

fn name(text: &str) -> Name {
    Name::new(text).expect("it is a name")
}

fn peppers() -> Peppers {
    Peppers::new(&[[1u8; 32]]).expect("it is long enough")
}

/// Returns the secret of the key that is issued with this number.
fn secret(number: u64) -> [u8; SECRET_LEN] {
    let mut secret = [0; SECRET_LEN];
    secret[..8].copy_from_slice(&number.to_le_bytes());
    secret
}

/// Returns entropy that differs for each number. The key ids are spread over all values.
fn entropy(number: u64) -> Entropy {
    let id = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&id.to_le_bytes());
    bytes[8..].copy_from_slice(&secret(number));
    Entropy::new(bytes)
}

/// Returns the key of these parts as a client sends it.
fn mint(key_id: KeyId, secret: &[u8; SECRET_LEN]) -> Vec<u8> {
    let key = Key::mint(name("kt"), name("live"), key_id, secret).expect("the names are short");
    key.expose().as_bytes().to_vec()
}

/// Returns an empty gate, whose keys have this policy.
fn gate(policy: &Policy) -> Gate<Vec<CacheLine>> {
    let plans = [Plan::new("default", policy.clone().into()).expect("it is a name")];
    let config = GateConfig::new(RECORDS, name("kt"), &plans).with_hints(true);
    Gate::init(memory(config.lines()), &config, peppers()).expect("the memory has its size")
}

/// Issues the key with this number.
fn issue(gate: &Gate<impl AsRef<[CacheLine]>>, number: u64) -> (Key, KeyId) {
    let new = NewKey::new(42, name("live"));
    let mut administrator = gate.administer().expect("there is no other administrator");
    let (key, key_id) =
        administrator.issue(&new, entropy(number), at(START_MS)).expect("there is a free record");
    assert_eq!(key.expose().as_bytes(), mint(key_id, &secret(number)), "it has another secret");
    (key, key_id)
}

/// Memory of a table that keeps a copy of itself at one of the accesses of a call. The copy is what
/// a process leaves to others that is killed there.
struct Watched {
    lines: Vec<CacheLine>,
    accesses_left: Cell<u32>,
    copy: RefCell<Vec<u64>>,
}

impl Watched {
    fn new(lines: usize) -> Self {
        Self { lines: memory(lines), accesses_left: Cell::new(0), copy: RefCell::default() }
    }

    /// Runs `call`. Returns the memory at its access number `access`, or after it if it makes
    /// fewer.
    fn killed_at(&self, access: u8, call: impl FnOnce()) -> Vec<CacheLine> {
        self.accesses_left.set(u32::from(access) + 1);
        call();
        if self.accesses_left.replace(0) > 0 {
            *self.copy.borrow_mut() = image(&self.lines);
        }
        let copied = memory(self.lines.len());
        for (index, word) in self.copy.borrow().iter().enumerate() {
            copied[index / 8].store(index % 8, *word);
        }
        copied
    }
}

impl AsRef<[CacheLine]> for Watched {
    fn as_ref(&self) -> &[CacheLine] {
        match self.accesses_left.get() {
            0 => {}
            left => {
                self.accesses_left.set(left - 1);
                if left == 1 {
                    *self.copy.borrow_mut() = image(&self.lines);
                }
            }
        }
        &self.lines
    }
}

/// Guarantee 6, for a process that is killed at an access of a gate: no lock stays held, no
/// acknowledged count is lost, and each key has its old secret or its new one.
///
/// It covers kills at the first 64 calls of `as_ref` only, which hand out the whole memory. A kill
/// between two stores after one such call is not tried, and no assertion shows that a partial state
/// was reached. `host/tests/stops.rs` kills a process at each step, and asserts that it is reached.
#[test]
fn kill_at_any_access_of_a_gate_loses_no_count_and_no_key() {
    check!().with_iterations(INPUTS).with_type::<(u8, u8, AnyCost)>().for_each(
        |(kind, access, cost)| {
            let policy: Policy = "500/minute, 6000/hour".parse().expect("it is valid");
            let plans = [Plan::new("default", policy.into()).expect("it is a name")];
            let config = GateConfig::new(RECORDS, name("kt"), &plans).with_hints(true);
            let gate = Gate::init(Watched::new(config.lines()), &config, peppers())
                .expect("the memory has its size");
            let keys = [1, 2].map(|number| issue(&gate, number));
            let texts = [0, 1].map(|index: usize| keys[index].0.expose().as_bytes());
            let now = at(START_MS);
            for text in texts {
                assert!(gate.check(Some(text), 7, now).is_admitted());
            }
            let id = keys[0].1;
            let next = mint(id, &secret(9));
            let call = || match kind % 4 {
                0 => {
                    let _ = gate.check(Some(texts[0]), cost.units(), now);
                }
                1 => drop(issue(&gate, 3)),
                2 => {
                    let mut administrator = gate.administer().expect("there is no other");
                    administrator.rotate(id, None, false, entropy(9), now).expect("it is active");
                }
                _ => gate.administer().expect("there is no other").revoke(id).expect("it exists"),
            };
            let left = Gate::attach(gate.memory().killed_at(access % 64, call), peppers())
                .expect("it is a gate");
            // Before and after the next administrator completes what was begun.
            for _ in 0..2 {
                let remaining = |text: &[u8]| left.peek(Some(text), 0, now).remaining();
                assert_eq!(remaining(texts[1]), Some(5993), "another key");
                let charged = 5993 - if cost.units() <= 493 { cost.units() } else { 0 };
                match (kind % 4, remaining(texts[0]), remaining(&next)) {
                    (0, Some(units), None) => assert!([5993, charged].contains(&units), "{units}"),
                    (1, Some(5993), None) | (2, Some(5993), None) | (2, None, Some(5993)) => {}
                    (3, Some(5993) | None, None) => {}
                    other => panic!("after call, with the old and the new secret: {other:?}"),
                }
                drop(left.take_over());
            }
            issue(&left, 4);
        },
    );
}

/// What a client presents: an issued key, or a guess that resembles it.
#[derive(Clone, Copy, Debug, TypeGenerator)]
struct AnyPresented {
    kind: u8,
    /// The index of the key that it resembles.
    key: u8,
    /// The position of a change.
    position: u8,
    /// The change of that byte.
    change: u8,
    bytes: [u8; 48],
}

impl AnyPresented {
    /// Returns the presented text. The keys have the numbers 1 to 3.
    fn text(&self, keys: &[(Key, KeyId); 3]) -> Vec<u8> {
        let index = self.key % 3;
        let (key, key_id) = &keys[usize::from(index)];
        let mut secret = secret(u64::from(index) + 1);
        let position = usize::from(self.position);
        match self.kind % 6 {
            0 | 1 => key.expose().as_bytes().to_vec(),
            2 => {
                secret[position % SECRET_LEN] ^= self.change;
                mint(*key_id, &secret)
            }
            3 => match KeyId::from_number(key_id.number() ^ 1u64 << (position % 64)) {
                Some(other) => mint(other, &secret),
                None => Vec::new(),
            },
            4 => {
                let mut text = key.expose().as_bytes().to_vec();
                let len = text.len();
                text[position % len] ^= self.change;
                text
            }
            _ => self.bytes[..position % 49].to_vec(),
        }
    }
}

/// Guarantee 4: a check of a gate changes a tally only if the presented key is a valid secret of
/// the key that the tally belongs to.
#[test]
fn check_of_any_text_charges_only_the_key_that_it_is() {
    check!().with_iterations(INPUTS).with_type::<(AnyPresented, AnyCost)>().for_each(
        |(presented, cost)| {
            let gate = gate(&"500/minute, 6000/hour".parse().expect("it is valid"));
            let keys = [1, 2, 3].map(|number| issue(&gate, number));
            let now = at(START_MS);
            let remaining = || {
                let peek = |(key, _): &(Key, KeyId)| {
                    gate.peek(Some(key.expose().as_bytes()), 0, now).remaining()
                };
                [0, 1, 2].map(|index| peek(&keys[index]))
            };
            let (before, words_before) = (remaining(), image(gate.memory()));
            let text = presented.text(&keys);
            let verdict = gate.check(Some(&text), cost.units(), now);
            let changed = image(gate.memory())
                .iter()
                .zip(&words_before)
                .filter(|(after, before)| after != before)
                .count();
            let is_charged = verdict.is_admitted() && cost.units() > 0;
            assert_eq!(changed, usize::from(is_charged), "words changed");
            let after = remaining();
            for (index, (key, _)) in keys.iter().enumerate() {
                let is_presented = key.expose().as_bytes() == text;
                let charged = if is_presented && is_charged { cost.units() } else { 0 };
                assert_eq!(
                    after[index],
                    before[index].map(|units| units - charged),
                    "key {index} after {:?}",
                    verdict.outcome()
                );
            }
        },
    );
}

/// A check of a subject.
#[derive(Clone, Copy, Debug, TypeGenerator)]
struct AnySubject {
    subject: u8,
    cost: AnyCost,
    step: AnyTime,
}

/// Guarantee 5: a table never grows, and a tally is never evicted before all its windows have
/// passed.
#[test]
fn limiter_with_any_subjects_evicts_no_live_tally() {
    check!().with_iterations(INPUTS).with_type::<(AnyPolicy, [AnySubject; 4 * CALLS])>().for_each(
        |(policy, checks)| {
            policy.with(|policy| {
                let lines = Limiter::<Vec<CacheLine>>::lines(1);
                let limiter = Limiter::init(memory(lines), policy, 1, [7; 16])
                    .expect("the memory has its size");
                limiter.set_on_full(OnFull::Refuse);
                let (layout, limits) = (policy.layout(), policy.limits());
                let mut tallies = HashMap::<u8, u64>::new();
                let mut now_ms = START_MS;
                for (index, check) in checks.iter().enumerate() {
                    // Time stands still while a table fills, and then passes.
                    if index % 32 == 31 {
                        now_ms = check.step.not_before(now_ms);
                    }
                    let (now, cost) = (at(now_ms), check.cost.units());
                    let word = tallies.entry(check.subject % 64).or_default();
                    let verdict = limiter.check(&[check.subject % 64], cost, now);
                    if verdict.outcome() == Outcome::Full {
                        let tally = Tally::new(policy, *word);
                        let is_live = |quota| tally.used(quota, tally.time_ms(now_ms)) > 0;
                        assert!(
                            !(0..policy.quotas().len()).any(is_live),
                            "a live tally has no slot"
                        );
                    } else {
                        let expected = decide::check(layout, &limits, *word, now, cost);
                        *word = expected.next;
                        assert_eq!(verdict.outcome(), expected.outcome);
                        let expected = Verdict::decided(layout, &limits, expected, None, now, cost);
                        assert_eq!(verdict.quotas(), expected.quotas(), "the tally lost counts");
                    }
                    assert!(limiter.live_subjects(now) <= limiter.slots_total());
                    assert_eq!(limiter.memory().len(), lines);
                }
            });
        },
    );
}

/// Guarantee 8, as far as a client can observe it without a clock: a well-formed guess gets the
/// same response however much of the secret matches, and whether or not the key id exists.
///
/// The suite `secrets` follows secrets through the instructions.
#[test]
fn guess_with_any_match_gets_the_same_response() {
    check!().with_iterations(INPUTS).with_type::<(u64, u8, u8)>().for_each(
        |(number, position, change)| {
            let gate = gate(&"5/minute".parse().expect("it is valid"));
            let (_, key_id) = issue(&gate, *number);
            let position = usize::from(*position);
            let mut close = secret(*number);
            close[position % SECRET_LEN] ^= (*change).max(1);
            let unknown = KeyId::from_number(key_id.number() ^ 1u64 << (position % 60));
            let guesses = [
                (Some(key_id), close),
                (Some(key_id), [change | 1; SECRET_LEN]),
                (unknown, secret(*number)),
                (unknown, [change | 1; SECRET_LEN]),
            ];
            let responses = guesses.map(|(key_id, secret)| {
                let verdict = gate.check(Some(&mint(key_id?, &secret)), 1, at(START_MS));
                assert_eq!(verdict.outcome(), Outcome::InvalidKey);
                assert!(verdict.quotas().is_empty());
                let fields = verdict.headers().as_str().to_owned();
                Some((verdict.http_status(), fields, verdict.body(), verdict.problem().to_string()))
            });
            let mut responses = responses.iter().flatten();
            let first = responses.next();
            assert!(responses.all(|response| Some(response) == first), "responses differ");
        },
    );
}

/// A change of keys, or a check.
#[derive(Clone, Copy, Debug, TypeGenerator)]
struct AnyChange {
    kind: u8,
    key: u8,
    secret: u8,
    /// The grace of a rotation in seconds.
    grace_s: u16,
    time: AnyTime,
}

/// Guarantee 10: after `revoke` has returned, no check that begins later admits the key, with any
/// of its secrets, at any time and through any handle.
#[test]
fn check_after_a_revocation_is_refused_in_any_history() {
    check!().with_iterations(INPUTS).with_type::<[AnyChange; CALLS]>().for_each(|changes| {
        let gate = gate(&"4000000000/minute".parse().expect("it is valid"));
        let other = Gate::attach(&gate.memory()[..], peppers()).expect("it is a gate");
        // For each key, its secrets and whether it was revoked.
        let mut keys = [1, 2, 3].map(|number| {
            let (key, key_id) = issue(&gate, number);
            (key_id, vec![key], false)
        });
        for (index, change) in changes.iter().enumerate() {
            let now = at(change.time.unix_ms(gate.layout()));
            let (key_id, secrets, is_revoked) = &mut keys[usize::from(change.key) % 3];
            let mut administrator = gate.administer().expect("there is no other administrator");
            match change.kind % 6 {
                0 => {
                    administrator.revoke(*key_id).expect("the gate has the key");
                    *is_revoked = true;
                }
                1 | 2 => {
                    let until = at(now.unix_ms() + u64::from(change.grace_s) * 1000);
                    let entropy = entropy(100 + u64::try_from(index).expect("it is small"));
                    match administrator.rotate(*key_id, Some(until), true, entropy, now) {
                        Ok(key) => secrets.push(key),
                        Err(error) => assert!(matches!(error, AdminError::Revoked(_)), "{error}"),
                    }
                }
                _ => {}
            }
            drop(administrator);
            let newest = secrets.len() - 1;
            for secret in [usize::from(change.secret) % secrets.len(), newest] {
                let text = Some(secrets[secret].expose().as_bytes());
                for verdict in [gate.check(text, 1, now), other.check(text, 1, now)] {
                    let is_refused = verdict.outcome() == Outcome::InvalidKey;
                    assert!(is_refused || !*is_revoked, "secret {secret} was admitted");
                    assert!(!is_refused || *is_revoked || secret < newest, "{verdict:?}");
                }
            }
        }
    });
}
