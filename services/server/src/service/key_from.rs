//! The header fields that may carry the key of a request: `--key-from`.

use axum::body::Bytes;
use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderMap, Response};
use keytally::{Outcome, Verdict};
use keytally_tower::{ConfigError, KeySources};

/// The text of a missing key in bodies, and that for a key that need not be in `X-API-Key`.
const MISSING: [&str; 2] = ["Missing X-API-Key header", "Missing API key"];

/// The fields that may carry a key.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyFrom {
    sources: KeySources,
}

impl KeyFrom {
    /// Parses the names of fields. No name means `X-API-Key`.
    pub(crate) fn parse(names: &[String]) -> Result<Self, ConfigError> {
        if names.is_empty() {
            return Ok(Self::default());
        }
        Ok(Self { sources: KeySources::parse(names)? })
    }

    /// Calls `check` with the key of a request. Returns the verdict of a duplicate header instead
    /// if a field is there twice, or if two fields have keys that differ.
    pub(crate) fn check(
        &self,
        headers: &HeaderMap,
        check: impl FnOnce(Option<&[u8]>) -> Verdict,
    ) -> Verdict {
        self.sources.check(headers, check)
    }

    /// Makes the response to a refused request name these fields.
    pub(crate) fn name_in(&self, verdict: &Verdict, response: &mut Response<Bytes>) {
        let Some(challenges) = self.sources.challenges() else { return };
        if response.headers().contains_key(WWW_AUTHENTICATE) {
            response.headers_mut().insert(WWW_AUTHENTICATE, challenges.clone());
        }
        if verdict.outcome() == Outcome::MissingKey
            && let Ok(body) = core::str::from_utf8(response.body())
        {
            *response.body_mut() = Bytes::from(body.replace(MISSING[0], MISSING[1]));
        }
    }
}
