//! Tests of compound charges: all parts are charged or none, in a sequence and after a lost race.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use core::cell::Cell;

use keytally_core::{
    CacheLine, Clock, Gate, Limiter, MAX_PARTS, Outcome, Part, Reason, Timestamp, check_all,
};
use proptest::prelude::*;

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use support::{
    at, config, entropy, gate, limiter, limiter_of_seed, new_key, plan, refusing_limiter,
};

type Limiters = Limiter<Vec<CacheLine>>;

/// A gate with one key whose plan is `policy`, and the key.
fn gate_with_key(policy: &str) -> (Gate<Vec<CacheLine>>, String) {
    let plans = [plan("default", policy)];
    let gate = gate(&config(8, &plans));
    let (key, _) = gate.administer().unwrap().issue(&new_key(), entropy(1), at(0)).unwrap();
    (gate, key.expose().to_owned())
}

fn left(limiter: &Limiters, subject: &[u8], now: Timestamp) -> u32 {
    limiter.peek(subject, 0, now).remaining().unwrap()
}

#[test]
fn all_parts_are_charged_or_none() {
    let (gate, key) = gate_with_key("3/minute");
    let (addresses, teams) = (limiter("5/minute", 8), limiter("2/minute", 8));
    let request = |cost| {
        check_all(
            &[
                &teams.part(b"42", cost),
                &gate.part(Some(key.as_bytes()), 1),
                &addresses.part(b"203.0.113.9", 2),
            ],
            at(0),
        )
        .unwrap()
    };
    let admitted = request(1);
    assert!(admitted.is_admitted());
    let charges = admitted.verdicts().map(|verdict| verdict.charge().unwrap().cost());
    assert!(charges.eq([1, 1, 2]));
    assert_eq!(admitted.decisive(), admitted.tallies()[0].verdict());

    // The team has one unit left, the key two, the address three.
    let denied = request(2);
    let outcomes = denied.verdicts().map(|verdict| verdict.outcome());
    assert!(outcomes.eq([Outcome::Denied, Outcome::Admitted, Outcome::Admitted]));
    assert!(denied.verdicts().all(|verdict| verdict.charge().is_none()));
    assert_eq!(denied.decisive().retry_after_s(), Some(60));
    assert_eq!((left(&teams, b"42", at(0)), left(&addresses, b"203.0.113.9", at(0))), (1, 3));
    assert_eq!(gate.peek(Some(key.as_bytes()), 0, at(0)).remaining(), Some(2));
    assert!(request(1).is_admitted());

    // The address has one unit left, and the team none: both are named.
    let both = request(1);
    let lacking = both.verdicts().filter(|verdict| !verdict.is_admitted());
    assert_eq!(lacking.count(), 2);
    assert_eq!(request(3).decisive().outcome(), Outcome::TooCostly);
}

#[test]
fn repeated_name_of_a_quota_gets_a_number() {
    let (gate, key) = gate_with_key("3/minute, 9/month@3");
    let networks = [limiter("4/minute, 8/hour", 8), limiter("2/minute, 7/month@17", 8)];
    let request = || {
        let [first, second] = networks.each_ref().map(|network| network.part(b"203.0.113.9", 1));
        check_all(&[&first, &gate.part(Some(key.as_bytes()), 1), &second], at(0)).unwrap()
    };
    let names = |list: &str| {
        let items = list.split(", ").map(|item| item.split_once(';').unwrap().0.to_owned());
        items.collect::<Vec<_>>().join(" ")
    };
    let admitted = request().headers();
    for field in ["RateLimit-Policy", "RateLimit"] {
        let (_, list) = admitted.iter().find(|(name, _)| *name == field).unwrap();
        let expected = r#""minute" "hour" "minute-2" "month" "minute-3" "month-2""#;
        assert_eq!(names(list), expected, "{field}");
    }
    assert!(request().is_admitted());
    let problem = request().problem();
    assert!(problem.ends_with(r#""violated-policies": ["minute-3"]}"#), "{problem}");
}

#[test]
fn invalid_key_charges_nothing() {
    let (gate, key) = gate_with_key("3/minute");
    let addresses = limiter("5/minute", 8);
    let wrong = key.replace("kt_", "xx_");
    for (api_key, outcome, reason) in [
        (None, Outcome::MissingKey, None),
        (Some("nonsense"), Outcome::InvalidKey, Some(Reason::Malformed)),
        (Some(wrong.as_str()), Outcome::InvalidKey, Some(Reason::Checksum)),
    ] {
        let refused = check_all(
            &[&addresses.part(b"a", 1), &gate.part(api_key.map(str::as_bytes), 1)],
            at(0),
        )
        .unwrap();
        assert!(!refused.is_admitted());
        assert_eq!((refused.decisive().outcome(), refused.decisive().reason()), (outcome, reason));
        assert_eq!(addresses.live_subjects(at(0)), 0, "no subject was inserted");
    }
}

#[test]
fn revoked_and_imported_keys_are_parts_too() {
    let (gate, key) = gate_with_key("3/minute");
    let key_id = gate.list(at(0)).next().unwrap().key_id;
    let imported = b"a-key-that-was-issued-elsewhere";
    let mut administrator = gate.administer().unwrap();
    if cfg!(feature = "imported-keys") {
        administrator.import(imported, &new_key(), at(0)).unwrap();
        let admitted = check_all(&[&gate.part(Some(imported), 3)], at(0)).unwrap();
        assert_eq!(admitted.tallies()[0].verdict().remaining(), Some(0));
    }
    let check = || check_all(&[&gate.part(Some(key.as_bytes()), 1)], at(0)).unwrap();
    assert!(check().is_admitted());
    administrator.revoke(key_id).unwrap();
    let revoked = check();
    assert_eq!(revoked.decisive().reason(), Some(Reason::Revoked));
    assert_eq!(revoked.decisive().holder().unwrap().account, 42);
}

/// A system clock that calls a function when it is read again. A compound charge reads it again
/// before it inserts a subject, which is after all parts were probed.
#[derive(Clone, Copy)]
struct Interrupted<'f>(&'f dyn Fn(), &'f Cell<u32>);

impl Clock for Interrupted<'_> {
    const IS_SYSTEM: bool = true;

    fn reading(self) -> Timestamp {
        at(0)
    }

    fn reread(self) -> Option<Timestamp> {
        self.1.set(self.1.get() + 1);
        if self.1.get() == 1 {
            (self.0)();
        }
        Some(at(0))
    }
}

#[test]
fn lost_race_gives_the_earlier_charges_back() {
    let first = limiter_of_seed(1, "9/minute", 8);
    let second = limiter("3/minute", 8);
    second.check(b"b", 1, at(0));
    // When the first part is inserted, another request takes the last room of the second.
    let spend = || assert!(second.check(b"b", 2, at(0)).is_admitted());
    let reads = Cell::new(0);
    let denied =
        check_all(&[&second.part(b"b", 1), &first.part(b"a", 4)], Interrupted(&spend, &reads))
            .unwrap();
    assert!(reads.get() >= 1);
    let outcomes = denied.verdicts().map(|verdict| verdict.outcome());
    assert!(outcomes.eq([Outcome::Denied, Outcome::Admitted]));
    assert_eq!(denied.decisive().retry_after_s(), Some(60));
    assert!(denied.verdicts().all(|verdict| verdict.charge().is_none()));
    assert_eq!(left(&first, b"a", at(0)), 9, "what was charged is given back");
    assert_eq!(left(&second, b"b", at(0)), 0);
}

#[test]
fn full_limiter_gives_the_earlier_charges_back() {
    let first = limiter_of_seed(1, "9/minute", 8);
    let full = refusing_limiter("9/minute", 1);
    let admitted =
        (0..64u32).filter(|number| full.check(&number.to_le_bytes(), 1, at(0)).is_admitted());
    assert!(admitted.count() < 64);
    let refused = check_all(&[&first.part(b"a", 4), &full.part(b"new", 1)], at(0)).unwrap();
    assert_eq!(refused.decisive().outcome(), Outcome::Full);
    assert!(refused.decisive().retry_after_s().is_some());
    assert_eq!(left(&first, b"a", at(0)), 9);
}

#[test]
fn longest_denial_decides() {
    let (minutes, hours) = (limiter("1/minute", 8), limiter("1/hour", 8));
    let request = || check_all(&[&minutes.part(b"a", 1), &hours.part(b"a", 1)], at(0)).unwrap();
    assert!(request().is_admitted());
    assert_eq!(request().decisive().retry_after_s(), Some(3600));
}

#[test]
fn wrong_number_of_parts_is_named() {
    let error = check_all::<Timestamp>(&[], at(0)).unwrap_err();
    assert_eq!(error.parts, 0);
    let text = format!("a compound charge of 0 parts is not possible; it has 1 to {MAX_PARTS}");
    assert_eq!(error.to_string(), text);
}

proptest! {
    /// Any sequence of compound charges of three subjects in two limiters equals the sums of what
    /// was admitted: a request is admitted exactly if all its tallies have room.
    #[test]
    fn sequence_equals_the_sums(
        requests in prop::collection::vec(
            prop::collection::vec((0..2usize, 0..3u8, 0..4u32), 1..=4),
            1..40,
        ),
    ) {
        let limits = [7, 5];
        let tables = [limiter("7/hour", 16), limiter("5/hour", 16)];
        let mut spent = [[0; 3]; 2];
        for request in requests {
            let parts: Vec<_> = request
                .iter()
                .map(|&(table, subject, cost)| tables[table].part(&[subject], cost))
                .collect();
            let parts: Vec<&dyn Part<Timestamp>> =
                parts.iter().map(|part| part as &dyn Part<_>).collect();
            let mut after = spent;
            for &(table, subject, cost) in &request {
                after[table][usize::from(subject)] += cost;
            }
            let has_room = after.iter().zip(limits).all(|(counts, limit)| {
                counts.iter().all(|&count| count <= limit)
            });
            let compound = check_all(&parts, at(0)).unwrap();
            prop_assert_eq!(compound.is_admitted(), has_room);
            if has_room {
                spent = after;
            }
            for (table, counts) in spent.iter().enumerate() {
                for (subject, &count) in counts.iter().enumerate() {
                    let subject = [u8::try_from(subject).unwrap()];
                    prop_assert_eq!(left(&tables[table], &subject, at(0)), limits[table] - count);
                }
            }
        }
    }
}
