//! The suite `rules`: unsafe code, clock reads and atomics are only in named files.
//!
//! Clippy rejects clock reads and atomics, too, but an `expect` in any file lifts its ban.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::source::{TestItems, lines_of, rust_files, words};
use crate::targets::{WORKSPACES, metadata};
use crate::tools::Found;

/// A rule that some code may only be in named files.
#[derive(Debug)]
struct Rule {
    /// The name of the code, in the plural.
    subject: &'static str,
    /// The code: sequences of words, separated by spaces.
    patterns: &'static [&'static str],
    /// The folders in which the rule holds. If empty, it holds everywhere.
    folders: &'static [&'static str],
    /// Whether the rule also holds in tests.
    in_tests: bool,
    /// The files that may contain the code. A file that does not contain it is a fault, so that the
    /// list stays exact.
    allowed: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule {
        subject: "unsafe code",
        // The word with each word that may follow, except in attributes, which have their own rule.
        patterns: &[
            "unsafe {",
            "unsafe fn",
            "unsafe impl",
            "unsafe trait",
            "unsafe extern",
            "unsafe auto",
        ],
        folders: &[],
        in_tests: true,
        // `ffi-c/src/pointers.rs` has types that check the pointers from C.
        allowed: &[
            "core/tests/wiped.rs",
            "host/src/map.rs",
            "ffi-c/src/pointers.rs",
            "tools/fuzz/targets/src/c_calls.rs",
            "host/tests/allocation.rs",
        ],
    },
    Rule {
        subject: "names for the linker",
        patterns: &["unsafe (", "no_mangle", "export_name"],
        folders: &[],
        in_tests: true,
        // The files with functions for C.
        allowed: &[
            "ffi-c/src/administer.rs",
            "ffi-c/src/clock.rs",
            "ffi-c/src/files.rs",
            "ffi-c/src/gate.rs",
            "ffi-c/src/inspect.rs",
            "ffi-c/src/key.rs",
            "ffi-c/src/limiter.rs",
            "ffi-c/src/message.rs",
            "ffi-c/src/policy.rs",
            "ffi-c/src/verdict.rs",
            "ffi-c/src/version.rs",
        ],
    },
    Rule {
        subject: "clock reads",
        patterns: &["SystemTime : : now", "Instant : : now"],
        folders: &[],
        in_tests: false,
        // `step.rs` reports the duration of each step.
        allowed: &["host/src/clock.rs", "tools/xtask/src/step.rs"],
    },
    Rule {
        subject: "atomics",
        patterns: &["sync : : atomic", "atomic : :"],
        folders: &["core", "host"],
        in_tests: false,
        allowed: &["core/src/sync.rs"],
    },
];

/// Checks every source file of the workspaces against every rule.
pub(crate) fn check(_: &[Found]) -> Result<String> {
    let sources = sources()?;
    let faults =
        RULES.iter().map(|rule| rule.faults(&sources)).collect::<Result<Vec<_>>>()?.concat();
    ensure!(
        faults.is_empty(),
        "code is outside of the files that tools/xtask/src/rules.rs allows:\n{}",
        faults.join("\n")
    );
    Ok(format!("{} files", sources.len()))
}

/// A source file: its path, relative to the folder of the workspace, and its content.
type Source = (String, String);

impl Rule {
    /// Returns a fault for each line that breaks the rule, and for each allowed file without need.
    fn faults(&self, sources: &[Source]) -> Result<Vec<String>> {
        let mut faults = Vec::new();
        let mut unused = self.allowed.to_vec();
        for (path, content) in sources.iter().filter(|(path, _)| self.covers(path)) {
            let lines = self.lines(content).with_context(|| format!("cannot read {path}"))?;
            if self.allowed.contains(&path.as_str()) {
                unused.retain(|allowed| lines.is_empty() || allowed != path);
            } else {
                let allowed = self.allowed.join(", ");
                let fault =
                    |line| format!("{path}:{line}: {} may only be in {allowed}", self.subject);
                faults.extend(lines.into_iter().map(fault));
            }
        }
        let without =
            |file| format!("{file}: allowed to contain {}, but it has none", self.subject);
        faults.extend(unused.into_iter().map(without));
        Ok(faults)
    }

    /// Returns whether the rule holds in a file.
    fn covers(&self, path: &str) -> bool {
        let in_folder =
            self.folders.is_empty() || self.folders.contains(&path.split('/').next().unwrap_or(""));
        let is_test =
            ["/tests/", "/benches/", "/examples/"].iter().any(|folder| path.contains(folder));
        in_folder && (self.in_tests || !is_test)
    }

    /// Returns the lines with code of the rule.
    fn lines(&self, content: &str) -> Result<Vec<usize>> {
        let test_items = if self.in_tests { TestItems::Include } else { TestItems::Skip };
        let words = words(content, test_items)?;
        Ok(self.patterns.iter().flat_map(|pattern| lines_of(&words, pattern)).collect())
    }
}

/// Returns all Rust files of the packages in the workspaces.
fn sources() -> Result<Vec<Source>> {
    let workspace = std::env::current_dir()?;
    let mut sources = Vec::new();
    let metadata = WORKSPACES.map(metadata).into_iter().collect::<Result<Vec<_>>>()?;
    for package in metadata.into_iter().flat_map(|metadata| metadata.packages) {
        let folder = package.manifest_path.parent().context("a manifest without a folder")?;
        for file in rust_files(folder.as_std_path())? {
            let path = file.strip_prefix(&workspace).unwrap_or(&file).display().to_string();
            let content =
                fs::read_to_string(&file).with_context(|| format!("cannot read {path}"))?;
            sources.push((path, content));
        }
    }
    sources.sort();
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the faults by the rule with this subject, in files of these paths and contents.
    fn faults(subject: &str, sources: &[(&str, &str)]) -> Vec<String> {
        let rule = RULES.iter().find(|rule| rule.subject == subject).unwrap();
        let owned: Vec<Source> =
            sources.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect();
        rule.faults(&owned).unwrap()
    }

    #[test]
    fn unsafe_code_outside_its_files_is_a_fault() {
        let map = ("host/src/map.rs", "fn f() { unsafe {} }");
        let wiped = ("core/tests/wiped.rs", "fn f() { unsafe {} }");
        let counts = ("host/tests/allocation.rs", "unsafe impl GlobalAlloc for Counts {}");
        let pointers = ("ffi-c/src/pointers.rs", "pub const unsafe fn from_raw() {}");
        let hostile = ("tools/fuzz/targets/src/c_calls.rs", "fn f() { unsafe {} }");
        let core = ("core/src/lib.rs", "#![forbid(unsafe_code)] // unsafe");
        assert!(faults("unsafe code", &[wiped, map, pointers, hostile, counts, core]).is_empty());
        let x = ("core/tests/x.rs", "\nunsafe impl Send for X {}");
        assert_eq!(
            faults("unsafe code", &[wiped, map, pointers, hostile, counts, x]),
            [
                "core/tests/x.rs:2: unsafe code may only be in core/tests/wiped.rs, host/src/map.rs, ffi-c/src/pointers.rs, tools/fuzz/targets/src/c_calls.rs, host/tests/allocation.rs"
            ]
        );
    }

    #[test]
    fn unsafe_attributes_have_a_rule_of_their_own() {
        let export = ("core/src/x.rs", "#[unsafe(no_mangle)] fn f() {}");
        assert!(!faults("names for the linker", &[export]).is_empty());
        let faults = faults("unsafe code", &[export]);
        assert!(faults.iter().all(|fault| !fault.starts_with("core/src/x.rs")), "{faults:?}");
    }

    #[test]
    fn clocks_are_read_only_in_their_file() {
        let clock = ("host/src/clock.rs", "fn f() { SystemTime::now() }");
        let test = ("services/server/tests/contract.rs", "fn f() { Instant::now() }");
        let unit_test =
            ("services/server/src/a.rs", "#[cfg(test)] mod tests { fn f() { Instant::now() } }");
        let report = ("tools/xtask/src/step.rs", "fn f() { Instant::now() }");
        assert!(faults("clock reads", &[clock, test, unit_test, report]).is_empty());
        let server = ("services/server/src/b.rs", "fn f() { std::time::Instant::now() }");
        assert_eq!(
            faults("clock reads", &[clock, report, server]),
            [
                "services/server/src/b.rs:1: clock reads may only be in host/src/clock.rs, tools/xtask/src/step.rs"
            ]
        );
    }

    #[test]
    fn atomics_come_from_one_module() {
        let module = ("core/src/sync.rs", "use core::sync::atomic::AtomicU64;");
        let by_module = ("core/src/compare_exchange.rs", "use crate::sync::AtomicU64;");
        let direct = ("host/src/gate.rs", "use std::sync::{Arc, atomic::AtomicBool};");
        assert!(faults("atomics", &[module, by_module]).is_empty());
        assert_eq!(faults("atomics", &[module, direct]).len(), 1);
    }

    #[test]
    fn allowed_file_without_the_code_is_a_fault() {
        assert_eq!(
            faults("atomics", &[("core/src/sync.rs", "fn f() {}")]),
            ["core/src/sync.rs: allowed to contain atomics, but it has none"]
        );
    }
}
