//! The configuration of a gate to create, and how many lines a gate takes.

use super::extension::{Extension, FIXED_LINES, MAX_SCOPE_NAME_LEN, MAX_SCOPES, Size};
use super::plan::{PLANS_PER_LINE, Plan, Shapes};
use crate::cache_line::CACHE_LINE_LEN;
use crate::features::Feature;
use crate::header::CreateError;
use crate::key::Name;
use crate::section::Section;
use crate::window::Window;

/// The most keys that a gate can be made for.
pub const MAX_KEYS: u32 = 1 << 26;

/// The most plans of a gate whose header is one page, as in a file.
pub const MAX_PLANS: usize = (PAGE_LEN / CACHE_LINE_LEN - FIXED_LINES) * PLANS_PER_LINE;

const PAGE_LEN: usize = 4096;

const _: () = assert!(MAX_PLANS == 116, "LIMITS.md and the header for C state this number");

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
    /// The plans, of which the first is for keys that name none. All share their sections, windows
    /// and algorithms.
    pub plans: &'a [Plan],
    /// How many plans the gate has room for: at least as many as `plans`, at most 256.
    pub plan_slots: usize,
    /// Whether to keep the last four characters of each key, so that `list` can show them, and a
    /// checksum of each record, which `verify` compares. They take 8 bytes.
    pub hints: bool,
    /// The most teams, 0 to [`MAX_KEYS`]; at least 1 if the plans have a section for teams. A team
    /// takes a line.
    pub teams: u32,
    /// The names of the scopes that keys may have, at most [`MAX_SCOPES`].
    pub scopes: &'a [&'a str],
    /// The window of keys that the fields `X-RateLimit-*` describe; `None` for the longest of at
    /// most a day, or the shortest if all are longer. A month may begin on another day than that of
    /// the plans.
    pub described: Option<Window>,
    /// A random number by which compound charges order the tables that they charge
    /// ([`check_all`](crate::check_all)). Gates with the same number work too, but concurrent
    /// requests that charge both may then refuse each other although there is room for one.
    pub id: u64,
}

impl<'a> GateConfig<'a> {
    /// A gate for `keys` keys that begin with `prefix`, with as many plan slots as there are
    /// `plans`, and without hints.
    pub const fn new(keys: u32, prefix: Name, plans: &'a [Plan]) -> Self {
        Self {
            keys,
            prefix,
            plans,
            plan_slots: plans.len(),
            hints: false,
            teams: 0,
            scopes: &[],
            described: None,
            id: 0,
        }
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

    /// Sets the most teams.
    #[must_use]
    pub const fn with_teams(self, teams: u32) -> Self {
        Self { teams, ..self }
    }

    /// Sets the names of the scopes that keys may have.
    #[must_use]
    pub const fn with_scopes(self, scopes: &'a [&'a str]) -> Self {
        Self { scopes, ..self }
    }

    /// Sets the window that the fields `X-RateLimit-*` describe. A `month` without a day means the
    /// month of the plans, on whichever day it begins.
    ///
    /// ```
    /// # use keytally_core::{CacheLine, Entropy, Gate, GateConfig, Name, NewKey, Peppers, Plan};
    /// # use keytally_core::Timestamp;
    /// let plans = [Plan::new("default", "100/minute, 30000/month@17".parse()?).unwrap()];
    /// let config = GateConfig::new(8, Name::new("kt").unwrap(), &plans);
    /// let config = config.with_described("month".parse()?);
    /// # let memory: Vec<_> = (0..config.lines()).map(|_| CacheLine::new()).collect();
    /// let gate = Gate::init(memory, &config, Peppers::new(&[[7; 32]])?)?;
    /// # let now = Timestamp::from_unix_s(1_700_000_000);
    /// # let new = NewKey::new(42, Name::new("live").unwrap());
    /// # let (key, _) = gate.administer()?.issue(&new, Entropy::new([7; 24]), now)?;
    /// let verdict = gate.check(Some(key.expose().as_bytes()), 1, now);
    /// assert_eq!(verdict.remaining(), Some(29_999));
    /// let headers = verdict.headers();
    /// assert_eq!(headers.iter().next(), Some(("X-RateLimit-Limit", "30000")));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn with_described(self, window: Window) -> Self {
        Self { described: Some(window), ..self }
    }

    /// Sets whether the gate keeps the last four characters and a checksum of each key.
    #[must_use]
    pub const fn with_hints(self, hints: bool) -> Self {
        Self { hints, ..self }
    }

    /// Returns the lines that the gate takes, of [`CACHE_LINE_LEN`] bytes each; 0 if the
    /// configuration is invalid, as [`validate`](Self::validate) reports.
    pub fn lines(&self) -> usize {
        self.validate().unwrap_or(0)
    }

    /// Checks the configuration and returns the lines that the gate takes.
    ///
    /// # Errors
    /// Those of [`Gate::init`](crate::Gate::init), apart from [`CreateError::Size`].
    pub fn validate(&self) -> Result<usize, CreateError> {
        let shapes = self.common_shapes()?;
        Ok(self.extension(shapes).0.lines())
    }

    /// Returns the size of the gate, and its extension if it is not plain.
    pub(super) fn extension(&self, shapes: Shapes) -> (Size, Option<Extension>) {
        let is_plain = self.plans.iter().all(|plan| plan.sections.is_plain())
            && self.teams == 0
            && self.scopes.is_empty();
        let (slots, keys, hints) = (self.plan_slots, self.keys, self.hints);
        Extension::create(shapes, slots, keys, hints, self.teams, is_plain)
    }

    /// Returns the position, among all windows of keys, of the one that the configuration names.
    pub(super) fn described_position(&self, shapes: &Shapes) -> Option<usize> {
        let named = self.described?;
        let windows = shapes.of_keys().flat_map(|layout| layout.windows());
        windows.into_iter().position(|&window| named.means(window))
    }

    /// Returns the shapes of the tallies that all plans share.
    pub(super) fn common_shapes(&self) -> Result<Shapes, CreateError> {
        if !(1..=MAX_KEYS).contains(&self.keys) {
            return Err(CreateError::Capacity { capacity: self.keys, max: MAX_KEYS });
        }
        let plan_slots = self.plan_slots.min(usize::from(u8::MAX) + 1);
        if self.plans.is_empty() || self.plans.len() > plan_slots || self.plan_slots > plan_slots {
            return Err(CreateError::Plans { plans: self.plans.len(), max: plan_slots });
        }
        for (index, plan) in self.plans.iter().enumerate() {
            if self.plans[..index].iter().any(|other| other.name == plan.name) {
                return Err(CreateError::PlanName { index });
            }
        }
        let is_scope = |name: &str| {
            (1..=MAX_SCOPE_NAME_LEN).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b','))
        };
        for (index, name) in self.scopes.iter().enumerate() {
            if index >= MAX_SCOPES || !is_scope(name) || self.scopes[..index].contains(name) {
                return Err(CreateError::Scopes { index });
            }
        }
        let shapes = Shapes::common(self.plans).ok_or_else(|| {
            // The first plan that does not go with those before it.
            let differs = |index: &usize| Shapes::common(&self.plans[..=*index]).is_none();
            let index = (0..self.plans.len()).find(differs).unwrap_or_default();
            CreateError::PlanWindows { index }
        })?;
        if self.teams > MAX_KEYS || (self.teams == 0 && shapes.sections.contains(&Section::Team)) {
            return Err(CreateError::Teams { teams: self.teams });
        }
        if !Feature::Sections.is_included()
            && (self.teams > 0 || !self.scopes.is_empty() || self.described.is_some())
        {
            return Err(CreateError::LeftOut(Feature::Sections));
        }
        match self.described {
            Some(window) if self.described_position(&shapes).is_none() => {
                Err(CreateError::Described { window })
            }
            _ => Ok(shapes),
        }
    }
}
