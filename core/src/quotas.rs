//! The state of each window of a tally at a moment.

use core::borrow::Borrow;
use core::fmt;

use crate::features::Feature;
use crate::quota::{Limits, MAX_QUOTAS};
use crate::tally::{Counts, EMPTY};
use crate::time::Timestamp;
use crate::window::Window;

/// The state of one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct QuotaState {
    /// The most units that one window admits.
    pub limit: u32,
    /// Units left, at most the limit.
    pub remaining: u32,
    /// The window.
    pub window: Window,
    /// The time at which the last unit that counts now stops counting, in Unix seconds.
    pub reset_unix_s: u64,
    /// Whether the request was denied because this window lacks room for it.
    pub lacking: bool,
    /// Whether units that count now also count in the next window. Only in sliding windows they do.
    pub lasting: bool,
    /// Whether the gate names this window as the one that the fields `X-RateLimit-*` describe.
    pub named: bool,
}

impl QuotaState {
    /// A state without a meaning, for the unused elements of an array.
    pub(crate) const NONE: Self = Self {
        limit: 0,
        remaining: 0,
        window: Window::SECOND,
        reset_unix_s: 0,
        lacking: false,
        lasting: false,
        named: false,
    };

    /// A state in which [`lacking`](Self::lacking), [`lasting`](Self::lasting) and
    /// [`named`](Self::named) are false.
    #[inline]
    pub const fn new(limit: u32, remaining: u32, window: Window, reset_unix_s: u64) -> Self {
        Self {
            limit,
            remaining,
            window,
            reset_unix_s,
            lacking: false,
            lasting: false,
            named: false,
        }
    }

    /// Returns the state of the window that the fields `X-RateLimit-*` describe, of all windows of
    /// a policy, shortest first: the one that the gate names, else the longest of at most a day, or
    /// the shortest if all are longer. `None` without a window.
    #[inline]
    pub fn described(all: &[Self]) -> Option<&Self> {
        match all {
            // Nearly all policies.
            [.., longest]
                if longest.window.is_at_most_a_day() && !all.iter().any(Self::is_named) =>
            {
                Some(longest)
            }
            _ => Self::described_among(all.iter()),
        }
    }

    /// Returns whether the gate names this window. Always false in a build without sections.
    #[inline]
    fn is_named(&self) -> bool {
        Feature::Sections.is_included() && self.named
    }

    /// Returns the state that `X-RateLimit-*` describe of these, shortest window first.
    #[cold]
    #[inline(never)]
    pub(crate) fn described_among<S: Borrow<Self>>(all: impl Iterator<Item = S>) -> Option<S> {
        let mut described = None;
        for state in all {
            if state.borrow().is_named() {
                return Some(state);
            }
            if described.is_none() || state.borrow().window.is_at_most_a_day() {
                described = Some(state);
            }
        }
        described
    }

    /// Returns the units that count now: the limit without the remaining ones.
    pub const fn used(&self) -> u32 {
        self.limit.saturating_sub(self.remaining)
    }
}

/// The states of up to four windows, shortest first.
///
/// It keeps the tally and computes each [`QuotaState`] on request, since most callers only need the
/// outcome.
#[derive(Clone, Copy)]
pub struct Quotas {
    counts: Counts,
    limits: Limits,
    /// The tally, whose stamp names the unit of `time`.
    word: u64,
    time: Timestamp,
    /// The cost that was denied, else 0. The windows that have less room are lacking.
    pub(crate) denied: u32,
}

impl Quotas {
    /// The states of no window, for verdicts that read no tally.
    pub(crate) const NONE: Self = Self {
        counts: Counts::NONE,
        limits: Limits([0; MAX_QUOTAS]),
        word: EMPTY,
        time: Timestamp::from_unix_ms(0),
        denied: 0,
    };

    /// The states of a tally's windows at a moment within the unit that its stamp names.
    #[cfg_attr(target_pointer_width = "64", inline)]
    pub(crate) fn new(counts: &Counts, limits: &Limits, word: u64, time: Timestamp) -> Self {
        Self { counts: *counts, limits: *limits, word, time, denied: 0 }
    }

    /// Returns the limit of the window at `index`; `None` if there is none. It takes less than the
    /// whole state.
    #[inline]
    pub fn limit_of(&self, index: usize) -> Option<u32> {
        (index < self.len()).then(|| self.limit(index))
    }

    /// Returns the limits of the windows.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns how many windows there are, 0 to 4.
    #[inline]
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Returns whether there is no window. The verdict then read no tally, for example because the
    /// key is invalid.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the state of the window at `index`, 0 for the shortest.
    #[inline]
    pub fn get(&self, index: usize) -> Option<QuotaState> {
        if index >= self.len() {
            return None;
        }
        let mut state = self.state(index);
        self.mark(core::slice::from_mut(&mut state));
        Some(state)
    }

    /// Sets the resets of weeks and months, and marks the window that the gate names. The states
    /// may be of any of these windows.
    #[inline]
    pub(crate) fn mark(&self, states: &mut [QuotaState]) {
        if self.counts.has_marks() {
            let named = self.counts.named().map(|index| self.counts.window(index));
            for state in states.iter_mut() {
                state.named = named == Some(state.window);
                if state.window.is_calendar() {
                    state.reset_unix_s = state.window.end_s(self.time.unix_s(), 0);
                }
            }
        }
    }

    /// Returns the state of the window at `index`, which must exist. If it is a week or a month,
    /// the reset has no meaning yet: see [`mark`](Self::mark), which also sets `named`. A call here
    /// would cost instructions in every verdict.
    ///
    /// Always inlined: returned through memory, it causes a store-forwarding stall, since the loads
    /// are wider than the stores.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    #[cfg_attr(not(target_pointer_width = "64"), inline)]
    pub(crate) fn state(&self, index: usize) -> QuotaState {
        let window = self.counts.window(index);
        let lasting = self.counts.lasts(self.word, index);
        let remaining = self.remaining(index);
        QuotaState {
            limit: self.limit(index),
            remaining,
            window,
            reset_unix_s: window.length_end_s(self.time.unix_s(), lasting.into()),
            lacking: remaining < self.denied,
            lasting,
            named: false,
        }
    }

    #[inline]
    fn limit(&self, index: usize) -> u32 {
        self.counts.limit(&self.limits, index)
    }

    #[cfg_attr(target_pointer_width = "64", inline(always))]
    #[cfg_attr(not(target_pointer_width = "64"), inline)]
    pub(crate) fn remaining(&self, index: usize) -> u32 {
        self.limit(index).saturating_sub(self.counts.used(self.word, index, self.time.unix_ms()))
    }

    /// Returns the time at which every window will have room for `cost`, if nothing more is
    /// charged; [`time`](Self::time) if they have room now. `cost` must not be above any limit.
    ///
    /// It is the latest of the windows' times, since no window has less room at a later time.
    pub fn room_at(&self, cost: u32) -> Timestamp {
        let times = (0..self.len()).map(|index| self.room_at_ms(index, cost));
        Timestamp::from_unix_ms(times.fold(self.time.unix_ms(), u64::max))
    }

    /// Returns the time at which the window at `index` will have room for `cost`, in Unix
    /// milliseconds.
    fn room_at_ms(&self, index: usize, cost: u32) -> u64 {
        if cost <= self.remaining(index) {
            return self.time.unix_ms();
        }
        let window = self.counts.window(index);
        if !self.counts.slides() {
            return window.end_s(self.time.unix_s(), 0) * 1000;
        }
        let length = window.ms();
        let start = self.time.unix_ms() / length * length;
        let [current, previous] =
            [self.counts.current(self.word, index), self.counts.previous(self.word, index)]
                .map(u64::from);
        // `faded_after` is the time into a window after which `count` units of the previous window
        // weigh at most `room`. For a length L and the elapsed time e, ceil(count·(L − e) / L) ≤
        // room holds from e = L − floor(room·L / count) on.
        let faded_after =
            |count: u64, room: u64| length.saturating_sub(room * length / count.max(1));
        let limit = u64::from(self.limit(index));
        match limit.checked_sub(current + u64::from(cost)) {
            Some(room) => start + faded_after(previous, room),
            None => start + length + faded_after(current, limit.saturating_sub(cost.into())),
        }
    }

    /// Returns the time of these states: the caller's time, or that of the tally's stamp if that is
    /// later.
    #[inline]
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// Returns by how many seconds the tally is ahead of `now`, rounded up.
    pub(crate) fn ahead_s(&self, now: Timestamp) -> u32 {
        let ahead_ms = self.time.unix_ms().saturating_sub(now.unix_ms());
        u32::try_from(ahead_ms.div_ceil(1000)).unwrap_or(u32::MAX)
    }

    /// Returns the state of every window, shortest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = QuotaState> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// Returns the state of the window that the fields `X-RateLimit-*` describe, as
    /// [`QuotaState::described`] does; `None` without a window.
    pub fn described(&self) -> Option<QuotaState> {
        self.get(self.counts.described())
    }

    /// Returns the index of the window that [`described`](Self::described) returns.
    #[inline]
    pub(crate) fn described_index(&self) -> usize {
        self.counts.described()
    }

    /// Returns the units left in the window that [`described`](Self::described) returns.
    #[inline]
    pub(crate) fn described_remaining(&self) -> Option<u32> {
        (!self.is_empty()).then(|| self.remaining(self.counts.described()))
    }

    /// Returns the state of the longest window; `None` if there is none.
    pub fn longest(&self) -> Option<QuotaState> {
        self.get(self.len().checked_sub(1)?)
    }
}

impl fmt::Debug for Quotas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for Quotas {
    fn eq(&self, other: &Self) -> bool {
        self.time == other.time && self.iter().eq(other.iter())
    }
}

impl Eq for Quotas {}

#[cfg(test)]
mod tests {
    extern crate alloc;
    use alloc::format;

    use super::*;
    use crate::policy::Policy;

    fn policy() -> Policy {
        "100/minute, 1000/hour".parse().unwrap()
    }

    /// The states of a tally of [`policy`].
    fn quotas(word: u64, unix_s: u64) -> Quotas {
        crate::decide::quotas(
            policy().layout(),
            &policy().limits(),
            word,
            Timestamp::from_unix_s(unix_s),
        )
    }

    #[test]
    fn policy_of_two_windows_has_two_states() {
        let two = quotas(EMPTY, 60);
        assert_eq!(two.get(0).map(|quota| quota.limit), Some(100));
        assert_eq!(two.get(1).map(|quota| quota.limit), Some(1000));
        assert_eq!(two.get(2), None);
        assert_eq!(
            format!("{two:?}"),
            format!("[{:?}, {:?}]", two.get(0).unwrap(), two.get(1).unwrap())
        );
    }

    #[test]
    fn quotas_are_equal_when_time_and_states_are() {
        let at = Timestamp::from_unix_s(60);
        let charged =
            crate::decide::check(policy().layout(), &policy().limits(), EMPTY, at, 1).next;
        assert_eq!(quotas(charged, 60), quotas(charged, 60));
        assert_ne!(quotas(charged, 60), quotas(EMPTY, 60), "another count");
        assert_ne!(quotas(charged, 60), quotas(charged, 61), "another time");
    }
}
