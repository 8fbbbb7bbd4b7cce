//! `/auth`: the check for a service behind a proxy, which sends a subrequest here before it
//! forwards a request.
//!
//! It supports `auth_request` of nginx, `ForwardAuth` of Traefik, and `ext_authz` of Envoy over
//! HTTP: any method and, for Envoy's path prefix, any path below `/auth`. The status is 200, 401,
//! 403 or 429, or 400 if `X-Cost`, `X-Group` or `X-Need` is invalid. nginx turns other statuses
//! than 401 and 403 of a subrequest into 500, and the configuration in `docs/SERVICE.md` turns that
//! into 429 or 503.
//!
//! `X-Cost` is the cost of the request, at least 1. The proxy must set or remove it: a proxy that
//! forwards the header of its client lets the client choose the cost.
//!
//! `X-Group` lists groups of the plans that are charged too, as NAME for the cost of the request or
//! NAME=COST. `X-Need` lists scopes that the key needs. The proxy must set or remove them as well.
//!
//! If `--settle` is on, the response has the token of the charge, for [`settle`](super::settle).

use alloc::sync::Arc;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};

use keytally_tower::Extras;

use super::check::{Caller, Check, Route, SHADOW, set};
use super::fields::{
    ACCOUNT_ID, CHARGE, COST, GROUP, KEY_ENV, KEY_ID, KEY_PLAN, NEED, digits, items, wrong_item,
};
use super::json::json;
use super::state::Service;

/// Charges the cost, and reports the holder of the key in headers.
pub(crate) async fn auth(State(service): State<Arc<Service>>, request: Request) -> Response {
    let (request, _) = request.into_parts();
    let mut response = service.authorize(&request).await;
    // Always set: a proxy that copies only present headers would forward those of the client.
    let charge = service.charges.is_some().then_some(CHARGE);
    for name in [ACCOUNT_ID, KEY_ID, KEY_ENV, KEY_PLAN].into_iter().chain(charge) {
        if !response.headers().contains_key(name) {
            set(&mut response, name, "");
        }
    }
    response
}

impl Service {
    async fn authorize(&self, request: &Parts) -> Response {
        let headers = &request.headers;
        if let Some(source) = &self.settings.preflights
            && source.states_options(&request.method, headers)
        {
            self.metrics.count_preflight();
            return StatusCode::OK.into_response();
        }
        match cost(headers).map_err(str::to_owned).and_then(|cost| Ok((cost, extras(headers)?))) {
            Ok((cost, extras)) => {
                let admit = |caller: &Caller<'_>| self.admit(caller);
                self.check_and_respond(Route::Auth, request, Check::Charge(cost, extras), admit)
                    .await
            }
            // Shadow mode refuses nothing, and an unknown cost is not charged.
            Err(_) if self.settings.shadow => {
                let admit = |caller: &Caller<'_>| self.admit(caller);
                let mut response =
                    self.check_and_respond(Route::Auth, request, Check::Peek, admit).await;
                set(&mut response, SHADOW, "bad_cost");
                response
            }
            Err(error) => json(StatusCode::BAD_REQUEST, error),
        }
    }

    /// Returns the response to an admitted request.
    fn admit(&self, caller: &Caller<'_>) -> Response {
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
        let verdict = &caller.answer.verdict;
        if let (Some(charges), Some(charge)) = (&self.charges, caller.answer.charge())
            && let Some(token) = charges.token(caller.gate, holder.key_id, charge, verdict.now())
        {
            set(&mut response, CHARGE, &token);
        }
        response
    }
}

/// Parses `X-Cost`.
///
/// # Errors
/// The body of the response to an invalid cost.
fn cost(headers: &HeaderMap) -> Result<u32, &'static str> {
    let mut values = headers.get_all(COST).iter();
    let Some(value) = values.next() else { return Ok(1) };
    if values.next().is_some() {
        return Err(r#"{"error": "X-Cost must be sent once"}"#);
    }
    let digits = value.as_bytes().iter().all(u8::is_ascii_digit);
    let cost = value.to_str().ok().filter(|_| digits).and_then(|text| text.parse::<u32>().ok());
    cost.filter(|&cost| cost > 0)
        .ok_or(r#"{"error": "X-Cost must be a whole number from 1 to 4294967295"}"#)
}

/// Parses `X-Group`, a list of groups NAME or NAME=COST, and `X-Need`, a list of scopes.
///
/// # Errors
/// The body of the response to an invalid list.
fn extras(headers: &HeaderMap) -> Result<Extras, String> {
    let mut extras = Extras::default();
    let mut names = Vec::new();
    for item in items(headers, GROUP) {
        let group = item.and_then(|item| match item.split_once('=') {
            Some((name, cost)) => Some((name, Some(digits(cost)?))),
            None => Some((item, None)),
        });
        let Some((name, cost)) = group else {
            return Err(wrong_item(GROUP, item, "must be a list of NAME or NAME=COST"));
        };
        if names.contains(&name) {
            return Err(wrong_item(GROUP, Some(name), "must name each group once"));
        }
        names.push(name);
        extras = extras.with_group(name, cost);
    }
    for scope in items(headers, NEED) {
        let Some(scope) = scope else {
            return Err(wrong_item(NEED, None, "must be a list of names"));
        };
        extras = extras.with_scope(scope);
    }
    Ok(extras)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn cost_is_a_positive_integer_sent_at_most_once() {
        let parsed = |values: &[&'static [u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(COST, HeaderValue::from_bytes(value).unwrap());
            }
            cost(&headers).ok()
        };
        assert_eq!(parsed(&[]), Some(1));
        assert_eq!(parsed(&[b"1"]), Some(1));
        assert_eq!(parsed(&[b"4294967295"]), Some(u32::MAX));
        for wrong in
            [&b"0"[..], b"", b"+1", b"-1", b"1.0", b"1 ", b"4294967296", b"one", b"\xff", b"1, 2"]
        {
            assert_eq!(parsed(&[wrong]), None, "{wrong:?}");
        }
        assert_eq!(parsed(&[b"1", b"1"]), None);
    }
}
