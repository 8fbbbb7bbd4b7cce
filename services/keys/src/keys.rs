//! The rows of keys: what the gate keeps of a key, and what only people need.

use core::fmt;

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

    /// Returns the moment until which the previous secret is valid, in Unix seconds: the end of its
    /// grace or that of the key, whichever is earlier. `None` if it is not valid at `now`.
    pub fn old_secret_until_s(&self, now: Timestamp) -> Option<i64> {
        let until = self.grace_until_s.map(|end| end.min(self.not_after_s.unwrap_or(end)));
        until.filter(|&end| end > time::stored(now))
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

/// Returns an active key of an environment of a team that has a name, without case in ASCII.
pub(crate) async fn active_of_name(
    connection: &mut AnyConnection,
    team_id: u32,
    env: &str,
    name: &str,
    now: Timestamp,
) -> Result<Option<KeyRow>, DatabaseError> {
    let row = sqlx::query(concat!(
        "select ",
        columns!(),
        " from \"key\" where team_id = $1 and lower(name) = lower($2) and state = 'active' \
         and coalesce(not_after_s, $3 + 1) > $3 and env = $4 order by key_id limit 1"
    ))
    .bind(i64::from(team_id))
    .bind(name.to_owned())
    .bind(time::stored(now))
    .bind(env.to_owned())
    .fetch_optional(connection)
    .await?;
    Ok(row.as_ref().map(load).transpose()?)
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

/// By what a list is sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortBy {
    /// When the list got the key.
    #[default]
    Created,
    /// The name, without case in ASCII.
    Name,
    /// The last use. A key that was never used is before all others.
    LastUsed,
    /// The expiry. A key that never expires is after all others.
    Expires,
}

/// The order of a list. Keys of one value are in the order of their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// By what it is sorted.
    pub by: SortBy,
    /// Whether the greatest value is first.
    pub is_descending: bool,
}

impl Default for Sort {
    /// Returns the order with the newest key first.
    fn default() -> Self {
        Self { by: SortBy::Created, is_descending: true }
    }
}

/// The names of all orders. That with a sign is descending.
pub const SORTS: [&str; 8] =
    ["created", "-created", "name", "-name", "last_used", "-last_used", "expires", "-expires"];

impl Sort {
    /// Returns the order of a name: `created`, `name`, `last_used` or `expires`, after a `-` if it
    /// is descending.
    pub fn named(name: &str) -> Option<Self> {
        let by = match name.trim_start_matches('-') {
            "created" => SortBy::Created,
            "name" => SortBy::Name,
            "last_used" => SortBy::LastUsed,
            "expires" => SortBy::Expires,
            _ => return None,
        };
        SORTS.contains(&name).then(|| Self { by, is_descending: name.starts_with('-') })
    }

    /// Returns the name.
    pub fn as_str(self) -> &'static str {
        match (self.by, self.is_descending) {
            (SortBy::Created, false) => "created",
            (SortBy::Created, true) => "-created",
            (SortBy::Name, false) => "name",
            (SortBy::Name, true) => "-name",
            (SortBy::LastUsed, false) => "last_used",
            (SortBy::LastUsed, true) => "-last_used",
            (SortBy::Expires, false) => "expires",
            (SortBy::Expires, true) => "-expires",
        }
    }
}

/// A value by which a list is sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
enum SortValue {
    Number(i64),
    Text(String),
}

/// A position in a list: after a key. It has the key's value, so that a page continues there if the
/// key has got another value since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    by: SortBy,
    value: SortValue,
    key_id: KeyId,
}

/// The expiry of a key that never expires, in an order.
const NEVER_S: i64 = 9_999_999_999;

/// The most characters of a cursor.
const MAX_CURSOR_LEN: usize = 600;

impl Cursor {
    /// Parses a cursor of an order.
    pub fn parse(sort: Sort, text: &str) -> Option<Self> {
        let (value, key_id) = text.split_once('.')?;
        let key_id = key_id.parse().ok()?;
        let number = |text: &str| {
            let is_plain = text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| is_plain).map(SortValue::Number)
        };
        let value = match sort.by {
            SortBy::Created => number(value)?,
            SortBy::LastUsed => number(value.strip_prefix('u')?)?,
            SortBy::Expires => number(value.strip_prefix('e')?)?,
            SortBy::Name => SortValue::Text(unhex(value.strip_prefix('n')?)?),
        };
        (text.len() <= MAX_CURSOR_LEN).then_some(Self { by: sort.by, value, key_id })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.by {
            SortBy::Created => "",
            SortBy::Name => "n",
            SortBy::LastUsed => "u",
            SortBy::Expires => "e",
        })?;
        match &self.value {
            SortValue::Number(number) => write!(f, "{number}")?,
            SortValue::Text(text) => {
                text.bytes().try_for_each(|byte| write!(f, "{byte:02x}"))?;
            }
        }
        write!(f, ".{}", self.key_id)
    }
}

/// Returns the text of hex digits, if a name may have it.
fn unhex(digits: &str) -> Option<String> {
    let byte = |pair: &[u8]| {
        let digits = core::str::from_utf8(pair).ok().filter(|digits| digits.len() == 2)?;
        u8::from_str_radix(digits, 16).ok()
    };
    let bytes: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(byte).collect();
    String::from_utf8(bytes?).ok().filter(|text| !text.contains(char::is_control))
}

impl KeyRow {
    /// Returns the position after this key in an order.
    pub fn cursor(&self, sort: Sort) -> Cursor {
        let value = match sort.by {
            SortBy::Created => SortValue::Number(self.created_s),
            SortBy::Name => SortValue::Text(self.name.clone()),
            SortBy::LastUsed => SortValue::Number(self.last_used_s.unwrap_or(0)),
            SortBy::Expires => SortValue::Number(self.not_after_s.unwrap_or(NEVER_S)),
        };
        Cursor { by: sort.by, value, key_id: self.key_id }
    }
}

/// How long before its expiry a key is said to expire soon, in seconds.
pub const SOON_S: i64 = 14 * 86_400;

/// How long after its last use a key is said to be unused, in seconds.
pub const UNUSED_S: i64 = 90 * 86_400;

/// What to look at: the active keys that expire soon, that never expire, that were not used for
/// long, or whose old secret was used since the rotation and is still valid.
pub const FLAGS: [&str; 4] = ["expires_soon", "never_expires", "unused", "old_secret_used"];

/// Which keys to list.
#[derive(Clone, Debug, Default)]
pub struct KeyFilter {
    /// Those of a team; `None` for all teams.
    pub team_id: Option<u32>,
    /// Those in this state: `active`, `expired`, `revoked`, or `unrevoked` for the first two; empty
    /// for all.
    pub state: String,
    /// Those of an environment; empty for all.
    pub env: String,
    /// Those of a plan; empty for all.
    pub plan: String,
    /// Those with this one of [`FLAGS`]; empty for all.
    pub flag: String,
    /// Those whose name contains this text, and those with this id or hint; empty for all.
    pub search: String,
    /// The order.
    pub sort: Sort,
    /// Those after this position in the order.
    pub after: Option<Cursor>,
    /// The most keys.
    pub limit: i64,
}

/// The requests that were admitted with the secret of a key before its last rotation, since that
/// rotation. Each row of keys has one such number.
///
/// Hours are kept for 90 days. The minutes before the rotation in its hour do not count, and are
/// kept for a day. Without them, uses of an older secret in that hour count too. A use in the
/// minute of the rotation counts.
macro_rules! old_uses {
    () => {
        "((select coalesce(sum(its.old_secret), 0) from usage as its where its.width = 'hour' \
         and its.key_id = \"key\".key_id and its.start_s > coalesce(rotated_s, 0) - 3600) \
         - (select coalesce(sum(its.old_secret), 0) from usage as its where its.width = 'minute' \
         and its.key_id = \"key\".key_id and its.start_s >= rotated_s - rotated_s % 3600 \
         and its.start_s < rotated_s - rotated_s % 60))"
    };
}
pub(crate) use old_uses;

/// The conditions of a list. The parameters 8 to 10 are the moments of [`SOON_S`] and [`UNUSED_S`],
/// and the flag.
macro_rules! conditions {
    () => {
        concat!(
            " and ($2 = '' or ($2 = 'revoked' and state = 'revoked') \
         or ($2 = 'unrevoked' and state = 'active') \
         or ($2 = 'active' and state = 'active' and coalesce(not_after_s, $3 + 1) > $3) \
         or ($2 = 'expired' and state = 'active' and coalesce(not_after_s, $3 + 1) <= $3)) \
         and ($4 = '' or env = $4) and ($5 = '' or plan = $5) \
         and ($10 = '' or (state = 'active' and coalesce(not_after_s, $3 + 1) > $3 and ( \
         ($10 = 'expires_soon' and coalesce(not_after_s, $8 + 1) <= $8) \
         or ($10 = 'never_expires' and not_after_s is null) \
         or ($10 = 'unused' and coalesce(last_used_s, created_s) <= $9) \
         or ($10 = 'old_secret_used' and coalesce(grace_until_s, 0) > $3 and ",
            old_uses!(),
            " > 0))))"
        )
    };
}

/// A statement that lists keys. One text for each kind of filter and order, so that its index is
/// used.
macro_rules! listed {
    ($of:expr, $search:expr, $($order:tt)*) => {
        concat!(
            "select ", columns!(), " from \"key\" where ", $of, " and ", $search, conditions!(),
            $($order)*, " limit $7"
        )
    };
}

/// The order by a column, and the position after which the list continues. SQLite finds it in an
/// index of an expression only by `$bound`, which is that expression.
macro_rules! order {
    ($column:literal, $bound:literal, $sign:literal, $value:literal, $direction:literal) => {
        concat!(
            " and ",
            $bound,
            " ",
            $sign,
            "= ",
            $value,
            " and (",
            $column,
            ", key_id) ",
            $sign,
            " (",
            $value,
            ", $12) order by ",
            $column,
            " ",
            $direction,
            ", key_id ",
            $direction
        )
    };
    ($column:literal, $direction:literal) => {
        concat!(" order by ", $column, " ", $direction, ", key_id ", $direction)
    };
}

/// A statement that counts keys, up to a limit.
macro_rules! counted {
    ($of:expr, $search:expr) => {
        concat!(
            "select count(*) from (select 1 from \"key\" where ",
            $of,
            " and ",
            $search,
            conditions!(),
            " limit $7) as found"
        )
    };
}

/// The most keys that a search finds by one hint, the newest first.
pub const MOST_HINTED: usize = 20;

/// The condition of the keys that a search finds by their ids and hints: as many as
/// [`MOST_HINTED`] says.
macro_rules! hinted {
    () => {
        "key_id in ($13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, \
         $28, $29, $30, $31, $32)"
    };
}

/// How the keys of a list are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// All keys.
    All,
    /// By their names.
    Names,
    /// By their names, and those with these ids.
    NamesAndIds,
    /// By their ids, which the database read from the parts of names. The index of the team is not
    /// used.
    Known,
    /// By their ids.
    Ids,
}

/// Expands to the statement of a way, of a team or of all teams.
macro_rules! of_way {
    ($way:expr, $has_team:expr, $statement:ident $($order:tt)*) => {
        match ($way, $has_team) {
            (Way::Known, true) => $statement!(
                "+team_id = $1", "key_id in (select value from json_each($6))" $($order)*
            ),
            (Way::Known, false) => $statement!(
                "$1 < 0", "key_id in (select value from json_each($6))" $($order)*
            ),
            (Way::All, true) => $statement!("team_id = $1", "$6 = ''" $($order)*),
            (Way::All, false) => $statement!("$1 < 0", "$6 = ''" $($order)*),
            (Way::Names, true) => {
                $statement!("team_id = $1", "lower(name) like $6 escape '\\'" $($order)*)
            }
            (Way::Names, false) => {
                $statement!("$1 < 0", "lower(name) like $6 escape '\\'" $($order)*)
            }
            (Way::NamesAndIds, true) => $statement!(
                "team_id = $1", concat!("(lower(name) like $6 escape '\\' or ", hinted!(), ")") $($order)*
            ),
            (Way::NamesAndIds, false) => $statement!(
                "$1 < 0", concat!("(lower(name) like $6 escape '\\' or ", hinted!(), ")") $($order)*
            ),
            (Way::Ids, true) => $statement!("+team_id = $1", concat!("$6 <> '' and ", hinted!()) $($order)*),
            (Way::Ids, false) => $statement!("$1 < 0", concat!("$6 <> '' and ", hinted!()) $($order)*),
        }
    };
}

/// Returns the statement of a list in an order.
fn statement(way: Way, has_team: bool, sort: Sort, is_first: bool) -> &'static str {
    macro_rules! found {
        ($($order:tt)*) => { of_way!(way, has_team, listed, $($order)*) };
    }
    macro_rules! ordered {
        ($column:literal, $bound:literal, $value:literal) => {
            match (is_first, sort.is_descending) {
                (true, false) => found!(order!($column, "asc")),
                (true, true) => found!(order!($column, "desc")),
                (false, false) => found!(order!($column, $bound, ">", $value, "asc")),
                (false, true) => found!(order!($column, $bound, "<", $value, "desc")),
            }
        };
    }
    match sort.by {
        SortBy::Created => ordered!("created_s", "+created_s", "$11"),
        SortBy::Name => ordered!("lower(name)", "lower(name)", "lower($11)"),
        SortBy::LastUsed => ordered!("coalesce(last_used_s, 0)", "coalesce(last_used_s, 0)", "$11"),
        SortBy::Expires => ordered!(
            "coalesce(not_after_s, 9999999999)",
            "coalesce(not_after_s, 9999999999)",
            "$11"
        ),
    }
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

/// The keys of a team with these last characters. Without the sign, SQLite reads the keys of the
/// team in their order.
const HINTED_OF_TEAM: &str = "select key_id from \"key\" where last_characters = $1 \
                              and +team_id = $2 and ($3 = '' or env = $3) \
                              order by created_s desc, key_id desc limit $4";

/// The keys of all teams with these last characters.
const HINTED_OF_ALL: &str = "select key_id from \"key\" where last_characters = $1 and $2 < 0 \
                             and ($3 = '' or env = $3) order by created_s desc, key_id desc \
                             limit $4";

/// Selects the keys with ids in a range, of a team or of all teams.
const BEGINNING_WITH: &str = "select key_id from \"key\" where key_id >= $1 and key_id <= $2 \
                              and ($3 < 0 or team_id = $3) order by key_id limit $4";

/// Returns the ids of the keys that a text names by an id or a hint, and whether it can name
/// nothing else.
async fn named(
    connection: &mut AnyConnection,
    filter: &KeyFilter,
) -> Result<(Vec<i64>, bool), DatabaseError> {
    let sought = text::sought(&filter.search);
    if let Some(key_id) = sought.key_id
        && let Some(row) = find(connection, key_id).await?
        && filter.team_id.is_none_or(|team_id| row.team_id == team_id)
    {
        return Ok((vec![ids::stored(key_id)], true));
    }
    let begun = beginning_with(connection, filter).await?;
    let Some(last) = sought.last_characters else { return Ok((begun, false)) };
    let statement = if filter.team_id.is_some() { HINTED_OF_TEAM } else { HINTED_OF_ALL };
    let rows = sqlx::query(statement)
        .bind(last.to_owned())
        .bind(filter.team_id.map_or(-1, i64::from))
        .bind(sought.env.unwrap_or_default().to_owned())
        .bind(i64::try_from(MOST_HINTED).unwrap_or(i64::MAX))
        .fetch_all(connection)
        .await?;
    let mut ids: Vec<i64> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    ids.extend(begun.into_iter().filter(|id| !ids.contains(id)).collect::<Vec<_>>());
    ids.truncate(MOST_HINTED);
    Ok((ids, sought.is_hint))
}

/// Returns the numbers of the keys whose ids begin with a text, at most [`MOST_HINTED`].
async fn beginning_with(
    connection: &mut AnyConnection,
    filter: &KeyFilter,
) -> Result<Vec<i64>, DatabaseError> {
    let mut ids = Vec::new();
    let Some(ranges) = ids::beginning_with(filter.search.trim()) else { return Ok(ids) };
    for (first, last) in ranges.into_iter().filter(|(first, last)| first <= last) {
        let rows = sqlx::query(BEGINNING_WITH)
            .bind(first)
            .bind(last)
            .bind(filter.team_id.map_or(-1, i64::from))
            .bind(i64::try_from(MOST_HINTED).unwrap_or(i64::MAX))
            .fetch_all(&mut *connection)
            .await?;
        for row in rows {
            ids.push(row.try_get(0)?);
        }
    }
    ids.truncate(MOST_HINTED);
    Ok(ids)
}

/// How the keys of a filter are found.
struct Found {
    way: Way,
    /// The pattern of their names, or their ids in JSON.
    text: String,
    /// The keys that the text of the search names by an id or a hint.
    ids: Vec<i64>,
}

impl Found {
    async fn new(
        connection: &mut AnyConnection,
        filter: &KeyFilter,
        has_parts: bool,
    ) -> Result<Self, DatabaseError> {
        let text = text::pattern(&filter.search);
        if text.is_empty() {
            return Ok(Self { way: Way::All, text, ids: Vec::new() });
        }
        let (ids, is_all) = named(connection, filter).await?;
        if is_all {
            return Ok(Self { way: Way::Ids, text, ids });
        }
        match matches(connection, filter, has_parts).await? {
            Some(numbers) => {
                let mut numbers = numbers.trim_matches(['[', ']']).to_owned();
                for id in ids {
                    let separator = if numbers.is_empty() { "" } else { "," };
                    numbers.push_str(&format!("{separator}{id}"));
                }
                Ok(Self { way: Way::Known, text: format!("[{numbers}]"), ids: Vec::new() })
            }
            None if ids.is_empty() => Ok(Self { way: Way::Names, text, ids }),
            None => Ok(Self { way: Way::NamesAndIds, text, ids }),
        }
    }

    /// Returns a query of a filter, of at most `limit` keys.
    fn query(
        &self,
        statement: &'static str,
        filter: &KeyFilter,
        limit: i64,
        now: Timestamp,
    ) -> Query<'static> {
        let now_s = time::stored(now);
        let mut query = sqlx::query(statement)
            .bind(filter.team_id.map_or(-1, i64::from))
            .bind(filter.state.clone())
            .bind(now_s)
            .bind(filter.env.clone())
            .bind(filter.plan.clone())
            .bind(self.text.clone())
            .bind(limit)
            .bind(now_s.saturating_add(SOON_S))
            .bind(now_s.saturating_sub(UNUSED_S))
            .bind(filter.flag.clone());
        let has_ids = matches!(self.way, Way::NamesAndIds | Way::Ids);
        query = match filter.after.clone() {
            Some(Cursor { value: SortValue::Number(number), key_id, .. }) => {
                query.bind(number).bind(ids::stored(key_id))
            }
            Some(Cursor { value: SortValue::Text(text), key_id, .. }) => {
                query.bind(text).bind(ids::stored(key_id))
            }
            // The ids are the parameters after those of a position.
            None if has_ids => query.bind(0_i64).bind(0_i64),
            None => query,
        };
        if has_ids {
            for index in 0..MOST_HINTED {
                // No key has the number 0.
                query = query.bind(self.ids.get(index).copied().unwrap_or(0));
            }
        }
        query
    }
}

/// Returns the keys of a filter, in its order. `has_parts` is whether the database has the table of
/// the parts of names.
pub(crate) async fn list(
    connection: &mut AnyConnection,
    filter: &KeyFilter,
    has_parts: bool,
    now: Timestamp,
) -> Result<Vec<KeyRow>, DatabaseError> {
    let found = Found::new(connection, filter, has_parts).await?;
    let statement =
        statement(found.way, filter.team_id.is_some(), filter.sort, filter.after.is_none());
    let query = found.query(statement, filter, filter.limit, now);
    let rows = query.fetch_all(connection).await?;
    Ok(rows.iter().map(load).collect::<Result<_, _>>()?)
}

/// The most keys that are counted. If there are more, that is said instead of their number.
pub const MOST_COUNTED: i64 = 10_000;

/// Returns the number of the keys of a filter, at most one more than [`MOST_COUNTED`]. Its position
/// and its limit do not count.
pub(crate) async fn count(
    connection: &mut AnyConnection,
    filter: &KeyFilter,
    has_parts: bool,
    now: Timestamp,
) -> Result<i64, DatabaseError> {
    let found = Found::new(connection, filter, has_parts).await?;
    let statement = of_way!(found.way, filter.team_id.is_some(), counted);
    let filter = KeyFilter { after: None, ..filter.clone() };
    let query = found.query(statement, &filter, MOST_COUNTED.saturating_add(1), now);
    Ok(query.fetch_one(connection).await?.try_get(0)?)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Database;

    #[tokio::test]
    async fn search_by_id_or_hint_reads_no_names() {
        let folder = tempfile::tempdir().unwrap();
        let url = Database::url_of_file(&folder.path().join("keys.db"));
        let database = Database::open(&url).await.unwrap();
        let mut connection = database.read().await.unwrap();
        for (statement, index) in [
            (statement(Way::Ids, true, Sort::default(), true), "sqlite_autoindex_key_1 (key_id=?)"),
            (of_way!(Way::Ids, true, counted), "sqlite_autoindex_key_1 (key_id=?)"),
            (HINTED_OF_TEAM, "key_of_hint (last_characters=?)"),
            (BEGINNING_WITH, "sqlite_autoindex_key_1 (key_id>? AND key_id<?)"),
        ] {
            let text = sqlx::AssertSqlSafe(format!("explain query plan {statement}"));
            let rows = sqlx::query(text).fetch_all(&mut *connection).await.unwrap();
            let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
            assert!(plan.iter().any(|step| step.contains(index)), "{plan:?}");
            assert!(!plan.iter().any(|step| step.contains("SCAN key")), "{plan:?}");
        }
    }

    #[test]
    fn cursor_is_that_of_its_order() {
        let key_id: KeyId = "0000000000A".parse().unwrap();
        for (sort, text) in [
            ("created", "1700000000.0000000000A"),
            ("-last_used", "u0.0000000000A"),
            ("expires", "e9999999999.0000000000A"),
            ("name", "n616273c3a9.0000000000A"),
        ] {
            let sort = Sort::named(sort).unwrap();
            let cursor = Cursor::parse(sort, text).unwrap();
            assert_eq!((cursor.to_string(), cursor.key_id), (text.to_owned(), key_id));
            for other in SORTS.map(|name| Sort::named(name).unwrap()) {
                assert_eq!(Cursor::parse(other, text).is_some(), other.by == sort.by, "{text}");
            }
        }
        for text in ["", "1", "-1.0000000000A", "+1.0000000000A", "1.0", "1.00000000000"] {
            assert_eq!(Cursor::parse(Sort::default(), text), None, "{text}");
        }
        let by_name = Sort::named("name").unwrap();
        for text in ["nff.0000000000A", "n6.0000000000A", "n00.0000000000A", "n+1.0000000000A"] {
            assert_eq!(Cursor::parse(by_name, text), None, "{text}");
        }
    }

    #[test]
    fn order_has_a_name() {
        for name in SORTS {
            assert_eq!(Sort::named(name).unwrap().as_str(), name);
        }
        for name in ["", "-", "--name", "size"] {
            assert_eq!(Sort::named(name), None, "{name}");
        }
        assert_eq!(Sort::default().as_str(), "-created");
    }

    #[tokio::test]
    async fn order_of_a_team_has_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let url = Database::url_of_file(&folder.path().join("keys.db"));
        let database = Database::open(&url).await.unwrap();
        let mut connection = database.read().await.unwrap();
        for name in SORTS {
            let sort = Sort::named(name).unwrap();
            let index = match sort.by {
                SortBy::Created => "key_of_team",
                SortBy::Name => "key_of_name",
                SortBy::Expires => "key_of_expiry",
                SortBy::LastUsed => continue,
            };
            for is_first in [true, false] {
                let statement = statement(Way::All, true, sort, is_first);
                let text = sqlx::AssertSqlSafe(format!("explain query plan {statement}"));
                let rows = sqlx::query(text).fetch_all(&mut *connection).await.unwrap();
                let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
                let seeks = match is_first {
                    true => &["(team_id=?)"][..],
                    false => &["(team_id=? AND (created_s,key_id)", "(team_id=? AND <expr>"],
                };
                let uses = |seek: &&str| plan[0].contains(&format!("{index} {seek}"));
                assert!(seeks.iter().any(uses), "{name}: {plan:?}");
                assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{name}: {plan:?}");
            }
        }
    }
}
