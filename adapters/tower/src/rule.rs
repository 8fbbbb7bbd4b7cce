//! The rule that a layer applies to a request: check a table, and act on the verdict.

use alloc::sync::Arc;
use core::fmt;
use core::ops::RangeInclusive;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, StatusCode, response};
use keytally::{Gate, Limiter, Outcome, Verdict, now};

use crate::address::{address_subject, peer};
use crate::caller::Caller;
use crate::charge::{OpenCharge, Sent};
use crate::error::ConfigError;
use crate::exempt::ExemptPaths;
use crate::fields;
use crate::key::{Key, KeySources};
use crate::record::{Checked, Record, SharedRecord};
use crate::respond;
use crate::table::{SharedGate, Table};

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
    pub(crate) refunds: Vec<RangeInclusive<u16>>,
    pub(crate) settle: Settle,
    pub(crate) shadow: bool,
    pub(crate) listed: bool,
    pub(crate) on_verdict: Option<Arc<OnVerdict>>,
    pub(crate) refusal: Option<Arc<RefusalFn>>,
}

pub(crate) type CostFn = dyn Fn(&Parts) -> u32 + Send + Sync;
pub(crate) type SubjectFn = dyn Fn(&Parts) -> Option<Vec<u8>> + Send + Sync;
pub(crate) type OnVerdict = dyn Fn(&Verdict, &Parts) + Send + Sync;
pub(crate) type RefusalFn = dyn Fn(&Verdict, &Parts) -> Response<Bytes> + Send + Sync;
pub(crate) type SettleAtHead = dyn Fn(&Parts, &response::Parts) -> u32 + Send + Sync;
pub(crate) type SettleAtEnd = dyn Fn(&Parts, &Sent<'_>) -> u32 + Send + Sync;

/// The table that a layer checks.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Gate(GateRule),
    Limiter(Arc<Limiter>),
}

/// The settings that only a gate has.
#[derive(Clone, Debug)]
pub(crate) struct GateRule {
    pub(crate) gate: SharedGate,
    pub(crate) keys: KeySources,
    /// Counts invalid keys by client.
    pub(crate) failures: Option<Arc<Limiter>>,
    /// Counts requests without a key by client.
    pub(crate) without_key: Option<Arc<Limiter>>,
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

/// When a charge is replaced by the actual cost.
#[derive(Clone)]
pub(crate) enum Settle {
    Never,
    AtHead(Arc<SettleAtHead>),
    AtEnd(Arc<SettleAtEnd>),
}

/// The result of a check.
pub(crate) enum Decided {
    /// The request is exempt.
    Exempt,
    /// The request proceeds, and this follows when the response is known.
    Proceeds(Pending),
    /// The request is refused with this response.
    Refused(Response<Bytes>),
}

/// What remains to be done when the response is known.
pub(crate) struct Pending {
    record: SharedRecord,
    /// The charge. `None` if the request was not counted.
    charge: Option<OpenCharge>,
    /// Whether this layer is the first of the request. It sets the header fields.
    is_first: bool,
}

impl Rule {
    pub(crate) fn new(kind: Kind) -> Arc<Self> {
        Arc::new(Self {
            kind,
            cost: Cost::Constant(1),
            client: Client::Peer(IPV6_PREFIX),
            exempt_paths: ExemptPaths::default(),
            exempt_methods: Vec::new(),
            refunds: Vec::new(),
            settle: Settle::Never,
            shadow: false,
            listed: true,
            on_verdict: None,
            refusal: None,
        })
    }

    pub(crate) fn add_refund(&mut self, statuses: RangeInclusive<u16>) -> Result<(), ConfigError> {
        let (first, last) = (*statuses.start(), *statuses.end());
        if first > last || first < 100 || last > 999 {
            return Err(ConfigError::new(
                &format!("{first}..={last}"),
                "is not a range of statuses: pass one within 100..=999, such as 500..=599",
            ));
        }
        self.refunds.push(statuses);
        Ok(())
    }

    /// Checks a request.
    pub(crate) fn check(self: &Arc<Self>, request: &mut Parts) -> Decided {
        if self.exempt_methods.contains(&request.method)
            || self.exempt_paths.contains(request.uri.path())
        {
            return Decided::Exempt;
        }
        let record = request.extensions.get::<SharedRecord>().cloned();
        let is_first = record.is_none();
        let record = record.unwrap_or_default();
        if is_first {
            request.extensions.insert(record.clone());
        }
        let pending = |request: &Parts, index: Option<usize>| Pending {
            record: record.clone(),
            charge: index
                .map(|index| OpenCharge::new(Arc::clone(self), record.clone(), index, request)),
            is_first,
        };

        let Ok(charged) = self.charge(request, &record) else {
            let mut response = respond::unknown_peer(&request.headers);
            if is_first {
                record.lock().set_fields(response.headers_mut());
            }
            return Decided::Refused(respond::sized(response, &request.method));
        };
        let Some((verdict, index)) = charged else {
            return Decided::Proceeds(pending(request, None));
        };
        if let Some(on_verdict) = &self.on_verdict {
            on_verdict(&verdict, request);
        }
        if verdict.is_admitted() {
            return Decided::Proceeds(pending(request, Some(index)));
        }
        if self.shadow {
            record.lock().shadow.get_or_insert(verdict.outcome().as_str());
            return Decided::Proceeds(pending(request, Some(index)));
        }
        Decided::Refused(self.refuse(&verdict, index, request, &record, is_first))
    }

    /// Charges the table. Returns the verdict and the index of the decision; `None` if the request
    /// is not counted.
    ///
    /// # Errors
    /// If the peer's address counts, and the request does not have it.
    fn charge(
        &self,
        request: &mut Parts,
        record: &SharedRecord,
    ) -> Result<Option<(Verdict, usize)>, UnknownPeer> {
        let cost = match &self.cost {
            Cost::Constant(cost) => *cost,
            Cost::Function(cost) => cost(request),
        };
        let (verdict, index) = match &self.kind {
            Kind::Limiter(limiter) => {
                let Some(subject) = self.client.subject(request)? else { return Ok(None) };
                charge_limiter(&mut record.lock(), limiter, subject, cost)
            }
            Kind::Gate(rule) => {
                let gate = rule.gate.load();
                let key = rule.keys.read(&request.headers);
                let counts_client = key == Key::Missing && rule.without_key.is_some();
                let subject =
                    if counts_client { self.client.subject(request).ok().flatten() } else { None };
                let mut locked = record.lock();
                let (verdict, index) = match (&rule.without_key, subject) {
                    (Some(limiter), Some(subject)) => {
                        charge_limiter(&mut locked, limiter, subject, cost)
                    }
                    _ => charge_gate(&mut locked, &gate, key, cost),
                };
                drop(locked);
                request.extensions.insert(Caller::new(verdict, gate));
                (verdict, index)
            }
        };
        let mut locked = record.lock();
        if self.listed {
            locked.list(index);
        }
        // The verdict of a limiter does not replace that of a gate.
        if let Some(verdict) = locked.verdict() {
            request.extensions.insert(verdict);
        }
        Ok(Some((verdict, index)))
    }

    /// Returns the response to a refused request.
    fn refuse(
        &self,
        verdict: &Verdict,
        index: usize,
        request: &Parts,
        record: &SharedRecord,
        is_first: bool,
    ) -> Response<Bytes> {
        let too_many = self.too_many_failures(verdict, request);
        let reason = too_many.as_ref().unwrap_or(verdict);
        let mut response = match (respond::grpc_refusal(reason, &request.headers), &self.refusal) {
            (Some(response), _) => response,
            (None, Some(refusal)) => respond::with_content_type(refusal(reason, request)),
            (None, None) => respond::refusal(reason, &request.headers),
        };
        fields::set_refusal(response.headers_mut(), reason);
        let mut record = record.lock();
        record.refuse(verdict.outcome());
        record.list(index);
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
        let subject = self.client.subject(request).ok()??;
        let counted = limiter.check(&subject, 1);
        (counted.outcome() == Outcome::Denied).then_some(counted)
    }

    /// Returns whether a response of this status returns the charge.
    pub(crate) fn is_refunded(&self, status: StatusCode) -> bool {
        self.refunds.iter().any(|statuses| statuses.contains(&status.as_u16()))
    }
}

fn charge_limiter(
    record: &mut Record,
    limiter: &Arc<Limiter>,
    subject: Vec<u8>,
    cost: u32,
) -> (Verdict, usize) {
    let table = Table::Limiter(Arc::clone(limiter));
    let checked = subject.clone();
    record.charge(table, Checked::Subject(subject), cost, |cost| limiter.check(&checked, cost))
}

fn charge_gate(record: &mut Record, gate: &Arc<Gate>, key: Key, cost: u32) -> (Verdict, usize) {
    let table = Table::Gate(Arc::clone(gate));
    let presented = key.clone();
    record.charge(table, Checked::Key(key), cost, |cost| match &presented {
        Key::Missing => gate.check(None, cost),
        Key::One(key) => gate.check(Some(key.as_bytes()), cost),
        Key::Several => Verdict::duplicate_header(now()),
    })
}

/// The address of the peer counts, and the request does not have it.
struct UnknownPeer;

impl Client {
    /// Returns the subject of a request; `None` if the request is not counted.
    fn subject(&self, request: &Parts) -> Result<Option<Vec<u8>>, UnknownPeer> {
        match self {
            Self::Function(subject) => Ok(subject(request)),
            Self::Peer(ipv6_prefix) => {
                let address = peer(&request.extensions).ok_or(UnknownPeer)?;
                Ok(Some(address_subject(address, *ipv6_prefix).into_bytes()))
            }
        }
    }
}

impl Pending {
    /// Charges by the outcome, and sets the header fields of the response. Returns the charge if
    /// the end of the body can change it.
    pub(crate) fn respond(self, head: &mut response::Parts) -> Option<OpenCharge> {
        let charge = self.charge.and_then(|charge| charge.respond(head));
        if self.is_first {
            let record = self.record.lock();
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
        let Self { kind, exempt_paths, exempt_methods, refunds, shadow, .. } = self;
        f.debug_struct("Rule")
            .field("kind", kind)
            .field("exempt_paths", exempt_paths)
            .field("exempt_methods", exempt_methods)
            .field("refunds", refunds)
            .field("shadow", shadow)
            .finish_non_exhaustive()
    }
}
