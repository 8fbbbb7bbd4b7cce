//! Conversion of errors to exceptions.
//!
//! The classes are defined in `keytally/exceptions.py`. The messages are those of the errors.

use std::io;

use keytally::AdminError as Admin;
use keytally::AttachError;
use keytally::Error;
use keytally::Outcome;
use pyo3::exceptions::{PyFileExistsError, PyOSError};
use pyo3::{PyErr, import_exception};

import_exception!(keytally.exceptions, AdminError);
import_exception!(keytally.exceptions, AlreadyImportedError);
import_exception!(keytally.exceptions, BusyError);
import_exception!(keytally.exceptions, CreateError);
import_exception!(keytally.exceptions, DeniedError);
import_exception!(keytally.exceptions, ForbiddenError);
import_exception!(keytally.exceptions, FullError);
import_exception!(keytally.exceptions, GateFullError);
import_exception!(keytally.exceptions, InvalidKeyError);
import_exception!(keytally.exceptions, KeyIdError);
import_exception!(keytally.exceptions, MissingKeyError);
import_exception!(keytally.exceptions, NoSuchAccountError);
import_exception!(keytally.exceptions, NoSuchKeyError);
import_exception!(keytally.exceptions, NoSuchPlanError);
import_exception!(keytally.exceptions, NoSuchScopeError);
import_exception!(keytally.exceptions, PepperError);
import_exception!(keytally.exceptions, PolicyError);
import_exception!(keytally.exceptions, RefusedError);
import_exception!(keytally.exceptions, RevokedError);
import_exception!(keytally.exceptions, TableError);
import_exception!(keytally.exceptions, TeamsFullError);
import_exception!(keytally.exceptions, UnavailableError);
import_exception!(keytally.exceptions, TooCostlyError);

/// The number of the system's error "file exists".
const EEXIST: i32 = 17;

/// Returns the exception for an error of the crate `keytally`.
pub(crate) fn from_error(error: Error) -> PyErr {
    let sentence = error.to_string();
    match error {
        Error::Admin { source, .. } => from_admin_error(&source, sentence),
        Error::Attach { source: AttachError::WrongPepper { .. }, .. } | Error::Pepper { .. } => {
            PepperError::new_err(sentence)
        }
        Error::Busy { holder, .. } => BusyError::new_err((sentence, holder.pid)),
        Error::Create { .. } => CreateError::new_err(sentence),
        Error::Entropy(source) | Error::Io { source, .. } => from_io_error(&source, sentence),
        Error::Exists { .. } => PyFileExistsError::new_err((EEXIST, sentence)),
        // The file at the path is not a table, is not the one that was requested, or has an unsafe
        // owner or mode.
        _ => TableError::new_err(sentence),
    }
}

/// Returns the exception for a pepper that is not valid, or whose file cannot be read.
pub(crate) fn from_pepper_error(error: Error) -> PyErr {
    match error {
        Error::Io { .. } => from_error(error),
        // The text is not valid, or the file is rejected: it is a directory, or other users can
        // read or write it.
        error => PepperError::new_err(error.to_string()),
    }
}

/// Returns the exception for a change to a gate that was rejected.
pub(crate) fn from_admin_error(error: &Admin, sentence: String) -> PyErr {
    match error {
        Admin::AlreadyImported(_) => AlreadyImportedError::new_err(sentence),
        Admin::Full { .. } | Admin::NoRoomToImport => GateFullError::new_err(sentence),
        Admin::NoSuchKey(_) => NoSuchKeyError::new_err(sentence),
        Admin::NoSuchPlan => NoSuchPlanError::new_err(sentence),
        Admin::NoSuchAccount(_) => NoSuchAccountError::new_err(sentence),
        Admin::NoSuchScope => NoSuchScopeError::new_err(sentence),
        Admin::TeamsFull { .. } => TeamsFullError::new_err(sentence),
        Admin::Revoked(_) => RevokedError::new_err(sentence),
        _ => AdminError::new_err(sentence),
    }
}

/// Returns the `OSError` for an error of the operating system.
///
/// Python selects the subclass by the error number: `FileNotFoundError`, `PermissionError` and so
/// on.
fn from_io_error(source: &io::Error, sentence: String) -> PyErr {
    match source.raw_os_error() {
        Some(number) => PyOSError::new_err((number, sentence)),
        None => PyOSError::new_err(sentence),
    }
}

/// Returns the exception that `raise_for_status` raises; `None` if the request was admitted.
pub(crate) fn from_outcome<A>(outcome: Outcome, verdict: A) -> Option<PyErr>
where
    A: pyo3::PyErrArguments + Send + Sync + 'static,
{
    Some(match outcome {
        Outcome::Admitted => return None,
        Outcome::Denied => DeniedError::new_err(verdict),
        Outcome::MissingKey => MissingKeyError::new_err(verdict),
        Outcome::InvalidKey => InvalidKeyError::new_err(verdict),
        Outcome::TooCostly => TooCostlyError::new_err(verdict),
        Outcome::Full => FullError::new_err(verdict),
        Outcome::Forbidden => ForbiddenError::new_err(verdict),
        Outcome::Unavailable => UnavailableError::new_err(verdict),
        _ => RefusedError::new_err(verdict),
    })
}
