//! One administrator at a time: an exclusive `flock` on a descriptor of its own.
//!
//! The lock belongs to the open file description. Each administration opens a new one, so threads of one process and
//! a parent and its forked child exclude each other just as strangers do, and the kernel drops the lock with the last
//! descriptor when a process dies.

use std::os::fd::OwnedFd;

use keytally::stop::{Stop, stop};
use rustix::fs::{FlockOperation, flock};

use crate::error::Error;
use crate::file::TableFile;

/// The lock, held until dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    descriptor: OwnedFd,
}

impl Lock {
    /// Waits for the lock of the file.
    pub(crate) fn of(file: &TableFile) -> Result<Self, Error> {
        let descriptor = file.reopen()?;
        rustix::io::retry_on_intr(|| flock(&descriptor, FlockOperation::LockExclusive))
            .map_err(|error| Error::io("lock", file.path(), error))?;
        stop(Stop::LockTaken);
        Ok(Self { descriptor })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would do, were it not for a child that was forked meanwhile: it holds the description open.
        let _ = flock(&self.descriptor, FlockOperation::Unlock);
    }
}
