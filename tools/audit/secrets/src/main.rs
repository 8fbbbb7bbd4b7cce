//! Checks keys whose secrets are marked as undefined memory. valgrind's memcheck reports each
//! branch and each index that depends on undefined memory.
//!
//! The keys are those of a plain gate, and of one whose requests charge a key, its team and a group
//! and need a scope. There, each key is checked by every function that checks one.
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
    CacheLine, Compound, Entropy, Gate, GateConfig, GatePart, Key, KeyId, Name, NewKey, Outcome,
    Peppers, Plan, Reason, Timestamp, Verdict, check_all, parse_key, peek_all,
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
    check_keys("100/minute, 1000/hour", &[], ids);
    check_keys(
        "100/minute, 1000/hour; team: 1000/hour; group write: sliding 50/minute",
        &["read", "write"],
        ids,
    );
}

/// The number of records of a gate.
const RECORDS: usize = 64;

/// Checks right and wrong keys of a gate with this plan and these scopes, of which the keys have
/// the first. If `ids`, the key ids of the records are undefined, and else the secrets.
fn check_keys(plan: &str, scopes: &[&str], ids: bool) {
    let plans = [Plan::new("default", plan.parse().expect("a plan's text")).expect("a plan")];
    let prefix = Name::new("kt").expect("a name");
    let teams = if scopes.is_empty() { 0 } else { 4 };
    let config = GateConfig::new(64, prefix, &plans).with_plan_slots(1);
    let config = config.with_teams(teams).with_scopes(scopes);
    let memory: Vec<CacheLine> = (0..config.lines()).map(|_| CacheLine::new()).collect();
    let gate = Gate::init(&memory[..], &config, Peppers::new(&[PEPPER]).expect("one pepper"))
        .expect("a gate");
    let of_account = |account: u32| {
        let new = NewKey::new(account, Name::new("live").expect("a name"));
        if scopes.is_empty() { new } else { new.with_scopes(&["read"]) }
    };
    let new = of_account(42);
    let mut administrator = gate.administer().expect("alone");
    let mut issue = |new: &NewKey<'_>, seed: u8| {
        administrator.issue(new, Entropy::new([seed; 24]), now()).expect("room")
    };
    let (current, current_id) = issue(&new, 40);
    let (previous, rotated) = issue(&new, 90);
    let (expired, expired_id) = issue(&new, 140);
    let (revoked, revoked_id) = issue(&new, 220);
    let (suspended, suspended_id) = issue(&of_account(43), 180);
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
    if teams > 0 {
        administrator.set_suspended(43, true).expect("suspended");
    }
    drop(administrator);
    drop(gate);

    // Word 0 of a record is the key id, words 2 to 5 are the MACs. An id names its record.
    let key_ids = [current_id, rotated, expired_id, revoked_id, suspended_id];
    let firsts = key_ids.map(|id| {
        let mut lines = memory.iter().enumerate();
        // The redo record, which is in the header, also has the id of the last key.
        let record = lines.rfind(|(_, line)| line.load(0) == id.number()).expect("a record").0;
        record - usize::try_from(id.number() >> 58).expect("an index")
    });
    assert!(firsts.iter().all(|first| *first == firsts[0]), "{firsts:?}");
    for record in &memory[firsts[0]..firsts[0] + RECORDS] {
        let words = core::ptr::from_ref(record).cast::<u64>();
        for word in if ids { 0..1 } else { 2..6 } {
            let _ = mark_mem(words.wrapping_add(word).cast_mut().cast(), 8, MemState::Undefined);
        }
    }
    let peppers = if ids { Peppers::new(&[PEPPER]).expect("one pepper") } else { peppers() };
    let gate = Gate::attach(&memory[..], peppers).expect("the gate");
    let check = |text: &str, outcome: Outcome, reason: Option<Reason>| {
        let verdict: Verdict = gate.check(Some(text.as_bytes()), 1, now());
        mark(&verdict, MemState::Defined);
        assert_eq!((verdict.outcome(), verdict.reason()), (outcome, reason));
        for compound in requests(&gate, text, !scopes.is_empty()) {
            mark(&compound, MemState::Defined);
            assert_eq!((compound.outcome(), compound.reason()), (outcome, reason));
        }
    };
    let undefined = |key: &Key| {
        let text = key.expose().to_owned();
        mark(&text.as_bytes()[text.len() - SECRET_LEN..], MemState::Undefined);
        text
    };
    let right = |key: &Key, outcome: Outcome, reason: Option<Reason>| {
        check(&undefined(key), outcome, reason);
    };
    if !ids {
        right(&current, Outcome::Admitted, None);
        right(&rotated_key, Outcome::Admitted, None);
        right(&previous, Outcome::Admitted, None);
        right(&expired, Outcome::InvalidKey, Some(Reason::Expired));
        right(&revoked, Outcome::InvalidKey, Some(Reason::Revoked));
        if teams > 0 {
            right(&suspended, Outcome::InvalidKey, Some(Reason::Suspended));
            let text = undefined(&current);
            let part = gate.part(Some(text.as_bytes()), 1).with_scope("write").expect("a scope");
            let forbidden = part.check(now());
            mark(&forbidden, MemState::Defined);
            assert_eq!(forbidden.outcome(), Outcome::Forbidden);
            let part = gate.part(Some(text.as_bytes()), 101).with_group("write").expect("a group");
            let denied = part.check(now());
            mark(&denied, MemState::Defined);
            assert_eq!(denied.outcome(), Outcome::TooCostly);
        }
    }

    let id = parse_key(current.expose().as_bytes()).expect("a key").key_id;
    for (id, secret, reason) in [
        (id, wrong(40, 0), Some(Reason::WrongSecret)),
        (id, wrong(40, 15), Some(Reason::WrongSecret)),
        (KeyId::from_number(id.number() ^ 1).expect("an id"), [40; 16], Some(Reason::Unknown)),
        (revoked_id, wrong(220, 7), Some(Reason::WrongSecret)),
        (rotated, wrong(90, 7), Some(Reason::WrongSecret)),
        (suspended_id, wrong(180, 7), Some(Reason::WrongSecret)),
    ] {
        let key = Key::mint(prefix, new.env, id, &secret).expect("a key");
        check(key.expose(), Outcome::InvalidKey, reason);
    }
    black_box(memory[0].load(0));
}

/// Makes requests of a key by each function that makes one: to a group and with a scope, if the
/// gate has them.
fn requests(gate: &Gate<&[CacheLine]>, text: &str, is_extended: bool) -> [Compound; 4] {
    let part = || -> GatePart<'_, &[CacheLine]> {
        let part = gate.part(Some(text.as_bytes()), 1);
        if !is_extended {
            return part;
        }
        let part = part.with_group("write").expect("a group");
        part.with_scope("read").expect("a scope")
    };
    [
        part().check(now()),
        part().peek(now()),
        check_all(&[&part()], now()).expect("one part"),
        peek_all(&[&part()], now()).expect("one part"),
    ]
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
