//! Conversion of errors to those of JavaScript.
//!
//! The classes are defined in `lib/errors.js`. The code of an error is the name of its class, and
//! after a colon the number that the class has. The messages are those of the errors.

use std::io;

use keytally::{AdminError as Admin, AttachError, Error};

/// The result of a function whose errors have a class.
pub(crate) type Result<T> = core::result::Result<T, napi::Error<Class>>;

/// The name of the class of an error, and the number that it has.
#[derive(Debug)]
pub(crate) struct Class(String);

impl AsRef<str> for Class {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Returns the error of a class.
pub(crate) fn error(class: &str, sentence: impl Into<String>) -> napi::Error<Class> {
    napi::Error::new(Class(class.to_owned()), sentence.into())
}

/// Returns the error for an error of the crate `keytally`.
pub(crate) fn from_error(found: Error) -> napi::Error<Class> {
    let sentence = found.to_string();
    match found {
        Error::Admin { source, .. } => from_admin_error(&source, sentence),
        Error::Attach { source: AttachError::WrongPepper { .. }, .. } | Error::Pepper { .. } => {
            error("PepperError", sentence)
        }
        Error::Busy { holder, .. } => match holder.pid {
            Some(pid) => error(&format!("BusyError:{pid}"), sentence),
            None => error("BusyError", sentence),
        },
        Error::Create { .. } => error("CreateError", sentence),
        Error::Entropy(source) | Error::Io { source, .. } => from_io_error(&source, sentence),
        Error::Exists { .. } => error("SystemError:EEXIST", sentence),
        // The file at the path is not a table, is not the one that was requested, or has an unsafe
        // owner or mode.
        _ => error("TableError", sentence),
    }
}

/// Returns the error for a pepper that is not valid, or whose file cannot be read.
pub(crate) fn from_pepper_error(found: Error) -> napi::Error<Class> {
    match found {
        Error::Io { .. } => from_error(found),
        // The text is not valid, or the file is rejected: it is a directory, or other users can
        // read or write it.
        found => error("PepperError", found.to_string()),
    }
}

/// Returns the error for a change to a gate that was rejected.
pub(crate) fn from_admin_error(found: &Admin, sentence: String) -> napi::Error<Class> {
    let class = match found {
        Admin::AlreadyImported(_) => "AlreadyImportedError",
        Admin::Full { .. } | Admin::NoRoomToImport => "GateFullError",
        Admin::NoSuchKey(_) => "NoSuchKeyError",
        Admin::NoSuchPlan => "NoSuchPlanError",
        Admin::NoSuchAccount(_) => "NoSuchAccountError",
        Admin::NoSuchScope => "NoSuchScopeError",
        Admin::TeamsFull { .. } => "TeamsFullError",
        Admin::Revoked(_) => "RevokedError",
        _ => "AdminError",
    };
    error(class, sentence)
}

/// Returns the error for one of the operating system, with its name if JavaScript programs test it.
fn from_io_error(source: &io::Error, sentence: String) -> napi::Error<Class> {
    use io::ErrorKind::{NotFound, PermissionDenied, ReadOnlyFilesystem, StorageFull};
    let name = match source.kind() {
        NotFound => ":ENOENT",
        PermissionDenied => ":EACCES",
        StorageFull => ":ENOSPC",
        ReadOnlyFilesystem => ":EROFS",
        _ => "",
    };
    error(&format!("SystemError{name}"), sentence)
}
