//! The suite `api`: the public items of the libraries are the recorded ones, each has one path, and
//! none names a type that users cannot rely on. `cargo xtask api` writes the record.
//!
//! An item may name types of the crates in [`PUBLIC_CRATES`], and types of its own library that
//! have a public path. So it cannot name a type of a crate before version 1.0, of loom, shuttle or
//! portable-atomic, or of a hidden module.
//!
//! The libraries are read twice: with their default features, and with `serde` and `defmt`. These
//! two features exist to implement the traits of their crates, [`FEATURE_CRATES`], which are
//! permitted too. The record marks the items that need them.
//!
//! rustdoc describes a library as JSON, with an unstable option. `RUSTC_BOOTSTRAP` permits it. Only
//! rustdoc gets this variable, since rustc would build all crates again.

use alloc::collections::BTreeSet;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::command::{self, cargo};
use crate::tools::Found;

/// A library: the folder with the record, the package, and the name of rustdoc's file.
type Library = (&'static str, &'static str, &'static str);

/// The libraries. The first two have [`FEATURES`].
const LIBRARIES: [Library; 3] = [
    ("core", "keytally-core", "keytally_core"),
    ("host", "keytally", "keytally"),
    ("cli", "keytally-cli", "keytally_cli"),
];

/// The crates whose types may be public: Rust's own, this project's, and others from version 1.0
/// on.
const PUBLIC_CRATES: [&str; 9] = [
    "alloc",
    "clap_builder",
    "core",
    "keytally",
    "keytally_core",
    "serde_core",
    "std",
    "subtle",
    "zeroize",
];

/// How many of [`LIBRARIES`] have [`FEATURES`].
const FEATURED_LIBRARIES: usize = 2;

/// The features that add public items.
const FEATURES: [&str; 2] = ["serde", "defmt"];

/// The crates of [`FEATURES`], whose traits are the purpose of the features.
const FEATURE_CRATES: [&str; 2] = ["defmt", "serde_core"];

/// The mark of an item that needs one of [`FEATURES`].
const FEATURE_MARK: &str = " (feature)";

/// Modules of the libraries that are not part of the API. A documented item must not name a type of
/// theirs.
const HIDDEN_MODULES: [[&str; 2]; 3] =
    [["keytally_core", "stop"], ["keytally_core", "sync"], ["keytally", "stop"]];

/// Writes the records.
pub(crate) fn write() -> Result<()> {
    for (folder, api) in read_all()? {
        let path = record(folder);
        fs::write(&path, api.text()).with_context(|| format!("cannot write {path}"))?;
        println!("wrote {path}");
    }
    Ok(())
}

/// Compares the public items with the records.
///
/// # Errors
/// If there are faults: an item is not recorded, a recorded item does not exist, an item has two
/// paths, or an item names a type of another crate or without a public path.
pub(crate) fn check(_: &[Found]) -> Result<String> {
    let mut faults = Vec::new();
    let mut count = 0;
    for (folder, api) in read_all()? {
        let path = record(folder);
        let recorded = fs::read_to_string(&path).unwrap_or_default();
        let recorded: BTreeSet<&str> = recorded.lines().collect();
        let items: BTreeSet<&str> = api.items.iter().map(String::as_str).collect();
        faults.extend(
            items.difference(&recorded).map(|item| format!("{path}: not recorded: {item}")),
        );
        faults.extend(
            recorded
                .difference(&items)
                .map(|item| format!("{path}: recorded, but not public: {item}")),
        );
        count += items.len();
        faults.extend(api.faults);
    }
    ensure!(
        faults.is_empty(),
        "the public API differs from its rules or its record, which `cargo xtask api` writes:\n{}",
        faults.join("\n")
    );
    Ok(format!("{count} items"))
}

/// Returns the path of the record of a library.
fn record(folder: &str) -> String {
    format!("{folder}/api.txt")
}

/// Reads the public items of all libraries, with the folder of each. Those that need a feature have
/// [`FEATURE_MARK`].
fn read_all() -> Result<Vec<(&'static str, Api)>> {
    let mut libraries = read(&LIBRARIES, &[], "target")?;
    // Cargo does not document a library again if only the other reading has replaced its JSON.
    let featured = read(&LIBRARIES[..FEATURED_LIBRARIES], &FEATURES, "target/api/features")?;
    for ((_, api), (_, featured)) in libraries.iter_mut().zip(featured) {
        api.add_featured(featured);
    }
    Ok(libraries)
}

/// Reads the public items of libraries with these features. The documentation goes to a folder of
/// `target_folder`.
fn read(
    libraries: &[Library],
    features: &[&str],
    target_folder: &str,
) -> Result<Vec<(&'static str, Api)>> {
    let folder = std::path::absolute("target/api")?;
    fs::create_dir_all(&folder)?;
    let rustdoc = folder.join("rustdoc");
    fs::write(&rustdoc, "#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc \"$@\"\n")?;
    fs::set_permissions(&rustdoc, fs::Permissions::from_mode(0o755))?;
    let mut doc = cargo();
    doc.args(["doc", "--no-deps", "--lib", "--target-dir", target_folder])
        .args(libraries.iter().flat_map(|(_, package, _)| ["--package", package]));
    for feature in features {
        doc.args(["--features", &format!("keytally/{feature}")]);
    }
    let permitted = if features.is_empty() { &[][..] } else { &FEATURE_CRATES[..] };
    doc.env("RUSTDOC", rustdoc).env("RUSTDOCFLAGS", "-Z unstable-options --output-format json");
    command::run(doc)?;
    let read = |&(folder, _, name): &Library| {
        let path = format!("{target_folder}/doc/{name}.json");
        let text = fs::read_to_string(&path).with_context(|| format!("rustdoc wrote no {path}"))?;
        let json = serde_json::from_str(&text).with_context(|| format!("{path} is not JSON"))?;
        Ok((folder, Api::read(&json, permitted).with_context(|| format!("cannot read {path}"))?))
    };
    libraries.iter().map(read).collect()
}

/// The public items of a library.
#[derive(Debug, Default)]
struct Api {
    /// A line for each: its kind, its path and its signature.
    items: BTreeSet<String>,
    /// Items with two paths, and names of types that are not permitted.
    faults: Vec<String>,
}

impl Api {
    /// Reads the JSON of rustdoc. Types of the crates in `permitted` may be named in addition to
    /// those of [`PUBLIC_CRATES`].
    fn read(json: &Value, permitted: &[&str]) -> Result<Self> {
        let mut reader = Reader {
            json,
            permitted,
            api: Self::default(),
            paths: HashMap::new(),
            own_types: Vec::new(),
        };
        let root = reader.item(&json["root"]).context("the library has no root")?;
        reader.add_children(&root["inner"]["module"]["items"], name(root));
        Ok(reader.finish())
    }

    /// Adds the items that another reading of the library has in addition, with [`FEATURE_MARK`],
    /// and its other faults.
    fn add_featured(&mut self, featured: Self) {
        let added = featured.items.difference(&self.items).map(|item| item.clone() + FEATURE_MARK);
        let added: Vec<String> = added.collect();
        self.items.extend(added);
        for fault in featured.faults {
            if !self.faults.contains(&fault) {
                self.faults.push(fault);
            }
        }
    }

    fn text(&self) -> String {
        self.items.iter().flat_map(|item| [item, "\n"]).collect()
    }
}

/// Traverses the JSON of rustdoc.
struct Reader<'a> {
    json: &'a Value,
    /// Crates whose types may be named, in addition to [`PUBLIC_CRATES`].
    permitted: &'a [&'a str],
    api: Api,
    /// The path of each item that was added, by its id.
    paths: HashMap<String, String>,
    /// Each type of the library that an item names, by its id, with the sentence for the case that
    /// it has no path.
    own_types: Vec<(String, String)>,
}

impl<'a> Reader<'a> {
    /// Returns the item with an id, if it is defined in the library.
    fn item(&self, id: &Value) -> Option<&'a Value> {
        self.json["index"].get(id.to_string()).filter(|item| item["crate_id"] == 0)
    }

    fn add_children(&mut self, ids: &'a Value, parent: &str) {
        for id in each(ids) {
            if let Some(item) = self.item(id) {
                self.add(id, item, name(item), parent);
            }
        }
    }

    fn add(&mut self, id: &Value, item: &'a Value, name: &str, parent: &str) {
        let Some((kind, inner)) = only(&item["inner"]) else { return };
        if kind == "use" {
            return self.add_use(inner, parent);
        }
        let path = format!("{parent}::{name}");
        if let Some(other) = self.paths.insert(id.to_string(), path.clone()) {
            self.api.faults.push(format!("{path} is also {other}: an item has one path"));
            return;
        }
        self.add_line(inner, &path, line(kind, &path, item));
        for ids in [&inner["items"], &inner["variants"], &inner["fields"], &inner["kind"]["tuple"]]
        {
            self.add_children(ids, &path);
        }
        for kind in ["plain", "struct"] {
            self.add_children(&inner["kind"][kind]["fields"], &path);
        }
        for id in each(&inner["impls"]) {
            if let Some(item) = self.item(id) {
                self.add_impl(&item["inner"]["impl"], &path);
            }
        }
    }

    fn add_use(&mut self, inner: &'a Value, parent: &str) {
        let new_name = name(inner);
        match self.item(&inner["id"]) {
            Some(target) if inner["is_glob"] == true => {
                self.add_children(&target["inner"]["module"]["items"], parent);
            }
            Some(target) => self.add(&inner["id"], target, new_name, parent),
            None => {
                let source = inner["source"].as_str().unwrap_or_default();
                let path =
                    format!("{parent}::{}", if inner["is_glob"] == true { "*" } else { new_name });
                let named = serde_json::json!({ "path": source, "id": inner["id"] });
                self.add_line(&named, &path, format!("use {path} = {source}"));
            }
        }
    }

    /// Adds an implementation, unless it is a blanket implementation or of an auto trait.
    fn add_impl(&mut self, inner: &'a Value, path: &str) {
        if inner["is_synthetic"] == true || !inner["blanket_impl"].is_null() {
            return;
        }
        if inner["trait"].is_null() {
            self.add_children(&inner["items"], path);
            return;
        }
        let implemented = path_text(&inner["trait"]);
        // A marker trait that `derive(PartialEq)` implements and users cannot name.
        if implemented == "StructuralPartialEq" {
            return;
        }
        // defmt's derive adds bounds on the types of fields. Without parameters, they always hold.
        let has_parameters = each(&inner["generics"]["params"]).next().is_some();
        let generics = if has_parameters { generics(&inner["generics"]) } else { String::new() };
        let line = format!(
            "impl{generics} {implemented} for {path}{}",
            arguments(&inner["for"]["resolved_path"]["args"])
        );
        self.add_line(inner, path, line);
        for id in each(&inner["items"]) {
            // Associated types of the implementation.
            if let Some(item) = self.item(id) {
                self.add_foreign(&item["inner"]["assoc_type"], path);
            }
        }
    }

    /// Adds the line of an item, and a fault for each type in it whose crate may not be public.
    fn add_line(&mut self, inner: &Value, path: &str, line: String) {
        self.add_foreign(inner, path);
        self.api.items.insert(line);
    }

    /// Adds a fault for each type of the library that was named and has no public path.
    fn finish(mut self) -> Api {
        for (id, fault) in self.own_types {
            if !self.paths.contains_key(&id) && !self.api.faults.contains(&fault) {
                self.api.faults.push(fault);
            }
        }
        self.api
    }

    /// Adds a fault for each path in the value that names a type of another crate which is not
    /// permitted, or of a hidden module.
    fn add_foreign(&mut self, value: &Value, path: &str) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| self.add_foreign(value, path)),
            Value::Object(fields) => {
                if fields.contains_key("path") && !value["id"].is_null() {
                    self.add_name(value, path);
                }
                fields.values().for_each(|value| self.add_foreign(value, path));
            }
            _ => {}
        }
    }

    /// Adds a fault if the item at `path` must not name this type.
    fn add_name(&mut self, named: &Value, path: &str) {
        let id = named["id"].to_string();
        let summary = &self.json["paths"][&id];
        let shown = path_text(named);
        let external = &self.json["external_crates"][summary["crate_id"].to_string()]["name"];
        match external.as_str() {
            Some(name) if !PUBLIC_CRATES.contains(&name) && !self.permitted.contains(&name) => {
                let fault =
                    format!("{path} names {name}::{shown}, whose crate is not in PUBLIC_CRATES");
                self.api.faults.push(fault);
            }
            Some(_) if is_hidden(&summary["path"]) => {
                self.api.faults.push(format!("{path} names {shown}, which is in a hidden module"));
            }
            Some(_) => {}
            None => {
                let fault = format!("{path} names {shown}, which has no public path");
                self.own_types.push((id, fault));
            }
        }
    }
}

/// Returns whether a path lies in one of [`HIDDEN_MODULES`].
fn is_hidden(path: &Value) -> bool {
    let start = [str(&path[0]), str(&path[1])];
    HIDDEN_MODULES.contains(&start)
}

/// Returns the line of an item. Implementations and re-exports have other functions.
fn line(kind: &str, path: &str, item: &Value) -> String {
    let inner = &item["inner"][kind];
    let mut line = match kind {
        "function" => {
            let header = |flag: &str, word| if inner["header"][flag] == true { word } else { "" };
            let words = [
                header("is_const", "const "),
                header("is_unsafe", "unsafe "),
                header("is_async", "async "),
            ];
            format!(
                "{}fn {path}{}{}",
                words.concat(),
                generics(&inner["generics"]),
                signature(&inner["sig"])
            )
        }
        "struct_field" => format!("field {path}: {}", type_text(inner)),
        "constant" | "assoc_const" => format!("const {path}: {}", type_text(&inner["type"])),
        "static" => format!("static {path}: {}", type_text(&inner["type"])),
        "type_alias" => {
            format!("type {path}{} = {}", generics(&inner["generics"]), type_text(&inner["type"]))
        }
        "assoc_type" => format!("type {path}"),
        "trait" => {
            format!(
                "trait {path}{}{}",
                generics(&inner["generics"]),
                after(": ", &bounds(&inner["bounds"]))
            )
        }
        _ => format!("{kind} {path}{}", generics(&inner["generics"])),
    };
    if item["attrs"].to_string().contains("non_exhaustive") {
        line += " (non-exhaustive)";
    }
    line
}

/// Returns `<T: Trait> where …`, or an empty text if there are no generics.
fn generics(generics: &Value) -> String {
    let params =
        each(&generics["params"]).filter(|param| param["kind"]["type"]["is_synthetic"] != true);
    let params: Vec<String> = params
        .map(|param| match only(&param["kind"]) {
            Some(("const", kind)) => format!("const {}: {}", name(param), type_text(&kind["type"])),
            Some(("type", kind)) => {
                format!("{}{}", name(param), after(": ", &bounds(&kind["bounds"])))
            }
            _ => name(param).to_owned(),
        })
        .collect();
    let predicates = each(&generics["where_predicates"]).filter_map(only).map(|(_, predicate)| {
        let left = predicate["lifetime"]
            .as_str()
            .map_or_else(|| type_text(&predicate["type"]), str::to_owned);
        format!("{left}: {}", bounds(&predicate["bounds"]))
    });
    let params = if params.is_empty() { String::new() } else { format!("<{}>", params.join(", ")) };
    params + &after(" where ", &predicates.collect::<Vec<_>>().join(", "))
}

fn signature(signature: &Value) -> String {
    let inputs =
        each(&signature["inputs"]).map(|input| match (str(&input[0]), type_text(&input[1])) {
            ("self", kind) if kind.ends_with("Self") => kind.replace("Self", "self"),
            ("_" | "", kind) => kind,
            (name, kind) => format!("{name}: {kind}"),
        });
    let output = &signature["output"];
    let output =
        if output.is_null() { String::new() } else { format!(" -> {}", type_text(output)) };
    format!("({}){output}", inputs.collect::<Vec<_>>().join(", "))
}

fn type_text(value: &Value) -> String {
    let Some((kind, inner)) = only(value) else { return "_".to_owned() };
    let target = || type_text(&inner["type"]);
    let is_mutable = inner["is_mutable"] == true;
    match kind {
        "resolved_path" => path_text(inner),
        "generic" | "primitive" => str(inner).to_owned(),
        "borrowed_ref" => {
            let lifetime =
                inner["lifetime"].as_str().map(|name| format!("{name} ")).unwrap_or_default();
            format!("&{lifetime}{}{}", if is_mutable { "mut " } else { "" }, target())
        }
        "raw_pointer" => format!("*{} {}", if is_mutable { "mut" } else { "const" }, target()),
        "slice" => format!("[{}]", type_text(inner)),
        "array" => format!("[{}; {}]", target(), str(&inner["len"])),
        "tuple" => format!("({})", each(inner).map(type_text).collect::<Vec<_>>().join(", ")),
        "impl_trait" => format!("impl {}", bounds(inner)),
        "dyn_trait" => {
            let traits =
                each(&inner["traits"]).map(|each| path_text(&each["trait"])).collect::<Vec<_>>();
            format!("dyn {}{}", traits.join(" + "), after(" + ", str(&inner["lifetime"])))
        }
        "qualified_path" if inner["trait"].is_null() => {
            format!("{}::{}", type_text(&inner["self_type"]), name(inner))
        }
        "qualified_path" => {
            format!(
                "<{} as {}>::{}",
                type_text(&inner["self_type"]),
                path_text(&inner["trait"]),
                name(inner)
            )
        }
        "function_pointer" => format!("fn{}", signature(&inner["sig"])),
        _ => inner.to_string(),
    }
}

/// Returns the last name of a path, with its arguments. The names before it depend on the version
/// of rustdoc.
fn path_text(path: &Value) -> String {
    let path_name = str(&path["path"]).rsplit("::").next().unwrap_or_default();
    path_name.to_owned() + &arguments(&path["args"])
}

fn arguments(arguments: &Value) -> String {
    match only(arguments) {
        Some(("angle_bracketed", inner)) => {
            let args = each(&inner["args"]).map(|argument| match only(argument) {
                Some(("type", inner)) => type_text(inner),
                Some(("const", inner)) => str(&inner["expr"]).to_owned(),
                Some((_, inner)) => str(inner).to_owned(),
                None => "_".to_owned(),
            });
            let constraints = each(&inner["constraints"]).map(|constraint| {
                let binding = &constraint["binding"];
                let bound = after(": ", &bounds(&binding["constraint"]));
                let equal = &binding["equality"]["type"];
                let equal = if equal.is_null() {
                    String::new()
                } else {
                    format!(" = {}", type_text(equal))
                };
                format!("{}{bound}{equal}", name(constraint))
            });
            let all: Vec<String> = args.chain(constraints).collect();
            if all.is_empty() { String::new() } else { format!("<{}>", all.join(", ")) }
        }
        Some(("parenthesized", inner)) => {
            let inputs = each(&inner["inputs"]).map(type_text).collect::<Vec<_>>().join(", ");
            let output = &inner["output"];
            let output =
                if output.is_null() { String::new() } else { format!(" -> {}", type_text(output)) };
            format!("({inputs}){output}")
        }
        _ => String::new(),
    }
}

fn bounds(bounds: &Value) -> String {
    let texts = each(bounds).map(|bound| match only(bound) {
        Some(("trait_bound", inner)) => {
            let mark = if inner["modifier"] == "maybe" { "?" } else { "" };
            format!("{mark}{}", path_text(&inner["trait"]))
        }
        Some((_, inner)) => inner.as_str().map_or_else(|| inner.to_string(), str::to_owned),
        None => String::new(),
    });
    texts.collect::<Vec<_>>().join(" + ")
}

/// Returns the separator and the text, or an empty text if the text is empty.
fn after(separator: &str, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{separator}{text}") }
}

/// Returns the name and the value of the only field of an object.
fn only(value: &Value) -> Option<(&str, &Value)> {
    value.as_object()?.iter().next().map(|(name, value)| (name.as_str(), value))
}

fn each(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn str(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn name(value: &Value) -> &str {
    str(&value["name"])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Reads a library with these items, which have the ids 1, 2, …. The root module contains the
    /// first `root_items` of them. Id 100 is a type of heapless, id 101 one of core, and id 102 one
    /// of a hidden module.
    fn read(root_items: u64, items: &[Value]) -> Api {
        read_with(&[], root_items, items)
    }

    fn read_with(permitted: &[&str], root_items: u64, items: &[Value]) -> Api {
        let root: Vec<u64> = (1..=root_items).collect();
        let mut index = json!({ "0": { "crate_id": 0, "name": "lib", "inner": { "module": { "items": root } } } });
        for (id, item) in (1..).zip(items) {
            index[id.to_string()] = item.clone();
            index[id.to_string()]["crate_id"] = json!(0);
        }
        let paths = json!({ "100": { "crate_id": 7 }, "101": { "crate_id": 1 }, "102": { "crate_id": 8, "path": ["keytally_core", "sync", "Word"] } });
        let crates = json!({ "1": { "name": "core" }, "7": { "name": "heapless" }, "8": { "name": "keytally_core" } });
        let json = json!({ "root": 0, "index": index, "paths": paths, "external_crates": crates });
        Api::read(&json, permitted).unwrap()
    }

    fn path(name: &str, id: u64) -> Value {
        json!({ "resolved_path": { "path": name, "id": id, "args": null } })
    }

    fn function(output: Value) -> Value {
        let receiver = json!(["self", { "borrowed_ref": { "lifetime": null, "is_mutable": false, "type": { "generic": "Self" } } }]);
        let bytes = json!(["bytes", { "array": { "type": { "primitive": "u8" }, "len": "16" } }]);
        let signature = json!({ "inputs": [receiver, bytes], "output": output });
        json!({ "name": "f", "inner": { "function": { "sig": signature, "generics": {}, "header": { "is_const": true } } } })
    }

    fn structure(impls: &[u64]) -> Value {
        json!({ "name": "S", "attrs": ["non_exhaustive"], "inner": { "struct": { "kind": "unit", "impls": impls } } })
    }

    #[test]
    fn items_are_listed_with_paths_and_signatures() {
        let inherent = json!({ "inner": { "impl": { "trait": null, "items": [3] } } });
        let clone = json!({ "inner": { "impl": { "trait": { "path": "core::clone::Clone", "id": 101 } } } });
        let auto = json!({ "inner": { "impl": { "trait": { "path": "Send", "id": 101 }, "is_synthetic": true } } });
        let api = read(
            1,
            &[structure(&[2, 4, 5]), inherent, function(path("u::Option", 101)), clone, auto],
        );
        assert_eq!(
            api.text(),
            "const fn lib::S::f(&self, bytes: [u8; 16]) -> Option\n\
             impl Clone for lib::S\n\
             struct lib::S (non-exhaustive)\n"
        );
        assert_eq!(api.faults, [""; 0]);
    }

    #[test]
    fn type_of_an_unstable_crate_is_a_fault() {
        let api = read(1, &[function(path("heapless::String", 100))]);
        assert_eq!(
            api.faults,
            ["lib::f names heapless::String, whose crate is not in PUBLIC_CRATES"]
        );
        let reexport =
            json!({ "inner": { "use": { "source": "heapless::Vec", "name": "Vec", "id": 100 } } });
        let api = read(1, &[reexport]);
        assert_eq!(api.text(), "use lib::Vec = heapless::Vec\n");
        assert_eq!(
            api.faults,
            ["lib::Vec names heapless::Vec, whose crate is not in PUBLIC_CRATES"]
        );
    }

    #[test]
    fn crate_of_a_feature_is_permitted_with_the_feature() {
        let bound = json!({ "bound_predicate": { "type": { "primitive": "u8" }, "bounds": [] } });
        let format = json!({ "inner": { "impl": {
            "trait": { "path": "Format", "id": 100 }, "generics": { "where_predicates": [bound] },
        } } });
        let items = [structure(&[2]), format];
        assert_eq!(read(1, &items).faults.len(), 1);
        let featured = read_with(&["heapless"], 1, &items);
        assert_eq!(featured.faults, [""; 0]);
        let mut api = read(1, &[structure(&[])]);
        api.add_featured(featured);
        assert_eq!(
            api.text(),
            "impl Format for lib::S (feature)\nstruct lib::S (non-exhaustive)\n"
        );
    }

    #[test]
    fn fault_of_a_feature_is_reported_once() {
        let mut api = read(1, &[function(path("heapless::String", 100))]);
        api.add_featured(read(
            2,
            &[function(path("heapless::String", 100)), function(path("Vec", 100))],
        ));
        assert_eq!(api.faults.len(), 2, "{:?}", api.faults);
    }

    #[test]
    fn type_without_a_public_path_is_a_fault() {
        let api = read(2, &[function(path("S", 2)), structure(&[])]);
        assert_eq!(api.faults, [""; 0]);
        let hidden = read(1, &[function(path("S", 2)), structure(&[])]);
        assert_eq!(hidden.faults, ["lib::f names S, which has no public path"]);
        let stripped = read(1, &[function(path("S", 77))]);
        assert_eq!(stripped.faults, ["lib::f names S, which has no public path"]);
        let of_core = read(1, &[function(path("Word", 102))]);
        assert_eq!(of_core.faults, ["lib::f names Word, which is in a hidden module"]);
    }

    #[test]
    fn type_of_an_unstable_crate_in_an_implementation_is_a_fault() {
        let args =
            json!({ "angle_bracketed": { "args": [{ "type": path("heapless::String", 100) }] } });
        let from = json!({ "inner": { "impl": { "trait": { "path": "From", "id": 101, "args": args } } } });
        let error = json!({ "inner": { "impl": { "trait": { "path": "FromStr", "id": 101 }, "items": [4] } } });
        let error_type =
            json!({ "inner": { "assoc_type": { "type": path("heapless::Full", 100) } } });
        let api = read(1, &[structure(&[2, 3]), from, error, error_type]);
        assert_eq!(
            api.faults,
            [
                "lib::S names heapless::String, whose crate is not in PUBLIC_CRATES",
                "lib::S names heapless::Full, whose crate is not in PUBLIC_CRATES"
            ]
        );
    }

    #[test]
    fn second_path_of_an_item_is_a_fault() {
        let module = json!({ "name": "m", "inner": { "module": { "items": [3] } } });
        let reexport = json!({ "inner": { "use": { "source": "m::S", "name": "S", "id": 3 } } });
        let api = read(2, &[module, reexport, structure(&[])]);
        assert_eq!(api.faults, ["lib::S is also lib::m::S: an item has one path"]);
    }
}
