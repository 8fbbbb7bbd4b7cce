//! The target `gate_calls`: calls on a gate, compared with a model that is a list of keys, each
//! with its secrets, its state and its tally.

use keytally_core::{AdminError, IMPORTED_KEY_LEN};
use keytally_core::{
    CacheLine, Charge, Entropy, Gate, GateConfig, KeyId, KeyState, Layout, Name, NewKey, Outcome,
    Peppers, Plan, Policy, Reason, Timestamp, parse_key,
};
use keytally_vectors::model::{self, Model};

use crate::bytes::{Bytes, Clock};
use crate::headers;
use crate::limiter::{assert_same, assert_same_quotas, modeled};

/// Sets of three policies: those of the two plans of a gate, and a third. Each plan may change to
/// each of them.
const PLANS: &[[&str; 3]] = &[
    ["3/minute, 5/hour", "9/minute, 20/hour", "1/minute, 7/hour"],
    ["sliding 4/10s", "sliding 6/10s", "sliding 2/10s"],
    ["2/second", "3/second", "1/second"],
];

const PEPPERS: [[u8; 32]; 3] = [[1; 32], [2; 32], [3; 32]];

/// Returns the Unix second that is `after_s` seconds after `now_ms`. The clock stays within `u32`.
fn unix_s(now_ms: u64, after_s: u32) -> u32 {
    u32::try_from(now_ms / 1000).unwrap().saturating_add(after_s)
}

/// Returns the time of a Unix second, or `None` for 0.
fn timestamp(unix_s: u32) -> Option<Timestamp> {
    (unix_s != 0).then(|| Timestamp::from_unix_s(unix_s.into()))
}

/// The model of a key.
struct Known {
    key_id: KeyId,
    /// All texts that it ever had, the newest last.
    texts: Vec<String>,
    /// The Unix second at which the previous secret expires, or 0.
    grace_until: u32,
    /// The Unix second at which the key expires, or 0.
    expires: u32,
    account: u32,
    plan: usize,
    revoked: bool,
    /// Whether its record was reused for another key.
    is_removed: bool,
    /// Its tally.
    word: u64,
    /// Charges that can be refunded.
    charges: Vec<Charge>,
}

impl Known {
    /// Returns whether the key is revoked or expired.
    fn ended(&self, now_s: u64) -> bool {
        self.revoked || (self.expires != 0 && now_s >= u64::from(self.expires))
    }

    /// Returns the Unix second until which the previous secret is valid, or 0 if it is not.
    fn previous_until(&self, now_s: u64) -> u32 {
        let expiry = if self.expires == 0 { u32::MAX } else { self.expires };
        if self.ended(now_s) || now_s >= u64::from(self.grace_until) {
            0
        } else {
            self.grace_until.min(expiry)
        }
    }
}

/// Environments of new keys.
const ENVS: [&str; 3] = ["live", "test", "dev"];

const PLAN_NAMES: [&str; 2] = ["default", "pro"];

/// A gate and its model.
struct World<'m> {
    memory: &'m [CacheLine],
    gate: Gate<&'m [CacheLine]>,
    keys: Vec<Known>,
    /// The model of each plan: the gate's layout with the plan's limits.
    plans: Vec<Model>,
    /// Whether a key of a foreign form was ever imported.
    imported: bool,
    /// The number of [`PEPPERS`] with which the gate was opened.
    peppers: usize,
    /// The number of random words drawn so far, by which [`World::draw`] computes the next.
    drawn: u64,
}

/// Compares calls on a small gate with a model of each key: checks with current, wrong, previous
/// and unknown keys, and an administrator's changes between them.
pub fn gate_calls(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let texts = bytes.pick(PLANS);
    let policies = texts.map(|text| text.parse::<Policy>().unwrap());
    let plans =
        [0, 1].map(|plan| Plan::new(PLAN_NAMES[plan], policies[plan].clone().into()).unwrap());
    let config =
        GateConfig::new(1 + u32::from(bytes.byte() % 12), Name::new("kt").unwrap(), &plans)
            .with_plan_slots(2)
            .with_hints(bytes.byte() & 1 == 1);
    let memory: Vec<CacheLine> = (0..config.lines()).map(|_| CacheLine::new()).collect();
    let gate = Gate::init(&memory[..], &config, Peppers::new(&PEPPERS[..1]).unwrap()).unwrap();
    let layout = *gate.layout();
    let mut clock = Clock::new(layout.windows().last().unwrap().seconds());
    let plans = vec![model_of(&layout, texts[0]), model_of(&layout, texts[1])];
    let mut world = World {
        memory: &memory,
        gate,
        keys: Vec::new(),
        plans,
        imported: false,
        peppers: 1,
        drawn: 0,
    };
    for _ in 0..200 {
        if bytes.is_empty() {
            break;
        }
        let call = bytes.byte();
        let now_ms = clock.read(&mut bytes);
        match call % 32 {
            0..=13 => world.present(&mut bytes, now_ms),
            14..=16 => world.adjust(&mut bytes, now_ms),
            17..=18 => world.issue(&mut bytes, clock.latest_ms),
            19..=20 => world.import(&mut bytes, clock.latest_ms),
            21..=23 => world.rotate(&mut bytes, now_ms),
            24..=25 => world.revoke(&mut bytes),
            26 => world.assign(&mut bytes),
            27 => {
                let (plan, text) = (bytes.below(2), bytes.below(3));
                let named = Plan::new(PLAN_NAMES[plan], policies[text].clone().into()).unwrap();
                world.gate.administer().unwrap().set_plan(&named).unwrap();
                world.plans[plan] = model_of(&layout, texts[text]);
            }
            28 => world.reopen(&mut bytes),
            29 => {
                let verdict = world.gate.check(None, 1, Timestamp::from_unix_ms(now_ms));
                assert_eq!(verdict.outcome(), Outcome::MissingKey);
                headers::check_http(&verdict);
            }
            30 => {
                let text = bytes.rest();
                world.check(&text[..text.len().min(64)], 1, now_ms, true);
            }
            _ => world.verify_all(clock.latest_ms),
        }
    }
    world.verify_all(clock.latest_ms);
}

/// Returns the model of a plan in a gate of this layout.
fn model_of(layout: &Layout, text: &str) -> Model {
    let policy = model::parse_policy(text).unwrap();
    let counts_each = if policy.algorithm == model::Algorithm::Sliding { 2 } else { 1 };
    let bits = layout.count_bits().iter().map(|&bits| u32::from(bits));
    let count_bits = bits.flat_map(|bits| core::iter::repeat_n(bits, counts_each)).collect();
    Model::with_layout(policy, model::Layout { stamp_bits: layout.stamp_bits(), count_bits })
}

impl World<'_> {
    /// Reads the index of a key. Returns `None` if there is none.
    fn pick(&self, bytes: &mut Bytes<'_>) -> Option<usize> {
        let number = bytes.below(256);
        (!self.keys.is_empty()).then(|| number % self.keys.len())
    }

    /// Returns pseudo-random bytes that never repeat, since equal ones would give equal keys.
    fn draw(&mut self) -> [u8; 24] {
        let words = [0; 3].map(|_: u64| {
            self.drawn += 1;
            let mut word = self.drawn.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (word ^ (word >> 31)).to_le_bytes()
        });
        words.concat().try_into().unwrap()
    }

    /// Checks a key that was issued: its newest or an older text, with or without a mistake.
    fn present(&mut self, bytes: &mut Bytes<'_>, now_ms: u64) {
        let kind = bytes.byte();
        let (cost, charge) = (bytes.cost(), kind & 0x80 == 0);
        let Some(key) = self.pick(bytes) else { return };
        let texts = &self.keys[key].texts;
        let newest = texts.len() - 1;
        let mut text = match kind % 8 {
            0..=2 => texts[newest].clone(),
            3..=4 => texts[newest.saturating_sub(1)].clone(),
            5 => texts[newest.saturating_sub(2)].clone(),
            _ => texts[newest].clone(),
        }
        .into_bytes();
        match (kind % 8, model::parse_key(&text)) {
            // Another secret or another key id, with a valid checksum.
            (6, Ok(mut parts)) => {
                let bit = bytes.below(192);
                match bit.checked_sub(64) {
                    Some(bit) => parts.secret ^= 1 << bit,
                    None => parts.key_id = (parts.key_id ^ (1 << bit)).max(1),
                }
                text = model::encode_key(&parts).into_bytes();
            }
            (6 | 7, _) => {
                let at = bytes.below(text.len());
                text[at] ^= bytes.byte();
            }
            _ => {}
        }
        self.check(&text, cost, now_ms, charge);
    }

    /// Returns the expected result of a check: the index of the key, and the reason if the key is
    /// revoked or expired.
    ///
    /// # Errors
    /// The expected reason if the text is not that of a key.
    fn verify(&self, text: &[u8], now_ms: u64) -> Result<(usize, Option<Reason>), Reason> {
        let parsed = model::parse_key(text);
        let mut present = self.keys.iter().enumerate().filter(|(_, key)| !key.is_removed);
        let secrets = |key: &Known| {
            [1, 2].map(|back| Some(key.texts.get(key.texts.len().checked_sub(back)?)?.clone()))
        };
        let found = match &parsed {
            Ok(parts) => match present.find(|(_, key)| key.key_id.number() == parts.key_id) {
                None => return Err(Reason::Unknown),
                Some((_, key))
                    if !secrets(key).iter().flatten().any(|secret| secret.as_bytes() == text) =>
                {
                    return Err(Reason::WrongSecret);
                }
                Some((number, _)) => number,
            },
            Err(error) => {
                let wrong = if *error == model::KeyError::Form {
                    Reason::Malformed
                } else {
                    Reason::Checksum
                };
                if !self.imported || !IMPORTED_KEY_LEN.contains(&text.len()) {
                    return Err(wrong);
                }
                let has_text = |key: &Known| {
                    secrets(key).iter().flatten().any(|secret| secret.as_bytes() == text)
                };
                match present.find(|(_, key)| has_text(key)) {
                    Some((number, _)) => number,
                    None if wrong == Reason::Malformed => return Err(Reason::Unknown),
                    None => return Err(wrong),
                }
            }
        };
        let (key, now_s) = (&self.keys[found], now_ms / 1000);
        let previous = key.texts[key.texts.len() - 1].as_bytes() != text;
        Ok((
            found,
            if key.revoked {
                Some(Reason::Revoked)
            } else if key.ended(now_s) || (previous && now_s >= u64::from(key.grace_until)) {
                Some(Reason::Expired)
            } else {
                None
            },
        ))
    }

    /// Checks a text, or peeks unless `charge`, and compares the verdict with the model.
    fn check(&mut self, text: &[u8], cost: u32, now_ms: u64, charge: bool) {
        let now = Timestamp::from_unix_ms(now_ms);
        let verdict = if charge {
            self.gate.check(Some(text), cost, now)
        } else {
            self.gate.peek(Some(text), cost, now)
        };
        headers::check_http(&verdict);
        let (key, reason) = match self.verify(text, now_ms) {
            Err(reason) => {
                assert_eq!(
                    (verdict.outcome(), verdict.reason()),
                    (Outcome::InvalidKey, Some(reason))
                );
                assert_eq!(verdict.holder(), None, "an unknown key has a holder");
                return;
            }
            Ok(found) => found,
        };
        let known = &mut self.keys[key];
        let holder = verdict.holder().unwrap();
        assert_eq!((holder.key_id, holder.account), (known.key_id, known.account));
        assert_eq!(usize::from(holder.plan), known.plan);
        if let Some(reason) = reason {
            assert_eq!((verdict.outcome(), verdict.reason()), (Outcome::InvalidKey, Some(reason)));
            assert!(verdict.quotas().is_empty());
            return;
        }
        let model = &self.plans[known.plan];
        let expected = if charge {
            model.check(known.word, now_ms, cost)
        } else {
            model.peek(known.word, now_ms, cost)
        };
        assert_same(&verdict, &expected);
        known.word = expected.next;
        if charge {
            known.charges.extend(verdict.charge());
        }
    }

    /// Refunds or settles a charge, or resets a key.
    fn adjust(&mut self, bytes: &mut Bytes<'_>, now_ms: u64) {
        let now = Timestamp::from_unix_ms(now_ms);
        let Some(key) = self.pick(bytes) else { return };
        let known = &mut self.keys[key];
        let model = &self.plans[known.plan];
        let (verdict, next) = match (bytes.below(4), known.charges.pop()) {
            (0, charge) => {
                known.charges.extend(charge);
                (self.gate.reset(known.key_id, now), model.reset(known.word, now_ms))
            }
            (_, None) => return,
            (1, Some(charge)) => {
                let actual = bytes.cost();
                let verdict = self.gate.settle(known.key_id, charge, actual, now);
                let settled = model.settle(known.word, modeled(charge), actual, now_ms);
                if let Some(verdict) = &verdict {
                    assert_eq!(verdict.uncharged(), settled.uncharged);
                }
                (verdict, settled.next)
            }
            (_, Some(charge)) => (
                self.gate.refund(known.key_id, charge, now),
                model.refund(known.word, modeled(charge), now_ms),
            ),
        };
        assert_eq!(verdict.is_some(), !known.is_removed);
        if let Some(verdict) = verdict {
            known.word = next;
            assert_same_quotas(&verdict, &model.peek(next, now_ms, 0));
        }
    }

    /// Reads the attributes of a new key. Returns them and the index of its plan.
    fn new_key(bytes: &mut Bytes<'_>, latest_ms: u64) -> (NewKey<'static>, usize) {
        let plan = bytes.below(2);
        let expires = match bytes.byte() {
            byte @ 0..=127 => unix_s(latest_ms, u32::from(byte) * 30),
            _ => 0,
        };
        let env = Name::new(bytes.pick(&ENVS)).unwrap();
        (
            NewKey::new(u32::from(bytes.byte()), env)
                .with_plan(PLAN_NAMES[plan])
                .with_expires(timestamp(expires)),
            plan,
        )
    }

    /// Adds a key to the model, and marks the key whose record it reused.
    fn add(&mut self, key_id: KeyId, text: String, new: &NewKey<'_>, plan: usize, latest_ms: u64) {
        // If a record was reused for the new key, its old key had ended and counted in no window.
        let now_s = latest_ms / 1000;
        for known in self.keys.iter_mut().filter(|known| !known.is_removed) {
            if self.gate.key(known.key_id, Timestamp::from_unix_ms(latest_ms)).is_none() {
                assert!(known.ended(now_s), "{} was valid", known.key_id);
                assert!(
                    self.plans[known.plan].is_reusable(known.word, latest_ms),
                    "{} had counts",
                    known.key_id
                );
                known.is_removed = true;
            }
        }
        // A key that lost its record may be imported again.
        self.keys.retain(|known| known.key_id != key_id);
        self.keys.push(Known {
            key_id,
            texts: vec![text],
            grace_until: 0,
            expires: new.expires.map_or(0, |end| u32::try_from(end.unix_s()).unwrap()),
            account: new.account,
            plan,
            revoked: false,
            is_removed: false,
            word: self.plans[plan].reset(0, latest_ms),
            charges: Vec::new(),
        });
    }

    fn issue(&mut self, bytes: &mut Bytes<'_>, latest_ms: u64) {
        let (new, plan) = Self::new_key(bytes, latest_ms);
        let entropy = Entropy::new(self.draw());
        let issued = self.gate.administer().unwrap().issue(
            &new,
            entropy,
            Timestamp::from_unix_ms(latest_ms),
        );
        match issued {
            Ok((key, key_id)) => {
                let parts = model::parse_key(key.expose().as_bytes()).unwrap();
                assert_eq!((parts.prefix.as_str(), parts.env.as_str()), ("kt", new.env.as_str()));
                assert_eq!(parts.key_id, key_id.number());
                assert!(self.keys.iter().all(|known| known.key_id != key_id), "a key id repeated");
                self.add(key_id, key.expose().to_owned(), &new, plan, latest_ms);
            }
            Err(AdminError::Full { keys }) => {
                let present: Vec<&Known> =
                    self.keys.iter().filter(|known| !known.is_removed).collect();
                assert_eq!(present.len(), usize::try_from(keys).unwrap());
                for known in present {
                    let needed = !known.ended(latest_ms / 1000)
                        || !self.plans[known.plan].is_reusable(known.word, latest_ms);
                    assert!(needed, "the record of {} was reusable", known.key_id);
                }
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn import(&mut self, bytes: &mut Bytes<'_>, latest_ms: u64) {
        let (new, plan) = Self::new_key(bytes, latest_ms);
        let [id, one, two] = {
            let drawn = self.draw();
            [0, 8, 16].map(|at| u64::from_le_bytes(drawn[at..at + 8].try_into().unwrap()))
        };
        let again = bytes.below(8) == 0;
        let own_form = bytes.byte() & 1 == 1;
        let text = match self.pick(bytes).filter(|_| again) {
            Some(key) => self.keys[key].texts[self.keys[key].texts.len() - 1].clone(),
            None if own_form => model::encode_key(&model::Key {
                prefix: "acme".to_owned(),
                env: new.env.to_string(),
                key_id: id.max(1),
                secret: u128::from(one) << 64 | u128::from(two),
            }),
            None => format!("legacy-{one:x}{two:x}"),
        };
        let imported = self.gate.administer().unwrap().import(
            text.as_bytes(),
            &new,
            Timestamp::from_unix_ms(latest_ms),
        );
        let present =
            self.verify(text.as_bytes(), latest_ms).ok().map(|(key, _)| self.keys[key].key_id);
        match imported {
            Ok(key_id) => {
                assert_eq!(present, None);
                match parse_key(text.as_bytes()) {
                    Ok(parts) => assert_eq!(parts.key_id, key_id),
                    Err(_) => self.imported = true,
                }
                let mut new = new;
                if let Ok(parts) = parse_key(text.as_bytes()) {
                    new.env = Name::new(parts.env).unwrap();
                }
                self.add(key_id, text, &new, plan, latest_ms);
            }
            Err(AdminError::AlreadyImported(key_id)) => {
                let is_imported = |known: &Known| known.key_id == key_id && !known.is_removed;
                assert!(self.keys.iter().any(is_imported));
            }
            Err(AdminError::NoRoomToImport) => assert_eq!(present, None),
            Err(error) => panic!("{error}"),
        }
    }

    fn rotate(&mut self, bytes: &mut Bytes<'_>, now_ms: u64) {
        let Some(key) = self.pick(bytes) else { return };
        let byte = bytes.byte();
        let force = byte % 2 == 1;
        let grace_until = match byte {
            0..=63 => 0,
            byte => unix_s(now_ms, u32::from(byte) * 7),
        };
        let entropy = Entropy::new(self.draw());
        let known = &mut self.keys[key];
        let now = Timestamp::from_unix_ms(now_ms);
        let until = known.previous_until(now_ms / 1000);
        match self.gate.administer().unwrap().rotate(
            known.key_id,
            timestamp(grace_until),
            force,
            entropy,
            now,
        ) {
            Ok(new) => {
                assert!(!known.is_removed && !known.revoked && (until == 0 || force));
                assert_eq!(parse_key(new.expose().as_bytes()).unwrap().key_id, known.key_id);
                known.texts.push(new.expose().to_owned());
                known.grace_until = grace_until;
            }
            Err(AdminError::NoSuchKey(_)) => assert!(known.is_removed),
            Err(AdminError::Revoked(_)) => assert!(known.revoked),
            Err(AdminError::InGrace { until: reported, .. }) => {
                assert!(!force && Some(reported) == timestamp(until));
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn revoke(&mut self, bytes: &mut Bytes<'_>) {
        let Some(key) = self.pick(bytes) else { return };
        let known = &mut self.keys[key];
        let revoked = self.gate.administer().unwrap().revoke(known.key_id);
        assert_eq!(revoked.is_ok(), !known.is_removed);
        known.revoked = true;
    }

    fn assign(&mut self, bytes: &mut Bytes<'_>) {
        let Some(key) = self.pick(bytes) else { return };
        let (known, plan) = (&mut self.keys[key], bytes.below(2));
        match self.gate.administer().unwrap().assign(known.key_id, PLAN_NAMES[plan]) {
            Ok(()) => known.plan = plan,
            Err(AdminError::NoSuchKey(_)) => assert!(known.is_removed),
            Err(AdminError::Revoked(_)) => assert!(known.revoked),
            Err(error) => panic!("{error}"),
        }
    }

    /// Reopens the gate, perhaps with one more pepper. The older peppers remain, since keys may
    /// need them.
    fn reopen(&mut self, bytes: &mut Bytes<'_>) {
        self.peppers = (self.peppers + bytes.below(2)).min(PEPPERS.len());
        let peppers = Peppers::new(&PEPPERS[..self.peppers]).unwrap();
        self.gate = Gate::attach(self.memory, peppers).unwrap();
    }

    /// Checks that the gate lists the model's keys, and that its verification finds no flaw.
    fn verify_all(&mut self, latest_ms: u64) {
        let now = Timestamp::from_unix_ms(latest_ms);
        let mut listed = 0;
        for info in self.gate.list(now) {
            listed += 1;
            let is_listed = |known: &&Known| known.key_id == info.key_id && !known.is_removed;
            let known = self.keys.iter().find(is_listed).expect("a key that was issued");
            assert_eq!((info.account, usize::from(info.plan)), (known.account, known.plan));
            let until = known.previous_until(latest_ms / 1000);
            assert_eq!(
                (info.expires, info.grace_until),
                (timestamp(known.expires), timestamp(until))
            );
            assert_eq!(info.state == KeyState::Revoked, known.revoked);
            let text = &known.texts[known.texts.len() - 1];
            if let Some(last) = info.last_characters {
                assert!(text.ends_with(last.as_str()));
            }
            let expected = self.plans[known.plan].peek(known.word, latest_ms, 0);
            let remaining = expected.quotas.iter().map(|quota| quota.remaining);
            assert!(info.quotas.iter().map(|quota| quota.remaining).eq(remaining));
        }
        assert_eq!(listed, self.keys.iter().filter(|known| !known.is_removed).count());
        self.gate.verify(now, |flaw| panic!("{flaw}"));
        let mut administrator = self.gate.administer().unwrap();
        assert!(!administrator.has_recovered());
        administrator.verify(now, |flaw| panic!("{flaw}"));
    }
}
