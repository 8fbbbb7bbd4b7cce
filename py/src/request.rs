//! What a request charges besides its key and its team: groups, and the scopes that it needs.

use keytally::redact::redact_name;
use keytally::{Counted, GatePart, Mapping, RequestError};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyMapping;

use crate::arguments::{Groups, Need, whole_number, wrong_type};

/// The groups that a request names, with the costs of those that have their own, and the scopes
/// that its key must have.
#[derive(Default)]
pub(crate) struct Request {
    groups: Vec<String>,
    costs: Vec<(String, u32)>,
    scopes: Vec<String>,
}

impl Request {
    /// Returns the request with these arguments of a check; `None` without any.
    #[inline]
    pub(crate) fn new(
        groups: Option<Groups>,
        costs: Option<Costs>,
        need: Option<Need>,
    ) -> Option<Self> {
        if groups.is_none() && costs.is_none() && need.is_none() {
            return None;
        }
        Some(Self {
            groups: groups.unwrap_or_default().0,
            costs: costs.unwrap_or_default().0,
            scopes: need.unwrap_or_default().0,
        })
    }

    /// Returns the groups that have a cost of their own, and those costs.
    pub(crate) fn costs(&self) -> &[(String, u32)] {
        &self.costs
    }

    /// Returns the part of this request, see [`Counted::part`].
    ///
    /// # Errors
    /// A `ValueError` if the gate does not have a group or a scope of the request.
    pub(crate) fn part<'g>(
        &self,
        gate: Counted<'g, Mapping>,
        api_key: Option<&'g [u8]>,
        cost: u32,
    ) -> PyResult<GatePart<'g, Mapping>> {
        let mut part = gate.part(api_key, cost);
        for name in &self.groups {
            part = part.with_group(name).map_err(|error| unknown(&error, name))?;
        }
        for (name, cost) in &self.costs {
            part = part.with_group_cost(name, *cost).map_err(|error| unknown(&error, name))?;
        }
        for name in &self.scopes {
            part = part.with_scope(name).map_err(|error| unknown(&error, name))?;
        }
        Ok(part)
    }
}

/// Returns the `ValueError` for a name that the gate does not have. The sentence of core repeats
/// the beginning of the name, which may be a secret that was passed by mistake.
fn unknown(error: &RequestError, name: &str) -> PyErr {
    let (sentence, shown) = (error.to_string(), redact_name(name));
    PyValueError::new_err(match error {
        RequestError::NoSuchGroup(beginning) | RequestError::NoSuchScope(beginning)
            if shown != name && !beginning.is_empty() =>
        {
            sentence.replace(beginning.as_str(), &shown)
        }
        _ => sentence,
    })
}

/// Groups with costs of their own: a mapping from names to costs.
#[derive(Default)]
pub(crate) struct Costs(pub(crate) Vec<(String, u32)>);

impl<'py> FromPyObject<'_, 'py> for Costs {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let wrong = || wrong_type("costs", "a dict from names of groups to costs", &value);
        let costs = value.cast::<PyMapping>().map_err(|_| wrong())?;
        let cost_of = |item: Bound<'py, PyAny>| {
            let (name, cost): (Bound<'py, PyAny>, Bound<'py, PyAny>) = item.extract()?;
            let name: String = name.extract().map_err(|_| wrong())?;
            let argument = format!("the cost of the group {:?}", redact_name(&name));
            let cost = whole_number(cost.as_borrowed(), &argument, "a whole number")?;
            Ok((name, cost))
        };
        costs.items()?.iter().map(cost_of).collect::<PyResult<_>>().map(Self)
    }
}
