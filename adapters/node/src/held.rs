//! A gate that JavaScript objects share, and the names of its plans and environments.

use alloc::sync::Arc;
use core::cell::RefCell;

use keytally::{Decided, Followed, Gate};

/// A gate that several values share.
#[derive(Clone)]
pub(crate) enum SharedGate {
    /// A gate in memory.
    Memory(Arc<Gate>),
    /// A gate that follows its path.
    File(Arc<Followed>),
}

impl SharedGate {
    /// Returns the gate that is in use, after a check for a replaced file at most once a second.
    pub(crate) fn current(&self) -> Arc<Gate> {
        match self {
            Self::Memory(gate) => Arc::clone(gate),
            Self::File(gate) => {
                gate.reopen_if_due();
                gate.load_newest().to_arc()
            }
        }
    }

    /// Calls `work` with the gate that is in use. If the key's counts are moving to another file,
    /// calls it again with that one.
    #[inline]
    pub(crate) fn call<R: Decided>(&self, mut work: impl FnMut(&Gate) -> R) -> R {
        match self {
            Self::Memory(gate) => work(gate),
            Self::File(followed) => {
                followed.reopen_if_due();
                followed.call(|gate| work(gate))
            }
        }
    }

    /// Does what [`call`](Self::call) does, and also returns the gate that was used.
    pub(crate) fn call_shared<R: Decided>(
        &self,
        mut work: impl FnMut(&Arc<Gate>) -> R,
    ) -> (R, Arc<Gate>) {
        match self {
            Self::Memory(gate) => (work(gate), Arc::clone(gate)),
            Self::File(followed) => {
                followed.reopen_if_due();
                let mut used = None;
                let result = followed.call(|gate| {
                    let gate = gate.to_arc();
                    let result = work(&gate);
                    used = Some(gate);
                    result
                });
                (result, used.unwrap_or_else(|| followed.load().to_arc()))
            }
        }
    }
}

/// What the object `Gate` of JavaScript holds.
pub(crate) struct HeldGate {
    pub(crate) shared: SharedGate,
    generations: RefCell<Generations>,
}

/// The names of the gates that verdicts came from. A verdict has the number of its gate.
#[derive(Default)]
struct Generations {
    /// The gate that the last verdict came from.
    last: Option<Arc<Gate>>,
    /// The number of that gate.
    number: u32,
    /// The names of the gates before it, the oldest first.
    former: Vec<(u32, Names)>,
}

/// The names of plans and environments by their numbers.
struct Names {
    plans: Vec<(u8, String)>,
    envs: Vec<String>,
}

/// The most gates whose names are kept after their files were replaced. A verdict that is older has
/// no names.
const MAX_FORMER: usize = 16;

impl HeldGate {
    pub(crate) fn new(shared: SharedGate) -> Self {
        Self { shared, generations: RefCell::default() }
    }

    /// Returns the number of a gate.
    #[inline]
    pub(crate) fn generation(&self, gate: &Gate) -> u32 {
        let Ok(generations) = self.generations.try_borrow() else { return 0 };
        match &generations.last {
            Some(last) if core::ptr::eq(&raw const **last, gate) => generations.number,
            _ => {
                drop(generations);
                self.next_generation(gate)
            }
        }
    }

    #[cold]
    fn next_generation(&self, gate: &Gate) -> u32 {
        let newest = match &self.shared {
            SharedGate::Memory(gate) => Arc::clone(gate),
            SharedGate::File(followed) => followed.load().to_arc(),
        };
        let Ok(mut generations) = self.generations.try_borrow_mut() else { return 0 };
        if let Some(last) = generations.last.take() {
            let number = generations.number;
            generations.former.push((number, Names::of(&last)));
            if generations.former.len() > MAX_FORMER {
                generations.former.remove(0);
            }
        }
        generations.number = generations.number.wrapping_add(1);
        // Another thread may have opened a newer file since. The names of the verdict's are then
        // unknown, and the next verdict has the newer one.
        if core::ptr::eq(&raw const *newest, gate) {
            generations.last = Some(newest);
        }
        generations.number
    }

    /// Returns the names of the plan and the environment with these numbers, of the gate with the
    /// number `generation`.
    pub(crate) fn names(
        &self,
        generation: u32,
        plan: u8,
        env: u8,
    ) -> (Option<String>, Option<String>) {
        let Ok(generations) = self.generations.try_borrow() else { return (None, None) };
        if generations.number == generation {
            let gate = generations.last.as_deref();
            let plan = gate.and_then(|gate| gate.table().plan(plan));
            let env = gate.and_then(|gate| gate.table().env(env));
            return (
                plan.map(|plan| plan.name.as_str().to_owned()),
                env.map(|env| env.to_string()),
            );
        }
        let names = generations.former.iter().find(|(number, _)| *number == generation);
        let Some((_, names)) = names else { return (None, None) };
        let plan = names.plans.iter().find(|(number, _)| *number == plan);
        let env = names.envs.get(usize::from(env));
        (plan.map(|(_, name)| name.clone()), env.cloned())
    }
}

impl Names {
    fn of(gate: &Gate) -> Self {
        let plans = gate.table().plans().map(|(number, plan)| (number, plan.name.to_string()));
        let envs = (0..).map_while(|number| gate.table().env(number));
        Self { plans: plans.collect(), envs: envs.map(|env| env.to_string()).collect() }
    }
}
