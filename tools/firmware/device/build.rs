//! Chooses the memory map of a target's board, and the linker script of its runtime.

use std::path::Path;

/// For each target: the memory map of its board in `memory/`, and the length of a counter's tick in
/// nanoseconds. QEMU runs one instruction per nanosecond, so that is the number of instructions in
/// a tick.
const BOARDS: &[(&str, &str, u32)] = &[
    ("thumbv6m-none-eabi", "microbit.x", 62),
    ("thumbv7m-none-eabi", "lm3s6965evb.x", 80),
    ("thumbv7em-none-eabihf", "mps2-an386.x", 40),
    ("thumbv8m.main-none-eabi", "mps2-an505.x", 50),
    ("riscv32imc-unknown-none-elf", "virt.x", 1),
    ("riscv32imac-unknown-none-elf", "virt.x", 1),
];

fn main() {
    println!("cargo::rerun-if-changed=memory");
    println!("cargo::rerun-if-changed=build.rs");
    let target = std::env::var("TARGET").expect("cargo sets TARGET");
    let Some((_, board, tick_ns)) = BOARDS.iter().find(|(name, ..)| *name == target) else {
        let names: Vec<&str> = BOARDS.iter().map(|(name, ..)| *name).collect();
        panic!("there is no board for {target}; there are boards for {}", names.join(", "));
    };
    let folder = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    std::fs::copy(Path::new("memory").join(board), Path::new(&folder).join("memory.x"))
        .expect("cannot copy the memory map");
    println!("cargo::rustc-env=KEYTALLY_TICK_NS={tick_ns}");
    println!("cargo::rustc-link-search={}", Path::new(&folder).display());
    if target.starts_with("riscv") {
        println!("cargo::rustc-link-arg-bins=-Tmemory.x");
    }
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
}
