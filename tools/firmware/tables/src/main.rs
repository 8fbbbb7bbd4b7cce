//! Writes the files that the C programs include to a folder: `vectors.bin`, the vectors;
//! `gate.bin`, a gate with one key; `gate.h`, that key.
//!
//! Usage: `keytally-tables FOLDER`.

use std::fs;
use std::path::PathBuf;

use keytally_core::{CacheLine, Entropy, Gate, GateConfig, Name, NewKey, Peppers, Plan, Timestamp};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder: PathBuf = std::env::args_os().nth(1).ok_or("usage: keytally-tables FOLDER")?.into();
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("vectors.bin"), keytally_tables::encode())?;
    let (image, key) = provisioned()?;
    fs::write(folder.join("gate.bin"), image)?;
    fs::write(folder.join("gate.h"), format!("#define DEVICE_KEY \"{key}\"\n"))?;
    Ok(())
}

/// Returns the bytes of a gate with one key for a device that only checks keys, and this key.
///
/// The device stores the gate in flash, copies it to RAM at start, and attaches to it. A gate
/// contains neither peppers nor keys. The pepper of this gate and the entropy of its key are
/// public, since it is only for this check.
fn provisioned() -> Result<(Vec<u8>, String), Box<dyn std::error::Error>> {
    let plans = [Plan::new("device", "100/minute, 1000/hour".parse()?).ok_or("a short name")?];
    let name = |text| Name::new(text).ok_or("a short name");
    let config = GateConfig::new(64, name("kt")?, &plans).with_plan_slots(4);
    let memory: Vec<CacheLine> = (0..config.lines()).map(|_| CacheLine::new()).collect();
    let peppers = Peppers::new(&[b"a pepper for all to see, 32 byte"])?;
    let gate = Gate::init(&memory[..], &config, peppers)?;
    let new = NewKey::new(42, name("live")?).with_plan("device");
    let entropy = Entropy::new(*b"24 bytes, random for you");
    let (key, _) =
        gate.administer()?.issue(&new, entropy, Timestamp::from_unix_s(1_767_225_600))?;
    let words = memory.iter().flat_map(|line| (0..8).map(|word| line.load(word)));
    let bytes = words.flat_map(u64::to_le_bytes).collect();
    Ok((bytes, key.expose().to_owned()))
}
