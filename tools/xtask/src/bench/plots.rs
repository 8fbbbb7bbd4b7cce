//! Plots of the results as SVG: a line for each implementation over the columns of tables, with a
//! logarithmic scale of time.

use anyhow::{Context as _, Result, ensure};

use super::results::{CLOCK, Results};

/// Colors with contrast on light and dark backgrounds. More implementations repeat them.
const COLORS: [&str; 8] =
    ["#3b82c4", "#d55e00", "#159c74", "#c0609a", "#c98a00", "#8e6bd1", "#7f7f7f", "#a0522d"];

/// The colors of everything else.
const STYLE: &str = "<style>rect{fill:#fff}text{fill:#1f2328}.grid{stroke:#d0d7de}\n\
    @media(prefers-color-scheme:dark){rect{fill:#0d1117}text{fill:#e6edf3}.grid{stroke:#30363d}}</style>\n";

// The area of the lines, in pixels.
const LEFT: f64 = 70.0;
const TOP: f64 = 40.0;
const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 300.0;

/// Returns the path and the text of each plot of a page in `docs`.
///
/// The page has a comment before each picture: in a line `TABLE = LABEL; …`, in another the names
/// of the rows. The text of the picture becomes the title.
pub(crate) fn all(page: &str, results: &Results) -> Result<Vec<(String, String)>> {
    let plots = page.split("<!-- plot\n").skip(1).map(|text| plot(text).context("not a plot"));
    plots.map(|plot| plot.and_then(|(path, plot)| Ok((path, plot.svg(results)?)))).collect()
}

fn plot(text: &str) -> Option<(String, Plot<'_>)> {
    let (comment, rest) = text.split_once("\n-->\n![")?;
    let (groups, rows) = comment.split_once('\n')?;
    let (title, rest) = rest.split_once("](")?;
    let groups = groups.split("; ").map(|group| group.split_once(" = ")).collect::<Option<_>>()?;
    let path = format!("docs/{}", rest.split_once(')')?.0);
    Some((path, Plot { title, groups, rows: rows.split("; ").collect() }))
}

/// A plot.
struct Plot<'a> {
    title: &'a str,
    /// The tables, and a label for the columns of each.
    groups: Vec<(&'a str, &'a str)>,
    /// The implementations. One without a figure in a column has no point there.
    rows: Vec<&'a str>,
}

impl Plot<'_> {
    fn svg(&self, results: &Results) -> Result<String> {
        // Between the columns of two tables is a gap, `None`.
        let mut columns = Vec::new();
        for (table, _) in &self.groups {
            let names = results.table(table)?.remove(0).into_iter().skip(1);
            columns.extend(names.filter(|name| *name != CLOCK).map(|name| Some((*table, name))));
            columns.push(None);
        }
        let figures = |row: &&str| -> Vec<Option<f64>> {
            let figure = |(table, column)| results.figure(table, row, column).ok();
            columns.iter().map(|column| column.and_then(figure)).collect()
        };
        let lines: Vec<Vec<Option<f64>>> = self.rows.iter().map(figures).collect();
        let powers = || lines.iter().flatten().flatten().map(|figure| figure.log10());
        let low = powers().fold(f64::MAX, f64::min).floor();
        let high = powers().fold(f64::MIN, f64::max).ceil();
        let y = |figure: f64| TOP + HEIGHT * (high - figure.log10()) / (high - low);
        let x = |index: usize| LEFT + WIDTH * (index as f64 + 0.5) / (columns.len() - 1) as f64;
        let text = |x: f64, y: f64, anchor: &str, text: &str| {
            let text = text.replace('<', "&lt;");
            format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>\n")
        };

        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 830 400\" \
            font-family=\"sans-serif\" font-size=\"12\">\n{STYLE}<rect width=\"100%\" height=\"100%\"/>\n"
        );
        svg += &text(LEFT, 22.0, "start", self.title);
        for power in core::iter::successors(Some(low), |power| Some(power + 1.0))
            .take_while(|power| *power <= high)
        {
            let height = y(10_f64.powf(power));
            svg += &format!("<path class=\"grid\" d=\"M{LEFT} {height:.1}h{WIDTH}\"/>");
            svg += &text(LEFT - 8.0, height + 4.0, "end", &time(power));
        }
        for (index, column) in columns.iter().enumerate() {
            svg += &column.map_or_else(String::new, |(_, name)| {
                text(x(index), TOP + HEIGHT + 20.0, "middle", name)
            });
        }
        for (table, label) in &self.groups {
            let of_table =
                |column: &Option<(&str, &str)>| column.is_some_and(|(name, _)| name == *table);
            let first = columns.iter().position(of_table).unwrap_or_default();
            let last = columns.iter().rposition(of_table).unwrap_or_default();
            svg += &text(x(first).midpoint(x(last)), TOP + HEIGHT + 40.0, "middle", label);
        }
        for (index, (row, figures)) in self.rows.iter().zip(&lines).enumerate() {
            // Lines get thinner, and every other one is dashed. So none hides another.
            let width = 1.5 + 0.6 * (self.rows.len() - 1 - index) as f64;
            let dashes = if index % 2 == 0 { "none" } else { "8 6" };
            let color = COLORS[index % COLORS.len()];
            let (right, down) = (LEFT + WIDTH + 15.0, TOP + 10.0 + 22.0 * index as f64);
            ensure!(figures.iter().any(Option::is_some), "there is no figure of {row}");
            let (mut path, mut pen) = (format!("M{right} {down}h28"), "M");
            for (column, figure) in figures.iter().enumerate() {
                if let Some(figure) = figure {
                    let (x, y) = (x(column), y(*figure));
                    path += &format!("{pen}{x:.1} {y:.1}");
                    svg += &format!(
                        "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{:.1}\" fill=\"{color}\"/>",
                        2.0 + width / 2.0
                    );
                }
                pen = if figure.is_some() { "L" } else { "M" };
            }
            svg += &format!(
                "<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"{width:.1}\" stroke-dasharray=\"{dashes}\"/>\n"
            );
            svg += &text(right + 36.0, down + 4.0, "start", row);
        }
        Ok(svg + "</svg>\n")
    }
}

/// Returns the label of a power of ten in nanoseconds.
fn time(power: f64) -> String {
    let (unit, of_unit) = match power {
        9.0.. => ("s", 9.0),
        6.0.. => ("ms", 6.0),
        3.0.. => ("µs", 3.0),
        _ => ("ns", 0.0),
    };
    format!("{} {unit}", 10_f64.powf(power - of_unit))
}
