//! What the routes share.

use alloc::sync::Arc;
use core::fmt;
use core::net::IpAddr;

use axum::http::Uri;
use keytally::{Limiter, Outcome, Policy, Timestamp, embedded_ipv4};

use crate::error::{Error, Result};
use crate::list::List;
#[cfg(feature = "passkeys")]
use crate::passkeys::RelyingParty;

/// The limit of failed sign-ins from one address, and of those of one account.
const FAILURES: &str = "5/minute, 20/hour";

/// The limit of sign-ins with a passkey that one address begins. Each keeps a row for some minutes.
#[cfg(feature = "passkeys")]
const CHALLENGES: &str = "20/minute, 200/hour";

/// The most addresses with failed sign-ins. Further ones share a limit.
const ADDRESSES: u32 = 16_384;

/// The most accounts with failed sign-ins. Further ones share a limit.
const ACCOUNTS: u32 = 16_384;

/// How the page is served.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The URL of the service as people see it, without a path.
    pub public_url: String,
    /// The path before `/keys`, such as `/internal`; empty for none.
    pub base_path: String,
    /// The URL that the examples on the page of a new key request.
    pub example_url: String,
    /// The command that makes a link on the machine of the service.
    pub link_command: LinkCommand,
    /// Reads the clock.
    pub clock: fn() -> Timestamp,
}

/// The command `keytally keys link`, as it works on the machine of the service.
///
/// It has no secret, but it has paths of the machine. The page shows it to operators, and to all
/// visitors if only people on this machine reach the page.
#[derive(Clone, Debug, Default)]
pub struct LinkCommand {
    /// The line, without whom the link is for.
    pub line: String,
    /// The environment variables that must have the values that the service has.
    pub variables: Vec<&'static str>,
}

/// The page of a list.
#[derive(Clone)]
pub struct Page {
    shared: Arc<Shared>,
}

struct Shared {
    list: List,
    settings: Settings,
    /// The path of the page.
    root: String,
    failures: Limiter,
    account_failures: Limiter,
    #[cfg(feature = "passkeys")]
    challenges: Limiter,
    /// The relying party of passkeys, or why there are none.
    #[cfg(feature = "passkeys")]
    party: Result<Arc<RelyingParty>, &'static str>,
}

impl Page {
    /// Returns the page of a list.
    ///
    /// # Errors
    /// If there is not enough memory for the limit of sign-ins.
    pub fn new(list: List, settings: Settings) -> Result<Self> {
        let root = format!("{}/keys", settings.base_path.trim_end_matches('/'));
        let shared = Shared {
            #[cfg(feature = "passkeys")]
            party: RelyingParty::new(&settings.public_url).map(Arc::new),
            #[cfg(feature = "passkeys")]
            challenges: limiter(CHALLENGES, ADDRESSES)?,
            failures: limiter(FAILURES, ADDRESSES)?,
            account_failures: limiter(FAILURES, ACCOUNTS)?,
            list,
            settings,
            root,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    pub(super) fn list(&self) -> &List {
        &self.shared.list
    }

    /// Returns the path of the page, such as `/keys`.
    pub(super) fn root(&self) -> &str {
        &self.shared.root
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.shared.settings.clock)()
    }

    /// Returns whether people see the page by https.
    pub(super) fn is_secure(&self) -> bool {
        self.shared.settings.public_url.starts_with("https://")
    }

    /// Returns whether people see the page on this machine only, without TLS.
    pub(super) fn is_loopback(&self) -> bool {
        let uri = self.shared.settings.public_url.parse::<Uri>().ok();
        let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
        let is_local = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
        is_local && !self.is_secure()
    }

    /// Returns the command that makes a link, if a visitor who did not sign in may see it.
    pub(super) fn public_link_command(&self) -> Option<&LinkCommand> {
        self.is_loopback().then_some(&self.shared.settings.link_command)
    }

    /// Returns the URL of the service with its path, for links.
    pub(super) fn link_base(&self) -> String {
        let Settings { public_url, base_path, .. } = &self.shared.settings;
        format!("{}{}", public_url.trim_end_matches('/'), base_path.trim_end_matches('/'))
    }

    /// Returns for how many seconds an address may not sign in; `None` if it may.
    pub(super) fn waits_s(&self, address: Option<&str>) -> Option<u32> {
        waits_s(&self.shared.failures, &network(address))
    }

    /// Returns for how many seconds codes of an account are not accepted as a proof; `None` if they
    /// are. `user_id` is `None` for operators, who share an account.
    pub(super) fn account_waits_s(&self, user_id: Option<i64>) -> Option<u32> {
        waits_s(&self.shared.account_failures, &account(user_id))
    }

    /// Counts a code of an account that was not accepted.
    pub(super) fn count_account_failure(&self, user_id: Option<i64>) {
        self.shared.account_failures.check(&account(user_id), 1);
    }

    /// Returns the relying party of passkeys.
    ///
    /// # Errors
    /// A sentence, if browsers have no passkeys for the public URL.
    #[cfg(feature = "passkeys")]
    pub(super) fn party(&self) -> Result<Arc<RelyingParty>, &'static str> {
        self.shared.party.clone()
    }

    /// Counts the begin of a sign-in with a passkey. If the address has begun too many, returns for
    /// how many seconds it may not.
    #[cfg(feature = "passkeys")]
    pub(super) fn begins(&self, address: Option<&str>) -> Result<(), u32> {
        let verdict = self.shared.challenges.check(&network(address), 1);
        match verdict.outcome() {
            Outcome::Denied => Err(verdict.retry_after_s().unwrap_or(60)),
            _ => Ok(()),
        }
    }

    /// Counts a failed sign-in.
    pub(super) fn count_failure(&self, address: Option<&str>) {
        self.shared.failures.check(&network(address), 1);
    }
}

/// Returns for how many seconds a subject must wait; `None` if it need not.
fn waits_s(limiter: &Limiter, subject: &[u8]) -> Option<u32> {
    let verdict = limiter.peek(subject, 1);
    (verdict.outcome() == Outcome::Denied).then(|| verdict.retry_after_s().unwrap_or(60))
}

/// Returns the subject of an account in its limiter.
fn account(user_id: Option<i64>) -> Vec<u8> {
    user_id.map_or_else(|| b"operator".to_vec(), |user_id| format!("user {user_id}").into())
}

/// Returns a limiter of this many subjects.
fn limiter(policy: &str, subjects: u32) -> Result<Limiter> {
    let policy: Policy = policy
        .parse()
        .map_err(|_| Error::Conflict("the limit of sign-ins is not valid".to_owned()))?;
    Ok(Limiter::in_memory(&policy, subjects)?)
}

/// Returns the subject of an address in the limiter: an IPv4 address, or the /64 of an IPv6
/// address. Requests without an address share one.
fn network(address: Option<&str>) -> Vec<u8> {
    match address.and_then(|text| text.parse::<IpAddr>().ok()) {
        Some(IpAddr::V4(address)) => address.octets().to_vec(),
        Some(IpAddr::V6(address)) => match embedded_ipv4(address) {
            Some(address) => address.octets().to_vec(),
            None => address.octets().iter().copied().take(8).collect(),
        },
        None => b"unknown".to_vec(),
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").field("root", &self.shared.root).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_accounts_are_subjects_of_their_own() {
        assert_eq!(network(Some("192.0.2.1")), network(Some("::ffff:192.0.2.1")));
        assert_eq!(network(Some("2001:db8::1")), network(Some("2001:db8::2")));
        assert_ne!(network(Some("2001:db8::1")), network(Some("2001:db8:0:1::1")));
        assert_ne!(account(Some(1)), account(Some(2)));
        assert_ne!(account(Some(1)), account(None));
    }
}
