//! Where the pepper comes from: the environment, or a file.

use std::env;
use std::path::{Path, PathBuf};

use clap::Args;
use keytally::Peppers;
use keytally::pepper;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use zeroize::Zeroizing;

use crate::failure::Failure;

/// The environment variable that holds the pepper itself.
const VARIABLE: &str = "KEYTALLY_PEPPER";

/// The environment variable that names the file of the pepper.
pub(crate) const FILE_VARIABLE: &str = "KEYTALLY_PEPPER_FILE";

/// What every command is told about the pepper.
#[derive(Args, Debug)]
pub struct PepperSource {
    /// File that holds the pepper, the server's secret: hex or base64, at least 32 bytes; several one a line, newest
    /// last. Only its owner may read it, or only root may write it. May be a pipe; - is standard input. Without it,
    /// KEYTALLY_PEPPER holds the pepper itself
    #[arg(long = "pepper-file", value_name = "FILE", value_parser = crate::given::path(), env = FILE_VARIABLE)]
    #[arg(hide_env_values = true, global = true)]
    file: Option<PathBuf>,
}

impl PepperSource {
    /// The file, when the pepper comes from one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Refuses to read `what` from standard input if the pepper is to be read from there.
    pub fn leaves_standard_input(&self, what: &str) -> Result<(), Failure> {
        if self.file() == Some(Path::new("-")) {
            return Err(Failure::usage(format!(
                "standard input can't hold both the pepper and {what}; give the pepper in a file or in {VARIABLE}"
            )));
        }
        Ok(())
    }

    /// The peppers, if any were given.
    pub fn given(&self) -> Result<Option<Peppers>, Failure> {
        if let Some(file) = &self.file {
            return read(file).map(Some);
        }
        let Some(text) = env::var_os(VARIABLE).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let text = Zeroizing::new(text.into_encoded_bytes());
        let text = core::str::from_utf8(&text)
            .map_err(|_| Failure::because(format!("{VARIABLE} is neither hex nor base64")))?;
        let peppers = pepper::parse(text).map_err(|error| Failure::of(VARIABLE, error))?;
        keep_out_of_core_dumps();
        Ok(Some(peppers))
    }

    /// The peppers.
    pub fn needed(&self) -> Result<Peppers, Failure> {
        self.given()?.ok_or_else(|| {
            Failure::because(format!(
                "no pepper was given: set {VARIABLE}, or name a file with --pepper-file; \
                 `openssl rand -hex 32` makes a new one"
            ))
        })
    }
}

/// Reads the peppers of a file.
pub fn read(file: &Path) -> Result<Peppers, Failure> {
    let peppers = pepper::read_file(file)?;
    keep_out_of_core_dumps();
    Ok(peppers)
}

/// From here on the process holds secrets. That this can't be had everywhere is no reason to stop.
fn keep_out_of_core_dumps() {
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}
