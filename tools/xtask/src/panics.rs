//! The suite `panics`: the places in a check that could panic are the ones on docs/PANICS.md, each with the reason why it
//! doesn't. `cargo xtask panics` writes the page anew.
//!
//! `tools/audit/panics` is both checks as a library without std, in one piece and with the shipped flags. What its object still
//! calls of `core::panicking` is all that the compiler could not prove away.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::command::{self, cargo};
use crate::tools::{self, Found};

const PAGE: &str = "docs/PANICS.md";
const FOLDER: &str = "target/panics";

/// Why the places of a kind in a file are never reached on valid memory.
const REASONS: &[(&str, Kind, &str)] = &[
    (
        "core/src/decide.rs",
        Kind::Arithmetic,
        "A layout is refused when its last stamp, the tolerance and three of its longest windows leave 64 bits of milliseconds.",
    ),
    (
        "core/src/gate.rs",
        Kind::Index,
        "A record's number is below the capacity, being the upper half of a product with it, and opening found the memory to hold the \
         header and that many records; the header's lines are constants below its length.",
    ),
    ("core/src/gate.rs", Kind::Arithmetic, "The same: the sum is below the number of lines."),
    (
        "core/src/gate/plan.rs",
        Kind::Index,
        "A plan's number is compared with the number of plans that there is room for.",
    ),
    (
        "core/src/gate/plan.rs",
        Kind::Arithmetic,
        "The records begin after the fixed lines: opening found it so.",
    ),
    ("core/src/key.rs", Kind::Arithmetic, "The text was found to be longer than a body."),
    (
        "core/src/limiter.rs",
        Kind::Index,
        "A bucket's number is below the number of buckets, and opening found the memory to hold them and their lock words.",
    ),
    (
        "core/src/limiter/insert.rs",
        Kind::Index,
        "A bucket's number is below the number of buckets, and opening found the memory to hold their lock words.",
    ),
    (
        "core/src/limiter/insert.rs",
        Kind::Arithmetic,
        "A bucket has eight slots to count, and an inserter waits at most `CLAIM_SPINS` turns.",
    ),
    ("core/src/limiter.rs", Kind::Arithmetic, "The same; and a bucket has eight slots to count."),
    (
        "core/src/mac.rs",
        Kind::Arithmetic,
        "A key that gets this far has 256 bytes at most, and a list of peppers is never empty: making an empty one is an error.",
    ),
    ("core/src/record.rs", Kind::Arithmetic, "A record's number is below 2^26."),
    (
        "core/src/tally.rs",
        Kind::Arithmetic,
        "Widths and shifts are the layout's, whose sum was found to be 64 when it was made; stamps only grow; a count stays within its field, \
         since limits are cut to what the field holds.",
    ),
    (
        "core/src/bits.rs",
        Kind::Arithmetic,
        "The estimate times the divisor is at most the number: the proof stands above it.",
    ),
    (
        "library/core",
        Kind::Arithmetic,
        "A range over a bucket's slots or a layout's windows ends long before its numbers do.",
    ),
    ("library/core", Kind::Index, "A bucket's lines lie within the memory, as above."),
];

/// What a place would panic on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    Arithmetic,
    Division,
    Index,
}

impl Kind {
    fn of(symbol: &str) -> Result<Self> {
        Ok(match symbol {
            _ if symbol.contains("_overflow") => Self::Arithmetic,
            _ if symbol.contains("div_by_zero") => Self::Division,
            _ if symbol.contains("bounds_check") || symbol.contains("slice_index_fail") => Self::Index,
            _ => bail!("a check can panic in a new way: {symbol}"),
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Arithmetic => "a number that overflows",
            Self::Division => "a division by zero",
            Self::Index => "an index out of bounds",
        }
    }
}

/// A place: its file and its line as text, since numbers of lines change with every edit.
type Places = HashMap<(String, Kind), Vec<String>>;

/// The page is what the object says.
pub(crate) fn check(found: &[Found]) -> Result<String> {
    let compiler = tools::compiler()?;
    let recorded = fs::read_to_string(PAGE).unwrap_or_default();
    if recorded.contains("rustc ") && !recorded.contains(&compiler) {
        // Another compiler proves more or less; the page's own is the one that is compared.
        return Ok(format!("{PAGE} tells of another compiler than {compiler}: nothing to compare"));
    }
    let objdump = tools::OBJDUMP.among(found)?;
    let places = places(objdump)?;
    let fresh = page(&compiler, &places)?;
    let page = recorded;
    let new: Vec<&str> = fresh.lines().filter(|line| !page.lines().any(|other| other == *line)).collect();
    let gone: Vec<&str> = page.lines().filter(|line| !fresh.lines().any(|other| other == *line)).collect();
    ensure!(
        page == fresh,
        "{PAGE} is not what the compiler left.\nNew:\n{}\nGone:\n{}\n`cargo xtask panics` writes it anew; look at what is new.",
        new.join("\n"),
        gone.join("\n")
    );
    Ok(format!("{} places, all known", places.values().map(Vec::len).sum::<usize>()))
}

/// Writes the page.
pub(crate) fn write() -> Result<()> {
    let objdump = tools::OBJDUMP.path()?;
    fs::write(PAGE, page(&tools::compiler()?, &places(&objdump)?)?)?;
    println!("wrote {PAGE}");
    Ok(())
}

fn places(objdump: &Path) -> Result<Places> {
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
    // The newest is this build's.
    objects.sort_by_key(|path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok());
    let object = objects.last().context("the compiler left no object")?;
    let mut dump = Command::new(objdump);
    dump.args(["--disassemble", "--reloc", "--line-numbers", "--no-show-raw-insn"]).arg(object);
    places_in(&command::run(dump)?, |file, line| {
        let source = fs::read_to_string(file).ok()?;
        Some(source.lines().nth(line.checked_sub(1)?)?.trim().to_owned())
    })
}

/// Reads the places out of a disassembly with line numbers and relocations.
fn places_in(dump: &str, text: impl Fn(&str, usize) -> Option<String>) -> Result<Places> {
    let mut places = Places::new();
    let mut at = None;
    for line in dump.lines() {
        if let Some(place) = place_of(line) {
            at = Some(place);
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
            // The way from a panic to its handler is not a place.
            Some(from) if file[from..].starts_with("library/core/src/panic") => continue,
            Some(from) => ("library/core".to_owned(), file[from..].to_owned()),
            None => {
                let from = file.rfind("core/src/").with_context(|| format!("a panic in {file}"))?;
                let file = &file[from..];
                (file.to_owned(), text(file, number).with_context(|| format!("no line {number} in {file}"))?)
            }
        };
        let texts = places.entry((file, Kind::of(symbol)?)).or_default();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    for texts in places.values_mut() {
        texts.sort();
    }
    ensure!(!places.is_empty(), "the object says nothing of any panic, so it isn't the one that was meant");
    Ok(places)
}

/// The place in a line `/path/file.rs:12 (discriminator 3)`.
fn place_of(line: &str) -> Option<(String, usize)> {
    let (file, number) = line.strip_prefix('/')?.split_once(".rs:")?;
    let number = number.split(' ').next()?.parse().ok()?;
    Some((format!("/{file}.rs"), number))
}

fn page(compiler: &str, places: &Places) -> Result<String> {
    let mut page = "\
<!-- Written by `cargo xtask panics`. -->
# Panics

These are the places in `Gate::check` and `Limiter::check`, with all that they call, where the compiler could not prove that nothing
panics; everything else is proved by it. They are read off the object of `tools/audit/panics`: both checks in one piece, with the
optimizations and overflow checks that ship. The suite `panics` goes red when there is a new one.

None is reached on valid memory; why, stands beside each group. On memory with anything else in it, the fuzz target `open_bytes` looks for
one that is. There is no `unwrap`, no `expect` and no assertion among them.
"
    .to_owned();
    page += &format!(
        "\nThe compiler was {compiler}; another may prove more or less, and the suite compares nothing then.\n"
    );
    let mut groups: Vec<_> = places.iter().collect();
    groups.sort();
    for ((file, kind), texts) in groups {
        let reason = REASONS.iter().find(|(other, of, _)| other == file && of == kind);
        let (_, _, reason) = reason.with_context(|| {
            format!("tools/xtask/src/panics.rs has no reason for {} in {file}: {texts:?}", kind.name())
        })?;
        let source =
            if file.starts_with("core/") { format!("`{file}`") } else { "The standard library".to_owned() };
        page +=
            &format!("\n## {source}: {}\n\n{reason}\n\n```rust\n{}\n```\n", kind.name(), texts.join("\n"));
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
    fn places_are_read_off_the_object() {
        let places = places_in(DUMP, |file, line| Some(format!("{file} {line}"))).unwrap();
        let mut found: Vec<_> = places.into_iter().collect();
        found.sort();
        assert_eq!(
            found,
            [
                (("core/src/mac.rs".into(), Kind::Arithmetic), vec!["core/src/mac.rs 125".into()]),
                (("library/core".into(), Kind::Index), vec!["library/core/src/slice/index.rs".into()]),
            ]
        );
    }

    #[test]
    fn a_new_kind_and_a_place_without_a_reason_are_faults() {
        assert!(Kind::of(".text.core9panicking13unwrap_failed").is_err());
        let places = [(("core/src/line.rs".to_owned(), Kind::Index), vec!["x".to_owned()])].into();
        assert!(page("rustc", &places).unwrap_err().to_string().contains("no reason"));
    }
}
