//! The sealed record of a key: bytes that a store keeps, and that only machines with a pepper of
//! the fleet can make.
//!
//! ```text
//! 1 (version of the form) | 0 active, 1 revoked | version of the key (8), or seconds (8) | …
//! ```
//!
//! An active key has in addition, in this order: account (4), expiry (4), end of the grace (4),
//! scopes (8), whether the gate has imported keys (1), environment (length and text), plan (length
//! and text), last characters (length and text), secret (tag 16, pepper 8), and the previous secret
//! (1 and the same, or 0). All numbers are little-endian.
//!
//! Then there is a MAC of 32 bytes for each pepper of the machine that sealed it. A record is
//! accepted if one of them is right under one of the reader's peppers. So peppers can be replaced
//! on one machine after the other.
//!
//! The MAC is HMAC-SHA-256 of the fleet's name, the name of the field in the store, and the bytes
//! before the MACs. Its key is derived from the pepper by the second step of HKDF-SHA-256 (RFC
//! 5869, section 2.3). The first step is left out, as its section 3.3 permits for a key that is
//! random: a pepper is.

use keytally_core::{
    KeyId, KeyRecord, KeyState, MAX_NAME_LEN, MAX_PEPPERS, MAX_PLAN_NAME_LEN, Name, Pepper,
    Peppers, StoredSecret, Text, Timestamp,
};
use subtle::{Choice, ConstantTimeEq as _};

use crate::fleet_key::FleetKey;

/// The label from which the MAC's key is derived. No key can have this text: it has spaces.
const LABEL: &[u8] = b"keytally sealed records of a fleet";

/// The version of the form.
const FORM: u8 = 1;

/// Bytes of a MAC.
const MAC_LEN: usize = 32;

/// The most bytes of a sealed record.
pub const MAX_SEALED_LEN: usize = MAX_BODY_LEN + MAX_PEPPERS * MAC_LEN;

/// The most bytes before the MACs: those of a text. An active key has fewer.
const MAX_BODY_LEN: usize = 2 + MAX_SEALED_TEXT_LEN;

/// The most bytes of a text that is sealed.
pub const MAX_SEALED_TEXT_LEN: usize = 255;

// Numbers, names and secrets of an active key.
const _: () =
    assert!(10 + 21 + (1 + MAX_NAME_LEN) + (1 + MAX_PLAN_NAME_LEN) + 5 + 24 + 25 <= MAX_BODY_LEN);

/// The most bytes of the fleet's name and of a field's name together, with their lengths.
const MAX_NAMES_LEN: usize = 128;

/// Seals records of a fleet, and opens them.
///
/// ```
/// use keytally_core::Peppers;
/// use keytally_fleet_plan::fleet_key::FleetKey;
/// use keytally_fleet_plan::seal::Seal;
///
/// let seal = Seal::new("prod", &Peppers::new(&[[7; 32]])?);
/// let field = "0Gk3XbT9qLm";
/// let sealed = seal.seal(field, &FleetKey::Revoked { at_s: 1_700_000_000 }).unwrap();
/// assert!(seal.open(field, &sealed).is_some());
/// assert!(seal.open("0Gk3XbT9qLn", &sealed).is_none(), "another key's");
/// # Ok::<(), keytally_core::PeppersError>(())
/// ```
#[derive(Debug)]
pub struct Seal<'n> {
    fleet: &'n str,
    keys: [Option<Pepper>; MAX_PEPPERS],
}

/// The bytes of a sealed record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    bytes: [u8; MAX_SEALED_LEN],
    len: usize,
}

impl core::ops::Deref for Sealed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Sealed {
    const fn new() -> Self {
        Self { bytes: [0; MAX_SEALED_LEN], len: 0 }
    }

    /// Appends bytes. `None` if there is no room.
    fn add(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len.checked_add(bytes.len())?;
        self.bytes.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(())
    }

    fn add_text(&mut self, text: &str) -> Option<()> {
        self.add(&[u8::try_from(text.len()).ok()?])?;
        self.add(text.as_bytes())
    }

    fn add_secret(&mut self, secret: &StoredSecret) -> Option<()> {
        self.add(&secret.tag)?;
        self.add(&secret.pepper.to_le_bytes())
    }

    fn add_key(&mut self, key: &FleetKey) -> Option<()> {
        match key {
            FleetKey::Revoked { at_s } => {
                self.add(&[FORM, 1])?;
                self.add(&u64::from(*at_s).to_le_bytes())
            }
            FleetKey::Active { version, record } => {
                self.add(&[FORM, 0])?;
                self.add(&version.to_le_bytes())?;
                self.add(&record.account.to_le_bytes())?;
                for end in [record.expires, record.grace_until] {
                    self.add(&stored_s(end).to_le_bytes())?;
                }
                self.add(&record.scopes.to_le_bytes())?;
                self.add(&[record.is_imported.into()])?;
                self.add_text(record.env.as_str())?;
                self.add_text(record.plan.as_str())?;
                self.add_text(record.last_characters.as_ref().map_or("", |last| last.as_str()))?;
                self.add_secret(&record.secret)?;
                self.add(&[record.previous.is_some().into()])?;
                record.previous.as_ref().map_or(Some(()), |previous| self.add_secret(previous))
            }
        }
    }
}

impl<'n> Seal<'n> {
    /// The seal of a fleet whose machines have these peppers, or some of them.
    pub fn new(fleet: &'n str, peppers: &Peppers) -> Self {
        let mut keys = [const { None }; MAX_PEPPERS];
        for (key, pepper) in keys.iter_mut().zip(peppers.iter()) {
            *key = derived(pepper);
        }
        Self { fleet, keys }
    }

    /// Seals what is known of a key, for the field of the store with its id. `None` if the names
    /// are too long, which those of a key and a fleet are not.
    pub fn seal(&self, field: &str, key: &FleetKey) -> Option<Sealed> {
        let mut sealed = Sealed::new();
        sealed.add_key(key)?;
        self.add_macs(field, sealed)
    }

    /// Seals a text, for a field of the store that is not a key's. `None` if it is longer than
    /// [`MAX_SEALED_TEXT_LEN`].
    pub fn seal_text(&self, field: &str, text: &str) -> Option<Sealed> {
        let mut sealed = Sealed::new();
        sealed.add(&[FORM])?;
        sealed.add_text(text)?;
        self.add_macs(field, sealed)
    }

    fn add_macs(&self, field: &str, mut sealed: Sealed) -> Option<Sealed> {
        let body = sealed.clone();
        for key in self.keys.iter().flatten() {
            sealed.add(&self.mac(key, field, &body)?)?;
        }
        Some(sealed)
    }

    /// Returns what is known of the key with this id by a sealed record; `None` if the record is
    /// not one of this fleet and field, or was changed.
    pub fn open(&self, field: &str, bytes: &[u8]) -> Option<FleetKey> {
        let key_id: KeyId = field.parse().ok()?;
        let mut reader = Reader { rest: bytes };
        // The form is checked before the MAC, since it says where the MAC begins. Nothing of it is
        // used before.
        let key = reader.key(key_id)?;
        let body = bytes.get(..bytes.len().checked_sub(reader.rest.len())?)?;
        self.verify(field, body, reader.rest).then_some(key)
    }

    /// Returns a sealed text; `None` as [`open`](Self::open).
    pub fn open_text<'b>(&self, field: &str, bytes: &'b [u8]) -> Option<&'b str> {
        let mut reader = Reader { rest: bytes };
        let [FORM] = reader.array()? else { return None };
        let text = reader.text()?;
        let body = bytes.get(..bytes.len().checked_sub(reader.rest.len())?)?;
        self.verify(field, body, reader.rest).then_some(text)
    }

    /// Returns whether bytes have the form of a sealed text, of this version or another one, under
    /// whichever peppers. Others were not written by an agent.
    pub fn is_text(bytes: &[u8]) -> bool {
        let [_, len, rest @ ..] = bytes else { return false };
        let macs = rest.len().checked_sub((*len).into());
        macs.is_some_and(|macs| macs > 0 && macs.is_multiple_of(MAC_LEN))
    }

    /// Returns whether one of the MACs is right under one of the peppers.
    fn verify(&self, field: &str, body: &[u8], macs: &[u8]) -> bool {
        let (macs, rest) = macs.as_chunks::<MAC_LEN>();
        if !rest.is_empty() || macs.is_empty() || macs.len() > MAX_PEPPERS {
            return false;
        }
        let right = self.keys.iter().flatten().filter_map(|key| self.mac(key, field, body));
        let found = right.fold(Choice::from(0), |found, right| {
            macs.iter().fold(found, |found, mac| found | right.ct_eq(mac))
        });
        found.into()
    }

    fn mac(&self, key: &Pepper, field: &str, body: &[u8]) -> Option<[u8; MAC_LEN]> {
        let mut message = [0; MAX_NAMES_LEN + MAX_BODY_LEN];
        let mut len = 0;
        let names = [self.fleet.as_bytes(), field.as_bytes()];
        let lengths = names.map(|name| u8::try_from(name.len()).unwrap_or(u8::MAX));
        for part in [&lengths[..], names[0], names[1], body] {
            let end = len + part.len();
            message.get_mut(len..end)?.copy_from_slice(part);
            len = end;
        }
        Some(key.mac(message.get(..len)?).to_bytes())
    }
}

/// Returns the HMAC key that is derived from a pepper: HKDF-Expand with the pepper as the
/// pseudorandom key, for 32 bytes.
fn derived(pepper: &Pepper) -> Option<Pepper> {
    let mut info = [1; LABEL.len() + 1];
    info[..LABEL.len()].copy_from_slice(LABEL);
    Pepper::new(&pepper.mac(&info).to_bytes()).ok()
}

/// Returns a moment as a record keeps it; 0 for none.
fn stored_s(moment: Option<Timestamp>) -> u32 {
    moment.map_or(0, |moment| u32::try_from(moment.unix_s()).unwrap_or(u32::MAX))
}

/// Reads a record from bytes.
struct Reader<'b> {
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*first)
    }

    fn is(&mut self) -> Option<bool> {
        match self.array()? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    fn text(&mut self) -> Option<&'b str> {
        let [len] = self.array()?;
        let (text, rest) = self.rest.split_at_checked(len.into())?;
        self.rest = rest;
        core::str::from_utf8(text).ok()
    }

    fn moment(&mut self) -> Option<Option<Timestamp>> {
        let stored_s = u32::from_le_bytes(self.array()?);
        Some((stored_s != 0).then(|| Timestamp::from_unix_s(stored_s.into())))
    }

    fn secret(&mut self) -> Option<StoredSecret> {
        Some(StoredSecret { tag: self.array()?, pepper: u64::from_le_bytes(self.array()?) })
    }

    fn key(&mut self, key_id: KeyId) -> Option<FleetKey> {
        let [FORM] = self.array()? else { return None };
        let is_revoked = self.is()?;
        let version = u64::from_le_bytes(self.array()?);
        if is_revoked {
            let at_s = u32::try_from(version).ok().filter(|at_s| *at_s > 0)?;
            return Some(FleetKey::Revoked { at_s });
        }
        let account = u32::from_le_bytes(self.array()?);
        let (expires, grace_until) = (self.moment()?, self.moment()?);
        let scopes = u64::from_le_bytes(self.array()?);
        let is_imported = self.is()?;
        let env = Name::new(self.text()?)?;
        let plan = Text::from_text(self.text()?)?;
        let last_characters = match self.text()? {
            "" => None,
            last => Some(Text::from_text(last)?),
        };
        let secret = self.secret()?;
        let previous = if self.is()? { Some(self.secret()?) } else { None };
        let record = KeyRecord {
            key_id,
            account,
            env,
            plan,
            state: KeyState::Active,
            expires,
            grace_until,
            scopes,
            last_characters,
            secret,
            previous,
            is_imported,
        };
        Some(FleetKey::Active { version, record })
    }
}
