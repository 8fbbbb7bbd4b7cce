//! The functions of the class `Gate`.
#![expect(clippy::too_many_arguments, reason = "the JavaScript part names them")]

use alloc::rc::Rc;
use alloc::sync::Arc;
use core::time::Duration;

use keytally::redact::{parse_key_id, policy_error, redact_name};
use keytally::{
    AdminError as Admin, Followed, Gate, GateConfig, GatePart, KeyId, Mapping, Patience,
};
use keytally::{
    Administrator, Compound, Decided, Error, Left, Name, NewKey, Outcome, Peppers, Plan, Section,
    Settlement,
};
use keytally::{Clock as _, Timestamp, Verdict, Wait, pepper};
use napi::bindgen_prelude::{External, Uint8Array};
use napi_derive::napi;
use zeroize::Zeroizing;

use crate::charge;
use crate::clock::{Time, with_clock};
use crate::compound::{self, HeldPart};
use crate::errors::{Class, Result, error, from_admin_error, from_error, from_pepper_error};
use crate::facts::{self, milliseconds};
use crate::held::{HeldGate, SharedGate};
use crate::request::{GroupCost, Request, patience_of};
use crate::values::{Numbers, Text};

/// The options of a new gate.
#[napi(object)]
pub(crate) struct GateOptions {
    pub keys: Option<u32>,
    pub plans: Option<Vec<NamedPlan>>,
    pub prefix: Option<String>,
    pub teams: Option<u32>,
    pub scopes: Vec<String>,
    pub described: Option<String>,
}

/// A plan and the text of its sections.
#[napi(object)]
pub(crate) struct NamedPlan {
    pub name: String,
    pub sections: String,
}

/// The options of a new key.
#[napi(object)]
pub(crate) struct KeyOptions {
    pub account: u32,
    pub env: String,
    pub plan: Option<String>,
    /// In Unix seconds.
    pub expires: Option<f64>,
    pub scopes: Vec<String>,
}

/// A key that was just issued or rotated.
#[napi(object)]
pub(crate) struct IssuedKey {
    pub secret: String,
    pub key_id: String,
    pub hint: String,
}

/// Creates a gate in a new file, or in memory.
#[napi(catch_unwind)]
pub(crate) fn gate_create(
    path: Option<String>,
    pepper: Option<String>,
    pepper_file: Option<String>,
    options: GateOptions,
) -> Result<External<Rc<HeldGate>>> {
    let peppers = peppers(pepper, pepper_file)?;
    let config = config(options)?;
    let shared = match path {
        None => {
            SharedGate::Memory(Arc::new(Gate::in_memory(peppers, &config).map_err(from_error)?))
        }
        Some(path) => {
            let gate = follow(peppers, |peppers| Gate::create(path, peppers, &config))?;
            SharedGate::File(Arc::new(gate))
        }
    };
    Ok(External::new(Rc::new(HeldGate::new(shared))))
}

/// Opens the gate in a file.
#[napi(catch_unwind)]
pub(crate) fn gate_open(
    path: String,
    pepper: Option<String>,
    pepper_file: Option<String>,
    fleet: Option<String>,
    credit_wait_s: Option<f64>,
) -> Result<External<Rc<HeldGate>>> {
    let peppers = peppers(pepper, pepper_file)?;
    let gate = follow(peppers, |peppers| Gate::open(path, peppers))?;
    if let Some(wait_s) = credit_wait_s {
        let wait = Duration::try_from_secs_f64(wait_s).unwrap_or(Duration::MAX);
        gate.load().set_credit_wait(wait);
    }
    if let Some(fleet) = fleet {
        gate.join(fleet).map_err(from_error)?;
    }
    Ok(External::new(Rc::new(HeldGate::new(SharedGate::File(Arc::new(gate))))))
}

fn follow(
    peppers: Peppers,
    make: impl FnOnce(Peppers) -> core::result::Result<Gate, Error>,
) -> Result<Followed> {
    let gate = make(peppers.clone()).map_err(from_error)?;
    Followed::from_gate(gate, peppers, Ok).map_err(from_error)
}

/// Checks a key, or only peeks, and writes the facts of the verdict. Returns the number of its
/// quotas. If the gate's plans have further sections, returns what [`compound::write`] does.
#[napi(catch_unwind)]
pub(crate) fn gate_check(
    held: &External<Rc<HeldGate>>,
    mode: u32,
    api_key: Text,
    cost: u32,
    now: f64,
    mut facts: Numbers,
) -> i32 {
    let (now, patience) = (Time::from(now), patience_of(mode));
    let answer = held.shared.call(|gate| {
        let generation = held.generation(gate);
        let table = gate.counted_with(patience.unwrap_or(Patience::Return));
        if table.is_extended() {
            let compound = decided(table.part(api_key.bytes(), cost), gate, patience, now);
            let written = compound::write(&compound, &[Some((gate, generation))], facts.as_mut());
            return Answer { written, outcome: compound.outcome(), left: compound.left() };
        }
        let verdict = with_clock!(now, gate.clock(), |clock| match patience {
            Some(_) => table.check(api_key.bytes(), cost, clock),
            None => table.peek(api_key.bytes(), cost, clock),
        });
        let written = write(&verdict, generation, &mut facts);
        Answer { written, outcome: verdict.outcome(), left: Vec::new() }
    });
    answer.written
}

/// Checks a part, or only peeks.
fn decided(
    part: GatePart<'_, Mapping>,
    gate: &Gate,
    patience: Option<Patience>,
    now: Time,
) -> Compound {
    with_clock!(now, gate.precise_clock(), |clock| match patience {
        Some(_) => part.check(clock),
        None => part.peek(clock),
    })
}

/// The result of a check whose facts were written. The verdicts are large, so they are not moved.
struct Answer {
    written: i32,
    outcome: Outcome,
    left: Vec<Left>,
}

impl Decided for Answer {
    fn outcome(&self) -> Outcome {
        self.outcome
    }

    fn left(&self) -> Vec<Left> {
        self.left.clone()
    }
}

/// Writes the facts of a verdict, and returns the number of its quotas.
#[inline]
fn write(verdict: &Verdict, generation: u32, facts: &mut Numbers) -> i32 {
    i32::try_from(facts::write(verdict, generation, facts.as_mut())).unwrap_or_default()
}

/// Checks a key with the groups and scopes of a request, or only peeks.
#[napi(catch_unwind)]
pub(crate) fn gate_request(
    held: &External<Rc<HeldGate>>,
    mode: u32,
    api_key: Text,
    cost: u32,
    request: Request,
    now: f64,
    mut facts: Numbers,
) -> Result<i32> {
    let (now, patience) = (Time::from(now), patience_of(mode));
    let (compound, gate) = held.shared.call_shared(|gate| {
        let table = gate.counted_with(patience.unwrap_or(Patience::Return));
        let part = request.part(table, api_key.bytes(), cost)?;
        Ok::<_, napi::Error<Class>>(decided(part, gate, patience, now))
    });
    let generation = held.generation(&gate);
    Ok(compound::write(&compound?, &[Some((&gate, generation))], facts.as_mut()))
}

/// Returns a key and a request as a part of a compound charge.
#[napi(catch_unwind)]
pub(crate) fn gate_part(
    held: &External<Rc<HeldGate>>,
    api_key: Text,
    cost: u32,
    request: Request,
) -> Result<External<HeldPart>> {
    HeldPart::key(Rc::clone(held), api_key.bytes(), cost, request).map(External::new)
}

/// Takes a charge back, and writes the facts of the verdict on its first tally.
#[napi(catch_unwind)]
pub(crate) fn gate_refund(
    held: &External<Rc<HeldGate>>,
    key_id: String,
    charge: Uint8Array,
    now: f64,
    mut facts: Numbers,
) -> Result<i32> {
    let (key_id, charge) = (key_id_of(&key_id)?, charge::parse(&charge)?);
    let now = Time::from(now);
    let mut generation = 0;
    let verdict = held.shared.call(|gate| {
        generation = held.generation(gate);
        with_clock!(now, gate.precise_clock(), |clock| gate.counted().refund(key_id, charge, clock))
    });
    write_of_key(verdict, key_id, generation, &mut facts)
}

/// Sets all counts of a key to 0, and writes the facts of the verdict.
#[napi(catch_unwind)]
pub(crate) fn gate_reset(
    held: &External<Rc<HeldGate>>,
    key_id: String,
    now: f64,
    mut facts: Numbers,
) -> Result<i32> {
    let key_id = key_id_of(&key_id)?;
    let now = Time::from(now);
    let mut generation = 0;
    let verdict = held.shared.call(|gate| {
        generation = held.generation(gate);
        with_clock!(now, gate.precise_clock(), |clock| gate.table().reset(key_id, clock))
    });
    write_of_key(verdict, key_id, generation, &mut facts)
}

fn write_of_key(
    verdict: Option<Verdict>,
    key_id: KeyId,
    generation: u32,
    facts: &mut Numbers,
) -> Result<i32> {
    let verdict = verdict.ok_or_else(|| no_such_key(key_id))?;
    Ok(write(&verdict, generation, facts))
}

/// Replaces an estimated charge by the actual cost. Writes the facts of the verdict, or returns the
/// verdicts of all tallies if the gate's plans have further sections.
#[napi(catch_unwind)]
pub(crate) fn gate_settle(
    held: &External<Rc<HeldGate>>,
    key_id: String,
    estimate: Uint8Array,
    actual: Option<u32>,
    costs: Vec<GroupCost>,
    overdraw: bool,
    now: f64,
    mut facts: Numbers,
) -> Result<SettledCosts> {
    let (key_id, estimate) = (key_id_of(&key_id)?, charge::parse(&estimate)?);
    let request = Request { costs, ..Request::default() };
    let now = Time::from(now);
    // Returns an error if the gate does not have a group.
    request.part(held.shared.current().counted(), None, 0)?;
    let mut settlement = Settlement::new().with_overdraw(overdraw);
    settlement.cost = actual;
    for GroupCost { name, cost } in &request.costs {
        settlement = settlement.with_group(name, *cost);
    }
    let (settled, gate) = held.shared.call_shared(|gate| {
        with_clock!(now, gate.precise_clock(), |clock| gate.counted().settle_all(
            key_id,
            estimate,
            &settlement,
            clock
        ))
    });
    let settled = settled.ok_or_else(|| no_such_key(key_id))?;
    let uncharged = request.costs.iter().zip(settled.uncharged().iter());
    let uncharged: Vec<GroupCost> = uncharged
        .map(|(group, cost)| GroupCost { name: group.name.clone(), cost: *cost })
        .collect();
    let generation = held.generation(&gate);
    let written = match gate.table().is_extended() {
        true => compound::write(settled.compound(), &[Some((&gate, generation))], facts.as_mut()),
        false => write(&settled.verdict, generation, &mut facts),
    };
    Ok(SettledCosts { written, uncharged })
}

/// What [`gate_check`] returns, and the units that a settlement could not charge.
#[napi(object)]
pub(crate) struct SettledCosts {
    pub written: i32,
    pub uncharged: Vec<GroupCost>,
}

/// Issues a key.
#[napi(catch_unwind)]
pub(crate) fn gate_issue(
    held: &External<Rc<HeldGate>>,
    options: KeyOptions,
    now: f64,
    wait: f64,
) -> Result<IssuedKey> {
    let (now, new) = (Time::from(now), New::from_options(options)?);
    let entropy = keytally::entropy().map_err(from_error)?;
    let issued = administer(held, wait, |administrator| {
        new.with_key(|key| with_clock!(now, |clock| administrator.issue(key, entropy, clock)))
    });
    let (key, key_id) = issued.map_err(|error| new.named_in(error, &held.shared.current()))?;
    Ok(issued_key(&key, key_id))
}

/// Imports keys, and returns their ids.
#[napi(catch_unwind)]
pub(crate) fn gate_import(
    held: &External<Rc<HeldGate>>,
    keys: Vec<Uint8Array>,
    options: KeyOptions,
    now: f64,
    wait: f64,
) -> Result<Vec<String>> {
    let (now, new) = (Time::from(now), New::from_options(options)?);
    let mut key_ids = Vec::new();
    for batch in keys.chunks(keytally::CHANGES_PER_LOCK) {
        import_batch(held, batch, &new, now, wait, &mut key_ids)
            .map_err(|error| new.named_in(error, &held.shared.current()))?;
    }
    Ok(key_ids)
}

/// Imports keys under one lock, and appends their key ids.
///
/// A key that is in the gate already, for the same account, is not an error.
fn import_batch(
    held: &HeldGate,
    batch: &[Uint8Array],
    new: &New,
    now: Time,
    wait: f64,
    key_ids: &mut Vec<String>,
) -> Result<()> {
    let mut refused = None;
    waiting(held, wait, |gate, wait| {
        gate.administer_within(wait, |administrator| {
            for key in batch {
                let imported = new.with_key(|new| {
                    with_clock!(now, |clock| administrator.import(key, new, clock))
                });
                match imported {
                    Ok(key_id) => key_ids.push(key_id.to_string()),
                    Err(Admin::AlreadyImported(key_id))
                        if gate.key(key_id).is_some_and(|info| info.account == new.account) =>
                    {
                        key_ids.push(key_id.to_string());
                    }
                    Err(error) => {
                        refused = Some(error);
                        return Ok(());
                    }
                }
            }
            Ok(())
        })
    })?;
    match refused {
        None => Ok(()),
        Some(error) => {
            let sentence =
                format!("key {}: {error}; the keys before it are imported", key_ids.len() + 1);
            Err(from_admin_error(&error, sentence))
        }
    }
}

/// Gives a key a new secret.
#[napi(catch_unwind)]
pub(crate) fn gate_rotate(
    held: &External<Rc<HeldGate>>,
    key_id: String,
    grace_s: f64,
    force: bool,
    now: f64,
    wait: f64,
) -> Result<IssuedKey> {
    let (now, key_id) = (Time::from(now), key_id_of(&key_id)?);
    let entropy = keytally::entropy().map_err(from_error)?;
    let grace_ms = facts::time(grace_s * 1000.0);
    let until = |now: Timestamp| {
        (grace_ms > 0).then(|| Timestamp::from_unix_ms(now.unix_ms().saturating_add(grace_ms)))
    };
    let key = administer(held, wait, |administrator| {
        with_clock!(now, |clock| {
            administrator.rotate(key_id, until(clock.reading()), force, entropy, clock)
        })
    })?;
    Ok(issued_key(&key, key_id))
}

/// Revokes a key permanently.
#[napi(catch_unwind)]
pub(crate) fn gate_revoke(held: &External<Rc<HeldGate>>, key_id: String, wait: f64) -> Result<()> {
    let key_id = key_id_of(&key_id)?;
    administer(held, wait, |administrator| administrator.revoke(key_id))
}

/// Sets when a key expires, in Unix seconds.
#[napi(catch_unwind)]
pub(crate) fn gate_expire(
    held: &External<Rc<HeldGate>>,
    key_id: String,
    expires: Option<f64>,
    wait: f64,
) -> Result<()> {
    let (key_id, not_after) = (key_id_of(&key_id)?, expires.map(seconds));
    administer(held, wait, |administrator| administrator.expire(key_id, not_after))
}

/// Ends the previous secret of a key.
#[napi(catch_unwind)]
pub(crate) fn gate_end_grace(
    held: &External<Rc<HeldGate>>,
    key_id: String,
    wait: f64,
) -> Result<()> {
    let key_id = key_id_of(&key_id)?;
    administer(held, wait, |administrator| administrator.end_grace(key_id))
}

/// Assigns a key to another plan.
#[napi(catch_unwind)]
pub(crate) fn gate_assign(
    held: &External<Rc<HeldGate>>,
    key_id: String,
    plan: String,
    wait: f64,
) -> Result<()> {
    let key_id = key_id_of(&key_id)?;
    administer(held, wait, |administrator| administrator.assign(key_id, &plan))
        .map_err(|error| named_plan(error, &plan, &held.shared.current()))
}

/// Replaces the scopes of a key.
#[napi(catch_unwind)]
pub(crate) fn gate_set_scopes(
    held: &External<Rc<HeldGate>>,
    key_id: String,
    scopes: Vec<String>,
    wait: f64,
) -> Result<()> {
    let key_id = key_id_of(&key_id)?;
    let names: Vec<&str> = scopes.iter().map(String::as_str).collect();
    administer(held, wait, |administrator| administrator.set_scopes(key_id, &names))
        .map_err(|error| named_scope(error, &scopes, &held.shared.current()))
}

/// The properties of an account.
#[napi(object)]
pub(crate) struct AccountFacts {
    pub account: u32,
    pub is_suspended: bool,
    pub plan: Option<String>,
    pub has_own_limits: bool,
    pub quotas: Vec<f64>,
}

fn account_facts(info: &keytally::AccountInfo, gate: &Gate) -> AccountFacts {
    AccountFacts {
        account: info.account,
        is_suspended: info.is_suspended,
        plan: gate.table().plan(info.plan).map(|plan| plan.name.as_str().to_owned()),
        has_own_limits: info.has_own_limits,
        quotas: facts::quotas(info.quotas().iter().flat_map(|quotas| quotas.iter())),
    }
}

/// Returns the properties of an account.
#[napi(catch_unwind)]
pub(crate) fn gate_account(
    held: &External<Rc<HeldGate>>,
    account: u32,
    now: f64,
) -> Option<AccountFacts> {
    let gate = held.shared.current();
    let info = gate.table().account(account, Time::from(now).timestamp_for(&gate))?;
    Some(account_facts(&info, &gate))
}

/// Returns the properties of all accounts.
#[napi(catch_unwind)]
pub(crate) fn gate_accounts(held: &External<Rc<HeldGate>>, now: f64) -> Vec<AccountFacts> {
    let gate = held.shared.current();
    let infos = gate.table().accounts(Time::from(now).timestamp_for(&gate));
    infos.map(|info| account_facts(&info, &gate)).collect()
}

/// Refuses all keys of an account, or accepts them again.
#[napi(catch_unwind)]
pub(crate) fn gate_set_suspended(
    held: &External<Rc<HeldGate>>,
    account: u32,
    is_suspended: bool,
    wait: f64,
) -> Result<()> {
    administer(held, wait, |administrator| administrator.set_suspended(account, is_suspended))
}

/// Lets the team limits of another plan hold for an account.
#[napi(catch_unwind)]
pub(crate) fn gate_assign_account(
    held: &External<Rc<HeldGate>>,
    account: u32,
    plan: String,
    wait: f64,
) -> Result<()> {
    administer(held, wait, |administrator| administrator.assign_account(account, &plan))
        .map_err(|error| named_plan(error, &plan, &held.shared.current()))
}

/// Gives an account limits of its own.
#[napi(catch_unwind)]
pub(crate) fn gate_limit_account(
    held: &External<Rc<HeldGate>>,
    account: u32,
    limits: String,
    wait: f64,
) -> Result<()> {
    let quotas = crate::policy::quotas_of_account(&limits)?;
    administer(held, wait, |administrator| administrator.limit_account(account, &quotas))
}

/// Sets the counts that all keys of an account share to 0.
#[napi(catch_unwind)]
pub(crate) fn gate_reset_account(
    held: &External<Rc<HeldGate>>,
    account: u32,
    now: f64,
) -> Result<()> {
    let now = Time::from(now);
    let outcome = held.shared.call(|gate| {
        with_clock!(now, gate.precise_clock(), |clock| gate.table().reset_account(account, clock))
    });
    match outcome {
        Some(Outcome::Unavailable) => {
            Err(error("BusyError", "the counts of this account are being moved; try again"))
        }
        Some(_) => Ok(()),
        None => {
            let error = Admin::NoSuchAccount(account);
            Err(from_admin_error(&error, error.to_string()))
        }
    }
}

/// Adds a plan, or changes the limits of a plan.
#[napi(catch_unwind)]
pub(crate) fn gate_set_plan(
    held: &External<Rc<HeldGate>>,
    name: String,
    sections: String,
    wait: f64,
) -> Result<()> {
    let plan = plan(&name, &sections)?;
    administer(held, wait, |administrator| administrator.set_plan(&plan))
}

/// The public properties of a key.
#[napi(object)]
pub(crate) struct KeyFacts {
    pub key_id: String,
    pub account: u32,
    pub env: Option<String>,
    pub plan: Option<String>,
    pub state: String,
    pub hint: String,
    pub expires: Option<f64>,
    pub grace_until: Option<f64>,
    pub last_used: Option<f64>,
    pub pepper: u32,
    pub scopes: Vec<String>,
    pub clock_ahead_s: u32,
    pub quotas: Vec<f64>,
}

fn key_facts(info: &keytally::KeyInfo, gate: &Gate, now: Timestamp) -> KeyFacts {
    let table = gate.table();
    let unix_s = |time: Timestamp| milliseconds(Timestamp::from_unix_ms(time.unix_s()));
    KeyFacts {
        key_id: info.key_id.to_string(),
        account: info.account,
        env: info.env.map(|env| env.to_string()),
        plan: table.plan(info.plan).map(|plan| plan.name.as_str().to_owned()),
        state: info.state_name(now).to_owned(),
        hint: info.hint(table.prefix()).to_string(),
        expires: info.expires.map(unix_s),
        grace_until: info.grace_until.map(unix_s),
        last_used: info.last_used.map(unix_s),
        pepper: u32::from(info.pepper),
        scopes: table.scopes_of(info).map(|scope| scope.to_string()).collect(),
        clock_ahead_s: info.clock_ahead_s,
        quotas: facts::quotas(info.quotas.iter()),
    }
}

/// Returns the public properties of all keys.
#[napi(catch_unwind)]
pub(crate) fn gate_list(held: &External<Rc<HeldGate>>, now: f64) -> Vec<KeyFacts> {
    let gate = held.shared.current();
    let now = Time::from(now).timestamp_for(&gate);
    gate.table().list(now).map(|info| key_facts(&info, &gate, now)).collect()
}

/// Returns the public properties of a key.
#[napi(catch_unwind)]
pub(crate) fn gate_key(
    held: &External<Rc<HeldGate>>,
    key_id: String,
    now: f64,
) -> Result<Option<KeyFacts>> {
    let gate = held.shared.current();
    let now = Time::from(now).timestamp_for(&gate);
    let info = gate.table().key(key_id_of(&key_id)?, now);
    Ok(info.map(|info| key_facts(&info, &gate, now)))
}

/// Begins to count how each key is used, or ends it.
#[napi(catch_unwind)]
pub(crate) fn gate_set_usage(
    held: &External<Rc<HeldGate>>,
    is_counted: bool,
    wait: f64,
) -> Result<()> {
    waiting(held, wait, |gate, wait| gate.set_usage_within(wait, is_counted))
}

/// Puts the gate in a fleet, or takes it out of it.
#[napi(catch_unwind)]
pub(crate) fn gate_set_fleet(
    held: &External<Rc<HeldGate>>,
    is_in_fleet: bool,
    wait: f64,
) -> Result<()> {
    waiting(held, wait, |gate, wait| gate.set_fleet_within(wait, is_in_fleet))
}

/// Returns whether requests of the gate need credits of a fleet.
#[napi(catch_unwind)]
pub(crate) fn gate_is_in_fleet(held: &External<Rc<HeldGate>>) -> bool {
    held.shared.current().is_in_fleet()
}

/// How a key was used.
#[napi(object)]
pub(crate) struct UsageFacts {
    pub admitted: u32,
    pub with_previous_secret: u32,
    pub units: f64,
    pub denied_by_key: u32,
    pub denied_by_team: u32,
    pub denied_by_group: u32,
    pub forbidden: u32,
    pub revoked: u32,
    pub expired: u32,
    pub suspended: u32,
    pub last_used: Option<f64>,
}

/// Returns how a key was used.
#[napi(catch_unwind)]
pub(crate) fn gate_key_usage(
    held: &External<Rc<HeldGate>>,
    key_id: String,
) -> Result<Option<UsageFacts>> {
    let usage = held.shared.current().key_usage(key_id_of(&key_id)?);
    Ok(usage.map(|usage| UsageFacts {
        admitted: usage.admitted(),
        with_previous_secret: usage.with_previous_secret(),
        units: milliseconds(Timestamp::from_unix_ms(usage.units())),
        denied_by_key: usage.denied_by_key(),
        denied_by_team: usage.denied_by_team(),
        denied_by_group: usage.denied_by_group(),
        forbidden: usage.forbidden(),
        revoked: usage.revoked(),
        expired: usage.expired(),
        suspended: usage.suspended(),
        last_used: usage
            .last_used()
            .map(|time| milliseconds(Timestamp::from_unix_ms(time.unix_s()))),
    }))
}

/// A record that is not valid.
#[napi(object)]
pub(crate) struct FlawFacts {
    pub record: u32,
    pub key_id: Option<String>,
    pub kind: String,
    pub sentence: String,
}

/// The flaws of a gate, and whether a change was completed.
#[napi(object)]
pub(crate) struct ReportFacts {
    pub completed: bool,
    pub flaws: Vec<FlawFacts>,
}

/// Reads the whole gate and reports its flaws.
#[napi(catch_unwind)]
pub(crate) fn gate_verify(
    held: &External<Rc<HeldGate>>,
    now: f64,
    wait: f64,
) -> Result<ReportFacts> {
    let (now, mut flaws) = (Time::from(now), Vec::new());
    let completed = waiting(held, wait, |gate, wait| {
        with_clock!(now, gate.precise_clock(), |clock| gate
            .verify_within(wait, clock, |flaw| flaws.push(flaw)))
    })?;
    let flaw_facts = |flaw: &keytally::Flaw| FlawFacts {
        record: flaw.record,
        key_id: flaw.key_id.map(|key_id| key_id.to_string()),
        kind: flaw.kind.as_str().to_owned(),
        sentence: flaw.to_string(),
    };
    Ok(ReportFacts { completed, flaws: flaws.iter().map(flaw_facts).collect() })
}

/// Opens the gate's file again.
#[napi(catch_unwind)]
pub(crate) fn gate_reopen(held: &External<Rc<HeldGate>>) -> Result<()> {
    match &held.shared {
        SharedGate::Memory(_) => Ok(()),
        SharedGate::File(gate) => gate.reopen().map_err(from_error),
    }
}

/// Corrects every tally that is ahead of the clock.
#[napi(catch_unwind)]
pub(crate) fn gate_correct_clock(held: &External<Rc<HeldGate>>, now: f64) -> f64 {
    let gate = held.shared.current();
    let corrected = with_clock!(Time::from(now), gate.precise_clock(), |clock| gate
        .table()
        .correct_clock(clock));
    milliseconds(Timestamp::from_unix_ms(corrected))
}

/// The properties of a gate.
#[napi(object)]
pub(crate) struct GateFacts {
    pub path: Option<String>,
    pub plans: Vec<NamedPlan>,
    pub prefix: String,
    pub capacity: u32,
    pub team_capacity: u32,
    pub sections: Vec<String>,
    pub scopes: Vec<String>,
    pub described: Option<String>,
    pub reopened: f64,
    pub reopen_problem: Option<String>,
}

/// Returns the properties of a gate.
#[napi(catch_unwind)]
pub(crate) fn gate_facts(held: &External<Rc<HeldGate>>) -> GateFacts {
    let gate = held.shared.current();
    let table = gate.table();
    let status = match &held.shared {
        SharedGate::Memory(_) => keytally::FollowStatus::default(),
        SharedGate::File(gate) => gate.status(),
    };
    let plans = table.plans().map(|(_, plan)| NamedPlan {
        name: plan.name.as_str().to_owned(),
        sections: plan.sections.to_string(),
    });
    GateFacts {
        path: gate.path().map(|path| path.to_string_lossy().into_owned()),
        plans: plans.collect(),
        prefix: table.prefix().to_string(),
        capacity: table.capacity(),
        team_capacity: table.team_capacity(),
        sections: table.sections().iter().map(Section::name).map(str::to_owned).collect(),
        scopes: table.scopes().map(|scope| scope.to_string()).collect(),
        described: table.described().map(|window| window.to_string()),
        reopened: milliseconds(Timestamp::from_unix_ms(status.reopened)),
        reopen_problem: status.problem,
    }
}

/// The names of a key's plan and environment.
#[napi(object)]
pub(crate) struct HolderNames {
    pub plan: Option<String>,
    pub env: Option<String>,
}

/// Returns the names of the plan and the environment with these numbers.
#[napi(catch_unwind)]
pub(crate) fn gate_names(
    held: &External<Rc<HeldGate>>,
    generation: u32,
    plan: u8,
    env: u8,
) -> HolderNames {
    let (plan, env) = held.names(generation, plan, env);
    HolderNames { plan, env }
}

/// Returns the facts of the verdict on a request with more than one key header.
#[napi(catch_unwind)]
pub(crate) fn duplicate_header(now: f64) -> Vec<f64> {
    let verdict = Verdict::duplicate_header(Time::from(now).timestamp());
    facts::list(&verdict)
}

/// Returns the time of these Unix seconds.
fn seconds(unix_s: f64) -> Timestamp {
    Timestamp::from_unix_s(facts::time(unix_s))
}

fn issued_key(key: &keytally::Key, key_id: KeyId) -> IssuedKey {
    IssuedKey {
        secret: key.expose().to_owned(),
        key_id: key_id.to_string(),
        hint: key.hint().to_string(),
    }
}

/// Parses a key id.
fn key_id_of(text: &str) -> Result<KeyId> {
    parse_key_id(text).map_err(|sentence| error("KeyIdError", sentence))
}

/// Calls `work` with the gate at the path, and a wait of at most `wait_s` seconds. If a migration
/// replaces the gate before `work` changes anything, calls it again with the new one.
fn waiting<T>(
    held: &HeldGate,
    wait_s: f64,
    mut work: impl FnMut(&Gate, Wait<'_>) -> core::result::Result<T, Error>,
) -> Result<T> {
    let at_most = Duration::try_from_secs_f64(wait_s).unwrap_or(Duration::MAX);
    let wait = Wait::at_most(at_most);
    let result = match &held.shared {
        SharedGate::Memory(gate) => work(gate, wait),
        SharedGate::File(gate) => gate.change_within(wait, |gate, wait| work(gate, wait)),
    };
    result.map_err(from_error)
}

/// Calls `work` with the administrator of the gate at the path.
fn administer<T>(
    held: &HeldGate,
    wait_s: f64,
    work: impl FnOnce(&mut Administrator<'_, Mapping>) -> core::result::Result<T, Admin>,
) -> Result<T> {
    let mut work = Some(work);
    waiting(held, wait_s, |gate, wait| {
        gate.administer_within(wait, |administrator| match work.take() {
            Some(work) => work(administrator),
            // Not reached: only a call that did not begin is repeated.
            None => Err(Admin::Busy),
        })
    })
}

/// Returns the error for a key that the gate does not have.
fn no_such_key(key_id: KeyId) -> napi::Error<Class> {
    let error = Admin::NoSuchKey(key_id);
    from_admin_error(&error, error.to_string())
}

/// Names the plan in an error about a plan that the gate does not have.
fn named_plan(mut found: napi::Error<Class>, plan: &str, gate: &Gate) -> napi::Error<Class> {
    if found.status.as_ref() != "NoSuchPlanError" {
        return found;
    }
    let plans: Vec<_> = gate.table().plans().map(|(_, plan)| plan.name.to_string()).collect();
    let sentence = format!(
        "the gate has no plan {:?}; its plans are: {}",
        redact_name(plan),
        plans.join(", ")
    );
    found.reason = found.reason.replace(&Admin::NoSuchPlan.to_string(), &sentence);
    found
}

/// Names the scope in an error about a scope that the gate does not have.
fn named_scope(
    mut found: napi::Error<Class>,
    scopes: &[String],
    gate: &Gate,
) -> napi::Error<Class> {
    let known: Vec<_> = gate.table().scopes().map(|scope| scope.to_string()).collect();
    let unknown = scopes.iter().find(|scope| !known.contains(scope));
    if let (Some(scope), "NoSuchScopeError") = (unknown, found.status.as_ref()) {
        let scope = redact_name(scope);
        let sentence = match known.join(", ").as_str() {
            "" => format!("the gate has no scope {scope:?}; it was created without scopes"),
            known => format!("the gate has no scope {scope:?}; its scopes are: {known}"),
        };
        found.reason = found.reason.replace(&Admin::NoSuchScope.to_string(), &sentence);
    }
    found
}

/// The details of a new key. Unlike [`NewKey`], it owns the names of the plan and the scopes.
struct New {
    account: u32,
    env: Name,
    plan: Option<String>,
    expires: Option<Timestamp>,
    scopes: Vec<String>,
}

impl New {
    fn from_options(options: KeyOptions) -> Result<Self> {
        let KeyOptions { account, env, plan, expires, scopes } = options;
        let expires = expires.map(seconds);
        Ok(Self { account, env: name(&env, "env")?, plan, expires, scopes })
    }

    /// Calls `work` with the properties as host takes them.
    fn with_key<T>(&self, work: impl FnOnce(&NewKey<'_>) -> T) -> T {
        let scopes: Vec<&str> = self.scopes.iter().map(String::as_str).collect();
        let key = NewKey::new(self.account, self.env).with_expires(self.expires);
        let mut key = key.with_scopes(&scopes);
        key.plan = self.plan.as_deref();
        work(&key)
    }

    /// Names the plan or the scope in an error about it.
    fn named_in(&self, error: napi::Error<Class>, gate: &Gate) -> napi::Error<Class> {
        let error = named_plan(error, self.plan.as_deref().unwrap_or_default(), gate);
        named_scope(error, &self.scopes, gate)
    }
}

/// Parses the name of an environment, or the prefix of all keys.
fn name(text: &str, option: &str) -> Result<Name> {
    Name::new(text).ok_or_else(|| {
        let text = redact_name(text);
        let sentence =
            format!("{option} is {text:?}, and must be 1 to 8 characters of a-z and 0-9");
        error("CreateError", sentence)
    })
}

/// Returns the plan of this name and these sections.
fn plan(name: &str, sections: &str) -> Result<Plan> {
    let parsed =
        sections.parse().map_err(|problem| error("PolicyError", policy_error(&problem)))?;
    Plan::new(name, parsed).ok_or_else(|| {
        let name = redact_name(name);
        let sentence = format!(
            "{name:?} is not a valid plan name: it must be 1 to 16 characters of a-z, 0-9, - and _"
        );
        error("CreateError", sentence)
    })
}

/// Returns the configuration of a new gate.
fn config(options: GateOptions) -> Result<GateConfig> {
    let mut config = GateConfig::default().with_scopes(options.scopes);
    if let Some(keys) = options.keys {
        config.keys = keys;
    }
    if let Some(prefix) = options.prefix {
        config.prefix = name(&prefix, "prefix")?;
    }
    config.teams = options.teams;
    if let Some(described) = options.described {
        let window = described.parse();
        let window = window.map_err(|problem| error("PolicyError", policy_error(&problem)))?;
        config.described = Some(window);
    }
    if let Some(plans) = options.plans {
        config.plans = plans
            .iter()
            .map(|NamedPlan { name, sections }| plan(name, sections))
            .collect::<Result<_>>()?;
    }
    Ok(config)
}

/// Returns the peppers in a text, in a file, or in the environment variables.
///
/// Without a text and a file, `KEYTALLY_PEPPER_FILE` is used if it is set, and `KEYTALLY_PEPPER`
/// otherwise, as in the program `keytally`.
fn peppers(text: Option<String>, file: Option<String>) -> Result<Peppers> {
    let parsed = match (text.map(Zeroizing::new), file) {
        (Some(_), Some(_)) => {
            return Err(error(
                "PepperError",
                "pepper and pepperFile are both given; leave one out",
            ));
        }
        (Some(text), None) => pepper::parse(&text),
        (None, Some(file)) => pepper::read_file(file),
        (None, None) => match (variable("KEYTALLY_PEPPER_FILE"), variable("KEYTALLY_PEPPER")) {
            (Some(file), _) => pepper::read_file(file),
            (None, Some(text)) => {
                let text = Zeroizing::new(text.into_encoded_bytes());
                let text = core::str::from_utf8(&text).map_err(|_| {
                    error("PepperError", "KEYTALLY_PEPPER is neither hex nor base64")
                })?;
                pepper::parse(text)
            }
            (None, None) => {
                return Err(error(
                    "PepperError",
                    "no pepper was given: pass pepper or pepperFile, or set KEYTALLY_PEPPER; \
                     generatePepper() makes a new one",
                ));
            }
        },
    };
    parsed.map_err(from_pepper_error)
}

/// Returns the environment variable, unless it is empty.
fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}
