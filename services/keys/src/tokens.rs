//! Admin tokens: keys of a gate of their own, which checks and limits them like all keys. The gate
//! alone says what a token may do, so tokens work while the database cannot be used.

use alloc::collections::BTreeMap;
use std::path::Path;

use keytally::{
    AttachError, Error as GateError, Followed, Gate, GateConfig, Key, KeyId, KeyInfo, KeyState,
    Name, NewKey, Peppers, Plan, Verdict,
};
use serde::Serialize;
use sqlx::Row as _;
use sqlx::any::AnyRow;
use utoipa::ToSchema;

use crate::change::Caller;
use crate::database::{LIMIT, REVOKE_LIMIT};
use crate::error::{Error, Result};
use crate::list::{List, Which, blocking};
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
    /// active; revoked; or absent: the gate of tokens of this service does not have it. Another
    /// service made it and has it, or the gate was replaced.
    #[schema(pattern = "^(active|revoked|absent)$")]
    pub state: String,
    /// The machine of the service that made it. Only that service accepts and revokes it. None if
    /// the list does not know the token, as after a restored copy of the database.
    pub machine: Option<String>,
    /// When it was made, if the list knows the token.
    pub created: Option<String>,
    /// Who made it, if the list knows the token.
    pub created_by: Option<String>,
    /// When it was revoked, if the list knows that.
    pub revoked: Option<String>,
}

/// The name of a token that the list does not know.
pub const UNKNOWN_NAME: &str = "(not in the list)";

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
/// Those of [`Gate::open`] and [`Gate::create`]. [`Error::Conflict`] if the gate needs another
/// pepper, with what to do then.
pub fn open_gate(folder: &Path, peppers: &Peppers) -> Result<Followed> {
    let gate = open_or_create(&folder.join(FILE), peppers)?;
    Ok(Followed::from_gate(gate, peppers.clone(), Ok)?)
}

fn open_or_create(path: &Path, peppers: &Peppers) -> Result<Gate> {
    match Gate::open(path, peppers.clone()) {
        Err(GateError::Io { .. }) if !path.exists() => {}
        Err(error @ GateError::Attach { source: AttachError::WrongPepper { .. }, .. }) => {
            let path = path.display();
            return Err(Error::Conflict(format!(
                "{error}; {path} has the tokens of the list of keys: give its pepper before the new one, and rotate each token with keytally rotate {path}, or, to end all tokens, stop the service and remove {path}, which the next start creates"
            )));
        }
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
    match Gate::create(path, peppers.clone(), &config) {
        // Another process was faster.
        Err(GateError::Exists { .. }) => Ok(Gate::open(path, peppers.clone())?),
        created => Ok(created?),
    }
}

/// Checks a token and charges its limits. If the gate's file was replaced, the new one decides
/// within a second.
pub fn check(gate: &Followed, token: Option<&[u8]>) -> (Verdict, Option<Identity>) {
    gate.reopen_if_due();
    let gate = gate.load();
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
        let machine = self.machine().to_owned();
        let applied = self.gate().load().table().applied_sequence();
        let begun = self.begin(LIMIT).await?;
        self.administer_with(Which::Tokens, Some(begun), move |path| {
            let head = path.head();
            if head < applied {
                return Err(Error::Behind { head, applied });
            }
            let scopes = [role.as_str()];
            let new = NewKey::new(team_id.unwrap_or(0), env).with_scopes(&scopes);
            let entropy = keytally::entropy()?;
            let (key, record) = path.administrator.prepare_issue(&new, &entropy, caller.now)?;
            let key_id = record.key_id;
            let mut token = path.transact(LIMIT, async |transaction| {
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
                    "insert into token (key_id, team_id, role, name, machine, created_s, \
                     created_by) values ($1, $2, $3, $4, $5, $6, $7) returning key_id, team_id, \
                     role, name, machine, created_s, created_by, revoked_s",
                )
                .bind(ids::stored(key_id))
                .bind(team_id.map(i64::from))
                .bind(role.as_str())
                .bind(name)
                .bind(machine)
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
                Ok(load(&row)?.1)
            })?;
            path.put(&record, caller.now)?;
            ACTIVE.clone_into(&mut token.state);
            Ok((key, token))
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
        let revoked = self.administer_with(Which::Tokens, None, move |path| {
            let record = path.administrator.read(key_id);
            let is_its = |account| team_id.is_none_or(|team_id| team_id == account);
            let Some(record) = record.filter(|record| is_its(record.account)) else {
                return Ok(None);
            };
            let is_active = record.state == KeyState::Active;
            if is_active {
                path.revoke(key_id)?;
            }
            Ok(Some(is_active))
        });
        let Some(is_active) = revoked.await? else {
            return Err(self.absent_token(team_id, key_id).await?);
        };
        let applied = self.gate().load().table().applied_sequence();
        let listed = self.transact_within(REVOKE_LIMIT, applied, async |transaction| {
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
        });
        match listed.await {
            Err(Error::Database(source)) => Err(Error::Unlisted { token: key_id, source }),
            listed => listed,
        }
    }

    /// Returns why a token that this machine does not have cannot be revoked.
    async fn absent_token(&self, team_id: Option<u32>, key_id: KeyId) -> Result<Error> {
        let listed = self.tokens(team_id).await?;
        let token = listed.into_iter().find(|token| token.token == key_id.to_string());
        Ok(match token.filter(|token| token.revoked.is_none()).and_then(|token| token.machine) {
            Some(machine) => Error::Conflict(format!(
                "this service does not have the token {key_id}; revoke it where it was made, on the \
                 machine {machine:?}"
            )),
            None => Error::not_found("token", key_id),
        })
    }

    /// Returns the tokens of a team; of all teams and operators if there is none. The gate of
    /// tokens says which are valid, so those that the list does not know are returned as well.
    ///
    /// # Errors
    /// If the database cannot be used.
    pub async fn tokens(&self, team_id: Option<u32>) -> Result<Vec<Token>> {
        let rows = sqlx::query(
            "select key_id, team_id, role, name, machine, created_s, created_by, revoked_s \
             from token where $1 < 0 or team_id = $1 order by created_s desc, key_id limit 10000",
        )
        .bind(team_id.map_or(-1, i64::from))
        .fetch_all(&mut *self.read().await?)
        .await?;
        let rows = rows.iter().map(load).collect::<Result<Vec<_>, sqlx::Error>>()?;
        let list = self.clone();
        blocking(move || {
            list.admin().reopen_if_due();
            let gate = list.admin().load();
            let mut present: BTreeMap<_, _> =
                gate.list().into_iter().map(|info| (info.key_id.number(), info)).collect();
            let mut tokens = Vec::with_capacity(rows.len());
            for (number, mut token) in rows {
                let state = present.remove(&number).map(|info| info.state);
                token.state = match (state, &token.revoked) {
                    (Some(KeyState::Active), _) => ACTIVE,
                    (Some(_), _) | (None, Some(_)) => REVOKED,
                    (None, None) => ABSENT,
                }
                .to_owned();
                tokens.push(token);
            }
            let is_its = |info: &KeyInfo| team_id.is_none_or(|team_id| team_id == info.account);
            for info in present.into_values().filter(is_its) {
                if info.state == KeyState::Active {
                    let role = gate.table().scopes_of(&info).next();
                    tokens.push(unknown(&info, role.map(|role| role.to_string())));
                }
            }
            Ok(tokens)
        })
        .await
    }
}

const ACTIVE: &str = "active";
const REVOKED: &str = "revoked";
const ABSENT: &str = "absent";

/// Returns a token that the list does not know.
fn unknown(info: &KeyInfo, role: Option<String>) -> Token {
    Token {
        token: info.key_id.to_string(),
        team: Some(i64::from(info.account)).filter(|&team| team != 0),
        role: role.unwrap_or_default(),
        name: UNKNOWN_NAME.to_owned(),
        state: ACTIVE.to_owned(),
        machine: None,
        created: None,
        created_by: None,
        revoked: None,
    }
}

/// Returns the number of a listed token, and the token without its state.
fn load(row: &AnyRow) -> Result<(u64, Token), sqlx::Error> {
    let number: i64 = row.try_get("key_id")?;
    let token = Token {
        token: ids::shown(number),
        team: row.try_get("team_id")?,
        role: row.try_get("role")?,
        name: row.try_get("name")?,
        state: String::new(),
        machine: Some(row.try_get("machine")?),
        created: Some(time::shown(row.try_get("created_s")?)),
        created_by: Some(row.try_get("created_by")?),
        revoked: row.try_get::<Option<i64>, _>("revoked_s")?.map(time::shown),
    };
    Ok((number.cast_unsigned(), token))
}
