//! The target `compound_calls`: calls on a gate with sections, teams and scopes, compared with a
//! model of each tally.

use alloc::collections::BTreeMap;

use keytally_core::{
    AdminError, CacheLine, Charge, Compound, Entropy, Gate, GateConfig, GatePart, KeyId, Name,
    NewKey, Outcome, Part, Peppers, Plan, Reason, Section, Settlement, Timestamp, Verdict,
    check_all, peek_all,
};
use keytally_vectors::model::{self, Model};

use crate::bytes::{Bytes, Clock};
use crate::limiter::{assert_same_quotas, modeled_at};

/// Sets of three lists of quotas: those of the two plans of a gate, and a third. Each plan may
/// change to each of them. The first one has the largest limits. No section needs more than one
/// tally, except for the last one of the last set.
const PLANS: &[[&str; 3]] = &[
    [
        "3/minute, 5/hour; team: 6/minute; group write: 4/minute; group tokens: 60/minute",
        "2/minute, 4/hour; team: unlimited; group write: 1/minute; group tokens: 9/minute",
        "unlimited; team: 4/minute; group write: unlimited; group tokens: 30/minute",
    ],
    [
        "sliding 4/10s; team: sliding 9/10s, 20/hour; group write: 3/10s; group tokens: 99/day",
        "sliding 1/10s; team: sliding 2/10s, 20/hour; group write: unlimited; group tokens: 9/day",
        "sliding 2/10s; team: unlimited; group write: 2/10s; group tokens: 40/day",
    ],
    [
        "4/minute; group write: 5/minute; group tokens: 70/minute; team: 9/second, 2000000000/30d",
        "3/minute; group write: 2/minute; group tokens: 5/minute; team: 3/second, 1000000000/30d",
        "2/minute; group write: 1/minute; group tokens: 9/minute; team: unlimited",
    ],
];

/// The groups of each plan, of which a request names some.
const GROUPS: [&str; 2] = ["write", "tokens"];

const SCOPES: [&str; 2] = ["read", "write"];

const PLAN_NAMES: [&str; 2] = ["default", "pro"];

/// Accounts of new keys. The gate has room for two teams.
const ACCOUNTS: [u32; 3] = [7, 8, 9];

const PEPPER: [u8; 32] = [1; 32];

/// The owner of a word: a key, or an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Key(KeyId),
    Account(u32),
}

/// What a request was charged in one tally.
#[derive(Clone, Copy)]
struct Charged {
    tally: usize,
    /// Which of the request's costs it is: 0 for its own.
    unit: usize,
    cost: u32,
    at_ms: u64,
}

/// The model of a key.
struct Known {
    key_id: KeyId,
    text: String,
    account: u32,
    plan: usize,
    /// One bit for each of [`SCOPES`].
    scopes: usize,
    is_revoked: bool,
    /// Charges that can be refunded, and their costs of groups by name.
    charges: Vec<(Charge, Vec<Charged>)>,
}

/// The model of an account.
struct Team {
    plan: usize,
    is_suspended: bool,
}

/// A tally of the gate: its section, and its model under each list of quotas. The model is `None`
/// if that list does not limit the section.
struct Tally {
    section: String,
    models: [Option<Model>; 3],
}

/// A gate and its model.
struct World<'m> {
    memory: &'m [CacheLine],
    gate: Gate<&'m [CacheLine]>,
    tallies: Vec<Tally>,
    /// The index of the list of quotas that each plan has.
    plans: [usize; 2],
    keys: Vec<Known>,
    teams: BTreeMap<u32, Team>,
    words: BTreeMap<(usize, Owner), u64>,
    drawn: u8,
}

/// A request: its costs, the groups that it names, and the scopes that it needs.
struct Request {
    cost: u32,
    groups: Vec<(&'static str, Option<u32>)>,
    scopes: usize,
}

/// Compares requests, refunds and settlements on a gate with sections with the model of each tally,
/// and an administrator's changes between them.
pub fn compound_calls(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let texts = bytes.pick(PLANS);
    let plans = [0, 1].map(|plan| plan_of(plan, texts[plan]));
    let config = GateConfig::new(12, Name::new("kt").unwrap(), &plans).with_plan_slots(2);
    let config = config.with_teams(2).with_scopes(&SCOPES);
    let memory: Vec<CacheLine> = (0..config.lines()).map(|_| CacheLine::new()).collect();
    let gate = Gate::init(&memory[..], &config, Peppers::new(&[PEPPER]).unwrap()).unwrap();
    let mut world = World {
        memory: &memory,
        gate,
        tallies: tallies_of(&texts),
        plans: [0, 1],
        keys: Vec::new(),
        teams: BTreeMap::new(),
        words: BTreeMap::new(),
        drawn: 0,
    };
    let mut clock = Clock::new(3600);
    for _ in 0..200 {
        if bytes.is_empty() {
            break;
        }
        let call = bytes.byte();
        let now_ms = clock.read(&mut bytes);
        let now = Timestamp::from_unix_ms(now_ms);
        match call % 32 {
            0..=14 => world.request(&mut bytes, now_ms),
            15..=17 => world.refund(&mut bytes, now_ms),
            18..=20 => world.settle(&mut bytes, now_ms),
            21..=22 => world.issue(&mut bytes, clock.latest_ms),
            23 => world.change_key(&mut bytes),
            24 => world.change_account(&mut bytes),
            25 => {
                let (plan, text) = (bytes.below(2), bytes.below(3));
                let changed = plan_of(plan, texts[text]);
                world.gate.administer().unwrap().set_plan(&changed).unwrap();
                world.plans[plan] = text;
            }
            26 => world.reset(&mut bytes, now_ms),
            27 => {
                let peppers = Peppers::new(&[PEPPER]).unwrap();
                world.gate = Gate::attach(world.memory, peppers).unwrap();
            }
            28 => {
                let text = bytes.rest();
                let part = world.gate.part(Some(&text[..text.len().min(64)]), 1);
                let refused = part.with_group("write").unwrap().check(now);
                assert_eq!(refused.outcome(), Outcome::InvalidKey);
                assert!(refused.tallies().len() == 1 && refused.holder().is_none());
            }
            29 => {
                let refused = world.gate.part(None, 1).check(now);
                assert_eq!(refused.outcome(), Outcome::MissingKey);
                check_response(&refused);
            }
            _ => world.verify_all(clock.latest_ms),
        }
    }
    world.verify_all(clock.latest_ms);
}

fn plan_of(plan: usize, text: &str) -> Plan {
    Plan::new(PLAN_NAMES[plan], text.parse().unwrap()).unwrap()
}

/// Returns the tallies of a gate whose plans have one of these lists of quotas.
fn tallies_of(texts: &[&str; 3]) -> Vec<Tally> {
    let lists = texts.map(|text| -> Vec<Option<Vec<String>>> {
        let sections = text.split("; ").map(|part| part.split_once(": ").map_or(part, |it| it.1));
        sections.map(|list| (list != "unlimited").then(|| in_tallies(list))).collect()
    });
    let mut tallies = Vec::new();
    for (number, part) in texts[0].split("; ").enumerate() {
        let name = part.split_once(": ").map_or("key", |it| it.0);
        let largest = lists[0][number].as_ref().unwrap();
        for (index, list) in largest.iter().enumerate() {
            let layout = model::Layout::from_policy(&model::parse_policy(list).unwrap());
            let models = [0, 1, 2].map(|text: usize| {
                let list = &lists[text][number].as_ref()?[index];
                Some(Model::with_layout(model::parse_policy(list).unwrap(), layout.clone()))
            });
            tallies.push(Tally { section: name.trim_start_matches("group ").to_owned(), models });
        }
    }
    tallies
}

/// Splits a list of quotas into those of each tally: one, or one for each quota.
fn in_tallies(list: &str) -> Vec<String> {
    match model::parse_policy(list) {
        Ok(_) => vec![list.to_owned()],
        Err(_) => list.split(", ").map(str::to_owned).collect(),
    }
}

/// Asserts that the response of a request can be written.
fn check_response(compound: &Compound) {
    let response = (compound.http_status(), compound.headers(), compound.problem());
    assert_eq!(response.0 == 200, compound.is_admitted());
    assert_eq!(compound.body().is_empty(), compound.is_admitted());
    assert_eq!(compound.verdicts().count(), compound.tallies().len());
}

impl World<'_> {
    /// Reads the index of a key. Returns `None` if there is none.
    fn pick(&self, bytes: &mut Bytes<'_>) -> Option<usize> {
        let number = bytes.below(256);
        (!self.keys.is_empty()).then(|| number % self.keys.len())
    }

    /// Returns the owner of a key's tally.
    fn owner(&self, key: usize, tally: usize) -> Owner {
        match self.tallies[tally].section.as_str() {
            "team" => Owner::Account(self.keys[key].account),
            _ => Owner::Key(self.keys[key].key_id),
        }
    }

    /// Returns the model of a key's tally; `None` if its plan does not limit it.
    fn model(&self, key: usize, tally: usize) -> Option<&Model> {
        let known = &self.keys[key];
        let plan = match self.owner(key, tally) {
            Owner::Account(account) => self.teams[&account].plan,
            Owner::Key(_) => known.plan,
        };
        self.tallies[tally].models[self.plans[plan]].as_ref()
    }

    fn word(&self, key: usize, tally: usize) -> u64 {
        self.words[&(tally, self.owner(key, tally))]
    }

    fn set_word(&mut self, key: usize, tally: usize, word: u64) {
        let owner = self.owner(key, tally);
        self.words.insert((tally, owner), word);
    }

    /// Returns the tallies that a request charges, with their models, costs, and which of the
    /// request's costs each is.
    fn charged(&self, key: usize, request: &Request) -> Vec<(usize, &Model, u32, usize)> {
        let all = self.tallies.iter().enumerate().filter_map(|(tally, its)| {
            let group = request.groups.iter().position(|(name, _)| *name == its.section);
            let (cost, unit) = match (its.section.as_str(), group) {
                ("key" | "team", _) => (request.cost, 0),
                (_, Some(index)) => match request.groups[index].1 {
                    Some(cost) => (cost, index + 1),
                    None => (request.cost, 0),
                },
                (_, None) => return None,
            };
            Some((tally, self.model(key, tally)?, cost, unit))
        });
        all.collect()
    }

    /// Returns why a request of a key is refused before its tallies are read.
    fn refusal(&self, key: usize, request: &Request) -> Option<(Outcome, Option<Reason>)> {
        let known = &self.keys[key];
        if known.is_revoked {
            Some((Outcome::InvalidKey, Some(Reason::Revoked)))
        } else if self.teams[&known.account].is_suspended {
            Some((Outcome::InvalidKey, Some(Reason::Suspended)))
        } else if request.scopes & !known.scopes != 0 {
            Some((Outcome::Forbidden, None))
        } else {
            None
        }
    }

    /// Makes a request, or peeks.
    fn request(&mut self, bytes: &mut Bytes<'_>, now_ms: u64) {
        let Some(key) = self.pick(bytes) else { return };
        let kind = bytes.byte();
        let mut request = Request { cost: bytes.cost(), groups: Vec::new(), scopes: 0 };
        let named = if kind & 3 == 3 { bytes.byte() } else { 0 };
        for (index, name) in GROUPS.into_iter().enumerate() {
            match named >> (2 * index) & 3 {
                0 => {}
                1 => request.groups.push((name, None)),
                _ => request.groups.push((name, Some(bytes.cost()))),
            }
        }
        if kind & 0xc == 0xc {
            request.scopes = bytes.below(4);
        }
        let is_peek = kind & 0x30 == 0x30;
        let now = Timestamp::from_unix_ms(now_ms);
        let text = self.keys[key].text.clone();
        if kind & 0x40 != 0 && request.groups.is_empty() && request.scopes == 0 {
            let compound = self.gate.part(Some(text.as_bytes()), request.cost).peek(now);
            let gate = &self.gate;
            let verdict = match is_peek {
                true => gate.peek(Some(text.as_bytes()), request.cost, now),
                false => gate.check(Some(text.as_bytes()), request.cost, now),
            };
            assert_eq!(
                (verdict.outcome(), verdict.reason()),
                (compound.outcome(), compound.reason())
            );
            assert!(verdict.charge().is_none());
            let is_charged = !is_peek && verdict.is_admitted();
            self.expect(key, &request, &compound, now_ms, is_charged, true);
            return;
        }
        let compound = {
            let mut part: GatePart<'_, _> = self.gate.part(Some(text.as_bytes()), request.cost);
            for &(name, cost) in &request.groups {
                part = match cost {
                    Some(cost) => part.with_group_cost(name, cost).unwrap(),
                    None => part.with_group(name).unwrap(),
                };
            }
            for (bit, name) in SCOPES.into_iter().enumerate() {
                if request.scopes >> bit & 1 == 1 {
                    part = part.with_scope(name).unwrap();
                }
            }
            match (kind & 0x80 != 0, is_peek) {
                (false, false) => part.check(now),
                (false, true) => part.peek(now),
                (true, _) => {
                    let parts: &[&dyn Part<Timestamp>] = &[&part];
                    if is_peek { peek_all(parts, now) } else { check_all(parts, now) }.unwrap()
                }
            }
        };
        check_response(&compound);
        self.expect(key, &request, &compound, now_ms, !is_peek && compound.is_admitted(), is_peek);
        if is_peek || !compound.is_admitted() {
            return;
        }
        let Some(charge) = compound.charge(0) else { return };
        let stored = Charge::from_bytes(&charge.to_bytes()).unwrap();
        assert_eq!(stored, charge);
        let charged: Vec<Charged> = {
            let real = compound.tallies().iter().filter_map(|tally| tally.verdict().charge());
            let all = self.charged(key, &request).into_iter().zip(real);
            all.map(|((tally, _, cost, unit), real)| {
                assert_eq!(real.cost(), cost);
                Charged { tally, unit, cost, at_ms: real.at().unix_ms() }
            })
            .collect()
        };
        self.keys[key].charges.push((charge, charged));
    }

    /// Compares the verdicts on a request with the model, and charges the model. `is_peek` says
    /// whether the verdicts are those of a peek.
    fn expect(
        &mut self,
        key: usize,
        request: &Request,
        compound: &Compound,
        now_ms: u64,
        is_charged: bool,
        is_peek: bool,
    ) {
        if let Some(refusal) = self.refusal(key, request) {
            assert_eq!((compound.outcome(), compound.reason()), refusal);
            assert_eq!(compound.holder().map(|it| it.key_id), Some(self.keys[key].key_id));
            assert_eq!(compound.tallies().len(), 1);
            return;
        }
        let charged = self.charged(key, request);
        let mut verdicts = compound.tallies().iter();
        if charged.first().is_none_or(|(tally, ..)| *tally > 0) {
            // The plan does not limit the key, which has a verdict without windows.
            let first = verdicts.next().unwrap();
            assert_eq!(first.section(), Some(&Section::Key));
            assert!(first.verdict().is_admitted() && first.verdict().quotas().is_empty());
        }
        let (mut admitted, mut next) = (true, Vec::new());
        assert_eq!(verdicts.len(), charged.len());
        for (&(tally, model, cost, _), real) in charged.iter().zip(verdicts) {
            let word = self.word(key, tally);
            let (checked, peeked) =
                (model.check(word, now_ms, cost), model.peek(word, now_ms, cost));
            assert_eq!(real.section().unwrap().name(), self.tallies[tally].section);
            assert_eq!(real.verdict().outcome().as_str(), checked.outcome.name());
            let is_shown = is_charged && !is_peek;
            assert_same_quotas(real.verdict(), if is_shown { &checked } else { &peeked });
            assert_eq!(real.verdict().charge().is_some(), is_shown);
            let retry_at = real.verdict().retry_at().map(|at| i128::from(at.unix_ms()));
            assert_eq!(retry_at, checked.retry_at_ms);
            admitted &= checked.outcome == model::Outcome::Admitted;
            next.push((tally, checked.next));
        }
        assert_eq!(compound.is_admitted(), admitted);
        if is_charged {
            next.into_iter().for_each(|(tally, word)| self.set_word(key, tally, word));
        }
    }

    fn refund(&mut self, bytes: &mut Bytes<'_>, now_ms: u64) {
        let Some(key) = self.pick(bytes) else { return };
        let Some((charge, charged)) = self.keys[key].charges.pop() else { return };
        let now = Timestamp::from_unix_ms(now_ms);
        let refunded = self.gate.refund(self.keys[key].key_id, charge, now).unwrap();
        for &Charged { tally, cost, at_ms, .. } in &charged {
            self.refund_model(key, tally, modeled_at(cost, at_ms), now_ms);
        }
        self.compare_first(key, &charged, &refunded, now_ms);
    }

    /// Compares the verdict on the first tally that was charged, if the plan still limits it.
    fn compare_first(&self, key: usize, charged: &[Charged], verdict: &Verdict, now_ms: u64) {
        let first = charged[0].tally;
        if let Some(model) = self.model(key, first) {
            assert_same_quotas(verdict, &model.peek(self.word(key, first), now_ms, 0));
        }
    }

    fn refund_model(&mut self, key: usize, tally: usize, charge: model::Charge, now_ms: u64) {
        let word = self.word(key, tally);
        // A plan that no longer limits the section has the layout of one that does.
        let any = self.tallies[tally].models.iter().flatten().next().unwrap();
        let next = self.model(key, tally).unwrap_or(any).refund(word, charge, now_ms);
        self.set_word(key, tally, next);
    }

    fn settle(&mut self, bytes: &mut Bytes<'_>, now_ms: u64) {
        let Some(key) = self.pick(bytes) else { return };
        let Some((charge, charged)) = self.keys[key].charges.pop() else { return };
        let kind = bytes.byte();
        let mut settlement = Settlement::new();
        let mut costs: Vec<(usize, u32)> = Vec::new();
        if kind & 1 == 1 {
            let actual = bytes.cost();
            settlement = settlement.with_cost(actual);
            costs.push((0, actual));
        }
        let mut groups = Vec::new();
        for (index, name) in GROUPS.into_iter().enumerate() {
            if kind >> (1 + index) & 1 == 1 {
                let actual = bytes.cost();
                settlement = settlement.with_group(name, actual);
                let is_it = |it: &&Charged| it.unit > 0 && self.tallies[it.tally].section == name;
                let unit = charged.iter().find(is_it).map(|it| it.unit);
                groups.push(unit.map_or(Err(actual), |unit| Ok((unit, actual))));
            }
        }
        let now = Timestamp::from_unix_ms(now_ms);
        let settled = self.gate.settle_all(self.keys[key].key_id, charge, &settlement, now);
        let settled = settled.unwrap();
        let mut rest = 0;
        for (unit, actual) in costs {
            rest = self.settle_model(key, &charged, unit, actual, now_ms);
        }
        assert_eq!(settled.verdict.uncharged(), rest);
        let mut uncharged = Vec::new();
        for group in groups {
            uncharged.push(match group {
                Ok((unit, actual)) => self.settle_model(key, &charged, unit, actual, now_ms),
                // A group without a cost of its own is not settled.
                Err(actual) => actual,
            });
        }
        assert_eq!(settled.uncharged(), uncharged);
        self.compare_first(key, &charged, &settled.verdict, now_ms);
    }

    /// Settles one cost of a request in the model. Returns the units that found no room.
    fn settle_model(
        &mut self,
        key: usize,
        charged: &[Charged],
        unit: usize,
        actual: u32,
        now_ms: u64,
    ) -> u32 {
        let all: Vec<Charged> = charged.iter().filter(|it| it.unit == unit).copied().collect();
        let Some(first) = all.first() else { return 0 };
        let Some(extra) = actual.checked_sub(first.cost) else {
            for Charged { tally, cost, at_ms, .. } in all {
                self.refund_model(key, tally, modeled_at(cost - actual, at_ms), now_ms);
            }
            return 0;
        };
        // The tallies that the plan still limits.
        let limited: Vec<(usize, Model)> = all
            .iter()
            .filter_map(|it| Some((it.tally, self.model(key, it.tally)?.clone())))
            .collect();
        let room = limited.iter().map(|(tally, model)| {
            let nothing = model::Charge { cost: 0, at_ms: now_ms };
            extra - model.settle(self.word(key, *tally), nothing, extra, now_ms).uncharged
        });
        let charged = room.min().unwrap_or(extra);
        for (tally, model) in limited {
            let next = model.check(self.word(key, tally), now_ms, charged).next;
            self.set_word(key, tally, next);
        }
        extra - charged
    }

    fn issue(&mut self, bytes: &mut Bytes<'_>, latest_ms: u64) {
        let (account, plan, scopes) = (bytes.pick(&ACCOUNTS), bytes.below(2), bytes.below(4));
        if self.keys.len() == 8 {
            return;
        }
        self.drawn += 1;
        let mut entropy = [self.drawn; 24];
        entropy[7] = self.drawn.wrapping_mul(31);
        let names: Vec<&str> =
            (0..2).filter(|bit| scopes >> bit & 1 == 1).map(|bit| SCOPES[bit]).collect();
        let new = NewKey::new(account, Name::new("live").unwrap())
            .with_plan(PLAN_NAMES[plan])
            .with_scopes(&names);
        let now = Timestamp::from_unix_ms(latest_ms);
        let issued = self.gate.administer().unwrap().issue(&new, Entropy::new(entropy), now);
        let is_full = self.teams.len() == 2 && !self.teams.contains_key(&account);
        let (key, key_id) = match issued {
            Ok(issued) => issued,
            Err(AdminError::TeamsFull { teams }) => {
                assert!(is_full && teams == 2);
                return;
            }
            Err(error) => panic!("{error}"),
        };
        assert!(!is_full);
        let is_new = !self.teams.contains_key(&account);
        self.teams.entry(account).or_insert(Team { plan, is_suspended: false });
        self.keys.push(Known {
            key_id,
            text: key.expose().to_owned(),
            account,
            plan,
            scopes,
            is_revoked: false,
            charges: Vec::new(),
        });
        let key = self.keys.len() - 1;
        for tally in 0..self.tallies.len() {
            if is_new || self.tallies[tally].section != "team" {
                let any = self.tallies[tally].models.iter().flatten().next().unwrap();
                let unused = any.reset(0, latest_ms);
                self.set_word(key, tally, unused);
            }
        }
    }

    /// Changes the scopes or the plan of a key, or revokes it.
    fn change_key(&mut self, bytes: &mut Bytes<'_>) {
        let Some(key) = self.pick(bytes) else { return };
        let known = &mut self.keys[key];
        let mut administrator = self.gate.administer().unwrap();
        let result = match bytes.below(8) {
            0 => {
                known.is_revoked = true;
                return administrator.revoke(known.key_id).unwrap();
            }
            1..=3 => {
                let plan = bytes.below(2);
                let assigned = administrator.assign(known.key_id, PLAN_NAMES[plan]);
                known.plan = if assigned.is_ok() { plan } else { known.plan };
                assigned
            }
            _ => {
                let scopes = bytes.below(4);
                let names: Vec<&str> =
                    (0..2).filter(|bit| scopes >> bit & 1 == 1).map(|bit| SCOPES[bit]).collect();
                let set = administrator.set_scopes(known.key_id, &names);
                known.scopes = if set.is_ok() { scopes } else { known.scopes };
                set
            }
        };
        match result {
            Ok(()) => assert!(!known.is_revoked),
            Err(error) => assert_eq!(error, AdminError::Revoked(known.key_id)),
        }
    }

    /// Suspends an account, ends that, or changes its plan.
    fn change_account(&mut self, bytes: &mut Bytes<'_>) {
        let account = bytes.pick(&ACCOUNTS);
        let mut administrator = self.gate.administer().unwrap();
        let (kind, plan) = (bytes.below(4), bytes.below(2));
        let result = match kind {
            0 | 1 => administrator.set_suspended(account, kind == 0),
            _ => administrator.assign_account(account, PLAN_NAMES[plan]),
        };
        match (self.teams.get_mut(&account), result) {
            (Some(team), Ok(())) if kind < 2 => team.is_suspended = kind == 0,
            (Some(team), Ok(())) => team.plan = plan,
            (None, Err(error)) => assert_eq!(error, AdminError::NoSuchAccount(account)),
            (_, result) => panic!("{result:?}"),
        }
    }

    /// Resets a key or an account.
    fn reset(&mut self, bytes: &mut Bytes<'_>, now_ms: u64) {
        let now = Timestamp::from_unix_ms(now_ms);
        let Some(key) = self.pick(bytes) else { return };
        let is_account = bytes.byte() & 1 == 1;
        if is_account {
            let account = self.keys[key].account;
            assert_eq!(self.gate.reset_account(account, now), Some(Outcome::Admitted));
        } else {
            assert!(self.gate.reset(self.keys[key].key_id, now).is_some());
        }
        for tally in 0..self.tallies.len() {
            if (self.tallies[tally].section == "team") == is_account {
                let any = self.tallies[tally].models.iter().flatten().next().unwrap();
                let next = any.reset(self.word(key, tally), now_ms);
                self.set_word(key, tally, next);
            }
        }
    }

    /// Compares the tallies of all keys and accounts, and checks that the verification of the gate
    /// finds no flaw.
    fn verify_all(&mut self, latest_ms: u64) {
        let now = Timestamp::from_unix_ms(latest_ms);
        let groups = GROUPS.map(|name| (name, None));
        let request = Request { cost: 0, groups: groups.to_vec(), scopes: 0 };
        for key in 0..self.keys.len() {
            let part = self.gate.part(Some(self.keys[key].text.as_bytes()), 0);
            let part = part.with_group("write").unwrap().with_group("tokens").unwrap();
            let compound = part.peek(now);
            self.expect(key, &request, &compound, latest_ms, false, true);
        }
        for info in self.gate.accounts(now) {
            let team = &self.teams[&info.account];
            assert_eq!((usize::from(info.plan), info.is_suspended), (team.plan, team.is_suspended));
        }
        assert_eq!(self.gate.accounts(now).count(), self.teams.len());
        assert_eq!(self.gate.list(now).count(), self.keys.len());
        self.gate.verify(now, |flaw| panic!("{flaw}"));
    }
}
