//! The suites `python`, `python-web` and `python-limits`: the Python module, built as a wheel and
//! installed into a virtual environment, and its integrations in web frameworks.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{cargo, run};
use crate::step::Form;
use crate::targets::{PROFILE, SERVICES, WORKSPACES, build_programs, target_folder};
use crate::tools;

/// The arguments of an interpreter that run the examples of the documentation. The script needs
/// only the module.
pub(crate) const SMOKE: [&str; 5] = ["-X", "dev", "-W", "error", "py/tests/smoke.py"];

/// The folder, from `py`, of the tests of the module together with the service and a C program.
const LANGUAGES: &str = "../services/server/tests/languages";

/// A script that prints whether Python has a global interpreter lock, and fails in old versions.
const HAS_LOCK: &str = "import sys, sysconfig; print(not sysconfig.get_config_var('Py_GIL_DISABLED')); sys.exit(sys.version_info < (3, 9))";

/// Returns the folder of builds and virtual environments.
fn folder() -> Result<PathBuf> {
    Ok(std::path::absolute(target_folder()?.join("python"))?)
}

/// Returns the interpreter of the virtual environment `name`, with the packages of a requirements
/// file, maturin, which builds the module, and the module.
fn environment(name: &str, requirements: &str, form: Form) -> Result<PathBuf> {
    let needed = fs::read_to_string(requirements)?;
    let lines = needed.lines().filter(|line| !line.starts_with('#'));
    let packages: Vec<&str> = lines.chain(["maturin"]).collect();
    let python = tools::virtual_environment_of(&folder()?.join(name), &packages)?;
    let wheel = build(&python, &folder()?.join("wheels"), form, &[])?;
    run(tools::pip(&python).args(["--force-reinstall", "--no-deps"]).arg(wheel))?;
    Ok(python)
}

/// Returns the interpreter with the module and what its tests need.
fn test_environment(form: Form) -> Result<PathBuf> {
    environment("venv", "py/tests/requirements.txt", form)
}

/// Returns the command that measures the module and other implementations.
pub(crate) fn bench() -> Result<Command> {
    let mut measure =
        Command::new(environment("bench", "py/benches/requirements.txt", Form::Full)?);
    measure.arg("py/benches/measure.py");
    Ok(measure)
}

/// Runs the tests of the integrations.
pub(crate) fn test_web(form: Form) -> Result<String> {
    pytest(&test_environment(form)?, &["tests/integrations"], Path::new(""))
}

/// Runs the tests that the project of the package `limits` has for its storages, if `full` is set.
/// They are downloaded, and take a minute.
pub(crate) fn test_limits(form: Form) -> Result<String> {
    if form == Form::Short {
        return Ok("not run: only if it is named, or with --full".to_owned());
    }
    let python = environment("limits", "py/tests/limits_suite/requirements.txt", form)?;
    let output = run(Command::new(python).arg("py/tests/limits_suite/run.py"))?;
    summary(&output)
}

/// Runs the lints, the type checks and the tests of the module, also in other Python versions.
pub(crate) fn test(form: Form) -> Result<String> {
    let python = test_environment(form)?;
    let programs = programs()?;
    for check in [
        &["ruff", "check", ".", LANGUAGES][..],
        &["ruff", "format", "--check", ".", LANGUAGES],
        &["mypy"],
        &["mypy.stubtest", "keytally._native"],
    ] {
        let mut command = Command::new(&python);
        command.env("MYPY_CACHE_DIR", folder()?.join("mypy"));
        run(command.current_dir("py").arg("-m").args(check))?;
    }
    let mut summary = pytest_all(&python, &programs)?;
    let (others, free_threaded): (Vec<_>, Vec<_>) =
        interpreters().into_iter().partition(|(_, has_lock)| *has_lock);
    let unpacked = folder()?.join("unpacked");
    let wheel = only_file(&folder()?.join("wheels"))?;
    let mut pip = tools::pip(&python);
    run(pip.args(["--upgrade", "--no-deps", "--target"]).arg(&unpacked).arg(wheel))?;
    for (interpreter, _) in &others {
        run(Command::new(interpreter).args(SMOKE).env("PYTHONPATH", &unpacked))
            .with_context(|| format!("the wheel fails in {}", interpreter.display()))?;
    }
    summary += &format!(", and the examples in {} other Python versions", others.len());
    if let Some((interpreter, _)) = free_threaded.last() {
        let passed = test_free_threaded(&python, interpreter, &programs)
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
    run(Command::new(interpreter).args(["-m", "venv"]).arg(folder.join("venv")))?;
    let free = folder.join("venv/bin/python");
    let options = ["--interpreter".as_ref(), free.as_os_str()];
    let wheel = build(python, &folder.join("wheels"), Form::Named, &options)?;
    let mut pip = tools::pip(&free);
    run(pip.args(["--force-reinstall", "hypothesis", "pytest", "trio"]).arg(wheel))?;
    pytest_all(&free, programs)
}

/// Runs all tests of the module except those of the integrations.
fn pytest_all(python: &Path, [product, languages]: &[PathBuf; 2]) -> Result<String> {
    let alone = pytest(python, &[], product)?;
    let together = pytest(python, &["--config-file", "pyproject.toml", LANGUAGES], languages)?;
    Ok(format!("{alone}, and {together} with other languages"))
}

/// Runs pytest in the folder `py`, in development mode. Warnings are errors. Returns its counts,
/// such as `63 passed, 1 skipped`.
fn pytest(python: &Path, arguments: &[&str], programs: &Path) -> Result<String> {
    let mut tests = Command::new(python);
    tests.args("-X dev -W error -m pytest -q -p no:cacheprovider".split(' ')).args(arguments);
    let output = run(tests.current_dir("py").env("KEYTALLY_TEST_PROGRAMS", programs))?;
    summary(&output)
}

/// Returns the counts at the end of an output of pytest.
fn summary(output: &str) -> Result<String> {
    let summary = output.lines().rev().find_map(|line| line.split_once(" in "));
    Ok(summary.with_context(|| format!("no test ran:\n{output}"))?.0.to_owned())
}

/// Builds a wheel in an empty folder. Returns its path. In the short form, it shares dependencies
/// with other suites.
fn build(python: &Path, folder: &Path, form: Form, options: &[&OsStr]) -> Result<PathBuf> {
    tools::remove_folder(folder)?;
    let mut build = Command::new(python);
    let profile = if form == Form::Short { PROFILE } else { ["--profile", "release"] };
    build.args("-m maturin build --locked --quiet".split(' ')).args(profile);
    build.args(["--manifest-path", "py/Cargo.toml"]).args(options);
    run(build.arg("--out").arg(folder).env("CARGO", cargo().get_program()))?;
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
    let folders = ["product", "languages"].map(|name| folder.join(name));
    let [product, languages] = &folders;
    // Both packages build a program of this name.
    let build = |folder: &Path, manifest, names: &[&str]| -> Result<PathBuf> {
        fs::create_dir_all(folder)?;
        let built = build_programs(manifest, names)?;
        fs::copy(built.join("keytally"), folder.join("keytally"))?;
        Ok(built)
    };
    build(languages, SERVICES, &["--bin", "keytally"])?;
    let built = build(product, WORKSPACES[0], &["--bin", "keytally", "--example", "gates"])?;
    run(Command::new(built.join("examples/gates")).arg(product.join("gates")))?;
    run(cargo().args(["build", "--quiet", "--package", "keytally-ffi"]).args(PROFILE))?;
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-Wall", "-Wextra", "-Werror", "-Iinclude"]);
    compiler.arg(Path::new("py").join(LANGUAGES).join("client.c"));
    compiler.arg("-o").arg(languages.join("client")).arg("-L").arg(&built).arg("-lkeytally_ffi");
    run(compiler.arg(format!("-Wl,-rpath,{}", built.display())))?;
    Ok(folders)
}

/// Returns the interpreters of supported Python versions on the PATH and in pyenv, and whether each
/// has a global interpreter lock.
fn interpreters() -> Vec<(PathBuf, bool)> {
    let names = (9..30).flat_map(|minor| [format!("python3.{minor}"), format!("python3.{minor}t")]);
    let root = run(Command::new("pyenv").arg("root")).unwrap_or_default();
    let versions = fs::read_dir(Path::new(root.trim()).join("versions"));
    let versions = versions.into_iter().flatten().flatten();
    let mut installed: Vec<PathBuf> = versions.map(|it| it.path().join("bin/python3")).collect();
    installed.sort();
    let has_lock = |python: PathBuf| {
        let output = run(Command::new(&python).args(["-c", HAS_LOCK])).ok()?;
        Some((python, output.trim() == "True"))
    };
    names.map(PathBuf::from).chain(installed).filter_map(has_lock).collect()
}
