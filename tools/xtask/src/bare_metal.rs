//! The tools that build for machines without an operating system, and emulate them.
//!
//! All are packages of Debian.

use crate::debian_rust::CARGO;
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
