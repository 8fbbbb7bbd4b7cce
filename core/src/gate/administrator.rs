//! The administrator, which alone may change a gate's keys and plans. Checks run concurrently.

use super::admin_error::AdminError;
use super::entry::Entry;
use super::flaws::Flaw;
use super::ids::RecordIds;
use super::new_key::{Entropy, NewKey};
use super::plan::Plan;
use super::table::{
    ADMINISTRATOR_WORD, ENV_LINE, Gate, IMPORTED_FLAG, LIST_WORD, MAX_ENVS, PEPPER_LINE, REGISTERED,
};
use super::team::Team;
use crate::bits::scale;
use crate::cache_line::{CACHE_LINE_WORDS, CacheLine};
use crate::compare_exchange;
use crate::features::Feature;
use crate::key::{self, Hint, Key, KeyId, Name};
use crate::mac::{KEPT_PEPPERS, MAX_PEPPERS, Pepper};
use crate::record::{KeyState, Record, RecordRef, stored_s};
use crate::stop::{Stop, stop};
use crate::sync::Ordering;
use crate::time::{Clock, Timestamp};

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
        Administrator { gate: self, recovered }
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
        let gate = self.gate;
        let mut now = clock.reading();
        let records = u64::from(gate.capacity);
        let start = scale(entropy.id(), records);
        let candidates = (start..records).chain(0..start).map(|number| gate.record(number));
        let at = self
            .vacant(candidates, &mut now, clock)
            .ok_or(AdminError::Full { keys: gate.capacity })?;
        // The id is drawn again, from the ids of the record that was found.
        let key_id = RecordIds::new(at.number, gate.capacity)
            .id_at(entropy.id().wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let key = Key::mint(gate.prefix, new.env, key_id, entropy.secret())
            .ok_or(AdminError::NamesTooLong)?;
        self.add(at, key_id, key.expose().as_bytes(), new, now)?;
        Ok((key, key_id))
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
        let key = self.next_key(key_id, force, &entropy, now)?;
        let (at, mut record) = self.active(key_id)?;
        let (number, pepper) = self.newest_pepper(now)?;
        self.register_pepper(number, pepper);
        record.previous = record.tag;
        record.previous_pepper = record.pepper;
        record.grace_until = stored_s(grace_until);
        record.tag = pepper.mac(key.expose().as_bytes()).tag();
        record.pepper = number;
        self.write(at, record, key.hint().last_to_word());
        Ok(key)
    }

    /// Returns the key that [`rotate`](Self::rotate) would make of the same entropy, and changes
    /// nothing. It is for callers that must deliver the key first, since a rotation cannot be
    /// undone.
    ///
    /// # Errors
    /// Those of [`rotate`](Self::rotate).
    pub fn next_key(
        &self,
        key_id: KeyId,
        force: bool,
        entropy: &Entropy,
        now: Timestamp,
    ) -> Result<Key, AdminError> {
        let (_, record) = self.active(key_id)?;
        if let Some(until) = record.previous_until(now)
            && !force
        {
            return Err(AdminError::InGrace { key_id, until });
        }
        self.newest_pepper(now)?;
        let env = self.gate.env(record.env).ok_or(AdminError::Damaged(key_id))?;
        Key::mint(self.gate.prefix, env, key_id, entropy.secret()).ok_or(AdminError::NamesTooLong)
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
        let (at, mut record) = self.active(key_id)?;
        record.plan = self.plan_number(plan)?;
        self.write(at, record, self.gate.hint(at.number));
        Ok(())
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
    /// program that keeps such a list. It is below 2^63.
    pub fn set_applied_sequence(&mut self, number: u64) {
        let line = &self.gate.memory.as_ref()[PEPPER_LINE];
        line.store(LIST_WORD, number << 1 | (line.load(LIST_WORD) & IMPORTED_FLAG));
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

    /// Writes a new key into the record.
    pub(super) fn add(
        &self,
        at: RecordRef<'_>,
        key_id: KeyId,
        text: &[u8],
        new: &NewKey<'_>,
        now: Timestamp,
    ) -> Result<(), AdminError> {
        // Every error is returned before anything is written.
        let plan = new.plan.map_or(Ok(0), |plan| self.plan_number(plan))?;
        let (number, pepper) = self.newest_pepper(now)?;
        let env = self.env_number(new.env)?;
        let scopes = self.scope_bits(new.scopes)?;
        let team = self.team_number(new.account)?;
        self.register_pepper(number, pepper);
        self.register_env(env, new.env);
        if Feature::ImportedKeys.is_included() && key::parse(text).is_err() {
            // Before the key is written: checks search for imported keys only if this is set.
            let line = &self.gate.memory.as_ref()[PEPPER_LINE];
            line.store(LIST_WORD, line.load(LIST_WORD) | IMPORTED_FLAG);
            stop(Stop::ImportsRecorded);
        }
        let mut record =
            Record::new(key_id, pepper.mac(text).tag(), number, new.account, plan, env);
        record.expires = stored_s(new.expires);
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
        if let Some((number, true)) = team {
            self.make_team(number, new.account, plan, now);
        }
        let entry = Entry { scopes, team: team.map_or(0, |(number, _)| number + 1) };
        self.gate.write(at, record, Hint::new(text).last_to_word(), entry);
        Ok(())
    }

    /// Replaces a record and keeps its entry.
    fn write(&self, at: RecordRef<'_>, record: Record, hint: u32) {
        self.gate.write(at, record, hint, self.gate.entry_now(at.number));
    }

    /// Returns the bits of scopes.
    fn scope_bits(&self, names: &[&str]) -> Result<u64, AdminError> {
        let bits = names.iter().map(|name| self.gate.scope_bit(name));
        bits.map(|bit| bit.ok_or(AdminError::NoSuchScope)).try_fold(0, |all, bit| Ok(all | bit?))
    }

    /// Returns the number of an account's team, and whether it must be made; `None` if the gate has
    /// no teams.
    fn team_number(&self, account: u32) -> Result<Option<(u32, bool)>, AdminError> {
        match self.gate.team_capacity() {
            0 => Ok(None),
            teams => match self.gate.find_team(account) {
                Ok(number) => Ok(Some((number, false))),
                Err(Some(number)) => Ok(Some((number, true))),
                Err(None) => Err(AdminError::TeamsFull { teams }),
            },
        }
    }

    /// Makes the team of an account, with the plan of its first key.
    fn make_team(&self, number: u32, account: u32, plan: u8, now: Timestamp) {
        for (tally, layout) in self.gate.team_tallies(number) {
            tally.store(layout.unused(layout.stamp_at(now)), Ordering::Release);
        }
        let team = Team { account, is_suspended: false, plan, limits: None };
        self.gate.write_team(number, team);
        stop(Stop::TeamMade);
    }

    fn active(&self, key_id: KeyId) -> Result<(RecordRef<'_>, Record), AdminError> {
        let (at, record) = self.gate.find(key_id).ok_or(AdminError::NoSuchKey(key_id))?;
        match record.state {
            KeyState::Active => Ok((at, record)),
            KeyState::Revoked => Err(AdminError::Revoked(key_id)),
        }
    }

    pub(super) fn plan_number(&self, name: &str) -> Result<u8, AdminError> {
        self.gate.plan_named(name).map_err(|_| AdminError::NoSuchPlan)
    }

    /// Returns the number of an environment, or the number that it will get.
    fn env_number(&self, env: Name) -> Result<u8, AdminError> {
        let numbers = 0..u8::try_from(MAX_ENVS).unwrap_or(u8::MAX);
        let free_or_its = |&number: &u8| self.gate.env(number).is_none_or(|other| other == env);
        numbers.into_iter().find(free_or_its).ok_or(AdminError::EnvsFull)
    }

    fn register_env(&self, number: u8, env: Name) {
        let number = usize::from(number);
        let line = &self.gate.memory.as_ref()[ENV_LINE + number / CACHE_LINE_WORDS];
        line.store(number % CACHE_LINE_WORDS, env.to_word());
        stop(Stop::EnvRegistered);
    }

    /// Returns the newest pepper and its number. If it has none yet, the number is the one that it
    /// will get: a free one, or that of a pepper that no key needs any longer.
    fn newest_pepper(&self, now: Timestamp) -> Result<(u8, &Pepper), AdminError> {
        let gate = self.gate;
        let pepper = gate.peppers.newest();
        let line = &gate.memory.as_ref()[PEPPER_LINE];
        let number = (0..KEPT_PEPPERS)
            .find(|&number| line.load(number) == pepper.fingerprint())
            .or_else(|| (0..KEPT_PEPPERS).find(|&number| line.load(number) == 0))
            .or_else(|| self.unneeded_pepper(now));
        let number =
            number.and_then(|number| u8::try_from(number).ok()).ok_or(AdminError::PeppersFull)?;
        Ok((number, pepper))
    }

    /// Returns the number of a pepper that no key needs any longer.
    fn unneeded_pepper(&self, now: Timestamp) -> Option<usize> {
        if !Feature::PepperRotation.is_included() {
            return None;
        }
        let mut needed = [false; MAX_PEPPERS];
        for record in
            self.gate.records().filter_map(RecordRef::read).filter(|record| !record.has_ended(now))
        {
            needed[usize::from(record.pepper)] = true;
            needed[usize::from(record.previous_pepper)] |= record.is_in_grace(now);
        }
        needed.iter().position(|&needed| !needed)
    }

    fn register_pepper(&self, number: u8, pepper: &Pepper) {
        self.gate.memory.as_ref()[PEPPER_LINE].store(usize::from(number), pepper.fingerprint());
        stop(Stop::PepperRegistered);
    }
}
