//! The metrics of an agent: the text format of Prometheus, version 0.0.4.

use alloc::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use core::time::Duration;
use keytally::FleetFile;
use keytally_cli::internal::Failure;
use keytally_fleet::plan::layout::Phase;
use prometheus::{
    Encoder as _, Gauge, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TEXT_FORMAT,
    TextEncoder,
};
use tokio::sync::Mutex;

use super::commands::{Held, KeysView};
use super::report::{Report, Role, Shared};
use crate::service::bind::Listener;
use crate::service::listen::{Endpoint, MAX_METRICS_CONNECTIONS};
use crate::service::slots::Slots;

/// How long a connection may make no progress.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);

/// Returns the value of a counter.
type CounterValue = fn(&Report) -> u64;

/// The metrics of an agent.
#[derive(Debug)]
pub(crate) struct Metrics {
    shared: Arc<Shared>,
    registry: Registry,
    counters: Vec<(IntCounter, CounterValue)>,
    leading: IntGauge,
    lost: IntGauge,
    joined: IntGauge,
    offset: Gauge,
    tallies: IntGauge,
    held: IntGauge,
    unspent: IntGauge,
    keys_refused: IntGauge,
    keys_age: Gauge,
    /// Held while the metrics are collected.
    lock: Mutex<()>,
}

/// The counters: their names, their descriptions and their values.
const COUNTERS: [(&str, &str, CounterValue); 16] = [
    ("keytally_fleet_lease_requests_total", "Lease requests that were sent.", |report| {
        report.counts.requests
    }),
    ("keytally_fleet_grants_total", "Lease requests whose reply granted units.", |report| {
        report.counts.grants
    }),
    (
        "keytally_fleet_granted_units_total",
        "Units of the longest windows that were granted.",
        |report| report.counts.granted_units,
    ),
    (
        "keytally_fleet_recalls_total",
        "Messages that other machines need idle units of this one.",
        |report| report.counts.recalls,
    ),
    ("keytally_fleet_forgotten_total", "Messages that the store had forgotten units.", |report| {
        report.counts.again
    }),
    (
        "keytally_fleet_relearned_total",
        "Tallies whose units were stated again to the store.",
        |report| report.counts.relearned,
    ),
    (
        "keytally_fleet_refused_windows_total",
        "Windows that the store refused, because by its clock they had ended or not begun.",
        |report| report.counts.refused_windows,
    ),
    (
        "keytally_fleet_unanswered_total",
        "Lease requests without a reply that could be used.",
        |report| report.counts.unanswered,
    ),
    (
        "keytally_fleet_unconfirmed_total",
        "Lease requests that too few replicas confirmed.",
        |report| report.counts.unconfirmed,
    ),
    ("keytally_fleet_connections_total", "Connections that were made to a store.", |report| {
        report.counts.connections
    }),
    (
        "keytally_fleet_deferred_total",
        "How often lease requests had to wait for --max-requests.",
        |report| report.counts.deferred,
    ),
    (
        "keytally_fleet_renamed_total",
        "How often the machine took a new name, and its leased units became void.",
        |report| report.counts.renamed,
    ),
    (
        "keytally_fleet_keys_sent_total",
        "Records of keys that were written to the store.",
        |report| report.keys.counts.sent,
    ),
    (
        "keytally_fleet_keys_applied_total",
        "Changes of keys on other machines that were made in this gate.",
        |report| report.keys.counts.applied,
    ),
    (
        "keytally_fleet_keys_unsealed_total",
        "Records of the store that no machine with the peppers of the fleet had written.",
        |report| report.keys.counts.unsealed,
    ),
    (
        "keytally_fleet_keys_older_total",
        "Records of the store that were older than what the store had before.",
        |report| report.keys.counts.older,
    ),
];

impl Metrics {
    /// Returns the endpoint that serves the metrics at `/metrics`.
    pub(crate) fn endpoint(listener: Listener, shared: Arc<Shared>) -> Result<Endpoint, Failure> {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let mut counters = Vec::new();
        for (name, help, read) in COUNTERS {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            counters.push((counter, read));
        }
        let offset = Gauge::new(
            "keytally_fleet_clock_offset_seconds",
            "How far the clock of the store is ahead of that of this machine.",
        )?;
        registry.register(Box::new(offset.clone()))?;
        let keys_age = Gauge::new(
            "keytally_fleet_keys_age_seconds",
            "How long ago this gate last had all keys of the fleet; 0 if keys are not carried.",
        )?;
        registry.register(Box::new(keys_age.clone()))?;
        let metrics = Arc::new(Self {
            leading: gauge("keytally_fleet_leading", "1 if this agent leads, 0 if it stands by.")?,
            lost: gauge(
                "keytally_fleet_store_lost",
                "1 while this agent leads and the store cannot be reached.",
            )?,
            joined: gauge(
                "keytally_fleet_joined",
                "1 if the gate or limiter is in a fleet, 0 if this machine counts alone.",
            )?,
            offset,
            tallies: gauge(
                "keytally_fleet_tallies",
                "Tallies for which this machine holds units.",
            )?,
            held: gauge(
                "keytally_fleet_held_units",
                "Units of the longest windows that the store counts for this machine.",
            )?,
            unspent: gauge(
                "keytally_fleet_unspent_units",
                "Those of the held units that are not spent. Other machines cannot spend them.",
            )?,
            keys_refused: gauge(
                "keytally_fleet_keys_refused",
                "Keys of other machines that this gate cannot hold.",
            )?,
            keys_age,
            shared,
            registry,
            counters,
            lock: Mutex::default(),
        });
        let closed = IntCounterVec::new(Opts::new("closed", "Not exported."), &["reason"])?;
        let slots = Slots::new(MAX_METRICS_CONNECTIONS, MAX_METRICS_CONNECTIONS, closed);
        let router = Router::new().route("/metrics", get(respond)).with_state(metrics);
        let client_timeout = CLIENT_TIMEOUT;
        Ok(Endpoint { listener, router, slots, proxies: Arc::default(), client_timeout })
    }

    /// Returns all metrics as text. Reads the whole fleet file.
    fn text(&self) -> Result<Vec<u8>, Failure> {
        let report = self.shared.report();
        for (counter, read) in &self.counters {
            counter.inc_by(read(&report).saturating_sub(counter.get()));
        }
        let is_leading = report.role == Role::Leading;
        self.leading.set(is_leading.into());
        self.lost.set((is_leading && report.phase == Phase::Cut).into());
        #[expect(clippy::cast_precision_loss, reason = "a time of less than 2^52 ms")]
        self.offset.set(report.counts.offset_ms as f64 / 1000.0);
        let table = self.shared.open()?;
        self.joined.set(table.fleet().is_in_fleet().into());
        let found = FleetFile::open(&self.shared.file, table.fleet());
        let found = found.map(|file| (Held::of(&file), KeysView::of(&file)));
        if let Ok((Held { tallies, held_units, unspent_units }, keys)) = found {
            self.keys_refused.set(keys.refused.into());
            #[expect(clippy::cast_precision_loss, reason = "a time of less than 2^52 ms")]
            self.keys_age.set(keys.age_ms.unwrap_or(0) as f64 / 1000.0);
            for (gauge, value) in
                [(&self.tallies, tallies), (&self.held, held_units), (&self.unspent, unspent_units)]
            {
                gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            }
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// Responds with the metrics. They are collected on a thread that may block.
async fn respond(State(metrics): State<Arc<Metrics>>) -> Response {
    let _one = metrics.lock.lock().await;
    let metrics = Arc::clone(&metrics);
    match tokio::task::spawn_blocking(move || metrics.text()).await {
        Ok(Ok(text)) => ([(CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "cannot read the metrics\n").into_response(),
    }
}
