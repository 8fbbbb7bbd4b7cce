//! The state that the routes share, and the settings of a service.

use alloc::sync::Arc;
use core::time::Duration;
use std::path::Path;

use keytally::{FollowEvent, Followed};
#[cfg(feature = "keys")]
use keytally_keys::sampler::Sampler;
use keytally_tower::KeySources;
use tokio::sync::Mutex;
#[cfg(feature = "keys")]
use tokio::sync::oneshot;

use super::address::TrustedProxies;
use super::charges::Charges;
use super::guesses::{FailurePolicy, GuessLimiter};
#[cfg(feature = "keys")]
use super::list::{ListTasks, ServedList};
use super::log::Log;
use super::metrics::{ListState, Metrics, TableUse};
use super::preflight::MethodSource;
use super::refusals::Refusals;
use keytally_cli::internal::Failure;

/// The state that the routes share.
#[derive(Debug)]
pub(crate) struct Service {
    pub(super) gate: Arc<Followed>,
    /// The list of keys, if it is served.
    #[cfg(feature = "keys")]
    pub(super) list: Option<ServedList>,
    pub(super) metrics: Metrics,
    pub(super) log: Log,
    /// Held while the metrics are collected, so that concurrent requests for them occupy only one
    /// thread.
    pub(super) metrics_lock: Arc<Mutex<()>>,
    pub(super) guesses: GuessLimiter,
    /// Makes and settles the tokens of charges, if that is on.
    pub(super) charges: Option<Charges>,
    pub(super) settings: Settings,
}

/// The settings of a service.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Whether all requests are admitted, and refusals are only reported.
    pub(crate) shadow: bool,
    /// The fields that may carry the key of a request.
    pub(crate) key_from: KeySources,
    /// Other statuses and bodies of refusals.
    pub(crate) refusals: Refusals,
    /// The most keys that the metrics name.
    pub(crate) metrics_keys: usize,
    /// The proxies whose `X-Forwarded-For` is trusted.
    pub(crate) proxies: Arc<TrustedProxies>,
    /// The limit of invalid keys per client address, if any.
    pub(crate) failures: Option<FailurePolicy>,
    /// Where proxies state the method of the client's request. If set, CORS preflights are admitted
    /// at `/auth`.
    pub(crate) preflights: Option<MethodSource>,
    /// The maximum number of open connections.
    pub(crate) connections: usize,
    /// The maximum number of open connections per client address.
    pub(crate) per_address: usize,
    /// How long a connection may make no progress.
    pub(crate) client_timeout: Duration,
}

impl Service {
    /// Returns a service for this gate, which is reopened when its file is replaced.
    pub(crate) fn new(
        gate: Arc<Followed>,
        charges: Option<Charges>,
        settings: Settings,
        #[cfg(feature = "keys")] list: Option<ServedList>,
    ) -> Result<Arc<Self>, Failure> {
        let metrics = Metrics::new(settings.metrics_keys)?;
        let log = Log::start(metrics.dropped_lines())?;
        let events = log.gate_event_log();
        gate.watch(move |event| events.log(&event))?;
        let guesses = GuessLimiter::new(settings.failures.as_ref())?;
        let metrics_lock = Arc::default();
        Ok(Arc::new(Self {
            gate,
            #[cfg(feature = "keys")]
            list,
            metrics,
            log,
            metrics_lock,
            guesses,
            charges,
            settings,
        }))
    }

    /// Returns the list of keys, if it is served.
    #[cfg(feature = "keys")]
    pub(crate) fn list(&self) -> Option<&ServedList> {
        self.list.as_ref()
    }

    /// Starts the tasks of the list of keys, if it is served: one keeps the gate up to date with
    /// the list, and one adds the uses of keys to the list. Uses are counted from then on; `usage`
    /// is whether they are, if the operator chose.
    ///
    /// # Errors
    /// If the system has no random numbers.
    #[cfg(feature = "keys")]
    pub(crate) async fn start_list(
        &self,
        usage: Option<bool>,
    ) -> Result<Option<ListTasks>, Failure> {
        let Some(served) = &self.list else { return Ok(None) };
        let report = || {
            let log = self.log.gate_event_log();
            move |sentence: &str| log.list(sentence)
        };
        let list = served.list.clone();
        let url = format!("{}{}", served.public_url, served.base_path);
        if let Err(error) = list.record_url(url).await {
            // The service works without it. Only the command for links does not know its URL.
            report()(&format!("the URL of the page is not recorded: {error}"));
        }
        let following = tokio::spawn(list.follow_always(keytally::now, report()));
        let mut sampler = Sampler::new(served.list.clone(), usage, keytally::now())?;
        // An error is reported by the task.
        let _ = sampler.sample(keytally::now()).await;
        let (stop, stopped) = oneshot::channel();
        let stopped = async { drop(stopped.await) };
        let sampling = tokio::spawn(sampler.sample_always(keytally::now, report(), stopped));
        Ok(Some(ListTasks { following, sampling, stop }))
    }

    /// Returns how the list of keys and the gate agree; zeros if it is not served.
    pub(super) fn list_state(&self) -> ListState {
        #[cfg(feature = "keys")]
        if let Some(served) = &self.list {
            let status = served.list.status();
            return ListState {
                lag_s: status.lag_s(keytally::now()),
                applied: self.gate.load().table().applied_sequence(),
                settled: status.settled,
                open: status.open,
                sampler_lag_s: status.sampler_lag_s(keytally::now()),
                sampler_errors: status.sample_errors,
            };
        }
        ListState::default()
    }

    /// Returns the occupancy of each table besides the gate. Reads the whole tables.
    pub(super) fn tables(&self) -> Vec<TableUse> {
        let settled = self.charges.as_ref().map(Charges::table_use);
        self.guesses.table_use().into_iter().chain(settled).collect()
    }

    /// Reopens the gate file, whether it was replaced or not.
    pub(crate) fn reopen(&self) {
        let events = self.log.gate_event_log();
        match self.gate.reopen() {
            Ok(()) => {
                events
                    .log(&FollowEvent::Reopened(self.gate.load().path().unwrap_or(Path::new(""))));
            }
            Err(error) => events.log(&FollowEvent::Failed(&error)),
        }
    }
}
