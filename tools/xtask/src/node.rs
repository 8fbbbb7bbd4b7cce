//! The suite `node`: the package for Node.js, staged as its users have it, and its integrations.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::{cargo, run};
use crate::step::Form;
use crate::targets::{PROFILE, SERVICES, Variables, WORKSPACES, build_programs, target_folder};
use crate::tools;

/// The folder of the package.
const PACKAGE: &str = "adapters/node";

/// What the staged package consists of, without what its tests install.
const PARTS: [&str; 7] =
    ["LICENSE-APACHE", "LICENSE-MIT", "README.md", "lib", "package.json", "scripts", "types"];

/// Runs the tests of the package: vectors, types, Express, Fastify, the workers of a cluster, and
/// other languages on the same file. The packed package is installed in an empty folder.
pub(crate) fn test(form: Form) -> Result<String> {
    let folder = std::path::absolute(target_folder()?.join("node"))?;
    let node = tools::node_with_npm()?;
    let programs = programs(&folder.join("programs"))?;
    let library = library(form)?;
    let staged = stage(&folder.join("stage").join(PACKAGE))?;
    let path = path_with(&node)?;
    let npm = |arguments: &[&str], folder: &Path| {
        let mut npm = Command::new(node.with_file_name("npm"));
        npm.args(arguments).current_dir(folder).env("PATH", &path);
        run(npm.env("KEYTALLY_NODE_LIBRARY", &library))
    };
    npm(&["run", "build"], &staged)?;
    install(&staged.join("test"), |folder| npm(&["ci", "--no-audit", "--no-fund"], folder))?;
    let prettier = staged.join("test/node_modules/prettier/bin/prettier.cjs");
    let written = ["lib", "scripts", "types", "test/*.js", "test/*.ts"];
    let mut check = Command::new(&node);
    run(check.arg(prettier).arg("--check").args(written).current_dir(PACKAGE))?;
    let built = std::path::absolute(target_folder()?.join(PROFILE[1]))?;
    let test = |files: Vec<PathBuf>| {
        let mut test = Command::new(&node);
        test.arg("--test").args(files).env("PATH", &path).env("LD_LIBRARY_PATH", &built);
        test.env("KEYTALLY_TEST_ROOT", std::path::absolute(".")?);
        test.env("KEYTALLY_TEST_PROGRAMS", &programs).env("KEYTALLY_NODE_LIBRARY", &library);
        run(test)
    };
    let (speed, files) = test_files(&staged.join("test"))?;
    let output = test(files)?;
    let counted = |name| output.lines().find_map(|line| line.strip_prefix(name));
    ensure!(counted("# skipped ") == Some("0"), "a test was skipped:\n{output}");
    let passed = counted("# pass ").context("the tests did not print how many passed")?;
    if form == Form::Short {
        return Ok(format!("{passed} tests"));
    }
    // Alone, since the other files would take time from it.
    let output = test(speed)?;
    let measured = output.lines().find(|line| line.ends_with(" a check"));
    let measured = measured.context("the time of a check was not printed")?;
    Ok(format!("{passed} tests; {}", measured.trim_start_matches("# ")))
}

/// Builds the native part. In the short form, it has the profile of the suites.
fn library(form: Form) -> Result<PathBuf> {
    let profile = if form == Form::Short { PROFILE } else { ["--profile", "release"] };
    let target = std::path::absolute(target_folder()?)?;
    let mut build = cargo();
    build.args(["build", "--quiet", "--locked", "--package", "keytally-node"]).args(profile);
    run(build.args(["--manifest-path", SERVICES]).env("CARGO_TARGET_DIR", &target))?;
    Ok(target.join(profile[1]).join("libkeytally_node.so"))
}

/// Builds what the processes of the suite `fleet` are made of: a program in C, and the packages for
/// Python and Node.js. Returns their folder and Node.js, in environment variables.
pub(crate) fn workers() -> Result<Variables> {
    let folder = std::path::absolute(target_folder()?.join("fleet"))?;
    let node = tools::node_with_npm()?;
    tools::remove_folder(&folder)?;
    languages(&folder, "spend")?;
    let staged = stage(&folder.join("node_modules/keytally"))?;
    let mut build = Command::new(&node);
    build.arg("scripts/build.js").current_dir(staged);
    run(build.env("KEYTALLY_NODE_LIBRARY", library(Form::Short)?))?;
    Ok(vec![("KEYTALLY_TEST_WORKERS", folder), ("KEYTALLY_TEST_NODE", node)])
}

/// Builds the programs of the tests: the command line, the gates of the vector files, the Python
/// module, and a C program.
fn programs(folder: &Path) -> Result<PathBuf> {
    tools::remove_folder(folder)?;
    languages(folder, "client")?;
    let built = build_programs(WORKSPACES[0], &["--bin", "keytally", "--example", "gates"])?;
    fs::copy(built.join("keytally"), folder.join("keytally"))?;
    run(Command::new(built.join("examples/gates")).arg(folder.join("gates")))?;
    Ok(folder.to_path_buf())
}

/// Builds the Python module in the folder `python`, and a C program of this name.
fn languages(folder: &Path, program: &str) -> Result<()> {
    let python = folder.join("python/keytally");
    fs::create_dir_all(&python)?;
    let packages = ["--package", "keytally-ffi", "--package", "keytally-python"];
    run(cargo().args(["build", "--quiet"]).args(PROFILE).args(packages))?;
    let built = std::path::absolute(target_folder()?.join(PROFILE[1]))?;
    for entry in fs::read_dir("py/python/keytally")? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "py") {
            fs::copy(&file, python.join(file.file_name().unwrap_or_default()))?;
        }
    }
    fs::copy(built.join("lib_native.so"), python.join("_native.abi3.so"))?;
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-Wall", "-Wextra", "-Werror", "-Iinclude"]);
    compiler.arg(format!("services/server/tests/languages/{program}.c"));
    compiler.arg("-o").arg(folder.join(program)).arg("-L").arg(&built).arg("-lkeytally_ffi");
    run(compiler.arg(format!("-Wl,-rpath,{}", built.display()))).map(drop)
}

/// Copies the package and its tests. What the tests installed before remains.
fn stage(staged: &Path) -> Result<PathBuf> {
    fs::create_dir_all(staged.join("test"))?;
    for part in PARTS {
        tools::remove_folder(&staged.join(part)).or_else(|_| fs::remove_file(staged.join(part)))?;
        run(Command::new("cp").arg("-r").arg(Path::new(PACKAGE).join(part)).arg(staged))?;
    }
    for entry in fs::read_dir(Path::new(PACKAGE).join("test"))? {
        let entry = entry?;
        // The folder of installed packages, and a lock that says what is in it.
        if entry.file_type()?.is_file() && entry.file_name() != "package-lock.json" {
            fs::copy(entry.path(), staged.join("test").join(entry.file_name()))?;
        }
    }
    Ok(staged.to_path_buf())
}

/// Installs what the tests need, unless that was done with the same lock.
fn install(folder: &Path, npm: impl Fn(&Path) -> Result<String>) -> Result<()> {
    let lock = fs::read(Path::new(PACKAGE).join("test/package-lock.json"))?;
    let (locked, done) = (folder.join("package-lock.json"), folder.join("installed.txt"));
    if fs::read(&done).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    fs::write(&locked, &lock)?;
    npm(folder)?;
    // The tests depend on the package as its users do.
    std::os::unix::fs::symlink("../..", folder.join("node_modules/keytally"))?;
    Ok(fs::write(done, lock)?)
}

/// Returns the file that measures a check in a release build, and the other test files.
fn test_files(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut files = entries.collect::<Result<Vec<_>>>()?;
    files.retain(|file| file.to_string_lossy().ends_with(".test.js"));
    files.sort();
    Ok(files.into_iter().partition(|file| file.ends_with("speed.test.js")))
}

/// Returns the variable `PATH` with the folder of a program first.
fn path_with(program: &Path) -> Result<String> {
    let folder = program.parent().context("the program has no folder")?;
    Ok(format!("{}:{}", folder.display(), std::env::var("PATH")?))
}
