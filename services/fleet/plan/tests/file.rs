//! The layout of the fleet file, and the bits of tallies that want credits.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;

use keytally_core::sync::AtomicU64;
use keytally_fleet_plan::layout::{
    FileLayout, Identity, KeysMode, KeysState, MAGIC, MAX_FILE_TALLIES, PAGE_LEN, PageError,
    PageState, PageWord, Phase, TALLY_LEN, VERSION, WantedBits,
};
use keytally_fleet_plan::on_loss::OnLoss;

#[test]
fn parts_of_a_file_do_not_overlap() {
    for tallies in [1, 63, 64, 65, 4095, 4096, 4097, 131_072, MAX_FILE_TALLIES] {
        let layout = FileLayout::new(tallies).unwrap();
        assert!(layout.summary_at() >= PAGE_LEN);
        assert!(layout.bits_at() >= layout.summary_at() + 8 * layout.summary_words());
        let first = layout.tally_at(0).unwrap();
        assert!(first >= layout.bits_at() + 8 * layout.bit_words() && first.is_multiple_of(64));
        let last = layout.tally_at(tallies - 1).unwrap();
        assert!(last + TALLY_LEN <= layout.len() && layout.len().is_multiple_of(PAGE_LEN));
        assert_eq!(layout.tally_at(tallies), None);
        assert!(layout.bit_words() * 64 >= tallies as usize);
        assert!(layout.summary_words() * 64 >= layout.bit_words());
    }
    assert_eq!(FileLayout::new(131_072).unwrap().summary_words(), 32);
    assert_eq!((FileLayout::new(0), FileLayout::new(MAX_FILE_TALLIES + 1)), (None, None));
}

#[test]
fn page_of_another_file_is_refused() {
    let identity = Identity { tallies: 70, gate: 5, boot: 6 << 64 | 7, inode: 8 };
    let page: HashMap<usize, u64> =
        identity.words().into_iter().map(|(word, value)| (word as usize, value)).collect();
    let with = |changed: PageWord, value: u64| {
        let load = |word: PageWord| if word == changed { value } else { page[&(word as usize)] };
        identity.verify(load)
    };
    assert_eq!(with(PageWord::Magic, MAGIC), Ok(()));
    assert_eq!(with(PageWord::Magic, 0), Err(PageError::Empty));
    assert_eq!(with(PageWord::Magic, 1), Err(PageError::NotAFleet));
    assert_eq!(with(PageWord::Geometry, 9 << 32 | 70), Err(PageError::Version(9)));
    let other = with(PageWord::Geometry, u64::from(VERSION) << 32 | 71);
    assert_eq!(other, Err(PageError::Tallies { found: 71, expected: 70 }));
    assert!(other.unwrap_err().to_string().contains("71 tallies, and the table has 70"));
    assert_eq!(with(PageWord::Gate, 6), Err(PageError::OtherGate));
    for word in [PageWord::BootHigh, PageWord::BootLow, PageWord::Inode] {
        assert_eq!(with(word, 1), Err(PageError::Stale));
    }
    assert_eq!(identity.words()[5], (PageWord::Magic, MAGIC), "it is stored last");
}

#[test]
fn state_of_the_page_is_read_as_it_was_written() {
    let all = [
        (PageState::default(), 0),
        (
            PageState { phase: Phase::Learning, on_loss: Some(OnLoss::Closed), machines: 1 },
            1 << 32 | 0x101,
        ),
        (
            PageState { phase: Phase::Leading, on_loss: Some(OnLoss::Share), machines: 8 },
            8 << 32 | 0x202,
        ),
        (
            PageState { phase: Phase::Cut, on_loss: Some(OnLoss::Open), machines: u32::MAX },
            0xFFFF_FFFF_0000_0303,
        ),
    ];
    for (state, bits) in all {
        assert_eq!((state.bits(), PageState::from_bits(bits)), (bits, state));
    }
    assert_eq!(PageState::from_bits(0xFFFF), PageState::default(), "unknown numbers");
}

/// Memory for the bits of 10,000 tallies.
fn memory() -> (Vec<AtomicU64>, Vec<AtomicU64>) {
    let layout = FileLayout::new(10_000).unwrap();
    let words = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
    (words(layout.summary_words()), words(layout.bit_words()))
}

#[test]
fn each_reported_tally_is_taken_once() {
    let (summary, bits) = memory();
    let wanted = WantedBits::new(&summary, &bits);
    assert!(wanted.is_empty());
    for tally in [0, 63, 64, 4095, 4096, 9999, 64] {
        wanted.report(tally);
        wanted.hint(tally);
    }
    wanted.report(1_000_000);
    assert!(!wanted.is_empty());
    let mut taken = Vec::new();
    wanted.take(|tally| taken.push(tally));
    assert_eq!(taken, [0, 63, 64, 4095, 4096, 9999]);
    assert!(wanted.is_empty());
    wanted.take(|tally| panic!("{tally} is taken again"));
}

/// Those that are reported all the time do not keep the others from being taken.
#[test]
fn reports_are_taken_in_turn() {
    let (summary, bits) = memory();
    let wanted = WantedBits::new(&summary, &bits);
    let mut begin = 0;
    let mut take = |most| {
        wanted.report(1);
        let mut taken = Vec::new();
        begin = wanted.take_from(begin, most, |tally| taken.push(tally));
        taken
    };
    [4095, 4096, 4097, 9999].iter().for_each(|&tally| wanted.report(tally));
    assert_eq!(take(1), [1, 4095]);
    assert_eq!(take(1), [4096, 4097]);
    assert_eq!(take(1), [9999]);
    assert_eq!(take(1), [1]);
    wanted.report(9999);
    assert_eq!(take(2), [9999, 1]);
    assert!(wanted.is_empty());
}

/// As if the process were killed between the two bits.
#[test]
fn half_made_report_is_completed_by_the_next_one() {
    for is_hint in [false, true] {
        let (summary, bits) = memory();
        let wanted = WantedBits::new(&summary, &bits);
        wanted.report(70);
        summary[0].store(0, keytally_core::sync::Ordering::Release);
        assert!(wanted.is_empty());
        if is_hint {
            wanted.hint(70);
        } else {
            wanted.report(70);
        }
        let mut taken = Vec::new();
        wanted.take(|tally| taken.push(tally));
        assert_eq!(taken, [70]);
    }
}

#[test]
fn reports_of_threads_are_all_taken() {
    let (summary, bits) = memory();
    let wanted = WantedBits::new(&summary, &bits);
    let mut taken = vec![false; 10_000];
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for tally in (thread..10_000).step_by(4) {
                    wanted.report(tally);
                }
            });
        }
        for _ in 0..100 {
            wanted.take(|tally| taken[tally as usize] = true);
        }
    });
    wanted.take(|tally| taken[tally as usize] = true);
    assert!(taken.iter().all(|&taken| taken));
}

#[test]
fn state_of_keys_is_a_word_and_back() {
    for mode in [KeysMode::Off, KeysMode::List, KeysMode::Carried] {
        for refused in [0, 7, u32::MAX] {
            let state = KeysState { mode, refused };
            assert_eq!(KeysState::from_bits(state.bits()), state);
        }
    }
    assert_eq!(KeysState::from_bits(0), KeysState::default());
    assert_eq!(KeysState::from_bits(9).mode, KeysMode::Off);
}
