//! Migration: moves the keys and counts of a gate to a larger one, or to one with other sections or
//! windows, while other processes check keys.
//!
//! The old gate's *successor* is a gate of its own, in other memory. Its header says that it is a
//! successor, so it does not open as a gate yet. Only the administrator of the old gate writes it:
//!
//! 1. It creates the successor and copies every record, with the key's scopes and team. The counts
//!    are still those of the old gate, which nothing has changed.
//! 2. It *announces* the successor: it stores the successor's id and name in the old gate's redo
//!    record, and marks the target word as `SEALING`.
//! 3. It moves the tallies of one line after another, of a record or a team. For each line, it
//!    stores the line's number in the successor's target word. Then it *seals* each tally: it
//!    stores the word in the successor's redo record, and exchanges it for a word with the stamp of
//!    reservations. If a check changed the tally meanwhile, the exchange fails and is repeated.
//!    When all tallies of the line are sealed, it stores the tallies of the successor's line.
//! 4. It marks the old gate's target word as `SEALED`.
//! 5. It withdraws the successor's redo record, and makes the successor a gate. The host then gives
//!    it the path of the old gate.
//! 6. It marks the old gate's target word as `REPLACED`.
//!
//! | target word of the old gate | successor | a check of the old gate | the next administrator |
//! |---|---|---|---|
//! | (none of these) | unnamed, or none | is decided there | (nothing to do) |
//! | `SEALING` | none at its name | a tally that is not sealed: is decided there; a sealed one: `Unavailable` | undoes: unseals the tallies, and withdraws the words of step 2 |
//! | `SEALING` | at its name | as above | completes, from the line in the successor's target word |
//! | `SEALED` | at its name | `Unavailable` | completes from step 5 |
//! | `SEALED` | at the path of the gate | `Unavailable`; the caller opens the path again | changes nothing |
//! | `REPLACED` | any, also none | as above | changes nothing |
//!
//! # No window admits more than its limit
//! A sealed word is never decided on, charged, refunded, reset or corrected: its stamp is that of
//! reservations, which the compare-exchange loop and the fast path exclude. A check that had loaded
//! the tally before it was sealed fails to exchange it. So for each tally, either the charge or the
//! seal comes first. If it is the charge, it is in the word that the seal's exchange compared with,
//! and that word is what the successor gets. The successor opens only when every tally of a key or
//! a team is sealed, so no key is decided on in both gates. Free records have no key to charge.
//!
//! # No key is refused wrongly
//! While the old gate is at its path, its records are those of all keys, since its administrators'
//! lock is held, or they complete the migration first. Once the successor is at the path, it may
//! have other keys. A process that still has the old gate open then finds every tally sealed. A
//! refusal that read no tally may be outdated, so callers call [`Gate::is_migrating`] and open
//! the path again.
//!
//! # Kills
//! The successor's target word names a line before the first tally of the line is sealed, and each
//! word is in the successor's redo record before it is sealed. So if a line's tally is sealed, the
//! word is either in the redo record, because the target word names this line, or in the
//! successor's line. A seal keeps the counts of its tally but not the stamp. It is unsealed only
//! if the successor was lost, with the time of that moment as its stamp: its windows then count the
//! units for as long as though they had just been charged.
//!
//! # Refunds
//! A charge names tallies by their numbers. If the successor has other sections or windows, a
//! number may stand for another tally. Such a successor notes the time of step 5, 60 s later for
//! clocks that run ahead, and does not refund or settle charges from before that time.
//!
//! A request that found one of its tallies sealed may have charged another one, which was sealed
//! before the charge could be given back. [`Gate::refund_left`] returns it to the successor, in
//! the windows that both gates count in.

use core::fmt;

use heapless::Vec;

use super::administrator::Administrator;
use super::config::GateConfig;
use super::entry::Entry;
use super::table::{
    ADMINISTRATOR_WORD, ENV_LINE, Gate, IMPORTED_FLAG, LIST_WORD, MAX_ENVS, PEPPER_LINE,
};
use super::team::Team;
use crate::cache_line::{CACHE_LINE_WORDS, CacheLine};
use crate::compare_exchange;
use crate::header::{AttachError, CreateError, Header, TableKind};
use crate::mac::KEPT_PEPPERS;
use crate::quota::{Limits, MAX_QUOTAS};
use crate::record::{Record, RecordRef};
use crate::section::{MAX_TALLIES, MAX_TEAM_TALLIES, Section};
use crate::stop::{Stop, stop};
use crate::sync::{AtomicU64, Ordering};
use crate::tally::Layout;
use crate::text::Text;
use crate::time::{Clock, TOLERANCE_MS, Timestamp};
use crate::window::Window;

/// The longest name of a successor, in bytes.
pub const MAX_SUCCESSOR_NAME_LEN: usize = (CACHE_LINE_WORDS - 1) * size_of::<u64>();

/// Something that a migration cannot carry over to the new gate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotCarried {
    /// The new gate's number of keys is not a whole multiple of the old one's.
    Keys {
        /// The old gate's number of keys.
        old: u32,
        /// The new gate's number of keys.
        new: u32,
    },
    /// The new gate does not have a plan of this name, which a key or team has.
    Plan(Text<16>),
    /// The new gate does not have a scope of this name, which a key has.
    Scope(Text<16>),
    /// The new gate has room for fewer teams than there are accounts.
    Teams {
        /// The number of teams that it has room for.
        teams: u32,
    },
    /// The new gate cannot keep the state or the limits of the team of this account.
    Team {
        /// The account.
        account: u32,
    },
    /// The gate has imported keys and was enlarged twice since the first of them, or it would
    /// become more than 255 times as large.
    ImportedKeys,
    /// The record with this number is damaged.
    Damaged {
        /// The number.
        record: u32,
    },
    /// The new gate does not count in this window, so its counts end.
    Window {
        /// The section of the window.
        section: Section,
        /// The window.
        window: Window,
    },
}

impl NotCarried {
    /// Returns whether it prevents the migration. Only the counts of windows do not.
    pub const fn prevents(&self) -> bool {
        !matches!(self, Self::Window { .. })
    }
}

impl fmt::Display for NotCarried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keys { old, new } => write!(
                f,
                "the new gate has room for {new} keys, which is not a whole multiple of {old}"
            ),
            Self::Plan(name) => write!(f, "keys or teams have the plan \"{name}\", which the new gate lacks"),
            Self::Scope(name) => write!(f, "keys have the scope \"{name}\", which the new gate lacks"),
            Self::Teams { teams } => {
                write!(f, "the new gate has room for {teams} teams, and there are more accounts")
            }
            Self::Team { account } => write!(
                f,
                "account {account} is suspended or has limits of its own, which the new gate cannot keep"
            ),
            Self::ImportedKeys => f.write_str(
                "imported keys can be found after at most two enlargements, each by a factor of at most 255; create a gate with more keys, and import and issue the keys again",
            ),
            Self::Damaged { record } => write!(f, "record {record} is damaged"),
            Self::Window { section, window } => write!(
                f,
                "the new gate does not count per {window} in the section {}, so these counts end",
                section.name()
            ),
        }
    }
}

impl core::error::Error for NotCarried {}

/// What the header of a gate names as its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Successor {
    /// The random number of the successor: that of its [`GateConfig`].
    pub id: u64,
    /// Whether every tally has been moved.
    pub is_sealed: bool,
    /// Whether the successor replaced the gate at its path. The migration cannot be undone.
    pub is_in_force: bool,
    name: [u8; MAX_SUCCESSOR_NAME_LEN],
}

impl Successor {
    /// Returns whether this gate is the one that was named.
    pub fn is<N: AsRef<[CacheLine]>>(&self, gate: &Gate<N>) -> bool {
        self.id == gate.id()
    }

    /// Returns the name of the successor, as [`Migration::announce`] was given it.
    pub fn name(&self) -> &[u8] {
        self.name.split(|&byte| byte == 0).next().unwrap_or_default()
    }
}

impl<M: AsRef<[CacheLine]>> Gate<M> {
    /// Creates the successor of a gate, to which a [`Migration`] moves the keys of the old one. It
    /// does not open as a gate before that has ended.
    ///
    /// # Errors
    /// Those of [`init`](Self::init).
    pub fn init_successor<O: AsRef<[CacheLine]>>(
        memory: M,
        config: &GateConfig<'_>,
        old: &Gate<O>,
    ) -> Result<Self, CreateError> {
        let factors = old.factors_for(config.keys).unwrap_or([0; 2]);
        Self::init_kind(memory, config, old.peppers.clone(), (TableKind::Successor, factors))
    }

    /// Opens the successor of a gate, also one that is a gate by now.
    ///
    /// # Errors
    /// Those of [`attach`](Self::attach).
    pub fn attach_successor<O: AsRef<[CacheLine]>>(
        memory: M,
        old: &Gate<O>,
    ) -> Result<Self, AttachError> {
        let is_gate = Header::read(memory.as_ref(), TableKind::Gate).is_ok();
        let kind = if is_gate { TableKind::Gate } else { TableKind::Successor };
        Self::attach_kind(memory, old.peppers.clone(), kind)
    }

    /// Returns whether the gate is being migrated, or was. A key that this gate refuses may then be
    /// valid in its successor, once that is at the path of this gate.
    #[inline]
    pub fn is_migrating(&self) -> bool {
        self.redo().has_successor()
    }

    /// Returns what the gate names as its successor; `None` if it is not being migrated.
    pub fn successor(&self) -> Option<Successor> {
        let ([id, words @ ..], is_sealed, is_in_force) = self.redo().successor()?;
        let mut name = [0; MAX_SUCCESSOR_NAME_LEN];
        for (bytes, word) in name.chunks_exact_mut(size_of::<u64>()).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Some(Successor { id, is_sealed, is_in_force, name })
    }

    /// Returns the factors by which migrations enlarged a gate with imported keys, for a successor
    /// of this many keys; `None` if it cannot keep them.
    fn factors_for(&self, keys: u32) -> Option<[u8; 2]> {
        let has_imported = self.memory.as_ref()[PEPPER_LINE].load(LIST_WORD) & IMPORTED_FLAG != 0;
        match (keys.checked_div(self.capacity)?, self.import_factors) {
            _ if !has_imported => Some([0; 2]),
            (1, factors) => Some(factors),
            (factor, [last, 0]) => Some([u8::try_from(factor).ok()?, last]),
            _ => None,
        }
    }

    /// Returns the tallies of a line that are not in another one: of a record, or of a team.
    fn moved_tallies<'m>(
        &'m self,
        at: RecordRef<'m>,
    ) -> impl Iterator<Item = (&'m Section, &'m AtomicU64, &'m Layout)> {
        let team = at.number.checked_sub(self.capacity);
        let own = (0..self.tally_count()).filter(move |&it| self.is_shared(it) == team.is_some());
        own.filter_map(move |tally| {
            let (atomic, layout) = self.tally_word(at, team, tally)?;
            Some((self.section_of(tally), atomic, layout))
        })
    }

    /// Returns whether a tally of this section counts in this window.
    fn counts_in(&self, section: &Section, window: Window) -> bool {
        let number = self.sections().iter().position(|own| own == section);
        let mut layouts = number.into_iter().flat_map(|number| self.layouts_of(number));
        layouts.any(|layout| layout.windows().contains(&window))
    }

    /// Returns whether a charge of this gate names the same tallies in the other one.
    fn has_tallies_of<N: AsRef<[CacheLine]>>(&self, other: &Gate<N>) -> bool {
        self.tally_count() == other.tally_count()
            && (0..self.tally_count()).all(|tally| {
                let (own, its) = (self.layout_of(tally), other.layout_of(tally));
                self.section_of(tally) == other.section_of(tally)
                    && own.windows() == its.windows()
                    && own.algorithm() == its.algorithm()
            })
    }
}

impl<M: AsRef<[CacheLine]>> Administrator<'_, M> {
    /// Begins or continues the migration to `new`, which
    /// [`Gate::init_successor`] created.
    pub fn migration<'m, N: AsRef<[CacheLine]>>(&'m self, new: &'m Gate<N>) -> Migration<'m, M, N> {
        Migration { old: self.gate, new }
    }

    /// Undoes a migration whose successor was lost. Every tally counts again.
    ///
    /// The time of the last charge of a sealed tally is not known, so its counts are those of the
    /// windows of the time of this call.
    pub fn undo_migration(&mut self, clock: impl Clock) {
        let stamp_of = |layout: &Layout| layout.stamp_at(clock.reading());
        for (tally, layout) in self.gate.all_tallies() {
            let word = tally.load(Ordering::Acquire);
            if layout.is_reservation(word) {
                tally.store(layout.with_stamp(word, stamp_of(layout)), Ordering::Release);
            }
        }
        self.gate.redo().withdraw();
    }
}

/// The migration of a gate to its successor. Its steps are those of the table in
/// `core/src/gate/migration.rs`.
#[derive(Debug)]
pub struct Migration<'m, M, N> {
    old: &'m Gate<M>,
    new: &'m Gate<N>,
}

impl<M: AsRef<[CacheLine]>, N: AsRef<[CacheLine]>> Migration<'_, M, N> {
    /// Copies the records, scopes and teams to the successor, and reports what cannot be carried
    /// over. The old gate is not changed.
    ///
    /// If anything that [prevents](NotCarried::prevents) the migration was reported, the successor
    /// is not complete and must be discarded. An element may be reported more than once.
    pub fn copy(&self, mut report: impl FnMut(NotCarried)) {
        let Self { old, new } = *self;
        if !new.capacity.is_multiple_of(old.capacity) {
            return report(NotCarried::Keys { old: old.capacity, new: new.capacity });
        }
        if old.factors_for(new.capacity).is_none() {
            report(NotCarried::ImportedKeys);
        }
        for tally in 0..old.tally_count() {
            let section = old.section_of(tally);
            let layout = old.shape_of(tally).map_or(&old.layout, |shape| &shape.layout);
            for &window in layout.windows().iter().filter(|it| !new.counts_in(section, **it)) {
                report(NotCarried::Window { section: *section, window });
            }
        }
        let (from, to) = (old.memory.as_ref(), new.memory.as_ref());
        for word in (0..KEPT_PEPPERS).chain([LIST_WORD]) {
            to[PEPPER_LINE].store(word, from[PEPPER_LINE].load(word));
        }
        // The counts of uses are in memory that has a line for each record of the old gate.
        new.set_usage_generation(0);
        for env in 0..MAX_ENVS {
            let (line, word) = (ENV_LINE + env / CACHE_LINE_WORDS, env % CACHE_LINE_WORDS);
            to[line].store(word, from[line].load(word));
        }
        for team in old.team_numbers().filter_map(|number| old.team(number)) {
            self.copy_team(team, &mut report);
        }
        for at in old.records() {
            match at.read() {
                Some(Record { key_id: None, .. }) => {}
                Some(record) => self.copy_record(at, record, &mut report),
                None => report(NotCarried::Damaged { record: at.number }),
            }
        }
    }

    fn copy_team(&self, team: Team, report: &mut impl FnMut(NotCarried)) {
        if self.new.team_capacity() == 0 {
            if team.is_suspended || team.limits.is_some() {
                report(NotCarried::Team { account: team.account });
            }
            return;
        }
        let plan = self.plan(team.plan, report);
        let limits = team.limits.map(|own| self.team_limits(&own));
        if limits == Some(None) {
            report(NotCarried::Team { account: team.account });
        }
        self.team(Team { plan, limits: limits.flatten(), ..team }, report);
    }

    /// Returns the number of an account's team in the successor, which is made if there is none.
    fn team(&self, team: Team, report: &mut impl FnMut(NotCarried)) -> u32 {
        match self.new.find_team(team.account) {
            Ok(number) => number,
            Err(Some(number)) => {
                self.new.write_team(number, team);
                number
            }
            Err(None) => {
                report(NotCarried::Teams { teams: self.new.team_capacity() });
                0
            }
        }
    }

    /// Returns the limits of a team's own, by the windows of the successor; `None` if the old gate
    /// does not have all of these windows, or if a limit is too large.
    fn team_limits(&self, own: &[Limits; MAX_TEAM_TALLIES]) -> Option<[Limits; MAX_TEAM_TALLIES]> {
        let Self { old, new } = *self;
        let layouts = |sections: &[Section]| sections.iter().position(|it| *it == Section::Team);
        let (from, to) = (layouts(old.sections())?, layouts(new.sections())?);
        let mut limits = [Limits([u32::MAX; MAX_QUOTAS]); MAX_TEAM_TALLIES];
        for (limits, layout) in limits.iter_mut().zip(new.layouts_of(to)) {
            for (index, window) in layout.windows().iter().enumerate() {
                let mut its = old.layouts_of(from).zip(own).filter_map(|(layout, own)| {
                    let index = layout.windows().iter().position(|other| other == window)?;
                    Some(own.0[index])
                });
                limits.0[index] = its.next().filter(|&it| Some(it) <= layout.max_limit(index))?;
            }
        }
        Some(limits)
    }

    /// Returns the number of a plan of the old gate in the successor.
    fn plan(&self, number: u8, report: &mut impl FnMut(NotCarried)) -> u8 {
        let name = self.old.plan(number).map(|plan| plan.name);
        let found = name.as_ref().and_then(|name| self.new.plan_named(name).ok());
        found.unwrap_or_else(|| {
            report(NotCarried::Plan(name.unwrap_or_default()));
            0
        })
    }

    fn copy_record(
        &self,
        at: RecordRef<'_>,
        mut record: Record,
        report: &mut impl FnMut(NotCarried),
    ) {
        let Self { old, new } = *self;
        let Some(key_id) = record.key_id else { return };
        if old.record_of(key_id).number != at.number {
            return report(NotCarried::Damaged { record: at.number });
        }
        record.plan = self.plan(record.plan, report);
        let mut scopes = 0;
        let entry = old.entry_now(at.number);
        let had = old.scopes().enumerate().filter(|(number, _)| entry.scopes >> number & 1 == 1);
        for (_, scope) in had {
            match new.scope_bit(&scope) {
                Some(bit) => scopes |= bit,
                None => report(NotCarried::Scope(scope)),
            }
        }
        let mut team = 0;
        if new.team_capacity() > 0 {
            let first = Team {
                account: record.account,
                is_suspended: false,
                plan: record.plan,
                limits: None,
            };
            team = self.team(first, report) + 1;
        }
        let at_new = new.record_of(key_id);
        at_new.store_unshared(record);
        new.store_entry(at_new, Entry { scopes, team }, old.hint(at.number));
    }

    /// Names the successor in the header of the old gate, so that the next administrator finds it.
    /// `name` has at most [`MAX_SUCCESSOR_NAME_LEN`] bytes. Returns whether that is so; otherwise
    /// nothing is changed.
    pub fn announce(&self, name: &[u8]) -> bool {
        if name.is_empty() || name.len() > MAX_SUCCESSOR_NAME_LEN || name.contains(&0) {
            return false;
        }
        let mut words = [self.new.id(), 0, 0, 0, 0, 0, 0, 0];
        for (word, bytes) in words[1..].iter_mut().zip(name.chunks(size_of::<u64>())) {
            let mut padded = [0; size_of::<u64>()];
            padded[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(padded);
        }
        self.old.redo().announce(&words);
        true
    }

    /// Seals every tally of the old gate and moves it to the successor. It continues where a killed
    /// administrator stopped.
    pub fn seal(&self, clock: impl Clock) {
        let old = self.old;
        let begun = self.new.redo().pending();
        let lines = old.capacity + old.team_capacity();
        for number in begun.unwrap_or(0)..lines {
            if let Some(at) = old.line_of(number) {
                self.move_line(at, begun == Some(number), clock);
            }
        }
        old.redo().set_sealed();
    }

    /// Moves the tallies of a line. `is_begun` is whether a killed administrator had begun to.
    fn move_line(&self, at: RecordRef<'_>, is_begun: bool, clock: impl Clock) {
        let Self { old, new } = *self;
        let target = match at.number.checked_sub(old.capacity) {
            None => at.key_id().map(|key_id| Some(new.record_of(key_id))),
            Some(number) => old.team(number).map(|team| {
                let number = new.find_team(team.account).ok();
                number.and_then(|number| new.team_at(number))
            }),
        };
        // A line without a key or team is not charged. If the successor has no teams, the tallies
        // are sealed nevertheless.
        let Some(target) = target else { return };
        let notes = new.redo();
        if !is_begun {
            notes.begin_line(at.number);
            stop(Stop::LineBegun);
        }
        let mut words = Vec::<(&Section, &Layout, u64), MAX_TALLIES>::new();
        for (index, (section, atomic, layout)) in old.moved_tallies(at).enumerate() {
            let word = seal(atomic, layout, |word| {
                notes.words.store(index, word);
                stop(Stop::TallyNoted);
            });
            let word = match word {
                Some(word) => word,
                None if is_begun => notes.words.load(index),
                // The file of the successor lost what was moved, as in a power failure.
                None => {
                    let sealed = atomic.load(Ordering::Acquire);
                    layout.with_stamp(sealed, layout.stamp_at(clock.reading()))
                }
            };
            // There is room for every tally of a gate.
            let _ = words.push((section, layout, word));
        }
        let moved = target.into_iter().flat_map(|target| new.moved_tallies(target));
        for (section, atomic, layout) in moved {
            let its = words.iter().filter(|(own, ..)| *own == section);
            let word = layout.carried(its.map(|&(_, layout, word)| (layout, word)));
            atomic.store(word, Ordering::Release);
            stop(Stop::TallyMoved);
        }
    }

    /// Makes the successor a gate that opens. Every tally must be sealed. If a killed administrator
    /// did so before, it does nothing.
    pub fn publish(&self, clock: impl Clock) {
        let Self { old, new } = *self;
        if Header::read(new.memory.as_ref(), TableKind::Gate).is_ok() {
            return;
        }
        let mut from = old.refunds_from();
        if !new.has_tallies_of(old) {
            let now = clock.at_least(clock.reading()).unix_ms();
            from = from.max(Timestamp::from_unix_ms(now.saturating_add(TOLERANCE_MS)));
        }
        let line = &new.memory.as_ref()[PEPPER_LINE];
        line.store(ADMINISTRATOR_WORD, from.unix_ms() << 1);
        new.redo().withdraw();
        Header::promote(new.memory.as_ref());
    }

    /// Records in the old gate that the successor replaced it at its path. A process that opens the
    /// old gate by another name then finds that it is not in force.
    pub fn finish(&self) {
        self.old.redo().set_replaced();
    }
}

/// Exchanges a tally for its seal, and returns the last word that it had; `None` if it was sealed
/// before. `note` stores each word that the exchange is tried with.
fn seal(atomic: &AtomicU64, layout: &Layout, note: impl Fn(u64)) -> Option<u64> {
    let mut word = atomic.load(Ordering::Acquire);
    loop {
        if layout.is_reservation(word) {
            return None;
        }
        note(word);
        match compare_exchange::exchange(atomic, word, layout.sealed(word)) {
            Ok(()) => {
                stop(Stop::TallySealed);
                return Some(word);
            }
            Err(present) => word = present,
        }
    }
}
