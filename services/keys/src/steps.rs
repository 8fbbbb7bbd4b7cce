//! The steps of a change at which a test can stop a thread. See `keytally::stop`.

use keytally::stop::{FileStop, Stop, stop_points};

/// The steps of a change of a key, in their order.
#[derive(Debug)]
pub enum KeysStop {}

stop_points! {
    KeysStop from Stop::ALL.len() + FileStop::ALL.len();

    /// The transaction has the lock of `head`, and nothing is prepared.
    HeadLocked,
    /// The change is prepared, and nothing is written.
    Prepared,
    /// The rows are written, and the transaction is not committed.
    RowsWritten,
    /// The transaction is committed, and the gate is not changed.
    Committed,
    /// The gate has the record, and not yet the number of the change.
    RecordPut,
    /// The gate has the number of the change, and nothing is answered.
    Applied,
}
