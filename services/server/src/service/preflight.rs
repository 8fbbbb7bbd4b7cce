//! CORS preflights at `/auth`: a browser sends them without a key, so they pass without one and cost nothing.

use core::str::FromStr;

use axum::http::{HeaderMap, HeaderName, Method};

/// Where a proxy states the method of the request that it asks about.
///
/// It must be one place that the proxy always sets. A header that clients can set instead would let any request pass.
#[derive(Clone, Debug)]
pub(crate) enum MethodSource {
    /// The method of its own request, as Envoy does.
    RequestLine,
    /// A header.
    Header(HeaderName),
}

impl FromStr for MethodSource {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == ":method" {
            return Ok(Self::RequestLine);
        }
        text.parse().map(Self::Header).map_err(|_| {
            "it must be the name of a header, such as X-Forwarded-Method, or :method for the request's own method"
        })
    }
}

impl MethodSource {
    /// Whether the request that the proxy asks about is a preflight. A header that is sent twice states nothing.
    pub(crate) fn states_options(&self, method: &Method, headers: &HeaderMap) -> bool {
        match self {
            Self::RequestLine => method == Method::OPTIONS,
            Self::Header(name) => {
                let mut values = headers.get_all(name).iter();
                values.next().is_some_and(|value| value == "OPTIONS") && values.next().is_none()
            }
        }
    }
}
