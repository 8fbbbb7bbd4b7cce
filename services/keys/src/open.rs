//! Opens the list of a data folder.

use alloc::sync::Arc;
use std::path::{Path, PathBuf};

use keytally::{Followed, Gate, Peppers, Timestamp};
use sqlx::Row as _;

use crate::database::{Database, DatabaseError, is_file_path};
use crate::error::{Error, Result};
use crate::list::List;
use crate::organize::{self, Link};
#[cfg(feature = "passkeys")]
use crate::passkeys::{self, RelyingParty};
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

/// Opens the list of a data folder as [`open`] does, and creates nothing.
///
/// # Errors
/// Those of [`open`], and [`DatabaseError::NoList`] if a file does not exist.
pub async fn open_existing(
    folder: &Path,
    database: Option<&str>,
    peppers: &Peppers,
) -> Result<Opened> {
    let file = database
        .and_then(|url| url.strip_prefix("sqlite:"))
        .filter(|path| is_file_path(path) && !path.contains('?'));
    for path in [Some(folder.join(tokens::FILE)), file.map(PathBuf::from)].into_iter().flatten() {
        if !path.exists() {
            return Err(DatabaseError::NoList { path: path.display().to_string() }.into());
        }
    }
    open(folder, database, peppers).await
}

impl Opened {
    /// Makes a one-time link for an operator, before the gate is served. `None` if the list is an
    /// older copy than the gate knows, in which nothing is written.
    ///
    /// # Errors
    /// If the database cannot be used.
    pub async fn link(&self, gate: &Gate, now: Timestamp) -> Result<Option<Link>> {
        let applied = gate.table().applied_sequence();
        match organize::first_link(&self.database, applied, now).await {
            Err(Error::Behind { .. }) => Ok(None),
            link => link.map(Some),
        }
    }

    /// Returns one sentence for each host to which passkeys of the list are bound, and which is not
    /// that of a public URL. Browsers do not use such passkeys there.
    ///
    /// # Errors
    /// If the database cannot be used.
    #[cfg(feature = "passkeys")]
    pub async fn notes_on_passkeys(&self, public_url: &str) -> Result<Vec<String>> {
        let party = RelyingParty::new(public_url);
        let host = party.as_ref().map_or("", RelyingParty::host);
        let note = |(bound, number): (String, i64)| {
            let (have, work) = if number == 1 { ("has", "works") } else { ("have", "work") };
            format!(
                "{number} passkey{} of the page of keys {have} the host {bound} and {work} there \
                 only, and not at {public_url}; until --public-url names {bound} again, links sign \
                 their members in",
                if number == 1 { "" } else { "s" }
            )
        };
        let hosts = passkeys::foreign_hosts(&self.database, host).await?;
        Ok(hosts.into_iter().map(note).collect())
    }

    /// Returns the list of a gate.
    pub fn list(self, gate: Arc<Followed>) -> List {
        List::new(self.database, gate, self.admin, system::machine())
    }
}
