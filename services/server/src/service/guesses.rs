//! Guessed keys: a limit of failed checks for each client address.
//!
//! The rule, for every adapter alike: the gate is asked first. Its verdict is the answer, unless it is
//! [`Outcome::InvalidKey`] and the client's network has had too many of those; then it is 429. So a key that is
//! admitted is never refused here, and a request without a key is not a guess.

use core::net::IpAddr;

use keytally::{Error, Limiter};
use keytally::{Outcome, Policy, Verdict};

use super::address::Network;

/// Client networks that are counted at a time: 1.5 MiB of memory.
///
/// When there are more, wrong keys of further networks are answered with 401, as without a limit.
const MAX_NETWORKS: u32 = 65_536;

/// The limit of failed checks.
#[derive(Debug)]
pub(crate) struct Guesses(Option<Limiter>);

impl Guesses {
    /// Makes an empty tally; `None` turns the limit off.
    pub(crate) fn new(policy: Option<&Policy>) -> Result<Self, Error> {
        Self::with_capacity(policy, MAX_NETWORKS)
    }

    fn with_capacity(policy: Option<&Policy>, networks: u32) -> Result<Self, Error> {
        Ok(Self(policy.map(|policy| Limiter::in_memory(policy, networks)).transpose()?))
    }

    /// Counts a failed check, and returns the verdict to answer with instead if there were too many.
    ///
    /// Every invalid key counts, for whatever reason: were a revoked key left out, the answer would reveal that its
    /// secret is right.
    pub(crate) fn too_many(&self, verdict: &Verdict, client: Option<IpAddr>) -> Option<Verdict> {
        if verdict.outcome() != Outcome::InvalidKey {
            return None;
        }
        let counted = self.0.as_ref()?.check(Network::of(client?).as_bytes(), 1);
        (counted.outcome() == Outcome::Denied).then_some(counted)
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use keytally::now;

    use super::*;

    fn failed() -> Verdict {
        Verdict::duplicate_header(now())
    }

    fn guesses(policy: &str, networks: u32) -> Guesses {
        Guesses::with_capacity(Some(&policy.parse().unwrap()), networks).unwrap()
    }

    #[test]
    fn failures_beyond_the_limit_are_refused_by_network() {
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
        assert!(Guesses::new(None).unwrap().too_many(&failed(), here).is_none());
    }

    #[test]
    fn a_full_table_refuses_no_further_network() {
        let guesses = guesses("1/31d", 100);
        let mut unlimited = 0;
        for number in 0..1000 {
            let address = Some(IpAddr::from(Ipv4Addr::from_bits(number)));
            assert!(guesses.too_many(&failed(), address).is_none());
            unlimited += u32::from(guesses.too_many(&failed(), address).is_none());
        }
        // The table has half as many slots again as its capacity.
        assert!((1000 - 160..=900).contains(&unlimited), "{unlimited}");
    }
}
