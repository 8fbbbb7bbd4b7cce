//! A request that waits for credits of a fleet, while its thread serves others.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::future::Future as _;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;

use futures_timer::Delay;
use http::Request;
use http::request::Parts;
use keytally::Patience;
use tower_service::Service;

use crate::rule::{Check, Decided, Rule};

/// A request that waits, and the service for which it is meant.
pub(crate) struct Waiting<S, B> {
    inner: S,
    rule: Arc<Rule>,
    /// `None` after it was decided.
    check: Option<Check>,
    head: Parts,
    body: B,
    pauses: Box<dyn Iterator<Item = Duration> + Send + Sync>,
    /// The pause that runs. After the last one, there is none.
    pause: Option<Delay>,
}

impl<S, B> Waiting<S, B> {
    /// Begins the first pause.
    pub(crate) fn new(inner: S, rule: Arc<Rule>, check: Check, head: Parts, body: B) -> Self {
        let mut pauses = check.checked.pauses();
        let pause = pauses.next().map(Delay::new);
        Self { inner, rule, check: Some(check), head, body, pauses, pause }
    }

    /// Checks again after each pause, and returns the decision.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Decided> {
        loop {
            let patience = match &mut self.pause {
                Some(pause) => {
                    ready!(Pin::new(pause).poll(context));
                    Patience::Return
                }
                None => Patience::Decide,
            };
            let Some(check) = self.check.take() else { return Poll::Pending };
            match self.rule.decide(check, &mut self.head, patience) {
                Decided::Waits(check) => self.check = Some(check),
                decided => return Poll::Ready(decided),
            }
            self.pause = self.pauses.next().map(Delay::new);
        }
    }
}

impl<S, B> Waiting<S, B>
where
    S: Service<Request<B>>,
{
    /// Calls the service.
    pub(crate) fn call(mut self) -> S::Future {
        self.inner.call(Request::from_parts(self.head, self.body))
    }
}
