//! Teams and their members.

use core::fmt;

use keytally::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};
use utoipa::ToSchema;

use crate::database::{DatabaseError, Transaction};
use crate::error::{Error, Result};
use crate::roles::Role;
use crate::time;

/// A team.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Team {
    /// The number of the team, which is the account of its keys in the gate.
    #[schema(value_type = i64)]
    pub team: u32,
    /// The name.
    pub name: String,
    /// When it was made.
    pub created: String,
    /// What its members may do.
    pub settings: TeamSettings,
}

/// What the members of a team may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TeamSettings {
    /// The longest time from now to the expiry of a key, in days; none if keys may never expire.
    pub longest_days: Option<u32>,
    /// The least role that makes and rotates keys of the environment `live`.
    pub live_role: Role,
}

impl Default for TeamSettings {
    fn default() -> Self {
        Self { longest_days: None, live_role: Role::Admin }
    }
}

/// What to change of a team. What is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct TeamEdit {
    /// The name.
    pub name: Option<String>,
    /// The longest time from now to the expiry of a key, in days; `Some(None)` if keys may never
    /// expire.
    pub longest_days: Option<Option<u32>>,
    /// The least role that makes and rotates keys of the environment `live`.
    pub live_role: Option<Role>,
}

/// The most days of [`TeamSettings::longest_days`].
pub const MAX_LONGEST_DAYS: u32 = 3650;

impl TeamSettings {
    /// Refuses settings that are not possible.
    ///
    /// # Errors
    /// A sentence that names the field.
    pub fn check(&self) -> Result<()> {
        if self.longest_days.is_some_and(|days| !(1..=MAX_LONGEST_DAYS).contains(&days)) {
            let reason = format!("it must be a number of days from 1 to {MAX_LONGEST_DAYS}");
            return Err(Error::invalid("longest_days", reason));
        }
        if !(Role::Member..=Role::Owner).contains(&self.live_role) {
            return Err(Error::invalid("live_role", "it must be member, admin or owner"));
        }
        Ok(())
    }

    /// Refuses an expiry that is later than the team permits.
    ///
    /// # Errors
    /// A sentence that names the field.
    pub fn check_expiry(&self, expires: Option<Timestamp>, now: Timestamp) -> Result<()> {
        let Some(days) = self.longest_days else { return Ok(()) };
        let last_s = now.unix_s().saturating_add(u64::from(days).saturating_mul(86_400));
        if expires.is_some_and(|end| end.unix_s() <= last_s) {
            return Ok(());
        }
        let reason = format!("keys of this team expire within {days} days; choose an earlier time");
        Err(Error::invalid("expires", reason))
    }

    /// Returns the least role that makes and rotates keys of an environment.
    pub fn role_for(&self, env: &str) -> Role {
        if env == LIVE { self.live_role } else { Role::Member }
    }
}

impl fmt::Display for TeamSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.longest_days {
            None => f.write_str("keys may never expire")?,
            Some(1) => f.write_str("keys expire within 1 day")?,
            Some(days) => write!(f, "keys expire within {days} days")?,
        }
        write!(f, "; live keys need {}", self.live_role.as_str())
    }
}

/// The environment whose keys need more than the role member.
pub const LIVE: &str = "live";

/// A member of a team.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Member {
    /// The number of the user.
    pub user: i64,
    /// The name of the user.
    pub name: String,
    /// What the user may do in this team.
    pub role: String,
    /// When the user was added.
    pub added: String,
    /// When the user first signed in to the page; none before.
    pub joined: Option<String>,
    /// When the user last used the page, to the minute.
    pub seen: Option<String>,
}

/// Returns the user who is the only owner of a team.
pub(crate) fn only_owner(members: &[Member]) -> Option<i64> {
    let mut owners = members.iter().filter(|member| member.role == Role::Owner.as_str());
    owners.next().filter(|_| owners.next().is_none()).map(|owner| owner.user)
}

/// Returns the teams after a number, in the order of their numbers.
pub(crate) async fn list(
    connection: &mut AnyConnection,
    after: i64,
    limit: i64,
) -> Result<Vec<Team>, DatabaseError> {
    let rows = sqlx::query(
        "select team_id, name, settings, created_s from team \
         where team_id > $1 and archived_s is null order by team_id limit $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    Ok(rows.iter().map(load).collect::<Result<_, _>>()?)
}

/// Returns a team.
pub(crate) async fn find(connection: &mut AnyConnection, team_id: u32) -> Result<Team> {
    let row = sqlx::query(
        "select team_id, name, settings, created_s from team \
         where team_id = $1 and archived_s is null",
    )
    .bind(i64::from(team_id))
    .fetch_optional(connection)
    .await?;
    match row {
        Some(row) => Ok(load(&row)?),
        None => Err(Error::not_found("team", team_id)),
    }
}

fn load(row: &AnyRow) -> Result<Team, sqlx::Error> {
    let team_id: i64 = row.try_get("team_id")?;
    Ok(Team {
        team: u32::try_from(team_id).unwrap_or(0),
        name: row.try_get("name")?,
        created: time::shown(row.try_get("created_s")?),
        settings: settings(&row.try_get::<String, _>("settings")?)?,
    })
}

/// Parses the settings of a team. An empty text has the settings of a new team.
fn settings(text: &str) -> Result<TeamSettings, sqlx::Error> {
    if text.is_empty() {
        return Ok(TeamSettings::default());
    }
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// Changes the settings of a team.
pub(crate) async fn set_settings(
    transaction: &mut Transaction,
    team_id: u32,
    settings: &TeamSettings,
) -> Result<Team> {
    let text = serde_json::to_string(settings)
        .map_err(|_| Error::Conflict("the settings cannot be stored".to_owned()))?;
    sqlx::query("update team set settings = $2 where team_id = $1")
        .bind(i64::from(team_id))
        .bind(text)
        .execute(transaction.connection())
        .await?;
    find(transaction.connection(), team_id).await
}

/// Adds a team, with the number after the last unless one is given.
pub(crate) async fn insert(
    transaction: &mut Transaction,
    team_id: Option<u32>,
    name: &str,
    now: Timestamp,
) -> Result<Team> {
    let number = match team_id {
        Some(number) => number,
        None => {
            // The number after the last, or the smallest free one if that is the last of all.
            let row = sqlx::query(
                "select case when coalesce(max(team_id), 0) < 4294967295 \
                 then coalesce(max(team_id), 0) + 1 else (select min(number) from \
                 (select 1 as number union all select team_id + 1 from team) as numbers \
                 where number not in (select team_id from team)) end from team",
            )
            .fetch_one(transaction.connection())
            .await?;
            u32::try_from(row.try_get::<i64, _>(0)?)
                .map_err(|_| Error::Conflict("all numbers of teams are taken".to_owned()))?
        }
    };
    let inserted = sqlx::query(
        "insert into team (team_id, name, settings, created_s) values ($1, $2, '', $3) \
         on conflict (team_id) do nothing",
    )
    .bind(i64::from(number))
    .bind(name.to_owned())
    .bind(time::stored(now))
    .execute(transaction.connection())
    .await?;
    if inserted.rows_affected() == 0 {
        return Err(Error::Conflict(format!("there is a team {number} already")));
    }
    find(transaction.connection(), number).await
}

/// Deletes a team: ends its sessions, and removes its members with their links and passkeys. The
/// rows of the team, of its keys and of its log stay, so its number is not given to another team.
pub(crate) async fn delete(
    transaction: &mut Transaction,
    team_id: u32,
    now: Timestamp,
) -> Result<()> {
    sqlx::query("update team set archived_s = $2 where team_id = $1")
        .bind(i64::from(team_id))
        .bind(time::stored(now))
        .execute(transaction.connection())
        .await?;
    for query in [
        "delete from session where team_id = $1 and user_id is not null",
        // An operator chooses another team.
        "update session set team_id = null where team_id = $1",
        "delete from code where team_id = $1",
        "delete from passkey where team_id = $1",
        "delete from challenge where team_id = $1",
        "delete from member where team_id = $1",
    ] {
        sqlx::query(query).bind(i64::from(team_id)).execute(transaction.connection()).await?;
    }
    Ok(())
}

/// Makes a deleted team exist again. Returns `false` if no team of that number was deleted.
pub(crate) async fn restore(transaction: &mut Transaction, team_id: u32) -> Result<bool> {
    let restored = sqlx::query(
        "update team set archived_s = null where team_id = $1 and archived_s is not null",
    )
    .bind(i64::from(team_id))
    .execute(transaction.connection())
    .await?;
    Ok(restored.rows_affected() == 1)
}

/// Returns how many tokens of a team are not revoked.
pub(crate) async fn open_tokens(connection: &mut AnyConnection, team_id: u32) -> Result<i64> {
    let row = sqlx::query("select count(*) from token where team_id = $1 and revoked_s is null")
        .bind(i64::from(team_id))
        .fetch_one(connection)
        .await?;
    Ok(row.try_get(0)?)
}

/// Renames a team.
pub(crate) async fn rename(
    transaction: &mut Transaction,
    team_id: u32,
    name: &str,
) -> Result<Team> {
    sqlx::query("update team set name = $2 where team_id = $1")
        .bind(i64::from(team_id))
        .bind(name.to_owned())
        .execute(transaction.connection())
        .await?;
    find(transaction.connection(), team_id).await
}

/// Returns the members of a team, in the order of their numbers.
pub(crate) async fn members(
    connection: &mut AnyConnection,
    team_id: u32,
) -> Result<Vec<Member>, DatabaseError> {
    let rows = sqlx::query(
        "select member.user_id, \"user\".name, role, added_s, joined_s, seen_s from member \
         join \"user\" on \"user\".user_id = member.user_id where team_id = $1 order by member.user_id",
    )
    .bind(i64::from(team_id))
    .fetch_all(connection)
    .await?;
    let load = |row: &AnyRow| {
        Ok(Member {
            user: row.try_get("user_id")?,
            name: row.try_get("name")?,
            role: row.try_get("role")?,
            added: time::shown(row.try_get("added_s")?),
            joined: row.try_get::<Option<i64>, _>("joined_s")?.map(time::shown),
            seen: row.try_get::<Option<i64>, _>("seen_s")?.map(time::shown),
        })
    };
    Ok(rows.iter().map(load).collect::<Result<_, sqlx::Error>>()?)
}

/// Returns the number of the user of this name, who is added if there is none.
pub(crate) async fn user_named(transaction: &mut Transaction, name: &str) -> Result<i64> {
    let found = sqlx::query("select user_id from \"user\" where name = $1")
        .bind(name.to_owned())
        .fetch_optional(transaction.connection())
        .await?;
    if let Some(row) = found {
        return Ok(row.try_get(0)?);
    }
    let row = sqlx::query(
        "insert into \"user\" (user_id, name) \
         select coalesce(max(user_id), 0) + 1, $1 from \"user\" returning user_id",
    )
    .bind(name.to_owned())
    .fetch_one(transaction.connection())
    .await?;
    Ok(row.try_get(0)?)
}

/// Returns the role of a user in a team; `None` for a user who is not a member.
pub(crate) async fn role_of(
    connection: &mut AnyConnection,
    team_id: u32,
    user_id: i64,
) -> Result<Option<Role>, DatabaseError> {
    let row = sqlx::query("select role from member where team_id = $1 and user_id = $2")
        .bind(i64::from(team_id))
        .bind(user_id)
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let role: String = row.try_get(0)?;
    Ok(Some(Role::named(&role).unwrap_or(Role::Viewer)))
}

/// Refuses to take the role of the only owner away: the team's members could not be changed.
async fn keep_an_owner(transaction: &mut Transaction, team_id: u32, user_id: i64) -> Result<()> {
    if role_of(transaction.connection(), team_id, user_id).await? != Some(Role::Owner) {
        return Ok(());
    }
    let other = sqlx::query(
        "select 1 from member where team_id = $1 and role = 'owner' and user_id <> $2 limit 1",
    )
    .bind(i64::from(team_id))
    .bind(user_id)
    .fetch_optional(transaction.connection())
    .await?;
    match other {
        Some(_) => Ok(()),
        None => Err(Error::Conflict(
            "the team would have no owner; make another member an owner first".to_owned(),
        )),
    }
}

/// Adds a member, or changes the member's role.
///
/// # Errors
/// If the team would have no owner.
pub(crate) async fn set_member(
    transaction: &mut Transaction,
    team_id: u32,
    user_id: i64,
    role: Role,
    now: Timestamp,
) -> Result<()> {
    if role != Role::Owner {
        keep_an_owner(transaction, team_id, user_id).await?;
    }
    sqlx::query(
        "insert into member (team_id, user_id, role, added_s) values ($1, $2, $3, $4) \
         on conflict (team_id, user_id) do update set role = excluded.role",
    )
    .bind(i64::from(team_id))
    .bind(user_id)
    .bind(role.as_str())
    .bind(time::stored(now))
    .execute(transaction.connection())
    .await?;
    Ok(())
}

/// Records that a member used the page.
pub(crate) async fn mark_seen(
    transaction: &mut Transaction,
    team_id: u32,
    user_id: i64,
    now_s: i64,
) -> Result<(), DatabaseError> {
    sqlx::query(
        "update member set joined_s = coalesce(joined_s, $3), seen_s = $3 \
         where team_id = $1 and user_id = $2 and coalesce(seen_s, 0) <= $3",
    )
    .bind(i64::from(team_id))
    .bind(user_id)
    .bind(now_s)
    .execute(transaction.connection())
    .await?;
    Ok(())
}

/// Removes a member with the member's links and passkeys of the team, and ends the sessions there.
/// Keys that the member made stay.
///
/// # Errors
/// If there is no such member, or if the team would have no owner.
pub(crate) async fn remove_member(
    transaction: &mut Transaction,
    team_id: u32,
    user_id: i64,
) -> Result<()> {
    keep_an_owner(transaction, team_id, user_id).await?;
    let removed = sqlx::query("delete from member where team_id = $1 and user_id = $2")
        .bind(i64::from(team_id))
        .bind(user_id)
        .execute(transaction.connection())
        .await?;
    if removed.rows_affected() == 0 {
        return Err(Error::not_found("member", user_id));
    }
    for query in [
        "delete from session where team_id = $1 and user_id = $2",
        "delete from code where team_id = $1 and user_id = $2",
        "delete from passkey where team_id = $1 and user_id = $2",
        "delete from challenge where team_id = $1 and user_id = $2",
    ] {
        sqlx::query(query)
            .bind(i64::from(team_id))
            .bind(user_id)
            .execute(transaction.connection())
            .await?;
    }
    Ok(())
}
