//! What the screens have of passkeys.

use askama::Template;
use keytally::Timestamp;

use super::frame::text;
use super::refusal::{Refusal, sentence};
use super::state::Page;
use super::words::{Moment, ago};
use crate::codes::Code;
use crate::error::{Error, Result};
use crate::passkeys::PasskeyRow;
use crate::sessions::{Origin, Session};

/// The field with the answer of a passkey.
pub(super) const FIELD: &str = "passkey";

/// The sign-in with a passkey.
#[derive(Template)]
#[template(path = "passkey_in.html")]
struct OfEntrance<'a> {
    root: &'a str,
    /// Why there are no passkeys.
    reason: &'static str,
}

/// Returns the sign-in with a passkey.
pub(super) fn of_entrance(page: &Page) -> Result<String, Refusal> {
    text(&OfEntrance { root: page.root(), reason: page.party().err().unwrap_or_default() })
}

/// The proof with a passkey.
#[derive(Template)]
#[template(path = "passkey_proof.html")]
struct OfProof {
    request: String,
}

/// Returns the proof with a passkey, if the person of a session has one.
pub(super) async fn of_proof(
    page: &Page,
    session: &Session,
    now: Timestamp,
) -> Result<String, Refusal> {
    let Ok(party) = page.party() else { return Ok(String::new()) };
    match page.list().begin_proof(party, session, now).await? {
        Some(request) => text(&OfProof { request }),
        None => Ok(String::new()),
    }
}

/// A passkey as a line.
struct Line {
    id: String,
    name: String,
    created: Moment,
    used: Option<(String, Moment)>,
    /// The host that it is bound to, if the page has another one.
    other_host: String,
}

impl Line {
    fn new(row: PasskeyRow, host: &str, now: Timestamp) -> Self {
        Self {
            id: row.id(),
            name: row.name,
            created: Moment(row.created_s),
            used: row.used_s.map(|used_s| (ago(used_s, now), Moment(used_s))),
            other_host: if row.host == host { String::new() } else { row.host },
        }
    }
}

/// The passkeys of a person.
#[derive(Template)]
#[template(path = "passkey_me.html")]
struct OfMe<'a> {
    root: &'a str,
    team: &'a str,
    lines: Vec<Line>,
    is_member: bool,
    /// Why there are no passkeys.
    reason: &'static str,
}

/// Returns the passkeys of the person of a session.
pub(super) async fn of_me(
    page: &Page,
    session: &Session,
    now: Timestamp,
) -> Result<String, Refusal> {
    let party = page.party();
    let host = party.as_ref().map_or("", |party| party.host());
    let rows = page.list().passkeys(session).await?;
    text(&OfMe {
        root: page.root(),
        team: &session.team,
        lines: rows.into_iter().map(|row| Line::new(row, host, now)).collect(),
        is_member: session.user_id.is_some(),
        reason: party.as_ref().err().copied().unwrap_or_default(),
    })
}

/// Returns whether the person of a session may add a passkey to sign in here.
pub(super) fn may_add(page: &Page, session: &Session) -> bool {
    page.party().is_ok() && session.user_id.is_some()
}

/// Returns the names of the passkeys with which the person of a session can sign in here.
pub(super) async fn names(page: &Page, session: &Session) -> Result<Vec<String>> {
    let Ok(party) = page.party() else { return Ok(Vec::new()) };
    let rows = page.list().passkeys(session).await?;
    Ok(rows.into_iter().filter(|row| row.host == party.host()).map(|row| row.name).collect())
}

/// Returns the sentence on what was just done.
pub(super) fn done(parameter: &str) -> &'static str {
    match parameter {
        "added" => "The passkey was added. You can sign in with it now.",
        "renamed" => "The passkey has its new name.",
        "removed" => "The passkey was removed. Remove it from your device too.",
        _ => "",
    }
}

/// Proves with a passkey that the person of a session is its user. Returns the new token of the
/// session.
pub(super) async fn prove(
    page: &Page,
    session: Session,
    answer: &str,
    origin: Origin,
    now: Timestamp,
) -> Result<Code> {
    let party = page.party().map_err(|reason| Error::invalid(FIELD, reason))?;
    page.list().prove_with_passkey(party, session, answer, origin, now).await
}

/// Returns why a passkey was not accepted, as a page shows it.
pub(super) fn not_accepted(reason: &str) -> String {
    format!("The passkey was not accepted: {}", sentence(reason))
}
