//! How a state may change: one total function for each machine.

use std::fmt;

/// A state machine. [`Machine::next`] is the only way from one state to another; the ledger
/// stores what it returns, and nothing else writes a state.
pub trait Machine: Copy + Eq + fmt::Debug + fmt::Display + 'static {
    /// What may be asked of it. It shows itself to people as what cannot be done to the entity:
    /// `paused`.
    type Command: Copy + Eq + fmt::Debug + fmt::Display + 'static;
    /// What the machine describes: `request`, `job`, `attempt` or `change`.
    const NAME: &'static str;
    /// Every state.
    const STATES: &'static [Self];
    /// Every command.
    const COMMANDS: &'static [Self::Command];

    /// The state after the command, or none where the command is not allowed.
    #[must_use]
    fn next(self, command: Self::Command) -> Option<Self>;

    /// Whether nothing can change any more.
    #[must_use]
    fn is_terminal(self) -> bool;

    /// The state after the command.
    ///
    /// # Errors
    /// When the command is not allowed in this state; nothing changes then.
    fn apply(self, command: Self::Command) -> Result<Self, Illegal> {
        self.next(command).ok_or_else(|| Illegal {
            machine: Self::NAME,
            state: self.to_string(),
            command: command.to_string(),
        })
    }
}

/// Every step that a machine allows: state, command, state. Where two commands lead from one state
/// to the same other one, both are there.
#[must_use]
pub fn steps<M: Machine>() -> Vec<(M, M::Command, M)> {
    let all = M::STATES
        .iter()
        .flat_map(|state| M::COMMANDS.iter().map(move |command| (*state, *command)));
    all.filter_map(|(from, command)| Some((from, command, from.next(command)?)))
        .collect()
}

/// A command that the state does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {machine} is {state} {}", cannot(state, command))]
pub struct Illegal {
    /// The kind of entity.
    pub machine: &'static str,
    /// Its state.
    pub state: String,
    /// What was asked, in words: `paused`.
    pub command: String,
}

fn cannot(state: &str, command: &str) -> String {
    if state == command {
        "already".into()
    } else {
        format!("and cannot be {command}")
    }
}
