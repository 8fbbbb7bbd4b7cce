//! The suite `firmware`: the core on machines without an operating system. `cargo xtask embedded` writes docs/EMBEDDED.md, what
//! it costs there, anew.
//!
//! The firmware in Rust runs on an emulated board of every kind of processor, and as a WebAssembly module in Node; all print
//! the same. So does the firmware in C, with the library that a C program links.

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
/// What every device prints but for its costs; of the first line, C knows a part.
const EXPECTED: &str = "tools/firmware/expected.txt";
const TARGET: &str = "target/firmware";

/// A kind of processor, and the board that stands for it.
struct Machine {
    target: &'static str,
    core: &'static str,
    /// QEMU's program and its name of the board.
    board: (&'static str, &'static [&'static str]),
    words: Words,
}

/// Where its 64-bit words come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Words {
    /// The crate portable-atomic, which turns interrupts off for a moment.
    Interrupts,
    /// The same crate with its locks.
    Locks,
    /// Plain cells.
    Unshared,
}

impl Words {
    fn feature(self) -> &'static str {
        if self == Self::Unshared { "unshared" } else { "portable-atomic" }
    }

    fn flags(self) -> &'static str {
        match self {
            Self::Interrupts => {
                r#"--cfg sha2_backend_soft="compact" --cfg portable_atomic_unsafe_assume_single_core"#
            }
            Self::Locks | Self::Unshared => r#"--cfg sha2_backend_soft="compact""#,
        }
    }

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

/// How large the two programs in C are to be, in bytes.
const CODE_AIMS: [u64; 2] = [8 * 1024, 5 * 1024];

/// How much stack the check of a key is to take, in bytes.
const STACK_AIM: u64 = 1228;

/// How large a gate for 64 keys is to be, in bytes.
const GATE_AIM: u64 = 4 * 1024 + 512;

/// What a program's code is for, and what the names of its symbols hold; a symbol belongs to the first that fits.
const PARTS: &[(&str, &[&str])] = &[
    ("pieces that the compiler found in several functions", &["OUTLINED_FUNCTION"]),
    (
        "HMAC-SHA-256, peppers, comparison",
        &["keytally_core::mac", "gate::peppers", "Pepper", "sha2", "subtle", "zeroize"],
    ),
    ("keys that were issued elsewhere: looked for", &["imported", "import_", "group_records"]),
    (
        "tables: made, opened and checked",
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
        "sliding windows, clocks that run late or wrong",
        &["decide::roll", "sliding_room", "Counts>::previous", "Quotas>::remaining", "Layout>::with_stamp"],
    ),
    ("when to try again", &["retry_a", "room_at"]),
    (
        "keys issued, rotated, revoked; plans",
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
    ("responses", &["keytally_core::http", "kt_verdict_headers", "kt_verdict_body"]),
    ("policies as text", &["keytally_core::policy", "keytally_ffi::policy", "Policy", "Quota>", "from_utf8"]),
    ("the limiter", &["keytally_core::limiter", "kt_limiter_check", "siphasher"]),
    ("the key's form", &["keytally_core::key", "keytally_ffi::key", "kt_key_parse"]),
    (
        "the gate and its records",
        &["keytally_core::gate", "keytally_core::record", "keytally_core::line", "kt_gate_check"],
    ),
    (
        "the decision, the verdict",
        &[
            "keytally_core::decide",
            "keytally_core::tally",
            "keytally_core::time",
            "keytally_core::atomic",
            "keytally_core::bits",
            "keytally_core::quota",
            "keytally_core::outcome",
            "keytally_core::verdict",
        ],
    ),
    ("64-bit arithmetic of the compiler's", &["compiler_builtins", "__aeabi_u", "__aeabi_l", "__udiv"]),
    ("what C sees: checked pointers, handles, the verdict as a struct", &["keytally_ffi", "kt_"]),
    ("the program itself, pieces of core, constants without a name", &[]),
];

/// The parts that no check is without.
const NEVER_WITHOUT: &[&str] = &[
    "HMAC-SHA-256, peppers, comparison",
    "the key's form",
    "the gate and its records",
    "the decision, the verdict",
    "64-bit arithmetic of the compiler's",
];

/// What the library may leave to the program that links it.
const LEFT_TO_THE_PROGRAM: &[&str] = &["memcpy", "memmove", "memset", "memcmp"];

/// The ways to panic that a program in C may hold, by the ends of their names, and why each isn't gone.
const PANICS: &[(&str, &str)] = &[
    ("9panic_fmt", "the way from the others to the handler, which loops for ever"),
    (
        "panic_bounds_check",
        "indices that the compiler can't see to be within bounds; [PANICS.md](PANICS.md) tells why they are",
    ),
    (
        "panic_const_div_by_zero",
        "divisions by the length of a window or the number of records, which are never 0",
    ),
    ("slice_index_fail", "ranges, as the indices"),
    ("len_mismatch_fail", "copies between two slices of one length, which the one was cut to"),
];

/// The board that programs in C run on.
const C_BOARD: (&str, &[&str]) = (ARM, &["-M", "lm3s6965evb"]);
const MODULE_TARGET: &str = "wasm32v1-none";
const C_TARGET: &str = "thumbv7m-none-eabi";

/// Every device prints what it should, and nothing costs more than the page says.
pub(crate) fn check(found: &[Found]) -> Result<String> {
    let fresh = measure(&Tools::of(found)?)?;
    let page = fs::read_to_string(PAGE).with_context(|| format!("cannot read {PAGE}"))?;
    compare(&page, &fresh)?;
    Ok(format!("{} machines and a WebAssembly module", MACHINES.len()))
}

/// Writes the page.
pub(crate) fn write() -> Result<()> {
    let found = tools::find_all(NEEDS)?;
    fs::write(PAGE, measure(&Tools::of(&found)?)?)?;
    println!("wrote {PAGE}");
    Ok(())
}

/// What the suite needs.
pub(crate) const NEEDS: &[&Need] = &[
    &bare_metal::CARGO,
    &bare_metal::LLD,
    &bare_metal::ARM_GCC,
    &bare_metal::QEMU_ARM,
    &bare_metal::QEMU_RISCV,
    &tools::NODE,
];

struct Tools {
    cargo: PathBuf,
    lld: PathBuf,
    gcc: PathBuf,
    node: PathBuf,
}

impl Tools {
    fn of(found: &[Found]) -> Result<Self> {
        let path = |need: &Need| need.among(found).map(Path::to_owned);
        Ok(Self {
            cargo: path(&bare_metal::CARGO)?,
            lld: path(&bare_metal::LLD)?,
            gcc: path(&bare_metal::ARM_GCC)?,
            node: path(&tools::NODE)?,
        })
    }

    /// Debian's cargo with Debian's compiler, for targets whose `core` it builds too.
    fn cargo(&self, arguments: &[&str], targets: &[(&str, &str)]) -> Command {
        let mut cargo = Command::new(&self.cargo);
        cargo
            .args(arguments)
            .args(["--locked", "-Zbuild-std=core", "--target-dir", TARGET])
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTC", self.cargo.with_file_name("rustc"))
            .env("RUSTDOC", self.cargo.with_file_name("rustdoc"))
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        for (target, flags) in targets {
            let linker = if target.starts_with("wasm") { "wasm-ld" } else { "ld.lld" };
            let variable =
                |of| format!("CARGO_TARGET_{}_{of}", target.replace(['-', '.'], "_").to_uppercase());
            cargo.args(["--target", target]).env(variable("RUSTFLAGS"), flags);
            cargo.env(variable("LINKER"), self.lld.to_string_lossy().replace("ld.lld", linker));
        }
        cargo
    }

    /// Builds a package of the firmware's workspace for several targets at once, side by side.
    fn build(&self, package: &str, features: &str, targets: &[(&str, &str)]) -> Result<()> {
        let what =
            ["build", "--release", "--manifest-path", "tools/firmware/Cargo.toml", "--package", package];
        let features = ["--features", features];
        command::run(self.cargo(&[&what[..], &features].concat(), targets)).map(drop)
    }

    /// The compiler and its version.
    fn version(&self) -> Result<String> {
        let mut rustc = Command::new(self.cargo.with_file_name("rustc"));
        rustc.arg("--version");
        Ok(command::run(rustc)?.trim().to_owned())
    }
}

/// Builds and runs all, and writes what it cost as the page.
fn measure(tools: &Tools) -> Result<String> {
    let expected = fs::read_to_string(EXPECTED).with_context(|| format!("cannot read {EXPECTED}"))?;
    let mut costs = Vec::new();
    for feature in ["portable-atomic", "unshared"] {
        let machines = || MACHINES.iter().filter(|machine| machine.words.feature() == feature);
        let targets: Vec<_> = machines().map(|machine| (machine.target, machine.words.flags())).collect();
        tools.build("keytally-device", feature, &targets)?;
        for machine in machines() {
            let printed = emulate(machine.board, &built(machine.target, "keytally-device"))?;
            let head = format!("{}, {}", machine.core, machine.words.name());
            costs.push((head, costs_of(&expected, &printed, machine.target)?));
        }
    }
    must_choose(tools)?;
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
        code: [("all of it", library.code(&whole)?), ("a check and no more", library.code(&check)?)],
        parts: [library.parts(&whole)?, library.parts(&check)?],
        gates: [fs::metadata(library.desk.join("gate.bin"))?.len(), library.symbol(&whole, "gate_memory")?],
        handle: library.symbol(&whole, "gate")?,
        left: library.left()?,
        panics: library.panics(&whole)?,
    };
    page.keeps_its_aims()?;
    page.text()
}

/// Where 64-bit words come from must be chosen: a build that didn't ends with a sentence that names the choices.
fn must_choose(tools: &Tools) -> Result<()> {
    let Err(refused) = tools.build("keytally-device", "", &[(C_TARGET, Words::Interrupts.flags())]) else {
        bail!("a build for {C_TARGET} that chose no 64-bit words went through");
    };
    let refused = format!("{refused:#}");
    let named = ["`portable-atomic`", "`unshared`"].iter().all(|choice| refused.contains(choice));
    ensure!(
        named && refused.contains("this target has no 64-bit atomics"),
        "a build that chose no 64-bit words isn't told what to choose:\n{refused}"
    );
    Ok(())
}

/// Runs a program on a board that QEMU emulates, an instruction in a nanosecond, and tells what it printed.
fn emulate((qemu, board): (&str, &[&str]), program: &Path) -> Result<String> {
    // A program that lost its way would run for ever.
    let mut run = Command::new("timeout");
    run.args(["60", qemu]).args(board).args(["-icount", "shift=0", "-display", "none"]);
    run.args(["-semihosting-config", "enable=on,target=native", "-kernel"]).arg(program);
    command::run(run)
}

fn built(target: &str, name: &str) -> PathBuf {
    Path::new(TARGET).join(target).join("release").join(name)
}

/// Runs the WebAssembly module, which imports nothing.
fn run_module(tools: &Tools, expected: &str) -> Result<()> {
    tools.build("keytally-wasm", "", &[(MODULE_TARGET, "")])?;
    let mut node = Command::new(&tools.node);
    node.arg("tools/firmware/wasm/run.mjs").arg(built(MODULE_TARGET, "keytally_wasm.wasm"));
    costs_of(expected, &command::run(node)?, "the WebAssembly module").map(drop)
}

/// What one call costs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cost {
    call: String,
    instructions: u64,
    stack: u64,
}

/// Compares what a device printed with what it should have, and tells what its calls cost.
fn costs_of(expected: &str, printed: &str, who: &str) -> Result<Vec<Cost>> {
    let (costs, told): (Vec<&str>, Vec<&str>) = printed.lines().partition(|line| line.starts_with("cost: "));
    let wanted: Vec<&str> = expected.lines().collect();
    // C doesn't see decisions and MACs by themselves.
    let same =
        |(told, wanted): (&&str, &&str)| told == wanted || who.ends_with(" C") && wanted.starts_with(*told);
    ensure!(
        told.len() == wanted.len() && told.iter().zip(&wanted).all(same),
        "{who} printed something else than {EXPECTED}:\n{printed}"
    );
    costs.into_iter().map(|line| cost(line).with_context(|| format!("no cost: {line}"))).collect()
}

/// Reads `cost: CALL: N instructions, N bytes of stack`.
fn cost(line: &str) -> Option<Cost> {
    let (call, numbers) = line.strip_prefix("cost: ")?.rsplit_once(": ")?;
    let (instructions, stack) = numbers.split_once(" instructions, ")?;
    Some(Cost {
        call: call.to_owned(),
        instructions: instructions.parse().ok()?,
        stack: stack.strip_suffix(" bytes of stack")?.parse().ok()?,
    })
}

/// libkeytally as a program in C for bare metal links it.
struct Library<'t> {
    tools: &'t Tools,
    archive: PathBuf,
    desk: PathBuf,
}

impl<'t> Library<'t> {
    fn build(tools: &'t Tools) -> Result<Self> {
        let arguments =
            ["rustc", "--profile", "bare", "--package", "keytally-ffi", "--crate-type", "staticlib"];
        let features = ["--no-default-features", "--features", "keytally-core/portable-atomic"];
        let target = (C_TARGET, Words::Interrupts.flags());
        command::run(tools.cargo(&[&arguments[..], &features].concat(), &[target]))?;
        let archive = Path::new(TARGET).join(C_TARGET).join("bare/libkeytally_ffi.a");

        let desk = Path::new(TARGET).join("desk");
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
        fill.args(["--target-dir", TARGET, "--"]).arg(&desk);
        command::run(fill)?;
        Ok(Self { tools, archive, desk })
    }

    /// Links a program of `tools/firmware/c`, with LLVM's linker: GNU's keeps texts that nothing uses.
    fn link(&self, name: &str, sources: &[&str]) -> Result<PathBuf> {
        let folder = Path::new("tools/firmware/c");
        // The compiler looks for a linker of just this name.
        let lld = self.desk.join("ld.lld");
        if !lld.exists() {
            symlink(&self.tools.lld, &lld).with_context(|| format!("cannot make {}", lld.display()))?;
        }
        let program = self.desk.join(name).with_extension("elf");
        let mut gcc = Command::new(&self.tools.gcc);
        gcc.args(["-mcpu=cortex-m3", "-mthumb", "-Os", "-std=c11", "-Wall", "-Wextra", "-Werror"]);
        gcc.args([
            "-ffreestanding",
            "-fno-tree-loop-distribute-patterns",
            "-ffunction-sections",
            "-fdata-sections",
        ]);
        gcc.args(["-nostdlib", "-nostartfiles", "-fuse-ld=lld", "-Wl,--gc-sections", "-Iinclude"]);
        gcc.arg("-B").arg(&self.desk);
        gcc.arg("-I").arg(&self.desk).arg(format!("-Wa,-I{}", self.desk.display()));
        gcc.arg("-T").arg(folder.join("board.ld")).args(sources.iter().map(|source| folder.join(source)));
        gcc.arg(folder.join("board.c")).arg(&self.archive).args(["-lgcc", "-o"]).arg(&program);
        command::run(gcc)?;
        Ok(program)
    }

    /// Bytes of code and constants in a program.
    fn code(&self, program: &Path) -> Result<u64> {
        let sections = self.gnu("size", &["-A"], program)?;
        let size = |name: &str| {
            let line = sections.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        size(".text ")
            .zip(size(".rodata "))
            .map(|(text, rodata)| text + rodata)
            .context("a program without code")
    }

    /// The bytes of code and constants by the parts of [`PARTS`].
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
        let rest = self.code(program)?.checked_sub(named).context("parts are larger than the whole")?;
        if let Some(last) = parts.last_mut() {
            *last = rest;
        }
        Ok(parts)
    }

    /// Bytes of a variable in a program.
    fn symbol(&self, program: &Path, name: &str) -> Result<u64> {
        let symbols = self.gnu("nm", &["-S"], program)?;
        let line = symbols.lines().find(|line| line.ends_with(&format!(" {name}")));
        let size = line.and_then(|line| line.split(' ').nth(1)).context("no such variable")?;
        Ok(u64::from_str_radix(size, 16)?)
    }

    /// What the archive as a whole leaves to the program that links it.
    fn left(&self) -> Result<Vec<String>> {
        // Not from nm: a plugin of another LLVM's may be in its way.
        let list = self.gnu("readelf", &["-sW"], &self.archive)?;
        let symbols = list.lines().filter_map(Symbol::read).collect::<Vec<_>>();
        ensure!(
            symbols.iter().any(|symbol| symbol.name == "kt_gate_check"),
            "the archive has no kt_gate_check"
        );
        let defined = |name| symbols.iter().any(|symbol| symbol.defined && symbol.name == name);
        let mut left: Vec<String> = symbols
            .iter()
            .filter(|symbol| !symbol.defined && !defined(symbol.name))
            .map(|symbol| symbol.name.to_owned())
            .collect();
        left.sort();
        left.dedup();
        let surprise = left.iter().find(|name| !LEFT_TO_THE_PROGRAM.contains(&name.as_str()));
        ensure!(surprise.is_none(), "libkeytally needs {surprise:?} of the program that links it");
        Ok(left)
    }

    /// The ways to panic that a program holds, each with the reason why it isn't gone.
    fn panics(&self, program: &Path) -> Result<Vec<(&'static str, &'static str)>> {
        let list = self.gnu("readelf", &["-sW"], program)?;
        let mut panics = Vec::new();
        for symbol in list.lines().filter_map(Symbol::read) {
            if !symbol.name.contains("9panicking") && !symbol.name.contains("_fail") {
                continue;
            }
            let known = PANICS.iter().find(|(name, _)| symbol.name.ends_with(name));
            let known =
                known.with_context(|| format!("a program in C could panic in a new way: {}", symbol.name))?;
            if !panics.contains(known) {
                panics.push(*known);
            }
        }
        panics.sort_unstable();
        Ok(panics)
    }

    /// What another program of the same tools tells of a file.
    fn gnu(&self, program: &str, options: &[&str], file: &Path) -> Result<String> {
        let mut gnu = Command::new(self.tools.gcc.to_string_lossy().replace("-gcc", &format!("-{program}")));
        gnu.args(options).arg(file);
        command::run(gnu)
    }
}

/// The part of [`PARTS`] that a symbol belongs to.
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

/// All that the page tells.
struct Page {
    compiler: String,
    costs: Vec<(String, Vec<Cost>)>,
    /// Bytes of code and constants of the programs in C.
    code: [(&'static str, u64); 2],
    /// The same by the parts of [`PARTS`].
    parts: [Vec<u64>; 2],
    /// Bytes of a gate for 64 keys, as Rust and as C makes it, and of its handle.
    gates: [u64; 2],
    handle: u64,
    left: Vec<String>,
    /// The ways to panic that the larger one holds, and why.
    panics: Vec<(&'static str, &'static str)>,
}

impl Page {
    /// Whatever was recorded, stack and memory are bounded.
    fn keeps_its_aims(&self) -> Result<()> {
        for (machine, costs) in &self.costs {
            for cost in costs.iter().filter(|cost| cost.call.starts_with("gate: check")) {
                ensure!(
                    cost.stack <= STACK_AIM,
                    "{machine}: {}: {} bytes of stack; {STACK_AIM} is the most that a check may take",
                    cost.call,
                    cost.stack
                );
            }
        }
        let largest = self.gates.into_iter().max().unwrap_or(0);
        ensure!(largest <= GATE_AIM, "a gate for 64 keys takes {largest} bytes; {GATE_AIM} is the most");
        Ok(())
    }

    fn text(&self) -> Result<String> {
        let Self { compiler, costs, code, parts, gates, handle, left, panics } = self;
        let mut page = format!(
            "\
<!-- Written by `cargo xtask embedded`. -->
# What it costs on bare metal

Measured by the suite `firmware`, which goes red when anything takes more than is written here. The programs are those
of [tools/firmware/](../tools/firmware), on the boards of QEMU, where an instruction takes a nanosecond; with the compact SHA-256, by
{compiler}.

## A call

Instructions, and bytes of stack below the caller, in whose frame the answer lies. A check of a key that took more than
{STACK_AIM} bytes of stack would be a fault. Most of such a check is SHA-256.

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

Bytes of code and constants of a whole program in C for the Cortex-M3, with its start-up code and its memcpy, linked by lld.

| program | bytes | aim |
|---|---|---|
";
        for ((program, bytes), aim) in code.iter().zip(CODE_AIMS) {
            writeln!(page, "| {program} | {bytes} | {aim} |")?;
        }
        page += "\nWhat it is for:\n\n| part | all of it | a check and no more |\n|---|---|---|\n";
        let [whole, check] = parts;
        let mut least = 0;
        for (((part, _), whole), check) in PARTS.iter().zip(whole).zip(check) {
            let always = NEVER_WITHOUT.contains(part);
            least += if always { *check } else { 0 };
            writeln!(page, "| {part}{} | {whole} | {check} |", if always { " *" } else { "" })?;
        }
        let [rust_gate, c_gate] = gates;
        writeln!(
            page,
            "
The aims are not reached. What no check is without (*) takes {least} of the bytes of a check and no more by itself: one
code reads every policy, layout and record, and tallies, times and tags are words of 64 bits, each step on which is several
instructions of a 32-bit core."
        )?;
        writeln!(
            page,
            "
## Memory

A gate for 64 keys and four plans takes {rust_gate} bytes, and {c_gate} as C makes it; more than {GATE_AIM} would be a fault. Its handle
in C, which holds the peppers, takes {handle}. Nothing else is kept, and nothing is allocated.

## What the library needs

libkeytally leaves to the program that links it: {}. Of the ways to panic, the program with all of it holds:
",
            if left.is_empty() { "nothing".to_owned() } else { left.join(", ") },
        )?;
        for (name, reason) in panics {
            writeln!(page, "- `{}`: {reason}.", name.trim_start_matches(|c: char| c.is_ascii_digit()))?;
        }
        Ok(page)
    }
}

/// What is counted may be so much more than was written, as permille of it and beyond.
const ALLOWED: (u64, u64) = (10, 8);

/// The fresh page says what the recorded one says, and no number in it is much larger.
fn compare(recorded: &str, fresh: &str) -> Result<()> {
    let anew = format!("if that is meant, `cargo xtask embedded` writes {PAGE} anew");
    ensure!(
        words(recorded) == words(fresh),
        "{PAGE} is not what was found; {anew}:\n{}",
        fresh.lines().filter(|line| !recorded.contains(*line)).collect::<Vec<_>>().join("\n")
    );
    let mut faults = String::new();
    for (was, is) in recorded.lines().zip(fresh.lines()) {
        let more = |(was, is): (u64, u64)| is > was + was * ALLOWED.0 / 1000 + ALLOWED.1;
        if numbers(was).zip(numbers(is)).any(more) {
            writeln!(faults, "was {was}\nis  {is}")?;
        }
    }
    ensure!(faults.is_empty(), "more is taken than {PAGE} says; {anew}:\n{faults}");
    Ok(())
}

/// A text with all its numbers alike.
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

fn numbers(line: &str) -> impl Iterator<Item = u64> {
    line.split(|character: char| !character.is_ascii_digit()).filter_map(|digits| digits.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_read() {
        let expected = Cost { call: "gate: check, denied".to_owned(), instructions: 120, stack: 16 };
        assert_eq!(cost("cost: gate: check, denied: 120 instructions, 16 bytes of stack"), Some(expected));
        assert_eq!(cost("cost: gate: check, denied: many instructions, 16 bytes of stack"), None);
    }

    #[test]
    fn a_symbol_belongs_to_the_first_part_that_fits() {
        let part = |name: &str| part(name).map_or("", |part| PARTS[part].0);
        let gate =
            |name: &str| part(&format!("<keytally_core::gate::Gate<keytally_ffi::pointers::Lines>>::{name}"));
        assert_eq!(gate("verify_key"), "the gate and its records");
        assert_eq!(gate("verify_imported"), "keys that were issued elsewhere: looked for");
        assert_eq!(part("kt_gate_close"), "what C sees: checked pointers, handles, the verdict as a struct");
        assert_eq!(part("main"), "");
        assert!(NEVER_WITHOUT.iter().all(|part| PARTS.iter().any(|(name, _)| name == part)));
    }

    #[test]
    fn a_device_that_prints_something_else_is_a_fault() {
        let expected = "3 keys agree, and 2 MACs\nalive\n";
        assert!(costs_of(expected, "3 keys agree, and 2 MACs\nalive\n", "x").unwrap().is_empty());
        assert!(costs_of(expected, "3 keys agree\nalive\n", "the firmware in C").unwrap().is_empty());
        for (printed, who) in [("3 keys agree\nalive\n", "x"), ("3 keys agree, and 2 MACs\n", "x"), ("", "x")]
        {
            assert!(costs_of(expected, printed, who).is_err(), "{printed}");
        }
    }

    #[test]
    fn a_page_is_compared_word_by_word_and_number_by_number() {
        let page = "code: 1000 B, 20 B";
        for same in [page, "code: 900 B, 20 B", "code: 1018 B, 28 B"] {
            assert!(compare(page, same).is_ok(), "{same}");
        }
        for other in ["code: 1019 B, 20 B", "code: 1000 B, 29 B", "code: 1000 B", "codes: 1000 B, 20 B"] {
            assert!(compare(page, other).is_err(), "{other}");
        }
    }
}
