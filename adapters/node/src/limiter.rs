//! The functions of the class `Limiter`.

use alloc::sync::Arc;
use core::time::Duration;

use keytally::redact::policy_error;
use keytally::{Address, AddressLimiter, AddressPolicy, AttachError, Compound, Limiter, OnFull};
use keytally::{Patience, Policy, Settlement, TableKind, Timestamp, Verdict};
use napi::bindgen_prelude::{External, Uint8Array};
use napi_derive::napi;

use crate::charge;
use crate::clock::{Time, with_clock};
use crate::compound::{self, HeldPart};
use crate::errors::{Result, error, from_error};
use crate::facts::{self, milliseconds};
use crate::request::patience_of;
use crate::values::{Numbers, Text};

/// The table of a limiter.
pub(crate) enum Table {
    Subjects(Arc<Limiter>),
    Addresses(Arc<AddressLimiter>),
}

impl From<Limiter> for Table {
    fn from(limiter: Limiter) -> Self {
        Self::Subjects(Arc::new(limiter))
    }
}

impl From<AddressLimiter> for Table {
    fn from(limiter: AddressLimiter) -> Self {
        Self::Addresses(Arc::new(limiter))
    }
}

/// Evaluates `$work` for the table of a limiter, whichever it is.
macro_rules! with_table {
    ($limiter:expr, |$table:ident| $work:expr) => {
        match &**$limiter {
            Table::Subjects($table) => $work,
            Table::Addresses($table) => $work,
        }
    };
}

/// The policy of a limiter.
enum Limits {
    Subjects(Policy),
    Addresses(AddressPolicy),
}

impl Limits {
    fn parse(text: &str) -> Result<Self> {
        let problem = |problem| error("PolicyError", policy_error(&problem));
        if AddressPolicy::is_beginning(text) {
            return text.parse().map(Self::Addresses).map_err(problem);
        }
        text.parse().map(Self::Subjects).map_err(problem)
    }
}

/// How a limiter in a file is made.
const CREATE: u32 = 0;
const OPEN_OR_CREATE: u32 = 1;

/// Creates a limiter in memory without a path, else in a file: a new one if `how` is [`CREATE`],
/// or the one that is there if it is [`OPEN_OR_CREATE`].
#[napi(catch_unwind)]
pub(crate) fn limiter_create(
    path: Option<String>,
    policy: String,
    capacity: u32,
    on_full: Option<String>,
    how: u32,
) -> Result<External<Table>> {
    let made = match (Limits::parse(&policy)?, path, how) {
        (Limits::Subjects(policy), None, _) => {
            Limiter::in_memory(&policy, capacity).map(Table::from)
        }
        (Limits::Addresses(policy), None, _) => {
            AddressLimiter::in_memory(&policy, capacity).map(Table::from)
        }
        (Limits::Subjects(policy), Some(path), CREATE) => {
            Limiter::create(path, &policy, capacity).map(Table::from)
        }
        (Limits::Addresses(policy), Some(path), CREATE) => {
            AddressLimiter::create(path, &policy, capacity).map(Table::from)
        }
        (Limits::Subjects(policy), Some(path), OPEN_OR_CREATE) => {
            Limiter::open_or_create(path, &policy, capacity).map(Table::from)
        }
        (Limits::Addresses(policy), Some(path), _) => {
            AddressLimiter::open_or_create(path, &policy, capacity).map(Table::from)
        }
        (Limits::Subjects(policy), Some(path), _) => {
            Limiter::open_or_create(path, &policy, capacity).map(Table::from)
        }
    };
    let limiter = External::new(made.map_err(from_error)?);
    if let Some(on_full) = on_full {
        limiter_set_on_full(&limiter, on_full)?;
    }
    Ok(limiter)
}

/// Opens the limiter in a file.
#[napi(catch_unwind)]
pub(crate) fn limiter_open(path: String) -> Result<External<Table>> {
    let opened = match Limiter::open(&path) {
        Err(keytally::Error::Attach {
            source: AttachError::Kind { found: TableKind::AddressLimiter, .. },
            ..
        }) => AddressLimiter::open(path).map(Table::from),
        opened => opened.map(Table::from),
    };
    opened.map(External::new).map_err(from_error)
}

/// Parses the address of a client. The error does not repeat the text, which may be a key.
fn address(text: &[u8]) -> Result<Address> {
    core::str::from_utf8(text).ok().and_then(Address::parse).ok_or_else(|| {
        error(
            "RangeError",
            "the subject is not an address, such as 203.0.113.9 or 2001:db8::1: the policy of \
             this limiter counts addresses",
        )
    })
}

/// Writes the facts of a verdict, and returns the number of its quotas.
#[inline]
fn answer(verdict: &Verdict, facts: &mut Numbers) -> i32 {
    i32::try_from(facts::write(verdict, 0, facts.as_mut())).unwrap_or_default()
}

/// Writes the facts of the verdicts on all networks of an address.
fn answer_all(compound: &Compound, facts: &mut Numbers) -> i32 {
    compound::write(compound, &[], facts.as_mut())
}

/// Writes the facts of the verdict, or of the verdicts on an address, that `$work` returns for a
/// table and its subject. `$patience` is what a request does that lacks credits of a fleet.
macro_rules! written {
    (
        $self:expr,
        $patience:expr,
        $subject:expr,
        $facts:expr,
        |$limiter:ident, $table:ident, $named:ident| $work:expr
    ) => {
        match &**$self {
            Table::Subjects($limiter) => {
                let $table = $limiter.reserving($patience);
                let $named = $subject.bytes_or_empty();
                Ok(answer(&$work, &mut $facts))
            }
            Table::Addresses($limiter) => {
                let $table = $limiter.reserving($patience);
                let $named = address($subject.bytes_or_empty())?;
                Ok(answer_all(&$work, &mut $facts))
            }
        }
    };
}

/// Charges a subject, or only peeks. `mode` is as in `gate_check`.
#[napi(catch_unwind)]
pub(crate) fn limiter_check(
    limiter: &External<Table>,
    mode: u32,
    subject: Text,
    cost: u32,
    now: f64,
    mut facts: Numbers,
) -> Result<i32> {
    let (now, patience) = (Time::from(now), patience_of(mode));
    let is_peek = patience.is_none();
    let patience = patience.unwrap_or(Patience::Return);
    written!(limiter, patience, subject, facts, |limiter, table, named| {
        with_clock!(now, limiter.clock(), |clock| match is_peek {
            true => table.peek(named, cost, clock),
            false => table.check(named, cost, clock),
        })
    })
}

/// Sets how long requests of this process wait for credits of a fleet, and joins the fleet of this
/// machine if there is one.
#[napi(catch_unwind)]
pub(crate) fn limiter_join(
    limiter: &External<Table>,
    fleet: Option<String>,
    credit_wait_s: f64,
) -> Result<()> {
    let wait = Duration::try_from_secs_f64(credit_wait_s).unwrap_or(Duration::MAX);
    with_table!(limiter, |limiter| {
        limiter.set_credit_wait(wait);
        fleet.map_or(Ok(()), |fleet| limiter.join(fleet)).map_err(from_error)
    })
}

/// Puts the limiter in a fleet, or takes it out of it.
#[napi(catch_unwind)]
pub(crate) fn limiter_set_fleet(limiter: &External<Table>, is_in_fleet: bool) -> Result<()> {
    with_table!(limiter, |limiter| limiter.set_fleet(is_in_fleet)).map_err(from_error)
}

/// Returns whether requests of the limiter need credits of a fleet.
#[napi(catch_unwind)]
pub(crate) fn limiter_is_in_fleet(limiter: &External<Table>) -> bool {
    with_table!(limiter, |limiter| limiter.is_in_fleet())
}

/// Takes a charge back.
#[napi(catch_unwind)]
pub(crate) fn limiter_refund(
    limiter: &External<Table>,
    subject: Text,
    charge: Uint8Array,
    now: f64,
    mut facts: Numbers,
) -> Result<i32> {
    let (now, charge) = (Time::from(now), charge::parse(&charge)?);
    written!(limiter, Patience::Return, subject, facts, |limiter, table, named| {
        with_clock!(now, limiter.precise_clock(), |clock| table.refund(named, charge, clock))
    })
}

/// Replaces an estimated charge by the actual cost.
#[napi(catch_unwind)]
pub(crate) fn limiter_settle(
    limiter: &External<Table>,
    subject: Text,
    estimate: Uint8Array,
    actual: u32,
    overdraw: bool,
    now: f64,
    mut facts: Numbers,
) -> Result<i32> {
    let (now, estimate) = (Time::from(now), charge::parse(&estimate)?);
    let settlement = Settlement::new().with_cost(actual).with_overdraw(overdraw);
    written!(limiter, Patience::Return, subject, facts, |limiter, table, named| {
        with_clock!(now, limiter.precise_clock(), |clock| table.settle_all(
            named,
            estimate,
            &settlement,
            clock
        ))
    })
}

/// Sets all counts of a subject to 0.
#[napi(catch_unwind)]
pub(crate) fn limiter_reset(
    limiter: &External<Table>,
    subject: Text,
    now: f64,
    mut facts: Numbers,
) -> Result<i32> {
    let now = Time::from(now);
    written!(limiter, Patience::Return, subject, facts, |limiter, table, named| {
        with_clock!(now, limiter.precise_clock(), |clock| table.reset(named, clock))
    })
}

/// Returns a subject and a cost as a part of a compound charge.
#[napi(catch_unwind)]
pub(crate) fn limiter_part(
    limiter: &External<Table>,
    subject: Text,
    cost: u32,
) -> Result<External<HeldPart>> {
    let subject = subject.bytes_or_empty();
    Ok(External::new(match &**limiter {
        Table::Subjects(limiter) => HeldPart::subject(Arc::clone(limiter), subject, cost),
        Table::Addresses(limiter) => {
            HeldPart::address(Arc::clone(limiter), address(subject)?, cost)
        }
    }))
}

/// Sets all counts of every subject to 0, and returns how many subjects had counts.
#[napi(catch_unwind)]
pub(crate) fn limiter_reset_all(limiter: &External<Table>, now: f64) -> f64 {
    let now = Time::from(now);
    count(with_table!(limiter, |limiter| with_clock!(now, limiter.precise_clock(), |clock| {
        limiter.table().reset_all(clock)
    })))
}

/// Corrects every tally that is ahead of the clock, and returns their number.
#[napi(catch_unwind)]
pub(crate) fn limiter_correct_clock(limiter: &External<Table>, now: f64) -> f64 {
    let now = Time::from(now);
    count(with_table!(limiter, |limiter| with_clock!(now, limiter.precise_clock(), |clock| {
        limiter.table().correct_clock(clock)
    })))
}

/// Returns how many subjects have a slot that no other subject can get yet.
#[napi(catch_unwind)]
pub(crate) fn limiter_live_subjects(limiter: &External<Table>, now: f64) -> f64 {
    let now = Time::from(now).timestamp();
    count(with_table!(limiter, |limiter| limiter.table().live_subjects(now)))
}

/// Sets what happens to a new subject that finds no slot.
#[napi(catch_unwind)]
pub(crate) fn limiter_set_on_full(limiter: &External<Table>, on_full: String) -> Result<()> {
    let on_full: OnFull = on_full
        .parse()
        .map_err(|_| error("RangeError", "onFull must be \"share\" or \"refuse\""))?;
    with_table!(limiter, |limiter| limiter.set_on_full(on_full));
    Ok(())
}

/// The properties of a limiter.
#[napi(object)]
pub(crate) struct LimiterFacts {
    pub path: Option<String>,
    pub policy: Option<String>,
    pub on_full: String,
    pub refusals: f64,
    pub capacity: u32,
    pub slots_total: f64,
}

/// Returns the properties of a limiter.
#[napi(catch_unwind)]
pub(crate) fn limiter_facts(limiter: &External<Table>) -> LimiterFacts {
    with_table!(limiter, |limiter| LimiterFacts {
        path: limiter.path().map(|path| path.to_string_lossy().into_owned()),
        policy: limiter.policy().map(|policy| policy.to_string()),
        on_full: limiter.on_full().as_str().to_owned(),
        refusals: count(limiter.refusals()),
        capacity: limiter.table().capacity(),
        slots_total: count(limiter.table().slots_total()),
    })
}

/// Returns a count as a number of JavaScript.
fn count(number: u64) -> f64 {
    milliseconds(Timestamp::from_unix_ms(number))
}
