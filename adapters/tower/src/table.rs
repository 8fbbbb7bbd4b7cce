//! The tables that layers check: shared gates and limiters.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::time::Duration;
use std::path::Path;

use keytally::{
    Address, AddressLimiter, Charge, Decided, Followed, Gate, GatePart, Limiter, Mapping, Patience,
    RequestError, Verdict, check_all, now, peek_all,
};

use crate::address::Subject;
use crate::answer::Answer;
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

    /// Calls `work` with the gate in force: see [`Followed::call`].
    pub(crate) fn call<R: Decided>(&self, mut work: impl FnMut(&Gate) -> R) -> R {
        match self {
            Self::Gate(gate) => work(gate),
            Self::Followed(gate) => gate.call(|gate| work(gate)),
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

/// A limiter that the threads of a server share.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SharedLimiter {
    /// A limiter of any subjects.
    Subjects(Arc<Limiter>),
    /// A limiter of addresses, which counts each client in the networks of several prefixes.
    Addresses(Arc<AddressLimiter>),
}

impl From<Arc<Limiter>> for SharedLimiter {
    fn from(limiter: Arc<Limiter>) -> Self {
        Self::Subjects(limiter)
    }
}

impl From<Limiter> for SharedLimiter {
    fn from(limiter: Limiter) -> Self {
        Self::Subjects(Arc::new(limiter))
    }
}

impl From<Arc<AddressLimiter>> for SharedLimiter {
    fn from(limiter: Arc<AddressLimiter>) -> Self {
        Self::Addresses(limiter)
    }
}

impl From<AddressLimiter> for SharedLimiter {
    fn from(limiter: AddressLimiter) -> Self {
        Self::Addresses(Arc::new(limiter))
    }
}

/// The groups that a request charges, and the scopes that its key needs.
///
/// It is public for routes that check a gate themselves.
///
/// ```
/// # use keytally::{Gate, GateConfig, Name, NewKey, Plan, pepper};
/// # let text = "1000/hour; group write: 20/minute".parse()?;
/// # let config = GateConfig::default().with_plans(vec![Plan::new("default", text).unwrap()]);
/// # let gate = Gate::in_memory(pepper::parse(&pepper::generate()?)?, &config)?;
/// # let (key, _) = gate.issue(&NewKey::new(42, Name::new("live").unwrap()))?;
/// use keytally_tower::Extras;
/// let extras = Extras::default().with_group("write", None);
/// let answer = extras.check(&gate, Some(key.expose().as_bytes()), 1)?;
/// assert!(answer.verdict.is_admitted() && answer.charge().is_some());
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// The names of groups, with the costs of those that have their own.
    groups: Vec<(String, Option<u32>)>,
    scopes: Vec<String>,
}

impl Extras {
    /// Adds a group, with a cost of its own or, for `None`, the cost of the request.
    #[must_use]
    pub fn with_group(mut self, name: &str, cost: Option<u32>) -> Self {
        self.groups.push((name.to_owned(), cost));
        self
    }

    /// Adds a scope that the key needs.
    #[must_use]
    pub fn with_scope(mut self, name: &str) -> Self {
        self.scopes.push(name.to_owned());
        self
    }

    /// Checks a key and charges it, its team and the groups, all or none.
    ///
    /// # Errors
    /// If the gate does not have a group or a scope. Nothing is charged then.
    pub fn check(
        &self,
        gate: &Gate,
        api_key: Option<&[u8]>,
        cost: u32,
    ) -> Result<Answer, RequestError> {
        self.answer(gate, api_key, cost, Some(Patience::Wait))
    }

    /// Checks a key as [`check`](Self::check) does. `patience` is what the request does if it lacks
    /// credits of a fleet: an event loop does not wait, and checks again.
    ///
    /// # Errors
    /// Those of [`check`](Self::check).
    pub fn check_with(
        &self,
        gate: &Gate,
        api_key: Option<&[u8]>,
        cost: u32,
        patience: Patience,
    ) -> Result<Answer, RequestError> {
        self.answer(gate, api_key, cost, Some(patience))
    }

    /// Returns what [`check`](Self::check) would return, and charges nothing.
    ///
    /// # Errors
    /// Those of [`check`](Self::check).
    pub fn peek(
        &self,
        gate: &Gate,
        api_key: Option<&[u8]>,
        cost: u32,
    ) -> Result<Answer, RequestError> {
        self.answer(gate, api_key, cost, None)
    }

    /// Checks a key, and charges it if there is a patience.
    fn answer(
        &self,
        gate: &Gate,
        api_key: Option<&[u8]>,
        cost: u32,
        patience: Option<Patience>,
    ) -> Result<Answer, RequestError> {
        if !gate.table().is_extended() && self.groups.is_empty() && self.scopes.is_empty() {
            let verdict = match patience {
                Some(Patience::Wait) => gate.check(api_key, cost),
                Some(patience) => gate.counted_with(patience).check(api_key, cost, gate.clock()),
                None => gate.peek(api_key, cost),
            };
            return Ok(verdict.into());
        }
        let part = self.part(gate, api_key, cost, patience.unwrap_or(Patience::Wait))?;
        let call = if patience.is_some() { check_all } else { peek_all };
        // A gate has at most as many tallies as a request may charge.
        Ok(call(&[&part]).map_or_else(|_| gate.check(api_key, cost).into(), Answer::from))
    }

    /// Adds what another layer requires, whose cost is `other_cost`. Of two costs of a group, the
    /// higher one counts.
    fn add(&mut self, own_cost: u32, other: &Self, other_cost: u32) {
        for (name, cost) in &other.groups {
            match self.groups.iter_mut().find(|(own, _)| own == name) {
                Some((_, None)) if cost.is_none() => {}
                Some((_, own)) => {
                    *own = Some(own.unwrap_or(own_cost).max(cost.unwrap_or(other_cost)));
                }
                None => self.groups.push((name.clone(), *cost)),
            }
        }
        self.scopes.extend(other.scopes.iter().cloned());
    }

    /// Returns the part of a request that charges a key with these groups.
    ///
    /// # Errors
    /// If the gate does not have a group or a scope.
    pub(crate) fn part<'g>(
        &self,
        gate: &'g Gate,
        api_key: Option<&'g [u8]>,
        cost: u32,
        patience: Patience,
    ) -> Result<GatePart<'g, Mapping>, RequestError> {
        let mut part = gate.counted_with(patience).part(api_key, cost);
        for (name, cost) in &self.groups {
            part = match cost {
                Some(cost) => part.with_group_cost(name, *cost),
                None => part.with_group(name),
            }?;
        }
        self.scopes.iter().try_fold(part, |part, scope| part.with_scope(scope))
    }
}

/// What a layer checks: a key with a gate, or a subject or an address with a limiter.
#[derive(Debug)]
pub(crate) enum Checked {
    Key(SharedGate, Key, Extras),
    Subject(Arc<Limiter>, Subject),
    Address(Arc<AddressLimiter>, Address),
}

impl Checked {
    pub(crate) const fn is_by_gate(&self) -> bool {
        matches!(self, Self::Key(..))
    }

    /// Returns whether both are the same key or subject with one table.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Key(gate, key, _), Self::Key(other, other_key, _)) => {
                key == other_key && is_one(&gate.load(), &other.load(), |gate| gate.path())
            }
            (Self::Subject(limiter, subject), Self::Subject(other, other_subject)) => {
                subject == other_subject && is_one(limiter, other, |limiter| limiter.path())
            }
            (Self::Address(limiter, address), Self::Address(other, other_address)) => {
                address == other_address && is_one(limiter, other, |limiter| limiter.path())
            }
            _ => false,
        }
    }

    /// Adds what another layer requires of the same key. If that is more, returns what was required
    /// before.
    pub(crate) fn add(&mut self, own_cost: u32, other: &Self, other_cost: u32) -> Option<Extras> {
        let (Self::Key(_, _, own), Self::Key(_, _, other)) = (self, other) else { return None };
        let before = own.clone();
        own.add(own_cost, other, other_cost);
        (*own != before).then_some(before)
    }

    /// Replaces what is required of the key.
    pub(crate) fn require(&mut self, extras: Extras) {
        if let Self::Key(_, _, own) = self {
            *own = extras;
        }
    }

    /// Charges a cost. Returns `None` if the gate does not have a group or a scope that the layer
    /// names, as after it was replaced.
    pub(crate) fn check(&self, cost: u32, patience: Patience) -> Option<Answer> {
        self.answer(cost, Some(patience))
    }

    /// Returns what a check of no units would return, without a charge.
    pub(crate) fn peek(&self) -> Option<Answer> {
        self.answer(0, None)
    }

    /// Returns the pauses of a request that waits for credits of a fleet.
    pub(crate) fn pauses(&self) -> Box<dyn Iterator<Item = Duration> + Send + Sync> {
        match self {
            Self::Key(gate, ..) => Box::new(gate.load().credit_pauses()),
            Self::Subject(limiter, _) => Box::new(limiter.credit_pauses()),
            Self::Address(limiter, _) => Box::new(limiter.credit_pauses()),
        }
    }

    /// Checks a cost, and charges it if there is a patience.
    fn answer(&self, cost: u32, patience: Option<Patience>) -> Option<Answer> {
        let (gate, key, extras) = match self {
            Self::Key(_, Key::Several, _) => return Some(Verdict::duplicate_header(now()).into()),
            Self::Key(gate, key, extras) => (gate, key, extras),
            Self::Subject(limiter, subject) => {
                let Some(patience) = patience else {
                    return Some(limiter.peek(subject, cost).into());
                };
                let table = limiter.reserving(patience);
                return Some(table.check(subject, cost, limiter.clock()).into());
            }
            Self::Address(limiter, address) => {
                let Some(patience) = patience else {
                    return Some(limiter.peek(*address, cost).into());
                };
                let table = limiter.reserving(patience);
                return Some(table.check(*address, cost, limiter.clock()).into());
            }
        };
        let api_key = match key {
            Key::One(key) => Some(key.as_bytes()),
            _ => None,
        };
        gate.call(|gate| extras.answer(gate, api_key, cost, patience)).ok()
    }

    /// Replaces a charge by the actual cost. `verdict` is that of the check. Returns `None` if the
    /// gate no longer has the key.
    pub(crate) fn settle(&self, verdict: &Verdict, charge: Charge, actual: u32) -> Option<Verdict> {
        match self {
            Self::Key(gate, ..) => {
                let key_id = verdict.holder()?.key_id;
                gate.call(|gate| gate.settle(key_id, charge, actual))
            }
            Self::Subject(limiter, subject) => Some(limiter.settle(subject, charge, actual)),
            Self::Address(limiter, address) => {
                Some(*limiter.settle(*address, charge, actual).decisive())
            }
        }
    }

    /// Returns a charge. Returns `None` if the gate no longer has the key.
    pub(crate) fn refund(&self, verdict: &Verdict, charge: Charge) -> Option<Verdict> {
        match self {
            Self::Key(gate, ..) => {
                let key_id = verdict.holder()?.key_id;
                gate.call(|gate| gate.refund(key_id, charge))
            }
            Self::Subject(limiter, subject) => Some(limiter.refund(subject, charge)),
            Self::Address(limiter, address) => Some(*limiter.refund(*address, charge).decisive()),
        }
    }
}

/// Returns whether both are one table. A table that was opened twice by one path is one table.
fn is_one<T>(table: &Arc<T>, other: &Arc<T>, path: impl Fn(&T) -> Option<&Path>) -> bool {
    Arc::ptr_eq(table, other) || path(table).is_some_and(|own| Some(own) == path(other))
}
