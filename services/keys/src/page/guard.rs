//! What every response gets: header fields for security, errors as pages, and the cookies
//! that changed. Also the refusal of changes that other sites send.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    REFERRER_POLICY, SET_COOKIE, STRICT_TRANSPORT_SECURITY, VARY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{Predicate, SizeAbove};
use tower_http::csrf::{CsrfLayer, ProtectionError};

use super::cookies::{NewCookies, token};
use super::error_page;
use super::frame::{HTML, Who};
use super::refusal::Refusal;
use super::state::Page;
use crate::error::{Error, Result};

/// The content security policy: nothing but files of the page itself, and no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      img-src 'self' data:; connect-src 'self'; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'";

/// Header fields of every response.
///
/// With the referrer policy `no-referrer`, browsers send `Origin: null` with the forms of the page,
/// which then look like those of another site to a browser without `Sec-Fetch-Site`. With
/// `same-origin`, they send the page's own origin, and nothing to other sites.
const FIELDS: [(HeaderName, &str); 6] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "same-origin"),
    (X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The answer to a change that another site sent.
type Rejection = fn(ProtectionError) -> Response;

/// Returns the layer that refuses changes that other sites send.
///
/// # Errors
/// If the public URL is not one.
pub(super) fn same_site(page: &Page) -> Result<CsrfLayer<Rejection>> {
    let origin = page.settings().public_url.trim_end_matches('/');
    let rejection: Rejection = |_| {
        let sentence = "This form was not sent from this page, so nothing was changed.";
        Refusal::new(StatusCode::FORBIDDEN, sentence).into_response()
    };
    let layer = CsrfLayer::new().with_rejection_response(rejection);
    layer
        .add_trusted_origin(origin)
        .map_err(|_| Error::invalid("public_url", "it must be a URL without a path"))
}

/// A response with this in its extensions is not compressed: its body has a secret.
#[derive(Clone, Copy, Debug)]
pub(super) struct HasSecret;

/// Which responses are compressed: those of some length without a secret.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compressible;

impl Predicate for Compressible {
    fn should_compress<B: http_body::Body>(&self, response: &axum::http::Response<B>) -> bool {
        let has_secret = response.extensions().get::<HasSecret>().is_some();
        !has_secret && SizeAbove::new(512).should_compress(response)
    }
}

/// Returns the layer that compresses responses.
pub(super) fn compression() -> CompressionLayer<Compressible> {
    CompressionLayer::new().compress_when(Compressible)
}

/// Completes every response of the page.
pub(super) async fn complete(
    State(page): State<Page>,
    mut request: Request,
    next: Next,
) -> Response {
    let cookies = NewCookies::default();
    request.extensions_mut().insert(cookies.clone());
    let token = token(&page, request.headers());
    let mut response = next.run(request).await;
    let refusal = match response.extensions_mut().remove::<Refusal>() {
        None if is_bare_error(&response) => Some(Refusal::of_status(response.status())),
        refusal => refusal,
    };
    if let Some(refusal) = refusal {
        let token = token.filter(|_| refusal.has_menu());
        let session = match token {
            Some(token) => page.list().session(&token, page.now()).await.ok().flatten(),
            None => None,
        };
        let text = error_page::text(&refusal, &page, session.as_ref().map(Who::new));
        let (mut parts, _) = response.into_parts();
        parts.headers.remove(CONTENT_LENGTH);
        parts.headers.remove(CONTENT_ENCODING);
        parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(HTML));
        response = Response::from_parts(parts, Body::from(text));
    }
    let headers = response.headers_mut();
    for (name, value) in FIELDS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if page.is_secure() {
        let value = HeaderValue::from_static("max-age=31536000; includeSubDomains");
        headers.insert(STRICT_TRANSPORT_SECURITY, value);
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.append(VARY, HeaderValue::from_static("HX-Request-Type"));
    for cookie in cookies.take() {
        headers.append(SET_COOKIE, cookie);
    }
    response
}

/// Returns whether a response is an error without a page, as axum makes them.
fn is_bare_error(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let is_error = response.status().is_client_error() || response.status().is_server_error();
    is_error && kind.is_none_or(|kind| !kind.starts_with(b"text/html"))
}
