//! Passkeys: with one, a member signs in without a link, and confirms a sign-in.
//!
//! A passkey is bound to the host of the public URL, and belongs to a member of one team. The state
//! of a challenge is in the database, so another service may take the answer. It is used up by the
//! first answer, whether that is right or wrong.

use alloc::sync::Arc;
use core::fmt;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use keytally::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};
use webauthn_rs::prelude::{
    DiscoverableAuthentication, Passkey, PasskeyRegistration, PublicKeyCredential,
    RegisterPublicKeyCredential, Url, Uuid, Webauthn, WebauthnBuilder, WebauthnError,
};

use crate::codes::{Code, SignIn};
use crate::database::{Database, DatabaseError, Transaction};
use crate::error::{Error, Result};
use crate::list::List;
use crate::log::{self, NewEntry};
use crate::roles::{Actor, Role};
use crate::sessions::{self, Account, Attempt, Origin, Session};
use crate::{text, time};

/// How long a challenge can be answered, in seconds.
pub const CHALLENGE_LIFETIME_S: i64 = 300;

/// The most passkeys of a member.
pub const MOST_PASSKEYS: usize = 20;

/// The relying party: the host of the public URL, to which passkeys are bound, and its origin.
#[derive(Clone, Debug)]
pub struct RelyingParty {
    host: String,
    webauthn: Webauthn,
}

impl RelyingParty {
    /// Returns the relying party of a public URL.
    ///
    /// # Errors
    /// A sentence, if browsers have no passkeys for such a URL.
    pub fn new(public_url: &str) -> Result<Self, &'static str> {
        let no_name = "Passkeys need a host name, and the address of this page has none.";
        let url = Url::parse(public_url).map_err(|_| no_name)?;
        // An IP address is not a domain.
        let host = url.domain().ok_or(no_name)?.to_owned();
        let is_local = host == "localhost" || host.ends_with(".localhost");
        if url.scheme() != "https" && !is_local {
            return Err("Passkeys need https, and the address of this page has http.");
        }
        let builder = WebauthnBuilder::new(&host, &url).map_err(|_| no_name)?;
        let webauthn = builder.rp_name("Keytally").build().map_err(|_| no_name)?;
        Ok(Self { host, webauthn })
    }

    /// Returns the host.
    pub fn host(&self) -> &str {
        &self.host
    }
}

/// What a browser needs to request an answer of a passkey.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    challenge: &'a str,
    public_key: serde_json::Value,
}

/// What the browser sends: the name of the challenge, and what the passkey answered.
#[derive(Deserialize)]
struct Answer<T> {
    challenge: String,
    credential: T,
}

impl<T: DeserializeOwned> Answer<T> {
    fn parse(text: &str) -> Result<(Code, T)> {
        let answer: Self = serde_json::from_str(text)
            .map_err(|_| invalid("the answer is not that of a passkey; try again"))?;
        Ok((Code::from_text(&answer.challenge), answer.credential))
    }
}

/// What an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Add,
    SignIn,
    Prove,
}

impl Purpose {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::SignIn => "sign-in",
            Self::Prove => "prove",
        }
    }
}

/// A member of a team.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Member {
    team_id: u32,
    user_id: i64,
}

impl Member {
    /// Returns the member of a session; `None` for an operator.
    fn of(session: &Session) -> Option<Self> {
        Some(Self { team_id: session.team_id?, user_id: session.user_id? })
    }
}

/// A passkey as its member sees it.
#[derive(Clone)]
pub struct PasskeyRow {
    member: Member,
    credential_id: Vec<u8>,
    handle: Vec<u8>,
    /// The host that it is bound to.
    pub host: String,
    /// The name that the member gave it.
    pub name: String,
    data: String,
    /// When it was added.
    pub created_s: i64,
    /// When it was last used.
    pub used_s: Option<i64>,
}

impl PasskeyRow {
    /// Returns the public name of the passkey, which is a part of a hash.
    pub fn id(&self) -> String {
        let hash = Sha256::digest(&self.credential_id);
        hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for PasskeyRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasskeyRow").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// The columns and the table of a passkey.
macro_rules! passkeys {
    ($condition:literal) => {
        concat!(
            "select credential_id, team_id, user_id, host, handle, name, data, created_s, used_s \
             from passkey ",
            $condition
        )
    };
}

fn load(row: &AnyRow) -> Result<PasskeyRow, sqlx::Error> {
    let team_id: i64 = row.try_get("team_id")?;
    Ok(PasskeyRow {
        member: Member {
            team_id: u32::try_from(team_id).unwrap_or(0),
            user_id: row.try_get("user_id")?,
        },
        credential_id: row.try_get("credential_id")?,
        handle: row.try_get("handle")?,
        host: row.try_get("host")?,
        name: row.try_get("name")?,
        data: row.try_get("data")?,
        created_s: row.try_get("created_s")?,
        used_s: row.try_get("used_s")?,
    })
}

/// Returns the passkeys of a member, in the order in which they were added.
async fn of_member(
    connection: &mut AnyConnection,
    member: Member,
) -> Result<Vec<PasskeyRow>, DatabaseError> {
    let rows = sqlx::query(passkeys!(
        "where team_id = $1 and user_id = $2 order by created_s, credential_id"
    ))
    .bind(i64::from(member.team_id))
    .bind(member.user_id)
    .fetch_all(connection)
    .await?;
    Ok(rows.iter().map(load).collect::<Result<_, sqlx::Error>>()?)
}

/// Returns the hosts of passkeys that are bound to another host than this one, each with the number
/// of its passkeys. `host` is empty for all.
pub(crate) async fn foreign_hosts(database: &Database, host: &str) -> Result<Vec<(String, i64)>> {
    let rows = sqlx::query(
        "select host, cast(count(*) as bigint) as number from passkey where host <> $1 \
         group by host order by host",
    )
    .bind(host.to_owned())
    .fetch_all(&mut *database.read().await?)
    .await?;
    let load = |row: &AnyRow| Ok((row.try_get("host")?, row.try_get("number")?));
    Ok(rows.iter().map(load).collect::<Result<_, sqlx::Error>>()?)
}

fn invalid(reason: impl Into<String>) -> Error {
    Error::invalid("passkey", reason)
}

/// The error of an answer to a challenge that is not there.
fn no_challenge() -> Error {
    invalid("its request was answered before, or is older than 5 minutes; try again")
}

/// The error of a passkey that is not registered.
fn unknown() -> Error {
    invalid(
        "it is not known here: it was removed, or is of another service; remove it from your \
         device, and sign in with a link",
    )
}

/// Returns the error of an answer that was refused.
fn refused(error: &WebauthnError, party: &RelyingParty) -> Error {
    match error {
        WebauthnError::MismatchedChallenge => invalid("it answers another request; try again"),
        WebauthnError::InvalidRPOrigin | WebauthnError::InvalidRPIDHash => {
            invalid(format!("it was used on another page than that of {}", party.host))
        }
        WebauthnError::UserNotVerified | WebauthnError::UserNotPresent => invalid(
            "the device did not verify who uses it; set a PIN, a fingerprint or a face there, and \
             try again",
        ),
        WebauthnError::CredentialPossibleCompromise => invalid(
            "its counter went back, so a copy of it may be in use; sign in with a link, and remove \
             the passkey on the page Me",
        ),
        _ => invalid("its answer is not valid; try again"),
    }
}

/// The error of a passkey that is registered already.
fn taken() -> Error {
    Error::Conflict("this passkey is registered already; nothing was changed".to_owned())
}

/// The error of a step that does not depend on what a browser sends.
fn failed(error: impl fmt::Display) -> Error {
    Error::Conflict(format!("the passkey could not be used: {error}"))
}

/// The state of a challenge that was used up.
#[derive(Debug)]
struct Taken {
    purpose: String,
    member: Option<Member>,
    state: String,
    ends_s: i64,
}

fn load_taken(row: &AnyRow) -> Result<Taken, sqlx::Error> {
    let team_id: Option<i64> = row.try_get("team_id")?;
    let user_id: Option<i64> = row.try_get("user_id")?;
    let team_id = team_id.and_then(|number| u32::try_from(number).ok());
    Ok(Taken {
        purpose: row.try_get("purpose")?,
        member: team_id.zip(user_id).map(|(team_id, user_id)| Member { team_id, user_id }),
        state: row.try_get("state")?,
        ends_s: row.try_get("ends_s")?,
    })
}

/// Keeps the state of a new challenge. Returns what the browser needs.
async fn keep(
    transaction: &mut Transaction,
    purpose: Purpose,
    member: Option<Member>,
    state: String,
    public_key: serde_json::Value,
    now: Timestamp,
) -> Result<String> {
    let (code, now_s) = (Code::generate()?, time::stored(now));
    sqlx::query("delete from challenge where ends_s <= $1")
        .bind(now_s)
        .execute(transaction.connection())
        .await?;
    sqlx::query(
        "insert into challenge (hash, purpose, team_id, user_id, state, ends_s) \
         values ($1, $2, $3, $4, $5, $6)",
    )
    .bind(code.hash())
    .bind(purpose.as_str())
    .bind(member.map(|member| i64::from(member.team_id)))
    .bind(member.map(|member| member.user_id))
    .bind(state)
    .bind(now_s.saturating_add(CHALLENGE_LIFETIME_S))
    .execute(transaction.connection())
    .await?;
    serde_json::to_string(&Request { challenge: code.expose(), public_key }).map_err(failed)
}

/// Returns the part of a message to the browser that is for its passkeys.
fn public_key(message: impl Serialize) -> Result<serde_json::Value> {
    let mut message = serde_json::to_value(message).map_err(failed)?;
    Ok(message["publicKey"].take())
}

/// Verifies what a passkey answered, and records that it was used.
async fn verify(
    transaction: &mut Transaction,
    party: &RelyingParty,
    state: &str,
    credential: &PublicKeyCredential,
    now: Timestamp,
) -> Result<PasskeyRow> {
    let row = sqlx::query(passkeys!("where credential_id = $1 and host = $2"))
        .bind(credential.get_credential_id().to_vec())
        .bind(party.host.clone())
        .fetch_optional(transaction.connection())
        .await?;
    let mut row = load(&row.ok_or_else(unknown)?)?;
    if credential.get_user_unique_id().is_some_and(|handle| handle != row.handle) {
        return Err(unknown());
    }
    let state: DiscoverableAuthentication = serde_json::from_str(state).map_err(failed)?;
    let mut passkey: Passkey = serde_json::from_str(&row.data).map_err(failed)?;
    let result = party
        .webauthn
        .finish_discoverable_authentication_v2(credential, state, &passkey)
        .map_err(|error| refused(&error, party))?;
    passkey.update_credential(&result);
    row.data = serde_json::to_string(&passkey).map_err(failed)?;
    row.used_s = Some(time::stored(now));
    sqlx::query("update passkey set data = $2, used_s = $3 where credential_id = $1")
        .bind(row.credential_id.clone())
        .bind(row.data.clone())
        .bind(row.used_s)
        .execute(transaction.connection())
        .await?;
    Ok(row)
}

/// Appends an entry on a passkey to the log.
async fn append(
    transaction: &mut Transaction,
    actor: &Actor,
    row: &PasskeyRow,
    action: &'static str,
    detail: String,
    now: Timestamp,
) -> Result<()> {
    let team_id = Some(row.member.team_id);
    let entry = NewEntry { team_id, actor, action, key_id: None, detail };
    log::append(transaction, entry, time::stored(now)).await?;
    Ok(())
}

impl List {
    /// Returns the passkeys of the member of a session, in the order in which they were added.
    ///
    /// # Errors
    /// If the database cannot be used.
    pub async fn passkeys(&self, session: &Session) -> Result<Vec<PasskeyRow>> {
        match Member::of(session) {
            Some(member) => Ok(of_member(&mut *self.read().await?, member).await?),
            None => Ok(Vec::new()),
        }
    }

    /// Begins to add a passkey for the member of a session. Returns what the browser needs, as
    /// JSON.
    ///
    /// # Errors
    /// If the session is not a member's, if the member has the most passkeys, or if the database
    /// cannot be used.
    pub async fn begin_passkey(
        &self,
        party: Arc<RelyingParty>,
        session: Session,
        now: Timestamp,
    ) -> Result<String> {
        let member = Member::of(&session).ok_or_else(not_a_member)?;
        self.transact(async move |transaction| {
            let rows = of_member(transaction.connection(), member).await?;
            require_room(&rows)?;
            let here: Vec<_> = rows.iter().filter(|row| row.host == party.host).collect();
            // A device keeps one passkey per handle.
            let handle = here.first().and_then(|row| Uuid::from_slice(&row.handle).ok());
            let handle = handle.unwrap_or_else(Uuid::new_v4);
            let name = format!("{} ({})", session.user, session.team);
            let (message, state) = party
                .webauthn
                .start_passkey_registration(
                    handle,
                    &name,
                    &name,
                    Some(here.iter().map(|row| row.credential_id.clone()).collect()),
                )
                .map_err(failed)?;
            let mut public_key = public_key(message)?;
            // So that the browser finds it without the name of the user.
            public_key["authenticatorSelection"]["residentKey"] = "required".into();
            public_key["authenticatorSelection"]["requireResidentKey"] = true.into();
            let state = serde_json::to_string(&Adding { handle, state }).map_err(failed)?;
            keep(transaction, Purpose::Add, Some(member), state, public_key, now).await
        })
        .await
    }

    /// Adds the passkey that a browser made for the member of a session.
    ///
    /// # Errors
    /// If the name or the answer is not valid, if the passkey is registered already, or if the
    /// database cannot be used.
    pub async fn add_passkey(
        &self,
        party: Arc<RelyingParty>,
        session: Session,
        name: &str,
        answer: &str,
        actor: Actor,
        now: Timestamp,
    ) -> Result<()> {
        let name = text::name("name", name)?;
        let member = Member::of(&session).ok_or_else(not_a_member)?;
        let (code, credential) = Answer::<RegisterPublicKeyCredential>::parse(answer)?;
        let state = self.take(code, Purpose::Add, Some(member), now).await?;
        self.transact(async move |transaction| {
            let rows = of_member(transaction.connection(), member).await?;
            if rows.iter().any(|row| row.credential_id == credential.raw_id) {
                return Err(taken());
            }
            require_room(&rows)?;
            let Adding { handle, state } = serde_json::from_str(&state).map_err(failed)?;
            let passkey = party
                .webauthn
                .finish_passkey_registration(&credential, &state)
                .map_err(|error| refused(&error, &party))?;
            let row = PasskeyRow {
                member,
                credential_id: passkey.cred_id().clone(),
                handle: handle.as_bytes().to_vec(),
                host: party.host.clone(),
                name,
                data: serde_json::to_string(&passkey).map_err(failed)?,
                created_s: time::stored(now),
                used_s: None,
            };
            insert(transaction, &row).await?;
            append(transaction, &actor, &row, "passkey.add", row.name.clone(), now).await
        })
        .await
    }

    /// Renames a passkey of the member of a session. A name that it has already changes nothing.
    ///
    /// # Errors
    /// If the name is not possible, if the member has no such passkey, or if the database cannot be
    /// used.
    pub async fn rename_passkey(
        &self,
        session: &Session,
        id: String,
        name: &str,
        actor: Actor,
        now: Timestamp,
    ) -> Result<()> {
        let name = text::name("name", name)?;
        let member = Member::of(session).ok_or_else(not_a_member)?;
        self.transact(async move |transaction| {
            let rows = of_member(transaction.connection(), member).await?;
            let row = rows.into_iter().find(|row| row.id() == id);
            let row = row.ok_or_else(|| Error::not_found("passkey", &id))?;
            if row.name == name {
                return Ok(());
            }
            sqlx::query("update passkey set name = $2 where credential_id = $1")
                .bind(row.credential_id.clone())
                .bind(name.clone())
                .execute(transaction.connection())
                .await?;
            let detail = format!("{}, now {name}", row.name);
            append(transaction, &actor, &row, "passkey.rename", detail, now).await
        })
        .await
    }

    /// Removes a passkey of the member of a session. Sessions that it began continue.
    ///
    /// # Errors
    /// If the member has no such passkey, or if the database cannot be used.
    pub async fn remove_passkey(
        &self,
        session: &Session,
        id: String,
        actor: Actor,
        now: Timestamp,
    ) -> Result<()> {
        let member = Member::of(session).ok_or_else(not_a_member)?;
        self.transact(async move |transaction| {
            let rows = of_member(transaction.connection(), member).await?;
            let row = rows.into_iter().find(|row| row.id() == id);
            let row = row.ok_or_else(|| Error::not_found("passkey", &id))?;
            sqlx::query("delete from passkey where credential_id = $1")
                .bind(row.credential_id.clone())
                .execute(transaction.connection())
                .await?;
            append(transaction, &actor, &row, "passkey.remove", row.name.clone(), now).await
        })
        .await
    }

    /// Begins a sign-in with a passkey. Returns what the browser needs, as JSON.
    ///
    /// # Errors
    /// If the database cannot be used.
    pub async fn begin_sign_in(&self, party: Arc<RelyingParty>, now: Timestamp) -> Result<String> {
        self.transact(async move |transaction| {
            let (message, state) =
                party.webauthn.start_discoverable_authentication().map_err(failed)?;
            let state = serde_json::to_string(&state).map_err(failed)?;
            keep(transaction, Purpose::SignIn, None, state, public_key(message)?, now).await
        })
        .await
    }

    /// Begins a session of the member who has a passkey. Returns its token.
    ///
    /// # Errors
    /// If the answer is not valid, or if the database cannot be used.
    pub async fn sign_in_with_passkey(
        &self,
        party: Arc<RelyingParty>,
        answer: &str,
        origin: Origin,
        now: Timestamp,
    ) -> Result<Code> {
        let (code, credential) = Answer::<PublicKeyCredential>::parse(answer)?;
        let (id, host) = (credential.get_credential_id().to_vec(), party.host.clone());
        let signed_in = self.begin_with_passkey(party, code, credential, origin.clone(), now).await;
        if let Err(Error::Invalid { reason, .. }) = &signed_in
            && let Some(account) = self.account_of_passkey(id, host).await?
        {
            self.log_failure(account, Attempt::SignIn, "passkey", reason, origin, now).await?;
        }
        signed_in
    }

    /// Returns the account of the member who has a passkey, if it is registered.
    async fn account_of_passkey(&self, id: Vec<u8>, host: String) -> Result<Option<Account>> {
        let row = sqlx::query(passkeys!("where credential_id = $1 and host = $2"))
            .bind(id)
            .bind(host)
            .fetch_optional(&mut *self.read().await?)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let Member { team_id, user_id } = load(&row)?.member;
        Ok(Some(Account { team_id: Some(team_id), user_id: Some(user_id) }))
    }

    /// Begins a session by an answer to a challenge.
    async fn begin_with_passkey(
        &self,
        party: Arc<RelyingParty>,
        code: Code,
        credential: PublicKeyCredential,
        origin: Origin,
        now: Timestamp,
    ) -> Result<Code> {
        let state = self.take(code, Purpose::SignIn, None, now).await?;
        if credential.get_user_unique_id().is_none() {
            // It names the user, whom the page does not know yet.
            return Err(unknown());
        }
        self.transact(async move |transaction| {
            let row = verify(transaction, &party, &state, &credential, now).await?;
            let Member { team_id, user_id } = row.member;
            sqlx::query("select 1 from member where team_id = $1 and user_id = $2")
                .bind(i64::from(team_id))
                .bind(user_id)
                .fetch_optional(transaction.connection())
                .await?
                .ok_or_else(unknown)?;
            let actor = Actor::person(Some(user_id), origin.address.clone());
            let detail = sessions::detail_with(&origin, &row.name);
            append(transaction, &actor, &row, "session.begin", detail, now).await?;
            // The session follows the role of the member.
            let (team_id, user_id) = (Some(team_id), Some(user_id));
            let sign_in = SignIn { team_id, user_id, role: Role::Owner };
            sessions::begin(transaction, &sign_in, &origin, now).await
        })
        .await
    }

    /// Begins a proof with a passkey that the person of a session is its user. Returns what the
    /// browser needs, as JSON. `None` if the member has no passkey of this host.
    ///
    /// # Errors
    /// If the database cannot be used.
    pub async fn begin_proof(
        &self,
        party: Arc<RelyingParty>,
        session: &Session,
        now: Timestamp,
    ) -> Result<Option<String>> {
        let rows = self.passkeys(session).await?;
        let here: Vec<_> = rows.iter().filter(|row| row.host == party.host).collect();
        let Some(member) = here.first().map(|row| row.member) else { return Ok(None) };
        let one = |row: &&PasskeyRow| {
            let id = Base64UrlUnpadded::encode_string(&row.credential_id);
            serde_json::json!({"type": "public-key", "id": id})
        };
        let allowed: Vec<_> = here.iter().map(one).collect();
        self.transact(async move |transaction| {
            let (message, state) =
                party.webauthn.start_discoverable_authentication().map_err(failed)?;
            let state = serde_json::to_string(&state).map_err(failed)?;
            let mut public_key = public_key(message)?;
            public_key["allowCredentials"] = allowed.into();
            let request = keep(transaction, Purpose::Prove, Some(member), state, public_key, now);
            Ok(Some(request.await?))
        })
        .await
    }

    /// Records the proof with a passkey that the person of a session is its user. Returns the new
    /// token of the session.
    ///
    /// # Errors
    /// If the answer is not valid or is of another member, or if the database cannot be used.
    pub async fn prove_with_passkey(
        &self,
        party: Arc<RelyingParty>,
        session: Session,
        answer: &str,
        origin: Origin,
        now: Timestamp,
    ) -> Result<Code> {
        let (code, credential) = Answer::<PublicKeyCredential>::parse(answer)?;
        let member = Member::of(&session).ok_or_else(not_a_member)?;
        let state = self.take(code, Purpose::Prove, Some(member), now).await?;
        self.transact(async move |transaction| {
            let row = verify(transaction, &party, &state, &credential, now).await?;
            if row.member != member {
                return Err(invalid("it is that of another user; use one of your own"));
            }
            let detail = sessions::detail_with(&origin, &row.name);
            let actor = session.actor(origin.address);
            append(transaction, &actor, &row, "session.prove", detail, now).await?;
            sessions::renew(transaction, &session, now).await
        })
        .await
    }

    /// Uses a challenge up. Returns its state.
    async fn take(
        &self,
        code: Code,
        purpose: Purpose,
        member: Option<Member>,
        now: Timestamp,
    ) -> Result<String> {
        let hash = code.hash();
        // In a transaction of its own, so that a wrong answer uses it up too.
        let taken = self.transact(async move |transaction| {
            let row = sqlx::query(
                "delete from challenge where hash = $1 \
                 returning purpose, team_id, user_id, state, ends_s",
            )
            .bind(hash)
            .fetch_optional(transaction.connection())
            .await?;
            Ok(row.as_ref().map(load_taken).transpose()?)
        });
        let taken = taken.await?.ok_or_else(no_challenge)?;
        let is_valid = taken.purpose == purpose.as_str()
            && taken.member == member
            && taken.ends_s > time::stored(now);
        if is_valid { Ok(taken.state) } else { Err(no_challenge()) }
    }
}

/// What is kept while a passkey is added.
#[derive(Serialize, Deserialize)]
struct Adding {
    handle: Uuid,
    state: PasskeyRegistration,
}

/// The error of an operator, who has no passkeys.
fn not_a_member() -> Error {
    Error::Conflict(
        "passkeys are for members of a team; an operator signs in with links".to_owned(),
    )
}

/// Refuses a further passkey if a member has the most.
fn require_room(rows: &[PasskeyRow]) -> Result<()> {
    if rows.len() < MOST_PASSKEYS {
        return Ok(());
    }
    Err(Error::Conflict(format!("you have {MOST_PASSKEYS} passkeys, the most; remove one first")))
}

async fn insert(transaction: &mut Transaction, row: &PasskeyRow) -> Result<()> {
    let inserted = sqlx::query(
        "insert into passkey (credential_id, team_id, user_id, host, handle, name, data, \
         created_s) values ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(row.credential_id.clone())
    .bind(i64::from(row.member.team_id))
    .bind(row.member.user_id)
    .bind(row.host.clone())
    .bind(row.handle.clone())
    .bind(row.name.clone())
    .bind(row.data.clone())
    .bind(row.created_s)
    .execute(transaction.connection())
    .await;
    match inserted.map_err(DatabaseError::from) {
        Ok(_) => Ok(()),
        Err(DatabaseError::Taken) => Err(taken()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passkeys_need_a_host_name_and_https() {
        for (url, host) in [
            ("https://keys.example", "keys.example"),
            ("https://keys.example:8443", "keys.example"),
            ("http://localhost:8080", "localhost"),
        ] {
            assert_eq!(RelyingParty::new(url).unwrap().host(), host);
        }
        for (url, part) in [
            ("http://127.0.0.1:8080", "host name"),
            ("https://192.0.2.1", "host name"),
            ("https://[2001:db8::1]", "host name"),
            ("unix:/run/keytally.sock", "host name"),
            ("http://keys.example", "https"),
        ] {
            assert!(RelyingParty::new(url).unwrap_err().contains(part), "{url}");
        }
    }
}
