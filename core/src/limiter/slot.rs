//! Subjects, and the slots that they get.

use crate::sync::AtomicU64;
use crate::tally::EMPTY;

/// A subject's hash, which a caller may keep instead of hashing again. It is valid for one table
/// only, since each table has its own seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject(pub(super) u64);

impl Subject {
    /// Returns the fingerprint at its position in an owner word, above the generation.
    #[inline]
    fn fingerprint(self) -> u64 {
        // The owner word of a slot that was never used is 0.
        match self.0 << GENERATION_BITS {
            0 => 1 << GENERATION_BITS,
            bits => bits,
        }
    }

    /// Returns whether an owner word has the fingerprint of this subject.
    #[inline]
    pub(super) fn is_named_by(self, owner: u64) -> bool {
        owner ^ self.fingerprint() <= GENERATION
    }

    /// Returns the fingerprint in an owner word, as a number.
    pub(super) const fn fingerprint_in(owner: u64) -> u64 {
        owner >> GENERATION_BITS
    }

    /// Returns the fingerprint as a number.
    pub(super) fn fingerprint_number(self) -> u64 {
        Self::fingerprint_in(self.fingerprint())
    }

    /// Returns the number of the subject as the owner of what is reserved for it: the rule by which
    /// it counts, above the lowest 61 bits of its hash. It is not 0.
    pub(super) fn owner_number(self, rule: usize) -> u64 {
        let hash = self.0 & (u64::MAX >> RULE_BITS);
        ((rule as u64) << (u64::BITS - RULE_BITS) | hash).max(1)
    }

    /// Returns the index of the rule in an owner's number, and a subject with its fingerprint.
    pub(super) fn of_owner_number(owner: u64) -> (usize, Self) {
        (crate::bits::index(owner >> (u64::BITS - RULE_BITS)), Self(owner))
    }

    /// Returns the subject's owner word for a slot that has `owner`: the next generation.
    pub(super) fn owner_after(self, owner: u64) -> u64 {
        self.fingerprint() | (owner.wrapping_add(1) & GENERATION)
    }
}

/// Bits of the index of a rule in an owner's number.
const RULE_BITS: u32 = 3;

const GENERATION_BITS: u32 = 16;
const GENERATION: u64 = (1 << GENERATION_BITS) - 1;

/// The tally of a slot that no subject has: it was never used, or its reservation was canceled.
pub(super) const TOMBSTONE: u64 = EMPTY;

/// A slot: an owner word, and the tally of the subject with that fingerprint.
#[derive(Clone, Copy)]
pub(super) struct Slot<'m>(pub(super) &'m [AtomicU64; 2]);

impl<'m> Slot<'m> {
    #[inline]
    pub(super) fn owner(self) -> &'m AtomicU64 {
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
    fn each_reassignment_changes_the_owner_word() {
        let mut owner = 0;
        for generation in 1..=u16::MAX {
            let subject = Subject(u64::MAX << (generation % 48));
            owner = subject.owner_after(owner);
            assert!(subject.is_named_by(owner));
            assert_eq!(owner & 0xFFFF, u64::from(generation));
        }
        assert_eq!(Subject(1).owner_after(owner), 1 << 16, "the generation wraps");
    }
}
