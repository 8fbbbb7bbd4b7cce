//! What may be shown of a key: never its secret, but for the one time when it's new.

use keytally::Gate;
use keytally::KeyInfo;
use keytally::{Key, KeyId, KeyState, QuotaState, Quotas, Timestamp};
use serde::Serialize;

use crate::failure::Failure;
use crate::times;

/// A key that was just issued or rotated, with its secret.
#[derive(Serialize)]
pub(crate) struct NewSecret<'a> {
    /// The key: this is the only copy.
    pub(crate) key: &'a str,
    #[serde(flatten)]
    pub(crate) about: About,
}

/// What tells keys apart.
#[derive(Debug, Serialize)]
pub(crate) struct About {
    pub(crate) key_id: String,
    pub(crate) account: u32,
    pub(crate) env: Option<String>,
    pub(crate) plan: Option<String>,
    pub(crate) hint: String,
    pub(crate) expires: Option<String>,
}

/// A key's use in one window.
#[derive(Clone, Debug, Serialize)]
pub struct Use {
    /// The window, such as `minute`.
    pub window: String,
    /// The length of the window in seconds.
    pub window_s: u32,
    /// The most units in a window.
    pub limit: u32,
    /// The units that count now.
    pub used: u32,
    /// The units that are left.
    pub remaining: u32,
    /// When all that is counted now will be forgotten, in Unix seconds.
    pub reset: u64,
}

/// One line of `list` and of `top`.
#[derive(Debug, Serialize)]
pub(crate) struct Listed {
    #[serde(flatten)]
    pub(crate) about: About,
    /// `active`, `revoked` or `expired`.
    pub(crate) state: &'static str,
    pub(crate) quotas: Vec<Use>,
    pub(crate) last_use: Option<String>,
    #[serde(skip)]
    pub(crate) last_use_s: Option<u64>,
    /// Until when the secret before the last rotation is valid; none when it is not.
    pub(crate) grace_until: Option<String>,
    /// The number of the pepper that the secret is stored under.
    pub(crate) pepper: u8,
    /// By how many seconds the key's tally is ahead of the system clock; 0 if it is not.
    pub(crate) clock_ahead_s: u32,
}

impl<'a> NewSecret<'a> {
    /// What is shown of `key`, once.
    pub(crate) fn of(key: &'a Key, key_id: KeyId, gate: &Gate) -> Result<Self, Failure> {
        let info = gate.key(key_id).ok_or_else(|| {
            Failure::because(format!("key {key_id} was removed by somebody else as soon as it was made"))
        })?;
        // The gate may not hold the key's secret yet.
        let about = About { hint: key.hint().to_string(), ..About::of(&info, gate) };
        Ok(Self { key: key.expose(), about })
    }
}

impl About {
    /// What tells this key from others.
    pub(crate) fn of(info: &KeyInfo, gate: &Gate) -> Self {
        let table = gate.table();
        Self {
            key_id: info.key_id.to_string(),
            account: info.account,
            env: info.env.map(|env| env.to_string()),
            plan: table.plan(info.plan).map(|plan| plan.name.as_str().to_owned()),
            hint: hint(info, gate),
            expires: info.not_after.map(|end| times::rfc3339(end.unix_s())),
        }
    }

    /// The environment as a column shows it.
    pub(crate) fn env(&self) -> &str {
        self.env.as_deref().unwrap_or("?")
    }

    /// The plan as a column shows it.
    pub(crate) fn plan(&self) -> &str {
        self.plan.as_deref().unwrap_or("?")
    }
}

impl Use {
    /// The use of each window, shortest first.
    pub fn of(quotas: &Quotas) -> Vec<Self> {
        quotas.iter().map(|quota| Self::of_one(&quota)).collect()
    }

    fn of_one(quota: &QuotaState) -> Self {
        Self {
            window: quota.window.to_string(),
            window_s: quota.window.seconds(),
            limit: quota.limit,
            used: quota.limit.saturating_sub(quota.remaining),
            remaining: quota.remaining,
            reset: quota.reset_unix_s,
        }
    }

    /// Thousandths of the limit that are used.
    pub(crate) fn share(&self) -> u32 {
        let share = u64::from(self.used) * 1000 / u64::from(self.limit.max(1));
        u32::try_from(share).unwrap_or(u32::MAX)
    }
}

impl Listed {
    /// What is shown of this key at `now`.
    pub(crate) fn of(info: &KeyInfo, gate: &Gate, now: Timestamp) -> Self {
        Self {
            about: About::of(info, gate),
            state: state(info, now),
            quotas: Use::of(&info.quotas),
            last_use_s: info.last_used.map(Timestamp::unix_s),
            last_use: info.last_used.map(|time| times::rfc3339(time.unix_s())),
            grace_until: info.grace_until.filter(|&end| end > now).map(|end| times::rfc3339(end.unix_s())),
            pepper: info.pepper,
            clock_ahead_s: info.clock_ahead_s,
        }
    }
}

/// `active`, `revoked` or `expired`.
pub(crate) fn state(info: &KeyInfo, now: Timestamp) -> &'static str {
    match info.state {
        KeyState::Revoked => "revoked",
        KeyState::Active if info.not_after.is_some_and(|end| now >= end) => "expired",
        _ => "active",
    }
}

/// `kt_live_…9aZk`.
fn hint(info: &KeyInfo, gate: &Gate) -> String {
    let env = info.env.map(|env| format!("{env}_")).unwrap_or_default();
    let last = info.last_characters.as_deref().unwrap_or_default();
    format!("{}_{env}…{last}", gate.table().prefix())
}
