//! The service that both layers build, and its future.

use alloc::sync::Arc;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::body::GuardBody;
use crate::rule::{Decided, Pending, Rule};

/// A service behind a [`GateLayer`](crate::GateLayer) or a [`LimiterLayer`](crate::LimiterLayer).
#[derive(Clone, Debug)]
pub struct Guard<S> {
    inner: S,
    rule: Arc<Rule>,
}

impl<S> Guard<S> {
    pub(crate) const fn new(inner: S, rule: Arc<Rule>) -> Self {
        Self { inner, rule }
    }
}

impl<S, B, R> Service<Request<B>> for Guard<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body,
{
    type Response = Response<GuardBody<R>>;
    type Error = S::Error;
    type Future = GuardFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        let pending = match self.rule.check(&mut head) {
            Decided::Refused(response) => {
                return GuardFuture { state: State::Refused { response: Some(response) } };
            }
            Decided::Proceeds(pending) => Some(pending),
        };
        let future = self.inner.call(Request::from_parts(head, body));
        GuardFuture { state: State::Called { future, pending } }
    }
}

pin_project! {
    /// The future of a [`Guard`].
    pub struct GuardFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Refused { response: Option<Response<Bytes>> },
        Called { #[pin] future: F, pending: Option<Pending> },
    }
}

impl<F, R, E> Future for GuardFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
{
    type Output = Result<Response<GuardBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (future, pending) = match self.project().state.project() {
            // A future is not polled again after it has returned its result.
            StateProjection::Refused { response } => {
                return match response.take() {
                    Some(response) => Poll::Ready(Ok(response.map(GuardBody::refusal))),
                    None => Poll::Pending,
                };
            }
            StateProjection::Called { future, pending } => (future, pending),
        };
        let result = ready!(future.poll(context));
        let pending = pending.take();
        let response = match (result, &pending) {
            (Ok(response), _) => response,
            (Err(error), _) => {
                if let Some(pending) = pending {
                    pending.fail();
                }
                return Poll::Ready(Err(error));
            }
        };
        let (mut head, body) = response.into_parts();
        let charge = pending.and_then(|pending| pending.respond(&mut head));
        Poll::Ready(Ok(Response::from_parts(head, GuardBody::service(body, charge))))
    }
}

impl<F> fmt::Debug for GuardFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardFuture").finish_non_exhaustive()
    }
}
