//! The core on machines without an operating system: its vectors pass, and its costs are at most
//! those of docs/EMBEDDED.md.
//!
//! The firmware in Rust runs on an emulated board for each kind of processor, and as a WebAssembly
//! module in Node. The firmware in C runs with the library that a C program links. All print the
//! same, except for one line in C. Builds without the features that a device can leave out print
//! how many vectors they left out. `cargo xtask embedded` writes the costs into the tables of the
//! page.
//!
//! The short form runs one machine of each kind, [`SHORT`], and leaves out the builds without a
//! single feature. It compares those rows of the tables that it measured. The long form (if
//! `KEYTALLY_FULL` is set) measures everything.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex_lite::Regex;

use crate::support::run;

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

/// The features of core that a device can leave out, except for `sections`, which the builds here
/// do not have.
const FEATURES: [&str; 4] = ["sliding", "imported-keys", "pepper-rotation", "calendar"];

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

/// The machines of the short form: atomics that disable interrupts, and atomics with locks.
const SHORT: [&str; 2] = [C_TARGET, "riscv32imac-unknown-none-elf"];

/// The maximum stack of a key check, in bytes.
const MAX_STACK: u64 = 1344;

/// The maximum size of a gate for 64 keys, in bytes.
const MAX_GATE: u64 = 4 * 1024 + 512;

const MODULE_TARGET: &str = "wasm32v1-none";
const C_TARGET: &str = "thumbv7m-none-eabi";

#[test]
fn devices_pass_the_vectors_at_the_recorded_costs() {
    env::set_current_dir(support::root()).unwrap();
    let full = is_full();
    let (page, tables) = (fs::read_to_string(PAGE).unwrap(), measure(full));
    let [before, recorded, after] = parts(&page);
    if env::var_os("UPDATE_EXPECT").is_some() {
        assert!(full, "only the long form measures everything that the page has");
        fs::write(PAGE, [before, TABLES[0], &tables, TABLES[1], after].concat()).unwrap();
    } else if full {
        assert_eq!(faults(recorded, &tables), [""; 0]);
    } else {
        assert_eq!(faults(&measured(recorded, &tables), &tables), [""; 0]);
    }
}

/// Builds core with none of the features and, in the long form, with each alone.
#[test]
fn core_with_one_feature_or_none_passes_its_tests() {
    let alone: &[&str] = if is_full() { &FEATURES } else { &[] };
    for feature in [""].iter().chain(alone) {
        let mut test = Command::new(env!("CARGO"));
        test.args(["test", "--profile", "tests", "--package", "keytally-core"]);
        test.args(["--test", "features", "--no-default-features", "--features", feature]);
        let output = run(&mut test);
        assert!(output.contains("test result: ok.") && !output.contains("running 0 tests"));
    }
}

fn is_full() -> bool {
    env::var_os("KEYTALLY_FULL").is_some()
}

/// Returns the parts of the page: the text before the tables, the tables, the text after them.
fn parts(page: &str) -> [&str; 3] {
    let (before, rest) = page.split_once(TABLES[0]).unwrap();
    let (tables, after) = rest.split_once(TABLES[1]).unwrap();
    [before, tables, after]
}

/// Returns Debian's cargo, which also builds Rust's `core`. Its compiler is in the same folder.
fn debian_cargo() -> PathBuf {
    env::var_os("KEYTALLY_TEST_BARE_CARGO").expect("`cargo xtask test firmware` sets this").into()
}

/// Returns a command of [`debian_cargo`], without the variables of the cargo that runs this test.
fn cargo(subcommand: &str) -> Command {
    let path = debian_cargo();
    let mut cargo = Command::new(&path);
    cargo
        .arg(subcommand)
        .args(["--locked", "--config", "tools/firmware/targets.toml", "--target-dir"])
        .arg(target())
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC", path.with_file_name("rustc"))
        .env("RUSTDOC", path.with_file_name("rustdoc"));
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "LD_LIBRARY_PATH"] {
        cargo.env_remove(name);
    }
    cargo
}

/// Returns the command that builds a package of the firmware's workspace for several targets in
/// parallel.
fn build(package: &str, options: &[&str], targets: &[&str]) -> Command {
    let mut build = cargo("build");
    build.args(["--release", "--manifest-path", "tools/firmware/Cargo.toml"]);
    build.args(["--package", package]).args(options);
    build.args(targets.iter().flat_map(|target| ["--target", target]));
    build
}

/// Builds and runs the programs of a form. Returns their costs as the tables of the page.
fn measure(full: bool) -> String {
    let expected = fs::read_to_string(EXPECTED).unwrap();
    let mut costs = Vec::new();
    for feature in [ATOMIC, UNSHARED.0] {
        let is_measured = |Machine(target, .., words): &&Machine| {
            words.0 == feature && (full || SHORT.contains(target))
        };
        let machines: Vec<&Machine> = MACHINES.iter().filter(is_measured).collect();
        let targets: Vec<&str> = machines.iter().map(|Machine(target, ..)| *target).collect();
        if !targets.is_empty() {
            run(&mut build("keytally-device", &["--features", feature], &targets));
        }
        for Machine(target, core, board, (_, words)) in machines {
            let printed = emulate(*board, &built(target, "keytally-device"));
            costs.push((format!("{core}, {words}"), costs_of(&expected, &printed, target)));
        }
    }

    // A build without a choice of 64-bit words fails with an error that names the choices.
    let output = build("keytally-device", &[], &[C_TARGET]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    for text in ["this target has no 64-bit atomics", "`portable-atomic`", "`unshared`"] {
        assert!(!output.status.success() && error.contains(text), "without a choice: {error}");
    }

    run(&mut build("keytally-wasm", &[], &[MODULE_TARGET]));
    let node = env::var_os("KEYTALLY_TEST_NODE").expect("`cargo xtask test firmware` sets this");
    let mut node = Command::new(node);
    node.arg("tools/firmware/wasm/run.mjs").arg(built(MODULE_TARGET, "keytally_wasm.wasm"));
    costs_of(&expected, &run(&mut node), "the WebAssembly module");

    fill_tables();
    let codes = measure_features(full, &without_features(&expected));
    build_library(&FEATURES);
    let all = link("whole", &["whole.c"], None);
    let printed = emulate(LM3S, &link_firmware());
    let in_c = costs_of(&expected, &printed, "the firmware in C");
    costs.push(("Cortex-M3, through the C library".to_owned(), in_c));

    assert_panics_have_reasons(&all, &fs::read_to_string(PAGE).unwrap());
    for (machine, Cost { call, stack, .. }) in
        costs.iter().flat_map(|(machine, costs)| costs.iter().map(move |cost| (machine, cost)))
    {
        let is_small = !call.starts_with("gate: check") || *stack <= MAX_STACK;
        assert!(is_small, "{machine}: {call} takes {stack} of at most {MAX_STACK} bytes of stack");
    }
    let gate = fs::metadata(host().join("gate.bin")).unwrap().len();
    let sizes = [
        ("a gate for 64 keys and four plans, in Rust", gate),
        ("a gate for 64 keys and four plans, in C", variable(&all, "gate_memory")),
        ("the handle of a gate in C, with the peppers", variable(&all, "gate")),
    ];
    for (name, size) in &sizes[..2] {
        assert!(*size <= MAX_GATE, "{name} takes {size} of at most {MAX_GATE} bytes");
    }
    let version = run(Command::new(debian_cargo().with_file_name("rustc")).arg("--version"));
    tables(version.trim(), &costs, &codes, &sizes)
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

/// Measures the code of the programs in C with all features, without each of them (in the long
/// form), and without any. Runs the vectors without any, in both languages.
fn measure_features(full: bool, expected: &str) -> Vec<Code> {
    let mut codes = Vec::new();
    let without = FEATURES.map(|feature| (format!("without `{feature}`"), vec![feature]));
    let without = without.into_iter().filter(|_| full);
    let builds = [("with all features".to_owned(), vec![])].into_iter().chain(without);
    for (name, left_out) in builds.chain([("without the four".to_owned(), FEATURES.to_vec())]) {
        let features: Vec<&str> =
            FEATURES.into_iter().filter(|feature| !left_out.contains(feature)).collect();
        build_library(&features);
        // These programs have no other library, so libkeytally requires none.
        let [all, check] = ["whole", "check"].map(|name| {
            let program = link(name, &[&format!("{name}.c")], None);
            emulate(LM3S, &program);
            code(&program)
        });
        codes.push(Code { name, check, all });
    }
    // The library of the last build has none of the features.
    let printed = emulate(LM3S, &link_firmware());
    costs_of(expected, &printed, "the firmware without features in C");
    // The short form has no other build with this choice of words.
    let options = ["--no-default-features", "--features", UNSHARED.0];
    run(&mut build("keytally-device", &options, &[C_TARGET]));
    let printed = emulate(LM3S, &built(C_TARGET, "keytally-device"));
    costs_of(expected, &printed, "the firmware without features");
    codes
}

/// Returns the expected output of a build without [`FEATURES`].
fn without_features(expected: &str) -> String {
    let first = fs::read_to_string(EXPECTED_WITHOUT).unwrap();
    first + expected.split_once('\n').unwrap().1
}

/// Runs a program on an emulated board, at one instruction per nanosecond. Returns its output.
fn emulate((qemu, board): (&str, &[&str]), program: &Path) -> String {
    // A faulty program may not end.
    let mut run = Command::new("timeout");
    run.args(["60", qemu]).args(board).args(["-icount", "shift=0", "-display", "none"]);
    run.args(["-semihosting-config", "enable=on,target=native", "-kernel"]).arg(program);
    support::run(&mut run)
}

/// Returns the path of a program.
fn built(target: &str, name: &str) -> PathBuf {
    self::target().join(target).join("release").join(name)
}

/// The cost of one call: instructions, and bytes of stack.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cost {
    call: String,
    instructions: u64,
    stack: u64,
}

/// Compares the output of a device with the expected one. Returns the costs of its calls.
fn costs_of(expected: &str, printed: &str, device: &str) -> Vec<Cost> {
    let (costs, lines): (Vec<&str>, Vec<&str>) =
        printed.lines().partition(|line| line.starts_with("cost: "));
    let expected: Vec<&str> = expected.lines().collect();
    // C has no functions for decisions and MACs, so its line is shorter.
    let agrees = |(line, expected): (&&str, &&str)| {
        line == expected || device.ends_with(" C") && expected.starts_with(*line)
    };
    assert!(
        lines.len() == expected.len() && lines.iter().zip(&expected).all(agrees),
        "the output of {device} is not that in {EXPECTED}:\n{printed}"
    );
    costs.into_iter().map(|line| cost(line).unwrap()).collect()
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

/// Returns the folder of everything that is built here: `firmware` in cargo's target folder.
fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("firmware")
}

/// Returns the folder of the files that keytally-tables writes for the programs in C, and of the
/// programs.
fn host() -> PathBuf {
    target().join("host")
}

/// Writes the files that the programs in C include.
fn fill_tables() {
    let mut fill = Command::new(env!("CARGO"));
    fill.args(["run", "--locked", "--quiet", "--manifest-path", "tools/firmware/Cargo.toml"]);
    run(fill
        .args(["--package", "keytally-tables", "--target-dir"])
        .arg(target())
        .arg("--")
        .arg(host()));
}

/// Builds libkeytally for programs in C on bare metal.
fn build_library(features: &[&str]) {
    let features = [&["keytally-core/portable-atomic"], features].concat().join(",");
    let mut rustc = cargo("rustc");
    rustc.args(["--target", C_TARGET, "--profile", "bare", "--package", "keytally-ffi"]);
    rustc.args(["--crate-type", "staticlib", "--no-default-features"]);
    run(rustc.args(["--features", &features]));
}

/// Links the firmware in C.
fn link_firmware() -> PathBuf {
    link("firmware", &["main.c", "vectors.c", "life.c", "cost.c"], Some("-lgcc"))
}

/// Links a program of `tools/firmware/c` with LLVM's linker, since GNU's keeps unused strings.
fn link(name: &str, sources: &[&str], library: Option<&str>) -> PathBuf {
    let program = host().join(name).with_extension("elf");
    let mut gcc = Command::new("arm-none-eabi-gcc");
    gcc.arg("@tools/firmware/c/flags").arg("-o").arg(&program);
    // The assembler includes tables, too.
    for option in ["-I", "-Wa,-I"] {
        let mut include = OsString::from(option);
        include.push(host());
        gcc.arg(include);
    }
    let sources = sources.iter().chain(&["board.c"]);
    gcc.args(sources.map(|source| Path::new("tools/firmware/c").join(source)));
    run(gcc.arg(target().join(C_TARGET).join("bare/libkeytally_ffi.a")).args(library));
    program
}

/// Returns the bytes of code and constants in a program.
fn code(program: &Path) -> u64 {
    let sections = run(Command::new("arm-none-eabi-size").arg("-A").arg(program));
    let size = |name: &str| {
        let line = sections.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    size(".text ") + size(".rodata ")
}

/// Returns the symbols of a program, one per line: `ADDRESS SIZE TYPE NAME`.
fn symbols(program: &Path) -> String {
    run(Command::new("arm-none-eabi-nm").arg("-S").arg(program))
}

/// Returns the size of a variable in a program, in bytes.
fn variable(program: &Path, name: &str) -> u64 {
    let symbols = symbols(program);
    let line = symbols.lines().find(|line| line.ends_with(&format!(" {name}"))).unwrap();
    u64::from_str_radix(line.split(' ').nth(1).unwrap(), 16).unwrap()
}

/// Asserts that the page names each panic function that a program contains.
fn assert_panics_have_reasons(program: &Path, page: &str) {
    for name in symbols(program).lines().filter_map(|line| line.split(' ').next_back()) {
        let panics = name.contains("9panicking") || name.contains("_fail");
        let named = |word: &str| word.len() > 8 && name.ends_with(word);
        assert!(!panics || page.split('`').any(named), "{PAGE} has no reason for {name}");
    }
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

/// Returns the lines of the recorded tables except the rows that `fresh` does not have.
fn measured(recorded: &str, fresh: &str) -> String {
    let name = |line: &str| line.split('|').nth(1).map(str::to_owned);
    let names: Vec<_> = fresh.lines().map(name).collect();
    let lines = recorded.split_inclusive('\n').filter(|line| names.contains(&name(line)));
    lines.collect()
}

/// The excess over a recorded number that passes: permille of the number, plus a constant.
///
/// The order of constants in memory depends on the folder in which the program was built. Copies
/// from addresses that are not aligned take more instructions, up to 2.7 % of the header fields on
/// RV32IMAC.
const TOLERANCE: (u64, u64) = (30, 8);

/// Returns the pairs of lines in which a fresh number exceeds the tolerance.
///
/// # Panics
/// If the tables differ not only in numbers.
fn faults(recorded: &str, fresh: &str) -> Vec<String> {
    let digits = Regex::new("[0-9]+").unwrap();
    let [words, fresh_words] = [recorded, fresh].map(|text| digits.replace_all(text, "0"));
    assert_eq!(words, fresh_words, "`cargo xtask embedded` writes {PAGE}:\n{fresh}");
    let numbers =
        |line| digits.find_iter(line).filter_map(|number| number.as_str().parse::<u64>().ok());
    let more = |(was, is): (u64, u64)| is > was + was * TOLERANCE.0 / 1000 + TOLERANCE.1;
    let lines = recorded.lines().zip(fresh.lines());
    let exceeding = lines.filter(|(was, is)| numbers(was).zip(numbers(is)).any(more));
    exceeding.map(|(was, is)| format!("was {was}, is {is}")).collect()
}

#[test]
fn row_with_a_higher_number_is_a_fault() {
    let row = "code: 1000 B, 20 B";
    for same in [row, "code: 900 B, 20 B", "code: 1038 B, 28 B"] {
        assert!(faults(row, same).is_empty(), "{same}");
    }
    for other in ["code: 1039 B, 20 B", "code: 1000 B, 29 B"] {
        assert_eq!(faults(row, other), [format!("was {row}, is {other}")]);
    }
}

#[test]
#[should_panic(expected = "`cargo xtask embedded` writes docs/EMBEDDED.md")]
fn row_with_other_words_is_refused() {
    faults("code: 1000 B", "codes: 1000 B");
}

#[test]
#[should_panic(expected = "the output of x is not that in")]
fn other_output_of_a_device_is_refused() {
    costs_of("3 keys agree, and 2 MACs\nalive\n", "3 keys agree\nalive\n", "x");
}

#[test]
fn rows_without_measurement_are_left_out() {
    let page = "By rustc 1.\n\n| | bytes |\n| --- | --- |\n| one | 1 |\n| two | 2 |\n";
    let fresh = page.replace("| one | 1 |\n", "");
    assert_eq!(measured(page, &fresh), fresh);
    assert_eq!(measured(page, page), page);
}
