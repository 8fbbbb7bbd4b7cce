//! Compares the sizes in LIMITS.md with the constants of the C interface.

use keytally_ffi::{
    KT_GATE_HANDLE_SIZE, KT_GATE_PLAN_SLOTS, KT_HANDLE_ALIGN, KT_KEY_SIZE, KT_LIMITER_HANDLE_SIZE,
    KT_TABLE_ALIGN,
};

#[test]
fn limits_page_has_the_sizes_of_the_header() {
    let page = include_str!("../../LIMITS.md");
    for row in [
        format!(
            "| a limiter's handle in C | {KT_LIMITER_HANDLE_SIZE} bytes at a multiple of {KT_HANDLE_ALIGN} |"
        ),
        format!(
            "| a gate's handle in C | {KT_GATE_HANDLE_SIZE} bytes at a multiple of {KT_HANDLE_ALIGN} |"
        ),
        format!("| a table's memory in C | at a multiple of {KT_TABLE_ALIGN} bytes |"),
        format!("| plans of a gate in memory made from C | {KT_GATE_PLAN_SLOTS} |"),
        format!("| a key as C gets it | {KT_KEY_SIZE} bytes with its NUL |"),
    ] {
        assert!(page.contains(&row), "{row}");
    }
}
