//! Responses with a body in JSON.

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

/// Returns a response whose body is this JSON text.
pub(super) fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body.into()).into_response()
}

/// Returns a response whose body is this value as JSON.
pub(super) fn json_of(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => json(StatusCode::OK, body),
        Err(_) => {
            json(StatusCode::INTERNAL_SERVER_ERROR, r#"{"error": "Cannot write the response"}"#)
        }
    }
}
