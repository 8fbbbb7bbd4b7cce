//! Compares the bounds of fleets in LIMITS.md with the constants of the crate.

use keytally_fleet_plan::flow::{MOST_IN_FLIGHT, SLOW_MS};
use keytally_fleet_plan::layout::{ABSENT_MS, MAX_FILE_TALLIES, MAX_PAGE_TEXT_LEN, PAGE_TEXTS};
use keytally_fleet_plan::lease::{
    COMMON_LEASE, FAILED_PAUSE_MS, GIVE_UP_MS, IDLE_MS, LONGEST_GIVE_UP_MS, LONGEST_SETTLE_MS,
    SMALL_IDLE_MS,
};
use keytally_fleet_plan::request::MOST_RECALLS;
use keytally_fleet_plan::seal::MAX_SEALED_LEN;

#[test]
fn bounds_of_fleets_on_the_page_equal_the_constants() {
    let page = include_str!("../../../../LIMITS.md");
    assert_eq!(LONGEST_SETTLE_MS, 1000, "the page says each second");
    let (idle_s, small_idle_s) = (IDLE_MS / 1000, SMALL_IDLE_MS / 1000);
    for row in [
        format!(
            "| a lease request of a fleet | {GIVE_UP_MS} ms without a reply, at most \
             {LONGEST_GIVE_UP_MS} ms while replies are slow; one open"
        ),
        format!(
            "| lease requests of a pipeline of an agent | {MOST_IN_FLIGHT}, fewer while replies take \
             longer than {SLOW_MS} ms |"
        ),
        format!(
            "| idle units of a machine in a fleet | {idle_s} s, or {small_idle_s} s if its share of \
             the limit is below {COMMON_LEASE}; at most a quarter of the window |"
        ),
        format!(
            "| a lease request that the store cannot execute | {FAILED_PAUSE_MS} ms until the next"
        ),
        format!(
            "| keys of the store that a fleet file names | {PAGE_TEXTS}, by {MAX_PAGE_TEXT_LEN}"
        ),
        format!("| machines that one lease request recalls units from | {MOST_RECALLS}, those"),
        format!("| an agent's heartbeat | {} s old |", ABSENT_MS / 1000),
        format!("| bytes of a sealed record | {MAX_SEALED_LEN} |"),
        format!("| tallies of a fleet file | {MAX_FILE_TALLIES} |"),
        format!(
            "| machines that a fleet file names | {PAGE_TEXTS}, by {MAX_PAGE_TEXT_LEN} bytes |"
        ),
    ] {
        assert!(page.contains(&row), "LIMITS.md lacks: {row}");
    }
}
