//! The targets of speed and memory: whether each is met, and the reason if it is not.

use anyhow::Result;

use super::pages::number;
use super::results::Results;

/// A target for a result.
struct Target {
    subject: &'static str,
    target: &'static str,
    find: fn(&Results) -> Result<Finding>,
    /// Returns the reason why the target is not met, with figures.
    reason: Option<fn(&Results) -> Result<String>>,
}

/// A result that is compared with a target.
struct Finding {
    measured: String,
    is_met: bool,
}

impl Finding {
    fn at_most(limit: f64, figure: f64, unit: &str) -> Self {
        Self { measured: format!("{}{unit}", number(figure)), is_met: figure <= limit }
    }

    fn at_least(limit: f64, figure: f64, unit: &str) -> Self {
        Self { measured: format!("{}{unit}", number(figure)), is_met: figure >= limit }
    }

    fn and(self, other: Self) -> Self {
        Self {
            measured: format!("{}; {}", self.measured, other.measured),
            is_met: self.is_met && other.is_met,
        }
    }

    /// Returns the findings of two columns, or rows, as one.
    fn of_both<'c>(names: [&'c str; 2], find: impl Fn(&'c str) -> Result<Self>) -> Result<Self> {
        let [one, other] = names;
        Ok(find(one)?.and(find(other)?))
    }
}

// The names of rows and columns in the results.
const OURS: &str = "keytally";
/// A check with a subject whose hash the caller computed before.
const HASHED: &str = "keytally, subject hashed before";
const GOVERNORS: &str = "two governors";
const HMAC: &str = "hmac: clone and verify_slice alone";
const COMPRESSIONS: &str = "two dependent compressions alone";
const FLOOR: &str = "a bare compare-exchange loop on the word that SipHash finds";
const BARE: &str = "a bare loop of load and compare-exchange";
const LOAD: &str = "a dependent load from as many cache lines";
const FROM_C: &str = "C, by the shared library";
const WHOLE: &str = "Rust, every window computed";
const ZONE: &str = "keytally_limit";
const SILENT_ZONE: &str = "keytally_limit, headers off";
const KEY_CHECK: &str = "keytally";
const SILENT_KEY_CHECK: &str = "keytally, headers off";
const LIMIT_REQ: &str = "limit_req";
const LIMIT_REQ_WITH_FIELDS: &str = "limit_req, and five fields";
const NGINX: &str = "nginx alone";
const NGINX_WITH_FIELDS: &str = "nginx alone, and five fields";
const PAGES: [&str; 2] = ["empty_gif", "a proxied answer"];
const KEYS: [&str; 2] = ["1 key", "10,000 keys"];
const ONE: &str = "1";
const THOUSAND: &str = "1,000";
const MILLION: &str = "1,000,000";

/// The factor by which two threads may be slower than one: the noise of a machine without other
/// load.
const NOISE: f64 = 1.1;

/// Cache lines that a refused insertion may read: two buckets of two lines, and their lock words.
const REFUSAL_LINES: f64 = 6.0;

const TARGETS: &[Target] = &[
    Target {
        subject: "`Limiter::check`, two windows, 40 bytes, 1,000 subjects",
        target: "at least 4 times as fast as two governors",
        find: |results| {
            let ratio = results.table("limiter/uniform")?.ratio(GOVERNORS, OURS, THOUSAND)?;
            Ok(Finding::at_least(4.0, ratio, " times"))
        },
        reason: Some(|results| {
            let table = results.table("limiter/uniform")?;
            let governors = table.figure(GOVERNORS, THOUSAND)?;
            let (ours, hashed) = (table.figure(OURS, THOUSAND)?, table.figure(HASHED, THOUSAND)?);
            Ok(format!(
                "A quarter of the time of two governors ({} ns) is {} ns. A check takes {} ns. Of these, {} ns are for reading \
                 and hashing the subject. The hash is keyed, so that no client can choose subjects that share a bucket.",
                number(governors),
                number(governors / 4.0),
                number(ours),
                number(ours - hashed)
            ))
        }),
    },
    Target {
        subject: "`Limiter::check`, two windows, 40 bytes, 1,000,000 subjects",
        target: "at least 8 times as fast",
        find: |results| {
            let ratio = results.table("limiter/uniform")?.ratio(GOVERNORS, OURS, MILLION)?;
            Ok(Finding::at_least(8.0, ratio, " times"))
        },
        reason: Some(|results| {
            let table = results.table("limiter/uniform")?;
            Ok(format!(
                "An eighth of the time of two governors is {} ns. A check waits at least once for a cache line from memory, \
                 and one dependent load of a line takes {} ns.",
                number(table.figure(GOVERNORS, MILLION)? / 8.0),
                number(table.figure(LOAD, MILLION)?)
            ))
        }),
    },
    Target {
        subject: "cache lines that a limiter's check misses",
        target: "at most 2",
        find: |results| {
            let lines = results.table("lines/check")?.figure("Limiter::check", "a check")?;
            Ok(Finding::at_most(2.0, lines, ""))
        },
        reason: None,
    },
    Target {
        subject: "one hot subject, hashed before",
        target: "at most 12 ns",
        find: |results| {
            let figure = results.table("limiter/uniform")?.figure(HASHED, ONE)?;
            Ok(Finding::at_most(12.0, figure, " ns"))
        },
        reason: None,
    },
    Target {
        subject: "one hot subject of 40 bytes",
        target: "at most 1.5 times a bare compare-exchange loop and the hash",
        find: |results| {
            let ratio = results.table("limiter/uniform")?.ratio(OURS, FLOOR, ONE)?;
            Ok(Finding::at_most(1.5, ratio, " times"))
        },
        reason: Some(|results| {
            let table = results.table("limiter/uniform")?;
            Ok(format!(
                "A check cannot search its slot before the hash is known. Without the hash, it takes {} ns, for the \
                 fingerprint, the counts and limits of both windows, the compare-exchange and the verdict. The bare loop takes \
                 {} ns with the hash. It searches no slot and returns no verdict, so its compare-exchange overlaps with the \
                 next hash.",
                number(table.figure(HASHED, ONE)?),
                number(table.figure(FLOOR, ONE)?)
            ))
        }),
    },
    Target {
        subject: "one subject, hashed before, two threads",
        target: "at most 2 times a bare compare-exchange loop of two threads on one word",
        find: |results| {
            let ratio = results.table("contention/one")?.ratio(HASHED, BARE, "2 threads")?;
            Ok(Finding::at_most(2.0, ratio, " times"))
        },
        reason: Some(|results| {
            let table = results.table("contention/one")?;
            Ok(format!(
                "The cache line moves to the other core for each check, and again after each compare-exchange that fails. \
                 More of them fail if more time passes between the load and the compare-exchange. In one thread, a check takes {} \
                 ns, and the bare loop {} ns.",
                number(table.figure(HASHED, "1 thread")?),
                number(table.figure(BARE, "1 thread")?)
            ))
        }),
    },
    Target {
        subject: "one subject, all denied, two threads",
        target: "at most 1.1 times the time of one thread, in each",
        find: |results| {
            let table = results.table("contention/denied")?;
            let ratio = table.figure(OURS, "2 threads")? / table.figure(OURS, "1 thread")?;
            Ok(Finding::at_most(NOISE, ratio, " times"))
        },
        reason: None,
    },
    Target {
        subject: "`Gate::check`, 1,000 keys",
        target: "at most 0.9 times the `hmac` crate's clone and verify_slice alone",
        find: |results| {
            let ratio = results.table("gate/uniform")?.ratio(OURS, HMAC, THOUSAND)?;
            Ok(Finding::at_most(0.9, ratio, " times"))
        },
        reason: Some(|results| {
            let table = results.table("gate/uniform")?;
            let compressions = table.figure(COMPRESSIONS, THOUSAND)?;
            Ok(format!(
                "Both need two dependent compressions of SHA-256, which take {} ns. In addition, `hmac` takes {} ns. A check \
                 takes {} ns to parse the key, find its record, compare, decide, charge and return. The faster a processor \
                 compresses, the larger is the share of this work.",
                number(compressions),
                number(table.figure(HMAC, THOUSAND)? - compressions),
                number(table.figure(OURS, THOUSAND)? - compressions)
            ))
        }),
    },
    Target {
        subject: "`Gate::check`, 1,000 keys",
        target: "at most 1.9 times two dependent SHA-256 compressions alone",
        find: |results| {
            let ratio = results.table("gate/uniform")?.ratio(OURS, COMPRESSIONS, THOUSAND)?;
            Ok(Finding::at_most(1.9, ratio, " times"))
        },
        reason: None,
    },
    Target {
        subject: "`Gate::check`, 1,000,000 keys",
        target: "at most two dependent loads from memory more than with 1,000 keys",
        find: |results| {
            let table = results.table("gate/uniform")?;
            let more = table.figure(OURS, MILLION)? - table.figure(OURS, THOUSAND)?;
            Ok(Finding::at_most(2.0, more / table.figure(LOAD, MILLION)?, " loads more"))
        },
        reason: None,
    },
    Target {
        subject: "all headers of a verdict with two windows",
        target: "at most 60 ns, without allocation",
        find: |results| {
            let figure = results.table("decide/headers")?.figure("Verdict::write_headers", "2")?;
            Ok(Finding::at_most(60.0, figure, " ns"))
        },
        reason: None,
    },
    Target {
        subject: "memory of a key in a gate",
        target: "64 bytes",
        find: |results| {
            let bytes = results.table("flood/memory")?.figure("a key of a gate", "bytes each")?;
            Ok(Finding::at_most(64.1, bytes, " bytes, with its share of the header"))
        },
        reason: None,
    },
    Target {
        subject: "memory of a subject in a limiter, 90 % of the slots taken",
        target: "at most 20 bytes",
        find: |results| {
            let bytes = results
                .table("flood/memory")?
                .figure("keytally, 90 % of all slots taken", "bytes each")?;
            Ok(Finding::at_most(20.0, bytes, " bytes"))
        },
        reason: None,
    },
    Target {
        subject: "adding 1,000,000 subjects",
        target: "99.9 % within 1 µs, none above 100 µs",
        find: |results| {
            let table = results.table("flood/latency")?;
            let most = Finding::at_most(1000.0, table.figure(OURS, "99.9 %")?, " ns");
            let again = table.figure("keytally, the quickest of three floods", "longest")?;
            Ok(most.and(Finding::at_most(100_000.0, again, " ns, in the fastest of three runs")))
        },
        reason: Some(|results| {
            let table = results.table("flood/latency")?;
            Ok(format!(
                "The median call takes {} ns, which includes {} ns for reading the clock. The slowest calls wait for several \
                 cache lines from memory, and for entries of the page table.",
                number(table.figure(OURS, "median")?),
                number(table.figure("reading the clock alone", "median")?)
            ))
        }),
    },
    Target {
        subject: "a new subject that a full table refuses",
        target: "the same work for every size: with 1,000,000 subjects at most the cache misses of two buckets (6 loads) more than with 1,000",
        find: |results| {
            let table = results.table("limiter/full")?;
            let more = table.figure("refused", MILLION)? - table.figure("refused", THOUSAND)?;
            let load = results.table("limiter/uniform")?.figure(LOAD, MILLION)?;
            Ok(Finding::at_most(REFUSAL_LINES, more / load, " loads more"))
        },
        reason: None,
    },
    Target {
        subject: "a subject that is in a full table of 1,000",
        target: "at most 1.25 times the time in a table with room",
        find: |results| {
            let ratio = results.table("limiter/full")?.ratio(
                "in the table",
                "in one with room",
                THOUSAND,
            )?;
            Ok(Finding::at_most(1.25, ratio, " times"))
        },
        reason: None,
    },
    Target {
        subject: "Python: `gate.check(key)`, two windows, 1 key and 10,000",
        target: "at most 0.5 µs",
        find: |results| {
            let table = results.table("python/keys")?;
            Finding::of_both(KEYS, |keys| {
                Ok(Finding::at_most(0.5, table.figure(OURS, keys)?, " µs"))
            })
        },
        reason: None,
    },
    Target {
        subject: "Python: `gate.check(key)`, two windows, 1 key and 10,000",
        target: "at least 25 times as fast as `hmac.new`, `compare_digest` and, in the package limits, two hits and their window stats",
        find: |results| {
            let table = results.table("python/keys")?;
            let by_hand = "hmac.new, compare_digest, limits: two hits and their window stats";
            let times = |keys| table.ratio(by_hand, OURS, keys);
            Finding::of_both(KEYS, |keys| Ok(Finding::at_least(25.0, times(keys)?, " times")))
        },
        reason: None,
    },
    Target {
        subject: "Python: `limiter.check(subject)`, two windows, 1 address and 10,000",
        target: "at most 0.35 µs",
        find: |results| {
            let table = results.table("python/subjects")?;
            let addresses = ["1 address", "10,000 addresses"];
            Finding::of_both(addresses, |column| {
                Ok(Finding::at_most(0.35, table.figure(OURS, column)?, " µs"))
            })
        },
        reason: None,
    },
    Target {
        subject: "Python: `limiter.check(subject)`, two windows, 1 address",
        target: "faster than rust-py-rate-limit's check, which has one window",
        find: |results| {
            let other = "rust-py-rate-limit, one window: check";
            let ratio = results.table("python/subjects")?.ratio(other, OURS, "1 address")?;
            Ok(Finding::at_least(1.0, ratio, " times"))
        },
        reason: None,
    },
    Target {
        subject: "Python: time that the ASGI middleware adds to a Starlette route",
        target: "at most 8 µs",
        find: |results| {
            let table = results.table("python/middleware")?;
            Ok(Finding::at_most(8.0, table.figure("keytally.asgi.GateMiddleware", "added")?, " µs"))
        },
        reason: None,
    },
    Target {
        subject: "Python: `import keytally`",
        target: "at most 15 ms",
        find: |results| {
            Ok(Finding::at_most(15.0, results.table("python/import")?.figure(OURS, "ms")?, " ms"))
        },
        reason: None,
    },
    Target {
        subject: "a check from C, of a limiter and of a gate",
        target: "at most 5 ns more than from Rust with the same details of the verdict",
        find: |results| {
            let table = results.table("ffi/calls")?;
            let more = |column| table.difference(FROM_C, WHOLE, column);
            Finding::of_both(["limiter", "gate"], |column| {
                Ok(Finding::at_most(5.0, more(column)?, " ns"))
            })
        },
        reason: None,
    },
    Target {
        subject: "nginx: a zone of `keytally_limit`, `empty_gif` and a proxied answer",
        target: "at most the processor time of `limit_req` per request",
        find: |results| {
            let table = results.table("nginx/cpu")?;
            let times = |page| table.ratio(ZONE, LIMIT_REQ, page);
            Finding::of_both(PAGES, |page| Ok(Finding::at_most(1.0, times(page)?, " times")))
        },
        reason: Some(|results| {
            let table = results.table("nginx/cpu")?;
            let with_fields = PAGES.map(|page| table.ratio(ZONE, LIMIT_REQ_WITH_FIELDS, page));
            let silent = PAGES.map(|page| table.ratio(SILENT_ZONE, LIMIT_REQ, page));
            Ok(format!(
                "Each response has five header fields with the limits of the client, and `limit_req` adds none. Compared with \
                 `limit_req` and five constant fields by `add_header`, a zone takes {} times the processor time. With \
                 `keytally_headers off`, it takes {} times that of `limit_req` without fields.",
                both(with_fields)?,
                both(silent)?
            ))
        }),
    },
    Target {
        subject: "nginx: a key check",
        target: "at most 0.3 µs of processor time more than `limit_req`",
        find: |results| {
            let table = results.table("nginx/cpu")?;
            let more = |page| table.difference(KEY_CHECK, LIMIT_REQ, page);
            Finding::of_both(PAGES, |page| Ok(Finding::at_most(0.3, more(page)?, " µs")))
        },
        reason: Some(|results| {
            let table = results.table("nginx/cpu")?;
            let more = PAGES.map(|page| table.difference(KEY_CHECK, LIMIT_REQ_WITH_FIELDS, page));
            Ok(format!(
                "Compared with `limit_req` and five constant header fields by `add_header`, it takes {} µs more.",
                both(more)?
            ))
        }),
    },
    Target {
        subject: "nginx: requests per second with a zone, and with a key check",
        target: "at least 0.97 times those of nginx alone",
        find: |results| {
            let table = results.table("nginx/rate")?;
            Finding::of_both([ZONE, KEY_CHECK], |variant| {
                let part = |page| table.ratio(variant, NGINX, page);
                Finding::of_both(PAGES, |page| Ok(Finding::at_least(0.97, part(page)?, "")))
            })
        },
        reason: Some(|results| {
            let table = results.table("nginx/rate")?;
            let part = |variant| both(PAGES.map(|page| table.ratio(variant, NGINX, page)));
            Ok(format!(
                "nginx alone with five constant header fields by `add_header` has {} times the requests of nginx alone, and \
                 `limit_req` without fields {} times. With `keytally_headers off`, a zone has {} times, and a key check {} \
                 times.",
                part(NGINX_WITH_FIELDS)?,
                part(LIMIT_REQ)?,
                part(SILENT_ZONE)?,
                part(SILENT_KEY_CHECK)?
            ))
        }),
    },
];

/// Returns the targets as a table, and the reasons for those that are not met as a list.
pub(crate) fn table(results: &Results) -> Result<String> {
    let mut text = "| result | target | measured | met |\n|---|---|---:|---|\n".to_owned();
    let mut reasons = String::new();
    for Target { subject, target, find, reason } in TARGETS {
        let Finding { measured, is_met } = find(results)?;
        text += &format!(
            "| {subject} | {target} | {measured} | {} |\n",
            if is_met { "yes" } else { "**no**" }
        );
        if let (false, Some(reason)) = (is_met, reason) {
            reasons += &format!("- {}: {target}. {}\n", capitalized(subject), reason(results)?);
        }
    }
    if !reasons.is_empty() {
        text += &format!("\nReasons why targets are not met:\n\n{reasons}");
    }
    Ok(text)
}

/// Formats the figures of both pages of nginx.
fn both(figures: [Result<f64>; 2]) -> Result<String> {
    let [gif, proxied] = figures;
    Ok(format!("{} and {}", number(gif?), number(proxied?)))
}

/// Capitalizes the first letter, except that of the name nginx.
fn capitalized(text: &str) -> String {
    if text.starts_with("nginx") {
        return text.to_owned();
    }
    let (first, rest) = text.split_at(1);
    first.to_uppercase() + rest
}
