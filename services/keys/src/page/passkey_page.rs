//! Passkeys: signing in with one, adding one, and removing one.

use askama::Template;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};

use super::entrance::{Before, refused, welcome};
use super::fields::{Fields, Parameters};
use super::frame::{Frame, respond, show};
use super::passkeys::{FIELD, not_accepted};
use super::refusal::{Refusal, Stop, sentence};
use super::state::Page;
use super::visit::{Visit, origin};
use crate::error::Error;
use crate::text;

/// Returns the refusal of an address without passkeys.
fn no_party(reason: &'static str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, reason).with_advice("Use a link.")
}

/// Begins a sign-in, for a script.
pub(super) async fn begin(State(page): State<Page>, request: Request) -> Result<Response, Refusal> {
    let (parts, _) = request.into_parts();
    let address = origin(&parts).address;
    let party = page.party().map_err(no_party)?;
    if let Some(seconds) = page.waits_s(address.as_deref()) {
        return Err(Refusal::too_many(seconds));
    }
    page.begins(address.as_deref()).map_err(|seconds| {
        Refusal::wait("Too many sign-ins were begun from your address.", seconds)
    })?;
    let request = page.list().begin_sign_in(party, page.now()).await?;
    Ok(([(CONTENT_TYPE, "application/json")], request).into_response())
}

/// Begins a session by the answer of a passkey.
pub(super) async fn sign_in(State(page): State<Page>, request: Request) -> Result<Response, Stop> {
    let (parts, body) = request.into_parts();
    let (origin, before) = (origin(&parts), Before::new(&page, &parts.headers));
    let fields = Fields::from_request(Request::from_parts(parts, body), &()).await?;
    let party = page.party().map_err(no_party)?;
    let address = origin.address.clone();
    if let Some(seconds) = page.waits_s(address.as_deref()) {
        return Err(Refusal::too_many(seconds).into());
    }
    let now = page.now();
    match page.list().sign_in_with_passkey(party, fields.get(FIELD), origin, now).await {
        Ok(token) => Ok(welcome(&page, &token, before, address, now).await?),
        Err(Error::Invalid { reason, .. }) => {
            page.count_failure(address.as_deref());
            Ok(refused(&page, &before, not_accepted(&reason)).await?)
        }
        Err(error) => Err(error.into()),
    }
}

/// The page on which the browser makes a passkey.
#[derive(Template)]
#[template(path = "passkey_new.html")]
struct Screen<'a> {
    frame: Frame,
    name: &'a str,
    team: &'a str,
    request: String,
}

/// Shows the page on which the browser makes a passkey.
pub(super) async fn form(mut visit: Visit, fields: Fields) -> Result<Response, Stop> {
    let party = visit.page.party().map_err(no_party)?;
    let name = text::name("name", fields.get("name")).map_err(wrong_name)?;
    visit.prove(&fields).await?;
    let request = visit.page.list().begin_passkey(party, visit.session.clone(), visit.now).await?;
    let frame = Frame::new(&visit, "me", "Add a passkey");
    Ok(show(&Screen { frame, name: &name, team: &visit.session.team, request })?)
}

/// Returns the refusal of a name.
fn wrong_name(error: Error) -> Refusal {
    match error {
        Error::Invalid { reason, .. } => {
            let sentence = format!("The name cannot be used: {}", sentence(&reason));
            Refusal::new(StatusCode::BAD_REQUEST, sentence)
        }
        error => error.into(),
    }
}

/// Adds the passkey that the browser made.
pub(super) async fn add(mut visit: Visit, fields: Fields) -> Result<Response, Stop> {
    let party = visit.page.party().map_err(no_party)?;
    let name = text::name("name", fields.get("name")).map_err(wrong_name)?;
    visit.prove(&fields).await?;
    let (session, actor) = (visit.session.clone(), visit.caller().actor);
    let list = visit.page.list();
    match list.add_passkey(party, session, &name, fields.get("made"), actor, visit.now).await {
        Ok(()) => Ok(visit.done("/me?done=added")),
        Err(Error::Invalid { reason, .. }) => {
            let refusal = Refusal::new(StatusCode::BAD_REQUEST, not_accepted(&reason));
            Err(refusal.with_advice("Nothing was changed. Add it again on the page Me.").into())
        }
        Err(error) => Err(error.into()),
    }
}

/// The page that renames a passkey.
#[derive(Template)]
#[template(path = "passkey_name.html")]
struct NameForm {
    frame: Frame,
    id: String,
    /// The present name.
    present: String,
    name: String,
    problem: String,
}

/// Returns the refusal of a passkey that the person does not have.
fn no_passkey() -> Refusal {
    Refusal::missing("You have no such passkey; it was removed already.")
}

/// Returns the page that renames a passkey.
async fn name_page(visit: &Visit, id: &str) -> Result<NameForm, Stop> {
    let rows = visit.page.list().passkeys(&visit.session).await?;
    let row = rows.into_iter().find(|row| row.id() == id).ok_or_else(no_passkey)?;
    let (frame, problem) = (Frame::new(visit, "me", "Rename the passkey"), String::new());
    let (id, name) = (row.id(), row.name.clone());
    Ok(NameForm { frame, id, present: row.name, name, problem })
}

/// Shows the page that renames a passkey.
pub(super) async fn name_form(visit: Visit, parameters: Parameters) -> Result<Response, Stop> {
    Ok(show(&name_page(&visit, parameters.get("id")).await?)?)
}

/// Renames a passkey. A new name needs no proof.
pub(super) async fn rename(visit: Visit, fields: Fields) -> Result<Response, Stop> {
    let (id, name) = (fields.get("id"), fields.get("name"));
    let (list, actor) = (visit.page.list(), visit.caller().actor);
    match list.rename_passkey(&visit.session, id.to_owned(), name, actor, visit.now).await {
        Ok(()) => Ok(visit.done("/me?done=renamed")),
        Err(Error::Invalid { reason, .. }) => {
            let form = name_page(&visit, id).await?;
            let problem = format!("The name cannot be used: {}", sentence(&reason));
            let form = NameForm { name: name.to_owned(), problem, ..form };
            Ok(respond(StatusCode::BAD_REQUEST, &form)?)
        }
        Err(Error::NotFound { .. }) => Err(no_passkey().into()),
        Err(error) => Err(error.into()),
    }
}

/// The page that requests a confirmation before a passkey is removed.
#[derive(Template)]
#[template(path = "passkey_remove.html")]
struct Removal {
    frame: Frame,
    id: String,
    name: String,
    /// The names of the other passkeys that sign in here.
    others: Vec<String>,
}

/// Requests a confirmation before a passkey is removed.
pub(super) async fn removal(visit: Visit, parameters: Parameters) -> Result<Response, Stop> {
    let rows = visit.page.list().passkeys(&visit.session).await?;
    let (removed, others): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|row| row.id() == parameters.get("id"));
    let row = removed.into_iter().next().ok_or_else(no_passkey)?;
    let party = visit.page.party();
    let host = party.as_ref().map_or("", |party| party.host());
    let others = others.into_iter().filter(|row| row.host == host).map(|row| row.name).collect();
    let frame = Frame::new(&visit, "me", "Remove the passkey");
    Ok(show(&Removal { frame, id: row.id(), name: row.name, others })?)
}

/// Removes a passkey.
pub(super) async fn remove(mut visit: Visit, fields: Fields) -> Result<Response, Stop> {
    visit.prove(&fields).await?;
    let (id, actor) = (fields.get("id").to_owned(), visit.caller().actor);
    match visit.page.list().remove_passkey(&visit.session, id, actor, visit.now).await {
        Ok(()) => Ok(visit.done("/me?done=removed")),
        Err(Error::NotFound { .. }) => Err(no_passkey().into()),
        Err(error) => Err(error.into()),
    }
}
