//! The charge of a check, which a later refund returns.

use core::fmt;
use core::slice;

use crate::time::Timestamp;

/// Units that one tally was charged, and when.
///
/// [`refund`](crate::decide::refund) and [`settle`](crate::decide::settle) return units only to the
/// windows of that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TallyCharge {
    /// The units that were charged.
    pub cost: u32,
    /// The time of the decision that charged them: see [`Quotas::time`](crate::Quotas::time).
    pub at: Timestamp,
}

/// What one request was charged: the units of each tally, and the time of each decision.
///
/// The refund and the settlement of a table return units only to the windows of those times. A
/// caller that stores a charge stores its [bytes](Self::to_bytes), or the numbers of
/// [`new`](Self::new) if the charge has one tally.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Charge {
    /// The tallies in the order in which they were charged. Those from `len` on are `UNUSED`, so
    /// that charges of equal tallies are equal.
    entries: [Entry; MAX],
    len: u8,
    /// Whether nothing was reserved for the request.
    is_unreserved: bool,
}

/// The most tallies of a charge.
pub(crate) const MAX: usize = 8;

/// What one tally was charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct Entry {
    /// The index of the tally in its gate, 0 for the first, or of the prefix in a limiter of
    /// addresses. In a limiter, it has the bit [`SHARED`] for an overflow tally.
    pub(crate) tally: u8,
    /// Which cost of the request this is. It is 0 for the request's own cost.
    pub(crate) unit: u8,
    cost: u32,
    #[cfg_attr(feature = "serde", serde(rename = "at_ms"))]
    at: Timestamp,
}

const UNUSED: Entry = Entry { tally: 0, unit: 0, cost: 0, at: Timestamp::from_unix_ms(0) };

/// The bit of the tally of a limiter's charge that was made to an overflow tally.
pub(crate) const SHARED: u8 = 0x80;

/// Bytes of an entry.
const ENTRY_LEN: usize = 16;

/// The byte of an entry that says whether nothing was reserved.
const UNRESERVED_AT: usize = 7;

/// The byte that marks an entry that is used.
const USED: u8 = 1;

impl Charge {
    /// Bytes of a charge in the form of [`to_bytes`](Self::to_bytes).
    pub const LEN: usize = 128;

    /// A charge without tallies, for [`push`](Self::push).
    pub(crate) const EMPTY: Self = Self { entries: [UNUSED; MAX], len: 0, is_unreserved: false };

    /// The charge of one tally, the first of a gate or the subject's own of a limiter: `cost` units
    /// at the time `at`.
    #[inline]
    pub const fn new(cost: u32, at: Timestamp) -> Self {
        let mut entries = [UNUSED; MAX];
        entries[0] = Entry { tally: 0, unit: 0, cost, at };
        Self { entries, len: 1, is_unreserved: false }
    }

    /// The charge of one tally for which nothing was [reserved](crate::Reserve): `cost` units at
    /// the time `at`. A refund releases nothing.
    pub const fn unreserved(cost: u32, at: Timestamp) -> Self {
        Self { is_unreserved: true, ..Self::new(cost, at) }
    }

    /// The charge of an overflow tally of a limiter: `cost` units at the time `at`. See
    /// [`Verdict::is_shared`](crate::Verdict::is_shared).
    pub const fn shared(cost: u32, at: Timestamp) -> Self {
        let mut charge = Self::new(cost, at);
        charge.entries[0].tally = SHARED;
        charge
    }

    /// The charge of an overflow tally of a limiter for which nothing was
    /// [reserved](crate::Reserve):
    /// `cost` units at the time `at`.
    pub const fn shared_unreserved(cost: u32, at: Timestamp) -> Self {
        Self { is_unreserved: true, ..Self::shared(cost, at) }
    }

    /// The charge of one tally of another charge.
    pub(crate) fn of(entry: Entry) -> Self {
        let mut charge = Self::EMPTY;
        charge.push(entry.tally, entry.unit, entry.charge());
        charge
    }

    /// Returns whether nothing was [reserved](crate::Reserve) for the request.
    pub const fn is_unreserved(&self) -> bool {
        self.is_unreserved
    }

    /// Makes this the charge of a request for which nothing was reserved.
    pub(crate) fn set_unreserved(&mut self) {
        self.is_unreserved = true;
    }

    /// Returns the index of the first tally, without the bit of an overflow tally.
    pub(crate) fn index(&self) -> usize {
        (self.tally() & !SHARED).into()
    }

    /// Returns the number of the first tally.
    pub(crate) const fn tally(&self) -> u8 {
        self.entries[0].tally
    }

    /// Returns whether a limiter's charge was made to an overflow tally.
    pub(crate) const fn is_shared(&self) -> bool {
        self.tally() & SHARED != 0
    }

    /// Returns the units that the request itself was charged; 0 if only groups with costs of their
    /// own were charged.
    #[inline]
    pub const fn cost(&self) -> u32 {
        let mut index = 0;
        while index < self.len as usize {
            if self.entries[index].unit == 0 {
                return self.entries[index].cost;
            }
            index += 1;
        }
        0
    }

    /// Returns the time of the decision that charged the first tally: see
    /// [`Quotas::time`](crate::Quotas::time).
    #[inline]
    pub const fn at(&self) -> Timestamp {
        self.first().at
    }

    /// Returns the charge as bytes, which are the same in every language and on every machine.
    ///
    /// Each tally takes 16 bytes. All numbers are little-endian, and the bytes after the last tally
    /// are 0:
    ///
    /// | bytes | content |
    /// |---|---|
    /// | 0 to 3 | the units |
    /// | 4 | the index of the tally in its gate, or of the prefix in a limiter; 128 more for an
    /// overflow tally |
    /// | 5 | which cost of the request this is |
    /// | 6 | 1 |
    /// | 7 | 1 if nothing was [reserved](crate::Reserve) for the request, which is the same for all
    /// tallies; else 0 |
    /// | 8 to 15 | the time of the decision in Unix milliseconds |
    ///
    /// ```
    /// use keytally_core::{Charge, Timestamp};
    /// let charge = Charge::new(3, Timestamp::from_unix_ms(1_700_000_000_000));
    /// let bytes = charge.to_bytes();
    /// assert_eq!(bytes[..16], [3, 0, 0, 0, 0, 0, 1, 0, 0, 104, 229, 207, 139, 1, 0, 0]);
    /// assert_eq!(Charge::from_bytes(&bytes), Some(charge));
    /// ```
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let (chunks, _) = bytes.as_chunks_mut();
        for (chunk, entry) in chunks.iter_mut().zip(self.entries()) {
            *chunk = entry.to_bytes();
            chunk[UNRESERVED_AT] = self.is_unreserved.into();
        }
        bytes
    }

    /// Returns the charge with these bytes. Returns `None` if [`to_bytes`](Self::to_bytes) does not
    /// write them.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Option<Self> {
        let mut charge = Self::EMPTY;
        let (chunks, _) = bytes.as_chunks();
        charge.is_unreserved = bytes[UNRESERVED_AT] == 1;
        for entry in chunks.iter().map_while(Entry::from_bytes) {
            charge.push(entry.tally, entry.unit, entry.charge());
        }
        (charge.len > 0 && charge.to_bytes() == *bytes).then_some(charge)
    }

    /// Adds a tally. Returns whether there was room for it.
    pub(crate) fn push(&mut self, tally: u8, unit: u8, charge: TallyCharge) -> bool {
        let Some(entry) = self.entries.get_mut(usize::from(self.len)) else { return false };
        let TallyCharge { cost, at } = charge;
        *entry = Entry { tally, unit, cost, at };
        self.len += 1;
        true
    }

    /// Lowers the units of every tally by `units`.
    pub(crate) fn lower(&mut self, units: u32) {
        for entry in &mut self.entries {
            entry.cost = entry.cost.saturating_sub(units);
        }
    }

    /// Returns the tallies in the order in which they were charged.
    pub(crate) fn entries(&self) -> slice::Iter<'_, Entry> {
        self.entries.get(..usize::from(self.len)).unwrap_or_default().iter()
    }

    /// Returns what the first tally was charged.
    #[inline]
    pub(crate) const fn first(&self) -> TallyCharge {
        self.entries[0].charge()
    }
}

/// Shows the tallies as a list.
impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries()).finish()
    }
}

impl Entry {
    /// Returns the units and their time.
    #[inline]
    pub(crate) const fn charge(&self) -> TallyCharge {
        TallyCharge { cost: self.cost, at: self.at }
    }

    const fn to_bytes(self) -> [u8; ENTRY_LEN] {
        let [c0, c1, c2, c3] = self.cost.to_le_bytes();
        let [t0, t1, t2, t3, t4, t5, t6, t7] = self.at.unix_ms().to_le_bytes();
        [c0, c1, c2, c3, self.tally, self.unit, USED, 0, t0, t1, t2, t3, t4, t5, t6, t7]
    }

    /// Returns the entry with these bytes. Returns `None` unless they are marked as used.
    const fn from_bytes(bytes: &[u8; ENTRY_LEN]) -> Option<Self> {
        let [c0, c1, c2, c3, tally, unit, mark, _, t0, t1, t2, t3, t4, t5, t6, t7] = *bytes;
        if mark != USED {
            return None;
        }
        let cost = u32::from_le_bytes([c0, c1, c2, c3]);
        let at = u64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]);
        Some(Self { tally, unit, cost, at: Timestamp::from_unix_ms(at) })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::format;

    use super::*;

    /// Returns a charge of as many tallies, which differ in each number.
    fn charge_of(tallies: u8) -> Charge {
        let mut charge = Charge::EMPTY;
        for index in 0..tallies {
            let at = Timestamp::from_unix_ms(u64::MAX - u64::from(index));
            let cost = u32::MAX - u32::from(index);
            assert!(charge.push(0x80 + index, 0xF0 + index, TallyCharge { cost, at }));
        }
        charge
    }

    #[test]
    fn charge_round_trips_as_bytes_with_any_tallies() {
        for tallies in 1..=8 {
            let mut charge = charge_of(tallies);
            assert_eq!(Charge::from_bytes(&charge.to_bytes()), Some(charge));
            assert_eq!(charge.entries().len(), usize::from(tallies));
            charge.set_unreserved();
            assert_eq!(Charge::from_bytes(&charge.to_bytes()), Some(charge));
            assert_ne!(charge, charge_of(tallies));
        }
        assert_eq!(Charge::from_bytes(&Charge::EMPTY.to_bytes()), None);
    }

    #[test]
    fn ninth_tally_is_refused() {
        let mut charge = charge_of(8);
        assert!(!charge.push(9, 9, charge.first()));
        assert_eq!(charge, charge_of(8));
    }

    #[test]
    fn changed_reserved_byte_is_not_a_charge() {
        for tallies in 1..8 {
            let bytes = charge_of(tallies).to_bytes();
            let used = usize::from(tallies) * ENTRY_LEN;
            let reserved = (0..used).filter(|at| matches!(at % ENTRY_LEN, 6 | 7));
            for at in reserved.chain(used..Charge::LEN) {
                for value in (0..=u8::MAX).filter(|&value| value != bytes[at]) {
                    let mut changed = bytes;
                    changed[at] = value;
                    // The first one adds a tally of 0 units, and the second one is the charge of a
                    // request for which nothing was reserved.
                    let is_charge = (at == used + 6 && value == USED)
                        || (tallies == 1 && at == UNRESERVED_AT && value == 1);
                    let found = Charge::from_bytes(&changed);
                    assert_eq!(found.is_some(), is_charge, "{tallies}: {value} at {at}");
                }
            }
        }
    }

    #[test]
    fn charges_are_shown_and_compared_by_their_tallies() {
        let charge = Charge::new(3, Timestamp::from_unix_ms(1500));
        assert_eq!(
            format!("{charge:?}"),
            "[Entry { tally: 0, unit: 0, cost: 3, at: Timestamp(1500) }]"
        );
        assert_eq!((charge.cost(), charge.at().unix_ms()), (3, 1500));
        assert_ne!(charge, Charge::new(4, charge.at()));
        assert_ne!(charge_of(2), charge_of(3));
        let mut other_unit = Charge::EMPTY;
        other_unit.push(0, 1, charge.first());
        assert_ne!(charge, other_unit);
    }
}
