//! The files of counts of uses that a gate has mapped.

use keytally_core::{Usage, UsageCounts};
use once_cell::race::OnceBox;

use crate::map::Mapping;
use crate::publish::Table;

/// The number of generations that the header of a gate has 14 bits for.
const GENERATIONS: usize = 1 << 14;

/// The files of counts that a gate has mapped.
///
/// No thread waits for another one that maps a file: it might be stopped, or be missing in a forked
/// child, or have been interrupted by a signal handler that checks a key. So several threads may
/// map the same file at once, and the first of them is used.
///
/// A file stays mapped until the gate is closed, because a request may be counting in it.
#[derive(Debug, Default)]
pub(crate) struct UsageFiles {
    first: OnceBox<UsageFile>,
    /// Those that replaced it, by their generations.
    others: OnceBox<Vec<OnceBox<UsageFile>>>,
}

/// The counts of a file.
pub(crate) type Counts = UsageCounts<Mapping>;

/// A file of counts. It has no counts if it could not be mapped.
#[derive(Debug)]
struct UsageFile {
    generation: u16,
    counts: Option<Counts>,
}

impl Table for Counts {
    fn memory(&self) -> &Mapping {
        self.memory()
    }
}

impl UsageFiles {
    /// Returns the counts of a generation. The first call maps them by `open`.
    #[inline]
    pub(crate) fn counts(
        &self,
        generation: u16,
        open: impl Fn() -> Option<Counts>,
    ) -> Option<Usage<'_>> {
        match self.first.get() {
            Some(file) if file.generation == generation => file.counts.as_ref().map(Counts::view),
            _ => self.map(generation, open),
        }
    }

    /// Returns the counts of a generation that is not the first one, or not mapped yet.
    #[cold]
    fn map(&self, generation: u16, open: impl Fn() -> Option<Counts>) -> Option<Usage<'_>> {
        let map = || Box::new(UsageFile { generation, counts: open() });
        let mut file = self.first.get_or_init(map);
        if file.generation != generation {
            let none = || Box::new((0..GENERATIONS).map(|_| OnceBox::new()).collect());
            file = self.others.get_or_init(none).get(usize::from(generation))?.get_or_init(map);
        }
        file.counts.as_ref().map(Counts::view)
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use super::*;

    #[test]
    fn file_of_every_generation_is_opened_once() {
        let (files, opened) = (UsageFiles::default(), Cell::new(0_u32));
        let open = || {
            opened.set(opened.get() + 1);
            None
        };
        for _ in 0..2 {
            for generation in 1..=0x3FFF {
                assert!(files.counts(generation, open).is_none());
            }
        }
        assert_eq!(opened.get(), 0x3FFF);
    }
}
