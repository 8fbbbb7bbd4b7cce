//! The check before a route: the call of the gate, and the response for its verdict.

use alloc::sync::Arc;
use core::net::IpAddr;

use axum::body::Body;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use keytally::{
    Compound, Gate, Holder, NamedQuota, Outcome, Patience, RequestError, Section, Verdict,
};
use keytally_tower::{Answer, Extras, set_fields};

use super::address::Peer;
use super::json::json;
use super::log::reason_of;
use super::state::Service;

/// The header that names, in shadow mode, the outcome of a request that would have been refused.
pub(crate) const SHADOW: &str = "X-Keytally-Shadow";

/// A route behind the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/auth`, for proxies.
    Auth,
    /// `/api/v1/contacts`
    Contacts,
    /// `/api/v1/limits`
    Limits,
    /// `/keys/api/v1`, the API of the list of keys.
    #[cfg(feature = "keys")]
    Keys,
}

impl Route {
    /// Returns the name in the log.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Contacts => "contacts",
            Self::Limits => "limits",
            #[cfg(feature = "keys")]
            Self::Keys => "keys",
        }
    }
}

/// The kind of check that a route needs.
#[derive(Clone, Debug)]
pub(crate) enum Check {
    /// Check the key and charge this cost, to these groups too.
    Charge(u32, Extras),
    /// Check the key and read its quotas, without a charge.
    Peek,
}

/// The client of a request, for the route behind the gate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller<'v> {
    /// The holder of the key. `None` only in shadow mode, if the key is missing or invalid. A
    /// revoked or expired key is invalid, although the verdict has its former holder.
    pub(crate) holder: Option<Holder>,
    pub(crate) answer: &'v Answer,
    /// The gate that returned the verdict.
    pub(crate) gate: &'v Arc<Gate>,
}

impl Caller<'_> {
    /// Returns the account, or 0 if the holder is unknown.
    pub(crate) fn account(&self) -> u32 {
        self.holder.map_or(0, |holder| holder.account)
    }
}

impl Service {
    /// Checks the request. If it is admitted, responds with `respond`, else with the refusal.
    ///
    /// In shadow mode, responds with `respond` in both cases.
    pub(crate) async fn check_and_respond(
        &self,
        route: Route,
        request: &Parts,
        check: Check,
        respond: impl FnOnce(&Caller<'_>) -> Response,
    ) -> Response {
        let headers = &request.headers;
        let (answer, gate) = match self.check_in_time(headers, &check).await {
            Ok(checked) => checked,
            Err(error) => return json(StatusCode::BAD_REQUEST, unknown_name(&error)),
        };
        let verdict = answer.verdict;
        self.metrics.count(&verdict);
        if let Some(compound) = &answer.compound {
            self.report_crossed(route.as_str(), compound);
        }
        if !verdict.is_admitted() {
            let shadow = self.settings.shadow;
            let client = self.client(route, &request.extensions, headers);
            let too_many = self.guesses.too_many(&verdict, client);
            let retry_after_s = too_many.as_ref().unwrap_or(&verdict).retry_after_s();
            let guessing = client.filter(|_| too_many.is_some());
            let reason = reason_in(&gate, &verdict);
            self.log.refusal(route.as_str(), &verdict, reason, retry_after_s, guessing, shadow);
            if too_many.is_some() {
                self.metrics.count_guess(shadow);
            }
            if !shadow {
                return match too_many {
                    None => self.refuse(&answer, headers),
                    Some(too_many) => self.refuse_guess(&too_many, headers),
                };
            }
            self.metrics.count_shadow(&verdict);
        }
        let holder = verdict.holder().filter(|_| verdict.outcome() != Outcome::InvalidKey);
        let mut response = respond(&Caller { holder, answer: &answer, gate: &gate });
        set_fields(response.headers_mut(), answer.shown());
        if !verdict.is_admitted() {
            // These headers belong to the refusal, which is not sent.
            response.headers_mut().remove(RETRY_AFTER);
            response.headers_mut().remove(WWW_AUTHENTICATE);
            set(&mut response, SHADOW, verdict.outcome().as_str());
        }
        response
    }

    /// Checks the request, and returns the answer with the gate that gave it. If it lacks credits
    /// of a fleet, waits for them, at most 20 ms, without blocking a thread.
    ///
    /// # Errors
    /// If the gate does not have a group or a scope that the request names.
    async fn check_in_time(
        &self,
        headers: &HeaderMap,
        check: &Check,
    ) -> Result<(Answer, Arc<Gate>), RequestError> {
        let try_once = |patience| {
            let mut used = None;
            let answer = self.gate.call(|gate| {
                used = Some(gate.to_arc());
                self.check(gate, headers, check, patience)
            })?;
            Ok((answer, used.unwrap_or_else(|| self.gate.load().to_arc())))
        };
        let (mut answer, mut gate) = try_once(Patience::Return)?;
        let mut pauses = gate.credit_pauses();
        while answer.is_waiting() {
            let Some(pause) = pauses.next() else { return try_once(Patience::Decide) };
            tokio::time::sleep(pause).await;
            (answer, gate) = try_once(Patience::Return)?;
        }
        Ok((answer, gate))
    }

    /// Logs and counts the warnings of plans that a charge reached.
    pub(crate) fn report_crossed(&self, route: &'static str, compound: &Compound) {
        for (tally, window, percent) in compound.crossed() {
            let (section, verdict) = (tally.section().unwrap_or(&Section::Key), tally.verdict());
            let Some(state) = verdict.quotas().get(window) else { continue };
            self.metrics.crossed(section, state.window, percent).inc();
            let quota = NamedQuota::new(Some(section.name()), state, verdict.cost(), false);
            self.log.crossed(route, verdict, &quota, percent);
        }
    }

    /// Returns the client address by which invalid keys are counted.
    ///
    /// At `/auth` the peer is a proxy, and all its clients would share one count. There, only an
    /// address that a trusted proxy forwards counts.
    pub(crate) fn client(
        &self,
        route: Route,
        extensions: &Extensions,
        headers: &HeaderMap,
    ) -> Option<IpAddr> {
        let peer = *extensions.get::<Peer>()?;
        let proxies = &self.settings.proxies;
        match route {
            Route::Auth => proxies.forwarded(peer, headers),
            _ => proxies.client(peer, headers),
        }
    }

    /// Calls the gate with the key in the headers.
    ///
    /// # Errors
    /// If the gate does not have a group or a scope that the request names.
    fn check(
        &self,
        gate: &Gate,
        headers: &HeaderMap,
        check: &Check,
        patience: Patience,
    ) -> Result<Answer, RequestError> {
        let mut wrong = None;
        let answer = self.settings.key_from.check(headers, |api_key| {
            let answer = match check {
                Check::Charge(cost, extras) => {
                    self.metrics.time(|| extras.check_with(gate, api_key, *cost, patience))
                }
                Check::Peek => Extras::default().peek(gate, api_key, 0),
            };
            answer.unwrap_or_else(|error| {
                wrong = Some(error);
                gate.peek(None, 0).into()
            })
        });
        wrong.map_or(Ok(answer), Err)
    }

    /// Returns the response to a request that the gate refused.
    fn refuse(&self, answer: &Answer, headers: &HeaderMap) -> Response {
        let verdict = &answer.verdict;
        let mut response = keytally_tower::refusal(answer.shown(), headers);
        set_fields(response.headers_mut(), answer.shown());
        self.settings.key_from.name_in(verdict, &mut response);
        self.settings.refusals.apply(verdict, &mut response);
        response.map(Body::from)
    }

    /// Returns the response to an invalid key beyond the limit of invalid keys.
    ///
    /// It has no rate-limit headers: they describe the quotas of a key.
    fn refuse_guess(&self, too_many: &Verdict, headers: &HeaderMap) -> Response {
        let mut response = keytally_tower::refusal(too_many, headers);
        self.settings.refusals.apply(too_many, &mut response);
        let mut response = response.map(Body::from);
        if let Some(seconds) = too_many.retry_after_s() {
            set(&mut response, "Retry-After", &seconds.to_string());
        }
        response
    }
}

/// Returns the body of the response to a request that names a group or a scope that the gate does
/// not have.
fn unknown_name(error: &RequestError) -> String {
    serde_json::json!({ "error": error.to_string() }).to_string()
}

/// Sets a header. Does nothing if the name or the value is not valid.
pub(crate) fn set(response: &mut Response, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) =
        (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
    {
        response.headers_mut().insert(name, value);
    }
}

/// Returns the reason for the log. A gate whose header was overwritten has no valid key, whichever
/// reason the verdict has.
fn reason_in(gate: &Gate, verdict: &Verdict) -> Option<&'static str> {
    if verdict.outcome() == Outcome::InvalidKey && gate.table().is_damaged() {
        return Some("gate_damaged");
    }
    reason_of(verdict)
}
