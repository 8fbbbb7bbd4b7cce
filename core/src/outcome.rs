//! The outcome of a check, and the reason why a key is invalid.

use core::fmt;

/// The outcome of a check. The numbers are the same in every language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
#[non_exhaustive]
pub enum Outcome {
    /// The request is admitted and its cost is charged.
    Admitted = 0,
    /// Some window lacks room for the cost; nothing is charged.
    Denied = 1,
    /// No key was presented.
    MissingKey = 2,
    /// The key is invalid; [`Verdict::reason`](crate::Verdict::reason) returns why.
    InvalidKey = 3,
    /// The cost is above a limit and can never be admitted.
    TooCostly = 4,
    /// A limiter has no slot for a new subject; nothing is charged.
    Full = 5,
    /// The key does not have a scope that the request needs; nothing is charged.
    Forbidden = 6,
    /// There is no decision now: the key's counts are being moved to another gate, which is not in
    /// force yet, or units that machines share cannot be had. Nothing is charged.
    /// [`Verdict::unavailability`](crate::Verdict::unavailability) returns why.
    Unavailable = 7,
}

/// Why a key is invalid. It is for logs and metrics, and must not be disclosed to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
#[non_exhaustive]
pub enum Reason {
    /// The text does not have Keytally's form, and cannot be an imported key: the gate has none, or
    /// the text has fewer than 16 or more than 256 bytes.
    Malformed = 1,
    /// The text has Keytally's form and a wrong checksum, for example after a typing error. No
    /// imported key has this text.
    Checksum = 2,
    /// No key of this gate has this key id. For a text without Keytally's form: the gate has
    /// imported keys, and none that is stored under a pepper of this process has this text.
    Unknown = 3,
    /// The key id exists, and the secret is wrong.
    WrongSecret = 4,
    /// The key was revoked.
    Revoked = 5,
    /// The key has expired, or its previous secret was sent after the grace of a rotation.
    Expired = 6,
    /// The request has more than one key header.
    Duplicate = 7,
    /// The key is stored under a pepper that this process does not have. For a key without
    /// Keytally's form, the reason is [`Unknown`](Self::Unknown) instead.
    PepperMissing = 8,
    /// The key's record is damaged.
    Damaged = 9,
    /// The key's team is suspended.
    Suspended = 10,
}

/// Why a gate or a limiter does not decide about a request now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
#[non_exhaustive]
pub enum Unavailability {
    /// The key's counts are being moved to another gate, which is not in force yet.
    Moving = 1,
    /// Requests need a [reservation](crate::Reserve), and this process makes none.
    NotReserving = 2,
    /// What grants reservations cannot be reached.
    Lost = 3,
    /// The reservation was requested and is not granted yet. The caller may check again at once,
    /// or after a millisecond.
    Waiting = 4,
}

impl Unavailability {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Moving, Self::NotReserving, Self::Lost, Self::Waiting];

    /// Returns a short word for logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Moving => "moving",
            Self::NotReserving => "not_reserving",
            Self::Lost => "lost",
            Self::Waiting => "waiting",
        }
    }
}

/// Writes a sentence. [`as_str`](Unavailability::as_str) returns a word.
impl fmt::Display for Unavailability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Moving => "the counts of the key are being moved to another gate",
            Self::NotReserving => {
                "the limits are shared with other machines, and this process did not join them"
            }
            Self::Lost => "the store of the limits that machines share cannot be reached",
            Self::Waiting => "the request waits for units that machines share",
        })
    }
}

impl Reason {
    /// All reasons, in the order of their numbers.
    pub const ALL: &'static [Self] = &[
        Self::Malformed,
        Self::Checksum,
        Self::Unknown,
        Self::WrongSecret,
        Self::Revoked,
        Self::Expired,
        Self::Duplicate,
        Self::PepperMissing,
        Self::Damaged,
        Self::Suspended,
    ];

    /// Returns a short word for logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Checksum => "checksum",
            Self::Unknown => "unknown",
            Self::WrongSecret => "wrong_secret",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Duplicate => "duplicate",
            Self::PepperMissing => "pepper_missing",
            Self::Damaged => "damaged",
            Self::Suspended => "suspended",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Outcome {
    /// All outcomes, in the order of their numbers.
    pub const ALL: &'static [Self] = &[
        Self::Admitted,
        Self::Denied,
        Self::MissingKey,
        Self::InvalidKey,
        Self::TooCostly,
        Self::Full,
        Self::Forbidden,
        Self::Unavailable,
    ];

    /// Returns a short word for logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Denied => "denied",
            Self::MissingKey => "missing_key",
            Self::InvalidKey => "invalid_key",
            Self::TooCostly => "too_costly",
            Self::Full => "full",
            Self::Forbidden => "forbidden",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
