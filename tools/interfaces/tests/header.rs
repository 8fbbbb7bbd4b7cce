//! include/keytally.h is the header of the sources of ffi-c. `cargo xtask header` writes it.
//!
//! cbindgen reads the sources after the edits in [`TO_PLAIN_RUST`]. It has no setting for a generic
//! pointer type that is not of the standard library, and it reads no macro of ours.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use expect_test::expect_file;
use regex::{Captures, Regex};

/// The files with declarations for C, in the order of the header.
const SOURCES: &str = "version status message policy key time request charge verdict tallies \
                       limiter gate compound clock administer inspect accounts files fleet";

/// Edits of the sources: patterns and what replaces each match.
const TO_PLAIN_RUST: &[(&str, &str)] = &[
    // Inner comments and attributes are only valid at the beginning of a file.
    (r"(?m)^//!.*\n", ""),
    (r"(?ms)^#!\[.*?\]\n", ""),
    // Takes declarations out of their macro.
    (r"(?m)^    pub struct ", "#[repr(C)]\n$0"),
    (r"(?ms)^(plain|statuses|mirrored)! \{\n(.*?)^\}\n", "$2"),
    (r#"(?m)^( *KT_\w+ = \d+) => c".*",$"#, "$1,"),
    // Replaces the checked pointers of `ffi-c/src/pointers.rs` by plain ones.
    (r" \+ use<'\w+>|<'\w+>|\B'\w+, ", ""),
    (r"\bIn<([^<>]+)>", "*const $1"),
    (r"\b(Out|Handle)<([^<>]+)>", "*mut $2"),
    (r"\bNumber<([^<>]+)>", "$1"),
    (": Memory,", ": *mut c_void,"),
];

/// A status and its sentence, which becomes the status's comment.
const STATUS: &str = r#"(?m)^ *(KT_\w+ = \d+) =>\s*"(.)(.*)",$"#;

/// Edits of cbindgen's output.
const TO_HEADER: &[(&str, &str)] = &[
    // Puts a comment of one line of text on one line.
    (r"(?m)^( *)/\*\*\n *\* (.*)\n *\*/$", "$1/** $2 */"),
    // Leaves out `struct` before names, except where the struct is declared.
    (r"(?m)^(typedef struct .*)$|\bstruct (kt_)", "$1$2"),
    // A pointer to an array becomes an array, which a call passes in the same way.
    (r"\(\*(\w+)\)\[", "$1["),
    ("@VERSION@", env!("CARGO_PKG_VERSION")),
    ("@MAJOR@", env!("CARGO_PKG_VERSION_MAJOR")),
    ("@MINOR@", env!("CARGO_PKG_VERSION_MINOR")),
    ("@PATCH@", env!("CARGO_PKG_VERSION_PATCH")),
];

#[test]
fn header_is_that_of_the_sources() {
    expect_file!["../../../include/keytally.h"].assert_eq(&generate());
}

/// Returns the text of the header.
fn generate() -> String {
    let ffi = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ffi-c");
    let read = |name| fs::read_to_string(ffi.join(format!("src/{name}.rs"))).unwrap();
    let sources: String = SOURCES.split(' ').map(read).collect();
    let source = tempfile::NamedTempFile::new().unwrap();
    fs::write(&source, plain_rust(&sources)).unwrap();
    let config = cbindgen::Config::from_file(ffi.join("cbindgen.toml")).unwrap();
    let builder = cbindgen::Builder::new().with_config(config).with_src(source.path());
    let mut header = Vec::new();
    builder.generate().unwrap().write(&mut header);
    edited(&String::from_utf8(header).unwrap(), TO_HEADER)
}

fn plain_rust(sources: &str) -> String {
    let commented = Regex::new(STATUS).unwrap().replace_all(sources, |status: &Captures<'_>| {
        format!("{}{},", comment(&(status[2].to_uppercase() + &status[3])), &status[1])
    });
    edited(&commented, TO_PLAIN_RUST)
}

fn edited(text: &str, edits: &[(&str, &str)]) -> String {
    edits.iter().fold(text.to_owned(), |text, (pattern, replacement)| {
        Regex::new(pattern).unwrap().replace_all(&text, *replacement).into_owned()
    })
}

/// Returns a sentence without a full stop as a comment, wrapped.
fn comment(sentence: &str) -> String {
    let mut text = String::new();
    for word in sentence.split(' ') {
        let line = text.rsplit('\n').next().unwrap_or_default();
        text += if text.is_empty() || line.len() + word.len() < 90 { " " } else { "\n " };
        text += word;
    }
    (text + ".").lines().map(|line| format!("#[doc = \"{line}\"]\n")).collect()
}

#[test]
fn checked_pointers_become_plain_ones() {
    let source =
        "f(a: In<'c, kt_plan<'c>>, m: Memory, s: Number<kt_status>) -> Out<*mut u8>; // a's, b";
    let expected = "f(a: *const kt_plan, m: *mut c_void, s: kt_status) -> *mut *mut u8; // a's, b";
    assert_eq!(plain_rust(source), expected);
    assert_eq!(plain_rust("f(a: kt_In<u8>)"), "f(a: kt_In<u8>)");
}

#[test]
fn declarations_are_taken_out_of_their_macro() {
    let source = "plain! {\n    pub struct a {\n    }\n}\nstatuses! {\n    KT_B = 1 =>\n        \"is b\",\n}\n";
    let expected = "#[repr(C)]\n    pub struct a {\n    }\n#[doc = \" Is b.\"]\nKT_B = 1,\n";
    assert_eq!(plain_rust(source), expected);
}
