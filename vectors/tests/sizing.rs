//! Tests the tables of docs/how-to/sizing.md with files of the sizes that they state.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use keytally::{Gate, GateConfig, Limiter, MAX_KEYS, Peppers, Plan};

const PAGE: &str = include_str!("../../docs/how-to/sizing.md");

/// The plans of the two gates in the table.
const PLANS: [&str; 2] =
    ["100/minute, 1000/hour", "100/minute; team: 5000/hour; group write: 20/minute"];

/// The sizes of larger files follow from those of files with these numbers.
const CREATED: [u32; 2] = [100_000, 200_000];

/// The memory of an open connection of the service in bytes: that of LIMITS.md.
const CONNECTION: u64 = 30 * 1024;

/// Returns the cells of the rows of the table under a heading, without those of its head.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let (_, section) = PAGE.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let lines = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// Returns a number of the page, which may have commas.
fn number(cell: &str) -> u64 {
    cell.replace(',', "").parse().unwrap()
}

/// Returns a size as the page states it.
fn shown(bytes: u64) -> String {
    let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1000, "kB")];
    let (unit, name) = units.into_iter().find(|(unit, _)| bytes >= *unit).unwrap();
    let tenths = (bytes * 10 + unit / 2) / unit;
    if tenths < 100 {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    } else {
        format!("{} {name}", (bytes + unit / 2) / unit)
    }
}

/// Returns the sizes of files for a number of keys or subjects: of a gate with each plan, of the
/// counts of uses, and of a limiter.
fn created(folder: &Path, number: u32) -> [u64; 4] {
    let len = |name: &str| folder.join(name).metadata().unwrap().len();
    for (name, plan) in ["plain", "sections"].into_iter().zip(PLANS) {
        let plans = vec![Plan::new("default", plan.parse().unwrap()).unwrap()];
        let config = GateConfig::default().with_keys(number).with_plans(plans);
        let peppers = Peppers::new(&[[7; 32]]).unwrap();
        let gate = Gate::create(folder.join(name), peppers, &config).unwrap();
        gate.set_usage(true).unwrap();
    }
    Limiter::create(folder.join("limiter"), &PLANS[0].parse().unwrap(), number).unwrap();
    [len("plain"), len("sections"), len("plain.usage"), len("limiter")]
}

/// Returns the sizes of such files. Those of large ones are computed.
fn sizes(number: u64) -> [u64; 4] {
    let create = |number| {
        let folder = tempfile::tempdir().unwrap();
        created(folder.path(), number)
    };
    if number <= u64::from(CREATED[0]) {
        return create(u32::try_from(number).unwrap());
    }
    let [small, large] = CREATED.map(create);
    let [from, to] = CREATED.map(u64::from);
    core::array::from_fn(|file| {
        small[file] + (large[file] - small[file]) * (number - from) / (to - from)
    })
}

#[test]
fn sizes_on_the_page_are_those_of_files() {
    let rows = rows("Memory and disk");
    assert!(rows.len() >= 5);
    let expected = rows.iter().map(|row| {
        let sizes = sizes(number(row[0])).map(shown);
        core::iter::once(row[0].to_owned()).chain(sizes).collect::<Vec<_>>()
    });
    assert_eq!(rows, expected.collect::<Vec<_>>());
    assert_eq!(number(rows.last().unwrap()[0]), u64::from(MAX_KEYS));
}

/// The time of a check is that of the table of checks, with a million keys.
#[test]
fn time_of_a_check_is_the_measured_one() {
    let rows = rows("Processor");
    let last = |row: &Vec<&str>| row.last().unwrap().parse::<f64>().unwrap();
    let stated = rows.iter().find(|row| row[0] == "in the process of the server").unwrap();
    let measured = rows.iter().find(|row| row[0].starts_with("one quota ")).unwrap();
    assert_eq!(format!("{:.1}", last(measured) / 1000.0), format!("{:.1}", last(stated)));
}

/// The answers follow from the other tables: memory is that of the files and of the connections,
/// and processors are requests times the cost of one.
#[test]
fn answers_of_the_page_follow_from_its_tables() {
    let ways = rows("Processor");
    let answers = rows("Answers");
    assert!(answers.len() >= 4);
    let expected = answers.iter().map(|row| {
        let (keys, requests, connections) = (number(row[0]), number(row[1]), number(row[3]));
        let way = ways.iter().find(|way| way[0] == row[2]).unwrap();
        let cost_us: f64 = way.last().unwrap().parse().unwrap();
        let memory = shown(sizes(keys)[0] + connections * CONNECTION);
        [memory, format!("{:.3}", requests as f64 * cost_us / 1e6)]
    });
    let stated: Vec<_> = answers.iter().map(|row| [row[4], row[5]]).collect();
    assert_eq!(stated, expected.collect::<Vec<_>>());
}
