//! Building and running the audited programs.

use std::env;
use std::fs;
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

/// Returns the compiler and its architecture, such as `rustc 1.95.0 (…) for x86_64`.
///
/// # Panics
/// If that is not the one with which `file` was recorded, and the file is not to be recorded:
/// another one generates other code.
pub(crate) fn same_compiler(file: &str, recorded: &str) -> String {
    let version = run(Command::new("rustc").arg("--version"));
    let compiler = format!("{} for {}", version.trim(), env::consts::ARCH);
    let version = recorded.split(' ').nth(1).unwrap_or_default();
    assert!(
        recorded == compiler || env::var_os("UPDATE_EXPECT").is_some(),
        "{file} was recorded with {recorded}, this is {compiler}: run `rustup toolchain install \
         {version}` and set RUSTUP_TOOLCHAIN={version}, or record it again with UPDATE_EXPECT=1"
    );
    compiler
}

/// Returns the folder of the project.
pub(crate) fn root() -> PathBuf {
    fs::canonicalize(concat!(env!("CARGO_MANIFEST_DIR"), "/../../..")).unwrap()
}

/// Returns the command valgrind.
pub(crate) fn valgrind() -> Command {
    Command::new(env::var_os("KEYTALLY_TEST_VALGRIND").unwrap_or_else(|| "valgrind".into()))
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
