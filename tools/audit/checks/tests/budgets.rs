//! No hot path takes more instructions than its budget in `benches/budgets.txt`. Unlike times,
//! counts of instructions are repeatable. `cargo xtask bench --budgets` records them.
//!
//! The paths are those of `benches/src/counted.rs` and `counted_host.rs`, and valgrind counts their
//! instructions. Two kinds that differ between processors are left out: the C library's copying of
//! bytes, and SHA-256's compression, for which some processors have instructions. Paths in cache
//! lines count what a check reads from memory, in valgrind's model of a processor.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use core::fmt::Write as _;
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

const FILE: &str = "benches/budgets.txt";
const PROGRAMS: [&str; 2] = ["keytally-counted", "keytally-counted-host"];
/// The numbers of calls in two runs of a path. Their difference leaves out the program's start.
const CALLS: [i64; 2] = [1000, 3000];
/// First-level caches, and a last level that holds the program and a sixteenth of a table.
const CACHES: [&str; 4] =
    ["--cache-sim=yes", "--I1=32768,8,64", "--D1=8192,8,64", "--LL=65536,16,64"];

#[test]
fn no_path_takes_more_instructions_than_its_budget() {
    let file = support::root().join(FILE);
    let recorded = fs::read_to_string(&file).unwrap();
    let compiler = recorded.lines().nth(1).unwrap().trim_start_matches("# ");
    let compiler = support::same_compiler(FILE, compiler);
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--release", "--package", "keytally-benches"]);
    support::run(build.args(PROGRAMS.iter().flat_map(|program| ["--bin", program])));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("release");
    let mut text = format!(
        "# Instructions: `cargo xtask bench --budgets` records the counts; the suite `budgets` \
         compares them.\n# {compiler}\n"
    );
    for program in PROGRAMS.map(|program| folder.join(program)) {
        for line in support::run(&mut Command::new(&program)).lines() {
            let (path, about) = line.split_once('\t').unwrap();
            let count = if about.ends_with("cache lines in 100 calls") {
                100 * difference(&program, path, &CACHES, &["DLmr", "DLmw"])
            } else {
                difference(&program, path, &[], &["Ir"])
            } / (CALLS[1] - CALLS[0]);
            assert!(count > 0, "{path} took no instruction");
            writeln!(text, "{path:<16}{count:>6}  {about}").unwrap();
        }
    }
    if env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(file, text).unwrap();
    } else {
        assert_eq!(faults(&recorded, &text), [""; 0], "`cargo xtask bench --budgets` records them");
    }
}

/// Counts two runs of a path under callgrind. Returns the difference of their events.
fn difference(program: &Path, path: &str, options: &[&str], events: &[&str]) -> i64 {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("callgrind.out");
    let [few, more] = CALLS.map(|calls| {
        let mut run = support::valgrind();
        run.args(["--tool=callgrind", "--compress-strings=no", "--compress-pos=no"]).args(options);
        run.arg(format!("--callgrind-out-file={}", out.display()));
        // The environment must not change the instructions before the path.
        support::run(run.arg(program).args([path, &calls.to_string()]).env_clear());
        own_events(&fs::read_to_string(&out).unwrap(), events)
    });
    more - few
}

/// Adds up events of the program itself in callgrind's output, without SHA-256's compression.
fn own_events(profile: &str, events: &[&str]) -> i64 {
    let (mut counted, mut object, mut function, mut sum) = (Vec::new(), "", "", 0);
    let mut lines = profile.lines();
    while let Some(line) = lines.next() {
        match line.split_once('=').or_else(|| line.split_once(": ")) {
            Some(("events", all)) => {
                counted = all.split(' ').map(|event| events.contains(&event)).collect();
            }
            Some(("ob", name)) => object = name,
            Some(("fn", name)) => function = name,
            // The next line has the costs of the called function, which other lines repeat.
            Some(("calls", _)) => drop(lines.next()),
            None if PROGRAMS.iter().any(|program| object.ends_with(program))
                && !(function.contains("sha256") && function.contains("compress")) =>
            {
                let costs = line.split(' ').skip(1).zip(&counted).filter(|(_, counted)| **counted);
                sum += costs.map(|(cost, _)| cost.parse::<i64>().unwrap()).sum::<i64>();
            }
            _ => {}
        }
    }
    sum
}

/// Compares counts with their budgets, with a tolerance of 1 % and two instructions.
fn faults(recorded: &str, present: &str) -> Vec<String> {
    let (recorded, present) = (budgets(recorded), budgets(present));
    let paths = |budgets: &[(&str, u64)]| budgets.iter().map(|it| it.0.to_owned()).collect();
    let [expected, found]: [Vec<String>; 2] = [&recorded, &present].map(|all| paths(all));
    assert_eq!(expected, found, "{FILE} on the left, paths of the programs on the right");
    let counts = recorded.into_iter().zip(present);
    let exceeding = counts.filter(|((_, budget), (_, count))| *count > budget + budget / 100 + 2);
    exceeding
        .map(|((path, budget), (_, count))| format!("{path} takes {count}; its budget is {budget}"))
        .collect()
}

/// Returns each path and its count.
fn budgets(text: &str) -> Vec<(&str, u64)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (path, rest) = line.split_once(' ').unwrap();
            (path, rest.trim_start().split(' ').next().unwrap().parse().unwrap())
        })
        .collect()
}

#[test]
fn own_events_leave_out_processor_dependent_code() {
    let profile = "events: Ir Dr\n\
        ob=/a b/target/keytally-counted\nfn=main\n3 5 1\n\
        cob=/lib/libc.so.6\ncfn=memcpy\ncalls=3 0\n4 70 9\n4 6 2\n\
        fn=sha2::sha256::soft::compress\n7 400 9\n\n\
        ob=/lib/libc.so.6\nfn=memcpy\n0 70 9\n\n\
        ob=/a b/target/keytally-counted\nfn=main\n1 1\ntotals: 482 21\n";
    assert_eq!(own_events(profile, &["Ir"]), 12);
    assert_eq!(own_events(profile, &["Dr"]), 3);
}

#[test]
fn path_above_its_budget_is_named() {
    let recorded = "# A comment.\ngate     1000  a call\n";
    assert!(faults(recorded, "gate     1012  a call\n").is_empty());
    let exceeding = faults(recorded, "gate     1013  a call\n");
    assert_eq!(exceeding, ["gate takes 1013; its budget is 1000"]);
}
