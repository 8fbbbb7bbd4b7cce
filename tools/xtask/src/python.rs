//! The suite `python`: the Python module, built as a wheel and installed into a virtual
//! environment.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::command::{self, cargo, succeeds};
use crate::targets::{PROFILE, SERVICES, profile_folder};
use crate::tools::{self, Found, Need};

/// The arguments of an interpreter that run the examples of the documentation. The script needs
/// only the module.
pub(crate) const SMOKE: [&str; 5] = ["-X", "dev", "-W", "error", "py/tests/smoke.py"];

/// The arguments after `python -m` that run tests without writing a cache.
pub(crate) const PYTEST: [&str; 4] = ["pytest", "-q", "-p", "no:cacheprovider"];

/// The folder of builds and virtual environments.
const FOLDER: &str = "target/python";

/// The folder, from `py`, of the tests of the module together with the service and a C program.
const LANGUAGES: &str = "../services/server/tests/languages";

/// The interpreter of the virtual environment of the tests.
pub(crate) const ENVIRONMENT: Need =
    Need::new("KEYTALLY_TEST_PYTHON_MODULE", tools::needs_python, || {
        environment_with("venv", "py/tests/requirements.txt")
    });

/// Returns the interpreter of the virtual environment `name`, with the packages of a requirements
/// file.
fn environment_with(name: &str, requirements: &str) -> Result<PathBuf> {
    let needed =
        fs::read_to_string(requirements).with_context(|| format!("cannot read {requirements}"))?;
    let packages: Vec<&str> = needed.lines().filter(|line| !line.starts_with('#')).collect();
    tools::virtual_environment_of(&Path::new(FOLDER).join(name), &packages)
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
    let programs = Programs::build()?;
    command::run(strict(python, &["ruff", "check", ".", LANGUAGES]))?;
    command::run(strict(python, &["ruff", "format", "--check", ".", LANGUAGES]))?;
    for check in [&["mypy"][..], &["mypy.stubtest", "keytally._native"]] {
        let mut command = Command::new(python);
        command
            .current_dir("py")
            .arg("-m")
            .args(check)
            .env("MYPY_CACHE_DIR", "../target/python/mypy");
        command::run(command)?;
    }
    let mut summary = pytest(python, &programs)?;
    let (free_threaded, others): (Vec<_>, Vec<_>) =
        other_interpreters().into_iter().partition(|other| is_free_threaded(other));
    for interpreter in &others {
        let mut smoke = Command::new(interpreter);
        smoke.args(SMOKE).env("PYTHONPATH", unpacked(python)?);
        command::run(smoke)
            .with_context(|| format!("the wheel fails in {}", interpreter.display()))?;
    }
    if !others.is_empty() {
        summary += &format!(", and the examples in {} other Python versions", others.len());
    }
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
fn test_free_threaded(python: &Path, interpreter: &Path, programs: &Programs) -> Result<String> {
    let folder = Path::new(FOLDER).join("free-threaded");
    command::run({
        let mut venv = Command::new(interpreter);
        venv.args(["-m", "venv"]).arg(folder.join("venv"));
        venv
    })?;
    let free = std::path::absolute(folder.join("venv/bin/python"))?;
    let wheel =
        build(python, &folder.join("wheels"), &[OsStr::new("--interpreter"), free.as_os_str()])?;
    let mut pip = tools::pip(&free);
    pip.args(["--force-reinstall", "hypothesis", "pytest"]).arg(wheel);
    command::run(pip)?;
    pytest(&free, programs)
}

/// Runs all tests of the module except those of the integrations.
fn pytest(python: &Path, programs: &Programs) -> Result<String> {
    let mut tests = strict(python, &PYTEST);
    tests.env("KEYTALLY_TEST_PROGRAMS", &programs.product);
    let alone = passed(&command::run(tests)?)?;
    let mut tests = strict(python, &PYTEST);
    tests.args(["--config-file", "pyproject.toml", LANGUAGES]);
    tests.env("KEYTALLY_TEST_PROGRAMS", &programs.languages);
    let together = passed(&command::run(tests)?)?;
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
    let wheel = build(python, &wheels(), &[])?;
    let mut pip = tools::pip(python);
    pip.args(["--force-reinstall", "--no-deps"]).arg(&wheel);
    command::run(pip).map(drop)
}

/// Returns the folder of the wheel for all Python versions.
fn wheels() -> PathBuf {
    Path::new(FOLDER).join("wheels")
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

/// The folders of the programs and files that the tests in Python use.
struct Programs {
    /// The program `keytally` of the product, and the gates of the vector files.
    product: PathBuf,
    /// The program `keytally` of the service, and a C program.
    languages: PathBuf,
}

impl Programs {
    /// Builds the programs and files.
    fn build() -> Result<Self> {
        let folder = std::path::absolute(Path::new(FOLDER).join("programs"))?;
        tools::remove_folder(&folder)?;
        let built = profile_folder()?;
        let [product, languages] = ["product", "languages"].map(|name| folder.join(name));
        // Both packages build a program of this name.
        for (folder, package) in [
            (&product, &["--package", "keytally-cli"][..]),
            (&languages, &["--manifest-path", SERVICES, "--bin", "keytally"]),
        ] {
            fs::create_dir_all(folder)?;
            build_with(package)?;
            fs::copy(built.join("keytally"), folder.join("keytally"))?;
        }

        let mut gates = cargo();
        gates.arg("run").args(PROFILE);
        gates.args(["--quiet", "--package", "keytally-vectors", "--example", "gates", "--"]);
        gates.arg(product.join("gates"));
        command::run(gates)?;

        build_with(&["--package", "keytally-ffi"])?;
        let mut compiler = Command::new("cc");
        compiler.args(["-O2", "-Wall", "-Wextra", "-Werror", "-Iinclude"]);
        compiler.arg(Path::new("py").join(LANGUAGES).join("client.c"));
        compiler.arg("-o").arg(languages.join("client"));
        compiler.arg("-L").arg(&built).arg("-lkeytally_ffi");
        compiler.arg(format!("-Wl,-rpath,{}", built.display()));
        command::run(compiler)?;
        Ok(Self { product, languages })
    }
}

/// Runs `cargo build` with these arguments.
fn build_with(arguments: &[&str]) -> Result<()> {
    let mut build = cargo();
    build.arg("build").args(PROFILE).arg("--quiet").args(arguments);
    command::run(build).map(drop)
}

/// Unpacks the wheel. Returns a folder from which every Python version can import it.
fn unpacked(python: &Path) -> Result<PathBuf> {
    let folder = std::path::absolute(Path::new(FOLDER).join("unpacked"))?;
    let wheel = only_file(&wheels())?;
    let mut pip = tools::pip(python);
    pip.args(["--upgrade", "--no-deps", "--target"]).arg(&folder).arg(wheel);
    command::run(pip)?;
    Ok(folder)
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

fn is_free_threaded(python: &Path) -> bool {
    runs(python, "import sys, sysconfig; sys.exit(not sysconfig.get_config_var('Py_GIL_DISABLED'))")
}

fn runs(python: &Path, script: &str) -> bool {
    let mut command = Command::new(python);
    command.args(["-c", script]);
    succeeds(command)
}

/// Returns the number of passed tests in the output of pytest, such as `63 tests`.
pub(crate) fn passed(output: &str) -> Result<String> {
    let summary = output
        .lines()
        .rev()
        .find(|line| line.contains(" passed"))
        .context("pytest printed no summary")?;
    let words: Vec<&str> = summary.split_whitespace().collect();
    let at = words.iter().position(|word| word.starts_with("passed")).context("no test passed")?;
    let count: u32 = words.get(at.wrapping_sub(1)).context("no count")?.parse()?;
    ensure!(count > 0, "no test ran:\n{output}");
    Ok(format!("{count} tests"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_tests_are_counted() {
        assert_eq!(passed("....\n63 passed in 3.40s\n").unwrap(), "63 tests");
        assert_eq!(passed("2 passed, 1 skipped in 3.40s").unwrap(), "2 tests");
        assert!(passed("no tests ran in 0.1s").is_err());
    }
}
