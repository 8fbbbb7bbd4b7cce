//! The log: a line on standard error for each refused request, for each warning of a plan that a
//! charge reached, and for each event of the gate file. A request is refused if the outcome of its
//! check is not `Admitted`.
//!
//! A separate thread writes the lines, at most [`LINES_PER_SECOND`]. Requests never wait for it:
//! lines beyond this rate, and lines for which its queue has no room, are counted and dropped.

use core::net::IpAddr;
use core::time::Duration;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use keytally::{FollowEvent, now};
use keytally::{KeyId, NamedQuota, Outcome, Reason, Timestamp, Unavailability, Verdict};
use prometheus::IntCounter;

use keytally_cli::internal::times;

/// The maximum number of entries that are written per second. If entries beyond it were dropped, a
/// line with their number follows.
const LINES_PER_SECOND: u64 = 20;

/// The length of the queue, in entries.
const QUEUE_LEN: usize = 256;

/// How long a shutdown waits for the last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The log of a service.
#[derive(Debug)]
pub(crate) struct Log {
    /// `None` only while the log is dropped.
    queue: Option<SyncSender<Entry>>,
    /// A channel without messages, disconnected when the thread has written all lines. The mutex
    /// makes the log `Sync`.
    finished: Mutex<Receiver<()>>,
    /// Counts all lines that were dropped.
    dropped: IntCounter,
}

/// An entry of the log.
#[derive(Debug)]
enum Entry {
    /// A refused request.
    Refusal(Refusal),
    /// A warning of a plan that a charge reached.
    Crossed(Crossed),
    /// An event of the gate file.
    Gate(String),
    /// A sentence on the list of keys.
    #[cfg(feature = "keys")]
    List(String),
}

/// A handle that logs events of the gate file, for threads that do not have the [`Log`].
#[derive(Debug)]
pub(crate) struct GateEventLog {
    queue: Option<SyncSender<Entry>>,
    dropped: IntCounter,
}

impl GateEventLog {
    /// Logs that the gate file was opened again, or why it could not be opened.
    pub(crate) fn log(&self, event: &FollowEvent<'_>) {
        enqueue(self.queue.as_ref(), Entry::Gate(event.to_string()), &self.dropped);
    }
}

impl GateEventLog {
    /// Logs whether the gate follows the list of keys.
    #[cfg(feature = "keys")]
    pub(crate) fn list(&self, sentence: &str) {
        enqueue(self.queue.as_ref(), Entry::List(sentence.to_owned()), &self.dropped);
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
    reason: Option<&'static str>,
    /// The key id and the account, if the verdict has a holder.
    holder: Option<(KeyId, u32)>,
    retry_after_s: Option<u32>,
    /// The client, if it is over the limit of invalid keys.
    guessing: Option<IpAddr>,
    /// Whether the service runs in shadow mode, which admits requests that it would refuse.
    shadow: bool,
}

/// A warning of a plan that a charge reached.
#[derive(Debug)]
struct Crossed {
    time: Timestamp,
    route: &'static str,
    /// The name of the quota in header fields, and the percentage of its limit.
    quota: String,
    percent: u8,
    /// The key id and the account.
    holder: Option<(KeyId, u32)>,
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

    /// Logs a request that was refused, or that would have been refused without shadow mode.
    /// `guessing` is the address of a client that is over the limit of invalid keys.
    pub(crate) fn refusal(
        &self,
        route: &'static str,
        verdict: &Verdict,
        reason: Option<&'static str>,
        retry_after_s: Option<u32>,
        guessing: Option<IpAddr>,
        shadow: bool,
    ) {
        let line = Refusal {
            time: verdict.now(),
            route,
            outcome: verdict.outcome(),
            reason,
            holder: verdict.holder().map(|holder| (holder.key_id, holder.account)),
            retry_after_s,
            guessing,
            shadow,
        };
        enqueue(self.queue.as_ref(), Entry::Refusal(line), &self.dropped);
    }

    /// Logs that the charge of a request reached a warning of its plan.
    pub(crate) fn crossed(
        &self,
        route: &'static str,
        verdict: &Verdict,
        quota: &NamedQuota<'_>,
        percent: u8,
    ) {
        let line = Crossed {
            time: verdict.now(),
            route,
            quota: quota.to_string(),
            percent,
            holder: verdict.holder().map(|holder| (holder.key_id, holder.account)),
        };
        enqueue(self.queue.as_ref(), Entry::Crossed(line), &self.dropped);
    }

    /// Returns a handle that logs events of the gate file.
    pub(crate) fn gate_event_log(&self) -> GateEventLog {
        GateEventLog { queue: self.queue.clone(), dropped: self.dropped.clone() }
    }
}

impl Drop for Log {
    /// Waits until the thread has written the queued lines, at most for [`FLUSH_TIMEOUT`]. The wait
    /// lasts that long if standard error blocks, or if a [`GateEventLog`] still exists.
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
            Self::Crossed(crossed) => crossed.text(),
            Self::Gate(sentence) => format!("{} gate {sentence}", times::rfc3339(now().unix_s())),
            #[cfg(feature = "keys")]
            Self::List(sentence) => format!("{} keys {sentence}", times::rfc3339(now().unix_s())),
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
        if let Some(client) = self.guessing {
            text += &format!(" client={client}");
        }
        text + &format!(" route={}", self.route)
    }
}

/// Returns why a key is invalid, or why the gate does not decide.
pub(crate) fn reason_of(verdict: &Verdict) -> Option<&'static str> {
    let unavailability = || verdict.unavailability().map(Unavailability::as_str);
    verdict.reason().map(Reason::as_str).or_else(unavailability)
}

impl Crossed {
    fn text(&self) -> String {
        let mut text = times::rfc3339(self.time.unix_s());
        text += &format!(" crossed quota={} percent={}", self.quota, self.percent);
        if let Some((key_id, account)) = self.holder {
            text += &format!(" key={key_id} account={account}");
        }
        text + &format!(" route={}", self.route)
    }
}

/// Writes entries until all senders of the channel are dropped.
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
    /// The current second, in Unix time.
    second: u64,
    written_in_second: u64,
    dropped_in_second: u64,
    dropped: IntCounter,
}

impl<W: Write> RateLimitedWriter<W> {
    fn new(out: W, dropped: IntCounter) -> Self {
        Self { out, second: 0, written_in_second: 0, dropped_in_second: 0, dropped }
    }

    fn write(&mut self, text: &str, second: u64) {
        self.start_second(second);
        if self.written_in_second < LINES_PER_SECOND {
            self.written_in_second += 1;
            // A write error is ignored: there is no other stream to report it on.
            let _ = writeln!(self.out, "{text}");
        } else {
            self.dropped_in_second += 1;
            self.dropped.inc();
        }
    }

    /// Makes `second` the current second. If it was not, writes the summary of the previous one and
    /// resets the counts.
    fn start_second(&mut self, second: u64) {
        if second != self.second {
            self.write_summary();
            self.second = second;
            self.written_in_second = 0;
        }
    }

    /// Writes how many lines were dropped in the current second, if any.
    fn write_summary(&mut self) {
        if self.dropped_in_second > 0 {
            let _ = writeln!(
                self.out,
                "{} dropped {} more lines in this second",
                times::rfc3339(self.second),
                self.dropped_in_second
            );
            self.dropped_in_second = 0;
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
        for (second, lines) in [(5, LINES_PER_SECOND + 3), (6, LINES_PER_SECOND)] {
            for number in 0..lines {
                log.write(&format!("{second}.{number}"), second);
            }
        }
        log.start_second(7);
        let text = String::from_utf8(log.out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        // Twenty lines of second 5, their summary, and twenty lines of second 6.
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
            reason: Some(Reason::Duplicate.as_str()),
            holder: None,
            retry_after_s: None,
            guessing: None,
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
        let guessed = Refusal { guessing: Some([192, 0, 2, 1].into()), ..line };
        assert_eq!(
            guessed.text(),
            "1970-01-01T00:00:00Z invalid_key reason=duplicate client=192.0.2.1 route=auth"
        );
        assert_eq!(
            denied.text(),
            "1970-01-01T00:00:00Z shadow denied key=00000000001 account=42 retry_after=7 route=auth"
        );
    }
}
