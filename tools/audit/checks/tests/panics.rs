//! The source lines of a check that could panic are those in `tools/audit/panics/expected.txt`.
//! Each has the reason why it does not.
//!
//! `tools/audit/panics` compiles both checks into one library without std, with the settings of a
//! release. The compiler has proved away all panics but the calls into `core::panicking` in this
//! library. It is linked with its relocations, so that each call names its target.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use alloc::collections::{BTreeMap, BTreeSet};
use core::fmt::Write as _;
use std::fs;
use std::path::Path;

use addr2line::Context;
use addr2line::gimli::{Dwarf, EndianSlice, Error, LittleEndian};
use expect_test::expect_file;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget};

const ARITHMETIC: &str = "arithmetic overflow";
const DIVISION: &str = "division by zero";
const INDEX: &str = "index out of bounds";

/// The reasons why the panics of a kind in a file are not reached on valid memory.
const REASONS: &[(&str, &str, &str)] = &[
    (
        "core/src/compound.rs",
        INDEX,
        "The index is that of the first verdict, or one that the iterator returned. A compound charge\n\
         has at least one verdict. A tally has the index of its verdict, and a verdict that of its\n\
         part. A charge with more verdicts than there is room for was refused before.",
    ),
    (
        "core/src/compound.rs",
        ARITHMETIC,
        "A compound charge has at most 8 parts, and a part at most 8 verdicts.",
    ),
    (
        "core/src/gate/extension.rs",
        ARITHMETIC,
        "The numbers of keys, teams and plans are at most 2^26, and a plan has at most 8 tallies.",
    ),
    (
        "core/src/gate/extension.rs",
        INDEX,
        "Opening checked that the memory holds every line of the extension, the entries and the teams.\n\
         A record's number is below the capacity, a team's below the number of teams, and a plan's\n\
         below the number of plan slots.",
    ),
    (
        "core/src/gate/part.rs",
        ARITHMETIC,
        "The words of a gate are after the first of its memory. A section's number is below 8.",
    ),
    (
        "core/src/gate/ids.rs",
        ARITHMETIC,
        "A record's number is below the number of records, which is at most 2^26, so a product with the\n\
         rest of a division by it is at most 2^52. A record has at least 2^38 ids.",
    ),
    (
        "core/src/gate/ids.rs",
        DIVISION,
        "Opening checked that the capacity is a multiple of the factors of migrations, and not 0.",
    ),
    (
        "core/src/gate/imported.rs",
        ARITHMETIC,
        "A group's number is below the number of groups, which is at most 2^26.",
    ),
    (
        "core/src/gate/tallies.rs",
        ARITHMETIC,
        "An entry lies within one line, and a team's tallies are its words 1 and 2.",
    ),
    (
        "core/src/gate/tallies.rs",
        INDEX,
        "The file has no index of its own. These lines are of functions that the compiler inlined, and\n\
         their reasons are in the groups of their files.",
    ),
    ("core/src/gate/team.rs", ARITHMETIC, "The numbers of keys and teams are at most 2^26 each."),
    (
        "core/src/quotas.rs",
        ARITHMETIC,
        "A time has fewer than 2^64 ms. The end of its window is after it by at most 31 days, and the\n\
         last stamps of a layout leave room for three windows.",
    ),
    ("core/src/quotas.rs", DIVISION, "The length of a window is at least a second."),
    ("core/src/sort.rs", INDEX, "The index is below the end, which is below the number of items."),
    ("core/src/tally_verdict.rs", ARITHMETIC, "A verdict has at most 4 windows."),
    (
        "core/src/tally_verdict.rs",
        INDEX,
        "A window's index is below the number of windows, at most 4.",
    ),
    ("core/src/tally/counts.rs", DIVISION, "The length of a window is at least a second."),
    (
        "core/src/decide.rs",
        ARITHMETIC,
        "A layout is rejected unless its last stamp, the delay of reuse and three of its longest windows\n\
         fit in 64 bits of milliseconds. A charge is added only if every count has room for it.",
    ),
    (
        "core/src/gate/check.rs",
        ARITHMETIC,
        "The file has no arithmetic of its own. These lines are of functions that the compiler inlined,\n\
         and their reasons are in the groups of their files.",
    ),
    (
        "core/src/gate/check.rs",
        INDEX,
        "The file has no index of its own. These lines are of functions that the compiler inlined, and\n\
         their reasons are in the groups of their files.",
    ),
    (
        "core/src/cache_line.rs",
        INDEX,
        "An index is a constant below 8, the position of one of an array of eight words, or the first\n\
         word of one of a line's two plans plus at most 3.",
    ),
    (
        "core/src/gate/table.rs",
        INDEX,
        "A record's number is the upper half of a product with the capacity, and so below the capacity.\n\
         Opening checked that the memory holds the header and that many records. The header's lines are\n\
         constants below its length.",
    ),
    (
        "core/src/gate/table.rs",
        ARITHMETIC,
        "The sum is the index of a line, below the number of lines.",
    ),
    (
        "core/src/gate/imported.rs",
        INDEX,
        "The header's lines are constants below its length. Opening checked that the memory holds it.",
    ),
    (
        "core/src/gate/plans.rs",
        INDEX,
        "A plan's number was compared with the number of plan slots.",
    ),
    (
        "core/src/gate/numbers.rs",
        ARITHMETIC,
        "A gate has at most 8 tallies, and counts of them are at most that.",
    ),
    (
        "core/src/gate/usage.rs",
        ARITHMETIC,
        "A record's number is below the capacity. Opening checked that the memory has the records.",
    ),
    (
        "core/src/gate/usage.rs",
        INDEX,
        "A record's number is below the capacity. Opening checked that the memory has the records.",
    ),
    ("core/src/key.rs", ARITHMETIC, "The parser checked that the text is longer than a body."),
    (
        "core/src/limiter/table.rs",
        INDEX,
        "A bucket's number is below the number of buckets, a slot's below the number of slots. Opening\n\
         checked that the memory holds them, the lock words and the header.",
    ),
    (
        "core/src/limiter/table.rs",
        ARITHMETIC,
        "A bucket's number is below the number of buckets, a slot's below the number of slots.",
    ),
    (
        "core/src/limiter/insert.rs",
        ARITHMETIC,
        "A bucket has eight slots, and an inserter waits at most `LOCK_SPINS` spins. A range\n\
         over its slots ends before its index overflows.",
    ),
    (
        "core/src/mac.rs",
        ARITHMETIC,
        "A key that reaches this line has at most 256 bytes. A list of peppers is not empty: creating an\n\
         empty one is an error.",
    ),
    ("core/src/record.rs", ARITHMETIC, "A record's number is below 2^26."),
    (
        "core/src/tally.rs",
        ARITHMETIC,
        "Widths and shifts are the layout's. Its creation checked that the widths add up to 64. Stamps\n\
         only grow. A count fits its field, since limits are capped at the field's maximum.",
    ),
    (
        "core/src/tally/counts.rs",
        ARITHMETIC,
        "In the word, a sliding window's previous count lies directly below its current one, as the\n\
         layout's creation checked. The time within a window is less than its length. A count of 32 bits\n\
         times a length below 2^32 ms fits.",
    ),
    (
        "core/src/tally/counts.rs",
        INDEX,
        "A window's index is below the number of windows, at most 4.",
    ),
    (
        "core/src/window.rs",
        ARITHMETIC,
        "A time has fewer than 2^64 ms, so fewer than 2^54 s and 2^38 days. The day of a year is at least\n\
         the first day of its month, and that of a cycle at least the first day of its year.",
    ),
    (
        "core/src/bits.rs",
        ARITHMETIC,
        "The estimate times the divisor is at most the number. The proof is the comment above this line.",
    ),
];

/// The lines that could panic, by file and kind. Lines are kept as text, since line numbers change
/// with each edit.
type PanicLines = BTreeMap<(String, &'static str), BTreeSet<String>>;

#[test]
fn lines_that_could_panic_are_the_recorded_ones() {
    let recorded = include_str!("../../panics/expected.txt").lines().next().unwrap_or_default();
    let recorded = recorded.trim_start_matches("Recorded with ");
    let compiler = support::same_compiler("tools/audit/panics/expected.txt", recorded);
    let folder = support::build("panics", &["--", "-Clink-arg=-Wl,--emit-relocs"]);
    let lines = panic_lines(&folder.join("libkeytally_panics.so"));
    expect_file!["../../panics/expected.txt"].assert_eq(&listing(&compiler, &lines));

    let reasons: BTreeSet<_> =
        REASONS.iter().map(|reason| (reason.0.to_owned(), reason.1)).collect();
    let proved: BTreeSet<_> = lines.into_keys().collect();
    assert_eq!(reasons, proved, "REASONS on the left, panics of the build on the right");
}

/// Returns the lines of a linked library that call `core::panicking`.
fn panic_lines(library: &Path) -> PanicLines {
    let root = support::root();
    let bytes = fs::read(library).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let symbols = file.symbol_map();
    let debug = Dwarf::load(|id| {
        let section = file.section_by_name(id.name());
        let data = section.map_or(&[][..], |section| section.data().unwrap());
        Ok::<_, Error>(EndianSlice::new(data, LittleEndian))
    });
    let debug = Context::from_dwarf(debug.unwrap()).unwrap();
    let code = file.section_by_name(".text").unwrap();
    let mut lines = PanicLines::new();
    for (address, relocation) in code.relocations() {
        let RelocationTarget::Symbol(symbol) = relocation.target() else { continue };
        let symbol = file.symbol_by_index(symbol).unwrap();
        if symbol.section_index() != Some(code.index()) {
            continue;
        }
        // The operand of a call is relative to the end of the call, four bytes further.
        let callee = symbol.address().wrapping_add_signed(relocation.addend() + 4);
        let Some(kind) = symbols.get(callee).and_then(|callee| kind_of(callee.name())) else {
            continue;
        };
        let mut frames = debug.find_frames(address).skip_all_loads().unwrap();
        let mut locations = Vec::new();
        while let Some(frame) = frames.next().unwrap() {
            let location = frame.location.unwrap();
            locations.push((location.file.unwrap().to_owned(), location.line.unwrap_or(0)));
        }
        // A call within the panic code of core is a consequence of a panic, not a cause.
        if locations[0].0.contains("library/core/src/panic") {
            continue;
        }
        // The innermost line of this project, if a function of a library was inlined into it.
        let own = locations.iter().find_map(|(file, line)| {
            let file = Path::new(file).strip_prefix(&root).ok()?;
            let source = fs::read_to_string(root.join(file)).unwrap();
            let line = usize::try_from(*line).unwrap().checked_sub(1);
            let text = line.map_or("(lines that the compiler merged)", |line| {
                source.lines().nth(line).unwrap().trim()
            });
            Some((file.display().to_string(), text.to_owned()))
        });
        let (file, text) =
            own.unwrap_or_else(|| panic!("a panic outside of this project: {locations:?}"));
        lines.entry((file, kind)).or_default().insert(text);
    }
    lines
}

/// Returns the kind of panic that a function raises, or `None` if it raises none.
fn kind_of(function: &str) -> Option<&'static str> {
    let is_panic = function.contains("9panicking") || function.contains("slice_index_fail");
    is_panic.then(|| {
        [
            ("_overflow", ARITHMETIC),
            ("div_by_zero", DIVISION),
            ("bounds_check", INDEX),
            ("slice_index_fail", INDEX),
        ]
        .into_iter()
        .find_map(|(part, kind)| function.contains(part).then_some(kind))
        .unwrap_or("another cause")
    })
}

const HEAD: &str = "\
These lines of `Gate::check` and `Limiter::check`, with all that they call, could panic. For all
other lines, the compiler has proved that they do not. On valid memory, none of them panics: each
group states why.
";

/// Returns the content of the snapshot.
fn listing(compiler: &str, lines: &PanicLines) -> String {
    let mut text = format!("Recorded with {compiler}\n\n{HEAD}");
    for ((file, kind), lines) in lines {
        let reason = REASONS.iter().find(|reason| (reason.0, reason.1) == (file, *kind));
        let reason = reason.map_or("No reason is known.", |reason| reason.2);
        write!(text, "\n{file}: {kind}\n{reason}\n").unwrap();
        for line in lines {
            writeln!(text, "    {line}").unwrap();
        }
    }
    text
}
