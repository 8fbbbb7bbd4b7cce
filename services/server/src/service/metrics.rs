//! `GET /metrics`: the text format of Prometheus, version 0.0.4.

use std::collections::HashMap;

use keytally::{FollowStatus, Gate, KeyInfo, Limiter, now};
use keytally::{Outcome, Reason, Section, Timestamp, Unavailability, Verdict, Window};
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use super::denied::DeniedKeys;
use super::log::reason_of;
use super::slots::CloseReason;

/// The content type of [`Metrics::text`].
pub(crate) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// The metrics of a service.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    verdicts: IntCounterVec,
    shadow: IntCounterVec,
    guesses: IntCounterVec,
    token_refusals: IntCounterVec,
    preflights: IntCounter,
    settlements: IntCounterVec,
    crossed: IntCounterVec,
    closed_connections: IntCounterVec,
    seconds: Histogram,
    ahead: IntCounter,
    dropped_lines: IntCounter,
    denied: DeniedKeys,
    /// The most keys that are named.
    named_keys: usize,
    top_denied: IntCounterVec,
    used_keys: IntGaugeVec,
    /// Keys by the pepper that they need.
    pepper_keys: IntGaugeVec,
    table_entries: IntGaugeVec,
    table_capacity: IntGaugeVec,
    refusals: IntCounterVec,
    keys: IntGauge,
    capacity: IntGauge,
    reopened: IntCounter,
    reopen_failing: IntGauge,
    damaged: IntGauge,
    /// The Unix time at which the keys were last counted. It is not registered, so not exported.
    counted_at_s: IntGauge,
    follower_lag: IntGauge,
    list_applied: IntGauge,
    list_settled: IntCounter,
    list_open: IntGauge,
    sampler_lag: IntGauge,
    sampler_errors: IntCounter,
}

/// How the list of keys and the gate agree.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ListState {
    /// For how many seconds the gate has not followed the list.
    pub(crate) lag_s: u64,
    /// The number of the last change of the list that the gate has.
    pub(crate) applied: u64,
    /// The differences that comparisons have settled.
    pub(crate) settled: u64,
    /// The differences that are not settled.
    pub(crate) open: u64,
    /// For how many seconds no use of a key could be added to the list.
    pub(crate) sampler_lag_s: u64,
    /// How often uses could not be added.
    pub(crate) sampler_errors: u64,
}

/// What became of a request to `/settle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settlement {
    Settled,
    BadRequest,
    Unknown,
    Expired,
    Repeated,
    Full,
    Gone,
    Unavailable,
}

impl Settlement {
    const ALL: [Self; 8] = [
        Self::Settled,
        Self::BadRequest,
        Self::Unknown,
        Self::Expired,
        Self::Repeated,
        Self::Full,
        Self::Gone,
        Self::Unavailable,
    ];

    /// Returns the value of the label `result`.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::BadRequest => "bad_request",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Repeated => "repeated",
            Self::Full => "full",
            Self::Gone => "gone",
            Self::Unavailable => "unavailable",
        }
    }
}

/// The upper bounds of the histogram's buckets, in seconds. A check takes about a microsecond, and
/// longer after a page fault or on a busy machine.
const SECONDS: [f64; 12] = [5e-7, 1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 1e-2];

const LABELS: [&str; 2] = ["outcome", "reason"];

/// How long a count of the keys is reused, in seconds. Counting reads the whole gate.
const COUNTED_FOR_S: i64 = 5;

/// Returns all outcomes and reasons of a gate's verdicts. Their counters exist from the start, with
/// value 0.
fn known_verdicts() -> impl Iterator<Item = (Outcome, Option<&'static str>)> {
    // Only a limiter is full, and these two outcomes have a reason.
    let with_reason = [Outcome::InvalidKey, Outcome::Unavailable];
    let alone = move |it: &Outcome| *it != Outcome::Full && !with_reason.contains(it);
    let outcomes = Outcome::ALL.iter().copied().filter(alone).map(|outcome| (outcome, None));
    let reasons = Reason::ALL.iter().map(|it| (Outcome::InvalidKey, Some(it.as_str())));
    let unavailable = Unavailability::ALL.iter();
    let unavailable = unavailable.map(|it| (Outcome::Unavailable, Some(it.as_str())));
    outcomes.chain(reasons).chain(unavailable)
}

impl Metrics {
    /// Returns metrics whose counters are 0. They name at most `named_keys` keys.
    pub(crate) fn new(named_keys: usize) -> prometheus::Result<Self> {
        let verdicts =
            Opts::new("keytally_verdicts_total", "Verdicts of the gate, by outcome and reason.");
        let shadow = Opts::new(
            "keytally_shadow_admissions_total",
            "Requests that only shadow mode admitted, by the outcome that they would have had.",
        );
        let guesses = Opts::new(
            "keytally_guesses_total",
            "Invalid keys beyond the limit of their client network: refused with 429, or admitted by shadow mode.",
        );
        let token_refusals = Opts::new(
            "keytally_token_refusals_total",
            "Requests to the API of the list of keys whose token was not admitted, by outcome and reason.",
        );
        let closed = Opts::new(
            "keytally_connections_closed_total",
            "Connections that the service closed: over the limit of their address, all slots in use, or no progress in time.",
        );
        let settlements = Opts::new(
            "keytally_settlements_total",
            "Requests to /settle, by what became of the charge.",
        );
        let crossed = Opts::new(
            "keytally_crossed_total",
            "Charges that reached a warning of a plan, by section, window and percentage.",
        );
        let seconds = HistogramOpts::new(
            "keytally_check_duration_seconds",
            "Duration of the checks of the gate.",
        );
        let top_denied = Opts::new(
            "keytally_top_denied_total",
            "Denied requests of the keys with the most of them, by key id. Never too high.",
        );
        let used_keys = Opts::new(
            "keytally_gate_keys_used",
            "Active keys that used at least this share of a quota, by plan.",
        );
        let pepper_keys = Opts::new(
            "keytally_gate_pepper_keys",
            "Keys with a valid secret under a pepper, by its number and whether it was given.",
        );
        let table_entries =
            Opts::new("keytally_table_entries", "Entries of a table that are in use.");
        let table_capacity =
            Opts::new("keytally_table_capacity", "The maximum number of entries of a table.");
        let refusals = Opts::new(
            "keytally_limiter_refusals_total",
            "Requests that found no slot in a limiter, since it was created.",
        );
        let metrics = Self {
            registry: Registry::new(),
            verdicts: IntCounterVec::new(verdicts, &LABELS)?,
            shadow: IntCounterVec::new(shadow, &LABELS)?,
            guesses: IntCounterVec::new(guesses, &["action"])?,
            token_refusals: IntCounterVec::new(token_refusals, &LABELS)?,
            preflights: IntCounter::new(
                "keytally_preflights_total",
                "CORS preflights that were admitted at /auth without a key.",
            )?,
            settlements: IntCounterVec::new(settlements, &["result"])?,
            crossed: IntCounterVec::new(crossed, &["section", "window", "percent"])?,
            closed_connections: IntCounterVec::new(closed, &["reason"])?,
            seconds: Histogram::with_opts(seconds.buckets(SECONDS.to_vec()))?,
            ahead: IntCounter::new(
                "keytally_clock_ahead_total",
                "Verdicts whose tally was ahead of the system clock.",
            )?,
            dropped_lines: IntCounter::new(
                "keytally_log_lines_lost_total",
                "Log lines that were dropped.",
            )?,
            denied: DeniedKeys::default(),
            named_keys,
            top_denied: IntCounterVec::new(top_denied, &["key_id"])?,
            used_keys: IntGaugeVec::new(used_keys, &["plan", "share"])?,
            pepper_keys: IntGaugeVec::new(pepper_keys, &["pepper", "given"])?,
            table_entries: IntGaugeVec::new(table_entries, &["table"])?,
            table_capacity: IntGaugeVec::new(table_capacity, &["table"])?,
            refusals: IntCounterVec::new(refusals, &["table"])?,
            keys: IntGauge::new(
                "keytally_gate_keys",
                "Records of the gate that hold a key, revoked or not.",
            )?,
            capacity: IntGauge::new(
                "keytally_gate_capacity",
                "Records of the gate: its maximum number of keys.",
            )?,
            reopened: IntCounter::new(
                "keytally_gate_reopened_total",
                "How often the file at the path of the gate was opened again.",
            )?,
            reopen_failing: IntGauge::new(
                "keytally_gate_reopen_failing",
                "1 while the file at the path of the gate cannot be opened and the previous one stays in use.",
            )?,
            damaged: IntGauge::new(
                "keytally_gate_damaged",
                "1 while the header of the gate is overwritten, so that no key can be checked.",
            )?,
            counted_at_s: IntGauge::new("counted_at", "Not exported.")?,
            follower_lag: IntGauge::new(
                "keytally_follower_lag_seconds",
                "For how long the gate has not followed the list of keys.",
            )?,
            list_applied: IntGauge::new(
                "keytally_list_applied",
                "The number of the last change of the list of keys that the gate has.",
            )?,
            list_settled: IntCounter::new(
                "keytally_list_settled_total",
                "Differences between the list of keys and the gate that comparisons settled.",
            )?,
            list_open: IntGauge::new(
                "keytally_list_open",
                "Differences between the list of keys and the gate that are not settled.",
            )?,
            sampler_lag: IntGauge::new(
                "keytally_sampler_lag_seconds",
                "For how long uses of keys could not be added to the list of keys.",
            )?,
            sampler_errors: IntCounter::new(
                "keytally_sampler_errors_total",
                "How often uses of keys could not be added to the list of keys.",
            )?,
        };
        for (outcome, reason) in known_verdicts() {
            metrics.verdicts.with_label_values(&labels(outcome, reason));
            if outcome != Outcome::Admitted {
                metrics.shadow.with_label_values(&labels(outcome, reason));
                metrics.token_refusals.with_label_values(&labels(outcome, reason));
            }
        }
        for shadow in [false, true] {
            metrics.guesses.with_label_values(&[guess_action(shadow)]);
        }
        for reason in CloseReason::ALL {
            metrics.closed_connections.with_label_values(&[reason.as_str()]);
        }
        for settlement in Settlement::ALL {
            metrics.settlements.with_label_values(&[settlement.as_str()]);
        }
        let registry = &metrics.registry;
        registry.register(Box::new(metrics.verdicts.clone()))?;
        registry.register(Box::new(metrics.shadow.clone()))?;
        registry.register(Box::new(metrics.guesses.clone()))?;
        registry.register(Box::new(metrics.token_refusals.clone()))?;
        registry.register(Box::new(metrics.preflights.clone()))?;
        registry.register(Box::new(metrics.settlements.clone()))?;
        registry.register(Box::new(metrics.crossed.clone()))?;
        registry.register(Box::new(metrics.closed_connections.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        registry.register(Box::new(metrics.ahead.clone()))?;
        registry.register(Box::new(metrics.dropped_lines.clone()))?;
        registry.register(Box::new(metrics.top_denied.clone()))?;
        registry.register(Box::new(metrics.used_keys.clone()))?;
        registry.register(Box::new(metrics.pepper_keys.clone()))?;
        registry.register(Box::new(metrics.table_entries.clone()))?;
        registry.register(Box::new(metrics.table_capacity.clone()))?;
        registry.register(Box::new(metrics.refusals.clone()))?;
        registry.register(Box::new(metrics.keys.clone()))?;
        registry.register(Box::new(metrics.capacity.clone()))?;
        registry.register(Box::new(metrics.reopened.clone()))?;
        registry.register(Box::new(metrics.reopen_failing.clone()))?;
        registry.register(Box::new(metrics.damaged.clone()))?;
        registry.register(Box::new(metrics.follower_lag.clone()))?;
        registry.register(Box::new(metrics.list_applied.clone()))?;
        registry.register(Box::new(metrics.list_settled.clone()))?;
        registry.register(Box::new(metrics.list_open.clone()))?;
        registry.register(Box::new(metrics.sampler_lag.clone()))?;
        registry.register(Box::new(metrics.sampler_errors.clone()))?;
        Ok(metrics)
    }

    /// Counts a verdict.
    pub(crate) fn count(&self, verdict: &Verdict) {
        self.verdicts.with_label_values(&labels(verdict.outcome(), reason_of(verdict))).inc();
        if verdict.clock_ahead_s() > 0 {
            self.ahead.inc();
        }
        if self.named_keys > 0
            && matches!(verdict.outcome(), Outcome::Denied | Outcome::TooCostly)
            && let Some(holder) = verdict.holder()
        {
            self.denied.count(holder.key_id);
        }
    }

    /// Counts a request that only shadow mode admitted.
    pub(crate) fn count_shadow(&self, verdict: &Verdict) {
        self.shadow.with_label_values(&labels(verdict.outcome(), reason_of(verdict))).inc();
    }

    /// Counts a token that the API of the list of keys refused.
    #[cfg(feature = "keys")]
    pub(crate) fn count_token(&self, verdict: &Verdict) {
        self.token_refusals.with_label_values(&labels(verdict.outcome(), reason_of(verdict))).inc();
    }

    /// Counts an invalid key beyond the limit of invalid keys.
    pub(crate) fn count_guess(&self, shadow: bool) {
        self.guesses.with_label_values(&[guess_action(shadow)]).inc();
    }

    /// Counts a CORS preflight that was admitted without a key.
    pub(crate) fn count_preflight(&self) {
        self.preflights.inc();
    }

    /// Counts a request to `/settle`.
    pub(crate) fn count_settlement(&self, settlement: Settlement) {
        self.settlements.with_label_values(&[settlement.as_str()]).inc();
    }

    /// Returns the counter of charges that reached a warning of a plan.
    pub(crate) fn crossed(&self, section: &Section, window: Window, percent: u8) -> IntCounter {
        let (window, percent) = (window.to_string(), percent.to_string());
        self.crossed.with_label_values(&[section.name(), &window, &percent])
    }

    /// Creates the counters of all warnings of the plans, with value 0.
    fn create_crossed(&self, gate: &Gate) {
        for (_, plan) in gate.table().plans() {
            for section in plan.sections.iter() {
                for (quota, warnings) in section.quotas().iter().zip(section.warnings()) {
                    for &percent in warnings.iter().filter(|&&percent| percent > 0) {
                        self.crossed(section.section(), quota.window, percent);
                    }
                }
            }
        }
    }

    /// Returns the counter of connections that the service closed.
    pub(crate) fn closed_connections(&self) -> IntCounterVec {
        self.closed_connections.clone()
    }

    /// Calls `check`, and adds its duration to the histogram.
    pub(crate) fn time<T>(&self, check: impl FnOnce() -> T) -> T {
        let timer = self.seconds.start_timer();
        let verdict = check();
        timer.observe_duration();
        verdict
    }

    /// Returns the counter of log lines that were dropped.
    pub(crate) fn dropped_lines(&self) -> IntCounter {
        self.dropped_lines.clone()
    }

    /// Sets how many keys need each pepper.
    fn count_peppers(&self, gate: &Gate, now: Timestamp) {
        self.pepper_keys.reset();
        let table = gate.table();
        for (number, keys) in table.keys_per_pepper(now).into_iter().enumerate() {
            let given = if table.has_pepper(number) { "true" } else { "false" };
            let labels = [&*number.to_string(), given];
            self.pepper_keys.with_label_values(&labels).set(keys.into());
        }
    }

    /// Counts the keys of the gate, and those of each plan by the share of a quota that they used.
    fn count_keys(&self, gate: &Gate, now: Timestamp) -> u64 {
        self.used_keys.reset();
        let plans: HashMap<u8, [IntGauge; SHARES.len()]> = gate
            .table()
            .plans()
            .map(|(number, plan)| {
                let gauge = |(_, share)| self.used_keys.with_label_values(&[&*plan.name, share]);
                (number, SHARES.map(gauge))
            })
            .collect();
        let mut count = 0;
        for key in gate.table().list(now) {
            count += 1;
            if key.state_name(now) == "active"
                && let Some(gauges) = plans.get(&key.plan)
            {
                let used = used_share(&key);
                let reached = SHARES.iter().zip(gauges).filter(|((share, _), _)| used >= *share);
                reached.for_each(|(_, gauge)| gauge.inc());
            }
        }
        count
    }

    /// Returns all metrics as text.
    pub(crate) fn text(
        &self,
        gate: &Gate,
        status: &FollowStatus,
        list: &ListState,
        tables: impl FnOnce() -> Vec<TableUse>,
    ) -> prometheus::Result<Vec<u8>> {
        self.capacity.set(gate.table().capacity().into());
        self.reopened.inc_by(status.reopened.saturating_sub(self.reopened.get()));
        self.reopen_failing.set(status.problem.is_some().into());
        self.damaged.set(gate.table().is_damaged().into());
        self.follower_lag.set(to_gauge(list.lag_s));
        self.list_applied.set(to_gauge(list.applied));
        self.list_settled.inc_by(list.settled.saturating_sub(self.list_settled.get()));
        self.list_open.set(to_gauge(list.open));
        self.sampler_lag.set(to_gauge(list.sampler_lag_s));
        self.sampler_errors.inc_by(list.sampler_errors.saturating_sub(self.sampler_errors.get()));
        let now = now();
        let now_s = i64::try_from(now.unix_s()).unwrap_or(i64::MAX);
        if now_s.saturating_sub(self.counted_at_s.get()).unsigned_abs()
            >= COUNTED_FOR_S.unsigned_abs()
        {
            self.counted_at_s.set(now_s);
            self.create_crossed(gate);
            let keys = self.count_keys(gate, now);
            self.count_peppers(gate, now);
            self.keys.set(to_gauge(keys));
            let capacity = gate.table().capacity().into();
            let gate = TableUse { name: "gate", entries: keys, capacity, refusals: None };
            for TableUse { name, entries, capacity, refusals } in tables().into_iter().chain([gate])
            {
                if let Some(refusals) = refusals {
                    let counter = self.refusals.with_label_values(&[name]);
                    counter.inc_by(refusals.saturating_sub(counter.get()));
                }
                self.table_entries.with_label_values(&[name]).set(to_gauge(entries));
                self.table_capacity.with_label_values(&[name]).set(to_gauge(capacity));
            }
        }
        self.top_denied.reset();
        for (key_id, count) in self.denied.top(self.named_keys) {
            self.top_denied.with_label_values(&[key_id.to_string()]).inc_by(count);
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// The occupancy of a table.
#[derive(Debug)]
pub(crate) struct TableUse {
    pub(crate) name: &'static str,
    pub(crate) entries: u64,
    pub(crate) capacity: u64,
    /// The requests that found no slot; `None` if the table is not a limiter.
    pub(crate) refusals: Option<u64>,
}

impl TableUse {
    /// Returns that of a limiter. Reads the whole table.
    pub(crate) fn of(name: &'static str, limiter: &Limiter) -> Self {
        let table = limiter.table();
        let (entries, capacity) = (table.live_subjects(now()), table.capacity().into());
        Self { name, entries, capacity, refusals: Some(table.refusals()) }
    }
}

/// The shares of a quota for which keys are counted, in hundredths.
const SHARES: [(u64, &str); 4] = [(50, "0.5"), (80, "0.8"), (90, "0.9"), (100, "1")];

/// Returns the largest share of one of its quotas that a key has used, in hundredths.
fn used_share(key: &KeyInfo) -> u64 {
    let shares = key.quotas.iter().map(|quota| {
        let used = u64::from(quota.limit.saturating_sub(quota.remaining));
        (100 * used).checked_div(quota.limit.into()).unwrap_or(0)
    });
    shares.max().unwrap_or(0)
}

fn to_gauge(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn labels(outcome: Outcome, reason: Option<&'static str>) -> [&'static str; 2] {
    [outcome.as_str(), reason.unwrap_or("none")]
}

const fn guess_action(shadow: bool) -> &'static str {
    if shadow { "shadow" } else { "refused" }
}
