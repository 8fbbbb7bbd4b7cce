//! Every interleaving of requests with the agent, on the words of one machine.
//!
//! Under `--cfg loom`, each scenario runs in all interleavings of its threads, with all values that
//! a load may return in the memory model of C11. `cargo xtask test loom` builds and runs it.
#![cfg(loom)]

extern crate alloc;

use alloc::sync::Arc;
use std::sync::Mutex;

use keytally_core::Policy;
use keytally_core::sync::AtomicU64;
use keytally_fleet_plan::credit::CreditLayout;
use keytally_fleet_plan::holding;
use keytally_fleet_plan::meta::Meta;
use keytally_fleet_plan::request::{LeaseRequest, Reply, WindowReply};
use keytally_fleet_plan::words::{
    CompoundSpending, Part, Spending, TallyWords, Word, Words, admit_unreserved, refund, spend,
    spend_all, want,
};
use loom::thread;

const NOW_MS: u64 = 1_700_000_040_000;

#[derive(Clone)]
struct Tally {
    layout: CreditLayout,
    words: Arc<[AtomicU64; 5]>,
}

impl Tally {
    /// A tally whose machine holds these units, all of them credits.
    fn with_credits(units: u32) -> Self {
        let policy: Policy = "9/minute".parse().unwrap();
        let layout = CreditLayout::new(policy.layout(), &policy.limits()).unwrap();
        let words = [0; 5].map(AtomicU64::new);
        let tally = Self { layout, words: Arc::new(words) };
        for word in [Word::Credits, Word::Holding] {
            tally.words().store(word, layout.word(NOW_MS, &[units, 0, 0, 0]));
        }
        tally
    }

    fn words(&self) -> TallyWords<'_> {
        TallyWords::from(&*self.words)
    }

    fn units(&self, word: Word) -> u32 {
        self.layout.units(self.words().load(word), 0)
    }

    /// Spends a unit, and returns how many were spent.
    fn spend(&self) -> u32 {
        let spent = spend(&self.layout, &self.words(), NOW_MS, 1);
        u32::from(matches!(spent, Spending::Spent { .. }))
    }

    fn open(&self, more: u32) -> (LeaseRequest, u32) {
        holding::open(&self.layout, &self.words(), NOW_MS, &[more, 0, 0, 0]).unwrap()
    }

    fn grant(&self, request: &LeaseRequest) {
        let mut reply = Reply { store_ms: NOW_MS, ..Reply::default() };
        let held = request.windows()[0].want;
        reply.windows[0] = WindowReply { held, left: 1, machines: 1 };
        holding::apply(&self.layout, &self.words(), NOW_MS, request, &reply);
    }
}

/// Runs the scenario in every interleaving, and prints how many there were.
fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    let count = Arc::new(Mutex::new(0_u64));
    let counted = Arc::clone(&count);
    loom::model(move || {
        *counted.lock().unwrap() += 1;
        scenario();
    });
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    println!("explored {} interleavings: {name}", *count.lock().unwrap());
}

#[test]
fn credits_and_a_grant_are_each_spent_once() {
    explore(|| {
        let tally = Tally::with_credits(1);
        let (request, _) = tally.open(1);
        let spenders = [(); 2].map(|()| {
            let tally = tally.clone();
            thread::spawn(move || tally.spend())
        });
        tally.grant(&request);
        let spent: u32 = spenders.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert!((1..=2).contains(&spent), "one credit was there from the start");
        assert_eq!(spent + tally.units(Word::Credits), 2);
        assert_eq!(tally.units(Word::Holding), 2);
    });
}

#[test]
fn spender_that_sees_granted_credits_sees_the_holding() {
    explore(|| {
        let tally = Tally::with_credits(0);
        let (request, _) = tally.open(3);
        let reader = {
            let tally = tally.clone();
            thread::spawn(move || {
                let credits = tally.units(Word::Credits);
                assert!(credits <= tally.units(Word::Holding), "{credits} are not confirmed");
            })
        };
        tally.grant(&request);
        reader.join().unwrap();
    });
}

#[test]
fn credit_is_spent_or_given_back() {
    explore(|| {
        let tally = Tally::with_credits(2);
        let spender = {
            let tally = tally.clone();
            thread::spawn(move || tally.spend())
        };
        let request = holding::give_back(&tally.layout, &tally.words(), NOW_MS, &[2, 0, 0, 0]);
        let spent = spender.join().unwrap();
        // What the store counts then is what was spent, or what is still there.
        let held = request.unwrap().windows()[0].want;
        assert_eq!(held, spent + tally.units(Word::Credits));
        assert_eq!(tally.units(Word::Holding), held);
    });
}

#[test]
fn refund_during_a_return_stays_within_the_holding() {
    explore(|| {
        let tally = Tally::with_credits(2);
        assert_eq!(tally.spend(), 1);
        let client = {
            let tally = tally.clone();
            thread::spawn(move || refund(&tally.layout, &tally.words(), NOW_MS, 1))
        };
        let request = holding::give_back(&tally.layout, &tally.words(), NOW_MS, &[2, 0, 0, 0]);
        client.join().unwrap();
        let held = request.unwrap().windows()[0].want;
        assert_eq!(tally.units(Word::Holding), held);
        assert_eq!(tally.units(Word::Credits), held, "nothing is spent");
    });
}

#[test]
fn refund_and_a_grant_are_both_added() {
    explore(|| {
        let tally = Tally::with_credits(1);
        assert_eq!(tally.spend(), 1);
        let (request, _) = tally.open(1);
        let client = {
            let tally = tally.clone();
            thread::spawn(move || refund(&tally.layout, &tally.words(), NOW_MS, 1))
        };
        tally.grant(&request);
        client.join().unwrap();
        assert_eq!((tally.units(Word::Credits), tally.units(Word::Holding)), (2, 2));
    });
}

#[test]
fn unit_admitted_without_credits_is_held_or_stays_unreserved() {
    explore(|| {
        let tally = Tally::with_credits(0);
        admit_unreserved(&tally.layout, &tally.words(), NOW_MS, 2);
        let client = {
            let tally = tally.clone();
            thread::spawn(move || admit_unreserved(&tally.layout, &tally.words(), NOW_MS, 1))
        };
        let (request, _) = tally.open(0);
        tally.grant(&request);
        let held = tally.units(Word::Holding);
        client.join().unwrap();
        assert_eq!(held, request.windows()[0].unreserved);
        assert_eq!(held + tally.units(Word::Unreserved), 3);
    });
}

#[test]
fn of_two_compound_charges_for_the_last_credits_one_succeeds() {
    explore(|| {
        let tallies = [Tally::with_credits(1), Tally::with_credits(1)];
        let charge = |tallies: &[Tally; 2]| {
            let parts = [0, 1].map(|index: usize| Part {
                layout: &tallies[index].layout,
                words: tallies[index].words(),
                cost: 1,
            });
            matches!(spend_all(&parts, NOW_MS), CompoundSpending::Spent { .. })
        };
        let other = {
            let tallies = tallies.clone();
            thread::spawn(move || charge(&tallies))
        };
        let is_admitted = charge(&tallies);
        assert_ne!(is_admitted, other.join().unwrap());
        assert!(tallies.iter().all(|tally| tally.units(Word::Credits) == 0));
    });
}

#[test]
fn refused_compound_charge_leaves_the_other_tally_as_it_was() {
    explore(|| {
        let tallies = [Tally::with_credits(1), Tally::with_credits(1)];
        let other = {
            let tally = tallies[1].clone();
            thread::spawn(move || tally.spend())
        };
        let parts = [0, 1].map(|index: usize| Part {
            layout: &tallies[index].layout,
            words: tallies[index].words(),
            cost: 1,
        });
        let is_admitted = matches!(spend_all(&parts, NOW_MS), CompoundSpending::Spent { .. });
        let spent = other.join().unwrap();
        assert_eq!(u32::from(is_admitted) + spent, 1);
        assert_eq!(tallies[0].units(Word::Credits), u32::from(!is_admitted));
    });
}

#[test]
fn wanted_cost_is_in_the_request_or_stays() {
    explore(|| {
        let tally = Tally::with_credits(0);
        let client = {
            let tally = tally.clone();
            thread::spawn(move || want(&tally.words(), 2))
        };
        let (_, wanted) = tally.open(1);
        client.join().unwrap();
        let meta = Meta::from_bits(tally.words().load(Word::Meta));
        assert_eq!(wanted + meta.wanted(), 2);
        assert!(meta.is_open());
    });
}
