//! Every error of this crate, each with a full sentence.

use core::fmt;
use core::time::Duration;
use std::io;
use std::path::{Path, PathBuf};

use keytally_core::{AdminError, AttachError, CreateError, NotCarried, SetPolicyError, TableKind};

use keytally_fleet_plan::credit::SlidingError;
use keytally_fleet_plan::layout::{MAX_FILE_TALLIES, PageError};

use crate::header::HEADER_LEN;
use crate::holder::LockHolder;
use crate::redact::redact;

/// Permission bits for users other than the owner and the members of the group.
const ACCESS_OF_EVERY_USER: u32 = 0o007;

/// An error of this crate.
///
/// `Display` is one full sentence. It names the file, what was found, what was expected, and the
/// command that fixes it, if there is one. [`source`](core::error::Error::source) is for programs:
/// the sentence already contains its text. `Debug` shows the same sentence.
///
/// A text that looks like a key or a pepper is hidden in the sentence, even if it was given as a
/// path: see [`redact`](crate::redact).
///
/// Some variants state that nothing was changed. That does not apply to earlier changes of the same
/// call of [`Gate::administer`](crate::Gate::administer) or
/// [`Gate::administer_each`](crate::Gate::administer_each), which remain.
#[non_exhaustive]
pub enum Error {
    /// On Windows, another user owns the file, or has access to it.
    Account {
        /// The file.
        path: PathBuf,
        /// The account that owns it or has access, by its name or its identifier (SID).
        account: String,
        /// Whether the account owns the file.
        is_owner: bool,
        /// The account of this process.
        user: String,
        /// Whether the file was recognized, as in [`Mode`](Self::Mode).
        recognized: bool,
    },
    /// An administrator's change is not possible. Nothing was changed.
    Admin {
        /// The gate's file. `None` in memory.
        path: Option<PathBuf>,
        /// The reason.
        source: AdminError,
    },
    /// The file is not a table that can be opened.
    Attach {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: AttachError,
    },
    /// Another administrator did not finish in time. Nothing was changed.
    Busy {
        /// The gate's file. `None` in memory.
        path: Option<PathBuf>,
        /// How long this call waited for the lock.
        waited: Duration,
        /// The process that administers.
        holder: LockHolder,
    },
    /// The limiter has another capacity.
    Capacity {
        /// The file.
        path: PathBuf,
        /// The limiter's capacity.
        found: u32,
        /// The requested capacity.
        requested: u32,
    },
    /// A gate cannot be copied to this path. Nothing was changed.
    Copy {
        /// The path.
        path: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// Such a table is not possible. No file was created.
    Create {
        /// The requested path. `None` in memory.
        path: Option<PathBuf>,
        /// The reason.
        source: CreateError,
    },
    /// The system provided no entropy.
    Entropy(io::Error),
    /// A file already exists at the path. It was not changed.
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// The file is not the fleet file of this gate, or the gate cannot be in a fleet.
    Fleet {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: FleetError,
    },
    /// The wait for another administrator was interrupted. Nothing was changed.
    Interrupted {
        /// The gate's file. `None` in memory.
        path: Option<PathBuf>,
    },
    /// The operating system reported an error.
    Io {
        /// What was attempted, as a verb: `open`, `map` …
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A new gate cannot have all that the gate has. Nothing was changed.
    NotCarried {
        /// The gate's file. `None` in memory.
        path: Option<PathBuf>,
        /// What it cannot have. [`Gate::plan_migration`](crate::Gate::plan_migration) lists all.
        source: Box<NotCarried>,
    },
    /// The file's mode gives every user access, or for a file of peppers, its group.
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Whether the file was recognized as a table or a pepper file. Only then does the sentence
        /// contain a command that fixes it: the command would break another program's file.
        recognized: bool,
    },
    /// The path does not lead to a regular file.
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What was found: `a directory`, `a device` …
        found: &'static str,
    },
    /// The fleet file is that of another gate file, such as that of another machine.
    OtherGate {
        /// The fleet file.
        path: PathBuf,
        /// The gate file.
        gate: PathBuf,
        /// The gate file that the fleet file is for, or the end of a long path.
        other: PathBuf,
    },
    /// The file belongs to another user, that is, neither to the user of this process nor to root.
    Owner {
        /// The file.
        path: PathBuf,
        /// The user number of its owner.
        owner: u32,
        /// The user number of this process.
        user: u32,
        /// Whether the file was recognized, as in [`Mode`](Self::Mode).
        recognized: bool,
    },
    /// The text of the peppers is not valid.
    Pepper {
        /// The file that they were read from, if any.
        path: Option<PathBuf>,
        /// The reason.
        source: PepperError,
    },
    /// The limiter cannot count the requested policy.
    Policy {
        /// The file.
        path: PathBuf,
        /// The limiter's policy.
        found: String,
        /// The requested policy.
        requested: String,
        /// The reason.
        source: SetPolicyError,
    },
    /// The file that is open was removed or replaced. Programs that open the path would not see a
    /// change to it.
    Replaced {
        /// The path.
        path: PathBuf,
    },
    /// A gate cannot be migrated to this path. Nothing was changed.
    Successor {
        /// The path.
        path: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// The file is too short for any table.
    TooShort {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
    },
    /// Users other than root can write a file of peppers that root owns.
    Writable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Whether the file was recognized, as in [`Mode`](Self::Mode).
        recognized: bool,
    },
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Error").field(&format_args!("{self}")).finish()
    }
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: &Path, error: impl Into<io::Error>) -> Self {
        Self::Io { doing, path: path.into(), source: error.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account { path, account, is_owner, user, recognized } => {
                let (has, options) = if *is_owner {
                    ("owns it", format!("/setowner *{user}"))
                } else {
                    ("has access to it", format!("/inheritance:r /grant:r *{user}:F"))
                };
                let path = shown(path);
                write!(f, "{path}: {account} {has}, and this process runs as {user}")?;
                match recognized {
                    true => write!(f, "; fix it with: icacls \"{path}\" {options}"),
                    false => Ok(()),
                }
            }
            Self::Admin { path, source } => with_path(path.as_deref(), source, f),
            Self::Attach { path, source } => {
                with_path(Some(path), source, f)?;
                match source {
                    AttachError::Kind {
                        found: TableKind::Limiter | TableKind::AddressLimiter,
                        expected: TableKind::Limiter | TableKind::AddressLimiter,
                    } => write!(f, "; create another file for the new policy, {ROLL_OVER}"),
                    _ => Ok(()),
                }
            }
            Self::Busy { path, waited, holder } => {
                with_path(path.as_deref(), &Waited { waited, holder }, f)
            }
            Self::Capacity { path, found, requested } => write!(
                f,
                "{}: this limiter is for {found} subjects, and {requested} were requested; open it with {found}, or create another file, {ROLL_OVER}",
                shown(path)
            ),
            Self::OtherGate { path, gate, other } => write!(
                f,
                "{} is the fleet file of {}, and not that of {}: name the fleet file of this \
                 machine's agent",
                shown(path),
                shown(other),
                shown(gate)
            ),
            Self::Copy { path, why } => {
                write!(f, "{}: the gate cannot be copied to this path: {why}", shown(path))
            }
            Self::Create { path, source } => with_path(path.as_deref(), source, f),
            Self::Entropy(error) => write!(f, "the system provides no random bytes: {error}"),
            Self::Exists { path } => {
                write!(
                    f,
                    "{}: a file of that name already exists, and it was not changed",
                    shown(path)
                )
            }
            Self::Fleet { path, source } => with_path(Some(path), source, f),
            Self::Interrupted { path } => {
                let sentence =
                    "the wait for another administrator was interrupted, and nothing was changed";
                with_path(path.as_deref(), &sentence, f)
            }
            Self::Io { doing, path, source } => {
                write!(f, "cannot {doing} {}: {source}", shown(path))
            }
            Self::Mode { path, mode, recognized } => {
                let others =
                    if mode & ACCESS_OF_EVERY_USER == 0 { "its group" } else { "every user" };
                write!(f, "{}: its mode is {mode:04o}, so {others} has access to it", shown(path))?;
                write_fix(*recognized, "chmod 600", path, f)
            }
            Self::NotAFile { path, found } => {
                write!(f, "{}: this is {found}, not a regular file", shown(path))
            }
            Self::NotCarried { path, source } => with_path(path.as_deref(), source, f),
            Self::Owner { path, owner, user, recognized } => {
                write!(
                    f,
                    "{}: it belongs to user {owner}, and this process is user {user}",
                    shown(path)
                )?;
                write_fix(*recognized, &format!("chown {user}"), path, f)
            }
            Self::Pepper { path, source } => with_path(path.as_deref(), source, f),
            Self::Policy { path, found, requested, source } => write!(
                f,
                "{}: this limiter counts \"{found}\" and cannot change to \"{requested}\": {source}; create another file for the new policy, {ROLL_OVER}",
                shown(path)
            ),
            Self::Replaced { path } => write!(
                f,
                "{}: the file was removed or replaced since it was opened; open it again",
                shown(path)
            ),
            Self::Successor { path, why } => {
                write!(f, "{}: the gate cannot be migrated to this path: {why}", shown(path))
            }
            Self::TooShort { path, len } => write!(
                f,
                "{}: this is not a keytally table: it has {len} byte{}, and the smallest has more than {}",
                shown(path),
                if *len == 1 { "" } else { "s" },
                HEADER_LEN
            ),
            Self::Writable { path, mode, recognized } => {
                write!(
                    f,
                    "{}: its mode is {mode:04o}, so users other than root can write it",
                    shown(path)
                )?;
                write_fix(*recognized, "chmod go-w", path, f)
            }
        }
    }
}

impl core::error::Error for Error {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Admin { source, .. } => Some(source),
            Self::Attach { source, .. } => Some(source),
            Self::Create { source, .. } => Some(source),
            Self::NotCarried { source, .. } => Some(source),
            Self::Fleet { source, .. } => Some(source),
            Self::Entropy(source) | Self::Io { source, .. } => Some(source),
            Self::Pepper { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// How a limiter is replaced by another one without admitting more.
const ROLL_OVER: &str =
    "and check requests with both until the longest window of this one has passed";

/// Writes the sentence of an inner error after the path of its file.
fn with_path(
    path: Option<&Path>,
    error: &dyn fmt::Display,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    match path {
        Some(path) => write!(f, "{}: {error}", shown(path)),
        None => error.fmt(f),
    }
}

/// Writes the command that fixes a file, if the file was recognized as a table or a pepper file.
fn write_fix(
    recognized: bool,
    command: &str,
    path: &Path,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    if recognized { write!(f, "; fix it with: {command} {}", Quoted(path)) } else { Ok(()) }
}

/// Returns a path as an error may repeat it, without secrets.
fn shown(path: &Path) -> String {
    redact(&path.to_string_lossy()).into_owned()
}

/// The sentence for a wait that timed out.
struct Waited<'a> {
    waited: &'a Duration,
    holder: &'a LockHolder,
}

impl fmt::Display for Waited<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { waited, holder } = self;
        if holder.pid == Some(std::process::id()) && waited.is_zero() {
            return write!(
                f,
                "{holder} already administers this gate; end that first, or wait longer"
            );
        }
        if waited.is_zero() {
            write!(f, "{holder} is changing this gate; ")?;
        } else {
            write!(
                f,
                "{holder} has been changing this gate for longer than the wait of {waited:?}; "
            )?;
        }
        match (holder.pid, holder.stopped) {
            (Some(pid), true) => write!(f, "it is stopped; continue it with: kill -CONT {pid}"),
            (Some(_), false) => f.write_str("try again, wait longer, or end that process"),
            (None, _) => f.write_str(
                "try again, wait longer, or, once that container is gone, use: keytally verify --take-over",
            ),
        }
    }
}

/// A path quoted for a shell.
struct Quoted<'a>(&'a Path);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = shown(self.0);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+=@,:".contains(&byte);
        if text.bytes().all(plain) && !text.starts_with('-') {
            f.write_str(&text)
        } else if text.starts_with('-') {
            write!(f, "-- '{}'", text.replace('\'', r"'\''"))
        } else {
            write!(f, "'{}'", text.replace('\'', r"'\''"))
        }
    }
}

/// Why a file is not the fleet file of a gate, or why a gate cannot be in a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FleetError {
    /// The gate has joined a fleet before.
    Joined,
    /// The file has another length than the fleet file of this gate.
    Length {
        /// Its length in bytes.
        found: u64,
        /// The length that it must have.
        expected: u64,
    },
    /// The machine's agent does not carry keys to other machines.
    NotCarried,
    /// The file belongs to another user than this process, root, and, for a process of root, the
    /// owners of the gate and of the file's folder. That user could write units to it.
    Owner {
        /// The number of the user.
        owner: u32,
    },
    /// The page of the file is not that of this gate, or its credits are void.
    Page(PageError),
    /// The gate's windows slide.
    Sliding(SlidingError),
    /// The gate has more tallies than a fleet file.
    Tallies {
        /// The tallies of the gate.
        tallies: u64,
    },
}

impl From<PageError> for FleetError {
    fn from(error: PageError) -> Self {
        Self::Page(error)
    }
}

impl From<SlidingError> for FleetError {
    fn from(error: SlidingError) -> Self {
        Self::Sliding(error)
    }
}

impl fmt::Display for FleetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Joined => {
                f.write_str("this process has joined a fleet with the gate or limiter already")
            }
            Self::Length { found, expected } => write!(
                f,
                "the fleet file has {found} bytes instead of {expected}; remove it and start the agent again"
            ),
            Self::NotCarried => f.write_str(
                "the agent of this machine carries no keys to other machines: it has --no-keys, or \
                 the gate follows a list of keys",
            ),
            Self::Owner { owner } => write!(
                f,
                "the fleet file belongs to user {owner}, who could write units to it; remove it \
                 and start the agent again, as the user of the servers"
            ),
            Self::Page(PageError::Stale) => {
                write!(f, "{}; start the agent, which replaces it", PageError::Stale)
            }
            Self::Page(error) => error.fmt(f),
            Self::Sliding(error) => error.fmt(f),
            Self::Tallies { tallies } => write!(
                f,
                "the gate has {tallies} tallies, and a fleet file has at most {MAX_FILE_TALLIES}"
            ),
        }
    }
}

impl core::error::Error for FleetError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Page(error) => Some(error),
            Self::Sliding(error) => Some(error),
            _ => None,
        }
    }
}

/// Why a text of peppers is not valid. Contains no part of a pepper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PepperError {
    /// The text begins with a byte-order mark.
    ByteOrderMark {
        /// The encoding that the mark stands for: UTF-8 or UTF-16.
        encoding: &'static str,
    },
    /// There are no peppers, or more than four.
    Count {
        /// The number of peppers.
        given: usize,
    },
    /// A pepper is neither hex nor base64.
    Form {
        /// The number of this pepper, counted from 1.
        number: usize,
        /// The number of peppers.
        count: usize,
    },
    /// The file is longer than a pepper file may be.
    Long {
        /// The largest length in bytes.
        max: usize,
    },
    /// A pepper occurs twice.
    Repeated {
        /// The number of its second occurrence, counted from 1.
        number: usize,
        /// The number of peppers.
        count: usize,
    },
    /// A pepper has fewer than 32 bytes.
    Short {
        /// The number of this pepper, counted from 1.
        number: usize,
        /// The number of peppers.
        count: usize,
        /// Its length in bytes.
        len: usize,
        /// The encoding by which its text was decoded: hex or base64.
        encoding: &'static str,
    },
}

impl fmt::Display for PepperError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MAX: usize = keytally_core::MAX_PEPPERS;
        const MIN_LEN: usize = keytally_core::MIN_PEPPER_LEN;
        match self {
            Self::ByteOrderMark { encoding } => write!(
                f,
                "the text begins with a {encoding} byte-order mark; save it as ASCII or as UTF-8 without that mark"
            ),
            Self::Count { given: 0 } => {
                f.write_str("no pepper is given; `openssl rand -hex 32` makes one")
            }
            Self::Count { given } => {
                write!(
                    f,
                    "{given} peppers are given, and at most {MAX} can be in use; leave out the oldest"
                )
            }
            Self::Form { number, count } => {
                write!(f, "pepper {number} of {count} is neither hex nor base64")
            }
            Self::Long { max } => {
                write!(f, "the file has more than {max} bytes, so it cannot be a pepper file")
            }
            Self::Repeated { number, count } => {
                write!(f, "pepper {number} of {count} is the same as one before it")
            }
            Self::Short { number, count, len, encoding } => write!(
                f,
                "pepper {number} of {count} has {len} byte{} after decoding as {encoding}, and must have at least {MIN_LEN}; `openssl rand -hex 32` makes one",
                if *len == 1 { "" } else { "s" },
            ),
        }
    }
}

impl core::error::Error for PepperError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_error_names_the_holder_and_a_remedy() {
        let busy = |pid, stopped| {
            let holder = LockHolder { pid, program: pid.map(|_| "worker".into()), stopped };
            Error::Busy { path: Some("api.gate".into()), waited: Duration::from_secs(10), holder }
                .to_string()
        };
        assert_eq!(
            busy(Some(7), false),
            "api.gate: process 7 (worker) has been changing this gate for longer than the wait of 10s; try again, wait longer, or end that process"
        );
        assert!(busy(Some(7), true).ends_with("; it is stopped; continue it with: kill -CONT 7"));
        assert!(busy(None, false).contains("a process of another container has been"));
        assert!(busy(None, false).ends_with("use: keytally verify --take-over"));
    }

    #[test]
    fn command_that_fixes_a_file_can_be_pasted() {
        let mode = |path: &str| {
            Error::Mode { path: path.into(), mode: 0o644, recognized: true }.to_string()
        };
        assert_eq!(
            mode("/srv/api.gate"),
            "/srv/api.gate: its mode is 0644, so every user has access to it; fix it with: chmod 600 /srv/api.gate"
        );
        assert!(mode("my gate's").ends_with(r"chmod 600 'my gate'\''s'"));
        assert!(mode("-x").ends_with("chmod 600 -- '-x'"));
    }

    #[test]
    fn command_that_fixes_a_file_on_windows_names_the_user() {
        let error = |is_owner, recognized| {
            let (account, user) = ("Everyone".to_owned(), "S-1-5-21-7".to_owned());
            Error::Account { path: r"C:\my gate".into(), account, is_owner, user, recognized }
                .to_string()
        };
        assert_eq!(
            error(false, true),
            r#"C:\my gate: Everyone has access to it, and this process runs as S-1-5-21-7; fix it with: icacls "C:\my gate" /inheritance:r /grant:r *S-1-5-21-7:F"#
        );
        assert!(error(true, true).ends_with("/setowner *S-1-5-21-7"));
        assert!(
            error(true, false).ends_with("Everyone owns it, and this process runs as S-1-5-21-7")
        );
    }

    #[test]
    fn secret_given_as_a_path_is_not_repeated() {
        let secret = "kt_live_0Gq5Xk2LmPz7Hc1nT9vYbR4sWdEfUaJoQi83ZKM";
        let path = || PathBuf::from(secret);
        let io = || io::Error::from(io::ErrorKind::NotFound);
        let policy = || "1/s".to_owned();
        let [account, user] = [(); 2].map(|()| "BA".to_owned());
        for error in [
            Error::Account { path: path(), account, is_owner: true, user, recognized: true },
            Error::Admin { path: Some(path()), source: AdminError::NoSuchPlan },
            Error::Attach { path: path(), source: AttachError::Unfinished },
            Error::Capacity { path: path(), found: 1, requested: 2 },
            Error::Copy { path: path(), why: "it is the gate that is copied" },
            Error::Create { path: Some(path()), source: CreateError::PlanName { index: 1 } },
            Error::Exists { path: path() },
            Error::Fleet { path: path(), source: FleetError::Joined },
            Error::OtherGate { path: path(), gate: path(), other: path() },
            Error::Io { doing: "open", path: path(), source: io() },
            Error::Mode { path: path(), mode: 0o644, recognized: true },
            Error::NotAFile { path: path(), found: "a directory" },
            Error::Owner { path: path(), owner: 1, user: 2, recognized: true },
            Error::Pepper { path: Some(path()), source: PepperError::Count { given: 0 } },
            Error::Policy {
                path: path(),
                found: policy(),
                requested: policy(),
                source: SetPolicyError::Windows,
            },
            Error::Replaced { path: path() },
            Error::TooShort { path: path(), len: 1 },
            Error::Writable { path: path(), mode: 0o666, recognized: true },
        ] {
            let texts = [error.to_string(), format!("{error:?}")];
            assert!(texts.iter().all(|text| text.contains("kt_live_…")), "{texts:?}");
            assert!(!texts.iter().any(|text| text.contains("Xk2L")), "{texts:?}");
        }
    }
}
