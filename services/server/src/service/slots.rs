//! Connection slots: how many connections are open at a time, and which are closed to make room or for lack of
//! progress.
//!
//! A connection makes progress when a complete request head arrives, or when output that its client had not read is
//! read to the end. All else, such as parts of a head, bodies, pings and settings, is none. So one rule covers idle
//! connections, slow heads, unread answers and peers that vanished, in HTTP/1 and HTTP/2 alike.

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

/// HTTP/2 connections at a time, since one can take the memory of twenty HTTP/1 connections.
pub(crate) const MAX_HTTP2: usize = 64;

/// How many calls of [`Slots::age`] without progress a connection survives.
pub(crate) const AGES: u32 = 8;

/// Returns how many connections that were displaced may not have ended yet, so that new ones need not wait for them.
pub(crate) const fn spare(total: usize) -> usize {
    total / 8 + 1
}

/// All connections of a listener.
#[derive(Debug)]
pub(crate) struct Slots {
    total: usize,
    /// Has a permit for each connection until it has ended, displaced or not.
    room: Arc<Semaphore>,
    http2_room: Arc<Semaphore>,
    per_network: usize,
    /// Counts the progress of all connections, which puts them in an order without a clock.
    turn: AtomicUsize,
    open: Mutex<Open>,
    /// Connections that were closed, by [`Reason`].
    closed: IntCounterVec,
}

#[derive(Debug, Default)]
struct Open {
    next_number: u64,
    connections: HashMap<u64, Entry>,
    by_network: HashMap<Network, usize>,
}

#[derive(Debug)]
struct Entry {
    progress: Arc<Progress>,
    /// The turn that the last call of [`Slots::age`] saw, and how many calls have seen it.
    seen: usize,
    ages: u32,
}

/// What a connection, its requests and its slot share.
#[derive(Debug, Default)]
struct Progress {
    turn: AtomicUsize,
    stalled: AtomicBool,
    /// Whether no input was waited for since the last request.
    pipelined: AtomicBool,
    http2: AtomicBool,
    /// Kept until all streams of the connection have ended.
    http2_permit: OnceLock<OwnedSemaphorePermit>,
    closing: Closing,
}

/// An event that happens once.
#[derive(Debug)]
struct Closing(Semaphore);

impl Default for Closing {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

impl Closing {
    fn begin(&self) {
        self.0.close();
    }

    async fn begun(&self) {
        // It has no permits: this waits until it is closed.
        let _ = self.0.acquire().await;
    }
}

/// Why the service closes a connection, as the metric names it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reason {
    /// Its client's network has as many connections as it may have.
    Address,
    /// Another connection needed its slot.
    Full,
    /// It made no progress in time.
    Timeout,
}

impl Reason {
    pub(crate) const ALL: [Self; 3] = [Self::Address, Self::Full, Self::Timeout];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Full => "full",
            Self::Timeout => "timeout",
        }
    }
}

impl Slots {
    /// Makes `total` slots, of which each network may have `per_network`.
    pub(crate) fn new(total: usize, per_network: usize, closed: IntCounterVec) -> Arc<Self> {
        let [room, http2_room] =
            [total + spare(total), MAX_HTTP2].map(|count| Arc::new(Semaphore::new(count)));
        let (turn, open) = (AtomicUsize::new(0), Mutex::default());
        Arc::new(Self { total, room, http2_room, per_network, turn, open, closed })
    }

    /// Takes a slot for a connection from `network`, or from a client that is not counted.
    ///
    /// If all are taken, closes the connection whose last progress is the oldest. Returns `None` if the network has
    /// as many connections as it may have.
    pub(crate) async fn take(self: &Arc<Self>, network: Option<Network>) -> Option<Slot> {
        let mut slot = self.enter(network)?;
        // The semaphore is never closed.
        slot.permit = Arc::clone(&self.room).acquire_owned().await.ok();
        Some(slot)
    }

    /// Takes a slot without waiting for displaced connections to end, for one that arrived before a stop.
    pub(crate) fn enter(self: &Arc<Self>, network: Option<Network>) -> Option<Slot> {
        let mut open = self.open();
        if let Some(network) = network {
            let count = open.by_network.entry(network).or_default();
            if *count >= self.per_network {
                self.count(Reason::Address);
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
        self.made_by(&progress);
        let seen = progress.turn.load(Ordering::Relaxed);
        open.connections.insert(number, Entry { progress: Arc::clone(&progress), seen, ages: 0 });
        Some(Slot { slots: Arc::clone(self), number, network, progress, permit: None })
    }

    /// Closes the connection whose last progress is the oldest.
    pub(crate) fn displace_oldest(&self) {
        self.displace(&mut self.open(), |_| true);
    }

    /// Closes the oldest of some connections, and forgets it, so that the next call finds another.
    fn displace(&self, open: &mut Open, among: impl Fn(&Progress) -> bool) {
        let some = open.connections.iter().filter(|(_, entry)| among(&entry.progress));
        let oldest = some.min_by_key(|(_, entry)| entry.progress.turn.load(Ordering::Relaxed));
        if let Some(number) = oldest.map(|(number, _)| *number)
            && let Some(entry) = open.connections.remove(&number)
        {
            entry.progress.closing.begin();
            self.count(Reason::Full);
        }
    }

    /// Closes the connections that have made no progress during the last [`AGES`] periods between calls.
    pub(crate) fn age(&self) {
        for entry in self.open().connections.values_mut() {
            let turn = entry.progress.turn.load(Ordering::Relaxed);
            entry.ages = if turn == entry.seen { entry.ages + 1 } else { 0 };
            entry.seen = turn;
            if entry.ages == AGES + 1 {
                entry.progress.closing.begin();
                self.count(Reason::Timeout);
            }
        }
    }

    fn made_by(&self, progress: &Progress) {
        if !progress.stalled.load(Ordering::Relaxed) {
            progress.turn.store(self.turn.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    fn count(&self, reason: Reason) {
        self.closed.with_label_values(&[reason.as_str()]).inc();
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The slot of a connection, free again when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    number: u64,
    network: Option<Network>,
    progress: Arc<Progress>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Slot {
    /// Returns the part that reports progress.
    pub(crate) fn reporter(&self) -> Reporter {
        Reporter { slots: Arc::clone(&self.slots), progress: Arc::clone(&self.progress) }
    }

    /// Waits until the connection must be closed.
    pub(crate) async fn must_close(&self) {
        self.progress.closing.begun().await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // For the streams of the connection.
        self.progress.closing.begin();
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
pub(crate) struct Reporter {
    slots: Arc<Slots>,
    progress: Arc<Progress>,
}

impl Reporter {
    /// A complete request head has arrived. Returns whether it was read together with the one before.
    pub(crate) fn request(&self) -> bool {
        self.slots.made_by(&self.progress);
        self.progress.pipelined.swap(true, Ordering::Relaxed)
    }

    /// Waits until the connection must be closed, or has ended.
    pub(crate) async fn must_close(&self) {
        self.progress.closing.begun().await;
    }

    /// The client speaks HTTP/2, which is progress. Waits for one of the slots for that; if all are taken, the
    /// connection of HTTP/2 whose last progress is the oldest is displaced.
    async fn http2(self) {
        self.slots.made_by(&self.progress);
        self.progress.http2.store(true, Ordering::Relaxed);
        self.displace_http2();
        // The semaphore is never closed.
        if let Ok(permit) = Arc::clone(&self.slots.http2_room).acquire_owned().await {
            // It is the only one.
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

    /// Output waits for the client to read, or no longer.
    fn stalled(&self, stalled: bool) {
        if self.progress.stalled.swap(stalled, Ordering::Relaxed) && !stalled {
            self.slots.made_by(&self.progress);
        }
    }
}

/// A stream that reports when its output stalls, and that waits for a slot of HTTP/2 if that is what it carries.
pub(crate) struct Watched<S> {
    stream: S,
    reporter: Reporter,
    protocol: Protocol,
}

/// What a client speaks.
enum Protocol {
    /// The first so many bytes are those of HTTP/2's preface.
    Unknown(usize),
    Http1,
    /// HTTP/2, without a slot yet.
    Waiting(Pin<Box<dyn Future<Output = ()> + Send>>),
    Http2,
}

impl Protocol {
    /// What tells it from HTTP/1, where no method begins so.
    const PREFACE: &[u8] = b"PRI";

    /// Learns from bytes that were received.
    fn learn(&mut self, bytes: &[u8], reporter: &Reporter) {
        for byte in bytes {
            let Self::Unknown(matched) = self else { return };
            if Self::PREFACE.get(*matched) != Some(byte) {
                *self = Self::Http1;
            } else if *matched + 1 < Self::PREFACE.len() {
                *matched += 1;
            } else {
                *self = Self::Waiting(Box::pin(reporter.clone().http2()));
            }
        }
    }
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, reporter: Reporter) -> Self {
        Self { stream, reporter, protocol: Protocol::Unknown(0) }
    }

    fn wrote<T>(&self, written: Poll<T>) -> Poll<T> {
        if written.is_pending() {
            self.reporter.stalled(true);
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
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
        protocol.learn(buffer.filled().get(before..).unwrap_or_default(), reporter);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Is called once everything is written, since hyper and h2 flush their own buffers first.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if let Poll::Ready(Ok(())) = flushed {
            self.reporter.stalled(false);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
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
        Some(Network::of([203, 0, 113, number].into()))
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    #[test]
    fn a_network_has_no_more_connections_than_it_may() {
        block_on(async {
            let slots = slots(10, 2);
            let first = slots.take(network(1)).await.unwrap();
            let _second = slots.take(network(1)).await.unwrap();
            assert!(slots.take(network(1)).await.is_none());
            assert_eq!(slots.closed.with_label_values(&["address"]).get(), 1);
            let others = [slots.take(network(2)).await, slots.take(None).await, slots.take(None).await];
            assert!(others.iter().all(Option::is_some) && slots.take(None).await.is_some());
            drop(first);
            assert!(slots.take(network(1)).await.is_some());
            drop(others);
            assert_eq!(slots.open().by_network.len(), 1);
        });
    }

    #[test]
    fn a_stalled_connection_makes_no_progress() {
        block_on(async {
            let slots = slots(2, 9);
            let stalled = slots.take(None).await.unwrap();
            let idle = slots.take(None).await.unwrap();
            stalled.reporter().stalled(true);
            idle.reporter().request();
            stalled.reporter().request();
            slots.displace_oldest();
            stalled.must_close().await;
            idle.reporter().stalled(true);
            idle.reporter().stalled(false);
            assert_eq!(slots.open().connections.len(), 1);
        });
    }

    #[test]
    fn new_connections_do_not_wait_for_displaced_ones() {
        block_on(async {
            let slots = slots(8, 99);
            let mut taken = Vec::new();
            for _ in 0..8 + spare(8) {
                taken.push(slots.take(None).await.unwrap());
            }
            taken[0].must_close().await;
            taken[1].must_close().await;
            assert_eq!(slots.open().connections.len(), 8);
            // The bound itself holds: the next one waits for the end of one.
            assert!(timeout(Duration::from_millis(10), slots.take(None)).await.is_err());
            drop(taken.swap_remove(0));
            assert!(slots.take(None).await.is_some());
        });
    }

    #[test]
    fn connections_close_after_eight_ages_without_progress() {
        let slots = slots(2, 9);
        let [idle, busy] = [(); 2].map(|()| slots.enter(None).unwrap());
        for age in 0..=2 * AGES {
            let timeouts = slots.closed.with_label_values(&["timeout"]).get();
            assert_eq!(timeouts, u64::from(age > AGES), "{age}");
            busy.reporter().request();
            slots.age();
        }
        block_on(idle.must_close());
    }

    #[test]
    fn only_the_preface_of_http2_waits_for_its_slots() {
        let slots = slots(2, 9);
        let slot = slots.enter(None).unwrap();
        let learned = |parts: &[&[u8]]| {
            let mut protocol = Protocol::Unknown(0);
            for part in parts {
                protocol.learn(part, &slot.reporter());
            }
            protocol
        };
        assert!(matches!(learned(&[b"PRI * HTTP/2.0"]), Protocol::Waiting(_)));
        assert!(matches!(learned(&[b"P", b"", b"RI"]), Protocol::Waiting(_)));
        assert!(matches!(learned(&[b"PR"]), Protocol::Unknown(2)));
        assert!(matches!(learned(&[b"P", b"OST / HTTP/1.1"]), Protocol::Http1));
        assert!(matches!(learned(&[b"PROPFIND"]), Protocol::Http1));
    }
}
