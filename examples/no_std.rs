//! Creates a gate and a key, and makes requests until one is denied. It uses the core alone,
//! which needs no files, allocation or clock. Only printing and the error type are from std.
//!
//! A device passes its pepper, random bytes and the time to `run`. In this example, `main` passes
//! constants.
//!
//!     cargo run -p keytally-core --example no_std

use keytally_core::{CacheLine, Entropy, Gate, GateConfig, Name, NewKey, Peppers, Plan, Timestamp};

/// Memory for 64 keys and 4 plans: 72 cache lines.
static MEMORY: [CacheLine; 72] = [const { CacheLine::new() }; 72];

fn run(pepper: &[u8], random: [u8; 24], now: Timestamp) -> Result<(), Box<dyn core::error::Error>> {
    let plans = [Plan::new("default", "3/minute, 100/hour".parse()?).ok_or("not a name")?];
    let prefix = Name::new("kt").ok_or("not a name")?;
    let config = GateConfig::new(64, prefix, &plans).with_plan_slots(4);
    let gate = Gate::init(&MEMORY[..], &config, Peppers::new(&[pepper])?)?;

    let env = Name::new("live").ok_or("not a name")?;
    let (key, _) = gate.administer()?.issue(&NewKey::new(42, env), Entropy::new(random), now)?;
    let header = Some(key.expose().as_bytes());

    loop {
        let verdict = gate.check(header, 1, now);
        println!("{} {}", verdict.http_status(), verdict.body());
        verdict.headers().iter().for_each(|(name, value)| println!("{name}: {value}"));
        if !verdict.is_admitted() {
            return Ok(());
        }
    }
}

fn main() -> Result<(), Box<dyn core::error::Error>> {
    run(b"an example of a pepper, 32 bytes", [7; 24], Timestamp::from_unix_s(1_700_000_000))
}
