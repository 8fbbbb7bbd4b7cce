//! Checks allocate nothing after set-up, whether admitted, denied, invalid or missing, and also
//! when a limiter meets a new subject or is full. A followed gate allocates once in each thread, at
//! its first use.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use std::alloc::System;

use keytally::{Followed, Gate, GateConfig, Limiter, OnFull, Outcome, Plan, Verdict};

use crate::support::{new_key, peppers};

/// The system's allocator, which counts the allocations of the current thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that ends may allocate after its counter was destroyed.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every method passes its arguments to the system's allocator and returns its result.
// Counting touches a constant-initialized cell of the thread, which allocates nothing and cannot
// unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller guarantees what `alloc` requires, a layout of more than 0 bytes.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller guarantees what `alloc_zeroed` requires, a layout of more than 0
        // bytes.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        count();
        // SAFETY: the caller guarantees that the block came from this allocator, so from `System`,
        // with this layout, and that `len` is neither 0 nor overflows when rounded up.
        unsafe { System.realloc(pointer, layout, len) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller guarantees that the block came from this allocator, so from `System`,
        // with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Returns the result of `work`, and how often it allocated.
fn allocations<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = ALLOCATIONS.get();
    let result = work();
    (result, ALLOCATIONS.get() - before)
}

#[test]
fn allocator_counts_allocations() {
    assert_eq!(allocations(|| ()).1, 0);
    assert_eq!(allocations(|| core::hint::black_box(vec![0u8; 100])).1, 1);
}

#[test]
fn gate_check_of_any_outcome_allocates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let plan = Plan::new("default", "3/31d".parse().unwrap()).unwrap();
    let config = GateConfig::default().with_keys(100).with_plans(vec![plan]);
    let gate = Gate::create(folder.path().join("api.gate"), peppers(), &config).unwrap();
    let new = new_key();
    let (key, key_id) = gate.issue(&new).unwrap();
    let key = key.expose().as_bytes();
    let imported = b"a-key-of-another-form";
    gate.import(imported, &new).unwrap();
    let revoked = gate.issue(&new).unwrap();
    gate.revoke(revoked.1).unwrap();
    let mut wrong = key.to_vec();
    wrong[20] = if wrong[20] == b'0' { b'1' } else { b'0' };

    let checked = |key: Option<&[u8]>, cost, outcome| {
        let (verdict, count) = allocations(|| gate.check(key, cost));
        assert_eq!((verdict.outcome(), count), (outcome, 0));
        let (verdict, count) = allocations(|| gate.peek(key, cost));
        assert!(count == 0 && !verdict.headers().as_str().is_empty());
        assert_eq!(allocations(|| (verdict.headers(), verdict.problem(), verdict.body())).1, 0);
    };
    checked(Some(key), 3, Outcome::Admitted);
    checked(Some(key), 3, Outcome::Denied);
    checked(Some(key), 4, Outcome::TooCostly);
    checked(Some(imported), 1, Outcome::Admitted);
    checked(Some(&wrong), 1, Outcome::InvalidKey);
    checked(Some(b"nonsense"), 1, Outcome::InvalidKey);
    checked(Some(&[b'x'; 10_000]), 1, Outcome::InvalidKey);
    checked(Some(revoked.0.expose().as_bytes()), 1, Outcome::InvalidKey);
    checked(None, 1, Outcome::MissingKey);

    let charge = gate.check(Some(imported), 2).charge().unwrap();
    let adjusted = allocations(|| {
        gate.settle(key_id, charge, 1).is_some()
            && gate.refund(key_id, charge).is_some()
            && gate.reset(key_id).is_some()
    });
    assert_eq!(adjusted, (true, 0));
}

#[test]
fn followed_gate_allocates_once_in_each_thread() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.gate");
    Gate::create(&path, peppers(), &GateConfig::default().with_keys(1)).unwrap();
    let gate = Followed::open(&path, peppers()).unwrap();
    let check = || allocations(|| gate.load().check(Some(b"nonsense"), 1).outcome());
    for _ in 0..2 {
        std::thread::scope(|scope| {
            let counts = scope.spawn(|| [check().1, check().1, check().1]).join().unwrap();
            assert!(counts[0] <= 1 && counts[1..] == [0, 0], "{counts:?}");
        });
    }
}

#[test]
fn limiter_check_of_any_outcome_allocates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("limiter");
    let limiter = Limiter::create(path, &"2/31d".parse().unwrap(), 1000).unwrap();
    let ((), count) = allocations(|| {
        for subject in 0..1000u32 {
            assert_eq!(limiter.check(&subject.to_le_bytes(), 2).outcome(), Outcome::Admitted);
        }
        for subject in 0..1000u32 {
            assert_eq!(limiter.check(&subject.to_le_bytes(), 1).outcome(), Outcome::Denied);
        }
        let others = (1000..40_000u32).map(|subject| limiter.check(&subject.to_le_bytes(), 1));
        assert!(others.filter(Verdict::is_shared).count() > 1000);
        limiter.set_on_full(OnFull::Refuse);
        let others = (1000..40_000u32).map(|subject| limiter.check(&subject.to_le_bytes(), 1));
        assert!(others.filter(|verdict| verdict.outcome() == Outcome::Full).count() > 1000);
    });
    assert_eq!(count, 0);
}
