//! Errors as exceptions. The classes are Python's, in `keytally/exceptions.py`; the sentences are the errors' own.

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
import_exception!(keytally.exceptions, FullError);
import_exception!(keytally.exceptions, GateFullError);
import_exception!(keytally.exceptions, InvalidKeyError);
import_exception!(keytally.exceptions, KeyIdError);
import_exception!(keytally.exceptions, MissingKeyError);
import_exception!(keytally.exceptions, NoSuchKeyError);
import_exception!(keytally.exceptions, NoSuchPlanError);
import_exception!(keytally.exceptions, PepperError);
import_exception!(keytally.exceptions, PolicyError);
import_exception!(keytally.exceptions, RefusedError);
import_exception!(keytally.exceptions, RevokedError);
import_exception!(keytally.exceptions, TableError);
import_exception!(keytally.exceptions, TooCostlyError);

/// The exception that an error is.
pub(crate) fn of(error: Error) -> PyErr {
    let sentence = error.to_string();
    match error {
        Error::Admin { source, .. } => admin(&source, sentence),
        Error::Attach { source: AttachError::WrongPepper { .. }, .. } | Error::Pepper { .. } => {
            PepperError::new_err(sentence)
        }
        Error::Busy { holder, .. } => BusyError::new_err((sentence, holder.pid)),
        Error::Create { .. } => CreateError::new_err(sentence),
        Error::Entropy(source) | Error::Io { source, .. } => os(&source, sentence),
        // 17 is EEXIST.
        Error::Exists { .. } => PyFileExistsError::new_err((17, sentence)),
        // What is at the path, or what it holds, is not what was asked for.
        _ => TableError::new_err(sentence),
    }
}

/// Returns the exception for a pepper file that cannot be read.
pub(crate) fn of_pepper(error: Error) -> PyErr {
    match error {
        Error::Io { .. } => of(error),
        // The file itself is refused: it is a folder, or other users can read or write it.
        error => PepperError::new_err(error.to_string()),
    }
}

/// The exception of a change that can't be made.
pub(crate) fn admin(error: &Admin, sentence: String) -> PyErr {
    match error {
        Admin::AlreadyImported(_) => AlreadyImportedError::new_err(sentence),
        Admin::Full { .. } | Admin::NoRoomToImport => GateFullError::new_err(sentence),
        Admin::NoSuchKey(_) => NoSuchKeyError::new_err(sentence),
        Admin::NoSuchPlan => NoSuchPlanError::new_err(sentence),
        Admin::Revoked(_) => RevokedError::new_err(sentence),
        _ => AdminError::new_err(sentence),
    }
}

/// What the operating system refuses is an `OSError`, and Python finds the class by its number: `FileNotFoundError`,
/// `PermissionError` …
fn os(source: &io::Error, sentence: String) -> PyErr {
    match source.raw_os_error() {
        Some(number) => PyOSError::new_err((number, sentence)),
        None => PyOSError::new_err(sentence),
    }
}

/// The exception that `raise_for_status` raises; `None` when admitted.
pub(crate) fn refused<A>(outcome: Outcome, verdict: A) -> Option<PyErr>
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
        _ => RefusedError::new_err(verdict),
    })
}
