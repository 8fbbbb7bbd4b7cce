//! Unsafe code, and exceptions from the bans of `clippy.toml`, are only in named files, and no file
//! of the product names a folder around it.
//!
//! Clippy finds clock reads and atomics, but an `expect` in any file lifts its ban. The suite
//! `firmware` builds core for targets without std and without an allocator, and
//! `forbid(unsafe_code)` in core rejects unsafe code.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use std::process::Command;

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
            "adapters/node/src/values.rs",
            "core/tests/wiped.rs",
            "ffi-c/src/pointers.rs",
            "host/src/map.rs",
            "host/src/system/futex.rs",
            "host/src/system/windows.rs",
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
            "ffi-c/src/accounts.rs",
            "ffi-c/src/administer.rs",
            "ffi-c/src/charge.rs",
            "ffi-c/src/clock.rs",
            "ffi-c/src/compound.rs",
            "ffi-c/src/files.rs",
            "ffi-c/src/fleet.rs",
            "ffi-c/src/gate.rs",
            "ffi-c/src/inspect.rs",
            "ffi-c/src/key.rs",
            "ffi-c/src/limiter.rs",
            "ffi-c/src/message.rs",
            "ffi-c/src/policy.rs",
            "ffi-c/src/tallies.rs",
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
        allowed: &[
            "benches/benches/measure.rs",
            "host/src/clock.rs",
            "services/fleet/src/clock.rs",
            "services/fleet/tests/agent/support/time.rs",
            "services/keys/examples/figures.rs",
            "tools/xtask/src/step.rs",
        ],
    },
    Rule {
        subject: "atomics",
        pattern: r"clippy::disallowed_types",
        allowed: &[
            "benches/benches/measure.rs",
            "benches/benches/peers.rs",
            "core/src/sync.rs",
            "ffi-c/src/time.rs",
            "host/src/system/futex.rs",
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

/// The dependency that host may have: pure functions, without dependencies but core. The workspace
/// of the services has the package, for its tests on real stores.
const ALLOWED_DEPENDENCY: &str = "keytally-fleet-plan = { path = \"services/fleet/plan\"";

#[test]
fn code_of_each_rule_is_only_in_named_files() {
    for rule in &RULES {
        // Comments may name the code.
        let code = ["--name-only", "-e", rule.pattern, "--and", "--not", "-e", "^ *//"];
        let files = grep(&code, &["*.rs", ":!tools/audit/checks/tests/rules.rs"]);
        assert_eq!(rule.faults(&files.lines().collect::<Vec<_>>()), [""; 0]);
    }
}

#[test]
fn product_names_no_folder_around_it() {
    let named = grep(&["--line-number", "-e", AROUND], PRODUCT);
    assert_eq!(named, "");
    let dependencies = grep(&["-h", "-e", DEPENDENCY], &["Cargo.toml"]);
    let mut others = dependencies.lines().filter(|line| !line.starts_with(ALLOWED_DEPENDENCY));
    assert_eq!(others.next(), None);
    assert_eq!(dependencies.lines().count(), 1, "the allowed one is used");
}

/// Returns the output of `git grep` in the files that git tracks, and in new ones.
fn grep(pattern: &[&str], files: &[&str]) -> String {
    let mut grep = Command::new("git");
    grep.args(["grep", "--untracked", "-I", "-E"]).args(pattern).arg("--").args(files);
    let output = grep.current_dir(support::root()).output().unwrap();
    // The status is 1 if no line matches.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{grep:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
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
    for line in ["from tools import program", "nginx-adapters/x", "\"the tools\"", "services."] {
        assert!(!around.is_match(line), "{line}");
    }
}
