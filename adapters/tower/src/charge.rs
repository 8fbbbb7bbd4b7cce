//! The charge of a request until its response has ended.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::ops::RangeInclusive;
use std::thread;

use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, response};

use crate::error::ConfigError;
use crate::record::SharedRecord;

/// How the response to a request changes its charge.
#[derive(Clone, Default)]
pub(crate) struct Adjustment {
    /// The statuses whose responses return the charge.
    refunds: Vec<RangeInclusive<u16>>,
    pub(crate) settle: Settle,
}

/// When a charge is replaced by the actual cost.
#[derive(Clone, Default)]
pub(crate) enum Settle {
    #[default]
    Never,
    AtHead(Arc<SettleAtHead>),
    AtEnd(Arc<SettleAtEnd>),
}

pub(crate) type SettleAtHead = dyn Fn(&Parts, &response::Parts) -> u32 + Send + Sync;
pub(crate) type SettleAtEnd = dyn Fn(&Parts, &Sent<'_>) -> u32 + Send + Sync;

impl Adjustment {
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

    /// Returns whether a response may change the charge.
    pub(crate) fn is_needed(&self) -> bool {
        !self.refunds.is_empty() || !matches!(self.settle, Settle::Never)
    }

    /// Returns whether a response of this status returns the charge.
    fn is_refunded(&self, status: StatusCode) -> bool {
        self.refunds.iter().any(|statuses| statuses.contains(&status.as_u16()))
    }
}

impl fmt::Debug for Adjustment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adjustment").field("refunds", &self.refunds).finish_non_exhaustive()
    }
}

/// What was sent of a response, for [`settle`](crate::GateLayer::settle).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Sent<'t> {
    /// The status of the response. It is 500 if the inner service returned an error. It is `None`
    /// if the response's future was dropped before it returned, as when the client closed the
    /// connection.
    pub status: Option<StatusCode>,
    /// The header fields of the inner service's response.
    pub headers: &'t HeaderMap,
    /// The bytes of the body that the server took.
    pub bytes: u64,
    /// Whether the body ended. It did not if it returned an error, or if the client closed the
    /// connection. The body of a response to `HEAD` counts as complete.
    pub is_complete: bool,
    /// Whether the inner service or the body returned an error.
    pub is_failed: bool,
    /// The trailers, if the server took them.
    pub trailers: Option<&'t HeaderMap>,
    /// The units that the request was charged.
    pub cost: u32,
}

/// The charge of a request. It is settled or refunded when it is dropped.
pub(crate) struct OpenCharge {
    adjustment: Arc<Adjustment>,
    record: SharedRecord,
    index: usize,
    is_head_request: bool,
    status: Option<StatusCode>,
    pub(crate) bytes: u64,
    pub(crate) is_complete: bool,
    pub(crate) is_failed: bool,
    /// `None` if no function settles the charge.
    heads: Option<Box<Heads>>,
}

/// What a function that settles a charge needs of the request and the response.
struct Heads {
    request: Parts,
    headers: HeaderMap,
    trailers: Option<HeaderMap>,
}

impl OpenCharge {
    pub(crate) fn new(
        adjustment: Arc<Adjustment>,
        record: SharedRecord,
        index: usize,
        request: &Parts,
    ) -> Self {
        let is_head_request = request.method == Method::HEAD;
        let heads = (!matches!(adjustment.settle, Settle::Never)).then(|| {
            let request = request.clone();
            Box::new(Heads { request, headers: HeaderMap::new(), trailers: None })
        });
        Self {
            adjustment,
            record,
            index,
            is_head_request,
            status: None,
            bytes: 0,
            is_complete: false,
            is_failed: false,
            heads,
        }
    }

    /// Records the trailers of a body.
    pub(crate) fn set_trailers(&mut self, trailers: &HeaderMap) {
        if let Some(heads) = &mut self.heads {
            heads.trailers = Some(trailers.clone());
        }
    }

    /// Refunds or settles the charge by the head of the response. Returns the charge if the end of
    /// the body can change it.
    pub(crate) fn respond(mut self, head: &response::Parts) -> Option<Self> {
        self.status = Some(head.status);
        if self.adjustment.is_refunded(head.status) {
            self.record.lock().refund(self.index);
            return None;
        }
        match (&self.adjustment.settle, &mut self.heads) {
            (Settle::AtHead(settle), Some(heads)) => {
                if self.record.lock().cost(self.index).is_some() {
                    let actual = settle(&heads.request, head);
                    self.record.lock().settle(self.index, actual);
                }
                None
            }
            (Settle::AtEnd(_), Some(heads)) => {
                heads.headers.clone_from(&head.headers);
                Some(self)
            }
            _ => self.adjustment.is_refunded(StatusCode::INTERNAL_SERVER_ERROR).then_some(self),
        }
    }

    /// Refunds or settles the charge of a request to which the inner service returned an error.
    pub(crate) fn fail(mut self) {
        self.status = Some(StatusCode::INTERNAL_SERVER_ERROR);
        self.is_failed = true;
    }
}

impl Drop for OpenCharge {
    fn drop(&mut self) {
        let Some(cost) = self.record.lock().cost(self.index) else { return };
        // An error in the middle of a body is a failure of the server too.
        let is_refunded = match (self.is_failed, self.status) {
            (true, _) => self.adjustment.is_refunded(StatusCode::INTERNAL_SERVER_ERROR),
            (false, Some(status)) => self.adjustment.is_refunded(status),
            (false, None) => false,
        };
        if is_refunded {
            self.record.lock().refund(self.index);
            return;
        }
        let (Settle::AtEnd(settle), Some(heads)) = (&self.adjustment.settle, &self.heads) else {
            return;
        };
        // A second panic would end the process.
        if thread::panicking() {
            return;
        }
        let is_unsent = self.is_head_request && self.status.is_some();
        let actual = settle(
            &heads.request,
            &Sent {
                status: self.status,
                headers: &heads.headers,
                bytes: self.bytes,
                is_complete: !self.is_failed && (self.is_complete || is_unsent),
                is_failed: self.is_failed,
                trailers: heads.trailers.as_ref(),
                cost,
            },
        );
        self.record.lock().settle(self.index, actual);
    }
}
