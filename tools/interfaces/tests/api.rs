//! The public items of the libraries are the recorded ones, and none names a type of a crate that
//! may break within this project's versions. `cargo xtask api` writes the records.
//!
//! The crate public-api lists the items from rustdoc's JSON, whose format depends on the compiler.
//! JSON is an unstable option, which `RUSTC_BOOTSTRAP` permits. Only rustdoc gets this variable,
//! since rustc would build all crates again.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use expect_test::{ExpectFile, expect_file};

/// The crates whose types may be public: Rust's own, this project's, others from version 1.0 on,
/// and those of the features `serde` and `defmt`.
const PUBLIC_CRATES: [&str; 11] = [
    "alloc",
    "clap_builder",
    "core",
    "defmt",
    "keytally",
    "keytally_core",
    "keytally_fleet_plan",
    "serde_core",
    "std",
    "subtle",
    "zeroize",
];

#[test]
fn public_items_of_core_are_the_recorded_ones() {
    check("keytally-core", "serde,defmt", &expect_file!["../../../core/api.txt"]);
}

#[test]
fn public_items_of_the_library_are_the_recorded_ones() {
    check("keytally", "serde,defmt", &expect_file!["../../../host/api.txt"]);
}

#[test]
fn public_items_of_the_program_are_the_recorded_ones() {
    check("keytally-cli", "", &expect_file!["../../../cli/api.txt"]);
}

/// Compares the public items of a library with its record. `features` are those of its features
/// that add public items.
fn check(package: &str, features: &str, recorded: &ExpectFile) {
    let items = items(package, features);
    let library = package.replace('-', "_");
    for item in items.lines() {
        let foreign = crates(item, &library).find(|name| !PUBLIC_CRATES.contains(name));
        assert_eq!(foreign, None, "the crate is before 1.0: {item}");
    }
    recorded.assert_eq(&items);
}

/// Returns a line for each public item of a library.
fn items(package: &str, features: &str) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let target = folder.parent().unwrap();
    let rustdoc = folder.join(format!("rustdoc-of-{package}"));
    fs::write(&rustdoc, "#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc \"$@\"\n").unwrap();
    fs::set_permissions(&rustdoc, fs::Permissions::from_mode(0o755)).unwrap();
    let mut doc = Command::new(env!("CARGO"));
    doc.args(["doc", "--no-deps", "--lib", "--package", package, "--features", features]);
    doc.arg("--target-dir").arg(target).env("RUSTDOC", rustdoc);
    doc.env("RUSTDOCFLAGS", "-Z unstable-options --output-format json");
    let output = doc.output().unwrap();
    assert!(output.status.success(), "{doc:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    let json = target.join("doc").join(package.replace('-', "_")).with_extension("json");
    public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .build()
        .expect("public-api reads the format of one version of rustdoc")
        .to_string()
}

/// Returns the crates that a line names: the first name of each path, outside of `library` itself.
fn crates<'i>(item: &'i str, library: &'i str) -> impl Iterator<Item = &'i str> {
    item.split(|character: char| !(character.is_alphanumeric() || "_:".contains(character)))
        .filter_map(|path| path.split_once("::"))
        .map(|(first, _)| first)
        .filter(move |first| *first != library && first.starts_with(char::is_lowercase))
}

#[test]
fn crates_of_a_signature_are_named() {
    let item = "pub fn lib::S::f(&self, heapless::String<4>) -> core::option::Option<Self::T>";
    assert_eq!(crates(item, "lib").collect::<Vec<_>>(), ["heapless", "core"]);
}
