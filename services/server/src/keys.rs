//! The list of keys in the service: its options, and when it is served.

use core::fmt;
use core::time::Duration;

use clap::Args;
use keytally_cli::internal::{Failure, value_parser};
use keytally_keys::command::DATABASE_VARIABLE;
use keytally_keys::list::List;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::service::bind::Listener;

/// The options of the list of keys.
#[derive(Args)]
pub(crate) struct KeysOptions {
    /// Serve the list of keys below /keys, with its page and its JSON API: on or off. With on, an
    /// address that other machines can reach needs a --public-url with https [default: on with a
    /// loopback address or such a URL, else off]
    #[arg(long = "keys", value_name = "SWITCH", value_parser = value_parser(parse_switch))]
    switch: Option<bool>,
    /// URL of the service as people see it, for links, such as `https://api.example.com` [default:
    /// that of --listen, with the name localhost for a loopback address]
    #[arg(long, value_name = "URL", value_parser = value_parser(parse_url))]
    public_url: Option<String>,
    /// Path before /keys for the page of keys, such as /internal, for a proxy that serves the
    /// service below it [default: none]
    #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true, value_parser = value_parser(parse_path))]
    pub(crate) base_path: String,
    /// Database of the list of keys: sqlite: and the path of a file, or
    /// `postgres://USER@HOST/NAME`. Keep a password out of the arguments: set this by
    /// KEYTALLY_DATABASE, or the password by PGPASSWORD [default: keys.db in the folder of --data]
    #[arg(long, value_name = "URL", env = DATABASE_VARIABLE, hide_env_values = true)]
    pub(crate) database: Option<String>,
    /// Count how each key is used, for the list of keys: on or off. Every process that has the gate
    /// open then begins to count, or ends it, as with keytally usage [default: on, unless keytally
    /// usage off ended it]
    #[arg(long, value_name = "SWITCH", value_parser = value_parser(parse_switch))]
    pub(crate) usage: Option<bool>,
}

/// Parses the value of `--keys` or `--usage`.
fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("it must be on or off".to_owned()),
    }
}

/// Parses the value of `--public-url`.
fn parse_url(text: &str) -> Result<String, String> {
    let uri = text.parse::<axum::http::Uri>().ok();
    let is_plain = uri.is_some_and(|uri| {
        let has_scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        let has_user = uri.authority().is_none_or(|authority| authority.as_str().contains('@'));
        has_scheme && !has_user && uri.path() == "/" && uri.query().is_none()
    });
    if is_plain && !text.contains('#') {
        return Ok(text.trim_end_matches('/').to_owned());
    }
    Err("it must be a URL without a path, such as https://api.example.com".to_owned())
}

/// Parses the value of `--base-path`.
fn parse_path(text: &str) -> Result<String, String> {
    let is_plain = |part: &str| {
        let is_name =
            part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte));
        is_name && !part.is_empty() && part != "." && part != ".."
    };
    match text.trim_end_matches('/').strip_prefix('/') {
        Some(path) if path.split('/').all(is_plain) => Ok(format!("/{path}")),
        None if text.is_empty() || text == "/" => Ok(String::new()),
        _ => Err("it must be a path of letters, digits and -, such as /internal".to_owned()),
    }
}

/// The list that a service serves.
#[derive(Debug)]
pub(crate) struct ServedList {
    pub(crate) list: List,
    /// The URL of the service as people see it.
    pub(crate) public_url: String,
    /// The path before `/keys` for the page.
    pub(crate) base_path: String,
}

/// The tasks of a list that is served.
#[derive(Debug)]
pub(crate) struct ListTasks {
    /// Keeps the gate up to date with the list.
    pub(crate) following: JoinHandle<()>,
    /// Adds the uses of keys to the list.
    pub(crate) sampling: JoinHandle<()>,
    /// Ends `sampling` when it is dropped.
    pub(crate) stop: oneshot::Sender<()>,
}

/// How long a stop waits until the last uses are in the list. What is not waits in the file of
/// counts.
const LAST_SAMPLE: Duration = Duration::from_secs(2);

impl ListTasks {
    /// Ends the tasks.
    pub(crate) async fn stop(self) {
        self.following.abort();
        // It ends with an error, that of the abortion.
        let _ = self.following.await;
        drop(self.stop);
        let mut sampling = self.sampling;
        if timeout(LAST_SAMPLE, &mut sampling).await.is_err() {
            sampling.abort();
        }
    }
}

impl KeysOptions {
    /// Returns the URL of the service as people see it, or `None` if the list is not served.
    /// `location` is that of the listener.
    ///
    /// # Errors
    /// A usage error if the list would be served to other machines without TLS.
    pub(crate) fn public_url(
        &self,
        listener: &Listener,
        location: impl fmt::Display,
    ) -> Result<Option<String>, Failure> {
        let is_https = self.public_url.as_ref().is_some_and(|url| url.starts_with("https://"));
        let address = listener.tcp_address();
        let is_loopback = address.is_some_and(|address| address.ip().is_loopback());
        // Only processes on this machine reach a Unix socket, but one may be a public proxy.
        let is_safe = is_https || is_loopback || address.is_none();
        match self.switch {
            Some(false) => return Ok(None),
            None if !(is_https || is_loopback) => return Ok(None),
            Some(true) if !is_safe => {
                let address = address.map(|address| address.to_string()).unwrap_or_default();
                return Err(Failure::usage(format!(
                    "--keys on: other machines can reach {address}, and a token that is sent \
                     without TLS can be read on its way; put a proxy with TLS before it and name \
                     its URL by --public-url https://…, or listen on 127.0.0.1"
                )));
            }
            _ => {}
        }
        // A cookie of one name is not sent to the other, and passkeys need a name.
        let of_listener = || match address {
            Some(address) if is_loopback => format!("http://localhost:{}", address.port()),
            _ => location.to_string(),
        };
        Ok(Some(self.public_url.clone().unwrap_or_else(of_listener)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_url_has_a_scheme_and_a_host_only() {
        for url in ["https://api.example.com", "https://api.example.com/", "http://localhost:8080"]
        {
            assert_eq!(parse_url(url).unwrap(), url.trim_end_matches('/'));
        }
        for url in [
            "",
            "api.example.com",
            "ftp://a",
            "https://a/b",
            "https://u@a",
            "https://a?b",
            "https://a#b",
        ] {
            assert!(parse_url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn base_path_is_a_path_without_dots() {
        for (text, path) in [("", ""), ("/", ""), ("/a", "/a"), ("/a/b-1/", "/a/b-1")] {
            assert_eq!(parse_path(text).unwrap(), path);
        }
        for text in ["a", "//", "/a//b", "/..", "/a/./b", "/a?b", "/a#b", "/{a}", "/ä"] {
            assert!(parse_path(text).is_err(), "{text}");
        }
    }
}
