//! Plots of the results as SVG: a line for each implementation over the columns of tables, with a
//! logarithmic scale of time.

use anyhow::{Context as _, Result, ensure};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::results::{CLOCK, PART, Results, WORK};

/// Colors with contrast on light and dark backgrounds. More implementations repeat them with
/// another marker.
const COLORS: [RGBColor; 8] = [
    RGBColor(0x3b, 0x82, 0xc4),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x15, 0x9c, 0x74),
    RGBColor(0xc0, 0x60, 0x9a),
    RGBColor(0xc9, 0x8a, 0x00),
    RGBColor(0x8e, 0x6b, 0xd1),
    RGBColor(0x7f, 0x7f, 0x7f),
    RGBColor(0xa0, 0x52, 0x2d),
];

/// The colors of everything else on a light page.
const BACKGROUND: RGBColor = RGBColor(0xff, 0xff, 0xff);
const TEXT: RGBColor = RGBColor(0x1f, 0x23, 0x28);
const GRID: RGBColor = RGBColor(0xd0, 0xd7, 0xde);

/// The style sheet that replaces these colors on a dark page.
const DARK: &str = "<style>@media(prefers-color-scheme:dark){\
    [fill=\"#FFFFFF\"]{fill:#0d1117}[fill=\"#1F2328\"]{fill:#e6edf3}\
    [stroke=\"#D0D7DE\"]{stroke:#30363d}[stroke=\"#1F2328\"]{stroke:#e6edf3}}</style>\n";

/// The sizes in pixels: of the whole, of the part with the lines, and of the texts.
const SIZE: (u32, u32) = (880, 420);
const WIDTH: u32 = 570;
const FONT: (&str, u32) = ("sans-serif", 15);

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

/// A column of a plot: the table and its column, or a gap between two tables.
type Column<'a> = Option<(&'a str, &'a str)>;

impl Plot<'_> {
    fn svg(&self, results: &Results) -> Result<String> {
        let mut columns: Vec<Column<'_>> = Vec::new();
        for (index, (table, _)) in self.groups.iter().enumerate() {
            columns.extend((index > 0).then_some(None));
            let names = results.table(table)?.remove(0).into_iter().skip(1);
            let names = names.filter(|name| ![CLOCK, WORK].contains(name));
            columns.extend(names.map(|name| Some((*table, name))));
        }
        let figures = |row: &&str| -> Vec<Option<f64>> {
            let figure = |(table, column)| results.figure(table, row, column).ok();
            columns.iter().map(|column| column.and_then(figure)).collect()
        };
        let lines: Vec<Vec<Option<f64>>> = self.rows.iter().map(figures).collect();
        for (row, figures) in self.rows.iter().zip(&lines) {
            ensure!(figures.iter().any(Option::is_some), "there is no figure of {row}");
        }
        for (table, _) in &self.groups {
            self.assert_same_clock(results, table)?;
        }
        let mut svg = String::new();
        self.draw(&columns, &lines, SVGBackend::with_string(&mut svg, SIZE))?;
        let (head, rest) = svg.split_once('\n').context("an SVG has lines")?;
        Ok(format!("{head}\n{DARK}{rest}"))
    }

    /// Fails if some implementations read a clock and others do not, except for parts of the work.
    fn assert_same_clock(&self, results: &Results, table: &str) -> Result<()> {
        let whole =
            self.rows.iter().filter(|row| results.cell(table, row, WORK).ok() != Some(PART));
        let mut clocks = whole.filter_map(|row| results.cell(table, row, CLOCK).ok());
        let first = clocks.next();
        ensure!(
            clocks.all(|clock| Some(clock) == first),
            "rows of {table} differ in whether they read a clock"
        );
        Ok(())
    }

    fn draw(
        &self,
        columns: &[Column<'_>],
        lines: &[Vec<Option<f64>>],
        backend: SVGBackend<'_>,
    ) -> Result<()> {
        let area = backend.into_drawing_area();
        area.fill(&BACKGROUND)?;
        let font = FONT.into_font().color(&TEXT);
        let (chart_area, legend) = area.split_horizontally(WIDTH);

        let powers = || lines.iter().flatten().flatten().map(|figure| figure.log10());
        let low = 10_f64.powf(powers().fold(f64::MAX, f64::min).floor());
        let high = 10_f64.powf(powers().fold(f64::MIN, f64::max).ceil());
        let title_style = ("sans-serif", 18).into_font().color(&TEXT);
        let chart_area = chart_area.margin(8, 0, 0, 0).titled(self.title, title_style)?;
        let mut chart = ChartBuilder::on(&chart_area)
            .margin(14)
            .x_label_area_size(50)
            .y_label_area_size(64)
            .build_cartesian_2d((0..columns.len() - 1).into_segmented(), (low..high).log_scale())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(GRID)
            .label_style(font.clone())
            .x_labels(columns.len())
            .x_label_formatter(&|index| {
                match index {
                    SegmentValue::CenterOf(index) => {
                        columns.get(*index).and_then(|column| *column).map_or("", |(_, name)| name)
                    }
                    _ => "",
                }
                .to_owned()
            })
            .y_label_formatter(&|ns| time(*ns))
            .draw()?;

        // A label below the columns of each table.
        let label_style = font.clone().pos(Pos::new(HPos::Center, VPos::Top));
        for (table, label) in &self.groups {
            let of_table = |column: &Column<'_>| column.is_some_and(|(name, _)| name == *table);
            let first = columns.iter().position(of_table).unwrap_or_default();
            let last = columns.iter().rposition(of_table).unwrap_or_default();
            let [first, last] = [first, last]
                .map(|index| chart.backend_coord(&(SegmentValue::CenterOf(index), low)));
            let middle = (first.0.midpoint(last.0), first.1 + 30);
            area.draw(&Text::new(*label, middle, label_style.clone()))?;
        }

        // The first implementation is drawn last, above the others.
        for (index, figures) in lines.iter().enumerate().rev() {
            let style = style(index);
            let points = figures.iter().enumerate().map(|(column, figure)| {
                figure.map(|figure| (SegmentValue::CenterOf(column), figure))
            });
            let points: Vec<Option<_>> = points.collect();
            for line in points.split(Option::is_none) {
                let line: Vec<_> = line.iter().flatten().cloned().collect();
                chart.draw_series(LineSeries::new(line.clone(), style))?;
                for point in line {
                    let (x, y) = chart.backend_coord(&point);
                    marker(&area, index, (x, y))?;
                }
            }
        }

        let label_style = font.pos(Pos::new(HPos::Left, VPos::Center));
        let left = i32::try_from(WIDTH)? + 8;
        for (index, row) in self.rows.iter().enumerate() {
            let y = 60 + 26 * i32::try_from(index)?;
            area.draw(&PathElement::new([(left, y), (left + 36, y)], style(index)))?;
            marker(&area, index, (left + 18, y))?;
            legend.draw(&Text::new(*row, (52, y), label_style.clone()))?;
        }
        area.present()?;
        Ok(())
    }
}

/// Returns the style of an implementation's line. Earlier ones are thicker, so that they remain
/// visible below others.
fn style(index: usize) -> ShapeStyle {
    COLORS[index % COLORS.len()].stroke_width(if index == 0 { 4 } else { 2 })
}

/// Draws the marker of an implementation's points. Neighbors in the legend have different shapes.
fn marker(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    index: usize,
    point: (i32, i32),
) -> Result<()> {
    let color = COLORS[index % COLORS.len()];
    match index % 4 {
        0 => area.draw(&Circle::new(point, 5, color.filled()))?,
        1 => area.draw(&TriangleMarker::new(point, 7, color.filled()))?,
        2 => area.draw(&Cross::new(point, 5, color.stroke_width(2)))?,
        _ => area.draw(&Circle::new(point, 5, color.stroke_width(2)))?,
    }
    Ok(())
}

/// Returns the label of a time in nanoseconds.
fn time(ns: f64) -> String {
    let (unit, ns_of_unit) = match ns {
        1e9.. => ("s", 1e9),
        1e6.. => ("ms", 1e6),
        1e3.. => ("µs", 1e3),
        _ => ("ns", 1.0),
    };
    format!("{} {unit}", ns / ns_of_unit)
}
