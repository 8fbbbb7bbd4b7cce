//! How commands print values.

use std::io;

use keytally_cli::internal::{Failure, OutputFormat};
use serde::Serialize;

/// Prints a value as JSON, or its lines as text.
pub(super) fn print(
    format: OutputFormat,
    value: &impl Serialize,
    lines: impl IntoIterator<Item = String>,
) -> Result<(), Failure> {
    format.print(value, |out| {
        lines.into_iter().try_for_each(|line| writeln!(out, "{}", plain(&line)))
    })
}

/// Returns a line without control characters, which a terminal would act on.
fn plain(line: &str) -> String {
    line.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// Returns the error of writing to standard output.
pub(super) fn output_error(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::with_context("cannot write to standard output", error),
    }
}
