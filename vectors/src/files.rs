//! The vector files as Rust values, and their loaders.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Loads `policy.json`.
#[must_use]
pub fn load_policies() -> PolicyFile {
    load("policy.json", include_str!("../policy.json"))
}

/// Loads `decision.json`.
#[must_use]
pub fn load_decisions() -> DecisionFile {
    load("decision.json", include_str!("../decision.json"))
}

/// Loads `key.json`.
#[must_use]
pub fn load_keys() -> KeyFile {
    load("key.json", include_str!("../key.json"))
}

/// Loads `mac.json`.
#[must_use]
pub fn load_macs() -> MacFile {
    load("mac.json", include_str!("../mac.json"))
}

/// Loads `verdict.json`.
#[must_use]
pub fn load_verdicts() -> VerdictFile {
    load("verdict.json", include_str!("../verdict.json"))
}

fn load<File: DeserializeOwned>(name: &str, text: &str) -> File {
    match serde_json::from_str(text) {
        Ok(file) => file,
        Err(error) => panic!("{name}: {error}"),
    }
}

/// `policy.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// Explains the file.
    pub about: String,
    /// Texts that are policies.
    pub valid: Vec<ValidPolicy>,
    /// Texts that are refused.
    pub invalid: Vec<InvalidPolicy>,
}

/// A text that is a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidPolicy {
    /// The text as given.
    pub text: String,
    /// The text as printed.
    pub canonical: String,
    /// `fixed` or `sliding`.
    pub algorithm: String,
    /// Limit and window in seconds of each quota, the smallest window first.
    pub quotas: Vec<[u32; 2]>,
    /// Bits that the policy cannot do without.
    pub needed_bits: u32,
    /// Bits of the stamp.
    pub stamp_bits: u32,
    /// Bits of each count, in the order of the word, most significant first.
    pub count_bits: Vec<u32>,
    /// The value of the header `RateLimit-Policy`.
    pub header: String,
}

/// A text that is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InvalidPolicy {
    /// The text.
    pub text: String,
    /// The kind of error.
    pub error: String,
    /// For `too_many_bits`: the bits that it needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed_bits: Option<u32>,
}

/// `decision.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionFile {
    /// Explains the file.
    pub about: String,
    /// Operations that stand alone.
    pub cases: Vec<DecisionCase>,
    /// Operations that follow each other on one word, a sequence at a time.
    pub sequences: Vec<SequenceStep>,
    /// Words whose slot may, or may not, go to another subject.
    pub reusable: Vec<ReusableCase>,
    /// Words and what a correction makes of them.
    pub corrections: Vec<CorrectionCase>,
}

/// One operation on a word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionCase {
    /// What the case is about.
    pub why: String,
    /// The policy text.
    pub policy: String,
    /// The word before.
    #[serde(with = "hex_u64")]
    pub word: u64,
    /// The caller's time in Unix milliseconds.
    #[serde(with = "decimal_u64")]
    pub now_ms: u64,
    /// The operation.
    #[serde(flatten)]
    pub op: Op,
    /// The word afterwards; the same word where nothing is written.
    #[serde(with = "hex_u64")]
    pub next: u64,
    /// The result of a check or a peek.
    #[serde(flatten)]
    pub answer: Option<Answer>,
    /// Settle: what could not be charged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncharged: Option<u32>,
}

/// An operation and its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// Charges if there is room.
    Check {
        /// The requested cost.
        cost: u32,
    },
    /// Returns the result of a check without charging.
    Peek {
        /// The requested cost.
        cost: u32,
    },
    /// Gives a charge back.
    Refund {
        /// The cost that was charged.
        charged: u32,
        /// The effective time of the charge in Unix milliseconds.
        #[serde(with = "decimal_u64")]
        charged_at_ms: u64,
    },
    /// Replaces an estimate by the actual cost.
    Settle {
        /// The cost that was charged: the estimate.
        charged: u32,
        /// The effective time of the charge in Unix milliseconds.
        #[serde(with = "decimal_u64")]
        charged_at_ms: u64,
        /// The actual cost.
        actual: u32,
    },
    /// Forgets everything.
    Reset,
}

/// The result of a check or a peek.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// `admitted`, `denied` or `too_costly`.
    pub outcome: String,
    /// The effective time in Unix milliseconds.
    #[serde(with = "decimal_u64")]
    pub at_ms: u64,
    /// What remains in each window, the smallest first.
    pub remaining: Vec<u32>,
    /// When each window resets, in Unix seconds.
    #[serde(with = "decimal_u64s")]
    pub reset_s: Vec<u64>,
    /// Denied: the earliest effective time, in Unix milliseconds, at which all windows have room.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "decimal_u64_or_none")]
    pub retry_at_ms: Option<u64>,
    /// Denied: seconds to wait, counted from the later of `now_ms` and `at_ms`, or from `now_ms` if
    /// `at_ms` is more than 60 seconds ahead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
}

/// One operation of a sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceStep {
    /// The name of the sequence. Its steps are consecutive. The first has word 0, and every other
    /// the `next` of the one before.
    pub sequence: String,
    /// The operation; its `why` is empty where nothing is special.
    #[serde(flatten)]
    pub case: DecisionCase,
}

/// A word, corrected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorrectionCase {
    /// The policy text.
    pub policy: String,
    /// The word before.
    #[serde(with = "hex_u64")]
    pub word: u64,
    /// A right clock's time in Unix milliseconds.
    #[serde(with = "decimal_u64")]
    pub reading_ms: u64,
    /// The word afterwards.
    #[serde(with = "hex_u64")]
    pub next: u64,
}

/// A word whose slot may, or may not, go to another subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReusableCase {
    /// The policy text.
    pub policy: String,
    /// The word.
    #[serde(with = "hex_u64")]
    pub word: u64,
    /// The time in Unix milliseconds.
    #[serde(with = "decimal_u64")]
    pub now_ms: u64,
    /// Whether it may.
    pub reusable: bool,
}

/// `key.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    /// Explains the file.
    pub about: String,
    /// Keys.
    pub valid: Vec<ValidKey>,
    /// Texts that are not keys.
    pub invalid: Vec<InvalidKey>,
    /// CRC-32 alone.
    pub crc32: Vec<CrcCase>,
}

/// A key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidKey {
    /// The prefix.
    pub prefix: String,
    /// The environment.
    pub env: String,
    /// The key id.
    #[serde(with = "hex_u64")]
    pub key_id: u64,
    /// The secret, as 32 hexadecimal digits.
    #[serde(with = "hex_u128")]
    pub secret: u128,
    /// The whole key.
    pub text: String,
    /// The key id as text.
    pub key_id_text: String,
    /// The hint, which may be shown.
    pub hint: String,
}

/// A text that is not a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InvalidKey {
    /// The fault.
    pub why: String,
    /// The text.
    pub text: String,
    /// `form` or `checksum`.
    pub error: String,
}

/// A checksum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrcCase {
    /// The bytes, in hexadecimal.
    #[serde(with = "hex_bytes")]
    pub data: Vec<u8>,
    /// Their CRC-32.
    #[serde(with = "hex_u32")]
    pub crc: u32,
}

/// `mac.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MacFile {
    /// Explains the file.
    pub about: String,
    /// SHA-256 alone.
    pub sha256: Vec<HashCase>,
    /// HMAC-SHA-256.
    pub hmac: Vec<HmacCase>,
    /// What a gate stores of a key.
    pub record: Vec<RecordCase>,
}

/// A hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HashCase {
    /// The message, in hexadecimal.
    #[serde(with = "hex_bytes")]
    pub data: Vec<u8>,
    /// Its SHA-256.
    #[serde(with = "hex_bytes")]
    pub digest: Vec<u8>,
}

/// A MAC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HmacCase {
    /// Where it is from, or what it is about.
    pub why: String,
    /// The key, in hexadecimal.
    #[serde(with = "hex_bytes")]
    pub key: Vec<u8>,
    /// The message.
    #[serde(with = "hex_bytes")]
    pub data: Vec<u8>,
    /// The MAC, or its first bytes if the source gives no more.
    #[serde(with = "hex_bytes")]
    pub mac: Vec<u8>,
}

/// What a gate stores of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordCase {
    /// The server's secret.
    #[serde(with = "hex_bytes")]
    pub pepper: Vec<u8>,
    /// The key.
    pub key: String,
    /// The first 16 bytes of the HMAC.
    #[serde(with = "hex_bytes")]
    pub mac: Vec<u8>,
}

/// `verdict.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerdictFile {
    /// Explains the file.
    pub about: String,
    /// Gates, as they are before the first request.
    pub gates: Vec<GateSetup>,
    /// Requests to those gates, in order.
    pub steps: Vec<VerdictStep>,
    /// Responses to given verdicts.
    pub responses: Vec<ResponseCase>,
}

/// A gate before the first request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateSetup {
    /// Its name in `steps`.
    pub gate: String,
    /// The policy of its only plan.
    pub policy: String,
    /// The server's secret.
    #[serde(with = "hex_bytes")]
    pub pepper: Vec<u8>,
    /// The keys that were issued.
    pub keys: Vec<IssuedKey>,
}

/// A key that was issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuedKey {
    /// The whole key.
    pub text: String,
    /// The account.
    pub account: u32,
    /// The Unix second from which the key is invalid. 0 means never.
    pub not_after_s: u32,
    /// The key before the last rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// The Unix second from which `previous` is invalid.
    pub grace_until_s: u32,
    /// Whether it was revoked.
    pub revoked: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A request to a gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerdictStep {
    /// Which gate.
    pub gate: String,
    /// What the step is about.
    pub why: String,
    /// `check` or `peek`.
    pub op: String,
    /// The values of the request's `X-API-Key` headers: none, one, or a mistake.
    pub api_keys: Vec<String>,
    /// The requested cost.
    pub cost: u32,
    /// The caller's time in Unix milliseconds.
    #[serde(with = "decimal_u64")]
    pub now_ms: u64,
    /// The outcome.
    pub outcome: String,
    /// Why the key is invalid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The HTTP status.
    pub status: u16,
    /// Of a valid key: its key id.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "hex_u64_or_none")]
    pub key_id: Option<u64>,
    /// Of a valid key: its account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<u32>,
    /// Of a valid key: its quotas, the smallest window first.
    pub quotas: Vec<QuotaLine>,
    /// Denied: seconds to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    /// By how many seconds the tally is ahead of the caller, rounded up.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub clock_ahead_s: u64,
    /// The header block.
    pub headers: String,
    /// The body.
    pub body: String,
}

/// The state of one quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaLine {
    /// The limit.
    pub limit: u32,
    /// The remaining cost.
    pub remaining: u32,
    /// The window in seconds.
    pub window_s: u32,
    /// When it resets, in Unix seconds.
    #[serde(with = "decimal_u64")]
    pub reset_s: u64,
}

/// The response to a given verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResponseCase {
    /// What the case is about.
    pub why: String,
    /// The outcome.
    pub outcome: String,
    /// The number for the outcome.
    pub outcome_value: u32,
    /// The caller's time in Unix milliseconds.
    #[serde(with = "decimal_u64")]
    pub now_ms: u64,
    /// The verdict's quotas.
    pub quotas: Vec<QuotaLine>,
    /// The verdict's seconds to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    /// The HTTP status.
    pub status: u16,
    /// The header block.
    pub headers: String,
    /// The body.
    pub body: String,
}

/// Implements a `with` module: a number as hexadecimal text of a fixed form.
macro_rules! hexadecimal {
    ($name:ident, $type:ty, $format:literal, $prefix:literal) => {
        mod $name {
            use serde::{Deserialize, Deserializer, Serializer, de::Error};

            pub(super) fn serialize<S: Serializer>(
                value: &$type,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&format!($format, value))
            }

            pub(super) fn deserialize<'de, D: Deserializer<'de>>(
                deserializer: D,
            ) -> Result<$type, D::Error> {
                let text = String::deserialize(deserializer)?;
                let digits = text.strip_prefix($prefix).ok_or_else(|| D::Error::custom(&text))?;
                <$type>::from_str_radix(digits, 16).map_err(D::Error::custom)
            }
        }
    };
}

hexadecimal!(hex_u32, u32, "0x{:08x}", "0x");
hexadecimal!(hex_u64, u64, "0x{:016x}", "0x");
hexadecimal!(hex_u128, u128, "{:032x}", "");

/// A number as decimal text.
mod decimal_u64 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Implements a `with` module for an option of the above.
macro_rules! optional {
    ($name:ident, $type:ty, $of:ident, $text:literal) => {
        mod $name {
            use serde::{Deserialize, Deserializer, Serialize, Serializer};

            #[derive(Serialize, Deserialize)]
            struct Wrapped(#[serde(with = $text)] $type);

            #[expect(clippy::ref_option, reason = "the signature is serde's")]
            pub(super) fn serialize<S: Serializer>(
                value: &Option<$type>,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                value.map(Wrapped).serialize(serializer)
            }

            pub(super) fn deserialize<'de, D: Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Option<$type>, D::Error> {
                Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|wrapped| wrapped.0))
            }
        }
    };
}

optional!(decimal_u64_or_none, u64, decimal_u64, "super::decimal_u64");
optional!(hex_u64_or_none, u64, hex_u64, "super::hex_u64");

/// A list of numbers, each as decimal text.
mod decimal_u64s {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        values: &[u64],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let texts: Vec<String> = values.iter().map(u64::to_string).collect();
        texts.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u64>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| text.parse().map_err(D::Error::custom)).collect()
    }
}

/// Bytes as hexadecimal digits.
mod hex_bytes {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&digits)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let digits = String::deserialize(deserializer)?;
        let mut bytes = Vec::new();
        for pair in digits.as_bytes().chunks(2) {
            let pair = core::str::from_utf8(pair).map_err(D::Error::custom)?;
            bytes.push(u8::from_str_radix(pair, 16).map_err(D::Error::custom)?);
        }
        Ok(bytes)
    }
}
