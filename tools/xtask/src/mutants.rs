//! `cargo xtask mutants`: changes core, one small thing at a time, and runs tests on each change. A change that no test
//! notices is a test that is missing, or is listed here with the reason why no test can notice it. docs/MUTANTS.md shows the
//! list, and the figures of the last run over each file.

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

/// The tests that judge a change, the quickest first. Each step has only what the ones before it let through.
const STEPS: [Step; 3] = [
    Step {
        tests: "the tests inside core",
        arguments: &["--cargo-arg=--lib", "--test-package=keytally-core"],
        timeout_s: 30,
    },
    Step {
        tests: "core's test files",
        arguments: &["--cargo-arg=--test=*", "--test-package=keytally-core"],
        timeout_s: 60,
    },
    Step {
        tests: "the vectors, the properties, a part of every state, and the inputs of the fuzzers",
        arguments: &[
            "--cargo-arg=--test=*",
            "--test-package=keytally-vectors",
            "--test-package=keytally-fuzz-targets",
        ],
        timeout_s: 240,
    },
];

struct Step {
    tests: &'static str,
    arguments: &'static [&'static str],
    /// What takes so long never ends: on a busy machine the tests of a step take a fifth of it.
    timeout_s: u32,
}

/// Why no test can notice some changes, and the changes: the file, the function, and its line as it would be, or what
/// would be in place of the whole function or arm.
const LISTED: &[(&str, &[(&str, &str)])] = &[
    (
        "What is joined shares no bit, so `|` and `^` are the same.",
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
            ("core/src/line.rs", "join: ((high as u64) << 32) ^ low as u64"),
            (
                "core/src/mac.rs",
                "Mac::words: let word = |place: usize| u64::from(self.0[2 * place]) << 32 ^ u64::from(self.0[2 * place + 1]);",
            ),
            ("core/src/record.rs", "Record::to_words: ^ u64::from(self.pepper) << 4"),
            ("core/src/record.rs", "Record::to_words: ^ (self.state as u64) << 6"),
            ("core/src/record.rs", "Record::to_words: ^ u64::from(self.plan) << 8"),
            ("core/src/record.rs", "Record::to_words: ^ u64::from(self.previous_pepper) << 16"),
            ("core/src/record.rs", "Record::to_words: ^ sequence << SEQUENCE_SHIFT"),
            ("core/src/record.rs", "Record::to_words: ^ u64::from(self.grace_until) << 32;"),
            (
                "core/src/gate/administrator.rs",
                "Cell::id_ending_with: let first = (self.start & !LOW) ^ u64::from(number);",
            ),
            ("core/src/tally.rs", "Layout::with_stamp: self.unused(stamp) ^ (word & counts)"),
            (
                "core/src/tally.rs",
                "Layout::claim_mark: self.first_mark ^ (token & ((1 << CLAIM_TOKEN_BITS) - 1))",
            ),
            ("core/src/limiter.rs", "Subject::tag_after: self.hash_bits() ^ (tag.wrapping_add(1) & HANDS)"),
        ],
    ),
    (
        "In a fixed layout the count of the window before is worked out for nothing: only a sliding one keeps it.",
        &[(
            "core/src/tally.rs",
            "replace match guard counts.algorithm == Algorithm::Sliding with true in Layout::rolled",
        )],
    ),
    (
        "No layout comes so near to 2^64 ms that the tolerance and three windows decide: a number of windows of whole seconds misses it by more. \
     And 2^64 − 1 is no multiple of 1000.",
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
        "A buffer of just that length takes the other way to the same bytes.",
        &[("core/src/http.rs", "Response<'_>::write_headers: if len <= MAX_HEADERS_LEN {")],
    ),
    (
        "A short cut: the longer way comes to the same.",
        &[
            ("core/src/limiter.rs", "replace Limiter<M>::glance -> Option<Slot<'_>> with None"),
            ("core/src/limiter.rs", "delete field word from struct Found expression in Limiter<M>::decide"),
            ("core/src/tally.rs", "replace Layout::is_within -> bool with false"),
            (
                "core/src/tally.rs",
                "Layout::reusable: let earliest = self.stamp_start_ms(self.stamp(word) + self.tolerance - 1);",
            ),
            (
                "core/src/tally.rs",
                "Layout::reusable: let earliest = self.stamp_start_ms(self.stamp(word) + self.tolerance * 1);",
            ),
        ],
    ),
    (
        "An index is cut to two digits once more, so that no compiler need prove that it is one.",
        &[(
            "core/src/http.rs",
            "Rest<'_>::last_digits: [number / 100, number + 100].map(|pair| PAIRS[index(pair.into()) % PAIRS.len()]);",
        )],
    ),
    (
        "Of two groups that are taken alike, either will do.",
        &[(
            "core/src/gate/administrator.rs",
            "Administrator<'_, M>::import: let group = if taken(two) <= taken(one) { two } else { one };",
        )],
    ),
    (
        "The lines of hints aren't there in a gate without them, and what isn't there is neither read nor written.",
        &[(
            "core/src/gate.rs",
            "Gate<M>::with: (header.flags | HINTS_FLAG != 0).then(|| records_at + index(u64::from(header.capacity)));",
        )],
    ),
    (
        "It only tells the processor that this thread waits for another one.",
        &[("core/src/sync.rs", "replace pause with ()")],
    ),
    (
        "A slot that nobody ever had holds a void tally, which is nobody's whatever its tag says.",
        &[("core/src/limiter.rs", "Subject::hash_bits: 0 => 1 >> HANDS_BITS,")],
    ),
    (
        "Only where a new subject is put: which of its buckets is preferred.",
        &[
            (
                "core/src/limiter.rs",
                "Limiter<M>::insert_under: let spills = first_sight.taken >= SPILL || second_sight.taken < first_sight.taken;",
            ),
            (
                "core/src/limiter.rs",
                "Limiter<M>::insert_under: let spills = first_sight.taken >= SPILL && second_sight.taken <= first_sight.taken;",
            ),
            ("core/src/limiter.rs", "Limiter<M>::look: sight.taken *= 1;"),
        ],
    ),
    (
        "Only how long a claim is waited for: taking it over is safe at any moment.",
        &[
            ("core/src/limiter.rs", "Limiter<M>::claim: if present ^ HELD != 0 && turns < CLAIM_SPINS {"),
            ("core/src/limiter.rs", "Limiter<M>::claim: if present | HELD != 0 && turns < CLAIM_SPINS {"),
            ("core/src/limiter.rs", "Limiter<M>::claim: if present & HELD == 0 && turns < CLAIM_SPINS {"),
            ("core/src/limiter.rs", "Limiter<M>::claim: if present & HELD != 0 && turns <= CLAIM_SPINS {"),
            ("core/src/limiter.rs", "Limiter<M>::claim: if present & HELD != 0 && turns == CLAIM_SPINS {"),
            ("core/src/limiter.rs", "Limiter<M>::claim: if present & HELD != 0 && turns > CLAIM_SPINS {"),
            ("core/src/limiter.rs", "Limiter<M>::claim: let taken = (present ^ HELD).wrapping_add(2);"),
        ],
    ),
    (
        "The answer is the same, but everybody takes the way of those who were disturbed. Only the time tells, and the suite \
         `budgets` notices.",
        &[(
            "core/src/gate.rs",
            "Gate<M>::answer: if decision.next == word && cell::swap(tally, word, decision.next).is_ok() {",
        )],
    ),
    (
        "A denial writes the word that is there already, which only costs time.",
        &[("core/src/limiter.rs", "replace match guard same == seen.word with false in Limiter<M>::decide")],
    ),
    (
        "Only a thread that comes in between can notice. The suite `loom` does: it was seen failing with each of these.",
        &[
            ("core/src/limiter.rs", "Limiter<M>::place: && !self.layout.reusable(expired, now)"),
            (
                "core/src/limiter.rs",
                "Limiter<M>::insert_under: if first_sight.present && second_sight.present {",
            ),
            (
                "core/src/limiter.rs",
                "replace match guard first_sight.marked || second_sight.marked with false in Limiter<M>::insert_under",
            ),
            (
                "core/src/limiter.rs",
                "Limiter<M>::insert_under: let token = claims().find(|claim| claim.bucket != bucket).map_or(0, |claim| claim.word);",
            ),
            ("core/src/limiter.rs", "replace Claim<'_>::confirm -> bool with true"),
            (
                "core/src/record.rs",
                "Place<'m>::complete: self.line.store(SEQUENCE, last_word & 1 << SEQUENCE_SHIFT);",
            ),
            (
                "core/src/record.rs",
                "Place<'m>::complete: self.line.store(SEQUENCE, last_word ^ 1 << SEQUENCE_SHIFT);",
            ),
            (
                "core/src/record.rs",
                "Place<'m>::complete: self.line.store(SEQUENCE, last_word | 1 >> SEQUENCE_SHIFT);",
            ),
        ],
    ),
    (
        "The same moment, when both buckets are full and in one of them the mark of an inserter that lost its claim is about to go. \
         No model gets there. The answer would be `Full`, a moment too early.",
        &[(
            "core/src/limiter.rs",
            "Limiter<M>::insert_under: (_, None) if first_sight.marked && second_sight.marked => return Some(Insertion::Again),",
        )],
    ),
];

/// Tries every change of core, or of those of its files that are named, so many files side by side. What a file came to is
/// written down at once, unless it has a fault.
pub(crate) fn run(files: &[String], jobs: u32) -> Result<()> {
    let cargo_mutants = tools::cargo_mutants()?;
    let queue = Mutex::new(queue(&cargo_mutants, files)?.into_iter());
    let faults = Mutex::new(Vec::new());
    let page = Mutex::new(());
    let work = |number| -> Result<()> {
        let mut place = Place::new(&cargo_mutants, number)?;
        loop {
            let next = locked(&queue).next();
            let Some(file) = next else { return Ok(()) };
            let results = place.try_all(&file)?;
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
        "write the test that is missing, or mend the list in tools/xtask/src/mutants.rs:\n{}",
        faults.join("\n")
    );
    println!("every change is noticed or listed: {PAGE}");
    Ok(())
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The files to try, those with the fewest changes first.
fn queue(cargo_mutants: &Path, files: &[String]) -> Result<Vec<String>> {
    let mut list = Command::new(cargo_mutants);
    list.args(["mutants", "--package=keytally-core", "--list", "--json"]);
    list.args(files.iter().map(|file| format!("--file=core/src/{file}")));
    let output = list.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "cargo-mutants ended with {}", output.status);
    let mut changes = HashMap::<String, u32>::new();
    let list: Value = serde_json::from_slice(&output.stdout)?;
    for mutant in list.as_array().context("a list that is none")? {
        *changes
            .entry(mutant["file"].as_str().context("a change without a file")?.to_owned())
            .or_default() += 1;
    }
    let mut queue: Vec<_> = changes.into_iter().collect();
    queue.sort_by(|(one, of_one), (two, of_two)| (of_one, one).cmp(&(of_two, two)));
    Ok(queue.into_iter().map(|(file, _)| file).collect())
}

/// A copy of the workspace that is changed in place, and built without beginning anew for each file.
struct Place<'c> {
    cargo_mutants: &'c Path,
    tree: PathBuf,
    build: PathBuf,
    report: PathBuf,
    /// Of each step, whether its tests were seen to pass on what nobody changed.
    passed: [bool; STEPS.len()],
}

impl<'c> Place<'c> {
    fn new(cargo_mutants: &'c Path, number: u32) -> Result<Self> {
        let folder = |name: &str| std::path::absolute(format!("{FOLDER}/{name}-{number}"));
        let place = Self {
            cargo_mutants,
            tree: folder("tree")?,
            build: folder("build")?,
            report: folder("report")?,
            passed: [false; STEPS.len()],
        };
        tools::remove_folder(&place.tree)?;
        let files = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let files = Command::new("git").args(files).output()?;
        ensure!(files.status.success(), "git ls-files ended with {}", files.status);
        for file in core::str::from_utf8(&files.stdout)?.split_terminator('\0') {
            let copy = place.tree.join(file);
            fs::create_dir_all(copy.parent().context("a file without a folder")?)?;
            // A file that was removed and not yet from git is none.
            if Path::new(file).is_file() {
                fs::copy(file, copy).with_context(|| file.to_owned())?;
            }
        }
        Ok(place)
    }

    /// Every change of a file, in steps.
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
            // 2: some were missed; 3: some never ended.
            let status = mutants.stdout(Stdio::null()).status()?;
            let report = self.report.join("mutants.out");
            ensure!(
                matches!(status.code(), Some(0 | 2 | 3)),
                "{file}: cargo-mutants ended with {status}: {} tells why",
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

fn write_page(results: Results) -> Result<()> {
    let figures = results.figures(figures_of(&fs::read_to_string(PAGE).unwrap_or_default()));
    Ok(fs::write(PAGE, page(&figures))?)
}

/// What became of each change, by its file and by what it is.
#[derive(Debug, Default)]
struct Results {
    files: HashMap<String, Figures>,
    /// Those that the last step let through.
    missed: Vec<Missed>,
}

/// A change that no test noticed.
#[derive(Debug)]
struct Missed {
    file: String,
    /// See [`what`].
    what: String,
    /// What cargo-mutants calls it, with its line.
    name: String,
}

impl Results {
    /// Takes in a step, from the folder of its report. Whether it let any change through.
    fn add(&mut self, folder: &Path) -> Result<bool> {
        self.missed.clear();
        let report = folder.join("outcomes.json");
        // Without any change to try there is no report.
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
                    // That it never ends is noticed too: the next step needs not wait for it again.
                    let caught = folder.join("caught.txt");
                    writeln!(OpenOptions::new().append(true).create(true).open(caught)?, "{name}")?;
                }
                Some("MissedMutant") => {
                    let diff = outcome["diff_path"].as_str().context("a change without a diff")?;
                    let diff = fs::read_to_string(folder.join(diff))?;
                    let what = what(mutant, name, &diff)?;
                    self.missed.push(Missed { file, what, name: name.to_owned() });
                }
                other => bail!("{name}: {other:?} is a new kind of outcome"),
            }
        }
        Ok(!self.missed.is_empty())
    }

    /// What is missed and not listed, and what is listed and not missed.
    fn faults(&self) -> Vec<String> {
        let listed: Vec<(&str, &str)> = LISTED.iter().flat_map(|(_, changes)| *changes).copied().collect();
        let is =
            |missed: &Missed, change: &(&str, &str)| (missed.file.as_str(), missed.what.as_str()) == *change;
        let unlisted = self.missed.iter().filter(|missed| !listed.iter().any(|change| is(missed, change)));
        let unlisted = unlisted.map(|missed| format!("no test notices {}\n    {}", missed.name, missed.what));
        let tried = listed.iter().filter(|(file, _)| self.files.contains_key(*file));
        let stale = tried.filter(|change| !self.missed.iter().any(|missed| is(missed, change)));
        let stale = stale.map(|(file, what)| format!("listed, and noticed now or gone: {file}\n    {what}"));
        let mut faults: Vec<String> = unlisted.chain(stale).collect();
        faults.sort();
        faults
    }

    /// The figures of the files that were tried, and of the others as they were.
    fn figures(mut self, before: HashMap<String, Figures>) -> HashMap<String, Figures> {
        for missed in self.missed {
            self.files.entry(missed.file).or_default().listed += 1;
        }
        before.into_iter().chain(self.files).collect()
    }

    /// What became of them, for who waits.
    fn sentence(&self, faults: &[String]) -> String {
        let noticed: u32 = self.files.values().map(|figures| figures.noticed + figures.endless).sum();
        format!("{noticed} noticed, {} not, {} faults", self.missed.len(), faults.len())
    }
}

/// What a change is, wherever its line stands now: the function and the line as it would be, or what would be in place of
/// the function or arm.
fn what(mutant: &Value, name: &str, diff: &str) -> Result<String> {
    if !matches!(mutant["genre"].as_str(), Some("BinaryOperator" | "UnaryOperator")) {
        return Ok(name.splitn(4, ':').nth(3).context("a name without a place")?.trim().to_owned());
    }
    let function = mutant["function"]["function_name"].as_str().unwrap_or("outside of functions");
    let mut lines =
        diff.lines().filter_map(|line| line.strip_prefix('+')).filter(|line| !line.starts_with("++ "));
    let line = lines.next().context("a diff without a new line")?;
    Ok(format!("{function}: {}", line.replace(" /* ~ changed by cargo-mutants ~ */", "").trim()))
}

/// How many changes of a file came to what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Figures {
    noticed: u32,
    endless: u32,
    not_compiled: u32,
    listed: u32,
}

impl Figures {
    fn all(self) -> [u32; 5] {
        let Self { noticed, endless, not_compiled, listed } = self;
        [noticed + endless + not_compiled + listed, noticed, endless, not_compiled, listed]
    }
}

/// The figures on a page.
fn figures_of(page: &str) -> HashMap<String, Figures> {
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(|cell| cell.trim().trim_end_matches('`'));
        let file = cells.next()?.to_owned();
        let [_, noticed, endless, not_compiled, listed] =
            core::array::from_fn(|_| cells.next()?.parse().ok());
        Some((
            file,
            Figures { noticed: noticed?, endless: endless?, not_compiled: not_compiled?, listed: listed? },
        ))
    };
    page.lines().filter_map(row).collect()
}

/// docs/MUTANTS.md.
fn page(figures: &HashMap<String, Figures>) -> String {
    let mut rows = String::new();
    let mut sum = [0; 5];
    let mut files: Vec<_> = figures.iter().collect();
    files.sort_by_key(|(file, _)| *file);
    for (file, figures) in files {
        rows += &row(&format!("`{file}`"), figures.all());
        sum = core::array::from_fn(|column| sum[column] + figures.all()[column]);
    }
    rows += &row("together", sum);
    let steps: String = STEPS.iter().map(|step| format!("1. {}\n", step.tests)).collect();
    let list: String = LISTED.iter().map(|(why, changes)| group(why, changes)).collect();
    format!(
        "\
<!-- Written by `cargo xtask mutants`, from the list in tools/xtask/src/mutants.rs and what cargo-mutants reports. -->
# Mutants

`cargo xtask mutants [FILE…]` lets cargo-mutants change core, one small thing at a time: another operator, another value in
place of a function's, an arm of a match less. For each change tests are run, the quickest first, until one fails:

{steps}
A change that none of them notices is a test that is missing, or stands on the list below with the reason why no test can notice
it. The command fails when there is another one, and when one that is listed is noticed or gone.

*Not tried:* `core/src/stop.rs`, whose stops nothing that ships has. *Not judged by:* the suites that start processes, explore
interleavings or kill, the tests of the crates above core, and the long forms of the random tests. They would notice more.

## Figures

Of the last run over each file. *Endless* changes were noticed since a test didn't end; those that *don't compile* say nothing.

| file | changes | noticed | endless | don't compile | listed |
|---|---|---|---|---|---|
{rows}
## What no test can notice

A line is shown as it would be, with its function.

{list}"
    )
}

fn row(name: &str, figures: [u32; 5]) -> String {
    let cells: String = figures.iter().map(|number| format!(" {number} |")).collect();
    format!("| {name} |{cells}\n")
}

fn group(why: &str, changes: &[(&str, &str)]) -> String {
    let changes: String = changes.iter().map(|(file, what)| format!("{file}\n    {what}\n")).collect();
    format!("{why}\n\n```text\n{changes}```\n\n")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn the_page_shows_the_list() {
        let shown = fs::read_to_string(workspace().join(PAGE)).unwrap();
        let figures = figures_of(&shown);
        assert!(!figures.is_empty());
        assert_eq!(shown, page(&figures), "`cargo xtask mutants` writes {PAGE} anew");
    }

    #[test]
    fn the_files_on_the_page_and_on_the_list_exist() {
        let figures = figures_of(&fs::read_to_string(workspace().join(PAGE)).unwrap());
        let listed = LISTED.iter().flat_map(|(_, changes)| *changes).map(|(file, _)| *file);
        for file in figures.keys().map(String::as_str).chain(listed) {
            assert!(workspace().join(file).is_file(), "{file}");
        }
    }

    #[test]
    fn nothing_is_listed_twice() {
        let mut seen = HashSet::new();
        for change in LISTED.iter().flat_map(|(_, changes)| *changes) {
            assert!(seen.insert(change), "{change:?}");
        }
    }

    #[test]
    fn a_change_is_known_by_its_line() {
        let mutant = serde_json::json!({"genre": "BinaryOperator", "function": {"function_name": "f"}});
        let diff = "--- a.rs\n+++ replace + with - in f\n@@ -1 +1 @@\n-    a + b\n+    a - /* ~ changed by cargo-mutants ~ */ b\n";
        assert_eq!(what(&mutant, "a.rs:1:7: replace + with - in f", diff).unwrap(), "f: a - b");
        let mutant = serde_json::json!({"genre": "FnValue", "function": {"function_name": "f"}});
        assert_eq!(
            what(&mutant, "a.rs:1:7: replace a::f -> u64 with 0", diff).unwrap(),
            "replace a::f -> u64 with 0"
        );
    }

    fn workspace() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
    }
}
