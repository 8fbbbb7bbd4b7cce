//! The tools that build for machines without an operating system, and stand in for them. All are Debian's: its Rust for the
//! web can build `core` for any target, whatever the toolchain at hand has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command;
use crate::tools::{Found, apt_get, apt_install_all, on_path};

/// Cargo of Debian's Rust with the source of `core`; its compiler lies beside it. In [`CARGO`].
pub(crate) fn cargo() -> Result<Found> {
    let installed = || {
        let mut list = Command::new("dpkg");
        list.args(["--listfiles", "cargo-web", "rust-web-src"]);
        let files = command::run(list).ok()?;
        files.lines().find(|file| file.ends_with("/bin/cargo")).map(PathBuf::from)
    };
    if installed().is_none() {
        let packages = ["cargo-web", "rustc-web", "libstd-rust-web-dev", "rust-web-src"];
        apt_install_all("Debian's Rust with the source of core", &packages, &[])?;
    }
    Ok((CARGO, installed().context("cargo-web was installed, but has no cargo")?))
}

/// The environment variable of [`cargo`].
pub(crate) const CARGO: &str = "KEYTALLY_TEST_BARE_METAL_CARGO";

/// LLVM's linker, in [`LLD`].
pub(crate) fn lld() -> Result<Found> {
    let installed = || ["ld.lld-22", "ld.lld"].into_iter().find_map(on_path);
    if installed().is_none() {
        apt_install_all("LLVM's linker", &["lld-22"], &[])?;
    }
    Ok((LLD, installed().context("lld-22 was installed, but ld.lld-22 is not on PATH")?))
}

/// The environment variable of [`lld`].
pub(crate) const LLD: &str = "KEYTALLY_TEST_LLD";

/// The C compiler for ARM without an operating system, in [`ARM_GCC`].
pub(crate) fn arm_gcc() -> Result<Found> {
    let installed = || on_path("arm-none-eabi-gcc");
    if installed().is_none() {
        apt_install_all("the C compiler for ARM", &["gcc-arm-none-eabi"], &[])?;
    }
    Ok((ARM_GCC, installed().context("gcc-arm-none-eabi was installed, but is not on PATH")?))
}

/// The environment variable of [`arm_gcc`].
pub(crate) const ARM_GCC: &str = "KEYTALLY_TEST_ARM_GCC";

/// The emulator of ARM boards.
pub(crate) fn qemu_arm() -> Result<Found> {
    Ok(("KEYTALLY_TEST_QEMU_ARM", qemu("qemu-system-arm", &["qemu-system-arm"])?))
}

/// The emulator of RISC-V boards, which older versions of Debian have in a package of rarer processors.
pub(crate) fn qemu_riscv() -> Result<Found> {
    let packages = ["qemu-system-riscv", "qemu-system-misc"];
    Ok(("KEYTALLY_TEST_QEMU_RISCV", qemu("qemu-system-riscv32", &packages)?))
}

/// An emulator, from the first of the packages that brings it.
fn qemu(program: &str, packages: &[&str]) -> Result<PathBuf> {
    if let Some(program) = on_path(program) {
        return Ok(program);
    }
    let what = format!("the emulator {program}");
    // Where another part of QEMU is installed from backports, the plain package would have it removed.
    let install = |package: &str| {
        apt_install_all(&what, &[package], &["--no-remove"])
            .or_else(|plain| from_backports(package).or(Err(plain)))
    };
    let mut fault = None;
    for package in packages {
        fault = install(package).err();
        if let Some(program) = on_path(program) {
            return Ok(program);
        }
    }
    Err(fault.unwrap_or_else(|| {
        anyhow::anyhow!("{} was installed, but {program} is not on PATH", packages.join(" or "))
    }))
}

/// Installs a package from Debian's backports, without making them a source of the system's.
fn from_backports(package: &str) -> Result<()> {
    let release = fs::read_to_string("/etc/os-release")?;
    let name = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .context("no release's name")?;
    let sources = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
    let list = std::path::absolute("target/backports.list")?;
    fs::create_dir_all("target")?;
    fs::write(&list, format!("{sources}\ndeb http://deb.debian.org/debian {name}-backports main\n"))?;
    let apt_get = |arguments: &[&str]| {
        let mut apt_get = apt_get(arguments);
        apt_get.arg("-o").arg(source_list(&list));
        command::run(apt_get)
    };
    apt_get(&["update"])?;
    let suite = format!("{name}-backports");
    let install = ["install", "-y", "--no-install-recommends", "--no-remove", "-t", suite.as_str(), package];
    apt_get(&install).map(drop)
}

fn source_list(list: &Path) -> String {
    format!("Dir::Etc::SourceList={}", list.display())
}
