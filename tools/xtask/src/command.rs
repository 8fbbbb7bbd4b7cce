//! Runs programs. The output of a program is printed only if it fails.

use core::borrow::BorrowMut;
use core::time::Duration;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Returns a command that runs the cargo that started this program.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs a command without input. Returns what it wrote to standard output and standard error. On a
/// terminal, shows the elapsed time and the last line of output until it ends.
///
/// The output goes to a file. A pipe would stay open as long as a process that a failed test left
/// behind.
///
/// # Errors
/// If the command cannot be started or fails. The error contains the output.
pub(crate) fn run(mut command: impl BorrowMut<Command>) -> Result<String> {
    let command = command.borrow_mut();
    let log = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
    let read = || fs::read(log.path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    command.stdin(Stdio::null());
    command.stdout(log.as_file().try_clone()?).stderr(log.as_file().try_clone()?);
    let mut child =
        command.spawn().with_context(|| format!("cannot start `{}`", shown(command)))?;
    let style = ProgressStyle::with_template("  {elapsed} {wide_msg}")?;
    let line = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout()).with_style(style);
    while !line.is_hidden() && child.try_wait()?.is_none() {
        let last = read()?.lines().rfind(|line| !line.trim().is_empty()).map(str::to_owned);
        line.set_message(last.unwrap_or_default().replace(char::is_control, ""));
        std::thread::sleep(Duration::from_millis(200));
    }
    line.finish_and_clear();
    let status = child.wait()?;
    if !status.success() {
        bail!("`{}` ended with {status}:\n{}", shown(command), read()?);
    }
    Ok(read()?)
}

/// Returns the command for an error message: the program without its folder, and the arguments.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = core::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]);
        shell
    }

    #[test]
    fn output_keeps_its_order() {
        assert_eq!(run(shell("echo one; echo two >&2; echo three")).unwrap(), "one\ntwo\nthree\n");
    }

    #[test]
    fn failure_names_command_status_and_output() {
        let error = run(shell("echo why >&2; exit 7")).unwrap_err().to_string();
        assert_eq!(error, "`sh -c echo why >&2; exit 7` ended with exit status: 7:\nwhy\n");
    }

    #[test]
    fn run_does_not_wait_for_a_background_process() {
        assert_eq!(run(shell("sleep 30 & echo $!")).unwrap().lines().count(), 1);
    }

    #[test]
    fn missing_program_is_named_in_the_error() {
        let error = run(Command::new("no-such-program")).unwrap_err().to_string();
        assert_eq!(error, "cannot start `no-such-program`");
    }
}
