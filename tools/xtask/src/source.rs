//! Splits Rust source into words, without comments and tests. A string literal is one word, so a
//! search for words finds only code.

use core::str::FromStr as _;

use anyhow::{Result, anyhow};
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

/// Returns the words of a source text, without items that are for tests only.
pub(crate) fn words(source: &str) -> Result<Vec<Word>> {
    let stream = TokenStream::from_str(source)
        .map_err(|error| anyhow!("not Rust, on line {}: {error}", error.span().start().line))?;
    let mut words = Vec::new();
    add(stream, &mut words);
    Ok(words)
}

/// Adds the words of a stream to `words`.
fn add(stream: TokenStream, words: &mut Vec<Word>) {
    let mut tokens = stream.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let is_mark = matches!(&token, TokenTree::Punct(mark) if mark.as_char() == '#');
        if is_mark && tokens.peek().is_some_and(is_cfg_test) {
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
                add(group.stream(), words);
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
        //! loop in a comment
        /// loop in documentation
        #![forbid(loops)]
        fn f() -> &'static str { "loop in a text" }
        fn g() { loop { h() } }
        fn i() { let a = std::time::Instant
            ::now(); }
        #[cfg(all(test, feature = "host"))]
        mod tests { fn j() { loop {} } }
        #[cfg(test)]
        extern crate std;
        fn k() { loop {} }
    "#;

    #[test]
    fn words_are_those_of_code_outside_of_tests() {
        let words = words(SOURCE).unwrap();
        let lines = |text: &str| -> Vec<usize> {
            words.iter().filter(|word| word.text == text).map(|word| word.line).collect()
        };
        assert_eq!(lines("loop"), [6, 13]);
        assert_eq!(lines("now"), [8]);
        assert!(lines("extern").is_empty());
    }

    #[test]
    fn invalid_source_is_an_error() {
        assert!(words("fn f() {").is_err());
    }
}
