//! The command `copy`.

use core::fmt;
use std::path::{Path, PathBuf};

use clap::Args;
use keytally::{AttachError, Error, FlawKind, Gate, KeyRecord, KeyState, now};
use serde::Serialize;

use crate::arguments;
use crate::failure::Failure;
use crate::gate_file::{GateFileToChange, GateToChange};
use crate::output::{OutputFormat, pluralized};
use crate::pepper::PepperSource;
use crate::status::Status;

/// Copy a gate to another file, while servers check keys
///
/// No change of a key or plan is half in the copy. Each count in it is one that the gate had while
/// the command ran. It has the owner and mode of the gate's file. Changes to keys and plans wait
/// while the gate is read; checks never wait.
///
/// The file appears when it is complete and on the disk. The counts of "keytally usage" are in
/// another file, and are not copied.
///
/// With --replace, a backup can also be put where servers use a gate: most of them open it within a
/// second. A gate with keys, revocations or other changes of keys and accounts that the copy lacks
/// is replaced only with --discard-newer, and so is a file that cannot be compared with the copy.
/// Gates cannot be compared if "keytally verify" finds a flaw in one of them. Changes of plans are
/// not compared.
#[derive(Args)]
pub(crate) struct Copy {
    #[command(flatten)]
    gate: GateFileToChange,
    /// File of the copy
    #[arg(value_name = "COPY", value_parser = arguments::path_parser())]
    copy: PathBuf,
    /// If COPY is another gate, replace it, unless it has changes that GATE lacks. Also replace an
    /// empty file
    #[arg(long)]
    replace: bool,
    /// Replace also a gate that has changes that GATE lacks, or that cannot be opened: of other
    /// peppers, of another format, damaged, or with a mode or owner that is refused
    #[arg(long, requires = "replace")]
    discard_newer: bool,
    #[command(flatten)]
    format: OutputFormat,
}

#[derive(Serialize)]
struct Copied {
    gate: String,
    copy: String,
    bytes: Option<u64>,
}

impl Copy {
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        let gate = self.gate.open(pepper)?;
        if self.replace && !self.discard_newer {
            self.expect_nothing_newer(&gate, pepper)?;
        }
        gate.change(|gate| gate.copy(&self.copy, self.replace)).map_err(|error| match error {
            Error::Exists { .. } => Failure::new(format!("{error}; --replace replaces a gate")),
            Error::Attach { source: AttachError::NotATable | AttachError::Unfinished, .. }
            | Error::TooShort { .. } => Failure::new(format!(
                "{error}; if it is a damaged gate, move it to another path, and repeat the command"
            )),
            error => error.into(),
        })?;
        let copied = Copied {
            gate: self.gate.path().display().to_string(),
            copy: self.copy.display().to_string(),
            bytes: std::fs::metadata(&self.copy).ok().map(|file| file.len()),
        };
        self.format
            .print(&copied, |out| writeln!(out, "{}: copied to {}", copied.gate, copied.copy))?;
        Ok(Status::Success)
    }

    /// Refuses to replace a gate that has what the copy would lack, or that cannot be compared. A
    /// file that [`Gate::copy`] never replaces is left to it.
    fn expect_nothing_newer(
        &self,
        gate: &GateToChange,
        pepper: &PepperSource,
    ) -> Result<(), Failure> {
        let path = self.copy.display();
        let from = self.gate.path().display();
        let refused = |what: &str| {
            Failure::new(format!(
                "{path}: nothing was changed: {what}; --discard-newer replaces it"
            ))
        };
        let not_compared = |error: Error| {
            Failure::new(format!(
                "{error}; nothing was changed, since it could not be compared with {from}; --discard-newer replaces it"
            ))
        };
        let replaced = match Gate::open(&self.copy, pepper.require()?) {
            Ok(replaced) => replaced,
            Err(Error::Attach { source: AttachError::WrongPepper { .. }, .. }) => {
                let what = "this gate has other peppers, so its keys cannot be compared";
                return Err(refused(what));
            }
            Err(error) if self.is_never_replaced(&error) => return Ok(()),
            Err(error) => return Err(not_compared(error)),
        };
        replaced.set_wait(gate.wait());
        let gate = gate.current();
        for (flawed, what) in [(&*gate, from.to_string()), (&replaced, "this gate".to_owned())] {
            let flaws = count_flaws(flawed).map_err(not_compared)?;
            if flaws > 0 {
                let flaws = pluralized(flaws, "flaw");
                return Err(refused(&format!("{what} has {flaws}, which keytally verify names")));
            }
        }
        let changed = Changes::of(&gate, &replaced).map_err(not_compared)?;
        match changed.to_string() {
            lacking if lacking.is_empty() => Ok(()),
            lacking => Err(refused(&format!("this gate has {lacking} that {from} lacks"))),
        }
    }

    /// Returns whether [`Gate::copy`] gives a better answer on a file that does not open as a gate:
    /// there is none, it is empty, or it is never replaced.
    fn is_never_replaced(&self, error: &Error) -> bool {
        let len = |path: &Path| std::fs::metadata(path).map(|file| file.len()).ok();
        match error {
            Error::Io { doing: "open", .. }
            | Error::NotAFile { .. }
            | Error::TooShort { .. }
            | Error::Attach { source: AttachError::Kind { .. }, .. } => true,
            Error::Attach { source: AttachError::NotATable | AttachError::Unfinished, .. } => {
                len(&self.copy) != len(self.gate.path())
            }
            _ => false,
        }
    }
}

/// Returns the number of flaws of a gate, without those of counts that are ahead: a check corrects
/// them, and they hide no change.
fn count_flaws(gate: &Gate) -> Result<usize, Error> {
    let mut flaws = 0_usize;
    gate.verify(|flaw| {
        flaws = flaws.saturating_add(usize::from(flaw.kind != FlawKind::FutureTally));
    })?;
    Ok(flaws)
}

/// The number of writes of a record is below this.
const WRITES: u16 = 8192;

/// What a gate has and a copy of another one lacks.
#[derive(Default)]
struct Changes {
    /// Keys that are valid.
    keys: usize,
    revocations: usize,
    /// Keys that are not newly revoked, and that changed otherwise: a secret, an expiry, a grace
    /// period, a plan, scopes or an account.
    changed: usize,
    /// Accounts that were suspended or resumed, or that have another plan or other limits.
    accounts: usize,
}

impl Changes {
    /// Returns what `replaced` has and `gate` lacks. Of two copies of one gate, that is what was
    /// changed later. Between other gates, every difference of a key counts.
    fn of(gate: &Gate, replaced: &Gate) -> Result<Self, Error> {
        let are_copies = gate.table().id() == replaced.table().id();
        // The numbers are counted round: those of the later half are behind.
        let is_ahead = |from: u16, its: u16| {
            !are_copies || (1..WRITES / 2).contains(&(its.wrapping_sub(from) % WRITES))
        };
        let is_later = |key_id| {
            let [from, its] = [gate, replaced].map(|gate| gate.table().record_writes(key_id));
            is_ahead(from, its)
        };
        let later: Vec<KeyRecord> = replaced.administer(|administrator| {
            Ok(administrator.records().filter(|its| is_later(its.key_id)).collect())
        })?;
        let now = now();
        gate.administer(|administrator| {
            let mut changes = Self::default();
            for its in &later {
                match administrator.read(its.key_id) {
                    Some(copied) => changes.compare(its, copied),
                    None if its.state == KeyState::Active
                        && its.expires.is_none_or(|end| now < end)
                        && gate.table().has_free_record(its.key_id) =>
                    {
                        changes.keys = changes.keys.saturating_add(1);
                    }
                    None => {}
                }
            }
            for its in replaced.accounts() {
                let account = its.account;
                let writes = [gate, replaced].map(|gate| gate.table().account_writes(account));
                // An account that the copy lacks has only keys that it lacks.
                let [Some(from), Some(its)] = writes else { continue };
                let differs = || Account::of(gate, account) != Account::of(replaced, account);
                if is_ahead(from, its) && differs() {
                    changes.accounts = changes.accounts.saturating_add(1);
                }
            }
            Ok(changes)
        })
    }

    /// Counts a key that differs.
    fn compare(&mut self, its: &KeyRecord, copied: KeyRecord) {
        if its.state == KeyState::Revoked {
            let is_newly = copied.state != KeyState::Revoked;
            self.revocations = self.revocations.saturating_add(usize::from(is_newly));
            return;
        }
        // What a gate knows of all keys, or need not keep, does not change this one.
        let last_characters = its.last_characters.clone();
        let copied = KeyRecord { is_imported: its.is_imported, last_characters, ..copied };
        self.changed = self.changed.saturating_add(usize::from(*its != copied));
    }
}

/// What a command can change of an account.
#[derive(PartialEq)]
struct Account {
    is_suspended: bool,
    /// The name of its plan, unless it has limits of its own.
    plan: Option<String>,
    /// Its limits, if it has limits of its own.
    limits: Vec<u32>,
}

impl Account {
    fn of(gate: &Gate, account: u32) -> Option<Self> {
        let info = gate.account(account)?;
        let plan = gate.table().plan(info.plan);
        let own = info.quotas().iter().filter(|_| info.has_own_limits);
        Some(Self {
            is_suspended: info.is_suspended,
            plan: plan.filter(|_| !info.has_own_limits).map(|plan| plan.name.to_string()),
            limits: own.flat_map(|quotas| quotas.iter().map(|state| state.limit)).collect(),
        })
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.keys, "key"),
            (self.revocations, "revocation"),
            (self.changed, "changed key"),
            (self.accounts, "changed account"),
        ];
        let named = counts.iter().filter(|(count, _)| *count > 0);
        let named: Vec<String> = named.map(|(count, noun)| pluralized(count, noun)).collect();
        match named.split_last() {
            Some((last, others)) if !others.is_empty() => {
                write!(f, "{} and {last}", others.join(", "))
            }
            _ => f.write_str(&named.concat()),
        }
    }
}
