//! Policies as text, without any table.

use core::ffi::c_char;

use keytally_core::IMPORTED_KEY_LEN;
use keytally_core::Policy;

use crate::guard::{Outcome, guard};
use crate::pointers::{In, Out};
use crate::status::kt_status;
use crate::text::{Text, put, utf8};

/// Always enough for a policy as text, and for a sentence on what is wrong with one, with the NUL.
pub const KT_POLICY_SIZE: usize = 256;

/// The policy in these bytes.
pub(crate) fn policy(text: In<'_, c_char>, len: usize) -> Outcome<Policy> {
    let text = text.text(len)?;
    if text.len() > keytally_core::MAX_POLICY_LEN {
        return Err(kt_status::KT_POLICY_TOO_LONG);
    }
    utf8(text, kt_status::KT_POLICY_SYNTAX)?
        .parse()
        .map_err(|error: keytally_core::ParsePolicyError| error.kind().into())
}

/// Checks a policy, and tells how it is written.
///
/// On `KT_OK` the policy as this library writes it (`1000/hour,100/m` as `100/minute, 1000/hour`) is in `buffer`, ended
/// by a NUL, and its length without that in `written_out`.
///
/// Statuses: those that begin with `KT_POLICY_`; `KT_BUFFER_TOO_SMALL`: `KT_POLICY_SIZE` bytes are always enough.
#[unsafe(no_mangle)]
pub extern "C" fn kt_policy_check(
    policy: In<c_char>,
    policy_len: usize,
    buffer: Out<c_char>,
    buffer_len: usize,
    written_out: Out<usize>,
) -> kt_status {
    guard(|| {
        let buffer = buffer.buffer(buffer_len)?;
        let written = written_out.place()?;
        let policy = self::policy(policy, policy_len)?;
        put(buffer, written, Text::<KT_POLICY_SIZE>::of(&policy).as_bytes())
    })
}

/// Writes in one sentence what is wrong with a policy, naming the part of it. Writes the empty text when nothing is.
///
/// The sentence is in `buffer`, ended by a NUL, and its length without that in `written_out`. It is shown to whoever
/// wrote the policy, as `kt_status_message` cannot name the part. A part of 16 bytes or more may be a key that was given in
/// place of a policy, so it is not named: the sentence is then that of `kt_status_message`.
///
/// Statuses: `KT_BUFFER_TOO_SMALL`: `KT_POLICY_SIZE` bytes are always enough.
#[unsafe(no_mangle)]
pub extern "C" fn kt_policy_explain(
    policy: In<c_char>,
    policy_len: usize,
    buffer: Out<c_char>,
    buffer_len: usize,
    written_out: Out<usize>,
) -> kt_status {
    guard(|| {
        let buffer = buffer.buffer(buffer_len)?;
        let written = written_out.place()?;
        let sentence = match core::str::from_utf8(policy.text(policy_len)?) {
            Ok(text) => match text.parse::<Policy>() {
                Ok(_) => return put(buffer, written, b""),
                Err(error) if error.part().len() >= IMPORTED_KEY_LEN.start => {
                    return put(buffer, written, kt_status::from(error.kind()).message().to_bytes());
                }
                Err(error) => Text::<KT_POLICY_SIZE>::of(&error),
            },
            Err(_) => {
                Text::of(&"a policy is ASCII text like \"100/minute, 1000/hour\", and this is not even UTF-8")
            }
        };
        put(buffer, written, sentence.as_bytes())
    })
}
