//! File sizes: a gate grows by one line of 64 bytes, a hint and a checksum for each key. A limiter
//! grows by 16 bytes for each slot, and 8 bytes for the lock word of each bucket of eight slots.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use keytally::{CACHE_LINE_LEN, Gate, GateConfig, HEADER_LEN, Limiter, Peppers, Policy};

fn len(path: &Path) -> u64 {
    path.metadata().unwrap().len()
}

#[test]
fn gate_takes_64_bytes_per_key_and_8_per_hint() {
    let folder = tempfile::tempdir().unwrap();
    for keys in [1, 7, 8, 9, 1000, 100_000] {
        let path = folder.path().join(keys.to_string());
        let peppers = Peppers::new(&[[7; 32]]).unwrap();
        Gate::create(&path, peppers, &GateConfig::default().with_keys(keys)).unwrap();
        let hints = u64::from(keys).div_ceil(8) * 64;
        assert_eq!(len(&path), 4096 + u64::from(keys) * 64 + hints, "{keys}");
    }
}

#[test]
fn limiter_takes_16_bytes_per_slot_and_per_bucket() {
    let folder = tempfile::tempdir().unwrap();
    let policy: Policy = "100/minute, 1000/hour".parse().unwrap();
    for capacity in [1, 7, 64, 1000, 16_383, 16_384, 100_000] {
        let path = folder.path().join(capacity.to_string());
        let limiter = Limiter::create(&path, &policy, capacity).unwrap();
        let slots = limiter.table().slots_total();
        let words_of_buckets = (slots / 8).div_ceil(4) * 64;
        assert_eq!(len(&path), 4096 + slots * 16 + words_of_buckets, "{capacity}");
        // 1.5 slots for each subject, in whole buckets of eight. A small table has those of a
        // larger capacity, unless it is tiny.
        let spread = if capacity < 64 { 0 } else { (u64::from(capacity) * 16).min(16_384) };
        let subjects = u64::from(capacity).max(spread);
        assert_eq!(slots, (subjects * 3).div_ceil(16) * 8, "{capacity}");
        assert_eq!(limiter.table().capacity(), capacity);
    }
}

#[test]
fn header_is_one_page_and_files_are_whole_lines() {
    assert_eq!((HEADER_LEN, CACHE_LINE_LEN), (4096, 64));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("limiter");
    Limiter::create(&path, &"1/second".parse().unwrap(), 12_345).unwrap();
    assert_eq!(len(&path) % 64, 0);
    // The disk space of the whole file is reserved, so that no check finds the disk full.
    #[cfg(unix)]
    assert!(std::os::unix::fs::MetadataExt::blocks(&path.metadata().unwrap()) * 512 >= len(&path));
}
