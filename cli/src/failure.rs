//! The error of a command: one sentence for the user, and an exit status.

use core::error::Error;
use core::fmt;
use std::io;

use keytally::CreateError;

/// The error of a command.
#[derive(Debug)]
pub enum Failure {
    /// The command failed, for the reason in this sentence. Exit status 3.
    Failed(String),
    /// An argument is wrong, whatever the gate holds. Exit status 2.
    Usage(String),
    /// The reader of standard output closed it early, as `head` does. Not an error: exit status 0.
    OutputClosed,
}

impl Failure {
    /// Returns a failure with this sentence.
    pub fn new(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    /// Returns the failure `action: error`. `action` says what failed, such as `cannot read PATH`.
    pub fn with_context(action: impl fmt::Display, error: impl fmt::Display) -> Self {
        Self::Failed(format!("{action}: {error}"))
    }

    /// Returns a usage error with this sentence.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// Returns the sentence for the user.
    pub fn message(&self) -> &str {
        match self {
            Self::Failed(message) | Self::Usage(message) => message,
            Self::OutputClosed => "the reader of standard output closed it",
        }
    }
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let error: &(dyn Error + 'static) = &error;
        match error.downcast_ref::<io::Error>() {
            Some(io) if io.kind() == io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ if is_usage_error(error) => Self::Usage(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// Returns whether creating a gate failed because its configuration can never be valid.
fn is_usage_error(error: &(dyn Error + 'static)) -> bool {
    use CreateError::{Capacity, Described, PlanName, PlanWindows, Plans, Scopes, Teams};

    match error.downcast_ref() {
        Some(keytally::Error::Create { source, .. }) => {
            matches!(source, Plans { .. } | PlanName { .. } | PlanWindows { .. } | Scopes { .. })
                || matches!(source, Capacity { .. } | Teams { .. } | Described { .. })
        }
        _ => false,
    }
}
