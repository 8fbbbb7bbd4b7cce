//! What the agent needs of its machine: the fleet file and the gate or limiter.

use core::time::Duration;
use std::path::Path;

use keytally::{FleetFile, FleetLimiterInfo, FleetSubject};
use keytally_core::sync::AtomicU64;
use keytally_fleet_plan::credit::CreditLayout;
use keytally_fleet_plan::layout::{PageWord, WantedBits};
use keytally_fleet_plan::words::TallyWords;

/// The memory that a machine's processes share, and the gate or limiter that it belongs to.
pub trait Machine {
    /// Returns a word of the page.
    fn page(&self, word: PageWord) -> &AtomicU64;

    /// Returns the number of tallies of the file.
    fn tallies(&self) -> u32;

    /// Returns the tallies that want credits.
    fn wanted(&self) -> WantedBits<'_>;

    /// Returns the five words of a tally; `None` if there is no such tally.
    fn words(&self, tally: u32) -> Option<TallyWords<'_>>;

    /// Returns the word that names the key, team or subject to which the words of a tally belong: a
    /// 64-bit hash, 0 for none.
    fn owner(&self, tally: u32) -> Option<&AtomicU64>;

    /// Returns what the gate has at a tally now: `None` if it has no key or team, or if the section
    /// is unlimited.
    fn subject(&self, tally: u32) -> Option<Subject>;

    /// Returns what the table has at a tally for the windows of `now_ms`, as
    /// [`subject`](Self::subject) does. The agent leases only for that.
    fn subject_at(&self, tally: u32, _now_ms: u64) -> Option<Subject> {
        self.subject(tally)
    }

    /// Returns the limiter whose tallies these are, which must be equal on all machines; `None` for
    /// a gate. The tallies of a limiter are given to other subjects when their windows have passed.
    fn limiter(&self) -> Option<FleetLimiterInfo> {
        None
    }

    /// Returns the path of the memory, for messages; `None` if it has none.
    fn path(&self) -> Option<&Path> {
        None
    }

    /// Writes what identifies the memory, which may have been overwritten by that of another
    /// machine.
    fn identify(&self) {}

    /// Sleeps until a request rings, at most this long.
    fn sleep(&self, at_most: Duration);

    /// Wakes the requests that wait for grants.
    fn wake(&self);

    /// Ends the agent's [`sleep`](Self::sleep), as a request does. If it does nothing, the agent
    /// sees a message of the store up to 50 ms later.
    fn ring(&self) {}
}

/// The key, team or other subject whose uses a tally counts.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its part of the store's key names, `SUBJECT:SECTION`: the key's id and the section, such as
    /// `0Gk3Xb…:key` or `0Gk3Xb…:group.search`, or `team.12:team`.
    pub name: String,
    /// The hash that stands in the owner word.
    pub owner: u64,
    /// The windows and the limits that they have now.
    pub layout: CreditLayout,
}

impl From<FleetSubject> for Subject {
    fn from(FleetSubject { name, owner, layout, .. }: FleetSubject) -> Self {
        Self { name, owner, layout }
    }
}

impl Machine for FleetFile<'_> {
    fn page(&self, word: PageWord) -> &AtomicU64 {
        self.page(word)
    }

    fn tallies(&self) -> u32 {
        self.tallies()
    }

    fn wanted(&self) -> WantedBits<'_> {
        self.wanted()
    }

    fn words(&self, tally: u32) -> Option<TallyWords<'_>> {
        self.words(tally)
    }

    fn owner(&self, tally: u32) -> Option<&AtomicU64> {
        self.owner(tally)
    }

    fn subject(&self, tally: u32) -> Option<Subject> {
        self.subject(tally).map(Subject::from)
    }

    fn subject_at(&self, tally: u32, now_ms: u64) -> Option<Subject> {
        self.subject_at(tally, now_ms).map(Subject::from)
    }

    fn limiter(&self) -> Option<FleetLimiterInfo> {
        self.table().limiter()
    }

    fn path(&self) -> Option<&Path> {
        Some(self.path())
    }

    fn identify(&self) {
        self.identify();
    }

    fn sleep(&self, at_most: Duration) {
        self.sleep(at_most);
    }

    fn wake(&self) {
        self.wake();
    }

    fn ring(&self) {
        self.ring();
    }
}
