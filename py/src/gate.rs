//! The gate.

use alloc::sync::Arc;
use core::cell::RefCell;
use core::time::Duration;
use std::path::PathBuf;

use keytally::{AdminError as Admin, NewKey};
use keytally::{Administrator, Clock as _, Name, Peppers, Timestamp};
use keytally::{Error, Followed, Gate as Host, GateConfig, Mapping, Wait};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping};
use zeroize::Zeroizing;

use crate::arguments::{
    self, Account, Capacity, Cost, Expiry, Grace, KeyIdText, Moment, PolicyText, Timeout, with_api_key,
    with_bytes,
};
use crate::charge::Charged;
use crate::clock::{Time, with_clock};
use crate::exceptions::{self, NoSuchKeyError};
use crate::key::{Key, KeyInfo};
use crate::policy::Policy;
use crate::report::Report;
use crate::verdict::Verdict;

/// A table of issued API keys with their counts, in a file that any number of processes share.
///
/// `check` verifies a key and charges every window of its quota in one atomic step. Any number of threads and processes
/// may use one gate at once: together they admit exactly the limit. Checks never wait.
///
/// Methods that change keys or plans wait while another administrator does, for ``timeout`` at most: seconds or a timedelta.
/// Then they raise `BusyError`, which names its process. Ctrl-C ends the wait.
///
/// When another file is renamed over the gate's, it is opened within a second and decides from then on. While it cannot be opened
/// the old one does, and ``reopen_problem`` says why.
///
/// Every method that depends on the time takes ``now``, an explicit time: Unix seconds, as
/// ``time.time()`` gives them, or a datetime that has a time zone. Without it the method uses the
/// system clock, and reads it again if a tally is ahead of the first reading. A tally that is more
/// than 60 s ahead of the system clock is corrected, with its counts kept.
///
/// An explicit time is used as given and corrects nothing, even if it is a reading of the system
/// clock. A late one is taken as the tally's own time. One that is far ahead moves the tally there,
/// and the tally keeps its counts until that time comes: ``clock_ahead_s`` of a verdict says so.
/// A window is an interval of the times of its decisions (``Charge.at_ms``). Explicit times that
/// disagree never let a window admit more than its limit, counted by those times. In real time,
/// callers whose times differ by five seconds can use the windows of five seconds more at one
/// moment. Mixed with the system clock, explicit times more than 60 s ahead admit one more window
/// each time that the two take turns.
///
/// Where ``create``, ``open`` and ``in_memory`` take peppers, the server's secrets: ``pepper`` is the text, hex or base64
/// of at least 32 bytes, several separated by commas, newest last. ``pepper_file`` is a file with one a line. Either
/// only its owner has access to it, or root owns it and no other user can write it, as systemd, Kubernetes and Docker provide
/// secrets. It may be a pipe, and ``"-"`` is standard input. With neither, ``KEYTALLY_PEPPER_FILE`` and ``KEYTALLY_PEPPER`` of the environment are looked at.
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
/// >>> gate.check(key.expose()).status
/// 401
#[pyclass(frozen, module = "keytally")]
pub(crate) struct Gate {
    held: Held,
}

/// The gate itself.
enum Held {
    Memory(Arc<Host>),
    File(Followed),
}

/// How many keys are imported under one lock. Other administrators are let in after each batch.
const BATCH: usize = 1000;

/// How long a change waits for another administrator.
const TIMEOUT: Timeout = Timeout(Duration::from_secs(10));

#[pymethods]
impl Gate {
    /// Creates a gate in a new file, with mode 0600 and its room on the disk taken.
    ///
    /// Args:
    ///     path: Where; a local file system, and nothing may be there yet.
    ///     pepper, pepper_file: The server's secret, see the class.
    ///     keys: The most keys, 1 to 67108864; each takes 68 bytes.
    ///     plans: Policies by name, each a `Policy` or its text; at most 116, with the same windows. The first is for
    ///         keys that name none. Left out: ``{"default": "100/minute, 1000/hour"}``.
    ///     prefix: What every key begins with, 1 to 8 characters of ``a-z`` and ``0-9``.
    ///
    /// Raises:
    ///     FileExistsError: There is something at the path.
    ///     PepperError, PolicyError, CreateError: There can be no such gate.
    ///     OSError: The system refuses.
    ///
    /// >>> import os, tempfile, keytally
    /// >>> path = os.path.join(tempfile.mkdtemp(), "api.gate")
    /// >>> plans = {"default": "100/minute, 1000/hour", "pro": "1000/minute, 20000/hour"}
    /// >>> gate = keytally.Gate.create(path, pepper=keytally.generate_pepper(), keys=1000, plans=plans)
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
    ///     path: The file.
    ///     pepper, pepper_file: The secret that its keys were issued under, see the class.
    ///
    /// Raises:
    ///     FileNotFoundError: There is no such file.
    ///     TableError: The file is no gate, is damaged, or others can get at it.
    ///     PepperError: The pepper can't be one, cannot be read, or is not the gate's.
    ///     OSError: The system refuses.
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

    /// Creates a gate that is in no file: for tests, and for one process with the children that it forks.
    ///
    /// Args and what it raises are those of `create`.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), plans={"default": "5/minute"})
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
        let gate = py.detach(|| Host::in_memory(peppers, &config)).map_err(exceptions::of)?;
        Ok(Self { held: Held::Memory(Arc::new(gate)) })
    }

    /// Checks the key, and then charges ``cost`` to every window of its plan, if all have room for it, else to none.
    ///
    /// Args:
    ///     api_key: The value of the ``X-API-Key`` header, ``None`` when there was none. A request with more than one
    ///         gets ``Verdict.duplicate_header()``.
    ///     cost: Units, 0 to 4294967295; 0 is always admitted and charges nothing.
    ///     now: An explicit time, see the class; the system clock when left out.
    ///
    /// Raises:
    ///     TypeError, ValueError: An argument is of another type, or out of bounds. Whatever text a client sends is none
    ///         of these: the verdict tells.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> gate.check(None).body
    /// b'{"error": "Missing X-API-Key header"}'
    /// >>> gate.check("no key at all").reason
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
            let gate = slf.get().now();
            with_clock!(now, |clock| Verdict::of_gate(gate.table().check(api_key, cost.0, clock), gate))
        })
    }

    /// Returns what `check` would, without the charge.
    ///
    /// Args and what it raises are those of `check`.
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
            let gate = slf.get().now();
            with_clock!(now, |clock| Verdict::of_gate(gate.table().peek(api_key, cost.0, clock), gate))
        })
    }

    /// Gives back what a check charged, in the windows that still count it. Refund a charge once.
    ///
    /// Args:
    ///     key_id: The key's public name.
    ///     charge: The ``charge`` of the verdict.
    ///
    /// Raises:
    ///     NoSuchKeyError: The gate has no such key.
    ///     ValueError: ``charge`` is ``None``, as that of a verdict that was not admitted.
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
        charge: Charged,
        now: Option<Moment>,
    ) -> PyResult<Verdict> {
        let gate = slf.get().now();
        let verdict = with_clock!(Time::from(now), |clock| gate.table().refund(key_id.0, charge.0, clock));
        Self::known(gate, key_id, verdict)
    }

    /// Replaces an estimate that was charged by the actual cost: refunds the difference, or charges it as far as there
    /// is room. What found no room is the verdict's ``uncharged``. Settle a charge once.
    ///
    /// Args:
    ///     key_id: The key's public name.
    ///     charge: The ``charge`` of the verdict.
    ///     actual: What the request did cost, in units, 0 to 4294967295.
    ///
    /// Raises:
    ///     NoSuchKeyError: The gate has no such key.
    ///     ValueError: ``charge`` is ``None``, as that of a verdict that was not admitted.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> verdict = gate.check(gate.issue(42).expose(), 50)
    /// >>> gate.settle(verdict.key_id, verdict.charge, 20).remaining
    /// 980
    #[pyo3(signature = (key_id, charge, actual, *, now=None))]
    fn settle(
        slf: &Bound<'_, Self>,
        key_id: KeyIdText,
        charge: Charged,
        actual: Cost,
        now: Option<Moment>,
    ) -> PyResult<Verdict> {
        let gate = slf.get().now();
        let verdict =
            with_clock!(Time::from(now), |clock| gate.table().settle(key_id.0, charge.0, actual.0, clock));
        Self::known(gate, key_id, verdict)
    }

    /// Forgets all counts of the key.
    ///
    /// Raises:
    ///     NoSuchKeyError: The gate has no such key.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> verdict = gate.check(gate.issue(42).expose(), 10)
    /// >>> gate.reset(verdict.key_id).remaining
    /// 1000
    #[pyo3(signature = (key_id, *, now=None))]
    fn reset(slf: &Bound<'_, Self>, key_id: KeyIdText, now: Option<Moment>) -> PyResult<Verdict> {
        let gate = slf.get().now();
        let verdict = with_clock!(Time::from(now), |clock| gate.table().reset(key_id.0, clock));
        Self::known(gate, key_id, verdict)
    }

    /// Issues a key. What it returns is the only copy of the secret.
    ///
    /// Args:
    ///     account: The number of the account that the key belongs to, 0 to 4294967295.
    ///     env: The environment, 1 to 8 characters of ``a-z`` and ``0-9``; a gate knows at most 16.
    ///     plan: The plan's name; the gate's first when left out.
    ///     expires: When the key ends: a datetime that has a time zone, or a timedelta from now; never when left out.
    ///
    /// Raises:
    ///     GateFullError: Every record holds a key.
    ///     NoSuchPlanError: The gate has no plan of that name.
    ///     AdminError: There is no room for another environment, or another pepper.
    ///     OSError: The system refuses.
    ///
    /// >>> import datetime, keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> key = gate.issue(42, env="test", expires=datetime.timedelta(days=90))
    /// >>> gate.check(key.expose()).env
    /// 'test'
    #[pyo3(signature = (account, *, env="live", plan=None, expires=None, now=None, timeout=TIMEOUT), text_signature = "($self, account, *, env=\"live\", plan=None, expires=None, now=None, timeout=10)")]
    #[expect(clippy::too_many_arguments, reason = "callers in Python name them")]
    fn issue(
        &self,
        py: Python<'_>,
        account: Account,
        env: &str,
        plan: Option<String>,
        expires: Option<Expiry>,
        now: Option<Moment>,
        timeout: Timeout,
    ) -> PyResult<Key> {
        let now = Time::from(now);
        let new = New {
            account: account.0,
            env: arguments::name(env, "env")?,
            plan: self.plan_name(plan),
            not_after: Expiry::not_after(expires, now.moment())?,
        };
        let entropy = keytally::entropy().map_err(exceptions::of)?;
        let (key, key_id) = self.administer(py, &timeout, |administrator| {
            with_clock!(now, |clock| administrator.issue(&new.key(), entropy, clock))
        })?;
        Ok(Key { key, key_id })
    }

    /// Takes in keys that were issued elsewhere, of any form, so that their holders keep them, and returns their key ids.
    ///
    /// Each is 16 to 256 bytes of printable ASCII without spaces. Importing the same keys again changes nothing. They are
    /// taken in one by one: after an error, those before it are in the gate.
    ///
    /// Args:
    ///     keys: The keys, each a str or bytes.
    ///     account, env, plan, expires: As in `issue`.
    ///
    /// Raises:
    ///     AdminError: A key can't be imported; the message says which, by its number, and why.
    ///     OSError: The system refuses.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> [key_id] = gate.import_keys(["customer-key-0001"], 42)
    /// >>> gate.check("customer-key-0001").key_id == key_id
    /// True
    #[pyo3(signature = (keys, account, *, env="live", plan=None, expires=None, now=None, timeout=TIMEOUT), text_signature = "($self, keys, account, *, env=\"live\", plan=None, expires=None, now=None, timeout=10)")]
    #[expect(clippy::too_many_arguments, reason = "callers in Python name them")]
    fn import_keys(
        &self,
        keys: &Bound<'_, PyAny>,
        account: Account,
        env: &str,
        plan: Option<String>,
        expires: Option<Expiry>,
        now: Option<Moment>,
        timeout: Timeout,
    ) -> PyResult<Vec<String>> {
        let py = keys.py();
        let now = Time::from(now);
        let new = New {
            account: account.0,
            env: arguments::name(env, "env")?,
            plan: self.plan_name(plan),
            not_after: Expiry::not_after(expires, now.moment())?,
        };
        let mut key_ids = Vec::new();
        let mut keys = keys.try_iter()?;
        loop {
            let batch = keys
                .by_ref()
                .take(BATCH)
                .map(|key| with_bytes(&key?, "a key to import", |bytes| Zeroizing::new(bytes.to_vec())))
                .collect::<PyResult<Vec<_>>>()?;
            if batch.is_empty() {
                return Ok(key_ids);
            }
            self.import_batch(py, &batch, &new, now, &timeout, &mut key_ids)?;
        }
    }

    /// Gives a key a new secret, and returns it. The old secret stays valid for a while, and both spend the same quota.
    ///
    /// Args:
    ///     key_id: The key's public name.
    ///     grace: How long the old secret stays valid, a timedelta or seconds, rounded up to seconds; 0 ends it at once.
    ///     force: Whether to rotate although the secret before the last rotation is still valid. A key has two secrets at
    ///         most, so that one ends at once.
    ///
    /// Raises:
    ///     NoSuchKeyError: The gate has no such key.
    ///     RevokedError: The key was revoked.
    ///     AdminError: The secret before the last rotation is still valid, and ``force`` is false.
    ///     OSError: The system refuses.
    ///
    /// >>> import datetime, keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> old = gate.issue(42)
    /// >>> new = gate.rotate(old.key_id, grace=datetime.timedelta(hours=24))
    /// >>> gate.check(old.expose()).remaining, gate.check(new.expose()).remaining
    /// (999, 998)
    /// >>> gate.rotate(old.key_id, grace=0)
    /// Traceback (most recent call last):
    /// keytally.exceptions.AdminError: the secret that key ... had before its last rotation is valid until ...
    /// >>> newest = gate.rotate(old.key_id, grace=0, force=True)
    #[pyo3(signature = (key_id, *, grace, force=false, now=None, timeout=TIMEOUT), text_signature = "($self, key_id, *, grace, force=False, now=None, timeout=10)")]
    fn rotate(
        &self,
        py: Python<'_>,
        key_id: KeyIdText,
        grace: Grace,
        force: bool,
        now: Option<Moment>,
        timeout: Timeout,
    ) -> PyResult<Key> {
        let now = Time::from(now);
        let key_id = key_id.0;
        let entropy = keytally::entropy().map_err(exceptions::of)?;
        let key = self.administer(py, &timeout, |administrator| {
            with_clock!(now, |clock| {
                administrator.rotate(key_id, grace.until(clock.reading()), force, entropy, clock)
            })
        })?;
        Ok(Key { key, key_id })
    }

    /// Ends a key at once: the next check in any process sees it.
    ///
    /// Raises:
    ///     NoSuchKeyError: The gate has no such key.
    ///     OSError: The system refuses.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> key = gate.issue(42)
    /// >>> gate.revoke(key.key_id)
    /// >>> gate.check(key.expose()).reason
    /// 'revoked'
    #[pyo3(signature = (key_id, *, timeout=TIMEOUT), text_signature = "($self, key_id, *, timeout=10)")]
    fn revoke(&self, py: Python<'_>, key_id: KeyIdText, timeout: Timeout) -> PyResult<()> {
        self.administer(py, &timeout, |administrator| administrator.revoke(key_id.0))
    }

    /// Moves a key to another plan, counts kept.
    ///
    /// Raises:
    ///     NoSuchKeyError, NoSuchPlanError, RevokedError, OSError: As their names say.
    ///
    /// >>> import keytally
    /// >>> plans = {"default": "5/minute", "pro": "50/minute"}
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), plans=plans)
    /// >>> key = gate.issue(42)
    /// >>> gate.assign(key.key_id, "pro")
    /// >>> gate.check(key.expose()).plan
    /// 'pro'
    #[pyo3(signature = (key_id, plan, *, timeout=TIMEOUT), text_signature = "($self, key_id, plan, *, timeout=10)")]
    fn assign(&self, py: Python<'_>, key_id: KeyIdText, plan: &str, timeout: Timeout) -> PyResult<()> {
        self.administer(py, &timeout, |administrator| administrator.assign(key_id.0, plan))
    }

    /// Adds a plan, or gives the plan of that name other limits, counts kept.
    ///
    /// Args:
    ///     name: 1 to 16 characters of ``a-z``, ``0-9``, ``-`` and ``_``.
    ///     policy: A `Policy` or its text, with the windows and the algorithm of the gate's other plans.
    ///
    /// Raises:
    ///     PolicyError, CreateError: There can be no such plan.
    ///     AdminError: The gate can't have it; the message says why.
    ///     OSError: The system refuses.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> gate.set_plan("pro", "1000/minute, 20000/hour")
    /// >>> gate.plans
    /// {'default': Policy('100/minute, 1000/hour'), 'pro': Policy('1000/minute, 20000/hour')}
    #[pyo3(signature = (name, policy, *, timeout=TIMEOUT), text_signature = "($self, name, policy, *, timeout=10)")]
    fn set_plan(&self, py: Python<'_>, name: &str, policy: PolicyText, timeout: Timeout) -> PyResult<()> {
        let plan = arguments::plan(name, policy.0)?;
        self.administer(py, &timeout, |administrator| administrator.set_plan(&plan))
    }

    /// Returns everything that may be shown of every key, revoked ones too, in the order of their key ids.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> keys = gate.issue(1), gate.issue(2)
    /// >>> sorted(info.account for info in gate.list())
    /// [1, 2]
    #[pyo3(signature = (*, now=None))]
    fn list(&self, py: Python<'_>, now: Option<Moment>) -> Vec<KeyInfo> {
        let now = Time::from(now).moment();
        let gate = self.now();
        py.detach(|| gate.table().list(now).map(|info| KeyInfo::of(info, &gate, now)).collect())
    }

    /// Returns everything that may be shown of one key; ``None`` when the gate has no such key.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> gate.key(gate.issue(42).key_id).account
    /// 42
    #[pyo3(signature = (key_id, *, now=None))]
    fn key(&self, key_id: KeyIdText, now: Option<Moment>) -> Option<KeyInfo> {
        let now = Time::from(now).moment();
        let gate = self.now();
        Some(KeyInfo::of(gate.table().key(key_id.0, now)?, &gate, now))
    }

    /// Reads the whole gate and reports what is wrong with it. The change of an administrator that was killed is
    /// completed first.
    ///
    /// Records have no checksum. So a value that was changed into another valid one is not seen: the key id within its
    /// record, a MAC, an account, a time, a count, or the number of another plan, environment or pepper.
    ///
    /// Raises:
    ///     OSError: The system refuses.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> gate.verify()
    /// <Report: completed=False, flaws=[]>
    #[pyo3(signature = (*, now=None, timeout=TIMEOUT), text_signature = "($self, *, now=None, timeout=10)")]
    fn verify(&self, py: Python<'_>, now: Option<Moment>, timeout: Timeout) -> PyResult<Report> {
        let mut flaws = Vec::new();
        let now = Time::from(now);
        let completed = self.waiting(py, &timeout, |gate, wait| {
            with_clock!(now, |clock| gate.verify_within(wait, clock, |flaw| flaws.push(flaw)))
        })?;
        Ok(Report { completed, flaws })
    }

    /// Opens the gate's file again at once, whether it was replaced or not. In memory there is nothing to open.
    ///
    /// Without this call, a file that was renamed over the gate's is opened by the first check that comes a second or
    /// more after the last look at the path.
    ///
    /// Raises:
    ///     FileNotFoundError, TableError, OSError: As in `open`; the gate that was open before stays in force.
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
            Held::File(gate) => py.detach(|| gate.reopen()).map_err(exceptions::of),
        }
    }

    /// How often another file took the place of the one that was open.
    #[getter]
    fn reopened(&self) -> u64 {
        match &self.held {
            Held::Memory(_) => 0,
            Held::File(gate) => gate.status().reopened,
        }
    }

    /// Why the file at the path is not in force; ``None`` when it is.
    #[getter]
    fn reopen_problem(&self) -> Option<String> {
        match &self.held {
            Held::Memory(_) => None,
            Held::File(gate) => gate.status().problem,
        }
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
    /// >>> import time, keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> key = gate.issue(42)
    /// >>> verdict = gate.check(key.expose(), now=time.time() + 86_400)
    /// >>> gate.correct_clock(), gate.peek(key.expose()).clock_ahead_s
    /// (1, 0)
    #[pyo3(signature = (*, now=None))]
    fn correct_clock(&self, py: Python<'_>, now: Option<Moment>) -> u64 {
        let now = Time::from(now);
        let gate = self.now();
        py.detach(|| with_clock!(now, |clock| gate.table().correct_clock(clock)))
    }

    /// The path that the gate was opened or created with; ``None`` in memory.
    #[getter]
    fn path(&self) -> Option<PathBuf> {
        self.now().path().map(PathBuf::from)
    }

    /// The policies of the plans by their names, the first for keys that name none.
    #[getter]
    fn plans<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let plans = PyDict::new(py);
        for (_, plan) in self.now().table().plans() {
            plans.set_item(plan.name.as_str(), Policy { policy: plan.policy })?;
        }
        Ok(plans)
    }

    /// What every key begins with.
    #[getter]
    fn prefix(&self) -> String {
        self.now().table().prefix().to_string()
    }

    /// The most keys.
    #[getter]
    fn capacity(&self) -> u32 {
        self.now().table().capacity()
    }

    fn __repr__(&self) -> String {
        match self.now().path() {
            Some(path) => format!("<Gate in {}>", path.display()),
            None => "<Gate in memory>".to_owned(),
        }
    }
}

impl Gate {
    /// Taking room for a file takes a while, in which other threads go on.
    fn follow(
        py: Python<'_>,
        peppers: Peppers,
        make: impl FnOnce(Peppers) -> Result<Host, Error> + Send,
    ) -> PyResult<Self> {
        let followed = py.detach(|| Followed::of(make(peppers.clone())?, peppers, Ok));
        followed.map(|gate| Self { held: Held::File(gate) }).map_err(exceptions::of)
    }

    /// The gate that is in force. Once a second it looks whether its file was replaced: a thread of this module's would make
    /// Python warn of every fork.
    fn now(&self) -> Arc<Host> {
        match &self.held {
            Held::Memory(gate) => Arc::clone(gate),
            Held::File(gate) => {
                gate.look_when_due();
                gate.load().to_arc()
            }
        }
    }

    /// Does `work` with the gate whose file is in place, and with a wait that ends after `timeout` or when a signal handler
    /// raises, as that of Ctrl-C does.
    fn waiting<T: Send>(
        &self,
        py: Python<'_>,
        timeout: &Timeout,
        work: impl FnOnce(&Host, Wait<'_>) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        let (done, raised) = py.detach(|| {
            let raised = RefCell::new(None);
            let interrupted = || {
                Python::attach(|py| py.check_signals())
                    .is_err_and(|error| raised.replace(Some(error)).is_none())
            };
            let wait = Wait::at_most(timeout.0).unless(&interrupted);
            let done = match &self.held {
                Held::Memory(gate) => work(gate, wait),
                Held::File(gate) => gate.in_place().and_then(|gate| work(&gate, wait)),
            };
            (done, raised.into_inner())
        });
        match raised {
            Some(error) => Err(error),
            None => done.map_err(exceptions::of),
        }
    }

    fn administer<T: Send>(
        &self,
        py: Python<'_>,
        timeout: &Timeout,
        work: impl FnOnce(&mut Administrator<'_, Mapping>) -> Result<T, Admin> + Send,
    ) -> PyResult<T> {
        self.waiting(py, timeout, |gate, wait| gate.administer_within(wait, work))
    }

    fn known(gate: Arc<Host>, key_id: KeyIdText, verdict: Option<keytally::Verdict>) -> PyResult<Verdict> {
        match verdict {
            Some(verdict) => Ok(Verdict::of_gate(verdict, gate)),
            None => Err(NoSuchKeyError::new_err(Admin::NoSuchKey(key_id.0).to_string())),
        }
    }

    /// The plan that was named, or the gate's first.
    fn plan_name(&self, named: Option<String>) -> String {
        named.unwrap_or_else(|| {
            self.now().table().plan(0).map(|plan| plan.name.as_str().to_owned()).unwrap_or_default()
        })
    }

    /// Imports keys under one lock. Those that are there already, for the same account, have their key ids too.
    fn import_batch(
        &self,
        py: Python<'_>,
        batch: &[Zeroizing<Vec<u8>>],
        new: &New,
        now: Time,
        timeout: &Timeout,
        key_ids: &mut Vec<String>,
    ) -> PyResult<()> {
        let mut refused = None;
        self.waiting(py, timeout, |gate, wait| {
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
                let sentence = format!("key {}: {error}; those before it are imported", key_ids.len() + 1);
                Err(exceptions::admin(&error, sentence))
            }
        }
    }
}

/// What a new key is to be, owned.
struct New {
    account: u32,
    env: Name,
    plan: String,
    not_after: Option<Timestamp>,
}

impl New {
    fn key(&self) -> NewKey<'_> {
        NewKey::new(self.account, self.env).with_plan(self.plan.as_str()).with_not_after(self.not_after)
    }
}

fn config(keys: &Capacity, plans: Option<&Bound<'_, PyMapping>>, prefix: &str) -> PyResult<GateConfig> {
    let mut config =
        GateConfig { keys: keys.0, prefix: arguments::name(prefix, "prefix")?, ..GateConfig::default() };
    if let Some(plans) = plans {
        config.plans = arguments::plans(plans)?;
    }
    Ok(config)
}
