//! `cargo xtask wheel`: builds the distributions for PyPI, and tests each that this machine can run
//! in an empty environment.
//!
//! A wheel supports every Python with a GIL from 3.9 on. zig links it with an old C library: one
//! wheel needs glibc 2.17 or later, the other musl 1.2 or later.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::run;
use crate::python::SMOKE;
use crate::targets::target_folder;
use crate::tools;

/// The C libraries for which wheels are built: their names in targets of Rust, and the tags in the
/// names of the wheels.
const KINDS: [(&str, &str); 2] = [("gnu", "manylinux2014"), ("musl", "musllinux_1_2")];

/// Versions are fixed, since another one may write other bytes.
const PACKAGES: [&str; 2] = ["maturin==1.16.0", "ziglang==0.17.1"];

/// Builds the distributions and tests them.
pub(crate) fn write() -> Result<()> {
    let folder = std::path::absolute(target_folder()?.join("python/dist"))?;
    tools::remove_folder(&folder)?;
    build(&folder, &|command| run(command))?;
    check_all(&folder)
}

/// Builds the source distribution and the wheels in `folder`. `within` runs each command, and may
/// change its folder and environment.
pub(crate) fn build(folder: &Path, within: &dyn Fn(Command) -> Result<String>) -> Result<()> {
    let python = tools::virtual_environment_of(&target_folder()?.join("python/wheel"), &PACKAGES)?;
    let programs = python.parent().context("an interpreter without a folder")?;
    // maturin runs the Python on the PATH for zig.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = core::iter::once(programs.to_owned()).chain(std::env::split_paths(&path));
    let path = std::env::join_paths(path)?;
    let maturin = |arguments: &[&str]| {
        let mut maturin = Command::new(&python);
        maturin.args(["-m", "maturin"]).args(arguments).args(["--manifest-path", "py/Cargo.toml"]);
        maturin.arg("--out").arg(folder).env("PATH", &path);
        within(maturin)
    };
    maturin(&["sdist"])?;
    for (libc, tag) in KINDS {
        let target = format!("{}-unknown-linux-{libc}", std::env::consts::ARCH);
        let libraries = ["--print", "target-libdir", "--target", &target];
        if Path::new(run(Command::new("rustc").args(libraries))?.trim()).is_dir() {
            let build = ["build", "--release", "--locked", "--zig", "--compatibility", tag];
            maturin(&[&build[..], &["--target", &target]].concat())?;
        } else {
            println!("no wheel for {libc}: run `rustup target add {target}` first");
        }
    }
    Ok(())
}

/// Tests each distribution in a folder that this machine can run, and prints the paths of all.
pub(crate) fn check_all(folder: &Path) -> Result<()> {
    let other = KINDS[usize::from(cfg!(not(target_env = "musl")))].1;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with("keytally-") {
            continue;
        }
        if name.contains(other) {
            println!("{}: not tested, since this machine has another C library", path.display());
        } else if [".whl", ".tar.gz"].iter().any(|end| name.ends_with(end)) {
            check(&path).with_context(|| format!("{} fails its examples", path.display()))?;
            if name.ends_with(".tar.gz") {
                check_without_rust(&path)?;
            }
            println!("{}: passes its examples", path.display());
        }
    }
    Ok(())
}

/// Installs a distribution into a new virtual environment, and runs the examples of the
/// documentation.
fn check(distribution: &Path) -> Result<()> {
    let folder = std::path::absolute(target_folder()?.join("python"))?;
    let fresh = folder.join("fresh");
    tools::remove_folder(&fresh)?;
    let python = tools::virtual_environment_of(&fresh, &[])?;
    run(tools::pip(&python).arg(distribution).env("CARGO_TARGET_DIR", folder.join("sdist")))?;
    run(Command::new(python).args(SMOKE)).map(drop)
}

/// Installs the source distribution with a PATH without cargo. Its error must be the sentence of
/// `py/backend/build_keytally.py`.
fn check_without_rust(distribution: &Path) -> Result<()> {
    let folder = std::path::absolute(target_folder()?.join("python/without-rust"))?;
    let python = tools::virtual_environment_of(&folder, &[])?;
    let mut pip = tools::pip(&python);
    pip.arg("--no-cache-dir").arg(distribution).env_remove("CARGO");
    let result = run(pip.env("PATH", python.parent().context("an interpreter without a folder")?));
    let error = result.err().context("a source distribution was built without Rust")?.to_string();
    ensure!(error.contains("Rust is missing to build one"), "without Rust:\n{error}");
    Ok(())
}
