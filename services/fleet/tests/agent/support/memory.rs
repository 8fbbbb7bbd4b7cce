//! A machine in memory: the words that its requests and its agent share, and a gate that counts.

use core::time::Duration;
use std::collections::HashMap;
use std::sync::{Condvar, Mutex, RwLock};

use keytally_core::Policy;
use keytally_core::sync::{AtomicU64, Ordering};
use keytally_fleet::plan::credit::CreditLayout;
use keytally_fleet::plan::layout::{FileLayout, PageWord, WantedBits};
use keytally_fleet::plan::layout::{PageState, Phase};
use keytally_fleet::plan::words::{Spending, TallyWords, admit_unreserved, spend, want};
use keytally_fleet::{Machine, Subject};

use crate::support::time::now;

/// What a request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Credits were spent for it.
    Admitted,
    /// Credits were spent for it after it had waited for them.
    Waited,
    /// It was admitted without credits.
    Alone,
    Denied,
    Unavailable,
}

/// How long a request waits for credits.
const WAIT: Duration = Duration::from_millis(20);

pub(crate) struct Memory {
    page: Vec<AtomicU64>,
    tallies: Vec<([AtomicU64; 5], AtomicU64)>,
    summary: Vec<AtomicU64>,
    bits: Vec<AtomicU64>,
    subjects: RwLock<Vec<Option<Subject>>>,
    /// By tally, index of the window and its beginning.
    counts: Mutex<HashMap<(u32, usize, u64), u32>>,
    doorbell: (Mutex<bool>, Condvar),
    grants: (Mutex<u64>, Condvar),
}

pub(crate) fn layout(policy: &str) -> CreditLayout {
    let policy: Policy = policy.parse().unwrap();
    CreditLayout::new(policy.layout(), &policy.limits()).unwrap()
}

pub(crate) fn subject(name: &str, policy: &str) -> Subject {
    let owner = name.bytes().fold(7, |hash: u64, byte| hash.wrapping_mul(31) + u64::from(byte));
    Subject { name: format!("{name}:key"), owner, layout: layout(policy) }
}

fn words(count: usize) -> Vec<AtomicU64> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

impl Memory {
    /// A machine whose tallies have subjects `k0`, `k1` and so on, with this policy.
    pub(crate) fn new(tallies: u32, policy: &str) -> Self {
        let file = FileLayout::new(tallies).unwrap();
        let subjects = (0..tallies).map(|tally| Some(subject(&format!("k{tally}"), policy)));
        Self {
            page: words(64),
            tallies: (0..tallies).map(|_| Default::default()).collect(),
            summary: words(file.summary_words()),
            bits: words(file.bit_words()),
            subjects: RwLock::new(subjects.collect()),
            counts: Mutex::default(),
            doorbell: Default::default(),
            grants: Default::default(),
        }
    }

    pub(crate) fn set_subject(&self, tally: u32, subject: Option<Subject>) {
        self.subjects.write().unwrap()[tally as usize] = subject;
    }

    /// Returns the fleet's time, as requests compute it.
    pub(crate) fn now_ms(&self) -> u64 {
        let offset = self.page(PageWord::Offset).load(Ordering::Acquire).cast_signed();
        keytally::now().unix_ms().saturating_add_signed(offset)
    }

    pub(crate) fn state(&self) -> PageState {
        PageState::from_bits(self.page(PageWord::State).load(Ordering::Acquire))
    }

    /// Waits until the agent has this state.
    pub(crate) fn wait_for(&self, phase: Phase) {
        let since = now();
        while self.state().phase != phase {
            assert!(since.elapsed() < Duration::from_secs(10), "not {phase:?}: {:?}", self.state());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Decides on a request of one unit, and counts it.
    pub(crate) fn check(&self, tally: u32) -> Outcome {
        let subject = self.subjects.read().unwrap()[tally as usize].clone().unwrap();
        let words = self.words(tally).unwrap();
        let since = now();
        let mut has_waited = false;
        loop {
            let seen = *self.grants.0.lock().unwrap();
            let is_owner = self.owner(tally).unwrap().load(Ordering::Acquire) == subject.owner;
            let now_ms = self.now_ms();
            if is_owner {
                match spend(&subject.layout, &words, now_ms, 1) {
                    Spending::Spent { at_ms, is_low } => {
                        self.count(tally, &subject.layout, at_ms);
                        if is_low {
                            self.wanted().hint(tally);
                            self.ring();
                        }
                        return if has_waited { Outcome::Waited } else { Outcome::Admitted };
                    }
                    Spending::Exhausted => return Outcome::Denied,
                    Spending::NoCredits => {
                        want(&words, 1);
                    }
                }
            }
            self.wanted().report(tally);
            self.ring();
            let state = self.state();
            let left = WAIT.saturating_sub(since.elapsed());
            if left.is_zero() || state.phase == Phase::Cut {
                return self.check_alone(tally, &subject.layout, state);
            }
            let guard = self.grants.0.lock().unwrap();
            has_waited = true;
            drop(self.grants.1.wait_timeout_while(guard, left, |now| *now == seen).unwrap());
        }
    }

    /// Sends a request until it is admitted by credits. On a busy machine, one may wait too long.
    pub(crate) fn admit(&self, tally: u32) {
        let is_admitted = || matches!(self.check(tally), Outcome::Admitted | Outcome::Waited);
        assert!((0..100).any(|_| is_admitted()), "no request is admitted by credits");
    }

    /// Decides without credits.
    fn check_alone(&self, tally: u32, layout: &CreditLayout, state: PageState) -> Outcome {
        let limit = state.on_loss.and_then(|one| one.limit(layout.limit(0), state.machines));
        let now_ms = self.now_ms();
        match limit {
            None => Outcome::Unavailable,
            Some(limit) if self.counted(tally, layout, now_ms) < limit => {
                self.count(tally, layout, now_ms);
                admit_unreserved(layout, &self.words(tally).unwrap(), now_ms, 1);
                self.wanted().report(tally);
                self.ring();
                Outcome::Alone
            }
            Some(_) => Outcome::Denied,
        }
    }

    fn count(&self, tally: u32, layout: &CreditLayout, at_ms: u64) {
        let mut counts = self.counts.lock().unwrap();
        for index in 0..layout.len() {
            *counts.entry((tally, index, layout.span(index, at_ms).begin_ms)).or_default() += 1;
        }
    }

    /// Returns what this machine has admitted in the first window of a tally.
    fn counted(&self, tally: u32, layout: &CreditLayout, now_ms: u64) -> u32 {
        let begin_ms = layout.span(0, now_ms).begin_ms;
        self.counts.lock().unwrap().get(&(tally, 0, begin_ms)).copied().unwrap_or(0)
    }

    /// Returns what this machine has admitted, by tally, window and its beginning.
    pub(crate) fn counts(&self) -> HashMap<(u32, usize, u64), u32> {
        self.counts.lock().unwrap().clone()
    }
}

impl Machine for Memory {
    fn page(&self, word: PageWord) -> &AtomicU64 {
        &self.page[word as usize]
    }

    fn tallies(&self) -> u32 {
        u32::try_from(self.tallies.len()).unwrap()
    }

    fn wanted(&self) -> WantedBits<'_> {
        WantedBits::new(&self.summary, &self.bits)
    }

    fn words(&self, tally: u32) -> Option<TallyWords<'_>> {
        self.tallies.get(tally as usize).map(|(words, _)| TallyWords::from(words))
    }

    fn owner(&self, tally: u32) -> Option<&AtomicU64> {
        self.tallies.get(tally as usize).map(|(_, owner)| owner)
    }

    fn subject(&self, tally: u32) -> Option<Subject> {
        self.subjects.read().unwrap().get(tally as usize)?.clone()
    }

    fn sleep(&self, at_most: Duration) {
        let guard = self.doorbell.0.lock().unwrap();
        let (mut has_rung, _) =
            self.doorbell.1.wait_timeout_while(guard, at_most, |rung| !*rung).unwrap();
        *has_rung = false;
    }

    fn wake(&self) {
        *self.grants.0.lock().unwrap() += 1;
        self.grants.1.notify_all();
    }

    fn ring(&self) {
        *self.doorbell.0.lock().unwrap() = true;
        self.doorbell.1.notify_one();
    }
}
