//! How a turn ends, whatever the agent.

use crate::agent::{Context, Error, Stopped};
use crate::event::{AgentEvent, Halt, bounded};
use crate::exec;

/// An event that cannot be recorded ends the turn.
pub(crate) fn halted(halt: Halt) -> Stopped {
    Stopped::Failed(halt.into())
}

/// A command that cannot be run ends the turn.
pub(crate) fn exec_failed(error: exec::Error) -> Stopped {
    Stopped::Failed(error.into())
}

/// Records how a turn ended. When even that fails, the first failure is the one to tell.
pub(crate) async fn close(summary: &str, stopped: Stopped, context: &Context<'_>) -> Stopped {
    let event = match &stopped {
        Stopped::Completed => AgentEvent::Finished {
            summary: bounded(summary),
        },
        Stopped::Failed(Error::Halted(_)) => return stopped,
        Stopped::Failed(error) => AgentEvent::Error {
            text: bounded(&with_causes(error)),
        },
        _ => return stopped,
    };
    match (context.observer.record(event).await, stopped) {
        (Err(halt), Stopped::Completed) => halted(halt),
        (_, stopped) => stopped,
    }
}

/// An error with its causes, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
