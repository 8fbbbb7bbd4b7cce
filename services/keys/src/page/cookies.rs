//! The cookies: the token of a session, the page that a person opened before signing in, and the
//! address at which a page says what was just done.
//!
//! The second one is not in an address, so no proxy logs which key a person looked at, and it holds
//! for a link that opens in another tab. It names a page below [`Page::root`] only.

use alloc::sync::Arc;
use core::mem;
use std::sync::{Mutex, PoisonError};

use axum::http::header::COOKIE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Uri};
use cookie::{Cookie, SameSite};

use super::state::Page;
use crate::codes::{CODE_LIFETIME_S, Code};
use crate::sessions::LIFETIME_S;

/// The longest address that leads on after a sign-in, in bytes.
const MAX_OPENED_LEN: usize = 1024;

/// The cookies that a request changes, such as that of a session with a new token.
#[derive(Clone, Debug, Default)]
pub(super) struct NewCookies(Arc<Mutex<Vec<HeaderValue>>>);

impl NewCookies {
    /// Adds a cookie, if there is one.
    pub(super) fn add(&self, cookie: Option<HeaderValue>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(cookie);
    }

    /// Returns the cookies for the response, once.
    pub(super) fn take(&self) -> Vec<HeaderValue> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Returns the name of the cookie with the token. Browsers accept the prefix only by https.
fn session_name(page: &Page) -> &'static str {
    if page.is_secure() { "__Host-keytally" } else { "keytally" }
}

/// Returns the name of the cookie with the page that was opened.
fn opened_name(page: &Page) -> &'static str {
    if page.is_secure() { "__Host-keytally-opened" } else { "keytally-opened" }
}

/// Returns the name of the cookie with the address that says what was just done.
fn done_name(page: &Page) -> &'static str {
    if page.is_secure() { "__Host-keytally-done" } else { "keytally-done" }
}

/// Returns a cookie; an empty value removes it.
fn cookie(page: &Page, name: &str, value: &str, lifetime_s: i64) -> Option<HeaderValue> {
    let lifetime_s = if value.is_empty() { 0 } else { lifetime_s };
    let cookie = Cookie::build((name, value))
        .path("/")
        .http_only(true)
        .same_site(SameSite::Lax)
        .secure(page.is_secure())
        .max_age(cookie::time::Duration::seconds(lifetime_s));
    HeaderValue::try_from(cookie.to_string()).ok()
}

/// Returns the value of a cookie of a request.
fn value(headers: &HeaderMap, name: &str) -> Option<String> {
    let fields = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut cookies = fields.flat_map(Cookie::split_parse).filter_map(Result::ok);
    Some(cookies.find(|cookie| cookie.name() == name)?.value().to_owned())
}

/// Returns the cookie with the token of a session; `None` removes it.
pub(super) fn session(page: &Page, token: Option<&Code>) -> Option<HeaderValue> {
    cookie(page, session_name(page), token.map(Code::expose).unwrap_or_default(), LIFETIME_S)
}

/// Returns the token of a request's session.
pub(super) fn token(page: &Page, headers: &HeaderMap) -> Option<Code> {
    Some(Code::from_text(&value(headers, session_name(page))?))
}

/// Returns the page that the person of a request opened before, if the page has such an address.
pub(super) fn opened(page: &Page, headers: &HeaderMap) -> Option<String> {
    value(headers, opened_name(page)).filter(|address| is_of_page(page.root(), address))
}

/// Returns the cookie that keeps the page that a request opens, for as long as a link is valid. A
/// page that cannot be kept replaces the one before: the cookie is removed.
pub(super) fn keep_opened(page: &Page, parts: &Parts) -> Option<HeaderValue> {
    let address = parts.uri.path_and_query().map_or("", |address| address.as_str());
    let is_kept = parts.method == Method::GET && is_of_page(page.root(), address);
    match if is_kept { address } else { "" } {
        "" => opened(page, &parts.headers).and_then(|_| forget_opened(page)),
        address => {
            let lifetime_s = i64::try_from(CODE_LIFETIME_S).unwrap_or(i64::MAX);
            cookie(page, opened_name(page), address, lifetime_s)
        }
    }
}

/// Returns the cookie that removes the page that was opened.
pub(super) fn forget_opened(page: &Page) -> Option<HeaderValue> {
    cookie(page, opened_name(page), "", 0)
}

/// For how long a change is one that was just made, in seconds.
const DONE_LIFETIME_S: i64 = 60;

/// Returns the cookie that permits one address to say what was just done; an empty address removes
/// it. Without the cookie, the address alone would say it, also where it is not true.
pub(super) fn done(page: &Page, address: &str) -> Option<HeaderValue> {
    cookie(page, done_name(page), address, DONE_LIFETIME_S)
}

/// Returns whether a request opens the address that may say what was just done.
pub(super) fn is_done(page: &Page, headers: &HeaderMap, uri: &Uri) -> bool {
    let address = uri.path_and_query().map_or("", |address| address.as_str());
    value(headers, done_name(page)).is_some_and(|permitted| permitted == address)
}

/// Returns whether an address is that of a page below a root, so that a browser can only stay
/// there.
///
/// A path has the characters of the page's own paths only. So it has no dots that lead up, no
/// second slash before which a host could begin, no backslash, and nothing encoded.
fn is_of_page(root: &str, address: &str) -> bool {
    let Some(rest) = address.strip_prefix(root) else { return false };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_of_path = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_".contains(&byte);
    let is_of_query = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%&=+:@!*()".contains(&byte);
    address.len() <= MAX_OPENED_LEN
        && (path.is_empty() && !query.is_empty() || path.starts_with('/'))
        && !path.contains("//")
        && path.bytes().all(is_of_path)
        && query.bytes().all(is_of_query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opened_page_is_below_the_root_only() {
        for address in [
            "/keys/k/0000000000A",
            "/keys/k/0000000000A/rotate",
            "/keys/log?key=0000000000A&from=2027-01-31%2B01%3A00",
            "/keys?search=web+shop",
            "/keys/log?actor=ann@example.com&what=key.create",
        ] {
            assert!(is_of_page("/keys", address), "{address}");
            assert!(is_of_page("/a.b/keys", &format!("/a.b{address}")), "{address}");
            assert!(!is_of_page("/other/keys", address), "{address}");
        }
        for address in [
            "",
            "/",
            "/keys",
            "/keys?",
            "/keysx",
            "/keys.evil.example",
            "/keys@evil.example",
            "/keys//evil.example",
            "/keys/..//evil.example",
            "/keys/%2e%2e/%2fevil.example",
            "/keys/\\evil.example",
            "/keys/%5cevil.example",
            "/keys/\t/evil.example",
            "/keys/k/a#b",
            "/keys/k/a;b",
            "/keys/log?a=\r\nb",
            "/keys/log?a=\"b",
            "//evil.example",
            "//evil.example/keys/log",
            "/\\evil.example/keys/log",
            "%2f%2fevil.example",
            "https://evil.example/keys/log",
            "javascript:alert(1)",
        ] {
            assert!(!is_of_page("/keys", address), "{address}");
        }
    }

    #[test]
    fn opened_page_has_at_most_1024_bytes() {
        for (len, is_kept) in [(1023, true), (1024, true), (1025, false)] {
            let address = format!("/keys/log?key={}", "a".repeat(len - 14));
            assert_eq!(address.len(), len);
            assert_eq!(is_of_page("/keys", &address), is_kept, "{len}");
        }
    }
}
