//! The table of test suites. A new suite is one more entry, with the tools that it needs.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::command::cargo;
use crate::step::{Step, Work};
use crate::targets::{PROFILE, TestFiles, count_tests};
use crate::tools::{self, Found};
use crate::{
    api, budgets, command, firmware, imports, models, native, nginx, panics, purity, python, rules,
    secrets, web, words,
};

/// Every suite, in the order in which they run.
pub(crate) const SUITES: &[Step] = &[
    Step {
        name: "words",
        about: "every text is spelled well, and no word on the list tools/words.txt is used",
        needs: &[&tools::TYPOS],
        full_when_named: false,
        work: Work::Call(words::check),
    },
    Step {
        name: "rules",
        about: "unsafe code, clock reads and atomics stay in their named files",
        needs: &[],
        full_when_named: false,
        work: Work::Call(rules::check),
    },
    Step {
        name: "purity",
        about: "core has no std, no allocation, no unsafe, and no crate but the named ones",
        needs: &[],
        full_when_named: false,
        work: Work::Call(purity::check),
    },
    Step {
        name: "imports",
        about: "no module imports from a module that contains it, and none import each other in a cycle",
        needs: &[&tools::IMPORT_LINTER],
        full_when_named: false,
        work: Work::Call(imports::check),
    },
    Step {
        name: "api",
        about: "the public items of the libraries are the recorded ones, and name no type of an unstable crate",
        needs: &[],
        full_when_named: false,
        work: Work::Call(api::check),
    },
    Step {
        name: "unit",
        about: "the tests inside every crate, and every test file that has no suite of its own",
        needs: &[],
        full_when_named: false,
        work: Work::OtherTests,
    },
    Step {
        name: "doc",
        about: "the examples in the documentation compile and run",
        needs: &[],
        full_when_named: false,
        work: Work::Call(documentation_examples),
    },
    Step {
        name: "vectors",
        about: "the vector files are fresh, and the code agrees with them and with the slow model",
        needs: &[],
        full_when_named: false,
        work: Work::Tests(&[TestFiles::all_of("keytally-vectors")]),
    },
    Step {
        name: "corpus",
        about: "the fuzz targets find nothing in the inputs that are checked in",
        needs: &[],
        full_when_named: false,
        work: Work::Tests(&[TestFiles::all_of("keytally-fuzz-targets")]),
    },
    Step {
        name: "secrets",
        about: "no branch and no index of a key check depends on a secret, seen by valgrind",
        needs: &[&tools::VALGRIND],
        full_when_named: false,
        work: Work::Call(secrets::check),
    },
    Step {
        name: "panics",
        about: "the instructions of a check that could panic are the known ones, each with its reason",
        needs: &[&tools::OBJDUMP],
        full_when_named: false,
        work: Work::Call(panics::check),
    },
    Step {
        name: "budgets",
        about: "no hot path takes more instructions than its budget, counted by valgrind",
        needs: &[&tools::VALGRIND],
        full_when_named: false,
        work: Work::Call(budgets::check),
    },
    Step {
        name: "firmware",
        about: "on every kind of microcontroller, emulated, and in WebAssembly, all answer the same, within its budgets",
        needs: firmware::NEEDS,
        full_when_named: false,
        work: Work::Call(firmware::check),
    },
    Step {
        name: "loom",
        about: "the guarantees hold in every interleaving of a few threads, whatever value each load may return",
        needs: &[],
        full_when_named: false,
        work: Work::Call(models::loom),
    },
    Step {
        name: "shuttle",
        about: "the guarantees hold on random schedules, of more threads too",
        needs: &[],
        full_when_named: false,
        work: Work::Call(models::shuttle),
    },
    Step {
        name: "processes",
        about: "threads and processes on one file together admit exactly the limit",
        needs: &[],
        full_when_named: false,
        work: Work::Tests(&[TestFiles::one("keytally", "processes")]),
    },
    Step {
        name: "kills",
        about: "processes killed at random instants lose no count and block no other process; 10,000 of them when named",
        needs: &[],
        full_when_named: true,
        work: Work::Tests(&[TestFiles::one("keytally", "kills")]),
    },
    Step {
        name: "stops",
        about: "a process killed at any step of any protocol loses no count and blocks no other process",
        needs: &[],
        full_when_named: false,
        work: Work::Tests(&[TestFiles::one("keytally", "stops")]),
    },
    Step {
        name: "freeze",
        about: "processes stopped and continued at random instants, for over a minute too, admit no more than the limit",
        needs: &[],
        full_when_named: true,
        work: Work::Tests(&[TestFiles::one("keytally", "freeze")]),
    },
    Step {
        name: "c",
        about: "libkeytally from C: vectors, wrong pointers, files, as gcc and clang, sanitizers, valgrind and CMake see it",
        needs: &[&tools::C_TOOLCHAIN, &tools::VALGRIND, &tools::OBJDUMP],
        full_when_named: false,
        work: Work::Call(native::c),
    },
    Step {
        name: "cpp",
        about: "keytally.hpp from C++17 and C++20, with exceptions and without, in the same ways",
        needs: &[&tools::C_TOOLCHAIN, &tools::VALGRIND],
        full_when_named: false,
        work: Work::Call(native::cpp),
    },
    Step {
        name: "interop",
        about: "processes in C, C++ and Rust on one gate admit exactly the limit; the example servers keep the contract",
        needs: &[&tools::C_TOOLCHAIN, &native::WORKERS],
        full_when_named: false,
        work: Work::Tests(&[TestFiles::all_of("keytally-ffi")]),
    },
    Step {
        name: "nginx",
        about: "the nginx module in a real nginx: the contract, also under valgrind and sanitizers, four workers, reloads, killed workers, replaced gates",
        needs: nginx::NEEDS,
        full_when_named: false,
        work: Work::Call(nginx::test),
    },
    Step {
        name: "cli",
        about: "the program's commands: what they print, their exit status, their errors",
        needs: &[],
        full_when_named: false,
        work: Work::Tests(&[TestFiles::all_of("keytally-cli")]),
    },
    Step {
        name: "service",
        about: "the service over real HTTP, with curl, fetch of Node and requests of Python; its listeners; attacks on it",
        needs: &[&tools::CURL, &tools::NODE, &tools::PYTHON],
        full_when_named: false,
        work: Work::Tests(&[
            TestFiles::one("keytally-server", "contract"),
            TestFiles::one("keytally-server", "routes"),
            TestFiles::one("keytally-server", "startup"),
            TestFiles::one("keytally-server", "lifecycle"),
            TestFiles::one("keytally-server", "listeners"),
            TestFiles::one("keytally-server", "guesses"),
            TestFiles::one("keytally-server", "attacks"),
        ]),
    },
    Step {
        name: "python",
        about: "the Python module as its users have it: lints, types, vectors, threads, forks, workers",
        needs: &[&python::ENVIRONMENT],
        full_when_named: false,
        work: Work::Call(python::test),
    },
    Step {
        name: "python-web",
        about: "middleware and framework integrations, each by its own client and under real servers with workers",
        needs: &[&python::ENVIRONMENT],
        full_when_named: false,
        work: Work::Call(web::test),
    },
];

/// One line a suite.
pub(crate) fn list() -> String {
    let width = SUITES.iter().map(|suite| suite.name.len()).max().unwrap_or(0);
    SUITES.iter().map(|suite| format!("{:width$}  {}\n", suite.name, suite.about)).collect()
}

/// The test files that suites name as their own.
pub(crate) fn named_files() -> Vec<TestFiles> {
    let named = |suite: &Step| match suite.work {
        Work::Tests(files) => files,
        Work::OtherTests | Work::Call(_) => &[],
    };
    SUITES.iter().flat_map(named).copied().collect()
}

fn documentation_examples(_: &[Found]) -> Result<String> {
    let mut test: Command = cargo();
    test.arg("test").args(PROFILE).args(["--workspace", "--no-fail-fast", "--doc"]);
    let tests = count_tests(&command::run(test)?)?;
    run_examples()?;
    Ok(tests)
}

/// Runs the programs of `examples/` that are in Rust. Each makes requests until one is denied.
fn run_examples() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let run = |arguments: &[&str]| {
        let mut run: Command = cargo();
        run.arg("run").args(PROFILE).arg("--quiet").arg("--manifest-path");
        run.arg(std::env::current_dir()?.join("Cargo.toml")).args(arguments);
        run.current_dir(&folder).env("KEYTALLY_PEPPER", "5a".repeat(32));
        command::run(run)
    };
    let create = ["create", "api.gate", "--plan", "default=3/minute, 100/hour"];
    run(&[&["--package", "keytally-cli", "--"][..], &create].concat())?;
    for arguments in [
        ["--package", "keytally", "--example", "gate"],
        ["--package", "keytally-core", "--example", "no_std"],
    ] {
        let said = run(&arguments)?;
        let statuses = said.lines().filter_map(|line| line.split(' ').next()).collect::<Vec<_>>();
        let denied = statuses.iter().filter(|status| **status == "429").count();
        let admitted = statuses.iter().filter(|status| **status == "200").count();
        ensure!(admitted >= 3 && denied == 1, "an example is not denied once, in the end:\n{said}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_suite_has_one_name_and_one_line() {
        for (index, suite) in SUITES.iter().enumerate() {
            assert!(SUITES[..index].iter().all(|other| other.name != suite.name), "{}", suite.name);
            assert_eq!(suite.about.lines().count(), 1, "{}", suite.name);
        }
    }

    #[test]
    fn no_two_suites_name_one_file() {
        let files = named_files();
        for (index, file) in files.iter().enumerate() {
            assert!(!files[..index].iter().any(|other| other.overlap(file)), "{file}");
        }
    }
}
