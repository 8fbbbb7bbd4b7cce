//! CORS preflights at `/auth`. A browser sends them without a key, so they are admitted without
//! one, free of charge.

use core::str::FromStr;

use axum::http::{HeaderMap, HeaderName, Method};

/// Where a proxy states the method of the client's request.
///
/// The proxy must set it on every request. If clients can set the header, any request is admitted.
#[derive(Clone, Debug)]
pub(crate) enum MethodSource {
    /// The method of the proxy's own request to `/auth`. Envoy sets it to that of the client's.
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
            "it must be the name of a header, such as X-Forwarded-Method, or :method for the method of the subrequest"
        })
    }
}

impl MethodSource {
    /// Returns whether the method of the client's request is OPTIONS. Every such request counts as
    /// a preflight. A header that is sent twice is ignored.
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
