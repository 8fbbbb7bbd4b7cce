//! Tests every bound of LIMITS.md one below, at, and one above it, and tables that are full to the
//! last slot.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use keytally_core::{
    AddressPolicy, AdminError, BUCKET_SLOTS, CacheLine, Compound, CreateError, Gate, GateConfig,
    IMPORT_GROUP, IMPORTED_KEY_LEN, Key, KeyId, LOCK_SPINS, Limiter, MAX_COMPOUND_HEADERS_LEN,
    MAX_COMPOUND_PROBLEM_LEN, MAX_ENVS, MAX_GROUP_NAME_LEN, MAX_HEADERS_LEN, MAX_KEY_LEN, MAX_KEYS,
    MAX_NAME_LEN, MAX_NAMES_LEN, MAX_PARTS, MAX_PEPPERS, MAX_PLAN_NAME_LEN, MAX_POLICY_LEN,
    MAX_PREFIXES, MAX_PROBLEM_LEN, MAX_QUOTAS, MAX_SCOPE_NAME_LEN, MAX_SCOPES, MAX_SECTIONS_LEN,
    MAX_SUBJECTS, MAX_TALLIES, MAX_TEAM_TALLIES, MAX_WARNINGS, MAX_WINDOW_S, MIN_PEPPER_LEN, Name,
    NewKey, Outcome, ParsePolicyErrorKind, Part, Pepper, Peppers, Plan, Policy, Reason, Sections,
    Timestamp, Verdict, Window, check_all, parse_key,
};

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use support::{
    at, check, config, entropy, limiter, memory, name, new_key, peppers, plan, refusing_limiter,
};

const NOW: Timestamp = at(0);

/// Each bound, by its name in LIMITS.md, and the function that tests it one below, at, and one
/// above.
const CASES: &[(&str, fn())] = &[
    ("`MAX_QUOTAS`", quotas_of_a_policy),
    ("`MAX_POLICY_LEN`", length_of_a_policy),
    ("`MAX_SECTIONS_LEN`", length_of_sections),
    ("`MAX_TALLIES`", tallies_of_a_plan),
    ("`MAX_TEAM_TALLIES`", tallies_of_a_team),
    ("`MAX_GROUP_NAME_LEN`", length_of_a_groups_name),
    ("`MAX_WARNINGS`", warnings_of_a_quota),
    ("`MAX_PREFIXES`", prefixes_of_a_policy),
    ("a prefix of a policy for addresses", length_of_a_prefix),
    ("`MAX_WINDOW_S`", length_of_a_window),
    ("a limit", limits),
    ("`MAX_PARTS`", parts_of_a_compound_charge),
    ("a cost", costs),
    ("a time", times),
    ("`MAX_KEYS`", keys_of_a_gate),
    ("`MAX_ENVS`", environments),
    ("`MAX_SCOPES`", scopes_of_a_gate),
    ("`MAX_SCOPE_NAME_LEN`", length_of_a_scopes_name),
    ("teams", teams_of_a_gate),
    ("`MAX_PLAN_NAME_LEN`", length_of_a_plans_name),
    ("plans", plans),
    ("`IMPORT_GROUP`", imported_keys),
    ("`IMPORTED_KEY_LEN`", length_of_an_imported_key),
    ("secrets of a key", secrets_of_a_key),
    ("`MAX_PEPPERS`", peppers_in_use),
    ("`MIN_PEPPER_LEN`", length_of_a_pepper),
    ("`MAX_KEY_LEN`", length_of_a_key),
    ("`MAX_NAME_LEN`", length_of_a_name),
    ("`MAX_NAMES_LEN`", length_of_both_names),
    ("`MAX_SUBJECTS`", subjects_of_a_limiter),
    ("`BUCKET_SLOTS`", slots_of_a_bucket),
    ("`LOCK_SPINS`", spins_for_a_lock),
    ("`MAX_HEADERS_LEN`", length_of_the_headers),
    ("`MAX_PROBLEM_LEN`", length_of_a_problem),
    ("`MAX_COMPOUND_HEADERS_LEN`", length_of_a_compounds_headers),
    ("`MAX_COMPOUND_PROBLEM_LEN`", length_of_a_compounds_problem),
    ("a subject", length_of_a_subject),
    ("an account", accounts),
    ("expiry and grace", expiry_and_grace),
];

/// The bounds of the program `keytally`, which its own tests cover.
const OF_THE_PROGRAM: &[&str] = &[
    "connections of the service",
    "connections of a client address",
    "connections of `--metrics-listen`",
    "connections of `--keys`",
    "HTTP/2 connections of the service",
    "a client without progress",
    "the head of a request",
    "requests of an HTTP/2 connection",
    "resets of an HTTP/2 connection",
    "buffers of an HTTP/2 connection",
    "socket buffers of the service",
    "the service's memory",
    "a name in the list of keys; a note",
    "the body of a request to the list of keys",
    "keys, entries or teams of an answer of the list",
    "keys that one request revokes",
    "an `Idempotency-Key`",
    "buckets of usage in an answer",
    "failed sign-ins to the page of keys from an address",
    "a session of the page",
    "a one-time link; an invitation",
    "a page that was opened without a session",
    "refused codes and passkeys of an account in the log of a team",
    "a request to a passkey",
    "sign-ins with a passkey that an address begins",
    "passkeys of a member of a team",
    "keys on a page of the list, and revoked together there",
    "people, and keys, whose names have the text in a filter of the page *Log*",
    "the longest lifetime that a team can set",
    "a sample of the uses of keys",
    "keys that the page counts",
    "keys that a search finds by one hint",
    "keys of a sample that have buckets of minutes",
    "the lead of a service that adds uses",
    "admin tokens",
    "a change of the list",
    "wrong keys and tokens of a client address",
    "a lease request of a fleet",
    "a lease request that the store cannot execute",
    "idle units of a machine in a fleet",
    "machines that one lease request recalls units from",
    "a request's wait for credits of a fleet",
    "an agent's heartbeat",
    "tallies of a fleet file",
    "the name of a fleet",
    "hosts of a store's URL",
    "a password file of a store",
    "a connection of an agent, a reply of its store",
    "a pause of an agent before the next connection",
    "lease requests of a pipeline of an agent",
    "lease requests of an agent",
    "replicas that must confirm a grant (`--confirm`)",
    "the confirmation of grants by replicas",
    "messages of the store that wait for an agent",
    "a change of a key in a fleet",
    "keys that an agent reads or writes at once",
    "bytes of a sealed record",
    "an ended key in the store of a fleet",
    "former keys that an agent remembers",
    "an agent of a fleet that has not reported for 3000 ms",
    "keys of a gate that are compared with those of a fleet",
    "the text that says where a machine is",
    "machines that a fleet file names",
    "keys of the store that a fleet file names",
    "a command that waits for other machines",
    "a jump of the store's clock against the machine's",
    "client addresses whose wrong keys are counted",
    "settled charges that the service remembers",
    "a lifetime of charges",
    "keys whose denied requests the service counts",
    "the service's stop",
    "the service's log",
    "the filter of `keytally top`",
    "a key read from standard input",
];

/// The bounds of the host crate, which its own tests cover.
const OF_THE_HOST: &[&str] = &[
    "a wait for another administrator",
    "changes under one lock in `administer_each`, `keytally import`, `import_keys`",
    "a start of the service that waits for another one in the same folder",
    "a replaced gate file",
    "a pepper file",
];

/// The bounds of the Python module and of the nginx module, which their own tests cover.
const OF_THE_ADAPTERS: &[&str] = &[
    "an IPv6 prefix that counts as one client in Python and Node.js",
    "a cost in the web integrations for Python and Node.js",
    "replaced files of a gate whose names of plans verdicts in Node.js know",
    "a time in Node.js",
    "encodings of a path that may be exempt",
    "files of a storage for the package `limits`",
    "a count of the strategy `fixed-window`",
    "interpreters of a process that may import `keytally`",
    "an IPv6 prefix that counts as one client in nginx",
    "a cost in nginx",
    "gates and zones in nginx",
    "limits of a location in nginx",
    "groups of a location in nginx",
];

/// The bounds of the library for C, which its own tests cover.
const OF_THE_C_LIBRARY: &[&str] = &[
    "a limiter's handle in C",
    "a gate's handle in C",
    "a table's memory in C",
    "plans of a gate in memory made from C",
    "a key as C gets it",
];

#[test]
fn every_bound_of_the_page_has_a_case() {
    let page = include_str!("../../LIMITS.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    let named: Vec<&str> = rows.map(|(name, _)| name).skip(1).collect();
    let elsewhere = OF_THE_PROGRAM
        .iter()
        .chain(OF_THE_C_LIBRARY)
        .chain(OF_THE_HOST)
        .chain(OF_THE_ADAPTERS)
        .copied();
    let cases: Vec<&str> = CASES.iter().map(|(name, _)| *name).chain(elsewhere).collect();
    assert_eq!(cases, named, "the cases (left) are the rows of the page (right), in its order");
}

#[test]
fn every_bound_holds_one_below_at_and_one_above() {
    for (name, case) in CASES {
        println!("{name}");
        case();
    }
}

// Helpers.

/// The policy of a valid text.
fn policy(text: &str) -> Policy {
    text.parse().unwrap()
}

/// The kind of the error of an invalid policy text.
fn policy_error(text: &str) -> ParsePolicyErrorKind {
    text.parse::<Policy>().unwrap_err().kind()
}

/// A gate with hints and one plan.
fn gate(keys: u32, policy: &str) -> Gate<Vec<CacheLine>> {
    support::gate(&config(keys, &[plan("default", policy)]).with_hints(true))
}

fn issue(gate: &Gate<Vec<CacheLine>>, number: u64) -> Result<(Key, KeyId), AdminError> {
    gate.administer().unwrap().issue(&new_key(), entropy(number), NOW)
}

fn check_text(gate: &Gate<Vec<CacheLine>>, text: &[u8]) -> Verdict {
    gate.check(Some(text), 1, NOW)
}

// Policies.

fn quotas_of_a_policy() {
    let quotas = ["1/s", "1/m", "1/h", "1/d", "1/2d"];
    for count in [MAX_QUOTAS - 1, MAX_QUOTAS] {
        assert_eq!(policy(&quotas[..count].join(", ")).quotas().len(), count);
    }
    assert_eq!(policy_error(&quotas.join(", ")), ParsePolicyErrorKind::TooManyQuotas);
}

fn length_of_a_policy() {
    let text = |len: usize| format!("{:>len$}", "5/minute");
    for len in [MAX_POLICY_LEN - 1, MAX_POLICY_LEN] {
        assert_eq!(policy(&text(len)), policy("5/minute"));
    }
    assert_eq!(
        policy_error(&text(MAX_POLICY_LEN + 1)),
        ParsePolicyErrorKind::TooLong { max: MAX_POLICY_LEN }
    );
}

fn sections(text: &str) -> Result<Sections, ParsePolicyErrorKind> {
    Sections::from_text(text)
}

fn length_of_sections() {
    let text = |len: usize| format!("{:>len$}", "5/minute");
    for len in [MAX_SECTIONS_LEN - 1, MAX_SECTIONS_LEN] {
        assert_eq!(sections(&text(len)), sections("5/minute"));
    }
    let max = MAX_SECTIONS_LEN;
    assert_eq!(sections(&text(max + 1)), Err(ParsePolicyErrorKind::TooLong { max }));
}

/// The text of a plan with this many groups, which takes one tally more.
fn with_groups(groups: usize) -> String {
    let groups: String = (0..groups).map(|number| format!("; group g{number}: 9/day")).collect();
    format!("9/day{groups}")
}

fn tallies_of_a_plan() {
    for tallies in [1, MAX_TALLIES - 1, MAX_TALLIES] {
        assert_eq!(sections(&with_groups(tallies - 1)).unwrap().iter().count(), tallies);
    }
    let above = sections(&with_groups(MAX_TALLIES));
    assert_eq!(above, Err(ParsePolicyErrorKind::TooManyTallies));
}

fn tallies_of_a_team() {
    // The limit of a second and the largest of an hour take a tally each.
    let team = |tallies: usize| {
        let windows = ["4294967295/2d", "4294967295/3d", "4294967295/5d"];
        sections(&format!("9/day; team: {}", windows[..tallies].join(", ")))
    };
    for tallies in 1..=MAX_TEAM_TALLIES {
        assert_eq!(team(tallies).unwrap().iter().nth(1).unwrap().quotas().len(), tallies);
    }
    let above = team(MAX_TEAM_TALLIES + 1);
    assert_eq!(above, Err(ParsePolicyErrorKind::TooManyTeamTallies));
}

fn length_of_a_groups_name() {
    let named = |len: usize| sections(&format!("9/day; group {}: 9/day", "g".repeat(len)));
    for len in [1, MAX_GROUP_NAME_LEN - 1, MAX_GROUP_NAME_LEN] {
        assert!(named(len).is_ok(), "{len}");
    }
    for len in [0, MAX_GROUP_NAME_LEN + 1] {
        assert_eq!(named(len), Err(ParsePolicyErrorKind::Section), "{len}");
    }
}

fn warnings_of_a_quota() {
    let warned = |count: usize| {
        let percents = ["50%", "60%", "70%"];
        sections(&format!("9/day warn {}", percents[..count].join(" ")))
    };
    for count in 1..=MAX_WARNINGS {
        assert!(warned(count).is_ok(), "{count}");
    }
    for count in [0, MAX_WARNINGS + 1] {
        assert_eq!(warned(count), Err(ParsePolicyErrorKind::Warning), "{count}");
    }
}

/// Parses a policy for addresses with these prefixes.
fn prefixes(numbers: &[u8]) -> Result<usize, ParsePolicyErrorKind> {
    let list: Vec<_> = numbers.iter().map(|number| format!("/{number} 9/day")).collect();
    let policy = format!("addresses: {}", list.join("; ")).parse::<AddressPolicy>();
    policy.map(|policy| policy.iter().count()).map_err(|error| error.kind())
}

fn prefixes_of_a_policy() {
    let numbers = [64, 60, 56, 52, 48];
    for count in [1, MAX_PREFIXES - 1, MAX_PREFIXES] {
        assert_eq!(prefixes(&numbers[..count]), Ok(count));
    }
    assert_eq!(prefixes(&numbers[..=MAX_PREFIXES]), Err(ParsePolicyErrorKind::Prefix));
}

fn length_of_a_prefix() {
    for number in [33, 34, 63, 64] {
        assert_eq!(prefixes(&[number]), Ok(1), "{number}");
    }
    for number in [0, 32, 65, u8::MAX] {
        assert_eq!(prefixes(&[number]), Err(ParsePolicyErrorKind::Prefix), "{number}");
    }
}

/// The size of a gate with these scopes, if it is possible.
fn scoped(scopes: &[String]) -> Result<usize, CreateError> {
    let (plans, scopes) =
        ([plan("default", "9/day")], scopes.iter().map(String::as_str).collect::<Vec<_>>());
    config(4, &plans).with_scopes(&scopes).validate()
}

fn scopes_of_a_gate() {
    let many: Vec<_> = (0..=MAX_SCOPES).map(|number| format!("scope{number}")).collect();
    for count in [1, MAX_SCOPES - 1, MAX_SCOPES] {
        assert!(scoped(&many[..count]).is_ok(), "{count}");
    }
    assert_eq!(scoped(&many), Err(CreateError::Scopes { index: MAX_SCOPES }));
    // The last one has the highest bit.
    let names: Vec<_> = many[..MAX_SCOPES].iter().map(String::as_str).collect();
    let plans = [plan("default", "9/day")];
    let gate = support::gate(&config(4, &plans).with_scopes(&names));
    assert_eq!(gate.scope_bit(names[MAX_SCOPES - 1]), Some(1 << 63));
    assert_eq!(gate.scopes().count(), MAX_SCOPES);
}

fn length_of_a_scopes_name() {
    for len in [1, MAX_SCOPE_NAME_LEN - 1, MAX_SCOPE_NAME_LEN] {
        assert!(scoped(&["s".repeat(len)]).is_ok(), "{len}");
    }
    for len in [0, MAX_SCOPE_NAME_LEN + 1] {
        assert_eq!(scoped(&["s".repeat(len)]), Err(CreateError::Scopes { index: 0 }), "{len}");
    }
}

fn teams_of_a_gate() {
    let plans = [plan("default", "9/day; team: 9/day")];
    let size = |teams| config(4, &plans).with_teams(teams).validate();
    for teams in [1, MAX_KEYS - 1, MAX_KEYS] {
        assert!(size(teams).is_ok(), "{teams}");
    }
    for teams in [0, MAX_KEYS + 1] {
        assert_eq!(size(teams), Err(CreateError::Teams { teams }));
    }
    let gate = support::gate(&config(4, &plans).with_teams(2));
    let issue = |account, number| {
        let mut new = new_key();
        new.account = account;
        gate.administer().unwrap().issue(&new, entropy(number), NOW).map(|_| ())
    };
    assert_eq!((issue(1, 1), issue(2, 2)), (Ok(()), Ok(())));
    assert_eq!(issue(3, 3), Err(AdminError::TeamsFull { teams: 2 }));
    assert_eq!(issue(2, 4), Ok(()));
}

/// The refusal of a request with as many tallies and as long names as possible.
fn longest_refusal() -> Compound {
    let names: Vec<_> = (0..6).map(|number| format!("{number}bcdefghijklmnop")).collect();
    let quotas = "99/2678397s, 99/2678398s, 99/2678399s, 99/month@31";
    let groups: String = names.iter().map(|name| format!("; group {name}: 99/2678399s")).collect();
    let text = format!("{quotas}; team: {quotas}{groups}");
    let plans = [plan("default", &text)];
    let gate = support::gate(&config(4, &plans).with_teams(1));
    let (key, _) = gate.administer().unwrap().issue(&new_key(), entropy(1), NOW).unwrap();
    let mut part = gate.part(Some(key.expose().as_bytes()), u32::MAX);
    for name in &names {
        part = part.with_group(name).unwrap();
    }
    part.check(NOW)
}

fn length_of_a_compounds_headers() {
    let headers = longest_refusal().headers();
    assert!(headers.iter().count() > 4 && headers.as_bytes().len() < MAX_COMPOUND_HEADERS_LEN);
}

fn length_of_a_compounds_problem() {
    let problem = longest_refusal().problem();
    assert!(problem.ends_with("\"]}") && problem.len() < MAX_COMPOUND_PROBLEM_LEN);
}

fn length_of_a_window() {
    for seconds in [1, MAX_WINDOW_S - 1, MAX_WINDOW_S] {
        assert_eq!(Window::from_seconds(seconds).unwrap().seconds(), seconds);
        assert_eq!(policy(&format!("1/{seconds}s")).quotas()[0].window.seconds(), seconds);
    }
    for seconds in [0, MAX_WINDOW_S + 1, u32::MAX] {
        assert_eq!(Window::from_seconds(seconds), None);
        assert_eq!(policy_error(&format!("1/{seconds}s")), ParsePolicyErrorKind::Window);
    }
}

/// Returns the largest limit for which the policy `text(limit)` fits the 64 bits of a tally.
fn largest(text: impl Fn(u32) -> String) -> u32 {
    let (mut fits, mut too_large) = (0, u64::from(u32::MAX) + 1);
    while too_large - fits > 1 {
        let limit = fits.midpoint(too_large);
        match text(u32::try_from(limit).unwrap()).parse::<Policy>() {
            Ok(_) => fits = limit,
            Err(error) => {
                assert!(
                    matches!(error.kind(), ParsePolicyErrorKind::TooManyBits { .. }),
                    "{error}"
                );
                too_large = limit;
            }
        }
    }
    u32::try_from(fits).unwrap()
}

/// Spends limits of 1, of 2, of the largest and of one below it, in policies of one to four
/// windows. A limit that is one above the largest is rejected.
fn limits() {
    assert_eq!(policy_error("0/minute"), ParsePolicyErrorKind::Limit);
    assert_eq!(policy_error("4294967296/minute"), ParsePolicyErrorKind::Limit);
    let shapes: [fn(u32) -> String; 7] = [
        |limit| format!("{limit}/day"),
        |limit| format!("{limit}/31d"),
        |limit| format!("sliding {limit}/hour"),
        |limit| format!("{limit}/minute, {limit}/hour"),
        |limit| format!("sliding {limit}/minute, {limit}/hour"),
        |limit| format!("{limit}/s, {limit}/m, {limit}/h, {limit}/d"),
        |limit| format!("sliding {limit}/s, {limit}/m, {limit}/h, {limit}/d"),
    ];
    for shape in shapes {
        let largest = largest(shape);
        println!("{}", shape(largest));
        if let Some(above) = largest.checked_add(1) {
            let error = policy_error(&shape(above));
            assert!(
                matches!(error, ParsePolicyErrorKind::TooManyBits { needed: 65.. }),
                "{error:?}"
            );
        }
        for limit in [1, 2, largest - 1, largest] {
            spend_to_the_last_unit(&shape(limit), limit);
        }
    }
}

/// Asserts that a key and a subject can spend a limit to its last unit, and no more.
fn spend_to_the_last_unit(text: &str, limit: u32) {
    let (limiter, gate) = (limiter(text, 4), gate(4, text));
    let key = issue(&gate, 0).unwrap().0;
    let tables: [&dyn Fn(u32, Timestamp) -> Verdict; 2] =
        [&|cost, now| limiter.check(b"subject", cost, now), &|cost, now| {
            gate.check(Some(key.expose().as_bytes()), cost, now)
        }];
    for check in tables {
        let outcome = |cost| {
            let verdict = check(cost, NOW);
            (verdict.outcome(), verdict.remaining().unwrap())
        };
        if let Some(above) = limit.checked_add(1) {
            assert_eq!(outcome(above), (Outcome::TooCostly, limit), "{text}");
            assert_eq!(outcome(u32::MAX), (Outcome::TooCostly, limit), "{text}");
        }
        assert_eq!(outcome(0), (Outcome::Admitted, limit), "{text}");
        assert_eq!(outcome(limit - 1), (Outcome::Admitted, 1), "{text}");
        if limit > 1 {
            assert_eq!(outcome(2), (Outcome::Denied, 1), "{text}");
            assert_eq!(outcome(limit), (Outcome::Denied, 1), "{text}");
        }
        assert_eq!(outcome(1), (Outcome::Admitted, 0), "{text}");
        assert_eq!(outcome(0), (Outcome::Admitted, 0), "{text}");
        assert_eq!(outcome(1), (Outcome::Denied, 0), "{text}");
        assert_eq!(outcome(limit), (Outcome::Denied, 0), "{text}");
        // When all windows have passed, one request can spend the whole limit again.
        let later = Timestamp::from_unix_s(NOW.unix_s() + 2 * u64::from(MAX_WINDOW_S));
        assert_eq!(check(limit, later).outcome(), Outcome::Admitted, "{text}");
        assert_eq!(check(1, later).outcome(), Outcome::Denied, "{text}");
    }
}

fn parts_of_a_compound_charge() {
    let limiter = limiter("100/minute", 64);
    for count in [0, 1, MAX_PARTS - 1, MAX_PARTS, MAX_PARTS + 1] {
        let parts: Vec<_> =
            (0..count).map(|number| limiter.part(&number.to_le_bytes(), 1)).collect();
        let parts: Vec<&dyn Part<Timestamp>> =
            parts.iter().map(|part| part as &dyn Part<_>).collect();
        let charged = check_all(&parts, NOW);
        assert_eq!(charged.is_ok(), (1..=MAX_PARTS).contains(&count), "{count}");
    }
    assert_eq!(limiter.live_subjects(NOW), MAX_PARTS as u64, "a ninth part charges nothing");
}

fn costs() {
    for text in ["10/minute", "sliding 10/minute", "10/s, 10/m, 10/h, 10/d"] {
        let limiter = limiter(text, 8);
        let outcome = |subject: &[u8], cost| limiter.check(subject, cost, NOW).outcome();
        for (cost, expected) in [
            (0, Outcome::Admitted),
            (1, Outcome::Admitted),
            (9, Outcome::Admitted),
            (10, Outcome::Admitted),
            (11, Outcome::TooCostly),
            (u32::MAX - 1, Outcome::TooCostly),
            (u32::MAX, Outcome::TooCostly),
        ] {
            assert_eq!(outcome(&cost.to_le_bytes(), cost), expected, "{text}: {cost}");
        }
        // The costs 1, 9 and 10 took a slot each. A request of cost 0 takes none.
        assert_eq!(limiter.live_subjects(NOW), 3, "{text}");
    }
    // If the limit is `u32::MAX`, no cost is above it.
    let limiter = limiter("4294967295/day", 8);
    assert_eq!(limiter.check(b"a", u32::MAX, NOW).outcome(), Outcome::Admitted);
    assert_eq!(limiter.check(b"a", u32::MAX, NOW).outcome(), Outcome::Denied);
}

fn times() {
    for text in ["1/s", "2/minute, 9/hour", "sliding 3/hour", "sliding 1/s, 1/m, 1/h, 1/d", "1/31d"]
    {
        let layout = *policy(text).layout();
        let unit_ms = u64::from(layout.windows()[0].seconds()) * 1000;
        // The largest stamp is that of reservations, so later moments have the stamp before it.
        let last_ms = ((1 << layout.stamp_bits()) - 2) * unit_ms;
        assert!(last_ms / 1000 >= 7_258_118_400, "{text}: the year 2200 is reached");
        for at in
            [0, 1, last_ms - 1, last_ms, last_ms + 1, last_ms + unit_ms, u64::MAX - 1, u64::MAX]
        {
            let limiter = limiter(text, 8);
            let limit = policy(text).quotas()[0].limit;
            let now = Timestamp::from_unix_ms(at);
            let admitted =
                (0..limit + 3).filter(|_| limiter.check(b"a", 1, now).is_admitted()).count();
            assert_eq!(admitted, limit as usize, "{text} at {at}");
            let verdict = limiter.check(b"a", 1, now);
            assert_eq!(verdict.outcome(), Outcome::Denied);
            assert!(verdict.headers().as_str().len() < MAX_HEADERS_LEN);
        }
        // After `last_ms`, windows no longer pass.
        let limiter = limiter(text, 8);
        let limit = policy(text).quotas()[0].limit;
        let at = |ms| Timestamp::from_unix_ms(ms);
        assert!(limiter.check(b"a", limit, at(last_ms)).is_admitted());
        assert_eq!(limiter.check(b"a", 1, at(u64::MAX)).outcome(), Outcome::Denied, "{text}");
    }
}

// Gates.

fn keys_of_a_gate() {
    let plans = [plan("default", "1/minute")];
    let create = |keys| {
        let none: &[CacheLine] = &[];
        Gate::init(none, &config(keys, &plans), peppers(&[1])).unwrap_err()
    };
    for keys in [1, MAX_KEYS - 1, MAX_KEYS] {
        assert!(
            matches!(create(keys), CreateError::Size { lines: 0, .. }),
            "{keys} keys are accepted, and the memory is too small"
        );
    }
    for keys in [0, MAX_KEYS + 1, u32::MAX] {
        assert_eq!(create(keys), CreateError::Capacity { capacity: keys, max: MAX_KEYS });
    }
    // At capacity, every record holds a key. The next key is refused, and existing keys stay
    // valid.
    for keys in [1, 2, 7, 64, 1000] {
        let gate = gate(keys, "2/minute");
        let issued: Vec<(Key, KeyId)> =
            (0..u64::from(keys)).map(|number| issue(&gate, number).unwrap()).collect();
        for number in 0..20 {
            let full = issue(&gate, 5000 + number).unwrap_err();
            assert_eq!(full, AdminError::Full { keys });
        }
        let import =
            gate.administer().unwrap().import(b"a-foreign-key-of-some-length", &new_key(), NOW);
        assert_eq!(import.unwrap_err(), AdminError::NoRoomToImport);
        for (key, id) in &issued {
            assert!(check(&gate, key, NOW).is_admitted());
            let rotated =
                gate.administer().unwrap().rotate(*id, None, false, entropy(9000), NOW).unwrap();
            assert_eq!(check(&gate, &rotated, NOW).remaining(), Some(0));
            gate.administer().unwrap().assign(*id, "default").unwrap();
        }
        assert_eq!(gate.list(NOW).count(), keys as usize);
        // The record of a revoked key can be reused once all windows of its tally have passed, and
        // not before.
        gate.administer().unwrap().revoke(issued[0].1).unwrap();
        assert_eq!(issue(&gate, 6000).unwrap_err(), AdminError::Full { keys });
        let later = at(120);
        gate.administer().unwrap().issue(&new_key(), entropy(6000), later).unwrap();
        gate.verify(later, |flaw| panic!("{flaw}"));
    }
}

fn environments() {
    let gate = gate(64, "1/minute");
    let issue = |env: usize| {
        let env = format!("e{env}");
        gate.administer().unwrap().issue(
            &NewKey::new(42, name(&env)),
            // Any number that was not used before.
            entropy(env.len() as u64 + 7 * gate.list(NOW).count() as u64),
            NOW,
        )
    };
    for env in 0..MAX_ENVS {
        issue(env).unwrap();
    }
    assert_eq!(issue(MAX_ENVS).unwrap_err(), AdminError::EnvsFull);
    // The first environments stay usable, and nothing was written for the rejected one.
    for env in 0..MAX_ENVS {
        issue(env).unwrap();
    }
    assert_eq!(gate.list(NOW).count(), 2 * MAX_ENVS);
    gate.verify(NOW, |flaw| panic!("{flaw}"));
}

fn length_of_a_plans_name() {
    let named = |len: usize| Plan::new(&"p".repeat(len), policy("1/minute").into());
    for len in [1, MAX_PLAN_NAME_LEN - 1, MAX_PLAN_NAME_LEN] {
        let gate = gate(4, "1/minute");
        gate.administer().unwrap().set_plan(&named(len).unwrap()).unwrap();
        assert_eq!(gate.plan(1).unwrap().name.len(), len);
    }
    assert!(named(0).is_none() && named(MAX_PLAN_NAME_LEN + 1).is_none());
}

fn plans() {
    let many: Vec<Plan> = (0..257).map(|number| plan(&format!("p{number}"), "1/minute")).collect();
    for slots in [1, 2, 3, 255, 256] {
        for count in [1, slots] {
            let config = config(4, &many[..count]).with_plan_slots(slots);
            let gate = support::gate(&config);
            assert_eq!(gate.plan_slots(), slots);
            for plan in &many[count..slots] {
                gate.administer().unwrap().set_plan(plan).unwrap();
            }
            let full = gate.administer().unwrap().set_plan(&many[slots]).unwrap_err();
            assert_eq!(full, AdminError::PlansFull { max: slots });
            // An existing plan can still be changed, and a key can have the last one.
            gate.administer().unwrap().set_plan(&plan("p0", "1/minute")).unwrap();
            assert_eq!(gate.plans().count(), slots);
            let last = format!("p{}", slots - 1);
            let new = new_key().with_plan(&last);
            let (key, _) = gate.administer().unwrap().issue(&new, entropy(1), NOW).unwrap();
            assert!(check(&gate, &key, NOW).is_admitted());
        }
    }
    for (count, slots) in [(0, 4), (5, 4), (257, 257), (1, 257)] {
        let config = config(4, &many[..count]).with_plan_slots(slots);
        let error = Gate::init(memory(config.lines()), &config, peppers(&[1])).unwrap_err();
        assert!(matches!(error, CreateError::Plans { .. }), "{count} of {slots}: {error}");
    }
}

fn foreign(number: usize) -> Vec<u8> {
    format!("foreign-key-number-{number}").into_bytes()
}

fn imported_keys() {
    // A gate of at most two groups: enough keys that may be in its last free record are tried, so
    // every record is taken.
    for keys in [IMPORT_GROUP - 1, IMPORT_GROUP, IMPORT_GROUP + 1] {
        let gate = gate(keys, "1/minute");
        let mut imported = 0;
        for number in 0..200 {
            match gate.administer().unwrap().import(&foreign(number), &new_key(), NOW) {
                Ok(_) => {
                    imported += 1;
                    assert!(check_text(&gate, &foreign(number)).is_admitted());
                }
                Err(error) => {
                    assert_eq!(error, AdminError::NoRoomToImport);
                    assert!(!check_text(&gate, &foreign(number)).is_admitted());
                }
            }
        }
        assert_eq!(imported, keys);
    }
    // In a larger gate, keys can be imported into three quarters of the records.
    let gate = gate(2000 * IMPORT_GROUP, "1/minute");
    for number in 0..usize::try_from(1500 * IMPORT_GROUP).unwrap() {
        gate.administer().unwrap().import(&foreign(number), &new_key(), NOW).unwrap();
    }
}

fn length_of_an_imported_key() {
    let gate = gate(64, "1/minute");
    let import = |len: usize| {
        let text = vec![b'k'; len];
        let done = gate.administer().unwrap().import(&text, &new_key(), NOW);
        (done.map(drop), check_text(&gate, &text).outcome())
    };
    let (shortest, longest) = (IMPORTED_KEY_LEN.start, IMPORTED_KEY_LEN.end - 1);
    for len in [shortest, shortest + 1, longest - 1, longest] {
        assert_eq!(import(len), (Ok(()), Outcome::Admitted), "{len}");
    }
    for len in [0, shortest - 1, longest + 1] {
        assert_eq!(
            import(len),
            (Err(AdminError::NotImportable { len }), Outcome::InvalidKey),
            "{len}"
        );
    }
}

fn peppers_in_use() {
    for count in [1, MAX_PEPPERS - 1, MAX_PEPPERS] {
        let bytes: Vec<[u8; 32]> =
            (0..count).map(|number| [u8::try_from(number).unwrap(); 32]).collect();
        assert!(Peppers::new(&bytes).is_ok());
    }
    let five: Vec<[u8; 32]> =
        (0..=MAX_PEPPERS).map(|number| [u8::try_from(number).unwrap(); 32]).collect();
    assert!(Peppers::new(&five).is_err());
    assert!(Peppers::new::<[u8; 32]>(&[]).is_err());
    // While a gate has keys under four peppers, no key can be issued under a fifth. It can be when
    // the last key under one of the four was revoked.
    let first = gate(16, "1/minute");
    let under = |pepper: u8| Gate::attach(first.memory(), peppers(&[1, pepper])).unwrap();
    let issue = |pepper: u8| {
        under(pepper).administer().unwrap().issue(&new_key(), entropy(pepper.into()), NOW)
    };
    support::issue(&first, &new_key(), entropy(1));
    let ids = [2, 3, 4].map(|pepper| issue(pepper).unwrap().1);
    assert_eq!(issue(5).unwrap_err(), AdminError::PeppersFull);
    assert!(issue(4).is_ok());
    under(2).administer().unwrap().revoke(ids[0]).unwrap();
    assert!(issue(5).is_ok());
}

fn length_of_a_pepper() {
    for len in [MIN_PEPPER_LEN, MIN_PEPPER_LEN + 1, 1000] {
        assert!(Pepper::new(&vec![7; len]).is_ok(), "{len}");
    }
    for len in [0, MIN_PEPPER_LEN - 1] {
        assert!(Pepper::new(&vec![7; len]).is_err(), "{len}");
    }
}

// Keys.

fn mint(prefix: usize, env: usize) -> Option<Key> {
    let name = |len| Name::new(&"n".repeat(len)).unwrap();
    Key::mint(name(prefix), name(env), KeyId::from_number(u64::MAX).unwrap(), &[0xff; 16])
}

fn length_of_a_key() {
    let len = |prefix, env| mint(prefix, env).unwrap().expose().len();
    assert_eq!([len(7, 6), len(8, 6), len(6, 8)], [MAX_KEY_LEN - 1, MAX_KEY_LEN, MAX_KEY_LEN]);
    for (prefix, env) in [(7, 6), (8, 6)] {
        let key = mint(prefix, env).unwrap();
        assert!(parse_key(key.expose().as_bytes()).is_ok());
        // One more byte, at any position, makes it invalid.
        for at in 0..=key.expose().len() {
            let mut longer = key.expose().to_owned();
            longer.insert(at, 'n');
            assert!(parse_key(longer.as_bytes()).is_err(), "{longer}");
        }
    }
}

fn length_of_a_name() {
    for len in [1, MAX_NAME_LEN - 1, MAX_NAME_LEN] {
        assert_eq!(Name::new(&"n".repeat(len)).unwrap().as_str().len(), len);
    }
    for len in [0, MAX_NAME_LEN + 1, 1000] {
        assert!(Name::new(&"n".repeat(len)).is_none());
    }
}

fn length_of_both_names() {
    for prefix in 1..=MAX_NAME_LEN {
        for env in 1..=MAX_NAME_LEN {
            assert_eq!(
                mint(prefix, env).is_some(),
                prefix + env <= MAX_NAMES_LEN,
                "{prefix} and {env}"
            );
        }
    }
    let plans = [plan("default", "1/minute")];
    let gate = support::gate(&GateConfig::new(8, name("prefixes"), &plans));
    let mut administrator = gate.administer().unwrap();
    assert!(administrator.issue(&NewKey::new(42, name("sixsix")), entropy(1), NOW).is_ok());
    let seven =
        administrator.issue(&NewKey::new(42, name("sevenen")), entropy(2), NOW).unwrap_err();
    assert_eq!(seven, AdminError::NamesTooLong);
    assert_eq!(gate.list(NOW).count(), 1);
}

// Limiters.

fn subjects_of_a_limiter() {
    let create = |capacity| {
        let none: &[CacheLine] = &[];
        Limiter::init(none, &policy("1/minute"), capacity, [7; 16]).unwrap_err()
    };
    for capacity in [1, MAX_SUBJECTS - 1, MAX_SUBJECTS] {
        assert!(matches!(create(capacity), CreateError::Size { lines: 0, .. }));
    }
    for capacity in [0, MAX_SUBJECTS + 1, u32::MAX] {
        assert_eq!(create(capacity), CreateError::Capacity { capacity, max: MAX_SUBJECTS });
    }
}

/// A limiter of one bucket: the ninth subject is rejected with the time when there will be room,
/// and finds room then.
fn slots_of_a_bucket() {
    for text in ["2/minute", "sliding 2/minute", "2/s, 2/m, 2/h, 2/d"] {
        let limiter = refusing_limiter(text, 4);
        assert_eq!(limiter.slots_total(), BUCKET_SLOTS as u64);
        for subject in 0..BUCKET_SLOTS {
            assert!(limiter.check(&[u8::try_from(subject).unwrap()], 1, NOW).is_admitted());
        }
        assert_eq!(limiter.live_subjects(NOW), BUCKET_SLOTS as u64);
        let verdict = limiter.check(b"the ninth", 1, NOW);
        assert_eq!((verdict.outcome(), verdict.http_status()), (Outcome::Full, 503));
        let room = verdict.retry_at().unwrap();
        let before = Timestamp::from_unix_ms(room.unix_ms() - 1);
        assert_eq!(limiter.check(b"the ninth", 1, before).outcome(), Outcome::Full, "{text}");
        // No subject was evicted. In a full table, each subject is charged up to its limit and no
        // further.
        for subject in 0..BUCKET_SLOTS {
            let subject = [u8::try_from(subject).unwrap()];
            assert!(limiter.check(&subject, 1, NOW).is_admitted());
            assert_eq!(limiter.check(&subject, 1, NOW).outcome(), Outcome::Denied);
        }
        assert!(limiter.check(b"the ninth", 1, room).is_admitted(), "{text}");
    }
}

/// An inserter waits `LOCK_SPINS` spins for the lock of a stopped holder, and then takes it over.
fn spins_for_a_lock() {
    const { assert!(LOCK_SPINS == 1024) };
    let limiter = limiter("1/minute", 4);
    // The lock word of the only bucket is the first word of the last line. Its lowest bit is set
    // while it is locked.
    let locks = limiter.memory().last().unwrap();
    for abandoned in [1, 3, u64::MAX] {
        locks.store(0, abandoned);
        assert!(limiter.check(&abandoned.to_le_bytes(), 1, NOW).is_admitted());
        assert_eq!(locks.load(0) & 1, 0, "it is unlocked");
        assert_ne!(locks.load(0), abandoned & !1, "the inserter took it over");
    }
}

fn length_of_a_subject() {
    let limiter = limiter("1/minute", 64);
    let long = vec![b's'; 1 << 20];
    let lens = [0, 1, 7, 8, 9, 63, 64, 65, 4096, long.len() - 1, long.len()];
    for len in lens {
        assert!(limiter.check(&long[..len], 1, NOW).is_admitted(), "{len}");
        assert_eq!(limiter.check(&long[..len], 1, NOW).outcome(), Outcome::Denied, "{len}");
    }
    assert_eq!(limiter.live_subjects(NOW), lens.len() as u64);
}

// HTTP.

/// Returns the largest `len` over verdicts with many digits: of long limits and windows, at early
/// and late times. Policies that do not fit the 64 bits of a tally are left out.
fn longest(len: impl Fn(&Verdict) -> usize) -> usize {
    let policies = [
        "4294967295/31d",
        "sliding 1023/2147483s",
        "9/1000003s",
        "99/11111s, 99/111110s, 99/222220s, 99/2222200s",
        "127/s, 127/m, 127/h, 127/d",
        "sliding 7/59s, 7/590s, 7/5900s, 7/590000s",
    ];
    let times = [0, NOW.unix_ms(), u64::MAX / 2, u64::MAX].map(Timestamp::from_unix_ms);
    let mut longest = 0;
    for text in policies.into_iter().filter(|text| text.parse::<Policy>().is_ok()) {
        for now in times {
            let limiter = limiter(text, 4);
            let limit = policy(text).quotas()[0].limit;
            for cost in [0, 1, limit, 1, u32::MAX] {
                longest = longest.max(len(&limiter.check(b"a", cost, now)));
            }
            for subject in 0..20_u8 {
                longest = longest.max(len(&limiter.check(&[subject], 1, now)));
            }
        }
    }
    let gate = gate(4, "1/minute");
    longest.max(len(&gate.check(None, 1, NOW))).max(len(&gate.check(Some(b"x"), 1, NOW)))
}

fn length_of_the_headers() {
    assert!((200..MAX_HEADERS_LEN).contains(&longest(|verdict| verdict.headers().as_str().len())));
    let limiter = limiter("1/minute", 4);
    let verdict = limiter.check(b"a", 1, NOW);
    let len = verdict.headers().as_str().len();
    for room in [0, len - 1] {
        let mut buffer = vec![b'-'; room];
        assert_eq!(verdict.write_headers(&mut buffer).unwrap_err().needed, len);
    }
    for room in [len, len + 1, MAX_HEADERS_LEN] {
        let mut buffer = vec![b'-'; room];
        assert_eq!(verdict.write_headers(&mut buffer), Ok(len));
        assert_eq!(&buffer[..len], verdict.headers().as_str().as_bytes());
    }
}

fn length_of_a_problem() {
    assert!((100..MAX_PROBLEM_LEN).contains(&longest(|verdict| verdict.problem().len())));
    // The document is not cut off.
    let limiter = limiter("1/minute", 4);
    limiter.check(b"a", 1, NOW);
    assert!(limiter.check(b"a", 1, NOW).problem().ends_with('}'));
}

// Accounts, rotation and expiry.

fn accounts() {
    for account in [0, 1, u32::MAX - 1, u32::MAX] {
        let gate = gate(4, "1/minute");
        let new = NewKey::new(account, name("live"));
        let (key, id) = gate.administer().unwrap().issue(&new, entropy(1), NOW).unwrap();
        assert_eq!(check(&gate, &key, NOW).holder().unwrap().account, account);
        assert_eq!(gate.key(id, NOW).unwrap().account, account);
    }
}

fn secrets_of_a_key() {
    let gate = gate(4, "9/s");
    let (first, id) = issue(&gate, 1).unwrap();
    let until = at(60);
    let rotate =
        |force, seed| gate.administer().unwrap().rotate(id, Some(until), force, entropy(seed), NOW);
    let admitted = |key: &Key| gate.check(Some(key.expose().as_bytes()), 0, NOW).is_admitted();
    assert!(admitted(&first));
    let second = rotate(false, 2).unwrap();
    assert!(admitted(&first) && admitted(&second));
    assert_eq!(rotate(false, 3).unwrap_err(), AdminError::InGrace { key_id: id, until });
    assert!(admitted(&first) && admitted(&second));
    let third = rotate(true, 4).unwrap();
    assert!(!admitted(&first) && admitted(&second) && admitted(&third));
}

fn expiry_and_grace() {
    const LAST_S: u64 = u32::MAX as u64;
    for end in [NOW.unix_s() + 1, LAST_S - 1, LAST_S] {
        let gate = gate(4, "9/s");
        let moment = Timestamp::from_unix_s(end);
        let new = new_key().with_expires(moment);
        let (old, id) = gate.administer().unwrap().issue(&new, entropy(1), NOW).unwrap();
        let key =
            gate.administer().unwrap().rotate(id, Some(moment), false, entropy(2), NOW).unwrap();
        let outcomes = |at: u64| {
            [&key, &old].map(|key| {
                let verdict =
                    gate.peek(Some(key.expose().as_bytes()), 1, Timestamp::from_unix_s(at));
                (verdict.outcome(), verdict.reason())
            })
        };
        assert_eq!(outcomes(end - 1), [(Outcome::Admitted, None); 2], "{end}");
        assert_eq!(outcomes(end), [(Outcome::InvalidKey, Some(Reason::Expired)); 2], "{end}");
        assert_eq!(outcomes(end + 1), [(Outcome::InvalidKey, Some(Reason::Expired)); 2], "{end}");
    }
    // Without an expiry, a key never expires. Without a grace, a rotation ends the old secret at
    // once.
    let gate = gate(4, "9/s");
    let (old, id) = issue(&gate, 1).unwrap();
    let key = gate.administer().unwrap().rotate(id, None, false, entropy(2), NOW).unwrap();
    let last = Timestamp::from_unix_ms(u64::MAX);
    assert!(gate.peek(Some(key.expose().as_bytes()), 1, last).is_admitted());
    assert_eq!(check(&gate, &old, NOW).reason(), Some(Reason::Expired));
}
