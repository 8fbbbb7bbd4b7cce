//! Value parsers.

use core::fmt::Display;
use core::ops::RangeInclusive;
use core::str::FromStr;
use std::ffi::OsStr;
use std::path::{MAIN_SEPARATOR, PathBuf};

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Command};
use keytally::redact::redact;
use keytally::{KeyId, Name};

/// Returns a parser of paths that rejects what looks like a key or a pepper.
///
/// A file with such a name would disclose the secret. A path that begins with `./`, `../` or `/` is
/// always accepted.
pub fn path_parser() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| {
        let text = path.to_string_lossy();
        let is_path = ["./", "../", "/"].iter().any(|begin| text.starts_with(begin));
        if is_path || redact(&text) == text {
            return Ok(path);
        }
        Err(format!(
            "this looks like a key or a pepper, not a path; for a file of this name, begin with .{MAIN_SEPARATOR}"
        ))
    })
}

/// Returns a parser of values that reports only the sentence of `parse` as its error.
///
/// A parser error of clap repeats the whole value. A secret inside other text would not be
/// recognized there.
pub fn value_parser<T: Clone + Send + Sync + 'static>(
    parse: fn(&str) -> Result<T, String>,
) -> impl TypedValueParser<Value = T> {
    RedactedParser(parse)
}

/// Returns a parser of whole numbers of a range.
///
/// The errors of clap's own parsers do not say which numbers are right.
pub fn number_parser<T>(range: RangeInclusive<T>) -> impl TypedValueParser<Value = T>
where
    T: FromStr + PartialOrd + Display + Clone + Send + Sync + 'static,
{
    NumberParser(range)
}

#[derive(Clone)]
struct NumberParser<T>(RangeInclusive<T>);

impl<T> TypedValueParser for NumberParser<T>
where
    T: FromStr + PartialOrd + Display + Clone + Send + Sync + 'static,
{
    type Value = T;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        let is_digits = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
        let number = value.to_str().filter(is_digits).and_then(|text| text.parse().ok());
        number.filter(|number| self.0.contains(number)).ok_or_else(|| {
            let (text, range) = (value.to_string_lossy(), &self.0);
            let error = format!(
                "{:?} is not a whole number from {} to {}",
                redact(&text),
                range.start(),
                range.end()
            );
            invalid_value(command, arg, &error)
        })
    }
}

/// Returns the usage error about the value of an argument.
fn invalid_value(command: &Command, arg: Option<&Arg>, error: &str) -> clap::Error {
    let name = arg.map(ToString::to_string).unwrap_or_default();
    let message = format!("invalid value for '{name}': {error}\n\n{HELP_HINT}\n");
    clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
}

/// The last line of every usage error, as clap writes it.
pub(crate) const HELP_HINT: &str = "For more information, try '--help'.";

#[derive(Clone)]
struct RedactedParser<T>(fn(&str) -> Result<T, String>);

impl<T: Clone + Send + Sync + 'static> TypedValueParser for RedactedParser<T> {
    type Value = T;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        let text = value.to_str().ok_or_else(|| "it is not UTF-8".to_owned());
        text.and_then(self.0).map_err(|error| invalid_value(command, arg, &error))
    }
}

/// Parses a prefix or an environment.
pub(crate) fn parse_name(text: &str) -> Result<Name, String> {
    Name::new(text).ok_or_else(|| "it must be 1 to 8 characters of a-z and 0-9".to_owned())
}

/// Parses a key id.
///
/// # Errors
/// A sentence that does not repeat the text.
pub fn parse_key_id(text: &str) -> Result<KeyId, String> {
    keytally::redact::parse_key_id(text)
}

/// Parses the number of an account.
pub(crate) fn parse_account(text: &str) -> Result<u32, String> {
    parse_digits(text).ok_or_else(|| {
        format!("{:?} is not an account; use a whole number up to {}", redact(text), u32::MAX)
    })
}

/// Parses a number of digits only.
pub(crate) fn parse_digits(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}
