//! Guessed keys: a limit of invalid keys per client network.
//!
//! Every adapter follows the same rule: the gate checks the key first. If the outcome is
//! [`Outcome::InvalidKey`] and the client's network is over the limit, the response is 429.
//! Otherwise the gate's verdict decides. So this limit never refuses a key that the gate admits,
//! and a request without a key does not count.

use core::net::IpAddr;

use keytally::{Error, Limiter};
use keytally::{Outcome, Policy, Verdict};

use super::address::Network;
use super::metrics::TableUse;

/// The maximum number of client networks with a count, which take 1.7 MiB of memory.
///
/// Further networks share limits: see [`OnFull::Share`](keytally::OnFull::Share).
const MAX_NETWORKS: u32 = 65_536;

/// The limit of invalid keys.
#[derive(Debug)]
pub(crate) struct GuessLimiter(Option<Limiter>);

impl GuessLimiter {
    /// Returns a limiter without counts. `None` disables the limit.
    pub(crate) fn new(policy: Option<&Policy>) -> Result<Self, Error> {
        Self::with_capacity(policy, MAX_NETWORKS)
    }

    fn with_capacity(policy: Option<&Policy>, networks: u32) -> Result<Self, Error> {
        Ok(Self(policy.map(|policy| Limiter::in_memory(policy, networks)).transpose()?))
    }

    /// Returns how many client networks have a count, and how many can have one. `None` without a
    /// limit.
    pub(crate) fn table_use(&self) -> Option<TableUse> {
        self.0.as_ref().map(|limiter| TableUse::of("failures", limiter))
    }

    /// Counts an invalid key. If the client's network is over the limit, returns the verdict to
    /// respond with.
    ///
    /// Every invalid key counts, whatever the reason. Otherwise the response would disclose that
    /// the secret of a revoked key is correct.
    pub(crate) fn too_many(&self, verdict: &Verdict, client: Option<IpAddr>) -> Option<Verdict> {
        if verdict.outcome() != Outcome::InvalidKey {
            return None;
        }
        let counted = self.0.as_ref()?.check(Network::from(client?).as_bytes(), 1);
        (counted.outcome() == Outcome::Denied).then_some(counted)
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use keytally::{CacheLine, now};

    use super::*;

    /// Returns a verdict with [`Outcome::InvalidKey`].
    fn failed() -> Verdict {
        Verdict::duplicate_header(now())
    }

    fn guesses(policy: &str, networks: u32) -> GuessLimiter {
        GuessLimiter::with_capacity(Some(&policy.parse().unwrap()), networks).unwrap()
    }

    #[test]
    fn counts_of_all_networks_take_1_7_mib() {
        let lines = keytally::table::Limiter::<Vec<CacheLine>>::lines(MAX_NETWORKS);
        let mib_tenths = (lines * size_of::<CacheLine>() * 10 + (1 << 19)) >> 20;
        assert_eq!(mib_tenths, 17);
    }

    #[test]
    fn failures_beyond_the_limit_of_a_network_are_refused() {
        let guesses = guesses("2/31d", 100);
        let [here, same, other] = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"]
            .map(|address| Some(address.parse::<IpAddr>().unwrap()));
        assert!(guesses.too_many(&failed(), here).is_none());
        assert!(guesses.too_many(&failed(), same).is_none());
        let refused = guesses.too_many(&failed(), here).unwrap();
        assert_eq!(refused.http_status(), 429);
        assert!(refused.retry_after_s().is_some());
        assert!(guesses.too_many(&failed(), other).is_none());
        assert!(guesses.too_many(&failed(), None).is_none());
        assert!(GuessLimiter::new(None).unwrap().too_many(&failed(), here).is_none());
    }

    #[test]
    fn networks_without_a_slot_share_limits() {
        let guesses = guesses("1/31d", 100);
        let admitted = || {
            let addresses = (0..4000).map(|number| IpAddr::from(Ipv4Addr::from_bits(number)));
            addresses.filter(|at| guesses.too_many(&failed(), Some(*at)).is_none()).count()
        };
        // A limiter with capacity 100 has the 2,400 slots of one for 1,600 subjects. Each slot and
        // each of the 300 overflow tallies admits at most one.
        let first = admitted();
        assert!((1600..=2700).contains(&first), "{first}");
        assert_eq!(admitted(), 0);
    }
}
