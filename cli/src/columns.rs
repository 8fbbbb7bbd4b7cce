//! Text in columns, each as wide as its widest cell.

use std::io::{self, Write};

/// The side of a column that its texts are aligned to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// The left one, for text.
    Left,
    /// The right one, for numbers.
    Right,
}

/// Rows of cells, the first of which holds the headings.
#[derive(Debug)]
pub struct Columns {
    aligns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Columns {
    /// Returns columns with these headings and no rows.
    pub fn new(columns: impl IntoIterator<Item = (String, Align)>) -> Self {
        let (headings, aligns) = columns.into_iter().unzip();
        Self { aligns, rows: vec![headings] }
    }

    /// Adds a row.
    pub fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// Writes the headings and the rows, one line each.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let width_of = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|text| width(text))
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.aligns.len()).map(width_of).collect();
        for row in &self.rows {
            let mut line = String::new();
            for ((text, align), column) in row.iter().zip(&self.aligns).zip(&widths) {
                let blanks = column.saturating_sub(width(text));
                match align {
                    Align::Left => line.extend([text, " ".repeat(blanks).as_str(), "  "]),
                    Align::Right => line.extend([" ".repeat(blanks).as_str(), text, "  "]),
                }
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn column_is_as_wide_as_its_widest_text() {
        let mut columns =
            Columns::new([("KEY".to_owned(), Align::Left), ("N".to_owned(), Align::Right)]);
        columns.push(vec!["kt_…9".to_owned(), "7".to_owned()]);
        columns.push(vec!["a".to_owned(), "1234".to_owned()]);
        let mut out = Vec::new();
        columns.write(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "KEY       N\nkt_…9     7\na      1234\n");
    }
}
