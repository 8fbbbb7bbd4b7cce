//! Fixtures of these tests: times, tables in memory, plans and keys.

use keytally_core::{
    Address, AddressLimiter, CacheLine, Entropy, Gate, GateConfig, Key, KeyId, Limiter, Name,
    NewKey, OnFull, Peppers, Plan, Timestamp, Verdict,
};

/// Noon in Unix seconds, 2023-11-15T12:00:00Z. A minute, an hour and a half-day begin then.
pub(crate) const NOON_S: u64 = 1_700_049_600;

/// Returns the moment this many seconds after noon.
pub(crate) const fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix_s(NOON_S + seconds)
}

/// Returns the end of a key or of a grace period, in seconds after noon.
pub(crate) const fn end(seconds: u64) -> Option<Timestamp> {
    Some(at(seconds))
}

/// Returns lines of zeros.
pub(crate) fn memory(lines: usize) -> Vec<CacheLine> {
    (0..lines).map(|_| CacheLine::new()).collect()
}

/// Returns all words of these lines.
pub(crate) fn image(lines: &[CacheLine]) -> Vec<u64> {
    lines.iter().flat_map(|line| (0..8).map(|word| line.load(word))).collect()
}

/// Returns an empty limiter.
pub(crate) fn limiter(policy: &str, capacity: u32) -> Limiter<Vec<CacheLine>> {
    limiter_of_seed(7, policy, capacity)
}

/// Returns an empty limiter that refuses new subjects if it has no slot for them.
pub(crate) fn refusing_limiter(policy: &str, capacity: u32) -> Limiter<Vec<CacheLine>> {
    let limiter = limiter(policy, capacity);
    limiter.set_on_full(OnFull::Refuse);
    limiter
}

/// Returns an empty limiter. Compound charges charge limiters in the order of their seeds.
pub(crate) fn limiter_of_seed(seed: u8, policy: &str, capacity: u32) -> Limiter<Vec<CacheLine>> {
    let memory = memory(Limiter::<Vec<CacheLine>>::lines(capacity));
    Limiter::init(memory, &policy.parse().unwrap(), capacity, [seed; 16]).unwrap()
}

/// Returns an empty limiter of addresses.
pub(crate) fn address_limiter(policy: &str, capacity: u32) -> AddressLimiter<Vec<CacheLine>> {
    let memory = memory(AddressLimiter::<Vec<CacheLine>>::lines(capacity));
    AddressLimiter::init(memory, &policy.parse().unwrap(), capacity, [7; 16]).unwrap()
}

/// Returns the address in a text.
pub(crate) fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn plan(name: &str, policy: &str) -> Plan {
    Plan::new(name, policy.parse().unwrap()).unwrap()
}

/// Returns one pepper for each number.
pub(crate) fn peppers(numbers: &[u8]) -> Peppers {
    Peppers::new(&numbers.iter().map(|number| [*number; 32]).collect::<Vec<_>>()).unwrap()
}

/// Returns the settings of a gate with the prefix `kt`, room for four plans, and no hints.
pub(crate) fn config(keys: u32, plans: &[Plan]) -> GateConfig<'_> {
    GateConfig::new(keys, name("kt"), plans).with_plan_slots(4)
}

/// Returns an empty gate under the pepper 1.
pub(crate) fn gate(config: &GateConfig<'_>) -> Gate<Vec<CacheLine>> {
    Gate::init(memory(config.lines()), config, peppers(&[1])).unwrap()
}

/// Returns the description of a key of account 42 and the first plan, without an expiry.
pub(crate) fn new_key() -> NewKey<'static> {
    NewKey::new(42, name("live"))
}

/// Returns entropy that differs for each number. The key ids are spread over all values.
pub(crate) fn entropy(number: u64) -> Entropy {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    Entropy::new([mixed, number, !mixed].map(u64::to_le_bytes).as_flattened().try_into().unwrap())
}

/// Issues a key at noon.
pub(crate) fn issue<M: AsRef<[CacheLine]>>(
    gate: &Gate<M>,
    new: &NewKey<'_>,
    entropy: Entropy,
) -> (Key, KeyId) {
    gate.administer().unwrap().issue(new, entropy, at(0)).unwrap()
}

/// Checks a key for one unit.
pub(crate) fn check<M: AsRef<[CacheLine]>>(gate: &Gate<M>, key: &Key, now: Timestamp) -> Verdict {
    gate.check(Some(key.expose().as_bytes()), 1, now)
}
