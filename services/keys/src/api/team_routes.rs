//! The routes of teams, members, tokens, sessions, plans and the log.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};

use super::input::{Auth, Json, Params, PathKey, PathNumber};
use super::problem::Problem;
use super::sent::created;
use super::state::Api;
use super::views::{
    CreateSession, CreateTeam, CreateToken, EditTeam, LogPage, Members, NewToken, PlanView, Plans,
    SessionLink, SetMember, TeamPage, Tokens,
};
use crate::log::{self, Filter};
use crate::roles::Role;
use crate::teams::{Member, Team, TeamEdit};
use crate::time;

/// Lists all teams. Only for operators.
#[utoipa::path(
    get,
    path = "/teams",
    params(
        ("after" = Option<i64>, Query, minimum = 0, description = "The value of next in the answer before"),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200, description = "The most teams, 1 to 200; 50 by default"),
    ),
    responses((status = 200, body = TeamPage))
)]
pub(super) async fn teams(
    auth: Auth,
    params: Params,
    State(api): State<Api>,
) -> Result<Answer<TeamPage>, Problem> {
    auth.require(Role::Operator)?;
    let params = params.only(&["after", "limit"])?;
    let limit = params.limit()?;
    let teams = api.list.teams(params.number("after")?.unwrap_or(0), limit).await?;
    let is_full = i64::try_from(teams.len()).is_ok_and(|len| len == limit);
    let next = teams.last().filter(|_| is_full).map(|team| team.team.into());
    Ok(Answer(TeamPage { teams, next }))
}

/// Makes a team. Only for operators.
#[utoipa::path(
    post,
    path = "/teams",
    params(("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,64}$", description = "A repeated one gets 409 with the number of the team")),
    request_body = CreateTeam,
    responses((status = 201, body = Team))
)]
pub(super) async fn create_team(
    auth: Auth,
    params: Params,
    State(api): State<Api>,
    Json(body): Json<CreateTeam>,
) -> Result<Response, Problem> {
    auth.require(Role::Operator)?;
    params.only(&[])?;
    let team = api.list.create_team(body.team, &body.name, auth.caller).await?;
    Ok((StatusCode::CREATED, Answer(team)).into_response())
}

/// Shows the team.
#[utoipa::path(
    get,
    path = "/team",
    responses((status = 200, body = Team))
)]
pub(super) async fn team(
    auth: Auth,
    params: Params,
    State(api): State<Api>,
) -> Result<Answer<Team>, Problem> {
    params.only(&[])?;
    Ok(Answer(api.list.team(auth.team()?).await?))
}

/// Changes the name of the team, the longest lifetime of its keys, and who makes live ones.
///
/// Keys that exist stay as they are. A request that is sent again changes nothing.
#[utoipa::path(
    patch,
    path = "/team",
    request_body = EditTeam,
    responses((status = 200, body = Team))
)]
pub(super) async fn edit_team(
    auth: Auth,
    params: Params,
    State(api): State<Api>,
    Json(body): Json<EditTeam>,
) -> Result<Answer<Team>, Problem> {
    auth.require(Role::Owner)?;
    params.only(&[])?;
    let EditTeam { name, longest_days, live_role } = body;
    let live_role = live_role.map(|role| Role::of_team("live_role", &role)).transpose()?;
    let edit = TeamEdit { name, longest_days, live_role };
    Ok(Answer(api.list.edit_team(auth.team()?, edit, auth.caller).await?))
}

/// Lists the members of the team.
#[utoipa::path(
    get,
    path = "/members",
    responses((status = 200, body = Members))
)]
pub(super) async fn members(
    auth: Auth,
    params: Params,
    State(api): State<Api>,
) -> Result<Answer<Members>, Problem> {
    params.only(&[])?;
    Ok(Answer(Members { members: api.list.members(auth.team()?).await? }))
}

/// Adds a member to the team, or changes a member's role.
#[utoipa::path(
    post,
    path = "/members",
    request_body = SetMember,
    responses((status = 200, body = Member))
)]
pub(super) async fn set_member(
    auth: Auth,
    params: Params,
    State(api): State<Api>,
    Json(body): Json<SetMember>,
) -> Result<Answer<Member>, Problem> {
    auth.require(Role::Owner)?;
    params.only(&[])?;
    let role = Role::of_team("role", &body.role)?;
    Ok(Answer(api.list.set_member(auth.team()?, &body.name, role, auth.caller).await?))
}

/// Removes a member from the team, and ends the member's sessions. Keys that the member made stay.
#[utoipa::path(
    delete,
    path = "/members/{user}",
    params(("user" = i64, Path, minimum = 1, description = "The number of the user")),
    responses((status = 204))
)]
pub(super) async fn remove_member(
    auth: Auth,
    params: Params,
    State(api): State<Api>,
    PathNumber(user): PathNumber,
) -> Result<StatusCode, Problem> {
    auth.require(Role::Owner)?;
    params.only(&[])?;
    api.list.remove_member(auth.team()?, user, auth.caller).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists the admin tokens of the team.
#[utoipa::path(
    get,
    path = "/tokens",
    responses((status = 200, body = Tokens))
)]
pub(super) async fn tokens(
    auth: Auth,
    params: Params,
    State(api): State<Api>,
) -> Result<Answer<Tokens>, Problem> {
    auth.require(Role::Owner)?;
    params.only(&[])?;
    Ok(Answer(Tokens { tokens: api.list.tokens(Some(auth.team()?)).await? }))
}

/// Makes an admin token of the team. The answer is the only one with its secret.
#[utoipa::path(
    post,
    path = "/tokens",
    params(("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,64}$", description = "A repeated one gets 409")),
    request_body = CreateToken,
    responses((status = 201, body = NewToken))
)]
pub(super) async fn create_token(
    auth: Auth,
    params: Params,
    State(api): State<Api>,
    Json(body): Json<CreateToken>,
) -> Result<Response, Problem> {
    auth.require(Role::Owner)?;
    params.only(&[])?;
    let role = Role::of_team("role", &body.role)?;
    let team_id = Some(auth.team()?);
    let made = api.list.create_token(team_id, role, &body.name, auth.caller.clone()).await;
    let (key, token) = match made {
        Ok(made) => made,
        Err(error) => return Err(api.list.explain(error, &auth.caller).await.into()),
    };
    let location = format!("tokens/{}", token.token);
    let token = NewToken { key: key.expose().to_owned(), token };
    Ok(created(&location, serde_json::to_vec(&token).unwrap_or_default().into()))
}

/// Revokes an admin token of the team.
#[utoipa::path(
    delete,
    path = "/tokens/{id}",
    params(("id" = String, Path, pattern = "^[0-9A-L][0-9A-Za-z]{10}$", description = "The public name of the token")),
    responses((status = 204))
)]
pub(super) async fn revoke_token(
    auth: Auth,
    params: Params,
    State(api): State<Api>,
    PathKey(key_id): PathKey,
) -> Result<StatusCode, Problem> {
    auth.require(Role::Owner)?;
    params.only(&[])?;
    api.list.revoke_token(auth.caller.team_id, key_id, auth.caller).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a one-time link that signs a user of yours in to the team's page of keys.
///
/// A user who is not a member becomes one with this role. The role of a member stays: the session
/// has the lesser of both, and `POST members` changes that of the member.
#[utoipa::path(
    post,
    path = "/sessions",
    request_body = CreateSession,
    responses((status = 201, body = SessionLink))
)]
pub(super) async fn create_session(
    auth: Auth,
    params: Params,
    State(api): State<Api>,
    Json(body): Json<CreateSession>,
) -> Result<Response, Problem> {
    auth.require(Role::Owner)?;
    params.only(&[])?;
    let role = Role::of_team("role", &body.role)?;
    let team_id = Some(auth.team()?);
    let link = api.list.create_link(team_id, Some(&body.user), role, auth.caller).await?;
    let url = link.url(&api.public_url);
    let (role, ends) = (link.sign_in.role, time::shown(time::stored(link.ends)));
    Ok((StatusCode::CREATED, Answer(SessionLink { url, role, ends })).into_response())
}

/// Lists the plans of the gate.
#[utoipa::path(
    get,
    path = "/plans",
    responses((status = 200, body = Plans))
)]
pub(super) async fn plans(
    _: Auth,
    params: Params,
    State(api): State<Api>,
) -> Result<Answer<Plans>, Problem> {
    params.only(&[])?;
    let gate = api.list.gate().load();
    let view = |(_, plan): (u8, keytally::Plan)| PlanView {
        name: plan.name.to_string(),
        limits: plan.sections.to_string(),
    };
    Ok(Answer(Plans { plans: gate.table().plans().map(view).collect() }))
}

/// Shows the log of the team, the newest entries first. The token of an operator without a team
/// gets the log of all.
#[utoipa::path(
    get,
    path = "/log",
    params(
        ("key" = Option<String>, Query, pattern = "^[0-9A-L][0-9A-Za-z]{10}$", description = "A key id"),
        ("actor" = Option<String>, Query, min_length = 1, max_length = 64, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$", description = "Who: actor_kind and actor of an entry, such as user 3; operator, reconcile, token or user alone; or the name of a user"),
        ("action" = Option<String>, Query, pattern = r"^[a-z_]{1,24}(\.[a-z_]{1,24})?$", description = "What: an action, such as key.revoke, or all of a kind, such as key"),
        ("from" = Option<String>, Query, format = DateTime, description = "The earliest time"),
        ("to" = Option<String>, Query, format = DateTime, description = "The time before which the entries are"),
        ("before" = Option<i64>, Query, minimum = 0, description = "The value of next in the answer before"),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200, description = "The most entries, 1 to 200; 50 by default"),
    ),
    responses((status = 200, body = LogPage))
)]
pub(super) async fn log(
    auth: Auth,
    params: Params,
    State(api): State<Api>,
) -> Result<Answer<LogPage>, Problem> {
    let params = params.only(&["key", "actor", "action", "from", "to", "before", "limit"])?;
    let limit = params.limit()?;
    let actor = match params.get("actor") {
        None => None,
        Some(text) => Some(api.list.actor("actor", text).await?),
    };
    let action = params.get("action").map(|text| log::action("action", text)).transpose()?;
    let (from, to) = (params.time("from")?, params.time("to")?);
    if from.zip(to).is_some_and(|(from, to)| from >= to) {
        return Err(Problem::invalid("to", "it must be later than from"));
    }
    let filter = Filter {
        team_id: auth.caller.team_id,
        key_id: params.key_id("key")?,
        key_ids: Vec::new(),
        actor,
        action: action.unwrap_or_default(),
        from,
        to,
        before: params.number("before")?,
        limit,
    };
    let entries = api.list.log(&filter).await?;
    let is_full = i64::try_from(entries.len()).is_ok_and(|len| len == limit);
    let next = entries.last().filter(|_| is_full).map(|entry| entry.seq);
    Ok(Answer(LogPage { entries, next }))
}
