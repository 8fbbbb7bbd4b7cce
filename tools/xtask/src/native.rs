//! The suites `c` and `cpp`, and the programs of the suite `interop`. They install libkeytally into
//! an empty prefix, and build the CMake project `ffi-c/tests` from there.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::{cargo, run};
use crate::install;
use crate::step::Form;
use crate::targets::target_folder;
use crate::tools::{cargo_c, remove_folder};

/// The compilers for C and C++.
const COMPILERS: [[&str; 2]; 2] = [["gcc", "g++"], ["clang", "clang++"]];

/// Tests the library and its packages from C. The long form also builds it with cargo-c.
pub(crate) fn c(form: Form) -> Result<String> {
    let folder = installed("c")?;
    let variables = [("BARE", bare()?), ("PACKAGES", packages(&folder)?)];
    let tests = test("c", &folder, form, &variables)?;
    if form < Form::Full {
        return Ok(tests);
    }
    compare_with_cargo_c(&folder)?;
    Ok(format!("{tests}; cargo-c installs the same"))
}

/// Tests the wrapper for C++.
pub(crate) fn cpp(form: Form) -> Result<String> {
    test("cpp", &installed("cpp")?, form, &[])
}

/// Builds the programs of the suite `interop`: the processes of its test, and the example servers
/// in C, C++ and Go. Returns their folder.
pub(crate) fn workers() -> Result<PathBuf> {
    let folder = installed("interop")?;
    let servers = [("SERVERS", std::path::absolute("adapters")?)];
    let built = build("interop", &folder, COMPILERS[0], &servers)?;
    build_server_in_go(&folder.join("prefix/lib"), &built)?;
    Ok(built)
}

/// Builds the example server in Go with the installed library, after a check of its form. Go keeps
/// what it compiled in the target folder.
fn build_server_in_go(library: &Path, built: &Path) -> Result<()> {
    let go = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).current_dir("adapters/go");
        command.env("GOCACHE", target_folder()?.join("go")).env("GOFLAGS", "-mod=readonly");
        command.env("PKG_CONFIG_PATH", library.join("pkgconfig"));
        command.env("CGO_LDFLAGS", format!("-Wl,-rpath,{}", library.display()));
        run(command)
    };
    let unformatted = go("gofmt", &["-l", "."])?;
    ensure!(unformatted.is_empty(), "gofmt would change {unformatted}");
    go("go", &["vet", "."])?;
    let server = built.join("server_in_go");
    go("go", &["build", "-o", server.to_str().context("the path is not UTF-8")?, "."]).map(drop)
}

/// Compiles `examples/gate.c` as a program, with libraries and options that follow it.
pub(crate) fn compile_example(compiler: &str, libraries: &[&OsStr], program: &Path) -> Result<()> {
    let mut compile = Command::new(compiler);
    compile.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-Iinclude", "examples/gate.c"]);
    run(compile.args(libraries).arg("-o").arg(program)).map(drop)
}

/// Creates a gate in a folder by the program `keytally`, and runs `examples/gate.c` there. Fails
/// unless the example makes requests until one is denied.
pub(crate) fn run_example(folder: &Path, mut keytally: Command, example: Command) -> Result<()> {
    keytally.args(["create", "api.gate", "--plan", "default=3/minute, 100/hour"]);
    let start = |mut program: Command| {
        run(program.current_dir(folder).env("KEYTALLY_PEPPER", "5a".repeat(32)))
    };
    start(keytally)?;
    let output = start(example)?;
    ensure!(output.contains("429"), "no request of examples/gate.c was denied:\n{output}");
    Ok(())
}

/// Installs the library into `prefix` in an empty folder of this name, and returns the folder.
fn installed(name: &str) -> Result<PathBuf> {
    let folder = target_folder()?.join("native").join(name);
    remove_folder(&folder)?;
    install::stage(&folder.join("prefix"), Path::new("lib"))?;
    Ok(folder)
}

/// Builds the programs of a suite with these variables of CMake. Returns their folder.
fn build(
    suite: &str,
    folder: &Path,
    [c, cpp]: [&str; 2],
    variables: &[(&str, PathBuf)],
) -> Result<PathBuf> {
    let built = folder.join(c);
    let mut configure = Command::new("cmake");
    configure.args(["-S", "ffi-c/tests", "-B"]).arg(&built).env("CC", c).env("CXX", cpp);
    configure.arg(format!("-DSUITE={suite}"));
    configure.arg(format!("-DCMAKE_PREFIX_PATH={}", folder.join("prefix").display()));
    configure.args(variables.iter().map(|(name, path)| format!("-D{name}={}", path.display())));
    run(configure)?;
    run(Command::new("cmake").arg("--build").arg(&built).args(["--parallel", &processors()?]))?;
    Ok(built)
}

/// Builds and runs the tests of a suite with each compiler. valgrind runs those of the first one.
/// In the short form, the second one builds only programs with sanitizers.
fn test(suite: &str, folder: &Path, form: Form, variables: &[(&str, PathBuf)]) -> Result<String> {
    let mut total = 0;
    for compilers in COMPILERS {
        let valgrind = [("VALGRIND", PathBuf::from("ON"))];
        let sanitized = [("WAYS", PathBuf::from("sanitized"))];
        let variables = match form {
            _ if compilers == COMPILERS[0] => [variables, &valgrind].concat(),
            Form::Short => sanitized.to_vec(),
            _ => variables.to_vec(),
        };
        let mut test = Command::new("ctest");
        test.arg("--test-dir").arg(build(suite, folder, compilers, &variables)?);
        test.args(["--output-on-failure", "--no-tests=error", "--parallel", &processors()?]);
        let output = run(test)?;
        let tests = output.lines().find_map(|line| line.split_once(" tests failed out of "));
        total += tests.context("ctest did not print how many tests ran")?.1.parse::<u32>()?;
    }
    Ok(format!("{total} tests"))
}

fn processors() -> Result<String> {
    Ok(std::thread::available_parallelism()?.to_string())
}

/// Builds the library without its host part. Returns the path of its archive.
fn bare() -> Result<PathBuf> {
    let built = target_folder()?.join("install");
    let mut build = cargo();
    build.args(["rustc", "--package", "keytally-ffi", "--lib", "--crate-type", "staticlib"]);
    run(build.args(["--no-default-features", "--profile", "bare", "--target-dir"]).arg(&built))?;
    Ok(built.join("bare/libkeytally_ffi.a"))
}

/// Packs the library twice, which must give the same bytes. Returns the folder of the packages.
fn packages(folder: &Path) -> Result<PathBuf> {
    let [first, second] = ["packages", "packages-again"].map(|name| folder.join(name));
    install::archive(Some(&first))?;
    install::archive(Some(&second))?;
    for entry in fs::read_dir(&first)? {
        let name = entry?.file_name();
        let same = fs::read(first.join(&name))? == fs::read(second.join(&name))?;
        ensure!(same, "two builds of {} differ", name.display());
    }
    Ok(first)
}

/// Checks that `cargo cinstall` installs the same files, with the same soname.
fn compare_with_cargo_c(folder: &Path) -> Result<()> {
    let theirs = folder.join("cargo-c");
    let mut install = Command::new(cargo_c()?);
    install.args(["cinstall", "--release", "--manifest-path", "ffi-c/Cargo.toml"]);
    install.args(["--prefix", "/", "--libdir", "/lib", "--destdir"]).arg(&theirs);
    run(install.arg("--target-dir").arg(target_folder()?.join("cargo-c")))?;
    let files = |root: PathBuf| {
        let script = "find . ! -type d | sort; objdump -p lib/libkeytally.so | grep SONAME";
        run(Command::new("sh").args(["-ec", script]).current_dir(root))
    };
    let (ours, theirs) = (files(folder.join("prefix"))?, files(theirs)?);
    ensure!(ours == theirs, "cargo xtask install installs\n{ours}and cargo cinstall\n{theirs}");
    Ok(())
}
