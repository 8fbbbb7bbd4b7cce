//! The log: a line on standard error for each refused request, up to a rate, and for each
//! replacement of the gate file.
//!
//! A separate thread writes the lines. Requests never wait for it: lines that do not fit its queue
//! are counted and dropped.

use core::time::Duration;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use keytally::{FollowEvent, now};
use keytally::{KeyId, Outcome, Reason, Timestamp, Verdict};
use prometheus::IntCounter;

use keytally_cli::internal::times;

/// The maximum number of lines per second. One more line has the number of those that were dropped.
const LINES_PER_SECOND: u64 = 20;

/// The length of the queue, in lines.
const QUEUE_LEN: usize = 256;

/// How long a shutdown waits for the last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The log of a service.
#[derive(Debug)]
pub(crate) struct Log {
    queue: Option<SyncSender<Entry>>,
    /// Disconnected when the thread has written all lines.
    finished: Mutex<Receiver<()>>,
    dropped: IntCounter,
}

/// An entry of the log.
#[derive(Debug)]
enum Entry {
    /// A refused request.
    Refusal(Refusal),
    /// An event of the gate file.
    Gate(String),
}

/// Logs events of the gate file, from threads that do not have the [`Log`].
#[derive(Debug)]
pub(crate) struct Events {
    queue: Option<SyncSender<Entry>>,
    dropped: IntCounter,
}

impl Events {
    /// Logs that the gate file was replaced, or why the new file was not opened.
    pub(crate) fn gate(&self, event: &FollowEvent<'_>) {
        enqueue(self.queue.as_ref(), Entry::Gate(event.to_string()), &self.dropped);
    }
}

/// Adds an entry to the queue of the writing thread, or counts it as dropped.
fn enqueue(queue: Option<&SyncSender<Entry>>, entry: Entry, dropped: &IntCounter) {
    if queue.is_none_or(|queue| queue.try_send(entry).is_err()) {
        dropped.inc();
    }
}

/// A refused request.
#[derive(Debug)]
struct Refusal {
    time: Timestamp,
    route: &'static str,
    outcome: Outcome,
    reason: Option<Reason>,
    holder: Option<(KeyId, u32)>,
    retry_after_s: Option<u32>,
    shadow: bool,
}

impl Log {
    /// Starts the writing thread. `dropped` counts the lines that are not written.
    pub(crate) fn start(dropped: IntCounter) -> io::Result<Self> {
        let (queue, lines) = sync_channel(QUEUE_LEN);
        let (running, finished) = sync_channel(0);
        let mut out = RateLimitedWriter::new(io::stderr(), dropped.clone());
        thread::Builder::new().name("log".to_owned()).spawn(move || {
            write_lines(&lines, &mut out);
            drop(running);
        })?;
        Ok(Self { queue: Some(queue), finished: Mutex::new(finished), dropped })
    }

    /// Logs a request that was refused, or in shadow mode would have been, with its retry time.
    pub(crate) fn refusal(
        &self,
        route: &'static str,
        verdict: &Verdict,
        retry_after_s: Option<u32>,
        shadow: bool,
    ) {
        let line = Refusal {
            time: verdict.now(),
            route,
            outcome: verdict.outcome(),
            reason: verdict.reason(),
            holder: verdict.holder().map(|holder| (holder.key_id, holder.account)),
            retry_after_s,
            shadow,
        };
        enqueue(self.queue.as_ref(), Entry::Refusal(line), &self.dropped);
    }

    /// Returns the log for events of the gate file.
    pub(crate) fn events(&self) -> Events {
        Events { queue: self.queue.clone(), dropped: self.dropped.clone() }
    }
}

impl Drop for Log {
    /// Waits until the thread has written the queued lines, or for the timeout if standard error
    /// blocks.
    fn drop(&mut self) {
        self.queue = None;
        let finished = self.finished.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = finished.recv_timeout(FLUSH_TIMEOUT);
    }
}

impl Entry {
    fn text(&self) -> String {
        match self {
            Self::Refusal(refusal) => refusal.text(),
            Self::Gate(sentence) => format!("{} gate {sentence}", times::rfc3339(now().unix_s())),
        }
    }
}

impl Refusal {
    fn text(&self) -> String {
        let mut text = times::rfc3339(self.time.unix_s());
        text += if self.shadow { " shadow " } else { " " };
        text += self.outcome.as_str();
        if let Some(reason) = self.reason {
            text += &format!(" reason={reason}");
        }
        if let Some((key_id, account)) = self.holder {
            text += &format!(" key={key_id} account={account}");
        }
        if let Some(seconds) = self.retry_after_s {
            text += &format!(" retry_after={seconds}");
        }
        text + &format!(" route={}", self.route)
    }
}

/// Writes entries until the channel is disconnected.
fn write_lines(lines: &Receiver<Entry>, out: &mut RateLimitedWriter<impl Write>) {
    loop {
        match lines.recv_timeout(Duration::from_secs(1)) {
            Ok(line) => out.write(&line.text(), now().unix_s()),
            Err(RecvTimeoutError::Timeout) => out.start_second(now().unix_s()),
            Err(RecvTimeoutError::Disconnected) => return out.write_summary(),
        }
    }
}

/// Writes a limited number of lines per second, and the number of those that it dropped.
struct RateLimitedWriter<W> {
    out: W,
    second: u64,
    written: u64,
    dropped: u64,
    counter: IntCounter,
}

impl<W: Write> RateLimitedWriter<W> {
    fn new(out: W, counter: IntCounter) -> Self {
        Self { out, second: 0, written: 0, dropped: 0, counter }
    }

    fn write(&mut self, text: &str, second: u64) {
        self.start_second(second);
        if self.written < LINES_PER_SECOND {
            self.written += 1;
            // A write error is ignored: there is no other stream to report it on.
            let _ = writeln!(self.out, "{text}");
        } else {
            self.dropped += 1;
            self.counter.inc();
        }
    }

    /// Starts the count of a new second.
    fn start_second(&mut self, second: u64) {
        if second != self.second {
            self.write_summary();
            self.second = second;
            self.written = 0;
        }
    }

    /// Writes how many lines of the second were dropped, if any.
    fn write_summary(&mut self) {
        if self.dropped > 0 {
            let _ = writeln!(
                self.out,
                "{} dropped {} more lines in this second",
                times::rfc3339(self.second),
                self.dropped
            );
            self.dropped = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_rate_are_summarized() {
        let counter = IntCounter::new("dropped", "dropped").unwrap();
        let mut log = RateLimitedWriter::new(Vec::new(), counter.clone());
        for second in [5, 6] {
            for number in 0..LINES_PER_SECOND + 3 * (6 - second) {
                log.write(&format!("{second}.{number}"), second);
            }
        }
        log.start_second(7);
        let text = String::from_utf8(log.out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 41);
        assert_eq!(lines[19], "5.19");
        assert_eq!(lines[20], "1970-01-01T00:00:05Z dropped 3 more lines in this second");
        assert_eq!(lines[40], "6.19");
        assert_eq!(counter.get(), 3);
    }

    #[test]
    fn line_names_outcome_reason_and_route() {
        let time = Timestamp::from_unix_s(0);
        let line = Refusal {
            time,
            route: "auth",
            outcome: Outcome::InvalidKey,
            reason: Some(Reason::Duplicate),
            holder: None,
            retry_after_s: None,
            shadow: false,
        };
        assert_eq!(line.text(), "1970-01-01T00:00:00Z invalid_key reason=duplicate route=auth");
        let denied = Refusal {
            outcome: Outcome::Denied,
            reason: None,
            holder: KeyId::from_number(1).map(|key_id| (key_id, 42)),
            retry_after_s: Some(7),
            shadow: true,
            ..line
        };
        assert_eq!(
            denied.text(),
            "1970-01-01T00:00:00Z shadow denied key=00000000001 account=42 retry_after=7 route=auth"
        );
    }
}
