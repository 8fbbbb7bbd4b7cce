//! The shells in which printed commands can be pasted.

use core::fmt::Display;

/// How a command is written for the shells of a system.
#[derive(Debug)]
pub(crate) struct Shell {
    /// The name of curl.
    pub(crate) curl: &'static str,
    /// The character around a quoted word.
    pub(crate) quote: char,
    /// The characters that need no quotes, besides letters and digits.
    plain: &'static [u8],
}

/// The shells of POSIX.
const POSIX: Shell = Shell { curl: "curl", quote: '\'', plain: b"/._-+=@,:" };

/// cmd.exe and PowerShell. In Windows PowerShell, `curl` is another command.
///
/// In double quotes, cmd.exe expands `%NAME%`, and PowerShell `$NAME` and backticks. No form of a
/// word keeps all of them in both shells.
const WINDOWS: Shell = Shell { curl: "curl.exe", quote: '"', plain: b"/\\._-+=:~" };

/// The shells of this system.
pub(crate) const SHELL: Shell = if cfg!(windows) { WINDOWS } else { POSIX };

impl Shell {
    /// Returns a word of a command: a path or a URL, in quotes if it needs them.
    ///
    /// Paths of Windows cannot contain double quotes, so these are not escaped.
    pub(crate) fn word(&self, text: impl Display) -> String {
        let (text, quote) = (text.to_string(), self.quote);
        if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || self.plain.contains(&byte)) {
            return text;
        }
        let text = if quote == '\'' { text.replace('\'', r"'\''") } else { text };
        format!("{quote}{text}{quote}")
    }

    /// Returns a remark on a command that begins with this word.
    ///
    /// PowerShell runs a program in quotes only after `&`, with which cmd.exe runs none.
    pub(crate) fn remark(program: &str) -> &'static str {
        if program.starts_with(WINDOWS.quote) { " (in PowerShell, write & before it)" } else { "" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn word_is_quoted_for_the_shells_of_its_system() {
        for (text, posix, windows) in [
            ("./keytally-data/pepper", "./keytally-data/pepper", "./keytally-data/pepper"),
            (r"C:\data\api.gate", r"'C:\data\api.gate'", r"C:\data\api.gate"),
            ("peter's data", r"'peter'\''s data'", r#""peter's data""#),
            ("a,b@c", "a,b@c", r#""a,b@c""#),
            ("http://[::1]:80/", "'http://[::1]:80/'", r#""http://[::1]:80/""#),
        ] {
            assert_eq!([POSIX.word(text), WINDOWS.word(text)], [posix, windows]);
        }
    }

    #[test]
    fn remark_is_only_for_a_quoted_program_of_windows() {
        let remark = |shell: Shell, program| Shell::remark(&shell.word(program));
        assert!(remark(WINDOWS, r"C:\My Programs\keytally.exe").contains("write & before"));
        assert_eq!(remark(WINDOWS, r"C:\Programs\keytally.exe"), "");
        assert_eq!(remark(POSIX, "/my programs/keytally"), "");
    }
}
