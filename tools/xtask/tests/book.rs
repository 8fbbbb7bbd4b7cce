//! Tests that the code in C, for CMake and for nginx on the pages of the book is in a tested file.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// Files that are compiled or run by other tests.
const TESTED: [&str; 6] = [
    "examples/gate.c",
    "examples/CMakeLists.txt",
    "examples/nginx.conf",
    "docs/SERVICE.md",
    "ffi-c/tests/c/fleet.c",
    "ffi-c/tests/c/sections.c",
];

/// Returns the folder of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

/// Returns the files in a folder and its subfolders.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn without_indent(text: &str) -> String {
    text.lines().map(|line| line.trim().to_owned() + "\n").collect()
}

#[test]
fn code_of_the_book_for_other_tools_is_in_a_tested_file() {
    let nginx_tests =
        fs::read_to_string(root().join("adapters/nginx/tests/test_nginx.py")).unwrap();
    let tested = TESTED.map(|file| without_indent(&fs::read_to_string(root().join(file)).unwrap()));
    let mut blocks = 0;
    for page in files(&root().join("docs")) {
        let name = page.strip_prefix(root()).unwrap().to_str().unwrap();
        // The suite `nginx` starts nginx with the code of the pages that its tests name.
        if !name.ends_with(".md") || nginx_tests.contains(name) {
            continue;
        }
        let text = fs::read_to_string(&page).unwrap();
        for language in ["c", "cmake", "nginx"] {
            for block in text.split(&format!("```{language}\n")).skip(1) {
                let code = without_indent(block.split("```").next().unwrap());
                assert!(tested.iter().any(|file| file.contains(&code)), "{name}: {code}");
                blocks += 1;
            }
        }
    }
    assert!(blocks >= 3, "{blocks}");
}
