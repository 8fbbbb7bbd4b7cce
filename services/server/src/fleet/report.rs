//! What the thread of an agent reports, and what the threads of an agent share.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use keytally::{FleetFile, Peppers};
use keytally_cli::internal::Failure;
use keytally_core::sync::Ordering;
use keytally_fleet::plan::layout::{PageWord, Phase, ReplicasState};
use keytally_fleet::{Counts, UnusableKey};

use super::files::Table;
use super::keys::KeysReport;

/// What an agent does at present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Role {
    /// It has not opened the fleet file yet.
    #[default]
    Starting,
    /// Another agent of the machine leads.
    StandingBy,
    /// It leads.
    Leading,
}

/// What the thread of the agent has to report.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) role: Role,
    pub(crate) phase: Phase,
    pub(crate) counts: Counts,
    pub(crate) keys: KeysReport,
    /// Why there is no store.
    pub(super) problem: Option<String>,
    /// Whether too few replicas confirm.
    pub(super) replicas: Option<ReplicasState>,
    /// The keys of the store that lease requests cannot use.
    pub(super) unusable: Vec<UnusableKey>,
    /// Whether the gate or limiter is in a fleet.
    pub(super) is_shared: bool,
    /// Whether the path leads to another fleet file, or to none.
    pub(super) is_removed: bool,
    /// How often the thread has looked whether it must end.
    pub(super) turns: u64,
}

/// What the threads of an agent share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) table: PathBuf,
    /// `gate` or `limiter`.
    pub(super) kind: &'static str,
    pub(crate) file: PathBuf,
    /// Those of a gate.
    pub(super) peppers: Option<Peppers>,
    pub(super) report: Mutex<Report>,
    pub(super) is_ending: Mutex<bool>,
}

impl Shared {
    /// Opens the gate or the limiter that is at the path now.
    pub(crate) fn open(&self) -> Result<Table, Failure> {
        Table::open(&self.table, || {
            self.peppers.clone().ok_or_else(|| Failure::new("the file is a gate now"))
        })
    }

    /// Returns what the agent's thread has reported.
    pub(crate) fn report(&self) -> Report {
        self.reported().clone()
    }

    pub(super) fn reported(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_ending(&self) -> bool {
        *self.is_ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn end(&self) {
        *self.is_ending.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

/// Returns what the agent says of the store's replicas, if too few confirm.
pub(crate) fn replicas_of(file: &FleetFile<'_>) -> Option<ReplicasState> {
    ReplicasState::from_bits(file.page(PageWord::Replicas).load(Ordering::Acquire))
}

/// Returns what too few confirming replicas mean.
pub(crate) fn lacking(replicas: ReplicasState) -> String {
    let ReplicasState { needed, confirming } = replicas;
    let found = format!("{confirming} replicas of the store confirm, and --confirm needs {needed}");
    format!("{found}: no units are leased")
}
