//! The folders of the product, which must not depend on what is around them.
//!
//! The suite `rules` calls [`check`]. It reads the text of every file and the dependencies of every
//! package. Markdown pages may link to any folder, and the files at the root may name any.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::targets::{WORKSPACES, metadata};
use crate::words::files;

/// The folders of the product.
const PRODUCT: [&str; 9] =
    ["core", "host", "cli", "ffi-c", "include", "py", "benches", "vectors", "examples"];

/// The folders around the product.
const AROUND: [&str; 3] = ["adapters", "services", "tools"];

/// Fails with a line for each file or package of the product that depends on a folder around it.
pub(crate) fn check() -> Result<()> {
    let mut faults = Vec::new();
    for path in files()? {
        // A file that is not UTF-8 is not a text. git also lists files that were deleted.
        if let (true, Ok(text)) = (covers(&path), fs::read_to_string(&path)) {
            faults.extend(faults_in(&path, &text));
        }
    }
    let workspace = std::env::current_dir()?;
    for package in metadata(WORKSPACES[0])?.packages {
        let manifest = package.manifest_path.strip_prefix(&workspace)?;
        for dependency in package.dependencies {
            let folder = dependency.path.as_ref();
            let folder = folder.and_then(|folder| folder.strip_prefix(&workspace).ok());
            if let (true, Some(folder)) =
                (PRODUCT.iter().any(|product| manifest.starts_with(product)), folder)
                && AROUND.iter().any(|around| folder.starts_with(around))
            {
                faults.push(format!(
                    "{}: depends on the package {}",
                    manifest.display(),
                    dependency.name
                ));
            }
        }
    }
    ensure!(
        faults.is_empty(),
        "the product depends on {}:\n{}",
        AROUND.join(", "),
        faults.join("\n")
    );
    Ok(())
}

/// Returns whether a file may not name a folder around the product.
fn covers(path: &str) -> bool {
    PRODUCT.iter().any(|folder| Path::new(path).starts_with(folder)) && !path.ends_with(".md")
}

/// Returns a fault for each line that names a folder around the product: in a path, or alone
/// between quotation marks, as where a program joins a path.
fn faults_in(path: &str, text: &str) -> Vec<String> {
    let name_of = |line: &str| {
        AROUND.into_iter().find(|name| {
            line.match_indices(name).any(|(at, name)| {
                let before = line[..at].chars().next_back();
                let after = line[at + name.len()..].chars().next();
                let is_quoted = matches!(before, Some('"' | '\''));
                let is_part = before
                    .is_some_and(|before| before.is_alphanumeric() || matches!(before, '_' | '-'));
                (!is_part && after == Some('/')) || (is_quoted && after == before)
            })
        })
    };
    (1..)
        .zip(text.lines())
        .filter_map(|(number, line)| {
            name_of(line).map(|name| format!("{path}:{number}: names the folder {name}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_around_the_product_is_a_fault() {
        for line in [
            "let source = \"adapters/c/server.c\";",
            "//! See `tools/xtask/src/native.rs`.",
            "path = \"../services/server\"",
            "ROOT / \"services\" / \"server\"",
        ] {
            assert_eq!(faults_in("host/src/x.rs", line).len(), 1, "{line}");
        }
        assert_eq!(
            faults_in("py/tests/x.py", "\nopen('../tools/words.txt')"),
            ["py/tests/x.py:2: names the folder tools"]
        );
    }

    #[test]
    fn word_that_is_not_a_path_is_allowed() {
        for line in ["from tools import program", "nginx-adapters/x", "\"the tools\"", "services."]
        {
            assert!(faults_in("py/tests/x.py", line).is_empty(), "{line}");
        }
    }

    #[test]
    fn pages_and_other_folders_may_name_any_folder() {
        assert!(covers("ffi-c/tests/servers.rs") && covers("py/pyproject.toml"));
        assert!(!covers("host/README.md") && !covers("docs/TESTING.md"));
        assert!(!covers("services/server/src/main.rs") && !covers("Cargo.toml"));
        assert!(!covers("benches-of-tools/x.rs"));
    }
}
