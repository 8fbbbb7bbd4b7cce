//! The nginx module as an administrator builds it: against nginx's headers and the installed library, into `target/native/nginx`;
//! tested and measured from there.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::{self, cargo};
use crate::install;
use crate::targets::{PROFILE, PROFILE_FOLDER};
use crate::tools::{self, Found, Need};

/// Where Debian's nginx-dev has nginx's headers and its `configure`.
const SOURCES: &str = "/usr/share/nginx/src";

/// The tests, which are in Python.
pub(crate) fn test(_: &[Found]) -> Result<String> {
    let mut python = python("integrations/nginx/tests/test_nginx.py")?;
    python.env("KEYTALLY_TEST_NGINX_MODULE_SANITIZED", sanitized(&std::path::absolute(FOLDER)?)?);
    let mut libasan = Command::new("cc");
    libasan.arg("-print-file-name=libasan.so");
    python.env("KEYTALLY_TEST_LIBASAN", command::run(libasan)?.trim());
    let output = command::run(python)?;
    let ran = output.lines().find_map(|line| line.strip_prefix("Ran ")?.split(" in ").next());
    Ok(ran.context("the tests don't say how many ran")?.to_owned())
}

/// The program that measures nginx with the module and without; it leaves its figures in the folder of the benches.
pub(crate) fn bench() -> Result<Command> {
    tools::find_all(NEEDS)?;
    python("integrations/nginx/benches/measure.py")
}

/// What both need; valgrind is for the tests alone.
pub(crate) const NEEDS: &[&Need] =
    &[&tools::C_TOOLCHAIN, &tools::CURL, &tools::PYTHON, &tools::VALGRIND, &tools::NGINX];

const FOLDER: &str = "target/native/nginx";

/// A script that finds the module, the program `keytally` and the library by environment variables.
fn python(script: &str) -> Result<Command> {
    let folder = std::path::absolute(FOLDER)?;
    let prefix = folder.join("prefix");
    install::run(&install::Places { prefix: &prefix, destdir: None, libdir: Path::new("lib") }, |_| ())?;
    let module = build(&folder, &prefix)?;
    let mut program = cargo();
    program.arg("build").args(PROFILE).args(["--quiet", "--package", "keytally-server"]);
    command::run(program)?;

    let mut python = Command::new("python3");
    python.arg(script);
    python.env("KEYTALLY_TEST_NGINX_MODULE", module);
    python.env("KEYTALLY_TEST_KEYTALLY", std::path::absolute(PROFILE_FOLDER)?.join("keytally"));
    python.env("LD_LIBRARY_PATH", prefix.join("lib"));
    Ok(python)
}

/// Builds the module by the commands of its README.
fn build(folder: &Path, prefix: &Path) -> Result<PathBuf> {
    let sources = folder.join("src");
    tools::remove_folder(&sources)?;
    let mut copy = Command::new("cp");
    copy.arg("-rL").arg(SOURCES).arg(&sources);
    command::run(copy)?;
    let mut make = Command::new("bash");
    make.current_dir(&sources).env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
    make.env("MODULE", std::path::absolute("integrations/nginx")?);
    make.args([
        "-ec",
        r#". ./conf_flags
        ./configure "${NGX_CONF_FLAGS[@]}" --with-compat --with-cc-opt=-O2 --add-dynamic-module="$MODULE"
        make -f objs/Makefile modules"#,
    ]);
    command::run(make)?;
    Ok(sources.join(MODULE))
}

const MODULE: &str = "objs/ngx_http_keytally_module.so";

/// Builds the module that was built in `folder` once more, with what reports what C doesn't define.
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
