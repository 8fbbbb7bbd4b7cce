//! `cargo xtask wheel`: builds the distributions for PyPI, and tests each that this machine can run
//! in an empty environment.
//!
//! The package `keytally` is the module. For each system it has a wheel for every Python with a GIL
//! from 3.9 on, and one for Python 3.14 without. The package `keytally-cli` is the program with
//! `serve`. On Linux, zig links them with old C libraries: glibc 2.17 or musl 1.2.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::run;
use crate::debian_rust;
use crate::python::SMOKE;
use crate::targets::target_folder;
use crate::tools;

/// Versions are fixed, since another one may write other bytes.
const PACKAGES: [&str; 2] = ["maturin==1.16.0", "ziglang==0.17.1"];

/// A system that wheels are built for.
struct System {
    /// The target of maturin.
    target: &'static str,
    /// The targets of Rust that it consists of.
    parts: &'static [&'static str],
    /// The options of maturin on Linux.
    options: &'static [&'static str],
}

const MANYLINUX: &[&str] = &["--zig", "--compatibility", "manylinux2014"];
const MUSLLINUX: &[&str] = &["--zig", "--compatibility", "musllinux_1_2"];

const SYSTEMS: [System; 7] = [
    one(&["x86_64-unknown-linux-gnu"], MANYLINUX),
    one(&["x86_64-unknown-linux-musl"], MUSLLINUX),
    one(&["aarch64-unknown-linux-gnu"], MANYLINUX),
    one(&["aarch64-unknown-linux-musl"], MUSLLINUX),
    System {
        target: "universal2-apple-darwin",
        parts: &["aarch64-apple-darwin", "x86_64-apple-darwin"],
        options: &["--zig"],
    },
    one(&["x86_64-pc-windows-gnu"], &[]),
    one(&["x86_64-pc-windows-msvc"], &[]),
];

const fn one(target: &'static [&'static str; 1], options: &'static [&'static str]) -> System {
    System { target: target[0], parts: target, options }
}

/// The wheels of a system: the manifest of the package, and the options of maturin.
const WHEELS: [(&str, &[&str]); 3] = [
    ("py/Cargo.toml", &[]),
    ("py/Cargo.toml", &["--interpreter", FREE_THREADED]),
    ("services/server/Cargo.toml", &[]),
];

/// The Python without a GIL that has wheels of its own.
const FREE_THREADED: &str = "python3.14t";

/// A script that creates a gate, issues a key and checks it until it is denied.
const QUICK_START: &str = r#"
export KEYTALLY_PEPPER=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
"$1" create api.gate --plan "default=3/31d"
"$1" issue api.gate --account 42 > key
for check in 1 2 3; do "$1" check api.gate < key; done
status=0; "$1" check api.gate < key || status=$?; [ $status = 1 ]
"$1" serve --help
"#;

/// Builds the distributions and tests them: for this machine, or with `all` for every system for
/// which there is a toolchain.
pub(crate) fn write(all: bool) -> Result<()> {
    let folder = std::path::absolute(target_folder()?.join("python/dist"))?;
    tools::remove_folder(&folder)?;
    build(&folder, all, &|command| run(command))?;
    check_all(&folder)
}

/// Builds the source distribution and the wheels in `folder`. `within` runs each command, and may
/// change its folder and environment.
pub(crate) fn build(
    folder: &Path,
    all: bool,
    within: &dyn Fn(Command) -> Result<String>,
) -> Result<()> {
    let python = tools::virtual_environment_of(&target_folder()?.join("python/wheel"), &PACKAGES)?;
    let programs = python.parent().context("an interpreter without a folder")?;
    // maturin runs the Python on the PATH for zig.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = core::iter::once(programs.to_owned()).chain(std::env::split_paths(&path));
    let path = std::env::join_paths(path)?;
    let maturin = |subcommand: &str, manifest: &str| {
        let mut maturin = Command::new(&python);
        maturin.args(["-m", "maturin", subcommand, "--manifest-path", manifest, "--out"]);
        maturin.arg(folder).env("PATH", &path);
        maturin
    };
    within(maturin("sdist", WHEELS[0].0))?;
    for system in SYSTEMS.iter().filter(|system| all || system.is_here()) {
        let is_installed = system.is_installed()?;
        // Debian's Rust lacks the program that removes symbols for macOS, and Microsoft's linker.
        let is_built_by_debian = debian_rust::CARGO.path().is_ok()
            && !["apple-darwin", "msvc"].iter().any(|end| system.target.ends_with(end));
        if !is_installed && !is_built_by_debian {
            let targets = system.parts.join(" ");
            println!("no wheels for {}: run `rustup target add {targets}` first", system.target);
            continue;
        }
        for (manifest, options) in WHEELS {
            let mut build = maturin("build", manifest);
            build.args(["--release", "--locked", "--target", system.target]).args(options);
            if cfg!(target_os = "linux") {
                build.args(system.options);
            }
            if !is_installed {
                debian_rust::select(&mut build)?;
                build.arg("-Zbuild-std=std,panic_unwind");
                if system.target.ends_with("musl") {
                    build.args(["--", debian_rust::MUSL_FLAG]);
                }
            }
            within(build)?;
        }
    }
    Ok(())
}

impl System {
    /// Returns whether this machine has it, with any C library.
    fn is_here(&self) -> bool {
        match std::env::consts::OS {
            "macos" => self.target == "universal2-apple-darwin",
            "windows" => self.target == "x86_64-pc-windows-msvc",
            os => {
                let system = format!("{}-unknown-{os}-", std::env::consts::ARCH);
                self.target.starts_with(&system)
            }
        }
    }

    /// Returns whether the local toolchain has its standard library.
    fn is_installed(&self) -> Result<bool> {
        let mut is_installed = true;
        for part in self.parts {
            let print = ["--print", "target-libdir", "--target", part];
            let libraries = run(Command::new("rustc").args(print))?;
            is_installed &= Path::new(libraries.trim()).is_dir();
        }
        Ok(is_installed)
    }
}

/// Tests each distribution in a folder that this machine can run, and prints the paths of all.
pub(crate) fn check_all(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_distribution = [".whl", ".tar.gz"].iter().any(|end| name.ends_with(end));
        if !is_distribution || !name.starts_with("keytally") {
            continue;
        }
        let result = match untested(&name) {
            Some(reason) => format!("not tested: {reason}"),
            None => {
                check(&path, &name).with_context(|| format!("{} fails", path.display()))?;
                "passes its tests".to_owned()
            }
        };
        println!("{}: {result}", path.display());
    }
    Ok(())
}

/// Returns why the distribution of this name is not tested.
fn untested(name: &str) -> Option<&'static str> {
    let libc = if cfg!(target_env = "musl") { "musllinux" } else { "manylinux" };
    let is_here = match std::env::consts::OS {
        "linux" => name.contains(libc) && name.contains(std::env::consts::ARCH),
        "macos" => name.contains("macosx"),
        _ => name.contains("win_amd64"),
    };
    if name.contains("cp314t") {
        Some("`cargo xtask test python` tests the module in every Python that it finds")
    } else if is_here || name.ends_with(".tar.gz") {
        None
    } else {
        Some("this machine has another system")
    }
}

/// Installs a distribution into a new virtual environment, and tests it there: the module by the
/// examples of its documentation, the program by the quick start of the README.
fn check(distribution: &Path, name: &str) -> Result<()> {
    let folder = std::path::absolute(target_folder()?.join("python"))?;
    let fresh = folder.join("fresh");
    tools::remove_folder(&fresh)?;
    let python = tools::virtual_environment_of(&fresh, &[])?;
    run(tools::pip(&python).arg(distribution).env("CARGO_TARGET_DIR", folder.join("sdist")))?;
    if name.starts_with("keytally_cli") {
        let work = tempfile::tempdir()?;
        let mut sh = Command::new("sh");
        sh.args(["-euc", QUICK_START, "sh"]).arg(python.with_file_name("keytally"));
        return run(sh.current_dir(work.path())).map(drop);
    }
    run(Command::new(python).args(SMOKE))?;
    if name.ends_with(".tar.gz") { check_without_rust(distribution) } else { Ok(()) }
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
