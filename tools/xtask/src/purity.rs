//! The suite `purity`: core depends on the crates in [`CRATES`] only, and none of them has its
//! feature `std` or `alloc`.
//!
//! The suite `firmware` builds core for targets without std and without an allocator, and
//! `forbid(unsafe_code)` in core rejects unsafe code.

use anyhow::{Result, ensure};

use crate::command::{self, cargo};

/// The crates that core may depend on: direct dependencies, then indirect ones.
const CRATES: &[&str] = &[
    "keytally-core",
    "heapless",
    "portable-atomic",
    "sha2",
    "siphasher",
    "subtle",
    "zeroize",
    // Dependencies of sha2.
    "block-buffer",
    "cfg-if",
    "cpufeatures",
    "crypto-common",
    "digest",
    "hybrid-array",
    "typenum",
    // A dependency of cpufeatures, on systems that report the features of the processor.
    "libc",
    // Dependencies of heapless.
    "byteorder",
    "hash32",
    "stable_deref_trait",
];

/// Checks the dependencies of core.
pub(crate) fn check() -> Result<String> {
    let mut tree = cargo();
    tree.args(["tree", "--quiet", "--package", "keytally-core", "--edges", "normal"]);
    tree.args(["--prefix", "none", "--format", "{p}|{f}"]);
    let faults = crate_faults(&command::run(tree)?);
    ensure!(faults.is_empty(), "core is not pure:\n{}", faults.join("\n"));
    Ok("pure".to_owned())
}

/// Returns the faults of the crates in the lines `NAME VERSION …|FEATURES` of `cargo tree`.
fn crate_faults(tree: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for line in tree.lines() {
        let mut parts = line.split('|');
        let name = parts.next().and_then(|package| package.split(' ').next()).unwrap_or_default();
        let features = parts.next().unwrap_or_default();
        if !CRATES.contains(&name) {
            faults
                .push(format!("{name} is not among the crates named in tools/xtask/src/purity.rs"));
        }
        let impure =
            features.split([',', ' ']).filter(|feature| ["std", "alloc"].contains(feature));
        faults.extend(impure.map(|feature| format!("{name} is built with its feature {feature}")));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_crate_or_std_feature_is_a_fault() {
        assert!(crate_faults("sha2 v0.11.1|oid\nsha2 v0.11.1|oid (*)\n").is_empty());
        assert_eq!(
            crate_faults("rand v0.9.0|\nsubtle v2.6.1|i128,std (*)\n"),
            [
                "rand is not among the crates named in tools/xtask/src/purity.rs",
                "subtle is built with its feature std"
            ]
        );
    }
}
