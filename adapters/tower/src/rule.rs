//! The rule that a layer applies to a request: check a table, and act on the verdict.

use alloc::sync::Arc;
use core::fmt;

use bytes::Bytes;
use http::header::WWW_AUTHENTICATE;
use http::request::Parts;
use http::{Method, Response, response};
use keytally::{Address, Outcome, Patience, Verdict};

use crate::address::{Subject, peer, subject};
use crate::answer::{Answer, Respond};
use crate::caller::Caller;
use crate::charge::{Adjustment, OpenCharge};
use crate::exempt::ExemptPaths;
use crate::fields;
use crate::key::{Key, KeySources};
use crate::record::{Charged, Decision, SharedRecord};
use crate::respond;
use crate::table::{Checked, Extras, SharedGate, SharedLimiter};

/// The prefix length of the IPv6 networks that count as one client.
const IPV6_PREFIX: u8 = 64;

/// The configuration of a layer.
#[derive(Clone)]
pub(crate) struct Rule {
    pub(crate) kind: Kind,
    pub(crate) cost: Cost,
    pub(crate) client: Client,
    pub(crate) exempt_paths: ExemptPaths,
    pub(crate) exempt_methods: Vec<Method>,
    pub(crate) adjustment: Arc<Adjustment>,
    pub(crate) shadow: bool,
    pub(crate) listed: bool,
    pub(crate) on_verdict: Option<Arc<OnVerdict>>,
    pub(crate) refusal: Option<Arc<RefusalFn>>,
}

pub(crate) type CostFn = dyn Fn(&Parts) -> u32 + Send + Sync;
pub(crate) type SubjectFn = dyn Fn(&Parts) -> Option<Vec<u8>> + Send + Sync;
pub(crate) type OnVerdict = dyn Fn(&Verdict, &Parts) + Send + Sync;
pub(crate) type RefusalFn = dyn Fn(&Verdict, &Parts) -> Response<Bytes> + Send + Sync;

/// The table that a layer checks.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Gate(GateRule),
    Limiter(SharedLimiter),
}

/// The settings that only a gate has.
#[derive(Clone, Debug)]
pub(crate) struct GateRule {
    pub(crate) gate: SharedGate,
    pub(crate) keys: KeySources,
    /// Counts invalid keys by client.
    pub(crate) failures: Option<SharedLimiter>,
    /// Counts requests without a key by client.
    pub(crate) without_key: Option<SharedLimiter>,
    pub(crate) extras: Extras,
}

/// The cost of a request.
#[derive(Clone)]
pub(crate) enum Cost {
    Constant(u32),
    Function(Arc<CostFn>),
}

/// The client of a request, as limiters count it.
#[derive(Clone)]
pub(crate) enum Client {
    /// The address of the peer, or its IPv6 network with a prefix of this length.
    Peer(u8),
    Function(Arc<SubjectFn>),
}

/// The result of a check.
pub(crate) enum Decided {
    /// The request proceeds, and this follows when the response is known.
    Proceeds(Pending),
    /// The request is refused with this response.
    Refused(Response<Bytes>),
    /// Nothing is charged: the check waits for credits of a fleet, and is made again.
    Waits(Check),
}

/// A check of a request.
pub(crate) struct Check {
    pub(crate) checked: Checked,
    /// The gate of a [`GateLayer`](crate::GateLayer).
    gate: Option<SharedGate>,
    cost: u32,
}

/// What is checked, and the gate of a [`GateLayer`](crate::GateLayer).
type CheckedBy = (Checked, Option<SharedGate>);

/// What remains to be done when the response is known.
#[derive(Default)]
pub(crate) struct Pending {
    /// The charge, if the outcome may change it.
    charge: Option<OpenCharge>,
    /// The record, if this layer is the first of the request. It sets the header fields.
    record: Option<SharedRecord>,
}

impl Rule {
    pub(crate) fn new(kind: Kind) -> Arc<Self> {
        Arc::new(Self {
            kind,
            cost: Cost::Constant(1),
            client: Client::Peer(IPV6_PREFIX),
            exempt_paths: ExemptPaths::default(),
            exempt_methods: Vec::new(),
            adjustment: Arc::default(),
            shadow: false,
            listed: true,
            on_verdict: None,
            refusal: None,
        })
    }

    /// Checks a request.
    pub(crate) fn check(&self, request: &mut Parts) -> Decided {
        if self.exempt_methods.contains(&request.method)
            || self.exempt_paths.contains(request.uri.path())
        {
            return Decided::Proceeds(Pending::default());
        }
        let cost = match &self.cost {
            Cost::Constant(cost) => *cost,
            Cost::Function(cost) => cost(request),
        };
        match self.checked(request) {
            Ok(Some((checked, gate))) => {
                self.decide(Check { checked, gate, cost }, request, Patience::Return)
            }
            Ok(None) => Decided::Proceeds(Pending::default()),
            Err(UnknownPeer) => {
                let response = respond::unknown_peer(&request.headers);
                Decided::Refused(respond::sized(response, &request.method))
            }
        }
    }

    /// Makes a check, for the first time or again.
    pub(crate) fn decide(&self, check: Check, request: &mut Parts, patience: Patience) -> Decided {
        let Check { checked, gate, cost } = check;
        let earlier = request.extensions.get::<SharedRecord>().cloned();
        let is_first = earlier.is_none();
        let (record, charged) = match earlier {
            Some(record) => {
                let charged = record.lock().charge(checked, cost, self.listed, patience);
                (Some(record), charged)
            }
            None => match checked.check(cost, patience) {
                None => (None, Charged::UnknownName),
                Some(answer) if answer.is_waiting() => (None, Charged::Waits(checked)),
                Some(answer) => {
                    let decision = Decision::new(checked, answer.clone(), self.listed);
                    let record = SharedRecord::new(decision);
                    request.extensions.insert(record.clone());
                    (Some(record), Charged::By(answer, 0))
                }
            },
        };
        let (record, answer, index) = match (record, charged) {
            (Some(record), Charged::By(answer, index)) => (record, answer, index),
            (_, Charged::Waits(checked)) => return Decided::Waits(Check { checked, gate, cost }),
            _ => {
                let response = respond::unknown_group(&request.headers);
                return Decided::Refused(respond::sized(response, &request.method));
            }
        };
        let verdict = answer.verdict;
        if let Some(gate) = gate {
            record.lock().gate = Some(index);
            request.extensions.insert(Caller::new(verdict, gate.load()));
            request.extensions.insert(verdict);
        }
        if let Some(on_verdict) = &self.on_verdict {
            on_verdict(&verdict, request);
        }
        if !verdict.is_admitted() {
            if !self.shadow {
                return Decided::Refused(self.refuse(&answer, index, request, &record, is_first));
            }
            record.lock().shadow.get_or_insert(verdict.outcome().as_str());
        }
        let charge = self
            .adjustment
            .is_needed()
            .then(|| OpenCharge::new(Arc::clone(&self.adjustment), record.clone(), index, request));
        Decided::Proceeds(Pending { charge, record: is_first.then_some(record) })
    }

    /// Returns what is checked; `None` if the request is not counted.
    ///
    /// # Errors
    /// If the peer's address counts, and the request does not have it.
    fn checked(&self, request: &Parts) -> Result<Option<CheckedBy>, UnknownPeer> {
        let rule = match &self.kind {
            Kind::Limiter(limiter) => {
                let checked = self.client.checked(limiter, request)?;
                return Ok(checked.map(|checked| (checked, None)));
            }
            Kind::Gate(rule) => rule,
        };
        let (gate, key) = (&rule.gate, rule.keys.read(&request.headers));
        let checked = match (&key, &rule.without_key) {
            (Key::Missing, Some(limiter)) => match self.client.checked(limiter, request) {
                Ok(Some(checked)) => checked,
                _ => Checked::Key(gate.clone(), key, rule.extras.clone()),
            },
            _ => Checked::Key(gate.clone(), key, rule.extras.clone()),
        };
        Ok(Some((checked, Some(gate.clone()))))
    }

    /// Returns the response to a refused request.
    fn refuse(
        &self,
        answer: &Answer,
        index: usize,
        request: &Parts,
        record: &SharedRecord,
        is_first: bool,
    ) -> Response<Bytes> {
        let verdict = &answer.verdict;
        let too_many = self.too_many_failures(verdict, request);
        let reason = too_many.as_ref().unwrap_or(verdict);
        let shown: &dyn Respond = match &too_many {
            Some(too_many) => too_many,
            None => answer.shown(),
        };
        let keys = match &self.kind {
            Kind::Gate(rule) => Some(&rule.keys),
            Kind::Limiter(_) => None,
        };
        let documented = |mut response| {
            if let Some(keys) = keys {
                keys.name_in(reason, &mut response);
            }
            response
        };
        let mut response = match (respond::grpc_refusal(reason, &request.headers), &self.refusal) {
            (Some(response), _) => documented(response),
            (None, Some(refusal)) => respond::with_content_type(refusal(reason, request)),
            (None, None) => documented(respond::refusal(shown, &request.headers)),
        };
        if let Some(challenges) = keys.and_then(|keys| keys.challenges(reason)) {
            response.headers_mut().entry(WWW_AUTHENTICATE).or_insert_with(|| challenges.clone());
        }
        fields::set_refusal(response.headers_mut(), shown);
        let mut record = record.lock();
        record.refuse(index, verdict.outcome());
        if is_first {
            record.set_fields(response.headers_mut());
            response.extensions_mut().insert(*verdict);
        }
        respond::sized(response, &request.method)
    }

    /// Counts an invalid key. If its client is over the limit, returns the verdict to respond with.
    ///
    /// Every invalid key counts, whatever the reason. Otherwise the response would disclose that
    /// the secret of a revoked key is correct. A full limiter refuses no request: it would refuse
    /// clients that sent no invalid key.
    fn too_many_failures(&self, verdict: &Verdict, request: &Parts) -> Option<Verdict> {
        let Kind::Gate(GateRule { failures: Some(limiter), .. }) = &self.kind else { return None };
        if verdict.outcome() != Outcome::InvalidKey {
            return None;
        }
        let counted = self.client.checked(limiter, request).ok()??;
        let counted = counted.check(1, Patience::Decide)?.verdict;
        (counted.outcome() == Outcome::Denied).then_some(counted)
    }
}

/// The address of the client counts, and the request does not have it.
struct UnknownPeer;

impl Client {
    /// Returns what a limiter checks of a request; `None` if the request is not counted.
    fn checked(
        &self,
        limiter: &SharedLimiter,
        request: &Parts,
    ) -> Result<Option<Checked>, UnknownPeer> {
        Ok(match limiter {
            SharedLimiter::Subjects(limiter) => {
                let subject = self.subject(request)?;
                subject.map(|subject| Checked::Subject(Arc::clone(limiter), subject))
            }
            SharedLimiter::Addresses(limiter) => {
                let address = self.address(request)?;
                address.map(|address| Checked::Address(Arc::clone(limiter), address))
            }
        })
    }

    /// Returns the address of a request's client; `None` if the request is not counted.
    fn address(&self, request: &Parts) -> Result<Option<Address>, UnknownPeer> {
        match self {
            Self::Function(function) => {
                let Some(text) = function(request) else { return Ok(None) };
                let text = core::str::from_utf8(&text).ok();
                text.and_then(Address::parse).map(Some).ok_or(UnknownPeer)
            }
            Self::Peer(_) => {
                let address = peer(&request.extensions).ok_or(UnknownPeer)?;
                Ok(Some(address.into()))
            }
        }
    }

    /// Returns the subject of a request; `None` if the request is not counted.
    fn subject(&self, request: &Parts) -> Result<Option<Subject>, UnknownPeer> {
        match self {
            Self::Function(function) => Ok(function(request).map(Subject::from_vec)),
            Self::Peer(ipv6_prefix) => {
                let address = peer(&request.extensions).ok_or(UnknownPeer)?;
                Ok(Some(subject(address, *ipv6_prefix)))
            }
        }
    }
}

impl Pending {
    /// Charges by the outcome, and sets the header fields of the response. Returns the charge if
    /// the end of the body can change it.
    pub(crate) fn respond(self, head: &mut response::Parts) -> Option<OpenCharge> {
        let charge = self.charge.and_then(|charge| charge.respond(head));
        if let Some(record) = self.record {
            let record = record.lock();
            record.set_fields(&mut head.headers);
            if let Some(verdict) = record.verdict() {
                head.extensions.insert(verdict);
            }
        }
        charge
    }

    /// Charges for a request to which the inner service returned an error.
    pub(crate) fn fail(self) {
        if let Some(charge) = self.charge {
            charge.fail();
        }
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, exempt_paths, exempt_methods, adjustment, shadow, .. } = self;
        f.debug_struct("Rule")
            .field("kind", kind)
            .field("exempt_paths", exempt_paths)
            .field("exempt_methods", exempt_methods)
            .field("adjustment", adjustment)
            .field("shadow", shadow)
            .finish_non_exhaustive()
    }
}
