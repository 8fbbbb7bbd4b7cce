//! The results as tables.

use core::fmt::Write as _;
use std::path::Path;

use anyhow::Result;

use super::results::{Group, Results, Table};
use super::write_if_new;

const RESULTS: &str = "benches/RESULTS.md";

pub(crate) fn write(results: &Results) -> Result<()> {
    write_if_new(Path::new(RESULTS), &results_page(results))
}

fn results_page(results: &Results) -> String {
    let mut page = format!(
        "<!-- Written by `cargo xtask bench`. -->\n\
         # Results\n\n\
         | | |\n|---|---|\n| machine | {} |\n| date | {} |\n| commit | {} |\n| compiler | {} |\n| turns | {} of {} ms each |\n\
         | load before | {:.1} |\n",
        results.machine,
        results.date,
        results.commit,
        results.compiler,
        results.rounds,
        results.turn_ms,
        results.load
    );
    for group in &results.groups {
        page += "\n";
        page += &self::group(group);
    }
    page
}

/// The tables of a group.
pub(crate) fn group(group: &Group) -> String {
    let mut text = format!("## {}\n", group.group);
    for table in &group.tables {
        text += "\n";
        text += &self::table(table);
    }
    text
}

/// A table; the first row is what the others are compared with.
fn table(table: &Table) -> String {
    let mut text = format!("### {}\n\n{}\n\n| {} |", table.title, table.about, table.unit);
    for column in &table.columns {
        let _ = write!(text, " {column} |");
    }
    text += "\n|---|";
    text += &"---:|".repeat(table.columns.len());
    let base = table.rows.first().map(|row| row.name.as_str()).unwrap_or_default();
    for row in &table.rows {
        let _ = write!(text, "\n| {} |", row.name);
        for column in &table.columns {
            let Ok(figure) = table.figure(&row.name, column) else {
                text += " |";
                continue;
            };
            let _ = match table.ratio(&row.name, base, column) {
                Ok(ratio) if row.name != base => write!(text, " {} ({} ×) |", number(figure), number(ratio)),
                _ => write!(text, " **{}** |", number(figure)),
            };
        }
    }
    text + "\n"
}

/// A figure with as many digits as it is good for.
pub(crate) fn number(figure: f64) -> String {
    if figure.abs() < 10.0 {
        return format!("{figure:.2}");
    }
    if figure.abs() < 100.0 {
        return format!("{figure:.1}");
    }
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
