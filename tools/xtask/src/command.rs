//! Runs programs. The output of a program is printed only if it fails.

use core::borrow::BorrowMut;
use core::time::Duration;
use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Returns a command that runs the cargo that started this program.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs a command without input. Returns what it wrote to standard output and standard error.
///
/// The output goes to an unnamed file. A pipe would stay open as long as a process that a failed
/// test left behind.
///
/// # Errors
/// If the command cannot be started or fails. The error contains the output.
pub(crate) fn run(mut command: impl BorrowMut<Command>) -> Result<String> {
    let command = command.borrow_mut();
    let log = tempfile::tempfile().context("cannot make a temporary file")?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
    let mut child =
        command.spawn().with_context(|| format!("cannot start `{}`", shown(command)))?;
    let status = wait(&mut child, &log)?;
    let output = String::from_utf8_lossy(&bytes_from(&log, 0)?).into_owned();
    if !status.success() {
        bail!("`{}` ended with {status}:\n{output}", shown(command));
    }
    Ok(output)
}

/// Returns the command for an error message: the program without its folder, and the arguments.
fn shown(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = core::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Waits until the process ends. On a terminal, shows the elapsed time and the last line of output.
fn wait(child: &mut Child, log: &File) -> io::Result<ExitStatus> {
    if !io::stdout().is_terminal() {
        return child.wait();
    }
    let line = ProgressBar::new_spinner().with_style(style());
    line.set_draw_target(ProgressDrawTarget::stdout());
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        line.set_message(last_line(log)?);
        line.tick();
        std::thread::sleep(REDRAW);
    };
    line.finish_and_clear();
    Ok(status)
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("  {elapsed} {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn last_line(log: &File) -> io::Result<String> {
    let tail = bytes_from(log, log.metadata()?.len().saturating_sub(TAIL))?;
    let tail = String::from_utf8_lossy(&tail);
    let line = tail.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    Ok(line.chars().filter(|c| !c.is_control()).collect())
}

/// Reads a file from an offset to its end. Does not move the position at which the process writes.
fn bytes_from(file: &File, mut offset: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut part = [0; 8192];
    loop {
        match file.read_at(&mut part, offset)? {
            0 => return Ok(bytes),
            read => {
                bytes.extend_from_slice(&part[..read]);
                offset += read as u64;
            }
        }
    }
}

/// The interval at which the line on a terminal is redrawn.
const REDRAW: Duration = Duration::from_millis(100);
/// The length of the end of the output that is searched for the last line, in bytes.
const TAIL: u64 = 1024;

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
