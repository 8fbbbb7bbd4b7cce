//! The charge of a request until its response has ended.

use alloc::sync::Arc;
use std::thread;

use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, response};

use crate::record::SharedRecord;
use crate::rule::{Rule, Settle};

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
    rule: Arc<Rule>,
    record: SharedRecord,
    index: usize,
    /// The head of the request, if a function needs it.
    request: Option<Parts>,
    is_head_request: bool,
    status: Option<StatusCode>,
    headers: HeaderMap,
    pub(crate) bytes: u64,
    pub(crate) is_complete: bool,
    pub(crate) is_failed: bool,
    pub(crate) trailers: Option<HeaderMap>,
}

impl OpenCharge {
    pub(crate) fn new(
        rule: Arc<Rule>,
        record: SharedRecord,
        index: usize,
        request: &Parts,
    ) -> Self {
        let is_head_request = request.method == Method::HEAD;
        let request = (!matches!(rule.settle, Settle::Never)).then(|| request.clone());
        Self {
            rule,
            record,
            index,
            request,
            is_head_request,
            status: None,
            headers: HeaderMap::new(),
            bytes: 0,
            is_complete: false,
            is_failed: false,
            trailers: None,
        }
    }

    /// Refunds or settles the charge by the head of the response. Returns the charge if the end of
    /// the body can change it.
    pub(crate) fn respond(mut self, head: &response::Parts) -> Option<Self> {
        self.status = Some(head.status);
        if self.rule.is_refunded(head.status) {
            self.record.lock().refund(self.index);
            return None;
        }
        match (&self.rule.settle, &self.request) {
            (Settle::AtHead(settle), Some(request)) => {
                if self.cost().is_some() {
                    let actual = settle(request, head);
                    self.record.lock().settle(self.index, actual);
                }
                None
            }
            (Settle::AtEnd(_), _) => {
                self.headers.clone_from(&head.headers);
                Some(self)
            }
            _ => self.rule.is_refunded(StatusCode::INTERNAL_SERVER_ERROR).then_some(self),
        }
    }

    /// Refunds or settles the charge of a request to which the inner service returned an error.
    pub(crate) fn fail(mut self) {
        self.status = Some(StatusCode::INTERNAL_SERVER_ERROR);
        self.is_failed = true;
    }

    /// Returns the units of the charge; `None` if there is none, or it was refunded or settled.
    fn cost(&self) -> Option<u32> {
        self.record.lock().cost(self.index)
    }
}

impl Drop for OpenCharge {
    fn drop(&mut self) {
        let Some(cost) = self.cost() else { return };
        // An error in the middle of a body is a failure of the server too.
        let is_refunded = match (self.is_failed, self.status) {
            (true, _) => self.rule.is_refunded(StatusCode::INTERNAL_SERVER_ERROR),
            (false, Some(status)) => self.rule.is_refunded(status),
            (false, None) => false,
        };
        if is_refunded {
            self.record.lock().refund(self.index);
            return;
        }
        let (Settle::AtEnd(settle), Some(request)) = (&self.rule.settle, &self.request) else {
            return;
        };
        // A second panic would end the process.
        if thread::panicking() {
            return;
        }
        let is_unsent = self.is_head_request && self.status.is_some();
        let actual = settle(
            request,
            &Sent {
                status: self.status,
                headers: &self.headers,
                bytes: self.bytes,
                is_complete: !self.is_failed && (self.is_complete || is_unsent),
                is_failed: self.is_failed,
                trailers: self.trailers.as_ref(),
                cost,
            },
        );
        self.record.lock().settle(self.index, actual);
    }
}
