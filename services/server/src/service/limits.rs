//! `GET /api/v1/limits`: returns the quotas of the key and charges nothing.

use alloc::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::Serialize;

use super::check::{Caller, Check, Route};
use super::json::json_of;
use super::state::Service;
use keytally_cli::internal::QuotaUse;

/// Returns the quotas of the caller's key.
pub(crate) async fn limits(State(service): State<Arc<Service>>, request: Request) -> Response {
    let (request, _) = request.into_parts();
    let respond = |caller: &Caller<'_>| {
        let table = caller.gate.table();
        let plan = caller.holder.and_then(|holder| table.plan(holder.plan));
        json_of(&Limits {
            account: caller.account(),
            key_id: caller.holder.map(|holder| holder.key_id.to_string()),
            env: caller.holder.and_then(|holder| table.env(holder.env)).map(|env| env.to_string()),
            plan: plan.as_ref().map(|plan| plan.name.as_str()),
            quotas: QuotaUse::of_request(caller.answer.compound.as_deref(), &caller.answer.verdict),
        })
    };
    service.check_and_respond(Route::Limits, &request, Check::Peek, respond).await
}

#[derive(Serialize)]
struct Limits<'a> {
    account: u32,
    key_id: Option<String>,
    env: Option<String>,
    plan: Option<&'a str>,
    quotas: Vec<QuotaUse>,
}
