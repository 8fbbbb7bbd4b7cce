//! What a gate with sections, teams, scopes or warnings has in addition to a plain one.
//!
//! A gate is *plain* if every plan fits one tally and has no warnings, and the gate has no teams
//! and no scopes. Else it is *extended*, and has these lines in addition:
//!
//! ```text
//! after the plans: numbers | tallies (8 lines) | scopes (16 lines) | plan redo record (4 lines)
//!                  | limits: for each plan, half a line for each tally
//! after the hints: entries, a power of two of words for each key | teams, one line each
//! ```
//!
//! | word of the numbers | holds |
//! |---|---|
//! | 0 | scopes of the record that the redo record is for |
//! | 1 | number of teams (32) · number of tallies (32) |
//!
//! | word of a tally's line | holds |
//! |---|---|
//! | 0 | section: 0 key, 1 team, 2 group (8) · position of the first quota in its section (8) · number of windows (8) · algorithm (8) |
//! | 1, 2 | name of the group |
//! | 3, 4 | number of each window |
//! | 5 | width of each window's count in bits (8 each) |
//!
//! | word of an entry | holds |
//! |---|---|
//! | 0 | scopes of the key, one bit each |
//! | 1 | number + 1 of the key's team, if the gate has teams |
//! | then | the key's tallies that are not in its record |

use heapless::Vec;

use super::plan::{MAX_PLAN_NAME_LEN, PLANS_PER_LINE, Plan, Shape, Shapes, name_words};
use crate::bits::{halves, high, index, join, low, to_words};
use crate::cache_line::{CACHE_LINE_WORDS, CacheLine};
use crate::features::Feature;
use crate::header::AttachError;
use crate::quota::{Algorithm, Limits, MAX_QUOTAS};
use crate::section::{MAX_TALLIES, MAX_TEAM_TALLIES, Section};
use crate::tally::Layout;
use crate::text::Text;
use crate::window::Window;

/// Lines of the header before the plans.
pub(super) const FIXED_LINES: usize = 6;

/// Hints in a line, one per word.
pub(super) const HINTS_PER_LINE: usize = CACHE_LINE_WORDS;

/// The most scopes of a gate.
pub const MAX_SCOPES: usize = 64;

/// The longest name of a scope, in bytes.
pub const MAX_SCOPE_NAME_LEN: usize = MAX_PLAN_NAME_LEN;

/// Lines of an extended header that are a whole page.
const PAGE_LINES: usize = 64;

// The lines of the extension, from its first one.
const TALLIES_AT: usize = 1;
const SCOPES_AT: usize = TALLIES_AT + 8;
const PLAN_REDO_AT: usize = SCOPES_AT + MAX_SCOPES / NAMES_PER_LINE;
const LIMITS_AT: usize = PLAN_REDO_AT + 4;

/// Names of scopes in a line.
const NAMES_PER_LINE: usize = 4;

/// Words of a plan's limits and warnings for one tally: the limits in two, and the warnings in one.
pub(super) const LIMIT_WORDS: usize = 4;

// The words of the first line.
pub(super) const REDO_SCOPES_WORD: usize = 0;
const COUNTS_WORD: usize = 1;

/// Where the word of a tally is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// In the key's record.
    Record,
    /// In the key's entry, at this word.
    Entry(usize),
    /// In the team's record, the first or the second tally there.
    Team(usize),
}

/// The shapes of an extended gate, and where its parts are in memory.
#[derive(Debug)]
pub(super) struct Extension {
    pub(super) shapes: Shapes,
    locations: Vec<Location, MAX_TALLIES>,
    /// The index of the first line of the extended header.
    at: usize,
    entries_at: usize,
    entry_words: usize,
    teams_at: usize,
    pub(super) teams: u32,
}

/// The lines of the parts of a gate.
pub(super) struct Size {
    pub(super) header: usize,
    pub(super) records: usize,
    pub(super) hints: usize,
    pub(super) entries: usize,
    pub(super) teams: usize,
}

impl Size {
    pub(super) fn lines(&self) -> usize {
        self.header + self.records + self.hints + self.entries + self.teams
    }

    /// The size of a plain gate.
    pub(super) const fn plain(plan_slots: usize, keys: u32, hints: bool) -> Self {
        let records = index(keys as u64);
        Self {
            header: FIXED_LINES + plan_slots.div_ceil(PLANS_PER_LINE),
            records,
            hints: if hints { records.div_ceil(HINTS_PER_LINE) } else { 0 },
            entries: 0,
            teams: 0,
        }
    }

    /// The size of an extended gate.
    fn extended(plan_slots: usize, keys: u32, hints: bool, shapes: &Shapes, teams: u32) -> Self {
        let plain = Self::plain(plan_slots, keys, hints);
        let limits = (plan_slots * shapes.tallies.len() * LIMIT_WORDS).div_ceil(CACHE_LINE_WORDS);
        let (_, entry_words) = locations(shapes, teams);
        Self {
            header: (plain.header + LIMITS_AT + limits).next_multiple_of(PAGE_LINES),
            entries: (plain.records * entry_words).div_ceil(CACHE_LINE_WORDS),
            teams: index(teams.into()),
            ..plain
        }
    }
}

/// Returns where each tally is, and how many words an entry has.
fn locations(shapes: &Shapes, teams: u32) -> (Vec<Location, MAX_TALLIES>, usize) {
    let mut locations = Vec::new();
    let (mut entry_words, mut in_team) = (1 + usize::from(teams > 0), 0);
    for (number, shape) in shapes.tallies.iter().enumerate() {
        let location = match shapes.sections.get(shape.section) {
            Some(Section::Team) => {
                in_team += 1;
                Location::Team(in_team - 1)
            }
            _ if number == 0 => Location::Record,
            _ => {
                entry_words += 1;
                Location::Entry(entry_words - 1)
            }
        };
        // There is room for as many as there are shapes.
        let _ = locations.push(location);
    }
    (locations, entry_words.next_power_of_two())
}

impl Extension {
    /// The extension of a gate that is about to be created, and the gate's size; `None` for a plain
    /// gate.
    pub(super) fn create(
        shapes: Shapes,
        plan_slots: usize,
        keys: u32,
        hints: bool,
        teams: u32,
        is_plain: bool,
    ) -> (Size, Option<Self>) {
        if !Feature::Sections.is_included() || (is_plain && shapes.tallies.len() == 1) {
            return (Size::plain(plan_slots, keys, hints), None);
        }
        let size = Size::extended(plan_slots, keys, hints, &shapes, teams);
        let extension = Self::new(shapes, plan_slots, teams, &size);
        (size, Some(extension))
    }

    fn new(shapes: Shapes, plan_slots: usize, teams: u32, size: &Size) -> Self {
        let (locations, entry_words) = locations(&shapes, teams);
        let entries_at = size.header + size.records + size.hints;
        Self {
            shapes,
            locations,
            at: FIXED_LINES + plan_slots.div_ceil(PLANS_PER_LINE),
            entries_at,
            entry_words,
            teams_at: entries_at + size.entries,
            teams,
        }
    }

    /// Writes the numbers, the shapes and the names of the scopes of a new gate.
    pub(super) fn write(&self, lines: &[CacheLine], scopes: &[&str]) {
        let tallies = u32::try_from(self.shapes.tallies.len()).unwrap_or(0);
        lines[self.at].store(COUNTS_WORD, join(tallies, self.teams));
        for (number, shape) in self.shapes.tallies.iter().enumerate() {
            let line = &lines[self.at + TALLIES_AT + number];
            let section = self.shapes.sections.get(shape.section);
            let (kind, name) = match section {
                Some(Section::Group(name)) => (2, &**name),
                Some(Section::Team) => (1, ""),
                _ => (0, ""),
            };
            let algorithm = u8::from(shape.layout.algorithm() == Algorithm::Sliding);
            let small = |number: usize| u8::try_from(number).unwrap_or(0);
            let numbers =
                [kind, small(shape.first), small(shape.layout.windows().len()), algorithm];
            line.store(0, u32::from_le_bytes(numbers).into());
            let [first, second] = name_words(name);
            line.store(1, first);
            line.store(2, second);
            let [first, second] = to_words(shape.layout.window_numbers());
            line.store(3, first);
            line.store(4, second);
            line.store(5, u32::from_le_bytes(shape.layout.bits()).into());
        }
        for (number, scope) in scopes.iter().take(MAX_SCOPES).enumerate() {
            let (line, word) = self.scope_words(lines, number);
            let [first, second] = name_words(scope);
            line.store(word + 1, second);
            line.store(word, first);
        }
    }

    /// Reads the extension of a gate that was created before, and returns the gate's size too.
    ///
    /// # Errors
    /// [`AttachError::Geometry`] if a number in it is not valid.
    pub(super) fn read(
        lines: &[CacheLine],
        layout: &Layout,
        plan_slots: usize,
        keys: u32,
        hints: bool,
    ) -> Result<(Size, Self), AttachError> {
        let geometry = |what, value| AttachError::Geometry { what, value };
        let at = FIXED_LINES + plan_slots.div_ceil(PLANS_PER_LINE);
        let numbers = lines.get(at..at + LIMITS_AT).ok_or(geometry("number of plans", 0))?;
        let counts = numbers[0].load(COUNTS_WORD);
        let (teams, tallies) = (low(counts), index(high(counts).into()));
        if !(1..=MAX_TALLIES).contains(&tallies) {
            return Err(geometry("number of tallies", counts));
        }
        let mut shapes = Shapes { sections: Vec::new(), tallies: Vec::new() };
        for (number, line) in numbers[TALLIES_AT..].iter().take(tallies).enumerate() {
            let valid = read_shape(line, number, layout, &mut shapes);
            valid.ok_or_else(|| geometry("tally", line.load(0)))?;
        }
        let in_teams = shapes
            .tallies
            .iter()
            .filter(|shape| shapes.sections.get(shape.section) == Some(&Section::Team));
        if in_teams.count() > if teams > 0 { MAX_TEAM_TALLIES } else { 0 } {
            return Err(geometry("number of teams", teams.into()));
        }
        let size = Size::extended(plan_slots, keys, hints, &shapes, teams);
        let extension = Self::new(shapes, plan_slots, teams, &size);
        Ok((size, extension))
    }

    /// Returns where the tally with this number is.
    #[inline]
    pub(super) fn location(&self, tally: usize) -> Location {
        self.locations.get(tally).copied().unwrap_or(Location::Record)
    }

    /// Returns the line of the numbers.
    pub(super) fn numbers<'m>(&self, lines: &'m [CacheLine]) -> &'m CacheLine {
        &lines[self.at]
    }

    /// Returns the line of a record's entry, and the entry's first word in it.
    #[inline]
    pub(super) fn entry<'m>(&self, lines: &'m [CacheLine], record: u32) -> (&'m CacheLine, usize) {
        let word = index(record.into()) * self.entry_words;
        (&lines[self.entries_at + word / CACHE_LINE_WORDS], word % CACHE_LINE_WORDS)
    }

    /// Returns the line of a team.
    #[inline]
    pub(super) fn team<'m>(&self, lines: &'m [CacheLine], number: u32) -> &'m CacheLine {
        &lines[self.teams_at + index(number.into())]
    }

    /// Returns the line that holds the name of a scope, and the first of its two words.
    pub(super) fn scope_words<'m>(
        &self,
        lines: &'m [CacheLine],
        number: usize,
    ) -> (&'m CacheLine, usize) {
        let line = &lines[self.at + SCOPES_AT + number / NAMES_PER_LINE];
        (line, number % NAMES_PER_LINE * 2)
    }

    /// Returns the line of the redo record of plans for a tally, and the first of its words.
    pub(super) fn redo_words<'m>(
        &self,
        lines: &'m [CacheLine],
        tally: usize,
    ) -> (&'m CacheLine, usize) {
        let word = tally * LIMIT_WORDS;
        let line = &lines[self.at + PLAN_REDO_AT + word / CACHE_LINE_WORDS];
        (line, word % CACHE_LINE_WORDS)
    }

    /// Returns the line of a plan's limits for a tally, and the first of their words.
    #[inline]
    pub(super) fn limit_words<'m>(
        &self,
        lines: &'m [CacheLine],
        plan: usize,
        tally: usize,
    ) -> (&'m CacheLine, usize) {
        let word = (plan * self.shapes.tallies.len() + tally) * LIMIT_WORDS;
        (&lines[self.at + LIMITS_AT + word / CACHE_LINE_WORDS], word % CACHE_LINE_WORDS)
    }
}

/// Reads the line of a tally, and adds its shape and section.
fn read_shape(line: &CacheLine, number: usize, first: &Layout, shapes: &mut Shapes) -> Option<()> {
    let [kind, position, windows, algorithm, ..] = line.load(0).to_le_bytes();
    let section = match kind {
        0 => Section::Key,
        1 => Section::Team,
        2 => Section::group(&text_of([line.load(1), line.load(2)])?)?,
        _ => return None,
    };
    // The tallies of a section follow each other, and those of the key are first.
    if shapes.sections.last() != Some(&section) {
        let is_new = !shapes.sections.contains(&section);
        (is_new && (number == 0) == (section == Section::Key)).then_some(())?;
        shapes.sections.push(section).ok()?;
    }
    let algorithm = match algorithm {
        0 => Algorithm::Fixed,
        1 if Algorithm::Sliding.slides() => Algorithm::Sliding,
        _ => return None,
    };
    let count = usize::from(windows);
    (1..=MAX_QUOTAS).contains(&count).then_some(())?;
    let numbers = halves([line.load(3), line.load(4)]);
    let mut windows = [Window::SECOND; MAX_QUOTAS];
    for (window, &number) in windows.iter_mut().zip(&numbers[..count]) {
        *window = Window::from_number(number)?;
        (Feature::Calendar.is_included() || window.is_length()).then_some(())?;
    }
    let bits = low(line.load(5)).to_le_bytes();
    let layout = Layout::from_parts(algorithm, &windows[..count], bits)?;
    (number > 0 || layout == *first).then_some(())?;
    let section = shapes.sections.len() - 1;
    shapes.tallies.push(Shape { section, first: position.into(), layout }).ok()
}

/// Returns the name in two words of a header, padded with zeros.
pub(super) fn text_of(words: [u64; 2]) -> Option<Text<MAX_PLAN_NAME_LEN>> {
    Plan::name_from_words(words)
}

/// Returns whether these are the limits of a section that the plan does not limit.
pub(super) fn is_unlimited(limits: &Limits) -> bool {
    limits.0 == [0; MAX_QUOTAS]
}

/// Limits under which nothing is admitted. They differ from those of an unlimited section, which
/// are all 0.
pub(super) const NOTHING: [u32; MAX_QUOTAS] = [0, 0, 0, 1];
