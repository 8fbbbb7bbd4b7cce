//! The Python module as its users have it: a wheel, installed into a virtual environment of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::command::{self, cargo, succeeds};
use crate::tools::{self, Found};

/// Runs the examples of the documentation, in a Python that has nothing but the module.
pub(crate) const SMOKE: [&str; 5] = ["-X", "dev", "-W", "error", "py/tests/smoke.py"];

/// Where everything is built and installed.
const FOLDER: &str = "target/python";

/// The interpreter of the environment with all that the tests need, in `KEYTALLY_TEST_PYTHON_MODULE`.
pub(crate) fn environment() -> Result<Found> {
    Ok(("KEYTALLY_TEST_PYTHON_MODULE", environment_with("venv", "py/tests/requirements.txt")?))
}

fn environment_with(name: &str, requirements: &str) -> Result<PathBuf> {
    let needed = fs::read_to_string(requirements).with_context(|| format!("cannot read {requirements}"))?;
    let packages: Vec<&str> = needed.lines().filter(|line| !line.starts_with('#')).collect();
    tools::virtual_environment_of(&Path::new(FOLDER).join(name), &packages)
}

/// What measures the module beside its peers, with all that it needs.
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
    let module = |arguments: &[&str]| {
        let mut command = Command::new(python);
        command.current_dir("py").args(["-X", "dev", "-W", "error", "-m"]).args(arguments);
        command.env("KEYTALLY_TEST_PROGRAMS", &programs);
        command
    };
    command::run(module(&["ruff", "check"]))?;
    command::run(module(&["ruff", "format", "--check"]))?;
    for check in [&["mypy"][..], &["mypy.stubtest", "keytally._native"]] {
        let mut command = Command::new(python);
        command.current_dir("py").arg("-m").args(check).env("MYPY_CACHE_DIR", "../target/python/mypy");
        command::run(command)?;
    }
    let output = command::run(module(&["pytest", "-q", "-p", "no:cacheprovider"]))?;
    let mut others = 0;
    for interpreter in other_interpreters() {
        let mut smoke = Command::new(&interpreter);
        smoke.args(SMOKE).env("PYTHONPATH", unpacked(python)?);
        command::run(smoke).with_context(|| format!("the wheel fails in {}", interpreter.display()))?;
        others += 1;
    }
    let passed = passed(&output)?;
    Ok(if others == 0 { passed } else { format!("{passed}, and the examples in {others} other Pythons") })
}

/// Builds the wheel and installs it; answers with its path.
pub(crate) fn install(python: &Path) -> Result<PathBuf> {
    let wheels = Path::new(FOLDER).join("wheels");
    match fs::remove_dir_all(&wheels) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut build = Command::new(python);
    build.args([
        "-m",
        "maturin",
        "build",
        "--release",
        "--locked",
        "--quiet",
        "--manifest-path",
        "py/Cargo.toml",
    ]);
    build.arg("--out").arg(&wheels).env("CARGO", cargo().get_program());
    command::run(build)?;
    let wheel = only_file(&wheels)?;
    let mut pip = tools::pip(python);
    pip.args(["--force-reinstall", "--no-deps"]).arg(&wheel);
    command::run(pip)?;
    Ok(wheel)
}

fn only_file(folder: &Path) -> Result<PathBuf> {
    let files = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    match files.as_slice() {
        [file] => Ok(file.clone()),
        _ => bail!("{} holds {} files, and one was expected", folder.display(), files.len()),
    }
}

/// What tests run beside Python: the program `keytally`, a C program, and the gates of the vector files, which the Rust
/// crates make.
fn programs() -> Result<PathBuf> {
    let folder = std::path::absolute(Path::new(FOLDER).join("programs"))?;
    fs::create_dir_all(&folder)?;
    let release = std::path::absolute("target/release")?;

    let mut build = cargo();
    build.args([
        "build",
        "--release",
        "--quiet",
        "--package",
        "keytally-server",
        "--package",
        "keytally-ffi",
    ]);
    command::run(build)?;
    fs::copy(release.join("keytally"), folder.join("keytally"))?;

    let mut gates = cargo();
    gates.args(["run", "--release", "--quiet", "--package", "keytally-vectors", "--example", "gates", "--"]);
    gates.arg(folder.join("gates"));
    command::run(gates)?;

    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-Wall", "-Wextra", "-Werror", "-Iinclude", "py/tests/client.c", "-o"]);
    compiler.arg(folder.join("client")).arg("-L").arg(&release).arg("-lkeytally_ffi");
    compiler.arg(format!("-Wl,-rpath,{}", release.display()));
    command::run(compiler)?;
    Ok(folder)
}

/// The wheel as a folder that any Python can import from.
fn unpacked(python: &Path) -> Result<PathBuf> {
    let folder = std::path::absolute(Path::new(FOLDER).join("unpacked"))?;
    let wheel = only_file(&Path::new(FOLDER).join("wheels"))?;
    let mut pip = tools::pip(python);
    pip.args(["--upgrade", "--no-deps", "--target"]).arg(&folder).arg(wheel);
    command::run(pip)?;
    Ok(folder)
}

/// Every other Python that the wheel is for and that this machine has.
fn other_interpreters() -> Vec<PathBuf> {
    let works = |name: &String| {
        let mut command = Command::new(name);
        command.args(["-c", "import sys; sys.exit(sys.version_info < (3, 9))"]);
        succeeds(command)
    };
    (9..30).map(|minor| format!("python3.{minor}")).filter(works).map(PathBuf::from).collect()
}

/// `63 passed`, from pytest's last line.
pub(crate) fn passed(output: &str) -> Result<String> {
    let summary =
        output.lines().rev().find(|line| line.contains(" passed")).context("pytest says nothing")?;
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
