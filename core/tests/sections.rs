//! Tests of plans with sections: their text, their tallies, teams, scopes and warnings.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "sections")]

use core::cell::Cell;

use keytally_core::{
    AdminError, CacheLine, Clock, Compound, CreateError, Gate, GatePart, KeyId,
    MAX_COMPOUND_HEADERS_LEN, MAX_COMPOUND_PROBLEM_LEN, MAX_SECTIONS_LEN, Outcome,
    ParsePolicyErrorKind, Quota, Reason, RequestError, Sections, Settled, Settlement, TallyVerdict,
    Timestamp, Window,
};

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use support::{at, config, entropy, gate, image, issue, new_key, peppers, plan};

type TestGate = Gate<Vec<CacheLine>>;

const TEXT: &str = "3/minute, 100/month@17; team: 4/minute, 200/month; group write: 2/minute";

/// A gate with the plans `default`, and two teams and scopes.
fn gate_of(text: &str) -> TestGate {
    let plans = [plan("default", text)];
    gate(&config(8, &plans).with_teams(2).with_scopes(&["read", "write"]).with_hints(true))
}

/// A plain gate.
fn gate_of_one(text: &str) -> TestGate {
    gate(&config(8, &[plan("default", text)]))
}

/// Issues a key of an account.
fn key_of(gate: &TestGate, account: u32, number: u64) -> (String, KeyId) {
    let mut new = new_key();
    new.account = account;
    let (key, key_id) = issue(gate, &new, entropy(number));
    (key.expose().to_owned(), key_id)
}

fn part<'g>(gate: &'g TestGate, key: &'g str, cost: u32) -> GatePart<'g, Vec<CacheLine>> {
    gate.part(Some(key.as_bytes()), cost)
}

fn check(part: GatePart<'_, Vec<CacheLine>>, now: Timestamp) -> Compound {
    part.check(now)
}

/// Returns the units left in the shortest window of each tally.
fn left(compound: &Compound) -> Vec<u32> {
    let shortest = |verdict: &keytally_core::Verdict| verdict.quotas().iter().next().unwrap();
    compound.verdicts().map(|verdict| shortest(verdict).remaining).collect()
}

#[test]
fn text_has_one_canonical_form() {
    for (text, canonical) in [
        ("100/minute", "100/minute"),
        ("1000/h,100/m ; team:5000/h", "100/minute, 1000/hour; team: 5000/hour"),
        (
            "1/s; group\twrite : sliding 20/m,1/s",
            "1/second; group write: sliding 1/second, 20/minute",
        ),
        ("unlimited; team: unlimited", "unlimited; team: unlimited"),
        ("9/hour warn 95%, 1/minute  warn 80%  100%", "1/minute warn 80% 100%, 9/hour warn 95%"),
        ("sliding 9/week warn 5%", "sliding 9/7d warn 5%"),
        ("sliding 9/4h warn 90%,1/h warn 5%", "sliding 1/hour warn 5%, 9/4h warn 90%"),
    ] {
        let sections: Sections = text.parse().unwrap();
        assert_eq!(sections.to_string(), canonical);
        assert_eq!(canonical.parse(), Ok(sections), "{canonical}");
    }
}

#[test]
fn section_is_found_by_its_name() {
    let sections: Sections = TEXT.parse().unwrap();
    for (name, limit) in [("key", 3), ("team", 4), ("write", 2)] {
        let section = sections.named(name).unwrap();
        assert_eq!((section.section().name(), section.quotas()[0].limit), (name, limit));
    }
    assert!(sections.named("group write").is_none());
}

/// Returns `count` quotas of different windows.
fn quotas(count: u32) -> String {
    let quotas: Vec<_> = (1..=count).map(|length| format!("1/{length}s")).collect();
    quotas.join(",")
}

#[test]
fn every_error_names_its_part() {
    use ParsePolicyErrorKind as Kind;
    let many = |count: usize| {
        let groups: Vec<_> = (0..count).map(|number| format!("; group g{number}: 1/s")).collect();
        format!("1/s{}", groups.concat())
    };
    let long = format!("1/s{}", " ".repeat(MAX_SECTIONS_LEN - 2));
    // It is short enough, but would be written with `second`, `minute`, `hour` and `day`.
    let four = "99/s warn 1% 2%,99/m warn 1%,99/h warn 1%,99/d warn 1%";
    let sections: Vec<_> = (0..7).map(|number| format!(";group g{number}:{four}")).collect();
    let written_longer = format!("{four}{}", sections.concat());
    assert!(written_longer.len() <= MAX_SECTIONS_LEN, "{}", written_longer.len());
    assert!(many(7).parse::<Sections>().is_ok());
    assert!(format!("{}; group a: {}", quotas(28), quotas(4)).parse::<Sections>().is_ok());
    assert!(long[1..].parse::<Sections>().is_err_and(|error| error.kind() == Kind::Syntax));
    for (text, kind, part) in [
        ("", Kind::Empty, ""),
        ("1/s;", Kind::Section, ""),
        ("1/s; 5/m", Kind::Section, "5/m"),
        ("1/s; teams: 5/m", Kind::Section, "teams: 5/m"),
        ("1/s; group: 5/m", Kind::Section, "group: 5/m"),
        ("1/s; groupx: 5/m", Kind::Section, "groupx: 5/m"),
        ("1/s; group key: 5/m", Kind::Section, "group key: 5/m"),
        ("1/s; group team: 5/m", Kind::Section, "group team: 5/m"),
        ("1/s; group A: 5/m", Kind::Section, "group A: 5/m"),
        ("1/s; group aaaaaaaaaaaaaaaaa: 5/m", Kind::Section, "group aaaaaaaaaaaaaaaaa: 5/m"),
        ("1/s; team: 5/m; team: 5/m", Kind::SectionTwice, "team"),
        ("1/s; group a: 5/m; group a: 1/m", Kind::SectionTwice, "group a"),
        ("1/s; team:", Kind::Empty, "team:"),
        ("1/s; team: 1/x", Kind::Unit, "x"),
        ("1/s; team: 1/m, 2/60s", Kind::Duplicate, "2/minute"),
        ("1/s; team: sliding 1/month", Kind::SlidingMonth, "1/month"),
        ("1/s; team: sliding unlimited", Kind::Syntax, "unlimited"),
        (&written_longer, Kind::TooLong { max: MAX_SECTIONS_LEN }, &written_longer[..32]),
        (&many(8), Kind::TooManyTallies, "1/s"),
        // One of eight sections needs two tallies.
        (&many(7).replacen("1/s", &quotas(5), 1), Kind::TooManyTallies, ""),
        // There is room for 32 quotas: 28 of the key, and four of the group.
        (
            &format!("{}; group a: {}", quotas(28), quotas(5)),
            Kind::TooManyTallies,
            "1/1s,1/2s,1/3s,1/4s,1/5s",
        ),
        (
            "1/s; team: 1/s, 2/2s, 3/3s, 4/4s, 5/5s, 6/6s, 7/7s, 8/8s, 9/9s",
            Kind::TooManyTeamTallies,
            "",
        ),
        ("2147483648/second", Kind::TooManyBits { needed: 65 }, "2147483648/second"),
        ("1/s warn", Kind::Warning, "1/s warn"),
        ("1/s warn 80", Kind::Warning, "1/s warn 80"),
        ("1/s warn 0%", Kind::Warning, "1/s warn 0%"),
        ("1/s warn 101%", Kind::Warning, "1/s warn 101%"),
        ("1/s warn 90% 80%", Kind::Warning, "1/s warn 90% 80%"),
        ("1/s warn 1% 2% 3%", Kind::Warning, "1/s warn 1% 2% 3%"),
        (&long, Kind::TooLong { max: MAX_SECTIONS_LEN }, &long[..32]),
    ] {
        let error = text.parse::<Sections>().expect_err(text);
        assert_eq!((error.kind(), error.part()), (kind, part), "{text}");
        assert!(error.to_string().len() > 30, "{error}");
    }
}

#[test]
fn request_charges_key_team_and_named_groups() {
    let gate = gate_of(TEXT);
    let (ann, _) = key_of(&gate, 42, 1);
    let (bob, _) = key_of(&gate, 42, 2);
    let (eve, _) = key_of(&gate, 43, 3);

    assert_eq!(left(&check(part(&gate, &ann, 1), at(0))), [2, 3]);
    let written = check(part(&gate, &bob, 2).with_group("write").unwrap(), at(0));
    assert_eq!(left(&written), [1, 1, 0]);
    // The team has one unit left, and the group none.
    let denied = check(part(&gate, &bob, 1).with_group("write").unwrap(), at(0));
    let outcomes: Vec<_> = denied.verdicts().map(|verdict| verdict.outcome()).collect();
    assert_eq!(outcomes, [Outcome::Admitted, Outcome::Admitted, Outcome::Denied]);
    assert_eq!((denied.http_status(), denied.retry_after_s()), (429, Some(60)));
    assert_eq!(left(&denied), [1, 1, 0], "nothing was charged");
    // Another account has its own team, and another key its own group.
    assert_eq!(left(&check(part(&gate, &eve, 1).with_group("write").unwrap(), at(0))), [2, 3, 1]);
    assert_eq!(left(&check(part(&gate, &ann, 1), at(0))), [1, 0]);
    let last = gate.check(Some(ann.as_bytes()), 1, at(0));
    assert_eq!((last.outcome(), last.remaining()), (Outcome::Denied, Some(0)));
    // A minute later, only the months still count.
    let later = check(part(&gate, &ann, 1), at(60));
    assert_eq!(left(&later), [2, 3]);
    let months: Vec<_> =
        later.verdicts().map(|verdict| verdict.quotas().iter().last().unwrap().remaining).collect();
    assert_eq!(months, [97, 195]);
}

#[test]
fn group_has_the_cost_of_the_request_or_its_own() {
    let gate = gate_of("9/minute; group write: 9/minute; group tokens: 5000/minute");
    let (key, _) = key_of(&gate, 42, 1);
    let request = |tokens| {
        let request = part(&gate, &key, 2).with_group("write").unwrap();
        check(request.with_group_cost("tokens", tokens).unwrap(), at(0))
    };
    assert_eq!(left(&request(4000)), [7, 7, 1000]);
    assert_eq!(request(1001).outcome(), Outcome::Denied);
    assert_eq!(request(5001).outcome(), Outcome::TooCostly);
    assert_eq!(left(&request(1000)), [5, 5, 0]);
    let missing = part(&gate, &key, 1).with_group("writes").unwrap_err();
    assert_eq!(missing.to_string(), "the plans of this gate have no group \"writes\"");
    assert!(part(&gate, &key, 1).with_group("team").is_err(), "a team is not a group");
    assert!(matches!(missing, RequestError::NoSuchGroup(_)));
}

#[test]
fn quotas_that_do_not_fit_one_tally_are_in_several() {
    let text = "9/second, 99/minute, 999/hour, 9999/day, 99999/month, 1000000000/week";
    let gate = gate_of(&format!("{text}; team: 2147483647/second, 4294967295/month"));
    let (key, key_id) = key_of(&gate, 42, 1);
    let admitted = check(part(&gate, &key, 9), at(0));
    let sections: Vec<_> =
        admitted.tallies().iter().map(|tally| tally.section().unwrap().name()).collect();
    assert_eq!(sections, ["key", "key", "key", "team", "team"]);
    let left: Vec<_> = admitted
        .verdicts()
        .flat_map(|verdict| {
            verdict.quotas().iter().map(|state| state.remaining).collect::<Vec<_>>()
        })
        .collect();
    let expected = [0, 90, 990, 9990, 999_999_991, 99_990, 2_147_483_638, 4_294_967_286];
    assert_eq!(left, expected);
    assert_eq!(check(part(&gate, &key, 1), at(0)).outcome(), Outcome::Denied);
    gate.reset(key_id, at(0)).unwrap();
    assert_eq!(check(part(&gate, &key, 9), at(0)).remaining(), Some(9990));
    let same: Sections = gate.plan(0).unwrap().sections;
    assert_eq!(same.iter().next().unwrap().quotas().len(), 6);
}

#[test]
fn unlimited_section_is_neither_counted_nor_listed() {
    let plans = [
        plan("default", "2/minute; team: 3/minute; group write: unlimited"),
        plan("pro", "unlimited; team: unlimited; group write: 1/minute"),
    ];
    let gate = gate(&config(8, &plans).with_teams(1));
    let pro = new_key().with_plan("pro");
    let (pro, pro_id) = issue(&gate, &pro, entropy(1));
    let pro = pro.expose();
    for _ in 0..9 {
        let admitted = check(part(&gate, pro, 100), at(0));
        assert!(admitted.is_admitted() && admitted.verdicts().count() == 1);
        assert_eq!(admitted.headers().as_str(), "");
        assert_eq!(admitted.holder().unwrap().key_id, pro_id);
    }
    let request = || check(part(&gate, pro, 1).with_group("write").unwrap(), at(0));
    let listed = ("RateLimit-Policy", "\"write-minute\";q=1;w=60");
    assert_eq!(request().headers().iter().next(), Some(listed), "no window of the key");
    assert_eq!(request().outcome(), Outcome::Denied);
    // The plan of the team's first key is that of the team.
    let (other, _) = issue(&gate, &new_key(), entropy(2));
    let admitted = check(part(&gate, other.expose(), 2).with_group("write").unwrap(), at(0));
    assert_eq!(left(&admitted), [0]);
    gate.administer().unwrap().assign_account(42, "default").unwrap();
    assert_eq!(check(part(&gate, pro, 4), at(0)).outcome(), Outcome::TooCostly);
    assert_eq!(check(part(&gate, pro, 3), at(0)).verdicts().count(), 2);
    for (number, plan) in gate.plans() {
        assert_eq!(plan, plans[usize::from(number)]);
    }
}

#[test]
fn header_fields_list_all_tallies() {
    let gate = gate_of("3/minute, 100/month; team: 9/hour; group write: 2/minute");
    let (key, _) = key_of(&gate, 42, 1);
    let request = || check(part(&gate, &key, 2).with_group("write").unwrap(), at(0));
    let headers = request().headers();
    let month_end = 1_701_388_800 - support::NOON_S;
    let expected = format!(
        "X-RateLimit-Limit: 3\r\nX-RateLimit-Remaining: 1\r\nX-RateLimit-Reset: {}\r\n\
         RateLimit-Policy: \"minute\";q=3;w=60, \"month\";q=100;w=2678400, \
         \"team-hour\";q=9;w=3600, \"write-minute\";q=2;w=60\r\n\
         RateLimit: \"minute\";r=1;t=60, \"month\";r=98;t={month_end}, \
         \"team-hour\";r=7;t=3600, \"write-minute\";r=0;t=60\r\n",
        support::NOON_S + 60,
    );
    assert_eq!(headers.as_str(), expected);
    let denied = request();
    assert!(denied.headers().as_str().ends_with("\r\nRetry-After: 60\r\n"));
    assert!(
        denied.problem().ends_with(r#""violated-policies": ["minute", "write-minute"]}"#),
        "{}",
        denied.problem()
    );
    let wrong = check(part(&gate, "kt_live_x", 1), at(0));
    assert!(wrong.headers().as_str().starts_with("WWW-Authenticate: ApiKey"));
    assert_eq!((wrong.http_status(), wrong.remaining()), (401, None));
}

#[test]
fn longest_header_fields_and_problem_fit() {
    let names: Vec<_> = (0..6).map(|number| format!("abcdefghijklmno{number}")).collect();
    let quotas = "99/2678397s, 99/2678398s, 99/2678399s, 99/month@31";
    let groups: Vec<_> = names.iter().map(|name| format!("; group {name}: 4/2678399s")).collect();
    let gate = gate_of(&format!("{quotas}; team: {quotas}{}", groups.concat()));
    let (key, _) = key_of(&gate, 42, 1);
    let mut request = part(&gate, &key, u32::MAX);
    for name in &names {
        request = request.with_group(name).unwrap();
    }
    let denied = check(request, at(0));
    let headers = denied.headers();
    assert!(headers.as_bytes().len() < MAX_COMPOUND_HEADERS_LEN / 2);
    let problem = denied.problem();
    assert!(problem.ends_with("]}") && problem.len() < MAX_COMPOUND_PROBLEM_LEN);
}

#[test]
fn suspended_team_is_refused_at_the_next_check() {
    let gate = gate_of(TEXT);
    let (ann, _) = key_of(&gate, 42, 1);
    let (eve, _) = key_of(&gate, 43, 2);
    let suspend =
        |is_suspended| gate.administer().unwrap().set_suspended(42, is_suspended).unwrap();
    suspend(true);
    let refused = check(part(&gate, &ann, 1), at(0));
    assert_eq!((refused.http_status(), refused.reason()), (401, Some(Reason::Suspended)));
    assert_eq!(gate.check(Some(ann.as_bytes()), 1, at(0)).reason(), Some(Reason::Suspended));
    assert!(check(part(&gate, &eve, 1), at(0)).is_admitted());
    suspend(false);
    assert_eq!(left(&check(part(&gate, &ann, 1), at(0))), [2, 3], "nothing was charged");
    assert!(gate.account(42, at(0)).is_some_and(|info| !info.is_suspended));
    assert!(gate.account(44, at(0)).is_none());
}

#[test]
fn account_has_the_limits_of_its_plan_or_its_own() {
    let gate = gate_of(TEXT);
    let (key, _) = key_of(&gate, 42, 1);
    let team = |now| gate.account(42, now).unwrap().quotas()[0].iter().next().unwrap();
    assert_eq!(team(at(0)).limit, 4);
    let quota = |limit, window| Quota { limit, window };
    let (minute, month) = (Window::from_seconds(60).unwrap(), Window::month(1).unwrap());
    let own = [quota(1, minute), quota(9, month)];
    gate.administer().unwrap().limit_account(42, &own).unwrap();
    assert_eq!(check(part(&gate, &key, 2), at(0)).outcome(), Outcome::TooCostly);
    assert_eq!(left(&check(part(&gate, &key, 1), at(0))), [2, 0]);
    assert_eq!(gate.reset_account(42, at(0)), Some(Outcome::Admitted));
    assert_eq!(gate.reset_account(7, at(0)), None);
    assert_eq!(left(&check(part(&gate, &key, 1), at(0))), [1, 0]);
    let mut admin = gate.administer().unwrap();
    assert_eq!(admin.limit_account(42, &own[..1]), Err(AdminError::PlanWindows));
    assert_eq!(admin.limit_account(42, &[]), Err(AdminError::PlanWindows));
    let above = [quota(u32::MAX, minute), quota(9, month)];
    assert!(matches!(admin.limit_account(42, &above), Err(AdminError::PlanLimit { .. })));
    assert_eq!(admin.limit_account(7, &own), Err(AdminError::NoSuchAccount(7)));
    admin.assign_account(42, "default").unwrap();
    assert_eq!(team(at(0)).limit, 4);
    assert_eq!(team(at(0)).remaining, 3);
}

#[test]
fn team_beyond_the_capacity_is_refused() {
    let gate = gate_of(TEXT);
    let issue = |account, number| {
        let mut new = new_key();
        new.account = account;
        gate.administer().unwrap().issue(&new, entropy(number), at(0)).map(|_| ())
    };
    assert_eq!((issue(1, 1), issue(2, 2), issue(1, 3)), (Ok(()), Ok(()), Ok(())));
    let before = image(gate.memory());
    assert_eq!(issue(3, 4), Err(AdminError::TeamsFull { teams: 2 }));
    // Only the word of the administrator was written meanwhile.
    assert!(image(gate.memory()) == before, "nothing was changed");
    assert_eq!(gate.accounts(at(0)).count(), 2);
}

#[test]
fn scope_is_checked_after_the_secret_and_before_the_charge() {
    let gate = gate_of(TEXT);
    let scoped = new_key().with_scopes(&["read"]);
    let (key, key_id) = issue(&gate, &scoped, entropy(1));
    let key = key.expose();
    let needs = |scope: &str| check(part(&gate, key, 1).with_scope(scope).unwrap(), at(0));
    assert!(needs("read").is_admitted());
    let forbidden = needs("write");
    assert_eq!((forbidden.outcome(), forbidden.http_status()), (Outcome::Forbidden, 403));
    assert_eq!((forbidden.body(), forbidden.headers().as_str()), (r#"{"error": "Forbidden"}"#, ""));
    assert_eq!(forbidden.holder().unwrap().key_id, key_id);
    assert_eq!(left(&needs("read")), [1, 2], "the request that was forbidden charged nothing");
    let wrong = part(&gate, "kt_live_x", 1).with_scope("write").unwrap();
    assert_eq!(check(wrong, at(0)).outcome(), Outcome::InvalidKey);
    assert!(part(&gate, key, 1).with_scope("admin").is_err());

    let mut admin = gate.administer().unwrap();
    admin.set_scopes(key_id, &["write"]).unwrap();
    assert_eq!(admin.set_scopes(key_id, &["admin"]), Err(AdminError::NoSuchScope));
    assert_eq!(needs("read").outcome(), Outcome::Forbidden);
    assert!(needs("write").is_admitted());
    let scopes: Vec<_> = gate.scopes().map(|scope| scope.to_string()).collect();
    assert_eq!(scopes, ["read", "write"]);
}

#[test]
fn warning_is_reported_by_the_charge_that_reaches_it() {
    let gate = gate_of("10/minute warn 75% 100%; team: 20/minute warn 50%");
    let (key, _) = key_of(&gate, 42, 1);
    let crossed = |cost| {
        let compound = check(part(&gate, &key, cost), at(0));
        let named = |(tally, window, percent): (&TallyVerdict, usize, u8)| {
            (tally.section().unwrap().name().to_owned(), window, percent)
        };
        compound.crossed().map(named).collect::<Vec<_>>()
    };
    let key_at = |percent| ("key".to_owned(), 0, percent);
    assert_eq!(crossed(7), []);
    assert_eq!(crossed(1), [key_at(75)]);
    assert_eq!(crossed(1), []);
    assert_eq!(crossed(2), [], "a denied request crosses nothing");
    assert_eq!(crossed(1), [key_at(100), ("team".to_owned(), 0, 50)]);
}

#[test]
fn gate_is_opened_as_it_was_created() {
    let gate = gate_of(TEXT);
    let (key, _) = key_of(&gate, 42, 1);
    check(part(&gate, &key, 1), at(0));
    let again = Gate::attach(gate.memory().as_slice(), peppers(&[1])).unwrap();
    assert_eq!(again.plan(0).unwrap().sections.to_string(), TEXT);
    assert_eq!(again.sections(), gate.sections());
    let verdict = again.part(Some(key.as_bytes()), 1).check(at(0));
    assert_eq!(left(&verdict), [1, 2]);
    let mut flaws = Vec::new();
    again.verify(at(0), |flaw| flaws.push(flaw));
    assert_eq!(flaws, []);
}

#[test]
fn record_of_an_ended_key_is_reused_without_its_counts() {
    let gate = gate_of("9/minute; group write: 9/minute");
    let mut keys = Vec::new();
    for number in 0..8 {
        let (key, key_id) = key_of(&gate, 42, number);
        check(part(&gate, &key, 5).with_group("write").unwrap(), at(0));
        gate.administer().unwrap().revoke(key_id).unwrap();
        keys.push(key);
    }
    let mut admin = gate.administer().unwrap();
    // The group's windows end as those of the key do.
    let full = admin.issue(&new_key(), entropy(9), at(60)).map(|_| ());
    assert_eq!(full, Err(AdminError::Full { keys: 8 }));
    let scoped = new_key().with_scopes(&["read"]);
    let (key, _) = admin.issue(&scoped, entropy(9), at(121)).unwrap();
    let request = part(&gate, key.expose(), 9).with_group("write").unwrap();
    assert!(check(request.with_scope("read").unwrap(), at(121)).is_admitted());
}

#[test]
fn impossible_settings_are_refused() {
    let create = |texts: &[&str], teams, scopes: &[&str]| {
        let plans: Vec<_> =
            (0..).zip(texts).map(|(number, text)| plan(&format!("p{number}"), text)).collect();
        config(8, &plans).with_teams(teams).with_scopes(scopes).validate().map(|_| ())
    };
    assert_eq!(create(&["1/s; team: 1/m"], 0, &[]), Err(CreateError::Teams { teams: 0 }));
    for texts in [
        &["1/s; team: 1/m", "1/s"][..],
        &["1/s", "1/s; team: 1/m"],
        &["1/s; team: 1/m", "1/s; team: 1/h"],
        &["1/s; group a: 1/m", "1/s; group b: 1/m"],
        &["1/s; team: 1/m", "1/s; team: sliding 1/m"],
    ] {
        assert_eq!(create(texts, 1, &[]), Err(CreateError::PlanWindows { index: 1 }), "{texts:?}");
    }
    for scopes in [&["read", "read"][..], &["a", ""], &["a", "a b"], &["a", "a,b", "c"]] {
        let refused = Err(CreateError::Scopes { index: 1 });
        assert_eq!(create(&["1/s"], 0, scopes), refused, "{scopes:?}");
    }
    let gate = gate(&config(8, &[plan("default", "1/minute")]));
    for text in ["1/minute; team: 1/m", "unlimited", "1/minute warn 80%"] {
        let refused = gate.administer().unwrap().set_plan(&plan("default", text));
        assert_eq!(refused, Err(AdminError::PlanWindows), "{text}");
    }
    let extended = gate_of("1/minute; team: 1/minute");
    for text in ["1/minute", "1/hour; team: 1/minute", "1/minute; team: 1/minute; group a: 1/s"] {
        let refused = extended.administer().unwrap().set_plan(&plan("default", text));
        assert_eq!(refused, Err(AdminError::PlanWindows), "{text}");
    }
    let changed = plan("other", "9/minute warn 50%; team: unlimited");
    extended.administer().unwrap().set_plan(&changed).unwrap();
    assert_eq!(extended.plan(1).unwrap(), changed);
}

/// A gate whose key has 9 units a minute, its team 12, the group `write` 9, and `tokens` 5000.
const COSTS: &str = "9/minute; team: 12/minute; group write: 9/minute; group tokens: 5000/minute";

/// Charges two units, to `write` too, and 1000 tokens.
fn costly(gate: &TestGate, key: &str) -> Compound {
    let request = part(gate, key, 2).with_group("write").unwrap();
    check(request.with_group_cost("tokens", 1000).unwrap(), at(0))
}

/// Returns the units left in each tally.
fn all_left(gate: &TestGate, key: &str) -> Vec<u32> {
    let request = part(gate, key, 0).with_group("write").unwrap();
    left(&request.with_group("tokens").unwrap().peek(at(0)))
}

#[test]
fn refund_returns_the_units_of_all_tallies() {
    let gate = gate_of(COSTS);
    let (key, key_id) = key_of(&gate, 42, 1);
    let charge = costly(&gate, &key).charge(0).unwrap();
    assert_eq!(all_left(&gate, &key), [7, 10, 7, 4000]);
    let stored = keytally_core::Charge::from_bytes(&charge.to_bytes()).unwrap();
    gate.refund(key_id, stored, at(1)).unwrap();
    assert_eq!(all_left(&gate, &key), [9, 12, 9, 5000]);
    // In the next minute, nothing of it counts any more.
    gate.refund(key_id, charge, at(60)).unwrap();
    assert_eq!(all_left(&gate, &key), [9, 12, 9, 5000]);
}

#[test]
fn settlement_charges_the_extra_to_all_tallies_or_none() {
    let gate = gate_of(COSTS);
    let (key, key_id) = key_of(&gate, 42, 1);
    let (other, _) = key_of(&gate, 42, 2);
    let charge = costly(&gate, &key).charge(0).unwrap();
    let settle = |settlement: Settlement<'_>| {
        let settled = gate.settle_all(key_id, charge, &settlement, at(0)).unwrap();
        (settled.verdict.uncharged(), settled.uncharged().to_vec())
    };
    assert_eq!(settle(Settlement::new().with_cost(3).with_group("tokens", 400)), (0, vec![0]));
    assert_eq!(all_left(&gate, &key), [6, 9, 6, 4600]);
    // The other key leaves two units of the team, the smallest room.
    assert!(check(part(&gate, &other, 7), at(0)).is_admitted());
    assert_eq!(settle(Settlement::new().with_cost(7)), (3, vec![]));
    assert_eq!(all_left(&gate, &key), [4, 0, 4, 4600]);
    assert_eq!(settle(Settlement::new().with_group("tokens", 6000)), (0, vec![400]));
    assert_eq!(all_left(&gate, &key), [4, 0, 4, 0]);
    // A group without a cost of its own is settled with the request, so this cost is not charged.
    assert_eq!(settle(Settlement::new().with_group("write", 9)), (0, vec![9]));
    assert_eq!(gate.settle(key_id, charge, 1, at(0)).unwrap().uncharged(), 0);
    assert_eq!(all_left(&gate, &key), [5, 1, 5, 0]);
}

#[test]
fn last_cost_of_a_group_is_settled_once() {
    let gate = gate_of(COSTS);
    let (key, key_id) = key_of(&gate, 42, 1);
    let charge = costly(&gate, &key).charge(0).unwrap();
    costly(&gate, &key);
    let before = all_left(&gate, &key);
    let settlement = Settlement::new().with_group("tokens", 7).with_group("tokens", 0);
    gate.settle_all(key_id, charge, &settlement, at(0)).unwrap();
    // The tokens of the other charge stay.
    let tokens = 5000 - before[3];
    assert_eq!(all_left(&gate, &key)[3], 5000 - tokens / 2);
}

#[test]
fn tallies_of_another_gate_are_ignored_in_a_charge() {
    let many = gate_of("9/minute; team: 9/minute; group write: 9/minute");
    let (key, _) = key_of(&many, 42, 1);
    let charged = part(&many, &key, 2).with_group("write").unwrap().check(at(0));
    let charge = charged.charge(0).unwrap();
    let gate = gate_of_one("9/minute");
    let (key, key_id) = key_of(&gate, 42, 1);
    assert!(gate.check(Some(key.as_bytes()), 7, at(0)).is_admitted());
    assert_eq!(gate.refund(key_id, charge, at(0)).unwrap().remaining(), Some(4));
    assert_eq!(gate.settle(key_id, charge, 3, at(0)).unwrap().remaining(), Some(3));
}

#[test]
fn cost_of_a_charge_is_that_of_the_request_itself() {
    let gate = gate_of("unlimited; group tokens: 9/minute; team: 9/minute");
    let (key, key_id) = key_of(&gate, 42, 1);
    let costly = part(&gate, &key, 3).with_group_cost("tokens", 5).unwrap().check(at(0));
    assert_eq!(costly.charge(0).unwrap().cost(), 3);
    let gate_without = gate_of("unlimited; group tokens: 9/minute");
    let (key, _) = key_of(&gate_without, 42, 1);
    let costly = part(&gate_without, &key, 3).with_group_cost("tokens", 5).unwrap().check(at(0));
    assert_eq!(costly.charge(0).unwrap().cost(), 0);
    assert!(gate.key(key_id, at(0)).unwrap().quotas.is_empty(), "the key is unlimited");
}

#[test]
fn overdraft_of_an_unlimited_section_counts_nothing() {
    let gate = gate_of("9/minute; group tokens: 9/minute");
    let (key, key_id) = key_of(&gate, 42, 1);
    let charge = check(part(&gate, &key, 2), at(0)).charge(0).unwrap();
    let set = |text| gate.administer().unwrap().set_plan(&plan("default", text)).unwrap();
    set("unlimited; group tokens: 9/minute");
    let settlement = Settlement::new().with_cost(9).with_overdraw(true);
    gate.settle_all(key_id, charge, &settlement, at(0)).unwrap();
    set("9/minute; group tokens: 9/minute");
    assert_eq!(left(&part(&gate, &key, 0).peek(at(0))), [7]);
}

#[test]
fn overdraft_counts_beyond_the_limit() {
    let gate = gate_of("9/minute, 20/hour");
    let (key, key_id) = key_of(&gate, 42, 1);
    let charge = check(part(&gate, &key, 2), at(0)).charge(0).unwrap();
    let settlement = Settlement::new().with_cost(18).with_overdraw(true);
    let settled = gate.settle_all(key_id, charge, &settlement, at(0)).unwrap();
    assert_eq!(settled.verdict.uncharged(), 0);
    // 18 units of 20 are used in this hour, also when the minute has passed.
    assert_eq!(check(part(&gate, &key, 1), at(0)).retry_after_s(), Some(60));
    assert_eq!(left(&check(part(&gate, &key, 1), at(60))), [8]);
    assert_eq!(check(part(&gate, &key, 2), at(60)).retry_after_s(), Some(3540));
}

#[test]
fn overdraft_above_the_largest_count_is_uncharged() {
    let gate = gate_of("9/minute, 20/hour; team: 20/minute");
    let (key, key_id) = key_of(&gate, 42, 1);
    let charge = check(part(&gate, &key, 2), at(0)).charge(0).unwrap();
    let settlement = Settlement::new().with_cost(u32::MAX).with_overdraw(true);
    // The key's tally has the narrowest counts. Two units are counted.
    let bits = *gate.layout().count_bits().iter().min().unwrap();
    let rest = u64::from(u32::MAX) - ((1 << bits) - 1);
    assert!(rest > 0, "counts of {bits} bits hold the cost");
    let settled = gate.settle_all(key_id, charge, &settlement, at(0)).unwrap();
    assert_eq!(u64::from(settled.verdict.uncharged()), rest);
}

/// Returns the section, the window and the percentage of each warning that a settlement reached.
fn crossed(settled: &Settled) -> Vec<(String, String, u8)> {
    let of = |(tally, window, percent): (&TallyVerdict, usize, u8)| {
        let state = tally.verdict().quotas().get(window).unwrap();
        (tally.section().unwrap().name().to_owned(), state.window.to_string(), percent)
    };
    settled.crossed().map(of).collect()
}

/// A warning of a section's window.
fn warning(section: &str, window: &str, percent: u8) -> (String, String, u8) {
    (section.to_owned(), window.to_owned(), percent)
}

#[test]
fn settlement_reports_the_warnings_that_its_extra_reached() {
    let gate = gate_of(
        "100/minute warn 50% 90%, 1000/hour warn 8%; team: 100/minute warn 60%; \
         group tokens: 1000/minute warn 80% 95%",
    );
    let (key, key_id) = key_of(&gate, 42, 1);
    let request = part(&gate, &key, 40).with_group_cost("tokens", 700).unwrap();
    let charge = check(request, at(0)).charge(0).unwrap();
    let settle =
        |settlement: Settlement<'_>| gate.settle_all(key_id, charge, &settlement, at(0)).unwrap();
    // A refund reaches nothing, and neither does a settlement of a right estimate.
    let less = Settlement::new().with_cost(39).with_group("tokens", 700);
    assert_eq!(crossed(&settle(less)), []);
    // From 39 to 59 units, and from 700 to 960 tokens.
    let more = Settlement::new().with_cost(60).with_group("tokens", 960);
    let both = [warning("key", "minute", 50), warning("tokens", "minute", 80)];
    assert_eq!(crossed(&settle(more)), [&both[..], &[warning("tokens", "minute", 95)]].concat());
    // Each is reported once. Only the rest is charged: from 59 units to 79, and then to 100.
    let expected = [warning("team", "minute", 60)];
    assert_eq!(crossed(&settle(Settlement::new().with_cost(60))), expected);
    let full = settle(Settlement::new().with_cost(80));
    assert_eq!(full.verdict.uncharged(), 19);
    assert_eq!(crossed(&full), [warning("key", "minute", 90), warning("key", "hour", 8)]);
    let sections = full.compound().tallies().iter().map(|tally| tally.section().unwrap().name());
    assert!(sections.eq(["key", "team", "tokens"]));
}

#[test]
fn overdraft_reports_a_warning_once() {
    let gate = gate_of("100/minute warn 80% 100%");
    let (key, key_id) = key_of(&gate, 42, 1);
    let charge = check(part(&gate, &key, 79), at(0)).charge(0).unwrap();
    let settle = |cost| {
        let settlement = Settlement::new().with_cost(cost).with_overdraw(true);
        crossed(&gate.settle_all(key_id, charge, &settlement, at(0)).unwrap())
    };
    assert_eq!(settle(150), [warning("key", "minute", 80), warning("key", "minute", 100)]);
    // The count is above the limit already.
    assert_eq!(settle(99), []);
}

/// A clock that calls a function before its reading with this number.
#[derive(Clone, Copy)]
struct Interrupted<'f>(&'f dyn Fn(), &'f Cell<u32>);

impl Clock for Interrupted<'_> {
    const IS_SYSTEM: bool = false;

    fn reading(self) -> Timestamp {
        let left = self.1.get();
        self.1.set(left.saturating_sub(1));
        if left == 1 {
            (self.0)();
        }
        at(0)
    }

    fn reread(self) -> Option<Timestamp> {
        None
    }
}

#[test]
fn settlement_that_loses_its_room_gives_the_charges_back() {
    // (units of another request of the key meanwhile, whether the settlement reports 50 %)
    for (meanwhile, is_reported) in [(2, true), (1, false)] {
        let gate = gate_of(&format!("10/minute warn 50%; team: {}/minute", 13 + meanwhile));
        let ((key, key_id), (other, _)) = (key_of(&gate, 42, 1), key_of(&gate, 42, 2));
        let charge = check(part(&gate, &key, 3), at(0)).charge(0).unwrap();
        let spend = || {
            // The units of the settlement count, so this request reports nothing.
            let all = check(part(&gate, &key, meanwhile), at(0));
            assert_eq!((all.is_admitted(), all.crossed().count()), (true, 0));
            assert!(check(part(&gate, &other, 10), at(0)).is_admitted());
        };
        // The room of the key and of its team is read, the key is charged, then its team is not.
        let readings = Cell::new(4);
        let clock = Interrupted(&spend, &readings);
        let settlement = Settlement::new().with_cost(6);
        let settled = gate.settle_all(key_id, charge, &settlement, clock).unwrap();
        assert_eq!((settled.verdict.uncharged(), readings.get()), (3, 0));
        assert_eq!(left(&part(&gate, &key, 0).peek(at(0))), [7 - meanwhile, 0]);
        let expected: &[_] = if is_reported { &[warning("key", "minute", 50)] } else { &[] };
        assert_eq!(crossed(&settled), expected);
    }
}

#[test]
fn settlement_without_a_tally_of_the_gate_reports_no_warning() {
    let gate = gate_of("100/minute warn 1%");
    let (key, key_id) = key_of(&gate, 42, 1);
    check(part(&gate, &key, 2), at(0));
    let settlement = Settlement::new().with_group("none", 9);
    let none = keytally_core::Charge::new(0, at(0));
    let settled = gate.settle_all(key_id, none, &settlement, at(0)).unwrap();
    assert_eq!((settled.compound().tallies().len(), crossed(&settled)), (1, vec![]));
}

#[test]
fn settlement_shows_the_first_tally_that_was_charged() {
    let gate = gate_of("unlimited; team: 12/minute");
    let (key, key_id) = key_of(&gate, 42, 1);
    let charge = check(part(&gate, &key, 2), at(0)).charge(0).unwrap();
    let settled = gate.settle(key_id, charge, 5, at(0)).unwrap();
    assert_eq!(settled.remaining(), Some(7));
    assert_eq!(gate.refund(key_id, charge, at(0)).unwrap().remaining(), Some(9));
}

#[test]
fn settlement_ignores_a_limit_that_the_plan_has_lost() {
    let limited = "9/minute; team: 12/minute";
    let gate = gate_of(limited);
    let (key, key_id) = key_of(&gate, 42, 1);
    let charge = check(part(&gate, &key, 2), at(0)).charge(0).unwrap();
    let set = |text| gate.administer().unwrap().set_plan(&plan("default", text)).unwrap();
    set("9/minute; team: unlimited");
    assert_eq!(gate.settle(key_id, charge, 6, at(0)).unwrap().uncharged(), 0);
    set(limited);
    assert_eq!(left(&part(&gate, &key, 0).peek(at(0))), [3, 10]);
}

#[test]
fn record_of_a_plan_that_does_not_exist_admits_nothing() {
    let gate = gate_of("3/minute; group write: 3/minute");
    let (key, key_id) = key_of(&gate, 42, 1);
    // The first line with the key id is that of the redo record.
    let mut lines = gate.memory().iter().rev();
    let line = lines.find(|line| line.load(0) == key_id.number()).unwrap();
    let meta = line.load(7);
    // There is room for four plans, and the gate has one.
    for plan in [1, 3, 4, 255] {
        line.store(7, (meta & !0xff00) | plan << 8);
        let request = || part(&gate, &key, 1).with_group("write").unwrap();
        assert_eq!(check(request(), at(0)).outcome(), Outcome::TooCostly, "plan {plan}");
    }
}

#[test]
fn named_window_is_described_by_the_fields() {
    let plans = [plan("default", "5/minute, 7/day, 11/month@17")];
    let limit = |window: Option<&str>| {
        let config = config(8, &plans);
        let config = match window {
            Some(window) => config.with_described(window.parse().unwrap()),
            None => config,
        };
        config.validate()?;
        let gate = gate(&config);
        let verdict = gate.check(Some(key_of(&gate, 42, 1).0.as_bytes()), 1, at(0));
        let headers = verdict.headers();
        Ok(headers.iter().next().unwrap().1.to_owned())
    };
    // The longest window of at most a day, or the one that is named.
    assert_eq!(limit(None), Ok("7".to_owned()));
    for (window, expected) in
        [("minute", "5"), ("60s", "5"), ("day", "7"), ("month", "11"), ("month@17", "11")]
    {
        assert_eq!(limit(Some(window)), Ok(expected.to_owned()), "{window}");
    }
    for window in ["hour", "week", "month@18", "31d"] {
        let window_named = window.parse().unwrap();
        assert_eq!(limit(Some(window)), Err(CreateError::Described { window: window_named }));
    }
}
