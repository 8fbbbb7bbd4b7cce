//! `/auth`: the gate for a service behind a proxy, which asks here before it passes a request on.
//!
//! It is what nginx's `auth_request`, Traefik's `ForwardAuth` and Envoy's `ext_authz` over HTTP ask: any method,
//! and for Envoy's path prefix any path below. The answer is 200, 401 or 429; nginx knows only the first two and
//! takes 429 for a fault of its own, so there it is turned back with `error_page`.
//!
//! `X-Cost` says what the request costs. It is the proxy that must say it: one that passes on what its clients send
//! lets them choose, though never less than 1.

use alloc::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};

use super::guard::{Ask, Caller, Route, SHADOW, set};
use super::{Service, json};

pub(crate) const ACCOUNT_ID: &str = "X-Account-Id";
pub(crate) const KEY_ID: &str = "X-Key-Id";
pub(crate) const KEY_ENV: &str = "X-Key-Env";
pub(crate) const KEY_PLAN: &str = "X-Key-Plan";

/// What the request costs; 1 when it isn't there.
const COST: &str = "X-Cost";

/// Charges the cost and reports whose key it is, in headers.
pub(crate) async fn auth(State(service): State<Arc<Service>>, request: Request) -> Response {
    let mut response = service.authorize(&request);
    // A proxy that copies only the headers that are there would pass on the client's own.
    for name in [ACCOUNT_ID, KEY_ID, KEY_ENV, KEY_PLAN] {
        if !response.headers().contains_key(name) {
            set(&mut response, name, "");
        }
    }
    response
}

impl Service {
    fn authorize(&self, request: &Request) -> Response {
        let headers = request.headers();
        if let Some(source) = &self.settings.preflights
            && source.states_options(request.method(), headers)
        {
            self.metrics.count_preflight();
            return StatusCode::OK.into_response();
        }
        match cost(headers) {
            Ok(cost) => self.guard(Route::Auth, request, Ask::Charge(cost), Self::admit),
            // Nothing may be refused in shadow mode, and nothing is charged by guesswork.
            Err(_) if self.settings.shadow => {
                let mut response = self.guard(Route::Auth, request, Ask::Look, Self::admit);
                set(&mut response, SHADOW, "bad_cost");
                response
            }
            Err(error) => json(StatusCode::BAD_REQUEST, error),
        }
    }

    fn admit(caller: &Caller<'_>) -> Response {
        let mut response = StatusCode::OK.into_response();
        let Some(holder) = caller.holder else { return response };
        let table = caller.gate.table();
        set(&mut response, ACCOUNT_ID, &holder.account.to_string());
        set(&mut response, KEY_ID, &holder.key_id.to_string());
        if let Some(env) = table.env(holder.env) {
            set(&mut response, KEY_ENV, env.as_str());
        }
        if let Some(plan) = table.plan(holder.plan) {
            set(&mut response, KEY_PLAN, &plan.name);
        }
        response
    }
}

/// The cost that the request names, or the body that says why that is none.
fn cost(headers: &HeaderMap) -> Result<u32, &'static str> {
    let mut values = headers.get_all(COST).iter();
    let Some(value) = values.next() else { return Ok(1) };
    if values.next().is_some() {
        return Err(r#"{"error": "X-Cost must be sent once"}"#);
    }
    let digits = value.as_bytes().iter().all(u8::is_ascii_digit);
    let cost = value.to_str().ok().filter(|_| digits).and_then(|text| text.parse::<u32>().ok());
    cost.filter(|&cost| cost > 0).ok_or(r#"{"error": "X-Cost must be a whole number from 1 to 4294967295"}"#)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_cost_is_a_whole_number_that_is_sent_once() {
        let of = |values: &[&'static [u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(COST, HeaderValue::from_bytes(value).unwrap());
            }
            cost(&headers).ok()
        };
        assert_eq!(of(&[]), Some(1));
        assert_eq!(of(&[b"1"]), Some(1));
        assert_eq!(of(&[b"4294967295"]), Some(u32::MAX));
        for wrong in [&b"0"[..], b"", b"+1", b"-1", b"1.0", b"1 ", b"4294967296", b"one", b"\xff", b"1, 2"] {
            assert_eq!(of(&[wrong]), None, "{wrong:?}");
        }
        assert_eq!(of(&[b"1", b"1"]), None);
    }
}
