//! The database: SQLite in a file, or PostgreSQL. The same queries run on both.
//!
//! Every transaction that writes begins with `Database::write`, which locks the row of `head`. So
//! changes have an order, and each has a number.

use alloc::sync::Arc;
use core::fmt;
use core::str::FromStr as _;
use core::time::Duration;
use std::io;
use std::path::{self, Path};

use sqlx::any::{AnyConnectOptions, AnyPoolOptions, AnyRow};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::{
    Any, AnyConnection, AnyPool, ConnectOptions as _, Connection as _, Executor as _, Row as _,
    SqlSafeStr as _,
};
use tokio::time::{sleep, timeout};

use crate::file::{DatabaseFile, create_new};

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
    /// The file of a SQLite database.
    file: Option<Arc<DatabaseFile>>,
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
        let (kind, shown, full, file) = match url.split_once(':') {
            Some(("sqlite", path)) if path.contains('?') => return Err(DatabaseError::Options),
            Some(("sqlite", path)) if is_file_path(path) => {
                let file = DatabaseFile::create(Path::new(path))
                    .map_err(|error| DatabaseError::File { path: path.to_owned(), error })?;
                if file.has_foreign_log() {
                    return Err(DatabaseError::ForeignLog { path: path.to_owned() });
                }
                let encoded = path.replace('%', "%25").replace('#', "%23");
                let full = format!("sqlite:{encoded}?mode=rw");
                (Kind::Sqlite, url.to_owned(), full, Some(Arc::new(file)))
            }
            Some(("postgres" | "postgresql", _)) => {
                (Kind::Postgres, without_password(url)?, url.to_owned(), None)
            }
            _ => return Err(DatabaseError::Url),
        };
        let options = AnyConnectOptions::from_str(&full)
            .map_err(|_| DatabaseError::Url)?
            .disable_statement_logging();
        let mut attempts = 0;
        loop {
            match connect(options.clone(), kind, file.clone()).await {
                Ok(pool) => {
                    let database = Self { pool, kind, shown, file };
                    // A list that was moved is not opened.
                    if let Err(error) = database.head().await {
                        database.close().await;
                        return Err(error);
                    }
                    return Ok(database);
                }
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
        self.check_file()?;
        Ok(self.pool.acquire().await?)
    }

    /// Begins a transaction that writes, and locks the row of `head`.
    pub(crate) async fn write(&self) -> Result<Transaction, DatabaseError> {
        let begin = match self.kind {
            // A transaction that begins as a reader fails when it writes while another one writes.
            Kind::Sqlite => "begin immediate",
            Kind::Postgres => "begin",
        };
        self.check_file()?;
        let mut inner = self.pool.begin_with(begin).await?;
        let head = sqlx::query("update head set seq = seq where one = 1 returning seq, moved_to")
            .fetch_one(&mut *inner)
            .await?;
        let seq = present_seq(&head)?;
        Ok(Transaction { inner, seq, file: self.file.clone() })
    }

    /// Refuses to continue if the file of a SQLite database was removed or replaced. The
    /// connections then use a file that no other process finds.
    fn check_file(&self) -> Result<(), DatabaseError> {
        check(self.file.as_deref())
    }

    /// Returns the number of the last change.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn head(&self) -> Result<u64, DatabaseError> {
        let mut connection = self.read().await?;
        let head = sqlx::query("select seq, moved_to from head where one = 1");
        Ok(sequence(present_seq(&head.fetch_one(&mut *connection).await?)?))
    }

    /// Returns the URL without a password, which names the database from any folder.
    pub(crate) fn location(&self) -> String {
        match &self.file {
            Some(file) => {
                let path = path::absolute(file.shown()).map(|path| path.display().to_string());
                format!("sqlite:{}", path.unwrap_or_else(|_| file.shown()))
            }
            None => self.shown.replace(":…@", "@"),
        }
    }

    /// Returns whether both are the same database.
    pub(crate) async fn is(&self, other: &Self) -> Result<bool, DatabaseError> {
        match (&self.file, &other.file) {
            (Some(file), Some(other)) => Ok(file.is(other)),
            (None, None) => Ok(self.name_of_server().await? == other.name_of_server().await?),
            _ => Ok(false),
        }
    }

    /// Returns what distinguishes the database of PostgreSQL from those of all servers.
    async fn name_of_server(&self) -> Result<String, DatabaseError> {
        let row = sqlx::query(
            "select system_identifier::text || '/' || current_database()::text || '/' || \
             coalesce(current_schema()::text, '') from pg_control_system()",
        );
        Ok(row.fetch_one(&mut *self.read().await?).await?.try_get(0)?)
    }

    /// Writes a copy of a SQLite database to a new file, for its owner alone. The list can be used
    /// and changed meanwhile.
    ///
    /// # Errors
    /// If the file exists or cannot be written, or if the database is not in a file. Then there is
    /// no new file.
    pub async fn back_up(&self, path: &Path) -> Result<(), DatabaseError> {
        if self.kind != Kind::Sqlite {
            return Err(DatabaseError::NoFile);
        }
        let failed = |error| DatabaseError::Copy { path: path.display().to_string(), error };
        let mut connection = self.read().await?;
        let file = create_new(path).map_err(failed)?;
        let copy = async {
            // SQLite reads some relative paths as URLs.
            let absolute = path::absolute(path).map_err(failed)?;
            let text = absolute.to_str().map(str::to_owned);
            let text = text.ok_or_else(|| failed(io::ErrorKind::InvalidFilename.into()))?;
            sqlx::query("vacuum into $1").bind(text).execute(&mut *connection).await?;
            file.sync_all().map_err(failed)
        };
        let copied = copy.await;
        if copied.is_err() {
            let _ = std::fs::remove_file(path);
        }
        copied
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
    file: Option<Arc<DatabaseFile>>,
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

    /// Marks the list as moved to another database. From then on, this one is refused.
    pub(crate) async fn mark_moved(&mut self, location: &str) -> Result<(), DatabaseError> {
        sqlx::query("update head set moved_to = $1 where one = 1")
            .bind(location.to_owned())
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Commits.
    ///
    /// # Errors
    /// If the file of the database was removed or replaced meanwhile, the change may be lost.
    pub(crate) async fn commit(mut self) -> Result<(), DatabaseError> {
        sqlx::query("update head set seq = $1 where one = 1")
            .bind(self.seq)
            .execute(&mut *self.inner)
            .await?;
        self.inner.commit().await?;
        check(self.file.as_deref())
    }
}

/// Refuses a file of a database that is no longer at its path.
fn check(file: Option<&DatabaseFile>) -> Result<(), DatabaseError> {
    match file.filter(|file| !file.is_in_place()) {
        Some(file) => Err(DatabaseError::Replaced { path: file.shown() }),
        None => Ok(()),
    }
}

/// Returns the number of the last change in a row of `head`.
///
/// # Errors
/// If the list was moved to another database.
fn present_seq(head: &AnyRow) -> Result<i64, DatabaseError> {
    match head.try_get("moved_to")? {
        Some(to) => Err(DatabaseError::Moved { to }),
        None => Ok(head.try_get("seq")?),
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
async fn connect(
    options: AnyConnectOptions,
    kind: Kind,
    file: Option<Arc<DatabaseFile>>,
) -> Result<AnyPool, DatabaseError> {
    // A pool repeats a failed connection until its timeout, and does not say why it failed.
    let mut connection =
        timeout(LIMIT, options.connect()).await.map_err(|_| DatabaseError::Late)??;
    prepare(&mut connection, kind).await?;
    connection.close().await?;
    let pool = AnyPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(LIMIT)
        .after_connect(move |connection, _| {
            let file = file.clone();
            Box::pin(async move {
                if file.as_ref().is_some_and(|file| !file.is_in_place()) {
                    return Err(io::Error::from(io::ErrorKind::NotFound).into());
                }
                prepare(connection, kind).await?;
                if let Some(file) = &file {
                    // The first query opens the write-ahead log.
                    connection.execute("select count(*) from sqlite_schema").await?;
                    file.note_log();
                }
                Ok(())
            })
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
pub(crate) fn is_file_path(path: &str) -> bool {
    !path.is_empty() && !path.starts_with("//") && path != ":memory:"
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
    /// The URL of a SQLite database has options.
    Options,
    /// The data folder had a list, and has no database.
    Missing {
        /// The file of the database.
        path: String,
    },
    /// A file of the list does not exist, and is not to be created.
    NoList {
        /// The file.
        path: String,
    },
    /// The file of a SQLite database was removed or replaced while it was open.
    Replaced {
        /// The file.
        path: String,
    },
    /// The write-ahead log next to a SQLite database is that of a file that it replaced.
    ForeignLog {
        /// The file of the database.
        path: String,
    },
    /// The list was moved to another database.
    Moved {
        /// The URL of that database, without a password.
        to: String,
    },
    /// The database is not in a file.
    NoFile,
    /// A copy of the database could not be written.
    Copy {
        /// The file of the copy.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// The database cannot be written.
    ReadOnly,
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
            Self::Options => f.write_str(
                "a database in SQLite has no options; write sqlite: and the path of a file, without ?",
            ),
            Self::Missing { path } => write!(
                f,
                "there is no list of keys in {path}, and admin.gate in its folder is of one; put the file back, name another database by KEYTALLY_DATABASE, or remove admin.gate to begin a new list"
            ),
            Self::NoList { path } => write!(
                f,
                "there is no list of keys: {path} does not exist; name the data folder of the service with --data, or its database with --database; only a service that serves a list creates them: start keytally serve with --keys on"
            ),
            Self::Replaced { path } => write!(
                f,
                "{path} was removed or replaced while it was in use; put the file back, or stop the service before you restore a copy"
            ),
            Self::ForeignLog { path } => write!(
                f,
                "{path}-wal is of another file, which {path} has replaced; stop the service, and remove {path}-wal and {path}-shm to use {path} as it is"
            ),
            Self::Moved { to } => write!(
                f,
                "the list of keys was moved to {to}; name that database by KEYTALLY_DATABASE or --database"
            ),
            Self::NoFile => f.write_str(
                "the list of keys is not in a file; copy a database of PostgreSQL by pg_dump",
            ),
            Self::Copy { path, error } => write!(f, "cannot write {path}: {error}"),
            Self::ReadOnly => f.write_str(
                "the database cannot be written; let this user write its file and its folder, or use a server that takes changes",
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
            (_, Some("25006")) => Self::ReadOnly,
            (Some(8), Some(code)) if code.len() < 5 => Self::ReadOnly,
            (Some(5 | 6), Some(code)) if code.len() < 5 => Self::Locked,
            (Some(13), Some(code)) if code.len() < 5 => Self::Full,
            // One line: an error of a database may have several.
            _ => match error.as_database_error() {
                Some(error) => Self::Other(one_line(error.message())),
                None => Self::Other(one_line(&error.to_string())),
            },
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

    #[tokio::test]
    async fn database_that_takes_no_changes_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let url = Database::url_of_file(&folder.path().join("keys.db"));
        let database = Database::open(&url).await.unwrap();
        let mut connection = database.read().await.unwrap();
        connection.execute("pragma query_only = on").await.unwrap();
        let error = connection.execute("update head set seq = 1").await.unwrap_err();
        assert!(matches!(DatabaseError::from(error), DatabaseError::ReadOnly));
        let error = connection.execute("select absent from head").await.unwrap_err();
        let sentence = DatabaseError::from(error).to_string();
        assert_eq!(sentence, "the database reports: no such column: absent");
    }

    #[test]
    fn only_a_file_is_a_database_of_sqlite() {
        assert!(is_file_path("keytally-data/keys.db") && is_file_path("/srv/keys.db"));
        for path in ["", ":memory:", "//keys.db"] {
            assert!(!is_file_path(path), "{path}");
        }
    }
}
