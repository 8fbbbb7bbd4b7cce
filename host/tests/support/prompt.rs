//! Whoever comes after somebody who died is not held up.

use core::time::Duration;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

/// How long the next one may take at most, on a machine that is busy with something else too.
const PROMPT: Duration = Duration::from_secs(5);

/// Does the work. If it takes too long, the whole test program ends: what hangs can't be
/// interrupted.
pub(crate) fn promptly<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let (done, is_done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            if is_done.recv_timeout(PROMPT) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{what}: this is not done after {PROMPT:?}");
                std::process::abort();
            }
        });
        let result = work();
        drop(done);
        result
    })
}
