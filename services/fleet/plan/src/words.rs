//! The five words of a tally in a fleet, and the charges of requests.

use keytally_core::MAX_QUOTAS;
use keytally_core::sync::{AtomicU64, Ordering};

use crate::credit::{self, CreditLayout, Units};
use crate::meta::Meta;

/// Names one of the words of a tally.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Word {
    /// The credits. Requests subtract, and the agent adds and takes.
    Credits,
    /// The holding: the units that the store last confirmed and that were not given back. Written
    /// by the agent.
    Holding,
    /// What the store had left in its last reply. Written by the agent.
    Left,
    /// The state of lease requests: see [`Meta`].
    Meta,
    /// What was admitted without credits, and is not in the holding yet. Requests add to it
    /// ([`admit_unreserved`]), and the agent subtracts what the store has counted.
    Unreserved,
}

/// The memory of a tally's words, which threads and processes share.
///
/// Loads acquire, stores release, and exchanges do both.
pub trait Words {
    /// Returns the value of a word.
    fn load(&self, word: Word) -> u64;

    /// Sets a word that only the caller writes.
    fn store(&self, word: Word, value: u64);

    /// Sets a word to `next` if it is `present`.
    ///
    /// # Errors
    /// The value of the word, if it is another.
    fn exchange(&self, word: Word, present: u64, next: u64) -> Result<(), u64>;
}

/// The words of a tally in memory.
#[derive(Clone, Copy, Debug)]
pub struct TallyWords<'m> {
    /// [`Word::Credits`].
    pub credits: &'m AtomicU64,
    /// [`Word::Holding`].
    pub holding: &'m AtomicU64,
    /// [`Word::Left`].
    pub left: &'m AtomicU64,
    /// [`Word::Meta`].
    pub meta: &'m AtomicU64,
    /// [`Word::Unreserved`].
    pub unreserved: &'m AtomicU64,
}

impl<'m> From<&'m [AtomicU64; 5]> for TallyWords<'m> {
    /// The words in the order of [`Word`].
    fn from([credits, holding, left, meta, unreserved]: &'m [AtomicU64; 5]) -> Self {
        Self { credits, holding, left, meta, unreserved }
    }
}

impl TallyWords<'_> {
    #[inline]
    fn atomic(&self, word: Word) -> &AtomicU64 {
        match word {
            Word::Credits => self.credits,
            Word::Holding => self.holding,
            Word::Left => self.left,
            Word::Meta => self.meta,
            Word::Unreserved => self.unreserved,
        }
    }
}

impl Words for TallyWords<'_> {
    #[inline]
    fn load(&self, word: Word) -> u64 {
        self.atomic(word).load(Ordering::Acquire)
    }

    #[inline]
    fn store(&self, word: Word, value: u64) {
        self.atomic(word).store(value, Ordering::Release);
    }

    #[inline]
    fn exchange(&self, word: Word, present: u64, next: u64) -> Result<(), u64> {
        let atomic = self.atomic(word);
        atomic.compare_exchange(present, next, Ordering::AcqRel, Ordering::Acquire).map(drop)
    }
}

/// Replaces a word by what `decide` makes of it, in a compare-exchange loop. Returns the words
/// before and after, or `None` if `decide` does. Writes nothing if the word stays as it is.
///
/// Lock-free: a failed exchange means that another thread's exchange succeeded.
pub fn update<W: Words>(
    words: &W,
    word: Word,
    decide: impl Fn(u64) -> Option<u64>,
) -> Option<(u64, u64)> {
    let mut present = words.load(word);
    loop {
        let next = decide(present)?;
        if next == present {
            return Some((present, next));
        }
        match words.exchange(word, present, next) {
            Ok(()) => return Some((present, next)),
            Err(other) => present = other,
        }
    }
}

/// Replaces the meta word by what `change` makes of it. Returns it as it was.
pub(crate) fn update_meta<W: Words>(words: &W, change: impl Fn(Meta) -> Meta) -> Meta {
    let changed = |bits| Some(change(Meta::from_bits(bits)).bits());
    let before = update(words, Word::Meta, changed).map_or(0, |(before, _)| before);
    Meta::from_bits(before)
}

/// The result of a request for credits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spending {
    /// The credits were spent.
    Spent {
        /// The time in whose windows they were spent, in Unix milliseconds, for a refund.
        at_ms: u64,
        /// Whether some window has fewer credits than the low water. A caller that did not wait
        /// reports this to the agent, which then requests more ahead of the next request.
        is_low: bool,
    },
    /// Nothing was spent, and the store had no unit left of a window that lacks credits.
    Exhausted,
    /// Nothing was spent, and the store may have units. The caller adds its cost to the wanted cost
    /// ([`want`]), wakes the agent and waits.
    NoCredits,
}

/// Spends `cost` credits of every window, or of none.
#[inline]
pub fn spend<W: Words>(layout: &CreditLayout, words: &W, now_ms: u64, cost: u32) -> Spending {
    let spent = update(words, Word::Credits, |word| credit::spend(layout, word, now_ms, cost));
    let Some((_, next)) = spent else {
        return refusal(layout, words, now_ms, cost);
    };
    let low_water = Meta::from_bits(words.load(Word::Meta)).low_water();
    let is_low = (0..layout.len()).any(|index| layout.units(next, index) < low_water);
    Spending::Spent { at_ms: layout.time_ms(next, now_ms), is_low }
}

/// Returns why `cost` credits cannot be spent, and writes nothing.
#[cold]
pub fn refusal<W: Words>(layout: &CreditLayout, words: &W, now_ms: u64, cost: u32) -> Spending {
    let credits = layout.current(words.load(Word::Credits), now_ms);
    let meta = Meta::from_bits(words.load(Word::Meta));
    let left = words.load(Word::Left);
    let is_exhausted = |index: usize| {
        // The mark is of the windows of the word `left`.
        let is_current = layout.is_same_window(index, layout.stamp_ms(left), now_ms)
            || layout.stamp_ms(left) > now_ms;
        credits[index] < cost && meta.is_exhausted(index) && is_current
    };
    if (0..layout.len()).any(is_exhausted) { Spending::Exhausted } else { Spending::NoCredits }
}

/// Spends at most `cost` credits, the same number of every window, and returns how many. For the
/// settlement of a charge above its estimate; the remainder is not charged.
pub fn spend_up_to<W: Words>(layout: &CreditLayout, words: &W, now_ms: u64, cost: u32) -> u32 {
    let next = |word| Some(credit::spend_up_to(layout, word, now_ms, cost).0);
    let (before, _) = update(words, Word::Credits, next).unwrap_or_default();
    credit::spend_up_to(layout, before, now_ms, cost).1
}

/// Returns `cost` credits that were spent at `at_ms`. The caller must return each charge at most
/// once, and none that was admitted without credits. The credits never become more than the
/// holding.
pub fn refund<W: Words>(layout: &CreditLayout, words: &W, at_ms: u64, cost: u32) {
    let mut present = words.load(Word::Credits);
    loop {
        let holding = words.load(Word::Holding);
        let next = credit::refund(layout, present, holding, at_ms, cost);
        let result = if next == present {
            // The agent may have taken credits before it lowered the holding that was read.
            match words.load(Word::Credits) {
                same if same == present => Ok(()),
                other => Err(other),
            }
        } else {
            words.exchange(Word::Credits, present, next)
        };
        match result {
            Ok(()) => return,
            Err(other) => present = other,
        }
    }
}

/// Notes a request that was admitted without credits at `at_ms`, so that the agent states it to the
/// store. Nothing is noted of windows that the word has left behind.
pub fn admit_unreserved<W: Words>(layout: &CreditLayout, words: &W, at_ms: u64, cost: u32) {
    let units = [cost; MAX_QUOTAS];
    let next = |word| Some(credit::grant(layout, word, at_ms, at_ms, &units));
    update(words, Word::Unreserved, next);
}

/// Subtracts from what [`admit_unreserved`] noted at `at_ms`: the store has counted it, or the
/// request was refused for another reason. At most what is noted is subtracted.
pub fn deduct_unreserved<W: Words>(layout: &CreditLayout, words: &W, at_ms: u64, units: &Units) {
    let next = |word| Some(credit::deduct(layout, word, at_ms, units));
    update(words, Word::Unreserved, next);
}

/// Adds `cost` to the wanted cost, for the agent's next lease request. Returns the meta word as it
/// was.
pub fn want<W: Words>(words: &W, cost: u32) -> Meta {
    update_meta(words, |meta| meta.with_wanted(meta.wanted().saturating_add(cost)))
}

/// The most parts of a compound charge, as in core.
pub const MAX_PARTS: usize = keytally_core::MAX_PARTS;

/// One tally of a compound charge, with its cost.
#[derive(Clone, Copy, Debug)]
pub struct Part<'p, W> {
    /// The layout of its words.
    pub layout: &'p CreditLayout,
    /// Its words.
    pub words: W,
    /// The units that the request costs of this tally.
    pub cost: u32,
}

/// The result of a compound request for credits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompoundSpending {
    /// The credits of all tallies were spent.
    Spent {
        /// For each part, the time in whose windows its credits were spent, in Unix milliseconds.
        at_ms: [u64; MAX_PARTS],
        /// Whether some tally has fewer credits than its low water, for each part.
        is_low: [bool; MAX_PARTS],
    },
    /// Nothing was spent, since the part at this index lacks credits, and why.
    Refused {
        /// The index of the part.
        part: usize,
        /// [`Spending::Exhausted`] or [`Spending::NoCredits`].
        why: Spending,
    },
}

/// Spends the credits of all parts, or of none.
///
/// All parts are probed first, and nothing is written if one lacks credits. Then each is spent, in
/// the order of the parts, which must be the order in which core charges their tallies: of compound
/// charges that compete for the same credits, one then succeeds. If a part has lost its credits
/// since it was probed, those before it get theirs again.
///
/// A part that is exhausted decides before one that only has no credits, since waiting is then
/// useless. Parts after the first [`MAX_PARTS`] are refused: [`Spending::NoCredits`].
pub fn spend_all<W: Words>(parts: &[Part<'_, W>], now_ms: u64) -> CompoundSpending {
    if parts.len() > MAX_PARTS {
        return CompoundSpending::Refused { part: MAX_PARTS, why: Spending::NoCredits };
    }
    let has_credits = |part: &Part<'_, W>| {
        let word = part.words.load(Word::Credits);
        credit::spend(part.layout, word, now_ms, part.cost).is_some()
    };
    let mut refused = None;
    for (index, part) in parts.iter().enumerate().filter(|(_, part)| !has_credits(part)) {
        let why = refusal(part.layout, &part.words, now_ms, part.cost);
        if refused.is_none() || why == Spending::Exhausted {
            refused = Some(CompoundSpending::Refused { part: index, why });
        }
        if why == Spending::Exhausted {
            break;
        }
    }
    if let Some(refused) = refused {
        return refused;
    }
    let (mut times, mut lows) = ([0; MAX_PARTS], [false; MAX_PARTS]);
    for (index, part) in parts.iter().enumerate() {
        match spend(part.layout, &part.words, now_ms, part.cost) {
            Spending::Spent { at_ms, is_low } => (times[index], lows[index]) = (at_ms, is_low),
            why => {
                for (part, at_ms) in parts[..index].iter().zip(times) {
                    refund(part.layout, &part.words, at_ms, part.cost);
                }
                return CompoundSpending::Refused { part: index, why };
            }
        }
    }
    CompoundSpending::Spent { at_ms: times, is_low: lows }
}
