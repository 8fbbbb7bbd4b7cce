//! The cost of calls: instructions and stack.

use core::hint::black_box;

use keytally_checks::{KEYS, PLAN_SLOTS, SUBJECTS};
use keytally_core::{
    CacheLine, Entropy, Gate, GateConfig, Limiter, Name, NewKey, Peppers, Plan, Policy, Timestamp,
};
use semihosting::println;

use crate::{board, stack};

/// The number of calls that are counted together, since a tick may contain many instructions.
const ROUNDS: u32 = 64;

/// Prints the cost of each call that a device makes.
pub(crate) fn print_all(gate: &[CacheLine], limiter: &[CacheLine]) {
    let policy: Policy = "100/minute, 1000/hour".parse().expect("the documented policy");
    let plans = [Plan::new("default", policy.clone().into()).expect("a short name")];
    let prefix = Name::new("kt").expect("a short name");
    let config = GateConfig::new(KEYS, prefix, &plans).with_plan_slots(PLAN_SLOTS);
    let peppers = Peppers::new(&[[0x5a; 32]]).expect("a pepper of 32 bytes");
    let gate = Gate::init(gate, &config, peppers).expect("memory of the size of a gate");
    let limiter = Limiter::init(limiter, &policy, SUBJECTS, [7; 16])
        .expect("memory of the size of a limiter");
    let now = Timestamp::from_unix_s(1_767_225_600);

    let new = NewKey::new(1, Name::new("live").expect("a short name"));
    let mut administrator = gate.administer().expect("the only administrator");
    let (key, _) =
        administrator.issue(&new, Entropy::new([1; 24]), now).expect("a gate with a free record");
    let (revoked, id) =
        administrator.issue(&new, Entropy::new([2; 24]), now).expect("a gate with a free record");
    administrator.revoke(id).expect("an issued key");
    drop(administrator);
    let key = key.expose().as_bytes();
    let revoked = revoked.expose().as_bytes();

    cost("gate: check, admitted", || gate.check(black_box(Some(key)), 1, now));
    // Charges the rest of the minute. The measurement above made ROUNDS + 1 calls.
    let last = gate.check(Some(key), 100 - ROUNDS - 1, now);
    assert!(
        !gate.check(Some(key), 1, now).is_admitted(),
        "the minute has room: {:?}",
        last.remaining()
    );
    cost("gate: check, denied", || gate.check(black_box(Some(key)), 1, now));
    cost("gate: check, revoked", || gate.check(black_box(Some(revoked)), 1, now));
    let mut typo = *key.first_chunk::<47>().expect("a key of this prefix and environment");
    typo[20] = if typo[20] == b'0' { b'1' } else { b'0' };
    cost("gate: check, wrong checksum", || gate.check(black_box(Some(&typo)), 1, now));
    cost("limiter: check, admitted", || limiter.check(black_box(b"203.0.113.9"), 1, now));
    let verdict = gate.peek(Some(key), 1, now);
    let mut block = [0; keytally_core::MAX_HEADERS_LEN];
    cost("verdict: headers", || black_box(&verdict).write_headers(&mut block));
}

/// Measures the stack of one call, then the instructions of `ROUNDS` calls. Prints both after
/// `label`.
fn cost<T>(label: &str, mut call: impl FnMut() -> T) {
    let mut once = || {
        drop(black_box(call()));
        stack::pointer()
    };
    let stack = stack::used(&mut once);
    let begin = board::ticks();
    for _ in 0..ROUNDS {
        once();
    }
    let instructions = board::instructions(board::ticks().wrapping_sub(begin)) / ROUNDS;
    println!("cost: {label}: {instructions} instructions, {stack} bytes of stack");
}
