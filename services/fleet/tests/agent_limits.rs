//! Compares the bounds of agents in LIMITS.md with the constants of the crate.

use keytally_fleet::{
    CONFIRM_MS, CONNECT_TIMEOUT, CONNECTED_MS, KEYS_FULL_READ, KEYS_POLL, MAX_CONFIRM,
    MAX_ENDED_DAYS, MAX_FLEET_NAME_LEN, MAX_HOSTS, MAX_KEYS_AT_ONCE, MAX_KEYS_COMPARED,
    MAX_KEYS_WAIT, MAX_LOCATION_LEN, MAX_PASSWORD_LEN, MESSAGES, MIN_FORMER_KEYS, MOST_JUMP_MS,
    PAUSES, PIPELINE, REPLY_TIMEOUT, REQUESTS_PER_S,
};

#[test]
fn bounds_of_agents_on_the_page_equal_the_constants() {
    let page = include_str!("../../../LIMITS.md");
    assert_eq!(CONNECT_TIMEOUT, REPLY_TIMEOUT, "the page has one time for both");
    let [shortest, longest] = PAUSES;
    for row in [
        format!("| the name of a fleet | 1 to {MAX_FLEET_NAME_LEN} letters"),
        format!("| hosts of a store's URL | {MAX_HOSTS} |"),
        format!("| a password file of a store | {MAX_PASSWORD_LEN} bytes |"),
        format!(
            "| a connection of an agent, a reply of its store | {} ms each |",
            REPLY_TIMEOUT.as_millis()
        ),
        format!(
            "| a pause of an agent before the next connection | {} ms, doubled up to {} ms,",
            shortest.as_millis(),
            longest.as_millis()
        ),
        format!("| lease requests of a pipeline of an agent | {PIPELINE}, fewer"),
        format!("| lease requests of an agent | {REQUESTS_PER_S} a second unless set |"),
        format!("| replicas that must confirm a grant (`--confirm`) | {MAX_CONFIRM} |"),
        format!("| the confirmation of grants by replicas | {CONFIRM_MS} ms |"),
        format!("| messages of the store that wait for an agent | {MESSAGES} |"),
        format!(
            "| a change of a key in a fleet | read from the store {} s after it, or sooner by a \
             message; all keys are compared each {} s, and at most a fiftieth of the \
             time |",
            KEYS_POLL.as_secs(),
            KEYS_FULL_READ.as_secs()
        ),
        format!("| keys that an agent reads or writes at once | {MAX_KEYS_AT_ONCE} |"),
        format!("| an ended key in the store of a fleet | {MAX_ENDED_DAYS} days |"),
        format!(
            "| former keys that an agent remembers | as many as the gate has records, at least \
             {MIN_FORMER_KEYS} |"
        ),
        format!("has not reported for {CONNECTED_MS} ms | its machine counts"),
        format!("keys of a gate that are compared with those of a fleet | {MAX_KEYS_COMPARED} |"),
        format!("that says where a machine is | {MAX_LOCATION_LEN} characters |"),
        format!("its count is renewed for {} s |", MAX_KEYS_WAIT.as_secs()),
        format!("| a jump of the store's clock against the machine's | {MOST_JUMP_MS} ms between"),
    ] {
        assert!(page.contains(&row), "LIMITS.md lacks: {row}");
    }
}
