//! The fleet file of a gate: its path, and how it is opened.

use std::path::{Path, PathBuf};

use clap::Args;
use keytally_cli::internal::path_parser;

/// The folder in memory that Linux systems have.
const MEMORY: &str = "/dev/shm";

/// The option that names the fleet file.
#[derive(Args, Debug)]
pub(crate) struct FleetPath {
    /// Fleet file of this machine, through which the processes of the machine get units [default:
    /// the name of the gate file and .fleet, in /dev/shm if there is one, else next to the gate]
    #[arg(long = "file", value_name = "PATH", value_parser = path_parser())]
    fleet_file: Option<PathBuf>,
}

impl FleetPath {
    /// Returns the path for this gate.
    pub(crate) fn of(&self, gate: &Path) -> PathBuf {
        if let Some(path) = &self.fleet_file {
            return path.clone();
        }
        let mut name = gate.file_name().unwrap_or_default().to_owned();
        name.push(".fleet");
        let memory = Path::new(MEMORY);
        if memory.is_dir() { memory.join(name) } else { gate.with_file_name(name) }
    }
}
