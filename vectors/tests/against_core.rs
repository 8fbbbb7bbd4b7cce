//! Compares the core with every case of the vector files.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use keytally_core::{
    Address, AddressLimiter, AddressPolicy, CacheLine, Charge, Entropy, Gate, GateConfig, Hint,
    Key, KeyId, Name, NewKey, Outcome, ParseKeyError, ParsePolicyError, ParsePolicyErrorKind,
    Pepper, Peppers, Plan, Policy, Section, TallyCharge, Timestamp, Verdict, decide, parse_key,
};
use keytally_vectors::files::{
    Answer, DecisionCase, GateSetup, GroupCost, Op, QuotaLine, TallyLine, WarningLine,
};
use keytally_vectors::{
    load_charges, load_decisions, load_keys, load_macs, load_policies, load_prefixes,
    load_sections, load_verdicts,
};

mod gates;

/// Parses a policy text that must be valid.
fn policy(text: &str) -> Policy {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn policies_match_the_vectors() {
    let file = load_policies();
    for case in &file.valid {
        let policy = policy(&case.text);
        assert_eq!(policy.to_string(), case.canonical);
        let quotas: Vec<_> =
            policy.quotas().iter().map(|quota| [quota.limit, quota.window.seconds()]).collect();
        assert_eq!(quotas, case.quotas, "{}", case.text);
        assert_eq!(format!("{:?}", policy.algorithm()).to_lowercase(), case.algorithm);
        assert_eq!(policy.layout().stamp_bits(), case.stamp_bits, "{}", case.text);
        let counts_each = if case.algorithm == "sliding" { 2 } else { 1 };
        let bits: Vec<u32> = policy
            .layout()
            .count_bits()
            .iter()
            .flat_map(|&bits| core::iter::repeat_n(u32::from(bits), counts_each))
            .collect();
        assert_eq!(bits, case.count_bits, "{}", case.text);
    }
    for case in &file.invalid {
        let error = case.text.parse::<Policy>().expect_err(&case.text);
        assert_eq!(error_of(&error), (case.error.as_str(), case.needed_bits), "{}", case.text);
    }
}

/// Returns the name of an error in the vector files, and the bits that the policy needs.
fn error_of(error: &ParsePolicyError) -> (&'static str, Option<u32>) {
    match error.kind() {
        ParsePolicyErrorKind::Empty => ("empty", None),
        ParsePolicyErrorKind::TooLong { .. } => ("too_long", None),
        ParsePolicyErrorKind::Syntax => ("syntax", None),
        ParsePolicyErrorKind::Limit => ("limit", None),
        ParsePolicyErrorKind::Window => ("window", None),
        ParsePolicyErrorKind::Unit => ("unit", None),
        ParsePolicyErrorKind::TooManyQuotas => ("too_many", None),
        ParsePolicyErrorKind::Duplicate => ("duplicate", None),
        ParsePolicyErrorKind::SlidingMonth => ("sliding_month", None),
        ParsePolicyErrorKind::TooManyBits { needed } => ("too_many_bits", Some(needed)),
        ParsePolicyErrorKind::Prefix => ("prefix", None),
        other => panic!("no vector has {other:?}"),
    }
}

#[test]
fn decisions_match_the_vectors() {
    let file = load_decisions();
    let steps = file.sequences.iter().map(|step| &step.case);
    for case in file.cases.iter().chain(steps) {
        compare_decision(case);
    }
    for case in &file.corrections {
        let reading = Timestamp::from_unix_ms(case.reading_ms);
        let next = decide::correct(policy(&case.policy).layout(), case.word, reading);
        assert_eq!(next, case.next, "{case:?}");
    }
    for case in &file.reusable {
        let now = Timestamp::from_unix_ms(case.now_ms);
        assert_eq!(
            policy(&case.policy).layout().is_reusable(case.word, now),
            case.reusable,
            "{case:?}"
        );
    }
}

/// Compares one operation of the core with a case.
fn compare_decision(case: &DecisionCase) {
    let policy = policy(&case.policy);
    let (layout, limits, now) =
        (policy.layout(), policy.limits(), Timestamp::from_unix_ms(case.now_ms));
    let charge = |cost, at_ms| TallyCharge { cost, at: Timestamp::from_unix_ms(at_ms) };
    let decision = match case.op {
        Op::Check { cost } => decide::check(layout, &limits, case.word, now, cost),
        Op::Peek { cost } => decide::peek(layout, &limits, case.word, now, cost),
        Op::Refund { charged, charged_at_ms } => {
            decide::refund(layout, &limits, case.word, now, charge(charged, charged_at_ms))
        }
        Op::Settle { charged, charged_at_ms, actual } => {
            decide::settle(layout, &limits, case.word, now, charge(charged, charged_at_ms), actual)
        }
        Op::Reset => decide::reset(layout, &limits, case.word, now),
    };
    assert_eq!(format!("{:#018x}", decision.next), format!("{:#018x}", case.next), "{case:?}");
    assert_eq!(decision.uncharged, case.uncharged.unwrap_or(0), "{case:?}");
    if let Some(expected) = &case.answer {
        let cost = match case.op {
            Op::Check { cost } | Op::Peek { cost } => cost,
            _ => 0,
        };
        let verdict = Verdict::decided(layout, &limits, decision, None, now, cost);
        let quotas = verdict.quotas();
        let answer = Answer {
            outcome: decision.outcome.to_string(),
            at_ms: quotas.time().unix_ms(),
            remaining: quotas.iter().map(|quota| quota.remaining).collect(),
            reset_s: quotas.iter().map(|quota| quota.reset_unix_s).collect(),
            retry_at_ms: verdict.retry_at().map(Timestamp::unix_ms),
            retry_after_s: verdict.retry_after_s().map(u64::from),
        };
        assert_eq!(&answer, expected, "{case:?}");
    }
}

#[test]
fn charges_match_the_vectors() {
    let file = load_charges();
    for case in &file.valid {
        let charge = Charge::from_bytes(case.bytes.as_slice().try_into().unwrap()).unwrap();
        assert_eq!(charge.to_bytes(), *case.bytes);
        let shown: Vec<String> = case
            .tallies
            .iter()
            .map(|entry| {
                format!(
                    "Entry {{ tally: {}, unit: {}, cost: {}, at: {:?} }}",
                    entry.tally,
                    entry.unit,
                    entry.cost,
                    Timestamp::from_unix_ms(entry.at_ms)
                )
            })
            .collect();
        assert_eq!(format!("{charge:?}"), format!("[{}]", shown.join(", ")));
        let first = &case.tallies[0];
        let own = case.tallies.iter().find(|entry| entry.unit == 0);
        let cost = own.map_or(0, |entry| entry.cost);
        assert_eq!((charge.cost(), charge.at().unix_ms()), (cost, first.at_ms));
        let is_new = charge == Charge::new(charge.cost(), charge.at());
        assert_eq!(is_new, case.tallies.len() == 1 && (first.tally, first.unit) == (0, 0));
    }
    for case in &file.invalid {
        let bytes = case.bytes.as_slice().try_into().unwrap();
        assert_eq!(Charge::from_bytes(bytes), None, "{}", case.why);
    }
}

#[test]
fn keys_match_the_vectors() {
    let file = load_keys();
    for case in &file.valid {
        let name = |text: &str| Name::new(text).unwrap();
        let id = KeyId::from_number(case.key_id).unwrap();
        let key =
            Key::mint(name(&case.prefix), name(&case.env), id, &case.secret.to_be_bytes()).unwrap();
        assert_eq!(key.expose(), case.text);
        assert_eq!(id.to_string(), case.key_id_text);
        assert_eq!(key.hint().to_string(), case.hint);
        let parts = parse_key(case.text.as_bytes()).unwrap();
        assert_eq!(
            (parts.prefix, parts.env, parts.key_id),
            (case.prefix.as_str(), case.env.as_str(), id)
        );
        assert_eq!(Hint::new(case.text.as_bytes()).to_string(), case.hint);
    }
    for case in &file.invalid {
        let kind = match parse_key(case.text.as_bytes()) {
            Ok(_) => "none",
            Err(ParseKeyError::Form) => "form",
            Err(ParseKeyError::Checksum) => "checksum",
            Err(other) => panic!("no vector has {other:?}"),
        };
        assert_eq!(kind, case.error, "{}", case.why);
    }
}

#[test]
fn macs_match_the_vectors() {
    let file = load_macs();
    let mut compared = 0;
    for case in file.hmac.iter().filter(|case| case.key.len() >= keytally_core::MIN_PEPPER_LEN) {
        compared += 1;
        let mac = Pepper::new(&case.key).unwrap().mac(&case.data).to_bytes();
        assert_eq!(mac[..case.mac.len()], case.mac, "{}", case.why);
    }
    assert!(compared >= 2, "RFC 4231 has two keys that are long enough for a pepper");
    for case in &file.record {
        let mac = Pepper::new(&case.pepper).unwrap().mac(case.key.as_bytes()).to_bytes();
        assert_eq!(mac[..16], case.mac, "{}", case.key);
    }
}

/// Creates a gate of a vector file with its keys.
fn create_gate(setup: &GateSetup) -> Gate<Vec<CacheLine>> {
    let plans = [Plan::new("default", policy(&setup.policy).into()).unwrap()];
    let config =
        GateConfig::new(64, Name::new("kt").unwrap(), &plans).with_plan_slots(1).with_hints(true);
    let memory = (0..config.lines()).map(|_| CacheLine::new()).collect();
    let gate = Gate::init(memory, &config, Peppers::new(&[&setup.pepper]).unwrap()).unwrap();
    gates::import_keys(&mut gate.administer().unwrap(), setup);
    gate
}

#[test]
fn verdicts_match_the_vectors() {
    let file = load_verdicts();
    for setup in &file.gates {
        let gate = create_gate(setup);
        let mut steps = 0;
        for step in file.steps.iter().filter(|step| step.gate == setup.gate) {
            steps += 1;
            let now = Timestamp::from_unix_ms(step.now_ms);
            let verdict = match (step.api_keys.as_slice(), step.op.as_str()) {
                ([], "check") => gate.check(None, step.cost, now),
                ([], "peek") => gate.peek(None, step.cost, now),
                ([key], "check") => gate.check(Some(key.as_bytes()), step.cost, now),
                ([key], "peek") => gate.peek(Some(key.as_bytes()), step.cost, now),
                (_, _) => Verdict::duplicate_header(now),
            };
            let why = format!("{}: {} at {}", step.gate, step.why, step.now_ms);
            assert_eq!(verdict.outcome().to_string(), step.outcome, "{why}");
            let reason = verdict.reason().map(|reason| reason.to_string());
            assert_eq!(reason, step.reason, "{why}");
            assert_eq!(verdict.http_status(), step.status, "{why}");
            let quotas: Vec<_> = verdict
                .quotas()
                .iter()
                .map(|quota| QuotaLine {
                    limit: quota.limit,
                    remaining: quota.remaining,
                    window_s: quota.window.seconds(),
                    reset_s: quota.reset_unix_s,
                })
                .collect();
            assert_eq!(quotas, step.quotas, "{why}");
            if !quotas.is_empty() {
                let holder = verdict.holder().unwrap();
                assert_eq!(
                    (Some(holder.key_id.number()), Some(holder.account)),
                    (step.key_id, step.account)
                );
            }
            assert_eq!(verdict.retry_after_s().map(u64::from), step.retry_after_s, "{why}");
            assert_eq!(u64::from(verdict.clock_ahead_s()), step.clock_ahead_s, "{why}");
            assert_eq!(verdict.headers().as_str(), step.headers, "{why}");
            assert_eq!(verdict.body(), step.body, "{why}");
        }
        assert!(steps > 0, "{} has no steps", setup.gate);
    }
    for case in &file.responses {
        let mut outcomes = Outcome::ALL.iter();
        let outcome = *outcomes.find(|outcome| outcome.as_str() == case.outcome).unwrap();
        assert_eq!((outcome as u32, outcome.http_status()), (case.outcome_value, case.status));
        assert_eq!(outcome.body(), case.body);
    }
}

#[test]
fn sections_match_the_vectors() {
    for case in &load_sections().cases {
        let plans = [Plan::new("default", case.plan.parse().unwrap()).unwrap()];
        let config = GateConfig::new(64, Name::new("kt").unwrap(), &plans).with_teams(4);
        let memory = (0..config.lines()).map(|_| CacheLine::new()).collect::<Vec<_>>();
        let gate = Gate::init(memory, &config, Peppers::new(&[[7; 32]]).unwrap()).unwrap();
        let keys: Vec<_> = (0..3_u32)
            .map(|key| {
                let new = NewKey::new(42 + key / 2, Name::new("live").unwrap());
                let entropy = Entropy::new([key.to_le_bytes()[0] + 1; 24]);
                let at = Timestamp::from_unix_s(1);
                gate.administer().unwrap().issue(&new, entropy, at).unwrap().0
            })
            .collect();
        for (number, step) in case.steps.iter().enumerate() {
            let why = format!("step {number} of {}", case.plan);
            let key = keys[step.key as usize].expose().as_bytes();
            let mut part = gate.part(Some(key), step.cost);
            for GroupCost { name, cost } in &step.groups {
                part = match cost {
                    Some(cost) => part.with_group_cost(name, *cost).unwrap(),
                    None => part.with_group(name).unwrap(),
                };
            }
            let compound = part.check(Timestamp::from_unix_ms(step.now_ms));
            assert_eq!(compound.is_admitted(), step.admitted, "{why}");
            // A key that its plan does not limit has a verdict without windows.
            let counted = compound.tallies().iter().filter(|it| !it.verdict().quotas().is_empty());
            let lines: Vec<_> = counted
                .map(|tally| {
                    let quotas: Vec<_> = tally.verdict().quotas().iter().collect();
                    TallyLine {
                        section: tally.section().unwrap().name().to_owned(),
                        outcome: tally.verdict().outcome().to_string(),
                        remaining: quotas.iter().map(|quota| quota.remaining).collect(),
                        reset_s: quotas.iter().map(|quota| quota.reset_unix_s).collect(),
                    }
                })
                .collect();
            assert_eq!(lines, step.tallies, "{why}");
            assert_eq!(compound.retry_after_s().map(u64::from), step.retry_after_s, "{why}");
            let crossed: Vec<_> = compound
                .crossed()
                .map(|(tally, window, percent)| WarningLine {
                    section: tally.section().unwrap().name().to_owned(),
                    window,
                    percent: percent.into(),
                })
                .collect();
            assert_eq!(crossed, step.crossed, "{why}");
        }
    }
}

#[test]
fn prefixes_match_the_vectors() {
    let file = load_prefixes();
    for case in &file.cases {
        let policy: AddressPolicy = case.policy.parse().unwrap();
        assert_eq!(policy.to_string(), case.canonical);
        let lines = AddressLimiter::<Vec<CacheLine>>::lines(64);
        let memory = (0..lines).map(|_| CacheLine::new()).collect::<Vec<_>>();
        let limiter = AddressLimiter::init(memory, &policy, 64, [7; 16]).unwrap();
        let mut charges = Vec::new();
        for (number, step) in case.steps.iter().enumerate() {
            let why = format!("step {number} of {}", case.policy);
            let (now, client) =
                (Timestamp::from_unix_ms(step.now_ms), Address::parse(&step.client).unwrap());
            let compound = match step.refunds {
                None => limiter.check(client, step.cost, now),
                Some(refunds) => limiter.refund(client, charges[refunds], now),
            };
            charges.push(compound.charge(0).unwrap_or(Charge::new(0, now)));
            assert_eq!(compound.is_admitted(), step.admitted, "{why}");
            let lines = compound.tallies().iter().map(|tally| {
                let quotas: Vec<_> = tally.verdict().quotas().iter().collect();
                TallyLine {
                    section: tally.section().map_or("", Section::name).to_owned(),
                    outcome: tally.verdict().outcome().to_string(),
                    remaining: quotas.iter().map(|quota| quota.remaining).collect(),
                    reset_s: quotas.iter().map(|quota| quota.reset_unix_s).collect(),
                }
            });
            assert_eq!(lines.collect::<Vec<_>>(), step.tallies, "{why}");
            assert_eq!(compound.retry_after_s().map(u64::from), step.retry_after_s, "{why}");
        }
    }
    for case in &file.invalid {
        let error = case.text.parse::<AddressPolicy>().unwrap_err();
        assert_eq!(error_of(&error).0, case.error, "{:?}", case.text);
    }
}
