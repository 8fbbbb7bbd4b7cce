//! The members of requests and answers.

use keytally::{Name, Timestamp};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::keys::KeyRow;
use crate::roles::Role;
use crate::time;

/// A key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyView {
    /// The public name, 11 characters, which survives rotations.
    pub key_id: String,
    /// The number of the team.
    #[schema(value_type = i64)]
    pub team: u32,
    /// What may be shown of the key, such as `kt_live_…9aZk`.
    pub hint: String,
    /// The name.
    pub name: String,
    /// The note.
    pub note: String,
    /// The environment.
    pub env: String,
    /// The name of the plan.
    pub plan: String,
    /// The names of the scopes.
    pub scopes: Vec<String>,
    /// `active`, `expired` or `revoked`.
    pub state: &'static str,
    /// From when on the key is not valid.
    pub expires: Option<String>,
    /// From when on the secret before the last rotation is not valid.
    pub grace_until: Option<String>,
    /// When the list got the key.
    pub created: String,
    /// Who made it.
    pub created_by: String,
    /// When it was last rotated.
    pub rotated: Option<String>,
    /// When it was revoked.
    pub revoked: Option<String>,
    /// Who revoked it.
    pub revoked_by: Option<String>,
    /// Why it was revoked.
    pub revoked_why: Option<String>,
    /// When its present secret was shown. A secret that was never shown is of no use: rotate the
    /// key or revoke it.
    pub shown: Option<String>,
    /// When it was last used.
    pub last_used: Option<String>,
}

impl KeyView {
    /// Returns what may be shown of a key.
    pub fn new(row: &KeyRow, prefix: Name, now: Timestamp) -> Self {
        let in_grace = row.grace_until_s.filter(|&end| end > time::stored(now));
        Self {
            key_id: row.key_id.to_string(),
            team: row.team_id,
            hint: row.hint(prefix),
            name: row.name.clone(),
            note: row.note.clone(),
            env: row.env.as_str().to_owned(),
            plan: row.plan.clone(),
            scopes: row.scopes.split_ascii_whitespace().map(str::to_owned).collect(),
            state: row.state(now),
            expires: row.not_after_s.map(time::shown),
            grace_until: in_grace.filter(|_| !row.is_revoked).map(time::shown),
            created: time::shown(row.created_s),
            created_by: row.created_by.clone(),
            rotated: row.rotated_s.map(time::shown),
            revoked: row.revoked_s.map(time::shown),
            revoked_by: row.revoked_by.clone(),
            revoked_why: row.revoked_why.clone(),
            shown: row.shown_s.map(time::shown),
            last_used: row.last_used_s.map(time::shown),
        }
    }
}

/// A key with its secret, which no other answer contains.
#[derive(Serialize, ToSchema)]
pub struct NewKeyView {
    /// The key. Store it: it is not shown again.
    pub key: String,
    /// The rest.
    #[serde(flatten)]
    pub view: KeyView,
}

/// A page of keys.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyPage {
    /// The keys, in the order of sort.
    pub keys: Vec<KeyView>,
    /// The value of `after` for the next page; none if there is none.
    pub next: Option<String>,
}

/// The properties of a new key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    /// The name, 1 to 64 characters.
    #[schema(min_length = 1, max_length = 64, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")]
    pub name: String,
    /// The environment, 1 to 8 characters of a-z and 0-9.
    #[schema(pattern = "^[a-z0-9]{1,8}$")]
    pub env: String,
    /// The note, up to 500 characters.
    #[serde(default)]
    #[schema(max_length = 500, pattern = r"^[^\u0000-\u0009\u000b-\u001f\u007f-\u009f]*$")]
    pub note: String,
    /// The name of a plan; that of the gate's first plan if there is none.
    pub plan: Option<String>,
    /// The names of scopes.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// From when on the key is not valid, such as `2027-01-31T12:00:00Z`; never if there is none.
    #[schema(format = DateTime)]
    pub expires: Option<String>,
}

/// What to change of a key. What is not named stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EditKey {
    /// The name.
    #[schema(min_length = 1, max_length = 64, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")]
    pub name: Option<String>,
    /// The note.
    #[schema(max_length = 500, pattern = r"^[^\u0000-\u0009\u000b-\u001f\u007f-\u009f]*$")]
    pub note: Option<String>,
    /// The name of a plan.
    pub plan: Option<String>,
    /// The names of scopes.
    pub scopes: Option<Vec<String>>,
    /// From when on the key is not valid; null for never.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Option<String>>,
}

/// Distinguishes a member that is null from one that is not there.
fn present<'de, D, T>(from: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(from).map(Some)
}

/// How to rotate a key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateKey {
    /// For how many seconds the old secret stays valid; 0 ends it at once.
    pub grace_s: u64,
    /// Whether to end the secret before the old one, if it is still valid.
    #[serde(default)]
    pub force: bool,
}

/// Why a key is revoked.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeKey {
    /// The reason, up to 500 characters.
    #[serde(default)]
    #[schema(max_length = 500, pattern = r"^[^\u0000-\u0009\u000b-\u001f\u007f-\u009f]*$")]
    pub why: String,
}

/// Which keys are revoked, and why.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeKeys {
    /// The key ids, 1 to 100.
    #[schema(min_items = 1, max_items = 100)]
    pub key_ids: Vec<String>,
    /// The reason, up to 500 characters.
    #[serde(default)]
    #[schema(max_length = 500, pattern = r"^[^\u0000-\u0009\u000b-\u001f\u007f-\u009f]*$")]
    pub why: String,
}

/// A key that was revoked.
#[derive(Debug, Serialize, ToSchema)]
pub struct RevokedView {
    /// The key.
    pub key_id: String,
    /// Whether the list has the revocation. Otherwise, the key is revoked on this machine, and a
    /// comparison enters it into the list later.
    pub listed: bool,
}

/// Keys that were revoked.
#[derive(Debug, Serialize, ToSchema)]
pub struct RevokedKeys {
    /// The keys.
    pub keys: Vec<RevokedView>,
}

/// The properties of a new team.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTeam {
    /// The name, 1 to 64 characters.
    #[schema(min_length = 1, max_length = 64, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")]
    pub name: String,
    /// The number, which is the account of its keys; the next free one if there is none.
    #[schema(minimum = 1, maximum = 4294967295_u32, value_type = Option<i64>)]
    pub team: Option<u32>,
}

/// What to change of a team. What is not named stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EditTeam {
    /// The name.
    #[schema(min_length = 1, max_length = 64, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")]
    pub name: Option<String>,
    /// The longest time from now to the expiry of a key, in days; null if keys may never expire.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i32>, minimum = 1, maximum = 3650)]
    pub longest_days: Option<Option<u32>>,
    /// member, admin or owner: the least role that makes and rotates keys of the environment
    /// `live`.
    #[schema(pattern = "^(member|admin|owner)$")]
    pub live_role: Option<String>,
}

/// A member to add, or whose role to change.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetMember {
    /// The name of the user, such as a mail address or the id of your own user.
    #[schema(min_length = 1, max_length = 64, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")]
    pub name: String,
    /// viewer, member, admin or owner.
    #[schema(pattern = "^(viewer|member|admin|owner)$")]
    pub role: String,
}

/// The properties of a new token.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// The name, 1 to 64 characters.
    #[schema(min_length = 1, max_length = 64, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")]
    pub name: String,
    /// viewer, member, admin or owner.
    #[schema(pattern = "^(viewer|member|admin|owner)$")]
    pub role: String,
}

/// A token with its secret, which no other answer contains.
#[derive(Serialize, ToSchema)]
pub struct NewToken {
    /// The token for the header `X-API-Key`. Store it: it is not shown again.
    pub key: String,
    /// The rest.
    #[serde(flatten)]
    pub token: crate::tokens::Token,
}

/// For whom a one-time link is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSession {
    /// The name of the user, such as the id of your own user.
    #[schema(min_length = 1, max_length = 64, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")]
    pub user: String,
    /// viewer, member, admin or owner: the most that the user may do in the session.
    #[schema(pattern = "^(viewer|member|admin|owner)$")]
    pub role: String,
}

/// A one-time link.
#[derive(Serialize, ToSchema)]
pub struct SessionLink {
    /// The link for the user. Its code is in the fragment, which no server logs.
    pub url: String,
    /// What the user may do in the session: the role of the request, or that of the member if that
    /// is less.
    pub role: Role,
    /// From when on the link is not valid.
    pub ends: String,
}

/// A page of the log.
#[derive(Debug, Serialize, ToSchema)]
pub struct LogPage {
    /// The entries, the newest first.
    pub entries: Vec<crate::log::Entry>,
    /// The value of `before` for the next page; none if there is none.
    pub next: Option<i64>,
}

/// A page of teams.
#[derive(Debug, Serialize, ToSchema)]
pub struct TeamPage {
    /// The teams, in the order of their numbers.
    pub teams: Vec<crate::teams::Team>,
    /// The value of `after` for the next page; none if there is none.
    pub next: Option<i64>,
}

/// The members of a team.
#[derive(Debug, Serialize, ToSchema)]
pub struct Members {
    /// The members.
    pub members: Vec<crate::teams::Member>,
}

/// The tokens of a team.
#[derive(Debug, Serialize, ToSchema)]
pub struct Tokens {
    /// The tokens, the newest first.
    pub tokens: Vec<crate::tokens::Token>,
}

/// A plan.
#[derive(Debug, Serialize, ToSchema)]
pub struct PlanView {
    /// The name.
    pub name: String,
    /// The limits, such as `100/minute, 1000/hour`.
    pub limits: String,
}

/// The plans of the gate.
#[derive(Debug, Serialize, ToSchema)]
pub struct Plans {
    /// The plans. The first is the default.
    pub plans: Vec<PlanView>,
}

/// The usage of a key.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyUsage {
    /// The length of a bucket: minute, hour or day.
    pub width: &'static str,
    /// The buckets with counts, the oldest first.
    pub buckets: Vec<crate::usage::Bucket>,
}

/// The usage of a team.
#[derive(Debug, Serialize, ToSchema)]
pub struct TeamUsage {
    /// The groups, those with the most requests first.
    pub groups: Vec<crate::usage::Group>,
}

impl core::fmt::Debug for NewKeyView {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("NewKeyView").field("view", &self.view).finish_non_exhaustive()
    }
}

impl core::fmt::Debug for NewToken {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("NewToken").field("token", &self.token).finish_non_exhaustive()
    }
}

impl core::fmt::Debug for SessionLink {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SessionLink").field("ends", &self.ends).finish_non_exhaustive()
    }
}
