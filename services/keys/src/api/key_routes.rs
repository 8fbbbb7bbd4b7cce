//! The routes of keys.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use keytally::{Key, KeyId, Name};

use super::input::{Auth, Json, Params, PathKey};
use super::problem::Problem;
use super::sent::{self, created};
use super::state::Api;
use super::views::{
    CreateKey, EditKey, KeyPage, KeyView, NewKeyView, RevokeKey, RevokeKeys, RevokedKeys,
    RevokedView, RotateKey,
};
use crate::change::{Caller, Creation, Edit, MAX_REVOKED};
use crate::keys::{FLAGS, KeyFilter, KeyRow, SORTS, Sort};
use crate::roles::Role;
use crate::time;

/// Lists the keys of the team.
#[utoipa::path(
    get,
    path = "/keys",
    params(
        ("state" = Option<String>, Query, pattern = "^(active|expired|revoked)$", description = "active, expired or revoked"),
        ("env" = Option<String>, Query, max_length = 64, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$", description = "An environment"),
        ("plan" = Option<String>, Query, max_length = 64, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$", description = "A plan"),
        ("search" = Option<String>, Query, max_length = 64, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$", description = "A part of the name, the id, or the hint, such as `kt_live_…9aZk` or `9aZk`; never a whole key"),
        ("flag" = Option<String>, Query, pattern = "^(expires_soon|never_expires|unused|old_secret_used)$", description = "Active keys that expire within 14 days, that never expire, that were not used for 90 days, or whose old secret is still valid and was used since the rotation"),
        ("sort" = Option<String>, Query, pattern = "^-?(created|name|last_used|expires)$", description = "created, name, last_used or expires, with - the greatest first; -created by default. A key that was never used is before all others, and one that never expires is after all others"),
        ("after" = Option<String>, Query, pattern = r"^((u|e)?[0-9]{1,18}|n([0-9a-f]{2}){1,256})\.[0-9A-L][0-9A-Za-z]{10}$", description = "The value of next in the answer before, with the same sort"),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200, description = "The most keys, 1 to 200; 50 by default"),
    ),
    responses((status = 200, body = KeyPage))
)]
pub(super) async fn list(
    auth: Auth,
    params: Params,
    State(api): State<Api>,
) -> Result<Answer<KeyPage>, Problem> {
    let names = ["state", "env", "plan", "search", "flag", "sort", "after", "limit"];
    let params = params.only(&names)?;
    let limit = params.limit()?;
    let sort = Sort::named(&params.word("sort", &SORTS)?).unwrap_or_default();
    let filter = KeyFilter {
        team_id: Some(auth.team()?),
        state: params.word("state", &["active", "expired", "revoked"])?,
        env: params.text("env")?,
        plan: params.text("plan")?,
        flag: params.word("flag", &FLAGS)?,
        search: params.text("search")?,
        sort,
        after: params.cursor(sort)?,
        // One more shows whether there is another page.
        limit: limit.saturating_add(1),
    };
    let now = auth.caller.now;
    let mut rows = api.list.keys(&filter, now).await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| has_more).map(|row| row.cursor(sort).to_string());
    let prefix = api.list.gate().load().table().prefix();
    let keys = rows.iter().map(|row| KeyView::new(row, prefix, now)).collect();
    Ok(Answer(KeyPage { keys, next }))
}

/// Creates a key. The answer is the only one with its secret.
#[utoipa::path(
    post,
    path = "/keys",
    params(
        ("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,64}$", description = "A repeated one gets 409 with the key id"),
    ),
    request_body = CreateKey,
    responses((status = 201, body = NewKeyView))
)]
pub(super) async fn create(
    auth: Auth,
    params: Params,
    State(api): State<Api>,
    Json(body): Json<CreateKey>,
) -> Result<Response, Problem> {
    auth.require(Role::Member)?;
    params.only(&[])?;
    let new = Creation {
        team_id: auth.team()?,
        env: env(&body.env)?,
        name: body.name,
        note: body.note,
        plan: body.plan,
        scopes: body.scopes,
        expires: body.expires.map(|text| time::parse("expires", &text)).transpose()?,
    };
    let made = api.list.create_key(new, auth.caller.clone()).await;
    let (key, row) = match made {
        Ok(made) => made,
        Err(error) => return Err(api.list.explain(error, &auth.caller).await.into()),
    };
    Ok(with_secret(&api, &key, row, &auth.caller))
}

/// Shows a key.
#[utoipa::path(
    get,
    path = "/keys/{id}",
    params(("id" = String, Path, pattern = "^[0-9A-L][0-9A-Za-z]{10}$", description = "The key id")),
    responses((status = 200, body = KeyView))
)]
pub(super) async fn show(
    auth: Auth,
    params: Params,
    State(api): State<Api>,
    PathKey(key_id): PathKey,
) -> Result<Answer<KeyView>, Problem> {
    params.only(&[])?;
    let row = api.list.key(auth.caller.team_id, key_id).await?;
    Ok(view(&api, &row, &auth.caller))
}

/// Changes the name, note, plan, scopes or expiry of a key.
#[utoipa::path(
    patch,
    path = "/keys/{id}",
    params(("id" = String, Path, pattern = "^[0-9A-L][0-9A-Za-z]{10}$", description = "The key id")),
    request_body = EditKey,
    responses((status = 200, body = KeyView))
)]
pub(super) async fn edit(
    auth: Auth,
    params: Params,
    State(api): State<Api>,
    PathKey(key_id): PathKey,
    Json(body): Json<EditKey>,
) -> Result<Answer<KeyView>, Problem> {
    auth.require(Role::Admin)?;
    params.only(&[])?;
    let expires = match body.expires {
        None => None,
        Some(text) => Some(text.map(|text| time::parse("expires", &text)).transpose()?),
    };
    let edit =
        Edit { name: body.name, note: body.note, plan: body.plan, scopes: body.scopes, expires };
    let row = api.list.edit_key(key_id, edit, auth.caller.clone()).await?;
    Ok(view(&api, &row, &auth.caller))
}

/// Gives a key a new secret. The answer is the only one with it. The key keeps its id, its counts
/// and its history.
#[utoipa::path(
    post,
    path = "/keys/{id}/rotate",
    params(
        ("id" = String, Path, pattern = "^[0-9A-L][0-9A-Za-z]{10}$", description = "The key id"),
        ("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,64}$", description = "A repeated one gets 409"),
    ),
    request_body = RotateKey,
    responses((status = 200, body = NewKeyView))
)]
pub(super) async fn rotate(
    auth: Auth,
    params: Params,
    State(api): State<Api>,
    PathKey(key_id): PathKey,
    Json(body): Json<RotateKey>,
) -> Result<Response, Problem> {
    auth.require(Role::Member)?;
    params.only(&[])?;
    let caller = auth.caller.clone();
    let (key, row) = match api.list.rotate_key(key_id, body.grace_s, body.force, caller).await {
        Ok(rotated) => rotated,
        Err(error) => return Err(api.list.explain(error, &auth.caller).await.into()),
    };
    let body = secret_body(&api, &key, row, &auth.caller);
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

/// Ends the secret before the last rotation at once.
#[utoipa::path(
    post,
    path = "/keys/{id}/end-grace",
    params(("id" = String, Path, pattern = "^[0-9A-L][0-9A-Za-z]{10}$", description = "The key id")),
    responses((status = 200, body = KeyView))
)]
pub(super) async fn end_grace(
    auth: Auth,
    params: Params,
    State(api): State<Api>,
    PathKey(key_id): PathKey,
) -> Result<Answer<KeyView>, Problem> {
    auth.require(Role::Member)?;
    params.only(&[])?;
    let row = api.list.end_grace(key_id, auth.caller.clone()).await?;
    Ok(view(&api, &row, &auth.caller))
}

/// Revokes a key. The next check on this machine refuses it, also if the database cannot be used.
#[utoipa::path(
    post,
    path = "/keys/{id}/revoke",
    params(("id" = String, Path, pattern = "^[0-9A-L][0-9A-Za-z]{10}$", description = "The key id")),
    request_body = RevokeKey,
    responses((status = 200, body = RevokedView))
)]
pub(super) async fn revoke(
    auth: Auth,
    params: Params,
    State(api): State<Api>,
    PathKey(key_id): PathKey,
    Json(body): Json<RevokeKey>,
) -> Result<Answer<RevokedView>, Problem> {
    auth.require(Role::Admin)?;
    params.only(&[])?;
    let revoked = api.list.revoke_keys(vec![key_id], body.why, auth.caller).await?;
    let listed = revoked.iter().all(|revoked| revoked.is_listed);
    Ok(Answer(RevokedView { key_id: key_id.to_string(), listed }))
}

/// Revokes several keys. If the team does not have one of them, none is revoked.
#[utoipa::path(
    post,
    path = "/keys/revoke",
    request_body = RevokeKeys,
    responses((status = 200, body = RevokedKeys))
)]
pub(super) async fn revoke_all(
    auth: Auth,
    params: Params,
    State(api): State<Api>,
    Json(body): Json<RevokeKeys>,
) -> Result<Answer<RevokedKeys>, Problem> {
    auth.require(Role::Admin)?;
    params.only(&[])?;
    if !(1..=MAX_REVOKED).contains(&body.key_ids.len()) {
        let reason = format!("it must name 1 to {MAX_REVOKED} keys");
        return Err(Problem::invalid("key_ids", reason));
    }
    let parse = |text: &String| {
        let key_id = keytally::redact::parse_key_id(text);
        key_id.map_err(|reason| Problem::invalid("key_ids", reason))
    };
    let key_ids = body.key_ids.iter().map(parse).collect::<Result<Vec<KeyId>, _>>()?;
    let revoked = api.list.revoke_keys(key_ids, body.why, auth.caller).await?;
    let view = |revoked: crate::change::Revoked| RevokedView {
        key_id: revoked.key_id.to_string(),
        listed: revoked.is_listed,
    };
    Ok(Answer(RevokedKeys { keys: revoked.into_iter().map(view).collect() }))
}

/// Parses an environment.
fn env(text: &str) -> Result<Name, Problem> {
    Name::new(text)
        .ok_or_else(|| Problem::invalid("env", "it must be 1 to 8 characters of a-z and 0-9"))
}

fn view(api: &Api, row: &KeyRow, caller: &Caller) -> Answer<KeyView> {
    Answer(KeyView::new(row, api.list.gate().load().table().prefix(), caller.now))
}

/// Returns an answer with the secret of a key that was made.
fn with_secret(api: &Api, key: &Key, row: KeyRow, caller: &Caller) -> Response {
    let location = format!("keys/{}", row.key_id);
    created(&location, secret_body(api, key, row, caller))
}

fn secret_body(api: &Api, key: &Key, row: KeyRow, caller: &Caller) -> axum::body::Body {
    let Answer(view) = view(api, &row, caller);
    let view = NewKeyView { key: key.expose().to_owned(), view };
    let text = serde_json::to_vec(&view).unwrap_or_default();
    sent::body(text, api.list.clone(), row, caller.now)
}
