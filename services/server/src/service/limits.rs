//! `GET /api/v1/limits`: tells the caller's quotas and charges nothing.

use alloc::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::Serialize;

use super::guard::{Ask, Route};
use super::{Service, json_of};
use keytally_cli::Use;

/// Charges nothing and gives the caller's quotas.
pub(crate) async fn limits(State(service): State<Arc<Service>>, request: Request) -> Response {
    service.guard(Route::Limits, &request, Ask::Look, |caller| {
        let table = caller.gate.table();
        let plan = caller.holder.and_then(|holder| table.plan(holder.plan));
        json_of(&Limits {
            account: caller.account(),
            key_id: caller.holder.map(|holder| holder.key_id.to_string()),
            env: caller.holder.and_then(|holder| table.env(holder.env)).map(|env| env.to_string()),
            plan: plan.as_ref().map(|plan| plan.name.as_str()),
            quotas: Use::of(caller.verdict.quotas()),
        })
    })
}

#[derive(Serialize)]
struct Limits<'a> {
    account: u32,
    key_id: Option<String>,
    env: Option<String>,
    plan: Option<&'a str>,
    quotas: Vec<Use>,
}
