//! Tests that a value with a secret wipes its memory when it is dropped.
//!
//! Only unsafe code can read the memory of a dropped value. This file has two unsafe blocks: one
//! drops a value in its memory, and one then reads the bytes.

use core::mem::ManuallyDrop;

use keytally_core::{Entropy, Key, KeyId, Name, Pepper};

/// Drops a value, and returns how many bytes in `range` of its memory are zero afterwards.
fn zeros_after_drop<T>(value: T, range: core::ops::Range<usize>) -> usize {
    let mut value = ManuallyDrop::new(value);
    assert!(range.end <= size_of::<T>());
    let first = (&raw const value).cast::<u8>();
    // SAFETY: the value is dropped here only, and is not used as a `T` afterwards.
    unsafe { ManuallyDrop::drop(&mut value) };
    range
        .filter(|&offset| {
            // SAFETY: `value` still has its memory, `offset` is within it, and the callers' ranges
            // hold bytes that have been written, no padding.
            let byte = unsafe { first.wrapping_add(offset).read_volatile() };
            byte == 0
        })
        .count()
}

#[test]
fn dropped_key_is_wiped() {
    let name = |text| Name::new(text).unwrap();
    let key =
        Key::mint(name("kt"), name("live"), KeyId::from_number(u64::MAX).unwrap(), &[0xa7; 16])
            .unwrap();
    // The position of the text within the value depends on the string type.
    let (start, len) = (key.expose().as_ptr().addr() - (&raw const key).addr(), key.expose().len());
    assert_eq!(zeros_after_drop(key, start..start + len), len);
}

#[test]
fn dropped_entropy_is_wiped() {
    assert_eq!(zeros_after_drop(Entropy::new([0xa7; 24]), 0..24), 24);
}

/// The eight bytes of the fingerprint remain. They are not secret: the gate's header holds them
/// too.
#[test]
fn dropped_pepper_is_wiped() {
    let pepper = Pepper::new(&[0xa7; 32]).unwrap();
    assert_eq!(
        size_of::<Pepper>(),
        2 * 32 + 8,
        "two states of SHA-256 and the fingerprint, and no padding"
    );
    assert!(zeros_after_drop(pepper, 0..72) >= 64);
}
