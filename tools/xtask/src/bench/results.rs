//! What was measured, as it is kept in `benches/results.json`: every page is written from it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

const FILE: &str = "benches/results.json";

/// A whole measurement.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) machine: String,
    /// The machine's load before.
    pub(crate) load: f64,
    pub(crate) compiler: String,
    pub(crate) date: String,
    pub(crate) commit: String,
    /// How many turns each implementation had.
    pub(crate) rounds: u32,
    /// How long a turn was, in milliseconds.
    pub(crate) turn_ms: u32,
    pub(crate) groups: Vec<Group>,
}

/// Tables that are measured together.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) group: String,
    /// When it was measured, where that was apart from the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) apart: Option<Apart>,
    pub(crate) tables: Vec<Table>,
}

/// When and how a group was measured that is newer than the whole measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Apart {
    pub(crate) load: f64,
    pub(crate) date: String,
    pub(crate) commit: String,
}

/// Implementations in rows, and the sizes of their work in columns.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) unit: String,
    pub(crate) title: String,
    /// What each figure includes.
    pub(crate) about: String,
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Row>,
}

/// An implementation.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// For each column, the figure of each round. Empty if it was not measured.
    pub(crate) cells: Vec<Vec<f64>>,
}

impl Results {
    pub(crate) fn load(root: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(root.join(FILE)).with_context(|| format!("cannot read {FILE}"))?;
        serde_json::from_str(&text).with_context(|| format!("{FILE} is not a measurement"))
    }

    /// The table of a name.
    pub(crate) fn table(&self, name: &str) -> Result<&Table> {
        let mut tables = self.groups.iter().flat_map(|group| &group.tables);
        tables
            .find(|table| table.name == name)
            .with_context(|| format!("{FILE} has no table {name}"))
    }

    /// Replaces the group of the same name, or appends it.
    pub(crate) fn put(&mut self, group: Group) {
        match self.groups.iter_mut().find(|other| other.group == group.group) {
            Some(other) => *other = group,
            None => self.groups.push(group),
        }
    }

    pub(crate) fn save(&self) -> Result<()> {
        let text = serde_json::to_string(self)?.replace("{\"name\"", "\n{\"name\"");
        fs::write(FILE, text + "\n").with_context(|| format!("cannot write {FILE}"))
    }
}

impl Table {
    /// A table of figures that were taken once: columns, each with the same rows.
    pub(crate) fn once(head: [&str; 4], columns: &[(&str, Vec<(&str, f64)>)]) -> Self {
        let [name, unit, title, about] = head.map(str::to_owned);
        let rows = columns.first().map_or(&[][..], |(_, rows)| rows).iter().enumerate();
        let rows = rows.map(|(index, (name, _))| {
            let cells = columns.iter().map(|(_, figures)| vec![figures[index].1]).collect();
            Row { name: (*name).to_owned(), cells }
        });
        let columns = columns.iter().map(|(column, _)| (*column).to_owned()).collect();
        Self { name, unit, title, about, rows: rows.collect(), columns }
    }

    /// The figures of an implementation in a column, one for each round.
    fn rounds(&self, row: &str, column: &str) -> Result<&[f64]> {
        let missing = || format!("{} has no figure of {row} in column {column}", self.name);
        let index = self.columns.iter().position(|name| name == column).with_context(missing)?;
        let row = self.rows.iter().find(|other| other.name == row).with_context(missing)?;
        row.cells
            .get(index)
            .filter(|rounds| !rounds.is_empty())
            .map(Vec::as_slice)
            .with_context(missing)
    }

    /// The median of an implementation's figures in a column.
    pub(crate) fn figure(&self, row: &str, column: &str) -> Result<f64> {
        self.rounds(row, column).map(median)
    }

    /// How many times as long an implementation takes as another: the median of the rounds' ratios, so that what else the
    /// machine did in a round is in both.
    pub(crate) fn ratio(&self, row: &str, other: &str, column: &str) -> Result<f64> {
        let (row, other) = (self.rounds(row, column)?, self.rounds(other, column)?);
        Ok(median(&row.iter().zip(other).map(|(row, other)| row / other).collect::<Vec<_>>()))
    }

    /// How much longer an implementation takes than another: the median of the rounds' differences.
    pub(crate) fn difference(&self, row: &str, other: &str, column: &str) -> Result<f64> {
        let (row, other) = (self.rounds(row, column)?, self.rounds(other, column)?);
        Ok(median(&row.iter().zip(other).map(|(row, other)| row - other).collect::<Vec<_>>()))
    }
}

/// The one in the middle; of two, the middle between them.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted[..] {
        [] => f64::NAN,
        _ => sorted[(sorted.len() - 1) / 2].midpoint(sorted[sorted.len() / 2]),
    }
}
