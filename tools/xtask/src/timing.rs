//! `cargo xtask timing`: measures checks of keys that are wrong in different ways, and writes docs/TIMING.md and its picture.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::{self, cargo};

const PAGE: &str = "docs/TIMING.md";
const PICTURE: &str = "docs/timing.svg";
const PROGRAM: &str = "target/timing/release/keytally-timing";

/// Measures so many samples of each kind. Fails when two kinds are told apart, after the page is written.
pub(crate) fn run(samples: u32) -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--release", "--manifest-path", "tools/audit/timing/Cargo.toml"]);
    build.args(["--target-dir", "target/timing"]);
    command::run(build)?;
    let mut measure = Command::new(PROGRAM);
    measure.args([&samples.to_string(), PICTURE]);
    let figures = command::run(measure)?;
    fs::write(PAGE, page(&figures, &processor()))?;
    let verdict = figures.lines().rfind(|line| line.starts_with("The largest")).context("no figures")?;
    println!("{verdict}");
    ensure!(
        !verdict.contains("NOT below"),
        "two kinds of key are told apart by their time; {PAGE} has the figures"
    );
    Ok(())
}

fn processor() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or("an unknown processor", |(_, model)| model).trim().to_owned()
}

fn page(figures: &str, processor: &str) -> String {
    format!(
        "\
<!-- Written by `cargo xtask timing`. -->
# Timing

Does the time of a check tell how much of a secret is right, or whether a key id exists? Single checks of keys that are wrong in
different ways, in random order, are timed, and each two kinds compared by Welch's t-test, on all samples and on those below some
quantile of both, since the slowest tell about the machine. A |t| of 5 or more would be a difference; two measurements of one kind
show what the machine alone makes of it. Measured on {processor}.

![Histogram](timing.svg)

{figures}
Keys that are revoked, and previous secrets, are quicker since they are right: for a wrong key the log is told why, after the
comparison. That a secret is right is told by the answer; the time tells nothing more. A key that is wrong and whose record is
revoked or rotated takes the path of all that are wrong.

*Not claimed:* that a record which nobody asked for lately is read as quickly as one that is in the processor's cache. Before each
sample the record is brought near. Without that, a record that is asked for less often than others took a nanosecond more here.
So the time may tell that *some* key which shares the record's place in the table was in use a moment ago; no secret, and no key id.
"
    )
}
