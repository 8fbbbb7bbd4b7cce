//! Tests of reservations: what requests of a gate need in addition to room in its tallies.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Mutex;

use keytally_core::{
    CacheLine, Charge, Extras, Gate, Key, KeyId, NotReserving, Outcome, Policy, Refusal, Reserve,
    TallyCharge, TallyNumbers, TallyOwner, TallyVerdict, Timestamp, Unavailability, Verdict,
    check_all,
};

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use support::{at, config, entropy, issue, limiter, new_key, plan};

/// Units that requests must reserve.
#[derive(Debug)]
struct Units {
    left: Mutex<u32>,
    /// The costs of the tallies of each call.
    calls: Mutex<Vec<Vec<u32>>>,
}

impl Units {
    fn new(left: u32) -> Self {
        Self { left: left.into(), calls: Mutex::default() }
    }

    fn left(&self) -> u32 {
        *self.left.lock().unwrap()
    }

    fn set(&self, left: u32) {
        *self.left.lock().unwrap() = left;
    }

    fn calls(&self) -> Vec<Vec<u32>> {
        self.calls.lock().unwrap().clone()
    }
}

impl Reserve for Units {
    fn reserve(&self, _: &dyn TallyNumbers, tallies: &mut [TallyVerdict]) -> Option<Refusal> {
        let costs: Vec<u32> =
            tallies.iter().filter(|it| it.verdict().charge().is_some()).map(cost).collect();
        self.calls.lock().unwrap().push(costs.clone());
        let mut left = self.left();
        for (index, tally) in tallies.iter().enumerate() {
            let Some(after) = left.checked_sub(cost(tally)) else {
                return Some(Refusal { index, verdict: denied(tally.verdict()) });
            };
            left = after;
        }
        self.set(left);
        None
    }

    fn release(&self, _: &dyn TallyNumbers, tallies: &[TallyVerdict]) {
        self.set(self.left() + tallies.iter().map(cost).sum::<u32>());
    }

    fn peek(&self, _: &dyn TallyNumbers, tallies: &mut [TallyVerdict]) -> Option<Refusal> {
        let lacks = |tally: &TallyVerdict| cost(tally) > self.left();
        let index = tallies.iter().position(lacks)?;
        Some(Refusal { index, verdict: denied(tallies[index].verdict()) })
    }

    fn refund(&self, _: &dyn TallyNumbers, _: Option<KeyId>, tally: usize, charge: TallyCharge) {
        self.set(self.left() + charge.cost);
        self.calls.lock().unwrap().push(vec![u32::try_from(tally).unwrap(), charge.cost]);
    }

    fn reserve_more(
        &self,
        _: &dyn TallyNumbers,
        _: Option<KeyId>,
        _: &[usize],
        most: u32,
        _: Timestamp,
    ) -> u32 {
        let more = self.left().min(most);
        self.set(self.left() - more);
        more
    }
}

fn cost(tally: &TallyVerdict) -> u32 {
    tally.verdict().cost()
}

/// The denial by a window of a minute whose units are all used.
fn denied(verdict: &Verdict) -> Verdict {
    let policy: Policy = "5/minute".parse().unwrap();
    let (layout, limits) = (policy.layout(), policy.limits());
    let mut decision = keytally_core::decide::check(layout, &limits, 0, verdict.now(), 5);
    decision.outcome = Outcome::Denied;
    Verdict::decided(layout, &limits, decision, verdict.holder(), verdict.now(), verdict.cost())
}

fn bytes(key: &Key) -> Option<&[u8]> {
    Some(key.expose().as_bytes())
}

fn gate(sections: &str) -> (Gate<Vec<CacheLine>>, Key) {
    let plans = [plan("default", sections)];
    let teams = if sections.contains("team") { 4 } else { 0 };
    let gate = support::gate(&config(16, &plans).with_teams(teams));
    let (key, _) = issue(&gate, &new_key(), entropy(1));
    (gate, key)
}

#[test]
fn refused_request_of_a_plain_gate_charges_nothing() {
    let (gate, key) = gate("10/minute");
    let units = Units::new(4);
    let gate = gate.with_extras(Some(Extras { usage: None, reservation: Some(&units) }));
    let check = |cost| gate.check(bytes(&key), cost, at(1));
    let first = check(3);
    assert_eq!((first.outcome(), first.remaining(), units.left()), (Outcome::Admitted, Some(7), 1));
    let second = check(2);
    assert_eq!((second.outcome(), second.remaining()), (Outcome::Denied, Some(0)));
    assert_eq!((second.retry_after_s(), second.charge()), (Some(59), None));
    assert_eq!(gate.peek(bytes(&key), 1, at(1)).remaining(), Some(7), "it was given back");
    // Nothing is reserved for a request that the tally or the secret refuses.
    assert_eq!(check(8).outcome(), Outcome::Denied);
    assert_eq!(gate.check(Some(b"kt_live_wrong"), 1, at(1)).outcome(), Outcome::InvalidKey);
    assert_eq!((units.calls(), units.left()), (vec![vec![3], vec![2]], 1));
}

#[test]
fn refused_request_of_several_tallies_charges_none() {
    let (gate, key) = gate("10/minute; team: 20/minute; group write: 9/minute");
    let units = Units::new(7);
    let gate = gate.with_extras(Some(Extras { usage: None, reservation: Some(&units) }));
    let part = |cost| gate.part(bytes(&key), cost).with_group("write").unwrap();
    let left = |cost| {
        let peeked = part(cost).peek(at(1));
        peeked.verdicts().map(|it| it.remaining().unwrap()).collect::<Vec<_>>()
    };
    assert!(part(2).check(at(1)).is_admitted());
    assert_eq!((units.left(), left(1)), (1, vec![8, 18, 7]));
    let refused = part(1).check(at(1));
    assert_eq!((refused.outcome(), refused.decisive_index()), (Outcome::Denied, 1));
    assert_eq!(refused.charge(0), None);
    assert_eq!((units.left(), left(1)), (1, vec![8, 18, 7]), "all were given back");
    // The check without parts reserves as well.
    assert_eq!(gate.check(bytes(&key), 1, at(1)).outcome(), Outcome::Denied);
    assert_eq!(units.calls(), [vec![2, 2, 2], vec![1, 1, 1], vec![1, 1]]);
}

#[test]
fn refusal_of_one_part_releases_what_the_others_reserved() {
    let ((first, key), (second, other)) = (gate("10/minute"), gate("20/minute"));
    let (many, none) = (Units::new(9), Units::new(0));
    let addresses = limiter("30/minute", 8);
    let check = || {
        let with = |units| Some(Extras { usage: None, reservation: Some(units) });
        let first = first.part(bytes(&key), 2).with_extras(with(&many));
        let second = second.part(bytes(&other), 1).with_extras(with(&none));
        check_all(&[&addresses.part(b"192.0.2.1", 1), &first, &second], at(1)).unwrap()
    };
    let refused = check();
    let outcomes: Vec<_> = refused.verdicts().map(Verdict::outcome).collect();
    assert_eq!(outcomes, [Outcome::Admitted, Outcome::Admitted, Outcome::Denied]);
    let left: Vec<_> = refused.verdicts().map(|it| it.remaining().unwrap()).collect();
    assert_eq!((left, many.left()), (vec![30, 10, 0], 9));
    none.set(1);
    assert!(check().is_admitted());
    assert_eq!((many.left(), none.left()), (7, 0));
}

/// Shows the counts of a word.
#[derive(Debug)]
struct Shown(Policy, u64);

impl Reserve for Shown {
    fn reserve(&self, _: &dyn TallyNumbers, tallies: &mut [TallyVerdict]) -> Option<Refusal> {
        tallies.iter_mut().for_each(|tally| tally.show(self.0.layout(), self.1));
        None
    }

    fn release(&self, _: &dyn TallyNumbers, _: &[TallyVerdict]) {}

    fn peek(&self, gate: &dyn TallyNumbers, tallies: &mut [TallyVerdict]) -> Option<Refusal> {
        self.reserve(gate, tallies)
    }

    fn refund(&self, _: &dyn TallyNumbers, _: Option<KeyId>, _: usize, _: TallyCharge) {}

    fn reserve_more(
        &self,
        _: &dyn TallyNumbers,
        _: Option<KeyId>,
        _: &[usize],
        most: u32,
        _: Timestamp,
    ) -> u32 {
        most
    }
}

#[test]
fn shown_counts_leave_the_charge_and_the_warnings() {
    let policy: Policy = "10/minute".parse().unwrap();
    let word = keytally_core::decide::check(policy.layout(), &policy.limits(), 0, at(1), 9).next;
    let shown = Shown(policy, word);
    let (gate, key) = gate("10/minute warn 30% 80%; team: 20/minute");
    let extras = Extras { usage: None, reservation: Some(&shown) };
    let admitted = gate.part(bytes(&key), 3).with_extras(Some(extras)).check(at(1));
    assert_eq!(admitted.decisive().remaining(), Some(1));
    assert_eq!(admitted.tallies()[0].crossed().collect::<Vec<_>>(), [(0, 30)]);
    assert_eq!(admitted.charge(0).unwrap().cost(), 3);
    let peeked = gate.part(bytes(&key), 1).peek(at(1));
    assert_eq!(peeked.decisive().remaining(), Some(7), "the tally has its own counts");
}

#[test]
fn refund_and_settlement_change_what_is_reserved() {
    let (gate, key) = gate("100/minute");
    let units = Units::new(10);
    let key_id = gate.list(at(0)).next().unwrap().key_id;
    let gate = gate.with_extras(Some(Extras { usage: None, reservation: Some(&units) }));
    let charge = || gate.check(bytes(&key), 4, at(1)).charge().unwrap();
    let first = charge();
    assert_eq!((units.left(), first.is_unreserved()), (6, false));
    gate.refund(key_id, first, at(2)).unwrap();
    assert_eq!(units.left(), 10);
    // Below the estimate, and above it with and without enough.
    let settled = |actual| gate.settle(key_id, charge(), actual, at(2)).unwrap().uncharged();
    assert_eq!((settled(1), units.left()), (0, 9));
    assert_eq!((settled(6), units.left()), (0, 3));
    units.set(5);
    assert_eq!((settled(9), units.left()), (4, 0));
    assert_eq!(gate.peek(bytes(&key), 0, at(2)).remaining(), Some(100 - 1 - 6 - 5));
    // What the tally has no room for is released again.
    units.set(200);
    assert_eq!((settled(150), units.left()), (62, 200 - 88));
}

#[test]
fn charge_without_a_reservation_releases_nothing() {
    let (gate, key) = gate("100/minute");
    let units = Units::new(10);
    let gate = gate.with_extras(Some(Extras { usage: None, reservation: Some(&units) }));
    let key_id = gate.list(at(0)).next().unwrap().key_id;
    let charged = gate.check(bytes(&key), 4, at(1)).charge().unwrap();
    let charge = Charge::unreserved(charged.cost(), charged.at());
    let stored = Charge::from_bytes(&charge.to_bytes()).unwrap();
    assert!(stored.is_unreserved() && stored != charged);
    gate.refund(key_id, stored, at(1)).unwrap();
    assert_eq!(units.left(), 6);
    assert_eq!(gate.settle(key_id, stored, 9, at(1)).unwrap().uncharged(), 0);
    assert_eq!(units.left(), 6);
}

#[test]
#[cfg(feature = "sections")]
fn charge_from_before_a_migration_releases_nothing_of_another_tally() {
    let (old, key) = gate("10/minute; team: 20/minute");
    let charge = old.part(bytes(&key), 3).check(at(1)).charge(0).unwrap();
    let key_id = old.list(at(1)).next().unwrap().key_id;
    let plans = [plan("default", "10/minute; group write: 9/minute; team: 20/minute")];
    let config = config(16, &plans).with_teams(4).with_id(77);
    let new = Gate::init_successor(support::memory(config.lines()), &config, &old).unwrap();
    let administrator = old.administer().unwrap();
    let migration = administrator.migration(&new);
    migration.copy(|problem| panic!("{problem}"));
    migration.announce(b"new.gate");
    migration.seal(at(10));
    migration.publish(at(10));
    let units = Units::new(5);
    let new = new.with_extras(Some(Extras { usage: None, reservation: Some(&units) }));
    new.refund(key_id, charge, at(11)).unwrap();
    for actual in [1, 5] {
        let settled = new.settle(key_id, charge, actual, at(11)).unwrap();
        assert_eq!(settled.uncharged(), actual.saturating_sub(3));
    }
    assert_eq!((units.left(), units.calls()), (5, Vec::<Vec<u32>>::new()));
}

#[test]
fn peek_shows_what_can_be_reserved_and_reserves_nothing() {
    for sections in ["10/minute", "10/minute; team: 20/minute"] {
        let (gate, key) = gate(sections);
        let units = Units::new(3);
        let gate = gate.with_extras(Some(Extras { usage: None, reservation: Some(&units) }));
        let peek = |cost| gate.peek(bytes(&key), cost, at(1)).outcome();
        assert_eq!(
            [peek(3), peek(4), peek(11)],
            [Outcome::Admitted, Outcome::Denied, Outcome::TooCostly]
        );
        assert_eq!(units.left(), 3);
    }
}

#[test]
fn need_of_reservations_is_known_to_every_process() {
    let (gate, key) = gate("10/minute");
    assert!(gate.needs().is_none());
    let mut administrator = gate.administer().unwrap();
    administrator.set_applied_sequence((1 << 48) - 1);
    administrator.set_reserving(true);
    drop(administrator);
    assert!(gate.needs().reservation() && !gate.needs().is_none());
    assert_eq!((gate.usage_generation(), gate.applied_sequence()), (0, (1 << 48) - 1));
    let refusing = gate.with_extras(Some(Extras { usage: None, reservation: Some(&NotReserving) }));
    let refused = refusing.check(bytes(&key), 1, at(1));
    let why = Some(Unavailability::NotReserving);
    assert_eq!((refused.outcome(), refused.unavailability()), (Outcome::Unavailable, why));
    assert_eq!((refused.http_status(), refused.retry_after_s()), (503, Some(1)));
    assert_eq!(refusing.peek(bytes(&key), 1, at(1)).unavailability(), why);
    assert_eq!(refusing.check(Some(b"kt_live_wrong"), 1, at(1)).outcome(), Outcome::InvalidKey);
    assert_eq!(gate.peek(bytes(&key), 1, at(1)).remaining(), Some(10), "nothing was charged");
    gate.administer().unwrap().set_reserving(false);
    assert!(gate.needs().is_none());
}

#[test]
fn tallies_are_numbered_by_records_then_teams() {
    let (gate, key) = gate("10/minute, 100/hour; team: 20/minute; group write: 9/minute");
    let key_id = gate.list(at(0)).next().unwrap().key_id;
    let numbers: Vec<_> = (0..4).map(|tally| gate.tally_number(key_id, tally)).collect();
    let [Some(first), Some(team), Some(group), None] = numbers[..] else { panic!("{numbers:?}") };
    assert_eq!((group, gate.numbered_tallies()), (first + 1, 16 * 2 + 4));
    assert!(first % 2 == 0 && (32..36).contains(&team), "{first} {team}");
    gate.part(bytes(&key), 3).with_group("write").unwrap().check(at(1));
    let found = |number| gate.numbered_tally(number, at(1));
    let used = |number| {
        let tally = found(number).unwrap();
        (tally.owner, tally.section.name().to_owned(), tally.quotas.get(0).unwrap().used())
    };
    assert_eq!(used(first), (TallyOwner::Key(key_id), "key".into(), 3));
    assert_eq!(used(team), (TallyOwner::Account(42), "team".into(), 3));
    assert_eq!(used(group), (TallyOwner::Key(key_id), "write".into(), 3));
    assert_eq!(found(first).unwrap().layout.windows().len(), 2);
    let others = (0..40).filter(|&number| ![first, team, group].contains(&number));
    assert!(others.into_iter().all(|number| found(number).is_none()));
    assert_eq!(gate.tally_shapes().count(), 3);
}

#[test]
fn request_of_a_limiter_reserves_what_it_is_charged() {
    let limiter = limiter("10/minute", 8);
    let units = Units::new(7);
    let limiter = limiter.reserving(Some(&units));
    let check = |cost| limiter.check(b"ann", cost, at(1));
    let first = check(6);
    assert_eq!((first.outcome(), first.remaining(), units.left()), (Outcome::Admitted, Some(4), 1));
    let refused = check(2);
    assert_eq!((refused.outcome(), units.left()), (Outcome::Denied, 1));
    assert_eq!(limiter.peek(b"ann", 0, at(1)).remaining(), Some(4), "nothing was charged");
    let estimate = first.charge().unwrap();
    let settled = limiter.settle(b"ann", estimate, 4, at(2));
    assert_eq!((settled.remaining(), settled.uncharged(), units.left()), (Some(6), 0, 3));
    // One unit of the five above the estimate can be reserved after these two.
    let estimate = check(2).charge().unwrap();
    let settled = limiter.settle(b"ann", estimate, 7, at(2));
    assert_eq!((settled.remaining(), settled.uncharged(), units.left()), (Some(3), 4, 0));
    limiter.refund(b"ann", Charge::new(3, at(2)), at(2));
    assert_eq!(units.left(), 3);
    limiter.refund(b"ann", Charge::unreserved(3, at(2)), at(2));
    assert_eq!(units.left(), 3, "nothing was reserved for it");
}

#[test]
fn unreserved_charge_of_an_overflow_tally_releases_nothing() {
    #[derive(Debug)]
    struct Open;

    impl Reserve for Open {
        fn reserve(&self, _: &dyn TallyNumbers, tallies: &mut [TallyVerdict]) -> Option<Refusal> {
            assert_eq!(tallies[0].charge_index(), 128);
            tallies.iter_mut().for_each(TallyVerdict::mark_unreserved);
            None
        }

        fn release(&self, _: &dyn TallyNumbers, _: &[TallyVerdict]) {}

        fn peek(&self, _: &dyn TallyNumbers, _: &mut [TallyVerdict]) -> Option<Refusal> {
            None
        }

        fn refund(&self, _: &dyn TallyNumbers, _: Option<KeyId>, _: usize, _: TallyCharge) {
            panic!("nothing was reserved");
        }

        fn reserve_more(
            &self,
            _: &dyn TallyNumbers,
            _: Option<KeyId>,
            _: &[usize],
            _: u32,
            _: Timestamp,
        ) -> u32 {
            panic!("nothing was reserved");
        }
    }

    let limiter = limiter("10/minute", 4);
    let slots = limiter.slots_total();
    assert!((0..slots).all(|it| limiter.check(&it.to_le_bytes(), 1, at(1)).is_admitted()));
    let limiter = limiter.reserving(Some(&Open));
    let verdict = limiter.check(b"ann", 4, at(1));
    assert!(verdict.is_admitted() && verdict.is_shared() && verdict.is_unreserved());
    let charge = verdict.charge().unwrap();
    assert_eq!(charge, Charge::shared_unreserved(4, at(1)));
    assert_eq!(limiter.settle(b"ann", charge, 6, at(1)).remaining(), Some(4));
    limiter.refund(b"ann", Charge::shared_unreserved(6, at(1)), at(1));
    assert_eq!(limiter.check(b"bob", 10, at(1)).remaining(), Some(0), "the tally has all units");
}
