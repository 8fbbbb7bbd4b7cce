//! A gate as a list of keys, which is searched linearly. It verifies a key, then charges its tally.

use super::http::{Outcome, QuotaState, body, header_block, status};
use super::key::{KeyError, parse_key};
use super::mac::record_mac;
use super::tally::Model;

/// Why a key is invalid. For logs, never for clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Not of the key form.
    Malformed,
    /// Of the key form, but with a wrong checksum.
    Checksum,
    /// No key has this key id.
    Unknown,
    /// The key id is known, but the secret differs.
    WrongSecret,
    /// The key was revoked.
    Revoked,
    /// The key has expired, or the grace of its previous secret has passed.
    Expired,
    /// The header was sent twice.
    Duplicate,
}

impl Reason {
    /// Returns the name of this reason in the vector files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Reason::Malformed => "malformed",
            Reason::Checksum => "checksum",
            Reason::Unknown => "unknown",
            Reason::WrongSecret => "wrong_secret",
            Reason::Revoked => "revoked",
            Reason::Expired => "expired",
            Reason::Duplicate => "duplicate",
        }
    }
}

/// A key in the gate, with its tally.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateKey {
    /// The whole key. (A real gate stores only its MAC.)
    pub text: String,
    /// The key with the secret before the last rotation.
    pub previous: Option<String>,
    /// The Unix second from which `previous` is invalid.
    pub grace_until_s: u32,
    /// The team account that the key belongs to.
    pub account: u32,
    /// The Unix second from which the key is invalid. 0 means never.
    pub expires_s: u32,
    /// Whether the key was revoked.
    pub revoked: bool,
    /// The tally that the current and the previous secret share.
    pub tally: u64,
}

/// The verdict of a gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The outcome of the check.
    pub outcome: Outcome,
    /// Why the key is invalid.
    pub reason: Option<Reason>,
    /// The HTTP status.
    pub status: u16,
    /// The key id, if the key is valid.
    pub key_id: Option<u64>,
    /// The account, if the key is valid.
    pub account: Option<u32>,
    /// Remaining and reset of each window, if the key is valid.
    pub quotas: Vec<QuotaState>,
    /// If denied: the seconds after which to retry.
    pub retry_after_s: Option<u64>,
    /// By how many seconds the effective time is ahead of the caller's, rounded up.
    pub clock_ahead_s: u64,
    /// The whole header block.
    pub headers: String,
    /// The whole body.
    pub body: &'static str,
}

/// Keys, a pepper and one plan.
#[derive(Debug, Clone)]
pub struct Gate {
    /// The plan of all keys.
    pub model: Model,
    /// The pepper of the server.
    pub pepper: Vec<u8>,
    /// All keys.
    pub keys: Vec<GateKey>,
}

impl Gate {
    /// Verifies the key, then decides on its tally, and charges if there is room. `headers` are the
    /// values of all `X-API-Key` headers of the request.
    pub fn check(&mut self, headers: &[&[u8]], cost: u32, now_ms: u64) -> Verdict {
        let index = match self.verify(headers, now_ms) {
            Ok(index) => index,
            Err(verdict) => return verdict,
        };
        let decision = self.model.check(self.keys[index].tally, now_ms, cost);
        self.keys[index].tally = decision.next;
        self.verdict(index, &decision)
    }

    /// Returns the verdict that a check would return, without charging.
    #[must_use]
    pub fn peek(&self, headers: &[&[u8]], cost: u32, now_ms: u64) -> Verdict {
        match self.verify(headers, now_ms) {
            Ok(index) => {
                self.verdict(index, &self.model.peek(self.keys[index].tally, now_ms, cost))
            }
            Err(verdict) => verdict,
        }
    }

    /// Returns the index of the valid key that the request presents, or the verdict that rejects
    /// the request.
    fn verify(&self, headers: &[&[u8]], now_ms: u64) -> Result<usize, Verdict> {
        let header = match headers {
            [] => return Err(refusal(Outcome::MissingKey, None)),
            [header] => header,
            _ => return Err(invalid(Reason::Duplicate)),
        };
        let presented = match parse_key(header) {
            Ok(key) => key,
            Err(KeyError::Form) => return Err(invalid(Reason::Malformed)),
            Err(KeyError::Checksum) => return Err(invalid(Reason::Checksum)),
        };
        let index = self.keys.iter().position(|key| key_id(key) == presented.key_id);
        let Some(index) = index else {
            return Err(invalid(Reason::Unknown));
        };

        let key = &self.keys[index];
        let mac = record_mac(&self.pepper, header);
        let is_current = mac == record_mac(&self.pepper, key.text.as_bytes());
        let is_previous = match &key.previous {
            Some(previous) => mac == record_mac(&self.pepper, previous.as_bytes()),
            None => false,
        };
        if !is_current && !is_previous {
            return Err(invalid(Reason::WrongSecret));
        }
        if key.revoked {
            return Err(invalid(Reason::Revoked));
        }
        // A key is invalid from the second of its end on.
        let has_passed = |until_s: u32| now_ms / 1000 >= u64::from(until_s);
        let is_expired = key.expires_s != 0 && has_passed(key.expires_s);
        let grace_is_over = !is_current && has_passed(key.grace_until_s);
        if is_expired || grace_is_over {
            return Err(invalid(Reason::Expired));
        }
        Ok(index)
    }

    /// Returns the verdict on a valid key.
    fn verdict(&self, index: usize, decision: &super::tally::Decision) -> Verdict {
        Verdict {
            outcome: decision.outcome,
            reason: None,
            status: status(decision.outcome),
            key_id: Some(key_id(&self.keys[index])),
            account: Some(self.keys[index].account),
            quotas: decision.quotas.clone(),
            retry_after_s: decision.retry_after_s,
            // Waits in header fields count from the same time as `retry_after_s`.
            headers: header_block(
                decision.outcome,
                &decision.quotas,
                decision.retry_after_s,
                decision.waits_from_ms,
            ),
            clock_ahead_s: decision.clock_ahead_s,
            body: body(decision.outcome),
        }
    }
}

fn key_id(key: &GateKey) -> u64 {
    parse_key(key.text.as_bytes()).expect("an issued key is of the form").key_id
}

/// Returns the verdict on an invalid key.
fn invalid(reason: Reason) -> Verdict {
    refusal(Outcome::InvalidKey, Some(reason))
}

/// Returns the verdict on a request without a valid key.
fn refusal(outcome: Outcome, reason: Option<Reason>) -> Verdict {
    Verdict {
        outcome,
        reason,
        status: status(outcome),
        key_id: None,
        account: None,
        quotas: Vec::new(),
        retry_after_s: None,
        headers: header_block(outcome, &[], None, 0),
        clock_ahead_s: 0,
        body: body(outcome),
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::{Key, encode_key};
    use super::*;

    /// Returns the text of a key with id 77.
    fn key(secret: u128) -> String {
        encode_key(&Key { prefix: "kt".into(), env: "test".into(), key_id: 77, secret })
    }

    #[test]
    fn only_a_valid_key_is_charged() {
        let issued = GateKey {
            text: key(2),
            previous: Some(key(1)),
            grace_until_s: 100,
            account: 42,
            expires_s: 1000,
            revoked: false,
            tally: 0,
        };
        let model = Model::parse("2/minute").unwrap();
        let mut gate = Gate { model, pepper: vec![7; 32], keys: vec![issued] };
        let (old, new, wrong) = (key(1), key(2), key(3));

        assert_eq!(gate.check(&[], 1, 0).outcome, Outcome::MissingKey);
        assert_eq!(gate.check(&[wrong.as_bytes()], 1, 0).reason, Some(Reason::WrongSecret));
        assert_eq!(
            gate.check(&[new.as_bytes(), new.as_bytes()], 1, 0).reason,
            Some(Reason::Duplicate)
        );
        assert_eq!(gate.keys[0].tally, 0);
        // Old and new secret share one tally.
        assert_eq!(gate.check(&[old.as_bytes()], 1, 0).quotas[0].remaining, 1);
        let verdict = gate.check(&[new.as_bytes()], 1, 0);
        assert_eq!(
            (verdict.quotas[0].remaining, verdict.key_id, verdict.account),
            (0, Some(77), Some(42))
        );
        assert_eq!(gate.check(&[new.as_bytes()], 1, 0).outcome, Outcome::Denied);
        assert_eq!(gate.check(&[old.as_bytes()], 1, 99_999).reason, None);
        assert_eq!(gate.check(&[old.as_bytes()], 1, 100_000).reason, Some(Reason::Expired));
        assert_eq!(gate.check(&[new.as_bytes()], 1, 999_999).reason, None);
        assert_eq!(gate.check(&[new.as_bytes()], 1, 1_000_000).reason, Some(Reason::Expired));
        gate.keys[0].revoked = true;
        assert_eq!(gate.peek(&[new.as_bytes()], 1, 0).reason, Some(Reason::Revoked));
    }
}
