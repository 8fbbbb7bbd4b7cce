//! What differs between operating systems: the name of the machine.

/// Returns the name of this machine.
#[cfg(unix)]
pub(crate) fn machine() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Returns the name of this machine.
#[cfg(windows)]
pub(crate) fn machine() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_default()
}
