//! The tallies that the agent looks after: their planners, and when each is due.

use alloc::collections::{BTreeSet, BinaryHeap, VecDeque};
use core::cmp::Reverse;
use std::collections::HashMap;

use keytally_core::sync::Ordering;
use keytally_fleet_plan::holding;
use keytally_fleet_plan::lease::Planner;
use keytally_fleet_plan::words::TallyWords;

use crate::machine::{Machine, Subject};
use crate::names::hash;

/// A tally with a planner.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) planner: Planner,
    /// The owner of the tally's words when the planner was made.
    pub(crate) owner: u64,
    is_queued: bool,
    /// When the planner must decide again, and when the heap has it next. `u64::MAX` for never.
    due_ms: u64,
    timer_ms: u64,
}

/// The tallies with planners. A planner is made when its tally wants credits, and dropped when
/// there is nothing to do.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    entries: HashMap<u32, Entry>,
    queue: VecDeque<u32>,
    timers: BinaryHeap<Reverse<(u64, u32)>>,
    /// By the hash of its name, the tally of each subject that was seen, for messages. And of each
    /// tally, the hash of the last name, so that a tally has one.
    names: HashMap<u64, u32>,
    hashes: HashMap<u32, u64>,
}

/// A tally as the gate has it now.
pub(crate) struct Present<'m> {
    pub(crate) subject: Subject,
    pub(crate) words: TallyWords<'m>,
}

/// Returns what the table has at a tally for the windows of `now_ms`. If the words belong to
/// another owner, voids them first.
pub(crate) fn present<M: Machine>(machine: &M, tally: u32, now_ms: u64) -> Option<Present<'_>> {
    let subject = machine.subject_at(tally, now_ms)?;
    let (words, owner) = (machine.words(tally)?, machine.owner(tally)?);
    if owner.load(Ordering::Acquire) != subject.owner {
        // Requests of the new owner spend nothing until its hash is stored.
        holding::void(&words);
        owner.store(subject.owner, Ordering::Release);
    }
    Some(Present { subject, words })
}

impl Tallies {
    /// Returns the entry of a tally, which is made if there is none. `None` if the gate has nothing
    /// there.
    pub(crate) fn entry<M: Machine>(
        &mut self,
        machine: &M,
        tally: u32,
        now_ms: u64,
        seed: u64,
    ) -> Option<(&mut Entry, bool)> {
        let is_new = !self.entries.contains_key(&tally);
        if is_new {
            let Present { subject, .. } = present(machine, tally, now_ms)?;
            self.remember(&subject, tally);
            let entry = Entry {
                planner: Planner::new(seed ^ u64::from(tally).rotate_left(32)),
                owner: subject.owner,
                is_queued: false,
                due_ms: u64::MAX,
                timer_ms: u64::MAX,
            };
            self.entries.insert(tally, entry);
        }
        self.entries.get_mut(&tally).map(|entry| (entry, is_new))
    }

    pub(crate) fn get_mut(&mut self, tally: u32) -> Option<&mut Entry> {
        self.entries.get_mut(&tally)
    }

    /// Remembers whose tally it is, for messages.
    pub(crate) fn remember(&mut self, subject: &Subject, tally: u32) {
        let name = hash(&[&subject.name]);
        if let Some(former) = self.hashes.insert(tally, name).filter(|&former| former != name)
            && self.names.get(&former) == Some(&tally)
        {
            self.names.remove(&former);
        }
        self.names.insert(name, tally);
    }

    /// Returns the tally of a subject that was seen.
    pub(crate) fn named<M: Machine>(
        &self,
        machine: &M,
        name: &str,
        now_ms: u64,
    ) -> Option<(u32, Subject)> {
        let tally = *self.names.get(&hash(&[name]))?;
        let subject = machine.subject_at(tally, now_ms).filter(|subject| subject.name == name)?;
        Some((tally, subject))
    }

    pub(crate) fn all(&self) -> BTreeSet<u32> {
        self.entries.keys().copied().collect()
    }

    /// Lets the planner decide soon.
    pub(crate) fn queue(&mut self, tally: u32) {
        if let Some(entry) = self.entries.get_mut(&tally)
            && !entry.is_queued
        {
            entry.is_queued = true;
            self.queue.push_back(tally);
        }
    }

    pub(crate) fn is_queue_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Returns how many planners are to decide.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Takes the next tally whose planner is to decide.
    pub(crate) fn take(&mut self) -> Option<u32> {
        let tally = self.queue.pop_front()?;
        if let Some(entry) = self.entries.get_mut(&tally) {
            entry.is_queued = false;
        }
        Some(tally)
    }

    /// Sets when the planner of a tally must decide although nothing is reported.
    pub(crate) fn schedule(&mut self, tally: u32, due_ms: Option<u64>) {
        let Some(entry) = self.entries.get_mut(&tally) else { return };
        entry.due_ms = due_ms.unwrap_or(u64::MAX);
        if entry.due_ms < entry.timer_ms {
            entry.timer_ms = entry.due_ms;
            self.timers.push(Reverse((entry.due_ms, tally)));
        }
    }

    /// Queues all tallies that are due. Returns when the next one is.
    pub(crate) fn expire(&mut self, now_ms: u64) -> Option<u64> {
        while let Some(&Reverse((at_ms, tally))) = self.timers.peek() {
            if at_ms > now_ms {
                return Some(at_ms);
            }
            self.timers.pop();
            let Some(entry) = self.entries.get_mut(&tally) else { continue };
            if entry.timer_ms != at_ms {
                continue;
            }
            entry.timer_ms = u64::MAX;
            if entry.due_ms <= now_ms {
                self.queue(tally);
            } else if entry.due_ms < u64::MAX {
                // It was due at this time before, and is due later now.
                let due_ms = entry.due_ms;
                self.schedule(tally, Some(due_ms));
            }
        }
        None
    }

    /// Drops the planners that have nothing to do.
    pub(crate) fn drop_idle(&mut self) {
        self.entries.retain(|_, entry| entry.is_queued || entry.due_ms < u64::MAX);
    }

    pub(crate) fn remove(&mut self, tally: u32) {
        self.entries.remove(&tally);
    }

    /// Forgets all tallies.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}
