//! The suite `words`: the program typos checks the spelling, [`List`] finds the words that this
//! project does not use, and [`long_lines`] finds comments and prose of more than 100 columns.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::command;
use crate::tools;

/// The unwanted words. The file describes its own format.
const LIST: &str = "tools/words.txt";

/// Checks all files.
///
/// # Errors
/// If there are faults. The error has a line `FILE:LINE: WORD: write X instead` for each unwanted
/// word, a line for each long line, and the report of typos.
pub(crate) fn check() -> Result<String> {
    let text = fs::read_to_string(LIST).with_context(|| format!("cannot read {LIST}"))?;
    let list = List::parse(&text)?;
    let mut faults = Vec::new();
    let mut checked = 0;
    for path in files()? {
        // A file that is not UTF-8 is not a text. git also lists files that were deleted.
        if let (false, Ok(text)) = (list.skips(&path), fs::read_to_string(&path)) {
            faults.extend(list.faults(&path, &text));
            faults.extend(long_lines(&path, &text));
            checked += 1;
        }
    }
    let mut typos = Command::new(tools::typos()?);
    typos.args(["--format", "brief", "--color", "never"]);
    if let Err(error) = command::run(typos) {
        faults.push(format!("{error:#}\ntypos.toml holds the exceptions from spelling"));
    }
    ensure!(
        faults.is_empty(),
        "{LIST} has the unwanted words and the exceptions; lines wrap at {MAX_WIDTH} columns:\n{}",
        faults.join("\n")
    );
    Ok(format!("{checked} files"))
}

/// Returns the files that git tracks, and new files that it does not ignore, without symbolic
/// links.
pub(crate) fn files() -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.args([
        "-c",
        "core.quotePath=false",
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    let files = command::run(git)?;
    Ok(files.lines().filter(|path| !Path::new(path).is_symlink()).map(str::to_owned).collect())
}

/// The most characters in a line of a comment or of prose.
const MAX_WIDTH: usize = 100;

/// Generated pages, whose lines are not wrapped.
const GENERATED: [&str; 2] = ["benches/RESULTS.md", "tools/audit/timing/measured.md"];

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
    if GENERATED.contains(&path) { Vec::new() } else { faults }
}

/// The content of the file [`LIST`].
#[derive(Debug, Default)]
struct List {
    /// Paths of files that are not checked. An entry `*X` means paths that end in X.
    skipped: Vec<String>,
    /// Each unwanted phrase with its replacement, by its first word.
    unwanted: HashMap<String, Vec<(Vec<String>, String)>>,
    /// Endings of unwanted words with their replacements.
    endings: Vec<(String, String)>,
    /// Each allowed phrase with the beginning of the paths in which it is allowed, by its first
    /// word.
    allowed: HashMap<String, Vec<(Vec<String>, String)>>,
}

impl List {
    fn parse(text: &str) -> Result<Self> {
        let mut list = Self::default();
        let phrase = |text: &str| -> Vec<String> {
            tokens(text, false).into_iter().map(|(word, _)| word).collect()
        };
        for (number, line) in (1..).zip(text.lines()) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(path) = line.strip_prefix("skip ") {
                list.skipped.push(path.to_owned());
            } else if let Some(rest) = line.strip_prefix("allow ") {
                let (words, path) = rest.split_once(" in ").unwrap_or((rest, ""));
                let words = phrase(words);
                list.allowed.entry(words[0].clone()).or_default().push((words, path.to_owned()));
            } else if let Some((words, instead)) = line.split_once(": ") {
                for word in words.split(" | ") {
                    if let Some(ending) = word.strip_prefix('*') {
                        list.endings.push((ending.to_owned(), instead.to_owned()));
                    } else {
                        let words = phrase(word);
                        list.unwanted
                            .entry(words[0].clone())
                            .or_default()
                            .push((words, instead.to_owned()));
                    }
                }
            } else {
                bail!(
                    "{LIST}:{number}: neither `WORD | WORD: INSTEAD`, `allow PHRASE` nor `skip PATH`"
                );
            }
        }
        Ok(list)
    }

    fn skips(&self, path: &str) -> bool {
        self.skipped.iter().any(|skipped| match skipped.strip_prefix('*') {
            Some(ending) => path.ends_with(ending),
            None => Path::new(path).starts_with(skipped),
        })
    }

    /// Returns a fault for each unwanted word or phrase in the text of a file.
    fn faults(&self, path: &str, text: &str) -> Vec<String> {
        let mut tokens = tokens(text, path.ends_with(".md"));
        for at in 0..tokens.len() {
            for (phrase, prefix) in self.allowed.get(&tokens[at].0).into_iter().flatten() {
                if path.starts_with(prefix.as_str()) && begins_with(&tokens[at..], phrase) {
                    tokens[at..at + phrase.len()].iter_mut().for_each(|(word, _)| word.clear());
                }
            }
        }
        let mut faults = Vec::new();
        for (at, (word, line)) in tokens.iter().enumerate() {
            let mut fault = |wrong: &str, instead| {
                faults.push(format!("{path}:{line}: {wrong}: write {instead} instead"));
            };
            for (phrase, instead) in self.unwanted.get(word).into_iter().flatten() {
                if begins_with(&tokens[at..], phrase) {
                    fault(&phrase.join(" "), instead);
                }
            }
            for (ending, instead) in &self.endings {
                if word.ends_with(ending.as_str()) {
                    fault(word, instead);
                }
            }
        }
        faults
    }
}

/// A word or a punctuation mark, in lower case, and its line, from 1.
type Token = (String, usize);

fn begins_with(tokens: &[Token], phrase: &[String]) -> bool {
    tokens.len() >= phrase.len()
        && tokens.iter().zip(phrase).all(|((word, _), wanted)| word == wanted)
}

/// Returns the words and punctuation marks of a text, optionally without quotations.
///
/// Identifiers are split at underscores and capitals. The marks that begin a line of a comment are
/// left out, so that a phrase is found if it continues in the next line.
fn tokens(text: &str, without_quotations: bool) -> Vec<Token> {
    let mut tokens = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line =
            line.trim_start_matches(|mark: char| mark.is_whitespace() || "/!*#".contains(mark));
        let line = line.trim_end_matches(['\\', ' ']);
        if line.is_empty() {
            tokens.push((String::new(), number));
        }
        let characters: Vec<char> = line.chars().collect();
        let mut word = String::new();
        let mut quoted = false;
        for (at, &character) in characters.iter().enumerate() {
            let before = at.checked_sub(1).map(|at| characters[at]);
            let after = characters.get(at + 1).copied();
            let is_in_word = |character: Option<char>| character.is_some_and(char::is_alphanumeric);
            let character = if character == '’' { '\'' } else { character };
            let continues = character.is_alphanumeric()
                || character == '\'' && is_in_word(before) && is_in_word(after);
            let is_capital = character.is_uppercase()
                && (before.is_some_and(char::is_lowercase)
                    || after.is_some_and(char::is_lowercase));
            if (is_capital || !continues) && !word.is_empty() {
                tokens.push((core::mem::take(&mut word), number));
            }
            quoted ^= without_quotations && character == '"' && line.matches('"').count() % 2 == 0;
            if quoted {
                continue;
            }
            if continues {
                word.extend(character.to_lowercase());
            } else if !character.is_whitespace() && character != '_' {
                tokens.push((character.to_string(), number));
            }
        }
        if !word.is_empty() {
            tokens.push((word, number));
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list with invented words.
    const WORDS: &str = "# A comment.\n\nskip data\nskip *.lock\nzork | at zurk: W\nit zips: X\n*k't: Y\n\
                         allow it zips by\nallow zork in b/c.rs\n";

    fn faults(path: &str, text: &str) -> Vec<String> {
        List::parse(WORDS).unwrap().faults(path, text)
    }

    #[test]
    fn unwanted_words_are_named_with_file_line_and_replacement() {
        assert_eq!(faults("a.rs", "fine\nZork waits"), ["a.rs:2: zork: write W instead"]);
        assert_eq!(
            faults("a.rs", "a zork't, b zork’t"),
            ["a.rs:1: zork't: write Y instead", "a.rs:1: zork't: write Y instead"]
        );
        assert!(faults("a.rs", "zorks for once").is_empty());
    }

    #[test]
    fn phrases_are_found_over_lines_and_in_identifiers() {
        assert_eq!(
            faults("a.rs", "/// waits at\n    /// zurk"),
            ["a.rs:1: at zurk: write W instead"]
        );
        assert_eq!(faults("a.rs", "\"at \\\n  zurk\""), ["a.rs:1: at zurk: write W instead"]);
        assert_eq!(
            faults("a.rs", "fn waits_at_zurk() -> AtZurk"),
            ["a.rs:1: at zurk: write W instead"; 2]
        );
        assert!(faults("a.rs", "at, zurk; at\n\nzurk").is_empty());
    }

    #[test]
    fn allowed_phrases_pass() {
        assert_eq!(faults("a.rs", "it zips by, it zips"), ["a.rs:1: it zips: write X instead"]);
        assert!(faults("b/c.rs", "zork").is_empty());
    }

    #[test]
    fn quotations_pass_in_markdown_only() {
        assert_eq!(faults("a.md", "\"zork\" is \"zork\", zork"), ["a.md:1: zork: write W instead"]);
        assert_eq!(faults("a.rs", "\"zork\"").len(), 1);
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

    #[test]
    fn files_are_skipped_by_folder_and_extension() {
        let list = List::parse(WORDS).unwrap();
        assert!(list.skips("data/a.md") && list.skips("a/Cargo.lock"));
        assert!(!list.skips("database/a.md"));
    }

    #[test]
    fn unknown_line_in_word_list_is_an_error() {
        assert_eq!(
            List::parse("zork").unwrap_err().to_string(),
            "tools/words.txt:1: neither `WORD | WORD: INSTEAD`, `allow PHRASE` nor `skip PATH`"
        );
    }
}
