//! Table files: created atomically, refused with a sentence that names what was found, and kept
//! when they are closed and opened.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use core::time::Duration;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
#[cfg(unix)]
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use keytally::{
    AddressLimiter, AdminError, AttachError, CreateError, Error, Flaw, FlawKind, Gate, GateConfig,
    Key, KeyId, KeyState, Limiter, Outcome, Peppers, Plan, Policy, Reason,
};
use tempfile::TempDir;

use crate::support::{NOW, entries, new_key, open_raw, other_peppers, peppers, read_at, write_at};
#[cfg(unix)]
use crate::support::{set_mode, worker::copy_of_this_program};

const KEYS: u32 = 50;

fn config() -> GateConfig {
    support::config(KEYS)
}

fn policy() -> Policy {
    "5/minute".parse().unwrap()
}

fn issue(gate: &Gate) -> (Key, KeyId) {
    gate.issue(&new_key()).unwrap()
}

/// A folder with a gate and a limiter in it.
struct Files {
    folder: TempDir,
    gate: PathBuf,
    limiter: PathBuf,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (gate, limiter) = (folder.path().join("api.gate"), folder.path().join("limiter"));
        Gate::create(&gate, peppers(), &config()).unwrap();
        Limiter::create(&limiter, &policy(), 100).unwrap();
        Self { folder, gate, limiter }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn open(&self) -> Result<Gate, Error> {
        Gate::open(&self.gate, peppers())
    }

    /// Returns the errors of opening both files after `damage` was done to both.
    fn refusals(damage: impl Fn(&Path)) -> [String; 2] {
        let files = Self::new();
        damage(&files.gate);
        damage(&files.limiter);
        let [gate, limiter] =
            [files.open().unwrap_err(), Limiter::open(&files.limiter).unwrap_err()];
        // Nothing that was refused was changed, so the same error follows.
        assert_eq!(files.open().unwrap_err().to_string(), gate.to_string());
        let sentence = |path: &Path, error: &Error| {
            let text = error.to_string();
            let rest = text.strip_prefix(&format!("{}: ", path.display()));
            rest.unwrap_or(&text).replace(files.folder.path().to_str().unwrap(), "FOLDER")
        };
        [sentence(&files.gate, &gate), sentence(&files.limiter, &limiter)]
    }
}

/// Reads the word at a position, counted in words.
fn read_word(path: &Path, word: u64) -> u64 {
    let mut bytes = [0; 8];
    read_at(&open_raw(path), &mut bytes, word * 8);
    u64::from_le_bytes(bytes)
}

fn write_word(path: &Path, word: u64, value: u64) {
    write_at(&open_raw(path), &value.to_le_bytes(), word * 8);
}

fn change_len(path: &Path, change: i64) {
    let file = open_raw(path);
    file.set_len(file.metadata().unwrap().len().checked_add_signed(change).unwrap()).unwrap();
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

// Creation.

#[test]
fn creation_over_an_existing_path_is_refused() {
    let files = Files::new();
    fs::write(files.path("text"), "precious").unwrap();
    fs::create_dir(files.path("folder")).unwrap();
    // A user of Windows needs a privilege to create a link.
    #[cfg(unix)]
    symlink("nowhere", files.path("link")).unwrap();
    #[cfg(windows)]
    fs::create_dir(files.path("link")).unwrap();
    let before = entries(files.folder.path());
    for name in ["api.gate", "limiter", "text", "folder", "link"] {
        let path = files.path(name);
        let gate = Gate::create(&path, peppers(), &config()).unwrap_err();
        let limiter = Limiter::create(&path, &policy(), 100).unwrap_err();
        for error in [gate, limiter] {
            assert!(matches!(error, Error::Exists { .. }), "{error:?}");
            assert_eq!(
                error.to_string(),
                format!(
                    "{}: a file of that name already exists, and it was not changed",
                    path.display()
                )
            );
        }
    }
    assert_eq!(fs::read_to_string(files.path("text")).unwrap(), "precious");
    assert_eq!(entries(files.folder.path()), before);
    assert!(files.open().is_ok() && Limiter::open(&files.limiter).is_ok());
}

#[test]
fn impossible_settings_are_refused_and_leave_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let plan = |name: &str, policy: &str| Plan::new(name, policy.parse().unwrap()).unwrap();
    let gate = |config| Gate::create(&path, peppers(), &config).unwrap_err().to_string();
    let limiter = |capacity| Limiter::create(&path, &policy(), capacity).unwrap_err().to_string();
    let shown = path.display();
    for keys in [0, u32::MAX] {
        let error = gate(config().with_keys(keys));
        assert!(error.starts_with(&format!("{shown}: a capacity of {keys} ")), "{error}");
        assert!(error.ends_with("; it is 1 to 67108864"), "{error}");
    }
    assert!(gate(config().with_plans(vec![])).contains(": 0 plans "));
    let many = (0..117).map(|number| plan(&format!("p{number}"), "1/minute")).collect();
    let error = gate(config().with_plans(many));
    assert!(error.contains(": 117 plans ") && error.ends_with("; a gate has 1 to 116"), "{error}");
    let twice = vec![plan("p", "1/minute"), plan("p", "2/minute")];
    assert!(gate(config().with_plans(twice)).contains("each appears once"));
    let differ = vec![plan("p", "1/minute"), plan("q", "2/hour")];
    assert!(gate(config().with_plans(differ)).contains("must share their sections"));
    assert!(limiter(0).contains("a capacity of 0 "));
    assert!(limiter(u32::MAX).contains("it is 1 to 1073741824"));
    assert_eq!(entries(folder.path()), 0);
}

#[cfg(unix)]
#[test]
fn folder_that_cannot_be_written_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    // The last is a file system in which no user can create files, not even root.
    for path in [
        folder.path().join("none/api.gate"),
        folder.path().join("file/api.gate"),
        "/proc/api.gate".into(),
    ] {
        let error = Gate::create(&path, peppers(), &config()).unwrap_err();
        assert!(
            error.to_string().starts_with(&format!("cannot create {}: ", path.display())),
            "{error}"
        );
    }
    assert!(Gate::create("", peppers(), &config()).is_err());
    assert!(Gate::create("/", peppers(), &config()).is_err());
    assert_eq!(entries(folder.path()), 1);
}

#[test]
fn gate_has_room_for_exactly_116_plans() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.gate");
    let plan = |number: u32| {
        Plan::new(&format!("p{number}"), format!("{}/minute", number + 1).parse().unwrap()).unwrap()
    };
    let gate =
        Gate::create(&path, peppers(), &config().with_plans((0..115).map(plan).collect())).unwrap();
    gate.set_plan(&plan(115)).unwrap();
    let error = gate.set_plan(&plan(116)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{}: the gate has room for 116 plans and has them all", path.display())
    );
    assert_eq!(Gate::open(&path, peppers()).unwrap().table().plans().count(), 116);
}

/// Creates the gate that the variable `KEYTALLY_TEST_CREATE` names. Does nothing without it.
#[cfg(unix)]
#[test]
fn creator() {
    let Ok(path) = std::env::var("KEYTALLY_TEST_CREATE") else { return };
    Gate::create(&path, peppers(), &config()).unwrap();
}

#[cfg(unix)]
#[test]
fn new_file_has_mode_0600_under_any_umask() {
    let folder = tempfile::tempdir().unwrap();
    for umask in ["000", "022", "077", "777"] {
        let path = folder.path().join(umask);
        let program = copy_of_this_program(&std::env::current_exe().unwrap());
        let status = Command::new("sh")
            .arg("-c")
            .arg(format!("umask {umask} && exec \"$0\" \"$@\" --exact creator"))
            .arg(program.get_program())
            .args(program.get_args())
            .env("KEYTALLY_TEST_CREATE", &path)
            .output()
            .unwrap();
        assert!(status.status.success(), "{status:?}");
        assert_eq!(mode(&path), 0o600, "{umask}");
    }
}

#[test]
fn concurrent_open_or_create_gives_one_shared_limiter() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let path = folder.path().join(round.to_string());
        let admitted: usize = std::thread::scope(|scope| {
            let thread = || {
                let limiter = Limiter::open_or_create(&path, &policy(), 100).unwrap();
                (0..10).filter(|_| limiter.table().check(b"subject", 1, NOW).is_admitted()).count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(thread)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, 5);
    }
    assert_eq!(entries(folder.path()), 20);
}

// Opening.

#[test]
fn wrong_magic_version_or_kind_is_named() {
    // The sentence is the same for any contents, so that it discloses none of them.
    for text in [
        &b"# hello\n"[..],
        b"SECRETsecretSECRET",
        b"keytallySECRETsecret",
        b"keytally\x01\0\0\0SECRET",
    ] {
        let write = |path: &Path| write_at(&open_raw(path), text, 0);
        let sentence = AttachError::NotATable.to_string();
        assert_eq!(Files::refusals(write), [&*sentence; 2], "{text:?}");
        let files = Files::new();
        write(&files.limiter);
        for error in [
            Limiter::open_or_create(&files.limiter, &policy(), 100).unwrap_err(),
            Gate::open(&files.limiter, peppers()).unwrap_err(),
        ] {
            let all = format!("{}: {sentence}", files.limiter.display());
            assert_eq!(
                (error.to_string(), format!("{error:?}")),
                (all.clone(), format!("Error({all})"))
            );
        }
    }
    assert_eq!(
        Files::refusals(|path| write_word(path, 0, 0)),
        ["this table is incomplete: its creation was interrupted, or it was damaged; restore a backup, or create it again";
            2]
    );
    let version = |path: &Path| write_word(path, 1, read_word(path, 1) + 1);
    assert_eq!(
        Files::refusals(version),
        ["this table has format version 3, and this library reads version 2"; 2]
    );
    // The upper half of word 1 is the kind: 1 is a limiter, 2 a gate.
    let kind = |path: &Path| write_word(path, 1, read_word(path, 1) ^ 3 << 32);
    assert_eq!(
        Files::refusals(kind),
        ["this is a limiter, not a gate", "this is a gate, not a limiter"]
    );

    let files = Files::new();
    let error = Gate::open(&files.limiter, peppers()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{}: this is a limiter, not a gate", files.limiter.display())
    );
    assert!(core::error::Error::source(&error).is_some());
    let error = Limiter::open(&files.gate).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{}: this is a gate, not a limiter", files.gate.display())
    );
}

#[test]
fn wrong_size_is_named_with_the_right_one() {
    let right = Files::new();
    let right = [&right.gate, &right.limiter].map(|path| path.metadata().unwrap().len());
    for change in [-64, -1, 1, 63, 64, 4096] {
        let expected = right.map(|len| {
            format!(
                "this table has {} bytes and its header says {len}",
                len.checked_add_signed(change).unwrap()
            )
        });
        assert_eq!(Files::refusals(|path| change_len(path, change)), expected);
    }
    // The header states more than there is, down to its first line.
    for len in [64, 65, 4095, 4096] {
        let refusals = Files::refusals(|path| open_raw(path).set_len(len).unwrap());
        for (refusal, right) in refusals.iter().zip(right) {
            assert_eq!(*refusal, format!("this table has {len} bytes and its header says {right}"));
        }
    }
    for len in [0, 1, 63] {
        let bytes = if len == 1 { "byte" } else { "bytes" };
        let expected = format!(
            "this is not a keytally table: it has {len} {bytes}, and the smallest has more than 4096"
        );
        assert_eq!(
            Files::refusals(|path| open_raw(path).set_len(len).unwrap()),
            [expected.clone(), expected]
        );
    }
    // A header that agrees with a wrong size contradicts its own capacity.
    let agreeing = |path: &Path| {
        change_len(path, 64);
        write_word(path, 2, path.metadata().unwrap().len());
    };
    for (refusal, right) in Files::refusals(agreeing).iter().zip(right) {
        assert_eq!(
            *refusal,
            format!("this table has {} bytes and its header says {right}", right + 64)
        );
    }
}

#[test]
fn damaged_header_is_named() {
    let damaged = |what| AttachError::Geometry { what, value: 0 }.to_string();
    // Word 5 has the lengths of the windows, the upper half of word 3 the header's lines.
    let windows = |path: &Path| write_word(path, 5, 0);
    assert_eq!(Files::refusals(windows), [damaged("window"), damaged("window")]);
    let capacity = |path: &Path| write_word(path, 3, 64 << 32);
    assert_eq!(Files::refusals(capacity), [damaged("capacity"), damaged("capacity")]);
}

#[test]
fn wrong_pepper_is_refused() {
    let files = Files::new();
    let error = Gate::open(&files.gate, other_peppers()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{}: the pepper that was given does not belong to this gate; give the one that it was created with",
            files.gate.display()
        )
    );
}

#[cfg(unix)]
#[test]
fn accessible_file_is_refused_with_the_command_that_fixes_it() {
    for bits in [0o644, 0o602, 0o601, 0o777] {
        let refusals = Files::refusals(|path| set_mode(path, bits));
        for (refusal, name) in refusals.iter().zip(["api.gate", "limiter"]) {
            assert_eq!(
                *refusal,
                format!(
                    "its mode is {bits:04o}, so every user has access to it; fix it with: chmod 600 FOLDER/{name}"
                )
            );
        }
    }
    // For another program's file, the sentence only says that it is not a table.
    for bits in [0o644, 0o666, 0o777] {
        let refusals = Files::refusals(|path| {
            fs::write(path, "root:x:0:0:root:/root:/bin/sh\n".repeat(9)).unwrap();
            set_mode(path, bits);
        });
        assert_eq!(
            refusals,
            [AttachError::NotATable.to_string(), AttachError::NotATable.to_string()]
        );
        let refusals = Files::refusals(|path| {
            fs::write(path, "x").unwrap();
            set_mode(path, bits);
        });
        assert!(
            refusals
                .iter()
                .all(|refusal| refusal.starts_with("this is not a keytally table: it has 1 byte"))
        );
    }
    let files = Files::new();
    for bits in [0o600, 0o640, 0o660] {
        set_mode(&files.gate, bits);
        assert!(files.open().is_ok(), "{bits:o}");
    }
}

#[cfg(unix)]
#[test]
fn non_regular_file_is_refused_without_waiting() {
    let files = Files::new();
    let refused = |path: &Path| {
        let gate = Gate::open(path, peppers()).unwrap_err().to_string();
        assert_eq!(Limiter::open(path).unwrap_err().to_string(), gate);
        gate
    };
    let folder = files.folder.path();
    assert_eq!(
        refused(folder),
        format!("{}: this is a directory, not a regular file", folder.display())
    );
    assert_eq!(refused(Path::new("/dev/null")), "/dev/null: this is a device, not a regular file");
    let pipe = files.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert_eq!(refused(&pipe), format!("{}: this is a pipe, not a regular file", pipe.display()));
    let socket = files.path("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(refused(&socket).starts_with(&format!("cannot open {}: ", socket.display())));
    let none = files.path("none");
    assert_eq!(
        refused(&none),
        format!("cannot open {}: No such file or directory (os error 2)", none.display())
    );
    symlink("loop", files.path("loop")).unwrap();
    // Of glibc: "Too many levels of symbolic links"; of musl: "Symbolic link loop".
    assert!(refused(&files.path("loop")).to_lowercase().contains("symbolic link"));
}

#[cfg(unix)]
#[test]
fn symbolic_link_is_followed_and_its_target_checked() {
    let files = Files::new();
    let link = files.path("link");
    symlink("api.gate", &link).unwrap();
    let gate = Gate::open(&link, peppers()).unwrap();
    assert_eq!(gate.path(), Some(link.as_path()));
    issue(&gate);
    assert_eq!(files.open().unwrap().list().len(), 1);
    set_mode(&files.gate, 0o604);
    assert!(matches!(Gate::open(&link, peppers()), Err(Error::Mode { .. })));
}

#[test]
fn changed_limit_is_put_in_force_for_all_that_have_the_file_open() {
    let files = Files::new();
    let subject = b"203.0.113.9";
    let first = Limiter::open_or_create(&files.limiter, &policy(), 100).unwrap();
    assert_eq!(first.check(subject, 4).remaining(), Some(1));
    for (limit, left) in [(7, 3), (4, 0), (2, 0), (5, 1)] {
        let changed = format!("{limit}/minute").parse().unwrap();
        let second = Limiter::open_or_create(&files.limiter, &changed, 100).unwrap();
        for limiter in [&first, &second] {
            assert_eq!(limiter.policy(), Some(changed.clone()));
            assert_eq!(limiter.peek(subject, 1).remaining(), Some(left), "{limit}");
            assert_eq!(limiter.peek(subject, 1).is_admitted(), left > 0, "{limit}");
            assert_eq!(limiter.peek(subject, 1).quotas().get(0).unwrap().limit, limit);
        }
    }
    // One more than the count can hold.
    let max = first.table().layout().max_limit(0).unwrap();
    let policy = |limit: u64| format!("{limit}/minute").parse();
    if let Ok(too_large) = policy(u64::from(max) + 1) {
        let error = Limiter::open_or_create(&files.limiter, &too_large, 100).unwrap_err();
        assert!(error.to_string().contains(&format!("the most is {max}")), "{error}");
    }
    first.set_policy(&policy(max.into()).unwrap()).unwrap();
    assert_eq!(first.peek(subject, max - 4).outcome(), Outcome::Admitted);
    assert_eq!(first.peek(subject, max - 3).outcome(), Outcome::Denied);
}

#[test]
fn other_windows_or_capacity_are_named_with_the_found_ones() {
    let files = Files::new();
    let error = |policy: &str, capacity| {
        let policy = policy.parse().unwrap();
        Limiter::open_or_create(&files.limiter, &policy, capacity).unwrap_err().to_string()
    };
    let shown = files.limiter.display();
    for requested in ["5/hour", "sliding 5/minute", "5/minute, 9/hour"] {
        assert_eq!(
            error(requested, 100),
            format!(
                "{shown}: this limiter counts \"5/minute\" and cannot change to \"{requested}\": the windows and the algorithm must be those of the limiter; create another file for the new policy, and check requests with both until the longest window of this one has passed"
            )
        );
    }
    assert_eq!(
        error("5/minute", 101),
        format!(
            "{shown}: this limiter is for 100 subjects, and 101 were requested; open it with 100, or create another file, and check requests with both until the longest window of this one has passed"
        )
    );
    let policy_of_addresses = "addresses: /64 5/minute".parse().unwrap();
    let error = AddressLimiter::open_or_create(&files.limiter, &policy_of_addresses, 100);
    assert_eq!(
        error.unwrap_err().to_string(),
        format!(
            "{shown}: this is a limiter, not a limiter of addresses; create another file for the new policy, and check requests with both until the longest window of this one has passed"
        )
    );
    let limiter = Limiter::open_or_create(&files.limiter, &policy(), 100).unwrap();
    assert_eq!(limiter.policy().unwrap(), policy());
}

#[cfg(target_os = "linux")]
#[test]
fn copy_with_holes_gets_its_disk_space_when_opened() {
    use std::os::unix::fs::MetadataExt;
    let files = Files::new();
    let copy = files.path("copy");
    let len = files.gate.metadata().unwrap().len();
    let file = OpenOptions::new().write(true).create_new(true).open(&copy).unwrap();
    let mut header = [0; 4096];
    File::open(&files.gate).unwrap().read_exact(&mut header).unwrap();
    write_at(&file, &header, 0);
    file.set_len(len).unwrap();
    set_mode(&copy, 0o600);
    assert!(copy.metadata().unwrap().blocks() * 512 < len);
    let gate = Gate::open(&copy, peppers()).unwrap();
    assert!(copy.metadata().unwrap().blocks() * 512 >= len);
    assert_eq!(copy.metadata().unwrap().len(), len);
    issue(&gate);
}

// Closing and opening.

#[test]
fn keys_and_counts_survive_closing_and_opening() {
    let files = Files::new();
    let gate = files.open().unwrap();
    let (key, id) = issue(&gate);
    let (revoked, revoked_id) = issue(&gate);
    gate.revoke(revoked_id).unwrap();
    gate.assign(id, "pro").unwrap();
    for _ in 0..7 {
        assert!(gate.table().check(Some(key.expose().as_bytes()), 1, NOW).is_admitted());
    }
    drop(gate);
    let gate = files.open().unwrap();
    let verdict = gate.table().check(Some(key.expose().as_bytes()), 1, NOW);
    assert_eq!(verdict.remaining(), Some(20_000 - 8));
    assert_eq!(gate.check(Some(revoked.expose().as_bytes()), 1).reason(), Some(Reason::Revoked));

    let limiter = Limiter::open(&files.limiter).unwrap();
    limiter.table().check(b"subject", 3, NOW);
    drop(limiter);
    assert_eq!(
        Limiter::open(&files.limiter).unwrap().table().check(b"subject", 1, NOW).remaining(),
        Some(1)
    );
}

#[test]
fn peppers_rotate_through_a_file() {
    let files = Files::new();
    let (old_key, id) = issue(&files.open().unwrap());
    let both = Peppers::new(&[
        &b"a pepper for tests, of 32 bytes."[..],
        b"another pepper, also of 32 bytes",
    ])
    .unwrap();
    let gate = Gate::open(&files.gate, both).unwrap();
    let key = gate.rotate(id, Duration::from_secs(60), false).unwrap();
    for key in [&old_key, &key] {
        assert!(gate.check(Some(key.expose().as_bytes()), 1).is_admitted());
    }
    let newest = Gate::open(&files.gate, other_peppers()).unwrap();
    assert!(newest.check(Some(key.expose().as_bytes()), 1).is_admitted());
    assert!(!newest.check(Some(old_key.expose().as_bytes()), 1).is_admitted());
}

#[cfg(unix)]
#[test]
fn change_to_a_replaced_or_removed_file_is_refused() {
    let files = Files::new();
    let gate = files.open().unwrap();
    let (key, id) = issue(&gate);
    let assert_replaced = |gate: &Gate| {
        let error = gate.revoke(id).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "{}: the file was removed or replaced since it was opened; open it again",
                files.gate.display()
            )
        );
        // Checks continue on the file that is open.
        assert!(gate.check(Some(key.expose().as_bytes()), 1).is_admitted());
    };
    fs::rename(&files.gate, files.path("moved")).unwrap();
    assert_replaced(&gate);
    Gate::create(&files.gate, peppers(), &config()).unwrap();
    assert_replaced(&gate);
    fs::rename(files.path("moved"), &files.gate).unwrap();
    gate.revoke(id).unwrap();
}

#[test]
fn gate_in_memory_is_administered_like_a_file() {
    let gate = Gate::in_memory(peppers(), &config()).unwrap();
    let (key, id) = issue(&gate);
    assert!(gate.check(Some(key.expose().as_bytes()), 1).is_admitted());
    gate.revoke(id).unwrap();
    assert_eq!(gate.key(id).unwrap().state, KeyState::Revoked);
    let error = gate.assign(id, "pro").unwrap_err();
    assert!(matches!(error, Error::Admin { path: None, source: AdminError::Revoked(_) }));
    assert_eq!(gate.path(), None);
    let error = Gate::in_memory(peppers(), &config().with_keys(0)).unwrap_err();
    assert!(matches!(
        error,
        Error::Create { path: None, source: CreateError::Capacity { capacity: 0, .. } }
    ));
    assert!(Limiter::in_memory(&policy(), 0).is_err());
}

// Verification. core/src/gate.rs and core/src/record.rs define the format.

/// The positions in the file, in words: of the first record, of the redo record, and of the word
/// that names the record to which the redo record belongs.
const RECORDS: u64 = 4096 / 8;
const REDO: u64 = 2 * 8;
const REDO_OWNER: u64 = 3 * 8;

/// The positions in a record, in words. A record has eight.
const TALLY: u64 = 1;
const ACCOUNT: u64 = 6;
const META: u64 = 7;

/// One step of the sequence in the META word. The sequence is odd while the record is written.
const SEQUENCE_ONE: u64 = 1 << 18;

/// Returns the number of the record of a key id.
fn record_of(id: KeyId) -> u64 {
    u64::try_from((u128::from(id.number()) * u128::from(KEYS)) >> 64).unwrap()
}

/// Verifies a gate. Returns whether a change was completed, and the flaws.
fn flaws(gate: &Gate) -> (bool, Vec<Flaw>) {
    let mut flaws = Vec::new();
    let completed = gate.verify(|flaw| flaws.push(flaw)).unwrap();
    (completed, flaws)
}

#[test]
fn fresh_and_used_gates_verify_without_flaws() {
    let files = Files::new();
    let gate = files.open().unwrap();
    assert_eq!(flaws(&gate), (false, vec![]));
    for number in 0..KEYS {
        let (key, id) = issue(&gate);
        gate.check(Some(key.expose().as_bytes()), 1);
        match number % 3 {
            0 => gate.revoke(id).unwrap(),
            1 => drop(gate.rotate(id, Duration::from_secs(60), false).unwrap()),
            _ => gate.assign(id, "pro").unwrap(),
        }
    }
    assert_eq!(flaws(&gate), (false, vec![]));
}

#[test]
fn verify_reports_every_seeded_flaw() {
    // Changes a word of a record. Returns the outcome of a check, and each flaw with whether it
    // names the key.
    let seeded = |word: u64, change: fn(u64) -> u64| {
        let files = Files::new();
        let gate = files.open().unwrap();
        let (key, id) = issue(&gate);
        issue(&gate);
        let position = RECORDS + record_of(id) * 8 + word;
        write_word(&files.gate, position, change(read_word(&files.gate, position)));
        // A check on the flawed record does not panic.
        let outcome = gate.check(Some(key.expose().as_bytes()), 1).outcome();
        let (completed, flaws) = flaws(&gate);
        assert!(!completed);
        assert!(flaws.iter().all(|flaw| u64::from(flaw.record) == record_of(id)));
        (
            outcome,
            flaws.into_iter().map(|flaw| (flaw.kind, flaw.key_id == Some(id))).collect::<Vec<_>>(),
        )
    };
    let misplaced = seeded(0, |id| id ^ 1 << 63);
    assert_eq!(
        misplaced,
        (Outcome::InvalidKey, vec![(FlawKind::Checksum, false), (FlawKind::Misplaced, false)])
    );
    let (outcome, flaws) = seeded(META, |meta| meta | SEQUENCE_ONE);
    assert_eq!((outcome, flaws), (Outcome::InvalidKey, vec![(FlawKind::HalfWritten, true)]));
    let plan = seeded(META, |meta| meta | 9 << 8);
    assert_eq!(
        plan,
        (
            Outcome::TooCostly,
            vec![(FlawKind::Checksum, true), (FlawKind::NoPlan { plan: 9 }, true)]
        )
    );
    let env = seeded(META, |meta| meta | 5);
    assert_eq!(
        env,
        (Outcome::Admitted, vec![(FlawKind::Checksum, true), (FlawKind::NoEnv { env: 5 }, true)])
    );
    let (_, pepper) = seeded(META, |meta| meta | 3 << 4);
    assert_eq!(pepper, [(FlawKind::Checksum, true), (FlawKind::NoPepper { pepper: 3 }, true)]);
    // An account and a time of expiry, of which every value is possible, and a tag.
    for word in [2, 4, 6] {
        let (_, flaws) = seeded(word, |word| word ^ 1 << 63);
        assert_eq!(flaws, [(FlawKind::Checksum, true)], "word {word}");
    }
}

#[test]
fn verify_reports_impossible_tallies() {
    let files = Files::new();
    let gate = files.open().unwrap();
    let (key, id) = issue(&gate);
    let tally = RECORDS + record_of(id) * 8 + TALLY;
    write_word(&files.gate, tally, u64::MAX);
    assert_eq!(
        flaws(&gate).1,
        [Flaw::new(u32::try_from(record_of(id)).unwrap(), Some(id), FlawKind::NoTally)]
    );
    // A stamp far in the future, with counts of zero.
    write_word(&files.gate, tally, (u64::MAX >> 1) & !0xffff);
    let (_, future) = flaws(&gate);
    assert_eq!(future.iter().map(|flaw| flaw.kind).collect::<Vec<_>>(), [FlawKind::FutureTally]);
    assert!(future[0].to_string().contains("wrong clock stamped"));
    // A call by the system clock corrects it.
    gate.reset(id).unwrap();
    assert!(gate.check(Some(key.expose().as_bytes()), 1).is_admitted());
    assert_eq!(flaws(&gate).1, []);
}

/// Creates the states that an administrator leaves if it is killed after each step of a change. The
/// header's redo record holds the complete new record. The record itself is unchanged (step 0), its
/// sequence is odd (1), or its words are partly (2) or all (3) written. Checks see the change from
/// step 1 on.
#[test]
fn unfinished_change_is_in_force_and_gets_completed() {
    for (step, administer) in (0..4).flat_map(|step| [(step, false), (step, true)]) {
        let files = Files::new();
        let gate = files.open().unwrap();
        let (key, id) = issue(&gate);
        let record = RECORDS + record_of(id) * 8;
        let hint = u64::from(u32::from_le_bytes(*key.expose().as_bytes().last_chunk().unwrap()));
        let meta = read_word(&files.gate, record + META);
        for word in 0..8 {
            let value = match word {
                TALLY => hint,
                ACCOUNT => 77,
                META => meta + 2 * SEQUENCE_ONE,
                _ => read_word(&files.gate, record + word),
            };
            write_word(&files.gate, REDO + word, value);
        }
        // The upper half counts the changes so far. The lower half names the record.
        write_word(&files.gate, REDO_OWNER, 9 << 32 | (record_of(id) + 1));
        if step >= 1 {
            write_word(&files.gate, record + META, meta + SEQUENCE_ONE);
        }
        if step >= 2 {
            // A word of the MAC is written, and the account is not.
            write_word(&files.gate, record + 2, 0xdead_beef);
        }
        if step >= 3 {
            write_word(&files.gate, record + ACCOUNT, 77);
        }

        let verdict = gate.check(Some(key.expose().as_bytes()), 1);
        assert!(verdict.is_admitted(), "step {step}");
        let account = verdict.holder().unwrap().account;
        assert_eq!(account, if step == 0 { 42 } else { 77 }, "step {step}");

        if administer {
            gate.administer(|administrator| {
                assert!(administrator.has_recovered());
                Ok(())
            })
            .unwrap();
            assert_eq!(flaws(&gate), (false, vec![]), "step {step}");
        } else {
            assert_eq!(flaws(&gate), (true, vec![]), "step {step}");
        }
        assert_eq!(read_word(&files.gate, REDO_OWNER), 9 << 32);
        assert_eq!(read_word(&files.gate, record + META), meta + 2 * SEQUENCE_ONE);
        let verdict = gate.check(Some(key.expose().as_bytes()), 1);
        assert_eq!(verdict.holder().unwrap().account, 77);
        // The tally was kept: it contains both checks.
        assert_eq!(verdict.remaining(), Some(998));
        assert_eq!(
            gate.key(id).unwrap().last_characters.unwrap(),
            key.expose()[key.expose().len() - 4..]
        );
    }
}

#[test]
fn redo_record_for_no_record_is_dropped() {
    let files = Files::new();
    write_word(&files.gate, REDO_OWNER, u64::from(KEYS) + 1);
    let gate = files.open().unwrap();
    assert_eq!(flaws(&gate), (true, vec![]));
    assert_eq!(flaws(&gate), (false, vec![]));
}

// Secrets.

#[test]
fn debug_shows_no_secret() {
    let files = Files::new();
    let gate = files.open().unwrap();
    let (key, id) = issue(&gate);
    let record = RECORDS + record_of(id) * 8;
    let text = format!("{gate:?} {:?} {key:?}", Limiter::open(&files.limiter).unwrap());
    assert!(text.contains("Mapping(") && text.contains("Pepper(…)"));
    assert!(!text.contains("pepper for tests") && !text.contains(key.expose()));
    assert!(!text.contains(&read_word(&files.gate, record + 2).to_string()));
}
