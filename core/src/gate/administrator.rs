//! The administrator, which alone may change a gate's keys and plans. Checks run concurrently.

use super::admin_error::AdminError;
use super::entry::Entry;
use super::flaws::Flaw;
use super::new_key::{Entropy, NewKey};
use super::plan::Plan;
use super::table::{ADMINISTRATOR_WORD, Gate, LIST_WORD, PEPPER_LINE, REGISTERED, SEQUENCE_SHIFT};
use crate::cache_line::CacheLine;
use crate::compare_exchange;
use crate::key::{Key, KeyId};
use crate::record::{KeyState, Record, RecordRef, stored_s};
use crate::stop::{Stop, stop};
use crate::sync::Ordering;
use crate::time::{Clock, Timestamp};
use crate::usage::Usage;

impl<M: AsRef<[CacheLine]>> Gate<M> {
    /// Begins administration, and completes a change that a killed administrator left half-done.
    ///
    /// # Errors
    /// [`AdminError::Busy`] while there is another administrator. If that one may have been killed,
    /// and a lock of the caller's proves that no administrator runs, use
    /// [`take_over`](Self::take_over).
    pub fn administer(&self) -> Result<Administrator<'_, M>, AdminError> {
        let line = &self.memory.as_ref()[PEPPER_LINE];
        // Only an administrator changes the other bits.
        let free = line.load(ADMINISTRATOR_WORD) & !REGISTERED;
        match line.compare_exchange(ADMINISTRATOR_WORD, free, free | REGISTERED) {
            Ok(()) => Ok(self.take_over()),
            Err(_) => Err(AdminError::Busy),
        }
    }

    /// Begins administration although another administrator is registered, and completes a change
    /// that it left half-done. The caller must hold a lock that admits one administrator at a time,
    /// such as that of a file.
    pub fn take_over(&self) -> Administrator<'_, M> {
        let line = &self.memory.as_ref()[PEPPER_LINE];
        line.store(ADMINISTRATOR_WORD, line.load(ADMINISTRATOR_WORD) | REGISTERED);
        stop(Stop::AdministratorEntered);
        // A gate that is being migrated has none: see `migration.rs`.
        let pending = self.redo().pending();
        if let Some(number) = pending {
            match self.line_of(number) {
                Some(at) => self.redo().recover(at, self),
                None => self.redo().discard(),
            }
        }
        let recovered = self.complete_plan() | pending.is_some();
        stop(Stop::AdministratorRecovered);
        Administrator { gate: self, recovered, usage: None }
    }
}

/// The administrator of a gate, which alone may change its keys and plans. There is one at a time.
///
/// Every change is atomic, also if the process is killed in the middle of it: the next
/// administrator completes it.
#[derive(Debug)]
pub struct Administrator<'g, M: AsRef<[CacheLine]>> {
    pub(super) gate: &'g Gate<M>,
    recovered: bool,
    /// Where each new key gets a line for the counts of its uses.
    pub(super) usage: Option<Usage<'g>>,
}

impl<M: AsRef<[CacheLine]>> Drop for Administrator<'_, M> {
    fn drop(&mut self) {
        stop(Stop::AdministratorLeaving);
        let line = &self.gate.memory.as_ref()[PEPPER_LINE];
        line.store(ADMINISTRATOR_WORD, line.load(ADMINISTRATOR_WORD) & !REGISTERED);
    }
}

impl<M: AsRef<[CacheLine]>> Administrator<'_, M> {
    /// Returns whether this administrator completed a change that a killed one had begun.
    pub fn has_recovered(&self) -> bool {
        self.recovered
    }

    /// Issues a key, and returns the only copy of its secret.
    ///
    /// The key gets a free record, or the record of a revoked or expired key whose windows have all
    /// passed.
    ///
    /// # Errors
    /// [`AdminError::Full`], [`NoSuchPlan`](AdminError::NoSuchPlan),
    /// [`EnvsFull`](AdminError::EnvsFull), [`NamesTooLong`](AdminError::NamesTooLong),
    /// [`PeppersFull`](AdminError::PeppersFull).
    pub fn issue(
        &mut self,
        new: &NewKey<'_>,
        entropy: Entropy,
        clock: impl Clock,
    ) -> Result<(Key, KeyId), AdminError> {
        let (key, record) = self.prepare_issue(new, &entropy, clock)?;
        self.put(&record, clock)?;
        Ok((key, record.key_id))
    }

    /// Imports a key of any form that was issued elsewhere, so that its holder keeps it. A key of
    /// Keytally's form keeps its key id and its environment.
    ///
    /// # Errors
    /// [`AdminError::NotImportable`], [`AlreadyImported`](AdminError::AlreadyImported),
    /// [`NoRoomToImport`](AdminError::NoRoomToImport), and those of [`issue`](Self::issue) but
    /// [`Full`](AdminError::Full). [`LeftOut`](AdminError::LeftOut) for a key of another form, if
    /// this build has none.
    pub fn import(
        &mut self,
        text: &[u8],
        new: &NewKey<'_>,
        clock: impl Clock,
    ) -> Result<KeyId, AdminError> {
        let record = self.prepare_import(text, new, clock)?;
        self.put(&record, clock)?;
        Ok(record.key_id)
    }

    /// Gives a key a new secret, and returns it. The old secret stays valid until `grace_until`,
    /// kept as whole seconds, rounded up; `None` ends it at once. Both spend the same quota.
    ///
    /// A key has two secrets at most. If the one before the last rotation is still valid, this
    /// rotation would end it at once, so it is an error unless `force` is set. The new secret is
    /// stored under the newest pepper.
    ///
    /// # Errors
    /// [`AdminError::NoSuchKey`], [`Revoked`](AdminError::Revoked),
    /// [`InGrace`](AdminError::InGrace), [`PeppersFull`](AdminError::PeppersFull),
    /// [`NamesTooLong`](AdminError::NamesTooLong) for a key that was imported into a longer
    /// environment name than the prefix leaves room for, [`Damaged`](AdminError::Damaged).
    pub fn rotate(
        &mut self,
        key_id: KeyId,
        grace_until: Option<Timestamp>,
        force: bool,
        entropy: Entropy,
        clock: impl Clock,
    ) -> Result<Key, AdminError> {
        let now = clock.reading();
        let (key, record) = self.prepare_rotation(key_id, grace_until, force, &entropy, now)?;
        self.put(&record, clock)?;
        Ok(key)
    }

    /// Ends the previous secret of a key at once, without waiting for the end of its grace.
    ///
    /// # Errors
    /// [`AdminError::NoSuchKey`], [`Revoked`](AdminError::Revoked).
    pub fn end_grace(&mut self, key_id: KeyId) -> Result<(), AdminError> {
        self.change(key_id, |record| record.grace_until = 0)
    }

    /// Sets the moment from which a key is no longer valid, kept as whole seconds, rounded up;
    /// `None` for never. A moment that has passed ends the key at once. An expired key is valid
    /// again if the moment is in the future and no other key has got its record.
    ///
    /// # Errors
    /// [`AdminError::NoSuchKey`], [`Revoked`](AdminError::Revoked).
    pub fn expire(
        &mut self,
        key_id: KeyId,
        not_after: Option<Timestamp>,
    ) -> Result<(), AdminError> {
        self.change(key_id, |record| record.expires = stored_s(not_after))
    }

    /// Ends a key and its previous secret at once: the next check in any process sees it.
    ///
    /// The record stays in the list until another key needs it. Revoking a revoked key changes
    /// nothing.
    ///
    /// # Errors
    /// [`AdminError::NoSuchKey`].
    pub fn revoke(&mut self, key_id: KeyId) -> Result<(), AdminError> {
        let (at, mut record) = self.gate.find(key_id).ok_or(AdminError::NoSuchKey(key_id))?;
        record.state = KeyState::Revoked;
        self.write(at, record, self.gate.hint(at.number));
        Ok(())
    }

    /// Replaces the scopes of a key.
    ///
    /// # Errors
    /// [`AdminError::NoSuchKey`], [`Revoked`](AdminError::Revoked),
    /// [`NoSuchScope`](AdminError::NoSuchScope).
    pub fn set_scopes(&mut self, key_id: KeyId, scopes: &[&str]) -> Result<(), AdminError> {
        let (at, record) = self.active(key_id)?;
        let scopes = self.scope_bits(scopes)?;
        let entry = Entry { scopes, ..self.gate.entry_now(at.number) };
        self.gate.write(at, record, self.gate.hint(at.number), entry);
        Ok(())
    }

    /// Moves a key to another plan and keeps its counts.
    ///
    /// # Errors
    /// [`AdminError::NoSuchKey`], [`Revoked`](AdminError::Revoked),
    /// [`NoSuchPlan`](AdminError::NoSuchPlan).
    pub fn assign(&mut self, key_id: KeyId, plan: &str) -> Result<(), AdminError> {
        let plan = self.plan_number(plan)?;
        self.change(key_id, |record| record.plan = plan)
    }

    /// Adds a plan, or changes the limits of the plan with that name. Keys keep their counts.
    ///
    /// # Errors
    /// [`AdminError::PlanWindows`], [`PlanLimit`](AdminError::PlanLimit),
    /// [`PlansFull`](AdminError::PlansFull).
    pub fn set_plan(&mut self, plan: &Plan) -> Result<(), AdminError> {
        let gate = self.gate;
        gate.check_plan(plan)?;
        let number = gate.plan_named(&plan.name).map_or_else(|next| next, usize::from);
        if number >= gate.plan_slots() {
            return Err(AdminError::PlansFull { max: gate.plan_slots() });
        }
        gate.change_plan(number, plan);
        Ok(())
    }

    /// Records the number of the last change of a list of keys that was applied to this gate, for a
    /// program that keeps such a list. It is below 2^48.
    pub fn set_applied_sequence(&mut self, number: u64) {
        let line = &self.gate.memory.as_ref()[PEPPER_LINE];
        let others = line.load(LIST_WORD) & ((1 << SEQUENCE_SHIFT) - 1);
        line.store(LIST_WORD, number << SEQUENCE_SHIFT | others);
    }

    /// Reads the whole gate and reports each flaw. No other administrator changes the gate
    /// meanwhile.
    pub fn verify(&mut self, now: Timestamp, report: impl FnMut(Flaw)) {
        self.gate.verify(now, report);
    }

    /// Returns the first free one of `records`, else the first that can be reused.
    ///
    /// A tally that a wrong clock stamped is corrected, since otherwise its record could not be
    /// reused until the time of the stamp.
    pub(super) fn vacant<'m>(
        &self,
        records: impl Iterator<Item = RecordRef<'m>>,
        now: &mut Timestamp,
        clock: impl Clock,
    ) -> Option<RecordRef<'m>> {
        let mut reusable = None;
        for at in records {
            // A damaged record is not reused.
            let Some(record) = at.read() else { continue };
            if record.key_id.is_none() {
                return Some(at);
            }
            if reusable.is_some() || !record.has_ended(*now) {
                continue;
            }
            // As in a limiter, the windows must have passed by a clock that is 1 s late, too.
            let is_reusable = self.gate.own_tallies(at).all(|(tally, layout)| {
                let word = tally.load(Ordering::Acquire);
                let word = compare_exchange::corrected(tally, word, layout, now, clock);
                layout.is_reusable(word, *now)
            });
            if is_reusable {
                reusable = Some(at);
            }
        }
        reusable
    }

    /// Makes the record of an ended key ready for another key.
    pub(super) fn vacate(&self, at: RecordRef<'_>, now: Timestamp) {
        // The previous key of the record is revoked first. A check that is about to charge that key
        // then detects the change, and the tally that is cleared belongs to no valid key.
        if let Some(mut ended) = at.read().filter(|ended| ended.key_id.is_some()) {
            ended.state = KeyState::Revoked;
            self.write(at, ended, self.gate.hint(at.number));
            stop(Stop::PreviousKeyEnded);
        }
        for (tally, layout) in self.gate.own_tallies(at) {
            tally.store(layout.unused(layout.stamp_at(now)), Ordering::Release);
            stop(Stop::TallyCleared);
        }
    }

    /// Changes the record of an active key.
    fn change(
        &mut self,
        key_id: KeyId,
        change: impl FnOnce(&mut Record),
    ) -> Result<(), AdminError> {
        let (at, mut record) = self.active(key_id)?;
        change(&mut record);
        self.write(at, record, self.gate.hint(at.number));
        Ok(())
    }

    /// Replaces a record and keeps its entry.
    pub(super) fn write(&self, at: RecordRef<'_>, record: Record, hint: u32) {
        self.gate.write(at, record, hint, self.gate.entry_now(at.number));
    }

    /// Returns the bits of scopes.
    pub(super) fn scope_bits(&self, names: &[&str]) -> Result<u64, AdminError> {
        let bits = names.iter().map(|name| self.gate.scope_bit(name));
        bits.map(|bit| bit.ok_or(AdminError::NoSuchScope)).try_fold(0, |all, bit| Ok(all | bit?))
    }

    pub(super) fn active(&self, key_id: KeyId) -> Result<(RecordRef<'_>, Record), AdminError> {
        let (at, record) = self.gate.find(key_id).ok_or(AdminError::NoSuchKey(key_id))?;
        match record.state {
            KeyState::Active => Ok((at, record)),
            KeyState::Revoked => Err(AdminError::Revoked(key_id)),
        }
    }

    pub(super) fn plan_number(&self, name: &str) -> Result<u8, AdminError> {
        self.gate.plan_named(name).map_err(|_| AdminError::NoSuchPlan)
    }
}
