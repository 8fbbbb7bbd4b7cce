//! Issues a key in a gate, a table of API keys in a file, and makes requests until one is denied.
//!
//!     keytally create api.gate --plan "default=3/minute, 100/hour"
//!     cargo run -p keytally --example gate
//!
//! Run it in the folder of api.gate, with the pepper of the gate in KEYTALLY_PEPPER.

use keytally::{Gate, Name, NewKey, pepper};

fn main() -> Result<(), Box<dyn core::error::Error>> {
    let gate = Gate::open("api.gate", pepper::parse(&std::env::var("KEYTALLY_PEPPER")?)?)?;

    let env = Name::new("live").ok_or("not a name")?;
    let (key, _) = gate.issue(&NewKey::new(42, env))?; // the only copy of the secret
    let header = Some(key.expose().as_bytes()); // the X-API-Key field of a request, or None

    loop {
        let verdict = gate.check(header, 1);
        println!("{} {}", verdict.http_status(), verdict.body());
        verdict.headers().iter().for_each(|(name, value)| println!("{name}: {value}"));
        if !verdict.is_admitted() {
            return Ok(());
        }
    }
}
