//! Signing in by a one-time link, signing out, and the choice of a team.

use askama::Template;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use keytally::Timestamp;

use super::cookies;
use super::fields::{Fields, Parameters};
use super::frame::{Frame, respond, show};
use super::passkeys;
use super::refusal::{Refusal, Stop, sentence};
use super::state::{LinkCommand, Page};
use super::visit::{Visit, origin};
use crate::codes::{CODE_LIFETIME_S, Code, INVITATION_LIFETIME_S};
use crate::error::Error;
use crate::roles::Role;
use crate::sessions::{Attempt, Origin};
use crate::teams::Team;

/// The most teams that the page shows.
const MOST_TEAMS: i64 = 500;

/// The page that signs in.
#[derive(Template)]
#[template(path = "in.html")]
struct Entrance {
    frame: Frame,
    problem: String,
    has_left: bool,
    /// Whether the sign-in leads on to a page that was opened before.
    leads_on: bool,
    /// The command that makes a link; `None` if the visitor may not see it.
    link_command: Option<LinkCommand>,
    /// For how many hours an invitation is valid, and for how many minutes another link.
    hours: u64,
    minutes: u64,
    /// The sign-in with a passkey, as HTML.
    passkeys: String,
}

/// Shows the field for a code. Nothing is used up, so programs that preview links do no harm.
pub(super) async fn form(
    State(page): State<Page>,
    headers: HeaderMap,
    parameters: Parameters,
) -> Result<Response, Refusal> {
    let has_left = parameters.get("left") == "1";
    show(&Entrance::new(&page, &Before::new(&page, &headers), has_left, String::new())?)
}

/// What the browser had before the sign-in.
pub(super) struct Before {
    /// The token of its session.
    token: Option<Code>,
    /// The page that the person opened.
    opened: Option<String>,
}

impl Before {
    pub(super) fn new(page: &Page, headers: &HeaderMap) -> Self {
        Self { token: cookies::token(page, headers), opened: cookies::opened(page, headers) }
    }
}

/// For how many hours an invitation is valid.
const HOURS: u64 = INVITATION_LIFETIME_S / 3600;

/// For how many minutes another link is valid.
const MINUTES: u64 = CODE_LIFETIME_S / 60;

impl Entrance {
    fn new(page: &Page, before: &Before, has_left: bool, problem: String) -> Result<Self, Refusal> {
        Ok(Self {
            frame: Frame::bare(page, if has_left { "Signed out" } else { "Sign in" }),
            problem,
            has_left,
            leads_on: before.opened.is_some(),
            link_command: page.public_link_command().cloned(),
            hours: HOURS,
            minutes: MINUTES,
            passkeys: passkeys::of_entrance(page)?,
        })
    }
}

/// Returns the code in a text: the code itself, or a whole link.
pub(super) fn code_of(text: &str) -> Code {
    let code = text.rsplit_once('#').map_or(text, |(_, code)| code);
    Code::from_text(code.trim())
}

/// Uses a code up, and begins a session.
pub(super) async fn sign_in(State(page): State<Page>, request: Request) -> Result<Response, Stop> {
    let (parts, body) = request.into_parts();
    let origin = Origin { is_loopback: page.is_loopback(), ..origin(&parts) };
    let before = Before::new(&page, &parts.headers);
    let fields = Fields::from_request(Request::from_parts(parts, body), &()).await?;
    let address = origin.address.clone();
    if let Some(seconds) = page.waits_s(address.as_deref()) {
        return Err(Refusal::too_many(seconds).into());
    }
    let now = page.now();
    match page.list().sign_in(code_of(fields.get("code")), origin.clone(), now).await {
        Ok(token) => Ok(welcome(&page, &token, before, address, now).await?),
        Err(Error::Invalid { .. }) => {
            page.count_failure(address.as_deref());
            // No code is refused before it is looked up: a person with an old code of another must
            // not be able to lock the other out.
            let code = code_of(fields.get("code"));
            if let Some(account) = page.list().account_of_code(&code).await? {
                let reason = "it was used or is too old";
                let list = page.list();
                list.log_failure(account, Attempt::SignIn, "link", reason, origin, now).await?;
                if let Some(seconds) = page.account_waits_s(account.user_id) {
                    return Err(Refusal::too_many_of_account(seconds).into());
                }
                page.count_account_failure(account.user_id);
            }
            let problem = format!(
                "This link is not valid. It was used or withdrawn, is too old, or is not of this \
                 service. An invitation is valid for {HOURS} hours, any other link for {MINUTES} \
                 minutes. Get a new one."
            );
            Ok(refused(&page, &before, problem)?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Returns the response to a person who signed in: it leads to the page that the person opened.
pub(super) async fn welcome(
    page: &Page,
    token: &Code,
    before: Before,
    address: Option<String>,
    now: Timestamp,
) -> Result<Response, Refusal> {
    // The session before it ends, so that no second one of the browser stays open.
    if let Some(old) = before.token
        && let Some(old) = page.list().session(&old, now).await?
    {
        let actor = old.actor(address);
        page.list().end_session(old, String::new(), actor, now).await?;
    }
    let to = before.opened.as_deref().unwrap_or(page.root());
    let mut response = Redirect::to(to).into_response();
    let forgotten = before.opened.as_ref().and_then(|_| cookies::forget_opened(page));
    for cookie in forgotten.into_iter().chain(cookies::session(page, Some(token))) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Returns the page that signs in, with what was wrong.
pub(super) fn refused(page: &Page, before: &Before, problem: String) -> Result<Response, Refusal> {
    respond(StatusCode::FORBIDDEN, &Entrance::new(page, before, false, problem)?)
}

/// Ends the session, and lets the browser forget what it stored of the page.
///
/// The cookie of the session is removed by its name, and the page stores nothing else. `cookies`
/// and `storage` of `Clear-Site-Data` would remove those of other products on this host, the former
/// also on all hosts of its domain.
pub(super) async fn sign_out(visit: Visit) -> Result<Response, Stop> {
    let actor = visit.session.actor(visit.origin.address.clone());
    visit.page.list().end_session(visit.session.clone(), String::new(), actor, visit.now).await?;
    visit.forget_cookie();
    let fields = [("Clear-Site-Data", "\"cache\"")];
    Ok((fields, Redirect::to(&visit.at("/in?left=1"))).into_response())
}

/// The page on which an operator chooses a team.
#[derive(Template)]
#[template(path = "teams.html")]
struct Teams {
    frame: Frame,
    teams: Vec<Team>,
    name: String,
    problem: String,
}

/// Shows all teams to an operator.
pub(super) async fn teams(visit: Visit) -> Result<Response, Stop> {
    visit.require(Role::Operator)?;
    let teams = visit.page.list().teams(0, MOST_TEAMS).await?;
    let frame = Frame::new(&visit, "teams", "Teams");
    Ok(show(&Teams { frame, teams, name: String::new(), problem: String::new() })?)
}

/// Makes the session be about a team.
pub(super) async fn choose_team(visit: Visit, fields: Fields) -> Result<Response, Stop> {
    visit.require(Role::Operator)?;
    let team =
        fields.get("team").parse().map_err(|_| Refusal::missing("There is no such team."))?;
    visit.page.list().choose_team(visit.session.clone(), team).await?;
    visit.forget_opened();
    Ok(Redirect::to(visit.opened.as_deref().unwrap_or(visit.page.root())).into_response())
}

/// Makes a team, and makes the session be about it.
pub(super) async fn make_team(mut visit: Visit, fields: Fields) -> Result<Response, Stop> {
    visit.require(Role::Operator)?;
    visit.prove(&fields).await?;
    let name = fields.get("name");
    match visit.page.list().create_team(None, name, visit.caller()).await {
        Ok(team) => {
            visit.page.list().choose_team(visit.session.clone(), team.team).await?;
            Ok(Redirect::to(visit.page.root()).into_response())
        }
        Err(Error::Invalid { reason, .. }) => {
            let teams = visit.page.list().teams(0, MOST_TEAMS).await?;
            let frame = Frame::new(&visit, "teams", "Teams");
            let problem = format!("The name cannot be used: {}", sentence(&reason));
            let screen = Teams { frame, teams, name: name.to_owned(), problem };
            Ok(respond(StatusCode::BAD_REQUEST, &screen)?)
        }
        Err(error) => Err(error.into()),
    }
}
