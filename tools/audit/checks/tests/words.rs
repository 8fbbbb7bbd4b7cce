//! Texts are spelled correctly and have no unwanted words, by the program typos. They have no
//! unwanted phrases ([`Phrases`]), and no comments and prose of more than 100 columns.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use std::env;
use std::fs;
use std::process::Command;

use regex_lite::Regex;

use crate::support::root;

/// The unwanted phrases. The file describes its own format.
const LIST: &str = "tools/phrases.txt";

/// Paths that contain these are not read: data, texts of others, generated texts, the list itself.
const SKIPPED: [&str; 7] = [
    LIST,
    "tools/fuzz/corpus/",
    ".json",
    ".lock",
    "LICENSE-",
    "benches/RESULTS.md",
    "tools/audit/timing/measured.md",
];

#[test]
fn texts_have_no_unwanted_phrase_and_no_long_line() {
    let phrases = Phrases::parse(&fs::read_to_string(root().join(LIST)).unwrap());
    let mut git = Command::new("git");
    git.args(["-c", "core.quotePath=false", "ls-files"]);
    git.args(["--cached", "--others", "--exclude-standard"]);
    let mut faults = Vec::new();
    for path in support::run(git.current_dir(root())).lines() {
        let file = root().join(path);
        if SKIPPED.iter().any(|skipped| path.contains(skipped)) || file.is_symlink() {
            continue;
        }
        // A file that is not UTF-8 is not a text. git also lists files that were deleted.
        if let Ok(text) = fs::read_to_string(file) {
            faults.extend(phrases.faults(path, &text));
            faults.extend(long_lines(path, &text));
        }
    }
    assert!(faults.is_empty(), "{LIST} has the unwanted phrases:\n{}", faults.join("\n"));
}

/// typos.toml has the words and the exceptions.
#[test]
fn words_are_spelled_correctly_and_wanted() {
    let typos = env::var_os("KEYTALLY_TEST_TYPOS").expect("`cargo xtask test words` sets this");
    let mut typos = Command::new(typos);
    support::run(typos.args(["--format", "brief", "--color", "never"]).current_dir(root()));
}

/// The content of the file [`LIST`].
#[derive(Debug)]
struct Phrases {
    /// The alternatives of allowed phrases, then those of unwanted ones. Only the latter are
    /// groups. The first alternative that matches decides, so an allowed phrase hides an unwanted
    /// one that it contains.
    pattern: Regex,
    /// The replacement of each unwanted phrase, in the order of the groups.
    instead: Vec<String>,
}

impl Phrases {
    fn parse(list: &str) -> Self {
        let (mut allowed, mut unwanted, mut instead) = (Vec::new(), Vec::new(), Vec::new());
        for (number, line) in (1..).zip(list.lines()) {
            if line.is_empty() || line.starts_with('#') {
            } else if let Some(pattern) = line.strip_prefix("allow ") {
                allowed.push(pattern.replace('(', "(?:"));
            } else if let Some((pattern, replacement)) = line.split_once(": ") {
                unwanted.push(format!("({})", pattern.replace('(', "(?:")));
                instead.push(replacement.to_owned());
            } else {
                panic!("{LIST}:{number}: neither `PATTERN: INSTEAD` nor `allow PATTERN`");
            }
        }
        let alternatives = [allowed, unwanted].concat().join("|").replace(' ', r"[\s\\/!*#]+");
        let pattern = Regex::new(&format!(r"(?i)\b(?:{alternatives})\b")).unwrap();
        Self { pattern, instead }
    }

    /// Returns a fault for each unwanted phrase in the text of a file.
    fn faults(&self, path: &str, text: &str) -> Vec<String> {
        let text = text.replace('_', " ").replace('’', "'");
        let mut faults = Vec::new();
        for found in self.pattern.captures_iter(&text) {
            let unwanted = (1..).zip(&self.instead);
            for (phrase, instead) in
                unwanted.filter_map(|(group, instead)| Some((found.get(group)?, instead)))
            {
                let line = text[..phrase.start()].matches('\n').count() + 1;
                let words = phrase.as_str().split_whitespace().collect::<Vec<_>>().join(" ");
                faults.push(format!("{path}:{line}: {words}: write {instead} instead"));
            }
        }
        faults
    }
}

/// The most characters in a line of a comment or of prose.
const MAX_WIDTH: usize = 100;

/// Returns a fault for each comment line and each line of prose that is too long. Rows of tables,
/// code, and `<!-- -->` of a page may be longer.
fn long_lines(path: &str, text: &str) -> Vec<String> {
    let (is_page, mut is_code) = (path.ends_with(".md"), false);
    let mut faults = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let begins = line.trim_start();
        let content = begins.trim_start_matches(['/', '!', '#', '*']).trim_start();
        is_code = if content.starts_with("```") { !is_code } else { is_code };
        is_code |= is_page && begins.starts_with("<!--");
        let is_comment = ["//", "# ", "* "].iter().any(|mark| begins.starts_with(mark));
        let is_prose = if is_page { !is_code } else { is_comment };
        if line.chars().count() > MAX_WIDTH && is_prose && !content.starts_with('|') {
            faults.push(format!("{path}:{number}: the line has more than {MAX_WIDTH} columns"));
        }
        is_code &= !(is_page && begins.ends_with("-->"));
    }
    faults
}

/// A list with invented words.
const PHRASES: &str = "# A comment.\n\nat zurks?|zorks zurk: W\nallow it zips by\nit zips: X\n\
                       \\w+k't: Y\n";

fn faults(text: &str) -> Vec<String> {
    Phrases::parse(PHRASES).faults("a.rs", text)
}

#[test]
fn unwanted_phrase_is_named_with_line_and_replacement() {
    assert_eq!(faults("fine\nAt zurk"), ["a.rs:2: At zurk: write W instead"]);
    assert_eq!(faults("a zork’t, zork't"), ["a.rs:1: zork't: write Y instead"; 2]);
    assert!(faults("at, zurk; bat zurk at zurky").is_empty());
}

#[test]
fn phrase_is_found_over_lines_and_in_identifiers() {
    assert_eq!(faults("/// waits at\n    /// zurk").len(), 1);
    assert_eq!(faults("\"at \\\n  zurk\", fn waits_at_zurks()").len(), 2);
}

#[test]
fn allowed_phrase_hides_an_unwanted_one() {
    assert_eq!(faults("it zips by, it zips"), ["a.rs:1: it zips: write X instead"]);
}

#[test]
fn long_lines_of_comments_and_prose_are_named() {
    let long = "word ".repeat(21);
    let fault = |path| [format!("{path}:2: the line has more than 100 columns")];
    assert_eq!(long_lines("a.rs", &format!("\n    /// {long}")), fault("a.rs"));
    assert_eq!(long_lines("a.py", &format!("\n# {long}")), fault("a.py"));
    assert_eq!(long_lines("a.md", &format!("\n{long}")), fault("a.md"));
    assert!(long_lines("a.rs", &format!("{long}\n//! | {long} |")).is_empty());
    let page = format!("| {long} |\n```\n{long}\n```\n<!-- plot\n{long}\n-->");
    assert!(long_lines("a.md", &page).is_empty());
    assert_eq!(long_lines("a.md", &format!("{page}\n{long}")).len(), 1);
}
