//! Creates the gates of `verdict.json` as table files in the folder that the first argument names.
//! Each file has the name of its gate. The tests of other languages open them.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a tool of tests")]

use std::path::{Path, PathBuf};
use std::{env, fs};

use keytally::{Gate, GateConfig, Peppers, Plan};
use keytally_vectors::files::GateSetup;
use keytally_vectors::load_verdicts;

#[path = "../tests/gates/mod.rs"]
mod gates;

fn main() {
    let folder = PathBuf::from(env::args_os().nth(1).expect("a folder as the first argument"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    for setup in &load_verdicts().gates {
        create_gate(&folder.join(&setup.gate), setup);
    }
}

/// Creates a gate with its keys.
fn create_gate(path: &Path, setup: &GateSetup) {
    let plans = vec![Plan::new("default", setup.policy.parse().unwrap()).unwrap()];
    let config = GateConfig::default().with_keys(64).with_plans(plans);
    let gate = Gate::create(path, Peppers::new(&[&setup.pepper]).unwrap(), &config).unwrap();
    gate.administer(|administrator| {
        gates::import_keys(administrator, setup);
        Ok(())
    })
    .unwrap();
}
