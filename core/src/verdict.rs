//! The verdict: everything that an HTTP response, a log line or a later refund needs to know.

use core::fmt;

use crate::decide::{self, Charge, Decision};
use crate::key::KeyId;
use crate::policy::{Limits, MAX_QUOTAS, Window};
use crate::tally::{Counts, Layout, VOID};
use crate::time::Timestamp;

/// What was decided. The numbers are the same in every language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Outcome {
    /// The request may go on; its cost is charged.
    Admitted = 0,
    /// Some window lacks room; nothing is charged.
    Denied = 1,
    /// No key was presented.
    MissingKey = 2,
    /// The key is no good, for a [`Reason`] that the client isn't told.
    InvalidKey = 3,
    /// The cost is above a limit and can never be admitted.
    TooCostly = 4,
    /// A limiter has no slot for a new subject; nothing is charged.
    Full = 5,
}

/// Why a key is invalid: for logs and metrics, never for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Reason {
    /// The text has no form that a key of this gate could have.
    Malformed = 1,
    /// The checksum of a well-formed key is wrong: a typo.
    Checksum = 2,
    /// No key of this gate has this key id.
    Unknown = 3,
    /// The key id exists and the secret is another.
    WrongSecret = 4,
    /// The key was revoked.
    Revoked = 5,
    /// The key, or the grace of its previous secret, ended.
    Expired = 6,
    /// The header was sent more than once.
    Duplicate = 7,
    /// The key belongs to a pepper that this process wasn't given.
    PepperMissing = 8,
    /// The key's record can't be read.
    Damaged = 9,
}

impl Reason {
    /// All reasons, in the order of their numbers.
    pub const ALL: &'static [Self] = &[
        Self::Malformed,
        Self::Checksum,
        Self::Unknown,
        Self::WrongSecret,
        Self::Revoked,
        Self::Expired,
        Self::Duplicate,
        Self::PepperMissing,
        Self::Damaged,
    ];

    /// A short word for logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Checksum => "checksum",
            Self::Unknown => "unknown",
            Self::WrongSecret => "wrong_secret",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Duplicate => "duplicate",
            Self::PepperMissing => "pepper_missing",
            Self::Damaged => "damaged",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Outcome {
    /// All outcomes, in the order of their numbers.
    pub const ALL: &'static [Self] =
        &[Self::Admitted, Self::Denied, Self::MissingKey, Self::InvalidKey, Self::TooCostly, Self::Full];

    /// A short word for logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Denied => "denied",
            Self::MissingKey => "missing_key",
            Self::InvalidKey => "invalid_key",
            Self::TooCostly => "too_costly",
            Self::Full => "full",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One window of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuotaState {
    /// The most that one window admits.
    pub limit: u32,
    /// What is left, at most the limit.
    pub remaining: u32,
    /// The window.
    pub window: Window,
    /// When all that is counted now will be forgotten, in Unix seconds.
    pub reset_unix_s: u64,
    /// Whether this window is why the request was denied.
    pub lacking: bool,
    /// Whether what is counted now will still count in the window after this one, as in a sliding window.
    pub lasting: bool,
}

impl QuotaState {
    pub(crate) const NONE: Self = Self {
        limit: 0,
        remaining: 0,
        window: Window::SECOND,
        reset_unix_s: 0,
        lacking: false,
        lasting: false,
    };

    /// A window that neither lacks room nor counts in the next one.
    #[inline]
    pub const fn new(limit: u32, remaining: u32, window: Window, reset_unix_s: u64) -> Self {
        Self { limit, remaining, window, reset_unix_s, lacking: false, lasting: false }
    }
}

/// Up to four [`QuotaState`]s, shortest window first. They are kept as the decision left them, and worked out when
/// they are asked for: most requests only need to know whether they may go on.
#[derive(Clone, Copy)]
pub struct Quotas {
    counts: Counts,
    limits: Limits,
    /// The tally, at the time that it is for.
    word: u64,
    time: Timestamp,
    /// The cost that was denied, else 0: the windows that leave less are why.
    pub(crate) denied: u32,
}

impl Quotas {
    /// Of a verdict that reached no tally.
    pub(crate) const NONE: Self = Self {
        counts: Counts::NONE,
        limits: Limits([0; MAX_QUOTAS]),
        word: VOID,
        time: Timestamp::from_unix_ms(0),
        denied: 0,
    };

    /// Of a tally at a moment that lies in the unit of its stamp.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    pub(crate) fn of(counts: &Counts, limits: &Limits, word: u64, time: Timestamp) -> Self {
        Self { counts: *counts, limits: *limits, word, time, denied: 0 }
    }

    /// How many there are, 0 to 4.
    #[inline]
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Whether there are none: the verdict reached no tally.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The one at `place`, 0 for the shortest window.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    #[cfg_attr(not(target_pointer_width = "64"), inline)]
    pub fn get(&self, place: usize) -> Option<QuotaState> {
        (place < self.len()).then(|| self.state(place))
    }

    /// In one piece with whoever asks: what comes back through memory is loaded in other pieces than it was stored in, and
    /// waits until the stores are done.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    #[cfg_attr(not(target_pointer_width = "64"), inline)]
    pub(crate) fn state(&self, place: usize) -> QuotaState {
        let window = self.counts.window(place);
        let lasting = self.counts.lasts(self.word, place);
        let windows = window.whole_in(self.time.unix_s()) + 1 + u64::from(lasting);
        let remaining = self.remaining(place);
        QuotaState {
            limit: self.limit(place),
            remaining,
            window,
            reset_unix_s: windows * u64::from(window.seconds()),
            lacking: remaining < self.denied,
            lasting,
        }
    }

    #[inline]
    fn limit(&self, place: usize) -> u32 {
        self.counts.limit(&self.limits, place)
    }

    #[cfg_attr(target_pointer_width = "64", inline(always))]
    #[cfg_attr(not(target_pointer_width = "64"), inline)]
    fn remaining(&self, place: usize) -> u32 {
        self.limit(place).saturating_sub(self.counts.used(self.word, place, self.time.unix_ms()))
    }

    /// When every window will have room for `cost`, at most each limit, if nothing more is spent; the present when they
    /// have room now.
    ///
    /// It is the last of the windows to have room that counts: none of the others has less room then than before.
    pub fn room_at(&self, cost: u32) -> Timestamp {
        let rooms = (0..self.len()).map(|place| self.room_at_ms(place, cost));
        Timestamp::from_unix_ms(rooms.fold(self.time.unix_ms(), u64::max))
    }

    fn room_at_ms(&self, place: usize, cost: u32) -> u64 {
        if cost <= self.remaining(place) {
            return self.time.unix_ms();
        }
        let length = self.counts.window(place).ms();
        let start = self.time.unix_ms() / length * length;
        if !self.counts.slides() {
            return start + length;
        }
        let [current, previous] =
            [self.counts.current(self.word, place), self.counts.previous(self.word, place)].map(u64::from);
        // How long into a window until `count` units of the window before weigh at most `room`:
        // ceil(count·(L − e) / L) ≤ room holds from e = L − floor(room·L / count) on.
        let fades = |count: u64, room: u64| length.saturating_sub(room * length / count.max(1));
        let limit = u64::from(self.limit(place));
        match limit.checked_sub(current + u64::from(cost)) {
            Some(room) => start + fades(previous, room),
            None => start + length + fades(current, limit.saturating_sub(cost.into())),
        }
    }

    /// Returns the time that they hold for: the caller's, or the tally's own if that is later.
    #[inline]
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// Returns by how many seconds the tally is ahead of `now`, rounded up.
    pub(crate) fn ahead_s(&self, now: Timestamp) -> u32 {
        let ahead_ms = self.time.unix_ms().saturating_sub(now.unix_ms());
        u32::try_from(ahead_ms.div_ceil(1000)).unwrap_or(u32::MAX)
    }

    /// All of them, shortest window first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = QuotaState> {
        (0..self.len()).filter_map(|place| self.get(place))
    }

    /// The one with the longest window; `None` when there are none.
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

/// Whose key it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The key's public name.
    pub key_id: KeyId,
    /// The team account that the key belongs to.
    pub account: u32,
    /// The number of the key's plan; the gate tells its name.
    pub plan: u8,
    /// The number of the key's environment; the gate tells its name.
    pub env: u8,
}

/// The answer to a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub(crate) outcome: Outcome,
    pub(crate) reason: Option<Reason>,
    pub(crate) holder: Option<Holder>,
    pub(crate) quotas: Quotas,
    pub(crate) cost: u32,
    pub(crate) uncharged: u32,
    pub(crate) now: Timestamp,
    /// When a slot falls free: of [`Outcome::Full`] alone.
    pub(crate) free_at: Option<Timestamp>,
}

impl Verdict {
    /// Whether the request may go on.
    #[inline]
    pub fn is_admitted(&self) -> bool {
        self.outcome == Outcome::Admitted
    }

    /// What was decided.
    #[inline]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Returns why the key is invalid, for logs and metrics and never for the client; `None` unless the outcome is
    /// [`Outcome::InvalidKey`].
    pub fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// Whose key it was: known once the secret was found right, also when the key turns out revoked or expired.
    pub fn holder(&self) -> Option<Holder> {
        self.holder
    }

    /// Every window after the decision. Empty when no tally was reached.
    pub fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// Units left in the longest window; 0 when no tally was reached.
    pub fn remaining(&self) -> u32 {
        match self.quotas.len() {
            0 => 0,
            len => self.quotas.remaining(len - 1),
        }
    }

    /// When a denied request is worth trying again; `None` unless denied or full.
    #[cfg_attr(target_pointer_width = "64", inline)]
    pub fn retry_at(&self) -> Option<Timestamp> {
        match self.outcome {
            Outcome::Denied => Some(self.quotas.room_at(self.cost)),
            _ => self.free_at,
        }
    }

    /// Returns the seconds from [`waits_from`](Self::waits_from) until [`retry_at`](Self::retry_at),
    /// rounded up and at least 1; `None` unless denied or full.
    #[inline]
    pub fn retry_after_s(&self) -> Option<u32> {
        let wait_ms = self.retry_at()?.unix_ms().saturating_sub(self.waits_from().unix_ms());
        Some(u32::try_from(wait_ms.div_ceil(1000)).unwrap_or(u32::MAX).max(1))
    }

    /// Returns the time that waits are counted from, in `Retry-After` and in the `t` of `RateLimit`.
    ///
    /// It is the later of the caller's time and the decision's. If the tally is ahead by more than 60 s,
    /// which honest clocks are not apart, it is the caller's: then the wait is as long as it takes the
    /// caller's clock to get there.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    pub fn waits_from(&self) -> Timestamp {
        decide::waits_from(self.now, self.quotas.time)
    }

    /// Returns by how many seconds the tally was ahead of the caller, rounded up; 0 if it was not.
    ///
    /// More than 60 says that a clock was wrong, or that an explicit time was. With the system clock
    /// the next check corrects it; see [`decide`] for what that costs.
    pub fn clock_ahead_s(&self) -> u32 {
        self.quotas.ahead_s(self.now)
    }

    /// What was charged, to be kept for a later `refund` or `settle`; `None` unless admitted.
    pub fn charge(&self) -> Option<Charge> {
        self.is_admitted().then_some(Charge { cost: self.cost, at: self.quotas.time })
    }

    /// What was asked for.
    #[inline]
    pub fn cost(&self) -> u32 {
        self.cost
    }

    /// What a `settle` found no room for; 0 in every other verdict.
    pub fn uncharged(&self) -> u32 {
        self.uncharged
    }

    /// Returns the caller's time: the explicit time, or the last reading of the system clock.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The verdict on a request whose key header came more than once: it is invalid, whatever the values are, since
    /// the next server in the chain might pick another one.
    pub fn duplicate_header(now: Timestamp) -> Self {
        Self::refused(Outcome::InvalidKey, Some(Reason::Duplicate), now)
    }

    /// The verdict that a decision on a tally makes, for those who keep tallies of their own: the decision's own `layout`,
    /// `limits`, `now` and `cost`.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    pub fn decided(
        layout: &Layout,
        limits: &Limits,
        decision: Decision,
        holder: Option<Holder>,
        now: Timestamp,
        cost: u32,
    ) -> Self {
        let mut quotas = decide::quotas(layout, limits, decision.next, now);
        quotas.denied = if decision.outcome == Outcome::Denied { cost } else { 0 };
        Self {
            outcome: decision.outcome,
            reason: None,
            holder,
            quotas,
            cost,
            uncharged: decision.uncharged,
            now,
            free_at: None,
        }
    }

    /// The verdict on a new subject in a limiter that has no slot for one before `until`.
    pub(crate) fn full(until: Timestamp, now: Timestamp) -> Self {
        let mut verdict = Self::refused(Outcome::Full, None, now);
        verdict.free_at = Some(until);
        verdict
    }

    /// The verdict on a key that is no good; `holder` is whose it was, if its secret was right.
    #[inline(never)]
    pub(crate) fn invalid(reason: Reason, holder: Option<Holder>, now: Timestamp) -> Self {
        let mut verdict = Self::refused(Outcome::InvalidKey, Some(reason), now);
        verdict.holder = holder;
        verdict
    }

    pub(crate) fn refused(outcome: Outcome, reason: Option<Reason>, now: Timestamp) -> Self {
        Self {
            outcome,
            reason,
            holder: None,
            quotas: Quotas::NONE,
            cost: 0,
            uncharged: 0,
            now,
            free_at: None,
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate alloc;
    use alloc::format;

    use super::*;
    use crate::policy::Policy;

    fn policy() -> Policy {
        "100/minute, 1000/hour".parse().unwrap()
    }

    fn quotas(word: u64, unix_s: u64) -> Quotas {
        decide::quotas(policy().layout(), &policy().limits(), word, Timestamp::from_unix_s(unix_s))
    }

    #[test]
    fn there_is_a_quota_for_each_window_and_no_other() {
        let two = quotas(VOID, 60);
        assert_eq!(two.get(0).map(|quota| quota.limit), Some(100));
        assert_eq!(two.get(1).map(|quota| quota.limit), Some(1000));
        assert_eq!(two.get(2), None);
        assert_eq!(format!("{two:?}"), format!("[{:?}, {:?}]", two.get(0).unwrap(), two.get(1).unwrap()));
    }

    #[test]
    fn quotas_are_equal_when_time_and_states_are() {
        let at = Timestamp::from_unix_s(60);
        let charged = decide::check(policy().layout(), &policy().limits(), VOID, at, 1).next;
        assert_eq!(quotas(charged, 60), quotas(charged, 60));
        assert_ne!(quotas(charged, 60), quotas(VOID, 60), "another count");
        assert_ne!(quotas(charged, 60), quotas(charged, 61), "another time");
    }
}
