//! What a gate keeps of a key, as a value, for programs that keep a list of keys of their own.
//!
//! Such a program gets from the administrator what a change would write (`prepare_…`), commits that
//! to its list, and then [puts](Administrator::put) it into the gate.

use core::fmt;

use super::admin_error::AdminError;
use super::administrator::Administrator;
use super::entry::Entry;
use super::ids::RecordIds;
use super::imported::{IMPORTED_KEY_LEN, import_number};
use super::inspect::needed_peppers;
use super::new_key::{Entropy, NewKey};
use super::plan::MAX_PLAN_NAME_LEN;
use super::table::{ENV_LINE, IMPORTED_FLAG, LIST_WORD, MAX_ENVS, PEPPER_LINE};
use super::team::Team;
use crate::bits::scale;
use crate::cache_line::{CACHE_LINE_WORDS, CacheLine};
use crate::features::Feature;
use crate::key::{self, Hint, Key, KeyId, Name};
use crate::mac::{KEPT_PEPPERS, MAX_PEPPERS, Tag};
use crate::record::{KeyState, Record, RecordRef, moment, stored_s};
use crate::stop::{Stop, stop};
use crate::sync::Ordering;
use crate::text::Text;
use crate::time::{Clock, Timestamp};

/// What a gate keeps of a key: its properties, and the MACs of its secrets, but no secret.
///
/// It names plan and environment, and not their numbers, so that another gate can hold the key too:
/// one with the same prefix, scopes and peppers. An imported key moves only between gates of equal
/// capacity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// The key's public name.
    pub key_id: KeyId,
    /// The team account that the key belongs to.
    pub account: u32,
    /// The environment.
    pub env: Name,
    /// The name of the plan.
    pub plan: Text<MAX_PLAN_NAME_LEN>,
    /// Active or revoked.
    pub state: KeyState,
    /// The moment from which the key is no longer valid, in whole seconds; `None` for never.
    pub expires: Option<Timestamp>,
    /// The moment from which the previous secret is no longer valid, in whole seconds; `None` if it
    /// is not valid.
    pub grace_until: Option<Timestamp>,
    /// The scopes that the key has, one bit each, in the order of the gate's scopes.
    pub scopes: u64,
    /// The last four characters of the key, if the gate keeps them.
    pub last_characters: Option<Text<4>>,
    /// The secret.
    pub secret: StoredSecret,
    /// The secret before the last rotation; `None` before the first one.
    pub previous: Option<StoredSecret>,
    /// Whether the text of the key may have another form than Keytally's.
    pub is_imported: bool,
}

/// What a gate keeps of a secret. Without the pepper, it is of no use. `Debug` does not show it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct StoredSecret {
    /// The first 16 bytes of the secret's HMAC-SHA-256.
    pub tag: [u8; 16],
    /// A number that identifies the pepper under which the HMAC was made, and reveals nothing else
    /// about it.
    pub pepper: u64,
}

impl fmt::Debug for StoredSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredSecret(…)")
    }
}

impl<M: AsRef<[CacheLine]>> Administrator<'_, M> {
    /// Returns the key that [`issue`](Self::issue) would issue, and what it would write. Writes
    /// nothing.
    ///
    /// # Errors
    /// Those of [`issue`](Self::issue).
    ///
    /// ```
    /// # use keytally_core::{CacheLine, Entropy, Gate, GateConfig, Name, NewKey, Peppers, Plan};
    /// # use keytally_core::Timestamp;
    /// # let plans = [Plan::new("default", "100/minute".parse()?).unwrap()];
    /// # let config = GateConfig::new(8, Name::new("kt").unwrap(), &plans);
    /// # let memory: Vec<_> = (0..config.lines()).map(|_| CacheLine::new()).collect();
    /// # let gate = Gate::init(memory, &config, Peppers::new(&[[7; 32]])?)?;
    /// # let now = Timestamp::from_unix_s(1_700_000_000);
    /// let new = NewKey::new(42, Name::new("live").unwrap());
    /// let mut administrator = gate.administer()?;
    /// let (key, record) = administrator.prepare_issue(&new, &Entropy::new([7; 24]), now)?;
    /// assert!(!gate.check(Some(key.expose().as_bytes()), 1, now).is_admitted());
    /// // Here, a program commits the record to its list of keys.
    /// administrator.put(&record, now)?;
    /// assert!(gate.check(Some(key.expose().as_bytes()), 1, now).is_admitted());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn prepare_issue(
        &self,
        new: &NewKey<'_>,
        entropy: &Entropy,
        clock: impl Clock,
    ) -> Result<(Key, KeyRecord), AdminError> {
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
        let record = self.new_record(key_id, key.expose().as_bytes(), new)?;
        self.resolve(&record, now)?;
        Ok((key, record))
    }

    /// Returns what [`import`](Self::import) would write, and writes nothing.
    ///
    /// # Errors
    /// Those of [`import`](Self::import).
    pub fn prepare_import(
        &self,
        text: &[u8],
        new: &NewKey<'_>,
        clock: impl Clock,
    ) -> Result<KeyRecord, AdminError> {
        let gate = self.gate;
        let mut now = clock.reading();
        if !IMPORTED_KEY_LEN.contains(&text.len()) || !text.iter().all(u8::is_ascii_graphic) {
            return Err(AdminError::NotImportable { len: text.len() });
        }
        let record = if let Ok(parts) = key::parse(text) {
            if gate.find(parts.key_id).is_some() {
                return Err(AdminError::AlreadyImported(parts.key_id));
            }
            let at = gate.record_of(parts.key_id);
            self.vacant(core::iter::once(at), &mut now, clock).ok_or(AdminError::NoRoomToImport)?;
            let new = NewKey { env: Name::new(parts.env).unwrap_or(new.env), ..*new };
            self.new_record(parts.key_id, text, &new)?
        } else {
            if !Feature::ImportedKeys.is_included() {
                return Err(AdminError::LeftOut(Feature::ImportedKeys));
            }
            if let Some((_, record, _)) = gate.find_imported(text) {
                return Err(record
                    .key_id
                    .map_or(AdminError::NoRoomToImport, AdminError::AlreadyImported));
            }
            let mac = gate.peppers.newest().mac(text);
            // The emptier of the two groups, so that both stay usable for longer.
            let [one, two] = gate.import_groups(&mac);
            let taken = gate
                .import_groups(&mac)
                .map(|group| group.filter(|at| at.key_id().is_some()).count());
            let at = if taken[1] < taken[0] {
                self.vacant(two.chain(one), &mut now, clock)
            } else {
                self.vacant(one.chain(two), &mut now, clock)
            };
            let at = at.ok_or(AdminError::NoRoomToImport)?;
            let ids = RecordIds::new(at.number, gate.capacity);
            let record = self.new_record(ids.id_ending_with(import_number(&mac)), text, new)?;
            KeyRecord { is_imported: true, ..record }
        };
        self.resolve(&record, now)?;
        Ok(record)
    }

    /// Returns the key that [`rotate`](Self::rotate) would return, and what it would write. Writes
    /// nothing.
    ///
    /// It is also for callers that must deliver the key first, since a rotation cannot be undone.
    ///
    /// # Errors
    /// Those of [`rotate`](Self::rotate).
    pub fn prepare_rotation(
        &self,
        key_id: KeyId,
        grace_until: Option<Timestamp>,
        force: bool,
        entropy: &Entropy,
        now: Timestamp,
    ) -> Result<(Key, KeyRecord), AdminError> {
        let (at, record) = self.active(key_id)?;
        if let Some(until) = record.previous_until(now)
            && !force
        {
            return Err(AdminError::InGrace { key_id, until });
        }
        let before = self.record_at(at, &record).ok_or(AdminError::Damaged(key_id))?;
        let key = Key::mint(self.gate.prefix, before.env, key_id, entropy.secret())
            .ok_or(AdminError::NamesTooLong)?;
        let text = key.expose().as_bytes();
        let after = KeyRecord {
            secret: self.stored(text),
            previous: Some(before.secret),
            grace_until: whole_seconds(grace_until),
            last_characters: self.last_characters(text),
            ..before
        };
        self.resolve(&after, now)?;
        Ok((key, after))
    }

    /// Replaces all that the gate keeps of a key except its counts, or adds the key. Returns
    /// whether that changed the gate.
    ///
    /// A key that the gate does not have is added with counts of 0, to the record that its id
    /// names. If it is revoked, it is not added.
    ///
    /// # Errors
    /// [`AdminError::Revoked`] if the key is revoked in this gate and would be active,
    /// [`NoRoomToImport`](AdminError::NoRoomToImport) if another key has its record,
    /// [`NoSuchPepper`](AdminError::NoSuchPepper), [`NoSuchPlan`](AdminError::NoSuchPlan),
    /// [`NoSuchScope`](AdminError::NoSuchScope), [`EnvsFull`](AdminError::EnvsFull),
    /// [`TeamsFull`](AdminError::TeamsFull), [`PeppersFull`](AdminError::PeppersFull).
    pub fn put(&mut self, key: &KeyRecord, clock: impl Clock) -> Result<bool, AdminError> {
        let mut now = clock.reading();
        let at = self.gate.record_of(key.key_id);
        let current = at.read();
        let its = current.filter(|record| record.key_id == Some(key.key_id));
        if let Some(its) = its {
            if its.state == KeyState::Revoked && key.state == KeyState::Active {
                return Err(AdminError::Revoked(key.key_id));
            }
            if self.record_at(at, &its).is_some_and(|its| self.holds(&its, key)) {
                return Ok(false);
            }
        } else if key.state == KeyState::Revoked {
            return Ok(false);
        } else if current.is_some() {
            // A damaged record is written again.
            let same = core::iter::once(at);
            self.vacant(same, &mut now, clock).ok_or(AdminError::NoRoomToImport)?;
        }
        let numbers = self.resolve(key, now)?;
        self.register(key, &numbers);
        let tag = Tag::from_bytes(key.secret.tag);
        let Numbers { plan, pepper, env, .. } = numbers;
        let mut record = Record::new(key.key_id, tag, pepper, key.account, plan, env);
        record.expires = stored_s(key.expires);
        record.grace_until = stored_s(key.grace_until);
        record.state = key.state;
        if let Some(previous) = key.previous {
            record.previous = Tag::from_bytes(previous.tag);
            record.previous_pepper = numbers.previous_pepper;
        }
        if its.is_none() && current.is_some() {
            self.vacate(at, now);
        }
        if let Some((number, true)) = numbers.team {
            self.make_team(number, key.account, numbers.plan, now);
        }
        if let Some(usage) = self.usage.filter(|_| its.is_none()) {
            usage.assign(at.number, key.key_id);
        }
        let hint = key.last_characters.as_ref().map_or(0, |last| Hint::last_as_word(last));
        let team = numbers.team.map_or(0, |(number, _)| number + 1);
        self.gate.write(at, record, hint, Entry { scopes: key.scopes, team });
        Ok(true)
    }

    /// Returns what the gate keeps of a key; `None` if it does not have the key, or if the record
    /// is damaged.
    pub fn read(&self, key_id: KeyId) -> Option<KeyRecord> {
        let (at, record) = self.gate.find(key_id)?;
        self.record_at(at, &record)
    }

    /// Writes the record of a key again as it is, so that its
    /// [number of writes](crate::Gate::record_writes) rises by 1.
    ///
    /// # Errors
    /// [`AdminError::NoSuchKey`] if the gate does not have the key.
    pub fn write_again(&mut self, key_id: KeyId) -> Result<(), AdminError> {
        let (at, record) = self.gate.find(key_id).ok_or(AdminError::NoSuchKey(key_id))?;
        self.write(at, record, self.gate.hint(at.number));
        Ok(())
    }

    /// Returns what the gate keeps of every key, revoked ones included, without damaged records.
    pub fn records(&self) -> impl Iterator<Item = KeyRecord> {
        self.gate.records().filter_map(|at| self.record_at(at, &at.read()?))
    }

    /// Returns whether the gate has nothing to change if `its` record becomes `key`.
    fn holds(&self, its: &KeyRecord, key: &KeyRecord) -> bool {
        let last_characters = match self.gate.hints_at {
            Some(_) => key.last_characters.clone(),
            None => None,
        };
        let is_imported = its.is_imported | key.is_imported;
        *its == KeyRecord { last_characters, is_imported, ..key.clone() }
    }

    /// Returns a record as a value; `None` if it is free or damaged.
    fn record_at(&self, at: RecordRef<'_>, record: &Record) -> Option<KeyRecord> {
        let gate = self.gate;
        let pepper_line = &gate.memory.as_ref()[PEPPER_LINE];
        let stored = |tag: Tag, pepper: u8| {
            let pepper = pepper_line.load(usize::from(pepper));
            (pepper != 0).then(|| StoredSecret { tag: tag.to_bytes(), pepper })
        };
        let previous = (record.previous.to_bytes() != [0; 16])
            .then(|| stored(record.previous, record.previous_pepper))
            .flatten();
        Some(KeyRecord {
            key_id: record.key_id?,
            account: record.account,
            env: gate.env(record.env)?,
            plan: gate.plan_name(record.plan)?,
            state: record.state,
            expires: record.expiry(),
            grace_until: record.grace_end(),
            scopes: gate.entry_now(at.number).scopes,
            last_characters: Hint::last_from_word(gate.hint(at.number)),
            secret: stored(record.tag, record.pepper)?,
            previous,
            is_imported: pepper_line.load(LIST_WORD) & IMPORTED_FLAG != 0,
        })
    }

    /// Returns the record of a new key.
    fn new_record(
        &self,
        key_id: KeyId,
        text: &[u8],
        new: &NewKey<'_>,
    ) -> Result<KeyRecord, AdminError> {
        let plan = match new.plan {
            Some(name) => Text::from_text(name),
            None => self.gate.plan_name(0),
        };
        Ok(KeyRecord {
            key_id,
            account: new.account,
            env: new.env,
            plan: plan.ok_or(AdminError::NoSuchPlan)?,
            state: KeyState::Active,
            expires: whole_seconds(new.expires),
            grace_until: None,
            scopes: self.scope_bits(new.scopes)?,
            last_characters: self.last_characters(text),
            secret: self.stored(text),
            previous: None,
            is_imported: false,
        })
    }

    /// Returns what the gate keeps of a secret under the newest pepper.
    fn stored(&self, text: &[u8]) -> StoredSecret {
        let pepper = self.gate.peppers.newest();
        StoredSecret { tag: pepper.mac(text).tag().to_bytes(), pepper: pepper.fingerprint() }
    }

    /// Returns the last characters of a key, if the gate keeps them.
    fn last_characters(&self, text: &[u8]) -> Option<Text<4>> {
        let hint = Hint::new(text).last_to_word();
        Hint::last_from_word(if self.gate.hints_at.is_some() { hint } else { 0 })
    }

    /// Returns the numbers by which the gate's record will name what `key` names. They are there,
    /// or free. Writes nothing.
    fn resolve(&self, key: &KeyRecord, now: Timestamp) -> Result<Numbers, AdminError> {
        let plan = self.plan_number(&key.plan)?;
        let pepper = self.pepper_number(key.secret.pepper, None, now)?;
        let previous_pepper = match key.previous {
            Some(previous) if previous.pepper != key.secret.pepper => {
                self.pepper_number(previous.pepper, Some(pepper), now)?
            }
            _ => pepper,
        };
        let env = self.env_number(key.env)?;
        let scopes = u32::try_from(self.gate.scopes().count()).unwrap_or(u64::BITS);
        if key.scopes.checked_shr(scopes).unwrap_or(0) != 0 {
            return Err(AdminError::NoSuchScope);
        }
        let team = self.team_number(key.account)?;
        Ok(Numbers { plan, pepper, previous_pepper, env, team })
    }

    /// Writes the header's words that a record of these numbers needs.
    fn register(&self, key: &KeyRecord, numbers: &Numbers) {
        let line = &self.gate.memory.as_ref()[PEPPER_LINE];
        line.store(usize::from(numbers.pepper), key.secret.pepper);
        if let Some(previous) = key.previous {
            line.store(usize::from(numbers.previous_pepper), previous.pepper);
        }
        stop(Stop::PepperRegistered);
        let env = usize::from(numbers.env);
        let env_line = &self.gate.memory.as_ref()[ENV_LINE + env / CACHE_LINE_WORDS];
        env_line.store(env % CACHE_LINE_WORDS, key.env.to_word());
        stop(Stop::EnvRegistered);
        if Feature::ImportedKeys.is_included() && key.is_imported {
            // Before the key is written: checks search for imported keys only if this is set.
            line.store(LIST_WORD, line.load(LIST_WORD) | IMPORTED_FLAG);
            stop(Stop::ImportsRecorded);
        }
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

    /// Returns the number of an environment, or the number that it will get.
    fn env_number(&self, env: Name) -> Result<u8, AdminError> {
        let numbers = 0..u8::try_from(MAX_ENVS).unwrap_or(u8::MAX);
        let free_or_its = |&number: &u8| self.gate.env(number).is_none_or(|other| other == env);
        numbers.into_iter().find(free_or_its).ok_or(AdminError::EnvsFull)
    }

    /// Returns the number of a pepper. If it has none yet, and this process has the pepper, that is
    /// the number that it will get: a free one, or that of a pepper that no key needs any longer.
    /// `taken` is the number that another pepper will get.
    fn pepper_number(
        &self,
        pepper: u64,
        taken: Option<u8>,
        now: Timestamp,
    ) -> Result<u8, AdminError> {
        let line = &self.gate.memory.as_ref()[PEPPER_LINE];
        let with = |word: u64| {
            let mut numbers = (0..KEPT_PEPPERS).filter(|&number| !is(taken, number));
            numbers.find(|&number| line.load(number) == word)
        };
        let number = match with(pepper) {
            Some(number) if pepper != 0 => Some(number),
            _ if self.gate.peppers.by_fingerprint(pepper).is_none() => {
                return Err(AdminError::NoSuchPepper);
            }
            _ => with(0).or_else(|| self.unneeded_pepper(taken, now)),
        };
        number.and_then(|number| u8::try_from(number).ok()).ok_or(AdminError::PeppersFull)
    }

    /// Returns the number of a pepper that no key needs any longer and that is not `taken`.
    fn unneeded_pepper(&self, taken: Option<u8>, now: Timestamp) -> Option<usize> {
        if !Feature::PepperRotation.is_included() {
            return None;
        }
        let mut needed: [bool; MAX_PEPPERS] = core::array::from_fn(|number| is(taken, number));
        for record in self.gate.records().filter_map(RecordRef::read) {
            needed_peppers(&record, now).for_each(|number| needed[usize::from(number)] = true);
        }
        needed.iter().position(|&needed| !needed)
    }
}

/// The numbers by which a record names its plan, peppers, environment and team.
struct Numbers {
    plan: u8,
    pepper: u8,
    previous_pepper: u8,
    env: u8,
    /// The number of the account's team, and whether it must be made; `None` without teams.
    team: Option<(u32, bool)>,
}

/// Returns whether `taken` is this number.
fn is(taken: Option<u8>, number: usize) -> bool {
    taken.is_some_and(|taken| usize::from(taken) == number)
}

/// Returns a moment as a record keeps it.
fn whole_seconds(at: Option<Timestamp>) -> Option<Timestamp> {
    moment(stored_s(at))
}
