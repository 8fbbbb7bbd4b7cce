//! The command `issue`, and what `rotate` and `import` share with it: the arguments of a new key
//! and the printing of a key.

use core::time::Duration;

use clap::Args;
use keytally::NewKey;
use keytally::{AdminError, Error, Gate, now};
use keytally::{Key, KeyId, Name};

use crate::arguments;
use crate::arguments::parse_name;
use crate::failure::Failure;
use crate::gate_file::{FleetWait, GateFileToChange};
use crate::output::{OutputFormat, print_note};
use crate::pepper::PepperSource;
use crate::status::Status;
use crate::system::is_output_discarded;
use crate::views::NewKeyView;
use crate::{plans, times};

/// Issue a key and print it once
///
/// The key alone goes to standard output, the other details to standard error. The gate stores only
/// an HMAC of the key: a lost key cannot be shown again, only rotated. If the key cannot be
/// printed, it is revoked.
#[derive(Args)]
pub(crate) struct Issue {
    #[command(flatten)]
    gate: GateFileToChange,
    #[command(flatten)]
    new: NewKeyArgs,
    #[command(flatten)]
    fleet: FleetWait,
    #[command(flatten)]
    format: OutputFormat,
}

/// The arguments that describe a new key.
#[derive(Args)]
pub(crate) struct NewKeyArgs {
    /// Number of the account that the key belongs to
    #[arg(long, value_name = "NUMBER", value_parser = arguments::value_parser(arguments::parse_account), allow_negative_numbers = true)]
    account: u32,
    /// Environment, such as live or test
    #[arg(long, value_name = "NAME", default_value = "live", value_parser = parse_name)]
    env: Name,
    /// Name of the plan [default: the first plan of the gate]
    #[arg(long, value_name = "NAME", value_parser = arguments::value_parser(plans::parse_name))]
    plan: Option<String>,
    /// How long the key is valid, such as 90d [default: without end]
    #[arg(long, value_name = "TIME", value_parser = times::parse_lifetime)]
    expires: Option<Duration>,
    /// A scope that the key has, of those of the gate. Repeat the option for more [default: none]
    #[arg(long = "scope", value_name = "NAME")]
    scopes: Vec<String>,
}

impl NewKeyArgs {
    /// Returns the names of the key's scopes.
    pub(crate) fn scopes(&self) -> Vec<&str> {
        self.scopes.iter().map(String::as_str).collect()
    }

    /// Returns the description of the new key, which begins to be valid now and has these scopes.
    ///
    /// # Errors
    /// A usage error if the key would expire later than a gate can store.
    pub(crate) fn to_new_key<'a>(&'a self, scopes: &'a [&'a str]) -> Result<NewKey<'a>, Failure> {
        let expires = self.expires.map(|lifetime| times::expiry(now(), lifetime)).transpose()?;
        let mut new = NewKey::new(self.account, self.env).with_expires(expires);
        (new.plan, new.scopes) = (self.plan.as_deref(), scopes);
        Ok(new)
    }
}

impl Issue {
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        let gate = self.gate.open_for_new_secret(pepper)?;
        self.fleet.verify(&gate.current())?;
        let scopes = self.new.scopes();
        let new = self.new.to_new_key(&scopes)?;
        let (key, key_id) = gate
            .change(|gate| gate.issue(&new))
            .map_err(|error| not_issued(&gate.current(), &new, error))?;
        // Before the wait for other machines: a signal during the wait would else leave a valid key
        // that was never printed.
        if let Err(failure) = print_once(self.format, &key, key_id, &gate.current()) {
            return Err(unprinted(key_id, &failure, gate.change(|gate| gate.revoke(key_id))));
        }
        self.fleet.wait(&gate.current())
    }
}

/// Returns the failure to issue a key. If the gate is full, it has the time at which the record of
/// an ended key is free.
fn not_issued(gate: &Gate, new: &NewKey<'_>, error: Error) -> Failure {
    let is_full = matches!(error, Error::Admin { source: AdminError::Full { .. }, .. });
    let failure = plans::no_such_name(gate, new, error);
    match gate.table().free_from(now()).filter(|_| is_full) {
        Some(from) => Failure::new(format!(
            "{}; the first record of an ended key is free at {}",
            failure.message(),
            times::rfc3339(from.unix_ms().div_ceil(1000))
        )),
        None => failure,
    }
}

/// Revokes a key that could not be printed, and returns the failure that reports it.
///
/// A part of the output may have reached a reader, so the key must not stay valid.
pub fn revoke_unprinted(gate: &Gate, key_id: KeyId, failure: &Failure) -> Failure {
    unprinted(key_id, failure, gate.revoke(key_id))
}

fn unprinted(key_id: KeyId, failure: &Failure, revoked: Result<(), Error>) -> Failure {
    let why = failure.message();
    Failure::new(match revoked {
        Ok(()) => format!("the key could not be printed, so key {key_id} was revoked: {why}"),
        Err(error) => {
            format!("key {key_id} could not be printed ({why}), and could not be revoked: {error}")
        }
    })
}

/// Prints a new key with its secret.
///
/// Apart from the first start of the service, only this function prints a secret.
pub(crate) fn print_once(
    format: OutputFormat,
    key: &Key,
    key_id: KeyId,
    gate: &Gate,
) -> Result<(), Failure> {
    if is_output_discarded() {
        return Err(Failure::new("standard output is closed or /dev/null"));
    }
    let shown = NewKeyView::new(key, key_id, gate)?;
    format.print(&shown, |out| writeln!(out, "{}", shown.key))?;
    if !format.json {
        let about = &shown.about;
        let expiry =
            about.expires.as_deref().map(|time| format!(", expires {time}")).unwrap_or_default();
        print_note(&format!(
            "key id {}, account {}, env {}, plan {}{expiry}. Store the key: it is not shown again.",
            about.key_id,
            about.account,
            about.env(),
            about.plan()
        ));
    }
    Ok(())
}
