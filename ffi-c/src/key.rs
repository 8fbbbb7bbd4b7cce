//! Keys and key ids as text, without any table.

use core::ffi::c_char;

use keytally_core::{Hint, Key, KeyId, Name, parse_key};

use crate::guard::{Outcome, guard};
use crate::pointers::{In, Out};
use crate::status::kt_status;
use crate::text::{Text, characters, put, utf8};

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
    // Both names, two underscores, an ellipsis of three bytes, four characters.
    assert!(KT_HINT_SIZE == MAX_NAMES_LEN + 2 + 3 + 4 + 1);
};

/// A whole key, secret and all, as it must be handed to its holder: ended by a NUL. The only copy there is. Wipe it with
/// `kt_key_wipe` when it has been shown, and don't log it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct kt_key {
    /// The text.
    pub text: [c_char; KT_KEY_SIZE],
}

impl core::fmt::Debug for kt_key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("kt_key(…)")
    }
}

impl kt_key {
    pub(crate) fn of(key: &Key) -> Self {
        Self { text: characters(key.expose().as_bytes()) }
    }
}

/// The public parts of a key.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kt_key_parts {
    /// The key id.
    pub key_id: u64,
    /// The prefix, ended by a NUL.
    pub prefix: [c_char; KT_NAME_SIZE],
    /// The environment, ended by a NUL.
    pub env: [c_char; KT_NAME_SIZE],
}

/// Reads a key's public parts, and checks its form and checksum, without any gate. It says nothing about whether a gate
/// knows the key.
///
/// Statuses: `KT_KEY_FORM`, `KT_KEY_CHECKSUM`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_key_parse(
    api_key: In<u8>,
    api_key_len: usize,
    parts_out: Out<kt_key_parts>,
) -> kt_status {
    guard(|| {
        let place = parts_out.place()?;
        let parts = parse_key(api_key.slice(api_key_len)?)?;
        place.write(kt_key_parts {
            key_id: parts.id.number(),
            prefix: characters(parts.prefix.as_bytes()),
            env: characters(parts.env.as_bytes()),
        });
        Ok(())
    })
}

/// Makes the text of a key from its parts; gates do that by themselves. `secret` is 16 random bytes.
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
        let place = key_out.place()?;
        let (prefix, env) = (name(prefix, prefix_len)?, name(env, env_len)?);
        let key = Key::mint(prefix, env, self::key_id(key_id)?, &secret.read()?)
            .ok_or(kt_status::KT_NAMES_TOO_LONG)?;
        place.write(kt_key::of(&key));
        Ok(())
    })
}

/// Overwrites a key, in a way that compilers don't leave out. NULL is left alone.
#[unsafe(no_mangle)]
pub extern "C" fn kt_key_wipe(key: Out<kt_key>) {
    if let Ok(place) = key.place() {
        place.wipe();
    }
}

/// Writes what may be shown of a key, such as `kt_live_…9aZk` in UTF-8, ended by a NUL, and its length without that.
/// Of a key of another form only the last four characters are shown, and of a short one none.
///
/// Statuses: `KT_BUFFER_TOO_SMALL`: `KT_HINT_SIZE` bytes are always enough.
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
        let written = written_out.place()?;
        let hint = Hint::new(api_key.slice(api_key_len)?);
        put(buffer, written, Text::<KT_HINT_SIZE>::of(&hint).as_bytes())
    })
}

/// Writes a key id as its 11 characters and a NUL, and their number.
///
/// Statuses: `KT_KEY_ID_FORM` for 0; `KT_BUFFER_TOO_SMALL`: `KT_KEY_ID_SIZE` bytes are always enough.
#[unsafe(no_mangle)]
pub extern "C" fn kt_key_id_text(
    key_id: u64,
    buffer: Out<c_char>,
    buffer_len: usize,
    written_out: Out<usize>,
) -> kt_status {
    guard(|| {
        let buffer = buffer.buffer(buffer_len)?;
        let written = written_out.place()?;
        let key_id = self::key_id(key_id)?;
        put(buffer, written, Text::<KT_KEY_ID_SIZE>::of(&key_id).as_bytes())
    })
}

/// Reads a key id from its 11 characters.
///
/// Statuses: `KT_KEY_ID_FORM`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_key_id_parse(text: In<c_char>, text_len: usize, key_id_out: Out<u64>) -> kt_status {
    guard(|| {
        let place = key_id_out.place()?;
        let text = utf8(text.text(text_len)?, kt_status::KT_KEY_ID_FORM)?;
        let key_id: KeyId = text.parse().map_err(|_| kt_status::KT_KEY_ID_FORM)?;
        place.write(key_id.number());
        Ok(())
    })
}

/// The key id of this number.
pub(crate) fn key_id(number: u64) -> Outcome<KeyId> {
    KeyId::from_number(number).ok_or(kt_status::KT_KEY_ID_FORM)
}

/// The prefix or environment in these bytes.
pub(crate) fn name(text: In<'_, c_char>, len: usize) -> Outcome<Name> {
    Name::new(utf8(text.text(len)?, kt_status::KT_NAME_FORM)?).ok_or(kt_status::KT_NAME_FORM)
}
