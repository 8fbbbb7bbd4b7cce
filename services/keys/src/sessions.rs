//! The sessions of people who are signed in to the page. The database has only the SHA-256 of a
//! session's token.

use keytally::Timestamp;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use crate::codes::{self, Code, SignIn};
use crate::database::{DatabaseError, Transaction};
use crate::error::{Error, Result};
use crate::list::List;
use crate::log::{self, NewEntry};
use crate::roles::{Actor, Role};
use crate::{teams, time};

/// How long a session lasts at most, in seconds.
pub const LIFETIME_S: i64 = 7 * 86_400;

/// How long a session of a link lasts at most if people see the page on this machine only, in
/// seconds.
pub const LOOPBACK_LIFETIME_S: i64 = 12 * 3600;

/// How long a session lasts without a request, in seconds.
pub const IDLE_S: i64 = 8 * 3600;

/// How long after a proof a session may make changes, in seconds.
pub const PROOF_S: i64 = 600;

/// How long after a refused attempt of an account in a team the log has no further one, in seconds.
pub const FAILURE_EVERY_S: i64 = 60;

/// How often a session records that it was used, in seconds.
const SEEN_EVERY_S: i64 = 60;

/// The most characters of a browser's name that are kept.
const MAX_AGENT_LEN: usize = 200;

/// From where a person signs in.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The name that the browser gives itself.
    pub agent: String,
    /// The address of the client.
    pub address: Option<String>,
    /// Whether people see the page on this machine only, without TLS.
    pub is_loopback: bool,
}

/// A sign-in of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedIn {
    /// Its number in the log.
    pub seq: i64,
    /// When.
    pub at_s: i64,
    /// From where, as [`Origin`].
    pub agent: String,
    /// The address of the client, if known.
    pub address: Option<String>,
}

/// The most sign-ins that [`List::sign_ins_to_show`] returns.
const MOST_SHOWN: i64 = 5;

/// A session that is valid.
#[derive(Clone, Debug)]
pub struct Session {
    hash: Vec<u8>,
    /// The team that the session is about; `None` for an operator who has chosen none.
    pub team_id: Option<u32>,
    /// The name of the team.
    pub team: String,
    /// The user; `None` for an operator.
    pub user_id: Option<i64>,
    /// The name of the user.
    pub user: String,
    /// What the session may do.
    pub role: Role,
    /// What the user may do in the team. A link for a lesser role begins a session with that.
    pub of_member: Role,
    /// When it began.
    pub created_s: i64,
    /// When it was last used, to the minute.
    pub seen_s: i64,
    /// When it ends at the latest.
    pub ends_s: i64,
    /// When the person last proved to be the user.
    pub proved_s: i64,
    /// From where it began.
    pub origin: Origin,
    /// The log's number of the last sign-in of the user that the session has shown.
    shown_seq: i64,
}

impl Session {
    /// Returns the public name of the session, which is a part of its hash.
    pub fn id(&self) -> String {
        self.hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Returns whether the person proved recently to be the user.
    pub fn is_proved(&self, now: Timestamp) -> bool {
        time::stored(now).saturating_sub(self.proved_s) < PROOF_S
    }

    /// Returns the account of the session.
    pub(crate) fn account(&self) -> Account {
        Account { team_id: self.team_id, user_id: self.user_id }
    }

    /// Returns who acts in the session, for the log.
    pub fn actor(&self, address: Option<String>) -> Actor {
        Actor::person(self.user_id, address)
    }
}

/// Whom an attempt is for: a user in a team, or the operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) team_id: Option<u32>,
    /// `None` for operators, who share an account.
    pub(crate) user_id: Option<i64>,
}

/// What a person attempts by a code or a passkey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    SignIn,
    Proof,
}

impl Attempt {
    /// Returns the action of its failure in the log.
    const fn action(self) -> &'static str {
        match self {
            Self::SignIn => "session.fail",
            Self::Proof => "session.fail_proof",
        }
    }
}

/// The columns and the tables of a session. A user who is no longer a member has none.
macro_rules! sessions {
    () => {
        "select session.hash, session.team_id, coalesce(team.name, '') as team, session.user_id, \
         coalesce(\"user\".name, '') as \"user\", session.role as most, \
         coalesce(member.role, session.role) as role, \
         session.created_s, session.seen_s, session.ends_s, session.proved_s, session.agent, \
         session.address, session.shown_seq from session \
         left join team on team.team_id = session.team_id \
         left join \"user\" on \"user\".user_id = session.user_id \
         left join member on member.team_id = session.team_id and member.user_id = session.user_id \
         where session.ends_s > $1 and session.seen_s > $2 \
         and (session.user_id is null or member.user_id is not null) "
    };
}

fn load(row: &AnyRow) -> Result<Session, sqlx::Error> {
    let team_id: Option<i64> = row.try_get("team_id")?;
    Ok(Session {
        hash: row.try_get("hash")?,
        team_id: team_id.and_then(|number| u32::try_from(number).ok()),
        team: row.try_get("team")?,
        user_id: row.try_get("user_id")?,
        user: row.try_get("user")?,
        role: codes::lesser(row)?,
        of_member: Role::named(&row.try_get::<String, _>("role")?).unwrap_or(Role::Viewer),
        created_s: row.try_get("created_s")?,
        seen_s: row.try_get("seen_s")?,
        ends_s: row.try_get("ends_s")?,
        proved_s: row.try_get("proved_s")?,
        origin: Origin {
            agent: row.try_get("agent")?,
            address: row.try_get("address")?,
            ..Origin::default()
        },
        shown_seq: row.try_get("shown_seq")?,
    })
}

/// Adds a session, and returns its token.
pub(crate) async fn begin(
    transaction: &mut Transaction,
    sign_in: &SignIn,
    origin: &Origin,
    now: Timestamp,
) -> Result<Code> {
    let token = Code::generate()?;
    let now_s = time::stored(now);
    let lifetime_s = if origin.is_loopback { LOOPBACK_LIFETIME_S } else { LIFETIME_S };
    // Its own sign-in is in the log already, and the session does not show it.
    let shown_seq = i64::try_from(transaction.seq()).unwrap_or(i64::MAX);
    sqlx::query("delete from session where ends_s <= $1 or seen_s <= $2")
        .bind(now_s)
        .bind(now_s.saturating_sub(IDLE_S))
        .execute(transaction.connection())
        .await?;
    sqlx::query(
        "insert into session (hash, team_id, user_id, role, created_s, seen_s, ends_s, proved_s, \
         agent, address, shown_seq) values ($1, $2, $3, $4, $5, $5, $6, $5, $7, $8, $9)",
    )
    .bind(token.hash())
    .bind(sign_in.team_id.map(i64::from))
    .bind(sign_in.user_id)
    .bind(sign_in.role.as_str())
    .bind(now_s)
    .bind(now_s.saturating_add(lifetime_s))
    .bind(plain(&origin.agent))
    .bind(origin.address.clone())
    .bind(shown_seq)
    .execute(transaction.connection())
    .await?;
    if let (Some(team_id), Some(user_id)) = (sign_in.team_id, sign_in.user_id) {
        teams::mark_seen(transaction, team_id, user_id, now_s).await?;
    }
    Ok(token)
}

/// Records that the person of a session proved to be its user, and returns its new token.
///
/// # Errors
/// If the session ended meanwhile. Then the proof is not used up.
pub(crate) async fn renew(
    transaction: &mut Transaction,
    session: &Session,
    now: Timestamp,
) -> Result<Code> {
    let token = Code::generate()?;
    let updated =
        sqlx::query("update session set hash = $2, proved_s = $3, seen_s = $3 where hash = $1")
            .bind(session.hash.clone())
            .bind(token.hash())
            .bind(time::stored(now))
            .execute(transaction.connection())
            .await?;
    if updated.rows_affected() == 0 {
        return Err(Error::Conflict("your session ended meanwhile; sign in again".to_owned()));
    }
    Ok(token)
}

/// Returns a text without control characters, and not too long.
fn plain(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(MAX_AGENT_LEN).collect()
}

/// Returns the only team, if there is one.
async fn only_team(connection: &mut AnyConnection) -> Result<Option<u32>, DatabaseError> {
    let rows =
        sqlx::query("select team_id from team where archived_s is null order by team_id limit 2")
            .fetch_all(connection)
            .await?;
    match rows.as_slice() {
        [row] => Ok(u32::try_from(row.try_get::<i64, _>(0)?).ok()),
        _ => Ok(None),
    }
}

/// The text between the browser and the name of a passkey in the log.
pub(crate) const WITH_PASSKEY: &str = " with passkey ";

/// Returns the detail of a sign-in with a passkey.
#[cfg(feature = "passkeys")]
pub(crate) fn detail_with(origin: &Origin, passkey: &str) -> String {
    format!("{}{WITH_PASSKEY}{passkey}", plain(&origin.agent))
}

async fn log_entry(
    transaction: &mut Transaction,
    sign_in: &SignIn,
    origin: &Origin,
    action: &'static str,
    now: Timestamp,
) -> Result<()> {
    let actor = Actor::person(sign_in.user_id, origin.address.clone());
    let team_id = sign_in.team_id;
    let detail = plain(&origin.agent);
    let entry = NewEntry { team_id, actor: &actor, action, key_id: None, detail };
    log::append(transaction, entry, time::stored(now)).await?;
    Ok(())
}

impl List {
    /// Uses a code up, and begins a session. Returns its token. The session of an operator is about
    /// the only team, if there is one.
    ///
    /// # Errors
    /// One for all codes that are not valid; those of the database.
    pub async fn sign_in(&self, code: Code, origin: Origin, now: Timestamp) -> Result<Code> {
        self.transact(async move |transaction| {
            let mut sign_in = codes::use_up(transaction, &code, now).await?;
            if sign_in.role == Role::Operator {
                sign_in.team_id = only_team(transaction.connection()).await?;
            }
            log_entry(transaction, &sign_in, &origin, "session.begin", now).await?;
            begin(transaction, &sign_in, &origin, now).await
        })
        .await
    }

    /// Uses a code up as a proof that the person of a session is its user. Returns the new token of
    /// the session.
    ///
    /// # Errors
    /// One for all codes that are not valid, or that sign in another user; those of the database.
    pub async fn prove(
        &self,
        session: Session,
        code: Code,
        origin: Origin,
        now: Timestamp,
    ) -> Result<Code> {
        self.transact(async move |transaction| {
            let proof = codes::use_up(transaction, &code, now).await?;
            let is_operator = proof.role == Role::Operator && session.role == Role::Operator;
            let is_same = proof.user_id.is_some() && proof.user_id == session.user_id;
            if !(is_operator || is_same && proof.team_id == session.team_id) {
                let reason = "it signs in another user; get a link for yourself";
                return Err(Error::invalid("code", reason));
            }
            let token = renew(transaction, &session, now).await?;
            let SignIn { user_id, role, .. } = proof;
            let sign_in = SignIn { team_id: session.team_id, user_id, role };
            log_entry(transaction, &sign_in, &origin, "session.prove", now).await?;
            Ok(token)
        })
        .await
    }

    /// Returns the session of a token, if it is valid.
    ///
    /// # Errors
    /// If the database cannot be used.
    pub async fn session(&self, token: &Code, now: Timestamp) -> Result<Option<Session>> {
        let now_s = time::stored(now);
        let row = sqlx::query(concat!(sessions!(), "and session.hash = $3"))
            .bind(now_s)
            .bind(now_s.saturating_sub(IDLE_S))
            .bind(token.hash())
            .fetch_optional(&mut *self.read().await?)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let session = load(&row)?;
        if now_s.saturating_sub(session.seen_s) >= SEEN_EVERY_S {
            let (hash, member) = (session.hash.clone(), session.team_id.zip(session.user_id));
            self.transact(async move |transaction| {
                sqlx::query("update session set seen_s = $2 where hash = $1")
                    .bind(hash)
                    .bind(now_s)
                    .execute(transaction.connection())
                    .await?;
                if let Some((team_id, user_id)) = member {
                    teams::mark_seen(transaction, team_id, user_id, now_s).await?;
                }
                Ok(())
            })
            .await?;
        }
        Ok(Some(session))
    }

    /// Returns the sessions of the user of a session, the newest first.
    ///
    /// # Errors
    /// If the database cannot be used.
    pub async fn sessions_like(&self, session: &Session, now: Timestamp) -> Result<Vec<Session>> {
        let now_s = time::stored(now);
        let rows = sqlx::query(concat!(
            sessions!(),
            "and coalesce(session.user_id, 0) = $3 order by session.created_s desc, session.hash \
             limit 200"
        ))
        .bind(now_s)
        .bind(now_s.saturating_sub(IDLE_S))
        .bind(session.user_id.unwrap_or(0))
        .fetch_all(&mut *self.read().await?)
        .await?;
        Ok(rows.iter().map(load).collect::<Result<_, sqlx::Error>>()?)
    }

    /// Returns the newest sign-ins of the user of a session that the session has not shown, the
    /// newest first, and how many older ones there are. Those whose sessions have ended are there
    /// too.
    ///
    /// # Errors
    /// If the database cannot be used.
    pub async fn sign_ins_to_show(&self, session: &Session) -> Result<(Vec<SignedIn>, i64)> {
        let actor = session.actor(None);
        let rows = sqlx::query(
            "select seq, at_s, detail, address, count(*) over () as number from log \
             where action = 'session.begin' and actor_kind = $1 and actor = $2 and seq > $3 order by seq desc limit $4",
        )
        .bind(actor.kind())
        .bind(actor.name().to_owned())
        .bind(session.shown_seq)
        .bind(MOST_SHOWN)
        .fetch_all(&mut *self.read().await?)
        .await?;
        let load = |row: &AnyRow| {
            Ok(SignedIn {
                seq: row.try_get("seq")?,
                at_s: row.try_get("at_s")?,
                agent: row.try_get("detail")?,
                address: row.try_get("address")?,
            })
        };
        let all: i64 = rows.first().map_or(Ok(0), |row| row.try_get("number"))?;
        let shown = rows.iter().map(load).collect::<Result<Vec<_>, sqlx::Error>>()?;
        let more = all.saturating_sub(i64::try_from(shown.len()).unwrap_or(i64::MAX));
        Ok((shown, more))
    }

    /// Records that a session has shown the sign-ins up to this number. Other sessions of the user
    /// still show them.
    ///
    /// # Errors
    /// If the database cannot be used.
    pub async fn mark_sign_ins_shown(&self, session: Session, seq: i64) -> Result<()> {
        self.transact(async move |transaction| {
            sqlx::query("update session set shown_seq = $2 where hash = $1 and shown_seq < $2")
                .bind(session.hash.clone())
                .bind(seq.min(i64::try_from(transaction.seq()).unwrap_or(i64::MAX)))
                .execute(transaction.connection())
                .await?;
            Ok(())
        })
        .await
    }

    /// Returns the account that a code signs in or signed in, if there is such a code.
    ///
    /// # Errors
    /// If the database cannot be used.
    pub(crate) async fn account_of_code(&self, code: &Code) -> Result<Option<Account>> {
        let row = sqlx::query("select team_id, user_id from code where hash = $1")
            .bind(code.hash())
            .fetch_optional(&mut *self.read().await?)
            .await?;
        let load = |row: AnyRow| -> Result<Account, sqlx::Error> {
            let team_id: Option<i64> = row.try_get("team_id")?;
            Ok(Account {
                team_id: team_id.and_then(|number| u32::try_from(number).ok()),
                user_id: row.try_get("user_id")?,
            })
        };
        Ok(row.map(load).transpose()?)
    }

    /// Appends to the log that an attempt to be an account was refused, with the first part of the
    /// reason. There is at most one entry in [`FAILURE_EVERY_S`] seconds, so attempts cannot fill
    /// the log.
    ///
    /// # Errors
    /// If the database cannot be used.
    pub(crate) async fn log_failure(
        &self,
        account: Account,
        attempt: Attempt,
        with: &str,
        reason: &str,
        origin: Origin,
        now: Timestamp,
    ) -> Result<()> {
        // What follows the semicolon is advice, or what the browser calls itself.
        let reason = reason.split(';').next().unwrap_or_default();
        let detail = format!("{with}: {reason}; {}", plain(&origin.agent));
        self.transact(async move |transaction| {
            let actor = Actor::person(account.user_id, origin.address);
            let now_s = time::stored(now);
            let known = sqlx::query(
                "select 1 from log where action in ('session.fail', 'session.fail_proof') \
                 and actor_kind = $1 and actor = $2 and at_s > $3 \
                 and coalesce(team_id, -1) = $4 limit 1",
            )
            .bind(actor.kind())
            .bind(actor.name().to_owned())
            .bind(now_s.saturating_sub(FAILURE_EVERY_S))
            .bind(account.team_id.map_or(-1, i64::from))
            .fetch_optional(transaction.connection())
            .await?;
            if known.is_none() {
                let (team_id, action) = (account.team_id, attempt.action());
                let entry = NewEntry { team_id, actor: &actor, action, key_id: None, detail };
                log::append(transaction, entry, now_s).await?;
            }
            Ok(())
        })
        .await
    }

    /// Ends a session. `of` is its browser if the person ends it in another one, for the log.
    ///
    /// # Errors
    /// If the database cannot be used.
    pub async fn end_session(
        &self,
        session: Session,
        of: String,
        actor: Actor,
        now: Timestamp,
    ) -> Result<()> {
        self.transact(async move |transaction| {
            sqlx::query("delete from session where hash = $1")
                .bind(session.hash.clone())
                .execute(transaction.connection())
                .await?;
            let entry = NewEntry {
                team_id: session.team_id,
                actor: &actor,
                action: "session.end",
                key_id: None,
                detail: of,
            };
            log::append(transaction, entry, time::stored(now)).await?;
            Ok(())
        })
        .await
    }

    /// Makes a session of an operator be about a team.
    ///
    /// # Errors
    /// If there is no such team, or if the session is not an operator's.
    pub async fn choose_team(&self, session: Session, team_id: u32) -> Result<()> {
        session.role.require(Role::Operator)?;
        self.transact(async move |transaction| {
            teams::find(transaction.connection(), team_id).await?;
            sqlx::query("update session set team_id = $2 where hash = $1")
                .bind(session.hash.clone())
                .bind(i64::from(team_id))
                .execute(transaction.connection())
                .await?;
            Ok(())
        })
        .await
    }
}
