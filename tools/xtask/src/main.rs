//! The development commands of Keytally. `cargo xtask test` runs every test suite, and `cargo xtask
//! ci` runs all checks that a change must pass.
//!
//! | file | contents |
//! |---|---|
//! | `suites.rs` | the table of test suites |
//! | `ci.rs` | the table of the other checks of CI |
//! | `fast.rs` | the steps of `cargo xtask test --fast` |
//! | `step.rs` | a step (a suite or another check): how it runs, the final report |
//! | `targets.rs` | runs the test files of a suite |
//! | `tools.rs` | finds the tools that steps need, and installs missing ones |
//! | `models.rs` | runs core in the model checkers loom and shuttle |
//! | `book.rs` | builds the book, and checks its links |
//! | `bench.rs` | measures speed, also of other implementations, and writes the pages with it |
//! | `bare_metal.rs` | the tools that build for microcontrollers and emulate them |
//! | `deb.rs` | packs the program for Debian |
//! | `debian_rust.rs` | Debian's Rust, which builds for targets that the local one lacks |
//! | `install.rs` | installs and packs libkeytally |
//! | `native.rs` | tests libkeytally from C and C++ |
//! | `nginx.rs` | builds and tests the nginx module |
//! | `fuzz.rs` | runs the fuzz targets with new inputs |
//! | `python.rs` | builds and tests the Python module and its web integrations |
//! | `node.rs` | tests the package for Node.js and its integrations |
//! | `packages.rs` | tests the packages of operators |
//! | `ports.rs` | builds and tests for other processors and systems |
//! | `wheel.rs` | builds the distributions for PyPI |
//! | `release.rs` | checks and builds what a release publishes |
//! | `command.rs` | runs a program, and prints its output only if it fails |

extern crate alloc;

mod bare_metal;
mod bench;
mod book;
mod ci;
mod command;
mod deb;
mod debian_rust;
mod fast;
mod fuzz;
mod install;
mod models;
mod native;
mod nginx;
mod node;
mod packages;
mod page;
mod ports;
mod python;
mod release;
mod step;
mod suites;
mod targets;
mod tools;
mod wheel;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand};

use crate::step::{Form, Step};

/// Development commands of Keytally.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Runs the test suites. If tools are missing, lists all of them and runs nothing.
    Test {
        /// Prints the suites, one per line, and runs nothing.
        #[arg(long, conflicts_with = "suites")]
        list: bool,
        /// Runs a part of the suites in a development build: unit tests, vectors, examples, one
        /// program in C, and the Python module. Takes less than 3 minutes on two processors.
        #[arg(long, conflicts_with_all = ["list", "full", "suites"])]
        fast: bool,
        /// Runs the longest form of each suite that has more than one. A suite that is named runs
        /// a longer form than among all.
        #[arg(long, conflicts_with = "list")]
        full: bool,
        /// Runs the named suites in the form that CI runs.
        #[arg(long, conflicts_with_all = ["list", "full"])]
        short: bool,
        /// Installs missing tools with apt-get and rustup.
        #[arg(long, conflicts_with = "list")]
        install: bool,
        /// The suites to run [default: all].
        #[arg(value_name = "SUITE", value_parser = PossibleValuesParser::new(suites::SUITES.iter().map(|suite| suite.name)))]
        suites: Vec<String>,
    },
    /// Runs fuzz targets with new inputs, one after the other.
    Fuzz {
        /// The name of a file in `tools/fuzz/fuzz_targets` [default: all].
        target: Option<String>,
        /// The duration for each target.
        #[arg(long, default_value_t = 600)]
        seconds: u32,
    },
    /// Measures speed, also of other implementations, and writes benches/RESULTS.md and the other
    /// pages and plots with its figures. Needs a machine without other load.
    Bench(bench::Options),
    /// Runs as a preprocessor of mdBook, which rewrites the links of the book.
    #[command(hide = true)]
    BookLinks {
        /// `supports RENDERER`: whether the preprocessor supports it, which is always true.
        query: Vec<String>,
    },
    /// Records the public items of the libraries in core/api.txt, host/api.txt and cli/api.txt.
    Api,
    /// Writes include/keytally.h from the sources of ffi-c.
    Header,
    /// Builds libkeytally, and installs it with its headers, its files for pkg-config and CMake,
    /// and the completions and manual pages of the program.
    Install {
        /// The folder from which the files will be used, an absolute path.
        #[arg(long, default_value = "/usr/local")]
        prefix: PathBuf,
        /// A folder to install into in place of /, for package builds.
        #[arg(long)]
        destdir: Option<PathBuf>,
        /// The folder of the libraries, relative to the prefix.
        #[arg(long, default_value = "lib")]
        libdir: PathBuf,
    },
    /// Packs libkeytally for machines without Rust: an archive, and a package for Debian.
    Archive {
        /// The folder of the packages [default: dist in the target folder].
        folder: Option<PathBuf>,
    },
    /// Packs the program with its units and manual pages for Debian.
    Deb {
        /// The folder of the package [default: dist in the target folder].
        folder: Option<PathBuf>,
    },
    /// Writes docs/EMBEDDED.md: the size and the cost of core without an operating system.
    Embedded,
    /// Builds the distributions for PyPI in target/python/dist: the source distribution, and wheels
    /// of the module and of the program for this machine's system. Installs and tests each in an
    /// environment of its own.
    Wheel {
        /// Also builds the wheels for every other system for which there is a toolchain.
        #[arg(long)]
        all: bool,
    },
    /// Checks and builds everything that a release publishes: versions, packages and their tests,
    /// distributions, lists of components. Compares two builds. Publishes nothing.
    Release {
        /// Confirms that nothing is published. RELEASING.md has the steps that publish.
        #[arg(long, required = true)]
        dry_run: bool,
        /// Leaves out the tests of the packages.
        #[arg(long)]
        quick: bool,
        /// The tag of the release, which must be that of the version [default: not checked].
        #[arg(long)]
        tag: Option<String>,
    },
    /// Runs all checks that a change must pass: format, lints, documentation, every test suite.
    Ci {
        /// Installs missing tools with apt-get and rustup.
        #[arg(long)]
        install: bool,
    },
}

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode> {
    let task = CommandLine::parse().task;
    enter_workspace()?;
    match task {
        Task::Test { list: true, .. } => print!("{}", suites::list()),
        Task::Test { fast, full, short, install, suites: named, .. } => {
            let table = if fast { fast::STEPS } else { suites::SUITES };
            let is_named = |step: &&Step| named.iter().any(|name| name == step.name);
            let steps = table.iter().filter(|step| named.is_empty() || is_named(step));
            let form = match named.as_slice() {
                _ if full => Form::Full,
                [_, ..] if !short => Form::Named,
                _ => Form::Short,
            };
            return step::run_all(&steps.collect::<Vec<_>>(), form, install);
        }
        Task::Fuzz { target, seconds } => fuzz::run(target.as_deref(), seconds)?,
        Task::Bench(options) => bench::run(&options)?,
        Task::BookLinks { query } if !query.is_empty() => {}
        Task::BookLinks { .. } => book::preprocess()?,
        Task::Api => println!("recorded by {}", suites::record("keytally-interfaces", "api")?),
        Task::Header => {
            println!("recorded by {}", suites::record("keytally-interfaces", "header")?);
        }
        Task::Install { prefix, destdir, libdir } => {
            print!("{}", install::install(&prefix, destdir.as_deref(), &libdir)?);
        }
        Task::Archive { folder } => print!("{}", install::archive(folder.as_deref())?),
        Task::Deb { folder } => print!("{}", deb::write(folder.as_deref())?),
        Task::Embedded => println!("recorded by {}", suites::embedded()?),
        Task::Wheel { all } => wheel::write(all)?,
        Task::Release { quick, tag, .. } => release::run(tag.as_deref(), quick)?,
        Task::Ci { install } => {
            let steps: Vec<&Step> = ci::CHECKS.iter().chain(suites::SUITES).collect();
            return step::run_all(&steps, Form::Short, install);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Changes to the folder of the workspace. All paths in this program are relative to it.
fn enter_workspace() -> Result<()> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = package.ancestors().nth(2).context("xtask has no workspace")?;
    std::env::set_current_dir(workspace)
        .with_context(|| format!("cannot enter {}", workspace.display()))
}
