//! The targets, whether each is met, and what prevents those that are not.

use anyhow::Result;

use super::pages::number;
use super::results::Results;

/// A figure that is wanted.
struct Target {
    what: &'static str,
    wanted: &'static str,
    find: fn(&Results) -> Result<Finding>,
    /// What prevents it, as measured.
    bound: Option<fn(&Results) -> Result<String>>,
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
        Self {
            measured: format!("{}; {}", self.measured, other.measured),
            held: self.held && other.held,
        }
    }

    /// The findings of two columns as one.
    fn of_both<'c>(columns: [&'c str; 2], of: impl Fn(&'c str) -> Result<Self>) -> Result<Self> {
        let [one, other] = columns;
        Ok(of(one)?.and(of(other)?))
    }
}

const OURS: &str = "keytally";
/// A subject whose hash the caller kept.
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

/// Two threads may be slower than one by this much before it counts: more is beyond a quiet machine's noise.
const NOISE: f64 = 1.1;

/// Cache lines that a refused insertion may read: two buckets of two lines, and their lock words.
const REFUSAL_LINES: f64 = 6.0;

const TARGETS: &[Target] = &[
    Target {
        what: "`Limiter::check`, two windows, 40 bytes, 1,000 subjects",
        wanted: "at least 4 times as fast as two governors",
        find: |results| {
            let ratio = results.table("limiter/uniform")?.ratio(GOVERNORS, OURS, THOUSAND)?;
            Ok(Finding::at_least(4.0, ratio, " times"))
        },
        bound: Some(|results| {
            let table = results.table("limiter/uniform")?;
            let governors = table.figure(GOVERNORS, THOUSAND)?;
            let (ours, hashed) = (table.figure(OURS, THOUSAND)?, table.figure(HASHED, THOUSAND)?);
            Ok(format!(
                "Two governors take {} ns, a quarter of which is {}; reading the subject and hashing it, so that no client can \
                 choose subjects that share a bucket, is {} of a check's {}.",
                number(governors),
                number(governors / 4.0),
                number(ours - hashed),
                number(ours)
            ))
        }),
    },
    Target {
        what: "`Limiter::check`, two windows, 40 bytes, 1,000,000 subjects",
        wanted: "at least 8 times as fast",
        find: |results| {
            let ratio = results.table("limiter/uniform")?.ratio(GOVERNORS, OURS, MILLION)?;
            Ok(Finding::at_least(8.0, ratio, " times"))
        },
        bound: Some(|results| {
            let table = results.table("limiter/uniform")?;
            Ok(format!(
                "An eighth of what two governors take is {} ns. A check waits for a line from memory at least once, and one \
                 dependent load of a line takes {} ns.",
                number(table.figure(GOVERNORS, MILLION)? / 8.0),
                number(table.figure(LOAD, MILLION)?)
            ))
        }),
    },
    Target {
        what: "cache lines that a limiter's check misses",
        wanted: "at most 2",
        find: |results| {
            let lines = results.table("lines/check")?.figure("Limiter::check", "a check")?;
            Ok(Finding::at_most(2.0, lines, ""))
        },
        bound: None,
    },
    Target {
        what: "one hot subject, hashed before",
        wanted: "at most 12 ns",
        find: |results| {
            let figure = results.table("limiter/uniform")?.figure(HASHED, ONE)?;
            Ok(Finding::at_most(12.0, figure, " ns"))
        },
        bound: None,
    },
    Target {
        what: "one hot subject of 40 bytes",
        wanted: "at most 1.5 times a bare compare-exchange loop and the hash",
        find: |results| {
            let ratio = results.table("limiter/uniform")?.ratio(OURS, FLOOR, ONE)?;
            Ok(Finding::at_most(1.5, ratio, " times"))
        },
        bound: Some(|results| {
            let table = results.table("limiter/uniform")?;
            Ok(format!(
                "The slot cannot be searched before the hash is known, and a check without it takes {} ns: the fingerprint, both \
                 windows' counts and limits, the compare-exchange and the verdict. The bare loop, of {} ns with the hash, has \
                 no slot to find and no verdict to return, so that its compare-exchange overlaps with the next hash.",
                number(table.figure(HASHED, ONE)?),
                number(table.figure(FLOOR, ONE)?)
            ))
        }),
    },
    Target {
        what: "one subject, hashed before, two threads",
        wanted: "at most 2 times a bare compare-exchange loop that two threads contend for",
        find: |results| {
            let ratio = results.table("contention/one")?.ratio(HASHED, BARE, "2 threads")?;
            Ok(Finding::at_most(2.0, ratio, " times"))
        },
        bound: Some(|results| {
            let table = results.table("contention/one")?;
            Ok(format!(
                "Between two threads a line travels for each check, and again for each compare-exchange that fails. The \
                 longer a check takes between its load and its compare-exchange, the more fail: it takes {} ns alone, \
                 and the bare loop {}.",
                number(table.figure(HASHED, "1 thread")?),
                number(table.figure(BARE, "1 thread")?)
            ))
        }),
    },
    Target {
        what: "one subject, all denied, two threads",
        wanted: "no slower for each than one thread, within a tenth",
        find: |results| {
            let table = results.table("contention/denied")?;
            let ratio = table.figure(OURS, "2 threads")? / table.figure(OURS, "1 thread")?;
            Ok(Finding::at_most(NOISE, ratio, " times"))
        },
        bound: None,
    },
    Target {
        what: "`Gate::check`, 1,000 keys",
        wanted: "at most 0.9 times the `hmac` crate's clone and verify_slice alone",
        find: |results| {
            let ratio = results.table("gate/uniform")?.ratio(OURS, HMAC, THOUSAND)?;
            Ok(Finding::at_most(0.9, ratio, " times"))
        },
        bound: Some(|results| {
            let table = results.table("gate/uniform")?;
            let compressions = table.figure(COMPRESSIONS, THOUSAND)?;
            Ok(format!(
                "Both need two compressions of SHA-256, one after the other: {} ns. Around them `hmac` takes {}, and a check {}, \
                 in which it reads the key's text, finds its record, compares, decides, charges and returns. The faster a processor \
                 compresses, the more that weighs.",
                number(compressions),
                number(table.figure(HMAC, THOUSAND)? - compressions),
                number(table.figure(OURS, THOUSAND)? - compressions)
            ))
        }),
    },
    Target {
        what: "the same",
        wanted: "at most 1.9 times two bare, dependent SHA-256 compressions",
        find: |results| {
            let ratio = results.table("gate/uniform")?.ratio(OURS, COMPRESSIONS, THOUSAND)?;
            Ok(Finding::at_most(1.9, ratio, " times"))
        },
        bound: None,
    },
    Target {
        what: "`Gate::check`, 1,000,000 keys",
        wanted: "at most two dependent loads from memory more than of 1,000",
        find: |results| {
            let table = results.table("gate/uniform")?;
            let more = table.figure(OURS, MILLION)? - table.figure(OURS, THOUSAND)?;
            Ok(Finding::at_most(2.0, more / table.figure(LOAD, MILLION)?, " loads more"))
        },
        bound: None,
    },
    Target {
        what: "all headers of a verdict with two windows",
        wanted: "at most 60 ns, without allocation",
        find: |results| {
            let figure = results.table("decide/headers")?.figure("Verdict::write_headers", "2")?;
            Ok(Finding::at_most(60.0, figure, " ns"))
        },
        bound: None,
    },
    Target {
        what: "memory of a key in a gate",
        wanted: "64 bytes",
        find: |results| {
            let bytes = results.table("flood/memory")?.figure("a key of a gate", "bytes each")?;
            Ok(Finding::at_most(64.1, bytes, " bytes, its share of the header among them"))
        },
        bound: None,
    },
    Target {
        what: "memory of a subject in a limiter, 90 % of the slots taken",
        wanted: "at most 20 bytes",
        find: |results| {
            let bytes = results
                .table("flood/memory")?
                .figure("keytally, 90 % of all slots taken", "bytes each")?;
            Ok(Finding::at_most(20.0, bytes, " bytes"))
        },
        bound: None,
    },
    Target {
        what: "adding 1,000,000 subjects",
        wanted: "99.9 % within 1 µs, none above 100 µs",
        find: |results| {
            let table = results.table("flood/latency")?;
            let most = Finding::at_most(1000.0, table.figure(OURS, "99.9 %")?, " ns");
            let again = table.figure("keytally, the quickest of three floods", "longest")?;
            Ok(most.and(Finding::at_most(
                100_000.0,
                again,
                " ns, whatever interrupts the program left out",
            )))
        },
        bound: Some(|results| {
            let table = results.table("flood/latency")?;
            Ok(format!(
                "Half of the calls take {} ns, the clock's reading of {} among them. The slowest wait for several lines that no \
                 cache holds, and for entries of the page table.",
                number(table.figure(OURS, "median")?),
                number(table.figure("reading the clock alone", "median")?)
            ))
        }),
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
        bound: None,
    },
    Target {
        what: "subjects that are in a full table, of 1,000",
        wanted: "as quick as in a table with room, within a quarter",
        find: |results| {
            let ratio = results.table("limiter/full")?.ratio(
                "in the table",
                "in one with room",
                THOUSAND,
            )?;
            Ok(Finding::at_most(1.25, ratio, " times"))
        },
        bound: None,
    },
    Target {
        what: "Python: `gate.check(key)`, two windows, 1 key and 10,000",
        wanted: "at most 0.5 µs",
        find: |results| {
            let table = results.table("python/keys")?;
            Finding::of_both(KEYS, |keys| {
                Ok(Finding::at_most(0.5, table.figure(OURS, keys)?, " µs"))
            })
        },
        bound: None,
    },
    Target {
        what: "the same",
        wanted: "at least 25 times as fast as `hmac.new`, `compare_digest`, two hits of limits and their window stats",
        find: |results| {
            let table = results.table("python/keys")?;
            let by_hand = "hmac.new, compare_digest, limits: two hits and their window stats";
            let times = |keys| table.ratio(by_hand, OURS, keys);
            Finding::of_both(KEYS, |keys| Ok(Finding::at_least(25.0, times(keys)?, " times")))
        },
        bound: None,
    },
    Target {
        what: "Python: `limiter.check(subject)`, two windows, 1 address and 10,000",
        wanted: "at most 0.35 µs",
        find: |results| {
            let table = results.table("python/subjects")?;
            let addresses = ["1 address", "10,000 addresses"];
            Finding::of_both(addresses, |of| {
                Ok(Finding::at_most(0.35, table.figure(OURS, of)?, " µs"))
            })
        },
        bound: None,
    },
    Target {
        what: "the same, 1 address",
        wanted: "faster than rust-py-rate-limit's check, which has one window",
        find: |results| {
            let other = "rust-py-rate-limit, one window: check";
            let ratio = results.table("python/subjects")?.ratio(other, OURS, "1 address")?;
            Ok(Finding::at_least(1.0, ratio, " times"))
        },
        bound: None,
    },
    Target {
        what: "Python: what the ASGI middleware adds to a bare Starlette route",
        wanted: "at most 8 µs",
        find: |results| {
            let table = results.table("python/middleware")?;
            Ok(Finding::at_most(8.0, table.figure("keytally.asgi.GateMiddleware", "added")?, " µs"))
        },
        bound: None,
    },
    Target {
        what: "Python: `import keytally`",
        wanted: "at most 15 ms",
        find: |results| {
            Ok(Finding::at_most(15.0, results.table("python/import")?.figure(OURS, "ms")?, " ms"))
        },
        bound: None,
    },
    Target {
        what: "a call from C, of a limiter and of a gate",
        wanted: "at most 5 ns more than from Rust, with the same worked out",
        find: |results| {
            let table = results.table("ffi/calls")?;
            let more = |what| table.difference(FROM_C, WHOLE, what);
            Finding::of_both(["limiter", "gate"], |what| {
                Ok(Finding::at_most(5.0, more(what)?, " ns"))
            })
        },
        bound: None,
    },
    Target {
        what: "nginx: a zone of `keytally_limit`, `empty_gif` and a proxied answer",
        wanted: "no more of a processor for each request than `limit_req`",
        find: |results| {
            let table = results.table("nginx/cpu")?;
            let times = |page| table.ratio(ZONE, LIMIT_REQ, page);
            Finding::of_both(PAGES, |page| Ok(Finding::at_most(1.0, times(page)?, " times")))
        },
        bound: Some(|results| {
            let table = results.table("nginx/cpu")?;
            let with_fields = PAGES.map(|page| table.ratio(ZONE, LIMIT_REQ_WITH_FIELDS, page));
            let silent = PAGES.map(|page| table.ratio(SILENT_ZONE, LIMIT_REQ, page));
            Ok(format!(
                "Each response has the client's limits in five header fields, and `limit_req` adds none. Of a `limit_req` \
                 whose answers get as many fields, always the same, by `add_header`, it takes {} times as much; with \
                 `keytally_headers off`, {} of a `limit_req` without.",
                both(with_fields)?,
                both(silent)?
            ))
        }),
    },
    Target {
        what: "nginx: a key check",
        wanted: "at most 0.3 µs of a processor more than `limit_req`",
        find: |results| {
            let table = results.table("nginx/cpu")?;
            let more = |page| table.difference(KEY_CHECK, LIMIT_REQ, page);
            Finding::of_both(PAGES, |page| Ok(Finding::at_most(0.3, more(page)?, " µs")))
        },
        bound: Some(|results| {
            let table = results.table("nginx/cpu")?;
            let more = PAGES.map(|page| table.difference(KEY_CHECK, LIMIT_REQ_WITH_FIELDS, page));
            Ok(format!(
                "Over a `limit_req` whose answers get as many header fields, always the same, by `add_header`, it takes {} µs \
                 more.",
                both(more)?
            ))
        }),
    },
    Target {
        what: "nginx: requests a second with a zone, and with a key check",
        wanted: "at least 0.97 of those of nginx alone",
        find: |results| {
            let table = results.table("nginx/rate")?;
            Finding::of_both([ZONE, KEY_CHECK], |variant| {
                let part = |page| table.ratio(variant, NGINX, page);
                Finding::of_both(PAGES, |page| Ok(Finding::at_least(0.97, part(page)?, "")))
            })
        },
        bound: Some(|results| {
            let table = results.table("nginx/rate")?;
            let part = |variant| both(PAGES.map(|page| table.ratio(variant, NGINX, page)));
            Ok(format!(
                "Five more header fields in each answer, always the same, by `add_header`, leave nginx alone {} of its requests, and \
                 `limit_req` without any leaves it {}. With `keytally_headers off` it is {} with a zone, and {} with a key check.",
                part(NGINX_WITH_FIELDS)?,
                part(LIMIT_REQ)?,
                part(SILENT_ZONE)?,
                part(SILENT_KEY_CHECK)?
            ))
        }),
    },
];

/// The targets as a table, and what prevents those that are not met.
pub(crate) fn table(results: &Results) -> Result<String> {
    let mut text = "| what | target | measured | |\n|---|---|---:|---|\n".to_owned();
    let mut bounds = String::new();
    for Target { what, wanted, find, bound } in TARGETS {
        let Finding { measured, held } = find(results)?;
        text += &format!(
            "| {what} | {wanted} | {measured} | {} |\n",
            if held { "held" } else { "**not held**" }
        );
        if let (false, Some(bound)) = (held, bound) {
            bounds += &format!("- {}: {wanted}. {}\n", capitalized(what), bound(results)?);
        }
    }
    if !bounds.is_empty() {
        text += &format!("\nWhat prevents the targets that are not held:\n\n{bounds}");
    }
    Ok(text)
}

/// The figures of both pages of nginx.
fn both(figures: [Result<f64>; 2]) -> Result<String> {
    let [gif, proxied] = figures;
    Ok(format!("{} and {}", number(gif?), number(proxied?)))
}

fn capitalized(what: &str) -> String {
    let (first, rest) = what.split_at(1);
    first.to_uppercase() + rest
}
