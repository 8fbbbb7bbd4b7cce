//! One-time codes, which sign a user in. The database has only the SHA-256 of a code.

use core::fmt;

use keytally::Timestamp;
use sha2::{Digest as _, Sha256};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};
use zeroize::Zeroizing;

use crate::database::{DatabaseError, Transaction};
use crate::error::{Error, Result};
use crate::roles::Role;
use crate::time;

/// How long a code is valid, in seconds.
pub const CODE_LIFETIME_S: u64 = 600;

/// How long the code of an invitation is valid, in seconds.
pub const INVITATION_LIFETIME_S: u64 = 72 * 3600;

/// A random secret of 256 bits as 64 hex digits: a code, or the token of a session. `Debug` does
/// not show it.
pub struct Code(Zeroizing<String>);

impl Code {
    /// Makes a code from the system's entropy.
    ///
    /// # Errors
    /// If the system provides none.
    pub fn generate() -> Result<Self> {
        Ok(Self(keytally::pepper::generate()?))
    }

    /// Takes a text that a person entered.
    pub fn from_text(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }

    /// Returns the code.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub(crate) fn hash(&self) -> Vec<u8> {
        Sha256::digest(self.0.as_bytes()).to_vec()
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code(…)")
    }
}

/// Whom a code or a session signs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignIn {
    /// The team; `None` for an operator.
    pub team_id: Option<u32>,
    /// The user; `None` for an operator.
    pub user_id: Option<i64>,
    /// The most that the session may do. A user's session does not exceed the user's role in the
    /// team.
    pub role: Role,
}

/// Keeps a new code.
pub(crate) async fn keep(
    transaction: &mut Transaction,
    code: &Code,
    sign_in: &SignIn,
    ends: Timestamp,
) -> Result<()> {
    sqlx::query(
        "insert into code (hash, team_id, user_id, role, ends_s) values ($1, $2, $3, $4, $5)",
    )
    .bind(code.hash())
    .bind(sign_in.team_id.map(i64::from))
    .bind(sign_in.user_id)
    .bind(sign_in.role.as_str())
    .bind(time::stored(ends))
    .execute(transaction.connection())
    .await?;
    Ok(())
}

/// Uses a code up. Returns whom it signs in.
///
/// There is one error for all codes that are not valid: unknown, used and too old.
pub(crate) async fn use_up(
    transaction: &mut Transaction,
    code: &Code,
    now: Timestamp,
) -> Result<SignIn> {
    let row = sqlx::query(
        "update code set used_s = $2 where hash = $1 and used_s is null and ends_s > $2 \
         returning team_id, user_id, role",
    )
    .bind(code.hash())
    .bind(time::stored(now))
    .fetch_optional(transaction.connection())
    .await?;
    let row = row.ok_or_else(|| {
        Error::invalid("code", "it is not valid: used, too old or unknown; get a new link")
    })?;
    let team_id: Option<i64> = row.try_get("team_id")?;
    let role: String = row.try_get("role")?;
    Ok(SignIn {
        team_id: team_id.and_then(|number| u32::try_from(number).ok()),
        user_id: row.try_get("user_id")?,
        role: Role::named(&role).unwrap_or(Role::Viewer),
    })
}

/// A link of a team that is not used yet.
#[derive(Clone, Debug)]
pub(crate) struct OpenLink {
    hash: Vec<u8>,
    /// The name of the user.
    pub(crate) user: String,
    /// What the session will be permitted to do.
    pub(crate) role: Role,
    pub(crate) ends_s: i64,
}

impl OpenLink {
    /// Returns the public name of the link, which is a part of its code's hash.
    pub(crate) fn id(&self) -> String {
        self.hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Returns the lesser of two roles: the most that a session may do, and what the user may.
pub(crate) fn lesser(row: &AnyRow) -> Result<Role, sqlx::Error> {
    let named = |column: &str| -> Result<Role, sqlx::Error> {
        let name: String = row.try_get(column)?;
        Ok(Role::named(&name).unwrap_or(Role::Viewer))
    };
    Ok(named("most")?.min(named("role")?))
}

/// The most links that [`open`] returns.
const MOST_OPEN: i64 = 200;

/// Returns the links of a team that are not used yet, those that end first.
pub(crate) async fn open(
    connection: &mut AnyConnection,
    team_id: u32,
    now: Timestamp,
) -> Result<Vec<OpenLink>, DatabaseError> {
    let rows = sqlx::query(
        "select hash, \"user\".name, code.role as most, member.role, ends_s from code \
         join \"user\" on \"user\".user_id = code.user_id \
         join member on member.team_id = code.team_id and member.user_id = code.user_id \
         where code.team_id = $1 and used_s is null and ends_s > $2 order by ends_s, hash limit $3",
    )
    .bind(i64::from(team_id))
    .bind(time::stored(now))
    .bind(MOST_OPEN)
    .fetch_all(connection)
    .await?;
    let load = |row: &AnyRow| {
        Ok(OpenLink {
            hash: row.try_get("hash")?,
            user: row.try_get("name")?,
            role: lesser(row)?,
            ends_s: row.try_get("ends_s")?,
        })
    };
    Ok(rows.iter().map(load).collect::<Result<_, sqlx::Error>>()?)
}

/// Removes the codes of a user for a team that are not used yet. Returns how many were valid.
pub(crate) async fn withdraw_all(
    transaction: &mut Transaction,
    team_id: u32,
    user_id: i64,
    now: Timestamp,
) -> Result<u64> {
    let removed = sqlx::query(
        "delete from code where team_id = $1 and user_id = $2 and used_s is null and ends_s > $3",
    )
    .bind(i64::from(team_id))
    .bind(user_id)
    .bind(time::stored(now))
    .execute(transaction.connection())
    .await?;
    Ok(removed.rows_affected())
}

/// Removes the code of a link.
pub(crate) async fn withdraw(transaction: &mut Transaction, link: &OpenLink) -> Result<()> {
    sqlx::query("delete from code where hash = $1")
        .bind(link.hash.clone())
        .execute(transaction.connection())
        .await?;
    Ok(())
}
