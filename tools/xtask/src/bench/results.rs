//! The results, as stored in `benches/results.json`. All pages are written from this file.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

pub(crate) const FILE: &str = "benches/results.json";

/// The results of all groups, and the circumstances of the measurement.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) machine: String,
    /// The load of the machine before the measurement: the average number of runnable threads.
    pub(crate) load: f64,
    pub(crate) compiler: String,
    pub(crate) date: String,
    pub(crate) commit: String,
    /// The number of turns of each implementation.
    pub(crate) rounds: u32,
    /// The length of a turn, in milliseconds.
    pub(crate) turn_ms: u32,
    pub(crate) groups: Vec<Group>,
}

/// Tables that are measured together.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) group: String,
    /// The circumstances of its measurement, if it was measured separately from the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) apart: Option<Apart>,
    pub(crate) tables: Vec<Table>,
}

/// The circumstances in which a group was measured separately.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Apart {
    pub(crate) load: f64,
    pub(crate) date: String,
    pub(crate) commit: String,
}

/// A table of results. Its rows are implementations, and its columns are sizes or other conditions.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) unit: String,
    pub(crate) title: String,
    /// A description of the work that each figure measures.
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

    /// Returns the table of this name.
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
    /// Returns a table with one round, from its name, unit, title and description, and from columns
    /// with the same rows.
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

    /// Returns the figures of an implementation in a column, one for each round.
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

    /// Returns the median of an implementation's figures in a column.
    pub(crate) fn figure(&self, row: &str, column: &str) -> Result<f64> {
        self.rounds(row, column).map(median)
    }

    /// Returns how many times as long an implementation takes as another: the median of the ratios
    /// in each round. Other load on the machine during a round affects both.
    pub(crate) fn ratio(&self, row: &str, other: &str, column: &str) -> Result<f64> {
        let (row, other) = (self.rounds(row, column)?, self.rounds(other, column)?);
        Ok(median(&row.iter().zip(other).map(|(row, other)| row / other).collect::<Vec<_>>()))
    }

    /// Returns how much longer an implementation takes than another: the median of the differences
    /// in each round.
    pub(crate) fn difference(&self, row: &str, other: &str, column: &str) -> Result<f64> {
        let (row, other) = (self.rounds(row, column)?, self.rounds(other, column)?);
        Ok(median(&row.iter().zip(other).map(|(row, other)| row - other).collect::<Vec<_>>()))
    }
}

/// Returns the median. For an even number of figures, it is the mean of the middle two.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted[..] {
        [] => f64::NAN,
        _ => sorted[(sorted.len() - 1) / 2].midpoint(sorted[sorted.len() / 2]),
    }
}
