//! Everything that can go wrong, a sentence each.

use core::fmt;
use core::time::Duration;
use std::io;
use std::path::{Path, PathBuf};

use keytally_core::{AdminError, AttachError, CreateError, Policy};

use crate::lock::LockHolder;
use crate::redact::redact;

/// Why it couldn't be done. `Display` is one whole sentence: it names the file, what was found, what was expected,
/// and, where there is one, the command that mends it. [`source`](core::error::Error::source) is for programs; its
/// text is in the sentence already.
///
/// No sentence holds a key or a pepper, not even one that was given as a path; see [`redact`](crate::redact). `Debug`
/// shows the sentence too.
#[non_exhaustive]
pub enum Error {
    /// An administrator's change can't be made, and nothing was changed.
    Admin {
        /// The gate's file; `None` in memory.
        path: Option<PathBuf>,
        /// Why not.
        source: AdminError,
    },
    /// The file is no table that can be opened.
    Attach {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: AttachError,
    },
    /// Another administrator did not end in time, and nothing was changed.
    Busy {
        /// The gate's file; `None` in memory.
        path: Option<PathBuf>,
        /// How long this call waited for its turn.
        waited: Duration,
        /// Who administers.
        holder: LockHolder,
    },
    /// The limiter has another capacity.
    Capacity {
        /// The file.
        path: PathBuf,
        /// The limiter's.
        found: u32,
        /// What was asked for.
        asked: u32,
    },
    /// There can be no such table. No file was made.
    Create {
        /// Where it was to be; `None` in memory.
        path: Option<PathBuf>,
        /// Why not.
        source: CreateError,
    },
    /// The system gave no entropy.
    Entropy(io::Error),
    /// There is something at the path already, and it was left as it is.
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// The wait for another administrator was interrupted, and nothing was changed.
    Interrupted {
        /// The gate's file; `None` in memory.
        path: Option<PathBuf>,
    },
    /// The operating system refused something.
    Io {
        /// What was tried, as a verb: `open`, `map` …
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Users who must not can get at the file.
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Whether the file was recognized as a table or a file of peppers. Only then does the sentence say how to fix
        /// it: the advice would break another program's file.
        recognized: bool,
    },
    /// What is at the path is no regular file.
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is: `a directory`, `a device` …
        found: &'static str,
    },
    /// The file belongs to a stranger: neither to the user of this process nor to root.
    Owner {
        /// The file.
        path: PathBuf,
        /// The user number of its owner.
        owner: u32,
        /// The user number of this process.
        user: u32,
        /// As in [`Mode`](Self::Mode).
        recognized: bool,
    },
    /// The peppers can't be read from their text.
    Pepper {
        /// The file that they were read from, if it was one.
        path: Option<PathBuf>,
        /// What is wrong.
        source: PepperError,
    },
    /// The limiter has another policy.
    Policy {
        /// The file.
        path: PathBuf,
        /// The limiter's.
        found: Box<Policy>,
        /// What was asked for.
        asked: Box<Policy>,
    },
    /// The file that is open was removed, or another was put in its place. A change made to it would be lost on
    /// everybody who opens the path.
    Replaced {
        /// The path.
        path: PathBuf,
    },
    /// The file is too short to be any table.
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
        /// As in [`Mode`](Self::Mode).
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
            Self::Admin { path, source } => about(path.as_deref(), source, f),
            Self::Attach { path, source } => about(Some(path), source, f),
            Self::Busy { path, waited, holder } => about(path.as_deref(), &Waited { waited, holder }, f),
            Self::Capacity { path, found, asked } => write!(
                f,
                "{}: this limiter is for {found} subjects, and {asked} were asked for; open it with {found}, or remove it and create another",
                shown(path)
            ),
            Self::Create { path, source } => about(path.as_deref(), source, f),
            Self::Entropy(error) => write!(f, "the system gives no random bytes: {error}"),
            Self::Exists { path } => {
                write!(f, "{}: there is a file of that name already, and it was left as it is", shown(path))
            }
            Self::Interrupted { path } => {
                let sentence = "the wait for another administrator was interrupted, and nothing was changed";
                about(path.as_deref(), &sentence, f)
            }
            Self::Io { doing, path, source } => write!(f, "cannot {doing} {}: {source}", shown(path)),
            Self::Mode { path, mode, recognized } => {
                write!(f, "{}: its mode is {mode:04o}, so other users can get at it", shown(path))?;
                fix(*recognized, "chmod 600", path, f)
            }
            Self::NotAFile { path, found } => {
                write!(f, "{}: this is {found}, not a regular file", shown(path))
            }
            Self::Owner { path, owner, user, recognized } => {
                write!(f, "{}: it belongs to user {owner}, and this process is user {user}", shown(path))?;
                fix(*recognized, &format!("chown {user}"), path, f)
            }
            Self::Pepper { path, source } => about(path.as_deref(), source, f),
            Self::Policy { path, found, asked } => write!(
                f,
                "{}: this limiter's policy is \"{found}\", and \"{asked}\" was asked for; open it with its own, or remove it and create another",
                shown(path)
            ),
            Self::Replaced { path } => write!(
                f,
                "{}: the file was removed or replaced since it was opened; open it again",
                shown(path)
            ),
            Self::TooShort { path, len } => write!(
                f,
                "{}: this is no keytally table: it has {len} byte{}, and the smallest has more than {}",
                shown(path),
                if *len == 1 { "" } else { "s" },
                crate::HEADER_LEN
            ),
            Self::Writable { path, mode, recognized } => {
                write!(f, "{}: its mode is {mode:04o}, so users other than root can write it", shown(path))?;
                fix(*recognized, "chmod go-w", path, f)
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
            Self::Entropy(source) | Self::Io { source, .. } => Some(source),
            Self::Pepper { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// The sentence of an inner error, after the file that it is about.
fn about(path: Option<&Path>, error: &dyn fmt::Display, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match path {
        Some(path) => write!(f, "{}: {error}", shown(path)),
        None => error.fmt(f),
    }
}

/// The command that fixes a file, if it may be changed.
fn fix(recognized: bool, command: &str, path: &Path, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if recognized { write!(f, "; fix it with: {command} {}", Quoted(path)) } else { Ok(()) }
}

/// A path as an error may repeat it.
fn shown(path: &Path) -> String {
    redact(&path.to_string_lossy()).into_owned()
}

/// What is said of a wait that was in vain.
struct Waited<'a> {
    waited: &'a Duration,
    holder: &'a LockHolder,
}

impl fmt::Display for Waited<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { waited, holder } = self;
        if holder.pid == Some(std::process::id()) && waited.is_zero() {
            return write!(f, "{holder} administers this gate already; end that first, or wait longer");
        }
        if waited.is_zero() {
            write!(f, "{holder} is changing this gate; ")?;
        } else {
            write!(f, "{holder} has been changing this gate for longer than the wait of {waited:?}; ")?;
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

/// A path as a shell takes it.
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

/// What is wrong with a text of peppers. Nothing of a pepper is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PepperError {
    /// The text begins with a byte-order mark.
    ByteOrderMark {
        /// The encoding that the mark stands for: UTF-8 or UTF-16.
        encoding: &'static str,
    },
    /// There is none, or there are more than four.
    Count {
        /// How many there are.
        given: usize,
    },
    /// One is neither hex nor base64.
    Form {
        /// Which one, counted from 1.
        number: usize,
        /// Of how many.
        of: usize,
    },
    /// The file is longer than peppers can be.
    Long {
        /// The most bytes that are read.
        max: usize,
    },
    /// One is there twice.
    Repeated {
        /// Which one, counted from 1.
        number: usize,
        /// Of how many.
        of: usize,
    },
    /// One has fewer than 32 bytes.
    Short {
        /// Which one, counted from 1.
        number: usize,
        /// Of how many.
        of: usize,
        /// Its bytes.
        len: usize,
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
            Self::Count { given: 0 } => f.write_str("no pepper is given; `openssl rand -hex 32` makes one"),
            Self::Count { given } => {
                write!(f, "{given} peppers are given, and at most {MAX} can be in use; leave out the oldest")
            }
            Self::Form { number, of } => write!(f, "pepper {number} of {of} is neither hex nor base64"),
            Self::Long { max } => {
                write!(f, "the file has more than {max} bytes, so it can't be a file of peppers")
            }
            Self::Repeated { number, of } => {
                write!(f, "pepper {number} of {of} is the same as one before it")
            }
            Self::Short { number, of, len } => write!(
                f,
                "pepper {number} of {of} has {len} byte{}, and must have at least {MIN_LEN}; `openssl rand -hex 32` makes one",
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
    fn a_wait_in_vain_names_the_holder_and_what_to_do() {
        let busy = |pid, stopped| {
            let holder = LockHolder { pid, program: pid.map(|_| "worker".into()), stopped };
            Error::Busy { path: Some("api.gate".into()), waited: Duration::from_secs(10), holder }.to_string()
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
    fn a_command_that_mends_can_be_pasted() {
        let mode = |path: &str| Error::Mode { path: path.into(), mode: 0o644, recognized: true }.to_string();
        assert_eq!(
            mode("/srv/api.gate"),
            "/srv/api.gate: its mode is 0644, so other users can get at it; fix it with: chmod 600 /srv/api.gate"
        );
        assert!(mode("my gate's").ends_with(r"chmod 600 'my gate'\''s'"));
        assert!(mode("-x").ends_with("chmod 600 -- '-x'"));
    }

    #[test]
    fn secret_that_was_given_as_a_path_is_not_repeated() {
        let secret = "kt_live_0Gq5Xk2LmPz7Hc1nT9vYbR4sWdEfUaJoQi83ZKM";
        let path = || PathBuf::from(secret);
        let io = || io::Error::from(io::ErrorKind::NotFound);
        let policy = || Box::new("1/s".parse::<Policy>().unwrap());
        for error in [
            Error::Admin { path: Some(path()), source: AdminError::NoSuchPlan },
            Error::Attach { path: path(), source: AttachError::Unfinished },
            Error::Capacity { path: path(), found: 1, asked: 2 },
            Error::Create { path: Some(path()), source: CreateError::PlanName },
            Error::Exists { path: path() },
            Error::Io { doing: "open", path: path(), source: io() },
            Error::Mode { path: path(), mode: 0o644, recognized: true },
            Error::NotAFile { path: path(), found: "a directory" },
            Error::Owner { path: path(), owner: 1, user: 2, recognized: true },
            Error::Pepper { path: Some(path()), source: PepperError::Count { given: 0 } },
            Error::Policy { path: path(), found: policy(), asked: policy() },
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
