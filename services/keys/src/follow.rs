//! Keeps the gate up to date with the list: each second what changed, and all keys each minute and
//! when the gate's file was replaced.

use core::time::Duration;

use keytally::Timestamp;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::database::{DatabaseError, LIMIT};
use crate::error::{Error, Result};
use crate::keys;
use crate::list::List;
use crate::reconcile::Comparison;

/// How often the gate takes what changed in the list.
const INTERVAL: Duration = Duration::from_secs(1);

/// The time between two comparisons of all keys, at least.
const COMPARED_EACH_S: u64 = 60;

/// A comparison takes at most this share of the time.
const COMPARED_SHARE: u64 = 50;

impl List {
    /// Puts into the gate what changed in the list. Does not lock the gate if nothing did.
    ///
    /// # Errors
    /// If the database cannot be read in time, or is older than the gate; [`Error::Gate`] if the
    /// gate cannot be changed.
    pub async fn follow(&self, now: Timestamp) -> Result<()> {
        let result = self.follow_now(now).await;
        self.set_status(|status| match &result {
            Ok(()) => (status.followed, status.problem) = (Some(now), None),
            Err(error) => status.problem = Some(error.to_string()),
        });
        result
    }

    async fn follow_now(&self, now: Timestamp) -> Result<()> {
        let applied = self.gate().load().table().applied_sequence();
        let read = async {
            let head = self.database().head().await?;
            let mut connection = self.read().await?;
            Ok((head, keys::last_seq(&mut connection).await?))
        };
        let read = timeout(LIMIT, read).await;
        let (head, last) = read.unwrap_or(Err(Error::Database(DatabaseError::Late)))?;
        if head < applied {
            return Err(Error::Behind { head, applied });
        }
        if last > applied {
            // A key that the gate refuses is settled or reported by the next comparison.
            self.change(LIMIT, now, |_, _| Ok(())).await?;
        }
        Ok(())
    }

    /// Follows the list until the task is aborted. `report` gets a sentence when the state changes:
    /// why the gate does not follow the list, that it does again, and what a comparison settled.
    pub async fn follow_always(self, clock: fn() -> Timestamp, report: impl Fn(&str) + Send) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut next_s, mut compared_gate) = (0, 0);
        let mut problem = None;
        loop {
            ticks.tick().await;
            let now = clock();
            // The gate may be an older copy, which lacks changes that the list took over.
            let gate_number = self.gate().status().reopened;
            let is_due = now.unix_s() >= next_s || gate_number != compared_gate;
            let mut result = self.follow(now).await;
            if result.is_ok() && is_due {
                compared_gate = gate_number;
                result = match self.compare(Comparison::automatic(), now).await {
                    Ok(compared) => {
                        if let Some(sentence) = compared.sentence() {
                            report(&sentence);
                        }
                        Ok(())
                    }
                    Err(error) => Err(error),
                };
                let took_s = clock().unix_s().saturating_sub(now.unix_s());
                let wait_s = COMPARED_EACH_S.max(took_s.saturating_mul(COMPARED_SHARE));
                next_s = now.unix_s().saturating_add(wait_s);
            }
            let sentence = result.err().map(|error| error.to_string());
            if sentence != problem {
                match &sentence {
                    Some(sentence) => {
                        report(&format!("the gate does not follow the list of keys: {sentence}"));
                    }
                    None => report("the gate follows the list of keys again"),
                }
                problem = sentence;
            }
        }
    }
}
