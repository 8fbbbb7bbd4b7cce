//! Why an agent does not start, or has no store.

use core::fmt;

/// An error of the configuration or of the store. No text contains a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FleetError {
    /// The configuration or the store is unsuitable, and trying again does not help. The sentence
    /// says what would be right.
    Refused(String),
    /// The store cannot be reached, or does not answer. Trying again may help.
    Lost(String),
}

impl fmt::Display for FleetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(sentence) | Self::Lost(sentence) => f.write_str(sentence),
        }
    }
}

impl core::error::Error for FleetError {}

impl FleetError {
    pub(crate) fn refused(sentence: impl Into<String>) -> Self {
        Self::Refused(sentence.into())
    }

    pub(crate) fn lost(sentence: impl Into<String>) -> Self {
        Self::Lost(sentence.into())
    }
}
