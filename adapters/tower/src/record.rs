//! The charges of one request: each table is charged at most once, and either all or none.
//!
//! A request has one record, in its extensions. All layers that check the request share it.

use alloc::sync::Arc;
use core::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, HeaderValue};
use keytally::{Charge, Outcome, Patience, Verdict};

use crate::answer::{Answer, Respond};
use crate::fields;
use crate::table::Checked;

/// The record of a request, for its extensions.
#[derive(Clone, Debug)]
pub(crate) struct SharedRecord(Arc<Mutex<Record>>);

impl SharedRecord {
    /// Returns a new record with one decision, whose index is 0.
    pub(crate) fn new(first: Decision) -> Self {
        Self(Arc::new(Mutex::new(Record { first, others: Vec::new(), gate: None, shadow: None })))
    }

    /// Locks the record. No lock is held while the application's functions run.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The decisions on one request.
#[derive(Debug)]
pub(crate) struct Record {
    first: Decision,
    others: Vec<Decision>,
    /// The index of the decision of the last [`GateLayer`](crate::GateLayer).
    pub(crate) gate: Option<usize>,
    /// The outcome that shadow mode did not enforce.
    pub(crate) shadow: Option<&'static str>,
}

/// The result of [`Record::charge`].
pub(crate) enum Charged {
    /// The answer of the table, and the index of its decision.
    By(Answer, usize),
    /// Nothing is charged: the request waits for credits of a fleet.
    Waits(Checked),
    /// The gate does not have a group or a scope that the layer names.
    UnknownName,
}

/// The decision of one table on a request.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) checked: Checked,
    /// The answer to the check, or the state after a refund or a settlement, whichever was last.
    answer: Answer,
    /// The charge that was neither refunded nor settled.
    charge: Option<Charge>,
    /// Whether the response lists the quotas of the table.
    pub(crate) listed: bool,
}

impl Decision {
    /// Returns a decision with the verdict of a check.
    pub(crate) fn new(checked: Checked, answer: Answer, listed: bool) -> Self {
        let charge = answer.charge();
        Self { checked, answer, charge, listed }
    }

    /// Returns what the response shows of the decision.
    pub(crate) fn shown(&self) -> &dyn Respond {
        self.answer.shown()
    }

    /// Refunds the charge, if there is one.
    fn refund(&mut self) {
        self.change(Checked::refund);
    }

    /// Takes the charge, if it is more than nothing, and keeps the verdict of `change`.
    fn change(&mut self, change: impl FnOnce(&Checked, &Verdict, Charge) -> Option<Verdict>) {
        if let Some(charge) = self.charge.take()
            && let Some(verdict) = change(&self.checked, &self.answer.verdict, charge)
        {
            let is_compound = self.answer.compound.is_some();
            let all = is_compound.then(|| self.checked.peek()).flatten();
            self.answer = all.unwrap_or_else(|| verdict.into());
        }
    }
}

impl Record {
    /// Returns the decisions, the first one first.
    pub(crate) fn decisions(&self) -> impl DoubleEndedIterator<Item = &Decision> {
        [&self.first].into_iter().chain(&self.others)
    }

    fn decision(&mut self, index: usize) -> Option<&mut Decision> {
        match index.checked_sub(1) {
            None => Some(&mut self.first),
            Some(index) => self.others.get_mut(index),
        }
    }

    /// Charges a table, unless this request was charged for the same already.
    ///
    /// If it was already, and the cost is higher now or there are other groups, the new charge
    /// replaces the earlier one.
    pub(crate) fn charge(
        &mut self,
        checked: Checked,
        cost: u32,
        listed: bool,
        patience: Patience,
    ) -> Charged {
        let made = self.decisions().position(|made| made.checked.is_same(&checked));
        let Some((index, made)) = made.and_then(|index| Some((index, self.decision(index)?)))
        else {
            let Some(answer) = checked.check(cost, patience) else { return Charged::UnknownName };
            if answer.is_waiting() {
                return Charged::Waits(checked);
            }
            self.others.push(Decision::new(checked, answer.clone(), listed));
            return Charged::By(answer, self.others.len());
        };
        made.listed |= listed;
        let before = made.charge.map_or(0, |charge| charge.cost());
        let required = made.checked.add(before, &checked, cost);
        if made.answer.verdict.is_admitted() && (cost > before || required.is_some()) {
            made.refund();
            let Some(answer) = made.checked.check(cost.max(before), patience) else {
                return Charged::UnknownName;
            };
            if answer.is_waiting() {
                if let Some(required) = required {
                    made.checked.require(required);
                }
                if let Some(again) = made.checked.check(before, Patience::Decide) {
                    made.charge = again.charge();
                    made.answer = again;
                }
                return Charged::Waits(checked);
            }
            made.answer = answer;
            made.charge = if made.answer.verdict.is_admitted() {
                made.answer.charge()
            } else {
                // In shadow mode the request proceeds, so the earlier charge is due again.
                let again = made.checked.check(before, Patience::Decide);
                again.and_then(|again| again.charge())
            };
        }
        Charged::By(made.answer.clone(), index)
    }

    /// Records that a decision refuses the request: lists it, and refunds all charges if a limit
    /// refuses.
    pub(crate) fn refuse(&mut self, index: usize, outcome: Outcome) {
        if !matches!(outcome, Outcome::MissingKey | Outcome::InvalidKey) {
            self.first.refund();
            self.others.iter_mut().for_each(Decision::refund);
        }
        if let Some(decision) = self.decision(index) {
            decision.listed = true;
        }
    }

    /// Returns the units of the charge of a decision; `None` if there is none, or it was settled or
    /// refunded.
    pub(crate) fn cost(&self, index: usize) -> Option<u32> {
        self.decisions().nth(index)?.charge.map(|charge| charge.cost())
    }

    /// Replaces the charge of a decision by the actual cost. Does nothing if the charge was settled
    /// or refunded.
    pub(crate) fn settle(&mut self, index: usize, actual: u32) {
        if let Some(decision) = self.decision(index) {
            decision.change(|checked, verdict, charge| checked.settle(verdict, charge, actual));
        }
    }

    /// Refunds the charge of a decision. Does nothing if the charge was settled or refunded.
    pub(crate) fn refund(&mut self, index: usize) {
        if let Some(decision) = self.decision(index) {
            decision.refund();
        }
    }

    /// Returns the verdict of the last [`GateLayer`](crate::GateLayer).
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        self.decisions().nth(self.gate?).map(|decision| decision.answer.verdict)
    }

    /// Sets the fields of all decisions that are listed, and replaces those of the application.
    /// The first one is that of the last gate; without a gate, that of the first limiter.
    pub(crate) fn set_fields(&self, headers: &mut HeaderMap) {
        let listed = || self.decisions().filter(|decision| decision.listed);
        let gate = listed().rfind(|decision| decision.checked.is_by_gate());
        if let Some(first) = gate.or_else(|| listed().next()) {
            let others = listed().filter(|decision| !ptr::eq(*decision, first));
            fields::set_all(headers, first.shown(), others.map(Decision::shown));
        }
        if let Some(outcome) = self.shadow {
            headers.insert(fields::SHADOW, HeaderValue::from_static(outcome));
        }
    }
}
