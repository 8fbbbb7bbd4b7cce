//! Creates limiters without subjects, and gates full of keys.

use keytally_core::{
    CacheLine, Entropy, Gate, GateConfig, KeyId, Limiter, Name, NewKey, Peppers, Plan, Policy,
};

use crate::crypto::PEPPER;
use crate::traffic::{Random, START};

/// Returns an empty limiter for `capacity` subjects, as the library makes it: a small one has more
/// slots than it needs. Measured are the calls of its [`table`](keytally::Limiter::table), which
/// get the time from their caller.
pub(crate) fn limiter(policy: &str, capacity: u32) -> keytally::Limiter {
    let policy: Policy = policy.parse().expect("a policy");
    keytally::Limiter::in_memory(&policy, capacity).expect("memory")
}

/// Returns an empty limiter with as few slots as `capacity` subjects need.
pub(crate) fn smallest_limiter(policy: &str, capacity: u32) -> Limiter<Vec<CacheLine>> {
    let memory: Vec<CacheLine> =
        (0..Limiter::<Vec<CacheLine>>::lines(capacity)).map(|_| CacheLine::new()).collect();
    let policy: Policy = policy.parse().expect("a policy");
    Limiter::init(memory, &policy, capacity, [7; 16]).expect("a limiter")
}

/// Returns the environment of all keys.
pub(crate) fn env() -> Name {
    Name::new("live").expect("a name")
}

/// The keys of each account, which share its team's limits.
const KEYS_OF_AN_ACCOUNT: u32 = 20;

/// Returns a full gate, and the texts and ids of its keys in the order of their records.
pub(crate) fn gate(sections: &str, keys: u32) -> (Gate<Vec<CacheLine>>, Vec<(String, KeyId)>) {
    let plans = [Plan::new("default", sections.parse().expect("sections")).expect("a plan")];
    let prefix = Name::new("kt").expect("a name");
    let has_teams = plans[0].sections.named("team").is_some();
    let teams = if has_teams { keys.div_ceil(KEYS_OF_AN_ACCOUNT) } else { 0 };
    let config = GateConfig::new(keys, prefix, &plans).with_plan_slots(1).with_teams(teams);
    let memory: Vec<CacheLine> = (0..config.lines()).map(|_| CacheLine::new()).collect();
    let gate =
        Gate::init(memory, &config, Peppers::new(&[PEPPER]).expect("a pepper")).expect("a gate");
    let mut random = Random(3);
    let mut administrator = gate.administer().expect("no other administrator");
    let issue = |number: u32| {
        // The first 8 bytes become the key id, which selects the record: here the next one.
        let id = (u128::from(number) << 64).div_ceil(u128::from(keys));
        let mut entropy = [0; 24];
        for (bytes, word) in entropy.chunks_exact_mut(8).zip([
            u64::try_from(id).expect("below 2^64"),
            random.next(),
            random.next(),
        ]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        // The accounts of successive records differ.
        let new = NewKey::new(number % keys.div_ceil(KEYS_OF_AN_ACCOUNT), env());
        let (key, id) = administrator.issue(&new, Entropy::new(entropy), START).expect("room");
        (key.expose().to_owned(), id)
    };
    let issued = (0..keys).map(issue).collect();
    drop(administrator);
    (gate, issued)
}
