//! The list of keys: a database and the gate that decides by it, and the one path on which both
//! change.
//!
//! A change begins its transaction, which locks `head`. Then it takes the gate's file lock,
//! prepares what it writes, commits that to the database, puts it into the gate, and only then
//! returns.
//!
//! The order of the locks is: `head`, then file. So no change holds the file while it waits for a
//! database that others use or that does not respond, and a revocation can change the gate then.

use alloc::sync::Arc;
use core::fmt;
use core::time::Duration;
use std::sync::{Mutex, PoisonError};

use keytally::stop::stop;
use keytally::{
    AdminError, Administrator, Followed, Gate, KeyId, KeyRecord, Mapping, Timestamp, Wait,
};
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection};
use tokio::runtime::Handle;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::database::{Database, DatabaseError, LIMIT, Transaction};
use crate::error::{Error, Result};
use crate::keys::{self, KeyRow};
use crate::status::Status;
use crate::steps::KeysStop;

/// The longest time that a change waits for another administrator of the gate.
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(5);

/// The most keys that are put into the gate under one lock.
const PUTS_PER_LOCK: i64 = 1000;

/// The list of keys of a gate. Clones share it.
#[derive(Clone)]
pub struct List {
    shared: Arc<Shared>,
}

struct Shared {
    database: Database,
    gate: Arc<Followed>,
    /// The gate of the admin tokens.
    admin: Arc<Followed>,
    machine: String,
    status: Mutex<Status>,
    /// Held by the one change of this service that has a transaction or waits for it. The others do
    /// not take connections from those who read.
    turn: Arc<AsyncMutex<()>>,
}

impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("List").field("database", &self.shared.shown()).finish_non_exhaustive()
    }
}

impl Shared {
    fn shown(&self) -> String {
        self.database.to_string()
    }
}

impl List {
    /// Returns the list of a gate in a database. `admin` is the gate of the admin tokens, and
    /// `machine` the name of this machine.
    pub fn new(
        database: Database,
        gate: Arc<Followed>,
        admin: Arc<Followed>,
        machine: String,
    ) -> Self {
        let (status, turn) = (Mutex::default(), Arc::default());
        Self { shared: Arc::new(Shared { database, gate, admin, machine, status, turn }) }
    }

    /// Returns the database.
    pub fn database(&self) -> &Database {
        &self.shared.database
    }

    /// Returns the gate.
    pub fn gate(&self) -> &Followed {
        &self.shared.gate
    }

    /// Returns the gate of the admin tokens.
    pub fn admin(&self) -> &Followed {
        &self.shared.admin
    }

    /// Returns the name of this machine.
    pub(crate) fn machine(&self) -> &str {
        &self.shared.machine
    }

    /// Returns how the list and the gate agree.
    pub fn status(&self) -> Status {
        self.shared.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the status.
    pub(crate) fn set_status(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.shared.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Returns a connection for reading.
    pub(crate) async fn read(&self) -> Result<PoolConnection<Any>> {
        Ok(self.shared.database.read().await?)
    }

    /// Makes a change that does not concern the gate, in one transaction.
    pub(crate) async fn transact<T: Send + 'static>(
        &self,
        work: impl AsyncFnOnce(&mut Transaction) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (list, runtime) = (self.clone(), Handle::current());
        blocking(move || {
            let applied = list.gate().load().table().applied_sequence();
            runtime.block_on(list.transact_within(LIMIT, applied, work))
        })
        .await
    }

    /// Runs a transaction, for at most `limit`. If the database is older than change `applied`,
    /// nothing is changed.
    pub(crate) async fn transact_within<T>(
        &self,
        limit: Duration,
        applied: u64,
        work: impl AsyncFnOnce(&mut Transaction) -> Result<T>,
    ) -> Result<T> {
        let run = async {
            let mut transaction = self.database().write().await?;
            if transaction.seq() < applied {
                return Err(Error::Behind { head: transaction.seq(), applied });
            }
            let result = work(&mut transaction).await?;
            transaction.commit().await?;
            Ok(result)
        };
        timeout(limit, run).await.unwrap_or(Err(Error::Database(DatabaseError::Late)))
    }

    /// Makes a change: begins its transaction, for at most `limit`, and takes the gate's lock. Puts
    /// into the gate what the list has and the gate has not, and then calls `work`, with the keys
    /// that the gate refused. No other service changes the list before this change.
    ///
    /// # Errors
    /// If the database cannot be used in time, or is older than the gate.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        limit: Duration,
        now: Timestamp,
        work: impl FnOnce(&mut Path<'_, '_>, Vec<Refused>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let begun = self.begin(limit).await?;
        let work = move |path: &mut Path<'_, '_>| {
            let refused = path.catch_up(limit, now)?;
            work(path, refused)
        };
        self.administer_with(Which::Keys, Some(begun), work).await
    }

    /// Makes a change as [`change`](Self::change) does, also if the database cannot be used: `work`
    /// gets the error. It does not wait for other changes of this service.
    pub(crate) async fn change_anyway<T: Send + 'static>(
        &self,
        limit: Duration,
        now: Timestamp,
        work: impl FnOnce(&mut Path<'_, '_>, Result<()>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let begun = self.begin_transaction(limit, None).await;
        let (begun, error) = match begun {
            Ok(begun) => (Some(begun), None),
            Err(error) => (None, Some(error)),
        };
        self.administer_with(Which::Keys, begun, move |path| {
            let begun = match error {
                Some(error) => Err(error),
                None => path.catch_up(limit, now).map(drop),
            };
            work(path, begun)
        })
        .await
    }

    /// Calls `work` with the administrator of the gate, on a thread that may block.
    pub(crate) async fn administer<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Path<'_, '_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.administer_with(Which::Keys, None, work).await
    }

    /// Begins the transaction of a change, after the other changes of this service.
    pub(crate) async fn begin(&self, limit: Duration) -> Result<Begun> {
        let turn = Arc::clone(&self.shared.turn).lock_owned();
        let late = Err(Error::Database(DatabaseError::Late));
        match timeout(limit, turn).await {
            Ok(turn) => self.begin_transaction(limit, Some(turn)).await,
            Err(_) => late,
        }
    }

    async fn begin_transaction(
        &self,
        limit: Duration,
        turn: Option<OwnedMutexGuard<()>>,
    ) -> Result<Begun> {
        let begin =
            async { Ok(Begun { transaction: self.database().write().await?, _turn: turn }) };
        timeout(limit, begin).await.unwrap_or(Err(Error::Database(DatabaseError::Late)))
    }

    /// Calls `work` with the administrator of a gate and the transaction that was begun, on a
    /// thread that may block.
    pub(crate) async fn administer_with<T: Send + 'static>(
        &self,
        which: Which,
        begun: Option<Begun>,
        work: impl FnOnce(&mut Path<'_, '_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (list, runtime) = (self.clone(), Handle::current());
        let mut once = Some((begun, work));
        blocking(move || {
            if once.as_ref().is_some_and(|(begun, _)| begun.is_some()) {
                stop(KeysStop::HeadLocked);
            }
            // If a migration replaces the file during the wait, the gate calls nothing, and the new
            // file is administered.
            let followed = match which {
                Which::Keys => list.gate(),
                Which::Tokens => list.admin(),
            };
            let result = followed.change_within(Wait::at_most(LOCK_WAIT), |gate, wait| {
                gate.administer_within(wait, |administrator| {
                    let Some((begun, work)) = once.take() else { return Ok(None) };
                    let mut path = Path { gate, administrator, runtime: &runtime, begun };
                    Ok(Some(work(&mut path)))
                })
            })?;
            result.unwrap_or_else(|| Err(not_begun()))
        })
        .await
    }
}

/// A gate of a list.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which {
    /// That of the keys.
    Keys,
    /// That of the admin tokens.
    Tokens,
}

/// The transaction of a change, which has the lock of `head`, and the turn of its service.
pub(crate) struct Begun {
    transaction: Transaction,
    _turn: Option<OwnedMutexGuard<()>>,
}

/// Runs work on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|_| {
        Err(Error::Conflict("the service is stopping; nothing was answered".to_owned()))
    })
}

/// The path of one change: the administrator of the gate, whose file is locked, and the database.
pub(crate) struct Path<'p, 'g> {
    pub(crate) gate: &'p Gate,
    pub(crate) administrator: &'p mut Administrator<'g, Mapping>,
    runtime: &'p Handle,
    /// The transaction of the change, until it is committed.
    begun: Option<Begun>,
}

impl Path<'_, '_> {
    /// Puts into the gate what the list has and the gate has not. Returns the keys that the gate
    /// refused, each with the reason.
    ///
    /// # Errors
    /// If the database cannot be used in time, or is older than the gate.
    fn catch_up(&mut self, limit: Duration, now: Timestamp) -> Result<Vec<Refused>> {
        let mut refused = Vec::new();
        loop {
            let (head, applied) = (self.head(), self.applied());
            if head < applied {
                return Err(Error::Behind { head, applied });
            }
            let rows = self.query(limit, async |connection| {
                Ok(keys::changed_after(connection, applied, PUTS_PER_LOCK).await?)
            })?;
            let Some(last) = rows.last().map(|row| row.seq) else { break };
            self.put_rows(&rows, now, &mut refused);
            self.set_applied(last);
        }
        Ok(refused)
    }

    /// Returns the number of the last change of the list, as the transaction began.
    pub(crate) fn head(&self) -> u64 {
        self.begun.as_ref().map_or(0, |begun| begun.transaction.seq())
    }

    /// Reads in the transaction that was begun, for at most `limit`.
    pub(crate) fn query<T>(
        &mut self,
        limit: Duration,
        work: impl AsyncFnOnce(&mut AnyConnection) -> Result<T>,
    ) -> Result<T> {
        let mut begun = self.begun.take().ok_or_else(not_begun)?;
        let result = self.within(limit, work(begun.transaction.connection()));
        self.begun = Some(begun);
        result
    }

    /// Changes rows in the transaction that was begun, and commits it, for at most `limit`.
    pub(crate) fn transact<T>(
        &mut self,
        limit: Duration,
        work: impl AsyncFnOnce(&mut Transaction) -> Result<T>,
    ) -> Result<T> {
        stop(KeysStop::Prepared);
        let Begun { mut transaction, _turn } = self.begun.take().ok_or_else(not_begun)?;
        self.within(limit, async move {
            let result = work(&mut transaction).await?;
            stop(KeysStop::RowsWritten);
            transaction.commit().await?;
            stop(KeysStop::Committed);
            Ok(result)
        })
    }

    /// Runs work on the database, for at most `limit`.
    fn within<T>(&self, limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
        let late = Err(Error::Database(DatabaseError::Late));
        self.runtime.block_on(async { timeout(limit, work).await.unwrap_or(late) })
    }

    /// Returns the number of the last change that the gate has.
    pub(crate) fn applied(&self) -> u64 {
        self.gate.table().applied_sequence()
    }

    /// Puts a record that was committed into the gate.
    pub(crate) fn put(&mut self, record: &KeyRecord, now: Timestamp) -> Result<()> {
        self.administrator.put(record, now)?;
        stop(KeysStop::RecordPut);
        Ok(())
    }

    /// Revokes a key in the gate.
    pub(crate) fn revoke(&mut self, key_id: KeyId) -> Result<()> {
        self.administrator.revoke(key_id)?;
        stop(KeysStop::RecordPut);
        Ok(())
    }

    /// Records that the gate has all changes up to this one.
    pub(crate) fn set_applied(&mut self, seq: i64) {
        let seq = u64::try_from(seq).unwrap_or(0).max(self.applied());
        self.administrator.set_applied_sequence(seq);
        stop(KeysStop::Applied);
    }

    /// Puts rows into the gate, and adds those that it refuses.
    fn put_rows(&mut self, rows: &[KeyRow], now: Timestamp, refused: &mut Vec<Refused>) {
        for row in rows {
            if let Err(error) = self.put_row(row, now) {
                refused.push(Refused { row: row.clone(), error });
            }
        }
    }

    /// Puts a row into the gate. A key that is revoked in the gate stays revoked there.
    pub(crate) fn put_row(&mut self, row: &KeyRow, now: Timestamp) -> Result<()> {
        // Another key may have got the record of one that ended.
        let has_ended = row.is_revoked || row.is_expired(now);
        if has_ended && self.administrator.read(row.key_id).is_none() {
            return Ok(());
        }
        if row.is_revoked {
            // Also if the gate has no such plan or scope.
            return self.revoke(row.key_id);
        }
        let scopes = scope_bits(self.gate, row.scopes.split_ascii_whitespace())?;
        self.put(&row.record(scopes)?, now)
    }
}

/// The error of a change whose transaction was not begun.
fn not_begun() -> Error {
    Error::Database(DatabaseError::Late)
}

/// A key of the list that the gate refused.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) row: KeyRow,
    pub(crate) error: Error,
}

/// Returns the bits of scopes in a gate.
///
/// # Errors
/// If the gate has no scope of a name.
pub(crate) fn scope_bits<'s>(gate: &Gate, names: impl IntoIterator<Item = &'s str>) -> Result<u64> {
    let mut names = names.into_iter();
    let bits = names.try_fold(0, |bits, name| Some(bits | gate.table().scope_bit(name)?));
    bits.ok_or(Error::Gate(keytally::Error::Admin { path: None, source: AdminError::NoSuchScope }))
}

/// Returns the names of the scopes with these bits in a gate, separated by spaces.
pub(crate) fn scope_names(gate: &Gate, bits: u64) -> String {
    let named = gate.table().scopes().enumerate().filter(|(number, _)| bits >> number & 1 != 0);
    named.map(|(_, name)| name.to_string()).collect::<Vec<_>>().join(" ")
}
