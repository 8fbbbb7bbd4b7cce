//! The targets `policy`, `sections` and `key`: texts that both the core and the model parse.

use keytally_core::{
    CacheLine, Entropy, Gate, GateConfig, Hint, Key, KeyId, MAX_SECTIONS_LEN, Name, NewKey,
    ParseKeyError, ParsePolicyErrorKind, Peppers, Plan, Policy, Section, Sections, Timestamp,
    parse_key,
};
use keytally_vectors::model;

use crate::bytes::Bytes;
use crate::headers::model_window;

/// Parses a policy text.
pub fn policy(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    match (text.parse::<Policy>(), model::parse_policy(text)) {
        (Ok(policy), Ok(expected)) => {
            assert_eq!(format!("{:?}", policy.algorithm()), format!("{:?}", expected.algorithm));
            let quotas =
                policy.quotas().iter().map(|quota| (quota.limit, model_window(quota.window)));
            assert!(quotas.eq(expected.quotas.iter().map(|quota| (quota.limit, quota.window))));
            let layout = model::Layout::from_policy(&expected);
            assert_eq!(policy.layout().stamp_bits(), layout.stamp_bits);
            assert_eq!(policy.to_string(), expected.to_string());
            assert_eq!(policy.to_string().parse::<Policy>().as_ref(), Ok(&policy));
        }
        (Err(error), Err(expected)) => {
            let kind = match error.kind() {
                ParsePolicyErrorKind::Empty => "empty",
                ParsePolicyErrorKind::TooLong { .. } => "too_long",
                ParsePolicyErrorKind::Syntax => "syntax",
                ParsePolicyErrorKind::Limit => "limit",
                ParsePolicyErrorKind::Window => "window",
                ParsePolicyErrorKind::Unit => "unit",
                ParsePolicyErrorKind::TooManyQuotas => "too_many",
                ParsePolicyErrorKind::Duplicate => "duplicate",
                ParsePolicyErrorKind::SlidingMonth => "sliding_month",
                ParsePolicyErrorKind::TooManyBits { needed } => {
                    assert_eq!(expected, model::PolicyError::TooManyBits { needed });
                    "too_many_bits"
                }
                other => panic!("the model has no {other:?}"),
            };
            assert_eq!(kind, expected.kind());
            assert!(error.part().len() <= 32 && !error.to_string().is_empty());
        }
        (real, expected) => {
            panic!("the core parsed {text:?} as {real:?}, the model as {expected:?}")
        }
    }
}

/// Parses the text of a plan's sections, and creates a gate with that plan. A request to all
/// sections charges the tallies that the model has.
pub fn sections(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    let sections = match text.parse::<Sections>() {
        Ok(sections) => sections,
        Err(error) => {
            assert_eq!(Sections::from_text(text), Err(error.kind()));
            assert!(error.part().len() <= 32 && !error.to_string().is_empty());
            return;
        }
    };
    assert!(text.len() <= MAX_SECTIONS_LEN);
    let canonical = sections.to_string();
    assert!(canonical.len() <= MAX_SECTIONS_LEN);
    let parsed = canonical.parse().unwrap();
    assert_same(&parsed, &sections);
    assert_eq!(canonical.split("; ").count(), sections.iter().count());
    for (section, part) in sections.iter().zip(canonical.split("; ")) {
        let list = part.split_once(": ").map_or(part, |(name, list)| {
            assert_eq!(name, section.section().to_string());
            list
        });
        assert_eq!(list == "unlimited", section.is_unlimited());
        let quotas = list.trim_start_matches("sliding ").split(", ");
        for ((quota, warnings), text) in section.quotas().iter().zip(section.warnings()).zip(quotas)
        {
            let (text, percents) = text.split_once(" warn ").unwrap_or((text, ""));
            let quotas = model::parse_policy(text).unwrap().quotas;
            assert_eq!(quotas.len(), 1);
            assert_eq!(
                (quota.limit, model_window(quota.window)),
                (quotas[0].limit, quotas[0].window)
            );
            let percents = percents.split_whitespace().map(|it| it.trim_end_matches('%').parse());
            assert!(percents.eq(warnings.iter().filter(|it| **it > 0).map(|it| Ok(*it))));
        }
    }
    request_all(&canonical, parsed);
}

/// Asserts that sections are the same, and are written the same.
fn assert_same(real: &Sections, expected: &Sections) {
    assert_eq!(real.to_string(), expected.to_string());
    assert_eq!(real.iter().count(), expected.iter().count());
    for (real, expected) in real.iter().zip(expected.iter()) {
        assert_eq!(real.section(), expected.section());
        assert_eq!((real.quotas(), real.warnings()), (expected.quotas(), expected.warnings()));
        assert_eq!(real.algorithm(), expected.algorithm());
    }
}

/// Makes a request to all sections of a plan in a new gate, and compares it with the model.
fn request_all(text: &str, sections: Sections) {
    let mut groups = Vec::new();
    for section in sections.iter() {
        if let Section::Group(name) = section.section() {
            groups.push(name.to_string());
        }
    }
    let teams = u32::from(sections.named("team").is_some());
    let plan = Plan::new("default", sections).unwrap();
    let (plans, now) = ([plan], Timestamp::from_unix_s(1_767_225_600));
    let config = GateConfig::new(1, Name::new("kt").unwrap(), &plans).with_plan_slots(1);
    let config = config.with_teams(teams);
    let memory: Vec<CacheLine> = (0..config.lines()).map(|_| CacheLine::new()).collect();
    let peppers = || Peppers::new(&[[1; 32]]).unwrap();
    drop(Gate::init(&memory[..], &config, peppers()).unwrap());
    let gate = Gate::attach(&memory[..], peppers()).unwrap();
    assert_same(&gate.plan(0).unwrap().sections, &plans[0].sections);
    let new = NewKey::new(1, Name::new("live").unwrap());
    let (key, _) = gate.administer().unwrap().issue(&new, Entropy::new([1; 24]), now).unwrap();

    let mut part = gate.part(Some(key.expose().as_bytes()), 1);
    for name in &groups {
        part = part.with_group(name).unwrap();
    }
    let compound = part.check(now);
    let groups = groups.iter().map(|name| (name.as_str(), None)).collect();
    let request = model::Request { key: 1, account: 1, cost: 1, groups };
    let expected = model::Sections::parse(text).check(now.unix_ms(), &request);
    assert_eq!(compound.is_admitted(), expected.admitted);
    let limited = compound.tallies().iter().filter(|tally| !tally.verdict().quotas().is_empty());
    let real = limited.map(|tally| {
        let quotas = tally.verdict().quotas();
        let remaining: Vec<_> = quotas.iter().map(|it| (it.limit, it.remaining)).collect();
        (tally.section().unwrap().name().to_owned(), remaining)
    });
    let expected_tallies = expected.tallies.iter().map(|tally| {
        let remaining = tally.quotas.iter().map(|it| (it.limit, it.remaining)).collect();
        (tally.section.clone(), remaining)
    });
    assert!(real.eq(expected_tallies), "{compound:?}, {expected:?}");
    let crossed = compound.crossed().map(|(tally, window, percent)| {
        (tally.section().unwrap().name().to_owned(), window, u32::from(percent))
    });
    assert!(crossed.eq(expected.crossed.iter().cloned()), "{compound:?}, {expected:?}");
}

/// Parses the bytes as a key. Then creates a key from the bytes, and parses it without and with a
/// mistake.
pub fn key(bytes: &[u8]) {
    read_key(bytes);
    let mut bytes = Bytes::new(bytes);
    let mut name = |longest: usize| -> String {
        let len = 1 + bytes.below(longest);
        (0..len).map(|_| char::from(bytes.pick(b"0123456789abcdefghijklmnopqrstuvwxyz"))).collect()
    };
    let prefix = name(8);
    let env = name(8.min(14 - prefix.len()));
    let key_id = bytes.word().max(1);
    let secret: [u8; 16] = bytes.array();
    let made = model::Key {
        prefix: prefix.clone(),
        env: env.clone(),
        key_id,
        secret: u128::from_be_bytes(secret),
    };
    let text = model::encode_key(&made);
    let names = [prefix, env].map(|name| Name::new(&name).unwrap());
    let minted =
        Key::mint(names[0], names[1], KeyId::from_number(key_id).unwrap(), &secret).unwrap();
    assert_eq!(minted.expose(), text);
    assert!(read_key(text.as_bytes()));

    let mut wrong = text.into_bytes();
    let at = bytes.below(wrong.len());
    match bytes.below(4) {
        0 => wrong[at] = bytes.byte(),
        1 => drop(wrong.remove(at)),
        2 => wrong.insert(at, bytes.byte()),
        _ => wrong.truncate(at),
    }
    read_key(&wrong);
}

/// Parses a text with both parsers and compares the results. Returns whether it is a key.
fn read_key(text: &[u8]) -> bool {
    let hint = Hint::new(text).to_string();
    // At most 16 bytes of names, the ellipsis, and the last four characters.
    assert!(hint.len() <= 16 + "…".len() + 4, "{hint}");
    match (parse_key(text), model::parse_key(text)) {
        (Ok(parts), Ok(expected)) => {
            assert_eq!(
                (parts.prefix, parts.env),
                (expected.prefix.as_str(), expected.env.as_str())
            );
            assert_eq!(parts.key_id.number(), expected.key_id);
            assert_eq!(parts.key_id.to_string(), model::key_id_text(expected.key_id));
            assert_eq!(parts.key_id.to_string().parse(), Ok(parts.key_id));
            assert_eq!(hint, model::hint(core::str::from_utf8(text).unwrap(), &expected));
            true
        }
        (Err(error), Err(expected)) => {
            let kind = match error {
                ParseKeyError::Form => "form",
                ParseKeyError::Checksum => "checksum",
                other => panic!("the model has no {other:?}"),
            };
            assert_eq!(kind, expected.kind());
            false
        }
        (real, expected) => {
            panic!("the core parsed {text:?} as {real:?}, the model as {expected:?}")
        }
    }
}
