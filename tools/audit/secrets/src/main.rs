//! Checks keys whose secrets are marked as undefined memory. valgrind's memcheck reports each
//! branch and each index that depends on undefined memory.
//!
//! `cargo xtask test secrets` runs the program three times. In two of the runs, it accepts the
//! reports in one function of the core:
//!
//! - With the argument `secrets`, these are undefined: the stored MACs of all records, the two hash
//!   states of the pepper, and the secret and checksum of each right key. Reports in `Match::new`
//!   are accepted, where the result of the comparison becomes a branch. The text of a wrong key is
//!   defined: its client knows it, and after the comparison the check reads it to find the reason
//!   for the log.
//! - With the argument `ids`, the key ids of the records are undefined instead, and only wrong keys
//!   are checked. Reports in `mismatch_reason` are accepted, where an index depends on whether the
//!   id exists. The function finds the reason for the log.
//! - With the argument `control`, the program compares secrets byte by byte and stops at the first
//!   difference. valgrind must report it.

use core::hint::black_box;

use crabgrind::memcheck::{MemState, is_defined, mark_mem};
use keytally_core::{
    CacheLine, Entropy, Gate, GateConfig, Key, KeyId, Name, NewKey, Outcome, Peppers, Plan, Reason,
    Timestamp, parse_key,
};

const PEPPER: [u8; 32] = [9; 32];
const NOW_S: u32 = 1_700_000_000;

/// The length of secret and checksum at the end of a key, in characters.
const SECRET_LEN: usize = 22 + 6;

/// Marks the memory of a value as defined or undefined.
fn mark<T: ?Sized>(value: &T, state: MemState) {
    let address = core::ptr::from_ref(value).cast_mut().cast();
    // The result is ignored: this version of the crate returns valgrind's success as an error.
    let _ = mark_mem(address, size_of_val(value), state);
}

fn now() -> Timestamp {
    Timestamp::from_unix_s(NOW_S.into())
}

/// Returns the pepper with only its fingerprint defined, which is public: the gate's header has it.
fn peppers() -> Peppers {
    let bytes = PEPPER;
    mark(&bytes, MemState::Undefined);
    let peppers = Peppers::new(&[bytes]).expect("one pepper");
    let words = core::ptr::from_ref(&peppers).cast::<u64>();
    let count = size_of_val(&peppers) / 8;
    // Two states of 32 bytes and the fingerprint are undefined now. The compiler puts the
    // fingerprint last. With another order, valgrind would report the opening of the gate.
    let first = (0..count)
        .find(|&index| is_defined(words.wrapping_add(index).cast_mut().cast(), 8).is_err());
    let fingerprint = words.wrapping_add(first.expect("an undefined word in the pepper") + 8);
    let _ = mark_mem(fingerprint.cast_mut().cast(), 8, MemState::Defined);
    peppers
}

fn main() {
    assert_eq!(
        crabgrind::run_mode(),
        crabgrind::RunMode::Valgrind,
        "this program must run under valgrind"
    );
    let argument = std::env::args().nth(1).unwrap_or_default();
    if argument == "control" {
        control();
        return;
    }
    let ids = argument == "ids";
    let plans =
        [Plan::new("default", "100/minute, 1000/hour".parse().expect("a policy")).expect("a plan")];
    let prefix = Name::new("kt").expect("a name");
    let config = GateConfig::new(64, prefix, &plans).with_plan_slots(1);
    let memory: Vec<CacheLine> = (0..config.lines()).map(|_| CacheLine::new()).collect();
    let gate = Gate::init(&memory[..], &config, Peppers::new(&[PEPPER]).expect("one pepper"))
        .expect("a gate");
    let new = NewKey::new(42, Name::new("live").expect("a name"));
    let mut administrator = gate.administer().expect("alone");
    let mut issue =
        |seed: u8| administrator.issue(&new, Entropy::new([seed; 24]), now()).expect("room");
    let (current, _) = issue(40);
    let (previous, rotated) = issue(90);
    let (expired, expired_id) = issue(140);
    let (revoked, revoked_id) = issue(220);
    let rotated_key = administrator
        .rotate(
            rotated,
            Some(Timestamp::from_unix_s(u64::from(NOW_S) + 60)),
            false,
            Entropy::new([3; 24]),
            now(),
        )
        .expect("rotated");
    administrator
        .rotate(expired_id, Some(now()), false, Entropy::new([4; 24]), now())
        .expect("rotated");
    administrator.revoke(revoked_id).expect("revoked");
    drop(administrator);
    drop(gate);

    // The last 64 lines are the records: word 0 is the key id, words 2 to 5 are the MACs.
    for record in &memory[config.lines() - 64..] {
        let words = core::ptr::from_ref(record).cast::<u64>();
        for word in if ids { 0..1 } else { 2..6 } {
            let _ = mark_mem(words.wrapping_add(word).cast_mut().cast(), 8, MemState::Undefined);
        }
    }
    let peppers = if ids { Peppers::new(&[PEPPER]).expect("one pepper") } else { peppers() };
    let gate = Gate::attach(&memory[..], peppers).expect("the gate");
    let check = |text: &str, outcome: Outcome, reason: Option<Reason>| {
        let verdict = gate.check(Some(text.as_bytes()), 1, now());
        mark(&verdict, MemState::Defined);
        assert_eq!((verdict.outcome(), verdict.reason()), (outcome, reason));
    };
    let right = |key: &Key, outcome: Outcome, reason: Option<Reason>| {
        let text = key.expose().to_owned();
        mark(&text.as_bytes()[text.len() - SECRET_LEN..], MemState::Undefined);
        check(&text, outcome, reason);
    };
    if !ids {
        right(&current, Outcome::Admitted, None);
        right(&rotated_key, Outcome::Admitted, None);
        right(&previous, Outcome::Admitted, None);
        right(&expired, Outcome::InvalidKey, Some(Reason::Expired));
        right(&revoked, Outcome::InvalidKey, Some(Reason::Revoked));
    }

    let id = parse_key(current.expose().as_bytes()).expect("a key").key_id;
    for (id, secret, reason) in [
        (id, wrong(40, 0), Some(Reason::WrongSecret)),
        (id, wrong(40, 15), Some(Reason::WrongSecret)),
        (KeyId::from_number(id.number() ^ 1).expect("an id"), [40; 16], Some(Reason::Unknown)),
        (revoked_id, wrong(220, 7), Some(Reason::WrongSecret)),
        (rotated, wrong(90, 7), Some(Reason::WrongSecret)),
    ] {
        let key = Key::mint(prefix, new.env, id, &secret).expect("a key");
        check(key.expose(), Outcome::InvalidKey, reason);
    }
    black_box(memory[0].load(0));
}

/// Returns a secret that has `right` in each byte, except for a wrong byte at `index`.
fn wrong(right: u8, index: usize) -> [u8; 16] {
    let mut secret = [right; 16];
    secret[index] ^= 1;
    secret
}

/// Compares secrets up to the first difference, which valgrind must report.
#[inline(never)]
fn control() {
    let (mut tag, stored) = ([7u8; 16], [7u8; 16]);
    mark(&stored, MemState::Undefined);
    tag[3] = black_box(8);
    let same = black_box(&tag).iter().zip(black_box(&stored)).all(|(one, other)| one == other);
    black_box(same);
}
