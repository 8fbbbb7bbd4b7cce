//! The targets of speed and memory. `benches/targets.txt` describes its format.

use anyhow::{Context as _, Result};

use crate::results::Results;

pub(crate) const FILE: &str = "benches/targets.txt";

/// Returns a line for each target of a measured table: whether it is met, and the figures.
pub(crate) fn compare(results: &Results, targets: &str) -> Result<String> {
    let mut text = String::new();
    for line in targets.lines().filter(|line| !line.starts_with('#')) {
        let parts =
            line.split_once(": ").and_then(|(table, sums)| Some((table, sums.split_once(" <= ")?)));
        let (table, (least, most)) = parts.with_context(|| format!("not a target: {line}"))?;
        if results.table(table).is_err() {
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
        text += &match (sum(least), sum(most)) {
            (Ok(least), Ok(most)) if least <= most => {
                format!("met      {line} ({least:.2} <= {most:.2})\n")
            }
            (Ok(least), Ok(most)) => format!("NOT MET  {line} ({least:.2} > {most:.2})\n"),
            (Err(error), _) | (_, Err(error)) => format!("unknown  {line} ({error})\n"),
        };
    }
    Ok(text)
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
        let known = text.lines().filter(|line| !line.starts_with("unknown")).count();
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
}
