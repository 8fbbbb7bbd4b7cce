//! Builds the nginx module as an administrator does, with nginx's headers and the installed
//! library, in `target/native/nginx`. Tests and measures it there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::{self, cargo};
use crate::install;
use crate::targets::{PROFILE, profile_folder};
use crate::tools::{self, Found, Need};

/// Runs the tests, which are in Python.
pub(crate) fn test(_: &[Found]) -> Result<String> {
    let mut python = python("adapters/nginx/tests/test_nginx.py")?;
    let folder = std::path::absolute(FOLDER)?;
    python.env("KEYTALLY_TEST_NGINX_OBJECTS", folder.join("src/objs/addon/src"));
    python.env("KEYTALLY_TEST_NGINX_MODULE_SANITIZED", sanitized(&folder)?);
    let mut libasan = Command::new("cc");
    libasan.arg("-print-file-name=libasan.so");
    python.env("KEYTALLY_TEST_LIBASAN", command::run(libasan)?.trim());
    let output = command::run(python)?;
    let ran = output.lines().find_map(|line| line.strip_prefix("Ran ")?.split(" in ").next());
    Ok(ran.context("the tests did not print how many ran")?.to_owned())
}

/// Returns the command that measures nginx with the module and without. It writes its results to
/// the folder of the benches.
pub(crate) fn bench() -> Result<Command> {
    tools::find_all(NEEDS)?;
    python("adapters/nginx/benches/measure.py")
}

/// The tools for both. Only the tests need valgrind.
pub(crate) const NEEDS: &[&Need] =
    &[&tools::C_TOOLCHAIN, &tools::CURL, &tools::PYTHON, &tools::VALGRIND, &tools::NGINX];

const FOLDER: &str = "target/native/nginx";

/// Returns a command that runs a script. Environment variables name the module, the program
/// `keytally` and the library.
fn python(script: &str) -> Result<Command> {
    let folder = std::path::absolute(FOLDER)?;
    let prefix = folder.join("prefix");
    install::run(
        &install::Destination { prefix: &prefix, destdir: None, libdir: Path::new("lib") },
        |_| (),
    )?;
    let module = build(&folder, &prefix)?;
    let mut program = cargo();
    program.arg("build").args(PROFILE).args(["--quiet", "--package", "keytally-cli"]);
    command::run(program)?;

    let mut python = Command::new("python3");
    python.arg(script);
    python.env("KEYTALLY_TEST_NGINX_MODULE", module);
    python.env("KEYTALLY_TEST_KEYTALLY", profile_folder()?.join("keytally"));
    python.env("LD_LIBRARY_PATH", prefix.join("lib"));
    Ok(python)
}

/// Builds the module by the commands of its README. The folder of modules does not exist before.
fn build(folder: &Path, prefix: &Path) -> Result<PathBuf> {
    let [sources, modules] = ["src", "modules"].map(|name| folder.join(name));
    for folder in [&sources, &modules] {
        tools::remove_folder(folder)?;
    }
    let readme = fs::read_to_string("adapters/nginx/README.md")?;
    let block = readme.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next());
    let mut commands = block.context("the module's README has no commands")?.to_owned();
    for (text, local) in [
        ("apt-get install", "true"),
        ("/tmp/nginx-src", path(&sources)?),
        ("/path/to/adapters/nginx", path(&std::path::absolute("adapters/nginx")?)?),
        ("/usr/lib/nginx/modules", path(&modules)?),
    ] {
        ensure!(commands.contains(text), "the module's README does not contain {text}");
        commands = commands.replace(text, local);
    }
    let mut shell = Command::new("sh");
    shell.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")).arg("-ec").arg(commands);
    command::run(shell)?;
    Ok(modules.join("ngx_http_keytally_module.so"))
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("the path is not UTF-8")
}

const MODULE: &str = "objs/ngx_http_keytally_module.so";

/// Builds the module in `folder` again, with AddressSanitizer and UndefinedBehaviorSanitizer.
fn sanitized(folder: &Path) -> Result<PathBuf> {
    let [plain, sanitized] = ["src", "sanitized"].map(|name| folder.join(name));
    tools::remove_folder(&sanitized)?;
    let mut copy = Command::new("cp");
    copy.arg("-r").arg(plain).arg(&sanitized);
    command::run(copy)?;
    let mut make = Command::new("make");
    make.current_dir(&sanitized).args(["-f", "objs/Makefile", "--always-make", MODULE]);
    make.arg("CC=cc -g -fsanitize=address,undefined -fno-sanitize-recover=all");
    command::run(make)?;
    Ok(sanitized.join(MODULE))
}
