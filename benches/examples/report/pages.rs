//! The pages that are written from `benches/RESULTS.md`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::results::{Results, cells};
use crate::{plots, targets};

/// The pages with tables of results.
const PAGES: [&str; 3] = ["README.md", PERFORMANCE, "docs/how-to/sizing.md"];

/// The page with plots.
const PERFORMANCE: &str = "docs/PERFORMANCE.md";

/// The name of a column with the 99th percentiles of the column before it.
const P99: &str = "p99";

/// The comments around the targets that are not met.
const TARGETS: [&str; 2] = ["<!-- targets -->\n", "<!-- end of the targets -->\n"];

/// The cell of a table that has no results yet.
const NOT_MEASURED: &str = "–";

/// Writes the pages with results whose content changes.
pub(crate) fn write(root: &Path) -> Result<()> {
    for (path, text) in all(root)? {
        let file = root.join(&path);
        if fs::read_to_string(&file).ok().as_ref() != Some(&text) {
            fs::write(file, text)?;
            println!("wrote {path}");
        }
    }
    Ok(())
}

/// Returns the path and the text of each page with results, and of each plot.
fn all(root: &Path) -> Result<Vec<(String, String)>> {
    let results = Results::load(root)?;
    let mut pages = plots::all(&fs::read_to_string(root.join(PERFORMANCE))?, &results)?;
    let missed = targets::missed(&results, &fs::read_to_string(root.join(targets::FILE))?)?;
    for path in PAGES {
        let page = with_targets(&fs::read_to_string(root.join(path))?, &missed);
        pages.push((
            path.to_owned(),
            filled(&page, &results).with_context(|| format!("{path} cannot be filled"))?,
        ));
    }
    Ok(pages)
}

/// Replaces the text between [`TARGETS`], if the page has them.
fn with_targets(page: &str, missed: &str) -> String {
    let [begin, end] = TARGETS;
    match page.split_once(begin).and_then(|(head, rest)| Some((head, rest.split_once(end)?.1))) {
        Some((head, tail)) => format!("{head}{begin}\n{missed}\n{end}{tail}"),
        None => page.to_owned(),
    }
}

/// Fills the tables of a page with figures of the results.
///
/// A row is filled if its first cell ends with a comment `<!-- TABLE: ROW -->`. The head of the
/// table names the columns. A column [`P99`] belongs to the column before it. If the results do not
/// have the table, its cells are [`NOT_MEASURED`].
fn filled(page: &str, results: &Results) -> Result<String> {
    let (mut text, mut columns) = (String::new(), Vec::<&str>::new());
    for line in page.lines() {
        let row =
            line.strip_prefix("| ").and_then(|row| row.split_once(" -->")?.0.split_once(" <!-- "));
        if let Some((label, source)) = row {
            let (table, row) =
                source.split_once(": ").with_context(|| format!("not a row: {source}"))?;
            text += &format!("| {label} <!-- {source} --> |");
            for pair in columns.windows(2) {
                let cell = match pair {
                    [_, _] if !results.has(table) => NOT_MEASURED,
                    [column, P99] => results.p99(table, row, column)?,
                    [_, column] => results.cell(table, row, column)?,
                    _ => continue,
                };
                text += &format!(" {cell} |").replace("  |", " |");
            }
        } else {
            if line.starts_with("| ") {
                columns = cells(line);
            }
            text += line;
        }
        text += "\n";
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root;

    #[test]
    fn generated_pages_match_the_results() {
        for (path, text) in all(root()).unwrap() {
            let old = fs::read_to_string(root().join(&path)).unwrap();
            assert!(text == old, "{path}: `cargo xtask bench --pages` writes it");
        }
    }

    #[test]
    fn columns_of_a_page_take_medians_and_p99() {
        let results = Results(
            "\n### t/a\n\n| ns | clock | 1 |\n|---|---|---:|\n| x | no | 5 / 9 |\n".to_owned(),
        );
        let page = |cells: &str| {
            format!(
                "text\n\n| ns | clock | 1 | p99 |\n|---|---|---:|---:|\n| X <!-- t/a: x --> |{cells}\n"
            )
        };
        assert_eq!(filled(&page(" ? | ? | ? |"), &results).unwrap(), page(" no | 5 | 9 |"));
        let empty = Results("\n### t/b\n".to_owned());
        assert_eq!(filled(&page(" ? | ? | ? |"), &empty).unwrap(), page(" – | – | – |"));
    }
}
