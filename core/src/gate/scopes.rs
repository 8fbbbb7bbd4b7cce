//! The sections, scopes and teams that an extended gate was created with.

use super::extension::{MAX_SCOPE_NAME_LEN, MAX_SCOPES, text_of};
use super::inspect::KeyInfo;
use super::table::{Gate, LIST_WORD, PEPPER_LINE, SEQUENCE_SHIFT};
use crate::cache_line::CacheLine;
use crate::section::Section;
use crate::tally::Layout;
use crate::text::Text;
use crate::window::Window;

impl<M: AsRef<[CacheLine]>> Gate<M> {
    /// Returns the number of tallies of a key, 1 to [`MAX_TALLIES`](crate::MAX_TALLIES).
    pub(super) fn tally_count(&self) -> usize {
        self.extension.as_ref().map_or(1, |extension| extension.shapes.tallies.len())
    }

    /// Returns the sections that all plans of this gate share. The first is [`Section::Key`].
    pub fn sections(&self) -> &[Section] {
        const PLAIN: &[Section] = &[Section::Key];
        self.extension.as_ref().map_or(PLAIN, |extension| &extension.shapes.sections)
    }

    /// Returns whether a request may charge more than the key's first tally, or whether the gate
    /// has teams or scopes. A check of such a gate takes longer.
    pub fn is_extended(&self) -> bool {
        self.extension.is_some()
    }

    /// Returns the number of the last change of a list of keys that was applied to this gate: see
    /// [`Administrator::set_applied_sequence`](crate::Administrator::set_applied_sequence).
    pub fn applied_sequence(&self) -> u64 {
        self.memory.as_ref()[PEPPER_LINE].load(LIST_WORD) >> SEQUENCE_SHIFT
    }

    /// Returns the window that the gate names to be described by the fields `X-RateLimit-*`; `None`
    /// if it names none.
    pub fn described(&self) -> Option<Window> {
        let named = |layout: &Layout| layout.windows().get(layout.counts().named()?).copied();
        match &self.extension {
            Some(extension) => extension.shapes.of_keys().find_map(named),
            None => named(&self.layout),
        }
    }

    /// Returns the most teams that the gate can hold; 0 if it has none.
    pub fn team_capacity(&self) -> u32 {
        self.extension.as_ref().map_or(0, |extension| extension.teams)
    }

    /// Returns the names of the gate's scopes.
    pub fn scopes(&self) -> impl Iterator<Item = Text<MAX_SCOPE_NAME_LEN>> {
        (0..MAX_SCOPES).map_while(|number| self.scope(number))
    }

    /// Returns the names of the scopes that a key of this gate has.
    ///
    /// ```
    /// # use keytally_core::{CacheLine, Entropy, Gate, GateConfig, Name, NewKey, Peppers, Plan};
    /// # use keytally_core::Timestamp;
    /// # let plans = [Plan::new("default", "100/minute".parse()?).unwrap()];
    /// let config = GateConfig::new(8, Name::new("kt").unwrap(), &plans);
    /// let config = config.with_scopes(&["read", "write"]);
    /// # let memory: Vec<_> = (0..config.lines()).map(|_| CacheLine::new()).collect();
    /// let gate = Gate::init(memory, &config, Peppers::new(&[[7; 32]])?)?;
    /// let new = NewKey::new(42, Name::new("live").unwrap()).with_scopes(&["write"]);
    /// # let now = Timestamp::from_unix_s(1_700_000_000);
    /// # let key = gate.administer()?.issue(&new, Entropy::new([7; 24]), now)?;
    /// let info = gate.list(now).next().unwrap();
    /// assert!(gate.scopes_of(&info).eq(["write"]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn scopes_of(&self, info: &KeyInfo) -> impl Iterator<Item = Text<MAX_SCOPE_NAME_LEN>> {
        let scopes = info.scopes;
        let has = move |(number, _): &(usize, _)| scopes >> number & 1 == 1;
        self.scopes().enumerate().filter(has).map(|(_, scope)| scope)
    }

    fn scope(&self, number: usize) -> Option<Text<MAX_SCOPE_NAME_LEN>> {
        let (line, word) = self.extension.as_ref()?.scope_words(self.memory.as_ref(), number);
        text_of([line.load(word), line.load(word + 1)])
    }

    /// Returns the bit of the scope with this name; `None` if the gate has no such scope.
    pub fn scope_bit(&self, name: &str) -> Option<u64> {
        let number = self.scopes().position(|scope| scope == name)?;
        Some(1 << number)
    }
}
