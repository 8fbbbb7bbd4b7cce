//! Policies and quotas.

use keytally::Window;
use keytally::redact::policy_error;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};

use crate::arguments::wrong_type;
use crate::exceptions::PolicyError;

/// A policy: one to four limits, each for windows of one length.
///
/// A charge must fit all of them.
///
/// Args:
///     text: ``[fixed|sliding] LIMIT/[N]UNIT, …``. The units are second, minute, hour and day, or
///         sec, min, s, m, h and d. ``LIMIT per [N]UNIT`` is accepted too. ``LIMIT/week`` counts
///         from Monday, ``LIMIT/month`` from the first day of a month, and ``LIMIT/month@17`` from
///         its 17th day, all at 00:00 UTC.
///
/// Raises:
///     PolicyError: The text is not a policy. The message names the part that is wrong, and why.
///
/// >>> from keytally import Policy
/// >>> policy = Policy("1000/hour, 100/minute")
/// >>> policy
/// Policy('100/minute, 1000/hour')
/// >>> policy.algorithm, policy.quotas
/// ('fixed', (Quota(limit=100, window=60), Quota(limit=1000, window=3600)))
/// >>> Policy("100/fortnight")
/// Traceback (most recent call last):
/// keytally.exceptions.PolicyError: "fortnight" is ...
#[pyclass(frozen, eq, module = "keytally")]
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) policy: keytally::Policy,
}

#[pymethods]
impl Policy {
    #[new]
    fn new(text: PolicyArgument) -> Self {
        Self { policy: text.0 }
    }

    /// How the windows count.
    ///
    /// ``"fixed"`` counts in windows that are aligned to the Unix epoch. ``"sliding"`` adds the
    /// count of the previous window, multiplied by the fraction of that window that is less than
    /// one window length ago.
    #[getter]
    fn algorithm(&self) -> &'static str {
        self.policy.algorithm().as_str()
    }

    /// The quotas, shortest window first.
    #[getter]
    fn quotas<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        quotas(py, self.policy.quotas())
    }

    /// Each quota that can never deny a request, with the quota that makes it redundant.
    ///
    /// >>> from keytally import Policy
    /// >>> Policy("100/minute, 50/hour").never_binding
    /// ((Quota(limit=100, window=60), Quota(limit=50, window=3600)),)
    /// >>> Policy("100/minute, 1000/hour").never_binding
    /// ()
    #[getter]
    fn never_binding<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        pairs(py, self.policy.never_binding())
    }

    fn __str__(&self) -> String {
        self.policy.to_string()
    }

    fn __repr__(&self) -> String {
        format!("Policy('{}')", self.policy)
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> (Bound<'py, PyType>, (String,)) {
        (slf.get_type(), (slf.get().policy.to_string(),))
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        self.policy.to_string().into_pyobject(py)?.hash()
    }
}

/// The limits of the networks that a client's address is in, of a limiter of addresses.
///
/// A client counts in its network of each prefix, and a charge must fit all of them. A prefix is
/// one of IPv6, and that of IPv4 is shorter by 32: ``/64``, ``/56`` and ``/48`` are ``/32``,
/// ``/24`` and ``/16``.
///
/// Args:
///     text: ``addresses: [sliding] /PREFIX LIMIT/[N]UNIT, …; /PREFIX …``, with 1 to 4 prefixes of
///         33 to 64. Without prefixes, the limits are those of ``/64``. Those of ``/56`` are 8
///         times, and those of ``/48`` are 64 times as large.
///
/// Raises:
///     PolicyError: The text is not such a policy. The message names the part that is wrong.
///
/// >>> from keytally import AddressPolicy, Limiter
/// >>> policy = AddressPolicy("addresses: 20/minute")
/// >>> policy
/// AddressPolicy('addresses: /64 20/minute; /56 160/minute; /48 1280/minute')
/// >>> policy.algorithm, policy.prefixes[0]
/// ('fixed', (64, (Quota(limit=20, window=60),)))
/// >>> Limiter.in_memory(policy).policy == policy
/// True
#[pyclass(frozen, eq, module = "keytally")]
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct AddressPolicy {
    pub(crate) policy: keytally::AddressPolicy,
}

#[pymethods]
impl AddressPolicy {
    #[new]
    fn new(text: &Bound<'_, PyAny>) -> PyResult<Self> {
        match text.extract()? {
            LimitsArgument::Addresses(policy) => Ok(Self { policy }),
            LimitsArgument::Subjects(_) => {
                Err(PolicyError::new_err("a policy for addresses begins with \"addresses:\""))
            }
        }
    }

    /// How the windows count: ``"fixed"`` or ``"sliding"``, see `Policy`.
    #[getter]
    fn algorithm(&self) -> &'static str {
        self.policy.algorithm().as_str()
    }

    /// Each prefix with its quotas, longest prefix first.
    #[getter]
    fn prefixes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let prefixes = self.policy.iter();
        let prefixes = prefixes.map(|(prefix, its)| Ok((prefix, quotas(py, its)?)));
        PyTuple::new(py, prefixes.collect::<PyResult<Vec<_>>>()?)
    }

    fn __str__(&self) -> String {
        self.policy.to_string()
    }

    fn __repr__(&self) -> String {
        format!("AddressPolicy('{}')", self.policy)
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> (Bound<'py, PyType>, (String,)) {
        (slf.get_type(), (slf.get().policy.to_string(),))
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        self.policy.to_string().into_pyobject(py)?.hash()
    }
}

/// The policy of a limiter.
#[derive(IntoPyObject)]
pub(crate) enum LimiterPolicy {
    #[pyo3(transparent)]
    Subjects(Policy),
    #[pyo3(transparent)]
    Addresses(AddressPolicy),
}

/// The policy of a limiter as an argument: a `Policy`, an `AddressPolicy`, or the text of either.
pub(crate) enum LimitsArgument {
    Subjects(keytally::Policy),
    Addresses(keytally::AddressPolicy),
}

impl<'py> FromPyObject<'_, 'py> for LimitsArgument {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(policy) = value.cast::<Policy>() {
            return Ok(Self::Subjects(policy.get().policy.clone()));
        }
        if let Ok(policy) = value.cast::<AddressPolicy>() {
            return Ok(Self::Addresses(policy.get().policy.clone()));
        }
        let expected = "a str, a Policy or an AddressPolicy";
        let text: String = value.extract().map_err(|_| wrong_type("policy", expected, &value))?;
        if keytally::AddressPolicy::is_beginning(&text) {
            return parse(&text).map(Self::Addresses);
        }
        parse(&text).map(Self::Subjects)
    }
}

/// Parses the policy in a text.
fn parse<P: core::str::FromStr<Err = keytally::ParsePolicyError>>(text: &str) -> PyResult<P> {
    text.parse().map_err(|error| PolicyError::new_err(policy_error(&error)))
}

/// A limit of cost units per window of time.
///
/// >>> from keytally import Policy
/// >>> [quota] = Policy("5/10s").quotas
/// >>> quota.limit, quota.window
/// (5, 10)
/// >>> str(Policy("30000/month@17").quotas[0])
/// '30000/month@17'
#[pyclass(frozen, eq, hash, module = "keytally")]
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Quota(keytally::Quota);

impl From<&keytally::Quota> for Quota {
    fn from(quota: &keytally::Quota) -> Self {
        Self(*quota)
    }
}

/// Returns quotas as a tuple of `Quota`.
pub(crate) fn quotas<'py>(
    py: Python<'py>,
    quotas: &[keytally::Quota],
) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(py, quotas.iter().map(Quota::from).collect::<Vec<_>>())
}

/// Returns pairs of quotas as a tuple of pairs of `Quota`.
pub(crate) fn pairs<'py>(
    py: Python<'py>,
    pairs: impl Iterator<Item = (keytally::Quota, keytally::Quota)>,
) -> PyResult<Bound<'py, PyTuple>> {
    let pairs = pairs.map(|(one, other)| (Quota::from(&one), Quota::from(&other)));
    PyTuple::new(py, pairs.collect::<Vec<_>>())
}

#[pymethods]
impl Quota {
    /// The most units that one window admits.
    #[getter]
    fn limit(&self) -> u32 {
        self.0.limit
    }

    /// The length of the window in seconds; of a month that of the longest one, 31 days.
    #[getter]
    fn window(&self) -> u32 {
        self.0.window.seconds()
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, (u32, u32))> {
        let restore = slf.py().import("keytally._native")?.getattr("restore_quota")?;
        let keytally::Quota { limit, window } = slf.get().0;
        Ok((restore, (limit, window.number())))
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("Quota(limit={}, window={})", self.limit(), self.window())
    }
}

/// Returns the `Quota` with these values. Only `pickle` and `copy` call it, to restore a quota.
///
/// >>> import pickle
/// >>> from keytally import Policy
/// >>> pickle.loads(pickle.dumps(Policy("5/10s").quotas))
/// (Quota(limit=5, window=10),)
#[pyfunction]
pub(crate) fn restore_quota(limit: u32, window: u32) -> PyResult<Quota> {
    let window = Window::from_number(window).ok_or_else(|| {
        PyValueError::new_err("the state is not a quota's: it was pickled by another version")
    })?;
    Ok(Quota(keytally::Quota { limit, window }))
}

/// A policy as an argument: a `Policy`, or its text.
pub(crate) struct PolicyArgument(pub(crate) keytally::Policy);

impl<'py> FromPyObject<'_, 'py> for PolicyArgument {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(policy) = value.cast::<Policy>() {
            return Ok(Self(policy.get().policy.clone()));
        }
        let text: String =
            value.extract().map_err(|_| wrong_type("policy", "a str or a Policy", &value))?;
        parse(&text).map(Self)
    }
}
