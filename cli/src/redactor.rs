//! The redaction of secrets that a user gave as an argument by mistake.

use std::env;
use std::ffi::OsString;

use clap::{Arg, Command};
use keytally::redact::redact_in;

use crate::pepper::FILE_VARIABLE;

/// Replaces in error messages the arguments that look like secrets.
pub(crate) struct Redactor(Vec<String>);

impl Redactor {
    /// Collects the arguments, the two parts of each `--option=value`, and the value of
    /// `KEYTALLY_PEPPER_FILE`. The option names of `command` and its subcommands are left out, and
    /// so is what is spelled like one: no secret has two dashes and then only lowercase letters.
    pub(crate) fn new(args: &[OsString], command: &Command) -> Self {
        let mut texts = Vec::new();
        for arg in args.iter().skip(1).cloned().chain(env::var_os(FILE_VARIABLE)) {
            let text = arg.to_string_lossy().into_owned();
            if let Some((option, value)) = text.split_once('=') {
                texts.extend([option.to_owned(), value.to_owned()]);
            }
            texts.push(text);
        }
        // An option name of 16 or more characters would look like a secret, even if mistyped.
        let options = options(command);
        let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte == b'-';
        let is_like_one =
            |text: &str| text.strip_prefix("--").is_some_and(|name| name.bytes().all(is_letter));
        texts.retain(|text| !options.contains(text) && !is_like_one(text));
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
        let args = ["keytally", "--metrics-listen", "--no-such-option-here", "--no-such-option-42"];
        let redactor = Redactor::new(&args.map(OsString::from), &command);
        let message = args[1..].join(", ");
        assert_eq!(
            redactor.redact(message),
            "--metrics-listen, --no-such-option-here, a text of 19 characters"
        );
    }
}
