//! What an agent does, in one form whatever the agent.

use async_trait::async_trait;
use dialects::Usage;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The longest text in one event, in bytes; longer ones are cut, and say so.
pub const MAX_TEXT: usize = 64 << 10;

/// Something that an agent did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum AgentEvent {
    /// The agent's own conversation has this id, with which it can be resumed.
    Session {
        /// The id, in the agent's form.
        id: String,
    },
    /// The agent asks its model for the next step.
    TurnStarted {
        /// The step, counted from 1 over the whole session.
        turn: u32,
    },
    /// It says something. A text may come in several pieces.
    Text {
        /// The piece.
        text: String,
    },
    /// It reasons. May come in several pieces.
    Reasoning {
        /// The piece.
        text: String,
    },
    /// It is about to use a tool. For the built-in agent, this is recorded before the tool
    /// runs.
    ToolCall {
        /// The call's id, which its result repeats.
        id: String,
        /// The tool.
        name: String,
        /// What the tool is called with.
        input: Value,
    },
    /// A tool has run.
    ToolResult {
        /// The call's id.
        id: String,
        /// What the model was told, word for word.
        output: String,
        /// Bytes of the tool's output that the model was not told.
        omitted: u64,
        /// The exit code, where the tool has one.
        exit: Option<i32>,
        /// Whether the tool did what was asked.
        ok: bool,
        /// How long it took, in milliseconds.
        duration_ms: u64,
    },
    /// What a step used, by the account of the model's provider.
    Usage {
        /// The tokens.
        usage: Usage,
    },
    /// The model's provider failed, and is asked again.
    Retry {
        /// What happened.
        reason: String,
        /// The wait before the next try, in milliseconds.
        wait_ms: u64,
    },
    /// It asks a person.
    Question {
        /// What.
        text: String,
    },
    /// Something went wrong for it.
    Error {
        /// What.
        text: String,
    },
    /// It ended its turn.
    Finished {
        /// What it says it did.
        summary: String,
    },
}

/// The record cannot be kept any more: the agent must not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the agent's events cannot be recorded: {reason}")]
pub struct Halt {
    /// Why.
    pub reason: String,
}

/// Records what an agent does.
#[async_trait]
pub trait Observer: Send + Sync {
    /// Records an event. The agent goes on only after this has returned, so that a tool never
    /// runs before its call is recorded.
    ///
    /// # Errors
    ///
    /// [`Halt`] when the event cannot be recorded: the agent stops.
    async fn record(&self, event: AgentEvent) -> Result<(), Halt>;
}

/// A text that fits into an event.
pub(crate) fn bounded(text: &str) -> String {
    if text.len() <= MAX_TEXT {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(MAX_TEXT);
    let kept = text.get(..end).unwrap_or_default();
    format!("{kept}\n[{} bytes omitted]", text.len() - end)
}
