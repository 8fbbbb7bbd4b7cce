//! Requests that must not be repeated: which one had an `Idempotency-Key` first, and what it made.

use keytally::KeyId;
use sqlx::{AnyConnection, Row as _};

use crate::change::Caller;
use crate::database::Transaction;
use crate::error::{Error, Made, Result};
use crate::list::List;
use crate::{ids, time};

/// How long an `Idempotency-Key` is remembered, in seconds.
const REMEMBERED_S: i64 = 86_400;

/// Refuses a request whose `Idempotency-Key` another one had before.
///
/// # Errors
/// [`Error::RepeatedFor`].
pub(crate) async fn refuse_repeated(transaction: &mut Transaction, caller: &Caller) -> Result<()> {
    sqlx::query("delete from request where at_s < $1")
        .bind(time::stored(caller.now).saturating_sub(REMEMBERED_S))
        .execute(transaction.connection())
        .await?;
    let made = first(transaction.connection(), caller).await?;
    made.map_or(Ok(()), |made| Err(Error::RepeatedFor(made)))
}

/// Remembers the `Idempotency-Key` of a request that made a team.
pub(crate) async fn remember_team(
    transaction: &mut Transaction,
    caller: &Caller,
    team_id: u32,
) -> Result<()> {
    let Some(idempotency_key) = &caller.idempotency_key else { return Ok(()) };
    sqlx::query(
        "insert into request (actor, idempotency_key, key_id, at_s, is_team) \
         values ($1, $2, $3, $4, 1)",
    )
    .bind(caller.actor.to_string())
    .bind(idempotency_key.clone())
    .bind(i64::from(team_id))
    .bind(time::stored(caller.now))
    .execute(transaction.connection())
    .await?;
    Ok(())
}

/// Returns what the first request with the caller's `Idempotency-Key` made or changed.
async fn first(connection: &mut AnyConnection, caller: &Caller) -> Result<Option<Made>> {
    let Some(idempotency_key) = &caller.idempotency_key else { return Ok(None) };
    let row = sqlx::query(
        "select key_id, is_team, (select count(*) from token where token.key_id = request.key_id) \
         as tokens from request where actor = $1 and idempotency_key = $2",
    )
    .bind(caller.actor.to_string())
    .bind(idempotency_key.clone())
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let number: i64 = row.try_get("key_id")?;
    if row.try_get::<i64, _>("is_team")? != 0 {
        return Ok(u32::try_from(number).ok().map(Made::Team));
    }
    let is_token = row.try_get::<i64, _>("tokens")? != 0;
    let made: fn(KeyId) -> Made = if is_token { Made::Token } else { Made::Key };
    Ok(ids::loaded(number).map(made))
}

impl List {
    /// Returns the error of a request with what the first one with its `Idempotency-Key` made.
    pub(crate) async fn explain(&self, error: Error, caller: &Caller) -> Error {
        if !matches!(error, Error::Repeated { .. }) {
            return error;
        }
        let first = async { first(&mut *self.read().await?, caller).await };
        match first.await {
            Ok(Some(made)) => Error::RepeatedFor(made),
            _ => error,
        }
    }
}
