//! The C interface is the recorded one: `ffi-c/abi.txt`.
//!
//! A C compiler reads `include/keytally.h` and prints the numbers that programs are compiled with:
//! constants, enumerators, widths, sizes and offsets. The types, the macros with parameters and the
//! functions are copied from the header. `nm` prints the exported symbols. After an intended
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

/// Returns a header without comments, and with continued lines joined.
fn without_comments(header: &str) -> String {
    let mut code = String::new();
    let mut rest = header;
    while let Some((before, after)) = rest.split_once("/*") {
        code += before;
        rest = after.split_once("*/").expect("a comment ends").1;
    }
    (code + rest).replace("\\\n", "")
}

/// Returns the text with each run of white space replaced by one space.
fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the declarations of a header without comments, each in one line.
fn declarations(code: &str) -> Vec<String> {
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
    found.iter().map(|text| in_one_line(text)).collect()
}

/// Returns the names and values of the macros, but those of the version.
fn macros(code: &str) -> impl Iterator<Item = (&str, &str)> {
    code.lines().filter_map(|line| {
        let definition = line.strip_prefix("#define ")?;
        // A space inside of the parameters does not end the name.
        let end = match definition.find([' ', '(']) {
            Some(at) if definition[at..].starts_with('(') => definition.find(')')? + 1,
            Some(at) => at,
            None => return None,
        };
        let (name, value) = definition.split_at(end);
        (name.starts_with("KT_") && !name.starts_with("KT_VERSION")).then(|| (name, value.trim()))
    })
}

/// Returns the members of a struct or the enumerators of an enumeration.
fn members(body: &str, separator: char) -> impl Iterator<Item = &str> {
    body.split(separator).map(str::trim).filter(|member| !member.is_empty())
}

/// Returns the name that a member or a typedef declares.
fn declared_name(declaration: &str) -> &str {
    declaration.split('[').next().unwrap().rsplit([' ', '*']).next().unwrap()
}

/// Returns a program that prints the widths, sizes, offsets and numbers.
fn program(code: &str, declarations: &[String]) -> String {
    let mut program = "#include <keytally.h>\n#include <stdio.h>\nint main(void) {\n".to_owned();
    let mut number = |what: &str, name: &str, value: &str| {
        let line =
            format!("    printf(\"{what} {name} %llu\\n\", (unsigned long long)({value}));\n");
        program.write_str(&line).unwrap();
    };
    for (name, _) in macros(code).filter(|(name, _)| !name.contains('(')) {
        number("constant", name, name);
    }
    for declaration in declarations {
        let Some((before, rest)) = declaration.split_once('{') else {
            let integer = declaration.strip_prefix("typedef ").filter(|text| !text.contains('('));
            // Compilers of C23 read the other typedef of the name.
            if let Some(integer) = integer.filter(|text| !text.starts_with("enum ")) {
                let name = declared_name(integer);
                number("size", name, &format!("sizeof({name})"));
                number("signed", name, &format!("({name})-1 < 0"));
            }
            continue;
        };
        let Some((body, after)) = rest.rsplit_once('}') else { continue };
        if before.contains("enum ") {
            for enumerator in members(body, ',') {
                let name = enumerator.split('=').next().unwrap().trim();
                number("enumerator", name, name);
            }
        } else if before.contains("struct ") {
            let name = after.trim();
            number("size", name, &format!("sizeof({name})"));
            number("align", name, &format!("_Alignof({name})"));
            for member in members(body, ';') {
                let member = declared_name(member);
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

/// Returns the types and the macros with parameters, as the header has them: a compiler prints no
/// types.
fn texts(code: &str, declarations: &[String]) -> String {
    let mut texts = String::new();
    for (name, value) in macros(code).filter(|(name, _)| name.contains('(')) {
        writeln!(texts, "macro {name} {}", in_one_line(value)).unwrap();
    }
    for declaration in declarations {
        let Some((before, rest)) = declaration.split_once('{') else {
            let kind = if declaration.starts_with("typedef ") { "type" } else { "function" };
            if !declaration.is_empty() && !declaration.starts_with('}') {
                writeln!(texts, "{kind} {declaration}").unwrap();
            }
            continue;
        };
        let Some((body, after)) = rest.rsplit_once('}') else { continue };
        if before.contains("enum ") {
            writeln!(texts, "type {}", before.trim()).unwrap();
        } else if before.contains("struct ") {
            for member in members(body, ';') {
                writeln!(texts, "member {}: {member}", after.trim()).unwrap();
            }
        }
    }
    texts
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

/// Returns what a header declares, in the form of `abi.txt`, without its head and the symbols.
fn declared(header: &str) -> String {
    let code = without_comments(header);
    let declarations = declarations(&code);
    let folder = tempfile::tempdir().unwrap();
    let (source, built) = (folder.path().join("abi.c"), folder.path().join("abi"));
    fs::write(folder.path().join("keytally.h"), header).unwrap();
    fs::write(&source, program(&code, &declarations)).unwrap();
    run(Command::new("cc")
        .arg("-std=c11")
        .arg("-I")
        .arg(folder.path())
        .arg(&source)
        .arg("-o")
        .arg(&built));
    run(&mut Command::new(built)) + &texts(&code, &declarations)
}

/// Returns the exported symbols, sorted.
fn symbols() -> Vec<String> {
    let symbols = run(Command::new("nm").args(["-D", "--defined-only"]).arg(library()));
    let names = symbols.lines().filter_map(|line| line.split(' ').nth(2));
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort_unstable();
    names
}

/// Returns the lines that only one of two texts has, marked by `-` and `+`.
fn difference(before: &str, after: &str) -> String {
    let only = |mark: char, one: &str, other: &str| {
        let other: Vec<&str> = other.lines().collect();
        one.lines()
            .filter(|line| !other.contains(line))
            .fold(String::new(), |all, line| all + &format!("{mark}{line}\n"))
    };
    only('-', before, after) + &only('+', after, before)
}

#[test]
fn interface_is_the_recorded_one() {
    let record = Path::new(env!("CARGO_MANIFEST_DIR")).join("abi.txt");
    let mut found = HEAD.to_owned() + &declared(HEADER);
    for symbol in symbols() {
        writeln!(found, "symbol {symbol}").unwrap();
    }
    if std::env::var_os("KEYTALLY_WRITE_ABI").is_some() {
        fs::write(&record, &found).unwrap();
    }
    let recorded = fs::read_to_string(&record).unwrap_or_default();
    let lines = match difference(&recorded, &found) {
        lines if lines.is_empty() => "the same lines in another order".to_owned(),
        lines => lines,
    };
    assert!(recorded == found, "ffi-c/abi.txt does not record this interface:\n{lines}");
}

#[test]
fn every_kind_of_change_is_recorded() {
    let declared_before = declared(HEADER);
    for (before, after, expected) in [
        (
            "#define KT_KEY_SIZE 56",
            "#define KT_KEY_SIZE 64",
            "-constant KT_KEY_SIZE 56\n-size kt_key 56\n-length kt_key.text 56\n",
        ),
        (
            "KT_NULL_POINTER = 1,",
            "KT_NULL_POINTER = 14,",
            "-enumerator KT_NULL_POINTER 1\n+enumerator KT_NULL_POINTER 14\n",
        ),
        (
            "typedef int32_t kt_status;",
            "typedef uint32_t kt_status;",
            "-signed kt_status 1\n-type typedef int32_t kt_status\n+signed kt_status 0\n",
        ),
        ("typedef uint8_t kt_outcome;", "typedef uint16_t kt_outcome;", "-size kt_outcome 1\n"),
        (
            "enum kt_reason\n#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L\n  : uint8_t",
            "enum kt_reason\n#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L\n  : uint16_t",
            "-type enum kt_reason : uint8_t\n+type enum kt_reason : uint16_t\n",
        ),
        (
            "    uint32_t uncharged;",
            "    int32_t uncharged;",
            "-member kt_verdict: uint32_t uncharged\n+member kt_verdict: int32_t uncharged\n",
        ),
        (
            "    const char *env;",
            "    char *env;",
            "-member kt_new_key: const char *env\n+member kt_new_key: char *env\n",
        ),
        (
            "#define KT_GATE_SIZE(keys) ((size_t)64 * (6",
            "#define KT_GATE_SIZE(keys) ((size_t)64 * (7",
            "-macro KT_GATE_SIZE(keys)",
        ),
        (
            "(((size_t)(capacity) * 3 + 15) / 16)",
            "(((size_t)(capacity) * 3 + 16) / 16)",
            "-macro KT_LIMITER_BUCKETS_(capacity)",
        ),
        (
            "    ((size_t)64 * (3 + 2 * KT_LIMITER",
            "    ((size_t)64 * (4 + 2 * KT_LIMITER",
            "-macro KT_LIMITER_SIZE(capacity)",
        ),
        ("(sizeof(literal) - 1)", "sizeof(literal)", "-macro KT_TEXT(literal)"),
        (
            "void kt_key_wipe(kt_key *key);",
            "void kt_key_wipe(void *key);",
            "-function void kt_key_wipe(kt_key *key)\n+function void kt_key_wipe(void *key)\n",
        ),
        (
            "typedef int (*kt_key_visitor)(",
            "typedef void (*kt_key_visitor)(",
            "-type typedef int (*kt_key_visitor)(void *context, const kt_key_info *info)\n",
        ),
    ] {
        assert_eq!(HEADER.matches(before).count(), 1, "{before}");
        let changed = difference(&declared_before, &declared(&HEADER.replace(before, after)));
        assert!(!changed.is_empty() && changed.contains(expected), "{before}:\n{changed}");
    }
}

#[test]
fn every_struct_is_in_the_paragraph_on_structs() {
    let (_, rest) = HEADER.split_once("\n * Structs. ").unwrap();
    let (paragraph, _) = rest.split_once("\n * Ownership. ").unwrap();
    let words: Vec<&str> =
        paragraph.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let mut structs = 0;
    for declaration in declarations(&without_comments(HEADER)) {
        if let Some(rest) = declaration.strip_prefix("typedef struct ") {
            let name = rest.split(' ').next().unwrap();
            assert!(words.contains(&name), "{name}");
            structs += 1;
        }
    }
    assert!(structs > 10, "{structs}");
}

#[test]
fn every_function_of_the_header_is_exported() {
    let declared = declared(HEADER);
    let mut functions: Vec<&str> = declared
        .lines()
        .filter_map(|line| line.strip_prefix("function "))
        .map(|line| line.split('(').next().unwrap().rsplit([' ', '*']).next().unwrap())
        .collect();
    functions.sort_unstable();
    assert_eq!(functions, symbols());
    assert!(functions.len() > 60, "{functions:?}");
}
