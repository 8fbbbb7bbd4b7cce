//! The suite `ports`: the product on other processors and systems than that of this machine.
//!
//! [`debian_rust`] builds for all of them. Programs for arm64 run in QEMU, those for Windows in
//! Wine, and those for musl on this machine. Those for macOS are only linked, because no emulator
//! here runs them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::run;
use crate::debian_rust;
use crate::native;
use crate::step::Form;
use crate::targets::{PROFILE, SERVICES, count_tests, target_folder};
use crate::tools::{Tool, tool, virtual_environment_of};

/// What the short form needs.
pub(crate) const TOOLS: &[Tool] = &[
    debian_rust::CARGO,
    tool(
        "gcc for arm64",
        "command -v aarch64-linux-gnu-gcc",
        "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    ),
    tool("qemu-aarch64", "command -v qemu-aarch64", "qemu-user"),
];

/// What the long form needs in addition.
const WINDOWS_TOOLS: &[Tool] = &[
    tool("gcc for Windows", "command -v x86_64-w64-mingw32-gcc", "gcc-mingw-w64-x86-64"),
    tool("Wine", "command -v wine", "wine wine64"),
];

const ARM: &str = "aarch64-unknown-linux-gnu";
const MUSL: &str = "x86_64-unknown-linux-musl";
const WINDOWS: &str = "x86_64-pc-windows-gnu";
const MACOS: &str = "aarch64-apple-darwin";

/// The program and the library for C.
const PROGRAM_AND_LIBRARY: [&str; 4] = ["--package", "keytally-cli", "--package", "keytally-ffi"];

/// Makes `host/tests/kills.rs` kill fewer processes, because QEMU and Wine start them slowly.
const QUICK: &str = "KEYTALLY_QUICK";

/// Runs programs for arm64.
const EMULATOR: &str = "qemu-aarch64 -L /usr/aarch64-linux-gnu";

/// The test of the vectors.
const VECTORS: &[&str] = &["--package", "keytally-vectors", "--test", "against_core"];

/// The tests of processes that share files, are killed, and are stopped.
const PROCESSES: (&[&str], &str) = (&["keytally"], "processes kills freeze files");

/// The tests for Windows. Wine takes too long for `hostile`, which opens 100,000 files.
const ON_WINDOWS: (&[&str], &str) = (
    &["keytally", "keytally-cli"],
    "processes kills files windows clocks allocation sizes arguments gates keys",
);

/// The options of gcc that link libkeytally statically, with the system's libraries that it needs.
const STATIC: [&str; 4] = ["-static", "-lntdll", "-luserenv", "-lws2_32"];

/// Wine 8 lacks the library from which Rust's `std` gets random bytes on Windows.
const RANDOM: &str = "#include <windows.h>\n#include <ntsecapi.h>\n\
    BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T len) { return RtlGenRandom(data, (ULONG)len); }\n";

/// Runs the vectors on arm64 and with musl. Unless the form is short, runs the tests of processes
/// there too, those for Windows in Wine, and links those for macOS.
pub(crate) fn test(form: Form) -> Result<String> {
    // One profile for all steps of a form, so that `std` is built once for each target.
    let profile = if form > Form::Short { PROFILE } else { ["--profile", "dev"] };
    let mut output = run(cargo("test", &[ARM, MUSL])?.args(VECTORS).args(profile))?;
    if form > Form::Short {
        crate::tools::require(&[WINDOWS_TOOLS], false)?;
        output += &run(&mut files(cargo("test", &[MUSL])?, PROCESSES))?;
        let mut arm = files(cargo("test", &[ARM])?, PROCESSES);
        output += &run(arm.env("KEYTALLY_TEST_EMULATOR", EMULATOR).env(QUICK, "1"))?;
        let mut vectors = cargo("test", &[WINDOWS])?;
        output += &run(windows(vectors.args(VECTORS).args(PROFILE))?)?;
        let mut wine = windows(&mut files(cargo("test", &[WINDOWS])?, ON_WINDOWS))?;
        output += &run(wine.env(QUICK, "1"))?;
        run_c_on_windows()?;
        run(files(cargo("test", &[MACOS])?, PROCESSES).arg("--no-run"))?;
        run(cargo("zigbuild", &[MACOS])?.args(PROFILE).args(PROGRAM_AND_LIBRARY))?;
    }
    count_tests(&output)
}

/// Builds the program of the service as a static program. Returns its path. In the short form, it
/// has the profile of the short form of the suite `ports`, and no default features.
pub(crate) fn static_program(form: Form) -> Result<PathBuf> {
    let short = ["--no-default-features", "--profile", "dev"];
    let options = if form > Form::Short { &PROFILE[..] } else { &short };
    let mut build = cargo("build", &[MUSL])?;
    build.args(["--manifest-path", SERVICES, "--package", "keytally-server"]);
    run(build.args(options))?;
    let profile = if form > Form::Short { PROFILE[1] } else { "debug" };
    Ok(folder()?.join(MUSL).join(profile).join("keytally"))
}

/// Compiles `examples/gate.c` for Windows, once with the DLL and once with the static library, and
/// runs both programs in Wine.
fn run_c_on_windows() -> Result<()> {
    run(cargo("zigbuild", &[WINDOWS])?.args(PROFILE).args(PROGRAM_AND_LIBRARY))?;
    let built = folder()?.join(WINDOWS).join(PROFILE[1]);
    for (dll, options) in [(Some("keytally_ffi.dll"), &[][..]), (None, &STATIC)] {
        let folder = tempfile::tempdir()?;
        let example = folder.path().join("gate.exe");
        let mut libraries = vec!["-L".as_ref(), built.as_os_str(), "-lkeytally_ffi".as_ref()];
        libraries.extend(options.iter().map(OsStr::new));
        native::compile_example("x86_64-w64-mingw32-gcc", &libraries, &example)?;
        if let Some(dll) = dll {
            fs::copy(built.join(dll), folder.path().join(dll))?;
        }
        let [keytally, example] = [&built.join("keytally.exe"), &example]
            .map(|program| windows(Command::new("wine").arg(program)));
        native::run_example(folder.path(), keytally?, example?)?;
    }
    Ok(())
}

/// Adds test files of packages, and the unit tests of their libraries, to a command of cargo.
fn files(mut cargo: Command, (packages, names): (&[&str], &str)) -> Command {
    cargo.args(PROFILE).arg("--lib");
    cargo.args(packages.iter().flat_map(|package| ["--package", package]));
    cargo.args(names.split(' ').flat_map(|name| ["--test", name]));
    cargo
}

/// The folder of what is built for other targets.
fn folder() -> Result<PathBuf> {
    Ok(std::path::absolute(target_folder()?.join("ports"))?)
}

/// Returns a command of cargo-zigbuild, which links by Zig for the targets without a C compiler of
/// Debian, and builds `std` too.
fn cargo(command: &str, targets: &[&str]) -> Result<Command> {
    let folder = folder()?;
    let packages = ["cargo-zigbuild==0.24.1", "ziglang==0.17.1"];
    let zigbuild =
        virtual_environment_of(&folder.join("zig"), &packages)?.with_file_name("cargo-zigbuild");
    let mut cargo = Command::new(&zigbuild);
    cargo.args([command, "--locked", "-Zbuild-std=std,panic_unwind,test", "--target-dir"]);
    cargo.arg(&folder).args(targets.iter().flat_map(|target| ["--target", target]));
    debian_rust::select(&mut cargo)?;
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    let old = std::env::var_os("PATH").unwrap_or_default();
    let first = [zigbuild.parent().unwrap_or(Path::new("")).to_owned()];
    let search = std::env::join_paths(first.into_iter().chain(std::env::split_paths(&old)))?;
    cargo.env("PATH", search);
    cargo.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_RUSTFLAGS", debian_rust::MUSL_FLAG);
    cargo.env("CARGO_PROFILE_DEV_DEBUG", "false").env("CARGO_INCREMENTAL", "0");
    // Debian lacks the program that removes symbols from a program for macOS.
    cargo.env("CARGO_PROFILE_DEV_STRIP", "none").env("CARGO_PROFILE_TESTS_STRIP", "none");
    cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
    cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", EMULATOR);
    cargo.env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER", "x86_64-w64-mingw32-gcc");
    cargo.env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER", "wine");
    Ok(cargo)
}

/// Lets a command run programs for Windows.
///
/// Wine shows the mode of a file as its access control list, so new files get a mode that admits
/// only their owner, as the folders of users do on Windows.
fn windows(cargo: &mut Command) -> Result<Command> {
    let prefix = folder()?.join("wine");
    let system = prefix.join("drive_c/windows/system32");
    fs::create_dir_all(&prefix)?;
    let mut command = Command::new("sh");
    command.args(["-c", "umask 077 && exec \"$0\" \"$@\""]).arg(cargo.get_program());
    command.args(cargo.get_args());
    for (name, value) in cargo.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env("WINEPREFIX", &prefix).env("WINEDEBUG", "-all");
    run(Command::new("wine").args(["wineboot", "--init"]).env("WINEPREFIX", &prefix))?;
    let source = folder()?.join("random.c");
    fs::write(&source, RANDOM)?;
    let mut gcc = Command::new("x86_64-w64-mingw32-gcc");
    gcc.args(["-shared", "-o"]).arg(system.join("bcryptprimitives.dll")).arg(&source);
    run(gcc.arg("-ladvapi32")).context("cannot build the library that Wine lacks")?;
    Ok(command)
}
