//! The suite `firmware`: the core on machines without an operating system, and its costs there.
//!
//! The firmware in Rust runs on an emulated board for each kind of processor, and as a WebAssembly
//! module in Node. The firmware in C runs with the library that a C program links. All print the
//! same, except for one line in C. Builds without the features that a device can leave out print
//! how many vectors they left out. `cargo xtask embedded` writes the costs into the tables of
//! docs/EMBEDDED.md.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use regex_lite::Regex;

use crate::bare_metal;
use crate::command;
use crate::targets::count_tests;
use crate::tools;

const PAGE: &str = "docs/EMBEDDED.md";
/// The lines of the page before and after the tables.
const TABLES: [&str; 2] = [
    "<!-- The tables: written by `cargo xtask embedded`. -->\n",
    "<!-- The end of the tables. -->\n",
];
/// The output of each device without its costs. C prints a part of the first line.
const EXPECTED: &str = "tools/firmware/expected.txt";
/// What replaces the first line of [`EXPECTED`] in builds without [`FEATURES`].
const EXPECTED_WITHOUT: &str = "tools/firmware/expected_without_features.txt";
const TARGET: &str = "target/firmware";

/// The features of core that a device can leave out.
const FEATURES: [&str; 3] = ["sliding", "imported-keys", "pepper-rotation"];

/// A target of rustc, its processor, the QEMU program of a board and its options, and the feature
/// of core for its 64-bit words with a name. `tools/firmware/targets.toml` has the flags of rustc.
struct Machine(&'static str, &'static str, Board, Words);
type Board = (&'static str, &'static [&'static str]);
type Words = (&'static str, &'static str);

const ATOMIC: &str = "portable-atomic";
/// The crate portable-atomic, which disables interrupts for a few instructions.
const INTERRUPTS: Words = (ATOMIC, "`portable-atomic`, single core");
/// The crate portable-atomic with locks.
const LOCKS: Words = (ATOMIC, "`portable-atomic`, locks");
/// Cells that only one thread may use.
const UNSHARED: Words = ("unshared", "`unshared`");

const ARM: &str = "qemu-system-arm";
const LM3S: Board = (ARM, &["-M", "lm3s6965evb"]);
const MICROBIT: Board = (ARM, &["-M", "microbit"]);
const RISCV: Board = ("qemu-system-riscv32", &["-M", "virt", "-bios", "none"]);

const MACHINES: &[Machine] = &[
    Machine("thumbv7m-none-eabi", "Cortex-M3", LM3S, INTERRUPTS),
    Machine("thumbv7em-none-eabihf", "Cortex-M4F", (ARM, &["-M", "mps2-an386"]), INTERRUPTS),
    Machine("thumbv6m-none-eabi", "Cortex-M0", MICROBIT, INTERRUPTS),
    Machine("thumbv6m-none-eabi", "Cortex-M0", MICROBIT, UNSHARED),
    Machine("thumbv8m.main-none-eabi", "Cortex-M33", (ARM, &["-M", "mps2-an505"]), INTERRUPTS),
    Machine("riscv32imc-unknown-none-elf", "RV32IMC", RISCV, INTERRUPTS),
    Machine("riscv32imac-unknown-none-elf", "RV32IMAC", RISCV, LOCKS),
];

/// The maximum stack of a key check, in bytes.
const MAX_STACK: u64 = 1228;

/// The maximum size of a gate for 64 keys, in bytes.
const MAX_GATE: u64 = 4 * 1024 + 512;

const MODULE_TARGET: &str = "wasm32v1-none";
const C_TARGET: &str = "thumbv7m-none-eabi";

/// Checks that each device prints the expected text, and that no cost exceeds the page's.
pub(crate) fn check() -> Result<String> {
    let tables = measure()?;
    compare(parts(&page()?)?[1], &tables)?;
    let tests = test_features()?;
    Ok(format!("{} machines, a WebAssembly module, and {tests}", MACHINES.len()))
}

/// Writes the tables of the page.
pub(crate) fn write() -> Result<()> {
    tools::require(&[bare_metal::TOOLS], false)?;
    let page = page()?;
    let [before, _, after] = parts(&page)?;
    let tables = measure()?;
    let [begin, end] = TABLES;
    fs::write(PAGE, [before, begin, &tables, end, after].concat())?;
    println!("wrote {PAGE}");
    Ok(())
}

/// Runs the tests of the features in builds of core with none of them, and with each alone.
fn test_features() -> Result<String> {
    let mut output = String::new();
    for feature in [""].into_iter().chain(FEATURES) {
        let mut test = command::cargo();
        test.args(["test", "--package", "keytally-core", "--test", "features"]);
        test.args(["--no-default-features", "--features", feature]);
        output += &command::run(test)?;
    }
    count_tests(&output)
}

fn page() -> Result<String> {
    fs::read_to_string(PAGE).with_context(|| format!("cannot read {PAGE}"))
}

/// Returns the parts of the page: the text before the tables, the tables, the text after them.
fn parts(page: &str) -> Result<[&str; 3]> {
    let [begin, end] = TABLES;
    let (before, rest) =
        page.split_once(begin).with_context(|| format!("{PAGE} has no {begin}"))?;
    let (tables, after) = rest.split_once(end).with_context(|| format!("{PAGE} has no {end}"))?;
    Ok([before, tables, after])
}

/// Returns a command of Debian's cargo and compiler. It also builds Rust's `core`.
fn cargo(subcommand: &str) -> Result<Command> {
    let path = bare_metal::CARGO.path()?;
    let mut cargo = Command::new(&path);
    cargo
        .arg(subcommand)
        .args(["--locked", "--config", "tools/firmware/targets.toml", "--target-dir", TARGET])
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC", path.with_file_name("rustc"))
        .env("RUSTDOC", path.with_file_name("rustdoc"))
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    Ok(cargo)
}

/// Builds a package of the firmware's workspace for several targets in parallel.
fn build(package: &str, options: &[&str], targets: &[&str]) -> Result<()> {
    let mut build = cargo("build")?;
    build.args(["--release", "--manifest-path", "tools/firmware/Cargo.toml"]);
    build.args(["--package", package]).args(options);
    build.args(targets.iter().flat_map(|target| ["--target", target]));
    command::run(build).map(drop)
}

/// Builds and runs all programs. Returns their costs as the tables of the page.
fn measure() -> Result<String> {
    let expected =
        fs::read_to_string(EXPECTED).with_context(|| format!("cannot read {EXPECTED}"))?;
    let mut costs = Vec::new();
    for feature in [ATOMIC, UNSHARED.0] {
        let machines = || MACHINES.iter().filter(|Machine(.., words)| words.0 == feature);
        let targets: Vec<&str> = machines().map(|Machine(target, ..)| *target).collect();
        build("keytally-device", &["--features", feature], &targets)?;
        for Machine(target, core, board, (_, words)) in machines() {
            let printed = emulate(*board, &built(target, "keytally-device"))?;
            costs.push((format!("{core}, {words}"), costs_of(&expected, &printed, target)?));
        }
    }
    check_choice_is_required()?;

    build("keytally-wasm", &[], &[MODULE_TARGET])?;
    let mut node = Command::new(tools::node()?);
    node.arg("tools/firmware/wasm/run.mjs").arg(built(MODULE_TARGET, "keytally_wasm.wasm"));
    costs_of(&expected, &command::run(node)?, "the WebAssembly module")?;

    let codes = measure_features(&without_features(&expected)?)?;
    build_library(&FEATURES)?;
    let all = link("whole", &["whole.c"], None)?;
    let printed = emulate(LM3S, &link_firmware()?)?;
    let in_c = costs_of(&expected, &printed, "the firmware in C")?;
    costs.push(("Cortex-M3, through the C library".to_owned(), in_c));

    check_panics(&all, &page()?)?;
    check_stack(&costs)?;
    let gate = fs::metadata(Path::new(HOST).join("gate.bin"))?.len();
    let sizes = [
        ("a gate for 64 keys and four plans, in Rust", gate),
        ("a gate for 64 keys and four plans, in C", variable(&all, "gate_memory")?),
        ("the handle of a gate in C, with the peppers", variable(&all, "gate")?),
    ];
    for (name, size) in &sizes[..2] {
        ensure!(*size <= MAX_GATE, "{name} takes {size} bytes; the maximum is {MAX_GATE}");
    }
    let mut rustc = Command::new(bare_metal::CARGO.path()?.with_file_name("rustc"));
    rustc.arg("--version");
    Ok(tables(command::run(rustc)?.trim(), &costs, &codes, &sizes))
}

/// The bytes of code and constants of the programs in C.
struct Code {
    /// Which features they have.
    name: String,
    /// Only a check.
    check: u64,
    /// All functions.
    all: u64,
}

/// Measures the code of the programs in C with all features, without each of them, and without any.
/// Runs the vectors without any, in both languages.
fn measure_features(expected: &str) -> Result<Vec<Code>> {
    let mut codes = Vec::new();
    let without = FEATURES.map(|feature| (format!("without `{feature}`"), vec![feature]));
    let builds = [("with all features".to_owned(), vec![])].into_iter().chain(without);
    for (name, left_out) in builds.chain([("without the three".to_owned(), FEATURES.to_vec())]) {
        let features: Vec<&str> =
            FEATURES.into_iter().filter(|feature| !left_out.contains(feature)).collect();
        build_library(&features)?;
        // These programs have no other library, so libkeytally requires none.
        let all = link("whole", &["whole.c"], None)?;
        let check = link("check", &["check.c"], None)?;
        for program in [&all, &check] {
            emulate(LM3S, program)?;
        }
        codes.push(Code { name, check: code(&check)?, all: code(&all)? });
    }
    // The library of the last build has none of the features.
    let printed = emulate(LM3S, &link_firmware()?)?;
    costs_of(expected, &printed, "the firmware without features in C")?;
    let options = ["--no-default-features", "--features", ATOMIC];
    build("keytally-device", &options, &[C_TARGET])?;
    let printed = emulate(LM3S, &built(C_TARGET, "keytally-device"))?;
    costs_of(expected, &printed, "the firmware without features")?;
    Ok(codes)
}

/// Returns the expected output of a build without [`FEATURES`].
fn without_features(expected: &str) -> Result<String> {
    let first = fs::read_to_string(EXPECTED_WITHOUT)
        .with_context(|| format!("cannot read {EXPECTED_WITHOUT}"))?;
    let (_, rest) = expected.split_once('\n').context("the expected output is empty")?;
    Ok(first + rest)
}

/// Checks that no key check takes more stack than [`MAX_STACK`].
fn check_stack(costs: &[(String, Vec<Cost>)]) -> Result<()> {
    for (machine, costs) in costs {
        for Cost { call, stack, .. } in costs {
            ensure!(
                !call.starts_with("gate: check") || *stack <= MAX_STACK,
                "{machine}: {call} takes {stack} bytes of stack; the maximum is {MAX_STACK}"
            );
        }
    }
    Ok(())
}

/// Checks that a build without a choice of 64-bit words fails with an error that names the choices.
fn check_choice_is_required() -> Result<()> {
    let Err(error) = build("keytally-device", &[], &[C_TARGET]) else {
        bail!("a build for {C_TARGET} without a choice of 64-bit words succeeded");
    };
    let error = format!("{error:#}");
    let named = ["this target has no 64-bit atomics", "`portable-atomic`", "`unshared`"];
    ensure!(
        named.iter().all(|text| error.contains(text)),
        "the error of a build without 64-bit words does not name the choices:\n{error}"
    );
    Ok(())
}

/// Runs a program on an emulated board, at one instruction per nanosecond. Returns its output.
fn emulate((qemu, board): (&str, &[&str]), program: &Path) -> Result<String> {
    // A faulty program may not end.
    let mut run = Command::new("timeout");
    run.args(["60", qemu]).args(board).args(["-icount", "shift=0", "-display", "none"]);
    run.args(["-semihosting-config", "enable=on,target=native", "-kernel"]).arg(program);
    command::run(run)
}

/// Returns the path of a program.
fn built(target: &str, name: &str) -> PathBuf {
    Path::new(TARGET).join(target).join("release").join(name)
}

/// The cost of one call: instructions, and bytes of stack.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cost {
    call: String,
    instructions: u64,
    stack: u64,
}

/// Compares the output of a device with the expected one. Returns the costs of its calls.
fn costs_of(expected: &str, printed: &str, device: &str) -> Result<Vec<Cost>> {
    let (costs, lines): (Vec<&str>, Vec<&str>) =
        printed.lines().partition(|line| line.starts_with("cost: "));
    let expected: Vec<&str> = expected.lines().collect();
    // C has no functions for decisions and MACs, so its line is shorter.
    let agrees = |(line, expected): (&&str, &&str)| {
        line == expected || device.ends_with(" C") && expected.starts_with(*line)
    };
    ensure!(
        lines.len() == expected.len() && lines.iter().zip(&expected).all(agrees),
        "the output of {device} is not that in {EXPECTED}:\n{printed}"
    );
    costs
        .into_iter()
        .map(|line| cost(line).with_context(|| format!("not a cost: {line}")))
        .collect()
}

/// Parses `cost: CALL: N instructions, N bytes of stack`.
fn cost(line: &str) -> Option<Cost> {
    let (call, numbers) = line.strip_prefix("cost: ")?.rsplit_once(": ")?;
    let (instructions, stack) = numbers.split_once(" instructions, ")?;
    Some(Cost {
        call: call.to_owned(),
        instructions: instructions.parse().ok()?,
        stack: stack.strip_suffix(" bytes of stack")?.parse().ok()?,
    })
}

/// The folder of the files that keytally-tables writes for the programs in C, and of the programs.
const HOST: &str = "target/firmware/host";

/// Builds libkeytally for programs in C on bare metal, and the files that the programs include.
fn build_library(features: &[&str]) -> Result<()> {
    let features = [&["keytally-core/portable-atomic"], features].concat().join(",");
    let mut rustc = cargo("rustc")?;
    rustc.args(["--target", C_TARGET, "--profile", "bare", "--package", "keytally-ffi"]);
    rustc.args(["--crate-type", "staticlib", "--no-default-features"]);
    rustc.args(["--features", &features]);
    command::run(rustc)?;
    let mut fill = command::cargo();
    fill.args(["run", "--locked", "--quiet", "--manifest-path", "tools/firmware/Cargo.toml"]);
    fill.args(["--package", "keytally-tables", "--target-dir", TARGET, "--", HOST]);
    command::run(fill).map(drop)
}

/// Links the firmware in C.
fn link_firmware() -> Result<PathBuf> {
    link("firmware", &["main.c", "vectors.c", "life.c", "cost.c"], Some("-lgcc"))
}

/// Links a program of `tools/firmware/c` with LLVM's linker, since GNU's keeps unused strings.
fn link(name: &str, sources: &[&str], library: Option<&str>) -> Result<PathBuf> {
    let program = Path::new(HOST).join(name).with_extension("elf");
    let archive = Path::new(TARGET).join(C_TARGET).join("bare/libkeytally_ffi.a");
    let mut gcc = Command::new("arm-none-eabi-gcc");
    gcc.arg("@tools/firmware/c/flags").arg("-o").arg(&program);
    let sources = sources.iter().chain(&["board.c"]);
    gcc.args(sources.map(|source| Path::new("tools/firmware/c").join(source)));
    gcc.arg(archive).args(library);
    command::run(gcc)?;
    Ok(program)
}

/// Returns the bytes of code and constants in a program.
fn code(program: &Path) -> Result<u64> {
    let mut size = Command::new("arm-none-eabi-size");
    size.arg("-A").arg(program);
    let sections = command::run(size)?;
    let size = |name: &str| {
        let line = sections.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let parts = size(".text ").zip(size(".rodata "));
    parts.map(|(text, rodata)| text + rodata).context("the program has no .text or no .rodata")
}

/// Returns the symbols of a program, one per line: `ADDRESS SIZE TYPE NAME`.
fn symbols(program: &Path) -> Result<String> {
    let mut nm = Command::new("arm-none-eabi-nm");
    nm.arg("-S").arg(program);
    command::run(nm)
}

/// Returns the size of a variable in a program, in bytes.
fn variable(program: &Path, name: &str) -> Result<u64> {
    let symbols = symbols(program)?;
    let line = symbols.lines().find(|line| line.ends_with(&format!(" {name}")));
    let size = line.and_then(|line| line.split(' ').nth(1));
    let size = size.with_context(|| format!("the program has no variable {name}"))?;
    Ok(u64::from_str_radix(size, 16)?)
}

/// Checks that the page names each panic function that a program contains.
fn check_panics(program: &Path, page: &str) -> Result<()> {
    for name in symbols(program)?.lines().filter_map(|line| line.split(' ').next_back()) {
        let panics = name.contains("9panicking") || name.contains("_fail");
        let named = |word: &str| word.len() > 8 && name.ends_with(word);
        ensure!(
            !panics || page.split('`').any(named),
            "a program in C contains a panic function for which {PAGE} has no reason: {name}"
        );
    }
    Ok(())
}

/// Returns the tables of the page.
fn tables(
    compiler: &str,
    costs: &[(String, Vec<Cost>)],
    codes: &[Code],
    sizes: &[(&str, u64)],
) -> String {
    let calls = costs.first().map(|(_, costs)| costs.as_slice()).unwrap_or_default();
    let names: Vec<&str> = calls.iter().map(|cost| cost.call.as_str()).collect();
    let row = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut page = format!("\nMeasured with {compiler}.\n\n| | {} |\n", names.join(" | "));
    page += &row(&vec!["---".to_owned(); names.len() + 1]);
    for (machine, costs) in costs {
        let cell = |name: &&str| match costs.iter().find(|cost| cost.call == *name) {
            Some(cost) => format!("{}, {} B", cost.instructions, cost.stack),
            None => "–".to_owned(),
        };
        page +=
            &row(&[&[machine.clone()][..], &names.iter().map(cell).collect::<Vec<_>>()].concat());
    }
    page += "\n| code and constants, in bytes | only a check | all functions |\n";
    page += "| --- | --- | --- |\n";
    for Code { name, check, all } in codes {
        page += &row(&[name.clone(), check.to_string(), all.to_string()]);
    }
    page += "\n| | bytes |\n| --- | --- |\n";
    for (name, bytes) in sizes {
        page += &row(&[(*name).to_owned(), bytes.to_string()]);
    }
    page.push('\n');
    page
}

/// The excess over a recorded number that passes: permille of the number, plus a constant.
///
/// The order of constants in memory depends on the folder in which the program was built. Copies
/// from addresses that are not aligned take more instructions, up to 2.7 % of the header fields on
/// RV32IMAC.
const TOLERANCE: (u64, u64) = (30, 8);

/// Checks that the two pages differ only in numbers, and that no fresh number exceeds the
/// tolerance.
fn compare(recorded: &str, fresh: &str) -> Result<()> {
    let advice = "if that is intended, run `cargo xtask embedded` to write it";
    let digits = Regex::new("[0-9]+")?;
    ensure!(
        digits.replace_all(recorded, "0") == digits.replace_all(fresh, "0"),
        "{PAGE} differs from this build; {advice}:\n{}",
        fresh.lines().filter(|line| !recorded.contains(*line)).collect::<Vec<_>>().join("\n")
    );
    let numbers =
        |line| digits.find_iter(line).filter_map(|number| number.as_str().parse::<u64>().ok());
    let mut faults = String::new();
    for (was, is) in recorded.lines().zip(fresh.lines()) {
        let more = |(was, is): (u64, u64)| is > was + was * TOLERANCE.0 / 1000 + TOLERANCE.1;
        if numbers(was).zip(numbers(is)).any(more) {
            faults += &format!("was {was}\nis  {is}\n");
        }
    }
    ensure!(faults.is_empty(), "costs exceed those of {PAGE}; {advice}:\n{faults}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_line_is_parsed() {
        let expected =
            Cost { call: "gate: check, denied".to_owned(), instructions: 120, stack: 16 };
        assert_eq!(
            cost("cost: gate: check, denied: 120 instructions, 16 bytes of stack"),
            Some(expected)
        );
        assert_eq!(cost("cost: gate: check, denied: many instructions, 16 bytes of stack"), None);
    }

    #[test]
    fn other_output_of_a_device_is_an_error() {
        let expected = "3 keys agree, and 2 MACs\nalive\n";
        assert!(costs_of(expected, "3 keys agree, and 2 MACs\nalive\n", "x").unwrap().is_empty());
        assert!(
            costs_of(expected, "3 keys agree\nalive\n", "the firmware in C").unwrap().is_empty()
        );
        for (printed, device) in
            [("3 keys agree\nalive\n", "x"), ("3 keys agree, and 2 MACs\n", "x"), ("", "x")]
        {
            assert!(costs_of(expected, printed, device).is_err(), "{printed}");
        }
    }

    #[test]
    fn page_with_other_words_or_higher_numbers_is_an_error() {
        let page = "code: 1000 B, 20 B";
        for same in [page, "code: 900 B, 20 B", "code: 1038 B, 28 B"] {
            assert!(compare(page, same).is_ok(), "{same}");
        }
        for other in
            ["code: 1039 B, 20 B", "code: 1000 B, 29 B", "code: 1000 B", "codes: 1000 B, 20 B"]
        {
            assert!(compare(page, other).is_err(), "{other}");
        }
    }
}
