//! The suites `c` and `cpp`: libkeytally in programs in C and C++.
//!
//! They install the library into an empty prefix, build each test program from there and run it:
//! with gcc and clang, shared and static, with sanitizers and under valgrind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::{self, cargo};
use crate::step::FULL;
use crate::tools::{self, Found, Need};
use crate::{header, install};

/// A language: its compilers, its flags, its programs.
struct Language {
    /// The name of its folders in `target/native/` and `ffi-c/tests/`.
    name: &'static str,
    extension: &'static str,
    compilers: [&'static str; 2],
    /// The standards; each program is built for each.
    standards: &'static [&'static str],
    flags: &'static [&'static str],
    programs: &'static [Program],
}

/// A test program.
struct Program {
    name: &'static str,
    /// Its source, unless it is one of the language's tests.
    source: Option<&'static str>,
    /// An additional flag.
    flag: Option<&'static str>,
    /// An additional package for pkg-config.
    package: Option<&'static str>,
    argument: Argument,
}

/// The argument of a test program.
#[derive(Clone, Copy)]
enum Argument {
    Nothing,
    /// An empty folder.
    Folder,
    /// The folder of the vector files.
    Vectors,
}

const C: Language = Language {
    name: "c",
    extension: "c",
    compilers: ["gcc", "clang"],
    standards: &["-std=c11"],
    flags: &[
        "-D_GNU_SOURCE",
        "-Wall",
        "-Wextra",
        "-Wpedantic",
        "-Wconversion",
        "-Werror",
        "-g",
        "-pthread",
    ],
    programs: &[
        Program {
            name: "layout",
            source: None,
            flag: None,
            package: None,
            argument: Argument::Nothing,
        },
        Program {
            name: "hostile",
            source: None,
            flag: None,
            package: None,
            argument: Argument::Nothing,
        },
        Program {
            name: "calls",
            source: None,
            flag: None,
            package: None,
            argument: Argument::Folder,
        },
        Program {
            name: "vectors",
            source: None,
            flag: None,
            package: Some("libcjson"),
            argument: Argument::Vectors,
        },
    ],
};

const CPP: Language = Language {
    name: "cpp",
    extension: "cpp",
    compilers: ["g++", "clang++"],
    standards: &["-std=c++17", "-std=c++20"],
    flags: &[
        "-Wall",
        "-Wextra",
        "-Wpedantic",
        "-Wconversion",
        "-Wshadow",
        "-Werror",
        "-g",
        "-pthread",
    ],
    programs: &[
        Program {
            name: "consumer",
            source: None,
            flag: None,
            package: None,
            argument: Argument::Nothing,
        },
        Program {
            name: "no_exceptions",
            source: None,
            flag: Some("-fno-exceptions"),
            package: None,
            argument: Argument::Nothing,
        },
        Program {
            name: "calls",
            source: None,
            flag: None,
            package: None,
            argument: Argument::Folder,
        },
        Program {
            name: "macros",
            source: None,
            flag: None,
            package: None,
            argument: Argument::Nothing,
        },
    ],
};

/// The source of another static library in Rust, which allocates, prints, starts a thread and
/// catches a panic.
const OTHER: &str = r#"
use std::collections::HashMap;

#[unsafe(no_mangle)]
pub extern "C" fn other_answer(number: u32) -> u32 {
    let caught = std::panic::catch_unwind(|| HashMap::from([(number, number)])[&(number + 1)]);
    println!("{caught:?}");
    let doubled = std::thread::spawn(move || vec![number; 2].into_iter().sum::<u32>());
    doubled.join().unwrap_or(0) + u32::from(caught.is_err()) * 2
}
"#;

/// The oldest standards that the header supports.
const STANDARDS: [[&str; 2]; 2] = [["c", "-std=c99"], ["c++", "-std=c++11"]];

/// The symbols that the library without its host part may require: those that each C compiler may
/// call by itself.
const FREESTANDING: [&str; 5] = ["memcpy", "memmove", "memset", "memcmp", "bcmp"];

/// Tests the header, the library and its packaging from C.
pub(crate) fn c(found: &[Found]) -> Result<String> {
    header::check(found)?;
    let prefix = Prefix::new(&C)?;
    prefix.header_by_itself()?;
    let mut runs = prefix.build_and_run(&C, found)? + bare(&prefix)?;
    for compiler in C.compilers {
        runs += prefix.readme(compiler)? + prefix.link_with_another_archive(compiler)?;
        for link in ["keytally", "static"] {
            runs += prefix.find_package(compiler, link)?;
        }
    }
    if !found.iter().any(|(name, _)| *name == FULL) {
        return Ok(format!("{runs} programs run"));
    }
    prefix.compare_with_cargo_c()?;
    Ok(format!("{runs} programs run; cargo-c installs the same"))
}

/// Tests the wrapper for C++.
pub(crate) fn cpp(found: &[Found]) -> Result<String> {
    let prefix = Prefix::new(&CPP)?;
    let runs = prefix.build_and_run(&CPP, found)?;
    for compiler in CPP.compilers {
        prefix.check_overhead(compiler, found)?;
    }
    Ok(format!("{runs} programs run"))
}

/// The instructions that the wrapper may add to a check: for a time before 1970, and for a missing
/// key.
const MAX_OVERHEAD: u64 = 2;

/// The folder of programs in C and C++: the processes of the interoperation test, and the example
/// servers.
pub(crate) const WORKERS: Need =
    Need::new("KEYTALLY_TEST_WORKERS", tools::needs_c_toolchain, workers);

/// Builds the programs. Returns their folder.
fn workers() -> Result<PathBuf> {
    let prefix = Prefix::at("interop")?;
    let worker = |name| Program {
        name,
        source: None,
        flag: None,
        package: None,
        argument: Argument::Nothing,
    };
    let server = |source, package| Program {
        source: Some(source),
        package: Some(package),
        ..worker("server")
    };
    for (language, program, name) in [
        (&C, worker("worker"), "in_c"),
        (&CPP, worker("worker"), "in_cpp"),
        (&C, server("adapters/c/server.c", "libmicrohttpd"), "server_in_c"),
        (&CPP, server("adapters/cpp/server.cpp", "cpp-httplib"), "server_in_cpp"),
    ] {
        let built = prefix.build(
            language,
            &program,
            language.compilers[0],
            language.standards[0],
            Kind::Shared,
        )?;
        fs::rename(built, prefix.folder.join(name))?;
    }
    Ok(prefix.folder)
}

/// The way in which a program is built.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Shared,
    Static,
    Sanitized,
}

/// The installation of the library for a suite.
struct Prefix {
    /// A new folder `target/native/NAME`.
    folder: PathBuf,
    prefix: PathBuf,
}

impl Prefix {
    fn new(language: &Language) -> Result<Self> {
        Self::at(language.name)
    }

    fn at(name: &str) -> Result<Self> {
        let folder = std::path::absolute(Path::new("target/native").join(name))?;
        tools::remove_folder(&folder)?;
        let prefix = folder.join("prefix");
        install::run(
            &install::Destination { prefix: &prefix, destdir: None, libdir: Path::new("lib") },
            |_| (),
        )?;
        Ok(Self { folder, prefix })
    }

    /// Compiles the header alone, included twice, in the oldest standards, with all warnings.
    fn header_by_itself(&self) -> Result<()> {
        let source = self.folder.join("header.c");
        fs::write(
            &source,
            "#include <keytally.h>\n#include <keytally.h>\nint main(void) { return 0; }\n",
        )?;
        for compiler in C.compilers {
            for [language, standard] in STANDARDS {
                let mut compile = Command::new(compiler);
                compile.args([
                    "-x",
                    language,
                    standard,
                    "-Wall",
                    "-Wextra",
                    "-Wpedantic",
                    "-Wconversion",
                    "-Werror",
                ]);
                compile
                    .arg("-fsyntax-only")
                    .arg("-I")
                    .arg(self.prefix.join("include"))
                    .arg(&source);
                command::run(compile)?;
            }
        }
        Ok(())
    }

    /// Builds and runs all programs of the language in all ways. Returns the number of runs.
    fn build_and_run(&self, language: &Language, found: &[Found]) -> Result<u32> {
        let valgrind = tools::VALGRIND.among(found)?;
        let mut runs = 0;
        for compiler in language.compilers {
            for program in language.programs {
                for standard in language.standards {
                    for kind in [Kind::Shared, Kind::Static, Kind::Sanitized] {
                        let built = self.build(language, program, compiler, standard, kind)?;
                        self.run(Command::new(&built), program)?;
                        runs += 1;
                        let once =
                            compiler == language.compilers[0] && *standard == language.standards[0];
                        if kind == Kind::Shared && once {
                            let mut watched = Command::new(valgrind);
                            watched.args(["--quiet", "--leak-check=full", "--show-leak-kinds=all"]);
                            watched.arg("--error-exitcode=9").arg(&built);
                            self.run(watched, program)?;
                            runs += 1;
                        }
                    }
                }
            }
        }
        Ok(runs)
    }

    /// Builds a program with the flags of pkg-config.
    fn build(
        &self,
        language: &Language,
        program: &Program,
        compiler: &str,
        standard: &str,
        kind: Kind,
    ) -> Result<PathBuf> {
        let suffix = match kind {
            Kind::Shared => "shared",
            Kind::Static => "static",
            Kind::Sanitized => "sanitized",
        };
        let built = self.folder.join(format!("{}-{compiler}-{suffix}", program.name));
        let mut compile = Command::new(compiler);
        compile.arg(standard).args(language.flags).args(program.flag);
        if kind == Kind::Sanitized {
            compile.args([
                "-fsanitize=address,undefined",
                "-fno-sanitize-recover=all",
                "-fno-omit-frame-pointer",
            ]);
        }
        let source =
            format!("ffi-c/tests/{}/{}.{}", language.name, program.name, language.extension);
        compile.arg(program.source.unwrap_or(&source));
        compile.arg("-o").arg(&built);
        for flag in self.pkg_config(program.package, kind)? {
            compile.arg(match (kind, flag.as_str()) {
                (Kind::Shared, _) | (_, "") => flag,
                // Selects the archive, although the shared library is in the same folder.
                (_, "-lkeytally") => "-l:libkeytally.a".to_owned(),
                _ => flag,
            });
        }
        command::run(compile)?;
        Ok(built)
    }

    /// Checks the instructions that the wrapper adds: `cost.cpp` makes the same calls by C and by
    /// it.
    fn check_overhead(&self, compiler: &str, found: &[Found]) -> Result<()> {
        const TIMES: u64 = 1000;
        let valgrind = tools::VALGRIND.among(found)?;
        let program = Program {
            name: "cost",
            source: None,
            flag: Some("-O2"),
            package: None,
            argument: Argument::Nothing,
        };
        let built = self.build(&CPP, &program, compiler, CPP.standards[0], Kind::Shared)?;
        let count = |way: &str, times: u64| -> Result<u64> {
            let out = self.folder.join("cost.callgrind");
            let mut run = Command::new(valgrind);
            run.args(["--quiet", "--tool=callgrind"])
                .arg(format!("--callgrind-out-file={}", out.display()));
            run.arg(&built)
                .args([way, &times.to_string()])
                .env("LD_LIBRARY_PATH", self.prefix.join("lib"));
            command::run(run)?;
            let counts = fs::read_to_string(&out)?;
            let total =
                counts.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
            total.with_context(|| format!("{} has no total", out.display()))
        };
        // The difference of two runs leaves out the start of the program.
        let calls = |way| {
            Ok::<u64, anyhow::Error>(count(way, 2 * TIMES)?.saturating_sub(count(way, TIMES)?))
        };
        let (c, cpp) = (calls("c")?, calls("cpp")?);
        // Each iteration makes two checks.
        ensure!(
            c > 0 && cpp <= c + TIMES * 2 * MAX_OVERHEAD,
            "{compiler}: {TIMES} checks of each kind take {c} instructions from C and {cpp} by keytally.hpp"
        );
        Ok(())
    }

    fn pkg_config(&self, package: Option<&str>, kind: Kind) -> Result<Vec<String>> {
        let mut query = Command::new("pkg-config");
        query
            .env("PKG_CONFIG_PATH", self.prefix.join("lib/pkgconfig"))
            .args(["--cflags", "--libs"]);
        if kind != Kind::Shared {
            query.arg("--static");
        }
        query.arg("keytally").args(package);
        Ok(command::run(query)?.split_whitespace().map(str::to_owned).collect())
    }

    fn run(&self, mut run: Command, program: &Program) -> Result<()> {
        let scratch = tempfile::tempdir_in(&self.folder)?;
        match program.argument {
            Argument::Nothing => &mut run,
            Argument::Folder => run.arg(scratch.path()),
            Argument::Vectors => run.arg("vectors"),
        };
        run.env("LD_LIBRARY_PATH", self.prefix.join("lib"));
        command::run(run).map(drop)
    }

    /// Links a program with two static libraries of Rust, which both contain the standard library,
    /// in either order.
    fn link_with_another_archive(&self, compiler: &str) -> Result<u32> {
        let [source, other] = ["other.rs", "libother.a"].map(|name| self.folder.join(name));
        let ours = self.prefix.join("lib/libkeytally.a");
        fs::write(&source, OTHER)?;
        let mut rustc = Command::new("rustc");
        // With fat LTO, the standard library is in the object that is always linked.
        rustc
            .args(["--edition=2024", "--crate-type=staticlib", "-O", "-Clto=fat", "-o"])
            .arg(&other)
            .arg(&source);
        command::run(rustc)?;
        let flags = self.pkg_config(None, Kind::Static)?;
        for (position, archives) in [("first", [&ours, &other]), ("last", [&other, &ours])] {
            let built = self.folder.join(format!("archives-{compiler}-{position}"));
            let mut compile = Command::new(compiler);
            compile
                .args(C.standards)
                .args(C.flags)
                .arg("ffi-c/tests/c/archives.c")
                .arg("-o")
                .arg(&built);
            compile.args(archives).args(flags.iter().filter(|flag| *flag != "-lkeytally"));
            command::run(compile)?;
            command::run(Command::new(&built))?;
        }
        Ok(2)
    }

    /// Builds `examples/gate.c` by the README's commands, shared and static, and runs it: requests
    /// are admitted until one is denied.
    fn readme(&self, compiler: &str) -> Result<u32> {
        let readme = fs::read_to_string("README.md")?;
        let folder = self.folder.join(format!("readme-{compiler}"));
        fs::create_dir(&folder)?;
        fs::copy("examples/gate.c", folder.join("gate.c"))?;
        let maker = Program {
            name: "make_gate",
            source: None,
            flag: None,
            package: None,
            argument: Argument::Nothing,
        };
        let maker = self.build(&C, &maker, C.compilers[0], C.standards[0], Kind::Shared)?;
        let here = |program: &Path, libraries: &Path| {
            let mut command = Command::new(program);
            command.current_dir(&folder).env("KEYTALLY_PEPPER", "5a".repeat(32));
            command.env("LD_LIBRARY_PATH", libraries);
            command
        };
        let shared = self.prefix.join("lib");
        command::run(here(&maker, &shared))?;
        for (compile, libraries) in [
            ("cc gate.c $(pkg-config --cflags --libs keytally)", shared.as_path()),
            // The shared library is not in this path.
            ("cc -static gate.c $(pkg-config --static --cflags --libs keytally)", folder.as_path()),
        ] {
            ensure!(readme.contains(compile), "README.md does not contain `{compile}`");
            let compile = compile.replacen("cc", compiler, 1);
            let mut shell = here(Path::new("sh"), libraries);
            shell.env("PKG_CONFIG_PATH", self.prefix.join("lib/pkgconfig"));
            shell.args(["-c", &format!("{compile} && ./a.out && ! KEYTALLY_PEPPER= ./a.out")]);
            let output = command::run(shell)?;
            let last = r#"429 {"error": "Rate limit exceeded. Please try again later."}"#;
            for line in ["200", "X-RateLimit-Remaining: 999", last] {
                ensure!(
                    output.lines().any(|found| found.trim() == line),
                    "examples/gate.c does not print {line}:\n{output}"
                );
            }
        }
        Ok(4)
    }

    /// Checks that `cargo cinstall` installs the same files, with the same soname.
    fn compare_with_cargo_c(&self) -> Result<()> {
        let destdir = self.folder.join("cargo-c");
        let mut install = Command::new(tools::cargo_c()?);
        install.args([
            "cinstall",
            "--release",
            "--manifest-path",
            "ffi-c/Cargo.toml",
            "--target-dir",
            "target/cargo-c",
        ]);
        install.arg("--destdir").arg(&destdir).args(["--prefix", "/", "--libdir", "/lib"]);
        command::run(install)?;
        let ours = files(&self.prefix)?;
        let theirs = files(&destdir)?;
        ensure!(
            ours == theirs,
            "cargo xtask install installs {ours:#?}, and cargo cinstall {theirs:#?}"
        );
        let soname = |root: &Path| -> Result<Option<String>> {
            let mut dynamic = Command::new("objdump");
            dynamic.arg("-p").arg(root.join("lib/libkeytally.so"));
            Ok(command::run(dynamic)?
                .lines()
                .find(|line| line.contains("SONAME"))
                .map(str::to_owned))
        };
        ensure!(
            soname(&self.prefix)?.is_some() && soname(&self.prefix)? == soname(&destdir)?,
            "the SONAMEs differ"
        );
        Ok(())
    }

    /// Builds a CMake project that finds the library, in C and in C++, and runs its programs.
    fn find_package(&self, compiler: &str, link: &str) -> Result<u32> {
        let folder = self.folder.join(format!("cmake-{compiler}-{link}"));
        let cpp = if compiler == "gcc" { "g++" } else { "clang++" };
        let mut configure = Command::new("cmake");
        configure.args(["-S", "ffi-c/tests/consumer", "-B"]).arg(&folder);
        configure
            .arg(format!("-DCMAKE_PREFIX_PATH={}", self.prefix.display()))
            .arg(format!("-DLINK={link}"));
        configure.env("CC", compiler).env("CXX", cpp);
        command::run(configure)?;
        let mut build = Command::new("cmake");
        build.arg("--build").arg(&folder);
        command::run(build)?;
        for program in ["in_c", "in_cpp"] {
            // CMake stored the path of the library in the program, so the loader finds it.
            command::run(Command::new(folder.join(program)))?;
        }
        Ok(2)
    }
}

/// Returns all files and links under a folder, as sorted relative paths.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in
            fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?
        {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(root)?.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Tests the library without its host part: it requires only the allowed symbols, and works.
fn bare(prefix: &Prefix) -> Result<u32> {
    let mut build = cargo();
    build.args([
        "rustc",
        "--package",
        "keytally-ffi",
        "--lib",
        "--no-default-features",
        "--profile",
        "bare",
    ]);
    build.args(["--crate-type", "staticlib", "--target-dir", "target/install"]);
    command::run(build)?;
    let archive = "target/install/bare/libkeytally_ffi.a";
    let names = |file: &Path, flag: &str| {
        let mut names = Command::new("nm");
        names.arg(flag).arg(file);
        command::run(names)
    };
    // Links all functions for C, with the code that they use, into a shared object. Its undefined
    // symbols are those that the library requires. The archive itself also contains unused code.
    let whole = prefix.folder.join("whole.so");
    let mut link = Command::new("gcc");
    link.args(["-shared", "-nostdlib", "-o"]).arg(&whole);
    link.args(
        install::exported(&names(Path::new(archive), "--defined-only")?)
            .map(|name| format!("-Wl,--undefined={name}")),
    );
    command::run({
        link.arg(archive);
        link
    })?;
    let missing = names(&whole, "--undefined-only")?;
    let missing: Vec<&str> =
        missing.split_whitespace().filter(|word| !["U", "w"].contains(word)).collect();
    let unknown: Vec<&&str> = missing.iter().filter(|name| !FREESTANDING.contains(name)).collect();
    ensure!(unknown.is_empty(), "the library without `host` requires {unknown:?}");

    let built = prefix.folder.join("bare");
    let mut compile = Command::new("gcc");
    compile.args(C.standards).args(C.flags).arg("-I").arg(prefix.prefix.join("include"));
    compile.args(["ffi-c/tests/c/bare.c", archive, "-o"]).arg(&built);
    command::run(compile)?;
    command::run(Command::new(&built))?;
    Ok(1)
}
