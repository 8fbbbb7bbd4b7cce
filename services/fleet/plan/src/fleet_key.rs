//! What the machines of a fleet know of a key, and how what two of them know is merged.
//!
//! Each change of a key on a machine gives it a *version* that is 1 higher. Of two versions, the
//! higher one holds. Two machines may change a key at once, and give both changes one version. Then
//! each property is that of the stricter one. A revocation holds whatever the versions are.
//!
//! [`FleetKey::merge`] is commutative, associative and idempotent. So all machines that have
//! merged the same states, in any order and any number of times, know the same.

use core::cmp::Reverse;

use keytally_core::{KeyRecord, KeyState, StoredSecret, Timestamp};

/// The version of a key whose changes are not known: as it was when it was first carried.
pub const FIRST_VERSION: u64 = 1;

/// What a machine of a fleet knows of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FleetKey {
    /// The key is revoked, which no version undoes.
    Revoked {
        /// When that was first carried, in Unix seconds; not 0.
        at_s: u32,
    },
    /// The key is active, unless it has expired.
    Active {
        /// How often the key was changed since it was first carried, and 1.
        version: u64,
        /// Its properties and the MACs of its secrets.
        record: KeyRecord,
    },
}

/// What a machine remembers of a key since it last carried it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// The version; `u64::MAX` of a revoked key.
    pub version: u64,
    /// The [`digest`](FleetKey::digest) of what was carried.
    pub digest: u64,
    /// When the revocation was first carried, in Unix seconds; 0 for an active key.
    pub revoked_s: u32,
    /// When the key expires, in Unix seconds; 0 if it does not, or is revoked.
    pub expires_s: u32,
    /// How often the record of the gate had been written then, counted round: see
    /// [`Gate::record_writes`](keytally_core::Gate::record_writes).
    pub writes: u16,
}

/// What a machine's gate has of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present<'r> {
    /// Its record.
    pub record: &'r KeyRecord,
    /// How often the record was written, counted round.
    pub writes: u16,
}

impl Carried {
    /// Returns whether a record with this number of writes was written less often than when it was
    /// carried: it is from an older copy of the gate.
    pub const fn is_after(&self, writes: u16) -> bool {
        writes.wrapping_sub(self.writes) % WRITES >= WRITES / 2
    }

    /// Returns whether a record has the version that was carried, and lets the key end later. Two
    /// machines had then changed the key at once, and the earlier end holds.
    fn ends_before(&self, key: &FleetKey) -> bool {
        let FleetKey::Active { version, record } = key else { return false };
        let ends_s = record.expires.map_or(u64::MAX, Timestamp::unix_s);
        *version == self.version && self.expires_s > 0 && ends_s > self.expires_s.into()
    }
}

/// The number of writes of a record is below this.
const WRITES: u16 = 1 << 13;

/// What comes of an exchange of a machine with the store about one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchanged {
    /// What both know together.
    pub key: FleetKey,
    /// Whether the gate must be given it.
    pub changes_gate: bool,
    /// Whether the store must be given it.
    pub changes_store: bool,
    /// Whether the store had something older than it had before, which no agent writes.
    pub is_older: bool,
    /// Whether the gate has an older record than it had, and the store nothing newer. The record
    /// then stays as it is, and no other machine gets it.
    pub is_withheld: bool,
}

impl FleetKey {
    /// Merges what a machine knows of a key with what the store has.
    ///
    /// `present` is what the machine's gate has, if it has the key, `carried` what the machine
    /// remembers of it, and `theirs` what the store has. Returns `None` if neither knows the key.
    pub fn exchange(
        present: Option<Present<'_>>,
        carried: Option<Carried>,
        theirs: Option<&Self>,
        now: Timestamp,
    ) -> Option<Exchanged> {
        let known = present.map(|present| Self::known(present, carried, theirs, now));
        let is_behind = matches!(known, Some(None));
        let own = match known {
            Some(own) => own,
            // The key was never put, or another key has its record now.
            None => carried
                .filter(|carried| carried.revoked_s > 0)
                .map(|carried| Self::Revoked { at_s: carried.revoked_s }),
        };
        let last = carried.map_or(0, |carried| carried.version);
        // What the gate has of the key would be merged with a record of the same version.
        let ended_before = |theirs| {
            present.is_none() && carried.is_some_and(|carried| carried.ends_before(theirs))
        };
        let is_older = theirs.is_some_and(|theirs| theirs.version() < last || ended_before(theirs));
        if is_behind && (is_older || theirs.is_none()) {
            let Present { record, .. } = present?;
            let key = Self::Active { version: FIRST_VERSION, record: record.clone() };
            let (changes_gate, changes_store, is_withheld) = (false, false, true);
            return Some(Exchanged { key, changes_gate, changes_store, is_older, is_withheld });
        }
        let key = match (&own, theirs) {
            (Some(own), Some(theirs)) => own.clone().merge(theirs.clone()),
            (Some(own), None) => own.clone(),
            (None, Some(theirs)) => theirs.clone(),
            (None, None) => return None,
        };
        let is_valid = key.ended_s(now).is_none();
        let changes_gate = match (present, &own) {
            (Some(_), None) => true,
            (Some(Present { record, .. }), Some(own)) => {
                // The record of a restored gate may be active although its key was revoked.
                !own.is_same_key(&key) || record.state != key.state()
            }
            (None, _) => is_valid && !is_older,
        };
        let changes_store = own.is_some() && theirs != Some(&key);
        Some(Exchanged { key, changes_gate, changes_store, is_older, is_withheld: false })
    }

    /// Returns what a machine knows by the record in its gate; `None` if the record is from an
    /// older copy of the gate. Another record than was carried has been changed on this machine.
    fn known(
        present: Present<'_>,
        carried: Option<Carried>,
        theirs: Option<&Self>,
        now: Timestamp,
    ) -> Option<Self> {
        let Present { record, writes } = present;
        let revoked_s = carried.map(|carried| carried.revoked_s).filter(|at_s| *at_s > 0);
        if record.state == KeyState::Revoked || revoked_s.is_some() {
            let now_s = u32::try_from(now.unix_s()).unwrap_or(u32::MAX).max(1);
            return Some(Self::Revoked { at_s: revoked_s.unwrap_or(now_s) });
        }
        // An older record of the store may have been written by a machine without memory. It does
        // not say that the same record in this gate is the newest one.
        let theirs =
            theirs.filter(|theirs| carried.is_none_or(|its| theirs.version() >= its.version));
        let mut own = Self::Active { version: FIRST_VERSION, record: record.clone() };
        let digest = own.digest();
        let version = match (carried, theirs) {
            // The machine ended after it had put this record, and before it remembered that.
            (_, Some(Self::Active { version, .. })) if theirs.map(Self::digest) == Some(digest) => {
                carried.map_or(*version, |carried| carried.version.max(*version))
            }
            (Some(carried), _) if carried.digest == digest => carried.version,
            (Some(carried), _)
                // A change on this machine is a write.
                if (carried.is_after(writes) || carried.writes == writes)
                    && !theirs.is_some_and(|theirs| theirs.differs_in_peppers(record)) =>
            {
                return None;
            }
            (Some(carried), _) => carried.version.saturating_add(1),
            // The key was rotated while nothing was carried.
            (None, Some(Self::Active { version, record: before }))
                if record.previous == Some(before.secret) =>
            {
                version.saturating_add(1)
            }
            (None, _) => FIRST_VERSION,
        };
        if let Self::Active { version: its, .. } = &mut own {
            *its = version;
        }
        Some(own)
    }

    /// Returns whether a record is the same but for the peppers of its secrets. A gate gives the
    /// number of a pepper that no valid secret needs to another one, and writes no record for that.
    fn differs_in_peppers(&self, record: &KeyRecord) -> bool {
        let without = |record: &KeyRecord| {
            let without = |secret: StoredSecret| StoredSecret { pepper: 0, ..secret };
            let (secret, previous) = (without(record.secret), record.previous.map(without));
            KeyRecord { secret, previous, is_imported: false, ..record.clone() }
        };
        matches!(self, Self::Active { record: own, .. } if without(own) == without(record))
    }

    fn state(&self) -> KeyState {
        match self {
            Self::Revoked { .. } => KeyState::Revoked,
            Self::Active { .. } => KeyState::Active,
        }
    }

    /// Returns what both know together.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        match (self, other) {
            (Self::Revoked { at_s: one }, Self::Revoked { at_s: two }) => {
                Self::Revoked { at_s: one.min(two) }
            }
            (revoked @ Self::Revoked { .. }, _) | (_, revoked @ Self::Revoked { .. }) => revoked,
            (
                Self::Active { version: one, record: first },
                Self::Active { version: two, record: second },
            ) => {
                // A gate has imported keys, or it has none.
                let is_imported = first.is_imported | second.is_imported;
                let (version, record) = match one.cmp(&two) {
                    core::cmp::Ordering::Less => (two, second),
                    core::cmp::Ordering::Greater => (one, first),
                    core::cmp::Ordering::Equal => (one, stricter(first, second)),
                };
                Self::Active { version, record: KeyRecord { is_imported, ..record } }
            }
        }
    }

    /// Returns whether both are the same to a gate: the same properties, whatever their versions.
    pub fn is_same_key(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Revoked { .. }, Self::Revoked { .. }) => true,
            (Self::Active { record: one, .. }, Self::Active { record: two, .. }) => one == two,
            _ => false,
        }
    }

    /// Returns the version; `u64::MAX` of a revoked key.
    pub fn version(&self) -> u64 {
        match self {
            Self::Revoked { .. } => u64::MAX,
            Self::Active { version, .. } => *version,
        }
    }

    /// Returns what a machine remembers of this, whose gate's record was written this often.
    pub fn carried(&self, writes: u16) -> Carried {
        let (revoked_s, expires_s) = match self {
            Self::Revoked { at_s } => (*at_s, 0),
            Self::Active { record, .. } => {
                let expires_s = record.expires.map_or(0, Timestamp::unix_s);
                (0, u32::try_from(expires_s).unwrap_or(u32::MAX))
            }
        };
        Carried { version: self.version(), digest: self.digest(), revoked_s, expires_s, writes }
    }

    /// Returns when the key ended, in Unix seconds: when it was revoked or has expired; `None` if
    /// it is valid at `now`.
    pub fn ended_s(&self, now: Timestamp) -> Option<u64> {
        match self {
            Self::Revoked { at_s } => Some((*at_s).into()),
            Self::Active { record, .. } => {
                record.expires.filter(|end| *end <= now).map(Timestamp::unix_s)
            }
        }
    }

    /// Returns a 64-bit hash of all but the version (FNV-1a). It is for comparisons of what one
    /// machine wrote itself, so it does not have to withstand a chosen input.
    pub fn digest(&self) -> u64 {
        let mut hash = Fnv::new();
        let Self::Active { record, .. } = self else {
            hash.add(b"revoked");
            return hash.0;
        };
        // `is_imported` is left out: the first import of a gate sets it for all its keys.
        let seconds = |end: Option<Timestamp>| end.map_or(0, Timestamp::unix_s).to_le_bytes();
        hash.add(&record.key_id.number().to_le_bytes());
        hash.add(&record.account.to_le_bytes());
        hash.add(record.env.as_str().as_bytes());
        hash.add(b"/");
        hash.add(record.plan.as_str().as_bytes());
        hash.add(b"/");
        hash.add(&seconds(record.expires));
        hash.add(&seconds(record.grace_until));
        hash.add(&record.scopes.to_le_bytes());
        hash.add(record.last_characters.as_ref().map_or("", |last| last.as_str()).as_bytes());
        for secret in [Some(record.secret), record.previous] {
            hash.add(b"/");
            if let Some(StoredSecret { tag, pepper }) = secret {
                hash.add(&tag);
                hash.add(&pepper.to_le_bytes());
            }
        }
        hash.0
    }
}

/// Returns the stricter one of each property of two records with one version.
fn stricter(one: KeyRecord, two: KeyRecord) -> KeyRecord {
    // A shorter grace is stricter, and none is the shortest.
    let secrets = |record: &KeyRecord| {
        let stored = |secret: StoredSecret| (secret.tag, secret.pepper);
        (
            stored(record.secret),
            record.previous.map(stored),
            Reverse(record.grace_until),
            record.last_characters.clone(),
        )
    };
    let expires = match (one.expires, two.expires) {
        (Some(first), Some(second)) => Some(first.min(second)),
        (first, second) => first.or(second),
    };
    let account = one.account.max(two.account);
    let env = if one.env.as_str() < two.env.as_str() { two.env } else { one.env };
    let scopes = one.scopes & two.scopes;
    let plan = one.plan.clone().max(two.plan.clone());
    let is_imported = one.is_imported | two.is_imported;
    let newer = if secrets(&one) < secrets(&two) { two } else { one };
    KeyRecord { expires, account, env, scopes, plan, is_imported, ..newer }
}

/// Returns a 64-bit hash of bytes (FNV-1a), the same in every build.
pub fn digest(bytes: &[u8]) -> u64 {
    let mut hash = Fnv::new();
    hash.add(bytes);
    hash.0
}

/// The state of an FNV-1a hash.
struct Fnv(u64);

impl Fnv {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
