//! The responses to refused requests.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use keytally::{Outcome, PROBLEM_MEDIA_TYPE, Verdict, accepts_problem};

use crate::answer::Respond;
use crate::fields;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const GRPC: &str = "application/grpc";
const GRPC_MESSAGE: &str = "grpc-message";

/// The text of a missing key, and that for a key that need not be in `X-API-Key`.
const MISSING: [&str; 2] = ["Missing X-API-Key header", "Missing API key"];

/// The body of the response if a limiter counts peers and the request does not have the address.
const UNKNOWN_PEER: &str = r#"{"error": "The server does not report the client's address"}"#;

/// The body of the response if a layer names a group or a scope that its gate does not have.
const UNKNOWN_GROUP: &str = r#"{"error": "The gate does not have a group or scope of this route"}"#;

/// Returns the response to a request that a verdict refuses: status, `Content-Type` and body,
/// without other fields.
///
/// `request` are the fields of the request. If its `Accept` names problem documents (RFC 9457), the
/// body is one. An admitted verdict has the status 200 and an empty body.
///
/// The layers of this crate send it, with the fields of [`set_fields`]. It is public for routes
/// that check a table themselves.
pub fn refusal(shown: &(impl Respond + ?Sized), request: &HeaderMap) -> Response<Bytes> {
    let verdict = shown.decisive();
    let wants_problem =
        request.get_all(ACCEPT).iter().any(|value| accepts_problem(value.as_bytes()));
    let (body, content_type) = if wants_problem {
        (Bytes::from(shown.problem_text()), PROBLEM_MEDIA_TYPE)
    } else {
        (Bytes::from_static(verdict.body().as_bytes()), JSON)
    };
    response(status(verdict), content_type, body)
}

/// Sets all header fields of a verdict or a compound charge, and replaces those of the same names.
pub fn set_fields(headers: &mut HeaderMap, shown: &(impl Respond + ?Sized)) {
    fields::set(headers, shown);
}

/// Removes the name of the field from the text of a missing key.
pub(crate) fn remove_field_name(response: &mut Response<Bytes>) {
    if let Ok(body) = core::str::from_utf8(response.body()) {
        *response.body_mut() = Bytes::from(body.replace(MISSING[0], MISSING[1]));
    }
    if let Some(message) = response.headers_mut().get_mut(GRPC_MESSAGE) {
        *message = HeaderValue::from_static(MISSING[1]);
    }
}

/// Returns the status of a verdict.
fn status(verdict: &Verdict) -> StatusCode {
    StatusCode::from_u16(verdict.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn response(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Returns the response to a request whose peer is unknown.
pub(crate) fn unknown_peer(request: &HeaderMap) -> Response<Bytes> {
    server_error(UNKNOWN_PEER, request)
}

/// Returns the response to a request that names a group or a scope that the gate does not have.
pub(crate) fn unknown_group(request: &HeaderMap) -> Response<Bytes> {
    server_error(UNKNOWN_GROUP, request)
}

fn server_error(body: &'static str, request: &HeaderMap) -> Response<Bytes> {
    if is_grpc(request) {
        return grpc(13, body);
    }
    response(StatusCode::INTERNAL_SERVER_ERROR, JSON, Bytes::from_static(body.as_bytes()))
}

/// Returns the response that is sent to a gRPC client for a verdict, or `None` if the request is
/// not of gRPC.
///
/// It has no body, and the status is in the header fields (a *Trailers-Only* response).
pub(crate) fn grpc_refusal(verdict: &Verdict, request: &HeaderMap) -> Option<Response<Bytes>> {
    let code = match verdict.outcome() {
        Outcome::MissingKey | Outcome::InvalidKey => 16, // UNAUTHENTICATED
        Outcome::Forbidden => 7,                         // PERMISSION_DENIED
        Outcome::Denied | Outcome::TooCostly | Outcome::Full => 8, // RESOURCE_EXHAUSTED
        Outcome::Unavailable => 14,                      // UNAVAILABLE
        _ => 2,                                          // UNKNOWN
    };
    is_grpc(request).then(|| grpc(code, verdict.body()))
}

/// Returns whether a request is of gRPC, and not of gRPC-Web.
fn is_grpc(request: &HeaderMap) -> bool {
    let content_type = request.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let rest = content_type.strip_prefix(GRPC.as_bytes());
    rest.is_some_and(|rest| matches!(rest, [] | [b'+' | b';' | b' ', ..]))
}

/// Returns a gRPC response with a status code. Its message is the text in `body`, which is
/// `{"error": "TEXT"}`.
fn grpc(code: u16, body: &'static str) -> Response<Bytes> {
    let text = body.strip_prefix(r#"{"error": ""#).and_then(|rest| rest.strip_suffix(r#""}"#));
    let mut response = response(StatusCode::OK, GRPC, Bytes::new());
    response.headers_mut().insert("grpc-status", HeaderValue::from(code));
    // The texts have no percent sign, so the percent-encoding of gRPC leaves them unchanged.
    let message = HeaderValue::from_static(text.unwrap_or_default());
    response.headers_mut().insert(GRPC_MESSAGE, message);
    response
}

/// Sets `Content-Type` on a response of the application that has none.
pub(crate) fn with_content_type(mut response: Response<Bytes>) -> Response<Bytes> {
    response.headers_mut().entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(TEXT));
    response
}

/// Sets `Content-Length` on a refusal, and removes the body of the response to `HEAD`.
pub(crate) fn sized(mut response: Response<Bytes>, method: &Method) -> Response<Bytes> {
    let len = HeaderValue::from(response.body().len());
    response.headers_mut().insert(CONTENT_LENGTH, len);
    if *method == Method::HEAD {
        *response.body_mut() = Bytes::new();
    }
    response
}

#[cfg(test)]
mod tests {
    use keytally::now;

    use super::*;

    #[test]
    fn problem_document_is_sent_only_if_accept_names_it() {
        let content_type = |accept: &[&'static str]| {
            let mut request = HeaderMap::new();
            for value in accept {
                request.append(ACCEPT, HeaderValue::from_static(value));
            }
            refusal(&Verdict::duplicate_header(now()), &request).headers()[CONTENT_TYPE].clone()
        };
        for none in [
            &[][..],
            &["*/*"],
            &["application/json"],
            &["application/*"],
            &["application/problem+json;q=0"],
            &["application/problem+json ; Q=0.0"],
        ] {
            assert_eq!(content_type(none), JSON, "{none:?}");
        }
        for some in [
            &["application/problem+json"][..],
            &["text/html, Application/Problem+JSON;q=0.5"],
            &["*/*", "application/problem+json"],
        ] {
            assert_eq!(content_type(some), PROBLEM_MEDIA_TYPE, "{some:?}");
        }
    }

    #[test]
    fn grpc_web_is_not_grpc() {
        for (content_type, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpcx", false),
            ("application/json", false),
        ] {
            let request = HeaderMap::from_iter([(CONTENT_TYPE, content_type.parse().unwrap())]);
            assert_eq!(is_grpc(&request), expected, "{content_type}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
