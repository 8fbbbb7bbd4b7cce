//! The caller of a request, for the application.

use alloc::sync::Arc;

use keytally::{Gate, Holder, Outcome, Plan, Verdict};

/// The caller of a request that a [`GateLayer`](crate::GateLayer) let pass, in the request's
/// extensions.
///
/// With the feature `axum`, it is an extractor: a handler takes `caller: Caller`. On a route
/// without the layer, the extractor responds with 500, and `Option<Caller>` is `None`.
#[derive(Clone, Debug)]
pub struct Caller {
    verdict: Verdict,
    gate: Arc<Gate>,
}

impl Caller {
    pub(crate) const fn new(verdict: Verdict, gate: Arc<Gate>) -> Self {
        Self { verdict, gate }
    }

    /// Returns the holder of the key.
    ///
    /// It is `None` in shadow mode if the key is missing or invalid. A revoked or expired key is
    /// invalid, although its verdict has a holder. It is also `None` for a request without a key
    /// that a limiter counted: see [`GateLayer::without_key`](crate::GateLayer::without_key).
    pub fn holder(&self) -> Option<Holder> {
        self.verdict.holder().filter(|_| self.verdict.outcome() != Outcome::InvalidKey)
    }

    /// Returns the account of the holder.
    pub fn account(&self) -> Option<u32> {
        self.holder().map(|holder| holder.account)
    }

    /// Returns the plan of the holder.
    pub fn plan(&self) -> Option<Plan> {
        self.holder().and_then(|holder| self.gate.table().plan(holder.plan))
    }

    /// Returns the verdict.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Returns the gate that checked the key.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }
}

#[cfg(feature = "axum")]
mod extractor {
    use core::convert::Infallible;

    use axum::extract::{FromRequestParts, OptionalFromRequestParts};
    use axum::http::header::CONTENT_TYPE;
    use axum::http::request::Parts;
    use axum::http::{HeaderValue, StatusCode};
    use axum::response::{IntoResponse, Response};

    use super::Caller;

    /// The route of an extractor [`Caller`] has no layer that checks the key. The response is 500.
    #[derive(Clone, Copy, Debug)]
    pub struct MissingGateLayer;

    impl IntoResponse for MissingGateLayer {
        fn into_response(self) -> Response {
            let content_type = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let body = r#"{"error": "The route has no GateLayer"}"#;
            (StatusCode::INTERNAL_SERVER_ERROR, [content_type], body).into_response()
        }
    }

    impl<S: Sync> FromRequestParts<S> for Caller {
        type Rejection = MissingGateLayer;

        async fn from_request_parts(request: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
            request.extensions.get().cloned().ok_or(MissingGateLayer)
        }
    }

    impl<S: Sync> OptionalFromRequestParts<S> for Caller {
        type Rejection = Infallible;

        async fn from_request_parts(
            request: &mut Parts,
            _: &S,
        ) -> Result<Option<Self>, Self::Rejection> {
            Ok(request.extensions.get().cloned())
        }
    }
}

#[cfg(feature = "axum")]
pub use self::extractor::MissingGateLayer;
