//! The suite `python`: the Python module, built as a wheel and installed into a virtual
//! environment.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{self, cargo, succeeds};
use crate::targets::{PROFILE, SERVICES, profile_folder, target_folder};
use crate::tools::{self, Found, Need};

/// The arguments of an interpreter that run the examples of the documentation. The script needs
/// only the module.
pub(crate) const SMOKE: [&str; 5] = ["-X", "dev", "-W", "error", "py/tests/smoke.py"];

/// The arguments after `python -m` that run tests without writing a cache.
pub(crate) const PYTEST: [&str; 4] = ["pytest", "-q", "-p", "no:cacheprovider"];

/// The folder, from `py`, of the tests of the module together with the service and a C program.
const LANGUAGES: &str = "../services/server/tests/languages";

/// A script that succeeds in a free-threaded Python.
const FREE_THREADED: &str =
    "import sys, sysconfig; sys.exit(not sysconfig.get_config_var('Py_GIL_DISABLED'))";

/// The interpreter of the virtual environment of the tests.
pub(crate) const ENVIRONMENT: Need =
    Need::new("KEYTALLY_TEST_PYTHON_MODULE", tools::needs_python, || {
        environment_with("venv", "py/tests/requirements.txt")
    });

/// Returns the folder of builds and virtual environments.
fn folder() -> Result<PathBuf> {
    Ok(std::path::absolute(target_folder()?.join("python"))?)
}

/// Returns the interpreter of the virtual environment `name`, with the packages of a requirements
/// file.
fn environment_with(name: &str, requirements: &str) -> Result<PathBuf> {
    let needed =
        fs::read_to_string(requirements).with_context(|| format!("cannot read {requirements}"))?;
    let packages: Vec<&str> = needed.lines().filter(|line| !line.starts_with('#')).collect();
    tools::virtual_environment_of(&folder()?.join(name), &packages)
}

/// Returns the command that measures the module and other implementations.
pub(crate) fn bench() -> Result<Command> {
    let python = environment_with("bench", "py/benches/requirements.txt")?;
    install(&python)?;
    let mut measure = Command::new(python);
    measure.arg("py/benches/measure.py");
    Ok(measure)
}

/// Runs the lints, the type checks and the tests of the module, also in other Python versions.
pub(crate) fn test(found: &[Found]) -> Result<String> {
    let python = found.first().map(|(_, python)| python).context("no Python")?;
    install(python)?;
    let programs = programs()?;
    for check in [
        &["ruff", "check", ".", LANGUAGES][..],
        &["ruff", "format", "--check", ".", LANGUAGES],
        &["mypy"],
        &["mypy.stubtest", "keytally._native"],
    ] {
        let mut command = Command::new(python);
        command.env("MYPY_CACHE_DIR", folder()?.join("mypy"));
        command.current_dir("py").arg("-m").args(check);
        command::run(command)?;
    }
    let mut summary = pytest(python, &programs)?;
    let (free_threaded, others): (Vec<_>, Vec<_>) =
        other_interpreters().into_iter().partition(|other| runs(other, FREE_THREADED));
    let unpacked = folder()?.join("unpacked");
    let mut pip = tools::pip(python);
    pip.args(["--upgrade", "--no-deps", "--target"]).arg(&unpacked);
    pip.arg(only_file(&folder()?.join("wheels"))?);
    command::run(pip)?;
    for interpreter in &others {
        let mut smoke = Command::new(interpreter);
        smoke.args(SMOKE).env("PYTHONPATH", &unpacked);
        command::run(smoke)
            .with_context(|| format!("the wheel fails in {}", interpreter.display()))?;
    }
    summary += &format!(", and the examples in {} other Python versions", others.len());
    if let Some(interpreter) = free_threaded.last() {
        let passed = test_free_threaded(python, interpreter, &programs)
            .with_context(|| format!("the module fails in {}", interpreter.display()))?;
        summary += &format!(", and {passed} in free-threaded Python");
    }
    Ok(summary)
}

/// Runs the tests in a free-threaded Python, which has no global interpreter lock and needs its own
/// wheel.
///
/// If a module does not declare that it supports this, loading it causes a warning. Warnings are
/// errors here.
fn test_free_threaded(
    python: &Path,
    interpreter: &Path,
    programs: &[PathBuf; 2],
) -> Result<String> {
    let folder = folder()?.join("free-threaded");
    let mut venv = Command::new(interpreter);
    venv.args(["-m", "venv"]).arg(folder.join("venv"));
    command::run(venv)?;
    let free = folder.join("venv/bin/python");
    let options = ["--interpreter".as_ref(), free.as_os_str()];
    let wheel = build(python, &folder.join("wheels"), &options)?;
    let mut pip = tools::pip(&free);
    pip.args(["--force-reinstall", "hypothesis", "pytest"]).arg(wheel);
    command::run(pip)?;
    pytest(&free, programs)
}

/// Runs all tests of the module except those of the integrations.
fn pytest(python: &Path, [product, languages]: &[PathBuf; 2]) -> Result<String> {
    let together = [&PYTEST[..], &["--config-file", "pyproject.toml", LANGUAGES]].concat();
    let run = |arguments: &[&str], programs: &Path| {
        let mut tests = strict(python, arguments);
        tests.env("KEYTALLY_TEST_PROGRAMS", programs);
        passed(&command::run(tests)?)
    };
    let (alone, together) = (run(&PYTEST, product)?, run(&together, languages)?);
    Ok(format!("{alone}, and {together} with other languages"))
}

/// Returns the command `python -m ARGUMENTS` in the folder `py`, in development mode. Warnings are
/// errors.
pub(crate) fn strict(python: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(python);
    command.current_dir("py").args(["-X", "dev", "-W", "error", "-m"]).args(arguments);
    command
}

/// Builds the wheel and installs it.
pub(crate) fn install(python: &Path) -> Result<()> {
    let wheel = build(python, &folder()?.join("wheels"), &[])?;
    let mut pip = tools::pip(python);
    pip.args(["--force-reinstall", "--no-deps"]).arg(&wheel);
    command::run(pip).map(drop)
}

/// Builds a wheel in an empty folder. Returns its path.
fn build(python: &Path, folder: &Path, options: &[&OsStr]) -> Result<PathBuf> {
    tools::remove_folder(folder)?;
    let mut build = Command::new(python);
    build.args(["-m", "maturin", "build", "--release", "--locked", "--quiet"]);
    build.args(["--manifest-path", "py/Cargo.toml"]).args(options);
    build.arg("--out").arg(folder).env("CARGO", cargo().get_program());
    command::run(build)?;
    only_file(folder)
}

fn only_file(folder: &Path) -> Result<PathBuf> {
    let files = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    match files.as_slice() {
        [file] => Ok(file.clone()),
        _ => bail!("{} has {} files instead of 1", folder.display(), files.len()),
    }
}

/// Builds the programs and files that the tests use. Returns two folders: of the product, with the
/// gates of the vector files, and of the service, with a C program.
fn programs() -> Result<[PathBuf; 2]> {
    let folder = folder()?.join("programs");
    tools::remove_folder(&folder)?;
    let built = std::path::absolute(profile_folder()?)?;
    let folders = ["product", "languages"].map(|name| folder.join(name));
    let [product, languages] = &folders;
    // Both packages build a program of this name.
    for (folder, package) in [
        (product, &["--package", "keytally-cli"][..]),
        (languages, &["--manifest-path", SERVICES, "--bin", "keytally"]),
    ] {
        fs::create_dir_all(folder)?;
        cargo_quietly("build", package)?;
        fs::copy(built.join("keytally"), folder.join("keytally"))?;
    }
    let gates = product.join("gates");
    let gates = gates.to_str().context("the folder's name is not UTF-8")?;
    cargo_quietly("run", &["--package", "keytally-vectors", "--example", "gates", "--", gates])?;
    cargo_quietly("build", &["--package", "keytally-ffi"])?;
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-Wall", "-Wextra", "-Werror", "-Iinclude"]);
    compiler.arg(Path::new("py").join(LANGUAGES).join("client.c"));
    compiler.arg("-o").arg(languages.join("client")).arg("-L").arg(&built).arg("-lkeytally_ffi");
    compiler.arg(format!("-Wl,-rpath,{}", built.display()));
    command::run(compiler)?;
    Ok(folders)
}

/// Runs a command of cargo on programs of the tests.
fn cargo_quietly(verb: &str, arguments: &[&str]) -> Result<()> {
    let mut build = cargo();
    build.args([verb, "--quiet"]).args(PROFILE).args(arguments);
    command::run(build).map(drop)
}

/// Returns the interpreters of supported Python versions on the PATH and in pyenv.
fn other_interpreters() -> Vec<PathBuf> {
    let names = (9..30).flat_map(|minor| [format!("python3.{minor}"), format!("python3.{minor}t")]);
    let mut root = Command::new("pyenv");
    root.arg("root");
    let root = command::run(root).unwrap_or_default();
    let versions =
        fs::read_dir(Path::new(root.trim()).join("versions")).into_iter().flatten().flatten();
    let mut installed: Vec<PathBuf> =
        versions.map(|version| version.path().join("bin/python3")).collect();
    installed.sort();
    let all = names.map(PathBuf::from).chain(installed);
    all.filter(|python| runs(python, "import sys; sys.exit(sys.version_info < (3, 9))")).collect()
}

fn runs(python: &Path, script: &str) -> bool {
    let mut command = Command::new(python);
    command.args(["-c", script]);
    succeeds(command)
}

/// Returns the counts in the output of pytest, such as `63 passed, 1 skipped`.
pub(crate) fn passed(output: &str) -> Result<String> {
    let summary = output.lines().rev().find_map(|line| line.split_once(" in "));
    Ok(summary.with_context(|| format!("no test ran:\n{output}"))?.0.to_owned())
}
