//! The table of test suites. To add a suite, add an entry with the tools that it needs.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::command::cargo;
use crate::step::{Step, Work};
use crate::targets::{PROFILE, TestFiles, count_tests};
use crate::tools::{self, Found};
use crate::{
    api, book, budgets, command, firmware, models, native, nginx, python, rules, web, words,
};

/// Every suite, in the order in which they run.
pub(crate) const SUITES: &[Step] = &[
    Step {
        name: "words",
        about: "every text is spelled correctly, and uses no word of typos.toml and no phrase of tools/phrases.txt that is unwanted",
        needs: &[&tools::TYPOS],
        full_when_named: false,
        work: Work::Call(words::check),
    },
    Step {
        name: "rules",
        about: "unsafe code, and exceptions from the bans of clippy.toml, stay in their named files; the product depends on no folder around it",
        needs: &[],
        full_when_named: false,
        work: Work::Call(rules::check),
    },
    Step {
        name: "purity",
        about: "core depends on the named crates only, and none has its feature std or alloc",
        needs: &[],
        full_when_named: false,
        work: Work::Call(rules::check_core),
    },
    Step {
        name: "imports",
        about: "no module imports from a module that contains it, and none import each other in a cycle",
        needs: &[&tools::IMPORT_LINTER],
        full_when_named: false,
        work: Work::Tests(&[TestFiles::one("keytally-audit", "imports")]),
    },
    Step {
        name: "api",
        about: "the public items of the libraries are the recorded ones, and name no type of a crate before 1.0",
        needs: &[],
        full_when_named: false,
        work: Work::Call(api::check),
    },
    Step {
        name: "unit",
        about: "the unit tests of every crate, and every test file that no other suite runs, pass",
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
        name: "book",
        about: "the book of docs/ builds without warnings, and every link in it leads to a page or a heading",
        needs: &[&tools::MDBOOK],
        full_when_named: false,
        work: Work::Call(book::check),
    },
    Step {
        name: "vectors",
        about: "the vector files are up to date, and the code agrees with them and with the reference model",
        needs: &[],
        full_when_named: false,
        work: Work::Tests(&[TestFiles::all_of("keytally-vectors")]),
    },
    Step {
        name: "corpus",
        about: "no input in the checked-in corpora makes a fuzz target fail",
        needs: &[],
        full_when_named: false,
        work: Work::Tests(&[TestFiles::all_of("keytally-fuzz-targets")]),
    },
    Step {
        name: "secrets",
        about: "no branch and no index of a key check depends on a secret, checked with valgrind",
        needs: &[&tools::VALGRIND],
        full_when_named: false,
        work: Work::Tests(&[TestFiles::one("keytally-audit", "secrets")]),
    },
    Step {
        name: "panics",
        about: "the lines of a check that could panic are the recorded ones, each with a proof",
        needs: &[],
        full_when_named: false,
        work: Work::Tests(&[TestFiles::one("keytally-audit", "panics")]),
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
        about: "core passes its vectors on emulated microcontrollers and in WebAssembly, within its size and instruction budgets",
        needs: firmware::NEEDS,
        full_when_named: false,
        work: Work::Call(firmware::check),
    },
    Step {
        name: "loom",
        about: "the guarantees hold in every interleaving of a few threads, and for every value that a load may return",
        needs: &[],
        full_when_named: false,
        work: Work::Call(models::loom),
    },
    Step {
        name: "shuttle",
        about: "the guarantees hold in random schedules of more threads",
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
        about: "processes killed at random instants lose no count and block no other process; the long form kills 10,000",
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
        about: "processes stopped at random instants and continued, also after a minute, admit no more than the limit",
        needs: &[],
        full_when_named: true,
        work: Work::Tests(&[TestFiles::one("keytally", "freeze")]),
    },
    Step {
        name: "c",
        about: "libkeytally from C: vectors, invalid pointers, files; gcc, clang, sanitizers, valgrind, pkg-config, CMake",
        needs: &[&tools::C_TOOLCHAIN, &tools::VALGRIND, &tools::OBJDUMP],
        full_when_named: false,
        work: Work::Call(native::c),
    },
    Step {
        name: "cpp",
        about: "keytally.hpp in C++17 and C++20, with and without exceptions; gcc, clang, sanitizers, valgrind",
        needs: &[&tools::C_TOOLCHAIN, &tools::VALGRIND],
        full_when_named: false,
        work: Work::Call(native::cpp),
    },
    Step {
        name: "interop",
        about: "processes in C, C++ and Rust on one gate admit exactly the limit; the example servers respond as documented",
        needs: &[&tools::C_TOOLCHAIN, &native::WORKERS],
        full_when_named: false,
        work: Work::Tests(&[TestFiles::all_of("keytally-ffi"), TestFiles::one("xtask", "servers")]),
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
        about: "the commands of the program: output, exit status, errors",
        needs: &[],
        full_when_named: false,
        work: Work::Tests(&[TestFiles::all_of("keytally-cli")]),
    },
    Step {
        name: "service",
        about: "the service over HTTP, with curl, fetch of Node.js and requests of Python; its listeners; attacks on it",
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
            TestFiles::one("keytally-server", "book"),
        ]),
    },
    Step {
        name: "python",
        about: "the installed Python module: lints, types, vectors, threads, forks, workers",
        needs: &[&python::ENVIRONMENT, &tools::CURL],
        full_when_named: false,
        work: Work::Call(python::test),
    },
    Step {
        name: "python-web",
        about: "middleware and framework integrations, with the test client of each framework and under real servers",
        needs: &[&python::ENVIRONMENT],
        full_when_named: false,
        work: Work::Call(web::test),
    },
];

/// Returns the list of suites, one per line.
pub(crate) fn list() -> String {
    let width = SUITES.iter().map(|suite| suite.name.len()).max().unwrap_or(0);
    SUITES.iter().map(|suite| format!("{:width$}  {}\n", suite.name, suite.about)).collect()
}

/// Returns the test files that suites name.
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

/// Runs the Rust programs of `examples/`. Each makes requests until one is denied.
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
        let output = run(&arguments)?;
        let statuses = output.lines().filter_map(|line| line.split(' ').next()).collect::<Vec<_>>();
        let denied = statuses.iter().filter(|status| **status == "429").count();
        let admitted = statuses.iter().filter(|status| **status == "200").count();
        ensure!(
            admitted >= 3 && denied == 1,
            "an example must admit at least 3 requests and deny 1, but it printed:\n{output}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suite_names_are_distinct_and_descriptions_are_one_line() {
        for (index, suite) in SUITES.iter().enumerate() {
            assert!(SUITES[..index].iter().all(|other| other.name != suite.name), "{}", suite.name);
            assert_eq!(suite.about.lines().count(), 1, "{}", suite.name);
        }
    }
}
