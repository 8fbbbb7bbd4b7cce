//! The database: SQLite in a file, or PostgreSQL. The same queries run on both.
//!
//! Every transaction that writes begins with `Database::write`, which locks the row of `head`. So
//! changes have an order, and each has a number.

use core::fmt;
use core::str::FromStr as _;
use core::time::Duration;
use std::io;
use std::path::Path;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::{
    Any, AnyConnection, AnyPool, ConnectOptions as _, Connection as _, Executor as _, Row as _,
    SqlSafeStr as _,
};
use tokio::time::{sleep, timeout};

/// The longest time that a transaction may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);

/// The longest time that a revocation waits for the database before it is made in the gate alone.
pub(crate) const REVOKE_LIMIT: Duration = Duration::from_secs(2);

/// A database with a list of keys.
#[derive(Clone, Debug)]
pub struct Database {
    pool: AnyPool,
    kind: Kind,
    /// The URL without a password.
    shown: String,
}

/// A kind of database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Sqlite,
    Postgres,
}

/// The number of connections of a process.
const CONNECTIONS: u32 = 8;

impl Database {
    /// Returns the URL of a SQLite database in a file.
    pub fn url_of_file(path: &Path) -> String {
        format!("sqlite:{}", path.display())
    }

    /// Opens the database of a URL, `sqlite:PATH` or `postgres://…`, and creates the tables that it
    /// does not have. A SQLite file that does not exist is created, for its owner alone.
    ///
    /// # Errors
    /// A sentence that names the database without its password.
    pub async fn open(url: &str) -> Result<Self, DatabaseError> {
        sqlx::any::install_default_drivers();
        let (kind, shown, full) = match url.split_once(':') {
            Some(("sqlite", path)) if is_file_path(path) => {
                create_file(Path::new(path))
                    .map_err(|error| DatabaseError::File { path: path.to_owned(), error })?;
                let encoded = path.replace('%', "%25").replace('?', "%3F").replace('#', "%23");
                (Kind::Sqlite, url.to_owned(), format!("sqlite:{encoded}?mode=rw"))
            }
            Some(("postgres" | "postgresql", _)) => {
                (Kind::Postgres, without_password(url)?, url.to_owned())
            }
            _ => return Err(DatabaseError::Url),
        };
        let options = AnyConnectOptions::from_str(&full)
            .map_err(|_| DatabaseError::Url)?
            .disable_statement_logging();
        let mut attempts = 0;
        loop {
            match connect(options.clone(), kind).await {
                Ok(pool) => return Ok(Self { pool, kind, shown }),
                // Another process creates the tables, or changes to the write-ahead log.
                Err(error) if kind == Kind::Sqlite && error.is_of_race() && attempts < ATTEMPTS => {
                    attempts += 1;
                    sleep(DELAY).await;
                }
                Err(source) => {
                    return Err(DatabaseError::Open { database: shown, source: Box::new(source) });
                }
            }
        }
    }

    /// Returns whether searches use the table of the parts of names. In PostgreSQL, they use an
    /// index if there is one.
    pub(crate) fn has_parts_of_names(&self) -> bool {
        self.kind == Kind::Sqlite
    }

    /// Returns a connection for reading.
    pub(crate) async fn read(&self) -> Result<PoolConnection<Any>, DatabaseError> {
        Ok(self.pool.acquire().await?)
    }

    /// Begins a transaction that writes, and locks the row of `head`.
    pub(crate) async fn write(&self) -> Result<Transaction, DatabaseError> {
        let begin = match self.kind {
            // A transaction that begins as a reader fails when it writes while another one writes.
            Kind::Sqlite => "begin immediate",
            Kind::Postgres => "begin",
        };
        let mut inner = self.pool.begin_with(begin).await?;
        let head = sqlx::query("update head set seq = seq where one = 1 returning seq")
            .fetch_one(&mut *inner)
            .await?;
        let seq = head.try_get(0)?;
        Ok(Transaction { inner, seq })
    }

    /// Returns the number of the last change.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn head(&self) -> Result<u64, DatabaseError> {
        let mut connection = self.read().await?;
        let head = sqlx::query("select seq from head where one = 1").fetch_one(&mut *connection);
        Ok(sequence(head.await?.try_get(0)?))
    }

    /// Lets a SQLite database take no more pages, as if its disk were full, or again all that it
    /// needs. For tests.
    ///
    /// # Errors
    /// If the database cannot be used.
    #[cfg(feature = "__stop-points")]
    #[doc(hidden)]
    pub async fn set_full(&self, is_full: bool) -> Result<(), DatabaseError> {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut connection = self.pool.acquire().await?;
            connection
                .execute(match is_full {
                    // SQLite raises this to the present number of pages.
                    true => "pragma max_page_count = 1",
                    false => "pragma max_page_count = 4294967294",
                })
                .await?;
            connections.push(connection);
        }
        Ok(())
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// A transaction that writes. If it is dropped before [`commit`](Self::commit), nothing changes.
pub(crate) struct Transaction {
    inner: sqlx::Transaction<'static, Any>,
    /// The number of the last change, those of this transaction included.
    seq: i64,
}

impl Transaction {
    /// Returns the connection.
    pub(crate) fn connection(&mut self) -> &mut AnyConnection {
        &mut self.inner
    }

    /// Returns the number of the next change.
    pub(crate) fn next_seq(&mut self) -> i64 {
        self.seq = self.seq.saturating_add(1);
        self.seq
    }

    /// Returns the number of the last change.
    pub(crate) fn seq(&self) -> u64 {
        sequence(self.seq)
    }

    /// Raises the number of the last change to at least this number.
    pub(crate) fn raise_seq(&mut self, seq: u64) {
        self.seq = self.seq.max(i64::try_from(seq).unwrap_or(i64::MAX));
    }

    /// Commits.
    pub(crate) async fn commit(mut self) -> Result<(), DatabaseError> {
        sqlx::query("update head set seq = $1 where one = 1")
            .bind(self.seq)
            .execute(&mut *self.inner)
            .await?;
        Ok(self.inner.commit().await?)
    }
}

/// Returns a number of a change as the gate keeps it.
fn sequence(seq: i64) -> u64 {
    u64::try_from(seq).unwrap_or(0)
}

/// How often opening a database is repeated while another process opens it too.
const ATTEMPTS: u32 = 100;

/// The delay between two attempts to open a database.
const DELAY: Duration = Duration::from_millis(50);

/// Connects, and creates the tables that the database does not have.
async fn connect(options: AnyConnectOptions, kind: Kind) -> Result<AnyPool, DatabaseError> {
    // A pool repeats a failed connection until its timeout, and does not say why it failed.
    let mut connection =
        timeout(LIMIT, options.connect()).await.map_err(|_| DatabaseError::Late)??;
    prepare(&mut connection, kind).await?;
    connection.close().await?;
    let pool = AnyPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(LIMIT)
        .after_connect(move |connection, _| {
            Box::pin(async move { prepare(connection, kind).await })
        })
        // SQLite ends a transaction by itself if the disk is full. The rollback then fails, and the
        // connection can begin no other transaction.
        .before_acquire(|connection, _| {
            Box::pin(async move { Ok(!connection.is_in_transaction()) })
        })
        .connect_with(options)
        .await?;
    let tables = match kind {
        Kind::Sqlite => include_str!("../migrations/sqlite/1_keys.sql"),
        Kind::Postgres => include_str!("../migrations/postgres/1_keys.sql"),
    };
    let first =
        Migration::new(1, "keys".into(), MigrationType::Simple, tables.into_sql_str(), false);
    let migrated = Migrator::with_migrations(vec![first]).run(&pool).await;
    if let Err(error) = migrated {
        pool.close().await;
        return Err(match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                match error.into() {
                    DatabaseError::Other(sentence) => DatabaseError::Tables(sentence),
                    DatabaseError::Taken => DatabaseError::Tables("a row is there".to_owned()),
                    error => error,
                }
            }
            error => DatabaseError::Other(one_line(&error.to_string())),
        });
    }
    Ok(pool)
}

/// Sets what a connection needs.
async fn prepare(connection: &mut AnyConnection, kind: Kind) -> Result<(), sqlx::Error> {
    if kind == Kind::Sqlite {
        for pragma in [
            // Less than the limit of a transaction, so that an error names the lock.
            "pragma busy_timeout = 4000",
            "pragma journal_mode = wal",
            "pragma synchronous = full",
            "pragma foreign_keys = on",
        ] {
            connection.execute(pragma).await?;
        }
    } else {
        // A plan for all searches would use no index of names.
        connection.execute("set plan_cache_mode = force_custom_plan").await?;
    }
    Ok(())
}

/// Returns whether the rest of a SQLite URL is a path, without options.
fn is_file_path(path: &str) -> bool {
    !path.is_empty() && !path.starts_with("//") && path != ":memory:"
}

/// Creates the file of a database, for its owner alone, unless it exists. SQLite gives its other
/// files the same permissions.
fn create_file(path: &Path) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Returns a URL of PostgreSQL with its password replaced.
fn without_password(url: &str) -> Result<String, DatabaseError> {
    let (scheme, rest) = url.split_once("://").ok_or(DatabaseError::Url)?;
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let authority = match authority.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((user, _)) => format!("{user}:…@{host}"),
            None => authority.to_owned(),
        },
        None => authority.to_owned(),
    };
    Ok(format!("{scheme}://{authority}{path}"))
}

/// Why a database could not be used. No error shows a URL's password.
#[derive(Debug)]
#[non_exhaustive]
pub enum DatabaseError {
    /// The URL names no database that this program knows.
    Url,
    /// The file of a SQLite database could not be created.
    File {
        /// The file.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// The database could not be opened.
    Open {
        /// The URL without a password.
        database: String,
        /// Why.
        source: Box<Self>,
    },
    /// Another process has locked the database for too long.
    Locked,
    /// The disk of the database is full.
    Full,
    /// The database did not answer in time. Whether the change was committed is not known.
    Late,
    /// The tables could not be created.
    Tables(String),
    /// A row with the same value is there already.
    Taken,
    /// Another error of the database or of the connection to it.
    Other(String),
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url => f.write_str(
                "the URL of the database is not valid; write sqlite: and the path of a file, or postgres://USER@HOST/NAME",
            ),
            Self::File { path, error } => write!(f, "cannot create the database {path}: {error}"),
            Self::Open { database, source } => {
                write!(f, "cannot open the database {database}: {source}")
            }
            Self::Locked => f.write_str(
                "another process has locked the database; end it, or try again",
            ),
            Self::Full => {
                f.write_str("the disk of the database is full; free some space and try again")
            }
            Self::Late => f.write_str("the database does not answer; try again when it does"),
            Self::Tables(sentence) => write!(f, "cannot create its tables: {sentence}"),
            Self::Taken => f.write_str("the database has a row with this value already"),
            Self::Other(sentence) => write!(f, "the database reports: {sentence}"),
        }
    }
}

impl DatabaseError {
    /// Returns whether another process that opens the database may be the reason.
    fn is_of_race(&self) -> bool {
        matches!(self, Self::Locked | Self::Tables(_))
    }
}

impl core::error::Error for DatabaseError {}

impl From<sqlx::Error> for DatabaseError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => return Self::Late,
            sqlx::Error::Database(error) if error.is_unique_violation() => return Self::Taken,
            _ => {}
        }
        let code = error.as_database_error().and_then(|error| error.code().map(String::from));
        // The code of SQLite is in the lower byte of its extended code.
        let primary =
            code.as_deref().and_then(|code| code.parse::<u32>().ok()).map(|code| code & 255);
        match (primary, code.as_deref()) {
            (_, Some("53100")) => Self::Full,
            (Some(5 | 6), Some(code)) if code.len() < 5 => Self::Locked,
            (Some(13), Some(code)) if code.len() < 5 => Self::Full,
            // One line: an error of a database may have several.
            _ => Self::Other(one_line(&error.to_string())),
        }
    }
}

/// Returns a text as one line.
fn one_line(text: &str) -> String {
    text.split(char::is_control).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_of_a_url_is_not_shown() {
        for (url, shown) in [
            ("postgres://u:p%40w@host:1/name?x=1", "postgres://u:…@host:1/name"),
            ("postgres://u:a@b@host/name", "postgres://u:…@host/name"),
            ("postgres://u@host/name", "postgres://u@host/name"),
            ("postgresql://host/name?password=secret", "postgresql://host/name"),
        ] {
            assert_eq!(without_password(url).unwrap(), shown);
        }
    }

    #[test]
    fn only_a_file_is_a_database_of_sqlite() {
        assert!(is_file_path("keytally-data/keys.db") && is_file_path("/srv/keys.db"));
        for path in ["", ":memory:", "//keys.db"] {
            assert!(!is_file_path(path), "{path}");
        }
    }
}
