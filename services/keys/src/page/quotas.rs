//! The quotas of a key or of a team now, in words.

use keytally::{KeyId, Quotas};

use super::words::{Moment, grouped, section, window};
use crate::list::List;

/// A quota now.
#[derive(Clone, Debug)]
pub(super) struct QuotaLine {
    /// Whose requests it counts.
    pub(super) whose: String,
    /// The limit in words, such as `100 a minute`.
    pub(super) limit: String,
    pub(super) used: String,
    pub(super) left: String,
    /// The limit and the units used, for a meter.
    pub(super) most: u32,
    pub(super) count: u32,
    /// From this on, the meter warns.
    pub(super) high: u32,
    /// When the last unit that counts now stops counting; `None` if none counts.
    pub(super) resets: Option<Moment>,
}

fn lines(whose: &str, quotas: &Quotas) -> Vec<QuotaLine> {
    let line = |quota: keytally::QuotaState| {
        let count = quota.limit.saturating_sub(quota.remaining);
        QuotaLine {
            whose: whose.to_owned(),
            limit: format!("{} {}", grouped(quota.limit.into()), window(quota.window)),
            used: grouped(count.into()),
            left: grouped(quota.remaining.into()),
            most: quota.limit,
            count,
            high: quota.limit.saturating_sub(quota.limit / 10),
            resets: (count > 0).then(|| Moment(i64::try_from(quota.reset_unix_s).unwrap_or(0))),
        }
    };
    quotas.iter().map(line).collect()
}

/// Returns the quotas that requests of a key charge: its own, its team's, and those of groups.
pub(super) fn of_key(list: &List, key_id: KeyId, now: keytally::Timestamp) -> Vec<QuotaLine> {
    let gate = list.gate().load();
    let Some(info) = gate.key(key_id) else { return Vec::new() };
    let tallies = gate.table().tallies(&info, now);
    tallies.flat_map(|tally| lines(&section(&tally.section), &tally.quotas)).collect()
}

/// Returns the quotas that all keys of a team share.
pub(super) fn of_team(list: &List, team_id: u32) -> Vec<QuotaLine> {
    let gate = list.gate().load();
    let Some(account) = gate.account(team_id) else { return Vec::new() };
    account.quotas().iter().flat_map(|quotas| lines("All keys of the team", quotas)).collect()
}
