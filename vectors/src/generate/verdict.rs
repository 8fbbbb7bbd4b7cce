//! Generates `verdict.json`: requests to gates, with verdicts and responses.

use crate::files::{GateSetup, IssuedKey, QuotaLine, ResponseCase, VerdictFile, VerdictStep};
use crate::model::{
    Gate, GateKey, Key, Model, Outcome, QuotaState, Window, body, encode_key, header_block, status,
};

use super::random::Random;
use super::{Lines, NEW_YEAR_MS};

const ABOUT: &str = "Requests to gates, with their verdicts and responses. gates: each has one plan (policy), a pepper \
    (hexadecimal) and keys. text is the whole key, account the number of its team account, expires_s the Unix second from \
    which it is invalid (0: it never expires), previous the key before the last rotation, grace_until_s the Unix second from \
    which previous is invalid, revoked whether the key was revoked. All tallies are unused. The key ids differ in the first \
    four bits. steps: requests in order, each to its gate. op is check or peek, api_keys are the values of all X-API-Key \
    headers (none: missing key; two: invalid key), cost is the requested cost, now_ms the caller's time. The verdict is outcome, \
    reason (for logs, only of invalid keys), status (HTTP; 200: the application responds), key_id (0x and 16 hexadecimal \
    digits), account and quotas (the smallest window first; these three only of valid keys), retry_after_s (only if denied) and \
    clock_ahead_s (by how many seconds the effective time is ahead of now_ms, if it is). headers are whole lines, each ending \
    with CR LF. responses: status, headers and body for a given outcome (outcome_value is its number), quotas and \
    retry_after_s at now_ms. The times now_ms (Unix milliseconds) and reset_s (Unix seconds) are decimal strings. All other \
    numbers are JSON numbers.";

/// Returns the text of the file.
pub(super) fn file() -> String {
    let mut file = VerdictFile {
        about: ABOUT.to_owned(),
        gates: Vec::new(),
        steps: Vec::new(),
        responses: responses(),
    };
    let policies = [
        ("documented", "100/minute, 1000/hour"),
        ("one window", "2/90s"),
        ("three windows", "2/second, 3/minute, 4/hour"),
        ("four windows", "2/minute, 4/10m, 6/hour, 8/day"),
        ("sliding", "sliding 10/minute, 15/hour"),
        ("sliding, one window", "sliding 3/second"),
        ("sliding, four windows", "sliding 2/10s, 3/minute, 4/hour, 5/7d"),
        ("weeks and months", "2/minute, 4/week, 7/month@17"),
        ("windows that do not nest", "2/2h, 3/5h, 7/day"),
    ];
    for ((name, policy), seed) in policies.into_iter().zip(10..) {
        Scenario::new(name, policy, seed).run(&mut file);
    }
    Lines::new(ABOUT)
        .array("gates", &file.gates)
        .array("steps", &file.steps)
        .array("responses", &file.responses)
        .done()
}

/// A gate, the requests to it, and two keys that it does not accept.
struct Scenario {
    name: &'static str,
    policy: &'static str,
    gate: Gate,
    /// A key whose id no key of the gate has.
    unknown: String,
    /// A key with the id of the first key and another secret.
    wrong_secret: String,
    steps: Vec<VerdictStep>,
}

/// The key id of the first key of every gate.
const KEY_ID: u64 = 0x0123_4567_89ab_cdef;

// The positions of the other keys in their gate.
const LARGEST_ID: usize = 1;
const ROTATED: usize = 2;
const REVOKED: usize = 3;
const EXPIRING: usize = 4;

/// The second of [`NEW_YEAR_MS`].
const START_S: u32 = 1_767_225_600;
const HOUR_S: u32 = 3600;

impl Scenario {
    /// Creates a gate with five keys. The seed gives the secrets and the pepper.
    fn new(name: &'static str, policy: &'static str, seed: u64) -> Scenario {
        let mut random = Random::new(seed);
        let mut key = |key_id: u64| {
            let secret = u128::from(random.any()) << 64 | u128::from(random.any());
            encode_key(&Key { prefix: "kt".to_owned(), env: "live".to_owned(), key_id, secret })
        };
        let valid = |text: String, account: u32| GateKey {
            text,
            previous: None,
            grace_until_s: 0,
            account,
            expires_s: 0,
            revoked: false,
            tally: 0,
        };
        let keys = vec![
            valid(key(KEY_ID), 42),
            valid(key(u64::MAX), u32::MAX),
            GateKey {
                previous: Some(key(3 << 60)),
                grace_until_s: START_S + HOUR_S,
                ..valid(key(3 << 60), 7)
            },
            GateKey { revoked: true, ..valid(key(4 << 60 | 0x0fff), 8) },
            GateKey { expires_s: START_S + HOUR_S, ..valid(key(5 << 60 | 1), 9) },
        ];
        let unknown = key(6 << 60 | 0x0123);
        let wrong_secret = key(KEY_ID);
        let model = Model::parse(policy).expect("a policy");
        let pepper = random.bytes(32);
        Scenario {
            name,
            policy,
            gate: Gate { model, pepper, keys },
            unknown,
            wrong_secret,
            steps: Vec::new(),
        }
    }

    /// Makes all requests, and adds the gate and the verdicts to the file.
    fn run(mut self, file: &mut VerdictFile) {
        let issued = self.gate.keys.iter().map(|key| IssuedKey {
            text: key.text.clone(),
            account: key.account,
            expires_s: key.expires_s,
            previous: key.previous.clone(),
            grace_until_s: key.grace_until_s,
            revoked: key.revoked,
        });
        file.gates.push(GateSetup {
            gate: self.name.to_owned(),
            policy: self.policy.to_owned(),
            pepper: self.gate.pepper.clone(),
            keys: issued.collect(),
        });

        self.charges();
        self.refusals();
        self.rotation();
        self.expiry();
        file.steps.extend(self.steps);
    }

    /// Checks and peeks with a valid key, with every outcome.
    fn charges(&mut self) {
        let key = self.gate.keys[0].text.clone();
        let smallest = self.gate.model.policy().quotas[0];
        let largest = *self.gate.model.policy().quotas.last().expect("a policy has a quota");
        let smallest_ms = u64::from(smallest.window.longest_s()) * 1000;
        let mut now_ms = NEW_YEAR_MS + 345;
        self.peek("before the first charge", &[&key], 1, now_ms);
        self.check("the first charge", &[&key], 1, now_ms);
        self.check("cost 0", &[&key], 0, now_ms);
        self.check("the rest of the smallest window", &[&key], smallest.limit - 1, now_ms + 1);
        self.check("one more", &[&key], 1, now_ms + 2);
        self.peek("one more, only peeked", &[&key], 1, now_ms + 2);
        self.check("cost 0 on a full window", &[&key], 0, now_ms + 2);
        self.check("more than the smallest limit", &[&key], smallest.limit + 1, now_ms + 3);
        self.check("more than any limit", &[&key], u32::MAX, now_ms + 3);
        self.check("by a late clock", &[&key], 1, NEW_YEAR_MS - 1);
        self.check("the last millisecond of the window", &[&key], 1, NEW_YEAR_MS + smallest_ms - 1);
        // Retries after each denial, so that the longer windows deny in turn.
        for _ in 0..12 {
            let cost = smallest.limit.min(2);
            let step = self.check("repeated", &[&key], cost, now_ms);
            now_ms += step.retry_after_s.unwrap_or(1) * 1000;
        }
        self.check(
            "two longest windows later",
            &[&key],
            1,
            now_ms + 2 * u64::from(largest.window.longest_s()) * 1000,
        );
        self.check("the largest time", &[&key], 1, u64::MAX);
        self.check("a correct clock again, the stamp is ahead", &[&key], 1, now_ms);
        let other = self.gate.keys[LARGEST_ID].text.clone();
        self.check("another key has its own tally", &[&other], 1, NEW_YEAR_MS);
        self.check("by a clock at the epoch", &[&other], 1, 0);
    }

    /// Requests whose key is missing or invalid.
    fn refusals(&mut self) {
        let key = self.gate.keys[0].text.clone();
        let unknown = self.unknown.clone();
        let wrong_secret = self.wrong_secret.clone();
        let revoked = self.gate.keys[REVOKED].text.clone();
        let checksum = key.replacen("live", "test", 1);
        self.check("no header", &[], 1, NEW_YEAR_MS);
        self.peek("no header, only peeked", &[], 0, NEW_YEAR_MS);
        self.check("sent twice, both valid", &[&key, &key], 1, NEW_YEAR_MS);
        self.check("sent twice, one valid", &[&key, "x"], 1, NEW_YEAR_MS);
        self.check("not of the form", &["password"], 1, NEW_YEAR_MS);
        self.check("not of the form: a space after", &[&format!("{key} ")], 1, NEW_YEAR_MS);
        self.check("wrong checksum", &[&checksum], 1, NEW_YEAR_MS);
        self.check("unknown", &[&unknown], 1, NEW_YEAR_MS);
        self.check("wrong secret", &[&wrong_secret], 1, NEW_YEAR_MS);
        self.check("revoked", &[&revoked], 1, NEW_YEAR_MS);
        self.check("invalid, and more than any limit", &[&unknown], u32::MAX, NEW_YEAR_MS);
    }

    /// Checks with the old and the new secret of a rotated key. They share one tally. The old
    /// secret is valid until the end of its grace period.
    fn rotation(&mut self) {
        let new = self.gate.keys[ROTATED].text.clone();
        let old = self.gate.keys[ROTATED].previous.clone().expect("a rotated key");
        self.check("the new secret", &[&new], 1, NEW_YEAR_MS);
        self.check("the old secret in its grace period, same tally", &[&old], 1, NEW_YEAR_MS + 1);
        self.check(
            "the old secret, the last millisecond of its grace period",
            &[&old],
            0,
            NEW_YEAR_MS + 3_599_999,
        );
        self.check("the old secret after its grace period", &[&old], 0, NEW_YEAR_MS + 3_600_000);
        self.check("the new secret does not expire", &[&new], 0, NEW_YEAR_MS + 3_600_000);
    }

    /// Checks with a key that expires.
    fn expiry(&mut self) {
        let key = self.gate.keys[EXPIRING].text.clone();
        self.check("the last millisecond before the expiry", &[&key], 1, NEW_YEAR_MS + 3_599_999);
        self.check("the millisecond of the expiry", &[&key], 1, NEW_YEAR_MS + 3_600_000);
    }

    fn check(&mut self, why: &str, api_keys: &[&str], cost: u32, now_ms: u64) -> &VerdictStep {
        self.step("check", why, api_keys, cost, now_ms)
    }

    fn peek(&mut self, why: &str, api_keys: &[&str], cost: u32, now_ms: u64) {
        self.step("peek", why, api_keys, cost, now_ms);
    }

    /// Makes a request and records its verdict.
    fn step(
        &mut self,
        op: &str,
        why: &str,
        api_keys: &[&str],
        cost: u32,
        now_ms: u64,
    ) -> &VerdictStep {
        let headers: Vec<&[u8]> = api_keys.iter().map(|key| key.as_bytes()).collect();
        let verdict = if op == "check" {
            self.gate.check(&headers, cost, now_ms)
        } else {
            self.gate.peek(&headers, cost, now_ms)
        };
        self.steps.push(VerdictStep {
            gate: self.name.to_owned(),
            why: why.to_owned(),
            op: op.to_owned(),
            api_keys: api_keys.iter().map(ToString::to_string).collect(),
            cost,
            now_ms,
            outcome: verdict.outcome.name().to_owned(),
            reason: verdict.reason.map(|reason| reason.name().to_owned()),
            status: verdict.status,
            key_id: verdict.key_id,
            account: verdict.account,
            quotas: verdict.quotas.iter().map(quota_line).collect(),
            retry_after_s: verdict.retry_after_s,
            clock_ahead_s: verdict.clock_ahead_s,
            headers: verdict.headers,
            body: verdict.body.to_owned(),
        });
        self.steps.last().expect("just pushed")
    }
}

/// Returns responses to given verdicts: each outcome, names of windows, resets near the current
/// time, the smallest and largest numbers.
fn responses() -> Vec<ResponseCase> {
    let quota = |limit: u32, remaining: u32, window_s: u32, reset_s: u64| QuotaState {
        limit,
        remaining,
        window: Window::Length(window_s),
        reset_s,
    };
    let mut cases = Vec::new();
    let mut push = |why: &str,
                    outcome: Outcome,
                    quotas: &[QuotaState],
                    retry_after_s: Option<u64>,
                    now_ms: u64| {
        cases.push(ResponseCase {
            why: why.to_owned(),
            outcome: outcome.name().to_owned(),
            outcome_value: outcome.value(),
            now_ms,
            quotas: quotas.iter().map(quota_line).collect(),
            retry_after_s,
            status: status(outcome),
            headers: header_block(outcome, quotas, retry_after_s, now_ms),
            body: body(outcome).to_owned(),
        });
    };

    let documented = [quota(100, 99, 60, 1_767_225_660), quota(1000, 999, 3600, 1_767_229_200)];
    for outcome in Outcome::ALL {
        let quotas: &[QuotaState] = match outcome {
            Outcome::Admitted | Outcome::Denied | Outcome::TooCostly => &documented,
            Outcome::MissingKey
            | Outcome::InvalidKey
            | Outcome::Full
            | Outcome::Forbidden
            | Outcome::Unavailable => &[],
        };
        let retry_after_s = match outcome {
            Outcome::Denied => Some(12),
            Outcome::Full | Outcome::Unavailable => Some(1),
            _ => None,
        };
        push("every outcome", outcome, quotas, retry_after_s, NEW_YEAR_MS + 48_000);
    }
    for window_s in [1, 2, 59, 60, 61, 90, 120, 3599, 3600, 7200, 86399, 86400, 604_800, 2_678_400]
    {
        let quotas = [quota(5, 4, window_s, 1_767_225_660)];
        push("name of a window", Outcome::Admitted, &quotas, None, NEW_YEAR_MS);
    }
    for now_ms in [0, 58_999, 59_000, 59_001, 59_999, 60_000, 60_001, u64::MAX] {
        push(
            "reset near the current time",
            Outcome::Admitted,
            &[quota(5, 4, 60, 60)],
            None,
            now_ms,
        );
    }
    for (limit, remaining) in [(1, 0), (1, 1), (u32::MAX, 0), (u32::MAX, u32::MAX)] {
        let quotas = [quota(limit, remaining, 86400, 1_767_312_000)];
        push("smallest and largest numbers", Outcome::Admitted, &quotas, None, NEW_YEAR_MS);
    }
    // The last is three windows of 31 days.
    for retry_after_s in [1, 59, 60, 3600, 8_035_200] {
        push("time to retry", Outcome::Denied, &documented, Some(retry_after_s), NEW_YEAR_MS);
        push("time to retry", Outcome::Full, &[], Some(retry_after_s), NEW_YEAR_MS);
    }
    let widest = [2_678_399, 2_678_398, 2_678_397, 2_678_400]
        .map(|window_s| quota(u32::MAX, u32::MAX, window_s, 18_446_744_073_709_551));
    push("the longest header block", Outcome::Denied, &widest, Some(8_035_200), NEW_YEAR_MS);
    cases
}

/// Converts the state of a quota to the form of the file.
fn quota_line(quota: &QuotaState) -> QuotaLine {
    QuotaLine {
        limit: quota.limit,
        remaining: quota.remaining,
        window_s: quota.window.longest_s(),
        reset_s: quota.reset_s,
    }
}
