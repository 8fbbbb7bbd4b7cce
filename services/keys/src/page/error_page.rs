//! The page that shows an error.

use askama::Template;
use axum::http::StatusCode;

use super::frame::{Frame, Who};
use super::refusal::Refusal;
use super::state::Page;

/// The page of an error.
#[derive(Template)]
#[template(path = "error.html")]
struct Screen<'a> {
    frame: Frame,
    status: u16,
    sentence: &'a str,
    advice: &'a str,
    link: Option<(&'static str, &'static str)>,
}

/// Returns the page of an error, with the menu of the person who is signed in.
pub(super) fn text(refusal: &Refusal, page: &Page, who: Option<Who>) -> String {
    let frame = Frame { who, ..Frame::bare(page, title(refusal.status)) };
    let screen = Screen {
        frame,
        status: refusal.status.as_u16(),
        sentence: &refusal.sentence,
        advice: &refusal.advice,
        link: refusal.link,
    };
    screen.render().unwrap_or_default()
}

fn title(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "Not found",
        StatusCode::FORBIDDEN => "Not permitted",
        StatusCode::TOO_MANY_REQUESTS => "Too many attempts",
        StatusCode::CONFLICT => "Not possible now",
        status if status.is_server_error() => "Not available now",
        _ => "Not possible",
    }
}
