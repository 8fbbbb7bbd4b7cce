use core::time::Duration;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use clap::Args;
use keytally::NewKey;
use keytally::{Gate, now};
use keytally::{Key, KeyId, Name};

use super::{ChangedGate, Format, Status, parse_name, remark};
use crate::failure::Failure;
use crate::given;
use crate::pepper::PepperSource;
use crate::views::NewSecret;
use crate::{plans, times};

/// Issue a key and print it, once
///
/// The key alone goes to standard output, what else there is to know to standard error. The gate keeps only the
/// key's HMAC: a lost key can't be shown again, only rotated. If it cannot be printed, it is revoked again.
#[derive(Args)]
pub(crate) struct Issue {
    #[command(flatten)]
    gate: ChangedGate,
    #[command(flatten)]
    new: NewKeyArgs,
    #[command(flatten)]
    format: Format,
}

/// What a new key is to be.
#[derive(Args)]
pub(crate) struct NewKeyArgs {
    /// Number of the account that the key belongs to
    #[arg(long, value_name = "NUMBER")]
    account: u32,
    /// Environment, such as live or test
    #[arg(long, value_name = "NAME", default_value = "live", value_parser = parse_name)]
    env: Name,
    /// Plan; the gate's first when left out
    #[arg(long, value_name = "NAME", value_parser = given::value(plans::parse_name))]
    plan: Option<String>,
    /// How long the key is good, such as 90d; for ever when left out
    #[arg(long, value_name = "TIME", value_parser = times::at_least_a_second)]
    expires: Option<Duration>,
}

impl NewKeyArgs {
    /// Calls `work` with the properties of the new key.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&NewKey<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
        let not_after = self.expires.map(|after| times::expiry(now(), after)).transpose()?;
        let mut new = NewKey::new(self.account, self.env).with_not_after(not_after);
        new.plan = self.plan.as_deref();
        work(&new)
    }
}

impl Issue {
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        let gate = self.gate.open(pepper)?;
        let (key, key_id) = self.new.with(|new| Ok(gate.issue(new)?))?;
        match print_once(self.format, &key, key_id, &gate) {
            Ok(()) => Ok(Status::Fine),
            Err(failure) => Err(taken_back(&gate, key_id, &failure)),
        }
    }
}

/// Revokes a key that could not be printed: perhaps no one holds it, or a reader of partial output does.
pub fn taken_back(gate: &Gate, key_id: KeyId, failure: &Failure) -> Failure {
    let why = failure.sentence();
    Failure::because(match gate.revoke(key_id) {
        Ok(()) => format!("the key could not be printed, so key {key_id} is revoked again: {why}"),
        Err(error) => {
            format!("key {key_id} could not be printed ({why}), and not be revoked again either: {error}")
        }
    })
}

/// Whether standard output is `/dev/null`, which it also is if it was closed when the program started.
fn goes_nowhere() -> bool {
    let rdev = |file: File| file.metadata().map(|found| (found.file_type().is_char_device(), found.rdev()));
    let output = io::stdout().as_fd().try_clone_to_owned().map(File::from).and_then(rdev);
    let null = File::open("/dev/null").and_then(rdev);
    matches!((output, null), (Ok(output), Ok(null)) if output == null)
}

/// Prints a secret: the one place that does, but for the first start of the service.
pub(crate) fn print_once(format: Format, key: &Key, key_id: KeyId, gate: &Gate) -> Result<(), Failure> {
    if goes_nowhere() {
        return Err(Failure::because("standard output is closed, or /dev/null".to_owned()));
    }
    let shown = NewSecret::of(key, key_id, gate)?;
    format.print(&shown, |out| writeln!(out, "{}", shown.key))?;
    if !format.json {
        let about = &shown.about;
        let ends = about.expires.as_deref().map(|time| format!(", expires {time}")).unwrap_or_default();
        remark(&format!(
            "key id {}, account {}, env {}, plan {}{ends}. The key is shown only now: keep it.",
            about.key_id,
            about.account,
            about.env(),
            about.plan()
        ));
    }
    Ok(())
}
