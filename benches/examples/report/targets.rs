//! The targets of speed and memory. `benches/targets.txt` describes its format.

use core::fmt::Write as _;

use anyhow::{Context as _, Result};

use crate::results::Results;

pub(crate) const FILE: &str = "benches/targets.txt";

/// A target whose table and columns were measured.
struct Target<'a> {
    line: &'a str,
    /// The two sums, or the reason why one of them is unknown.
    sums: Result<(f64, f64)>,
}

impl Target<'_> {
    fn is_met(&self) -> bool {
        self.sums.as_ref().is_ok_and(|(least, most)| least <= most)
    }
}

/// Returns a line for each target of a measured column: whether it is met, and the figures. The
/// last line has the number of those that are met.
pub(crate) fn compare(results: &Results, targets: &str) -> Result<String> {
    let (mut text, targets) = (String::new(), measured(results, targets)?);
    for Target { line, sums } in &targets {
        match sums {
            Ok((least, most)) if least <= most => {
                writeln!(text, "met      {line} ({least:.2} <= {most:.2})")?;
            }
            Ok((least, most)) => writeln!(text, "NOT MET  {line} ({least:.2} > {most:.2})")?,
            Err(error) => writeln!(text, "unknown  {line} ({error})")?,
        }
    }
    writeln!(text, "{}", summary(&targets))?;
    Ok(text)
}

/// Returns the number of targets that are met, and a table of the others, for a page.
pub(crate) fn missed(results: &Results, targets: &str) -> Result<String> {
    let targets = measured(results, targets)?;
    let mut text = format!("{}\n\n", summary(&targets));
    text += "| table | not met | left side | right side |\n|---|---|---:|---:|\n";
    for target in targets.iter().filter(|target| !target.is_met()) {
        let (table, sums) = target.line.split_once(": ").context("a target has a table")?;
        let (least, most) = target.sums.as_ref().ok().copied().context("an unknown target")?;
        writeln!(text, "| {table} | `{sums}` | {least:.2} | {most:.2} |")?;
    }
    Ok(text)
}

fn summary(targets: &[Target<'_>]) -> String {
    let met = targets.iter().filter(|target| target.is_met()).count();
    format!("{met} of {} measured targets are met.", targets.len())
}

/// Returns the targets whose table and columns were measured.
fn measured<'a>(results: &Results, targets: &'a str) -> Result<Vec<Target<'a>>> {
    let mut found = Vec::new();
    for line in targets.lines().filter(|line| !line.starts_with('#')) {
        let parts =
            line.split_once(": ").and_then(|(table, sums)| Some((table, sums.split_once(" <= ")?)));
        let (table, (least, most)) = parts.with_context(|| format!("not a target: {line}"))?;
        let Ok(rows) = results.table(table) else { continue };
        let columns = [least, most].into_iter().flat_map(|sum| sum.split(" + "));
        let mut columns = columns.filter_map(|term| Some(term.split_once(" @ ")?.1));
        if columns.any(|column| !rows[0].contains(&column)) {
            continue;
        }
        let term = |term: &str| {
            let (factor, figure) = term.split_once(" × ").unwrap_or(("1", term));
            match figure.split_once(" @ ") {
                Some((row, column)) => {
                    Ok(factor.parse::<f64>()? * results.figure(table, row, column)?)
                }
                None => term.parse::<f64>().with_context(|| format!("not a number: {term}")),
            }
        };
        let sum = |terms: &str| terms.split(" + ").map(term).sum::<Result<f64>>();
        found.push(Target { line, sums: sum(least).and_then(|least| Ok((least, sum(most)?))) });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::root;

    #[test]
    fn every_target_names_measured_figures() {
        let targets = fs::read_to_string(root().join(FILE)).unwrap();
        let text = compare(&Results::load(root()).unwrap(), &targets).unwrap();
        let is_known = |line: &&str| line.starts_with("met ") || line.starts_with("NOT MET ");
        let known = text.lines().filter(is_known).count();
        assert_eq!(known, targets.lines().filter(|line| !line.starts_with('#')).count(), "{text}");
    }

    #[test]
    fn target_is_met_missed_or_unknown() {
        let mut results = Results(String::new());
        results.put("t\n\n### t/a\n\n| ns | 1 |\n|---|---:|\n| a | 5 / 9 |\n| b | 20 (4.00 ×) |\n");
        let verdict = |line| compare(&results, line).map(|text| text[..7].to_owned());
        assert_eq!(verdict("t/a: 3 × a @ 1 <= b @ 1").unwrap(), "met    ");
        assert_eq!(verdict("t/a: b @ 1 <= 2 × a @ 1 + 9").unwrap(), "NOT MET");
        assert_eq!(verdict("t/a: c @ 1 <= 9").unwrap(), "unknown");
        assert!(verdict("t/a: a @ 1").is_err());
    }

    #[test]
    fn targets_of_unmeasured_columns_are_left_out() {
        let mut results = Results(String::new());
        results.put("t\n\n### t/a\n\n| ns | 1 |\n|---|---:|\n| a | 5 |\n");
        let targets = "t/a: a @ 1 <= 9\nt/a: a @ 1 <= 4\nt/a: a @ 1 <= a @ 2\nt/b: a @ 1 <= 9\n";
        let text = compare(&results, targets).unwrap();
        assert_eq!(text.lines().last(), Some("1 of 2 measured targets are met."));
        assert_eq!(
            missed(&results, targets).unwrap(),
            "1 of 2 measured targets are met.\n\n\
             | table | not met | left side | right side |\n|---|---|---:|---:|\n\
             | t/a | `a @ 1 <= 4` | 5.00 | 4.00 |\n"
        );
    }
}
