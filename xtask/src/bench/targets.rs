//! What was aimed at, and whether it is held.

use anyhow::Result;

use super::pages::number;
use super::results::Results;

/// Something that was aimed at.
struct Target {
    what: &'static str,
    wanted: &'static str,
    find: fn(&Results) -> Result<Finding>,
}

/// What was measured of a target.
struct Finding {
    measured: String,
    held: bool,
}

impl Finding {
    fn at_most(limit: f64, figure: f64, unit: &str) -> Self {
        Self { measured: format!("{}{unit}", number(figure)), held: figure <= limit }
    }

    fn at_least(limit: f64, figure: f64, unit: &str) -> Self {
        Self { measured: format!("{}{unit}", number(figure)), held: figure >= limit }
    }

    fn and(self, other: Self) -> Self {
        Self { measured: format!("{}; {}", self.measured, other.measured), held: self.held && other.held }
    }
}

const OURS: &str = "keytally";
/// A subject whose hash the caller kept.
const HASHED: &str = "keytally, subject hashed before";
const GOVERNORS: &str = "two governors";
const LOAD: &str = "a dependent load of a line of as many";
const ONE: &str = "1";
const THOUSAND: &str = "1,000";
const MILLION: &str = "1,000,000";

/// Two threads may be slower than one by this much before it counts: more is beyond a quiet machine's noise.
const NOISE: f64 = 1.1;

/// Lines that a refused insertion may look at: two buckets of two, and their claims.
const REFUSAL_LINES: f64 = 6.0;

const TARGETS: &[Target] = &[
    Target {
        what: "`Limiter::check`, two windows, 40 bytes, 1,000 subjects",
        wanted: "at least 4 times as fast as two governors",
        find: |results| {
            let ratio = results.table("limiter/uniform")?.ratio(GOVERNORS, OURS, THOUSAND)?;
            Ok(Finding::at_least(4.0, ratio, " times"))
        },
    },
    Target {
        what: "the same, 1,000,000 subjects",
        wanted: "at least 8 times as fast",
        find: |results| {
            let ratio = results.table("limiter/uniform")?.ratio(GOVERNORS, OURS, MILLION)?;
            Ok(Finding::at_least(8.0, ratio, " times"))
        },
    },
    Target {
        what: "cache lines that a limiter's check misses",
        wanted: "at most 2",
        find: |results| {
            let lines = results.table("lines/check")?.figure("Limiter::check", "a check")?;
            Ok(Finding::at_most(2.0, lines, ""))
        },
    },
    Target {
        what: "one hot subject, hashed before",
        wanted: "at most 12 ns",
        find: |results| {
            let figure = results.table("limiter/uniform")?.figure(HASHED, ONE)?;
            Ok(Finding::at_most(12.0, figure, " ns"))
        },
    },
    Target {
        what: "one hot subject of 40 bytes",
        wanted: "at most 1.5 times a bare compare-exchange loop and the hash",
        find: |results| {
            let floor = "a bare compare-exchange loop on the word that SipHash finds";
            let ratio = results.table("limiter/uniform")?.ratio(OURS, floor, ONE)?;
            Ok(Finding::at_most(1.5, ratio, " times"))
        },
    },
    Target {
        what: "one subject, hashed before, two threads",
        wanted: "at most 2 times a bare compare-exchange loop that two threads contend for",
        find: |results| {
            let floor = "a bare loop of load and compare-exchange";
            let ratio = results.table("contention/one")?.ratio(HASHED, floor, "2 threads")?;
            Ok(Finding::at_most(2.0, ratio, " times"))
        },
    },
    Target {
        what: "one subject, all denied, two threads",
        wanted: "no slower for each than one thread, within a tenth",
        find: |results| {
            let table = results.table("contention/denied")?;
            let ratio = table.figure(OURS, "2 threads")? / table.figure(OURS, "1 thread")?;
            Ok(Finding::at_most(NOISE, ratio, " times"))
        },
    },
    Target {
        what: "`Gate::check`, 1,000 keys",
        wanted: "at most 0.9 times the `hmac` crate's clone and verify_slice alone",
        find: |results| {
            let ratio =
                results.table("gate/uniform")?.ratio(OURS, "hmac: clone and verify_slice alone", THOUSAND)?;
            Ok(Finding::at_most(0.9, ratio, " times"))
        },
    },
    Target {
        what: "the same",
        wanted: "at most 1.9 times two bare, dependent SHA-256 compressions",
        find: |results| {
            let ratio =
                results.table("gate/uniform")?.ratio(OURS, "two dependent compressions alone", THOUSAND)?;
            Ok(Finding::at_most(1.9, ratio, " times"))
        },
    },
    Target {
        what: "`Gate::check`, 1,000,000 keys",
        wanted: "at most two dependent loads from memory more than of 1,000",
        find: |results| {
            let table = results.table("gate/uniform")?;
            let more = table.figure(OURS, MILLION)? - table.figure(OURS, THOUSAND)?;
            Ok(Finding::at_most(2.0, more / table.figure(LOAD, MILLION)?, " loads more"))
        },
    },
    Target {
        what: "all headers of a verdict with two windows",
        wanted: "at most 60 ns, without allocation",
        find: |results| {
            let figure = results.table("decide/headers")?.figure("Verdict::write_headers", "2")?;
            Ok(Finding::at_most(60.0, figure, " ns"))
        },
    },
    Target {
        what: "memory of a key in a gate",
        wanted: "64 bytes",
        find: |results| {
            let bytes = results.table("flood/memory")?.figure("a key of a gate", "bytes each")?;
            Ok(Finding::at_most(64.1, bytes, " bytes, its share of the header among them"))
        },
    },
    Target {
        what: "memory of a subject in a limiter, 90 % of the slots taken",
        wanted: "at most 20 bytes",
        find: |results| {
            let bytes =
                results.table("flood/memory")?.figure("keytally, 90 % of all slots taken", "bytes each")?;
            Ok(Finding::at_most(20.0, bytes, " bytes"))
        },
    },
    Target {
        what: "adding 1,000,000 subjects",
        wanted: "99.9 % within 1 µs, none above 100 µs",
        find: |results| {
            let table = results.table("flood/latency")?;
            let most = Finding::at_most(1000.0, table.figure(OURS, "99.9 %")?, " ns");
            Ok(most.and(Finding::at_most(100_000.0, table.figure(OURS, "longest")?, " ns")))
        },
    },
    Target {
        what: "a new subject that a full table refuses",
        wanted: "the same work whatever the size: of 1,000,000 only the cache misses of two buckets more than of 1,000",
        find: |results| {
            let table = results.table("limiter/full")?;
            let more = table.figure("refused", MILLION)? - table.figure("refused", THOUSAND)?;
            let load = results.table("limiter/uniform")?.figure(LOAD, MILLION)?;
            Ok(Finding::at_most(REFUSAL_LINES, more / load, " loads more"))
        },
    },
    Target {
        what: "subjects that are in a full table, of 1,000",
        wanted: "as quick as in a table with room, within a quarter",
        find: |results| {
            let ratio = results.table("limiter/full")?.ratio("in the table", "in one with room", THOUSAND)?;
            Ok(Finding::at_most(1.25, ratio, " times"))
        },
    },
    Target {
        what: "Python: `gate.check(key)`, two windows, 1 key and 10,000",
        wanted: "at most 0.5 µs",
        find: |results| {
            let table = results.table("python/keys")?;
            let one = Finding::at_most(0.5, table.figure(OURS, "1 key")?, " µs");
            Ok(one.and(Finding::at_most(0.5, table.figure(OURS, "10,000 keys")?, " µs")))
        },
    },
    Target {
        what: "the same",
        wanted: "at least 25 times as fast as `hmac.new`, `compare_digest`, two hits of limits and their window stats",
        find: |results| {
            let table = results.table("python/keys")?;
            let by_hand = "hmac.new, compare_digest, limits: two hits and their window stats";
            let one = Finding::at_least(25.0, table.ratio(by_hand, OURS, "1 key")?, " times");
            Ok(one.and(Finding::at_least(25.0, table.ratio(by_hand, OURS, "10,000 keys")?, " times")))
        },
    },
    Target {
        what: "Python: `limiter.check(subject)`, two windows, 1 address and 10,000",
        wanted: "at most 0.35 µs",
        find: |results| {
            let table = results.table("python/subjects")?;
            let one = Finding::at_most(0.35, table.figure(OURS, "1 address")?, " µs");
            Ok(one.and(Finding::at_most(0.35, table.figure(OURS, "10,000 addresses")?, " µs")))
        },
    },
    Target {
        what: "the same, 1 address",
        wanted: "faster than rust-py-rate-limit's check, which has one window",
        find: |results| {
            let other = "rust-py-rate-limit, one window: check";
            let ratio = results.table("python/subjects")?.ratio(other, OURS, "1 address")?;
            Ok(Finding::at_least(1.0, ratio, " times"))
        },
    },
    Target {
        what: "Python: what the ASGI middleware adds to a bare Starlette route",
        wanted: "at most 8 µs",
        find: |results| {
            let table = results.table("python/middleware")?;
            Ok(Finding::at_most(8.0, table.figure("keytally.asgi.GateMiddleware", "added")?, " µs"))
        },
    },
    Target {
        what: "Python: `import keytally`",
        wanted: "at most 15 ms",
        find: |results| {
            Ok(Finding::at_most(15.0, results.table("python/import")?.figure(OURS, "ms")?, " ms"))
        },
    },
];

/// The targets as a table.
pub(crate) fn table(results: &Results) -> Result<String> {
    let mut text = "| what | target | measured | |\n|---|---|---:|---|\n".to_owned();
    for Target { what, wanted, find } in TARGETS {
        let Finding { measured, held } = find(results)?;
        let held = if held { "held" } else { "**not held**" };
        text += &format!("| {what} | {wanted} | {measured} | {held} |\n");
    }
    Ok(text)
}
