//! Policies as text, without a table.

use core::ffi::c_char;

#[cfg(feature = "host")]
use keytally_core::AddressPolicy;
use keytally_core::IMPORTED_KEY_LEN;
use keytally_core::{MAX_SECTIONS_LEN, ParsePolicyError, Policy, Sections};

use crate::guard::guard;
use crate::pointers::{Buffer, In, Out, Target};
use crate::status::{FfiResult, kt_status};
use crate::text::{Text, put, utf8};

/// Bytes that are always enough for a policy as text and for a sentence about an invalid one, with
/// the NUL.
pub const KT_POLICY_SIZE: usize = 256;

/// Bytes that are always enough for the sections of a plan as text, with the NUL. They are more
/// than a plan may be written with, since `1/s` becomes `1/second`.
pub const KT_SECTIONS_SIZE: usize = 1536;

/// Parses the policy in these bytes.
pub(crate) fn policy(text: In<'_, c_char>, len: usize) -> FfiResult<Policy> {
    let text = text.text(len)?;
    if text.len() > keytally_core::MAX_POLICY_LEN {
        return Err(kt_status::KT_POLICY_TOO_LONG);
    }
    Ok(Policy::from_text(utf8(text, kt_status::KT_POLICY_SYNTAX)?)?)
}

/// The policy of a limiter.
pub(crate) enum LimiterPolicy {
    Subjects(Policy),
    #[cfg(feature = "host")]
    Addresses(AddressPolicy),
}

/// Bytes that are always enough for the policy of a limiter as text, with the NUL.
pub(crate) const POLICY_LEN: usize =
    if cfg!(feature = "host") { KT_SECTIONS_SIZE } else { KT_POLICY_SIZE };

/// Parses the policy of a limiter in these bytes. A host build has limits by address.
pub(crate) fn limiter_policy(text: In<'_, c_char>, len: usize) -> FfiResult<LimiterPolicy> {
    #[cfg(feature = "host")]
    if let Ok(text) = core::str::from_utf8(text.text(len)?)
        && AddressPolicy::is_beginning(text)
    {
        let policy = text.parse::<AddressPolicy>();
        return Ok(LimiterPolicy::Addresses(policy.map_err(|error| error.kind())?));
    }
    policy(text, len).map(LimiterPolicy::Subjects)
}

/// Parses the sections of a plan in these bytes.
pub(crate) fn sections(text: In<'_, c_char>, len: usize) -> FfiResult<Sections> {
    let text = text.text(len)?;
    if text.len() > MAX_SECTIONS_LEN {
        return Err(kt_status::KT_POLICY_TOO_LONG);
    }
    Ok(Sections::from_text(utf8(text, kt_status::KT_POLICY_SYNTAX)?)?)
}

/// Parses a policy, and writes it in its normal form: `1000/hour,100/m` becomes
/// `100/minute, 1000/hour`. In a host build, it may be one for addresses: see `kt_limiter_init`.
///
/// Writes the policy and a NUL into `buffer`, and its length without the NUL to `written_out`.
///
/// Statuses: those that begin with `KT_POLICY_`. `KT_BUFFER_TOO_SMALL`; `KT_POLICY_SIZE` bytes are
/// always enough, and for a policy for addresses `KT_SECTIONS_SIZE`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_policy_parse(
    policy: In<c_char>,
    policy_len: usize,
    buffer: Out<c_char>,
    buffer_len: usize,
    written_out: Out<usize>,
) -> kt_status {
    guard(|| {
        let buffer = buffer.buffer(buffer_len)?;
        let written = written_out.target()?;
        match limiter_policy(policy, policy_len)? {
            LimiterPolicy::Subjects(policy) => {
                put(buffer, written, Text::<KT_POLICY_SIZE>::from_display(&policy).as_bytes())
            }
            #[cfg(feature = "host")]
            LimiterPolicy::Addresses(policy) => {
                put(buffer, written, Text::<KT_SECTIONS_SIZE>::from_display(&policy).as_bytes())
            }
        }
    })
}

/// Parses the sections of a plan, and writes them in their normal form:
/// `100/m;team:5000/hour` becomes `100/minute; team: 5000/hour`.
///
/// Writes the sections and a NUL into `buffer`, and their length without the NUL to `written_out`.
///
/// Statuses: those that begin with `KT_POLICY_`, `KT_NO_SECTIONS`. `KT_BUFFER_TOO_SMALL`;
/// `KT_SECTIONS_SIZE` bytes are always enough.
#[unsafe(no_mangle)]
pub extern "C" fn kt_sections_parse(
    sections: In<c_char>,
    sections_len: usize,
    buffer: Out<c_char>,
    buffer_len: usize,
    written_out: Out<usize>,
) -> kt_status {
    guard(|| {
        let buffer = buffer.buffer(buffer_len)?;
        let written = written_out.target()?;
        let sections = self::sections(sections, sections_len)?;
        put(buffer, written, Text::<KT_SECTIONS_SIZE>::from_display(&sections).as_bytes())
    })
}

/// Writes one sentence about what is wrong with a policy, for the person who wrote the policy.
/// Writes the empty text if the policy is valid.
///
/// Writes the sentence and a NUL into `buffer`, and its length without the NUL to `written_out`.
/// Unlike `kt_status_message`, it names the part of the policy that is wrong. A part with 16 bytes
/// or more between spaces, commas, semicolons and colons may be a key that was given by mistake,
/// and is not named. The sentence is then that of `kt_status_message`.
///
/// Statuses: `KT_BUFFER_TOO_SMALL`; `KT_POLICY_SIZE` bytes are always enough.
#[unsafe(no_mangle)]
pub extern "C" fn kt_policy_explain(
    policy: In<c_char>,
    policy_len: usize,
    buffer: Out<c_char>,
    buffer_len: usize,
    written_out: Out<usize>,
) -> kt_status {
    guard(|| {
        let parse = |text: &str| match () {
            #[cfg(feature = "host")]
            () if AddressPolicy::is_beginning(text) => text.parse::<AddressPolicy>().map(drop),
            () => text.parse::<Policy>().map(drop),
        };
        explain(policy.text(policy_len)?, parse, buffer.buffer(buffer_len)?, written_out.target()?)
    })
}

/// Writes one sentence about what is wrong with the sections of a plan, for the person who wrote
/// them. Writes the empty text if they are valid.
///
/// The sentence is as in `kt_policy_explain`.
///
/// Statuses: `KT_BUFFER_TOO_SMALL`; `KT_POLICY_SIZE` bytes are always enough.
#[unsafe(no_mangle)]
pub extern "C" fn kt_sections_explain(
    sections: In<c_char>,
    sections_len: usize,
    buffer: Out<c_char>,
    buffer_len: usize,
    written_out: Out<usize>,
) -> kt_status {
    guard(|| {
        let parse = |text: &str| text.parse::<Sections>().map(drop);
        let text = sections.text(sections_len)?;
        explain(text, parse, buffer.buffer(buffer_len)?, written_out.target()?)
    })
}

/// Writes the sentence about the error of parsing a text, or the empty text if there is none.
fn explain(
    text: &[u8],
    parse: impl FnOnce(&str) -> Result<(), ParsePolicyError>,
    buffer: Buffer<'_>,
    written: Target<'_, usize>,
) -> FfiResult {
    let sentence = match core::str::from_utf8(text) {
        Ok(text) => match parse(text) {
            Ok(()) => return put(buffer, written, b""),
            Err(error) if may_be_secret(error.part()) => {
                let sentence = kt_status::from(error.kind()).message();
                return put(buffer, written, sentence.to_bytes());
            }
            Err(error) => Text::<KT_POLICY_SIZE>::from_display(&error),
        },
        Err(_) => Text::from_display(
            &"a policy is ASCII text like \"100/minute, 1000/hour\", and this is not UTF-8",
        ),
    };
    put(buffer, written, sentence.as_bytes())
}

/// Returns whether a part of a policy may be a key or a pepper, which an error must not repeat: it
/// has as many characters as a key, and no separator between them.
fn may_be_secret(part: &str) -> bool {
    let mut words = part.split([' ', '\t', ',', ';', ':']);
    words.any(|word| word.len() >= IMPORTED_KEY_LEN.start)
}

#[cfg(test)]
mod tests {
    use keytally_core::{MAX_GROUP_NAME_LEN, MAX_QUOTAS, MAX_TALLIES};

    use super::*;

    #[test]
    fn longest_sections_fit() {
        let quota = "4294967295/2678399s warn 99% 100%, ".len();
        let head = "; group : sliding ".len() + MAX_GROUP_NAME_LEN;
        let longest = MAX_TALLIES * (head + MAX_QUOTAS * quota);
        assert!(longest < KT_SECTIONS_SIZE, "{longest}");
    }

    #[test]
    fn longest_sentence_of_an_error_fits() {
        let filled = |start: &str| format!("{start}{}", " 99".repeat(20));
        let beginnings = ["", "sliding ", "unlimited", "x warn", "/", "x: ", "0/", "1/32d, 1/"];
        for begin in beginnings {
            for text in ["", "addresses: /64 1/s; ", "addresses: /64 ", "1/s; ", "1/s, "] {
                let text = filled(&format!("{text}{begin}"));
                let sentences = [
                    text.parse::<Policy>().map(drop),
                    text.parse::<Sections>().map(drop),
                    text.parse::<AddressPolicy>().map(drop),
                ];
                for error in sentences.into_iter().filter_map(Result::err) {
                    let sentence = error.to_string();
                    assert!(sentence.len() < KT_POLICY_SIZE, "{} {sentence}", sentence.len());
                }
            }
        }
    }

    #[test]
    fn part_like_a_key_is_secret_and_a_list_is_not() {
        for part in ["sliding 20/minute", "team: 5000/hour, 9/day", "123456789012345"] {
            assert!(!may_be_secret(part), "{part}");
        }
        for part in ["1234567890123456", "kt_live_063UfDVRKBz007pSo2b9TNg1", "1 1234567890123/56"] {
            assert!(may_be_secret(part), "{part}");
        }
    }
}
