//! The state word of the page: what requests may expect of the agent.

use keytally_fleet_plan::on_loss::OnLoss;

/// The agent's state, as requests see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There is no agent.
    Absent,
    /// The first second at a store unlike the last one: credits are spent, and none are requested.
    Learning,
    /// The store answers.
    Leading,
    /// The store does not answer.
    Cut,
}

/// The state word: the state in bits 0 to 7, the choice on loss in bits 8 to 15, the number of
/// machines in bits 32 to 63.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateWord {
    /// The agent's state.
    pub state: State,
    /// What requests get that find no credits without a store; `None` before the first agent.
    pub on_loss: Option<OnLoss>,
    /// The number of machines, by which [`OnLoss::Share`] divides limits.
    pub machines: u32,
}

const STATES: [State; 4] = [State::Absent, State::Learning, State::Leading, State::Cut];
const CHOICES: [OnLoss; 3] = [OnLoss::Closed, OnLoss::Share, OnLoss::Open];
const CHOICE_SHIFT: u32 = 8;
const MACHINES_SHIFT: u32 = 32;

impl StateWord {
    /// Reads the word. An unknown state is [`State::Absent`], an unknown choice none.
    pub fn from_bits(bits: u64) -> Self {
        let byte = |shift: u32| usize::from((bits >> shift).to_le_bytes()[0]);
        let choice = byte(CHOICE_SHIFT).checked_sub(1).and_then(|index| CHOICES.get(index));
        Self {
            state: STATES.get(byte(0)).copied().unwrap_or(State::Absent),
            on_loss: choice.copied(),
            machines: u32::try_from(bits >> MACHINES_SHIFT).unwrap_or(u32::MAX),
        }
    }

    /// Returns the word.
    pub fn bits(self) -> u64 {
        let choice = match self.on_loss {
            None => 0,
            Some(OnLoss::Closed) => 1,
            Some(OnLoss::Share) => 2,
            Some(OnLoss::Open) => 3,
        };
        let state = match self.state {
            State::Absent => 0,
            State::Learning => 1,
            State::Leading => 2,
            State::Cut => 3,
        };
        state | choice << CHOICE_SHIFT | u64::from(self.machines) << MACHINES_SHIFT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_word_is_read_as_written() {
        for state in STATES {
            for on_loss in [None].into_iter().chain(CHOICES.map(Some)) {
                for machines in [0, 1, u32::MAX] {
                    let word = StateWord { state, on_loss, machines };
                    assert_eq!(StateWord::from_bits(word.bits()), word);
                }
            }
        }
        let leading = StateWord { state: State::Leading, on_loss: Some(OnLoss::Open), machines: 5 };
        assert_eq!(leading.bits(), 5 << 32 | 3 << 8 | 2);
        let unknown = StateWord::from_bits(4 << 8 | 4);
        assert_eq!((unknown.state, unknown.on_loss), (State::Absent, None));
    }
}
