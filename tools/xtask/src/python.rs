//! The Python module as its users have it: a wheel, installed into a virtual environment of its own.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::command::{self, cargo, succeeds};
use crate::targets::{PROFILE, PROFILE_FOLDER, SERVICES};
use crate::tools::{self, Found, Need};

/// Runs the examples of the documentation, in a Python that has nothing but the module.
pub(crate) const SMOKE: [&str; 5] = ["-X", "dev", "-W", "error", "py/tests/smoke.py"];

/// Runs tests, and leaves no cache behind.
pub(crate) const PYTEST: [&str; 4] = ["pytest", "-q", "-p", "no:cacheprovider"];

/// Where everything is built and installed.
const FOLDER: &str = "target/python";

/// The interpreter of the environment with all that the tests need.
pub(crate) const ENVIRONMENT: Need =
    Need::new("KEYTALLY_TEST_PYTHON_MODULE", tools::needs_python, || {
        environment_with("venv", "py/tests/requirements.txt")
    });

fn environment_with(name: &str, requirements: &str) -> Result<PathBuf> {
    let needed =
        fs::read_to_string(requirements).with_context(|| format!("cannot read {requirements}"))?;
    let packages: Vec<&str> = needed.lines().filter(|line| !line.starts_with('#')).collect();
    tools::virtual_environment_of(&Path::new(FOLDER).join(name), &packages)
}

/// The command that measures the module and its peers.
pub(crate) fn bench() -> Result<Command> {
    let python = environment_with("bench", "py/benches/requirements.txt")?;
    install(&python)?;
    let mut measure = Command::new(python);
    measure.arg("py/benches/measure.py");
    Ok(measure)
}

/// Lints, types, and every test of the module, of the wheel that users get.
pub(crate) fn test(found: &[Found]) -> Result<String> {
    let python = found.first().map(|(_, python)| python).context("no Python")?;
    install(python)?;
    let programs = programs()?;
    command::run(strict(python, &["ruff", "check"]))?;
    command::run(strict(python, &["ruff", "format", "--check"]))?;
    for check in [&["mypy"][..], &["mypy.stubtest", "keytally._native"]] {
        let mut command = Command::new(python);
        command
            .current_dir("py")
            .arg("-m")
            .args(check)
            .env("MYPY_CACHE_DIR", "../target/python/mypy");
        command::run(command)?;
    }
    let mut done = pytest(python, &programs)?;
    let (without_lock, others): (Vec<_>, Vec<_>) =
        other_interpreters().into_iter().partition(|other| is_free_threaded(other));
    for interpreter in &others {
        let mut smoke = Command::new(interpreter);
        smoke.args(SMOKE).env("PYTHONPATH", unpacked(python)?);
        command::run(smoke)
            .with_context(|| format!("the wheel fails in {}", interpreter.display()))?;
    }
    if !others.is_empty() {
        done += &format!(", and the examples in {} other Pythons", others.len());
    }
    if let Some(interpreter) = without_lock.last() {
        let passed = test_without_lock(python, interpreter, &programs)
            .with_context(|| format!("the module fails in {}", interpreter.display()))?;
        done += &format!(", and {passed} without the global lock");
    }
    Ok(done)
}

/// Every test in a Python that was built without the global lock, which needs a wheel of its own. Loading a module that
/// is not declared safe there is a warning, and so an error.
fn test_without_lock(python: &Path, interpreter: &Path, programs: &Path) -> Result<String> {
    let folder = Path::new(FOLDER).join("without-lock");
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

/// Every test of the module, without those of the integrations.
fn pytest(python: &Path, programs: &Path) -> Result<String> {
    let mut tests = strict(python, &PYTEST);
    tests.env("KEYTALLY_TEST_PROGRAMS", programs);
    passed(&command::run(tests)?)
}

/// A program of Python's in `py`, in development mode and with every warning an error.
pub(crate) fn strict(python: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(python);
    command.current_dir("py").args(["-X", "dev", "-W", "error", "-m"]).args(words);
    command
}

/// Builds the wheel and installs it.
pub(crate) fn install(python: &Path) -> Result<()> {
    let wheel = build(python, &wheels(), &[])?;
    let mut pip = tools::pip(python);
    pip.args(["--force-reinstall", "--no-deps"]).arg(&wheel);
    command::run(pip).map(drop)
}

/// Where the wheel for every Python goes.
fn wheels() -> PathBuf {
    Path::new(FOLDER).join("wheels")
}

/// Builds a wheel into a folder that has nothing else, and returns its path.
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
        _ => bail!("{} holds {} files, and one was expected", folder.display(), files.len()),
    }
}

/// The programs and files that tests in Python need: the program `keytally`, a C program, and the gates of the vector files, which the Rust
/// crates make.
fn programs() -> Result<PathBuf> {
    let folder = std::path::absolute(Path::new(FOLDER).join("programs"))?;
    fs::create_dir_all(&folder)?;
    let built = std::path::absolute(PROFILE_FOLDER)?;

    let mut build = cargo();
    build.arg("build").args(PROFILE);
    build.args(["--quiet", "--package", "keytally-ffi"]);
    command::run(build)?;
    let mut build = cargo();
    build.arg("build").args(PROFILE).args([
        "--quiet",
        "--manifest-path",
        SERVICES,
        "--bin",
        "keytally",
    ]);
    command::run(build)?;
    fs::copy(built.join("keytally"), folder.join("keytally"))?;

    let mut gates = cargo();
    gates.arg("run").args(PROFILE);
    gates.args(["--quiet", "--package", "keytally-vectors", "--example", "gates", "--"]);
    gates.arg(folder.join("gates"));
    command::run(gates)?;

    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-Wall", "-Wextra", "-Werror", "-Iinclude", "py/tests/client.c", "-o"]);
    compiler.arg(folder.join("client")).arg("-L").arg(&built).arg("-lkeytally_ffi");
    compiler.arg(format!("-Wl,-rpath,{}", built.display()));
    command::run(compiler)?;
    Ok(folder)
}

/// The wheel as a folder that any Python can import from.
fn unpacked(python: &Path) -> Result<PathBuf> {
    let folder = std::path::absolute(Path::new(FOLDER).join("unpacked"))?;
    let wheel = only_file(&wheels())?;
    let mut pip = tools::pip(python);
    pip.args(["--upgrade", "--no-deps", "--target"]).arg(&folder).arg(wheel);
    command::run(pip)?;
    Ok(folder)
}

/// Every other Python that the module is for and that this machine has: on the path, or kept by pyenv.
fn other_interpreters() -> Vec<PathBuf> {
    let names = (9..30).flat_map(|minor| [format!("python3.{minor}"), format!("python3.{minor}t")]);
    let mut root = Command::new("pyenv");
    root.arg("root");
    let root = command::run(root).unwrap_or_default();
    let kept =
        fs::read_dir(Path::new(root.trim()).join("versions")).into_iter().flatten().flatten();
    let mut kept: Vec<PathBuf> = kept.map(|version| version.path().join("bin/python3")).collect();
    kept.sort();
    let all = names.map(PathBuf::from).chain(kept);
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

/// `63 passed`, from pytest's last line.
pub(crate) fn passed(output: &str) -> Result<String> {
    let summary = output
        .lines()
        .rev()
        .find(|line| line.contains(" passed"))
        .context("pytest says nothing")?;
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
    fn the_tests_that_passed_are_counted() {
        assert_eq!(passed("....\n63 passed in 3.40s\n").unwrap(), "63 tests");
        assert_eq!(passed("2 passed, 1 skipped in 3.40s").unwrap(), "2 tests");
        assert!(passed("no tests ran in 0.1s").is_err());
    }
}
