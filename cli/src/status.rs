//! Exit statuses.

/// The exit status of a command that failed.
pub(crate) const FAILED: i32 = 3;

/// The result of a command that did its work. The value is the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Success.
    Success = 0,
    /// The request was denied, the key is invalid, or some lines of an import were rejected.
    Denied = 1,
    /// The gate has flaws, or no agent of its machine leads.
    Flawed = FAILED as isize,
}
