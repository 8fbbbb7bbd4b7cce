use std::fs::File;
use std::io::{self, BufRead, Read as _};
use std::os::fd::AsFd as _;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use keytally::{AdminError, IMPORTED_KEY_LEN, NewKey};
use keytally::{Gate, now};
use serde::Serialize;
use zeroize::Zeroizing;

use super::issue::NewKeyArgs;
use super::{ChangedGate, Format, Status, remark};
use crate::failure::Failure;
use crate::pepper::PepperSource;

/// Take in keys that were issued elsewhere, one a line from standard input
///
/// Their holders keep them. A line that can't be taken in is told by its number, never by what is in it; the others
/// are taken in all the same, and the exit status is 1. Importing the same lines again changes nothing.
#[derive(Args)]
pub(crate) struct Import {
    #[command(flatten)]
    gate: ChangedGate,
    #[command(flatten)]
    new: NewKeyArgs,
    #[command(flatten)]
    format: Format,
}

/// How many keys are imported under one lock. Other administrators are let in after each batch.
const BATCH: usize = 1000;

#[derive(Default, Serialize)]
struct Tidings {
    imported: u64,
    /// Lines whose key the gate had already, for the same account.
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
        pepper.leaves_standard_input("the keys")?;
        let gate = self.gate.open(pepper)?;
        let mut tidings = Tidings::default();
        let done = self.new.with(|new| {
            if new.plan.is_some_and(|name| !gate.table().plans().any(|(_, plan)| plan.name == name)) {
                return Err(AdminError::NoSuchPlan.into());
            }
            import_all(&gate, new, &mut tidings, self.format)
        });
        if let Err(Failure::Because(sentence)) = done {
            let so_far = match tidings.imported {
                0 => String::new(),
                1 => " (1 key before that is imported)".to_owned(),
                count => format!(" ({count} keys before that are imported)"),
            };
            return Err(Failure::because(format!("{sentence}{so_far}")));
        }
        done?;
        self.format.print(&tidings, |out| {
            write!(out, "{} imported", tidings.imported)?;
            if tidings.already > 0 {
                write!(out, ", {} already there", tidings.already)?;
            }
            writeln!(out, ", {} failed", tidings.failed.len())
        })?;
        Ok(if tidings.failed.is_empty() { Status::Fine } else { Status::No })
    }
}

fn import_all(gate: &Gate, new: &NewKey<'_>, tidings: &mut Tidings, format: Format) -> Result<(), Failure> {
    let bar = progress_bar();
    let mut lines = Lines { input: io::stdin().lock(), number: 0, bytes: 0 };
    loop {
        let batch =
            lines.batch().map_err(|error| Failure::of("cannot read the keys from standard input", error))?;
        if batch.is_empty() {
            bar.finish_and_clear();
            return Ok(());
        }
        let mut failed = Vec::new();
        gate.administer(|administrator| {
            for (line, key) in &batch {
                match administrator.import(key, new, now()) {
                    Ok(_) => tidings.imported += 1,
                    Err(AdminError::AlreadyImported(key_id)) => match gate.key(key_id) {
                        Some(info) if info.account != new.account => {
                            let why = format!(
                                "this key is in the gate already, as {key_id}, for account {}",
                                info.account
                            );
                            failed.push(Failed { line: *line, why });
                        }
                        _ => tidings.already += 1,
                    },
                    Err(error) => failed.push(Failed { line: *line, why: error.to_string() }),
                }
            }
            Ok(())
        })?;
        if !format.json {
            let tell = |failed: &Failed| remark(&format!("line {}: {}", failed.line, failed.why));
            bar.suspend(|| failed.iter().for_each(tell));
        }
        tidings.failed.append(&mut failed);
        bar.set_position(lines.bytes);
        bar.set_message(format!("{} imported, {} failed", tidings.imported, tidings.failed.len()));
    }
}

/// A bar on standard error, when that is a terminal: over the bytes of a file, else one that only shows life.
fn progress_bar() -> ProgressBar {
    let file = io::stdin().as_fd().try_clone_to_owned().map(File::from).and_then(|file| file.metadata());
    match file {
        Ok(file) if file.is_file() => ProgressBar::new(file.len()).with_style(
            ProgressStyle::with_template("{bar:40} {percent:>3} %  {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        ),
        _ => ProgressBar::new_spinner(),
    }
}

/// The lines of the input, with their numbers. Blank lines are counted and left out.
struct Lines<R> {
    input: R,
    number: u64,
    bytes: u64,
}

type Line = (u64, Zeroizing<Vec<u8>>);

impl<R: BufRead> Lines<R> {
    /// The next lines, at most [`BATCH`]; none at the end.
    fn batch(&mut self) -> io::Result<Vec<Line>> {
        let mut batch = Vec::new();
        while batch.len() < BATCH {
            let mut line = Zeroizing::new(Vec::with_capacity(KEPT));
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

    /// Reads a line and keeps as much of it as tells whether it's too long for a key.
    fn next(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        let limit = u64::try_from(KEPT).unwrap_or(u64::MAX);
        let kept = (&mut self.input).take(limit).read_until(b'\n', line)?;
        self.bytes += u64::try_from(kept).unwrap_or(0);
        if kept == KEPT && line.last() != Some(&b'\n') {
            self.bytes += u64::try_from(self.input.skip_until(b'\n')?).unwrap_or(0);
        }
        Ok(kept > 0)
    }
}

/// The longest key and what may stand after it: a carriage return, a line feed, and one more to tell it's too long.
const KEPT: usize = IMPORTED_KEY_LEN.end + 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8]) -> Vec<(u64, usize)> {
        let batch = Lines { input, number: 0, bytes: 0 }.batch().unwrap();
        batch.into_iter().map(|(number, line)| (number, line.len())).collect()
    }

    #[test]
    fn lines_keep_their_numbers_and_long_ones_are_cut() {
        assert_eq!(lines(b"abc\r\n\n  \nde"), [(1, 3), (4, 2)]);
        for len in [255, 256, 257, 258, 259, 260, 1000] {
            let mut input = vec![b'k'; len];
            input.extend(b"\r\nnext\n");
            assert_eq!(lines(&input), [(1, len.min(KEPT)), (2, 4)], "{len}");
        }
    }

    #[test]
    fn a_batch_is_bounded() {
        let input = b"key\n".repeat(BATCH + 1);
        let mut lines = Lines { input: input.as_slice(), number: 0, bytes: 0 };
        assert_eq!(lines.batch().unwrap().len(), BATCH);
        assert_eq!(lines.batch().unwrap().len(), 1);
        assert!(lines.batch().unwrap().is_empty());
        assert_eq!(lines.bytes, 4 * 1001);
    }
}
