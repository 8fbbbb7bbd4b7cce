//! `cargo xtask header`: generates include/keytally.h from the sources of ffi-c. The suite `c`
//! checks that the header is up to date.
//!
//! cbindgen does not read the sources themselves, but a translation. A checked pointer of
//! `ffi-c/src/pointers.rs`, such as `In<T>` or `Out<T>`, is translated to a raw pointer. The
//! declarations inside `plain! { … }`, `statuses! { … }` and `mirrored! { … }` are taken out of the
//! macro.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::tools::Found;

const HEADER: &str = "include/keytally.h";
const CONFIG: &str = "ffi-c/cbindgen.toml";

/// The files with declarations for C, in the order of the header.
const SOURCES: &[&str] = &[
    "version",
    "status",
    "message",
    "policy",
    "key",
    "time",
    "request",
    "verdict",
    "limiter",
    "gate",
    "clock",
    "administer",
    "inspect",
    "files",
];

/// Writes the header.
pub(crate) fn write() -> Result<()> {
    fs::write(HEADER, generate()?).with_context(|| format!("cannot write {HEADER}"))
}

/// Checks that the header is that of the present sources.
pub(crate) fn check(_: &[Found]) -> Result<String> {
    let header = fs::read_to_string(HEADER).with_context(|| format!("cannot read {HEADER}"))?;
    ensure!(header == generate()?, "{HEADER} is out of date: run `cargo xtask header`");
    Ok("up to date".to_owned())
}

/// Returns the text of the header.
fn generate() -> Result<String> {
    let folder = tempfile::tempdir()?;
    let source = folder.path().join("c.rs");
    let mut declarations = String::new();
    for name in SOURCES {
        let path = format!("ffi-c/src/{name}.rs");
        let source = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        // Inner doc comments are only valid at the beginning of a file.
        declarations.extend(
            source.lines().filter(|line| !line.starts_with("//!")).flat_map(|line| [line, "\n"]),
        );
    }
    fs::write(&source, plain(&declared(&declarations)?))?;
    let mut config = cbindgen::Config::from_file(CONFIG).map_err(anyhow::Error::msg)?;
    config.after_includes = config.after_includes.map(|text| with_version(&text)).transpose()?;
    let bindings = cbindgen::Builder::new()
        .with_config(config)
        .with_src(&source)
        .generate()
        .context("cbindgen cannot read the sources of ffi-c")?;
    let mut header = Vec::new();
    bindings.write(&mut header);
    Ok(in_one_line(&without_tags(&String::from_utf8(header)?)))
}

/// The macros whose content is declarations.
const MACROS: [&str; 3] = ["plain! {", "statuses! {", "mirrored! {"];

/// Returns the sources with the declarations in [`MACROS`] taken out of the macros.
fn declared(source: &str) -> Result<String> {
    let mut declared = String::new();
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        if MACROS.contains(&line) {
            let inside: Vec<&str> = lines.by_ref().take_while(|line| *line != "}").collect();
            declared += &declarations(&inside)?;
        } else {
            declared += &format!("{line}\n");
        }
    }
    Ok(declared)
}

/// Returns the declarations inside a macro as Rust.
///
/// A struct gets `repr(C)`. `NAME = 1 => "a sentence",` becomes `NAME = 1,` with the sentence,
/// which may be in the next line, as its comment. `NAME = 1 => c"name",` becomes `NAME = 1,`.
fn declarations(inside: &[&str]) -> Result<String> {
    let mut declared = String::new();
    let mut lines = inside.iter().map(|line| line.strip_prefix("    ").unwrap_or(line));
    while let Some(line) = lines.next() {
        if line.starts_with("pub struct ") {
            declared += "#[repr(C)]\n";
        }
        match line.split_once(" =>") {
            None => declared += &format!("{line}\n"),
            Some((name, value)) => {
                let value = if value.is_empty() { lines.next().unwrap_or_default() } else { value };
                if let Some(text) = value.trim().strip_prefix('"') {
                    let text = text
                        .strip_suffix("\",")
                        .with_context(|| format!("`{line}` has no sentence"))?;
                    declared += &comment(text);
                }
                declared += &format!("{name},\n");
            }
        }
    }
    Ok(declared)
}

/// Returns a sentence as a comment, wrapped.
fn comment(sentence: &str) -> String {
    let mut lines = vec![String::new()];
    for word in sentence.split(' ') {
        let last = lines.last_mut().filter(|line| line.len() + word.len() < COMMENT_LEN);
        match last {
            Some(line) => *line += &format!(" {word}"),
            None => lines.push(format!(" {word}")),
        }
    }
    if let Some(first) = lines[0].get(1..2).map(str::to_uppercase) {
        lines[0].replace_range(1..2, &first);
    }
    if let Some(last) = lines.last_mut() {
        last.push('.');
    }
    lines.iter().map(|line| format!("#[doc = \"{line}\"]\n")).collect()
}

/// The maximum length of a line of a comment, in characters.
const COMMENT_LEN: usize = 90;

/// Returns the sources with raw pointers in place of checked ones, and without lifetimes.
fn plain(source: &str) -> String {
    let lifetimes = [" + use<'c>", "<'c>", "<'_>", "'c, ", "'_, ", "'static, "];
    let mut source =
        lifetimes.iter().fold(source.to_owned(), |source, lifetime| source.replace(lifetime, ""));
    for (word, pointer) in
        [("In", "*const "), ("Out", "*mut "), ("Handle", "*mut "), ("Number", "")]
    {
        source = unwrapped(&source, word, pointer);
    }
    source.replace(": Memory,", ": *mut c_void,")
}

/// Returns the source with each `WORD<X>` replaced by `POINTER X`.
fn unwrapped(source: &str, word: &str, pointer: &str) -> String {
    let opening = format!("{word}<");
    let mut plain = String::new();
    let mut rest = source;
    while let Some(at) = rest.find(&opening) {
        let (before, after) = (&rest[..at], &rest[at + opening.len()..]);
        plain += before;
        let is_word =
            !before.ends_with(|character: char| character.is_alphanumeric() || character == '_');
        match after.find('>') {
            Some(end) if is_word => {
                plain += pointer;
                plain += &after[..end];
                rest = &after[end + 1..];
            }
            _ => {
                plain += &opening;
                rest = after;
            }
        }
    }
    plain + rest
}

/// Removes the word `struct` before names: each struct has a typedef of the same name.
fn without_tags(header: &str) -> String {
    let mut lines = Vec::new();
    for line in header.lines() {
        let tagged = line.starts_with("typedef struct ");
        let line = if tagged { line.to_owned() } else { line.replace("struct kt_", "kt_") };
        lines.push(as_array(&line));
    }
    lines.join("\n") + "\n"
}

/// Replaces a parameter `(*name)[16]`, a pointer to an array, by `name[16]`. Both have the same
/// representation in a call, and callers can pass an array to the second.
fn as_array(line: &str) -> String {
    let parts =
        line.split_once("(*").and_then(|(before, rest)| Some((before, rest.split_once(")[")?)));
    match parts {
        Some((before, (name, after))) if !name.contains('(') => format!("{before}{name}[{after}"),
        _ => line.to_owned(),
    }
}

/// Joins the three lines of a comment with one line of text.
fn in_one_line(header: &str) -> String {
    let lines: Vec<&str> = header.lines().collect();
    let mut text = String::new();
    let mut at = 0;
    while at < lines.len() {
        let short = match lines[at..] {
            [open, line, close, ..] if open.trim() == "/**" && close.trim() == "*/" => {
                open.strip_suffix("/**").zip(line.trim().strip_prefix("* "))
            }
            _ => None,
        };
        match short {
            Some((indent, sentence)) => {
                text += &format!("{indent}/** {sentence} */\n");
                at += 3;
            }
            None => {
                text += lines[at];
                text += "\n";
                at += 1;
            }
        }
    }
    text
}

/// Replaces `@VERSION@`, `@MAJOR@`, `@MINOR@` and `@PATCH@` by those of the package.
fn with_version(template: &str) -> Result<String> {
    // All packages of the workspace have one version.
    let version = env!("CARGO_PKG_VERSION");
    let mut parts = version.split('.');
    let mut part = || parts.next().context("a version has three parts");
    Ok(template
        .replace("@MAJOR@", part()?)
        .replace("@MINOR@", part()?)
        .replace("@PATCH@", part()?)
        .replace("@VERSION@", version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checked_pointers_become_plain_ones() {
        assert_eq!(
            plain("f(a: In<c_char>, b: Out<*mut kt_gate>)"),
            "f(a: *const c_char, b: *mut *mut kt_gate)"
        );
        assert_eq!(
            plain("g(m: Memory, s: Number<kt_status>) -> In<'static, u8>"),
            "g(m: *mut c_void, s: kt_status) -> *const u8"
        );
        assert_eq!(
            plain("struct kt_bytes<'c> { data: In<'c, u8> }"),
            "struct kt_bytes { data: *const u8 }"
        );
        assert_eq!(plain("fn f(a: kt_In<u8>)"), "fn f(a: kt_In<u8>)");
    }

    #[test]
    fn declarations_stand_outside_of_their_macro() {
        let source =
            "plain! {\n    /// A.\n    pub struct a {\n        pub b: u8,\n    }\n}\nfn c() {}\n";
        let expected = "/// A.\n#[repr(C)]\npub struct a {\n    pub b: u8,\n}\nfn c() {}\n";
        assert_eq!(declared(source).unwrap(), expected);
        let source = "statuses! {\n    pub enum s {\n        A = 0 => \"a\",\n        B = 1 =>\n            \"is b\",\n    }\n}\n";
        let expected =
            "pub enum s {\n#[doc = \" A.\"]\n    A = 0,\n#[doc = \" Is b.\"]\n    B = 1,\n}\n";
        assert_eq!(declared(source).unwrap(), expected);
        let source =
            "mirrored! {\n    pub enum o {\n        /// A.\n        A = 0 => c\"a\",\n    }\n}\n";
        assert_eq!(declared(source).unwrap(), "pub enum o {\n    /// A.\n    A = 0,\n}\n");
    }

    #[test]
    fn short_comments_take_one_line() {
        assert_eq!(
            in_one_line("    /**\n     * A.\n     */\n    int a;"),
            "    /** A. */\n    int a;\n"
        );
        let long = "/**\n * A.\n * B.\n */\n";
        assert_eq!(in_one_line(long), long);
    }

    #[test]
    fn pointer_to_array_becomes_array() {
        assert_eq!(as_array("  const uint8_t (*seed)[16],"), "  const uint8_t seed[16],");
        let function = "typedef int (*kt_visitor)(void *context, char (*text)[4]);";
        assert_eq!(as_array(function), function);
    }

    #[test]
    fn struct_tags_remain_only_in_declarations() {
        assert_eq!(
            without_tags("typedef struct kt_a {\nf(const struct kt_a *a);"),
            "typedef struct kt_a {\nf(const kt_a *a);\n"
        );
    }
}
