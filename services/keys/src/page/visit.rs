//! A visit: the session of a request, and the proof that a change needs.

use askama::Template;
use axum::extract::FromRequestParts;
use axum::http::header::{SET_COOKIE, USER_AGENT};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use keytally::{KeyId, Timestamp};

use super::cookies;
use super::fields::Fields;
use super::frame::{Frame, respond};
use super::guard::NewCookies;
use super::passkeys;
use super::refusal::{Refusal, Stop, sentence};
use super::state::{LinkCommand, Page};
use super::usage_of::add_what_the_gate_has;
use crate::api::ClientAddress;
use crate::change::Caller;
use crate::error::Error;
use crate::keys::KeyRow;
use crate::roles::Role;
use crate::sessions::{Attempt, Origin, Session, SignedIn};
use crate::teams::{self, TeamSettings};

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
    path: String,
    new_cookies: NewCookies,
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

/// Returns a name as a word of a command, in quotes if the shell of this system needs them.
fn word(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"@._-".contains(&byte);
    match name {
        name if name.bytes().all(is_plain) => name.to_owned(),
        name if cfg!(windows) => format!("\"{name}\""),
        name => format!("'{}'", name.replace('\'', r"'\''")),
    }
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

/// The page that requests a proof before a change.
#[derive(Template)]
#[template(path = "confirm.html")]
struct Confirm<'a> {
    frame: Frame,
    /// The path of the change.
    action: &'a str,
    /// What was filled in.
    fields: Vec<(&'a str, &'a str)>,
    problem: String,
    /// The command that makes a link for the person; `None` if the person may not see it.
    link_command: Option<LinkCommand>,
    /// The arguments by which an operator makes a link for the person, if no other owner can.
    only_owner: Option<String>,
    /// Whether the person could add a passkey, and has none.
    offers_passkey: bool,
    /// The proof with a passkey, as HTML.
    passkeys: String,
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

    /// Continues if the person proved recently to be the user, or does so by the field `code` or
    /// `passkey`. Otherwise, shows a page that requests a proof and keeps what was filled in.
    pub(super) async fn prove(&mut self, fields: &Fields) -> Result<(), Stop> {
        if self.session.is_proved(self.now) {
            return Ok(());
        }
        let (code, answer) = (fields.get("code"), fields.get(passkeys::FIELD));
        let mut problem = String::new();
        if !(code.is_empty() && answer.is_empty()) {
            let address = self.origin.address.as_deref();
            if let Some(seconds) = self.page.waits_s(address) {
                return Err(Refusal::too_many(seconds).into());
            }
            let user_id = self.session.user_id;
            if let Some(seconds) = self.page.account_waits_s(user_id) {
                return Err(Refusal::too_many_of_account(seconds).into());
            }
            let (session, origin) = (self.session.clone(), self.origin.clone());
            let account = session.account();
            let (what, proved) = if answer.is_empty() {
                let code = super::entrance::code_of(code);
                ("code", self.page.list().prove(session, code, origin, self.now).await)
            } else {
                ("passkey", passkeys::prove(&self.page, session, answer, origin, self.now).await)
            };
            match proved {
                Ok(token) => {
                    self.new_cookies.add(cookies::session(&self.page, Some(&token)));
                    if let Some(session) = self.page.list().session(&token, self.now).await? {
                        self.session = session;
                    }
                    return Ok(());
                }
                Err(Error::Invalid { reason, .. }) => {
                    self.page.count_failure(address);
                    self.page.count_account_failure(user_id);
                    let (list, origin, now) = (self.page.list(), self.origin.clone(), self.now);
                    list.log_failure(account, Attempt::Proof, what, &reason, origin, now).await?;
                    problem = format!("The {what} was not accepted: {}", sentence(&reason));
                }
                Err(error) => return Err(error.into()),
            }
        }
        let kept = fields.0.iter().filter(|(name, _)| name != "code" && name != passkeys::FIELD);
        let passkeys = passkeys::of_proof(&self.page, &self.session, self.now).await?;
        let offers_passkey = passkeys.is_empty() && passkeys::may_add(&self.page, &self.session);
        let screen = Confirm {
            frame: Frame::new(self, "", "Confirm that it is you"),
            action: &self.path,
            fields: kept.map(|(name, value)| (&**name, &**value)).collect(),
            problem,
            link_command: self.link_command(),
            only_owner: self.only_owner().await?,
            offers_passkey,
            passkeys,
        };
        // Scripts and people see that nothing was changed.
        Err(respond(StatusCode::FORBIDDEN, &screen)?.into())
    }

    /// Returns the command that makes a link for the person, if the person may see paths of the
    /// machine.
    fn link_command(&self) -> Option<LinkCommand> {
        let session = &self.session;
        let LinkCommand { mut line, variables } = match session.role {
            Role::Operator => self.page.settings().link_command.clone(),
            _ => self.page.public_link_command()?.clone(),
        };
        line.push_str(&self.link_arguments());
        Some(LinkCommand { line, variables })
    }

    /// Returns for whom a command makes a link, as its arguments; empty for an operator.
    fn link_arguments(&self) -> String {
        let Session { team_id, user_id, user, .. } = &self.session;
        match (team_id, user_id) {
            (Some(team_id), Some(_)) => format!(" --team {team_id} --user {}", word(user)),
            _ => String::new(),
        }
    }

    /// Returns the arguments of the command that makes a link for the person, if the person is the
    /// only owner of the team: no other member can make one.
    async fn only_owner(&self) -> Result<Option<String>, Error> {
        let Session { team_id: Some(team_id), user_id: Some(user_id), .. } = self.session else {
            return Ok(None);
        };
        let members = self.page.list().members(team_id).await?;
        let is_only = teams::only_owner(&members) == Some(user_id);
        Ok(is_only.then(|| self.link_arguments()))
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
