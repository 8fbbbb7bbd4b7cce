//! Moves a whole list to another, empty database.

use core::hash::{Hash as _, Hasher as _};
use std::hash::DefaultHasher;

use futures_util::TryStreamExt as _;
use sqlx::any::AnyRow;
use sqlx::{Row as _, SqlStr};

use crate::database::{Database, DatabaseError, Transaction};
use crate::error::{Error, Result};

/// What a column holds.
#[derive(Clone, Copy, Debug)]
enum Holds {
    Number,
    Text,
    Bytes,
}
use Holds::{Bytes, Number, Text};

/// A table to copy.
#[derive(Debug)]
struct Table {
    name: &'static str,
    read: &'static str,
    write: &'static str,
    columns: &'static [Holds],
}

/// Describes a table. Each column has its name, what it holds, and its number.
macro_rules! table {
    ($name:literal: $first:literal $kind:ident $(, $column:literal $holds:ident $number:literal)*) => {
        Table {
            name: $name,
            read: concat!("select ", $first, $(", ", $column,)* " from ", $name),
            write: concat!(
                "insert into ", $name, " (", $first, $(", ", $column,)* ") values ($1",
                $(", $", $number,)* ")"
            ),
            columns: &[$kind $(, $holds)*],
        }
    };
}

/// The tables, each after those that it refers to. Links, sessions and challenges are not copied:
/// their users sign in again.
const TABLES: &[Table] = &[
    table!("team": "team_id" Number, "name" Text 2, "settings" Text 3, "created_s" Number 4, "archived_s" Number 5),
    table!("\"user\"": "user_id" Number, "name" Text 2, "disabled_s" Number 3),
    table!("member": "team_id" Number, "user_id" Number 2, "role" Text 3, "added_s" Number 4,
        "joined_s" Number 5, "seen_s" Number 6),
    table!("passkey": "credential_id" Bytes, "team_id" Number 2, "user_id" Number 3, "host" Text 4,
        "handle" Bytes 5, "name" Text 6, "data" Text 7, "created_s" Number 8, "used_s" Number 9),
    table!("\"key\"": "key_id" Number, "team_id" Number 2, "env" Text 3, "name" Text 4, "note" Text 5,
        "plan" Text 6, "scopes" Text 7, "state" Text 8, "not_after_s" Number 9,
        "grace_until_s" Number 10, "last_characters" Text 11, "imported" Number 12, "tag" Bytes 13,
        "pepper" Number 14, "previous_tag" Bytes 15, "previous_pepper" Number 16,
        "created_s" Number 17, "created_by" Text 18, "rotated_s" Number 19, "revoked_s" Number 20,
        "revoked_by" Text 21, "revoked_why" Text 22, "shown_s" Number 23, "last_used_s" Number 24,
        "seq" Number 25),
    table!("log": "seq" Number, "at_s" Number 2, "team_id" Number 3, "actor_kind" Text 4, "actor" Text 5,
        "address" Text 6, "action" Text 7, "key_id" Number 8, "detail" Text 9),
    table!("token": "key_id" Number, "team_id" Number 2, "role" Text 3, "name" Text 4,
        "machine" Text 5, "created_s" Number 6, "created_by" Text 7, "revoked_s" Number 8),
    table!("request": "actor" Text, "idempotency_key" Text 2, "key_id" Number 3, "at_s" Number 4, "is_team" Number 5),
    table!("gate": "gate_id" Number, "machine" Text 2, "applied_seq" Number 3, "seen_s" Number 4),
    table!("usage": "width" Text, "key_id" Number 2, "start_s" Number 3, "machine" Text 4,
        "requests" Number 5, "units" Number 6, "denied_key" Number 7, "denied_team" Number 8,
        "denied_groups" Number 9, "forbidden" Number 10, "old_secret" Number 11, "revoked" Number 12,
        "expired" Number 13, "suspended" Number 14),
    table!("sampler": "gate_id" Number, "generation" Number 2, "gate_path" Text 3, "seen" Number 4,
        "holder" Number 5, "until_s" Number 6, "sampled_s" Number 7),
    table!("sampled": "gate_id" Number, "generation" Number 2, "key_id" Number 3, "beyond" Number 4,
        "requests" Number 5, "denied_key" Number 6, "denied_team" Number 7,
        "denied_groups" Number 8, "forbidden" Number 9, "old_secret" Number 10,
        "revoked" Number 11, "expired" Number 12, "suspended" Number 13),
];

/// Moves a list to a database that has none: copies all of it, and marks the list as moved. Returns
/// the number of rows. While it runs, the list cannot change.
///
/// If it is killed before it marks the list, the copy is complete and the list is still used. Then
/// it can be repeated: a database that has exactly this list is not written.
///
/// # Errors
/// If the other database has another list already, if it is the same database, or if one of them
/// cannot be used. Then the list is as it was.
pub async fn copy(from: &Database, to: &Database) -> Result<u64> {
    if from.is(to).await? {
        return Err(Error::Conflict(format!(
            "{to} is the database of this list already; name another one"
        )));
    }
    let mut source = from.write().await?;
    let mut target = to.write().await?;
    let teams = sqlx::query("select count(*) from team").fetch_one(target.connection()).await?;
    let is_empty =
        target.seq() == 0 && teams.try_get::<i64, _>(0).map_err(DatabaseError::from)? == 0;
    let mut rows = 0_u64;
    for table in TABLES {
        let copied = if is_empty {
            copy_table(&mut source, &mut target, table).await?
        } else {
            let (sum, copied) = digest(&mut source, table).await?;
            let is_same =
                source.seq() == target.seq() && (sum, copied) == digest(&mut target, table).await?;
            if !is_same {
                return Err(Error::Conflict(format!(
                    "{to} has another list of keys already; name an empty database"
                )));
            }
            copied
        };
        rows = rows.saturating_add(copied);
    }
    target.raise_seq(source.seq());
    target.commit().await?;
    source.mark_moved(&to.location()).await?;
    source.commit().await?;
    Ok(rows)
}

/// Returns a sum of the hashes of a table's rows, which does not depend on their order, and their
/// number.
async fn digest(transaction: &mut Transaction, table: &Table) -> Result<(u64, u64)> {
    let (mut sum, mut count) = (0_u64, 0_u64);
    let mut rows = sqlx::query(table.read).fetch(transaction.connection());
    while let Some(row) = rows.try_next().await? {
        let mut hasher = DefaultHasher::new();
        for (index, holds) in table.columns.iter().enumerate() {
            match holds {
                Number => value::<i64>(&row, table, index)?.hash(&mut hasher),
                Text => value::<String>(&row, table, index)?.hash(&mut hasher),
                Bytes => value::<Vec<u8>>(&row, table, index)?.hash(&mut hasher),
            }
        }
        sum = sum.wrapping_add(hasher.finish());
        count = count.saturating_add(1);
    }
    Ok((sum, count))
}

async fn copy_table(
    source: &mut Transaction,
    target: &mut Transaction,
    table: &Table,
) -> Result<u64> {
    let mut copied = 0_u64;
    let mut rows = sqlx::query(table.read).fetch(source.connection());
    while let Some(row) = rows.try_next().await? {
        let write = SqlStr::from_static(table.write);
        let mut query = sqlx::query(write);
        for (index, holds) in table.columns.iter().enumerate() {
            query = match holds {
                Number => query.bind(value::<i64>(&row, table, index)?),
                Text => query.bind(value::<String>(&row, table, index)?),
                Bytes => query.bind(value::<Vec<u8>>(&row, table, index)?),
            };
        }
        query.execute(target.connection()).await?;
        copied = copied.saturating_add(1);
    }
    Ok(copied)
}

/// Returns a value of a row.
fn value<T>(row: &AnyRow, table: &Table, index: usize) -> Result<Option<T>>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Any> + sqlx::Type<sqlx::Any>,
{
    row.try_get(index).map_err(|error| {
        Error::Database(DatabaseError::Other(format!("column {index} of {}: {error}", table.name)))
    })
}
