//! The outcomes, and the status, header fields and body of the response to each.

use super::window::Window;

/// The outcome of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All windows have room for the cost. A check has charged it.
    Admitted,
    /// At least one window lacks room for the cost.
    Denied,
    /// The request has no key.
    MissingKey,
    /// The key is invalid, for any reason.
    InvalidKey,
    /// The cost exceeds a limit, so it can never fit.
    TooCostly,
    /// The limiter has no slot for a new subject.
    Full,
    /// The key lacks a scope.
    Forbidden,
    /// The counts of the key are being moved to another gate.
    Unavailable,
}

impl Outcome {
    /// All outcomes, in the order of their numbers.
    pub const ALL: [Outcome; 8] = [
        Outcome::Admitted,
        Outcome::Denied,
        Outcome::MissingKey,
        Outcome::InvalidKey,
        Outcome::TooCostly,
        Outcome::Full,
        Outcome::Forbidden,
        Outcome::Unavailable,
    ];

    /// Returns the number of this outcome in every language.
    #[must_use]
    pub fn value(self) -> u32 {
        match self {
            Outcome::Admitted => 0,
            Outcome::Denied => 1,
            Outcome::MissingKey => 2,
            Outcome::InvalidKey => 3,
            Outcome::TooCostly => 4,
            Outcome::Full => 5,
            Outcome::Forbidden => 6,
            Outcome::Unavailable => 7,
        }
    }

    /// Returns the name of this outcome in the vector files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Admitted => "admitted",
            Outcome::Denied => "denied",
            Outcome::MissingKey => "missing_key",
            Outcome::InvalidKey => "invalid_key",
            Outcome::TooCostly => "too_costly",
            Outcome::Full => "full",
            Outcome::Forbidden => "forbidden",
            Outcome::Unavailable => "unavailable",
        }
    }
}

/// The state of one quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaState {
    /// The quota's limit.
    pub limit: u32,
    /// The largest cost that can still be admitted.
    pub remaining: u32,
    /// The window.
    pub window: Window,
    /// The time at which the quota's count is 0 again if nothing more is spent, in Unix seconds.
    pub reset_s: u64,
}

/// Returns the HTTP status of an outcome.
#[must_use]
pub fn status(outcome: Outcome) -> u16 {
    match outcome {
        Outcome::Admitted => 200,
        Outcome::MissingKey | Outcome::InvalidKey => 401,
        Outcome::Denied | Outcome::TooCostly => 429,
        Outcome::Full | Outcome::Unavailable => 503,
        Outcome::Forbidden => 403,
    }
}

/// Returns the body of an outcome's response. It is empty for an admitted request, to which the
/// application responds.
#[must_use]
pub fn body(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Admitted => "",
        Outcome::Denied | Outcome::TooCostly => {
            r#"{"error": "Rate limit exceeded. Please try again later."}"#
        }
        Outcome::MissingKey => r#"{"error": "Missing X-API-Key header"}"#,
        Outcome::InvalidKey => r#"{"error": "Invalid API key"}"#,
        Outcome::Forbidden => r#"{"error": "Forbidden"}"#,
        Outcome::Full => r#"{"error": "Too many clients at once. Please try again later."}"#,
        Outcome::Unavailable => r#"{"error": "Service unavailable. Please try again later."}"#,
    }
}

/// Returns all header fields of an outcome's response, each as `Name: value` with CR LF.
///
/// `quotas` and `retry_after_s` are those of the verdict; `now_ms` is the time from which waits are
/// counted.
#[must_use]
pub fn header_block(
    outcome: Outcome,
    quotas: &[QuotaState],
    retry_after_s: Option<u64>,
    now_ms: u64,
) -> String {
    let mut lines: Vec<String> = Vec::new();
    match outcome {
        Outcome::Admitted | Outcome::Denied | Outcome::TooCostly => {
            // The longest window of at most a day, or the shortest if all are longer.
            let mut described = &quotas[0];
            for quota in quotas {
                if quota.window.longest_s() <= 24 * 60 * 60 {
                    described = quota;
                }
            }
            lines.push(format!("X-RateLimit-Limit: {}", described.limit));
            lines.push(format!("X-RateLimit-Remaining: {}", described.remaining));
            lines.push(format!("X-RateLimit-Reset: {}", described.reset_s));
            lines.push(format!("RateLimit-Policy: {}", rate_limit_policy(quotas)));
            lines.push(format!("RateLimit: {}", rate_limit(quotas, now_ms)));
        }
        Outcome::MissingKey | Outcome::InvalidKey => {
            lines.push(r#"WWW-Authenticate: ApiKey realm="api", header="X-API-Key""#.to_owned());
        }
        Outcome::Full | Outcome::Forbidden | Outcome::Unavailable => {}
    }
    if matches!(outcome, Outcome::Denied | Outcome::Full | Outcome::Unavailable) {
        lines.push(format!("Retry-After: {}", retry_after_s.expect("there is a time to retry")));
    }
    lines.into_iter().map(|line| line + "\r\n").collect()
}

/// Returns the value of the header field `RateLimit-Policy`.
#[must_use]
pub fn rate_limit_policy(quotas: &[QuotaState]) -> String {
    let mut items = Vec::new();
    for quota in quotas {
        items.push(format!(
            "\"{}\";q={};w={}",
            quota.window.name(),
            quota.limit,
            quota.window.longest_s()
        ));
    }
    items.join(", ")
}

/// Returns the value of the header field `RateLimit`. It gives the time to each reset in seconds,
/// counted from `now_ms` and rounded up.
#[must_use]
pub fn rate_limit(quotas: &[QuotaState], now_ms: u64) -> String {
    let mut items = Vec::new();
    for quota in quotas {
        let wait_ms = i128::from(quota.reset_s) * 1000 - i128::from(now_ms);
        let mut seconds = wait_ms / 1000;
        if seconds * 1000 < wait_ms {
            seconds += 1;
        }
        let seconds = seconds.max(0);
        items.push(format!("\"{}\";r={};t={seconds}", quota.window.name(), quota.remaining));
    }
    items.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quotas() -> Vec<QuotaState> {
        vec![
            QuotaState { limit: 100, remaining: 99, window: Window::Length(60), reset_s: 60 },
            QuotaState { limit: 1000, remaining: 999, window: Window::Length(3600), reset_s: 3600 },
        ]
    }

    #[test]
    fn header_block_matches_hand_computed_ones() {
        assert_eq!(
            header_block(Outcome::Admitted, &quotas(), None, 48_000),
            "X-RateLimit-Limit: 1000\r\nX-RateLimit-Remaining: 999\r\nX-RateLimit-Reset: 3600\r\n\
             RateLimit-Policy: \"minute\";q=100;w=60, \"hour\";q=1000;w=3600\r\n\
             RateLimit: \"minute\";r=99;t=12, \"hour\";r=999;t=3552\r\n"
        );
        assert!(
            header_block(Outcome::Denied, &quotas(), Some(7), 0)
                .ends_with("\r\nRetry-After: 7\r\n")
        );
        assert!(!header_block(Outcome::TooCostly, &quotas(), None, 0).contains("Retry"));
        assert_eq!(header_block(Outcome::Full, &[], Some(1), 0), "Retry-After: 1\r\n");
        assert_eq!(
            header_block(Outcome::MissingKey, &[], None, 0),
            header_block(Outcome::InvalidKey, &[], None, 0)
        );
    }

    #[test]
    fn seconds_to_a_reset_round_up_and_stop_at_zero() {
        for (now_ms, seconds) in
            [(59_000, 1), (59_001, 1), (59_999, 1), (60_000, 0), (99_000, 0), (58_999, 2)]
        {
            assert!(
                rate_limit(&quotas(), now_ms).starts_with(&format!("\"minute\";r=99;t={seconds},"))
            );
        }
    }

    #[test]
    fn outcome_numbers_are_their_positions() {
        for (i, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(usize::try_from(outcome.value()).unwrap(), i);
        }
    }
}
