//! What a table answers: a verdict, or the verdicts on all tallies of a request.

use alloc::boxed::Box;
use core::ffi::CStr;
use core::ops::Range;

use keytally::{
    Charge, Compound, Decided, Left, MAX_COMPOUND_HEADERS_LEN, MAX_HEADERS_LEN, MAX_QUOTAS,
    Outcome, QuotaState, Response, Unavailability, Verdict,
};
use smallvec::SmallVec;

/// A value that an HTTP response can be made of: a [`Verdict`] or a [`Compound`].
pub trait Respond: Fields {
    /// Returns the verdict that decided: its outcome, status and body are those of the response.
    fn decisive(&self) -> &Verdict;
}

pub(crate) use self::sealed::Fields;

mod sealed {
    use core::ffi::CStr;

    pub trait Fields {
        /// Calls `put` with the name and the value of each header field.
        fn each_field(&self, put: &mut dyn FnMut(&'static CStr, &[u8]));

        /// Returns the problem document.
        fn problem_text(&self) -> Vec<u8>;
    }
}

/// Calls `put` with the fields whose values are in these ranges of a buffer.
fn put_all(
    buffer: &[u8],
    fields: impl IntoIterator<Item = (&'static CStr, Range<usize>)>,
    put: &mut dyn FnMut(&'static CStr, &[u8]),
) {
    for (name, range) in fields {
        put(name, buffer.get(range).unwrap_or_default());
    }
}

type Ranges = SmallVec<[(&'static CStr, Range<usize>); keytally::MAX_FIELDS]>;

impl Fields for Verdict {
    fn each_field(&self, put: &mut dyn FnMut(&'static CStr, &[u8])) {
        let quotas: SmallVec<[QuotaState; MAX_QUOTAS]> = self.quotas().iter().collect();
        let response = Response::new(
            self.outcome(),
            &quotas,
            self.cost(),
            self.waits_from(),
            self.retry_after_s(),
        );
        let (mut buffer, mut fields) = ([0; MAX_HEADERS_LEN], Ranges::new());
        response.write_fields(&mut buffer, |name, range| fields.push((name, range)));
        put_all(&buffer, fields, put);
    }

    fn problem_text(&self) -> Vec<u8> {
        self.problem().as_bytes().to_vec()
    }
}

impl Respond for Verdict {
    fn decisive(&self) -> &Verdict {
        self
    }
}

impl Fields for Compound {
    fn each_field(&self, put: &mut dyn FnMut(&'static CStr, &[u8])) {
        let (mut buffer, mut fields) = ([0; MAX_COMPOUND_HEADERS_LEN], Ranges::new());
        self.respond(|response| {
            response.write_fields(&mut buffer, |name, range| fields.push((name, range)));
        });
        put_all(&buffer, fields, put);
    }

    fn problem_text(&self) -> Vec<u8> {
        self.problem().as_bytes().to_vec()
    }
}

impl Respond for Compound {
    fn decisive(&self) -> &Verdict {
        self.decisive()
    }
}

/// The result of a check: the verdict that decided and, in an extended gate, those on all tallies.
///
/// It is public for routes that check a gate themselves: see [`Extras::check`](crate::Extras).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// The verdict that decided.
    pub verdict: Verdict,
    /// The verdicts on all tallies, if the gate has several or the request names a group or a
    /// scope.
    pub compound: Option<Box<Compound>>,
}

impl Decided for Answer {
    fn outcome(&self) -> Outcome {
        self.verdict.outcome()
    }

    fn left(&self) -> Vec<Left> {
        self.compound.as_ref().map(|compound| compound.left()).unwrap_or_default()
    }
}

impl Answer {
    /// Returns the charge of a check.
    pub fn charge(&self) -> Option<Charge> {
        match &self.compound {
            Some(compound) => compound.charge(0),
            None => self.verdict.charge(),
        }
    }

    /// Returns whether the request lacks credits of a fleet that the agent requests. It was not
    /// charged, and is checked again: see [`Gate::credit_pauses`](keytally::Gate::credit_pauses).
    pub fn is_waiting(&self) -> bool {
        self.verdict.unavailability() == Some(Unavailability::Waiting)
    }

    /// Returns what the response shows.
    pub fn shown(&self) -> &dyn Respond {
        match &self.compound {
            Some(compound) => compound.as_ref(),
            None => &self.verdict,
        }
    }
}

impl From<Verdict> for Answer {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, compound: None }
    }
}

impl From<Compound> for Answer {
    fn from(compound: Compound) -> Self {
        Self { verdict: compound.decisive().without_charge(), compound: Some(Box::new(compound)) }
    }
}
