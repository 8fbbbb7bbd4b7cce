//! The results: `benches/RESULTS.md`, which has a section for each group, and in it a table for
//! each benchmark. Every other page with results is written from this file.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// The name of the column that states whether an implementation reads a clock.
pub(crate) const CLOCK: &str = "clock read";

/// The name of the column with work that is not that of the table's description.
pub(crate) const WORK: &str = "work";

/// The work of implementations that are compared with none.
pub(crate) const PART: &str = "a part";

pub(crate) const FILE: &str = "benches/RESULTS.md";

/// The tables of a group, as the measuring programs write them.
#[derive(Debug, Deserialize)]
pub(crate) struct Group {
    group: String,
    tables: Vec<Table>,
}

/// A table of results. Its rows are implementations, and its columns are sizes or other conditions.
#[derive(Debug, Deserialize)]
struct Table {
    name: String,
    unit: String,
    title: String,
    /// A description of the work that each figure measures.
    about: String,
    /// Whether the first of two figures is the mean of a turn's batches instead of their median.
    #[serde(default)]
    mean: bool,
    columns: Vec<String>,
    rows: Vec<Row>,
}

/// An implementation.
#[derive(Debug, Deserialize)]
struct Row {
    name: String,
    /// Whether each call reads a clock.
    #[serde(default)]
    clock: bool,
    /// The work, or an empty text if it is that of the table's description.
    work: String,
    /// For each column, the figure of each round. Empty if it was not measured.
    cells: Vec<Vec<Figure>>,
}

/// The figure of a round.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum Figure {
    /// An average, or another single number.
    One(f64),
    /// The median or the mean of the turn's batches, and their 99th percentile.
    MiddleAndP99([f64; 2]),
}

impl Figure {
    fn middle(self) -> f64 {
        match self {
            Self::One(figure) | Self::MiddleAndP99([figure, _]) => figure,
        }
    }

    fn p99(self) -> Option<f64> {
        match self {
            Self::One(_) => None,
            Self::MiddleAndP99([_, p99]) => Some(p99),
        }
    }
}

impl Group {
    /// Returns the section of the group. `circumstances` are rows of a table.
    pub(crate) fn text(&self, circumstances: &str) -> String {
        let Self { group, tables } = self;
        let tables: String = tables.iter().map(Table::text).collect();
        let head = "\n\n| | measurement |\n|---|---|\n";
        format!("{group}\n\n### {group}/measurement{head}{circumstances}{tables}")
    }
}

impl Row {
    /// Returns whether this row does the same as another, so that a factor compares like with like.
    fn does_the_same_as(&self, other: &Self) -> bool {
        self.work == other.work && self.clock == other.clock && self.work != PART
    }
}

impl Table {
    /// Returns the table with the medians of the rounds.
    ///
    /// Rows that do the same follow each other, and are compared with the first of them.
    fn text(&self) -> String {
        let Self { name, unit, title, about, mean, columns, rows } = self;
        let kind_of = |row: &Row| {
            let first = rows.iter().position(|first| row.does_the_same_as(first));
            (row.work == PART, first)
        };
        let mut sorted: Vec<&Row> = rows.iter().collect();
        sorted.sort_by_key(|row| kind_of(row));
        let has_clocks = rows.iter().any(|row| row.clock);
        let has_works = rows.iter().any(|row| !row.work.is_empty());
        let has_p99 =
            rows.iter().flat_map(|row| &row.cells).flatten().any(|figure| figure.p99().is_some());
        let middle = if *mean { "mean" } else { "median" };
        let unit = if has_p99 { format!("{unit}: {middle} / p99") } else { unit.clone() };
        let heads = [(has_clocks, CLOCK), (has_works, WORK)];
        let heads = heads.iter().filter(|(is_shown, _)| *is_shown).map(|(_, head)| (*head, "---|"));
        let columns = heads.chain(columns.iter().map(|column| (column.as_str(), "---:|")));
        let (names, lines): (Vec<&str>, String) = columns.unzip();
        let names = names.join(" | ");
        let mut text =
            format!("\n### {name}\n\n{title}. {about}\n\n| {unit} | {names} |\n|---|{lines}\n");
        for row in sorted {
            text += &format!("| {} |", row.name);
            if has_clocks {
                text += if row.clock { " yes |" } else { " no |" };
            }
            if has_works {
                text += &format!(" {} |", row.work).replace("  |", " |");
            }
            let first = rows.iter().find(|first| row.does_the_same_as(first)).unwrap_or(row);
            for (column, rounds) in row.cells.iter().enumerate() {
                let base = first.cells.get(column).map_or(&[][..], Vec::as_slice);
                text += &match cell(rounds) {
                    Some(cell) if !core::ptr::eq(first, row) => {
                        let factors = rounds.iter().zip(base);
                        let factors = factors.map(|(one, base)| one.middle() / base.middle());
                        match median(factors) {
                            Some(factor) => format!(" {cell} ({} ×) |", number(factor)),
                            None => format!(" {cell} |"),
                        }
                    }
                    Some(cell) => format!(" {cell} |"),
                    None => " |".to_owned(),
                };
            }
            text += &" |".repeat(self.columns.len() - row.cells.len());
            text += "\n";
        }
        text
    }
}

/// Returns the medians of the rounds: `MIDDLE / P99`, or a number. Without a round, returns `None`.
fn cell(rounds: &[Figure]) -> Option<String> {
    let figure = number(median(rounds.iter().map(|figure| figure.middle()))?);
    let p99 = median(rounds.iter().filter_map(|figure| figure.p99()));
    Some(p99.map_or_else(|| figure.clone(), |p99| format!("{figure} / {}", number(p99))))
}

/// The begin of each section.
const SECTION: &str = "\n## ";

/// The text of [`FILE`].
pub(crate) struct Results(pub(crate) String);

impl Results {
    pub(crate) fn load(root: &Path) -> Result<Self> {
        fs::read_to_string(root.join(FILE)).map(Self).with_context(|| format!("cannot read {FILE}"))
    }

    pub(crate) fn save(&self, root: &Path) -> Result<()> {
        fs::write(root.join(FILE), &self.0).with_context(|| format!("cannot write {FILE}"))
    }

    /// Removes all groups.
    pub(crate) fn clear(&mut self) {
        self.0.truncate(self.0.find(SECTION).unwrap_or(self.0.len()));
    }

    /// Replaces the section of the same group, or appends it.
    pub(crate) fn put(&mut self, group: &str) {
        let head = group.lines().next();
        let mut sections: Vec<&str> = self.0.split(SECTION).collect();
        match sections.iter_mut().skip(1).find(|section| section.lines().next() == head) {
            Some(section) => *section = group,
            None => sections.push(group),
        }
        self.0 = sections.join(SECTION);
    }

    /// Returns whether a table was measured.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains(&format!("\n### {name}\n"))
    }

    /// Returns the rows of a table, the names of its columns first.
    pub(crate) fn table(&self, name: &str) -> Result<Vec<Vec<&str>>> {
        let found = self.0.split_once(&format!("\n### {name}\n"));
        let (_, table) = found.with_context(|| format!("{FILE} has no table {name}"))?;
        let lines = table.lines().take_while(|line| !line.starts_with('#'));
        let rows = lines.filter(|line| line.starts_with("| "));
        Ok(rows.map(cells).collect())
    }

    /// Returns the text in a column of a row, without the factor.
    fn text(&self, table: &str, row: &str, column: &str) -> Result<&str> {
        let rows = self.table(table)?;
        let index = rows[0].iter().rposition(|name| *name == column);
        let found =
            rows.iter().find(|other| other[0] == row).and_then(|row| row.get(index?).copied());
        let cell = found.with_context(|| format!("{table} has no {row} in {column}"))?;
        Ok(cell.strip_suffix(" ×)").and_then(|cell| cell.split(" (").next()).unwrap_or(cell))
    }

    /// Returns the text in a column of a row. If there are two figures, returns the first.
    pub(crate) fn cell(&self, table: &str, row: &str, column: &str) -> Result<&str> {
        let text = self.text(table, row, column)?;
        Ok(text.split_once(" / ").map_or(text, |(middle, _)| middle))
    }

    /// Returns the 99th percentile in a column of a row.
    pub(crate) fn p99(&self, table: &str, row: &str, column: &str) -> Result<&str> {
        let text = self.text(table, row, column)?;
        let (_, p99) =
            text.split_once(" / ").with_context(|| format!("{table} has no p99 of {row}"))?;
        Ok(p99)
    }

    /// Returns the figure in a column of a row, the first of two.
    pub(crate) fn figure(&self, table: &str, row: &str, column: &str) -> Result<f64> {
        let cell = self.cell(table, row, column)?;
        cell.replace(',', "")
            .parse()
            .with_context(|| format!("{table} has no figure of {row} in {column}"))
    }
}

/// Returns the cells of a row.
pub(crate) fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split('|').map(str::trim).collect()
}

/// Returns the median. For an even number of figures, it is the mean of the middle two.
fn median(figures: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    Some(sorted.get(sorted.len().checked_sub(1)? / 2)?.midpoint(*sorted.get(sorted.len() / 2)?))
}

/// Formats a figure with at least three significant digits.
fn number(figure: f64) -> String {
    if figure.abs() < 100.0 {
        return if figure.abs() < 10.0 { format!("{figure:.2}") } else { format!("{figure:.1}") };
    }
    let digits = format!("{figure:.0}").into_bytes();
    let groups = digits.rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = r#"{"group": "t", "tables": [{
        "name": "t/a", "unit": "ns", "title": "A title", "about": "About.", "columns": ["1", "1,000"],
        "rows": [
            {"name": "ours", "work": "", "cells": [[[10.0, 11.0], [30.0, 31.0], [20.0, 40.0]], [1234567.8]]},
            {"name": "a step", "work": "a part", "cells": [[5.0]]},
            {"name": "ours, clock", "work": "", "clock": true, "cells": [[], [2.0]]},
            {"name": "theirs", "work": "", "cells": [[25.0, 90.0, 60.0]]},
            {"name": "theirs, clock", "work": "", "clock": true, "cells": [[3.0], [3.0]]}
        ]}]}"#;

    fn text() -> String {
        serde_json::from_str::<Group>(GROUP).unwrap().text("| load | 1 |\n")
    }

    #[test]
    fn rows_are_compared_with_the_first_that_does_the_same() {
        assert_eq!(
            text(),
            "t\n\n### t/measurement\n\n| | measurement |\n|---|---|\n| load | 1 |\n\
             \n### t/a\n\nA title. About.\n\n\
             | ns: median / p99 | clock read | work | 1 | 1,000 |\n|---|---|---|---:|---:|\n\
             | ours | no | | 20.0 / 31.0 | 1,234,568 |\n\
             | theirs | no | | 60.0 (3.00 ×) | |\n\
             | ours, clock | yes | | | 2.00 |\n\
             | theirs, clock | yes | | 3.00 | 3.00 (1.50 ×) |\n\
             | a step | no | a part | 5.00 | |\n"
        );
    }

    #[test]
    fn row_without_its_work_is_an_error() {
        let without = GROUP.replace(r#""name": "ours", "work": "","#, r#""name": "ours","#);
        let error = serde_json::from_str::<Group>(&without).unwrap_err().to_string();
        assert!(error.starts_with("missing field `work`"), "{error}");
    }

    #[test]
    fn figures_are_read_back_from_the_text() {
        let mut results = Results(String::new());
        results.put(&text());
        assert_eq!(results.cell("t/measurement", "load", "measurement").unwrap(), "1");
        assert_eq!(results.cell("t/a", "theirs, clock", CLOCK).unwrap(), "yes");
        assert_eq!(results.cell("t/a", "theirs", "1").unwrap(), "60.0");
        assert_eq!(results.p99("t/a", "ours", "1").unwrap(), "31.0");
        assert_eq!(results.figure("t/a", "ours", "1").unwrap(), 20.0);
        assert_eq!(results.figure("t/a", "ours", "1,000").unwrap(), 1_234_568.0);
        assert!(results.figure("t/a", "theirs", "1,000").is_err());
        results.put("t\n");
        assert!(results.table("t/a").is_err());
    }
}
