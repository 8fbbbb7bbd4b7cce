//! The charges of one request: each table is charged at most once, and either all or none.
//!
//! A request has one record, in its extensions. All layers that check the request share it.

use alloc::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::HeaderMap;
use keytally::{Charge, Outcome, Verdict};

use crate::fields;
use crate::key::Key;
use crate::table::Table;

/// The record of a request, for its extensions.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedRecord(Arc<Mutex<Record>>);

impl SharedRecord {
    /// Locks the record. No lock is held while the application's functions run.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The decisions on one request.
#[derive(Debug, Default)]
pub(crate) struct Record {
    decisions: Vec<Decision>,
    /// The outcome that shadow mode did not enforce.
    pub(crate) shadow: Option<&'static str>,
}

/// What a table checked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    /// The key of the request, with a gate.
    Key(Key),
    /// The subject that a limiter counts.
    Subject(Vec<u8>),
}

/// The decision of one table on a request.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) table: Table,
    checked: Checked,
    /// The verdict of the check.
    verdict: Verdict,
    /// The verdict of the check that made the charge.
    charged: Verdict,
    /// The charge that was neither refunded nor settled.
    charge: Option<Charge>,
    /// The verdict that the header fields report: that of the check, or of a later refund.
    pub(crate) reported: Verdict,
    /// Whether the response lists the quotas of the table.
    pub(crate) listed: bool,
}

impl Decision {
    fn new(table: Table, checked: Checked, verdict: Verdict) -> Self {
        let charge = verdict.charge();
        Self { table, checked, verdict, charged: verdict, charge, reported: verdict, listed: false }
    }

    /// Refunds the charge, if there is one.
    fn refund(&mut self) {
        self.change(Table::refund);
    }

    /// Takes the charge, if it is more than nothing, and reports the verdict of `change`.
    fn change(&mut self, change: impl FnOnce(&Table, &Verdict, &[u8], Charge) -> Option<Verdict>) {
        let subject = match &self.checked {
            Checked::Key(_) => &[][..],
            Checked::Subject(subject) => subject,
        };
        if let Some(charge) = self.charge.take()
            && let Some(verdict) = change(&self.table, &self.charged, subject, charge)
        {
            self.reported = verdict;
        }
    }
}

impl Record {
    /// Charges a table by `check`, unless this request was charged for the same already. Returns
    /// the verdict and the index of the decision.
    ///
    /// If it was already, and the cost is higher now, the higher cost replaces the earlier one.
    pub(crate) fn charge(
        &mut self,
        table: Table,
        checked: Checked,
        cost: u32,
        check: impl Fn(u32) -> Verdict,
    ) -> (Verdict, usize) {
        let index = self
            .decisions
            .iter()
            .position(|made| made.checked == checked && made.table.is_same(&table));
        let Some((index, made)) =
            index.and_then(|index| Some((index, self.decisions.get_mut(index)?)))
        else {
            let verdict = check(cost);
            // Most requests have one decision, and a decision takes almost a kilobyte.
            self.decisions.reserve_exact(1);
            self.decisions.push(Decision::new(table, checked, verdict));
            return (verdict, self.decisions.len() - 1);
        };
        let before = made.charge.map_or(0, |charge| charge.cost);
        if made.verdict.is_admitted() && cost > before {
            made.refund();
            let verdict = check(cost);
            made.verdict = verdict;
            made.reported = verdict;
            // In shadow mode the request proceeds, so the earlier charge is due again.
            made.charged = if verdict.is_admitted() { verdict } else { check(before) };
            made.charge = made.charged.charge();
        }
        (made.verdict, index)
    }

    /// Makes the response list the quotas of a decision.
    pub(crate) fn list(&mut self, index: usize) {
        if let Some(decision) = self.decisions.get_mut(index) {
            decision.listed = true;
        }
    }

    /// Records that the request is refused. If a limit refuses it, refunds all charges.
    pub(crate) fn refuse(&mut self, outcome: Outcome) {
        if !matches!(outcome, Outcome::MissingKey | Outcome::InvalidKey) {
            self.decisions.iter_mut().for_each(Decision::refund);
        }
    }

    /// Returns the units of the charge of a decision; `None` if there is none, or it was settled or
    /// refunded.
    pub(crate) fn cost(&self, index: usize) -> Option<u32> {
        self.decisions.get(index)?.charge.map(|charge| charge.cost)
    }

    /// Replaces the charge of a decision by the actual cost. Does nothing if the charge was settled
    /// or refunded.
    pub(crate) fn settle(&mut self, index: usize, actual: u32) {
        if let Some(decision) = self.decisions.get_mut(index) {
            decision.change(|table, verdict, subject, charge| {
                table.settle(verdict, subject, charge, actual)
            });
        }
    }

    /// Refunds the charge of a decision. Does nothing if the charge was settled or refunded.
    pub(crate) fn refund(&mut self, index: usize) {
        if let Some(decision) = self.decisions.get_mut(index) {
            decision.refund();
        }
    }

    /// Returns the verdict of the last gate; without a gate, that of the first limiter.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        let gate = self.decisions.iter().rfind(|decision| decision.table.is_gate());
        gate.or_else(|| self.decisions.first()).map(|decision| decision.verdict)
    }

    /// Sets the fields of all decisions that are listed, and replaces those of the application.
    pub(crate) fn set_fields(&self, headers: &mut HeaderMap) {
        let listed: Vec<&Decision> =
            self.decisions.iter().filter(|decision| decision.listed).collect();
        fields::set_all(headers, &listed);
        if let Some(outcome) = self.shadow {
            fields::set(headers, fields::SHADOW, outcome);
        }
    }
}
