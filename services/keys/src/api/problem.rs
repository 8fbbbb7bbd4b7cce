//! Problems: every error of the API, as RFC 9457 describes.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use keytally::{AdminError, Error as GateError, PROBLEM_MEDIA_TYPE, Verdict};
use serde::Serialize;
use utoipa::ToSchema;

use crate::database::DatabaseError;
use crate::error::{Error, Made};

/// A problem.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// The status of the response.
    pub status: u16,
    /// The name of the status.
    pub title: &'static str,
    /// What is wrong, and what would be right.
    pub detail: String,
    /// The value of the request that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<&'static str>,
    /// The key that a request with the same `Idempotency-Key` made or changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub key_id: Option<Box<str>>,
    /// The token that a request with the same `Idempotency-Key` made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub token: Option<Box<str>>,
    /// The team that a request with the same `Idempotency-Key` made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub team: Option<u32>,
    #[serde(skip)]
    headers: Box<HeaderMap>,
}

impl Problem {
    /// Returns a problem with this status and sentence.
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status: status.as_u16(),
            title: status.canonical_reason().unwrap_or_default(),
            detail: detail.into(),
            field: None,
            key_id: None,
            token: None,
            team: None,
            headers: Box::default(),
        }
    }

    /// Returns the problem of a value that is not possible.
    pub(crate) fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        Error::invalid(field, reason).into()
    }

    /// Returns the problem of an invalid token from an address that has sent too many of them.
    pub fn too_many_tokens(retry_after_s: Option<u32>) -> Self {
        let mut problem = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "this address has sent too many invalid tokens; a valid one is admitted",
        );
        problem.headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(seconds) = retry_after_s {
            problem.headers.insert(RETRY_AFTER, seconds.into());
        }
        problem
    }

    /// Returns the problem of a request that was answered before.
    fn repeated(made: Made, sentence: String) -> Self {
        let mut problem = Self::new(StatusCode::CONFLICT, sentence);
        match made {
            Made::Key(key_id) => problem.key_id = Some(key_id.to_string().into()),
            Made::Token(key_id) => problem.token = Some(key_id.to_string().into()),
            Made::Team(team) => problem.team = Some(team),
        }
        problem
    }

    /// Returns the problem of a token that was not admitted.
    pub(crate) fn of_verdict(verdict: &Verdict) -> Self {
        let status =
            StatusCode::from_u16(verdict.http_status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let detail = match status {
            StatusCode::UNAUTHORIZED => {
                "the header X-API-Key needs an admin token; keytally keys token makes one"
            }
            StatusCode::TOO_MANY_REQUESTS => {
                "the token has made too many requests; try again after the time in Retry-After"
            }
            _ => "the token cannot be checked now; try again",
        };
        Self { headers: Box::new(fields(verdict)), ..Self::new(status, detail) }
    }
}

/// Returns the header fields of a verdict.
pub(crate) fn fields(verdict: &Verdict) -> HeaderMap {
    let headers = verdict.headers();
    let fields = headers.iter().filter_map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_str(value).ok()?))
    });
    fields.collect()
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_string(&self).unwrap_or_default();
        let fields = [(CONTENT_TYPE, PROBLEM_MEDIA_TYPE), (CACHE_CONTROL, "no-store")];
        (status, fields, *self.headers, body).into_response()
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let sentence = error.to_string();
        let retried = |seconds: &'static str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(seconds))]);
            let headers = Box::new(headers);
            Self { headers, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, sentence.clone()) }
        };
        match error {
            Error::Invalid { field, .. } => {
                Self { field: Some(field), ..Self::new(StatusCode::BAD_REQUEST, sentence) }
            }
            Error::NotFound { .. } => Self::new(StatusCode::NOT_FOUND, sentence),
            Error::Forbidden(_) => Self::new(StatusCode::FORBIDDEN, sentence),
            Error::Conflict(_) | Error::Database(DatabaseError::Taken) => {
                Self::new(StatusCode::CONFLICT, sentence)
            }
            Error::Repeated { key_id } => Self::repeated(Made::Key(key_id), sentence),
            Error::RepeatedFor(made) => Self::repeated(made, sentence),
            Error::Gate(GateError::Admin { source: AdminError::NamesTooLong, .. }) => {
                Self { field: Some("env"), ..Self::new(StatusCode::BAD_REQUEST, sentence) }
            }
            Error::Gate(GateError::Admin { source: AdminError::NotImportable { .. }, .. }) => {
                Self { field: Some("key"), ..Self::new(StatusCode::BAD_REQUEST, sentence) }
            }
            Error::Gate(GateError::Admin { .. }) => Self::new(StatusCode::CONFLICT, sentence),
            Error::Gate(GateError::Busy { .. }) => retried("5"),
            Error::Gate(_) | Error::Database(_) | Error::Unlisted { .. } | Error::Behind { .. } => {
                retried("1")
            }
        }
    }
}
