//! Keytally's own commands: `cargo xtask test` runs every test there is, `cargo xtask ci` all that must hold
//! before a change lands.
//!
//! | file | idea |
//! |---|---|
//! | `suites.rs` | the table of test suites: a new suite is one more entry |
//! | `ci.rs` | the table of what CI checks besides the suites |
//! | `step.rs` | a step: its work, how it is run, the report |
//! | `targets.rs` | which suite runs which test file, so that none is lost and none runs twice |
//! | `tools.rs` | what a test needs, and how it is found |
//! | `packages.rs` | the packages of the distribution that are missing, and how they are installed |
//! | `purity.rs` | core stays without std, allocation and unsafe |
//! | `rules.rs` | unsafe, clocks and atomics stay in their named files |
//! | `words.rs` | spelling, and the words that are not used |
//! | `imports.rs` | no import points up or closes a cycle |
//! | `api.rs` | the public items are the recorded ones |
//! | `panics.rs` | the instructions of a check that could panic are the known ones |
//! | `models.rs` | core's own code in a model checker: every interleaving, and random schedules |
//! | `bench.rs` | speed, that of alternatives too, and the pages that show it |
//! | `firmware.rs`, `bare_metal.rs` | the core on machines without an operating system, and the tools for that |
//! | `budgets.rs` | no hot path takes more instructions than it did |
//! | `header.rs` | the C header, written from the sources |
//! | `install.rs` | libkeytally under a prefix, to be found by pkg-config and CMake |
//! | `native.rs` | libkeytally as programs in C and C++ use it |
//! | `nginx.rs` | the nginx module, built as its users build it and tested in nginx |
//! | `secrets.rs` | no branch and no index of a key check depends on a secret |
//! | `fuzz.rs`, `timing.rs`, `mutants.rs` | the long forms of some tests, by tools of their own |
//! | `python.rs` | the Python module, built, installed and tested as its users have it |
//! | `wheel.rs` | what PyPI would get |
//! | `source.rs` | Rust source as a list of words |
//! | `command.rs` | runs a program, quiet unless it fails |

extern crate alloc;

mod api;
mod bare_metal;
mod bench;
mod budgets;
mod ci;
mod command;
mod firmware;
mod fuzz;
mod header;
mod imports;
mod install;
mod models;
mod mutants;
mod native;
mod nginx;
mod packages;
mod panics;
mod purity;
mod python;
mod rules;
mod secrets;
mod source;
mod step;
mod suites;
mod targets;
mod timing;
mod tools;
mod web;
mod wheel;
mod words;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand};

use crate::step::Step;

/// Keytally's own commands.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Runs every test suite, or the named ones. Names every tool that is missing before it runs anything.
    Test {
        /// Names the suites, one a line, and runs nothing.
        #[arg(long, conflicts_with = "suites")]
        list: bool,
        /// Runs the long forms of the suites that have one.
        #[arg(long, conflicts_with = "list")]
        full: bool,
        /// Installs the tools that are missing, by apt-get and rustup.
        #[arg(long, conflicts_with = "list")]
        install: bool,
        /// The suites to run; all of them when none is named.
        #[arg(value_name = "SUITE", value_parser = PossibleValuesParser::new(suites::SUITES.iter().map(|suite| suite.name)))]
        suites: Vec<String>,
    },
    /// Gives a fuzz target new inputs for a while, or each of them in turn.
    Fuzz {
        /// The target, a file under `tools/fuzz/fuzz_targets`; all of them when none is named.
        target: Option<String>,
        /// For how long, each.
        #[arg(long, default_value_t = 600)]
        seconds: u32,
    },
    /// Measures whether the time of a check depends on what is wrong with a key. Needs a quiet machine.
    Timing {
        /// How many samples of each kind of key.
        #[arg(long, default_value_t = 10_000_000)]
        samples: u32,
    },
    /// Measures speed, that of alternatives too, and writes benches/RESULTS.md and all else that shows the figures. Needs a
    /// quiet machine.
    Bench(bench::Wanted),
    /// Records the public items of the libraries: writes core/api.txt, host/api.txt and cli/api.txt.
    Api,
    /// Writes include/keytally.h from the sources of ffi-c.
    Header,
    /// Builds libkeytally and puts it with its headers where C and C++ programs find it.
    Install {
        /// The folder that it will be used from, an absolute path.
        #[arg(long, default_value = "/usr/local")]
        prefix: PathBuf,
        /// A folder that stands before the prefix while the files are put there, for makers of packages.
        #[arg(long)]
        destdir: Option<PathBuf>,
        /// The libraries' folder under the prefix.
        #[arg(long, default_value = "lib")]
        libdir: PathBuf,
    },
    /// Writes docs/EMBEDDED.md: what the core costs on machines without an operating system.
    Embedded,
    /// Writes docs/PANICS.md: the instructions of a check that could panic, and why they do not.
    Panics,
    /// Changes core one small thing at a time, and lists the changes that no test notices. Takes hours.
    Mutants {
        /// Only these files of `core/src`.
        files: Vec<String>,
        /// How many files are tried side by side, each in a copy of the workspace.
        #[arg(long, default_value_t = 1)]
        jobs: u32,
    },
    /// Builds what PyPI would get, into target/python/dist: the source distribution and a wheel for each C library
    /// that the toolchain has, each installed and tried in an environment of its own.
    Wheel,
    /// Checks all that must hold before a change lands: format, lints, documentation, every test suite.
    Ci {
        /// Installs the tools that are missing, by apt-get and rustup.
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
    let full = |step: &Step| match &task {
        Task::Test { full, suites, .. } => *full || !suites.is_empty() && step.full_when_named,
        _ => false,
    };
    let steps: Vec<&Step> = match &task {
        Task::Test { list: true, .. } => {
            print!("{}", suites::list());
            return Ok(ExitCode::SUCCESS);
        }
        Task::Test { suites: named, .. } => {
            let wanted =
                |suite: &&Step| named.is_empty() || named.iter().any(|name| name == suite.name);
            suites::SUITES.iter().filter(wanted).collect()
        }
        Task::Fuzz { target, seconds } => {
            fuzz::run(target.as_deref(), *seconds)?;
            return Ok(ExitCode::SUCCESS);
        }
        Task::Timing { samples } => {
            timing::run(*samples)?;
            return Ok(ExitCode::SUCCESS);
        }
        Task::Bench(wanted) => {
            bench::run(wanted)?;
            return Ok(ExitCode::SUCCESS);
        }
        Task::Api => {
            api::write()?;
            return Ok(ExitCode::SUCCESS);
        }
        Task::Header => {
            header::write()?;
            return Ok(ExitCode::SUCCESS);
        }
        Task::Install { prefix, destdir, libdir } => {
            install::run(
                &install::Destination { prefix, destdir: destdir.as_deref(), libdir },
                |file| {
                    println!("{file}");
                },
            )?;
            return Ok(ExitCode::SUCCESS);
        }
        Task::Embedded => {
            firmware::write()?;
            return Ok(ExitCode::SUCCESS);
        }
        Task::Panics => {
            panics::write()?;
            return Ok(ExitCode::SUCCESS);
        }
        Task::Mutants { files, jobs } => {
            mutants::run(files, *jobs)?;
            return Ok(ExitCode::SUCCESS);
        }
        Task::Wheel => {
            wheel::run()?;
            return Ok(ExitCode::SUCCESS);
        }
        Task::Ci { .. } => ci::CHECKS.iter().chain(suites::SUITES).collect(),
    };
    let install = matches!(task, Task::Test { install: true, .. } | Task::Ci { install: true });
    Ok(if step::run_all(&steps, full, install)? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Makes the workspace's folder the current one: every path here is written from there.
fn enter_workspace() -> Result<()> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = package.ancestors().nth(2).context("xtask has no workspace")?;
    std::env::set_current_dir(workspace)
        .with_context(|| format!("cannot enter {}", workspace.display()))
}
