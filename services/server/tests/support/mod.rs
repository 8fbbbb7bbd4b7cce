//! Support for the tests of the service: the support of the tests of the command line, a running
//! service, and connections that send exact bytes.

pub mod http2;
pub mod ports;
/// A symbolic link to the support of the tests of the command line.
pub mod program;
pub mod server;
pub mod wire;

use keytally::now;

/// The response bodies of the contract.
pub const MISSING: &str = r#"{"error": "Missing X-API-Key header"}"#;
pub const INVALID: &str = r#"{"error": "Invalid API key"}"#;
pub const EXCEEDED: &str = r#"{"error": "Rate limit exceeded. Please try again later."}"#;
/// The value of `WWW-Authenticate` of every 401.
pub const CHALLENGE: &str = r#"ApiKey realm="api", header="X-API-Key""#;
/// The response body of `/api/v1/contacts` for account 1.
pub const CONTACTS_OF_1: &str = concat!(
    r#"{"account":1,"contacts":[{"id":4,"name":"Dolores Vega","email":"dolores.vega@example.com"},"#,
    r#"{"id":5,"name":"Emre Aydin","email":"emre.aydin@example.com"},"#,
    r#"{"id":6,"name":"Farah Qureshi","email":"farah.qureshi@example.com"}]}"#
);

/// Returns the key id in a key that begins with `kt_live_` or `kt_test_`.
pub fn key_id(key: &str) -> &str {
    &key[8..19]
}

/// Returns the secret and the checksum in a key that begins with `kt_live_` or `kt_test_`.
pub fn secret(key: &str) -> &str {
    &key[19..]
}

/// The most milliseconds by which a check's reading of the clock is late: a tick of the kernel.
pub const TICK_MS: u64 = 10;

/// Calls `call`. Returns its result, and the earliest and latest time that a check during the call
/// may have read, in Unix milliseconds.
pub fn timed<T>(call: impl FnOnce() -> T) -> (T, (u64, u64)) {
    let from = now().unix_ms() - TICK_MS;
    let result = call();
    (result, (from, now().unix_ms()))
}
