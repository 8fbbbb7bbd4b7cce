//! LIMITS.md says what the code says.

use keytally::{gate, http, key, limiter, mac, policy};

#[test]
fn the_page_of_limits_is_true() {
    let constants = [
        ("policy::MAX_QUOTAS", policy::MAX_QUOTAS as u64),
        ("policy::MAX_POLICY_LEN", policy::MAX_POLICY_LEN as u64),
        ("policy::MAX_WINDOW_S", u64::from(policy::MAX_WINDOW_S)),
        ("gate::MAX_KEYS", u64::from(gate::MAX_KEYS)),
        ("gate::MAX_ENVS", gate::MAX_ENVS as u64),
        ("gate::MAX_PLAN_NAME_LEN", gate::MAX_PLAN_NAME_LEN as u64),
        ("gate::IMPORT_GROUP", u64::from(gate::IMPORT_GROUP)),
        ("gate::IMPORTED_KEY_LEN", gate::IMPORTED_KEY_LEN.start as u64),
        ("mac::MAX_PEPPERS", mac::MAX_PEPPERS as u64),
        ("mac::MIN_PEPPER_LEN", mac::MIN_PEPPER_LEN as u64),
        ("key::MAX_KEY_LEN", key::MAX_KEY_LEN as u64),
        ("key::MAX_NAME_LEN", key::MAX_NAME_LEN as u64),
        ("key::MAX_NAMES_LEN", key::MAX_NAMES_LEN as u64),
        ("limiter::MAX_SUBJECTS", u64::from(limiter::MAX_SUBJECTS)),
        ("limiter::BUCKET_SLOTS", limiter::BUCKET_SLOTS as u64),
        ("limiter::CLAIM_SPINS", u64::from(limiter::CLAIM_SPINS)),
        ("http::MAX_HEADERS_LEN", http::MAX_HEADERS_LEN as u64),
        ("http::MAX_PROBLEM_LEN", http::MAX_PROBLEM_LEN as u64),
    ];
    let page = include_str!("../../LIMITS.md");
    let named: Vec<(&str, u64)> = page
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
            Some((name, rest.split(' ').next()?.parse().unwrap()))
        })
        .collect();
    assert_eq!(named, constants, "the page, in its order, and the code");
    assert_eq!(gate::IMPORTED_KEY_LEN.end, 257);
}
