//! Building and running the audited programs.

use std::path::PathBuf;
use std::process::Command;

/// Builds `tools/audit/NAME` in release, with more arguments of `cargo rustc`. Returns the folder
/// of its artifacts.
pub(crate) fn build(name: &str, arguments: &[&str]) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["rustc", "--release", "--manifest-path"]).arg(manifest.join("Cargo.toml"));
    run(cargo.arg("--target-dir").arg(&folder).args(arguments));
    folder.join("release")
}

/// Runs a command and returns its output.
///
/// # Panics
/// If the command cannot be started or fails. The message has its output.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    let text = text.concat();
    assert!(output.status.success(), "{command:?} ended with {}:\n{text}", output.status);
    text
}
