//! Compares the numbers in LIMITS.md with the constants of the crate.

use keytally_core::{
    BUCKET_SLOTS, IMPORT_GROUP, IMPORTED_KEY_LEN, LOCK_SPINS, MAX_COMPOUND_HEADERS_LEN,
    MAX_COMPOUND_PROBLEM_LEN, MAX_ENVS, MAX_GROUP_NAME_LEN, MAX_HEADERS_LEN, MAX_KEY_LEN, MAX_KEYS,
    MAX_NAME_LEN, MAX_NAMES_LEN, MAX_PARTS, MAX_PEPPERS, MAX_PLAN_NAME_LEN, MAX_POLICY_LEN,
    MAX_PREFIXES, MAX_PROBLEM_LEN, MAX_QUOTAS, MAX_SCOPE_NAME_LEN, MAX_SCOPES, MAX_SECTIONS_LEN,
    MAX_SUBJECTS, MAX_TALLIES, MAX_TEAM_TALLIES, MAX_WARNINGS, MAX_WINDOW_S, MIN_PEPPER_LEN,
};

#[test]
fn limits_page_equals_the_constants() {
    let constants = [
        ("MAX_QUOTAS", MAX_QUOTAS as u64),
        ("MAX_POLICY_LEN", MAX_POLICY_LEN as u64),
        ("MAX_SECTIONS_LEN", MAX_SECTIONS_LEN as u64),
        ("MAX_TALLIES", MAX_TALLIES as u64),
        ("MAX_TEAM_TALLIES", MAX_TEAM_TALLIES as u64),
        ("MAX_GROUP_NAME_LEN", MAX_GROUP_NAME_LEN as u64),
        ("MAX_WARNINGS", MAX_WARNINGS as u64),
        ("MAX_PREFIXES", MAX_PREFIXES as u64),
        ("MAX_WINDOW_S", u64::from(MAX_WINDOW_S)),
        ("MAX_PARTS", MAX_PARTS as u64),
        ("MAX_KEYS", u64::from(MAX_KEYS)),
        ("MAX_ENVS", MAX_ENVS as u64),
        ("MAX_SCOPES", MAX_SCOPES as u64),
        ("MAX_SCOPE_NAME_LEN", MAX_SCOPE_NAME_LEN as u64),
        ("MAX_PLAN_NAME_LEN", MAX_PLAN_NAME_LEN as u64),
        ("IMPORT_GROUP", u64::from(IMPORT_GROUP)),
        ("IMPORTED_KEY_LEN", IMPORTED_KEY_LEN.start as u64),
        ("MAX_PEPPERS", MAX_PEPPERS as u64),
        ("MIN_PEPPER_LEN", MIN_PEPPER_LEN as u64),
        ("MAX_KEY_LEN", MAX_KEY_LEN as u64),
        ("MAX_NAME_LEN", MAX_NAME_LEN as u64),
        ("MAX_NAMES_LEN", MAX_NAMES_LEN as u64),
        ("MAX_SUBJECTS", u64::from(MAX_SUBJECTS)),
        ("BUCKET_SLOTS", BUCKET_SLOTS as u64),
        ("LOCK_SPINS", u64::from(LOCK_SPINS)),
        ("MAX_HEADERS_LEN", MAX_HEADERS_LEN as u64),
        ("MAX_PROBLEM_LEN", MAX_PROBLEM_LEN as u64),
        ("MAX_COMPOUND_HEADERS_LEN", MAX_COMPOUND_HEADERS_LEN as u64),
        ("MAX_COMPOUND_PROBLEM_LEN", MAX_COMPOUND_PROBLEM_LEN as u64),
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
    assert_eq!(IMPORTED_KEY_LEN.end, 257);
}
