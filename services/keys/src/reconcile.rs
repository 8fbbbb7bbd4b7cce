//! Compares all keys of the list with the gate, and settles what differs.
//!
//! The database is the list, and the gate decides. Commands change the gate alone, and copies of
//! either may be restored. So the stricter side wins: a key that one side has revoked is revoked in
//! both, and the earlier expiry and the shorter grace hold. Of the rest, what the gate has is taken
//! over, because the list's own changes have reached it before.

use alloc::collections::BTreeMap;

use keytally::{KeyId, KeyRecord, KeyState, Timestamp};
use serde::Serialize;
use sqlx::Row as _;

use crate::database::{LIMIT, Transaction};
use crate::error::{Error, Result};
use crate::keys::{self, KeyRow};
use crate::list::{List, Path, Refused, Which, scope_names};
use crate::log::{self, NewEntry};
use crate::roles::Actor;
use crate::{ids, teams, time};

/// The name of a key that the list got from the gate.
pub const ADOPTED_NAME: &str = "(made on the command line)";

/// The keys that are read at once.
const PAGE: i64 = 500;

/// The keys that are settled under one lock.
const SETTLED_PER_LOCK: usize = 100;

/// What a comparison may do.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// What happens to keys of the gate that the list does not have.
    pub unknown: Unknown,
    /// Whether the comparison may follow a database that is older than the gate, and put keys into
    /// a gate that the list has not seen before.
    pub accept: bool,
    /// Whether nothing is changed.
    pub is_dry: bool,
}

/// What happens to keys of the gate that the list does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// They are reported.
    Report,
    /// They are entered into the list.
    Adopt,
    /// They are revoked.
    Revoke,
}

impl Comparison {
    /// Returns what a running service does: it enters keys that commands made into the list. It
    /// refuses a database that is older than the gate.
    pub const fn automatic() -> Self {
        Self { unknown: Unknown::Adopt, accept: false, is_dry: false }
    }
}

/// A difference between the list and the gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The key.
    pub key_id: String,
    /// What differed, and what became of it.
    pub what: String,
    /// Whether it is settled.
    pub settled: bool,
}

/// The result of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// The keys that were compared.
    pub keys: usize,
    /// What differed.
    pub differences: Vec<Difference>,
}

impl Compared {
    /// Returns the number of differences that are not settled.
    pub fn open(&self) -> usize {
        self.differences.iter().filter(|difference| !difference.settled).count()
    }

    /// Returns a sentence on the differences; `None` if there are none.
    pub fn sentence(&self) -> Option<String> {
        let (all, open) = (self.differences.len(), self.open());
        let first = self.differences.first()?;
        let keys = if all == 1 { "key" } else { "keys" };
        Some(format!(
            "the list and the gate differed in {all} {keys}, and still differ in {open}; the first is {}: {}",
            first.key_id, first.what
        ))
    }

    fn add(&mut self, key_id: KeyId, what: impl Into<String>, settled: bool) {
        let what = what.into();
        self.differences.push(Difference { key_id: key_id.to_string(), what, settled });
    }
}

impl List {
    /// Compares all keys, and settles what differs.
    ///
    /// # Errors
    /// [`Error::Behind`] if the database is older than the gate and the comparison may not follow
    /// it; those of the database and the gate.
    pub async fn compare(&self, comparison: Comparison, now: Timestamp) -> Result<Compared> {
        let head = self.database().head().await?;
        let applied = self.gate().load().table().applied_sequence();
        let is_behind = head < applied;
        if is_behind && !comparison.accept && !comparison.is_dry {
            return Err(Error::Behind { head, applied });
        }
        let mut compared = Compared::default();
        let differing = self.differing(&mut compared).await?;
        if is_behind && !comparison.is_dry {
            self.end_restoration(comparison, &differing, now).await?;
        }
        if comparison.is_dry {
            for (key_id, side) in differing {
                let what = match side {
                    Side::Gate(true) => continue,
                    Side::Gate(false) => "the list does not have it",
                    Side::Both => "list and gate differ",
                    Side::List => "the gate does not have it",
                };
                compared.add(key_id, what, false);
            }
            return Ok(compared);
        }
        let all: Vec<KeyId> = differing.into_iter().map(|(key_id, _)| key_id).collect();
        for some in all.chunks(SETTLED_PER_LOCK) {
            let some = some.to_vec();
            let settled = self.change(LIMIT, now, move |path, refused| {
                settle(path, refused, &some, comparison, now)
            });
            let settled = settled.await?;
            compared.differences.extend(settled.differences);
        }
        let (open, settled) = (compared.open(), compared.differences.len() - compared.open());
        if open == 0 {
            self.register_gate(now).await?;
        }
        self.set_status(|status| {
            status.compared = Some(now);
            status.settled =
                status.settled.saturating_add(u64::try_from(settled).unwrap_or(u64::MAX));
            status.open = u64::try_from(open).unwrap_or(u64::MAX);
        });
        Ok(compared)
    }

    /// Returns the keys in which the list and the gate differ, or seem to: neither is locked while
    /// they are read.
    async fn differing(&self, compared: &mut Compared) -> Result<Vec<(KeyId, Side)>> {
        let records = self.administer(|path| {
            let all = path.administrator.records();
            Ok(all.map(|record| (record.key_id.number(), record)).collect::<BTreeMap<_, _>>())
        });
        let mut records = records.await?;
        let gate = self.gate().load().to_arc();
        let mut differing = Vec::new();
        let mut connection = self.read().await?;
        let mut after = i64::MIN;
        loop {
            let rows = keys::page(&mut connection, after, PAGE).await?;
            let Some(last) = rows.last() else { break };
            after = ids::stored(last.key_id);
            for row in &rows {
                compared.keys = compared.keys.saturating_add(1);
                match records.remove(&row.key_id.number()) {
                    Some(record) => {
                        let its = row_of(row, &record, scope_names(&gate, record.scopes));
                        if its != *row {
                            differing.push((row.key_id, Side::Both));
                        }
                    }
                    None if row.is_revoked => {}
                    None => differing.push((row.key_id, Side::List)),
                }
            }
        }
        for record in records.into_values() {
            compared.keys = compared.keys.saturating_add(1);
            let has_ended = record.state == KeyState::Revoked;
            differing.push((record.key_id, Side::Gate(has_ended)));
        }
        Ok(differing)
    }

    /// Follows a database that is older than the gate from now on.
    async fn end_restoration(
        &self,
        comparison: Comparison,
        differing: &[(KeyId, Side)],
        now: Timestamp,
    ) -> Result<()> {
        if comparison.unknown == Unknown::Revoke {
            // Before the list is followed again, so that none of these keys is adopted.
            let unknown: Vec<KeyId> = differing
                .iter()
                .filter(|(_, side)| *side == Side::Gate(false))
                .map(|(key_id, _)| *key_id)
                .collect();
            self.administer(move |path| unknown.iter().try_for_each(|&key_id| path.revoke(key_id)))
                .await?;
        }
        let begun = self.begin(LIMIT).await?;
        self.administer_with(Which::Keys, Some(begun), move |path| {
            let applied = path.applied();
            path.transact(LIMIT, async |transaction| {
                transaction.raise_seq(applied);
                let entry = NewEntry {
                    team_id: None,
                    actor: &Actor::operator(),
                    action: "list.restore",
                    key_id: None,
                    detail: format!("an older copy of the database is followed; the gate had applied change {applied}"),
                };
                log::append(transaction, entry, time::stored(now)).await?;
                Ok(())
            })
        })
        .await
    }

    /// Records that this gate has been compared with the list.
    async fn register_gate(&self, now: Timestamp) -> Result<()> {
        let gate = self.gate().load().to_arc();
        let (gate_id, applied) = (gate.table().id(), gate.table().applied_sequence());
        let machine = self.machine().to_owned();
        self.transact(async move |transaction| {
            sqlx::query(
                "insert into gate (gate_id, machine, applied_seq, seen_s) values ($1, $2, $3, $4) \
                 on conflict (gate_id) do update set machine = excluded.machine, \
                 applied_seq = excluded.applied_seq, seen_s = excluded.seen_s",
            )
            .bind(gate_id.cast_signed())
            .bind(machine)
            .bind(i64::try_from(applied).unwrap_or(i64::MAX))
            .bind(time::stored(now))
            .execute(transaction.connection())
            .await?;
            Ok(())
        })
        .await
    }
}

/// Which side has a key that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Both,
    /// The list alone.
    List,
    /// The gate alone; whether the key is revoked there.
    Gate(bool),
}

/// Returns the row that a record stands for: what only the list has is kept.
fn row_of(row: &KeyRow, record: &KeyRecord, scopes: String) -> KeyRow {
    let mut its = row.clone();
    its.take(record, scopes);
    // The gate knows only whether it has imported keys at all, and need not keep hints.
    its.is_imported = row.is_imported;
    if its.last_characters.is_none() {
        its.last_characters.clone_from(&row.last_characters);
    }
    its
}

/// Returns the stricter of a row and what the gate has of the key, and the names of what differed.
fn stricter(row: &KeyRow, its: &KeyRow, now_s: i64) -> (KeyRow, Vec<&'static str>) {
    let mut merged = its.clone();
    let mut differed = Vec::new();
    let has_other_secret = row.secret != its.secret;
    if row.is_revoked != its.is_revoked {
        differed.push("revoked");
        merged.is_revoked = true;
        merged.revoked_s = row.revoked_s.or(Some(now_s));
        merged.revoked_by = row.revoked_by.clone().or_else(|| Some(Actor::reconcile().to_string()));
    }
    if row.not_after_s != its.not_after_s {
        differed.push("expires");
        merged.not_after_s = match (row.not_after_s, its.not_after_s) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
    if has_other_secret {
        differed.push("secret");
        // The command that rotated the key has shown its secret.
        (merged.rotated_s, merged.shown_s) = (Some(now_s), Some(now_s));
    } else if row.grace_until_s != its.grace_until_s || row.previous != its.previous {
        differed.push("grace");
        merged.grace_until_s = row.grace_until_s.min(its.grace_until_s);
    }
    if row.plan != its.plan {
        differed.push("plan");
    }
    if row.scopes != its.scopes {
        differed.push("scopes");
    }
    if (row.team_id, row.env) != (its.team_id, its.env) {
        differed.push("team");
    }
    (merged, differed)
}

/// What to put into the gate, and what to report, after the list has been changed.
struct Settled {
    key_id: KeyId,
    what: String,
    /// The row to put into the gate.
    put: Option<KeyRow>,
    /// Whether to revoke the key in the gate.
    is_revoked: bool,
    is_open: bool,
}

/// Settles some keys under one lock, and returns what differed.
fn settle(
    path: &mut Path<'_, '_>,
    refused: Vec<Refused>,
    key_ids: &[KeyId],
    comparison: Comparison,
    now: Timestamp,
) -> Result<Compared> {
    let mut compared = Compared::default();
    for refused in refused {
        // A key that the gate has revoked differs, and is settled below.
        let error = refused.error.to_string();
        if path.administrator.read(refused.row.key_id).is_none() {
            compared.add(refused.row.key_id, error, false);
        }
    }
    let gate = path.gate;
    let records: Vec<_> = key_ids
        .iter()
        .map(|&key_id| (key_id, path.administrator.read(key_id)))
        .map(|(key_id, record)| {
            let names = record.as_ref().map(|record| scope_names(gate, record.scopes));
            (key_id, record, names.unwrap_or_default())
        })
        .collect();
    let gate_id = gate.table().id().cast_signed();
    let (settled, last) = path.transact(LIMIT, async |transaction| {
        let known = sqlx::query("select count(*) from gate where gate_id = $1")
            .bind(gate_id)
            .fetch_one(transaction.connection())
            .await?
            .try_get::<i64, _>(0)?;
        let may_put = known > 0 || comparison.accept;
        let mut all = Vec::new();
        for (key_id, record, scopes) in &records {
            let row = keys::find(transaction.connection(), *key_id).await?;
            let settled = match (row, record) {
                (Some(row), Some(record)) => {
                    differing(transaction, row, record, scopes.clone(), now).await?
                }
                (Some(row), None) => missing(row, may_put, now),
                (None, Some(record)) => {
                    unknown(transaction, record, scopes.clone(), comparison, now).await?
                }
                (None, None) => None,
            };
            all.extend(settled);
        }
        Ok((all, transaction.seq()))
    })?;
    let has_changed = last > path.applied();
    for Settled { key_id, what, put, is_revoked, is_open } in settled {
        let put = match put {
            Some(row) => path.put_row(&row, now),
            None if is_revoked => path.revoke(key_id),
            None => Ok(()),
        };
        match put {
            Ok(()) => compared.add(key_id, what, !is_open),
            Err(error) => compared.add(key_id, format!("{what}: {error}"), false),
        }
    }
    if has_changed {
        path.set_applied(i64::try_from(last).unwrap_or(i64::MAX));
    }
    Ok(compared)
}

/// Settles a key that both sides have.
async fn differing(
    transaction: &mut Transaction,
    row: KeyRow,
    record: &KeyRecord,
    scopes: String,
    now: Timestamp,
) -> Result<Option<Settled>> {
    let its = row_of(&row, record, scopes);
    let (mut merged, differed) = stricter(&row, &its, time::stored(now));
    if differed.is_empty() {
        return Ok(None);
    }
    let what = outcome_of(&differed);
    merged.seq = entry(transaction, &merged, what.clone(), now).await?;
    keys::update(transaction, &merged).await?;
    let put = (merged != KeyRow { seq: merged.seq, ..its }).then_some(merged);
    Ok(Some(Settled { key_id: row.key_id, what, put, is_revoked: false, is_open: false }))
}

/// Returns a sentence on what differed and which side holds.
fn outcome_of(differed: &[&str]) -> String {
    let is_strict = |name: &&&str| ["revoked", "expires", "grace"].contains(*name);
    let joined = |is_it: &dyn Fn(&&&str) -> bool| -> String {
        differed.iter().filter(is_it).copied().collect::<Vec<_>>().join(", ")
    };
    match (joined(&is_strict), joined(&|name| !is_strict(name))) {
        (strict, others) if others.is_empty() => {
            format!("{strict} differed, and the stricter side holds")
        }
        (strict, others) if strict.is_empty() => {
            format!("{others} differed, and that of the gate holds")
        }
        (strict, others) => format!(
            "{strict} differed, and the stricter side holds; {others} differed, and that of the gate holds"
        ),
    }
}

/// Settles a key that the gate does not have.
fn missing(row: KeyRow, may_put: bool, now: Timestamp) -> Option<Settled> {
    if row.is_revoked || row.is_expired(now) {
        return None;
    }
    let key_id = row.key_id;
    let what = if may_put {
        "the gate did not have it"
    } else {
        "this gate is new to the list and does not have it; --accept puts it into the gate"
    };
    let put = may_put.then_some(row);
    Some(Settled { key_id, what: what.to_owned(), put, is_revoked: false, is_open: !may_put })
}

/// Settles a key that the list does not have.
async fn unknown(
    transaction: &mut Transaction,
    record: &KeyRecord,
    scopes: String,
    comparison: Comparison,
    now: Timestamp,
) -> Result<Option<Settled>> {
    let key_id = record.key_id;
    let settled = |what: &str, is_revoked, is_open| {
        Some(Settled { key_id, what: what.to_owned(), put: None, is_revoked, is_open })
    };
    let has_expired = record.expires.is_some_and(|end| end <= now);
    if record.state == KeyState::Revoked || has_expired {
        return Ok(None);
    }
    match comparison.unknown {
        Unknown::Report => {
            return Ok(settled("the list does not have it; --accept enters it", false, true));
        }
        Unknown::Revoke => {
            return Ok(settled("the list did not have it, and it is revoked", true, false));
        }
        Unknown::Adopt => {}
    }
    let team_id = record.account;
    match teams::find(transaction.connection(), team_id).await {
        Err(Error::NotFound { .. }) => {
            if !teams::restore(transaction, team_id).await? {
                let name = format!("Account {team_id}");
                teams::insert(transaction, Some(team_id), &name, now).await?;
            }
        }
        found => drop(found?),
    }
    let by = Actor::reconcile().to_string();
    let mut row = KeyRow::new(record, scopes, ADOPTED_NAME.to_owned(), by, now);
    row.shown_s = Some(time::stored(now));
    let what = "the list did not have it, and has it now";
    row.seq = entry(transaction, &row, what.to_owned(), now).await?;
    keys::insert(transaction, &row).await?;
    Ok(settled(what, false, false))
}

/// Appends an entry of a comparison to the log.
async fn entry(
    transaction: &mut Transaction,
    row: &KeyRow,
    detail: String,
    now: Timestamp,
) -> Result<i64> {
    let entry = NewEntry {
        team_id: Some(row.team_id),
        actor: &Actor::reconcile(),
        action: "key.reconcile",
        key_id: Some(row.key_id),
        detail,
    };
    Ok(log::append(transaction, entry, time::stored(now)).await?)
}

#[cfg(test)]
mod tests {
    use keytally::{Name, StoredSecret};

    use super::*;

    fn row() -> KeyRow {
        let secret = StoredSecret { tag: [1; 16], pepper: 1 };
        let record = KeyRecord {
            key_id: KeyId::from_number(7).unwrap(),
            account: 1,
            env: Name::new("live").unwrap(),
            plan: keytally::Text::from_text("default").unwrap(),
            state: KeyState::Active,
            expires: None,
            grace_until: None,
            scopes: 0,
            last_characters: None,
            secret,
            previous: None,
            is_imported: false,
        };
        let now = Timestamp::from_unix_s(1);
        KeyRow::new(&record, String::new(), "name".to_owned(), "shell".to_owned(), now)
    }

    #[test]
    fn stricter_side_wins_in_every_property() {
        let one = row();
        let other = |change: fn(&mut KeyRow)| {
            let mut row = row();
            change(&mut row);
            row
        };
        for (change, name) in [
            (other(|row| row.is_revoked = true), "revoked"),
            (other(|row| row.not_after_s = Some(9)), "expires"),
        ] {
            for (list, gate) in [(&one, &change), (&change, &one)] {
                let (merged, differed) = stricter(list, gate, 5);
                assert_eq!(differed, [name]);
                assert_eq!(
                    (merged.is_revoked, merged.not_after_s),
                    (change.is_revoked, change.not_after_s)
                );
            }
        }
        // The shorter grace, of which none is the shortest.
        let [long, short] = [9, 8].map(|end| KeyRow { grace_until_s: Some(end), ..row() });
        for (list, gate, end) in
            [(&long, &short, Some(8)), (&short, &long, Some(8)), (&one, &long, None)]
        {
            assert_eq!(stricter(list, gate, 5).0.grace_until_s, end);
        }
        // What the gate has is taken over.
        let secret = StoredSecret { tag: [2; 16], pepper: 1 };
        let gate = KeyRow { plan: "pro".to_owned(), secret, grace_until_s: Some(9), ..row() };
        let (merged, differed) = stricter(&one, &gate, 5);
        assert_eq!(differed, ["secret", "plan"]);
        assert_eq!(
            (merged.secret, merged.grace_until_s, merged.rotated_s),
            (secret, Some(9), Some(5))
        );
        assert_eq!(stricter(&one, &one, 5), (one.clone(), Vec::new()));
    }

    #[test]
    fn sentence_names_the_side_that_holds() {
        for (differed, sentence) in [
            (&["revoked", "grace"][..], "revoked, grace differed, and the stricter side holds"),
            (&["secret", "plan"], "secret, plan differed, and that of the gate holds"),
            (
                &["expires", "plan"],
                "expires differed, and the stricter side holds; plan differed, and that of the \
                 gate holds",
            ),
        ] {
            assert_eq!(outcome_of(differed), sentence);
        }
    }
}
