//! Usage as the page needs it: the hours of the keys of a list, and the buckets of one key.

use alloc::collections::BTreeMap;

use keytally::{KeyId, KeyState, Timestamp};
use sqlx::Row as _;

use crate::error::Result;
use crate::keys::{KeyRow, old_uses};
use crate::list::List;
use crate::usage::{Counts, Width};
use crate::{ids, time};

/// The keys of one screen, whose use is read at once.
pub(super) const PAGE_LEN: usize = 50;

/// The counts of a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) start_s: i64,
    pub(super) admitted: i64,
    /// Requests that a limit denied, or that lacked a scope.
    pub(super) denied: i64,
    pub(super) forbidden: i64,
    pub(super) old_secret: i64,
    /// Requests after the end of the key or of its old secret, or while its team was suspended.
    pub(super) ended: i64,
    /// Those of them after the expiry of the key, or after the end of its old secret.
    pub(super) expired: i64,
}

impl Point {
    fn new(start_s: i64, counts: &Counts) -> Self {
        let denied = counts.denied_key + counts.denied_team + counts.denied_groups;
        Self {
            start_s,
            admitted: counts.requests,
            denied,
            forbidden: counts.forbidden,
            old_secret: counts.old_secret,
            ended: counts.revoked + counts.expired + counts.suspended,
            expired: counts.expired,
        }
    }

    /// Returns whether nothing was counted.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self { start_s: self.start_s, ..Self::default() }
    }

    /// Adds the counts of another bucket.
    fn add(&mut self, other: &Self) {
        self.admitted += other.admitted;
        self.denied += other.denied;
        self.forbidden += other.forbidden;
        self.old_secret += other.old_secret;
        self.ended += other.ended;
        self.expired += other.expired;
    }
}

/// Returns `count` buckets of a key, the last of which is that of `now`. Those without counts are
/// zero.
pub(super) async fn points(
    list: &List,
    key_id: KeyId,
    width: Width,
    count: i64,
    now: Timestamp,
) -> Result<Vec<Point>> {
    let (last_s, len_s) = (start_of(width, time::stored(now)), width.len_s());
    let first_s = last_s.saturating_sub((count - 1) * len_s);
    let (from, to) = (time::loaded(first_s), time::loaded(last_s.saturating_add(len_s)));
    let mut points: BTreeMap<i64, Point> = (0..count)
        .map(|index| first_s + index * len_s)
        .map(|start_s| (start_s, Point { start_s, ..Point::default() }))
        .collect();
    for bucket in list.usage_of_key(key_id, width, from, to).await? {
        let start_s = time::stored(time::parse("start", &bucket.start)?);
        points.insert(start_s, Point::new(start_s, &bucket.counts));
    }
    Ok(points.into_values().collect())
}

/// Returns how many requests were admitted with the old secret of each of these keys since its
/// rotation, as long as that secret is valid. A key without such requests has no entry.
pub(super) async fn old_uses_of_keys(
    list: &List,
    team_id: u32,
    key_ids: &[KeyId],
    now: Timestamp,
) -> Result<BTreeMap<KeyId, i64>> {
    // One text for any number of keys: no key has the number 0.
    let mut query = sqlx::query(concat!(
        "select key_id, cast(",
        old_uses!(),
        " as bigint) as uses from \"key\" where team_id = $1 and coalesce(grace_until_s, 0) > $2 \
         and key_id in ($3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, \
         $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, \
         $37, $38, $39, $40, $41, $42, $43, $44, $45, $46, $47, $48, $49, $50, $51, $52)"
    ))
    .bind(i64::from(team_id))
    .bind(time::stored(now));
    for index in 0..PAGE_LEN {
        query = query.bind(key_ids.get(index).map_or(0, |&key_id| ids::stored(key_id)));
    }
    let mut uses = BTreeMap::new();
    for row in query.fetch_all(&mut *list.read().await?).await? {
        let (number, count): (i64, i64) = (row.try_get("key_id")?, row.try_get("uses")?);
        if let Some(key_id) = ids::loaded(number).filter(|_| count > 0) {
            uses.insert(key_id, count);
        }
    }
    Ok(uses)
}

/// Gives keys what the gate of this machine has of them and the list gets some seconds later: a
/// later last use, a revocation, and an earlier end.
pub(super) fn add_what_the_gate_has(list: &List, rows: &mut [KeyRow]) {
    let gate = list.gate().load();
    for row in rows {
        let used = gate.key_usage(row.key_id).and_then(|usage| usage.last_used());
        row.last_used_s = row.last_used_s.max(used.map(time::stored));
        let Some(info) = gate.key(row.key_id) else { continue };
        row.is_revoked |= info.state == KeyState::Revoked;
        let ends = [row.not_after_s, info.expires.map(time::stored)];
        row.not_after_s = ends.into_iter().flatten().min();
    }
}

/// What the keys of a team were used for: the buckets of all, and the sums of each environment.
#[derive(Clone, Debug, Default)]
pub(super) struct TeamUse {
    pub(super) points: Vec<Point>,
    /// The environments with counts, each with its sums.
    pub(super) envs: BTreeMap<String, Point>,
}

/// Returns `count` buckets of the keys of a team, the last of which is that of `now`.
pub(super) async fn use_of_team(
    list: &List,
    team_id: u32,
    width: Width,
    count: i64,
    now: Timestamp,
) -> Result<TeamUse> {
    let (last_s, len_s) = (start_of(width, time::stored(now)), width.len_s());
    let first_s = last_s.saturating_sub((count - 1) * len_s);
    // By `cross join`, SQLite reads the buckets key by key, as they are stored. Without it, SQLite
    // looks each bucket of all teams up, which takes four times as long.
    let rows = sqlx::query(
        "select env, start_s, cast(sum(requests) as bigint) as requests, \
         cast(sum(denied_key + denied_team + denied_groups) as bigint) as denied, \
         cast(sum(forbidden) as bigint) as forbidden, \
         cast(sum(old_secret) as bigint) as old_secret, \
         cast(sum(usage.revoked + usage.expired + usage.suspended) as bigint) as ended, \
         cast(sum(usage.expired) as bigint) as expired \
         from \"key\" cross join usage where usage.key_id = \"key\".key_id \
         and width = $1 and \"key\".team_id = $2 and start_s >= $3 and start_s <= $4 \
         group by env, start_s",
    )
    .bind(width.as_str())
    .bind(i64::from(team_id))
    .bind(first_s)
    .bind(last_s)
    .fetch_all(&mut *list.read().await?)
    .await?;
    let starts = (0..count).map(|index| first_s + index * len_s);
    let mut points: BTreeMap<i64, Point> =
        starts.map(|start_s| (start_s, Point { start_s, ..Point::default() })).collect();
    let mut envs: BTreeMap<String, Point> = BTreeMap::new();
    for row in rows {
        let start_s: i64 = row.try_get("start_s")?;
        let bucket = Point {
            start_s,
            admitted: row.try_get("requests")?,
            denied: row.try_get("denied")?,
            forbidden: row.try_get("forbidden")?,
            old_secret: row.try_get("old_secret")?,
            ended: row.try_get("ended")?,
            expired: row.try_get("expired")?,
        };
        points.entry(start_s).or_insert(Point { start_s, ..Point::default() }).add(&bucket);
        envs.entry(row.try_get("env")?).or_default().add(&bucket);
    }
    Ok(TeamUse { points: points.into_values().collect(), envs })
}

/// Returns the beginning of the bucket of a moment.
pub(super) fn start_of(width: Width, at_s: i64) -> i64 {
    at_s - at_s.rem_euclid(width.len_s())
}

/// Returns the hours of a day up to now of keys of a team. A key without counts has no entry.
pub(super) async fn day_of_keys(
    list: &List,
    team_id: u32,
    key_ids: &[KeyId],
    now: Timestamp,
) -> Result<BTreeMap<KeyId, Vec<Point>>> {
    let last_s = start_of(Width::Hour, time::stored(now));
    let first_s = last_s - 23 * 3600;
    // One text for any number of keys: no key has the number 0.
    let mut query = sqlx::query(
        "select usage.key_id as id, start_s, cast(sum(requests) as bigint) as requests, \
         cast(sum(denied_key + denied_team + denied_groups) as bigint) as denied, \
         cast(sum(forbidden) as bigint) as forbidden, \
         cast(sum(old_secret) as bigint) as old_secret, \
         cast(sum(usage.revoked + usage.expired + usage.suspended) as bigint) as ended, \
         cast(sum(usage.expired) as bigint) as expired \
         from usage join \"key\" on \"key\".key_id = usage.key_id \
         where width = 'hour' and \"key\".team_id = $1 and start_s >= $2 and start_s <= $3 \
         and usage.key_id in ($4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, \
         $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, \
         $37, $38, $39, $40, $41, $42, $43, $44, $45, $46, $47, $48, $49, $50, $51, $52, $53) \
         group by usage.key_id, start_s",
    )
    .bind(i64::from(team_id))
    .bind(first_s)
    .bind(last_s);
    for index in 0..PAGE_LEN {
        query = query.bind(key_ids.get(index).map_or(0, |&key_id| ids::stored(key_id)));
    }
    let mut days: BTreeMap<KeyId, Vec<Point>> = BTreeMap::new();
    for row in query.fetch_all(&mut *list.read().await?).await? {
        let Some(key_id) = ids::loaded(row.try_get("id")?) else { continue };
        let hours = || (0..24).map(|hour| first_s + hour * 3600);
        let empty = || hours().map(|start_s| Point { start_s, ..Point::default() }).collect();
        let day = days.entry(key_id).or_insert_with(empty);
        let start_s: i64 = row.try_get("start_s")?;
        let hour = day.iter_mut().find(|point| point.start_s == start_s);
        if let Some(hour) = hour {
            *hour = Point {
                start_s,
                admitted: row.try_get("requests")?,
                denied: row.try_get("denied")?,
                forbidden: row.try_get("forbidden")?,
                old_secret: row.try_get("old_secret")?,
                ended: row.try_get("ended")?,
                expired: row.try_get("expired")?,
            };
        }
    }
    Ok(days)
}
