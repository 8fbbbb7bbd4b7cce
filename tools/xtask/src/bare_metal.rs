//! The tools that build for machines without an operating system, and emulate them.
//!
//! All are packages of Debian. Its Rust for the web includes the source of `core`, so it can build
//! for any target, whichever targets the local toolchain has.

use crate::tools::{Tool, tool};

/// All of them.
pub(crate) const TOOLS: &[Tool] = &[
    CARGO,
    // LLVM's linker, which `tools/firmware` names.
    tool("ld.lld-22", "command -v ld.lld-22", "lld-22"),
    tool("arm-none-eabi-gcc", "command -v arm-none-eabi-gcc", "gcc-arm-none-eabi"),
    tool("qemu-system-arm", "command -v qemu-system-arm", "qemu-system-arm"),
    // Older versions of Debian have it in qemu-system-misc.
    tool(
        "qemu-system-riscv32",
        "command -v qemu-system-riscv32",
        "qemu-system-riscv or qemu-system-misc",
    ),
];

/// Cargo of Debian's Rust with the source of `core`. Its compiler is in the same folder.
pub(crate) const CARGO: Tool = tool(
    "Debian's Rust with the source of core",
    "dpkg --listfiles rust-web-src >/dev/null && dpkg --listfiles cargo-web | grep -m1 '/bin/cargo$'",
    "cargo-web rustc-web libstd-rust-web-dev rust-web-src",
);
