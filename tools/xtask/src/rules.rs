//! The suites `rules` and `purity`: which files may contain what, and what depends on what.
//!
//! Clippy finds clock reads and atomics, but an `expect` in any file lifts its ban. The suite
//! `firmware` builds core for targets without std and without an allocator, and
//! `forbid(unsafe_code)` in core rejects unsafe code.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::command::{self, cargo};

/// A rule that some code may only be in named files.
#[derive(Debug)]
struct Rule {
    /// The name of the code, in the plural.
    subject: &'static str,
    /// An extended regular expression that matches the lines with the code.
    pattern: &'static str,
    /// The files that may contain the code. A file that does not contain it is a fault, so that the
    /// list stays exact.
    allowed: &'static [&'static str],
}

const RULES: [Rule; 4] = [
    Rule {
        subject: "unsafe code",
        pattern: r"\bunsafe (\{|fn|impl|trait|extern|auto)",
        // `ffi-c/src/pointers.rs` has types that check the pointers from C.
        allowed: &[
            "core/tests/wiped.rs",
            "ffi-c/src/pointers.rs",
            "host/src/map.rs",
            "host/tests/allocation.rs",
            "tools/audit/panics/src/lib.rs",
            "tools/firmware/device/src/stack.rs",
            "tools/fuzz/targets/src/c_calls.rs",
        ],
    },
    Rule {
        subject: "names for the linker",
        pattern: r"#!?\[.*\bunsafe\(|no_mangle|export_name",
        // The files with functions for C, and programs without an operating system.
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
            "ffi-c/tests/c/other.rs",
            "tools/audit/panics/src/lib.rs",
            "tools/firmware/wasm/src/lib.rs",
        ],
    },
    Rule {
        subject: "clock reads",
        pattern: r"clippy::disallowed_methods",
        // `step.rs` reports the duration of each step.
        allowed: &["benches/benches/measure.rs", "host/src/clock.rs", "tools/xtask/src/step.rs"],
    },
    Rule {
        subject: "atomics",
        pattern: r"clippy::disallowed_types",
        allowed: &[
            "benches/benches/measure.rs",
            "benches/benches/peers.rs",
            "core/src/sync.rs",
            "ffi-c/src/time.rs",
            "services/server/src/service/slots.rs",
            "services/server/tests/attacks.rs",
            "services/server/tests/lifecycle.rs",
        ],
    },
];

/// The files that may not name a folder around the product: those of the product, except Markdown
/// pages, which may link to any folder.
const PRODUCT: &[&str] =
    &["core", "host", "cli", "ffi-c", "include", "py", "benches", "vectors", "examples", ":!*.md"];

/// Matches a folder around the product: in a path, or alone between quotation marks, as where a
/// program joins a path.
const AROUND: &str =
    r#"(^|[^[:alnum:]_-])(adapters|services|tools)/|["'](adapters|services|tools)["']"#;

/// Matches a dependency of the workspace, which any package may have, on a package around the
/// product.
const DEPENDENCY: &str = r#"path = "(adapters|services|tools)/"#;

/// Checks that unsafe code, and exceptions from the bans of `clippy.toml`, are only in named files,
/// and that no file of the product names a folder around it.
pub(crate) fn check() -> Result<String> {
    let mut faults = Vec::new();
    for rule in &RULES {
        // Comments may name the code.
        let code = ["--name-only", "-e", rule.pattern, "--and", "--not", "-e", "^ *//"];
        let files = grep(&code, &["*.rs", ":!tools/xtask/src/rules.rs"])?;
        faults.extend(rule.faults(&files.lines().collect::<Vec<_>>()));
    }
    let named = grep(&["--line-number", "-e", AROUND], PRODUCT)?
        + &grep(&["--line-number", "-e", DEPENDENCY], &["Cargo.toml"])?;
    faults.extend(named.lines().map(|line| format!("the product uses a folder around it: {line}")));
    ensure!(faults.is_empty(), "tools/xtask/src/rules.rs has the rules:\n{}", faults.join("\n"));
    Ok(format!("{} rules, and the folders of the product", RULES.len()))
}

/// Returns the output of `git grep` in the files that git tracks, and in new ones.
fn grep(pattern: &[&str], files: &[&str]) -> Result<String> {
    let mut grep = Command::new("git");
    grep.args(["grep", "--untracked", "-I", "-E"]).args(pattern).arg("--").args(files);
    let output = grep.output()?;
    // The status is 1 if no line matches.
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(matches!(output.status.code(), Some(0 | 1)), "{grep:?} failed: {error}");
    Ok(String::from_utf8(output.stdout)?)
}

impl Rule {
    /// Returns a fault for each file with the code that is not allowed, and for each allowed file
    /// without it.
    fn faults(&self, files: &[&str]) -> Vec<String> {
        let Self { subject, allowed, .. } = self;
        let only = allowed.join(", ");
        let other = files.iter().filter(|file| !allowed.contains(file));
        let unused = allowed.iter().filter(|file| !files.contains(file));
        other
            .map(|file| format!("{file}: {subject} may only be in {only}"))
            .chain(unused.map(|file| format!("{file}: allowed to contain {subject}, has none")))
            .collect()
    }
}

/// The crates that core may depend on: direct dependencies, then indirect ones.
const CRATES: &[&str] = &[
    "keytally-core",
    "heapless",
    "portable-atomic",
    "sha2",
    "subtle",
    "zeroize",
    // Dependencies of sha2.
    "block-buffer",
    "cfg-if",
    "cpufeatures",
    "crypto-common",
    "digest",
    "hybrid-array",
    "typenum",
    // A dependency of cpufeatures, on systems that report the features of the processor.
    "libc",
    // Dependencies of heapless.
    "byteorder",
    "hash32",
    "stable_deref_trait",
];

/// Checks that core depends on the crates in [`CRATES`] only, and that none of them has its feature
/// `std` or `alloc`.
pub(crate) fn check_core() -> Result<String> {
    let mut tree = cargo();
    tree.args(["tree", "--quiet", "--package", "keytally-core", "--edges", "normal"]);
    tree.args(["--prefix", "none", "--format", "{p}|{f}"]);
    let faults = crate_faults(&command::run(tree)?);
    ensure!(faults.is_empty(), "core is not pure:\n{}", faults.join("\n"));
    Ok("pure".to_owned())
}

/// Returns the faults of the crates in the lines `NAME VERSION …|FEATURES` of `cargo tree`.
fn crate_faults(tree: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for line in tree.lines() {
        let (package, features) = line.split_once('|').unwrap_or((line, ""));
        let name = package.split(' ').next().unwrap_or_default();
        if !CRATES.contains(&name) {
            faults
                .push(format!("{name} is not among the crates named in tools/xtask/src/rules.rs"));
        }
        let features = features.split([',', ' ']);
        let impure = features.filter(|feature| ["std", "alloc"].contains(feature));
        faults.extend(impure.map(|feature| format!("{name} is built with its feature {feature}")));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_outside_its_files_is_a_fault() {
        let rule = Rule { subject: "atomics", pattern: "", allowed: &["core/src/sync.rs"] };
        assert!(rule.faults(&["core/src/sync.rs"]).is_empty());
        assert_eq!(
            rule.faults(&["host/src/gate.rs"]),
            [
                "host/src/gate.rs: atomics may only be in core/src/sync.rs",
                "core/src/sync.rs: allowed to contain atomics, has none"
            ]
        );
    }

    #[test]
    fn path_around_the_product_is_found() {
        let around = regex_lite::Regex::new(AROUND).unwrap();
        for line in [
            "let source = \"adapters/c/server.c\";",
            "//! See `tools/xtask/src/native.rs`.",
            "path = \"../services/server\"",
            "ROOT / \"services\" / \"server\"",
        ] {
            assert!(around.is_match(line), "{line}");
        }
        for line in ["from tools import program", "nginx-adapters/x", "\"the tools\"", "services."]
        {
            assert!(!around.is_match(line), "{line}");
        }
    }

    #[test]
    fn unknown_crate_or_std_feature_is_a_fault() {
        assert!(crate_faults("sha2 v0.11.1|oid\nsha2 v0.11.1|oid (*)\n").is_empty());
        assert_eq!(
            crate_faults("rand v0.9.0|\nsubtle v2.6.1|i128,std (*)\n"),
            [
                "rand is not among the crates named in tools/xtask/src/rules.rs",
                "subtle is built with its feature std"
            ]
        );
    }
}
