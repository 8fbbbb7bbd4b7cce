//! The suite `rules`: unsafe code, and exceptions from the bans of `clippy.toml`, are only in named
//! files, and the product does not depend on the folders around it.
//!
//! Clippy finds clock reads and atomics, but an `expect` in any file lifts its ban.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::command;
use crate::product;
use crate::tools::Found;

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

/// Checks the Rust files that git tracks against every rule.
pub(crate) fn check(_: &[Found]) -> Result<String> {
    product::check()?;
    let mut faults = Vec::new();
    for rule in &RULES {
        let mut grep = Command::new("git");
        grep.args([
            "grep",
            "--line-number",
            "--untracked",
            "-E",
            rule.pattern,
            "--",
            "*.rs",
            ":!tools/xtask/src/rules.rs",
        ]);
        faults.extend(rule.faults(&command::run(grep)?));
    }
    ensure!(
        faults.is_empty(),
        "code is outside of the files that tools/xtask/src/rules.rs allows:\n{}",
        faults.join("\n")
    );
    Ok(format!("{} rules", RULES.len()))
}

impl Rule {
    /// Returns a fault for each line `PATH:LINE:CODE` that breaks the rule, and for each allowed
    /// file without such a line.
    fn faults(&self, lines: &str) -> Vec<String> {
        let mut faults = Vec::new();
        let mut unused = self.allowed.to_vec();
        for line in lines.lines() {
            let mut parts = line.splitn(3, ':');
            let (path, number) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
            let code = parts.next().unwrap_or("").trim_start();
            if code.starts_with("//") {
                continue;
            }
            if self.allowed.contains(&path) {
                unused.retain(|&allowed| allowed != path);
            } else {
                let allowed = self.allowed.join(", ");
                faults.push(format!("{path}:{number}: {} may only be in {allowed}", self.subject));
            }
        }
        let without =
            |file| format!("{file}: allowed to contain {}, but it has none", self.subject);
        faults.extend(unused.into_iter().map(without));
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { subject: "atomics", pattern: "", allowed: &["core/src/sync.rs"] };

    #[test]
    fn code_outside_its_files_is_a_fault() {
        let allowed = "core/src/sync.rs:20:#[expect(the_ban)]\n";
        let comment = "core/src/tally.rs:3:    // the_ban\n";
        assert!(RULE.faults(&format!("{allowed}{comment}")).is_empty());
        let other = "host/src/gate.rs:7:#[expect(the_ban)]\n";
        assert_eq!(
            RULE.faults(&format!("{allowed}{other}")),
            ["host/src/gate.rs:7: atomics may only be in core/src/sync.rs"]
        );
    }

    #[test]
    fn allowed_file_without_the_code_is_a_fault() {
        let fault = "core/src/sync.rs: allowed to contain atomics, but it has none";
        assert_eq!(RULE.faults(""), [fault]);
    }
}
