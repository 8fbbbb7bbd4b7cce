//! Texts from people: names, notes and searches.

use alloc::borrow::Cow;

use keytally::redact::redact;

use crate::error::{Error, Result};

/// The most characters of a name.
pub const MAX_NAME_LEN: usize = 64;

/// The most characters of a note.
pub const MAX_NOTE_LEN: usize = 500;

/// Checks a name: 1 to 64 characters, none of which is a control character, and one visible.
///
/// # Errors
/// A sentence that names the field.
pub fn name(field: &'static str, text: &str) -> Result<String> {
    let trimmed = text.trim();
    let len = trimmed.chars().count();
    if len == 0 {
        return Err(Error::invalid(field, "it is empty; write 1 to 64 characters"));
    }
    if trimmed.chars().all(is_invisible) {
        let reason = "it has only characters that are not visible; write at least one that is";
        return Err(Error::invalid(field, reason));
    }
    limited(field, trimmed, len, MAX_NAME_LEN)
}

/// Checks a note: up to 500 characters, none of which is a control character but a new line.
///
/// # Errors
/// A sentence that names the field.
pub fn note(field: &'static str, text: &str) -> Result<String> {
    limited(field, text, text.chars().count(), MAX_NOTE_LEN)
}

fn limited(field: &'static str, text: &str, len: usize, most: usize) -> Result<String> {
    if len > most {
        let reason = format!("it has {len} characters; the most is {most}");
        return Err(Error::invalid(field, reason));
    }
    let is_control = |character: char| character.is_control() && character != '\n';
    if let Some(character) = text.chars().find(|&character| is_control(character)) {
        let reason =
            format!("it has the control character {}; leave it out", character.escape_unicode());
        return Err(Error::invalid(field, reason));
    }
    if let Some(character) = text.chars().find(|&character| is_reordering(character)) {
        let reason = format!(
            "it has the character {}, which changes the order of others; leave it out",
            character.escape_unicode()
        );
        return Err(Error::invalid(field, reason));
    }
    if most == MAX_NAME_LEN && text.contains('\n') {
        return Err(Error::invalid(field, "it has more than one line; write one line"));
    }
    Ok(text.to_owned())
}

/// Returns whether a character embeds or isolates text of another direction, or overrides the
/// direction. Such a character can make a text look like another one. Marks of a direction and
/// joiners, which some scripts need, are not among these.
fn is_reordering(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns whether a character is shown as nothing: white space, what Unicode calls default
/// ignorable, and the blank pattern of Braille.
fn is_invisible(character: char) -> bool {
    let is_ignorable = matches!(
        character,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fff8}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    );
    is_ignorable || character.is_whitespace()
}

/// Returns a text in quotation marks, as an error may repeat it. A text that looks like a secret is
/// described, without quotation marks.
pub(crate) fn quoted(text: &str) -> String {
    match redact(text) {
        Cow::Owned(described) if described.starts_with("a text of ") => described,
        shown => format!("{shown:?}"),
    }
}

/// Returns the pattern of `like … escape '\'` that finds a text, or an empty one for no text.
pub(crate) fn pattern(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let mut pattern = String::from("%");
    for character in text.to_lowercase().chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

/// Returns the query of a full-text search that finds a text, in an index of groups of three
/// characters. Returns `None` for a text that is shorter.
pub(crate) fn phrase(text: &str) -> Option<String> {
    let is_indexed = text.chars().nth(2).is_some() && !text.contains('\0');
    is_indexed.then(|| format!("\"{}\"", text.replace('"', "\"\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_at_its_limits_is_accepted() {
        for (text, valid) in [
            ("a", true),
            (" a ", true),
            ("", false),
            ("  ", false),
            ("a\nb", false),
            ("a\u{7}", false),
            ("שלום 👋", true),
            ("<script>", true),
            ("\u{200b}", false),
            (" \u{2060}\u{feff}\u{3164} ", false),
            ("a\u{200b}", true),
            ("a\u{202e}b", false),
            ("\u{2067}a\u{2069}", false),
            // Joiners in Persian, in Hindi and in an emoji, and a mark of direction.
            ("می\u{200c}خواهم", true),
            ("क्\u{200d}ष", true),
            ("👩\u{200d}💻", true),
            ("א\u{200e}b", true),
        ] {
            assert_eq!(name("name", text).is_ok(), valid, "{text:?}");
        }
        assert!(name("name", &"é".repeat(64)).is_ok());
        assert!(name("name", &"é".repeat(65)).unwrap_err().to_string().contains("65 characters"));
        assert!(note("note", &"n".repeat(500)).is_ok() && note("note", "a\nb").is_ok());
        assert!(note("note", "a\u{202a}b").is_err() && note("note", "\u{200d}").is_ok());
        assert!(note("note", &"n".repeat(501)).is_err() && note("note", "\0").is_err());
    }

    #[test]
    fn pattern_escapes_what_like_gives_a_meaning() {
        assert_eq!(pattern("100%_\\A"), "%100\\%\\_\\\\a%");
        assert_eq!(pattern(""), "");
    }

    #[test]
    fn phrase_is_of_at_least_three_characters() {
        assert_eq!(phrase("a\"b*").as_deref(), Some("\"a\"\"b*\""));
        assert_eq!(phrase("שלו").as_deref(), Some("\"שלו\""));
        for text in ["", "ab", "a\0c"] {
            assert_eq!(phrase(text), None, "{text:?}");
        }
    }
}
