//! The configuration of a gate to create, and how many lines a gate takes.

use super::plan::{PLANS_PER_LINE, Plan, common_layout};
use crate::bits::index;
use crate::cache_line::{CACHE_LINE_LEN, CACHE_LINE_WORDS};
use crate::header::CreateError;
use crate::key::Name;
use crate::tally::Layout;

/// The most keys that a gate can be made for.
pub const MAX_KEYS: u32 = 1 << 26;

/// The most plans of a gate whose header is one page, as in a file.
pub const MAX_PLANS: usize = (PAGE_LEN / CACHE_LINE_LEN - FIXED_LINES) * PLANS_PER_LINE;

const PAGE_LEN: usize = 4096;

const _: () = assert!(MAX_PLANS == 116, "LIMITS.md and the header for C state this number");

/// Lines of the header before the plans.
pub(super) const FIXED_LINES: usize = 6;

/// Hints in a line, two per word.
pub(super) const HINTS_PER_LINE: usize = 2 * CACHE_LINE_WORDS;

/// The size and the plans of a gate to create.
///
/// ```
/// use keytally_core::{GateConfig, Name, Plan};
/// let plans = [Plan::new("default", "100/minute, 1000/hour".parse()?).unwrap()];
/// let config = GateConfig::new(64, Name::new("kt").unwrap(), &plans).with_plan_slots(4);
/// assert_eq!(config.validate()?, 8 + 64);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct GateConfig<'a> {
    /// The most keys, 1 to [`MAX_KEYS`].
    pub keys: u32,
    /// The prefix of every key.
    pub prefix: Name,
    /// The plans, of which the first is for keys that name none. All share their windows and
    /// algorithm.
    pub plans: &'a [Plan],
    /// How many plans the gate has room for: at least as many as `plans`, at most 256. An odd
    /// number gives room for one more, since two plans share a line.
    pub plan_slots: usize,
    /// Whether to keep the last four characters of each key, so that `list` can show them. They
    /// take 4 bytes.
    pub hints: bool,
    /// A random number by which compound charges order the tables that they charge
    /// ([`check_all`](crate::check_all)). Gates with the same number work too, but concurrent
    /// requests that charge both may then refuse each other although there is room for one.
    pub id: u64,
}

impl<'a> GateConfig<'a> {
    /// A gate for `keys` keys that begin with `prefix`, with as many plan slots as there are
    /// `plans`, and without hints.
    pub const fn new(keys: u32, prefix: Name, plans: &'a [Plan]) -> Self {
        Self { keys, prefix, plans, plan_slots: plans.len(), hints: false, id: 0 }
    }

    /// Sets how many plans there is room for.
    #[must_use]
    pub const fn with_plan_slots(self, plan_slots: usize) -> Self {
        Self { plan_slots, ..self }
    }

    /// Sets the number of the gate, which should be random.
    #[must_use]
    pub const fn with_id(self, id: u64) -> Self {
        Self { id, ..self }
    }

    /// Sets whether the gate keeps the last four characters of each key.
    #[must_use]
    pub const fn with_hints(self, hints: bool) -> Self {
        Self { hints, ..self }
    }

    /// Returns the lines that the gate takes, of [`CACHE_LINE_LEN`] bytes each. Only
    /// [`validate`](Self::validate) checks the configuration.
    pub const fn lines(&self) -> usize {
        total_lines(header_lines(self.plan_slots), self.keys, self.hints)
    }

    /// Checks the configuration and returns the lines that the gate takes.
    ///
    /// # Errors
    /// Those of [`Gate::init`](crate::Gate::init), apart from [`CreateError::Size`].
    pub fn validate(&self) -> Result<usize, CreateError> {
        self.common_layout().map(|_| self.lines())
    }

    /// Returns the layout that all plans share.
    pub(super) fn common_layout(&self) -> Result<Layout, CreateError> {
        if !(1..=MAX_KEYS).contains(&self.keys) {
            return Err(CreateError::Capacity { capacity: self.keys, max: MAX_KEYS });
        }
        let plan_slots = self.plan_slots.min(usize::from(u8::MAX) + 1);
        if self.plans.is_empty() || self.plans.len() > plan_slots || self.plan_slots > plan_slots {
            return Err(CreateError::Plans { plans: self.plans.len(), max: plan_slots });
        }
        for (index, plan) in self.plans.iter().enumerate() {
            if self.plans[..index].iter().any(|other| other.name == plan.name) {
                return Err(CreateError::PlanName);
            }
        }
        common_layout(self.plans).ok_or(CreateError::PlanWindows)
    }
}

/// Returns the lines of a header with room for `plan_slots` plans.
pub(super) const fn header_lines(plan_slots: usize) -> usize {
    FIXED_LINES + plan_slots.div_ceil(PLANS_PER_LINE)
}

/// Returns the lines of a gate: header, records and hints.
pub(super) const fn total_lines(header_lines: usize, keys: u32, hints: bool) -> usize {
    let keys = index(keys as u64);
    header_lines + keys + if hints { keys.div_ceil(HINTS_PER_LINE) } else { 0 }
}
