//! Peppers: the server's secrets, up to four at a time, so that they can be rotated too.

use core::fmt;

use heapless::Vec;

use crate::mac::{MAX_PEPPERS, Pepper, PepperTooShort};

/// Up to four peppers, newest last. New keys use the newest.
#[derive(Clone, Debug)]
pub struct Peppers(pub(crate) Vec<Pepper, MAX_PEPPERS>);

/// Why a list of peppers is no good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeppersError {
    /// One of them is too short.
    TooShort(PepperTooShort),
    /// There is none, or more than [`MAX_PEPPERS`].
    Count,
    /// One of them is given twice.
    Repeated,
}

impl fmt::Display for PeppersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort(error) => error.fmt(f),
            Self::Count => write!(f, "give 1 to {MAX_PEPPERS} different peppers, newest last"),
            Self::Repeated => f.write_str("the same pepper is given twice; give each once, newest last"),
        }
    }
}

impl core::error::Error for PeppersError {}

impl Peppers {
    /// The peppers of these bytes, newest last.
    ///
    /// # Errors
    /// What [`PeppersError`] lists.
    pub fn new<P: AsRef<[u8]>>(peppers: &[P]) -> Result<Self, PeppersError> {
        let mut list = Vec::<Pepper, MAX_PEPPERS>::new();
        for bytes in peppers {
            let pepper = Pepper::new(bytes.as_ref()).map_err(PeppersError::TooShort)?;
            if list.iter().any(|other| other.fingerprint() == pepper.fingerprint()) {
                return Err(PeppersError::Repeated);
            }
            list.push(pepper).map_err(|_| PeppersError::Count)?;
        }
        if list.is_empty() { Err(PeppersError::Count) } else { Ok(Self(list)) }
    }

    pub(crate) fn newest(&self) -> &Pepper {
        // `new` lets no empty list through.
        &self.0[self.0.len() - 1]
    }

    #[cfg_attr(target_pointer_width = "64", inline(always))]
    pub(crate) fn of_fingerprint(&self, fingerprint: u64) -> Option<&Pepper> {
        self.0.iter().find(|pepper| pepper.fingerprint() == fingerprint)
    }
}
