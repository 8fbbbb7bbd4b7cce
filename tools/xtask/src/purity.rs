//! The suite `purity`: core has no std, no allocation, no unsafe code, and no dependencies except
//! [`CRATES`], none of which has its feature `std` or `alloc`.
//!
//! A build for this machine cannot prove this, since it could link std. The suite reads the sources
//! and the crate graph: a crate with `no_std` and without `extern crate` cannot name `std` or
//! `alloc`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::command::{self, cargo};
use crate::source::{TestItems, Word, lines_of, rust_files, words};
use crate::tools::Found;

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

/// Checks the sources and the dependencies of core.
pub(crate) fn check(_: &[Found]) -> Result<String> {
    let mut faults = attribute_faults(&fs::read_to_string("core/src/lib.rs")?)?;
    // A module in a file of its own that is named tests.rs holds tests only.
    let is_product = |path: &PathBuf| !path.ends_with("tests.rs");
    for path in rust_files(Path::new("core/src"))?.into_iter().filter(is_product) {
        let source = fs::read_to_string(&path)?;
        let found =
            extern_crates(&source).with_context(|| format!("cannot read {}", path.display()))?;
        faults.extend(
            found.into_iter().map(|line| format!("{}:{line}: extern crate", path.display())),
        );
    }

    let mut tree = cargo();
    tree.args([
        "tree",
        "--quiet",
        "--package",
        "keytally-core",
        "--edges",
        "normal",
        "--prefix",
        "none",
    ]);
    tree.args(["--format", "{p}|{f}"]);
    let tree = command::run(tree)?;
    faults.extend(crate_faults(&tree));

    ensure!(faults.is_empty(), "core is not pure:\n{}", faults.join("\n"));
    Ok("pure".to_owned())
}

/// Returns a fault for each attribute that core's `lib.rs` lacks.
fn attribute_faults(lib: &str) -> Result<Vec<String>> {
    let words = words(lib, TestItems::Include)?;
    let wanted = ["# ! [ no_std ]", "# ! [ forbid ( unsafe_code ) ]"];
    let missing = wanted.iter().filter(|attribute| lines_of(&words, attribute).is_empty());
    Ok(missing
        .map(|attribute| format!("core/src/lib.rs: no {}", attribute.replace(' ', "")))
        .collect())
}

/// Returns the lines with `extern crate`, except in tests.
fn extern_crates(source: &str) -> Result<Vec<usize>> {
    let words: Vec<Word> = words(source, TestItems::Skip)?;
    Ok(lines_of(&words, "extern crate"))
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
    fn attribute_in_a_comment_or_cfg_attr_is_a_fault() {
        assert!(attribute_faults("#![no_std]\n#![forbid(unsafe_code)]").unwrap().is_empty());
        assert_eq!(
            attribute_faults("// #![no_std]\n#![cfg_attr(not(test), no_std)]").unwrap(),
            ["core/src/lib.rs: no #![no_std]", "core/src/lib.rs: no #![forbid(unsafe_code)]"]
        );
    }

    #[test]
    fn extern_crate_is_allowed_in_tests_only() {
        assert!(extern_crates("#[cfg(test)]\nextern crate std;").unwrap().is_empty());
        assert_eq!(extern_crates("\nextern crate alloc;").unwrap(), [2]);
    }

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
