//! The gate or limiter of a fleet, and its fleet file: their paths, and how they are opened.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use clap::Args;
use keytally::{
    AddressLimiter, AttachError, Error, FleetError, FleetFile, FleetTable, Gate, Limiter, Peppers,
    TableKind,
};
use keytally_cli::internal::{Failure, PepperSource, path_parser};
use keytally_fleet::plan::layout::{MAGIC, PageError};

/// The argument that names the file of a gate or a limiter.
#[derive(Args, Debug)]
pub(crate) struct TableFile {
    /// Gate file, or limiter file. A limiter needs no pepper
    #[arg(value_name = "FILE", value_parser = path_parser())]
    path: PathBuf,
}

impl TableFile {
    /// Opens the gate or the limiter.
    pub(crate) fn open(&self, pepper: &PepperSource) -> Result<Table, Failure> {
        Table::open(&self.path, || pepper.require())
    }

    /// Returns the path, as it was given.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// A gate or a limiter.
#[derive(Debug)]
pub(crate) enum Table {
    Gate(Box<Gate>),
    Limiter(Box<Limiter>),
    Addresses(Box<AddressLimiter>),
}

impl Table {
    /// Opens a gate or a limiter. The peppers are those of a gate.
    pub(crate) fn open<E: Into<Failure>>(
        path: &Path,
        peppers: impl FnOnce() -> Result<Peppers, E>,
    ) -> Result<Self, Failure> {
        match Limiter::open(path) {
            Ok(limiter) => return Ok(Self::Limiter(Box::new(limiter))),
            Err(Error::Attach {
                source: AttachError::Kind { found: TableKind::AddressLimiter, .. },
                ..
            }) => {
                return Ok(Self::Addresses(Box::new(AddressLimiter::open(path)?)));
            }
            // The gate's error is about the same file.
            Err(_) => {}
        }
        match Gate::open(path, peppers().map_err(Into::into)?) {
            Ok(gate) => Ok(Self::Gate(Box::new(gate))),
            Err(error @ Error::Attach { .. }) if is_fleet_file(path) => Err(Failure::new(format!(
                "{error}, but as a fleet file: name the file of its gate or limiter"
            ))),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn fleet(&self) -> FleetTable<'_> {
        match self {
            Self::Gate(gate) => (&**gate).into(),
            Self::Limiter(limiter) => (&**limiter).into(),
            Self::Addresses(limiter) => (&**limiter).into(),
        }
    }

    /// Returns whether the path still leads to this file. A limiter is not replaced while it is in
    /// use.
    pub(crate) fn is_at_path(&self) -> io::Result<bool> {
        match self {
            Self::Gate(gate) => gate.is_at_path(),
            Self::Limiter(_) | Self::Addresses(_) => Ok(true),
        }
    }

    /// Returns what it is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Gate(_) => "gate",
            Self::Limiter(_) | Self::Addresses(_) => "limiter",
        }
    }
}

/// Returns whether a file begins as fleet files do.
fn is_fleet_file(path: &Path) -> bool {
    let mut begin = [0; 8];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut begin));
    read.is_ok() && u64::from_le_bytes(begin) == MAGIC
}

/// The folder in memory that Linux systems have.
const MEMORY: &str = "/dev/shm";

/// The option that names the fleet file.
#[derive(Args, Debug)]
pub(crate) struct FleetPath {
    /// Fleet file of this machine, through which the processes of the machine get units [default:
    /// the name of the gate or limiter file and .fleet, in /dev/shm if there is one, else next to
    /// that file]
    #[arg(long = "file", value_name = "PATH", value_parser = path_parser())]
    fleet_file: Option<PathBuf>,
}

impl FleetPath {
    /// Returns the path for this gate or limiter.
    pub(crate) fn of(&self, table: &Path) -> PathBuf {
        if let Some(path) = &self.fleet_file {
            return path.clone();
        }
        let mut name = table.file_name().unwrap_or_default().to_owned();
        name.push(".fleet");
        let memory = Path::new(MEMORY);
        if memory.is_dir() { memory.join(name) } else { table.with_file_name(name) }
    }

    /// Opens the fleet file of a gate or limiter.
    pub(crate) fn open<'t>(&self, path: &Path, table: &'t Table) -> Result<FleetFile<'t>, Failure> {
        let file = FleetFile::open(self.of(path), table.fleet());
        let verified = file.and_then(|file| file.verify_gate().map(|()| file));
        verified.map_err(|error| match &error {
            // An agent creates the file.
            Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Failure::new(format!(
                    "{error}; start the agent of this {} first, by keytally agent, or name its \
                     fleet file with --file",
                    table.kind()
                ))
            }
            Error::NotAFile { .. }
            | Error::Fleet {
                source:
                    FleetError::Page(
                        PageError::NotAFleet | PageError::Tallies { .. } | PageError::OtherGate,
                    ),
                ..
            } => Failure::new(format!("{error}; name that of {} with --file", path.display())),
            _ => error.into(),
        })
    }
}
