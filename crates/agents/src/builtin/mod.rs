//! The built-in agent: it needs nothing installed. Its loop is here, on the trusted side; its
//! commands run inside the sandbox.
//!
//! What the model sees depends only on the task, the model's answers and the tools' outputs:
//! no time, id or chance comes in, so that a recording can be replayed. An intent is recorded
//! before its tool runs.

mod call;
mod edit;
mod output;
mod prompt;
mod repetition;
mod session;
mod shell;
mod tools;

use std::time::Duration;

use crate::agent::{Agent, Error, Recovery, Session, Task};

use session::BuiltinSession;

/// How the built-in agent behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The most tokens that the model may write in one step, reasoning included.
    pub max_output: u32,
    /// Tokens, by a generous estimate, above which old outputs are taken out of the
    /// conversation.
    pub context_tokens: u64,
    /// How often a call of the model is made before it counts as failed.
    pub tries: u32,
    /// How often in a row the network may fail: a wrong address should be known soon.
    pub network_tries: u32,
    /// The wait before the second try; it doubles with each one.
    pub first_wait: Duration,
    /// The longest wait. A provider that asks for more has failed.
    pub longest_wait: Duration,
    /// How long the model may be silent in the middle of an answer.
    pub silence: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_output: 16_384,
            context_tokens: 160_000,
            tries: 6,
            network_tries: 4,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(90),
            // As long as a turn: a gateway before the model knows how patient to be with it.
            silence: Duration::from_secs(3600),
        }
    }
}

/// The built-in agent.
#[derive(Debug, Clone, Default)]
pub struct Builtin {
    options: Options,
}

impl Builtin {
    /// The agent with these options.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { options }
    }
}

impl Agent for Builtin {
    fn name(&self) -> &str {
        "builtin"
    }

    fn start(&self, task: Task) -> Box<dyn Session> {
        Box::new(BuiltinSession::new(task, self.options.clone()))
    }

    fn recovery(&self) -> Recovery {
        Recovery::Journal
    }

    fn resume(&self, task: Task, state: &[u8]) -> Result<Box<dyn Session>, Error> {
        let session =
            BuiltinSession::restore(task, self.options.clone(), state).map_err(|source| {
                Error::State {
                    agent: self.name().to_owned(),
                    source,
                }
            })?;
        Ok(Box::new(session))
    }
}
