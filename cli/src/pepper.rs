//! The pepper (the server's HMAC key): from a file, or from the environment.

use std::env;
use std::path::{Path, PathBuf};

use clap::Args;
use keytally::Peppers;
use keytally::pepper;
use zeroize::Zeroizing;

use crate::arguments;
use crate::failure::Failure;
use crate::system::disable_core_dumps;

/// The environment variable that holds the pepper itself.
const VARIABLE: &str = "KEYTALLY_PEPPER";

/// The environment variable that names the file of the pepper.
pub(crate) const FILE_VARIABLE: &str = "KEYTALLY_PEPPER_FILE";

/// The option of every command that names the file of the pepper.
#[derive(Args, Debug)]
pub struct PepperSource {
    /// File with the pepper, the server's secret: hex or base64, at least 32 bytes. Several peppers
    /// are on one line each, newest last. Only the owner may have access to the file. A file of
    /// root may be readable, but not writable, by others. It may be a pipe; - is standard input.
    /// Without a file, the environment variable KEYTALLY_PEPPER holds the pepper itself
    #[arg(long = "pepper-file", value_name = "FILE", value_parser = arguments::path_parser(), env = FILE_VARIABLE)]
    #[arg(hide_env_values = true, global = true)]
    file: Option<PathBuf>,
}

impl PepperSource {
    /// Returns the file, if the pepper comes from one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Checks that the pepper is not read from standard input, so that the command can read
    /// `content` from there.
    ///
    /// # Errors
    /// A usage error that names `content`.
    pub(crate) fn check_stdin_is_free(&self, content: &str) -> Result<(), Failure> {
        if self.file() == Some(Path::new("-")) {
            return Err(Failure::usage(format!(
                "standard input cannot hold both the pepper and {content}; \
                 put the pepper in a file or in {VARIABLE}"
            )));
        }
        Ok(())
    }

    /// Creates the file with a new pepper, unless it exists. Returns whether it was created.
    ///
    /// # Errors
    /// A usage error if the pepper does not come from a file. A failure if the file cannot be
    /// created.
    pub(crate) fn create_missing(&self) -> Result<bool, Failure> {
        let Some(file) = self.file().filter(|file| *file != Path::new("-")) else {
            return Err(Failure::usage("--new-pepper: name the file by --pepper-file".to_owned()));
        };
        if file.symlink_metadata().is_ok() {
            return Ok(false);
        }
        pepper::create_file(file)?;
        Ok(true)
    }

    /// Reads the peppers, or returns `None` if neither the file nor the variable is given.
    ///
    /// # Errors
    /// A failure if the file cannot be read, or if its text or that of the variable is not valid.
    pub fn load(&self) -> Result<Option<Peppers>, Failure> {
        if let Some(file) = &self.file {
            return read_file(file).map(Some);
        }
        let Some(text) = env::var_os(VARIABLE).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let text = Zeroizing::new(text.into_encoded_bytes());
        let text = core::str::from_utf8(&text)
            .map_err(|_| Failure::new(format!("{VARIABLE} is neither hex nor base64")))?;
        let peppers =
            pepper::parse(text).map_err(|error| Failure::with_context(VARIABLE, error))?;
        disable_core_dumps();
        Ok(Some(peppers))
    }

    /// Reads the peppers.
    ///
    /// # Errors
    /// Those of [`load`](Self::load), and a failure if no pepper is given.
    pub fn require(&self) -> Result<Peppers, Failure> {
        self.load()?.ok_or_else(|| {
            Failure::new(format!(
                "no pepper was given: set {VARIABLE}, or name a file with --pepper-file; \
                 `openssl rand -hex 32` makes a new one"
            ))
        })
    }
}

/// Reads the peppers of a file.
///
/// # Errors
/// A failure if the file cannot be read or does not hold valid peppers.
pub fn read_file(file: &Path) -> Result<Peppers, Failure> {
    let peppers = pepper::read_file(file)?;
    disable_core_dumps();
    Ok(peppers)
}
