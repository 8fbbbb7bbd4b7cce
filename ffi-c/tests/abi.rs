//! The C interface is the recorded one: `ffi-c/abi.txt`.
//!
//! A C compiler reads `include/keytally.h` and prints what programs are compiled against:
//! constants, enumerators, sizes and offsets. `nm` prints the exported symbols. After an intended
//! change, write the file again and review its difference:
//!
//! ```sh
//! KEYTALLY_WRITE_ABI=1 cargo test -p keytally-ffi --test abi
//! ```
#![cfg(all(feature = "host", target_arch = "x86_64", target_os = "linux"))]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use core::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const HEADER: &str = include_str!("../include/keytally.h");
const HEAD: &str = "\
# The C interface on x86_64 Linux: what a program that was compiled with keytally.h relies on.
# ffi-c/tests/abi.rs compares this list with the header and the library. After an intended change,
# `KEYTALLY_WRITE_ABI=1 cargo test -p keytally-ffi --test abi` writes it again.
#
# A line may be added. From the first release on, a line may change or go only with a new SONAME:
# compare releases with `abidiff` (Debian: abigail-tools) on the two shared libraries.
";

/// Returns the header without comments, one declaration a line.
fn declarations() -> Vec<String> {
    let mut code = String::new();
    let mut rest = HEADER;
    while let Some((before, after)) = rest.split_once("/*") {
        code += before;
        rest = after.split_once("*/").expect("a comment ends").1;
    }
    code += rest;
    let code = code.replace("extern \"C\" {", "");
    let code: String =
        code.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    let mut found = vec![String::new()];
    let mut depth = 0;
    for character in code.chars() {
        depth += i32::from(character == '{') - i32::from(character == '}');
        if character == ';' && depth == 0 {
            found.push(String::new());
        } else {
            found.last_mut().unwrap().push(character);
        }
    }
    found.iter().map(|text| text.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// Returns the constants: macros with a value and no parameters.
fn constants() -> impl Iterator<Item = &'static str> {
    HEADER.lines().filter_map(|line| {
        let (name, value) = line.strip_prefix("#define ")?.split_once(' ')?;
        let counted =
            name.starts_with("KT_") && !name.contains('(') && !name.starts_with("KT_VERSION");
        (counted && !value.is_empty()).then_some(name)
    })
}

/// Returns a program that prints the sizes, offsets and numbers.
fn program(declarations: &[String]) -> String {
    let mut program = "#include <keytally.h>\n#include <stdio.h>\nint main(void) {\n".to_owned();
    let mut number = |what: &str, name: &str, value: &str| {
        let line =
            format!("    printf(\"{what} {name} %llu\\n\", (unsigned long long)({value}));\n");
        program.write_str(&line).unwrap();
    };
    for name in constants() {
        number("constant", name, name);
    }
    for declaration in declarations {
        let Some((before, rest)) = declaration.split_once('{') else { continue };
        let Some((body, after)) = rest.rsplit_once('}') else { continue };
        if before.contains("enum ") {
            for enumerator in body.split(',').filter(|text| !text.trim().is_empty()) {
                let name = enumerator.split('=').next().unwrap().trim();
                number("enumerator", name, name);
            }
        } else if before.contains("struct ") {
            let name = after.trim();
            number("size", name, &format!("sizeof({name})"));
            number("align", name, &format!("_Alignof({name})"));
            for member in body.split(';').filter(|text| !text.trim().is_empty()) {
                let member = member.split('[').next().unwrap().rsplit([' ', '*']).next().unwrap();
                number(
                    "offset",
                    &format!("{name}.{member}"),
                    &format!("offsetof({name}, {member})"),
                );
                number(
                    "length",
                    &format!("{name}.{member}"),
                    &format!("sizeof((({name} *)0)->{member})"),
                );
            }
        }
    }
    program + "    return 0;\n}\n"
}

/// Runs a program that must succeed. Returns its output.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the shared library that Cargo built in the folder of this test.
fn library() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.parent().unwrap().join("libkeytally_ffi.so")
}

/// Returns the interface in the form of `abi.txt`, without its head.
fn interface() -> String {
    let declarations = declarations();
    let folder = tempfile::tempdir().unwrap();
    let (source, built) = (folder.path().join("abi.c"), folder.path().join("abi"));
    fs::write(&source, program(&declarations)).unwrap();
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    run(Command::new("cc")
        .arg("-std=c11")
        .arg("-I")
        .arg(include)
        .arg(&source)
        .arg("-o")
        .arg(&built));
    let mut found = run(&mut Command::new(built));
    for declaration in &declarations {
        if declaration.contains('(') && !declaration.contains('{') {
            writeln!(found, "function {declaration}").unwrap();
        }
    }
    let symbols = run(Command::new("nm").args(["-D", "--defined-only"]).arg(library()));
    let mut names: Vec<&str> = symbols.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    names.sort_unstable();
    for name in names {
        writeln!(found, "symbol {name}").unwrap();
    }
    found
}

#[test]
fn interface_is_the_recorded_one() {
    let record = Path::new(env!("CARGO_MANIFEST_DIR")).join("abi.txt");
    let found = format!("{HEAD}{}", interface());
    if std::env::var_os("KEYTALLY_WRITE_ABI").is_some() {
        fs::write(&record, &found).unwrap();
    }
    let recorded = fs::read_to_string(&record).unwrap_or_default();
    let difference = |mark: char, one: &str, other: &str| {
        let other: Vec<&str> = other.lines().collect();
        one.lines()
            .filter(|line| !other.contains(line))
            .fold(String::new(), |all, line| all + &format!("{mark}{line}\n"))
    };
    let difference = difference('-', &recorded, &found) + &difference('+', &found, &recorded);
    assert!(recorded == found, "ffi-c/abi.txt does not record this interface:\n{difference}");
}

#[test]
fn every_function_of_the_header_is_exported() {
    let interface = interface();
    let functions: Vec<&str> = interface
        .lines()
        .filter_map(|line| line.strip_prefix("function "))
        .filter(|line| !line.starts_with("typedef "))
        .map(|line| line.split('(').next().unwrap().rsplit([' ', '*']).next().unwrap())
        .collect();
    let mut sorted = functions.clone();
    sorted.sort_unstable();
    let symbols: Vec<&str> =
        interface.lines().filter_map(|line| line.strip_prefix("symbol ")).collect();
    assert_eq!(sorted, symbols);
    assert!(functions.len() > 60, "{functions:?}");
}
