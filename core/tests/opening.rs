//! Tests of creating and opening tables: which memory opens, and the error for each other memory.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use keytally_core::{
    AddressLimiter, AttachError, CACHE_LINE_LEN, CacheLine, CreateError, FORMAT_VERSION, Gate,
    GateConfig, Limiter, MAX_KEYS, MAX_SUBJECTS, MAX_WINDOW_S, Outcome, TableKind, Timestamp,
};

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use support::{entropy, image, memory, new_key, peppers, plan};

/// The capacity of all tables here.
const CAPACITY: u32 = 64;

/// The policy of all tables here.
const POLICY: &str = "sliding 100/minute, 1000/hour";

/// Creates the limiter of these tests.
fn create_limiter(memory: &[CacheLine]) -> Result<(), CreateError> {
    Limiter::init(memory, &POLICY.parse().unwrap(), CAPACITY, [7; 16]).map(drop)
}

/// The memory of a new limiter.
fn limiter() -> Vec<CacheLine> {
    let memory = memory(Limiter::<&[CacheLine]>::lines(CAPACITY));
    create_limiter(&memory).unwrap();
    memory
}

/// Returns the error of opening a limiter; `None` if it opens.
fn open_limiter(memory: &[CacheLine]) -> Option<AttachError> {
    Limiter::attach(memory).err()
}

/// The memory of a new limiter of addresses.
fn address_limiter() -> Vec<CacheLine> {
    let memory = memory(AddressLimiter::<&[CacheLine]>::lines(CAPACITY));
    let policy = format!("addresses: {}", POLICY.replacen("100", "/64 100", 1)).parse().unwrap();
    AddressLimiter::init(&memory[..], &policy, CAPACITY, [7; 16]).unwrap();
    memory
}

/// Returns the error of opening a limiter of addresses; `None` if it opens.
fn open_address_limiter(memory: &[CacheLine]) -> Option<AttachError> {
    AddressLimiter::attach(memory).err()
}

/// Passes the configuration of the gate of these tests to `work`.
fn with_config<T>(work: impl FnOnce(&GateConfig<'_>) -> T) -> T {
    let plans = [plan("default", POLICY)];
    work(&support::config(CAPACITY, &plans).with_plan_slots(2).with_hints(true))
}

fn create_gate(memory: &[CacheLine]) -> Result<(), CreateError> {
    with_config(|config| Gate::init(memory, config, peppers(&[1])).map(drop))
}

/// The memory of a new gate.
fn gate() -> Vec<CacheLine> {
    let memory = memory(with_config(|config| config.lines()));
    create_gate(&memory).unwrap();
    memory
}

/// Returns the error of opening a gate; `None` if it opens.
fn open_gate(memory: &[CacheLine]) -> Option<AttachError> {
    Gate::attach(memory, peppers(&[1])).err()
}

/// A kind of table, the function that creates one, and the function that opens it.
type Kind = (TableKind, fn() -> Vec<CacheLine>, fn(&[CacheLine]) -> Option<AttachError>);

const KINDS: [Kind; 3] = [
    (TableKind::Limiter, limiter, open_limiter),
    (TableKind::Gate, gate, open_gate),
    (TableKind::AddressLimiter, address_limiter, open_address_limiter),
];

/// Returns the error of opening a table whose word `index` is changed meanwhile.
fn open_changed(
    memory: &[CacheLine],
    open: fn(&[CacheLine]) -> Option<AttachError>,
    index: usize,
    change: impl Fn(u64) -> u64,
) -> Option<AttachError> {
    let (line, word) = (&memory[index / 8], index % 8);
    let original = line.load(word);
    line.store(word, change(original));
    let error = open(memory);
    line.store(word, original);
    error
}

/// The upper half of a word.
const HIGH: u64 = 0xffff_ffff << 32;

/// The lower half of a word.
const LOW: u64 = 0xffff_ffff;

#[test]
fn every_word_of_a_header_is_checked() {
    for (kind, make, open) in KINDS {
        let memory = make();
        let len = (memory.len() * CACHE_LINE_LEN) as u64;
        let error = |index, change: &dyn Fn(u64) -> u64| open_changed(&memory, open, index, change);
        let geometry = |what, value| Some(AttachError::Geometry { what, value });
        let (found, expected) = match kind {
            TableKind::Limiter => (TableKind::Gate, kind),
            _ => (TableKind::Limiter, kind),
        };
        assert_eq!(open(&memory), None);
        // Magic.
        assert_eq!(error(0, &|_| 0), Some(AttachError::Unfinished));
        assert_eq!(error(0, &|_| 17), Some(AttachError::NotATable));
        // Version and kind.
        for other in [0, FORMAT_VERSION + 1] {
            let version = AttachError::Version { found: other, expected: FORMAT_VERSION };
            assert_eq!(error(1, &|word| word & HIGH | u64::from(other)), Some(version));
        }
        let other = AttachError::Kind { found, expected };
        assert_eq!(error(1, &|word| word & LOW | (found as u64) << 32), Some(other));
        // Without a kind it is not a table, whatever its version.
        for version in [FORMAT_VERSION, 0x5041_5353] {
            let text = u64::from(version) | 6 << 32;
            assert_eq!(error(1, &|_| text), Some(AttachError::NotATable));
        }
        // Bytes.
        for needed in [0, len - 1, len + 64] {
            assert_eq!(error(2, &|_| needed), Some(AttachError::Truncated { len, needed }));
        }
        // Capacity and lines of the header.
        let max = match kind {
            TableKind::Gate => MAX_KEYS,
            _ => MAX_SUBJECTS,
        };
        for capacity in [0, max + 1, u32::MAX] {
            let found = error(3, &|word| word & HIGH | u64::from(capacity));
            assert_eq!(found, geometry("capacity", capacity.into()));
        }
        // In both kinds, 16 subjects or keys more change the number of lines. With 16 less, a
        // limiter has more slots than it needs, as it may.
        for capacity in [CAPACITY - 16, CAPACITY + 16] {
            match error(3, &|word| word & HIGH | u64::from(capacity)) {
                Some(AttachError::Truncated { len: found, needed }) => {
                    assert!(
                        found == len && (needed < len) == (capacity < CAPACITY),
                        "{needed} and {len}"
                    );
                }
                None if kind != TableKind::Gate && capacity < CAPACITY => {}
                other => panic!("{capacity}: {other:?}"),
            }
        }
        for lines in [0, 1, memory.len() as u64 + 1, LOW] {
            let found = error(3, &|word| word & LOW | lines << 32);
            let expected = match kind {
                TableKind::Gate => geometry("number of header lines", lines),
                _ => geometry("capacity", CAPACITY.into()),
            };
            assert_eq!(found, expected, "{lines} lines");
        }
        // Algorithm and number of windows.
        assert_eq!(error(4, &|word| word | 7 << 48), geometry("algorithm", 7));
        for windows in [0, 5, 0xffff] {
            let found = error(4, &|word| word & !(0xffff << 32) | windows << 32);
            assert_eq!(found, geometry("number of windows", windows));
        }
        // Windows and bits.
        for seconds in [0, MAX_WINDOW_S + 1] {
            let first = error(5, &|word| word & HIGH | u64::from(seconds));
            assert_eq!(first, geometry("window", seconds.into()));
            let second = error(5, &|word| word & LOW | u64::from(seconds) << 32);
            assert_eq!(second, geometry("window", seconds.into()));
        }
        let bits = memory[0].load(7);
        assert_eq!(error(5, &|word| word.rotate_left(32)), geometry("tally layout", bits));
        assert_eq!(error(7, &|_| 0), geometry("tally layout", 0));
    }
}

#[test]
fn gate_that_is_overwritten_while_open_is_damaged() {
    const NOW: Timestamp = Timestamp::from_unix_s(1_700_000_000);
    for (first, lines) in [(0, 1), (0, 64), (1, 1)] {
        let gate = Gate::attach(gate(), peppers(&[1])).unwrap();
        let (key, _) = gate.administer().unwrap().issue(&new_key(), entropy(1), NOW).unwrap();
        let check = || gate.check(Some(key.expose().as_bytes()), 1, NOW).outcome();
        assert_eq!((check(), gate.is_damaged()), (Outcome::Admitted, false));
        for line in &gate.memory()[first..first + lines] {
            (0..8).for_each(|word| line.store(word, 0));
        }
        assert!(gate.is_damaged());
        if lines > 1 {
            assert_eq!(check(), Outcome::InvalidKey);
        }
    }
}

#[test]
fn table_with_lines_missing_or_added_is_rejected() {
    for (_, make, open) in KINDS {
        let memory = make();
        let needed = (memory.len() * CACHE_LINE_LEN) as u64;
        for lines in 1..memory.len() {
            let len = (lines * CACHE_LINE_LEN) as u64;
            assert_eq!(open(&memory[..lines]), Some(AttachError::Truncated { len, needed }));
        }
        assert_eq!(
            open(&[]),
            Some(AttachError::Truncated { len: 0, needed: CACHE_LINE_LEN as u64 })
        );
        let mut more = make();
        more.push(CacheLine::new());
        assert_eq!(
            open(&more),
            Some(AttachError::Truncated { len: needed + CACHE_LINE_LEN as u64, needed })
        );
    }
}

#[test]
fn every_word_of_a_prefix_is_checked() {
    let memory = memory(AddressLimiter::<&[CacheLine]>::lines(CAPACITY));
    let policy = "addresses: /64 20/minute, 200/hour; /56 200/minute".parse().unwrap();
    AddressLimiter::init(&memory[..], &policy, CAPACITY, [7; 16]).unwrap();
    let open = |line: usize, change: &dyn Fn(u64) -> u64| {
        open_changed(&memory, open_address_limiter, 8 * line, change)
    };
    assert_eq!(AddressLimiter::attach(&memory[..]).unwrap().policy(), Some(policy));
    let geometry = |what, value| Some(AttachError::Geometry { what, value });
    assert_eq!(open(3, &|_| 0), geometry("number of prefixes", 0));
    for prefix in [1, 32, 65, 255] {
        let found = open(3, &|word| word & !0xff | prefix);
        assert_eq!(found, geometry("prefix of addresses", prefix));
    }
    assert_eq!(open(3, &|word| word & !0xff | 56), geometry("prefix of addresses", 56));
    assert_eq!(open(4, &|word| word & !0xff | 64), geometry("prefix of addresses", 64));
    // No window, and one that the table does not have.
    assert_eq!(open(4, &|word| word & 0xff), geometry("prefix of addresses", 56));
    assert_eq!(open(4, &|word| word & 0xff | 4 << 8), geometry("prefix of addresses", 56));
    // A second prefix less is another policy.
    assert_eq!(open(4, &|_| 0), None);
}

/// A limiter in the memory of a larger capacity uses all of its slots.
#[test]
fn limiter_in_larger_memory_has_more_slots() {
    let memory = memory(Limiter::<&[CacheLine]>::lines(4 * CAPACITY));
    create_limiter(&memory).unwrap();
    let limiter = Limiter::attach(&memory[..]).unwrap();
    assert_eq!(limiter.capacity(), CAPACITY);
    assert_eq!(limiter.slots_total(), u64::from(4 * CAPACITY) * 3 / 2);
    let now = Timestamp::from_unix_s(1_700_000_000);
    for subject in 0..4 * CAPACITY {
        assert!(limiter.check(&subject.to_le_bytes(), 1, now).is_admitted(), "{subject}");
    }
    assert_eq!(limiter.live_subjects(now), u64::from(4 * CAPACITY));
    let number_of_buckets = 8 + 2;
    for change in [1, u64::MAX / 2] {
        let error = open_changed(&memory, open_limiter, number_of_buckets, |word| word + change);
        assert!(matches!(error, Some(AttachError::Truncated { .. })), "{error:?}");
    }
}

#[test]
fn gate_without_prefix_plan_or_pepper_is_rejected() {
    let memory = gate();
    let error = |index, value| open_changed(&memory, open_gate, index, |_| value);
    let prefix = 8 + 4;
    for damaged in
        [0, u64::from_le_bytes(*b"kt\0x\0\0\0\0"), u64::from_le_bytes(*b"KT\0\0\0\0\0\0")]
    {
        assert_eq!(
            error(prefix, damaged),
            Some(AttachError::Geometry { what: "prefix", value: damaged })
        );
    }
    let plan = 6 * 8;
    assert_eq!(error(plan, 0), Some(AttachError::Geometry { what: "first plan", value: 0 }));
    let wrong = Gate::attach(&memory[..], peppers(&[2, 3])).err();
    assert_eq!(wrong, Some(AttachError::WrongPepper { given: 2 }));
    // A header that has no line for plans, or one line too many.
    let header = |lines: u64| open_changed(&memory, open_gate, 3, |word| word & LOW | lines << 32);
    for lines in [6, 8] {
        let what = "number of header lines";
        assert_eq!(header(lines), Some(AttachError::Geometry { what, value: lines }));
    }
    // Room for no plan, and for more than their numbers can name.
    let plans = |slots: u64| open_changed(&memory, open_gate, 7, |word| word & LOW | slots << 32);
    for slots in [0, 257] {
        let what = "number of plans";
        assert_eq!(plans(slots), Some(AttachError::Geometry { what, value: slots }));
    }
    // A flag that this version does not define.
    let flags = open_changed(&memory, open_gate, 4, |word| word | 4);
    assert_eq!(flags, Some(AttachError::Geometry { what: "set of flags", value: 5 }));
}

#[test]
fn table_in_used_memory_equals_one_in_fresh_memory() {
    for (make, create) in
        [(limiter as fn() -> _, create_limiter as fn(&[CacheLine]) -> _), (gate, create_gate)]
    {
        let fresh = make();
        let used = memory(fresh.len());
        used.iter().for_each(|line| (0..8).for_each(|word| line.store(word, u64::MAX)));
        create(&used).unwrap();
        assert!(image(&used) == image(&fresh));
    }
}

#[test]
fn limiter_header_below_three_lines_is_rejected() {
    let lines = Limiter::<&[CacheLine]>::lines(CAPACITY);
    for header_lines in [0, 1, 2, 3, 4, 64] {
        let memory = memory(lines - 3 + header_lines.max(3));
        let made = Limiter::init_after(
            &memory[..],
            header_lines,
            &POLICY.parse().unwrap(),
            CAPACITY,
            [7; 16],
        )
        .map(drop);
        if header_lines < 3 {
            assert_eq!(made, Err(CreateError::Size { lines: memory.len(), needed: lines }));
        } else {
            assert_eq!((made, open_limiter(&memory)), (Ok(()), None));
        }
    }
}

#[test]
fn table_in_memory_of_another_size_is_rejected() {
    for (make, create) in
        [(limiter as fn() -> _, create_limiter as fn(&[CacheLine]) -> _), (gate, create_gate)]
    {
        let needed = make().len();
        for lines in [0, 1, needed - 1, needed + 1] {
            let memory = memory(lines);
            assert_eq!(create(&memory), Err(CreateError::Size { lines, needed }));
            assert!(image(&memory).iter().all(|&word| word == 0), "nothing was written");
        }
    }
}
