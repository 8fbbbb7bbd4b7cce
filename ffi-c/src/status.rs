//! Every error, its number and its sentence.

use core::ffi::{CStr, c_char};

use keytally_core::AdminError;
use keytally_core::{AttachError, CreateError, ParseKeyError, ParsePolicyErrorKind, PeppersError};

use crate::pointers::{In, Number, Numbered};

/// A sentence as a static of its own, which a program that doesn't show it can be linked without. (All `c"…"` of a
/// library are one piece to some linkers.)
macro_rules! sentence {
    ($text:literal) => {{
        static SENTENCE: [u8; $text.len() + 1] = ended($text);
        const TEXT: &CStr = match CStr::from_bytes_with_nul(&SENTENCE) {
            Ok(text) => text,
            Err(_) => panic!("a sentence holds a NUL"),
        };
        TEXT
    }};
}

/// A text and its NUL.
const fn ended<const SIZE: usize>(text: &str) -> [u8; SIZE] {
    let mut ended = [0; SIZE];
    let (start, _) = ended.split_at_mut(text.len());
    start.copy_from_slice(text.as_bytes());
    ended
}

/// What a function that can fail returns: 0 when it did its work, else why it didn't. Numbers keep their meaning for
/// ever. `kt_status_message` has a sentence for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum kt_status {
    /// Done.
    KT_OK = 0,

    // Of arguments.
    /// A pointer is NULL.
    KT_NULL_POINTER = 1,
    /// A pointer isn't aligned for what it points to; a table's memory: to 64 bytes.
    KT_MISALIGNED = 2,
    /// A length is more than memory can have behind the pointer.
    KT_BAD_LENGTH = 3,
    /// The struct was never made a handle of this kind, was closed, moved or copied.
    KT_NOT_A_HANDLE = 4,
    /// The handle lies in the table's memory.
    KT_OVERLAP = 5,
    /// The buffer is too small, and nothing was written; a `KT_..._SIZE` is always enough.
    KT_BUFFER_TOO_SMALL = 6,
    /// The struct is no verdict that this library wrote.
    KT_NOT_A_VERDICT = 7,
    /// There is no memory; only keytally.hpp allocates tables.
    KT_NO_MEMORY = 8,
    /// A defect of this library; nothing was done half that others can see.
    KT_INTERNAL = 9,
    /// `now_ms` is `KT_SYSTEM_CLOCK`, and the library was built without the host part.
    KT_NO_CLOCK = 10,

    // Of texts.
    /// No quota in the policy.
    KT_POLICY_EMPTY = 20,
    /// A policy of more than 128 bytes.
    KT_POLICY_TOO_LONG = 21,
    /// A quota that is neither `LIMIT/[N]UNIT` nor `LIMIT per [N]UNIT`.
    KT_POLICY_SYNTAX = 22,
    /// A limit that is 0 or above 4294967295.
    KT_POLICY_LIMIT = 23,
    /// A window that is 0 or longer than 31 days.
    KT_POLICY_WINDOW = 24,
    /// A unit that is none.
    KT_POLICY_UNIT = 25,
    /// More than 4 quotas.
    KT_POLICY_TOO_MANY = 26,
    /// Two quotas with one window.
    KT_POLICY_DUPLICATE = 27,
    /// A window that isn't a whole multiple of the next shorter one.
    KT_POLICY_NOT_NESTED = 28,
    /// Time and counts need more than 64 bits.
    KT_POLICY_TOO_MANY_BITS = 29,
    /// A prefix or environment that isn't 1 to 8 characters of a-z and 0-9.
    KT_NAME_FORM = 30,
    /// Prefix and environment have more than 14 characters together.
    KT_NAMES_TOO_LONG = 31,
    /// A plan's name that isn't 1 to 16 characters of a-z, 0-9, - and _.
    KT_PLAN_NAME_FORM = 32,
    /// The text is no key.
    KT_KEY_FORM = 33,
    /// The key's checksum is wrong.
    KT_KEY_CHECKSUM = 34,
    /// The text or number is no key id.
    KT_KEY_ID_FORM = 35,

    // Of peppers.
    /// A pepper of fewer than 32 bytes.
    KT_PEPPER_TOO_SHORT = 40,
    /// No pepper, or more than 4.
    KT_PEPPER_COUNT = 41,
    /// The same pepper twice.
    KT_PEPPER_TWICE = 42,
    /// A pepper's text that is neither hex nor base64.
    KT_PEPPER_FORM = 43,
    /// A file too long to hold peppers.
    KT_PEPPER_FILE_TOO_LONG = 44,
    /// None of the peppers is the gate's.
    KT_WRONG_PEPPER = 45,
    /// A text of peppers that begins with a byte-order mark.
    KT_PEPPER_BYTE_ORDER_MARK = 46,

    // Of tables.
    /// The memory is smaller than the table.
    KT_MEMORY_TOO_SMALL = 60,
    /// A capacity that is 0 or above its maximum.
    KT_CAPACITY = 61,
    /// No plan, or more than there is room for.
    KT_PLAN_COUNT = 62,
    /// Two plans of one name.
    KT_PLAN_TWICE = 63,
    /// Plans that differ in windows or algorithm.
    KT_PLAN_WINDOWS = 64,
    /// The memory holds something else.
    KT_NOT_A_TABLE = 65,
    /// The table's creation was interrupted.
    KT_UNFINISHED = 66,
    /// A table of another version of the format.
    KT_OTHER_FORMAT = 67,
    /// A limiter where a gate was expected, or the other way round.
    KT_OTHER_KIND = 68,
    /// The table's size isn't what its header says.
    KT_TRUNCATED = 69,
    /// The table's header is damaged.
    KT_DAMAGED = 70,
    /// The gate has no environment of that number.
    KT_NO_SUCH_ENV = 71,
    /// The limiter there has another capacity.
    KT_OTHER_CAPACITY = 72,
    /// The limiter there has another policy.
    KT_OTHER_POLICY = 73,

    // Of an administrator. Nothing was changed.
    /// Another administrator is changing this gate, and did not end in time.
    KT_BUSY = 80,
    /// Every record is taken.
    KT_GATE_FULL = 81,
    /// The records that this key could be imported into are taken.
    KT_NO_ROOM_TO_IMPORT = 82,
    /// The gate has no such key.
    KT_NO_SUCH_KEY = 83,
    /// The gate has no such plan.
    KT_NO_SUCH_PLAN = 84,
    /// No room for another plan.
    KT_PLANS_FULL = 85,
    /// A limit above what the gate's tallies can count.
    KT_PLAN_LIMIT = 86,
    /// No room for another environment.
    KT_ENVS_FULL = 87,
    /// The key was revoked and can't be changed.
    KT_REVOKED = 88,
    /// The key's record is damaged.
    KT_RECORD_DAMAGED = 89,
    /// The key is in the gate already.
    KT_ALREADY_IMPORTED = 90,
    /// The text can't be imported as a key.
    KT_NOT_IMPORTABLE = 91,
    /// Keys under 4 peppers are in the gate.
    KT_PEPPERS_FULL = 92,
    /// The secret before the key's last rotation is still valid, and another rotation would end it.
    KT_IN_GRACE = 93,

    // Of files and of the operating system.
    /// No such file or folder.
    KT_FILE_NOT_FOUND = 100,
    /// The system doesn't let this process.
    KT_FILE_DENIED = 101,
    /// A file of that name exists, and was left as it is.
    KT_FILE_EXISTS = 102,
    /// Users who must not can get at the file.
    KT_FILE_MODE = 103,
    /// The file belongs to a stranger.
    KT_FILE_OWNER = 104,
    /// A folder, a device or the like.
    KT_NOT_A_FILE = 105,
    /// The file is too short to be any table.
    KT_FILE_TOO_SHORT = 106,
    /// The file was removed or replaced since it was opened.
    KT_FILE_REPLACED = 107,
    /// No room on the disk.
    KT_DISK_FULL = 108,
    /// The system gives no random bytes.
    KT_NO_ENTROPY = 109,
    /// The system refused something else; errno may still tell what.
    KT_IO = 110,
}

use kt_status::*;

impl Numbered for kt_status {
    type Number = i32;
}

impl kt_status {
    /// All of them.
    pub const ALL: &[Self] = &[
        KT_OK,
        KT_NULL_POINTER,
        KT_MISALIGNED,
        KT_BAD_LENGTH,
        KT_NOT_A_HANDLE,
        KT_OVERLAP,
        KT_BUFFER_TOO_SMALL,
        KT_NOT_A_VERDICT,
        KT_NO_MEMORY,
        KT_INTERNAL,
        KT_NO_CLOCK,
        KT_POLICY_EMPTY,
        KT_POLICY_TOO_LONG,
        KT_POLICY_SYNTAX,
        KT_POLICY_LIMIT,
        KT_POLICY_WINDOW,
        KT_POLICY_UNIT,
        KT_POLICY_TOO_MANY,
        KT_POLICY_DUPLICATE,
        KT_POLICY_NOT_NESTED,
        KT_POLICY_TOO_MANY_BITS,
        KT_NAME_FORM,
        KT_NAMES_TOO_LONG,
        KT_PLAN_NAME_FORM,
        KT_KEY_FORM,
        KT_KEY_CHECKSUM,
        KT_KEY_ID_FORM,
        KT_PEPPER_TOO_SHORT,
        KT_PEPPER_COUNT,
        KT_PEPPER_TWICE,
        KT_PEPPER_FORM,
        KT_PEPPER_FILE_TOO_LONG,
        KT_WRONG_PEPPER,
        KT_PEPPER_BYTE_ORDER_MARK,
        KT_MEMORY_TOO_SMALL,
        KT_CAPACITY,
        KT_PLAN_COUNT,
        KT_PLAN_TWICE,
        KT_PLAN_WINDOWS,
        KT_NOT_A_TABLE,
        KT_UNFINISHED,
        KT_OTHER_FORMAT,
        KT_OTHER_KIND,
        KT_TRUNCATED,
        KT_DAMAGED,
        KT_NO_SUCH_ENV,
        KT_OTHER_CAPACITY,
        KT_OTHER_POLICY,
        KT_BUSY,
        KT_GATE_FULL,
        KT_NO_ROOM_TO_IMPORT,
        KT_NO_SUCH_KEY,
        KT_NO_SUCH_PLAN,
        KT_PLANS_FULL,
        KT_PLAN_LIMIT,
        KT_ENVS_FULL,
        KT_REVOKED,
        KT_RECORD_DAMAGED,
        KT_ALREADY_IMPORTED,
        KT_NOT_IMPORTABLE,
        KT_PEPPERS_FULL,
        KT_IN_GRACE,
        KT_FILE_NOT_FOUND,
        KT_FILE_DENIED,
        KT_FILE_EXISTS,
        KT_FILE_MODE,
        KT_FILE_OWNER,
        KT_NOT_A_FILE,
        KT_FILE_TOO_SHORT,
        KT_FILE_REPLACED,
        KT_DISK_FULL,
        KT_NO_ENTROPY,
        KT_IO,
    ];

    /// One sentence: what is wrong, and what would be right.
    #[rustfmt::skip]
    pub const fn message(self) -> &'static CStr {
        match self {
            KT_OK => sentence!("done"),
            KT_NULL_POINTER => sentence!("a pointer is NULL that must point to something"),
            KT_MISALIGNED => sentence!("a pointer is not aligned for what it points to; a table's memory begins at a multiple of 64"),
            KT_BAD_LENGTH => sentence!("a length is more than memory can have behind its pointer"),
            KT_NOT_A_HANDLE => sentence!("this is no handle of this kind: it was never initialised, was closed, or was moved or copied"),
            KT_OVERLAP => sentence!("the handle lies in the table's memory; keep it apart"),
            KT_BUFFER_TOO_SMALL => sentence!("the buffer is too small; one of the size that keytally.h names for it never is"),
            KT_NOT_A_VERDICT => sentence!("this is no verdict: it was never written by a check, or changed since"),
            KT_NO_MEMORY => sentence!("there is no memory for this table"),
            KT_INTERNAL => sentence!("keytally has a defect here and stopped; please report it"),
            KT_NO_CLOCK => sentence!("this library has no system clock; give an explicit time, in Unix milliseconds"),
            KT_POLICY_EMPTY => sentence!("a policy needs at least one quota, like \"100/minute, 1000/hour\""),
            KT_POLICY_TOO_LONG => sentence!("the policy is longer than 128 bytes"),
            KT_POLICY_SYNTAX => sentence!("a quota of the policy is not of the form LIMIT/[N]UNIT, like 100/minute, 5/10s or 100 per minute"),
            KT_POLICY_LIMIT => sentence!("a limit of the policy is not 1 to 4294967295"),
            KT_POLICY_WINDOW => sentence!("a window of the policy is not 1 second to 31 days"),
            KT_POLICY_UNIT => sentence!("a unit of the policy is none of second, minute, hour, day, sec, min, s, m, h, d"),
            KT_POLICY_TOO_MANY => sentence!("the policy has more than 4 quotas"),
            KT_POLICY_DUPLICATE => sentence!("two quotas of the policy have the same window"),
            KT_POLICY_NOT_NESTED => sentence!("a window of the policy is not a whole multiple of the next shorter one"),
            KT_POLICY_TOO_MANY_BITS => sentence!("the policy needs more than 64 bits for its time and counts; use smaller limits, longer windows or fewer quotas"),
            KT_NAME_FORM => sentence!("a prefix or an environment is not 1 to 8 characters of a-z and 0-9"),
            KT_NAMES_TOO_LONG => sentence!("prefix and environment have more than 14 characters together"),
            KT_PLAN_NAME_FORM => sentence!("a plan's name is not 1 to 16 characters of a-z, 0-9, - and _"),
            KT_KEY_FORM => sentence!("a key is prefix_env_ and 39 characters of 0-9, A-Z and a-z"),
            KT_KEY_CHECKSUM => sentence!("the key's checksum is wrong: a character was mistyped or lost"),
            KT_KEY_ID_FORM => sentence!("a key id is 11 characters of 0-9, A-Z and a-z, and its number is not 0"),
            KT_PEPPER_TOO_SHORT => sentence!("a pepper has fewer than 32 bytes; `openssl rand -hex 32` makes one"),
            KT_PEPPER_COUNT => sentence!("no pepper is given, or more than 4; is KEYTALLY_PEPPER unset, or the file of peppers empty? `openssl rand -hex 32` makes one for a new gate"),
            KT_PEPPER_TWICE => sentence!("the same pepper is given twice"),
            KT_PEPPER_FORM => sentence!("a pepper is neither hex nor base64"),
            KT_PEPPER_FILE_TOO_LONG => sentence!("the file of peppers is longer than 65536 bytes"),
            KT_WRONG_PEPPER => sentence!("none of the peppers belongs to this gate; give the one that it was created with"),
            KT_PEPPER_BYTE_ORDER_MARK => sentence!("the peppers begin with a byte-order mark; save them as ASCII or as UTF-8 without that mark"),
            KT_MEMORY_TOO_SMALL => sentence!("the memory is smaller than the table; kt_limiter_size and kt_gate_size tell what it takes"),
            KT_CAPACITY => sentence!("a limiter is for 1 to 1073741824 subjects, and a gate for 1 to 67108864 keys"),
            KT_PLAN_COUNT => sentence!("a gate needs at least one plan, and has room for 4 in memory of yours, for 116 in a file"),
            KT_PLAN_TWICE => sentence!("two plans have the same name"),
            KT_PLAN_WINDOWS => sentence!("all plans of a gate must share their windows and algorithm, and fit 64 bits together"),
            KT_NOT_A_TABLE => sentence!("this is no keytally table: it does not begin as one does"),
            KT_UNFINISHED => sentence!("this table was never finished: its creation was interrupted; create it again"),
            KT_OTHER_FORMAT => sentence!("this table has another version of the format than this library reads"),
            KT_OTHER_KIND => sentence!("this is a limiter where a gate was expected, or the other way round"),
            KT_TRUNCATED => sentence!("this table has another size than its header says"),
            KT_DAMAGED => sentence!("this table's header is damaged: it holds a number that no table has"),
            KT_NO_SUCH_ENV => sentence!("the gate has no environment of that number"),
            KT_OTHER_CAPACITY => sentence!("the limiter there has another capacity; open it with its own, or remove it and create another"),
            KT_OTHER_POLICY => sentence!("the limiter there has another policy; open it with its own, or remove it and create another"),
            KT_BUSY => sentence!("another administrator is changing this gate; try again, wait longer, or end its process"),
            KT_GATE_FULL => sentence!("the gate is full: all its records hold keys; revoke some, or create a gate with more keys"),
            KT_NO_ROOM_TO_IMPORT => sentence!("the records that this key could be imported into are taken; create the gate with at least a quarter more keys than you import"),
            KT_NO_SUCH_KEY => sentence!("the gate has no such key"),
            KT_NO_SUCH_PLAN => sentence!("the gate has no such plan"),
            KT_PLANS_FULL => sentence!("the gate has no room for another plan"),
            KT_PLAN_LIMIT => sentence!("a limit of the plan is more than this gate's tallies can count in that window"),
            KT_ENVS_FULL => sentence!("the gate has no room for another environment: it has 16"),
            KT_REVOKED => sentence!("the key was revoked and can't be changed; issue a new one"),
            KT_RECORD_DAMAGED => sentence!("the key's record is damaged; kt_gate_verify tells how"),
            KT_ALREADY_IMPORTED => sentence!("the key is in the gate already"),
            KT_NOT_IMPORTABLE => sentence!("a key to import has 16 to 256 bytes of printable ASCII without spaces"),
            KT_PEPPERS_FULL => sentence!("keys under 4 peppers are in this gate; rotate those of the oldest before you use another"),
            KT_IN_GRACE => sentence!("the secret that the key had before its last rotation is still valid, and another rotation would end it at once; wait, or force the rotation"),
            KT_FILE_NOT_FOUND => sentence!("there is no such file or folder"),
            KT_FILE_DENIED => sentence!("the system does not let this process do that with the file"),
            KT_FILE_EXISTS => sentence!("there is a file of that name already, and it was left as it is"),
            KT_FILE_MODE => sentence!("other users can get at the file; fix it with: chmod 600 FILE, or with chmod go-w FILE where root owns a file of peppers"),
            KT_FILE_OWNER => sentence!("the file belongs to a user who is neither this process's nor root; fix it with: chown USER FILE"),
            KT_NOT_A_FILE => sentence!("this is a folder, a device or the like, and no regular file"),
            KT_FILE_TOO_SHORT => sentence!("this is no keytally table: the file is too short to be one"),
            KT_FILE_REPLACED => sentence!("the file was removed or replaced since it was opened; open it again"),
            KT_DISK_FULL => sentence!("there is no room on the disk"),
            KT_NO_ENTROPY => sentence!("the system gives no random bytes"),
            KT_IO => sentence!("the system refused to read, write, map or lock the file"),
        }
    }
}

/// One sentence that tells what a status means and what would be right, in English, without a full stop.
///
/// Never NULL, also for a number that is no status; the text is always there and must not be freed.
///
/// ```c
/// kt_status status = kt_limiter_open("addresses.limiter", &limiter);
/// if (status != KT_OK) fprintf(stderr, "addresses.limiter: %s\n", kt_status_message(status));
/// ```
#[unsafe(no_mangle)]
pub extern "C" fn kt_status_message(status: Number<kt_status>) -> In<'static, c_char> {
    let known = kt_status::ALL.iter().find(|known| **known as i32 == status.0);
    In::of_static(known.map_or(c"this number is no status of keytally", |known| known.message()))
}

impl From<ParsePolicyErrorKind> for kt_status {
    fn from(kind: ParsePolicyErrorKind) -> Self {
        match kind {
            ParsePolicyErrorKind::Empty => KT_POLICY_EMPTY,
            ParsePolicyErrorKind::TooLong => KT_POLICY_TOO_LONG,
            ParsePolicyErrorKind::Syntax => KT_POLICY_SYNTAX,
            ParsePolicyErrorKind::Limit => KT_POLICY_LIMIT,
            ParsePolicyErrorKind::Window => KT_POLICY_WINDOW,
            ParsePolicyErrorKind::Unit => KT_POLICY_UNIT,
            ParsePolicyErrorKind::TooManyQuotas => KT_POLICY_TOO_MANY,
            ParsePolicyErrorKind::Duplicate => KT_POLICY_DUPLICATE,
            ParsePolicyErrorKind::NotNested => KT_POLICY_NOT_NESTED,
            ParsePolicyErrorKind::TooManyBits { .. } => KT_POLICY_TOO_MANY_BITS,
            _ => KT_INTERNAL,
        }
    }
}

impl From<ParseKeyError> for kt_status {
    fn from(error: ParseKeyError) -> Self {
        match error {
            ParseKeyError::Form => KT_KEY_FORM,
            ParseKeyError::Checksum => KT_KEY_CHECKSUM,
            _ => KT_INTERNAL,
        }
    }
}

impl From<PeppersError> for kt_status {
    fn from(error: PeppersError) -> Self {
        match error {
            PeppersError::TooShort(_) => KT_PEPPER_TOO_SHORT,
            PeppersError::Repeated => KT_PEPPER_TWICE,
            PeppersError::Count => KT_PEPPER_COUNT,
            _ => KT_INTERNAL,
        }
    }
}

impl From<CreateError> for kt_status {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Size { .. } => KT_MEMORY_TOO_SMALL,
            CreateError::Capacity { .. } => KT_CAPACITY,
            CreateError::Plans { .. } => KT_PLAN_COUNT,
            CreateError::PlanName => KT_PLAN_TWICE,
            CreateError::PlanWindows => KT_PLAN_WINDOWS,
            _ => KT_INTERNAL,
        }
    }
}

impl From<AttachError> for kt_status {
    fn from(error: AttachError) -> Self {
        match error {
            AttachError::NotATable => KT_NOT_A_TABLE,
            AttachError::Unfinished => KT_UNFINISHED,
            AttachError::Version { .. } => KT_OTHER_FORMAT,
            AttachError::Kind { .. } => KT_OTHER_KIND,
            AttachError::Truncated { .. } => KT_TRUNCATED,
            AttachError::Geometry { .. } => KT_DAMAGED,
            AttachError::WrongPepper { .. } => KT_WRONG_PEPPER,
            _ => KT_INTERNAL,
        }
    }
}

impl From<AdminError> for kt_status {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::Busy => KT_BUSY,
            AdminError::Full { .. } => KT_GATE_FULL,
            AdminError::NoRoomToImport => KT_NO_ROOM_TO_IMPORT,
            AdminError::NoSuchKey(_) => KT_NO_SUCH_KEY,
            AdminError::NoSuchPlan => KT_NO_SUCH_PLAN,
            AdminError::PlansFull { .. } => KT_PLANS_FULL,
            AdminError::PlanWindows => KT_PLAN_WINDOWS,
            AdminError::PlanLimit { .. } => KT_PLAN_LIMIT,
            AdminError::EnvsFull => KT_ENVS_FULL,
            AdminError::NamesTooLong => KT_NAMES_TOO_LONG,
            AdminError::Revoked(_) => KT_REVOKED,
            AdminError::Damaged(_) => KT_RECORD_DAMAGED,
            AdminError::AlreadyImported(_) => KT_ALREADY_IMPORTED,
            AdminError::NotImportable { .. } => KT_NOT_IMPORTABLE,
            AdminError::PeppersFull => KT_PEPPERS_FULL,
            AdminError::InGrace { .. } => KT_IN_GRACE,
            _ => KT_INTERNAL,
        }
    }
}

#[cfg(feature = "host")]
impl From<keytally::Error> for kt_status {
    fn from(error: keytally::Error) -> Self {
        use std::io::ErrorKind;

        use keytally::{Error, PepperError};

        match error {
            Error::Admin { source, .. } => source.into(),
            Error::Attach { source, .. } => source.into(),
            Error::Busy { .. } | Error::Interrupted { .. } => KT_BUSY,
            Error::Create { source, .. } => source.into(),
            Error::Capacity { .. } => KT_OTHER_CAPACITY,
            Error::Policy { .. } => KT_OTHER_POLICY,
            Error::Entropy(_) => KT_NO_ENTROPY,
            Error::Exists { .. } => KT_FILE_EXISTS,
            Error::Mode { .. } | Error::Writable { .. } => KT_FILE_MODE,
            Error::NotAFile { .. } => KT_NOT_A_FILE,
            Error::Owner { .. } => KT_FILE_OWNER,
            Error::Replaced { .. } => KT_FILE_REPLACED,
            Error::TooShort { .. } => KT_FILE_TOO_SHORT,
            Error::Pepper { source, .. } => match source {
                PepperError::ByteOrderMark { .. } => KT_PEPPER_BYTE_ORDER_MARK,
                PepperError::Count { .. } => KT_PEPPER_COUNT,
                PepperError::Form { .. } => KT_PEPPER_FORM,
                PepperError::Long { .. } => KT_PEPPER_FILE_TOO_LONG,
                PepperError::Repeated { .. } => KT_PEPPER_TWICE,
                PepperError::Short { .. } => KT_PEPPER_TOO_SHORT,
                _ => KT_INTERNAL,
            },
            Error::Io { source, .. } => match source.kind() {
                ErrorKind::NotFound => KT_FILE_NOT_FOUND,
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => KT_FILE_DENIED,
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => KT_DISK_FULL,
                _ => KT_IO,
            },
            _ => KT_INTERNAL,
        }
    }
}

#[cfg(all(test, feature = "host"))]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_listed_has_a_number_and_a_sentence_of_its_own() {
        let declared = include_str!("status.rs").lines().filter(|line| {
            line.strip_prefix("    KT_").is_some_and(|rest| rest.contains(" = ") && rest.ends_with(','))
        });
        assert_eq!(declared.count(), kt_status::ALL.len());
        for (place, status) in kt_status::ALL.iter().enumerate() {
            for other in &kt_status::ALL[..place] {
                assert!((*other as i32) < *status as i32, "in the order of their numbers");
                assert_ne!(other.message(), status.message());
            }
            let message = status.message().to_str().unwrap();
            assert!(message.is_ascii() && !message.ends_with('.'), "{message}");
        }
    }
}
