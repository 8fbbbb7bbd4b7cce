//! Core depends on named crates only, and none of them has its feature `std` or `alloc`. The Python
//! module depends on no crate that only services need, and the layers for tower on none of the list
//! of keys. The program needs no library of the system.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use alloc::collections::BTreeSet;
use std::process::Command;

/// The crates that core may depend on: direct dependencies, then indirect ones.
const CRATES: &[&str] = &[
    "keytally-core",
    "heapless",
    "portable-atomic",
    "sha2",
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

#[test]
fn core_depends_on_named_crates_without_std_and_alloc() {
    let mut tree = Command::new(env!("CARGO"));
    tree.args(["tree", "--quiet", "--package", "keytally-core", "--edges", "normal"]);
    tree.args(["--prefix", "none", "--format", "{p}|{f}"]);
    assert_eq!(crate_faults(&support::run(&mut tree)), [""; 0]);
}

#[test]
fn python_module_depends_on_no_service() {
    let mut tree = Command::new(env!("CARGO"));
    tree.args(["tree", "--quiet", "--package", "keytally-python", "--edges", "normal"]);
    tree.args(["--prefix", "none", "--format", "{p}"]);
    let tree = support::run(&mut tree);
    assert_eq!(service_crates(&tree), [""; 0]);
    assert!(tree.lines().count() > 10, "{tree}");
}

/// Returns the crates in the lines `NAME VERSION` of `cargo tree` that only services need.
fn service_crates(tree: &str) -> Vec<&str> {
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    let is_of_services = |name: &&str| {
        ["keytally-server", "keytally-keys", "keytally-fleet", "axum", "hyper", "tokio"]
            .contains(name)
            || ["sqlx", "libsqlite3", "webauthn", "redis", "rustls"]
                .iter()
                .any(|begin| name.starts_with(begin))
    };
    names.filter(is_of_services).collect()
}

#[test]
fn crate_of_a_service_is_found() {
    let tree = "keytally v0.1.0\nsqlx-core v0.9.0\nlibsqlite3-sys v0.37.0\ntokio v1.0.0 (*)\n\
                webauthn-rs v0.6.2\nkeytally-fleet v0.1.0\n";
    let found = ["sqlx-core", "libsqlite3-sys", "tokio", "webauthn-rs", "keytally-fleet"];
    assert_eq!(service_crates(tree), found);
}

/// Returns the names of the crates that a package of the services is built from.
fn crates_of_services(package: &str) -> Vec<String> {
    let mut tree = Command::new(env!("CARGO"));
    let manifest = support::root().join("services/Cargo.toml");
    tree.args(["tree", "--quiet", "--manifest-path"]).arg(manifest);
    tree.args(["--package", package, "--edges", "normal,build", "--prefix", "none"]);
    let tree = support::run(tree.args(["--format", "{p}"]));
    tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn tower_layers_have_no_list_of_keys() {
    let crates = crates_of_services("keytally-tower");
    assert!(crates.contains(&"keytally-core".to_owned()));
    let begins = ["sqlx", "webauthn", "askama", "redis"];
    let found = crates.iter().find(|name| begins.iter().any(|begin| name.starts_with(begin)));
    assert_eq!(found, None);
}

#[test]
fn program_is_built_with_one_library_in_c() {
    let crates = crates_of_services("keytally-server");
    assert!(crates.contains(&"webauthn-rs".to_owned()));
    // The crate of the numbers of Linux's system calls has no C.
    let is_binding = |name: &&str| name.ends_with("-sys") && *name != "linux-raw-sys";
    let bindings: BTreeSet<_> = crates.iter().map(|name| &**name).filter(is_binding).collect();
    assert_eq!(bindings, BTreeSet::from(["libsqlite3-sys"]));
}

/// Returns the faults of the crates in the lines `NAME VERSION …|FEATURES` of `cargo tree`.
fn crate_faults(tree: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for line in tree.lines() {
        let (package, features) = line.split_once('|').unwrap_or((line, ""));
        let name = package.split(' ').next().unwrap_or_default();
        if !CRATES.contains(&name) {
            faults.push(format!(
                "{name} is not among the crates named in tools/audit/checks/tests/purity.rs"
            ));
        }
        let features = features.split([',', ' ']);
        let impure = features.filter(|feature| ["std", "alloc"].contains(feature));
        faults.extend(impure.map(|feature| format!("{name} is built with its feature {feature}")));
    }
    faults
}

#[test]
fn unknown_crate_or_std_feature_is_a_fault() {
    assert!(crate_faults("sha2 v0.11.1|oid\nsha2 v0.11.1|oid (*)\n").is_empty());
    assert_eq!(
        crate_faults("rand v0.9.0|\nsubtle v2.6.1|i128,std (*)\n"),
        [
            "rand is not among the crates named in tools/audit/checks/tests/purity.rs",
            "subtle is built with its feature std"
        ]
    );
}
