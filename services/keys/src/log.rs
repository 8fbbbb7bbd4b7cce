//! The log: one entry for each change, in the transaction of the change. Entries are never changed.

use keytally::KeyId;
use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};
use utoipa::ToSchema;

use crate::database::{DatabaseError, Transaction};
use crate::roles::Actor;
use crate::{ids, time};

/// An entry to append.
#[derive(Debug)]
pub(crate) struct NewEntry<'a> {
    pub(crate) team_id: Option<u32>,
    pub(crate) actor: &'a Actor,
    pub(crate) action: &'static str,
    pub(crate) key_id: Option<KeyId>,
    pub(crate) detail: String,
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Entry {
    /// The number of the change.
    pub seq: i64,
    /// When.
    pub at: String,
    /// The team; none for a change that concerns no team.
    pub team: Option<i64>,
    /// The kind of actor: `operator`, `reconcile`, `token` or `user`.
    pub actor_kind: String,
    /// The name of the actor; that of a token is its key id, and that of a user the user's number.
    pub actor: String,
    /// The address that the request came from.
    pub address: Option<String>,
    /// What was done, such as `key.create`.
    pub action: String,
    /// The key that was changed.
    pub key_id: Option<String>,
    /// More on the change.
    pub detail: String,
}

/// Appends an entry, and returns the number of the change.
pub(crate) async fn append(
    transaction: &mut Transaction,
    entry: NewEntry<'_>,
    now_s: i64,
) -> Result<i64, DatabaseError> {
    let seq = transaction.next_seq();
    sqlx::query(
        "insert into log (seq, at_s, team_id, actor_kind, actor, address, action, key_id, detail) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(seq)
    .bind(now_s)
    .bind(entry.team_id.map(i64::from))
    .bind(entry.actor.kind())
    .bind(entry.actor.name().to_owned())
    .bind(entry.actor.address().map(str::to_owned))
    .bind(entry.action)
    .bind(entry.key_id.map(ids::stored))
    .bind(entry.detail)
    .execute(transaction.connection())
    .await?;
    Ok(seq)
}

/// Which entries to return.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Those of a team; `None` for all teams.
    pub team_id: Option<u32>,
    /// Those of a key; `None` for all.
    pub key_id: Option<KeyId>,
    /// Those before this number; `None` for the newest.
    pub before: Option<i64>,
    /// The most entries.
    pub limit: i64,
}

/// Returns the newest entries first.
pub(crate) async fn entries(
    connection: &mut AnyConnection,
    filter: &Filter,
) -> Result<Vec<Entry>, DatabaseError> {
    entries_of(connection, filter, "").await
}

/// Returns the newest entries first, of actions that begin with a text.
pub(crate) async fn entries_of(
    connection: &mut AnyConnection,
    filter: &Filter,
    action: &str,
) -> Result<Vec<Entry>, DatabaseError> {
    let rows = sqlx::query(
        "select seq, at_s, team_id, actor_kind, actor, address, action, key_id, detail from log \
         where ($1 < 0 or team_id = $1) and ($2 = 0 or key_id = $2) and seq < $3 \
         and ($5 = '' or substr(action, 1, length($5)) = $5) order by seq desc limit $4",
    )
    .bind(filter.team_id.map_or(-1, i64::from))
    .bind(filter.key_id.map_or(0, ids::stored))
    .bind(filter.before.unwrap_or(i64::MAX))
    .bind(filter.limit)
    .bind(action.to_owned())
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| entry(row).map_err(DatabaseError::from)).collect()
}

fn entry(row: &AnyRow) -> Result<Entry, sqlx::Error> {
    Ok(Entry {
        seq: row.try_get("seq")?,
        at: time::shown(row.try_get("at_s")?),
        team: row.try_get("team_id")?,
        actor_kind: row.try_get("actor_kind")?,
        actor: row.try_get("actor")?,
        address: row.try_get("address")?,
        action: row.try_get("action")?,
        key_id: row.try_get::<Option<i64>, _>("key_id")?.map(ids::shown),
        detail: row.try_get("detail")?,
    })
}
