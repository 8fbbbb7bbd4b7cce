//! The JSON API, `/keys/api/v1`. `GET openapi.json` describes it.
//!
//! A request carries an admin token in `X-API-Key`. Each error is a problem (RFC 9457) that names
//! the value. What another team has is as unknown as what is not there.

mod input;
mod key_routes;
mod problem;
mod sent;
mod state;
mod team_routes;
mod usage_routes;
pub mod views;

use axum::extract::DefaultBodyLimit;
use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::Response;
use axum::routing::{any, get};
use axum::{Json, Router};
use keytally::PROBLEM_MEDIA_TYPE;
use utoipa::OpenApi;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityScheme};
use utoipa::openapi::{Content, Ref, RefOr, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use self::input::{ClientAddress, RefusedToken};
pub use self::problem::Problem;
pub(crate) use self::sent::body as secret_body;
pub use self::state::{Api, PREFIX};

/// The head of the description.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Keytally keys",
        description = "Manages the API keys of teams. Requests carry an admin token in X-API-Key. \
                       The token of an operator names the team of a request by the parameter team."
    ),
    servers((url = "/keys/api/v1")),
    components(schemas(Problem)),
    security(("token" = []))
)]
struct Description;

/// Returns the routes with their description.
fn described() -> (Router<Api>, utoipa::openapi::OpenApi) {
    let (router, mut description) = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(key_routes::list, key_routes::create))
        .routes(routes!(key_routes::show, key_routes::edit))
        .routes(routes!(key_routes::rotate))
        .routes(routes!(key_routes::end_grace))
        .routes(routes!(key_routes::revoke))
        .routes(routes!(key_routes::revoke_all))
        .routes(routes!(usage_routes::of_key))
        .routes(routes!(usage_routes::of_team))
        .routes(routes!(team_routes::plans))
        .routes(routes!(team_routes::teams, team_routes::create_team))
        .routes(routes!(team_routes::team, team_routes::edit_team))
        .routes(routes!(team_routes::members, team_routes::set_member))
        .routes(routes!(team_routes::remove_member))
        .routes(routes!(team_routes::tokens, team_routes::create_token))
        .routes(routes!(team_routes::revoke_token))
        .routes(routes!(team_routes::create_session))
        .routes(routes!(team_routes::log))
        .split_for_parts();
    let scheme = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Key")));
    description.components.get_or_insert_default().add_security_scheme("token", scheme);
    for item in description.paths.paths.values_mut() {
        let methods = [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete];
        methods.into_iter().flatten().for_each(complete);
    }
    (router, description)
}

/// Describes what all operations have: the parameter `team`, and problems.
fn complete(operation: &mut Operation) {
    let number =
        ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(u32::MAX));
    let team = ParameterBuilder::new()
        .name("team")
        .parameter_in(ParameterIn::Query)
        .description(Some("The team; for the token of an operator, which is of no team"))
        .schema(Some(number))
        .build();
    let parameters = operation.parameters.get_or_insert_default();
    for parameter in &mut *parameters {
        // A parameter is absent, not null.
        if let RefOr::T(parameter) = parameter
            && let Some(RefOr::T(Schema::Object(object))) = &mut parameter.schema
            && let SchemaType::Array(types) = &object.schema_type
            && let Some(kind) = types.iter().find(|kind| **kind != Type::Null)
        {
            object.schema_type = SchemaType::Type(kind.clone());
        }
    }
    parameters.push(team.into());
    for (status, description) in [("4XX", "What is wrong"), ("5XX", "What cannot be done now")] {
        let content = Content::new(Some(Ref::from_schema_name("Problem")));
        let response =
            ResponseBuilder::new().description(description).content(PROBLEM_MEDIA_TYPE, content);
        operation.responses.responses.insert(status.to_owned(), response.build().into());
    }
}

/// Returns the description of the API in the form of OpenAPI.
pub fn description() -> utoipa::openapi::OpenApi {
    described().1
}

/// Returns the routes of the API, below [`PREFIX`].
pub fn router<S: Clone + Send + Sync + 'static>(api: Api) -> Router<S> {
    let (router, description) = described();
    // Routes, since the page that is served with the API has one for all paths below it.
    let routes = router
        .route("/", any(no_route))
        .route("/{*path}", any(no_route))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "the route has no such method")
        })
        .layer(DefaultBodyLimit::max(input::MAX_BODY_LEN))
        .layer(from_fn_with_state(api.clone(), input::authenticate))
        // Without a token: the description is not secret.
        .route("/openapi.json", get(async move || Json(description)))
        .layer(map_response(async |mut response: Response| {
            let headers = response.headers_mut();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            response
        }))
        .with_state(api);
    Router::new().nest(PREFIX, routes).route(&format!("{PREFIX}/"), any(no_route))
}

/// The answer to a path that is not a route.
async fn no_route() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is no such route")
}
