//! Tests that the vector files are what the model generates.

use std::fs;
use std::path::Path;

use keytally_vectors::generate::{COMMAND, files};

#[test]
fn files_are_what_the_model_generates() {
    for (name, generated) in files() {
        let found = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name))
            .unwrap_or_default();
        if let Some((line, (found, generated))) = lines_of(&found)
            .zip(lines_of(&generated))
            .enumerate()
            .find(|(_, (found, generated))| found != generated)
        {
            panic!(
                "{name} differs from what the model generates, from line {} on:\n  file      {found}\n  generated {generated}\nTo generate it again: {COMMAND}",
                line + 1
            );
        }
    }
}

#[test]
fn generated_files_are_small_and_complete() {
    for (name, text) in files() {
        assert!(text.len() < 400 * 1024, "{name} has {} bytes", text.len());
        assert!(text.ends_with("]\n}\n"), "{name}");
    }
}

/// Returns the lines of a text, followed by a mark that equals no line. With the mark, a text
/// differs from its own beginning.
fn lines_of(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').chain(["(end of file)\n"])
}
