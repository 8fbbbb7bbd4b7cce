//! Lease requests, and the store's replies. The store's script `lease.lua` takes and returns these
//! numbers.

use keytally_core::MAX_QUOTAS;

use crate::credit::{Span, Units};

/// The store's script, which applies one lease request. Its first lines document its arguments.
pub const LEASE_SCRIPT: &str = include_str!("../lease.lua");

/// The most machines from which the script recalls units for one lease request, those with the
/// largest holdings.
pub const MOST_RECALLS: u32 = 64;

/// A lease request for all windows of one tally.
///
/// It states absolute numbers: what the machine holds, and what it wants to hold. So a request that
/// is lost, repeated or late changes nothing that the next one does not repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseRequest {
    /// The number of the request, below [`NUMBERS`](crate::meta::NUMBERS).
    pub number: u32,
    /// The time whose windows it is about, in Unix milliseconds.
    pub at_ms: u64,
    /// What each window requests. Those past `len` have no meaning.
    pub windows: [WindowRequest; MAX_QUOTAS],
    /// The number of windows.
    pub len: usize,
}

/// The part of a lease request for one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct WindowRequest {
    /// The most units that all machines together may hold.
    pub limit: u32,
    /// The units that the machine holds, with those of `unreserved`.
    pub hold: u32,
    /// The units that it admitted without credits and that no reply has confirmed, at most `hold`.
    pub unreserved: u32,
    /// The units that it wants to hold, at least `hold`.
    pub want: u32,
    /// The first moment of the window, in Unix milliseconds.
    pub begin_ms: u64,
    /// The first moment after it, in Unix milliseconds.
    pub end_ms: u64,
}

impl LeaseRequest {
    /// Returns the requests of the windows, shortest first.
    pub fn windows(&self) -> &[WindowRequest] {
        &self.windows[..self.len.min(MAX_QUOTAS)]
    }

    /// Returns the window of one request.
    pub fn span(&self, index: usize) -> Option<Span> {
        let window = self.windows().get(index)?;
        Some(Span { begin_ms: window.begin_ms, end_ms: window.end_ms })
    }

    /// Returns the units of each window that were admitted without credits.
    pub fn unreserved(&self) -> Units {
        self.windows.map(|window| window.unreserved)
    }
}

/// The store's reply to a lease request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reply {
    /// The store's time when it applied the request, in Unix milliseconds.
    pub store_ms: u64,
    /// The reply for each window of the request.
    pub windows: [WindowReply; MAX_QUOTAS],
}

/// The part of a reply for one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct WindowReply {
    /// The units that the machine holds now.
    pub held: u32,
    /// The units that no machine holds.
    pub left: u32,
    /// How many machines have requested units of this window; [`WINDOW_REFUSED`] or
    /// [`NUMBER_REFUSED`] if the store did not apply the request.
    pub machines: i32,
}

/// By the store's clock, the window is over or has not begun.
pub const WINDOW_REFUSED: i32 = 0;

/// The store has seen a newer number of this machine. If the reply is to the open request, two
/// machines have one name.
pub const NUMBER_REFUSED: i32 = -1;
