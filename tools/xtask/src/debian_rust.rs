//! Debian's Rust for the web. It includes the source of `core` and `std`, so it can build for any
//! target, whichever targets the local toolchain has.

use std::process::Command;

use anyhow::Result;

use crate::tools::{Tool, tool};

/// Its cargo. Its compiler is in the same folder.
pub(crate) const CARGO: Tool = tool(
    "Debian's Rust with the source of core",
    "dpkg --listfiles rust-web-src >/dev/null && dpkg --listfiles cargo-web | grep -m1 '/bin/cargo$'",
    "cargo-web rustc-web libstd-rust-web-dev rust-web-src",
);

/// The flag of its compiler for musl: Zig has the files with which a program starts, and this Rust
/// has none.
pub(crate) const MUSL_FLAG: &str = "-Clink-self-contained=no";

/// Lets a program that runs cargo, such as cargo-zigbuild and maturin, find this Rust instead of
/// the local toolchain. `-Zbuild-std` builds the standard library, which the compiler permits only
/// with `RUSTC_BOOTSTRAP`.
pub(crate) fn select(command: &mut Command) -> Result<()> {
    let cargo = CARGO.path()?;
    for (variable, program) in [("CARGO", "cargo"), ("RUSTC", "rustc"), ("RUSTDOC", "rustdoc")] {
        command.env(variable, cargo.with_file_name(program));
    }
    command.env("RUSTC_BOOTSTRAP", "1");
    command.env_remove("LD_LIBRARY_PATH").env_remove("RUSTUP_TOOLCHAIN");
    Ok(())
}
