//! The book: `docs/` and the pages of the root, as mdBook builds them.
//!
//! On GitHub, a link is relative to the file that contains it. In the book, chapters include pages
//! of the root, and other files are missing. A preprocessor of mdBook therefore replaces each link:
//! by one to the chapter of the file that it names, or to the file on GitHub.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::command::run;
use crate::targets::target_folder;
use crate::tools;

/// The folder of the chapters, as in `book.toml`.
const SOURCE: &str = "docs";

/// The address of the repository's files.
const REPOSITORY: &str = "https://github.com/keytally/keytally/blob/main";

/// Builds the book, and checks the links of the built pages.
pub(crate) fn check() -> Result<String> {
    let built = std::path::absolute(target_folder()?.join("book"))?;
    tools::remove_folder(&built)?;
    let output = run(Command::new(tools::mdbook()?).args(["build", "--dest-dir"]).arg(&built))?;
    ensure!(!output.contains("WARN"), "mdBook warns:\n{output}");
    let mut pages = HashMap::new();
    read_pages(&fs::canonicalize(&built)?, &mut pages)?;
    let mut links = 0;
    for (page, text) in &pages {
        let targets = [" href=\"", " src=\""].into_iter().flat_map(|name| text.split(name).skip(1));
        for target in targets.filter_map(|rest| rest.split('"').next()) {
            if target.contains(':') {
                continue;
            }
            let context = || format!("{} has the link {target}", page.display());
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { Ok(page.clone()) } else { linked(page, file) };
            let path = path.with_context(context)?;
            let has_anchor = |text: &String| text.contains(&format!("id=\"{anchor}\""));
            let leads_to_heading = anchor.is_empty() || pages.get(&path).is_some_and(has_anchor);
            ensure!(leads_to_heading, "{}, which leads to no heading", context());
            links += 1;
        }
    }
    Ok(format!("{} pages, {links} links", pages.len()))
}

/// Adds the built pages in a folder and its subfolders, with their texts.
fn read_pages(folder: &Path, pages: &mut HashMap<PathBuf, String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read_pages(&path, pages)?;
        } else if path.extension().is_some_and(|extension| extension == "html") {
            let text = fs::read_to_string(&path)?;
            pages.insert(path, text);
        }
    }
    Ok(())
}

/// Returns the absolute path of the file that a link in `page` names. The file must exist.
fn linked(page: &Path, link: &str) -> io::Result<PathBuf> {
    fs::canonicalize(page.with_file_name(link))
}

/// Runs as a preprocessor of mdBook: reads the book from standard input, and prints it.
pub(crate) fn preprocess() -> Result<()> {
    let root = fs::canonicalize(".")?;
    let (_, mut book): (Value, Value) = serde_json::from_reader(io::stdin())?;
    let mut chapters = HashMap::new();
    for_each_chapter(&mut book["items"], &mut |source, path, _| {
        chapters.insert(source.to_owned(), path.to_owned());
        Ok(())
    })?;
    for_each_chapter(&mut book["items"], &mut |source, path, content| {
        let up = "../".repeat(path.matches('/').count());
        *content = replace_links(content, |link| {
            let (file, anchor) = link.split_at(link.find('#').unwrap_or(link.len()));
            let target = linked(source, file)
                .with_context(|| format!("{} has the link {link}", source.display()))?;
            let asset = target.strip_prefix(root.join(SOURCE)).ok();
            Ok(match (chapters.get(&target), asset.filter(|_| !file.ends_with(".md"))) {
                (Some(chapter), _) => format!("{up}{chapter}{anchor}"),
                (None, Some(asset)) => format!("{up}{}", asset.display()),
                (None, None) => {
                    format!("{REPOSITORY}/{}{anchor}", target.strip_prefix(&root)?.display())
                }
            })
        })?;
        Ok(())
    })?;
    println!("{book}");
    Ok(())
}

/// Calls `work` for each chapter with the file that has its text (its own file, or the one that it
/// includes), its path in the book, and its content.
fn for_each_chapter(
    items: &mut Value,
    work: &mut impl FnMut(&Path, &str, &mut String) -> Result<()>,
) -> Result<()> {
    for item in items.as_array_mut().into_iter().flatten() {
        let Some(chapter) = item.get_mut("Chapter") else { continue };
        for_each_chapter(&mut chapter["sub_items"], work)?;
        let file = chapter["source_path"].as_str().context("a chapter has no file")?;
        let own = fs::canonicalize(Path::new(SOURCE).join(file))?;
        let text = fs::read_to_string(&own)?;
        let included = text.strip_prefix("{{#include ").and_then(|rest| rest.split('}').next());
        let source = included.map_or_else(|| Ok(own.clone()), |file| linked(&own, file))?;
        let path = chapter["path"].as_str().unwrap_or_default().to_owned();
        let mut content = chapter["content"].as_str().unwrap_or_default().to_owned();
        work(&source, &path, &mut content)?;
        chapter["content"] = content.into();
    }
    Ok(())
}

/// Replaces the targets of the links outside of code blocks that lead to other files.
fn replace_links(text: &str, replace: impl Fn(&str) -> Result<String>) -> Result<String> {
    let mut in_code = false;
    let mut result = String::new();
    for line in text.split_inclusive('\n') {
        in_code ^= line.trim_start().starts_with("```");
        for (number, part) in line.split("](").enumerate() {
            result += if number > 0 { "](" } else { "" };
            let (link, rest) = part.split_once(')').unwrap_or_default();
            let is_other = link.is_empty() || link.starts_with('#') || link.contains(':');
            if in_code || number == 0 || is_other {
                result += part;
            } else {
                result += &format!("{}){rest}", replace(link)?);
            }
        }
    }
    Ok(result)
}
