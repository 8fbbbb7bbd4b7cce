//! The changes of keys: create, import, rotate, end the grace, edit, revoke.

use keytally::{AdminError, Gate, Key, KeyId, KeyRecord, KeyState, Name, NewKey, Timestamp};
use sqlx::{AnyConnection, Row as _};

use crate::database::{LIMIT, REVOKE_LIMIT, Transaction};
use crate::error::{Error, Result};
use crate::keys::{self, KeyRow};
use crate::list::{List, Path, scope_bits, scope_names};
use crate::log::{self, NewEntry};
use crate::roles::{Actor, Role};
use crate::teams::TeamSettings;
use crate::{ids, teams, text, time};

pub use crate::teams::LIVE;

/// The most keys of one request to revoke.
pub const MAX_REVOKED: usize = 100;

/// How long an `Idempotency-Key` is remembered, in seconds.
const REMEMBERED_S: i64 = 86_400;

/// The most characters of an `Idempotency-Key`.
pub const MAX_IDEMPOTENCY_KEY_LEN: usize = 64;

/// What a time follows at the end of an entry on a changed key.
pub(crate) const EXPIRES_AT: &str = "expires at ";

/// The field in errors of a rotation after another one that the caller did not see.
pub(crate) const ROTATED: &str = "rotated";

/// The reason of such an error.
const ANOTHER_ROTATION: &str = "the key was rotated after this form was opened, and got a new \
                                secret. Rotate it again only if that one may be replaced";

/// The caller of a change, and the time.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who, for the log.
    pub actor: Actor,
    /// What the caller may do.
    pub role: Role,
    /// The team whose keys the caller may change; `None` for all teams.
    pub team_id: Option<u32>,
    /// The `Idempotency-Key` of the request, if it has one.
    pub idempotency_key: Option<String>,
    /// The time.
    pub now: Timestamp,
}

impl Caller {
    /// Returns the caller of a command: an operator.
    pub fn operator(now: Timestamp) -> Self {
        let (actor, role) = (Actor::operator(), Role::Operator);
        Self { actor, role, team_id: None, idempotency_key: None, now }
    }

    /// Remembers the `Idempotency-Key` of a request that made or changed a key.
    ///
    /// # Errors
    /// [`Error::Repeated`] if a request had it before.
    pub(crate) async fn remember(
        &self,
        transaction: &mut Transaction,
        key_id: KeyId,
    ) -> Result<()> {
        let Some(idempotency_key) = &self.idempotency_key else { return Ok(()) };
        let (actor, now_s) = (self.actor.to_string(), time::stored(self.now));
        sqlx::query("delete from request where at_s < $1")
            .bind(now_s.saturating_sub(REMEMBERED_S))
            .execute(transaction.connection())
            .await?;
        let inserted = sqlx::query(
            "insert into request (actor, idempotency_key, key_id, at_s) values ($1, $2, $3, $4) \
             on conflict (actor, idempotency_key) do nothing",
        )
        .bind(actor.clone())
        .bind(idempotency_key.clone())
        .bind(ids::stored(key_id))
        .bind(now_s)
        .execute(transaction.connection())
        .await?;
        if inserted.rows_affected() == 1 {
            return Ok(());
        }
        let row =
            sqlx::query("select key_id from request where actor = $1 and idempotency_key = $2")
                .bind(actor)
                .bind(idempotency_key.clone())
                .fetch_one(transaction.connection())
                .await?;
        let first = ids::loaded(row.try_get(0)?).unwrap_or(key_id);
        Err(Error::Repeated { key_id: first })
    }

    /// Returns the key of the request that had this `Idempotency-Key` before, if any.
    async fn first_answer(&self, connection: &mut AnyConnection) -> Result<Option<KeyId>> {
        let row = sqlx::query(
            "select key_id from request where actor = $1 and idempotency_key = $2 and is_team = 0",
        )
        .bind(self.actor.to_string())
        .bind(self.idempotency_key.clone())
        .fetch_optional(connection)
        .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?.and_then(ids::loaded))
    }

    /// Appends an entry on a key to the log, and returns the number of the change.
    async fn log(
        &self,
        transaction: &mut Transaction,
        row: &KeyRow,
        action: &'static str,
        detail: String,
    ) -> Result<i64> {
        let entry = NewEntry {
            team_id: Some(row.team_id),
            actor: &self.actor,
            action,
            key_id: Some(row.key_id),
            detail,
        };
        Ok(log::append(transaction, entry, time::stored(self.now)).await?)
    }
}

/// The properties of a key to create.
#[derive(Clone, Debug)]
pub struct Creation {
    /// The team.
    pub team_id: u32,
    /// The environment.
    pub env: Name,
    /// The name.
    pub name: String,
    /// The note.
    pub note: String,
    /// The plan; `None` for the gate's first.
    pub plan: Option<String>,
    /// The scopes.
    pub scopes: Vec<String>,
    /// The moment from which the key is no longer valid; `None` for never.
    pub expires: Option<Timestamp>,
}

/// What to change of a key. What is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// The name.
    pub name: Option<String>,
    /// The note.
    pub note: Option<String>,
    /// The plan.
    pub plan: Option<String>,
    /// The scopes.
    pub scopes: Option<Vec<String>>,
    /// The moment from which the key is no longer valid; `Some(None)` for never.
    pub expires: Option<Option<Timestamp>>,
}

/// The result of a revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// The key.
    pub key_id: KeyId,
    /// Whether the list has the revocation. Otherwise it is in this gate alone, and a comparison
    /// enters it later.
    pub is_listed: bool,
}

impl List {
    /// Creates a key. The returned key is the only copy of its secret.
    ///
    /// # Errors
    /// Nothing was changed, except where [`Error::Database`] says that it is not known.
    pub async fn create_key(&self, new: Creation, caller: Caller) -> Result<(Key, KeyRow)> {
        let now = caller.now;
        self.add_key(new, caller, "key.create", move |path, key| {
            Ok(path.administrator.prepare_issue(key, &keytally::entropy()?, now)?)
        })
        .await
    }

    /// Imports a key of any form that was issued elsewhere.
    ///
    /// # Errors
    /// As [`create_key`](Self::create_key).
    pub async fn import_key(
        &self,
        text: zeroize::Zeroizing<String>,
        new: Creation,
        caller: Caller,
    ) -> Result<KeyRow> {
        let now = caller.now;
        let added = self.add_key(new, caller, "key.import", move |path, key| {
            Ok(((), path.administrator.prepare_import(text.as_bytes(), key, now)?))
        });
        Ok(added.await?.1)
    }

    /// Adds a key on the one path. `prepare` returns its record, and what else to return.
    async fn add_key<T: Send + 'static>(
        &self,
        new: Creation,
        caller: Caller,
        action: &'static str,
        prepare: impl FnOnce(&mut Path<'_, '_>, &NewKey<'_>) -> Result<(T, KeyRecord)> + Send + 'static,
    ) -> Result<(T, KeyRow)> {
        caller.role.require(Role::Member)?;
        let now = caller.now;
        self.change(LIMIT, now, move |path, _| {
            let settings = settings(path, new.team_id)?;
            caller.role.require(settings.role_for(new.env.as_str()))?;
            settings.check_expiry(new.expires, now)?;
            check_plan(path.gate, new.plan.as_deref())?;
            let scopes: Vec<&str> = new.scopes.iter().map(String::as_str).collect();
            check_scopes(path.gate, &scopes)?;
            let mut key =
                NewKey::new(new.team_id, new.env).with_expires(new.expires).with_scopes(&scopes);
            key.plan = new.plan.as_deref();
            let (value, record) = prepare(path, &key)?;
            // The environment of an imported key may be that of its text.
            caller.role.require(settings.role_for(record.env.as_str()))?;
            let row = created(path.gate, &new, &record, &caller)?;
            let row = insert(path, &caller, row, action)?;
            path.put(&record, now)?;
            path.set_applied(row.seq);
            Ok((value, row))
        })
        .await
    }

    /// Gives a key a new secret. The old one stays valid for `grace_s` seconds. `force` ends the
    /// secret before it, if that is still valid.
    ///
    /// # Errors
    /// As [`create_key`](Self::create_key).
    pub async fn rotate_key(
        &self,
        key_id: KeyId,
        grace_s: u64,
        force: bool,
        caller: Caller,
    ) -> Result<(Key, KeyRow)> {
        self.rotate_key_as_seen(key_id, grace_s, force, None, caller).await
    }

    /// Rotates a key as [`rotate_key`](Self::rotate_key) does, if its last rotation is the one that
    /// the caller saw. `seen` is the time of that rotation in Unix seconds, `Some(None)` for a key
    /// that was never rotated, and `None` for any.
    ///
    /// # Errors
    /// As [`create_key`](Self::create_key), and of the field [`ROTATED`] after another rotation.
    pub(crate) async fn rotate_key_as_seen(
        &self,
        key_id: KeyId,
        grace_s: u64,
        force: bool,
        seen: Option<Option<i64>>,
        caller: Caller,
    ) -> Result<(Key, KeyRow)> {
        let grace_until = match grace_s {
            0 => None,
            _ => Some(time::from_now("grace_s", caller.now, grace_s)?),
        };
        let entropy = keytally::entropy()?;
        self.change_key(key_id, caller, "key.rotate", move |path, row, caller| {
            let settings = settings(path, row.team_id)?;
            caller.role.require(settings.role_for(row.env.as_str()))?;
            if seen.is_some_and(|seen| seen != row.rotated_s) {
                return Err(Error::invalid(ROTATED, ANOTHER_ROTATION));
            }
            let (secret, record) = path.administrator.prepare_rotation(
                key_id,
                grace_until,
                force,
                &entropy,
                caller.now,
            )?;
            row.rotated_s = Some(time::stored(caller.now));
            row.shown_s = None;
            let detail = match grace_s {
                0 => "the old secret ended".to_owned(),
                _ => format!("the old secret is valid for {}", time::exact_length(grace_s)),
            };
            Ok((record, detail, secret))
        })
        .await
    }

    /// Ends the previous secret of a key at once.
    ///
    /// # Errors
    /// As [`create_key`](Self::create_key).
    pub async fn end_grace(&self, key_id: KeyId, caller: Caller) -> Result<KeyRow> {
        let change = self.change_key(key_id, caller, "key.end_grace", move |path, row, caller| {
            let settings = settings(path, row.team_id)?;
            caller.role.require(settings.role_for(row.env.as_str()))?;
            let record = KeyRecord { grace_until: None, ..active(path, key_id)? };
            Ok((record, String::new(), ()))
        });
        Ok(change.await?.1)
    }

    /// Changes what people may change of a key.
    ///
    /// # Errors
    /// As [`create_key`](Self::create_key).
    pub async fn edit_key(&self, key_id: KeyId, edit: Edit, caller: Caller) -> Result<KeyRow> {
        caller.role.require(Role::Admin)?;
        let now = caller.now;
        let change = self.change_key(key_id, caller, "key.edit", move |path, row, _| {
            let mut record = active(path, key_id)?;
            let mut changed = Vec::new();
            if let Some(name) = &edit.name {
                let name = text::name("name", name)?;
                changed.push(format!("name from {:?} to {name:?}", row.name));
                row.name = name;
            }
            if let Some(note) = &edit.note {
                row.note = text::note("note", note)?;
                let what = if row.note.is_empty() { "note removed" } else { "another note" };
                changed.push(what.to_owned());
            }
            if let Some(plan) = &edit.plan {
                check_plan(path.gate, Some(plan))?;
                record.plan = keytally::Text::from_text(plan).ok_or(AdminError::NoSuchPlan)?;
                changed.push(format!("plan from {} to {plan}", row.plan));
            }
            if let Some(scopes) = &edit.scopes {
                let names: Vec<&str> = scopes.iter().map(String::as_str).collect();
                check_scopes(path.gate, &names)?;
                let words = |names: &str| match names {
                    "" => "none".to_owned(),
                    names => names.replace(' ', " and "),
                };
                let [from, to] = [&*row.scopes, &*names.join(" ")].map(words);
                changed.push(format!("scopes from {from} to {to}"));
                record.scopes = scope_bits(path.gate, names)?;
            }
            if let Some(expires) = edit.expires {
                settings(path, row.team_id)?.check_expiry(expires, now)?;
                record.expires = expires;
                changed.push(match expires {
                    Some(end) => format!("{EXPIRES_AT}{}", time::shown(time::stored(end))),
                    None => "never expires".to_owned(),
                });
            }
            if changed.is_empty() {
                return Err(Error::invalid("body", "it names nothing to change"));
            }
            Ok((record, changed.join(", "), ()))
        });
        Ok(change.await?.1)
    }

    /// Revokes keys: in the gate at once, also if the database cannot be used.
    ///
    /// # Errors
    /// If the caller's team does not have one of the keys, nothing is changed.
    pub async fn revoke_keys(
        &self,
        key_ids: Vec<KeyId>,
        why: String,
        caller: Caller,
    ) -> Result<Vec<Revoked>> {
        caller.role.require(Role::Admin)?;
        let why = text::note("why", &why)?;
        self.change_anyway(REVOKE_LIMIT, caller.now, move |path, begun| {
            let is_of_team = |account| caller.team_id.is_none_or(|team_id| team_id == account);
            let mut in_gate = Vec::with_capacity(key_ids.len());
            for &key_id in &key_ids {
                let record = path.administrator.read(key_id);
                in_gate.push(record.filter(|record| is_of_team(record.account)).is_some());
            }
            let listed = begun.and_then(|()| list_revocations(path, &key_ids, &why, &caller));
            let has_all = in_gate.iter().all(|&is_there| is_there);
            let seq = match listed {
                Ok(seq) => Some(seq),
                // A key that the list does not know may be in the gate.
                Err(Error::Database(_) | Error::Behind { .. } | Error::NotFound { .. })
                    if has_all =>
                {
                    None
                }
                Err(error) => return Err(error),
            };
            for (&key_id, &is_there) in key_ids.iter().zip(&in_gate) {
                if is_there {
                    path.revoke(key_id)?;
                }
            }
            if let Some(seq) = seq {
                path.set_applied(seq);
            }
            let is_listed = seq.is_some();
            Ok(key_ids.iter().map(|&key_id| Revoked { key_id, is_listed }).collect())
        })
        .await
    }

    /// Records that a response with the present secret of a key was sent.
    ///
    /// # Errors
    /// If the database cannot be used.
    pub async fn mark_shown(&self, row: &KeyRow, now: Timestamp) -> Result<()> {
        let (key_id, tag) = (row.key_id, row.secret.tag);
        self.transact(async move |transaction| {
            sqlx::query("update \"key\" set shown_s = $3 where key_id = $1 and tag = $2")
                .bind(ids::stored(key_id))
                .bind(tag.to_vec())
                .bind(time::stored(now))
                .execute(transaction.connection())
                .await?;
            Ok(())
        })
        .await
    }

    /// Changes a key on the one path. `prepare` returns the record, the detail of the log's entry,
    /// and what else to return.
    async fn change_key<T: Send + 'static>(
        &self,
        key_id: KeyId,
        caller: Caller,
        action: &'static str,
        prepare: impl FnOnce(&mut Path<'_, '_>, &mut KeyRow, &Caller) -> Result<(KeyRecord, String, T)>
        + Send
        + 'static,
    ) -> Result<(T, KeyRow)> {
        self.change(LIMIT, caller.now, move |path, _| {
            let mut row = path.query(LIMIT, async |connection| {
                keys::find_of(connection, caller.team_id, key_id).await
            })?;
            if row.is_revoked {
                return Err(AdminError::Revoked(key_id).into());
            }
            let (record, detail, value) = prepare(path, &mut row, &caller)?;
            let scopes = scope_names(path.gate, record.scopes);
            row.take(&record, scopes);
            row.seq = path.transact(LIMIT, async |transaction| {
                caller.remember(transaction, key_id).await?;
                let seq = caller.log(transaction, &row, action, detail).await?;
                keys::update(transaction, &KeyRow { seq, ..row.clone() }).await?;
                Ok(seq)
            })?;
            path.put(&record, caller.now)?;
            path.set_applied(row.seq);
            Ok((value, row))
        })
        .await
    }
}

/// Returns the settings of a team.
fn settings(path: &mut Path<'_, '_>, team_id: u32) -> Result<TeamSettings> {
    let team = path.query(LIMIT, async |connection| teams::find(connection, team_id).await)?;
    Ok(team.settings)
}

/// Returns the record of an active key.
fn active(path: &mut Path<'_, '_>, key_id: KeyId) -> Result<KeyRecord> {
    match path.administrator.read(key_id) {
        Some(record) if record.state == KeyState::Revoked => {
            Err(AdminError::Revoked(key_id).into())
        }
        Some(record) => Ok(record),
        None => Err(AdminError::NoSuchKey(key_id).into()),
    }
}

/// Returns the row of a key that is created.
fn created(gate: &Gate, new: &Creation, record: &KeyRecord, caller: &Caller) -> Result<KeyRow> {
    let (name, by) = (text::name("name", &new.name)?, caller.actor.to_string());
    let mut row = KeyRow::new(record, scope_names(gate, record.scopes), name, by, caller.now);
    row.note = text::note("note", &new.note)?;
    Ok(row)
}

/// Commits a new row, and returns it with the number of the change.
fn insert(
    path: &mut Path<'_, '_>,
    caller: &Caller,
    mut row: KeyRow,
    action: &'static str,
) -> Result<KeyRow> {
    row.seq = path.transact(LIMIT, async |transaction| {
        teams::find(transaction.connection(), row.team_id).await?;
        caller.remember(transaction, row.key_id).await?;
        let detail = format!("environment {}, plan {}", row.env.as_str(), row.plan);
        let seq = caller.log(transaction, &row, action, detail).await?;
        keys::insert(transaction, &KeyRow { seq, ..row.clone() }).await?;
        Ok(seq)
    })?;
    Ok(row)
}

/// Commits revocations, and returns the number of the last change.
fn list_revocations(
    path: &mut Path<'_, '_>,
    key_ids: &[KeyId],
    why: &str,
    caller: &Caller,
) -> Result<i64> {
    path.transact(REVOKE_LIMIT, async |transaction| {
        let mut last = i64::try_from(transaction.seq()).unwrap_or(i64::MAX);
        for &key_id in key_ids {
            let row = keys::find_of(transaction.connection(), caller.team_id, key_id).await?;
            if row.is_revoked {
                continue;
            }
            let seq = caller.log(transaction, &row, "key.revoke", why.to_owned()).await?;
            let revoked = KeyRow {
                is_revoked: true,
                revoked_s: Some(time::stored(caller.now)),
                revoked_by: Some(caller.actor.to_string()),
                revoked_why: Some(why.to_owned()),
                seq,
                ..row
            };
            keys::update(transaction, &revoked).await?;
            last = seq;
        }
        Ok(last)
    })
}

/// Refuses a plan that the gate does not have.
fn check_plan(gate: &Gate, plan: Option<&str>) -> Result<()> {
    let mut plans = gate.table().plans();
    if plan.is_none_or(|name| plans.any(|(_, plan)| &*plan.name == name)) {
        return Ok(());
    }
    let names: Vec<_> = gate.table().plans().map(|(_, plan)| plan.name.to_string()).collect();
    let reason = format!("the gate has no plan of that name; it has {}", names.join(", "));
    Err(Error::invalid("plan", reason))
}

/// Refuses scopes that the gate does not have.
fn check_scopes(gate: &Gate, scopes: &[&str]) -> Result<()> {
    if scopes.iter().all(|name| gate.table().scope_bit(name).is_some()) {
        return Ok(());
    }
    let names: Vec<_> = gate.table().scopes().map(|name| name.to_string()).collect();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Err(Error::invalid("scopes", format!("the gate has no scope of that name; it has {names}")))
}

impl List {
    /// Returns the keys of a filter, in its order.
    ///
    /// # Errors
    /// If the database cannot be used.
    pub async fn keys(&self, filter: &keys::KeyFilter, now: Timestamp) -> Result<Vec<KeyRow>> {
        let has_parts = self.database().has_parts_of_names();
        Ok(keys::list(&mut *self.read().await?, filter, has_parts, now).await?)
    }

    /// Returns the number of the keys of a filter, at most one more than [`keys::MOST_COUNTED`].
    ///
    /// # Errors
    /// If the database cannot be used.
    pub async fn count_keys(&self, filter: &keys::KeyFilter, now: Timestamp) -> Result<i64> {
        let has_parts = self.database().has_parts_of_names();
        Ok(keys::count(&mut *self.read().await?, filter, has_parts, now).await?)
    }

    /// Returns the key that a request with the `Idempotency-Key` of this caller made or changed
    /// before.
    ///
    /// # Errors
    /// If the database cannot be used.
    pub async fn answered_before(&self, caller: &Caller) -> Result<Option<KeyId>> {
        caller.first_answer(&mut *self.read().await?).await
    }

    /// Returns an active key of an environment of a team that has a name, without case in ASCII.
    ///
    /// # Errors
    /// If the database cannot be used.
    pub async fn active_key_named(
        &self,
        team_id: u32,
        env: &str,
        name: &str,
        now: Timestamp,
    ) -> Result<Option<KeyRow>> {
        Ok(keys::active_of_name(&mut *self.read().await?, team_id, env, name, now).await?)
    }

    /// Returns a key of a team; of any team if there is none.
    ///
    /// # Errors
    /// If there is no such key, or if the database cannot be used.
    pub async fn key(&self, team_id: Option<u32>, key_id: KeyId) -> Result<KeyRow> {
        keys::find_of(&mut *self.read().await?, team_id, key_id).await
    }
}
