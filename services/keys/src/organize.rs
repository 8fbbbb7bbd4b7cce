//! The changes of teams, members and links.

use keytally::{KeyInfo, KeyState, Timestamp};
use sqlx::Row as _;

use crate::change::Caller;
use crate::codes::{self, CODE_LIFETIME_S, Code, INVITATION_LIFETIME_S, OpenLink, SignIn};
use crate::database::{Database, LIMIT, Transaction};
use crate::error::{Error, Result};
use crate::keys::{self, KeyFilter};
use crate::list::List;
use crate::log::{self, ActorFilter, Entry, Filter, MOST_SEVERAL, NewEntry};
use crate::roles::Role;
use crate::teams::{self, Member, Team, TeamEdit, TeamSettings};
use crate::{requests, text, time};

/// A one-time link's code, and when it ends.
#[derive(Debug)]
pub struct Link {
    /// The code, for the fragment of the link.
    pub code: Code,
    /// Whom it signs in.
    pub sign_in: SignIn,
    /// When it is no longer valid.
    pub ends: Timestamp,
}

impl Link {
    /// Returns the link. Its code is in the fragment, which browsers do not send to servers.
    pub fn url(&self, public_url: &str) -> String {
        format!("{}/keys/in#{}", public_url.trim_end_matches('/'), self.code.expose())
    }
}

impl List {
    /// Makes a team, with the next free number unless one is given.
    ///
    /// # Errors
    /// [`Error::RepeatedFor`] if a request with the same `Idempotency-Key` was answered before.
    /// Others if the caller is not an operator, if the name or the number is not possible, or if
    /// the database cannot be used.
    pub async fn create_team(
        &self,
        team_id: Option<u32>,
        name: &str,
        caller: Caller,
    ) -> Result<Team> {
        caller.role.require(Role::Operator)?;
        let name = text::name("name", name)?;
        if team_id == Some(0) {
            return Err(Error::invalid("team", "0 is not a team; use a number from 1 on"));
        }
        self.transact(async move |transaction| {
            requests::refuse_repeated(transaction, &caller).await?;
            let team = teams::insert(transaction, team_id, &name, caller.now).await?;
            requests::remember_team(transaction, &caller, team.team).await?;
            append(transaction, &caller, team.team, "team.create", name.clone()).await?;
            Ok(team)
        })
        .await
    }

    /// Changes the name of a team, and what its members may do. The log gets an entry for each of
    /// both that changes. An edit that is made again changes nothing.
    ///
    /// # Errors
    /// If the edit names nothing. As [`create_team`](Self::create_team), for an owner.
    pub async fn edit_team(&self, team_id: u32, edit: TeamEdit, caller: Caller) -> Result<Team> {
        caller.role.require(Role::Owner)?;
        let TeamEdit { name, longest_days, live_role } = edit;
        if name.is_none() && longest_days.is_none() && live_role.is_none() {
            return Err(Error::invalid("body", "it names nothing to change"));
        }
        let name = name.map(|name| text::name("name", &name)).transpose()?;
        self.transact(async move |transaction| {
            let mut team = teams::find(transaction.connection(), team_id).await?;
            let present = team.settings.clone();
            let settings = TeamSettings {
                longest_days: longest_days.unwrap_or(present.longest_days),
                live_role: live_role.unwrap_or(present.live_role),
            };
            settings.check()?;
            if let Some(name) = name.filter(|name| *name != team.name) {
                team = teams::rename(transaction, team_id, &name).await?;
                append(transaction, &caller, team_id, "team.rename", name).await?;
            }
            if settings != present {
                team = teams::set_settings(transaction, team_id, &settings).await?;
                append(transaction, &caller, team_id, "team.set", settings.to_string()).await?;
            }
            Ok(team)
        })
        .await
    }

    /// Renames a team.
    ///
    /// # Errors
    /// As [`create_team`](Self::create_team), for an owner.
    pub async fn rename_team(&self, team_id: u32, name: &str, caller: Caller) -> Result<Team> {
        let edit = TeamEdit { name: Some(name.to_owned()), ..TeamEdit::default() };
        self.edit_team(team_id, edit, caller).await
    }

    /// Changes what the members of a team may do.
    ///
    /// # Errors
    /// As [`create_team`](Self::create_team), for an owner.
    pub async fn set_team(
        &self,
        team_id: u32,
        settings: TeamSettings,
        caller: Caller,
    ) -> Result<Team> {
        let TeamSettings { longest_days, live_role } = settings;
        let (longest_days, live_role) = (Some(longest_days), Some(live_role));
        self.edit_team(team_id, TeamEdit { name: None, longest_days, live_role }, caller).await
    }

    /// Deletes a team that has neither valid keys nor tokens. `typed` must be its name. Its members
    /// lose their sessions, links and passkeys. Its revoked and expired keys and its log stay in
    /// the database, and its number is not given to another team.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the team has valid keys or tokens, and [`Error::Invalid`] for another
    /// name. As [`create_team`](Self::create_team), for an owner.
    pub async fn delete_team(&self, team_id: u32, typed: &str, caller: Caller) -> Result<()> {
        caller.role.require(Role::Owner)?;
        let (typed, now) = (typed.to_owned(), caller.now);
        self.change(LIMIT, now, move |path, _| {
            let is_its = |key: &KeyInfo| key.account == team_id && key.state == KeyState::Active;
            let is_valid = |key: &KeyInfo| key.expires.is_none_or(|end| end > now);
            let in_gate = path.gate.list().into_iter();
            let in_gate = in_gate.filter(|key| is_its(key) && is_valid(key)).count();
            let (team, in_list, tokens) = path.query(LIMIT, async |connection| {
                let team = teams::find(connection, team_id).await?;
                let valid = KeyFilter {
                    team_id: Some(team_id),
                    state: "active".to_owned(),
                    ..KeyFilter::default()
                };
                let in_list = keys::count(connection, &valid, false, now).await?;
                Ok((team, in_list, teams::open_tokens(connection, team_id).await?))
            })?;
            let keys = in_list.max(i64::try_from(in_gate).unwrap_or(i64::MAX));
            if keys > 0 {
                let reason = format!("the team has valid keys, {keys} of them; revoke them first");
                return Err(Error::Conflict(reason));
            }
            if tokens > 0 {
                let reason = format!(
                    "the team has tokens that are not revoked, {tokens} of them; revoke them \
                     first, as with keytally keys token revoke"
                );
                return Err(Error::Conflict(reason));
            }
            if typed.trim() != team.name.trim() {
                let reason = format!("type the name of the team, {:?}, to delete it", team.name);
                return Err(Error::invalid("typed", reason));
            }
            path.transact(LIMIT, async |transaction| {
                teams::delete(transaction, team_id, now).await?;
                append(transaction, &caller, team_id, "team.delete", team.name).await
            })
        })
        .await
    }

    /// Returns teams, in the order of their numbers.
    ///
    /// # Errors
    /// If the database cannot be used.
    pub async fn teams(&self, after: i64, limit: i64) -> Result<Vec<Team>> {
        Ok(teams::list(&mut *self.read().await?, after, limit).await?)
    }

    /// Returns a team.
    ///
    /// # Errors
    /// If there is none, or if the database cannot be used.
    pub async fn team(&self, team_id: u32) -> Result<Team> {
        teams::find(&mut *self.read().await?, team_id).await
    }

    /// Returns the members of a team.
    ///
    /// # Errors
    /// If the database cannot be used.
    pub async fn members(&self, team_id: u32) -> Result<Vec<Member>> {
        Ok(teams::members(&mut *self.read().await?, team_id).await?)
    }

    /// Adds the user of this name to a team, or changes the user's role there.
    ///
    /// # Errors
    /// As [`create_team`](Self::create_team), for an owner. Also if the team would have no owner.
    pub async fn set_member(
        &self,
        team_id: u32,
        name: &str,
        role: Role,
        caller: Caller,
    ) -> Result<Member> {
        caller.role.require(Role::Owner)?;
        let name = text::name("name", name)?;
        self.transact(async move |transaction| {
            teams::find(transaction.connection(), team_id).await?;
            let user_id = teams::user_named(transaction, &name).await?;
            teams::set_member(transaction, team_id, user_id, role, caller.now).await?;
            let detail = format!("user {user_id} is {}", role.as_str());
            append(transaction, &caller, team_id, "member.set", detail).await?;
            let members = teams::members(transaction.connection(), team_id).await?;
            let member = members.into_iter().find(|member| member.user == user_id);
            member.ok_or_else(|| Error::not_found("member", user_id))
        })
        .await
    }

    /// Removes a member, and ends the member's sessions. Keys that the member made stay.
    ///
    /// # Errors
    /// As [`create_team`](Self::create_team), for an owner.
    pub async fn remove_member(&self, team_id: u32, user_id: i64, caller: Caller) -> Result<()> {
        caller.role.require(Role::Owner)?;
        self.transact(async move |transaction| {
            teams::remove_member(transaction, team_id, user_id).await?;
            append(transaction, &caller, team_id, "member.remove", format!("user {user_id}")).await
        })
        .await
    }

    /// Makes a one-time link for a user of a team, or for an operator if there is no team.
    ///
    /// A user who is not a member becomes one with this role. The role of a member stays: the
    /// session of the link has the lesser of both.
    ///
    /// # Errors
    /// As [`create_team`](Self::create_team), for an owner.
    pub async fn create_link(
        &self,
        team_id: Option<u32>,
        user: Option<&str>,
        role: Role,
        caller: Caller,
    ) -> Result<Link> {
        self.create_link_for(team_id, user, role, caller, false).await
    }

    /// Invites a user to a team: makes a one-time link that is valid longer. It replaces the links
    /// of the user for the team that are not used yet.
    ///
    /// # Errors
    /// As [`create_link`](Self::create_link).
    pub async fn create_invitation(
        &self,
        team_id: u32,
        user: &str,
        role: Role,
        caller: Caller,
    ) -> Result<Link> {
        self.create_link_for(Some(team_id), Some(user), role, caller, true).await
    }

    async fn create_link_for(
        &self,
        team_id: Option<u32>,
        user: Option<&str>,
        role: Role,
        caller: Caller,
        is_invitation: bool,
    ) -> Result<Link> {
        caller.role.require(Role::Owner.max(role))?;
        let user = user.map(|user| text::name("user", user)).transpose()?;
        if team_id.is_none() != (role == Role::Operator) {
            return Err(Error::invalid("role", "a link for a team has a role of a team"));
        }
        let lifetime_s = if is_invitation { INVITATION_LIFETIME_S } else { CODE_LIFETIME_S };
        let ends = time::from_now("ends", caller.now, lifetime_s)?;
        let code = Code::generate()?;
        self.transact(async move |transaction| {
            let (user_id, of_member) = match (team_id, &user) {
                (Some(team_id), Some(user)) => {
                    let (user_id, role) = member(transaction, &caller, team_id, user, role).await?;
                    (Some(user_id), role)
                }
                _ => (None, role),
            };
            let replaced = match (team_id, user_id) {
                (Some(team_id), Some(user_id)) if is_invitation => {
                    codes::withdraw_all(transaction, team_id, user_id, caller.now).await?
                }
                _ => 0,
            };
            let replaced = match replaced {
                0 => "",
                1 => "; the link before it is withdrawn",
                _ => "; the links before it are withdrawn",
            };
            // A session follows the role of the member, unless the link is for a lesser one.
            let most = if user_id.is_none() || role < of_member { role } else { Role::Owner };
            codes::keep(transaction, &code, &SignIn { team_id, user_id, role: most }, ends).await?;
            let role = role.min(of_member);
            let sign_in = SignIn { team_id, user_id, role };
            let whom = user_id.map_or_else(|| "an operator".to_owned(), |id| format!("user {id}"));
            let entry = NewEntry {
                team_id,
                actor: &caller.actor,
                action: "link.create",
                key_id: None,
                detail: format!("{whom} as {}{replaced}", role.as_str()),
            };
            log::append(transaction, entry, time::stored(caller.now)).await?;
            Ok(Link { code, sign_in, ends })
        })
        .await
    }

    /// Returns entries of the log, the newest first.
    ///
    /// # Errors
    /// If the database cannot be used.
    pub async fn log(&self, filter: &Filter) -> Result<Vec<Entry>> {
        Ok(log::entries(&mut *self.read().await?, filter).await?)
    }

    /// Returns the actor of the log that a text means: as the log names it, such as `user 3`, or
    /// the name of a user. A name that no user has is an actor without entries.
    ///
    /// # Errors
    /// A sentence that names the field; those of the database.
    pub async fn actor(&self, field: &'static str, text: &str) -> Result<ActorFilter> {
        if let Some(actor) = ActorFilter::named(text) {
            return Ok(actor);
        }
        let name = text::name(field, text)?;
        let row = sqlx::query("select user_id from \"user\" where name = $1")
            .bind(name)
            .fetch_optional(&mut *self.read().await?)
            .await?;
        Ok(ActorFilter::user(row.map(|row| row.try_get(0)).transpose()?.unwrap_or(0)))
    }

    /// Returns the actors of a team's log whose names contain a text, in any case: users and
    /// tokens by their names, and operators as such. A text that [`actor`](Self::actor) takes as
    /// the whole name of an actor is that one. A text that no name contains is an actor without
    /// entries.
    ///
    /// # Errors
    /// A sentence that names the field, also if there are more than [`MOST_SEVERAL`]; those of the
    /// database.
    pub(crate) async fn actors_like(
        &self,
        field: &'static str,
        team_id: u32,
        text: &str,
    ) -> Result<ActorFilter> {
        let whole = self.actor(field, text).await?;
        if whole != ActorFilter::user(0) {
            return Ok(whole);
        }
        let rows = sqlx::query(
            "select user_id, name from \"user\" where exists (select 1 from log \
             where team_id = $1 and actor_kind = 'user' and actor = cast(user_id as text))",
        )
        .bind(i64::from(team_id))
        .fetch_all(&mut *self.read().await?)
        .await?;
        let mut named =
            OTHER_ACTORS.map(|(actor, name)| (actor.to_owned(), name.to_owned())).to_vec();
        for row in rows {
            named.push((format!("user {}", row.try_get::<i64, _>(0)?), row.try_get(1)?));
        }
        for token in self.tokens(Some(team_id)).await? {
            named.push((format!("token {}", token.token), format!("token {}", token.name)));
        }
        let part = text.to_lowercase();
        let mut found: Vec<_> = named
            .into_iter()
            .filter(|(_, name)| name.to_lowercase().contains(&part))
            .map(|(actor, _)| actor)
            .collect();
        if found.len() > MOST_SEVERAL {
            let reason = format!("more than {MOST_SEVERAL} names contain it; write more of one");
            return Err(Error::invalid(field, reason));
        }
        if found.is_empty() {
            return Ok(whole);
        }
        found.sort();
        Ok(ActorFilter::several(found))
    }
}

/// The actors without a name of their own, and what the page calls them.
const OTHER_ACTORS: [(&str, &str); 3] =
    [("operator page", "operator"), ("operator shell", "operator"), ("reconcile ", "the service")];

impl List {
    /// Returns the links of a team that are not used yet, those that end first.
    ///
    /// # Errors
    /// If the database cannot be used.
    pub(crate) async fn open_links(&self, team_id: u32, now: Timestamp) -> Result<Vec<OpenLink>> {
        Ok(codes::open(&mut *self.read().await?, team_id, now).await?)
    }

    /// Withdraws a link of a team that is not used yet.
    ///
    /// # Errors
    /// As [`create_team`](Self::create_team), for an owner.
    pub(crate) async fn withdraw_link(
        &self,
        team_id: u32,
        id: String,
        caller: Caller,
    ) -> Result<()> {
        caller.role.require(Role::Owner)?;
        self.transact(async move |transaction| {
            let links = codes::open(transaction.connection(), team_id, caller.now).await?;
            let link = links.into_iter().find(|link| link.id() == id);
            let link = link.ok_or_else(|| Error::not_found("link", &id))?;
            codes::withdraw(transaction, &link).await?;
            let detail = format!("that of {}", link.user);
            append(transaction, &caller, team_id, "link.withdraw", detail).await
        })
        .await
    }
}

/// Returns the number of a user and the user's role in a team. A user who is not a member becomes
/// one with `role`.
async fn member(
    transaction: &mut Transaction,
    caller: &Caller,
    team_id: u32,
    user: &str,
    role: Role,
) -> Result<(i64, Role)> {
    teams::find(transaction.connection(), team_id).await?;
    let user_id = teams::user_named(transaction, user).await?;
    if let Some(role) = teams::role_of(transaction.connection(), team_id, user_id).await? {
        return Ok((user_id, role));
    }
    teams::set_member(transaction, team_id, user_id, role, caller.now).await?;
    let detail = format!("user {user_id} is {}", role.as_str());
    append(transaction, caller, team_id, "member.set", detail).await?;
    Ok((user_id, role))
}

/// Makes a one-time link for an operator, for a service that starts with a gate that has change
/// `applied`.
pub(crate) async fn first_link(database: &Database, applied: u64, now: Timestamp) -> Result<Link> {
    let caller = Caller::operator(now);
    let ends = time::from_now("ends", now, CODE_LIFETIME_S)?;
    let (code, sign_in) =
        (Code::generate()?, SignIn { team_id: None, user_id: None, role: Role::Operator });
    let mut transaction = database.write().await?;
    if transaction.seq() < applied {
        // Its number would be that of a change that a restored copy lacks.
        return Err(Error::Behind { head: transaction.seq(), applied });
    }
    codes::keep(&mut transaction, &code, &sign_in, ends).await?;
    let entry = NewEntry {
        team_id: None,
        actor: &caller.actor,
        action: "link.create",
        key_id: None,
        detail: "an operator, at the start of the service".to_owned(),
    };
    log::append(&mut transaction, entry, time::stored(now)).await?;
    transaction.commit().await?;
    Ok(Link { code, sign_in, ends })
}

/// Appends an entry on a team to the log.
async fn append(
    transaction: &mut Transaction,
    caller: &Caller,
    team_id: u32,
    action: &'static str,
    detail: String,
) -> Result<()> {
    let team_id = Some(team_id);
    let entry = NewEntry { team_id, actor: &caller.actor, action, key_id: None, detail };
    log::append(transaction, entry, time::stored(caller.now)).await?;
    Ok(())
}
