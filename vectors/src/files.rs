//! The vector files as Rust values, and their loaders. The documentation of this crate defines the
//! terms.

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

/// Loads `charge.json`.
#[must_use]
pub fn load_charges() -> ChargeFile {
    load("charge.json", include_str!("../charge.json"))
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

/// Loads `sections.json`.
#[must_use]
pub fn load_sections() -> SectionsFile {
    load("sections.json", include_str!("../sections.json"))
}

/// Loads `prefixes.json`.
#[must_use]
pub fn load_prefixes() -> PrefixesFile {
    load("prefixes.json", include_str!("../prefixes.json"))
}

/// Parses the text of a vector file.
///
/// # Panics
///
/// If the text is not a file of this type.
fn load<File: DeserializeOwned>(name: &str, text: &str) -> File {
    match serde_json::from_str(text) {
        Ok(file) => file,
        Err(error) => panic!("{name}: {error}"),
    }
}

/// The content of `policy.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// Explains the file.
    pub about: String,
    /// Valid policy texts.
    pub valid: Vec<ValidPolicy>,
    /// Invalid policy texts.
    pub invalid: Vec<InvalidPolicy>,
}

/// A valid policy text with its meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidPolicy {
    /// The text to parse.
    pub text: String,
    /// The canonical text, which formatting the parsed policy returns.
    pub canonical: String,
    /// `fixed` or `sliding`.
    pub algorithm: String,
    /// Limit and window in seconds of each quota, the smallest window first.
    pub quotas: Vec<[u32; 2]>,
    /// The least number of bits that can hold the stamp and all counts.
    pub needed_bits: u32,
    /// The width of the stamp in bits.
    pub stamp_bits: u32,
    /// The width of each count in bits, from the most to the least significant count of the tally.
    pub count_bits: Vec<u32>,
    /// The value of the header `RateLimit-Policy`.
    pub header: String,
}

/// An invalid policy text with its error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InvalidPolicy {
    /// The text.
    pub text: String,
    /// The name of the error.
    pub error: String,
    /// The number of bits that the policy needs, if the error is `too_many_bits` in `policy.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed_bits: Option<u32>,
}

/// The content of `decision.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionFile {
    /// Explains the file.
    pub about: String,
    /// Single operations.
    pub cases: Vec<DecisionCase>,
    /// Sequences of operations, each sequence on one tally.
    pub sequences: Vec<SequenceStep>,
    /// Tallies in slots of a limiter, and whether the slot may be given to another subject.
    pub reusable: Vec<ReusableCase>,
    /// Corrections of tallies by the time of a correct clock.
    pub corrections: Vec<CorrectionCase>,
}

/// One operation on one tally, with its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionCase {
    /// What the case is about.
    pub why: String,
    /// The policy text.
    pub policy: String,
    /// The tally before.
    #[serde(with = "hex_u64")]
    pub word: u64,
    /// The caller's time in Unix milliseconds.
    #[serde(with = "decimal_u64")]
    pub now_ms: u64,
    /// The operation.
    #[serde(flatten)]
    pub op: Op,
    /// The tally afterwards. Equals `word` if the operation writes nothing.
    #[serde(with = "hex_u64")]
    pub next: u64,
    /// The result, if the operation is a check or a peek.
    #[serde(flatten)]
    pub answer: Option<Answer>,
    /// For a settlement: the part of the actual cost for which there was no room.
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
    /// Replaces the estimated cost that was charged by the actual cost.
    Settle {
        /// The cost that was charged, which was an estimate.
        charged: u32,
        /// The effective time of the charge in Unix milliseconds.
        #[serde(with = "decimal_u64")]
        charged_at_ms: u64,
        /// The actual cost.
        actual: u32,
    },
    /// Sets all counts to 0.
    Reset,
}

/// The result of a check or a peek.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// `admitted`, `denied` or `too_costly`.
    pub outcome: String,
    /// The effective time of the operation in Unix milliseconds.
    #[serde(with = "decimal_u64")]
    pub at_ms: u64,
    /// The cost that each window still admits, the smallest window first.
    pub remaining: Vec<u32>,
    /// The time at which each window's count is 0 again if nothing more is spent, in Unix seconds,
    /// the smallest window first.
    #[serde(with = "decimal_u64s")]
    pub reset_s: Vec<u64>,
    /// If denied: the earliest effective time, in Unix milliseconds, at which all windows have
    /// room.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "decimal_u64_or_none")]
    pub retry_at_ms: Option<u64>,
    /// If denied: the seconds until that time, rounded up and at least 1. They are counted from the
    /// later of `now_ms` and `at_ms`, or from `now_ms` if `at_ms` is more than 60 seconds ahead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
}

/// One operation of a sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceStep {
    /// The name of the sequence. Its steps are consecutive. The `word` of the first step is 0, that
    /// of each other step is the `next` of the step before.
    pub sequence: String,
    /// The operation. Its `why` is empty, except in steps by a late clock.
    #[serde(flatten)]
    pub case: DecisionCase,
}

/// A correction of one tally.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorrectionCase {
    /// The policy text.
    pub policy: String,
    /// The tally before.
    #[serde(with = "hex_u64")]
    pub word: u64,
    /// The time of a correct clock in Unix milliseconds.
    #[serde(with = "decimal_u64")]
    pub reading_ms: u64,
    /// The tally afterwards. Equals `word` unless its stamp is more than 60 seconds ahead of the
    /// correct clock.
    #[serde(with = "hex_u64")]
    pub next: u64,
}

/// A tally in a slot of a limiter, and whether the slot may be given to another subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReusableCase {
    /// The policy text.
    pub policy: String,
    /// The tally.
    #[serde(with = "hex_u64")]
    pub word: u64,
    /// The time in Unix milliseconds.
    #[serde(with = "decimal_u64")]
    pub now_ms: u64,
    /// Whether the slot may be given to another subject.
    pub reusable: bool,
}

/// The content of `sections.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SectionsFile {
    /// Explains the file.
    pub about: String,
    /// Gates with their requests.
    pub cases: Vec<SectionsCase>,
}

/// A gate with one plan, and requests to it, one after another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SectionsCase {
    /// The text of the plan.
    pub plan: String,
    /// The requests.
    pub steps: Vec<SectionStep>,
}

/// A request, and its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SectionStep {
    /// The time in Unix milliseconds.
    #[serde(with = "decimal_u64")]
    pub now_ms: u64,
    /// The number of the key.
    pub key: u32,
    /// The account of the key.
    pub account: u32,
    /// The cost of the request.
    pub cost: u32,
    /// The groups that it names.
    pub groups: Vec<GroupCost>,
    /// Whether all tallies were charged.
    pub admitted: bool,
    /// The result for each tally.
    pub tallies: Vec<TallyLine>,
    /// The seconds until a retry can succeed, if a tally denies and no limit is below the cost.
    pub retry_after_s: Option<u64>,
    /// The warnings that the charge reached.
    pub crossed: Vec<WarningLine>,
}

/// A group that a request names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupCost {
    /// The name.
    pub name: String,
    /// Its own cost; `None` for that of the request.
    pub cost: Option<u32>,
}

/// The result for one tally.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TallyLine {
    /// The section: `key`, `team`, the name of a group, or that of a network. It is empty for the
    /// client's own network.
    pub section: String,
    /// The outcome for this tally alone.
    pub outcome: String,
    /// The units left in each window.
    pub remaining: Vec<u32>,
    /// The reset of each window in Unix seconds.
    pub reset_s: Vec<u64>,
}

/// A warning that a charge reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarningLine {
    /// The section.
    pub section: String,
    /// The index of the window in its tally.
    pub window: usize,
    /// The percentage.
    pub percent: u32,
}

/// The content of `prefixes.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefixesFile {
    /// Explains the file.
    pub about: String,
    /// Limiters with their requests.
    pub cases: Vec<PrefixesCase>,
    /// Invalid policy texts.
    pub invalid: Vec<InvalidPolicy>,
}

/// A limiter of addresses, and requests to it, one after another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefixesCase {
    /// The text of the policy.
    pub policy: String,
    /// The canonical text, which formatting the parsed policy returns.
    pub canonical: String,
    /// The requests.
    pub steps: Vec<PrefixStep>,
}

/// A request of a client, or the refund of its charge, and the result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefixStep {
    /// The time in Unix milliseconds.
    #[serde(with = "decimal_u64")]
    pub now_ms: u64,
    /// The address of the client.
    pub client: String,
    /// The cost of the request.
    pub cost: u32,
    /// The index of the step whose charge is given back; `None` for a request.
    pub refunds: Option<usize>,
    /// Whether all networks were charged; true for a refund.
    pub admitted: bool,
    /// The result for each network, the longest prefix first.
    pub tallies: Vec<TallyLine>,
    /// The seconds until a retry can succeed, if a network denies and no limit is below the cost.
    pub retry_after_s: Option<u64>,
}

/// The content of `charge.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChargeFile {
    /// Explains the file.
    pub about: String,
    /// Charges and their bytes.
    pub valid: Vec<ChargeCase>,
    /// Bytes that are not those of a charge.
    pub invalid: Vec<InvalidCharge>,
}

/// A charge and its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChargeCase {
    /// The tallies in the order in which they were charged.
    pub tallies: Vec<ChargedEntry>,
    /// The bytes, in hexadecimal.
    #[serde(with = "hex_bytes")]
    pub bytes: Vec<u8>,
}

/// What one tally was charged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChargedEntry {
    /// The index of the tally in its gate.
    pub tally: u8,
    /// Which cost of the request this is.
    pub unit: u8,
    /// The units.
    pub cost: u32,
    /// The time of the decision in Unix milliseconds.
    #[serde(with = "decimal_u64")]
    pub at_ms: u64,
}

/// Bytes that are not those of a charge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InvalidCharge {
    /// What is wrong with them.
    pub why: String,
    /// The bytes, in hexadecimal.
    #[serde(with = "hex_bytes")]
    pub bytes: Vec<u8>,
}

/// The content of `key.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    /// Explains the file.
    pub about: String,
    /// Texts that are keys, with their parts.
    pub valid: Vec<ValidKey>,
    /// Texts that are not keys.
    pub invalid: Vec<InvalidKey>,
    /// CRC-32 checksums of byte strings.
    pub crc32: Vec<CrcCase>,
}

/// A key with its parts.
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
    /// The hint.
    pub hint: String,
}

/// A text that is not a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InvalidKey {
    /// What is wrong with the text.
    pub why: String,
    /// The text.
    pub text: String,
    /// The name of the error: `form` or `checksum`.
    pub error: String,
}

/// A byte string and its checksum.
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

/// The content of `mac.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MacFile {
    /// Explains the file.
    pub about: String,
    /// SHA-256 digests.
    pub sha256: Vec<HashCase>,
    /// HMAC-SHA-256 tags.
    pub hmac: Vec<HmacCase>,
    /// MACs that a gate stores of keys.
    pub record: Vec<RecordCase>,
}

/// A message and its SHA-256 digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HashCase {
    /// The message, in hexadecimal.
    #[serde(with = "hex_bytes")]
    pub data: Vec<u8>,
    /// The digest of the message.
    #[serde(with = "hex_bytes")]
    pub digest: Vec<u8>,
}

/// A key, a message and their HMAC-SHA-256 tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HmacCase {
    /// The source of the case, or what it is about.
    pub why: String,
    /// The HMAC key, in hexadecimal.
    #[serde(with = "hex_bytes")]
    pub key: Vec<u8>,
    /// The message.
    #[serde(with = "hex_bytes")]
    pub data: Vec<u8>,
    /// The tag, or its first bytes if the source gives no more.
    #[serde(with = "hex_bytes")]
    pub mac: Vec<u8>,
}

/// An API key and the MAC that a gate stores of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordCase {
    /// The pepper.
    #[serde(with = "hex_bytes")]
    pub pepper: Vec<u8>,
    /// The text of the API key.
    pub key: String,
    /// The first 16 bytes of the HMAC-SHA-256 tag of the key's text.
    #[serde(with = "hex_bytes")]
    pub mac: Vec<u8>,
}

/// The content of `verdict.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerdictFile {
    /// Explains the file.
    pub about: String,
    /// The gates before the first request.
    pub gates: Vec<GateSetup>,
    /// Requests to these gates, in order.
    pub steps: Vec<VerdictStep>,
    /// Responses to given verdicts.
    pub responses: Vec<ResponseCase>,
}

/// A gate before the first request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateSetup {
    /// The name of the gate in `steps`.
    pub gate: String,
    /// The policy of the gate's only plan.
    pub policy: String,
    /// The pepper.
    #[serde(with = "hex_bytes")]
    pub pepper: Vec<u8>,
    /// The keys in the gate.
    pub keys: Vec<IssuedKey>,
}

/// A key in a gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuedKey {
    /// The whole key.
    pub text: String,
    /// The number of the team account that the key belongs to.
    pub account: u32,
    /// The Unix second from which the key is invalid. 0 means never.
    pub expires_s: u32,
    /// The whole key before the last rotation, if it was rotated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// The Unix second from which `previous` is invalid.
    pub grace_until_s: u32,
    /// Whether the key was revoked.
    pub revoked: bool,
}

/// Returns whether a number is 0, in which case serde leaves it out.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A request to a gate, with its verdict and response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerdictStep {
    /// The name of the gate.
    pub gate: String,
    /// What the step is about.
    pub why: String,
    /// `check` or `peek`.
    pub op: String,
    /// The values of the request's `X-API-Key` headers. More than one is a mistake of the client.
    pub api_keys: Vec<String>,
    /// The requested cost.
    pub cost: u32,
    /// The caller's time in Unix milliseconds.
    #[serde(with = "decimal_u64")]
    pub now_ms: u64,
    /// The outcome.
    pub outcome: String,
    /// Why the key is invalid, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The HTTP status.
    pub status: u16,
    /// The key id, if the key is valid.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "hex_u64_or_none")]
    pub key_id: Option<u64>,
    /// The account, if the key is valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<u32>,
    /// The state of the quotas, the smallest window first, if the key is valid.
    pub quotas: Vec<QuotaLine>,
    /// If denied: the seconds to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    /// By how many seconds the effective time is ahead of the caller's, rounded up.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub clock_ahead_s: u64,
    /// All header fields of the response.
    pub headers: String,
    /// The body of the response.
    pub body: String,
}

/// The state of one quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaLine {
    /// The limit.
    pub limit: u32,
    /// The cost that the window still admits.
    pub remaining: u32,
    /// The length of the window in seconds.
    pub window_s: u32,
    /// The time at which the window's count is 0 again if nothing more is spent, in Unix seconds.
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
    /// The number of the outcome in every language.
    pub outcome_value: u32,
    /// The caller's time in Unix milliseconds.
    #[serde(with = "decimal_u64")]
    pub now_ms: u64,
    /// The verdict's quotas.
    pub quotas: Vec<QuotaLine>,
    /// The verdict's seconds to wait, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    /// The HTTP status.
    pub status: u16,
    /// All header fields of the response.
    pub headers: String,
    /// The body of the response.
    pub body: String,
}

/// Defines a module for serde's attribute `with`. It serializes a number as hexadecimal text of a
/// fixed width.
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

/// Serializes a number as decimal text.
mod decimal_u64 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Defines a module for serde's attribute `with`. It serializes an option of a number by the module
/// `$with`.
macro_rules! optional {
    ($name:ident, $type:ty, $with:literal) => {
        mod $name {
            use serde::{Deserialize, Deserializer, Serialize, Serializer};

            #[derive(Serialize, Deserialize)]
            struct Wrapped(#[serde(with = $with)] $type);

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

optional!(decimal_u64_or_none, u64, "super::decimal_u64");
optional!(hex_u64_or_none, u64, "super::hex_u64");

/// Serializes a list of numbers, each as decimal text.
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

/// Serializes bytes as pairs of hexadecimal digits.
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
