//! Generates `policy.json`: policy texts, valid and invalid.

use crate::files::{InvalidPolicy, ValidPolicy};
use crate::model::{
    Algorithm, Layout, PolicyError, QuotaState, bits_wanted, parse_policy, rate_limit_policy,
};

use super::Lines;
use super::random::Random;

const ABOUT: &str = "Policy texts. valid: text is parsed, canonical is the text of the parsed policy, quotas are \
    [limit, window in seconds, of a month 31 days] with the smallest window first, needed_bits is the least number of bits that can hold the \
    stamp and all counts, stamp_bits and count_bits are the widths of the fields of the 64-bit tally from its most \
    significant bit (the stamp, then for each window its count; sliding: the current count, then the previous one), header \
    is the value of RateLimit-Policy. invalid: error is \
    empty, too_long, syntax, limit, window, unit, too_many, duplicate, sliding_month or too_many_bits. The \
    last has needed_bits. Numbers are JSON numbers.";

/// Texts of valid policies.
const VALID: &[&str] = &[
    "100/minute, 1000/hour",
    "sliding 100/minute, 1000/hour",
    "fixed 100/minute, 1000/hour",
    "1000/hour,100/minute",
    "sliding 5/10s",
    "1/second",
    "1/minute",
    "1/hour",
    "1/day",
    "1/s",
    "1/m",
    "1/h",
    "1/d",
    "1/1s",
    "1/60s",
    "1/3600s",
    "1/86400s",
    "1/60m",
    "1/24h",
    "1/1440m",
    "1/59s",
    "1/61s",
    "1/90s",
    "1/119s",
    "1/120s",
    "1/2m",
    "1/3599s",
    "1/3660s",
    "1/7200s",
    "1/90m",
    "1/36h",
    "1/7d",
    "1/31d",
    "1/744h",
    "1/44640m",
    "1/2678400s",
    "1/sec",
    "1/min",
    "100 per minute",
    "100/min",
    "10/sec",
    "5 per 10s, 100 per hour",
    " \t7 \t per \t2 \tmin\t",
    "sliding 5 per 30sec, 100/min",
    "2/2second",
    "2/2minute",
    "2/2hour",
    "2/2day",
    "007/0060s",
    " \t1 \t/ \t2 \ts \t,\t3 / 4 m ",
    "fixed\t1/s",
    "sliding\t \t1/s",
    "sliding 1/s ,2/4s , 3/8s, 4/16s",
    "1/s, 1/m, 1/h, 1/d",
    "3/d, 2/h, 1/m",
    "127/minute, 128/hour",
    "2147483647/second",
    "4294967295/minute",
    "4294967295/day, 1/31d",
    "sliding 32767/second",
    "sliding 8388607/day",
    "sliding 67108863/31d",
    "10/second, 100/minute, 1000/hour",
    "10/minute, 50/10m, 100/hour, 500/day",
    "sliding 3/minute, 5/5m, 7/hour, 9/day",
    "sliding 10/second, 100/minute",
    "100/s, 200/2s, 400/4s",
    "1/2s, 1/3s",
    "1/minute, 1/90s",
    "sliding 1/2s, 1/3s",
    "100/5h, 1000/7d",
    "1/7d, 1/31d",
    "1/week",
    "1/w",
    "1 per week",
    "1/7d, 2/week",
    "100/minute, 1000/hour, 30000/month",
    "1/month@1",
    "1/month@01",
    "1/month@17",
    "1 per month @ 31",
    "3/month\t@\t28, 1/31d, 1/day",
    "sliding 5/week",
    "sliding 5/w, 2/day",
];

/// Texts without a quota, with too many, or with an error in one.
const INVALID: &[&str] = &[
    "",
    " ",
    " \t \t ",
    "fixed",
    "sliding",
    " fixed\t",
    "fixed,",
    "sliding ,",
    "slidin",
    "100",
    "100 minute",
    "/",
    "/s",
    " /s",
    "1/",
    "1/ ",
    "1/60",
    "1/60 ",
    ",",
    "1/s,",
    ",1/s",
    "1/s,,2/m",
    "1/s 2/m",
    "1/s;2/m",
    "-1/s",
    "+1/s",
    "1.5/s",
    "1_000/s",
    "1 000/s",
    "0x10/s",
    "1e3/s",
    "a/s",
    "1/-1s",
    "1/+1s",
    "1/1.5s",
    "1/6 0s",
    "1/s1",
    "1/2s3",
    "1/S",
    "1/Second",
    "1/MINUTE",
    "1/s.",
    "1/s/s",
    "1//s",
    "1/ss s",
    "1\n/s",
    "1/s\n",
    "1/s\u{a0}",
    "\u{661}/s",
    "1/\u{661}s",
    "1/µs",
    "1/s\0",
    "Fixed 1/s",
    "SLIDING 1/s",
    "fixed1/s",
    "fixed, 1/s",
    "sliding fixed 1/s",
    "gcra 1/s",
    "0/s",
    "000/s",
    "0/",
    "0/parsec",
    "0/0s",
    "4294967296/s",
    "99999999999999999999999999999999999999999/s",
    "1/seconds",
    "1/minutes",
    "1/secs",
    "1/mins",
    "1/week@1",
    "1/2w",
    "1/1week",
    "1/2month",
    "1/0month",
    "1/w@",
    "1/month@",
    "1/month@0",
    "1/month@32",
    "1/month@-1",
    "1/month@1.",
    "1/month@17@18",
    "1/month@17d",
    "1/month@99999999999999999999",
    "1/day@1",
    "1/2d@1",
    "1/parsec@1",
    "1/@1",
    "1/months",
    "1/mo",
    "1 per 0s",
    "0 per s",
    "per s",
    "1 per",
    "1 per ",
    "1 per 5",
    "1 pers",
    "1per s",
    "1 Per s",
    "1 a s",
    "1 per per s",
    "1 1 per s",
    "1 per s per s",
    "1 per s/s",
    "1/per s",
    "1/ms",
    "1/0parsec",
    "1/99999999999999999999parsec",
    "1/0s",
    "1/000d",
    "1/2678401s",
    "1/44641m",
    "1/745h",
    "1/32d",
    "1/4294967296s",
    "1/18446744073709551617s",
    "1/99999999999999999999999999999999999999999d",
    "1/s, 2/m, 3/h, 4/d, 5/2d",
    "1/s, 2/m, 3/h, 4/d, what",
    "1/s, 2/m, 3/h, 4/d,",
    "what, 2/m, 3/h, 4/d, 5/2d",
    "1/s, what, 3/h, 0/d",
];

/// Lists of valid quotas that together are not a policy: two windows are equal or both months, a
/// month slides, or the counts do not fit.
const INCOMPATIBLE: &[&str] = &[
    "1/s, 2/s",
    "1/60s, 1/minute",
    "1/60m, 1/hour",
    "1/24h, 1/d",
    "5/s, 5/m, 5/s",
    "1/month, 2/month",
    "1/month, 2/month@2",
    "sliding 1/month",
    "sliding 1/month@17, 1/day, 1/day",
    "sliding 1/week, 1/7d",
    "100/7s, 1000/hour, 10000/day, 1/month",
    "1/2s, 1/2s, 1/3s",
    "1/3s, 1/2s, 1/2s",
    "4294967295/2s, 4294967295/3s",
    "4294967295/s",
    "2147483648/s",
    "2147483648/second, 1/minute",
    "sliding 32768/second",
    "sliding 65536/second",
    "sliding 262144/minute, 1/hour",
    "sliding 8388608/day",
    "sliding 67108864/31d",
    "sliding 4294967295/s, 4294967295/m, 4294967295/h, 4294967295/d",
    "10/second, 100/minute, 1000/hour, 10000/day",
    "4294967295/minute, 64/hour",
    "1000/second, 10000/minute, 100000/hour",
];

/// Returns the text of the file. The model decides which texts are valid.
pub(super) fn file() -> String {
    let mut texts: Vec<String> =
        VALID.iter().chain(INVALID).chain(INCOMPATIBLE).map(ToString::to_string).collect();
    // At most 128 bytes are allowed. The length is checked first.
    for (length, end) in
        [(127, "1/s"), (128, "1/s"), (129, "1/s"), (128, "1/µ"), (129, ""), (128, "")]
    {
        texts.push(" ".repeat(length - end.len()) + end);
    }
    texts.push("0".repeat(125) + "1/s");
    texts.push("1/".to_owned() + &"0".repeat(124) + "1s");
    texts.push("9".repeat(126) + "/s");
    random_texts(&mut texts);

    let mut valid = Vec::new();
    let mut invalid = Vec::new();
    for text in texts {
        match parse_policy(&text) {
            Ok(policy) => {
                let layout = Layout::from_policy(&policy);
                let quotas: Vec<QuotaState> = policy
                    .quotas
                    .iter()
                    .map(|quota| QuotaState {
                        limit: quota.limit,
                        remaining: quota.limit,
                        window: quota.window,
                        reset_s: 0,
                    })
                    .collect();
                let algorithm = match policy.algorithm {
                    Algorithm::Fixed => "fixed",
                    Algorithm::Sliding => "sliding",
                };
                valid.push(ValidPolicy {
                    canonical: policy.to_string(),
                    algorithm: algorithm.to_owned(),
                    quotas: policy
                        .quotas
                        .iter()
                        .map(|quota| [quota.limit, quota.window.longest_s()])
                        .collect(),
                    needed_bits: bits_wanted(&policy),
                    stamp_bits: layout.stamp_bits,
                    count_bits: layout.count_bits,
                    header: rate_limit_policy(&quotas),
                    text,
                });
            }
            Err(error) => {
                let needed_bits = match error {
                    PolicyError::TooManyBits { needed } => Some(needed),
                    _ => None,
                };
                invalid.push(InvalidPolicy { text, error: error.kind().to_owned(), needed_bits });
            }
        }
    }
    Lines::new(ABOUT).array("valid", &valid).array("invalid", &invalid).done()
}

/// Adds random lists of valid quotas. In most of them the counts fit.
fn random_texts(texts: &mut Vec<String>) {
    let mut random = Random::new(1);
    for _ in 0..150 {
        let mut parts = Vec::new();
        let mut window_s: u64 = *random.pick(&[1, 2, 10, 15, 60, 300, 3600, 86400]);
        for _ in 0..=random.below(4) {
            let limit = 1 + (random.any() >> (40 + random.below(24)));
            parts.push(format!("{limit}/{window_s}s"));
            window_s *= *random.pick(&[1, 2, 2, 3, 4, 5, 6, 6, 6, 10, 60, 60]);
            if random.below(16) == 0 {
                window_s += 1;
            }
        }
        if random.below(2) == 0 {
            parts.reverse();
        }
        let algorithm = random.pick(&["", "", "fixed ", "sliding ", "sliding "]);
        texts.push(algorithm.to_string() + &parts.join(", "));
    }
}
