//! What a program reads to find the keys that were changed, without a lock and without reading all
//! records.

use super::table::Gate;
use crate::cache_line::CacheLine;
use crate::key::KeyId;

impl<M: AsRef<[CacheLine]>> Gate<M> {
    /// Returns a word that differs after each change of a key or account, and while one is made. It
    /// is the same again after 2^32 changes.
    pub fn change_word(&self) -> u64 {
        self.redo().change_word()
    }

    /// Returns for each record the id of its key, and a word that differs after each change of the
    /// record. The word is the same again after 8,192 changes.
    ///
    /// It does not wait for an administrator: a record that is being written may be reported as
    /// before the change or with another word.
    pub fn record_words(&self) -> impl Iterator<Item = (Option<KeyId>, u64)> {
        self.records().map(|at| (at.key_id(), at.last_word()))
    }

    /// Returns how often the record that a key id names was written, whichever key it holds. The
    /// number is counted round: it is below 8,192.
    ///
    /// Of two copies of one gate, the record of the older one has the lower number.
    pub fn record_writes(&self, key_id: KeyId) -> u16 {
        self.record_of(key_id).writes()
    }

    /// Returns how often the properties of an account were written; `None` if the gate does not
    /// have it. The number is counted round, as that of [`record_writes`](Self::record_writes).
    pub fn account_writes(&self, account: u32) -> Option<u16> {
        Some(self.team_at(self.find_team(account).ok()?)?.writes())
    }
}
