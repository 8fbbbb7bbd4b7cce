//! The holding of one machine: how units move between the store and the credits.
//!
//! These are the steps of the protocol. They decide nothing about sizes and times; [`crate::lease`]
//! does. For any sizes, and if the agent is killed between any two writes, they keep
//!
//! ```text
//! spent + credits ≤ holding ≤ what the store counts for this machine
//! ```
//!
//! in every window, unless the store forgot what it had confirmed. The store never lets the sum of
//! all machines exceed the limit, so the sum of what they spend does not.
//!
//! Requests that were admitted without credits, as the operator chose for a loss of the store, are
//! not part of *spent*. They are counted in a word of their own until the store has them:
//!
//! ```text
//! spent + credits + admitted without credits ≤ holding + unreserved
//! ```
//!
//! 1. At most one lease request of a tally is open. Its number is raised before it is sent.
//! 2. A reply is applied only to the open request with its number, and only to windows that still
//!    run. The holding is written first, then the difference is added to the credits.
//! 3. A request that is given up is closed, so its reply is void. The next request states the
//!    holding again, and the store takes back what the machine never learned of.
//! 4. What is given back is first taken from the credits, then from the holding, then stated to the
//!    store.
//! 5. An agent that takes over closes the open request, and continues with the words as they are.
//!    Units that its predecessor had moved halfway stay in the holding, and nothing spends them.
//! 6. Each request also states what is unreserved. Its reply first moves that to the holding, then
//!    subtracts it. So it is counted twice if the agent is killed in between, and never forgotten.
//!
//! Only one agent at a time may call these functions, while any number of requests spend credits.

use crate::credit::{self, CreditLayout, Units};
use crate::meta::{Meta, NUMBERS};
use crate::request::{LeaseRequest, NUMBER_REFUSED, Reply, WINDOW_REFUSED, WindowRequest};
use crate::words::{Word, Words, deduct_unreserved, update, update_meta};

/// Opens a lease request that wants `more` units than the holding, of each window. Returns it with
/// the wanted cost, which is cleared. `None` if a request is open.
///
/// What was admitted without credits is stated as part of the holding.
pub fn open<W: Words>(
    layout: &CreditLayout,
    words: &W,
    now_ms: u64,
    more: &Units,
) -> Option<(LeaseRequest, u32)> {
    let before = update_meta(words, |meta| {
        if meta.is_open() {
            return meta;
        }
        // After the largest number comes 0.
        meta.with_number((meta.number() + 1) % NUMBERS).with_open(true).with_wanted(0)
    });
    if before.is_open() {
        return None;
    }
    let holding = words.load(Word::Holding);
    // A predecessor may have been ahead of this agent's time.
    let at_ms = layout.time_ms(holding, now_ms);
    let held = layout.current(holding, at_ms);
    let admitted = layout.units_at(words.load(Word::Unreserved), at_ms);
    let mut windows = [WindowRequest::default(); keytally_core::MAX_QUOTAS];
    for (index, window) in windows.iter_mut().enumerate().take(layout.len()) {
        let span = layout.span(index, at_ms);
        let unreserved = admitted[index].min(layout.max_units(index) - held[index]);
        let hold = held[index] + unreserved;
        let want = hold.saturating_add(more[index]).min(layout.max_units(index));
        let (begin_ms, end_ms) = (span.begin_ms, span.end_ms);
        let limit = layout.limit(index);
        *window = WindowRequest { limit, hold, unreserved, want, begin_ms, end_ms };
    }
    let number = (before.number() + 1) % NUMBERS;
    Some((LeaseRequest { number, at_ms, windows, len: layout.len() }, before.wanted()))
}

/// What came of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Its request is not open, so nothing was done.
    Void,
    /// The units of each window that were added to the credits.
    Granted(Units),
    /// Another machine uses this machine's name. The request is closed. The caller must void all
    /// words ([`void`]) and take a new name.
    NameTaken,
}

/// Applies the reply to `request`: writes the holding, subtracts from what is unreserved what the
/// store has counted, then adds to the credits, then closes the request.
///
/// Of a reply that no script would send, at most the wanted units are held, and at least what was
/// held before.
pub fn apply<W: Words>(
    layout: &CreditLayout,
    words: &W,
    now_ms: u64,
    request: &LeaseRequest,
    reply: &Reply,
) -> Applied {
    let meta = Meta::from_bits(words.load(Word::Meta));
    if !meta.is_open() || meta.number() != request.number {
        return Applied::Void;
    }
    let windows = || request.windows().iter().zip(reply.windows);
    if windows().any(|(_, window)| window.machines == NUMBER_REFUSED) {
        close(words);
        return Applied::NameTaken;
    }
    let holding = words.load(Word::Holding);
    let mut held = layout.current(holding, request.at_ms);
    let (mut gained, mut counted) = (Units::default(), Units::default());
    for (index, (window, part)) in windows().enumerate() {
        if is_answered(request, reply, index) {
            held[index] = part.held.clamp(window.hold, window.want.max(window.hold));
            gained[index] = held[index] - window.hold;
            counted[index] = window.unreserved;
        }
    }
    set_holding(layout, words, now_ms, request.at_ms, &held);
    deduct_unreserved(layout, words, request.at_ms, &counted);
    add_credits(layout, words, now_ms, request.at_ms, &gained);
    set_left(layout, words, now_ms, request, reply);
    close(words);
    Applied::Granted(gained)
}

/// Writes what the store confirmed, for the windows of `at_ms` that still run.
pub fn set_holding<W: Words>(
    layout: &CreditLayout,
    words: &W,
    now_ms: u64,
    at_ms: u64,
    held: &Units,
) {
    let holding = words.load(Word::Holding);
    words.store(Word::Holding, credit::set(layout, holding, now_ms, at_ms, held));
}

/// Writes what the store had left of each window. Of a window without a reply, that is its limit.
fn set_left<W: Words>(
    layout: &CreditLayout,
    words: &W,
    now_ms: u64,
    request: &LeaseRequest,
    reply: &Reply,
) {
    let word = words.load(Word::Left);
    let time_ms = layout.time_ms(word, now_ms);
    let mut left = Units::default();
    for (index, left) in left.iter_mut().enumerate().take(layout.len()) {
        let is_now = |at_ms| layout.is_same_window(index, at_ms, time_ms);
        *left = if is_answered(request, reply, index) && is_now(request.at_ms) {
            reply.windows[index].left
        } else if is_now(layout.stamp_ms(word)) {
            layout.units(word, index)
        } else {
            layout.limit(index)
        };
    }
    words.store(Word::Left, layout.word(time_ms, &left));
}

/// Returns whether the store applied the part of the request for this window.
fn is_answered(request: &LeaseRequest, reply: &Reply, index: usize) -> bool {
    index < request.len
        && reply.windows.get(index).is_some_and(|window| window.machines != WINDOW_REFUSED)
}

/// Adds to the credits, for the windows of `at_ms` that still run.
pub fn add_credits<W: Words>(
    layout: &CreditLayout,
    words: &W,
    now_ms: u64,
    at_ms: u64,
    units: &Units,
) {
    update(words, Word::Credits, |word| Some(credit::grant(layout, word, now_ms, at_ms, units)));
}

/// Takes at most `units` of each window from the credits, and returns what it took.
pub fn take_credits<W: Words>(
    layout: &CreditLayout,
    words: &W,
    now_ms: u64,
    units: &Units,
) -> Units {
    let next = |word| Some(credit::take(layout, word, now_ms, units).0);
    let (before, _) = update(words, Word::Credits, next).unwrap_or_default();
    credit::take(layout, before, now_ms, units).1
}

/// Lowers the holding by units that were taken from the credits.
pub fn lower_holding<W: Words>(layout: &CreditLayout, words: &W, now_ms: u64, units: &Units) {
    let holding = words.load(Word::Holding);
    words.store(Word::Holding, credit::take(layout, holding, now_ms, units).0);
}

/// Gives back at most `units` of each window: takes them from the credits, lowers the holding, and
/// opens the lease request that states it. `None` if a request is open or there are no credits.
pub fn give_back<W: Words>(
    layout: &CreditLayout,
    words: &W,
    now_ms: u64,
    units: &Units,
) -> Option<LeaseRequest> {
    if Meta::from_bits(words.load(Word::Meta)).is_open() {
        return None;
    }
    let taken = take_credits(layout, words, now_ms, units);
    if taken == Units::default() {
        return None;
    }
    lower_holding(layout, words, now_ms, &taken);
    open(layout, words, now_ms, &Units::default()).map(|(request, _)| request)
}

/// Closes the open request: it is given up, its connection broke, or another agent takes over.
pub fn close<W: Words>(words: &W) {
    update_meta(words, |meta| meta.with_open(false));
}

/// Returns whether the machine holds units of a window of `now_ms`.
pub fn is_held<W: Words>(layout: &CreditLayout, words: &W, now_ms: u64) -> bool {
    layout.current(words.load(Word::Holding), now_ms) != Units::default()
}

/// Returns when what was admitted without credits can be stated: now, or when the windows begin in
/// which it was. `None` if there is nothing to state.
pub fn unreserved_ms<W: Words>(layout: &CreditLayout, words: &W, now_ms: u64) -> Option<u64> {
    let word = words.load(Word::Unreserved);
    let at_ms = layout.time_ms(word, now_ms);
    (layout.units_at(word, at_ms) != Units::default()).then_some(at_ms)
}

/// Voids what the machine holds: takes all credits, then clears the other words. For a machine that
/// gets a new name, such as after a restart or if its file was copied. The store keeps what it held
/// under the old name until the windows end. What the store has not counted stays to be stated.
pub fn void<W: Words>(words: &W) {
    update(words, Word::Credits, |_| Some(0));
    for word in [Word::Holding, Word::Left] {
        words.store(word, 0);
    }
    update_meta(words, |meta| {
        Meta::default().with_number(meta.number()).with_wanted(meta.wanted())
    });
}
