//! Signing in by a one-time link, signing out, and the choice of a team.

use askama::Template;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Redirect, Response};
use keytally::Timestamp;

use super::cookies;
use super::fields::{Fields, Parameters};
use super::frame::{Frame, Who, respond, show};
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
    /// Whose session ends by a sign-in.
    present: Option<Who>,
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
    uri: Uri,
    parameters: Parameters,
) -> Result<Response, Refusal> {
    let mut screen = Entrance::new(&page, &Before::new(&page, &headers), String::new()).await?;
    if screen.present.is_some() {
        return show(&screen);
    }
    if parameters.get("left") == "1" {
        screen.has_left = true;
        screen.frame.title = "Signed out".to_owned();
    }
    let is_done = cookies::is_done(&page, &headers, &uri);
    screen.frame.done = match parameters.get("done") {
        "lost" if is_done => {
            "Your session has ended, so nothing was changed. Sign in, and make the \
                              change again."
                .to_owned()
        }
        "deleted" if is_done => {
            "The team is deleted, and the sessions of its members ended.".to_owned()
        }
        _ => String::new(),
    };
    let mut response = show(&screen)?;
    let shown = cookies::done(&page, "").filter(|_| is_done);
    response.headers_mut().extend(shown.map(|cookie| (SET_COOKIE, cookie)));
    Ok(response)
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
    async fn new(page: &Page, before: &Before, problem: String) -> Result<Self, Refusal> {
        let present = match &before.token {
            Some(token) => page.list().session(token, page.now()).await?,
            None => None,
        };
        Ok(Self {
            frame: Frame::bare(page, "Sign in"),
            present: present.as_ref().map(Who::new),
            problem,
            has_left: false,
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
            Ok(refused(&page, &before, problem).await?)
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
pub(super) async fn refused(
    page: &Page,
    before: &Before,
    problem: String,
) -> Result<Response, Refusal> {
    respond(StatusCode::FORBIDDEN, &Entrance::new(page, before, problem).await?)
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
pub(super) async fn teams(visit: Visit, parameters: Parameters) -> Result<Response, Stop> {
    visit.require(Role::Operator)?;
    let teams = visit.page.list().teams(0, MOST_TEAMS).await?;
    let done = match parameters.get("done") {
        "deleted" => "The team is deleted.",
        _ => "",
    };
    let frame = Frame::new(&visit, "teams", "Teams").with_done(&visit, done);
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
