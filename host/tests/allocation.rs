//! Nothing is allocated after set-up: not by an admitted check, nor by a denied, invalid or missing one, nor when a
//! limiter meets a new subject or is full. A followed gate allocates once, at its first use in a thread.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use std::alloc::System;

use keytally::NewKey;
use keytally::{Followed, Gate, GateConfig, Limiter};
use keytally::{Name, Outcome, Peppers, Plan};

/// The system's allocator, which counts what the present thread asks of it.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that ends may free and allocate when the counter is gone already.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every method hands its arguments on to the system's allocator and gives back its answer; counting touches a
// constant-initialised cell of the thread, which allocates nothing and can't unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller guarantees what `alloc` asks for, a layout of more than 0 bytes.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller guarantees what `alloc_zeroed` asks for, a layout of more than 0 bytes.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        count();
        // SAFETY: the caller guarantees that the block came from here, so from `System`, with this layout, and that
        // `len` is no 0 and no overflow.
        unsafe { System.realloc(pointer, layout, len) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller guarantees that the block came from here, so from `System`, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What `work` gives, and how often it allocated.
fn allocations<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = ALLOCATIONS.get();
    let result = work();
    (result, ALLOCATIONS.get() - before)
}

#[test]
fn allocations_are_counted() {
    assert_eq!(allocations(|| ()).1, 0);
    assert_eq!(allocations(|| core::hint::black_box(vec![0u8; 100])).1, 1);
}

#[test]
fn a_gate_check_allocates_nothing_whatever_its_outcome() {
    let folder = tempfile::tempdir().unwrap();
    let peppers = Peppers::new(&[b"a pepper for tests, of 32 bytes."]).unwrap();
    let plan = Plan::new("default", "3/31d".parse().unwrap()).unwrap();
    let config = GateConfig { keys: 100, plans: vec![plan], ..GateConfig::default() };
    let gate = Gate::create(folder.path().join("api.gate"), peppers, &config).unwrap();
    let new = NewKey::new(42, Name::new("live").unwrap());
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
    let peppers = || Peppers::new(&[b"a pepper for tests, of 32 bytes."]).unwrap();
    Gate::create(&path, peppers(), &GateConfig { keys: 1, ..GateConfig::default() }).unwrap();
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
fn a_limiter_check_allocates_nothing_whatever_its_outcome() {
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
        let full = (1000..3000u32)
            .filter(|subject| limiter.check(&subject.to_le_bytes(), 1).outcome() == Outcome::Full);
        assert!(full.count() > 1000);
    });
    assert_eq!(count, 0);
}
