//! `cargo xtask timing`: measures checks of keys that are wrong in different ways, and writes
//! docs/TIMING.md and its histogram.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::{self, cargo};

const PAGE: &str = "docs/TIMING.md";
const PICTURE: &str = "docs/timing.svg";
const PROGRAM: &str = "target/timing/release/keytally-timing";

/// Measures `samples` checks of each kind and writes the page. Then fails if two kinds differ.
pub(crate) fn run(samples: u32) -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--release", "--manifest-path", "tools/audit/timing/Cargo.toml"]);
    build.args(["--target-dir", "target/timing"]);
    command::run(build)?;
    let mut measure = Command::new(PROGRAM);
    measure.args([&samples.to_string(), PICTURE]);
    let figures = command::run(measure)?;
    fs::write(PAGE, page(&figures, &processor()))?;
    let verdict =
        figures.lines().rfind(|line| line.starts_with("The largest")).context("no figures")?;
    println!("{verdict}");
    ensure!(
        !verdict.contains("NOT below"),
        "the time of a check depends on the kind of wrong key; {PAGE} has the figures"
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

Does the time of a check depend on how much of a secret is right, or on whether a key id exists?
Checks of keys that are wrong in different ways are measured one by one, in random order. Welch's
t-test then compares each two kinds: on all samples, and on those below several quantiles, since the
slowest samples measure the machine. A |t| of 5 or more counts as a difference. One kind is measured
twice, which shows the difference that the machine makes. Measured on {processor}.

![Histogram](timing.svg)

{figures}
Revoked keys and previous secrets take less time, since their secret is right: for a wrong key, the
check also finds the reason for the log, after the comparison. The response shows that a secret is
right, and the time shows no more than the response. A wrong key takes the same path if its record
is revoked or rotated.

*Not claimed:* that a record is read as fast from memory as from the processor's cache. The program
loads the record into the cache before each sample. Without that, a record that is checked less often
than others took a nanosecond longer here. So the time may show that a key with the same record was
checked a moment ago. It shows no secret and no key id.
"
    )
}
