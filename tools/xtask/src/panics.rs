//! The suite `panics`: the source lines of a check that could panic are those on docs/PANICS.md,
//! each with the reason why it does not. `cargo xtask panics` writes the page.
//!
//! `tools/audit/panics` compiles both checks into one object without std, with the release's flags.
//! The compiler has proved away all panics but the calls into `core::panicking` in this object.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::command::{self, cargo};
use crate::tools::{self, Found};

const PAGE: &str = "docs/PANICS.md";
const FOLDER: &str = "target/panics";

/// The reasons why the panics of a kind in a file are not reached on valid memory.
const REASONS: &[(&str, Kind, &str)] = &[
    (
        "core/src/decide.rs",
        Kind::Arithmetic,
        "A layout is rejected unless its last stamp, the tolerance and three of its longest windows\n\
         fit in 64 bits of milliseconds.",
    ),
    (
        "core/src/gate/table.rs",
        Kind::Index,
        "A record's number is the upper half of a product with the capacity, and so below the capacity.\n\
         Opening checked that the memory holds the header and that many records. The header's lines are\n\
         constants below its length.",
    ),
    (
        "core/src/gate/table.rs",
        Kind::Arithmetic,
        "The sum is the index of a line, below the number of lines.",
    ),
    (
        "core/src/gate/imported.rs",
        Kind::Index,
        "The header's lines are constants below its length. Opening checked that the memory holds it.",
    ),
    (
        "core/src/gate/plans.rs",
        Kind::Index,
        "A plan's number was compared with the number of plan slots.",
    ),
    (
        "core/src/gate/plans.rs",
        Kind::Arithmetic,
        "Opening checked that the records begin after the fixed lines.",
    ),
    (
        "core/src/key.rs",
        Kind::Arithmetic,
        "The parser checked that the text is longer than a body.",
    ),
    (
        "core/src/limiter/table.rs",
        Kind::Index,
        "A bucket's number is below the number of buckets. Opening checked that the memory holds them and\n\
         their lock words.",
    ),
    (
        "core/src/limiter/table.rs",
        Kind::Arithmetic,
        "A bucket's number is below the number of buckets, and a bucket has eight slots.",
    ),
    (
        "core/src/limiter/insert.rs",
        Kind::Arithmetic,
        "A bucket has eight slots, and an inserter waits at most `LOCK_SPINS` spins.",
    ),
    (
        "core/src/mac.rs",
        Kind::Arithmetic,
        "A key that reaches this line has at most 256 bytes. A list of peppers is not empty: creating an\n\
         empty one is an error.",
    ),
    ("core/src/record.rs", Kind::Arithmetic, "A record's number is below 2^26."),
    (
        "core/src/tally.rs",
        Kind::Arithmetic,
        "Widths and shifts are the layout's. Its creation checked that the widths add up to 64. Stamps\n\
         only grow. A count fits its field, since limits are capped at the field's maximum.",
    ),
    (
        "core/src/tally/counts.rs",
        Kind::Arithmetic,
        "In the word, a sliding window's previous count lies directly below its current one, as the\n\
         layout's creation checked. The time within a window is less than its length. A count of 32 bits\n\
         times a length below 2^32 ms fits.",
    ),
    (
        "core/src/bits.rs",
        Kind::Arithmetic,
        "The estimate times the divisor is at most the number. The proof is the comment above this line.",
    ),
    (
        "library/core",
        Kind::Arithmetic,
        "A range over a bucket's slots or a layout's windows ends before its index overflows.",
    ),
    ("library/core", Kind::Index, "A bucket's lines lie within the memory, as opening checked."),
];

/// The cause of a panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    Arithmetic,
    Division,
    Index,
}

impl Kind {
    fn from_symbol(symbol: &str) -> Result<Self> {
        Ok(match symbol {
            _ if symbol.contains("_overflow") => Self::Arithmetic,
            _ if symbol.contains("div_by_zero") => Self::Division,
            _ if symbol.contains("bounds_check") || symbol.contains("slice_index_fail") => {
                Self::Index
            }
            _ => bail!("a check can panic for a cause that is not listed: {symbol}"),
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Arithmetic => "arithmetic overflow",
            Self::Division => "division by zero",
            Self::Index => "index out of bounds",
        }
    }
}

/// Lines that could panic, by file and kind. Lines are kept as text, since line numbers change with
/// each edit.
type PanicLines = HashMap<(String, Kind), Vec<String>>;

/// Checks that the page lists the lines of the object that could panic.
pub(crate) fn check(found: &[Found]) -> Result<String> {
    let compiler = tools::compiler()?;
    let recorded = fs::read_to_string(PAGE).unwrap_or_default();
    if recorded.contains("rustc ") && !recorded.contains(&compiler) {
        // Another compiler may prove more or less, so the page holds only for its own.
        return Ok(format!(
            "not compared: {PAGE} was written with another compiler than {compiler}"
        ));
    }
    let objdump = tools::OBJDUMP.among(found)?;
    let lines = panic_lines(objdump)?;
    let fresh = page(&compiler, &lines)?;
    let page = recorded;
    let new: Vec<&str> =
        fresh.lines().filter(|line| !page.lines().any(|other| other == *line)).collect();
    let removed: Vec<&str> =
        page.lines().filter(|line| !fresh.lines().any(|other| other == *line)).collect();
    ensure!(
        page == fresh,
        "{PAGE} does not list the panics of this build.\nNew:\n{}\nRemoved:\n{}\nProve that the new ones cannot happen, then run `cargo xtask panics` to write the page",
        new.join("\n"),
        removed.join("\n")
    );
    Ok(format!(
        "{} lines could panic, each with a reason",
        lines.values().map(Vec::len).sum::<usize>()
    ))
}

/// Writes the page.
pub(crate) fn write() -> Result<()> {
    let objdump = tools::OBJDUMP.path()?;
    fs::write(PAGE, page(&tools::compiler()?, &panic_lines(&objdump)?)?)?;
    println!("wrote {PAGE}");
    Ok(())
}

/// Builds the object and returns its lines that could panic.
fn panic_lines(objdump: &Path) -> Result<PanicLines> {
    let mut build = cargo();
    build.args([
        "rustc",
        "--release",
        "--manifest-path",
        "tools/audit/panics/Cargo.toml",
        "--target-dir",
        FOLDER,
    ]);
    build.args(["--", "--emit=obj"]);
    command::run(build)?;
    let mut objects: Vec<_> = fs::read_dir(Path::new(FOLDER).join("release/deps"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    objects.retain(|path| path.extension().is_some_and(|extension| extension == "o"));
    // The newest object is that of this build.
    objects.sort_by_key(|path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok());
    let object = objects.last().context("the compiler wrote no object")?;
    let mut dump = Command::new(objdump);
    dump.args(["--disassemble", "--reloc", "--line-numbers", "--no-show-raw-insn"]).arg(object);
    panic_lines_in(&command::run(dump)?, |file, line| {
        let source = fs::read_to_string(file).ok()?;
        Some(source.lines().nth(line.checked_sub(1)?)?.trim().to_owned())
    })
}

/// Returns the lines that could panic in a disassembly with line numbers and relocations.
///
/// `text` returns the text of a line of a file.
fn panic_lines_in(dump: &str, text: impl Fn(&str, usize) -> Option<String>) -> Result<PanicLines> {
    let mut lines = PanicLines::new();
    let mut at = None;
    for line in dump.lines() {
        if let Some(position) = position_of(line) {
            at = Some(position);
            continue;
        }
        let Some((_, symbol)) =
            line.split_once("R_").and_then(|(_, rest)| rest.split_once(char::is_whitespace))
        else {
            continue;
        };
        if !symbol.contains("9panicking") && !symbol.contains("slice_index_fail") {
            continue;
        }
        let (file, number) = at.clone().context("a call without a line")?;
        let (file, text) = match file.find("library/core/") {
            // A call within the panic code of core is a consequence of a panic, not a cause.
            Some(from) if file[from..].starts_with("library/core/src/panic") => continue,
            Some(from) => ("library/core".to_owned(), file[from..].to_owned()),
            None => {
                let from = file.rfind("core/src/").with_context(|| format!("a panic in {file}"))?;
                let file = &file[from..];
                (
                    file.to_owned(),
                    text(file, number).with_context(|| format!("no line {number} in {file}"))?,
                )
            }
        };
        let texts = lines.entry((file, Kind::from_symbol(symbol)?)).or_default();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    for texts in lines.values_mut() {
        texts.sort();
    }
    ensure!(!lines.is_empty(), "the object has no panics, so it is not that of the checks");
    Ok(lines)
}

/// Parses the file and line number in `/path/file.rs:12 (discriminator 3)`.
fn position_of(line: &str) -> Option<(String, usize)> {
    let (file, number) = line.strip_prefix('/')?.split_once(".rs:")?;
    let number = number.split(' ').next()?.parse().ok()?;
    Some((format!("/{file}.rs"), number))
}

fn page(compiler: &str, lines: &PanicLines) -> Result<String> {
    let mut page = "\
<!-- Written by `cargo xtask panics`. -->
# Panics

This page lists the source lines of `Gate::check` and `Limiter::check`, with all that they call,
that could panic. For all other lines, the compiler has proved that they do not. The list comes from
the object of `tools/audit/panics`: both checks, with the optimizations and overflow checks of a
release. The suite `panics` fails if a line is added.

On valid memory, none of them panics. Each group states why. On arbitrary memory, the fuzz target
`open_bytes` searches for one that does. None is an `unwrap`, an `expect` or an assertion.
"
    .to_owned();
    page += &format!(
        "\nThe compiler was {compiler}.\nAnother may prove more or less, so the suite then compares nothing.\n"
    );
    let mut groups: Vec<_> = lines.iter().collect();
    groups.sort();
    for ((file, kind), texts) in groups {
        let reason = REASONS.iter().find(|reason| (reason.0, reason.1) == (file.as_str(), *kind));
        let (_, _, reason) = reason.with_context(|| {
            format!(
                "tools/xtask/src/panics.rs has no reason for {} in {file}: {texts:?}",
                kind.name()
            )
        })?;
        let source = if file.starts_with("core/") {
            format!("`{file}`")
        } else {
            "The standard library".to_owned()
        };
        page += &format!(
            "\n## {source}: {}\n\n{reason}\n\n```rust\n{}\n```\n",
            kind.name(),
            texts.join("\n")
        );
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "\
hash():
/somewhere/core/src/mac.rs:125 (discriminator 2)
 24f:\tcall   254 <x>
\t\t\t250: R_X86_64_PLT32\t.text._RNvNtNtCs_4core9panicking11panic_const24panic_const_mul_overflow-0x4
/rustc/0/library/core/src/slice/index.rs:443
\t\t\t260: R_X86_64_PLT32\t.text._RNvNtNtNtCs_4core5slice5index16slice_index_fail-0x4
/rustc/0/library/core/src/panicking.rs:175
\t\t\t270: R_X86_64_PLT32\t.text._RNvNtCs_4core9panicking9panic_fmt-0x4
";

    #[test]
    fn disassembly_gives_lines_by_file_and_kind() {
        let lines = panic_lines_in(DUMP, |file, line| Some(format!("{file} {line}"))).unwrap();
        let mut found: Vec<_> = lines.into_iter().collect();
        found.sort();
        assert_eq!(
            found,
            [
                (("core/src/mac.rs".into(), Kind::Arithmetic), vec!["core/src/mac.rs 125".into()]),
                (
                    ("library/core".into(), Kind::Index),
                    vec!["library/core/src/slice/index.rs".into()]
                ),
            ]
        );
    }

    #[test]
    fn unknown_kind_or_line_without_reason_is_an_error() {
        assert!(Kind::from_symbol(".text.core9panicking13unwrap_failed").is_err());
        let lines =
            [(("core/src/cache_line.rs".to_owned(), Kind::Index), vec!["x".to_owned()])].into();
        assert!(page("rustc", &lines).unwrap_err().to_string().contains("no reason"));
    }
}
