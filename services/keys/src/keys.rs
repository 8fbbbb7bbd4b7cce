//! The rows of keys: what the gate keeps of a key, and what only people need.

use keytally::{KeyId, KeyRecord, KeyState, Name, StoredSecret, Text, Timestamp};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use crate::database::{DatabaseError, Transaction};
use crate::error::{Error, Result};
use crate::{ids, text, time};

/// A key of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// The key's public name.
    pub key_id: KeyId,
    /// The team, which is the key's account in the gate.
    pub team_id: u32,
    /// The environment.
    pub env: Name,
    /// The name.
    pub name: String,
    /// The note.
    pub note: String,
    /// The name of the plan.
    pub plan: String,
    /// The names of the scopes, separated by spaces.
    pub scopes: String,
    /// Whether the key is revoked.
    pub is_revoked: bool,
    /// The moment from which the key is no longer valid, in Unix seconds.
    pub not_after_s: Option<i64>,
    /// The moment from which the previous secret is no longer valid, in Unix seconds.
    pub grace_until_s: Option<i64>,
    /// The last four characters, if the gate keeps them.
    pub last_characters: Option<String>,
    /// Whether the key may have another form than Keytally's.
    pub is_imported: bool,
    /// What the gate keeps of the secret.
    pub secret: StoredSecret,
    /// What the gate keeps of the previous secret.
    pub previous: Option<StoredSecret>,
    /// When the list got the key.
    pub created_s: i64,
    /// Who made it.
    pub created_by: String,
    /// When it got its present secret, if it was rotated.
    pub rotated_s: Option<i64>,
    /// When it was revoked.
    pub revoked_s: Option<i64>,
    /// Who revoked it.
    pub revoked_by: Option<String>,
    /// Why it was revoked, as that actor wrote.
    pub revoked_why: Option<String>,
    /// When the present secret was shown; `None` if no response with it was sent.
    pub shown_s: Option<i64>,
    /// When the key was last used, as far as the sampler knows.
    pub last_used_s: Option<i64>,
    /// The number of its last change.
    pub seq: i64,
}

impl KeyRow {
    /// Returns a new row for a record.
    pub(crate) fn new(
        record: &KeyRecord,
        scopes: String,
        name: String,
        created_by: String,
        now: Timestamp,
    ) -> Self {
        let mut row = Self {
            key_id: record.key_id,
            team_id: record.account,
            env: record.env,
            name,
            note: String::new(),
            plan: String::new(),
            scopes: String::new(),
            is_revoked: false,
            not_after_s: None,
            grace_until_s: None,
            last_characters: None,
            is_imported: false,
            secret: record.secret,
            previous: None,
            created_s: time::stored(now),
            created_by,
            rotated_s: None,
            revoked_s: None,
            revoked_by: None,
            revoked_why: None,
            shown_s: None,
            last_used_s: None,
            seq: 0,
        };
        row.take(record, scopes);
        row
    }

    /// Takes all that a record holds.
    pub(crate) fn take(&mut self, record: &KeyRecord, scopes: String) {
        self.team_id = record.account;
        self.env = record.env;
        self.plan = record.plan.to_string();
        self.scopes = scopes;
        self.is_revoked = record.state == KeyState::Revoked;
        self.not_after_s = record.expires.map(time::stored);
        self.grace_until_s = record.grace_until.map(time::stored);
        self.last_characters = record.last_characters.as_ref().map(ToString::to_string);
        self.is_imported = record.is_imported;
        self.secret = record.secret;
        self.previous = record.previous;
    }

    /// Returns what a gate keeps of the key. `scopes` are the bits of its scopes in that gate.
    ///
    /// # Errors
    /// If the row names a plan that no gate can have.
    pub(crate) fn record(&self, scopes: u64) -> Result<KeyRecord> {
        let plan = Text::from_text(&self.plan).ok_or(keytally::AdminError::NoSuchPlan)?;
        Ok(KeyRecord {
            key_id: self.key_id,
            account: self.team_id,
            env: self.env,
            plan,
            state: if self.is_revoked { KeyState::Revoked } else { KeyState::Active },
            expires: self.not_after_s.map(time::loaded),
            grace_until: self.grace_until_s.map(time::loaded),
            scopes,
            last_characters: self.last_characters.as_deref().and_then(Text::from_text),
            secret: self.secret,
            previous: self.previous,
            is_imported: self.is_imported,
        })
    }

    /// Returns whether the key is expired at `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.not_after_s.is_some_and(|end| end <= time::stored(now))
    }

    /// Returns the state at `now`: `active`, `expired` or `revoked`.
    pub fn state(&self, now: Timestamp) -> &'static str {
        match self.is_revoked {
            true => "revoked",
            false if self.is_expired(now) => "expired",
            false => "active",
        }
    }

    /// Returns what may be shown of the key, such as `kt_live_…9aZk`.
    pub fn hint(&self, prefix: Name) -> String {
        let last = self.last_characters.as_deref().unwrap_or_default();
        if self.is_imported && last.is_empty() {
            return "…".to_owned();
        }
        format!("{}_{}_…{last}", prefix.as_str(), self.env.as_str())
    }
}

/// The columns of a key, in one order everywhere.
macro_rules! columns {
    () => {
        "key_id, team_id, env, name, note, plan, scopes, state, not_after_s, grace_until_s, \
         last_characters, imported, tag, pepper, previous_tag, previous_pepper, created_s, \
         created_by, rotated_s, revoked_s, revoked_by, revoked_why, shown_s, last_used_s, seq"
    };
}

/// Adds a key.
pub(crate) async fn insert(
    transaction: &mut Transaction,
    row: &KeyRow,
) -> Result<(), DatabaseError> {
    let query = sqlx::query(concat!(
        "insert into \"key\" (",
        columns!(),
        ") values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, \
         $18, $19, $20, $21, $22, $23, $24, $25)"
    ));
    bind(query, row).execute(transaction.connection()).await?;
    Ok(())
}

/// Replaces all of a key but who made it and when, when it was shown, and its last use.
pub(crate) async fn update(
    transaction: &mut Transaction,
    row: &KeyRow,
) -> Result<(), DatabaseError> {
    let query = sqlx::query(
        "update \"key\" set team_id = $2, env = $3, name = $4, note = $5, plan = $6, scopes = $7, \
         state = $8, not_after_s = $9, grace_until_s = $10, last_characters = $11, imported = $12, \
         tag = $13, pepper = $14, previous_tag = $15, previous_pepper = $16, created_s = $17, \
         created_by = $18, rotated_s = $19, revoked_s = $20, revoked_by = $21, revoked_why = $22, \
         shown_s = $23, last_used_s = $24, seq = $25 where key_id = $1",
    );
    bind(query, row).execute(transaction.connection()).await?;
    Ok(())
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Any, sqlx::any::AnyArguments>;

fn bind<'q>(query: Query<'q>, row: &KeyRow) -> Query<'q> {
    query
        .bind(ids::stored(row.key_id))
        .bind(i64::from(row.team_id))
        .bind(row.env.as_str().to_owned())
        .bind(row.name.clone())
        .bind(row.note.clone())
        .bind(row.plan.clone())
        .bind(row.scopes.clone())
        .bind(if row.is_revoked { "revoked" } else { "active" })
        .bind(row.not_after_s)
        .bind(row.grace_until_s)
        .bind(row.last_characters.clone())
        .bind(i64::from(row.is_imported))
        .bind(row.secret.tag.to_vec())
        .bind(row.secret.pepper.cast_signed())
        .bind(row.previous.map(|secret| secret.tag.to_vec()))
        .bind(row.previous.map(|secret| secret.pepper.cast_signed()))
        .bind(row.created_s)
        .bind(row.created_by.clone())
        .bind(row.rotated_s)
        .bind(row.revoked_s)
        .bind(row.revoked_by.clone())
        .bind(row.revoked_why.clone())
        .bind(row.shown_s)
        .bind(row.last_used_s)
        .bind(row.seq)
}

/// Returns a key, of any team.
pub(crate) async fn find(
    connection: &mut AnyConnection,
    key_id: KeyId,
) -> Result<Option<KeyRow>, DatabaseError> {
    let row = sqlx::query(concat!("select ", columns!(), " from \"key\" where key_id = $1"))
        .bind(ids::stored(key_id))
        .fetch_optional(connection)
        .await?;
    Ok(row.as_ref().map(load).transpose()?)
}

/// Returns a key of a team; of any team if there is none. A key of another team is as unknown as
/// one that is not there.
pub(crate) async fn find_of(
    connection: &mut AnyConnection,
    team_id: Option<u32>,
    key_id: KeyId,
) -> Result<KeyRow> {
    let row = find(connection, key_id).await?;
    row.filter(|row| team_id.is_none_or(|team_id| row.team_id == team_id))
        .ok_or_else(|| Error::not_found("key", key_id))
}

/// Returns the keys that changed after a number, in the order of their changes.
pub(crate) async fn changed_after(
    connection: &mut AnyConnection,
    seq: u64,
    limit: i64,
) -> Result<Vec<KeyRow>, DatabaseError> {
    let rows = sqlx::query(concat!(
        "select ",
        columns!(),
        " from \"key\" where seq > $1 order by seq limit $2"
    ))
    .bind(i64::try_from(seq).unwrap_or(i64::MAX))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    Ok(rows.iter().map(load).collect::<Result<_, _>>()?)
}

/// Returns the number of the last change of a key.
pub(crate) async fn last_seq(connection: &mut AnyConnection) -> Result<u64, DatabaseError> {
    let row = sqlx::query("select seq from \"key\" order by seq desc limit 1")
        .fetch_optional(connection)
        .await?;
    let seq: i64 = row.map(|row| row.try_get(0)).transpose()?.unwrap_or(0);
    Ok(u64::try_from(seq).unwrap_or(0))
}

/// The conditions and the order of a list.
macro_rules! conditions {
    ($search:literal) => {
        concat!(" and ", $search, conditions!())
    };
    () => {
        " and ($2 = '' or ($2 = 'revoked' and state = 'revoked') \
         or ($2 = 'active' and state = 'active' and coalesce(not_after_s, $3 + 1) > $3) \
         or ($2 = 'expired' and state = 'active' and coalesce(not_after_s, $3 + 1) <= $3)) \
         and ($4 = '' or env = $4) and ($5 = '' or plan = $5) \
         and (created_s, key_id) < ($7, $8) \
         order by created_s desc, key_id desc limit $9"
    };
}

/// Which keys to list.
#[derive(Clone, Debug, Default)]
pub struct KeyFilter {
    /// Those of a team; `None` for all teams.
    pub team_id: Option<u32>,
    /// Those in this state: `active`, `expired` or `revoked`; empty for all.
    pub state: String,
    /// Those of an environment; empty for all.
    pub env: String,
    /// Those of a plan; empty for all.
    pub plan: String,
    /// Those whose name contains this text; empty for all.
    pub search: String,
    /// Those after this one, in the order of the list.
    pub after: Option<(i64, KeyId)>,
    /// The most keys.
    pub limit: i64,
}

/// A statement that lists keys. One text for each kind of filter, so that its index is used.
macro_rules! listed {
    ($of:literal, $search:literal) => {
        concat!("select ", columns!(), " from \"key\" where ", $of, conditions!($search))
    };
}

/// The condition of a search that reads names.
macro_rules! like {
    ($of:literal) => {
        listed!($of, "lower(name) like $6 escape '\\'")
    };
}

/// The condition of a search whose keys are known. The index of the team is not used.
macro_rules! known {
    ($of:literal) => {
        listed!($of, "key_id in (select value from json_each($6))")
    };
}

/// The most keys that a search finds by the parts of their names. A text that is in more names is
/// found soon by reading the names, the newest first.
const MOST_MATCHES: i64 = 2000;

/// The names of a team with at most this many keys are read.
const SMALL_TEAM: i64 = 20_000;

/// Returns the keys of a search as a list in JSON; `None` if it reads names. `has_parts` is whether
/// the database has the table of the parts of names.
async fn matches(
    connection: &mut AnyConnection,
    filter: &KeyFilter,
    has_parts: bool,
) -> Result<Option<String>, DatabaseError> {
    let Some(phrase) = text::phrase(&filter.search).filter(|_| has_parts) else {
        return Ok(None);
    };
    // Names are compared without case in ASCII only.
    if let Some(team_id) = filter.team_id.filter(|_| filter.search.is_ascii()) {
        let keys =
            sqlx::query("select count(*) from (select 1 from \"key\" where team_id = $1 limit $2)")
                .bind(i64::from(team_id))
                .bind(SMALL_TEAM.saturating_add(1))
                .fetch_one(&mut *connection)
                .await?;
        if keys.try_get::<i64, _>(0)? <= SMALL_TEAM {
            return Ok(None);
        }
    }
    let row = sqlx::query(
        "select count(*), '[' || coalesce(group_concat(number), '') || ']' from \
         (select rowid as number from key_name where key_name match $1 limit $2)",
    )
    .bind(phrase)
    .bind(MOST_MATCHES.saturating_add(1))
    .fetch_one(connection)
    .await?;
    let is_rare = row.try_get::<i64, _>(0)? <= MOST_MATCHES;
    is_rare.then(|| Ok(row.try_get(1)?)).transpose()
}

/// Returns the keys of a filter, the newest first. `has_parts` is whether the database has the
/// table of the parts of names.
pub(crate) async fn list(
    connection: &mut AnyConnection,
    filter: &KeyFilter,
    has_parts: bool,
    now: Timestamp,
) -> Result<Vec<KeyRow>, DatabaseError> {
    let matches = matches(connection, filter, has_parts).await?;
    let has_team = filter.team_id.is_some();
    let statement = match (&matches, has_team) {
        (Some(_), true) => known!("+team_id = $1"),
        (Some(_), false) => known!("$1 < 0"),
        (None, true) if filter.search.is_empty() => listed!("team_id = $1", "$6 = ''"),
        (None, false) if filter.search.is_empty() => listed!("$1 < 0", "$6 = ''"),
        (None, true) => like!("team_id = $1"),
        (None, false) => like!("$1 < 0"),
    };
    let (after_s, after) = match filter.after {
        Some((created_s, key_id)) => (created_s, ids::stored(key_id)),
        None => (i64::MAX, i64::MAX),
    };
    let rows = sqlx::query(statement)
        .bind(filter.team_id.map_or(-1, i64::from))
        .bind(filter.state.clone())
        .bind(time::stored(now))
        .bind(filter.env.clone())
        .bind(filter.plan.clone())
        .bind(matches.unwrap_or_else(|| text::pattern(&filter.search)))
        .bind(after_s)
        .bind(after)
        .bind(filter.limit)
        .fetch_all(connection)
        .await?;
    Ok(rows.iter().map(load).collect::<Result<_, _>>()?)
}

/// Returns all keys after an id, for comparisons with a gate.
pub(crate) async fn page(
    connection: &mut AnyConnection,
    after: i64,
    limit: i64,
) -> Result<Vec<KeyRow>, DatabaseError> {
    let rows = sqlx::query(concat!(
        "select ",
        columns!(),
        " from \"key\" where key_id > $1 order by key_id limit $2"
    ))
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    Ok(rows.iter().map(load).collect::<Result<_, _>>()?)
}

/// Returns a row of the database.
fn load(row: &AnyRow) -> Result<KeyRow, sqlx::Error> {
    let secret = |tag: Vec<u8>, pepper: i64| {
        let tag = <[u8; 16]>::try_from(tag).ok()?;
        Some(StoredSecret { tag, pepper: pepper.cast_unsigned() })
    };
    let damaged =
        |column: &str| sqlx::Error::Decode(format!("column {column} of a key is damaged").into());
    let previous_tag: Option<Vec<u8>> = row.try_get("previous_tag")?;
    let previous_pepper: Option<i64> = row.try_get("previous_pepper")?;
    let env: String = row.try_get("env")?;
    let team_id: i64 = row.try_get("team_id")?;
    Ok(KeyRow {
        key_id: ids::loaded(row.try_get("key_id")?).ok_or_else(|| damaged("key_id"))?,
        team_id: u32::try_from(team_id).map_err(|_| damaged("team_id"))?,
        env: Name::new(&env).ok_or_else(|| damaged("env"))?,
        name: row.try_get("name")?,
        note: row.try_get("note")?,
        plan: row.try_get("plan")?,
        scopes: row.try_get("scopes")?,
        is_revoked: row.try_get::<String, _>("state")? == "revoked",
        not_after_s: row.try_get("not_after_s")?,
        grace_until_s: row.try_get("grace_until_s")?,
        last_characters: row.try_get("last_characters")?,
        is_imported: row.try_get::<i64, _>("imported")? != 0,
        secret: secret(row.try_get("tag")?, row.try_get("pepper")?)
            .ok_or_else(|| damaged("tag"))?,
        previous: previous_tag.zip(previous_pepper).and_then(|(tag, pepper)| secret(tag, pepper)),
        created_s: row.try_get("created_s")?,
        created_by: row.try_get("created_by")?,
        rotated_s: row.try_get("rotated_s")?,
        revoked_s: row.try_get("revoked_s")?,
        revoked_by: row.try_get("revoked_by")?,
        revoked_why: row.try_get("revoked_why")?,
        shown_s: row.try_get("shown_s")?,
        last_used_s: row.try_get("last_used_s")?,
        seq: row.try_get("seq")?,
    })
}
