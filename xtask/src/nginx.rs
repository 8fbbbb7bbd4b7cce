//! The nginx module as an administrator builds it: against nginx's headers and the installed library, into `target/native/nginx`;
//! tested and measured from there.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::{self, cargo};
use crate::install;
use crate::tools::{self, Found, Need};

/// Where Debian's nginx-dev has nginx's headers and its `configure`.
const SOURCES: &str = "/usr/share/nginx/src";

/// The tests, which are in Python.
pub(crate) fn test(_: &[Found]) -> Result<String> {
    let output = command::run(python("integrations/nginx/tests/test_nginx.py")?)?;
    let ran = output.lines().find_map(|line| line.strip_prefix("Ran ")?.split(" in ").next());
    Ok(ran.context("the tests don't say how many ran")?.to_owned())
}

/// The program that measures nginx with the module and without; it leaves its figures in the folder of the benches.
pub(crate) fn bench() -> Result<Command> {
    for need in NEEDS {
        need()?;
    }
    python("integrations/nginx/benches/measure.py")
}

/// What both need.
pub(crate) const NEEDS: &[Need] = &[tools::c_toolchain, tools::curl, tools::python, tools::nginx];

/// A script that finds the module, the program `keytally` and the library by environment variables.
fn python(script: &str) -> Result<Command> {
    let folder = std::path::absolute("target/native/nginx")?;
    let prefix = folder.join("prefix");
    install::run(&install::Places { prefix: &prefix, destdir: None, libdir: Path::new("lib") }, |_| ())?;
    let module = build(&folder, &prefix)?;
    let mut program = cargo();
    program.args(["build", "--release", "--quiet", "--package", "keytally-server"]);
    command::run(program)?;

    let mut python = Command::new("python3");
    python.arg(script);
    python.env("KEYTALLY_TEST_NGINX_MODULE", module);
    python.env("KEYTALLY_TEST_KEYTALLY", std::path::absolute("target/release/keytally")?);
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
    Ok(sources.join("objs/ngx_http_keytally_module.so"))
}
