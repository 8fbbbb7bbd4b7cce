//! What all pages share: the head, the menu, and who is signed in.

use askama::Template;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};

use super::assets;
use super::refusal::Refusal;
use super::state::Page;
use super::visit::Visit;
use super::words::{Moment, ago, browser};
use crate::roles::Role;
use crate::sessions::{Session, SignedIn};

/// The media type of pages.
pub(super) const HTML: &str = "text/html; charset=utf-8";

/// What all pages share.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// The path of the page, such as `/keys`.
    pub(super) root: String,
    pub(super) title: String,
    /// The entry of the menu that is open.
    pub(super) tab: &'static str,
    pub(super) who: Option<Who>,
    /// What was just done.
    pub(super) done: String,
    /// Whether the page has a form that a person fills in, and would lose by another one.
    pub(super) is_form: bool,
    /// Sign-ins of the person elsewhere.
    pub(super) sign_ins: Vec<SignInLine>,
    /// How many older ones are not lines.
    pub(super) more_sign_ins: i64,
    /// The address of the log that has all of them.
    pub(super) all_sign_ins: String,
    /// The number of the newest of them.
    pub(super) newest: i64,
}

/// A sign-in of the person elsewhere, as a line.
#[derive(Clone, Debug)]
pub(super) struct SignInLine {
    pub(super) at: (String, Moment),
    pub(super) browser: String,
    pub(super) address: String,
}

/// Who is signed in.
#[derive(Clone, Debug)]
pub(super) struct Who {
    pub(super) name: String,
    pub(super) role: Role,
    /// The team; empty if none is chosen.
    pub(super) team: String,
}

impl Who {
    pub(super) fn new(session: &Session) -> Self {
        let name = match session.user_id {
            Some(_) => session.user.clone(),
            None => "Operator".to_owned(),
        };
        Self { name, role: session.role, team: session.team.clone() }
    }
}

impl Frame {
    /// Returns the frame of a page for a visit.
    pub(super) fn new(visit: &Visit, tab: &'static str, title: impl Into<String>) -> Self {
        let root = visit.page.root().to_owned();
        let line = |sign_in: &SignedIn| SignInLine {
            at: (ago(sign_in.at_s, visit.now), Moment(sign_in.at_s)),
            browser: browser(&sign_in.agent),
            address: sign_in.address.clone().unwrap_or_default(),
        };
        Self {
            root,
            title: title.into(),
            tab,
            who: Some(Who::new(&visit.session)),
            done: String::new(),
            is_form: false,
            sign_ins: visit.sign_ins.iter().map(line).collect(),
            more_sign_ins: visit.more_sign_ins,
            all_sign_ins: all_sign_ins(visit),
            newest: visit.sign_ins.first().map_or(0, |newest| newest.seq),
        }
    }

    /// Returns the frame of a page without a session.
    pub(super) fn bare(page: &Page, title: impl Into<String>) -> Self {
        let root = page.root().to_owned();
        Self {
            root,
            title: title.into(),
            tab: "",
            who: None,
            done: String::new(),
            is_form: false,
            sign_ins: Vec::new(),
            more_sign_ins: 0,
            all_sign_ins: String::new(),
            newest: 0,
        }
    }

    /// Returns the frame of a page with a form that a person fills in.
    pub(super) fn with_form(self) -> Self {
        Self { is_form: true, ..self }
    }

    /// Returns the frame of a page with a secret, which nothing stands above. The next page shows
    /// the sign-ins.
    pub(super) fn with_secret(self) -> Self {
        Self { sign_ins: Vec::new(), ..self }
    }

    /// Returns whether an operator is signed in.
    pub(super) fn is_operator(&self) -> bool {
        self.who.as_ref().is_some_and(|who| who.role == Role::Operator)
    }

    /// Returns the frame with what was just done, if that was indeed done before this page.
    pub(super) fn with_done(self, visit: &Visit, done: impl Into<String>) -> Self {
        Self { done: if visit.is_done { done.into() } else { String::new() }, ..self }
    }

    pub(super) fn style(&self) -> String {
        format!("{}/assets/{}", self.root, assets::style())
    }

    pub(super) fn script(&self) -> String {
        format!("{}/assets/{}", self.root, assets::script())
    }

    pub(super) fn library(&self) -> String {
        format!("{}/assets/{}", self.root, assets::library())
    }

    pub(super) fn icon(&self) -> String {
        format!("{}/assets/{}", self.root, assets::icon())
    }
}

/// Returns the address of the log with the sign-ins of a person.
fn all_sign_ins(visit: &Visit) -> String {
    let actor = visit.session.actor(None);
    let actor = match actor.name() {
        "" => actor.kind().to_owned(),
        name => format!("{}%20{name}", actor.kind()),
    };
    format!("{}/log?what=session.begin&actor={actor}", visit.page.root())
}

/// Returns a page, or a part of one, as text.
pub(super) fn text(page: &impl Template) -> Result<String, Refusal> {
    page.render().map_err(|_| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "The page could not be written.")
    })
}

/// Returns a response with a page.
pub(super) fn respond(status: StatusCode, page: &impl Template) -> Result<Response, Refusal> {
    Ok((status, [(CONTENT_TYPE, HTML)], text(page)?).into_response())
}

/// Returns a response with a page that succeeded.
pub(super) fn show(page: &impl Template) -> Result<Response, Refusal> {
    respond(StatusCode::OK, page)
}
