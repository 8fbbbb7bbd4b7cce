//! The guarantees of `docs/SEMANTICS.md` as harnesses: one for each theorem.
//!
//! `cargo test` runs each harness on a fixed number of random inputs. `cargo bolero test -s NONE
//! NAME` runs one as a fuzzer. Those that call only pure functions are marked for the model checker
//! Kani: `cargo kani --tests` tries all inputs within the bounds that this crate sets under
//! `cfg(kani)`.
//!
//! This library generates policies, words, times and costs. It also reads a tally by the formulas
//! of the page, without code of the core. A *word* is the 64-bit integer that holds a tally. A
//! *stamp* is the time in it.

use bolero::TypeGenerator;
use keytally_core::{Algorithm, Layout, MAX_QUOTAS, Policy, Quota, Timestamp, Window};

/// The time around which words and times are generated, in Unix milliseconds: 2026-01-01, 00:00
/// UTC. Kani gets a time of few bits.
pub const START_MS: u64 = if cfg!(kani) { 600_000 } else { 1_767_225_600_000 };

/// Lengths of the shortest window, in seconds.
const UNITS_S: [u32; 7] = [1, 7, 10, 60, 90, 3600, 86_400];

/// Steps of time in milliseconds: of one window or of many, and from a unit's start or not.
const STEPS_MS: [u64; 6] = if cfg!(kani) {
    [1, 1, 500, 500, 1000, 1000]
} else {
    [1, 17, 1000, 61_000, 3_600_000, 86_400_000]
};

/// A policy with one to four nested windows.
#[derive(Clone, Copy, Debug, TypeGenerator)]
pub struct AnyPolicy {
    is_sliding: bool,
    quotas: u8,
    unit: u8,
    factors: [u8; MAX_QUOTAS - 1],
    limits: [(u8, u32); MAX_QUOTAS],
}

impl AnyPolicy {
    /// Calls `theorem` with the policy.
    ///
    /// Kani gets one small policy for each algorithm. Each is a constant in its own call, so all
    /// divisions are by constants.
    pub fn with(&self, theorem: impl Fn(&Policy)) {
        if !cfg!(kani) {
            theorem(&self.policy());
        } else if self.is_sliding {
            theorem(&small_policy(Algorithm::Sliding));
        } else {
            theorem(&small_policy(Algorithm::Fixed));
        }
    }

    /// Returns the policy, with as many of the quotas as fit a tally.
    fn policy(&self) -> Policy {
        let algorithm = if self.is_sliding { Algorithm::Sliding } else { Algorithm::Fixed };
        let mut seconds = UNITS_S[usize::from(self.unit) % UNITS_S.len()];
        let mut quotas = Vec::new();
        for index in 0..=usize::from(self.quotas) % MAX_QUOTAS {
            if index > 0 {
                seconds = seconds.saturating_mul(2 + u32::from(self.factors[index - 1]) % 59);
            }
            let (scale, value) = self.limits[index];
            let limit = 1 + value % [3, 200, 5000, u32::MAX][usize::from(scale) % 4];
            quotas.extend(Window::from_seconds(seconds).map(|window| Quota { limit, window }));
        }
        // A sliding quota with a large limit does not fit even alone.
        while let Some(last) = quotas.pop() {
            quotas.push(last);
            if let Ok(policy) = Policy::new(algorithm, &quotas) {
                return policy;
            }
            quotas.pop();
        }
        small_policy(algorithm)
    }
}

/// Returns a policy of two windows with small limits.
fn small_policy(algorithm: Algorithm) -> Policy {
    let quota = |limit, seconds| Quota {
        limit,
        window: Window::from_seconds(seconds).expect("it is at most 31 days"),
    };
    Policy::new(algorithm, &[quota(3, 1), quota(5, 2)]).expect("its counts fit a tally")
}

/// A time near [`START_MS`], or any time.
#[derive(Clone, Copy, Debug, TypeGenerator)]
pub struct AnyTime {
    is_arbitrary: u8,
    arbitrary_ms: u64,
    scale: u8,
    steps: i8,
}

impl AnyTime {
    /// Returns the time in Unix milliseconds, before the last stamp of a layout begins.
    pub fn unix_ms(&self, layout: &Layout) -> u64 {
        let near = self.after(START_MS);
        if cfg!(kani) || !self.is_arbitrary.is_multiple_of(8) {
            return near;
        }
        self.arbitrary_ms % (last_stamp(layout) * unit_ms(layout))
    }

    /// Returns the time that is a few steps after `before_ms`, or before it.
    pub fn after(&self, before_ms: u64) -> u64 {
        let step = STEPS_MS[usize::from(self.scale) % STEPS_MS.len()];
        let distance = u64::from(self.steps.unsigned_abs()) * step;
        if self.steps < 0 { before_ms.saturating_sub(distance) } else { before_ms + distance }
    }

    /// Returns the time of a clock that never goes back, after `before_ms`.
    pub fn not_before(&self, before_ms: u64) -> u64 {
        Self { steps: self.steps & i8::MAX, ..*self }.after(before_ms)
    }
}

/// A cost in units, of a few units mostly.
#[derive(Clone, Copy, Debug, TypeGenerator)]
pub struct AnyCost {
    scale: u8,
    value: u32,
}

impl AnyCost {
    /// Returns the cost.
    pub fn units(&self) -> u32 {
        let bound = if cfg!(kani) {
            8
        } else {
            [3, 8, 8, 300, 6000, u32::MAX][usize::from(self.scale) % 6]
        };
        self.value % bound
    }
}

/// A tally with counts around the limits, or any word.
#[derive(Clone, Copy, Debug, TypeGenerator)]
pub struct AnyWord {
    is_arbitrary: u8,
    word: u64,
    stamp: AnyTime,
    counts: [[u32; 2]; MAX_QUOTAS],
}

impl AnyWord {
    /// Returns a word of the policy's layout. Its stamp is below the last one, which all times that
    /// do not fit a stamp have too.
    pub fn word(&self, policy: &Policy) -> u64 {
        let layout = policy.layout();
        if !cfg!(kani) && self.is_arbitrary.is_multiple_of(4) {
            let stamp = (self.word >> stamp_shift(layout)) % last_stamp(layout);
            return with_stamp(layout, self.word, stamp);
        }
        let mut word = 0;
        let mut shift = stamp_shift(layout);
        let windows = policy.quotas().iter().zip(layout.count_bits()).zip(self.counts);
        for ((quota, bits), [current, previous]) in windows {
            let largest = (1u64 << *bits) - 1;
            // Up to one unit above the limit, as after a limit was lowered.
            let count = |raw: u32| (u64::from(raw) % (u64::from(quota.limit) + 2)).min(largest);
            shift -= u32::from(*bits);
            word |= count(current) << shift;
            if policy.algorithm() == Algorithm::Sliding {
                shift -= u32::from(*bits);
                word |= count(previous) << shift;
            }
        }
        with_stamp(layout, word, self.stamp.unix_ms(layout) / unit_ms(layout))
    }
}

/// Returns the length of the stamp's unit, which is the shortest window, in milliseconds.
pub fn unit_ms(layout: &Layout) -> u64 {
    length_ms(layout, 0)
}

/// Returns the length of the window at `index`, in milliseconds.
pub fn length_ms(layout: &Layout, index: usize) -> u64 {
    u64::from(layout.windows()[index].seconds()) * 1000
}

/// Returns the last stamp that a tally can have. The stamp after it, all ones, is not a tally's.
fn last_stamp(layout: &Layout) -> u64 {
    (u64::MAX >> stamp_shift(layout)) - 1
}

/// Returns the position of the stamp's lowest bit.
fn stamp_shift(layout: &Layout) -> u32 {
    u64::BITS - layout.stamp_bits()
}

/// Returns the bits of a word that hold its counts.
pub fn counts_of(layout: &Layout, word: u64) -> u64 {
    word & ((1u64 << stamp_shift(layout)) - 1)
}

/// Returns the word with another stamp.
pub fn with_stamp(layout: &Layout, word: u64, stamp: u64) -> u64 {
    counts_of(layout, word) | stamp << stamp_shift(layout)
}

/// Returns the time in milliseconds.
pub fn at(unix_ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(unix_ms)
}

/// A tally, read by the formulas of `docs/SEMANTICS.md`.
#[derive(Clone, Copy, Debug)]
pub struct Tally<'p> {
    policy: &'p Policy,
    /// The stamp *s*.
    pub stamp: u64,
    /// For each quota, the count of the window of the stamp, and that of the window before it.
    counts: [[u64; 2]; MAX_QUOTAS],
}

impl<'p> Tally<'p> {
    /// Reads a word.
    pub fn new(policy: &'p Policy, word: u64) -> Self {
        let layout = policy.layout();
        let mut counts = [[0; 2]; MAX_QUOTAS];
        let mut shift = stamp_shift(layout);
        for (count, bits) in counts.iter_mut().zip(layout.count_bits()) {
            let kept = if policy.algorithm() == Algorithm::Sliding { 2 } else { 1 };
            for value in &mut count[..kept] {
                shift -= u32::from(*bits);
                *value = (word >> shift) & ((1u64 << *bits) - 1);
            }
        }
        Self { policy, stamp: word >> stamp_shift(layout), counts }
    }

    /// Returns the decision time *t*, in Unix milliseconds.
    pub fn time_ms(&self, now_ms: u64) -> u64 {
        now_ms.max(self.stamp * unit_ms(self.policy.layout()))
    }

    /// Returns *C*(`window`) of the quota at `index`, which is 0 if the tally has no such count.
    pub fn count(&self, index: usize, window: u64) -> u64 {
        let layout = self.policy.layout();
        let present = self.stamp * unit_ms(layout) / length_ms(layout, index);
        match present.checked_sub(window) {
            Some(age @ (0 | 1)) => self.counts[index][usize::from(age == 1)],
            _ => 0,
        }
    }

    /// Returns used(*t*) of the quota at `index`.
    pub fn used(&self, index: usize, time_ms: u64) -> u64 {
        used(self.policy, index, time_ms, |window| self.count(index, window))
    }
}

/// Returns used(*t*) of the quota at `index`, where `count` is *C*.
pub fn used(policy: &Policy, index: usize, time_ms: u64, count: impl Fn(u64) -> u64) -> u64 {
    let w = length_ms(policy.layout(), index);
    let (k, e) = (time_ms / w, time_ms % w);
    // Only sliding windows count the window before.
    let before = k.checked_sub(1).filter(|_| policy.algorithm() == Algorithm::Sliding);
    count(k) + before.map_or(0, |before| (count(before) * (w - e)).div_ceil(w))
}

/// Returns the limit *L* of the quota at `index`. One above the largest value of its count acts as
/// that value.
pub fn limit(policy: &Policy, index: usize) -> u64 {
    let largest = policy.layout().max_limit(index).expect("the quota exists");
    policy.quotas()[index].limit.min(largest).into()
}
