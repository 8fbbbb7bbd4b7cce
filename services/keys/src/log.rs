//! The log: one entry for each change, in the transaction of the change. Entries are never changed.

use keytally::{KeyId, Timestamp};
use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};
use utoipa::ToSchema;

use crate::database::{DatabaseError, Transaction};
use crate::error::{Error, Result};
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
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Those of a team; `None` for all teams.
    pub team_id: Option<u32>,
    /// Those of a key; `None` for all.
    pub key_id: Option<KeyId>,
    /// Those of one of these keys, at most [`MOST_SEVERAL`]; empty for all.
    pub key_ids: Vec<KeyId>,
    /// Those of an actor; `None` for all.
    pub actor: Option<ActorFilter>,
    /// Those of an action, such as `key.create`, or of all actions of a kind, such as `key`; empty
    /// for all.
    pub action: String,
    /// Those from this moment on; `None` from the first.
    pub from: Option<Timestamp>,
    /// Those before this moment; `None` to the last.
    pub to: Option<Timestamp>,
    /// Those before this number; `None` for the newest.
    pub before: Option<i64>,
    /// The most entries.
    pub limit: i64,
}

/// The most keys, and the most actors, of which a filter has the entries together.
pub const MOST_SEVERAL: usize = 20;

/// An actor of the log, all of a kind, or several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActorFilter {
    /// The kind; empty for several actors.
    kind: &'static str,
    /// The name of the actor; empty for all of the kind.
    name: String,
    /// Several actors, as the log names them.
    several: Vec<String>,
}

impl ActorFilter {
    /// Parses an actor as the log names it: `user 3`, `token` and its id, `operator shell`,
    /// `operator page`, or a kind alone. Returns `None` for another text.
    pub fn named(text: &str) -> Option<Self> {
        let (kind, name) =
            text.split_once(' ').map_or((text, None), |(kind, name)| (kind, Some(name)));
        let kind =
            ["operator", "reconcile", "token", "user"].into_iter().find(|its| *its == kind)?;
        let is_name = |name: &str| match kind {
            "operator" => ["shell", "page"].contains(&name),
            "token" => name.parse::<KeyId>().is_ok(),
            "user" => name.parse::<i64>().is_ok_and(|number| number.to_string() == name),
            _ => false,
        };
        let name = name.unwrap_or_default();
        let filter = || Self { kind, name: name.to_owned(), ..Self::default() };
        (name.is_empty() || is_name(name)).then(filter)
    }

    /// Returns several actors, as the log names them. Those after [`MOST_SEVERAL`] are left out.
    pub(crate) fn several(mut actors: Vec<String>) -> Self {
        actors.truncate(MOST_SEVERAL);
        Self { several: actors, ..Self::default() }
    }

    /// Returns the actor that compares the list with the gate.
    pub(crate) fn reconcile() -> Self {
        Self { kind: "reconcile", ..Self::default() }
    }

    /// Returns the actor of a user.
    pub(crate) fn user(user_id: i64) -> Self {
        Self { kind: "user", name: user_id.to_string(), ..Self::default() }
    }
}

/// Returns a text that is the name of an action, such as `key.create`, or of a kind of actions.
///
/// # Errors
/// A sentence that names the field.
pub fn action(field: &'static str, text: &str) -> Result<String> {
    let is_word = |word: &str| {
        let is_plain = word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        is_plain && (1..=24).contains(&word.len())
    };
    let words: Vec<_> = text.split('.').collect();
    if words.len() <= 2 && words.iter().all(|word| is_word(word)) {
        return Ok(text.to_owned());
    }
    Err(Error::invalid(field, "it must be an action, such as key.revoke, or a kind, such as key"))
}

/// A statement that returns entries. `$of` is what an index finds. The others are not indexed, so
/// that the index has the order. The parameters 10 to 29 are several actors, and 30 to 49 several
/// keys.
macro_rules! entries {
    ($of:literal, $at:literal, $order:literal) => {
        concat!(
            "select seq, at_s, team_id, actor_kind, actor, address, action, key_id, detail \
             from log where ",
            $of,
            " and ($1 < 0 or +team_id = $1) and ($2 = 0 or +key_id = $2) \
             and ($5 = '' or actor_kind = $5) and ($6 = '' or actor = $6) \
             and ($7 = '' or action = $7 or substr(action, 1, length($7) + 1) = $7 || '.') \
             and ($10 = '' or actor_kind || ' ' || actor in ($10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, \
             $22, $23, $24, $25, $26, $27, $28, $29)) \
             and ($30 = 0 or +key_id in ($30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40, $41, \
             $42, $43, $44, $45, $46, $47, $48, $49)) and ",
            $at,
            " ",
            $order,
            " limit $4"
        )
    };
    ($of:literal) => {
        entries!($of, "+at_s >= $8 and +at_s < $9", "and seq < $3 order by seq desc")
    };
}

const OF_ALL: &str = entries!("seq > 0");
const OF_KEY: &str = entries!("key_id = $2");
const OF_TEAM: &str = entries!("team_id = $1");
const OF_ACTOR: &str = entries!("team_id = $1 and actor_kind = $5 and actor = $6");
/// Those of a range of time, in the order of the clock.
const OF_TIME: &str = entries!(
    "team_id = $1 and at_s <= $50",
    "at_s >= $8 and at_s < $9",
    "and (at_s < $50 or seq < $3) order by at_s desc, seq desc"
);

/// Returns the statement of a filter.
fn statement(filter: &Filter) -> &'static str {
    let has_name = filter.actor.as_ref().is_some_and(|actor| !actor.name.is_empty());
    match (filter.key_id, filter.team_id) {
        (Some(_), _) => OF_KEY,
        (None, None) => OF_ALL,
        (None, Some(_)) if has_name => OF_ACTOR,
        (None, Some(_)) if filter.from.is_some() || filter.to.is_some() => OF_TIME,
        (None, Some(_)) => OF_TEAM,
    }
}

/// Returns the newest entries first.
pub(crate) async fn entries(
    connection: &mut AnyConnection,
    filter: &Filter,
) -> Result<Vec<Entry>, DatabaseError> {
    let statement = statement(filter);
    let before = filter.before.unwrap_or(i64::MAX);
    let ActorFilter { kind, name, several } = filter.actor.clone().unwrap_or_default();
    let mut query = sqlx::query(statement)
        .bind(filter.team_id.map_or(-1, i64::from))
        .bind(filter.key_id.map_or(0, ids::stored))
        .bind(before)
        .bind(filter.limit)
        .bind(kind)
        .bind(name)
        .bind(filter.action.clone())
        .bind(filter.from.map_or(0, time::stored))
        .bind(filter.to.map_or(i64::MAX, time::stored));
    for index in 0..MOST_SEVERAL {
        query = query.bind(several.get(index).cloned().unwrap_or_default());
    }
    for index in 0..MOST_SEVERAL {
        query = query.bind(filter.key_ids.get(index).map_or(0, |&key_id| ids::stored(key_id)));
    }
    if statement == OF_TIME {
        let row = sqlx::query("select at_s from log where seq = $1")
            .bind(before)
            .fetch_optional(&mut *connection)
            .await?;
        let before_s = row.map(|row| row.try_get(0)).transpose()?.unwrap_or(i64::MAX);
        query = query.bind(before_s);
    }
    let rows = query.fetch_all(connection).await?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Database;

    #[test]
    fn actor_is_named_as_the_log_names_it() {
        for text in [
            "operator",
            "operator page",
            "operator shell",
            "reconcile",
            "token",
            "token 0000000000A",
            "user",
            "user 3",
        ] {
            let actor = ActorFilter::named(text).unwrap();
            assert_eq!(format!("{} {}", actor.kind, actor.name).trim(), text);
        }
        for text in ["", "ann", "user ann", "user 03", "user +3", "operator x", "token x", "User 3"]
        {
            assert_eq!(ActorFilter::named(text), None, "{text}");
        }
    }

    #[test]
    fn action_is_one_or_two_words() {
        for text in ["key", "key.create", "key.end_grace"] {
            assert_eq!(action("action", text).unwrap(), text);
        }
        for text in ["", ".", "key.", "Key", "a.b.c", "%", &"a".repeat(25)] {
            assert!(action("action", text).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn every_filter_of_a_team_has_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let url = Database::url_of_file(&folder.path().join("keys.db"));
        let database = Database::open(&url).await.unwrap();
        let mut connection = database.read().await.unwrap();
        for (statement, index) in [
            (OF_KEY, "log_of_key"),
            (OF_TEAM, "log_of_team"),
            (OF_ACTOR, "log_of_actor"),
            (OF_TIME, "log_of_time"),
        ] {
            let text = sqlx::AssertSqlSafe(format!("explain query plan {statement}"));
            let mut query = sqlx::query(text).bind(1_i64).bind(1_i64).bind(1_i64).bind(1_i64);
            query = query.bind("user").bind("1").bind("").bind(0_i64).bind(9_i64);
            for _ in 0..MOST_SEVERAL {
                query = query.bind("");
            }
            for _ in 0..=MOST_SEVERAL {
                query = query.bind(9_i64);
            }
            let rows = query.fetch_all(&mut *connection).await.unwrap();
            let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
            // Without a sort, which would read all entries of the index.
            assert_eq!(plan.len(), 1, "{plan:?}");
            assert!(plan[0].contains(&format!("INDEX {index} ")), "{statement}: {plan:?}");
        }
    }
}
