//! Missing packages of Debian and Ubuntu, and missing components of the Rust toolchain: lists and
//! installs them.

use core::fmt;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::command::{self, succeeds};
use crate::tools::{Need, on_path};

/// The tools that the system lacks.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    tools: Vec<Tool>,
}

/// A tool that the system lacks.
#[derive(Debug, PartialEq, Eq)]
struct Tool {
    name: String,
    source: Source,
}

/// The source of a tool.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    /// All of these packages.
    Packages(Vec<String>),
    /// The first of these packages that exists and contains the program.
    AnyOf(&'static [&'static str]),
    /// A component of the Rust toolchain.
    Component,
}

impl Missing {
    /// Returns the tools of these needs that the system lacks, each once.
    pub(crate) fn from_needs(needs: &[&Need]) -> Self {
        let mut missing = Self::default();
        for need in needs {
            (need.lacks)(&mut missing);
        }
        missing
    }

    /// Adds a tool that these packages install, unless it exists.
    pub(crate) fn unless(&mut self, exists: bool, name: &str, packages: &[&str]) {
        let packages = packages.iter().map(|&package| package.to_owned()).collect();
        self.add(exists, name, Source::Packages(packages));
    }

    /// Adds a program that one of these packages installs, unless it exists. Which packages exist
    /// depends on the distribution.
    pub(crate) fn any_of(&mut self, program: &str, packages: &'static [&'static str]) {
        self.add(on_path(program).is_some(), program, Source::AnyOf(packages));
    }

    /// Adds a component of the Rust toolchain, unless it exists.
    pub(crate) fn component(&mut self, exists: bool, name: &str) {
        self.add(exists, name, Source::Component);
    }

    fn add(&mut self, exists: bool, name: &str, source: Source) {
        let tool = Tool { name: name.to_owned(), source };
        if !exists && !self.tools.contains(&tool) {
            self.tools.push(tool);
        }
    }

    /// Returns the packages that install the tools, sorted and distinct.
    fn packages(&self) -> Vec<String> {
        let packages_of = |tool: &Tool| match &tool.source {
            Source::Packages(packages) => packages.clone(),
            Source::AnyOf(packages) => vec![available(packages).to_owned()],
            Source::Component => Vec::new(),
        };
        let mut packages: Vec<String> = self.tools.iter().flat_map(packages_of).collect();
        packages.sort();
        packages.dedup();
        packages
    }

    /// Returns the missing components of the Rust toolchain.
    fn components(&self) -> Vec<&str> {
        let components = self.tools.iter().filter(|tool| tool.source == Source::Component);
        components.map(|tool| tool.name.as_str()).collect()
    }
}

/// Writes the names of the tools, and the commands that install them.
impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.tools.iter().map(|tool| tool.name.as_str()).collect();
        writeln!(f, "These tools are missing: {}.", names.join(", "))?;
        write!(f, "To install them:")?;
        let (packages, components) = (self.packages(), self.components());
        if !packages.is_empty() {
            let packages = packages.join(" ");
            write!(
                f,
                "\n  sudo apt-get update && sudo apt-get install --no-install-recommends {packages}"
            )?;
        }
        if !components.is_empty() {
            write!(f, "\n  rustup component add {}", components.join(" "))?;
        }
        Ok(())
    }
}

/// Installs the tools of these needs that the system lacks, if `install` is set.
///
/// # Errors
/// If tools are missing, and `install` is not set or the installation fails.
pub(crate) fn require(needs: &[&Need], install: bool) -> Result<()> {
    let missing = Missing::from_needs(needs);
    if missing.tools.is_empty() {
        return Ok(());
    }
    ensure!(
        install,
        "{missing}\n`cargo xtask test --install` does so. `cargo xtask test SUITE` needs less: see `cargo xtask test --list`."
    );
    // The second pass installs clang's sanitizers. The name of their package contains the version
    // of clang, which may be known only after the first pass.
    for _ in 0..2 {
        let missing = Missing::from_needs(needs);
        if !missing.tools.is_empty() {
            install_all(&missing)?;
        }
    }
    let missing = Missing::from_needs(needs);
    ensure!(
        missing.tools.is_empty(),
        "The packages were installed, but tools were not found.\n{missing}"
    );
    Ok(())
}

fn install_all(missing: &Missing) -> Result<()> {
    let components = missing.components();
    if !components.is_empty() {
        let mut rustup = Command::new("rustup");
        rustup.args(["component", "add"]).args(components);
        command::run(rustup)?;
    }
    let packages = missing.packages();
    if packages.is_empty() {
        return Ok(());
    }
    ensure!(on_path("apt-get").is_some(), "There is no apt-get here.\n{missing}");
    println!("installing {}", packages.join(" "));
    // An error is ignored: the present lists may suffice. If they do not, the installation fails.
    drop(command::run(apt_get(&["update"])));
    if install_packages(packages.iter().map(String::as_str)).is_ok() {
        return Ok(());
    }
    for tool in &missing.tools {
        install_tool(tool)
            .with_context(|| format!("{missing}\nThe installation of {} failed", tool.name))?;
    }
    Ok(())
}

/// Installs the packages of a tool, if necessary from Debian's backports.
fn install_tool(tool: &Tool) -> Result<()> {
    let install = |packages: &[&str]| {
        install_packages(packages.iter().copied())
            .or_else(|plain| from_backports(packages).or(Err(plain)))
    };
    match &tool.source {
        Source::Packages(packages) => {
            install(&packages.iter().map(String::as_str).collect::<Vec<_>>())
        }
        Source::AnyOf(packages) => {
            for package in *packages {
                if install(&[package]).is_ok() && on_path(&tool.name).is_some() {
                    return Ok(());
                }
            }
            bail!("none of the packages {} installs {}", packages.join(", "), tool.name)
        }
        Source::Component => Ok(()),
    }
}

/// Installs packages, without removing others. A package of QEMU would remove another part of QEMU
/// that comes from backports.
fn install_packages<'a>(packages: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut install = apt_get(&["install", "-y", "--no-install-recommends", "--no-remove"]);
    install.args(packages);
    command::run(install).map(drop)
}

/// Installs packages from Debian's backports, which it does not add to the sources of the system.
fn from_backports(packages: &[&str]) -> Result<()> {
    let release = fs::read_to_string("/etc/os-release")?;
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let suite = format!("{}-backports", name.context("the distribution's release has no name")?);
    let sources = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
    let list = std::path::absolute("target/backports.list")?;
    fs::create_dir_all("target")?;
    fs::write(&list, format!("{sources}\ndeb http://deb.debian.org/debian {suite} main\n"))?;
    let apt_get = |arguments: &[&str]| {
        let mut apt_get = apt_get(arguments);
        apt_get.arg("-o").arg(format!("Dir::Etc::SourceList={}", list.display()));
        command::run(apt_get)
    };
    apt_get(&["update"])?;
    let install = ["install", "-y", "--no-install-recommends", "--no-remove", "-t", &suite];
    apt_get(&[&install[..], packages].concat()).map(drop)
}

/// Returns the command `apt-get`, run as root.
fn apt_get(arguments: &[&str]) -> Command {
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    let mut apt_get = Command::new(if is_root { "env" } else { "sudo" });
    apt_get
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"])
        .args(arguments);
    apt_get
}

/// Returns the first of these packages that the distribution has, or the last if it has none.
fn available(packages: &'static [&'static str]) -> &'static str {
    let exists = |package: &&&str| {
        let mut show = Command::new("apt-cache");
        show.args(["show", package]);
        succeeds(show)
    };
    packages.iter().find(exists).or(packages.last()).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_tools_are_listed_once_with_their_commands() {
        let mut missing = Missing::default();
        missing.unless(false, "valgrind with its headers", &["valgrind"]);
        missing.unless(true, "curl", &["curl"]);
        missing.unless(false, "clang", &["clang", "libclang-rt-14-dev"]);
        missing.unless(false, "valgrind with its headers", &["valgrind"]);
        missing.component(false, "clippy");
        assert_eq!(
            missing.to_string(),
            "These tools are missing: valgrind with its headers, clang, clippy.\n\
             To install them:\n  \
               sudo apt-get update && sudo apt-get install --no-install-recommends clang libclang-rt-14-dev valgrind\n  \
               rustup component add clippy"
        );
    }

    #[test]
    fn missing_tool_without_install_is_an_error() {
        let need =
            Need::of_system("", |missing| missing.unless(false, "a tool", &["no-such-package"]));
        let error = require(&[&need], false).unwrap_err().to_string();
        assert!(error.starts_with("These tools are missing: a tool.\n"), "{error}");
        assert!(error.contains("--install"), "{error}");
    }
}
