//! The routes of usage.

use axum::Json as Answer;
use axum::extract::State;
use keytally::Timestamp;

use super::input::{Auth, Params, PathKey};
use super::problem::Problem;
use super::state::Api;
use super::views::{KeyUsage, TeamUsage};
use crate::usage::{Grouping, Width};

/// How many buckets an answer has if the request names no beginning.
const BUCKETS: u64 = 24;

/// Shows what a key was used for.
#[utoipa::path(
    get,
    path = "/keys/{id}/usage",
    params(
        ("id" = String, Path, pattern = "^[0-9A-L][0-9A-Za-z]{10}$", description = "The key id"),
        ("width" = Option<String>, Query, pattern = "^(minute|hour|day)$", description = "minute, hour or day; hour by default"),
        ("from" = Option<String>, Query, format = DateTime, description = "The beginning; 24 buckets before the end by default"),
        ("to" = Option<String>, Query, format = DateTime, description = "The end; now by default"),
    ),
    responses((status = 200, body = KeyUsage))
)]
pub(super) async fn of_key(
    auth: Auth,
    params: Params,
    State(api): State<Api>,
    PathKey(key_id): PathKey,
) -> Result<Answer<KeyUsage>, Problem> {
    let params = params.only(&["width", "from", "to"])?;
    let (width, from, to) = range(&params, auth.caller.now)?;
    api.list.key(auth.caller.team_id, key_id).await?;
    let buckets = api.list.usage_of_key(key_id, width, from, to).await?;
    Ok(Answer(KeyUsage { width: width.as_str(), buckets }))
}

/// Shows what the keys of the team were used for, by key, environment or plan.
#[utoipa::path(
    get,
    path = "/usage",
    params(
        ("group" = Option<String>, Query, pattern = "^(key|env|plan)$", description = "key, env or plan; key by default"),
        ("width" = Option<String>, Query, pattern = "^(minute|hour|day)$", description = "minute, hour or day; hour by default"),
        ("from" = Option<String>, Query, format = DateTime, description = "The beginning; 24 buckets before the end by default"),
        ("to" = Option<String>, Query, format = DateTime, description = "The end; now by default"),
    ),
    responses((status = 200, body = TeamUsage))
)]
pub(super) async fn of_team(
    auth: Auth,
    params: Params,
    State(api): State<Api>,
) -> Result<Answer<TeamUsage>, Problem> {
    let params = params.only(&["group", "width", "from", "to"])?;
    let (width, from, to) = range(&params, auth.caller.now)?;
    let grouping = Grouping::named("group", params.get("group").unwrap_or("key"))?;
    let team_id = Some(auth.team()?);
    let groups = api.list.usage_of_team(team_id, grouping, width, from, to).await?;
    Ok(Answer(TeamUsage { groups }))
}

/// Returns the width and the range of a request.
fn range(params: &Params, now: Timestamp) -> Result<(Width, Timestamp, Timestamp), Problem> {
    let width = Width::named("width", params.get("width").unwrap_or("hour"))?;
    // The bucket of this moment is included.
    let to = params.time("to")?.unwrap_or(Timestamp::from_unix_s(now.unix_s().saturating_add(1)));
    let len_s = u64::try_from(width.len_s()).unwrap_or(0).saturating_mul(BUCKETS);
    let from = params.time("from")?;
    let from = from.unwrap_or(Timestamp::from_unix_s(to.unix_s().saturating_sub(len_s)));
    Ok((width, from, to))
}
