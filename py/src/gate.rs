//! The class `Gate`, a table of API keys.

use alloc::sync::Arc;
use core::cell::RefCell;
use core::time::Duration;
use std::path::PathBuf;

use keytally::{AdminError as Admin, NewKey};
use keytally::{Administrator, Clock as _, Name, Peppers, Timestamp};
use keytally::{Error, Followed, Gate as Host, GateConfig, Mapping, Wait};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping, PyTuple};
use zeroize::Zeroizing;

use crate::arguments::{
    self, Account, Capacity, Cost, Expiry, Grace, KeyIdText, Moment, WaitTime, with_api_key,
    with_bytes,
};
use crate::charge::ChargeArgument;
use crate::clock::{Time, with_clock};
use crate::compound::Part;
use crate::exceptions::{self, NoSuchKeyError};
use crate::key::{Key, KeyInfo};
use crate::policy::{self, Policy, PolicyArgument};
use crate::report::Report;
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
    held: Held,
}

/// Where the gate is.
enum Held {
    Memory(Arc<Host>),
    /// In a file, which is opened again when another file replaces it.
    File(Followed),
}

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
    ///     keys: The capacity in keys, 1 to 67108864. Each takes 68 bytes.
    ///     plans: The policies by name, each a `Policy` or its text: 1 to 116, with the same
    ///         windows and algorithm. The first is the plan of keys that are issued without one.
    ///         The default is ``{"default": "100/minute, 1000/hour"}``.
    ///     prefix: The first part of every key, 1 to 8 characters of ``a-z`` and ``0-9``.
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
    #[staticmethod]
    #[pyo3(signature = (path, *, pepper=None, pepper_file=None, keys=Capacity(100_000), plans=None, prefix="kt"), text_signature = "(path, *, pepper=None, pepper_file=None, keys=100000, plans=None, prefix=\"kt\")")]
    fn create(
        py: Python<'_>,
        path: PathBuf,
        pepper: Option<String>,
        pepper_file: Option<PathBuf>,
        keys: Capacity,
        plans: Option<&Bound<'_, PyMapping>>,
        prefix: &str,
    ) -> PyResult<Self> {
        let peppers = arguments::peppers(pepper, pepper_file)?;
        let config = config(&keys, plans, prefix)?;
        Self::follow(py, peppers, |peppers| Host::create(path, peppers, &config))
    }

    /// Opens the gate in a file.
    ///
    /// Args:
    ///     path: The path of the file.
    ///     pepper, pepper_file: The pepper that its keys were issued with, see the class.
    ///
    /// Raises:
    ///     FileNotFoundError: The path does not exist.
    ///     TableError: The file is not a gate, is damaged, belongs to another user, or all users
    ///         have access to it.
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
    #[pyo3(signature = (path, *, pepper=None, pepper_file=None))]
    fn open(
        py: Python<'_>,
        path: PathBuf,
        pepper: Option<String>,
        pepper_file: Option<PathBuf>,
    ) -> PyResult<Self> {
        let peppers = arguments::peppers(pepper, pepper_file)?;
        Self::follow(py, peppers, |peppers| Host::open(path, peppers))
    }

    /// Creates a gate in memory, for tests, or for one process and the children that it forks.
    ///
    /// Args:
    ///     pepper, pepper_file: The pepper, see the class.
    ///     keys, plans, prefix: As in `create`.
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
    #[pyo3(signature = (*, pepper=None, pepper_file=None, keys=Capacity(100_000), plans=None, prefix="kt"), text_signature = "(*, pepper=None, pepper_file=None, keys=100000, plans=None, prefix=\"kt\")")]
    fn in_memory(
        py: Python<'_>,
        pepper: Option<String>,
        pepper_file: Option<PathBuf>,
        keys: Capacity,
        plans: Option<&Bound<'_, PyMapping>>,
        prefix: &str,
    ) -> PyResult<Self> {
        let peppers = arguments::peppers(pepper, pepper_file)?;
        let config = config(&keys, plans, prefix)?;
        let gate =
            py.detach(|| Host::in_memory(peppers, &config)).map_err(exceptions::from_error)?;
        Ok(Self { held: Held::Memory(Arc::new(gate)) })
    }

    /// Verifies the key, then charges ``cost`` to every window of its plan, if all of them have
    /// room.
    ///
    /// Otherwise nothing is charged. The duration of a check does not depend on how much of a
    /// secret is correct.
    ///
    /// Args:
    ///     api_key: The value of the ``X-API-Key`` header, or ``None`` if the request has none. If
    ///         a request has several, use ``Verdict.duplicate_header()`` instead of a check.
    ///     cost: The cost in units, 0 to 4294967295. A cost of 0 is always admitted.
    ///     now: An explicit time, see the class; the system clock by default.
    ///
    /// Raises:
    ///     TypeError, ValueError: An argument has the wrong type or is out of range. No text that a
    ///         client sends raises an exception: the verdict reports that the key is invalid.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> gate.check(None).body
    /// b'{"error": "Missing X-API-Key header"}'
    /// >>> gate.check("not a key").reason
    /// 'malformed'
    #[pyo3(signature = (api_key, cost=Cost(1), *, now=None), text_signature = "($self, api_key, cost=1, *, now=None)")]
    fn check(
        slf: &Bound<'_, Self>,
        api_key: &Bound<'_, PyAny>,
        cost: Cost,
        now: Option<Moment>,
    ) -> PyResult<Verdict> {
        let now = Time::from(now);
        with_api_key(api_key, |api_key| {
            let gate = slf.get().current();
            with_clock!(now, gate.table().layout(), |clock| Verdict::from_gate(
                gate.table().check(api_key, cost.0, clock),
                gate
            ))
        })
    }

    /// Returns the key and a cost as a part of ``check_all``.
    ///
    /// Args:
    ///     api_key: The value of the ``X-API-Key`` header, or ``None`` if the request has none.
    ///     cost: The cost in units, 0 to 4294967295.
    ///
    /// Raises:
    ///     TypeError, ValueError: An argument has the wrong type or is out of range.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> gate.part("kt_live_wrong", cost=2)
    /// <Part of a gate, cost 2>
    #[pyo3(signature = (api_key, cost=Cost(1)), text_signature = "($self, api_key, cost=1)")]
    fn part(&self, api_key: &Bound<'_, PyAny>, cost: Cost) -> PyResult<Part> {
        with_api_key(api_key, |api_key| Part::key(self.current(), api_key, cost.0))
    }

    /// Returns the verdict that `check` would return, and charges nothing.
    ///
    /// Args:
    ///     api_key: The value of the ``X-API-Key`` header, or ``None`` if the request has none.
    ///     cost: The cost in units, 0 to 4294967295.
    ///     now: An explicit time, see the class; the system clock by default.
    ///
    /// Raises:
    ///     TypeError, ValueError: An argument has the wrong type or is out of range.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> key = gate.issue(42)
    /// >>> gate.peek(key.expose()).remaining, gate.peek(key.expose()).remaining
    /// (1000, 1000)
    #[pyo3(signature = (api_key, cost=Cost(1), *, now=None), text_signature = "($self, api_key, cost=1, *, now=None)")]
    fn peek(
        slf: &Bound<'_, Self>,
        api_key: &Bound<'_, PyAny>,
        cost: Cost,
        now: Option<Moment>,
    ) -> PyResult<Verdict> {
        let now = Time::from(now);
        with_api_key(api_key, |api_key| {
            let gate = slf.get().current();
            with_clock!(now, gate.table().layout(), |clock| Verdict::from_gate(
                gate.table().peek(api_key, cost.0, clock),
                gate
            ))
        })
    }

    /// Takes a charge back, in the windows that still count it. Refund a charge at most once.
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
        let gate = slf.get().current();
        let verdict =
            with_clock!(Time::from(now), |clock| gate.table().refund(key_id.0, charge.0, clock));
        Self::verdict_of_key(gate, key_id, verdict)
    }

    /// Replaces an estimated charge by the actual cost. Settle a charge at most once.
    ///
    /// A lower cost refunds the difference. A higher cost charges as much of the difference as
    /// there is room for. The rest is ``uncharged`` of the verdict.
    ///
    /// Args:
    ///     key_id: The ``key_id`` of the verdict.
    ///     estimate: The ``charge`` of the verdict.
    ///     actual: The actual cost in units, 0 to 4294967295.
    ///     now: An explicit time, see the class; the system clock by default.
    ///
    /// Raises:
    ///     NoSuchKeyError: The gate does not have the key.
    ///     KeyIdError: ``key_id`` is not a key id.
    ///     TypeError, ValueError: An argument has the wrong type or is out of range, or
    ///         ``estimate`` is ``None`` because the verdict was not admitted.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> verdict = gate.check(gate.issue(42).expose(), 50)
    /// >>> gate.settle(verdict.key_id, verdict.charge, 20).remaining
    /// 980
    #[pyo3(signature = (key_id, estimate, actual, *, now=None))]
    fn settle(
        slf: &Bound<'_, Self>,
        key_id: KeyIdText,
        estimate: ChargeArgument,
        actual: Cost,
        now: Option<Moment>,
    ) -> PyResult<Verdict> {
        let gate = slf.get().current();
        let verdict = with_clock!(Time::from(now), |clock| gate
            .table()
            .settle(key_id.0, estimate.0, actual.0, clock));
        Self::verdict_of_key(gate, key_id, verdict)
    }

    /// Sets all counts of the key to 0.
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
        let gate = slf.get().current();
        let verdict = with_clock!(Time::from(now), |clock| gate.table().reset(key_id.0, clock));
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
    ///     now: An explicit time, see the class; the system clock by default.
    ///     wait: How long to wait for another administrator, as a timedelta or in seconds.
    ///
    /// Raises:
    ///     GateFullError: The gate is full.
    ///     NoSuchPlanError: The gate does not have the plan.
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
    #[pyo3(signature = (account, *, env="live", plan=None, expires=None, now=None, wait=WAIT), text_signature = "($self, account, *, env=\"live\", plan=None, expires=None, now=None, wait=10)")]
    #[expect(clippy::too_many_arguments, reason = "callers in Python name them")]
    fn issue(
        &self,
        py: Python<'_>,
        account: Account,
        env: &str,
        plan: Option<String>,
        expires: Option<Expiry>,
        now: Option<Moment>,
        wait: WaitTime,
    ) -> PyResult<Key> {
        let now = Time::from(now);
        let new = New {
            account: account.0,
            env: arguments::name(env, "env")?,
            plan,
            expires: Expiry::expires(expires, now.timestamp())?,
        };
        let entropy = keytally::entropy().map_err(exceptions::from_error)?;
        let (key, key_id) = self.administer(py, &wait, |administrator| {
            with_clock!(now, |clock| administrator.issue(&new.key(), entropy, clock))
        })?;
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
    ///     account, env, plan, expires, now, wait: As in `issue`.
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
    #[pyo3(signature = (keys, account, *, env="live", plan=None, expires=None, now=None, wait=WAIT), text_signature = "($self, keys, account, *, env=\"live\", plan=None, expires=None, now=None, wait=10)")]
    #[expect(clippy::too_many_arguments, reason = "callers in Python name them")]
    fn import_keys(
        &self,
        keys: &Bound<'_, PyAny>,
        account: Account,
        env: &str,
        plan: Option<String>,
        expires: Option<Expiry>,
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
            self.import_batch(py, &batch, &new, now, &wait, &mut key_ids)?;
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
    }

    /// Adds a plan, or changes the limits of a plan. Keys keep their counts.
    ///
    /// Args:
    ///     name: The name of the plan, 1 to 16 characters of ``a-z``, ``0-9``, ``-`` and ``_``.
    ///     policy: A `Policy` or its text, with the windows and the algorithm of the other plans.
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
    /// {'default': Policy('100/minute, 1000/hour'), 'pro': Policy('1000/minute, 20000/hour')}
    #[pyo3(signature = (name, policy, *, wait=WAIT), text_signature = "($self, name, policy, *, wait=10)")]
    fn set_plan(
        &self,
        py: Python<'_>,
        name: &str,
        policy: PolicyArgument,
        wait: WaitTime,
    ) -> PyResult<()> {
        let plan = policy::plan(name, policy.0)?;
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
        let now = Time::from(now).timestamp();
        let gate = self.current();
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
        let now = Time::from(now).timestamp();
        let gate = self.current();
        Some(KeyInfo::new(gate.table().key(key_id.0, now)?, &gate, now))
    }

    /// Reads the whole gate and reports its flaws.
    ///
    /// It first completes the change of an administrator that was killed. Records do not have a
    /// checksum. A value that was changed to another valid value is therefore not reported: a key
    /// id, a MAC, an account, a time, a count, or the number of a plan, environment or pepper.
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
            with_clock!(now, |clock| gate.verify_within(wait, clock, |flaw| flaws.push(flaw)))
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
            Held::Memory(_) => Ok(()),
            Held::File(gate) => py.detach(|| gate.reopen()).map_err(exceptions::from_error),
        }
    }

    /// How many times the file at the path was opened again: for a replacement, or by `reopen`.
    #[getter]
    fn reopened(&self) -> u64 {
        match &self.held {
            Held::Memory(_) => 0,
            Held::File(gate) => gate.status().reopened,
        }
    }

    /// Why the file at the path is not in use; ``None`` if it is in use.
    #[getter]
    fn reopen_problem(&self) -> Option<String> {
        match &self.held {
            Held::Memory(_) => None,
            Held::File(gate) => gate.status().problem,
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
        py.detach(|| with_clock!(now, |clock| gate.table().correct_clock(clock)))
    }

    /// The path that the gate was opened or created with; ``None`` if it is in memory.
    #[getter]
    fn path(&self) -> Option<PathBuf> {
        self.current().path().map(PathBuf::from)
    }

    /// The policies of the plans by name. Keys that are issued without a plan have the first.
    #[getter]
    fn plans<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let plans = PyDict::new(py);
        for (_, plan) in self.current().table().plans() {
            let text = plan.sections.to_string();
            match text.parse() {
                Ok(policy) => plans.set_item(plan.name.as_str(), Policy { policy })?,
                Err(_) => plans.set_item(plan.name.as_str(), text)?,
            }
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
    ) -> PyResult<Self> {
        let followed = py.detach(|| Followed::from_gate(make(peppers.clone())?, peppers, Ok));
        followed.map(|gate| Self { held: Held::File(gate) }).map_err(exceptions::from_error)
    }

    /// Returns the gate that is in use, after a check for a replaced file at most once a second.
    ///
    /// A background thread is not an alternative: with one, Python warns at every fork.
    fn current(&self) -> Arc<Host> {
        match &self.held {
            Held::Memory(gate) => Arc::clone(gate),
            Held::File(gate) => {
                gate.reopen_if_due();
                gate.load().to_arc()
            }
        }
    }

    /// Calls `work` with the gate at the path, and a wait of at most `wait`.
    ///
    /// The wait also ends if a signal handler raises an exception, as that of Ctrl-C does.
    fn waiting<T: Send>(
        &self,
        py: Python<'_>,
        wait: &WaitTime,
        work: impl FnOnce(&Host, Wait<'_>) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        let (result, raised) = py.detach(|| {
            let raised = RefCell::new(None);
            let interrupted = || {
                Python::attach(|py| py.check_signals())
                    .is_err_and(|error| raised.replace(Some(error)).is_none())
            };
            let wait = Wait::at_most(wait.0).unless(&interrupted);
            let result = match &self.held {
                Held::Memory(gate) => work(gate, wait),
                Held::File(gate) => gate.load_for_change().and_then(|gate| work(&gate, wait)),
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
        self.waiting(py, wait, |gate, wait| gate.administer_within(wait, work))
    }

    /// Returns the verdict; raises a `NoSuchKeyError` if the gate does not have the key.
    fn verdict_of_key(
        gate: Arc<Host>,
        key_id: KeyIdText,
        verdict: Option<keytally::Verdict>,
    ) -> PyResult<Verdict> {
        match verdict {
            Some(verdict) => Ok(Verdict::from_gate(verdict, gate)),
            None => Err(NoSuchKeyError::new_err(Admin::NoSuchKey(key_id.0).to_string())),
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
                    match with_clock!(now, |clock| administrator.import(key, &new.key(), clock)) {
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

/// The details of a new key. Unlike [`NewKey`], it owns the name of the plan.
struct New {
    account: u32,
    env: Name,
    plan: Option<String>,
    expires: Option<Timestamp>,
}

impl New {
    fn key(&self) -> NewKey<'_> {
        let mut key = NewKey::new(self.account, self.env).with_expires(self.expires);
        key.plan = self.plan.as_deref();
        key
    }
}

/// Returns the configuration of a new gate.
fn config(
    keys: &Capacity,
    plans: Option<&Bound<'_, PyMapping>>,
    prefix: &str,
) -> PyResult<GateConfig> {
    let mut config =
        GateConfig::default().with_keys(keys.0).with_prefix(arguments::name(prefix, "prefix")?);
    if let Some(plans) = plans {
        config.plans = policy::plans(plans)?;
    }
    Ok(config)
}
