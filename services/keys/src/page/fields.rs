//! The fields of a form or of a query.

use axum::extract::{FromRequest, FromRequestParts, Query, RawForm, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;

use super::refusal::Refusal;

/// The fields of a form, in its order. A name may occur several times.
#[derive(Clone, Default)]
pub(super) struct Fields(pub(super) Vec<(String, String)>);

impl Fields {
    /// Returns the last value of a name, without blanks around it; empty if there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        self.find(name).unwrap_or_default()
    }

    /// Returns the last value of a name; `None` if the form did not send it.
    pub(super) fn find(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(its, _)| its == name);
        found.map(|(_, value)| value.trim())
    }

    /// Returns all values of a name that are not empty.
    pub(super) fn all(&self, name: &str) -> Vec<String> {
        let of_name = self.0.iter().filter(|(its, value)| its == name && !value.is_empty());
        of_name.map(|(_, value)| value.clone()).collect()
    }

    /// Returns whether a box is ticked.
    pub(super) fn is_on(&self, name: &str) -> bool {
        !self.get(name).is_empty()
    }
}

/// Returns the day of a value such as `2027-01-31+01:00`, as a field for a day has it.
pub(super) fn day_of(value: &str) -> &str {
    value.split_at_checked(10).map_or(value, |(day, _)| day)
}

/// Returns the offset from UTC of such a value; empty for UTC.
pub(super) fn offset_of(value: &str) -> &str {
    value.split_at_checked(10).map_or("", |(_, offset)| offset)
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let RawForm(bytes) = RawForm::from_request(request, state).await.map_err(|error| {
            Refusal::of_status(axum::response::IntoResponse::into_response(error).status())
        })?;
        let uri = axum::http::Uri::try_from(format!("/?{}", String::from_utf8_lossy(&bytes)));
        let pairs = uri.ok().and_then(|uri| Query::try_from_uri(&uri).ok());
        let Query(pairs) = pairs.ok_or_else(|| Refusal::of_status(StatusCode::BAD_REQUEST))?;
        Ok(Self(pairs))
    }
}

/// The parameters of a page's address.
#[derive(Clone, Default)]
pub(super) struct Parameters(pub(super) Fields);

impl Parameters {
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.get(name)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(pairs)) => Ok(Self(Fields(pairs))),
            Err(_) => Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "The address has a value that cannot be read.",
            )),
        }
    }
}
