//! The limiter.

use std::path::PathBuf;

use pyo3::prelude::*;

use crate::arguments::{Capacity, Cost, Moment, PolicyText, with_bytes};
use crate::charge::Charged;
use crate::clock::{Time, with_clock};
use crate::exceptions;
use crate::policy::Policy;
use crate::verdict::Verdict;

/// A table of counts for any subject: an address, a user, a route.
///
/// ``Limiter(policy)`` is this process's, shared with the children that it forks. ``Limiter.open_or_create(path, …)``
/// is shared by every process that opens the file. Any number of threads may use one. Calls never wait.
///
/// Every method that depends on the time takes ``now``, an explicit time: see `Gate` for what it
/// means and costs. In a limiter, a caller that passes a time 61 s late or more may find its
/// subject's slot reused. That costs one more window each time.
///
/// Args:
///     policy: What each subject may use, a `Policy` or its text.
///     capacity: The most subjects with live counts, 1 to 1073741824; each takes about 26 bytes.
///
/// Raises:
///     PolicyError: There is no such policy.
///     CreateError: The capacity is out of bounds.
///
/// >>> from keytally import Limiter
/// >>> limiter = Limiter("2/minute", capacity=1000)
/// >>> [limiter.check("203.0.113.9", now=1_700_000_000).admitted for _ in range(3)]
/// [True, True, False]
#[pyclass(frozen, module = "keytally")]
pub(crate) struct Limiter {
    limiter: keytally::Limiter,
}

#[pymethods]
impl Limiter {
    #[new]
    #[pyo3(signature = (policy, capacity=Capacity(100_000)), text_signature = "(policy, capacity=100000)")]
    fn new(py: Python<'_>, policy: PolicyText, capacity: Capacity) -> PyResult<Self> {
        Self::made(py, || keytally::Limiter::in_memory(&policy.0, capacity.0))
    }

    /// Creates a limiter in a new file, with mode 0600 and its room on the disk taken.
    ///
    /// Args:
    ///     path: Where; a local file system, and nothing may be there yet.
    ///     policy: What each subject may use, a `Policy` or its text.
    ///     capacity: The most subjects with live counts.
    ///
    /// Raises:
    ///     FileExistsError: There is something at the path.
    ///     PolicyError, CreateError: There can be no such limiter.
    ///     OSError: The system refuses.
    ///
    /// >>> import os, tempfile
    /// >>> from keytally import Limiter
    /// >>> path = os.path.join(tempfile.mkdtemp(), "addresses.limiter")
    /// >>> limiter = Limiter.create(path, "20/minute, 200/hour", capacity=10_000)
    /// >>> limiter.policy, limiter.capacity, str(limiter.path) == path
    /// (Policy('20/minute, 200/hour'), 10000, True)
    #[staticmethod]
    #[pyo3(signature = (path, policy, capacity=Capacity(100_000)), text_signature = "(path, policy, capacity=100000)")]
    fn create(py: Python<'_>, path: PathBuf, policy: PolicyText, capacity: Capacity) -> PyResult<Self> {
        Self::made(py, || keytally::Limiter::create(path, &policy.0, capacity.0))
    }

    /// Opens the limiter in a file.
    ///
    /// Raises:
    ///     FileNotFoundError: There is no such file.
    ///     TableError: The file is no limiter, is damaged, or others can get at it.
    ///     OSError: The system refuses.
    ///
    /// >>> import os, tempfile
    /// >>> from keytally import Limiter
    /// >>> path = os.path.join(tempfile.mkdtemp(), "addresses.limiter")
    /// >>> limiter = Limiter.create(path, "5/minute", capacity=100)
    /// >>> Limiter.open(path).policy
    /// Policy('5/minute')
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        Self::made(py, || keytally::Limiter::open(path))
    }

    /// Opens the limiter in a file, or creates it if there is none. Of several processes that do so at once, one
    /// creates it and the others open the same: this is what each worker of a server calls.
    ///
    /// Raises:
    ///     TableError: The limiter there has another policy or capacity; or as in `open`.
    ///     PolicyError, CreateError, OSError: As in `create`.
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
    #[pyo3(signature = (path, policy, capacity=Capacity(100_000)), text_signature = "(path, policy, capacity=100000)")]
    fn open_or_create(
        py: Python<'_>,
        path: PathBuf,
        policy: PolicyText,
        capacity: Capacity,
    ) -> PyResult<Self> {
        Self::made(py, || keytally::Limiter::open_or_create(path, &policy.0, capacity.0))
    }

    /// Charges ``cost`` to every window of the subject if all have room for it, else to none.
    ///
    /// Args:
    ///     subject: Any text or bytes; a text counts as its UTF-8.
    ///     cost: Units, 0 to 4294967295; 0 is always admitted and charges nothing.
    ///     now: An explicit time, in Unix seconds or as a datetime that has a time zone; the system
    ///         clock when left out.
    ///
    /// Raises:
    ///     TypeError, ValueError: An argument is of another type, or out of bounds.
    ///
    /// >>> from keytally import Limiter
    /// >>> limiter = Limiter("5/minute")
    /// >>> limiter.check("203.0.113.9", cost=2, now=1_700_000_000).remaining
    /// 3
    #[pyo3(signature = (subject, cost=Cost(1), *, now=None), text_signature = "($self, subject, cost=1, *, now=None)")]
    fn check(&self, subject: &Bound<'_, PyAny>, cost: Cost, now: Option<Moment>) -> PyResult<Verdict> {
        let now = Time::from(now);
        with_bytes(subject, "subject", |subject| {
            with_clock!(now, |clock| Verdict::of(self.limiter.table().check(subject, cost.0, clock)))
        })
    }

    /// Returns what `check` would, without the charge.
    ///
    /// Args and what it raises are those of `check`.
    ///
    /// >>> from keytally import Limiter
    /// >>> limiter = Limiter("5/minute")
    /// >>> limiter.peek("203.0.113.9").remaining, limiter.peek("203.0.113.9").remaining
    /// (5, 5)
    #[pyo3(signature = (subject, cost=Cost(1), *, now=None), text_signature = "($self, subject, cost=1, *, now=None)")]
    fn peek(&self, subject: &Bound<'_, PyAny>, cost: Cost, now: Option<Moment>) -> PyResult<Verdict> {
        let now = Time::from(now);
        with_bytes(subject, "subject", |subject| {
            with_clock!(now, |clock| Verdict::of(self.limiter.table().peek(subject, cost.0, clock)))
        })
    }

    /// Gives back what a check charged, in the windows that still count it. Refund a charge once.
    ///
    /// Args:
    ///     subject: As in `check`.
    ///     charge: The ``charge`` of the verdict.
    ///
    /// Raises:
    ///     ValueError: ``charge`` is ``None``, as that of a verdict that was not admitted.
    ///
    /// >>> from keytally import Limiter
    /// >>> limiter = Limiter("5/minute")
    /// >>> charge = limiter.check("203.0.113.9", 3, now=1_700_000_000).charge
    /// >>> limiter.refund("203.0.113.9", charge, now=1_700_000_001).remaining
    /// 5
    #[pyo3(signature = (subject, charge, *, now=None))]
    fn refund(&self, subject: &Bound<'_, PyAny>, charge: Charged, now: Option<Moment>) -> PyResult<Verdict> {
        let now = Time::from(now);
        with_bytes(subject, "subject", |subject| {
            with_clock!(now, |clock| Verdict::of(self.limiter.table().refund(subject, charge.0, clock)))
        })
    }

    /// Replaces an estimate that was charged by the actual cost: refunds the difference, or charges it as far as there
    /// is room. What found no room is the verdict's ``uncharged``. Settle a charge once.
    ///
    /// Args:
    ///     subject: As in `check`.
    ///     charge: The ``charge`` of the verdict.
    ///     actual: What the request did cost, in units, 0 to 4294967295.
    ///
    /// Raises:
    ///     ValueError: ``charge`` is ``None``, as that of a verdict that was not admitted.
    ///
    /// >>> from keytally import Limiter
    /// >>> limiter = Limiter("5/minute")
    /// >>> estimate = limiter.check("203.0.113.9", 3, now=1_700_000_000).charge
    /// >>> verdict = limiter.settle("203.0.113.9", estimate, 7, now=1_700_000_001)
    /// >>> verdict.remaining, verdict.uncharged
    /// (0, 2)
    #[pyo3(signature = (subject, charge, actual, *, now=None))]
    fn settle(
        &self,
        subject: &Bound<'_, PyAny>,
        charge: Charged,
        actual: Cost,
        now: Option<Moment>,
    ) -> PyResult<Verdict> {
        let now = Time::from(now);
        with_bytes(subject, "subject", |subject| {
            with_clock!(now, |clock| Verdict::of(
                self.limiter.table().settle(subject, charge.0, actual.0, clock)
            ))
        })
    }

    /// Forgets all counts of the subject.
    ///
    /// >>> from keytally import Limiter
    /// >>> limiter = Limiter("5/minute")
    /// >>> verdict = limiter.check("203.0.113.9", 5)
    /// >>> limiter.reset("203.0.113.9").remaining
    /// 5
    #[pyo3(signature = (subject, *, now=None))]
    fn reset(&self, subject: &Bound<'_, PyAny>, now: Option<Moment>) -> PyResult<Verdict> {
        let now = Time::from(now);
        with_bytes(subject, "subject", |subject| {
            with_clock!(now, |clock| Verdict::of(self.limiter.table().reset(subject, clock)))
        })
    }

    /// Corrects every tally that is more than 60 s ahead, counts kept, and returns how many. Calls
    /// by the system clock correct the tallies that they meet; this is for all others. Reads the
    /// whole table.
    ///
    /// Args:
    ///     now: The time; the system clock when left out, which is read after each tally was
    ///         loaded. An explicit time is older than that. If the call is stopped for more than a
    ///         minute, each tally that is charged meanwhile may admit one more window, so pass one
    ///         only while nothing else charges.
    ///
    /// >>> import time
    /// >>> from keytally import Limiter
    /// >>> limiter = Limiter("5/minute")
    /// >>> verdict = limiter.check("203.0.113.9", 5, now=time.time() + 86_400)
    /// >>> limiter.correct_clock()
    /// 1
    /// >>> limiter.peek("203.0.113.9").clock_ahead_s
    /// 0
    #[pyo3(signature = (*, now=None))]
    fn correct_clock(&self, py: Python<'_>, now: Option<Moment>) -> u64 {
        let now = Time::from(now);
        py.detach(|| with_clock!(now, |clock| self.limiter.table().correct_clock(clock)))
    }

    /// The path that the limiter was opened or created with; ``None`` in memory.
    #[getter]
    fn path(&self) -> Option<PathBuf> {
        self.limiter.path().map(PathBuf::from)
    }

    /// What each subject may use; ``None`` when the file's header is damaged.
    #[getter]
    fn policy(&self) -> Option<Policy> {
        self.limiter.policy().map(|policy| Policy { policy })
    }

    /// How many subjects it was made for.
    #[getter]
    fn capacity(&self) -> u32 {
        self.limiter.table().capacity()
    }

    fn __repr__(&self) -> String {
        let policy = self.limiter.policy().map(|policy| policy.to_string()).unwrap_or_default();
        match self.limiter.path() {
            Some(path) => format!("<Limiter '{policy}' in {}>", path.display()),
            None => format!("<Limiter '{policy}' in memory>"),
        }
    }
}

impl Limiter {
    /// Taking room for a file takes a while, in which other threads go on.
    fn made(
        py: Python<'_>,
        make: impl FnOnce() -> Result<keytally::Limiter, keytally::Error> + Send,
    ) -> PyResult<Self> {
        py.detach(make).map(|limiter| Self { limiter }).map_err(exceptions::of)
    }
}
