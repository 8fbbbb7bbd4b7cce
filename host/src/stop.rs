//! The steps of this crate at which a test can stop a thread. See `keytally_core::stop`.

pub use keytally_core::stop::{Stop, stop};
#[cfg(all(feature = "__stop-points", not(any(loom, shuttle))))]
pub use keytally_core::stop::{arm, resume, stopped, visits};
pub use keytally_core::stop_points;

/// The steps of files and their locks.
#[derive(Debug)]
pub enum FileStop {}

keytally_core::stop_points! {
    FileStop from Stop::ALL.len();

    /// File: an administrator has written its name as the holder, and has not taken the file's
    /// `flock`.
    HolderNamed,
    /// File: the administrators' lock is taken.
    LockTaken,
    /// File: a change is made and not flushed yet.
    ChangeMade,
    /// File: a change is flushed, and the lock is still held.
    ChangeFlushed,
    /// File: the `flock` is released, and the administrator is still named as the holder.
    LockReleased,
    /// New file: it exists, empty, without a name or under a temporary one.
    FileMade,
    /// New file: its disk space is allocated.
    FileRoomTaken,
    /// New file: the table is in it.
    FileWritten,
    /// New file: it is flushed, before it has its name.
    FileSynced,
    /// New file: it has its name, and the folder is not flushed yet.
    FileNamed,
    /// Migration: the old file's header names the new file, which has no name yet.
    SuccessorAnnounced,
    /// Migration: every tally is sealed and moved.
    TalliesSealed,
    /// Migration: the new file is a gate, and is not at the path of the old one yet.
    SuccessorPublished,
    /// Migration: the new file is at the path.
    SuccessorInForce,
}
