//! The sampler: adds what the gate counts of each key's uses to the list, exactly once.
//!
//! The gate's file of counts has counts that only grow. The sampler reads them, and adds their
//! differences to the last reading to the buckets of [`usage`](crate::usage). The same transaction
//! stores the new reading. So a sampler that is killed at any step adds nothing twice, and the next
//! one adds what it did not.
//!
//! A *source* is a file of counts: its gate's random number and its generation. One service leads
//! each source. It holds the source's row until a time that it moves on, and each transaction
//! raises the row's number from the value that the service knows. So if two services lead, one of
//! them changes nothing, and reads again.
//!
//! | what happened | the next difference is to |
//! |---|---|
//! | the service ended or was killed | the stored reading |
//! | a key's record passed to another key | 0 for the other key; the reading of the former is removed |
//! | the file of counts was made again, for the same gate | 0 |
//! | the gate was replaced, by a migration or by hand | the stored reading, if the counts did not decrease |
//! | the counts decreased, as after a power cut | the new reading, so nothing is added twice |

use alloc::sync::Arc;
use core::pin::pin;
use core::time::Duration;
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use keytally::stop::stop;
use keytally::{Gate, KeyId, KeyUsage, Timestamp, Wait};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};
use tokio::time::sleep;

use crate::database::DatabaseError;
use crate::error::{Error, Result};
use crate::list::{LOCK_WAIT, List, blocking};
use crate::steps::SampleStop;
use crate::usage::{Counts, Sample, add};
use crate::{ids, time};

/// The time between two samples, at least. They are taken at multiples of it, so that the buckets
/// of a minute are exact.
const INTERVAL_MS: u64 = 10_000;

/// Sampling takes at most this share of the time.
const SAMPLED_SHARE: u64 = 10;

/// For how long a service leads after its last transaction.
const LEAD_S: i64 = 30;

/// A service that has nothing to add renews its lead if less than this is left.
const RENEWED_BELOW_S: i64 = 15;

/// The most keys whose counts one transaction adds. Changes of the list wait for it.
const KEYS_PER_TRANSACTION: usize = 200;

/// If more keys were used since the sample before, they get no buckets of a minute.
pub const MINUTE_KEYS: usize = 2000;

/// The time between two removals of old buckets.
const PRUNED_EACH_S: u64 = 60;

/// The readings that are loaded at once.
const PAGE: i64 = 10_000;

/// The name of the file of counts begins with that of the gate, and ends so.
const FILE_ENDING: &str = ".usage";

/// Adds the counts of uses of the list's gate to the list.
#[derive(Debug)]
pub struct Sampler {
    list: List,
    /// The number of this sampler.
    holder: i64,
    /// Whether uses are counted, as the operator chose for the first gate.
    switch: Option<bool>,
    lead: Option<Lead>,
    /// The gate for which it is decided whether uses are counted.
    decided: Option<u64>,
    pruned: Timestamp,
}

/// What a sample did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampled {
    /// The uses of these many keys were added.
    Added(usize),
    /// The gate counts no uses.
    Off,
    /// Another service adds the uses of this gate.
    Elsewhere,
}

/// A file of counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Source {
    gate_id: i64,
    generation: i64,
}

/// A source that this sampler leads.
#[derive(Debug)]
struct Lead {
    source: Source,
    /// The number of the source's last transaction.
    seen: i64,
    until_s: i64,
    /// When the last sample was taken.
    sampled_s: i64,
    /// The last reading of each key that was used.
    readings: HashMap<KeyId, Reading>,
}

/// The number of counts of requests.
const COUNTS: usize = 9;

/// The counts of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reading {
    /// Those of requests, in the order of the columns.
    counts: [u32; COUNTS],
    /// The units beyond one for each admitted request.
    beyond: u64,
}

impl Reading {
    fn new(usage: &KeyUsage) -> Self {
        let counts = [
            usage.admitted(),
            usage.denied_by_key(),
            usage.denied_by_team(),
            usage.denied_by_group(),
            usage.forbidden(),
            usage.with_previous_secret(),
            usage.revoked(),
            usage.expired(),
            usage.suspended(),
        ];
        Self { counts, beyond: usage.units().wrapping_sub(usage.admitted().into()) }
    }

    /// Returns what was counted since another reading; `None` if a count decreased. A count that
    /// grew by 2^31 or more cannot be distinguished from one that decreased.
    fn since(&self, before: &Self) -> Option<Counts> {
        let mut counts = [0; COUNTS];
        for (index, count) in counts.iter_mut().enumerate() {
            let grown = self.counts[index].wrapping_sub(before.counts[index]);
            *count = i64::from(i32::try_from(grown).ok()?);
        }
        let beyond = self.beyond.wrapping_sub(before.beyond).cast_signed();
        let [requests, denied_key, denied_team, denied_groups, forbidden, old_secret, ended @ ..] =
            counts;
        let [revoked, expired, suspended] = ended;
        let units = requests.saturating_add(beyond);
        Some(Counts {
            requests,
            units,
            denied_key,
            denied_team,
            denied_groups,
            forbidden,
            old_secret,
            revoked,
            expired,
            suspended,
        })
    }

    /// Returns a reading of the database.
    fn load(row: &AnyRow) -> Result<(i64, Self), sqlx::Error> {
        let mut reading = Self::default();
        for (index, count) in reading.counts.iter_mut().enumerate() {
            // A count was stored from 32 bits.
            *count = u32::try_from(row.try_get::<i64, _>(index + 2)?).unwrap_or(0);
        }
        reading.beyond = row.try_get::<i64, _>(1)?.cast_unsigned();
        Ok((row.try_get(0)?, reading))
    }
}

/// A key that was used since the sample before.
#[derive(Clone, Copy, Debug)]
struct Change {
    sample: Sample,
    reading: Reading,
}

/// What a sampler read of the gate.
#[derive(Debug, Default)]
struct Changes {
    used: Vec<Change>,
    /// The keys whose lines are those of other keys now.
    gone: Vec<KeyId>,
}

impl Sampler {
    /// Why no uses are added if the gate counts none.
    const OFF: &str = "the gate does not count them; keytally usage on begins to";

    /// Returns a sampler of a list. `switch` is whether uses are counted. If it is `None`, they are
    /// counted unless a command ended it, which leaves a file of counts.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn new(list: List, switch: Option<bool>, now: Timestamp) -> Result<Self> {
        let bytes = keytally::entropy_bytes()?;
        let holder = bytes.iter().take(8).fold(0, |number, &byte| number << 8 | i64::from(byte));
        list.set_status(|status| status.sampled = Some(now));
        Ok(Self { list, holder, switch, lead: None, decided: None, pruned: now })
    }

    /// Takes samples until `stopped` is ready, and then the last one. `report` gets a sentence when
    /// the state changes.
    pub async fn sample_always(
        mut self,
        clock: fn() -> Timestamp,
        report: impl Fn(&str) + Send,
        stopped: impl Future<Output = ()> + Send,
    ) {
        let mut stopped = pin!(stopped);
        let mut problem = None;
        loop {
            let began = clock();
            let is_off = self.switch == Some(false);
            let sentence = match self.sample(began).await {
                Ok(Sampled::Off) if !is_off => Some(Self::OFF.to_owned()),
                Ok(_) => None,
                Err(error) => Some(error.to_string()),
            };
            if sentence != problem {
                match &sentence {
                    Some(sentence) => {
                        report(&format!("uses of keys are not added to the list: {sentence}"));
                    }
                    None => report("uses of keys are added to the list again"),
                }
                problem = sentence;
            }
            let pause = sleep(pause(began, clock()));
            tokio::select! {
                () = pause => {}
                () = &mut stopped => break,
            }
        }
        // The service ends. What it cannot add now waits in the file of counts.
        let _ = self.sample(clock()).await;
        let _ = self.release().await;
    }

    /// Takes a sample: reads the counts, and adds what is new to the list. Begins to count before,
    /// if that is not decided yet.
    ///
    /// # Errors
    /// If the gate or the database cannot be used. What was not added is added by the next sample.
    pub async fn sample(&mut self, now: Timestamp) -> Result<Sampled> {
        let result = self.sample_now(now).await;
        if result.is_err() {
            // Whether the last transaction was committed may not be known.
            self.lead = None;
        }
        self.list.set_status(|status| match &result {
            Ok(_) => (status.sampled, status.sample_failed) = (Some(now), false),
            Err(_) => {
                status.sample_failed = true;
                status.sample_errors = status.sample_errors.saturating_add(1);
            }
        });
        result
    }

    async fn sample_now(&mut self, now: Timestamp) -> Result<Sampled> {
        let gate = self.open().await?;
        self.decide(&gate).await?;
        let generation = gate.table().usage_generation();
        if generation == 0 {
            return Ok(Sampled::Off);
        }
        if gate.usage().is_none() {
            return Err(Error::Conflict(format!(
                "the file of the counts of uses cannot be opened; run keytally usage on {}",
                self.path(&gate).display()
            )));
        }
        let source =
            Source { gate_id: gate.table().id().cast_signed(), generation: i64::from(generation) };
        if !self.take_lead(source, &gate, now).await? {
            return Ok(Sampled::Elsewhere);
        }
        let Some(lead) = self.lead.take() else { return Ok(Sampled::Elsewhere) };
        let (lead, changes) = blocking(move || {
            let changes = read(&gate, &lead, now);
            Ok((lead, changes))
        })
        .await?;
        stop(SampleStop::CountsRead);
        let used = changes.used.len();
        let is_added = self.add(lead, changes, now).await?;
        if !is_added {
            return Ok(Sampled::Elsewhere);
        }
        if now.unix_s() >= self.pruned.unix_s().saturating_add(PRUNED_EACH_S) {
            self.list.prune_usage(now).await?;
            self.pruned = now;
        }
        Ok(Sampled::Added(used))
    }

    /// Returns the gate at the path.
    async fn open(&self) -> Result<Arc<Gate>> {
        let list = self.list.clone();
        blocking(move || {
            // If the file at the path cannot be opened, the gate that is open decides.
            let _ = list.gate().reopen_if_replaced();
            Ok(list.gate().load().to_arc())
        })
        .await
    }

    /// Begins or ends counting, if that is not decided for this gate yet.
    async fn decide(&mut self, gate: &Arc<Gate>) -> Result<()> {
        let gate_id = gate.table().id();
        if self.decided == Some(gate_id) {
            return Ok(());
        }
        let is_on = gate.table().usage_generation() != 0;
        let change = match self.switch {
            Some(false) => is_on.then_some(false),
            // A copy of the gate may name another file than the one that is there.
            _ if is_on => gate.usage().is_none().then_some(true),
            Some(true) => Some(true),
            // Counting was ended, or a migration has not moved the counts yet, and begins then.
            None => (!has_counts(&self.path(gate))).then_some(true),
        };
        if let Some(is_counted) = change {
            let gate = Arc::clone(gate);
            blocking(move || Ok(gate.set_usage_within(Wait::at_most(LOCK_WAIT), is_counted)?))
                .await?;
            stop(SampleStop::CountingBegun);
        }
        (self.decided, self.switch) = (Some(gate_id), None);
        Ok(())
    }

    /// Makes this sampler the one of a source, unless it is. Returns whether it is now.
    async fn take_lead(
        &mut self,
        source: Source,
        gate: &Arc<Gate>,
        now: Timestamp,
    ) -> Result<bool> {
        if self.lead.as_ref().is_some_and(|lead| lead.source == source) {
            return Ok(true);
        }
        let (gate_path, holder) = (self.machine_and_path(gate), self.holder);
        let taken = self.list.transact(async move |transaction| {
            let taken = take(transaction.connection(), source, &gate_path, holder, now).await?;
            stop(SampleStop::LeadWritten);
            Ok(taken)
        });
        let Some((seen, sampled_s)) = taken.await? else {
            self.lead = None;
            return Ok(false);
        };
        stop(SampleStop::LeadTaken);
        let readings = self.readings(source).await?;
        let until_s = time::stored(now).saturating_add(LEAD_S);
        self.lead = Some(Lead { source, seen, until_s, sampled_s, readings });
        Ok(true)
    }

    /// Returns the stored readings of a source.
    async fn readings(&self, source: Source) -> Result<HashMap<KeyId, Reading>> {
        let mut readings = HashMap::new();
        let (mut after, mut connection) = (i64::MIN, self.list.read().await?);
        loop {
            let rows = sqlx::query(
                "select key_id, beyond, requests, denied_key, denied_team, denied_groups, \
                 forbidden, old_secret, revoked, expired, suspended from sampled \
                 where gate_id = $1 and generation = $2 and key_id > $3 order by key_id limit $4",
            )
            .bind(source.gate_id)
            .bind(source.generation)
            .bind(after)
            .bind(PAGE)
            .fetch_all(&mut *connection)
            .await?;
            for row in &rows {
                let (number, reading) = Reading::load(row)?;
                after = number;
                if let Some(key_id) = ids::loaded(number) {
                    readings.insert(key_id, reading);
                }
            }
            if rows.is_empty() {
                return Ok(readings);
            }
        }
    }

    /// Adds changes, in transactions of a bounded number of keys. Returns whether this sampler
    /// still leads.
    async fn add(&mut self, mut lead: Lead, changes: Changes, now: Timestamp) -> Result<bool> {
        let Changes { used, gone } = changes;
        let now_s = time::stored(now);
        let is_renewed = lead.until_s < now_s.saturating_add(RENEWED_BELOW_S);
        if used.is_empty() && gone.is_empty() && !is_renewed {
            lead.sampled_s = now_s;
            self.lead = Some(lead);
            return Ok(true);
        }
        let has_minutes = used.len() <= MINUTE_KEYS;
        let count = used.chunks(KEYS_PER_TRANSACTION).count().max(1);
        let mut used = used.chunks(KEYS_PER_TRANSACTION);
        for index in 0..count {
            let used = used.next().unwrap_or_default().to_vec();
            let gone = if index == 0 { gone.clone() } else { Vec::new() };
            let (source, seen, holder) = (lead.source, lead.seen, self.holder);
            let machine = self.list.machine().to_owned();
            let (some, removed) = (used.clone(), gone.clone());
            let is_leading = self.list.transact(async move |transaction| {
                let connection = transaction.connection();
                if !renew(connection, source, holder, seen, now_s).await? {
                    return Ok(false);
                }
                for change in &some {
                    add(connection, &machine, &change.sample, has_minutes).await?;
                    store(connection, source, change).await?;
                }
                for key_id in removed {
                    remove(connection, source, key_id).await?;
                }
                stop(SampleStop::UsesWritten);
                Ok(true)
            });
            if !is_leading.await? {
                return Ok(false);
            }
            stop(SampleStop::UsesAdded);
            lead.seen = seen.saturating_add(1);
            lead.readings.extend(used.iter().map(|it| (it.sample.key_id, it.reading)));
            for key_id in gone {
                lead.readings.remove(&key_id);
            }
        }
        lead.until_s = now_s.saturating_add(LEAD_S);
        lead.sampled_s = now_s;
        self.lead = Some(lead);
        Ok(true)
    }

    /// Lets another service lead at once.
    ///
    /// # Errors
    /// If the database cannot be used. Another service then leads 30 s later.
    pub async fn release(&mut self) -> Result<()> {
        let Some(lead) = self.lead.take() else { return Ok(()) };
        let (source, holder) = (lead.source, self.holder);
        self.list
            .transact(async move |transaction| {
                sqlx::query(
                    "update sampler set until_s = 0 \
                     where gate_id = $1 and generation = $2 and holder = $3",
                )
                .bind(source.gate_id)
                .bind(source.generation)
                .bind(holder)
                .execute(transaction.connection())
                .await?;
                Ok(())
            })
            .await
    }

    /// Returns the absolute path of the gate.
    fn path(&self, gate: &Gate) -> PathBuf {
        let path = gate.path().unwrap_or(Path::new(""));
        path.canonicalize().unwrap_or_else(|_| path.to_owned())
    }

    /// Returns the machine and the path of the gate. A gate that replaces another one has the same.
    fn machine_and_path(&self, gate: &Gate) -> String {
        format!("{}:{}", self.list.machine(), self.path(gate).display())
    }
}

/// Returns how long to wait before the next sample.
fn pause(began: Timestamp, ended: Timestamp) -> Duration {
    let took_ms = ended.unix_ms().saturating_sub(began.unix_ms());
    let least_ms = took_ms.saturating_mul(SAMPLED_SHARE - 1).max(1);
    let next_ms = ended.unix_ms().saturating_add(least_ms).next_multiple_of(INTERVAL_MS);
    Duration::from_millis(next_ms.saturating_sub(ended.unix_ms()))
}

/// Returns whether a gate has a file of counts.
fn has_counts(gate: &Path) -> bool {
    let mut path = OsString::from(gate);
    path.push(FILE_ENDING);
    Path::new(&path).exists()
}

/// Reads the counts of all keys.
fn read(gate: &Gate, lead: &Lead, now: Timestamp) -> Changes {
    let mut changes = Changes::default();
    let Some(usage) = gate.usage() else { return changes };
    let mut known = 0_usize;
    for (key_id, counted) in gate.table().usages(usage) {
        let (reading, before) = (Reading::new(&counted), lead.readings.get(&key_id));
        known = known.saturating_add(usize::from(before.is_some()));
        let before = before.copied().unwrap_or_default();
        if reading == before {
            continue;
        }
        let counts = reading.since(&before).unwrap_or_default();
        let last_used = counted.last_used().filter(|_| counts.requests > 0);
        let sample = Sample { key_id, at: at(lead, last_used, now), last_used, counts };
        changes.used.push(Change { sample, reading });
    }
    if known < lead.readings.len() {
        let is_gone = |key_id: &&KeyId| gate.table().usage_of(usage, **key_id).is_none();
        changes.gone = lead.readings.keys().filter(is_gone).copied().collect();
    }
    changes
}

/// Returns the time of uses between two samples: that of the last one, if it is known.
fn at(lead: &Lead, last_used: Option<Timestamp>, now: Timestamp) -> Timestamp {
    let is_between = |at: &Timestamp| time::stored(*at) >= lead.sampled_s && *at <= now;
    let before = Timestamp::from_unix_s(now.unix_s().saturating_sub(1));
    last_used.filter(is_between).unwrap_or(before)
}

/// Takes the lead of a source. Returns its number and the time of its last sample; `None` if
/// another sampler leads it, or the source before it.
async fn take(
    connection: &mut AnyConnection,
    source: Source,
    gate_path: &str,
    holder: i64,
    now: Timestamp,
) -> Result<Option<(i64, i64)>> {
    let now_s = time::stored(now);
    let is_held = |row: &AnyRow| -> Result<bool, sqlx::Error> {
        let until_s: i64 = row.try_get("until_s")?;
        // A time that is too far off is that of a wrong clock.
        let is_leading = until_s > now_s && until_s <= now_s.saturating_add(2 * LEAD_S);
        Ok(is_leading && row.try_get::<i64, _>("holder")? != holder)
    };
    let present = sqlx::query(
        "select seen, sampled_s, holder, until_s from sampler \
         where gate_id = $1 and generation = $2",
    )
    .bind(source.gate_id)
    .bind(source.generation)
    .fetch_optional(&mut *connection)
    .await?;
    let until_s = now_s.saturating_add(LEAD_S);
    if let Some(row) = present {
        if is_held(&row)? {
            return Ok(None);
        }
        let seen = row.try_get::<i64, _>("seen")?.saturating_add(1);
        sqlx::query(
            "update sampler set gate_path = $3, seen = $4, holder = $5, until_s = $6 \
             where gate_id = $1 and generation = $2",
        )
        .bind(source.gate_id)
        .bind(source.generation)
        .bind(gate_path.to_owned())
        .bind(seen)
        .bind(holder)
        .bind(until_s)
        .execute(&mut *connection)
        .await?;
        return Ok(Some((seen, row.try_get("sampled_s")?)));
    }
    let replaced = sqlx::query(
        "select gate_id, generation, sampled_s, holder, until_s from sampler where gate_path = $1",
    )
    .bind(gate_path.to_owned())
    .fetch_all(&mut *connection)
    .await?;
    let mut sampled_s = 0;
    for row in &replaced {
        if is_held(row)? {
            return Ok(None);
        }
        sampled_s = sampled_s.max(row.try_get("sampled_s")?);
    }
    for row in &replaced {
        let (gate_id, generation) = (row.try_get("gate_id")?, row.try_get("generation")?);
        replace(connection, Source { gate_id, generation }, source).await?;
    }
    sqlx::query(
        "insert into sampler (gate_id, generation, gate_path, seen, holder, until_s, sampled_s) \
         values ($1, $2, $3, 1, $4, $5, $6)",
    )
    .bind(source.gate_id)
    .bind(source.generation)
    .bind(gate_path.to_owned())
    .bind(holder)
    .bind(until_s)
    .bind(sampled_s)
    .execute(&mut *connection)
    .await?;
    Ok(Some((1, sampled_s)))
}

/// Gives the readings of a source to the one that replaces it. A file that was made again for the
/// same gate counts from 0.
async fn replace(connection: &mut AnyConnection, old: Source, new: Source) -> Result<()> {
    if old.gate_id != new.gate_id {
        sqlx::query(
            "update sampled set gate_id = $3, generation = $4 \
             where gate_id = $1 and generation = $2",
        )
        .bind(old.gate_id)
        .bind(old.generation)
        .bind(new.gate_id)
        .bind(new.generation)
        .execute(&mut *connection)
        .await?;
    }
    for delete in [
        "delete from sampled where gate_id = $1 and generation = $2",
        "delete from sampler where gate_id = $1 and generation = $2",
    ] {
        sqlx::query(delete)
            .bind(old.gate_id)
            .bind(old.generation)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Raises the number of a source from `seen`. Returns `false` if another sampler leads it.
async fn renew(
    connection: &mut AnyConnection,
    source: Source,
    holder: i64,
    seen: i64,
    now_s: i64,
) -> Result<bool, DatabaseError> {
    let renewed = sqlx::query(
        "update sampler set seen = seen + 1, until_s = $5, sampled_s = $6 \
         where gate_id = $1 and generation = $2 and holder = $3 and seen = $4",
    )
    .bind(source.gate_id)
    .bind(source.generation)
    .bind(holder)
    .bind(seen)
    .bind(now_s.saturating_add(LEAD_S))
    .bind(now_s)
    .execute(connection)
    .await?;
    Ok(renewed.rows_affected() == 1)
}

/// Stores the reading of a key.
async fn store(
    connection: &mut AnyConnection,
    source: Source,
    change: &Change,
) -> Result<(), DatabaseError> {
    let mut query = sqlx::query(
        "insert into sampled (gate_id, generation, key_id, beyond, requests, denied_key, \
         denied_team, denied_groups, forbidden, old_secret, revoked, expired, suspended) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
         on conflict (gate_id, generation, key_id) do update set beyond = excluded.beyond, \
         requests = excluded.requests, denied_key = excluded.denied_key, \
         denied_team = excluded.denied_team, denied_groups = excluded.denied_groups, \
         forbidden = excluded.forbidden, old_secret = excluded.old_secret, \
         revoked = excluded.revoked, expired = excluded.expired, suspended = excluded.suspended",
    )
    .bind(source.gate_id)
    .bind(source.generation)
    .bind(ids::stored(change.sample.key_id))
    .bind(change.reading.beyond.cast_signed());
    for count in change.reading.counts {
        query = query.bind(i64::from(count));
    }
    query.execute(connection).await?;
    Ok(())
}

/// Removes the reading of a key whose line is that of another key.
async fn remove(
    connection: &mut AnyConnection,
    source: Source,
    key_id: KeyId,
) -> Result<(), DatabaseError> {
    sqlx::query("delete from sampled where gate_id = $1 and generation = $2 and key_id = $3")
        .bind(source.gate_id)
        .bind(source.generation)
        .bind(ids::stored(key_id))
        .execute(connection)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(requests: u32, beyond: u64) -> Reading {
        let mut reading = Reading { beyond, ..Reading::default() };
        reading.counts[0] = requests;
        reading
    }

    #[test]
    fn difference_is_exact_where_a_count_begins_again() {
        let since = reading(3, 2_u64.wrapping_sub(9)).since(&reading(u32::MAX - 1, 2)).unwrap();
        assert_eq!((since.requests, since.units), (5, 5 - 9));
        assert_eq!(reading(7, 1).since(&reading(7, 1)), Some(Counts::default()));
        // A count that decreased has no difference.
        assert_eq!(reading(6, 9).since(&reading(7, 1)), None);
    }

    #[test]
    fn samples_are_taken_at_multiples_of_the_interval() {
        let at = Timestamp::from_unix_ms;
        let pause = |began, ended| pause(at(began), at(ended)).as_millis();
        assert_eq!(pause(1_000_000, 1_000_003), 9_997);
        assert_eq!(pause(999_999, 999_999), 1);
        // A sample that takes 2 s is followed by a pause of at least 18 s.
        assert_eq!(pause(1_000_000, 1_002_000), 18_000);
    }
}
