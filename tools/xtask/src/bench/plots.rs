//! Plots of the results as SVG: a line for each implementation over columns, with a logarithmic
//! scale of time.

use core::fmt::Write as _;

use anyhow::Result;

use super::pages::number;
use super::results::Results;

/// The area of the lines in the plot, in pixels.
const LEFT: f64 = 70.0;
const TOP: f64 = 40.0;
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 300.0;
/// Colors that most color-blind readers distinguish.
const COLORS: [&str; 7] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555"];

/// A plot.
pub(crate) struct Plot {
    title: &'static str,
    /// The labels on the horizontal axis. An empty one makes a gap.
    columns: Vec<String>,
    /// The implementations with a figure for each column, if it was measured.
    lines: Vec<(String, Vec<Option<f64>>)>,
}

impl Plot {
    /// Plots the time of a check by the size of the table.
    pub(crate) fn by_size(results: &Results) -> Result<Self> {
        let table = results.table("limiter/uniform")?;
        let rows = [
            "keytally",
            "two governors",
            "two rate-net",
            "DashMap of counters",
            "Mutex<HashMap> of counters",
            "two pingora-limits, approximate",
        ];
        let line = |row: &&str| {
            let figure = |column: &String| table.figure(row, column).ok();
            ((*row).to_owned(), table.columns.iter().map(figure).collect())
        };
        let columns = table.columns.iter().map(|column| format!("{column} subjects")).collect();
        let title = "Nanoseconds per check, by the size of the table";
        Ok(Self { title, columns, lines: rows.iter().map(line).collect() })
    }

    /// Plots the time of a check by the number of threads.
    pub(crate) fn by_threads(results: &Results) -> Result<Self> {
        let kinds = [
            ("contention/one", "one subject"),
            ("contention/many", "own subjects"),
            ("contention/denied", "denied"),
        ];
        let rows = [
            "keytally",
            "two governors",
            "two rate-net",
            "DashMap of counters",
            "Mutex<HashMap> of counters",
        ];
        let mut plot = Self {
            title: "Nanoseconds per check in each thread, by the number of threads",
            columns: Vec::new(),
            lines: rows.map(|row| (row.to_owned(), Vec::new())).to_vec(),
        };
        for (name, label) in kinds {
            let table = results.table(name)?;
            for column in &table.columns {
                plot.columns.push(format!("{label}, {column}"));
                for (row, figures) in &mut plot.lines {
                    figures.push(table.figure(row, column).ok());
                }
            }
            plot.columns.push(String::new());
            plot.lines.iter_mut().for_each(|(_, figures)| figures.push(None));
        }
        Ok(plot)
    }

    /// Plots the percentiles of the time of a new subject.
    pub(crate) fn of_new_subjects(results: &Results) -> Result<Self> {
        let table = results.table("flood/latency")?;
        let line = |row: &super::results::Row| {
            let figure = |column: &String| table.figure(&row.name, column).ok();
            (row.name.clone(), table.columns.iter().map(figure).collect())
        };
        let rows = table.rows.iter().filter(|row| !row.name.contains("maps it"));
        let title = "Nanoseconds for a new subject, by percentile of the calls";
        Ok(Self { title, columns: table.columns.clone(), lines: rows.map(line).collect() })
    }

    /// Returns the plot as SVG.
    pub(crate) fn svg(&self) -> String {
        let figures = || self.lines.iter().flat_map(|(_, figures)| figures).flatten();
        let low = figures().fold(f64::MAX, |low, &figure| low.min(figure)).log10().floor();
        let high = figures().fold(f64::MIN, |high, &figure| high.max(figure)).log10().ceil();
        let y = |figure: f64| TOP + HEIGHT * (1.0 - (figure.log10() - low) / (high - low));
        let x = |index: usize| LEFT + WIDTH * (index as f64 + 0.5) / self.columns.len() as f64;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 800 420\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <title>{title}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"{LEFT}\" y=\"22\" font-size=\"14\">{title}</text>\n",
            title = self.title
        );
        let mut power = low;
        while power <= high {
            let figure = 10.0_f64.powf(power);
            let height = y(figure);
            // Writing to a String cannot fail.
            let _ = writeln!(
                svg,
                "<path d=\"M{LEFT} {height:.1}h{WIDTH}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                height + 4.0,
                axis_label(figure)
            );
            power += 1.0;
        }
        for (index, column) in self.columns.iter().enumerate() {
            // A comma separates the lines of a label.
            for (line, part) in column.split(", ").enumerate() {
                let down = TOP + HEIGHT + 20.0 + 15.0 * line as f64;
                let _ = writeln!(
                    svg,
                    "<text x=\"{:.1}\" y=\"{down:.1}\" text-anchor=\"middle\" font-size=\"11\">{part}</text>",
                    x(index)
                );
            }
        }
        for ((index, (name, figures)), color) in self.lines.iter().enumerate().zip(COLORS) {
            let mut path = String::new();
            let mut pen = "M";
            for (column, figure) in figures.iter().enumerate() {
                let Some(figure) = figure else {
                    pen = "M";
                    continue;
                };
                let _ = write!(path, "{pen}{:.1} {:.1}", x(column), y(*figure));
                pen = "L";
                let _ = writeln!(
                    svg,
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{color}\"><title>{}: {} ns</title></circle>",
                    x(column),
                    y(*figure),
                    escaped(name),
                    number(*figure)
                );
            }
            let _ = writeln!(
                svg,
                "<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\"/>"
            );
            let down = TOP + 14.0 + 22.0 * index as f64;
            let right = LEFT + WIDTH + 15.0;
            let _ = writeln!(
                svg,
                "<path d=\"M{right} {:.1}h18\" stroke=\"{color}\" stroke-width=\"3\"/><text x=\"{:.1}\" y=\"{down:.1}\">{}</text>",
                down - 4.0,
                right + 24.0,
                escaped(name)
            );
        }
        svg + "</svg>\n"
    }
}

/// Returns the label of a power of ten, in nanoseconds.
fn axis_label(figure: f64) -> String {
    match figure {
        figure if figure >= 1e6 => format!("{:.0} ms", figure / 1e6),
        figure if figure >= 1e3 => format!("{:.0} µs", figure / 1e3),
        figure => format!("{figure} ns"),
    }
}

/// Escapes a text for XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_figure_breaks_the_line() {
        let plot = Plot {
            title: "time",
            columns: ["a", "", "b", "c"].map(str::to_owned).to_vec(),
            lines: vec![("Map<K>".to_owned(), vec![Some(10.0), None, Some(100.0), Some(1000.0)])],
        };
        let svg = plot.svg();
        assert!(svg.contains("d=\"M130.0 340.0M370.0 190.0L490.0 40.0\""), "{svg}");
        assert!(
            svg.contains("Map&lt;K&gt;: 100 ns")
                && svg.contains(">1 µs<")
                && svg.contains(">10 ns<")
        );
    }
}
