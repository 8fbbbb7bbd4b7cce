//! Nothing of a secret is left in memory when the value that held it is dropped.
//!
//! Only unsafe code can look at memory whose value is gone, so this file has some: one block that
//! drops a value where it lies, and one that then reads its bytes.

use core::mem::ManuallyDrop;

use keytally_core::{Entropy, Key, KeyId, Name, Pepper};

/// How many bytes in `range` of a value's memory are zero once it is dropped.
fn zeros_after_drop<T>(value: T, range: core::ops::Range<usize>) -> usize {
    let mut value = ManuallyDrop::new(value);
    assert!(range.end <= size_of::<T>());
    let first = (&raw const value).cast::<u8>();
    // SAFETY: the value is dropped here only, and is not used as a `T` afterwards.
    unsafe { ManuallyDrop::drop(&mut value) };
    range
        .filter(|&at| {
            // SAFETY: `value` still has its memory, `at` lies within it, and the callers' ranges
            // hold bytes that have been written, no padding.
            let byte = unsafe { first.wrapping_add(at).read_volatile() };
            byte == 0
        })
        .count()
}

#[test]
fn a_key_is_wiped() {
    let name = |text| Name::new(text).unwrap();
    let key =
        Key::mint(name("kt"), name("live"), KeyId::from_number(u64::MAX).unwrap(), &[0xa7; 16])
            .unwrap();
    // Where in the value the text lies is the string's business.
    let (start, len) = (key.expose().as_ptr().addr() - (&raw const key).addr(), key.expose().len());
    assert_eq!(zeros_after_drop(key, start..start + len), len);
}

#[test]
fn entropy_is_wiped() {
    assert_eq!(zeros_after_drop(Entropy::new([0xa7; 24]), 0..24), 24);
}

/// Of a pepper only the fingerprint stays, which the gate's header holds too: eight bytes.
#[test]
fn a_pepper_is_wiped() {
    let pepper = Pepper::new(&[0xa7; 32]).unwrap();
    assert_eq!(
        size_of::<Pepper>(),
        2 * 32 + 8,
        "two states of SHA-256 and the fingerprint, and no padding"
    );
    assert!(zeros_after_drop(pepper, 0..72) >= 64);
}
