//! Charge tokens: the charge of a request at `/auth`, as text for `/settle`.
//!
//! A token has the key id, the bytes of the charge, and a number that no other token has. It has no
//! secret. Its HMAC-SHA-256 also covers the gate file, the file of settled charges
//! and the lifetime. So a token is accepted by every process of the service that has these in
//! common, and by no other.
//!
//! The HMAC key is derived from the pepper, because all processes of one gate have the pepper. A
//! random key for each process would refuse the tokens of the others.
//!
//! A token is accepted once. The settled tokens are counted in a [`Limiter`] whose file all
//! processes of a data folder share. It has a fixed capacity, and a token occupies it until the
//! token has expired.

use alloc::sync::{Arc, Weak};
use core::time::Duration;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use keytally::{
    Charge, Decided, Gate, KeyId, Limiter, OnFull, Outcome, Pepper, Peppers, Settled, Timestamp,
};
use keytally::{entropy_bytes, now};
use keytally_cli::internal::Failure;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::metrics::TableUse;
use crate::system::file_id;

/// The maximum number of settled tokens that are remembered, which take 13 MiB of disk space and
/// memory.
pub(crate) const MAX_SETTLED: u32 = 524_288;

/// The longest lifetime of a token.
pub(crate) const MAX_LIFETIME: Duration = Duration::from_secs(3600);

/// By how much the clocks of processes may differ, and a clock may be set back. A settled token is
/// remembered for longer than its lifetime by this, in seconds.
const CLOCK_TOLERANCE_S: u64 = 60;

/// The label from which the HMAC key is derived. No key can have this text: it has spaces.
const LABEL: &[u8] = b"keytally charge tokens 1";

/// The first byte of a token: the version of its form.
const VERSION: u8 = 2;

const MAC_LEN: usize = 32;

/// The longest token: version, key id, time of the token, number, charge, MAC. The charge has no
/// zeros at its end.
const MAX_LEN: usize = 1 + 8 + 8 + NUMBER_LEN + Charge::LEN + MAC_LEN;

/// The number of a token: one of the process, and one of the token in the process.
const NUMBER_LEN: usize = PROCESS_LEN + 8;

const PROCESS_LEN: usize = 16;

/// What identifies a file, also after another file took its path or its inode.
type FileId = [u64; 3];

/// Makes tokens of charges, and settles them.
#[derive(Debug)]
pub(crate) struct Charges {
    /// The HMAC keys, one for each pepper. The last makes tokens.
    keys: Vec<Pepper>,
    lifetime: Duration,
    settled: Limiter,
    settled_id: FileId,
    process: [u8; PROCESS_LEN],
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How many tokens this process made.
    made: u64,
    /// The gate that was used last, and its file.
    gate: Option<(Weak<Gate>, FileId)>,
}

/// The contents of a valid token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) key_id: KeyId,
    pub(crate) charge: Charge,
    issued: Timestamp,
    number: [u8; NUMBER_LEN],
}

/// Why a charge is not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The text is not a token of this service, gate and lifetime.
    Unknown,
    /// The token is older than the lifetime.
    Expired,
    /// The charge was settled before.
    Settled,
    /// Too many charges were settled to remember this one.
    Full {
        /// When there will be room, in seconds.
        retry_after_s: u32,
    },
    /// The gate no longer has the key.
    Gone,
    /// The counts of the key are being moved to another file.
    Moving,
}

/// What a gate made of a charge.
pub(crate) struct Done {
    outcome: Outcome,
    /// `None` if the whole charge was returned.
    settled: Option<Settled>,
}

impl Decided for Done {
    fn outcome(&self) -> Outcome {
        self.outcome
    }
}

/// What a request really cost.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Actual<'n> {
    /// The cost of the request itself; `None` if the estimate was right.
    pub(crate) cost: Option<u32>,
    /// The costs of groups that were charged a cost of their own. The others keep their charge.
    pub(crate) groups: Vec<(&'n str, u32)>,
}

impl Actual<'_> {
    /// A request that cost nothing.
    const NOTHING: Self = Self { cost: Some(0), groups: Vec::new() };

    /// Replaces the charge of a token.
    fn settle(&self, gate: &Gate, token: &Token) -> Result<Done, Refusal> {
        let (key_id, charge) = (token.key_id, token.charge);
        if *self == Actual::NOTHING {
            // Groups that were charged a cost of their own are returned too.
            let refunded = gate.refund(key_id, charge).ok_or(Refusal::Gone)?;
            return Ok(Done { outcome: refunded.outcome(), settled: None });
        }
        let mut settlement = keytally::Settlement::new();
        settlement.cost = self.cost;
        for &(name, cost) in &self.groups {
            settlement = settlement.with_group(name, cost);
        }
        let settled = gate.settle_all(key_id, charge, &settlement).ok_or(Refusal::Gone)?;
        Ok(Done { outcome: settled.verdict.outcome(), settled: Some(settled) })
    }
}

impl Charges {
    /// Opens the file of settled charges in the data folder, or creates it.
    pub(crate) fn open(
        folder: &Path,
        peppers: &Peppers,
        lifetime: Duration,
    ) -> Result<Self, Failure> {
        // Every lifetime has a file of its own, because the file has one window.
        let path = folder.join(format!("settled-{}s.limiter", lifetime.as_secs()));
        // A sliding window counts a token for at least its length.
        let window_s = lifetime.as_secs().saturating_add(CLOCK_TOLERANCE_S);
        let policy = format!("sliding 1/{window_s}s").parse().map_err(|error| {
            Failure::with_context(format_args!("cannot count charges in {}", path.display()), error)
        })?;
        let settled = Limiter::open_or_create(&path, &policy, MAX_SETTLED)?;
        // In a shared tally, a token would seem settled because another one was.
        settled.set_on_full(OnFull::Refuse);
        let settled_id = file_id(&path).map_err(|error| {
            Failure::with_context(format_args!("cannot access {}", path.display()), error)
        })?;
        let entropy = entropy_bytes()?;
        let (process, _) = entropy.split_first_chunk().unwrap_or((&[0; PROCESS_LEN], &[]));
        Ok(Self {
            keys: peppers.iter().filter_map(derived).collect(),
            lifetime,
            settled,
            settled_id,
            process: *process,
            state: Mutex::default(),
        })
    }

    /// Returns how long a token is valid.
    pub(crate) const fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Returns a token of a charge. Returns `None` if the gate's file was just replaced: nothing
    /// can be settled in it.
    pub(crate) fn token(
        &self,
        gate: &Arc<Gate>,
        key_id: KeyId,
        charge: Charge,
        issued: Timestamp,
    ) -> Option<String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let gate_id = state.gate_id(gate)?;
        state.made = state.made.wrapping_add(1);
        let made = state.made.to_be_bytes();
        drop(state);
        let mut number = [0; NUMBER_LEN];
        let (process, count) = number.split_at_mut(PROCESS_LEN);
        process.copy_from_slice(&self.process);
        count.copy_from_slice(&made);
        let mut bytes = Token { key_id, charge, issued, number }.to_body();
        let mac = self.mac(self.keys.last()?, &bytes, gate_id);
        bytes.extend_from_slice(&mac);
        Some(Base64UrlUnpadded::encode_string(&bytes))
    }

    /// Returns the contents of a token that a process with the same files and lifetime made.
    pub(crate) fn read(&self, gate: &Arc<Gate>, text: &[u8]) -> Result<Token, Refusal> {
        let mut bytes = [0; MAX_LEN];
        let decoded = Base64UrlUnpadded::decode(text, &mut bytes).map_err(|_| Refusal::Unknown)?;
        let (body, mac) = decoded.split_last_chunk::<MAC_LEN>().ok_or(Refusal::Unknown)?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let gate_id = state.gate_id(gate).ok_or(Refusal::Unknown)?;
        drop(state);
        if !self.keys.iter().any(|key| self.mac(key, body, gate_id).ct_eq(mac).into()) {
            return Err(Refusal::Unknown);
        }
        Token::from_body(body).ok_or(Refusal::Unknown)
    }

    /// Replaces the charge of a token by the actual cost, once. Returns the result; `None` if the
    /// whole charge was returned.
    ///
    /// `call` calls what it is given with the gate, as [`Followed::call`](keytally::Followed::call)
    /// does. The token is used up first. If the process is killed after that, the charge stays.
    pub(crate) fn settle(
        &self,
        token: &Token,
        actual: &Actual<'_>,
        call: impl FnOnce(&dyn Fn(&Gate) -> Result<Done, Refusal>) -> Result<Done, Refusal>,
    ) -> Result<Option<Settled>, Refusal> {
        let now_ms = now().unix_ms();
        let issued_ms = token.issued.unix_ms();
        let lifetime_ms = u64::try_from(self.lifetime.as_millis()).unwrap_or(u64::MAX);
        if now_ms.saturating_sub(issued_ms) > lifetime_ms
            || issued_ms.saturating_sub(now_ms) > CLOCK_TOLERANCE_S * 1000
        {
            return Err(Refusal::Expired);
        }
        let counted = self.settled.check(&token.number, 1);
        match counted.outcome() {
            Outcome::Admitted => {}
            Outcome::Full => {
                let retry_after_s = counted.retry_after_s().unwrap_or(1);
                return Err(Refusal::Full { retry_after_s });
            }
            _ => return Err(Refusal::Settled),
        }
        let done = call(&|gate| actual.settle(gate, token))?;
        if done.outcome == Outcome::Unavailable {
            // Nothing was settled, so the token stays valid.
            if let Some(used) = counted.charge() {
                self.settled.refund(&token.number, used);
            }
            return Err(Refusal::Moving);
        }
        Ok(done.settled)
    }

    /// Returns how many settled tokens are remembered, and how many can be.
    pub(crate) fn table_use(&self) -> TableUse {
        TableUse::of("settled", &self.settled)
    }

    /// Returns the MAC of a token, for a gate's file.
    fn mac(&self, key: &Pepper, body: &[u8], gate_id: FileId) -> [u8; MAC_LEN] {
        // The numbers after the body have a fixed length, so its end is known.
        let mut message = body.to_vec();
        let bound = gate_id.into_iter().chain(self.settled_id).chain([self.lifetime.as_secs()]);
        message.extend(bound.flat_map(u64::to_be_bytes));
        key.mac(&message).to_bytes()
    }
}

impl State {
    /// Returns what identifies the gate's file. Returns `None` if the path of the gate leads to
    /// another file now.
    fn gate_id(&mut self, gate: &Arc<Gate>) -> Option<FileId> {
        if let Some((known, id)) = &self.gate
            && core::ptr::eq(known.as_ptr(), Arc::as_ptr(gate))
        {
            return Some(*id);
        }
        let id = file_id(gate.path()?).ok()?;
        if !gate.is_at_path().is_ok_and(|is_at_path| is_at_path) {
            return None;
        }
        self.gate = Some((Arc::downgrade(gate), id));
        Some(id)
    }
}

impl Token {
    fn to_body(self) -> Vec<u8> {
        let charge = self.charge.to_bytes();
        let mut charge = charge.as_slice();
        while let [rest @ .., 0] = charge {
            charge = rest;
        }
        let mut body = Vec::with_capacity(MAX_LEN);
        body.push(VERSION);
        body.extend(self.key_id.number().to_be_bytes());
        body.extend(self.issued.unix_ms().to_be_bytes());
        body.extend(self.number);
        body.extend(charge);
        body
    }

    fn from_body(body: &[u8]) -> Option<Self> {
        let (&[VERSION], rest) = body.split_first_chunk()? else { return None };
        let (key_id, rest) = rest.split_first_chunk()?;
        let (issued, rest) = rest.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let mut charge = [0; Charge::LEN];
        charge.get_mut(..rest.len())?.copy_from_slice(rest);
        Some(Self {
            key_id: KeyId::from_number(u64::from_be_bytes(*key_id))?,
            charge: Charge::from_bytes(&charge)?,
            issued: Timestamp::from_unix_ms(u64::from_be_bytes(*issued)),
            number: *number,
        })
    }
}

/// Returns the HMAC key that is derived from a pepper.
fn derived(pepper: &Pepper) -> Option<Pepper> {
    // 32 bytes are enough for a pepper.
    Pepper::new(&*Zeroizing::new(pepper.mac(LABEL).to_bytes())).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use keytally::{GateConfig, Name, NewKey};

    use super::*;

    const LIFETIME: Duration = Duration::from_secs(60);

    /// Returns a gate in a folder, its key, and a charge of the key.
    fn charged(folder: &Path, peppers: &Peppers) -> (Arc<Gate>, KeyId, Charge) {
        let config = GateConfig::default().with_keys(1);
        let gate = Gate::create(folder.join("api.gate"), peppers.clone(), &config).unwrap();
        let (key, _) = gate.issue(&NewKey::new(1, Name::new("live").unwrap())).unwrap();
        let verdict = gate.check(Some(key.expose().as_bytes()), 10);
        (Arc::new(gate), verdict.holder().unwrap().key_id, verdict.charge().unwrap())
    }

    #[test]
    fn settled_charges_share_no_tally() {
        let folder = tempfile::tempdir().unwrap();
        let peppers = Peppers::new(&[[7; 32]]).unwrap();
        let charges = Charges::open(folder.path(), &peppers, LIFETIME).unwrap();
        assert_eq!(charges.settled.on_full(), OnFull::Refuse);
    }

    #[test]
    fn charge_of_a_key_that_is_gone_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let peppers = Peppers::new(&[[7; 32]]).unwrap();
        let (gate, key_id, charge) = charged(folder.path(), &peppers);
        let charges = Charges::open(folder.path(), &peppers, LIFETIME).unwrap();
        // Another key took the record of this one.
        let gone = KeyId::from_number(key_id.number() ^ 1).unwrap();
        let text = charges.token(&gate, gone, charge, now()).unwrap();
        let token = charges.read(&gate, text.as_bytes()).unwrap();
        let settle = || charges.settle(&token, &Actual::NOTHING, |work| work(&gate));
        assert_eq!((settle(), settle()), (Err(Refusal::Gone), Err(Refusal::Settled)));
        let quotas = gate.table().key(key_id, now()).unwrap().quotas;
        assert!(quotas.iter().all(|quota| quota.limit - quota.remaining == 10));
    }

    #[test]
    fn token_has_all_tallies_of_a_charge() {
        let folder = tempfile::tempdir().unwrap();
        let peppers = Peppers::new(&[[7; 32]]).unwrap();
        let (gate, key_id, _) = charged(folder.path(), &peppers);
        let charges = Charges::open(folder.path(), &peppers, LIFETIME).unwrap();
        for tallies in 1..=8 {
            let mut bytes = [0; Charge::LEN];
            for (chunk, tally) in bytes.as_chunks_mut::<16>().0.iter_mut().zip(1..=tallies) {
                *chunk = [0xFF; 16];
                chunk[4..8].copy_from_slice(&[tally, 0, 1, 0]);
            }
            let charge = Charge::from_bytes(&bytes).unwrap();
            let text = charges.token(&gate, key_id, charge, now()).unwrap();
            assert_eq!(charges.read(&gate, text.as_bytes()).unwrap().charge, charge);
        }
    }

    #[test]
    fn token_of_a_removed_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let peppers = Peppers::new(&[[7; 32]]).unwrap();
        let (gate, key_id, charge) = charged(folder.path(), &peppers);
        let open = || Charges::open(folder.path(), &peppers, LIFETIME).unwrap();
        let charges = open();
        let text = charges.token(&gate, key_id, charge, now()).unwrap();
        assert!(open().read(&gate, text.as_bytes()).is_ok());
        // Without the file, no process knows which charges were settled. The new file may have the
        // inode of the removed one.
        drop(charges);
        fs::remove_file(folder.path().join("settled-60s.limiter")).unwrap();
        assert_eq!(open().read(&gate, text.as_bytes()), Err(Refusal::Unknown));
    }
}
