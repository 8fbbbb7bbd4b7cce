//! Roles and actors: who may do what, and who did it.

use core::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::{Error, Result};
use crate::text::quoted;

/// What a member, a session or a token may do. Each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Makes and rotates keys of other environments than `live`, unless the team says otherwise.
    Member,
    /// Makes, changes and revokes all keys.
    Admin,
    /// Changes members, tokens and sessions.
    Owner,
    /// Makes teams, and acts for all of them.
    Operator,
}

impl Role {
    /// All roles, from the least to the most.
    pub const ALL: [Self; 5] =
        [Self::Viewer, Self::Member, Self::Admin, Self::Owner, Self::Operator];

    /// Returns the name of the role.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Owner => "owner",
            Self::Operator => "operator",
        }
    }

    /// Returns the role of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }

    /// Parses a role that a member of a team may have: any but operator.
    ///
    /// # Errors
    /// A sentence that names the field.
    pub fn of_team(field: &'static str, name: &str) -> Result<Self> {
        let role = Self::named(name).filter(|&role| role != Self::Operator);
        role.ok_or_else(|| {
            let reason =
                format!("{} is not a role; use viewer, member, admin or owner", quoted(name));
            Error::invalid(field, reason)
        })
    }

    /// Refuses a caller whose role is less than this one.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn require(self, least: Self) -> Result<()> {
        if self >= least {
            return Ok(());
        }
        Err(Error::Forbidden(format!(
            "this needs the role {}, and yours is {}",
            least.as_str(),
            self.as_str()
        )))
    }
}

/// Who makes a change, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    kind: &'static str,
    name: String,
    address: Option<String>,
}

impl Actor {
    /// Returns the actor of commands: the person who has the shell.
    pub fn operator() -> Self {
        Self { kind: "operator", name: "shell".to_owned(), address: None }
    }

    /// Returns the actor that compares the list with the gate.
    pub fn reconcile() -> Self {
        Self { kind: "reconcile", name: String::new(), address: None }
    }

    /// Returns the actor of a request with an admin token.
    pub fn token(key_id: keytally::KeyId, address: Option<String>) -> Self {
        Self { kind: "token", name: key_id.to_string(), address }
    }

    /// Returns the actor of a session of the page: a user, or an operator with a link.
    pub fn person(user_id: Option<i64>, address: Option<String>) -> Self {
        match user_id {
            Some(user_id) => Self { kind: "user", name: user_id.to_string(), address },
            None => Self { kind: "operator", name: "page".to_owned(), address },
        }
    }

    /// Returns the kind: `operator`, `reconcile`, `token` or `user`.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Returns the name: that of a token is its key id, and that of a user is the user's number.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the address that the request came from, if any.
    pub fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            return f.write_str(self.kind);
        }
        write!(f, "{} {}", self.kind, self.name)
    }
}
