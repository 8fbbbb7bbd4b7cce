//! The results: `benches/RESULTS.md`, which has a section for each group, and in it a table for
//! each benchmark. Every other page with results is written from this file.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// The name of the column that states whether an implementation reads a clock.
pub(crate) const CLOCK: &str = "clock read";

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
    /// For each column, the figure of each round. Empty if it was not measured.
    cells: Vec<Vec<f64>>,
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

impl Table {
    /// Returns the table with the medians of the rounds. Other rows are compared with the first.
    fn text(&self) -> String {
        let Self { name, unit, title, about, columns, rows } = self;
        let has_clocks = rows.iter().any(|row| row.clock);
        let names: String = columns.iter().map(|column| format!(" {column} |")).collect();
        let (clock, line) =
            if has_clocks { (format!(" {CLOCK} |"), "---|") } else { (String::new(), "") };
        let lines = "---:|".repeat(columns.len());
        let mut text = format!(
            "\n### {name}\n\n{title}. {about}\n\n| {unit} |{clock}{names}\n|---|{line}{lines}\n"
        );
        for (index, row) in rows.iter().enumerate() {
            text += &format!("| {} |", row.name);
            if has_clocks {
                text += if row.clock { " yes |" } else { " no |" };
            }
            for (rounds, base) in row.cells.iter().zip(&rows[0].cells) {
                let ratio = median(rounds.iter().zip(base).map(|(figure, base)| figure / base));
                text += &match (median(rounds.iter().copied()), ratio) {
                    (None, _) => " |".to_owned(),
                    (Some(figure), Some(ratio)) if index > 0 => {
                        format!(" {} ({} ×) |", number(figure), number(ratio))
                    }
                    (Some(figure), _) => format!(" {} |", number(figure)),
                };
            }
            text += &" |".repeat(columns.len() - row.cells.len());
            text += "\n";
        }
        text
    }
}

/// The begin of each section.
const SECTION: &str = "\n## ";

/// The text of [`FILE`].
pub(crate) struct Results(pub(crate) String);

impl Results {
    pub(crate) fn load(root: &Path) -> Result<Self> {
        fs::read_to_string(root.join(FILE)).map(Self).with_context(|| format!("cannot read {FILE}"))
    }

    pub(crate) fn save(&self) -> Result<()> {
        fs::write(FILE, &self.0).with_context(|| format!("cannot write {FILE}"))
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

    /// Returns the rows of a table, the names of its columns first.
    pub(crate) fn table(&self, name: &str) -> Result<Vec<Vec<&str>>> {
        let found = self.0.split_once(&format!("\n### {name}\n"));
        let (_, table) = found.with_context(|| format!("{FILE} has no table {name}"))?;
        let lines = table.lines().take_while(|line| !line.starts_with('#'));
        let rows = lines.filter(|line| line.starts_with("| "));
        Ok(rows.map(cells).collect())
    }

    /// Returns the text in a column of a row, without the comparison with the first row.
    pub(crate) fn cell(&self, table: &str, row: &str, column: &str) -> Result<&str> {
        let rows = self.table(table)?;
        let index = rows[0].iter().rposition(|name| *name == column);
        let found =
            rows.iter().find(|other| other[0] == row).and_then(|row| row.get(index?).copied());
        let cell = found.with_context(|| format!("{table} has no {row} in {column}"))?;
        Ok(cell.strip_suffix(" ×)").and_then(|cell| cell.split(" (").next()).unwrap_or(cell))
    }

    /// Returns the figure in a column of a row.
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
            {"name": "ours", "cells": [[10.0, 30.0, 20.0], [1234567.8]]},
            {"name": "theirs", "clock": true, "cells": [[25.0, 90.0, 60.0]]}
        ]}]}"#;

    #[test]
    fn rows_are_compared_with_the_first() {
        let text = serde_json::from_str::<Group>(GROUP).unwrap().text("| load | 1 |\n");
        assert_eq!(
            text,
            "t\n\n### t/measurement\n\n| | measurement |\n|---|---|\n| load | 1 |\n\
             \n### t/a\n\nA title. About.\n\n| ns | clock read | 1 | 1,000 |\n|---|---|---:|---:|\n\
             | ours | no | 20.0 | 1,234,568 |\n| theirs | yes | 60.0 (3.00 ×) | |\n"
        );
    }

    #[test]
    fn figures_are_read_back_from_the_text() {
        let mut results = Results(String::new());
        results.put(&serde_json::from_str::<Group>(GROUP).unwrap().text("| load | 1 |\n"));
        assert_eq!(results.cell("t/measurement", "load", "measurement").unwrap(), "1");
        assert_eq!(results.cell("t/a", "theirs", CLOCK).unwrap(), "yes");
        assert_eq!(results.cell("t/a", "theirs", "1").unwrap(), "60.0");
        assert_eq!(results.figure("t/a", "ours", "1,000").unwrap(), 1_234_568.0);
        assert!(results.figure("t/a", "theirs", "1,000").is_err());
        results.put("t\n");
        assert!(results.table("t/a").is_err());
    }
}
