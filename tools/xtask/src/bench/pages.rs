//! The pages and tables with the results.

use core::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result};

use super::plots::Plot;
use super::results::{Apart, Group, Results, Table};
use super::targets;

/// The path of a page, and a function that returns its new content from the results and the old
/// content. Some pages are generated only between two marks.
type Page = (&'static str, fn(&Results, &str) -> Result<String>);

const PAGES: &[Page] = &[
    ("benches/RESULTS.md", |results, _| results_page(results)),
    ("docs/PERFORMANCE.md", |results, old| {
        let page = between_marks(old, "measurement", &measurement(results))?;
        let page = between_marks(&page, "targets", &targets::table(results)?)?;
        let page = between_marks(&page, "bounds", &bounds(results)?)?;
        let page = between_marks(&page, "profile", &profile(results)?)?;
        between_marks(&page, "projection", &projection(results)?)
    }),
    ("README.md", |results, old| between_marks(old, "speed", &speed(results)?)),
    ("docs/speed-size.svg", |results, _| Ok(Plot::by_size(results)?.svg())),
    ("docs/speed-threads.svg", |results, _| Ok(Plot::by_threads(results)?.svg())),
    ("docs/speed-flood.svg", |results, _| Ok(Plot::of_new_subjects(results)?.svg())),
];

/// Writes the pages whose content changes.
pub(crate) fn write(results: &Results) -> Result<()> {
    for (path, page) in PAGES {
        let old = fs::read_to_string(path).unwrap_or_default();
        let new = page(results, &old).with_context(|| format!("cannot write {path}"))?;
        if new != old {
            fs::write(path, new)?;
            println!("wrote {path}");
        }
    }
    Ok(())
}

/// Replaces the text between the two marks `name` of a page.
fn between_marks(page: &str, name: &str, text: &str) -> Result<String> {
    let marks = [
        format!("<!-- {name}: written by `cargo xtask bench` -->\n"),
        format!("<!-- end of {name} -->"),
    ];
    let missing = || format!("there is no part marked {name}");
    let (before, rest) = page.split_once(&marks[0]).with_context(missing)?;
    let (_, after) = rest.split_once(&marks[1]).with_context(missing)?;
    Ok(format!("{before}{}{text}{}{after}", marks[0], marks[1]))
}

fn results_page(results: &Results) -> Result<String> {
    let mut page = format!(
        "<!-- Written by `cargo xtask bench`. -->\n# Results\n\n\
         [PERFORMANCE.md](../docs/PERFORMANCE.md) describes how they were measured. In a turn, one\n\
         implementation runs alone. A round is one turn of each. Figures are medians over the rounds. The\n\
         factor in parentheses is the median ratio to the first row in the same round.\n\n\
         {}\n## Targets\n\n{}",
        measurement(results),
        targets::table(results)?
    );
    for group in &results.groups {
        page += "\n";
        page += &self::group(group);
    }
    Ok(page)
}

/// Returns the circumstances of the measurement as a table.
fn measurement(results: &Results) -> String {
    format!(
        "| | |\n|---|---|\n| machine | {} |\n| runnable threads in the minute before | {:.1} |\n\
         | date | {} |\n| commit | {} |\n| compiler | {} |\n\
         | turns of each implementation | {} of {} ms |\n",
        results.machine,
        results.load,
        results.date,
        results.commit,
        results.compiler,
        results.rounds,
        results.turn_ms
    )
}

/// Returns the table of the README: implementations of the same work, with and without reading a
/// clock.
fn speed(results: &Results) -> Result<String> {
    let (limiter, gate) = (results.table("limiter/uniform")?, results.table("gate/uniform")?);
    let mut text =
        "| nanoseconds a check | clock read | 1,000 | 1,000,000 |\n|---|---|---:|---:|\n"
            .to_owned();
    for (label, clock, row) in [
        ("`Limiter::check`, system clock", "yes", "keytally, and the system's clock read"),
        ("two governors", "yes", "two governors"),
        ("`Limiter::check`, explicit time", "no", "keytally"),
        ("two governors, time given", "no", "two governors, no clock read"),
        ("a DashMap of counters, written by hand", "no", "DashMap of counters"),
        ("a `Mutex<HashMap>` of counters, written by hand", "no", "Mutex<HashMap> of counters"),
    ] {
        let [few, many] = ["1,000", "1,000,000"].map(|column| limiter.figure(row, column));
        text += &format!("| {label} | {clock} | {} | {} |\n", number(few?), number(many?));
    }
    let [few, many] = ["1,000", "1,000,000"].map(|column| gate.figure("keytally", column));
    text += &format!(
        "\n`Gate::check` also verifies a key by HMAC-SHA-256: {} ns among 1,000 keys and {} ns among 1,000,000, with an explicit time. Measured on {}, {}.\n",
        number(few?),
        number(many?),
        results.machine,
        results.date
    );
    Ok(text)
}

/// Returns the table of the parts of a check.
fn bounds(results: &Results) -> Result<String> {
    let (limiter, gate) = (results.table("limiter/uniform")?, results.table("gate/uniform")?);
    let lines = results.table("lines/check")?;
    let mut text = "| nanoseconds | 1 | 1,000 | 1,000,000 |\n|---|---:|---:|---:|\n".to_owned();
    for (label, table, row) in [
        ("`Limiter::check`", limiter, "keytally"),
        ("`Limiter::check` without its hash", limiter, "keytally, subject hashed before"),
        (
            "a bare compare-exchange loop and the hash",
            limiter,
            "a bare compare-exchange loop on the word that SipHash finds",
        ),
        ("reading the subject", limiter, "reading the subject alone"),
        ("`Gate::check`", gate, "keytally"),
        ("two dependent compressions", gate, "two dependent compressions alone"),
        ("reading the key", gate, "reading the key alone"),
        (
            "a load of a random cache line from a table of 64 bytes per key",
            gate,
            "a dependent load from as many cache lines",
        ),
    ] {
        text += &format!("| {label} |");
        for column in ["1", "1,000", "1,000,000"] {
            text += &table
                .figure(row, column)
                .map_or(" |".to_owned(), |figure| format!(" {} |", number(figure)));
        }
        text += "\n";
    }
    let [limiter_lines, gate_lines] =
        ["Limiter::check", "Gate::check"].map(|row| lines.figure(row, "a check"));
    text += &format!(
        "\nIf no cache holds the table, `Limiter::check` reads {} cache lines from memory, and `Gate::check` {}.\n",
        number(limiter_lines?),
        number(gate_lines?)
    );
    Ok(text)
}

/// Returns the table of the instructions of a check by part.
fn profile(results: &Results) -> Result<String> {
    let table = results.table("lines/parts")?;
    let mut text = format!(
        "| instructions | {} |\n|---|{}\n",
        table.columns.join(" | "),
        "---:|".repeat(table.columns.len())
    );
    for row in &table.rows {
        text += &format!("| {} |", row.name);
        for column in &table.columns {
            text += &format!(" {} |", number(table.figure(&row.name, column)?));
        }
        text += "\n";
    }
    Ok(text)
}

/// Returns the tables of estimates for more cores and larger tables. Estimates are in italics.
fn projection(results: &Results) -> Result<String> {
    let (many, one) = (results.table("contention/many")?, results.table("contention/one")?);
    let denied = results.table("contention/denied")?;
    let (limiter, gate) = (results.table("limiter/uniform")?, results.table("gate/uniform")?);
    let lines = results.table("lines/check")?;
    let ours = "keytally";
    let load = gate.figure("a dependent load from as many cache lines", "1,000,000")?;
    let millions = |ns: f64, cores: f64| number(1000.0 * cores / ns);
    let each = many.figure(ours, "2 threads")?;
    let mut text = "| millions of checks per second | 1 core | 2 cores | 16 cores | 64 cores |\n|---|---:|---:|---:|---:|\n".to_owned();
    text += &format!(
        "| own subjects for each core, admitted | {} | {} | *{}* | *{}* |\n",
        millions(many.figure(ours, "1 thread")?, 1.0),
        millions(each, 2.0),
        millions(each, 16.0),
        millions(each, 64.0)
    );
    let shared = millions(one.figure(ours, "2 threads")?, 2.0);
    text += &format!(
        "| one subject, admitted | {} | {shared} | *at most {shared}* | *at most {shared}* |\n",
        millions(one.figure(ours, "1 thread")?, 1.0)
    );
    let each = denied.figure(ours, "2 threads")?;
    text += &format!(
        "| one subject, denied | {} | {} | *{}* | *{}* |\n",
        millions(denied.figure(ours, "1 thread")?, 1.0),
        millions(each, 2.0),
        millions(each, 16.0),
        millions(each, 64.0)
    );
    text += "\n| 100 million | memory | nanoseconds per check |\n|---|---:|---:|\n";
    for (label, table, row, bytes) in [
        ("subjects in a limiter", limiter, "Limiter::check", "keytally"),
        (
            "keys in two gates, which have at most 2^26 keys each",
            gate,
            "Gate::check",
            "a key of a gate",
        ),
    ] {
        let bytes = results.table("flood/memory")?.figure(bytes, "bytes each")?;
        // The page tables of that much memory are in no cache either. So each cache line costs the
        // load of a second one, which holds the entry of the page table.
        let ns = table.figure(ours, "1,000,000")? + lines.figure(row, "a check")? * load;
        text += &format!("| {label} | *{:.1} GB* | *{}* |\n", bytes / 10.0, number(ns));
    }
    Ok(text)
}

/// Returns the tables of a group.
pub(crate) fn group(group: &Group) -> String {
    let mut text = format!("## {}\n", group.group);
    if let Some(Apart { load, date, commit }) = &group.apart {
        let _ = write!(
            text,
            "\nMeasured separately, on {date} at commit {commit}, with {load:.1} runnable threads in the minute before.\n"
        );
    }
    for table in &group.tables {
        text += "\n";
        text += &self::table(table);
    }
    text
}

/// Returns a table whose other rows are compared with the first.
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
                Ok(ratio) if row.name != base => {
                    write!(text, " {} ({} ×) |", number(figure), number(ratio))
                }
                _ => write!(text, " **{}** |", number(figure)),
            };
        }
    }
    text + "\n"
}

/// Formats a figure with at least three significant digits.
pub(crate) fn number(figure: f64) -> String {
    if figure.abs() < 10.0 {
        return format!("{figure:.2}");
    }
    if figure.abs() < 100.0 {
        return format!("{figure:.1}");
    }
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn generated_pages_match_the_results() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
        let results = Results::load(root).unwrap();
        for (path, page) in PAGES {
            let old = fs::read_to_string(root.join(path)).unwrap();
            assert!(
                page(&results, &old).unwrap() == old,
                "{path}: `cargo xtask bench --pages` writes it"
            );
        }
    }

    #[test]
    fn text_outside_of_the_marks_is_kept() {
        let page =
            "by hand\n<!-- x: written by `cargo xtask bench` -->\nold\n<!-- end of x -->\nmore";
        let new = between_marks(page, "x", "new\n").unwrap();
        assert_eq!(new, page.replace("old", "new"));
        assert!(between_marks(page, "y", "new").is_err());
    }

    #[test]
    fn figures_have_at_least_three_significant_digits() {
        assert_eq!(
            [1.234, 45.67, 123.4, 1_234_567.8].map(number),
            ["1.23", "45.7", "123", "1,234,568"]
        );
    }

    #[test]
    fn rows_are_compared_with_the_first() {
        let figures = vec![("ours", 10.0), ("theirs", 25.0)];
        let text = table(&Table::once(["t", "ns", "A title", "About."], &[("1", figures)]));
        assert!(text.contains("| ours | **10.0** |\n| theirs | 25.0 (2.50 ×) |"), "{text}");
    }
}
