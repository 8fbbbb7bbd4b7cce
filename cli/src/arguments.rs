//! Value parsers, and the redaction of secrets that a user gave as an argument by mistake.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{MAIN_SEPARATOR, PathBuf};

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Command};
use keytally::redact::{redact, redact_in};
use keytally::{KeyId, Name};

use crate::pepper::FILE_VARIABLE;

/// Replaces in error messages the arguments that look like secrets.
pub(crate) struct Redactor(Vec<String>);

impl Redactor {
    /// Collects the arguments, the two parts of each `--option=value`, and the value of
    /// `KEYTALLY_PEPPER_FILE`. The option names of `command` and its subcommands are left out.
    pub(crate) fn new(args: &[OsString], command: &Command) -> Self {
        let mut texts = Vec::new();
        for arg in args.iter().skip(1).cloned().chain(env::var_os(FILE_VARIABLE)) {
            let text = arg.to_string_lossy().into_owned();
            if let Some((option, value)) = text.split_once('=') {
                texts.extend([option.to_owned(), value.to_owned()]);
            }
            texts.push(text);
        }
        // An option name of 16 or more characters would look like a secret.
        let options = options(command);
        texts.retain(|text| !options.contains(text));
        // Longest first: a shorter text may be a part of a longer one.
        texts.sort_unstable_by_key(|text| core::cmp::Reverse(text.len()));
        Self(texts)
    }

    /// Returns `message` with the arguments that look like secrets redacted.
    pub(crate) fn redact(&self, message: String) -> String {
        self.0.iter().fold(message, |message, text| redact_in(message, text))
    }
}

/// Returns the long options of a command and of its subcommands, with their dashes.
fn options(command: &Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(Arg::get_long).map(|name| format!("--{name}"));
    own.chain(command.get_subcommands().flat_map(options)).collect()
}

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
        text.and_then(self.0).map_err(|error| {
            let name = arg.map(ToString::to_string).unwrap_or_default();
            let message = format!("invalid value for '{name}': {error}\n\n{HELP_HINT}\n");
            clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
        })
    }
}

/// Parses a prefix or an environment.
pub(crate) fn parse_name(text: &str) -> Result<Name, String> {
    Name::new(text).ok_or_else(|| "it must be 1 to 8 characters of a-z and 0-9".to_owned())
}

/// Parses a key id.
pub(crate) fn parse_key_id(text: &str) -> Result<KeyId, String> {
    text.parse().map_err(|error: keytally::ParseKeyIdError| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "kt_live_0Gq5Xk2LmPz7Hc1nT9vYbR4sWdEfUaJoQi83ZKM";

    #[test]
    fn message_repeats_no_secret_of_the_arguments() {
        let args = ["keytally", &format!("--plan={KEY}"), KEY, "an-old-key-of-42", "api.gate"];
        let redactor = Redactor::new(&args.map(OsString::from), &Command::new("keytally"));
        let message = format!("api.gate, --plan={KEY}, '{KEY}', 'an-old-key-of-42'");
        assert_eq!(
            redactor.redact(message),
            "api.gate, --plan=kt_live_…, 'kt_live_…', 'a text of 16 characters'"
        );
    }

    #[test]
    fn option_with_a_long_name_is_not_redacted() {
        let command = Command::new("keytally").arg(Arg::new("metrics").long("metrics-listen"));
        let args = ["keytally", "--metrics-listen", "--no-such-option-here"].map(OsString::from);
        let redactor = Redactor::new(&args, &command);
        let message = "--metrics-listen and --no-such-option-here".to_owned();
        assert_eq!(redactor.redact(message), "--metrics-listen and a text of 21 characters");
    }
}
