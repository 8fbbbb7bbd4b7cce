//! The suite `firmware`: the core on machines without an operating system, and its costs there.
//!
//! The firmware in Rust runs on an emulated board for each kind of processor, and as a WebAssembly
//! module in Node. The firmware in C runs with the library that a C program links. All print the
//! same, except for one line in C. `cargo xtask embedded` writes the costs to docs/EMBEDDED.md.

use core::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::bare_metal;
use crate::command;
use crate::tools::{self, Found, Need};

const PAGE: &str = "docs/EMBEDDED.md";
/// The output of each device without its costs. C prints a part of the first line.
const EXPECTED: &str = "tools/firmware/expected.txt";
const TARGET: &str = "target/firmware";

/// A kind of processor, and a board with it.
struct Machine {
    target: &'static str,
    core: &'static str,
    /// The QEMU program, and its options for the board.
    board: (&'static str, &'static [&'static str]),
    words: Words,
}

/// How core implements its 64-bit atomic words on a target that has none.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Words {
    /// The crate portable-atomic, which disables interrupts for a few instructions.
    Interrupts,
    /// The crate portable-atomic with locks.
    Locks,
    /// Cells that only one thread may use.
    Unshared,
}

impl Words {
    /// Returns the feature of core that selects the implementation.
    fn feature(self) -> &'static str {
        if self == Self::Unshared { "unshared" } else { "portable-atomic" }
    }

    /// Returns the flags of rustc for the implementation, and for the compact SHA-256.
    fn flags(self) -> &'static str {
        match self {
            Self::Interrupts => {
                r#"--cfg sha2_backend_soft="compact" --cfg portable_atomic_unsafe_assume_single_core"#
            }
            Self::Locks | Self::Unshared => r#"--cfg sha2_backend_soft="compact""#,
        }
    }

    /// Returns the name on the page.
    fn name(self) -> &'static str {
        match self {
            Self::Interrupts => "`portable-atomic`, single core",
            Self::Locks => "`portable-atomic`, locks",
            Self::Unshared => "`unshared`",
        }
    }
}

const ARM: &str = "qemu-system-arm";
const RISCV: &str = "qemu-system-riscv32";

const MACHINES: &[Machine] = &[
    Machine {
        target: "thumbv7m-none-eabi",
        core: "Cortex-M3",
        board: (ARM, &["-M", "lm3s6965evb"]),
        words: Words::Interrupts,
    },
    Machine {
        target: "thumbv7em-none-eabihf",
        core: "Cortex-M4F",
        board: (ARM, &["-M", "mps2-an386"]),
        words: Words::Interrupts,
    },
    Machine {
        target: "thumbv6m-none-eabi",
        core: "Cortex-M0",
        board: (ARM, &["-M", "microbit"]),
        words: Words::Interrupts,
    },
    Machine {
        target: "thumbv6m-none-eabi",
        core: "Cortex-M0",
        board: (ARM, &["-M", "microbit"]),
        words: Words::Unshared,
    },
    Machine {
        target: "thumbv8m.main-none-eabi",
        core: "Cortex-M33",
        board: (ARM, &["-M", "mps2-an505"]),
        words: Words::Interrupts,
    },
    Machine {
        target: "riscv32imc-unknown-none-elf",
        core: "RV32IMC",
        board: (RISCV, &["-M", "virt", "-bios", "none"]),
        words: Words::Interrupts,
    },
    Machine {
        target: "riscv32imac-unknown-none-elf",
        core: "RV32IMAC",
        board: (RISCV, &["-M", "virt", "-bios", "none"]),
        words: Words::Locks,
    },
];

/// The target sizes of the two programs in C, in bytes.
const CODE_TARGETS: [u64; 2] = [8 * 1024, 5 * 1024];

/// The maximum stack of a key check, in bytes.
const MAX_STACK: u64 = 1228;

/// The maximum size of a gate for 64 keys, in bytes.
const MAX_GATE: u64 = 4 * 1024 + 512;

/// The parts of a program, and the strings that the names of their symbols contain. A symbol
/// belongs to the first part that matches.
const PARTS: &[(&str, &[&str])] = &[
    ("code that the compiler outlined from several functions", &["OUTLINED_FUNCTION"]),
    (
        "HMAC-SHA-256, peppers, comparison",
        &["keytally_core::mac", "gate::peppers", "Pepper", "sha2", "subtle", "zeroize"],
    ),
    ("lookup of imported keys", &["imported", "import_", "group_records"]),
    (
        "creating, opening and verifying tables",
        &[
            "keytally_core::header",
            "from_parts",
            "kt_gate_init",
            "kt_gate_attach",
            "kt_limiter_init",
            "first_plan",
        ],
    ),
    (
        "sliding windows, late and wrong clocks",
        &[
            "decide::roll",
            "sliding_room",
            "Counts>::previous",
            "Quotas>::remaining",
            "Layout>::with_stamp",
        ],
    ),
    ("retry times", &["retry_a", "room_at"]),
    (
        "issuing, rotating and revoking keys; plans",
        &[
            "dministrator",
            "administer",
            "kt_gate_issue",
            "kt_gate_rotate",
            "kt_gate_revoke",
            "gate::plan",
            ">::plan",
            "Plan",
            "mint",
            "encode",
            "hint",
        ],
    ),
    ("HTTP responses", &["keytally_core::http", "kt_verdict_headers", "kt_verdict_body"]),
    (
        "parsing and printing policies",
        &["keytally_core::policy", "keytally_ffi::policy", "Policy", "Quota>", "from_utf8"],
    ),
    ("limiter", &["keytally_core::limiter", "kt_limiter_check", "siphasher"]),
    ("parsing keys", &["keytally_core::key", "keytally_ffi::key", "kt_key_parse"]),
    (
        "gate and records",
        &["keytally_core::gate", "keytally_core::record", "keytally_core::line", "kt_gate_check"],
    ),
    (
        "decision and verdict",
        &[
            "keytally_core::decide",
            "keytally_core::tally",
            "keytally_core::time",
            "keytally_core::compare_exchange",
            "keytally_core::bits",
            "keytally_core::quota",
            "keytally_core::outcome",
            "keytally_core::verdict",
        ],
    ),
    (
        "the compiler's 64-bit arithmetic",
        &["compiler_builtins", "__aeabi_u", "__aeabi_l", "__udiv"],
    ),
    ("C interface: pointer checks, handles, the verdict as a struct", &["keytally_ffi", "kt_"]),
    ("the program itself, parts of libcore, unnamed constants", &[]),
];

/// The parts that each check needs.
const REQUIRED: &[&str] = &[
    "HMAC-SHA-256, peppers, comparison",
    "parsing keys",
    "gate and records",
    "decision and verdict",
    "the compiler's 64-bit arithmetic",
];

/// The symbols that the library may require of the program that links it.
const ALLOWED_UNDEFINED: &[&str] = &["memcpy", "memmove", "memset", "memcmp"];

/// The panic functions that a program in C may contain, by the ends of their names, with the reason
/// for each.
const PANICS: &[(&str, &str)] = &[
    ("9panic_fmt", "called by the other functions. It calls the handler, which loops permanently"),
    (
        "panic_bounds_check",
        "indices that the compiler cannot prove to be within bounds.\n  [A list](../tools/audit/panics/expected.txt) states why they are",
    ),
    (
        "panic_const_div_by_zero",
        "divisions by the length of a window or the number of records,\n  which are not 0",
    ),
    (
        "slice_index_fail",
        "ranges that the compiler cannot prove to be within bounds, like the indices",
    ),
    (
        "len_mismatch_fail",
        "copies between two slices, of which one was cut to the length of the other",
    ),
];

/// The board on which programs in C run.
const C_BOARD: (&str, &[&str]) = (ARM, &["-M", "lm3s6965evb"]);
const MODULE_TARGET: &str = "wasm32v1-none";
const C_TARGET: &str = "thumbv7m-none-eabi";

/// Checks that each device prints the expected text, and that no cost exceeds the page's.
pub(crate) fn check(found: &[Found]) -> Result<String> {
    let fresh = measure(&Tools::from_found(found)?)?;
    let page = fs::read_to_string(PAGE).with_context(|| format!("cannot read {PAGE}"))?;
    compare(&page, &fresh)?;
    Ok(format!("{} machines and a WebAssembly module", MACHINES.len()))
}

/// Writes the page.
pub(crate) fn write() -> Result<()> {
    let found = tools::find_all(NEEDS)?;
    fs::write(PAGE, measure(&Tools::from_found(&found)?)?)?;
    println!("wrote {PAGE}");
    Ok(())
}

/// The tools that the suite needs.
pub(crate) const NEEDS: &[&Need] = &[
    &bare_metal::CARGO,
    &bare_metal::LLD,
    &bare_metal::ARM_GCC,
    &bare_metal::QEMU_ARM,
    &bare_metal::QEMU_RISCV,
    &tools::NODE,
];

/// The paths of [`NEEDS`].
struct Tools {
    cargo: PathBuf,
    lld: PathBuf,
    gcc: PathBuf,
    node: PathBuf,
}

impl Tools {
    fn from_found(found: &[Found]) -> Result<Self> {
        let path = |need: &Need| need.among(found).map(Path::to_owned);
        Ok(Self {
            cargo: path(&bare_metal::CARGO)?,
            lld: path(&bare_metal::LLD)?,
            gcc: path(&bare_metal::ARM_GCC)?,
            node: path(&tools::NODE)?,
        })
    }

    /// Returns a command of Debian's cargo and compiler. It also builds Rust's `core` for the
    /// targets, each of which has its flags.
    fn cargo(&self, arguments: &[&str], targets: &[(&str, &str)]) -> Command {
        let mut cargo = Command::new(&self.cargo);
        cargo
            .args(arguments)
            .args(["--locked", "-Zbuild-std=core", "-Ztrim-paths", "--target-dir", TARGET])
            // The paths of source files are constants of the program. Without the folder of the
            // clone, their lengths are the same everywhere.
            .env("CARGO_PROFILE_RELEASE_TRIM_PATHS", "all")
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTC", self.cargo.with_file_name("rustc"))
            .env("RUSTDOC", self.cargo.with_file_name("rustdoc"))
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        for (target, flags) in targets {
            let linker = if target.starts_with("wasm") { "wasm-ld" } else { "ld.lld" };
            let variable = |setting| {
                format!("CARGO_TARGET_{}_{setting}", target.replace(['-', '.'], "_").to_uppercase())
            };
            cargo.args(["--target", target]).env(variable("RUSTFLAGS"), flags);
            cargo.env(variable("LINKER"), self.lld.to_string_lossy().replace("ld.lld", linker));
        }
        cargo
    }

    /// Builds a package of the firmware's workspace for several targets in parallel.
    fn build(&self, package: &str, features: &str, targets: &[(&str, &str)]) -> Result<()> {
        let arguments = [
            "build",
            "--release",
            "--manifest-path",
            "tools/firmware/Cargo.toml",
            "--package",
            package,
        ];
        let features = ["--features", features];
        command::run(self.cargo(&[&arguments[..], &features].concat(), targets)).map(drop)
    }

    /// Returns the name and version of the compiler.
    fn version(&self) -> Result<String> {
        let mut rustc = Command::new(self.cargo.with_file_name("rustc"));
        rustc.arg("--version");
        Ok(command::run(rustc)?.trim().to_owned())
    }
}

/// Builds and runs all programs. Returns their costs as the page.
fn measure(tools: &Tools) -> Result<String> {
    let expected =
        fs::read_to_string(EXPECTED).with_context(|| format!("cannot read {EXPECTED}"))?;
    let mut costs = Vec::new();
    for feature in ["portable-atomic", "unshared"] {
        let machines = || MACHINES.iter().filter(|machine| machine.words.feature() == feature);
        let targets: Vec<_> =
            machines().map(|machine| (machine.target, machine.words.flags())).collect();
        tools.build("keytally-device", feature, &targets)?;
        for machine in machines() {
            let printed = emulate(machine.board, &built(machine.target, "keytally-device"))?;
            let head = format!("{}, {}", machine.core, machine.words.name());
            costs.push((head, costs_of(&expected, &printed, machine.target)?));
        }
    }
    check_choice_is_required(tools)?;
    run_module(tools, &expected)?;

    let library = Library::build(tools)?;
    let whole = library.link("whole", &["whole.c"])?;
    let check = library.link("check", &["check.c"])?;
    let firmware = library.link("firmware", &["main.c", "vectors.c", "life.c", "cost.c"])?;
    for program in [&whole, &check] {
        emulate(C_BOARD, program)?;
    }
    let printed = emulate(C_BOARD, &firmware)?;
    costs.push((
        "Cortex-M3, through the C library".to_owned(),
        costs_of(&expected, &printed, "the firmware in C")?,
    ));

    let page = Page {
        compiler: tools.version()?,
        costs,
        code: [("all functions", library.code(&whole)?), ("only a check", library.code(&check)?)],
        parts: [library.parts(&whole)?, library.parts(&check)?],
        gates: [
            fs::metadata(library.host.join("gate.bin"))?.len(),
            library.symbol(&whole, "gate_memory")?,
        ],
        handle: library.symbol(&whole, "gate")?,
        undefined: library.undefined()?,
        panics: library.panics(&whole)?,
    };
    page.check_limits()?;
    page.text()
}

/// Checks that a build without a choice of 64-bit words fails with an error that names the choices.
fn check_choice_is_required(tools: &Tools) -> Result<()> {
    let Err(error) = tools.build("keytally-device", "", &[(C_TARGET, Words::Interrupts.flags())])
    else {
        bail!("a build for {C_TARGET} without a choice of 64-bit words succeeded");
    };
    let error = format!("{error:#}");
    let named = ["`portable-atomic`", "`unshared`"].iter().all(|choice| error.contains(choice));
    ensure!(
        named && error.contains("this target has no 64-bit atomics"),
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

/// Runs the WebAssembly module and checks its output.
fn run_module(tools: &Tools, expected: &str) -> Result<()> {
    tools.build("keytally-wasm", "", &[(MODULE_TARGET, "")])?;
    let mut node = Command::new(&tools.node);
    node.arg("tools/firmware/wasm/run.mjs").arg(built(MODULE_TARGET, "keytally_wasm.wasm"));
    costs_of(expected, &command::run(node)?, "the WebAssembly module").map(drop)
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

/// libkeytally for programs in C on bare metal.
struct Library<'t> {
    tools: &'t Tools,
    archive: PathBuf,
    /// The folder of the files that keytally-tables writes for the programs in C.
    host: PathBuf,
}

impl<'t> Library<'t> {
    fn build(tools: &'t Tools) -> Result<Self> {
        let arguments = [
            "rustc",
            "--profile",
            "bare",
            "--package",
            "keytally-ffi",
            "--crate-type",
            "staticlib",
        ];
        let features = ["--no-default-features", "--features", "keytally-core/portable-atomic"];
        let target = (C_TARGET, Words::Interrupts.flags());
        command::run(tools.cargo(&[&arguments[..], &features].concat(), &[target]))?;
        let archive = Path::new(TARGET).join(C_TARGET).join("bare/libkeytally_ffi.a");

        let host = Path::new(TARGET).join("host");
        let mut fill = command::cargo();
        fill.args([
            "run",
            "--locked",
            "--quiet",
            "--manifest-path",
            "tools/firmware/Cargo.toml",
            "--package",
            "keytally-tables",
        ]);
        fill.args(["--target-dir", TARGET, "--"]).arg(&host);
        command::run(fill)?;
        Ok(Self { tools, archive, host })
    }

    /// Links a program of `tools/firmware/c` with LLVM's linker, since GNU's keeps unused strings.
    fn link(&self, name: &str, sources: &[&str]) -> Result<PathBuf> {
        let folder = Path::new("tools/firmware/c");
        // GCC looks for a linker of this name.
        let lld = self.host.join("ld.lld");
        if !lld.exists() {
            symlink(&self.tools.lld, &lld)
                .with_context(|| format!("cannot create the link {}", lld.display()))?;
        }
        let program = self.host.join(name).with_extension("elf");
        let mut gcc = Command::new(&self.tools.gcc);
        gcc.args(["-mcpu=cortex-m3", "-mthumb", "-Os", "-std=c11", "-Wall", "-Wextra", "-Werror"]);
        gcc.args([
            "-ffreestanding",
            "-fno-tree-loop-distribute-patterns",
            "-ffunction-sections",
            "-fdata-sections",
        ]);
        gcc.args(["-nostdlib", "-nostartfiles", "-fuse-ld=lld", "-Wl,--gc-sections", "-Iinclude"]);
        gcc.arg("-B").arg(&self.host);
        gcc.arg("-I").arg(&self.host).arg(format!("-Wa,-I{}", self.host.display()));
        gcc.arg("-T")
            .arg(folder.join("board.ld"))
            .args(sources.iter().map(|source| folder.join(source)));
        gcc.arg(folder.join("board.c")).arg(&self.archive).args(["-lgcc", "-o"]).arg(&program);
        command::run(gcc)?;
        Ok(program)
    }

    /// Returns the bytes of code and constants in a program.
    fn code(&self, program: &Path) -> Result<u64> {
        let sections = self.gnu("size", &["-A"], program)?;
        let size = |name: &str| {
            let line = sections.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        size(".text ")
            .zip(size(".rodata "))
            .map(|(text, rodata)| text + rodata)
            .context("the program has no .text or no .rodata")
    }

    /// Returns the bytes of code and constants in each of [`PARTS`].
    fn parts(&self, program: &Path) -> Result<Vec<u64>> {
        let mut parts = vec![0; PARTS.len()];
        for line in self.gnu("nm", &["-S", "-C"], program)?.lines() {
            let fields: Vec<&str> = line.splitn(4, ' ').collect();
            let [_, size, "t" | "T" | "r" | "R" | "W", name] = fields[..] else { continue };
            if let Some(part) = part(name) {
                parts[part] += u64::from_str_radix(size, 16)?;
            }
        }
        let named: u64 = parts.iter().sum();
        let rest = self
            .code(program)?
            .checked_sub(named)
            .context("the parts are larger than the program")?;
        if let Some(last) = parts.last_mut() {
            *last = rest;
        }
        Ok(parts)
    }

    /// Returns the size of a variable in a program, in bytes.
    fn symbol(&self, program: &Path, name: &str) -> Result<u64> {
        let symbols = self.gnu("nm", &["-S"], program)?;
        let line = symbols.lines().find(|line| line.ends_with(&format!(" {name}")));
        let size = line
            .and_then(|line| line.split(' ').nth(1))
            .with_context(|| format!("the program has no variable {name}"))?;
        Ok(u64::from_str_radix(size, 16)?)
    }

    /// Returns the symbols that the library requires from the program that links it.
    fn undefined(&self) -> Result<Vec<String>> {
        // nm would load a plugin, which may be of another version of LLVM.
        let list = self.gnu("readelf", &["-sW"], &self.archive)?;
        let symbols = list.lines().filter_map(Symbol::read).collect::<Vec<_>>();
        ensure!(
            symbols.iter().any(|symbol| symbol.name == "kt_gate_check"),
            "the archive has no kt_gate_check"
        );
        let defined = |name| symbols.iter().any(|symbol| symbol.defined && symbol.name == name);
        let mut undefined: Vec<String> = symbols
            .iter()
            .filter(|symbol| !symbol.defined && !defined(symbol.name))
            .map(|symbol| symbol.name.to_owned())
            .collect();
        undefined.sort();
        undefined.dedup();
        let other = undefined.iter().find(|name| !ALLOWED_UNDEFINED.contains(&name.as_str()));
        ensure!(other.is_none(), "libkeytally requires {other:?} of the program that links it");
        Ok(undefined)
    }

    /// Returns the panic functions that a program contains, with the reason for each.
    fn panics(&self, program: &Path) -> Result<Vec<(&'static str, &'static str)>> {
        let list = self.gnu("readelf", &["-sW"], program)?;
        let mut panics = Vec::new();
        for symbol in list.lines().filter_map(Symbol::read) {
            if !symbol.name.contains("9panicking") && !symbol.name.contains("_fail") {
                continue;
            }
            let known = PANICS.iter().find(|(name, _)| symbol.name.ends_with(name));
            let known = known.with_context(|| {
                format!(
                    "a program in C contains a panic function without a reason: {}",
                    symbol.name
                )
            })?;
            if !panics.contains(known) {
                panics.push(*known);
            }
        }
        panics.sort_unstable();
        Ok(panics)
    }

    /// Runs a GNU tool for the target, such as `nm`, on a file. Returns its output.
    fn gnu(&self, program: &str, options: &[&str], file: &Path) -> Result<String> {
        let mut gnu =
            Command::new(self.tools.gcc.to_string_lossy().replace("-gcc", &format!("-{program}")));
        gnu.args(options).arg(file);
        command::run(gnu)
    }
}

/// Returns the index of the part that a symbol belongs to.
fn part(name: &str) -> Option<usize> {
    PARTS.iter().position(|(_, words)| words.iter().any(|word| name.contains(word)))
}

/// A line of a symbol table: `NUMBER: VALUE SIZE TYPE BIND VISIBILITY SECTION NAME`.
struct Symbol<'l> {
    name: &'l str,
    defined: bool,
}

impl<'l> Symbol<'l> {
    fn read(line: &'l str) -> Option<Self> {
        let [_, _, _, _, _, _, section, name] =
            line.split_whitespace().collect::<Vec<_>>().try_into().ok()?;
        Some(Self { name, defined: section != "UND" })
    }
}

/// The content of the page.
struct Page {
    compiler: String,
    costs: Vec<(String, Vec<Cost>)>,
    /// Bytes of code and constants in each program in C.
    code: [(&'static str, u64); 2],
    /// Bytes of code and constants in each program in C, for each of [`PARTS`].
    parts: [Vec<u64>; 2],
    /// Bytes of a gate for 64 keys in Rust and in C, and of its handle in C.
    gates: [u64; 2],
    handle: u64,
    /// Symbols that the library requires.
    undefined: Vec<String>,
    /// The panic functions in the larger program, with the reason for each.
    panics: Vec<(&'static str, &'static str)>,
}

impl Page {
    /// Checks the limits of stack and memory, whatever the recorded page says.
    fn check_limits(&self) -> Result<()> {
        for (machine, costs) in &self.costs {
            for cost in costs.iter().filter(|cost| cost.call.starts_with("gate: check")) {
                ensure!(
                    cost.stack <= MAX_STACK,
                    "{machine}: {} takes {} bytes of stack; the maximum is {MAX_STACK}",
                    cost.call,
                    cost.stack
                );
            }
        }
        let largest = self.gates.into_iter().max().unwrap_or(0);
        ensure!(
            largest <= MAX_GATE,
            "a gate for 64 keys takes {largest} bytes; the maximum is {MAX_GATE}"
        );
        Ok(())
    }

    fn text(&self) -> Result<String> {
        let Self { compiler, costs, code, parts, gates, handle, undefined, panics } = self;
        let mut page = format!(
            "\
<!-- Written by `cargo xtask embedded`. -->
# Cost on bare metal

This page states what Keytally costs on microcontrollers. The suite `firmware` measures the costs,
and fails if one exceeds the recorded value by more than 3 %. It runs the programs of
[tools/firmware/](../tools/firmware) on QEMU's boards, with the compact SHA-256. The compiler is
{compiler}.

## Calls

Each cell has the instructions and the bytes of stack of one call. The stack does not include the
caller's frame, which holds the verdict. The suite fails if a key check takes more than {MAX_STACK} bytes
of stack. Most instructions of a key check are SHA-256.

"
        );
        let calls = costs.first().map(|(_, costs)| costs.as_slice()).unwrap_or_default();
        let names: Vec<&str> = calls.iter().map(|cost| cost.call.as_str()).collect();
        writeln!(page, "| | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()))?;
        for (machine, costs) in costs {
            write!(page, "| {machine} |")?;
            for name in &names {
                match costs.iter().find(|cost| cost.call == *name) {
                    Some(cost) => write!(page, " {}, {} B |", cost.instructions, cost.stack)?,
                    None => write!(page, " |")?,
                }
            }
            page.push('\n');
        }
        page += "
## Code

The sizes are bytes of code and constants. The two complete programs in C for the Cortex-M3 include
start-up code and memcpy, and are linked by lld.

| program | bytes | target |
|---|---|---|
";
        for ((program, bytes), aim) in code.iter().zip(CODE_TARGETS) {
            writeln!(page, "| {program} | {bytes} | {aim} |")?;
        }
        page += "\n| part | all functions | only a check |\n|---|---|---|\n";
        let [whole, check] = parts;
        let mut least = 0;
        for (((part, _), whole), check) in PARTS.iter().zip(whole).zip(check) {
            let required = REQUIRED.contains(part);
            least += if required { *check } else { 0 };
            writeln!(page, "| {part}{} | {whole} | {check} |", if required { " *" } else { "" })?;
        }
        let [rust_gate, c_gate] = gates;
        writeln!(
            page,
            "
The targets are not reached. The parts that each check needs (*) take {least} bytes of the program with
only a check. The same code handles all policies, layouts and records. Tallies, times and tags are
64-bit words, and each operation on one takes several instructions of a 32-bit core."
        )?;
        writeln!(
            page,
            "
## Memory

A gate for 64 keys and four plans takes {rust_gate} bytes in Rust and {c_gate} bytes in C. The suite fails if
it takes more than {MAX_GATE}. Its handle in C, which holds the peppers, takes {handle} bytes. There is no
other state and no allocation.

## Symbols

Symbols that libkeytally requires from the program that links it: {}. The program
with all functions contains these panic functions:
",
            if undefined.is_empty() { "none".to_owned() } else { undefined.join(", ") },
        )?;
        for (name, reason) in panics {
            writeln!(
                page,
                "- `{}`: {reason}.",
                name.trim_start_matches(|c: char| c.is_ascii_digit())
            )?;
        }
        Ok(page)
    }
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
    ensure!(
        words(recorded) == words(fresh),
        "{PAGE} differs from this build; {advice}:\n{}",
        fresh.lines().filter(|line| !recorded.contains(*line)).collect::<Vec<_>>().join("\n")
    );
    let mut faults = String::new();
    for (was, is) in recorded.lines().zip(fresh.lines()) {
        let more = |(was, is): (u64, u64)| is > was + was * TOLERANCE.0 / 1000 + TOLERANCE.1;
        if numbers(was).zip(numbers(is)).any(more) {
            writeln!(faults, "was {was}\nis  {is}")?;
        }
    }
    ensure!(faults.is_empty(), "costs exceed those of {PAGE}; {advice}:\n{faults}");
    Ok(())
}

/// Returns the text with each number replaced by 0, so that only words are compared.
fn words(text: &str) -> String {
    let mut words = String::new();
    for character in text.chars() {
        match character.is_ascii_digit() {
            true if words.ends_with('0') => {}
            true => words.push('0'),
            false => words.push(character),
        }
    }
    words
}

/// Returns the numbers in a line.
fn numbers(line: &str) -> impl Iterator<Item = u64> {
    line.split(|character: char| !character.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
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
    fn symbol_belongs_to_the_first_part_that_matches() {
        let part = |name: &str| part(name).map_or("", |part| PARTS[part].0);
        let gate = |name: &str| {
            part(&format!(
                "<keytally_core::gate::table::Gate<keytally_ffi::pointers::Lines>>::{name}"
            ))
        };
        assert_eq!(gate("verify_key"), "gate and records");
        assert_eq!(gate("verify_imported"), "lookup of imported keys");
        assert_eq!(
            part("kt_gate_close"),
            "C interface: pointer checks, handles, the verdict as a struct"
        );
        assert_eq!(part("main"), "");
        assert!(REQUIRED.iter().all(|part| PARTS.iter().any(|(name, _)| name == part)));
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
