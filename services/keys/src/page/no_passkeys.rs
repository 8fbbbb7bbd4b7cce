//! What the screens have of passkeys in a service without them: nothing.

use keytally::Timestamp;

use super::refusal::Refusal;
use super::state::Page;
use crate::codes::Code;
use crate::error::{Error, Result};
use crate::sessions::{Origin, Session};

/// The field with the answer of a passkey.
pub(super) const FIELD: &str = "passkey";

pub(super) fn of_entrance(_: &Page) -> Result<String, Refusal> {
    Ok(String::new())
}

pub(super) async fn of_proof(_: &Page, _: &Session, _: Timestamp) -> Result<String, Refusal> {
    Ok(String::new())
}

pub(super) async fn of_me(_: &Page, _: &Session, _: Timestamp) -> Result<String, Refusal> {
    Ok(String::new())
}

pub(super) fn may_add(_: &Page, _: &Session) -> bool {
    false
}

pub(super) async fn names(_: &Page, _: &Session) -> Result<Vec<String>> {
    Ok(Vec::new())
}

/// Returns the sentence on what was just done.
pub(super) fn done(_: &str) -> &'static str {
    ""
}

pub(super) async fn prove(_: &Page, _: Session, _: &str, _: Origin, _: Timestamp) -> Result<Code> {
    Err(Error::invalid(FIELD, "this service has no passkeys; use a link"))
}
