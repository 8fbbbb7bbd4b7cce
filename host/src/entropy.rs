//! The system's entropy: the only place that asks for it.

use keytally_core::Entropy;
use zeroize::Zeroizing;

use crate::error::Error;

/// Entropy for one new key, for callers that issue or rotate keys through
/// [`Gate::administer`](crate::Gate::administer).
///
/// ```
/// let entropy = keytally::entropy()?;
/// assert_eq!(format!("{entropy:?}"), "Entropy(…)");
/// # Ok::<(), keytally::Error>(())
/// ```
///
/// # Errors
/// [`Error::Entropy`]: the system has none, which it says only in odd sandboxes.
pub fn entropy() -> Result<Entropy, Error> {
    Ok(Entropy::new(*random()?))
}

/// The same as bytes, for callers that hand them on to another language.
///
/// # Errors
/// [`Error::Entropy`].
pub fn entropy_bytes() -> Result<Zeroizing<[u8; 24]>, Error> {
    random()
}

/// Random bytes, wiped when dropped.
pub(crate) fn random<const LEN: usize>() -> Result<Zeroizing<[u8; LEN]>, Error> {
    let mut bytes = Zeroizing::new([0; LEN]);
    getrandom::fill(&mut *bytes).map_err(|error| Error::Entropy(error.into()))?;
    Ok(bytes)
}
