//! The table of test suites. To add a suite, add an entry with the tools that it needs.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::command::{cargo, run};
use crate::step::{Form, Step, Work};
use crate::targets::{self, PROFILE, TestFiles, Variables, WORKSPACES, count_tests};
use crate::{
    bare_metal, book, debian_rust, models, native, nginx, node, packages, page, ports, python,
    tools,
};

/// Every suite, in the order in which they run.
pub(crate) const SUITES: &[Step] = &[
    Step::tests("words", &[("keytally-audit", "words")])
        .needs(&[tools::PYTHON])
        .variables(|| Ok(vec![("KEYTALLY_TEST_TYPOS", tools::typos()?)]))
        .about("texts are spelled correctly, and use no word of typos.toml or tools/phrases.txt"),
    Step::tests("rules", &[("keytally-audit", "rules")])
        .about("unsafe code and exceptions from bans are in named files; the product stands alone"),
    Step::tests("purity", &[("keytally-audit", "purity")])
        .about("core depends on the named crates only, and none has its feature std or alloc"),
    Step::tests("imports", &[("keytally-audit", "imports")])
        .needs(&[tools::PYTHON])
        .variables(|| Ok(vec![("KEYTALLY_TEST_IMPORT_LINTER", tools::import_linter()?)]))
        .about("no module imports from one that contains it, or in a cycle"),
    Step::tests("api", &[("keytally-interfaces", "*")])
        .about("the C header and the public items are recorded; none is of a crate before 1.0"),
    Step::new("unit", Work::Long(unit))
        .about("the unit tests of every crate, and the test files of no other suite, pass"),
    Step::call("doc", documentation_examples)
        .about("the examples in the documentation compile and run"),
    Step::call("book", book::check)
        .about("the book of docs/ builds without warnings, and every link in it leads somewhere"),
    Step::tests("vectors", &[("keytally-vectors", "*")])
        .about("the vector files are up to date, and the code agrees with them and the model"),
    Step::tests("corpus", &[("keytally-fuzz-targets", "*"), ("keytally-fuzz-fleet", "*")])
        .about("no input in the checked-in corpora makes a fuzz target fail"),
    Step::tests("secrets", &[("keytally-audit", "secrets")])
        .needs(&[tools::VALGRIND])
        .about("no branch and no index of a key check depends on a secret, by valgrind"),
    Step::tests("panics", &[("keytally-audit", "panics")])
        .about("the lines of a check that could panic are the recorded ones, with their proofs"),
    Step::tests("budgets", &[("keytally-audit", "budgets")])
        .needs(&[tools::VALGRIND])
        .about("no hot path takes more instructions than its budget, counted by valgrind"),
    Step::tests("firmware", &[FIRMWARE])
        .full_when_named()
        .needs(&[bare_metal::TOOLS, tools::PYTHON])
        .variables(bare_metal)
        .about("core passes its vectors and budgets on microcontrollers and in WebAssembly"),
    Step::new("ports", Work::Long(ports::test))
        .needs(&[ports::TOOLS, tools::PYTHON])
        .about("the vectors on arm64 and with musl; named, also processes there and on Windows"),
    Step::new("loom", Work::Long(models::loom))
        .about("the guarantees hold in every interleaving of a few threads"),
    Step::new("shuttle", Work::Long(models::shuttle))
        .about("the guarantees hold in random schedules of more threads"),
    Step::tests("processes", &[("keytally", "processes migrations")])
        .about("threads and processes on one file together admit exactly the limit"),
    Step::tests("kills", &[("keytally", "kills")])
        .full_when_named()
        .about("processes killed at random instants lose no count and block no other process"),
    Step::tests("stops", &[("keytally", "stops")])
        .about("a process killed at any step of any protocol loses no count and blocks none"),
    Step::tests("freeze", &[("keytally", "freeze")])
        .full_when_named()
        .about("processes stopped at random instants, and continued, admit at most the limit"),
    Step::new("c", Work::Long(native::c))
        .needs(&[tools::C_TOOLCHAIN, tools::VALGRIND, tools::OBJDUMP])
        .about("libkeytally from C: vectors, pointers, files; compilers, sanitizers, packages"),
    Step::new("cpp", Work::Long(native::cpp))
        .needs(&[tools::C_TOOLCHAIN, tools::VALGRIND])
        .about("keytally.hpp in C++17 and C++20, with and without exceptions; sanitizers"),
    Step::tests("interop", &[("keytally-ffi", "*"), ("xtask", "servers")])
        .needs(&[tools::C_TOOLCHAIN, tools::GO])
        .variables(|| Ok(vec![("KEYTALLY_TEST_WORKERS", native::workers()?)]))
        .about("C, C++ and Rust on one gate admit exactly the limit; the example servers, one in Go too"),
    Step::call("nginx", nginx::test)
        .needs(nginx::NEEDS)
        .about("the nginx module in a real nginx: contract, valgrind, sanitizers, reloads, kills"),
    Step::tests("cli", &[("keytally-cli", "*")])
        .about("the commands of the program: output, exit status, errors"),
    Step::tests("service", SERVICE)
        .needs(&[tools::CURL, tools::PYTHON, tools::NGINX, tools::PROXIES, tools::MONITORS, tools::REDIS])
        .variables(clients)
        .about("the service over HTTP with curl, Node.js, Python and nginx; its listeners; attacks on it"),
    Step::tests("keys", KEYS)
        .full_when_named()
        .needs(&[tools::POSTGRES, tools::PYTHON])
        .variables(|| Ok(vec![("KEYTALLY_TEST_SCHEMATHESIS", tools::schemathesis()?)]))
        .about("the list of keys: kills at every step, roles and routes, SQLite and PostgreSQL"),
    Step::tests("fleet", FLEET)
        .full_when_named()
        .needs(&[tools::REDIS, tools::MONITORS, tools::PYTHON, tools::CC])
        .variables(node::workers)
        .about("machines share limits: all orders of messages, simulated fleets, agents and their commands on real servers"),
    Step::new("valkey", Work::Long(valkey))
        .needs(&[tools::REDIS, tools::MONITORS, tools::PYTHON, tools::CC])
        .about("the tests of fleets that need a server pass with Valkey; named, all of them"),
    Step::new("packages", Work::Long(packages::test))
        .needs(packages::NEEDS)
        .about("the package for Debian, the image and the package of the nginx module: installed and used"),
    Step::new("page", Work::Long(page::test))
        .needs(&[page::CHROMIUM, tools::PYTHON, tools::POSTGRES])
        .about("the page of keys in Chromium: flows, axe, keyboard, pictures; named, PostgreSQL too"),
    Step::new("python", Work::Long(python::test))
        .needs(&[tools::PYTHON, tools::CURL, tools::CC, tools::REDIS])
        .about("the installed Python module: lints, types, vectors, threads, forks, workers"),
    Step::new("python-web", Work::Long(python::test_web))
        .needs(&[tools::PYTHON])
        .about("middleware and framework integrations, with test clients and real servers"),
    Step::new("node", Work::Long(node::test))
        .needs(&[tools::PYTHON, tools::CURL, tools::CC])
        .about("the package for Node.js: vectors, types, Express, Fastify, cluster, other languages"),
    Step::new("python-limits", Work::Long(python::test_limits))
        .needs(&[tools::PYTHON])
        .full_when_named()
        .about("the storages for the package limits pass the tests of that project that apply"),
];

/// The test files of the service, without those that the suite `unit` runs.
const SERVICE: &[TestFiles] = &[(
    "keytally-server",
    "contract routes settle proxy monitoring units containers description startup lifecycle listeners guesses attacks book",
)];

/// The test files of fleets.
const FLEET: &[TestFiles] = &[
    ("keytally-fleet-plan", "*"),
    ("keytally-fleet", "*"),
    ("keytally-server", "fleet fleet_processes fleet_example"),
];

/// The test files of fleets that start servers of Redis, in the short form and if the suite is
/// named.
const WITH_SERVERS: [&[TestFiles]; 2] = [
    &[("keytally-fleet-plan", "script"), ("keytally-server", "fleet_processes fleet_example")],
    &[
        ("keytally-fleet-plan", "script"),
        ("keytally-fleet", "agent"),
        ("keytally-server", "fleet fleet_processes fleet_example"),
    ],
];

/// Runs the tests of fleets with Valkey for Redis.
fn valkey(form: Form) -> Result<String> {
    let is_named = form >= Form::Named;
    let mut variables = node::workers()?;
    variables.push(("KEYTALLY_TEST_REDIS", tools::valkey()?));
    targets::run_files(WITH_SERVERS[usize::from(is_named)], variables, is_named)
}

/// The test files of the list of keys.
const KEYS: &[TestFiles] = &[("keytally-keys", "*"), ("keytally-server", "keys")];

/// The test file of the suite `firmware`.
const FIRMWARE: TestFiles = ("keytally-audit", "firmware");

/// Returns the tools of the suite `firmware`.
fn bare_metal() -> Result<Variables> {
    let cargo = debian_rust::CARGO.path()?;
    Ok(vec![("KEYTALLY_TEST_BARE_CARGO", cargo), ("KEYTALLY_TEST_NODE", tools::node()?)])
}

/// Writes the tables of docs/EMBEDDED.md.
pub(crate) fn embedded() -> Result<String> {
    tools::require(&[bare_metal::TOOLS], false)?;
    let record = [("UPDATE_EXPECT", "1".into())];
    targets::run_files(&[FIRMWARE], [bare_metal()?, record.into()].concat(), true)
}

/// Returns the list of suites, one per line.
pub(crate) fn list() -> String {
    let width = SUITES.iter().map(|suite| suite.name.len()).max().unwrap_or(0);
    SUITES.iter().map(|suite| format!("{:width$}  {}\n", suite.name, suite.about)).collect()
}

/// Runs test files that compare with records, and lets them write the records.
pub(crate) fn record(package: &'static str, file: &'static str) -> Result<String> {
    targets::run_files(&[(package, file)], vec![("UPDATE_EXPECT", "1".into())], false)
}

/// Returns the test files that suites name.
fn named_files() -> Vec<TestFiles> {
    let named = SUITES.iter().filter_map(|suite| match suite.work {
        Work::Tests(files) => Some(files),
        _ => None,
    });
    named.flatten().copied().collect()
}

fn unit(form: Form) -> Result<String> {
    targets::run_others(&named_files(), form == Form::Full)
}

/// Returns the HTTP clients for the tests of the service.
fn clients() -> Result<Variables> {
    Ok(vec![
        ("KEYTALLY_TEST_CURL", tools::CURL[0].path()?),
        ("KEYTALLY_TEST_NODE", tools::node()?),
        ("KEYTALLY_TEST_PYTHON", tools::python()?),
        ("KEYTALLY_TEST_SCHEMATHESIS", tools::schemathesis()?),
    ])
}

/// Runs the examples in the documentation, and the Rust programs of `examples/`. Each program makes
/// requests until one is denied.
fn documentation_examples() -> Result<String> {
    let mut test = cargo();
    test.arg("test").args(PROFILE).args(["--workspace", "--no-fail-fast", "--doc"]);
    let tests = count_tests(&run(test)?)?;
    let folder = tempfile::tempdir()?;
    let names = ["--bin", "keytally", "--example", "gate", "--example", "no_std"];
    let built = targets::build_programs(WORKSPACES[0], &names)?;
    let start = |name: &str, arguments: &[&str]| {
        let mut program = Command::new(built.join(name));
        program.args(arguments).current_dir(&folder).env("KEYTALLY_PEPPER", "5a".repeat(32));
        run(program)
    };
    start("keytally", &["create", "api.gate", "--plan", "default=3/minute, 100/hour"])?;
    for output in [start("examples/gate", &[])?, start("examples/no_std", &[])?] {
        let count = |status: &str| output.lines().filter(|line| line.starts_with(status)).count();
        ensure!(
            count("200 ") >= 3 && count("429 ") == 1,
            "an example must admit at least 3 requests and deny 1, but it printed:\n{output}"
        );
    }
    Ok(tests)
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use super::*;

    #[test]
    fn suite_names_are_distinct_and_descriptions_are_one_line() {
        for (index, suite) in SUITES.iter().enumerate() {
            assert!(SUITES[..index].iter().all(|other| other.name != suite.name), "{}", suite.name);
            assert_eq!(suite.about.lines().count(), 1, "{}", suite.name);
        }
    }

    /// Cargo selects files of a workspace by name, so files of one name must be in one suite.
    #[test]
    fn each_test_file_is_in_exactly_one_suite() {
        let (files, named) = (targets::files().unwrap(), named_files());
        let mut suite_of = BTreeMap::new();
        for file in &files {
            let naming: Vec<_> =
                named.iter().filter(|named| targets::contains(&[**named], file)).collect();
            assert!(naming.len() <= 1, "more than one suite names {file:?}");
            let other = suite_of.entry((&file.build, &file.name)).or_insert(naming.clone());
            assert_eq!(*other, naming, "another suite has a {}.rs", file.name);
        }
        for (package, name) in named.iter().flat_map(|(p, names)| names.split(' ').map(|n| (*p, n)))
        {
            let exists = files.iter().any(|file| targets::contains(&[(package, name)], file));
            assert!(exists, "cargo lists no {name} of {package}");
        }
    }
}
