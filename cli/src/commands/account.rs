//! The command `account`.

use std::path::Path;

use clap::Args;
use keytally::{AccountInfo, AdminError, Gate, Outcome, Sections};
use serde::Serialize;

use crate::arguments;
use crate::failure::Failure;
use crate::gate_file::{GateFileToChange, GateToChange, counts_are_moving};
use crate::output::OutputFormat;
use crate::pepper::PepperSource;
use crate::plans;
use crate::status::Status;
use crate::times;
use crate::views::QuotaUse;

/// Show an account and what its keys share, or change it
///
/// An account is made when its first key is issued. It has the team limits of the plan of that key
/// until it is given others. Its keys keep their own plans.
#[derive(Args)]
pub(crate) struct Account {
    #[command(flatten)]
    gate: GateFileToChange,
    /// Number of the account
    #[arg(value_name = "ACCOUNT", value_parser = arguments::value_parser(arguments::parse_account), allow_negative_numbers = true)]
    account: u32,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    format: OutputFormat,
}

/// The change of an account; none if the account is only shown.
#[derive(Args)]
#[group(multiple = false)]
struct Change {
    /// Name of the plan whose team limits hold from now on
    #[arg(long, value_name = "NAME", value_parser = arguments::value_parser(plans::parse_name))]
    plan: Option<String>,
    /// Limits instead of those of the plan, with the windows of the section "team", such as
    /// "5000/hour, 100000/day"
    #[arg(long, value_name = "LIMITS", value_parser = arguments::value_parser(plans::parse_limits))]
    limits: Option<Sections>,
    /// Refuse all keys of the account from the next check on
    #[arg(long)]
    suspend: bool,
    /// Accept the keys of the account again
    #[arg(long)]
    resume: bool,
    /// Set the counts that the keys of the account share to zero
    #[arg(long)]
    reset: bool,
}

#[derive(Serialize)]
struct AccountView {
    account: u32,
    suspended: bool,
    plan: Option<String>,
    /// Whether the account has limits of its own instead of the plan's.
    own_limits: bool,
    quotas: Vec<QuotaUse>,
}

impl Account {
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        let gate = self.gate.open(pepper)?;
        self.change.make(&gate, self.account)?;
        let gate = gate.current();
        let info = gate.account(self.account).ok_or(AdminError::NoSuchAccount(self.account))?;
        let view = AccountView::new(&info, &gate);
        self.format.print(&view, |out| {
            let plan = view.plan.as_deref().unwrap_or("?");
            let limits = if view.own_limits { "its own limits" } else { "the limits of plan" };
            write!(out, "account {}: ", view.account)?;
            if view.suspended {
                write!(out, "suspended, ")?;
            }
            writeln!(
                out,
                "{limits}{}",
                if view.own_limits { String::new() } else { format!(" {plan}") }
            )?;
            for quota in &view.quotas {
                let reset = times::rfc3339(quota.reset_unix_s);
                let QuotaUse { window, remaining, limit, .. } = quota;
                writeln!(out, "  {window}: {remaining} of {limit} left, reset {reset}")?;
            }
            Ok(())
        })?;
        Ok(Status::Success)
    }
}

impl Change {
    fn make(self, gate: &GateToChange, account: u32) -> Result<(), Failure> {
        if let Some(plan) = &self.plan {
            gate.change(|gate| gate.assign_account(account, plan))
                .map_err(|error| plans::no_such_plan(&gate.current(), Some(plan), error))?;
        }
        if let Some(limits) = &self.limits {
            let quotas = limits.iter().next().map_or(&[][..], |section| section.quotas());
            gate.change(|gate| gate.limit_account(account, quotas))
                .map_err(|error| plans::not_limits(&gate.current(), limits, error))?;
        }
        if self.suspend || self.resume {
            gate.change(|gate| gate.set_suspended(account, self.suspend))?;
        }
        if !self.reset {
            return Ok(());
        }
        match gate.call(|gate| gate.reset_account(account)) {
            None => Err(AdminError::NoSuchAccount(account).into()),
            Some(Outcome::Unavailable) => {
                Err(counts_are_moving(gate.current().path().unwrap_or(Path::new(""))))
            }
            Some(_) => Ok(()),
        }
    }
}

impl AccountView {
    fn new(info: &AccountInfo, gate: &Gate) -> Self {
        let table = gate.table();
        let quotas = info
            .quotas()
            .iter()
            .flat_map(|quotas| QuotaUse::of_section("team", quotas).collect::<Vec<_>>());
        Self {
            account: info.account,
            suspended: info.is_suspended,
            plan: table.plan(info.plan).map(|plan| plan.name.as_str().to_owned()),
            own_limits: info.has_own_limits,
            quotas: quotas.collect(),
        }
    }
}
