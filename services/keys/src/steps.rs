//! The steps of changes and samples at which a test can stop a thread. See `keytally::stop`.

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

/// The steps of a sampler of uses, in their order.
#[derive(Debug)]
pub enum SampleStop {}

stop_points! {
    SampleStop from Stop::ALL.len() + FileStop::ALL.len() + KeysStop::ALL.len();

    /// Counting has begun, and the list does not know the file of counts.
    CountingBegun,
    /// The rows of the file of counts are written, and not committed.
    LeadWritten,
    /// The list knows the file of counts, and none of its counts is read.
    LeadTaken,
    /// The counts are read, and nothing of them is written.
    CountsRead,
    /// The uses and the readings are written, and not committed.
    UsesWritten,
    /// The uses and the readings are committed.
    UsesAdded,
}
