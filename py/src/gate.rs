//! The class `Gate`, a table of API keys.

use alloc::sync::Arc;
use core::cell::RefCell;
use core::time::Duration;
use std::path::PathBuf;

use keytally::redact::redact_name;
use keytally::{AdminError as Admin, Decided, Left, NewKey, Outcome};
use keytally::{Administrator, Clock as _, Name, Peppers, Section, Timestamp};
use keytally::{DEFAULT_CREDIT_WAIT, Error, Followed, Gate as Host, GateConfig, Mapping, Patience};
use keytally::{Settlement, Wait};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyMapping, PyTuple};
use zeroize::Zeroizing;

use crate::account::AccountInfo;
use crate::arguments::{
    self, Account, Cost, CreditWait, Expiry, Grace, Groups, KeyIdText, Keys, Moment, Need, Scopes,
    Teams, WaitTime, with_api_key, with_bytes,
};
use crate::charge::ChargeArgument;
use crate::clock::{Time, with_clock};
use crate::compound::{Part, SharedGate};
use crate::exceptions::{self, NoSuchKeyError, NoSuchPlanError, NoSuchScopeError};
use crate::key::{Key, KeyInfo};
use crate::report::Report;
use crate::request::{Costs, Request};
use crate::sections::{self, Sections, SectionsArgument};
use crate::usage::KeyUsage;
use crate::verdict::Verdict;

/// A table of API keys with their counts, in memory or in a file that any number of processes
/// share.
///
/// `check` verifies a key and charges every window of its quota atomically. Any number of threads
/// and processes may use one gate at once. Together they admit exactly the limit. A check does not
/// wait for another thread or process.
///
/// **Changes.** An administrator is a thread or process that changes keys or plans. A method that
/// changes them waits while another administrator does so, at most for ``wait``: a timedelta,
/// or seconds. After that, it raises `BusyError`, which names the other process. Ctrl-C ends the
/// wait. If the gate's file was removed, the method raises `TableError`. If the file was replaced
/// by one that cannot be opened, the method raises the error of ``open``.
///
/// **Replacement.** If another file is renamed over the gate's file, a check uses the new file
/// after at most a second. While the new file cannot be opened, the old one stays in use, and
/// ``reopen_problem`` has the reason.
///
/// **Fleet.** Machines whose gates are in a fleet share one limit through a Redis or Valkey. Each
/// has an agent, the program ``keytally agent``, which leases units from the store into the fleet
/// file of the gate. `set_fleet` puts a gate in a fleet, and ``open`` with ``fleet`` lets this
/// process spend these units, which are credits. A check that finds none waits for them, at most
/// for ``credit_wait``. Other Python threads run meanwhile. In an event loop, use `acheck`, as the
/// middleware for async frameworks does. If the agent or the store is lost, the choice of its
/// operator decides. An explicit time is used as it is also here: a store grants nothing for a
/// window that has not begun. Without one, the time is that of the store's clock.
///
/// **Time.** A tally is the counts of one key and their time, in one 64-bit word. Every method that
/// depends on the time takes ``now``, an explicit time: Unix seconds, as ``time.time()`` returns
/// them, or a datetime with a time zone. Without it, the method uses the system clock, and reads it
/// again if a tally is ahead of the first reading. A tally that is more than 60 s ahead of the
/// system clock is corrected and keeps its counts.
///
/// An explicit time is used as it is and corrects nothing, even if it is a reading of the system
/// clock. If it is earlier than the tally's own time, the tally's time is used. If it is far ahead,
/// the tally moves there and keeps its counts until that time comes. ``clock_ahead_s`` of a verdict
/// reports that. Each decision is made at one such time (``Charge.at_ms``), and counts in the
/// window that contains it. Counted by these times, a window never admits more than its limit, even
/// if the explicit times of callers disagree. In real time, callers whose times differ by five
/// seconds can together use the windows of a period that is five seconds longer. If explicit times
/// more than 60 s ahead alternate with the system clock, each alternation admits one more window.
///
/// **Peppers.** ``create``, ``open`` and ``in_memory`` take the peppers, the server's HMAC secrets.
/// ``pepper`` is their text: one to four, separated by commas, newest last. Each is hex or base64
/// of at least 32 bytes. ``pepper_file`` is a file with one pepper per line. Only its owner may
/// have access to it. A file of root may also be readable by others, as systemd, Kubernetes and
/// Docker provide secrets, but only root may write it. The file may be a pipe, and ``"-"`` is
/// standard input. Without both arguments, the environment variable ``KEYTALLY_PEPPER_FILE`` names
/// the file. If it is not set, ``KEYTALLY_PEPPER`` is the text.
///
/// >>> import os, tempfile, keytally
/// >>> path = os.path.join(tempfile.mkdtemp(), "api.gate")
/// >>> secret = keytally.generate_pepper()
/// >>> gate = keytally.Gate.create(path, pepper=secret, plans={"default": "100/minute, 1000/hour"})
/// >>> key = gate.issue(42)
/// >>> verdict = gate.check(key.expose())
/// >>> verdict.admitted, verdict.account, verdict.remaining
/// (True, 42, 999)
/// >>> other = keytally.Gate.open(path, pepper=secret)
/// >>> other.revoke(key.key_id)
/// >>> gate.check(key.expose()).http_status
/// 401
#[pyclass(frozen, module = "keytally")]
pub(crate) struct Gate {
    held: SharedGate,
    /// The path of the fleet file, as it was given.
    fleet: Option<PathBuf>,
    /// How long a request waits for credits of the fleet.
    credit_wait: Duration,
}

/// The result of a check: of the key's tally, or of all that the request charges.
enum Answer {
    Verdict(keytally::Verdict),
    Compound(Box<keytally::Compound>),
}

impl Decided for Answer {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Verdict(verdict) => verdict.outcome(),
            Self::Compound(compound) => compound.outcome(),
        }
    }

    fn left(&self) -> Vec<Left> {
        match self {
            Self::Verdict(_) => Vec::new(),
            Self::Compound(compound) => compound.left(),
        }
    }
}

/// Checks with a gate or a limiter, and pauses in the event loop while credits are requested.
pub(crate) fn acheck<'py>(
    table: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    static ACHECK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let acheck = ACHECK.import(table.py(), "keytally._fleet", "acheck")?;
    let mut all = vec![table.clone()];
    all.extend(args.iter());
    acheck.call(PyTuple::new(table.py(), all)?, kwargs)
}

/// How long a request waits for credits of a fleet by default.
const CREDIT_WAIT: CreditWait = CreditWait(DEFAULT_CREDIT_WAIT);

/// How long a change waits for another administrator by default.
const WAIT: WaitTime = WaitTime(Duration::from_secs(10));

#[pymethods]
impl Gate {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = None)]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        Err(PyTypeError::new_err(
            "Gate has no constructor; call Gate.in_memory, Gate.create or Gate.open",
        ))
    }

    /// Creates a gate in a new file, with mode 0600. Its space on the disk is allocated at once.
    ///
    /// Args:
    ///     path: The path of the new file, on a local file system. It must not exist yet.
    ///     pepper, pepper_file: The pepper, see the class.
    ///     keys: The capacity in keys, 1 to 67108864. Each takes 72 bytes, and 8 to 64 more if the
    ///         plans have further sections, or if the gate has teams or scopes.
    ///     plans: The plans by name, each `Sections`, a `Policy`, or the text of either: 1 to 116,
    ///         with the same sections, windows and algorithms. The first is the plan of keys that
    ///         are issued without one. The default is ``{"default": "100/minute, 1000/hour"}``.
    ///     prefix: The first part of every key, 1 to 8 characters of ``a-z`` and ``0-9``.
    ///     teams: The capacity in accounts, 0 to 67108864. Each takes 64 bytes. The default is
    ///         ``keys`` if the plans have a section ``team``, and else 0.
    ///     scopes: The names of the scopes that keys may have: at most 64, of 1 to 16 characters
    ///         each.
    ///     described: The window that ``X-RateLimit-*`` describe, such as ``"month"``: one of the
    ///         quotas of keys. The default is the longest of at most a day, or the shortest if all
    ///         are longer.
    ///
    /// Raises:
    ///     FileExistsError: The path exists.
    ///     PepperError, PolicyError, CreateError: An argument is not valid.
    ///     OSError: The operating system reports an error.
    ///
    /// >>> import os, tempfile, keytally
    /// >>> path = os.path.join(tempfile.mkdtemp(), "api.gate")
    /// >>> plans = {"default": "100/minute, 1000/hour", "pro": "1000/minute, 20000/hour"}
    /// >>> pepper = keytally.generate_pepper()
    /// >>> gate = keytally.Gate.create(path, pepper=pepper, keys=1000, plans=plans)
    /// >>> gate.prefix, gate.capacity, str(gate.path) == path
    /// ('kt', 1000, True)
    ///
    /// All keys of an account share the quotas of the section ``team``:
    ///
    /// >>> plans = {"default": "100/minute; team: 5000/hour; group write: 20/minute"}
    /// >>> path = os.path.join(tempfile.mkdtemp(), "api.gate")
    /// >>> scopes = ["read", "write"]
    /// >>> gate = keytally.Gate.create(path, pepper=pepper, keys=9, plans=plans, scopes=scopes)
    /// >>> gate.sections, gate.team_capacity, gate.scopes
    /// (('key', 'team', 'write'), 9, ('read', 'write'))
    ///
    /// >>> plans = {"default": "100/minute, 30000/month"}
    /// >>> gate = keytally.Gate.in_memory(pepper=pepper, plans=plans, described="month")
    /// >>> gate.described, gate.check(gate.issue(42).expose()).limit
    /// ('month', 30000)
    #[staticmethod]
    #[pyo3(signature = (path, *, pepper=None, pepper_file=None, keys=Keys(100_000), plans=None, prefix="kt", teams=None, scopes=None, described=None), text_signature = "(path, *, pepper=None, pepper_file=None, keys=100000, plans=None, prefix=\"kt\", teams=None, scopes=(), described=None)")]
    #[expect(clippy::too_many_arguments, reason = "callers in Python name them")]
    fn create(
        py: Python<'_>,
        path: PathBuf,
        pepper: Option<String>,
        pepper_file: Option<PathBuf>,
        keys: Keys,
        plans: Option<&Bound<'_, PyMapping>>,
        prefix: &str,
        teams: Option<Teams>,
        scopes: Option<Scopes>,
        described: Option<&str>,
    ) -> PyResult<Self> {
        let peppers = arguments::peppers(pepper, pepper_file)?;
        let config = config(&keys, plans, prefix, teams, scopes, described)?;
        let gate = Self::follow(py, peppers, |peppers| Host::create(path, peppers, &config))?;
        Ok(Self::new_held(SharedGate::File(gate.into())))
    }

    /// Opens the gate in a file.
    ///
    /// Args:
    ///     path: The path of the file.
    ///     pepper, pepper_file: The pepper that its keys were issued with, see the class.
    ///     fleet: The path of the fleet file of this machine, if the gate shares its limits with
    ///         other machines. The machine's agent creates the file, see the class.
    ///     credit_wait: How long a request waits for credits of the fleet at most, as a timedelta
    ///         or in seconds.
    ///
    /// Raises:
    ///     FileNotFoundError: The path does not exist, or no agent has created the fleet file.
    ///     TableError: A file is not a gate or not its fleet file, is damaged, belongs to another
    ///         user, or all users have access to it. Also if the gate has sliding windows, which
    ///         machines cannot share.
    ///     PepperError: The pepper is not valid, cannot be read, or belongs to another gate.
    ///     OSError: The operating system reports an error.
    ///
    /// >>> import os, tempfile, keytally
    /// >>> path = os.path.join(tempfile.mkdtemp(), "api.gate")
    /// >>> secret = keytally.generate_pepper()
    /// >>> key = keytally.Gate.create(path, pepper=secret, keys=1000).issue(42)
    /// >>> keytally.Gate.open(path, pepper=secret).check(key.expose()).account
    /// 42
    #[staticmethod]
    #[pyo3(signature = (path, *, pepper=None, pepper_file=None, fleet=None, credit_wait=CREDIT_WAIT), text_signature = "(path, *, pepper=None, pepper_file=None, fleet=None, credit_wait=0.02)")]
    fn open(
        py: Python<'_>,
        path: PathBuf,
        pepper: Option<String>,
        pepper_file: Option<PathBuf>,
        fleet: Option<PathBuf>,
        credit_wait: CreditWait,
    ) -> PyResult<Self> {
        let peppers = arguments::peppers(pepper, pepper_file)?;
        let gate = Self::follow(py, peppers, |peppers| Host::open(path, peppers))?;
        gate.load().set_credit_wait(credit_wait.0);
        if let Some(path) = &fleet {
            py.detach(|| gate.join(path)).map_err(exceptions::from_error)?;
        }
        Ok(Self { held: SharedGate::File(gate.into()), fleet, credit_wait: credit_wait.0 })
    }

    /// Creates a gate in memory, for tests, or for one process and the children that it forks.
    ///
    /// Args:
    ///     pepper, pepper_file: The pepper, see the class.
    ///     keys, plans, prefix, teams, scopes, described: As in `create`.
    ///
    /// Raises:
    ///     PepperError, PolicyError, CreateError: An argument is not valid.
    ///     OSError: The operating system reports an error.
    ///
    /// >>> import keytally
    /// >>> pepper = keytally.generate_pepper()
    /// >>> gate = keytally.Gate.in_memory(pepper=pepper, plans={"default": "5/minute"})
    /// >>> gate
    /// <Gate in memory>
    #[staticmethod]
    #[pyo3(signature = (*, pepper=None, pepper_file=None, keys=Keys(100_000), plans=None, prefix="kt", teams=None, scopes=None, described=None), text_signature = "(*, pepper=None, pepper_file=None, keys=100000, plans=None, prefix=\"kt\", teams=None, scopes=(), described=None)")]
    #[expect(clippy::too_many_arguments, reason = "callers in Python name them")]
    fn in_memory(
        py: Python<'_>,
        pepper: Option<String>,
        pepper_file: Option<PathBuf>,
        keys: Keys,
        plans: Option<&Bound<'_, PyMapping>>,
        prefix: &str,
        teams: Option<Teams>,
        scopes: Option<Scopes>,
        described: Option<&str>,
    ) -> PyResult<Self> {
        let peppers = arguments::peppers(pepper, pepper_file)?;
        let config = config(&keys, plans, prefix, teams, scopes, described)?;
        let gate =
            py.detach(|| Host::in_memory(peppers, &config)).map_err(exceptions::from_error)?;
        Ok(Self::new_held(SharedGate::Memory(Arc::new(gate))))
    }

    /// Verifies the key, then charges ``cost`` to every window of its plan, if all of them have
    /// room.
    ///
    /// If the plans have further sections, the section ``team`` and those of ``groups`` are charged
    /// too: all or none. If a window lacks room, nothing is charged. The duration of a check does
    /// not depend on how much of a secret is correct.
    ///
    /// Args:
    ///     api_key: The value of the ``X-API-Key`` header, or ``None`` if the request has none. If
    ///         a request has several, use ``Verdict.duplicate_header()`` instead of a check.
    ///     cost: The cost in units, 0 to 4294967295. A cost of 0 is always admitted.
    ///     groups: The groups of the gate's plans that are charged ``cost``: a name, or several.
    ///     costs: The groups that are charged a cost of their own, such as ``{"tokens": 2500}``.
    ///     need: The scopes that the key must have: a name, or several. Without one of them, the
    ///         outcome is ``"forbidden"``.
    ///     now: An explicit time, see the class; the system clock by default.
    ///
    /// Raises:
    ///     ValueError: The gate does not have a group or a scope.
    ///     TypeError, ValueError: An argument has the wrong type or is out of range. No text that a
    ///         client sends raises an exception: the verdict reports that the key is invalid.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> gate.check(None).body
    /// b'{"error": "Missing X-API-Key header"}'
    /// >>> gate.check("not a key").reason
    /// 'malformed'
    ///
    /// A request that writes, and uses 2500 tokens of a language model:
    ///
    /// >>> plans = {"default": "100/minute; group write: 20/minute; group tokens: 9000/minute"}
    /// >>> pepper = keytally.generate_pepper()
    /// >>> gate = keytally.Gate.in_memory(pepper=pepper, plans=plans, scopes=["write"])
    /// >>> key = gate.issue(42, scopes=["write"]).expose()
    /// >>> verdict = gate.check(key, groups="write", costs={"tokens": 2500}, need="write")
    /// >>> [(tally.section, tally.verdict.remaining) for tally in verdict.tallies]
    /// [('key', 99), ('write', 19), ('tokens', 6500)]
    /// >>> gate.check(key, groups="delete")
    /// Traceback (most recent call last):
    /// ValueError: the plans of this gate have no group "delete"
    #[pyo3(signature = (api_key, cost=Cost(1), *, groups=None, costs=None, need=None, now=None), text_signature = "($self, api_key, cost=1, *, groups=(), costs=None, need=None, now=None)")]
    fn check(
        slf: &Bound<'_, Self>,
        api_key: &Bound<'_, PyAny>,
        cost: Cost,
        groups: Option<Groups>,
        costs: Option<Costs>,
        need: Option<Need>,
        now: Option<Moment>,
    ) -> PyResult<Verdict> {
        let (gate, now) = (slf.get(), Time::from(now));
        let request = Request::new(groups, costs, need);
        with_api_key(api_key, |api_key| {
            let check = |patience| gate.checked(api_key, cost, request.as_ref(), now, patience);
            let verdict = check(Patience::Return)?;
            if !verdict.is_waiting() {
                return Ok(verdict);
            }
            // Other Python threads run while this one waits.
            slf.py().detach(|| check(Patience::Wait))
        })?
    }

    /// Checks as `check` does, and waits in the event loop for credits of a fleet.
    ///
    /// Other tasks run meanwhile. In a gate that is not in a fleet, it never waits. If the task is
    /// canceled while it waits, nothing is charged. It runs in asyncio and in trio.
    ///
    /// Args:
    ///     api_key, cost, groups, costs, need, now: As in `check`.
    ///
    /// Raises:
    ///     TypeError, ValueError: As in `check`.
    ///
    /// >>> import asyncio, keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> key = gate.issue(42).expose()
    /// >>> async def handler():
    /// ...     return await gate.acheck(key, 3)
    /// >>> asyncio.run(handler()).remaining
    /// 997
    #[pyo3(signature = (*args, **kwargs), text_signature = "($self, api_key, cost=1, *, groups=(), costs=None, need=None, now=None)")]
    fn acheck<'py>(
        slf: &Bound<'py, Self>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        acheck(slf.as_any(), args, kwargs)
    }

    /// Checks as `check` does, but does not wait for credits of a fleet.
    ///
    /// While the agent requests them, the outcome is ``"unavailable"``, the ``unavailability`` of
    /// the verdict is ``"waiting"``, and nothing is charged. An event loop for which `acheck` is
    /// not made checks again after a millisecond, and calls `check_without_wait` after
    /// ``credit_wait_s``.
    ///
    /// Args:
    ///     api_key, cost, groups, costs, need, now: As in `check`.
    ///
    /// Raises:
    ///     TypeError, ValueError: As in `check`.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> gate.try_check(gate.issue(42).expose()).remaining
    /// 999
    #[pyo3(signature = (api_key, cost=Cost(1), *, groups=None, costs=None, need=None, now=None), text_signature = "($self, api_key, cost=1, *, groups=(), costs=None, need=None, now=None)")]
    fn try_check(
        slf: &Bound<'_, Self>,
        api_key: &Bound<'_, PyAny>,
        cost: Cost,
        groups: Option<Groups>,
        costs: Option<Costs>,
        need: Option<Need>,
        now: Option<Moment>,
    ) -> PyResult<Verdict> {
        let (now, request) = (Time::from(now), Request::new(groups, costs, need));
        with_api_key(api_key, |api_key| {
            slf.get().checked(api_key, cost, request.as_ref(), now, Patience::Return)
        })?
    }

    /// Checks as `check` does after a wait for credits of a fleet that had no effect.
    ///
    /// If there are still no credits, the choice of the agent's operator decides: the outcome is
    /// ``"unavailable"``, or the request is decided by the counts of this machine alone.
    ///
    /// Args:
    ///     api_key, cost, groups, costs, need, now: As in `check`.
    ///
    /// Raises:
    ///     TypeError, ValueError: As in `check`.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> gate.check_without_wait(gate.issue(42).expose()).remaining
    /// 999
    #[pyo3(signature = (api_key, cost=Cost(1), *, groups=None, costs=None, need=None, now=None), text_signature = "($self, api_key, cost=1, *, groups=(), costs=None, need=None, now=None)")]
    fn check_without_wait(
        slf: &Bound<'_, Self>,
        api_key: &Bound<'_, PyAny>,
        cost: Cost,
        groups: Option<Groups>,
        costs: Option<Costs>,
        need: Option<Need>,
        now: Option<Moment>,
    ) -> PyResult<Verdict> {
        let (now, request) = (Time::from(now), Request::new(groups, costs, need));
        with_api_key(api_key, |api_key| {
            slf.get().checked(api_key, cost, request.as_ref(), now, Patience::Decide)
        })?
    }

    /// Returns a key and a request as a part of ``check_all``.
    ///
    /// Args:
    ///     api_key: The value of the ``X-API-Key`` header, or ``None`` if the request has none.
    ///     cost: The cost in units, 0 to 4294967295.
    ///     groups, costs, need: As in `check`.
    ///
    /// Raises:
    ///     ValueError: The gate does not have a group or a scope.
    ///     TypeError, ValueError: An argument has the wrong type or is out of range.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> gate.part("kt_live_wrong", cost=2)
    /// <Part of a gate, cost 2>
    #[pyo3(signature = (api_key, cost=Cost(1), *, groups=None, costs=None, need=None), text_signature = "($self, api_key, cost=1, *, groups=(), costs=None, need=None)")]
    fn part(
        &self,
        api_key: &Bound<'_, PyAny>,
        cost: Cost,
        groups: Option<Groups>,
        costs: Option<Costs>,
        need: Option<Need>,
    ) -> PyResult<Part> {
        let request = Request::new(groups, costs, need).unwrap_or_default();
        with_api_key(api_key, |api_key| Part::key(self.held.clone(), api_key, cost.0, request))?
    }

    /// Returns the verdict that `check` would return, and charges nothing.
    ///
    /// Args:
    ///     api_key: The value of the ``X-API-Key`` header, or ``None`` if the request has none.
    ///     cost: The cost in units, 0 to 4294967295.
    ///     groups, costs, need: As in `check`.
    ///     now: An explicit time, see the class; the system clock by default.
    ///
    /// Raises:
    ///     ValueError: The gate does not have a group or a scope.
    ///     TypeError, ValueError: An argument has the wrong type or is out of range.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> key = gate.issue(42)
    /// >>> gate.peek(key.expose()).remaining, gate.peek(key.expose()).remaining
    /// (1000, 1000)
    #[pyo3(signature = (api_key, cost=Cost(1), *, groups=None, costs=None, need=None, now=None), text_signature = "($self, api_key, cost=1, *, groups=(), costs=None, need=None, now=None)")]
    fn peek(
        slf: &Bound<'_, Self>,
        api_key: &Bound<'_, PyAny>,
        cost: Cost,
        groups: Option<Groups>,
        costs: Option<Costs>,
        need: Option<Need>,
        now: Option<Moment>,
    ) -> PyResult<Verdict> {
        let (now, request) = (Time::from(now), Request::new(groups, costs, need));
        with_api_key(api_key, |api_key| {
            slf.get().answer(|gate| {
                let table = gate.counted();
                if request.is_none() && !table.is_extended() {
                    let verdict = with_clock!(now, gate.clock(), |clock| {
                        table.peek(api_key, cost.0, clock)
                    });
                    return Ok(Answer::Verdict(verdict));
                }
                let none = Request::default();
                let part = request.as_ref().unwrap_or(&none).part(table, api_key, cost.0)?;
                let compound = with_clock!(now, gate.precise_clock(), |clock| part.peek(clock));
                Ok(Answer::Compound(compound.into()))
            })
        })?
    }

    /// Takes a charge back, in the windows of all its tallies that still count it. Refund a charge
    /// at most once.
    ///
    /// The result is the verdict on its first tally.
    ///
    /// Args:
    ///     key_id: The ``key_id`` of the verdict.
    ///     charge: The ``charge`` of the verdict.
    ///     now: An explicit time, see the class; the system clock by default.
    ///
    /// Raises:
    ///     NoSuchKeyError: The gate does not have the key.
    ///     KeyIdError: ``key_id`` is not a key id.
    ///     TypeError, ValueError: An argument has the wrong type or is out of range, or ``charge``
    ///         is ``None`` because the verdict was not admitted.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> verdict = gate.check(gate.issue(42).expose(), 10)
    /// >>> gate.refund(verdict.key_id, verdict.charge).remaining
    /// 1000
    #[pyo3(signature = (key_id, charge, *, now=None))]
    fn refund(
        slf: &Bound<'_, Self>,
        key_id: KeyIdText,
        charge: ChargeArgument,
        now: Option<Moment>,
    ) -> PyResult<Verdict> {
        let (verdict, gate) = slf.get().call(|gate| {
            with_clock!(Time::from(now), gate.precise_clock(), |clock| gate
                .counted()
                .refund(key_id.0, charge.0, clock))
        });
        Self::verdict_of_key(gate, key_id, verdict)
    }

    /// Replaces an estimated charge by the actual cost. Settle a charge at most once.
    ///
    /// A lower cost refunds the difference. A higher cost charges as much of the difference as
    /// every tally of the cost has room for. The rest is ``uncharged`` of the verdict, and
    /// ``uncharged_costs`` for groups. The result is the verdict on the tallies of the charge. Its
    /// ``crossed`` are the warnings of the plan that the difference reached.
    ///
    /// Args:
    ///     key_id: The ``key_id`` of the verdict.
    ///     estimate: The ``charge`` of the verdict.
    ///     actual: The actual cost in units, 0 to 4294967295. By default, the estimate is kept.
    ///     costs: The actual costs of groups that were charged a cost of their own. Other groups
    ///         keep their estimates.
    ///     overdraw: Whether units for which there is no room are counted too. The windows are
    ///         then above their limits, and deny requests for longer.
    ///     now: An explicit time, see the class; the system clock by default.
    ///
    /// Raises:
    ///     NoSuchKeyError: The gate does not have the key.
    ///     KeyIdError: ``key_id`` is not a key id.
    ///     TypeError, ValueError: An argument has the wrong type or is out of range, the gate does
    ///         not have a group, or ``estimate`` is ``None`` because the verdict was not admitted.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> verdict = gate.check(gate.issue(42).expose(), 50)
    /// >>> gate.settle(verdict.key_id, verdict.charge, 20).remaining
    /// 980
    ///
    /// >>> plans = {"default": "100/minute; group tokens: 3000/minute"}
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), plans=plans)
    /// >>> key = gate.issue(42).expose()
    /// >>> verdict = gate.check(key, costs={"tokens": 2500})
    /// >>> gate.settle(verdict.key_id, verdict.charge, costs={"tokens": 3100}).uncharged_costs
    /// {'tokens': 100}
    #[pyo3(signature = (key_id, estimate, actual=None, *, costs=None, overdraw=false, now=None), text_signature = "($self, key_id, estimate, actual=None, *, costs=None, overdraw=False, now=None)")]
    fn settle(
        slf: &Bound<'_, Self>,
        key_id: KeyIdText,
        estimate: ChargeArgument,
        actual: Option<Cost>,
        costs: Option<Costs>,
        overdraw: bool,
        now: Option<Moment>,
    ) -> PyResult<Verdict> {
        let gate = slf.get().current();
        // Raises an error if the gate does not have a group.
        let request = Request::new(None, costs, None).unwrap_or_default();
        request.part(gate.counted(), None, 0)?;
        let mut settlement = Settlement::new().with_overdraw(overdraw);
        settlement.cost = actual.map(|cost| cost.0);
        for (name, cost) in request.costs() {
            settlement = settlement.with_group(name, *cost);
        }
        let (settled, gate) =
            slf.get().call(|gate| {
                with_clock!(Time::from(now), gate.precise_clock(), |clock| gate
                    .counted()
                    .settle_all(key_id.0, estimate.0, &settlement, clock))
            });
        let Some(settled) = settled else { return Err(no_such_key(key_id)) };
        let names = request.costs().iter().map(|(name, _)| name.clone());
        let uncharged_costs = names.zip(settled.uncharged().iter().copied()).collect();
        Ok(Verdict::of_settlement(&settled, gate, uncharged_costs))
    }

    /// Sets all counts of the key to 0. Those that it shares with its account are kept, see
    /// `reset_account`.
    ///
    /// Args:
    ///     key_id: The id of the key.
    ///     now: An explicit time, see the class; the system clock by default.
    ///
    /// Raises:
    ///     NoSuchKeyError: The gate does not have the key.
    ///     KeyIdError: ``key_id`` is not a key id.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> verdict = gate.check(gate.issue(42).expose(), 10)
    /// >>> gate.reset(verdict.key_id).remaining
    /// 1000
    #[pyo3(signature = (key_id, *, now=None))]
    fn reset(slf: &Bound<'_, Self>, key_id: KeyIdText, now: Option<Moment>) -> PyResult<Verdict> {
        let (verdict, gate) = slf.get().call(|gate| {
            with_clock!(Time::from(now), gate.precise_clock(), |clock| gate
                .table()
                .reset(key_id.0, clock))
        });
        Self::verdict_of_key(gate, key_id, verdict)
    }

    /// Issues a key. The result has the only copy of its secret.
    ///
    /// Args:
    ///     account: The number of the account that the key belongs to, 0 to 4294967295.
    ///     env: The environment, 1 to 8 characters of ``a-z`` and ``0-9``. A gate has at most 16.
    ///     plan: The name of the plan; the gate's first plan by default.
    ///     expires: When the key expires: a datetime with a time zone, or a timedelta from now. By
    ///         default, it never does.
    ///     scopes: The names of the scopes that the key has, of those of the gate.
    ///     now: An explicit time, see the class; the system clock by default.
    ///     wait: How long to wait for another administrator, as a timedelta or in seconds.
    ///
    /// Raises:
    ///     GateFullError: The gate is full.
    ///     TeamsFullError: The account is new, and the gate has no room for another.
    ///     NoSuchPlanError: The gate does not have the plan.
    ///     NoSuchScopeError: The gate does not have a scope.
    ///     AdminError: There is no room for another environment, or another pepper.
    ///     CreateError: ``env`` is not valid.
    ///     TypeError, ValueError: An argument has the wrong type or is out of range.
    ///     BusyError: Another administrator did not end within ``wait``.
    ///     OSError: The operating system reports an error.
    ///
    /// >>> import datetime, keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> key = gate.issue(42, env="test", expires=datetime.timedelta(days=90))
    /// >>> gate.check(key.expose()).env
    /// 'test'
    #[pyo3(signature = (account, *, env="live", plan=None, expires=None, scopes=None, now=None, wait=WAIT), text_signature = "($self, account, *, env=\"live\", plan=None, expires=None, scopes=(), now=None, wait=10)")]
    #[expect(clippy::too_many_arguments, reason = "callers in Python name them")]
    fn issue(
        &self,
        py: Python<'_>,
        account: Account,
        env: &str,
        plan: Option<String>,
        expires: Option<Expiry>,
        scopes: Option<Scopes>,
        now: Option<Moment>,
        wait: WaitTime,
    ) -> PyResult<Key> {
        let now = Time::from(now);
        let new = New {
            account: account.0,
            env: arguments::name(env, "env")?,
            plan,
            expires: Expiry::expires(expires, now.timestamp())?,
            scopes: scopes.unwrap_or_default().0,
        };
        let entropy = keytally::entropy().map_err(exceptions::from_error)?;
        let issued = self.administer(py, &wait, |administrator| {
            new.with_key(|key| with_clock!(now, |clock| administrator.issue(key, entropy, clock)))
        });
        let (key, key_id) = issued.map_err(|error| new.named_in(py, error, &self.current()))?;
        Ok(Key { key, key_id })
    }

    /// Imports keys that another system issued, in any form, and returns their key ids.
    ///
    /// A second import of the same keys for the same account changes nothing. The keys are imported
    /// one after the other, in batches of 1000. Other administrators can run between batches. If a
    /// key cannot be imported, the keys before it are in the gate. After any other error, the
    /// batches before it are in the gate.
    ///
    /// Args:
    ///     keys: The keys, each a str or bytes: 16 to 256 bytes of printable ASCII without spaces.
    ///     account, env, plan, expires, scopes, now, wait: As in `issue`.
    ///
    /// Raises:
    ///     AdminError: A key cannot be imported. The message has its number, from 1, and the
    ///         reason.
    ///     AlreadyImportedError: A key is in the gate already, for another account.
    ///     CreateError: ``env`` is not valid.
    ///     TypeError, ValueError: An argument has the wrong type or is out of range.
    ///     BusyError: Another administrator did not end within ``wait``.
    ///     OSError: The operating system reports an error.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> [key_id] = gate.import_keys(["customer-key-0001"], 42)
    /// >>> gate.check("customer-key-0001").key_id == key_id
    /// True
    #[pyo3(signature = (keys, account, *, env="live", plan=None, expires=None, scopes=None, now=None, wait=WAIT), text_signature = "($self, keys, account, *, env=\"live\", plan=None, expires=None, scopes=(), now=None, wait=10)")]
    #[expect(clippy::too_many_arguments, reason = "callers in Python name them")]
    fn import_keys(
        &self,
        keys: &Bound<'_, PyAny>,
        account: Account,
        env: &str,
        plan: Option<String>,
        expires: Option<Expiry>,
        scopes: Option<Scopes>,
        now: Option<Moment>,
        wait: WaitTime,
    ) -> PyResult<Vec<String>> {
        let py = keys.py();
        let now = Time::from(now);
        let new = New {
            account: account.0,
            env: arguments::name(env, "env")?,
            plan,
            expires: Expiry::expires(expires, now.timestamp())?,
            scopes: scopes.unwrap_or_default().0,
        };
        let mut key_ids = Vec::new();
        let mut keys = keys.try_iter()?;
        loop {
            let batch = keys
                .by_ref()
                .take(keytally::CHANGES_PER_LOCK)
                .map(|key| {
                    with_bytes(&key?, "a key to import", |bytes| Zeroizing::new(bytes.to_vec()))
                })
                .collect::<PyResult<Vec<_>>>()?;
            if batch.is_empty() {
                return Ok(key_ids);
            }
            self.import_batch(py, &batch, &new, now, &wait, &mut key_ids)
                .map_err(|error| new.named_in(py, error, &self.current()))?;
        }
    }

    /// Gives a key a new secret, and returns the key with it.
    ///
    /// The old secret stays valid for ``grace``. Both secrets share one quota.
    ///
    /// Args:
    ///     key_id: The id of the key.
    ///     grace: How long the old secret stays valid: a timedelta or seconds, rounded up to whole
    ///         seconds. With 0, it is invalid at once.
    ///     force: Whether to rotate even if the secret before the last rotation is still valid. A
    ///         key has at most two secrets, so the rotation makes that secret invalid at once.
    ///     now: An explicit time, see the class; the system clock by default.
    ///     wait: How long to wait for another administrator, as a timedelta or in seconds.
    ///
    /// Raises:
    ///     NoSuchKeyError: The gate does not have the key.
    ///     RevokedError: The key was revoked.
    ///     AdminError: The secret before the last rotation is still valid, and ``force`` is false.
    ///     KeyIdError: ``key_id`` is not a key id.
    ///     TypeError, ValueError: An argument has the wrong type or is out of range.
    ///     BusyError: Another administrator did not end within ``wait``.
    ///     OSError: The operating system reports an error.
    ///
    /// >>> import datetime, keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> old = gate.issue(42)
    /// >>> new = gate.rotate(old.key_id, grace=datetime.timedelta(hours=24))
    /// >>> gate.check(old.expose()).remaining, gate.check(new.expose()).remaining
    /// (999, 998)
    /// >>> gate.rotate(old.key_id, grace=0)
    /// Traceback (most recent call last):
    /// keytally.exceptions.AdminError: the secret that key ... had before ... is valid until ...
    /// >>> newest = gate.rotate(old.key_id, grace=0, force=True)
    #[pyo3(signature = (key_id, *, grace, force=false, now=None, wait=WAIT), text_signature = "($self, key_id, *, grace, force=False, now=None, wait=10)")]
    fn rotate(
        &self,
        py: Python<'_>,
        key_id: KeyIdText,
        grace: Grace,
        force: bool,
        now: Option<Moment>,
        wait: WaitTime,
    ) -> PyResult<Key> {
        let now = Time::from(now);
        let key_id = key_id.0;
        let entropy = keytally::entropy().map_err(exceptions::from_error)?;
        let key = self.administer(py, &wait, |administrator| {
            with_clock!(now, |clock| {
                administrator.rotate(key_id, grace.until(clock.reading()), force, entropy, clock)
            })
        })?;
        Ok(Key { key, key_id })
    }

    /// Revokes a key permanently. The next check in any process rejects it.
    ///
    /// Args:
    ///     key_id: The id of the key.
    ///     wait: How long to wait for another administrator, as a timedelta or in seconds.
    ///
    /// Raises:
    ///     NoSuchKeyError: The gate does not have the key.
    ///     KeyIdError: ``key_id`` is not a key id.
    ///     BusyError: Another administrator did not end within ``wait``.
    ///     OSError: The operating system reports an error.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> key = gate.issue(42)
    /// >>> gate.revoke(key.key_id)
    /// >>> gate.check(key.expose()).reason
    /// 'revoked'
    #[pyo3(signature = (key_id, *, wait=WAIT), text_signature = "($self, key_id, *, wait=10)")]
    fn revoke(&self, py: Python<'_>, key_id: KeyIdText, wait: WaitTime) -> PyResult<()> {
        self.administer(py, &wait, |administrator| administrator.revoke(key_id.0))
    }

    /// Sets when a key expires. An expired key is valid again, if no other key has got its record.
    ///
    /// Args:
    ///     key_id: The id of the key.
    ///     expires: When the key expires: a datetime with a time zone, or a timedelta from now;
    ///         ``None`` for never. To end a key at once, revoke it.
    ///     now: An explicit time, see the class; the system clock by default.
    ///     wait: How long to wait for another administrator, as a timedelta or in seconds.
    ///
    /// Raises:
    ///     NoSuchKeyError: The gate does not have the key.
    ///     RevokedError: The key was revoked.
    ///     KeyIdError: ``key_id`` is not a key id.
    ///     TypeError, ValueError: An argument has the wrong type or is out of range.
    ///     BusyError: Another administrator did not end within ``wait``.
    ///     OSError: The operating system reports an error.
    ///
    /// >>> import datetime, keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> key = gate.issue(42)
    /// >>> gate.expire(key.key_id, datetime.datetime(2090, 1, 1, tzinfo=datetime.timezone.utc))
    /// >>> gate.key(key.key_id).expires
    /// 3786912000
    /// >>> gate.expire(key.key_id, None)
    /// >>> gate.key(key.key_id).expires is None
    /// True
    #[pyo3(signature = (key_id, expires, *, now=None, wait=WAIT), text_signature = "($self, key_id, expires, *, now=None, wait=10)")]
    fn expire(
        &self,
        py: Python<'_>,
        key_id: KeyIdText,
        expires: Option<Expiry>,
        now: Option<Moment>,
        wait: WaitTime,
    ) -> PyResult<()> {
        let not_after = Expiry::expires(expires, Time::from(now).timestamp())?;
        self.administer(py, &wait, |administrator| administrator.expire(key_id.0, not_after))
    }

    /// Ends the previous secret of a key at once, without waiting for the end of its grace.
    ///
    /// Args:
    ///     key_id: The id of the key.
    ///     wait: How long to wait for another administrator, as a timedelta or in seconds.
    ///
    /// Raises:
    ///     NoSuchKeyError: The gate does not have the key.
    ///     RevokedError: The key was revoked.
    ///     KeyIdError: ``key_id`` is not a key id.
    ///     BusyError: Another administrator did not end within ``wait``.
    ///     OSError: The operating system reports an error.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> old = gate.issue(42)
    /// >>> new = gate.rotate(old.key_id, grace=3600)
    /// >>> gate.end_grace(old.key_id)
    /// >>> gate.check(old.expose()).reason, gate.check(new.expose()).admitted
    /// ('expired', True)
    #[pyo3(signature = (key_id, *, wait=WAIT), text_signature = "($self, key_id, *, wait=10)")]
    fn end_grace(&self, py: Python<'_>, key_id: KeyIdText, wait: WaitTime) -> PyResult<()> {
        self.administer(py, &wait, |administrator| administrator.end_grace(key_id.0))
    }

    /// Assigns a key to another plan. The key keeps its counts.
    ///
    /// Args:
    ///     key_id: The id of the key.
    ///     plan: The name of the plan.
    ///     wait: How long to wait for another administrator, as a timedelta or in seconds.
    ///
    /// Raises:
    ///     NoSuchKeyError: The gate does not have the key.
    ///     NoSuchPlanError: The gate does not have the plan.
    ///     RevokedError: The key was revoked.
    ///     KeyIdError: ``key_id`` is not a key id.
    ///     BusyError: Another administrator did not end within ``wait``.
    ///     OSError: The operating system reports an error.
    ///
    /// >>> import keytally
    /// >>> plans = {"default": "5/minute", "pro": "50/minute"}
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), plans=plans)
    /// >>> key = gate.issue(42)
    /// >>> gate.assign(key.key_id, "pro")
    /// >>> gate.check(key.expose()).plan
    /// 'pro'
    #[pyo3(signature = (key_id, plan, *, wait=WAIT), text_signature = "($self, key_id, plan, *, wait=10)")]
    fn assign(
        &self,
        py: Python<'_>,
        key_id: KeyIdText,
        plan: &str,
        wait: WaitTime,
    ) -> PyResult<()> {
        self.administer(py, &wait, |administrator| administrator.assign(key_id.0, plan))
            .map_err(|error| named_plan(py, error, plan, &self.current()))
    }

    /// Replaces the scopes of a key. The next check in any process uses them.
    ///
    /// Args:
    ///     key_id: The id of the key.
    ///     scopes: The names of the scopes that the key has from now on.
    ///     wait: How long to wait for another administrator, as a timedelta or in seconds.
    ///
    /// Raises:
    ///     NoSuchKeyError: The gate does not have the key.
    ///     NoSuchScopeError: The gate does not have a scope.
    ///     RevokedError: The key was revoked.
    ///     KeyIdError: ``key_id`` is not a key id.
    ///     BusyError: Another administrator did not end within ``wait``.
    ///     OSError: The operating system reports an error.
    ///
    /// >>> import keytally
    /// >>> pepper = keytally.generate_pepper()
    /// >>> gate = keytally.Gate.in_memory(pepper=pepper, scopes=["read", "write"])
    /// >>> key = gate.issue(42, scopes=["read"])
    /// >>> gate.check(key.expose(), need="write").outcome
    /// 'forbidden'
    /// >>> gate.set_scopes(key.key_id, ["read", "write"])
    /// >>> gate.check(key.expose(), need="write").outcome
    /// 'admitted'
    #[pyo3(signature = (key_id, scopes, *, wait=WAIT), text_signature = "($self, key_id, scopes, *, wait=10)")]
    fn set_scopes(
        &self,
        py: Python<'_>,
        key_id: KeyIdText,
        scopes: Scopes,
        wait: WaitTime,
    ) -> PyResult<()> {
        let names = scopes.0;
        self.administer(py, &wait, |administrator| {
            let scopes: Vec<&str> = names.iter().map(String::as_str).collect();
            administrator.set_scopes(key_id.0, &scopes)
        })
        .map_err(|error| named_scope(py, error, &names, &self.current()))
    }

    /// Returns the properties of an account; ``None`` if the gate does not have it.
    ///
    /// An account is made with its first key, in a gate with room for teams.
    ///
    /// Args:
    ///     account: The number of the account.
    ///     now: An explicit time, see the class; the system clock by default.
    ///
    /// >>> import keytally
    /// >>> plans = {"default": "100/minute; team: 5000/hour"}
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), plans=plans)
    /// >>> verdict = gate.check(gate.issue(42).expose(), 3)
    /// >>> gate.account(42).quotas[0].remaining, gate.account(43)
    /// (4997, None)
    #[pyo3(signature = (account, *, now=None))]
    fn account(&self, account: Account, now: Option<Moment>) -> Option<AccountInfo> {
        let gate = self.current();
        let info = gate.table().account(account.0, Time::from(now).timestamp_for(&gate))?;
        Some(AccountInfo::new(info, &gate))
    }

    /// Returns the properties of all accounts, in no particular order. Empty in a gate without
    /// teams.
    ///
    /// Args:
    ///     now: An explicit time, see the class; the system clock by default.
    ///
    /// >>> import keytally
    /// >>> plans = {"default": "100/minute; team: 5000/hour"}
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), plans=plans)
    /// >>> keys = gate.issue(1), gate.issue(2), gate.issue(1)
    /// >>> sorted(info.account for info in gate.accounts())
    /// [1, 2]
    #[pyo3(signature = (*, now=None))]
    fn accounts(&self, py: Python<'_>, now: Option<Moment>) -> Vec<AccountInfo> {
        let gate = self.current();
        let now = Time::from(now).timestamp_for(&gate);
        py.detach(|| gate.table().accounts(now).map(|info| AccountInfo::new(info, &gate)).collect())
    }

    /// Refuses all keys of an account from the next check on, with the reason ``"suspended"``.
    ///
    /// Args:
    ///     account: The number of the account.
    ///     wait: How long to wait for another administrator, as a timedelta or in seconds.
    ///
    /// Raises:
    ///     NoSuchAccountError: The gate does not have the account.
    ///     BusyError: Another administrator did not end within ``wait``.
    ///     OSError: The operating system reports an error.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), teams=10)
    /// >>> key = gate.issue(42).expose()
    /// >>> gate.suspend(42)
    /// >>> gate.check(key).reason
    /// 'suspended'
    /// >>> gate.resume(42)
    /// >>> gate.check(key).admitted
    /// True
    #[pyo3(signature = (account, *, wait=WAIT), text_signature = "($self, account, *, wait=10)")]
    fn suspend(&self, py: Python<'_>, account: Account, wait: WaitTime) -> PyResult<()> {
        self.administer(py, &wait, |administrator| administrator.set_suspended(account.0, true))
    }

    /// Accepts the keys of an account again that `suspend` refused.
    ///
    /// Args:
    ///     account: The number of the account.
    ///     wait: How long to wait for another administrator, as a timedelta or in seconds.
    ///
    /// Raises:
    ///     NoSuchAccountError: The gate does not have the account.
    ///     BusyError: Another administrator did not end within ``wait``.
    ///     OSError: The operating system reports an error.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), teams=10)
    /// >>> gate.resume(42)
    /// Traceback (most recent call last):
    /// keytally.exceptions.NoSuchAccountError: the gate has no account 42; ...
    #[pyo3(signature = (account, *, wait=WAIT), text_signature = "($self, account, *, wait=10)")]
    fn resume(&self, py: Python<'_>, account: Account, wait: WaitTime) -> PyResult<()> {
        self.administer(py, &wait, |administrator| administrator.set_suspended(account.0, false))
    }

    /// Lets the team limits of another plan hold for an account, and ends limits of its own.
    ///
    /// Its keys keep their plans. An account has the plan of its first key until then.
    ///
    /// Args:
    ///     account: The number of the account.
    ///     plan: The name of the plan.
    ///     wait: How long to wait for another administrator, as a timedelta or in seconds.
    ///
    /// Raises:
    ///     NoSuchAccountError: The gate does not have the account.
    ///     NoSuchPlanError: The gate does not have the plan.
    ///     BusyError: Another administrator did not end within ``wait``.
    ///     OSError: The operating system reports an error.
    ///
    /// >>> import keytally
    /// >>> plans = {"default": "9/minute; team: 20/hour", "pro": "9/minute; team: 500/hour"}
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), plans=plans)
    /// >>> key = gate.issue(42)
    /// >>> gate.assign_account(42, "pro")
    /// >>> gate.account(42).plan, gate.account(42).quotas[0].limit
    /// ('pro', 500)
    #[pyo3(signature = (account, plan, *, wait=WAIT), text_signature = "($self, account, plan, *, wait=10)")]
    fn assign_account(
        &self,
        py: Python<'_>,
        account: Account,
        plan: &str,
        wait: WaitTime,
    ) -> PyResult<()> {
        self.administer(py, &wait, |administrator| administrator.assign_account(account.0, plan))
            .map_err(|error| named_plan(py, error, plan, &self.current()))
    }

    /// Gives an account limits of its own instead of those of its plan.
    ///
    /// Args:
    ///     account: The number of the account.
    ///     limits: The quotas, as a text or a `Policy`, with the windows of the section ``team``.
    ///         They count by the algorithm of that section.
    ///     wait: How long to wait for another administrator, as a timedelta or in seconds.
    ///
    /// Raises:
    ///     PolicyError: The text is not that of quotas, or it has further sections or warnings.
    ///     NoSuchAccountError: The gate does not have the account.
    ///     AdminError: The windows differ, or a limit is above what the gate can count.
    ///     BusyError: Another administrator did not end within ``wait``.
    ///     OSError: The operating system reports an error.
    ///
    /// >>> import keytally
    /// >>> plans = {"default": "100/minute; team: 5000/hour, 30000/day"}
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), plans=plans)
    /// >>> key = gate.issue(42)
    /// >>> gate.limit_account(42, "6000/hour, 40000/day")
    /// >>> [quota.limit for quota in gate.account(42).quotas]
    /// [6000, 40000]
    #[pyo3(signature = (account, limits, *, wait=WAIT), text_signature = "($self, account, limits, *, wait=10)")]
    fn limit_account(
        &self,
        py: Python<'_>,
        account: Account,
        limits: SectionsArgument,
        wait: WaitTime,
    ) -> PyResult<()> {
        let quotas = limits.quotas()?;
        self.administer(py, &wait, |administrator| administrator.limit_account(account.0, &quotas))
    }

    /// Sets the counts that all keys of an account share to 0.
    ///
    /// Args:
    ///     account: The number of the account.
    ///     now: An explicit time, see the class; the system clock by default.
    ///
    /// Raises:
    ///     NoSuchAccountError: The gate does not have the account.
    ///     BusyError: The counts are being moved to another file, which was not in force in time.
    ///
    /// >>> import keytally
    /// >>> plans = {"default": "100/minute; team: 5000/hour"}
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), plans=plans)
    /// >>> verdict = gate.check(gate.issue(42).expose(), 3)
    /// >>> gate.reset_account(42)
    /// >>> gate.account(42).quotas[0].remaining
    /// 5000
    #[pyo3(signature = (account, *, now=None))]
    fn reset_account(&self, account: Account, now: Option<Moment>) -> PyResult<()> {
        let now = Time::from(now);
        let (outcome, _) = self.call(|gate| {
            with_clock!(now, gate.precise_clock(), |clock| gate
                .table()
                .reset_account(account.0, clock))
        });
        match outcome {
            Some(Outcome::Unavailable) => {
                let sentence = "the counts of this account are being moved; try again";
                Err(exceptions::BusyError::new_err((sentence, None::<u32>)))
            }
            Some(_) => Ok(()),
            None => {
                let error = Admin::NoSuchAccount(account.0);
                Err(exceptions::from_admin_error(&error, error.to_string()))
            }
        }
    }

    /// Adds a plan, or changes the limits of a plan. Keys keep their counts.
    ///
    /// Args:
    ///     name: The name of the plan, 1 to 16 characters of ``a-z``, ``0-9``, ``-`` and ``_``.
    ///     policy: `Sections`, a `Policy`, or the text of either, with the sections, windows and
    ///         algorithms of the other plans.
    ///     wait: How long to wait for another administrator, as a timedelta or in seconds.
    ///
    /// Raises:
    ///     PolicyError, CreateError: The policy or the name is not valid.
    ///     AdminError: The gate cannot have the plan. The message has the reason.
    ///     BusyError: Another administrator did not end within ``wait``.
    ///     OSError: The operating system reports an error.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> gate.set_plan("pro", "1000/minute, 20000/hour")
    /// >>> gate.plans
    /// {'default': Sections('100/minute, 1000/hour'), 'pro': Sections('1000/minute, 20000/hour')}
    #[pyo3(signature = (name, policy, *, wait=WAIT), text_signature = "($self, name, policy, *, wait=10)")]
    fn set_plan(
        &self,
        py: Python<'_>,
        name: &str,
        policy: SectionsArgument,
        wait: WaitTime,
    ) -> PyResult<()> {
        let plan = sections::plan(name, policy.0)?;
        self.administer(py, &wait, |administrator| administrator.set_plan(&plan))
    }

    /// Returns the public details of all keys, revoked keys included, ordered by key id.
    ///
    /// Args:
    ///     now: An explicit time, see the class; the system clock by default.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> keys = gate.issue(1), gate.issue(2)
    /// >>> sorted(info.account for info in gate.list())
    /// [1, 2]
    #[pyo3(signature = (*, now=None))]
    fn list(&self, py: Python<'_>, now: Option<Moment>) -> Vec<KeyInfo> {
        let gate = self.current();
        let now = Time::from(now).timestamp_for(&gate);
        py.detach(|| gate.table().list(now).map(|info| KeyInfo::new(info, &gate, now)).collect())
    }

    /// Returns the public details of a key; ``None`` if the gate does not have the key.
    ///
    /// Args:
    ///     key_id: The id of the key.
    ///     now: An explicit time, see the class; the system clock by default.
    ///
    /// Raises:
    ///     KeyIdError: ``key_id`` is not a key id.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> gate.key(gate.issue(42).key_id).account
    /// 42
    #[pyo3(signature = (key_id, *, now=None))]
    fn key(&self, key_id: KeyIdText, now: Option<Moment>) -> Option<KeyInfo> {
        let gate = self.current();
        let now = Time::from(now).timestamp_for(&gate);
        Some(KeyInfo::new(gate.table().key(key_id.0, now)?, &gate, now))
    }

    /// Begins to count how each key is used, in every process that has the gate open, or ends it.
    ///
    /// The counts are in a file next to that of the gate, with its name and ``.usage``. It takes
    /// 64 bytes for each key that the gate has room for, and remains when counting ends.
    ///
    /// Args:
    ///     is_counted: Whether uses are counted.
    ///     wait: How long to wait for another administrator, as a timedelta or in seconds.
    ///
    /// Raises:
    ///     TableError: The file of the counts is not one.
    ///     BusyError: Another administrator did not end within ``wait``.
    ///     OSError: The gate is in memory, or the operating system reports an error.
    ///
    /// >>> import os, tempfile, keytally
    /// >>> path = os.path.join(tempfile.mkdtemp(), "api.gate")
    /// >>> gate = keytally.Gate.create(path, pepper=keytally.generate_pepper())
    /// >>> key_id = gate.issue(42).key_id
    /// >>> gate.key_usage(key_id) is None
    /// True
    /// >>> gate.set_usage(True)
    /// >>> gate.key_usage(key_id).admitted
    /// 0
    #[pyo3(signature = (is_counted, *, wait=WAIT), text_signature = "($self, is_counted, *, wait=10)")]
    fn set_usage(&self, py: Python<'_>, is_counted: bool, wait: WaitTime) -> PyResult<()> {
        self.waiting(py, &wait, |gate, wait| gate.set_usage_within(wait, is_counted))
    }

    /// Returns how a key was used; ``None`` if uses are not counted or the gate does not have the
    /// key.
    ///
    /// Args:
    ///     key_id: The id of the key.
    ///
    /// Raises:
    ///     KeyIdError: ``key_id`` is not a key id.
    ///
    /// >>> import os, tempfile, keytally
    /// >>> path = os.path.join(tempfile.mkdtemp(), "api.gate")
    /// >>> gate = keytally.Gate.create(path, pepper=keytally.generate_pepper())
    /// >>> gate.set_usage(True)
    /// >>> key = gate.issue(42)
    /// >>> verdict = gate.check(key.expose(), 3)
    /// >>> gate.key_usage(key.key_id).units
    /// 3
    fn key_usage(&self, key_id: KeyIdText) -> Option<KeyUsage> {
        self.current().key_usage(key_id.0).map(KeyUsage)
    }

    /// Puts the gate in a fleet, in which machines share its limits, or takes it out of it.
    ///
    /// It has effect at once in every process that has the gate open. Those that opened it without
    /// ``fleet`` then refuse every request, with the ``unavailability`` ``"not_reserving"``.
    ///
    /// Args:
    ///     is_in_fleet: Whether the gate is in a fleet.
    ///     wait: How long to wait for another administrator, as a timedelta or in seconds.
    ///
    /// Raises:
    ///     TableError: The gate has sliding windows, which machines cannot share.
    ///     BusyError: Another administrator did not end within ``wait``.
    ///     OSError: The operating system reports an error.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> gate.set_fleet(True)
    /// >>> gate.is_in_fleet, gate.check(gate.issue(42).expose()).unavailability
    /// (True, 'not_reserving')
    /// >>> gate.fleet is None, gate.credit_wait_s
    /// (True, 0.02)
    #[pyo3(signature = (is_in_fleet, *, wait=WAIT), text_signature = "($self, is_in_fleet, *, wait=10)")]
    fn set_fleet(&self, py: Python<'_>, is_in_fleet: bool, wait: WaitTime) -> PyResult<()> {
        self.waiting(py, &wait, |gate, wait| gate.set_fleet_within(wait, is_in_fleet))
    }

    /// Whether requests need credits of a fleet, in every process that has the gate open.
    #[getter]
    fn is_in_fleet(&self) -> bool {
        self.current().is_in_fleet()
    }

    /// The path of the fleet file, as `open` was given it; ``None`` without one.
    #[getter]
    fn fleet(&self) -> Option<PathBuf> {
        self.fleet.clone()
    }

    /// How long a request waits for credits of a fleet at most, in seconds.
    #[getter]
    fn credit_wait_s(&self) -> f64 {
        self.credit_wait.as_secs_f64()
    }

    /// Reads the whole gate and reports its flaws.
    ///
    /// It first completes the change of an administrator that was killed. Each record has a
    /// checksum, which does not cover its counts. Counts that were changed are not detected.
    ///
    /// Args:
    ///     now: An explicit time, see the class; the system clock by default.
    ///     wait: How long to wait for another administrator, as a timedelta or in seconds.
    ///
    /// Raises:
    ///     BusyError: Another administrator did not end within ``wait``.
    ///     OSError: The operating system reports an error.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> gate.verify()
    /// <Report: completed=False, flaws=[]>
    #[pyo3(signature = (*, now=None, wait=WAIT), text_signature = "($self, *, now=None, wait=10)")]
    fn verify(&self, py: Python<'_>, now: Option<Moment>, wait: WaitTime) -> PyResult<Report> {
        let mut flaws = Vec::new();
        let now = Time::from(now);
        let completed = self.waiting(py, &wait, |gate, wait| {
            with_clock!(now, gate.precise_clock(), |clock| gate.verify_within(
                wait,
                clock,
                |flaw| flaws.push(flaw)
            ))
        })?;
        Ok(Report { completed, flaws })
    }

    /// Opens the gate's file again, whether it was replaced or not. A gate in memory does not
    /// change.
    ///
    /// Without this call, checks notice a file that was renamed over the gate's file. At most once
    /// a second, a check compares the file at the path with the open one.
    ///
    /// Raises:
    ///     FileNotFoundError: The path does not exist. After an error, the old file stays in use.
    ///     TableError: The file is not a gate, is damaged, belongs to another user, or all users
    ///         have access to it.
    ///     PepperError: The pepper belongs to another gate.
    ///     OSError: The operating system reports an error.
    ///
    /// >>> import os, tempfile, keytally
    /// >>> path = os.path.join(tempfile.mkdtemp(), "api.gate")
    /// >>> secret = keytally.generate_pepper()
    /// >>> gate = keytally.Gate.create(path, pepper=secret, keys=1000)
    /// >>> key = keytally.Gate.create(path + ".new", pepper=secret, keys=1000).issue(42)
    /// >>> os.rename(path + ".new", path)
    /// >>> gate.reopen()
    /// >>> gate.check(key.expose()).account, gate.reopened, gate.reopen_problem
    /// (42, 1, None)
    fn reopen(&self, py: Python<'_>) -> PyResult<()> {
        match &self.held {
            SharedGate::Memory(_) => Ok(()),
            SharedGate::File(gate) => py.detach(|| gate.reopen()).map_err(exceptions::from_error),
        }
    }

    /// How many times the file at the path was opened again: for a replacement, or by `reopen`.
    #[getter]
    fn reopened(&self) -> u64 {
        match &self.held {
            SharedGate::Memory(_) => 0,
            SharedGate::File(gate) => gate.status().reopened,
        }
    }

    /// Why the file at the path is not in use; ``None`` if it is in use.
    #[getter]
    fn reopen_problem(&self) -> Option<String> {
        match &self.held {
            SharedGate::Memory(_) => None,
            SharedGate::File(gate) => gate.status().problem,
        }
    }

    /// Corrects every tally that is more than 60 s ahead of the clock, and returns their number.
    ///
    /// The tallies keep their counts. A call that uses the system clock corrects the tally that it
    /// reads, so this method is for the other tallies. It reads the whole table.
    ///
    /// Args:
    ///     now: An explicit time; the system clock by default, which is read after each tally is
    ///         loaded. An explicit time was read earlier: if the call is suspended for more than a
    ///         minute, each tally that is charged meanwhile may admit one more window. Pass one
    ///         only while no other thread or process charges the gate.
    ///
    /// Raises:
    ///     TypeError, ValueError: ``now`` has the wrong type or is out of range.
    ///
    /// >>> import time, keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> key = gate.issue(42)
    /// >>> verdict = gate.check(key.expose(), now=time.time() + 86_400)
    /// >>> gate.correct_clock(), gate.peek(key.expose()).clock_ahead_s
    /// (1, 0)
    #[pyo3(signature = (*, now=None))]
    fn correct_clock(&self, py: Python<'_>, now: Option<Moment>) -> u64 {
        let now = Time::from(now);
        let gate = self.current();
        py.detach(|| {
            with_clock!(now, gate.precise_clock(), |clock| gate.table().correct_clock(clock))
        })
    }

    /// The path that the gate was opened or created with; ``None`` if it is in memory.
    #[getter]
    fn path(&self) -> Option<PathBuf> {
        self.current().path().map(PathBuf::from)
    }

    /// The plans by name, each `Sections`. Keys that are issued without a plan have the first.
    #[getter]
    fn plans<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let plans = PyDict::new(py);
        for (_, plan) in self.current().table().plans() {
            plans.set_item(plan.name.as_str(), Sections { sections: plan.sections })?;
        }
        Ok(plans)
    }

    /// The first part of every key.
    #[getter]
    fn prefix(&self) -> String {
        self.current().table().prefix().to_string()
    }

    /// The capacity in keys.
    #[getter]
    fn capacity(&self) -> u32 {
        self.current().table().capacity()
    }

    /// The capacity in accounts; 0 if the gate has no teams.
    #[getter]
    fn team_capacity(&self) -> u32 {
        self.current().table().team_capacity()
    }

    /// The names of the sections that all plans share: ``"key"``, ``"team"`` and those of groups.
    #[getter]
    fn sections<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.current().table().sections().iter().map(Section::name))
    }

    /// The window that the gate names for ``X-RateLimit-*``; ``None`` if it names none.
    ///
    /// >>> import keytally
    /// >>> plans = {"default": "100/minute, 30000/month"}
    /// >>> pepper = keytally.generate_pepper()
    /// >>> keytally.Gate.in_memory(pepper=pepper, plans=plans, described="month").described
    /// 'month'
    #[getter]
    fn described(&self) -> Option<String> {
        self.current().table().described().map(|window| window.to_string())
    }

    /// The names of the scopes that keys may have.
    #[getter]
    fn scopes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let scopes: Vec<String> =
            self.current().table().scopes().map(|scope| scope.as_str().to_owned()).collect();
        PyTuple::new(py, scopes)
    }

    fn __repr__(&self) -> String {
        match self.current().path() {
            Some(path) => format!("<Gate in {}>", path.display()),
            None => "<Gate in memory>".to_owned(),
        }
    }
}

impl Gate {
    /// Creates or opens a gate while other Python threads run: allocating a file takes long.
    fn follow(
        py: Python<'_>,
        peppers: Peppers,
        make: impl FnOnce(Peppers) -> Result<Host, Error> + Send,
    ) -> PyResult<Followed> {
        py.detach(|| Followed::from_gate(make(peppers.clone())?, peppers, Ok))
            .map_err(exceptions::from_error)
    }

    /// Returns a gate that has not joined a fleet.
    fn new_held(held: SharedGate) -> Self {
        Self { held, fleet: None, credit_wait: DEFAULT_CREDIT_WAIT }
    }

    /// Returns the gate that is in use, after a check for a replaced file at most once a second.
    ///
    /// A background thread is not an alternative: with one, Python warns at every fork.
    fn current(&self) -> Arc<Host> {
        self.held.current()
    }

    /// Calls `work` with the gate that is in use. If the key's counts are moving to another file,
    /// calls it again with that one. Returns the result and its gate.
    fn call<R: Decided>(&self, mut work: impl FnMut(&Arc<Host>) -> R) -> (R, Arc<Host>) {
        match &self.held {
            SharedGate::Memory(gate) => (work(gate), Arc::clone(gate)),
            SharedGate::File(followed) => {
                followed.reopen_if_due();
                let mut used = None;
                let result = followed.call(|gate| {
                    let gate = gate.to_arc();
                    let result = work(&gate);
                    used = Some(gate);
                    result
                });
                (result, used.unwrap_or_else(|| followed.load().to_arc()))
            }
        }
    }

    /// Checks a key, with what the request does if it lacks credits of a fleet.
    #[inline]
    fn checked(
        &self,
        api_key: Option<&[u8]>,
        cost: Cost,
        request: Option<&Request>,
        now: Time,
        patience: Patience,
    ) -> PyResult<Verdict> {
        self.answer(|gate| {
            let table = gate.counted_with(patience);
            if request.is_none() && !table.is_extended() {
                let verdict =
                    with_clock!(now, gate.clock(), |clock| table.check(api_key, cost.0, clock));
                return Ok(Answer::Verdict(verdict));
            }
            let none = Request::default();
            let part = request.unwrap_or(&none).part(table, api_key, cost.0)?;
            let compound = with_clock!(now, gate.precise_clock(), |clock| part.check(clock));
            Ok(Answer::Compound(compound.into()))
        })
    }

    /// Returns the verdict of a check or a peek.
    fn answer(&self, work: impl FnMut(&Arc<Host>) -> PyResult<Answer>) -> PyResult<Verdict> {
        match self.call(work) {
            (Ok(Answer::Verdict(verdict)), gate) => Ok(Verdict::from_gate(verdict, gate)),
            (Ok(Answer::Compound(compound)), gate) => {
                Ok(Verdict::from_compound(*compound, vec![Some(gate)]))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Calls `work` with the gate at the path, and a wait of at most `wait`. If a migration
    /// replaces the gate before `work` changes anything, calls it again with the new one.
    ///
    /// The wait also ends if a signal handler raises an exception, as that of Ctrl-C does.
    fn waiting<T: Send>(
        &self,
        py: Python<'_>,
        wait: &WaitTime,
        mut work: impl FnMut(&Host, Wait<'_>) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        let (result, raised) = py.detach(|| {
            let raised = RefCell::new(None);
            let interrupted = || {
                Python::attach(|py| py.check_signals())
                    .is_err_and(|error| raised.replace(Some(error)).is_none())
            };
            let wait = Wait::at_most(wait.0).unless(&interrupted);
            let result = match &self.held {
                SharedGate::Memory(gate) => work(gate, wait),
                SharedGate::File(gate) => gate.change_within(wait, |gate, wait| work(gate, wait)),
            };
            (result, raised.into_inner())
        });
        match raised {
            Some(error) => Err(error),
            None => result.map_err(exceptions::from_error),
        }
    }

    /// Calls `work` with the administrator of the gate at the path.
    fn administer<T: Send>(
        &self,
        py: Python<'_>,
        wait: &WaitTime,
        work: impl FnOnce(&mut Administrator<'_, Mapping>) -> Result<T, Admin> + Send,
    ) -> PyResult<T> {
        let mut work = Some(work);
        self.waiting(py, wait, |gate, wait| {
            gate.administer_within(wait, |administrator| match work.take() {
                Some(work) => work(administrator),
                // Not reached: only a call that did not begin is repeated.
                None => Err(Admin::Busy),
            })
        })
    }

    /// Returns the verdict; raises a `NoSuchKeyError` if the gate does not have the key.
    fn verdict_of_key(
        gate: Arc<Host>,
        key_id: KeyIdText,
        verdict: Option<keytally::Verdict>,
    ) -> PyResult<Verdict> {
        match verdict {
            Some(verdict) => Ok(Verdict::from_gate(verdict, gate)),
            None => Err(no_such_key(key_id)),
        }
    }

    /// Imports keys under one lock, and appends their key ids.
    ///
    /// A key that is in the gate already, for the same account, is not an error.
    fn import_batch(
        &self,
        py: Python<'_>,
        batch: &[Zeroizing<Vec<u8>>],
        new: &New,
        now: Time,
        wait: &WaitTime,
        key_ids: &mut Vec<String>,
    ) -> PyResult<()> {
        let mut refused = None;
        self.waiting(py, wait, |gate, wait| {
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
                Err(exceptions::from_admin_error(&error, sentence))
            }
        }
    }
}

/// Returns the exception for a key that the gate does not have.
fn no_such_key(key_id: KeyIdText) -> PyErr {
    NoSuchKeyError::new_err(Admin::NoSuchKey(key_id.0).to_string())
}

/// Names the plan in an error about a plan that the gate does not have.
fn named_plan(py: Python<'_>, error: PyErr, plan: &str, gate: &Host) -> PyErr {
    if !error.is_instance_of::<NoSuchPlanError>(py) {
        return error;
    }
    let plans: Vec<_> = gate.table().plans().map(|(_, plan)| plan.name.to_string()).collect();
    let sentence = format!(
        "the gate has no plan {:?}; its plans are: {}",
        redact_name(plan),
        plans.join(", ")
    );
    let before = error.value(py).to_string();
    NoSuchPlanError::new_err(before.replace(&Admin::NoSuchPlan.to_string(), &sentence))
}

/// Names the scope in an error about a scope that the gate does not have.
fn named_scope(py: Python<'_>, error: PyErr, scopes: &[String], gate: &Host) -> PyErr {
    let known: Vec<_> = gate.table().scopes().map(|scope| scope.to_string()).collect();
    match scopes.iter().find(|scope| !known.contains(scope)) {
        Some(scope) if error.is_instance_of::<NoSuchScopeError>(py) => {
            let before = error.value(py).to_string();
            let scope = redact_name(scope);
            let sentence = match known.join(", ").as_str() {
                "" => format!("the gate has no scope {scope:?}; it was created without scopes"),
                known => format!("the gate has no scope {scope:?}; its scopes are: {known}"),
            };
            NoSuchScopeError::new_err(before.replace(&Admin::NoSuchScope.to_string(), &sentence))
        }
        _ => error,
    }
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
    /// Calls `work` with the properties as host takes them.
    fn with_key<T>(&self, work: impl FnOnce(&NewKey<'_>) -> T) -> T {
        let scopes: Vec<&str> = self.scopes.iter().map(String::as_str).collect();
        let key = NewKey::new(self.account, self.env).with_expires(self.expires);
        let mut key = key.with_scopes(&scopes);
        key.plan = self.plan.as_deref();
        work(&key)
    }

    /// Names the plan or the scope in an error about it.
    fn named_in(&self, py: Python<'_>, error: PyErr, gate: &Host) -> PyErr {
        let error = named_plan(py, error, self.plan.as_deref().unwrap_or_default(), gate);
        named_scope(py, error, &self.scopes, gate)
    }
}

/// Returns the configuration of a new gate.
fn config(
    keys: &Keys,
    plans: Option<&Bound<'_, PyMapping>>,
    prefix: &str,
    teams: Option<Teams>,
    scopes: Option<Scopes>,
    described: Option<&str>,
) -> PyResult<GateConfig> {
    let mut config = GateConfig::default()
        .with_keys(keys.0)
        .with_prefix(arguments::name(prefix, "prefix")?)
        .with_scopes(scopes.unwrap_or_default().0);
    config.teams = teams.map(|teams| teams.0);
    config.described = described.map(arguments::window).transpose()?;
    if let Some(plans) = plans {
        config.plans = sections::plans(plans)?;
    }
    Ok(config)
}
