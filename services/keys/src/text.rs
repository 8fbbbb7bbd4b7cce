//! Texts from people: names, notes and searches.

use alloc::borrow::Cow;

use keytally::redact::redact;
use keytally::{KEY_ID_LEN, KeyId};

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

/// What a text of a search may name besides a part of a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sought<'t> {
    /// The id of a key: alone, or in the beginning of a key.
    pub(crate) key_id: Option<KeyId>,
    /// The environment of a hint.
    pub(crate) env: Option<&'t str>,
    /// The last characters of a key.
    pub(crate) last_characters: Option<&'t str>,
    /// Whether the text has the form of a hint, which is not looked for in names.
    pub(crate) is_hint: bool,
}

/// The most last characters that a gate keeps of a key.
const LAST_CHARACTERS: usize = 4;

/// Returns what a text may name besides a part of a name: an id such as `3QmT8xVbK2a`, a hint such
/// as `kt_live_…9aZk` or `9aZk`, or the beginning of a key.
pub(crate) fn sought(text: &str) -> Sought<'_> {
    let text = text.trim();
    if let Some((names, last)) = text.rsplit_once('…').or_else(|| text.rsplit_once("...")) {
        let is_last = (1..=LAST_CHARACTERS).contains(&last.chars().count());
        let env = names.strip_suffix('_').and_then(|names| names.split_once('_')).map(|its| its.1);
        let is_hint = is_last && (names.is_empty() || env.is_some_and(|env| !env.contains('_')));
        return match is_hint {
            true => Sought { env, last_characters: Some(last), is_hint, key_id: None },
            false => Sought::default(),
        };
    }
    let is_last = text.chars().count() == LAST_CHARACTERS;
    Sought {
        key_id: text.parse().ok().or_else(|| id_in_key(text)),
        last_characters: Some(text).filter(|_| is_last),
        ..Sought::default()
    }
}

/// Returns the id in a key, or in the beginning of one that has its id.
pub(crate) fn id_in_key(text: &str) -> Option<KeyId> {
    let (_, rest) = text.split_once('_')?;
    let (_, body) = rest.split_once('_')?;
    body.get(..KEY_ID_LEN)?.parse().ok()
}

/// What a person searched for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Search {
    /// A text without a secret.
    Text(String),
    /// The key whose text was given.
    Key(KeyId),
    /// A text that looks like a secret, and is that of no key whose id is known.
    Secret,
}

/// Returns what a text of a search is. `find` returns the id of a key of another form than
/// Keytally's, which the gate knows.
pub(crate) fn search(text: &str, find: impl Fn(&str) -> Option<KeyId>) -> Search {
    let is_separator =
        |character: char| character.is_whitespace() || "\"'`=:,;".contains(character);
    let whole = text.trim();
    for part in core::iter::once(whole).chain(whole.split(is_separator)) {
        if let Some(key_id) = find(part) {
            return Search::Key(key_id);
        }
        let is_key = looks_secret(part) && part.len() >= MIN_KEY_LEN;
        if let Some(key_id) = id_in_key(part).filter(|_| is_key) {
            return Search::Key(key_id);
        }
    }
    if looks_secret(whole) { Search::Secret } else { Search::Text(whole.to_owned()) }
}

/// The fewest characters of a text in which the id of a key is looked for.
const MIN_KEY_LEN: usize = 16;

/// Returns whether a text has a part that looks like a secret. A long name of words does not.
fn looks_secret(text: &str) -> bool {
    // In a path, only what looks random counts as a secret.
    let path = format!("/{text}");
    redact(&path) != path
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
    fn text_of_a_search_names_an_id_or_a_hint() {
        let key_id: Option<KeyId> = "0000000000A".parse().ok();
        for (text, expected) in [
            ("0000000000A", Sought { key_id, ..Sought::default() }),
            (" kt_live_0000000000A", Sought { key_id, ..Sought::default() }),
            ("kt_live_0000000000Aabc", Sought { key_id, ..Sought::default() }),
            (
                "kt_live_…9aZk",
                Sought {
                    env: Some("live"),
                    last_characters: Some("9aZk"),
                    is_hint: true,
                    ..Sought::default()
                },
            ),
            (
                "...9aZk ",
                Sought { last_characters: Some("9aZk"), is_hint: true, ..Sought::default() },
            ),
            ("9aZk", Sought { last_characters: Some("9aZk"), ..Sought::default() }),
            ("…", Sought::default()),
            ("and so on … more", Sought::default()),
            ("wait...what", Sought::default()),
            ("billing", Sought::default()),
            ("", Sought::default()),
        ] {
            assert_eq!(sought(text), expected, "{text:?}");
        }
    }

    #[test]
    fn secret_in_a_search_is_not_kept() {
        let key = "kt_live_0Gq5Xk2LmPz7Hc1nT9vYbR4sWdEfUaJoQi83ZKM";
        let key_id: KeyId = "0Gq5Xk2LmPz".parse().unwrap();
        let imported: KeyId = "0000000000A".parse().unwrap();
        let find = |text: &str| (text == "an-old-key-of-42").then_some(imported);
        for text in [
            key.to_owned(),
            format!("  {key}\n"),
            format!("X-API-Key: {key}"),
            format!("curl -H 'X-API-Key: {key}' https://x.example"),
            format!("BILLING_API_KEY=\"{key}\""),
            key[..40].to_owned(),
        ] {
            assert_eq!(search(&text, find), Search::Key(key_id), "{text}");
        }
        assert_eq!(search("an-old-key-of-42", find), Search::Key(imported));
        assert_eq!(search("key=an-old-key-of-42", find), Search::Key(imported));
        for text in ["51H8Tq3JxWm9Zc7Va2Nb", "x 0123456789abcdef0123456789abcdef", &key[8..]] {
            assert_eq!(search(text, find), Search::Secret, "{text}");
        }
        for text in [
            "billing",
            "billing-service-of-production",
            "my_service_production_eu_west",
            "Service 00777 of 77",
            "kt_live_…9aZk",
            "0Gq5Xk2LmPz",
            "100%_sure",
            "שלום עולם txt.exe",
        ] {
            assert_eq!(search(text, find), Search::Text(text.to_owned()), "{text}");
        }
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
