//! Tests of a limiter of addresses in a file: creation, opening, and changes of its limits.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use core::net::IpAddr;

use keytally::{
    AddressLimiter, AddressPolicy, AttachError, Error, Limiter, OnFull, Policy, SetPolicyError,
    Settlement, TableKind, check_all,
};

const POLICY: &str = "addresses: /64 5/day; /48 8/day";

fn policy(text: &str) -> AddressPolicy {
    text.parse().unwrap()
}

fn client(last: u16) -> IpAddr {
    IpAddr::from([0x2001, 0xdb8, 0, last, 0, 0, 0, 1])
}

/// Returns the units that are left in each network of a client.
fn left(limiter: &AddressLimiter, last: u16) -> Vec<u32> {
    let peeked = limiter.peek(client(last), 0);
    peeked.verdicts().map(|verdict| verdict.remaining().unwrap()).collect()
}

#[test]
fn processes_that_open_a_file_share_its_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("addresses.limiter");
    let limiter = AddressLimiter::create(&path, &policy(POLICY), 1000).unwrap();
    assert!(matches!(
        AddressLimiter::create(&path, &policy(POLICY), 1000),
        Err(Error::Exists { .. })
    ));
    let opened = AddressLimiter::open(&path).unwrap();
    assert_eq!((opened.path(), opened.policy()), (Some(path.as_path()), Some(policy(POLICY))));
    assert_eq!(opened.table().capacity(), 1000);

    assert!(limiter.check(client(1), 3).is_admitted());
    assert!(opened.check(client(2), 5).is_admitted());
    assert_eq!((left(&limiter, 1), left(&opened, 1)), (vec![2, 0], vec![2, 0]));
    assert!(!limiter.check(client(3), 1).is_admitted());
    assert_eq!((opened.reset_all(), limiter.correct_clock()), (3, 0));
    assert_eq!(left(&limiter, 1), [5, 8]);
}

/// A client with three /48s sends one request from each of 170,000 networks of 64 bits to a limiter
/// of the default size. Meanwhile 1,000 clients from elsewhere send five requests each. Both limits
/// allow the others all of them.
#[test]
fn newcomers_are_served_during_a_flood_from_three_networks() {
    const FLOOD: u32 = 170_000;
    const NEWCOMERS: u32 = 1000;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let attacker = |number: u32| {
        let [a, b, _, _] = number.to_le_bytes();
        IpAddr::from([
            0x2001,
            0xdb8,
            (number >> 16).try_into().unwrap(),
            u16::from_le_bytes([a, b]),
            0,
            0,
            0,
            1,
        ])
    };
    let newcomer =
        |number: u32| IpAddr::from([0x2a00, number.try_into().unwrap(), 0, 0, 0, 0, 0, 1]);
    // Returns how many newcomers were served in full, and how many not at all.
    let served = |check: &dyn Fn(IpAddr) -> bool| {
        let mut flood = (0..196_608).cycle();
        let mut attack = |requests: u32| {
            (0..requests).for_each(|_| {
                check(attacker(flood.next().unwrap()));
            });
        };
        attack(FLOOD);
        let admitted = (0..NEWCOMERS).map(|number| {
            attack(10);
            (0..5).filter(|_| check(newcomer(number))).count()
        });
        let admitted: Vec<usize> = admitted.collect();
        let with = |count| admitted.iter().filter(|admitted| **admitted == count).count();
        (with(5), with(0))
    };

    // A limit for each /64 alone: the key is the network, as text.
    let limit: Policy = "20/day, 200/month".parse().unwrap();
    let site = |address: IpAddr| match address {
        IpAddr::V6(ipv6) => format!("{:x?}", &ipv6.segments()[..4]),
        IpAddr::V4(ipv4) => ipv4.to_string(),
    };
    for on_full in [OnFull::Refuse, OnFull::Share] {
        let alone = Limiter::create(path(on_full.as_str()), &limit, 100_000).unwrap();
        alone.set_on_full(on_full);
        let (whole, none) = served(&|client| alone.check(site(client).as_bytes(), 1).is_admitted());
        println!("/64 alone, {on_full}: {whole} served in full, {none} not at all");
        match on_full {
            OnFull::Refuse => assert!(whole < 150 && none > 850, "{whole}, {none}"),
            OnFull::Share => assert!(whole > 950 && none < 10, "{whole}, {none}"),
        }
        assert!(alone.live_subjects() > 145_000);
    }

    let prefixes = policy("addresses: /64 20/day, 200/month; /56 200/day; /48 1000/day");
    let limiter = AddressLimiter::create(path("prefixes"), &prefixes, 100_000).unwrap();
    let (whole, none) = served(&|client| limiter.check(client, 1).is_admitted());
    let live = limiter.live_subjects();
    println!("prefixes: {whole} served in full, {none} not at all, {live} networks have a slot");
    assert_eq!((whole, none, limiter.refusals()), (1000, 0, 0));
    // Three /48s with 1,000 clients each and their /56s, and three networks of each newcomer.
    assert!(live < 3 * (1 + 1000 + 256) + 3 * 1000, "{live}");
}

#[test]
fn charge_is_refunded_settled_and_reset() {
    let limiter = AddressLimiter::in_memory(&policy(POLICY), 1000).unwrap();
    assert_eq!(limiter.path(), None);
    let charge = |cost| check_all(&[&limiter.part(client(1), cost)]).unwrap().charge(0).unwrap();
    let refunded = limiter.refund(client(1), charge(3));
    assert!(refunded.verdicts().map(|verdict| verdict.remaining()).eq([Some(5), Some(8)]));
    assert_eq!(limiter.settle(client(1), charge(3), 7).decisive().uncharged(), 2);
    assert_eq!(left(&limiter, 1), [0, 3]);
    limiter.reset(client(1));
    assert_eq!(left(&limiter, 1), [5, 3]);
    let overdraw = Settlement::new().with_cost(6).with_overdraw(true);
    limiter.settle_all(client(1), charge(1), &overdraw);
    assert_eq!(left(&limiter, 1), [0, 0]);
}

#[test]
fn open_or_create_changes_limits_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("addresses.limiter");
    let open = |text: &str| AddressLimiter::open_or_create(&path, &policy(text), 1000);
    let limiter = open(POLICY).unwrap();
    assert!(limiter.check(client(1), 3).is_admitted());
    open("addresses: /64 4/day; /48 9/day").unwrap();
    assert_eq!(left(&limiter, 1), [1, 6]);

    for (text, reason) in [
        ("addresses: /64 5/hour; /48 8/hour", SetPolicyError::Windows),
        ("addresses: /64 5/day; /56 8/day", SetPolicyError::Prefixes),
    ] {
        let error = open(text).unwrap_err();
        let sentence = error.to_string();
        assert!(sentence.contains("counts \"addresses: /64 4/day; /48 9/day\""), "{sentence}");
        assert!(sentence.contains(text) && sentence.contains(&reason.to_string()), "{sentence}");
        assert!(matches!(error, Error::Policy { source, .. } if source == reason));
    }
    let error = AddressLimiter::open_or_create(&path, &policy(POLICY), 999).unwrap_err();
    assert!(matches!(error, Error::Capacity { found: 1000, requested: 999, .. }));
}

#[test]
fn limiters_of_subjects_and_of_addresses_are_different_tables() {
    let folder = tempfile::tempdir().unwrap();
    let [subjects, addresses] = ["subjects", "addresses"].map(|name| folder.path().join(name));
    let limits: Policy = "5/day".parse().unwrap();
    Limiter::create(&subjects, &limits, 8).unwrap();
    AddressLimiter::create(&addresses, &policy(POLICY), 8).unwrap();
    let found = |error| match error {
        Error::Attach { source: AttachError::Kind { found, .. }, .. } => found,
        other => panic!("{other}"),
    };
    assert_eq!(found(AddressLimiter::open(&subjects).unwrap_err()), TableKind::Limiter);
    assert_eq!(found(Limiter::open(&addresses).unwrap_err()), TableKind::AddressLimiter);
    let error = Limiter::open_or_create(&addresses, &limits, 8).unwrap_err();
    assert_eq!(found(error), TableKind::AddressLimiter);
}
