//! The service that both layers build, and its future.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::{fmt, mem};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::body::GuardBody;
use crate::rule::{Decided, Pending, Rule};
use crate::waiting::Waiting;

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
    S: Service<Request<B>, Response = Response<R>> + Clone,
    R: Body,
{
    type Response = Response<GuardBody<R>>;
    type Error = S::Error;
    type Future = GuardFuture<S, B>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        let state = match self.rule.check(&mut head) {
            Decided::Refused(response) => State::Refused { response: Some(response) },
            Decided::Proceeds(pending) => State::Called {
                future: self.inner.call(Request::from_parts(head, body)),
                pending: Some(pending),
            },
            Decided::Waits(check) => {
                // The service that is ready is the one that was polled; the clone may not be.
                let clone = self.inner.clone();
                let inner = mem::replace(&mut self.inner, clone);
                let rule = Arc::clone(&self.rule);
                State::Waits {
                    waiting: Some(Box::new(Waiting::new(inner, rule, check, head, body))),
                }
            }
        };
        GuardFuture { state }
    }
}

pin_project! {
    /// The future of a [`Guard`].
    pub struct GuardFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, B>
    where
        S: Service<Request<B>>,
    {
        Refused { response: Option<Response<Bytes>> },
        Waits { waiting: Option<Box<Waiting<S, B>>> },
        Called { #[pin] future: S::Future, pending: Option<Pending> },
    }
}

impl<S, B, R> Future for GuardFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body,
{
    type Output = Result<Response<GuardBody<R>>, S::Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.as_mut().project().state;
        if let StateProjection::Waits { waiting } = state.as_mut().project()
            && let Some(held) = waiting
        {
            let decided = ready!(held.poll(context));
            let next = match (decided, waiting.take()) {
                (Decided::Proceeds(pending), Some(held)) => {
                    State::Called { future: held.call(), pending: Some(pending) }
                }
                (Decided::Refused(response), _) => State::Refused { response: Some(response) },
                _ => State::Waits { waiting: None },
            };
            state.set(next);
        }
        let (future, pending) = match state.project() {
            StateProjection::Called { future, pending } => (future, pending),
            // A future is not polled again after it has returned its result.
            StateProjection::Refused { response } => {
                return match response.take() {
                    Some(response) => Poll::Ready(Ok(response.map(GuardBody::refusal))),
                    None => Poll::Pending,
                };
            }
            StateProjection::Waits { .. } => return Poll::Pending,
        };
        let result = ready!(future.poll(context));
        let pending = pending.take();
        let response = match result {
            Ok(response) => response,
            Err(error) => {
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

impl<S, B> fmt::Debug for GuardFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardFuture").finish_non_exhaustive()
    }
}
