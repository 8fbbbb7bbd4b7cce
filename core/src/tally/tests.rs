//! Tests of the layout of a tally.

use super::*;
use crate::policy::Policy;

fn layout(text: &str) -> Layout {
    *text.parse::<Policy>().unwrap().layout()
}

#[test]
fn spare_bits_go_to_the_counts() {
    let layout = layout("100/minute, 1000/hour");
    assert_eq!(layout.stamp_bits(), 27);
    assert_eq!(layout.count_bits(), [17, 20]);
    assert_eq!([1, 2, 4].map(|index| layout.max_limit(index)), [Some((1 << 20) - 1), None, None]);
}

#[test]
fn counts_roll_with_their_windows() {
    let layout = layout("sliding 5/10s, 50/100s");
    let of = *layout.counts();
    let counts = |word| [0, 1].map(|index| (of.current(word, index), of.previous(word, index)));
    let word = layout.charged(layout.unused(123_459), 3);
    assert_eq!((layout.stamp(word), counts(word)), (123_459, [(3, 0), (3, 0)]));
    let later = layout.charged(layout.rolled(word, 123_460), 2);
    assert_eq!(counts(later), [(2, 3), (2, 3)]);
    assert_eq!(counts(layout.rolled(later, 123_461)), [(0, 2), (2, 3)]);
    assert_eq!(counts(layout.rolled(later, 123_462)), [(0, 0), (2, 3)]);
    assert_eq!(counts(layout.rolled(later, 123_480)), [(0, 0), (0, 0)]);
    assert_eq!(counts(layout.given_back(later, 1, true, 3)), [(2, 3), (2, 0)]);
}

#[test]
fn time_stops_before_the_reservation_stamp() {
    let layout = layout("100/minute, 1000/hour");
    let last = layout.stamp_at(Timestamp::from_unix_ms(u64::MAX));
    assert_eq!(last, (1 << 27) - 2);
    assert!(!layout.is_reservation(layout.unused(last) | ((1 << 37) - 1)));
    assert!(layout.is_reservation(layout.reservation(u64::MAX)));
    // 24 bits of a ticket distinguish reservations.
    for ticket in [1, 2, 3, 5, 1 << 12, (1 << 23) + 1] {
        assert_eq!(layout.reservation(ticket), layout.reservation(ticket + (1 << 24)));
        assert_ne!(layout.reservation(ticket), layout.reservation(ticket + 2));
        assert_ne!(layout.reservation(ticket), layout.reservation(ticket - 1));
    }
}

#[test]
fn tightest_layout_has_room_for_a_ticket() {
    let layout = layout("sliding 7/second, 7/minute, 7/hour, 7/day");
    assert_eq!(u64::BITS - layout.stamp_bits(), TICKET_BITS);
}

#[test]
fn slot_is_kept_a_second_longer_than_its_tally() {
    const MINUTE: u64 = 60_000;
    // The unit of the stamp is a second, a minute, 20 s, 31 days, and a day.
    for (policy, end) in [
        ("9/second, 9/minute", MINUTE),
        ("100/minute, 1000/hour", 60 * MINUTE),
        ("sliding 9/minute", 2 * MINUTE),
        ("9/40s, 9/minute", 80_000),
        ("9/31d", 31 * 24 * 60 * MINUTE),
        ("9/month", 31 * 24 * 60 * MINUTE),
    ] {
        let layout = layout(policy);
        let at = Timestamp::from_unix_ms(MINUTE - 1);
        let word = layout.charged(layout.unused(layout.stamp_at(at)), 1);
        assert!(!layout.is_reusable(word, Timestamp::from_unix_ms(end + 999)), "{policy}");
        assert!(layout.is_reusable(word, Timestamp::from_unix_ms(end + 1000)), "{policy}");
        assert_eq!(layout.reusable_from(word).unix_ms(), end + 1000, "{policy}");
    }
}

/// All later moments have the last stamp, so its windows never pass. A reused slot could hold the
/// same word again.
#[test]
fn slot_of_the_last_stamp_is_never_reused() {
    for policy in ["1/minute", "9/31d", "sliding 2/second"] {
        let layout = layout(policy);
        let word = layout.charged(layout.unused(layout.last_stamp()), 1);
        assert!(!layout.is_reusable(word, Timestamp::from_unix_ms(u64::MAX)), "{policy}");
        assert!(!layout.is_reusable(u64::MAX, Timestamp::from_unix_ms(u64::MAX)), "{policy}");
    }
}

#[test]
fn layout_that_no_policy_has_is_refused() {
    let minute = Window::from_seconds(60).unwrap();
    let hour = Window::from_seconds(3600).unwrap();
    let parts =
        |windows: &[Window], bits| Layout::from_parts(Algorithm::Fixed, windows, bits).is_some();
    assert!(parts(&[minute, hour], [17, 20, 0, 0]));
    assert!(!parts(&[hour, minute], [17, 20, 0, 0]));
    assert!(!parts(&[minute, hour], [33, 20, 0, 0]));
    assert!(!parts(&[minute, hour], [17, 0, 0, 0]));
    assert!(!parts(&[minute, hour], [17, 20, 1, 0]));
    assert!(!parts(&[minute, hour], [30, 30, 0, 0]));
    assert!(!parts(&[minute, hour], [7, 10, 0, 0]));
    assert!(!parts(&[], [0; 4]));
    let ninety = Window::from_seconds(90).unwrap();
    assert!(parts(&[minute, ninety], [17, 20, 0, 0]), "units of 30 seconds");
    assert!(parts(&[minute, Window::WEEK], [17, 20, 0, 0]));
    assert!(!parts(&[minute, minute], [17, 20, 0, 0]), "one window twice");
    assert!(!parts(&[minute, hour], [33, 4, 0, 0]), "a count wider than a limit can be");
    assert!(!parts(&[minute, hour], [30, 0, 0, 0]), "a window without a count");
}

#[test]
fn layout_has_room_for_its_stamp_and_all_its_counts() {
    let minute = Window::from_seconds(60).unwrap();
    let fits = |algorithm, bits, stamp_bits| {
        Layout::with_stamp_bits(algorithm, &[minute], [bits, 0, 0, 0], stamp_bits).is_some()
    };
    assert!(fits(Algorithm::Fixed, 32, 32) && !fits(Algorithm::Fixed, 32, 33));
    assert!(fits(Algorithm::Sliding, 16, 32) && !fits(Algorithm::Sliding, 17, 32));
    assert!(
        fits(Algorithm::Fixed, 1, 1)
            && !fits(Algorithm::Fixed, 1, 0)
            && !fits(Algorithm::Fixed, 1, 65)
    );
}

/// Until 2200 there are 4096 windows of 1,772,002 s. A stamp of 12 bits and two counts of 26 bits
/// fill the word. If the window is a second shorter, there are 4097, so the stamp takes 13 bits.
#[test]
fn stamp_takes_no_bit_more_than_it_needs() {
    assert_eq!(layout("sliding 67108863/1772002s").stamp_bits(), 12);
    assert!("sliding 67108863/1772001s".parse::<Policy>().is_err());
}

/// The longest window, 31 days, is 2^31.3 ms, so the end of 2^33 of them does not fit 64 bits.
#[test]
fn largest_stamp_fits_64_bits_of_milliseconds() {
    let month = [Window::from_seconds(crate::window::MAX_WINDOW_S).unwrap()];
    let parts = |bits| Layout::from_parts(Algorithm::Fixed, &month, [bits, 0, 0, 0]);
    assert_eq!(parts(32).map(|layout| layout.stamp_bits()), Some(32));
    assert!(parts(31).is_none());
}
