//! Fails a test in which a killed or stopped process delays another one.

use core::time::Duration;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

/// The bound on the delay, also on a machine that is busy with other work.
const PROMPT: Duration = Duration::from_secs(5);

/// Calls `work`, which `what` names. If it takes longer than [`PROMPT`], aborts the whole test
/// program, because a call that hangs cannot be interrupted.
pub(crate) fn promptly<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let (done, is_done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            if is_done.recv_timeout(PROMPT) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{what}: not finished after {PROMPT:?}");
                std::process::abort();
            }
        });
        let result = work();
        drop(done);
        result
    })
}
