//! Tests of calls that are stopped while a key's record is written 8,192 times. The sequence of the
//! record's seqlock then has its former value again. Such a call neither admits a key that ended
//! nor changes the tally of the record's next key.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

use alloc::rc::Rc;
use core::cell::Cell;

use keytally_core::{CacheLine, Gate, Key, KeyId, Reason};

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use support::{at, check, config, entropy, issue, memory, new_key, peppers, plan};

/// The number of writes after which a record's sequence has the same value again.
const WRITES_PER_CYCLE: usize = 1 << 13;

/// The requests that a key may make in a minute.
const LIMIT: u32 = 3;

type SharedGate = Gate<Rc<[CacheLine]>>;

/// A gate's memory that runs a hook at one access. The call that makes this access is stopped
/// meanwhile.
struct StoppingMemory {
    lines: Rc<[CacheLine]>,
    /// The accesses until the hook runs, this one included; 0 if it does not run any more.
    accesses_left: Cell<u32>,
    hook: Cell<Option<Box<dyn FnOnce()>>>,
}

impl AsRef<[CacheLine]> for StoppingMemory {
    fn as_ref(&self) -> &[CacheLine] {
        match self.accesses_left.get() {
            0 => {}
            1 => {
                self.accesses_left.set(0);
                self.hook.take().unwrap()();
            }
            accesses => self.accesses_left.set(accesses - 1),
        }
        &self.lines
    }
}

/// A gate of one record, and the key that it holds.
struct Setup {
    lines: Rc<[CacheLine]>,
    key: Key,
    key_id: KeyId,
}

impl Setup {
    /// Issues the key at noon.
    fn new() -> Self {
        let plans = [plan("default", &format!("{LIMIT}/minute"))];
        let config = config(1, &plans);
        let lines: Rc<[CacheLine]> = memory(config.lines()).into();
        let gate = Gate::init(Rc::clone(&lines), &config, peppers(&[1])).unwrap();
        let (key, key_id) = issue(&gate, &new_key(), entropy(7));
        Self { lines, key, key_id }
    }

    /// Another gate on the same memory, which is not stopped.
    fn gate(&self) -> SharedGate {
        Gate::attach(Rc::clone(&self.lines), peppers(&[1])).unwrap()
    }

    /// Makes a call on the gate, and stops it at the given access of the memory, counted from 1,
    /// while `meanwhile` runs. Returns `None` if the call has fewer accesses.
    fn stop_at<T>(
        &self,
        access: u32,
        call: impl FnOnce(&Gate<StoppingMemory>) -> T,
        meanwhile: impl FnOnce(&SharedGate) + 'static,
    ) -> Option<T> {
        let lines = Rc::clone(&self.lines);
        let memory = StoppingMemory { lines, accesses_left: Cell::new(0), hook: Cell::new(None) };
        let (stopped, other) = (Gate::attach(memory, peppers(&[1])).unwrap(), self.gate());
        stopped.memory().hook.set(Some(Box::new(move || meanwhile(&other))));
        stopped.memory().accesses_left.set(access);
        let result = call(&stopped);
        (stopped.memory().accesses_left.get() == 0).then_some(result)
    }
}

/// Revokes the key `former` and gives its record to another key, which makes one request. The
/// record is written [`WRITES_PER_CYCLE`] times. Returns the other key.
fn replace(gate: &SharedGate, former: KeyId) -> Key {
    let mut administrator = gate.administer().unwrap();
    administrator.revoke(former).unwrap();
    // The revocation is one write, and the reuse of the record two: it first ends the former key.
    let (key, key_id) = administrator.issue(&new_key(), entropy(9), at(130)).unwrap();
    for _ in 3..WRITES_PER_CYCLE {
        administrator.assign(key_id, "default").unwrap();
    }
    assert_ne!(key_id, former);
    assert!(check(gate, &key, at(130)).is_admitted());
    key
}

/// Makes the call once for each of its accesses, and stops it there while the record is given to
/// another key. Asserts that the other key keeps its counts, and passes each result to `judge`.
fn assert_next_key_keeps_its_tally<T>(
    call: impl Fn(&Setup, &Gate<StoppingMemory>) -> T,
    judge: impl Fn(&Setup, T),
) {
    for access in 1.. {
        let setup = Setup::new();
        let (former, next) = (setup.key_id, Rc::new(Cell::new(None)));
        let kept = Rc::clone(&next);
        let meanwhile = move |gate: &SharedGate| kept.set(Some(replace(gate, former)));
        let Some(result) = setup.stop_at(access, |gate| call(&setup, gate), meanwhile) else {
            assert!(access > 1, "the call was never stopped");
            break;
        };
        let verdict = setup.gate().peek(Some(next.take().unwrap().expose().as_bytes()), 0, at(130));
        assert_eq!(verdict.remaining(), Some(LIMIT - 1), "stopped at access {access}");
        judge(&setup, result);
    }
}

#[test]
fn check_stopped_for_a_sequence_cycle_spares_the_next_key() {
    assert_next_key_keeps_its_tally(
        |setup, gate| check(gate, &setup.key, at(130)),
        |_, verdict| {
            assert!(
                matches!(verdict.reason(), Some(Reason::Unknown | Reason::Revoked)),
                "{verdict:?}"
            );
        },
    );
}

#[test]
fn reset_stopped_for_a_sequence_cycle_spares_the_next_key() {
    assert_next_key_keeps_its_tally(
        |setup, gate| gate.reset(setup.key_id, at(130)),
        |_, verdict| assert!(verdict.is_none(), "{verdict:?}"),
    );
}

#[test]
fn check_stopped_for_a_sequence_cycle_sees_the_revocation() {
    for access in 1.. {
        let setup = Setup::new();
        let key_id = setup.key_id;
        let revoke = move |gate: &SharedGate| {
            let mut administrator = gate.administer().unwrap();
            for _ in 0..WRITES_PER_CYCLE {
                administrator.revoke(key_id).unwrap();
            }
        };
        let Some(verdict) = setup.stop_at(access, |gate| check(gate, &setup.key, at(1)), revoke)
        else {
            assert!(access > 1, "the check was never stopped");
            break;
        };
        assert_eq!(verdict.reason(), Some(Reason::Revoked), "stopped at access {access}");
        assert_eq!(setup.gate().key(key_id, at(1)).unwrap().last_used, None);
    }
}
