//! A cache line of eight words: the unit that every table is built of.

use crate::sync::{AtomicU64, Ordering};

/// Words in a [`CacheLine`].
pub(crate) const CACHE_LINE_WORDS: usize = 8;

/// Bytes in a [`CacheLine`].
pub const CACHE_LINE_LEN: usize = 64;

/// One cache line of eight atomic words: 64 bytes, aligned to 64 bytes. Tables are slices of lines
/// and contain no pointers, so the lines may be a `static`, a heap block or a mapped file.
///
/// ```
/// use keytally_core::CacheLine;
/// static MEMORY: [CacheLine; 80] = [const { CacheLine::new() }; 80];
/// assert_eq!(size_of_val(&MEMORY), 80 * 64);
/// ```
#[derive(Debug)]
#[repr(C, align(64))]
pub struct CacheLine([AtomicU64; CACHE_LINE_WORDS]);

// The table format measures in lines, and a record is exactly one line.
#[cfg(not(any(loom, shuttle)))]
const _: () =
    assert!(size_of::<CacheLine>() == CACHE_LINE_LEN && align_of::<CacheLine>() == CACHE_LINE_LEN);

impl CacheLine {
    /// A line of zeros.
    #[cfg(not(any(loom, shuttle)))]
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; CACHE_LINE_WORDS])
    }

    /// A line of zeros.
    #[cfg(any(loom, shuttle))]
    pub fn new() -> Self {
        Self(core::array::from_fn(|_| AtomicU64::new(0)))
    }

    /// Returns the word at `index`, 0 to 7.
    #[inline]
    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        &self.0[index]
    }

    /// Returns all eight words.
    #[inline]
    pub(crate) fn words(&self) -> &[AtomicU64; CACHE_LINE_WORDS] {
        &self.0
    }

    /// Loads the word at `index`, 0 to 7, with acquire ordering. The format of the table defines
    /// the word's meaning.
    ///
    /// # Panics
    /// If `index` is 8 or more.
    #[cfg_attr(target_pointer_width = "64", inline)]
    #[cfg_attr(not(target_pointer_width = "64"), inline(never))]
    pub fn load(&self, index: usize) -> u64 {
        self.0[index].load(Ordering::Acquire)
    }

    /// Stores the word at `index`, 0 to 7, with release ordering.
    ///
    /// # Panics
    /// If `index` is 8 or more.
    #[cfg_attr(target_pointer_width = "64", inline)]
    #[cfg_attr(not(target_pointer_width = "64"), inline(never))]
    pub fn store(&self, index: usize, value: u64) {
        self.0[index].store(value, Ordering::Release);
    }
}

impl CacheLine {
    /// Stores `new` in the word at `index`, 0 to 7, if the word is `current`.
    ///
    /// # Errors
    /// The word's value if it is not `current`. Nothing is stored then.
    ///
    /// # Panics
    /// If `index` is 8 or more.
    pub fn compare_exchange(&self, index: usize, current: u64, new: u64) -> Result<(), u64> {
        self.0[index].compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire).map(drop)
    }
}

impl Default for CacheLine {
    fn default() -> Self {
        Self::new()
    }
}
