//! `cargo xtask mutants`: changes core, one small thing at a time, and runs the quick tests on each change. One that no
//! test notices is a test that is missing, or is listed with its reason in docs/MUTANTS.md.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::tools;

/// Runs cargo-mutants on core, or on those of its files that are named. What it does is in `.cargo/mutants.toml`, what it
/// found in `target/mutants/mutants.out`.
pub(crate) fn run(files: &[String], jobs: u32) -> Result<()> {
    let (_, cargo_mutants) = tools::cargo_mutants()?;
    let mut mutants = Command::new(cargo_mutants);
    mutants.args(["mutants", "--package", "keytally", "--output", "target/mutants", "--colors=never"]);
    mutants.args(["--jobs", &jobs.to_string()]);
    for file in files {
        mutants.args(["--file", &format!("core/src/{file}")]);
    }
    // Its own report is what one wants to see, as it comes.
    let status = mutants.status()?;
    ensure!(
        status.success(),
        "some mutants were missed or timed out: target/mutants/mutants.out has them, and docs/MUTANTS.md those that change nothing"
    );
    Ok(())
}
