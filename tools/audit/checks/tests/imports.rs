//! No module uses an item of a module that contains it, and no modules use each other in a cycle.
//!
//! Python's modules are read by import-linter (`.importlinter`), Rust's here. The modules of one
//! file count as one. A path counts wherever it is: in a `use`, in code, in an attribute, in a
//! macro's arguments. A name that a module re-exports belongs to the module that defines it. Items
//! for tests do not count.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

use alloc::collections::{BTreeMap, BTreeSet};
use std::collections::{HashMap, HashSet};
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::{Item, ItemMod, ItemUse, UseTree};

const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../..");

#[test]
fn rust_modules_import_no_parent_and_no_cycle() {
    for crate_folder in [
        "core",
        "host",
        "cli",
        "ffi-c",
        "py",
        "adapters/node",
        "adapters/tower",
        "services/fleet",
        "services/fleet/plan",
        "services/keys",
        "services/server",
    ] {
        let mut modules = Modules::default();
        modules.read(&Path::new(WORKSPACE).join(crate_folder).join("src"), "lib.rs", &[]);
        assert!(modules.0.len() > 1, "{crate_folder} has one module");
        let faults = modules.faults();
        assert!(faults.is_empty(), "in {crate_folder}: {faults:#?}");
    }
}

#[test]
fn python_modules_import_no_parent_and_no_cycle() {
    let linter = env::var_os("KEYTALLY_TEST_IMPORT_LINTER").unwrap_or("lint-imports".into());
    let mut linter = Command::new(linter);
    linter.args(["--no-logo", "--no-cache"]).env("PYTHONPATH", "py/python");
    let output = linter.current_dir(WORKSPACE).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// The path of a module from the crate's root, whose own path is empty, or any other path.
type Names = Vec<String>;

/// The items, imports and paths in a file.
#[derive(Debug, Default)]
struct Module {
    file: String,
    /// The items that it defines, also modules in the file.
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

impl Modules {
    /// Reads the module in a file below `src`, and its children.
    fn read(&mut self, src: &Path, file: &str, name: &[String]) {
        let text = fs::read_to_string(src.join(file)).unwrap();
        for child in self.add(&text, file, name) {
            let child = below(name, &child);
            let (flat, nested) = (child.join("/") + ".rs", child.join("/") + "/mod.rs");
            self.read(src, if src.join(&flat).is_file() { &flat } else { &nested }, &child);
        }
    }

    /// Adds a module with this source. Returns the names of its children in other files.
    fn add(&mut self, source: &str, file: &str, name: &[String]) -> Names {
        let mut module = Module { file: file.to_owned(), ..Module::default() };
        let children = module.add_items(syn::parse_file(source).unwrap().items, 0);
        self.0.insert(name.to_vec(), module);
        children
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
    /// Follows at most `depth` re-exports.
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
            let target = self.target(module, &[used, rest].concat(), depth - 1);
            return target.or_else(|| Some(module.to_vec()));
        }
        let globs = globs.iter().filter_map(|glob| self.target(module, glob, depth - 1));
        globs.filter(|glob| glob != module).find_map(|glob| self.find(&glob, path, depth - 1))
    }

    /// Returns a sentence for each import that points up or is part of a cycle.
    fn faults(&self) -> BTreeSet<String> {
        let mut faults = BTreeSet::new();
        // Which modules use which siblings, themselves or through the modules that they contain,
        // with a sentence about each path that does.
        let mut edges: BTreeMap<(&[String], Names), Vec<String>> = BTreeMap::new();
        for (from, module) in &self.0 {
            for (path, line) in &module.paths {
                // The declaration that imports a path's first name counts, not each use of that
                // name.
                let first = path.iter().find(|name| *name != "self");
                let is_imported = first.is_some_and(|first| module.uses.contains_key(first));
                let target = self.target(from, path, 16).filter(|_| !is_imported);
                // A module may use itself and those that it contains.
                let Some(to) = target.filter(|to| !to.starts_with(from)) else { continue };
                let used = path.join("::");
                let sentence = format!("{}:{line}: {} uses {used}", module.file, shown(from));
                if from.starts_with(&to) {
                    faults.insert(format!("{sentence} of {}, which contains it", shown(&to)));
                    continue;
                }
                let common = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
                let edge = (&from[..=common], to[..=common].to_vec());
                edges.entry(edge).or_default().push(sentence);
            }
        }
        for ((from, to), sentences) in &edges {
            let mut reached = BTreeSet::from([to.as_slice()]);
            while let Some((_, next)) = edges
                .keys()
                .find(|(from, to)| reached.contains(from) && !reached.contains(to.as_slice()))
            {
                reached.insert(next);
            }
            if reached.contains(from) {
                let cycle = format!(", and {} depends on {}", shown(to), shown(from));
                faults.extend(sentences.iter().map(|sentence| format!("{sentence}{cycle}")));
            }
        }
        faults
    }
}

impl Module {
    /// Adds items of the file, which are inside `depth` modules. Returns the names of the modules
    /// in other files.
    fn add_items(&mut self, items: Vec<Item>, depth: usize) -> Names {
        let mut others = Vec::new();
        for item in items {
            let tokens = item.to_token_stream();
            match item {
                _ if is_for_tests(&tokens) => {}
                Item::Mod(ItemMod { ident, content: Some((_, items)), .. }) => {
                    self.items.insert(ident.to_string());
                    others.extend(self.add_items(items, depth + 1));
                }
                Item::Mod(module) => others.push(module.ident.to_string()),
                _ => self.add_tokens(tokens, depth),
            }
        }
        others
    }

    /// Adds the items, imports and paths in tokens.
    fn add_tokens(&mut self, tokens: TokenStream, depth: usize) {
        let mut tokens = tokens.into_iter().peekable();
        let mut before = String::new();
        while let Some(token) = tokens.next() {
            let line = token.span().start().line;
            let mut text = token.to_string();
            match token {
                TokenTree::Group(group) => self.add_tokens(group.stream(), depth),
                TokenTree::Ident(_) if text == "use" => {
                    let ends = |token: &TokenTree| token.to_string() == ";";
                    let mut declaration = TokenStream::from(token);
                    while let Some(token) = tokens.next_if(|token| !ends(token)) {
                        declaration.extend([token]);
                    }
                    declaration.extend(tokens.next());
                    // In `use<'a>`, it is not a declaration.
                    if let Ok(declaration) = syn::parse2::<ItemUse>(declaration) {
                        self.add_use(&declaration.tree, Vec::new(), depth);
                    }
                }
                TokenTree::Ident(_) => {
                    if ITEMS.contains(&before.as_str()) {
                        self.items.insert(text.clone());
                    }
                    let mut path = vec![text.clone()];
                    while tokens.next_if(|token| token.to_string() == ":").is_some() {
                        let is_path = tokens.next_if(|token| token.to_string() == ":").is_some();
                        let is_name = |token: &TokenTree| matches!(token, TokenTree::Ident(_));
                        match tokens.next_if(|token| is_path && is_name(token)) {
                            Some(name) => path.push(name.to_string()),
                            None => break,
                        }
                    }
                    // One name may be a variable or, in `pub(super)`, a visibility.
                    if path.len() > 1 {
                        self.add_path(path, line, depth);
                    }
                }
                // The name of a macro follows `macro_rules!`.
                TokenTree::Punct(_) if text == "!" => text = before,
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
            before = text;
        }
    }

    /// Adds the tree of a `use` declaration.
    fn add_use(&mut self, tree: &UseTree, mut path: Names, depth: usize) {
        let (name, alias) = match tree {
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.add_use(tree, path.clone(), depth));
            }
            UseTree::Path(part) => {
                path.push(part.ident.to_string());
                return self.add_use(&part.tree, path, depth);
            }
            UseTree::Glob(glob) => {
                let path = self.add_path(path, glob.star_token.span.start().line, depth);
                return self.globs.push(path);
            }
            UseTree::Name(name) => (&name.ident, &name.ident),
            UseTree::Rename(rename) => (&rename.ident, &rename.rename),
        };
        let is_self = *name == "self" && !path.is_empty();
        let last = path.last().cloned();
        path.extend((!is_self).then(|| name.to_string()));
        let alias = last.filter(|_| is_self && name == alias).unwrap_or(alias.to_string());
        let path = self.add_path(path, name.span().start().line, depth);
        self.uses.insert(alias, path);
    }

    /// Adds a path inside `depth` modules of the file. Returns it without those modules.
    fn add_path(&mut self, mut path: Names, line: usize, depth: usize) -> Names {
        let inside = path.iter().take(depth).take_while(|name| *name == "super").count();
        path.drain(..inside);
        self.paths.push((path.clone(), line));
        path
    }
}

/// The words in front of an item's name.
const ITEMS: [&str; 9] =
    ["fn", "struct", "enum", "union", "trait", "type", "const", "static", "macro_rules"];

/// The beginnings of the conditions of items that are for tests only. The last is for model
/// checkers.
const TEST_CONDITIONS: [&str; 3] = ["cfg(test)", "cfg(all(test,", "cfg(any(loom,shuttle))"];

/// Returns whether the attributes of an item have a condition for tests.
fn is_for_tests(item: &TokenStream) -> bool {
    let tokens: Vec<TokenTree> = item.clone().into_iter().collect();
    let attributes = tokens.chunks(2).take_while(|pair| pair[0].to_string() == "#");
    let mut texts = attributes.map(|pair| pair[1].to_string().replace([' ', '\n'], ""));
    texts.any(|text| TEST_CONDITIONS.iter().any(|start| text[1..].starts_with(start)))
}

fn below(module: &[String], child: &str) -> Names {
    [module, &[child.to_owned()]].concat()
}

fn shown(module: &[String]) -> String {
    if module.is_empty() { "the root".to_owned() } else { module.join("::") }
}

/// Returns the faults of a crate whose modules are given as paths and sources.
fn faults(sources: &[(&str, &str)]) -> Vec<String> {
    let mut modules = Modules::default();
    for (path, source) in sources {
        let name: Names =
            path.split('/').filter(|name| *name != "lib").map(str::to_owned).collect();
        modules.add(source, &format!("{path}.rs"), &name);
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
    let fault = |path| [format!("a.rs:1: a uses {path} of the root, which contains it")];
    assert_eq!(faults(&[lib, ("a", "use crate::{Root};")]), fault("crate::Root"));
    assert_eq!(faults(&[lib, ("a", "fn f() { vec![super::Root] }")]), fault("super::Root"));
    assert_eq!(faults(&[lib, ("a", "fn f() { use super::{Root}; }")]), fault("super::Root"));
    assert_eq!(faults(&[lib, ("a", "use super::*;")]), fault("super"));
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
    let a = ("a", "/// A test.\n#[cfg(test)]\nmod tests { use crate::Root; }");
    assert_eq!(faults(&[lib, a]), [""; 0]);
}

#[test]
fn path_in_an_attribute_counts() {
    let lib = ("lib", "mod a; mod b;");
    let a = ("a", "struct A { #[arg(value_parser = crate::b::parser())] x: u8 }");
    let b = ("b", "use crate::a::A; pub fn parser() {}");
    assert_eq!(faults(&[lib, a, b]).len(), 2);
}

#[test]
fn items_in_macros_belong_to_their_module() {
    let lib = ("lib", "mod a; mod b; pub use a::*;");
    let a = ("a", "statuses! { pub enum Status { Ok } }");
    let b = ("b", "use crate::Status; macro_rules! m { ($x:ident) => { crate::$x } }");
    assert_eq!(faults(&[lib, a, b]), [""; 0]);
}
