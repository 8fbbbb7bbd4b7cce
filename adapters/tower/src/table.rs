//! The tables that layers check: shared gates and limiters.

use alloc::sync::Arc;
use std::path::Path;

use keytally::{Charge, Followed, Gate, Limiter, Verdict, now};

use crate::address::Subject;
use crate::key::Key;

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

/// What a layer checks: a key with a gate, or a subject with a limiter.
#[derive(Debug)]
pub(crate) enum Checked {
    Key(Arc<Gate>, Key),
    Subject(Arc<Limiter>, Subject),
}

impl Checked {
    pub(crate) const fn is_by_gate(&self) -> bool {
        matches!(self, Self::Key(..))
    }

    /// Returns whether both are the same key or subject with one table.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Key(gate, key), Self::Key(other, other_key)) => {
                key == other_key && is_one(gate, other, |gate| gate.path())
            }
            (Self::Subject(limiter, subject), Self::Subject(other, other_subject)) => {
                subject == other_subject && is_one(limiter, other, |limiter| limiter.path())
            }
            (Self::Key(..), Self::Subject(..)) | (Self::Subject(..), Self::Key(..)) => false,
        }
    }

    /// Charges a cost.
    pub(crate) fn check(&self, cost: u32) -> Verdict {
        match self {
            Self::Key(gate, Key::Missing) => gate.check(None, cost),
            Self::Key(gate, Key::One(key)) => gate.check(Some(key.as_bytes()), cost),
            Self::Key(_, Key::Several) => Verdict::duplicate_header(now()),
            Self::Subject(limiter, subject) => limiter.check(subject, cost),
        }
    }

    /// Replaces a charge by the actual cost. `verdict` is that of the check. Returns `None` if the
    /// gate no longer has the key.
    pub(crate) fn settle(&self, verdict: &Verdict, charge: Charge, actual: u32) -> Option<Verdict> {
        match self {
            Self::Key(gate, _) => gate.settle(verdict.holder()?.key_id, charge, actual),
            Self::Subject(limiter, subject) => Some(limiter.settle(subject, charge, actual)),
        }
    }

    /// Returns a charge. Returns `None` if the gate no longer has the key.
    pub(crate) fn refund(&self, verdict: &Verdict, charge: Charge) -> Option<Verdict> {
        match self {
            Self::Key(gate, _) => gate.refund(verdict.holder()?.key_id, charge),
            Self::Subject(limiter, subject) => Some(limiter.refund(subject, charge)),
        }
    }
}

/// Returns whether both are one table. A table that was opened twice by one path is one table.
fn is_one<T>(table: &Arc<T>, other: &Arc<T>, path: impl Fn(&T) -> Option<&Path>) -> bool {
    Arc::ptr_eq(table, other) || path(table).is_some_and(|own| Some(own) == path(other))
}
