//! The suite `packages`: what an operator installs. `packaging/tests` installs each package in an
//! empty folder, and runs its program.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::run;
use crate::step::Form;
use crate::targets::{PROFILE, SERVICES, build_programs, target_folder};
use crate::tools::{self, Tool, tool};
use crate::{deb, debian_rust, install, ports};

/// The tools for all packages.
pub(crate) const NEEDS: &[&[Tool]] =
    &[TOOLS, tools::PYTHON, tools::NGINX, tools::CURL, &[debian_rust::CARGO]];

const TOOLS: &[Tool] = &[
    tool("dpkg-buildpackage", "command -v dpkg-buildpackage", "dpkg-dev"),
    tool("debhelper", "command -v dh", "debhelper"),
    tool("lintian", "command -v lintian", "lintian"),
    tool("man", "command -v man", "man-db"),
    tool("systemd-analyze", "command -v systemd-analyze", "systemd"),
    tool("unshare", "command -v unshare", "util-linux"),
    tool("buildah", "command -v buildah && command -v newuidmap", "buildah uidmap"),
    tool("file", "command -v file", "file"),
    tool("zip", "command -v zip", "zip"),
];

/// Builds the packages, and runs their tests, which are in Python.
///
/// In the short form, the program of the image has no list of keys and no agent of fleets, which
/// take most of its build.
pub(crate) fn test(form: Form) -> Result<String> {
    let folder = std::path::absolute(target_folder()?.join("packages"))?;
    tools::remove_folder(&folder)?;
    build_programs(SERVICES, &deb::PROGRAMS)?;
    let deb = deb::pack(PROFILE[1], &folder, &["--fast"])?;
    let module = module(&folder)?;
    let image = ports::static_program(form)?;

    let mut python = Command::new("python3");
    python.args(["-m", "unittest", "discover", "--start-directory", "packaging/tests"]);
    python.env("KEYTALLY_TEST_DEB", deb).env("KEYTALLY_TEST_STATIC", image);
    let output = run(python.env("KEYTALLY_TEST_MODULE", module))?;
    let ran = output.lines().find_map(|line| line.strip_prefix("Ran ")?.split(" in ").next());
    Ok(ran.context("the tests did not print how many ran")?.to_owned())
}

/// Builds the package of the nginx module. Returns its path.
fn module(folder: &Path) -> Result<PathBuf> {
    let prefix = folder.join("prefix");
    install::stage(&prefix, Path::new("lib"))?;
    let mut build = Command::new("sh");
    build.arg("packaging/debian-nginx/build.sh").arg(folder);
    let output = run(build.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")))?;
    Ok(PathBuf::from(output.lines().last().context("build.sh printed nothing")?))
}
