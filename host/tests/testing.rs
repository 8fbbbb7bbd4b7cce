//! The clock that a test sets.

use core::time::Duration;

use keytally::{Gate, GateConfig, Limiter, Name, NewKey, Timestamp, now, pepper, testing};

/// The last second of January 2027.
const LAST_SECOND: Timestamp = Timestamp::from_unix_s(1_801_439_999);

#[test]
fn set_clock_reaches_all_tables_until_it_is_dropped() {
    let peppers = pepper::parse(&pepper::generate().unwrap()).unwrap();
    let gate = Gate::in_memory(peppers, &GateConfig::default()).unwrap();
    let limiter = Limiter::in_memory(&"1/second".parse().unwrap(), 8).unwrap();
    let clock = testing::at(LAST_SECOND);
    let new = NewKey::new(1, Name::new("live").unwrap())
        .with_expires(Timestamp::from_unix_s(LAST_SECOND.unix_s() + 1));
    let (key, _) = gate.issue(&new).unwrap();
    let checks = || {
        let is_valid = gate.check(Some(key.expose().as_bytes()), 1).is_admitted();
        (limiter.check(b"a", 1).is_admitted(), is_valid)
    };
    assert_eq!(std::thread::scope(|scope| scope.spawn(checks).join().unwrap()), (true, true));
    assert_eq!(checks(), (false, true));
    clock.tick(Duration::from_secs(1));
    assert_eq!(checks(), (true, false));
    assert_eq!(clock.now().unix_s(), LAST_SECOND.unix_s() + 1);
    clock.set(LAST_SECOND);
    assert_eq!(now(), LAST_SECOND);

    // The system clock corrects a tally that is ahead, and keeps its count.
    let limiter = Limiter::in_memory(&"2/minute".parse().unwrap(), 8).unwrap();
    clock.set(Timestamp::from_unix_s(4_000_000_000));
    assert!(limiter.check(b"a", 1).is_admitted());
    drop(clock);
    assert!(now().unix_s().abs_diff(4_000_000_000) > 60);
    assert_eq!(limiter.check(b"a", 1).remaining(), Some(0));
    assert_eq!(limiter.correct_clock(), 0);
}
