//! `cargo xtask wheel`: what PyPI would get, each checked in an environment that has nothing else.
//!
//! One wheel does for every Python from 3.9 on. Built with zig's linker and its old libraries, it does for every
//! distribution with glibc since 2014, or with musl, whatever this machine has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command;
use crate::python::SMOKE;
use crate::tools;

/// Where they go.
const FOLDER: &str = "target/python/dist";

/// Which C library a wheel is for.
struct Kind {
    name: &'static str,
    libc: &'static str,
    /// What it is called in a wheel's name.
    tag: &'static str,
}

const KINDS: [Kind; 2] = [
    Kind { name: "glibc", libc: "gnu", tag: "manylinux2014" },
    Kind { name: "musl", libc: "musl", tag: "musllinux_1_2" },
];

/// Builds and checks all of them, and prints each file.
pub(crate) fn run() -> Result<()> {
    let python =
        tools::virtual_environment_of(Path::new("target/python/wheel"), &["maturin", "ziglang"])?;
    let folder = std::path::absolute(FOLDER)?;
    tools::remove_folder(&folder)?;
    let maturin = |arguments: &[&str]| {
        let mut maturin = Command::new(&python);
        maturin.args(["-m", "maturin"]).args(arguments).args([
            "--manifest-path",
            "py/Cargo.toml",
            "--out",
        ]);
        maturin.arg(&folder).env("PATH", path_before(&python)?);
        command::run(maturin)
    };

    maturin(&["sdist"])?;
    let sdist = newest(&folder, "tar.gz")?;
    check(&sdist).with_context(|| format!("{} does not install", sdist.display()))?;
    println!("{}: builds, and passes its examples", sdist.display());

    for kind in KINDS {
        let target = format!("{}-unknown-linux-{}", std::env::consts::ARCH, kind.libc);
        if !has_library(&target)? {
            println!("no wheel for {}: `rustup target add {target}` gets what it needs", kind.name);
            continue;
        }
        maturin(&[
            "build",
            "--release",
            "--zig",
            "--compatibility",
            kind.tag,
            "--target",
            &target,
        ])?;
        let wheel = newest(&folder, "whl")?;
        if cfg!(target_env = "musl") == (kind.libc == "musl") {
            check(&wheel).with_context(|| format!("{} does not work", wheel.display()))?;
            println!("{}: passes its examples", wheel.display());
        } else {
            println!("{}: not run, since this machine has another C library", wheel.display());
        }
    }
    Ok(())
}

/// Installs it where nothing else is, and runs the examples of its documentation.
fn check(package: &Path) -> Result<()> {
    let folder = Path::new("target/python/fresh");
    tools::remove_folder(folder)?;
    let python = tools::virtual_environment_of(folder, &[])?;
    let mut pip = tools::pip(&python);
    pip.arg(package).env("CARGO_TARGET_DIR", std::path::absolute("target/python/sdist")?);
    command::run(pip)?;
    let mut smoke = Command::new(python);
    smoke.args(SMOKE);
    command::run(smoke).map(drop)
}

/// Whether the toolchain has the standard library of a target.
fn has_library(target: &str) -> Result<bool> {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", target]);
    let libraries = command::run(rustc)?;
    Ok(Path::new(libraries.trim()).is_dir())
}

/// The file that came last with this extension.
fn newest(folder: &Path, extension: &str) -> Result<PathBuf> {
    let mut newest = None;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(extension) {
            newest = newest.max(Some((entry.metadata()?.modified()?, entry.path())));
        }
    }
    let (_, path) = newest.with_context(|| format!("{} has no .{extension}", folder.display()))?;
    ensure!(path.is_file(), "{} is not a file", path.display());
    Ok(path)
}

/// The search path with an environment's programs first: maturin looks there for the Python that has zig.
fn path_before(python: &Path) -> Result<std::ffi::OsString> {
    let programs = python.parent().context("an interpreter without a folder")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = core::iter::once(programs.to_owned()).chain(std::env::split_paths(&path));
    Ok(std::env::join_paths(folders)?)
}
