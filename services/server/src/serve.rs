//! The command `serve`: its arguments, its startup message, and its signals.

use alloc::sync::Arc;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use keytally::now;
use keytally::redact::policy_error;
use keytally::{Followed, ParsePolicyError, Plan, Window};
#[cfg(feature = "keys")]
use keytally_keys::page::LinkCommand;
use keytally_tower::KeySources;
use tokio::runtime::Runtime;

use crate::notify::Supervisor;
use crate::service::address::TrustedProxy;
use crate::service::bind::{Listener, Listeners, Sockets, parse_address};
use crate::service::charges::{Charges, MAX_LIFETIME};
use crate::service::data::{self, Data, GateOptions};
use crate::service::guesses::FailurePolicy;
#[cfg(feature = "keys")]
use crate::service::list::ServedList;
use crate::service::listen;
use crate::service::preflight::MethodSource;
use crate::service::refusals::Refusals;
use crate::service::state::{Service, Settings};
use crate::shell::{SHELL, Shell};
use crate::system::{Hangup, StopSignals, hangup};
use keytally_cli::internal::Failure;
use keytally_cli::internal::{
    PepperSource, Status, number_parser, path_parser, pepper_order_warning, pepper_warnings,
    peppers_in_use, plans, pluralized, print_note, times, value_parser,
    warn_of_never_binding_quotas,
};

/// Run the reference service: an example API behind a gate, and /auth for services behind a proxy
///
/// The first start creates the data folder with a gate and its pepper. On a terminal, it also
/// issues a key for account 1 and prints it with a curl command. Otherwise it prints how to issue a
/// key, because the output may be a log. Unless KEYTALLY_PEPPER or --pepper-file is given, the
/// pepper is the one in the folder.
///
/// If the gate file is replaced (mv new.gate api.gate), the service opens the new file within a
/// second. SIGHUP opens it immediately, unless standard input is a terminal.
///
/// Under a supervisor with NOTIFY_SOCKET, such as systemd with Type=notify, the service reports
/// that it accepts requests, that it works (WatchdogSec=), and that it stops.
///
/// GET /api/v1/contacts needs a key and charges 1. GET /api/v1/limits returns the key's quotas and
/// charges nothing. /auth returns 200, 401, 403 or 429 to proxies, with X-Account-Id, X-Key-Id,
/// X-Key-Env and X-Key-Plan, which are empty if no key was admitted. X-Cost sets the cost, X-Group
/// names groups of the plans, and X-Need scopes. An invalid one gets 400, and the proxy must set or
/// remove all three. GET /metrics is for Prometheus, GET
/// /healthz for health checks. HTTP/1.1 and HTTP/2 without TLS (prior knowledge) are supported.
#[derive(Args)]
pub(crate) struct Serve {
    /// Address and port, or unix: and the path of a socket, or systemd: and the name of a socket
    /// that systemd passes, or systemd for the first one. Write an IPv6 address in brackets, as in
    /// `[::1]:8080`. Port 0 selects a free port and prints it
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", env = LISTEN_VARIABLE, hide_env_values = true, value_parser = value_parser(parse_address))]
    listen: String,
    /// Separate address for /metrics, in the form of --listen. /metrics is then not served at
    /// --listen [default: that of --listen]
    #[arg(long, value_name = "ADDRESS", value_parser = value_parser(parse_address))]
    metrics_listen: Option<String>,
    /// Maximum number of keys that /metrics names, those with the most denied requests, 0 to 100
    /// [default: 10 with --metrics-listen, else 0, because clients may reach --listen]
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true, value_parser = number_parser(0..=100_usize))]
    metrics_keys: Option<usize>,
    /// Permissions of Unix socket files, in octal
    #[arg(long, value_name = "MODE", default_value = "660", value_parser = parse_mode)]
    socket_mode: u32,
    /// Folder with the gate and its pepper
    #[arg(long, value_name = "FOLDER", default_value = "./keytally-data", value_parser = path_parser())]
    data: PathBuf,
    /// Fail if the folder has no gate, as after a wrong --data [default: create one]
    #[arg(long)]
    must_exist: bool,
    /// A plan, NAME=SECTIONS, to add to the gate or to change in it; repeatable [default of a new
    /// gate: default=100/minute, 1000/hour]
    #[arg(long = "plan", value_name = "PLAN", value_parser = value_parser(plans::parse))]
    plans: Vec<Plan>,
    /// Capacity of a new gate: the maximum number of accounts. An existing gate must have the same
    /// [default: that of keys if the plans have a section "team", else 0]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = number_parser(0..=keytally::MAX_KEYS))]
    teams: Option<u32>,
    /// A scope that keys of a new gate may have, such as read: 1 to 16 characters; repeatable. An
    /// existing gate must have it
    #[arg(long = "scope", value_name = "NAME")]
    scopes: Vec<String>,
    /// Window of a new gate that X-RateLimit-* describe, such as month: one of the quotas of keys.
    /// An existing gate must have the same [default: the longest of at most a day]
    #[arg(long, value_name = "WINDOW", value_parser = value_parser(plans::parse_window))]
    describe: Option<Window>,
    /// Fleet file of this machine, such as /dev/shm/api.gate.fleet, if machines share the limits of
    /// the gate: see `keytally agent`, which creates it. Without a gate, the start fails [default:
    /// the gate joins no fleet]
    #[arg(long, value_name = "FILE", value_parser = path_parser())]
    fleet: Option<PathBuf>,
    /// Shadow mode: admit all requests, and report those that would be refused in
    /// X-Keytally-Shadow, the metrics and the log
    #[arg(long)]
    shadow: bool,
    /// A header that may carry the key, or `Authorization: Bearer`; repeatable. A request with two
    /// keys that differ gets 401 [default: X-API-Key]
    #[arg(long = "key-from", value_name = "HEADER", value_parser = value_parser(parse_key_source))]
    key_from: Vec<String>,
    /// File of JSON with other statuses and bodies of refusals, by outcome [default: the documented
    /// responses]
    #[arg(long, value_name = "FILE", value_parser = path_parser())]
    refusals: Option<PathBuf>,
    /// A proxy whose X-Forwarded-For names the client: an address, a network such as 10.0.0.0/8, or
    /// unix for all peers of Unix sockets; repeatable. The client is the rightmost address in the
    /// header that is not a trusted proxy
    #[arg(long = "trusted-proxy", value_name = "NETWORK")]
    trusted_proxies: Vec<TrustedProxy>,
    /// Limit of invalid keys from one client address; further ones get 429. A valid key is never
    /// refused for it, and a missing key does not count. An IPv6 address counts with its /64. At
    /// /auth, only addresses that a --trusted-proxy forwards count. off disables the limit
    #[arg(long, value_name = "POLICY", default_value = "20/minute, 200/hour", value_parser = value_parser(parse_failures))]
    failures: Failures,
    /// Admit CORS preflights at /auth without a key: requests for which the proxy sends OPTIONS in
    /// this header. It is X-Forwarded-Method for Traefik and Caddy, X-Original-Method for
    /// ingress-nginx, and :method for Envoy, which uses the method of the client's request. The
    /// proxy must set it on every request; otherwise clients can set it and need no key [default:
    /// not admitted]
    #[arg(long, value_name = "HEADER")]
    preflight_header: Option<MethodSource>,
    /// Let /auth return the charge of each request in X-Keytally-Charge, and accept it once at POST
    /// /settle within this time, 1s to 1h. X-Cost of that request is the actual cost: 0 returns the
    /// charge. All processes of a data folder need the same value. The proxy must not show
    /// X-Keytally-Charge to clients, nor let them reach /settle [default: off]
    #[arg(long, value_name = "LIFETIME", value_parser = parse_settle)]
    settle: Option<Duration>,
    /// Maximum number of open connections. The system's limit of open files may lower it. A
    /// connection takes up to 30 KiB of memory. If all are in use, a new connection closes the one
    /// that has been idle longest
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true, default_value_t = 2048, value_parser = number_parser(1..=65_536_usize))]
    connections: usize,
    /// Maximum number of open connections of one client address. An IPv6 address counts with its
    /// /64. There is no limit for loopback addresses, Unix sockets and trusted proxies
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true, default_value_t = 256, value_parser = number_parser(1..=65_536_usize))]
    connections_per_address: usize,
    /// How long a client may take to send the head of a request or to read a response, and how long
    /// an idle connection stays open
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_timeout)]
    client_timeout: Duration,
    #[cfg(feature = "keys")]
    #[command(flatten)]
    keys: crate::keys::KeysOptions,
}

/// The environment variable of `--listen`, which the command `health` reads too.
pub(crate) const LISTEN_VARIABLE: &str = "KEYTALLY_LISTEN";

/// How many keys the metrics name at a listener of their own.
const NAMED_KEYS: usize = 10;

/// What the startup message has of the page of keys.
struct PageLine {
    /// The command that makes a one-time link.
    command: String,
    /// What must be set for it, as a remark; empty if nothing must be.
    remark: String,
    /// A one-time link, if one is printed.
    link: Option<String>,
}

/// The value of `--failures`: a limit of invalid keys, or `None` for `off`.
#[derive(Clone)]
struct Failures(Option<FailurePolicy>);

/// Parses the value of `--failures`.
fn parse_failures(text: &str) -> Result<Failures, String> {
    let policy = (text != "off").then(|| text.parse()).transpose();
    policy.map(Failures).map_err(|error: ParsePolicyError| {
        format!("{}; off disables the limit", policy_error(&error))
    })
}

/// Checks a value of `--key-from`.
fn parse_key_source(text: &str) -> Result<String, String> {
    let parsed = KeySources::parse([text]).map_err(|error| error.to_string());
    parsed.map(|_| text.to_owned())
}

/// Parses the permissions of a socket file, in octal.
fn parse_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "it must be an octal number from 0 to 777, such as 660".to_owned())
}

/// Parses the value of `--client-timeout`.
fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = times::parse_duration(text)?;
    let range = Duration::from_secs(1)..=Duration::from_secs(3600);
    if range.contains(&timeout) { Ok(timeout) } else { Err("it must be from 1s to 1h".to_owned()) }
}

/// Parses the value of `--settle`: whole seconds.
fn parse_settle(text: &str) -> Result<Duration, String> {
    let lifetime = times::parse_duration(text)?;
    let is_whole = lifetime.subsec_nanos() == 0;
    let range = Duration::from_secs(1)..=MAX_LIFETIME;
    if is_whole && range.contains(&lifetime) {
        Ok(lifetime)
    } else {
        Err("it must be from 1s to 1h, in whole seconds".to_owned())
    }
}

impl Serve {
    /// Runs the service until a signal stops it. `program` is the path for printed commands.
    pub(crate) fn run(self, pepper: &PepperSource, program: &Path) -> Result<Status, Failure> {
        plans::check_distinct(&self.plans)?;
        #[cfg(feature = "keys")]
        self.keys.check()?;
        let key_from = match self.key_from.as_slice() {
            [] => KeySources::default(),
            names => KeySources::parse(names)
                .map_err(|error| Failure::usage(format!("--key-from: {error}")))?,
        };
        let refusals = self.refusals.as_deref().map(Refusals::read).transpose()?;
        let mut sockets = Sockets::new(self.socket_mode);
        let runtime = Runtime::new()?;
        runtime.block_on(async {
            let listener = Listener::bind("--listen", &self.listen, &mut sockets).await?;
            let metrics = match &self.metrics_listen {
                Some(address) => Some(Listener::bind("--metrics-listen", address, &mut sockets).await?),
                None => None,
            };
            #[cfg(feature = "keys")]
            let keys = self.keys.bind(&mut sockets).await?;
            #[cfg(feature = "keys")]
            let public_url = self.keys.public_url(keys.as_ref().unwrap_or(&listener))?;
            #[cfg(not(feature = "keys"))]
            let keys = None;
            let options = GateOptions {
                must_exist: self.must_exist,
                fleet: self.fleet.as_deref(),
                plans: &self.plans,
                teams: self.teams,
                scopes: &self.scopes,
                described: self.describe,
            };
            let data = data::open(&self.data, pepper, options, io::stdout().is_terminal())?;
            // The handlers are installed only after the folder was opened. Opening may wait for a
            // pipe or for another process, and a signal must be able to end that wait.
            let stop = StopSignals::new()?;
            let hangup = hangup()?;
            #[cfg(feature = "keys")]
            let opened = match public_url {
                None => None,
                Some(_) => {
                    let database = self.keys.database.as_deref();
                    match keytally_keys::open::open(&self.data, database, &data.peppers).await {
                        Ok(opened) => Some(opened),
                        Err(error) => return Err(data.revoke_first_key(error.into())),
                    }
                }
            };
            #[cfg(feature = "keys")]
            let link_command =
                self.keys.link_command(program, &self.data, data.pepper_path.as_deref());
            #[cfg(feature = "keys")]
            let link_command = link_command
                .map_err(|error| data.revoke_first_key(Failure::new(error.to_string())))?;
            #[cfg(feature = "keys")]
            let served = self
                .page_line(opened.as_ref(), &data.gate, public_url.as_deref(), &link_command)
                .await;
            #[cfg(feature = "keys")]
            let served = served.map_err(|error| data.revoke_first_key(error))?;
            #[cfg(not(feature = "keys"))]
            let served = None;
            if data.created {
                print_note(&format!(
                    "keytally: {} is new: there was no gate, so no existing key is valid; \
                     --must-exist makes that an error",
                    data.gate_path.display()
                ));
            }
            let in_use = peppers_in_use(&data.gate, now());
            let of_order = pepper_order_warning(&data.gate);
            for warning in pepper_warnings(&in_use).chain(of_order) {
                print_note(&format!("keytally: {warning}"));
            }
            let listeners = Listeners { main: listener, metrics, keys };
            let printed = self.print_startup_message(
                &data,
                &listeners,
                program,
                served.as_ref(),
            );
            if let Err(error) = printed
                && data.first_key.is_some()
            {
                return Err(data.revoke_first_key(Failure::new(error.to_string())));
            }
            drop(data.first_key);
            warn_of_never_binding_quotas(&self.plans);
            #[cfg(feature = "passkeys")]
            if let (Some(opened), Some(public_url)) = (&opened, &public_url) {
                for note in opened.notes_on_passkeys(public_url).await? {
                    print_note(&format!("keytally: {note}"));
                }
            }
            if let Some(FailurePolicy::Network(policy)) = &self.failures.0 {
                policy
                    .never_binding()
                    .for_each(|quotas| print_note(&plans::never_binds("--failures", quotas)));
            }
            let settings = Settings {
                shadow: self.shadow,
                key_from,
                refusals: refusals.unwrap_or_default(),
                metrics_keys: self
                    .metrics_keys
                    .unwrap_or(if self.metrics_listen.is_some() { NAMED_KEYS } else { 0 }),
                proxies: Arc::new(self.trusted_proxies.into_iter().collect()),
                failures: self.failures.0,
                preflights: self.preflight_header,
                connections: self.connections,
                per_address: self.connections_per_address,
                client_timeout: self.client_timeout,
            };
            let charges = match self.settle {
                Some(lifetime) => Some(Charges::open(&self.data, &data.peppers, lifetime)?),
                None => None,
            };
            let gate = Arc::new(Followed::from_gate(data.gate, data.peppers.clone(), Ok)?);
            if let Some(path) = &self.fleet {
                gate.join(path)?;
            }
            #[cfg(feature = "keys")]
            let list = opened.zip(public_url).map(|(opened, public_url)| {
                let list = opened.list(Arc::clone(&gate));
                let api_url = match &listeners.keys {
                    Some(_) => location(&listeners.main),
                    None => public_url.clone(),
                };
                let base_path = self.keys.base_path.clone();
                ServedList { list, public_url, base_path, api_url, link_command }
            });
            let service = Service::new(
                gate,
                charges,
                settings,
                #[cfg(feature = "keys")]
                list,
            )?;
            tokio::spawn(reopen_on(hangup, Arc::clone(&service)));
            #[cfg(feature = "keys")]
            let tasks = service.start_list(self.keys.usage).await?;
            let endpoints = Arc::clone(&service).endpoints(listeners).await?;
            let has_ended = listen::serve(endpoints, stop, &Supervisor::of_environment()).await;
            #[cfg(feature = "keys")]
            if let (Some(tasks), Some(served)) = (tasks, service.list()) {
                tasks.stop().await;
                served.list.database().close().await;
            }
            if !has_ended? {
                print_note("keytally: stopped before all responses were sent: clients read them too slowly");
            }
            Ok(Status::Success)
        })
    }

    /// Returns what is printed of the page of keys. Only a terminal gets a one-time link, because
    /// other output may be a log. `None` if the list is not served.
    #[cfg(feature = "keys")]
    async fn page_line(
        &self,
        opened: Option<&keytally_keys::open::Opened>,
        gate: &keytally::Gate,
        public_url: Option<&str>,
        command: &LinkCommand,
    ) -> Result<Option<PageLine>, Failure> {
        let (Some(opened), Some(public_url)) = (opened, public_url) else { return Ok(None) };
        let base = format!("{public_url}{}", self.keys.base_path);
        let link = match io::stdout().is_terminal() {
            true => opened.link(gate, now()).await?.map(|link| link.url(&base)),
            false => None,
        };
        let remark = match command.variables.join(" and ") {
            variables if variables.is_empty() => variables,
            variables => format!(", with {variables} as now"),
        };
        Ok(Some(PageLine { command: command.line.clone(), remark, link }))
    }

    /// Prints what was created or opened, and commands that use the service.
    fn print_startup_message(
        &self,
        data: &Data,
        listeners: &Listeners,
        program: &Path,
        page: Option<&PageLine>,
    ) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let table = data.gate.table();
        let verb = if data.created { "Created" } else { "Opened" };
        let keys = pluralized(table.capacity(), "key");
        writeln!(out, "{verb} {}, a gate for {keys}.", data.gate_path.display())?;
        if let (true, Some(pepper)) = (data.created, &data.pepper_path) {
            writeln!(
                out,
                "The pepper is in {}: keep a copy, no key can be checked without it.",
                pepper.display()
            )?;
        }
        writeln!(out, "Plans: {}.", plans::describe(table.plans().map(|(_, plan)| plan)))?;
        let scopes: Vec<_> = table.scopes().map(|scope| scope.to_string()).collect();
        if !scopes.is_empty() {
            writeln!(out, "Scopes: {}.", scopes.join(", "))?;
        }
        if self.shadow {
            writeln!(out, "Shadow mode: all requests are admitted.")?;
        }
        let pepper = data
            .pepper_path
            .as_deref()
            .map(|path| format!(" --pepper-file {}", SHELL.word(path.display())))
            .unwrap_or_default();
        let program = SHELL.word(program.display());
        let gate = SHELL.word(data.gate_path.display());
        let with: String = scopes.iter().map(|scope| format!(" --scope {scope}")).collect();
        let issue = format!(
            "{}:\n\n  {program} issue {gate} --account 2{with}{pepper}",
            Shell::remark(&program)
        );
        let Listeners { main: listener, metrics, keys } = listeners;
        let contacts = curl_target(listener, "/api/v1/contacts");
        let Shell { curl, quote, .. } = SHELL;
        match &data.first_key {
            Some(key) => {
                let key = key.expose();
                let with_scopes = if scopes.is_empty() { "" } else { " with all scopes" };
                writeln!(
                    out,
                    "\nThe first key, for account 1{with_scopes}. Store it: it is not shown again.\n\n  {key}"
                )?;
                writeln!(
                    out,
                    "\nSend a request:\n\n  {curl} -i -H {quote}X-API-Key: {key}{quote} {contacts}"
                )?;
                writeln!(out, "\nIssue another key{issue}")?;
            }
            None => {
                let head = match table.list(now()).next() {
                    None => {
                        "No key was issued: standard output is not a terminal, and may be a log. Issue a key"
                    }
                    Some(_) => "Issue a key",
                };
                writeln!(out, "\n{head}{issue}")?;
                writeln!(
                    out,
                    "\nSend a request:\n\n  {curl} -i -H {quote}X-API-Key: KEY{quote} {contacts}"
                )?;
            }
        }
        writeln!(out)?;
        if let Some(page) = page {
            let data = SHELL.word(self.data.display());
            let PageLine { command, remark, link } = page;
            let which = match link {
                None => "a one-time",
                Some(link) => {
                    writeln!(out, "Keys page: {link} (once, for 10 minutes)\n")?;
                    "another"
                }
            };
            writeln!(out, "Get {which} link to the page of keys{remark}:\n\n  {command}\n")?;
            writeln!(
                out,
                "The list of keys has an API below /keys/api/v1. Make a token for it:\n\n  {program} keys token create NAME --data {data}{pepper}\n"
            )?;
        }
        if let Some(keys) = keys {
            writeln!(out, "List of keys on {}", location(keys))?;
        }
        if let Some(metrics) = metrics {
            writeln!(out, "Metrics on {}", location(metrics))?;
        }
        writeln!(out, "Listening on {} (Ctrl-C stops)", location(listener))?;
        out.flush()
    }
}

/// Reopens the gate file on each signal.
async fn reopen_on(mut hangup: Option<Hangup>, service: Arc<Service>) {
    while let Some(hangup) = &mut hangup
        && hangup.recv().await.is_some()
    {
        let service = Arc::clone(&service);
        let _ = tokio::task::spawn_blocking(move || service.reopen()).await;
    }
}

/// Returns the location of a listener for the startup message.
fn location(listener: &Listener) -> String {
    match (listener.tcp_address(), listener.unix_path()) {
        (Some(address), _) => format!("http://{}", reachable(address)),
        (None, path) => format!("unix:{}", path.unwrap_or(Path::new("")).display()),
    }
}

/// Returns the arguments with which curl requests `path` from a listener.
fn curl_target(listener: &Listener, path: &str) -> String {
    match listener.unix_path() {
        Some(socket) => {
            format!("--unix-socket {} http://localhost{path}", SHELL.word(socket.display()))
        }
        // Brackets are a pattern in a shell, so an IPv6 address is quoted.
        None => SHELL.word(format!("{}{path}", location(listener))),
    }
}

/// Replaces an unspecified address by the loopback address, which a client on this machine can use.
pub(crate) fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_command_has_a_usable_address() {
        let reach = |address: &str| reachable(address.parse().unwrap()).to_string();
        assert_eq!(reach("0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(reach("[::]:80"), "[::1]:80");
        assert_eq!(reach("10.0.0.1:80"), "10.0.0.1:80");
    }
}
