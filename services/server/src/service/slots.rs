//! Connection slots: limit the number of open connections, and close those that make no progress.
//!
//! A connection makes progress when a complete request head arrives, or when its client has read
//! all output that had stalled. Nothing else counts, such as parts of a head, bodies, pings and
//! settings. One rule thus covers idle connections, slow heads, unread responses and vanished
//! peers, in HTTP/1 and in HTTP/2.

#![expect(clippy::disallowed_types, reason = "counts of connections, not of a table")]

use alloc::sync::Arc;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::task::{Context, Poll, ready};
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use prometheus::IntCounterVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::address::Network;

/// The maximum number of HTTP/2 connections. One can take the memory of twenty HTTP/1 connections.
pub(crate) const MAX_HTTP2: usize = 64;

/// The number of calls of [`Slots::age`] per client timeout. A connection without progress stays
/// open for this many calls, and the next call closes it.
pub(crate) const AGES: u32 = 8;

/// Returns how many displaced connections may still be ending when a new connection takes a slot.
/// With more, the new connection waits.
pub(crate) const fn spare(total: usize) -> usize {
    total / 8 + 1
}

/// The connections of an endpoint.
#[derive(Debug)]
pub(crate) struct Slots {
    /// The maximum number of open connections.
    total: usize,
    /// Each connection holds a permit until it has ended, displaced or not.
    room: Arc<Semaphore>,
    /// Each HTTP/2 connection holds a permit until its streams have ended.
    http2_room: Arc<Semaphore>,
    /// The maximum number of open connections of a network.
    per_network: usize,
    /// A logical clock that counts the progress of all connections, and so orders them.
    clock: AtomicUsize,
    open: Mutex<Open>,
    /// Connections that were closed, by [`CloseReason`].
    closed: IntCounterVec,
}

/// The open connections. Displaced ones are not among them.
#[derive(Debug, Default)]
struct Open {
    next_number: u64,
    /// The connections by number. Numbers are not reused.
    connections: HashMap<u64, Entry>,
    by_network: HashMap<Network, usize>,
}

/// An open connection.
#[derive(Debug)]
struct Entry {
    progress: Arc<Progress>,
    /// The value of [`Progress::last`] at the last call of [`Slots::age`].
    seen: usize,
    /// The number of successive calls of [`Slots::age`] that found no progress.
    ages: u32,
}

/// The state that a connection, its requests and its slot share.
#[derive(Debug, Default)]
struct Progress {
    /// The time of the last progress, by the logical clock of the slots.
    last: AtomicUsize,
    /// Whether output waits for the client to read.
    stalled: AtomicBool,
    /// Whether a request has arrived since the connection last waited for input.
    pipelined: AtomicBool,
    http2: AtomicBool,
    /// Held until all streams of the connection have ended.
    http2_permit: OnceLock<OwnedSemaphorePermit>,
    /// Set when the connection must be closed, and when it has ended.
    close: OneShotEvent,
}

/// An event that happens once.
#[derive(Debug)]
struct OneShotEvent(Semaphore);

impl Default for OneShotEvent {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

impl OneShotEvent {
    fn set(&self) {
        self.0.close();
    }

    async fn wait(&self) {
        // The semaphore has no permits, so this waits until it is closed.
        let _ = self.0.acquire().await;
    }
}

/// The reason why the service closes a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CloseReason {
    /// The client's network has its maximum number of connections.
    Address,
    /// Another connection needed its slot.
    Full,
    /// It made no progress in time.
    Timeout,
}

impl CloseReason {
    pub(crate) const ALL: [Self; 3] = [Self::Address, Self::Full, Self::Timeout];

    /// Returns the label of the metric.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Full => "full",
            Self::Timeout => "timeout",
        }
    }
}

impl Slots {
    /// Returns `total` slots, of which each network can take `per_network`.
    pub(crate) fn new(total: usize, per_network: usize, closed: IntCounterVec) -> Arc<Self> {
        let [room, http2_room] =
            [total + spare(total), MAX_HTTP2].map(|count| Arc::new(Semaphore::new(count)));
        let (clock, open) = (AtomicUsize::new(0), Mutex::default());
        Arc::new(Self { total, room, http2_room, per_network, clock, open, closed })
    }

    /// Takes a slot for a connection from `network`; `None` has no limit of its own.
    ///
    /// If all slots are taken, displaces the connection whose last progress is the oldest. Returns
    /// `None` if the network has its maximum number of connections.
    pub(crate) async fn take(self: &Arc<Self>, network: Option<Network>) -> Option<Slot> {
        let mut slot = self.take_now(network)?;
        // The semaphore is never closed.
        slot.permit = Arc::clone(&self.room).acquire_owned().await.ok();
        Some(slot)
    }

    /// Takes a slot without waiting for displaced connections to end.
    ///
    /// A shutdown calls this directly for connections that the kernel had already accepted.
    pub(crate) fn take_now(self: &Arc<Self>, network: Option<Network>) -> Option<Slot> {
        let mut open = self.open();
        if let Some(network) = network {
            let count = open.by_network.entry(network).or_default();
            if *count >= self.per_network {
                self.count(CloseReason::Address);
                return None;
            }
            *count += 1;
        }
        if open.connections.len() >= self.total {
            self.displace(&mut open, |_| true);
        }
        let number = open.next_number;
        open.next_number += 1;
        let progress = Arc::new(Progress::default());
        self.record_progress(&progress);
        let seen = progress.last.load(Ordering::Relaxed);
        open.connections.insert(number, Entry { progress: Arc::clone(&progress), seen, ages: 0 });
        Some(Slot { slots: Arc::clone(self), number, network, progress, permit: None })
    }

    /// Closes the connection whose last progress is the oldest.
    pub(crate) fn displace_oldest(&self) {
        self.displace(&mut self.open(), |_| true);
    }

    /// Closes and removes the connection, among those that `eligible` accepts, whose last progress
    /// is the oldest.
    fn displace(&self, open: &mut Open, eligible: impl Fn(&Progress) -> bool) {
        let candidates = open.connections.iter().filter(|(_, entry)| eligible(&entry.progress));
        let oldest =
            candidates.min_by_key(|(_, entry)| entry.progress.last.load(Ordering::Relaxed));
        if let Some(number) = oldest.map(|(number, _)| *number)
            && let Some(entry) = open.connections.remove(&number)
        {
            entry.progress.close.set();
            self.count(CloseReason::Full);
        }
    }

    /// Closes the connections that made no progress during the last [`AGES`] intervals between
    /// calls.
    pub(crate) fn age(&self) {
        for entry in self.open().connections.values_mut() {
            let last = entry.progress.last.load(Ordering::Relaxed);
            entry.ages = if last == entry.seen { entry.ages + 1 } else { 0 };
            entry.seen = last;
            if entry.ages == AGES + 1 {
                entry.progress.close.set();
                self.count(CloseReason::Timeout);
            }
        }
    }

    /// Records progress, unless output has stalled.
    fn record_progress(&self, progress: &Progress) {
        if !progress.stalled.load(Ordering::Relaxed) {
            progress.last.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    fn count(&self, reason: CloseReason) {
        self.closed.with_label_values(&[reason.as_str()]).inc();
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The slot of a connection. Dropping it frees the slot.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    number: u64,
    network: Option<Network>,
    progress: Arc<Progress>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Slot {
    /// Returns a reporter of the connection's progress.
    pub(crate) fn reporter(&self) -> ProgressReporter {
        ProgressReporter { slots: Arc::clone(&self.slots), progress: Arc::clone(&self.progress) }
    }

    /// Waits until the connection must be closed.
    pub(crate) async fn wait_for_close(&self) {
        self.progress.close.wait().await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Ends the streams of the connection.
        self.progress.close.set();
        let mut open = self.slots.open();
        open.connections.remove(&self.number);
        if let Some(network) = self.network
            && let Some(count) = open.by_network.get_mut(&network)
        {
            *count -= 1;
            if *count == 0 {
                open.by_network.remove(&network);
            }
        }
    }
}

/// Reports the progress of a connection.
#[derive(Clone, Debug)]
pub(crate) struct ProgressReporter {
    slots: Arc<Slots>,
    progress: Arc<Progress>,
}

impl ProgressReporter {
    /// Reports a complete request head. Returns whether it was read together with the previous one.
    pub(crate) fn report_request(&self) -> bool {
        self.slots.record_progress(&self.progress);
        self.progress.pipelined.swap(true, Ordering::Relaxed)
    }

    /// Waits until the connection must be closed, or has ended.
    pub(crate) async fn wait_for_close(&self) {
        self.progress.close.wait().await;
    }

    /// Reports that the client uses HTTP/2, which is progress, and waits for a slot of HTTP/2.
    ///
    /// If all slots of HTTP/2 are taken, displaces the HTTP/2 connection whose last progress is the
    /// oldest.
    async fn report_http2(self) {
        self.slots.record_progress(&self.progress);
        self.progress.http2.store(true, Ordering::Relaxed);
        self.displace_http2();
        // The semaphore is never closed.
        if let Ok(permit) = Arc::clone(&self.slots.http2_room).acquire_owned().await {
            // This is called once per connection.
            let _ = self.progress.http2_permit.set(permit);
        }
    }

    fn displace_http2(&self) {
        let http2 = |progress: &Progress| progress.http2.load(Ordering::Relaxed);
        let mut open = self.slots.open();
        if open.connections.values().filter(|entry| http2(&entry.progress)).count() > MAX_HTTP2 {
            self.slots.displace(&mut open, http2);
        }
    }

    /// Reports whether output waits for the client to read.
    fn set_stalled(&self, stalled: bool) {
        if self.progress.stalled.swap(stalled, Ordering::Relaxed) && !stalled {
            self.slots.record_progress(&self.progress);
        }
    }
}

/// A stream that reports when its output stalls and, if it carries HTTP/2, waits for a slot of
/// HTTP/2.
pub(crate) struct MonitoredStream<S> {
    stream: S,
    reporter: ProgressReporter,
    protocol: Protocol,
}

/// The protocol of a client.
enum Protocol {
    /// Unknown: this many bytes matched the preface of HTTP/2.
    Unknown(usize),
    Http1,
    /// HTTP/2, waiting for a slot.
    Waiting(Pin<Box<dyn Future<Output = ()> + Send>>),
    Http2,
}

impl Protocol {
    /// The first bytes of the preface of HTTP/2. No method of HTTP/1 begins with them.
    const PREFACE: &[u8] = b"PRI";

    /// Updates the protocol from received bytes.
    fn detect(&mut self, bytes: &[u8], reporter: &ProgressReporter) {
        for byte in bytes {
            let Self::Unknown(matched) = self else { return };
            if Self::PREFACE.get(*matched) != Some(byte) {
                *self = Self::Http1;
            } else if *matched + 1 < Self::PREFACE.len() {
                *matched += 1;
            } else {
                *self = Self::Waiting(Box::pin(reporter.clone().report_http2()));
            }
        }
    }
}

impl<S> MonitoredStream<S> {
    pub(crate) fn new(stream: S, reporter: ProgressReporter) -> Self {
        Self { stream, reporter, protocol: Protocol::Unknown(0) }
    }

    /// Reports a stall if the write is pending.
    fn report_write<T>(&self, written: Poll<T>) -> Poll<T> {
        if written.is_pending() {
            self.reporter.set_stalled(true);
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MonitoredStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Protocol::Waiting(slot) = &mut self.protocol {
            ready!(slot.as_mut().poll(context));
            self.protocol = Protocol::Http2;
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_pending() {
            self.reporter.progress.pipelined.store(false, Ordering::Relaxed);
        }
        let Self { protocol, reporter, .. } = &mut *self;
        protocol.detect(buffer.filled().get(before..).unwrap_or_default(), reporter);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MonitoredStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.report_write(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.report_write(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Called after all output was written: hyper and h2 flush their own buffers first.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if let Poll::Ready(Ok(())) = flushed {
            self.reporter.set_stalled(false);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;
    use core::time::Duration;

    use prometheus::Opts;
    use tokio::runtime::Builder;
    use tokio::time::timeout;

    use super::*;

    fn slots(total: usize, per_network: usize) -> Arc<Slots> {
        let closed = IntCounterVec::new(Opts::new("closed", "closed"), &["reason"]).unwrap();
        Slots::new(total, per_network, closed)
    }

    fn network(number: u8) -> Option<Network> {
        Some(IpAddr::from([203, 0, 113, number]).into())
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    #[test]
    fn connections_of_a_network_are_limited() {
        block_on(async {
            let slots = slots(10, 2);
            let first = slots.take(network(1)).await.unwrap();
            let _second = slots.take(network(1)).await.unwrap();
            assert!(slots.take(network(1)).await.is_none());
            assert_eq!(slots.closed.with_label_values(&["address"]).get(), 1);
            let others =
                [slots.take(network(2)).await, slots.take(None).await, slots.take(None).await];
            assert!(others.iter().all(Option::is_some) && slots.take(None).await.is_some());
            drop(first);
            assert!(slots.take(network(1)).await.is_some());
            drop(others);
            assert_eq!(slots.open().by_network.len(), 1);
        });
    }

    #[test]
    fn stalled_connection_makes_no_progress() {
        block_on(async {
            let slots = slots(2, 9);
            let stalled = slots.take(None).await.unwrap();
            let idle = slots.take(None).await.unwrap();
            stalled.reporter().set_stalled(true);
            idle.reporter().report_request();
            stalled.reporter().report_request();
            slots.displace_oldest();
            stalled.wait_for_close().await;
            idle.reporter().set_stalled(true);
            idle.reporter().set_stalled(false);
            assert_eq!(slots.open().connections.len(), 1);
        });
    }

    #[test]
    fn new_connection_does_not_wait_for_displaced_ones() {
        block_on(async {
            let slots = slots(8, 99);
            let mut taken = Vec::new();
            for _ in 0..8 + spare(8) {
                taken.push(slots.take(None).await.unwrap());
            }
            taken[0].wait_for_close().await;
            taken[1].wait_for_close().await;
            assert_eq!(slots.open().connections.len(), 8);
            // The limit holds: the next connection waits until one has ended.
            assert!(timeout(Duration::from_millis(10), slots.take(None)).await.is_err());
            drop(taken.swap_remove(0));
            assert!(slots.take(None).await.is_some());
        });
    }

    #[test]
    fn connection_without_progress_closes_after_the_timeout() {
        let slots = slots(2, 9);
        let [idle, busy] = [(); 2].map(|()| slots.take_now(None).unwrap());
        for age in 0..=2 * AGES {
            let timeouts = slots.closed.with_label_values(&["timeout"]).get();
            assert_eq!(timeouts, u64::from(age > AGES), "{age}");
            busy.reporter().report_request();
            slots.age();
        }
        block_on(idle.wait_for_close());
    }

    #[test]
    fn only_the_http2_preface_waits_for_an_http2_slot() {
        let slots = slots(2, 9);
        let slot = slots.take_now(None).unwrap();
        let detected = |parts: &[&[u8]]| {
            let mut protocol = Protocol::Unknown(0);
            for part in parts {
                protocol.detect(part, &slot.reporter());
            }
            protocol
        };
        assert!(matches!(detected(&[b"PRI * HTTP/2.0"]), Protocol::Waiting(_)));
        assert!(matches!(detected(&[b"P", b"", b"RI"]), Protocol::Waiting(_)));
        assert!(matches!(detected(&[b"PR"]), Protocol::Unknown(2)));
        assert!(matches!(detected(&[b"P", b"OST / HTTP/1.1"]), Protocol::Http1));
        assert!(matches!(detected(&[b"PROPFIND"]), Protocol::Http1));
    }
}
