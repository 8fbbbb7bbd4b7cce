//! The API Keys page, `/keys`: what people see of the list.
//!
//! Every page is HTML from the server and works without script. Scripts only search while a person
//! types, refresh numbers, copy a secret and show times in the reader's zone. A page needs a
//! session, which a one-time link begins. Each query carries the team of the session.
//!
//! | module | contents |
//! |---|---|
//! | `key_list`, `new_key`, `key_page`, `rotation`, `revocation`, `team_page`, `log_page`, `me_page` | the screens |
//! | `entrance` | signing in and out, and the choice of a team |
//! | `visit`, `proof` | who sends a request, and the proof that a change needs |
//! | `cookies` | the token of a session, and the page that was opened before signing in |
//! | `refusal`, `error_page` | errors, and the page that shows one |
//! | `frame`, `fields`, `problems` | what all pages share; the fields of a form; what is wrong with them |
//! | `passkey_page`, `passkeys` | passkeys, and what the screens have of them; both with the feature `passkeys` |
//! | `picture`, `numbers`, `quotas`, `words` | usage as pictures, tables and files; limits, times and browsers in words |
//! | `guard` | the header fields of every response, and requests from other sites |
//! | `assets`, `state` | the style and the scripts; what the routes share |

mod assets;
mod cookies;
mod entrance;
mod error_page;
mod fields;
mod frame;
mod guard;
mod key_list;
mod key_page;
mod log_page;
mod me_page;
mod new_key;
#[cfg(not(feature = "passkeys"))]
mod no_passkeys;
mod numbers;
#[cfg(feature = "passkeys")]
mod passkey_page;
#[cfg(feature = "passkeys")]
mod passkeys;
mod picture;
mod problems;
mod proof;
mod quotas;
mod refusal;
mod revocation;
mod rotation;
mod state;
mod team_page;
mod usage_of;
mod visit;
mod words;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{any, get, post};

pub use self::state::{LinkCommand, Page, Settings};

#[cfg(not(feature = "passkeys"))]
use self::no_passkeys as passkeys;
use self::refusal::Refusal;

/// The longest form, in bytes.
const MAX_FORM_LEN: usize = 65_536;

/// Returns the routes of the page, below [`Settings::base_path`].
///
/// # Errors
/// If there is not enough memory for the limit of sign-ins, or if the public URL is not one.
pub fn router<S: Clone + Send + Sync + 'static>(page: Page) -> crate::error::Result<Router<S>> {
    let root = page.root().to_owned();
    let at = |path: &str| format!("{root}{path}");
    let routes = Router::new()
        .route(&at(""), get(key_list::show))
        .route(&at("/find"), post(key_list::find))
        .route(&at("/in"), get(entrance::form).post(entrance::sign_in))
        .route(&at("/out"), post(entrance::sign_out))
        .route(&at("/teams"), get(entrance::teams).post(entrance::choose_team))
        .route(&at("/teams/new"), post(entrance::make_team))
        .route(&at("/new"), get(new_key::form).post(new_key::create))
        .route(&at("/k/{id}"), get(key_page::show))
        .route(&at("/k/{id}/usage.csv"), get(key_page::csv))
        .route(&at("/k/{id}/rotate"), get(rotation::form).post(rotation::rotate))
        .route(&at("/k/{id}/end-grace"), get(rotation::end_form).post(rotation::end))
        .route(&at("/k/{id}/edit"), get(key_page::edit_form).post(key_page::edit))
        .route(&at("/k/{id}/revoke"), get(revocation::form).post(revocation::revoke))
        .route(&at("/bulk"), get(revocation::bulk_form).post(revocation::bulk))
        .route(&at("/team"), get(team_page::show))
        .route(&at("/team/usage.csv"), get(team_page::csv))
        .route(&at("/team/rename"), post(team_page::rename))
        .route(&at("/team/delete"), get(team_page::deletion).post(team_page::delete))
        .route(&at("/team/set"), post(team_page::set))
        .route(&at("/team/invite"), post(team_page::invite))
        .route(&at("/team/withdraw"), post(team_page::withdraw))
        .route(&at("/team/role"), post(team_page::set_role))
        .route(&at("/team/remove"), get(team_page::removal).post(team_page::remove))
        .route(&at("/log"), get(log_page::show).post(log_page::filtered))
        .route(&at("/log.csv"), get(log_page::csv))
        .route(&at("/me"), get(me_page::show))
        .route(&at("/me/end"), get(me_page::end_form).post(me_page::end))
        .route(&at("/me/seen"), post(me_page::seen));
    #[cfg(feature = "passkeys")]
    let routes = routes
        .route(&at("/passkey/begin"), post(passkey_page::begin))
        .route(&at("/passkey/in"), post(passkey_page::sign_in))
        .route(&at("/me/passkey/new"), post(passkey_page::form))
        .route(&at("/me/passkey"), post(passkey_page::add))
        .route(&at("/me/passkey/name"), get(passkey_page::name_form).post(passkey_page::rename))
        .route(&at("/me/passkey/remove"), get(passkey_page::removal).post(passkey_page::remove));
    let routes = routes
        .layer(DefaultBodyLimit::max(MAX_FORM_LEN))
        .layer(guard::same_site(&page)?)
        .route(&at("/assets/{name}"), get(assets::serve))
        .route(&at("/{*rest}"), any(nothing))
        .method_not_allowed_fallback(not_allowed)
        .layer(guard::compression())
        .layer(from_fn_with_state(page.clone(), guard::complete))
        .with_state(page);
    Ok(routes)
}

/// The answer to a method that a path does not have. Without it, the service around the page would
/// answer, without the header fields of the page.
async fn not_allowed() -> Refusal {
    Refusal::of_status(StatusCode::METHOD_NOT_ALLOWED)
}

/// The answer to a path that is not a page.
async fn nothing() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "There is no page at this address.")
}
