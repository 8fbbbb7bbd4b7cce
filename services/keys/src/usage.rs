//! Usage: what each key was used for, in buckets of a minute, an hour and a day. Days are those of
//! UTC.

use keytally::{KeyId, Timestamp};
use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};
use utoipa::ToSchema;

use crate::database::DatabaseError;
use crate::error::{Error, Result};
use crate::list::List;
use crate::{ids, time};

/// The length of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// A minute; kept for a day.
    Minute,
    /// An hour; kept for 90 days.
    Hour,
    /// A day; kept for 800 days.
    Day,
}

impl Width {
    /// All widths, the shortest first.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// Returns the name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// Parses a width.
    ///
    /// # Errors
    /// A sentence that names the field.
    pub fn named(field: &'static str, name: &str) -> Result<Self> {
        let width = Self::ALL.into_iter().find(|width| width.as_str() == name);
        width.ok_or_else(|| Error::invalid(field, "it must be minute, hour or day"))
    }

    /// Returns the length in seconds.
    pub const fn len_s(self) -> i64 {
        match self {
            Self::Minute => 60,
            Self::Hour => 3600,
            Self::Day => 86_400,
        }
    }

    /// Returns for how long buckets are kept, in seconds.
    const fn kept_s(self) -> i64 {
        match self {
            Self::Minute => 86_400,
            Self::Hour => 90 * 86_400,
            Self::Day => 800 * 86_400,
        }
    }
}

/// The most buckets of one answer.
pub const MAX_BUCKETS: i64 = 1500;

/// What a key was used for. A request counts only if its secret was right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Counts {
    /// Admitted requests.
    pub requests: i64,
    /// Units that admitted requests were charged.
    pub units: i64,
    /// Requests that the key's own quotas denied.
    pub denied_key: i64,
    /// Requests that the team's quotas denied.
    pub denied_team: i64,
    /// Requests that the quotas of groups denied.
    pub denied_groups: i64,
    /// Requests that needed a scope that the key does not have.
    pub forbidden: i64,
    /// Admitted requests with the secret before the last rotation.
    pub old_secret: i64,
    /// Requests after the key was revoked.
    pub revoked: i64,
    /// Requests after the key, or its previous secret, had expired.
    pub expired: i64,
    /// Requests while the account of the key was suspended.
    pub suspended: i64,
}

/// What one key was used for since the sample before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) key_id: KeyId,
    /// The time by which the buckets are chosen.
    pub(crate) at: Timestamp,
    /// When the key was last admitted; `None` if it was not since the sample before.
    pub(crate) last_used: Option<Timestamp>,
    /// The differences to the sample before.
    pub(crate) counts: Counts,
}

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Bucket {
    /// When it begins.
    pub start: String,
    /// The counts of all machines.
    #[serde(flatten)]
    pub counts: Counts,
}

/// What a group of keys was used for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Group {
    /// The key id, the environment or the plan.
    pub group: String,
    /// The counts of all its keys and machines.
    #[serde(flatten)]
    pub counts: Counts,
}

/// By what usage is grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// Each key.
    Key,
    /// Each environment.
    Env,
    /// Each plan.
    Plan,
}

impl Grouping {
    /// Parses a grouping.
    ///
    /// # Errors
    /// A sentence that names the field.
    pub fn named(field: &'static str, name: &str) -> Result<Self> {
        match name {
            "key" => Ok(Self::Key),
            "env" => Ok(Self::Env),
            "plan" => Ok(Self::Plan),
            _ => Err(Error::invalid(field, "it must be key, env or plan")),
        }
    }
}

/// The sums of all counts. In PostgreSQL, a sum is a bigint only if it is cast.
macro_rules! sums {
    () => {
        "cast(sum(requests) as bigint) as requests, cast(sum(units) as bigint) as units, \
         cast(sum(denied_key) as bigint) as denied_key, \
         cast(sum(denied_team) as bigint) as denied_team, \
         cast(sum(denied_groups) as bigint) as denied_groups, \
         cast(sum(forbidden) as bigint) as forbidden, \
         cast(sum(old_secret) as bigint) as old_secret, \
         cast(sum(usage.revoked) as bigint) as revoked, \
         cast(sum(usage.expired) as bigint) as expired, \
         cast(sum(suspended) as bigint) as suspended"
    };
}

/// The rows of a team's keys in a range of time.
macro_rules! of_team {
    () => {
        "from usage join \"key\" on \"key\".key_id = usage.key_id \
         where width = $1 and start_s >= $2 and start_s < $3 and ($4 < 0 or \"key\".team_id = $4)"
    };
}

impl List {
    /// Returns the buckets of a key that have counts, the oldest first.
    ///
    /// # Errors
    /// If the range has too many buckets, or if the database cannot be used.
    pub async fn usage_of_key(
        &self,
        key_id: KeyId,
        width: Width,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Bucket>> {
        check_range(width, from, to)?;
        let rows = sqlx::query(concat!(
            "select start_s, ",
            sums!(),
            " from usage where width = $1 and key_id = $2 and start_s >= $3 and start_s < $4 \
             group by start_s order by start_s"
        ))
        .bind(width.as_str())
        .bind(ids::stored(key_id))
        .bind(time::stored(from))
        .bind(time::stored(to))
        .fetch_all(&mut *self.read().await?)
        .await?;
        let load = |row: &AnyRow| {
            let start = time::shown(row.try_get("start_s")?);
            Ok(Bucket { start, counts: counts(row)? })
        };
        Ok(rows.iter().map(load).collect::<Result<_, sqlx::Error>>()?)
    }

    /// Returns the counts of a team's keys in a range, in groups; of all teams if there is none.
    ///
    /// # Errors
    /// If the range has too many buckets, or if the database cannot be used.
    pub async fn usage_of_team(
        &self,
        team_id: Option<u32>,
        grouping: Grouping,
        width: Width,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Group>> {
        check_range(width, from, to)?;
        let query = match grouping {
            Grouping::Key => concat!(
                "select \"key\".key_id as id, '' as name, ",
                sums!(),
                " ",
                of_team!(),
                " group by \"key\".key_id order by 3 desc, 1 limit 10000"
            ),
            Grouping::Env => concat!(
                "select cast(0 as bigint) as id, env as name, ",
                sums!(),
                " ",
                of_team!(),
                " group by env order by 3 desc, 2 limit 10000"
            ),
            Grouping::Plan => concat!(
                "select cast(0 as bigint) as id, plan as name, ",
                sums!(),
                " ",
                of_team!(),
                " group by plan order by 3 desc, 2 limit 10000"
            ),
        };
        let rows = sqlx::query(query)
            .bind(width.as_str())
            .bind(time::stored(from))
            .bind(time::stored(to))
            .bind(team_id.map_or(-1, i64::from))
            .fetch_all(&mut *self.read().await?)
            .await?;
        let load = |row: &AnyRow| {
            let group = match row.try_get("id")? {
                0 => row.try_get("name")?,
                id => ids::shown(id),
            };
            Ok(Group { group, counts: counts(row)? })
        };
        Ok(rows.iter().map(load).collect::<Result<_, sqlx::Error>>()?)
    }

    /// Removes buckets that are no longer kept.
    ///
    /// # Errors
    /// If the database cannot be used.
    pub async fn prune_usage(&self, now: Timestamp) -> Result<()> {
        self.transact(async move |transaction| {
            for width in Width::ALL {
                sqlx::query("delete from usage where width = $1 and start_s < $2")
                    .bind(width.as_str())
                    .bind(time::stored(now).saturating_sub(width.kept_s()))
                    .execute(transaction.connection())
                    .await?;
            }
            Ok(())
        })
        .await
    }
}

/// The values of a bucket. `$beginning` is its width and the parameter of its beginning.
macro_rules! bucket {
    ($beginning:expr) => {
        concat!("(", $beginning, ", $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)")
    };
}

/// A statement that inserts buckets, or adds to those that are there. `$13` is
/// the beginning of the first one, and so on.
macro_rules! add_to_buckets {
    ($first:expr $(, $further:expr)*) => {
        concat!(
            "insert into usage (width, start_s, key_id, machine, requests, units, denied_key, \
             denied_team, denied_groups, forbidden, old_secret, revoked, expired, suspended) \
             values ",
            bucket!($first),
            $(", ", bucket!($further),)*
            " on conflict (width, key_id, start_s, machine) do update set \
             requests = usage.requests + excluded.requests, units = usage.units + excluded.units, \
             denied_key = usage.denied_key + excluded.denied_key, \
             denied_team = usage.denied_team + excluded.denied_team, \
             denied_groups = usage.denied_groups + excluded.denied_groups, \
             forbidden = usage.forbidden + excluded.forbidden, \
             old_secret = usage.old_secret + excluded.old_secret, \
             revoked = usage.revoked + excluded.revoked, \
             expired = usage.expired + excluded.expired, \
             suspended = usage.suspended + excluded.suspended"
        )
    };
}

/// Adds a sample to the buckets of a day, of an hour and, if `has_minutes`, of a minute.
pub(crate) async fn add(
    connection: &mut AnyConnection,
    machine: &str,
    sample: &Sample,
    has_minutes: bool,
) -> Result<(), DatabaseError> {
    let (at_s, counts) = (time::stored(sample.at), &sample.counts);
    let start_s = |width: Width| at_s.saturating_sub(at_s.rem_euclid(width.len_s()));
    let mut query = sqlx::query(match has_minutes {
        true => add_to_buckets!("'day', $13", "'hour', $14", "'minute', $15"),
        false => add_to_buckets!("'day', $13", "'hour', $14"),
    })
    .bind(ids::stored(sample.key_id))
    .bind(machine.to_owned())
    .bind(counts.requests)
    .bind(counts.units)
    .bind(counts.denied_key)
    .bind(counts.denied_team)
    .bind(counts.denied_groups)
    .bind(counts.forbidden)
    .bind(counts.old_secret)
    .bind(counts.revoked)
    .bind(counts.expired)
    .bind(counts.suspended)
    .bind(start_s(Width::Day))
    .bind(start_s(Width::Hour));
    if has_minutes {
        query = query.bind(start_s(Width::Minute));
    }
    query.execute(&mut *connection).await?;
    if let Some(last_used) = sample.last_used {
        sqlx::query(
            "update \"key\" set last_used_s = $2 where key_id = $1 and coalesce(last_used_s, 0) < $2",
        )
        .bind(ids::stored(sample.key_id))
        .bind(time::stored(last_used))
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// Refuses a range that is empty or has too many buckets.
fn check_range(width: Width, from: Timestamp, to: Timestamp) -> Result<()> {
    let len_s = time::stored(to).saturating_sub(time::stored(from));
    if len_s <= 0 {
        return Err(Error::invalid("to", "it must be later than from"));
    }
    let most_s = width.len_s().saturating_mul(MAX_BUCKETS);
    if len_s > most_s {
        let reason = format!("the range has more than {MAX_BUCKETS} buckets; use a wider one");
        return Err(Error::invalid("width", reason));
    }
    Ok(())
}

fn counts(row: &AnyRow) -> Result<Counts, sqlx::Error> {
    Ok(Counts {
        requests: row.try_get("requests")?,
        units: row.try_get("units")?,
        denied_key: row.try_get("denied_key")?,
        denied_team: row.try_get("denied_team")?,
        denied_groups: row.try_get("denied_groups")?,
        forbidden: row.try_get("forbidden")?,
        old_secret: row.try_get("old_secret")?,
        revoked: row.try_get("revoked")?,
        expired: row.try_get("expired")?,
        suspended: row.try_get("suspended")?,
    })
}
