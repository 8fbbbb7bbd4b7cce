//! The output of commands: data, as text or as JSON, and notes.

use core::fmt::Display;
use std::io::{self, Write};

use clap::Args;
use keytally::Plan;
use serde::Serialize;

use crate::failure::Failure;
use crate::plans;

/// The output format of a command.
#[derive(Args, Clone, Copy, Debug)]
pub struct OutputFormat {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl OutputFormat {
    /// Prints to standard output: `data` as one line of JSON if `--json` is set, else what `text`
    /// writes.
    ///
    /// # Errors
    /// [`Failure::OutputClosed`] if the reader closed standard output, or another write error.
    pub fn print(
        self,
        data: &impl Serialize,
        text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Failure> {
        self.write(data, text).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::with_context("cannot write to standard output", error),
        })
    }

    fn write(
        self,
        data: &impl Serialize,
        text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        if self.json {
            // An error of `serde_json` does not report the kind of its source.
            serde_json::to_writer(&mut out, data).map_err(io::Error::from)?;
            writeln!(out)?;
        } else {
            text(&mut out)?;
        }
        out.flush()
    }
}

/// Prints a line for the user to standard error. Write errors are ignored.
pub fn print_note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints a warning for each quota of these plans that can never deny a request.
pub fn warn_of_never_binding_quotas<'p>(plans: impl IntoIterator<Item = &'p Plan>) {
    for plan in plans {
        let warnings = plans::warnings(plan);
        warnings.iter().for_each(|text| print_note(text));
    }
}

/// Returns a count with its noun: `1 key`, `2 keys`.
pub fn pluralized(count: impl Display, noun: &str) -> String {
    let count = count.to_string();
    format!("{count} {noun}{}", if count == "1" { "" } else { "s" })
}
