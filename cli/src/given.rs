//! What the user gave, which errors repeat unless it looks like a secret.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{MAIN_SEPARATOR, PathBuf};

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Command};
use keytally::redact::{redact, redact_in};

use crate::pepper::FILE_VARIABLE;

/// The texts of a command line that errors may repeat: arguments, and the parts of `--option=value`.
pub(crate) struct Given(Vec<String>);

impl Given {
    /// The texts in these arguments and in the environment.
    pub(crate) fn of(args: &[OsString], command: &Command) -> Self {
        let mut texts = Vec::new();
        for arg in args.iter().skip(1).cloned().chain(env::var_os(FILE_VARIABLE)) {
            let text = arg.to_string_lossy().into_owned();
            if let Some((option, value)) = text.split_once('=') {
                texts.extend([option.to_owned(), value.to_owned()]);
            }
            texts.push(text);
        }
        // The name of an option of ours is no secret, however long it is.
        let options = options(command);
        texts.retain(|text| !options.contains(text));
        // The longest first: one may be a part of another.
        texts.sort_unstable_by_key(|text| core::cmp::Reverse(text.len()));
        Self(texts)
    }

    /// Returns `sentence` without what looks like a secret in these texts.
    pub(crate) fn redacted(&self, sentence: String) -> String {
        self.0.iter().fold(sentence, |sentence, text| redact_in(sentence, text))
    }
}

/// The options of a command and of those below it, as they are given.
fn options(command: &Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(Arg::get_long).map(|name| format!("--{name}"));
    own.chain(command.get_subcommands().flat_map(options)).collect()
}

/// Reads a path, and refuses a key or a pepper that was given in its place: a file of that name would show it.
pub fn path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| {
        let text = path.to_string_lossy();
        let is_path = ["./", "../", "/"].iter().any(|begin| text.starts_with(begin));
        if is_path || redact(&text) == text {
            return Ok(path);
        }
        Err(format!("this looks like a key or a pepper, and a path belongs here; for a file of that name, begin with .{MAIN_SEPARATOR}"))
    })
}

/// Reads a value by `parse`, whose sentence is all that is said of a wrong one. (The parsers of clap repeat the whole
/// value, in which no secret is found that stands among other text.)
pub fn value<T: Clone + Send + Sync + 'static>(
    parse: fn(&str) -> Result<T, String>,
) -> impl TypedValueParser<Value = T> {
    Parsed(parse)
}

/// What ends the words on a wrong argument.
pub(crate) const MORE: &str = "For more information, try '--help'.";

#[derive(Clone)]
struct Parsed<T>(fn(&str) -> Result<T, String>);

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Parsed<T> {
    type Value = T;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<T, clap::Error> {
        let text = value.to_str().ok_or_else(|| "it is not UTF-8".to_owned());
        text.and_then(self.0).map_err(|sentence| {
            let name = arg.map(ToString::to_string).unwrap_or_default();
            let message = format!("invalid value for '{name}': {sentence}\n\n{MORE}\n");
            clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "kt_live_0Gq5Xk2LmPz7Hc1nT9vYbR4sWdEfUaJoQi83ZKM";

    #[test]
    fn sentence_repeats_no_secret_of_the_arguments() {
        let args = ["keytally", &format!("--plan={KEY}"), KEY, "an-old-key-of-42", "api.gate"];
        let given = Given::of(&args.map(OsString::from), &Command::new("keytally"));
        let sentence = format!("api.gate, --plan={KEY}, '{KEY}', 'an-old-key-of-42'");
        assert_eq!(
            given.redacted(sentence),
            "api.gate, --plan=kt_live_…, 'kt_live_…', 'a text of 16 characters'"
        );
    }

    #[test]
    fn option_with_a_long_name_is_named() {
        let command = Command::new("keytally").arg(Arg::new("metrics").long("metrics-listen"));
        let args = ["keytally", "--metrics-listen", "--no-such-option-here"].map(OsString::from);
        let given = Given::of(&args, &command);
        let sentence = "--metrics-listen and --no-such-option-here".to_owned();
        assert_eq!(given.redacted(sentence), "--metrics-listen and a text of 21 characters");
    }
}
