//! The target `headers`: the header fields of verdicts, compared with those of the model and
//! parsed.

use keytally_core::MAX_HEADERS_LEN;
use keytally_core::{CacheLine, Limiter, Outcome, Policy, Timestamp, Verdict, Window};
use keytally_vectors::model::{self, QuotaState};

use crate::bytes::{Bytes, POLICIES};

/// Checks the header fields of a policy's verdicts at arbitrary times.
pub fn headers(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let text: String = match bytes.below(4) {
        0 => {
            let len = bytes.below(128);
            (0..len).map(|_| char::from(bytes.byte() & 0x7f)).collect()
        }
        _ => bytes.pick(POLICIES).to_owned(),
    };
    let Ok(policy) = text.parse::<Policy>() else { return };
    let memory: Vec<CacheLine> =
        (0..Limiter::<Vec<CacheLine>>::lines(1)).map(|_| CacheLine::new()).collect();
    let limiter = Limiter::init(memory, &policy, 1, [7; 16]).unwrap();
    let mut now_ms = bytes.word();
    for _ in 0..64 {
        if bytes.is_empty() {
            return;
        }
        let (call, cost) = (bytes.byte(), bytes.cost());
        now_ms = match call % 5 {
            0 | 1 => now_ms,
            2 => now_ms.saturating_add(u64::from(bytes.byte())),
            3 => now_ms.saturating_add(u64::from(bytes.byte()) * 60_000),
            _ => bytes.word(),
        };
        let now = Timestamp::from_unix_ms(now_ms);
        let subject = [call & 0x1f];
        check_http(&if call & 0x80 == 0 {
            limiter.check(&subject, cost, now)
        } else {
            limiter.peek(&subject, cost, now)
        });
    }
}

/// Returns the window as the model represents it.
pub(crate) fn model_window(window: Window) -> model::Window {
    match window.month_day() {
        Some(day) => model::Window::Month(day),
        None if window == Window::WEEK => model::Window::Week,
        None => model::Window::Length(window.seconds()),
    }
}

/// Compares the status, fields and body of a verdict with the model, and checks their syntax.
pub(crate) fn check_http(verdict: &Verdict) {
    let outcome = *model::Outcome::ALL
        .iter()
        .find(|other| other.value() == verdict.outcome() as u32)
        .unwrap();
    let quotas: Vec<QuotaState> = verdict
        .quotas()
        .iter()
        .map(|quota| QuotaState {
            limit: quota.limit,
            remaining: quota.remaining,
            window: model_window(quota.window),
            reset_s: quota.reset_unix_s,
        })
        .collect();
    for quota in &quotas {
        assert!(quota.remaining <= quota.limit, "{quota:?}");
    }
    let retry_after_s = verdict.retry_after_s().map(u64::from);
    let waits = matches!(verdict.outcome(), Outcome::Denied | Outcome::Full | Outcome::Unavailable);
    assert_eq!(retry_after_s.is_some_and(|seconds| seconds >= 1), waits);
    let headers = verdict.headers();
    let text = headers.as_str();
    assert_eq!(
        text,
        model::header_block(outcome, &quotas, retry_after_s, verdict.waits_from().unix_ms())
    );
    assert_eq!(
        (verdict.http_status(), verdict.body()),
        (model::status(outcome), model::body(outcome))
    );

    assert!(text.len() <= MAX_HEADERS_LEN);
    let mut names = Vec::new();
    for line in text.split_inclusive("\r\n") {
        let (name, value) = line.strip_suffix("\r\n").unwrap().split_once(": ").unwrap();
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{line:?}");
        assert!(
            !value.is_empty() && value.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
            "{line:?}"
        );
        if !matches!(name, "RateLimit" | "RateLimit-Policy" | "WWW-Authenticate") {
            value.parse::<u64>().unwrap();
        }
        names.push(name);
    }
    assert!(headers.iter().map(|(name, _)| name).eq(names.iter().copied()));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), headers.iter().count(), "a field appears twice: {text:?}");

    let mut buffer = [b'!'; MAX_HEADERS_LEN];
    assert_eq!(verdict.write_headers(&mut buffer), Ok(text.len()));
    assert_eq!(&buffer[..text.len()], text.as_bytes());
    if let Some(shorter) = text.len().checked_sub(1) {
        assert_eq!(verdict.write_headers(&mut buffer[..shorter]).unwrap_err().needed, text.len());
    }
    let problem = verdict.problem();
    if verdict.is_admitted() {
        assert!(problem.is_empty());
    } else {
        let document: serde_json::Value = serde_json::from_str(&problem).unwrap();
        assert_eq!(document["status"], verdict.http_status());
    }
}
