//! The suite `budgets`: no hot path takes more instructions than its recorded budget. Unlike times,
//! counts of instructions are repeatable.
//!
//! The paths are those of `benches/src/counted.rs`, and valgrind counts their instructions. Two
//! kinds that differ between processors are left out: the C library's copying of bytes, and
//! SHA-256's compression, for which some processors have instructions. valgrind's emulated
//! processor has few features by which a program could choose another path.

use core::fmt::Write as _;
use std::collections::HashMap;
use std::fs;
use std::panic::resume_unwind;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::command::{self, cargo};
use crate::tools::{self, Found};

const FILE: &str = "benches/budgets.txt";
const PROGRAM: &str = "target/release/keytally-counted";
/// The number of calls by which two runs of a path differ. Their difference leaves out the start of
/// the program.
const CALLS: u64 = 2000;
/// The tolerance above a budget: thousandths of the budget, plus a number of instructions.
const SAME_COMPILER: (u64, u64) = (10, 2);
/// The tolerance if the budget is of another compiler.
const OTHER_COMPILER: (u64, u64) = (250, 10);

/// Checks that each path is within its budget.
pub(crate) fn check(found: &[Found]) -> Result<String> {
    let recorded = Budgets::parse(&fs::read_to_string(FILE)?)
        .with_context(|| format!("cannot read {FILE}"))?;
    let present = Budgets::count(tools::VALGRIND.among(found)?)?;
    compare(&recorded, &present)
}

/// Records the present counts as budgets.
pub(crate) fn record() -> Result<()> {
    let valgrind = tools::VALGRIND.path()?;
    let present = Budgets::count(&valgrind)?;
    fs::write(FILE, present.text())?;
    print!("{}", present.text());
    Ok(())
}

/// Returns the cache lines that a check of a limiter and of a gate reads from memory.
///
/// valgrind models a processor whose caches hold almost nothing of the tables.
pub(crate) fn lines() -> Result<[f64; 2]> {
    let valgrind = tools::VALGRIND.path()?;
    build()?;
    let [limiter, gate, texts] =
        ["limiter-lines", "gate-lines", "text-lines"].map(|path| -> Result<f64> {
            let missed = |calls| missed_lines(&profile(&valgrind, path, calls, CACHES)?);
            let [few, more] = both([1000, 1000 + 5 * CALLS], missed)?;
            Ok((more - few) as f64 / (5 * CALLS) as f64)
        });
    Ok([limiter?, gate? - texts?])
}

/// First-level caches, and a last level that holds the program and a sixteenth of a table.
const CACHES: &[&str] =
    &["--cache-sim=yes", "--I1=32768,8,64", "--D1=8192,8,64", "--LL=65536,16,64"];

/// Returns the cache lines of data that a whole run read from memory.
fn missed_lines(profile: &str) -> Result<i64> {
    let line = |name: &str| {
        let found = profile.lines().find_map(|line| line.strip_prefix(name));
        found.with_context(|| format!("callgrind's output has no {name}"))
    };
    let figures = line("events: ")?.split(' ').zip(line("summary: ")?.split(' '));
    let missed = figures.filter(|(event, _)| ["DLmr", "DLmw"].contains(event));
    let counts = missed.map(|(_, count)| count.parse()).collect::<Result<Vec<i64>, _>>()?;
    ensure!(counts.len() == 2, "callgrind did not model the caches");
    Ok(counts.iter().sum())
}

fn build() -> Result<()> {
    let mut build = cargo();
    build.args([
        "build",
        "--release",
        "--package",
        "keytally-benches",
        "--bin",
        "keytally-counted",
    ]);
    command::run(build).map(drop)
}

/// The counts, and the compiler and architecture that they depend on.
#[derive(Debug, PartialEq, Eq)]
struct Budgets {
    compiler: String,
    architecture: String,
    paths: Vec<Counted>,
}

/// A path of the program with its count.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Counted {
    path: String,
    /// The instructions of one call.
    instructions: u64,
    /// A description of the call.
    about: String,
}

impl Budgets {
    fn count(valgrind: &Path) -> Result<Self> {
        build()?;
        let mut paths = Vec::new();
        for line in command::run(Command::new(PROGRAM))?.lines() {
            let (path, about) =
                line.split_once('\t').with_context(|| format!("not a path: {line}"))?;
            let count = |calls| instructions(valgrind, path, calls);
            let [few, more] = both([1000, 1000 + CALLS], count)?;
            let instructions =
                more.checked_sub(few).context("more calls took fewer instructions")? / CALLS;
            ensure!(
                instructions > 0,
                "{path} took no instruction: it was not called, or is not in {PROGRAM}"
            );
            paths.push(Counted { path: path.to_owned(), instructions, about: about.to_owned() });
        }
        ensure!(!paths.is_empty(), "{PROGRAM} names no path");
        let architecture = std::env::consts::ARCH.to_owned();
        Ok(Self { compiler: tools::compiler()?, architecture, paths })
    }

    fn text(&self) -> String {
        let mut text = format!(
            "# Instructions of each path. Written by `cargo xtask bench --budgets`, compared by the suite `budgets`.\n\
             compiler: {}\narchitecture: {}\n",
            self.compiler, self.architecture
        );
        for Counted { path, instructions, about } in &self.paths {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{path:<16}{instructions:>6}  {about}");
        }
        text
    }

    fn parse(text: &str) -> Result<Self> {
        let value = |name: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            found.map(str::to_owned).with_context(|| format!("there is no line {name}"))
        };
        let mut paths = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.split_whitespace();
            let (Some(path), Some(count)) = (words.next(), words.next()) else {
                bail!("not a budget: {line}")
            };
            if path.ends_with(':') {
                continue;
            }
            let instructions = count.parse().with_context(|| format!("not a number: {line}"))?;
            let about = words.collect::<Vec<_>>().join(" ");
            paths.push(Counted { path: path.to_owned(), instructions, about });
        }
        Ok(Self { compiler: value("compiler")?, architecture: value("architecture")?, paths })
    }
}

fn compare(recorded: &Budgets, present: &Budgets) -> Result<String> {
    if recorded.architecture != present.architecture {
        return Ok(format!("not compared: {FILE} is for {}", recorded.architecture));
    }
    let same = recorded.compiler == present.compiler;
    let (permille, more) = if same { SAME_COMPILER } else { OTHER_COMPILER };
    let mut faults = String::new();
    let mut saved = Vec::new();
    for Counted { path, instructions, about } in &present.paths {
        let Some(budget) = recorded.paths.iter().find(|budget| budget.path == *path) else {
            bail!("{FILE} has no budget for {path}: `cargo xtask bench --budgets` writes it");
        };
        let allowed = budget.instructions + budget.instructions * permille / 1000 + more;
        if *instructions > allowed {
            let _ = writeln!(
                faults,
                "{path} takes {instructions} instructions; its budget is {} ({about})",
                budget.instructions
            );
        } else if same && instructions + instructions * permille / 1000 + more < budget.instructions
        {
            saved.push(path.as_str());
        }
    }
    for Counted { path, .. } in &recorded.paths {
        ensure!(
            present.paths.iter().any(|counted| counted.path == *path),
            "{FILE} has a budget for {path}, but there is no such path"
        );
    }
    ensure!(
        faults.is_empty(),
        "{faults}If the change is worth this cost, `cargo xtask bench --budgets` records it."
    );
    let note = match (same, &saved[..]) {
        (false, _) => format!(", with a wide tolerance: the budgets are of {}", recorded.compiler),
        (true, []) => String::new(),
        (true, saved) => format!("; {} take less: record them", saved.join(", ")),
    };
    Ok(format!("{} paths{note}", present.paths.len()))
}

/// Counts two runs with these numbers of calls, in parallel.
fn both<T: Send>(calls: [u64; 2], count: impl Fn(u64) -> Result<T> + Sync) -> Result<[T; 2]> {
    let count = &count;
    std::thread::scope(|scope| {
        let [few, more] = calls.map(|calls| scope.spawn(move || count(calls)));
        let [few, more] =
            [few, more].map(|run| run.join().unwrap_or_else(|panic| resume_unwind(panic)));
        Ok([few?, more?])
    })
}

/// Returns the program's own instructions in a whole run.
fn instructions(valgrind: &Path, path: &str, calls: u64) -> Result<u64> {
    own_instructions(&profile(valgrind, path, calls, &[])?)
}

/// Runs a path under callgrind. Returns its output.
fn profile(valgrind: &Path, path: &str, calls: u64, options: &[&str]) -> Result<String> {
    let out = tempfile::NamedTempFile::new()?;
    let mut count = Command::new(valgrind);
    count.args(["--tool=callgrind", &format!("--callgrind-out-file={}", out.path().display())]);
    count.args(options).args([PROGRAM, path, &calls.to_string()]);
    // The environment must not change the instructions before the path.
    count.env_clear();
    command::run(count)?;
    Ok(fs::read_to_string(out.path())?)
}

/// A line of callgrind's output.
struct Cost<'p> {
    object: &'p str,
    function: &'p str,
    /// The source file, also of inlined code.
    file: &'p str,
    instructions: u64,
}

impl Cost<'_> {
    /// Returns whether these instructions are the program's own, and not SHA-256's compression.
    fn is_own(&self) -> bool {
        let compression = self.function.contains("sha256") && self.function.contains("compress");
        self.object.ends_with(PROGRAM) && !compression
    }
}

/// Parses the costs in callgrind's output.
fn costs(profile: &str) -> Result<Vec<Cost<'_>>> {
    let mut names: HashMap<(&str, &str), &str> = HashMap::new();
    let (mut object, mut function, mut file) = ("", "", "");
    let (mut costs, mut inclusive) = (Vec::new(), false);
    for line in profile.lines() {
        if let Some((key, value)) = line.split_once('=') {
            // callgrind writes a name once with a number, and then only the number.
            let space = match key {
                "ob" | "cob" => "ob",
                "fn" | "cfn" => "fn",
                "fl" | "fi" | "fe" | "cfl" | "cfi" => "fl",
                _ => "",
            };
            let name = match value.split_once(' ') {
                Some((number, name)) if number.starts_with('(') => {
                    names.insert((space, number), name);
                    name
                }
                _ => names.get(&(space, value)).copied().unwrap_or(value),
            };
            match key {
                "ob" => object = name,
                "fn" => function = name,
                "fl" | "fi" | "fe" => file = name,
                "calls" => inclusive = true,
                _ => {}
            }
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let cost = line.split(' ').next_back().unwrap_or_default();
            let instructions = cost.parse().with_context(|| format!("not a cost: {line}"))?;
            // The line after a call has the inclusive cost of the called function, which other
            // lines repeat.
            if !core::mem::take(&mut inclusive) {
                costs.push(Cost { object, function, file, instructions });
            }
        }
    }
    Ok(costs)
}

/// Adds up the instructions of the program itself without SHA-256's compression.
fn own_instructions(profile: &str) -> Result<u64> {
    Ok(costs(profile)?.iter().filter(|cost| cost.is_own()).map(|cost| cost.instructions).sum())
}

/// The parts of a check, and the source files of each. A file belongs to the first part that
/// matches.
const PARTS: &[(&str, &[&str])] = &[
    ("the hash of the subject", &["siphasher"]),
    ("the key's text", &["core/src/key.rs"]),
    ("HMAC and the comparison, without the compressions", &["core/src/mac.rs", "subtle", "sha2"]),
    (
        "the slot or the record: found, read and exchanged",
        &[
            "core/src/limiter",
            "core/src/gate",
            "record.rs",
            "line.rs",
            "compare_exchange.rs",
            "sync.rs",
        ],
    ),
    (
        "the decision",
        &["decide.rs", "tally.rs", "counts.rs", "quota.rs", "policy.rs", "time.rs", "bits.rs"],
    ),
    ("the verdict", &["verdict.rs", "quotas.rs", "outcome.rs"]),
    ("the loop around it", &[""]),
];

/// Returns the instructions of a path: the sum, then each part.
pub(crate) fn parts(path: &str) -> Result<Vec<(&'static str, f64)>> {
    let valgrind = tools::VALGRIND.path()?;
    build()?;
    let count = |calls| parts_of(&profile(&valgrind, path, calls, &["--dump-instr=yes"])?);
    let [few, more] = both([1000, 1000 + CALLS], count)?;
    let each = |(few, more): (u64, u64)| more.saturating_sub(few) as f64 / CALLS as f64;
    let parts: Vec<_> =
        PARTS.iter().map(|(part, _)| *part).zip(few.into_iter().zip(more).map(each)).collect();
    let together = parts.iter().map(|(_, instructions)| instructions).sum();
    Ok([vec![("all of it", together)], parts].concat())
}

/// Returns the program's own instructions by part.
///
/// Code of the standard library belongs to the part that it was inlined into: the last one before
/// it in the order of the program.
fn parts_of(profile: &str) -> Result<Vec<u64>> {
    let (mut sums, mut part) = (vec![0; PARTS.len()], PARTS.len() - 1);
    for cost in costs(profile)?.iter().filter(|cost| cost.is_own()) {
        if !cost.file.contains("/library/") {
            let holds = |sources: &[&str]| sources.iter().any(|source| cost.file.contains(source));
            part = PARTS.iter().position(|(_, sources)| holds(sources)).unwrap_or(part);
        }
        sums[part] += cost.instructions;
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "\
version: 1
positions: line
events: Ir
summary: 999

ob=(1) /somewhere/target/release/keytally-counted
fl=(1) src/main.rs
fn=(1) main
3 5
cob=(2) /lib/libc.so.6
cfi=(2) ???
cfn=(2) memcpy
calls=3 0
4 70
+2 6
cfn=(3) sha2::sha256::soft::compress
calls=1 0
* 400

fn=(3)
7 400

ob=(2)
fl=(2)
fn=(2)
0 70

ob=(1)
fl=(1)
fn=(1)
-1 1
";

    #[test]
    fn profile_sum_leaves_out_processor_dependent_code() {
        assert_eq!(own_instructions(PROFILE).unwrap(), 12);
        assert!(own_instructions("fn=(1) main\n3 x\n").is_err());
        let other = PROFILE.replace("src/main.rs", "core/src/tally.rs");
        let decision = PARTS.iter().position(|(part, _)| *part == "the decision").unwrap();
        assert_eq!(parts_of(&other).unwrap()[decision], 12);
    }

    #[test]
    fn missed_lines_count_data_only() {
        let profile = "events: Ir Dr DLmr DLmw\nsummary: 1000 300 20 3\n";
        assert_eq!(missed_lines(profile).unwrap(), 23);
        assert!(missed_lines("events: Ir\nsummary: 1000\n").is_err());
    }

    fn budgets(compiler: &str, counts: &[(&str, u64)]) -> Budgets {
        let counted = |&(path, instructions): &(&str, u64)| Counted {
            path: path.to_owned(),
            instructions,
            about: "a call".to_owned(),
        };
        Budgets {
            compiler: compiler.to_owned(),
            architecture: "x86_64".to_owned(),
            paths: counts.iter().map(counted).collect(),
        }
    }

    #[test]
    fn parsed_text_gives_the_same_budgets() {
        let budgets = budgets("rustc 1.2.3 (x)", &[("gate", 900), ("decide", 40)]);
        assert_eq!(Budgets::parse(&budgets.text()).unwrap(), budgets);
        assert!(Budgets::parse("compiler: x\narchitecture: y\ngate many\n").is_err());
    }

    #[test]
    fn path_above_its_budget_is_an_error() {
        let recorded = budgets("rustc 1", &[("gate", 1000)]);
        assert_eq!(compare(&recorded, &budgets("rustc 1", &[("gate", 1012)])).unwrap(), "1 paths");
        let error =
            compare(&recorded, &budgets("rustc 1", &[("gate", 1013)])).unwrap_err().to_string();
        assert!(
            error.starts_with("gate takes 1013 instructions; its budget is 1000 (a call)"),
            "{error}"
        );
        let less = compare(&recorded, &budgets("rustc 1", &[("gate", 900)])).unwrap();
        assert_eq!(less, "1 paths; gate take less: record them");
    }

    #[test]
    fn other_compiler_widens_the_tolerance_other_cpu_skips() {
        let recorded = budgets("rustc 1", &[("gate", 1000)]);
        assert!(
            compare(&recorded, &budgets("rustc 2", &[("gate", 1260)]))
                .unwrap()
                .contains("wide tolerance")
        );
        assert!(compare(&recorded, &budgets("rustc 2", &[("gate", 1261)])).is_err());
        let other =
            Budgets { architecture: "aarch64".to_owned(), ..budgets("rustc 1", &[("gate", 9000)]) };
        assert!(compare(&recorded, &other).unwrap().contains("not compared"));
    }

    #[test]
    fn path_without_budget_or_budget_without_path_is_an_error() {
        let (one, two) =
            (budgets("rustc 1", &[("gate", 1)]), budgets("rustc 1", &[("gate", 1), ("new", 1)]));
        assert!(compare(&one, &two).unwrap_err().to_string().contains("no budget for new"));
        assert!(compare(&two, &one).unwrap_err().to_string().contains("no such path"));
    }
}
