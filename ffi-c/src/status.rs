//! Each status: its number and its sentence, and the errors of the other crates that it stands for.

use core::ffi::CStr;

use keytally_core::{AdminError, Feature, PartsError, RequestError};
use keytally_core::{AttachError, CreateError, ParseKeyError, ParsePolicyErrorKind, PeppersError};

/// The result of a function behind the C interface.
pub(crate) type FfiResult<T = ()> = Result<T, kt_status>;

/// Declares the statuses: number and sentence. The sentence is also the documentation.
///
/// Each sentence is a static of its own, so that a program that does not call `kt_status_message`
/// is linked without it. (Some linkers treat all `c"…"` of a library as one piece.)
macro_rules! statuses {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $status:ident = $number:literal => $sentence:literal, )*
        }
    ) => {
        $(#[$meta])*
        pub enum $name {
            $( #[doc = concat!($sentence, ".")] $status = $number, )*
        }

        use $name::*;

        impl $name {
            /// All statuses, in ascending order.
            pub const ALL: &[Self] = &[$( $status ),*];

            /// Returns one sentence, without a full stop: what is wrong, and what would be right.
            pub const fn message(self) -> &'static CStr {
                match self {
                    $( $status => {
                        static SENTENCE: [u8; $sentence.len() + 1] = with_nul($sentence);
                        const TEXT: &CStr = match CStr::from_bytes_with_nul(&SENTENCE) {
                            Ok(text) => text,
                            Err(_) => panic!("a sentence holds a NUL"),
                        };
                        TEXT
                    } )*
                }
            }
        }
    };
}

/// Returns the text with a NUL at its end.
const fn with_nul<const SIZE: usize>(text: &str) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    let (start, _) = bytes.split_at_mut(text.len());
    start.copy_from_slice(text.as_bytes());
    bytes
}

statuses! {
    /// The result of a function that can fail: 0 if it did its work, else the reason why it did
    /// not. Numbers never change their meaning. `kt_status_message` returns a sentence for each.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(i32)]
    pub enum kt_status {
        KT_OK = 0 => "done",

        // Arguments.
        KT_NULL_POINTER = 1 => "a pointer is NULL that must point to something",
        KT_MISALIGNED = 2 =>
            "a pointer is not aligned for what it points to; a table's memory begins at a multiple of 64",
        KT_BAD_LENGTH = 3 =>
            "a length exceeds PTRDIFF_MAX bytes or the address space after its pointer",
        KT_NOT_A_HANDLE = 4 =>
            "the struct is not a handle of this kind: it was never initialized, was closed, or was moved or copied",
        KT_OVERLAP = 5 =>
            "the handle overlaps the memory that is given for the table; keep the two apart",
        KT_BUFFER_TOO_SMALL = 6 =>
            "the buffer is too small; one of the size that keytally.h names for it is always enough",
        KT_NOT_A_VERDICT = 7 =>
            "the struct is neither a verdict nor a kt_key_info: this library never wrote it, or it was changed since",
        KT_NO_MEMORY = 8 => "the system has no memory for this table",
        KT_INTERNAL = 9 => "keytally has a defect here and stopped; please report it",
        KT_NO_CLOCK = 10 =>
            "this library has no system clock; give an explicit time, in Unix milliseconds",
        KT_STRUCT_SIZE = 11 =>
            "the size of a struct leaves out a required member or is above 4096; set its first member to sizeof that struct",
        KT_UNKNOWN_MEMBER = 12 =>
            "a struct sets a member, or a call passes a number, that this library does not know; pass zero, or use the library of that header or a newer one",
        KT_NO_SUCH_QUOTA = 13 => "there is no quota of that index; they count from 0 to quota_count - 1",
        KT_PART_COUNT = 14 => "a compound charge has 1 to 8 parts, and at most 8 tallies",
        KT_PART_TABLE = 15 => "a part has a gate or a limiter, not both and not none",
        KT_NOT_A_CHARGE = 16 =>
            "the struct is not a charge: this library never wrote it, or it was changed since; or the verdict has no charge",

        KT_NOT_AN_ADDRESS = 17 =>
            "the subject is not an address, such as 203.0.113.9 or 2001:db8::1; this limiter counts addresses",

        // Texts.
        KT_POLICY_EMPTY = 20 => "a policy needs at least one quota, like \"100/minute, 1000/hour\"",
        KT_POLICY_TOO_LONG = 21 => "the policy is longer than 128 bytes, or the sections of the plan are longer than 512",
        KT_POLICY_SYNTAX = 22 =>
            "a quota of the policy is not of the form LIMIT/UNIT or LIMIT/N UNIT, like 100/minute, 5/10s or 100 per minute",
        KT_POLICY_LIMIT = 23 => "a limit of the policy is not 1 to 4294967295",
        KT_POLICY_WINDOW = 24 =>
            "a window of the policy is not 1 second to 31 days, week, month, or month@1 to month@31",
        KT_POLICY_UNIT = 25 =>
            "a unit of the policy is none of second, minute, hour, day, week, month, sec, min, s, m, h, d, w",
        KT_POLICY_TOO_MANY = 26 => "the policy has more than 4 quotas",
        KT_POLICY_DUPLICATE = 27 => "two quotas of the policy have the same window, or both are months",
        KT_POLICY_SLIDING_MONTH = 28 =>
            "a month of the policy cannot slide, since months differ in length; write it in a fixed policy, or use 30d",
        KT_POLICY_TOO_MANY_BITS = 29 =>
            "the policy needs more than 64 bits for its time and counts; use smaller limits, longer windows or fewer quotas",
        KT_NAME_FORM = 30 => "a prefix or an environment is not 1 to 8 characters of a-z and 0-9",
        KT_NAMES_TOO_LONG = 31 => "prefix and environment have more than 14 characters together",
        KT_PLAN_NAME_FORM = 32 => "a plan's name is not 1 to 16 characters of a-z, 0-9, - and _",
        KT_KEY_FORM = 33 => "a key is prefix_env_ and 39 characters of 0-9, A-Z and a-z",
        KT_KEY_CHECKSUM = 34 => "the key's checksum is wrong: a character was mistyped or lost",
        KT_KEY_ID_FORM = 35 =>
            "a key id is 11 characters of 0-9, A-Z and a-z, and its number is not 0",

        // Features that a library for a device may leave out.
        KT_NO_SLIDING = 36 => "this build has no sliding windows; build it with the feature `sliding`",
        KT_NO_IMPORTED_KEYS = 37 =>
            "this build has no keys of other forms; build it with the feature `imported-keys`",
        KT_NO_PEPPER_ROTATION = 38 =>
            "this build has one pepper per gate; build it with the feature `pepper-rotation`",
        KT_NO_CALENDAR = 39 =>
            "this build has no weeks and months; build it with the feature `calendar`",

        // Peppers.
        KT_PEPPER_TOO_SHORT = 40 => "a pepper has fewer than 32 bytes; `openssl rand -hex 32` makes one",
        KT_PEPPER_COUNT = 41 =>
            "no pepper is given, or more than 4; is KEYTALLY_PEPPER unset, or the file of peppers empty? `openssl rand -hex 32` makes one for a new gate",
        KT_PEPPER_TWICE = 42 => "the same pepper is given twice; give each once, newest last",
        KT_PEPPER_FORM = 43 => "a pepper is neither hex nor base64",
        KT_PEPPER_FILE_TOO_LONG = 44 =>
            "the file has more than 65536 bytes, so it cannot be a pepper file",
        KT_WRONG_PEPPER = 45 =>
            "none of the peppers belongs to this gate; give the one that it was created with",
        KT_PEPPER_BYTE_ORDER_MARK = 46 =>
            "the text of the peppers begins with a byte-order mark; save it as ASCII or as UTF-8 without that mark",

        // The sections of a plan, and the feature that a library for a device may leave out.
        KT_NO_SECTIONS = 50 =>
            "this build has no sections, teams and scopes; build it with the feature `sections`",
        KT_POLICY_SECTION = 51 =>
            "a section of the plan is not of the form team: QUOTAS or group NAME: QUOTAS, with a name of 1 to 16 characters of a-z, 0-9, - and _ that is not key or team",
        KT_POLICY_SECTION_TWICE = 52 => "two sections of the plan have the same name",
        KT_POLICY_TOO_MANY_TALLIES = 53 =>
            "the quotas of the plan need more tallies than it may have; drop a group or a window, or lower a limit",
        KT_POLICY_TOO_MANY_TEAM_TALLIES = 54 =>
            "the quotas of the team need more than 2 tallies; drop a window, or lower a limit",
        KT_POLICY_WARNING = 55 =>
            "a warning of the plan is not of the form QUOTA warn 80% or QUOTA warn 80% 95%, with ascending percentages from 1% to 100%",
        KT_POLICY_PREFIX = 56 =>
            "a policy for addresses is not of the form addresses: /PREFIX QUOTAS; /PREFIX QUOTAS, with 1 to 4 different prefixes of 33 to 64",
        KT_ACCOUNT_LIMITS = 57 =>
            "the limits of an account have more than quotas: a section, an algorithm or a warning, which only plans have",

        // Tables.
        KT_MEMORY_TOO_SMALL = 60 =>
            "the memory is smaller than the table; kt_limiter_size and kt_gate_size return the size that it needs",
        KT_CAPACITY = 61 =>
            "a limiter is for 1 to 1073741824 subjects, and a gate for 1 to 67108864 keys",
        KT_PLAN_COUNT = 62 =>
            "a gate needs at least one plan, and has room for 4 in the caller's memory and for 116 in a file",
        KT_PLAN_TWICE = 63 => "two plans have the same name",
        KT_PLAN_WINDOWS = 64 =>
            "all plans of a gate must share their sections, windows and algorithms, and fit the same tallies together",
        KT_NOT_A_TABLE = 65 => "this is not a keytally table: it does not begin as one does",
        KT_UNFINISHED = 66 =>
            "this table is incomplete: its creation was interrupted, or it was damaged; restore a backup, or create it again",
        KT_OTHER_FORMAT = 67 => "this table has another version of the format than this library reads",
        KT_OTHER_KIND = 68 => "this is a limiter where a gate was expected, or the other way round",
        KT_TRUNCATED = 69 => "this table has another size than its header says",
        KT_DAMAGED = 70 => "this table's header is damaged: it holds a number that no table has",
        KT_NO_SUCH_ENV = 71 => "the gate has no environment of that number",
        KT_OTHER_CAPACITY = 72 =>
            "the limiter there has another capacity; open it with its own, or create another file, and check requests with both until the longest window of this one has passed",
        KT_OTHER_POLICY = 73 =>
            "the limiter there has other windows or cannot count a limit; create another file for the new policy, and check requests with both until the longest window of this one has passed",

        KT_SCOPES = 74 =>
            "a gate has at most 64 scopes, each of 1 to 16 printable ASCII characters without spaces, commas and quotation marks, and each once",
        KT_TEAM_COUNT = 75 =>
            "the room for teams is at most 67108864, and at least 1 if a plan has a section for teams",
        KT_DESCRIBED = 76 =>
            "the window to describe must be that of a quota of keys, such as month",

        // Administration. Nothing was changed.
        KT_BUSY = 80 =>
            "another administrator is changing this gate; try again, wait longer, or end that process",
        KT_GATE_FULL = 81 =>
            "the gate is full: all its records hold keys, and that of a revoked or expired key is free once its longest window has passed; for room at once, enlarge the gate: `keytally migrate`",
        KT_NO_ROOM_TO_IMPORT = 82 =>
            "the records that this key could be imported into are taken; migrate the gate to one with a third more keys than you import",
        KT_NO_SUCH_KEY = 83 => "the gate has no such key",
        KT_NO_SUCH_PLAN = 84 => "the gate has no such plan",
        KT_PLANS_FULL = 85 => "the gate has no room for another plan",
        KT_PLAN_LIMIT = 86 =>
            "a limit of the plan is more than this gate's tallies can count in that window",
        KT_ENVS_FULL = 87 => "the gate has room for 16 environments and has them all",
        KT_REVOKED = 88 => "the key was revoked and cannot be changed; issue a new one",
        KT_RECORD_DAMAGED = 89 => "the key's record is damaged; kt_gate_verify reports how",
        KT_ALREADY_IMPORTED = 90 => "the key is in the gate already",
        KT_NOT_IMPORTABLE = 91 =>
            "a key to import has 16 to 256 bytes of printable ASCII without spaces",
        KT_PEPPERS_FULL = 92 =>
            "keys under 4 peppers are in this gate; rotate those of the oldest pepper before you use another",
        KT_IN_GRACE = 93 =>
            "the secret that the key had before its last rotation is still valid, and another rotation would end it at once; wait, or force the rotation",

        KT_TEAMS_FULL = 94 =>
            "the gate has no room for another team; create one with room for more",
        KT_NO_SUCH_ACCOUNT = 95 =>
            "the gate has no such account; an account is made with its first key, in a gate with room for teams",
        KT_NO_SUCH_SCOPE = 96 =>
            "the gate has no such scope; its scopes are named when it is created, at most 64",
        KT_NO_SUCH_GROUP = 97 => "the plans of this gate have no such group or section",
        KT_NOT_COUNTED = 98 =>
            "the uses of the gate's keys are not counted, or the file of the counts cannot be opened; kt_gate_set_usage begins to count them",

        // Files and the operating system.
        KT_FILE_NOT_FOUND = 100 => "there is no such file or folder",
        KT_FILE_DENIED = 101 => "the system does not let this process do that with the file",
        KT_FILE_EXISTS = 102 => "a file of that name already exists, and it was not changed",
        KT_FILE_MODE = 103 =>
            "the file's group or every user has access to it; fix it with: chmod 600 FILE, or, if root owns a file of peppers, with: chmod go-w FILE",
        KT_FILE_OWNER = 104 =>
            "the file belongs to a user who is neither this process's nor root; fix it with: chown USER FILE",
        KT_NOT_A_FILE = 105 => "this is not a regular file: the path is that of a folder, a device or the like, or the gate is in memory",
        KT_FILE_TOO_SHORT = 106 => "this is not a keytally table: the file is too short to be one",
        KT_FILE_REPLACED = 107 =>
            "the file was removed or replaced since it was opened; open it again",
        KT_DISK_FULL = 108 => "there is no room on the disk",
        KT_NO_ENTROPY = 109 => "the system provides no random bytes",
        KT_IO = 110 =>
            "the system refused to read, write, map or lock the file, or to start a thread; errno may hold the reason",

        // Fleets.
        KT_JOINED = 120 => "this process has joined a fleet with the gate or limiter already",
        KT_NOT_A_FLEET_FILE = 121 =>
            "this is not the fleet file of the gate or limiter, or its credits are void, as after a restart of the machine; give the path that `keytally agent` was given, and start the agent",
        KT_FLEET_SLIDING = 122 =>
            "a fleet shares fixed windows only, and this policy has sliding ones: write `fixed` in its text",
    }
}

impl From<Feature> for kt_status {
    fn from(feature: Feature) -> Self {
        match feature {
            Feature::Sliding => KT_NO_SLIDING,
            Feature::ImportedKeys => KT_NO_IMPORTED_KEYS,
            Feature::PepperRotation => KT_NO_PEPPER_ROTATION,
            Feature::Calendar => KT_NO_CALENDAR,
            Feature::Sections => KT_NO_SECTIONS,
            _ => KT_INTERNAL,
        }
    }
}

impl From<ParsePolicyErrorKind> for kt_status {
    fn from(kind: ParsePolicyErrorKind) -> Self {
        match kind {
            ParsePolicyErrorKind::Empty => KT_POLICY_EMPTY,
            ParsePolicyErrorKind::TooLong { .. } => KT_POLICY_TOO_LONG,
            ParsePolicyErrorKind::Syntax => KT_POLICY_SYNTAX,
            ParsePolicyErrorKind::Limit => KT_POLICY_LIMIT,
            ParsePolicyErrorKind::Window => KT_POLICY_WINDOW,
            ParsePolicyErrorKind::Unit => KT_POLICY_UNIT,
            ParsePolicyErrorKind::TooManyQuotas => KT_POLICY_TOO_MANY,
            ParsePolicyErrorKind::Duplicate => KT_POLICY_DUPLICATE,
            ParsePolicyErrorKind::SlidingMonth => KT_POLICY_SLIDING_MONTH,
            ParsePolicyErrorKind::TooManyBits { .. } => KT_POLICY_TOO_MANY_BITS,
            ParsePolicyErrorKind::Section => KT_POLICY_SECTION,
            ParsePolicyErrorKind::SectionTwice => KT_POLICY_SECTION_TWICE,
            ParsePolicyErrorKind::TooManyTallies => KT_POLICY_TOO_MANY_TALLIES,
            ParsePolicyErrorKind::TooManyTeamTallies => KT_POLICY_TOO_MANY_TEAM_TALLIES,
            ParsePolicyErrorKind::Warning => KT_POLICY_WARNING,
            ParsePolicyErrorKind::Prefix => KT_POLICY_PREFIX,
            ParsePolicyErrorKind::LeftOut(feature) => feature.into(),
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
            PeppersError::LeftOut(feature) => feature.into(),
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
            CreateError::PlanName { .. } => KT_PLAN_TWICE,
            CreateError::PlanWindows { .. } => KT_PLAN_WINDOWS,
            CreateError::Scopes { .. } => KT_SCOPES,
            CreateError::Teams { .. } => KT_TEAM_COUNT,
            CreateError::Described { .. } => KT_DESCRIBED,
            CreateError::LeftOut(feature) => feature.into(),
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
            AttachError::LeftOut(feature) => feature.into(),
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
            AdminError::TeamsFull { .. } => KT_TEAMS_FULL,
            AdminError::NoSuchAccount(_) => KT_NO_SUCH_ACCOUNT,
            AdminError::NoSuchScope => KT_NO_SUCH_SCOPE,
            AdminError::NamesTooLong => KT_NAMES_TOO_LONG,
            AdminError::Revoked(_) => KT_REVOKED,
            AdminError::Damaged(_) => KT_RECORD_DAMAGED,
            AdminError::AlreadyImported(_) => KT_ALREADY_IMPORTED,
            AdminError::NotImportable { .. } => KT_NOT_IMPORTABLE,
            AdminError::PeppersFull => KT_PEPPERS_FULL,
            AdminError::InGrace { .. } => KT_IN_GRACE,
            AdminError::LeftOut(feature) => feature.into(),
            _ => KT_INTERNAL,
        }
    }
}

impl From<RequestError> for kt_status {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::NoSuchGroup(_) => KT_NO_SUCH_GROUP,
            RequestError::NoSuchScope(_) => KT_NO_SUCH_SCOPE,
            _ => KT_INTERNAL,
        }
    }
}

impl From<PartsError> for kt_status {
    fn from(_: PartsError) -> Self {
        KT_PART_COUNT
    }
}

#[cfg(feature = "host")]
impl From<keytally::Error> for kt_status {
    fn from(error: keytally::Error) -> Self {
        use std::io::ErrorKind;

        use keytally::{Error, FleetError, PepperError};

        match error {
            Error::Account { is_owner: true, .. } => KT_FILE_OWNER,
            Error::Account { is_owner: false, .. } => KT_FILE_MODE,
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
                ErrorKind::OutOfMemory => KT_NO_MEMORY,
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => KT_DISK_FULL,
                _ => KT_IO,
            },
            Error::Fleet { source, .. } => match source {
                FleetError::Joined => KT_JOINED,
                FleetError::Sliding(_) => KT_FLEET_SLIDING,
                FleetError::Tallies { .. } => KT_CAPACITY,
                _ => KT_NOT_A_FLEET_FILE,
            },
            _ => KT_INTERNAL,
        }
    }
}

#[cfg(all(test, feature = "host"))]
mod tests {
    use super::*;

    #[test]
    fn statuses_ascend_and_differ_in_their_sentences() {
        for (index, status) in kt_status::ALL.iter().enumerate() {
            for other in &kt_status::ALL[..index] {
                assert!((*other as i32) < *status as i32, "{other:?} and {status:?}");
                assert_ne!(other.message(), status.message());
            }
            let message = status.message().to_str().expect("a sentence is UTF-8");
            assert!(message.is_ascii() && !message.ends_with('.'), "{message}");
        }
    }

    #[test]
    fn features_that_are_left_out_have_statuses() {
        for (feature, status) in [
            (Feature::Sliding, KT_NO_SLIDING),
            (Feature::ImportedKeys, KT_NO_IMPORTED_KEYS),
            (Feature::PepperRotation, KT_NO_PEPPER_ROTATION),
            (Feature::Calendar, KT_NO_CALENDAR),
            (Feature::Sections, KT_NO_SECTIONS),
        ] {
            assert_eq!(kt_status::from(AttachError::LeftOut(feature)), status);
            assert_eq!(kt_status::from(AdminError::LeftOut(feature)), status);
            assert_eq!(kt_status::from(CreateError::LeftOut(feature)), status);
            assert_eq!(kt_status::from(PeppersError::LeftOut(feature)), status);
            assert_eq!(kt_status::from(ParsePolicyErrorKind::LeftOut(feature)), status);
        }
    }

    /// Compares the sentence of the error's status with the error's own.
    #[track_caller]
    fn assert_same_sentence<E: Copy + ToString>(errors: &[E])
    where
        kt_status: From<E>,
    {
        for &error in errors {
            let status = kt_status::from(error);
            assert_eq!(status.message().to_str(), Ok(error.to_string().as_str()), "{status:?}");
        }
    }

    /// The other errors of core contain a value, which a static sentence cannot name. Three contain
    /// none but stand for less than their status: `AdminError::Busy` concerns memory only,
    /// `AdminError::NoSuchPlan` a name only, and `AdminError::PlanWindows` one plan only.
    #[test]
    fn sentences_without_a_value_are_those_of_core() {
        assert_same_sentence(&[ParseKeyError::Form, ParseKeyError::Checksum]);
        assert_same_sentence(&[AttachError::NotATable, AttachError::Unfinished]);
        assert_same_sentence(&[PeppersError::Repeated]);
        assert_same_sentence(&[Feature::Sliding, Feature::ImportedKeys]);
        assert_same_sentence(&[Feature::PepperRotation, Feature::Calendar, Feature::Sections]);
        assert_same_sentence(&[
            AdminError::NoRoomToImport,
            AdminError::EnvsFull,
            AdminError::NamesTooLong,
            AdminError::PeppersFull,
        ]);
        let empty = "".parse::<keytally_core::Policy>().unwrap_err();
        let sentence = kt_status::from(empty.kind()).message();
        assert_eq!(sentence.to_str(), Ok(empty.to_string().as_str()));
    }

    /// Checks that the error's sentence and that of its status both contain `part`: all that does
    /// not depend on a value.
    #[track_caller]
    fn assert_shared<E: ToString>(error: E, part: &str)
    where
        kt_status: From<E>,
    {
        let sentence = error.to_string();
        let message = kt_status::from(error).message().to_str().expect("a sentence is UTF-8");
        assert!(sentence.contains(part) && message.contains(part), "{sentence}\n{message}");
    }

    /// A policy's errors are left out: `kt_policy_explain` writes their sentences with the value.
    #[test]
    fn sentences_with_a_value_share_the_rest_with_core() {
        let key_id = keytally_core::KeyId::from_number(7).unwrap();
        let until = keytally_core::Timestamp::from_unix_s(60);
        assert_shared(
            AttachError::WrongPepper { given: 2 },
            "; give the one that it was created with",
        );
        assert_shared(
            AttachError::Geometry { what: "capacity", value: 7 },
            "this table's header is damaged: ",
        );
        assert_shared(
            AdminError::Full { keys: 8 },
            "records hold keys, and that of a revoked or expired key is free once its longest window has passed; for room at once, enlarge the gate: `keytally migrate`",
        );
        assert_shared(
            AdminError::PlanLimit { limit: 9, max: 8 },
            " is more than this gate's tallies can count in that window",
        );
        assert_shared(
            AdminError::Revoked(key_id),
            " was revoked and cannot be changed; issue a new one",
        );
        assert_shared(
            AdminError::InGrace { key_id, until },
            ", and another rotation would end it at once; wait, or force the rotation",
        );
        assert_shared(
            AdminError::NotImportable { len: 7 },
            "a key to import has 16 to 256 bytes of printable ASCII without spaces",
        );
        assert_shared(
            CreateError::Teams { teams: 0 },
            " at most 67108864, and at least 1 if a plan has a section for teams",
        );
        assert_shared(
            CreateError::PlanWindows { index: 1 },
            "all plans of a gate must share their sections, windows and algorithms, and fit the same tallies together",
        );
        assert_shared(
            CreateError::Scopes { index: 1 },
            "a gate has at most 64 scopes, each of 1 to 16 printable ASCII characters without spaces, commas and quotation marks, and each once",
        );
        assert_shared(AdminError::TeamsFull { teams: 7 }, "; create one with ");
        assert_shared(AdminError::TeamsFull { teams: 0 }, "; create one with room for ");
        assert_shared(
            AdminError::NoSuchAccount(7),
            "; an account is made with its first key, in a gate with room",
        );
        assert_shared(
            AdminError::NoSuchScope,
            "; its scopes are named when it is created, at most 64",
        );
        let name = || keytally_core::Text::default();
        assert_shared(RequestError::NoSuchGroup(name()), "the plans of this gate have no ");
        assert_shared(RequestError::NoSuchScope(name()), " has no ");
        assert_shared(AdminError::NoSuchKey(key_id), "the gate has no ");
        assert_shared(AdminError::AlreadyImported(key_id), "key is in the gate already");
    }

    #[test]
    fn sentences_of_host_share_all_but_values() {
        use keytally::{Error, PepperError, pepper};
        use std::io::{Error as IoError, ErrorKind};

        let of_peppers = |source| Error::Pepper { path: None, source };
        let whole = [
            Error::Exists { path: "f".into() },
            Error::Replaced { path: "f".into() },
            of_peppers(PepperError::Long { max: pepper::MAX_FILE_LEN }),
        ];
        for error in whole {
            let sentence = error.to_string();
            let message = kt_status::from(error).message().to_str().expect("a sentence is UTF-8");
            assert_eq!(sentence.strip_prefix("f: ").unwrap_or(&sentence), message);
        }
        for (error, part) in [
            (
                Error::Capacity { path: "f".into(), found: 1, requested: 2 },
                ", or create another file, and check requests with both until the longest window of this one has passed",
            ),
            (
                Error::Policy {
                    path: "f".into(),
                    found: "1/s".into(),
                    requested: "2/m".into(),
                    source: keytally::SetPolicyError::Windows,
                },
                "; create another file for the new policy, and check requests with both until the longest window of this one has passed",
            ),
            (
                Error::Entropy(IoError::from(ErrorKind::Other)),
                "the system provides no random bytes",
            ),
            (
                Error::Mode { path: "FILE".into(), mode: 0o644, recognized: true },
                "; fix it with: chmod 600 FILE",
            ),
            (
                Error::Mode { path: "FILE".into(), mode: 0o604, recognized: true },
                "every user has access to it",
            ),
            (
                Error::Writable { path: "FILE".into(), mode: 0o644, recognized: true },
                "with: chmod go-w FILE",
            ),
            (Error::NotAFile { path: "f".into(), found: "a folder" }, "not a regular file"),
            (
                Error::Owner { path: "FILE".into(), owner: 1, user: 2, recognized: true },
                "; fix it with: chown ",
            ),
            (Error::TooShort { path: "f".into(), len: 1 }, "this is not a keytally table: "),
            (
                of_peppers(PepperError::ByteOrderMark { encoding: "UTF-8" }),
                "byte-order mark; save it as ASCII or as UTF-8 without that mark",
            ),
            (of_peppers(PepperError::Count { given: 0 }), "`openssl rand -hex 32` makes one"),
            (of_peppers(PepperError::Count { given: 0 }), "o pepper is given"),
            (of_peppers(PepperError::Form { number: 1, count: 2 }), " is neither hex nor base64"),
            (
                of_peppers(PepperError::Short { number: 1, count: 1, len: 7, encoding: "hex" }),
                "; `openssl rand -hex 32` makes one",
            ),
        ] {
            assert_shared(error, part);
        }
    }

    #[test]
    fn errors_of_the_system_have_statuses() {
        use keytally::Error;
        use std::io::{Error as IoError, ErrorKind};

        let status = |kind: ErrorKind| {
            let (path, source) = ("f".into(), IoError::from(kind));
            kt_status::from(Error::Io { doing: "open", path, source })
        };
        assert_eq!(status(ErrorKind::NotFound), KT_FILE_NOT_FOUND);
        assert_eq!(status(ErrorKind::PermissionDenied), KT_FILE_DENIED);
        assert_eq!(status(ErrorKind::ReadOnlyFilesystem), KT_FILE_DENIED);
        assert_eq!(status(ErrorKind::StorageFull), KT_DISK_FULL);
        assert_eq!(status(ErrorKind::QuotaExceeded), KT_DISK_FULL);
        assert_eq!(status(ErrorKind::OutOfMemory), KT_NO_MEMORY);
        assert_eq!(status(ErrorKind::InvalidFilename), KT_IO);
        let none = Error::Entropy(IoError::from(ErrorKind::Other));
        assert_eq!(kt_status::from(none), KT_NO_ENTROPY);
        let other = Error::Owner { path: "f".into(), owner: 1, user: 2, recognized: true };
        assert_eq!(kt_status::from(other), KT_FILE_OWNER);
    }
}
