//! Tests that each vector file loads, has a case of each kind, and is as its text `about` says.

use keytally_vectors::files::{Op, PrefixStep};
use keytally_vectors::model::{Model, parse_policy};
use keytally_vectors::{
    load_charges, load_decisions, load_keys, load_macs, load_policies, load_prefixes, load_verdicts,
};

#[test]
fn policy_file_loads_and_is_consistent() {
    let file = load_policies();
    for case in &file.valid {
        let policy = parse_policy(&case.text).unwrap();
        assert_eq!(policy.to_string(), case.canonical);
        assert_eq!(parse_policy(&case.canonical).unwrap(), policy, "canonical text means the same");
        assert_eq!(case.stamp_bits + case.count_bits.iter().sum::<u32>(), 64);
    }
    for error in [
        "empty",
        "too_long",
        "syntax",
        "limit",
        "window",
        "unit",
        "too_many",
        "duplicate",
        "sliding_month",
        "too_many_bits",
    ] {
        assert!(file.invalid.iter().any(|case| case.error == error), "{error}");
    }
}

#[test]
fn decision_file_loads_and_is_consistent() {
    let file = load_decisions();
    let in_sequences = file.sequences.iter().map(|step| &step.case);
    for case in file.cases.iter().chain(in_sequences) {
        let has_answer = matches!(case.op, Op::Check { .. } | Op::Peek { .. });
        assert_eq!(case.answer.is_some(), has_answer, "{case:?}");
        assert_eq!(case.uncharged.is_some(), matches!(case.op, Op::Settle { .. }), "{case:?}");
        if let Some(answer) = &case.answer {
            assert_eq!(answer.retry_at_ms.is_some(), answer.outcome == "denied", "{case:?}");
            assert_eq!(answer.retry_after_s.is_some(), answer.outcome == "denied", "{case:?}");
        }
    }
    let mut previous = None;
    for step in &file.sequences {
        let word = match previous {
            Some((sequence, word)) if sequence == &step.sequence => word,
            _ => 0,
        };
        assert_eq!(step.case.word, word, "{step:?}");
        previous = Some((&step.sequence, step.case.next));
    }
    for reusable in [true, false] {
        assert!(file.reusable.iter().any(|case| case.reusable == reusable));
    }
}

#[test]
fn charge_file_loads_and_is_consistent() {
    let file = load_charges();
    let lengths = file.valid.iter().map(|case| (case.tallies.len(), case.bytes.len()));
    assert!(lengths.clone().all(|(tallies, bytes)| tallies > 0 && bytes == 128));
    assert_eq!(lengths.map(|(tallies, _)| tallies).max(), Some(8));
    for case in &file.invalid {
        assert!(
            case.bytes.len() == 128 && file.valid.iter().all(|valid| valid.bytes != case.bytes)
        );
    }
}

#[test]
fn key_and_mac_files_load_and_are_consistent() {
    let keys = load_keys();
    assert!(
        keys.valid.iter().all(|case| case.text.ends_with(case.hint.split('…').nth(1).unwrap()))
    );
    for error in ["form", "checksum"] {
        assert!(keys.invalid.iter().any(|case| case.error == error));
    }
    let macs = load_macs();
    assert!(macs.hmac.iter().any(|case| case.why == "RFC 4231 case 7"));
    assert!(macs.record.iter().all(|case| case.mac.len() == 16));
}

#[test]
fn verdict_file_loads_and_is_consistent() {
    let file = load_verdicts();
    for setup in &file.gates {
        Model::parse(&setup.policy).unwrap();
    }
    for step in &file.steps {
        assert!(file.gates.iter().any(|setup| setup.gate == step.gate));
        assert_eq!(step.reason.is_some(), step.outcome == "invalid_key", "{step:?}");
        assert!(step.headers.ends_with("\r\n"));
    }
    for outcome in ["admitted", "denied", "missing_key", "invalid_key", "too_costly", "full"] {
        assert!(file.responses.iter().any(|case| case.outcome == outcome), "{outcome}");
    }
    for outcome in ["admitted", "denied", "missing_key", "invalid_key", "too_costly"] {
        assert!(file.steps.iter().any(|case| case.outcome == outcome), "{outcome}");
    }
}

#[test]
fn prefix_file_has_every_outcome_and_refunds() {
    let file = load_prefixes();
    let steps = || file.cases.iter().flat_map(|case| &case.steps);
    for outcome in ["admitted", "denied", "too_costly"] {
        let is_its = |step: &PrefixStep| step.tallies.iter().any(|line| line.outcome == outcome);
        assert!(steps().filter(|step| is_its(step)).count() > 10, "{outcome}");
    }
    assert!(steps().filter(|step| step.refunds.is_some()).count() > 50);
    assert!(file.invalid.iter().any(|case| case.error == "prefix"));
}
