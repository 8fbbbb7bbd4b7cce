//! The tools that build for machines without an operating system, and emulate them.
//!
//! All are packages of Debian. Its Rust for the web includes the source of `core`, so it can build
//! for any target, whichever targets the local toolchain has.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;

use crate::command;
use crate::tools::{Need, program};

/// Cargo of Debian's Rust with the source of `core`. Its compiler is in the same folder.
pub(crate) const CARGO: Need = Need::new(
    "KEYTALLY_TEST_BARE_METAL_CARGO",
    |missing| {
        let packages = ["cargo-web", "rustc-web", "libstd-rust-web-dev", "rust-web-src"];
        missing.unless(cargo().is_some(), "Debian's Rust with the source of core", &packages);
    },
    || cargo().context("the package cargo-web contains no cargo"),
);

fn cargo() -> Option<PathBuf> {
    let mut list = Command::new("dpkg");
    list.args(["--listfiles", "cargo-web", "rust-web-src"]);
    let files = command::run(list).ok()?;
    files.lines().find(|file| file.ends_with("/bin/cargo")).map(PathBuf::from)
}

/// LLVM's linker, which `tools/firmware` names.
pub(crate) const LLD: Need = Need::new(
    "KEYTALLY_TEST_LLD",
    |missing| missing.any_of("ld.lld-22", &["lld-22"]),
    || program("ld.lld-22"),
);

/// The C compiler for ARM without an operating system.
pub(crate) const ARM_GCC: Need = Need::new(
    "KEYTALLY_TEST_ARM_GCC",
    |missing| missing.any_of("arm-none-eabi-gcc", &["gcc-arm-none-eabi"]),
    || program("arm-none-eabi-gcc"),
);

/// The emulator of ARM boards.
pub(crate) const QEMU_ARM: Need = Need::new(
    "KEYTALLY_TEST_QEMU_ARM",
    |missing| missing.any_of("qemu-system-arm", &["qemu-system-arm"]),
    || program("qemu-system-arm"),
);

/// The emulator of RISC-V boards. Older versions of Debian have it in qemu-system-misc.
pub(crate) const QEMU_RISCV: Need = Need::new(
    "KEYTALLY_TEST_QEMU_RISCV",
    |missing| missing.any_of("qemu-system-riscv32", &["qemu-system-riscv", "qemu-system-misc"]),
    || program("qemu-system-riscv32"),
);
