//! `cargo xtask wheel`: builds the distributions for PyPI, and tests each that this machine can run
//! in an empty environment.
//!
//! A wheel supports every Python with a GIL from 3.9 on. zig links it with an old C library: one
//! wheel needs glibc 2.17 or later, the other musl 1.2 or later.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command;
use crate::python::SMOKE;
use crate::tools;

/// The folder of the distributions.
const FOLDER: &str = "target/python/dist";

/// A C library for which a wheel is built.
struct Kind {
    name: &'static str,
    /// Its name in a target of Rust.
    libc: &'static str,
    /// The platform tag in the name of the wheel.
    tag: &'static str,
}

const KINDS: [Kind; 2] = [
    Kind { name: "glibc", libc: "gnu", tag: "manylinux2014" },
    Kind { name: "musl", libc: "musl", tag: "musllinux_1_2" },
];

/// Builds the distributions, tests those that this machine can run, and prints their paths.
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
        maturin.arg(&folder).env("PATH", path_with(&python)?);
        command::run(maturin)
    };

    maturin(&["sdist"])?;
    let sdist = newest(&folder, "tar.gz")?;
    check(&sdist).with_context(|| format!("{} does not install", sdist.display()))?;
    println!("{}: can be built, and passes its examples", sdist.display());

    for kind in KINDS {
        let target = format!("{}-unknown-linux-{}", std::env::consts::ARCH, kind.libc);
        if !has_library(&target)? {
            println!("no wheel for {}: run `rustup target add {target}` first", kind.name);
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
            check(&wheel).with_context(|| format!("{} fails its examples", wheel.display()))?;
            println!("{}: passes its examples", wheel.display());
        } else {
            println!("{}: not tested, since this machine has another C library", wheel.display());
        }
    }
    Ok(())
}

/// Installs a distribution into a new virtual environment, and runs the examples of the
/// documentation.
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

/// Returns whether the toolchain has the standard library of a target.
fn has_library(target: &str) -> Result<bool> {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", target]);
    let libraries = command::run(rustc)?;
    Ok(Path::new(libraries.trim()).is_dir())
}

/// Returns the newest file in a folder with this extension.
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

/// Returns PATH with the folder of `python` first, so that maturin finds the Python that has zig.
fn path_with(python: &Path) -> Result<std::ffi::OsString> {
    let programs = python.parent().context("an interpreter without a folder")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = core::iter::once(programs.to_owned()).chain(std::env::split_paths(&path));
    Ok(std::env::join_paths(folders)?)
}
