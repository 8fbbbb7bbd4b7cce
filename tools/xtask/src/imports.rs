//! The suite `imports`: no module uses an item of a module that contains it, and no modules use
//! each other in a cycle.
//!
//! Python's modules are read by import-linter (`.importlinter`), Rust's here. A path counts
//! wherever it is: in a `use`, in code, in an attribute, in a macro's arguments. A name that a
//! module re-exports belongs to the module that defines it. Items for tests do not count.

use alloc::collections::{BTreeMap, BTreeSet};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command;
use crate::source::{Word, words};
use crate::tools;

/// The roots of the crates that are checked.
const ROOTS: [&str; 5] =
    ["core/src/lib.rs", "host/src/lib.rs", "cli/src/lib.rs", "ffi-c/src/lib.rs", "py/src/lib.rs"];

/// Fails with a line for each import that points up, to a module that contains the importing one,
/// or that is part of a cycle.
pub(crate) fn check() -> Result<String> {
    let mut faults = BTreeSet::new();
    let mut count = 0;
    for root in ROOTS.map(Path::new) {
        let mut modules = Modules::default();
        modules.read(root, root.parent().context("a root without a folder")?, &[])?;
        count += modules.0.len();
        faults.extend(modules.faults());
    }
    let mut python = Command::new(tools::import_linter()?);
    python.args(["--no-logo", "--no-cache"]).env("PYTHONPATH", "py/python");
    if let Err(error) = command::run(python) {
        faults.insert(format!("{error:#}"));
    }
    ensure!(
        faults.is_empty(),
        "{} imports point up or in a circle:\n{}",
        faults.len(),
        faults.into_iter().collect::<Vec<_>>().join("\n")
    );
    Ok(format!("{count} modules of Rust, and those of Python"))
}

/// The path of a module from the crate's root, whose own path is empty, or any other path.
type Names = Vec<String>;

/// The items, imports and paths in a module's source.
#[derive(Debug, Default)]
struct Module {
    file: PathBuf,
    /// The items that it defines, modules excepted.
    items: HashSet<String>,
    /// The names that it imports, each with its path.
    uses: HashMap<String, Names>,
    /// The paths in front of `::*`.
    globs: Vec<Names>,
    /// Every path of more than one name, with its line.
    paths: Vec<(Names, usize)>,
}

/// The modules of a crate.
#[derive(Debug, Default)]
struct Modules(BTreeMap<Names, Module>);

/// The words in front of an item's name.
const ITEMS: [&str; 9] =
    ["fn", "struct", "enum", "union", "trait", "type", "const", "static", "macro_rules"];

/// The most re-exports that are followed for one name.
const DEPTH: u32 = 16;

impl Modules {
    /// Reads the module in a file, and its children, whose files are in the folder.
    fn read(&mut self, file: &Path, folder: &Path, name: &[String]) -> Result<()> {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let words = words(&text).with_context(|| format!("cannot read {}", file.display()))?;
        for child in self.add(&words, file, name) {
            let inside =
                child[name.len()..].iter().fold(folder.to_owned(), |path, name| path.join(name));
            let (flat, nested) = (inside.with_extension("rs"), inside.join("mod.rs"));
            self.read(if flat.is_file() { &flat } else { &nested }, &inside, &child)?;
        }
        Ok(())
    }

    /// Adds a module and those between its braces. Returns the modules below it that have files of
    /// their own.
    fn add(&mut self, words: &[Word], file: &Path, name: &[String]) -> Vec<Names> {
        let mut module = Module { file: file.to_owned(), ..Module::default() };
        let mut others = Vec::new();
        // For each open bracket, whether items may be inside: in a macro's arguments they may.
        let mut open = vec![true];
        let mut at = 0;
        while at < words.len() {
            let is_item_level = open.last() == Some(&true);
            match texts(words, at) {
                // An attribute contains paths, and no items.
                ["#", "!", "[", _] => {
                    open.push(false);
                    at += 2;
                }
                ["use", tree, ..] if tree != "<" => at += module.add_use(&words[at + 1..], &[]),
                ["mod", child, ";", _] if is_item_level => others.push(below(name, child)),
                ["mod", child, "{", _] if is_item_level => {
                    let length = block(&words[at + 2..]);
                    let inside = &words[at + 3..at + 1 + length];
                    others.extend(self.add(inside, file, &below(name, child)));
                    at += 1 + length;
                }
                ["macro_rules", "!", item, _] => drop(module.items.insert(item.to_owned())),
                [keyword, item, ..] if is_item_level && ITEMS.contains(&keyword) => {
                    module.items.insert(item.to_owned());
                }
                ["{" | "(" | "[", ..] => {
                    open.push(is_item_level && at > 0 && words[at - 1].text == "!");
                }
                ["}" | ")" | "]", ..] => drop(open.pop()),
                [first, ":", ":", _] if is_name(first) => {
                    let mut path = vec![first.to_owned()];
                    let line = words[at].line;
                    while let [_, ":", ":", name] = texts(words, at)
                        && is_name(name)
                    {
                        path.push(name.to_owned());
                        at += 3;
                    }
                    // A macro's variable may follow, as in `crate::$name`.
                    if path.len() > 1 {
                        module.paths.push((path, line));
                    }
                }
                _ => {}
            }
            at += 1;
        }
        self.0.insert(name.to_vec(), module);
        others
    }

    /// Returns the module that defines the item of a path in `module`, or `None` if the item is
    /// outside of the crate.
    fn target(&self, module: &[String], path: &[String], depth: u32) -> Option<Names> {
        let mut from = module.to_vec();
        let mut rest = path;
        while let Some((first, after)) = rest.split_first() {
            match first.as_str() {
                "crate" => from.clear(),
                "self" => {}
                "super" => drop(from.pop()),
                _ => break,
            }
            rest = after;
        }
        let is_inside = rest.len() < path.len();
        self.find(&from, rest, depth).or(is_inside.then_some(from))
    }

    /// Returns the module that defines the item of a path whose first name is one of `module`.
    fn find(&self, module: &[String], path: &[String], depth: u32) -> Option<Names> {
        let Some((name, rest)) = path.split_first() else { return Some(module.to_vec()) };
        let child = below(module, name);
        if self.0.contains_key(&child) {
            return self.find(&child, rest, depth).or(Some(child));
        }
        let Module { items, uses, globs, .. } = self.0.get(module).filter(|_| depth > 0)?;
        if items.contains(name) {
            return Some(module.to_vec());
        }
        if let Some(used) = uses.get(name) {
            return self
                .target(module, &[used, rest].concat(), depth - 1)
                .or_else(|| Some(module.to_vec()));
        }
        let globs = globs.iter().filter_map(|glob| self.target(module, glob, depth - 1));
        globs.filter(|glob| glob != module).find_map(|glob| self.find(&glob, path, depth - 1))
    }

    /// Returns a sentence for each import that points up or is part of a cycle.
    fn faults(&self) -> BTreeSet<String> {
        let mut faults = BTreeSet::new();
        // For each module, which of its children use which, and the sentence about each path that
        // does.
        let mut siblings: BTreeMap<Names, BTreeMap<(&str, &str), Vec<String>>> = BTreeMap::new();
        for (from, module) in &self.0 {
            for (path, line) in &module.paths {
                // The declaration that imports a path's first name counts, not each use of that
                // name.
                let first = path.iter().find(|name| *name != "self");
                if first.is_some_and(|first| module.uses.contains_key(first)) {
                    continue;
                }
                let Some(to) = self.target(from, path, DEPTH) else { continue };
                // Modules of one file may use each other. A module may use those that it contains.
                if self.0[&to].file == module.file || to.starts_with(from) {
                    continue;
                }
                let sentence = format!(
                    "{}:{line}: {} uses {}",
                    module.file.display(),
                    shown(from),
                    path.join("::")
                );
                if from.starts_with(&to) {
                    faults.insert(format!("{sentence} of {}, which contains it", shown(&to)));
                    continue;
                }
                let common = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
                let (parent, to) = (from[..common].to_vec(), self.0.get_key_value(&to[..=common]));
                let Some(to) = to.and_then(|(to, _)| to.last()) else { continue };
                siblings
                    .entry(parent)
                    .or_default()
                    .entry((&from[common], to))
                    .or_default()
                    .push(sentence);
            }
        }
        for edges in siblings.values() {
            for ((from, to), sentences) in edges {
                if reaches(edges.keys().copied(), to, from) {
                    faults.extend(
                        sentences
                            .iter()
                            .map(|sentence| format!("{sentence}, and {to} depends on {from}")),
                    );
                }
            }
        }
        faults
    }
}

impl Module {
    /// Adds the tree of a `use` declaration. Returns how many words it has.
    fn add_use(&mut self, words: &[Word], prefix: &[String]) -> usize {
        let mut path = prefix.to_vec();
        let mut at = 0;
        loop {
            match texts(words, at) {
                [":", ":", ..] => at += 2,
                ["{", ..] => {
                    at += 1;
                    while !["}", ""].contains(&texts(words, at)[0]) {
                        at += self.add_use(&words[at..], &path);
                        at += usize::from(texts(words, at)[0] == ",");
                    }
                    return at + 1;
                }
                ["*", ..] => {
                    self.paths.push((path.clone(), words[at].line));
                    self.globs.push(path);
                    return at + 1;
                }
                [name, ..] if is_name(name) => {
                    let line = words[at].line;
                    if name != "self" || path.is_empty() {
                        path.push(name.to_owned());
                    }
                    at += 1;
                    let (alias, length) = match texts(words, at) {
                        [":", ..] => continue,
                        ["as", alias, ..] => (alias.to_owned(), 2),
                        _ => (path.last().cloned().unwrap_or_default(), 0),
                    };
                    self.paths.push((path.clone(), line));
                    self.uses.insert(alias, path);
                    return at + length;
                }
                _ => return at,
            }
        }
    }
}

/// Returns the texts of four words from `at` on. Those after the last word are empty.
fn texts(words: &[Word], at: usize) -> [&str; 4] {
    core::array::from_fn(|ahead| words.get(at + ahead).map_or("", |word| &word.text))
}

/// Returns the number of words from an opening bracket to the one that closes it, both included.
fn block(words: &[Word]) -> usize {
    let mut depth = 0_usize;
    let closes = |word: &Word| {
        match word.text.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        depth == 0
    };
    words.iter().position(closes).map_or(words.len(), |last| last + 1)
}

fn is_name(word: &str) -> bool {
    word.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

fn below(module: &[String], child: &str) -> Names {
    [module, &[child.to_owned()]].concat()
}

fn shown(module: &[String]) -> String {
    if module.is_empty() { "the root".to_owned() } else { module.join("::") }
}

/// Returns whether edges lead from a node to another, in any number of steps.
fn reaches<'a>(
    edges: impl Iterator<Item = (&'a str, &'a str)> + Clone,
    from: &'a str,
    to: &str,
) -> bool {
    let mut reached = BTreeSet::from([from]);
    loop {
        let before = reached.len();
        let next: Vec<&str> =
            edges.clone().filter(|(from, _)| reached.contains(from)).map(|(_, to)| to).collect();
        reached.extend(next);
        if reached.len() == before {
            return reached.contains(to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the faults of a crate whose modules are given as paths and sources.
    fn faults(sources: &[(&str, &str)]) -> Vec<String> {
        let mut modules = Modules::default();
        for (path, source) in sources {
            let name: Names =
                path.split('/').filter(|name| *name != "lib").map(str::to_owned).collect();
            let file = PathBuf::from(format!("{path}.rs"));
            modules.add(&words(source).unwrap(), &file, &name);
        }
        modules.faults().into_iter().collect()
    }

    #[test]
    fn layered_modules_have_no_fault() {
        let lib = ("lib", "mod a; mod b; pub use b::Item; fn f() { a::g() }");
        let high = ("a", "use crate::Item; use crate::b::{self, Item as Other}; fn g() { b::h() }");
        let low = ("b", "use core::fmt; pub struct Item; fn h() { fmt::x(); self::h() }");
        assert_eq!(faults(&[lib, high, low]), [""; 0]);
    }

    #[test]
    fn use_of_an_item_of_the_parent_points_up() {
        let lib = ("lib", "mod a; pub struct Root;");
        let from_use = ("a", "\nuse crate::{Root};");
        assert_eq!(
            faults(&[lib, from_use]),
            ["a.rs:2: a uses crate::Root of the root, which contains it"]
        );
        let from_code = ("a", "fn f() { vec![super::Root] }");
        assert_eq!(
            faults(&[lib, from_code]),
            ["a.rs:1: a uses super::Root of the root, which contains it"]
        );
        let from_glob = ("a", "use super::*;");
        assert_eq!(
            faults(&[lib, from_glob]),
            ["a.rs:1: a uses super of the root, which contains it"]
        );
    }

    #[test]
    fn cycle_of_siblings_is_named_at_each_import() {
        let lib = ("lib", "mod a; mod b; mod c; pub use c::*;");
        let a = ("a", "use crate::b::B; pub struct A;");
        let b = ("b", "use crate::C; pub struct B;");
        let c = ("c", "pub struct C(crate::a::A);");
        assert_eq!(
            faults(&[lib, a, b, c]),
            [
                "a.rs:1: a uses crate::b::B, and b depends on a",
                "b.rs:1: b uses crate::C, and c depends on b",
                "c.rs:1: c uses crate::a::A, and a depends on c",
            ]
        );
    }

    #[test]
    fn cycle_of_folders_is_found_through_different_modules() {
        let lib = ("lib", "mod a; mod b;");
        let [a, b] = ["a", "b"].map(|name| (name, "mod x; mod y;"));
        let [a_x, b_y] = [("a/x", "use crate::b::x::F;"), ("b/y", "use crate::a::y::F;")];
        let [a_y, b_x] = ["a/y", "b/x"].map(|name| (name, "pub struct F;"));
        assert_eq!(faults(&[lib, a, b, a_x, a_y, b_x, b_y]).len(), 2);
    }

    #[test]
    fn tests_and_modules_of_one_file_do_not_count() {
        let lib = ("lib", "mod a; struct Root; mod inner { use super::Root; }");
        let a = ("a", "#[cfg(test)]\nmod tests { use crate::Root; }");
        assert_eq!(faults(&[lib, a]), [""; 0]);
    }

    #[test]
    fn path_in_an_attribute_counts() {
        let lib = ("lib", "mod a; mod b;");
        let a = (
            "a",
            "#![cfg_attr(docsrs, feature(doc_cfg))]\nstruct A { #[arg(value_parser = crate::b::parser())] x: u8 }",
        );
        let b = ("b", "use crate::a::A; pub fn parser() {}");
        assert_eq!(
            faults(&[lib, a, b]),
            [
                "a.rs:2: a uses crate::b::parser, and b depends on a",
                "b.rs:1: b uses crate::a::A, and a depends on b",
            ]
        );
    }

    #[test]
    fn items_in_macros_belong_to_their_module() {
        let lib = ("lib", "mod a; mod b; pub use a::*;");
        let a = ("a", "statuses! { pub enum Status { Ok } }");
        let b = ("b", "use crate::Status; macro_rules! m { ($x:ident) => { crate::$x } }");
        assert_eq!(faults(&[lib, a, b]), [""; 0]);
    }
}
