//! What a browser sends to the page in the process, and the answers.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use keytally_keys::api::ClientAddress;
use tower::ServiceExt as _;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn shows(self, part: &str) -> Self {
        assert!(self.text.contains(part), "{part:?} is not in {}", self.text);
        self
    }

    #[track_caller]
    pub(crate) fn hides(self, part: &str) -> Self {
        assert!(!self.text.contains(part), "{part:?} is in {}", self.text);
        self
    }
}

/// Encodes a form.
pub(crate) fn encoded(fields: &[(&str, &str)]) -> String {
    let escape =
        |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02X}")).collect() };
    let pairs = fields.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// Sends a request with cookies from an address, and keeps the cookies of the answer.
pub(crate) async fn exchange(
    routes: &Router,
    cookie: &mut String,
    address: &str,
    mut request: Request<Body>,
) -> Answer {
    if !cookie.is_empty() {
        request.headers_mut().insert("cookie", cookie.parse().unwrap());
    }
    request.extensions_mut().insert(ClientAddress(address.to_owned()));
    let response = routes.clone().oneshot(request).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    for set in headers.get_all("set-cookie") {
        let pair = set.to_str().unwrap().split(';').next().unwrap();
        let (name, value) = pair.split_once('=').unwrap();
        let is_other = |pair: &&str| pair.split_once('=').is_some_and(|(its, _)| its != name);
        let mut pairs: Vec<_> = cookie.split("; ").filter(is_other).collect();
        pairs.extend((!value.is_empty()).then_some(pair));
        *cookie = pairs.join("; ");
    }
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Answer { status, headers, text: String::from_utf8_lossy(&body).into_owned() }
}
