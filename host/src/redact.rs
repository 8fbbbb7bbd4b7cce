//! Keeps secrets out of errors: a key or a pepper that was given in place of a name or a path is
//! not repeated.
//!
//! A text looks like a secret if it contains one of these:
//! - two names and 20 or more base62 characters, joined by underscores: a key of Keytally's form,
//!   with any prefix;
//! - 32 or more hexadecimal digits: a pepper, a hash, a UUID;
//! - 16 or more characters without a separator that change often between lowercase, uppercase and
//!   digits. That is, at least 8 pairs of adjacent characters and 30 % of all pairs change.
//!
//! A text of 32 or more base64 characters also looks like a secret if 8 pairs and 40 % of all pairs
//! change. Such a text may contain slashes.
//!
//! Sixteen is the length of the shortest key that can be imported. In a text that is not a path,
//! any 16 or more characters without a separator are hidden. A text with a slash or exactly one dot
//! is treated as a path, except in an error of a policy. So is one that begins as an absolute path
//! of Windows does.
//!
//! This is a heuristic. A name that looks random is hidden as well, and a secret of common words in
//! a path is shown.

use alloc::borrow::Cow;

use keytally_core::IMPORTED_KEY_LEN;
use keytally_core::{KeyId, ParseKeyIdError, ParsePolicyError};

/// Returns `text` as an error may repeat it: everything that looks like a secret is replaced.
///
/// ```
/// use keytally::redact;
/// assert_eq!(redact::redact("/srv/api.gate"), "/srv/api.gate");
/// assert_eq!(redact::redact("kt_live_0Gq5Xk2LmPz7Hc1nT9vYbR4sWdEfUaJoQi83ZKM"), "kt_live_…");
/// assert_eq!(redact::redact("an-old-key-of-42"), "a text of 16 characters");
/// assert_eq!(redact::redact("prod.customer.anna.k42"), "a text of 22 characters");
/// assert_eq!(redact::redact("pro=sk_live_51H8Tq3JxWm9Zc7Va2Nb"), "pro=sk_live_…");
/// ```
pub fn redact(text: &str) -> Cow<'_, str> {
    let is_path = text.contains('/') || text.matches('.').count() == 1 || is_windows_path(text);
    hide(text, is_path)
}

/// Returns whether a text begins as an absolute path of Windows does: with a drive, or with two
/// backslashes.
fn is_windows_path(text: &str) -> bool {
    let is_drive =
        |text: &[u8]| matches!(text, [drive, b':', b'\\', ..] if drive.is_ascii_alphabetic());
    text.starts_with(r"\\") || is_drive(text.as_bytes())
}

/// Parses a key id. The error says what is wrong with the text, and does not repeat it: it may be a
/// whole key.
///
/// ```
/// use keytally::redact;
/// assert!(redact::parse_key_id("0000000000A").is_ok());
/// let error = redact::parse_key_id("00000000000").unwrap_err();
/// assert!(error.contains("the number of this one is 0"));
/// ```
///
/// # Errors
/// A sentence for people.
pub fn parse_key_id(text: &str) -> Result<KeyId, String> {
    text.parse().map_err(|error: ParseKeyIdError| {
        let has_the_form =
            text.len() == 11 && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !has_the_form {
            return error.to_string();
        }
        let number = if text.bytes().all(|byte| byte == b'0') { "0" } else { "2^64 or more" };
        format!(
            "a key id stands for a number from 1 to 2^64 - 1; the number of this one is {number}"
        )
    })
}

/// Returns `text` with its secrets replaced. In a text that is not a path, every long part counts
/// as a secret.
fn hide(text: &str, is_path: bool) -> Cow<'_, str> {
    let hidden = |part: &str| is_secret(part) || (!is_path && part.chars().count() >= MIN_LEN);
    if is_base64_secret(text) || (hidden(text) && !text.contains(SEPARATORS)) {
        return match names_of_key(text) {
            Some(names) => Cow::Owned(format!("{names}…")),
            None => Cow::Owned(format!("a text of {} characters", text.chars().count())),
        };
    }
    if !text.split(SEPARATORS).any(hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::new();
    for piece in text.split_inclusive(SEPARATORS) {
        let part = piece.trim_end_matches(SEPARATORS);
        if hidden(part) {
            shown.extend([names_of_key(part).unwrap_or_default(), "…", &piece[part.len()..]]);
        } else {
            shown += piece;
        }
    }
    Cow::Owned(shown)
}

/// Returns `text`, which is not a path, as an error may repeat it. Each part between slashes is
/// redacted by itself.
///
/// ```
/// use keytally::redact;
/// assert_eq!(redact::redact_name("1/an-old-key-of-42"), "1/a text of 16 characters");
/// ```
pub fn redact_name(text: &str) -> String {
    text.split('/').map(redact).collect::<Vec<_>>().join("/")
}

/// Returns `sentence` with every repetition of `given` replaced by its redacted form.
pub fn redact_in(sentence: String, given: &str) -> String {
    replace(sentence, given, &redact(given))
}

fn replace(sentence: String, given: &str, shown: &str) -> String {
    if given == shown { sentence } else { sentence.replace(given, shown) }
}

/// Returns the sentence of a policy error without secrets. The sentence repeats a part of the
/// policy.
///
/// ```
/// use keytally::{Policy, redact::policy_error};
/// let error = "kt_live_0Gq5Xk2LmPz7Hc1nT9vYbR4sWdEfUaJoQi83ZKM".parse::<Policy>().unwrap_err();
/// assert!(policy_error(&error).starts_with("\"kt_live_…\" is "));
/// ```
pub fn policy_error(error: &ParsePolicyError) -> String {
    replace(error.to_string(), error.part(), &hide(error.part(), false))
}

/// The length of the shortest key that can be imported, in characters.
const MIN_LEN: usize = IMPORTED_KEY_LEN.start;

/// What separates the parts of a path, a policy, an option or an address.
const SEPARATORS: &[char] =
    &[' ', '\t', '\n', '\r', '/', '\\', '=', ',', ';', ':', '?', '&', '"', '\'', '`', '(', ')'];

/// The fewest characters after the second underscore that make a text a key of Keytally's form.
const MIN_BODY_LEN: usize = 20;

/// The fewest hexadecimal digits that look like a secret.
const MIN_HEX_LEN: usize = 32;

/// The fewest changes between lowercase, uppercase and digits in a text that looks random. Sixteen
/// random base62 characters have nine on average.
const MIN_CHANGES: usize = 8;

/// Returns whether a part between separators looks like a secret.
fn is_secret(part: &str) -> bool {
    if part.len() < MIN_LEN {
        return false;
    }
    let digits = part.bytes().filter(u8::is_ascii_hexdigit).count();
    let is_hex =
        digits >= MIN_HEX_LEN && part.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    let (changes, pairs) = changes(part);
    // 30 % of the pairs must be changes, so that a long name with some digits is not a secret.
    let is_random = changes >= MIN_CHANGES && changes * 10 >= pairs * 3;
    is_hex || is_random || names_of_key(part).is_some()
}

/// Returns whether the whole text looks like base64 of random bytes. Base64 may contain slashes, so
/// this also examines whole paths. It therefore requires more changes: 40 % of the pairs.
fn is_base64_secret(text: &str) -> bool {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte);
    let text = text.trim_end_matches('=');
    let (changes, pairs) = changes(text);
    let is_random = changes >= MIN_CHANGES && changes * 10 >= pairs * 4;
    text.len() >= MIN_HEX_LEN && text.bytes().all(is_base64) && is_random
}

/// Counts pairs of adjacent letters or digits. Returns the number of changes (pairs of two classes:
/// lowercase, uppercase, digit) and the number of all pairs.
fn changes(text: &str) -> (usize, usize) {
    let class = |byte: u8| match byte {
        b'a'..=b'z' => 1,
        b'A'..=b'Z' => 2,
        b'0'..=b'9' => 3,
        _ => 0,
    };
    let pairs = text.bytes().zip(text.bytes().skip(1)).map(|(one, next)| (class(one), class(next)));
    let pairs = pairs.filter(|&(one, next)| one != 0 && next != 0);
    (pairs.clone().filter(|(one, next)| one != next).count(), pairs.count())
}

/// Returns the prefix and the environment of a key, with their underscores, if the text contains a
/// key of Keytally's form.
fn names_of_key(text: &str) -> Option<&str> {
    let is_name = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.match_indices('_').find_map(|(end, _)| {
        let body = text[end + 1..].bytes().take_while(u8::is_ascii_alphanumeric);
        // A word of lowercase letters does not count as a secret.
        if body.clone().count() < MIN_BODY_LEN || body.clone().all(|byte| byte.is_ascii_lowercase())
        {
            return None;
        }
        let (before, env) = text[..end].rsplit_once('_')?;
        let prefix_len = before.bytes().rev().take_while(is_name).count();
        let names = 1..=keytally_core::MAX_NAME_LEN;
        let fits = names.contains(&prefix_len)
            && names.contains(&env.len())
            && env.bytes().all(|byte| is_name(&byte));
        fits.then(|| &text[before.len() - prefix_len..=end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "kt_live_0Gq5Xk2LmPz7Hc1nT9vYbR4sWdEfUaJoQi83ZKM";

    #[test]
    fn key_of_any_prefix_is_shown_as_its_names() {
        assert_eq!(redact(KEY), "kt_live_…");
        assert_eq!(redact(&KEY.replace("kt_live", "acme_test")), "acme_test_…");
        // Truncated, mistyped, with text around it, or as the value of an option.
        assert_eq!(redact(&KEY[..30]), "kt_live_…");
        assert_eq!(redact(&KEY.replace("Hc1n", "Hc-1n")), "a text of 48 characters");
        assert_eq!(redact(&format!("--{KEY}")), "kt_live_…");
        assert_eq!(redact(&format!("--plan={KEY}")), "--plan=kt_live_…");
        assert_eq!(redact(&format!("/srv/{KEY}/api.gate")), "/srv/kt_live_…/api.gate");
        assert_eq!(
            redact(&format!("curl -H 'X-API-Key: {KEY}'")),
            "curl -H 'X-API-Key: kt_live_…'"
        );
        assert_eq!(redact(&format!("{KEY}.gate")), "kt_live_…");
    }

    #[test]
    fn imported_key_and_pepper_are_shown_as_their_length() {
        for (secret, len) in [
            ("customer-key-0001", 17),
            ("2b1ff0a5-7c1e-4c53-9d3e-0d5ad6b7c1f2", 36),
            ("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", 64),
            ("ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=", 44),
            ("q/7Zk2Pz+Hc1nT9vYb/4sWdEfUaJoQi83ZKMx0Gq5Xk=", 44),
            ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI0MiJ9.x7Qk2LmPz7Hc1nT9vYbR4s", 60),
            ("\u{e4}bcdefghijklmnop", 16),
        ] {
            assert_eq!(redact(secret), format!("a text of {len} characters"), "{secret}");
            assert!(!redact(&format!("./{secret}")).contains(secret) || len < 20, "{secret}");
        }
    }

    #[test]
    fn ordinary_value_is_shown_unchanged() {
        for text in [
            "",
            "api.gate",
            "./keytally-data",
            "/var/lib/keytally-production-eu-west-1/api.gate",
            "/tmp/.tmpA1b2C3/api.gate",
            "/tmp/keytally-a1b2c3d4/api.gate",
            "/run/secrets/..2026_01_31_12_00_00.123456789/pepper",
            "/run/credentials/keytally.service/pepper",
            "/home/anna/backup-2026-01-31T12-00-00Z.gate",
            "default=100/minute, 1000/hour, 4294967295/31d",
            "enterprise-2026",
            "127.0.0.1:8080",
            "0Gq5Xk2LmPz",
        ] {
            assert_eq!(redact(text), text);
        }
    }

    #[test]
    fn path_of_windows_is_shown_without_the_secrets_in_it() {
        for path in
            [r"C:\users\an operator\Temp\.tmpiLIS3N\api.gate", r"\\?\D:\a-long-folder\limiter"]
        {
            assert_eq!(redact(path), path);
        }
        let secret = r"C:\users\kt_live_0Gq5Xk2LmPz7Hc1nT9vYbR4sWdEfUaJoQi83ZKM\api.gate";
        assert_eq!(redact(secret), r"C:\users\kt_live_…\api.gate");
        // A backslash alone does not make a path.
        assert_eq!(redact(r"an-old-key-of-42\n"), r"…\n");
    }

    #[test]
    fn plain_text_is_hidden_from_the_shortest_key_length_on() {
        assert_eq!(redact("abcdefghijklmno"), "abcdefghijklmno");
        assert_eq!(redact("abcdefghijklmnop"), "a text of 16 characters");
        assert_eq!(redact("pro=abcdefghijklmnop"), "pro=…");
    }

    #[test]
    fn sentence_is_changed_only_where_it_repeats_the_secret() {
        let sentence = |given: &str| redact_in(format!("cannot use {given} as {given}"), given);
        assert_eq!(sentence("api.gate"), "cannot use api.gate as api.gate");
        assert_eq!(sentence(KEY), "cannot use kt_live_… as kt_live_…");
    }

    #[test]
    fn every_error_of_a_policy_hides_a_key() {
        for text in [
            KEY.to_owned(),
            format!("100/{KEY}"),
            format!("{KEY}/minute"),
            "100/abcdefghijklmnopqrstuv".to_owned(),
            "1/an-old-key-of-customer-ghijkl".to_owned(),
            format!("1/s, 1/m, 1/h, 1/d, {KEY}"),
            KEY.repeat(3),
            format!("{KEY}{}", " ".repeat(100)),
        ] {
            let shown = policy_error(&text.parse::<keytally_core::Policy>().unwrap_err());
            assert!(!shown.contains("Xk2L") && !shown.contains("ghijkl"), "{shown}");
        }
    }
}
