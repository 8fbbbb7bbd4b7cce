//! Opens the list of a data folder.

use alloc::sync::Arc;
use std::path::Path;

use keytally::{Followed, Peppers};

use crate::database::Database;
use crate::error::Result;
use crate::list::List;
use crate::{system, tokens};

/// The name of the database's file in the data folder.
pub const FILE: &str = "keys.db";

/// Opens the list of the gate in a data folder, and creates its database and the gate of its tokens
/// if there are none. `database` is the URL of the database; `None` for a file in the folder.
///
/// # Errors
/// If the database or the gate of the tokens cannot be opened.
pub async fn open(
    folder: &Path,
    database: Option<&str>,
    gate: Arc<Followed>,
    peppers: &Peppers,
) -> Result<List> {
    let url = match database {
        Some(url) => url.to_owned(),
        None => Database::url_of_file(&folder.join(FILE)),
    };
    let admin = Arc::new(tokens::open_gate(folder, peppers)?);
    Ok(List::new(Database::open(&url).await?, gate, admin, system::machine()))
}
