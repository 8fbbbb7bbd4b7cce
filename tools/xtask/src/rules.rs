//! What may only be in named files: unsafe code, clock reads, atomics.
//!
//! Clippy bans the same clocks and atomics, but an `expect` lifts a ban anywhere. Here the files are named.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::source::{TestItems, lines_of, rust_files, words};
use crate::targets::{WORKSPACES, list, metadata_of, text};
use crate::tools::Found;

/// Something that may only be in named files.
#[derive(Debug)]
struct Rule {
    /// What it is about, in the plural.
    what: &'static str,
    /// What is looked for, as rows of words.
    patterns: &'static [&'static str],
    /// Folders in which it holds; none means everywhere.
    folders: &'static [&'static str],
    /// Whether it holds in tests too.
    in_tests: bool,
    /// The files that may have it, and must: a file that no longer has it is removed from the list.
    homes: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule {
        what: "unsafe code",
        // Whatever may follow the word, but for attributes, which have a rule of their own.
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
        // Everything that C hands over goes through the third, as types that it checks.
        homes: &[
            "core/tests/wiped.rs",
            "host/src/map.rs",
            "ffi-c/src/pointers.rs",
            "tools/fuzz/targets/src/c_calls.rs",
            "host/tests/allocation.rs",
        ],
    },
    Rule {
        what: "names for the linker",
        patterns: &["unsafe (", "no_mangle", "export_name"],
        folders: &[],
        in_tests: true,
        // What C calls.
        homes: &[
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
        what: "clock reads",
        patterns: &["SystemTime : : now", "Instant : : now"],
        folders: &[],
        in_tests: false,
        // The second times the steps of its report.
        homes: &["host/src/clock.rs", "tools/xtask/src/step.rs"],
    },
    Rule {
        what: "atomics",
        patterns: &["sync : : atomic", "atomic : :"],
        folders: &["core", "host"],
        in_tests: false,
        homes: &["core/src/sync.rs"],
    },
];

/// Every source file of the workspace keeps every rule.
pub(crate) fn check(_: &[Found]) -> Result<String> {
    let sources = sources()?;
    let faults =
        RULES.iter().map(|rule| rule.faults(&sources)).collect::<Result<Vec<_>>>()?.concat();
    ensure!(faults.is_empty(), "tools/xtask/src/rules.rs names the files:\n{}", faults.join("\n"));
    Ok(format!("{} files", sources.len()))
}

/// A source file: its path from the workspace's folder, and its content.
type Source = (String, String);

impl Rule {
    fn faults(&self, sources: &[Source]) -> Result<Vec<String>> {
        let mut faults = Vec::new();
        let mut unused = self.homes.to_vec();
        for (path, content) in sources.iter().filter(|(path, _)| self.covers(path)) {
            let lines = self.lines(content).with_context(|| format!("cannot read {path}"))?;
            if self.homes.contains(&path.as_str()) {
                unused.retain(|home| lines.is_empty() || home != path);
            } else {
                let home = self.homes.join(" and ");
                let fault =
                    |line| format!("{path}:{line}: {what} may only be in {home}", what = self.what);
                faults.extend(lines.into_iter().map(fault));
            }
        }
        let none = |home| {
            format!("{home}: named as a file with {what}, but it has none", what = self.what)
        };
        faults.extend(unused.into_iter().map(none));
        Ok(faults)
    }

    fn covers(&self, path: &str) -> bool {
        let in_folder =
            self.folders.is_empty() || self.folders.contains(&path.split('/').next().unwrap_or(""));
        let is_test =
            ["/tests/", "/benches/", "/examples/"].iter().any(|folder| path.contains(folder));
        in_folder && (self.in_tests || !is_test)
    }

    fn lines(&self, content: &str) -> Result<Vec<usize>> {
        let words = words(content, if self.in_tests { TestItems::Count } else { TestItems::Skip })?;
        Ok(self.patterns.iter().flat_map(|pattern| lines_of(&words, pattern)).collect())
    }
}

/// Every Rust file in the folders of the workspace's packages.
fn sources() -> Result<Vec<Source>> {
    let workspace = std::env::current_dir()?;
    let mut sources = Vec::new();
    let metadata = WORKSPACES.map(metadata_of).into_iter().collect::<Result<Vec<_>>>()?;
    let packages =
        metadata.iter().map(|metadata| list(metadata, "packages")).collect::<Result<Vec<_>>>()?;
    for package in packages.into_iter().flatten() {
        let manifest = Path::new(text(package, "manifest_path")?);
        let folder = manifest.parent().context("a manifest without a folder")?;
        for file in rust_files(folder)? {
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

    fn faults(rule: &str, sources: &[(&str, &str)]) -> Vec<String> {
        let rule = RULES.iter().find(|each| each.what == rule).unwrap();
        let owned: Vec<Source> =
            sources.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect();
        rule.faults(&owned).unwrap()
    }

    #[test]
    fn unsafe_stands_only_in_its_file() {
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
                "core/tests/x.rs:2: unsafe code may only be in core/tests/wiped.rs and host/src/map.rs and ffi-c/src/pointers.rs and tools/fuzz/targets/src/c_calls.rs and host/tests/allocation.rs"
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
                "services/server/src/b.rs:1: clock reads may only be in host/src/clock.rs and tools/xtask/src/step.rs"
            ]
        );
    }

    #[test]
    fn atomics_come_from_one_module() {
        let module = ("core/src/sync.rs", "use core::sync::atomic::AtomicU64;");
        let through = ("core/src/compare_exchange.rs", "use crate::sync::AtomicU64;");
        let past = ("host/src/gate.rs", "use std::sync::{Arc, atomic::AtomicBool};");
        assert!(faults("atomics", &[module, through]).is_empty());
        assert_eq!(faults("atomics", &[module, past]).len(), 1);
    }

    #[test]
    fn a_named_file_that_needs_no_name_is_a_fault() {
        assert_eq!(
            faults("atomics", &[("core/src/sync.rs", "fn f() {}")]),
            ["core/src/sync.rs: named as a file with atomics, but it has none"]
        );
    }
}
