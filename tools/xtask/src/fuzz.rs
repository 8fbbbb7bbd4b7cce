//! `cargo xtask fuzz`: runs the fuzz targets with new inputs, for a given time.
//!
//! Stable Rust has the instrumentation that libFuzzer needs. AddressSanitizer would need a nightly
//! compiler. It could check only the target `c_calls`, since core has no unsafe code. The programs
//! stop at an arithmetic overflow and at a failed assertion.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::command;
use crate::targets::target_folder;
use crate::tools;

/// Runs one target, or all in turn. Inputs that reach new code are kept in the target folder. Tests
/// replay the smaller corpora in `tools/fuzz/corpus`.
pub(crate) fn run(target: Option<&str>, seconds: u32) -> Result<()> {
    let cargo_fuzz = tools::cargo_fuzz()?;
    let folder = target_folder()?.join("fuzz");
    let mut list = Command::new(&cargo_fuzz);
    list.args(["fuzz", "list", "--fuzz-dir", "tools/fuzz"]);
    let list = if target.is_none() { command::run(list)? } else { String::new() };
    for name in target.into_iter().chain(list.lines()) {
        let kept = folder.join("corpus").join(name);
        fs::create_dir_all(&kept)?;
        let mut fuzz = Command::new(&cargo_fuzz);
        fuzz.args(["fuzz", "run", "--fuzz-dir", "tools/fuzz", "--sanitizer", "none"]);
        fuzz.arg("--target-dir").arg(&folder).arg(name).arg(&kept);
        // At most 1,024 bytes and 10 seconds for an input.
        fuzz.args([&format!("tools/fuzz/corpus/{name}"), "--", "-max_len=1024", "-timeout=10"]);
        let status = fuzz.arg(format!("-max_total_time={seconds}")).status()?;
        ensure!(
            status.success(),
            "{name} failed on an input, which is in tools/fuzz/artifacts/{name}; when it is fixed, \
             move the input to tools/fuzz/corpus/{name}"
        );
    }
    Ok(())
}
