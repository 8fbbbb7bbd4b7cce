use alloc::sync::Arc;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::RangedU64ValueParser;
use keytally::now;
use keytally::redact::{policy_error, redact};
use keytally::{Plan, Policy, ParsePolicyError, parse_key};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::service::address::TrustedProxy;
use crate::service::bind::Listener;
use crate::service::data::{self, Data};
use crate::service::listen::{self, Stop};
use crate::service::preflight::MethodSource;
use crate::service::{Service, Settings};
use keytally_cli::Failure;
use keytally_cli::PepperSource;
use keytally_cli::taken_back;
use keytally_cli::{Status, counted, remark, warn_of};
use keytally_cli::{given, plans, times};

/// Run the reference service: an API behind a gate, and /auth for services behind a proxy
///
/// The first start makes the data folder, with a gate and its pepper in it. At a terminal it also issues a key for
/// account 1, and prints it with a curl line; elsewhere it says how to issue one, since output may be a log. Unless KEYTALLY_PEPPER or --pepper-file is given, the pepper is the one in the folder.
///
/// When the gate's file is replaced by another (mv new.gate api.gate), that one is opened within a second; SIGHUP opens it at
/// once, unless standard input is a terminal.
///
/// GET /api/v1/contacts needs a key and charges 1. GET /api/v1/limits reports the key's quotas and charges nothing.
/// /auth answers proxies: 200, 401 or 429, with X-Account-Id, X-Key-Id, X-Key-Env and X-Key-Plan, which are empty when
/// no key was admitted. X-Cost sets the cost, and the proxy must set it or remove it. GET /metrics is for Prometheus,
/// GET /healthz for health checks. Both HTTP/1.1 and HTTP/2 without TLS (prior knowledge) are served.
#[derive(Args)]
pub(crate) struct Serve {
    /// Address and port, or unix: and the path of a socket. An IPv6 address stands in brackets, as in `[::1]:8080`. Port
    /// 0 takes any that is free, and prints it
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = given::value(parse_address))]
    listen: String,
    /// Another address like that of --listen for /metrics, which is then served only there [default: that of --listen]
    #[arg(long, value_name = "ADDRESS", value_parser = given::value(parse_address))]
    metrics_listen: Option<String>,
    /// Permissions of the files of Unix sockets, in octal
    #[arg(long, value_name = "MODE", default_value = "660", value_parser = parse_mode)]
    socket_mode: u32,
    /// Folder of the gate and its pepper
    #[arg(long, value_name = "FOLDER", default_value = "./keytally-data", value_parser = given::path())]
    data: PathBuf,
    /// A plan, NAME=POLICY, that is added to the gate, or changed in it [default of a new gate: default=100/minute,
    /// 1000/hour]
    #[arg(long = "plan", value_name = "PLAN", value_parser = given::value(plans::parse))]
    plans: Vec<Plan>,
    /// Admit everything, and report what would not have been in X-Keytally-Shadow, the metrics and the log
    #[arg(long)]
    shadow: bool,
    /// A proxy whose X-Forwarded-For names the client: an address, a network such as 10.0.0.0/8, or unix for all peers
    /// of Unix sockets. The client is the rightmost address there that is no trusted proxy. Repeatable
    #[arg(long = "trusted-proxy", value_name = "NETWORK")]
    trusted_proxies: Vec<TrustedProxy>,
    /// How many wrong keys a client address may send; more are answered with 429. A right key is never refused by it,
    /// and a missing key does not count. An IPv6 address counts with its /64. At /auth, only addresses that a
    /// --trusted-proxy forwards count. Or: off
    #[arg(long, value_name = "POLICY", default_value = "20/minute, 200/hour", value_parser = given::value(parse_failures))]
    failures: Failures,
    /// Let CORS preflights pass at /auth without a key: requests whose method, as the proxy states it in this header,
    /// is OPTIONS. It is X-Forwarded-Method for Traefik and Caddy, X-Original-Method for ingress-nginx, and :method for
    /// Envoy, which asks with the method itself. The proxy must set it on every request: clients who could would pass
    /// without a key [default: none pass]
    #[arg(long, value_name = "HEADER")]
    preflight_header: Option<MethodSource>,
    /// How many connections there are at a time, as far as the system lets the process open files. One takes up to 30
    /// KiB of memory. A further one displaces that which has sent no request for the longest time
    #[arg(long, value_name = "COUNT", default_value_t = 2048, value_parser = RangedU64ValueParser::<usize>::new().range(1..=65_536))]
    connections: usize,
    /// How many connections a client address may have at a time. An IPv6 address counts with its /64. Loopback
    /// addresses, Unix sockets and trusted proxies may have any number
    #[arg(long, value_name = "COUNT", default_value_t = 256, value_parser = RangedU64ValueParser::<usize>::new().range(1..=65_536))]
    connections_per_address: usize,
    /// How long a client may take to send the head of a request or to read an answer, and how long an idle connection
    /// is kept
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_timeout)]
    client_timeout: Duration,
}

/// A limit of failed checks, or none.
#[derive(Clone)]
struct Failures(Option<Policy>);

fn parse_failures(text: &str) -> Result<Failures, String> {
    let policy = (text != "off").then(|| text.parse()).transpose();
    policy.map(Failures).map_err(|error: ParsePolicyError| format!("{}; or write off", policy_error(&error)))
}

/// Reads an address as far as it can be told without a look at the machine.
fn parse_address(text: &str) -> Result<String, String> {
    let is_tcp = |(host, port): (&str, &str)| {
        let brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let has_host = match brackets {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => !host.is_empty() && !host.contains([':', '[', ']']),
        };
        has_host && port.parse::<u16>().is_ok()
    };
    let is_address = match text.strip_prefix("unix:") {
        Some(path) => !path.is_empty(),
        None => text.rsplit_once(':').is_some_and(is_tcp),
    };
    if is_address {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{:?} is not an address and a port, such as 127.0.0.1:8080 or [::1]:8080, nor unix: and a path",
        redact(text)
    ))
}

fn parse_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "it must be an octal number from 0 to 777, such as 660".to_owned())
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = times::span(text)?;
    let range = Duration::from_secs(1)..=Duration::from_secs(3600);
    if range.contains(&timeout) { Ok(timeout) } else { Err("it must be from 1s to 1h".to_owned()) }
}

impl Serve {
    pub(crate) fn run(self, pepper: &PepperSource, program: &Path) -> Result<Status, Failure> {
        plans::refuse_twins(&self.plans)?;
        let runtime = Runtime::new()?;
        runtime.block_on(async {
            let listener = Listener::bind("--listen", &self.listen, self.socket_mode).await?;
            let metrics = match &self.metrics_listen {
                Some(address) => Some(Listener::bind("--metrics-listen", address, self.socket_mode).await?),
                None => None,
            };
            let data = data::open(&self.data, pepper, &self.plans, io::stdout().is_terminal())?;
            // Until here a signal ends the process at once: opening may wait for a pipe or for another process.
            let stop = Stop::new()?;
            let hangup = hangup()?;
            if let Err(error) = self.greet(&data, &listener, metrics.as_ref(), program)
                && let Some(parts) = data.first_key.as_ref().map(|key| parse_key(key.expose().as_bytes()))
            {
                return Err(taken_back(&data.gate, parts?.id, &Failure::because(error.to_string())));
            }
            drop(data.first_key);
            warn_of(&self.plans);
            if let Some(policy) = &self.failures.0 {
                plans::warnings("--failures", policy).iter().for_each(|text| remark(text));
            }
            let settings = Settings {
                shadow: self.shadow,
                proxies: Arc::new(self.trusted_proxies.into_iter().collect()),
                failures: self.failures.0,
                preflights: self.preflight_header,
                connections: self.connections,
                per_address: self.connections_per_address,
                patience: self.client_timeout,
            };
            let service = Service::new(data.gate, data.peppers, settings)?;
            tokio::spawn(reopen_at(hangup, Arc::clone(&service)));
            let doors = service.doors(listener, metrics).await?;
            if !listen::serve(doors, stop).await? {
                remark("keytally: stopped with requests unanswered: their clients took too long");
            }
            Ok(Status::Fine)
        })
    }

    /// Says what was made, and how to ask the service something.
    fn greet(
        &self,
        data: &Data,
        listener: &Listener,
        metrics: Option<&Listener>,
        program: &Path,
    ) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let table = data.gate.table();
        let did = if data.made { "Made" } else { "Opened" };
        let keys = counted(table.capacity(), "key");
        writeln!(out, "{did} {}, a gate for {keys}.", data.gate_path.display())?;
        if let (true, Some(pepper)) = (data.made, &data.pepper_path) {
            writeln!(
                out,
                "Its pepper is in {}: keep a copy, without it no key can be checked.",
                pepper.display()
            )?;
        }
        writeln!(out, "Plans: {}.", plans::in_words(table.plans().map(|(_, plan)| plan)))?;
        if self.shadow {
            writeln!(out, "Shadow mode: everything is admitted.")?;
        }
        let pepper = data
            .pepper_path
            .as_deref()
            .map(|path| format!(" --pepper-file {}", quoted(path)))
            .unwrap_or_default();
        let contacts = curl_target(listener, "/api/v1/contacts");
        let issue = format!("{} issue {} --account 2{pepper}", quoted(program), quoted(&data.gate_path));
        match &data.first_key {
            Some(key) => {
                let key = key.expose();
                writeln!(out, "\nThe first key, of account 1. It is shown only now:\n\n  {key}")?;
                writeln!(out, "\nTry it:\n\n  curl -i -H 'X-API-Key: {key}' {contacts}")?;
                writeln!(out, "\nAnother key:\n\n  {issue}")?;
            }
            None => {
                let head = match table.list(now()).next() {
                    None => {
                        "No key is issued yet: standard output is not a terminal, so it may be a log. Issue one with"
                    }
                    Some(_) => "A key",
                };
                writeln!(out, "\n{head}:\n\n  {issue}")?;
                writeln!(out, "\nTry it:\n\n  curl -i -H 'X-API-Key: KEY' {contacts}")?;
            }
        }
        writeln!(out)?;
        if let Some(metrics) = metrics {
            writeln!(out, "Metrics are on {}", location(metrics))?;
        }
        writeln!(out, "Listening on {} (Ctrl-C stops)", location(listener))?;
        out.flush()
    }
}

/// SIGHUP, taken over from now on. In a terminal it means that the terminal was closed, and still ends the service.
fn hangup() -> io::Result<Option<Signal>> {
    if io::stdin().is_terminal() { Ok(None) } else { signal(SignalKind::hangup()).map(Some) }
}

/// Opens the gate's file again whenever the signal comes.
async fn reopen_at(mut hangup: Option<Signal>, service: Arc<Service>) {
    while let Some(hangup) = &mut hangup
        && hangup.recv().await.is_some()
    {
        let service = Arc::clone(&service);
        let _ = tokio::task::spawn_blocking(move || service.reopen()).await;
    }
}

/// Where a listener is, as the greeting shows it.
fn location(listener: &Listener) -> String {
    match (listener.tcp_address(), listener.unix_path()) {
        (Some(address), _) => format!("http://{}", reachable(address)),
        (None, path) => format!("unix:{}", path.unwrap_or(Path::new("")).display()),
    }
}

/// The arguments that make curl ask a listener for `path`.
fn curl_target(listener: &Listener, path: &str) -> String {
    match listener.unix_path() {
        Some(socket) => format!("--unix-socket {} http://localhost{path}", quoted(socket)),
        // A shell may take brackets for a pattern.
        None => quoted(Path::new(&format!("{}{path}", location(listener)))),
    }
}

/// Where a client on this machine finds what listens on every address.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+=@,:".contains(&byte);
    if text.bytes().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_to_paste_has_an_address_and_a_path_that_work() {
        let reach = |address: &str| reachable(address.parse().unwrap()).to_string();
        assert_eq!(reach("0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(reach("[::]:80"), "[::1]:80");
        assert_eq!(reach("10.0.0.1:80"), "10.0.0.1:80");
        assert_eq!(quoted(Path::new("./keytally-data/pepper")), "./keytally-data/pepper");
        assert_eq!(quoted(Path::new("it's here")), r"'it'\''s here'");
    }
}
