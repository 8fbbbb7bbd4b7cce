//! The vector files are what the model generates.

use std::fs;
use std::path::Path;

use keytally_vectors::generate::{COMMAND, files};

#[test]
fn files_are_what_the_model_generates() {
    for (name, fresh) in files() {
        let found = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name))
            .unwrap_or_default();
        if let Some((line, (found, fresh))) = lines_of(&found)
            .zip(lines_of(&fresh))
            .enumerate()
            .find(|(_, (found, fresh))| found != fresh)
        {
            panic!(
                "{name} is not what the model generates, from line {} on:\n  found {found}\n  fresh {fresh}\nTo generate it again: {COMMAND}",
                line + 1
            );
        }
    }
}

#[test]
fn generated_files_are_small_and_complete() {
    for (name, fresh) in files() {
        assert!(fresh.len() < 300 * 1024, "{name} has {} bytes", fresh.len());
        assert!(fresh.ends_with("]\n}\n"), "{name}");
    }
}

/// Returns the lines of a text and then a mark that equals no line, so that a shorter text differs.
fn lines_of(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').chain(["(end of file)\n"])
}
