//! Limiters and gates that are filled.

use keytally::{Limiter, Line, Policy};

/// A limiter for so many subjects, with nobody in it.
pub(crate) fn limiter(policy: &str, capacity: u32) -> Limiter<Vec<Line>> {
    let memory: Vec<Line> = (0..Limiter::<Vec<Line>>::lines(capacity)).map(|_| Line::new()).collect();
    let policy: Policy = policy.parse().expect("a policy");
    Limiter::create(memory, &policy, capacity, [7; 16]).expect("a limiter")
}
