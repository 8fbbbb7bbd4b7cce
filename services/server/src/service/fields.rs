//! The header fields of `/auth` and `/settle`: their names, lists and numbers.

use axum::http::HeaderMap;
use keytally::redact::redact;

pub(crate) const ACCOUNT_ID: &str = "X-Account-Id";
pub(crate) const KEY_ID: &str = "X-Key-Id";
pub(crate) const KEY_ENV: &str = "X-Key-Env";
pub(crate) const KEY_PLAN: &str = "X-Key-Plan";

/// The header with the cost of the request. Without it, the cost is 1.
pub(crate) const COST: &str = "X-Cost";

/// The header with the groups of plans that the request is charged to.
pub(crate) const GROUP: &str = "X-Group";

/// The header with the scopes that the key needs.
pub(crate) const NEED: &str = "X-Need";

/// The header with the token of a charge.
pub(crate) const CHARGE: &str = "X-Keytally-Charge";

/// Parses a number of digits only.
pub(super) fn digits(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Returns the body of the response to a list with a wrong item, which may be a secret that was
/// sent by mistake.
pub(super) fn wrong_item(header: &str, item: Option<&str>, rule: &str) -> String {
    let found = item.map_or("is not ASCII".to_owned(), |item| format!("has {:?}", redact(item)));
    serde_json::json!({ "error": format!("{header} {found}, and {rule}") }).to_string()
}

/// Returns the items of a list in the fields of a name; `None` for one that is not ASCII.
pub(super) fn items<'h>(
    headers: &'h HeaderMap,
    name: &str,
) -> impl Iterator<Item = Option<&'h str>> {
    let values = headers.get_all(name).into_iter().map(|value| value.to_str().ok());
    values.flat_map(|value| {
        let items = value.unwrap_or_default().split(',').map(str::trim);
        let items = items.filter(|item| !item.is_empty()).map(Some);
        items.chain(value.is_none().then_some(None)).collect::<Vec<_>>()
    })
}
