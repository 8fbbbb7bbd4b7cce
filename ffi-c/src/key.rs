//! Keys and key ids as text, without a table.

use core::ffi::c_char;

use keytally_core::{Hint, Key, KeyId, Name, parse_key};

use crate::guard::guard;
use crate::pointers::{In, Out, plain};
use crate::status::{FfiResult, kt_status};
use crate::text::{Text, put, to_characters, utf8};

/// Bytes of a key as text, with the NUL.
pub const KT_KEY_SIZE: usize = 56;

/// Bytes of a prefix or an environment, with the NUL.
pub const KT_NAME_SIZE: usize = 9;

/// Bytes of a key id as text, with the NUL.
pub const KT_KEY_ID_SIZE: usize = 12;

/// Bytes of a hint, with the NUL.
pub const KT_HINT_SIZE: usize = 24;

const _: () = {
    use keytally_core::{KEY_ID_LEN, MAX_KEY_LEN, MAX_NAME_LEN, MAX_NAMES_LEN};
    assert!(KT_KEY_SIZE == MAX_KEY_LEN + 1);
    assert!(KT_NAME_SIZE == MAX_NAME_LEN + 1);
    assert!(KT_KEY_ID_SIZE == KEY_ID_LEN + 1);
    // Both names, two underscores, an ellipsis of three bytes, four characters, a NUL.
    assert!(KT_HINT_SIZE == MAX_NAMES_LEN + 2 + 3 + 4 + 1);
};

plain! {
    /// A complete key with its secret, as text with a NUL. This is the only copy of the secret.
    ///
    /// Hand it to its holder, then call `kt_key_wipe`. Do not log it.
    pub struct kt_key {
        /// The text.
        pub text: [c_char; KT_KEY_SIZE],
    }

    /// The public parts of a key. This library writes it; reserved members are zeros.
    #[derive(Debug)]
    pub struct kt_key_parts {
        /// The key id.
        pub key_id: u64,
        /// The prefix, with a NUL.
        pub prefix: [c_char; KT_NAME_SIZE],
        /// The environment, with a NUL.
        pub env: [c_char; KT_NAME_SIZE],
        /// Zeros.
        pub reserved_: [u8; 14],
    }
}

impl core::fmt::Debug for kt_key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("kt_key(…)")
    }
}

impl kt_key {
    pub(crate) fn new(key: &Key) -> Self {
        Self { text: to_characters(key.expose().as_bytes()) }
    }
}

/// Parses a key without a gate: checks its form and its checksum, and writes its public parts.
/// Whether a gate holds the key remains open.
///
/// Statuses: `KT_KEY_FORM`, `KT_KEY_CHECKSUM`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_key_parse(
    api_key: In<u8>,
    api_key_len: usize,
    parts_out: Out<kt_key_parts>,
) -> kt_status {
    guard(|| {
        let target = parts_out.target()?;
        let parts = parse_key(api_key.slice(api_key_len)?)?;
        target.write(kt_key_parts {
            key_id: parts.key_id.number(),
            prefix: to_characters(parts.prefix.as_bytes()),
            env: to_characters(parts.env.as_bytes()),
            reserved_: [0; 14],
        });
        Ok(())
    })
}

/// Makes the text of a key from its parts. A gate does this itself when it issues a key. `secret`
/// is 16 random bytes.
///
/// Statuses: `KT_NAME_FORM`, `KT_NAMES_TOO_LONG`, `KT_KEY_ID_FORM` for the key id 0.
#[unsafe(no_mangle)]
pub extern "C" fn kt_key_mint(
    prefix: In<c_char>,
    prefix_len: usize,
    env: In<c_char>,
    env_len: usize,
    key_id: u64,
    secret: In<[u8; 16]>,
    key_out: Out<kt_key>,
) -> kt_status {
    guard(|| {
        let target = key_out.target()?;
        let (prefix, env) = (name(prefix, prefix_len)?, name(env, env_len)?);
        let key = Key::mint(prefix, env, checked_key_id(key_id)?, &secret.read()?)
            .ok_or(kt_status::KT_NAMES_TOO_LONG)?;
        target.write(kt_key::new(&key));
        Ok(())
    })
}

/// Overwrites a key with zeros in a way that a compiler cannot leave out. Does nothing for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn kt_key_wipe(key: Out<kt_key>) {
    if let Ok(target) = key.target() {
        target.wipe();
    }
}

/// Writes what may be shown of a key, such as `kt_live_…9aZk`: UTF-8 and a NUL. Writes the length
/// without the NUL to `written_out`.
///
/// Of a key of another form, only the last four characters are shown; of a short one, none.
///
/// Statuses: `KT_BUFFER_TOO_SMALL`; `KT_HINT_SIZE` bytes are always enough.
#[unsafe(no_mangle)]
pub extern "C" fn kt_key_hint(
    api_key: In<u8>,
    api_key_len: usize,
    buffer: Out<c_char>,
    buffer_len: usize,
    written_out: Out<usize>,
) -> kt_status {
    guard(|| {
        let buffer = buffer.buffer(buffer_len)?;
        let written = written_out.target()?;
        let hint = Hint::new(api_key.slice(api_key_len)?);
        put(buffer, written, Text::<KT_HINT_SIZE>::from_display(&hint).as_bytes())
    })
}

/// Writes a key id as its 11 characters and a NUL. Writes the length without the NUL to
/// `written_out`.
///
/// Statuses: `KT_KEY_ID_FORM` for 0. `KT_BUFFER_TOO_SMALL`; `KT_KEY_ID_SIZE` bytes are always
/// enough.
#[unsafe(no_mangle)]
pub extern "C" fn kt_key_id_text(
    key_id: u64,
    buffer: Out<c_char>,
    buffer_len: usize,
    written_out: Out<usize>,
) -> kt_status {
    guard(|| {
        let buffer = buffer.buffer(buffer_len)?;
        let written = written_out.target()?;
        let key_id = checked_key_id(key_id)?;
        put(buffer, written, Text::<KT_KEY_ID_SIZE>::from_display(&key_id).as_bytes())
    })
}

/// Parses a key id of 11 characters.
///
/// Statuses: `KT_KEY_ID_FORM`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_key_id_parse(
    text: In<c_char>,
    text_len: usize,
    key_id_out: Out<u64>,
) -> kt_status {
    guard(|| {
        let target = key_id_out.target()?;
        let text = utf8(text.text(text_len)?, kt_status::KT_KEY_ID_FORM)?;
        let key_id: KeyId = text.parse().map_err(|_| kt_status::KT_KEY_ID_FORM)?;
        target.write(key_id.number());
        Ok(())
    })
}

/// Returns the key id of `number`, or the error `KT_KEY_ID_FORM` for 0.
pub(crate) fn checked_key_id(number: u64) -> FfiResult<KeyId> {
    KeyId::from_number(number).ok_or(kt_status::KT_KEY_ID_FORM)
}

/// Parses a prefix or an environment.
pub(crate) fn name(text: In<'_, c_char>, len: usize) -> FfiResult<Name> {
    Name::new(utf8(text.text(len)?, kt_status::KT_NAME_FORM)?).ok_or(kt_status::KT_NAME_FORM)
}
