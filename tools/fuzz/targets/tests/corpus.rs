//! Calls each target with the inputs of its corpus.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;

use keytally_fuzz_targets::TARGETS;

/// Calls a target with each file of its corpus, in the order of their names, and with no bytes.
fn replay(name: &str) {
    let (_, target) = TARGETS.iter().find(|(other, _)| *other == name).unwrap();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(name);
    let mut files: Vec<PathBuf> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} holds no input", folder.display());
    for file in files {
        println!("{}", file.display());
        target(&fs::read(&file).unwrap());
    }
    target(&[]);
}

macro_rules! targets {
    ($($target:ident)*) => {
        $(#[test]
        fn $target() {
            replay(stringify!($target));
        })*

        #[test]
        fn all_targets_have_a_test() {
            assert!(TARGETS.iter().map(|(name, _)| *name).eq([$(stringify!($target)),*]));
        }
    };
}

targets!(policy sections prefixes key mac headers limiter_calls gate_calls compound_calls open_bytes fleet_file c_calls sealed);
