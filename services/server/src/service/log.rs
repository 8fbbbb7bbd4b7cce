//! The log: a line on standard error for every request that the gate refuses, as many as are worth reading, and for every
//! time that the gate's file is replaced.
//!
//! Lines are written by a thread of their own. No request ever waits for it: what doesn't fit its queue is counted
//! and lost.

use core::time::Duration;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use keytally::{FollowEvent, now};
use keytally::{KeyId, Outcome, Reason, Timestamp, Verdict};
use prometheus::IntCounter;

use keytally_cli::times;

/// Lines that are written in a second; a flood of refused requests is summed up in one more.
const LINES_PER_SECOND: u64 = 20;

/// Lines that wait to be written.
const QUEUE: usize = 256;

/// How long the end of the service waits for the last lines.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(1);

/// The log of a service.
#[derive(Debug)]
pub(crate) struct Log {
    queue: Option<SyncSender<Entry>>,
    /// Closed once the thread has written everything.
    written: Mutex<Receiver<()>>,
    lost: IntCounter,
}

/// What a line is of.
#[derive(Debug)]
enum Entry {
    Refusal(Line),
    Gate(String),
}

/// Where what happens to the gate is logged, by threads that do not have the log.
#[derive(Debug)]
pub(crate) struct Events {
    queue: Option<SyncSender<Entry>>,
    lost: IntCounter,
}

impl Events {
    /// Logs that the gate's file was replaced, or why the new one is not in force.
    pub(crate) fn gate(&self, event: &FollowEvent<'_>) {
        queue(self.queue.as_ref(), Entry::Gate(event.to_string()), &self.lost);
    }
}

/// Puts a line where the thread that writes gets it, or counts it as lost.
fn queue(queue: Option<&SyncSender<Entry>>, entry: Entry, lost: &IntCounter) {
    if queue.is_none_or(|queue| queue.try_send(entry).is_err()) {
        lost.inc();
    }
}

#[derive(Debug)]
struct Line {
    time: Timestamp,
    route: &'static str,
    outcome: Outcome,
    reason: Option<Reason>,
    holder: Option<(KeyId, u32)>,
    retry_after_s: Option<u32>,
    shadow: bool,
}

impl Log {
    /// Starts the thread that writes. Lines that are lost are counted in `lost`.
    pub(crate) fn start(lost: IntCounter) -> io::Result<Self> {
        let (queue, lines) = sync_channel(QUEUE);
        let (writing, written) = sync_channel(0);
        let mut out = Bounded::new(io::stderr(), lost.clone());
        thread::Builder::new().name("log".to_owned()).spawn(move || {
            write_lines(&lines, &mut out);
            drop(writing);
        })?;
        Ok(Self { queue: Some(queue), written: Mutex::new(written), lost })
    }

    /// Logs that a request was refused for this verdict, or in shadow mode would have been, and for how long.
    pub(crate) fn refusal(
        &self,
        route: &'static str,
        verdict: &Verdict,
        retry_after_s: Option<u32>,
        shadow: bool,
    ) {
        let line = Line {
            time: verdict.now(),
            route,
            outcome: verdict.outcome(),
            reason: verdict.reason(),
            holder: verdict.holder().map(|holder| (holder.key_id, holder.account)),
            retry_after_s,
            shadow,
        };
        queue(self.queue.as_ref(), Entry::Refusal(line), &self.lost);
    }

    /// For what happens to the gate.
    pub(crate) fn events(&self) -> Events {
        Events { queue: self.queue.clone(), lost: self.lost.clone() }
    }
}

impl Drop for Log {
    /// Lets the thread write what is queued, unless whoever reads it has stopped.
    fn drop(&mut self) {
        self.queue = None;
        let written = self.written.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = written.recv_timeout(LAST_WORDS_WITHIN);
    }
}

impl Entry {
    fn text(&self) -> String {
        match self {
            Self::Refusal(line) => line.text(),
            Self::Gate(sentence) => format!("{} gate {sentence}", times::rfc3339(now().unix_s())),
        }
    }
}

impl Line {
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

fn write_lines(lines: &Receiver<Entry>, out: &mut Bounded<impl Write>) {
    loop {
        match lines.recv_timeout(Duration::from_secs(1)) {
            Ok(line) => out.write(&line.text(), now().unix_s()),
            Err(RecvTimeoutError::Timeout) => out.begin(now().unix_s()),
            Err(RecvTimeoutError::Disconnected) => return out.sum_up(),
        }
    }
}

/// Writes a bounded number of lines a second, and how many there were besides.
struct Bounded<W> {
    out: W,
    second: u64,
    written: u64,
    lost: u64,
    counter: IntCounter,
}

impl<W: Write> Bounded<W> {
    fn new(out: W, counter: IntCounter) -> Self {
        Self { out, second: 0, written: 0, lost: 0, counter }
    }

    fn write(&mut self, text: &str, second: u64) {
        self.begin(second);
        if self.written < LINES_PER_SECOND {
            self.written += 1;
            // Where standard error is closed there is nobody to tell.
            let _ = writeln!(self.out, "{text}");
        } else {
            self.lost += 1;
            self.counter.inc();
        }
    }

    /// Begins another second, if it is another.
    fn begin(&mut self, second: u64) {
        if second != self.second {
            self.sum_up();
            self.second = second;
            self.written = 0;
        }
    }

    fn sum_up(&mut self) {
        if self.lost > 0 {
            let _ =
                writeln!(self.out, "{} and {} more in that second", times::rfc3339(self.second), self.lost);
            self.lost = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_summed_up() {
        let counter = IntCounter::new("lost", "lost").unwrap();
        let mut log = Bounded::new(Vec::new(), counter.clone());
        for second in [5, 6] {
            for number in 0..LINES_PER_SECOND + 3 * (6 - second) {
                log.write(&format!("{second}.{number}"), second);
            }
        }
        log.begin(7);
        let text = String::from_utf8(log.out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 41);
        assert_eq!(lines[19], "5.19");
        assert_eq!(lines[20], "1970-01-01T00:00:05Z and 3 more in that second");
        assert_eq!(lines[40], "6.19");
        assert_eq!(counter.get(), 3);
    }

    #[test]
    fn a_line_says_why() {
        let time = Timestamp::from_unix_s(0);
        let line = Line {
            time,
            route: "auth",
            outcome: Outcome::InvalidKey,
            reason: Some(Reason::Duplicate),
            holder: None,
            retry_after_s: None,
            shadow: false,
        };
        assert_eq!(line.text(), "1970-01-01T00:00:00Z invalid_key reason=duplicate route=auth");
        let denied = Line {
            outcome: Outcome::Denied,
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
