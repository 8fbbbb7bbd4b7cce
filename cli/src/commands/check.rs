use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use clap::Args;
use keytally::Gate;
use keytally::{Reason, Verdict};
use serde::Serialize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{Format, GateFile, Status, remark};
use crate::failure::Failure;
use crate::pepper::PepperSource;
use crate::times;
use crate::views::Use;

/// Check a key as a request that carries it would be, and charge it
///
/// Exit status 0 when admitted, 1 when denied or invalid. Unlike a client, you are told why a key is invalid.
#[derive(Args)]
pub(crate) struct Check {
    #[command(flatten)]
    gate: GateFile,
    /// The key. Left out, or with -, it is the first line of standard input. Prefer that: every user of this machine
    /// can see the arguments of your processes
    #[arg(
        long,
        value_name = "KEY",
        default_value = "-",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    key: OsString,
    /// What the request costs
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    cost: u32,
    /// Charge nothing
    #[arg(long)]
    peek: bool,
    #[command(flatten)]
    format: Format,
}

/// The longest line that is read as a key; no key of any form is so long.
const MAX_LINE_LEN: u64 = 4096;

#[derive(Serialize)]
struct Answer {
    outcome: &'static str,
    /// Why the key is invalid.
    reason: Option<&'static str>,
    status: u16,
    cost: u32,
    charged: bool,
    account: Option<u32>,
    key_id: Option<String>,
    env: Option<String>,
    plan: Option<String>,
    quotas: Vec<Use>,
    retry_after: Option<u32>,
    headers: Map<String, Value>,
    body: &'static str,
}

impl Check {
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        let from_input = self.key == OsStr::new("-");
        if from_input {
            pepper.leaves_standard_input("the key")?;
        }
        let gate = self.gate.open(pepper)?;
        let key = if from_input { read_line()? } else { Zeroizing::new(self.key.into_encoded_bytes()) };
        let verdict =
            if self.peek { gate.peek(Some(&key), self.cost) } else { gate.check(Some(&key), self.cost) };
        let answer = Answer::of(&verdict, &gate, self.cost, !self.peek);
        self.format.print(&answer, |out| {
            write!(out, "{}", answer.outcome)?;
            if let Some(reason) = answer.reason {
                write!(out, " ({reason})")?;
            }
            if let (Some(key_id), Some(account)) = (&answer.key_id, answer.account) {
                let [env, plan] = [&answer.env, &answer.plan].map(|name| name.as_deref().unwrap_or("?"));
                write!(out, ": key {key_id}, account {account}, env {env}, plan {plan}")?;
            }
            writeln!(out)?;
            for quota in &answer.quotas {
                let reset = times::rfc3339(quota.reset);
                writeln!(
                    out,
                    "  {} of {} left in the {}, reset {reset}",
                    quota.remaining, quota.limit, quota.window
                )?;
            }
            match answer.retry_after {
                Some(seconds) => writeln!(out, "  worth trying again in {seconds} s"),
                None => Ok(()),
            }
        })?;
        Ok(if verdict.is_admitted() { Status::Fine } else { Status::No })
    }
}

impl Answer {
    fn of(verdict: &Verdict, gate: &Gate, cost: u32, charging: bool) -> Self {
        let holder = verdict.holder();
        let table = gate.table();
        let headers = verdict.headers();
        Self {
            outcome: verdict.outcome().as_str(),
            reason: verdict.reason().map(Reason::as_str),
            status: verdict.http_status(),
            cost,
            charged: charging && verdict.is_admitted(),
            account: holder.map(|holder| holder.account),
            key_id: holder.map(|holder| holder.key_id.to_string()),
            env: holder.and_then(|holder| table.env(holder.env)).map(|env| env.to_string()),
            plan: holder.and_then(|holder| table.plan(holder.plan)).map(|plan| plan.name.as_str().to_owned()),
            quotas: Use::of(verdict.quotas()),
            retry_after: verdict.retry_after_s(),
            headers: headers.iter().map(|(name, value)| (name.to_owned(), value.into())).collect(),
            body: verdict.body(),
        }
    }
}

/// One line of standard input, without its end.
fn read_line() -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut line = Zeroizing::new(Vec::with_capacity(256));
    let input = io::stdin().lock();
    if input.is_terminal() {
        remark("The key, then Enter:");
    }
    input
        .take(MAX_LINE_LEN)
        .read_until(b'\n', &mut line)
        .map_err(|error| Failure::of("cannot read the key from standard input", error))?;
    let len = line.trim_ascii_end().len();
    line.truncate(len);
    if line.is_empty() {
        return Err(Failure::because("there is no key on standard input"));
    }
    Ok(line)
}
