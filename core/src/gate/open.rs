//! Creates gates, and opens those that were created before.

use super::config::{GateConfig, MAX_KEYS};
use super::extension::{Extension, Size};
use super::table::{
    EXTENDED_FLAG, FACTORS_SHIFT, Gate, HINTS_FLAG, ID_WORD, IMPORTED_FLAG, LIST_WORD, PEPPER_LINE,
    PREFIX_WORD, TARGET_LINE,
};
use crate::bits::index;
use crate::cache_line::CacheLine;
use crate::features::Feature;
use crate::header::{AttachError, CreateError, Header, TableKind};
use crate::key::Name;
use crate::mac::{KEPT_PEPPERS, MAX_PEPPERS, Peppers};

impl<M: AsRef<[CacheLine]>> Gate<M> {
    /// Creates a gate in [`GateConfig::lines`] lines of memory that no other table uses.
    ///
    /// # Errors
    /// [`CreateError`] if the configuration is invalid, or if the memory has another size.
    pub fn init(memory: M, config: &GateConfig<'_>, peppers: Peppers) -> Result<Self, CreateError> {
        Self::init_kind(memory, config, peppers, (TableKind::Gate, [0; 2]))
    }

    /// Creates a gate of this kind, with these [factors](FACTORS_SHIFT).
    pub(super) fn init_kind(
        memory: M,
        config: &GateConfig<'_>,
        peppers: Peppers,
        (kind, [last, before]): (TableKind, [u8; 2]),
    ) -> Result<Self, CreateError> {
        let lines = memory.as_ref();
        let mut shapes = config.common_shapes()?;
        let described = config.described_position(&shapes);
        let described = described.map_or(0, |position| {
            shapes.name_described(position);
            1 + u32::try_from(position).unwrap_or(0)
        });
        let layout = shapes.tallies[0].layout;
        let (size, extension) = config.extension(shapes);
        if lines.len() != size.lines() {
            return Err(CreateError::Size { lines: lines.len(), needed: size.lines() });
        }
        let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
        let header = Header {
            kind,
            capacity: config.keys,
            header_lines: u32::try_from(size.header).unwrap_or(u32::MAX),
            flags: flag(config.hints, HINTS_FLAG)
                | flag(extension.is_some(), EXTENDED_FLAG)
                | described << DESCRIBED_SHIFT
                | (u32::from(last) | u32::from(before) << 8) << FACTORS_SHIFT,
            plan_slots: u32::try_from(config.plan_slots).unwrap_or(u32::MAX),
            layout,
        };
        header.write(lines);
        lines[PEPPER_LINE].store(PREFIX_WORD, config.prefix.to_word());
        lines[TARGET_LINE].store(ID_WORD, config.id);
        for (number, pepper) in peppers.0.iter().enumerate() {
            lines[PEPPER_LINE].store(number, pepper.fingerprint());
        }
        if let Some(extension) = &extension {
            extension.write(lines, config.scopes);
        }
        let gate = Self::from_header(memory, &header, extension, config.prefix, peppers);
        for (number, plan) in config.plans.iter().enumerate() {
            gate.prepare_limits(plan);
            gate.complete_limits(number);
            gate.store_plan(number, gate.plan_words(plan));
        }
        Header::publish(gate.memory.as_ref());
        Ok(gate)
    }

    /// Opens a gate that was created before.
    ///
    /// All programs that use a gate at the same time must have the same features of this crate. A
    /// feature that the gate needs only later, because another program imports a key or adds a
    /// pepper, is not noticed by a gate that is already open.
    ///
    /// # Errors
    /// [`AttachError`] if the memory does not hold a gate of this format version and of the size
    /// that its header states, if this build leaves out a feature that the gate needs, or if none
    /// of the peppers is the gate's.
    pub fn attach(memory: M, peppers: Peppers) -> Result<Self, AttachError> {
        Self::attach_kind(memory, peppers, TableKind::Gate)
    }

    /// Opens another gate with the peppers of this one.
    ///
    /// # Errors
    /// Those of [`attach`](Self::attach).
    pub fn attach_other<N: AsRef<[CacheLine]>>(&self, memory: N) -> Result<Gate<N>, AttachError> {
        Gate::attach(memory, self.peppers.clone())
    }

    /// Opens a gate of this kind.
    pub(super) fn attach_kind(
        memory: M,
        peppers: Peppers,
        kind: TableKind,
    ) -> Result<Self, AttachError> {
        let lines = memory.as_ref();
        let mut header = Header::read(lines, kind)?;
        let plan_slots = index(u64::from(header.plan_slots));
        let has = |flag: u32| header.flags & flag != 0;
        let geometry = |what, value: u32| AttachError::Geometry { what, value: value.into() };
        let described = (header.flags & DESCRIBED_MASK) >> DESCRIBED_SHIFT;
        if header.flags & !(HINTS_FLAG | EXTENDED_FLAG | DESCRIBED_MASK | FACTORS_MASK) != 0 {
            return Err(geometry("set of flags", header.flags));
        }
        if !(1..=MAX_KEYS).contains(&header.capacity) {
            return Err(geometry("capacity", header.capacity));
        }
        if !(1..=usize::from(u8::MAX) + 1).contains(&plan_slots) {
            return Err(geometry("number of plans", header.plan_slots));
        }
        if (has(EXTENDED_FLAG) || described > 0) && !Feature::Sections.is_included() {
            return Err(AttachError::LeftOut(Feature::Sections));
        }
        let [_, _, last, before] = header.flags.to_le_bytes().map(u32::from);
        let is_whole = |factor: u32| factor == 0 || header.capacity.is_multiple_of(factor);
        if !is_whole(last) || !is_whole(last * before) || (last == 0 && before > 0) {
            return Err(geometry("growth", header.flags >> FACTORS_SHIFT));
        }
        let hints = has(HINTS_FLAG);
        let (size, mut extension) = if has(EXTENDED_FLAG) {
            let read = Extension::read(lines, &header.layout, plan_slots, header.capacity, hints)?;
            (read.0, Some(read.1))
        } else {
            (Size::plain(plan_slots, header.capacity, hints), None)
        };
        if size.header != index(u64::from(header.header_lines)) {
            return Err(geometry("number of header lines", header.header_lines));
        }
        header.expect_lines(lines, Some(size.lines()))?;
        if let Some(position) = described.checked_sub(1) {
            let position = index(position.into());
            let is_there = match &mut extension {
                Some(extension) => extension.shapes.name_described(position),
                None => position < header.layout.len(),
            };
            if !is_there {
                return Err(geometry("window to describe", described));
            }
            header.layout.name_described(position);
        }
        let prefix = lines[PEPPER_LINE].load(PREFIX_WORD);
        let prefix = Name::from_word(prefix)
            .ok_or(AttachError::Geometry { what: "prefix", value: prefix })?;
        let gate = Self::from_header(memory, &header, extension, prefix, peppers);
        if !gate.has_first_plan() {
            return Err(AttachError::Geometry {
                what: "first plan",
                value: gate.plan_line(0).0.load(0),
            });
        }
        if let Some(feature) = missing_feature(&gate.memory.as_ref()[PEPPER_LINE]) {
            return Err(AttachError::LeftOut(feature));
        }
        if (0..KEPT_PEPPERS).all(|number| gate.pepper(number).is_none()) {
            return Err(AttachError::WrongPepper { given: gate.peppers.0.len() });
        }
        Ok(gate)
    }
}

/// The flags that hold the number of the window to describe: its position among all windows of
/// keys, plus 1. 0 stands for the longest of at most a day.
const DESCRIBED_SHIFT: u32 = 8;
const DESCRIBED_MASK: u32 = 0xFF << DESCRIBED_SHIFT;

const FACTORS_MASK: u32 = 0xFFFF << FACTORS_SHIFT;

/// Returns a feature that a gate with this line of peppers needs and that this build leaves out. A
/// gate without them has no imported key, and its only pepper has the number 0.
fn missing_feature(peppers: &CacheLine) -> Option<Feature> {
    let is_set = |word: usize| peppers.load(word) != 0;
    if !Feature::ImportedKeys.is_included() && peppers.load(LIST_WORD) & IMPORTED_FLAG != 0 {
        Some(Feature::ImportedKeys)
    } else if !Feature::PepperRotation.is_included() && (1..MAX_PEPPERS).any(is_set) {
        Some(Feature::PepperRotation)
    } else {
        None
    }
}
