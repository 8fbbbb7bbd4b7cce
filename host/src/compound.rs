//! Compound charges by the system's clock.

use keytally_core::{Compound, Part, PartsError, clock_offset_ms};

use crate::clock::{GateClock, SystemClock};

/// Checks several parts of one request, and charges all or none, by the system's clock. If a part
/// is of a gate in a fleet, the clock is that of its fleet.
///
/// [`Gate::part`](crate::Gate::part) and [`Limiter::part`](crate::Limiter::part) return parts.
/// [`keytally_core::check_all`] takes an explicit time, and says what a denial means while other
/// requests charge the same tallies.
///
/// ```
/// use keytally::{Gate, GateConfig, Limiter, Name, NewKey, Outcome, check_all, pepper};
/// let gate = Gate::in_memory(pepper::parse(&pepper::generate()?)?, &GateConfig::default())?;
/// let addresses = Limiter::in_memory(&"1/day".parse()?, 1000)?;
/// let (key, _) = gate.issue(&NewKey::new(42, Name::new("live").unwrap()))?;
///
/// let request = |api_key: &str, address: &[u8]| {
///     let key = gate.part(Some(api_key.as_bytes()), 1);
///     check_all(&[&key, &addresses.part(address, 1)])
/// };
/// assert!(request(key.expose(), b"203.0.113.9")?.is_admitted());
/// let denied = request(key.expose(), b"203.0.113.9")?;
/// assert_eq!(denied.outcome(), Outcome::Denied);
/// assert_eq!(denied.remaining(), Some(999), "the key was not charged");
///
/// let refused = request("kt_live_wrong", b"203.0.113.10")?;
/// assert_eq!(refused.http_status(), 401);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`PartsError`] without a part, or with more than [`MAX_PARTS`](crate::MAX_PARTS).
pub fn check_all(parts: &[&dyn Part<GateClock>]) -> Result<Compound, PartsError> {
    keytally_core::check_all(parts, clock_of(parts))
}

/// Returns what [`check_all`] would return now, and charges nothing.
///
/// # Errors
/// Those of [`check_all`].
pub fn peek_all(parts: &[&dyn Part<GateClock>]) -> Result<Compound, PartsError> {
    keytally_core::peek_all(parts, clock_of(parts))
}

fn clock_of(parts: &[&dyn Part<GateClock>]) -> GateClock {
    GateClock::ahead(SystemClock::read(), clock_offset_ms(parts))
}
