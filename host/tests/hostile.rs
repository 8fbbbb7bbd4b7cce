//! Hostile files: gates and limiters with each bit of the header flipped, random bits of the body
//! changed, wrong lengths, and paths that do not lead to a table. Each gives a clear error or a
//! correct result: never a crash, a hang, or an admitted unknown key.
//!
//! A worker process uses the damaged files, so that the parent detects a crash or a hang.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use core::time::Duration;
use std::fs;
#[cfg(unix)]
use std::os::unix::{
    fs::{chown, symlink},
    process::CommandExt,
};
use std::path::{Path, PathBuf};
use std::process::Command;

use keytally::{
    Address, AddressLimiter, Error, Gate, HEADER_LEN, Key, KeyId, Limiter, Name, NewKey, Outcome,
    Plan, Settlement, Timestamp, entropy,
};

use crate::support::random::Random;
#[cfg(unix)]
use crate::support::set_mode;
#[cfg(unix)]
use crate::support::worker::copy_of_this_program;
use crate::support::worker::{Worker, folder, report, role, wait_for_kill};
use crate::support::{
    NOW, config, is_full, new_key, open_raw, peppers, read_at, read_keys, write_at, write_keys,
};

/// The number of random damages to a body: in the short form, and in the long form (if
/// `KEYTALLY_FULL` is set).
const ROUNDS: [u64; 2] = [4000, 200_000];

const KEYS: u32 = 10;
const SUBJECTS: u32 = 20;

/// A folder with a gate, a limiter and a limiter of addresses that have been used.
struct Files {
    gate: PathBuf,
    limiter: PathBuf,
    addresses: PathBuf,
}

impl Files {
    /// Creates the tables in a folder, and the file `keys` with the ids and texts of the keys.
    fn create_in(at: &Path) -> Self {
        let files = Self::in_folder(at);
        let gate = Gate::create(&files.gate, peppers(), &config(KEYS)).unwrap();
        let mut keys = Vec::new();
        for _ in 0..KEYS / 2 {
            let (key, id) = gate.issue(&new_key()).unwrap();
            assert!(gate.table().check(Some(key.expose().as_bytes()), 1, NOW).is_admitted());
            keys.push((id, key.expose().to_owned()));
        }
        let id = gate.import(b"a-key-that-a-customer-has", &new_key()).unwrap();
        keys.push((id, "a-key-that-a-customer-has".to_owned()));
        write_keys(at, &keys);
        let limiter =
            Limiter::create(&files.limiter, &"5/minute, 9/hour".parse().unwrap(), SUBJECTS)
                .unwrap();
        for subject in 0..SUBJECTS {
            assert!(limiter.table().check(&subject.to_le_bytes(), 1, NOW).is_admitted());
        }
        let policy = "addresses: /64 5/minute, 9/hour; /56 12/minute; /48 30/hour";
        let addresses =
            AddressLimiter::create(&files.addresses, &policy.parse().unwrap(), SUBJECTS).unwrap();
        for number in 0..SUBJECTS {
            assert!(addresses.table().check(address(number), 1, NOW).is_admitted());
        }
        files
    }

    /// Puts the gate into the state that an administrator leaves if it is killed while it writes a
    /// record. The redo record holds the complete new record, and the record's sequence is odd.
    /// core/src/gate.rs and core/src/record.rs define the format.
    fn begin_a_change(&self, at: &Path) {
        // The offsets of the redo record and of the word that names its record, and one step of the
        // sequence.
        const REDO: u64 = 2 * 64;
        const REDO_OWNER: u64 = 3 * 64;
        const SEQUENCE_ONE: u64 = 1 << 18;
        let number =
            u64::try_from((u128::from(read_keys(at)[0].0.number()) * u128::from(KEYS)) >> 64)
                .unwrap();
        let record = HEADER_LEN as u64 + number * 64;
        let file = open_raw(&self.gate);
        let mut bytes = [0; 64];
        read_at(&file, &mut bytes, record);
        let meta = u64::from_le_bytes(*bytes.last_chunk().unwrap());
        bytes[8..16].fill(0);
        bytes[56..].copy_from_slice(&(meta + 2 * SEQUENCE_ONE).to_le_bytes());
        write_at(&file, &bytes, REDO);
        write_at(&file, &(9 << 32 | (number + 1)).to_le_bytes(), REDO_OWNER);
        write_at(&file, &(meta + SEQUENCE_ONE).to_le_bytes(), record + 56);
    }

    /// Returns the paths of the tables in a folder.
    fn in_folder(at: &Path) -> Self {
        let path = |name| at.join(name);
        Self { gate: path("gate"), limiter: path("limiter"), addresses: path("addresses") }
    }
}

/// Returns the address of a client. Four clients each are in one /56, and 8 in one /48.
fn address(number: u32) -> Address {
    Address::parse(&format!("2001:db8:{:x}:{:x}::1", number / 8, (number % 8) << 6)).unwrap()
}

/// Returns keys that were never in the gate: with an id that exists or does not exist, with a right
/// or wrong checksum, of another form, and texts that are not keys.
fn unknown_keys(keys: &[(KeyId, String)]) -> Vec<Vec<u8>> {
    let mut unknown_keys: Vec<Vec<u8>> = vec![
        vec![],
        vec![0; 40],
        vec![0xff; 300],
        b"kt_live_".to_vec(),
        b"another-key-that-a-customer-has".to_vec(),
        b"A-key-that-a-customer-has".to_vec(),
    ];
    for (index, (id, text)) in keys.iter().enumerate() {
        let mut other = text.clone().into_bytes();
        let position = other.len() - 10;
        other[position] = if other[position] == b'x' { b'y' } else { b'x' };
        unknown_keys.push(other);
        let secret = |number: usize| [u8::try_from(number).unwrap() + 1; 16];
        for id in [*id, KeyId::from_number(id.number() ^ 1 << 40).unwrap_or(*id)] {
            let env = Name::new("live").unwrap();
            let key: Key = Key::mint(Name::new("kt").unwrap(), env, id, &secret(index)).unwrap();
            unknown_keys.push(key.expose().as_bytes().to_vec());
        }
    }
    unknown_keys
}

// How the files are used.

/// Opens a gate, uses and administers it, and asserts that it admits no unknown key. The verdicts
/// on its own keys depend on the damage. Returns whether the gate opened.
fn use_gate(path: &Path, keys: &[(KeyId, String)], unknown_keys: &[Vec<u8>]) -> bool {
    let gate = match Gate::open(path, peppers()) {
        Ok(gate) => gate,
        Err(error) => {
            assert_clear(path, &error);
            return false;
        }
    };
    let times = [0, NOW.unix_ms(), u64::MAX].map(Timestamp::from_unix_ms);
    let check = |step: &str| {
        for unknown in unknown_keys {
            let verdict = gate.table().check(Some(unknown), 1, NOW);
            assert_eq!(
                verdict.outcome(),
                Outcome::InvalidKey,
                "{step}: unknown key {unknown:02x?}"
            );
        }
        assert_eq!(gate.table().check(None, 1, NOW).outcome(), Outcome::MissingKey);
        for (id, text) in keys {
            for now in times {
                let verdict = gate.table().check(Some(text.as_bytes()), 1, now);
                assert!(
                    verdict.outcome() != Outcome::Full && verdict.outcome() != Outcome::MissingKey
                );
                let _ =
                    (verdict.retry_after_s(), verdict.quotas().iter().count(), verdict.remaining());
                gate.table().peek(Some(text.as_bytes()), u32::MAX, now);
                if let Some(charge) = verdict.charge() {
                    gate.table().settle(*id, charge, 3, now);
                    gate.table().refund(*id, charge, now);
                }
                gate.table().key(*id, now);
            }
        }
        for now in times {
            assert!(gate.table().list(now).count() <= KEYS as usize);
            gate.table().verify(now, |flaw| drop(flaw.to_string()));
        }
        gate.table().plans().for_each(drop);
    };
    check("opened");
    let mut errors = Vec::new();
    let mut may_fail = |result: Result<(), Error>| errors.extend(result.err());
    may_fail(gate.verify(|flaw| drop(flaw.to_string())).map(drop));
    may_fail(gate.administer(|administrator| {
        administrator.issue(&new_key(), entropy().unwrap(), NOW).map(drop)
    }));
    let dev = NewKey::new(42, Name::new("dev").unwrap()).with_plan("pro");
    may_fail(gate.import(b"yet-another-customers-key", &dev).map(drop));
    may_fail(gate.rotate(keys[0].0, Duration::from_secs(60), true).map(drop));
    may_fail(gate.assign(keys[1].0, "pro"));
    may_fail(gate.set_plan(&config(KEYS).plans[0]));
    may_fail(gate.set_plan(&Plan::new("new", "7/minute, 8/hour".parse().unwrap()).unwrap()));
    may_fail(gate.revoke(keys[2].0));
    for error in &errors {
        assert_clear(path, error);
    }
    check("administered");
    // A key that was revoked on this file is not admitted.
    if gate.key(keys[2].0).is_some() {
        let verdict = gate.table().check(Some(keys[2].1.as_bytes()), 1, NOW);
        assert_eq!(verdict.outcome(), Outcome::InvalidKey, "revoked: {:?}", verdict.reason());
    }
    true
}

/// Opens a limiter, uses it, and asserts that it keeps the limit of the shortest window of its own
/// policy. Returns whether the limiter opened.
fn use_limiter(path: &Path) -> bool {
    let limiter = match Limiter::open(path) {
        Ok(limiter) => limiter,
        Err(error) => {
            assert_clear(path, &error);
            return false;
        }
    };
    let limit = limiter.policy().and_then(|policy| Some(policy.quotas().first()?.limit));
    for subject in (0..SUBJECTS).step_by(3).chain(1000..1010) {
        let subject = subject.to_le_bytes();
        let admitted =
            (0..40).filter(|_| limiter.table().check(&subject, 1, NOW).is_admitted()).count();
        assert!(limit.is_none_or(|limit| admitted <= limit as usize), "{admitted} of {limit:?}");
    }
    for now in [0, 1, NOW.unix_ms() + 90_000_000, u64::MAX].map(Timestamp::from_unix_ms) {
        for subject in [0, 1, 2, 2000, 2001_u32] {
            let verdict = limiter.table().check(&subject.to_le_bytes(), 1, now);
            let _ = (verdict.retry_after_s(), verdict.quotas().iter().count());
            if let Some(charge) = verdict.charge() {
                limiter.table().settle(&subject.to_le_bytes(), charge, 3, now);
                limiter.table().refund(&subject.to_le_bytes(), charge, now);
            }
            limiter.table().peek(&subject.to_le_bytes(), u32::MAX, now);
            limiter.table().reset(&subject.to_le_bytes(), now);
        }
        assert!(limiter.table().live_subjects(now) <= limiter.table().slots_total());
    }
    true
}

/// Opens a limiter of addresses, uses it, and asserts that it keeps the limits of its own policy
/// for the shortest window of each prefix. Returns whether the limiter opened.
fn use_addresses(path: &Path) -> bool {
    let limiter = match AddressLimiter::open(path) {
        Ok(limiter) => limiter,
        Err(error) => {
            assert_clear(path, &error);
            return false;
        }
    };
    let policy = limiter.policy();
    let limits = policy.iter().flat_map(|policy| policy.iter());
    let limits: Vec<u32> = limits.map(|(_, quotas)| quotas[0].limit).collect();
    for number in (0..SUBJECTS).step_by(3).chain(1000..1003) {
        let check = |_: &u32| limiter.table().check(address(number), 1, NOW).is_admitted();
        let admitted = (0..40).filter(check).count();
        // All limits together bound what one client may use.
        assert!(limits.iter().all(|limit| admitted <= *limit as usize), "{admitted}: {limits:?}");
    }
    for now in [0, 1, NOW.unix_ms() + 90_000_000, u64::MAX].map(Timestamp::from_unix_ms) {
        for number in [0, 1, 2, 2000, 2001] {
            let compound = limiter.table().check(address(number), 1, now);
            let _ = (compound.retry_after_s(), compound.headers(), compound.tallies().len());
            if let Some(charge) = compound.charge(0) {
                let overdraw = Settlement::new().with_cost(7).with_overdraw(true);
                limiter.table().settle(address(number), charge, 3, now);
                limiter.table().settle_all(address(number), charge, &overdraw, now);
                limiter.table().refund(address(number), charge, now);
            }
            limiter.table().peek(address(number), u32::MAX, now);
            limiter.table().reset(address(number), now);
        }
        assert!(limiter.table().live_subjects(now) <= limiter.table().slots_total());
    }
    true
}

/// Asserts that an error names the file and has a sentence about it.
fn assert_clear(path: &Path, error: &Error) {
    let text = error.to_string();
    let name = path.display().to_string();
    assert!(text.contains(&name) && text.len() > name.len() + 15, "{text}");
}

// The worker.

/// Damages files and uses them. Does nothing unless this process is a worker.
#[test]
fn worker() {
    let Some(words) = role() else { return };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["damage", at, "header", kind] => use_damaged(Path::new(at), kind, &each_bit_of_the_header),
        ["damage", at, "body", kind] => use_damaged(Path::new(at), kind, &random_bits_of_the_body),
        ["damage", at, "length", kind] => use_wrong_lengths(Path::new(at), kind),
        ["open", at] => {
            let files = Files::in_folder(Path::new(at));
            let errors = |opened: Result<(), Error>| {
                opened.map_or_else(|error| error.to_string(), |()| "open".into())
            };
            report(errors(Gate::open(&files.gate, peppers()).map(drop)));
            report(errors(Limiter::open(&files.limiter).map(drop)));
            report(errors(AddressLimiter::open(&files.addresses).map(drop)));
        }
        _ => panic!("no such role: {words:?}"),
    }
    report("done");
    wait_for_kill();
}

/// A function that damages the bytes of a file for one round, counted from 0. Returns `false` if
/// there are no more rounds.
type Damage<'a> = &'a dyn Fn(u64, &mut [u8]) -> bool;

fn each_bit_of_the_header(round: u64, bytes: &mut [u8]) -> bool {
    let at = usize::try_from(round / 8).unwrap();
    if at >= HEADER_LEN {
        return false;
    }
    bytes[at] ^= 1 << (round % 8);
    true
}

fn random_bits_of_the_body(round: u64, bytes: &mut [u8]) -> bool {
    let mut random = Random(round);
    let body = (bytes.len() - HEADER_LEN) as u64;
    // Some rounds flip a few bits, some overwrite a word with zeros, ones or a random value, some
    // do both many times.
    for _ in 0..=random.below(4) * random.below(20) {
        let at = HEADER_LEN + usize::try_from(random.below(body)).unwrap();
        let word = at / 8 * 8..at / 8 * 8 + 8;
        match random.below(5) {
            0 => bytes[word].fill(0),
            1 => bytes[word].fill(0xff),
            2 => bytes[word].copy_from_slice(&random.below(u64::MAX).to_le_bytes()),
            _ => bytes[at] ^= 1 << random.below(8),
        }
    }
    round < ROUNDS[usize::from(is_full())]
}

/// Uses the file after every damage, and reports regularly.
fn use_damaged(at: &Path, kind: &str, damage: Damage<'_>) {
    let path = at.join(kind);
    let whole = fs::read(&path).unwrap();
    let (keys, file) = (read_keys(at), open_raw(&path));
    let unknown_keys = unknown_keys(&keys);
    let (mut opened, mut refused) = (0, 0);
    for round in 0.. {
        let mut bytes = whole.clone();
        if !damage(round, &mut bytes) {
            break;
        }
        write_at(&file, &bytes, 0);
        let case = format!("{kind}, round {round}");
        let used = std::panic::catch_unwind(|| match path.file_name().unwrap().to_str() {
            Some("gate") => use_gate(&path, &keys, &unknown_keys),
            Some("addresses") => use_addresses(&path),
            _ => use_limiter(&path),
        });
        match used {
            Ok(true) => opened += 1,
            Ok(false) => refused += 1,
            Err(_) => report(format!("failed {case}")),
        }
        if round % 64 == 0 {
            report(format!("alive {case}"));
        }
    }
    report(format!("{opened} opened, {refused} refused"));
}

/// Opens the file with wrong lengths from 0 to slightly more than its own: each number of whole
/// lines, and a few bytes more or less.
fn use_wrong_lengths(at: &Path, kind: &str) {
    let path = at.join(kind);
    let whole = fs::read(&path).unwrap();
    for lines in 0..=whole.len() / 64 + 2 {
        for extra in [-1, 0, 1, 13] {
            let Some(len) =
                (lines * 64).checked_add_signed(extra).filter(|len| *len != whole.len())
            else {
                continue;
            };
            let mut bytes = whole.clone();
            bytes.resize(len, 0);
            fs::write(&path, &bytes).unwrap();
            let error = match kind {
                "gate" => Gate::open(&path, peppers()).unwrap_err(),
                "addresses" => AddressLimiter::open(&path).unwrap_err(),
                _ => Limiter::open(&path).unwrap_err(),
            };
            assert_clear(&path, &error);
            assert!(error.to_string().contains(&len.to_string()), "{error}");
        }
        report(format!("alive {kind}, {lines} lines"));
    }
    report("0 opened, all refused");
}

// What the parent does.

/// Runs a worker that has to report regularly until it is done. Returns the reports.
fn reports_of(command: Command) -> Vec<String> {
    let mut worker = Worker::start(command);
    let mut reports = Vec::new();
    loop {
        match worker.next_report() {
            Some(report) if report == "done" => {
                worker.kill();
                return reports;
            }
            Some(report) => reports.push(report),
            None => panic!("the worker crashed after {:?}", reports.last()),
        }
    }
}

/// Runs a worker that damages a file in this way, and asserts that no round failed.
fn assert_damage_is_harmless(at: &Path, damage: &str, kind: &str) {
    let reports = reports_of(Worker::command(&["damage", at.to_str().unwrap(), damage, kind]));
    let failed: Vec<_> = reports.iter().filter(|report| report.starts_with("failed")).collect();
    assert!(
        failed.is_empty(),
        "{damage}: {} failed, among them {:?}",
        failed.len(),
        &failed[..failed.len().min(5)]
    );
    println!("{damage}, {kind}: {}", reports.last().unwrap());
}

#[test]
fn header_with_any_bit_flipped_admits_no_unknown_key() {
    let folder = folder();
    Files::create_in(folder.path());
    assert_damage_is_harmless(folder.path(), "header", "gate");
    assert_damage_is_harmless(folder.path(), "header", "limiter");
    assert_damage_is_harmless(folder.path(), "header", "addresses");
}

#[test]
fn body_with_random_damage_admits_no_unknown_key() {
    let folder = folder();
    Files::create_in(folder.path());
    assert_damage_is_harmless(folder.path(), "body", "gate");
    assert_damage_is_harmless(folder.path(), "body", "limiter");
    assert_damage_is_harmless(folder.path(), "body", "addresses");
}

/// While a change is unfinished, checks read it from the header.
#[test]
fn damage_around_an_unfinished_change_admits_no_unknown_key() {
    let folder = folder();
    let files = Files::create_in(folder.path());
    files.begin_a_change(folder.path());
    let gate = Gate::open(&files.gate, peppers()).unwrap();
    for (_, text) in read_keys(folder.path()) {
        assert!(gate.table().check(Some(text.as_bytes()), 1, NOW).is_admitted());
    }
    assert_damage_is_harmless(folder.path(), "header", "gate");
    assert_damage_is_harmless(folder.path(), "body", "gate");
}

#[test]
fn file_of_any_wrong_length_is_refused() {
    let folder = folder();
    Files::create_in(folder.path());
    assert_damage_is_harmless(folder.path(), "length", "gate");
    assert_damage_is_harmless(folder.path(), "length", "limiter");
    assert_damage_is_harmless(folder.path(), "length", "addresses");
}

// Files of other users, replaced files, and paths that lead to other things.

/// Needs root, which alone can give files away and become another user.
#[cfg(unix)]
#[test]
fn file_of_another_user_is_refused() {
    const USER: u32 = 65_534;
    const OTHER_USER: u32 = 54_321;
    let folder = folder();
    let at = folder.path();
    let files = Files::create_in(at);
    if chown(&files.gate, Some(USER), None).is_err() {
        println!("not root: files cannot be given away, so nothing is tested");
        return;
    }
    // The other user may have no access to the folder of this program, so the program is copied to
    // the test's folder.
    set_mode(at, 0o755);
    let program = at.join("program");
    // Another process copies, because a child that another test starts at this moment would keep
    // the copy open for writing.
    let copied =
        Command::new("cp").arg(std::env::current_exe().unwrap()).arg(&program).status().unwrap();
    assert!(copied.success());
    let open_as_user = |owner: u32, group: u32, mode: u32| -> Vec<String> {
        for path in [&files.gate, &files.limiter, &files.addresses] {
            chown(path, Some(owner), Some(group)).unwrap();
            set_mode(path, mode);
        }
        let command = Worker::command(&["open", at.to_str().unwrap()]);
        let mut as_user = copy_of_this_program(&program);
        as_user.args(Worker::OPTIONS).uid(USER).gid(USER);
        as_user.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let paths =
            [&files.gate, &files.limiter, &files.addresses].map(|path| path.display().to_string());
        reports_of(as_user)
            .iter()
            .zip(paths)
            .map(|(errors, path)| errors.replace(&path, "FILE"))
            .collect()
    };
    assert_eq!(open_as_user(USER, USER, 0o600), ["open"; 3]);
    // Root may give the group of a service access to its files.
    assert_eq!(open_as_user(0, USER, 0o660), ["open"; 3]);
    let denied = "cannot open FILE: Permission denied (os error 13)";
    assert_eq!(open_as_user(0, 0, 0o600), [denied; 3]);
    assert_eq!(open_as_user(OTHER_USER, OTHER_USER, 0o600), [denied; 3]);
    let refused = format!(
        "FILE: it belongs to user {OTHER_USER}, and this process is user {USER}; fix it with: chown {USER} FILE"
    );
    for mode in [0o660, 0o666] {
        assert_eq!(open_as_user(OTHER_USER, USER, mode), [&*refused; 3]);
    }
}

#[cfg(unix)]
#[test]
fn file_replaced_while_mapped_keeps_the_old_mapping() {
    let folder = folder();
    let at = folder.path();
    let files = Files::create_in(at);
    let keys = read_keys(at);
    let old_gate = Gate::open(&files.gate, peppers()).unwrap();
    let old_limiter = Limiter::open(&files.limiter).unwrap();
    let new = at.join("new");
    Gate::create(&new, peppers(), &config(KEYS)).unwrap();
    fs::rename(&new, &files.gate).unwrap();
    Limiter::create(&new, &"5/minute, 9/hour".parse().unwrap(), SUBJECTS).unwrap();
    fs::rename(&new, &files.limiter).unwrap();
    // The old mapping is unaffected.
    let (id, text) = &keys[0];
    let verdict = old_gate.table().check(Some(text.as_bytes()), 1, NOW);
    assert!(verdict.is_admitted());
    assert_eq!(verdict.remaining(), Some(998));
    assert_eq!(old_limiter.table().check(&0_u32.to_le_bytes(), 1, NOW).remaining(), Some(7));
    // A gate that is opened now is the new one.
    let new_gate = Gate::open(&files.gate, peppers()).unwrap();
    assert_eq!(
        new_gate.table().check(Some(text.as_bytes()), 1, NOW).reason(),
        Some(keytally::Reason::Unknown)
    );
    let new_limiter = Limiter::open(&files.limiter).unwrap();
    assert_eq!(new_limiter.table().check(&0_u32.to_le_bytes(), 1, NOW).remaining(), Some(8));
    // A change to the old file is refused, because no other process would see it.
    let refusals: [Result<(), Error>; 5] = [
        old_gate.revoke(*id),
        old_gate.rotate(*id, Duration::ZERO, false).map(drop),
        old_gate.issue(&new_key()).map(drop),
        old_gate.import(b"one-more-customers-key", &new_key()).map(drop),
        old_gate.verify(|flaw| panic!("{flaw}")).map(drop),
    ];
    for refusal in refusals {
        assert!(matches!(refusal, Err(Error::Replaced { .. })), "{refusal:?}");
    }
    assert!(old_gate.table().check(Some(text.as_bytes()), 1, NOW).is_admitted());
    assert_eq!(old_gate.list().len(), keys.len());
    assert_eq!(new_gate.list().len(), 0);
}

/// A link to a table is followed. Any other link, and a pipe, folder or device, is refused.
#[cfg(unix)]
#[test]
fn path_that_leads_to_no_table_is_refused() {
    let folder = folder();
    let at = folder.path();
    let files = Files::create_in(at);
    let link = |name: &str, to: &Path| {
        let path = at.join(name);
        symlink(to, &path).unwrap();
        path
    };
    assert!(Gate::open(link("to-gate", &files.gate), peppers()).is_ok());
    assert!(Limiter::open(link("to-limiter", &files.limiter)).is_ok());
    let pipe = at.join("pipe");
    assert!(Command::new("mkfifo").args(["-m", "600"]).arg(&pipe).status().unwrap().success());
    let refused = [
        link("to-nothing", &at.join("nothing")),
        link("to-itself", &at.join("to-itself")),
        link("to-null", Path::new("/dev/null")),
        link("to-zero", Path::new("/dev/zero")),
        link("to-folder", at),
        link("to-pipe", &pipe),
        at.into(),
        pipe,
        "/dev/full".into(),
        "/proc/self/mem".into(),
    ];
    for path in refused {
        assert_clear(&path, &Gate::open(&path, peppers()).unwrap_err());
        assert_clear(&path, &Limiter::open(&path).unwrap_err());
        let create = Gate::create(&path, peppers(), &config(KEYS)).unwrap_err();
        assert!(matches!(create, Error::Exists { .. }), "{create}");
    }
}
