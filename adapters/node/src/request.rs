//! What a request charges besides its key and its team: groups, and the scopes that it needs. Also
//! what it does if it lacks credits of a fleet.

use keytally::redact::redact_name;
use keytally::{Counted, GatePart, Mapping, Patience, RequestError};
use napi_derive::napi;

use crate::errors::{Result, error};

/// The groups that a request names, with the costs of those that have their own, and the scopes
/// that its key must have.
#[napi(object)]
#[derive(Default)]
pub(crate) struct Request {
    pub groups: Vec<String>,
    pub costs: Vec<GroupCost>,
    pub need: Vec<String>,
}

/// A group with a cost of its own.
#[napi(object)]
pub(crate) struct GroupCost {
    pub name: String,
    pub cost: u32,
}

impl Request {
    /// Returns the part of this request, see [`Counted::part`].
    ///
    /// # Errors
    /// A `RangeError` if the gate does not have a group or a scope of the request.
    pub(crate) fn part<'g>(
        &self,
        gate: Counted<'g, Mapping>,
        api_key: Option<&'g [u8]>,
        cost: u32,
    ) -> Result<GatePart<'g, Mapping>> {
        let mut part = gate.part(api_key, cost);
        for name in &self.groups {
            part = part.with_group(name).map_err(|error| unknown(&error, name))?;
        }
        for GroupCost { name, cost } in &self.costs {
            part = part.with_group_cost(name, *cost).map_err(|error| unknown(&error, name))?;
        }
        for name in &self.need {
            part = part.with_scope(name).map_err(|error| unknown(&error, name))?;
        }
        Ok(part)
    }
}

/// Returns the error for a name that the gate does not have. The sentence of core repeats the
/// beginning of the name, which may be a secret that was passed by mistake.
fn unknown(found: &RequestError, name: &str) -> napi::Error<crate::errors::Class> {
    let (sentence, shown) = (found.to_string(), redact_name(name));
    let sentence = match found {
        RequestError::NoSuchGroup(beginning) | RequestError::NoSuchScope(beginning)
            if shown != name && !beginning.is_empty() =>
        {
            sentence.replace(beginning.as_str(), &shown)
        }
        _ => sentence,
    };
    error("RangeError", sentence)
}

/// Returns what a request does if it lacks credits of a fleet, by its number in `lib/credits.js`;
/// `None` if it only peeks.
pub(crate) const fn patience_of(mode: u32) -> Option<Patience> {
    match mode {
        0 => Some(Patience::Wait),
        1 => Some(Patience::Return),
        2 => Some(Patience::Decide),
        _ => None,
    }
}
