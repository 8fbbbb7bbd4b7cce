//! The arguments of the fast path: a text or bytes copied to the stack, and the array of numbers to
//! which a verdict is written. This is the only file of the package with unsafe code.
//!
//! The conversions of napi-rs allocate memory for a text, and count references for an array. A call
//! would take twice as long with them.

use core::ptr;

use napi::bindgen_prelude::{FromNapiValue, TypeName, Uint8ArraySlice, ValidateNapiValue, sys};
use napi::{Error, Result, Status, ValueType};

/// Bytes of a text that are copied to the stack: more than any key or address has.
const STACK_LEN: usize = 384;

/// A text as UTF-8, or the bytes of a `Uint8Array`; neither if the value is `null` or `undefined`.
///
/// A surrogate without its pair becomes U+FFFD.
pub(crate) struct Text {
    stack: [u8; STACK_LEN],
    len: usize,
    heap: Option<Vec<u8>>,
    is_missing: bool,
}

impl Text {
    /// Returns the bytes; `None` if the value is missing.
    #[inline]
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        match &self.heap {
            _ if self.is_missing => None,
            None => self.stack.get(..self.len),
            Some(bytes) => Some(bytes),
        }
    }

    /// Returns the bytes; none if the value is missing.
    #[inline]
    pub(crate) fn bytes_or_empty(&self) -> &[u8] {
        self.bytes().unwrap_or_default()
    }

    /// Copies a text, and returns whether the value is one. If `buffer` is too small, the text is
    /// cut at the end of a character.
    #[inline]
    fn copy(
        env: sys::napi_env,
        value: sys::napi_value,
        buffer: &mut [u8],
        len: &mut usize,
    ) -> bool {
        // SAFETY: the caller's `env` and `value` are valid for this call. Node.js writes at most as
        // many bytes as the length says, a final NUL included.
        let status = unsafe {
            sys::napi_get_value_string_utf8(
                env,
                value,
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                len,
            )
        };
        status == sys::Status::napi_ok
    }

    /// Reads a text that does not fit, or a value of another type.
    #[cold]
    fn read_slow(
        mut self,
        env: sys::napi_env,
        value: sys::napi_value,
        is_text: bool,
    ) -> Result<Self> {
        if is_text {
            let mut len = 0;
            // SAFETY: `env` and `value` are valid for this call. Without a buffer, Node.js only
            // writes the length.
            let status = unsafe {
                sys::napi_get_value_string_utf8(env, value, ptr::null_mut(), 0, &mut len)
            };
            let mut bytes = vec![0; len + 1];
            if status != sys::Status::napi_ok || !Self::copy(env, value, &mut bytes, &mut len) {
                return Err(not_a_text());
            }
            bytes.truncate(len);
            self.heap = Some(bytes);
            return Ok(self);
        }
        let mut kind = 0;
        // SAFETY: `env` and `value` are valid for this call.
        let status = unsafe { sys::napi_typeof(env, value, &mut kind) };
        if status != sys::Status::napi_ok {
            return Err(not_a_text());
        }
        if matches!(kind, sys::ValueType::napi_undefined | sys::ValueType::napi_null) {
            self.is_missing = true;
            return Ok(self);
        }
        // SAFETY: `env` and `value` are valid for this call. No JavaScript runs before the bytes
        // are copied.
        let bytes = unsafe { Uint8ArraySlice::from_napi_value(env, value) };
        self.heap = Some(bytes.map_err(|_| not_a_text())?.to_vec());
        Ok(self)
    }
}

/// Returns the error for a value of another type. The JavaScript part checks types before.
fn not_a_text() -> Error {
    Error::new(Status::InvalidArg, "the value must be a string or a Uint8Array")
}

impl TypeName for Text {
    fn type_name() -> &'static str {
        "string | Uint8Array | null | undefined"
    }

    fn value_type() -> ValueType {
        ValueType::Unknown
    }
}

impl ValidateNapiValue for Text {
    // SAFETY: the function reads nothing.
    unsafe fn validate(_: sys::napi_env, _: sys::napi_value) -> Result<sys::napi_value> {
        // `from_napi_value` checks the type.
        Ok(ptr::null_mut())
    }
}

impl FromNapiValue for Text {
    // SAFETY: napi-rs calls it with the environment and the value of a call that is running.
    #[inline]
    unsafe fn from_napi_value(env: sys::napi_env, value: sys::napi_value) -> Result<Self> {
        let mut text = Self { stack: [0; STACK_LEN], len: 0, heap: None, is_missing: false };
        let is_text = Self::copy(env, value, &mut text.stack, &mut text.len);
        // A character takes at most four bytes, and one byte is the NUL. If more is left, the text
        // is whole.
        if is_text && text.len + 4 < STACK_LEN {
            return Ok(text);
        }
        text.read_slow(env, value, is_text)
    }
}

/// A `Float64Array` of the caller, whose numbers a call may write.
pub(crate) struct Numbers {
    first: *mut f64,
    len: usize,
}

impl Numbers {
    /// Returns the numbers.
    #[inline]
    pub(crate) fn as_mut(&mut self) -> &mut [f64] {
        if self.first.is_null() {
            return &mut [];
        }
        // SAFETY: `from_napi_value` got the address and the length of a `Float64Array`. Its memory
        // stays valid during the call, because the caller holds the array, no JavaScript runs
        // meanwhile, and the array is private to the package, which shares it with no thread. Every
        // value of this type is of another call, so no other reference exists.
        unsafe { core::slice::from_raw_parts_mut(self.first, self.len) }
    }
}

impl TypeName for Numbers {
    fn type_name() -> &'static str {
        "Float64Array"
    }

    fn value_type() -> ValueType {
        ValueType::Object
    }
}

impl ValidateNapiValue for Numbers {
    // SAFETY: the function reads nothing.
    unsafe fn validate(_: sys::napi_env, _: sys::napi_value) -> Result<sys::napi_value> {
        // `from_napi_value` checks the type.
        Ok(ptr::null_mut())
    }
}

impl FromNapiValue for Numbers {
    // SAFETY: napi-rs calls it with the environment and the value of a call that is running.
    #[inline]
    unsafe fn from_napi_value(env: sys::napi_env, value: sys::napi_value) -> Result<Self> {
        let (mut kind, mut len, mut first) = (0, 0, ptr::null_mut());
        // SAFETY: `env` and `value` are valid for this call, and Node.js writes the three results.
        let status = unsafe {
            sys::napi_get_typedarray_info(
                env,
                value,
                &mut kind,
                &mut len,
                &mut first,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        let is_whole = status == sys::Status::napi_ok && kind == sys::TypedarrayType::float64_array;
        if !is_whole {
            return Err(Error::new(Status::InvalidArg, "the value must be a Float64Array"));
        }
        Ok(Self { first: first.cast(), len })
    }
}
