//! Reads the input as bytes, numbers and times. After its end, all bytes are 0, so every input is
//! valid.

/// The rest of the input.
#[derive(Debug)]
pub(crate) struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the rest without reading it.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let taken = N.min(self.0.len());
        let (these, rest) = self.0.split_at(taken);
        self.0 = rest;
        let mut array = [0; N];
        array[..taken].copy_from_slice(these);
        array
    }

    /// Reads `len` bytes.
    pub(crate) fn take(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.byte()).collect()
    }

    /// Reads a little-endian number of 64 bits.
    pub(crate) fn word(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// Reads a number below `bound`, which is 1 to 256.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    /// Reads an index. Returns the element at this index.
    pub(crate) fn pick<T: Copy>(&mut self, elements: &[T]) -> T {
        elements[self.below(elements.len())]
    }

    /// Reads a cost: usually small, sometimes an extreme.
    pub(crate) fn cost(&mut self) -> u32 {
        match self.byte() {
            byte @ 0..=199 => u32::from(byte % 8),
            byte @ 200..=249 => u32::from(byte) * 3,
            250..=252 => u32::from_le_bytes(self.array()),
            _ => u32::MAX,
        }
    }
}

/// A clock that the input advances. A reading may be earlier than previous ones, by less than a
/// bound.
#[derive(Debug)]
pub(crate) struct Clock {
    /// The latest time so far, in milliseconds since the Unix epoch.
    pub(crate) latest_ms: u64,
    /// The bound on how much earlier than `latest_ms` a reading may be.
    tolerance_ms: u64,
}

impl Clock {
    /// Returns a clock at 2026-01-01, 00:00 UTC, whose readings are late by less than the longest
    /// window or a minute, whichever is longer.
    pub(crate) fn new(longest_window_s: u32) -> Self {
        Self::late_by_less_than(longest_window_s.max(60))
    }

    /// Returns a clock at 2026-01-01, 00:00 UTC, whose readings are late by less than `seconds`.
    pub(crate) fn late_by_less_than(seconds: u32) -> Self {
        Self { latest_ms: 1_767_225_600_000, tolerance_ms: u64::from(seconds) * 1000 }
    }

    /// Advances the clock or not. Returns the time that a caller reads, in milliseconds.
    pub(crate) fn read(&mut self, bytes: &mut Bytes<'_>) -> u64 {
        let step = u64::from(bytes.byte());
        let mut late = 0;
        match step {
            0..=99 => {}
            100..=159 => self.latest_ms += (step - 99) * 17,
            160..=199 => self.latest_ms += (step - 159) * 1000,
            200..=229 => self.latest_ms += (step - 199) * 61_000,
            230..=239 => self.latest_ms += (step - 229) * 3_600_000,
            // At most 13/14 of the bound: stamps are whole units, so rounding could exceed it.
            240..=253 => late = self.tolerance_ms * (step - 240) / 14,
            // The start of the next minute or hour, where windows begin.
            254 => self.latest_ms = self.latest_ms.next_multiple_of(60_000),
            _ => self.latest_ms = self.latest_ms.next_multiple_of(3_600_000),
        }
        self.latest_ms - late
    }
}

/// Policies that fit one word. Most have limits small enough to be reached.
pub(crate) const POLICIES: &[&str] = &[
    "3/second",
    "100/minute, 1000/hour",
    "5/10s, 9/minute",
    "1/minute, 2/hour, 3/day",
    "1/second, 2/minute, 3/hour, 4/day",
    "sliding 5/10s",
    "sliding 3/second, 5/minute",
    "sliding 10/minute, 20/hour",
    "sliding 7/second, 7/minute, 7/hour, 7/day",
    "4294967295/31d",
    "sliding 1/7s, 2/21s",
    "12/90s",
    "5/2h, 7/5h, 9/day",
    "sliding 4/4s, 5/6s",
    "3/day, 9/week, 20/month@30",
];
