//! The files of counts of uses that a gate has mapped.

use keytally_core::{Usage, UsageCounts};
use once_cell::race::OnceBox;

use crate::map::Mapping;
use crate::publish::Table;

/// How many files of counts a gate that stays open can use in turn.
const FILES: usize = 4;

/// The files of counts that a gate has mapped.
///
/// No thread waits for another one that maps a file: it might be stopped, or be missing in a forked
/// child, or have been interrupted by a signal handler that checks a key. So several threads may
/// map the same file at once, and the first of them is used.
#[derive(Debug, Default)]
pub(crate) struct UsageFiles([OnceBox<UsageFile>; FILES]);

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
        match self.0[0].get() {
            Some(file) if file.generation == generation => file.counts.as_ref().map(Counts::view),
            _ => self.map(generation, open),
        }
    }

    /// Returns the counts of a generation that is not the first one, or not mapped yet.
    #[cold]
    fn map(&self, generation: u16, open: impl Fn() -> Option<Counts>) -> Option<Usage<'_>> {
        let file = self.0.iter().find_map(|slot| {
            let file = slot.get_or_init(|| Box::new(UsageFile { generation, counts: open() }));
            (file.generation == generation).then_some(file)
        })?;
        file.counts.as_ref().map(Counts::view)
    }
}
