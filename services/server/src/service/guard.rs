//! The gate in front of a route: what it's asked, and the response that its verdict makes.

use core::net::IpAddr;

use axum::extract::Request;
use axum::http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use keytally::API_KEY_HEADER;
use keytally::{Gate, now};
use keytally::{Holder, Outcome, PROBLEM_MEDIA_TYPE, Verdict, accepts_problem};

use super::address::Peer;
use super::{Service, json};

/// In shadow mode, says what a request that was let through would have been.
pub(crate) const SHADOW: &str = "X-Keytally-Shadow";

/// A route behind the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/auth`, which proxies ask.
    Auth,
    /// `/api/v1/contacts`
    Contacts,
    /// `/api/v1/limits`
    Limits,
}

impl Route {
    /// Returns the name in the log.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Contacts => "contacts",
            Self::Limits => "limits",
        }
    }
}

/// What a route asks of the gate.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    /// Charge so much, if there is room.
    Charge(u32),
    /// Check the key and look at its quotas.
    Look,
}

/// Who the request is from, for the route behind the gate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller<'v> {
    /// Unknown only in shadow mode, where an invalid key names no holder either: it may be revoked or expired.
    pub(crate) holder: Option<Holder>,
    pub(crate) verdict: &'v Verdict,
    /// The gate that gave the verdict.
    pub(crate) gate: &'v Gate,
}

impl Caller<'_> {
    /// The account; that of an unknown caller is 0.
    pub(crate) fn account(&self) -> u32 {
        self.holder.map_or(0, |holder| holder.account)
    }
}

impl Service {
    /// Asks the gate, and lets `answer` respond when it admits.
    pub(crate) fn guard(
        &self,
        route: Route,
        request: &Request,
        ask: Ask,
        answer: impl FnOnce(&Caller<'_>) -> Response,
    ) -> Response {
        let headers = request.headers();
        let gate = self.gate.load();
        let verdict = self.ask(&gate, headers, ask);
        self.metrics.count(&verdict);
        if !verdict.is_admitted() {
            let shadow = self.settings.shadow;
            let too_many = self.guesses.too_many(&verdict, self.client(route, request));
            let retry_after_s = too_many.as_ref().unwrap_or(&verdict).retry_after_s();
            self.log.refusal(route.as_str(), &verdict, retry_after_s, shadow);
            if too_many.is_some() {
                self.metrics.count_guess(shadow);
            }
            if !shadow {
                return match too_many {
                    None => refusal(&verdict, headers),
                    Some(too_many) => refused_guess(&too_many, headers),
                };
            }
            self.metrics.count_shadow(&verdict);
        }
        let holder = verdict.holder().filter(|_| verdict.outcome() != Outcome::InvalidKey);
        let mut response = answer(&Caller { holder, verdict: &verdict, gate: &gate });
        set_headers(&mut response, &verdict);
        if !verdict.is_admitted() {
            // They belong to the statuses that weren't sent.
            response.headers_mut().remove(RETRY_AFTER);
            response.headers_mut().remove(WWW_AUTHENTICATE);
            set(&mut response, SHADOW, verdict.outcome().as_str());
        }
        response
    }

    /// Returns the address that failed checks are counted by.
    ///
    /// At `/auth` that is one that a trusted proxy forwards: the peer there is the proxy, and all clients would share
    /// its count.
    fn client(&self, route: Route, request: &Request) -> Option<IpAddr> {
        let peer = *request.extensions().get::<Peer>()?;
        let proxies = &self.settings.proxies;
        match route {
            Route::Auth => proxies.forwarded(peer, request.headers()),
            Route::Contacts | Route::Limits => proxies.client(peer, request.headers()),
        }
    }

    fn ask(&self, gate: &Gate, headers: &HeaderMap, ask: Ask) -> Verdict {
        let mut values = headers.get_all(API_KEY_HEADER).iter();
        // The value is bytes: it need not be UTF-8.
        let api_key = values.next().map(HeaderValue::as_bytes);
        if values.next().is_some() {
            return Verdict::duplicate_header(now());
        }
        match ask {
            Ask::Charge(cost) => self.metrics.time(|| gate.check(api_key, cost)),
            Ask::Look => gate.peek(api_key, 0),
        }
    }
}

/// The response to a request that the gate refused.
fn refusal(verdict: &Verdict, headers: &HeaderMap) -> Response {
    let mut response = refusal_without_quotas(verdict, headers);
    set_headers(&mut response, verdict);
    response
}

/// The response to a wrong key after too many of them. The rate-limit headers describe a key's quota, and there is none.
fn refused_guess(too_many: &Verdict, headers: &HeaderMap) -> Response {
    let mut response = refusal_without_quotas(too_many, headers);
    if let Some(seconds) = too_many.retry_after_s() {
        set(&mut response, "Retry-After", &seconds.to_string());
    }
    response
}

/// Status and body of a refusal.
fn refusal_without_quotas(verdict: &Verdict, headers: &HeaderMap) -> Response {
    let status = StatusCode::from_u16(verdict.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if wants_problem(headers) {
        let mut response = json(status, verdict.problem().as_str().to_owned());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_MEDIA_TYPE));
        response
    } else {
        json(status, verdict.body())
    }
}

/// Whether the request names problem documents among what it accepts.
fn wants_problem(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().any(|value| accepts_problem(value.as_bytes()))
}

/// Sets the verdict's headers: there is one of each, whatever the route has set.
fn set_headers(response: &mut Response, verdict: &Verdict) {
    for (name, value) in verdict.headers().iter() {
        set(response, name, value);
    }
}

/// Sets a header whose name and value are of our making.
pub(crate) fn set(response: &mut Response, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
        response.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(accept: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(ACCEPT, HeaderValue::from_static(value));
        }
        wants_problem(&headers)
    }

    #[test]
    fn a_problem_document_is_for_those_who_name_it() {
        for none in [
            &[][..],
            &["*/*"],
            &["application/json"],
            &["application/*"],
            &["application/problem+json;q=0"],
            &["application/problem+json ; Q=0.0"],
        ] {
            assert!(!wants(none), "{none:?}");
        }
        for some in [
            &["application/problem+json"][..],
            &["text/html, Application/Problem+JSON;q=0.5"],
            &["*/*", "application/problem+json"],
        ] {
            assert!(wants(some), "{some:?}");
        }
    }
}
