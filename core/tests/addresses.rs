//! Tests of limits by address: all prefixes or none are charged, and a flood takes no slots.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use core::cell::Cell;

use keytally_core::{
    Address, AddressLimiter, AddressPolicy, CacheLine, Charge, Clock, Compound, MAX_PREFIXES,
    OnFull, Outcome, ParsePolicyErrorKind, Section, SetPolicyError, Settlement, Timestamp,
    check_all,
};
use proptest::prelude::*;

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use support::{address, address_limiter, at, limiter};

type Limiter = AddressLimiter<Vec<CacheLine>>;

/// Two limits for a client, two for its customer, one for the provider.
const POLICY: &str = "addresses: /64 2/minute, 5/hour; /56 4/minute; /48 6/hour";

/// Returns the units that are left in each window of each prefix.
fn left(limiter: &Limiter, text: &str, now: Timestamp) -> Vec<Vec<u32>> {
    rooms(&limiter.peek(address(text), 0, now))
}

fn rooms(compound: &Compound) -> Vec<Vec<u32>> {
    let verdicts = compound.verdicts();
    verdicts.map(|verdict| verdict.quotas().iter().map(|state| state.remaining).collect()).collect()
}

fn outcomes(compound: &Compound) -> Vec<Outcome> {
    compound.verdicts().map(|verdict| verdict.outcome()).collect()
}

fn is_admitted(limiter: &Limiter, text: &str, now: Timestamp) -> bool {
    limiter.check(address(text), 1, now).is_admitted()
}

#[test]
fn request_is_charged_to_all_prefixes_or_to_none() {
    use Outcome::{Admitted, Denied, TooCostly};
    let limiter = address_limiter(POLICY, 64);
    let check = |text, cost| limiter.check(address(text), cost, at(0));

    let first = check("2001:db8:1:100::1", 2);
    assert!(first.is_admitted());
    assert_eq!(rooms(&first), [vec![0, 3], vec![2], vec![4]]);
    assert_eq!(first.remaining(), Some(3), "the fields describe the client's longest window");
    let sections = first.tallies().iter().map(|tally| tally.section().map(Section::name));
    assert!(sections.eq([None, Some("prefix-56"), Some("prefix-48")]));

    let denied = check("2001:db8:1:100::2", 1);
    assert_eq!(outcomes(&denied), [Denied, Admitted, Admitted]);
    assert!(denied.charge(0).is_none());
    assert_eq!((denied.http_status(), denied.retry_after_s()), (429, Some(60)));

    // Another /64 of the same /56, which has two units left.
    assert!(check("2001:db8:1:101::1", 2).is_admitted());
    assert_eq!(outcomes(&check("2001:db8:1:102::1", 1)), [Admitted, Denied, Admitted]);
    // Another /56 of the same /48, which has two units left.
    assert!(check("2001:db8:1:200::1", 2).is_admitted());
    let denied = check("2001:db8:1:300::1", 1);
    assert_eq!(outcomes(&denied), [Admitted, Admitted, Denied]);
    assert_eq!(denied.retry_after_s(), Some(3600), "the denial that lasts longest decides");
    assert_eq!(outcomes(&check("2001:db8:1:300::1", 3)), [TooCostly, Admitted, Denied]);

    assert_eq!(left(&limiter, "2001:db8:1:300::1", at(0)), [vec![2, 5], vec![4], vec![0]]);
    assert!(is_admitted(&limiter, "2001:db8:2::1", at(0)));
    // The windows of a minute have passed, and those of an hour have not.
    assert_eq!(left(&limiter, "2001:db8:1:100::1", at(60)), [vec![2, 3], vec![4], vec![0]]);
    assert_eq!(left(&limiter, "2001:db8:1:100::1", at(3600)), [vec![2, 5], vec![4], vec![6]]);
}

#[test]
fn prefixes_of_ipv4_are_shorter_by_32() {
    let limiter = address_limiter("addresses: /64 1/minute; /56 2/minute; /48 3/minute", 64);
    for (text, admitted) in [
        ("203.0.113.9", true),
        ("::ffff:203.0.113.9", false),
        ("203.0.113.10:443", true),
        // The /24 has spent its two.
        ("203.0.113.11", false),
        ("203.0.114.9", true),
        // The /16 has spent its three.
        ("203.0.115.9", false),
        ("203.1.113.9", true),
        // This is an IPv6 address, although its first bits are those of one.
        ("0:0:cb00:7109::1", true),
    ] {
        assert_eq!(is_admitted(&limiter, text, at(0)), admitted, "{text}");
    }
}

#[test]
fn quota_that_a_prefix_lacks_is_unlimited() {
    let limiter = address_limiter("addresses: /64 3/hour; /48 2/minute", 64);
    for minute in 0..3 {
        assert!(is_admitted(&limiter, "2001:db8:1:1::1", at(60 * minute)));
        assert!(is_admitted(&limiter, "2001:db8:1:2::1", at(60 * minute)));
        // The /48 has no limit by the hour, and the /64 none by the minute.
        assert!(!is_admitted(&limiter, "2001:db8:1:3::1", at(60 * minute)));
    }
    assert!(!is_admitted(&limiter, "2001:db8:1:1::1", at(180)));
    assert!(is_admitted(&limiter, "2001:db8:1:3::1", at(180)));
}

#[test]
fn sliding_windows_count_the_previous_window() {
    let limiter = address_limiter("addresses: sliding /64 4/minute; /48 8/minute", 64);
    assert!(limiter.check(address("2001:db8::1"), 4, at(0)).is_admitted());
    assert_eq!(left(&limiter, "2001:db8::1", at(90)), [[2], [6]]);
    assert_eq!(left(&limiter, "2001:db8:0:1::1", at(90)), [[4], [6]]);
    assert_eq!(
        limiter.policy().unwrap().to_string(),
        "addresses: sliding /64 4/minute; /48 8/minute"
    );
}

#[test]
fn flood_from_one_network_takes_the_slots_of_its_limit() {
    let limiter = address_limiter("addresses: /64 20/minute; /56 30/minute; /48 50/minute", 64);
    let admitted = (0..60_000u32).filter(|number| {
        let (high, low) = (number >> 16, number & 0xFFFF);
        is_admitted(&limiter, &format!("2001:db8:{high:x}:{low:x}::1"), at(0))
    });
    assert_eq!(admitted.count(), 50);
    // 50 clients are in two /56 of one /48.
    assert_eq!(limiter.live_subjects(at(0)), 53);
    assert!(is_admitted(&limiter, "2001:db8:ffff::1", at(0)));
}

/// A system clock that calls a function when it is read again, as it is before an insertion.
#[derive(Clone, Copy)]
struct Interrupted<'f>(&'f dyn Fn(), &'f Cell<u32>);

impl Clock for Interrupted<'_> {
    const IS_SYSTEM: bool = true;

    fn reading(self) -> Timestamp {
        at(0)
    }

    fn reread(self) -> Option<Timestamp> {
        self.1.set(self.1.get() + 1);
        if self.1.get() == 1 {
            (self.0)();
        }
        Some(at(0))
    }
}

#[test]
fn larger_network_is_charged_before_a_client_gets_a_slot() {
    for client in 0..32 {
        let limiter = address_limiter("addresses: /64 20/minute; /48 2/minute", 64);
        // The clock is then not read again before the insertion.
        limiter.set_on_full(OnFull::Refuse);
        let (first, other) = (address("2001:db8:0:ffff::1"), address("2001:db8:0:fffe::1"));
        assert!(limiter.check(first, 1, at(0)).is_admitted());
        let reads = Cell::new(0);
        // When the client gets its slot, another one requests the last unit of the /48.
        let spend = || assert!(!limiter.check(other, 1, at(0)).is_admitted());
        let client = address(&format!("2001:db8:0:{client:x}::1"));
        assert!(limiter.check(client, 1, Interrupted(&spend, &reads)).is_admitted());
        assert!(reads.get() > 0);
        assert_eq!(limiter.live_subjects(at(0)), 3);
    }
}

#[test]
fn charge_can_be_refunded_in_all_prefixes() {
    let limiter = address_limiter(POLICY, 64);
    let client = address("2001:db8::1");
    let charge = limiter.check(client, 2, at(0)).charge(0).unwrap();
    let charge = Charge::from_bytes(&charge.to_bytes()).unwrap();
    assert_eq!(rooms(&limiter.refund(client, charge, at(1))), [vec![2, 5], vec![4], vec![6]]);
    // A charge of an earlier minute is returned to the hour only.
    let charge = limiter.check(client, 2, at(2)).charge(0).unwrap();
    assert!(limiter.check(client, 1, at(62)).is_admitted());
    assert_eq!(rooms(&limiter.refund(client, charge, at(63))), [vec![1, 4], vec![3], vec![5]]);
}

#[test]
fn settlement_is_charged_as_far_as_all_prefixes_have_room() {
    let limiter = address_limiter("addresses: /64 9/minute; /56 9/minute; /48 6/minute", 64);
    let client = address("2001:db8::1");
    let check = || limiter.check(client, 2, at(0)).charge(0).unwrap();
    let lower = limiter.settle(client, check(), 1, at(0));
    assert_eq!((rooms(&lower), lower.decisive().uncharged()), (vec![vec![8], vec![8], vec![5]], 0));
    let higher = limiter.settle(client, check(), 9, at(0));
    assert_eq!(rooms(&higher), [[3], [3], [0]]);
    assert!(higher.verdicts().all(|verdict| verdict.uncharged() == 4));
    assert!(higher.charge(0).is_none());

    let estimate = Charge::new(2, at(0));
    let overdraw = Settlement::new().with_cost(4).with_overdraw(true);
    let overdrawn = limiter.settle_all(client, estimate, &overdraw, at(0));
    assert_eq!(
        (rooms(&overdrawn), overdrawn.decisive().uncharged()),
        (vec![vec![1], vec![1], vec![0]], 0)
    );
    let same = limiter.settle_all(client, estimate, &Settlement::new(), at(0));
    assert_eq!(rooms(&same), rooms(&overdrawn));
}

#[test]
fn settlement_in_a_full_table_ends_without_a_charge() {
    let limiter = address_limiter("addresses: /64 9/minute", 1);
    limiter.set_on_full(OnFull::Refuse);
    let client = address("2001:db8::1");
    let charge = limiter.check(client, 1, at(0)).charge(0).unwrap();
    // The client's slot is reused, and all slots are taken.
    for number in 0..64 {
        limiter.check(address(&format!("2001:db8:1:{number:x}::1")), 1, at(600));
    }
    let settled = limiter.settle(client, charge, 4, at(600));
    assert_eq!((rooms(&settled), settled.decisive().uncharged()), (vec![vec![9]], 3));
}

/// The client was charged to the overflow tally, and then gets a slot in the same hour.
#[test]
fn settlement_of_a_shared_charge_changes_the_charged_tally() {
    let client = address("2001:db8::1");
    let in_hour = |limiter: &Limiter, estimate, settlement: &Settlement<'_>| {
        rooms(&limiter.settle_all(client, estimate, settlement, at(3601)))
    };
    for (settlement, shared_rooms) in [
        (Settlement::new().with_cost(3), [7]),
        (Settlement::new().with_cost(3).with_overdraw(true), [7]),
        (Settlement::new().with_cost(12).with_overdraw(true), [0]),
        (Settlement::new().with_cost(12), [0]),
        (Settlement::new().with_cost(1), [9]),
    ] {
        let limiter = address_limiter("addresses: /64 10/hour", 1);
        // The slots are taken in two hours, so that seven of them become free in the second.
        for slot in 0..8_u32 {
            let seconds = 3600 * u64::from(slot == 7);
            assert!(is_admitted(&limiter, &format!("2001:db8:1:{slot:x}::1"), at(seconds)));
        }
        let shared = limiter.check(client, 2, at(3600)).charge(0).unwrap();
        let own = limiter.check(client, 4, at(3601)).charge(0).unwrap();
        assert!(shared.to_bytes()[4] == 128 && own.to_bytes()[4] == 0);
        assert_eq!(in_hour(&limiter, shared, &settlement), [shared_rooms], "{settlement:?}");
        assert_eq!(left(&limiter, "2001:db8::1", at(3601)), [[6]], "its own is unchanged");
        // A newcomer shares the overflow tally once the slots are taken again.
        for slot in 16..22_u32 {
            assert!(is_admitted(&limiter, &format!("2001:db8:1:{slot:x}::1"), at(3601)));
        }
        assert_eq!(left(&limiter, "2001:db8:2::1", at(3601)), [shared_rooms], "{settlement:?}");
    }
}

/// A full bucket has one overflow tally, which all networks of a client are charged to.
#[test]
fn settlement_in_a_tally_of_several_networks_takes_its_share() {
    for (actual, shared_room, uncharged) in [(2, 3, 0), (3, 0, 0), (4, 0, 1), (9, 0, 6)] {
        let limiter = address_limiter("addresses: /64 9/minute; /56 9/minute; /48 9/minute", 1);
        // Six clients of one /56 take the slots.
        for slot in 0..6_u32 {
            assert!(is_admitted(&limiter, &format!("2001:db8:0:{slot:x}::1"), at(0)));
        }
        assert_eq!(limiter.live_subjects(at(0)), 8);
        let client = address("2001:db8:ffff::1");
        let charge = limiter.check(client, 1, at(0)).charge(0).unwrap();
        let settled = limiter.settle(client, charge, actual, at(0));
        assert_eq!(rooms(&settled), [[shared_room]; 3], "{actual}");
        assert_eq!(settled.decisive().uncharged(), uncharged, "{actual}");
    }
}

#[test]
fn reset_of_a_client_keeps_the_counts_of_its_larger_networks() {
    let limiter = address_limiter(POLICY, 64);
    let client = address("2001:db8::1");
    assert!(limiter.check(client, 2, at(0)).is_admitted());
    assert_eq!(rooms(&limiter.reset(client, at(0))), [vec![2, 5], vec![2], vec![4]]);
    assert!(limiter.check(client, 2, at(0)).is_admitted());
    assert_eq!(limiter.reset_all(at(0)), 3);
    assert_eq!(left(&limiter, "2001:db8::1", at(0)), [vec![2, 5], vec![4], vec![6]]);
}

#[test]
fn peek_charges_nothing() {
    let limiter = address_limiter(POLICY, 64);
    let peeked = limiter.peek(address("2001:db8::1"), 2, at(0));
    assert!(peeked.is_admitted() && peeked.charge(0).is_none());
    assert_eq!(limiter.live_subjects(at(0)), 0);
}

#[test]
fn clock_that_was_ahead_is_corrected_in_all_prefixes() {
    let limiter = address_limiter(POLICY, 64);
    assert!(limiter.check(address("2001:db8::1"), 2, at(86_400)).is_admitted());
    assert_eq!(limiter.correct_clock(at(0)), 3);
    assert_eq!(left(&limiter, "2001:db8::1", at(60)), [vec![2, 3], vec![4], vec![4]]);
}

#[test]
fn attached_limiter_shares_the_counts() {
    let limiter = address_limiter(POLICY, 64);
    assert!(limiter.check(address("2001:db8::1"), 2, at(0)).is_admitted());
    let attached = AddressLimiter::attach(&limiter.memory()[..]).unwrap();
    assert_eq!((attached.policy(), attached.capacity()), (limiter.policy(), 64));
    assert_eq!(attached.layout().windows().len(), 2);
    let peeked = attached.peek(address("2001:db8::1"), 0, at(0));
    assert_eq!(rooms(&peeked), [vec![0, 3], vec![2], vec![4]]);
}

#[test]
fn limits_change_in_place_and_counts_stay() {
    let limiter = address_limiter(POLICY, 64);
    let attached = AddressLimiter::attach(&limiter.memory()[..]).unwrap();
    assert!(limiter.check(address("2001:db8::1"), 2, at(0)).is_admitted());
    let policy = "addresses: /64 3/minute, 5/hour; /56 1/minute; /48 60/hour".parse().unwrap();
    limiter.set_policy(&policy).unwrap();
    assert_eq!(attached.policy(), Some(policy));
    let peeked = attached.peek(address("2001:db8::1"), 0, at(0));
    assert_eq!(rooms(&peeked), [vec![1, 3], vec![0], vec![58]]);

    for (policy, error) in [
        ("addresses: /64 3/minute, 5/hour; /56 1/minute", SetPolicyError::Prefixes),
        ("addresses: /64 3/minute, 5/hour; /56 1/minute; /47 60/hour", SetPolicyError::Prefixes),
        ("addresses: /64 3/minute; /56 1/minute; /48 60/hour", SetPolicyError::Windows),
        (
            "addresses: sliding /64 1/minute, 5/hour; /56 1/minute; /48 6/hour",
            SetPolicyError::Windows,
        ),
    ] {
        assert_eq!(limiter.set_policy(&policy.parse().unwrap()), Err(error), "{policy}");
    }
    let too_high = "addresses: /64 3/minute, 5/hour; /56 1/minute; /48 4000000000/hour";
    let error = limiter.set_policy(&too_high.parse().unwrap()).unwrap_err();
    assert!(matches!(error, SetPolicyError::Limit { limit: 4_000_000_000, .. }), "{error}");
    assert_eq!(limiter.policy(), attached.policy());
    assert_eq!(SetPolicyError::Prefixes.to_string(), "the prefixes must be those of the limiter");
}

#[test]
fn list_has_each_network_with_the_largest_limits() {
    let limiter = address_limiter("addresses: /64 2/minute, 5/hour; /56 4/minute", 64);
    let (one, other) = (address("2001:db8::1"), address("2001:db8:0:1::1"));
    assert!(limiter.check(one, 2, at(0)).is_admitted());
    assert!(limiter.check(other, 1, at(0)).is_admitted());
    let mut found: Vec<_> = limiter.list(at(0)).collect();
    found.sort_by_key(|info| info.quotas.iter().map(|state| state.used()).collect::<Vec<_>>());
    let used = found.iter().map(|info| {
        info.quotas.iter().map(|state| (state.used(), state.limit)).collect::<Vec<_>>()
    });
    assert!(used.eq([[(1, 4), (1, 5)], [(2, 4), (2, 5)], [(3, 4), (0, 5)]]), "{found:?}");
    assert_eq!(found[0].fingerprint, Some(limiter.fingerprint(other)));
    assert_eq!(found[1].fingerprint, Some(limiter.fingerprint(one)));
    assert!(found.iter().all(|info| info.clock_ahead_s == 0));
}

#[test]
fn address_is_a_part_of_a_compound_charge() {
    let (addresses, users) = (address_limiter(POLICY, 64), limiter("1/minute", 8));
    let request = |text: &str| {
        let parts = (users.part(b"ann", 1), addresses.part(address(text), 1));
        check_all(&[&parts.0, &parts.1], at(0)).unwrap()
    };
    let admitted = request("2001:db8::1");
    assert!(admitted.is_admitted());
    assert_eq!(
        admitted.tallies().iter().map(|tally| tally.part()).collect::<Vec<_>>(),
        [0, 1, 1, 1]
    );
    let denied = request("2001:db8::1");
    assert_eq!(denied.decisive().outcome(), Outcome::Denied);
    assert_eq!(left(&addresses, "2001:db8::1", at(0)), [vec![1, 4], vec![3], vec![5]]);

    let client = address("2001:db8::1");
    addresses.refund(client, admitted.charge(1).unwrap(), at(0));
    assert_eq!(left(&addresses, "2001:db8::1", at(0)), [vec![2, 5], vec![4], vec![6]]);
    // Three parts of three tallies each are more than there is room for.
    let part = addresses.part(client, 1);
    assert_eq!(check_all(&[&part, &part, &part], at(0)).unwrap_err().parts, 9);
}

#[test]
fn header_fields_name_the_prefixes() {
    let limiter = address_limiter("addresses: /64 2/minute; /56 4/minute", 64);
    let headers = limiter.check(address("2001:db8::1"), 1, at(0)).headers();
    let headers = core::str::from_utf8(headers.as_bytes()).unwrap();
    let field = "RateLimit-Policy: \"minute\";q=2;w=60, \"prefix-56-minute\";q=4;w=60";
    assert!(headers.contains(field), "{headers}");
    assert!(headers.contains("X-RateLimit-Limit: 2"), "{headers}");
}

#[test]
fn policy_is_written_as_it_is_read() {
    for (text, written) in [
        (" addresses : /48 9/m ; /64 3/hour,1/m", "addresses: /64 1/minute, 3/hour; /48 9/minute"),
        ("addresses: 5/minute", "addresses: /64 5/minute; /56 40/minute; /48 320/minute"),
        (
            "addresses: sliding 1/s, 2/m",
            "addresses: sliding /64 1/second, 2/minute; /56 8/second, 16/minute; /48 64/second, \
             128/minute",
        ),
        ("addresses:/33 1/month@17", "addresses: /33 1/month@17"),
    ] {
        let policy: AddressPolicy = text.parse().unwrap();
        assert_eq!(policy.to_string(), written);
        assert_eq!(written.parse(), Ok(policy.clone()), "{written}");
        assert!(AddressPolicy::is_beginning(text));
        assert_eq!(address_limiter(text, 8).policy(), Some(policy));
    }
    for text in ["5/minute", "address: 5/minute", "addresses 5/minute", "addresses", ""] {
        assert!(!AddressPolicy::is_beginning(text), "{text}");
    }
}

#[test]
fn error_of_a_policy_names_its_part() {
    use ParsePolicyErrorKind as Kind;
    let five = "addresses: /64 1/m; /60 1/m; /56 1/m; /52 1/m; /48 1/m";
    assert_eq!(MAX_PREFIXES, 4);
    for (text, kind, part) in [
        ("5/minute", Kind::Prefix, "5/minute"),
        ("addresses: /32 5/minute", Kind::Prefix, "/32 5/minute"),
        ("addresses: /65 5/minute", Kind::Prefix, "/65 5/minute"),
        ("addresses: /264 5/minute", Kind::Prefix, "/264 5/minute"),
        ("addresses: /x 5/minute", Kind::Prefix, "/x 5/minute"),
        ("addresses: /645/minute", Kind::Prefix, "/645/minute"),
        ("addresses: /64", Kind::Prefix, "/64"),
        ("addresses: /64 5/minute; /64 5/hour", Kind::Prefix, "/64 5/hour"),
        ("addresses: /64 5/minute; 5/hour", Kind::Prefix, "5/hour"),
        ("addresses: 5/minute; /64 5/hour", Kind::Prefix, "5/minute"),
        (five, Kind::Prefix, "/48 1/m"),
        ("addresses: /64 5/minute;", Kind::Prefix, ""),
        ("addresses:", Kind::Empty, "addresses:"),
        ("addresses: /64 0/minute", Kind::Limit, "0"),
        ("addresses: /64 5/fortnight", Kind::Unit, "fortnight"),
        ("addresses: /64 5/minute, 6/minute", Kind::Duplicate, "6/minute"),
        ("addresses: sliding /64 5/month", Kind::SlidingMonth, "5/month"),
        ("addresses: /64 1/s, 1/m, 1/h; /48 1/d, 1/w", Kind::TooManyQuotas, "1/week"),
        ("addresses: /64 4000000000/m; /48 4000000000/h", Kind::TooManyBits { needed: 91 }, ""),
        ("addresses: /64 5/minute warn 80%", Kind::Syntax, "5/minute warn 80%"),
    ] {
        let error = text.parse::<AddressPolicy>().unwrap_err();
        assert_eq!((error.kind(), error.part()), (kind, part), "{text}: {error}");
        assert!(part.is_empty() || error.to_string().contains(part), "{text}: {error}");
    }
    let long = format!("addresses: {}", " ".repeat(4096));
    let error = long.parse::<AddressPolicy>().unwrap_err();
    assert!(matches!(error.kind(), Kind::TooLong { .. }), "{error}");
}

/// Counts of one window of one hour in each network.
#[derive(Default)]
struct Model(std::collections::HashMap<(u8, u64), u32>);

impl Model {
    const LIMITS: [(u8, u32); 3] = [(64, 5), (56, 8), (48, 12)];

    /// Returns the counts of a client's networks.
    fn counts(&self, client: u64) -> [((u8, u64), u32); 3] {
        Self::LIMITS.map(|(prefix, _)| {
            let network = (prefix, client >> (64 - prefix));
            (network, self.0.get(&network).copied().unwrap_or(0))
        })
    }

    fn room(&self, client: u64) -> u32 {
        let rooms = self.counts(client).into_iter().zip(Self::LIMITS);
        rooms.map(|((_, count), (_, limit))| limit - count).min().unwrap()
    }

    fn add(&mut self, client: u64, change: impl Fn(u32) -> u32) {
        for (network, count) in self.counts(client) {
            self.0.insert(network, change(count));
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Check(u32),
    Refund,
    Settle(u32),
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..7u32).prop_map(Step::Check),
        1 => Just(Step::Refund),
        1 => (0..9u32).prop_map(Step::Settle),
        1 => Just(Step::Reset),
    ]
}

proptest! {
    /// Any sequence of steps of clients in two /48 equals the counts of a map.
    #[test]
    fn sequence_equals_the_counts_of_each_network(
        steps in prop::collection::vec((0..2u64, 0..3u64, 0..3u64, step()), 1..60),
    ) {
        let limiter = address_limiter("addresses: /64 5/hour; /56 8/hour; /48 12/hour", 64);
        let mut model = Model::default();
        let mut charges = Vec::<(u64, Address, Charge)>::new();
        for (provider, customer, network, step) in steps {
            let client = 0x2001_0db8_0000_0000 | provider << 16 | customer << 8 | network;
            let text = core::net::Ipv6Addr::from_bits(u128::from(client) << 64 | 9).to_string();
            let named = address(&text);
            match step {
                Step::Check(cost) => {
                    let compound = limiter.check(named, cost, at(0));
                    prop_assert_eq!(compound.is_admitted(), model.room(client) >= cost);
                    if let Some(charge) = compound.charge(0) {
                        model.add(client, |count| count + cost);
                        charges.push((client, named, charge));
                    }
                }
                Step::Refund => if let Some((client, named, charge)) = charges.pop() {
                    limiter.refund(named, charge, at(1));
                    model.add(client, |count| count - charge.cost());
                },
                Step::Settle(actual) => if let Some((client, named, charge)) = charges.pop() {
                    let settled = limiter.settle(named, charge, actual, at(1));
                    let more = actual.saturating_sub(charge.cost()).min(model.room(client));
                    let less = charge.cost().saturating_sub(actual);
                    model.add(client, |count| count + more - less);
                    let uncharged = actual.saturating_sub(charge.cost()) - more;
                    prop_assert_eq!(settled.decisive().uncharged(), uncharged);
                },
                Step::Reset => {
                    limiter.reset(named, at(1));
                    model.0.insert((64, client), 0);
                    // A refund after a reset would return units of others.
                    charges.retain(|(other, ..)| *other != client);
                }
            }
            let rooms = left(&limiter, &text, at(1));
            let expected = model.counts(client).into_iter().zip(Model::LIMITS);
            let expected: Vec<_> =
                expected.map(|((_, count), (_, limit))| vec![limit - count]).collect();
            prop_assert_eq!(rooms, expected);
        }
    }
}
