//! Why a command failed: one sentence for the user, and which exit status follows.

use core::error::Error;
use core::fmt;
use std::io;

use keytally::CreateError;

/// A command that couldn't do what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// The sentence that says why.
    Because(String),
    /// The sentence that says which argument is wrong, whatever the gate holds.
    Usage(String),
    /// Whoever read the output has gone, as `head` does: nothing is left to say, and to nobody.
    OutputClosed,
}

impl Failure {
    /// The failure of doing `what`, such as `cannot read PATH`.
    pub fn of(what: impl fmt::Display, error: impl fmt::Display) -> Self {
        Self::Because(format!("{what}: {error}"))
    }

    /// The failure that `sentence` tells.
    pub fn because(sentence: impl Into<String>) -> Self {
        Self::Because(sentence.into())
    }

    /// The wrong argument that `sentence` tells.
    pub fn usage(sentence: impl Into<String>) -> Self {
        Self::Usage(sentence.into())
    }

    /// The sentence.
    pub fn sentence(&self) -> &str {
        match self {
            Self::Because(sentence) | Self::Usage(sentence) => sentence,
            Self::OutputClosed => "the reader of the output has gone",
        }
    }
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let error: &(dyn Error + 'static) = &error;
        match error.downcast_ref::<io::Error>() {
            Some(io) if io.kind() == io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ if is_impossible(error) => Self::Usage(error.to_string()),
            _ => Self::Because(error.to_string()),
        }
    }
}

/// Whether a gate was asked for that there can be nowhere: the arguments alone are wrong.
fn is_impossible(error: &(dyn Error + 'static)) -> bool {
    use CreateError::{Capacity, PlanName, PlanWindows, Plans};

    match error.downcast_ref() {
        Some(keytally::Error::Create { source, .. }) => {
            matches!(source, Capacity { .. } | Plans { .. } | PlanName | PlanWindows)
        }
        _ => false,
    }
}
