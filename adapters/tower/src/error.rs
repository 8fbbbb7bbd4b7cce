//! The errors of a layer's configuration.

use core::error::Error;
use core::fmt;

use keytally::RequestError;
use keytally::redact::redact;

/// The configuration of a layer is not valid. The text names the value and what would be valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl ConfigError {
    /// Returns the error that `value` is not valid, and why. A value that looks like a secret is
    /// not repeated.
    pub(crate) fn new(value: &str, problem: &str) -> Self {
        Self(format!("\"{}\" {problem}", redact(value)))
    }

    /// Returns the error that the gate lacks a group or a scope.
    pub(crate) fn from_request(error: &RequestError) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for ConfigError {}
