//! The arguments that name the gate file of a command.

use core::time::Duration;
use std::path::{Path, PathBuf};

use clap::Args;
use keytally::{Followed, Gate};

use crate::failure::Failure;
use crate::pepper::PepperSource;
use crate::{arguments, times};

/// The argument that names the gate file.
#[derive(Args)]
pub(crate) struct GateFile {
    /// Gate file
    #[arg(value_name = "GATE", value_parser = arguments::path_parser())]
    path: PathBuf,
}

impl GateFile {
    /// Opens the gate.
    pub(crate) fn open(&self, pepper: &PepperSource) -> Result<Gate, Failure> {
        Ok(Gate::open(&self.path, pepper.require()?)?)
    }

    /// Opens the gate, for a call that follows its counts if they move to another file.
    pub(crate) fn follow(&self, pepper: &PepperSource) -> Result<Followed, Failure> {
        Ok(Followed::open(&self.path, pepper.require()?)?)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Returns the failure of a reset of counts that did not arrive in time in the file to which they
/// move.
pub(crate) fn counts_are_moving(path: &Path) -> Failure {
    let path = path.display();
    Failure::new(format!("{path}: the counts are being moved to another file; try again"))
}

/// The arguments of a command that changes its gate, under the gate's lock.
#[derive(Args)]
pub(crate) struct GateFileToChange {
    #[command(flatten)]
    gate: GateFile,
    /// The longest time to wait while another process changes the gate, such as 30s; 0s does not
    /// wait
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = times::parse_duration)]
    wait: Duration,
}

impl GateFileToChange {
    /// Opens the gate, and sets its wait to that of the option. If a process was killed while it
    /// migrated the gate, completes that first.
    pub(crate) fn open(&self, pepper: &PepperSource) -> Result<Gate, Failure> {
        let mut gate = self.gate.open(pepper)?;
        gate.set_wait(self.wait);
        if gate.table().is_migrating() {
            gate.complete_migration()?;
            gate = self.gate.open(pepper)?;
            gate.set_wait(self.wait);
        }
        Ok(gate)
    }

    pub(crate) fn path(&self) -> &Path {
        self.gate.path()
    }
}
