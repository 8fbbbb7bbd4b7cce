//! Why a request to the list of keys failed.

use core::fmt;

use keytally::{AdminError, KeyId};
use keytally_cli::internal::times;

use crate::database::DatabaseError;

/// Why a request to the list of keys failed. Each is one sentence, without a secret.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A value of the request is not possible.
    Invalid {
        /// The name of the value, as the request names it.
        field: &'static str,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// The list has nothing of that name for this caller.
    NotFound {
        /// What was looked for.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The list cannot be changed so now.
    Conflict(String),
    /// A request with the same `Idempotency-Key` was answered before.
    Repeated {
        /// The key that the first request made or changed.
        key_id: KeyId,
    },
    /// The caller's role does not permit it.
    Forbidden(String),
    /// A request with the same `Idempotency-Key` was answered before, and what it made is known.
    RepeatedFor(Made),
    /// The gate refused the change, or could not be used.
    Gate(keytally::Error),
    /// The database could not be used.
    Database(DatabaseError),
    /// A token is revoked, and the database could not be used to record that.
    Unlisted {
        /// The public name of the token.
        token: KeyId,
        /// Why the database could not be used.
        source: DatabaseError,
    },
    /// The database is older than the gate: an old copy of it was restored.
    Behind {
        /// The number of the last change in the database.
        head: u64,
        /// The number of the last change in the gate.
        applied: u64,
    },
}

/// What a request made or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// A key.
    Key(KeyId),
    /// An admin token.
    Token(KeyId),
    /// A team.
    Team(u32),
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key_id) => write!(f, "key {key_id}; its secret cannot be shown again"),
            Self::Token(key_id) => write!(f, "token {key_id}; its secret cannot be shown again"),
            Self::Team(team) => write!(f, "team {team}"),
        }
    }
}

/// The result of a request to the list of keys.
pub type Result<T, E = Error> = core::result::Result<T, E>;

impl Error {
    /// Returns the error of a value that is not possible.
    pub fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid { field, reason: reason.into() }
    }

    /// Returns the error of something that the caller's team does not have.
    pub fn not_found(what: &'static str, name: impl fmt::Display) -> Self {
        Self::NotFound { what, name: name.to_string() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { field, reason } => write!(f, "{field}: {reason}"),
            Self::NotFound { what, name } => write!(f, "there is no {what} {name}"),
            Self::Conflict(sentence) | Self::Forbidden(sentence) => f.write_str(sentence),
            Self::Repeated { key_id } => Self::RepeatedFor(Made::Key(*key_id)).fmt(f),
            Self::RepeatedFor(made) => {
                write!(f, "a request with this Idempotency-Key was answered before, for {made}")
            }
            Self::Gate(keytally::Error::Admin {
                source: AdminError::InGrace { key_id, until },
                ..
            }) => write!(
                f,
                "the secret that key {key_id} had before its last rotation is valid until {}, and another rotation would end it at once; wait, or force the rotation",
                times::rfc3339(until.unix_s())
            ),
            Self::Gate(error) => error.fmt(f),
            Self::Database(error) => error.fmt(f),
            Self::Unlisted { token, source } => write!(
                f,
                "the token {token} is revoked, but the list does not have that yet: {source}"
            ),
            Self::Behind { head, applied } => write!(
                f,
                "the database is at change {head}, and the gate has applied change {applied}: an old copy of the database was restored; run keytally keys reconcile"
            ),
        }
    }
}

impl core::error::Error for Error {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Gate(error) => Some(error),
            Self::Database(error) | Self::Unlisted { source: error, .. } => Some(error),
            _ => None,
        }
    }
}

impl From<DatabaseError> for Error {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error)
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl From<keytally::Error> for Error {
    fn from(error: keytally::Error) -> Self {
        Self::Gate(error)
    }
}

impl From<AdminError> for Error {
    fn from(source: AdminError) -> Self {
        Self::Gate(keytally::Error::Admin { path: None, source })
    }
}
