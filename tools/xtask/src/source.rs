//! Splits Rust source into words, without comments. A string literal is one word, so a search for
//! words finds only code.

use core::str::FromStr as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use proc_macro2::{TokenStream, TokenTree};

/// A word of source: an identifier, a punctuation mark, a literal or a bracket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Word {
    /// Its text.
    pub(crate) text: String,
    /// Its line number, from 1.
    pub(crate) line: usize,
}

/// The beginnings of the conditions of items that are for tests only. The last is for model
/// checkers.
const TEST_CONDITIONS: [&str; 3] = ["cfg(test)", "cfg(all(test,", "cfg(any(loom,shuttle))"];

/// Whether the words of items that are for tests only are included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TestItems {
    Include,
    Skip,
}

/// Returns all Rust files in a folder and its subfolders, except those with the name `target`.
pub(crate) fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

/// Returns the words of a source text.
pub(crate) fn words(source: &str, test_items: TestItems) -> Result<Vec<Word>> {
    let stream = TokenStream::from_str(source)
        .map_err(|error| anyhow!("not Rust, on line {}: {error}", error.span().start().line))?;
    let mut words = Vec::new();
    add(stream, test_items, &mut words);
    Ok(words)
}

/// Returns the lines on which `pattern` occurs, which is a sequence of words separated by spaces.
pub(crate) fn lines_of(words: &[Word], pattern: &str) -> Vec<usize> {
    let pattern: Vec<&str> = pattern.split(' ').collect();
    let matches =
        |window: &&[Word]| window.iter().map(|word| word.text.as_str()).eq(pattern.iter().copied());
    words.windows(pattern.len()).filter(matches).map(|window| window[0].line).collect()
}

/// Adds the words of a stream to `words`.
fn add(stream: TokenStream, test_items: TestItems, words: &mut Vec<Word>) {
    let mut tokens = stream.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let is_mark = matches!(&token, TokenTree::Punct(mark) if mark.as_char() == '#');
        if test_items == TestItems::Skip && is_mark && tokens.peek().is_some_and(is_cfg_test) {
            // The item ends with its block or, without one, with a semicolon.
            tokens.find(ends_item);
            continue;
        }
        let line = token.span().start().line;
        match token {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    proc_macro2::Delimiter::Brace => ("{", "}"),
                    proc_macro2::Delimiter::Bracket => ("[", "]"),
                    proc_macro2::Delimiter::Parenthesis => ("(", ")"),
                    proc_macro2::Delimiter::None => ("", ""),
                };
                words.push(Word { text: open.to_owned(), line });
                add(group.stream(), test_items, words);
                words.push(Word { text: close.to_owned(), line: group.span_close().start().line });
            }
            other => words.push(Word { text: other.to_string(), line }),
        }
    }
}

fn is_cfg_test(token: &TokenTree) -> bool {
    let TokenTree::Group(group) = token else { return false };
    let condition = group.stream().to_string().replace(' ', "");
    TEST_CONDITIONS.iter().any(|start| condition.starts_with(start))
}

fn ends_item(token: &TokenTree) -> bool {
    match token {
        TokenTree::Group(group) => group.delimiter() == proc_macro2::Delimiter::Brace,
        TokenTree::Punct(mark) => mark.as_char() == ';',
        TokenTree::Ident(_) | TokenTree::Literal(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r#"
        //! unsafe in a comment
        /// unsafe in documentation
        #![forbid(unsafe_code)]
        fn f() -> &'static str { "unsafe in a text" }
        fn g() { unsafe { h() } }
        fn i() { let a = std::time::Instant
            ::now(); }
        #[cfg(all(test, feature = "host"))]
        mod tests { fn j() { unsafe {} } }
        #[cfg(test)]
        extern crate std;
        fn k() { unsafe {} }
    "#;

    #[test]
    fn pattern_is_found_in_code_but_not_in_comments() {
        let words = words(SOURCE, TestItems::Include).unwrap();
        assert_eq!(lines_of(&words, "unsafe"), [6, 10, 13]);
        assert_eq!(lines_of(&words, "Instant : : now"), [7]);
        assert_eq!(lines_of(&words, "extern crate std"), [12]);
    }

    #[test]
    fn test_items_can_be_skipped() {
        let words = words(SOURCE, TestItems::Skip).unwrap();
        assert_eq!(lines_of(&words, "unsafe"), [6, 13]);
        assert!(lines_of(&words, "extern crate std").is_empty());
    }

    #[test]
    fn invalid_source_is_an_error() {
        assert!(words("fn f() {", TestItems::Include).is_err());
    }
}
