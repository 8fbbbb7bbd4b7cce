//! Encodes the vector files as one table of bytes, for devices with too little memory for JSON.
//! Runs on the host.
//!
//! ```text
//! texts | policies | decisions | keys | MACs | gates | outcomes
//! ```
//!
//! The table begins with a list of texts, each of which is its length in bytes and these bytes, in
//! UTF-8 or not. The other parts are lists of cases, and refer to a text by its index. A list
//! begins with its length. All numbers are unsigned LEB128: seven bits per byte, the lowest first,
//! and the eighth bit is set if more bytes follow. `checks/src/table.rs` and `c/vectors.c` read the
//! table.

use keytally_vectors::files::{Answer, DecisionCase, GateSetup, Op, QuotaLine, VerdictStep};
use keytally_vectors::model;
use keytally_vectors::{load_decisions, load_keys, load_macs, load_policies, load_verdicts};

/// The kinds of policy errors, in the order of their numbers in the table.
const POLICY_ERRORS: [&str; 10] = [
    "empty",
    "too_long",
    "syntax",
    "limit",
    "window",
    "unit",
    "too_many",
    "duplicate",
    "sliding_month",
    "too_many_bits",
];

/// The minimum length of a pepper, in bytes. Vectors of HMAC with shorter keys are left out.
const MIN_PEPPER_LEN: usize = 32;

/// Returns the whole table.
#[must_use]
pub fn encode() -> Vec<u8> {
    let mut table = Table::default();
    policies(&mut table);
    decisions(&mut table);
    keys(&mut table);
    macs(&mut table);
    verdicts(&mut table);
    table.finish()
}

fn policies(table: &mut Table) {
    let file = load_policies();
    table.list(&file.valid, |table, case| {
        table.text(&case.text);
        table.text(&case.canonical);
        table.number(case.algorithm == "sliding");
        table.list(&case.quotas, |table, &[limit, window_s]| {
            table.number(limit);
            table.number(window_s);
        });
        table.number(case.stamp_bits);
        table.list(&case.count_bits, |table, &bits| table.number(bits));
    });
    table.list(&file.invalid, |table, case| {
        table.text(&case.text);
        let error = POLICY_ERRORS.iter().position(|kind| *kind == case.error);
        table.number(error.unwrap_or_else(|| panic!("unknown kind of error: {}", case.error)) as u64);
        table.number(case.needed_bits.unwrap_or(0));
    });
}

fn decisions(table: &mut Table) {
    let file = load_decisions();
    let cases: Vec<&DecisionCase> =
        file.cases.iter().chain(file.sequences.iter().map(|step| &step.case)).collect();
    table.list(&cases, |table, case| {
        table.text(&case.policy);
        table.number(case.word);
        table.number(case.now_ms);
        match case.op {
            Op::Check { cost } => table.op(0, cost, 0, 0),
            Op::Peek { cost } => table.op(1, cost, 0, 0),
            Op::Refund { charged, charged_at_ms } => table.op(2, charged, charged_at_ms, 0),
            Op::Settle { charged, charged_at_ms, actual } => {
                table.op(3, charged, charged_at_ms, actual)
            }
            Op::Reset => table.op(4, 0, 0, 0),
        }
        table.number(case.next);
        table.number(case.uncharged.unwrap_or(0));
        let answers: Vec<&Answer> = case.answer.iter().collect();
        table.list(&answers, |table, answer| {
            table.text(&answer.outcome);
            table.number(answer.at_ms);
            let windows: Vec<_> = answer.remaining.iter().zip(&answer.reset_s).collect();
            table.list(&windows, |table, &(&remaining, &reset_s)| {
                table.number(remaining);
                table.number(reset_s);
            });
            // 0 means none: a retry time is always later than the epoch.
            table.number(answer.retry_at_ms.unwrap_or(0));
        });
    });
    table.list(&file.reusable, |table, case| {
        table.text(&case.policy);
        table.number(case.word);
        table.number(case.now_ms);
        table.number(case.reusable);
    });
}

fn keys(table: &mut Table) {
    let file = load_keys();
    table.list(&file.valid, |table, case| {
        table.text(&case.prefix);
        table.text(&case.env);
        table.number(case.key_id);
        table.bytes(&case.secret.to_be_bytes());
        table.text(&case.text);
        table.text(&case.key_id_text);
        table.text(&case.hint);
    });
    table.list(&file.invalid, |table, case| {
        table.text(&case.text);
        table.number(case.error == "checksum");
    });
}

fn macs(table: &mut Table) {
    let file = load_macs();
    let hmac = file.hmac.iter().filter(|case| case.key.len() >= MIN_PEPPER_LEN);
    let hmac = hmac.map(|case| (&case.key[..], &case.data[..], &case.mac[..]));
    let records =
        file.record.iter().map(|case| (&case.pepper[..], case.key.as_bytes(), &case.mac[..]));
    let cases: Vec<_> = hmac.chain(records).collect();
    table.list(&cases, |table, (key, data, mac)| {
        table.bytes(key);
        table.bytes(data);
        table.bytes(mac);
    });
}

fn verdicts(table: &mut Table) {
    let file = load_verdicts();
    table.list(&file.gates, |table, setup| {
        gate(table, setup);
        let steps: Vec<_> = file.steps.iter().filter(|step| step.gate == setup.gate).collect();
        table.list(&steps, |table, step| verdict(table, step));
    });
    table.list(&file.responses, |table, case| {
        table.text(&case.outcome);
        table.number(case.outcome_value);
        table.number(case.status);
        table.text(&case.body);
    });
}

fn gate(table: &mut Table, setup: &GateSetup) {
    table.text(&setup.policy);
    table.bytes(&setup.pepper);
    table.list(&setup.keys, |table, key| {
        let secret = model::parse_key(key.text.as_bytes()).map(|parts| parts.secret.to_be_bytes());
        table.text(&key.text);
        table.text(key.previous.as_deref().unwrap_or(""));
        table.bytes(&secret.unwrap_or_else(|error| panic!("{}: {error:?}", key.text)));
        table.number(key.account);
        table.number(key.expires_s);
        table.number(key.grace_until_s);
        table.number(key.revoked);
    });
}

fn verdict(table: &mut Table, step: &VerdictStep) {
    table.number(step.op == "peek");
    table.list(&step.api_keys, |table, key| table.text(key));
    table.number(step.cost);
    table.number(step.now_ms);
    table.text(&step.outcome);
    table.text(step.reason.as_deref().unwrap_or("none"));
    table.number(step.status);
    table.number(step.key_id.unwrap_or(0));
    table.number(step.account.unwrap_or(0));
    table.list(&step.quotas, |table, quota: &QuotaLine| {
        table.number(quota.limit);
        table.number(quota.remaining);
        table.number(quota.window_s);
        table.number(quota.reset_s);
    });
    table.number(step.retry_after_s.unwrap_or(0));
    // Line by line, since most lines appear in many blocks.
    let lines: Vec<&str> = step.headers.split_inclusive("\r\n").collect();
    table.list(&lines, |table, line| table.text(line));
    table.text(&step.body);
}

/// The table during encoding.
#[derive(Default)]
struct Table {
    texts: Vec<Vec<u8>>,
    /// The encoded parts after the texts.
    rest: Vec<u8>,
}

impl Table {
    fn number(&mut self, number: impl Into<u64>) {
        write(&mut self.rest, number.into());
    }

    /// Adds an operation. Unused arguments are 0.
    fn op(&mut self, op: u8, cost: u32, charged_at_ms: u64, actual: u32) {
        self.number(op);
        self.number(cost);
        self.number(charged_at_ms);
        self.number(actual);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Adds the index of these bytes among the texts, and adds them to the texts if they are new.
    fn bytes(&mut self, bytes: &[u8]) {
        let index = self.texts.iter().position(|text| text == bytes).unwrap_or_else(|| {
            self.texts.push(bytes.to_vec());
            self.texts.len() - 1
        });
        self.number(index as u64);
    }

    fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.number(items.len() as u64);
        for item in items {
            each(self, item);
        }
    }

    /// Returns the encoded table.
    fn finish(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, self.texts.len() as u64);
        for text in &self.texts {
            write(&mut bytes, text.len() as u64);
            bytes.extend(text);
        }
        bytes.extend(self.rest);
        bytes
    }
}

/// Appends a number in LEB128.
fn write(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}
