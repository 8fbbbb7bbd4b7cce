//! The fields of a key that commands show, as text and as JSON. Only [`NewKeyView`] holds a secret.

use keytally::Gate;
use keytally::KeyInfo;
use keytally::{Compound, Key, KeyId, Plan, QuotaState, Quotas, Section, Timestamp, Verdict};
use serde::Serialize;

use crate::failure::Failure;
use crate::times;

/// A key that was issued or rotated by this command, with its secret.
#[derive(Serialize)]
pub(crate) struct NewKeyView<'a> {
    /// The key. This is the only copy of its secret.
    pub(crate) key: &'a str,
    #[serde(flatten)]
    pub(crate) about: KeyView,
}

/// The public fields of a key.
#[derive(Debug, Serialize)]
pub(crate) struct KeyView {
    pub(crate) key_id: String,
    pub(crate) account: u32,
    pub(crate) env: Option<String>,
    pub(crate) plan: Option<String>,
    /// The key without its secret: `kt_live_…9aZk`.
    pub(crate) hint: String,
    pub(crate) expires: Option<String>,
}

/// The use of one quota of a key.
#[derive(Clone, Debug, Serialize)]
pub struct QuotaUse {
    /// The section of the plan that has the quota: `key`, `team` or the name of a group.
    pub section: String,
    /// The window, such as `minute`.
    pub window: String,
    /// The length of the window in seconds.
    pub window_s: u32,
    /// The limit in units per window.
    pub limit: u32,
    /// The units that count now.
    pub used: u32,
    /// The units that are left.
    pub remaining: u32,
    /// When the last unit that counts now stops counting, in Unix seconds.
    pub reset_unix_s: u64,
}

/// A key in `list` and `top`.
#[derive(Debug, Serialize)]
pub(crate) struct ListedKey {
    #[serde(flatten)]
    pub(crate) about: KeyView,
    /// `active`, `revoked` or `expired`.
    pub(crate) state: &'static str,
    pub(crate) quotas: Vec<QuotaUse>,
    /// The scopes that the key has.
    pub(crate) scopes: Vec<String>,
    pub(crate) last_used: Option<String>,
    #[serde(skip)]
    pub(crate) last_used_s: Option<u64>,
    /// When the secret before the last rotation ends, if it is still valid.
    pub(crate) grace_until: Option<String>,
    /// The number of the pepper with which the key's HMAC was computed.
    pub(crate) pepper: u8,
    /// By how many seconds the key's tally is ahead of the system clock; 0 if it is not.
    pub(crate) clock_ahead_s: u32,
}

impl<'a> NewKeyView<'a> {
    /// Returns the view of `key`, whose record is in the gate.
    pub(crate) fn new(key: &'a Key, key_id: KeyId, gate: &Gate) -> Result<Self, Failure> {
        let info = gate.key(key_id).ok_or_else(|| {
            Failure::new(format!("another process removed key {key_id} before it was printed"))
        })?;
        // A rotation prints the key before the gate stores its hint.
        let about = KeyView { hint: key.hint().to_string(), ..KeyView::new(&info, gate) };
        Ok(Self { key: key.expose(), about })
    }
}

impl KeyView {
    /// Returns the public fields of a key.
    pub(crate) fn new(info: &KeyInfo, gate: &Gate) -> Self {
        let table = gate.table();
        Self {
            key_id: info.key_id.to_string(),
            account: info.account,
            env: info.env.map(|env| env.to_string()),
            plan: table.plan(info.plan).map(|plan| plan.name.as_str().to_owned()),
            hint: info.hint(table.prefix()).to_string(),
            expires: info.expires.map(|end| times::rfc3339(end.unix_s())),
        }
    }

    /// Returns the environment, or `?` if the gate does not have it.
    pub(crate) fn env(&self) -> &str {
        self.env.as_deref().unwrap_or("?")
    }

    /// Returns the plan, or `?` if the gate does not have it.
    pub(crate) fn plan(&self) -> &str {
        self.plan.as_deref().unwrap_or("?")
    }
}

impl QuotaUse {
    /// Returns the use of each quota of a key, shortest window first.
    pub fn from_quotas(quotas: &Quotas) -> Vec<Self> {
        Self::of_section("key", quotas).collect()
    }

    /// Returns the use of each quota that a request was checked for: those of all tallies, or those
    /// of its verdict if there are no others.
    pub fn of_request(compound: Option<&Compound>, verdict: &Verdict) -> Vec<Self> {
        let Some(compound) = compound else { return Self::from_quotas(verdict.quotas()) };
        let mut all = Vec::new();
        for tally in compound.tallies() {
            let section = tally.section().map_or("key", |section| section.name());
            all.extend(Self::of_section(section, tally.verdict().quotas()));
        }
        all
    }

    /// Returns the use of each quota of a section, shortest window first.
    pub(crate) fn of_section(section: &str, quotas: &Quotas) -> impl Iterator<Item = Self> {
        quotas.iter().map(move |quota| Self::from_state(section, &quota))
    }

    /// Returns the use of each quota that the requests of a key count for.
    pub(crate) fn of_key(info: &KeyInfo, gate: &Gate, now: Timestamp) -> Vec<Self> {
        let table = gate.table();
        if !table.is_extended() {
            return Self::from_quotas(&info.quotas);
        }
        let tallies = table.tallies(info, now);
        tallies
            .flat_map(|tally| {
                Self::of_section(tally.section.name(), &tally.quotas).collect::<Vec<_>>()
            })
            .collect()
    }

    /// Returns the name of the quota: that of its window, after the section if that is not the key.
    pub(crate) fn name(&self) -> String {
        match self.section.as_str() {
            "key" => self.window.clone(),
            section => format!("{section}-{}", self.window),
        }
    }

    fn from_state(section: &str, quota: &QuotaState) -> Self {
        Self {
            section: section.to_owned(),
            window: quota.window.to_string(),
            window_s: quota.window.seconds(),
            limit: quota.limit,
            used: quota.used(),
            remaining: quota.remaining,
            reset_unix_s: quota.reset_unix_s,
        }
    }

    /// Returns the used share of the limit in thousandths.
    pub(crate) fn share(&self) -> u32 {
        let share = u64::from(self.used) * 1000 / u64::from(self.limit.max(1));
        u32::try_from(share).unwrap_or(u32::MAX)
    }
}

impl ListedKey {
    /// Returns the use of the quota with this name; `None` if the plan of the key does not limit
    /// it.
    pub(crate) fn quota(&self, name: &str) -> Option<&QuotaUse> {
        self.quotas.iter().find(|quota| quota.name() == name)
    }

    /// Returns the view of a key at `now`.
    pub(crate) fn new(info: &KeyInfo, gate: &Gate, now: Timestamp) -> Self {
        Self {
            about: KeyView::new(info, gate),
            state: info.state_name(now),
            quotas: QuotaUse::of_key(info, gate, now),
            scopes: gate.table().scopes_of(info).map(|scope| scope.to_string()).collect(),
            last_used_s: info.last_used.map(Timestamp::unix_s),
            last_used: info.last_used.map(|time| times::rfc3339(time.unix_s())),
            grace_until: info
                .grace_until
                .filter(|&end| end > now)
                .map(|end| times::rfc3339(end.unix_s())),
            pepper: info.pepper,
            clock_ahead_s: info.clock_ahead_s,
        }
    }
}

/// Returns the names of the quotas that the plans of a gate have.
pub(crate) fn quota_names(gate: &Gate) -> Vec<String> {
    let table = gate.table();
    let mut names = Vec::new();
    for section in table.sections() {
        // The windows of a section are those of a plan that limits it.
        let its = |(_, plan): (u8, Plan)| {
            let section = plan.sections.named(section.name())?;
            (!section.is_unlimited()).then(|| section.quotas().to_vec())
        };
        for quota in table.plans().find_map(its).unwrap_or_default() {
            names.push(match section {
                Section::Key => quota.window.to_string(),
                section => format!("{}-{}", section.name(), quota.window),
            });
        }
    }
    names
}
