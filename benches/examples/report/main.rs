//! Writes the pages with results. `cargo xtask bench` runs it from the repository's root.
//!
//! - `report print FOLDER GROUP…` prints the tables of measured groups, and which targets are met.
//! - `report replace FOLDER GROUP…` also writes the pages, with these groups only.
//! - `report keep FOLDER GROUP…` also writes the pages, and keeps the results of other groups.
//! - `report pages` writes all other pages from benches/RESULTS.md.
//!
//! | file | contents |
//! |---|---|
//! | `results.rs` | the tables, in and out of `benches/RESULTS.md` |
//! | `targets.rs` | the comparison with `benches/targets.txt` |
//! | `pages.rs` | README.md and other pages, filled with figures |
//! | `plots.rs` | the plots of docs/PERFORMANCE.md |

mod pages;
mod plots;
mod results;
mod targets;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::results::{Group, Results};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = Path::new(".");
    let (mode, folder, groups) = match arguments.as_slice() {
        ["pages"] => return pages::write(root),
        [mode @ ("print" | "replace" | "keep"), folder, groups @ ..] => (*mode, folder, groups),
        _ => bail!("not a command of the report: {}", arguments.join(" ")),
    };
    let mut results = Results::load(root)?;
    if mode != "keep" {
        results.clear();
    }
    let circumstances = circumstances()?;
    for group in groups {
        let path = Path::new(folder).join(format!("{group}.json"));
        let json = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let measured: Group =
            serde_json::from_slice(&json).with_context(|| format!("invalid results of {group}"))?;
        let text = measured.text(&circumstances);
        println!("{text}");
        results.put(&text);
    }
    println!("{}", targets::compare(&results, &fs::read_to_string(targets::FILE)?)?);
    if mode == "print" {
        return Ok(());
    }
    results.save(root)?;
    pages::write(root)
}

/// The circumstances of a measurement, and the commands of a shell that print them.
/// `cargo xtask bench` sets the variables.
const CIRCUMSTANCES: &[(&str, &str)] = &[
    (
        "turns of each implementation",
        "echo \"$KEYTALLY_BENCH_ROUNDS of $KEYTALLY_BENCH_TURN_MS ms\"",
    ),
    ("processor", "lscpu | sed -n 's/^Model name: *//p'"),
    ("cores", "nproc"),
    ("instructions for SHA-256", "grep -qwE 'sha_ni|sha2' /proc/cpuinfo && echo yes || echo no"),
    ("caches", "lscpu -C=NAME,ONE-SIZE | sed '1d' | tr -s ' ' | paste -sd,"),
    ("compiler", "rustc --version"),
    ("date", "date -u +%F"),
    ("commit", "git describe --always --exclude='*' --abbrev=12 --dirty=' and changes'"),
    ("runnable threads in the minute before", "echo \"$KEYTALLY_BENCH_LOAD\""),
];

/// Returns the circumstances as rows of a table.
fn circumstances() -> Result<String> {
    let mut rows = String::new();
    for (name, script) in CIRCUMSTANCES {
        let output = Command::new("sh").args(["-c", script]).env("LC_ALL", "C").output()?;
        ensure!(output.status.success(), "cannot find out the {name}: {script}");
        rows += &format!("| {name} | {} |\n", String::from_utf8(output.stdout)?.trim());
    }
    Ok(rows)
}

/// Returns the root of the repository.
#[cfg(test)]
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
