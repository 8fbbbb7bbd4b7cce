//! The screen *Me*: the sessions of the person, which end one by one, and the passkeys.

use askama::Template;
use axum::response::{IntoResponse as _, Redirect, Response};

use super::fields::{Fields, Parameters};
use super::frame::{Frame, show as respond};
use super::passkeys;
use super::refusal::{Refusal, Stop};
use super::visit::Visit;
use super::words::{Moment, ago, browser};
use crate::sessions::Session;

/// A session as a line.
struct SessionLine {
    id: String,
    browser: String,
    address: String,
    team: String,
    /// What the session may do.
    role: &'static str,
    /// The role of the member, if the session may do less.
    of_member: &'static str,
    began: Moment,
    seen: (String, Moment),
    ends: Moment,
    is_this: bool,
}

impl SessionLine {
    fn new(session: &Session, visit: &Visit) -> Self {
        Self {
            id: session.id(),
            browser: browser(&session.origin.agent),
            address: session.origin.address.clone().unwrap_or_default(),
            team: session.team.clone(),
            role: session.role.as_str(),
            of_member: if session.role < session.of_member {
                session.of_member.as_str()
            } else {
                ""
            },
            began: Moment(session.created_s),
            seen: (ago(session.seen_s, visit.now), Moment(session.seen_s)),
            ends: Moment(session.ends_s),
            is_this: session.id() == visit.session.id(),
        }
    }
}

/// The screen.
#[derive(Template)]
#[template(path = "me.html")]
struct Screen {
    frame: Frame,
    sessions: Vec<SessionLine>,
    proved: (String, Moment),
    is_proved: bool,
    /// The passkeys, as HTML.
    passkeys: String,
}

/// Shows the sessions and the passkeys of the person.
pub(super) async fn show(visit: Visit, parameters: Parameters) -> Result<Response, Stop> {
    let sessions = visit.page.list().sessions_like(&visit.session, visit.now).await?;
    let done = match parameters.get("done") {
        "ended" => "The session ended. That browser must sign in again.",
        other => passkeys::done(other),
    };
    Ok(respond(&Screen {
        passkeys: passkeys::of_me(&visit.page, &visit.session, visit.now).await?,
        frame: Frame::new(&visit, "me", "Me").with_done(&visit, done),
        sessions: sessions.iter().map(|session| SessionLine::new(session, &visit)).collect(),
        proved: (ago(visit.session.proved_s, visit.now), Moment(visit.session.proved_s)),
        is_proved: visit.session.is_proved(visit.now),
    })?)
}

/// The page that requests a confirmation before a session ends.
#[derive(Template)]
#[template(path = "session_end.html")]
struct End {
    frame: Frame,
    line: SessionLine,
    is_operator: bool,
    /// The passkeys with which the person can sign in again.
    passkeys: Vec<String>,
}

/// Returns a session of the person.
async fn session(visit: &Visit, id: &str) -> Result<Session, Stop> {
    let sessions = visit.page.list().sessions_like(&visit.session, visit.now).await?;
    let found = sessions.into_iter().find(|session| session.id() == id);
    Ok(found.ok_or_else(|| Refusal::missing("This session has ended already."))?)
}

/// Requests a confirmation before a session of the person ends.
pub(super) async fn end_form(visit: Visit, parameters: Parameters) -> Result<Response, Stop> {
    let line = SessionLine::new(&session(&visit, parameters.get("session")).await?, &visit);
    let title = if line.is_this { "End this session" } else { "End another session" };
    Ok(respond(&End {
        frame: Frame::new(&visit, "me", title),
        line,
        is_operator: visit.session.user_id.is_none(),
        passkeys: passkeys::names(&visit.page, &visit.session).await?,
    })?)
}

/// Ends a session of the person.
pub(super) async fn end(visit: Visit, fields: Fields) -> Result<Response, Stop> {
    let ended = session(&visit, fields.get("session")).await?;
    let is_this = ended.id() == visit.session.id();
    let actor = visit.session.actor(visit.origin.address.clone());
    let of = if is_this { String::new() } else { ended.origin.agent.clone() };
    visit.page.list().end_session(ended, of, actor, visit.now).await?;
    if is_this {
        visit.forget_cookie();
        return Ok(Redirect::to(&visit.at("/in?left=1")).into_response());
    }
    Ok(visit.done("/me?done=ended"))
}

/// Records that the person has seen the sign-ins elsewhere that this session shows.
pub(super) async fn seen(visit: Visit, fields: Fields) -> Result<Response, Stop> {
    let seq = fields.get("seq").parse();
    let seq = seq.map_err(|_| Refusal::missing("There is no such sign-in."))?;
    visit.page.list().mark_sign_ins_shown(visit.session.clone(), seq).await?;
    Ok(Redirect::to(&visit.at("/me")).into_response())
}
