//! Generates the vector files. They hold chosen cases, on and next to every boundary, and random
//! cases from fixed seeds. The model computes all results.

mod charge;
mod decision;
mod key;
mod mac;
mod policy;
mod prefixes;
mod random;
mod sections;
mod verdict;

use std::{fs, io, path};

use serde::Serialize;

/// The command that generates the files again.
pub const COMMAND: &str = "cargo run -p keytally-vectors --bin generate";

/// 2026-01-01T00:00:00Z in Unix milliseconds: the start of a second, a minute, an hour and a day.
const NEW_YEAR_MS: u64 = 1_767_225_600_000;

/// Returns the name and the text of every vector file.
#[must_use]
pub fn files() -> Vec<(&'static str, String)> {
    vec![
        ("policy.json", policy::file()),
        ("decision.json", decision::file()),
        ("charge.json", charge::file()),
        ("key.json", key::file()),
        ("mac.json", mac::file()),
        ("verdict.json", verdict::file()),
        ("sections.json", sections::file()),
        ("prefixes.json", prefixes::file()),
    ]
}

/// Writes every vector file into a folder.
pub fn generate(folder: &path::Path) -> io::Result<()> {
    for (name, text) in files() {
        fs::write(folder.join(name), text)?;
    }
    Ok(())
}

/// A vector file under construction, with one case per line.
struct Lines {
    text: String,
}

impl Lines {
    /// Begins a file with the text that explains it.
    fn new(about: &str) -> Lines {
        let mut lines = Lines { text: "{\n\"about\": ".to_owned() };
        lines.push(&about);
        lines
    }

    /// Adds an array of cases.
    fn array<Case: Serialize>(mut self, name: &str, cases: &[Case]) -> Lines {
        self.text += &format!(",\n\"{name}\": [\n");
        for (i, case) in cases.iter().enumerate() {
            self.push(case);
            self.text += if i + 1 < cases.len() { ",\n" } else { "\n]" };
        }
        self
    }

    /// Ends the file and returns its text.
    fn done(mut self) -> String {
        self.text += "\n}\n";
        self.text
    }

    /// Appends a value as JSON to the current line.
    fn push<Value: Serialize>(&mut self, value: &Value) {
        self.text += &serde_json::to_string(value).expect("a case is plain data");
    }
}
