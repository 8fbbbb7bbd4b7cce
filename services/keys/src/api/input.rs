//! What a request may contain: its token, its parameters and its body. Each error names the value.

use alloc::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use keytally::redact::redact;
use keytally::{API_KEY_HEADER, KeyId, Timestamp, Verdict};
use serde::de::DeserializeOwned;

use super::problem::{Problem, fields};
use super::state::Api;
use crate::change::{Caller, MAX_IDEMPOTENCY_KEY_LEN};
use crate::error::{Error, Result};
use crate::keys::{Cursor, Sort};
use crate::roles::{Actor, Role};
use crate::tokens::{self, Identity};
use crate::{text, time};

/// The header that lets a request be sent again.
const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// The longest body, in bytes.
pub(super) const MAX_BODY_LEN: usize = 16_384;

/// The address of the client that sent a request, for the log. A program that serves the API
/// inserts it into the request.
#[derive(Clone, Debug)]
pub struct ClientAddress(pub String);

/// Why the token of a request was refused. It is in the extensions of the response, for a program
/// that serves the API and limits invalid tokens.
#[derive(Clone, Debug)]
pub struct RefusedToken(pub Verdict);

/// Checks the token of a request, and adds the header fields of the verdict to the response.
pub(super) async fn authenticate(
    State(api): State<Api>,
    mut request: Request,
    next: Next,
) -> Response {
    let mut values = request.headers().get_all(API_KEY_HEADER).iter();
    let token = values.next().map(|value| value.as_bytes().to_vec());
    let (verdict, identity) = match values.next() {
        Some(_) => tokens::check(api.list.admin(), Some(b"")),
        None => tokens::check(api.list.admin(), token.as_deref()),
    };
    let Some(identity) = identity else {
        let mut response = Problem::of_verdict(&verdict).into_response();
        response.extensions_mut().insert(RefusedToken(verdict));
        return response;
    };
    request.extensions_mut().insert(identity);
    let mut response = next.run(request).await;
    response.headers_mut().extend(fields(&verdict));
    response
}

/// The caller of a request.
#[derive(Debug)]
pub(super) struct Auth {
    pub(super) caller: Caller,
}

impl FromRequestParts<Api> for Auth {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let identity = parts.extensions.get::<Identity>().copied();
        let identity = identity.ok_or_else(|| {
            Problem::new(StatusCode::UNAUTHORIZED, "the header X-API-Key needs an admin token")
        })?;
        let address = parts.extensions.get::<ClientAddress>().map(|address| address.0.clone());
        let team_id = match Params::of(&parts.uri)?.get("team") {
            None => identity.team_id,
            Some(text) => {
                let team_id = team(text)?;
                // Another team is as unknown as one that is not there.
                if identity.team_id.is_some_and(|its| its != team_id) {
                    return Err(Error::not_found("team", team_id).into());
                }
                // A change looks for its team itself, or revokes without the database.
                if identity.team_id.is_none() && parts.method == Method::GET {
                    api.list.team(team_id).await?;
                }
                Some(team_id)
            }
        };
        let caller = Caller {
            actor: Actor::token(identity.key_id, address),
            role: identity.role,
            team_id,
            idempotency_key: idempotency_key(&parts.headers)?,
            now: (api.clock)(),
        };
        Ok(Self { caller })
    }
}

impl Auth {
    /// Refuses a caller whose role is less than this one.
    pub(super) fn require(&self, least: Role) -> Result<(), Problem> {
        Ok(self.caller.role.require(least)?)
    }

    /// Returns the team that the request is about.
    pub(super) fn team(&self) -> Result<u32, Problem> {
        self.caller.team_id.ok_or_else(|| {
            Problem::invalid(
                "team",
                "the token of an operator needs the parameter team, as in ?team=1",
            )
        })
    }
}

/// Parses the number of a team.
fn team(text: &str) -> Result<u32, Problem> {
    let number = text.parse().ok().filter(|&number: &u32| number > 0);
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    number.filter(|_| is_plain).ok_or_else(|| {
        let reason = format!("{} is not the number of a team", text::quoted(text));
        Problem::invalid("team", reason)
    })
}

/// Reads the header `Idempotency-Key`.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| {
        let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        is_visible && (1..=MAX_IDEMPOTENCY_KEY_LEN).contains(&text.len())
    });
    match (text, values.next()) {
        (Some(text), None) => Ok(Some(text.to_owned())),
        _ => Err(Problem::invalid(
            "Idempotency-Key",
            "it must be sent once, with 1 to 64 visible ASCII characters",
        )),
    }
}

/// The parameters of a request's URL, each at most once.
#[derive(Debug)]
pub(super) struct Params(BTreeMap<String, String>);

impl Params {
    fn of(uri: &Uri) -> Result<Self, Problem> {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|_| Problem::invalid("query", "it is not NAME=VALUE, joined by &"))?;
        let mut params = BTreeMap::new();
        for (name, value) in pairs.0 {
            if params.insert(name, value).is_some() {
                return Err(Problem::invalid("query", "a parameter is given twice"));
            }
        }
        Ok(Self(params))
    }

    /// Refuses parameters of other names.
    pub(super) fn only(self, names: &[&'static str]) -> Result<Self, Problem> {
        let other = self.0.keys().find(|&name| name != "team" && !names.contains(&&**name));
        match other {
            None => Ok(self),
            Some(name) => {
                let reason = format!("{} is not a parameter of this route", text::quoted(name));
                Err(Problem::invalid("query", reason))
            }
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Returns a text of at most 64 characters; empty if there is none.
    pub(super) fn text(&self, name: &'static str) -> Result<String, Problem> {
        match self.get(name) {
            None | Some("") => Ok(String::new()),
            Some(value) => Ok(text::name(name, value)?),
        }
    }

    /// Returns one of these words; empty if there is none.
    pub(super) fn word(&self, name: &'static str, words: &[&str]) -> Result<String, Problem> {
        match self.get(name) {
            None => Ok(String::new()),
            Some(word) if words.contains(&word) => Ok(word.to_owned()),
            Some(_) => {
                Err(Problem::invalid(name, format!("it must be one of: {}", words.join(", "))))
            }
        }
    }

    /// Returns the most entries of the answer.
    pub(super) fn limit(&self) -> Result<i64, Problem> {
        let Some(text) = self.get("limit") else { return Ok(50) };
        let number = text.parse().ok().filter(|number| (1..=200).contains(number));
        number.ok_or_else(|| Problem::invalid("limit", "it must be a number from 1 to 200"))
    }

    /// Returns the number after which the answer begins.
    pub(super) fn number(&self, name: &'static str) -> Result<Option<i64>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|&number: &i64| number >= 0);
        number.map(Some).ok_or_else(|| {
            Problem::invalid(name, "it must be the value of next in the answer before")
        })
    }

    /// Returns the position after which a list continues.
    pub(super) fn cursor(&self, sort: Sort) -> Result<Option<Cursor>, Problem> {
        let Some(text) = self.get("after") else { return Ok(None) };
        Cursor::parse(sort, text).map(Some).ok_or_else(|| {
            let reason = "it must be the value of next in the answer before, with the same sort";
            Problem::invalid("after", reason)
        })
    }

    /// Returns a key id.
    pub(super) fn key_id(&self, name: &'static str) -> Result<Option<KeyId>, Problem> {
        let id = self.get(name).map(keytally::redact::parse_key_id).transpose();
        id.map_err(|reason| Problem::invalid(name, reason))
    }

    /// Returns a time.
    pub(super) fn time(&self, name: &'static str) -> Result<Option<Timestamp>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        // In a URL, the plus of an offset is a space unless it is encoded.
        Ok(Some(time::parse(name, &text.replace(' ', "+"))?))
    }
}

impl FromRequestParts<Api> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        Self::of(&parts.uri)
    }
}

/// The key id in the path of a request.
#[derive(Debug)]
pub(super) struct PathKey(pub(super) KeyId);

impl FromRequestParts<Api> for PathKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, api).await;
        let Path(text) = path.map_err(|_| Problem::invalid("id", "it is not a key id"))?;
        let key_id = keytally::redact::parse_key_id(&text);
        key_id.map(Self).map_err(|reason| Problem::invalid("id", reason))
    }
}

/// The number in the path of a request.
#[derive(Debug)]
pub(super) struct PathNumber(pub(super) i64);

impl FromRequestParts<Api> for PathNumber {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, api).await;
        let number = path.ok().and_then(|Path(text)| text.parse().ok());
        let number = number.filter(|&number: &i64| number > 0);
        number.map(Self).ok_or_else(|| Problem::invalid("user", "it must be the number of a user"))
    }
}

/// The JSON body of a request.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Api> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "Content-Type: the body must be application/json",
            ));
        }
        let body = Bytes::from_request(request, api).await.map_err(|error| {
            let detail = format!("body: it cannot be read, or has more than {MAX_BODY_LEN} bytes");
            Problem::new(error.status(), detail)
        })?;
        let mut json = serde_json::Deserializer::from_slice(&body);
        let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = error.path().to_string();
            // The error may repeat a part of the body.
            let reason = error.into_inner().to_string();
            let named = if path == "." { String::new() } else { format!("{}: ", redact(&path)) };
            Problem::invalid("body", format!("{named}{}", redact(&reason)))
        })?;
        json.end().map_err(|_| Problem::invalid("body", "it has more than one JSON value"))?;
        Ok(Self(value))
    }
}
