//! docs/TESTING.md names tests that exist, and states the right number of comparisons.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

const PAGE: &str = include_str!("../../docs/TESTING.md");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Returns the texts between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_file_on_the_page_exists() {
    let paths: Vec<&str> = quoted(PAGE).filter(|quoted| quoted.contains('/')).collect();
    assert!(paths.len() > 20);
    for path in paths {
        assert!(root().join(path).exists(), "docs/TESTING.md names {path}");
    }
}

/// A row names files in its first column, and functions in those files in its second.
#[test]
fn every_test_on_the_page_exists() {
    let mut tests = 0;
    for row in PAGE.lines().filter(|line| line.starts_with("| `") && line.contains(".rs`")) {
        let (files, names) = row.trim_matches('|').split_once('|').unwrap();
        let sources: String =
            quoted(files).map(|file| fs::read_to_string(root().join(file)).unwrap()).collect();
        let is_name = |name: &&str| name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase());
        for name in quoted(names).filter(is_name) {
            tests += 1;
            // A test that a macro defines has its name at the beginning of a line.
            let declared =
                sources.contains(&format!("fn {name}(")) || sources.contains(&format!("\n    {name}: \""));
            assert!(declared, "docs/TESTING.md names {name}, which is not in {files}");
        }
    }
    assert!(tests > 40, "{tests}");
}
