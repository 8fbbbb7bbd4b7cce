//! The histogram of the times as SVG, with a curve for each kind of key.

use core::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 20.0;
const TOP: f64 = 20.0;
/// Colors that most readers can distinguish (Okabe and Ito).
const COLORS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// Returns the histogram of the samples of each kind, without the slowest 1.5 %.
pub(crate) fn histogram(curves: &[(&str, &[u32])]) -> String {
    let mut sorted: Vec<u32> =
        curves.iter().flat_map(|(_, times)| times.iter().step_by(7).copied()).collect();
    sorted.sort_unstable();
    let (from, to) = (sorted[0].saturating_sub(5), sorted[sorted.len() * 985 / 1000] + 5);
    let bins = usize::try_from(to - from).expect("a range of `u32`").clamp(1, 160);
    let step = f64::from(to - from) / bins as f64;
    let counts: Vec<Vec<f64>> = curves
        .iter()
        .map(|(_, times)| {
            let mut counts = vec![0.0; bins];
            for &time in times.iter().filter(|time| (from..to).contains(*time)) {
                let bin = (f64::from(time - from) / step) as usize;
                counts[bin.min(bins - 1)] += 1.0 / times.len() as f64;
            }
            counts
        })
        .collect();
    let highest = counts.iter().flatten().fold(0.0f64, |most, &count| most.max(count));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 800 {:.0}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>Time of a check, by the kind of key</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        HEIGHT + 60.0
    );
    let x = |time: f64| LEFT + (time - f64::from(from)) / f64::from(to - from) * WIDTH;
    let base = TOP + HEIGHT;
    let _ = writeln!(svg, "<path d=\"M{LEFT} {base}h{WIDTH}\" stroke=\"#444\"/>");
    let tick = [10, 20, 50, 100, 200, 500, 1000]
        .into_iter()
        .find(|tick| (to - from) / tick <= 12)
        .unwrap_or(5000);
    for time in (from.next_multiple_of(tick)..to).step_by(tick as usize) {
        let at = x(f64::from(time));
        let _ = writeln!(
            svg,
            "<path d=\"M{at:.1} {base}v5\" stroke=\"#444\"/><text x=\"{at:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{time} ns</text>",
            base + 20.0
        );
    }
    for (((name, _), counts), (row, color)) in
        curves.iter().zip(&counts).zip(COLORS.iter().enumerate())
    {
        let mut path = String::new();
        for (bin, count) in counts.iter().enumerate() {
            let (at, up) =
                (x(f64::from(from) + (bin as f64 + 0.5) * step), base - count / highest * HEIGHT);
            let _ = write!(path, "{}{at:.1} {up:.1}", if bin == 0 { "M" } else { "L" });
        }
        let y = TOP + 14.0 + 18.0 * row as f64;
        let _ = writeln!(
            svg,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\"/>"
        );
        let _ = writeln!(
            svg,
            "<path d=\"M560 {:.0}h20\" stroke=\"{color}\" stroke-width=\"3\"/><text x=\"588\" y=\"{y:.0}\">{name}</text>",
            y - 4.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}
