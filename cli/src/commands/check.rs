//! The command `check`.

use core::mem;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::path::PathBuf;

use clap::Args;
use keytally::redact::{redact, redact_name};
use keytally::{
    Compound, FleetFile, Gate, GatePart, Mapping, NamedQuota, Reason, Section, TallyVerdict,
};
use serde::Serialize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::arguments::{self, parse_digits};
use crate::failure::Failure;
use crate::gate_file::GateFile;
use crate::output::{OutputFormat, print_note};
use crate::pepper::PepperSource;
use crate::status::Status;
use crate::times;
use crate::views::QuotaUse;

/// Check a key as a server would for a request, and charge the cost
///
/// The exit status is 0 if the request is admitted, 1 if it is denied or the key is invalid. The
/// output contains the reason why a key is invalid. A server never sends that reason to a client.
#[derive(Args)]
pub(crate) struct Check {
    #[command(flatten)]
    gate: GateFile,
    /// The key. Without this option, or with -, the key is the first line of standard input.
    /// Standard input is safer: every user of this machine can see the arguments of a process
    #[arg(
        long,
        value_name = "KEY",
        default_value = "-",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    key: OsString,
    /// Cost of the request, in units of the quotas
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, default_value_t = 1, value_parser = arguments::number_parser(0..=u32::MAX))]
    cost: u32,
    /// A group of the plan that is charged too, as NAME, or as NAME=COST for a cost of its own.
    /// Repeat the option for more
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// A scope that the key must have. Repeat the option for more
    #[arg(long = "need", value_name = "SCOPE")]
    needs: Vec<String>,
    /// Fleet file of this machine, for a gate that shares its limits with other machines: see
    /// `keytally agent`
    #[arg(long = "fleet", value_name = "FILE", value_parser = arguments::path_parser())]
    fleet_file: Option<PathBuf>,
    /// Do not charge the cost
    #[arg(long)]
    peek: bool,
    #[command(flatten)]
    format: OutputFormat,
}

/// The maximum length of the line with the key, in bytes. No key of any form is that long.
const MAX_LINE_LEN: u64 = 4096;

#[derive(Serialize)]
struct Report {
    outcome: &'static str,
    /// Why the key is invalid, for the administrator only.
    reason: Option<&'static str>,
    http_status: u16,
    cost: u32,
    charged: bool,
    account: Option<u32>,
    key_id: Option<String>,
    env: Option<String>,
    plan: Option<String>,
    quotas: Vec<QuotaUse>,
    /// The warnings of the plan that this charge reached.
    crossed: Vec<CrossedWarning>,
    retry_after_s: Option<u32>,
    headers: Map<String, Value>,
    body: &'static str,
}

/// A warning of a plan that a charge reached.
#[derive(Serialize)]
struct CrossedWarning {
    section: String,
    window: String,
    /// The percentage of the limit.
    percent: u8,
    #[serde(skip)]
    name: String,
}

impl Check {
    pub(crate) fn run(mut self, pepper: &PepperSource) -> Result<Status, Failure> {
        let from_stdin = self.key == OsStr::new("-");
        if from_stdin {
            pepper.check_stdin_is_free("the key")?;
        }
        let followed = self.gate.follow(pepper)?;
        if let Some(file) = &self.fleet_file {
            let gate = followed.load();
            gate.join(file)?;
            FleetFile::open(file, &*gate)?.verify_gate()?;
        }
        let key = if from_stdin {
            read_line()?
        } else {
            Zeroizing::new(mem::take(&mut self.key).into_encoded_bytes())
        };
        let compound = followed.call(|gate| self.check(gate, &key))?;
        let report = Report::new(&compound, &followed.load(), self.cost, !self.peek);
        self.format.print(&report, |out| {
            write!(out, "{}", report.outcome)?;
            if let Some(reason) = report.reason {
                write!(out, " ({reason})")?;
            }
            if let (Some(key_id), Some(account)) = (&report.key_id, report.account) {
                let [env, plan] =
                    [&report.env, &report.plan].map(|name| name.as_deref().unwrap_or("?"));
                write!(out, ": key {key_id}, account {account}, env {env}, plan {plan}")?;
            }
            writeln!(out)?;
            for quota in &report.quotas {
                let reset = times::rfc3339(quota.reset_unix_s);
                writeln!(
                    out,
                    "  {}: {} of {} left, reset {reset}",
                    quota.name(),
                    quota.remaining,
                    quota.limit
                )?;
            }
            for crossed in &report.crossed {
                writeln!(out, "  warning: {} has reached {} %", crossed.name, crossed.percent)?;
            }
            match report.retry_after_s {
                Some(seconds) => writeln!(out, "  retry after {seconds} s"),
                None => Ok(()),
            }
        })?;
        Ok(if compound.is_admitted() { Status::Success } else { Status::Denied })
    }

    /// Checks the key with its groups and scopes.
    fn check(&self, gate: &Gate, key: &[u8]) -> Result<Compound, Failure> {
        let mut part = gate.part(Some(key), self.cost);
        for (index, group) in self.groups.iter().enumerate() {
            let name = name_of(group);
            if self.groups[..index].iter().any(|before| name_of(before) == name) {
                let name = redact_name(name);
                return Err(Failure::usage(format!("the group {name:?} is given twice")));
            }
            part = with_group(part, group)?;
        }
        for scope in &self.needs {
            part = part.with_scope(scope).map_err(|error| Failure::new(error.to_string()))?;
        }
        let all = if self.peek { keytally::peek_all } else { keytally::check_all };
        all(&[&part]).map_err(|error| Failure::new(error.to_string()))
    }
}

impl Report {
    fn new(compound: &Compound, gate: &Gate, cost: u32, charging: bool) -> Self {
        let holder = compound.holder();
        let table = gate.table();
        let headers = compound.headers();
        Self {
            outcome: compound.outcome().as_str(),
            reason: compound.reason().map(Reason::as_str),
            http_status: compound.http_status(),
            cost,
            charged: charging && compound.is_admitted(),
            account: holder.map(|holder| holder.account),
            key_id: holder.map(|holder| holder.key_id.to_string()),
            env: holder.and_then(|holder| table.env(holder.env)).map(|env| env.to_string()),
            plan: holder
                .and_then(|holder| table.plan(holder.plan))
                .map(|plan| plan.name.as_str().to_owned()),
            quotas: QuotaUse::of_request(Some(compound), compound.decisive()),
            crossed: crossed_by(compound),
            retry_after_s: compound.retry_after_s(),
            headers: headers.iter().map(|(name, value)| (name.to_owned(), value.into())).collect(),
            body: compound.body(),
        }
    }
}

/// Returns the warnings of the plan that a charge reached.
fn crossed_by(compound: &Compound) -> Vec<CrossedWarning> {
    let warning = |(tally, window, percent): (&TallyVerdict, usize, u8)| {
        let section = tally.section().unwrap_or(&Section::Key).name();
        let state = tally.verdict().quotas().get(window)?;
        Some(CrossedWarning {
            section: section.to_owned(),
            window: state.window.to_string(),
            percent,
            name: NamedQuota::new(Some(section), state, 0, false).to_string(),
        })
    };
    compound.crossed().filter_map(warning).collect()
}

/// Returns the name of a group that is written NAME or NAME=COST.
fn name_of(group: &str) -> &str {
    group.split_once('=').map_or(group, |(name, _)| name)
}

/// Adds a group, NAME or NAME=COST, to a request.
fn with_group<'g>(
    part: GatePart<'g, Mapping>,
    group: &str,
) -> Result<GatePart<'g, Mapping>, Failure> {
    let part = match group.split_once('=') {
        None => part.with_group(group),
        Some((name, cost)) => {
            let cost = parse_digits(cost).ok_or_else(|| {
                Failure::usage(format!(
                    "{:?} is not a group; write NAME or NAME=COST, with a cost of 0 to {}",
                    redact(group),
                    u32::MAX
                ))
            })?;
            part.with_group_cost(name, cost)
        }
    };
    part.map_err(|error| Failure::new(error.to_string()))
}

/// Reads the first line of standard input, without trailing white space.
fn read_line() -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut line = Zeroizing::new(Vec::with_capacity(256));
    let input = io::stdin().lock();
    if input.is_terminal() {
        print_note("Type the key, then press Enter:");
    }
    input
        .take(MAX_LINE_LEN)
        .read_until(b'\n', &mut line)
        .map_err(|error| Failure::with_context("cannot read the key from standard input", error))?;
    let len = line.trim_ascii_end().len();
    line.truncate(len);
    if line.is_empty() {
        return Err(Failure::new("no key on standard input"));
    }
    Ok(line)
}
