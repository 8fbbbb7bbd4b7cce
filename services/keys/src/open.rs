//! Opens the list of a data folder.

use alloc::sync::Arc;
use std::path::Path;

use keytally::{Followed, Gate, Peppers, Timestamp};

use crate::database::{Database, DatabaseError};
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
    admin: Arc<Gate>,
}

/// Opens the database and the gate of the tokens of the gate in a data folder, and creates them if
/// there are none. `database` is the URL of the database; `None` for a file in the folder. If the
/// folder has a gate of tokens and no such file, the file was removed, and none is created.
///
/// # Errors
/// If the database or the gate of the tokens cannot be opened.
pub async fn open(folder: &Path, database: Option<&str>, peppers: &Peppers) -> Result<Opened> {
    let url = match database {
        Some(url) => url.to_owned(),
        None => {
            let path = folder.join(FILE);
            // The database is created before the gate of the tokens.
            if folder.join(tokens::FILE).exists() && !path.exists() {
                return Err(DatabaseError::Missing { path: path.display().to_string() }.into());
            }
            Database::url_of_file(&path)
        }
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
