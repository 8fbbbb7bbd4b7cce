//! Subjects, and the slots that they get.

use crate::sync::AtomicU64;

/// A subject's hash, which a caller may keep instead of hashing again. It is valid for one table
/// only, since each table has its own seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject(pub(super) u64);

impl Subject {
    /// Returns the fingerprint at its position in a tag, above the generation.
    #[inline]
    fn fingerprint(self) -> u64 {
        // The tag 0 is of a slot that was never used.
        match self.0 << GENERATION_BITS {
            0 => 1 << GENERATION_BITS,
            bits => bits,
        }
    }

    /// Returns whether the tag has the fingerprint of this subject.
    #[inline]
    pub(super) fn owns(self, tag: u64) -> bool {
        tag ^ self.fingerprint() <= GENERATION
    }

    /// Returns the subject's tag for a slot that has `tag`: the next generation.
    pub(super) fn tag_after(self, tag: u64) -> u64 {
        self.fingerprint() | (tag.wrapping_add(1) & GENERATION)
    }
}

const GENERATION_BITS: u32 = 16;
const GENERATION: u64 = (1 << GENERATION_BITS) - 1;

/// A slot: a tag, and the tally of the subject with that fingerprint.
#[derive(Clone, Copy)]
pub(super) struct Slot<'m>(pub(super) &'m [AtomicU64; 2]);

impl<'m> Slot<'m> {
    #[inline]
    pub(super) fn tag(self) -> &'m AtomicU64 {
        &self.0[0]
    }

    #[inline]
    pub(super) fn tally(self) -> &'m AtomicU64 {
        &self.0[1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reassignment_changes_the_tag() {
        let mut tag = 0;
        for generation in 1..=u16::MAX {
            let subject = Subject(u64::MAX << (generation % 48));
            tag = subject.tag_after(tag);
            assert!(subject.owns(tag));
            assert_eq!(tag & 0xFFFF, u64::from(generation));
        }
        assert_eq!(Subject(1).tag_after(tag), 1 << 16, "the generation wraps");
    }
}
