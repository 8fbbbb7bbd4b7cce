//! Packages of Debian and Ubuntu: which the steps need and the system lacks, and how they are installed.

use core::fmt;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::command::{self, succeeds};
use crate::tools::{Need, on_path};

/// What the system lacks.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    tools: Vec<Tool>,
}

/// One tool that the system lacks.
#[derive(Debug, PartialEq, Eq)]
struct Tool {
    name: String,
    from: Source,
}

/// Where a tool comes from.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    /// All of these packages.
    Packages(Vec<String>),
    /// The first of these packages that brings the program `name`.
    AnyOf(&'static [&'static str]),
    /// A component of the Rust toolchain.
    Component,
}

impl Missing {
    /// Returns what the system lacks of these needs, each tool once.
    pub(crate) fn of(needs: &[&Need]) -> Self {
        let mut missing = Self::default();
        for need in needs {
            (need.lacks)(&mut missing);
        }
        missing
    }

    /// Adds a tool that these packages bring, unless it is there.
    pub(crate) fn unless(&mut self, is_there: bool, name: &str, packages: &[&str]) {
        let packages = packages.iter().map(|&package| package.to_owned()).collect();
        self.add(is_there, name, Source::Packages(packages));
    }

    /// Adds a program that the first of these packages brings which the distribution has, unless it is there.
    pub(crate) fn any_of(&mut self, program: &str, packages: &'static [&'static str]) {
        self.add(on_path(program).is_some(), program, Source::AnyOf(packages));
    }

    /// Adds a component of the Rust toolchain, unless it is there.
    pub(crate) fn component(&mut self, is_there: bool, name: &str) {
        self.add(is_there, name, Source::Component);
    }

    fn add(&mut self, is_there: bool, name: &str, from: Source) {
        let tool = Tool { name: name.to_owned(), from };
        if !is_there && !self.tools.contains(&tool) {
            self.tools.push(tool);
        }
    }

    /// Returns the packages that one line installs.
    fn packages(&self) -> Vec<String> {
        let of = |tool: &Tool| match &tool.from {
            Source::Packages(packages) => packages.clone(),
            Source::AnyOf(packages) => vec![available(packages).to_owned()],
            Source::Component => Vec::new(),
        };
        let mut packages: Vec<String> = self.tools.iter().flat_map(of).collect();
        packages.sort();
        packages.dedup();
        packages
    }

    fn components(&self) -> Vec<&str> {
        let components = self.tools.iter().filter(|tool| tool.from == Source::Component);
        components.map(|tool| tool.name.as_str()).collect()
    }
}

/// Names every tool, and the line that installs them all.
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

/// Fails if the system lacks something of these needs, or installs it if that is wanted.
pub(crate) fn require(needs: &[&Need], install: bool) -> Result<()> {
    let missing = Missing::of(needs);
    if missing.tools.is_empty() {
        return Ok(());
    }
    ensure!(
        install,
        "{missing}\n`cargo xtask test --install` does so. `cargo xtask test SUITE` needs less: see `cargo xtask test --list`."
    );
    // The name of one package is only known when another is there: clang's sanitizers have its version.
    for _ in 0..2 {
        let missing = Missing::of(needs);
        if !missing.tools.is_empty() {
            install_all(&missing)?;
        }
    }
    let missing = Missing::of(needs);
    ensure!(missing.tools.is_empty(), "Everything was installed, but is not found.\n{missing}");
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
    // If that fails, so does the installation, unless the lists were good enough.
    drop(command::run(apt_get(&["update"])));
    if install_packages(packages.iter().map(String::as_str)).is_ok() {
        return Ok(());
    }
    for tool in &missing.tools {
        install_tool(tool).with_context(|| format!("{missing}\nThis failed for {}", tool.name))?;
    }
    Ok(())
}

/// Installs the packages of one tool, from Debian's backports if need be.
fn install_tool(tool: &Tool) -> Result<()> {
    let install = |packages: &[&str]| {
        install_packages(packages.iter().copied())
            .or_else(|plain| from_backports(packages).or(Err(plain)))
    };
    match &tool.from {
        Source::Packages(packages) => {
            install(&packages.iter().map(String::as_str).collect::<Vec<_>>())
        }
        Source::AnyOf(packages) => {
            for package in *packages {
                if install(&[package]).is_ok() && on_path(&tool.name).is_some() {
                    return Ok(());
                }
            }
            bail!("none of {} brings it", packages.join(", "))
        }
        Source::Component => Ok(()),
    }
}

/// Installs packages. Where another part of QEMU comes from backports, the plain package would have it removed.
fn install_packages<'a>(packages: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut install = apt_get(&["install", "-y", "--no-install-recommends", "--no-remove"]);
    install.args(packages);
    command::run(install).map(drop)
}

/// Installs packages from Debian's backports, without making them a source of the system's.
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

/// `apt-get`, as root.
fn apt_get(arguments: &[&str]) -> Command {
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    let mut apt_get = Command::new(if is_root { "env" } else { "sudo" });
    apt_get
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"])
        .args(arguments);
    apt_get
}

/// The first of these packages that the distribution has; the last if it has none.
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
    fn every_missing_tool_is_named_with_one_line() {
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
    fn nothing_is_installed_unless_that_is_wanted() {
        let need =
            Need::of_system("", |missing| missing.unless(false, "a tool", &["no-such-package"]));
        let error = require(&[&need], false).unwrap_err().to_string();
        assert!(error.starts_with("These tools are missing: a tool.\n"), "{error}");
        assert!(error.contains("--install"), "{error}");
    }
}
