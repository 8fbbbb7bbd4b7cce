//! Tests that the files and tests named in docs/TESTING.md and docs/SEMANTICS.md exist.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

const TESTING: &str = include_str!("../../../docs/TESTING.md");
const SEMANTICS: &str = include_str!("../../../docs/SEMANTICS.md");

/// Returns the folder of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

/// Returns the texts between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_file_on_the_page_exists() {
    let paths: Vec<&str> = quoted(TESTING).filter(|quoted| quoted.contains('/')).collect();
    assert!(paths.len() > 20);
    for path in paths {
        assert!(root().join(path).exists(), "docs/TESTING.md names {path}");
    }
}

/// Returns whether a file declares a test. The name of a test that a macro defines begins a line in
/// the macro's call.
fn declares(file: &str, name: &str) -> bool {
    let source = fs::read_to_string(root().join(file)).unwrap();
    source.contains(&format!("fn {name}(")) || source.contains(&format!("\n    {name}: \""))
}

/// Each row of the tables names files in its first column, and tests in these files in its second.
#[test]
fn every_test_on_the_page_exists() {
    let mut tests = 0;
    for row in TESTING.lines().filter(|line| line.starts_with("| `") && line.contains(".rs`")) {
        let (files, names) = row.trim_matches('|').split_once('|').unwrap();
        let is_name =
            |name: &&str| name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase());
        for name in quoted(names).filter(is_name) {
            tests += 1;
            assert!(
                quoted(files).any(|file| declares(file, name)),
                "docs/TESTING.md names {name}, which is not in {files}"
            );
        }
    }
    assert!(tests > 40, "{tests}");
}

/// Each guarantee has the same five parts. The last part has lines that name a file and tests in
/// it.
#[test]
fn every_guarantee_has_its_parts_and_tests() {
    let guarantees = SEMANTICS.split("\n### ").skip(1);
    assert_eq!(guarantees.clone().count(), 10);
    for guarantee in guarantees {
        let title = guarantee.lines().next().unwrap();
        for part in ["Statement", "Assumption", "Exception", "Argument", "Tests"] {
            assert!(guarantee.contains(&format!("\n**{part}.** ")), "{title} has no {part}");
        }
        let tests = guarantee.split("**Tests.** ").nth(1).unwrap();
        // `file`: `test`, `test`
        let lines = tests.lines().filter_map(|line| line.split_once("`: `"));
        assert!(lines.clone().count() > 0, "{title} names no test");
        for (file, names) in lines {
            let file = file.trim_start_matches('`');
            for name in quoted(&format!("`{names}")) {
                assert!(
                    declares(file, name),
                    "docs/SEMANTICS.md names {name}, which is not in {file}"
                );
            }
        }
    }
}
