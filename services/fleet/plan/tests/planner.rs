//! What a planner states of requests that were admitted without credits.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use keytally_core::Policy;
use keytally_core::sync::AtomicU64;
use keytally_fleet_plan::credit::CreditLayout;
use keytally_fleet_plan::lease::{FAILED_PAUSE_MS, GIVE_UP_MS, Planner};
use keytally_fleet_plan::request::{LeaseRequest, Reply, WindowReply};
use keytally_fleet_plan::words::{TallyWords, Word, Words as _, admit_unreserved, want};

const NOW_MS: u64 = 1_700_000_040_000;

fn layout() -> CreditLayout {
    let policy: Policy = "100/minute, 1000/hour".parse().unwrap();
    CreditLayout::new(policy.layout(), &policy.limits()).unwrap()
}

fn numbers(request: &LeaseRequest) -> Vec<(u32, u32)> {
    request.windows().iter().map(|window| (window.hold, window.want)).collect()
}

#[test]
fn units_admitted_without_credits_are_stated_until_the_store_replies() {
    let (layout, memory) = (layout(), [const { AtomicU64::new(0) }; 5]);
    let words = TallyWords::from(&memory);
    let mut planner = Planner::new(1);
    assert_eq!(planner.next(&layout, &words, NOW_MS), None);
    assert_eq!(planner.due_ms(&layout, &words), None);
    admit_unreserved(&layout, &words, NOW_MS - 60_000, 13);
    admit_unreserved(&layout, &words, NOW_MS, 7);
    assert!(planner.due_ms(&layout, &words).unwrap() <= NOW_MS);
    let request = planner.next(&layout, &words, NOW_MS).unwrap();
    assert_eq!(numbers(&request), [(7, 7), (20, 20)], "nothing else is requested");

    // No reply arrives, so they are stated again with the next request.
    planner.lost(&words, NOW_MS + 1);
    want(&words, 1);
    planner.wanted();
    let now_ms = NOW_MS + GIVE_UP_MS + 1;
    let request = planner.next(&layout, &words, now_ms).unwrap();
    assert!(numbers(&request)[0].0 == 7 && numbers(&request)[0].1 > 7, "{request:?}");
    let mut reply = Reply { store_ms: now_ms, ..Reply::default() };
    for (window, part) in request.windows().iter().zip(&mut reply.windows) {
        *part = WindowReply { held: window.want, left: 10, machines: 1 };
    }
    planner.replied(&layout, &words, now_ms, &request, &reply);
    let units = |word| layout.units(words.load(word), 0);
    assert_eq!(
        units(Word::Holding) - units(Word::Credits),
        7,
        "they are held, and not spent again"
    );

    // The holding has them now, so they are not stated again.
    assert_eq!(units(Word::Unreserved), 0);
    assert_eq!(planner.next(&layout, &words, now_ms + GIVE_UP_MS), None);
    planner.claim_again();
    let request = planner.next(&layout, &words, now_ms).unwrap();
    assert_eq!(numbers(&request)[0].0, units(Word::Holding));
    assert_eq!(request.unreserved(), [0; 4]);
}

#[test]
fn units_of_a_window_that_has_passed_are_not_stated() {
    let (layout, memory) = (layout(), [const { AtomicU64::new(0) }; 5]);
    let words = TallyWords::from(&memory);
    let mut planner = Planner::new(1);
    admit_unreserved(&layout, &words, NOW_MS, 7);
    let request = planner.next(&layout, &words, NOW_MS + 60_000).unwrap();
    assert_eq!(numbers(&request), [(0, 0), (7, 7)]);
}

/// A request reads its clock by itself, so it can be in the next window before the agent is.
#[test]
fn units_of_a_window_that_has_not_begun_are_stated_when_it_begins() {
    let (layout, memory) = (layout(), [const { AtomicU64::new(0) }; 5]);
    let words = TallyWords::from(&memory);
    let mut planner = Planner::new(1);
    admit_unreserved(&layout, &words, NOW_MS + 60_000, 7);
    let request = planner.next(&layout, &words, NOW_MS);
    assert_eq!(request, None);
    assert_eq!(planner.due_ms(&layout, &words), Some(NOW_MS + 60_000));
    let request = planner.next(&layout, &words, NOW_MS + 60_000).unwrap();
    assert_eq!(numbers(&request), [(7, 7), (7, 7)]);
}

/// Without a pause, an agent whose clock is wrong would send one request after the other.
#[test]
fn units_of_a_window_that_the_store_refuses_are_stated_after_a_pause() {
    let (layout, memory) = (layout(), [const { AtomicU64::new(0) }; 5]);
    let words = TallyWords::from(&memory);
    let mut planner = Planner::new(1);
    admit_unreserved(&layout, &words, NOW_MS, 7);
    let request = planner.next(&layout, &words, NOW_MS).unwrap();
    let reply = Reply { store_ms: NOW_MS, ..Reply::default() };
    planner.replied(&layout, &words, NOW_MS + 1, &request, &reply);
    assert_eq!(planner.next(&layout, &words, NOW_MS + 2), None);
    let due_ms = planner.due_ms(&layout, &words).unwrap();
    assert_eq!(due_ms, NOW_MS + GIVE_UP_MS);
    let request = planner.next(&layout, &words, due_ms).unwrap();
    assert_eq!(request.unreserved()[..2], [7, 7]);
}

#[test]
fn failed_request_is_repeated_after_a_pause() {
    let (layout, memory) = (layout(), [const { AtomicU64::new(0) }; 5]);
    let words = TallyWords::from(&memory);
    let mut planner = Planner::new(1);
    let wanted = |planner: &mut Planner, now_ms| {
        want(&words, 1);
        planner.wanted();
        planner.next(&layout, &words, now_ms)
    };
    wanted(&mut planner, NOW_MS).unwrap();
    planner.failed(&words, NOW_MS);
    let again_ms = NOW_MS + FAILED_PAUSE_MS;
    assert_eq!(planner.due_ms(&layout, &words), Some(again_ms));
    assert_eq!(wanted(&mut planner, again_ms - 1), None);
    let request = wanted(&mut planner, again_ms).unwrap();
    assert!(request.windows().iter().all(|window| window.hold == 0 && window.want > 0));
}
