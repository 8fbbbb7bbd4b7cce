//! The command `import`.

use std::io::{self, BufRead, Read as _};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use keytally::{AdminError, IMPORTED_KEY_LEN, NewKey};
use keytally::{CHANGES_PER_LOCK, Gate, now};
use serde::Serialize;
use zeroize::Zeroizing;

use super::issue::NewKeyArgs;
use crate::failure::Failure;
use crate::gate_file::{FleetWait, GateFileToChange, GateToChange};
use crate::output::{OutputFormat, print_note};
use crate::pepper::PepperSource;
use crate::plans;
use crate::status::Status;
use crate::system::input_len;

/// Import keys that another system issued, one per line of standard input
///
/// Clients continue to use their keys. A line that cannot be imported is reported by its number,
/// never by its content. The other lines are still imported, and the exit status is then 1.
/// Importing the same lines again changes nothing.
#[derive(Args)]
pub(crate) struct Import {
    #[command(flatten)]
    gate: GateFileToChange,
    #[command(flatten)]
    new: NewKeyArgs,
    #[command(flatten)]
    fleet: FleetWait,
    #[command(flatten)]
    format: OutputFormat,
}

#[derive(Default, Serialize)]
struct Report {
    imported: u64,
    /// The number of lines whose key is already in the gate, for the same account.
    already: u64,
    failed: Vec<Failed>,
}

#[derive(Serialize)]
struct Failed {
    line: u64,
    why: String,
}

impl Import {
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        pepper.check_stdin_is_free("the keys")?;
        let gate = self.gate.open_for_new_secret(pepper)?;
        self.fleet.verify(&gate.current())?;
        let mut report = Report::default();
        let scopes = self.new.scopes();
        let new = self.new.to_new_key(&scopes)?;
        if new
            .plan
            .is_some_and(|name| !gate.current().table().plans().any(|(_, plan)| plan.name == name))
        {
            let error = keytally::Error::Admin { path: None, source: AdminError::NoSuchPlan };
            return Err(plans::no_such_plan(&gate.current(), new.plan, error));
        }
        import_all(&gate, &new, &mut report, self.format).map_err(|failure| match failure {
            Failure::Failed(message) => {
                let so_far = match report.imported {
                    0 => String::new(),
                    1 => " (1 key before it was imported)".to_owned(),
                    count => format!(" ({count} keys before it were imported)"),
                };
                Failure::new(format!("{message}{so_far}"))
            }
            other => other,
        })?;
        self.format.print(&report, |out| {
            write!(out, "{} imported", report.imported)?;
            if report.already > 0 {
                write!(out, ", {} already in the gate", report.already)?;
            }
            writeln!(out, ", {} failed", report.failed.len())
        })?;
        let status = self.fleet.wait(&gate.current())?;
        Ok(if report.failed.is_empty() { status } else { Status::Denied })
    }
}

/// Imports the keys on standard input in batches, and adds the results to `report`.
fn import_all(
    gate: &GateToChange,
    new: &NewKey<'_>,
    report: &mut Report,
    format: OutputFormat,
) -> Result<(), Failure> {
    let bar = progress_bar();
    let mut lines = Lines { input: io::stdin().lock(), number: 0, bytes: 0 };
    loop {
        let batch = lines.batch().map_err(|error| {
            Failure::with_context("cannot read the keys from standard input", error)
        })?;
        if batch.is_empty() {
            bar.finish_and_clear();
            return Ok(());
        }
        let mut failed = Vec::new();
        let mut import = |gate: &Gate| {
            gate.administer(|administrator| {
                for (line, key) in &batch {
                    match administrator.import(key, new, now()) {
                        Ok(_) => report.imported += 1,
                        Err(AdminError::AlreadyImported(key_id)) => match gate.key(key_id) {
                            Some(info) if info.account != new.account => {
                                let why = format!(
                                    "this key is already in the gate, as {key_id} of account {}",
                                    info.account
                                );
                                failed.push(Failed { line: *line, why });
                            }
                            _ => report.already += 1,
                        },
                        Err(error) => failed.push(Failed { line: *line, why: error.to_string() }),
                    }
                }
                Ok(())
            })
        };
        gate.change(&mut import)?;
        if !format.json {
            let print =
                |failed: &Failed| print_note(&format!("line {}: {}", failed.line, failed.why));
            bar.suspend(|| failed.iter().for_each(print));
        }
        report.failed.append(&mut failed);
        bar.set_position(lines.bytes);
        bar.set_message(format!("{} imported, {} failed", report.imported, report.failed.len()));
    }
}

/// Returns a progress bar: by bytes if standard input is a file, else a spinner.
///
/// It is drawn on standard error, and hidden if that is not a terminal.
fn progress_bar() -> ProgressBar {
    match input_len() {
        Some(len) => ProgressBar::new(len).with_style(
            ProgressStyle::with_template("{bar:40} {percent:>3} %  {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        ),
        None => ProgressBar::new_spinner(),
    }
}

/// Reads lines and counts them. Blank lines are counted and skipped.
struct Lines<R> {
    input: R,
    number: u64,
    bytes: u64,
}

/// The number of a line, counted from 1, and its text.
type Line = (u64, Zeroizing<Vec<u8>>);

impl<R: BufRead> Lines<R> {
    /// Returns the next lines, at most [`CHANGES_PER_LOCK`]; none at the end of the input.
    fn batch(&mut self) -> io::Result<Vec<Line>> {
        let mut batch = Vec::new();
        while batch.len() < CHANGES_PER_LOCK {
            let mut line = Zeroizing::new(Vec::with_capacity(MAX_LINE_LEN));
            if !self.next(&mut line)? {
                break;
            }
            self.number += 1;
            let len = line.trim_ascii_end().len();
            line.truncate(len);
            if !line.is_empty() {
                batch.push((self.number, line));
            }
        }
        Ok(batch)
    }

    /// Reads a line into `line`, at most [`MAX_LINE_LEN`] bytes of it. Returns `false` at the end
    /// of the input.
    fn next(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        let limit = u64::try_from(MAX_LINE_LEN).unwrap_or(u64::MAX);
        let kept = (&mut self.input).take(limit).read_until(b'\n', line)?;
        self.bytes += u64::try_from(kept).unwrap_or(0);
        if kept == MAX_LINE_LEN && line.last() != Some(&b'\n') {
            self.bytes += u64::try_from(self.input.skip_until(b'\n')?).unwrap_or(0);
        }
        Ok(kept > 0)
    }
}

/// Bytes of a line that are kept: the longest key, `\r\n`, and one byte more, so that a longer key
/// is not cut to a valid one.
const MAX_LINE_LEN: usize = IMPORTED_KEY_LEN.end + 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8]) -> Vec<(u64, usize)> {
        let batch = Lines { input, number: 0, bytes: 0 }.batch().unwrap();
        batch.into_iter().map(|(number, line)| (number, line.len())).collect()
    }

    #[test]
    fn blank_lines_are_counted_and_long_lines_are_cut() {
        assert_eq!(lines(b"abc\r\n\n  \nde"), [(1, 3), (4, 2)]);
        for len in [255, 256, 257, 258, 259, 260, 1000] {
            let mut input = vec![b'k'; len];
            input.extend(b"\r\nnext\n");
            assert_eq!(lines(&input), [(1, len.min(MAX_LINE_LEN)), (2, 4)], "{len}");
        }
    }

    #[test]
    fn batch_size_is_bounded() {
        let input = b"key\n".repeat(CHANGES_PER_LOCK + 1);
        let mut lines = Lines { input: input.as_slice(), number: 0, bytes: 0 };
        assert_eq!(lines.batch().unwrap().len(), CHANGES_PER_LOCK);
        assert_eq!(lines.batch().unwrap().len(), 1);
        assert!(lines.batch().unwrap().is_empty());
        assert_eq!(lines.bytes, 4 * 1001);
    }
}
