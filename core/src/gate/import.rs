//! Import of keys that were issued elsewhere.

use super::admin_error::AdminError;
use super::administrator::Administrator;
use super::ids::RecordIds;
use super::imported::{IMPORTED_KEY_LEN, import_number};
use super::new_key::NewKey;
use crate::cache_line::CacheLine;
use crate::features::Feature;
use crate::key::{self, KeyId, Name};
use crate::time::Clock;

impl<M: AsRef<[CacheLine]>> Administrator<'_, M> {
    /// Imports a key of any form that was issued elsewhere, so that its holder keeps it. A key of
    /// Keytally's form keeps its key id and its environment.
    ///
    /// # Errors
    /// [`AdminError::NotImportable`], [`AlreadyImported`](AdminError::AlreadyImported),
    /// [`NoRoomToImport`](AdminError::NoRoomToImport), and those of [`issue`](Self::issue) but
    /// [`Full`](AdminError::Full). [`LeftOut`](AdminError::LeftOut) for a key of another form, if
    /// this build has none.
    pub fn import(
        &mut self,
        text: &[u8],
        new: &NewKey<'_>,
        clock: impl Clock,
    ) -> Result<KeyId, AdminError> {
        let gate = self.gate;
        let mut now = clock.reading();
        if !IMPORTED_KEY_LEN.contains(&text.len()) || !text.iter().all(u8::is_ascii_graphic) {
            return Err(AdminError::NotImportable { len: text.len() });
        }
        if let Ok(parts) = key::parse(text) {
            if gate.find(parts.key_id).is_some() {
                return Err(AdminError::AlreadyImported(parts.key_id));
            }
            let at = gate.record_of(parts.key_id);
            let at = self
                .vacant(core::iter::once(at), &mut now, clock)
                .ok_or(AdminError::NoRoomToImport)?;
            let new = NewKey { env: Name::new(parts.env).unwrap_or(new.env), ..*new };
            self.add(at, parts.key_id, text, &new, now)?;
            return Ok(parts.key_id);
        }
        if !Feature::ImportedKeys.is_included() {
            return Err(AdminError::LeftOut(Feature::ImportedKeys));
        }
        if let Some((_, record, _)) = gate.find_imported(text) {
            return Err(record
                .key_id
                .map_or(AdminError::NoRoomToImport, AdminError::AlreadyImported));
        }
        let mac = gate.peppers.newest().mac(text);
        // The emptier of the two groups, so that both stay usable for longer.
        let [one, two] = gate.import_groups(&mac);
        let taken =
            gate.import_groups(&mac).map(|group| group.filter(|at| at.key_id().is_some()).count());
        let at = if taken[1] < taken[0] {
            self.vacant(two.chain(one), &mut now, clock)
        } else {
            self.vacant(one.chain(two), &mut now, clock)
        };
        let at = at.ok_or(AdminError::NoRoomToImport)?;
        let key_id = RecordIds::new(at.number, gate.capacity).id_ending_with(import_number(&mac));
        self.add(at, key_id, text, new, now)?;
        Ok(key_id)
    }
}
