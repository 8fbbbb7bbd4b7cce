//! The tables that layers check: shared gates and limiters.

use alloc::sync::Arc;

use keytally::{Charge, Followed, Gate, Limiter, Verdict};

/// A gate that the threads of a server share: one that stays with its file, or one that is reopened
/// when its file is replaced.
///
/// A [`Followed`] gate detects a replacement only after a call of [`Followed::watch`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SharedGate {
    /// A gate that stays with its file, or is in memory.
    Gate(Arc<Gate>),
    /// A gate that is reopened when its file is replaced.
    Followed(Arc<Followed>),
}

impl SharedGate {
    /// Returns the gate in force.
    pub(crate) fn load(&self) -> Arc<Gate> {
        match self {
            Self::Gate(gate) => Arc::clone(gate),
            Self::Followed(gate) => gate.load().to_arc(),
        }
    }
}

impl From<Arc<Gate>> for SharedGate {
    fn from(gate: Arc<Gate>) -> Self {
        Self::Gate(gate)
    }
}

impl From<Gate> for SharedGate {
    fn from(gate: Gate) -> Self {
        Self::Gate(Arc::new(gate))
    }
}

impl From<Arc<Followed>> for SharedGate {
    fn from(gate: Arc<Followed>) -> Self {
        Self::Followed(gate)
    }
}

impl From<Followed> for SharedGate {
    fn from(gate: Followed) -> Self {
        Self::Followed(Arc::new(gate))
    }
}

/// A table that was charged for a request.
#[derive(Clone, Debug)]
pub(crate) enum Table {
    Gate(Arc<Gate>),
    Limiter(Arc<Limiter>),
}

impl Table {
    pub(crate) const fn is_gate(&self) -> bool {
        matches!(self, Self::Gate(_))
    }

    /// Returns whether both are one table. A table that was opened twice by one path is one table.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Gate(one), Self::Gate(other)) => {
                Arc::ptr_eq(one, other) || (one.path().is_some() && one.path() == other.path())
            }
            (Self::Limiter(one), Self::Limiter(other)) => {
                Arc::ptr_eq(one, other) || (one.path().is_some() && one.path() == other.path())
            }
            (Self::Gate(_), Self::Limiter(_)) | (Self::Limiter(_), Self::Gate(_)) => false,
        }
    }

    /// Replaces a charge by the actual cost. `verdict` is that of the check, and `subject` is what
    /// a limiter counted. Returns `None` if the gate no longer has the key.
    pub(crate) fn settle(
        &self,
        verdict: &Verdict,
        subject: &[u8],
        charge: Charge,
        actual: u32,
    ) -> Option<Verdict> {
        match self {
            Self::Gate(gate) => gate.settle(verdict.holder()?.key_id, charge, actual),
            Self::Limiter(limiter) => Some(limiter.settle(subject, charge, actual)),
        }
    }

    /// Returns a charge. Returns `None` if the gate no longer has the key.
    pub(crate) fn refund(
        &self,
        verdict: &Verdict,
        subject: &[u8],
        charge: Charge,
    ) -> Option<Verdict> {
        match self {
            Self::Gate(gate) => gate.refund(verdict.holder()?.key_id, charge),
            Self::Limiter(limiter) => Some(limiter.refund(subject, charge)),
        }
    }
}
