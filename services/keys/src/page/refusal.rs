//! Errors of the page: what is wrong, and what to do.

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use keytally::{AdminError, Error as GateError};

use crate::database::DatabaseError;
use crate::error::Error;

/// An error that a page shows.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) sentence: String,
    /// What to do, and who can do it.
    pub(super) advice: String,
    /// A further page that helps: its path below the page of keys, and the text of the link.
    pub(super) link: Option<(&'static str, &'static str)>,
    retry_after_s: Option<u32>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, sentence: impl Into<String>) -> Self {
        let (sentence, advice) = (sentence.into(), String::new());
        Self { status, sentence, advice, link: None, retry_after_s: None }
    }

    pub(super) fn missing(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, sentence)
    }

    pub(super) fn with_advice(self, advice: impl Into<String>) -> Self {
        Self { advice: advice.into(), ..self }
    }

    pub(super) fn without_link(self) -> Self {
        Self { link: None, ..self }
    }

    /// Adds a link to the members of the team.
    pub(super) fn with_members(self) -> Self {
        Self { link: Some(("/team#members", "To the members of the team")), ..self }
    }

    /// Returns the refusal of a response without a page.
    pub(super) fn of_status(status: StatusCode) -> Self {
        Self::new(
            status,
            match status {
                StatusCode::METHOD_NOT_ALLOWED => "This address does not accept such a request.",
                StatusCode::PAYLOAD_TOO_LARGE => "The form is too long.",
                StatusCode::UNSUPPORTED_MEDIA_TYPE | StatusCode::BAD_REQUEST => {
                    "The form could not be read."
                }
                _ => "The request could not be answered.",
            },
        )
    }

    /// Returns whether the page looks up who is signed in. If the database cannot be used, it does
    /// not wait for it again.
    pub(super) fn has_menu(&self) -> bool {
        !self.status.is_server_error()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Returns a sentence as a page shows it: with a capital letter and a full stop.
pub(super) fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string());
    let mut sentence = first.unwrap_or_default() + characters.as_str();
    if !sentence.ends_with(['.', '?', '!']) {
        sentence.push('.');
    }
    sentence
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let text = sentence(&error.to_string());
        let later = |seconds, advice: &str| Self {
            retry_after_s: Some(seconds),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, text.clone()).with_advice(advice)
        };
        match error {
            // A sentence about "it" needs the name of the value.
            Error::Invalid { reason, .. } if !reason.starts_with("it ") => {
                Self::new(StatusCode::BAD_REQUEST, sentence(&reason))
            }
            Error::Invalid { .. } => Self::new(StatusCode::BAD_REQUEST, text),
            Error::NotFound { .. } => Self::missing(text),
            Error::Forbidden(_) => {
                let advice = "An owner of the team can change your role on the page Team, which \
                              names the owners.";
                Self::new(StatusCode::FORBIDDEN, text).with_advice(advice).with_members()
            }
            Error::Gate(GateError::Admin { source: AdminError::Full { keys }, .. }) => {
                let sentence = format!("The gate is full: all {keys} records hold keys.");
                Self::new(StatusCode::CONFLICT, sentence).with_advice(
                    "A revoked or expired key keeps its record until its longest window has \
                     passed. For room at once, let an operator of the service move the keys to a \
                     larger gate: keytally migrate.",
                )
            }
            Error::Conflict(_)
            | Error::Database(DatabaseError::Taken)
            | Error::Gate(GateError::Admin { .. })
            | Error::Repeated { .. }
            | Error::RepeatedFor(_) => Self::new(StatusCode::CONFLICT, text),
            Error::Gate(GateError::Busy { .. }) => later(
                5,
                "Another change of the keys is not finished. Nothing was changed. Try again in \
                 some seconds.",
            ),
            Error::Database(_) | Error::Unlisted { .. } => later(
                10,
                "Requests with keys are still answered: the keys do not need the database. Only \
                 this page does. To revoke a key without the database, run keytally revoke with \
                 the gate file and the id of the key, on the machine of the service. The list \
                 gets the change when the database can be used again.",
            ),
            Error::Behind { .. } | Error::Gate(_) => later(
                10,
                "Requests with keys are still answered. An operator of the service must look at \
                 this.",
            ),
        }
    }
}

impl Refusal {
    /// Returns the refusal of a sign-in from an address with too many failed ones.
    pub(super) fn too_many(seconds: u32) -> Self {
        Self::wait("Too many sign-ins from your address failed.", seconds)
    }

    /// Returns the refusal of a code of an account with too many failed ones.
    pub(super) fn too_many_of_account(seconds: u32) -> Self {
        Self::wait("Too many codes of this account were not accepted.", seconds)
    }

    /// Returns the refusal of a request that must wait.
    pub(super) fn wait(sentence: &'static str, seconds: u32) -> Self {
        let advice = format!("Try again in {seconds} seconds.");
        let refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, sentence).with_advice(advice);
        Self { retry_after_s: Some(seconds), ..refusal }
    }
}

/// Why a handler ends early: with an error, or with another page.
pub(super) enum Stop {
    Refused(Refusal),
    Page(Box<Response>),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Refused(error.into())
    }
}

impl From<Response> for Stop {
    fn from(response: Response) -> Self {
        Self::Page(Box::new(response))
    }
}

impl IntoResponse for Stop {
    fn into_response(self) -> Response {
        match self {
            Self::Refused(refusal) => refusal.into_response(),
            Self::Page(response) => *response,
        }
    }
}
