//! Measures the time of checks of keys that are wrong in different ways, in random order.
//!
//! Compares the times of each two kinds by Welch's t-test, as *dudect* does (Reparaz, Balasch,
//! Verbauwhede: Dude, is my code constant time?, 2016). The test runs on all samples, and on those
//! below several quantiles, since interrupts of the machine cause the slowest samples.
//!
//! `cargo timing [SAMPLES]` measures that many checks of each kind of key, 10 million by default.
//! It writes `measured.md` and the histogram `measured.svg` in the folder of this package. Then it
//! fails if two kinds differ. It needs a machine without other load.
//!
//! `cargo timing SAMPLES extended` measures checks of a gate whose requests charge a key and its
//! team. It prints the tables, and writes no file.

mod picture;

use core::fmt::Write as _;
use core::hint::black_box;
use std::fs;
use std::process::{Command, ExitCode};
use std::time::Instant;

use keytally_core::{
    CacheLine, Entropy, Gate, GateConfig, Key, KeyId, Name, NewKey, Peppers, Plan, Reason,
    Timestamp,
};

/// A kind of key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The first byte of the secret is wrong.
    WrongFirst,
    /// The last byte of the secret is wrong.
    WrongLast,
    /// The key id is unknown, and another key has its record.
    UnknownTaken,
    /// The key id is unknown, and its record is free.
    UnknownFree,
    /// The secret is right, and the key is revoked.
    Revoked,
    /// The secret is the previous one, in its grace.
    Previous,
    /// The kind `WrongFirst` again. Its difference from that is the error of the measurement.
    Control,
}

/// All kinds with their names in the report.
const KINDS: [(Kind, &str); 7] = [
    (Kind::WrongFirst, "wrong in the first byte"),
    (Kind::WrongLast, "wrong in the last byte"),
    (Kind::UnknownTaken, "unknown id, record taken"),
    (Kind::UnknownFree, "unknown id, record free"),
    (Kind::Revoked, "revoked, right secret"),
    (Kind::Previous, "previous secret, in its grace"),
    (Kind::Control, "wrong in the first byte, again"),
];

/// The kinds that must not differ.
const ALIKE: [Kind; 5] =
    [Kind::WrongFirst, Kind::WrongLast, Kind::UnknownTaken, Kind::UnknownFree, Kind::Control];

/// The number of records of each kind. It is the same for all, so that the caches hold an equal
/// part of each kind.
const RECORDS: usize = 100;
/// The number of texts for each record. After the comparison, the check reads the text to find the
/// reason for the log, so the text affects the time. Several texts average out this effect, and two
/// kinds differ only in what distinguishes them.
const TEXTS: usize = 8;
/// The capacity of a gate, which leaves some records free.
const KEYS: u32 = 1 << 10;
/// The number of samples of each kind from one gate. The program measures many gates, since the
/// addresses of records and texts cause differences of some hundredths of a nanosecond.
const SAMPLES_PER_GATE: usize = 4000;
/// The length of a key: `kt_live_` and 39 characters.
const LEN: usize = 47;
/// The |t| from which two kinds count as different.
const THRESHOLD: f64 = 5.0;
/// The quantiles up to which samples are compared.
const QUANTILES: [f64; 5] = [0.5, 0.75, 0.9, 0.99, 1.0];

fn main() -> ExitCode {
    let samples = std::env::args()
        .nth(1)
        .map_or(10_000_000, |text| text.parse().expect("the number of samples"));
    let is_extended = std::env::args().nth(2).as_deref() == Some("extended");
    let now = Timestamp::from_unix_s(1_700_000_000);
    let plan = if is_extended { "4000000/minute; team: 40000000/minute" } else { "4000000/minute" };
    let plans = [Plan::new("default", plan.parse().expect("a plan's text")).expect("a plan")];
    let mut random = Random(1);
    let mut times: Vec<Vec<u32>> = KINDS.iter().map(|_| Vec::with_capacity(samples)).collect();
    while times[0].len() < samples {
        let until = samples.min(times[0].len() + SAMPLES_PER_GATE);
        measure(&mut times, until, &plans, &mut random, now);
    }
    let (tables, worst) = tables(&times);
    let (relation, status) = if worst < THRESHOLD {
        ("below", ExitCode::SUCCESS)
    } else {
        ("NOT below", ExitCode::FAILURE)
    };
    let verdict = format!(
        "The largest |t| is {worst:.2}, {relation} {THRESHOLD}, at {samples} samples of each kind."
    );
    if is_extended {
        println!("{tables}\n{verdict}");
        return status;
    }
    let circumstances = format!(
        "Written by `cargo timing` on {}: {}, {}.",
        output("date", &["-u", "+%F"]),
        processor(),
        output("rustc", &["--version"])
    );
    let report = format!("{circumstances}\n\n![Histogram](measured.svg)\n\n{tables}\n{verdict}\n");
    let curves: Vec<(&str, &[u32])> =
        KINDS.iter().zip(&times).take(6).map(|((_, name), times)| (*name, &times[..])).collect();
    for (name, content) in [("measured.md", report), ("measured.svg", picture::histogram(&curves))]
    {
        fs::write(format!("{}/{name}", env!("CARGO_MANIFEST_DIR")), content)
            .expect("a writable file");
    }
    println!("{verdict}");
    status
}

/// Returns the first line that a program prints.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect(program);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn processor() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or("an unknown processor", |(_, model)| model).trim().to_owned()
}

/// Measures keys of a new gate, until each kind has `until` samples.
fn measure(
    times: &mut [Vec<u32>],
    until: usize,
    plans: &[Plan],
    random: &mut Random,
    now: Timestamp,
) {
    let prefix = Name::new("kt").expect("a name");
    let config = GateConfig::new(KEYS, prefix, plans).with_plan_slots(1);
    let teams = u32::from(plans.iter().any(|plan| plan.sections.named("team").is_some()));
    let config = config.with_teams(teams);
    let memory: Vec<CacheLine> = (0..config.lines()).map(|_| CacheLine::new()).collect();
    let peppers = Peppers::new(&[random.bytes::<32>()]).expect("a pepper");
    let gate = Gate::init(&memory[..], &config, peppers).expect("a gate");
    let texts = texts(&gate, random, now);
    // The first rounds warm up caches and predictors.
    let mut warming = 2000;
    while times.iter().any(|times| times.len() < until) {
        let draw = random.next();
        let kind = usize::try_from(draw % KINDS.len() as u64).expect("a kind");
        let text = texts[kind][usize::try_from(draw >> 32).expect("a key") % texts[kind].len()];
        let presented = black_box(text);
        // Loads the record into the cache. Otherwise the time since its last check would matter.
        black_box(gate.peek(Some(black_box(&presented[..])), 1, now));
        let started = Instant::now();
        let verdict = gate.check(Some(black_box(&presented[..])), 1, now);
        let time = started.elapsed();
        black_box(verdict);
        if warming > 0 {
            warming -= 1;
        } else if times[kind].len() < until {
            times[kind].push(u32::try_from(time.as_nanos()).unwrap_or(u32::MAX));
        }
    }
}

/// Returns the texts of the keys of each kind, after issuing, rotating and revoking keys for them.
fn texts(gate: &Gate<&[CacheLine]>, random: &mut Random, now: Timestamp) -> Vec<Vec<[u8; LEN]>> {
    let mut administrator = gate.administer().expect("alone");
    let env = Name::new("live").expect("a name");
    let new = NewKey::new(1, env);
    let mut issue = || {
        let entropy: [u8; 24] = random.bytes();
        let (key, id) = administrator.issue(&new, Entropy::new(entropy), now).expect("room");
        (key, id, <[u8; 16]>::try_from(&entropy[8..]).expect("a secret"))
    };
    let issued: Vec<Vec<(Key, KeyId, [u8; 16])>> =
        KINDS.iter().map(|_| (0..RECORDS).map(|_| issue()).collect()).collect();
    let text = |key: &Key| <[u8; LEN]>::try_from(key.expose().as_bytes()).expect("a key's length");
    let mint = |id: KeyId, secret: &[u8; 16]| {
        text(&Key::mint(gate.prefix(), env, id, secret).expect("names that fit"))
    };
    // The upper ten bits of an id choose its record.
    let upper = |id: KeyId| id.number() >> 54;
    let taken: Vec<u64> = gate.list(now).map(|info| upper(info.key_id)).collect();
    let mut free: Vec<u64> = (0..u64::from(KEYS)).filter(|upper| !taken.contains(upper)).collect();
    free.sort_by_cached_key(|_| random.next());
    let id_with = |upper: u64, random: &mut Random| {
        KeyId::from_number(upper << 54 | random.next() >> 10 | 1).expect("an id")
    };
    let wrong = |secret: &[u8; 16], index: usize, random: &mut Random| {
        let mut wrong = *secret;
        wrong[index] ^= u8::try_from(1 + random.next() % 255).expect("a byte");
        wrong
    };
    let mut kinds: Vec<Vec<[u8; LEN]>> = vec![Vec::new(); KINDS.len()];
    let mut order: Vec<usize> = (0..KINDS.len()).collect();
    order.sort_by_cached_key(|_| random.next());
    for index in order {
        let (kind, keys, texts) = (KINDS[index].0, &issued[index], &mut kinds[index]);
        texts.reserve_exact(RECORDS * TEXTS);
        for ((key, id, secret), free) in keys.iter().zip(&free) {
            for _ in 0..TEXTS {
                texts.push(match kind {
                    Kind::WrongFirst | Kind::Control => mint(*id, &wrong(secret, 0, random)),
                    Kind::WrongLast => mint(*id, &wrong(secret, 15, random)),
                    Kind::UnknownTaken => mint(id_with(upper(*id), random), secret),
                    Kind::UnknownFree => mint(id_with(*free, random), secret),
                    Kind::Revoked | Kind::Previous => text(key),
                });
            }
            match kind {
                Kind::Revoked => administrator.revoke(*id).expect("revoked"),
                Kind::Previous => {
                    administrator
                        .rotate(
                            *id,
                            Some(Timestamp::from_unix_s(u32::MAX.into())),
                            false,
                            Entropy::new(random.bytes()),
                            now,
                        )
                        .expect("rotated");
                }
                _ => {}
            }
        }
    }
    drop(administrator);
    let reasons = [
        Some(Reason::WrongSecret),
        Some(Reason::WrongSecret),
        Some(Reason::Unknown),
        Some(Reason::Unknown),
        Some(Reason::Revoked),
        None,
        Some(Reason::WrongSecret),
    ];
    for (texts, reason) in kinds.iter().zip(reasons) {
        for text in texts {
            assert_eq!(gate.peek(Some(text), 1, now).reason(), reason);
        }
    }
    kinds
}

/// Returns the tables and the largest |t|.
fn tables(times: &[Vec<u32>]) -> (String, f64) {
    let mut text =
        "| kind of key | median | mean of the fastest 99 % |\n|---|---:|---:|\n".to_owned();
    for ((_, name), times) in KINDS.iter().zip(times) {
        let mut sorted = times.clone();
        sorted.sort_unstable();
        let part = &sorted[..sorted.len() * 99 / 100];
        let mean = part.iter().map(|&time| f64::from(time)).sum::<f64>() / part.len() as f64;
        let _ = writeln!(text, "| {name} | {} ns | {mean:.2} ns |", sorted[sorted.len() / 2]);
    }
    let columns = QUANTILES.map(|quantile| match quantile {
        1.0 => "all".to_owned(),
        _ => format!("{:.0} %", quantile * 100.0),
    });
    let _ = writeln!(text, "\n| compared kinds | {} | largest |", columns.join(" | "));
    let _ = writeln!(text, "|---|{}---:|", "---:|".repeat(QUANTILES.len()));
    let mut worst = 0.0f64;
    for one in 0..KINDS.len() {
        for two in one + 1..KINDS.len() {
            let alike = [one, two].iter().all(|kind| ALIKE.contains(&KINDS[*kind].0));
            if !alike {
                continue;
            }
            let tests = QUANTILES.map(|quantile| welch_t(&times[one], &times[two], quantile));
            let largest = tests.iter().fold(0.0f64, |most, t| most.max(t.abs()));
            worst = worst.max(largest);
            let columns = tests.map(|t| format!("{t:.2}"));
            let _ = writeln!(
                text,
                "| {} · {} | {} | {largest:.2} |",
                KINDS[one].1,
                KINDS[two].1,
                columns.join(" | ")
            );
        }
    }
    (text, worst)
}

/// Returns Welch's t of the samples up to a quantile of both sets together.
fn welch_t(one: &[u32], two: &[u32], quantile: f64) -> f64 {
    let mut all: Vec<u32> = one.iter().chain(two).copied().collect();
    let index = ((all.len() - 1) as f64 * quantile) as usize;
    let largest = *all.select_nth_unstable(index).1;
    let moments = |times: &[u32]| {
        let kept = times.iter().filter(|&&time| time <= largest).map(|&time| f64::from(time));
        let count = kept.clone().count() as f64;
        let mean = kept.clone().sum::<f64>() / count;
        let variance = kept.map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    };
    let ((mean_one, error_one), (mean_two, error_two)) = (moments(one), moments(two));
    (mean_one - mean_two) / (error_one + error_two).sqrt()
}

/// A generator of pseudo-random numbers (SplitMix64). Its fixed seed makes runs repeatable.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        core::array::from_fn(|_| self.next().to_le_bytes()[0])
    }
}
