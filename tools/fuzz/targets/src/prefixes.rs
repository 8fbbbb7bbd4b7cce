//! The target `prefixes`: the text of a policy for addresses, and requests of clients that share
//! networks.

use keytally_core::{
    Address, AddressLimiter, AddressPolicy, CacheLine, Charge, MAX_POLICY_LEN, Section, Timestamp,
};
use keytally_vectors::model;

use crate::bytes::Bytes;

/// Clients that share networks, in several forms.
const CLIENTS: [&str; 6] = [
    "2001:db8:1:100::1",
    "[2001:db8:1:101::2]:443",
    "2001:db8:1:200::1%eth0",
    "2001:db8:2::1",
    "203.0.113.9",
    "::ffff:203.0.7.7",
];

/// Parses the bytes before a NUL as a policy, and makes the requests that the bytes after it name.
pub fn prefixes(bytes: &[u8]) {
    let (text, requests) = match bytes.iter().position(|byte| *byte == 0) {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[][..]),
    };
    let Ok(text) = core::str::from_utf8(text) else { return };
    let policy = match text.parse::<AddressPolicy>() {
        Ok(policy) => policy,
        Err(error) => {
            assert!(error.part().len() <= 32 && !error.to_string().is_empty());
            // The model limits the text of each quota as that of a policy.
            assert!(text.len() > MAX_POLICY_LEN || model::Prefixes::parse(text).is_err());
            return;
        }
    };
    let canonical = policy.to_string();
    assert_eq!(canonical.parse::<AddressPolicy>().as_ref(), Ok(&policy));
    let Ok(mut expected) = model::Prefixes::parse(&canonical) else {
        panic!("the model does not parse {canonical:?}")
    };
    assert_eq!(expected.text(), canonical);
    let lines = AddressLimiter::<Vec<CacheLine>>::lines(64);
    let memory = (0..lines).map(|_| CacheLine::new()).collect::<Vec<_>>();
    drop(AddressLimiter::init(&memory[..], &policy, 64, [5; 16]).unwrap());
    let limiter = AddressLimiter::attach(&memory[..]).unwrap();
    assert_eq!(limiter.policy().as_ref(), Some(&policy));
    request_all(&limiter, &mut expected, &mut Bytes::new(requests));
}

/// Makes requests and refunds at times that do not go back, and compares them with the model.
fn request_all(
    limiter: &AddressLimiter<&[CacheLine]>,
    expected: &mut model::Prefixes,
    bytes: &mut Bytes<'_>,
) {
    let mut now_ms = 1_767_225_600_000;
    let mut charges: Vec<(&str, Charge, Vec<model::Charge>)> = Vec::new();
    while !bytes.is_empty() {
        now_ms += bytes.pick(&[0, 0, 1, 999, 61_000, 3_600_000, 90_000_000]);
        let now = Timestamp::from_unix_ms(now_ms);
        let (real, answer) = if bytes.below(4) == 0 && !charges.is_empty() {
            let (client, charge, modeled) = charges.remove(bytes.below(charges.len().min(256)));
            let refunded = limiter.refund(Address::parse(client).unwrap(), charge, now);
            (refunded, expected.refund(now_ms, client, &modeled))
        } else {
            let (client, cost) = (bytes.pick(&CLIENTS), bytes.cost());
            let compound = limiter.check(Address::parse(client).unwrap(), cost, now);
            let (answer, modeled) = expected.check(now_ms, client, cost);
            charges.extend(compound.charge(0).map(|charge| (client, charge, modeled)));
            (compound, answer)
        };
        assert_eq!(real.is_admitted(), answer.admitted);
        assert_eq!(real.retry_after_s().map(u64::from), answer.retry_after_s);
        let tallies = real.tallies().iter().map(|tally| {
            let quotas = tally.verdict().quotas();
            let section = tally.section().map_or("", Section::name).to_owned();
            let outcome = tally.verdict().outcome().to_string();
            let left = quotas.iter().map(|it| (it.limit, it.remaining)).collect::<Vec<_>>();
            (section, outcome, left)
        });
        let modeled = answer.tallies.iter().map(|tally| {
            let left = tally.quotas.iter().map(|it| (it.limit, it.remaining)).collect();
            (tally.section.clone(), tally.outcome.name().to_owned(), left)
        });
        assert!(tallies.eq(modeled), "{real:?}, {answer:?}");
        assert!(!real.headers().as_str().is_empty());
    }
}
