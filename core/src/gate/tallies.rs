//! The words of a key's tallies, and what each counts.

use super::extension::Location;
use super::plan::Shape;
use super::table::Gate;
use crate::cache_line::CacheLine;
use crate::record::{RecordRef, TALLY};
use crate::section::Section;
use crate::sync::AtomicU64;
use crate::tally::Layout;

impl<M: AsRef<[CacheLine]>> Gate<M> {
    /// Returns the section of a tally.
    pub(super) fn section_of(&self, tally: usize) -> &Section {
        self.sections().get(self.section_number(tally)).unwrap_or(&Section::Key)
    }

    /// Returns the number of the section of a tally.
    pub(super) fn section_number(&self, tally: usize) -> usize {
        self.shape_of(tally).map_or(0, |shape| shape.section)
    }

    /// Returns the shape of a tally; `None` in a plain gate.
    pub(super) fn shape_of(&self, tally: usize) -> Option<&Shape> {
        self.extension.as_ref()?.shapes.tallies.get(tally)
    }

    /// Returns the layout of a tally.
    pub(super) fn layout_of(&self, tally: usize) -> &Layout {
        self.shape_of(tally).map_or(&self.layout, |shape| &shape.layout)
    }

    /// Returns the word of a tally and its layout.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    pub(super) fn tally_word<'m>(
        &'m self,
        at: RecordRef<'m>,
        team: Option<u32>,
        tally: usize,
    ) -> Option<(&'m AtomicU64, &'m Layout)> {
        let Some(extension) = &self.extension else {
            return (tally == 0).then(|| (at.tally(), &self.layout));
        };
        let layout = &extension.shapes.tallies.get(tally)?.layout;
        let atomic = match extension.location(tally) {
            Location::Record => at.tally(),
            Location::Entry(word) => {
                let (line, first) = extension.entry(self.memory.as_ref(), at.number);
                line.word(first + word)
            }
            Location::Team(word) => {
                let number = team.filter(|&number| number < extension.teams)?;
                extension.team(self.memory.as_ref(), number).word(TALLY + word)
            }
        };
        Some((atomic, layout))
    }

    /// Returns whether the gate has a tally with this number. A charge of another gate may have
    /// others.
    pub(super) fn has_tally(&self, tally: usize) -> bool {
        tally < self.tally_count()
    }

    /// Returns the layouts of the tallies of the section with this number.
    pub(super) fn layouts_of(&self, section: usize) -> impl Iterator<Item = &Layout> {
        let its = (0..self.tally_count()).filter(move |&it| self.section_number(it) == section);
        its.map(|tally| self.layout_of(tally))
    }

    /// Returns whether all keys of a team share the tally.
    pub(super) fn is_shared(&self, tally: usize) -> bool {
        *self.section_of(tally) == Section::Team
    }

    /// Returns the words of the tallies that a key does not share, with their layouts.
    pub(super) fn own_tallies<'m>(
        &'m self,
        at: RecordRef<'m>,
    ) -> impl Iterator<Item = (&'m AtomicU64, &'m Layout)> {
        let own = (0..self.tally_count()).filter(|&tally| !self.is_shared(tally));
        own.filter_map(move |tally| self.tally_word(at, None, tally))
    }
}
