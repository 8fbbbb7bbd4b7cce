//! Where the password of the store is: in a file or in a variable of the environment.

use core::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use keytally::pepper;
use zeroize::Zeroizing;

use crate::error::FleetError;

/// The most bytes of a password file.
pub const MAX_PASSWORD_LEN: usize = 4096;

/// Where a password is. It is read at each connection, so a changed password is used at the next
/// one. No URL and no argument of a process holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordSource {
    /// The first line of this file, of at most [`MAX_PASSWORD_LEN`] bytes. The file has the owner
    /// and the mode that a pepper file may have: see [`read_file`](keytally::pepper::read_file).
    File(PathBuf),
    /// The variable of the environment with this name.
    Environment(String),
}

/// A password, which neither `Debug` nor any error shows.
pub(crate) struct Password(Zeroizing<String>);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

impl Password {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl PasswordSource {
    /// Reads the password.
    pub(crate) fn read(&self) -> Result<Password, FleetError> {
        let text = match self {
            Self::File(path) => {
                let refused =
                    |why: &dyn fmt::Display| FleetError::refused(format!("password file: {why}"));
                let failed = |why: &dyn fmt::Display| {
                    refused(&format_args!("{} cannot be read: {why}", path.display()))
                };
                if path == Path::new("-") {
                    return Err(failed(
                        &"it is standard input, and each connection reads the file",
                    ));
                }
                let (file, refusal) = pepper::open_secret(path).map_err(|why| refused(&why))?;
                let mut text = Zeroizing::new(String::with_capacity(MAX_PASSWORD_LEN + 1));
                let mut file = file.take(MAX_PASSWORD_LEN as u64 + 1);
                file.read_to_string(&mut text).map_err(|why| failed(&why))?;
                if text.len() > MAX_PASSWORD_LEN {
                    return Err(failed(&format_args!("it has over {MAX_PASSWORD_LEN} bytes")));
                }
                if let Some(why) = refusal {
                    return Err(refused(&why));
                }
                text
            }
            Self::Environment(name) => {
                let text = std::env::var(name).map_err(|_| {
                    FleetError::refused(format!("the variable {name} has no password as UTF-8"))
                })?;
                Zeroizing::new(text)
            }
        };
        let line = text.lines().next().unwrap_or_default();
        if line.is_empty() {
            return Err(FleetError::refused(match self {
                Self::File(path) => format!("the password file {} is empty", path.display()),
                Self::Environment(name) => format!("the variable {name} is empty"),
            }));
        }
        Ok(Password(Zeroizing::new(line.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_is_the_first_line_of_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let source = PasswordSource::File(file.path().to_owned());
        std::fs::write(file.path(), "open sesame\r\nsecond\n").unwrap();
        let password = source.read().unwrap();
        assert_eq!(password.as_str(), "open sesame");
        assert_eq!(format!("{password:?}"), "Password(…)");

        std::fs::write(file.path(), "x".repeat(MAX_PASSWORD_LEN)).unwrap();
        assert_eq!(source.read().unwrap().as_str().len(), MAX_PASSWORD_LEN);
        std::fs::write(file.path(), "x".repeat(MAX_PASSWORD_LEN + 1)).unwrap();
        let error = source.read().unwrap_err().to_string();
        assert!(error.contains("over 4096 bytes") && !error.contains("xx"), "{error}");
        std::fs::write(file.path(), "\nsecond\n").unwrap();
        assert!(source.read().unwrap_err().to_string().ends_with("is empty"));
    }

    #[cfg(unix)]
    #[test]
    fn file_that_another_user_can_change_is_refused() {
        use std::fs::{Permissions, set_permissions};
        use std::os::unix::fs::PermissionsExt as _;

        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "open sesame\n").unwrap();
        let source = PasswordSource::File(file.path().to_owned());
        for (mode, is_right) in [(0o600, true), (0o400, true), (0o666, false), (0o620, false)] {
            set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
            let read = source.read().map(|password| password.as_str().to_owned());
            if is_right {
                assert_eq!(read.as_deref(), Ok("open sesame"));
                continue;
            }
            let error = read.unwrap_err().to_string();
            let path = file.path().display();
            let begin = format!("password file: {path}: its mode is {mode:04o}, so ");
            assert!(error.starts_with(&begin) && error.contains("fix it with: chmod "), "{error}");
            assert!(!error.contains("sesame"), "{error}");
        }
    }

    #[test]
    fn standard_input_and_a_folder_are_no_password_files() {
        let error = PasswordSource::File("-".into()).read().unwrap_err().to_string();
        assert!(error.contains("- cannot be read: it is standard input"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let error = PasswordSource::File(folder.path().to_owned()).read().unwrap_err().to_string();
        assert!(error.ends_with("this is a directory, not a regular file"), "{error}");
    }

    #[test]
    fn error_for_a_missing_password_names_its_source() {
        let error = PasswordSource::File("/nowhere/password".into()).read().unwrap_err();
        assert!(error.to_string().contains("/nowhere/password"), "{error}");
        let error = PasswordSource::Environment("KEYTALLY_NO_PASSWORD".to_owned()).read();
        assert!(error.unwrap_err().to_string().contains("KEYTALLY_NO_PASSWORD"));
    }
}
