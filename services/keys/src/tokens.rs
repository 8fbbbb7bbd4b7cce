//! Admin tokens: keys of a gate of their own, which checks and limits them like all keys. The gate
//! alone says what a token may do, so tokens work while the database cannot be used.

use core::time::Duration;
use std::path::Path;

use keytally::{
    Error as GateError, Gate, GateConfig, Key, KeyId, KeyState, Name, NewKey, Peppers, Plan,
    Verdict, Wait,
};
use serde::Serialize;
use sqlx::Row as _;
use sqlx::any::AnyRow;
use tokio::runtime::Handle;
use utoipa::ToSchema;

use crate::change::Caller;
use crate::database::{LIMIT, REVOKE_LIMIT};
use crate::error::{Error, Result};
use crate::list::{List, blocking};
use crate::log::{self, NewEntry};
use crate::roles::Role;
use crate::{ids, teams, text, time};

/// The name of the gate's file in the data folder.
pub const FILE: &str = "admin.gate";

/// The capacity of the gate.
const CAPACITY: u32 = 10_000;

/// The limits of a token.
const LIMITS: &str = "600/minute, 20000/hour";

/// The environment of tokens, which begin with `kt_admin_`.
const ENV: &str = "admin";

/// The longest time that a change waits for another administrator of the gate.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// An admin token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Token {
    /// The public name.
    pub token: String,
    /// The team; none for an operator.
    pub team: Option<i64>,
    /// What the token may do.
    pub role: String,
    /// The name.
    pub name: String,
    /// When it was made.
    pub created: String,
    /// Who made it.
    pub created_by: String,
    /// When it was revoked.
    pub revoked: Option<String>,
}

/// Who a valid token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The token.
    pub key_id: KeyId,
    /// The team; `None` for an operator.
    pub team_id: Option<u32>,
    /// What the token may do.
    pub role: Role,
}

/// Opens the gate of the tokens in a data folder, and creates it if there is none.
///
/// # Errors
/// Those of [`Gate::open`] and [`Gate::create`].
pub fn open_gate(folder: &Path, peppers: &Peppers) -> Result<Gate> {
    let path = folder.join(FILE);
    match Gate::open(&path, peppers.clone()) {
        Err(GateError::Io { .. }) if !path.exists() => {}
        opened => return Ok(opened?),
    }
    let plan = LIMITS.parse().ok().and_then(|policy| Plan::new("default", policy));
    let plan =
        plan.ok_or_else(|| Error::Conflict("the limits of tokens are not valid".to_owned()))?;
    let scopes = Role::ALL.map(|role| role.as_str().to_owned());
    let config = GateConfig::default()
        .with_keys(CAPACITY)
        .with_plans(vec![plan])
        .with_scopes(scopes.to_vec());
    match Gate::create(&path, peppers.clone(), &config) {
        // Another process was faster.
        Err(GateError::Exists { .. }) => Ok(Gate::open(&path, peppers.clone())?),
        created => Ok(created?),
    }
}

/// Checks a token and charges its limits.
pub fn check(gate: &Gate, token: Option<&[u8]>) -> (Verdict, Option<Identity>) {
    let verdict = gate.check(token, 1);
    let identity = verdict.holder().filter(|_| verdict.is_admitted()).and_then(|holder| {
        let info = gate.key(holder.key_id)?;
        let roles = gate.table().scopes_of(&info).filter_map(|name| Role::named(&name));
        let team_id = Some(holder.account).filter(|&account| account != 0);
        let role = roles.max()?;
        // A token of no team is an operator's.
        let is_valid = (role == Role::Operator) == team_id.is_none();
        is_valid.then_some(Identity { key_id: holder.key_id, team_id, role })
    });
    (verdict, identity)
}

impl List {
    /// Makes a token of a team, or of an operator if there is no team. The returned key is the only
    /// copy of its secret.
    ///
    /// # Errors
    /// If the caller is not an owner of the team, if the name is not possible, or if the gate or
    /// the database cannot be used.
    pub async fn create_token(
        &self,
        team_id: Option<u32>,
        role: Role,
        name: &str,
        caller: Caller,
    ) -> Result<(Key, Token)> {
        caller.role.require(Role::Owner.max(role))?;
        if team_id.is_none() != (role == Role::Operator) {
            return Err(Error::invalid("role", "a token of a team has a role of a team"));
        }
        let name = text::name("name", name)?;
        let env = Name::new(ENV).ok_or(keytally::AdminError::NamesTooLong)?;
        let (list, runtime) = (self.clone(), Handle::current());
        blocking(move || {
            let applied = list.gate().load().table().applied_sequence();
            list.admin().administer_within(Wait::at_most(LOCK_WAIT), |administrator| {
                let entropy = match keytally::entropy() {
                    Ok(entropy) => entropy,
                    Err(error) => return Ok(Err(error.into())),
                };
                let scopes = [role.as_str()];
                let new = NewKey::new(team_id.unwrap_or(0), env).with_scopes(&scopes);
                let (key, record) = administrator.prepare_issue(&new, &entropy, caller.now)?;
                let key_id = record.key_id;
                let committed = runtime.block_on(list.transact_within(
                    LIMIT,
                    applied,
                    async |transaction| {
                        if let Some(team_id) = team_id {
                            teams::find(transaction.connection(), team_id).await?;
                        }
                        caller.remember(transaction, key_id).await?;
                        // The id may be that of a token that was revoked.
                        sqlx::query("delete from token where key_id = $1")
                            .bind(ids::stored(key_id))
                            .execute(transaction.connection())
                            .await?;
                        let row = sqlx::query(
                            "insert into token (key_id, team_id, role, name, created_s, created_by) \
                             values ($1, $2, $3, $4, $5, $6) returning key_id, team_id, role, \
                             name, created_s, created_by, revoked_s",
                        )
                        .bind(ids::stored(key_id))
                        .bind(team_id.map(i64::from))
                        .bind(role.as_str())
                        .bind(name.clone())
                        .bind(time::stored(caller.now))
                        .bind(caller.actor.to_string())
                        .fetch_one(transaction.connection())
                        .await?;
                        let entry = NewEntry {
                            team_id,
                            actor: &caller.actor,
                            action: "token.create",
                            key_id: None,
                            detail: format!("{key_id} as {}", role.as_str()),
                        };
                        log::append(transaction, entry, time::stored(caller.now)).await?;
                        Ok(load(&row)?)
                    },
                ));
                match committed {
                    Ok(token) => administrator.put(&record, caller.now).map(|_| Ok((key, token))),
                    Err(error) => Ok(Err(error)),
                }
            })?
        })
        .await
    }

    /// Revokes a token: in the gate of the tokens at once, also if the database cannot be used.
    ///
    /// # Errors
    /// If the caller is not an owner, or if the team has no such token. [`Error::Unlisted`] if the
    /// token is revoked, and the database cannot be used: repeat it to enter it into the list.
    pub async fn revoke_token(
        &self,
        team_id: Option<u32>,
        key_id: KeyId,
        caller: Caller,
    ) -> Result<()> {
        caller.role.require(Role::Owner)?;
        let (list, runtime) = (self.clone(), Handle::current());
        blocking(move || {
            let applied = list.gate().load().table().applied_sequence();
            list.admin().administer_within(Wait::at_most(LOCK_WAIT), |administrator| {
                let record = administrator.read(key_id);
                let is_its = |account| team_id.is_none_or(|team_id| team_id == account);
                let Some(record) = record.filter(|record| is_its(record.account)) else {
                    return Ok(Err(Error::not_found("token", key_id)));
                };
                let is_active = record.state == KeyState::Active;
                if is_active {
                    administrator.revoke(key_id)?;
                }
                let listed = runtime.block_on(list.transact_within(
                    REVOKE_LIMIT,
                    applied,
                    async |transaction| {
                        let revoked = sqlx::query(
                            "update token set revoked_s = $2 where key_id = $1 and revoked_s is null",
                        )
                        .bind(ids::stored(key_id))
                        .bind(time::stored(caller.now))
                        .execute(transaction.connection())
                        .await?;
                        if !is_active && revoked.rows_affected() == 0 {
                            return Err(Error::not_found("token", key_id));
                        }
                        let entry = NewEntry {
                            team_id,
                            actor: &caller.actor,
                            action: "token.revoke",
                            key_id: None,
                            detail: key_id.to_string(),
                        };
                        log::append(transaction, entry, time::stored(caller.now)).await?;
                        Ok(())
                    },
                ));
                Ok(match listed {
                    Err(Error::Database(source)) => {
                        Err(Error::Unlisted { token: key_id, source })
                    }
                    listed => listed,
                })
            })?
        })
        .await
    }

    /// Returns the tokens of a team; of all teams and operators if there is none.
    ///
    /// # Errors
    /// If the database cannot be used.
    pub async fn tokens(&self, team_id: Option<u32>) -> Result<Vec<Token>> {
        let rows = sqlx::query(
            "select key_id, team_id, role, name, created_s, created_by, revoked_s from token \
             where $1 < 0 or team_id = $1 order by created_s desc, key_id limit 10000",
        )
        .bind(team_id.map_or(-1, i64::from))
        .fetch_all(&mut *self.read().await?)
        .await?;
        Ok(rows.iter().map(load).collect::<Result<_, sqlx::Error>>()?)
    }
}

fn load(row: &AnyRow) -> Result<Token, sqlx::Error> {
    Ok(Token {
        token: ids::shown(row.try_get("key_id")?),
        team: row.try_get("team_id")?,
        role: row.try_get("role")?,
        name: row.try_get("name")?,
        created: time::shown(row.try_get("created_s")?),
        created_by: row.try_get("created_by")?,
        revoked: row.try_get::<Option<i64>, _>("revoked_s")?.map(time::shown),
    })
}
