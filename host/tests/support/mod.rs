//! Fixtures of these tests: times, peppers, keys, settings of gates, and files.

pub(crate) mod prompt;
pub(crate) mod random;
pub(crate) mod worker;

use std::fs::{self, File, OpenOptions};
use std::path::Path;

use keytally::{GateConfig, KeyId, Limiter, Name, NewKey, Peppers, Plan, Timestamp};

/// The time of checks, so that no window ends during a test.
pub(crate) const NOW: Timestamp = Timestamp::from_unix_s(1_700_000_000);

pub(crate) const PEPPER: &[u8] = b"a pepper for tests, of 32 bytes.";
pub(crate) const OTHER_PEPPER: &[u8] = b"another pepper, also of 32 bytes";

pub(crate) fn peppers() -> Peppers {
    Peppers::new(&[PEPPER]).unwrap()
}

pub(crate) fn other_peppers() -> Peppers {
    Peppers::new(&[OTHER_PEPPER]).unwrap()
}

/// Returns the description of a new key of account 42, without an expiry.
pub(crate) fn new_key() -> NewKey<'static> {
    NewKey::new(42, Name::new("live").unwrap())
}

pub(crate) fn plan(name: &str, policy: &str) -> Plan {
    Plan::new(name, policy.parse().unwrap()).unwrap()
}

/// Returns the settings of a gate with the plans `default` and `pro`.
pub(crate) fn config(keys: u32) -> GateConfig {
    let plans =
        vec![plan("default", "100/minute, 1000/hour"), plan("pro", "1000/minute, 20000/hour")];
    GateConfig::default().with_keys(keys).with_plans(plans)
}

/// Opens the limiter in a folder.
pub(crate) fn open_limiter(at: &Path) -> Limiter {
    Limiter::open(at.join("limiter")).unwrap()
}

/// Reads the ids and texts of the keys in a folder, which [`write_keys`] wrote.
pub(crate) fn read_keys(at: &Path) -> Vec<(KeyId, String)> {
    let text = fs::read_to_string(at.join("keys")).unwrap();
    let keys = text.lines().map(|line| line.split_once(' ').unwrap());
    keys.map(|(id, key)| (id.parse().unwrap(), key.to_owned())).collect()
}

/// Writes ids and texts of keys to the file `keys` in a folder.
pub(crate) fn write_keys(at: &Path, keys: &[(KeyId, String)]) {
    let lines: String = keys.iter().map(|(id, key)| format!("{id} {key}\n")).collect();
    fs::write(at.join("keys"), lines).unwrap();
}

/// Returns whether a process that was killed may have left a file of this name. On systems other
/// than Linux, a file that is being created has a temporary name.
pub(crate) fn may_be_left(name: &str) -> bool {
    !cfg!(target_os = "linux") && name.starts_with('.') && name.ends_with(".new")
}

/// Returns the number of files and folders in a folder.
pub(crate) fn entries(folder: &Path) -> usize {
    folder.read_dir().unwrap().count()
}

/// Opens a table as a plain file.
pub(crate) fn open_raw(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

/// Writes to a file by one call of the system.
pub(crate) fn write_at(file: &File, bytes: &[u8], offset: u64) {
    #[cfg(unix)]
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset).unwrap();
    #[cfg(windows)]
    assert_eq!(
        std::os::windows::fs::FileExt::seek_write(file, bytes, offset).unwrap(),
        bytes.len()
    );
}

/// Fills `bytes` from a file.
pub(crate) fn read_at(file: &File, bytes: &mut [u8], offset: u64) {
    #[cfg(unix)]
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset).unwrap();
    #[cfg(windows)]
    assert_eq!(std::os::windows::fs::FileExt::seek_read(file, bytes, offset).unwrap(), bytes.len());
}

#[cfg(unix)]
pub(crate) fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Returns whether the long form of a test was requested.
pub(crate) fn is_full() -> bool {
    std::env::var_os("KEYTALLY_FULL").is_some()
}

/// Returns whether a test was requested in a form for emulators, which are slow.
pub(crate) fn is_quick() -> bool {
    std::env::var_os("KEYTALLY_QUICK").is_some()
}
