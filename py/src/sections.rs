//! Sections: the quotas of a plan, and plans as arguments.

use keytally::redact::{policy_error, redact_name};
use keytally::{Algorithm, Plan, Quota, Section, Warnings};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyMapping, PyTuple, PyType};

use crate::arguments::wrong_type;
use crate::exceptions::{CreateError, PolicyError};
use crate::policy::{Policy, pairs, quotas};

/// The quotas of a plan: those of each key, and further sections.
///
/// A request charges the section of the key, that of its team, and those of the groups that it
/// names: all or none. ``iter`` yields a `SectionQuotas` for each section, that of the key first.
///
/// Args:
///     text: The quotas of the key, as in a `Policy`. Then further sections, each after a
///         semicolon: ``team: …`` for all keys of an account together, and ``group NAME: …`` for
///         the requests of a key that name the group. ``sliding`` holds for its section.
///         ``unlimited`` in place of quotas counts nothing. ``warn 80% 95%`` after a quota reports
///         the charges that reach these shares of it, see ``Verdict.crossed``. A text has at most
///         512 bytes.
///
/// Raises:
///     PolicyError: The text is not that of sections. The message names the part that is wrong,
///         and why.
///
/// >>> from keytally import Sections
/// >>> sections = Sections("1000/hour, 100/m; team: 5000/h; group write: unlimited")
/// >>> sections
/// Sections('100/minute, 1000/hour; team: 5000/hour; group write: unlimited')
/// >>> [section.name for section in sections]
/// ['key', 'team', 'write']
/// >>> Sections("100/minute; teams: 5000/hour")
/// Traceback (most recent call last):
/// keytally.exceptions.PolicyError: "teams: 5000/hour" is ...
#[pyclass(frozen, eq, module = "keytally")]
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Sections {
    pub(crate) sections: keytally::Sections,
}

#[pymethods]
impl Sections {
    #[new]
    fn new(text: SectionsArgument) -> Self {
        Self { sections: text.0 }
    }

    /// Returns the section with a name; ``None`` if there is none.
    ///
    /// Args:
    ///     name: ``"key"``, ``"team"`` or the name of a group.
    ///
    /// >>> from keytally import Sections
    /// >>> sections = Sections("100/minute; team: 5000/hour")
    /// >>> sections.named("team").quotas, sections.named("write")
    /// ((Quota(limit=5000, window=3600),), None)
    fn named(&self, name: &str) -> Option<SectionQuotas> {
        self.sections.named(name).map(SectionQuotas::from)
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let found = self.sections.iter().map(SectionQuotas::from).collect::<Vec<_>>();
        Ok(PyList::new(py, found)?.try_iter()?.into_any())
    }

    fn __str__(&self) -> String {
        self.sections.to_string()
    }

    fn __repr__(&self) -> String {
        format!("Sections('{}')", self.sections)
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> (Bound<'py, PyType>, (String,)) {
        (slf.get_type(), (slf.get().sections.to_string(),))
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        self.sections.to_string().into_pyobject(py)?.hash()
    }
}

/// A section of a plan with its quotas, as iterating `Sections` yields it.
///
/// >>> from keytally import Sections
/// >>> key, team = Sections("sliding 9/minute warn 80% 95%, 99/hour; team: unlimited")
/// >>> key.name, key.algorithm, key.quotas
/// ('key', 'sliding', (Quota(limit=9, window=60), Quota(limit=99, window=3600)))
/// >>> key.warnings, team.name, team.is_unlimited
/// (((80, 95), ()), 'team', True)
/// >>> [key] = Sections("100/minute, 50/hour")
/// >>> key.never_binding
/// ((Quota(limit=100, window=60), Quota(limit=50, window=3600)),)
#[pyclass(frozen, module = "keytally")]
pub(crate) struct SectionQuotas {
    section: Section,
    algorithm: Algorithm,
    quotas: Vec<Quota>,
    warnings: Vec<Warnings>,
    never_binding: Vec<(Quota, Quota)>,
}

impl From<keytally::SectionQuotas<'_>> for SectionQuotas {
    fn from(section: keytally::SectionQuotas<'_>) -> Self {
        Self {
            section: *section.section(),
            algorithm: section.algorithm(),
            quotas: section.quotas().to_vec(),
            warnings: section.warnings().to_vec(),
            never_binding: section.never_binding().collect(),
        }
    }
}

#[pymethods]
impl SectionQuotas {
    /// The name: ``"key"``, ``"team"`` or that of the group.
    #[getter]
    fn name(&self) -> &str {
        self.section.name()
    }

    /// How the windows count: ``"fixed"`` or ``"sliding"``, see ``Policy.algorithm``.
    #[getter]
    fn algorithm(&self) -> &'static str {
        self.algorithm.as_str()
    }

    /// The quotas, shortest window first; empty if the section is unlimited.
    #[getter]
    fn quotas<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        quotas(py, &self.quotas)
    }

    /// The warnings of each quota: percentages of its limit, the lower one first.
    #[getter]
    fn warnings<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let of_quota = |warnings: &Warnings| {
            PyTuple::new(py, warnings.iter().filter(|&&percent| percent > 0).collect::<Vec<_>>())
        };
        PyTuple::new(py, self.warnings.iter().map(of_quota).collect::<PyResult<Vec<_>>>()?)
    }

    /// Whether the section counts nothing.
    #[getter]
    fn is_unlimited(&self) -> bool {
        self.quotas.is_empty()
    }

    /// Each quota that can never deny a request, with the quota of the section that makes it
    /// redundant.
    #[getter]
    fn never_binding<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        pairs(py, self.never_binding.iter().copied())
    }

    fn __repr__(&self) -> String {
        let quotas: Vec<String> = self.quotas.iter().map(ToString::to_string).collect();
        let quotas = if quotas.is_empty() { "unlimited".to_owned() } else { quotas.join(", ") };
        format!("<SectionQuotas {}: {quotas}>", self.section)
    }
}

/// Sections as an argument: `Sections`, a `Policy`, or the text of either.
pub(crate) struct SectionsArgument(pub(crate) keytally::Sections);

impl<'py> FromPyObject<'_, 'py> for SectionsArgument {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(sections) = value.cast::<Sections>() {
            return Ok(Self(sections.get().sections.clone()));
        }
        if let Ok(policy) = value.cast::<Policy>() {
            return Ok(Self(policy.get().policy.clone().into()));
        }
        let text: String = value
            .extract()
            .map_err(|_| wrong_type("policy", "a str, Sections or a Policy", &value))?;
        text.parse()
            .map(Self)
            .map_err(|error: keytally::ParsePolicyError| PolicyError::new_err(policy_error(&error)))
    }
}

impl SectionsArgument {
    /// Returns the quotas of the only section.
    ///
    /// # Errors
    /// A `PolicyError` if there is more than quotas: another section, an algorithm or a warning.
    pub(crate) fn quotas(&self) -> PyResult<Vec<Quota>> {
        let mut sections = self.0.iter();
        let is_plain = |section: &keytally::SectionQuotas<'_>| {
            section.algorithm() == Algorithm::Fixed
                && section.warnings().iter().flatten().all(|&percent| percent == 0)
        };
        match (sections.next().filter(is_plain), sections.next()) {
            (Some(section), None) => Ok(section.quotas().to_vec()),
            _ => Err(PolicyError::new_err(format!(
                "\"{}\" has more than quotas: the limits of an account are such as \"5000/hour\", \
                 and its plan has the algorithm and the warnings",
                self.0
            ))),
        }
    }
}

/// Returns the plan of this name and these sections.
///
/// # Errors
/// A `CreateError` if a plan cannot have the name.
pub(crate) fn plan(name: &str, sections: keytally::Sections) -> PyResult<Plan> {
    Plan::new(name, sections).ok_or_else(|| {
        let name = redact_name(name);
        CreateError::new_err(format!(
            "{name:?} is not a valid plan name: it must be 1 to 16 characters of a-z, 0-9, - and _"
        ))
    })
}

/// Returns the plans of a mapping from names to sections.
///
/// # Errors
/// A `CreateError`, a `PolicyError` or a `TypeError` if a name or a text is not valid.
pub(crate) fn plans(plans: &Bound<'_, PyMapping>) -> PyResult<Vec<Plan>> {
    plans
        .items()?
        .iter()
        .map(|item| {
            let (name, sections): (String, SectionsArgument) = item.extract()?;
            plan(&name, sections.0)
        })
        .collect()
}
