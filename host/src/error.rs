//! Everything that can go wrong, a sentence each.

use core::fmt;
use std::io;
use std::path::{Path, PathBuf};

use keytally::{AttachError, CreateError, Policy, gate::AdminError};

/// Why it couldn't be done. `Display` is one whole sentence: it names the file, what was found, what was expected,
/// and, where there is one, the command that mends it. [`source`](core::error::Error::source) is for programs; its
/// text is in the sentence already.
///
/// No sentence holds a key or a pepper.
#[derive(Debug)]
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
            Self::Capacity { path, found, asked } => write!(
                f,
                "{}: this limiter is for {found} subjects, and {asked} were asked for; open it with {found}, or remove it and create another",
                path.display()
            ),
            Self::Create { path, source } => about(path.as_deref(), source, f),
            Self::Entropy(error) => write!(f, "the system gives no random bytes: {error}"),
            Self::Exists { path } => {
                write!(
                    f,
                    "{}: there is a file of that name already, and it was left as it is",
                    path.display()
                )
            }
            Self::Io { doing, path, source } => write!(f, "cannot {doing} {}: {source}", path.display()),
            Self::Mode { path, mode } => write!(
                f,
                "{}: its mode is {mode:04o}, so other users can get at it; mend it with: chmod 600 {}",
                path.display(),
                Quoted(path)
            ),
            Self::NotAFile { path, found } => {
                write!(f, "{}: this is {found}, not a regular file", path.display())
            }
            Self::Owner { path, owner, user } => write!(
                f,
                "{}: it belongs to user {owner}, and this process is user {user}; mend it with: chown {user} {}",
                path.display(),
                Quoted(path)
            ),
            Self::Pepper { path, source } => about(path.as_deref(), source, f),
            Self::Policy { path, found, asked } => write!(
                f,
                "{}: this limiter's policy is \"{found}\", and \"{asked}\" was asked for; open it with its own, or remove it and create another",
                path.display()
            ),
            Self::Replaced { path } => write!(
                f,
                "{}: the file was removed or replaced since it was opened; open it again",
                path.display()
            ),
            Self::TooShort { path, len } => write!(
                f,
                "{}: this is no keytally table: it has {len} bytes, and the smallest has more than {}",
                path.display(),
                crate::HEADER_LEN
            ),
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
        Some(path) => write!(f, "{}: {error}", path.display()),
        None => error.fmt(f),
    }
}

/// A path as a shell takes it.
struct Quoted<'a>(&'a Path);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.display().to_string();
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
        const MAX: usize = keytally::mac::MAX_PEPPERS;
        const MIN_LEN: usize = keytally::mac::MIN_PEPPER_LEN;
        match self {
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
                "pepper {number} of {of} has {len} bytes, and must have at least {MIN_LEN}; `openssl rand -hex 32` makes one"
            ),
        }
    }
}

impl core::error::Error for PepperError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_mends_can_be_pasted() {
        let mode = |path: &str| Error::Mode { path: path.into(), mode: 0o644 }.to_string();
        assert_eq!(
            mode("/srv/api.gate"),
            "/srv/api.gate: its mode is 0644, so other users can get at it; mend it with: chmod 600 /srv/api.gate"
        );
        assert!(mode("my gate's").ends_with(r"chmod 600 'my gate'\''s'"));
        assert!(mode("-x").ends_with("chmod 600 -- '-x'"));
    }
}
