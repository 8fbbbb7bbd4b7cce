//! Scenarios of a limiter of addresses: clients that share a network.

use alloc::sync::Arc;

use keytally_core::{AddressLimiter, CacheLine, Compound, Outcome};

use crate::model::{Work, explore, preemptions, together};
use crate::support::{address, address_limiter, at};

type Shared = Arc<AddressLimiter<Vec<CacheLine>>>;

/// A check of an address on a thread of its own.
fn check(limiter: &Shared, text: &'static str) -> Work<Compound> {
    let limiter = Arc::clone(limiter);
    Box::new(move || limiter.check(address(text), 1, at(0)))
}

fn left(limiter: &Shared, text: &str) -> Vec<u32> {
    let peeked = limiter.peek(address(text), 0, at(0));
    peeked.verdicts().map(|verdict| verdict.remaining().unwrap()).collect()
}

/// A limiter of addresses in one bucket, with one unit left in a /56 and two clients of it that
/// have slots.
fn with_last_unit() -> Shared {
    let limiter = Arc::new(address_limiter("addresses: /64 9/minute; /56 3/minute", 1));
    for text in ["2001:db8::1", "2001:db8:0:1::1"] {
        assert!(limiter.check(address(text), 1, at(0)).is_admitted());
    }
    limiter
}

#[test]
fn two_clients_for_the_last_unit_of_a_network_admit_one() {
    explore(preemptions(9, 9), || {
        let limiter = with_last_unit();
        let all = together([check(&limiter, "2001:db8::1"), check(&limiter, "2001:db8:0:1::1")]);
        let (admitted, refused) = if all[0].is_admitted() { (0, 1) } else { (1, 0) };
        assert!(all[admitted].is_admitted());
        assert_eq!(all[refused].outcome(), Outcome::Denied);
        assert!(all[refused].charge(0).is_none());
        let rooms = ["2001:db8::1", "2001:db8:0:1::1"].map(|text| left(&limiter, text));
        assert_eq!((&rooms[admitted][..], &rooms[refused][..]), (&[7, 0][..], &[8, 0][..]));
    });
}

#[test]
fn newcomer_that_loses_the_last_unit_takes_no_slot() {
    explore(preemptions(2, 3), || {
        let limiter = Arc::new(address_limiter("addresses: /64 9/minute; /56 2/minute", 1));
        assert!(limiter.check(address("2001:db8::1"), 1, at(0)).is_admitted());
        let all =
            together([check(&limiter, "2001:db8:0:2::1"), check(&limiter, "2001:db8:0:1::1")]);
        let admitted = all.iter().filter(|compound| compound.is_admitted()).count();
        assert_eq!((admitted, limiter.live_subjects(at(0))), (1, 3));
    });
}

/// One request charges both networks between the charges of the other.
#[test]
fn two_requests_of_one_client_charge_each_network_once() {
    for (policy, rooms) in [
        ("addresses: /64 9/minute; /56 9/minute", [6, 6]),
        // One unit is left, so the charge of the larger network is given back.
        ("addresses: /64 2/minute; /56 9/minute", [0, 7]),
    ] {
        explore(preemptions(9, 9), move || {
            let limiter = Arc::new(address_limiter(policy, 1));
            assert!(limiter.check(address("2001:db8::1"), 1, at(0)).is_admitted());
            let all = together([check(&limiter, "2001:db8::1"), check(&limiter, "2001:db8::1")]);
            let admitted = all.iter().filter(|compound| compound.is_admitted()).count();
            assert_eq!(left(&limiter, "2001:db8::1"), rooms);
            assert_eq!(admitted, 8 - usize::try_from(rooms[1]).unwrap());
        });
    }
}
