//! The system's entropy. No other module reads it.

use keytally_core::Entropy;
use zeroize::Zeroizing;

use crate::error::Error;

/// Returns entropy for one new key, for callers that issue or rotate keys through
/// [`Gate::administer`](crate::Gate::administer).
///
/// ```
/// let entropy = keytally::entropy()?;
/// assert_eq!(format!("{entropy:?}"), "Entropy(…)");
/// # Ok::<(), keytally::Error>(())
/// ```
///
/// # Errors
/// [`Error::Entropy`] if the system provides none, which happens only in some sandboxes.
pub fn entropy() -> Result<Entropy, Error> {
    Ok(Entropy::new(*random()?))
}

/// Returns the entropy for one new key as bytes, for callers that pass them to another language.
///
/// # Errors
/// [`Error::Entropy`] if the system provides none.
pub fn entropy_bytes() -> Result<Zeroizing<[u8; 24]>, Error> {
    random()
}

/// Returns random bytes, wiped when dropped.
pub(crate) fn random<const LEN: usize>() -> Result<Zeroizing<[u8; LEN]>, Error> {
    let mut bytes = Zeroizing::new([0; LEN]);
    getrandom::fill(&mut *bytes).map_err(|error| Error::Entropy(error.into()))?;
    Ok(bytes)
}
