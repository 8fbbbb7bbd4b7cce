//! The suite `api`: the public items of the libraries are the recorded ones, and none names a type
//! of a crate that may break within this project's versions. `cargo xtask api` writes the record.
//!
//! The crate public-api lists the items from rustdoc's JSON, whose format depends on the compiler.
//! JSON is an unstable option, which `RUSTC_BOOTSTRAP` permits. Only rustdoc gets this variable,
//! since rustc would build all crates again.

use alloc::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};

use crate::command::{self, cargo};
use crate::targets::target_folder;
use crate::tools::Found;

/// The libraries: the folder with the record, the package, and its features that add public items.
const LIBRARIES: [(&str, &str, &str); 3] = [
    ("core", "keytally-core", "serde,defmt"),
    ("host", "keytally", "serde,defmt"),
    ("cli", "keytally-cli", ""),
];

/// The crates whose types may be public: Rust's own, this project's, others from version 1.0 on,
/// and those of the features `serde` and `defmt`.
const PUBLIC_CRATES: [&str; 10] = [
    "alloc",
    "clap_builder",
    "core",
    "defmt",
    "keytally",
    "keytally_core",
    "serde_core",
    "std",
    "subtle",
    "zeroize",
];

/// Writes the records.
pub(crate) fn write() -> Result<()> {
    for (folder, package, features) in LIBRARIES {
        let path = format!("{folder}/api.txt");
        fs::write(&path, items(package, features)?)
            .with_context(|| format!("cannot write {path}"))?;
        println!("wrote {path}");
    }
    Ok(())
}

/// Compares the public items with the records.
///
/// # Errors
/// If an item is not recorded, a recorded item does not exist, or an item names a type of a crate
/// outside of [`PUBLIC_CRATES`].
pub(crate) fn check(_: &[Found]) -> Result<String> {
    let mut faults = Vec::new();
    let mut count = 0;
    for (folder, package, features) in LIBRARIES {
        let items = items(package, features)?;
        let recorded = fs::read_to_string(format!("{folder}/api.txt")).unwrap_or_default();
        let (items, recorded): (BTreeSet<_>, BTreeSet<_>) =
            (items.lines().collect(), recorded.lines().collect());
        let fault = |what: &str, item: &str| format!("{folder}/api.txt: {what}: {item}");
        faults.extend(items.difference(&recorded).map(|item| fault("not recorded", item)));
        faults.extend(
            recorded.difference(&items).map(|item| fault("recorded, but not public", item)),
        );
        let foreign = |item: &&&str| {
            crates(item, &package.replace('-', "_")).any(|name| !PUBLIC_CRATES.contains(&name))
        };
        faults
            .extend(items.iter().filter(foreign).map(|item| fault("of a crate before 1.0", item)));
        count += items.len();
    }
    ensure!(
        faults.is_empty(),
        "the public API differs from its rules or its record, which `cargo xtask api` writes:\n{}",
        faults.join("\n")
    );
    Ok(format!("{count} items"))
}

/// Returns a line for each public item of a library.
fn items(package: &str, features: &str) -> Result<String> {
    let target = target_folder()?;
    let folder = target.join("api");
    fs::create_dir_all(&folder)?;
    let rustdoc = folder.join("rustdoc");
    fs::write(&rustdoc, "#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc \"$@\"\n")?;
    fs::set_permissions(&rustdoc, fs::Permissions::from_mode(0o755))?;
    let mut doc = cargo();
    doc.args(["doc", "--no-deps", "--lib", "--package", package, "--features", features]);
    doc.env("RUSTDOC", rustdoc).env("RUSTDOCFLAGS", "-Z unstable-options --output-format json");
    command::run(doc)?;
    let json = target.join("doc").join(package.replace('-', "_")).with_extension("json");
    let listed = public_api::Builder::from_rustdoc_json(&json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .build()
        .context("public-api cannot read the JSON of this rustdoc")?;
    Ok(format!("{listed}"))
}

/// Returns the crates that a line names: the first name of each path, outside of `library` itself.
fn crates<'i>(item: &'i str, library: &'i str) -> impl Iterator<Item = &'i str> {
    item.split(|character: char| !(character.is_alphanumeric() || "_:".contains(character)))
        .filter_map(|path| path.split_once("::"))
        .map(|(first, _)| first)
        .filter(move |first| *first != library && first.starts_with(char::is_lowercase))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_of_a_signature_are_named() {
        let item = "pub fn lib::S::f(&self, heapless::String<4>) -> core::option::Option<Self::T>";
        assert_eq!(crates(item, "lib").collect::<Vec<_>>(), ["heapless", "core"]);
    }
}
