//! The options of an agent for the keys of its gate, which it carries to other machines.

use core::time::Duration;
use std::thread;

use clap::Args;
use keytally::redact::redact;
use keytally::{FleetFile, Peppers};
use keytally_cli::internal::{times, value_parser};
use keytally_core::sync::{AtomicU64, Ordering};
use keytally_fleet::plan::layout::KeysMode;
use keytally_fleet::{Agent, FleetConfig, FleetError, KeyCarrier, KeyCounts, set_not_carried};

use super::files::Table;

/// The options for the keys of the gate.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct KeysOptions {
    /// Do not carry the keys of the gate to the other machines of the fleet. The agent never does
    /// for a gate that follows a list of keys
    #[arg(long)]
    no_keys: bool,
    /// How long the store may be out of reach before all keys are refused with 503, such as 5m, or
    /// never: a key that was revoked on another machine is valid here until then
    #[arg(long, value_name = "TIME", default_value = "5m", conflicts_with = "no_keys", value_parser = value_parser(parse_stale_after))]
    stale_after: StaleAfter,
}

/// The time without the store after which keys are refused.
#[derive(Clone, Copy, Debug)]
struct StaleAfter(Option<Duration>);

/// The shortest time that keys can be out of date, so that a restart of the store closes nothing.
const LEAST_STALE_AFTER: Duration = Duration::from_secs(5);

/// Parses the value of `--stale-after`.
fn parse_stale_after(text: &str) -> Result<StaleAfter, String> {
    if text == "never" {
        return Ok(StaleAfter(None));
    }
    match times::parse_duration(text) {
        Ok(time) if time >= LEAST_STALE_AFTER => Ok(StaleAfter(Some(time))),
        Ok(_) => {
            let least = LEAST_STALE_AFTER.as_secs();
            Err(format!("{text:?} is too short: it must be at least {least} s, or never"))
        }
        Err(why) => Err(format!("{:?} is not a time: {why}; or never", redact(text))),
    }
}

impl KeysOptions {
    /// Returns after which time without the store keys are refused; `None` if they never are.
    pub(crate) fn stale_after(&self, table: &Table) -> Option<Duration> {
        self.stale_after.0.filter(|_| self.is_carried(table))
    }

    /// Returns whether keys are carried, and never refused for the time without the store.
    pub(crate) fn is_never_stale(&self, table: &Table) -> bool {
        self.stale_after.0.is_none() && self.is_carried(table)
    }

    /// Returns whether the agent carries the keys of a gate.
    pub(crate) fn is_carried(&self, table: &Table) -> bool {
        self.mode(table) == KeysMode::Carried
    }

    /// Returns how the keys of a gate get to other machines. A limiter has none.
    fn mode(&self, table: &Table) -> KeysMode {
        match table {
            Table::Gate(_) if self.no_keys => KeysMode::Off,
            Table::Gate(gate) if gate.table().applied_sequence() > 0 => KeysMode::List,
            Table::Gate(_) => KeysMode::Carried,
            Table::Limiter(_) | Table::Addresses(_) => KeysMode::Off,
        }
    }

    /// Returns what carries the keys of a gate with these peppers, if the agent does.
    pub(crate) fn carrier<'g>(
        &self,
        table: &'g Table,
        file: &'g FleetFile<'g>,
        config: &FleetConfig,
        peppers: Option<&Peppers>,
    ) -> Result<Option<KeyCarrier<'g>>, FleetError> {
        match (table, self.mode(table), peppers) {
            (Table::Gate(gate), KeysMode::Carried, Some(peppers)) => {
                let stale_after = self.stale_after(table);
                KeyCarrier::new(gate, file, config, peppers, stale_after).map(Some)
            }
            (_, mode, _) => {
                set_not_carried(file, mode);
                Ok(None)
            }
        }
    }
}

/// Runs an agent, and what carries its keys in a thread of its own, until `is_stopped` returns true
/// or one of them fails.
pub(crate) fn run(
    agent: &Agent<'_, FleetFile<'_>>,
    carrier: Option<&KeyCarrier<'_>>,
    is_stopped: impl Fn() -> bool,
) -> Result<(), FleetError> {
    let Some(carrier) = carrier else { return agent.run(is_stopped) };
    let has_ended = AtomicU64::new(0);
    let ended = || has_ended.load(Ordering::Acquire) != 0;
    thread::scope(|scope| {
        let carried = scope.spawn(|| {
            let _end = End(&has_ended);
            carrier.run(|| agent.key_messages(), ended)
        });
        let led = {
            let _end = End(&has_ended);
            agent.run(|| is_stopped() || ended())
        };
        match carried.join() {
            Ok(carried) => carried.and(led),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Lets the other thread end, also if this one panics.
struct End<'e>(&'e AtomicU64);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(1, Ordering::Release);
    }
}

/// What an agent reports of the keys that it carries.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeysReport {
    pub(crate) counts: KeyCounts,
    /// Why keys are not carried, or which key the gate refuses.
    pub(crate) problem: Option<String>,
    /// What the log says if the file that remembers the carried keys was damaged.
    pub(crate) damage: Option<String>,
    /// Whether the gate is an older copy, so that all keys are refused.
    pub(crate) is_behind: bool,
}

impl KeysReport {
    /// Returns what is to be reported now.
    pub(crate) fn of(carrier: Option<&KeyCarrier<'_>>) -> Self {
        carrier.map_or_else(Self::default, |carrier| Self {
            counts: carrier.counts(),
            problem: carrier.problem(),
            damage: carrier.damage(),
            is_behind: carrier.is_behind(),
        })
    }
}
