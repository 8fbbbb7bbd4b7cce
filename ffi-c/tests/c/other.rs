//! A static library in Rust that allocates, prints, starts a thread and catches a panic.

use std::collections::HashMap;

/// Returns twice the number, plus 2 for a caught panic.
#[unsafe(no_mangle)]
pub extern "C" fn other_answer(number: u32) -> u32 {
    let caught = std::panic::catch_unwind(|| HashMap::from([(number, number)])[&(number + 1)]);
    println!("{caught:?}");
    let doubled = std::thread::spawn(move || vec![number; 2].into_iter().sum::<u32>());
    doubled.join().unwrap_or(0) + u32::from(caught.is_err()) * 2
}
