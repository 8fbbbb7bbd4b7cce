//! What may be opened as a table, and what is said of memory that may not: each error names what
//! was found and what would be right.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use keytally_core::MAX_KEYS;
use keytally_core::MAX_SUBJECTS;
use keytally_core::MAX_WINDOW_S;
use keytally_core::{
    AttachError, CreateError, Gate, GateConfig, LINE_LEN, Limiter, Line, Name, Peppers, Plan,
    Policy,
};
use keytally_core::{FORMAT_VERSION, TableKind};

mod support {
    pub(crate) mod memory;
}

use support::memory::memory;

const CAPACITY: u32 = 64;

fn image(memory: &[Line]) -> Vec<u64> {
    memory.iter().flat_map(|line| (0..8).map(|word| line.load(word))).collect()
}

fn policy() -> Policy {
    "sliding 100/minute, 1000/hour".parse().unwrap()
}

fn peppers() -> Peppers {
    Peppers::new(&[[1; 32]]).unwrap()
}

fn create_limiter(memory: &[Line]) -> Result<(), CreateError> {
    Limiter::create(memory, &policy(), CAPACITY, [7; 16]).map(drop)
}

fn limiter() -> Vec<Line> {
    let memory = memory(Limiter::<&[Line]>::lines(CAPACITY));
    create_limiter(&memory).unwrap();
    memory
}

fn open_limiter(memory: &[Line]) -> Option<AttachError> {
    Limiter::attach(memory).err()
}

fn with_config<T>(work: impl FnOnce(&GateConfig<'_>) -> T) -> T {
    let plans = [Plan::new("default", policy()).unwrap()];
    let prefix = Name::new("kt").unwrap();
    work(&GateConfig::new(CAPACITY, prefix, &plans).with_plan_slots(2).with_hints(true))
}

fn create_gate(memory: &[Line]) -> Result<(), CreateError> {
    with_config(|config| Gate::create(memory, config, peppers()).map(drop))
}

fn gate() -> Vec<Line> {
    let memory = memory(with_config(|config| config.lines()));
    create_gate(&memory).unwrap();
    memory
}

fn open_gate(memory: &[Line]) -> Option<AttachError> {
    Gate::attach(memory, peppers()).err()
}

/// One kind of table: made, and opened.
type Kind = (TableKind, fn() -> Vec<Line>, fn(&[Line]) -> Option<AttachError>);

const KINDS: [Kind; 2] =
    [(TableKind::Limiter, limiter, open_limiter), (TableKind::Gate, gate, open_gate)];

/// What is said when a word of the header's first line is another.
fn with_word(
    memory: &[Line],
    open: fn(&[Line]) -> Option<AttachError>,
    at: usize,
    change: impl Fn(u64) -> u64,
) -> Option<AttachError> {
    let (line, word) = (&memory[at / 8], at % 8);
    let right = line.load(word);
    line.store(word, change(right));
    let said = open(memory);
    line.store(word, right);
    said
}

const HIGH: u64 = 0xffff_ffff << 32;
const LOW: u64 = 0xffff_ffff;

#[test]
fn every_word_of_a_header_is_checked() {
    for (kind, make, open) in KINDS {
        let memory = make();
        let len = (memory.len() * LINE_LEN) as u64;
        let said = |at, change: &dyn Fn(u64) -> u64| with_word(&memory, open, at, change);
        let geometry = |what, value| Some(AttachError::Geometry { what, value });
        let (found, expected) = match kind {
            TableKind::Limiter => (TableKind::Gate, kind),
            _ => (TableKind::Limiter, kind),
        };
        assert_eq!(open(&memory), None);
        // Magic.
        assert_eq!(said(0, &|_| 0), Some(AttachError::Unfinished));
        assert_eq!(said(0, &|_| 17), Some(AttachError::NotATable));
        // Version and kind.
        for other in [0, FORMAT_VERSION + 1] {
            let version = AttachError::Version { found: other, expected: FORMAT_VERSION };
            assert_eq!(said(1, &|word| word & HIGH | u64::from(other)), Some(version));
        }
        let other = AttachError::Kind { found, expected };
        assert_eq!(said(1, &|word| word & LOW | (found as u64) << 32), Some(other));
        // Without a kind it is not a table, whatever its version.
        for version in [FORMAT_VERSION, 0x5041_5353] {
            let text = u64::from(version) | 3 << 32;
            assert_eq!(said(1, &|_| text), Some(AttachError::NotATable));
        }
        // Bytes.
        for needed in [0, len - 1, len + 64] {
            assert_eq!(said(2, &|_| needed), Some(AttachError::Truncated { len, needed }));
        }
        // Capacity and lines of the header.
        let max = match kind {
            TableKind::Limiter => MAX_SUBJECTS,
            _ => MAX_KEYS,
        };
        for capacity in [0, max + 1, u32::MAX] {
            let said = said(3, &|word| word & HIGH | u64::from(capacity));
            assert_eq!(said, geometry("capacity", capacity.into()));
        }
        // Both kinds take whole lines more for 16 more.
        for capacity in [CAPACITY - 16, CAPACITY + 16] {
            match said(3, &|word| word & HIGH | u64::from(capacity)) {
                Some(AttachError::Truncated { len: found, needed }) => {
                    assert!(
                        found == len && (needed < len) == (capacity < CAPACITY),
                        "{needed} and {len}"
                    );
                }
                other => panic!("{capacity}: {other:?}"),
            }
        }
        for lines in [0, 1, memory.len() as u64 + 1, LOW] {
            let said = said(3, &|word| word & LOW | lines << 32);
            assert_eq!(said, geometry("capacity", CAPACITY.into()), "{lines} lines");
        }
        // Algorithm and number of windows.
        assert_eq!(said(4, &|word| word | 7 << 48), geometry("algorithm", 7));
        for windows in [0, 5, 0xffff] {
            let said = said(4, &|word| word & !(0xffff << 32) | windows << 32);
            assert_eq!(said, geometry("number of windows", windows));
        }
        // Windows and bits.
        for seconds in [0, MAX_WINDOW_S + 1] {
            let first = said(5, &|word| word & HIGH | u64::from(seconds));
            assert_eq!(first, geometry("window", seconds.into()));
            let second = said(5, &|word| word & LOW | u64::from(seconds) << 32);
            assert_eq!(second, geometry("window", seconds.into()));
        }
        let bits = memory[0].load(7);
        assert_eq!(said(5, &|word| word.rotate_left(32)), geometry("tally layout", bits));
        assert_eq!(said(7, &|_| 0), geometry("tally layout", 0));
    }
}

#[test]
fn a_table_that_lost_or_won_lines_is_refused() {
    for (_, make, open) in KINDS {
        let memory = make();
        let needed = (memory.len() * LINE_LEN) as u64;
        for lines in 1..memory.len() {
            let len = (lines * LINE_LEN) as u64;
            assert_eq!(open(&memory[..lines]), Some(AttachError::Truncated { len, needed }));
        }
        assert_eq!(open(&[]), Some(AttachError::Truncated { len: 0, needed: LINE_LEN as u64 }));
        let mut more = make();
        more.push(Line::new());
        assert_eq!(
            open(&more),
            Some(AttachError::Truncated { len: needed + LINE_LEN as u64, needed })
        );
    }
}

#[test]
fn a_gate_needs_its_prefix_its_first_plan_and_a_pepper() {
    let memory = gate();
    let said = |at, value| with_word(&memory, open_gate, at, |_| value);
    let prefix = 8 + 4;
    for damaged in
        [0, u64::from_le_bytes(*b"kt\0x\0\0\0\0"), u64::from_le_bytes(*b"KT\0\0\0\0\0\0")]
    {
        assert_eq!(
            said(prefix, damaged),
            Some(AttachError::Geometry { what: "prefix", value: damaged })
        );
    }
    let plan = 6 * 8;
    assert_eq!(said(plan, 0), Some(AttachError::Geometry { what: "first plan", value: 0 }));
    let wrong = Gate::attach(&memory[..], Peppers::new(&[[2; 32], [3; 32]]).unwrap()).err();
    assert_eq!(wrong, Some(AttachError::WrongPepper { given: 2 }));
    // Without a line for plans.
    let header = |lines: u64| with_word(&memory, open_gate, 3, |word| word & LOW | lines << 32);
    assert_eq!(header(6), Some(AttachError::Geometry { what: "capacity", value: CAPACITY.into() }));
    assert!(matches!(header(8), Some(AttachError::Truncated { .. })));
    // A flag of a later version.
    let flags = with_word(&memory, open_gate, 4, |word| word | 2);
    assert_eq!(flags, Some(AttachError::Geometry { what: "capacity", value: CAPACITY.into() }));
}

#[test]
fn a_table_is_the_same_in_memory_that_was_used_before() {
    for (make, create) in
        [(limiter as fn() -> _, create_limiter as fn(&[Line]) -> _), (gate, create_gate)]
    {
        let fresh = make();
        let used = memory(fresh.len());
        used.iter().for_each(|line| (0..8).for_each(|word| line.store(word, u64::MAX)));
        create(&used).unwrap();
        assert!(image(&used) == image(&fresh));
    }
}

#[test]
fn a_limiter_has_a_header_of_two_lines_or_more() {
    let lines = Limiter::<&[Line]>::lines(CAPACITY);
    for header_lines in [0, 1, 2, 3, 64] {
        let memory = memory(lines - 2 + header_lines.max(2));
        let made = Limiter::create_after(&memory[..], header_lines, &policy(), CAPACITY, [7; 16])
            .map(drop);
        if header_lines < 2 {
            assert_eq!(made, Err(CreateError::Size { lines: memory.len(), needed: lines }));
        } else {
            assert_eq!((made, open_limiter(&memory)), (Ok(()), None));
        }
    }
}

#[test]
fn a_table_is_made_only_in_memory_of_its_size() {
    for (make, create) in
        [(limiter as fn() -> _, create_limiter as fn(&[Line]) -> _), (gate, create_gate)]
    {
        let needed = make().len();
        for lines in [0, 1, needed - 1, needed + 1] {
            let memory = memory(lines);
            assert_eq!(create(&memory), Err(CreateError::Size { lines, needed }));
            assert!(image(&memory).iter().all(|&word| word == 0), "nothing was written");
        }
    }
}
