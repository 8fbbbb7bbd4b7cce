//! Receives the store's messages: that other machines need idle units, that the store forgot some,
//! and that keys were written.

use core::time::Duration;
use std::sync::mpsc::{SyncSender, TrySendError};

use keytally_core::sync::{AtomicU64, Ordering};
use redis::PubSub;

use crate::address::Endpoint;
use crate::clock::Steady;
use crate::config::FleetConfig;
use crate::connection::{Access, Connection, explained};
use crate::counters::add;
use crate::error::FleetError;
use crate::names::{channels, keys_channel};
use crate::store::find;

/// The most messages that wait for the agent.
pub const MESSAGES: usize = 65_536;

/// A message for the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// Other machines need the idle units of the window with this key.
    Recall(String),
    /// The store has forgotten units of the window with this key.
    Again(String),
    /// Messages may have been lost, so all holdings must be stated again.
    Missed,
}

/// How long a read waits, so that the thread sees that it must stop.
const READ: Duration = Duration::from_millis(100);

/// After this long without a message, the connection is tested.
const TEST: Duration = Duration::from_millis(500);

/// The shortest and the longest pause before a further connection.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

/// Receives messages until the agent stops, and connects again whenever it must.
pub(crate) struct Subscriber<'s> {
    pub(crate) config: &'s FleetConfig,
    /// The machine's name, which may change.
    pub(crate) name: &'s AtomicU64,
    /// Not 0 if the agent stops.
    pub(crate) stop: &'s AtomicU64,
    pub(crate) messages: SyncSender<Message>,
    /// Counts the messages that keys were written.
    pub(crate) key_messages: &'s AtomicU64,
}

impl Subscriber<'_> {
    /// Runs until the agent stops. Calls `ring` after each message.
    pub(crate) fn run(&self, ring: impl Fn()) {
        let mut pause = PAUSES[0];
        let mut is_first = true;
        // A message that the full queue had no room for.
        let mut has_missed = false;
        while !self.is_stopped() {
            let name = self.name.load(Ordering::Acquire);
            if name != 0 {
                let since = Steady::start();
                let _ = self.receive(name, &mut is_first, &mut has_missed, &ring);
                pause = if since.elapsed() > PAUSES[1] { PAUSES[0] } else { pause };
            }
            let since = Steady::start();
            while since.elapsed() < pause && !self.is_stopped() {
                std::thread::sleep(PAUSES[0]);
            }
            pause = (2 * pause).min(PAUSES[1]);
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire) != 0
    }

    /// Subscribes, and receives until the connection breaks, the machine's name changes, or the
    /// agent stops.
    fn receive(
        &self,
        name: u64,
        is_first: &mut bool,
        has_missed: &mut bool,
        ring: impl Fn(),
    ) -> Result<(), FleetError> {
        let endpoint = find(&self.config.store)?;
        let access = Access::of_servers(&self.config.store)?;
        let mut connection = Connection::open(&endpoint, &access)?;
        let prefix = channels(&self.config.name);
        let own = format!("{prefix}:recall:{}", crate::names::machine(name));
        let keys = keys_channel(&self.config.name);
        let channels = [own.clone(), format!("{prefix}:again"), keys.clone()];
        let mut messages = connection.subscribe(&channels, READ)?;
        *has_missed |= !core::mem::take(is_first);
        let mut heard = Steady::start();
        while !self.is_stopped() && self.name.load(Ordering::Acquire) == name {
            if *has_missed {
                *has_missed = self.send(Message::Missed);
                ring();
            }
            match messages.get_message() {
                Ok(message) => {
                    heard = Steady::start();
                    if message.get_channel_name() == keys {
                        add(self.key_messages, 1);
                        continue;
                    }
                    let Ok(key) = message.get_payload::<String>() else { continue };
                    let is_recall = message.get_channel_name() == own;
                    let read = if is_recall { Message::Recall(key) } else { Message::Again(key) };
                    *has_missed |= self.send(read);
                    ring();
                }
                Err(error) if error.is_timeout() => {
                    if heard.elapsed() >= TEST {
                        test(&mut messages, &endpoint)?;
                        heard = Steady::start();
                    }
                }
                Err(error) => return Err(explained(&endpoint, &error)),
            }
        }
        Ok(())
    }

    /// Passes a message to the agent. Returns whether there was no room.
    fn send(&self, message: Message) -> bool {
        matches!(self.messages.try_send(message), Err(TrySendError::Full(_)))
    }
}

/// Fails if the server does not answer.
fn test(messages: &mut PubSub<'_>, endpoint: &Endpoint) -> Result<(), FleetError> {
    messages.ping::<redis::Value>().map(drop).map_err(|error| explained(endpoint, &error))
}
