//! Guessed keys: a limit of invalid keys per client network.
//!
//! Every adapter follows the same rule: the gate checks the key first. If the outcome is
//! [`Outcome::InvalidKey`] and the client's network is over the limit, the response is 429.
//! Otherwise the gate's verdict decides. So this limit never refuses a key that the gate admits,
//! and a request without a key does not count.

use core::net::IpAddr;
use core::str::FromStr;

use keytally::{
    AddressLimiter, AddressPolicy, Error, Limiter, Outcome, ParsePolicyError, Policy, Verdict, now,
};

use super::address::Network;
use super::metrics::TableUse;

/// The maximum number of client networks with a count, which take 1.7 MiB of memory.
///
/// Further networks share limits: see [`OnFull::Share`](keytally::OnFull::Share).
const MAX_NETWORKS: u32 = 65_536;

/// The policy of the limit of invalid keys.
#[derive(Clone, Debug)]
pub(crate) enum FailurePolicy {
    /// Limits of each client's network.
    Network(Policy),
    /// Limits of each client's networks of several prefixes.
    Prefixes(AddressPolicy),
}

impl FromStr for FailurePolicy {
    type Err = ParsePolicyError;

    fn from_str(text: &str) -> Result<Self, ParsePolicyError> {
        if AddressPolicy::is_beginning(text) {
            return text.parse().map(Self::Prefixes);
        }
        text.parse().map(Self::Network)
    }
}

/// The limit of invalid keys.
#[derive(Debug)]
pub(crate) struct GuessLimiter(Option<Table>);

#[derive(Debug)]
enum Table {
    Network(Box<Limiter>),
    Prefixes(Box<AddressLimiter>),
}

impl GuessLimiter {
    /// Returns a limiter without counts. `None` disables the limit.
    pub(crate) fn new(policy: Option<&FailurePolicy>) -> Result<Self, Error> {
        Self::with_capacity(policy, MAX_NETWORKS)
    }

    fn with_capacity(policy: Option<&FailurePolicy>, networks: u32) -> Result<Self, Error> {
        let in_memory = |policy: &FailurePolicy| match policy {
            FailurePolicy::Network(policy) => {
                Limiter::in_memory(policy, networks).map(Box::new).map(Table::Network)
            }
            FailurePolicy::Prefixes(policy) => {
                AddressLimiter::in_memory(policy, networks).map(Box::new).map(Table::Prefixes)
            }
        };
        Ok(Self(policy.map(in_memory).transpose()?))
    }

    /// Returns how many client networks have a count, and how many can have one. `None` without a
    /// limit.
    pub(crate) fn table_use(&self) -> Option<TableUse> {
        let (entries, capacity, refusals) = match self.0.as_ref()? {
            Table::Network(limiter) => {
                let table = limiter.table();
                (table.live_subjects(now()), table.capacity(), table.refusals())
            }
            Table::Prefixes(limiter) => {
                let table = limiter.table();
                (table.live_subjects(now()), table.capacity(), table.refusals())
            }
        };
        let (capacity, refusals) = (capacity.into(), Some(refusals));
        Some(TableUse { name: "failures", entries, capacity, refusals })
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
        let counted = match self.0.as_ref()? {
            Table::Network(limiter) => limiter.check(Network::from(client?).as_bytes(), 1),
            Table::Prefixes(limiter) => *limiter.check(client?, 1).decisive(),
        };
        (counted.outcome() == Outcome::Denied).then_some(counted)
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use keytally::CacheLine;

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
    fn failures_are_limited_by_each_prefix_of_a_policy() {
        let guesses = guesses("addresses: /64 2/31d; /48 3/31d", 100);
        let is_refused = |address: &str| {
            guesses.too_many(&failed(), Some(address.parse::<IpAddr>().unwrap())).is_some()
        };
        let addresses = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1"];
        assert_eq!(addresses.map(is_refused), [false, false, true, false]);
        assert!(is_refused("2001:db8:0:2::1"), "the /48 has no room for another network");
        assert!(!is_refused("203.0.113.9"));
        assert_eq!(guesses.table_use().unwrap().entries, 5);
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
