//! What the requests of a gate need besides their charges.

use super::table::{Gate, LIST_WORD, PEPPER_LINE, RESERVING_FLAG, USAGE_MASK, USAGE_SHIFT};
use crate::bits::low;
use crate::cache_line::CacheLine;
use crate::reservation::Reserve;
use crate::usage::{MAX_GENERATION, Usage};

/// The bits of the generation of the counts of uses and of [`RESERVING_FLAG`].
const NEEDS_MASK: u32 = USAGE_MASK | low(RESERVING_FLAG >> USAGE_SHIFT);

const _: () = assert!(MAX_GENERATION as u32 == USAGE_MASK);

/// What the requests of a gate need besides their charges: see [`Gate::needs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs(u16);

impl Needs {
    /// Returns whether they need nothing: no uses are counted, and nothing is reserved.
    #[inline]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Returns the generation of the counts of uses; 0 if no uses are counted.
    #[inline]
    pub const fn usage_generation(self) -> u16 {
        self.0 & MAX_GENERATION
    }

    /// Returns whether requests need a [reservation](crate::Reserve), in every process that uses
    /// the gate.
    #[inline]
    pub const fn reservation(self) -> bool {
        self.0 & !MAX_GENERATION != 0
    }
}

/// What a gate does for each request besides charging it.
#[derive(Clone, Copy, Debug)]
pub struct Extras<'g> {
    /// Where the uses of keys are counted.
    pub usage: Option<Usage<'g>>,
    /// What requests must also reserve.
    pub reservation: Option<&'g dyn Reserve>,
}

impl<M: AsRef<[CacheLine]>> Gate<M> {
    /// Returns what the requests of the gate need besides their charges.
    #[inline]
    pub fn needs(&self) -> Needs {
        let word = self.memory.as_ref()[PEPPER_LINE].load(LIST_WORD);
        // Only the lowest 15 bits remain.
        Needs((low(word) >> USAGE_SHIFT & NEEDS_MASK) as u16)
    }
}
