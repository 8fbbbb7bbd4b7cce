//! `cargo xtask deb`: the package of the program for Debian, by cargo-deb and the metadata in
//! `services/server/Cargo.toml`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::command::{cargo, run};
use crate::targets::{SERVICES, target_folder};
use crate::tools;

/// The manifest with the metadata.
const MANIFEST: &str = "services/server/Cargo.toml";

/// The programs that it needs: its own, and the one that writes its manual pages.
pub(crate) const PROGRAMS: [&str; 4] = ["--bin", "keytally", "--example", "pages"];

/// Builds the package of a release in a folder. Returns its path.
pub(crate) fn write(folder: Option<&Path>) -> Result<String> {
    let folder = match folder {
        Some(folder) => folder.to_owned(),
        None => target_folder()?.join("dist"),
    };
    let mut build = cargo();
    build.args(["build", "--release", "--locked", "--manifest-path", SERVICES]);
    run(build.args(["--package", "keytally-server"]).args(PROGRAMS))?;
    Ok(format!("{}\n", pack("release", &folder, &[])?.display()))
}

/// Packs the program that was built with a profile, with further options of cargo-deb. Returns the
/// path of the package.
pub(crate) fn pack(profile: &str, folder: &Path, options: &[&str]) -> Result<PathBuf> {
    let built = std::path::absolute(target_folder()?.join(profile))?;
    let pages = built.join("pages");
    tools::remove_folder(&pages)?;
    run(Command::new(built.join("examples/pages")).arg(&pages))?;
    run(Command::new("sh").arg("packaging/debian/prepare.sh").arg(&pages))?;
    fs::create_dir_all(folder)?;
    let mut deb = Command::new(tools::cargo_deb()?);
    deb.args(["--no-build", "--locked", "--strip", "--quiet", "--manifest-path", MANIFEST]);
    let time = run(Command::new("git").args(["log", "-1", "--format=%ct"]))?;
    deb.args(options).args(["--profile", profile, "--output"]).arg(folder);
    let printed = run(deb.env("SOURCE_DATE_EPOCH", time.trim()))?;
    Ok(PathBuf::from(printed.trim()))
}
