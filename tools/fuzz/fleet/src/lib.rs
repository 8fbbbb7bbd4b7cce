//! The fuzz target `store_replies`: bytes as the replies of a store, which the agent of a fleet
//! reads and applies.
//!
//! It has a package of its own, since the product and the other targets do not depend on a client
//! of the store.
#![expect(clippy::unwrap_used, reason = "a target fails by panicking")]
#![expect(clippy::missing_panics_doc, reason = "a target fails by panicking")]

use keytally_core::Policy;
use keytally_core::sync::AtomicU64;
use keytally_fleet::plan::credit::{CreditLayout, Units};
use keytally_fleet::plan::lease::Planner;
use keytally_fleet::plan::request::LeaseRequest;
use keytally_fleet::plan::words::{TallyWords, Word, Words as _, want};
use keytally_fleet::{FleetError, Replies};

const NOW_MS: u64 = 1_767_225_600_000;

const POLICIES: [&str; 4] =
    ["9/hour", "100/minute, 1000/hour", "4294967295/31d", "3/day, 9/week, 20/month@30"];

/// Reads bytes as the reply to each command of an agent, and applies those to lease requests.
///
/// The first byte selects a policy, and what the machine holds. The others are one reply after the
/// other. However they are, the credits are at most the holding, and the holding at most what was
/// wanted.
pub fn store_replies(bytes: &[u8]) {
    let (&first, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let policy: Policy = POLICIES[usize::from(first % 4)].parse().unwrap();
    let layout = CreditLayout::new(policy.layout(), &policy.limits()).unwrap();
    let memory: [AtomicU64; 5] = Default::default();
    let words = TallyWords::from(&memory);
    words.store(Word::Holding, layout.word(NOW_MS, &[u32::from(first / 64); 4]));
    let mut planner = Planner::new(first.into());
    let (mut now_ms, mut replies) = (NOW_MS, Replies::new(rest));
    for _ in 0..16 {
        want(&words, 1);
        planner.wanted();
        let request = planner.next(&layout, &words, now_ms);
        match (&request, replies.read(request.as_ref())) {
            (Some(request), Ok(Some(reply))) => {
                planner.replied(&layout, &words, now_ms, request, &reply);
                verify(&layout, &words, request);
            }
            (_, Ok(_)) => planner.lost(&words, now_ms),
            (_, Err(FleetError::Refused(sentence) | FleetError::Lost(sentence))) => {
                assert!(!sentence.is_empty());
                return;
            }
        }
        now_ms += 5000;
    }
}

fn verify(layout: &CreditLayout, words: &TallyWords<'_>, request: &LeaseRequest) {
    let units = |word: Word| -> Units { layout.current(words.load(word), request.at_ms) };
    let (credits, held) = (units(Word::Credits), units(Word::Holding));
    for (index, window) in request.windows().iter().enumerate() {
        assert!(credits[index] <= held[index], "{credits:?} credits, {held:?} held");
        assert!(held[index] <= window.want, "{held:?} held, {request:?}");
    }
}
