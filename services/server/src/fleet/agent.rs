//! The command `agent`: leads a machine of a fleet, or stands by until the leading agent ends.

use alloc::sync::Arc;
use core::time::Duration;
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;

use clap::Args;
use keytally::redact::redact;
use keytally::{Error, FleetError, FleetFile, Quota, now};
use keytally_cli::internal::{
    Align, Columns, Failure, OutputFormat, PepperSource, Status, number_parser, print_note,
    value_parser,
};
use keytally_core::sync::Ordering;
use keytally_fleet::plan::layout::{PageError, PageState, PageWord, Phase};
use keytally_fleet::{Agent, FleetConfig, MAX_CONFIRM, OnLoss, REQUESTS_PER_S, UnusableKey};
use tokio::runtime::Runtime;
use tokio::time::interval;

use super::commands::KeysView;
use super::files::{FleetPath, Table, TableFile};
use super::keys::{self, KeysOptions, KeysReport};
use super::metrics::Metrics;
use super::report::{Report, Role, Shared, lacking, replicas_of};
use super::store::{StoreOptions, failure};
use crate::notify::Supervisor;
use crate::service::bind::{Listener, Sockets, parse_address};
use crate::service::listen;
use crate::system::{StopSignals, host_name};

/// How often an agent that stands by tries to lead.
const RETRY: Duration = Duration::from_millis(5);

/// How often the state is reported to the supervisor and to standard error.
const REPORT: Duration = Duration::from_millis(100);

/// Run the agent of this machine, which shares the limits of a gate or a limiter with other
/// machines
///
/// The machines of a fleet lease units of each limit from one Redis or Valkey. The agent is the
/// only process of the machine that talks to it. Servers spend the units from memory, by the fleet
/// file that the agent creates: they open the gate or limiter with that file. The limits are shared
/// from keytally fleet join on. A limiter must be a copy of one file on all machines, with the same
/// name.
///
/// Of several agents of a gate on a machine, one leads, and the others stand by until it ends.
/// SIGTERM and SIGINT end the agent. The units that it has leased stay in the fleet file: servers
/// spend them, and the next agent continues with them. If the gate file is replaced, the agent
/// opens the new one within a second.
///
/// Under a supervisor with NOTIFY_SOCKET, such as systemd with Type=notify, the agent reports when
/// it is ready, its state, and that it works.
#[derive(Args)]
pub(crate) struct AgentCommand {
    #[command(flatten)]
    table: TableFile,
    #[command(flatten)]
    store: StoreOptions,
    /// What a request without units gets while the store cannot be reached: closed refuses it with
    /// 503, share decides by the machine's own count and the limit divided by --machines, open by
    /// its own count and the whole limit. --explain prints what each admits
    #[arg(long, value_name = "closed|share|open", value_parser = value_parser(parse_on_loss))]
    on_loss: OnLoss,
    /// Number of machines of the fleet
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = number_parser(1..=u32::MAX))]
    machines: Option<u32>,
    /// Number of replicas of the store that must have confirmed a grant before it is used
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, default_value_t = 0, value_parser = number_parser(0..=MAX_CONFIRM))]
    confirm: u32,
    /// Maximum number of lease requests per second
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, default_value_t = REQUESTS_PER_S, value_parser = number_parser(1..=u32::MAX))]
    max_requests: u32,
    #[command(flatten)]
    keys: KeysOptions,
    #[command(flatten)]
    file: FleetPath,
    /// Address and port, or unix: and the path of a socket, at which /metrics is served for
    /// Prometheus [default: not served]
    #[arg(long, value_name = "ADDRESS", value_parser = value_parser(parse_address))]
    metrics: Option<String>,
    /// Print what --on-loss admits for each limit of the gate or limiter, and exit
    #[arg(long)]
    explain: bool,
}

/// Parses the value of `--on-loss`.
fn parse_on_loss(text: &str) -> Result<OnLoss, String> {
    text.parse().map_err(|_| {
        format!(
            "{:?} is not what a request gets while the store is lost: it must be closed, share or \
             open",
            redact(text)
        )
    })
}

impl AgentCommand {
    /// Runs the agent until a signal ends it.
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        let config = self.config()?;
        let table = self.table.open(pepper)?;
        if self.explain {
            return explain(&table, &config, self.keys);
        }
        config.store.verify().map_err(|error| failure(&error))?;
        let peppers = match &table {
            Table::Gate(_) => Some(pepper.require()?),
            Table::Limiter(_) | Table::Addresses(_) => None,
        };
        let shared = Arc::new(Shared {
            table: self.table.path().to_owned(),
            kind: table.kind(),
            file: self.file.of(self.table.path()),
            peppers,
            report: Mutex::default(),
            is_ending: Mutex::default(),
        });
        let mut sockets = Sockets::new(SOCKET_MODE);
        let runtime = Runtime::new()?;
        runtime.block_on(async {
            let mut endpoints = Vec::new();
            if let Some(address) = &self.metrics {
                let listener = Listener::bind("--metrics", address, &mut sockets).await?;
                endpoints.push(Metrics::endpoint(listener, Arc::clone(&shared))?);
            }
            let stop = StopSignals::new()?;
            print_note(&format!(
                "keytally: agent of {} in fleet {}, with the fleet file {}",
                shared.table.display(),
                config.name,
                shared.file.display()
            ));
            let leader = Leader { shared: Arc::clone(&shared), config, keys: self.keys };
            let mut leading = tokio::task::spawn_blocking(move || leader.run(table));
            // The endpoint of the metrics reports nothing, since `report` does.
            let (supervisor, none) = (Supervisor::of_environment(), Supervisor::default());
            let ended = tokio::select! {
                served = listen::serve(endpoints, stop, &none) => served.map(|_| None),
                ended = &mut leading => Ok(Some(ended)),
                () = report(&shared, &supervisor) => Ok(None),
            };
            supervisor.report("STOPPING=1");
            shared.end();
            match ended? {
                Some(ended) => ended??,
                None => leading.await??,
            }
            Ok(Status::Success)
        })
    }

    /// Returns the configuration of the fleet.
    fn config(&self) -> Result<FleetConfig, Failure> {
        let needs_machines = match self.on_loss {
            OnLoss::Closed => false,
            OnLoss::Share => true,
            OnLoss::Open => self.explain,
        };
        if needs_machines && self.machines.is_none() {
            return Err(Failure::usage(format!(
                "--on-loss {}: add --machines, the number of machines of the fleet",
                self.on_loss
            )));
        }
        Ok(FleetConfig {
            machines: self.machines.unwrap_or(1),
            confirm: self.confirm,
            requests_per_s: self.max_requests,
            host: host_name(),
            ..FleetConfig::new(self.store.name(), self.store.config(), self.on_loss)
        })
    }
}

/// The permissions of the socket file of the metrics.
const SOCKET_MODE: u32 = 0o660;

/// Prints what the choice on loss of the store admits for each limit.
fn explain(table: &Table, config: &FleetConfig, keys: KeysOptions) -> Result<Status, Failure> {
    let FleetConfig { on_loss, machines, .. } = *config;
    let rule = match on_loss {
        OnLoss::Closed => "then refuses with 503".to_owned(),
        OnLoss::Share => format!("then admits a share by its own count: 1/{machines} of the limit"),
        OnLoss::Open => "then admits the whole limit by its own count".to_owned(),
    };
    let right = |text: String| (text, Align::Right);
    let mut columns = Columns::new([
        ("PLAN".to_owned(), Align::Left),
        ("SECTION".to_owned(), Align::Left),
        ("WINDOW".to_owned(), Align::Left),
        right("LIMIT".to_owned()),
        right("ALONE".to_owned()),
        right("ONE CUT OFF".to_owned()),
        right("ALL CUT OFF".to_owned()),
    ]);
    let mut add = |plan: &str, section: &str, quotas: &[Quota]| {
        for quota in quotas {
            let most = |cut_off| on_loss.most_admitted(quota.limit, machines, cut_off);
            columns.push(vec![
                plan.to_owned(),
                section.to_owned(),
                quota.window.to_string(),
                quota.limit.to_string(),
                on_loss.limit(quota.limit, machines).unwrap_or(0).to_string(),
                most(1).to_string(),
                most(machines).to_string(),
            ]);
        }
    };
    match table {
        Table::Gate(gate) => {
            for (_, plan) in gate.table().plans() {
                for section in plan.sections.iter() {
                    add(plan.name.as_str(), section.section().name(), section.quotas());
                }
            }
        }
        Table::Limiter(limiter) => {
            if let Some(policy) = limiter.policy() {
                add("-", "subject", policy.quotas());
            }
        }
        Table::Addresses(limiter) => {
            for (prefix, quotas) in limiter.policy().iter().flat_map(|policy| policy.iter()) {
                add("-", &format!("/{prefix}"), quotas);
            }
        }
    }
    OutputFormat { json: false }.print(&(), |mut out| {
        writeln!(
            out,
            "--on-loss {on_loss}: a machine without the store spends the units that it has leased, {rule}."
        )?;
        if keys.is_never_stale(table) {
            writeln!(
                out,
                "--stale-after never: it accepts keys that were revoked on other machines since then."
            )?;
        }
        if let Some(stale_after) = keys.stale_after(table) {
            let seconds = stale_after.as_secs();
            writeln!(
                out,
                "--stale-after: after {seconds} s without the store, it refuses all keys with 503."
            )?;
        }
        if config.store.allow_eviction {
            writeln!(
                out,
                "--allow-eviction: each time the store evicts a count, its window admits at most \
                 the limit again, in addition to what the table says."
            )?;
        }
        let who = match machines {
            1 => "one machine admits".to_owned(),
            _ => format!("{machines} machines together admit"),
        };
        writeln!(
            out,
            "The most that {who} in a window, by how many of them are cut off from the store in \
             it:\n"
        )?;
        columns.write(&mut out)
    })?;
    Ok(Status::Success)
}

/// The thread of the agent.
#[derive(Debug)]
struct Leader {
    shared: Arc<Shared>,
    config: FleetConfig,
    keys: KeysOptions,
}

impl Leader {
    /// Leads and stands by, with this table and the gates that replace it, until the agent must
    /// end.
    fn run(&self, table: Table) -> Result<(), Failure> {
        let mut next = self.lead(&table, true)?;
        drop(table);
        while let Some(table) = next.take() {
            next = self.lead(&table, false)?;
        }
        Ok(())
    }

    /// Leads with a table, after the agent that leads now. Returns the gate that has replaced it,
    /// or none if the agent must end.
    fn lead(&self, table: &Table, mut is_first: bool) -> Result<Option<Table>, Failure> {
        let watched = Watched { shared: &self.shared, table, examined: Mutex::default() };
        let file = loop {
            let file = match FleetFile::replace(&self.shared.file, table.fleet()) {
                Err(Error::Fleet { path, source }) if is_of_another(&source) => {
                    if is_first {
                        let path = path.display();
                        return Err(Failure::new(format!(
                            "{path}: {source}, whose agent runs; name another file with --file"
                        )));
                    }
                    // The agent that leads with the replaced gate will notice that too.
                    self.note(Role::StandingBy);
                    if watched.must_end(None) {
                        return Ok(watched.successor());
                    }
                    sleep(RETRY);
                    continue;
                }
                file => file?,
            };
            // From here on, a file of another gate is one whose gate has replaced this one.
            is_first = false;
            self.agent(&file)?.verify_fleet().map_err(|error| failure(&error))?;
            let is_at_path = || file.is_at_path().unwrap_or(false);
            while !file.try_lock()? {
                self.note(Role::StandingBy);
                if watched.must_end(Some(&file)) {
                    return Ok(watched.successor());
                }
                if !is_at_path() {
                    break;
                }
                sleep(RETRY);
            }
            // Another agent may have replaced the file.
            if is_at_path() {
                break file;
            }
        };
        let agent = self.agent(&file)?;
        agent.verify_fleet().map_err(|error| failure(&error))?;
        self.note(Role::Leading);
        self.compare_options(table, &file);
        let peppers = self.shared.peppers.as_ref();
        let carrier = self.keys.carrier(table, &file, &self.config, peppers);
        let carrier = carrier.map_err(|error| failure(&error))?;
        let carrier = carrier.as_ref();
        // A former agent may have been killed.
        self.publish(&file, Vec::new());
        let result = keys::run(&agent, carrier, || {
            let state = PageState::from_bits(file.page(PageWord::State).load(Ordering::Acquire));
            let problem = match state.phase {
                Phase::Cut => agent.problem().map(|problem| problem.to_string()),
                _ => None,
            };
            let must_end = watched.must_end(Some(&file));
            let unusable = agent.unusable_keys();
            if unusable != self.shared.reported().unusable {
                self.publish(&file, unusable);
            }
            let mut report = self.shared.reported();
            (report.phase, report.counts, report.problem) = (state.phase, agent.counts(), problem);
            report.replicas = replicas_of(&file);
            report.keys = KeysReport::of(carrier);
            must_end
        });
        self.publish(&file, Vec::new());
        result.map_err(|error| failure(&error))?;
        Ok(watched.successor())
    }

    /// Returns an agent of the machine with this fleet file.
    fn agent<'f, 't>(&self, file: &'f FleetFile<'t>) -> Result<Agent<'f, FleetFile<'t>>, Failure> {
        Agent::new(file, &self.config).map_err(|error| failure(&error))
    }

    /// Prints which options differ from those of the agent that led before.
    fn compare_options(&self, table: &Table, file: &FleetFile<'_>) {
        let load = |word| file.page(word).load(Ordering::Acquire);
        let before = PageState::from_bits(load(PageWord::State));
        let Some(on_loss) = before.on_loss else { return };
        let FleetConfig { on_loss: its_on_loss, machines, .. } = self.config;
        let mut changes = Vec::new();
        let mut compare = |option: &str, its: String, before: String| {
            if its != before {
                changes.push(format!("{option} {its} instead of {before}"));
            }
        };
        compare("--on-loss", its_on_loss.to_string(), on_loss.to_string());
        if its_on_loss == OnLoss::Share && on_loss == OnLoss::Share {
            compare("--machines", machines.to_string(), before.machines.to_string());
        }
        let [current, close] = [PageWord::KeysCurrent, PageWord::KeysClose].map(load);
        let is_known = current > 0 && (close == 0 || close > current);
        if is_known && self.keys.is_carried(table) && KeysView::of(file).is_carried() {
            let text = |stale_ms: Option<u64>| {
                stale_ms.map_or("never".to_owned(), |stale_ms| format!("{} s", stale_ms / 1000))
            };
            let its = self.keys.stale_after(table).map(|time| time.as_secs() * 1000);
            compare("--stale-after", text(its), text(close.checked_sub(current)));
        }
        if !changes.is_empty() {
            print_note(&format!(
                "keytally: other options than the agent that led before: {}",
                changes.join(", ")
            ));
        }
    }

    /// Reports which keys of the store lease requests cannot use, also to the fleet file.
    fn publish(&self, file: &FleetFile<'_>, unusable: Vec<UnusableKey>) {
        let keys: Vec<_> = unusable.iter().map(|it| it.key.clone()).collect();
        file.set_page_texts(PageWord::UnusableKeys, &keys);
        self.shared.reported().unusable = unusable;
    }

    fn note(&self, role: Role) {
        self.shared.reported().role = role;
    }
}

/// Returns whether a fleet file is that of another gate or limiter.
fn is_of_another(error: &FleetError) -> bool {
    match error {
        FleetError::Page(page) => !matches!(page, PageError::NotAFleet | PageError::Empty),
        FleetError::Length { .. } => true,
        _ => false,
    }
}

/// A gate that may be replaced, or a limiter.
#[derive(Debug)]
struct Watched<'w> {
    shared: &'w Shared,
    table: &'w Table,
    examined: Mutex<Examined>,
}

/// What was at the paths of the table and of the fleet file.
#[derive(Debug, Default)]
struct Examined {
    /// When, in Unix seconds.
    second: u64,
    successor: Option<Table>,
}

impl Watched<'_> {
    /// Returns whether the agent must end, or continue with another gate. Examines the paths once a
    /// second. A gate that cannot be opened, as while it is written, counts as none.
    fn must_end(&self, file: Option<&FleetFile<'_>>) -> bool {
        let mut examined = self.examined.lock().unwrap_or_else(PoisonError::into_inner);
        let second = now().unix_s();
        let mut report = self.shared.reported();
        if examined.second != second {
            examined.second = second;
            if matches!(self.table.is_at_path(), Ok(false)) {
                examined.successor = self.shared.open().ok();
            }
            report.is_removed = file.is_some_and(|file| !file.is_at_path().unwrap_or(false));
        }
        report.turns = report.turns.wrapping_add(1);
        report.is_shared = self.table.fleet().is_in_fleet();
        drop(report);
        examined.successor.is_some() || self.shared.is_ending()
    }

    /// Returns the gate that has replaced this one, unless the agent must end.
    fn successor(self) -> Option<Table> {
        let examined = self.examined.into_inner().unwrap_or_else(PoisonError::into_inner);
        examined.successor.filter(|_| !self.shared.is_ending())
    }
}

/// Reports the state to the supervisor and to standard error, whenever it changes. Never returns.
async fn report(shared: &Shared, supervisor: &Supervisor) {
    let (kind, path) = (shared.kind, shared.table.display());
    let mut ticks = interval(REPORT);
    let (mut is_ready, mut last, mut was_shared) = (false, String::new(), true);
    let (mut last_of_keys, mut last_damage, mut last_unusable) = (None, None, Vec::new());
    let (mut was_behind, mut last_renamed) = (false, 0);
    let mut fed = (0, 0);
    loop {
        ticks.tick().await;
        let Report {
            role,
            phase,
            problem,
            replicas,
            unusable,
            is_shared,
            is_removed,
            turns,
            counts,
            keys,
        } = shared.report();
        let state = match (role, phase, problem) {
            (Role::Starting, ..) | (Role::Leading, Phase::Absent, _) => continue,
            (Role::Leading, ..) if is_removed => format!(
                "{} was removed: restart this agent, and then the servers",
                shared.file.display()
            ),
            (Role::StandingBy, ..) => format!("standing by: another agent of this {kind} leads"),
            (_, Phase::Cut, Some(problem)) => format!("the store is lost: {problem}"),
            (_, Phase::Cut, None) => "the store is lost".to_owned(),
            (_, Phase::Learning, _) => "connected: for a second, no units are leased".to_owned(),
            (_, Phase::Leading, _) => replicas
                .map_or_else(|| "leading".to_owned(), |it| format!("leading, but {}", lacking(it))),
        };
        if state != last {
            print_note(&format!("keytally: {state}"));
            supervisor.report(&format!("STATUS={state}"));
            last = state;
        }
        // A lost store is reported as the state.
        if keys.problem != last_of_keys && phase != Phase::Cut {
            match &keys.problem {
                Some(problem) => print_note(&format!("keytally: keys: {problem}")),
                None => print_note("keytally: keys: all keys of the fleet are in the gate"),
            }
            last_of_keys = keys.problem;
        }
        if keys.damage != last_damage {
            if let Some(damage) = &keys.damage {
                print_note(&format!("keytally: keys: {damage}"));
            }
            last_damage = keys.damage;
        }
        if keys.is_behind && !was_behind {
            print_note(&format!(
                "keytally: keys: {path} is an older copy of the gate that this machine had, so all \
                 keys are refused until the agent has read all changes from the store"
            ));
        } else if was_behind && !keys.is_behind {
            print_note("keytally: keys: all keys of the fleet are in the gate");
        }
        was_behind = keys.is_behind;
        if counts.renamed > last_renamed {
            print_note(
                "keytally: the units that this machine had leased are void until their windows \
                 end: the fleet file was overwritten, the clock of the store was set, or another \
                 machine had the same name",
            );
        }
        last_renamed = counts.renamed;
        for key in unusable.iter().filter(|key| !last_unusable.contains(*key)) {
            print_note(&format!("keytally: {key}"));
        }
        last_unusable = unusable;
        if was_shared && !is_shared {
            print_note(&format!(
                "keytally: {path} is not in a fleet, so each machine counts alone; when its \
                 servers use the fleet file: keytally fleet join {path}"
            ));
        }
        was_shared = is_shared;
        if !is_ready {
            supervisor.report("READY=1");
            is_ready = true;
        }
        // A quarter of the time, so that a report that is late is not too late.
        fed.0 += 1;
        let is_due = supervisor.watchdog().is_some_and(|time| REPORT * fed.0 >= time / 4);
        if is_due && turns != fed.1 {
            supervisor.report("WATCHDOG=1");
            fed = (0, turns);
        }
    }
}
