//! The arguments that name the gate file of a command.

use core::time::Duration;
use std::path::{Path, PathBuf};

use clap::Args;
use keytally::{Current, Decided, Error, FleetError, FleetFile, Followed, Gate, Wait};

use crate::failure::Failure;
use crate::output::{pluralized, print_note};
use crate::pepper::PepperSource;
use crate::status::Status;
use crate::{arguments, peppers, times};

/// The argument that names the gate file.
#[derive(Args, Debug)]
pub struct GateFile {
    /// Gate file
    #[arg(value_name = "GATE", value_parser = arguments::path_parser())]
    path: PathBuf,
}

impl GateFile {
    /// Opens the gate.
    ///
    /// # Errors
    /// A failure if no pepper is given, or if the gate cannot be opened.
    pub fn open(&self, pepper: &PepperSource) -> Result<Gate, Failure> {
        Ok(Gate::open(&self.path, pepper.require()?)?)
    }

    /// Opens the gate, for a call that follows its counts if they move to another file.
    pub(crate) fn follow(&self, pepper: &PepperSource) -> Result<Followed, Failure> {
        Ok(Followed::open(&self.path, pepper.require()?)?)
    }

    /// Returns the path, as it was given.
    pub fn path(&self) -> &Path {
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
    pub(crate) fn open(&self, pepper: &PepperSource) -> Result<GateToChange, Failure> {
        let followed = self.gate.follow(pepper)?;
        followed.load().set_wait(self.wait);
        followed.load_for_change()?;
        Ok(GateToChange { followed, wait: self.wait })
    }

    /// Opens the gate as [`open`](Self::open) does, for a new secret under the newest pepper.
    ///
    /// # Errors
    /// Those of `open`, and a failure if the peppers are probably in the wrong order.
    pub(crate) fn open_for_new_secret(
        &self,
        pepper: &PepperSource,
    ) -> Result<GateToChange, Failure> {
        let gate = self.open(pepper)?;
        peppers::check_order(&gate.current(), self.path())?;
        Ok(gate)
    }

    pub(crate) fn path(&self) -> &Path {
        self.gate.path()
    }
}

/// The arguments of a command whose change other machines of a fleet get.
#[derive(Args)]
pub(crate) struct FleetWait {
    /// Fleet file of this machine, for a gate that shares its limits with other machines: wait
    /// until the agents of all machines have confirmed the change, and print how many have. A
    /// machine counts until it refuses all keys, also if its agent is stopped. The confirmations
    /// are in the store: who can write to it can forge them
    #[arg(long = "fleet", value_name = "FILE", value_parser = arguments::path_parser())]
    fleet_file: Option<PathBuf>,
    /// The longest time to wait for the other machines
    #[arg(long, value_name = "TIME", default_value = "2s", requires = "fleet_file", value_parser = times::parse_duration)]
    fleet_wait: Duration,
}

impl FleetWait {
    /// Opens the fleet file before the change, so that nothing is changed if that fails or if the
    /// agent carries no keys.
    pub(crate) fn verify(&self, gate: &Gate) -> Result<(), Failure> {
        let Some(path) = &self.fleet_file else { return Ok(()) };
        let unchanged = |error: Error| match &error {
            Error::Fleet { source: FleetError::NotCarried, .. } => Failure::new(format!(
                "nothing was changed: {error}; without --fleet, this machine alone is changed"
            )),
            _ => Failure::with_context("nothing was changed", error),
        };
        let file = FleetFile::open(path, gate).map_err(unchanged)?;
        file.wait_for_keys(Duration::ZERO).map(drop).map_err(unchanged)
    }

    /// Waits until the other machines have the change, and prints how many have it. Returns
    /// [`Status::Flawed`] if some do not.
    pub(crate) fn wait(&self, gate: &Gate) -> Result<Status, Failure> {
        let Some(path) = &self.fleet_file else {
            if gate.is_in_fleet() {
                print_note(
                    "the gate is in a fleet; whether other machines have this change was not \
                     awaited: --fleet FILE waits for them",
                );
            }
            return Ok(Status::Success);
        };
        let time = humantime::format_duration(self.fleet_wait);
        let made = |error| Failure::with_context("the change was made on this machine", error);
        let file = FleetFile::open(path, gate).map_err(made)?;
        match file.wait_for_keys(self.fleet_wait).map_err(made)? {
            None => {
                let path = path.display();
                print_note(&format!(
                    "{path}: the agent of this machine has not carried the change within {time}"
                ));
                Ok(Status::Flawed)
            }
            Some(found) => {
                let agents = pluralized(found.agents, "agent");
                let have = if found.agents == 1 { "has" } else { "have" };
                let all =
                    format!("{} of {agents} of the fleet {have} confirmed it", found.confirmed);
                if found.is_complete() {
                    print_note(&all);
                    return Ok(Status::Success);
                }
                print_note(&format!("{all} within {time}"));
                let mut more = found.agents.saturating_sub(found.confirmed);
                for machine in file.lacking_keys() {
                    print_note(&format!("not confirmed: {machine}"));
                    more = more.saturating_sub(1);
                }
                if more > 0 {
                    print_note(&format!("and {}", pluralized(more, "further machine")));
                }
                Ok(Status::Flawed)
            }
        }
    }
}

/// A gate that a command changes.
pub(crate) struct GateToChange {
    followed: Followed,
    wait: Duration,
}

impl GateToChange {
    /// Calls `work` with the gate. If a migration replaced it before anything was changed, calls
    /// `work` again with the new one, within the wait.
    pub(crate) fn change<T>(
        &self,
        mut work: impl FnMut(&Gate) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.followed.change_within(Wait::at_most(self.wait), |gate, _| work(gate))
    }

    /// Calls `work` with the gate, and follows the counts if they move to another file.
    pub(crate) fn call<R: Decided>(&self, mut work: impl FnMut(&Gate) -> R) -> R {
        self.followed.call(|gate| work(gate))
    }

    /// Returns the longest time to wait while another process changes a gate.
    pub(crate) const fn wait(&self) -> Duration {
        self.wait
    }

    /// Returns the gate that the last change was made to.
    pub(crate) fn current(&self) -> Current {
        self.followed.load()
    }
}
