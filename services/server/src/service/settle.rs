//! `POST /settle`: replaces the charge of a request at `/auth` by its actual cost, once.
//!
//! The request has the token that `/auth` returned in `X-Keytally-Charge`, and the actual cost in
//! `X-Cost`: 0 returns the whole charge. It is for the proxy and for the services behind it, which
//! can reach the listener of `/auth`. Clients never get a token.
//!
//! `X-Group` lists groups that were charged a cost of their own, as NAME=COST with the actual cost.
//! Then `X-Cost` may be absent, and groups that are left out keep their charge.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use keytally::{Gate, Section};
use serde::Serialize;

use super::charges::{Actual, Charges, Refusal};
use super::fields::{CHARGE, COST, GROUP, digits, items, wrong_item};
use super::json::{json, json_of};
use super::metrics::Settlement;
use super::state::Service;

/// The response to a settled charge.
#[derive(Debug, Serialize)]
struct Settled {
    /// The units that `/auth` charged.
    charged: u32,
    /// The units that stay charged.
    cost: u32,
    /// The units of each group of `X-Group` for which there was no room.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    uncharged: BTreeMap<String, u32>,
}

/// Settles the charge of a token.
pub(crate) async fn settle(State(service): State<Arc<Service>>, request: Request) -> Response {
    let Some(charges) = &service.charges else {
        return json(StatusCode::NOT_FOUND, r#"{"error": "Not found"}"#);
    };
    let (settlement, response) = service.settle(charges, request.headers());
    service.metrics.count_settlement(settlement);
    response
}

impl Service {
    fn settle(&self, charges: &Charges, headers: &HeaderMap) -> (Settlement, Response) {
        let bad_request =
            |error: String| (Settlement::BadRequest, json(StatusCode::BAD_REQUEST, error));
        let Some(token) = only(headers, CHARGE) else {
            return bad_request(error(format_args!("{CHARGE} must be sent once")));
        };
        let gate = self.gate.load().to_arc();
        let token = match charges.read(&gate, token.as_bytes()) {
            Ok(token) => token,
            Err(refusal) => return refused(charges, refusal),
        };
        let groups = match groups(headers, &gate) {
            Ok(groups) => groups,
            Err(body) => return bad_request(body),
        };
        let charged = token.charge.cost();
        let mut actual = Actual { cost: None, groups };
        if actual.groups.is_empty() || headers.contains_key(COST) {
            actual.cost = only(headers, COST).and_then(|value| whole_number(value, charged));
            if actual.cost.is_none() {
                return bad_request(error(format_args!(
                    "{COST} must be sent once, and a whole number from 0 to the charge, which is {charged}"
                )));
            }
        }
        let settled = charges.settle(&token, &actual, |work| self.gate.call(|gate| work(gate)));
        match settled {
            Ok(settled) => {
                let uncharged = settled.as_ref().map_or(&[][..], |settled| settled.uncharged());
                if let Some(settled) = &settled {
                    self.report_crossed("settle", settled.compound());
                }
                let names = actual.groups.iter().map(|(name, _)| (*name).to_owned());
                let (cost, uncharged) = (
                    actual.cost.unwrap_or(charged),
                    names.zip(uncharged.iter().copied()).collect(),
                );
                (Settlement::Settled, json_of(&Settled { charged, cost, uncharged }))
            }
            Err(refusal) => refused(charges, refusal),
        }
    }
}

/// Returns the response to a charge that is not settled.
fn refused(charges: &Charges, refusal: Refusal) -> (Settlement, Response) {
    let (settlement, status, text) = match refusal {
        Refusal::Unknown => (
            Settlement::Unknown,
            StatusCode::FORBIDDEN,
            format!("{CHARGE} is not a charge of this service"),
        ),
        Refusal::Expired => (
            Settlement::Expired,
            StatusCode::GONE,
            format!("The charge is older than {} s", charges.lifetime().as_secs()),
        ),
        Refusal::Settled => {
            (Settlement::Repeated, StatusCode::CONFLICT, "The charge was settled before".to_owned())
        }
        Refusal::Full { .. } => (
            Settlement::Full,
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many charges were settled; the charge stays unless it is settled later".to_owned(),
        ),
        Refusal::Gone => {
            (Settlement::Gone, StatusCode::GONE, "The key of the charge does not exist".to_owned())
        }
        Refusal::Moving => (
            Settlement::Unavailable,
            StatusCode::SERVICE_UNAVAILABLE,
            "The counts of the key are being moved to another file".to_owned(),
        ),
    };
    let mut response = json(status, error(format_args!("{text}")));
    let retry_after_s = match refusal {
        Refusal::Full { retry_after_s } => Some(retry_after_s),
        Refusal::Moving => Some(1),
        _ => None,
    };
    if let Some(retry_after_s) = retry_after_s {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry_after_s));
    }
    (settlement, response)
}

/// Returns the body of an error whose text needs no escapes in JSON.
fn error(text: core::fmt::Arguments<'_>) -> String {
    format!(r#"{{"error": "{text}"}}"#)
}

/// Returns the value of a header that is there once.
fn only<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Parses `X-Group`, a list of groups of the gate as NAME=COST.
///
/// # Errors
/// The body of the response to an invalid list.
fn groups<'h>(headers: &'h HeaderMap, gate: &Gate) -> Result<Vec<(&'h str, u32)>, String> {
    let sections = gate.table().sections();
    let mut groups = Vec::new();
    for item in items(headers, GROUP) {
        let group = item.and_then(|item| {
            let (name, cost) = item.split_once('=')?;
            sections.contains(&Section::group(name)?).then_some((name, digits(cost)?))
        });
        let Some((name, cost)) = group else {
            return Err(wrong_item(
                GROUP,
                item,
                "must be a list of NAME=COST with groups of the gate",
            ));
        };
        if groups.iter().any(|(before, _)| *before == name) {
            return Err(wrong_item(GROUP, Some(name), "must name each group once"));
        }
        groups.push((name, cost));
    }
    Ok(groups)
}

/// Parses a number from 0 to `max`.
fn whole_number(value: &HeaderValue, max: u32) -> Option<u32> {
    digits(value.to_str().ok()?).filter(|&number| number <= max)
}
