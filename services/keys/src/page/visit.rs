//! A visit: the session of a request, and what the person may do.

use axum::extract::FromRequestParts;
use axum::http::header::{SET_COOKIE, USER_AGENT};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use keytally::{KeyId, Timestamp};

use super::cookies::{self, NewCookies};
use super::refusal::{Refusal, Stop};
use super::state::Page;
use super::usage_of::add_what_the_gate_has;
use crate::api::ClientAddress;
use crate::change::Caller;
use crate::error::Error;
use crate::keys::KeyRow;
use crate::roles::Role;
use crate::sessions::{Origin, Session, SignedIn};
use crate::teams::TeamSettings;

/// Returns from where a request comes.
pub(super) fn origin(parts: &Parts) -> Origin {
    let agent = parts.headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
    let address = parts.extensions.get::<ClientAddress>().map(|address| address.0.clone());
    Origin { agent: agent.unwrap_or_default().to_owned(), address, ..Origin::default() }
}

/// A request of a person who is signed in.
#[derive(Clone, Debug)]
pub(super) struct Visit {
    pub(super) page: Page,
    pub(super) session: Session,
    pub(super) now: Timestamp,
    pub(super) origin: Origin,
    /// Whether a script requests a part of the page.
    pub(super) is_partial: bool,
    /// The sign-ins of the person elsewhere that this session has not shown.
    pub(super) sign_ins: Vec<SignedIn>,
    /// How many older ones there are.
    pub(super) more_sign_ins: i64,
    /// The page that the person opened before the choice of a team.
    pub(super) opened: Option<String>,
    /// Whether the address may say what was just done.
    pub(super) is_done: bool,
    /// The path of the request.
    pub(super) path: String,
    pub(super) new_cookies: NewCookies,
}

impl FromRequestParts<Page> for Visit {
    type Rejection = Stop;

    async fn from_request_parts(parts: &mut Parts, page: &Page) -> Result<Self, Stop> {
        let now = page.now();
        let session = match cookies::token(page, &parts.headers) {
            Some(token) => page.list().session(&token, now).await?,
            None => None,
        };
        let kind = parts.headers.get("HX-Request-Type").map(HeaderValue::as_bytes);
        let is_partial = kind == Some(b"partial");
        let Some(session) = session else { return Err(entrance(page, parts, is_partial).into()) };
        let (sign_ins, more_sign_ins) = match is_partial {
            true => (Vec::new(), 0),
            false => page.list().sign_ins_to_show(&session).await?,
        };
        let new_cookies = parts.extensions.get::<NewCookies>().cloned().unwrap_or_default();
        let is_done = !is_partial && cookies::is_done(page, &parts.headers, &parts.uri);
        if is_done {
            new_cookies.add(cookies::done(page, ""));
        }
        Ok(Self {
            page: page.clone(),
            session,
            now,
            origin: origin(parts),
            is_partial,
            sign_ins,
            more_sign_ins,
            opened: cookies::opened(page, &parts.headers),
            path: parts.uri.path().to_owned(),
            new_cookies,
            is_done,
        })
    }
}

/// The entrance for a person whose change was not made, since the session had ended.
const LOST: &str = "/in?done=lost";

/// Returns the response that leads to the entrance.
fn entrance(page: &Page, parts: &Parts, is_partial: bool) -> Response {
    if is_partial {
        // A script must not put the page of the entrance into a part of another page.
        return (StatusCode::NO_CONTENT, [("HX-Refresh", "true")]).into_response();
    }
    match parts.method {
        Method::GET => detour(page, parts, "/in"),
        _ if cookies::token(page, &parts.headers).is_none() => detour(page, parts, "/in"),
        _ if parts.uri.path() == format!("{}/out", page.root()) => {
            detour(page, parts, "/in?left=1")
        }
        _ => {
            let mut response = detour(page, parts, LOST);
            let cookie = cookies::done(page, &format!("{}{LOST}", page.root()));
            response.headers_mut().extend(cookie.map(|cookie| (SET_COOKIE, cookie)));
            response
        }
    }
}

/// Returns the response that leads to a page from which the person gets to the present one.
fn detour(page: &Page, parts: &Parts, path: &str) -> Response {
    let mut response = Redirect::to(&format!("{}{path}", page.root())).into_response();
    if let Some(cookie) = cookies::keep_opened(page, parts) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

/// A visit that is about a team.
#[derive(Clone, Debug)]
pub(super) struct TeamVisit {
    pub(super) visit: Visit,
    pub(super) team_id: u32,
    /// What the members of the team may do.
    pub(super) settings: TeamSettings,
}

impl FromRequestParts<Page> for TeamVisit {
    type Rejection = Stop;

    async fn from_request_parts(parts: &mut Parts, page: &Page) -> Result<Self, Stop> {
        let visit = Visit::from_request_parts(parts, page).await?;
        match visit.session.team_id {
            Some(team_id) => {
                let settings = page.list().team(team_id).await?.settings;
                Ok(Self { visit, team_id, settings })
            }
            None => Err(detour(page, parts, "/teams").into()),
        }
    }
}

impl Visit {
    /// Returns the caller of a change in the list.
    pub(super) fn caller(&self) -> Caller {
        Caller {
            actor: self.session.actor(self.origin.address.clone()),
            role: self.session.role,
            team_id: self.session.team_id,
            idempotency_key: None,
            now: self.now,
        }
    }

    /// Refuses a person whose role is less than this one, and says who can do what about it.
    pub(super) fn require(&self, least: Role) -> Result<(), Refusal> {
        let Session { role, of_member, .. } = self.session;
        let Err(error) = role.require(least) else { return Ok(()) };
        let refusal = Refusal::from(error);
        if least == Role::Operator {
            let advice = "Only an operator of the service can do this: a person who runs its \
                          commands on its machine, and signs in by the link of keytally keys link.";
            return Err(refusal.without_link().with_advice(advice));
        }
        if of_member >= least {
            let advice = format!(
                "You are {} of the team, but this session began by a link for the role {}. Sign \
                 in again with a link for your whole role, which an owner makes on the page Team, \
                 or with a passkey.",
                of_member.as_str(),
                role.as_str()
            );
            return Err(refusal.with_advice(advice));
        }
        Err(refusal)
    }

    /// Removes the cookie of the session.
    pub(super) fn forget_cookie(&self) {
        self.new_cookies.add(cookies::session(&self.page, None));
    }

    /// Removes the cookie of the page that the person opened before.
    pub(super) fn forget_opened(&self) {
        let forgotten = self.opened.as_ref().and_then(|_| cookies::forget_opened(&self.page));
        self.new_cookies.add(forgotten);
    }

    /// Returns the response to a change: it leads to a page that says once what was done.
    pub(super) fn done(&self, path: &str) -> Response {
        let to = self.at(path);
        self.new_cookies.add(cookies::done(&self.page, &to));
        Redirect::to(&to).into_response()
    }

    /// Returns an address of the page.
    pub(super) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.page.root())
    }
}

impl TeamVisit {
    /// Returns whether the person may make and rotate keys of an environment.
    pub(super) fn may_make(&self, env: &str) -> bool {
        self.visit.session.role >= self.settings.role_for(env)
    }

    /// Returns the key of this id, if the team has it.
    pub(super) async fn key(&self, id: &str) -> Result<KeyRow, Refusal> {
        let missing = || Refusal::missing("Your team has no key of this id.");
        let key_id: KeyId = id.parse().map_err(|_| missing())?;
        match self.visit.page.list().key(Some(self.team_id), key_id).await {
            Err(Error::NotFound { .. }) => Err(missing()),
            found => {
                let mut rows = [found?];
                add_what_the_gate_has(self.visit.page.list(), &mut rows);
                let [row] = rows;
                Ok(row)
            }
        }
    }
}
