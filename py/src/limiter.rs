//! The class `Limiter`, a table of counts for any subject.

use alloc::sync::Arc;
use std::path::PathBuf;

use keytally::{Address, AttachError, DEFAULT_CREDIT_WAIT, Patience, Settlement, TableKind};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::arguments::{Capacity, Cost, CreditWait, Moment, OnFull, with_bytes};
use crate::charge::ChargeArgument;
use crate::clock::{Time, with_clock};
use crate::compound::Part;
use crate::exceptions;
use crate::gate::acheck;
use crate::policy::{AddressPolicy, LimiterPolicy, LimitsArgument, Policy};
use crate::verdict::Verdict;

/// A table that limits the use of any subject: an address, a user, a route.
///
/// ``Limiter.in_memory`` creates a limiter for this process and the children that it forks. All
/// processes that call ``Limiter.open_or_create`` with one path share the limiter in that file. Any
/// number of threads may use one limiter at once. Only the first charge of a subject may wait for
/// another thread or process, for a bounded number of steps.
///
/// A tally is the counts of one subject and their time, in one 64-bit word. Every method that
/// depends on the time takes ``now``, an explicit time, which `Gate` describes. If a caller passes
/// a time that is more than 1 s late, the memory of its subject's tally may already be reused for
/// another subject. Each time, the caller's subject may be admitted for one more window.
///
/// >>> from keytally import Limiter
/// >>> limiter = Limiter.in_memory("2/minute", capacity=1000)
/// >>> [limiter.check("203.0.113.9", now=1_700_000_000).admitted for _ in range(3)]
/// [True, True, False]
///
/// A policy that begins with ``addresses:`` makes a limiter of addresses, see `AddressPolicy`. Its
/// subjects are client addresses, and each request is charged to all networks that contain the
/// address, or to none. Then ``quotas`` and ``remaining`` of a verdict describe the client's own
/// network, and ``tallies`` and the header fields list all. A text that is not an address raises a
/// `ValueError`.
///
/// >>> limiter = Limiter.in_memory("addresses: /64 2/minute; /48 3/minute")
/// >>> for address in ("2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:2::1"):
/// ...     assert limiter.check(address, now=1_700_000_000)
/// >>> denied = limiter.check("2001:db8:0:3::1", now=1_700_000_000)
/// >>> [(tally.section, tally.verdict.outcome) for tally in denied.tallies]
/// [(None, 'admitted'), ('prefix-48', 'denied')]
#[pyclass(frozen, module = "keytally")]
pub(crate) struct Limiter {
    table: Table,
    /// The path of the fleet file, as it was given.
    fleet: Option<PathBuf>,
}

/// The table of a limiter.
enum Table {
    Subjects(Arc<keytally::Limiter>),
    Addresses(Arc<keytally::AddressLimiter>),
}

/// Evaluates `$work` for the table of a limiter, whichever it is.
macro_rules! with_table {
    ($limiter:expr, |$table:ident| $work:expr) => {
        match &$limiter.table {
            Table::Subjects($table) => $work,
            Table::Addresses($table) => $work,
        }
    };
}

/// Evaluates `$work` with the limiter, its table and the subject or address of the argument
/// `$subject`. The table does not wait for credits of a fleet.
macro_rules! with_subject {
    ($self:expr, $subject:expr, |$limiter:ident, $table:ident, $named:ident| $work:expr) => {
        with_bytes($subject, "subject", |bytes| match &$self.table {
            Table::Subjects($limiter) => {
                let ($table, $named) = ($limiter.reserving(Patience::Return), bytes);
                Ok($work)
            }
            Table::Addresses($limiter) => {
                let ($table, $named) = ($limiter.reserving(Patience::Return), address(bytes)?);
                Ok($work)
            }
        })?
    };
}

/// Parses the address of a client. The error does not repeat the text, which may be a key.
fn address(text: &[u8]) -> PyResult<Address> {
    core::str::from_utf8(text).ok().and_then(Address::parse).ok_or_else(|| {
        PyValueError::new_err(
            "the subject is not an address, such as 203.0.113.9 or 2001:db8::1: the policy of \
             this limiter counts addresses",
        )
    })
}

#[pymethods]
impl Limiter {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = None)]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        Err(PyTypeError::new_err(
            "Limiter has no constructor; call Limiter.in_memory, Limiter.create, Limiter.open or \
             Limiter.open_or_create",
        ))
    }

    /// Creates a limiter in memory, for this process and the children that it forks.
    ///
    /// Args:
    ///     policy: The limits of each subject, a `Policy` or its text, or an `AddressPolicy` or its
    ///         text.
    ///     capacity: The most subjects with counts at a time, 1 to 1073741824. Each takes about 27
    ///         bytes.
    ///     on_full: What happens to a new subject that finds no slot. ``"share"``, the default,
    ///         charges it to a tally that it shares with other such subjects, under the same
    ///         limits. ``"refuse"`` refuses it with the outcome ``"full"``.
    ///
    /// Raises:
    ///     PolicyError: The text is not a policy.
    ///     CreateError: The capacity is out of range.
    ///     TypeError, ValueError: An argument has the wrong type or is out of range.
    ///     OSError: The operating system reports an error.
    ///
    /// >>> from keytally import Limiter
    /// >>> limiter = Limiter.in_memory("20/minute, 200/hour", capacity=1000)
    /// >>> limiter
    /// <Limiter '20/minute, 200/hour' in memory>
    #[staticmethod]
    #[pyo3(signature = (policy, capacity=Capacity(100_000), *, on_full=None), text_signature = "(policy, capacity=100000, *, on_full=None)")]
    fn in_memory(
        py: Python<'_>,
        policy: LimitsArgument,
        capacity: Capacity,
        on_full: Option<OnFull>,
    ) -> PyResult<Self> {
        Self::from_host(py, on_full, || match &policy {
            LimitsArgument::Subjects(policy) => {
                keytally::Limiter::in_memory(policy, capacity.0).map(Table::from)
            }
            LimitsArgument::Addresses(policy) => {
                keytally::AddressLimiter::in_memory(policy, capacity.0).map(Table::from)
            }
        })
    }

    /// Creates a limiter in a new file, with mode 0600. Its space on the disk is allocated at once.
    ///
    /// Args:
    ///     path: The path of the new file, on a local file system. It must not exist yet.
    ///     policy: The limits of each subject, a `Policy` or its text, or an `AddressPolicy` or its
    ///         text.
    ///     capacity: The most subjects with counts at a time, 1 to 1073741824.
    ///     on_full: What happens to a new subject that finds no slot, as of ``in_memory``.
    ///
    /// Raises:
    ///     FileExistsError: The path exists.
    ///     PolicyError, CreateError: The policy or the capacity is not valid.
    ///     OSError: The operating system reports an error.
    ///
    /// >>> import os, tempfile
    /// >>> from keytally import Limiter
    /// >>> path = os.path.join(tempfile.mkdtemp(), "addresses.limiter")
    /// >>> limiter = Limiter.create(path, "20/minute, 200/hour", capacity=10_000)
    /// >>> limiter.policy, limiter.capacity, str(limiter.path) == path
    /// (Policy('20/minute, 200/hour'), 10000, True)
    /// >>> limiter.slots_total >= 1.5 * limiter.capacity
    /// True
    #[staticmethod]
    #[pyo3(signature = (path, policy, capacity=Capacity(100_000), *, on_full=None), text_signature = "(path, policy, capacity=100000, *, on_full=None)")]
    fn create(
        py: Python<'_>,
        path: PathBuf,
        policy: LimitsArgument,
        capacity: Capacity,
        on_full: Option<OnFull>,
    ) -> PyResult<Self> {
        Self::from_host(py, on_full, || match &policy {
            LimitsArgument::Subjects(policy) => {
                keytally::Limiter::create(path, policy, capacity.0).map(Table::from)
            }
            LimitsArgument::Addresses(policy) => {
                keytally::AddressLimiter::create(path, policy, capacity.0).map(Table::from)
            }
        })
    }

    /// Opens the limiter in a file.
    ///
    /// Args:
    ///     path: The path of the file.
    ///     fleet: The path of the fleet file of this machine, if the limiter shares its limits with
    ///         other machines. The machine's agent, the program ``keytally agent``, creates the
    ///         file.
    ///     credit_wait: How long a request waits for credits of the fleet at most, as a timedelta
    ///         or in seconds.
    ///
    /// Raises:
    ///     FileNotFoundError: The path does not exist, or no agent has created the fleet file.
    ///     TableError: A file is not a limiter or not its fleet file, is damaged, belongs to
    ///         another user, or all users have access to it. Also if the limiter has sliding
    ///         windows, which machines cannot share.
    ///     OSError: The operating system reports an error.
    ///
    /// >>> import os, tempfile
    /// >>> from keytally import Limiter
    /// >>> path = os.path.join(tempfile.mkdtemp(), "addresses.limiter")
    /// >>> limiter = Limiter.create(path, "5/minute", capacity=100)
    /// >>> Limiter.open(path).policy
    /// Policy('5/minute')
    #[staticmethod]
    #[pyo3(signature = (path, *, fleet=None, credit_wait=CREDIT_WAIT), text_signature = "(path, *, fleet=None, credit_wait=0.02)")]
    fn open(
        py: Python<'_>,
        path: PathBuf,
        fleet: Option<PathBuf>,
        credit_wait: CreditWait,
    ) -> PyResult<Self> {
        let limiter = Self::from_host(py, None, || match keytally::Limiter::open(&path) {
            Err(keytally::Error::Attach {
                source: AttachError::Kind { found: TableKind::AddressLimiter, .. },
                ..
            }) => keytally::AddressLimiter::open(path).map(Table::from),
            opened => opened.map(Table::from),
        })?;
        limiter.joined(py, fleet, credit_wait)
    }

    /// Opens the limiter in a file, or creates it if the path does not exist.
    ///
    /// If several processes call it at once, one of them creates the file and all open the same.
    /// Each worker of a server can call it.
    ///
    /// If only the limits of the policy differ, they are changed in the file, and all processes use
    /// them from their next check on. The counts stay. Other windows need another file.
    ///
    /// Args:
    ///     path: The path of the file, on a local file system.
    ///     policy: The limits of each subject, a `Policy` or its text, or an `AddressPolicy` or its
    ///         text.
    ///     capacity: The most subjects with counts at a time, 1 to 1073741824.
    ///     on_full: What happens to a new subject that finds no slot, as of ``in_memory``. ``None``
    ///         keeps what the file has.
    ///     fleet, credit_wait: As of ``open``. All machines must have copies of one file.
    ///
    /// Raises:
    ///     TableError: The file is not a limiter, is damaged, belongs to another user, or all users
    ///         have access to it. Or it has other windows or another capacity.
    ///     PolicyError, CreateError: The policy or the capacity is not valid.
    ///     OSError: The operating system reports an error.
    ///
    /// >>> import os, tempfile
    /// >>> from keytally import Limiter
    /// >>> path = os.path.join(tempfile.mkdtemp(), "addresses.limiter")
    /// >>> limiter = Limiter.open_or_create(path, "5/minute")
    /// >>> same = Limiter.open_or_create(path, "5/minute")
    /// >>> limiter.check("203.0.113.9", now=1_700_000_000).remaining
    /// 4
    /// >>> same.check("203.0.113.9", now=1_700_000_000).remaining
    /// 3
    #[staticmethod]
    #[pyo3(signature = (path, policy, capacity=Capacity(100_000), *, on_full=None, fleet=None, credit_wait=CREDIT_WAIT), text_signature = "(path, policy, capacity=100000, *, on_full=None, fleet=None, credit_wait=0.02)")]
    fn open_or_create(
        py: Python<'_>,
        path: PathBuf,
        policy: LimitsArgument,
        capacity: Capacity,
        on_full: Option<OnFull>,
        fleet: Option<PathBuf>,
        credit_wait: CreditWait,
    ) -> PyResult<Self> {
        let limiter = Self::from_host(py, on_full, || match &policy {
            LimitsArgument::Subjects(policy) => {
                keytally::Limiter::open_or_create(path, policy, capacity.0).map(Table::from)
            }
            LimitsArgument::Addresses(policy) => {
                keytally::AddressLimiter::open_or_create(path, policy, capacity.0).map(Table::from)
            }
        })?;
        limiter.joined(py, fleet, credit_wait)
    }

    /// Charges ``cost`` to every window of the subject, if all of them have room for it.
    ///
    /// Otherwise nothing is charged.
    ///
    /// Args:
    ///     subject: Any text or bytes. A text is the same subject as its UTF-8 bytes. In a limiter
    ///         of addresses, an address, which may have a port, brackets and a zone.
    ///     cost: The cost in units, 0 to 4294967295. A cost of 0 is always admitted.
    ///     now: An explicit time, in Unix seconds or as a datetime with a time zone; the system
    ///         clock by default.
    ///
    /// Raises:
    ///     TypeError, ValueError: An argument has the wrong type or is out of range.
    ///
    /// >>> from keytally import Limiter
    /// >>> limiter = Limiter.in_memory("5/minute")
    /// >>> limiter.check("203.0.113.9", cost=2, now=1_700_000_000).remaining
    /// 3
    #[pyo3(signature = (subject, cost=Cost(1), *, now=None), text_signature = "($self, subject, cost=1, *, now=None)")]
    fn check(
        &self,
        subject: &Bound<'_, PyAny>,
        cost: Cost,
        now: Option<Moment>,
    ) -> PyResult<Verdict> {
        let now = Time::from(now);
        with_bytes(subject, "subject", |bytes| {
            let check = |patience| self.checked(bytes, cost.0, now, patience);
            let verdict = check(Patience::Return)?;
            if !verdict.is_waiting() {
                return Ok(verdict);
            }
            // Other Python threads run while this one waits.
            subject.py().detach(|| check(Patience::Wait))
        })?
    }

    /// Checks as `check` does, and waits in the event loop for credits of a fleet.
    ///
    /// Other tasks run meanwhile. In a limiter that is not in a fleet, it never waits. If the task
    /// is canceled while it waits, nothing is charged. It runs in asyncio and in trio.
    ///
    /// Args:
    ///     subject, cost, now: As in `check`.
    ///
    /// Raises:
    ///     TypeError, ValueError: As in `check`.
    ///
    /// >>> import asyncio, keytally
    /// >>> limiter = keytally.Limiter.in_memory("5/minute")
    /// >>> async def handler():
    /// ...     return await limiter.acheck("203.0.113.9", 3)
    /// >>> asyncio.run(handler()).remaining
    /// 2
    #[pyo3(signature = (*args, **kwargs), text_signature = "($self, subject, cost=1, *, now=None)")]
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
    ///     subject, cost, now: As in `check`.
    ///
    /// Raises:
    ///     TypeError, ValueError: As in `check`.
    ///
    /// >>> from keytally import Limiter
    /// >>> Limiter.in_memory("5/minute").try_check("203.0.113.9").remaining
    /// 4
    #[pyo3(signature = (subject, cost=Cost(1), *, now=None), text_signature = "($self, subject, cost=1, *, now=None)")]
    fn try_check(
        &self,
        subject: &Bound<'_, PyAny>,
        cost: Cost,
        now: Option<Moment>,
    ) -> PyResult<Verdict> {
        with_bytes(subject, "subject", |bytes| {
            self.checked(bytes, cost.0, now.into(), Patience::Return)
        })?
    }

    /// Checks as `check` does after a wait for credits of a fleet that had no effect.
    ///
    /// If there are still no credits, the choice of the agent's operator decides: the outcome is
    /// ``"unavailable"``, or the request is decided by the counts of this machine alone.
    ///
    /// Args:
    ///     subject, cost, now: As in `check`.
    ///
    /// Raises:
    ///     TypeError, ValueError: As in `check`.
    ///
    /// >>> from keytally import Limiter
    /// >>> Limiter.in_memory("5/minute").check_without_wait("203.0.113.9").remaining
    /// 4
    #[pyo3(signature = (subject, cost=Cost(1), *, now=None), text_signature = "($self, subject, cost=1, *, now=None)")]
    fn check_without_wait(
        &self,
        subject: &Bound<'_, PyAny>,
        cost: Cost,
        now: Option<Moment>,
    ) -> PyResult<Verdict> {
        with_bytes(subject, "subject", |bytes| {
            self.checked(bytes, cost.0, now.into(), Patience::Decide)
        })?
    }

    /// Puts the limiter in a fleet, in which machines share its limits, or takes it out of it.
    ///
    /// It applies to all processes that have the limiter open. Those that opened it without
    /// ``fleet`` then refuse every request, with the ``unavailability`` ``"not_reserving"``. All
    /// machines must have copies of one file.
    ///
    /// Args:
    ///     is_in_fleet: Whether the limiter is in a fleet.
    ///
    /// Raises:
    ///     TableError: The limiter has sliding windows, which machines cannot share.
    ///
    /// >>> from keytally import Limiter
    /// >>> limiter = Limiter.in_memory("fixed 5/minute")
    /// >>> limiter.set_fleet(True)
    /// >>> limiter.is_in_fleet, limiter.check("203.0.113.9").unavailability
    /// (True, 'not_reserving')
    /// >>> limiter.fleet, limiter.credit_wait_s
    /// (None, 0.02)
    fn set_fleet(&self, is_in_fleet: bool) -> PyResult<()> {
        with_table!(self, |limiter| limiter.set_fleet(is_in_fleet)).map_err(exceptions::from_error)
    }

    /// Whether requests need credits of a fleet, in every process that has the limiter open.
    #[getter]
    fn is_in_fleet(&self) -> bool {
        with_table!(self, |limiter| limiter.is_in_fleet())
    }

    /// The path of the fleet file, as `open` was given it; ``None`` without one.
    #[getter]
    fn fleet(&self) -> Option<PathBuf> {
        self.fleet.clone()
    }

    /// How long a request waits for credits of a fleet at most, in seconds.
    #[getter]
    fn credit_wait_s(&self) -> f64 {
        with_table!(self, |limiter| limiter.credit_wait()).as_secs_f64()
    }

    /// Returns the subject and a cost as a part of ``check_all``.
    ///
    /// Args:
    ///     subject: Any text or bytes.
    ///     cost: The cost in units, 0 to 4294967295.
    ///
    /// Raises:
    ///     TypeError, ValueError: An argument has the wrong type or is out of range.
    ///
    /// >>> from keytally import Limiter
    /// >>> Limiter.in_memory("5/minute").part("203.0.113.9")
    /// <Part of a limiter, cost 1>
    #[pyo3(signature = (subject, cost=Cost(1)), text_signature = "($self, subject, cost=1)")]
    fn part(&self, subject: &Bound<'_, PyAny>, cost: Cost) -> PyResult<Part> {
        with_bytes(subject, "subject", |bytes| match &self.table {
            Table::Subjects(limiter) => Ok(Part::subject(Arc::clone(limiter), bytes, cost.0)),
            Table::Addresses(limiter) => {
                Ok(Part::address(Arc::clone(limiter), address(bytes)?, cost.0))
            }
        })?
    }

    /// Returns the verdict that `check` would return, and charges nothing.
    ///
    /// Args:
    ///     subject: Any text or bytes.
    ///     cost: The cost in units, 0 to 4294967295.
    ///     now: An explicit time, see `Gate`; the system clock by default.
    ///
    /// Raises:
    ///     TypeError, ValueError: An argument has the wrong type or is out of range.
    ///
    /// >>> from keytally import Limiter
    /// >>> limiter = Limiter.in_memory("5/minute")
    /// >>> limiter.peek("203.0.113.9").remaining, limiter.peek("203.0.113.9").remaining
    /// (5, 5)
    #[pyo3(signature = (subject, cost=Cost(1), *, now=None), text_signature = "($self, subject, cost=1, *, now=None)")]
    fn peek(
        &self,
        subject: &Bound<'_, PyAny>,
        cost: Cost,
        now: Option<Moment>,
    ) -> PyResult<Verdict> {
        let now = Time::from(now);
        with_subject!(self, subject, |limiter, table, named| {
            with_clock!(now, limiter.clock(), |clock| table.peek(named, cost.0, clock).into())
        })
    }

    /// Takes a charge back, in the windows that still count it. Refund a charge at most once.
    ///
    /// Args:
    ///     subject: The subject that was charged.
    ///     charge: The ``charge`` of the verdict.
    ///     now: An explicit time, see `Gate`; the system clock by default.
    ///
    /// Raises:
    ///     TypeError, ValueError: An argument has the wrong type or is out of range, or ``charge``
    ///         is ``None`` because the verdict was not admitted.
    ///
    /// >>> from keytally import Limiter
    /// >>> limiter = Limiter.in_memory("5/minute")
    /// >>> charge = limiter.check("203.0.113.9", 3, now=1_700_000_000).charge
    /// >>> limiter.refund("203.0.113.9", charge, now=1_700_000_001).remaining
    /// 5
    #[pyo3(signature = (subject, charge, *, now=None))]
    fn refund(
        &self,
        subject: &Bound<'_, PyAny>,
        charge: ChargeArgument,
        now: Option<Moment>,
    ) -> PyResult<Verdict> {
        let now = Time::from(now);
        with_subject!(self, subject, |limiter, table, named| {
            with_clock!(now, limiter.precise_clock(), |clock| table
                .refund(named, charge.0, clock)
                .into())
        })
    }

    /// Replaces an estimated charge by the actual cost. Settle a charge at most once.
    ///
    /// A lower cost refunds the difference. A higher cost charges as much of the difference as
    /// there is room for. The rest is ``uncharged`` of the verdict.
    ///
    /// Args:
    ///     subject: The subject that was charged.
    ///     estimate: The ``charge`` of the verdict.
    ///     actual: The actual cost in units, 0 to 4294967295.
    ///     overdraw: Whether units for which there is no room are counted too. The windows are
    ///         then above their limits, and deny requests for longer.
    ///     now: An explicit time, see `Gate`; the system clock by default.
    ///
    /// Raises:
    ///     TypeError, ValueError: An argument has the wrong type or is out of range, or
    ///         ``estimate`` is ``None`` because the verdict was not admitted.
    ///
    /// >>> from keytally import Limiter
    /// >>> limiter = Limiter.in_memory("5/minute")
    /// >>> estimate = limiter.check("203.0.113.9", 3, now=1_700_000_000).charge
    /// >>> verdict = limiter.settle("203.0.113.9", estimate, 7, now=1_700_000_001)
    /// >>> verdict.remaining, verdict.uncharged
    /// (0, 2)
    #[pyo3(signature = (subject, estimate, actual, *, overdraw=false, now=None), text_signature = "($self, subject, estimate, actual, *, overdraw=False, now=None)")]
    fn settle(
        &self,
        subject: &Bound<'_, PyAny>,
        estimate: ChargeArgument,
        actual: Cost,
        overdraw: bool,
        now: Option<Moment>,
    ) -> PyResult<Verdict> {
        let now = Time::from(now);
        let settlement = Settlement::new().with_cost(actual.0).with_overdraw(overdraw);
        with_subject!(self, subject, |limiter, table, named| {
            with_clock!(now, limiter.precise_clock(), |clock| table
                .settle_all(named, estimate.0, &settlement, clock)
                .into())
        })
    }

    /// Sets all counts of the subject to 0.
    ///
    /// In a limiter of addresses, larger networks than the client's own keep their counts.
    ///
    /// Args:
    ///     subject: Any text or bytes.
    ///     now: An explicit time, see `Gate`; the system clock by default.
    ///
    /// Raises:
    ///     TypeError, ValueError: An argument has the wrong type or is out of range.
    ///
    /// >>> from keytally import Limiter
    /// >>> limiter = Limiter.in_memory("5/minute")
    /// >>> verdict = limiter.check("203.0.113.9", 5)
    /// >>> limiter.reset("203.0.113.9").remaining
    /// 5
    #[pyo3(signature = (subject, *, now=None))]
    fn reset(&self, subject: &Bound<'_, PyAny>, now: Option<Moment>) -> PyResult<Verdict> {
        let now = Time::from(now);
        with_subject!(self, subject, |limiter, table, named| {
            with_clock!(now, limiter.precise_clock(), |clock| table.reset(named, clock).into())
        })
    }

    /// Sets all counts of every subject to 0, and returns how many subjects had counts.
    ///
    /// A charge during the call is either reset or counted after it. The call reads the whole
    /// table.
    ///
    /// Args:
    ///     now: An explicit time, see `Gate`; the system clock by default.
    ///
    /// Raises:
    ///     TypeError, ValueError: An argument has the wrong type or is out of range.
    ///
    /// >>> from keytally import Limiter
    /// >>> limiter = Limiter.in_memory("5/minute")
    /// >>> verdicts = limiter.check("203.0.113.9", 5), limiter.check("203.0.113.10", 5)
    /// >>> limiter.reset_all(), limiter.peek("203.0.113.9").remaining
    /// (2, 5)
    #[pyo3(signature = (*, now=None))]
    fn reset_all(&self, py: Python<'_>, now: Option<Moment>) -> u64 {
        let now = Time::from(now);
        py.detach(|| {
            with_table!(self, |limiter| with_clock!(now, limiter.precise_clock(), |clock| limiter
                .table()
                .reset_all(clock)))
        })
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
    ///         only while no other thread or process charges the limiter.
    ///
    /// Raises:
    ///     TypeError, ValueError: ``now`` has the wrong type or is out of range.
    ///
    /// >>> import time
    /// >>> from keytally import Limiter
    /// >>> limiter = Limiter.in_memory("5/minute")
    /// >>> verdict = limiter.check("203.0.113.9", 5, now=time.time() + 86_400)
    /// >>> limiter.correct_clock()
    /// 1
    /// >>> limiter.peek("203.0.113.9").clock_ahead_s
    /// 0
    #[pyo3(signature = (*, now=None))]
    fn correct_clock(&self, py: Python<'_>, now: Option<Moment>) -> u64 {
        let now = Time::from(now);
        py.detach(|| {
            with_table!(self, |limiter| with_clock!(now, limiter.precise_clock(), |clock| limiter
                .table()
                .correct_clock(clock)))
        })
    }

    /// Sets what happens to a new subject that finds no slot.
    ///
    /// The table stores it. It applies to all processes that have it open, from their next such
    /// request on.
    ///
    /// Args:
    ///     on_full: ``"share"`` or ``"refuse"``, as of ``in_memory``.
    ///
    /// Raises:
    ///     TypeError, ValueError: ``on_full`` has the wrong type or is another text.
    ///
    /// >>> from keytally import Limiter
    /// >>> limiter = Limiter.in_memory("5/minute", capacity=1)
    /// >>> limiter.set_on_full("refuse")
    /// >>> {limiter.check(str(number)).outcome for number in range(20)} == {"admitted", "full"}
    /// True
    /// >>> limiter.on_full, limiter.refusals > 0
    /// ('refuse', True)
    fn set_on_full(&self, on_full: OnFull) {
        with_table!(self, |limiter| limiter.set_on_full(on_full.0));
    }

    /// Returns how many subjects have a slot that no other subject can get yet.
    ///
    /// It reads the whole table.
    ///
    /// Args:
    ///     now: An explicit time, see `Gate`; the system clock by default.
    ///
    /// Raises:
    ///     TypeError, ValueError: ``now`` has the wrong type or is out of range.
    ///
    /// >>> from keytally import Limiter
    /// >>> limiter = Limiter.in_memory("5/minute")
    /// >>> verdicts = limiter.check("203.0.113.9"), limiter.check("203.0.113.10")
    /// >>> limiter.live_subjects()
    /// 2
    #[pyo3(signature = (*, now=None))]
    fn live_subjects(&self, py: Python<'_>, now: Option<Moment>) -> u64 {
        let now = Time::from(now).timestamp();
        py.detach(|| with_table!(self, |limiter| limiter.table().live_subjects(now)))
    }

    /// What happens to a new subject that finds no slot: ``"share"`` or ``"refuse"``.
    #[getter]
    fn on_full(&self) -> &'static str {
        with_table!(self, |limiter| limiter.on_full().as_str())
    }

    /// How many requests found no slot for their subject since the table was created.
    ///
    /// What became of them is the choice of ``on_full`` at that time.
    #[getter]
    fn refusals(&self) -> u64 {
        with_table!(self, |limiter| limiter.refusals())
    }

    /// The path that the limiter was opened or created with; ``None`` if it is in memory.
    #[getter]
    fn path(&self) -> Option<PathBuf> {
        with_table!(self, |limiter| limiter.path().map(PathBuf::from))
    }

    /// The limits, a `Policy` or an `AddressPolicy`; ``None`` if the header of the file is damaged.
    #[getter]
    fn policy(&self) -> Option<LimiterPolicy> {
        match &self.table {
            Table::Subjects(limiter) => {
                limiter.policy().map(|policy| LimiterPolicy::Subjects(Policy { policy }))
            }
            Table::Addresses(limiter) => {
                limiter.policy().map(|policy| LimiterPolicy::Addresses(AddressPolicy { policy }))
            }
        }
    }

    /// The most subjects with counts at a time.
    #[getter]
    fn capacity(&self) -> u32 {
        with_table!(self, |limiter| limiter.table().capacity())
    }

    /// The number of slots, each for one subject: at least 1.5 times the capacity.
    #[getter]
    fn slots_total(&self) -> u64 {
        with_table!(self, |limiter| limiter.table().slots_total())
    }

    fn __repr__(&self) -> String {
        with_table!(self, |limiter| {
            let policy = limiter.policy().map(|policy| policy.to_string()).unwrap_or_default();
            match limiter.path() {
                Some(path) => format!("<Limiter '{policy}' in {}>", path.display()),
                None => format!("<Limiter '{policy}' in memory>"),
            }
        })
    }
}

impl Limiter {
    /// Creates or opens a limiter while other Python threads run: allocating a file takes long.
    fn from_host(
        py: Python<'_>,
        on_full: Option<OnFull>,
        make: impl FnOnce() -> Result<Table, keytally::Error> + Send,
    ) -> PyResult<Self> {
        let table = py.detach(make).map_err(exceptions::from_error)?;
        let limiter = Self { table, fleet: None };
        if let Some(on_full) = on_full {
            limiter.set_on_full(on_full);
        }
        Ok(limiter)
    }
}

impl Limiter {
    /// Returns this limiter, which has joined the fleet of this machine if there is one.
    fn joined(
        self,
        py: Python<'_>,
        fleet: Option<PathBuf>,
        credit_wait: CreditWait,
    ) -> PyResult<Self> {
        with_table!(self, |limiter| {
            limiter.set_credit_wait(credit_wait.0);
            if let Some(path) = &fleet {
                py.detach(|| limiter.join(path)).map_err(exceptions::from_error)?;
            }
        });
        Ok(Self { fleet, ..self })
    }

    /// Checks a subject, with what the request does if it lacks credits of a fleet.
    #[inline]
    fn checked(
        &self,
        subject: &[u8],
        cost: u32,
        now: Time,
        patience: Patience,
    ) -> PyResult<Verdict> {
        Ok(match &self.table {
            Table::Subjects(limiter) => with_clock!(now, limiter.clock(), |clock| limiter
                .reserving(patience)
                .check(subject, cost, clock)
                .into()),
            Table::Addresses(limiter) => {
                let address = address(subject)?;
                with_clock!(now, limiter.clock(), |clock| limiter
                    .reserving(patience)
                    .check(address, cost, clock)
                    .into())
            }
        })
    }
}

/// How long a request waits for credits of a fleet by default.
const CREDIT_WAIT: CreditWait = CreditWait(DEFAULT_CREDIT_WAIT);

impl From<keytally::Limiter> for Table {
    fn from(limiter: keytally::Limiter) -> Self {
        Self::Subjects(Arc::new(limiter))
    }
}

impl From<keytally::AddressLimiter> for Table {
    fn from(limiter: keytally::AddressLimiter) -> Self {
        Self::Addresses(Arc::new(limiter))
    }
}
