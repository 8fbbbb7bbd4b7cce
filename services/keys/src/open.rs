//! Opens the list of a data folder.

use alloc::sync::Arc;
use std::path::Path;

use keytally::{Followed, Peppers, Timestamp};
use sqlx::Row as _;

use crate::database::Database;
use crate::error::Result;
use crate::list::List;
use crate::organize::{self, Link};
use crate::{system, tokens};

/// The name of the database's file in the data folder.
pub const FILE: &str = "keys.db";

/// The files of a list, which are open.
#[derive(Debug)]
pub struct Opened {
    database: Database,
    admin: Arc<Followed>,
}

impl List {
    /// Records where people see the service of this gate, for links that commands make: a URL with
    /// the path before `/keys`.
    ///
    /// # Errors
    /// If the database cannot be used.
    pub async fn record_url(&self, url: String) -> Result<()> {
        if self.recorded_url().await?.as_ref() == Some(&url) {
            return Ok(());
        }
        let gate_id = self.gate().load().table().id().cast_signed();
        self.transact(async move |transaction| {
            sqlx::query(
                "insert into service (gate_id, public_url) values ($1, $2) \
                 on conflict (gate_id) do update set public_url = excluded.public_url",
            )
            .bind(gate_id)
            .bind(url)
            .execute(transaction.connection())
            .await?;
            Ok(())
        })
        .await
    }

    /// Returns where people see the service of this gate; `None` if no service has recorded it.
    ///
    /// # Errors
    /// If the database cannot be used.
    pub async fn recorded_url(&self) -> Result<Option<String>> {
        let gate_id = self.gate().load().table().id().cast_signed();
        let row = sqlx::query("select public_url from service where gate_id = $1")
            .bind(gate_id)
            .fetch_optional(&mut *self.read().await?)
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }
}

/// Opens the database and the gate of the tokens of the gate in a data folder, and creates them if
/// there are none. `database` is the URL of the database; `None` for a file in the folder.
///
/// # Errors
/// If the database or the gate of the tokens cannot be opened.
pub async fn open(folder: &Path, database: Option<&str>, peppers: &Peppers) -> Result<Opened> {
    let url = match database {
        Some(url) => url.to_owned(),
        None => Database::url_of_file(&folder.join(FILE)),
    };
    let database = Database::open(&url).await?;
    Ok(Opened { database, admin: Arc::new(tokens::open_gate(folder, peppers)?) })
}

impl Opened {
    /// Makes a one-time link for an operator, before the gate is served.
    ///
    /// # Errors
    /// If the database cannot be used.
    pub async fn link(&self, now: Timestamp) -> Result<Link> {
        organize::first_link(&self.database, now).await
    }

    /// Returns the list of a gate.
    pub fn list(self, gate: Arc<Followed>) -> List {
        List::new(self.database, gate, self.admin, system::machine())
    }
}
