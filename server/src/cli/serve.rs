use alloc::sync::Arc;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use keytally_host::now;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Status, given, remark};
use crate::failure::Failure;
use crate::pepper::PepperSource;
use crate::plans;
use crate::service::Service;
use crate::service::data::{self, Data};
use crate::service::listen::{self, Stop};

/// Run the reference service: an API behind a gate, and /auth for services behind a proxy
///
/// The first start makes the data folder, with a gate and its pepper in it. At a terminal it also issues a key for
/// account 1, and prints it with a curl line; elsewhere it says how to issue one, since output may be a log. Unless KEYTALLY_PEPPER or --pepper-file is given, the pepper is the one in the folder.
///
/// When the gate's file is replaced by another (mv new.gate api.gate), that one is opened within a second; SIGHUP opens it at
/// once, unless standard input is a terminal.
///
/// GET /api/v1/contacts needs a key and charges 1. GET /api/v1/limits tells the key's quotas and charges nothing.
/// /auth answers proxies: 200, 401 or 429, with X-Account-Id, X-Key-Id, X-Key-Env and X-Key-Plan; X-Cost sets the
/// cost, and the proxy must set it or take it out. GET /metrics is for Prometheus, GET /healthz for whoever asks.
#[derive(Args)]
pub(super) struct Serve {
    /// Address and port; port 0 takes any that is free, and tells it
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: String,
    /// Folder of the gate and its pepper
    #[arg(long, value_name = "FOLDER", default_value = "./keytally-data", value_parser = given::path())]
    data: PathBuf,
    /// A plan, NAME=POLICY, that is added to the gate, or changed in it [default of a new gate: default=100/minute,
    /// 1000/hour]
    #[arg(long = "plan", value_name = "PLAN")]
    plans: Vec<String>,
    /// Admit everything, and report what would not have been in X-Keytally-Shadow, the metrics and the log
    #[arg(long)]
    shadow: bool,
}

impl Serve {
    pub(super) fn run(self, pepper: &PepperSource, program: &Path) -> Result<Status, Failure> {
        let plans = plans::parse_all(&self.plans)?;
        let runtime = Runtime::new()?;
        runtime.block_on(async {
            let stop = Stop::new()?;
            let hangup = hangup()?;
            let listener = listen::bind(&self.listen).await?;
            let address = reachable(listener.local_addr()?);
            let data = data::open(&self.data, pepper, &plans, io::stdout().is_terminal())?;
            if let Err(error) = self.greet(&data, address, program)
                && data.first_key.is_some()
            {
                return Err(Failure::of(
                    "the first key is issued and can't be printed; issue another",
                    error,
                ));
            }
            drop(data.first_key);
            let service = Arc::new(Service::new(data.gate, data.peppers, self.shadow)?);
            tokio::spawn(reopen_at(hangup, Arc::clone(&service)));
            if !listen::serve(listener, service, stop).await? {
                remark("keytally: stopped with requests unanswered: their clients took too long");
            }
            Ok(Status::Fine)
        })
    }

    /// Says what was made, and how to ask the service something.
    fn greet(&self, data: &Data, address: SocketAddr, program: &Path) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let table = data.gate.table();
        let did = if data.made { "Made" } else { "Opened" };
        writeln!(out, "{did} {}, a gate for {} keys.", data.gate_path.display(), table.capacity())?;
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
        let issue = format!("{} issue {} --account 2{pepper}", quoted(program), quoted(&data.gate_path));
        match &data.first_key {
            Some(key) => {
                let key = key.expose();
                writeln!(out, "\nThe first key, of account 1. It is shown only now:\n\n  {key}")?;
                writeln!(
                    out,
                    "\nTry it:\n\n  curl -i -H 'X-API-Key: {key}' http://{address}/api/v1/contacts"
                )?;
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
                writeln!(out, "\nTry it:\n\n  curl -i -H 'X-API-Key: KEY' http://{address}/api/v1/contacts")?;
            }
        }
        writeln!(out, "\nListening on http://{address} (Ctrl-C stops)")?;
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
