//! Other statuses and bodies of refusals: `--refusals`.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Response, StatusCode};
use keytally::redact::redact;
use keytally::{Outcome, Verdict};
use keytally_cli::internal::Failure;
use mime::Mime;
use serde::Deserialize;

/// The largest length of the file, in bytes.
const MAX_FILE_LEN: u64 = 1 << 16;

/// The templates of refusals. An outcome without one has the documented response.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refusals {
    missing_key: Option<Template>,
    invalid_key: Option<Template>,
    denied: Option<Template>,
    too_costly: Option<Template>,
    forbidden: Option<Template>,
    unavailable: Option<Template>,
}

/// What replaces the status, the content type and the body of a refusal.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Template {
    status: Option<u16>,
    content_type: Option<String>,
    /// In it, `{outcome}` stands for the outcome, and `{retry_after}` for the seconds until a retry
    /// can succeed, or nothing if none can.
    body: String,
}

impl Refusals {
    /// Reads the templates from a file of JSON.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let failure = |problem: String| {
            Failure::new(format!("{}, the file of --refusals, {problem}", path.display()))
        };
        let mut text = Vec::new();
        let read = File::open(path)
            .and_then(|file| file.take(MAX_FILE_LEN + 1).read_to_end(&mut text))
            .map_err(|error| {
                Failure::with_context(format_args!("cannot read {}", path.display()), error)
            });
        if u64::try_from(read?).unwrap_or(u64::MAX) > MAX_FILE_LEN {
            return Err(failure(format!("has more than {MAX_FILE_LEN} bytes")));
        }
        // The errors of serde_json repeat parts of the text.
        let refusals: Self = serde_json::from_slice(&text).map_err(|error| {
            failure(format!(
                "is not valid in line {}, column {}; it must be JSON such as {EXAMPLE}",
                error.line(),
                error.column()
            ))
        })?;
        for (name, template) in refusals.templates() {
            template.check().map_err(|problem| failure(format!("has for {name} {problem}")))?;
        }
        Ok(refusals)
    }

    fn templates(&self) -> impl Iterator<Item = (&'static str, &Template)> {
        [
            ("missing_key", &self.missing_key),
            ("invalid_key", &self.invalid_key),
            ("denied", &self.denied),
            ("too_costly", &self.too_costly),
            ("forbidden", &self.forbidden),
            ("unavailable", &self.unavailable),
        ]
        .into_iter()
        .filter_map(|(name, template)| Some((name, template.as_ref()?)))
    }

    /// Replaces the response to a refused request, if its outcome has a template. Header fields
    /// other than `Content-Type` stay.
    pub(crate) fn apply(&self, verdict: &Verdict, response: &mut Response<Bytes>) {
        let template = match verdict.outcome() {
            Outcome::MissingKey => &self.missing_key,
            Outcome::InvalidKey => &self.invalid_key,
            Outcome::Denied => &self.denied,
            Outcome::TooCostly => &self.too_costly,
            Outcome::Forbidden => &self.forbidden,
            Outcome::Unavailable => &self.unavailable,
            _ => &None,
        };
        let Some(template) = template else { return };
        if let Some(status) = template.status.and_then(|status| StatusCode::from_u16(status).ok()) {
            *response.status_mut() = status;
        }
        let content_type = template.content_type.as_deref().unwrap_or(JSON);
        if let Ok(value) = HeaderValue::from_str(content_type) {
            response.headers_mut().insert(CONTENT_TYPE, value);
        }
        let retry_after = verdict.retry_after_s().map_or_else(String::new, |s| s.to_string());
        let body = template.body.replace("{outcome}", verdict.outcome().as_str());
        *response.body_mut() = Bytes::from(body.replace("{retry_after}", &retry_after));
    }
}

/// The content type of a template that has none.
const JSON: &str = "application/json";

/// A file of templates, for errors.
const EXAMPLE: &str = r#"{"denied": {"status": 503, "body": "{\"retry\": {retry_after}}"}}"#;

impl Template {
    fn check(&self) -> Result<(), String> {
        if let Some(status) = self.status.filter(|status| !(400..=599).contains(status)) {
            return Err(format!("the status {status}, which is not from 400 to 599"));
        }
        let content_type = self.content_type.as_deref().unwrap_or(JSON);
        if content_type.parse::<Mime>().is_err() || HeaderValue::from_str(content_type).is_err() {
            let shown = redact(content_type);
            return Err(format!("the content_type {shown:?}, which is not one such as text/html"));
        }
        Ok(())
    }
}
