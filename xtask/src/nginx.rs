//! The nginx module as an administrator builds it: against nginx's headers and the installed library, into `target/native/nginx`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::{self, cargo};
use crate::install;
use crate::tools::Found;

/// Where Debian's nginx-dev has nginx's headers and its `configure`.
const SOURCES: &str = "/usr/share/nginx/src";

/// Everything that the tests in Python find by environment variables, and those tests.
pub(crate) fn test(_: &[Found]) -> Result<String> {
    let folder = std::path::absolute("target/native/nginx")?;
    let prefix = folder.join("prefix");
    install::run(&install::Places { prefix: &prefix, destdir: None, libdir: Path::new("lib") }, |_| ())?;
    let module = build(&folder, &prefix)?;
    let mut program = cargo();
    program.args(["build", "--release", "--quiet", "--package", "keytally-server"]);
    command::run(program)?;

    let mut test = Command::new("python3");
    test.arg("integrations/nginx/tests/test_nginx.py");
    test.env("KEYTALLY_TEST_NGINX_MODULE", module);
    test.env("KEYTALLY_TEST_KEYTALLY", std::path::absolute("target/release/keytally")?);
    test.env("LD_LIBRARY_PATH", prefix.join("lib"));
    let output = command::run(test)?;
    let ran = output.lines().find_map(|line| line.strip_prefix("Ran ")?.split(" in ").next());
    Ok(ran.context("the tests don't say how many ran")?.to_owned())
}

/// Builds the module by the commands of its README.
fn build(folder: &Path, prefix: &Path) -> Result<PathBuf> {
    let sources = folder.join("src");
    if sources.exists() {
        fs::remove_dir_all(&sources).with_context(|| format!("cannot empty {}", sources.display()))?;
    }
    let mut copy = Command::new("cp");
    copy.arg("-rL").arg(SOURCES).arg(&sources);
    command::run(copy)?;
    let mut make = Command::new("bash");
    make.current_dir(&sources).env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
    make.env("MODULE", std::path::absolute("integrations/nginx")?);
    make.args([
        "-ec",
        r#". ./conf_flags
        ./configure "${NGX_CONF_FLAGS[@]}" --with-compat --add-dynamic-module="$MODULE"
        make -f objs/Makefile modules"#,
    ]);
    command::run(make)?;
    Ok(sources.join("objs/ngx_http_keytally_module.so"))
}
