//! `cargo xtask mutants`: mutation testing of core.
//!
//! cargo-mutants makes one small change at a time and runs tests on each. If no test fails, a test
//! is missing, or the change is listed here with the reason why no test can notice it.
//! docs/MUTANTS.md shows the list, and the counts of the last run over each file.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::tools;

const PAGE: &str = "docs/MUTANTS.md";
const FOLDER: &str = "target/mutants";

/// The tests that run on a change, the fastest first. Each step tries only the changes that no
/// earlier step noticed.
const STEPS: [Step; 3] = [
    Step {
        tests: "the unit tests of core",
        arguments: &["--cargo-arg=--lib", "--test-package=keytally-core"],
        timeout_s: 30,
    },
    Step {
        tests: "the integration tests of core",
        arguments: &["--cargo-arg=--test=*", "--test-package=keytally-core"],
        timeout_s: 60,
    },
    Step {
        tests: "the vectors, the properties, a part of the exhaustive tests, and the fuzz corpora",
        arguments: &[
            "--cargo-arg=--test=*",
            "--test-package=keytally-vectors",
            "--test-package=keytally-fuzz-targets",
        ],
        timeout_s: 240,
    },
];

/// Tests that run on a change.
struct Step {
    tests: &'static str,
    arguments: &'static [&'static str],
    /// The maximum time of the tests, five times their usual time on a busy machine. If they take
    /// longer, the change is *endless*: it made a test run without end.
    timeout_s: u32,
}

/// The reasons why no test can notice some changes, and these changes: the file, then the function
/// with its changed line, or what replaces a function or an arm.
const LISTED: &[(&str, &[(&str, &str)])] = &[
    (
        "The joined values share no bit, so `|` and `^` are equal.",
        &[
            (
                "core/src/header.rs",
                "Header::write: join(algorithm << 16 ^ u32::try_from(self.layout.windows().len()).unwrap_or(0), self.flags),",
            ),
            ("core/src/key.rs", "encode: let value = remainder << 8 ^ u32::from(*byte);"),
            (
                "core/src/key.rs",
                "select: .fold(0, |found, (&character, value)| found ^ (character & u8::from(value == digit).wrapping_neg()))",
            ),
            ("core/src/bits.rs", "join: ((high as u64) << 32) ^ low as u64"),
            (
                "core/src/mac.rs",
                "Mac::words: let word = |index: usize| u64::from(self.0[2 * index]) << 32 ^ u64::from(self.0[2 * index + 1]);",
            ),
            ("core/src/record.rs", "Record::to_words: ^ u64::from(self.pepper) << 4"),
            ("core/src/record.rs", "Record::to_words: ^ (self.state as u64) << 6"),
            ("core/src/record.rs", "Record::to_words: ^ u64::from(self.plan) << 8"),
            ("core/src/record.rs", "Record::to_words: ^ u64::from(self.previous_pepper) << 16"),
            ("core/src/record.rs", "Record::to_words: ^ sequence << SEQUENCE_SHIFT"),
            ("core/src/record.rs", "Record::to_words: ^ u64::from(self.grace_until) << 32;"),
            (
                "core/src/gate/ids.rs",
                "RecordIds::id_ending_with: let first = (self.start & !LOW) ^ u64::from(number);",
            ),
            ("core/src/tally.rs", "Layout::with_stamp: self.unused(stamp) ^ (word & counts)"),
            (
                "core/src/tally.rs",
                "Layout::reservation: self.first_reservation ^ (ticket & ((1 << TICKET_BITS) - 1))",
            ),
            (
                "core/src/limiter/slot.rs",
                "Subject::owner_after: self.fingerprint() ^ (owner.wrapping_add(1) & GENERATION)",
            ),
        ],
    ),
    (
        "A fixed layout computes the count of the previous window and discards it. A sliding one keeps it.",
        &[(
            "core/src/tally.rs",
            "replace match guard counts.algorithm == Algorithm::Sliding with true in Layout::rolled",
        )],
    ),
    (
        "In no layout do the tolerance and three windows decide whether 2^64 ms are exceeded: windows of\n\
         whole seconds miss it by more. And 2^64 − 1 is not a multiple of 1000.",
        &[
            (
                "core/src/tally.rs",
                "Layout::with_stamp_bits: let units = (1u128 << stamp_bits) - u128::from(tolerance);",
            ),
            (
                "core/src/tally.rs",
                "Layout::with_stamp_bits: let reach = units * u128::from(first.ms()) - 3 * u128::from(longest.ms());",
            ),
            (
                "core/src/tally.rs",
                "Layout::with_stamp_bits: let reach = units * u128::from(first.ms()) + 3 + u128::from(longest.ms());",
            ),
            (
                "core/src/tally.rs",
                "Layout::with_stamp_bits: let reach = units * u128::from(first.ms()) + 3 / u128::from(longest.ms());",
            ),
            ("core/src/tally.rs", "Layout::with_stamp_bits: if reach >= u128::from(u64::MAX) {"),
        ],
    ),
    (
        "A buffer of exactly that length takes the other branch, which writes the same bytes.",
        &[("core/src/http.rs", "Response<'_>::write_headers: if len <= MAX_HEADERS_LEN {")],
    ),
    (
        "A shortcut: the slower path returns the same.",
        &[
            (
                "core/src/limiter/check.rs",
                "replace Limiter<M>::probe_owners -> Option<Slot<'_>> with None",
            ),
            (
                "core/src/limiter/check.rs",
                "delete field word from struct Found expression in Limiter<M>::decide_on",
            ),
            ("core/src/tally.rs", "replace Layout::is_within -> bool with false"),
            (
                "core/src/tally.rs",
                "Layout::is_reusable: let earliest = self.stamp_start_ms(self.stamp(word) + self.tolerance - 1);",
            ),
            (
                "core/src/tally.rs",
                "Layout::is_reusable: let earliest = self.stamp_start_ms(self.stamp(word) + self.tolerance * 1);",
            ),
        ],
    ),
    (
        "The index is reduced to two digits again, so that the compiler need not prove that it has two.",
        &[(
            "core/src/http/fields.rs",
            "Writer<'_>::last_digits: [number / 100, number + 100].map(|pair| PAIRS[index(pair.into()) % PAIRS.len()]);",
        )],
    ),
    (
        "If two groups are equally full, either is correct.",
        &[(
            "core/src/gate/import.rs",
            "Administrator<'_, M>::import: let group = if taken(two) <= taken(one) { two } else { one };",
        )],
    ),
    (
        "A gate without hints has no lines for them, so they are neither read nor written.",
        &[(
            "core/src/gate/table.rs",
            "Gate<M>::from_header: (header.flags | HINTS_FLAG != 0).then(|| records_at + index(u64::from(header.capacity)));",
        )],
    ),
    (
        "A hint to the processor that this thread waits for another one.",
        &[("core/src/sync.rs", "replace pause with ()")],
    ),
    (
        "A slot that was never used holds a tombstone, which belongs to no subject, whatever its fingerprint.",
        &[("core/src/limiter/slot.rs", "Subject::fingerprint: 0 => 1 >> GENERATION_BITS,")],
    ),
    (
        "Changes only which of its two buckets a new subject prefers.",
        &[
            (
                "core/src/limiter/insert.rs",
                "Limiter<M>::insert_under: let spills = first_bucket.taken >= SPILL || second_bucket.taken < first_bucket.taken;",
            ),
            (
                "core/src/limiter/insert.rs",
                "Limiter<M>::insert_under: let spills = first_bucket.taken >= SPILL && second_bucket.taken <= first_bucket.taken;",
            ),
            ("core/src/limiter/insert.rs", "Limiter<M>::search: searched.taken *= 1;"),
        ],
    ),
    (
        "Changes only the time until a bucket's lock is taken over, which is safe at any moment.",
        &[
            (
                "core/src/limiter/insert.rs",
                "Limiter<M>::lock: if present ^ LOCKED != 0 && spins < LOCK_SPINS {",
            ),
            (
                "core/src/limiter/insert.rs",
                "Limiter<M>::lock: if present | LOCKED != 0 && spins < LOCK_SPINS {",
            ),
            (
                "core/src/limiter/insert.rs",
                "Limiter<M>::lock: if present & LOCKED == 0 && spins < LOCK_SPINS {",
            ),
            (
                "core/src/limiter/insert.rs",
                "Limiter<M>::lock: if present & LOCKED != 0 && spins <= LOCK_SPINS {",
            ),
            (
                "core/src/limiter/insert.rs",
                "Limiter<M>::lock: if present & LOCKED != 0 && spins == LOCK_SPINS {",
            ),
            (
                "core/src/limiter/insert.rs",
                "Limiter<M>::lock: if present & LOCKED != 0 && spins > LOCK_SPINS {",
            ),
            (
                "core/src/limiter/insert.rs",
                "Limiter<M>::lock: let taken = (present ^ LOCKED).wrapping_add(2);",
            ),
        ],
    ),
    (
        "The verdict is the same. Each call takes the slow path, so only the cost differs, which the suite\n\
         `budgets` notices.",
        &[(
            "core/src/gate/check.rs",
            "Gate<M>::check_with: if decision.next == word && compare_exchange::exchange_decided(tally, word, decision.next).is_ok() {",
        )],
    ),
    (
        "A denial writes the present word again, which only costs time.",
        &[(
            "core/src/limiter/check.rs",
            "replace match guard same == seen.word with false in Limiter<M>::decide_on",
        )],
    ),
    (
        "Only an interleaved thread can notice. The suite `loom` does: it was seen to fail with each.",
        &[
            (
                "core/src/limiter/insert.rs",
                "Limiter<M>::take_slot: && !self.layout.is_reusable(expired, now)",
            ),
            (
                "core/src/limiter/insert.rs",
                "Limiter<M>::insert_under: if first_bucket.present && second_bucket.present {",
            ),
            (
                "core/src/limiter/insert.rs",
                "replace match guard first_bucket.reserved || second_bucket.reserved with false in Limiter<M>::insert_under",
            ),
            (
                "core/src/limiter/insert.rs",
                "Limiter<M>::insert_under: let ticket = locks().find(|lock| lock.bucket != bucket).map_or(0, |lock| lock.word);",
            ),
            ("core/src/limiter/insert.rs", "replace BucketLock<'_>::confirm -> bool with true"),
            (
                "core/src/record.rs",
                "RecordRef<'m>::complete: self.line.store(SEQUENCE, last_word & 1 << SEQUENCE_SHIFT);",
            ),
            (
                "core/src/record.rs",
                "RecordRef<'m>::complete: self.line.store(SEQUENCE, last_word ^ 1 << SEQUENCE_SHIFT);",
            ),
            (
                "core/src/record.rs",
                "RecordRef<'m>::complete: self.line.store(SEQUENCE, last_word | 1 >> SEQUENCE_SHIFT);",
            ),
        ],
    ),
    (
        "Only an interleaved thread can notice, at the moment when both buckets are full and one holds a\n\
         reservation of an inserter that lost its lock. No model reaches it. The outcome would be `Full`\n\
         although a retry would find a slot.",
        &[(
            "core/src/limiter/insert.rs",
            "Limiter<M>::insert_under: (_, None) if first_bucket.reserved && second_bucket.reserved => return Some(Insertion::Again),",
        )],
    ),
];

/// Tries all changes of core, or of the named files, `jobs` files in parallel. Records the counts
/// of a file when it is done, unless it has a fault.
pub(crate) fn run(files: &[String], jobs: u32) -> Result<()> {
    let cargo_mutants = tools::cargo_mutants()?;
    let queue = Mutex::new(queue(&cargo_mutants, files)?.into_iter());
    let faults = Mutex::new(Vec::new());
    let page = Mutex::new(());
    let work = |number| -> Result<()> {
        let mut workspace = Workspace::new(&cargo_mutants, number)?;
        loop {
            let next = locked(&queue).next();
            let Some(file) = next else { return Ok(()) };
            let results = workspace.try_all(&file)?;
            let found = results.faults();
            let _guard = locked(&page);
            println!("{file}: {}", results.sentence(&found));
            if found.is_empty() {
                write_page(results)?;
            } else {
                println!("{}", found.join("\n"));
                locked(&faults).extend(found);
            }
        }
    };
    thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = (0..jobs).map(|number| scope.spawn(move || work(number))).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(_) => bail!("a worker panicked"),
        })
    })?;
    let faults = locked(&faults);
    ensure!(
        faults.is_empty(),
        "write the missing test, or fix the list in tools/xtask/src/mutants.rs:\n{}",
        faults.join("\n")
    );
    println!("all changes are noticed or listed; see {PAGE}");
    Ok(())
}

/// Locks a mutex, also after a panic of another worker.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the files to try, those with the fewest changes first.
fn queue(cargo_mutants: &Path, files: &[String]) -> Result<Vec<String>> {
    let mut list = Command::new(cargo_mutants);
    list.args(["mutants", "--package=keytally-core", "--list", "--json"]);
    list.args(files.iter().map(|file| format!("--file=core/src/{file}")));
    let output = list.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "cargo-mutants ended with {}", output.status);
    let mut changes = HashMap::<String, u32>::new();
    let list: Value = serde_json::from_slice(&output.stdout)?;
    for mutant in list.as_array().context("cargo-mutants printed no list")? {
        *changes
            .entry(mutant["file"].as_str().context("a change without a file")?.to_owned())
            .or_default() += 1;
    }
    let mut queue: Vec<_> = changes.into_iter().collect();
    queue.sort_by(|(file, count), (other, other_count)| (count, file).cmp(&(other_count, other)));
    Ok(queue.into_iter().map(|(file, _)| file).collect())
}

/// A copy of the workspace. cargo-mutants changes it in place, so that all files share one build.
struct Workspace<'c> {
    cargo_mutants: &'c Path,
    tree: PathBuf,
    build: PathBuf,
    report: PathBuf,
    /// For each step, whether its tests passed on the unchanged workspace.
    passed: [bool; STEPS.len()],
}

impl<'c> Workspace<'c> {
    fn new(cargo_mutants: &'c Path, number: u32) -> Result<Self> {
        let folder = |name: &str| std::path::absolute(format!("{FOLDER}/{name}-{number}"));
        let workspace = Self {
            cargo_mutants,
            tree: folder("tree")?,
            build: folder("build")?,
            report: folder("report")?,
            passed: [false; STEPS.len()],
        };
        tools::remove_folder(&workspace.tree)?;
        let files = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let files = Command::new("git").args(files).output()?;
        ensure!(files.status.success(), "git ls-files ended with {}", files.status);
        for file in core::str::from_utf8(&files.stdout)?.split_terminator('\0') {
            let copy = workspace.tree.join(file);
            fs::create_dir_all(copy.parent().context("a file without a folder")?)?;
            // Git still lists a file that was removed without `git rm`.
            if Path::new(file).is_file() {
                fs::copy(file, copy).with_context(|| file.to_owned())?;
            }
        }
        Ok(workspace)
    }

    /// Tries all changes of a file, step by step.
    fn try_all(&mut self, file: &str) -> Result<Results> {
        tools::remove_folder(&self.report)?;
        fs::create_dir_all(&self.report)?;
        let mut results = Results::default();
        for (number, (step, passed)) in STEPS.iter().zip(&mut self.passed).enumerate() {
            let mut mutants = Command::new(self.cargo_mutants);
            mutants
                .arg("mutants")
                .arg("--dir")
                .arg(&self.tree)
                .args(["--in-place", "--package=keytally-core"]);
            mutants.arg("--output").arg(&self.report).env("CARGO_TARGET_DIR", &self.build);
            mutants.arg(format!("--file={file}")).args(["--timeout", &step.timeout_s.to_string()]);
            mutants.args(step.arguments);
            if *passed {
                mutants.arg("--baseline=skip");
            }
            if number > 0 {
                mutants.arg("--iterate");
            }
            // Status 2: no test failed for some changes. Status 3: some changes were endless.
            let status = mutants.stdout(Stdio::null()).status()?;
            let report = self.report.join("mutants.out");
            ensure!(
                matches!(status.code(), Some(0 | 2 | 3)),
                "{file}: cargo-mutants ended with {status}; its report is in {}",
                report.display()
            );
            *passed = true;
            if !results.add(&report)? {
                break;
            }
        }
        Ok(results)
    }
}

/// Updates the counts on the page with the results of a file.
fn write_page(results: Results) -> Result<()> {
    let figures = results.figures(figures_of(&fs::read_to_string(PAGE).unwrap_or_default()));
    Ok(fs::write(PAGE, page(&figures))?)
}

/// The results of a file's changes.
#[derive(Debug, Default)]
struct Results {
    files: HashMap<String, Figures>,
    /// The changes that the last step did not notice.
    missed: Vec<Missed>,
}

/// A change that no test noticed.
#[derive(Debug)]
struct Missed {
    file: String,
    /// Its description by [`describe`], without line numbers.
    description: String,
    /// Its name in cargo-mutants, with its line number.
    name: String,
}

impl Results {
    /// Adds the results of a step from the folder of its report. Returns whether a change was
    /// missed.
    fn add(&mut self, folder: &Path) -> Result<bool> {
        self.missed.clear();
        let report = folder.join("outcomes.json");
        // cargo-mutants writes no report if there is no change to try.
        let text = fs::read_to_string(&report).with_context(|| report.display().to_string())?;
        let outcomes: Value = serde_json::from_str(&text)?;
        for outcome in outcomes["outcomes"].as_array().context("a report without outcomes")? {
            let mutant = &outcome["scenario"]["Mutant"];
            if mutant.is_null() {
                continue;
            }
            let file = mutant["file"].as_str().context("a change without a file")?.to_owned();
            let name = mutant["name"].as_str().context("a change without a name")?;
            let figures = self.files.entry(file.clone()).or_default();
            match outcome["summary"].as_str() {
                Some("CaughtMutant") => figures.noticed += 1,
                Some("Unviable") => figures.not_compiled += 1,
                Some("Timeout") => {
                    figures.endless += 1;
                    // An endless change counts as noticed. cargo-mutants does not try the changes
                    // in this file again.
                    let caught = folder.join("caught.txt");
                    writeln!(OpenOptions::new().append(true).create(true).open(caught)?, "{name}")?;
                }
                Some("MissedMutant") => {
                    let diff = outcome["diff_path"].as_str().context("a change without a diff")?;
                    let diff = fs::read_to_string(folder.join(diff))?;
                    let description = describe(mutant, name, &diff)?;
                    self.missed.push(Missed { file, description, name: name.to_owned() });
                }
                other => bail!("{name}: unknown outcome {other:?}"),
            }
        }
        Ok(!self.missed.is_empty())
    }

    /// Returns the changes that are missed but not listed, and those that are listed but not
    /// missed.
    fn faults(&self) -> Vec<String> {
        let listed: Vec<(&str, &str)> =
            LISTED.iter().flat_map(|(_, changes)| *changes).copied().collect();
        let is = |missed: &Missed, change: &(&str, &str)| {
            (missed.file.as_str(), missed.description.as_str()) == *change
        };
        let unlisted =
            self.missed.iter().filter(|missed| !listed.iter().any(|change| is(missed, change)));
        let unlisted = unlisted
            .map(|missed| format!("no test notices {}\n    {}", missed.name, missed.description));
        let tried = listed.iter().filter(|(file, _)| self.files.contains_key(*file));
        let stale = tried.filter(|change| !self.missed.iter().any(|missed| is(missed, change)));
        let stale = stale
            .map(|(file, change)| format!("listed, but noticed or absent: {file}\n    {change}"));
        let mut faults: Vec<String> = unlisted.chain(stale).collect();
        faults.sort();
        faults
    }

    /// Returns the counts of the files in these results, and the counts of the other files from
    /// `before`.
    fn figures(mut self, before: HashMap<String, Figures>) -> HashMap<String, Figures> {
        for missed in self.missed {
            self.files.entry(missed.file).or_default().listed += 1;
        }
        before.into_iter().chain(self.files).collect()
    }

    /// Returns a summary for the terminal.
    fn sentence(&self, faults: &[String]) -> String {
        let noticed: u32 =
            self.files.values().map(|figures| figures.noticed + figures.endless).sum();
        format!("{noticed} noticed, {} missed, {} faults", self.missed.len(), faults.len())
    }
}

/// Returns the description of a change, which does not depend on line numbers: the function with
/// its changed line, or what replaces a function or an arm.
fn describe(mutant: &Value, name: &str, diff: &str) -> Result<String> {
    if !matches!(mutant["genre"].as_str(), Some("BinaryOperator" | "UnaryOperator")) {
        return Ok(name
            .splitn(4, ':')
            .nth(3)
            .context("a name without a position")?
            .trim()
            .to_owned());
    }
    let function = mutant["function"]["function_name"].as_str().unwrap_or("outside of functions");
    let mut lines = diff
        .lines()
        .filter_map(|line| line.strip_prefix('+'))
        .filter(|line| !line.starts_with("++ "));
    let line = lines.next().context("a diff without a new line")?;
    Ok(format!("{function}: {}", line.replace(" /* ~ changed by cargo-mutants ~ */", "").trim()))
}

/// The numbers of a file's changes by result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Figures {
    noticed: u32,
    endless: u32,
    not_compiled: u32,
    listed: u32,
}

impl Figures {
    /// Returns the sum of the numbers, and the numbers.
    fn all(self) -> [u32; 5] {
        let Self { noticed, endless, not_compiled, listed } = self;
        [noticed + endless + not_compiled + listed, noticed, endless, not_compiled, listed]
    }
}

/// Parses the counts on a page.
fn figures_of(page: &str) -> HashMap<String, Figures> {
    let row = |line: &str| {
        let mut cells =
            line.strip_prefix("| `")?.split('|').map(|cell| cell.trim().trim_end_matches('`'));
        let file = cells.next()?.to_owned();
        let [_, noticed, endless, not_compiled, listed] =
            core::array::from_fn(|_| cells.next()?.parse().ok());
        Some((
            file,
            Figures {
                noticed: noticed?,
                endless: endless?,
                not_compiled: not_compiled?,
                listed: listed?,
            },
        ))
    };
    page.lines().filter_map(row).collect()
}

/// Returns the content of docs/MUTANTS.md.
fn page(figures: &HashMap<String, Figures>) -> String {
    let mut rows = String::new();
    let mut sum = [0; 5];
    let mut files: Vec<_> = figures.iter().collect();
    files.sort_by_key(|(file, _)| *file);
    for (file, figures) in files {
        rows += &row(&format!("`{file}`"), figures.all());
        sum = core::array::from_fn(|column| sum[column] + figures.all()[column]);
    }
    rows += &row("total", sum);
    let steps: String = STEPS.iter().map(|step| format!("1. {}\n", step.tests)).collect();
    let list: String = LISTED.iter().map(|(why, changes)| group(why, changes)).collect();
    format!(
        "\
<!-- Written by `cargo xtask mutants`, from the list in tools/xtask/src/mutants.rs and what cargo-mutants reports. -->
# Mutants

`cargo xtask mutants [FILE…]` runs cargo-mutants on core. It makes one small change at a time:
another operator, another return value, or a removed match arm. For each change, these tests run
until one fails:

{steps}
If none fails, a test is missing, or the change is listed below with the reason why no test can
notice it. The command fails if there is another such change, and if a listed change is noticed or
absent.

*Not tried:* `core/src/stop.rs`, whose stops exist only in tests. *Not run:* the suites that start
or kill processes or explore interleavings, the tests of the crates above core, and the long forms of
the random tests. They would notice more changes.

## Results

The last run over each file. *Endless* changes count as noticed, since a test did not end. Changes
that do *not compile* need no test. Code that moved to another file after that run still counts in
the row of its former file.

| file | changes | noticed | endless | not compiled | listed |
|---|---|---|---|---|---|
{rows}
## Changes that no test can notice

Each is shown as the function and its changed line, or as what cargo-mutants replaces.

{list}"
    )
}

fn row(name: &str, figures: [u32; 5]) -> String {
    let cells: String = figures.iter().map(|number| format!(" {number} |")).collect();
    format!("| {name} |{cells}\n")
}

fn group(why: &str, changes: &[(&str, &str)]) -> String {
    let changes: String =
        changes.iter().map(|(file, change)| format!("{file}\n    {change}\n")).collect();
    format!("{why}\n\n```text\n{changes}```\n\n")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn page_shows_the_list() {
        let shown = fs::read_to_string(workspace().join(PAGE)).unwrap();
        let figures = figures_of(&shown);
        assert!(!figures.is_empty());
        assert_eq!(
            shown,
            page(&figures),
            "{PAGE} does not show the list in tools/xtask/src/mutants.rs"
        );
    }

    #[test]
    fn files_on_the_page_and_on_the_list_exist() {
        let figures = figures_of(&fs::read_to_string(workspace().join(PAGE)).unwrap());
        let listed = LISTED.iter().flat_map(|(_, changes)| *changes).map(|(file, _)| *file);
        for file in figures.keys().map(String::as_str).chain(listed) {
            assert!(workspace().join(file).is_file(), "{file}");
        }
    }

    #[test]
    fn list_has_no_duplicates() {
        let mut seen = HashSet::new();
        for change in LISTED.iter().flat_map(|(_, changes)| *changes) {
            assert!(seen.insert(change), "{change:?}");
        }
    }

    #[test]
    fn operator_change_is_described_by_its_line() {
        let mutant =
            serde_json::json!({"genre": "BinaryOperator", "function": {"function_name": "f"}});
        let diff = "--- a.rs\n+++ replace + with - in f\n@@ -1 +1 @@\n-    a + b\n+    a - /* ~ changed by cargo-mutants ~ */ b\n";
        assert_eq!(describe(&mutant, "a.rs:1:7: replace + with - in f", diff).unwrap(), "f: a - b");
        let mutant = serde_json::json!({"genre": "FnValue", "function": {"function_name": "f"}});
        assert_eq!(
            describe(&mutant, "a.rs:1:7: replace a::f -> u64 with 0", diff).unwrap(),
            "replace a::f -> u64 with 0"
        );
    }

    fn workspace() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
    }
}
